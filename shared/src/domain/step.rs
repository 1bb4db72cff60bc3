//! Steps: one model call and the tool calls that it asked for.

use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::ids::{AgentId, MessageId, RunId, StepId};
use super::message::Answer;
use super::model::ModelHandle;
use super::stop_reason::StopReason;
use super::tool::ToolReturn;
use super::usage::Usage;

/// A step as stored and listed.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Its id.
    pub id: StepId,
    /// The run.
    pub run_id: RunId,
    /// The agent.
    pub agent_id: AgentId,
    /// Place in the run, from 1.
    pub number: u32,
    /// How far it got.
    pub status: StepStatus,
    /// The reason that the run stopped after this step, if it did.
    pub stop_reason: Option<StopReason>,
    /// The model that was called.
    pub model: ModelHandle,
    /// Tokens of its model call.
    pub usage: Usage,
    /// What went wrong, for a failed step: the type and the text of the error event.
    pub error: Option<StepError>,
    /// Tries of its model call that failed before the one that counts.
    pub retries: Vec<Retry>,
    /// When and for how long.
    pub timing: StepTiming,
    /// What the client thinks of it.
    pub feedback: Option<Feedback>,
    /// The client's tags.
    pub tags: Vec<String>,
    /// The W3C trace that the run's request belongs to: 32 hexadecimal digits.
    pub trace_id: Option<String>,
}

/// What a client thinks of a step (api/04 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feedback {
    /// Well done.
    Positive,
    /// Not so.
    Negative,
}

impl Feedback {
    /// The word on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Positive => "positive",
            Self::Negative => "negative",
        }
    }

    /// The feedback that a word stands for, if any.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Positive, Self::Negative].into_iter().find(|feedback| feedback.as_str() == word)
    }
}

/// How far a step got. A row exists from the start of the model call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    /// Under way, or interrupted and not yet taken up again.
    Pending,
    /// Committed.
    Success,
    /// Ended by an error.
    Failed,
    /// Ended by a cancel.
    Cancelled,
}

impl StepStatus {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Success, Self::Failed, Self::Cancelled];

    /// The word on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status that a word stands for, if any.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }
}

/// The error of a failed step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepError {
    /// The `error_type` of api/02 §6.
    pub error_type: String,
    /// The text for users.
    pub message: String,
}

/// A try of a model call that failed and was followed by another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// The `error_type` of api/02 §6.
    pub error_type: String,
    /// The text for users.
    pub message: String,
    /// The provider's HTTP status, where it answered.
    pub status: Option<u16>,
    /// How long the next try waited, in milliseconds.
    pub waited_ms: u64,
}

/// Times of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepTiming {
    /// When the step began.
    pub started_at: Timestamp,
    /// How long the model call took, in nanoseconds.
    pub llm_request_ns: Option<i64>,
    /// How long the tools took, in nanoseconds.
    pub tool_execution_ns: Option<i64>,
    /// How long the whole step took, in nanoseconds.
    pub step_ns: Option<i64>,
}

/// A step that a worker left in the middle, as its successor finds it.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenStep {
    /// The step.
    pub id: StepId,
    /// Place in the run, from 1.
    pub number: u32,
    /// When it began.
    pub started_at: Timestamp,
    /// The model's answer, if it was recorded: then the model is not called again.
    pub answer: Option<RecordedAnswer>,
}

/// A model's answer that is durable, and what has come of its calls so far.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedAnswer {
    /// The stored assistant message.
    pub message_id: MessageId,
    /// The answer.
    pub answer: Answer,
    /// Tokens of the model call.
    pub usage: Usage,
    /// Results recorded so far; a call that is in here is never executed again (G6).
    pub returns: Vec<ToolReturn>,
    /// Places of calls that were begun and have no result: whether they had an effect is unknown.
    pub begun: Vec<u32>,
    /// The step of an earlier run that asked for these calls, if the client was asked first.
    pub answers: Option<StepId>,
}
