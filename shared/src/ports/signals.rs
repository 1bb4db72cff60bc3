//! Signals against the stream: what must reach a worker quickly. The run row says the same durably, so a lost signal
//! costs a heartbeat's time.

use async_trait::async_trait;
use tokio::sync::broadcast;

use crate::domain::ids::RunId;

/// A signal to whoever works on a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// A cancel was asked for.
    Cancel(RunId),
}

/// The port. Sending never fails for the caller: what is lost is found in the run row.
#[async_trait]
pub trait Signals: Send + Sync + 'static {
    /// Sends a signal to all workers.
    async fn send(&self, signal: Signal);
    /// Hears what is sent from now on.
    fn listen(&self) -> broadcast::Receiver<Signal>;
}
