//! Agents (api/04 §1).

use std::collections::HashSet;

use axum::Json;
use axum::extract::State;
use holdfast_shared::domain::Timestamp;
use holdfast_shared::domain::agent::{Agent, AgentSettings, ReferenceKind};
use holdfast_shared::domain::block::Block;
use holdfast_shared::domain::ids::{AgentId, MessageId};
use holdfast_shared::domain::message::{Body, Content, Labels, Message};
use holdfast_shared::domain::model::ModelHandle;
use holdfast_shared::domain::page::Order;
use holdfast_shared::domain::prompt::{self, PromptFacts};
use holdfast_shared::domain::stop_reason::StopReason;
use holdfast_shared::domain::tenant::TenantId;
use holdfast_shared::domain::thread::{Thread, ThreadScope};
use holdfast_shared::ports::seams::Seams;
use holdfast_shared::ports::store::{AgentChange, AgentFilter, AgentOrder, LastRun};
use holdfast_shared::wire::agent::{CreateAgent, UpdateAgent, agent_state, check_reset_body};
use holdfast_shared::wire::block::NewBlock;
use holdfast_shared::wire::request::{InputMessage, SendRequest};
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
    let (agent, system) = new_agent(wanted.name, settings, wanted.blocks, now, &services.seams);
    let mut messages = vec![system];
    if let Some(history) = wanted.history {
        messages.extend(history_of(&app, agent.id, history, now).await?);
    }
    let agent = services.store.create_agent(&tenant, &agent, &wanted.block_ids, &messages).await?;
    tracing::info!(agent.id = %agent.id, "an agent was created");
    show(&app, &agent).await
}

pub(crate) async fn retrieve(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    AgentPath(id): AgentPath,
    query: QueryFields,
) -> Result<Json<Value>, ApiError> {
    check_include(&query)?;
    let agent = app.services.store.agent(&tenant, id).await?.ok_or(ApiError::NoAgent)?;
    show(&app, &agent).await
}

pub(crate) async fn list(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    query: QueryFields,
) -> Result<Json<Vec<Value>>, ApiError> {
    let Some(filter) = filter(&query)? else { return Ok(Json(Vec::new())) };
    show_page(&app, &tenant, &filter, &query).await
}

pub(crate) async fn count(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    query: QueryFields,
) -> Result<Json<u64>, ApiError> {
    let Some(filter) = filter(&query)? else { return Ok(Json(0)) };
    Ok(Json(app.services.store.count_agents(&tenant, &filter).await?))
}

/// The page of agents that a query asks for.
pub(super) async fn show_page(
    app: &App,
    tenant: &TenantId,
    filter: &AgentFilter,
    query: &QueryFields,
) -> Result<Json<Vec<Value>>, ApiError> {
    check_include(query)?;
    let order = match query.boolean("ascending")? {
        Some(true) => Order::Ascending,
        Some(false) | None => Order::Descending,
    };
    let agents = app.services.store.agents(tenant, filter, &query.page(50, order)?).await?;
    let models = KnownModels::of(app).await;
    Ok(Json(agents.iter().map(|agent| agent_state(agent, &models.get(&agent.settings.model))).collect()))
}

/// What a query wants of the agents; `None` if that is nothing: nobody here has users or identities of their own, so no
/// agent was made by one of these, and none has a key of one.
fn filter(query: &QueryFields) -> Result<Option<AgentFilter>, ApiError> {
    let order_by = query.word("order_by", order_by)?.or(query.word("sort_by", order_by)?);
    let references = [
        ("project_id", ReferenceKind::Project),
        ("template_id", ReferenceKind::Template),
        ("base_template_id", ReferenceKind::BaseTemplate),
        ("identity_id", ReferenceKind::Identity),
    ];
    let wanted = references.into_iter().filter_map(|(name, kind)| Some((kind, query.one(name)?.to_owned())));
    let filter = AgentFilter {
        name: query.one("name").map(str::to_owned),
        query_text: query.one("query_text").map(str::to_owned),
        tags: query.all("tags").map(str::to_owned).collect(),
        match_all_tags: query.boolean("match_all_tags")?.unwrap_or(false),
        block: None,
        last_stop_reason: query.word("last_stop_reason", StopReason::parse)?,
        references: wanted.collect(),
        order_by: order_by.unwrap_or_default(),
    };
    let is_of_nobody = query.one("created_by_id").or(query.one("identifier_keys")).is_some();
    Ok((!is_of_nobody).then_some(filter))
}

fn order_by(word: &str) -> Option<AgentOrder> {
    match word {
        "created_at" => Some(AgentOrder::Creation),
        "updated_at" => Some(AgentOrder::Change),
        "last_run_completion" => Some(AgentOrder::Completion),
        _ => None,
    }
}

/// The relations of agents, as queries name them after `agent.`.
pub(crate) const RELATIONS: [&str; 8] =
    ["blocks", "identities", "managed_group", "pending_approval", "secrets", "sources", "tags", "tools"];

/// Refuses relations that agents have not. Those that they have are always shown (api/00 §2).
fn check_include(query: &QueryFields) -> Result<(), ApiError> {
    let known = |word: &str| word.strip_prefix("agent.").filter(|relation| RELATIONS.contains(relation)).map(|_| ());
    query.words("include", known).map(|_| ())
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
    let last_run = last_run(&agent, &wanted)?;
    let tools = match &wanted.tools {
        Some(tools) => Some(tools::resolve(&app, &tenant, tools).await?),
        None => None,
    };
    let edit = |before: &AgentSettings| wanted.settings(before, tools.as_deref());
    let change = AgentChange {
        name: wanted.name.clone(),
        settings: Some(&edit),
        message_ids: wanted.message_ids.clone(),
        block_ids: wanted.block_ids.clone(),
        last_run,
    };
    let changed = services.store.change_agent(&tenant, id, &change, services.seams.now()).await?;
    show(&app, &changed.ok_or(ApiError::NoAgent)?).await
}

/// What the last run is said to have come to. Of an agent that never ran it must be said as a whole.
fn last_run(agent: &Agent, wanted: &UpdateAgent) -> Result<LastRun, ApiError> {
    let said = LastRun {
        stop_reason: wanted.last_stop_reason,
        completion: wanted.last_run_completion,
        duration_ms: wanted.last_run_duration_ms,
    };
    let parts = [said.stop_reason.is_some(), said.completion.is_some(), said.duration_ms.is_some()];
    if agent.last_stop_reason.is_none() && parts.contains(&true) && parts.contains(&false) {
        let text = "INVALID_ARGUMENT: body: the agent has not run yet: give 'last_stop_reason', 'last_run_completion' \
                    and 'last_run_duration_ms' together";
        return Err(ApiError::Unacceptable(text.to_owned()));
    }
    Ok(said)
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
    cancel_runs::cancel_all(&app, &tenant, id, ThreadScope::All, agent.pending_approval.as_ref()).await?;
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
    let text = app.services.store.recompile(&tenant, Thread::own(id), is_kept, app.services.seams.now()).await?;
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

/// The messages that stand behind a new agent's system message.
async fn history_of(
    app: &App,
    agent_id: AgentId,
    mut history: SendRequest,
    now: Timestamp,
) -> Result<Vec<Message>, ApiError> {
    history.check_content()?;
    app.services.images.inline(&mut history).await?;
    let message = |given| match given {
        InputMessage::Message { role, content, labels } => Some(Message {
            id: app.services.seams.id(),
            agent_id,
            run_id: None,
            step_id: None,
            body: role.body(content),
            labels,
            created_at: now,
        }),
        // There are none in a history.
        InputMessage::Answers { .. } => None,
    };
    Ok(history.input.into_iter().filter_map(message).collect())
}

fn new_agent(
    name: Option<String>,
    settings: AgentSettings,
    blocks: Vec<NewBlock>,
    now: Timestamp,
    seams: &Seams,
) -> (Agent, Message) {
    let id: AgentId = seams.id();
    let blocks: Vec<Block> = blocks.into_iter().map(|block| block.block(seams.id(), now)).collect();
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
