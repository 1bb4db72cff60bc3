//! Changes of memory blocks: by the memory tools, and by the client.

use super::{Adapter, Conn, agents, claims, document, steps};
use crate::domain::Timestamp;
use crate::domain::agent::AgentSettings;
use crate::domain::block::{Block, BlockChange};
use crate::domain::ids::{AgentId, Id as _, StepId};
use crate::domain::lease::Lease;
use crate::domain::tenant::TenantId;
use crate::domain::tool::ToolReturn;
use crate::ports::store::{BlockChanged, MemoryEdit, StoreError};
use crate::store::values::{self, micros, plain};

/// A tool call of a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    /// The step.
    pub(super) step: StepId,
    /// Place in the answer, from 0.
    pub(super) number: u32,
    /// The provider's id.
    pub(super) id: &'a str,
}

pub(super) async fn edit(
    store: &Adapter,
    lease: &Lease,
    call: Call<'_>,
    now: Timestamp,
    edit: MemoryEdit<'_>,
) -> Result<ToolReturn, StoreError> {
    let mut tx = store.begin().await?;
    let held = claims::fence(&mut tx, lease).await?;
    if let Some(recorded) = recorded(&mut tx, call).await? {
        return Ok(recorded);
    }
    // The agent's row stands for its blocks: whoever changes them holds it.
    let row = sqlx::query(concat!("SELECT settings FROM agents WHERE id = $1", for_update!()))
        .bind(held.thread.agent.uuid())
        .fetch_one(&mut *tx)
        .await?;
    let settings: AgentSettings = document(&row, "settings")?;
    let agent = held.thread.agent;
    let before = agents::blocks(&mut tx, agent).await?;
    let outcome = edit(&before);
    if let Some(blocks) = &outcome.blocks {
        exchange(&mut tx, agent, &before, blocks, now).await?;
        keep_system_message(&mut tx, &held).await?;
        agents::recompile(&mut tx, agent, &settings, blocks, now).await?;
    }
    steps::insert_return(&mut tx, held.run, call.step, call.number, &outcome.tool_return).await?;
    tx.commit().await?;
    Ok(outcome.tool_return)
}

/// The run goes on with the system message that it has: the model knows what it changed from the results of its calls.
async fn keep_system_message(conn: &mut Conn, held: &claims::Held) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE runs SET system = coalesce(system, (SELECT body FROM messages \
           WHERE id = (SELECT system_id FROM threads WHERE threads.id = runs.thread_id))) WHERE id = $1",
    )
    .bind(held.run.uuid())
    .execute(conn)
    .await?;
    Ok(())
}

async fn recorded(conn: &mut Conn, call: Call<'_>) -> Result<Option<ToolReturn>, StoreError> {
    let row = sqlx::query("SELECT body FROM tool_returns WHERE step_id = $1 AND call = $2 AND body IS NOT NULL")
        .bind(call.step.uuid())
        .bind(i64::from(call.number))
        .fetch_optional(conn)
        .await?;
    let recorded: Option<ToolReturn> = row.map(|row| document(&row, "body")).transpose()?;
    match recorded {
        Some(other) if other.call_id != call.id => {
            Err(StoreError::Corrupt(format!("call {} of {} is another one", call.number, call.step)))
        }
        same => Ok(same),
    }
}

/// Puts blocks in the place of those that are there: what differs is written, what is new comes behind the others.
async fn exchange(
    conn: &mut Conn,
    agent: AgentId,
    before: &[Block],
    after: &[Block],
    now: Timestamp,
) -> Result<(), StoreError> {
    let is_kept = |block: &&Block| after.iter().any(|kept| kept.id == block.id);
    for gone in before.iter().filter(|block| !is_kept(block)) {
        sqlx::query("DELETE FROM blocks WHERE id = $1").bind(gone.id.uuid()).execute(&mut *conn).await?;
    }
    for block in after {
        match before.iter().find(|known| known.id == block.id) {
            Some(known) if known == block => {}
            Some(_) => write(conn, agent, block, now).await?,
            None => agents::append_block(conn, agent, block).await?,
        }
    }
    sqlx::query("UPDATE agents SET updated_at = $2 WHERE id = $1")
        .bind(agent.uuid())
        .bind(micros(now))
        .execute(conn)
        .await?;
    Ok(())
}

/// Writes a block that is there. Its agent counts as changed.
async fn write(conn: &mut Conn, agent: AgentId, block: &Block, now: Timestamp) -> Result<(), StoreError> {
    sqlx::query("UPDATE blocks SET label = $2, value = $3, details = $4, updated_at = $5 WHERE id = $1")
        .bind(block.id.uuid())
        .bind(plain(&block.label))
        .bind(plain(&block.value))
        .bind(values::document(&block.details)?)
        .bind(micros(now))
        .execute(&mut *conn)
        .await?;
    sqlx::query("UPDATE agents SET updated_at = $2 WHERE id = $1")
        .bind(agent.uuid())
        .bind(micros(now))
        .execute(conn)
        .await?;
    Ok(())
}

pub(super) async fn change_block(
    store: &Adapter,
    tenant: &TenantId,
    agent: AgentId,
    label: &str,
    change: &BlockChange,
    now: Timestamp,
) -> Result<BlockChanged, StoreError> {
    let mut tx = store.begin().await?;
    let Some(settings) = agents::hold(&mut tx, tenant, agent).await? else { return Ok(BlockChanged::NoAgent) };
    let mut blocks = agents::blocks(&mut tx, agent).await?;
    let Some(place) = blocks.iter().position(|block| block.label == label) else { return Ok(BlockChanged::NoBlock) };
    let after = match change.apply(&blocks[place], &blocks, now) {
        Ok(after) => after,
        Err(why) => return Ok(BlockChanged::Refused(why)),
    };
    write(&mut tx, agent, &after, now).await?;
    blocks[place] = after.clone();
    agents::recompile(&mut tx, agent, &settings, &blocks, now).await?;
    tx.commit().await?;
    Ok(BlockChanged::Changed(after))
}
