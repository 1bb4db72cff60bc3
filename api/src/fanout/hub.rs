//! The hub: opens streams, waits for ends, and looks after what the live tail may lose.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::response::Response;
use holdfast_shared::domain::ids::{Id, RunId};
use holdfast_shared::domain::run::Run;
use holdfast_shared::domain::tenant::TenantId;
use holdfast_shared::ports::event_log::{EventLog, Live, LogError, Subscription};
use holdfast_shared::ports::seams::Seams;
use holdfast_shared::ports::store::Store;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::reader::Reader;
use super::response;
use super::{FanoutError, HubOptions, StreamOptions};

/// Every followed run's log is read again once in so many rounds of the watch: a push that was lost without a trace is
/// made up for after `check_every` times this, even if no further event shows the gap.
const ROUNDS_PER_REREAD: u64 = 5;
/// Failed reads in a row after which a stream is cut: the client resumes, here or at a node that is better off.
const TRIES: u32 = 8;
/// Pause after the first failed read; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two reads.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Serves the streams of this process.
pub struct Hub {
    shared: Arc<Shared>,
}

impl Hub {
    /// A hub over a store and a log.
    pub fn new(store: Arc<dyn Store>, log: Arc<dyn EventLog>, seams: Seams, options: HubOptions) -> Arc<Self> {
        let closed = CancellationToken::new();
        let shared = Shared { store, log, seams, options, closed, rereads: Mutex::default() };
        Arc::new(Self { shared: Arc::new(shared) })
    }

    /// The stream of a run. Its first read is done before this returns, so that what cannot be served is refused
    /// rather than cut.
    ///
    /// # Errors
    /// [`FanoutError::Expired`] if events after the cursor are gone, [`FanoutError::ShuttingDown`] after
    /// [`Hub::close`], else what the store or the log says.
    pub async fn stream(&self, run: Run, options: StreamOptions) -> Result<Response, FanoutError> {
        if self.shared.closed.is_cancelled() {
            return Err(FanoutError::ShuttingDown);
        }
        let id = run.id;
        let reader = Reader::open(Arc::clone(&self.shared), run, options).await?;
        if self.shared.closed.is_cancelled() {
            return Err(FanoutError::ShuttingDown);
        }
        Ok(response::of(id, reader))
    }

    /// Waits until a run has ended and returns it.
    ///
    /// # Errors
    /// [`FanoutError::Expired`] if there is no such run (any more), [`FanoutError::ShuttingDown`] after
    /// [`Hub::close`], else what the store or the log says when they failed several times in a row.
    pub async fn ended(&self, tenant: &TenantId, run: RunId) -> Result<Run, FanoutError> {
        tokio::select! {
            biased;
            () = self.shared.closed.cancelled() => Err(FanoutError::ShuttingDown),
            ended = self.shared.ended(tenant, run) => ended,
        }
    }

    /// Looks after the runs that this process follows, until `shutdown`: tells followers of a run that has ended to
    /// look again, in case its worker died before it told them, and followers of every run now and then, in case a
    /// push was lost. One query per round, however many streams there are.
    pub async fn keep_watch(&self, shutdown: CancellationToken) {
        let period = self.shared.options.check_every.max(Duration::from_millis(1));
        let mut rounds = tokio::time::interval_at(Instant::now() + period, period);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut round = 0;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = rounds.tick() => {}
            }
            round += 1;
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.shared.watch(round) => {}
            }
        }
    }

    /// Cuts all open streams and refuses new ones: clients resume at another node.
    pub fn close(&self) {
        self.shared.closed.cancel();
    }
}

#[cfg(test)]
impl Hub {
    pub(super) fn shared_for_tests(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }
}

/// What the hub shares with its readers.
pub(super) struct Shared {
    pub(super) store: Arc<dyn Store>,
    pub(super) log: Arc<dyn EventLog>,
    pub(super) seams: Seams,
    pub(super) options: HubOptions,
    pub(super) closed: CancellationToken,
    rereads: Mutex<Rereads>,
}

/// When the followers of each run were last told to read the log again, and no more than that. Runs that have ended are
/// not in here.
#[derive(Default)]
struct Rereads {
    round: u64,
    told: HashMap<RunId, u64>,
}

/// What a follower that heard [`Live::Check`] has to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// The log only: the watch has just asked the store which runs have ended, and this is none of them.
    Log,
    /// The log, and if it has nothing new, the run.
    LogAndRun,
}

impl Shared {
    /// The round of the watch.
    pub(super) fn round(&self) -> u64 {
        self.rereads.lock().unwrap_or_else(PoisonError::into_inner).round
    }

    /// How deep a follower has to look that was spared the run row in this round before. It is spared it once for each
    /// time that the watch told it to read the log: another check is not the watch's own.
    pub(super) fn depth(&self, run: RunId, round_spared: &mut u64) -> Depth {
        let rereads = self.rereads.lock().unwrap_or_else(PoisonError::into_inner);
        match rereads.told.get(&run) {
            Some(round) if round > round_spared => {
                *round_spared = *round;
                Depth::Log
            }
            Some(_) | None => Depth::LogAndRun,
        }
    }

    async fn watch(&self, round: u64) {
        let followed = self.log.followed();
        if followed.is_empty() {
            return;
        }
        let ended: HashSet<RunId> = match self.store.ended_among(&followed).await {
            Ok(ended) => ended.into_iter().collect(),
            Err(error) => {
                tracing::warn!(%error, "cannot tell which of the followed runs have ended");
                HashSet::new()
            }
        };
        let running: HashSet<RunId> = followed.into_iter().filter(|run| !ended.contains(run)).collect();
        let reread: Vec<RunId> = running.iter().copied().filter(|run| is_due(*run, round)).collect();
        {
            // Before the checks go out, so that who hears one finds it here.
            let mut rereads = self.rereads.lock().unwrap_or_else(PoisonError::into_inner);
            rereads.round = round;
            rereads.told.retain(|run, _| running.contains(run));
            rereads.told.extend(reread.iter().map(|run| (*run, round)));
        }
        for run in ended.into_iter().chain(reread) {
            self.log.check(run);
        }
    }

    async fn ended(&self, tenant: &TenantId, id: RunId) -> Result<Run, FanoutError> {
        let mut failures = 0;
        let mut subscription = None;
        let mut round_spared = self.round();
        loop {
            let failure = match self.look_for_end(tenant, id, &mut subscription).await {
                Ok(Some(run)) => return Ok(run),
                Ok(None) => {
                    if self.hint_of_end(&mut subscription, id, &mut round_spared).await {
                        failures = 0;
                        continue;
                    }
                    LogError::Unavailable("the subscription was ended".to_owned()).into()
                }
                Err(FanoutError::Expired) => return Err(FanoutError::Expired),
                Err(error) => error,
            };
            subscription = None;
            failures += 1;
            let Some(pause) = pause_after(failures, id) else { return Err(failure) };
            tokio::time::sleep(pause).await;
        }
    }

    /// Subscribes if need be, and only then looks at the run: an end after the look is heard.
    async fn look_for_end(
        &self,
        tenant: &TenantId,
        id: RunId,
        subscription: &mut Option<Subscription>,
    ) -> Result<Option<Run>, FanoutError> {
        if subscription.is_none() {
            *subscription = Some(self.log.subscribe(id).await?);
        }
        let run = self.store.run(tenant, id).await?.ok_or(FanoutError::Expired)?;
        Ok(run.state.has_ended().then_some(run))
    }

    /// Waits for something that can mean the end. `false`: the subscription is over.
    async fn hint_of_end(&self, subscription: &mut Option<Subscription>, id: RunId, round_spared: &mut u64) -> bool {
        let Some(subscription) = subscription else { return false };
        loop {
            match subscription.live.recv().await {
                Ok(Live::Events(batch)) if batch.iter().any(|event| event.kind.is_terminal()) => return true,
                Ok(Live::Events(_)) => {}
                Ok(Live::Check) if self.depth(id, round_spared) == Depth::Log => {}
                Ok(Live::Check) | Err(RecvError::Lagged(_)) => return true,
                Err(RecvError::Closed) => return false,
            }
        }
    }
}

/// Spreads the runs over the rounds by their ids, which are random.
fn is_due(run: RunId, round: u64) -> bool {
    u64::from(run.uuid().as_bytes()[15]) % ROUNDS_PER_REREAD == round % ROUNDS_PER_REREAD
}

/// The pause after so many failures in a row; `None`: give up. Streams of different runs do not come back in step.
pub(super) fn pause_after(failures: u32, run: RunId) -> Option<Duration> {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_PAUSE);
    let spread = u32::from(run.uuid().as_bytes()[14]);
    (failures < TRIES).then(|| doubled / 2 + doubled / 2 * spread / 255)
}
