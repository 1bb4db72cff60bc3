//! The followers of runs in this process: one broadcast channel for each run that anybody follows, shared by all its
//! readers. There is no task and no connection for a run or a reader.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, broadcast};

use crate::domain::ids::RunId;
use crate::domain::limits::LIVE_BATCHES;
use crate::ports::event_log::{Live, Subscription};

/// The registry.
#[derive(Clone, Default)]
pub struct Channels(Arc<Shared>);

#[derive(Default)]
struct Shared {
    followed: Mutex<HashMap<RunId, Followed>>,
    /// Runs whose last follower has left, for who has to unsubscribe somewhere.
    left: Mutex<Vec<RunId>>,
    leaving: Notify,
    /// Whether anybody takes what is in `left`.
    reports_leaving: bool,
}

struct Followed {
    sender: broadcast::Sender<Live>,
    followers: usize,
    /// Something may have been lost since the last sign of life of the source.
    is_stale: bool,
}

impl Channels {
    /// A registry whose owner asks for [`Channels::left`].
    #[must_use]
    pub fn reporting() -> Self {
        Self(Arc::new(Shared { reports_leaving: true, ..Shared::default() }))
    }

    /// Follows a run from now on.
    #[must_use]
    pub fn follow(&self, run: RunId) -> Subscription {
        let mut followed = self.followed_runs();
        let live = match followed.entry(run) {
            MapEntry::Occupied(entry) => {
                let entry = entry.into_mut();
                entry.followers += 1;
                entry.sender.subscribe()
            }
            MapEntry::Vacant(entry) => {
                let (sender, live) = broadcast::channel(LIVE_BATCHES);
                entry.insert(Followed { sender, followers: 1, is_stale: false });
                live
            }
        };
        Subscription { live, guard: Box::new(Guard { channels: self.clone(), run }) }
    }

    /// Tells the followers of a run, if there are any.
    pub fn send(&self, run: RunId, live: Live) {
        if let Some(entry) = self.followed_runs().get(&run) {
            // An error only says that nobody listens right now.
            let _ = entry.sender.send(live);
        }
    }

    /// Whether anybody follows a run.
    #[must_use]
    pub fn is_followed(&self, run: RunId) -> bool {
        self.followed_runs().contains_key(&run)
    }

    /// All runs that anybody follows.
    #[must_use]
    pub fn followed(&self) -> Vec<RunId> {
        self.followed_runs().keys().copied().collect()
    }

    /// The source was lost: what it sends meanwhile is missed.
    pub fn mark_stale(&self) {
        for entry in self.followed_runs().values_mut() {
            entry.is_stale = true;
        }
    }

    /// The source is back for a run: if it was lost, the followers look again.
    pub fn refresh(&self, run: RunId) {
        if let Some(entry) = self.followed_runs().get_mut(&run)
            && std::mem::take(&mut entry.is_stale)
        {
            let _ = entry.sender.send(Live::Check);
        }
    }

    /// Waits until followers have left and returns runs that lost their last one; they may have new ones by now.
    pub async fn left(&self) -> Vec<RunId> {
        loop {
            let notified = self.0.leaving.notified();
            let left = std::mem::take(&mut *self.0.left.lock().unwrap_or_else(PoisonError::into_inner));
            if !left.is_empty() {
                return left;
            }
            notified.await;
        }
    }

    fn leave(&self, run: RunId) {
        let mut followed = self.followed_runs();
        let MapEntry::Occupied(mut entry) = followed.entry(run) else { return };
        entry.get_mut().followers -= 1;
        if entry.get().followers > 0 {
            return;
        }
        entry.remove();
        drop(followed);
        if self.0.reports_leaving {
            self.0.left.lock().unwrap_or_else(PoisonError::into_inner).push(run);
            self.0.leaving.notify_one();
        }
    }

    fn followed_runs(&self) -> MutexGuard<'_, HashMap<RunId, Followed>> {
        self.0.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One follower; dropping it leaves.
struct Guard {
    channels: Channels,
    run: RunId,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.channels.leave(self.run);
    }
}
