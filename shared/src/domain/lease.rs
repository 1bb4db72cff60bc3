//! Who may write for a run.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ids::{RunId, WorkerId};

/// Fencing token of a run: each claim raises it, each write carries it, a smaller one is refused (G5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct LeaseEpoch(i64);

impl LeaseEpoch {
    /// The epoch with this number. Runs start at zero, the first claim makes it one.
    #[must_use]
    pub const fn new(number: i64) -> Self {
        Self(number)
    }

    /// The number itself.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for LeaseEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The right to write for a run, as a claim gave it. Stores and logs check it, whoever holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The run.
    pub run: RunId,
    /// The worker that claimed it.
    pub worker: WorkerId,
    /// The fencing token of that claim.
    pub epoch: LeaseEpoch,
}

/// How old a worker's heartbeat must be before another may take its runs.
///
/// A delivery that the broker gave back says that the holder's connection is gone, which is evidence of its own: then a
/// short silence is enough. Without it the whole lease must have passed. A wrong guess costs a repeated step, never a
/// second writer: the epoch sees to that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakeoverAfter(pub Duration);
