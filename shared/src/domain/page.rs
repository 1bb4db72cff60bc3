//! Pages of lists.

/// The direction of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Oldest first.
    Ascending,
    /// Newest first.
    Descending,
}

/// Which rows of a list are asked for: those strictly after and before the cursors *in the requested order*, the
/// `limit` nearest to the cursor (api/00 §4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<I> {
    /// Rows after this one.
    pub after: Option<I>,
    /// Rows before this one.
    pub before: Option<I>,
    /// At most so many.
    pub limit: u32,
    /// The requested order.
    pub order: Order,
}

impl<I: PartialEq> Page<I> {
    /// The part of a whole list, given in ascending order, that this page is; `None` if a cursor names nothing in it. For
    /// lists that are short and in memory anyway.
    #[must_use]
    pub fn of<T>(&self, mut all: Vec<T>, id: impl Fn(&T) -> I) -> Option<Vec<T>> {
        if self.order == Order::Descending {
            all.reverse();
        }
        let place = |cursor: &Option<I>| match cursor {
            None => Some(None),
            Some(cursor) => all.iter().position(|item| id(item) == *cursor).map(Some),
        };
        let (after, before) = (place(&self.after)?, place(&self.before)?);
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let start = after.map_or(0, |place| place + 1);
        let end = before.unwrap_or(all.len()).max(start);
        let nearest = if before.is_some() && after.is_none() {
            end.saturating_sub(limit).max(start)..end
        } else {
            start..end.min(start.saturating_add(limit))
        };
        Some(all.into_iter().skip(nearest.start).take(nearest.len()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_a_list_holds_what_is_nearest_to_its_cursor() {
        let (asc, desc) = (Order::Ascending, Order::Descending);
        // Order, after, before, limit, and what is wanted of the numbers 0 to 5.
        type Case = (Order, Option<i32>, Option<i32>, u32, Option<&'static [i32]>);
        let cases: [Case; 12] = [
            (asc, None, None, 3, Some(&[0, 1, 2])),
            (desc, None, None, 3, Some(&[5, 4, 3])),
            (asc, Some(1), None, 2, Some(&[2, 3])),
            (desc, Some(4), None, 2, Some(&[3, 2])),
            (asc, None, Some(4), 2, Some(&[2, 3])),
            (desc, None, Some(1), 2, Some(&[3, 2])),
            (asc, Some(0), Some(5), 2, Some(&[1, 2])),
            (desc, Some(5), Some(0), 10, Some(&[4, 3, 2, 1])),
            (asc, Some(5), None, 2, Some(&[])),
            (asc, Some(4), Some(1), 2, Some(&[])),
            (asc, Some(9), None, 2, None),
            (desc, None, Some(9), 2, None),
        ];
        for (order, after, before, limit, wanted) in cases {
            let page = Page { after, before, limit, order };
            let found = page.of((0..6).collect(), |number| *number);
            assert_eq!(found.as_deref(), wanted, "{order:?} after {after:?} before {before:?}");
        }
    }
}
