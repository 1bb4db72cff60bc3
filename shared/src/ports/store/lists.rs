//! What lists and searches are asked for, and what they tell.

use crate::domain::Timestamp;
use crate::domain::agent::ReferenceKind;
use crate::domain::ids::{AgentId, BlockId, ConversationId, RunId, StepId, ToolId};
use crate::domain::message::{Message, Role};
use crate::domain::run::{RunStatus, Speech};
use crate::domain::search_words::SearchWords;
use crate::domain::step::Feedback;
use crate::domain::stop_reason::StopReason;
use crate::domain::thread::{Thread, ThreadScope};
use crate::domain::tool::Tool;

/// Which agents to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AgentFilter {
    /// Exactly this name.
    pub name: Option<String>,
    /// A part of the name, any case.
    pub query_text: Option<String>,
    /// These tags: any of them, or all.
    pub tags: Vec<String>,
    /// Whether all tags must be there.
    pub match_all_tags: bool,
    /// With this block attached.
    pub block: Option<BlockId>,
    /// The last run ended for this reason.
    pub last_stop_reason: Option<StopReason>,
    /// With all of these among what the settings refer to.
    pub references: Vec<(ReferenceKind, String)>,
    /// What the list is ordered by.
    pub order_by: AgentOrder,
}

/// What a list of agents is ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AgentOrder {
    /// When they were made.
    #[default]
    Creation,
    /// When they were last changed.
    Change,
    /// When their last run ended; those that never ran come before all others.
    Completion,
}

/// Which blocks to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlockFilter {
    /// Exactly this label.
    pub label: Option<String>,
    /// A part of the label, any case.
    pub label_search: Option<String>,
    /// A part of the value, any case.
    pub value_search: Option<String>,
    /// A part of the description, any case.
    pub description_search: Option<String>,
    /// Exactly this name as a template.
    pub template_name: Option<String>,
    /// Counted to this project.
    pub project_id: Option<String>,
    /// Only templates.
    pub templates_only: bool,
    /// These tags: any of them, or all.
    pub tags: Vec<String>,
    /// Whether all tags must be there.
    pub match_all_tags: bool,
    /// Attached to more agents than this.
    pub agents_above: Option<i64>,
    /// Attached to fewer agents than this.
    pub agents_below: Option<i64>,
    /// Attached to one of these numbers of agents; empty means all.
    pub agents_exactly: Vec<i64>,
}

/// Which tools to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ToolFilter {
    /// Exactly this name.
    pub name: Option<String>,
    /// One of these names; empty means all.
    pub names: Vec<String>,
    /// One of these; empty means all.
    pub ids: Vec<ToolId>,
    /// A part of the name, any case.
    pub search: Option<String>,
    /// Of one of these kinds, by the contract's words; `None` means all.
    pub tool_types: Option<Vec<String>>,
}

impl ToolFilter {
    /// Whether a tool is one of those. Stores ask it for the built-in tools, which have no rows.
    #[must_use]
    pub fn wants(&self, tool: &Tool) -> bool {
        let name = &tool.spec.name;
        self.name.as_ref().is_none_or(|wanted| wanted == name)
            && (self.names.is_empty() || self.names.contains(name))
            && (self.ids.is_empty() || self.ids.contains(&tool.id))
            && self.search.as_ref().is_none_or(|text| name.to_lowercase().contains(&text.to_lowercase()))
            && self.tool_types.as_ref().is_none_or(|types| types.iter().any(|word| word == tool.source.tool_type()))
    }
}

/// Which runs to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunFilter {
    /// Of these agents; empty means all.
    pub agents: Vec<AgentId>,
    /// In one of these states; empty means all.
    pub statuses: Vec<RunStatus>,
    /// Resumable or not.
    pub background: Option<bool>,
    /// Ended for this reason.
    pub stop_reason: Option<StopReason>,
    /// Of these threads.
    pub threads: ThreadScope,
}

/// What conversations are listed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConversationOrder {
    /// When they were made.
    #[default]
    Creation,
    /// When their last message came; those without one count as made.
    LastMessage,
    /// When their last run ended; those without one count as made.
    LastRun,
}

/// Which conversations to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConversationFilter {
    /// Of this agent.
    pub agent: Option<AgentId>,
    /// A part of the summary, any case.
    pub summary: Option<String>,
    /// Put away or not.
    pub archived: Option<bool>,
    /// The order.
    pub order: ConversationOrder,
}

/// Which messages of an agent to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageFilter {
    /// The agent.
    pub agent: AgentId,
    /// Only those of this thread, in a fork also those that it shares; `None` means all of the agent.
    pub thread: Option<Thread>,
    /// Only what this run brought or made.
    pub run: Option<RunId>,
}

impl MessageFilter {
    /// All messages of an agent, in all of its threads.
    #[must_use]
    pub const fn agent(agent: AgentId) -> Self {
        Self { agent, thread: None, run: None }
    }

    /// Those of a thread.
    #[must_use]
    pub const fn thread(thread: Thread) -> Self {
        Self { agent: thread.agent, thread: Some(thread), run: None }
    }

    /// What a run brought or made.
    #[must_use]
    pub const fn run(agent: AgentId, run: RunId) -> Self {
        Self { agent, thread: None, run: Some(run) }
    }
}

/// Which messages to find across a tenant's agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageScope {
    /// All of these threads, in the order of their creation.
    Threads(ThreadScope),
    /// Those of an agent that the client sent in a group, in the order of their creation.
    Group {
        /// The agent.
        agent: AgentId,
        /// Its threads.
        threads: ThreadScope,
        /// The group's id, as sent.
        group: String,
    },
    /// What a step made, in the order of the history. A step that asked has the answers and the results too.
    Step(StepId),
}

/// A message that was found across agents.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundMessage {
    /// The message.
    pub message: Message,
    /// The conversation that it was said in; `None`: the agent's own thread.
    pub conversation: Option<ConversationId>,
    /// How its agent speaks, if it is of a legacy type.
    pub speech: Option<Speech>,
}

/// Which steps to find across a tenant's agents.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StepFilter {
    /// Of this agent.
    pub agent: Option<AgentId>,
    /// That called this model: its name, or its handle.
    pub model: Option<String>,
    /// Not begun before.
    pub from: Option<Timestamp>,
    /// Begun before this.
    pub until: Option<Timestamp>,
    /// With this feedback.
    pub feedback: Option<Feedback>,
    /// With any feedback, or with none.
    pub has_feedback: Option<bool>,
    /// With one of these tags; empty means all.
    pub tags: Vec<String>,
    /// In one of these traces; empty means all.
    pub trace_ids: Vec<String>,
}

/// A search in an agent's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageSearch {
    /// What the message must contain; `None` lists by the other filters only.
    pub query: Option<SearchWords>,
    /// One of these roles; empty means user and assistant.
    pub roles: Vec<Role>,
    /// Not before.
    pub from: Option<Timestamp>,
    /// Before this.
    pub until: Option<Timestamp>,
    /// At most so many, newest first.
    pub limit: u32,
}
