//! Agents.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::block::Block;
use super::ids::{AgentId, MessageId};
use super::message::Message;
use super::model::ModelHandle;
use super::secret::Secret;
use super::stop_reason::StopReason;
use super::tool::Tool;
use super::tool_rule::ToolRule;

/// An agent with its blocks.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// Its name, not unique.
    pub name: String,
    /// What the client set.
    pub settings: AgentSettings,
    /// Memory, in the order of attachment.
    pub blocks: Vec<Block>,
    /// Its tools that exist, in the order of `settings.tools`.
    pub tools: Vec<Tool>,
    /// Ids of the messages in context, the system message first.
    pub message_ids: Vec<MessageId>,
    /// The calls that wait for the client's answer, if any.
    pub pending_approval: Option<PendingApproval>,
    /// Why the last run ended.
    pub last_stop_reason: Option<StopReason>,
    /// When the last run ended.
    pub last_run_completion: Option<Timestamp>,
    /// How long it took, in milliseconds.
    pub last_run_duration_ms: Option<i64>,
    /// When the agent was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// The calls of an agent's last step that wait for the client's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct PendingApproval {
    /// The message that asks: its body is [`Body::ApprovalRequest`](super::message::Body::ApprovalRequest).
    pub request: Message,
    /// When the server answers itself, if nobody else does.
    pub deadline: Option<Timestamp>,
}

impl AgentSettings {
    /// Whether the agent is of a type that speaks and thinks by calls of tools (api/05 §9).
    #[must_use]
    pub fn is_legacy(&self) -> bool {
        matches!(self.agent_type.as_str(), "memgpt_agent" | "memgpt_v2_agent")
    }
}

/// What a client can set on an agent; kept as one document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentSettings {
    /// The contract's word for the kind of agent, `letta_v1_agent` unless said otherwise.
    pub agent_type: String,
    /// The base text of the system prompt.
    pub system: String,
    /// The model.
    pub model: ModelHandle,
    /// The client's `model_settings` object, as sent.
    pub model_settings: Option<serde_json::Value>,
    /// Context window in tokens, where the client limits it.
    pub context_window_limit: Option<u64>,
    /// Names of the attached tools, in order.
    pub tools: Vec<String>,
    /// Rules on the calls of its tools.
    pub tool_rules: Vec<ToolRule>,
    /// Values that its tools get as environment variables, and HTTP tools in their headers.
    #[serde(default)]
    pub secrets: BTreeMap<String, Secret>,
    /// Free words of the client.
    pub tags: Vec<String>,
    /// Free text of the client.
    pub description: Option<String>,
    /// Free data of the client.
    pub metadata: Option<serde_json::Value>,
    /// IANA name of the agent's time zone.
    pub timezone: String,
    /// Whether each request starts from an empty context.
    pub message_buffer_autoclear: bool,
    /// Settings that are kept and shown but have no effect here, by their name on the wire.
    #[serde(default)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

/// Whether agents of this type run the legacy loop, in which every turn is a tool call and the user is told things by
/// one (api/05 §9). All others run the loop of `letta_v1_agent`.
#[must_use]
pub fn talks_by_tool(agent_type: &str) -> bool {
    matches!(agent_type, "memgpt_agent" | "memgpt_v2_agent")
}
