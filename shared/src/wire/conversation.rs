//! Conversations: the object, and the bodies that make, change and resume one (api/04 §8).

use serde_json::{Value, json};

use crate::domain::conversation::{Conversation, ConversationChange, ConversationSettings};
use crate::domain::ids::{AgentId, RunId};
use crate::domain::model::ModelHandle;
use crate::wire::read::{BodyError, Node};
use crate::wire::request::read_model_handle;
use crate::wire::run::ResumeBody;
use crate::wire::time;

/// `Conversation`
#[must_use]
pub fn conversation(conversation: &Conversation) -> Value {
    let settings = &conversation.settings;
    json!({
        "id": conversation.id,
        "agent_id": conversation.agent_id,
        "summary": settings.summary,
        "description": settings.description,
        "in_context_message_ids": conversation.message_ids,
        // Memory is the agent's in all of its conversations.
        "isolated_block_ids": [],
        "model": settings.model,
        "model_settings": settings.model_settings,
        "context_window_limit": settings.context_window_limit,
        "hidden": settings.hidden,
        "archived": conversation.archived_at.is_some(),
        "archived_at": conversation.archived_at.map(time::elsewhere),
        "last_message_at": conversation.last_message_at.map(time::elsewhere),
        "created_at": time::elsewhere(conversation.created_at),
        "updated_at": time::elsewhere(conversation.updated_at),
        "created_by_id": null,
        "last_updated_by_id": null,
    })
}

/// Body of `POST /v1/conversations/`.
///
/// # Errors
/// It has not the form that it should have.
pub fn new_conversation(body: &Value) -> Result<ConversationSettings, BodyError> {
    let body = Node::body(body)?;
    Ok(ConversationSettings {
        summary: body.optional_string("summary")?,
        description: body.optional_string("description")?,
        model: model(&body)?,
        model_settings: object(&body, "model_settings")?,
        context_window_limit: body.get("context_window_limit").map(|limit| limit.at_least(1)).transpose()?,
        hidden: body.get("hidden").map(|hidden| hidden.boolean()).transpose()?,
    })
}

/// Body of `PATCH /v1/conversations/{conversation_id}`.
///
/// # Errors
/// It has not the form that it should have.
pub fn conversation_change(body: &Value) -> Result<ConversationChange, BodyError> {
    let body = Node::body(body)?;
    Ok(ConversationChange {
        summary: body.optional_string("summary")?,
        description: body.optional_string("description")?,
        model: model(&body)?,
        model_settings: object(&body, "model_settings")?,
        context_window_limit: body.get("context_window_limit").map(|limit| limit.at_least(1)).transpose()?,
        archived: body.get("archived").map(|archived| archived.boolean()).transpose()?,
        last_message_at: body.get("last_message_at").map(|at| time::read(&at)).transpose()?,
    })
}

/// Body of `POST /v1/conversations/{conversation_id}/stream`: what is to be resumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationResume {
    /// The agent, for the conversation `default`.
    pub agent: Option<AgentId>,
    /// The run.
    pub run: Option<RunId>,
    /// The `otid` of a message that the run began with.
    pub otid: Option<String>,
    /// From where, and how.
    pub resume: ResumeBody,
}

impl ConversationResume {
    /// Reads it.
    ///
    /// # Errors
    /// It has not the form that it should have.
    pub fn parse(body: &Value) -> Result<Self, BodyError> {
        let resume = ResumeBody::parse(body)?;
        let body = Node::body(body)?;
        Ok(Self {
            agent: agent_of(&body)?,
            run: body.get("run_id").map(|id| id.parsed()).transpose()?,
            otid: body.optional_string("otid")?.filter(|otid| !otid.is_empty()),
            resume,
        })
    }
}

/// The agent that a body names beside the conversation `default`.
///
/// # Errors
/// It is no id.
pub fn agent_of(body: &Node<'_>) -> Result<Option<AgentId>, BodyError> {
    body.get("agent_id").map(|id| id.parsed()).transpose()
}

fn model(body: &Node<'_>) -> Result<Option<ModelHandle>, BodyError> {
    body.get("model").map(|model| read_model_handle(&model)).transpose()
}

fn object(body: &Node<'_>, name: &str) -> Result<Option<Value>, BodyError> {
    body.get(name).map(|value| value.object().map(|_| value.value().clone())).transpose()
}
