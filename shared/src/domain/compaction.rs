//! Summaries that stand for earlier messages (api/05 §7).

use serde::{Deserialize, Serialize};

/// What stands for the messages that a compaction took out of the context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// What they said, in short.
    pub text: String,
    /// What the compaction did.
    pub stats: CompactionStats,
}

/// What a compaction did, in the contract's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactionStats {
    /// What set it off.
    pub trigger: CompactionTrigger,
    /// Estimated tokens of the context before.
    pub context_tokens_before: Option<u64>,
    /// Estimated tokens of the context after.
    pub context_tokens_after: Option<u64>,
    /// The model's context window in tokens.
    pub context_window: u64,
    /// Messages in context before.
    pub messages_count_before: u64,
    /// Messages in context after.
    pub messages_count_after: u64,
}

/// What set a compaction off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompactionTrigger {
    /// The context was nearly full after a step.
    PostStepContextCheck,
    /// The provider refused a context that was too large.
    ContextWindowExceeded,
    /// The client asked for it.
    Manual,
}

impl CompactionTrigger {
    /// Everything that does.
    pub const ALL: [Self; 3] = [Self::PostStepContextCheck, Self::ContextWindowExceeded, Self::Manual];

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PostStepContextCheck => "post_step_context_check",
            Self::ContextWindowExceeded => "context_window_exceeded",
            Self::Manual => "manual",
        }
    }
}
