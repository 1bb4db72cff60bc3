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
