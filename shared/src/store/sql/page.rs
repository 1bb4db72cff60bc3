//! Pages of lists: the bounds, the order and the limit of a query.

use uuid::Uuid;

use super::Builder;
use crate::domain::page::{Order, Page};

/// Where a row stands in the order of its list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Value of the column that the list is ordered by.
    pub(super) key: i64,
    /// The row's id, where that column is not unique.
    pub(super) tie: Option<Uuid>,
}

/// The order of a list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys {
    /// The column that the list is ordered by.
    pub(super) column: &'static str,
    /// Whether `id` decides between rows of the same key.
    pub(super) has_ties: bool,
}

/// In which direction a query reads, seen from the requested order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// In the requested order.
    Forwards,
    /// Against it, because the rows nearest to a `before` are its last ones.
    Backwards,
}

impl Direction {
    /// Puts what was read into the requested order.
    pub(super) fn restore<T>(self, mut rows: Vec<T>) -> Vec<T> {
        if self == Self::Backwards {
            rows.reverse();
        }
        rows
    }
}

/// Ends a query that has a WHERE clause already with the page's bounds, order and limit.
pub(super) fn push<I>(
    builder: &mut Builder,
    keys: Keys,
    page: &Page<I>,
    after: Option<Place>,
    before: Option<Place>,
) -> Direction {
    let (later, earlier) = match page.order {
        Order::Ascending => (" > ", " < "),
        Order::Descending => (" < ", " > "),
    };
    push_bound(builder, keys, later, after);
    push_bound(builder, keys, earlier, before);
    let direction = if before.is_some() && after.is_none() { Direction::Backwards } else { Direction::Forwards };
    let is_ascending = (page.order == Order::Ascending) == (direction == Direction::Forwards);
    let word = if is_ascending { " ASC" } else { " DESC" };
    builder.push(" ORDER BY ").push(keys.column).push(word);
    if keys.has_ties {
        builder.push(", id").push(word);
    }
    builder.push(" LIMIT ").push_bind(i64::from(page.limit));
    direction
}

fn push_bound(builder: &mut Builder, keys: Keys, comparison: &'static str, bound: Option<Place>) {
    let Some(place) = bound else { return };
    match place.tie {
        Some(tie) => {
            builder.push(" AND (").push(keys.column).push(", id)").push(comparison).push("(");
            builder.push_bind(place.key).push(", ").push_bind(tie).push(")");
        }
        None => {
            builder.push(" AND ").push(keys.column).push(comparison).push_bind(place.key);
        }
    }
}
