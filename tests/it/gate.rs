//! Gates: places where a server of the tests waits until the test says go on. They take the place of sleeps.

use tokio::sync::watch;
use tokio::time::timeout;

use super::harness::DEADLINE;

/// A place to wait at. Clones are the same gate. One that is never opened stalls for ever.
#[derive(Debug, Clone)]
pub struct Gate {
    is_open: watch::Sender<bool>,
    arrived: watch::Sender<usize>,
}

impl Gate {
    /// A gate that is shut.
    pub fn shut() -> Self {
        Self { is_open: watch::Sender::new(false), arrived: watch::Sender::new(0) }
    }

    /// Lets everybody through, now and later.
    pub fn open(&self) {
        self.is_open.send_replace(true);
    }

    /// Arrives, and waits until the gate is open.
    pub async fn pass(&self) {
        self.arrived.send_modify(|arrived| *arrived += 1);
        let mut open = self.is_open.subscribe();
        // The sender is in `self`, so it cannot be gone.
        let _open = open.wait_for(|open| *open).await;
    }

    /// Waits until so many have arrived.
    pub async fn arrived(&self, count: usize) {
        let mut arrived = self.arrived.subscribe();
        let waited = timeout(DEADLINE, arrived.wait_for(|arrived| *arrived >= count)).await.is_ok();
        assert!(waited, "{} of {count} came to the gate", *self.arrived.borrow());
    }
}
