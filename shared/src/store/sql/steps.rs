//! Steps: begun, recorded, committed, listed.

use sqlx::Row as _;

use super::page::{self, Keys, Place};
use super::{
    Adapter, Builder, Conn, FIND, IN_TEXTS, Row, approvals, claims, document, ends, events, id, list_of_texts,
    messages, moment, optional_document, optional_id,
};
use crate::domain::ids::{Id as _, MessageId, RunId, StepId};
use crate::domain::lease::Lease;
use crate::domain::model::ModelHandle;
use crate::domain::page::Page;
use crate::domain::step::{Feedback, Step, StepStatus, StepTiming};
use crate::domain::stop_reason::StopReason;
use crate::domain::tenant::TenantId;
use crate::domain::tool::ToolReturn;
use crate::domain::usage::Usage;
use crate::ports::store::{
    AnswerRecord, FeedbackChange, LoneCall, NewStep, OutboxEntry, RunEnd, StepCommit, StepFilter, StoreError,
};
use crate::store::values::{self, micros, plain, signed, unsigned};

/// Steps are listed by their number.
const NUMBER: Keys = Keys { column: "number", has_ties: false };
/// Steps of several runs are listed by their beginning.
const BEGINNING: Keys = Keys { column: "started_at", has_ties: true };

pub(super) async fn begin(store: &Adapter, lease: &Lease, step: &NewStep) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    let held = claims::fence(&mut tx, lease).await?;
    let entered = sqlx::query(
        "INSERT INTO steps (id, run_id, agent_id, number, status, model, usage, started_at, answers_step) \
         VALUES ($1, $2, $3, $4, 'pending', $5, $6, $7, $8) \
         ON CONFLICT (run_id, number) DO UPDATE SET id = excluded.id, model = excluded.model, \
         started_at = excluded.started_at \
         WHERE steps.status = 'pending' AND steps.answer_id IS NULL AND steps.answers_step IS NULL",
    )
    .bind(step.id.uuid())
    .bind(held.run.uuid())
    .bind(held.thread.agent.uuid())
    .bind(i64::from(step.number))
    .bind(plain(step.model.as_str()))
    .bind(values::document(&Usage::default())?)
    .bind(micros(step.started_at))
    .bind(step.answers.map(|step| step.uuid()))
    .execute(&mut *tx)
    .await?;
    if entered.rows_affected() == 0 {
        let number = step.number;
        return Err(StoreError::Corrupt(format!("step {number} of {} has an answer already", held.run)));
    }
    tx.commit().await?;
    Ok(())
}

pub(super) async fn record_answer(store: &Adapter, lease: &Lease, record: &AnswerRecord) -> Result<(), StoreError> {
    let message = &record.message;
    let step = message.step_id.ok_or_else(|| StoreError::Corrupt(format!("{} names no step", message.id)))?;
    let mut tx = store.begin().await?;
    let held = claims::fence(&mut tx, lease).await?;
    let row = sqlx::query("SELECT answer_id FROM steps WHERE id = $1 AND run_id = $2 AND status = 'pending'")
        .bind(step.uuid())
        .bind(held.run.uuid())
        .fetch_optional(&mut *tx)
        .await?
        .ok_or_else(|| StoreError::Corrupt(format!("{step} is not open")))?;
    match optional_id::<MessageId>(&row, "answer_id")? {
        // The same once more, after a lost confirmation.
        Some(recorded) if recorded == message.id => {}
        Some(recorded) => return Err(StoreError::Corrupt(format!("{step} is answered by {recorded} already"))),
        None => {
            sqlx::query("UPDATE steps SET answer_id = $2, usage = $3, llm_request_ns = $4 WHERE id = $1")
                .bind(step.uuid())
                .bind(message.id.uuid())
                .bind(values::document(&record.usage)?)
                .bind(record.llm_request_ns)
                .execute(&mut *tx)
                .await?;
            messages::append(&mut tx, held.thread, std::slice::from_ref(message)).await?;
        }
    }
    events::extend(&mut tx, &held, &record.events).await?;
    tx.commit().await?;
    Ok(())
}

pub(super) async fn begin_call(store: &Adapter, lease: &Lease, step: StepId, call: u32) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    let held = claims::fence(&mut tx, lease).await?;
    sqlx::query(
        "INSERT INTO tool_returns (step_id, call) \
         SELECT id, $3 FROM steps WHERE id = $1 AND run_id = $2 AND status = 'pending' \
         ON CONFLICT (step_id, call) DO NOTHING",
    )
    .bind(step.uuid())
    .bind(held.run.uuid())
    .bind(i64::from(call))
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(())
}

pub(super) async fn record_return(
    store: &Adapter,
    lease: &Lease,
    step: StepId,
    call: u32,
    tool_return: &ToolReturn,
) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    let held = claims::fence(&mut tx, lease).await?;
    insert_return(&mut tx, held.run, step, call, tool_return).await?;
    tx.commit().await?;
    Ok(())
}

/// Records a result. The first one of a call counts; a later one changes nothing.
pub(super) async fn insert_return(
    conn: &mut Conn,
    run: RunId,
    step: StepId,
    call: u32,
    tool_return: &ToolReturn,
) -> Result<(), StoreError> {
    let recorded = sqlx::query(
        "INSERT INTO tool_returns (step_id, call, body) \
         SELECT id, $3, $4 FROM steps WHERE id = $1 AND run_id = $2 AND status = 'pending' \
         ON CONFLICT (step_id, call) DO UPDATE SET body = coalesce(tool_returns.body, excluded.body)",
    )
    .bind(step.uuid())
    .bind(run.uuid())
    .bind(i64::from(call))
    .bind(values::document(tool_return)?)
    .execute(conn)
    .await?;
    if recorded.rows_affected() == 0 { Err(StoreError::Corrupt(format!("{step} is not open"))) } else { Ok(()) }
}

pub(super) async fn commit(
    store: &Adapter,
    lease: &Lease,
    commit: &StepCommit,
    end: Option<&RunEnd>,
) -> Result<Vec<OutboxEntry>, StoreError> {
    let mut tx = store.begin().await?;
    let mut held = claims::fence(&mut tx, lease).await?;
    if close(&mut tx, held.run, commit).await? {
        messages::append(&mut tx, held.thread, &commit.messages).await?;
        if let Some(change) = &commit.approval {
            approvals::change(&mut tx, held.thread, change).await?;
        }
    }
    held.archived = events::append(&mut tx, held.run, held.archived, &commit.events).await?;
    sqlx::query(
        "UPDATE runs SET usage = $2, ttft_ns = coalesce(ttft_ns, $3), attempts = 0, archived = $4 WHERE id = $1",
    )
    .bind(held.run.uuid())
    .bind(values::document(&commit.run_usage)?)
    .bind(commit.ttft_ns)
    .bind(signed(held.archived.get())?)
    .execute(&mut *tx)
    .await?;
    let entries = match end {
        Some(end) => ends::end(&mut tx, &held, end).await?,
        None => Vec::new(),
    };
    tx.commit().await?;
    Ok(entries)
}

/// Closes a step. False if it is closed already in the same way: the commit came before, and its confirmation was lost.
async fn close(conn: &mut Conn, run: RunId, commit: &StepCommit) -> Result<bool, StoreError> {
    let row = sqlx::query(
        "UPDATE steps SET status = $3, stop_reason = $4, error = $5, usage = $6, \
         llm_request_ns = coalesce($7, llm_request_ns), tool_execution_ns = $8, step_ns = $9, retries = $10 \
         WHERE id = $1 AND run_id = $2 AND status = 'pending' RETURNING answer_id, answers_step",
    )
    .bind(commit.id.uuid())
    .bind(run.uuid())
    .bind(commit.status.as_str())
    .bind(commit.stop_reason.map(StopReason::as_str))
    .bind(commit.error.as_ref().map(values::document).transpose()?)
    .bind(values::document(&commit.usage)?)
    .bind(commit.llm_request_ns)
    .bind(commit.tool_execution_ns)
    .bind(commit.step_ns)
    .bind(values::document(&commit.retries)?)
    .fetch_optional(&mut *conn)
    .await?;
    if let Some(row) = row {
        let has_calls = optional_id::<MessageId>(&row, "answer_id")?.is_some()
            || optional_id::<StepId>(&row, "answers_step")?.is_some();
        if has_calls {
            forget_returns(conn, commit.id).await?;
        }
        return Ok(true);
    }
    let status: Option<String> = sqlx::query_scalar("SELECT status FROM steps WHERE id = $1 AND run_id = $2")
        .bind(commit.id.uuid())
        .bind(run.uuid())
        .fetch_optional(conn)
        .await?;
    match status {
        Some(status) if status == commit.status.as_str() => Ok(false),
        Some(status) => Err(StoreError::Corrupt(format!("{} is {status} already", commit.id))),
        None => Err(StoreError::Corrupt(format!("{} is not a step of {run}", commit.id))),
    }
}

/// Removes the results of a closed step: its message has them now.
pub(super) async fn forget_returns(conn: &mut Conn, step: StepId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM tool_returns WHERE step_id = $1").bind(step.uuid()).execute(conn).await?;
    Ok(())
}

pub(super) async fn lone_call(store: &Adapter, run: RunId) -> Result<Option<LoneCall>, StoreError> {
    let row = sqlx::query(
        "SELECT tool_returns.body FROM tool_returns JOIN steps ON steps.id = tool_returns.step_id \
         WHERE steps.run_id = $1 AND steps.number = 1 AND tool_returns.call = 0",
    )
    .bind(run.uuid())
    .fetch_optional(store.reader())
    .await?;
    let read = |row| Ok(optional_document(&row, "body")?.map_or(LoneCall::Begun, LoneCall::Returned));
    row.map(read).transpose()
}

pub(super) async fn list(store: &Adapter, run: RunId, page: &Page<StepId>) -> Result<Vec<Step>, StoreError> {
    let mut conn = store.reader().acquire().await?;
    let after = place(&mut conn, run, page.after).await?;
    let before = place(&mut conn, run, page.before).await?;
    let mut builder =
        Builder::new(concat!("SELECT ", step_columns!(), " FROM steps WHERE answers_step IS NULL AND run_id = "));
    builder.push_bind(run.uuid());
    let direction = page::push(&mut builder, NUMBER, page, after, before);
    let rows = builder.build().fetch_all(&mut *conn).await?;
    Ok(direction.restore(rows.iter().map(read).collect::<Result<_, _>>()?))
}

async fn place(conn: &mut Conn, run: RunId, cursor: Option<StepId>) -> Result<Option<Place>, StoreError> {
    let Some(cursor) = cursor else { return Ok(None) };
    let number: Option<i64> = sqlx::query_scalar("SELECT number FROM steps WHERE id = $1 AND run_id = $2")
        .bind(cursor.uuid())
        .bind(run.uuid())
        .fetch_optional(conn)
        .await?;
    number.map(|key| Some(Place { key, tie: None })).ok_or(StoreError::UnknownCursor)
}

pub(super) async fn find(
    store: &Adapter,
    tenant: &TenantId,
    filter: &StepFilter,
    page: &Page<StepId>,
) -> Result<Vec<Step>, StoreError> {
    let mut conn = store.reader().acquire().await?;
    let after = place_in_time(&mut conn, tenant, page.after).await?;
    let before = place_in_time(&mut conn, tenant, page.before).await?;
    let mut builder =
        Builder::new(concat!("SELECT ", step_columns!(), " FROM steps WHERE answers_step IS NULL AND tenant = "));
    builder.push_bind(tenant.as_str().to_owned());
    push_filter(&mut builder, filter);
    let direction = page::push(&mut builder, BEGINNING, page, after, before);
    let rows = builder.build().fetch_all(&mut *conn).await?;
    Ok(direction.restore(rows.iter().map(read).collect::<Result<_, _>>()?))
}

fn push_filter(builder: &mut Builder, filter: &StepFilter) {
    if let Some(agent) = filter.agent {
        builder.push(" AND agent_id = ").push_bind(agent.uuid());
    }
    if let Some(model) = &filter.model {
        let model = plain(model).into_owned();
        builder.push(" AND (model = ").push_bind(model.clone());
        // The name is what follows the provider.
        builder.push(" OR substr(model, ").push(FIND).push("(model, '/') + 1) = ").push_bind(model).push(")");
    }
    if let Some(from) = filter.from {
        builder.push(" AND started_at >= ").push_bind(micros(from));
    }
    if let Some(until) = filter.until {
        builder.push(" AND started_at < ").push_bind(micros(until));
    }
    if let Some(feedback) = filter.feedback {
        builder.push(" AND feedback = ").push_bind(feedback.as_str());
    }
    if let Some(has_feedback) = filter.has_feedback {
        builder.push(if has_feedback { " AND feedback IS NOT NULL" } else { " AND feedback IS NULL" });
    }
    if !filter.tags.is_empty() {
        builder.push(" AND EXISTS (SELECT 1 FROM step_tags WHERE step_tags.step_id = steps.id AND step_tags.tag");
        builder.push(IN_TEXTS[0]).push_bind(list_of_texts(&filter.tags)).push(IN_TEXTS[1]).push(")");
    }
    if !filter.trace_ids.is_empty() {
        builder.push(" AND EXISTS (SELECT 1 FROM runs WHERE runs.id = steps.run_id AND substr(runs.trace, 4, 32)");
        builder.push(IN_TEXTS[0]).push_bind(list_of_texts(&filter.trace_ids)).push(IN_TEXTS[1]).push(")");
    }
}

async fn place_in_time(
    conn: &mut Conn,
    tenant: &TenantId,
    cursor: Option<StepId>,
) -> Result<Option<Place>, StoreError> {
    let Some(cursor) = cursor else { return Ok(None) };
    let started_at: Option<i64> = sqlx::query_scalar("SELECT started_at FROM steps WHERE id = $1 AND tenant = $2")
        .bind(cursor.uuid())
        .bind(tenant.as_str())
        .fetch_optional(conn)
        .await?;
    started_at.map(|key| Some(Place { key, tie: Some(cursor.uuid()) })).ok_or(StoreError::UnknownCursor)
}

pub(super) async fn get(conn: &mut Conn, tenant: &TenantId, id: StepId) -> Result<Option<Step>, StoreError> {
    let row = sqlx::query(concat!(
        "SELECT ",
        step_columns!(),
        " FROM steps WHERE id = $1 AND tenant = $2 AND answers_step IS NULL"
    ))
    .bind(id.uuid())
    .bind(tenant.as_str())
    .fetch_optional(conn)
    .await?;
    row.as_ref().map(read).transpose()
}

pub(super) async fn rate(
    store: &Adapter,
    tenant: &TenantId,
    id: StepId,
    change: &FeedbackChange,
) -> Result<Option<Step>, StoreError> {
    let mut tx = store.begin().await?;
    // This locks the step, so that its tags are those of one change.
    let known = sqlx::query(
        "UPDATE steps SET feedback = CASE WHEN $3 THEN $4 ELSE feedback END, tags = coalesce($5, tags) \
         WHERE id = $1 AND tenant = $2 AND answers_step IS NULL",
    )
    .bind(id.uuid())
    .bind(tenant.as_str())
    .bind(change.feedback.is_some())
    .bind(change.feedback.flatten().map(Feedback::as_str))
    .bind(change.tags.as_ref().map(values::document).transpose()?)
    .execute(&mut *tx)
    .await?;
    if known.rows_affected() == 0 {
        return Ok(None);
    }
    if let Some(tags) = &change.tags {
        replace_tags(&mut tx, id, tags).await?;
    }
    let step = get(&mut tx, tenant, id).await?;
    tx.commit().await?;
    Ok(step)
}

async fn replace_tags(conn: &mut Conn, step: StepId, tags: &[String]) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM step_tags WHERE step_id = $1").bind(step.uuid()).execute(&mut *conn).await?;
    if tags.is_empty() {
        return Ok(());
    }
    let mut builder = Builder::new("INSERT INTO step_tags (step_id, place, tag) ");
    builder.push_values(tags.iter().zip(0_i64..), |mut row, (tag, place)| {
        row.push_bind(step.uuid()).push_bind(place).push_bind(plain(tag).into_owned());
    });
    builder.build().execute(conn).await?;
    Ok(())
}

/// The trace of a W3C `traceparent`, which clients may have written; `None` if it has not that form.
fn trace_id(traceparent: &str) -> Option<String> {
    let id = traceparent.split('-').nth(1)?;
    let is_id = id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_id.then(|| id.to_owned())
}

fn read(row: &Row) -> Result<Step, StoreError> {
    let stop_reason = row.try_get::<Option<&str>, _>("stop_reason")?;
    let feedback = row.try_get::<Option<&str>, _>("feedback")?;
    Ok(Step {
        id: id(row, "id")?,
        run_id: id(row, "run_id")?,
        agent_id: id(row, "agent_id")?,
        number: unsigned(row.try_get("number")?)?,
        status: values::word(row.try_get("status")?, StepStatus::parse)?,
        stop_reason: stop_reason.map(|word| values::word(word, StopReason::parse)).transpose()?,
        model: values::word(row.try_get("model")?, ModelHandle::parse)?,
        usage: document(row, "usage")?,
        error: optional_document(row, "error")?,
        retries: document(row, "retries")?,
        timing: StepTiming {
            started_at: moment(row, "started_at")?,
            llm_request_ns: row.try_get("llm_request_ns")?,
            tool_execution_ns: row.try_get("tool_execution_ns")?,
            step_ns: row.try_get("step_ns")?,
        },
        feedback: feedback.map(|word| values::word(word, Feedback::parse)).transpose()?,
        tags: document(row, "tags")?,
        trace_id: row.try_get::<Option<&str>, _>("trace")?.and_then(trace_id),
    })
}
