//! One attempt at a claimed run: the boundary for panics, and what follows from each way to end.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use holdfast_shared::domain::lease::Lease;
use holdfast_shared::domain::run::{ErrorType, Outcome, Run, RunError};
use holdfast_shared::ports::store::{Claimed, RunEnd, StoreError};

use crate::Worker;
use crate::agent::attempt::{Attempt, Interrupt};
use crate::consumer::Stopping;
use crate::disposition::AttemptEnd;
use crate::events::writer::Writer;

/// Wait between tries to tell the store that a run is given back.
const RELEASE_EVERY: Duration = Duration::from_millis(250);
/// How long the last events may take to reach a log that is slow; readers find them in the archive otherwise.
const LAST_EVENTS: Duration = Duration::from_secs(5);

impl Worker {
    /// Executes a claimed run until it ends, is handed back or lost.
    pub(crate) async fn execute(&self, claimed: Claimed, stopping: &Stopping) -> AttemptEnd {
        let has_callback = claimed.run.request.callback_url.is_some();
        let end = self.attempt(claimed, stopping).await;
        if has_callback {
            self.callbacks.notify_one();
        }
        end
    }

    async fn attempt(&self, claimed: Claimed, stopping: &Stopping) -> AttemptEnd {
        let (run, lease, attempts) = (claimed.run.clone(), claimed.lease, claimed.attempts);
        tracing::info!(run.id = %run.id, agent.id = %run.agent_id, lease.epoch = %lease.epoch, attempts, "run claimed");
        if attempts > self.settings.max_attempts {
            let error = RunError {
                error_type: ErrorType::StreamIncomplete,
                message: "The run was lost and could not be recovered.".to_owned(),
                detail: Some(format!("{} workers were lost in the same step", attempts - 1)),
                provider_status: None,
            };
            return self.end_outside_of_steps(&run, &lease, Outcome::failed(error), AttemptEnd::GivenUp).await;
        }
        let cancel = self.holdings.enter(run.id);
        if run.cancel_requested {
            cancel.cancel();
        }
        let attempt = Attempt::run(&self.services, &self.settings, claimed, cancel, stopping.clone());
        let result = AssertUnwindSafe(attempt).catch_unwind().await;
        let end = match result {
            Ok(Ok(())) => AttemptEnd::Settled,
            Ok(Err(Interrupt::Fenced)) => AttemptEnd::Fenced,
            Ok(Err(Interrupt::Drained)) => self.release(&lease).await,
            Ok(Err(Interrupt::Store(error))) => {
                tracing::warn!(run.id = %run.id, %error, "the store failed in mid-run; the run is handed back");
                self.release(&lease).await
            }
            Err(_panic) => {
                tracing::error!(run.id = %run.id, "a defect ended the run");
                let error = RunError {
                    error_type: ErrorType::InternalError,
                    message: "The server hit a defect while it worked on this run.".to_owned(),
                    detail: None,
                    provider_status: None,
                };
                self.end_outside_of_steps(&run, &lease, Outcome::failed(error), AttemptEnd::Settled).await
            }
        };
        self.holdings.leave(run.id);
        end
    }

    /// Gives the run back. This worker is alive, so nobody else would take it from a store that does not know: it
    /// tries until the store has heard it.
    async fn release(&self, lease: &Lease) -> AttemptEnd {
        loop {
            match self.services.store.release(lease).await {
                Ok(entries) => {
                    self.services.relay.nudge(entries);
                    return AttemptEnd::HandedBack;
                }
                Err(StoreError::Fenced) => return AttemptEnd::Fenced,
                Err(error) => tracing::warn!(run.id = %lease.run, %error, "the run cannot be given back yet"),
            }
            tokio::time::sleep(RELEASE_EVERY).await;
        }
    }

    async fn end_outside_of_steps(&self, run: &Run, lease: &Lease, outcome: Outcome, end: AttemptEnd) -> AttemptEnd {
        let log = Arc::clone(&self.services.log);
        let Ok(mut writer) = Writer::open(log, *lease, run.request.attachment, run.archived).await else {
            return AttemptEnd::Fenced;
        };
        let at = self.services.seams.now();
        let last = writer.stage(|encoder| encoder.end(&outcome, &run.usage));
        let mut events = writer.unarchived().to_vec();
        events.extend_from_slice(&last);
        match self
            .services
            .store
            .settle(lease, &RunEnd { outcome, at, closing: self.services.seams.id(), forgets_messages: false, events })
            .await
        {
            Ok(entries) => self.services.relay.nudge(entries),
            Err(StoreError::Fenced) => return AttemptEnd::Fenced,
            Err(error) => {
                tracing::warn!(run.id = %run.id, %error, "the end of the run cannot be stored; it is handed back");
                return self.release(lease).await;
            }
        }
        writer.committed(last);
        self.publish_end(lease, &mut writer).await;
        end
    }

    async fn publish_end(&self, lease: &Lease, writer: &mut Writer) {
        publish_end(&*self.services.log, lease, writer).await;
    }
}

/// Appends the last events of an ended run and lets the log forget it. Nothing rests on it: the archive has all.
pub(crate) async fn publish_end(
    log: &dyn holdfast_shared::ports::event_log::EventLog,
    lease: &Lease,
    writer: &mut Writer,
) {
    match tokio::time::timeout(LAST_EVENTS, writer.flush()).await {
        Ok(Ok(())) => {
            if let Err(error) = log.finish(lease).await {
                tracing::debug!(run.id = %lease.run, %error, "the log forgets the run by its own time limit");
            }
        }
        Ok(Err(_fenced)) => {}
        Err(_late) => {
            tracing::warn!(run.id = %lease.run, "the log is slow; readers get the run's end from the archive")
        }
    }
}
