//! What this worker holds, and the heartbeat that says that it still does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use holdfast_shared::domain::ids::{RunId, WorkerId};
use holdfast_shared::ports::store::WorkerFacts;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::HeartbeatStore;

/// Wait between tries to reach the store.
const RECONNECT_EVERY: Duration = Duration::from_millis(250);

/// The runs that this worker executes, each with the token that cancels it.
#[derive(Default)]
pub struct Holdings(Mutex<HashMap<RunId, CancellationToken>>);

impl Holdings {
    /// Enters a run; the token fires when a cancel of it is heard.
    #[must_use]
    pub fn enter(&self, run: RunId) -> CancellationToken {
        let token = CancellationToken::new();
        self.map().insert(run, token.clone());
        token
    }

    /// Removes a run.
    pub fn leave(&self, run: RunId) {
        self.map().remove(&run);
    }

    /// Cancels a run, if this worker has it.
    pub fn cancel(&self, run: RunId) {
        if let Some(token) = self.map().get(&run) {
            token.cancel();
        }
    }

    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<RunId, CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The heartbeat, on a thread and a connection of its own: no run can starve it.
pub struct Heart {
    stop: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
}

impl Heart {
    /// Starts beating; the receiver fires after the first beat.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn start(
        worker: WorkerId,
        every: Duration,
        connect: HeartbeatStore,
        facts: WorkerFacts,
        holdings: Arc<Holdings>,
    ) -> std::io::Result<(Self, oneshot::Receiver<()>)> {
        let stop = CancellationToken::new();
        let (first_beat, has_beaten) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stopped = stop.clone();
        let beats = async move {
            tokio::select! {
                () = beat(worker, every, connect, &facts, holdings, first_beat) => {}
                () = stopped.cancelled() => {}
            }
        };
        let thread = thread::Builder::new().name("heartbeat".to_owned()).spawn(move || runtime.block_on(beats))?;
        Ok((Self { stop, thread: Some(thread) }, has_beaten))
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed by the runtime; there is nothing to add while stopping.
            let _ = thread.join();
        }
    }
}

async fn beat(
    worker: WorkerId,
    every: Duration,
    connect: HeartbeatStore,
    facts: &WorkerFacts,
    holdings: Arc<Holdings>,
    first_beat: oneshot::Sender<()>,
) {
    let store = loop {
        match connect().await {
            Ok(store) => break store,
            Err(error) => tracing::warn!(worker.id = %worker, %error, "the heartbeat cannot reach the store"),
        }
        tokio::time::sleep(RECONNECT_EVERY).await;
    };
    let mut first_beat = Some(first_beat);
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match store.heartbeat(worker, facts).await {
            Ok(heard) => {
                for run in heard.cancelled {
                    holdings.cancel(run);
                }
                if let Some(first_beat) = first_beat.take() {
                    // Nobody waits for it any more when the worker is stopping already.
                    let _ = first_beat.send(());
                }
            }
            Err(error) => tracing::warn!(worker.id = %worker, %error, "a heartbeat was missed"),
        }
    }
}
