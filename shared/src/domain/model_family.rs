//! What is known of well-known families of models by their names, for where nobody says it better.

/// What all models of a family have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelFamily {
    /// How the names of its models begin, without what a router puts before a slash.
    prefix: &'static str,
    /// Most tokens of a call's context.
    pub context_window: u64,
    /// Whether they take images.
    pub sees_images: bool,
}

const fn sees(prefix: &'static str, context_window: u64) -> ModelFamily {
    ModelFamily { prefix, context_window, sees_images: true }
}

const fn reads(prefix: &'static str, context_window: u64) -> ModelFamily {
    ModelFamily { prefix, context_window, sees_images: false }
}

/// As their makers publish it.
const FAMILIES: &[ModelFamily] = &[
    reads("gpt-3.5-turbo", 16_385),
    reads("gpt-4", 8_192),
    reads("gpt-4-32k", 32_768),
    sees("gpt-4-turbo", 128_000),
    sees("gpt-4o", 128_000),
    sees("chatgpt-4o", 128_000),
    sees("gpt-4.1", 1_047_576),
    sees("gpt-4.5", 128_000),
    sees("gpt-5", 400_000),
    sees("gpt-5-chat", 128_000),
    reads("gpt-oss", 131_072),
    sees("o1", 200_000),
    reads("o1-mini", 128_000),
    reads("o1-preview", 128_000),
    sees("o3", 200_000),
    reads("o3-mini", 200_000),
    sees("o4-mini", 200_000),
    sees("claude", 200_000),
    reads("claude-2", 100_000),
    reads("claude-2.1", 200_000),
    reads("claude-instant", 100_000),
    sees("gemini", 1_048_576),
    sees("gemini-1.5-pro", 2_097_152),
    reads("deepseek", 131_072),
    reads("llama-3", 8_192),
    reads("llama-3.1", 131_072),
    sees("llama-3.2-11b-vision", 131_072),
    sees("llama-3.2-90b-vision", 131_072),
    reads("llama-3.2", 131_072),
    reads("llama-3.3", 131_072),
    reads("kimi-k2", 262_144),
    reads("glm-4.5", 131_072),
    sees("glm-4.5v", 65_536),
    reads("glm-4.6", 200_000),
    reads("grok-3", 131_072),
    sees("grok-4", 256_000),
];

impl ModelFamily {
    /// The family of a model by the provider's name of it; the longest prefix counts.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let name = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
        let fitting = FAMILIES.iter().filter(|family| name.starts_with(family.prefix));
        fitting.max_by_key(|family| family.prefix.len()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_counts() {
        let known = |name: &str| ModelFamily::of(name).map(|family| (family.context_window, family.sees_images));
        assert_eq!(known("gpt-4-0613"), Some((8_192, false)));
        assert_eq!(known("gpt-4o-mini"), Some((128_000, true)));
        assert_eq!(known("gpt-4.1-nano"), Some((1_047_576, true)));
        assert_eq!(known("o3-mini-2025-01-31"), Some((200_000, false)));
        assert_eq!(known("anthropic/claude-sonnet-4"), Some((200_000, true)));
        assert_eq!(known("meta-llama/Llama-3.3-70B-Instruct"), Some((131_072, false)));
        assert_eq!(known("something-new"), None);
    }
}
