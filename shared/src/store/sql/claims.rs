//! Claims, their fence, and the heartbeats that keep them.

use std::time::Duration;

use sqlx::Row as _;
use uuid::Uuid;

use super::{
    Adapter, Conn, Row, agents, approvals, blocks, conversations, document, duration_micros, id, messages, moment,
    optional_document, optional_id, outbox, runs, seq, tools,
};
use crate::domain::Timestamp;
use crate::domain::agent::AgentSettings;
use crate::domain::conversation::ConversationSettings;
use crate::domain::ids::{AgentId, Id as _, MessageId, RunId, StepId, WorkerId};
use crate::domain::lease::{Lease, LeaseEpoch, TakeoverAfter};
use crate::domain::message::Body;
use crate::domain::position::SeqId;
use crate::domain::run::{Run, RunState, RunWork};
use crate::domain::step::{OpenStep, RecordedAnswer};
use crate::domain::stop_reason::StopReason;
use crate::domain::tenant::TenantId;
use crate::domain::thread::Thread;
use crate::domain::tool::ToolReturn;
use crate::ports::store::{Claim, Claimed, Context, Heartbeat, OutboxEntry, StoreError, WorkerFacts};
use crate::store::values::{self, micros, unsigned};

/// The shortest time after which asking again makes sense.
const SHORTEST_HOLD: Duration = Duration::from_millis(50);

/// What a fenced transaction knows of its run.
#[derive(Debug, Clone)]
pub(super) struct Held {
    /// The run.
    pub(super) run: RunId,
    /// Its thread.
    pub(super) thread: Thread,
    /// The last archived event.
    pub(super) archived: SeqId,
    /// When it was accepted.
    pub(super) created_at: Timestamp,
    /// The trace of its request.
    pub(super) trace: Option<String>,
}

impl Held {
    pub(super) fn read(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            run: id(row, "id")?,
            thread: runs::thread(row)?,
            archived: seq(row, "archived")?,
            created_at: moment(row, "created_at")?,
            trace: row.try_get("trace")?,
        })
    }
}

/// Checks a lease and locks its run until the end of the transaction, so that no claim comes between check and write.
pub(super) async fn fence(conn: &mut Conn, lease: &Lease) -> Result<Held, StoreError> {
    let row = sqlx::query(concat!(
        "SELECT id, agent_id, thread_id, archived, created_at, trace FROM runs \
         WHERE id = $1 AND epoch = $2 AND worker_id = $3 AND status = 'running'",
        for_update!()
    ))
    .bind(lease.run.uuid())
    .bind(lease.epoch.get())
    .bind(lease.worker.uuid())
    .fetch_optional(conn)
    .await?;
    Held::read(&row.ok_or(StoreError::Fenced)?)
}

pub(super) async fn heartbeat(store: &Adapter, worker: WorkerId, facts: &WorkerFacts) -> Result<Heartbeat, StoreError> {
    sqlx::query(concat!(
        "INSERT INTO workers (id, facts, heartbeat_at) VALUES ($1, $2, ",
        now!(),
        ") ON CONFLICT (id) DO UPDATE SET heartbeat_at = excluded.heartbeat_at"
    ))
    .bind(worker.uuid())
    .bind(values::document(facts)?)
    .execute(store.writer())
    .await?;
    let rows = sqlx::query("SELECT id FROM runs WHERE worker_id = $1 AND cancel_requested_at IS NOT NULL")
        .bind(worker.uuid())
        .fetch_all(store.reader())
        .await?;
    Ok(Heartbeat { cancelled: rows.iter().map(|row| id(row, "id")).collect::<Result<_, _>>()? })
}

pub(super) async fn workers(store: &Adapter, silence: TakeoverAfter) -> Result<Vec<WorkerFacts>, StoreError> {
    let rows = sqlx::query(concat!("SELECT facts FROM workers WHERE heartbeat_at > ", now!(), " - $1 ORDER BY id"))
        .bind(duration_micros(silence.0))
        .fetch_all(store.reader())
        .await?;
    rows.iter().map(|row| document(row, "facts")).collect()
}

pub(super) async fn retire(store: &Adapter, worker: WorkerId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM workers WHERE id = $1").bind(worker.uuid()).execute(store.writer()).await?;
    Ok(())
}

pub(super) async fn claim(
    store: &Adapter,
    run: RunId,
    worker: WorkerId,
    after: TakeoverAfter,
    now: Timestamp,
) -> Result<Claim, StoreError> {
    let mut tx = store.begin().await?;
    // The lock comes first and alone: what the next statement sees is then as new as the run's row.
    let row = sqlx::query(concat!(
        "SELECT worker_id, epoch, attempts, ",
        run_columns!(),
        " FROM runs WHERE id = $1",
        for_update!()
    ))
    .bind(run.uuid())
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = row else { return Ok(Claim::Gone) };
    let run = runs::read(&row)?;
    if run.state.has_ended() {
        return Ok(Claim::Gone);
    }
    if let Some(refusal) = refusal(&mut tx, &row, &run, after).await? {
        return Ok(refusal);
    }
    let claimed = take(&mut tx, &row, run, worker, now).await?;
    tx.commit().await?;
    Ok(Claim::Claimed(Box::new(claimed)))
}

/// Why a run that is not over cannot be taken now, if so.
async fn refusal(conn: &mut Conn, row: &Row, run: &Run, after: TakeoverAfter) -> Result<Option<Claim>, StoreError> {
    let facts = sqlx::query(concat!(
        "SELECT ",
        now!(),
        " AS now, (SELECT heartbeat_at FROM workers WHERE id = $1) AS heartbeat_at, \
         (runs.status = 'created' AND ",
        is_blocked!(),
        ") AS is_blocked FROM runs JOIN threads ON threads.id = runs.thread_id WHERE runs.id = $2"
    ))
    .bind(row.try_get::<Option<Uuid>, _>("worker_id")?)
    .bind(run.id.uuid())
    .fetch_one(conn)
    .await?;
    if let Some(heartbeat_at) = facts.try_get::<Option<i64>, _>("heartbeat_at")? {
        let age = facts.try_get::<i64, _>("now")? - heartbeat_at;
        let remaining = duration_micros(after.0).saturating_sub(age);
        if remaining > 0 {
            let remaining = Duration::from_micros(remaining.unsigned_abs());
            return Ok(Some(Claim::Held(remaining.max(SHORTEST_HOLD))));
        }
    }
    Ok(facts.try_get::<bool, _>("is_blocked")?.then_some(Claim::Blocked))
}

async fn take(conn: &mut Conn, row: &Row, run: Run, worker: WorkerId, now: Timestamp) -> Result<Claimed, StoreError> {
    let epoch = row.try_get::<i64, _>("epoch")? + 1;
    let attempts = row.try_get::<i64, _>("attempts")? + 1;
    sqlx::query(
        "UPDATE runs SET status = 'running', epoch = $2, attempts = $3, worker_id = $4, \
         started_at = coalesce(started_at, $5), hinted_at = NULL WHERE id = $1",
    )
    .bind(run.id.uuid())
    .bind(epoch)
    .bind(attempts)
    .bind(worker.uuid())
    .bind(micros(now))
    .execute(&mut *conn)
    .await?;
    let (steps_done, open_step, decided) = if run.state == RunState::Created {
        enter_context(conn, &run, now).await?;
        (0, None, None)
    } else {
        let (steps_done, decided) = steps_done(conn, run.id).await?;
        (steps_done, open_step(conn, run.agent_id, run.id).await?, decided)
    };
    Ok(Claimed {
        lease: Lease { run: run.id, worker, epoch: LeaseEpoch::new(epoch) },
        run: Run { state: RunState::Running, ..run },
        attempts: unsigned(attempts)?,
        steps_done,
        open_step,
        decided,
    })
}

/// The input of a run enters the context with the first claim, so that the run before it does not see it.
async fn enter_context(conn: &mut Conn, run: &Run, now: Timestamp) -> Result<(), StoreError> {
    let agent =
        sqlx::query(concat!("SELECT settings, last_position, prompt_version FROM agents WHERE id = $1", for_update!()))
            .bind(run.agent_id.uuid())
            .fetch_one(&mut *conn)
            .await?;
    let settings: AgentSettings = document(&agent, "settings")?;
    let thread = run.thread();
    // What is asked stays beside its answer.
    let begins_anew = run.request.answering.is_none() && run.request.work == RunWork::Answer;
    if settings.message_buffer_autoclear && begins_anew {
        messages::clear_context(conn, thread).await?;
    }
    messages::bring_in_input(conn, thread, run.id, agent.try_get("last_position")?).await?;
    if thread.conversation.is_some() {
        conversations::refresh_system(conn, thread, &settings, agent.try_get("prompt_version")?, now).await?;
    }
    Ok(())
}

/// How many steps are committed, and why the run ends after the last of them, if it does.
async fn steps_done(conn: &mut Conn, run: RunId) -> Result<(u32, Option<StopReason>), StoreError> {
    let row = sqlx::query(
        "SELECT count(*) AS done, (SELECT stop_reason FROM steps WHERE run_id = $1 AND status <> 'pending' \
         ORDER BY number DESC LIMIT 1) AS decided FROM steps WHERE run_id = $1 AND status <> 'pending'",
    )
    .bind(run.uuid())
    .fetch_one(conn)
    .await?;
    let decided = row.try_get::<Option<&str>, _>("decided")?;
    let decided = decided.map(|word| values::word(word, StopReason::parse)).transpose()?;
    Ok((unsigned(row.try_get("done")?)?, decided))
}

/// The step that is under way, with what is recorded of it.
pub(super) async fn open_step(conn: &mut Conn, agent: AgentId, run: RunId) -> Result<Option<OpenStep>, StoreError> {
    let row = sqlx::query(
        "SELECT steps.id, steps.number, steps.started_at, steps.usage, steps.answer_id, steps.answers_step, \
         messages.body FROM steps LEFT JOIN messages ON messages.id = steps.answer_id \
         WHERE steps.run_id = $1 AND steps.status = 'pending'",
    )
    .bind(run.uuid())
    .fetch_optional(&mut *conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let step: StepId = id(&row, "id")?;
    let answers = optional_id::<StepId>(&row, "answers_step")?;
    let recorded = match (optional_id::<MessageId>(&row, "answer_id")?, answers) {
        (None, None) => None,
        (Some(message_id), _) => {
            let Body::Assistant(answer) = document(&row, "body")? else {
                return Err(StoreError::Corrupt(format!("the answer of {step} is not an assistant's message")));
            };
            Some((message_id, answer))
        }
        (None, Some(asking)) => Some(approvals::asked(conn, agent, asking).await?),
    };
    let answer = match recorded {
        None => None,
        Some((message_id, answer)) => {
            let (returns, begun) = calls_so_far(conn, step).await?;
            Some(RecordedAnswer { message_id, answer, usage: document(&row, "usage")?, returns, begun, answers })
        }
    };
    let number = unsigned(row.try_get("number")?)?;
    Ok(Some(OpenStep { id: step, number, started_at: moment(&row, "started_at")?, answer }))
}

/// Recorded results of a step, in call order, and the places of calls that were begun and have none.
async fn calls_so_far(conn: &mut Conn, step: StepId) -> Result<(Vec<ToolReturn>, Vec<u32>), StoreError> {
    let rows = sqlx::query("SELECT call, body FROM tool_returns WHERE step_id = $1 ORDER BY call")
        .bind(step.uuid())
        .fetch_all(conn)
        .await?;
    let (mut returns, mut begun) = (Vec::new(), Vec::new());
    for row in &rows {
        match optional_document(row, "body")? {
            Some(tool_return) => returns.push(tool_return),
            None => begun.push(unsigned(row.try_get("call")?)?),
        }
    }
    Ok((returns, begun))
}

pub(super) async fn context(store: &Adapter, lease: &Lease) -> Result<Context, StoreError> {
    let mut conn = store.reader().acquire().await?;
    // This only reads, so the lease is checked without a lock: a zombie that reads harms nobody.
    let row = sqlx::query(concat!(
        "SELECT agents.tenant, ",
        agent_columns!("agents."),
        ", runs.agent_id, runs.thread_id, runs.system, conversations.settings AS conversation_settings FROM runs \
         JOIN agents ON agents.id = runs.agent_id LEFT JOIN conversations ON conversations.id = runs.thread_id \
         WHERE runs.id = $1 AND runs.epoch = $2 AND runs.worker_id = $3 AND runs.status = 'running'"
    ))
    .bind(lease.run.uuid())
    .bind(lease.epoch.get())
    .bind(lease.worker.uuid())
    .fetch_optional(&mut *conn)
    .await?
    .ok_or(StoreError::Fenced)?;
    let mut agent = agents::read(&row)?;
    if let Some(own) = optional_document::<ConversationSettings>(&row, "conversation_settings")? {
        own.apply(&mut agent.settings);
    }
    agent.blocks = blocks::of_agent(&mut conn, agent.id).await?;
    let thread = runs::thread(&row)?;
    let mut messages = messages::in_context(&mut conn, thread).await?;
    if let (Some(body), Some(system)) = (optional_document(&row, "system")?, messages.first_mut()) {
        system.body = body;
    }
    agent.message_ids = messages.iter().map(|message| message.id).collect();
    let tenant = values::word(row.try_get("tenant")?, TenantId::parse)?;
    tools::attach(&mut conn, &tenant, std::slice::from_mut(&mut agent)).await?;
    agent.pending_approval =
        approvals::pending_of(&mut conn, std::iter::once(thread.uuid())).await?.remove(&thread.uuid());
    Ok(Context { agent, messages })
}

pub(super) async fn release(store: &Adapter, lease: &Lease) -> Result<Vec<OutboxEntry>, StoreError> {
    let mut tx = store.begin().await?;
    let held = fence(&mut tx, lease).await?;
    // `hinted_at`: the hint that goes out now counts, so that the rescuer does not send another one at once.
    sqlx::query(concat!(
        "UPDATE runs SET worker_id = NULL, hinted_at = ",
        now!(),
        ", attempts = CASE WHEN attempts > 0 THEN attempts - 1 ELSE 0 END WHERE id = $1"
    ))
    .bind(held.run.uuid())
    .execute(&mut *tx)
    .await?;
    let entry = outbox::insert(&mut tx, held.run, held.trace.as_deref()).await?;
    tx.commit().await?;
    Ok(vec![entry])
}
