//! Memory blocks, and what agents have of them.
//!
//! Order of locks: agents, lowest id first, then blocks, lowest id first. Whoever changes a block holds every agent that
//! has it, so that holding an agent is enough to know its memory; whoever attaches a block holds the block as well, so
//! that holding a block is enough to know its agents.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use sqlx::Row as _;

use super::page::{self, Keys, Place};
use super::{
    Adapter, Builder, Conn, FIND, IN_TEXTS, Row, agents, document, id, list_of_ids, list_of_numbers, list_of_texts,
    moment,
};
use crate::domain::Timestamp;
use crate::domain::agent::{Agent, AgentSettings};
use crate::domain::block::{Block, BlockChange, BlockWriteError, double_label};
use crate::domain::ids::{AgentId, BlockId, Id as _};
use crate::domain::page::Page;
use crate::domain::tenant::TenantId;
use crate::ports::store::{BlockChanged, BlockFilter, BlockName, StoreError};
use crate::store::values::{self, folded, micros, plain, unsigned};

/// The order of a list.
const CREATION: Keys = Keys { column: "created_at", has_ties: true };
/// Rows of one INSERT, so that it stays within the databases' limits on bound values.
const ROWS_PER_INSERT: usize = 500;

/// The columns that [`read`] wants.
macro_rules! block_columns {
    () => {
        "blocks.id, blocks.label, blocks.value, blocks.details, blocks.created_at, blocks.updated_at"
    };
}

/// Agents whose rows this transaction holds.
pub(super) type HeldAgents = BTreeMap<AgentId, AgentSettings>;

fn read(row: &Row) -> Result<Block, StoreError> {
    Ok(Block {
        id: id(row, "id")?,
        label: row.try_get("label")?,
        value: row.try_get("value")?,
        details: document(row, "details")?,
        created_at: moment(row, "created_at")?,
        updated_at: moment(row, "updated_at")?,
    })
}

pub(super) async fn create(store: &Adapter, tenant: &TenantId, block: &Block) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    insert(&mut tx, tenant, block).await?;
    tx.commit().await?;
    Ok(())
}

pub(super) async fn insert(conn: &mut Conn, tenant: &TenantId, block: &Block) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO blocks (id, label, label_folded, value, value_folded, description_folded, is_template, \
         template_name, project_id, details, updated_at, tenant, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    )
    .bind(block.id.uuid())
    .bind(plain(&block.label))
    .bind(folded(&block.label))
    .bind(plain(&block.value))
    .bind(folded(&block.value))
    .bind(block.details.description.as_deref().map(folded))
    .bind(block.details.is_template)
    .bind(block.details.template_name.as_deref().map(plain))
    .bind(block.details.project_id.as_deref().map(plain))
    .bind(values::document(&block.details)?)
    .bind(micros(block.updated_at))
    .bind(tenant.as_str())
    .bind(micros(block.created_at))
    .execute(&mut *conn)
    .await?;
    insert_tags(conn, block).await
}

/// Writes a block that is there. The caller holds it and its agents.
pub(super) async fn write(conn: &mut Conn, block: &Block, now: Timestamp) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE blocks SET label = $2, label_folded = $3, value = $4, value_folded = $5, description_folded = $6, \
         is_template = $7, template_name = $8, project_id = $9, details = $10, updated_at = $11 WHERE id = $1",
    )
    .bind(block.id.uuid())
    .bind(plain(&block.label))
    .bind(folded(&block.label))
    .bind(plain(&block.value))
    .bind(folded(&block.value))
    .bind(block.details.description.as_deref().map(folded))
    .bind(block.details.is_template)
    .bind(block.details.template_name.as_deref().map(plain))
    .bind(block.details.project_id.as_deref().map(plain))
    .bind(values::document(&block.details)?)
    .bind(micros(now))
    .execute(&mut *conn)
    .await?;
    relabel(conn, block.id, &block.label).await?;
    sqlx::query("DELETE FROM block_tags WHERE block_id = $1").bind(block.id.uuid()).execute(&mut *conn).await?;
    insert_tags(conn, block).await
}

/// Says the label that a block has in all its agents.
pub(super) async fn relabel(conn: &mut Conn, block: BlockId, label: &str) -> Result<(), StoreError> {
    sqlx::query("UPDATE agent_blocks SET label = $2 WHERE block_id = $1 AND label <> $2")
        .bind(block.uuid())
        .bind(plain(label))
        .execute(conn)
        .await?;
    Ok(())
}

async fn insert_tags(conn: &mut Conn, block: &Block) -> Result<(), StoreError> {
    for tags in block.details.tags.chunks(ROWS_PER_INSERT) {
        let mut builder = Builder::new("INSERT INTO block_tags (block_id, tag) ");
        builder.push_values(tags, |mut row, tag| {
            row.push_bind(block.id.uuid()).push_bind(plain(tag).into_owned());
        });
        builder.build().execute(&mut *conn).await?;
    }
    Ok(())
}

pub(super) async fn get(store: &Adapter, tenant: &TenantId, id: BlockId) -> Result<Option<Block>, StoreError> {
    let mut conn = store.reader().acquire().await?;
    get_in(&mut conn, tenant, id).await
}

async fn get_in(conn: &mut Conn, tenant: &TenantId, id: BlockId) -> Result<Option<Block>, StoreError> {
    let row = sqlx::query(concat!("SELECT ", block_columns!(), " FROM blocks WHERE id = $1 AND tenant = $2"))
        .bind(id.uuid())
        .bind(tenant.as_str())
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(read).transpose()
}

/// The beginning of a query for what a filter wants of a tenant's blocks.
fn matching(columns: &'static str, tenant: &TenantId, filter: &BlockFilter) -> Builder {
    const AGENTS: &str = " AND (SELECT count(*) FROM agent_blocks WHERE block_id = blocks.id)";
    let mut builder = Builder::new("SELECT ");
    builder.push(columns).push(" FROM blocks WHERE tenant = ").push_bind(tenant.as_str().to_owned());
    for (column, wanted) in
        [("label", &filter.label), ("template_name", &filter.template_name), ("project_id", &filter.project_id)]
    {
        if let Some(text) = wanted {
            builder.push(" AND ").push(column).push(" = ").push_bind(plain(text).into_owned());
        }
    }
    for (column, wanted) in [
        ("label_folded", &filter.label_search),
        ("value_folded", &filter.value_search),
        ("description_folded", &filter.description_search),
    ] {
        if let Some(text) = wanted {
            builder.push(" AND ").push(FIND).push("(").push(column).push(", ").push_bind(folded(text)).push(") > 0");
        }
    }
    if filter.templates_only {
        builder.push(" AND is_template");
    }
    push_tags(&mut builder, "block_tags WHERE block_id = blocks.id", &filter.tags, filter.match_all_tags);
    if let Some(number) = filter.agents_above {
        builder.push(AGENTS).push(" > ").push_bind(number);
    }
    if let Some(number) = filter.agents_below {
        builder.push(AGENTS).push(" < ").push_bind(number);
    }
    if !filter.agents_exactly.is_empty() {
        let [before, after] = super::IN_NUMBERS;
        builder.push(AGENTS).push(before).push_bind(list_of_numbers(&filter.agents_exactly)).push(after);
    }
    builder
}

/// Wants any of these tags, or all. `rows` are the rows of a table that has the tags of what is listed.
pub(super) fn push_tags(builder: &mut Builder, rows: &'static str, tags: &[String], match_all: bool) {
    let tags: Vec<String> = tags.iter().collect::<BTreeSet<_>>().into_iter().cloned().collect();
    if tags.is_empty() {
        return;
    }
    let least = if match_all { values::count(tags.len()) } else { 1 };
    builder.push(" AND (SELECT count(DISTINCT tag) FROM ").push(rows).push(" AND tag").push(IN_TEXTS[0]);
    builder.push_bind(list_of_texts(&tags)).push(IN_TEXTS[1]).push(") >= ").push_bind(least);
}

pub(super) async fn list(
    store: &Adapter,
    tenant: &TenantId,
    filter: &BlockFilter,
    page: &Page<BlockId>,
) -> Result<Vec<Block>, StoreError> {
    let mut conn = store.reader().acquire().await?;
    let after = place(&mut conn, tenant, page.after).await?;
    let before = place(&mut conn, tenant, page.before).await?;
    let mut builder = matching(block_columns!(), tenant, filter);
    let direction = page::push(&mut builder, CREATION, page, after, before);
    let rows = builder.build().fetch_all(&mut *conn).await?;
    Ok(direction.restore(rows.iter().map(read).collect::<Result<_, _>>()?))
}

async fn place(conn: &mut Conn, tenant: &TenantId, cursor: Option<BlockId>) -> Result<Option<Place>, StoreError> {
    let Some(cursor) = cursor else { return Ok(None) };
    let key = sqlx::query_scalar("SELECT created_at FROM blocks WHERE id = $1 AND tenant = $2")
        .bind(cursor.uuid())
        .bind(tenant.as_str())
        .fetch_optional(conn)
        .await?
        .ok_or(StoreError::UnknownCursor)?;
    Ok(Some(Place { key, tie: Some(cursor.uuid()) }))
}

pub(super) async fn count(store: &Adapter, tenant: &TenantId, filter: &BlockFilter) -> Result<u64, StoreError> {
    unsigned(matching("count(*)", tenant, filter).build_query_scalar().fetch_one(store.reader()).await?)
}

/// An agent's blocks, in the order of attachment.
pub(super) async fn of_agent(conn: &mut Conn, agent: AgentId) -> Result<Vec<Block>, StoreError> {
    Ok(of_agents(conn, [agent]).await?.remove(&agent).unwrap_or_default())
}

pub(super) async fn of_agents(
    conn: &mut Conn,
    agents: impl IntoIterator<Item = AgentId>,
) -> Result<HashMap<AgentId, Vec<Block>>, StoreError> {
    let rows = sqlx::query(concat!(
        "SELECT agent_blocks.agent_id, ",
        block_columns!(),
        " FROM agent_blocks JOIN blocks ON blocks.id = agent_blocks.block_id WHERE agent_blocks.agent_id",
        in_ids!("$1"),
        " ORDER BY agent_blocks.agent_id, agent_blocks.place"
    ))
    .bind(list_of_ids(agents.into_iter().map(|id| id.uuid())))
    .fetch_all(conn)
    .await?;
    let mut blocks: HashMap<AgentId, Vec<Block>> = HashMap::new();
    for row in &rows {
        blocks.entry(id(row, "agent_id")?).or_default().push(read(row)?);
    }
    Ok(blocks)
}

/// Holds blocks, all agents that have one of them, and one more agent if it is not deleted. `None`: somebody attached a
/// block to an agent that is not held, which cannot be held now without breaking the order; end the transaction and
/// begin again. Each time that happens somebody else has got on.
pub(super) async fn hold(
    conn: &mut Conn,
    blocks: &BTreeSet<BlockId>,
    also: Option<AgentId>,
) -> Result<Option<HeldAgents>, StoreError> {
    let mut wanted = attached(conn, blocks).await?;
    wanted.extend(also);
    let rows = sqlx::query(concat!(
        "SELECT id, settings FROM agents WHERE deleted_at IS NULL AND id",
        in_ids!("$1"),
        " ORDER BY id",
        for_update!()
    ))
    .bind(list_of_ids(wanted.iter().map(|id| id.uuid())))
    .fetch_all(&mut *conn)
    .await?;
    let held: HeldAgents =
        rows.iter().map(|row| Ok((id(row, "id")?, document(row, "settings")?))).collect::<Result<_, StoreError>>()?;
    lock(conn, blocks).await?;
    let agents = attached(conn, blocks).await?;
    Ok(agents.iter().all(|agent| held.contains_key(agent)).then_some(held))
}

async fn lock(conn: &mut Conn, blocks: &BTreeSet<BlockId>) -> Result<(), StoreError> {
    sqlx::query(concat!("SELECT id FROM blocks WHERE id", in_ids!("$1"), " ORDER BY id", for_update!()))
        .bind(list_of_ids(blocks.iter().map(|id| id.uuid())))
        .fetch_all(conn)
        .await?;
    Ok(())
}

/// The agents that have one of these blocks.
async fn attached(conn: &mut Conn, blocks: &BTreeSet<BlockId>) -> Result<BTreeSet<AgentId>, StoreError> {
    let rows = sqlx::query(concat!("SELECT DISTINCT agent_id FROM agent_blocks WHERE block_id", in_ids!("$1")))
        .bind(list_of_ids(blocks.iter().map(|id| id.uuid())))
        .fetch_all(conn)
        .await?;
    rows.iter().map(|row| id(row, "agent_id")).collect()
}

/// Compiles the system messages of agents anew, which count as changed.
pub(super) async fn recompile(conn: &mut Conn, agents: &HeldAgents, now: Timestamp) -> Result<(), StoreError> {
    let mut memories = of_agents(conn, agents.keys().copied()).await?;
    for (agent, settings) in agents {
        let memory = memories.remove(agent).unwrap_or_default();
        agents::recompile(conn, *agent, settings, &memory, now).await?;
    }
    touch(conn, agents, now).await
}

async fn touch(conn: &mut Conn, agents: &HeldAgents, now: Timestamp) -> Result<(), StoreError> {
    sqlx::query(concat!("UPDATE agents SET updated_at = $2 WHERE id", in_ids!("$1")))
        .bind(list_of_ids(agents.keys().map(|id| id.uuid())))
        .bind(micros(now))
        .execute(conn)
        .await?;
    Ok(())
}

pub(super) async fn change(
    store: &Adapter,
    tenant: &TenantId,
    name: BlockName<'_>,
    change: &BlockChange,
    now: Timestamp,
) -> Result<BlockChanged, StoreError> {
    loop {
        let mut tx = store.begin().await?;
        let meant = match find(&mut tx, tenant, name).await? {
            BlockChanged::Changed(block) => BTreeSet::from([block.id]),
            missing => return Ok(missing),
        };
        let Some(agents) = hold(&mut tx, &meant, None).await? else { continue };
        let before = match find(&mut tx, tenant, name).await? {
            // The label has become another block's.
            BlockChanged::Changed(block) if !meant.contains(&block.id) => continue,
            BlockChanged::Changed(block) => block,
            missing => return Ok(missing),
        };
        let neighbours: Vec<Block> =
            of_agents(&mut tx, agents.keys().copied()).await?.into_values().flatten().collect();
        let after = match change.apply(&before, &neighbours, now) {
            Ok(after) => after,
            Err(why) => return Ok(BlockChanged::Refused(why)),
        };
        write(&mut tx, &after, now).await?;
        if after.reads_like(&before) {
            touch(&mut tx, &agents, now).await?;
        } else {
            recompile(&mut tx, &agents, now).await?;
        }
        tx.commit().await?;
        return Ok(BlockChanged::Changed(after));
    }
}

/// The block that a client names.
async fn find(conn: &mut Conn, tenant: &TenantId, name: BlockName<'_>) -> Result<BlockChanged, StoreError> {
    let found = match name {
        BlockName::Id(id) => get_in(conn, tenant, id).await?,
        BlockName::Label(agent, label) => {
            if !agents::is_known(conn, tenant, agent).await? {
                return Ok(BlockChanged::NoAgent);
            }
            of_agent(conn, agent).await?.into_iter().find(|block| block.label == label)
        }
    };
    Ok(found.map_or(BlockChanged::NoBlock, BlockChanged::Changed))
}

pub(super) async fn delete(
    store: &Adapter,
    tenant: &TenantId,
    id: BlockId,
    now: Timestamp,
) -> Result<bool, StoreError> {
    loop {
        let mut tx = store.begin().await?;
        if get_in(&mut tx, tenant, id).await?.is_none() {
            return Ok(false);
        }
        let Some(agents) = hold(&mut tx, &BTreeSet::from([id]), None).await? else { continue };
        // What refers to it goes with it.
        let deleted = sqlx::query("DELETE FROM blocks WHERE id = $1 AND tenant = $2")
            .bind(id.uuid())
            .bind(tenant.as_str())
            .execute(&mut *tx)
            .await?;
        recompile(&mut tx, &agents, now).await?;
        tx.commit().await?;
        return Ok(deleted.rows_affected() > 0);
    }
}

pub(super) async fn attach(
    store: &Adapter,
    tenant: &TenantId,
    agent: AgentId,
    block: BlockId,
    now: Timestamp,
) -> Result<BlockChanged<Agent>, StoreError> {
    let mut tx = store.begin().await?;
    let Some(settings) = agents::hold(&mut tx, tenant, agent).await? else { return Ok(BlockChanged::NoAgent) };
    let Some(block) = held(&mut tx, tenant, &[block]).await?.pop() else { return Ok(BlockChanged::NoBlock) };
    let memory = of_agent(&mut tx, agent).await?;
    if memory.iter().all(|attached| attached.id != block.id) {
        if memory.iter().any(|other| other.label == block.label) {
            return Ok(BlockChanged::Refused(BlockWriteError::LabelTaken(block.label)));
        }
        append(&mut tx, agent, &block).await?;
        recompile(&mut tx, &HeldAgents::from([(agent, settings)]), now).await?;
    }
    end(tx, tenant, agent).await
}

pub(super) async fn detach(
    store: &Adapter,
    tenant: &TenantId,
    agent: AgentId,
    block: BlockId,
    now: Timestamp,
) -> Result<BlockChanged<Agent>, StoreError> {
    let mut tx = store.begin().await?;
    let Some(settings) = agents::hold(&mut tx, tenant, agent).await? else { return Ok(BlockChanged::NoAgent) };
    if get_in(&mut tx, tenant, block).await?.is_none() {
        return Ok(BlockChanged::NoBlock);
    }
    if remove(&mut tx, agent, block).await? {
        recompile(&mut tx, &HeldAgents::from([(agent, settings)]), now).await?;
    }
    end(tx, tenant, agent).await
}

async fn end(
    mut tx: sqlx::Transaction<'static, super::Db>,
    tenant: &TenantId,
    agent: AgentId,
) -> Result<BlockChanged<Agent>, StoreError> {
    let agent = agents::get_in(&mut tx, tenant, agent).await?;
    tx.commit().await?;
    Ok(agent.map_or(BlockChanged::NoAgent, BlockChanged::Changed))
}

/// A tenant's blocks of these ids, in their order, held; what does not exist is left out.
async fn held(conn: &mut Conn, tenant: &TenantId, ids: &[BlockId]) -> Result<Vec<Block>, StoreError> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        block_columns!(),
        " FROM blocks WHERE tenant = $1 AND id",
        in_ids!("$2"),
        " ORDER BY id",
        for_update!()
    ))
    .bind(tenant.as_str())
    .bind(list_of_ids(ids.iter().map(|id| id.uuid())))
    .fetch_all(conn)
    .await?;
    let mut found = HashMap::new();
    for row in &rows {
        let block = read(row)?;
        found.insert(block.id, block);
    }
    Ok(ids.iter().filter_map(|id| found.remove(id)).collect())
}

/// Attaches a block that is held, or new, behind those that the agent has.
pub(super) async fn append(conn: &mut Conn, agent: AgentId, block: &Block) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO agent_blocks (agent_id, block_id, label, place) \
         SELECT $1, $2, $3, coalesce(max(place), -1) + 1 FROM agent_blocks WHERE agent_id = $1",
    )
    .bind(agent.uuid())
    .bind(block.id.uuid())
    .bind(plain(&block.label))
    .execute(conn)
    .await?;
    Ok(())
}

/// Detaches a block from an agent that is held. Whether it was attached.
pub(super) async fn remove(conn: &mut Conn, agent: AgentId, block: BlockId) -> Result<bool, StoreError> {
    let removed = sqlx::query("DELETE FROM agent_blocks WHERE agent_id = $1 AND block_id = $2")
        .bind(agent.uuid())
        .bind(block.uuid())
        .execute(conn)
        .await?;
    Ok(removed.rows_affected() > 0)
}

/// Deletes a block that is held, unless an agent has it.
pub(super) async fn delete_unless_attached(conn: &mut Conn, block: BlockId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM blocks WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM agent_blocks WHERE block_id = $1)")
        .bind(block.uuid())
        .execute(conn)
        .await?;
    Ok(())
}

/// Detaches everything from an agent that is held.
pub(super) async fn remove_all(conn: &mut Conn, agent: AgentId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM agent_blocks WHERE agent_id = $1").bind(agent.uuid()).execute(conn).await?;
    Ok(())
}

/// Makes these blocks, in their order, those of an agent that is held or new, and says them. The system message is the
/// caller's affair.
pub(super) async fn replace(
    conn: &mut Conn,
    tenant: &TenantId,
    agent: AgentId,
    ids: &[BlockId],
) -> Result<Vec<Block>, StoreError> {
    let mut seen = HashSet::new();
    let ids: Vec<BlockId> = ids.iter().copied().filter(|id| seen.insert(*id)).collect();
    let blocks = held(conn, tenant, &ids).await?;
    if blocks.len() < ids.len() {
        let is_missing = |id: &BlockId| blocks.iter().all(|block| block.id != *id);
        return Err(StoreError::UnknownBlocks(ids.into_iter().filter(is_missing).collect()));
    }
    if let Some(label) = double_label(&blocks) {
        return Err(StoreError::LabelTwice(label.to_owned()));
    }
    remove_all(conn, agent).await?;
    for block in &blocks {
        append(conn, agent, block).await?;
    }
    Ok(blocks)
}
