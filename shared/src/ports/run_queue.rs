//! The run queue: hints that a run wants a worker. The run row is the truth; losing or doubling a hint costs only time.

use async_trait::async_trait;

use crate::domain::ids::RunId;

/// The queue cannot be reached, or did not take the hint.
#[derive(Debug, thiserror::Error)]
#[error("the run queue is unavailable: {0}")]
pub struct QueueError(pub String);

/// A hint. It holds the id and the trace context only, never data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunHint {
    /// The run.
    pub run: RunId,
    /// W3C `traceparent` of the request, if it had one.
    pub trace: Option<String>,
}

/// What becomes of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// Done with: the row says what happened.
    Done,
    /// Give it to another worker; uses up no attempt.
    HandBack,
    /// Given up: keep it where an operator can see it and put it back.
    DeadLetter,
}

/// A hint in this worker's hands. Dropping it without settling gives it back.
#[async_trait]
pub trait Delivery: Send + Sync {
    /// The hint.
    fn hint(&self) -> &RunHint;
    /// Whether somebody had it before and lost it: evidence that its holder is gone.
    fn was_returned(&self) -> bool;
    /// Settles it.
    ///
    /// # Errors
    /// The queue is gone; it will deliver the hint again.
    async fn settle(self: Box<Self>, settlement: Settlement) -> Result<(), QueueError>;
}

/// A worker's place at the queue. It survives losses of the connection by itself.
#[async_trait]
pub trait Consumer: Send {
    /// The next delivery. Waits until there is one; `None` only after the queue was shut down in this process.
    /// Cancel-safe: a dropped wait loses nothing.
    async fn next(&mut self) -> Option<Box<dyn Delivery>>;
    /// Leaves the queue: what was reserved for this place and not handed out goes to others at once; what was handed
    /// out stays its holder's until it is settled.
    async fn close(self: Box<Self>);
}

/// The port.
#[async_trait]
pub trait RunQueue: Send + Sync + 'static {
    /// Puts hints on the queue, durably: returns once the broker has confirmed all of them.
    ///
    /// # Errors
    /// Some may not be there; publish all of them again.
    async fn publish(&self, hints: &[RunHint]) -> Result<(), QueueError>;

    /// Takes a place at the queue that holds at most `prefetch` unsettled deliveries.
    ///
    /// # Errors
    /// The queue cannot be reached now.
    async fn consume(&self, prefetch: u16) -> Result<Box<dyn Consumer>, QueueError>;

    /// Whether the queue answers.
    ///
    /// # Errors
    /// It does not.
    async fn ping(&self) -> Result<(), QueueError>;

    /// The adapter's name, for the health answer.
    fn name(&self) -> &'static str;
}
