//! Fan-out: the stored events of a run as a resumable SSE stream, to any number of readers.
//!
//! Events live in two places. The archive (`Store::events`) has all up to `Run::archived` for as long as the row
//! lives; the live log (`EventLog`) has what came since, and often more. A reader subscribes first, then reads the log
//! from its cursor, fills from the archive what the log no longer has, and then follows the subscription. Only events
//! that follow the last one are taken from there: older ones are dropped, a gap sends the reader back to the log. So
//! pushes may be lost or doubled, and the numbers of a stream still have no gap and no repeat (G2).
//!
//! A stream ends after `[DONE]`, or it is cut and the client resumes (G4). Nothing here makes up an end.

mod hub;
mod reader;
mod response;
#[cfg(test)]
mod tests;

use std::time::Duration;

use holdfast_shared::domain::position::SeqId;
use holdfast_shared::ports::event_log::LogError;
use holdfast_shared::ports::store::StoreError;

pub use hub::Hub;

/// What keeps a silent connection open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pings {
    /// Ping events, which clients see.
    Events,
    /// SSE comments, which they do not.
    Comments,
}

/// Whether frames have an `id:` line before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdLines {
    /// None: the official Python SDK breaks on them.
    Hidden,
    /// Before each frame, for a browser's EventSource, which resumes by them.
    Shown,
}

/// How one connection wants its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamOptions {
    /// The last event that the client has.
    pub after: SeqId,
    /// What keeps it open.
    pub pings: Pings,
    /// Whether it shows ids.
    pub id_lines: IdLines,
}

/// Times of the fan-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HubOptions {
    /// The longest silence on a connection.
    pub keepalive: Duration,
    /// How often the runs that are followed are looked at.
    pub check_every: Duration,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self { keepalive: Duration::from_secs(20), check_every: Duration::from_secs(2) }
    }
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum FanoutError {
    /// The events that the client still needs are no longer kept.
    #[error("the events of this run are no longer kept")]
    Expired,
    /// The archive or the run cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The live log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// This process takes no more streams.
    #[error("the server is shutting down")]
    ShuttingDown,
}
