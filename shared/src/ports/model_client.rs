//! A model: takes the context of a call, answers with a stream of deltas.

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::domain::message::Answer;
use crate::domain::model::ModelHandle;
use crate::domain::run::ErrorType;
use crate::domain::tool::{ToolReturn, ToolSpec};
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
}

/// One turn of the conversation as a model sees it.
#[derive(Debug, Clone, PartialEq)]
pub enum Turn {
    /// Instructions in mid-conversation.
    System(String),
    /// Input.
    User(String),
    /// Output, of this model or given as history.
    Assistant(Answer),
    /// Results of tool calls.
    ToolReturns(Vec<ToolReturn>),
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
