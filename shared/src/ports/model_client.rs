//! A model: takes the context of a call, answers with a stream of deltas.

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::domain::message::Answer;
use crate::domain::model::ModelHandle;
use crate::domain::run::ErrorType;
use crate::domain::tool::ToolSpec;
use crate::domain::usage::Usage;

/// A call of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelRequest {
    /// Which model.
    pub model: ModelHandle,
    /// The system message.
    pub system: String,
    /// The conversation, oldest first.
    pub turns: Vec<Turn>,
    /// Tools that the model may call.
    pub tools: Vec<ToolSpec>,
    /// Whether it must call one.
    pub tool_choice: ToolChoice,
    /// Sampling options of the agent.
    pub options: ModelOptions,
}

/// Sampling options; `None` leaves it to the provider.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ModelOptions {
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// Most tokens of the answer.
    pub max_output_tokens: Option<u32>,
    /// Whether several tool calls may be asked for at once.
    pub parallel_tool_calls: bool,
    /// How much the model shall reason.
    pub reasoning: ReasoningOptions,
    /// The form that the answer shall have, in the contract's words (`{"type": "json_schema", …}`).
    pub response_format: Option<serde_json::Value>,
}

/// How much a model shall reason; `None` leaves it to the provider.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReasoningOptions {
    /// Whether it reasons at all. When off, reasoning in the history is not sent back.
    pub is_on: Option<bool>,
    /// A word: `minimal`, `low`, `medium`, `high`, …
    pub effort: Option<String>,
    /// Most tokens to spend on it.
    pub budget_tokens: Option<u32>,
}

/// Whether a model may, or must, call a tool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ToolChoice {
    /// As it likes.
    #[default]
    Auto,
    /// It must not: the tools are there for the calls of the conversation.
    None,
    /// One of those offered.
    Required,
    /// This one.
    Named(String),
}

/// One turn of the conversation as a model sees it.
#[derive(Debug, Clone, PartialEq)]
pub enum Turn {
    /// Instructions in mid-conversation.
    System(String),
    /// Input.
    User(Vec<Piece>),
    /// Output, of this model or another, or given as history.
    Assistant(Answer),
    /// Results of tool calls.
    ToolReturns(Vec<ToolResult>),
}

/// A piece of what is shown to a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// A text.
    Text(String),
    /// An image.
    Image(Image),
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its media type, for example `image/png`.
    pub media_type: String,
    /// Its bytes in base64.
    pub data: String,
    /// How closely to look: `low`, `high` or `auto`.
    pub detail: Option<String>,
}

/// A result of a tool call as a model sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolResult {
    /// The call.
    pub call_id: String,
    /// The tool's name.
    pub name: String,
    /// Whether the tool failed.
    pub is_error: bool,
    /// The whole text that the model reads.
    pub text: String,
    /// Images that belong to it.
    pub images: Vec<Image>,
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelDelta {
    /// New text.
    Text(String),
    /// New reasoning text.
    Reasoning(String),
    /// The provider's signature of the reasoning so far.
    ReasoningSignature(String),
    /// Reasoning that the provider does not show: what it wants back in its place, or nothing.
    HiddenReasoning(Option<String>),
    /// A tool call begins.
    CallStart {
        /// The provider's id, or one made up here; unique in the answer.
        id: String,
        /// The tool's name.
        name: String,
    },
    /// A new piece of a call's arguments.
    CallArguments {
        /// The call.
        id: String,
        /// JSON text, a fragment.
        fragment: String,
    },
    /// A proof that the provider attaches to a call and wants back with it.
    CallSignature {
        /// The call.
        id: String,
        /// The proof.
        signature: String,
    },
    /// The answer is complete: the last item of every good stream.
    End {
        /// Tokens, as far as the provider says.
        usage: Usage,
        /// Whether the output limit cut it.
        is_cut: bool,
    },
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ModelError {
    /// The kind, as the stream's error event says it.
    pub error_type: ErrorType,
    /// For users.
    pub message: String,
    /// For developers.
    pub detail: Option<String>,
    /// The provider's HTTP status, where it answered.
    pub status: Option<u16>,
    /// Whether the same call may work later.
    pub is_transient: bool,
    /// Whether the context was too large: then a shorter one may work.
    pub is_context_overflow: bool,
    /// How long the provider asks to wait.
    pub retry_after: Option<std::time::Duration>,
}

/// The deltas of one answer; it ends after `End` or an error. Dropping it drops the upstream request.
pub type DeltaStream = BoxStream<'static, Result<ModelDelta, ModelError>>;

/// The port.
#[async_trait]
pub trait ModelClient: Send + Sync + 'static {
    /// Starts a call.
    ///
    /// # Errors
    /// The provider refused or could not be reached, before any delta.
    async fn stream(&self, request: ModelRequest) -> Result<DeltaStream, ModelError>;
}
