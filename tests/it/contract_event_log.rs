//! The contract of the event log over both adapters, and what only one of them can meet.

use std::sync::Arc;

use holdfast_shared::backends::embedded::{EmbeddedEventLog, EmbeddedSignals};
use holdfast_shared::backends::redis::{RedisBackend, RedisOptions};
use holdfast_shared::domain::position::SeqId;
use holdfast_shared::ports::event_log::{EventLog, Live, LogError};
use holdfast_shared::ports::signals::{Signal, Signals};
use holdfast_shared::testkit::event_log_suite::{SharedLog, events, lease, next_batch};

use crate::harness::PrivateRedis;
use crate::services;

const OPTIONS: RedisOptions =
    RedisOptions { live_ttl: std::time::Duration::from_secs(60), finished_ttl: std::time::Duration::from_secs(60) };

async fn redis_backend() -> RedisBackend {
    let prefix = services::unique_name("log");
    RedisBackend::connect(&services::redis_url(), &prefix, OPTIONS).await.expect("Redis answers")
}

mod redis {
    use super::*;

    async fn run<F: Future<Output = ()>>(case: impl FnOnce(SharedLog) -> F) {
        let backend = redis_backend().await;
        case(backend.event_log()).await;
    }

    holdfast_shared::event_log_contract!(run);
}

mod embedded {
    use super::*;

    async fn run<F: Future<Output = ()>>(case: impl FnOnce(SharedLog) -> F) {
        let directory = tempfile::tempdir().expect("a directory");
        let log = EmbeddedEventLog::open(&directory.path().join("events.db")).await.expect("opens");
        case(Arc::new(log)).await;
    }

    holdfast_shared::event_log_contract!(run);

    #[tokio::test]
    async fn a_file_that_is_opened_again_has_everything() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("events.db");
        let lease = lease();
        let log = EmbeddedEventLog::open(&path).await.expect("opens");
        log.open(&lease, SeqId::START).await.expect("opens");
        log.append(&lease, &events(1..=3, "a")).await.expect("new");
        drop(log);
        let log = EmbeddedEventLog::open(&path).await.expect("opens");
        assert_eq!(log.open(&lease, SeqId::START).await.expect("opens"), SeqId::new(3));
        assert_eq!(log.read(lease.run, SeqId::START).await.expect("reads"), events(1..=3, "a"));
        log.append(&lease, &events(4..=4, "a")).await.expect("goes on");
    }
}

#[tokio::test]
async fn a_second_process_follows_and_reads_what_the_first_appends() {
    let prefix = services::unique_name("log");
    let connect = || async { RedisBackend::connect(&services::redis_url(), &prefix, OPTIONS).await.expect("answers") };
    let (writer, reader) = (connect().await, connect().await);
    let (writer, reader) = (writer.event_log(), reader.event_log());
    let lease = lease();
    writer.open(&lease, SeqId::START).await.expect("opens");
    let mut follower = reader.subscribe(lease.run).await.expect("subscribes");
    writer.append(&lease, &events(1..=2, "a")).await.expect("new");
    assert_eq!(next_batch(&mut follower).await, events(1..=2, "a"));
    assert_eq!(reader.read(lease.run, SeqId::START).await.expect("reads"), events(1..=2, "a"));
    assert!(writer.followed().is_empty());
}

#[tokio::test]
async fn a_server_that_lost_everything_is_written_again_and_followers_look() {
    let mut server = PrivateRedis::start().await;
    let backend = RedisBackend::connect(&server.url, "holdfast", OPTIONS).await.expect("answers");
    let log = backend.event_log();
    let lease = lease();
    log.open(&lease, SeqId::START).await.expect("opens");
    log.append(&lease, &events(1..=4, "a")).await.expect("new");
    let mut follower = log.subscribe(lease.run).await.expect("subscribes");
    server.lose_everything().await;
    // The connection comes back by itself; until then the log says that it is away.
    let refusal = loop {
        match log.append(&lease, &events(5..=5, "a")).await {
            Err(LogError::Unavailable(_)) => tokio::task::yield_now().await,
            other => break other,
        }
    };
    assert!(matches!(refusal, Err(LogError::Position { tail: SeqId::START, .. })), "{refusal:?}");
    assert_eq!(log.open(&lease, SeqId::new(4)).await.expect("opens"), SeqId::new(4));
    // The subscription is back as well, and said so.
    loop {
        let heard = tokio::time::timeout(std::time::Duration::from_secs(20), follower.live.recv()).await;
        if matches!(heard.expect("in time"), Ok(Live::Check)) {
            break;
        }
    }
    log.append(&lease, &events(5..=5, "a")).await.expect("goes on");
    assert_eq!(next_batch(&mut follower).await, events(5..=5, "a"));
    drop(server);
}

#[tokio::test]
async fn a_stream_that_was_lost_alone_is_written_again() {
    use std::io::{Read, Write};
    let server = PrivateRedis::start().await;
    let backend = RedisBackend::connect(&server.url, "holdfast", OPTIONS).await.expect("answers");
    let log = backend.event_log();
    let lease = lease();
    log.open(&lease, SeqId::START).await.expect("opens");
    log.append(&lease, &events(1..=4, "a")).await.expect("new");
    let uuid = lease.run.to_string().replace("run-", "");
    let mut raw = std::net::TcpStream::connect(server.url.trim_start_matches("redis://")).expect("connects");
    raw.write_all(format!("DEL holdfast:{{{uuid}}}:e\r\n").as_bytes()).expect("sent");
    let mut answer = [0; 4];
    raw.read_exact(&mut answer).expect("answered");
    assert_eq!(&answer, b":1\r\n", "the stream has another name");
    assert_eq!(log.open(&lease, SeqId::new(2)).await.expect("opens"), SeqId::new(2), "3 and 4 are gone");
    log.append(&lease, &events(3..=4, "a")).await.expect("goes on");
    assert_eq!(log.read(lease.run, SeqId::START).await.expect("reads"), events(3..=4, "a"));
}

async fn signals_reach_every_listener(sender: Arc<dyn Signals>, listener: Arc<dyn Signals>) {
    let mut heard = [listener.listen(), listener.listen()];
    let signal = Signal::Cancel(lease().run);
    sender.send(signal).await;
    for listener in &mut heard {
        let got = tokio::time::timeout(std::time::Duration::from_secs(10), listener.recv()).await;
        assert_eq!(got.expect("in time").expect("not closed"), signal);
    }
}

#[tokio::test]
async fn embedded_signals_reach_every_listener() {
    let signals: Arc<dyn Signals> = Arc::new(EmbeddedSignals::default());
    signals_reach_every_listener(Arc::clone(&signals), signals).await;
}

#[tokio::test]
async fn redis_signals_reach_every_listener_of_another_process() {
    let prefix = services::unique_name("signals");
    let connect = || async { RedisBackend::connect(&services::redis_url(), &prefix, OPTIONS).await.expect("answers") };
    signals_reach_every_listener(connect().await.signals(), connect().await.signals()).await;
}
