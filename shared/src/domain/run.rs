//! Runs: one accepted request and its execution.
//!
//! ```text
//! created ──claim──▶ running ──settle──▶ completed | failed | cancelled
//!    └──────────────cancel──────────────────────────────▶ cancelled
//! ```
//! A claim moves `created` to `running`, by the worker that takes it; a later claim (takeover) keeps `running` and
//! raises the epoch. Only the holder of the current epoch settles a running run. The API settles a created one, when it
//! is cancelled before any worker took it. Ended is final.

use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::approval::Answering;
use super::callback::{CallbackTry, CallbackUrl};
use super::ids::{AgentId, ConversationId, RunId};
use super::message::MessageType;
use super::model::ModelHandle;
use super::position::SeqId;
use super::stop_reason::StopReason;
use super::tenant::TenantId;
use super::thread::Thread;
use super::tool::{ToolCall, ToolSpec};
use super::usage::RunUsage;

/// A run as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Its owner.
    pub tenant: TenantId,
    /// The agent that runs.
    pub agent_id: AgentId,
    /// The conversation that it is part of; `None`: the agent's own thread.
    pub conversation_id: Option<ConversationId>,
    /// What was asked for.
    pub request: RunRequest,
    /// Where it stands.
    pub state: RunState,
    /// Whether a cancel was asked for that is not yet carried out.
    pub cancel_requested: bool,
    /// What it has cost so far.
    pub usage: RunUsage,
    /// The last event that is in the archive.
    pub archived: SeqId,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// From acceptance to the first event that a model made, in nanoseconds.
    pub ttft_ns: Option<i64>,
    /// The last try to tell its end to its callback URL.
    pub callback: Option<CallbackTry>,
}

impl Run {
    /// The thread whose line it stands in.
    #[must_use]
    pub const fn thread(&self) -> Thread {
        Thread { agent: self.agent_id, conversation: self.conversation_id }
    }
}

/// Where a run stands, with the data of that state.
#[derive(Debug, Clone, PartialEq)]
pub enum RunState {
    /// Accepted, not yet taken by a worker.
    Created,
    /// Taken by a worker.
    Running,
    /// Over.
    Ended {
        /// Why.
        reason: StopReason,
        /// When.
        at: Timestamp,
        /// What went wrong, for a failed run.
        error: Option<RunError>,
        /// The number of the `stop_reason` frame: a cursor at or past it is answered with the terminal frames.
        terminal: SeqId,
    },
}

impl RunState {
    /// The public status.
    #[must_use]
    pub const fn status(&self) -> RunStatus {
        match self {
            Self::Created => RunStatus::Created,
            Self::Running => RunStatus::Running,
            Self::Ended { reason, .. } => reason.run_status(),
        }
    }

    /// Whether the run is over.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        matches!(self, Self::Ended { .. })
    }
}

/// The public status of a run (api/03 §1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Accepted.
    Created,
    /// Taken by a worker.
    Running,
    /// Ended as it should.
    Completed,
    /// Ended by an error.
    Failed,
    /// Ended by a cancel.
    Cancelled,
}

impl RunStatus {
    /// Every status.
    pub const ALL: [Self; 5] = [Self::Created, Self::Running, Self::Completed, Self::Failed, Self::Cancelled];

    /// The word on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status that a word stands for, if any.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }
}

/// How a run's stream shows what the model makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamMode {
    /// Complete messages at the end of each step.
    Steps,
    /// Deltas as they come.
    Tokens,
}

/// Whether a run's stream can be resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Attachment {
    /// Detached from the connection: events show their `seq_id`, and the stream can be resumed.
    Background,
    /// Shown on the connection that asked for it: events show no `seq_id`. The run itself is as durable.
    Foreground,
}

/// By which path a run was asked for, as `metadata.run_type` shows it (api/03 §1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunType {
    /// One JSON answer.
    SendMessage,
    /// A stream.
    SendMessageStreaming,
    /// The run record at once.
    SendMessageAsync,
    /// A stream or one JSON answer, in a conversation.
    SendConversationMessage,
    /// A compaction that the client asked for.
    Summarize,
    /// A call of a tool that the client asked for.
    RunTool,
}

/// What a run was asked to do; kept with the run as one document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRequest {
    /// The path that it came by.
    pub run_type: RunType,
    /// What there is to do.
    #[serde(default)]
    pub work: RunWork,
    /// Resumable or not.
    pub attachment: Attachment,
    /// Deltas or steps.
    pub mode: StreamMode,
    /// Whether the stream opens with a ping and is kept alive by pings rather than comments.
    pub include_pings: bool,
    /// Most steps.
    pub max_steps: u32,
    /// Kinds of messages to show; `None` shows all.
    pub include_types: Option<Vec<MessageType>>,
    /// A model for this run only.
    pub override_model: Option<ModelHandle>,
    /// A system message for this run only.
    pub override_system: Option<String>,
    /// How the agent speaks, if it is of a legacy type and its calls of the message tool are shown as speech.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speech: Option<Speech>,
    /// Legacy: show calls of the message tool as assistant messages.
    pub use_assistant_message: bool,
    /// Legacy: which tool that is.
    pub assistant_message_tool_name: String,
    /// Legacy: which of its arguments holds the text.
    pub assistant_message_tool_kwarg: String,
    /// Where to post when the run has ended.
    pub callback_url: Option<CallbackUrl>,
    /// Tools that exist for this run only and run at the client.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub client_tools: Vec<ToolSpec>,
    /// Skills that the client has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub client_skills: Vec<ClientSkill>,
    /// Whether the stream shows compactions.
    #[serde(default)]
    pub include_compaction: bool,
    /// The calls that this run answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answering: Option<Answering>,
}

/// What a run has to do. All kinds go through the same queue, claim, lease and line, so that a thread has one writer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum RunWork {
    /// To answer its input, step by step.
    #[default]
    Answer,
    /// To compact the context, without a step. What comes of it is its summary message.
    Compact {
        /// The request's `compaction_settings`, as sent.
        settings: Option<serde_json::Value>,
    },
    /// To make one call of a tool, in one step without a model call. What comes of it is recorded with the step.
    CallTool {
        /// The call.
        call: ToolCall,
    },
}

impl RunRequest {
    /// A request for something else than an answer: without stream, and without what only concerns answers.
    #[must_use]
    pub fn of_work(run_type: RunType, work: RunWork) -> Self {
        Self {
            run_type,
            work,
            attachment: Attachment::Foreground,
            mode: StreamMode::Steps,
            include_pings: false,
            max_steps: 1,
            include_types: None,
            override_model: None,
            override_system: None,
            speech: None,
            use_assistant_message: true,
            assistant_message_tool_name: "send_message".to_owned(),
            assistant_message_tool_kwarg: "message".to_owned(),
            callback_url: None,
            client_tools: Vec::new(),
            client_skills: Vec::new(),
            include_compaction: false,
            answering: None,
        }
    }
}

/// The call by which an agent of a legacy type speaks (api/05 §9).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speech {
    /// The tool.
    pub tool: String,
    /// The argument that holds what is said.
    pub argument: String,
}

impl Speech {
    /// How agents of a legacy type speak where nobody says otherwise.
    #[must_use]
    pub fn usual() -> Self {
        Self { tool: "send_message".to_owned(), argument: "message".to_owned() }
    }

    /// What a call says; `None` if it is another tool's, or says nothing that can be read.
    #[must_use]
    pub fn said(&self, call: &ToolCall) -> Option<String> {
        if call.name != self.tool {
            return None;
        }
        let arguments: serde_json::Value = serde_json::from_str(&call.arguments).ok()?;
        arguments.get(&self.argument)?.as_str().map(str::to_owned)
    }
}

/// A skill that the client has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientSkill {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Where it is.
    pub location: String,
}

/// What went wrong in a run: the object of its error event (api/02 §6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunError {
    /// The kind.
    pub error_type: ErrorType,
    /// For users.
    pub message: String,
    /// For developers.
    pub detail: Option<String>,
    /// The HTTP status of the provider's refusal, where there was one.
    #[serde(default)]
    pub provider_status: Option<u16>,
}

/// The kinds of errors inside a stream (api/02 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorType {
    /// The model call timed out.
    LlmTimeout,
    /// The provider limits the rate.
    LlmRateLimit,
    /// The provider refused the credentials.
    LlmAuthentication,
    /// The provider failed in another way.
    LlmError,
    /// Nothing usable came back.
    LlmEmptyResponse,
    /// The system prompt does not fit.
    ContextWindowOverflowInSystemPrompt,
    /// Anything else.
    InternalError,
    /// The run was lost and could not be recovered.
    StreamIncomplete,
}

impl ErrorType {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::LlmTimeout,
        Self::LlmRateLimit,
        Self::LlmAuthentication,
        Self::LlmError,
        Self::LlmEmptyResponse,
        Self::ContextWindowOverflowInSystemPrompt,
        Self::InternalError,
        Self::StreamIncomplete,
    ];

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LlmTimeout => "llm_timeout",
            Self::LlmRateLimit => "llm_rate_limit",
            Self::LlmAuthentication => "llm_authentication",
            Self::LlmError => "llm_error",
            Self::LlmEmptyResponse => "llm_empty_response",
            Self::ContextWindowOverflowInSystemPrompt => "context_window_overflow_in_system_prompt",
            Self::InternalError => "internal_error",
            Self::StreamIncomplete => "stream_incomplete",
        }
    }

    /// The stop reason that goes with it.
    #[must_use]
    pub const fn stop_reason(self) -> StopReason {
        match self {
            Self::LlmTimeout | Self::LlmRateLimit | Self::LlmAuthentication | Self::LlmError => StopReason::LlmApiError,
            Self::LlmEmptyResponse => StopReason::InvalidLlmResponse,
            Self::ContextWindowOverflowInSystemPrompt => StopReason::ContextWindowOverflowInSystemPrompt,
            Self::InternalError | Self::StreamIncomplete => StopReason::Error,
        }
    }
}

/// How a run ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Why.
    pub reason: StopReason,
    /// What went wrong, for a failed run.
    pub error: Option<RunError>,
}

impl Outcome {
    /// An end without an error event.
    #[must_use]
    pub const fn stopped(reason: StopReason) -> Self {
        Self { reason, error: None }
    }

    /// An end with an error event.
    #[must_use]
    pub const fn failed(error: RunError) -> Self {
        Self { reason: error.error_type.stop_reason(), error: Some(error) }
    }
}
