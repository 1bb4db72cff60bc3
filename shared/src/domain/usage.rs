//! What model calls cost.

use serde::{Deserialize, Serialize};

/// Tokens of one model call, or summed over the calls of a run. `None`: the provider did not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens that the model wrote.
    pub completion_tokens: u64,
    /// Tokens that the model read.
    pub prompt_tokens: u64,
    /// Both together, as the provider counts them.
    pub total_tokens: u64,
    /// Of the prompt: served from the provider's cache.
    pub cached_input_tokens: Option<u64>,
    /// Of the prompt: written to the provider's cache.
    pub cache_write_tokens: Option<u64>,
    /// Of the completion: spent on reasoning.
    pub reasoning_tokens: Option<u64>,
}

impl Usage {
    /// The sum of two usages; an unknown part counts only if the other is known.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            completion_tokens: self.completion_tokens + other.completion_tokens,
            prompt_tokens: self.prompt_tokens + other.prompt_tokens,
            total_tokens: self.total_tokens + other.total_tokens,
            cached_input_tokens: sum(self.cached_input_tokens, other.cached_input_tokens),
            cache_write_tokens: sum(self.cache_write_tokens, other.cache_write_tokens),
            reasoning_tokens: sum(self.reasoning_tokens, other.reasoning_tokens),
        }
    }
}

fn sum(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (None, None) => None,
        (one, other) => Some(one.unwrap_or(0) + other.unwrap_or(0)),
    }
}

/// The usage of a run so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RunUsage {
    /// Sums over all committed steps.
    pub sum: Usage,
    /// Model calls made.
    pub step_count: u32,
    /// Estimated size of the context after the last step, in tokens.
    pub context_tokens: Option<u64>,
}
