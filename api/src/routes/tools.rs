//! Tools, and their attachment to agents (api/04 §2).

use std::collections::HashSet;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use holdfast_shared::domain::agent::AgentSettings;
use holdfast_shared::domain::ids::{AgentId, ToolId};
use holdfast_shared::domain::page::{Order, Page};
use holdfast_shared::domain::run::{RunType, RunWork};
use holdfast_shared::domain::tenant::TenantId;
use holdfast_shared::domain::thread::Thread;
use holdfast_shared::domain::tool::{CUSTOM, Tool, ToolCall, ToolSource, ToolSpec};
use holdfast_shared::ports::store::{AgentChange, LoneCall, ToolFilter};
use holdfast_shared::python;
use holdfast_shared::wire::agent::WantedTools;
use holdfast_shared::wire::tool::{self, CreateTool};
use serde_json::Value;

use super::{agents, messages};
use crate::App;
use crate::commands::do_work::do_work;
use crate::error::ApiError;
use crate::extract::{AgentPath, JsonBody, NamePath, OptionalJsonBody, QueryFields, Tenant, ToolPath};

const NO_TOOL: ApiError = ApiError::Unknown("the tool");

/// What a model is to be told of a Python function, from its source.
fn derive(source: &str) -> Result<ToolSpec, String> {
    python::derive(source).map_err(|error| error.to_string())
}

/// Refuses a Python tool whose source does not define its function.
fn check_source(tool: &Tool) -> Result<(), ApiError> {
    let ToolSource::Python { code } = &tool.source else { return Ok(()) };
    python::check(code, &tool.spec.name)
        .map_err(|error| ApiError::Unacceptable(format!("INVALID_ARGUMENT: body.source_code: {error}")))
}

/// Makes a tool, or puts it in the place of the one of its name: both methods do, as clients expect it.
pub(crate) async fn put(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let wanted = CreateTool::parse(&body, &derive)?;
    let services = &app.services;
    let named = services.store.tools_by_name(&tenant, std::slice::from_ref(&wanted.spec.name)).await?;
    // What the operator gives to everyone is hidden by the new tool, not replaced.
    let before = named.iter().find(|tool| tool.source.tool_type() == CUSTOM);
    let tool = wanted.tool(services.seams.id(), before, services.seams.now());
    check_source(&tool)?;
    let stored = services.store.put_tool(Some(&tenant), &tool).await?;
    tracing::info!(tool.id = %stored.id, is_new = stored.id == tool.id, "a tool was stored");
    Ok(Json(tool::object(&stored)))
}

pub(crate) async fn retrieve(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    ToolPath(id): ToolPath,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(tool::object(&known_tool(&app, &tenant, id).await?)))
}

pub(crate) async fn list(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    query: QueryFields,
) -> Result<Json<Vec<Value>>, ApiError> {
    query.check_order_by("created_at")?;
    let page = query.page(50, Order::Descending)?;
    let tools = app.services.store.tools(&tenant, &filter(&query)?, &page).await?;
    Ok(Json(tools.iter().map(tool::object).collect()))
}

pub(crate) async fn count(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    query: QueryFields,
) -> Result<Json<u64>, ApiError> {
    Ok(Json(app.services.store.count_tools(&tenant, &filter(&query)?).await?))
}

fn filter(query: &QueryFields) -> Result<ToolFilter, ApiError> {
    let only_own = query.boolean("return_only_letta_tools")?.unwrap_or(false);
    Ok(ToolFilter {
        name: query.one("name").map(str::to_owned),
        names: query.listed("names").map(str::to_owned).collect(),
        ids: query.ids("tool_ids")?,
        search: query.one("search").map(str::to_owned),
        tool_types: tool::filter_types(query.all("tool_types"), query.all("exclude_tool_types"), only_own)?,
    })
}

pub(crate) async fn update(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    ToolPath(id): ToolPath,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let before = own_tool(&app, &tenant, id).await?;
    let after = tool::changed(&before, &body, &derive, app.services.seams.now())?;
    check_source(&after)?;
    let changed = app.services.store.change_tool(&tenant, &after).await?;
    Ok(Json(tool::object(&changed.ok_or(NO_TOOL)?)))
}

pub(crate) async fn delete(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    ToolPath(id): ToolPath,
) -> Result<Json<Value>, ApiError> {
    own_tool(&app, &tenant, id).await?;
    if !app.services.store.delete_tool(&tenant, id, app.services.seams.now()).await? {
        return Err(NO_TOOL);
    }
    tracing::info!(tool.id = %id, "a tool was deleted");
    Ok(Json(Value::Null))
}

pub(crate) async fn list_attached(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    AgentPath(id): AgentPath,
    query: QueryFields,
) -> Result<Json<Vec<Value>>, ApiError> {
    query.check_order_by("created_at")?;
    let page = query.page(10, Order::Descending)?;
    let mut tools = app.services.store.agent(&tenant, id).await?.ok_or(ApiError::NoAgent)?.tools;
    tools.sort_by_key(|tool| (tool.created_at, tool.id));
    let shown = page.of(tools, |tool| tool.id).ok_or(ApiError::UNKNOWN_CURSOR)?;
    Ok(Json(shown.iter().map(tool::object).collect()))
}

pub(crate) async fn attach(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    AgentPath(agent): AgentPath,
    ToolPath(id): ToolPath,
) -> Result<Json<Value>, ApiError> {
    let tool = known_tool(&app, &tenant, id).await?;
    edit(&app, &tenant, agent, |settings| settings.attach(&tool)).await
}

pub(crate) async fn detach(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    AgentPath(agent): AgentPath,
    ToolPath(id): ToolPath,
) -> Result<Json<Value>, ApiError> {
    let tool = known_tool(&app, &tenant, id).await?;
    edit(&app, &tenant, agent, |settings| settings.detach(&tool.spec.name)).await
}

/// Has a worker call a tool of an agent, without a model, and tells what came of it.
pub(crate) async fn run(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    AgentPath(id): AgentPath,
    NamePath(name): NamePath,
    headers: HeaderMap,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Json<Value>, ApiError> {
    let arguments = tool::parse_run(&body)?;
    let agent = app.services.store.agent(&tenant, id).await?.ok_or(ApiError::NoAgent)?;
    if !agent.tools.iter().any(|tool| tool.spec.name == name) {
        return Err(ApiError::Unknown("an attached tool of this name"));
    }
    let digits = app.services.seams.uuid().simple().to_string();
    let call = ToolCall::new(format!("call_{}", digits.get(..8).unwrap_or(&digits)), name, arguments);
    let work = (RunType::RunTool, RunWork::CallTool { call });
    let run = do_work(&app, &tenant, Thread::own(id), work, messages::is_retry(&headers)).await?;
    match app.services.store.lone_call(run.id).await? {
        Some(LoneCall::Returned(tool_return)) => Ok(Json(tool::execution_result(&tool_return))),
        Some(LoneCall::Begun) | None => Err(ApiError::Internal(format!("run {} has no result", run.id))),
    }
}

pub(crate) async fn set_approval(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    AgentPath(id): AgentPath,
    NamePath(name): NamePath,
    query: QueryFields,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Json<Value>, ApiError> {
    let said = tool::parse_approval(&body)?.or(query.boolean("requires_approval")?);
    let is_required =
        said.ok_or_else(|| ApiError::Malformed("body.requires_approval: this field is required".to_owned()))?;
    let agent = app.services.store.agent(&tenant, id).await?.ok_or(ApiError::NoAgent)?;
    if !agent.tools.iter().any(|tool| tool.spec.name == name) {
        return Err(ApiError::Unknown("an attached tool of this name"));
    }
    edit(&app, &tenant, id, |settings| settings.set_approval(&name, is_required)).await
}

async fn edit(
    app: &App,
    tenant: &TenantId,
    agent: AgentId,
    change: impl Fn(&mut AgentSettings) + Send + Sync,
) -> Result<Json<Value>, ApiError> {
    let edit = |before: &AgentSettings| {
        let mut after = before.clone();
        change(&mut after);
        after
    };
    let change = AgentChange { settings: Some(&edit), ..AgentChange::default() };
    let changed = app.services.store.change_agent(tenant, agent, &change, app.services.seams.now()).await?;
    agents::show(app, &changed.ok_or(ApiError::NoAgent)?).await
}

/// The tools that a body names, each once, in the order of the names and then of the ids.
pub(super) async fn resolve(app: &App, tenant: &TenantId, wanted: &WantedTools) -> Result<Vec<Tool>, ApiError> {
    let mut seen = HashSet::new();
    let names: Vec<String> = wanted.names.iter().filter(|name| seen.insert(*name)).cloned().collect();
    let mut tools = app.services.store.tools_by_name(tenant, &names).await?;
    let found: HashSet<&str> = tools.iter().map(|tool| tool.spec.name.as_str()).collect();
    let mut missing: Vec<String> = names.iter().filter(|name| !found.contains(name.as_str())).cloned().collect();

    let by_id = tools_by_id(app, tenant, &wanted.ids).await?;
    missing.extend(wanted.ids.iter().filter(|id| !by_id.iter().any(|tool| tool.id == **id)).map(ToString::to_string));
    if !missing.is_empty() {
        return Err(ApiError::Unacceptable(format!("INVALID_ARGUMENT: unknown tools: {}", missing.join(", "))));
    }
    for id in &wanted.ids {
        let is_new = |tool: &&Tool| tool.id == *id && !tools.iter().any(|other| other.spec.name == tool.spec.name);
        if let Some(tool) = by_id.iter().find(is_new) {
            tools.push(tool.clone());
        }
    }
    Ok(tools)
}

async fn tools_by_id(app: &App, tenant: &TenantId, ids: &[ToolId]) -> Result<Vec<Tool>, ApiError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let filter = ToolFilter { ids: ids.to_vec(), ..ToolFilter::default() };
    let limit = u32::try_from(ids.len()).unwrap_or(u32::MAX);
    let page = Page { after: None, before: None, limit, order: Order::Ascending };
    Ok(app.services.store.tools(tenant, &filter, &page).await?)
}

async fn known_tool(app: &App, tenant: &TenantId, id: ToolId) -> Result<Tool, ApiError> {
    app.services.store.tool(tenant, id).await?.ok_or(NO_TOOL)
}

/// A tool that the client may change: one that it made.
async fn own_tool(app: &App, tenant: &TenantId, id: ToolId) -> Result<Tool, ApiError> {
    let tool = known_tool(app, tenant, id).await?;
    let owner = match &tool.source {
        ToolSource::Python { .. } | ToolSource::Http(_) => return Ok(tool),
        ToolSource::Builtin { .. } => "the server brings it along".to_owned(),
        ToolSource::Mcp { server, .. } => format!("it belongs to the MCP server '{server}'"),
    };
    let name = &tool.spec.name;
    let text = format!("INVALID_ARGUMENT: the tool '{name}' cannot be changed or deleted: {owner}");
    Err(ApiError::Unacceptable(text))
}
