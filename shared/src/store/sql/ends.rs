//! The ends of runs.

use sqlx::Row as _;

use super::claims::{self, Held};
use super::{Adapter, Conn, approvals, callbacks, conversations, document, events, id, messages, outbox, steps};
use crate::domain::event::EventKind;
use crate::domain::ids::{Id as _, RunId};
use crate::domain::lease::Lease;
use crate::domain::message::{Body, Labels, Message};
use crate::domain::run::RunRequest;
use crate::domain::step::{OpenStep, RecordedAnswer, StepError, StepStatus};
use crate::domain::stop_reason::StopReason;
use crate::domain::thread::Thread;
use crate::domain::tool::ToolReturn;
use crate::ports::store::{ApprovalChange, OutboxEntry, RunEnd, StoreError};
use crate::store::values::{self, micros, signed};

/// What the model is told of a call that a cancel kept from finishing.
const CANCELLED_CALL: &str = "The run was cancelled before this call finished.";
/// What the model is told of a call that another end kept from finishing.
const ENDED_CALL: &str = "The run ended before this call finished.";

pub(super) async fn settle(store: &Adapter, lease: &Lease, end: &RunEnd) -> Result<Vec<OutboxEntry>, StoreError> {
    let mut tx = store.begin().await?;
    let held = claims::fence(&mut tx, lease).await?;
    if let Some(open) = claims::open_step(&mut tx, held.thread.agent, held.run).await? {
        close_step(&mut tx, &held, &open, end).await?;
    }
    let entries = self::end(&mut tx, &held, end).await?;
    tx.commit().await?;
    Ok(entries)
}

pub(super) async fn settle_created(
    store: &Adapter,
    run: RunId,
    end: &RunEnd,
) -> Result<Option<Vec<OutboxEntry>>, StoreError> {
    let mut tx = store.begin().await?;
    let row = sqlx::query(concat!(
        "SELECT id, agent_id, thread_id, archived, created_at, trace FROM runs WHERE id = $1 AND status = 'created'",
        for_update!()
    ))
    .bind(run.uuid())
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let entries = self::end(&mut tx, &Held::read(&row)?, end).await?;
    tx.commit().await?;
    Ok(Some(entries))
}

/// Ends a run whose row is locked, and wakes the agent's next one.
pub(super) async fn end(conn: &mut Conn, held: &Held, end: &RunEnd) -> Result<Vec<OutboxEntry>, StoreError> {
    let terminal = end
        .events
        .iter()
        .find(|event| event.kind == EventKind::StopReason)
        .ok_or_else(|| StoreError::Corrupt(format!("{} is to end without a stop_reason event", held.run)))?;
    let archived = events::append(conn, held.run, held.archived, &end.events).await?;
    let reason = end.outcome.reason;
    let row = sqlx::query(
        "UPDATE runs SET status = $2, stop_reason = $3, error = $4, completed_at = $5, terminal_seq = $6, \
         archived = $7, worker_id = NULL, cancel_requested_at = NULL WHERE id = $1 RETURNING request",
    )
    .bind(held.run.uuid())
    .bind(reason.run_status().as_str())
    .bind(reason.as_str())
    .bind(end.outcome.error.as_ref().map(values::document).transpose()?)
    .bind(micros(end.at))
    .bind(signed(terminal.seq.get())?)
    .bind(signed(archived.get())?)
    .fetch_one(&mut *conn)
    .await?;
    let request: RunRequest = document(&row, "request")?;
    if let Some(url) = &request.callback_url {
        callbacks::insert(conn, held.run, url).await?;
    }
    if end.forgets_messages {
        // A run brings and makes everything but its thread's system message.
        sqlx::query("UPDATE messages SET in_context = FALSE WHERE run_id = $1")
            .bind(held.run.uuid())
            .execute(&mut *conn)
            .await?;
    }
    let duration_ms = (end.at - held.created_at).num_milliseconds().max(0);
    sqlx::query(
        "UPDATE agents SET last_stop_reason = $2, last_run_completion = $3, last_run_duration_ms = $4 WHERE id = $1",
    )
    .bind(held.thread.agent.uuid())
    .bind(reason.as_str())
    .bind(micros(end.at))
    .bind(duration_ms)
    .execute(&mut *conn)
    .await?;
    sqlx::query(concat!("UPDATE threads SET line_moved_at = ", now!(), " WHERE id = $1"))
        .bind(held.thread.uuid())
        .execute(&mut *conn)
        .await?;
    if let Some(conversation) = held.thread.conversation {
        conversations::note_run(conn, conversation, end.at).await?;
    }
    wake_next(conn, held.thread).await
}

/// Puts a hint for the thread's next run into the outbox, unless that has to wait for the client. The agent's row is
/// locked by now, so a run is either accepted and found here, or will be accepted when this end is visible: none falls
/// between.
pub(super) async fn wake_next(conn: &mut Conn, thread: Thread) -> Result<Vec<OutboxEntry>, StoreError> {
    let row = sqlx::query(concat!(
        "SELECT runs.id, runs.trace FROM runs JOIN threads ON threads.id = runs.thread_id \
         WHERE runs.thread_id = $1 AND runs.status = 'created' AND NOT ",
        is_blocked!(),
        " ORDER BY runs.arrival LIMIT 1"
    ))
    .bind(thread.uuid())
    .fetch_optional(&mut *conn)
    .await?;
    let Some(row) = row else { return Ok(Vec::new()) };
    let entry = outbox::insert(conn, id(&row, "id")?, row.try_get("trace")?).await?;
    Ok(vec![entry])
}

/// Closes the step that a run's end leaves in the middle. Its recorded answer stays in the history, so each of its calls
/// gets a result: providers refuse a history with an unanswered call.
async fn close_step(conn: &mut Conn, held: &Held, open: &OpenStep, end: &RunEnd) -> Result<(), StoreError> {
    let outcome = &end.outcome;
    let status = if outcome.reason == StopReason::Cancelled { StepStatus::Cancelled } else { StepStatus::Failed };
    let error = outcome
        .error
        .as_ref()
        .map(|error| StepError { error_type: error.error_type.as_str().to_owned(), message: error.message.clone() });
    let step_ns = (end.at - open.started_at).num_nanoseconds().unwrap_or(i64::MAX).max(0);
    sqlx::query("UPDATE steps SET status = $2, stop_reason = $3, error = $4, step_ns = $5 WHERE id = $1")
        .bind(open.id.uuid())
        .bind(status.as_str())
        .bind(outcome.reason.as_str())
        .bind(error.as_ref().map(values::document).transpose()?)
        .bind(step_ns)
        .execute(&mut *conn)
        .await?;
    let Some(recorded) = open.answer.as_ref().filter(|recorded| !recorded.answer.calls.is_empty()) else {
        return Ok(());
    };
    if recorded.answers.is_some() {
        let has_begun = !recorded.returns.is_empty() || !recorded.begun.is_empty();
        if status == StepStatus::Failed && !has_begun {
            // Nothing has happened: the calls go on waiting for an answer.
            return Ok(());
        }
        approvals::change(conn, held.thread, &ApprovalChange::Settle).await?;
    }
    let message = Message {
        id: end.closing,
        agent_id: held.thread.agent,
        run_id: Some(held.run),
        step_id: Some(recorded.answers.unwrap_or(open.id)),
        body: Body::ToolReturns(all_returns(recorded, status)),
        labels: Labels::default(),
        created_at: end.at,
    };
    messages::append(conn, held.thread, &[message]).await?;
    steps::forget_returns(conn, open.id).await
}

/// A result for each call, in call order: the recorded one, or that there is none.
fn all_returns(recorded: &RecordedAnswer, status: StepStatus) -> Vec<ToolReturn> {
    let text = if status == StepStatus::Cancelled { CANCELLED_CALL } else { ENDED_CALL };
    let mut returns = Vec::with_capacity(recorded.answer.calls.len());
    for call in &recorded.answer.calls {
        let known = recorded.returns.iter().find(|one| one.call_id == call.id);
        returns.push(known.cloned().unwrap_or_else(|| ToolReturn::refused(call, text.to_owned())));
    }
    returns
}
