//! Conversations: further threads of an agent.

use sqlx::Row as _;

use super::page::{self, Keys, Place};
use super::{
    Adapter, Builder, Conn, FIND, Row, agents, approvals, blocks, document, id, list_of_ids, messages, moment,
};
use crate::domain::Timestamp;
use crate::domain::agent::AgentSettings;
use crate::domain::conversation::{Conversation, ConversationChange, ConversationSettings};
use crate::domain::ids::{AgentId, ConversationId, Id as _, MessageId};
use crate::domain::message::{Body, Content, Labels, Message};
use crate::domain::page::Page;
use crate::domain::tenant::TenantId;
use crate::domain::thread::Thread;
use crate::ports::store::{ConversationFilter, ConversationMade, ConversationOrder, Fork, StoreError};
use crate::store::values::{self, folded, micros};

/// The columns that [`read`] wants.
macro_rules! conversation_columns {
    () => {
        "conversations.id, conversations.agent_id, conversations.settings, conversations.archived_at, \
         conversations.last_message_at, conversations.created_at, conversations.updated_at"
    };
}

/// Conversations that are there, of agents that are there.
macro_rules! living {
    () => {
        " FROM conversations JOIN agents ON agents.id = conversations.agent_id \
         WHERE conversations.deleted_at IS NULL AND agents.deleted_at IS NULL AND conversations.tenant = "
    };
}

pub(super) async fn create(
    store: &Adapter,
    tenant: &TenantId,
    conversation: &Conversation,
    system: MessageId,
    fork: Option<&Fork>,
) -> Result<ConversationMade, StoreError> {
    let (thread, now) = (conversation.thread(), conversation.created_at);
    let mut tx = store.begin().await?;
    let Some(agent) = agents::hold(&mut tx, tenant, thread.agent).await? else { return Ok(ConversationMade::NoAgent) };
    let until = match fork.and_then(|fork| fork.until.map(|until| (fork.from, until))) {
        None => None,
        Some((from, until)) => match end_of_step(&mut tx, from, until).await? {
            None => return Ok(ConversationMade::NoMessage),
            place => place,
        },
    };
    let message = |text: String| Message {
        id: system,
        agent_id: thread.agent,
        run_id: None,
        step_id: None,
        body: Body::System(Content::Text(text)),
        labels: Labels::default(),
        created_at: now,
    };
    messages::insert_thread(&mut tx, thread, &message(String::new())).await?;
    if let Some(fork) = fork {
        share(&mut tx, fork.from, thread, until).await?;
    }
    let blocks = blocks::of_agent(&mut tx, thread.agent).await?;
    let text = agents::compile(&mut tx, thread, &agent, &blocks, now).await?;
    messages::replace_system(&mut tx, thread, &Body::System(Content::Text(text))).await?;
    sqlx::query(
        "INSERT INTO conversations (id, tenant, agent_id, settings, summary_folded, archived_at, last_message_at, \
         created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(conversation.id.uuid())
    .bind(tenant.as_str())
    .bind(thread.agent.uuid())
    .bind(values::document(&conversation.settings)?)
    .bind(folded(conversation.settings.summary.as_deref().unwrap_or_default()))
    .bind(conversation.archived_at.map(micros))
    .bind(conversation.last_message_at.map(micros))
    .bind(micros(now))
    .bind(micros(conversation.updated_at))
    .execute(&mut *tx)
    .await?;
    let made = get(&mut tx, tenant, conversation.id).await?;
    tx.commit().await?;
    made.map(|made| ConversationMade::Made(Box::new(made)))
        .ok_or_else(|| StoreError::Corrupt(format!("{} is not there after it was made", conversation.id)))
}

/// The place of the last message of the step that made a message, or of the message itself; `None` if it is not in the
/// thread. Providers refuse a history that has calls without their results.
async fn end_of_step(conn: &mut Conn, thread: Thread, message: MessageId) -> Result<Option<i64>, StoreError> {
    let query = concat!(
        "SELECT max(position) FROM ",
        thread_messages!(),
        " WHERE thread_id = $2 AND (id = $1 OR step_id = (SELECT step_id FROM messages WHERE messages.id = $1)) \
         AND EXISTS (SELECT 1 FROM ",
        thread_messages!("named"),
        " WHERE named.id = $1 AND named.thread_id = $2)"
    );
    Ok(sqlx::query_scalar(query).bind(message.uuid()).bind(thread.uuid()).fetch_one(conn).await?)
}

/// Gives a new thread the messages of another one, up to a place: without the system message, what runs brought that
/// nobody has claimed, and steps whose calls have no results yet.
async fn share(conn: &mut Conn, from: Thread, to: Thread, until: Option<i64>) -> Result<(), StoreError> {
    sqlx::query(concat!(
        "INSERT INTO shared_messages (thread_id, message_id, position, in_context) \
         SELECT $2, thread_messages.id, thread_messages.position, thread_messages.in_context FROM ",
        thread_messages!(),
        " WHERE thread_messages.thread_id = $1 AND thread_messages.position <= $3 \
         AND thread_messages.id <> (SELECT system_id FROM threads WHERE threads.id = $1) \
         AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.id = thread_messages.run_id AND runs.epoch = 0) \
         AND NOT EXISTS (SELECT 1 FROM steps WHERE steps.id = thread_messages.step_id AND steps.status = 'pending') \
         AND NOT EXISTS (SELECT 1 FROM threads JOIN messages AS asking ON asking.id = threads.pending_approval \
           WHERE threads.id = $1 AND asking.step_id = thread_messages.step_id)"
    ))
    .bind(from.uuid())
    .bind(to.uuid())
    .bind(until.unwrap_or(i64::MAX))
    .execute(conn)
    .await?;
    Ok(())
}

/// Whether an agent has this conversation.
pub(super) async fn exists(conn: &mut Conn, agent: AgentId, id: ConversationId) -> Result<bool, StoreError> {
    let exists = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM conversations WHERE id = $1 AND agent_id = $2 AND deleted_at IS NULL)",
    );
    Ok(exists.bind(id.uuid()).bind(agent.uuid()).fetch_one(conn).await?)
}

pub(super) async fn get(
    conn: &mut Conn,
    tenant: &TenantId,
    id: ConversationId,
) -> Result<Option<Conversation>, StoreError> {
    let row = sqlx::query(concat!("SELECT ", conversation_columns!(), living!(), "$2 AND conversations.id = $1"))
        .bind(id.uuid())
        .bind(tenant.as_str())
        .fetch_optional(&mut *conn)
        .await?;
    let found = row.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(complete(conn, found).await?.pop())
}

pub(super) async fn list(
    store: &Adapter,
    tenant: &TenantId,
    filter: &ConversationFilter,
    page: &Page<ConversationId>,
) -> Result<Vec<Conversation>, StoreError> {
    let mut conn = store.reader().acquire().await?;
    let key = match filter.order {
        ConversationOrder::Creation => "created_at",
        ConversationOrder::LastMessage => "coalesce(last_message_at, created_at)",
        ConversationOrder::LastRun => "coalesce(last_run_completion, created_at)",
    };
    let after = place(&mut conn, tenant, key, page.after).await?;
    let before = place(&mut conn, tenant, key, page.before).await?;
    // The names of columns are then unambiguous, also in what ends every list.
    let mut builder = Builder::new(concat!(
        "SELECT * FROM (SELECT ",
        conversation_columns!(),
        ", conversations.last_run_completion, conversations.summary_folded",
        living!()
    ));
    builder.push_bind(tenant.as_str().to_owned()).push(") AS living WHERE TRUE");
    if let Some(agent) = filter.agent {
        builder.push(" AND agent_id = ").push_bind(agent.uuid());
    }
    if let Some(text) = &filter.summary {
        builder.push(" AND ").push(FIND).push("(summary_folded, ").push_bind(folded(text)).push(") > 0");
    }
    if let Some(archived) = filter.archived {
        builder.push(if archived { " AND archived_at IS NOT NULL" } else { " AND archived_at IS NULL" });
    }
    let direction = page::push(&mut builder, Keys { column: key, has_ties: true }, page, after, before);
    let rows = builder.build().fetch_all(&mut *conn).await?;
    let found = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    complete(&mut conn, direction.restore(found)).await
}

/// Where a cursor stands. A deleted conversation still has its place.
async fn place(
    conn: &mut Conn,
    tenant: &TenantId,
    key: &'static str,
    cursor: Option<ConversationId>,
) -> Result<Option<Place>, StoreError> {
    let Some(cursor) = cursor else { return Ok(None) };
    let mut builder = Builder::new("SELECT ");
    builder.push(key).push(" AS place FROM conversations WHERE id = ").push_bind(cursor.uuid());
    builder.push(" AND tenant = ").push_bind(tenant.as_str().to_owned());
    let row = builder.build().fetch_optional(conn).await?.ok_or(StoreError::UnknownCursor)?;
    Ok(Some(Place { key: row.try_get("place")?, tie: Some(cursor.uuid()) }))
}

pub(super) async fn change(
    store: &Adapter,
    tenant: &TenantId,
    id: ConversationId,
    change: &ConversationChange,
    now: Timestamp,
) -> Result<Option<Conversation>, StoreError> {
    let mut tx = store.begin().await?;
    // The lock comes first and alone: what is read then is as new as the row.
    sqlx::query(concat!("SELECT id FROM conversations WHERE id = $1 AND tenant = $2", for_update!()))
        .bind(id.uuid())
        .bind(tenant.as_str())
        .fetch_optional(&mut *tx)
        .await?;
    let Some(mut conversation) = get(&mut tx, tenant, id).await? else { return Ok(None) };
    change.apply(&mut conversation, now);
    sqlx::query(
        "UPDATE conversations SET settings = $2, summary_folded = $3, archived_at = $4, last_message_at = $5, \
         updated_at = $6 WHERE id = $1",
    )
    .bind(id.uuid())
    .bind(values::document(&conversation.settings)?)
    .bind(folded(conversation.settings.summary.as_deref().unwrap_or_default()))
    .bind(conversation.archived_at.map(micros))
    .bind(conversation.last_message_at.map(micros))
    .bind(micros(now))
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(Some(conversation))
}

pub(super) async fn delete(
    store: &Adapter,
    tenant: &TenantId,
    id: ConversationId,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let deleted =
        sqlx::query("UPDATE conversations SET deleted_at = $3 WHERE id = $1 AND tenant = $2 AND deleted_at IS NULL")
            .bind(id.uuid())
            .bind(tenant.as_str())
            .bind(micros(now))
            .execute(store.writer())
            .await?;
    Ok(deleted.rows_affected() > 0)
}

/// Notes that a run of the conversation has ended, and with it the last message that it brought or made.
pub(super) async fn note_run(conn: &mut Conn, id: ConversationId, at: Timestamp) -> Result<(), StoreError> {
    sqlx::query("UPDATE conversations SET last_message_at = $2, last_run_completion = $2 WHERE id = $1")
        .bind(id.uuid())
        .bind(micros(at))
        .execute(conn)
        .await?;
    Ok(())
}

/// Compiles the system message anew if what it was compiled from has changed since. The agent's row is locked.
pub(super) async fn refresh_system(
    conn: &mut Conn,
    thread: Thread,
    settings: &AgentSettings,
    version: i64,
    now: Timestamp,
) -> Result<(), StoreError> {
    let refreshed = sqlx::query("UPDATE threads SET prompt_version = $2 WHERE id = $1 AND prompt_version <> $2")
        .bind(thread.uuid())
        .bind(version)
        .execute(&mut *conn)
        .await?;
    if refreshed.rows_affected() == 0 {
        return Ok(());
    }
    let blocks = blocks::of_agent(conn, thread.agent).await?;
    let text = agents::compile(conn, thread, settings, &blocks, now).await?;
    messages::replace_system(conn, thread, &Body::System(Content::Text(text))).await
}

pub(super) async fn recompile_on_demand(
    store: &Adapter,
    tenant: &TenantId,
    thread: Thread,
    is_kept: bool,
    now: Timestamp,
) -> Result<Option<String>, StoreError> {
    let mut tx = store.begin().await?;
    let Some(settings) = agents::hold(&mut tx, tenant, thread.agent).await? else { return Ok(None) };
    if let Some(conversation) = thread.conversation
        && !exists(&mut tx, thread.agent, conversation).await?
    {
        return Ok(None);
    }
    let blocks = blocks::of_agent(&mut tx, thread.agent).await?;
    let text = agents::compile(&mut tx, thread, &settings, &blocks, now).await?;
    if is_kept {
        messages::replace_system(&mut tx, thread, &Body::System(Content::Text(text.clone()))).await?;
        sqlx::query(
            "UPDATE threads SET prompt_version = (SELECT prompt_version FROM agents WHERE agents.id = threads.agent_id) \
             WHERE id = $1",
        )
        .bind(thread.uuid())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
    }
    Ok(Some(text))
}

/// Adds to conversations which messages are in their contexts, and the calls that wait.
async fn complete(conn: &mut Conn, mut found: Vec<Conversation>) -> Result<Vec<Conversation>, StoreError> {
    if found.is_empty() {
        return Ok(found);
    }
    let rows = sqlx::query(concat!(
        "SELECT thread_messages.thread_id, thread_messages.id FROM ",
        thread_messages!(),
        " JOIN threads ON threads.id = thread_messages.thread_id \
         WHERE thread_messages.in_context AND thread_messages.thread_id",
        in_ids!("$1"),
        " ORDER BY thread_messages.id <> threads.system_id, thread_messages.position"
    ))
    .bind(list_of_ids(found.iter().map(|one| one.id.uuid())))
    .fetch_all(&mut *conn)
    .await?;
    for row in &rows {
        let thread: ConversationId = id(row, "thread_id")?;
        if let Some(conversation) = found.iter_mut().find(|one| one.id == thread) {
            conversation.message_ids.push(id(row, "id")?);
        }
    }
    let mut pending = approvals::pending_of(conn, found.iter().map(|one| one.id.uuid())).await?;
    for conversation in &mut found {
        conversation.pending_approval = pending.remove(&conversation.id.uuid());
    }
    Ok(found)
}

fn read(row: &Row) -> Result<Conversation, StoreError> {
    let optional = |column| row.try_get::<Option<i64>, _>(column)?.map(values::moment).transpose();
    Ok(Conversation {
        id: id(row, "id")?,
        agent_id: id(row, "agent_id")?,
        settings: document::<ConversationSettings>(row, "settings")?,
        message_ids: Vec::new(),
        pending_approval: None,
        archived_at: optional("archived_at")?,
        last_message_at: optional("last_message_at")?,
        created_at: moment(row, "created_at")?,
        updated_at: moment(row, "updated_at")?,
    })
}
