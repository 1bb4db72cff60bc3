//! The worker's main loop: a permit first, then a delivery, so that the limit cannot be passed.

use std::sync::Arc;
use std::time::Duration;

use holdfast_shared::domain::limits::DELIVERY_HELD;
use holdfast_shared::ports::run_queue::{Consumer, Delivery, Settlement};
use holdfast_shared::ports::signals::Signal;
use holdfast_shared::ports::store::WorkerFacts;
use holdfast_shared::telemetry::traces;
use tokio::sync::Semaphore;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::Worker;
use crate::claim::Taken;
use crate::disposition::AttemptEnd;
use crate::lease::Heart;

/// Wait after the queue or the store could not be reached.
const RETRY_EVERY: Duration = Duration::from_millis(500);
/// How long abandoned steps may take to notice.
const ABANDON_GRACE: Duration = Duration::from_secs(5);

/// How the worker stops, in two stages.
#[derive(Clone, Default)]
pub struct Stopping {
    /// Take nothing new; hand runs back at the next step boundary.
    pub drain: CancellationToken,
    /// The time for that is over: hand runs back at once.
    pub abandon: CancellationToken,
}

/// Why a worker could not start or go on.
#[derive(Debug, thiserror::Error)]
#[error("the worker cannot start its heartbeat: {0}")]
pub struct WorkerError(#[from] std::io::Error);

impl Worker {
    /// Works until `shutdown`, then drains: takes nothing new, hands its runs back at step boundaries within the drain
    /// time, and the rest after it. `ready` is called once the first heartbeat is in.
    ///
    /// # Errors
    /// The worker could not start.
    pub async fn run(&self, shutdown: CancellationToken, ready: impl FnOnce()) -> Result<(), WorkerError> {
        let (heart, has_beaten) = Heart::start(
            self.id,
            self.settings.heartbeat,
            Arc::clone(&self.services.heartbeat_store),
            WorkerFacts { sandbox: self.services.toolbox.python.level().to_string() },
            Arc::clone(&self.holdings),
        )?;
        tokio::select! {
            _ = has_beaten => ready(),
            () = shutdown.cancelled() => return Ok(()),
        }
        let stopping = Stopping { drain: shutdown.clone(), abandon: CancellationToken::new() };
        let attempts = TaskTracker::new();
        let drained = CancellationToken::new();
        let work = async {
            tokio::join!(
                self.take(&stopping, &attempts),
                self.hear_signals(&shutdown),
                self.rescue(&shutdown),
                self.answer_expired(&shutdown),
                self.store_mcp_tools(&shutdown),
            );
            self.drain(&stopping, &attempts).await;
            drained.cancel();
        };
        // Callbacks go on while runs still end.
        tokio::join!(work, self.send_callbacks(&drained));
        self.services.toolbox.mcp.close().await;
        drop(heart);
        if let Err(error) = self.services.store.retire_worker(self.id).await {
            tracing::warn!(worker.id = %self.id, %error, "the worker stays on the list until its lease ends");
        }
        Ok(())
    }

    async fn take(&self, stopping: &Stopping, attempts: &TaskTracker) {
        let permits = Arc::new(Semaphore::new(usize::from(self.settings.concurrency)));
        let Some(mut consumer) = self.consume(&stopping.drain).await else { return };
        loop {
            let permit = tokio::select! {
                permit = Arc::clone(&permits).acquire_owned() => permit,
                () = stopping.drain.cancelled() => break,
            };
            // The semaphore is never closed.
            let Ok(permit) = permit else { break };
            let delivery = tokio::select! {
                delivery = consumer.next() => delivery,
                () = stopping.drain.cancelled() => break,
            };
            let Some(delivery) = delivery else {
                match self.consume(&stopping.drain).await {
                    Some(again) => consumer = again,
                    None => return,
                }
                continue;
            };
            let (worker, stopping) = (self.clone(), stopping.clone());
            attempts.spawn(async move {
                worker.handle(delivery, &stopping).await;
                drop(permit);
            });
        }
        consumer.close().await;
    }

    async fn consume(&self, stopping: &CancellationToken) -> Option<Box<dyn Consumer>> {
        loop {
            match self.services.queue.consume(self.settings.concurrency).await {
                Ok(consumer) => return Some(consumer),
                Err(error) => tracing::warn!(worker.id = %self.id, %error, "no place at the queue yet"),
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY_EVERY) => {}
                () = stopping.cancelled() => return None,
            }
        }
    }

    /// One delivery, from claim to settlement. It is not held for longer than brokers allow: after that the run goes
    /// on without it, and should this worker die, the rescuer makes a new hint.
    async fn handle(&self, delivery: Box<dyn Delivery>, stopping: &Stopping) {
        let claimed = match self.claim(delivery.as_ref(), &stopping.drain).await {
            Ok(Taken::Claimed(claimed)) => claimed,
            Ok(Taken::Nothing) => return settle(delivery, AttemptEnd::Nothing.settlement()).await,
            Ok(Taken::Stopping) => return settle(delivery, AttemptEnd::Untried.settlement()).await,
            Err(error) => {
                tracing::warn!(run.id = %delivery.hint().run, %error, "the run cannot be claimed now; it goes back to the queue");
                tokio::select! {
                    () = tokio::time::sleep(RETRY_EVERY) => {}
                    () = stopping.drain.cancelled() => {}
                }
                return settle(delivery, AttemptEnd::Untried.settlement()).await;
            }
        };
        let span = tracing::info_span!(
            "attempt",
            otel.kind = "consumer",
            run.id = %claimed.run.id,
            agent.id = %claimed.run.agent_id,
            lease.epoch = %claimed.lease.epoch,
        );
        traces::join(&span, delivery.hint().trace.as_deref());
        let mut attempt = std::pin::pin!(self.execute(*claimed, stopping).instrument(span));
        tokio::select! {
            end = &mut attempt => settle(delivery, end.settlement()).await,
            () = tokio::time::sleep(DELIVERY_HELD) => {
                settle(delivery, Settlement::Done).await;
                attempt.await;
            }
        }
    }

    async fn hear_signals(&self, shutdown: &CancellationToken) {
        let mut signals = self.services.signals.listen();
        loop {
            tokio::select! {
                signal = signals.recv() => match signal {
                    Ok(Signal::Cancel(run)) => self.holdings.cancel(run),
                    // What was missed comes with the next heartbeat.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                },
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn drain(&self, stopping: &Stopping, attempts: &TaskTracker) {
        attempts.close();
        let count = attempts.len();
        if count > 0 {
            tracing::info!(worker.id = %self.id, runs = count, "draining: runs are handed back at their next step");
        }
        if tokio::time::timeout(self.settings.drain, attempts.wait()).await.is_ok() {
            return;
        }
        tracing::info!(worker.id = %self.id, runs = attempts.len(), "the drain time is over: handing back in mid-step");
        stopping.abandon.cancel();
        if tokio::time::timeout(ABANDON_GRACE, attempts.wait()).await.is_err() {
            tracing::warn!(worker.id = %self.id, runs = attempts.len(), "some runs could not be handed back; their lease ends soon");
        }
    }
}

async fn settle(delivery: Box<dyn Delivery>, settlement: Settlement) {
    let run = delivery.hint().run;
    if let Err(error) = delivery.settle(settlement).await {
        tracing::debug!(run.id = %run, %error, "the delivery will come again and find its run taken care of");
    }
}
