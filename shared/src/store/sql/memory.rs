//! What memory tools do to the blocks of an agent.

use std::collections::BTreeSet;

use super::{Adapter, Conn, blocks, claims, document, steps};
use crate::domain::Timestamp;
use crate::domain::block::{Block, BlockWriteError, double_label};
use crate::domain::ids::{AgentId, BlockId, Id as _, StepId};
use crate::domain::lease::Lease;
use crate::domain::tenant::TenantId;
use crate::domain::tool::ToolReturn;
use crate::ports::store::{EditOutcome, MemoryEdit, StoreError};
use crate::store::values;

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
    loop {
        let mut tx = store.begin().await?;
        let held = claims::fence(&mut tx, lease).await?;
        if let Some(recorded) = recorded(&mut tx, call).await? {
            return Ok(recorded);
        }
        // What the tool touches may be other agents' as well, and all of them are held in one order: so it is tried
        // before anything is held, and counts if it then touches nothing else.
        let before = blocks::of_agent(&mut tx, held.thread.agent).await?;
        let expected = touched(&before, &edit(&before));
        let Some(agents) = blocks::hold(&mut tx, &expected, Some(held.thread.agent)).await? else { continue };
        let before = blocks::of_agent(&mut tx, held.thread.agent).await?;
        let mut outcome = edit(&before);
        if !touched(&before, &outcome).is_subset(&expected) {
            continue;
        }
        if !agents.contains_key(&held.thread.agent) {
            outcome = refused(outcome, "this agent was deleted.");
        } else if let Some(label) = collision(&mut tx, &agents, &held, &outcome).await? {
            outcome = refused(outcome, &BlockWriteError::LabelTaken(label).to_string());
        }
        if let Some(after) = &outcome.blocks {
            keep_system_message(&mut tx, &held).await?;
            exchange(&mut tx, &held, &before, after, now).await?;
            blocks::recompile(&mut tx, &agents, now).await?;
        }
        steps::insert_return(&mut tx, held.run, call.step, call.number, &outcome.tool_return).await?;
        tx.commit().await?;
        return Ok(outcome.tool_return);
    }
}

fn refused(outcome: EditOutcome, why: &str) -> EditOutcome {
    match outcome.blocks {
        None => outcome,
        Some(_) => EditOutcome { blocks: None, tool_return: outcome.tool_return.failed(why) },
    }
}

/// The blocks that an edit changes or takes away.
fn touched(before: &[Block], outcome: &EditOutcome) -> BTreeSet<BlockId> {
    let Some(after) = &outcome.blocks else { return BTreeSet::new() };
    before.iter().filter(|block| !after.contains(block)).map(|block| block.id).collect()
}

/// A label that another agent would have twice after an edit, if there is one.
async fn collision(
    conn: &mut Conn,
    agents: &blocks::HeldAgents,
    held: &claims::Held,
    outcome: &EditOutcome,
) -> Result<Option<String>, StoreError> {
    let Some(after) = &outcome.blocks else { return Ok(None) };
    let others = agents.keys().copied().filter(|agent| *agent != held.thread.agent);
    for mut memory in blocks::of_agents(conn, others).await?.into_values() {
        for block in &mut memory {
            if let Some(changed) = after.iter().find(|changed| changed.id == block.id) {
                block.clone_from(changed);
            }
        }
        if let Some(label) = double_label(&memory) {
            return Ok(Some(label.to_owned()));
        }
    }
    Ok(None)
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

/// Puts blocks in the place of those that are there: what differs is written, what is new comes behind the others, what
/// is gone goes for good unless another agent has it.
async fn exchange(
    conn: &mut Conn,
    held: &claims::Held,
    before: &[Block],
    after: &[Block],
    now: Timestamp,
) -> Result<(), StoreError> {
    for gone in before.iter().filter(|block| after.iter().all(|kept| kept.id != block.id)) {
        blocks::remove(conn, held.thread.agent, gone.id).await?;
        blocks::delete_unless_attached(conn, gone.id).await?;
    }
    let is_written = |block: &&Block| before.iter().any(|known| known.id == block.id && known != *block);
    // Labels that change places would meet each other on the way.
    for block in after.iter().filter(is_written) {
        blocks::relabel(conn, block.id, &block.id.to_string()).await?;
    }
    for block in after.iter().filter(is_written) {
        blocks::write(conn, block, now).await?;
    }
    let mut tenant = None;
    for block in after.iter().filter(|block| before.iter().all(|known| known.id != block.id)) {
        let tenant = match &tenant {
            Some(known) => known,
            None => tenant.insert(owner(conn, held.thread.agent).await?),
        };
        blocks::insert(conn, tenant, block).await?;
        blocks::append(conn, held.thread.agent, block).await?;
    }
    Ok(())
}

async fn owner(conn: &mut Conn, agent: AgentId) -> Result<TenantId, StoreError> {
    let tenant: String =
        sqlx::query_scalar("SELECT tenant FROM agents WHERE id = $1").bind(agent.uuid()).fetch_one(conn).await?;
    values::word(&tenant, TenantId::parse)
}
