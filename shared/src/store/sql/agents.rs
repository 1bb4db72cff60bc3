//! Agents with their tags and blocks.

use std::collections::HashMap;

use sqlx::Row as _;
use uuid::Uuid;

use super::page::{self, Keys, Place};
use super::{Adapter, Builder, Conn, FIND, Row, approvals, document, id, list_of_ids, messages, moment, tools};
use crate::domain::Timestamp;
use crate::domain::agent::{Agent, AgentSettings};
use crate::domain::block::Block;
use crate::domain::ids::{AgentId, Id as _, MessageId};
use crate::domain::message::{Body, Content, Message};
use crate::domain::page::Page;
use crate::domain::prompt::{self, PromptFacts};
use crate::domain::stop_reason::StopReason;
use crate::domain::tenant::TenantId;
use crate::domain::thread::Thread;
use crate::ports::store::{AgentChange, AgentFilter, SettingsEdit, StoreError};
use crate::store::values::{self, folded, micros, plain};

pub(super) async fn create(
    store: &Adapter,
    tenant: &TenantId,
    agent: &Agent,
    system: &Message,
) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    sqlx::query(
        "INSERT INTO agents (id, tenant, name, name_folded, settings, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(agent.id.uuid())
    .bind(tenant.as_str())
    .bind(plain(&agent.name))
    .bind(folded(&agent.name))
    .bind(values::document(&agent.settings)?)
    .bind(micros(agent.created_at))
    .bind(micros(agent.updated_at))
    .execute(&mut *tx)
    .await?;
    insert_tags(&mut tx, agent.id, &agent.settings.tags).await?;
    insert_blocks(&mut tx, agent.id, &agent.blocks).await?;
    messages::insert_thread(&mut tx, Thread::own(agent.id), system).await?;
    tx.commit().await?;
    Ok(())
}

async fn insert_tags(conn: &mut Conn, agent: AgentId, tags: &[String]) -> Result<(), StoreError> {
    if tags.is_empty() {
        return Ok(());
    }
    let mut builder = Builder::new("INSERT INTO agent_tags (agent_id, place, tag) ");
    builder.push_values(tags.iter().zip(0_i64..), |mut row, (tag, place)| {
        row.push_bind(agent.uuid()).push_bind(place).push_bind(plain(tag).into_owned());
    });
    builder.build().execute(conn).await?;
    Ok(())
}

/// Adds a block behind those that the agent has.
pub(super) async fn append_block(conn: &mut Conn, agent: AgentId, block: &Block) -> Result<(), StoreError> {
    let place: i64 = sqlx::query_scalar("SELECT coalesce(max(place), -1) + 1 FROM blocks WHERE agent_id = $1")
        .bind(agent.uuid())
        .fetch_one(&mut *conn)
        .await?;
    insert_block(conn, agent, block, place).await
}

async fn insert_blocks(conn: &mut Conn, agent: AgentId, blocks: &[Block]) -> Result<(), StoreError> {
    for (block, place) in blocks.iter().zip(0_i64..) {
        insert_block(conn, agent, block, place).await?;
    }
    Ok(())
}

async fn insert_block(conn: &mut Conn, agent: AgentId, block: &Block, place: i64) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO blocks (id, agent_id, place, label, value, details, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(block.id.uuid())
    .bind(agent.uuid())
    .bind(place)
    .bind(plain(&block.label))
    .bind(plain(&block.value))
    .bind(values::document(&block.details)?)
    .bind(micros(block.created_at))
    .bind(micros(block.updated_at))
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn get(store: &Adapter, tenant: &TenantId, id: AgentId) -> Result<Option<Agent>, StoreError> {
    let mut conn = store.reader().acquire().await?;
    get_in(&mut conn, tenant, id).await
}

async fn get_in(conn: &mut Conn, tenant: &TenantId, id: AgentId) -> Result<Option<Agent>, StoreError> {
    let row = sqlx::query(concat!(
        "SELECT ",
        agent_columns!(),
        " FROM agents WHERE id = $1 AND tenant = $2 AND deleted_at IS NULL"
    ))
    .bind(id.uuid())
    .bind(tenant.as_str())
    .fetch_optional(&mut *conn)
    .await?;
    let found = row.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(complete(conn, tenant, found).await?.pop())
}

pub(super) async fn list(
    store: &Adapter,
    tenant: &TenantId,
    filter: &AgentFilter,
    page: &Page<AgentId>,
) -> Result<Vec<Agent>, StoreError> {
    let mut conn = store.reader().acquire().await?;
    let column = if filter.order_by_updated { "updated_at" } else { "created_at" };
    let keys = Keys { column, has_ties: true };
    let after = place(&mut conn, tenant, filter, page.after).await?;
    let before = place(&mut conn, tenant, filter, page.before).await?;

    let mut builder = Builder::new(concat!("SELECT ", agent_columns!(), " FROM agents WHERE tenant = "));
    builder.push_bind(tenant.as_str().to_owned()).push(" AND deleted_at IS NULL");
    if let Some(name) = &filter.name {
        builder.push(" AND name = ").push_bind(plain(name).into_owned());
    }
    if let Some(text) = &filter.query_text {
        builder.push(" AND ").push(FIND).push("(name_folded, ").push_bind(folded(text)).push(") > 0");
    }
    push_tags(&mut builder, filter);
    let direction = page::push(&mut builder, keys, page, after, before);
    let rows = builder.build().fetch_all(&mut *conn).await?;
    let found = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    complete(&mut conn, tenant, direction.restore(found)).await
}

fn push_tags(builder: &mut Builder, filter: &AgentFilter) {
    const HAS_TAG: &str = "EXISTS (SELECT 1 FROM agent_tags WHERE agent_id = agents.id AND tag = ";
    if filter.tags.is_empty() {
        return;
    }
    let joint = if filter.match_all_tags { " AND " } else { " OR " };
    for (index, tag) in filter.tags.iter().enumerate() {
        builder.push(if index == 0 { " AND (" } else { joint });
        builder.push(HAS_TAG).push_bind(plain(tag).into_owned()).push(")");
    }
    builder.push(")");
}

/// Where a cursor stands. A deleted agent still has its place: deleting while somebody turns the pages is no error.
async fn place(
    conn: &mut Conn,
    tenant: &TenantId,
    filter: &AgentFilter,
    cursor: Option<AgentId>,
) -> Result<Option<Place>, StoreError> {
    let Some(cursor) = cursor else { return Ok(None) };
    let row = sqlx::query("SELECT created_at, updated_at FROM agents WHERE id = $1 AND tenant = $2")
        .bind(cursor.uuid())
        .bind(tenant.as_str())
        .fetch_optional(conn)
        .await?
        .ok_or(StoreError::UnknownCursor)?;
    let key = row.try_get(if filter.order_by_updated { "updated_at" } else { "created_at" })?;
    Ok(Some(Place { key, tie: Some(cursor.uuid()) }))
}

pub(super) async fn change(
    store: &Adapter,
    tenant: &TenantId,
    id: AgentId,
    change: &AgentChange<'_>,
    now: Timestamp,
) -> Result<Option<Agent>, StoreError> {
    let mut tx = store.begin().await?;
    let changed = sqlx::query(
        "UPDATE agents SET updated_at = $3, name = coalesce($4, name), name_folded = coalesce($5, name_folded) \
         WHERE id = $1 AND tenant = $2 AND deleted_at IS NULL",
    )
    .bind(id.uuid())
    .bind(tenant.as_str())
    .bind(micros(now))
    .bind(change.name.as_deref().map(plain))
    .bind(change.name.as_deref().map(folded))
    .execute(&mut *tx)
    .await?;
    if changed.rows_affected() == 0 {
        return Ok(None);
    }
    if let Some(wanted) = &change.message_ids {
        messages::set_context(&mut tx, id, wanted).await?;
    }
    if let Some(edit) = change.settings {
        edit_settings(&mut tx, id, now, edit).await?;
    }
    let agent = get_in(&mut tx, tenant, id).await?;
    tx.commit().await?;
    Ok(agent)
}

/// Edits an agent's settings and what hangs on them. Holds the agent's row from then on.
pub(super) async fn edit_settings(
    conn: &mut Conn,
    id: AgentId,
    now: Timestamp,
    edit: SettingsEdit<'_>,
) -> Result<(), StoreError> {
    let row = sqlx::query(concat!("SELECT settings FROM agents WHERE id = $1", for_update!()))
        .bind(id.uuid())
        .fetch_one(&mut *conn)
        .await?;
    let before: AgentSettings = document(&row, "settings")?;
    let after = edit(&before);
    if after == before {
        return Ok(());
    }
    sqlx::query("UPDATE agents SET settings = $2, updated_at = $3 WHERE id = $1")
        .bind(id.uuid())
        .bind(values::document(&after)?)
        .bind(micros(now))
        .execute(&mut *conn)
        .await?;
    sqlx::query("DELETE FROM agent_tags WHERE agent_id = $1").bind(id.uuid()).execute(&mut *conn).await?;
    insert_tags(conn, id, &after.tags).await?;
    let blocks = blocks(conn, id).await?;
    recompile(conn, id, &after, &blocks, now).await
}

/// Compiles the agent's system message and puts it in the place of the old one. Those of its conversations are out of
/// date then, and compiled when their next run is claimed.
pub(super) async fn recompile(
    conn: &mut Conn,
    agent_id: AgentId,
    settings: &AgentSettings,
    blocks: &[Block],
    now: Timestamp,
) -> Result<(), StoreError> {
    let thread = Thread::own(agent_id);
    sqlx::query("UPDATE agents SET prompt_version = prompt_version + 1 WHERE id = $1")
        .bind(agent_id.uuid())
        .execute(&mut *conn)
        .await?;
    let text = compile(conn, thread, settings, blocks, now).await?;
    messages::replace_system(conn, thread, &Body::System(Content::Text(text))).await
}

/// The text of a thread's system message.
pub(super) async fn compile(
    conn: &mut Conn,
    thread: Thread,
    settings: &AgentSettings,
    blocks: &[Block],
    now: Timestamp,
) -> Result<String, StoreError> {
    let outside: i64 = sqlx::query_scalar(concat!(
        "SELECT count(*) FROM ",
        thread_messages!(),
        " WHERE thread_id = $1 AND NOT in_context"
    ))
    .bind(thread.uuid())
    .fetch_one(conn)
    .await?;
    let facts = PromptFacts { agent_id: thread.agent, compiled_at: now, messages_outside: values::unsigned(outside)? };
    Ok(prompt::compile(settings, blocks, &facts))
}

/// Locks a tenant's agent until the end of the transaction and says its settings.
pub(super) async fn hold(conn: &mut Conn, tenant: &TenantId, id: AgentId) -> Result<Option<AgentSettings>, StoreError> {
    let row = sqlx::query(concat!(
        "SELECT settings FROM agents WHERE id = $1 AND tenant = $2 AND deleted_at IS NULL",
        for_update!()
    ))
    .bind(id.uuid())
    .bind(tenant.as_str())
    .fetch_optional(conn)
    .await?;
    row.map(|row| document(&row, "settings")).transpose()
}

pub(super) async fn delete(
    store: &Adapter,
    tenant: &TenantId,
    id: AgentId,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let deleted = sqlx::query("UPDATE agents SET deleted_at = $3 WHERE id = $1 AND tenant = $2 AND deleted_at IS NULL")
        .bind(id.uuid())
        .bind(tenant.as_str())
        .bind(micros(now))
        .execute(store.writer())
        .await?;
    Ok(deleted.rows_affected() > 0)
}

/// An agent's blocks, in the order of attachment.
pub(super) async fn blocks(conn: &mut Conn, agent: AgentId) -> Result<Vec<Block>, StoreError> {
    Ok(blocks_of(conn, &[agent]).await?.remove(&agent).unwrap_or_default())
}

async fn blocks_of(conn: &mut Conn, agents: &[AgentId]) -> Result<HashMap<AgentId, Vec<Block>>, StoreError> {
    let rows = sqlx::query(concat!(
        "SELECT id, agent_id, label, value, details, created_at, updated_at FROM blocks WHERE agent_id",
        in_ids!("$1"),
        " ORDER BY agent_id, place"
    ))
    .bind(list_of_ids(agents.iter().map(|id| id.uuid())))
    .fetch_all(conn)
    .await?;
    let mut blocks: HashMap<AgentId, Vec<Block>> = HashMap::new();
    for row in &rows {
        blocks.entry(id(row, "agent_id")?).or_default().push(read_block(row)?);
    }
    Ok(blocks)
}

/// Adds to a tenant's agents what is not in their own rows.
async fn complete(conn: &mut Conn, tenant: &TenantId, mut agents: Vec<Agent>) -> Result<Vec<Agent>, StoreError> {
    if agents.is_empty() {
        return Ok(agents);
    }
    let ids: Vec<AgentId> = agents.iter().map(|agent| agent.id).collect();
    let mut blocks = blocks_of(conn, &ids).await?;
    let rows = sqlx::query(concat!(
        "SELECT agent_id, id FROM messages WHERE in_context AND thread_id",
        in_ids!("$1"),
        " ORDER BY agent_id, position"
    ))
    .bind(list_of_ids(ids.iter().map(|id| id.uuid())))
    .fetch_all(&mut *conn)
    .await?;
    let mut messages: HashMap<AgentId, Vec<MessageId>> = HashMap::new();
    for row in &rows {
        messages.entry(id(row, "agent_id")?).or_default().push(id(row, "id")?);
    }
    for agent in &mut agents {
        agent.blocks = blocks.remove(&agent.id).unwrap_or_default();
        agent.message_ids = messages.remove(&agent.id).unwrap_or_default();
    }
    tools::attach(conn, tenant, &mut agents).await?;
    let mut pending = approvals::pending_of(conn, ids.iter().map(|id| id.uuid())).await?;
    for agent in &mut agents {
        agent.pending_approval = pending.remove(&agent.id.uuid());
    }
    Ok(agents)
}

/// An agent as its row has it, without what [`complete`] adds.
pub(super) fn read(row: &Row) -> Result<Agent, StoreError> {
    let stop_reason = row.try_get::<Option<&str>, _>("last_stop_reason")?;
    let completion = row.try_get::<Option<i64>, _>("last_run_completion")?;
    Ok(Agent {
        id: AgentId::from_uuid(row.try_get::<Uuid, _>("id")?),
        name: row.try_get("name")?,
        settings: document(row, "settings")?,
        blocks: Vec::new(),
        tools: Vec::new(),
        message_ids: Vec::new(),
        pending_approval: None,
        last_stop_reason: stop_reason.map(|word| values::word(word, StopReason::parse)).transpose()?,
        last_run_completion: completion.map(values::moment).transpose()?,
        last_run_duration_ms: row.try_get("last_run_duration_ms")?,
        created_at: moment(row, "created_at")?,
        updated_at: moment(row, "updated_at")?,
    })
}

fn read_block(row: &Row) -> Result<Block, StoreError> {
    Ok(Block {
        id: id(row, "id")?,
        label: row.try_get("label")?,
        value: row.try_get("value")?,
        details: document(row, "details")?,
        created_at: moment(row, "created_at")?,
        updated_at: moment(row, "updated_at")?,
    })
}
