//! Memory blocks, and the core memory of agents, which is made of them (api/04 §3).

use axum::Json;
use axum::extract::State;
use holdfast_shared::domain::agent::Agent;
use holdfast_shared::domain::block::BlockWriteError;
use holdfast_shared::domain::ids::AgentId;
use holdfast_shared::domain::page::Order;
use holdfast_shared::domain::tenant::TenantId;
use holdfast_shared::ports::store::{AgentFilter, BlockChanged, BlockFilter, BlockName};
use holdfast_shared::wire::block::{self, NewBlock};
use serde_json::Value;

use super::agents;
use crate::App;
use crate::error::ApiError;
use crate::extract::{AgentPath, BlockPath, JsonBody, NamePath, QueryFields, Tenant};

const NO_BLOCK: ApiError = ApiError::Unknown("the block");

pub(crate) async fn create(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let services = &app.services;
    let made = NewBlock::parse(&body)?.block(services.seams.id(), services.seams.now());
    services.store.create_block(&tenant, &made).await?;
    Ok(Json(block::object(&made)))
}

pub(crate) async fn list(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    query: QueryFields,
) -> Result<Json<Vec<Value>>, ApiError> {
    query.check_order_by("created_at")?;
    let page = query.page(50, Order::Ascending)?;
    let Some(filter) = filter(&query)? else { return Ok(Json(Vec::new())) };
    let blocks = app.services.store.blocks(&tenant, &filter, &page).await?;
    Ok(Json(blocks.iter().map(block::object).collect()))
}

pub(crate) async fn count(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    query: QueryFields,
) -> Result<Json<u64>, ApiError> {
    let Some(filter) = filter(&query)? else { return Ok(Json(0)) };
    Ok(Json(app.services.store.count_blocks(&tenant, &filter).await?))
}

/// What a query wants of the blocks; `None` if that is nothing: blocks here belong to no identities.
fn filter(query: &QueryFields) -> Result<Option<BlockFilter>, ApiError> {
    let text = |name: &str| query.one(name).map(str::to_owned);
    let filter = BlockFilter {
        label: text("label"),
        label_search: text("label_search"),
        value_search: text("value_search"),
        description_search: text("description_search"),
        template_name: text("name"),
        project_id: text("project_id"),
        templates_only: query.boolean("templates_only")?.unwrap_or(false),
        tags: query.all("tags").map(str::to_owned).collect(),
        match_all_tags: query.boolean("match_all_tags")?.unwrap_or(false),
        agents_above: query.number("connected_to_agents_count_gt")?,
        agents_below: query.number("connected_to_agents_count_lt")?,
        agents_exactly: query.numbers("connected_to_agents_count_eq")?,
    };
    let is_of_nobody = query.one("identity_id").or(query.one("identifier_keys")).is_some();
    Ok((!is_of_nobody).then_some(filter))
}

pub(crate) async fn retrieve(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    BlockPath(id): BlockPath,
) -> Result<Json<Value>, ApiError> {
    let found = app.services.store.block(&tenant, id).await?.ok_or(NO_BLOCK)?;
    Ok(Json(block::object(&found)))
}

pub(crate) async fn update(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    BlockPath(id): BlockPath,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, ApiError> {
    change(&app, &tenant, BlockName::Id(id), &body).await
}

pub(crate) async fn delete(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    BlockPath(id): BlockPath,
) -> Result<Json<Value>, ApiError> {
    if !app.services.store.delete_block(&tenant, id, app.services.seams.now()).await? {
        return Err(NO_BLOCK);
    }
    tracing::info!(block.id = %id, "a block was deleted");
    Ok(Json(Value::Null))
}

pub(crate) async fn list_agents(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    BlockPath(id): BlockPath,
    query: QueryFields,
) -> Result<Json<Vec<Value>>, ApiError> {
    query.check_order_by("created_at")?;
    app.services.store.block(&tenant, id).await?.ok_or(NO_BLOCK)?;
    agents::show_page(&app, &tenant, &AgentFilter { block: Some(id), ..AgentFilter::default() }, &query).await
}

pub(crate) async fn attach(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    AgentPath(agent): AgentPath,
    BlockPath(id): BlockPath,
) -> Result<Json<Value>, ApiError> {
    let attached = app.services.store.attach_block(&tenant, agent, id, app.services.seams.now()).await?;
    agents::show(&app, &changed(attached)?).await
}

pub(crate) async fn detach(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    AgentPath(agent): AgentPath,
    BlockPath(id): BlockPath,
) -> Result<Json<Value>, ApiError> {
    let detached = app.services.store.detach_block(&tenant, agent, id, app.services.seams.now()).await?;
    agents::show(&app, &changed(detached)?).await
}

async fn change(app: &App, tenant: &TenantId, name: BlockName<'_>, body: &Value) -> Result<Json<Value>, ApiError> {
    let wanted = block::parse_change(body)?;
    let outcome = app.services.store.change_block(tenant, name, &wanted, app.services.seams.now()).await?;
    Ok(Json(block::object(&changed(outcome)?)))
}

fn changed<T>(outcome: BlockChanged<T>) -> Result<T, ApiError> {
    match outcome {
        BlockChanged::Changed(changed) => Ok(changed),
        BlockChanged::NoAgent => Err(ApiError::NoAgent),
        BlockChanged::NoBlock => Err(NO_BLOCK),
        BlockChanged::Refused(BlockWriteError::LabelTaken(label)) => Err(ApiError::LabelTaken(label)),
        BlockChanged::Refused(why @ BlockWriteError::TooLong { .. }) => {
            Err(ApiError::Malformed(format!("body.value: {why}")))
        }
    }
}

pub(crate) async fn memory(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    AgentPath(id): AgentPath,
) -> Result<Json<Value>, ApiError> {
    let agent = known_agent(&app, &tenant, id).await?;
    Ok(Json(block::memory(&agent.settings.agent_type, &agent.blocks)))
}

pub(crate) async fn list_attached(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    AgentPath(id): AgentPath,
    query: QueryFields,
) -> Result<Json<Vec<Value>>, ApiError> {
    query.check_order_by("created_at")?;
    let page = query.page(100, Order::Descending)?;
    let mut blocks = known_agent(&app, &tenant, id).await?.blocks;
    // Blocks of the same moment stay in the order of attachment.
    blocks.sort_by_key(|block| block.created_at);
    let shown = page.of(blocks, |block| block.id).ok_or(ApiError::UNKNOWN_CURSOR)?;
    Ok(Json(shown.iter().map(block::object).collect()))
}

pub(crate) async fn retrieve_by_label(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    AgentPath(id): AgentPath,
    NamePath(label): NamePath,
) -> Result<Json<Value>, ApiError> {
    let agent = known_agent(&app, &tenant, id).await?;
    let found = agent.blocks.iter().find(|block| block.label == label).ok_or(NO_BLOCK)?;
    Ok(Json(block::object(found)))
}

pub(crate) async fn update_by_label(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    AgentPath(id): AgentPath,
    NamePath(label): NamePath,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, ApiError> {
    change(&app, &tenant, BlockName::Label(id, &label), &body).await
}

async fn known_agent(app: &App, tenant: &TenantId, id: AgentId) -> Result<Agent, ApiError> {
    app.services.store.agent(tenant, id).await?.ok_or(ApiError::NoAgent)
}
