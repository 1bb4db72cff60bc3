//! Time and identifiers come in here, so that tests and simulation control them.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use crate::domain::Timestamp;
use crate::domain::ids::Id;

/// Where the time and new ids come from.
pub trait Source: Send + Sync + 'static {
    /// The time now, in whole microseconds.
    fn now(&self) -> Timestamp;
    /// A new UUID of version 4.
    fn uuid(&self) -> Uuid;
}

/// A shared [`Source`], as services carry it.
#[derive(Clone)]
pub struct Seams(Arc<dyn Source>);

impl Seams {
    /// The wall clock and the operating system's randomness.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(System))
    }

    /// A source of one's own.
    #[must_use]
    pub fn new(source: Arc<dyn Source>) -> Self {
        Self(source)
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.0.now()
    }

    /// A new id.
    #[must_use]
    pub fn id<I: Id>(&self) -> I {
        I::from_uuid(self.0.uuid())
    }

    /// A new bare UUID.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.0.uuid()
    }
}

impl fmt::Debug for Seams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seams")
    }
}

struct System;

impl Source for System {
    fn now(&self) -> Timestamp {
        use chrono::SubsecRound;
        chrono::Utc::now().trunc_subsecs(6)
    }

    fn uuid(&self) -> Uuid {
        Uuid::new_v4()
    }
}
