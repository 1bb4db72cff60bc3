//! Messages as stored: once, and shown as one or more messages of the API that share the id.

use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::approval::CallAnswer;
use super::compaction::Summary;
use super::ids::{AgentId, MessageId, RunId, StepId};
use super::model::ModelHandle;
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
    /// The results of a step's tool calls, in call order; in a step that was answered, in the order of api/05 §6.
    ToolReturns(Vec<ToolReturn>),
    /// The calls of a step that wait for the client's answer. It has the step's text and reasoning too, unless the step
    /// has an assistant message, which has them then.
    ApprovalRequest(Answer),
    /// The client's answers to such calls.
    ApprovalResponse(Vec<CallAnswer>),
    /// What stands for earlier messages that a compaction took out of the context.
    Summary(Summary),
    /// A word of the server to the model: sent as user input, never shown.
    Note(String),
}

impl Body {
    /// The role under which stores file the message.
    #[must_use]
    pub const fn role(&self) -> Role {
        match self {
            Self::System(_) => Role::System,
            Self::User(_) | Self::Note(_) => Role::User,
            Self::History(_) | Self::Assistant(_) => Role::Assistant,
            Self::ToolReturns(_) => Role::Tool,
            Self::ApprovalRequest(_) | Self::ApprovalResponse(_) => Role::Approval,
            Self::Summary(_) => Role::Summary,
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
    /// A question whether calls may run, or the answer to it.
    Approval,
    /// A summary.
    Summary,
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
            Self::Approval => "approval",
            Self::Summary => "summary",
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
    /// The model that made it: signatures of reasoning are worth something only at its provider. `None`: unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_by: Option<ModelHandle>,
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
        /// Where it comes from.
        #[serde(default)]
        source: ReasoningSource,
    },
    /// Reasoning that the provider does not show.
    HiddenReasoning {
        /// What the provider wants back in its place, unreadable; `None` if it gave nothing at all.
        data: Option<String>,
    },
}

/// Where reasoning comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasoningSource {
    /// The model reasons by itself.
    #[default]
    Native,
    /// The model was asked to write its thoughts into an argument of its call (api/05 §9).
    Prompted,
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

impl MessageType {
    /// Every kind, in the order of api/01 §1.
    pub const ALL: [Self; 11] = [
        Self::SystemMessage,
        Self::UserMessage,
        Self::AssistantMessage,
        Self::ReasoningMessage,
        Self::HiddenReasoningMessage,
        Self::ToolCallMessage,
        Self::ToolReturnMessage,
        Self::ApprovalRequestMessage,
        Self::ApprovalResponseMessage,
        Self::SummaryMessage,
        Self::EventMessage,
    ];

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SystemMessage => "system_message",
            Self::UserMessage => "user_message",
            Self::AssistantMessage => "assistant_message",
            Self::ReasoningMessage => "reasoning_message",
            Self::HiddenReasoningMessage => "hidden_reasoning_message",
            Self::ToolCallMessage => "tool_call_message",
            Self::ToolReturnMessage => "tool_return_message",
            Self::ApprovalRequestMessage => "approval_request_message",
            Self::ApprovalResponseMessage => "approval_response_message",
            Self::SummaryMessage => "summary_message",
            Self::EventMessage => "event_message",
        }
    }
}
