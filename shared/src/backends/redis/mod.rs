//! Redis: one stream for each run, its live tail by pub/sub, signals.
//!
//! A process has two connections, whatever it follows: one for commands, one that subscribes. Pub/sub loses messages
//! when a connection breaks; nothing rests on it, since readers see a gap by the numbers and read the stream.

mod event_log;
mod keys;
mod signals;

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, IntoConnectionInfo, ProtocolVersion, PushInfo, PushKind, Value};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use self::event_log::{Followers, Scripts};
use self::keys::Keys;
use crate::backends::channels::Channels;
use crate::ports::event_log::{EventLog, LogError};
use crate::ports::signals::{Signal, Signals};

pub use self::event_log::RedisEventLog;
pub use self::signals::RedisSignals;

/// How long an answer may take; the library's own half second is too short for a server that is saving its data.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long connecting may take.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest pause between tries to connect again.
const RECONNECT_MOST: Duration = Duration::from_secs(1);
/// Signals that a worker may fall behind before it misses some, which the run rows make up for.
const SIGNALS_WAITING: usize = 1024;

/// How long Redis keeps events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedisOptions {
    /// Of a run that nobody writes to.
    pub live_ttl: Duration,
    /// Of a run that has ended.
    pub finished_ttl: Duration,
}

/// Both adapters over shared connections.
pub struct RedisBackend {
    log: Arc<RedisEventLog>,
    signals: Arc<RedisSignals>,
}

impl RedisBackend {
    /// Connects. All names begin with `prefix`.
    ///
    /// # Errors
    /// The server cannot be reached, is too old for RESP3 (6.0), or forbids scripts: appends would not be fenced then.
    pub async fn connect(url: &str, prefix: &str, options: RedisOptions) -> Result<Self, LogError> {
        let keys = Keys::new(prefix);
        let channels = Channels::reporting();
        let (heard, _) = broadcast::channel(SIGNALS_WAITING);
        let commands = connect(url, config()).await?;
        Scripts::load(&mut commands.clone()).await?;
        let push = {
            let (keys, channels, heard) = (keys.clone(), channels.clone(), heard.clone());
            move |info: PushInfo| -> Result<(), std::convert::Infallible> {
                receive(&keys, &channels, &heard, info);
                Ok(())
            }
        };
        let config = config().set_push_sender(push).set_automatic_resubscription();
        let mut subscriptions = connect(url, config).await?;
        subscriptions.subscribe(keys.signals()).await.map_err(unavailable)?;
        let followers = Followers::start(subscriptions, keys.clone(), channels.clone());
        let log = RedisEventLog::new(commands.clone(), keys.clone(), channels, followers, options);
        Ok(Self { log: Arc::new(log), signals: Arc::new(RedisSignals::new(commands, keys, heard)) })
    }

    /// The event log.
    #[must_use]
    pub fn event_log(&self) -> Arc<dyn EventLog> {
        Arc::<RedisEventLog>::clone(&self.log)
    }

    /// The signals.
    #[must_use]
    pub fn signals(&self) -> Arc<dyn Signals> {
        Arc::<RedisSignals>::clone(&self.signals)
    }
}

fn config() -> ConnectionManagerConfig {
    ConnectionManagerConfig::new()
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
        .set_connection_timeout(Some(CONNECTION_TIMEOUT))
        .set_min_delay(Duration::from_millis(20))
        .set_max_delay(RECONNECT_MOST)
}

async fn connect(url: &str, config: ConnectionManagerConfig) -> Result<ConnectionManager, LogError> {
    let info = url.into_connection_info().map_err(unavailable)?;
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let client = Client::open(info.set_redis_settings(settings)).map_err(unavailable)?;
    ConnectionManager::new_with_config(client, config).await.map_err(unavailable)
}

/// Takes a push in, on the connection's own task: decodes it once and hands it to all followers without waiting.
fn receive(keys: &Keys, channels: &Channels, heard: &broadcast::Sender<Signal>, info: PushInfo) {
    let mut data = info.data.into_iter();
    match info.kind {
        PushKind::Disconnection => channels.mark_stale(),
        PushKind::Subscribe => {
            if let Some(Value::BulkString(channel)) = data.next()
                && let Some(run) = keys.run_of_channel(&channel)
            {
                channels.refresh(run);
            }
        }
        PushKind::Message => {
            let (Some(Value::BulkString(channel)), Some(Value::BulkString(payload))) = (data.next(), data.next())
            else {
                return;
            };
            match keys.run_of_channel(&channel) {
                Some(run) => event_log::receive(channels, run, payload),
                None => signals::receive(heard, &payload),
            }
        }
        _ => {}
    }
}

fn unavailable(error: redis::RedisError) -> LogError {
    LogError::Unavailable(error.to_string())
}

/// A task that ends with its owner.
struct Owned(JoinHandle<()>);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.abort();
    }
}
