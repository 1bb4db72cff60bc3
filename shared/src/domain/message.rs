//! Messages as stored: once, and shown as one or more messages of the API that share the id.

use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::ids::{AgentId, MessageId, RunId, StepId};
use super::tool::{ToolCall, ToolReturn};

/// A stored message.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Its id, shared by all that is shown of it.
    pub id: MessageId,
    /// The agent that it belongs to.
    pub agent_id: AgentId,
    /// The run that brought or made it.
    pub run_id: Option<RunId>,
    /// The step that made it.
    pub step_id: Option<StepId>,
    /// Who says what.
    pub body: Body,
    /// What the client sent along.
    pub labels: Labels,
    /// When it was stored.
    pub created_at: Timestamp,
}

/// What the client sent along with a message and gets shown again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Labels {
    /// Idempotency key of the message.
    pub otid: Option<String>,
    /// Name of the participant.
    pub name: Option<String>,
    /// Identity or agent that sent it.
    pub sender_id: Option<String>,
    /// Group that it was sent in.
    pub group_id: Option<String>,
    /// Batch item that it belongs to.
    pub batch_item_id: Option<String>,
}

/// The content of a message by who says it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Body {
    /// Instructions: the agent's system message, or a request's input of role system.
    System(Content),
    /// A user's input.
    User(Content),
    /// An assistant's earlier answer that the client sent as history.
    History(Content),
    /// What a model answered in a step.
    Assistant(Answer),
    /// The results of a step's tool calls, in call order.
    ToolReturns(Vec<ToolReturn>),
}

impl Body {
    /// The role under which stores file the message.
    #[must_use]
    pub const fn role(&self) -> Role {
        match self {
            Self::System(_) => Role::System,
            Self::User(_) => Role::User,
            Self::History(_) | Self::Assistant(_) => Role::Assistant,
            Self::ToolReturns(_) => Role::Tool,
        }
    }
}

/// The role of a stored message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Instructions.
    System,
    /// Input.
    User,
    /// Output.
    Assistant,
    /// Results of tool calls.
    Tool,
}

impl Role {
    /// The word in the database and at providers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// Input content: a text, or parts in the contract's own shape (api/01 §5), checked at admission and kept as sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Content {
    /// A plain text.
    Text(String),
    /// Parts, each with its `type`.
    Parts(Vec<serde_json::Value>),
}

impl Content {
    /// The text of all text parts, joined by line ends; other parts are left out.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Parts(parts) => {
                let texts = parts.iter().filter_map(|part| part.get("text").and_then(serde_json::Value::as_str));
                texts.collect::<Vec<_>>().join("\n")
            }
        }
    }
}

/// What a model answered in one step, in the order produced.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Answer {
    /// Reasoning and text; neighbours of one kind are merged.
    pub parts: Vec<AnswerPart>,
    /// The tool calls, in call order.
    pub calls: Vec<ToolCall>,
}

impl Answer {
    /// Whether the model said nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.calls.is_empty()
    }

    /// Whether there is any text for the user.
    #[must_use]
    pub fn has_text(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, AnswerPart::Text(_)))
    }
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnswerPart {
    /// Text for the user.
    Text(String),
    /// Reasoning that the provider shows.
    Reasoning {
        /// The text.
        text: String,
        /// The provider's proof that the text is its own.
        signature: Option<String>,
    },
}

/// The kinds of messages that a client can ask for (api/01 §1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageType {
    /// `system_message`
    SystemMessage,
    /// `user_message`
    UserMessage,
    /// `assistant_message`
    AssistantMessage,
    /// `reasoning_message`
    ReasoningMessage,
    /// `hidden_reasoning_message`
    HiddenReasoningMessage,
    /// `tool_call_message`
    ToolCallMessage,
    /// `tool_return_message`
    ToolReturnMessage,
    /// `approval_request_message`
    ApprovalRequestMessage,
    /// `approval_response_message`
    ApprovalResponseMessage,
    /// `summary_message`
    SummaryMessage,
    /// `event_message`
    EventMessage,
}
