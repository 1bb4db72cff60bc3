//! The worker of Holdfast: takes hints from the run queue, claims runs, executes the agent loop step by step, commits
//! each step, appends events through the fenced log, settles. It does not know the API.

pub mod agent;
pub mod claim;
pub mod consumer;
pub mod disposition;
pub mod events;
pub mod execute;
pub mod lease;
pub mod llm;
pub mod maintenance;
pub mod tools;

use std::sync::Arc;

use futures::future::BoxFuture;
use holdfast_shared::config::WorkerSettings;
use holdfast_shared::domain::ids::WorkerId;
use holdfast_shared::models::Catalogue;
use holdfast_shared::ports::event_log::EventLog;
use holdfast_shared::ports::model_client::ModelClient;
use holdfast_shared::ports::run_queue::RunQueue;
use holdfast_shared::ports::seams::Seams;
use holdfast_shared::ports::signals::Signals;
use holdfast_shared::ports::store::{Store, StoreError};
use holdfast_shared::relay::Relay;
use tokio::sync::Notify;

use crate::tools::Toolbox;

/// Makes the store that heartbeats go through. It is called on the heartbeat's own thread, so that its connection is
/// served there and no run can starve it.
pub type HeartbeatStore = Arc<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn Store>, StoreError>> + Send + Sync>;

/// What a worker works with.
#[derive(Clone)]
pub struct Services {
    /// Runs, steps, messages, archive.
    pub store: Arc<dyn Store>,
    /// Live events.
    pub log: Arc<dyn EventLog>,
    /// Hints.
    pub queue: Arc<dyn RunQueue>,
    /// Cancels.
    pub signals: Arc<dyn Signals>,
    /// Publishes the outbox.
    pub relay: Arc<Relay>,
    /// Models.
    pub models: Arc<dyn ModelClient>,
    /// What is known of them.
    pub catalogue: Arc<Catalogue>,
    /// Tools.
    pub toolbox: Arc<Toolbox>,
    /// The heartbeat's own way to the store.
    pub heartbeat_store: HeartbeatStore,
    /// Time and ids.
    pub seams: Seams,
}

/// One worker.
#[derive(Clone)]
pub struct Worker {
    id: WorkerId,
    services: Services,
    settings: WorkerSettings,
    holdings: Arc<lease::Holdings>,
    /// Told when a run ended here that has a callback.
    callbacks: Arc<Notify>,
}

impl Worker {
    /// A worker; nothing happens before [`Worker::run`].
    #[must_use]
    pub fn new(services: Services, settings: WorkerSettings) -> Self {
        let id = services.seams.id();
        let holdings = Arc::new(lease::Holdings::default());
        Self { id, services, settings, holdings, callbacks: Arc::new(Notify::new()) }
    }

    /// Its id, new at each start.
    #[must_use]
    pub const fn id(&self) -> WorkerId {
        self.id
    }
}
