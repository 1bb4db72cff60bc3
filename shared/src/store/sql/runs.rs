//! Runs, from the outside: accepting, reading, cancelling.

use sqlx::Row as _;

use super::messages::{self, Visibility};
use super::page::{self, Keys, Place};
use super::{
    Adapter, Builder, Conn, Row, approvals, callbacks, conversations, document, events, id, list_of_ids, moment,
    optional_document, outbox, seq,
};
use crate::domain::Timestamp;
use crate::domain::ids::{AgentId, Id as _, RunId};
use crate::domain::message::Message;
use crate::domain::page::Page;
use crate::domain::position::SeqId;
use crate::domain::run::{Attachment, Run, RunState, RunStatus};
use crate::domain::stop_reason::StopReason;
use crate::domain::tenant::TenantId;
use crate::domain::thread::{Thread, ThreadScope};
use crate::ports::store::{Accepted, CancelRequest, NewRun, RequestKey, RunDeletion, RunFilter, StoreError};
use crate::store::values::{self, micros, plain, signed};

/// Runs are listed in the order of their arrival.
const ARRIVAL: Keys = Keys { column: "arrival", has_ties: false };

pub(super) async fn accept(store: &Adapter, new: &NewRun) -> Result<Accepted, StoreError> {
    let run = &new.run;
    let mut tx = store.begin().await?;
    // This one statement finds the agent, locks it, and takes the places of the input; all refusals below undo it.
    let last_position: Option<i64> = sqlx::query_scalar(
        "UPDATE agents SET last_position = last_position + $3 WHERE id = $1 AND tenant = $2 AND deleted_at IS NULL \
         RETURNING last_position",
    )
    .bind(run.agent_id.uuid())
    .bind(run.tenant.as_str())
    .bind(signed(new.input.len() as u64)?)
    .fetch_optional(&mut *tx)
    .await?;
    let Some(last_position) = last_position else { return Ok(Accepted::NoAgent) };
    let thread = run.thread();
    if let Some(conversation) = thread.conversation
        && !conversations::exists(&mut tx, thread.agent, conversation).await?
    {
        return Ok(Accepted::NoConversation);
    }
    if let Some(key) = &new.key
        && let Some(earlier) = by_key(&mut tx, run.agent_id, key).await?
    {
        return Ok(earlier);
    }
    if let Some(refusal) = approval_refusal(&mut tx, run).await? {
        return Ok(refusal);
    }
    // There is always room for an answer: those that wait, wait for it.
    if run.request.answering.is_none()
        && let Some(active) = full_line(&mut tx, thread, new.max_queued).await?
    {
        return Ok(Accepted::TooMany(active));
    }
    insert(&mut tx, new).await?;
    let input: Vec<Message> =
        new.input.iter().map(|message| Message { run_id: Some(run.id), ..message.clone() }).collect();
    let first = last_position - signed(input.len() as u64)? + 1;
    messages::insert(&mut tx, thread, &input, first, Visibility::Later).await?;
    let archived = events::append(&mut tx, run.id, SeqId::START, &new.opening).await?;
    if archived != run.archived {
        let claimed = run.archived;
        return Err(StoreError::Corrupt(format!("a run says that {claimed} events open it, but {archived} do")));
    }
    let entry = outbox::insert(&mut tx, run.id, new.trace.as_deref()).await?;
    tx.commit().await?;
    Ok(Accepted::New(entry))
}

/// Why a run does not fit what the agent waits for, if so.
async fn approval_refusal(conn: &mut Conn, run: &Run) -> Result<Option<Accepted>, StoreError> {
    let pending = approvals::pending(conn, run.thread()).await?;
    Ok(match (run.request.answering.map(|answering| answering.request), pending) {
        (None, None) => None,
        (None, Some(request)) => Some(Accepted::ApprovalPending(request)),
        (Some(answered), Some(request)) if answered == request => {
            let row = sqlx::query("SELECT id FROM runs WHERE answers = $1 AND status IN ('created', 'running')")
                .bind(request.uuid())
                .fetch_optional(conn)
                .await?;
            row.map(|row| id(&row, "id").map(Accepted::BeingAnswered)).transpose()?
        }
        (Some(_), _) => Some(Accepted::NothingPending),
    })
}

/// The thread's oldest run that is not over, if there is no room for another one behind it.
async fn full_line(conn: &mut Conn, thread: Thread, max_queued: u32) -> Result<Option<RunId>, StoreError> {
    let room = i64::from(max_queued.max(1));
    let rows = sqlx::query(
        "SELECT id FROM runs WHERE thread_id = $1 AND status IN ('created', 'running') ORDER BY arrival LIMIT $2",
    )
    .bind(thread.uuid())
    .bind(room)
    .fetch_all(conn)
    .await?;
    match rows.first() {
        Some(oldest) if signed(rows.len() as u64)? >= room => Ok(Some(id(oldest, "id")?)),
        _ => Ok(None),
    }
}

async fn insert(conn: &mut Conn, new: &NewRun) -> Result<(), StoreError> {
    let run = &new.run;
    sqlx::query(concat!(
        "INSERT INTO runs (id, tenant, agent_id, status, background, request, request_key, request_content, trace, \
         usage, archived, created_at, answers, thread_id, accepted_at) \
         VALUES ($1, $2, $3, 'created', $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, ",
        now!(),
        ")"
    ))
    .bind(run.id.uuid())
    .bind(run.tenant.as_str())
    .bind(run.agent_id.uuid())
    .bind(run.request.attachment == Attachment::Background)
    .bind(values::document(&run.request)?)
    .bind(new.key.as_ref().map(|key| key.key.as_str()))
    .bind(new.key.as_ref().map(|key| key.content.as_str()).or(new.content.as_deref()))
    .bind(new.trace.as_deref().map(plain))
    .bind(values::document(&run.usage)?)
    .bind(signed(run.archived.get())?)
    .bind(micros(run.created_at))
    .bind(run.request.answering.map(|answering| answering.request.uuid()))
    .bind(run.thread().uuid())
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn by_key(conn: &mut Conn, agent: AgentId, key: &RequestKey) -> Result<Option<Accepted>, StoreError> {
    let row = sqlx::query(concat!(
        "SELECT request_content, ",
        run_columns!(),
        " FROM runs WHERE agent_id = $1 AND request_key = $2"
    ))
    .bind(agent.uuid())
    .bind(&key.key)
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let is_same = row.try_get::<&str, _>("request_content")? == key.content;
    Ok(Some(if is_same { Accepted::Known(Box::new(read(&row)?)) } else { Accepted::KeyReused(id(&row, "id")?) }))
}

pub(super) async fn active_by_content(
    store: &Adapter,
    thread: Thread,
    content: &str,
) -> Result<Option<Run>, StoreError> {
    let row = sqlx::query(concat!(
        "SELECT ",
        run_columns!(),
        " FROM runs WHERE thread_id = $1 AND status IN ('created', 'running') AND request_key IS NULL \
         AND request_content = $2 ORDER BY arrival LIMIT 1"
    ))
    .bind(thread.uuid())
    .bind(content)
    .fetch_optional(store.reader())
    .await?;
    row.as_ref().map(read).transpose()
}

pub(super) async fn by_otid(store: &Adapter, thread: Thread, otid: &str) -> Result<Option<Run>, StoreError> {
    let row = sqlx::query(concat!(
        "SELECT ",
        run_columns!(),
        " FROM runs WHERE id IN (SELECT run_id FROM messages WHERE thread_id = $1 \
         AND substr(otid, 1, 100) = substr($2, 1, 100) AND otid = $2) ORDER BY arrival DESC LIMIT 1"
    ))
    .bind(thread.uuid())
    .bind(plain(otid))
    .fetch_optional(store.reader())
    .await?;
    row.as_ref().map(read).transpose()
}

pub(super) async fn get(store: &Adapter, tenant: &TenantId, id: RunId) -> Result<Option<Run>, StoreError> {
    let row = sqlx::query(concat!("SELECT ", run_columns!(), " FROM runs WHERE id = $1 AND tenant = $2"))
        .bind(id.uuid())
        .bind(tenant.as_str())
        .fetch_optional(store.reader())
        .await?;
    row.as_ref().map(read).transpose()
}

pub(super) async fn list(
    store: &Adapter,
    tenant: &TenantId,
    filter: &RunFilter,
    page: &Page<RunId>,
) -> Result<Vec<Run>, StoreError> {
    let mut conn = store.reader().acquire().await?;
    let after = place(&mut conn, tenant, page.after).await?;
    let before = place(&mut conn, tenant, page.before).await?;
    let mut builder = Builder::new(concat!("SELECT ", run_columns!(), " FROM runs WHERE tenant = "));
    builder.push_bind(tenant.as_str().to_owned());
    if !filter.agents.is_empty() {
        builder.push(" AND agent_id IN (");
        let mut list = builder.separated(", ");
        for agent in &filter.agents {
            list.push_bind(agent.uuid());
        }
        builder.push(")");
    }
    if !filter.statuses.is_empty() {
        builder.push(" AND status IN (");
        let mut list = builder.separated(", ");
        for status in &filter.statuses {
            list.push_bind(status.as_str());
        }
        builder.push(")");
    }
    if let Some(background) = filter.background {
        builder.push(" AND background = ").push_bind(background);
    }
    if let Some(reason) = filter.stop_reason {
        builder.push(" AND stop_reason = ").push_bind(reason.as_str());
    }
    match filter.threads {
        ThreadScope::All => {}
        ThreadScope::Own => {
            builder.push(" AND thread_id = agent_id");
        }
        ThreadScope::Conversation(conversation) => {
            builder.push(" AND thread_id = ").push_bind(conversation.uuid());
        }
    }
    let direction = page::push(&mut builder, ARRIVAL, page, after, before);
    let rows = builder.build().fetch_all(&mut *conn).await?;
    Ok(direction.restore(rows.iter().map(read).collect::<Result<_, _>>()?))
}

async fn place(conn: &mut Conn, tenant: &TenantId, cursor: Option<RunId>) -> Result<Option<Place>, StoreError> {
    let Some(cursor) = cursor else { return Ok(None) };
    let arrival: Option<i64> = sqlx::query_scalar("SELECT arrival FROM runs WHERE id = $1 AND tenant = $2")
        .bind(cursor.uuid())
        .bind(tenant.as_str())
        .fetch_optional(conn)
        .await?;
    arrival.map(|key| Some(Place { key, tie: None })).ok_or(StoreError::UnknownCursor)
}

pub(super) async fn ended_among(store: &Adapter, runs: &[RunId]) -> Result<Vec<RunId>, StoreError> {
    if runs.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(concat!("SELECT id FROM runs WHERE completed_at IS NOT NULL AND id", in_ids!("$1")))
        .bind(list_of_ids(runs.iter().map(|id| id.uuid())))
        .fetch_all(store.reader())
        .await?;
    rows.iter().map(|row| id(row, "id")).collect()
}

pub(super) async fn request_cancel(store: &Adapter, run: RunId, now: Timestamp) -> Result<CancelRequest, StoreError> {
    let mut tx = store.begin().await?;
    let row = sqlx::query(concat!(
        "UPDATE runs SET cancel_requested_at = coalesce(cancel_requested_at, $2) \
         WHERE id = $1 AND status IN ('created', 'running') RETURNING ",
        run_columns!()
    ))
    .bind(run.uuid())
    .bind(micros(now))
    .fetch_optional(&mut *tx)
    .await?;
    tx.commit().await?;
    let Some(row) = row else { return Ok(CancelRequest::Ended) };
    let run = read(&row)?;
    Ok(match run.state {
        RunState::Created => CancelRequest::Created(Box::new(run)),
        RunState::Running | RunState::Ended { .. } => CancelRequest::Requested,
    })
}

pub(super) async fn delete(store: &Adapter, tenant: &TenantId, run: RunId) -> Result<RunDeletion, StoreError> {
    let mut tx = store.begin().await?;
    let row = sqlx::query(concat!(
        "SELECT agent_id, thread_id, completed_at FROM runs WHERE id = $1 AND tenant = $2",
        for_update!()
    ))
    .bind(run.uuid())
    .bind(tenant.as_str())
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = row else { return Ok(RunDeletion::NoRun) };
    if row.try_get::<Option<i64>, _>("completed_at")?.is_none() {
        return Ok(RunDeletion::Active);
    }
    // Its answer has to find the run that asked.
    let is_waiting: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM threads JOIN messages ON messages.id = threads.pending_approval \
         WHERE threads.id = $1 AND messages.run_id = $2)",
    )
    .bind(thread(&row)?.uuid())
    .bind(run.uuid())
    .fetch_one(&mut *tx)
    .await?;
    if is_waiting {
        return Ok(RunDeletion::Waiting);
    }
    sqlx::query("UPDATE messages SET run_id = NULL WHERE run_id = $1").bind(run.uuid()).execute(&mut *tx).await?;
    sqlx::query("DELETE FROM runs WHERE id = $1").bind(run.uuid()).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(RunDeletion::Deleted)
}

/// A run as its row has it.
pub(super) fn read(row: &Row) -> Result<Run, StoreError> {
    let tenant = row.try_get::<&str, _>("tenant")?;
    let Thread { agent, conversation } = thread(row)?;
    Ok(Run {
        id: id(row, "id")?,
        tenant: values::word(tenant, TenantId::parse)?,
        agent_id: agent,
        conversation_id: conversation,
        request: document(row, "request")?,
        state: read_state(row)?,
        cancel_requested: row.try_get::<Option<i64>, _>("cancel_requested_at")?.is_some(),
        usage: document(row, "usage")?,
        archived: seq(row, "archived")?,
        created_at: moment(row, "created_at")?,
        ttft_ns: row.try_get("ttft_ns")?,
        callback: callbacks::read_try(row)?,
    })
}

/// The thread in a row's columns.
pub(super) fn thread(row: &Row) -> Result<Thread, StoreError> {
    Ok(Thread::of(id(row, "agent_id")?, row.try_get("thread_id")?))
}

fn read_state(row: &Row) -> Result<RunState, StoreError> {
    match values::word(row.try_get("status")?, RunStatus::parse)? {
        RunStatus::Created => Ok(RunState::Created),
        RunStatus::Running => Ok(RunState::Running),
        RunStatus::Completed | RunStatus::Failed | RunStatus::Cancelled => Ok(RunState::Ended {
            reason: values::word(row.try_get("stop_reason")?, StopReason::parse)?,
            at: moment(row, "completed_at")?,
            error: optional_document(row, "error")?,
            terminal: seq(row, "terminal_seq")?,
        }),
    }
}
