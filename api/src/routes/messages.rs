//! Messages: the three ways to send, the list, and cancel (api/01, api/03 §4 and §7).

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use holdfast_shared::domain::agent::Agent;
use holdfast_shared::domain::ids::{AgentId, MessageId, RunId};
use holdfast_shared::domain::message::Body;
use holdfast_shared::domain::model::ModelHandle;
use holdfast_shared::domain::page::{Order, Page};
use holdfast_shared::domain::position::SeqId;
use holdfast_shared::domain::run::{Run, RunState, RunType, RunWork, Speech};
use holdfast_shared::domain::tenant::TenantId;
use holdfast_shared::domain::thread::{Thread, ThreadScope};
use holdfast_shared::ports::store::{MessageFilter, MessageScope, all_messages};
use holdfast_shared::telemetry::traces::{self, TRACEPARENT};
use holdfast_shared::wire::compaction::{compaction, compaction_settings};
use holdfast_shared::wire::request::SendRequest;
use holdfast_shared::wire::response::{LettaResponse, shown};
use holdfast_shared::wire::run as wire_run;
use serde_json::{Map, Value};

use crate::App;
use crate::commands::cancel_runs;
use crate::commands::do_work::do_work;
use crate::commands::start_run::{StartRun, start_run};
use crate::error::ApiError;
use crate::extract::{AgentPath, JsonBody, OptionalJsonBody, QueryFields, Tenant};
use crate::fanout::{IdLines, Pings, StreamOptions};

/// Rows of a page that does not say.
const PAGE: u32 = 100;

pub(crate) async fn stream(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    AgentPath(agent): AgentPath,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let request = SendRequest::parse(&body)?;
    send_streaming(&app, Send::to_agent(&app, tenant, agent, RunType::SendMessageStreaming), request, &headers).await
}

/// One JSON answer after the run, or with `streaming` the same as [`stream`].
pub(crate) async fn create(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    AgentPath(agent): AgentPath,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let request = SendRequest::parse(&body)?;
    if request.streaming {
        let send = Send::to_agent(&app, tenant, agent, RunType::SendMessageStreaming);
        return send_streaming(&app, send, request, &headers).await;
    }
    send_waiting(&app, Send::to_agent(&app, tenant, agent, RunType::SendMessage), request, &headers).await
}

/// The run at once.
pub(crate) async fn create_async(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    AgentPath(agent): AgentPath,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let request = SendRequest::parse_async(&body)?;
    let send = Send::to_agent(&app, tenant, agent, RunType::SendMessageAsync);
    let run = start_run(&app, send.wish(request, &headers)).await?.into_run();
    Ok(Json(wire_run::run(&run)))
}

pub(crate) async fn list(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    AgentPath(agent): AgentPath,
    query: QueryFields,
) -> Result<Response, ApiError> {
    let include = query.message_types()?;
    let (page, is_reversed) = list_page(query.order()?, query.id("after")?, query.id("before")?, query.limit(PAGE)?);
    let found = app.services.store.agent(&tenant, agent).await?.ok_or(ApiError::NoAgent)?;
    let speech = speech(&query, &found)?;
    query.check_order_by("created_at")?;
    // All that is stored is listed, failed calls of tools included: of failed steps nothing is kept that could be added.
    query.boolean("include_err")?;
    let threads = query.threads()?;
    let filter = match threads {
        ThreadScope::All => MessageFilter::agent(agent),
        ThreadScope::Own => MessageFilter::thread(Thread::own(agent)),
        ThreadScope::Conversation(id) => {
            let known = app.services.store.conversation(&tenant, id).await?;
            let known = known.filter(|known| known.agent_id == agent).ok_or(ApiError::NO_CONVERSATION)?;
            MessageFilter::thread(known.thread())
        }
    };
    let mut messages = match query.one("group_id") {
        None => app.services.store.messages(&filter, &page).await?,
        Some(group) => {
            let scope = MessageScope::Group { agent, threads, group: group.to_owned() };
            let found = app.services.store.find_messages(&tenant, &scope, &page).await?;
            found.into_iter().map(|one| one.message).collect()
        }
    };
    if is_reversed {
        messages.reverse();
    }
    Ok(Json(shown(&messages, include.as_deref(), speech.as_ref())).into_response())
}

/// How calls of a legacy agent's message tool are listed (api/01 §1).
pub(super) fn speech(query: &QueryFields, agent: &Agent) -> Result<Option<Speech>, ApiError> {
    let is_wanted = query.boolean("use_assistant_message")?.unwrap_or(true);
    let word = |name: &str, usual: String| query.one(name).map_or(usual, str::to_owned);
    let Speech { tool, argument } = Speech::usual();
    Ok((is_wanted && agent.settings.is_legacy()).then(|| Speech {
        tool: word("assistant_message_tool_name", tool),
        argument: word("assistant_message_tool_kwarg", argument),
    }))
}

pub(crate) async fn compact(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    AgentPath(agent): AgentPath,
    headers: HeaderMap,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Json<Value>, ApiError> {
    compact_thread(&app, &tenant, Thread::own(agent), &body, &headers).await
}

pub(crate) async fn cancel(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    AgentPath(agent): AgentPath,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Json<Map<String, Value>>, ApiError> {
    let ids = wire_run::cancel_body(&body)?;
    let found = app.services.store.agent(&tenant, agent).await?.ok_or(ApiError::NoAgent)?;
    let mut answer = Map::new();
    let Some(ids) = ids else {
        let waiting = found.pending_approval.as_ref();
        let cancelled = cancel_runs::cancel_all(&app, &tenant, agent, ThreadScope::All, waiting).await?;
        return cancelled_runs(agent, &cancelled).map(Json);
    };
    for text in ids {
        let is_cancelled = match text.parse() {
            Ok(run) => cancel_runs::cancel_run(&app, &tenant, agent, run).await?,
            Err(_) => false,
        };
        answer.insert(text, Value::from(if is_cancelled { "cancelled" } else { "failed" }));
    }
    Ok(Json(answer))
}

/// Whether an SDK says that it sends the request again.
pub(super) fn is_retry(headers: &HeaderMap) -> bool {
    let count = headers.get("x-stainless-retry-count").and_then(|value| value.to_str().ok());
    count.is_some_and(|count| count != "0")
}

/// Compacts the context of a thread, by a worker.
pub(super) async fn compact_thread(
    app: &App,
    tenant: &TenantId,
    thread: Thread,
    body: &Value,
    headers: &HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let settings = compaction_settings(body)?;
    if let Some(model) = settings.as_ref().and_then(|settings| ModelHandle::parse(settings.get("model")?.as_str()?))
        && !app.services.catalogue.knows(&model).await
    {
        return Err(ApiError::NoModel(model));
    }
    let work = (RunType::Summarize, RunWork::Compact { settings });
    let run = do_work(app, tenant, thread, work, is_retry(headers)).await?;
    let messages = all_messages(&*app.services.store, &MessageFilter::run(run.agent_id, run.id)).await?;
    let summary = messages.iter().find_map(|message| match &message.body {
        Body::Summary(summary) => Some(summary),
        _ => None,
    });
    let nothing = "INVALID_ARGUMENT: there is nothing to compact: the context would not get smaller";
    summary.map(|summary| Json(compaction(summary))).ok_or_else(|| ApiError::Unacceptable(nothing.to_owned()))
}

/// What a cancel of all active runs answers.
pub(super) fn cancelled_runs(agent: AgentId, cancelled: &[RunId]) -> Result<Map<String, Value>, ApiError> {
    if cancelled.is_empty() {
        return Err(ApiError::NothingToCancel(agent));
    }
    Ok(cancelled.iter().map(|run| (run.to_string(), Value::from("cancelled"))).collect())
}

/// A send: by whom, to which thread, and by which path.
pub(super) struct Send {
    pub(super) tenant: TenantId,
    pub(super) thread: Thread,
    pub(super) run_type: RunType,
    /// Most runs of the thread that may be created or running.
    pub(super) max_queued: u32,
}

impl Send {
    /// To an agent's own thread, where requests queue up.
    fn to_agent(app: &App, tenant: TenantId, agent: AgentId, run_type: RunType) -> Self {
        Self { tenant, thread: Thread::own(agent), run_type, max_queued: app.options.max_queued_runs }
    }

    fn wish(self, request: SendRequest, headers: &HeaderMap) -> StartRun {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let is_retry = is_retry(headers);
        let Self { tenant, thread, run_type, max_queued } = self;
        if is_retry {
            // Without otids a repeated stream cannot be told from a new one: who wonders about double runs finds this
            // line.
            tracing::info!(agent.id = %thread.agent, "an SDK repeats a request");
        }
        // The form has a fixed length in every version that exists; anything longer is not one.
        let given = || text(TRACEPARENT).filter(|trace| trace.len() <= 64).map(str::to_owned);
        let trace = traces::current().or_else(given);
        StartRun { tenant, thread, max_queued, request, run_type, trace, is_retry }
    }
}

/// Answers with the stream of the run.
pub(super) async fn send_streaming(
    app: &App,
    send: Send,
    request: SendRequest,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let pings = if request.include_pings { Pings::Events } else { Pings::Comments };
    let run = start_run(app, send.wish(request, headers)).await?.into_run();
    let id = run.id;
    let options = StreamOptions { after: SeqId::START, pings, id_lines: IdLines::Hidden };
    app.services.hub.stream(run, options).await.map_err(|error| ApiError::of_fanout(error, id))
}

/// Answers with all that came of the run, when it has ended.
pub(super) async fn send_waiting(
    app: &App,
    send: Send,
    request: SendRequest,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    check_without_streaming(&request)?;
    let tenant = send.tenant.clone();
    let run = start_run(app, send.wish(request, headers)).await?.into_run();
    answer(app, &tenant, run).await
}

/// What makes no sense without a stream (api/03 §7).
fn check_without_streaming(request: &SendRequest) -> Result<(), ApiError> {
    for (is_wrong, field) in [
        (request.stream_tokens, "body.stream_tokens: true"),
        (request.background, "body.background: true"),
        (!request.include_pings, "body.include_pings: false"),
    ] {
        if is_wrong {
            return Err(ApiError::Malformed(format!("{field} needs 'streaming': true")));
        }
    }
    Ok(())
}

/// Waits for the end of a run and tells all that came of it.
async fn answer(app: &App, tenant: &TenantId, run: Run) -> Result<Response, ApiError> {
    let id = run.id;
    let run = app.services.hub.ended(tenant, id).await.map_err(|error| ApiError::of_fanout(error, id))?;
    let (reason, error) = match &run.state {
        RunState::Ended { reason, error, .. } => (*reason, error.clone()),
        RunState::Created | RunState::Running => {
            return Err(ApiError::Internal(format!("run {id} should have ended")));
        }
    };
    if let Some(error) = error {
        return Err(ApiError::RunFailed(id, error));
    }
    let messages = all_messages(&*app.services.store, &MessageFilter::run(run.agent_id, run.id)).await?;
    Ok(Json(LettaResponse::new(&run, reason, &messages)).into_response())
}

/// The page to read, and whether it is shown in reverse. Without an order the list answers by time whatever the
/// cursors: the newest rows, the next newer or the next older ones, always oldest first (api/00 §4).
fn list_page(
    order: Option<Order>,
    after: Option<MessageId>,
    before: Option<MessageId>,
    limit: u32,
) -> (Page<MessageId>, bool) {
    match (order, after, before) {
        (Some(order), after, before) => (Page { after, before, limit, order }, false),
        (None, Some(after), before) => (Page { after: Some(after), before, limit, order: Order::Ascending }, false),
        // Older than the cursor comes after it when the newest is first.
        (None, None, before) => (Page { after: before, before: None, limit, order: Order::Descending }, true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_shared::ports::seams::Seams;
    use serde_json::json;

    #[test]
    fn a_list_without_order_is_by_time_and_oldest_first() {
        use Order::{Ascending, Descending};
        let (one, two): (MessageId, MessageId) = (Seams::system().id(), Seams::system().id());
        let page = |after, before, order| Page { after, before, limit: 10, order };
        for (order, after, before, expected) in [
            (None, None, None, (page(None, None, Descending), true)),
            (None, Some(one), None, (page(Some(one), None, Ascending), false)),
            (None, None, Some(one), (page(Some(one), None, Descending), true)),
            (None, Some(one), Some(two), (page(Some(one), Some(two), Ascending), false)),
            (Some(Descending), Some(one), None, (page(Some(one), None, Descending), false)),
            (Some(Ascending), None, Some(two), (page(None, Some(two), Ascending), false)),
        ] {
            assert_eq!(list_page(order, after, before, 10), expected, "{order:?} {after:?} {before:?}");
        }
    }

    #[test]
    fn flags_of_streams_are_refused_without_one() {
        for (body, is_allowed) in [
            (json!({"input": "x"}), true),
            (json!({"input": "x", "include_pings": true, "background": false}), true),
            (json!({"input": "x", "stream_tokens": true}), false),
            (json!({"input": "x", "background": true}), false),
            (json!({"input": "x", "include_pings": false}), false),
        ] {
            let request = SendRequest::parse(&body).expect("a request");
            assert_eq!(check_without_streaming(&request).is_ok(), is_allowed, "{body}");
        }
    }
}
