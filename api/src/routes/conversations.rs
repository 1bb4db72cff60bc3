//! Conversations (api/04 §8). `default` in the place of an id means an agent's own thread.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use holdfast_shared::domain::agent::PendingApproval;
use holdfast_shared::domain::conversation::{Conversation, ConversationSettings};
use holdfast_shared::domain::ids::{AgentId, ConversationId, MessageId};
use holdfast_shared::domain::model::ModelHandle;
use holdfast_shared::domain::page::{Order, Page};
use holdfast_shared::domain::run::{Run, RunStatus, RunType};
use holdfast_shared::domain::tenant::TenantId;
use holdfast_shared::domain::thread::{Thread, ThreadScope};
use holdfast_shared::ports::store::{
    ConversationFilter, ConversationMade, ConversationOrder, Fork, MessageFilter, RunFilter,
};
use holdfast_shared::wire::conversation::{
    ConversationResume, agent_of, conversation, conversation_change, new_conversation,
};
use holdfast_shared::wire::read::Node;
use holdfast_shared::wire::request::SendRequest;
use holdfast_shared::wire::response::shown;
use serde_json::{Map, Value};

use super::{messages, runs};
use crate::App;
use crate::commands::cancel_runs;
use crate::error::ApiError;
use crate::extract::{ConversationPath, JsonBody, OptionalJsonBody, QueryFields, Tenant};
use crate::fanout::{IdLines, Pings, StreamOptions};

/// Conversations of a page that does not say.
const PAGE: u32 = 50;
/// Messages of a page that does not say.
const MESSAGES: u32 = 100;
/// Waits for the run of an `otid` whose request may still be on its way (api/03 §5).
const WAITS_FOR_OTID: [Duration; 3] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_millis(1000)];

pub(crate) async fn create(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    query: QueryFields,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Json<Value>, ApiError> {
    let agent = query.id::<AgentId>("agent_id")?.ok_or_else(|| required("query.agent_id"))?;
    let settings = new_conversation(&body)?;
    check_model(&app, settings.model.as_ref()).await?;
    make(&app, &tenant, agent, settings, None).await
}

pub(crate) async fn list(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    query: QueryFields,
) -> Result<Json<Vec<Value>>, ApiError> {
    let filter = ConversationFilter {
        agent: query.id("agent_id")?,
        summary: query.one("summary_search").map(str::to_owned),
        archived: query.word("archive_status", archived)?.unwrap_or(Some(false)),
        order: query.word("order_by", order)?.unwrap_or_default(),
    };
    let page = query.page(PAGE, Order::Descending)?;
    let found = app.services.store.conversations(&tenant, &filter, &page).await?;
    Ok(Json(found.iter().map(conversation).collect()))
}

/// What is put away is shown to those who ask for it.
fn archived(word: &str) -> Option<Option<bool>> {
    match word {
        "unarchived" => Some(Some(false)),
        "archived" => Some(Some(true)),
        "all" => Some(None),
        _ => None,
    }
}

fn order(word: &str) -> Option<ConversationOrder> {
    match word {
        "created_at" => Some(ConversationOrder::Creation),
        "last_message_at" => Some(ConversationOrder::LastMessage),
        "last_run_completion" => Some(ConversationOrder::LastRun),
        _ => None,
    }
}

pub(crate) async fn retrieve(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    path: ConversationPath,
) -> Result<Json<Value>, ApiError> {
    find(&app, &tenant, path).await.map(|found| Json(conversation(&found)))
}

pub(crate) async fn update(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    path: ConversationPath,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let change = conversation_change(&body)?;
    let id = find(&app, &tenant, path).await?.id;
    check_model(&app, change.model.as_ref()).await?;
    let changed = app.services.store.change_conversation(&tenant, id, &change, app.services.seams.now()).await?;
    changed.map(|changed| Json(conversation(&changed))).ok_or(ApiError::NO_CONVERSATION)
}

pub(crate) async fn delete(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    path: ConversationPath,
) -> Result<Json<Value>, ApiError> {
    let found = find(&app, &tenant, path).await?;
    // First the conversation, so that no new run comes in between.
    if !app.services.store.delete_conversation(&tenant, found.id, app.services.seams.now()).await? {
        return Err(ApiError::NO_CONVERSATION);
    }
    let waiting = found.pending_approval.as_ref();
    cancel_runs::cancel_all(&app, &tenant, found.agent_id, found.thread().into(), waiting).await?;
    tracing::info!(conversation.id = %found.id, "a conversation was deleted");
    Ok(Json(Value::Null))
}

/// A stream unless the body says `streaming: false`. Clients count on being refused while another run of the
/// conversation is active (api/01 §3.4).
pub(crate) async fn send(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    path: ConversationPath,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let mut request = SendRequest::parse(&body)?;
    let node = Node::body(&body)?;
    request.streaming = node.flag("streaming", true)?;
    let agent = agent_of(&node)?;
    let (thread, _) = resolve(&app, &tenant, path, agent, "body.agent_id").await?;
    let run_type = RunType::SendConversationMessage;
    let send = messages::Send { tenant, thread, run_type, max_queued: 1 };
    if request.streaming {
        messages::send_streaming(&app, send, request, &headers).await
    } else {
        messages::send_waiting(&app, send, request, &headers).await
    }
}

/// Resumes the run that the body names, else the one that a message with its `otid` began, else the newest that is
/// active.
pub(crate) async fn resume(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    path: ConversationPath,
    query: QueryFields,
    headers: HeaderMap,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, ApiError> {
    let wanted = ConversationResume::parse(&body)?;
    let (thread, _) = resolve(&app, &tenant, path, wanted.agent, "body.agent_id").await?;
    let run = match (wanted.run, &wanted.otid) {
        (Some(id), _) => runs::find(&app, &tenant, id).await?,
        (None, Some(otid)) => by_otid(&app, thread, otid).await?,
        (None, None) => newest_active(&app, &tenant, thread).await?,
    };
    if run.thread() != thread {
        return Err(ApiError::NoRun(run.id));
    }
    let pings = if wanted.resume.include_pings { Pings::Events } else { Pings::Comments };
    let after = runs::starting_after(&wanted.resume, &query, &headers)?;
    runs::open(&app, run, StreamOptions { after, pings, id_lines: IdLines::Hidden }).await
}

async fn by_otid(app: &App, thread: Thread, otid: &str) -> Result<Run, ApiError> {
    let mut waits = WAITS_FOR_OTID.into_iter();
    loop {
        if let Some(run) = app.services.store.run_by_otid(thread, otid).await? {
            return Ok(run);
        }
        let Some(wait) = waits.next() else { return Err(ApiError::Unknown("a run with this otid")) };
        tokio::time::sleep(wait).await;
    }
}

async fn newest_active(app: &App, tenant: &TenantId, thread: Thread) -> Result<Run, ApiError> {
    let filter = RunFilter {
        agents: vec![thread.agent],
        statuses: vec![RunStatus::Created, RunStatus::Running],
        background: Some(true),
        threads: thread.into(),
        ..RunFilter::default()
    };
    let page = Page { after: None, before: None, limit: 1, order: Order::Descending };
    let newest = app.services.store.runs(tenant, &filter, &page).await?.pop();
    newest.ok_or_else(|| {
        ApiError::Unacceptable("INVALID_ARGUMENT: No active runs found for this conversation".to_owned())
    })
}

pub(crate) async fn list_messages(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    path: ConversationPath,
    query: QueryFields,
) -> Result<Response, ApiError> {
    let include = query.message_types()?;
    query.word("order_by", |word| (word == "created_at").then_some(()))?;
    query.boolean("include_err")?;
    let page: Page<MessageId> = query.page(MESSAGES, Order::Descending)?;
    let (thread, _) = resolve(&app, &tenant, path, query.id("agent_id")?, "query.agent_id").await?;
    let agent = app.services.store.agent(&tenant, thread.agent).await?.ok_or(ApiError::NoAgent)?;
    let speech = messages::speech(&query, &agent)?;
    let found = app.services.store.messages(&MessageFilter::thread(thread), &page).await?;
    Ok(Json(shown(&found, include.as_deref(), speech.as_ref())).into_response())
}

pub(crate) async fn cancel(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    path: ConversationPath,
    query: QueryFields,
) -> Result<Json<Map<String, Value>>, ApiError> {
    let (thread, waiting) = resolve(&app, &tenant, path, query.id("agent_id")?, "query.agent_id").await?;
    let scope = ThreadScope::from(thread);
    let cancelled = cancel_runs::cancel_all(&app, &tenant, thread.agent, scope, waiting.as_ref()).await?;
    messages::cancelled_runs(thread.agent, &cancelled).map(Json)
}

/// A conversation that begins with the messages of another thread, and shares them.
pub(crate) async fn fork(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    path: ConversationPath,
    query: QueryFields,
) -> Result<Json<Value>, ApiError> {
    let until = query.id::<MessageId>("message_id")?;
    let hidden = query.boolean("hidden")?;
    let (from, _) = resolve(&app, &tenant, path, query.id("agent_id")?, "query.agent_id").await?;
    let source = match from.conversation {
        Some(id) => app.services.store.conversation(&tenant, id).await?.map(|source| source.settings),
        None => None,
    };
    let settings = ConversationSettings { hidden, ..source.unwrap_or_default() };
    make(&app, &tenant, from.agent, settings, Some(Fork { from, until })).await
}

/// Compacts the context.
pub(crate) async fn compact(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    path: ConversationPath,
    headers: HeaderMap,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Json<Value>, ApiError> {
    let agent = agent_of(&Node::body(&body)?)?;
    let (thread, _) = resolve(&app, &tenant, path, agent, "body.agent_id").await?;
    messages::compact_thread(&app, &tenant, thread, &body, &headers).await
}

/// Compiles the system message anew.
pub(crate) async fn recompile(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    path: ConversationPath,
    query: QueryFields,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Json<String>, ApiError> {
    let is_kept = !query.boolean("dry_run")?.unwrap_or(false);
    let agent = agent_of(&Node::body(&body)?)?;
    let (thread, _) = resolve(&app, &tenant, path, agent, "body.agent_id").await?;
    let text = app.services.store.recompile(&tenant, thread, is_kept, app.services.seams.now()).await?;
    text.map(Json).ok_or(ApiError::NO_CONVERSATION)
}

async fn make(
    app: &App,
    tenant: &TenantId,
    agent_id: AgentId,
    settings: ConversationSettings,
    fork: Option<Fork>,
) -> Result<Json<Value>, ApiError> {
    let services = &app.services;
    let now = services.seams.now();
    let wanted = Conversation {
        id: services.seams.id(),
        agent_id,
        settings,
        message_ids: Vec::new(),
        pending_approval: None,
        archived_at: None,
        last_message_at: None,
        created_at: now,
        updated_at: now,
    };
    match services.store.create_conversation(tenant, &wanted, services.seams.id(), fork.as_ref()).await? {
        ConversationMade::Made(made) => {
            tracing::info!(conversation.id = %made.id, agent.id = %agent_id, "a conversation was made");
            Ok(Json(conversation(&made)))
        }
        ConversationMade::NoAgent => Err(ApiError::NoAgent),
        ConversationMade::NoMessage => Err(ApiError::Unknown("the message")),
    }
}

/// The thread that a path means, and its calls that wait. `place` is where the agent is named beside `default`.
pub(super) async fn resolve(
    app: &App,
    tenant: &TenantId,
    path: ConversationPath,
    agent: Option<AgentId>,
    place: &str,
) -> Result<(Thread, Option<PendingApproval>), ApiError> {
    let own = match path {
        ConversationPath::Conversation(id) => {
            let found = known(app, tenant, id).await?;
            return Ok((found.thread(), found.pending_approval));
        }
        ConversationPath::Default => agent.ok_or_else(|| required(place))?,
        ConversationPath::Agent(id) => id,
    };
    let found = app.services.store.agent(tenant, own).await?.ok_or(ApiError::NoAgent)?;
    Ok((Thread::own(own), found.pending_approval))
}

/// The conversation itself, where an agent's own thread would not do.
async fn find(app: &App, tenant: &TenantId, path: ConversationPath) -> Result<Conversation, ApiError> {
    match path {
        ConversationPath::Conversation(id) => known(app, tenant, id).await,
        ConversationPath::Default | ConversationPath::Agent(_) => Err(ApiError::NO_CONVERSATION),
    }
}

async fn known(app: &App, tenant: &TenantId, id: ConversationId) -> Result<Conversation, ApiError> {
    app.services.store.conversation(tenant, id).await?.ok_or(ApiError::NO_CONVERSATION)
}

async fn check_model(app: &App, model: Option<&ModelHandle>) -> Result<(), ApiError> {
    match model {
        Some(model) if !app.services.catalogue.knows(model).await => Err(ApiError::NoModel(model.clone())),
        Some(_) | None => Ok(()),
    }
}

fn required(place: &str) -> ApiError {
    ApiError::Malformed(format!("{place}: is required"))
}
