//! Agents (api/04 §1).

use std::collections::HashSet;

use axum::Json;
use axum::extract::State;
use holdfast_shared::domain::Timestamp;
use holdfast_shared::domain::agent::{Agent, AgentSettings};
use holdfast_shared::domain::block::Block;
use holdfast_shared::domain::ids::{AgentId, MessageId};
use holdfast_shared::domain::message::{Body, Content, Labels, Message};
use holdfast_shared::domain::model::ModelHandle;
use holdfast_shared::domain::page::Order;
use holdfast_shared::domain::prompt::{self, PromptFacts};
use holdfast_shared::ports::seams::Seams;
use holdfast_shared::ports::store::{AgentChange, AgentFilter};
use holdfast_shared::wire::agent::{CreateAgent, UpdateAgent, agent_state, check_reset_body};
use holdfast_shared::wire::block::NewBlock;
use serde_json::{Value, json};

use super::{KnownModels, tools};
use crate::App;
use crate::commands::cancel_runs;
use crate::commands::reset_context::reset_context;
use crate::error::ApiError;
use crate::extract::{AgentPath, JsonBody, OptionalJsonBody, QueryFields, Tenant};

pub(crate) async fn create(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let wanted = CreateAgent::parse(&body)?;
    let services = &app.services;
    let model = match &wanted.model {
        Some(model) => known_model(&app, model).await?.clone(),
        None => services.catalogue.default_model(),
    };
    let tools = tools::resolve(&app, &tenant, &wanted.tools()).await?;
    let settings = wanted.settings(model, &tools);
    let now = services.seams.now();
    let (mut agent, system) = new_agent(wanted.name, settings, wanted.blocks, now, &services.seams);
    agent.tools = tools;
    services.store.create_agent(&tenant, &agent, &system).await?;
    tracing::info!(agent.id = %agent.id, "an agent was created");
    show(&app, &agent).await
}

pub(crate) async fn retrieve(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    AgentPath(id): AgentPath,
) -> Result<Json<Value>, ApiError> {
    let agent = app.services.store.agent(&tenant, id).await?.ok_or(ApiError::NoAgent)?;
    show(&app, &agent).await
}

pub(crate) async fn list(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    query: QueryFields,
) -> Result<Json<Vec<Value>>, ApiError> {
    let filter = AgentFilter {
        name: query.one("name").map(str::to_owned),
        query_text: query.one("query_text").map(str::to_owned),
        tags: query.all("tags").map(str::to_owned).collect(),
        match_all_tags: query.boolean("match_all_tags")?.unwrap_or(false),
        order_by_updated: query.word("order_by", order_by_updated)?.unwrap_or(false),
    };
    let page = query.page(50, Order::Descending)?;
    let agents = app.services.store.agents(&tenant, &filter, &page).await?;
    let models = KnownModels::of(&app).await;
    Ok(Json(agents.iter().map(|agent| agent_state(agent, &models.get(&agent.settings.model))).collect()))
}

/// The end of a run changes its agent, so that the last change is also as good as the last end of a run.
fn order_by_updated(word: &str) -> Option<bool> {
    match word {
        "created_at" => Some(false),
        "updated_at" | "last_run_completion" => Some(true),
        _ => None,
    }
}

pub(crate) async fn update(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    AgentPath(id): AgentPath,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let wanted = UpdateAgent::parse(&body)?;
    let services = &app.services;
    let agent = services.store.agent(&tenant, id).await?.ok_or(ApiError::NoAgent)?;
    if let Some(model) = &wanted.model {
        known_model(&app, model).await?;
    }
    if let Some(ids) = &wanted.message_ids {
        check_message_ids(&agent.message_ids, ids)?;
    }
    if let Some(ids) = &wanted.block_ids
        && (ids.len() != agent.blocks.len() || !agent.blocks.iter().all(|block| ids.contains(&block.id)))
    {
        let text = "INVALID_ARGUMENT: body.block_ids: an agent's blocks cannot be exchanged";
        return Err(ApiError::Unacceptable(text.to_owned()));
    }
    let tools = match &wanted.tools {
        Some(tools) => Some(tools::resolve(&app, &tenant, tools).await?),
        None => None,
    };
    let edit = |before: &AgentSettings| wanted.settings(before, tools.as_deref());
    let change =
        AgentChange { name: wanted.name.clone(), settings: Some(&edit), message_ids: wanted.message_ids.clone() };
    let changed = services.store.change_agent(&tenant, id, &change, services.seams.now()).await?;
    show(&app, &changed.ok_or(ApiError::NoAgent)?).await
}

pub(crate) async fn delete(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    AgentPath(id): AgentPath,
) -> Result<Json<Value>, ApiError> {
    let agent = app.services.store.agent(&tenant, id).await?.ok_or(ApiError::NoAgent)?;
    // First the agent, so that no new run comes in between.
    if !app.services.store.delete_agent(&tenant, id, app.services.seams.now()).await? {
        return Err(ApiError::NoAgent);
    }
    cancel_runs::cancel_all(&app, &tenant, &agent).await?;
    tracing::info!(agent.id = %id, "an agent was deleted");
    Ok(Json(json!({"message": format!("Agent id={id} successfully deleted")})))
}

/// Compiles the system message anew. It always tells the time of this compile, which is what the line in it means, so
/// that `update_timestamp` changes nothing.
pub(crate) async fn recompile(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    AgentPath(id): AgentPath,
    query: QueryFields,
) -> Result<Json<String>, ApiError> {
    query.boolean("update_timestamp")?;
    let is_kept = !query.boolean("dry_run")?.unwrap_or(false);
    let text = app.services.store.recompile(&tenant, id, is_kept, app.services.seams.now()).await?;
    text.map(Json).ok_or(ApiError::NoAgent)
}

/// Empties the context; the history stays.
pub(crate) async fn reset_messages(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    AgentPath(id): AgentPath,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Json<Value>, ApiError> {
    check_reset_body(&body)?;
    show(&app, &reset_context(&app, &tenant, id).await?).await
}

pub(super) async fn show(app: &App, agent: &Agent) -> Result<Json<Value>, ApiError> {
    let models = KnownModels::of(app).await;
    Ok(Json(agent_state(agent, &models.get(&agent.settings.model))))
}

async fn known_model<'a>(app: &App, model: &'a ModelHandle) -> Result<&'a ModelHandle, ApiError> {
    if app.services.catalogue.knows(model).await { Ok(model) } else { Err(ApiError::NoModel(model.clone())) }
}

/// Messages can be taken out of the context, and their order changed. None can be put in: an id from elsewhere would
/// show its agent's message to this one.
fn check_message_ids(present: &[MessageId], wanted: &[MessageId]) -> Result<(), ApiError> {
    let refuse = |why: &str| Err(ApiError::Unacceptable(format!("INVALID_ARGUMENT: body.message_ids: {why}")));
    if wanted.first() != present.first() {
        return refuse("must begin with the agent's system message");
    }
    let mut seen = HashSet::new();
    if !wanted.iter().all(|id| seen.insert(id) && present.contains(id)) {
        return refuse("must name messages that are in context, each once");
    }
    Ok(())
}

fn new_agent(
    name: Option<String>,
    settings: AgentSettings,
    blocks: Vec<NewBlock>,
    now: Timestamp,
    seams: &Seams,
) -> (Agent, Message) {
    let id: AgentId = seams.id();
    let made = |block: NewBlock| Block {
        id: seams.id(),
        label: block.label,
        value: block.value,
        details: block.details,
        created_at: now,
        updated_at: now,
    };
    let blocks: Vec<Block> = blocks.into_iter().map(made).collect();
    let facts = PromptFacts { agent_id: id, compiled_at: now, messages_outside: 0 };
    let system = Message {
        id: seams.id(),
        agent_id: id,
        run_id: None,
        step_id: None,
        body: Body::System(Content::Text(prompt::compile(&settings, &blocks, &facts))),
        labels: Labels::default(),
        created_at: now,
    };
    let name = name.unwrap_or_else(|| {
        let digits = seams.uuid().simple().to_string();
        format!("agent-{}", digits.get(..8).unwrap_or(&digits))
    });
    let agent = Agent {
        id,
        name,
        settings,
        blocks,
        tools: Vec::new(),
        message_ids: vec![system.id],
        pending_approval: None,
        last_stop_reason: None,
        last_run_completion: None,
        last_run_duration_ms: None,
        created_at: now,
        updated_at: now,
    };
    (agent, system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_can_be_shortened_but_not_fed_with_strange_messages() {
        let seams = Seams::system();
        let [system, one, two, strange]: [MessageId; 4] = std::array::from_fn(|_| seams.id());
        let present = [system, one, two];
        assert!(check_message_ids(&present, &[system]).is_ok());
        assert!(check_message_ids(&present, &[system, two, one]).is_ok());
        for wrong in [vec![], vec![one], vec![system, strange], vec![system, one, one]] {
            assert!(check_message_ids(&present, &wrong).is_err(), "{wrong:?}");
        }
    }
}
