//! Agents.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::block::Block;
use super::builtin_tools;
use super::ids::{AgentId, MessageId};
use super::message::Message;
use super::model::ModelHandle;
use super::secret::Secret;
use super::stop_reason::StopReason;
use super::tool::Tool;
use super::tool_rule::{ToolRule, ToolRuleKind};

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
    /// The settings of an agent for which nothing else is said.
    #[must_use]
    pub fn new(agent_type: &str, system: &str, model: ModelHandle) -> Self {
        Self {
            agent_type: agent_type.to_owned(),
            system: system.to_owned(),
            model,
            model_settings: None,
            context_window_limit: None,
            tools: Vec::new(),
            tool_rules: Vec::new(),
            secrets: BTreeMap::new(),
            tags: Vec::new(),
            description: None,
            metadata: None,
            timezone: "UTC".to_owned(),
            message_buffer_autoclear: false,
            other: serde_json::Map::new(),
        }
    }

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
    /// Settings that are kept and shown, by their name on the wire. Those of the model count where `model_settings` has
    /// nothing; the others have no effect here.
    #[serde(default)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

/// What an agent's settings can refer to that is not kept here; lists can be filtered by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReferenceKind {
    /// The project that the client counts it to.
    Project,
    /// The template that it comes from.
    Template,
    /// The template that its template comes from.
    BaseTemplate,
    /// Somebody whom it belongs to.
    Identity,
}

impl ReferenceKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Project, Self::Template, Self::BaseTemplate, Self::Identity];

    /// The setting that has it, a text or a list of texts.
    #[must_use]
    pub const fn setting(self) -> &'static str {
        match self {
            Self::Project => "project_id",
            Self::Template => "template_id",
            Self::BaseTemplate => "base_template_id",
            Self::Identity => "identity_ids",
        }
    }
}

/// Whether agents of this type run the legacy loop, in which every turn is a tool call and the user is told things by
/// one (api/05 §9). All others run the loop of `letta_v1_agent`.
#[must_use]
pub fn talks_by_tool(agent_type: &str) -> bool {
    matches!(agent_type, "memgpt_agent" | "memgpt_v2_agent")
}

impl AgentSettings {
    /// Attaches a tool behind the others. A tool that wants approval by default brings the rule that says so (api/04
    /// §1.2). For a tool that is attached already nothing changes: a rule that the client took away stays away.
    pub fn attach(&mut self, tool: &Tool) {
        let name = &tool.spec.name;
        if self.tools.contains(name) {
            return;
        }
        self.tools.push(name.clone());
        if tool.options.default_requires_approval == Some(true) {
            self.set_approval(name, true);
        }
    }

    /// What the settings refer to.
    #[must_use]
    pub fn references(&self) -> Vec<(ReferenceKind, &str)> {
        let mut references = Vec::new();
        for kind in ReferenceKind::ALL {
            let said = match self.other.get(kind.setting()) {
                Some(serde_json::Value::Array(items)) => items.as_slice(),
                Some(value) => std::slice::from_ref(value),
                None => &[],
            };
            references.extend(said.iter().filter_map(serde_json::Value::as_str).map(|text| (kind, text)));
        }
        references
    }

    /// Detaches a tool. Its rules stay, without effect until it is attached again (api/04 §2).
    pub fn detach(&mut self, name: &str) {
        self.tools.retain(|attached| attached != name);
    }

    /// Says whether calls of a tool wait for the client.
    pub fn set_approval(&mut self, name: &str, is_required: bool) {
        let is_rule = |rule: &ToolRule| rule.tool_name == name && rule.kind == ToolRuleKind::RequiresApproval;
        if !is_required {
            self.tool_rules.retain(|rule| !is_rule(rule));
        } else if !self.tool_rules.iter().any(is_rule) {
            self.tool_rules.push(ToolRule::requires_approval(name));
        }
    }

    /// Takes away what names a tool that is no more: another one of that name is another tool. Whether anything did.
    pub fn forget_tool(&mut self, name: &str) -> bool {
        let before = (self.tools.len(), self.tool_rules.len());
        self.detach(name);
        self.tool_rules.retain(|rule| rule.tool_name != name);
        before != (self.tools.len(), self.tool_rules.len())
    }

    /// Adds the rules that come with the built-in tools that are attached (api/05 §4): a tool that ends the agent's turn
    /// ends the run, after any other it goes on. A tool for which the client said one of both keeps what it said.
    pub fn add_base_tool_rules(&mut self) {
        for name in &self.tools {
            let Some(kind) = builtin_tools::base_rule(name) else { continue };
            let is_decided = self.tool_rules.iter().any(|rule| {
                rule.tool_name == *name && matches!(rule.kind, ToolRuleKind::ExitLoop | ToolRuleKind::ContinueLoop)
            });
            if !is_decided {
                self.tool_rules.push(ToolRule { tool_name: name.clone(), kind, prompt_template: None });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> AgentSettings {
        AgentSettings::new("letta_v1_agent", "", ModelHandle::demo())
    }

    fn tool(name: &str, default_requires_approval: Option<bool>) -> Tool {
        let mut tool = builtin_tools::all()[0].clone();
        name.clone_into(&mut tool.spec.name);
        tool.options.default_requires_approval = default_requires_approval;
        tool
    }

    #[test]
    fn a_tool_that_wants_approval_brings_the_rule_once() {
        let mut agent = settings();
        agent.attach(&tool("plain", Some(false)));
        agent.attach(&tool("guarded", Some(true)));
        agent.attach(&tool("guarded", Some(true)));
        assert_eq!(agent.tools, ["plain", "guarded"]);
        assert_eq!(agent.tool_rules, [ToolRule::requires_approval("guarded")]);
        agent.set_approval("guarded", false);
        agent.attach(&tool("guarded", Some(true)));
        assert_eq!(agent.tool_rules, [], "what the client took away stays away");
    }

    #[test]
    fn detaching_leaves_the_rules_and_forgetting_does_not() {
        let mut agent = settings();
        agent.attach(&tool("one", None));
        agent.attach(&tool("two", Some(true)));
        agent.set_approval("one", true);
        agent.detach("one");
        assert_eq!((agent.tools.len(), agent.tool_rules.len()), (1, 2));
        assert!(agent.forget_tool("one"));
        assert!(!agent.forget_tool("one"));
        assert_eq!(agent.tool_rules, [ToolRule::requires_approval("two")]);
    }

    #[test]
    fn base_rules_concern_what_is_attached_and_not_decided() {
        let mut agent = settings();
        for name in ["send_message", "memory_insert", "conversation_search", "custom"] {
            agent.attach(&tool(name, None));
        }
        let rule = |name: &str, kind| ToolRule { tool_name: name.to_owned(), kind, prompt_template: None };
        let own = rule("memory_insert", ToolRuleKind::ExitLoop);
        agent.tool_rules.push(own.clone());
        for _ in 0..2 {
            agent.add_base_tool_rules();
            let search = rule("conversation_search", ToolRuleKind::ContinueLoop);
            assert_eq!(agent.tool_rules, [own.clone(), rule("send_message", ToolRuleKind::ExitLoop), search]);
        }
    }
}
