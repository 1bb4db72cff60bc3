//! Steps across runs (api/04 §6).

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use holdfast_shared::domain::ids::StepId;
use holdfast_shared::domain::page::Order;
use holdfast_shared::domain::step::{Feedback, Step};
use holdfast_shared::domain::tenant::TenantId;
use holdfast_shared::ports::store::{FeedbackChange, MessageScope, StepFilter};
use holdfast_shared::wire::step::{self as wire, FeedbackBody};
use holdfast_shared::wire::time::Bound;
use serde_json::Value;

use super::{KnownModels, history};
use crate::App;
use crate::error::ApiError;
use crate::extract::{JsonBody, QueryFields, StepPath, Tenant};

/// Steps of a page that does not say.
const PAGE: u32 = 50;
/// Messages of a page that does not say.
const MESSAGES: u32 = 100;

pub(crate) async fn list(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    query: QueryFields,
) -> Result<Json<Vec<Value>>, ApiError> {
    let filter = filter(&query)?;
    query.check_order_by("created_at")?;
    let page = query.page(PAGE, Order::Descending)?;
    // There are no projects here, so no step belongs to one.
    if query.one("project_id").is_some() {
        return Ok(Json(Vec::new()));
    }
    let steps = app.services.store.find_steps(&tenant, &filter, &page).await?;
    let models = KnownModels::of(&app).await;
    Ok(Json(steps.iter().map(|step| wire::step(step, &models.get(&step.model))).collect()))
}

fn filter(query: &QueryFields) -> Result<StepFilter, ApiError> {
    Ok(StepFilter {
        agent: query.id("agent_id")?,
        model: query.one("model").map(str::to_owned),
        from: query.moment("start_date", Bound::Start)?,
        until: query.moment("end_date", Bound::End)?,
        feedback: query.word("feedback", Feedback::parse)?,
        has_feedback: query.boolean("has_feedback")?,
        tags: query.all("tags").map(str::to_owned).collect(),
        trace_ids: query.all("trace_ids").map(str::to_owned).collect(),
    })
}

pub(crate) async fn retrieve(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    StepPath(id): StepPath,
) -> Result<Json<Value>, ApiError> {
    let step = find(&app, &tenant, id).await?;
    Ok(Json(show(&app, &step).await))
}

pub(crate) async fn messages(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    StepPath(id): StepPath,
    query: QueryFields,
) -> Result<Response, ApiError> {
    query.check_order_by("created_at")?;
    let page = query.page(MESSAGES, Order::Ascending)?;
    find(&app, &tenant, id).await?;
    let found = app.services.store.find_messages(&tenant, &MessageScope::Step(id), &page).await?;
    Ok(history::show(&found, None))
}

pub(crate) async fn metrics(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    StepPath(id): StepPath,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(wire::metrics(&find(&app, &tenant, id).await?)))
}

/// Always null for a step that exists: what goes to and comes from providers is not kept.
pub(crate) async fn trace(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    StepPath(id): StepPath,
) -> Result<Json<Value>, ApiError> {
    find(&app, &tenant, id).await?;
    Ok(Json(Value::Null))
}

pub(crate) async fn rate(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    StepPath(id): StepPath,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let FeedbackBody { feedback, tags } = FeedbackBody::parse(&body)?;
    let change = FeedbackChange { feedback, tags };
    let step = app.services.store.rate_step(&tenant, id, &change).await?.ok_or(NO_STEP)?;
    Ok(Json(show(&app, &step).await))
}

const NO_STEP: ApiError = ApiError::Unknown("the step");

async fn find(app: &App, tenant: &TenantId, id: StepId) -> Result<Step, ApiError> {
    app.services.store.step(tenant, id).await?.ok_or(NO_STEP)
}

async fn show(app: &App, step: &Step) -> Value {
    wire::step(step, &KnownModels::of(app).await.get(&step.model))
}
