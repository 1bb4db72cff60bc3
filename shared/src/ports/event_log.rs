//! The event log: the live part of every run's events, appended by one fenced writer and followed by any number of
//! readers. What a step's commit has put into the archive (the store) may be gone from here.

use async_trait::async_trait;
use tokio::sync::broadcast;

use crate::domain::event::Event;
use crate::domain::ids::RunId;
use crate::domain::lease::Lease;
use crate::domain::position::SeqId;

/// Why the log did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A later claim has opened the log: this writer must stop without a word.
    #[error("run {run} was opened by a later claim than epoch {epoch}")]
    Fenced {
        /// The run.
        run: RunId,
        /// The refused epoch.
        epoch: crate::domain::lease::LeaseEpoch,
    },
    /// The batch does not follow the tail. After a loss of data the tail is smaller than the writer knows: open again,
    /// then append what is missing.
    #[error("the batch begins at {first}, but the log ends at {tail}")]
    Position {
        /// First number of the refused batch.
        first: SeqId,
        /// The last number that the log has.
        tail: SeqId,
    },
    /// The log cannot be reached or does not answer. The append may have been applied: send the same again.
    #[error("the event log is unavailable: {0}")]
    Unavailable(String),
}

/// Events that were appended together, in order; never empty.
pub type Batch = std::sync::Arc<[Event]>;

/// What a follower hears.
#[derive(Debug, Clone)]
pub enum Live {
    /// New events, at the tail when they were sent. Deliveries can be lost, never reordered: a gap is filled by a read.
    Events(Batch),
    /// Something may have been missed, or the run may have ended: read the log and the run again.
    Check,
}

/// A place at the live tail of one run. Dropping it ends the subscription; the last one of a process ends its reader.
pub struct Subscription {
    /// What is new. A receiver that lags has missed batches and reads the log instead.
    pub live: broadcast::Receiver<Live>,
    /// Keeps the process's reader of this run alive.
    pub guard: Box<dyn std::any::Any + Send + Sync>,
}

/// The port.
#[async_trait]
pub trait EventLog: Send + Sync + 'static {
    /// Makes `lease` the writer and tells the tail: the last number that the log or the archive has. If the log ends
    /// before `archived`, it goes on from there: readers find what lies between in the archive.
    ///
    /// # Errors
    /// [`LogError::Fenced`] if a later epoch has opened the log, [`LogError::Unavailable`].
    async fn open(&self, lease: &Lease, archived: SeqId) -> Result<SeqId, LogError>;

    /// Appends events that follow the tail, all or nothing, and wakes the followers of every process. A batch that is
    /// already there in the same place is accepted again. `events` is not empty and consecutive, within the limits of
    /// one batch (`domain::limits`).
    ///
    /// # Errors
    /// [`LogError::Fenced`], [`LogError::Position`], [`LogError::Unavailable`].
    async fn append(&self, lease: &Lease, events: &[Event]) -> Result<(), LogError>;

    /// Events after a cursor that the log still has, in order, at most one read's worth; they may begin later than
    /// `after + 1`, then what is missing is in the archive. Empty: nothing newer here.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn read(&self, run: RunId, after: SeqId) -> Result<Vec<Event>, LogError>;

    /// Follows a run. What is appended after this call returns is delivered or noticed as missing.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn subscribe(&self, run: RunId) -> Result<Subscription, LogError>;

    /// Runs that this process follows now.
    fn followed(&self) -> Vec<RunId>;

    /// Tells this process's followers of a run to look again.
    fn check(&self, run: RunId);

    /// The run has ended and is archived whole: the log may forget it after a while.
    ///
    /// # Errors
    /// [`LogError::Unavailable`]; the log forgets it later by itself.
    async fn finish(&self, lease: &Lease) -> Result<(), LogError>;

    /// Whether the log answers.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn ping(&self) -> Result<(), LogError>;

    /// The adapter's name, for the health answer.
    fn name(&self) -> &'static str;
}
