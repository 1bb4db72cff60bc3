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
