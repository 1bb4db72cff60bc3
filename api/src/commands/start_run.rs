//! Accepts a run: the checks in the contract's order (api/01 §6), then run, input and intent in one transaction.

use holdfast_shared::domain::Timestamp;
use holdfast_shared::domain::ids::{AgentId, RunId};
use holdfast_shared::domain::message::{Body, Message};
use holdfast_shared::domain::position::SeqId;
use holdfast_shared::domain::run::{Attachment, Run, RunRequest, RunState, RunType, StreamMode};
use holdfast_shared::domain::tenant::TenantId;
use holdfast_shared::domain::usage::RunUsage;
use holdfast_shared::ports::seams::Seams;
use holdfast_shared::ports::store::{Accepted, NewRun, RequestKey};
use holdfast_shared::wire::event::Encoder;
use holdfast_shared::wire::request::{InputMessage, InputRole, SendRequest};
use sha2::{Digest, Sha256};

use crate::App;
use crate::error::ApiError;

/// A wish for a run.
pub(crate) struct StartRun {
    /// Who wants it.
    pub(crate) tenant: TenantId,
    /// The agent that shall run.
    pub(crate) agent: AgentId,
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
    let StartRun { tenant, agent, request, run_type, trace, is_retry } = wish;
    if services.store.agent(&tenant, agent).await?.is_none() {
        return Err(ApiError::NoAgent);
    }
    if let Some(model) = &request.override_model
        && !services.catalogue.knows(model).await
    {
        return Err(ApiError::NoModel(model.clone()));
    }
    let key = request_key(agent, &request);
    if let Some(key) = &key {
        match services.store.run_by_key(agent, key).await? {
            None => {}
            Some(Accepted::Known(run)) => return Ok(known(*run)),
            Some(Accepted::KeyReused(run)) => return Err(ApiError::KeyReused(run)),
            Some(other) => {
                return Err(ApiError::Internal(format!("a look-up by key answered {other:?}")));
            }
        }
    }
    let content = joinable_content(run_type, key.as_ref(), &request);
    if let Some(content) = content.as_deref().filter(|_| is_retry)
        && let Some(run) = services.store.active_run_by_content(agent, content).await?
    {
        return Ok(known(run));
    }
    // Approval requests are not made yet, so that no answer can have one to go to.
    if request.answers_calls() {
        return Err(ApiError::NothingAwaitingApproval);
    }
    request.check_content()?;
    let attachment = attachment(run_type, request.background);
    if attachment == Attachment::Background {
        // Nobody is promised a stream that cannot be served: better to refuse while nothing is stored.
        services.log.ping().await?;
    }
    let parts = NewRunParts { tenant, agent, attachment, run_type, key, content, trace };
    let new = new_run(parts, request, app.options.max_queued_runs, &services.seams)?;
    match services.store.accept_run(&new).await? {
        Accepted::New(entry) => {
            services.relay.nudge(vec![entry]);
            tracing::info!(run.id = %new.run.id, agent.id = %agent, "a run was accepted");
            Ok(Started::New(new.run))
        }
        // The same request came twice at the same time; the other one won.
        Accepted::Known(run) => Ok(known(*run)),
        Accepted::KeyReused(run) => Err(ApiError::KeyReused(run)),
        Accepted::NoAgent => Err(ApiError::NoAgent),
        Accepted::TooMany(run) | Accepted::BeingAnswered(run) => Err(ApiError::Busy(run)),
        Accepted::ApprovalPending(request) => Err(ApiError::PendingApproval(request)),
        Accepted::NothingPending => Err(ApiError::NothingAwaitingApproval),
    }
}

fn known(run: Run) -> Started {
    tracing::info!(run.id = %run.id, agent.id = %run.agent_id, "a repeated request is answered by its run");
    Started::Known(run)
}

const fn attachment(run_type: RunType, background: bool) -> Attachment {
    match (run_type, background) {
        (RunType::SendMessageAsync, _) | (_, true) => Attachment::Background,
        (RunType::SendMessage | RunType::SendMessageStreaming, false) => Attachment::Foreground,
    }
}

/// The idempotency key of a request; `None` unless the client gave every message an `otid` (api/03 §6).
fn request_key(agent: AgentId, request: &SendRequest) -> Option<RequestKey> {
    let otids = request.otids()?;
    // JSON keeps the parts apart whatever they hold.
    Some(RequestKey { key: sha256_hex(&(agent, otids))?, content: sha256_hex(request)? })
}

/// By what a repeat finds the run of a request that waits for its answer and has no key. The SDKs give such a request up
/// after a minute of silence and send it again; it must not run twice for that (api/00 §5).
fn joinable_content(run_type: RunType, key: Option<&RequestKey>, request: &SendRequest) -> Option<String> {
    match (run_type, key) {
        (RunType::SendMessage, None) => sha256_hex(request),
        _ => None,
    }
}

fn sha256_hex(value: &impl serde::Serialize) -> Option<String> {
    let bytes = serde_json::to_vec(value).ok()?;
    Some(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What a new run is made from, besides the request.
struct NewRunParts {
    tenant: TenantId,
    agent: AgentId,
    attachment: Attachment,
    run_type: RunType,
    key: Option<RequestKey>,
    content: Option<String>,
    trace: Option<String>,
}

fn new_run(parts: NewRunParts, request: SendRequest, max_queued: u32, seams: &Seams) -> Result<NewRun, ApiError> {
    let NewRunParts { tenant, agent, attachment, run_type, key, content, trace } = parts;
    let now = seams.now();
    let id: RunId = seams.id();
    let mut encoder = Encoder::new(id, attachment, SeqId::START);
    let mut opening = Vec::new();
    if request.include_pings {
        opening.push(encoder.ping(seams.id(), now));
    }
    let mut input = Vec::with_capacity(request.input.len());
    for message in request.input {
        input.push(stored(message, agent, id, now, seams)?);
    }
    let run = Run {
        id,
        tenant,
        agent_id: agent,
        request: RunRequest {
            run_type,
            attachment,
            mode: if request.stream_tokens { StreamMode::Tokens } else { StreamMode::Steps },
            include_pings: request.include_pings,
            max_steps: request.max_steps,
            include_types: request.include_types,
            override_model: request.override_model,
            override_system: request.override_system,
            use_assistant_message: request.use_assistant_message,
            assistant_message_tool_name: request.assistant_message_tool_name,
            assistant_message_tool_kwarg: request.assistant_message_tool_kwarg,
            callback_url: request.callback_url,
            client_tools: request.client_tools,
            client_skills: request.client_skills,
            include_compaction: request.include_compaction_messages,
            answering: None,
        },
        state: RunState::Created,
        cancel_requested: false,
        usage: RunUsage::default(),
        archived: encoder.last(),
        created_at: now,
        ttft_ns: None,
    };
    Ok(NewRun { run, input, key, content, opening, trace, max_queued })
}

fn stored(
    message: InputMessage,
    agent_id: AgentId,
    run: RunId,
    created_at: Timestamp,
    seams: &Seams,
) -> Result<Message, ApiError> {
    let (body, labels) = match message {
        InputMessage::Message { role: InputRole::User, content, labels } => (Body::User(content), labels),
        InputMessage::Message { role: InputRole::System, content, labels } => (Body::System(content), labels),
        InputMessage::Message { role: InputRole::Assistant, content, labels } => (Body::History(content), labels),
        InputMessage::Answers { .. } => return Err(ApiError::NothingAwaitingApproval),
    };
    Ok(Message { id: seams.id(), agent_id, run_id: Some(run), step_id: None, body, labels, created_at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn key(body: &Value) -> Option<RequestKey> {
        let agent: AgentId = "agent-123e4567-e89b-42d3-8456-426614174000".parse().expect("an id");
        request_key(agent, &SendRequest::parse(body).expect("a request"))
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

    #[test]
    fn a_run_opens_with_the_stored_ping_unless_pings_are_off() {
        let agent: AgentId = "agent-123e4567-e89b-42d3-8456-426614174000".parse().expect("an id");
        for (body, events) in [(json!({"input": "x"}), 1), (json!({"input": "x", "include_pings": false}), 0)] {
            let parts = NewRunParts {
                tenant: TenantId::default(),
                agent,
                attachment: Attachment::Background,
                run_type: RunType::SendMessageStreaming,
                key: None,
                content: None,
                trace: None,
            };
            let request = SendRequest::parse(&body).expect("a request");
            let new = new_run(parts, request, 5, &Seams::system()).expect("a run");
            assert_eq!(new.opening.len(), events);
            assert_eq!(new.run.archived, SeqId::new(events as u64));
            assert_eq!(new.input.len(), 1);
        }
    }
}
