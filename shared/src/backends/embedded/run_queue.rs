//! A run queue in memory. A hint is only a hint: what a crash loses is put back from the run rows at the next start.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::ports::run_queue::{Consumer, Delivery, QueueError, RunHint, RunQueue, Settlement};

/// Dead letters that are kept to be looked at; the oldest go first.
const DEAD_LETTERS: usize = 1000;

/// The adapter.
#[derive(Clone, Default)]
pub struct EmbeddedQueue(Arc<Shared>);

#[derive(Default)]
struct Shared {
    hints: Mutex<Hints>,
    arrived: Notify,
}

#[derive(Default)]
struct Hints {
    waiting: VecDeque<Waiting>,
    dead: VecDeque<RunHint>,
}

struct Waiting {
    hint: RunHint,
    was_returned: bool,
}

impl EmbeddedQueue {
    /// Hints that were given up, oldest first.
    #[must_use]
    pub fn dead_letters(&self) -> Vec<RunHint> {
        self.0.lock().dead.iter().cloned().collect()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Hints> {
        self.hints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, hint: RunHint) {
        self.lock().waiting.push_front(Waiting { hint, was_returned: true });
        self.arrived.notify_one();
    }
}

#[async_trait]
impl RunQueue for EmbeddedQueue {
    async fn publish(&self, hints: &[RunHint]) -> Result<(), QueueError> {
        let waiting = hints.iter().map(|hint| Waiting { hint: hint.clone(), was_returned: false });
        self.0.lock().waiting.extend(waiting);
        self.0.arrived.notify_one();
        Ok(())
    }

    async fn consume(&self, prefetch: u16) -> Result<Box<dyn Consumer>, QueueError> {
        let places = Arc::new(Semaphore::new(usize::from(prefetch)));
        Ok(Box::new(EmbeddedConsumer { queue: Arc::clone(&self.0), places }))
    }

    async fn ping(&self) -> Result<(), QueueError> {
        Ok(())
    }

    fn name(&self) -> &'static str {
        "embedded"
    }
}

struct EmbeddedConsumer {
    queue: Arc<Shared>,
    places: Arc<Semaphore>,
}

#[async_trait]
impl Consumer for EmbeddedConsumer {
    async fn next(&mut self) -> Option<Box<dyn Delivery>> {
        let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
        loop {
            // Registered before looking, so that no arrival is missed in between.
            let arrived = self.queue.arrived.notified();
            let (next, has_more) = {
                let mut hints = self.queue.lock();
                (hints.waiting.pop_front(), !hints.waiting.is_empty())
            };
            if has_more {
                self.queue.arrived.notify_one();
            }
            if let Some(Waiting { hint, was_returned }) = next {
                let queue = Arc::clone(&self.queue);
                return Some(Box::new(EmbeddedDelivery {
                    hint,
                    was_returned,
                    queue,
                    is_settled: false,
                    _place: place,
                }));
            }
            arrived.await;
        }
    }

    /// Nothing is reserved for a place here.
    async fn close(self: Box<Self>) {}
}

struct EmbeddedDelivery {
    hint: RunHint,
    was_returned: bool,
    queue: Arc<Shared>,
    is_settled: bool,
    _place: OwnedSemaphorePermit,
}

#[async_trait]
impl Delivery for EmbeddedDelivery {
    fn hint(&self) -> &RunHint {
        &self.hint
    }

    fn was_returned(&self) -> bool {
        self.was_returned
    }

    async fn settle(mut self: Box<Self>, settlement: Settlement) -> Result<(), QueueError> {
        self.is_settled = true;
        match settlement {
            Settlement::Done => {}
            Settlement::HandBack => self.queue.give_back(self.hint.clone()),
            Settlement::DeadLetter => {
                let mut hints = self.queue.lock();
                if hints.dead.len() >= DEAD_LETTERS {
                    hints.dead.pop_front();
                }
                hints.dead.push_back(self.hint.clone());
            }
        }
        Ok(())
    }
}

impl Drop for EmbeddedDelivery {
    fn drop(&mut self) {
        if !self.is_settled {
            self.queue.give_back(self.hint.clone());
        }
    }
}
