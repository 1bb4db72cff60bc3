//! From a delivery to a claim.

use std::time::Duration;

use holdfast_shared::domain::lease::TakeoverAfter;
use holdfast_shared::ports::run_queue::Delivery;
use holdfast_shared::ports::store::{Claim, Claimed, StoreError};
use tokio_util::sync::CancellationToken;

use crate::Worker;

/// What came of trying.
pub enum Taken {
    /// The run is ours.
    Claimed(Box<Claimed>),
    /// There is nothing to do for this delivery.
    Nothing,
    /// The worker is stopping: somebody else should have it.
    Stopping,
}

impl Worker {
    /// Claims the run of a delivery.
    ///
    /// If another worker holds it, a delivery that was given back says that its holder lost the broker: then we wait
    /// for a short silence of its heartbeat, but not for longer than a lease, since a holder that only lost the broker
    /// goes on. A delivery that nobody had before is a duplicate; should the holder die, the rescuer makes a new hint.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn claim(
        &self,
        delivery: &dyn Delivery,
        stopping: &CancellationToken,
    ) -> Result<Taken, StoreError> {
        let run = delivery.hint().run;
        let silence = if delivery.was_returned() { self.settings.returned_after } else { self.settings.lease };
        let mut waited = Duration::ZERO;
        loop {
            let now = self.services.seams.now();
            match self.services.store.claim(run, self.id, TakeoverAfter(silence), now).await? {
                Claim::Claimed(claimed) => return Ok(Taken::Claimed(claimed)),
                Claim::Blocked | Claim::Gone => return Ok(Taken::Nothing),
                Claim::Held(remaining) => {
                    if !delivery.was_returned() || waited > self.settings.lease {
                        return Ok(Taken::Nothing);
                    }
                    tokio::select! {
                        () = tokio::time::sleep(remaining) => waited += remaining,
                        () = stopping.cancelled() => return Ok(Taken::Stopping),
                    }
                }
            }
        }
    }
}
