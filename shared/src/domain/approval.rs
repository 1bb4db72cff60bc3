//! Answers to calls that wait for the client: tools that need approval, and tools that run at the client (api/05 §6).

use serde::{Deserialize, Serialize};

use super::ids::{MessageId, RunId, StepId};
use super::message::Content;
use super::tool::ToolStatus;

/// An answer to a call that waits for one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum CallAnswer {
    /// It may run or not.
    Approval {
        /// The call; in the deprecated form the id of the approval request's message.
        tool_call_id: String,
        /// Whether it may run.
        approve: bool,
        /// Why not.
        reason: Option<String>,
    },
    /// The client ran it.
    Return {
        /// The call.
        tool_call_id: String,
        /// Success or error.
        status: ToolStatus,
        /// A text, or text and image parts.
        content: Content,
        /// Lines of standard output.
        stdout: Option<Vec<String>>,
        /// Lines of standard error.
        stderr: Option<Vec<String>>,
    },
}

impl CallAnswer {
    /// The call that it answers.
    #[must_use]
    pub fn call_id(&self) -> &str {
        match self {
            Self::Approval { tool_call_id, .. } | Self::Return { tool_call_id, .. } => tool_call_id,
        }
    }
}

/// What a run answers: its first step makes no model call, it finishes the calls of an earlier run's last step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answering {
    /// The message that asked.
    pub request: MessageId,
    /// The step that asked; the results carry its id.
    pub step: StepId,
    /// The run that asked, whose tool calls count for the rules of this one.
    pub run: RunId,
}
