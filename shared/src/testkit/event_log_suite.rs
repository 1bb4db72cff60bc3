//! The contract of the event log: what every adapter promises.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::broadcast::error::RecvError;
use uuid::Uuid;

use crate::domain::event::{Event, EventKind};
use crate::domain::ids::{Id, RunId, WorkerId};
use crate::domain::lease::{Lease, LeaseEpoch};
use crate::domain::limits::LIVE_BATCHES;
use crate::domain::position::SeqId;
use crate::ports::event_log::{EventLog, Live, LogError, Subscription};

/// An event log under test.
pub type SharedLog = Arc<dyn EventLog>;

/// How long anything may take that is to happen.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes a test of each case. The argument is an async function that runs a case on a log.
#[macro_export]
macro_rules! event_log_contract {
    ($run:path) => {
        $crate::event_log_contract!(@ $run:
            numbers_have_no_gap_and_no_repeat
            a_repeated_batch_is_accepted_if_it_is_the_same
            a_stale_epoch_is_refused
            a_log_that_was_not_opened_takes_nothing
            opening_goes_on_where_the_archive_ends
            a_run_reads_back_from_any_cursor
            a_large_run_is_read_in_parts
            a_follower_gets_what_is_appended
            all_followers_get_the_same_bytes
            a_follower_that_lags_is_told
            the_last_follower_ends_the_reading
            a_run_can_be_followed_again
            a_check_reaches_the_followers
            runs_do_not_disturb_each_other
            a_finished_run_may_be_forgotten
        );
    };
    (@ $run:path: $($case:ident)*) => {$(
        #[tokio::test]
        async fn $case() {
            $run($crate::testkit::event_log_suite::$case).await;
        }
    )*};
}

/// A claim of a new run.
#[must_use]
pub fn lease() -> Lease {
    let id = |uuid: Uuid| uuid;
    Lease {
        run: RunId::from_uuid(id(Uuid::new_v4())),
        worker: WorkerId::from_uuid(id(Uuid::new_v4())),
        epoch: LeaseEpoch::new(1),
    }
}

/// Events with these numbers; the text makes the bytes differ.
#[must_use]
pub fn events(numbers: std::ops::RangeInclusive<u64>, text: &str) -> Vec<Event> {
    let event = |seq| Event {
        seq: SeqId::new(seq),
        kind: EventKind::ALL[usize::try_from(seq).unwrap_or_default() % EventKind::ALL.len()],
        frame: Bytes::from(format!("data: {{\"n\":{seq},\"text\":\"{text} é\"}}\n\n")),
    };
    numbers.map(event).collect()
}

/// The next batch that a follower gets, past checks.
///
/// # Panics
/// There is none in time.
pub async fn next_batch(subscription: &mut Subscription) -> Vec<Event> {
    loop {
        match tokio::time::timeout(PATIENCE, subscription.live.recv()).await.expect("a push in time") {
            Ok(Live::Events(batch)) => return batch.to_vec(),
            Ok(Live::Check) => {}
            Err(error) => panic!("no push: {error}"),
        }
    }
}

async fn opened(log: &SharedLog) -> Lease {
    let lease = lease();
    assert_eq!(log.open(&lease, SeqId::START).await.expect("opens"), SeqId::START);
    lease
}

/// See the name.
pub async fn numbers_have_no_gap_and_no_repeat(log: SharedLog) {
    let lease = opened(&log).await;
    log.append(&lease, &events(1..=2, "a")).await.expect("in place");
    for wrong in [4..=4, 2..=2, 2..=3] {
        let refused = log.append(&lease, &events(wrong.clone(), "b")).await;
        let at_two = matches!(refused, Err(LogError::Position { tail, .. }) if tail == SeqId::new(2));
        assert!(at_two, "{wrong:?}: {refused:?}");
    }
    log.append(&lease, &events(3..=3, "a")).await.expect("in place");
    assert_eq!(log.read(lease.run, SeqId::START).await.expect("reads"), events(1..=3, "a"));
}

/// See the name.
pub async fn a_repeated_batch_is_accepted_if_it_is_the_same(log: SharedLog) {
    let lease = opened(&log).await;
    log.append(&lease, &events(1..=3, "a")).await.expect("new");
    log.append(&lease, &events(1..=3, "a")).await.expect("the same again");
    log.append(&lease, &events(2..=3, "a")).await.expect("a part of it again");
    assert!(matches!(log.append(&lease, &events(1..=3, "b")).await, Err(LogError::Position { .. })));
    assert_eq!(log.read(lease.run, SeqId::START).await.expect("reads"), events(1..=3, "a"));
}

/// See the name.
pub async fn a_stale_epoch_is_refused(log: SharedLog) {
    let old = opened(&log).await;
    log.append(&old, &events(1..=1, "a")).await.expect("new");
    let new = Lease { epoch: LeaseEpoch::new(2), ..old };
    assert_eq!(log.open(&new, SeqId::START).await.expect("opens"), SeqId::new(1));
    assert!(matches!(log.append(&old, &events(2..=2, "old")).await, Err(LogError::Fenced { .. })));
    assert!(matches!(log.append(&old, &events(1..=1, "a")).await, Err(LogError::Fenced { .. })), "not even a repeat");
    assert!(matches!(log.open(&old, SeqId::START).await, Err(LogError::Fenced { .. })));
    log.append(&new, &events(2..=2, "new")).await.expect("the new writer goes on");
    assert_eq!(log.read(old.run, SeqId::new(1)).await.expect("reads"), events(2..=2, "new"));
}

/// See the name.
pub async fn a_log_that_was_not_opened_takes_nothing(log: SharedLog) {
    let lease = lease();
    assert!(matches!(log.append(&lease, &events(1..=1, "a")).await, Err(LogError::Position { .. })));
    let later = Lease { epoch: LeaseEpoch::new(2), ..lease };
    log.open(&lease, SeqId::START).await.expect("opens");
    assert!(matches!(log.append(&later, &events(1..=1, "a")).await, Err(LogError::Position { .. })));
    assert!(log.read(lease.run, SeqId::START).await.expect("reads").is_empty());
}

/// See the name.
pub async fn opening_goes_on_where_the_archive_ends(log: SharedLog) {
    let lease = opened(&log).await;
    log.append(&lease, &events(1..=2, "a")).await.expect("new");
    assert_eq!(log.open(&lease, SeqId::new(1)).await.expect("opens"), SeqId::new(2), "the log is further");
    assert_eq!(log.open(&lease, SeqId::new(7)).await.expect("opens"), SeqId::new(7), "the archive is further");
    log.append(&lease, &events(8..=8, "a")).await.expect("in place");
    let read = log.read(lease.run, SeqId::new(2)).await.expect("reads");
    assert_eq!(read, events(8..=8, "a"), "what lies between is in the archive");
}

/// See the name.
pub async fn a_run_reads_back_from_any_cursor(log: SharedLog) {
    let lease = opened(&log).await;
    for batch in [1..=1, 2..=5, 6..=6, 7..=10] {
        log.append(&lease, &events(batch, "a")).await.expect("new");
    }
    for cursor in 0..=12 {
        let read = log.read(lease.run, SeqId::new(cursor)).await.expect("reads");
        assert_eq!(read, if cursor < 10 { events(cursor + 1..=10, "a") } else { Vec::new() }, "after {cursor}");
    }
    assert!(log.read(self::lease().run, SeqId::START).await.expect("reads").is_empty(), "an unknown run");
}

/// See the name.
pub async fn a_large_run_is_read_in_parts(log: SharedLog) {
    let lease = opened(&log).await;
    let text = "x".repeat(500);
    for first in (1..=4000).step_by(400) {
        log.append(&lease, &events(first..=first + 399, &text)).await.expect("new");
    }
    let (mut all, mut cursor) = (Vec::new(), SeqId::START);
    loop {
        let part = log.read(lease.run, cursor).await.expect("reads");
        let Some(last) = part.last() else { break };
        assert_eq!(part[0].seq, cursor.next());
        cursor = last.seq;
        all.extend(part);
    }
    assert_eq!(all, events(1..=4000, &text));
}

/// See the name.
pub async fn a_follower_gets_what_is_appended(log: SharedLog) {
    let lease = opened(&log).await;
    let mut follower = log.subscribe(lease.run).await.expect("subscribes");
    for batch in [1..=1, 2..=4] {
        log.append(&lease, &events(batch.clone(), "a")).await.expect("new");
        assert_eq!(next_batch(&mut follower).await, events(batch, "a"));
    }
    log.append(&lease, &events(2..=4, "a")).await.expect("a repeat");
    log.append(&lease, &events(5..=5, "a")).await.expect("new");
    assert_eq!(next_batch(&mut follower).await, events(5..=5, "a"), "a repeat is not pushed again");
}

/// See the name.
pub async fn all_followers_get_the_same_bytes(log: SharedLog) {
    let lease = opened(&log).await;
    let mut followers = Vec::new();
    for _ in 0..20 {
        followers.push(log.subscribe(lease.run).await.expect("subscribes"));
    }
    assert_eq!(log.followed(), [lease.run]);
    log.append(&lease, &events(1..=3, "a")).await.expect("new");
    for follower in &mut followers {
        assert_eq!(next_batch(follower).await, events(1..=3, "a"));
    }
}

/// See the name.
pub async fn a_follower_that_lags_is_told(log: SharedLog) {
    let lease = opened(&log).await;
    let mut slow = log.subscribe(lease.run).await.expect("subscribes");
    let mut quick = log.subscribe(lease.run).await.expect("subscribes");
    for seq in 1..=LIVE_BATCHES as u64 + 5 {
        log.append(&lease, &events(seq..=seq, "a")).await.expect("the writer does not wait");
        assert_eq!(next_batch(&mut quick).await, events(seq..=seq, "a"));
    }
    assert!(matches!(slow.live.recv().await, Err(RecvError::Lagged(_))));
    assert_eq!(log.read(lease.run, SeqId::START).await.expect("reads").len(), LIVE_BATCHES + 5);
}

/// See the name.
pub async fn the_last_follower_ends_the_reading(log: SharedLog) {
    let lease = opened(&log).await;
    let one = log.subscribe(lease.run).await.expect("subscribes");
    let other = log.subscribe(lease.run).await.expect("subscribes");
    drop(one);
    assert_eq!(log.followed(), [lease.run]);
    drop(other);
    assert!(log.followed().is_empty());
}

/// See the name.
pub async fn a_run_can_be_followed_again(log: SharedLog) {
    let lease = opened(&log).await;
    // Leaving and coming race with each other; after each subscription pushes arrive.
    for seq in 1..=50 {
        let mut follower = log.subscribe(lease.run).await.expect("subscribes");
        log.append(&lease, &events(seq..=seq, "a")).await.expect("new");
        assert_eq!(next_batch(&mut follower).await, events(seq..=seq, "a"));
    }
}

/// See the name.
pub async fn a_check_reaches_the_followers(log: SharedLog) {
    let lease = opened(&log).await;
    let mut follower = log.subscribe(lease.run).await.expect("subscribes");
    log.check(self::lease().run);
    log.check(lease.run);
    let heard = tokio::time::timeout(PATIENCE, follower.live.recv()).await.expect("in time");
    assert!(matches!(heard, Ok(Live::Check)));
}

/// See the name.
pub async fn runs_do_not_disturb_each_other(log: SharedLog) {
    let (one, other) = (opened(&log).await, opened(&log).await);
    let mut follower = log.subscribe(one.run).await.expect("subscribes");
    let batches = (1..=30).map(|seq| {
        let log = Arc::clone(&log);
        async move {
            log.append(&other, &events(seq..=seq, "other")).await.expect("new");
            log.append(&one, &events(seq..=seq, "one")).await.expect("new");
        }
    });
    for batch in batches {
        batch.await;
    }
    for seq in 1..=30 {
        assert_eq!(next_batch(&mut follower).await, events(seq..=seq, "one"));
    }
    assert_eq!(log.read(other.run, SeqId::START).await.expect("reads"), events(1..=30, "other"));
}

/// See the name.
pub async fn a_finished_run_may_be_forgotten(log: SharedLog) {
    let lease = opened(&log).await;
    log.append(&lease, &events(1..=2, "a")).await.expect("new");
    log.finish(&lease).await.expect("finishes");
    log.finish(&lease).await.expect("finishes twice");
    let left = log.read(lease.run, SeqId::START).await.expect("reads");
    assert!(left.is_empty() || left == events(1..=2, "a"), "all or nothing");
}
