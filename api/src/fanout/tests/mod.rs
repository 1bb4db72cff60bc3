//! What readers get, under all that can happen to a run's events.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod fakes;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use holdfast_shared::domain::event::{Event, EventKind};
use holdfast_shared::domain::ids::{AgentId, MessageId, PingId, RunId};
use holdfast_shared::domain::message::{MessageType, ReasoningSource};
use holdfast_shared::domain::position::SeqId;
use holdfast_shared::domain::run::{Attachment, Outcome, Run, RunRequest, RunState, RunType, RunWork, StreamMode};
use holdfast_shared::domain::stop_reason::StopReason;
use holdfast_shared::domain::tenant::TenantId;
use holdfast_shared::domain::usage::RunUsage;
use holdfast_shared::ports::event_log::EventLog;
use holdfast_shared::ports::seams::Seams;
use holdfast_shared::wire::event::Encoder;
use holdfast_shared::wire::message::{SliceHead, reasoning, text};
use proptest::prelude::*;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::fakes::{FakeLog, FakeStore};
use super::*;

const COMMENT: &str = ": keepalive\n\n";
const DONE: &str = "data: [DONE]\n\n";

/// One run with everything around it. `script` has all of its events; tests decide where they are when.
struct World {
    store: Arc<FakeStore>,
    log: Arc<FakeLog>,
    hub: Arc<Hub>,
    run: RunId,
    script: Vec<Event>,
}

impl World {
    /// A run of a ping, so many messages of two kinds, and the end.
    fn new(messages: usize) -> Self {
        Self::with(messages, Attachment::Background)
    }

    fn with(messages: usize, attachment: Attachment) -> Self {
        let (store, log) = (Arc::new(FakeStore::default()), Arc::new(FakeLog::default()));
        let seams = Seams::system();
        let hub = Hub::new(store.clone(), log.clone(), seams.clone(), HubOptions::default());
        let run = seams.id();
        store.put(new_run(run, attachment));
        let script = script(&seams, run, messages, attachment);
        Self { store, log, hub, run, script }
    }

    /// Events by number.
    fn events(&self, numbers: Range<usize>) -> &[Event] {
        &self.script[numbers.start - 1..numbers.end - 1]
    }

    fn all(&self) -> Range<usize> {
        1..self.script.len() + 1
    }

    fn terminal(&self) -> usize {
        self.script.iter().position(|event| event.kind == EventKind::StopReason).unwrap() + 1
    }

    fn append(&self, numbers: Range<usize>) {
        self.log.append(self.run, self.events(numbers));
    }

    fn archive(&self, numbers: Range<usize>) {
        self.store.add(self.run, self.events(numbers));
    }

    /// The commit of the end, with the events that are not archived yet.
    fn commit_end(&self) {
        let archived = usize::try_from(self.store.get(self.run).archived.get()).unwrap();
        self.archive(archived + 1..self.all().end);
        let mut run = self.store.get(self.run);
        let terminal = SeqId::new(self.terminal() as u64);
        run.state = RunState::Ended { reason: StopReason::EndTurn, at: Seams::system().now(), error: None, terminal };
        self.store.put(run);
    }

    async fn open(&self, after: usize) -> Result<axum::response::Response, FanoutError> {
        self.open_with(options(after)).await
    }

    async fn open_with(&self, options: StreamOptions) -> Result<axum::response::Response, FanoutError> {
        self.hub.stream(self.store.get(self.run), options).await
    }

    /// A reader that reads all there is until its stream ends.
    async fn reader(&self, after: usize) -> JoinHandle<String> {
        tokio::spawn(read_all(self.open(after).await.unwrap().into_body()))
    }

    /// The frames of these events.
    fn text(&self, numbers: Range<usize>) -> String {
        frames(self.events(numbers).iter())
    }

    /// What a reader with this cursor gets until the end.
    fn rest(&self, after: usize) -> String {
        self.text(after.min(self.terminal() - 1) + 1..self.all().end)
    }

    fn watch(&self) -> CancellationToken {
        let (hub, shutdown) = (Arc::clone(&self.hub), CancellationToken::new());
        let token = shutdown.clone();
        tokio::spawn(async move { hub.keep_watch(token).await });
        shutdown
    }
}

fn options(after: usize) -> StreamOptions {
    StreamOptions { after: SeqId::new(after as u64), pings: Pings::Comments, id_lines: IdLines::Hidden }
}

fn new_run(id: RunId, attachment: Attachment) -> Run {
    let seams = Seams::system();
    Run {
        id,
        tenant: TenantId::default(),
        agent_id: seams.id::<AgentId>(),
        conversation_id: None,
        request: RunRequest {
            attachment,
            mode: StreamMode::Tokens,
            include_pings: true,
            max_steps: 50,
            ..RunRequest::of_work(RunType::SendMessageStreaming, RunWork::Answer)
        },
        state: RunState::Running,
        cancel_requested: false,
        usage: RunUsage::default(),
        archived: SeqId::START,
        created_at: seams.now(),
        ttft_ns: None,
        callback: None,
    }
}

fn script(seams: &Seams, run: RunId, messages: usize, attachment: Attachment) -> Vec<Event> {
    let mut encoder = Encoder::new(run, attachment, SeqId::START);
    let mut events = vec![encoder.ping(seams.id::<PingId>(), seams.now())];
    let head = SliceHead { message: seams.id::<MessageId>(), date: seams.now(), step: None, run: Some(run) };
    for number in 0..messages {
        let words = format!("word {number}");
        let shown = if number % 2 == 0 {
            head.slice(0, MessageType::ReasoningMessage, reasoning(&words, None, ReasoningSource::Native))
        } else {
            head.slice(1, MessageType::AssistantMessage, text(&words))
        };
        events.extend(encoder.message(shown));
    }
    events.extend(encoder.end(&Outcome::stopped(StopReason::EndTurn), &RunUsage::default()));
    events
}

fn frames<'a>(events: impl Iterator<Item = &'a Event>) -> String {
    events.map(|event| std::str::from_utf8(&event.frame).unwrap()).collect()
}

async fn read_all(body: Body) -> String {
    let mut stream = body.into_data_stream();
    let mut read = Vec::new();
    while let Some(chunk) = stream.next().await {
        read.extend_from_slice(&chunk.unwrap());
    }
    without_comments(&String::from_utf8(read).unwrap())
}

fn without_comments(read: &str) -> String {
    read.replace(COMMENT, "")
}

/// What a body has to say right now.
async fn now(stream: &mut BodyDataStream) -> String {
    let mut read = Vec::new();
    for _ in 0..50 {
        tokio::task::yield_now().await;
        while let Some(Some(chunk)) = stream.next().now_or_never() {
            read.extend_from_slice(&chunk.unwrap());
        }
    }
    String::from_utf8(read).unwrap()
}

async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_live_reader_gets_each_event_as_it_comes() {
    let world = World::new(6);
    world.archive(1..2);
    let response = world.open(0).await.unwrap();
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "text/event-stream; charset=utf-8");
    assert_eq!(header("cache-control"), "no-cache");
    assert_eq!(header("x-accel-buffering"), "no");
    assert_eq!(header("x-letta-run-id"), world.run.to_string());
    let mut stream = response.into_body().into_data_stream();
    assert_eq!(now(&mut stream).await, world.text(1..2), "the opening ping, first and at once");
    for number in 2..world.all().end - 1 {
        world.append(number..number + 1);
        assert_eq!(now(&mut stream).await, world.text(number..number + 1));
    }
    world.commit_end();
    world.append(world.all().end - 1..world.all().end);
    assert_eq!(now(&mut stream).await, DONE);
    assert!(stream.next().await.is_none(), "the body ends with the run");
    assert!(world.log.followed().is_empty(), "the subscription ends with the stream");
}

#[tokio::test(start_paused = true)]
async fn a_lone_frame_is_not_copied() {
    let world = World::new(2);
    let mut stream = world.open(0).await.unwrap().into_body().into_data_stream();
    assert_eq!(stream.next().await.unwrap().unwrap(), COMMENT, "a first byte at once");
    world.append(1..2);
    let chunk: Bytes = stream.next().await.unwrap().unwrap();
    assert_eq!(chunk.as_ptr(), world.script[0].frame.as_ptr());
}

#[tokio::test(start_paused = true)]
async fn what_waits_goes_out_in_one_chunk() {
    let world = World::new(6);
    let mut stream = world.open(0).await.unwrap().into_body().into_data_stream();
    assert_eq!(stream.next().await.unwrap().unwrap(), COMMENT);
    world.append(1..3);
    world.append(3..6);
    assert_eq!(stream.next().await.unwrap().unwrap(), world.text(1..6));
}

#[tokio::test(start_paused = true)]
async fn a_finished_run_resumes_from_every_cursor() {
    let world = World::new(9);
    world.commit_end();
    for after in 0..world.all().end + 20 {
        let read = read_all(world.open(after).await.unwrap().into_body()).await;
        assert_eq!(read, world.rest(after), "after {after}");
    }
    assert_eq!(world.log.subscriptions.load(Ordering::SeqCst), 0);
    assert_eq!(world.log.reads.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_live_run_resumes_from_every_cursor_at_every_place() {
    // The log has lost what the archive has, as Redis may.
    for (archived, forgotten, appended) in [(1, 0, 5), (1, 1, 1), (5, 0, 5), (5, 3, 8), (7, 7, 7), (6, 6, 9)] {
        let world = World::new(10);
        world.archive(1..archived + 1);
        world.append(1..appended + 1);
        world.log.forget(world.run, SeqId::new(forgotten));
        let mut readers = Vec::new();
        for after in 0..world.all().end + 5 {
            readers.push((after, world.reader(after).await));
        }
        settle().await;
        for number in appended + 1..world.terminal() {
            world.append(number..number + 1);
            settle().await;
        }
        world.commit_end();
        world.append(world.terminal()..world.all().end);
        for (after, reader) in readers {
            let read = reader.await.unwrap();
            assert_eq!(read, world.rest(after), "after {after}, archived {archived}, appended {appended}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cursor_beyond_the_tail_waits_until_the_run_passes_it() {
    let world = World::new(9);
    world.append(1..3);
    let mut stream = world.open(5).await.unwrap().into_body().into_data_stream();
    assert_eq!(now(&mut stream).await, COMMENT);
    world.append(3..6);
    assert_eq!(now(&mut stream).await, "");
    world.append(6..8);
    assert_eq!(now(&mut stream).await, world.text(6..8));
}

#[tokio::test(start_paused = true)]
async fn a_cursor_among_the_terminal_frames_of_a_run_that_ends_gets_all_of_them() {
    let world = World::new(3);
    world.archive(1..2);
    world.append(1..world.terminal());
    let stale = world.store.get(world.run);
    world.commit_end();
    world.append(world.terminal()..world.all().end);
    for after in world.terminal() - 1..world.all().end {
        let response = world.hub.stream(stale.clone(), options(after)).await.unwrap();
        let read = tokio::time::timeout(Duration::from_secs(1), read_all(response.into_body()));
        if after < world.all().end - 1 {
            assert_eq!(read.await.unwrap(), world.rest(after), "after {after}");
        } else {
            assert!(read.await.is_err(), "only the watch knows, as the row was old and nothing came since");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn terminal_frames_are_not_repeated_when_their_push_is_cut() {
    let world = World::new(3);
    let _watch = world.watch();
    let reader = world.reader(0).await;
    world.append(1..world.terminal());
    settle().await;
    world.commit_end();
    world.append(world.terminal()..world.terminal() + 1);
    assert_eq!(reader.await.unwrap(), world.rest(0));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_lags_is_served_from_the_log() {
    let world = World::new(60);
    let mut stream = world.open(0).await.unwrap().into_body().into_data_stream();
    let mut read = String::new();
    for number in 1..world.terminal() {
        world.append(number..number + 1);
        if number % 20 == 0 {
            world.archive(number - 19..number + 1);
            world.log.forget(world.run, SeqId::new(number as u64 - 5));
            read += &now(&mut stream).await;
        }
    }
    world.commit_end();
    world.append(world.terminal()..world.all().end);
    while let Some(chunk) = stream.next().await {
        read += std::str::from_utf8(&chunk.unwrap()).unwrap();
    }
    assert_eq!(without_comments(&read), world.rest(0));
}

#[tokio::test(start_paused = true)]
async fn a_gap_in_the_pushes_is_filled_at_once() {
    let world = World::new(6);
    let mut stream = world.open(0).await.unwrap().into_body().into_data_stream();
    world.append(1..2);
    assert_eq!(without_comments(&now(&mut stream).await), world.text(1..2));
    world.log.append_unheard(world.run, world.events(2..5));
    world.append(5..6);
    assert_eq!(now(&mut stream).await, world.text(2..6));
    world.log.push(world.run, world.events(3..6));
    assert_eq!(now(&mut stream).await, "", "what comes twice is shown once");
}

#[tokio::test(start_paused = true)]
async fn a_lost_push_is_made_up_for_without_a_query_per_stream() {
    let world = World::new(6);
    let _watch = world.watch();
    let mut streams = Vec::new();
    for _ in 0..10 {
        streams.push(world.open(0).await.unwrap().into_body().into_data_stream());
    }
    for stream in &mut streams {
        now(stream).await;
    }
    world.log.append_unheard(world.run, world.events(1..4));
    sleep(Duration::from_secs(11)).await;
    for stream in &mut streams {
        assert_eq!(now(stream).await, world.text(1..4));
    }
    for _ in 0..10 {
        sleep(Duration::from_secs(10)).await;
        for stream in &mut streams {
            now(stream).await;
        }
    }
    assert_eq!(world.store.run_reads.load(Ordering::SeqCst), 0);
    assert_eq!(world.store.event_reads.load(Ordering::SeqCst), 0);
    assert!(world.store.ended_reads.load(Ordering::SeqCst) <= 56, "one query per round");
    let reads = world.log.reads.load(Ordering::SeqCst);
    assert!(reads <= 10 * 15, "each stream reads the log once in five rounds, not {reads} times in all");
}

#[tokio::test(start_paused = true)]
async fn an_end_that_only_the_archive_has_is_found() {
    let world = World::new(6);
    let _watch = world.watch();
    let readers = [world.reader(0).await, world.reader(4).await, world.reader(100).await];
    world.append(1..5);
    settle().await;
    world.commit_end();
    let begin = Instant::now();
    for (reader, after) in readers.into_iter().zip([0, 4, 100]) {
        assert_eq!(reader.await.unwrap(), world.rest(after), "after {after}");
    }
    assert!(begin.elapsed() <= Duration::from_secs(3), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_check_finds_an_end_without_the_watch() {
    let world = World::new(6);
    let reader = world.reader(0).await;
    world.append(1..5);
    settle().await;
    world.commit_end();
    world.log.check(world.run);
    assert_eq!(reader.await.unwrap(), world.rest(0));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_longer_kept_is_refused() {
    let world = World::new(6);
    world.commit_end();
    world.store.forget(world.run, SeqId::new(3));
    assert!(matches!(world.open(1).await, Err(FanoutError::Expired)));
    assert_eq!(read_all(world.open(3).await.unwrap().into_body()).await, world.rest(3));
    world.store.forget(world.run, SeqId::new(1000));
    for after in [0, 3, 100] {
        assert!(matches!(world.open(after).await, Err(FanoutError::Expired)), "after {after}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_never_shown() {
    let world = World::new(6);
    world.append(1..5);
    world.log.forget(world.run, SeqId::new(2));
    assert!(matches!(world.open(0).await, Err(FanoutError::Expired)));
    let reader = world.reader(4).await;
    world.append(6..8);
    assert_eq!(reader.await.unwrap(), "", "cut, as the fifth event is nowhere");
}

#[tokio::test(start_paused = true)]
async fn only_the_wanted_types_are_shown() {
    let world = World::new(7);
    let mut run = world.store.get(world.run);
    run.request.include_types = Some(vec![MessageType::AssistantMessage, MessageType::UserMessage]);
    world.store.put(run);
    let wanted = |after: usize| {
        frames(world.script.iter().skip(after).filter(|event| event.kind != EventKind::ReasoningMessage))
    };
    let live = [world.reader(0).await, world.reader(4).await];
    settle().await;
    for number in world.all() {
        if number == world.terminal() {
            world.commit_end();
        }
        world.append(number..number + 1);
        settle().await;
    }
    for (reader, after) in live.into_iter().zip([0, 4]) {
        assert_eq!(reader.await.unwrap(), wanted(after), "live after {after}");
    }
    for after in 0..world.terminal() {
        let read = read_all(world.open(after).await.unwrap().into_body()).await;
        assert_eq!(read, wanted(after), "finished, after {after}");
    }
}

#[tokio::test(start_paused = true)]
async fn id_lines_are_shown_to_those_who_ask() {
    let world = World::new(3);
    world.commit_end();
    let options = StreamOptions { id_lines: IdLines::Shown, ..options(2) };
    let read = read_all(world.open_with(options).await.unwrap().into_body()).await;
    let expected: String = world
        .script
        .iter()
        .skip(2)
        .map(|event| format!("id: {}\n{}", event.seq, frames([event].into_iter())))
        .collect();
    assert_eq!(read, expected);
    assert!(!read_all(world.open(2).await.unwrap().into_body()).await.contains("id: "));
}

#[tokio::test(start_paused = true)]
async fn silence_is_broken_by_comments_or_pings() {
    for attachment in [Attachment::Background, Attachment::Foreground] {
        let world = World::with(3, attachment);
        let mut comments = world.open(0).await.unwrap().into_body().into_data_stream();
        let mut pings = world
            .open_with(StreamOptions { pings: Pings::Events, ..options(0) })
            .await
            .unwrap()
            .into_body()
            .into_data_stream();
        assert_eq!(now(&mut comments).await, COMMENT);
        assert_eq!(now(&mut pings).await, COMMENT, "a first byte at once");
        let begin = Instant::now();
        assert_eq!(seq_of_ping(&pings.next().await.unwrap().unwrap()), None);
        assert_eq!(comments.next().await.unwrap().unwrap(), COMMENT);
        assert_eq!(begin.elapsed().as_secs(), 20);
        sleep(Duration::from_secs(15)).await;
        world.append(1..3);
        now(&mut pings).await;
        let begin = Instant::now();
        let shown = seq_of_ping(&pings.next().await.unwrap().unwrap());
        assert_eq!(begin.elapsed().as_secs(), 20, "the silence counts from the last bytes");
        assert_eq!(shown, (attachment == Attachment::Background).then_some(2));
    }
}

fn seq_of_ping(frame: &[u8]) -> Option<u64> {
    let json = std::str::from_utf8(frame).unwrap().strip_prefix("data: ").unwrap();
    let ping: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(ping["message_type"], "ping");
    ping["seq_id"].as_u64()
}

#[tokio::test(start_paused = true)]
async fn filtered_events_do_not_end_the_silence() {
    let world = World::new(40);
    let mut run = world.store.get(world.run);
    run.request.include_types = Some(Vec::new());
    world.store.put(run);
    let options = StreamOptions { pings: Pings::Events, ..options(0) };
    let mut stream = world.open_with(options).await.unwrap().into_body().into_data_stream();
    world.append(1..2);
    assert_eq!(without_comments(&now(&mut stream).await), world.text(1..2));
    let begin = Instant::now();
    let next = tokio::spawn(async move { stream.next().await.unwrap().unwrap() });
    for number in 2..21 {
        sleep(Duration::from_secs(1)).await;
        world.append(number..number + 1);
    }
    assert_eq!(seq_of_ping(&next.await.unwrap()), Some(1));
    assert_eq!(begin.elapsed().as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn closing_cuts_streams_and_refuses_new_ones() {
    let world = World::new(6);
    world.append(1..4);
    let reader = world.reader(0).await;
    let hub = Arc::clone(&world.hub);
    let run = world.run;
    let waiter = tokio::spawn(async move { hub.ended(&TenantId::default(), run).await });
    settle().await;
    world.hub.close();
    assert_eq!(reader.await.unwrap(), world.text(1..4), "no end is made up");
    assert!(matches!(waiter.await.unwrap(), Err(FanoutError::ShuttingDown)));
    assert!(matches!(world.open(0).await, Err(FanoutError::ShuttingDown)));
    assert!(world.log.followed().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_watch_ends_when_told() {
    let world = World::new(1);
    let shutdown = CancellationToken::new();
    let watch = tokio::spawn({
        let (hub, shutdown) = (Arc::clone(&world.hub), shutdown.clone());
        async move { hub.keep_watch(shutdown).await }
    });
    let _reader = world.reader(0).await;
    world.store.hangs.store(true, Ordering::SeqCst);
    sleep(Duration::from_secs(5)).await;
    shutdown.cancel();
    watch.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn many_readers_get_equal_bytes() {
    let world = World::new(50);
    world.archive(1..2);
    let mut readers = Vec::new();
    for number in 1..world.all().end {
        if number == world.terminal() {
            world.commit_end();
        }
        if number > 1 {
            world.append(number..number + 1);
        }
        for _ in 0..5 {
            readers.push(world.reader(0).await);
        }
        if number % 7 == 0 {
            settle().await;
        }
    }
    let expected = world.rest(0);
    for reader in readers {
        assert_eq!(reader.await.unwrap(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_is_bridged_with_keepalives() {
    let world = World::new(6);
    let reader = world.reader(0).await;
    world.append(1..3);
    settle().await;
    world.log.is_down.store(true, Ordering::SeqCst);
    world.log.append_unheard(world.run, world.events(3..5));
    world.append(5..6);
    sleep(Duration::from_secs(2)).await;
    assert!(!reader.is_finished());
    world.log.is_down.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(5)).await;
    world.commit_end();
    world.append(6..world.all().end);
    assert_eq!(reader.await.unwrap(), world.rest(0));
}

#[tokio::test(start_paused = true)]
async fn a_long_outage_cuts_the_stream() {
    let world = World::new(6);
    let reader = world.reader(0).await;
    world.append(1..3);
    settle().await;
    world.log.is_down.store(true, Ordering::SeqCst);
    world.append(4..5);
    let begin = Instant::now();
    assert_eq!(reader.await.unwrap(), world.text(1..3));
    assert!((5..15).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    assert!(matches!(world.open(0).await, Err(FanoutError::Log(_))));
    world.log.is_down.store(false, Ordering::SeqCst);
    world.commit_end();
    world.store.is_down.store(true, Ordering::SeqCst);
    assert!(matches!(world.open(0).await, Err(FanoutError::Store(_))));
}

#[tokio::test(start_paused = true)]
async fn the_live_tail_needs_no_store() {
    let world = World::new(6);
    let mut stream = world.open(0).await.unwrap().into_body().into_data_stream();
    now(&mut stream).await;
    world.store.is_down.store(true, Ordering::SeqCst);
    world.log.check(world.run);
    now(&mut stream).await;
    world.append(1..3);
    assert_eq!(now(&mut stream).await, world.text(1..3));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_does_not_silence_a_stream() {
    let world = World::new(6);
    world.archive(1..4);
    let mut stream = world.open(0).await.unwrap().into_body().into_data_stream();
    assert_eq!(stream.next().await.unwrap().unwrap(), world.text(1..4));
    world.store.hangs.store(true, Ordering::SeqCst);
    world.log.check(world.run);
    let begin = Instant::now();
    assert_eq!(stream.next().await.unwrap().unwrap(), COMMENT);
    assert_eq!(begin.elapsed().as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_ends_is_taken_anew() {
    let world = World::new(6);
    let reader = world.reader(0).await;
    world.append(1..3);
    settle().await;
    world.log.hang_up(world.run);
    world.append(3..5);
    sleep(Duration::from_secs(1)).await;
    world.append(5..6);
    settle().await;
    world.commit_end();
    world.append(6..world.all().end);
    assert_eq!(reader.await.unwrap(), world.rest(0));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_run_can_be_awaited() {
    let tenant = TenantId::default();
    let told = World::new(3);
    let (ended, ()) = tokio::join!(told.hub.ended(&tenant, told.run), async {
        settle().await;
        told.append(1..told.terminal());
        settle().await;
        told.commit_end();
        told.append(told.terminal()..told.all().end);
    });
    assert!(ended.unwrap().state.has_ended());
    assert!(told.hub.ended(&tenant, told.run).await.unwrap().state.has_ended(), "one that has ended already");

    let untold = World::new(3);
    let _watch = untold.watch();
    let (ended, ()) = tokio::join!(untold.hub.ended(&tenant, untold.run), async {
        sleep(Duration::from_secs(60)).await;
        assert!(untold.store.run_reads.load(Ordering::SeqCst) <= 1, "waiting costs no queries");
        untold.commit_end();
    });
    assert!(ended.unwrap().state.has_ended());

    let foreign = TenantId::parse("another").unwrap();
    assert!(matches!(told.hub.ended(&foreign, told.run).await, Err(FanoutError::Expired)));
    untold.log.is_down.store(true, Ordering::SeqCst);
    assert!(matches!(untold.hub.ended(&tenant, untold.run).await, Err(FanoutError::Log(_))));
}

#[tokio::test(start_paused = true)]
async fn an_idle_stream_is_small() {
    let world = World::new(1);
    let shared = world.hub.shared_for_tests();
    let reader = super::reader::Reader::open(shared, world.store.get(world.run), options(0)).await.unwrap();
    let stream = super::response::chunks(reader);
    assert!(std::mem::size_of_val(&stream) <= 768, "{} bytes", std::mem::size_of_val(&stream));
}

/// What can happen to a run while readers come and go.
#[derive(Debug, Clone)]
enum Happening {
    Append { count: usize, is_heard: bool },
    Archive,
    Forget(usize),
    Repush(usize),
    Check,
    HangUp,
    Join(usize),
    Slow(usize),
    Sleep(u64),
    Yield(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => (1..6usize, prop::bool::weighted(0.7)).prop_map(|(count, is_heard)| Happening::Append { count, is_heard }),
        2 => Just(Happening::Archive),
        2 => (0..10usize).prop_map(Happening::Forget),
        1 => (1..10usize).prop_map(Happening::Repush),
        1 => Just(Happening::Check),
        1 => Just(Happening::HangUp),
        3 => (0..60usize).prop_map(Happening::Join),
        1 => (0..60usize).prop_map(Happening::Slow),
        1 => (1..15_000u64).prop_map(Happening::Sleep),
        3 => (1..30usize).prop_map(Happening::Yield),
    ]
}

async fn play(happenings: Vec<Happening>, is_end_told: bool) {
    let world = World::new(40);
    let _watch = world.watch();
    let (mut appended, mut archived) = (0, 0);
    let last_message = world.terminal() - 1;
    let mut readers = Vec::new();
    for happening in happenings {
        match happening {
            Happening::Append { count, is_heard } => {
                let until = (appended + count).min(last_message);
                let events = world.events(appended + 1..until + 1);
                match (events.is_empty(), is_heard) {
                    (true, _) => {}
                    (false, true) => world.log.append(world.run, events),
                    (false, false) => world.log.append_unheard(world.run, events),
                }
                appended = until;
            }
            Happening::Archive => {
                world.archive(archived + 1..appended + 1);
                archived = appended;
            }
            Happening::Forget(kept) => world.log.forget(world.run, SeqId::new(archived.saturating_sub(kept) as u64)),
            Happening::Repush(count) if appended > 0 => {
                world.log.push(world.run, world.events(appended.saturating_sub(count).max(1)..appended + 1));
            }
            Happening::Repush(_) => {}
            Happening::Check => world.log.check(world.run),
            Happening::HangUp => world.log.hang_up(world.run),
            Happening::Join(after) => readers.push((after, world.reader(after).await)),
            Happening::Slow(after) => {
                let body = world.open(after).await.unwrap().into_body();
                readers.push((after, tokio::spawn(read_slowly(body))));
            }
            Happening::Sleep(ms) => sleep(Duration::from_millis(ms)).await,
            Happening::Yield(times) => {
                for _ in 0..times {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
    // What was appended is committed with the end; what was not is in the archive only.
    world.commit_end();
    if is_end_told {
        world.append(appended + 1..world.all().end);
    }
    for (after, reader) in readers {
        assert_eq!(reader.await.unwrap(), world.rest(after), "after {after}");
    }
    assert!(world.log.followed().is_empty());
}

async fn read_slowly(body: Body) -> String {
    let mut stream = body.into_data_stream();
    let mut read = String::new();
    while let Some(chunk) = stream.next().await {
        read += std::str::from_utf8(&chunk.unwrap()).unwrap();
        sleep(Duration::from_millis(700)).await;
    }
    without_comments(&read)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_schedule_makes_a_gap_or_a_repeat(
        happenings in prop::collection::vec(happening(), 1..60),
        is_end_told: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(play(happenings, is_end_told));
    }
}
