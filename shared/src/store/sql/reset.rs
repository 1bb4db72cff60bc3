//! Emptying the context of an agent's own thread.

use super::{Adapter, agents, approvals, blocks, id, messages};
use crate::domain::Timestamp;
use crate::domain::ids::{AgentId, Id as _};
use crate::domain::tenant::TenantId;
use crate::domain::thread::Thread;
use crate::ports::store::{ContextReset, StoreError};
use crate::store::values::micros;

pub(super) async fn reset(
    store: &Adapter,
    tenant: &TenantId,
    agent: AgentId,
    now: Timestamp,
) -> Result<ContextReset, StoreError> {
    let thread = Thread::own(agent);
    let mut tx = store.begin().await?;
    // Whoever accepts a run waits for this lock, so none comes between the look and the change.
    let Some(settings) = agents::hold(&mut tx, tenant, agent).await? else { return Ok(ContextReset::NoAgent) };
    let active = sqlx::query(
        "SELECT id FROM runs WHERE thread_id = $1 AND status IN ('created', 'running') ORDER BY arrival LIMIT 1",
    )
    .bind(thread.uuid())
    .fetch_optional(&mut *tx)
    .await?;
    if let Some(active) = active {
        return Ok(ContextReset::Busy(id(&active, "id")?));
    }
    if let Some(request) = approvals::pending(&mut tx, thread).await? {
        let asked =
            sqlx::query("SELECT run_id FROM messages WHERE id = $1").bind(request.uuid()).fetch_one(&mut *tx).await?;
        return Ok(ContextReset::Waiting(id(&asked, "run_id")?));
    }
    messages::clear_context(&mut tx, thread).await?;
    let blocks = blocks::of_agent(&mut tx, agent).await?;
    agents::recompile(&mut tx, agent, &settings, &blocks, now).await?;
    sqlx::query("UPDATE agents SET updated_at = $2 WHERE id = $1")
        .bind(agent.uuid())
        .bind(micros(now))
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(ContextReset::Emptied)
}
