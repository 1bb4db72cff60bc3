//! Keeps the tools of the MCP servers in the store, where agents find them.

use std::time::Duration;

use holdfast_shared::ports::store::{Store, StoreError};
use tokio_util::sync::CancellationToken;

use crate::Worker;
use crate::tools::mcp::{Discovered, McpPool};

/// Wait after the store could not be reached.
const RETRY_EVERY: Duration = Duration::from_secs(1);

impl Worker {
    /// Stores what the MCP servers have, now and after every change, until `shutdown`. Several workers may do it at once:
    /// they store the same.
    pub(crate) async fn store_mcp_tools(&self, shutdown: &CancellationToken) {
        shutdown.run_until_cancelled(keep_stored(&self.services.toolbox.mcp, &*self.services.store)).await;
    }
}

/// Stores what is known of the servers, now and after every change, for as long as there are servers. None of them waits
/// for another to get there.
pub async fn keep_stored(pool: &McpPool, store: &dyn Store) {
    let mut changes = pool.changes();
    pool.want();
    loop {
        changes.mark_unchanged();
        match put(store, pool.known()).await {
            Ok(0) => {}
            Ok(tools) => tracing::info!(tools, "the tools of the MCP servers were stored"),
            Err(error) => {
                tracing::warn!(%error, "the tools of the MCP servers cannot be stored now");
                tokio::time::sleep(RETRY_EVERY).await;
                continue;
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Stores tools for the tenants that may have them; answers how many were stored.
///
/// # Errors
/// The store failed; what is stored stays.
pub async fn put(store: &dyn Store, found: Vec<Discovered>) -> Result<usize, StoreError> {
    for Discovered { tool, tenant } in &found {
        store.put_tool(tenant.as_ref(), tool).await?;
    }
    Ok(found.len())
}
