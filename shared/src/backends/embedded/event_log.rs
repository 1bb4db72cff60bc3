//! The event log of one process, in a SQLite file of its own.
//!
//! An event is in the file before any reader sees it, so that a killed process forgets nothing that was shown. The file
//! is not the store's: appends of tokens never wait behind the commit of a step. One task writes: a lone append goes at
//! once; while a commit is under way the next appends of all runs gather and go as one transaction.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::backends::channels::Channels;
use crate::domain::event::Event;
use crate::domain::frames;
use crate::domain::ids::{Id, RunId};
use crate::domain::lease::{Lease, LeaseEpoch};
use crate::domain::limits::READ_BYTES;
use crate::domain::position::SeqId;
use crate::ports::event_log::{EventLog, Live, LogError, Subscription};

/// Requests that wait for the writer.
const WAITING: usize = 1024;
/// Most requests in one transaction.
const GROUP: usize = 256;
/// Connections that only read.
const READERS: u32 = 4;
/// How long a query waits for a connection or a lock.
const PATIENCE: Duration = Duration::from_secs(5);

const SCHEMA: &str = "
-- Who writes a run, and how far it is.
CREATE TABLE IF NOT EXISTS live_runs (run BLOB PRIMARY KEY, epoch INTEGER NOT NULL, tail INTEGER NOT NULL) WITHOUT ROWID;
-- What was appended together, as domain::frames writes it.
CREATE TABLE IF NOT EXISTS live_events (
    run BLOB NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL, frames BLOB NOT NULL,
    PRIMARY KEY (run, first_seq)
) WITHOUT ROWID;
";

/// The adapter.
pub struct EmbeddedEventLog {
    requests: mpsc::Sender<Request>,
    readers: SqlitePool,
    channels: Channels,
    writer: JoinHandle<()>,
}

impl Drop for EmbeddedEventLog {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

struct Request {
    lease: Lease,
    wish: Wish,
    answer: oneshot::Sender<Result<SeqId, LogError>>,
}

enum Wish {
    Open { archived: SeqId },
    Append { events: Vec<Event> },
    Finish,
}

impl EmbeddedEventLog {
    /// Opens the file, and makes it if there is none.
    ///
    /// # Errors
    /// The file cannot be used.
    pub async fn open(path: &Path) -> Result<Self, LogError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .busy_timeout(PATIENCE)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal);
        let mut connection = SqliteConnection::connect_with(&options).await.map_err(unavailable)?;
        sqlx::raw_sql(SCHEMA).execute(&mut connection).await.map_err(unavailable)?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(PATIENCE)
            .test_before_acquire(false)
            .connect_with(options.pragma("query_only", "on"))
            .await
            .map_err(unavailable)?;
        let (requests, waiting) = mpsc::channel(WAITING);
        let channels = Channels::default();
        let writer = Writer { connection, runs: HashMap::new(), channels: channels.clone() };
        Ok(Self { requests, readers, channels, writer: tokio::spawn(writer.run(waiting)) })
    }

    async fn ask(&self, lease: &Lease, wish: Wish) -> Result<SeqId, LogError> {
        let (answer, answered) = oneshot::channel();
        let gone = |_| LogError::Unavailable("its writer has stopped".to_owned());
        self.requests.send(Request { lease: *lease, wish, answer }).await.map_err(|_| gone(()))?;
        answered.await.map_err(|_| gone(()))?
    }
}

#[async_trait]
impl EventLog for EmbeddedEventLog {
    async fn open(&self, lease: &Lease, archived: SeqId) -> Result<SeqId, LogError> {
        self.ask(lease, Wish::Open { archived }).await
    }

    async fn append(&self, lease: &Lease, events: &[Event]) -> Result<(), LogError> {
        self.ask(lease, Wish::Append { events: events.to_vec() }).await.map(|_tail| ())
    }

    async fn read(&self, run: RunId, after: SeqId) -> Result<Vec<Event>, LogError> {
        let mut connection = self.readers.acquire().await.map_err(unavailable)?;
        read(&mut connection, run, after).await
    }

    async fn subscribe(&self, run: RunId) -> Result<Subscription, LogError> {
        Ok(self.channels.follow(run))
    }

    fn followed(&self) -> Vec<RunId> {
        self.channels.followed()
    }

    fn check(&self, run: RunId) {
        self.channels.send(run, Live::Check);
    }

    async fn finish(&self, lease: &Lease) -> Result<(), LogError> {
        self.ask(lease, Wish::Finish).await.map(|_tail| ())
    }

    async fn ping(&self) -> Result<(), LogError> {
        sqlx::query("SELECT 1").execute(&self.readers).await.map_err(unavailable)?;
        Ok(())
    }

    fn name(&self) -> &'static str {
        "embedded"
    }
}

/// Reads rows until one read's worth is there; at least one row.
async fn read(connection: &mut SqliteConnection, run: RunId, after: SeqId) -> Result<Vec<Event>, LogError> {
    use futures::TryStreamExt;
    let mut rows = sqlx::query_as::<_, (i64, Vec<u8>)>(
        "SELECT first_seq, frames FROM live_events WHERE run = $1 AND last_seq > $2 ORDER BY first_seq",
    )
    .bind(run.uuid())
    .bind(number(after)?)
    .fetch(connection);
    let (mut events, mut bytes) = (Vec::new(), 0);
    while bytes < READ_BYTES {
        let Some((first, frames)) = rows.try_next().await.map_err(unavailable)? else { break };
        bytes += frames.len();
        let decoded = frames::decode(seq(first)?, frames.into());
        let decoded = decoded.map_err(|damaged| LogError::Unavailable(damaged.to_string()))?;
        events.extend(decoded.into_iter().filter(|event| event.seq > after));
    }
    Ok(events)
}

/// Who writes a run, and how far it is.
#[derive(Debug, Clone, Copy)]
struct Place {
    epoch: LeaseEpoch,
    tail: SeqId,
}

/// The one task that writes.
struct Writer {
    connection: SqliteConnection,
    /// Places of runs that were written in this process.
    runs: HashMap<RunId, Place>,
    channels: Channels,
}

/// What a group changed, until it is committed.
type Staged = HashMap<RunId, Option<Place>>;

impl Writer {
    async fn run(mut self, mut waiting: mpsc::Receiver<Request>) {
        let mut group = Vec::with_capacity(GROUP);
        while waiting.recv_many(&mut group, GROUP).await > 0 {
            let (staged, answers) = match self.commit(&group).await {
                Ok(done) => done,
                Err(error) => {
                    let text = error.to_string();
                    for request in group.drain(..) {
                        let _ = request.answer.send(Err(LogError::Unavailable(text.clone())));
                    }
                    continue;
                }
            };
            for (run, place) in staged {
                match place {
                    Some(place) => self.runs.insert(run, place),
                    None => self.runs.remove(&run),
                };
            }
            for (request, answer) in group.drain(..).zip(answers) {
                if let (Wish::Append { events }, Ok(Applied::New(_))) = (request.wish, &answer) {
                    self.channels.send(request.lease.run, Live::Events(events.into()));
                }
                // Who asked may have been cancelled meanwhile; what was written stays.
                let _ = request.answer.send(answer.map(Applied::tail));
            }
        }
    }

    /// Applies a group in one transaction; requests that are refused do not spoil it for the others.
    async fn commit(&mut self, group: &[Request]) -> Result<(Staged, Vec<Result<Applied, LogError>>), LogError> {
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await.map_err(unavailable)?;
        let mut staged = Staged::new();
        let mut answers = Vec::with_capacity(group.len());
        for request in group {
            let run = request.lease.run;
            let known = match staged.get(&run) {
                Some(staged) => *staged,
                None => match self.runs.get(&run) {
                    Some(place) => Some(*place),
                    None => load(&mut transaction, run).await?,
                },
            };
            match apply(&mut transaction, request, known).await {
                Ok((place, applied)) => {
                    staged.insert(run, place);
                    answers.push(Ok(applied));
                }
                Err(error @ LogError::Unavailable(_)) => return Err(error),
                Err(refusal) => answers.push(Err(refusal)),
            }
        }
        transaction.commit().await.map_err(unavailable)?;
        Ok((staged, answers))
    }
}

/// What came of a request.
#[derive(Debug, Clone, Copy)]
enum Applied {
    /// Something new is in the log.
    New(SeqId),
    /// It was there already, or there was nothing to write.
    Known(SeqId),
}

impl Applied {
    const fn tail(self) -> SeqId {
        match self {
            Self::New(tail) | Self::Known(tail) => tail,
        }
    }
}

async fn apply(
    connection: &mut SqliteConnection,
    request: &Request,
    known: Option<Place>,
) -> Result<(Option<Place>, Applied), LogError> {
    let Lease { run, epoch, .. } = request.lease;
    let fenced = || LogError::Fenced { run, epoch };
    if known.is_some_and(|place| place.epoch > epoch) {
        return Err(fenced());
    }
    let tail = known.map_or(SeqId::START, |place| place.tail);
    match &request.wish {
        Wish::Open { archived } => {
            let place = Place { epoch, tail: tail.max(*archived) };
            keep(connection, run, place).await?;
            Ok((Some(place), Applied::Known(place.tail)))
        }
        Wish::Append { events } => {
            let (Some(first), Some(last)) = (events.first(), events.last()) else {
                return Ok((known, Applied::Known(tail)));
            };
            let is_open = known.is_some_and(|place| place.epoch == epoch);
            if is_open && last.seq <= tail && is_repeat(connection, run, events).await? {
                return Ok((known, Applied::Known(tail)));
            }
            if !is_open || first.seq != tail.next() {
                return Err(LogError::Position { first: first.seq, tail: if is_open { tail } else { SeqId::START } });
            }
            insert(connection, run, events, first.seq, last.seq).await?;
            let place = Place { epoch, tail: last.seq };
            keep(connection, run, place).await?;
            Ok((Some(place), Applied::New(last.seq)))
        }
        Wish::Finish => {
            for table in ["DELETE FROM live_events WHERE run = $1", "DELETE FROM live_runs WHERE run = $1"] {
                sqlx::query(table).bind(run.uuid()).execute(&mut *connection).await.map_err(unavailable)?;
            }
            Ok((None, Applied::Known(tail)))
        }
    }
}

async fn is_repeat(connection: &mut SqliteConnection, run: RunId, events: &[Event]) -> Result<bool, LogError> {
    let Some(first) = events.first() else { return Ok(false) };
    let mut have = Vec::new();
    let mut after = first.seq.previous();
    while have.len() < events.len() {
        let more = read(connection, run, after).await?;
        let Some(last) = more.last() else { return Ok(false) };
        after = last.seq;
        have.extend(more);
    }
    Ok(have.get(..events.len()) == Some(events))
}

async fn load(connection: &mut SqliteConnection, run: RunId) -> Result<Option<Place>, LogError> {
    let row: Option<(i64, i64)> = sqlx::query_as("SELECT epoch, tail FROM live_runs WHERE run = $1")
        .bind(run.uuid())
        .fetch_optional(connection)
        .await
        .map_err(unavailable)?;
    row.map(|(epoch, tail)| Ok(Place { epoch: LeaseEpoch::new(epoch), tail: seq(tail)? })).transpose()
}

async fn keep(connection: &mut SqliteConnection, run: RunId, place: Place) -> Result<(), LogError> {
    sqlx::query(
        "INSERT INTO live_runs (run, epoch, tail) VALUES ($1, $2, $3) \
         ON CONFLICT (run) DO UPDATE SET epoch = excluded.epoch, tail = excluded.tail",
    )
    .bind(run.uuid())
    .bind(place.epoch.get())
    .bind(number(place.tail)?)
    .execute(connection)
    .await
    .map_err(unavailable)?;
    Ok(())
}

async fn insert(
    connection: &mut SqliteConnection,
    run: RunId,
    events: &[Event],
    first: SeqId,
    last: SeqId,
) -> Result<(), LogError> {
    let mut bytes = Vec::new();
    events.iter().for_each(|event| frames::push(&mut bytes, event));
    sqlx::query("INSERT INTO live_events (run, first_seq, last_seq, frames) VALUES ($1, $2, $3, $4)")
        .bind(run.uuid())
        .bind(number(first)?)
        .bind(number(last)?)
        .bind(bytes)
        .execute(connection)
        .await
        .map_err(unavailable)?;
    Ok(())
}

fn number(seq: SeqId) -> Result<i64, LogError> {
    i64::try_from(seq.get()).map_err(|_| LogError::Unavailable(format!("{seq} is not a number of an event")))
}

fn seq(number: i64) -> Result<SeqId, LogError> {
    let valid = u64::try_from(number).map(SeqId::new);
    valid.map_err(|_| LogError::Unavailable(format!("{number} is not a number of an event")))
}

fn unavailable(error: sqlx::Error) -> LogError {
    LogError::Unavailable(error.to_string())
}
