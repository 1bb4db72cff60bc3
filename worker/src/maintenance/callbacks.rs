//! Tells the ends of runs to the URLs that clients named for them (api/03 §7).

use std::collections::HashMap;
use std::time::Duration;

use holdfast_shared::domain::callback::{
    CallbackResult, CallbackTry, CallbackUrl, CallbackUrlError, headers, pause_after,
};
use holdfast_shared::domain::limits::{CALLBACK_TAKEN, CALLBACK_TIMEOUT, CALLBACKS, CALLBACKS_TO_ONE};
use holdfast_shared::domain::run::Run;
use holdfast_shared::outbound::Request;
use holdfast_shared::ports::store::{MessageFilter, StoreError, TakenCallback, all_messages};
use holdfast_shared::wire;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::Worker;

/// How often callbacks are looked for that nobody announced: of runs that ended elsewhere, of workers that died, after a
/// pause.
const EVERY: Duration = Duration::from_secs(1);

impl Worker {
    /// Sends callbacks until `shutdown`, then what is left of this worker's runs. Several workers may do it at once: the
    /// store gives each callback to one of them.
    pub(crate) async fn send_callbacks(&self, shutdown: &CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut sending = Sending::default();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.callbacks.notified() => {}
                () = sending.one_is_over(), if !sending.tasks.is_empty() => {}
                () = shutdown.cancelled() => break,
            }
            self.take_callbacks(&mut sending).await;
        }
        self.take_callbacks(&mut sending).await;
        while !sending.tasks.is_empty() {
            sending.one_is_over().await;
        }
    }

    /// Takes and begins to send what is due, as far as there is room.
    async fn take_callbacks(&self, sending: &mut Sending) {
        while sending.tasks.len() < CALLBACKS {
            match self.services.store.take_callback(&sending.busy(), CALLBACK_TAKEN).await {
                Ok(Some(taken)) => sending.begin(self.clone(), taken),
                Ok(None) => return,
                Err(error) => {
                    return tracing::warn!(worker.id = %self.id, %error, "callbacks cannot be looked for now");
                }
            }
        }
    }

    async fn send_callback(&self, taken: &TakenCallback) {
        let run = taken.run.id;
        // Without a result nothing is noted, and the callback is due again when the time of this worker is over.
        let result = match self.tell_end(&taken.run).await {
            Ok(result) => result,
            Err(error) => return tracing::warn!(run.id = %run, %error, "the callback cannot be sent now"),
        };
        let failed = taken.failed.saturating_add(1);
        let pause = pause_after(&result, failed, self.settings.callback_tries);
        match (result.error(), pause) {
            (None, _) => tracing::info!(run.id = %run, "the receiver took the callback"),
            (Some(error), None) => tracing::warn!(run.id = %run, %error, tries = failed, "the callback was given up"),
            (Some(error), Some(pause)) => tracing::debug!(run.id = %run, %error, ?pause, "the callback is sent again"),
        }
        let tried = CallbackTry { at: self.services.seams.now(), result };
        match self.services.store.callback_tried(taken, &tried, pause).await {
            Ok(true) => {}
            Ok(false) => tracing::debug!(run.id = %run, "the callback was taken by another worker meanwhile"),
            Err(error) => tracing::warn!(run.id = %run, %error, "the callback will be sent again: it cannot be noted"),
        }
    }

    /// One try. An error is the store's; what the receiver does is a result.
    async fn tell_end(&self, run: &Run) -> Result<CallbackResult, StoreError> {
        let Some(url) = run.request.callback_url.as_ref().and_then(CallbackUrl::url) else {
            return Ok(CallbackResult::Failed(CallbackUrlError::Malformed.to_string()));
        };
        let messages = all_messages(&*self.services.store, &MessageFilter::run(run.agent_id, run.id)).await?;
        let body = wire::run::callback(run, &messages)
            .ok_or_else(|| StoreError::Corrupt(format!("{} has a callback before its end", run.id)))?
            .to_string()
            .into_bytes();
        let signed = headers(run.id, self.services.seams.now(), &body, self.settings.callback_key.as_ref());
        let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        for (name, value) in signed {
            match HeaderValue::try_from(value) {
                Ok(value) => headers.insert(HeaderName::from_static(name), value),
                Err(error) => return Ok(CallbackResult::Failed(error.to_string())),
            };
        }
        let request =
            Request { method: Method::POST, url, headers, body: Some(body), timeout: CALLBACK_TIMEOUT, max_bytes: 0 };
        Ok(match self.services.toolbox.outbound.tell(request).await {
            Ok(status) => CallbackResult::Answered(status.as_u16()),
            Err(error) => CallbackResult::Failed(error.to_string()),
        })
    }
}

/// The callbacks that are being sent, and to whom.
#[derive(Default)]
struct Sending {
    tasks: JoinSet<()>,
    receivers: HashMap<Id, String>,
}

impl Sending {
    fn begin(&mut self, worker: Worker, taken: TakenCallback) {
        let receiver = taken.run.request.callback_url.as_ref().map(CallbackUrl::receiver).unwrap_or_default();
        let task = self.tasks.spawn(async move { worker.send_callback(&taken).await });
        self.receivers.insert(task.id(), receiver);
    }

    /// Waits until one is over. A panic is, too: its callback becomes due again.
    async fn one_is_over(&mut self) {
        let over = match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => id,
            Some(Err(panic)) => {
                tracing::error!(%panic, "a defect ended the sending of a callback");
                panic.id()
            }
            None => return,
        };
        self.receivers.remove(&over);
    }

    /// The receivers that get no more for now.
    fn busy(&self) -> Vec<String> {
        busy(self.receivers.values())
    }
}

fn busy<'a>(receivers: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut counts: HashMap<&String, usize> = HashMap::new();
    for receiver in receivers {
        *counts.entry(receiver).or_default() += 1;
    }
    let busy = counts.into_iter().filter(|(_, count)| *count >= CALLBACKS_TO_ONE);
    busy.map(|(receiver, _)| receiver.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_with_its_share_gets_no_more() {
        let [slow, quick] = ["https://slow.example", "https://quick.example"].map(str::to_owned);
        let mut receivers = vec![slow.clone(); CALLBACKS_TO_ONE - 1];
        receivers.push(quick);
        assert!(busy(receivers.iter()).is_empty());
        receivers.push(slow.clone());
        assert_eq!(busy(receivers.iter()), [slow]);
    }
}
