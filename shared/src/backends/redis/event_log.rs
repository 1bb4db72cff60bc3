//! The event log in Redis streams. All writes go through scripts: they check the epoch and the place, append, refresh
//! the expiry and wake the followers in one step.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::aio::ConnectionManager;
use redis::{Script, Value};
use tokio::sync::{mpsc, oneshot};

use super::keys::Keys;
use super::{Owned, RedisOptions, unavailable};
use crate::backends::channels::Channels;
use crate::domain::event::{Event, EventKind};
use crate::domain::frames;
use crate::domain::ids::RunId;
use crate::domain::lease::Lease;
use crate::domain::limits::READ_EVENTS;
use crate::domain::position::SeqId;
use crate::ports::event_log::{EventLog, Live, LogError, Subscription};

/// Subscriptions that wait to be asked for.
const WAITING: usize = 4096;
/// Most subscriptions in one command.
const GROUP: usize = 512;

/// The scripts.
pub(super) struct Scripts {
    open: Script,
    append: Script,
}

impl Scripts {
    fn new() -> Self {
        Self { open: Script::new(include_str!("open.lua")), append: Script::new(include_str!("append.lua")) }
    }

    /// Loads them, so that a server which forbids scripts is refused at start.
    pub(super) async fn load(connection: &mut ConnectionManager) -> Result<(), LogError> {
        let scripts = Self::new();
        for script in [&scripts.open, &scripts.append] {
            script.load_async(&mut *connection).await.map_err(unavailable)?;
        }
        Ok(())
    }
}

/// The adapter.
pub struct RedisEventLog {
    commands: ConnectionManager,
    keys: Keys,
    scripts: Scripts,
    channels: Channels,
    followers: Followers,
    options: RedisOptions,
}

impl RedisEventLog {
    pub(super) fn new(
        commands: ConnectionManager,
        keys: Keys,
        channels: Channels,
        followers: Followers,
        options: RedisOptions,
    ) -> Self {
        Self { commands, keys, scripts: Scripts::new(), channels, followers, options }
    }
}

/// What a script answers.
enum Answer {
    Done(SeqId),
    Fenced,
    WrongPlace(SeqId),
}

impl Answer {
    fn read((code, tail): (u8, u64)) -> Self {
        match code {
            0 => Self::Done(SeqId::new(tail)),
            1 => Self::Fenced,
            _ => Self::WrongPlace(SeqId::new(tail)),
        }
    }
}

#[async_trait]
impl EventLog for RedisEventLog {
    async fn open(&self, lease: &Lease, archived: SeqId) -> Result<SeqId, LogError> {
        let answer: (u8, u64) = self
            .scripts
            .open
            .key(self.keys.events(lease.run))
            .key(self.keys.meta(lease.run))
            .arg(lease.epoch.get())
            .arg(archived.get())
            .arg(milliseconds(self.options.live_ttl))
            .invoke_async(&mut self.commands.clone())
            .await
            .map_err(unavailable)?;
        match Answer::read(answer) {
            Answer::Done(tail) => Ok(tail),
            Answer::Fenced | Answer::WrongPlace(_) => Err(LogError::Fenced { run: lease.run, epoch: lease.epoch }),
        }
    }

    async fn append(&self, lease: &Lease, events: &[Event]) -> Result<(), LogError> {
        let Some(first) = events.first().map(|event| event.seq) else { return Ok(()) };
        let mut call = self.scripts.append.prepare_invoke();
        call.key(self.keys.events(lease.run))
            .key(self.keys.meta(lease.run))
            .arg(self.keys.channel(lease.run))
            .arg(lease.epoch.get())
            .arg(first.get())
            .arg(milliseconds(self.options.live_ttl));
        let mut payload = Vec::new();
        for event in events {
            payload.clear();
            payload.push(event.kind.code());
            payload.extend_from_slice(&event.frame);
            call.arg(payload.as_slice());
        }
        let answer: (u8, u64) = call.invoke_async(&mut self.commands.clone()).await.map_err(unavailable)?;
        match Answer::read(answer) {
            Answer::Done(_) => Ok(()),
            Answer::Fenced => Err(LogError::Fenced { run: lease.run, epoch: lease.epoch }),
            Answer::WrongPlace(tail) => Err(LogError::Position { first, tail }),
        }
    }

    async fn read(&self, run: RunId, after: SeqId) -> Result<Vec<Event>, LogError> {
        let entries: Vec<(String, Vec<Value>)> = redis::cmd("XRANGE")
            .arg(self.keys.events(run))
            .arg(format!("({after}-0"))
            .arg("+")
            .arg("COUNT")
            .arg(READ_EVENTS)
            .query_async(&mut self.commands.clone())
            .await
            .map_err(unavailable)?;
        entries.into_iter().map(|(id, fields)| entry(&id, fields)).collect()
    }

    async fn subscribe(&self, run: RunId) -> Result<Subscription, LogError> {
        // Entered before the server is asked: whoever unsubscribes meanwhile sees that the run is followed again.
        let subscription = self.channels.follow(run);
        self.followers.subscribed(run).await?;
        Ok(subscription)
    }

    fn followed(&self) -> Vec<RunId> {
        self.channels.followed()
    }

    fn check(&self, run: RunId) {
        self.channels.send(run, Live::Check);
    }

    async fn finish(&self, lease: &Lease) -> Result<(), LogError> {
        let ttl = milliseconds(self.options.finished_ttl);
        redis::pipe()
            .pexpire(self.keys.events(lease.run), ttl)
            .ignore()
            .pexpire(self.keys.meta(lease.run), ttl)
            .ignore()
            .exec_async(&mut self.commands.clone())
            .await
            .map_err(unavailable)
    }

    async fn ping(&self) -> Result<(), LogError> {
        redis::cmd("PING").exec_async(&mut self.commands.clone()).await.map_err(unavailable)
    }

    fn name(&self) -> &'static str {
        "redis"
    }
}

fn entry(id: &str, fields: Vec<Value>) -> Result<Event, LogError> {
    let damaged = || LogError::Unavailable(format!("entry {id} of a run's stream is not an event"));
    let seq = id.split_once('-').and_then(|(seq, _)| seq.parse().ok()).map(SeqId::new).ok_or_else(damaged)?;
    let Some(Value::BulkString(payload)) = fields.into_iter().nth(1) else { return Err(damaged()) };
    let payload = Bytes::from(payload);
    let kind = payload.first().and_then(|code| EventKind::from_code(*code)).ok_or_else(damaged)?;
    Ok(Event { seq, kind, frame: payload.slice(1..) })
}

/// Takes a pushed batch in.
pub(super) fn receive(channels: &Channels, run: RunId, payload: Vec<u8>) {
    let mut payload = Bytes::from(payload);
    if payload.len() < size_of::<u64>() {
        return;
    }
    let mut first = [0; size_of::<u64>()];
    first.copy_from_slice(&payload.split_to(size_of::<u64>()));
    match frames::decode(SeqId::new(u64::from_be_bytes(first)), payload) {
        Ok(events) if !events.is_empty() => channels.send(run, Live::Events(events.into())),
        Ok(_) => {}
        Err(damaged) => {
            tracing::warn!(run.id = %run, %damaged, "a push cannot be read; followers read the log instead")
        }
    }
}

/// Keeps the server's subscriptions as the followers of this process want them, from one task: what is subscribed is
/// known there and nowhere else, so that a follower that comes while the last one leaves finds a clear answer.
pub(super) struct Followers {
    wanted: mpsc::Sender<Wanted>,
    _task: Owned,
}

struct Wanted {
    run: RunId,
    answer: oneshot::Sender<Result<(), LogError>>,
}

impl Followers {
    pub(super) fn start(connection: ConnectionManager, keys: Keys, channels: Channels) -> Self {
        let (wanted, waiting) = mpsc::channel(WAITING);
        let subscriber = Subscriber { connection, keys, channels, subscribed: HashSet::new() };
        Self { wanted, _task: Owned(tokio::spawn(subscriber.run(waiting))) }
    }

    /// Returns once the server has confirmed the subscription.
    async fn subscribed(&self, run: RunId) -> Result<(), LogError> {
        let gone = || LogError::Unavailable("its subscriber has stopped".to_owned());
        let (answer, answered) = oneshot::channel();
        self.wanted.send(Wanted { run, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

struct Subscriber {
    connection: ConnectionManager,
    keys: Keys,
    channels: Channels,
    subscribed: HashSet<RunId>,
}

impl Subscriber {
    async fn run(mut self, mut waiting: mpsc::Receiver<Wanted>) {
        let mut group = Vec::with_capacity(GROUP);
        loop {
            let channels = self.channels.clone();
            tokio::select! {
                count = waiting.recv_many(&mut group, GROUP) => {
                    if count == 0 {
                        return;
                    }
                    self.subscribe(&mut group).await;
                }
                left = channels.left() => self.unsubscribe(left).await,
            }
        }
    }

    async fn subscribe(&mut self, group: &mut Vec<Wanted>) {
        let new: HashSet<RunId> =
            group.iter().map(|wanted| wanted.run).filter(|run| !self.subscribed.contains(run)).collect();
        let result = if new.is_empty() {
            Ok(())
        } else {
            let names: Vec<String> = new.iter().map(|run| self.keys.channel(*run)).collect();
            self.connection.subscribe(names).await
        };
        match result {
            Ok(()) => {
                self.subscribed.extend(new);
                for wanted in group.drain(..) {
                    let _ = wanted.answer.send(Ok(()));
                }
            }
            Err(error) => {
                for wanted in group.drain(..) {
                    let _ = wanted.answer.send(Err(LogError::Unavailable(error.to_string())));
                }
            }
        }
    }

    async fn unsubscribe(&mut self, left: Vec<RunId>) {
        let gone: Vec<RunId> =
            left.into_iter().filter(|run| !self.channels.is_followed(*run) && self.subscribed.contains(run)).collect();
        if gone.is_empty() {
            return;
        }
        let names: Vec<String> = gone.iter().map(|run| self.keys.channel(*run)).collect();
        match self.connection.unsubscribe(names).await {
            Ok(()) => {
                for run in gone {
                    self.subscribed.remove(&run);
                }
            }
            // Pushes for it are ignored as long as nobody follows it.
            Err(error) => tracing::debug!(%error, "runs that nobody follows stay subscribed"),
        }
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
