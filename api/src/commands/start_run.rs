//! Accepts a run: the checks in the contract's order (api/01 §6), then run, input and intent in one transaction.

use holdfast_shared::domain::agent::{Agent, PendingApproval};
use holdfast_shared::domain::callback::CallbackUrl;
use holdfast_shared::domain::message::{Body, Labels, Message};
use holdfast_shared::domain::run::{Attachment, Run, RunRequest, RunType, RunWork, Speech, StreamMode};
use holdfast_shared::domain::tenant::TenantId;
use holdfast_shared::domain::thread::Thread;
use holdfast_shared::outbound::OutboundError;
use holdfast_shared::ports::seams::Seams;
use holdfast_shared::ports::store::{Accepted, NewRun, RequestKey};
use holdfast_shared::wire::read::BodyError;
use holdfast_shared::wire::request::{InputMessage, SendRequest};
use sha2::{Digest, Sha256};

use super::answers::{self, Answered};
use crate::App;
use crate::error::ApiError;

/// A wish for a run.
pub(crate) struct StartRun {
    /// Who wants it.
    pub(crate) tenant: TenantId,
    /// The thread that shall have it.
    pub(crate) thread: Thread,
    /// Most runs of the thread that may be created or running, this one included.
    pub(crate) max_queued: u32,
    /// What is asked for.
    pub(crate) request: SendRequest,
    /// The path that it came by.
    pub(crate) run_type: RunType,
    /// W3C `traceparent` of the request.
    pub(crate) trace: Option<String>,
    /// Whether an SDK says that it sends the request again.
    pub(crate) is_retry: bool,
}

/// The run that answers a request.
pub(crate) enum Started {
    /// It was made for it.
    New(Run),
    /// The same request made it before.
    Known(Run),
}

impl Started {
    /// The run, whichever way it came about.
    pub(crate) fn into_run(self) -> Run {
        match self {
            Self::New(run) | Self::Known(run) => run,
        }
    }
}

/// Accepts a run, or finds the one that the same request made before.
pub(crate) async fn start_run(app: &App, wish: StartRun) -> Result<Started, ApiError> {
    let services = &app.services;
    let StartRun { tenant, thread, max_queued, mut request, run_type, trace, is_retry } = wish;
    let agent_id = thread.agent;
    let agent = services.store.agent(&tenant, agent_id).await?.ok_or(ApiError::NoAgent)?;
    let waiting = waiting(app, &tenant, thread, &agent).await?;
    if let Some(model) = &request.override_model
        && !services.catalogue.knows(model).await
    {
        return Err(ApiError::NoModel(model.clone()));
    }
    let key = request_key(thread, &request);
    if let Some(key) = &key {
        match services.store.run_by_key(agent_id, key).await? {
            None => {}
            Some(Accepted::Known(run)) => return Ok(known(*run)),
            Some(Accepted::KeyReused(run)) => return Err(ApiError::KeyReused(run)),
            Some(other) => return Err(ApiError::Internal(format!("a look-up by key answered {other:?}"))),
        }
    }
    let content = joinable_content(run_type, key.as_ref(), &request);
    if let Some(content) = content.as_deref().filter(|_| is_retry)
        && let Some(run) = services.store.active_run_by_content(thread, content).await?
    {
        return Ok(known(run));
    }
    let answered = answers::resolve(app, thread, waiting.as_ref(), &mut request).await?;
    request.check_content()?;
    if let Some(url) = request.callback_url.as_ref().and_then(CallbackUrl::url) {
        let refused = |error: OutboundError| BodyError::unacceptable("body.callback_url", &error.to_string());
        services.outbound.check(&url).map_err(refused)?;
    }
    // After the look-ups of repeats, which compare the request as it was sent and fetch nothing.
    services.images.inline(&mut request).await?;
    let attachment = attachment(run_type, request.background);
    if attachment == Attachment::Background {
        // Nobody is promised a stream that cannot be served: better to refuse while nothing is stored.
        services.log.ping().await?;
    }
    let input = input(&mut request, &agent, &answered, &services.seams);
    let run_request = run_request(request, &agent, run_type, attachment, answered);
    let new = NewRun::new(tenant.clone(), thread, run_request, input, max_queued, &services.seams);
    let new = NewRun { key, content, trace, ..new };
    match services.store.accept_run(&new).await? {
        Accepted::New(entry) => {
            services.relay.nudge(vec![entry]);
            tracing::info!(run.id = %new.run.id, agent.id = %agent_id, "a run was accepted");
            Ok(Started::New(new.run))
        }
        // The same request came twice at the same time; the other one won.
        Accepted::Known(run) => Ok(known(*run)),
        Accepted::KeyReused(run) => Err(ApiError::KeyReused(run)),
        Accepted::NoAgent => Err(ApiError::NoAgent),
        Accepted::NoConversation => Err(ApiError::NO_CONVERSATION),
        Accepted::TooMany(run) => Err(ApiError::Busy(run)),
        Accepted::BeingAnswered(run) => Err(ApiError::BeingAnswered(run)),
        Accepted::NothingPending => Err(ApiError::NothingAwaitingApproval),
        // The calls began to wait just now.
        Accepted::ApprovalPending(_) => {
            let agent = services.store.agent(&tenant, agent_id).await?.ok_or(ApiError::NoAgent)?;
            let waiting = self::waiting(app, &tenant, thread, &agent).await?;
            Err(waiting.as_ref().map_or(ApiError::Busy(new.run.id), answers::refusal))
        }
    }
}

/// The calls of a thread that wait for the client.
pub(super) async fn waiting(
    app: &App,
    tenant: &TenantId,
    thread: Thread,
    agent: &Agent,
) -> Result<Option<PendingApproval>, ApiError> {
    let Some(id) = thread.conversation else { return Ok(agent.pending_approval.clone()) };
    let conversation = app.services.store.conversation(tenant, id).await?.ok_or(ApiError::NO_CONVERSATION)?;
    Ok(conversation.pending_approval)
}

fn known(run: Run) -> Started {
    tracing::info!(run.id = %run.id, agent.id = %run.agent_id, "a repeated request is answered by its run");
    Started::Known(run)
}

const fn attachment(run_type: RunType, background: bool) -> Attachment {
    match (run_type, background) {
        (RunType::SendMessageAsync, _) | (_, true) => Attachment::Background,
        (
            RunType::SendMessage
            | RunType::SendMessageStreaming
            | RunType::SendConversationMessage
            | RunType::Summarize
            | RunType::RunTool,
            false,
        ) => Attachment::Foreground,
    }
}

/// The idempotency key of a request; `None` unless the client gave every message an `otid` (api/03 §6).
fn request_key(thread: Thread, request: &SendRequest) -> Option<RequestKey> {
    let otids = request.otids()?;
    // JSON keeps the parts apart whatever they hold.
    let key = match thread.conversation {
        None => sha256_hex(&(thread.agent, otids)),
        Some(conversation) => sha256_hex(&(thread.agent, conversation, otids)),
    };
    Some(RequestKey { key: key?, content: sha256_hex(request)? })
}

/// By what a repeat finds the run of a request that waits for its answer and has no key. The SDKs give such a request up
/// after a minute of silence and send it again; it must not run twice for that (api/00 §5).
fn joinable_content(run_type: RunType, key: Option<&RequestKey>, request: &SendRequest) -> Option<String> {
    let waits = match run_type {
        RunType::SendMessage => true,
        RunType::SendConversationMessage => !request.streaming,
        RunType::SendMessageStreaming | RunType::SendMessageAsync | RunType::Summarize | RunType::RunTool => false,
    };
    if waits && key.is_none() { sha256_hex(request) } else { None }
}

pub(super) fn sha256_hex(value: &impl serde::Serialize) -> Option<String> {
    let bytes = serde_json::to_vec(value).ok()?;
    Some(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The messages that the run begins with.
fn input(request: &mut SendRequest, agent: &Agent, answered: &Answered, seams: &Seams) -> Vec<Message> {
    let message = |body, labels, step_id| Message {
        id: seams.id(),
        agent_id: agent.id,
        run_id: None,
        step_id,
        body,
        labels,
        created_at: seams.now(),
    };
    let mut input = Vec::with_capacity(request.input.len());
    for given in std::mem::take(&mut request.input) {
        input.push(match given {
            InputMessage::Message { role, content, labels } => message(role.body(content), labels, None),
            InputMessage::Answers { answers, labels } => {
                message(Body::ApprovalResponse(answers), labels, answered.answering().map(|answering| answering.step))
            }
        });
    }
    if input.is_empty() {
        input.push(message(Body::Note(answers::keep_alive(seams.now())), Labels::default(), None));
    }
    input
}

fn run_request(
    request: SendRequest,
    agent: &Agent,
    run_type: RunType,
    attachment: Attachment,
    answered: Answered,
) -> RunRequest {
    let speech = request.use_assistant_message && agent.settings.is_legacy();
    RunRequest {
        run_type,
        work: RunWork::Answer,
        attachment,
        mode: if request.stream_tokens { StreamMode::Tokens } else { StreamMode::Steps },
        include_pings: request.include_pings,
        max_steps: request.max_steps,
        include_types: request.include_types,
        override_model: request.override_model,
        override_system: request.override_system,
        speech: speech.then(|| Speech {
            tool: request.assistant_message_tool_name.clone(),
            argument: request.assistant_message_tool_kwarg.clone(),
        }),
        use_assistant_message: request.use_assistant_message,
        assistant_message_tool_name: request.assistant_message_tool_name,
        assistant_message_tool_kwarg: request.assistant_message_tool_kwarg,
        callback_url: request.callback_url,
        client_tools: request.client_tools,
        client_skills: request.client_skills,
        include_compaction: request.include_compaction_messages,
        answering: answered.answering(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_shared::domain::ids::AgentId;
    use serde_json::{Value, json};

    fn key(body: &Value) -> Option<RequestKey> {
        let agent: AgentId = "agent-123e4567-e89b-42d3-8456-426614174000".parse().expect("an id");
        request_key(Thread::own(agent), &SendRequest::parse(body).expect("a request"))
    }

    #[test]
    fn only_requests_with_an_otid_on_every_message_have_a_key() {
        assert_eq!(key(&json!({"input": "x"})), None);
        let half =
            json!({"messages": [{"role": "user", "content": "a", "otid": "1"}, {"role": "user", "content": "b"}]});
        assert_eq!(key(&half), None);
        assert!(key(&json!({"messages": [{"role": "user", "content": "a", "otid": "1"}]})).is_some());
    }

    #[test]
    fn the_key_holds_the_otids_and_the_content_all_else() {
        let of = |otids: [&str; 2], text: &str, extra: Value| {
            let mut body = json!({"messages": [
                {"role": "user", "content": text, "otid": otids[0]},
                {"role": "user", "content": "b", "otid": otids[1]},
            ]});
            body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
            key(&body).expect("a key")
        };
        let first = of(["1", "2"], "a", json!({}));
        assert_eq!(first, of(["1", "2"], "a", json!({"max_steps": 50.0, "background": null, "unknown": 1})));
        assert_eq!(first, of(["1", "2"], "a", json!({"streaming": true})));
        let other_text = of(["1", "2"], "c", json!({}));
        assert_eq!(first.key, other_text.key);
        assert_ne!(first.content, other_text.content);
        assert_ne!(first.key, of(["2", "1"], "a", json!({})).key);
        assert_ne!(first.key, of(["1\",\"2", "3"], "a", json!({})).key);
    }
}
