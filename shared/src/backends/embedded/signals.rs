//! Signals inside one process.

use async_trait::async_trait;
use tokio::sync::broadcast;

use crate::ports::signals::{Signal, Signals};

/// Signals that a listener may fall behind before it misses some, which the run rows make up for.
const WAITING: usize = 1024;

/// The adapter.
pub struct EmbeddedSignals(broadcast::Sender<Signal>);

impl Default for EmbeddedSignals {
    fn default() -> Self {
        Self(broadcast::channel(WAITING).0)
    }
}

#[async_trait]
impl Signals for EmbeddedSignals {
    async fn send(&self, signal: Signal) {
        // An error only says that nobody listens.
        let _ = self.0.send(signal);
    }

    fn listen(&self) -> broadcast::Receiver<Signal> {
        self.0.subscribe()
    }
}
