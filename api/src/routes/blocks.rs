//! The core memory of an agent (api/04 §3).

use axum::Json;
use axum::extract::State;
use holdfast_shared::domain::agent::Agent;
use holdfast_shared::domain::block::BlockWriteError;
use holdfast_shared::domain::ids::AgentId;
use holdfast_shared::domain::page::Order;
use holdfast_shared::domain::tenant::TenantId;
use holdfast_shared::ports::store::BlockChanged;
use holdfast_shared::wire::block;
use serde_json::Value;

use crate::App;
use crate::error::ApiError;
use crate::extract::{AgentPath, JsonBody, NamePath, QueryFields, Tenant};

pub(crate) async fn memory(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    AgentPath(id): AgentPath,
) -> Result<Json<Value>, ApiError> {
    let agent = known_agent(&app, &tenant, id).await?;
    Ok(Json(block::memory(&agent.settings.agent_type, &agent.blocks)))
}

pub(crate) async fn list(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    AgentPath(id): AgentPath,
    query: QueryFields,
) -> Result<Json<Vec<Value>>, ApiError> {
    let page = query.page(100, Order::Descending)?;
    let mut blocks = known_agent(&app, &tenant, id).await?.blocks;
    // Blocks of the same moment stay in the order of attachment.
    blocks.sort_by_key(|block| block.created_at);
    let shown = page.of(blocks, |block| block.id).ok_or(ApiError::UNKNOWN_CURSOR)?;
    Ok(Json(shown.iter().map(block::object).collect()))
}

pub(crate) async fn retrieve(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    AgentPath(id): AgentPath,
    NamePath(label): NamePath,
) -> Result<Json<Value>, ApiError> {
    let agent = known_agent(&app, &tenant, id).await?;
    let found = agent.blocks.iter().find(|block| block.label == label).ok_or(NO_BLOCK)?;
    Ok(Json(block::object(found)))
}

pub(crate) async fn update(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    AgentPath(id): AgentPath,
    NamePath(label): NamePath,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let change = block::parse_change(&body)?;
    let now = app.services.seams.now();
    match app.services.store.change_block(&tenant, id, &label, &change, now).await? {
        BlockChanged::Changed(changed) => Ok(Json(block::object(&changed))),
        BlockChanged::NoAgent => Err(ApiError::NoAgent),
        BlockChanged::NoBlock => Err(NO_BLOCK),
        BlockChanged::Refused(BlockWriteError::LabelTaken(label)) => Err(ApiError::LabelTaken(label)),
        BlockChanged::Refused(why @ BlockWriteError::TooLong { .. }) => {
            Err(ApiError::Malformed(format!("body.value: {why}")))
        }
    }
}

const NO_BLOCK: ApiError = ApiError::Unknown("a block of this agent with this label");

async fn known_agent(app: &App, tenant: &TenantId, id: AgentId) -> Result<Agent, ApiError> {
    app.services.store.agent(tenant, id).await?.ok_or(ApiError::NoAgent)
}
