//! Threads: lists of messages, each with a context, a line of runs and calls that wait of its own.

use uuid::Uuid;

use super::ids::{AgentId, ConversationId, Id as _};

/// A thread: an agent's own one, or a conversation. Runs of one thread execute one after the other, those of different
/// threads at the same time, also if the agent is the same. Memory and tools are the agent's, in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Thread {
    /// The agent.
    pub agent: AgentId,
    /// The conversation; `None` for the agent's own thread.
    pub conversation: Option<ConversationId>,
}

/// Which threads of an agent, or of all agents, are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ThreadScope {
    /// All.
    #[default]
    All,
    /// The agents' own ones.
    Own,
    /// One conversation.
    Conversation(ConversationId),
}

impl From<Thread> for ThreadScope {
    fn from(thread: Thread) -> Self {
        thread.conversation.map_or(Self::Own, Self::Conversation)
    }
}

impl Thread {
    /// An agent's own thread.
    #[must_use]
    pub const fn own(agent: AgentId) -> Self {
        Self { agent, conversation: None }
    }

    /// The thread of an agent that stores know by this id: the agent's or a conversation's.
    #[must_use]
    pub fn of(agent: AgentId, id: Uuid) -> Self {
        Self { agent, conversation: (id != agent.uuid()).then(|| ConversationId::from_uuid(id)) }
    }

    /// The id by which stores know it.
    #[must_use]
    pub fn uuid(self) -> Uuid {
        self.conversation.map_or_else(|| self.agent.uuid(), ConversationId::uuid)
    }
}
