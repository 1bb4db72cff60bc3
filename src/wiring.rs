//! Adapters for ports: chosen once, here, from the settings. Mixing is allowed.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use holdfast_api::fanout::{Hub, HubOptions};
use holdfast_shared::backends::embedded::{EmbeddedEventLog, EmbeddedQueue, EmbeddedSignals};
use holdfast_shared::backends::rabbitmq::RabbitQueue;
use holdfast_shared::backends::redis::{RedisBackend, RedisOptions};
use holdfast_shared::config::Settings;
use holdfast_shared::images::{self, ImageLimits, Images};
use holdfast_shared::models::Catalogue;
use holdfast_shared::outbound::Outbound;
use holdfast_shared::ports::event_log::EventLog;
use holdfast_shared::ports::run_queue::RunQueue;
use holdfast_shared::ports::seams::Seams;
use holdfast_shared::ports::signals::Signals;
use holdfast_shared::ports::store::Store;
use holdfast_shared::relay::Relay;
use holdfast_shared::store::{PostgresStore, SqliteStore};
use holdfast_worker::llm::Providers;
use holdfast_worker::tools::mcp::{McpConfig, McpPool};
use holdfast_worker::tools::python::PythonSandbox;
use holdfast_worker::tools::{Toolbox, http};
use holdfast_worker::{HeartbeatStore, Worker};
use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;

/// How often the API looks for what the live tail lost.
const CHECK_EVERY: std::time::Duration = std::time::Duration::from_secs(2);

/// The ports with their adapters.
#[derive(Clone)]
pub(crate) struct Backends {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) queue: Arc<dyn RunQueue>,
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) signals: Arc<dyn Signals>,
    pub(crate) relay: Arc<Relay>,
    pub(crate) heartbeat_store: HeartbeatStore,
    pub(crate) seams: Seams,
}

/// Checks that a distributed installation has all its servers.
///
/// # Errors
/// All that is missing, by name.
pub(crate) fn require_servers(settings: &Settings) -> anyhow::Result<()> {
    let named = [
        ("DATABASE_URL", settings.database_url.is_some()),
        ("AMQP_URL", settings.amqp_url.is_some()),
        ("REDIS_URL", settings.redis_url.is_some()),
    ];
    let missing: Vec<_> = named.iter().filter(|(_, is_set)| !is_set).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    bail!("not set: {}; set what is missing, or use `holdfast dev`, which needs no server", missing.join(", "))
}

/// Connects what the settings name; what they do not name lives in `data_dir`.
///
/// # Errors
/// A server cannot be reached, or something is neither named nor is there a data directory.
pub(crate) async fn connect(settings: &Settings, data_dir: Option<&Path>) -> anyhow::Result<Backends> {
    let directory = |setting: &str| {
        data_dir.with_context(|| format!("{setting} is not set; set it, or use `holdfast dev`, which needs no server"))
    };
    let (store, heartbeat_store): (Arc<dyn Store>, HeartbeatStore) = match &settings.database_url {
        Some(url) => {
            let url = url.expose_secret().to_owned();
            let store = PostgresStore::connect(&url, settings.database_connections)
                .await
                .context("cannot use the database of DATABASE_URL")?;
            store.check_migrated().await?;
            let connect: HeartbeatStore = Arc::new(move || {
                let url = url.clone();
                Box::pin(async move { Ok(Arc::new(PostgresStore::connect(&url, 1).await?) as Arc<dyn Store>) })
            });
            (Arc::new(store), connect)
        }
        None => {
            let path = directory("DATABASE_URL")?.join("holdfast.db");
            let store = SqliteStore::open(&path).await.with_context(|| format!("cannot open {}", path.display()))?;
            // The directory is locked, so whoever worked in it before is gone: its runs need not wait for a lease to end.
            store.forget_predecessor().await?;
            let store: Arc<dyn Store> = Arc::new(store);
            let shared = Arc::clone(&store);
            (
                store,
                Arc::new(move || {
                    let store = Arc::clone(&shared);
                    Box::pin(async move { Ok(store) })
                }),
            )
        }
    };
    let queue: Arc<dyn RunQueue> = match &settings.amqp_url {
        Some(url) => Arc::new(
            RabbitQueue::connect(url.expose_secret(), &settings.prefix)
                .await
                .context("cannot use the broker of AMQP_URL")?,
        ),
        None => {
            directory("AMQP_URL")?;
            Arc::new(EmbeddedQueue::default())
        }
    };
    let (log, signals): (Arc<dyn EventLog>, Arc<dyn Signals>) = match &settings.redis_url {
        Some(url) => {
            let options = RedisOptions { live_ttl: settings.live_ttl, finished_ttl: settings.finished_ttl };
            let redis = RedisBackend::connect(url.expose_secret(), &settings.prefix, options)
                .await
                .context("cannot use the server of REDIS_URL")?;
            (redis.event_log(), redis.signals())
        }
        None => {
            let path = directory("REDIS_URL")?.join("events.db");
            let log = EmbeddedEventLog::open(&path).await.with_context(|| format!("cannot open {}", path.display()))?;
            (Arc::new(log), Arc::new(EmbeddedSignals::default()))
        }
    };
    let relay = Relay::new(Arc::clone(&store), Arc::clone(&queue));
    Ok(Backends { store, queue, log, signals, relay, heartbeat_store, seams: Seams::system() })
}

/// The models that the settings give access to.
pub(crate) fn catalogue(settings: &Settings) -> anyhow::Result<Arc<Catalogue>> {
    Ok(Arc::new(Catalogue::new(&settings.models)?))
}

/// The API service and its fan-out.
pub(crate) fn api(
    settings: &Settings,
    backends: &Backends,
    catalogue: Arc<Catalogue>,
    shutdown: &CancellationToken,
) -> anyhow::Result<(holdfast_api::Router, Arc<Hub>)> {
    let options = HubOptions { keepalive: settings.api.keepalive, check_every: CHECK_EVERY };
    let hub = Hub::new(Arc::clone(&backends.store), Arc::clone(&backends.log), backends.seams.clone(), options);
    let limits =
        ImageLimits { max_bytes: settings.api.image_max_bytes, max_bytes_together: settings.api.max_body_bytes };
    let outbound = Outbound::new(&settings.outbound_allow, images::CONNECT_TIMEOUT)?;
    let images = Images::new(outbound.clone(), limits);
    let services = holdfast_api::Services {
        store: Arc::clone(&backends.store),
        log: Arc::clone(&backends.log),
        queue: Arc::clone(&backends.queue),
        signals: Arc::clone(&backends.signals),
        relay: Arc::clone(&backends.relay),
        catalogue,
        images,
        outbound,
        hub: Arc::clone(&hub),
        seams: backends.seams.clone(),
        draining: shutdown.clone(),
    };
    let options = holdfast_api::Options {
        api_keys: settings.api.keys.clone(),
        cors_origins: settings.api.cors_origins.clone(),
        max_body_bytes: settings.api.max_body_bytes,
        max_queued_runs: settings.api.max_queued_runs,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    Ok((holdfast_api::router(services, options), hub))
}

/// The worker.
pub(crate) async fn worker(
    settings: &Settings,
    backends: &Backends,
    catalogue: Arc<Catalogue>,
) -> anyhow::Result<Worker> {
    let providers = Providers::new(&settings.models, &backends.seams)?;
    let mcp = settings.worker.mcp_config.as_deref().map(McpConfig::load).transpose()?.unwrap_or_default();
    let program = std::env::current_exe().context("cannot tell which program this is, for the sandbox of tools")?;
    let python = PythonSandbox::probe(&settings.worker.python, program, settings.worker.tool_timeout).await;
    tracing::info!(sandbox = %python.level(), "Python tools");
    let toolbox = Toolbox {
        python,
        outbound: Outbound::new(&settings.outbound_allow, http::CONNECT_TIMEOUT)?,
        mcp: McpPool::new(mcp, backends.seams.clone()),
    };
    let services = holdfast_worker::Services {
        store: Arc::clone(&backends.store),
        log: Arc::clone(&backends.log),
        queue: Arc::clone(&backends.queue),
        signals: Arc::clone(&backends.signals),
        relay: Arc::clone(&backends.relay),
        models: Arc::new(providers),
        catalogue,
        toolbox: Arc::new(toolbox),
        heartbeat_store: Arc::clone(&backends.heartbeat_store),
        seams: backends.seams.clone(),
    };
    Ok(Worker::new(services, settings.worker.clone()))
}
