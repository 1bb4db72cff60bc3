//! The relay: publishes what is in the outbox. Fresh rows come by a nudge right after their commit; a periodic sweep
//! finds what a crash or an outage left. Both take the same path, and publishing twice costs only time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use crate::ports::run_queue::{RunHint, RunQueue};
use crate::ports::store::{OutboxEntry, Store};

/// Entries that wait for the relay; beyond it they are left to the sweep.
const WAITING: usize = 4096;
/// Most hints in one publication.
const BATCH: usize = 256;
/// How often the outbox is swept.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Publishes outbox rows.
pub struct Relay {
    store: Arc<dyn Store>,
    queue: Arc<dyn RunQueue>,
    nudges: mpsc::Sender<OutboxEntry>,
    waiting: Mutex<mpsc::Receiver<OutboxEntry>>,
}

impl Relay {
    /// A relay; nothing happens before [`Relay::run`].
    #[must_use]
    pub fn new(store: Arc<dyn Store>, queue: Arc<dyn RunQueue>) -> Arc<Self> {
        let (nudges, waiting) = mpsc::channel(WAITING);
        Arc::new(Self { store, queue, nudges, waiting: Mutex::new(waiting) })
    }

    /// Hands over fresh rows. Never waits: what does not fit is found by the sweep.
    pub fn nudge(&self, entries: Vec<OutboxEntry>) {
        for entry in entries {
            if self.nudges.try_send(entry).is_err() {
                break;
            }
        }
    }

    /// Publishes until `shutdown`, then what is still waiting.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut waiting = self.waiting.lock().await;
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                _ = waiting.recv_many(&mut batch, BATCH) => self.publish(&mut batch).await,
                _ = sweep.tick() => self.sweep().await,
                () = shutdown.cancelled() => break,
            }
        }
        while let Ok(entry) = waiting.try_recv() {
            batch.push(entry);
        }
        self.publish(&mut batch).await;
    }

    async fn sweep(&self) {
        loop {
            let mut due = match self.store.outbox_due(u32::try_from(BATCH).unwrap_or(u32::MAX)).await {
                Ok(due) => due,
                Err(error) => return tracing::warn!(%error, "the outbox cannot be read; trying again"),
            };
            let is_last = due.len() < BATCH;
            self.publish(&mut due).await;
            if is_last {
                return;
            }
        }
    }

    /// Publishes and forgets; what fails stays in the outbox and becomes due again.
    async fn publish(&self, batch: &mut Vec<OutboxEntry>) {
        if batch.is_empty() {
            return;
        }
        let (ids, hints): (Vec<i64>, Vec<RunHint>) = batch.drain(..).map(|entry| (entry.id, entry.hint)).unzip();
        if let Err(error) = self.queue.publish(&hints).await {
            return tracing::warn!(%error, count = hints.len(), "hints stay in the outbox; trying again");
        }
        if let Err(error) = self.store.outbox_done(&ids).await {
            tracing::warn!(%error, "published hints stay in the outbox and will be published again");
        }
    }
}
