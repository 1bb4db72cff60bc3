//! The system message of an agent, compiled from its base text and its memory (api/05 §1).
//!
//! It is compiled when the agent or its memory changes and then stored, not at each step, so that providers can keep
//! the prompt in their caches.

use std::fmt::Write as _;

use super::Timestamp;
use super::agent::AgentSettings;
use super::block::Block;
use super::ids::AgentId;

/// Where the memory goes in the base text, if it says so.
const MEMORY_TOKEN: &str = "{CORE_MEMORY}";

/// What the prompt tells besides settings and blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromptFacts {
    /// The agent.
    pub agent_id: AgentId,
    /// Time of this compile.
    pub compiled_at: Timestamp,
    /// Stored messages that are not in context.
    pub messages_outside: u64,
}

/// Compiles the system message.
#[must_use]
pub fn compile(settings: &AgentSettings, blocks: &[Block], facts: &PromptFacts) -> String {
    let memory = memory_section(&settings.agent_type, blocks, facts);
    if settings.system.contains(MEMORY_TOKEN) {
        settings.system.replace(MEMORY_TOKEN, &memory)
    } else if settings.system.is_empty() {
        memory
    } else {
        format!("{}\n\n{memory}", settings.system)
    }
}

fn memory_section(agent_type: &str, blocks: &[Block], facts: &PromptFacts) -> String {
    let mut text = String::new();
    let shows_blocks = !matches!(agent_type, "react_agent" | "workflow_agent");
    if shows_blocks && !blocks.is_empty() {
        text.push_str("<memory_blocks>\nThe following memory blocks are always in your context:\n\n");
        for block in blocks {
            write_block(&mut text, block);
        }
        text.push_str("</memory_blocks>\n\n");
    }
    let time = facts.compiled_at.format("%Y-%m-%d %H:%M:%S UTC");
    // Writing to a String cannot fail; the results are of no interest.
    let _ = write!(
        text,
        "<memory_metadata>\n- AGENT_ID: {}\n- CONVERSATION_ID: default\n- System prompt last compiled: {time}\n- {} earlier messages are stored outside of this context\n</memory_metadata>",
        facts.agent_id, facts.messages_outside,
    );
    text
}

fn write_block(text: &mut String, block: &Block) {
    let label = &block.label;
    let description = block.details.description.as_deref().unwrap_or_default();
    let read_only = if block.details.read_only { "- read_only=true\n" } else { "" };
    let current = block.value.chars().count();
    let limit = block.details.limit;
    let value = &block.value;
    let _ = write!(
        text,
        "<{label}>\n<description>\n{description}\n</description>\n<metadata>\n{read_only}- chars_current={current}\n- chars_limit={limit}\n</metadata>\n<value>\n{value}\n</value>\n</{label}>\n\n",
    );
}
