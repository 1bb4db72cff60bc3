//! Fan-out (stand-in: the interface only).

use std::sync::Arc;

use holdfast_shared::domain::ids::RunId;
use holdfast_shared::domain::position::SeqId;
use holdfast_shared::domain::run::Run;
use holdfast_shared::domain::tenant::TenantId;
use holdfast_shared::ports::event_log::LogError;
use holdfast_shared::ports::store::StoreError;

/// How a connection is kept alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pings {
    /// By ping events.
    Events,
    /// By comments.
    Comments,
}

/// Whether frames get `id:` lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdLines {
    /// No.
    Hidden,
    /// Yes.
    Shown,
}

/// How a run is streamed.
#[derive(Debug, Clone, Copy)]
pub struct StreamOptions {
    /// From where.
    pub after: SeqId,
    /// How it is kept alive.
    pub pings: Pings,
    /// Whether frames get `id:` lines.
    pub id_lines: IdLines,
}

/// Why a run cannot be streamed.
#[derive(Debug)]
pub enum FanoutError {
    /// The events are gone.
    Expired,
    /// The store failed.
    Store(StoreError),
    /// The log failed.
    Log(LogError),
    /// The service stops.
    ShuttingDown,
}

/// Fan-out.
pub struct Hub;

impl Hub {
    /// A hub.
    #[must_use]
    pub fn stand_in() -> Arc<Self> {
        Arc::new(Self)
    }

    /// SSE response of a run from a cursor.
    ///
    /// # Errors
    /// Always, in this stand-in.
    pub async fn stream(&self, _run: Run, _options: StreamOptions) -> Result<axum::response::Response, FanoutError> {
        Err(FanoutError::ShuttingDown)
    }

    /// Waits until the run has ended.
    ///
    /// # Errors
    /// Always, in this stand-in.
    pub async fn ended(&self, _tenant: &TenantId, _run: RunId) -> Result<Run, FanoutError> {
        Err(FanoutError::ShuttingDown)
    }
}
