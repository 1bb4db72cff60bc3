//! Signals over pub/sub.

use async_trait::async_trait;
use redis::AsyncCommands;
use redis::aio::ConnectionManager;
use tokio::sync::broadcast;

use super::keys::Keys;
use crate::ports::signals::{Signal, Signals};

/// The adapter.
pub struct RedisSignals {
    commands: ConnectionManager,
    keys: Keys,
    heard: broadcast::Sender<Signal>,
}

impl RedisSignals {
    pub(super) const fn new(commands: ConnectionManager, keys: Keys, heard: broadcast::Sender<Signal>) -> Self {
        Self { commands, keys, heard }
    }
}

#[async_trait]
impl Signals for RedisSignals {
    async fn send(&self, signal: Signal) {
        let Signal::Cancel(run) = signal;
        let sent: Result<(), _> = self.commands.clone().publish(self.keys.signals(), format!("cancel {run}")).await;
        if let Err(error) = sent {
            tracing::debug!(run.id = %run, %error, "a signal was lost; the worker's next heartbeat finds the cancel");
        }
    }

    fn listen(&self) -> broadcast::Receiver<Signal> {
        self.heard.subscribe()
    }
}

/// Takes a message of the channel in; what is not a signal is somebody else's and ignored.
pub(super) fn receive(heard: &broadcast::Sender<Signal>, payload: &[u8]) {
    let text = std::str::from_utf8(payload).unwrap_or_default();
    if let Some(run) = text.strip_prefix("cancel ").and_then(|id| id.parse().ok()) {
        // An error only says that nobody listens.
        let _ = heard.send(Signal::Cancel(run));
    }
}
