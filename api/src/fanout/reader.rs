//! One reader of one run: from its cursor, through archive and log, to the live tail and the end.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_shared::domain::event::{Event, EventKind};
use holdfast_shared::domain::ids::RunId;
use holdfast_shared::domain::message::MessageType;
use holdfast_shared::domain::position::SeqId;
use holdfast_shared::domain::run::{Attachment, Run, RunState};
use holdfast_shared::domain::tenant::TenantId;
use holdfast_shared::ports::event_log::{Batch, Live, LogError, Subscription};
use holdfast_shared::ports::store::StoreError;
use holdfast_shared::wire::event::Ping;
use holdfast_shared::wire::message::event_kind;
use holdfast_shared::wire::sse;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::Instant;

use super::hub::{Depth, Shared, pause_after};
use super::{FanoutError, IdLines, Pings, StreamOptions};

/// Frames that wait are joined into one chunk up to this size; a larger frame is a chunk of its own.
const CHUNK_BYTES: usize = 64 * 1024;

/// A reader. It holds at most one read's worth of events, and none while it waits.
pub(super) struct Reader {
    shared: Arc<Shared>,
    tenant: TenantId,
    run: RunId,
    /// `None` once the run is known to have ended.
    subscription: Option<Subscription>,
    next: Next,
    waiting: Waiting,
    /// The last event that this reader is done with, shown or not.
    last: SeqId,
    /// What the archive has at least.
    archived: SeqId,
    /// The last number that this connection saw.
    shown: Option<SeqId>,
    kinds: Kinds,
    attachment: Attachment,
    pings: Pings,
    id_lines: IdLines,
    /// Whether any bytes went out.
    has_spoken: bool,
    /// When bytes went out last.
    quiet_since: Instant,
    end: End,
    round_spared: u64,
    failures: u32,
    retry_at: Option<Instant>,
}

/// What the reader does when nothing waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Listens at the tail.
    Follow,
    /// Reads the log, and the archive for what the log no longer has.
    Read(Depth),
    /// Looks whether the run has ended.
    Look(Hope),
    /// Takes a new place at the tail.
    Subscribe,
    /// Reads the archive only: the run has ended.
    Archive,
}

/// What a look at the run is expected to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hope {
    /// It may have ended.
    Vague,
    /// Its terminal frames were seen, so it must have.
    Sure,
}

/// How far the terminal frames are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// None taken yet.
    Ahead,
    /// The first was taken.
    Begun,
    /// Nothing more comes: after `[DONE]`, or the stream is cut.
    Over,
}

/// Why a read brought the reader no further.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] LogError),
    /// Neither the log nor the archive has the next event, although later ones exist.
    #[error("events are missing")]
    Missing,
    #[error("the terminal frames are there, but the run has not ended")]
    NotEnded,
    #[error("the log ended the subscription")]
    Unsubscribed,
    #[error("a read takes too long")]
    Slow,
}

impl Reader {
    /// A reader with its first events at hand, if there are any.
    pub(super) async fn open(shared: Arc<Shared>, run: Run, options: StreamOptions) -> Result<Self, FanoutError> {
        let mut reader = Self::new(shared, &run, options);
        match run.state {
            RunState::Ended { terminal, .. } => reader.settle(terminal),
            RunState::Created | RunState::Running => {
                reader.subscription = Some(reader.shared.log.subscribe(reader.run).await?);
            }
        }
        let first = match reader.read().await {
            // The row that the caller had may be old: the run may have ended, and its log be gone, since.
            Err(Trouble::Missing) if reader.next != Next::Archive => {
                reader.look().await.map_err(refusal)?;
                reader.read().await
            }
            first => first,
        };
        first.map_err(refusal)?;
        Ok(reader)
    }

    fn new(shared: Arc<Shared>, run: &Run, options: StreamOptions) -> Self {
        Self {
            tenant: run.tenant.clone(),
            run: run.id,
            subscription: None,
            next: Next::Read(Depth::Log),
            waiting: Waiting::Nothing,
            last: options.after,
            archived: run.archived,
            shown: None,
            kinds: Kinds::of(run.request.include_types.as_deref()),
            attachment: run.request.attachment,
            pings: options.pings,
            id_lines: options.id_lines,
            has_spoken: false,
            quiet_since: Instant::now(),
            end: End::Ahead,
            round_spared: shared.round(),
            failures: 0,
            retry_at: None,
            shared,
        }
    }

    /// The next bytes; `None` when the stream is over.
    pub(super) async fn next_chunk(&mut self) -> Option<Bytes> {
        loop {
            if self.shared.closed.is_cancelled() {
                return None;
            }
            if let Some(chunk) = self.gather() {
                return Some(self.say(chunk));
            }
            if self.end == End::Over {
                return None;
            }
            if !self.has_spoken {
                // Headers and a first byte go out at once, whatever the run does.
                return Some(self.say(sse::keepalive_comment()));
            }
            if Instant::now() >= self.quiet_until() {
                let keepalive = self.keepalive();
                return Some(self.say(keepalive));
            }
            self.advance().await;
        }
    }

    fn say(&mut self, bytes: Bytes) -> Bytes {
        self.quiet_since = Instant::now();
        self.has_spoken = true;
        bytes
    }

    fn quiet_until(&self) -> Instant {
        self.quiet_since + self.shared.options.keepalive
    }

    fn keepalive(&self) -> Bytes {
        match self.pings {
            Pings::Events => Ping::keepalive(self.shared.seams.id(), self.shared.seams.now(), self.shown, self.run),
            Pings::Comments => sse::keepalive_comment(),
        }
    }

    /// Waits for something to happen: news, the end of a read, the end of a pause, silence for too long, or the end
    /// of all streams.
    async fn advance(&mut self) {
        let shared = Arc::clone(&self.shared);
        let quiet_until = self.quiet_until();
        let closed = shared.closed.cancelled();
        if let Some(retry_at) = self.retry_at {
            tokio::select! {
                biased;
                () = closed => {}
                () = tokio::time::sleep_until(retry_at) => self.retry_at = None,
                () = tokio::time::sleep_until(quiet_until) => {}
            }
        } else if let (Next::Follow, Some(subscription)) = (self.next, &mut self.subscription) {
            tokio::select! {
                biased;
                () = closed => {}
                heard = subscription.live.recv() => self.hear(heard),
                () = tokio::time::sleep_until(quiet_until) => {}
            }
        } else {
            tokio::select! {
                biased;
                () = closed => {}
                read = self.work() => if let Err(trouble) = read { self.stumble(&trouble) },
                // Reads do not change anything: one that takes too long is dropped and made again.
                () = tokio::time::sleep_until(quiet_until) => self.stumble(&Trouble::Slow),
            }
        }
    }

    /// Counts a failure: pauses, or gives up, which cuts the stream.
    fn stumble(&mut self, trouble: &Trouble) {
        self.failures += 1;
        tracing::debug!(run = %self.run, last = %self.last, failures = self.failures, %trouble, "a reader stumbled");
        match pause_after(self.failures, self.run) {
            Some(pause) => self.retry_at = Some(Instant::now() + pause),
            None => self.cease(),
        }
    }

    fn cease(&mut self) {
        self.end = End::Over;
        self.subscription = None;
        self.waiting = Waiting::Nothing;
    }
}

/// Reading.
impl Reader {
    async fn work(&mut self) -> Result<(), Trouble> {
        match self.next {
            Next::Follow | Next::Subscribe => {
                self.subscription = Some(self.shared.log.subscribe(self.run).await?);
                self.next = Next::Read(Depth::LogAndRun);
                Ok(())
            }
            Next::Read(_) | Next::Archive => self.read().await,
            Next::Look(Hope::Sure) => {
                self.look().await?;
                if self.next == Next::Archive { Ok(()) } else { Err(Trouble::NotEnded) }
            }
            Next::Look(Hope::Vague) => {
                if let Err(trouble) = self.look().await {
                    // What is live goes on without the store. If the run has ended, the watch says so again.
                    tracing::debug!(run = %self.run, %trouble, "cannot look whether the run has ended");
                    self.next = Next::Follow;
                }
                Ok(())
            }
        }
    }

    /// One read's worth of the events after the last one.
    async fn read(&mut self) -> Result<(), Trouble> {
        if self.next != Next::Archive {
            let logged = self.shared.log.read(self.run, self.last).await?;
            match logged.first() {
                Some(first) if first.seq == self.last.next() => {
                    self.waiting = Waiting::page(logged);
                    return Ok(());
                }
                None if self.archived <= self.last => {
                    self.next = match self.next {
                        Next::Read(Depth::LogAndRun) => Next::Look(Hope::Vague),
                        _ => Next::Follow,
                    };
                    return Ok(());
                }
                Some(_) | None => {}
            }
        }
        let archived = self.shared.store.events(self.run, self.last).await?;
        match archived.first() {
            Some(first) if first.seq == self.last.next() => {
                self.waiting = Waiting::page(archived);
                Ok(())
            }
            Some(_) | None => Err(Trouble::Missing),
        }
    }

    /// Looks at the run: what the log lost, or what its worker could not say any more, is in the archive.
    async fn look(&mut self) -> Result<(), Trouble> {
        let run = self.shared.store.run(&self.tenant, self.run).await?.ok_or(Trouble::Missing)?;
        self.archived = run.archived;
        match run.state {
            RunState::Ended { terminal, .. } => self.settle(terminal),
            RunState::Created | RunState::Running if self.next == Next::Look(Hope::Sure) => {}
            RunState::Created | RunState::Running if self.archived > self.last => self.next = Next::Read(Depth::Log),
            RunState::Created | RunState::Running => self.next = Next::Follow,
        }
        Ok(())
    }

    /// The run has ended: the archive has all of it. A cursor at or past the end gets the terminal frames, unless this
    /// very stream has begun to show them.
    fn settle(&mut self, terminal: SeqId) {
        self.subscription = None;
        self.waiting = Waiting::Nothing;
        self.next = Next::Archive;
        if self.end == End::Ahead {
            self.last = self.last.min(terminal.previous());
        }
    }
}

/// Taking.
impl Reader {
    /// All that waits, up to the size of a chunk.
    fn gather(&mut self) -> Option<Bytes> {
        let mut chunk = Chunk::default();
        while self.end != End::Over {
            let Some(event) = self.waiting.peek() else {
                self.waiting = Waiting::Nothing;
                if !self.hear_at_once() {
                    break;
                }
                continue;
            };
            match self.judge(event) {
                Verdict::Take if !chunk.has_room(event) => break,
                Verdict::Take => {
                    let event = event.clone();
                    self.waiting.skip();
                    self.take(event, &mut chunk);
                }
                Verdict::Drop => self.waiting.skip(),
                Verdict::Turn(next) => {
                    self.waiting = Waiting::Nothing;
                    self.next = next;
                    break;
                }
            }
        }
        chunk.joined()
    }

    /// Whether an event is the next one. Terminal frames are shown from the first on or not at all: a cursor among or
    /// after them means that the run has ended, and is answered from there (see [`Reader::settle`]).
    fn judge(&self, event: &Event) -> Verdict {
        let is_end_of_another = event.kind.is_terminal() && self.end == End::Ahead && self.next != Next::Archive;
        if event.seq <= self.last {
            if is_end_of_another { Verdict::Turn(Next::Look(Hope::Sure)) } else { Verdict::Drop }
        } else if event.seq > self.last.next() {
            Verdict::Turn(if self.next == Next::Archive { Next::Archive } else { Next::Read(Depth::Log) })
        } else if is_end_of_another && event.kind != EventKind::StopReason {
            Verdict::Turn(Next::Look(Hope::Sure))
        } else {
            Verdict::Take
        }
    }

    fn take(&mut self, event: Event, chunk: &mut Chunk) {
        self.last = event.seq;
        self.failures = 0;
        if self.kinds.contains(event.kind) {
            if self.id_lines == IdLines::Shown {
                chunk.push(sse::id_line(event.seq));
            }
            chunk.push(event.frame);
            if self.attachment == Attachment::Background && !event.kind.is_terminal() {
                self.shown = Some(event.seq);
            }
        }
        if event.kind == EventKind::Done {
            self.cease();
        } else if event.kind.is_terminal() {
            self.end = End::Begun;
        }
    }

    /// Takes what the tail has at hand. Whether there was anything.
    fn hear_at_once(&mut self) -> bool {
        let (Next::Follow, Some(subscription)) = (self.next, &mut self.subscription) else { return false };
        let heard = match subscription.live.try_recv() {
            Ok(live) => Ok(live),
            Err(TryRecvError::Empty) => return false,
            Err(TryRecvError::Lagged(missed)) => Err(RecvError::Lagged(missed)),
            Err(TryRecvError::Closed) => Err(RecvError::Closed),
        };
        self.hear(heard);
        true
    }

    fn hear(&mut self, heard: Result<Live, RecvError>) {
        if !matches!(heard, Err(RecvError::Closed)) {
            self.failures = 0;
        }
        match heard {
            Ok(Live::Events(batch)) => self.waiting = Waiting::Batch(batch, 0),
            Ok(Live::Check) => self.next = Next::Read(self.shared.depth(self.run, &mut self.round_spared)),
            Err(RecvError::Lagged(_)) => self.next = Next::Read(Depth::Log),
            Err(RecvError::Closed) => {
                self.next = Next::Subscribe;
                self.stumble(&Trouble::Unsubscribed);
            }
        }
    }
}

/// What becomes of an event that waits.
enum Verdict {
    Take,
    Drop,
    Turn(Next),
}

/// Events that were read or heard and not taken yet.
enum Waiting {
    Nothing,
    Page(std::vec::IntoIter<Event>),
    Batch(Batch, usize),
}

impl Waiting {
    fn page(events: Vec<Event>) -> Self {
        Self::Page(events.into_iter())
    }

    fn peek(&self) -> Option<&Event> {
        match self {
            Self::Nothing => None,
            Self::Page(events) => events.as_slice().first(),
            Self::Batch(events, taken) => events.get(*taken),
        }
    }

    fn skip(&mut self) {
        match self {
            Self::Nothing => {}
            Self::Page(events) => drop(events.next()),
            Self::Batch(_, taken) => *taken += 1,
        }
    }
}

/// Frames that go out together.
#[derive(Default)]
struct Chunk {
    frames: Vec<Bytes>,
    size_bytes: usize,
}

impl Chunk {
    fn has_room(&self, event: &Event) -> bool {
        self.frames.is_empty() || self.size_bytes + event.frame.len() <= CHUNK_BYTES
    }

    fn push(&mut self, frame: Bytes) {
        self.size_bytes += frame.len();
        self.frames.push(frame);
    }

    /// A lone frame goes out as it is stored, without a copy.
    fn joined(mut self) -> Option<Bytes> {
        if self.frames.len() <= 1 {
            return self.frames.pop();
        }
        let mut joined = Vec::with_capacity(self.size_bytes);
        for frame in &self.frames {
            joined.extend_from_slice(frame);
        }
        Some(Bytes::from(joined))
    }
}

/// Kinds of events that a reader wants, one bit per stored number.
#[derive(Debug, Clone, Copy)]
struct Kinds(u32);

impl Kinds {
    /// Those of the wanted types, and all that are no messages.
    fn of(types: Option<&[MessageType]>) -> Self {
        let Some(types) = types else { return Self(u32::MAX) };
        let always = EventKind::ALL.into_iter().filter(|kind| *kind == EventKind::Ping || kind.is_terminal());
        let wanted = types.iter().filter_map(|message_type| event_kind(*message_type));
        Self(always.chain(wanted).fold(0, |bits, kind| bits | Self::bit(kind)))
    }

    fn contains(self, kind: EventKind) -> bool {
        self.0 & Self::bit(kind) != 0
    }

    fn bit(kind: EventKind) -> u32 {
        1u32 << kind.code()
    }
}

/// What a client is told when its stream cannot begin.
fn refusal(trouble: Trouble) -> FanoutError {
    match trouble {
        Trouble::Store(error) => FanoutError::Store(error),
        Trouble::Log(error) => FanoutError::Log(error),
        Trouble::Missing | Trouble::NotEnded | Trouble::Unsubscribed | Trouble::Slow => FanoutError::Expired,
    }
}
