//! Runs (api/03 §3 and §5).

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Method, header};
use axum::response::{IntoResponse, Response};
use holdfast_shared::domain::ids::{AgentId, RunId};
use holdfast_shared::domain::message::Body;
use holdfast_shared::domain::page::{Order, Page};
use holdfast_shared::domain::position::SeqId;
use holdfast_shared::domain::run::{Run, RunStatus};
use holdfast_shared::domain::stop_reason::StopReason;
use holdfast_shared::domain::tenant::TenantId;
use holdfast_shared::ports::store::{MessageFilter, RunDeletion, RunFilter, all_messages};
use holdfast_shared::wire::response::shown;
use holdfast_shared::wire::run::{self as wire, ResumeBody, cursor};
use holdfast_shared::wire::step::step;
use serde_json::{Map, Value};

use super::KnownModels;
use crate::App;
use crate::error::ApiError;
use crate::extract::{OptionalJsonBody, QueryFields, RunPath, Tenant};
use crate::fanout::{IdLines, Pings, StreamOptions};

/// Rows of a page of runs, steps or messages that does not say.
const PAGE: u32 = 100;
/// Spans of a trace that does not say, and most of them (api/03 §3).
const SPANS: u32 = 1000;
pub(crate) const MOST_SPANS: u32 = 5000;

pub(crate) async fn list(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    query: QueryFields,
) -> Result<Json<Vec<Value>>, ApiError> {
    let filter = run_filter(&query)?;
    query.check_order_by("created_at")?;
    let mut page = query.page(PAGE, Order::Descending)?;
    if query.boolean("ascending")? == Some(true) {
        page.order = Order::Ascending;
    }
    let runs = app.services.store.runs(&tenant, &filter, &page).await?;
    Ok(Json(runs.iter().map(wire::run).collect()))
}

/// Runs that are not over, of all agents or of one.
pub(crate) async fn list_active(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    query: QueryFields,
) -> Result<Json<Vec<Value>>, ApiError> {
    let filter = RunFilter {
        agents: query.id("agent_id")?.into_iter().collect(),
        statuses: vec![RunStatus::Created, RunStatus::Running],
        background: query.boolean("background")?,
        ..RunFilter::default()
    };
    let page = Page { after: None, before: None, limit: PAGE, order: Order::Descending };
    let runs = app.services.store.runs(&tenant, &filter, &page).await?;
    Ok(Json(runs.iter().map(wire::run).collect()))
}

fn run_filter(query: &QueryFields) -> Result<RunFilter, ApiError> {
    let agents = match query.id::<AgentId>("agent_id")? {
        Some(agent) => vec![agent],
        None => query.words("agent_ids", |text| text.parse().ok())?,
    };
    let mut statuses = query.words("statuses", RunStatus::parse)?;
    if query.boolean("active")? == Some(true) && statuses.is_empty() {
        statuses = vec![RunStatus::Created, RunStatus::Running];
    }
    Ok(RunFilter {
        agents,
        statuses,
        background: query.boolean("background")?,
        stop_reason: query.word("stop_reason", StopReason::parse)?,
        threads: query.threads()?,
    })
}

pub(crate) async fn retrieve(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    RunPath(id): RunPath,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(wire::run(&find(&app, &tenant, id).await?)))
}

/// Deletes a run that is over, with its steps and events.
pub(crate) async fn delete(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    RunPath(id): RunPath,
) -> Result<Json<Map<String, Value>>, ApiError> {
    match app.services.store.delete_run(&tenant, id).await? {
        RunDeletion::Deleted => {
            tracing::info!(run.id = %id, "a run was deleted");
            Ok(Json(Map::new()))
        }
        RunDeletion::NoRun => Err(ApiError::NoRun(id)),
        RunDeletion::Active => Err(ApiError::Active(id, "it can be deleted when it is over: wait, or cancel it")),
        RunDeletion::Waiting => Err(ApiError::CallsWait(id)),
    }
}

pub(crate) async fn messages(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    RunPath(id): RunPath,
    query: QueryFields,
) -> Result<Response, ApiError> {
    query.check_order_by("created_at")?;
    let page = query.page(PAGE, Order::Ascending)?;
    let run = find(&app, &tenant, id).await?;
    let filter = MessageFilter::run(run.agent_id, id);
    let messages = app.services.store.messages(&filter, &page).await?;
    Ok(Json(shown(&messages, run.request.include_types.as_deref(), run.request.speech.as_ref())).into_response())
}

pub(crate) async fn steps(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    RunPath(id): RunPath,
    query: QueryFields,
) -> Result<Json<Vec<Value>>, ApiError> {
    query.check_order_by("created_at")?;
    let page = query.page(PAGE, Order::Descending)?;
    find(&app, &tenant, id).await?;
    let steps = app.services.store.steps(id, &page).await?;
    let models = KnownModels::of(&app).await;
    Ok(Json(steps.iter().map(|row| step(row, &models.get(&row.model))).collect()))
}

pub(crate) async fn usage(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    RunPath(id): RunPath,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(wire::usage(&find(&app, &tenant, id).await?)))
}

/// Spans are sent elsewhere, not kept here.
pub(crate) async fn trace(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    RunPath(id): RunPath,
    query: QueryFields,
) -> Result<Json<Vec<Value>>, ApiError> {
    query.limit_up_to(SPANS, MOST_SPANS)?;
    find(&app, &tenant, id).await?;
    Ok(Json(Vec::new()))
}

pub(crate) async fn metrics(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    RunPath(id): RunPath,
) -> Result<Json<Value>, ApiError> {
    let run = find(&app, &tenant, id).await?;
    let mut called: Vec<String> = Vec::new();
    for message in all_messages(&*app.services.store, &MessageFilter::run(run.agent_id, run.id)).await? {
        let Body::ToolReturns(returns) = message.body else { continue };
        for one in returns {
            if !called.contains(&one.name) {
                called.push(one.name);
            }
        }
    }
    let tools = app.services.store.tools_by_name(&tenant, &called).await?;
    Ok(Json(wire::metrics(&run, &tools.iter().map(|tool| tool.id).collect::<Vec<_>>())))
}

/// Resumes a stream. Browsers can only do it by GET: their `EventSource` comes back with `Last-Event-ID`. SDKs, whose
/// Python side breaks on `id:` lines, never ask for `text/event-stream`.
pub(crate) async fn resume(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    RunPath(id): RunPath,
    method: Method,
    query: QueryFields,
    headers: HeaderMap,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, ApiError> {
    let body = ResumeBody::parse(&body)?;
    let after = starting_after(&body, &query, &headers)?;
    let include_pings = query.boolean("include_pings")?.unwrap_or(true) && body.include_pings;
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let is_event_source = method == Method::GET && accepted.any(|value| value.contains("text/event-stream"));
    let id_lines = if is_event_source { IdLines::Shown } else { IdLines::Hidden };
    let pings = if include_pings { Pings::Events } else { Pings::Comments };
    let run = find(&app, &tenant, id).await?;
    open(&app, run, StreamOptions { after, pings, id_lines }).await
}

/// The cursor: of the body, else of the header, else of the query. An `EventSource` repeats its URL as it was, so that
/// the header is the newer of the two.
pub(super) fn starting_after(body: &ResumeBody, query: &QueryFields, headers: &HeaderMap) -> Result<SeqId, ApiError> {
    let from_query = query.word("starting_after", |word| word.parse::<i64>().ok())?;
    let from_header = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.trim().parse::<i64>().ok());
    Ok(body.starting_after.or(from_header.map(cursor)).or(from_query.map(cursor)).unwrap_or(SeqId::START))
}

pub(super) async fn open(app: &App, run: Run, options: StreamOptions) -> Result<Response, ApiError> {
    if !wire::is_background(&run) {
        return Err(ApiError::NotBackground);
    }
    let id = run.id;
    app.services.hub.stream(run, options).await.map_err(|error| ApiError::of_fanout(error, id))
}

pub(super) async fn find(app: &App, tenant: &TenantId, id: RunId) -> Result<Run, ApiError> {
    app.services.store.run(tenant, id).await?.ok_or(ApiError::NoRun(id))
}
