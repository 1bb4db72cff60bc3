//! Whether the service lives, and whether it should get requests (api/04 §5).

use std::collections::BTreeSet;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use holdfast_shared::domain::lease::TakeoverAfter;
use holdfast_shared::ports::store::WorkerFacts;
use serde_json::{Value, json};

use crate::App;

/// Workers that were not heard for so long are not counted.
const WORKER_SILENCE: Duration = Duration::from_secs(30);
/// How long a back end may take to answer; the callers of these paths are not patient.
const PATIENCE: Duration = Duration::from_secs(2);

/// Always 200: the process lives, even if what it depends on does not.
pub(crate) async fn health(State(app): State<App>) -> Json<Value> {
    let backends = Backends::ask(&app).await;
    let status = if backends.are_ok() { "ok" } else { "degraded" };
    Json(backends.body(&app, status))
}

/// 503 when the service should not get requests.
pub(crate) async fn ready(State(app): State<App>) -> (StatusCode, Json<Value>) {
    let backends = Backends::ask(&app).await;
    let (code, status) = if app.services.draining.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining")
    } else if backends.are_ok() {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "degraded")
    };
    (code, Json(backends.body(&app, status)))
}

struct Backends {
    /// What the workers say of themselves.
    workers: Vec<WorkerFacts>,
    store: bool,
    queue: bool,
    log: bool,
}

impl Backends {
    async fn ask(app: &App) -> Self {
        let services = &app.services;
        let (workers, queue, log) = tokio::join!(
            tokio::time::timeout(PATIENCE, services.store.workers(TakeoverAfter(WORKER_SILENCE))),
            tokio::time::timeout(PATIENCE, services.queue.ping()),
            tokio::time::timeout(PATIENCE, services.log.ping()),
        );
        Self {
            store: matches!(workers, Ok(Ok(_))),
            workers: workers.ok().and_then(Result::ok).unwrap_or_default(),
            queue: matches!(queue, Ok(Ok(()))),
            log: matches!(log, Ok(Ok(()))),
        }
    }

    /// How Python tools are confined: a word for each way that workers have, sorted.
    fn sandboxes(&self) -> BTreeSet<&str> {
        self.workers.iter().map(|worker| worker.sandbox.as_str()).collect()
    }

    const fn are_ok(&self) -> bool {
        self.store && self.queue && self.log
    }

    fn body(&self, app: &App, status: &str) -> Value {
        let services = &app.services;
        json!({
            "version": app.options.version,
            "status": status,
            "backends": {
                "store": {"kind": services.store.name(), "ok": self.store},
                "queue": {"kind": services.queue.name(), "ok": self.queue},
                "event_log": {"kind": services.log.name(), "ok": self.log},
            },
            "workers": {"count": self.workers.len(), "python_sandboxes": self.sandboxes()},
        })
    }
}
