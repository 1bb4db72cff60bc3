//! Why a run ended, and what that makes of it (api/02 §5).

use serde::{Deserialize, Serialize};

use super::run::RunStatus;

/// The reason in a run's one `stop_reason` event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The model answered without calling a tool.
    EndTurn,
    /// A call waits for an answer of the client.
    RequiresApproval,
    /// The step limit was reached while the loop would go on.
    MaxSteps,
    /// A terminal tool ran.
    ToolRule,
    /// The run was cancelled.
    Cancelled,
    /// A failure of the server that fits nothing else.
    Error,
    /// The model provider failed.
    LlmApiError,
    /// The provider answered with nothing usable.
    InvalidLlmResponse,
    /// Prefilled arguments do not fit the tool.
    InvalidToolCall,
    /// A legacy agent's model called no tool although it had to.
    NoToolCall,
    /// The last answer was cut by the output limit.
    MaxTokensExceeded,
    /// A spending limit was hit between steps.
    InsufficientCredits,
    /// The system prompt alone does not fit the model's context.
    ContextWindowOverflowInSystemPrompt,
}

impl StopReason {
    /// Every reason, in the order of api/02 §5.
    pub const ALL: [Self; 13] = [
        Self::EndTurn,
        Self::RequiresApproval,
        Self::MaxSteps,
        Self::ToolRule,
        Self::Cancelled,
        Self::Error,
        Self::LlmApiError,
        Self::InvalidLlmResponse,
        Self::InvalidToolCall,
        Self::NoToolCall,
        Self::MaxTokensExceeded,
        Self::InsufficientCredits,
        Self::ContextWindowOverflowInSystemPrompt,
    ];

    /// The status of a run that ended for this reason: the one place that decides it.
    #[must_use]
    pub const fn run_status(self) -> RunStatus {
        match self {
            Self::EndTurn | Self::RequiresApproval | Self::MaxSteps | Self::ToolRule => RunStatus::Completed,
            Self::Cancelled => RunStatus::Cancelled,
            Self::Error
            | Self::LlmApiError
            | Self::InvalidLlmResponse
            | Self::InvalidToolCall
            | Self::NoToolCall
            | Self::MaxTokensExceeded
            | Self::InsufficientCredits
            | Self::ContextWindowOverflowInSystemPrompt => RunStatus::Failed,
        }
    }

    /// The word on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EndTurn => "end_turn",
            Self::RequiresApproval => "requires_approval",
            Self::MaxSteps => "max_steps",
            Self::ToolRule => "tool_rule",
            Self::Cancelled => "cancelled",
            Self::Error => "error",
            Self::LlmApiError => "llm_api_error",
            Self::InvalidLlmResponse => "invalid_llm_response",
            Self::InvalidToolCall => "invalid_tool_call",
            Self::NoToolCall => "no_tool_call",
            Self::MaxTokensExceeded => "max_tokens_exceeded",
            Self::InsufficientCredits => "insufficient_credits",
            Self::ContextWindowOverflowInSystemPrompt => "context_window_overflow_in_system_prompt",
        }
    }

    /// The reason that a word stands for, if any.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }
}
