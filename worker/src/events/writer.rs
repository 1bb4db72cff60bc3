//! The writer of one run's events: encodes once, appends in order, keeps what is not archived yet.
//!
//! A lone event goes to the log at once; while an append is under way the next events gather and go as one batch. When
//! the log is slow or down the queue fills and [`Writer::has_room`] turns false, so that the run stops reading from its
//! model: it waits, it does not fail, and nothing is dropped.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use holdfast_shared::domain::event::Event;
use holdfast_shared::domain::lease::Lease;
use holdfast_shared::domain::limits::{APPEND_BATCH_BYTES, APPEND_BATCH_EVENTS, UNARCHIVED_BYTES, WRITER_QUEUE_EVENTS};
use holdfast_shared::domain::position::SeqId;
use holdfast_shared::domain::run::Attachment;
use holdfast_shared::ports::event_log::{EventLog, LogError};
use holdfast_shared::wire::event::Encoder;

/// Wait after the first refusal of the log; it doubles up to [`RETRY_MOST`].
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MOST: Duration = Duration::from_secs(1);

/// A later claim has opened the log: stop without a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the event log was opened by a later claim")]
pub struct Fenced;

/// The writer of one claim.
pub struct Writer {
    log: Arc<dyn EventLog>,
    lease: Lease,
    encoder: Encoder,
    /// Everything up to here is in the archive.
    archived: SeqId,
    /// Encoded and not archived, in order: what the next commit takes, and what a log that lost data gets again.
    unarchived: Vec<Event>,
    unarchived_bytes: usize,
    /// Encoded and not appended, in order.
    queue: VecDeque<Event>,
    in_flight: Option<InFlight>,
    retry_after: Duration,
}

struct InFlight {
    batch: Vec<Event>,
    append: BoxFuture<'static, Result<(), LogError>>,
}

impl Writer {
    /// Opens the log for a claim and takes over what a former holder appended after its last archive write.
    ///
    /// # Errors
    /// A later claim exists.
    pub async fn open(
        log: Arc<dyn EventLog>,
        lease: Lease,
        attachment: Attachment,
        archived: SeqId,
    ) -> Result<Self, Fenced> {
        let mut unarchived = Vec::new();
        let mut retry_after = RETRY_FIRST;
        let tail = loop {
            match inherit(&*log, &lease, archived, &mut unarchived).await {
                Ok(tail) => break tail,
                Err(LogError::Fenced { .. }) => return Err(Fenced),
                Err(error) => wait_for_log(&lease, &error, &mut retry_after).await,
            }
        };
        Ok(Self {
            log,
            lease,
            encoder: Encoder::new(lease.run, attachment, tail),
            archived,
            unarchived_bytes: unarchived.iter().map(|event| event.frame.len()).sum(),
            unarchived,
            queue: VecDeque::new(),
            in_flight: None,
            retry_after: RETRY_FIRST,
        })
    }

    /// Whether another event may be pushed; if not, drive first.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.queue.len() < WRITER_QUEUE_EVENTS
    }

    /// Whether there is anything for [`Writer::drive`] to do.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.in_flight.is_some() || !self.queue.is_empty()
    }

    /// Whether so much is not archived that it should be, before the step ends.
    #[must_use]
    pub fn wants_archive(&self) -> bool {
        self.unarchived_bytes > UNARCHIVED_BYTES
    }

    /// What is not archived yet, in order.
    #[must_use]
    pub fn unarchived(&self) -> &[Event] {
        &self.unarchived
    }

    /// Encodes an event and queues it for the log.
    pub fn push(&mut self, encode: impl FnOnce(&mut Encoder) -> Option<Event>) {
        if let Some(event) = encode(&mut self.encoder) {
            self.unarchived_bytes += event.frame.len();
            self.unarchived.push(event.clone());
            self.queue.push_back(event);
        }
    }

    /// Encodes events that readers may see only once a commit holds them; they follow all that was pushed. Give them
    /// to that commit after [`Writer::unarchived`], then call [`Writer::committed`].
    pub fn stage(&mut self, encode: impl FnOnce(&mut Encoder) -> Vec<Event>) -> Vec<Event> {
        encode(&mut self.encoder)
    }

    /// A commit archived everything so far and `staged`, which goes to the log now.
    pub fn committed(&mut self, staged: Vec<Event>) {
        self.unarchived.clear();
        self.unarchived_bytes = 0;
        self.queue.extend(staged);
        self.archived = self.encoder.last();
    }

    /// Makes progress with appending; returns when one append is done. Cancel-safe.
    ///
    /// # Errors
    /// A later claim exists.
    pub async fn drive(&mut self) -> Result<(), Fenced> {
        if self.in_flight.is_none() && !self.start_append() {
            return Ok(());
        }
        let Some(in_flight) = &mut self.in_flight else { return Ok(()) };
        let result = (&mut in_flight.append).await;
        let batch = self.in_flight.take().map(|done| done.batch).unwrap_or_default();
        match result {
            Ok(()) => {
                self.retry_after = RETRY_FIRST;
                Ok(())
            }
            Err(LogError::Fenced { .. }) => Err(Fenced),
            Err(error @ LogError::Unavailable(_)) => {
                // Whether it was applied is unknown: the same bytes with the same numbers go again.
                for event in batch.into_iter().rev() {
                    self.queue.push_front(event);
                }
                wait_for_log(&self.lease, &error, &mut self.retry_after).await;
                Ok(())
            }
            Err(LogError::Position { tail, first }) => {
                tracing::warn!(run.id = %self.lease.run, %tail, %first, "the event log lost its tail; writing it again");
                self.reopen(batch).await
            }
        }
    }

    /// Drives until everything is in the log.
    ///
    /// # Errors
    /// A later claim exists.
    pub async fn flush(&mut self) -> Result<(), Fenced> {
        while self.is_busy() {
            self.drive().await?;
        }
        Ok(())
    }

    fn start_append(&mut self) -> bool {
        let mut bytes = 0;
        let count = self
            .queue
            .iter()
            .take(APPEND_BATCH_EVENTS)
            .take_while(|event| {
                let is_first = bytes == 0;
                bytes += event.frame.len();
                is_first || bytes <= APPEND_BATCH_BYTES
            })
            .count();
        if count == 0 {
            return false;
        }
        let batch: Vec<Event> = self.queue.drain(..count).collect();
        let (log, lease, events) = (Arc::clone(&self.log), self.lease, batch.clone());
        let append = async move { log.append(&lease, &events).await }.boxed();
        self.in_flight = Some(InFlight { batch, append });
        true
    }

    /// The log ends earlier than it should: open it again at the archive's end and append what lies between. What the
    /// archive holds meanwhile is not needed in the log.
    async fn reopen(&mut self, batch: Vec<Event>) -> Result<(), Fenced> {
        let tail = match self.log.open(&self.lease, self.archived).await {
            Ok(tail) => tail,
            Err(LogError::Fenced { .. }) => return Err(Fenced),
            Err(error) => {
                for event in batch.into_iter().rev() {
                    self.queue.push_front(event);
                }
                wait_for_log(&self.lease, &error, &mut self.retry_after).await;
                return Ok(());
            }
        };
        let queued = batch.into_iter().chain(self.queue.drain(..));
        let mut missing: Vec<Event> = self.unarchived.iter().cloned().chain(queued).collect();
        missing.retain(|event| event.seq > tail);
        missing.sort_by_key(|event| event.seq);
        missing.dedup_by_key(|event| event.seq);
        self.queue = missing.into();
        Ok(())
    }
}

/// Opens the log and reads what it holds beyond the archive.
async fn inherit(
    log: &dyn EventLog,
    lease: &Lease,
    archived: SeqId,
    events: &mut Vec<Event>,
) -> Result<SeqId, LogError> {
    let tail = log.open(lease, archived).await?;
    events.clear();
    let mut last = archived;
    while last < tail {
        let read = log.read(lease.run, last).await?;
        let Some(newest) = read.last().map(|event| event.seq) else {
            return Err(LogError::Unavailable(format!(
                "the log says that it ends at {tail}, but has nothing after {last}"
            )));
        };
        last = newest;
        events.extend(read);
    }
    Ok(tail)
}

async fn wait_for_log(lease: &Lease, error: &LogError, retry_after: &mut Duration) {
    tracing::warn!(run.id = %lease.run, %error, "the event log does not take events; the run waits");
    tokio::time::sleep(*retry_after).await;
    *retry_after = (*retry_after * 2).min(RETRY_MOST);
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use holdfast_shared::domain::event::EventKind;
    use holdfast_shared::domain::ids::{Id, RunId, WorkerId};
    use holdfast_shared::domain::lease::LeaseEpoch;
    use holdfast_shared::ports::event_log::Subscription;
    use tokio::sync::Semaphore;
    use uuid::Uuid;

    use super::*;

    /// A log that keeps what it is given, and can be slow, down, forgetful or taken over.
    #[derive(Default)]
    struct Scripted {
        events: Mutex<Vec<Event>>,
        batches: Mutex<Vec<usize>>,
        faults: Mutex<VecDeque<Fault>>,
        gate: Option<Semaphore>,
    }

    #[derive(Clone, Copy)]
    enum Fault {
        /// The append is applied, the answer is lost.
        AnswerLost,
        /// Everything is gone before the append.
        Forgets,
        /// A later claim opened the log.
        TakenOver,
    }

    impl Scripted {
        fn tail(&self) -> SeqId {
            self.events.lock().expect("lock").last().map_or(SeqId::START, |event| event.seq)
        }

        fn numbers(&self) -> Vec<u64> {
            self.events.lock().expect("lock").iter().map(|event| event.seq.get()).collect()
        }
    }

    #[async_trait]
    impl EventLog for Scripted {
        async fn open(&self, _lease: &Lease, archived: SeqId) -> Result<SeqId, LogError> {
            Ok(self.tail().max(archived))
        }

        async fn append(&self, lease: &Lease, events: &[Event]) -> Result<(), LogError> {
            if let Some(gate) = &self.gate {
                gate.acquire().await.expect("open").forget();
            }
            let fault = self.faults.lock().expect("lock").pop_front();
            match fault {
                Some(Fault::Forgets) => self.events.lock().expect("lock").clear(),
                Some(Fault::TakenOver) => return Err(LogError::Fenced { run: lease.run, epoch: lease.epoch }),
                Some(Fault::AnswerLost) | None => {}
            }
            let (tail, first) = (self.tail(), events[0].seq);
            let is_repeat = events.last().is_some_and(|last| last.seq <= tail);
            if first != tail.next() && !is_repeat && !(tail == SeqId::START && first.get() > 1 && fault.is_none()) {
                return Err(LogError::Position { first, tail });
            }
            if !is_repeat {
                self.events.lock().expect("lock").extend_from_slice(events);
                self.batches.lock().expect("lock").push(events.len());
            }
            match fault {
                Some(Fault::AnswerLost) => Err(LogError::Unavailable("no answer".to_owned())),
                _ => Ok(()),
            }
        }

        async fn read(&self, _run: RunId, after: SeqId) -> Result<Vec<Event>, LogError> {
            Ok(self.events.lock().expect("lock").iter().filter(|event| event.seq > after).cloned().collect())
        }

        async fn subscribe(&self, _run: RunId) -> Result<Subscription, LogError> {
            Err(LogError::Unavailable("not in this test".to_owned()))
        }

        fn followed(&self) -> Vec<RunId> {
            Vec::new()
        }

        fn check(&self, _run: RunId) {}

        async fn finish(&self, _lease: &Lease) -> Result<(), LogError> {
            Ok(())
        }

        async fn ping(&self) -> Result<(), LogError> {
            Ok(())
        }

        fn name(&self) -> &'static str {
            "scripted"
        }
    }

    fn lease() -> Lease {
        let uuid = Uuid::from_u128(0x6612_baae_74a3_460d_9bfb_4c94_1f64_cd2d);
        Lease { run: RunId::from_uuid(uuid), worker: WorkerId::from_uuid(uuid), epoch: LeaseEpoch::new(1) }
    }

    async fn writer(log: &Arc<Scripted>) -> Writer {
        let log: Arc<dyn EventLog> = Arc::<Scripted>::clone(log);
        Writer::open(log, lease(), Attachment::Background, SeqId::START).await.expect("not fenced")
    }

    fn ping(encoder: &mut Encoder) -> Option<Event> {
        Some(encoder.ping(Id::from_uuid(lease().run.uuid()), chrono::DateTime::UNIX_EPOCH))
    }

    #[tokio::test]
    async fn a_lone_event_goes_at_once_and_later_ones_go_together() {
        let log = Arc::new(Scripted { gate: Some(Semaphore::new(0)), ..Scripted::default() });
        let mut writer = writer(&log).await;
        writer.push(ping);
        // The first poll starts the append, which waits at the gate.
        assert!(writer.drive().now_or_never().is_none());
        for _ in 0..5 {
            writer.push(ping);
        }
        log.gate.as_ref().expect("a gate").add_permits(2);
        writer.flush().await.expect("not fenced");
        assert_eq!(*log.batches.lock().expect("lock"), [1, 5]);
        assert_eq!(log.numbers(), [1, 2, 3, 4, 5, 6]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_answer_is_asked_for_again_and_nothing_is_doubled() {
        let log = Arc::new(Scripted::default());
        log.faults.lock().expect("lock").push_back(Fault::AnswerLost);
        let mut writer = writer(&log).await;
        writer.push(ping);
        writer.push(ping);
        writer.flush().await.expect("not fenced");
        assert_eq!(log.numbers(), [1, 2]);
    }

    #[tokio::test]
    async fn a_log_that_lost_its_data_gets_what_the_archive_does_not_have() {
        let log = Arc::new(Scripted::default());
        let mut writer = writer(&log).await;
        for _ in 0..2 {
            writer.push(ping);
        }
        writer.flush().await.expect("not fenced");
        writer.committed(Vec::new());
        writer.push(ping);
        writer.flush().await.expect("not fenced");
        log.faults.lock().expect("lock").push_back(Fault::Forgets);
        writer.push(ping);
        writer.flush().await.expect("not fenced");
        assert_eq!(log.numbers(), [3, 4], "1 and 2 are in the archive");
    }

    #[tokio::test]
    async fn what_a_former_holder_appended_is_taken_over() {
        let log = Arc::new(Scripted::default());
        let mut first = writer(&log).await;
        first.push(ping);
        first.push(ping);
        first.flush().await.expect("not fenced");
        let mut second = writer(&log).await;
        assert_eq!(second.unarchived().len(), 2);
        second.push(ping);
        second.flush().await.expect("not fenced");
        assert_eq!(log.numbers(), [1, 2, 3]);
    }

    #[tokio::test]
    async fn a_later_claim_stops_the_writer() {
        let log = Arc::new(Scripted::default());
        let mut writer = writer(&log).await;
        log.faults.lock().expect("lock").push_back(Fault::TakenOver);
        writer.push(ping);
        assert_eq!(writer.flush().await, Err(Fenced));
    }

    #[tokio::test]
    async fn a_full_queue_says_so() {
        let log = Arc::new(Scripted::default());
        let mut writer = writer(&log).await;
        while writer.has_room() {
            writer.push(ping);
        }
        writer.flush().await.expect("not fenced");
        assert!(writer.has_room());
        assert_eq!(log.numbers().len(), WRITER_QUEUE_EVENTS);
        assert!(log.events.lock().expect("lock").iter().all(|event| event.kind == EventKind::Ping));
    }
}
