//! Agents with their tags.

use std::collections::HashMap;

use sqlx::Row as _;
use uuid::Uuid;

use super::page::{self, Keys, Place};
use super::{Adapter, Builder, Conn, FIND, Row, approvals, blocks, document, id, list_of_ids, messages, moment, tools};
use crate::domain::Timestamp;
use crate::domain::agent::{Agent, AgentSettings};
use crate::domain::block::{Block, double_label};
use crate::domain::ids::{AgentId, BlockId, Id as _, MessageId};
use crate::domain::message::{Body, Content, Message};
use crate::domain::page::{Order, Page};
use crate::domain::prompt::{self, PromptFacts};
use crate::domain::stop_reason::StopReason;
use crate::domain::tenant::TenantId;
use crate::domain::thread::Thread;
use crate::ports::store::{AgentChange, AgentFilter, AgentOrder, SettingsEdit, StoreError};
use crate::store::values::{self, folded, micros, plain};

pub(super) async fn create(
    store: &Adapter,
    tenant: &TenantId,
    agent: &Agent,
    attached: &[BlockId],
    messages: &[Message],
) -> Result<Agent, StoreError> {
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
    insert_references(&mut tx, agent.id, &agent.settings).await?;
    let mut memory = blocks::replace(&mut tx, tenant, agent.id, attached).await?;
    memory.extend(agent.blocks.iter().cloned());
    if let Some(label) = double_label(&memory) {
        return Err(StoreError::LabelTwice(label.to_owned()));
    }
    for block in &agent.blocks {
        blocks::insert(&mut tx, tenant, block).await?;
        blocks::append(&mut tx, agent.id, block).await?;
    }
    if let Some((system, others)) = messages.split_first() {
        let thread = Thread::own(agent.id);
        messages::insert_thread(&mut tx, thread, system).await?;
        messages::append(&mut tx, thread, others).await?;
    }
    if !attached.is_empty() {
        recompile(&mut tx, agent.id, &agent.settings, &memory, agent.created_at).await?;
    }
    let stored = get_in(&mut tx, tenant, agent.id).await?;
    tx.commit().await?;
    stored.ok_or_else(|| StoreError::Corrupt(format!("{} is not there", agent.id)))
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

async fn insert_references(conn: &mut Conn, agent: AgentId, settings: &AgentSettings) -> Result<(), StoreError> {
    for (kind, value) in settings.references() {
        sqlx::query("INSERT INTO agent_references (agent_id, kind, value) VALUES ($1, $2, $3)")
            .bind(agent.uuid())
            .bind(kind.setting())
            .bind(plain(value))
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

pub(super) async fn get(store: &Adapter, tenant: &TenantId, id: AgentId) -> Result<Option<Agent>, StoreError> {
    let mut conn = store.reader().acquire().await?;
    get_in(&mut conn, tenant, id).await
}

pub(super) async fn get_in(conn: &mut Conn, tenant: &TenantId, id: AgentId) -> Result<Option<Agent>, StoreError> {
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
    let keys = Keys { column: order_column(filter.order_by), has_ties: true };
    let after = place(&mut conn, tenant, keys, page.after).await?;
    let before = place(&mut conn, tenant, keys, page.before).await?;
    let mut builder = matching(agent_columns!(), tenant, filter);
    let direction = page::push(&mut builder, keys, page, after, before);
    let rows = builder.build().fetch_all(&mut *conn).await?;
    let found = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    complete(&mut conn, tenant, direction.restore(found)).await
}

pub(super) async fn count(store: &Adapter, tenant: &TenantId, filter: &AgentFilter) -> Result<u64, StoreError> {
    values::unsigned(matching("count(*)", tenant, filter).build_query_scalar().fetch_one(store.reader()).await?)
}

/// The beginning of a query for what a filter wants of a tenant's agents.
fn matching(columns: &'static str, tenant: &TenantId, filter: &AgentFilter) -> Builder {
    let mut builder = Builder::new("SELECT ");
    builder.push(columns).push(" FROM agents WHERE deleted_at IS NULL AND tenant = ");
    builder.push_bind(tenant.as_str().to_owned());
    if let Some(name) = &filter.name {
        builder.push(" AND name = ").push_bind(plain(name).into_owned());
    }
    if let Some(text) = &filter.query_text {
        builder.push(" AND ").push(FIND).push("(name_folded, ").push_bind(folded(text)).push(") > 0");
    }
    blocks::push_tags(&mut builder, "agent_tags WHERE agent_id = agents.id", &filter.tags, filter.match_all_tags);
    if let Some(block) = filter.block {
        builder.push(" AND EXISTS (SELECT 1 FROM agent_blocks WHERE agent_id = agents.id AND block_id = ");
        builder.push_bind(block.uuid()).push(")");
    }
    if let Some(reason) = filter.last_stop_reason {
        builder.push(" AND last_stop_reason = ").push_bind(reason.as_str());
    }
    for (kind, value) in &filter.references {
        builder.push(" AND EXISTS (SELECT 1 FROM agent_references WHERE agent_id = agents.id AND kind = ");
        builder.push_bind(kind.setting()).push(" AND value = ").push_bind(plain(value).into_owned()).push(")");
    }
    builder
}

const fn order_column(order: AgentOrder) -> &'static str {
    match order {
        AgentOrder::Creation => "created_at",
        AgentOrder::Change => "updated_at",
        AgentOrder::Completion => "coalesce(last_run_completion, 0)",
    }
}

/// The tags of a tenant's agents. The cursors are bounds: a tag that no agent has any more still has its place.
pub(super) async fn tags(
    store: &Adapter,
    tenant: &TenantId,
    text: Option<&str>,
    page: &Page<String>,
) -> Result<Vec<String>, StoreError> {
    const TAG: &str = concat!("tag", bytewise!());
    let mut builder = Builder::new(
        "SELECT tag FROM (SELECT DISTINCT tag FROM agent_tags JOIN agents ON agents.id = agent_tags.agent_id \
         WHERE agents.deleted_at IS NULL AND agents.tenant = ",
    );
    builder.push_bind(tenant.as_str().to_owned()).push(") AS known WHERE TRUE");
    if let Some(text) = text {
        // Beyond ASCII the databases disagree about lower case; as it is written, a text is found in both.
        builder.push(" AND (").push(FIND).push("(tag, ").push_bind(plain(text).into_owned()).push(") > 0 OR ");
        builder.push(FIND).push("(lower(tag), ").push_bind(folded(text)).push(") > 0)");
    }
    let (later, earlier) = match page.order {
        Order::Ascending => (" > ", " < "),
        Order::Descending => (" < ", " > "),
    };
    for (comparison, bound) in [(later, &page.after), (earlier, &page.before)] {
        if let Some(bound) = bound {
            builder.push(" AND ").push(TAG).push(comparison).push_bind(plain(bound).into_owned());
        }
    }
    let is_backwards = page.before.is_some() && page.after.is_none();
    let is_ascending = (page.order == Order::Ascending) != is_backwards;
    builder.push(" ORDER BY ").push(TAG).push(if is_ascending { " ASC" } else { " DESC" });
    builder.push(" LIMIT ").push_bind(i64::from(page.limit));
    let mut tags: Vec<String> = builder.build_query_scalar().fetch_all(store.reader()).await?;
    if is_backwards {
        tags.reverse();
    }
    Ok(tags)
}

/// Where a cursor stands. A deleted agent still has its place: deleting while somebody turns the pages is no error.
async fn place(
    conn: &mut Conn,
    tenant: &TenantId,
    keys: Keys,
    cursor: Option<AgentId>,
) -> Result<Option<Place>, StoreError> {
    let Some(cursor) = cursor else { return Ok(None) };
    let mut builder = Builder::new("SELECT ");
    builder.push(keys.column).push(" FROM agents WHERE id = ").push_bind(cursor.uuid());
    builder.push(" AND tenant = ").push_bind(tenant.as_str().to_owned());
    let key = builder.build_query_scalar().fetch_optional(conn).await?.ok_or(StoreError::UnknownCursor)?;
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
        "UPDATE agents SET updated_at = $3, name = coalesce($4, name), name_folded = coalesce($5, name_folded), \
         last_stop_reason = coalesce($6, last_stop_reason), \
         last_run_completion = coalesce($7, last_run_completion), \
         last_run_duration_ms = coalesce($8, last_run_duration_ms) WHERE id = $1 AND tenant = $2 AND deleted_at IS NULL",
    )
    .bind(id.uuid())
    .bind(tenant.as_str())
    .bind(micros(now))
    .bind(change.name.as_deref().map(plain))
    .bind(change.name.as_deref().map(folded))
    .bind(change.last_run.stop_reason.map(StopReason::as_str))
    .bind(change.last_run.completion.map(micros))
    .bind(change.last_run.duration_ms)
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
    if let Some(wanted) = &change.block_ids
        && !blocks::of_agent(&mut tx, id).await?.iter().map(|block| &block.id).eq(wanted)
    {
        let memory = blocks::replace(&mut tx, tenant, id, wanted).await?;
        let Some(settings) = hold(&mut tx, tenant, id).await? else { return Ok(None) };
        recompile(&mut tx, id, &settings, &memory, now).await?;
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
    sqlx::query("DELETE FROM agent_references WHERE agent_id = $1").bind(id.uuid()).execute(&mut *conn).await?;
    insert_references(conn, id, &after).await?;
    let blocks = blocks::of_agent(conn, id).await?;
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

/// Whether the tenant has an agent of this id.
pub(super) async fn is_known(conn: &mut Conn, tenant: &TenantId, id: AgentId) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT 1 FROM agents WHERE id = $1 AND tenant = $2 AND deleted_at IS NULL")
        .bind(id.uuid())
        .bind(tenant.as_str())
        .fetch_optional(conn)
        .await?;
    Ok(row.is_some())
}

pub(super) async fn delete(
    store: &Adapter,
    tenant: &TenantId,
    id: AgentId,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let mut tx = store.begin().await?;
    let deleted = sqlx::query("UPDATE agents SET deleted_at = $3 WHERE id = $1 AND tenant = $2 AND deleted_at IS NULL")
        .bind(id.uuid())
        .bind(tenant.as_str())
        .bind(micros(now))
        .execute(&mut *tx)
        .await?;
    if deleted.rows_affected() == 0 {
        return Ok(false);
    }
    blocks::remove_all(&mut tx, id).await?;
    tx.commit().await?;
    Ok(true)
}

/// Adds to a tenant's agents what is not in their own rows.
async fn complete(conn: &mut Conn, tenant: &TenantId, mut agents: Vec<Agent>) -> Result<Vec<Agent>, StoreError> {
    if agents.is_empty() {
        return Ok(agents);
    }
    let ids: Vec<AgentId> = agents.iter().map(|agent| agent.id).collect();
    let mut blocks = blocks::of_agents(conn, ids.iter().copied()).await?;
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
