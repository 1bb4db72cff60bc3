//! Calls that wait for the client: asked for by a step's commit, settled by another's, by a cancel, or at their deadline.

use std::collections::HashMap;

use sqlx::Row as _;
use uuid::Uuid;

use super::{Adapter, Conn, Row, document, ends, id, list_of_ids, messages, optional_id, runs};
use crate::domain::Timestamp;
use crate::domain::agent::PendingApproval;
use crate::domain::approval::CallAnswer;
use crate::domain::ids::{AgentId, Id as _, MessageId, RunId, StepId};
use crate::domain::message::{Answer, Body, Labels, Message};
use crate::domain::stop_reason::StopReason;
use crate::domain::tenant::TenantId;
use crate::domain::thread::Thread;
use crate::domain::tool::ToolReturn;
use crate::ports::store::{ApprovalCancel, ApprovalChange, ExpiredApproval, OutboxEntry, StoreError};
use crate::store::values::{self, micros};

/// What the model is told of a call that was denied by cancelling its run (api/03 §4).
const CANCELLED: &str = "The user cancelled the request, so the tool call was denied.";

/// Carries out what a step changes.
pub(super) async fn change(conn: &mut Conn, thread: Thread, change: &ApprovalChange) -> Result<(), StoreError> {
    let (request, deadline) = match change {
        ApprovalChange::Ask { request, deadline } => (Some(*request), *deadline),
        ApprovalChange::Settle => (None, None),
    };
    sqlx::query("UPDATE threads SET pending_approval = $2, approval_deadline = $3 WHERE id = $1")
        .bind(thread.uuid())
        .bind(request.map(|id| id.uuid()))
        .bind(deadline.map(micros))
        .execute(conn)
        .await?;
    Ok(())
}

/// The message whose calls wait, if any do.
pub(super) async fn pending(conn: &mut Conn, thread: Thread) -> Result<Option<MessageId>, StoreError> {
    let row =
        sqlx::query("SELECT pending_approval FROM threads WHERE id = $1").bind(thread.uuid()).fetch_one(conn).await?;
    optional_id(&row, "pending_approval")
}

/// The calls that wait in each of these threads.
pub(super) async fn pending_of(
    conn: &mut Conn,
    threads: impl Iterator<Item = Uuid>,
) -> Result<HashMap<Uuid, PendingApproval>, StoreError> {
    let rows = sqlx::query(concat!(
        "SELECT messages.id, messages.agent_id, messages.run_id, messages.step_id, messages.body, messages.labels, \
         messages.created_at, threads.id AS waiting_thread, threads.approval_deadline \
         FROM threads JOIN messages ON messages.id = threads.pending_approval WHERE threads.id",
        in_ids!("$1")
    ))
    .bind(list_of_ids(threads))
    .fetch_all(conn)
    .await?;
    let read = |row| {
        let deadline = Row::try_get::<Option<i64>, _>(row, "approval_deadline")?.map(values::moment).transpose()?;
        Ok((Row::try_get(row, "waiting_thread")?, PendingApproval { request: messages::read(row)?, deadline }))
    };
    rows.iter().map(read).collect()
}

/// The calls of a step that asked: those that need no answer first, then those of the request, whose id it also says.
pub(super) async fn asked(conn: &mut Conn, agent: AgentId, step: StepId) -> Result<(MessageId, Answer), StoreError> {
    let rows = sqlx::query(
        "SELECT id, body FROM messages WHERE agent_id = $1 AND step_id = $2 AND role IN ('assistant', 'approval') \
         ORDER BY position",
    )
    .bind(agent.uuid())
    .bind(step.uuid())
    .fetch_all(conn)
    .await?;
    let (mut request, mut all) = (None, Answer::default());
    for row in &rows {
        match document(row, "body")? {
            Body::Assistant(answer) => all.calls.extend(answer.calls),
            Body::ApprovalRequest(answer) => {
                request = Some(id(row, "id")?);
                all.calls.extend(answer.calls);
            }
            _ => {}
        }
    }
    let request = request.ok_or_else(|| StoreError::Corrupt(format!("{step} asked for nothing")))?;
    Ok((request, all))
}

pub(super) async fn cancel(
    store: &Adapter,
    run: RunId,
    cancel: &ApprovalCancel,
) -> Result<Option<Vec<OutboxEntry>>, StoreError> {
    let mut tx = store.begin().await?;
    // Run, then agent: the order of locks.
    let row = sqlx::query(concat!(
        "SELECT agent_id, thread_id FROM runs \
         WHERE id = $1 AND status = 'completed' AND stop_reason = 'requires_approval'",
        for_update!()
    ))
    .bind(run.uuid())
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let thread = runs::thread(&row)?;
    let agent = thread.agent;
    let waiting = sqlx::query(concat!(
        "SELECT messages.id, messages.step_id, messages.body FROM threads JOIN agents ON agents.id = threads.agent_id \
         JOIN messages ON messages.id = threads.pending_approval WHERE threads.id = $1 AND messages.run_id = $2",
        for_update_of_agents!()
    ))
    .bind(thread.uuid())
    .bind(run.uuid())
    .fetch_optional(&mut *tx)
    .await?;
    let Some(waiting) = waiting else { return Ok(None) };
    let request: MessageId = id(&waiting, "id")?;
    // A run that answers them decides what becomes of them; it can be cancelled itself.
    let is_answered: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM runs WHERE answers = $1 AND status IN ('created', 'running'))",
    )
    .bind(request.uuid())
    .fetch_one(&mut *tx)
    .await?;
    if is_answered {
        return Ok(None);
    }
    let step: StepId = id(&waiting, "step_id")?;
    let Body::ApprovalRequest(waiting) = document(&waiting, "body")? else {
        return Err(StoreError::Corrupt(format!("{request} is not a request")));
    };
    let (_, asked) = asked(&mut tx, agent, step).await?;
    let deny = |call_id: &str| CallAnswer::Approval {
        tool_call_id: call_id.to_owned(),
        approve: false,
        reason: Some(CANCELLED.to_owned()),
    };
    let message = |id: MessageId, body: Body| Message {
        id,
        agent_id: agent,
        run_id: Some(run),
        step_id: Some(step),
        body,
        labels: Labels::default(),
        created_at: cancel.at,
    };
    let response = Body::ApprovalResponse(waiting.calls.iter().map(|call| deny(&call.id)).collect());
    let returns = asked.calls.iter().map(|call| ToolReturn::refused(call, CANCELLED.to_owned())).collect();
    let settled = [message(cancel.response, response), message(cancel.returns, Body::ToolReturns(returns))];
    messages::append(&mut tx, thread, &settled).await?;
    change(&mut tx, thread, &ApprovalChange::Settle).await?;
    // No callback: a run has one, for its end.
    sqlx::query("UPDATE runs SET status = 'cancelled', stop_reason = $2 WHERE id = $1")
        .bind(run.uuid())
        .bind(StopReason::Cancelled.as_str())
        .execute(&mut *tx)
        .await?;
    let entries = ends::wake_next(&mut tx, thread).await?;
    tx.commit().await?;
    Ok(Some(entries))
}

pub(super) async fn expired(store: &Adapter, now: Timestamp, limit: u32) -> Result<Vec<ExpiredApproval>, StoreError> {
    let rows = sqlx::query(
        "SELECT agents.tenant, messages.id, messages.agent_id, messages.run_id, messages.step_id, messages.body, \
         messages.labels, messages.created_at, messages.thread_id FROM threads \
         JOIN agents ON agents.id = threads.agent_id JOIN messages ON messages.id = threads.pending_approval \
         WHERE threads.approval_deadline <= $1 AND agents.deleted_at IS NULL \
         AND NOT EXISTS (SELECT 1 FROM conversations \
           WHERE conversations.id = threads.id AND conversations.deleted_at IS NOT NULL) \
         AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.answers = threads.pending_approval \
           AND runs.status IN ('created', 'running')) \
         ORDER BY threads.approval_deadline LIMIT $2",
    )
    .bind(micros(now))
    .bind(i64::from(limit))
    .fetch_all(store.reader())
    .await?;
    let read = |row| {
        let tenant = values::word(Row::try_get(row, "tenant")?, TenantId::parse)?;
        Ok(ExpiredApproval { tenant, thread: runs::thread(row)?, request: messages::read(row)? })
    };
    rows.iter().map(read).collect()
}
