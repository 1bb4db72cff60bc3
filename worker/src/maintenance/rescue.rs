//! The rescuer: new hints for runs that lost theirs.

use std::time::Duration;

use holdfast_shared::domain::lease::TakeoverAfter;
use tokio_util::sync::CancellationToken;

use crate::Worker;

/// How often lost runs are looked for.
const EVERY: Duration = Duration::from_secs(1);

impl Worker {
    /// Looks for runs whose holder is silent and for created runs that nobody took, until `shutdown`. The hints go
    /// through the outbox, whose relay sweeps as often.
    pub(crate) async fn rescue(&self, shutdown: &CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.cancelled() => return,
            }
            let lease = TakeoverAfter(self.settings.lease);
            match self.services.store.rescue(lease, self.settings.unclaimed_after).await {
                Ok(0) => {}
                Ok(count) => tracing::info!(worker.id = %self.id, runs = count, "runs without a worker got a new hint"),
                Err(error) => tracing::warn!(worker.id = %self.id, %error, "lost runs cannot be looked for now"),
            }
        }
    }
}
