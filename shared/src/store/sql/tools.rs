//! Tools: those of the tenants, and those that the operator gives to everyone. Built-in ones have no rows; they are added
//! here, so that callers need not know where a tool comes from.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};

use sqlx::Row as _;
use uuid::Uuid;

use super::page::{self, Direction, Keys, Place};
use super::{
    Adapter, Builder, Conn, FIND, IN_IDS, IN_TEXTS, Row, agents, document, id, list_of_ids, list_of_texts, moment,
};
use crate::domain::Timestamp;
use crate::domain::agent::Agent;
use crate::domain::builtin_tools;
use crate::domain::ids::{AgentId, Id as _, ToolId};
use crate::domain::page::{Order, Page};
use crate::domain::tenant::TenantId;
use crate::domain::tool::{Tool, ToolSpec};
use crate::ports::store::{StoreError, ToolFilter};
use crate::store::values::{self, micros, plain, unsigned};

/// The order of a list.
const CREATION: Keys = Keys { column: "created_at", has_ties: true };

/// The second half of [`visible`], for queries that are put together at run time.
macro_rules! or_the_operators {
    () => {
        " OR (tenant IS NULL AND NOT EXISTS \
         (SELECT 1 FROM tools AS own WHERE own.tenant = $1 AND own.name = tools.name)))"
    };
}

/// Whether the tenant, bound as the first value, sees a row: its own tools, and the operator's whose names it does not
/// use itself.
macro_rules! visible {
    () => {
        concat!("(tenant = $1", or_the_operators!())
    };
}

pub(super) async fn put(store: &Adapter, tenant: Option<&TenantId>, tool: &Tool) -> Result<Tool, StoreError> {
    let row = sqlx::query(concat!(
        "INSERT INTO tools (id, tenant, name, description, parameters, source, tool_type, options, created_at, \
         updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
         ON CONFLICT (coalesce(tenant, ''), name) DO UPDATE SET description = excluded.description, \
         parameters = excluded.parameters, source = excluded.source, tool_type = excluded.tool_type, \
         options = excluded.options, updated_at = excluded.updated_at RETURNING ",
        tool_columns!()
    ))
    .bind(tool.id.uuid())
    .bind(tenant.map(TenantId::as_str))
    .bind(plain(&tool.spec.name))
    .bind(plain(&tool.spec.description))
    .bind(values::document(&tool.spec.parameters)?)
    .bind(values::document(&tool.source)?)
    .bind(tool.source.tool_type())
    .bind(values::document(&tool.options)?)
    .bind(micros(tool.created_at))
    .bind(micros(tool.updated_at))
    .fetch_one(store.writer())
    .await?;
    read(&row)
}

pub(super) async fn get(store: &Adapter, tenant: &TenantId, id: ToolId) -> Result<Option<Tool>, StoreError> {
    if let Some(tool) = builtin_tools::by_id(id) {
        return Ok(Some(tool.clone()));
    }
    let row = sqlx::query(concat!("SELECT ", tool_columns!(), " FROM tools WHERE id = $2 AND ", visible!()))
        .bind(tenant.as_str())
        .bind(id.uuid())
        .fetch_optional(store.reader())
        .await?;
    row.as_ref().map(read).transpose()
}

/// What names mean to a tenant.
pub(super) struct Meanings(HashMap<String, Tool>);

impl Meanings {
    /// The tools of these names, in their order. A built-in tool is what its name says, whoever else uses it.
    pub(super) fn of(&self, names: &[String]) -> Vec<Tool> {
        names.iter().filter_map(|name| builtin_tools::by_name(name).or_else(|| self.0.get(name))).cloned().collect()
    }
}

/// What those of these names mean that are not built in.
pub(super) async fn meanings(conn: &mut Conn, tenant: &TenantId, names: &[String]) -> Result<Meanings, StoreError> {
    let names: Vec<String> = names.iter().filter(|name| builtin_tools::by_name(name).is_none()).cloned().collect();
    if names.is_empty() {
        return Ok(Meanings(HashMap::new()));
    }
    let mut builder = matching(tool_columns!(), tenant, &ToolFilter { names, ..ToolFilter::default() });
    let rows = builder.build().fetch_all(conn).await?;
    let tools = rows.iter().map(|row| read(row).map(|tool| (tool.spec.name.clone(), tool)));
    tools.collect::<Result<_, _>>().map(Meanings)
}

/// Fills in the tools of a tenant's agents.
pub(super) async fn attach(conn: &mut Conn, tenant: &TenantId, agents: &mut [Agent]) -> Result<(), StoreError> {
    let names: BTreeSet<&String> = agents.iter().flat_map(|agent| &agent.settings.tools).collect();
    let names: Vec<String> = names.into_iter().cloned().collect();
    let meanings = meanings(conn, tenant, &names).await?;
    for agent in agents {
        agent.tools = meanings.of(&agent.settings.tools);
    }
    Ok(())
}

/// The beginning of a query for what a filter wants of the rows that a tenant sees.
fn matching(columns: &'static str, tenant: &TenantId, filter: &ToolFilter) -> Builder {
    let mut builder = Builder::new("SELECT ");
    builder.push(columns).push(" FROM tools WHERE (tenant = ");
    builder.push_bind(tenant.as_str().to_owned()).push(or_the_operators!());
    if let Some(name) = &filter.name {
        builder.push(" AND name = ").push_bind(plain(name).into_owned());
    }
    if !filter.names.is_empty() {
        builder.push(" AND name").push(IN_TEXTS[0]).push_bind(list_of_texts(&filter.names)).push(IN_TEXTS[1]);
    }
    if !filter.ids.is_empty() {
        let ids = list_of_ids(filter.ids.iter().map(|id| id.uuid()));
        builder.push(" AND id").push(IN_IDS[0]).push_bind(ids).push(IN_IDS[1]);
    }
    if let Some(text) = &filter.search {
        builder.push(" AND ").push(FIND).push("(lower(name), ").push_bind(values::folded(text)).push(") > 0");
    }
    if let Some(types) = &filter.tool_types {
        builder.push(" AND tool_type").push(IN_TEXTS[0]).push_bind(list_of_texts(types)).push(IN_TEXTS[1]);
    }
    builder
}

pub(super) async fn list(
    store: &Adapter,
    tenant: &TenantId,
    filter: &ToolFilter,
    page: &Page<ToolId>,
) -> Result<Vec<Tool>, StoreError> {
    let mut conn = store.reader().acquire().await?;
    let after = place(&mut conn, tenant, page.after).await?;
    let before = place(&mut conn, tenant, page.before).await?;
    let mut builder = matching(tool_columns!(), tenant, filter);
    let direction = page::push(&mut builder, CREATION, page, after, before);
    let rows = builder.build().fetch_all(&mut *conn).await?;
    let mut found = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    found.extend(builtin_tools::all().iter().filter(|tool| filter.wants(tool)).cloned());

    // The rows are within the bounds already; what is nearest to the cursor among them and the built-in ones together is
    // what is wanted.
    let in_order = |one: &(i64, Uuid), other: &(i64, Uuid)| match page.order {
        Order::Ascending => one.cmp(other),
        Order::Descending => other.cmp(one),
    };
    let key = |place: Place| (place.key, place.tie.unwrap_or_default());
    let is_beyond = |tool: &Tool, bound: Option<Place>, side: Ordering| {
        bound.is_none_or(|bound| in_order(&position(tool), &key(bound)) == side)
    };
    found.retain(|tool| is_beyond(tool, after, Ordering::Greater) && is_beyond(tool, before, Ordering::Less));
    found.sort_by(|one, other| in_order(&position(one), &position(other)));
    let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
    let surplus = found.len().saturating_sub(limit);
    if direction == Direction::Backwards {
        found.drain(..surplus);
    }
    found.truncate(limit);
    Ok(found)
}

/// Where a tool stands in the order of its list.
fn position(tool: &Tool) -> (i64, Uuid) {
    (micros(tool.created_at), tool.id.uuid())
}

async fn place(conn: &mut Conn, tenant: &TenantId, cursor: Option<ToolId>) -> Result<Option<Place>, StoreError> {
    let Some(cursor) = cursor else { return Ok(None) };
    let key = match builtin_tools::by_id(cursor) {
        Some(tool) => micros(tool.created_at),
        None => sqlx::query_scalar("SELECT created_at FROM tools WHERE id = $1 AND (tenant = $2 OR tenant IS NULL)")
            .bind(cursor.uuid())
            .bind(tenant.as_str())
            .fetch_optional(conn)
            .await?
            .ok_or(StoreError::UnknownCursor)?,
    };
    Ok(Some(Place { key, tie: Some(cursor.uuid()) }))
}

pub(super) async fn count(store: &Adapter, tenant: &TenantId, filter: &ToolFilter) -> Result<u64, StoreError> {
    let stored: i64 = matching("count(*)", tenant, filter).build_query_scalar().fetch_one(store.reader()).await?;
    let built_in = builtin_tools::all().iter().filter(|tool| filter.wants(tool)).count();
    Ok(unsigned::<u64>(stored)? + built_in as u64)
}

pub(super) async fn change(store: &Adapter, tenant: &TenantId, tool: &Tool) -> Result<Option<Tool>, StoreError> {
    let row = sqlx::query(concat!(
        "UPDATE tools SET description = $3, parameters = $4, source = $5, tool_type = $6, options = $7, \
         updated_at = $8 WHERE id = $1 AND tenant = $2 RETURNING ",
        tool_columns!()
    ))
    .bind(tool.id.uuid())
    .bind(tenant.as_str())
    .bind(plain(&tool.spec.description))
    .bind(values::document(&tool.spec.parameters)?)
    .bind(values::document(&tool.source)?)
    .bind(tool.source.tool_type())
    .bind(values::document(&tool.options)?)
    .bind(micros(tool.updated_at))
    .fetch_optional(store.writer())
    .await?;
    row.as_ref().map(read).transpose()
}

pub(super) async fn delete(store: &Adapter, tenant: &TenantId, id: ToolId, now: Timestamp) -> Result<bool, StoreError> {
    let mut tx = store.begin().await?;
    let name: Option<String> = sqlx::query_scalar("DELETE FROM tools WHERE id = $1 AND tenant = $2 RETURNING name")
        .bind(id.uuid())
        .bind(tenant.as_str())
        .fetch_optional(&mut *tx)
        .await?;
    let Some(name) = name else { return Ok(false) };
    for agent in agents_that_name(&mut tx, tenant, &name).await? {
        agents::edit_settings(&mut tx, agent, now, &|settings| {
            let mut after = settings.clone();
            after.forget_tool(&name);
            after
        })
        .await?;
    }
    tx.commit().await?;
    Ok(true)
}

/// The tenant's agents whose settings may name a tool. They are locked one after the other in the order of their ids, as
/// everybody does who locks several.
async fn agents_that_name(conn: &mut Conn, tenant: &TenantId, name: &str) -> Result<Vec<AgentId>, StoreError> {
    let mut builder = Builder::new("SELECT id FROM agents WHERE deleted_at IS NULL AND tenant = ");
    // A name has no characters that JSON would write in another way, so in the document it stands as it is.
    builder.push_bind(tenant.as_str().to_owned()).push(" AND ").push(FIND).push("(settings, ");
    builder.push_bind(format!("\"{name}\"")).push(") > 0 ORDER BY id");
    let rows = builder.build().fetch_all(conn).await?;
    rows.iter().map(|row| id(row, "id")).collect()
}

/// A tool as its row has it.
pub(super) fn read(row: &Row) -> Result<Tool, StoreError> {
    Ok(Tool {
        id: id(row, "id")?,
        spec: ToolSpec {
            name: row.try_get("name")?,
            description: row.try_get("description")?,
            parameters: document(row, "parameters")?,
        },
        source: document(row, "source")?,
        options: document(row, "options")?,
        created_at: moment(row, "created_at")?,
        updated_at: moment(row, "updated_at")?,
    })
}
