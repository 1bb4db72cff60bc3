//! Every refusal of the API, and the one mapping to HTTP (api/00 §5).

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use holdfast_shared::domain::ids::{AgentId, MessageId, RunId};
use holdfast_shared::domain::model::ModelHandle;
use holdfast_shared::domain::run::{ErrorType, RunError};
use holdfast_shared::ports::event_log::LogError;
use holdfast_shared::ports::store::StoreError;
use holdfast_shared::wire::error::{Detail, Failed, Malformed, PendingApproval, PendingApprovalDetail};
use holdfast_shared::wire::read::BodyError;

use crate::fanout::FanoutError;

/// The SDKs' own switch: it beats what they would do for the status.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// The code words that texts begin with, so that clients can tell errors apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// No such thing.
    NotFound,
    /// Something in the request cannot be done.
    InvalidArgument,
    /// The state of things is against it.
    Conflict,
    /// It was there, and is gone.
    Expired,
    /// A defect.
    InternalServerError,
}

impl ErrorCode {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "NOT_FOUND",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::Conflict => "CONFLICT",
            Self::Expired => "EXPIRED",
            Self::InternalServerError => "INTERNAL_SERVER_ERROR",
        }
    }
}

/// A refusal.
#[derive(Debug)]
pub enum ApiError {
    /// No key, or a wrong one.
    Unauthorized,
    /// Nothing is served at this path.
    NoRoute,
    /// The path does not know the method.
    MethodNotAllowed,
    /// An id in the path has not the form that it should have; holds the prefix.
    BadPathId(&'static str),
    /// The id of a run has not the form that it should have.
    BadRunId,
    /// The request has not the form that it should have: a text that names the field.
    Malformed(String),
    /// The request says something that cannot be done: a text that begins with its code.
    Unacceptable(String),
    /// The body is larger than allowed.
    TooLarge {
        /// Most bytes.
        limit: usize,
    },
    /// No such agent.
    NoAgent,
    /// No such run.
    NoRun(RunId),
    /// No such model.
    NoModel(ModelHandle),
    /// No such thing; holds its name.
    Unknown(&'static str),
    /// Another block of an agent has the label.
    LabelTaken(String),
    /// A message came while a tool call waits for approval.
    PendingApproval(Box<PendingCalls>),
    /// An answer came while no call waits for one.
    NothingAwaitingApproval,
    /// A run answers these calls already.
    BeingAnswered(RunId),
    /// The agent has too many runs; this one is active.
    Busy(RunId),
    /// The `otid`s were used for a request that asked for something else.
    KeyReused(RunId),
    /// What is asked for has to wait for the end of this run; says what.
    Active(RunId, &'static str),
    /// The run cannot be deleted: its calls wait for the client.
    CallsWait(RunId),
    /// A message was to be changed.
    FixedMessage,
    /// The agent has no active runs.
    NothingToCancel(AgentId),
    /// The run's stream cannot be resumed.
    NotBackground,
    /// The run's events are gone.
    EventsGone(RunId),
    /// The run that was waited for was cancelled.
    Cancelled(RunId),
    /// The run failed while the connection waited for its answer.
    RunFailed(RunId, RunError),
    /// The database is down.
    StoreUnavailable(String),
    /// The event log is down.
    LogUnavailable(String),
    /// The service stops.
    ShuttingDown,
    /// A defect; the text is for the log only.
    Internal(String),
}

/// Calls that wait for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingCalls {
    /// The message that has them.
    pub request: MessageId,
    /// The run that asked.
    pub run: Option<RunId>,
    /// Id and tool of each.
    pub calls: Vec<(String, String)>,
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Malformed(text) => Self::Malformed(text),
            BodyError::Unacceptable(text) => Self::Unacceptable(text),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::UnknownCursor => Self::UNKNOWN_CURSOR,
            StoreError::UnknownBlocks(ids) => {
                let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
                Self::Unacceptable(format!("INVALID_ARGUMENT: body.block_ids: unknown blocks: {}", ids.join(", ")))
            }
            StoreError::LabelTwice(label) => Self::LabelTaken(label),
            StoreError::Unavailable(source) => Self::StoreUnavailable(source.to_string()),
            StoreError::Fenced | StoreError::Corrupt(_) => Self::Internal(error.to_string()),
        }
    }
}

impl From<LogError> for ApiError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Unavailable(why) => Self::LogUnavailable(why),
            LogError::Fenced { .. } | LogError::Position { .. } => Self::Internal(error.to_string()),
        }
    }
}

impl ApiError {
    /// The cursor of a page names nothing in the list.
    pub(crate) const UNKNOWN_CURSOR: Self = Self::Unknown("the cursor of the page");

    /// No such conversation for this tenant.
    pub(crate) const NO_CONVERSATION: Self = Self::Unknown("the conversation");

    /// What fan-out says of a run.
    pub(crate) fn of_fanout(error: FanoutError, run: RunId) -> Self {
        match error {
            FanoutError::Expired => Self::EventsGone(run),
            FanoutError::Store(error) => error.into(),
            FanoutError::Log(error) => error.into(),
            FanoutError::ShuttingDown => Self::ShuttingDown,
        }
    }

    /// The status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::BadRunId | Self::Unacceptable(_) | Self::NothingAwaitingApproval | Self::NotBackground => {
                StatusCode::BAD_REQUEST
            }
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::NoRoute | Self::NoAgent | Self::NoRun(_) | Self::NoModel(_) | Self::Unknown(_) => {
                StatusCode::NOT_FOUND
            }
            Self::MethodNotAllowed | Self::FixedMessage => StatusCode::METHOD_NOT_ALLOWED,
            Self::LabelTaken(_)
            | Self::PendingApproval(_)
            | Self::BeingAnswered(_)
            | Self::Busy(_)
            | Self::Active(..)
            | Self::CallsWait(_)
            | Self::NothingToCancel(_)
            | Self::Cancelled(_) => StatusCode::CONFLICT,
            Self::EventsGone(_) => StatusCode::GONE,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BadPathId(_) | Self::Malformed(_) | Self::KeyReused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::RunFailed(_, error) => failure_status(error.error_type),
            Self::StoreUnavailable(_) | Self::LogUnavailable(_) | Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether the SDKs must not repeat the request by themselves although the status would make them.
    const fn forbids_retry(&self) -> bool {
        match self {
            // Waiting does not help.
            Self::LabelTaken(_)
            | Self::PendingApproval(_)
            | Self::BeingAnswered(_)
            | Self::CallsWait(_)
            | Self::NothingToCancel(_)
            | Self::Cancelled(_) => true,
            // The request was accepted and carried out: a repeat would give the agent the same input again.
            Self::RunFailed(..) => true,
            Self::Unauthorized
            | Self::NoRoute
            | Self::MethodNotAllowed
            | Self::BadPathId(_)
            | Self::BadRunId
            | Self::Malformed(_)
            | Self::Unacceptable(_)
            | Self::TooLarge { .. }
            | Self::NoAgent
            | Self::NoRun(_)
            | Self::NoModel(_)
            | Self::Unknown(_)
            | Self::NothingAwaitingApproval
            | Self::Busy(_)
            | Self::Active(..)
            | Self::FixedMessage
            | Self::KeyReused(_)
            | Self::NotBackground
            | Self::EventsGone(_)
            | Self::StoreUnavailable(_)
            | Self::LogUnavailable(_)
            | Self::ShuttingDown
            | Self::Internal(_) => false,
        }
    }

    /// How many seconds to wait before a repeat.
    const fn retry_after(&self) -> Option<u16> {
        match self {
            Self::Busy(_) | Self::Active(..) | Self::StoreUnavailable(_) | Self::LogUnavailable(_) => Some(2),
            Self::ShuttingDown => Some(1),
            _ => None,
        }
    }

    /// Error = a defect, warn = something that we depend on; the rest is the client's affair.
    fn log(&self) {
        match self {
            Self::Internal(why) => tracing::error!(error = %why, "a request met a defect"),
            Self::StoreUnavailable(why) => tracing::warn!(error = %why, "a request was refused: no database"),
            Self::LogUnavailable(why) => tracing::warn!(error = %why, "a request was refused: no event log"),
            other => tracing::debug!(error = ?other, status = other.status().as_u16(), "a request was refused"),
        }
    }

    fn body(&self) -> Response {
        use ErrorCode::{Conflict, Expired, InternalServerError, InvalidArgument, NotFound};
        let coded = |code: ErrorCode, text: &str| detail(&format!("{}: {text}", code.as_str()), None);
        match self {
            Self::Unauthorized => detail("Unauthorized", None),
            Self::NoRoute => detail("Not Found", None),
            Self::MethodNotAllowed => detail("Method Not Allowed", None),
            Self::BadPathId(prefix) => {
                let example = format!("{prefix}-123e4567-e89b-42d3-8456-426614174000");
                let text = format!("String should match pattern '{prefix}-{{uuid4}}'");
                Json(Malformed { detail: &text, trace_id: "", examples: Some([example]) }).into_response()
            }
            Self::Malformed(text) => Json(Malformed { detail: text, trace_id: "", examples: None }).into_response(),
            Self::BadRunId => coded(InvalidArgument, "a run id has the form 'run-{uuid4}'"),
            Self::Unacceptable(text) => detail(text, None),
            Self::TooLarge { limit } => {
                detail(&format!("body: larger than {limit} bytes, the value of HOLDFAST_MAX_BODY_BYTES"), None)
            }
            Self::NoAgent => detail("Agent not found", None),
            Self::NoRun(run) => detail(&format!("Run with id {run} not found"), None),
            Self::NoModel(model) => coded(NotFound, &format!("the model '{model}' is not known; see GET /v1/models/")),
            Self::Unknown(what) => coded(NotFound, &format!("{what} was not found")),
            Self::LabelTaken(label) => {
                coded(Conflict, &format!("the agent has another block with the label '{label}'; choose another one"))
            }
            Self::PendingApproval(pending) => pending_approval(pending),
            Self::BeingAnswered(run) => detail(
                &format!(
                    "CONFLICT: these calls are answered already, and the answer (run_id={run}) is currently being \
                     processed: read that run instead."
                ),
                Some(*run),
            ),
            Self::NothingAwaitingApproval => {
                coded(InvalidArgument, "No tool call is currently awaiting approval on this agent.")
            }
            Self::Busy(run) => detail(
                &format!(
                    "CONFLICT: another request (run_id={run}) is currently being processed for this agent, and no more \
                     are queued behind it."
                ),
                Some(*run),
            ),
            Self::Active(run, what) => {
                detail(&format!("CONFLICT: run {run} is currently being processed; {what}."), Some(*run))
            }
            Self::CallsWait(run) => detail(
                "CONFLICT: tool calls of this run wait for an answer: answer them, or cancel the run, and delete it then.",
                Some(*run),
            ),
            Self::FixedMessage => detail("Messages cannot be changed.", None),
            Self::KeyReused(run) => detail(
                &format!("body: these otids were used for another request (run_id={run}); a new one needs its own"),
                Some(*run),
            ),
            Self::NothingToCancel(agent) => coded(Conflict, &format!("No active runs to cancel for agent {agent}")),
            Self::NotBackground => {
                coded(InvalidArgument, "this run was not started in background mode, so it has no stored stream.")
            }
            Self::Cancelled(run) => detail(&format!("CONFLICT: the run {run} was cancelled."), Some(*run)),
            Self::EventsGone(run) => {
                detail(&format!("{}: the events of this run are no longer kept.", Expired.as_str()), Some(*run))
            }
            Self::RunFailed(run, error) => Json(Failed::new(*run, error)).into_response(),
            Self::StoreUnavailable(_) => detail("The database cannot be reached; try again.", None),
            Self::LogUnavailable(_) => {
                detail("Background streaming is unavailable: the event store cannot be reached.", None)
            }
            Self::ShuttingDown => detail("The service is about to stop; try again.", None),
            Self::Internal(_) => coded(InternalServerError, "an unexpected error; see the server's log"),
        }
    }
}

/// What blocks the agent, and how to clear it.
fn pending_approval(pending: &PendingCalls) -> Response {
    let calls: Vec<_> = pending.calls.iter().map(|(id, tool)| format!("{id} ({tool})")).collect();
    let run = pending.run.map_or_else(|| "the run that asked".to_owned(), |run| run.to_string());
    let message = format!(
        "CONFLICT: this agent is waiting for approval on a tool call: {}. Answer with a message of type 'approval' that \
         has one entry for each call, or cancel the request by POST .../messages/cancel with {{\"run_ids\": \
         [\"{run}\"]}}.",
        calls.join(", ")
    );
    let inner = PendingApprovalDetail {
        code: "PENDING_APPROVAL",
        message: &message,
        pending_request_id: pending.request,
        run_id: pending.run,
        tool_call_ids: pending.calls.iter().map(|(id, _)| id.as_str()).collect(),
    };
    Json(PendingApproval { detail: inner, message: &message }).into_response()
}

/// How a failed run is told on a connection that waits for its answer (api/03 §7).
const fn failure_status(error_type: ErrorType) -> StatusCode {
    match error_type {
        ErrorType::LlmTimeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorType::LlmRateLimit => StatusCode::TOO_MANY_REQUESTS,
        ErrorType::LlmAuthentication => StatusCode::UNAUTHORIZED,
        ErrorType::LlmError
        | ErrorType::LlmEmptyResponse
        | ErrorType::ContextWindowOverflowInSystemPrompt
        | ErrorType::InternalError
        | ErrorType::StreamIncomplete => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn detail(text: &str, run_id: Option<RunId>) -> Response {
    Json(Detail { detail: text, run_id }).into_response()
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.log();
        let mut response = self.body();
        *response.status_mut() = self.status();
        if self.forbids_retry() {
            response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        if let Some(seconds) = self.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const UUID: &str = "5b1a819e-f728-47fd-95d6-b8079a849111";

    async fn check(error: ApiError, status: u16, retry: (Option<&str>, Option<&str>), expected: Value) {
        let response = error.into_response();
        assert_eq!(response.status().as_u16(), status, "{expected}");
        let header = |name: &str| response.headers().get(name).map(|value| value.to_str().expect("text").to_owned());
        assert_eq!((header("x-should-retry").as_deref(), header("retry-after").as_deref()), retry, "{expected}");
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a body");
        assert_eq!(serde_json::from_slice::<Value>(&body).expect("JSON"), expected);
    }

    #[tokio::test]
    async fn errors_look_as_the_contract_says() {
        let run: RunId = format!("run-{UUID}").parse().expect("an id");
        let agent: AgentId = format!("agent-{UUID}").parse().expect("an id");
        let none = (None, None);
        check(ApiError::Unauthorized, 401, none, json!({"detail": "Unauthorized"})).await;
        check(ApiError::NoRoute, 404, none, json!({"detail": "Not Found"})).await;
        check(ApiError::NoAgent, 404, none, json!({"detail": "Agent not found"})).await;
        check(ApiError::NoRun(run), 404, none, json!({"detail": format!("Run with id {run} not found")})).await;
        let bad_id = json!({
            "detail": "String should match pattern 'agent-{uuid4}'",
            "trace_id": "",
            "examples": ["agent-123e4567-e89b-42d3-8456-426614174000"],
        });
        check(ApiError::BadPathId("agent"), 422, none, bad_id).await;
        check(ApiError::Malformed("body: x".to_owned()), 422, none, json!({"detail": "body: x", "trace_id": ""})).await;
        let nothing = format!("CONFLICT: No active runs to cancel for agent {agent}");
        check(ApiError::NothingToCancel(agent), 409, (Some("false"), None), json!({"detail": nothing})).await;
        let taken = "CONFLICT: the agent has another block with the label 'human'; choose another one";
        let error = ApiError::LabelTaken("human".to_owned());
        check(error, 409, (Some("false"), None), json!({"detail": taken})).await;
        let awaiting = "INVALID_ARGUMENT: No tool call is currently awaiting approval on this agent.";
        check(ApiError::NothingAwaitingApproval, 400, none, json!({"detail": awaiting})).await;
        let not_background =
            "INVALID_ARGUMENT: this run was not started in background mode, so it has no stored stream.";
        check(ApiError::NotBackground, 400, none, json!({"detail": not_background})).await;
        let gone = json!({"detail": "EXPIRED: the events of this run are no longer kept.", "run_id": run});
        check(ApiError::EventsGone(run), 410, none, gone).await;
        let unavailable = "Background streaming is unavailable: the event store cannot be reached.";
        let error = ApiError::LogUnavailable("x".to_owned());
        check(error, 503, (None, Some("2")), json!({"detail": unavailable})).await;
        let failure = RunError {
            error_type: ErrorType::LlmRateLimit,
            message: "Slow down.".to_owned(),
            detail: None,
            provider_status: Some(429),
        };
        let failed = json!({
            "error": {"type": "llm_rate_limit", "message": "Slow down.", "detail": null},
            "run_id": run,
        });
        check(ApiError::RunFailed(run, failure), 429, (Some("false"), None), failed).await;
    }

    #[tokio::test]
    async fn texts_hold_what_clients_search_for() {
        let run: RunId = format!("run-{UUID}").parse().expect("an id");
        let request: MessageId = format!("message-{UUID}").parse().expect("an id");
        let pending = || {
            let calls = vec![("call_1".to_owned(), "delete_file".to_owned())];
            ApiError::PendingApproval(Box::new(PendingCalls { request, run: Some(run), calls }))
        };
        for (error, needle) in [
            (ApiError::Busy(run), "is currently being processed"),
            (pending(), "waiting for approval on a tool call"),
            (pending(), "call_1 (delete_file)"),
            (pending(), UUID),
            (ApiError::BeingAnswered(run), "currently being processed"),
            (ApiError::NothingAwaitingApproval, "No tool call is currently awaiting approval"),
            (ApiError::TooLarge { limit: 5 }, "HOLDFAST_MAX_BODY_BYTES"),
        ] {
            let body = axum::body::to_bytes(error.into_response().into_body(), usize::MAX).await.expect("a body");
            let text = String::from_utf8(body.to_vec()).expect("text");
            assert!(text.contains(needle), "{text}");
        }
    }
}
