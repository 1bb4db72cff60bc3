//! What becomes of a delivery after an attempt: decided in one function.

use holdfast_shared::ports::run_queue::Settlement;

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptEnd {
    /// The run has ended, and its row says so.
    Settled,
    /// The run was given up after too many attempts, and its row says so.
    GivenUp,
    /// The run was handed back: a new hint is in the outbox.
    HandedBack,
    /// A later claim exists: whoever made it has a hint of its own.
    Fenced,
    /// There was nothing to do.
    Nothing,
    /// This worker could not even try.
    Untried,
}

impl AttemptEnd {
    /// The settlement that follows.
    #[must_use]
    pub const fn settlement(self) -> Settlement {
        match self {
            Self::Settled | Self::HandedBack | Self::Fenced | Self::Nothing => Settlement::Done,
            Self::GivenUp => Settlement::DeadLetter,
            Self::Untried => Settlement::HandBack,
        }
    }
}
