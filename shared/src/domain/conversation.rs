//! Conversations: further threads of an agent (api/04 §8).

use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::agent::{AgentSettings, PendingApproval};
use super::ids::{AgentId, ConversationId, MessageId};
use super::model::ModelHandle;
use super::thread::Thread;

/// A conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversation {
    /// Its id.
    pub id: ConversationId,
    /// Its agent.
    pub agent_id: AgentId,
    /// What the client set.
    pub settings: ConversationSettings,
    /// Ids of the messages in context, the system message first.
    pub message_ids: Vec<MessageId>,
    /// The calls that wait for the client's answer, if any.
    pub pending_approval: Option<PendingApproval>,
    /// When the client put it away, if it did.
    pub archived_at: Option<Timestamp>,
    /// When a run last brought or made a message, or what the client said.
    pub last_message_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl Conversation {
    /// Its thread.
    #[must_use]
    pub const fn thread(&self) -> Thread {
        Thread { agent: self.agent_id, conversation: Some(self.id) }
    }
}

/// What a client can set on a conversation; kept as one document.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ConversationSettings {
    /// What it is about.
    pub summary: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// The model of its runs, rather than the agent's.
    pub model: Option<ModelHandle>,
    /// The client's `model_settings` object, as sent, rather than the agent's.
    pub model_settings: Option<serde_json::Value>,
    /// Context window in tokens, rather than the agent's.
    pub context_window_limit: Option<u64>,
    /// Whether clients leave it out of what they show.
    pub hidden: Option<bool>,
}

impl ConversationSettings {
    /// Puts what is said here into the place of what the agent says.
    pub fn apply(&self, agent: &mut AgentSettings) {
        if let Some(model) = &self.model {
            agent.model = model.clone();
        }
        if let Some(settings) = &self.model_settings {
            agent.model_settings = Some(settings.clone());
        }
        if let Some(limit) = self.context_window_limit {
            agent.context_window_limit = Some(limit);
        }
    }
}

/// A change of a conversation; `None` leaves a part as it is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ConversationChange {
    /// What it is about.
    pub summary: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// The model of its runs.
    pub model: Option<ModelHandle>,
    /// The client's `model_settings` object.
    pub model_settings: Option<serde_json::Value>,
    /// Context window in tokens.
    pub context_window_limit: Option<u64>,
    /// Whether it is put away.
    pub archived: Option<bool>,
    /// When the last message came, as the client says.
    pub last_message_at: Option<Timestamp>,
}

impl ConversationChange {
    /// Carries the change out.
    pub fn apply(&self, conversation: &mut Conversation, now: Timestamp) {
        let settings = &mut conversation.settings;
        let keep = |new: &Option<String>, old: &mut Option<String>| {
            if new.is_some() {
                old.clone_from(new);
            }
        };
        keep(&self.summary, &mut settings.summary);
        keep(&self.description, &mut settings.description);
        settings.model = self.model.clone().or_else(|| settings.model.take());
        settings.model_settings = self.model_settings.clone().or_else(|| settings.model_settings.take());
        settings.context_window_limit = self.context_window_limit.or(settings.context_window_limit);
        match self.archived {
            Some(true) => conversation.archived_at = conversation.archived_at.or(Some(now)),
            Some(false) => conversation.archived_at = None,
            None => {}
        }
        conversation.last_message_at = self.last_message_at.or(conversation.last_message_at);
        conversation.updated_at = now;
    }
}
