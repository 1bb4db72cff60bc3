//! The HTTP service of Holdfast: accepts requests, fans events out to readers. It never runs an agent.

use std::sync::Arc;

use holdfast_shared::config::{CorsOrigins, KeyHash};
use holdfast_shared::domain::tenant::TenantId;
use holdfast_shared::images::Images;
use holdfast_shared::models::Catalogue;
use holdfast_shared::outbound::Outbound;
use holdfast_shared::ports::event_log::EventLog;
use holdfast_shared::ports::run_queue::RunQueue;
use holdfast_shared::ports::seams::Seams;
use holdfast_shared::ports::signals::Signals;
use holdfast_shared::ports::store::Store;
use holdfast_shared::relay::Relay;
use tokio_util::sync::CancellationToken;

use crate::fanout::Hub;

mod auth;
mod commands;
mod cors;
pub mod error;
mod extract;
pub mod fanout;
pub mod openapi;
mod router;
mod routes;

pub use axum::Router;
pub use router::{paths, router};

/// What can be set.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program's version, as the health answer tells it.
    pub version: String,
    /// Keys that open the API; none means that everybody is let in, as the default tenant.
    pub api_keys: Vec<(TenantId, KeyHash)>,
    /// The origins of web pages that may call the API from a browser.
    pub cors_origins: CorsOrigins,
    /// Most bytes of a request's body.
    pub max_body_bytes: usize,
    /// Most runs of one agent that may be created or running.
    pub max_queued_runs: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            api_keys: Vec::new(),
            cors_origins: CorsOrigins::default(),
            max_body_bytes: 32 * 1024 * 1024,
            max_queued_runs: 100,
        }
    }
}

/// What the service works with.
#[derive(Clone)]
pub struct Services {
    /// Agents, runs, messages and the archive.
    pub store: Arc<dyn Store>,
    /// Live events.
    pub log: Arc<dyn EventLog>,
    /// Hints for workers; asked only whether it answers, since the relay publishes.
    pub queue: Arc<dyn RunQueue>,
    /// What must reach a worker quickly.
    pub signals: Arc<dyn Signals>,
    /// Publishes what the store's outbox holds.
    pub relay: Arc<Relay>,
    /// The models.
    pub catalogue: Arc<Catalogue>,
    /// Fetches images that requests name by their URLs.
    pub images: Images,
    /// Says which of the clients' URLs may be requested.
    pub outbound: Outbound,
    /// Readers of events.
    pub hub: Arc<Hub>,
    /// Time and ids.
    pub seams: Seams,
    /// Cancelled when the service shall take nothing new: it is not ready any more.
    pub draining: CancellationToken,
}

/// What every handler gets.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) services: Arc<Services>,
    pub(crate) options: Arc<Options>,
}

/// Serves the router on a listener until `shutdown`, then waits for the answers that are under way.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: tokio::net::TcpListener,
    router: axum::Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    use axum::serve::ListenerExt as _;
    let listener = listener.tap_io(|stream| {
        // Frames are small and must not wait for an acknowledgement of the one before.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps Nagle's algorithm");
        }
    });
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await
}
