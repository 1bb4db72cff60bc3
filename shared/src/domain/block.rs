//! Memory blocks: labelled text that stands in an agent's system prompt.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::ids::BlockId;

/// A block as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its id.
    pub id: BlockId,
    /// Name inside the agents that it is attached to, unique in each.
    pub label: String,
    /// The text.
    pub value: String,
    /// Everything else.
    pub details: BlockDetails,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last written.
    pub updated_at: Timestamp,
}

/// What a block has beside its label and its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockDetails {
    /// Most characters of the value.
    pub limit: u64,
    /// What the block is for, shown to the model.
    pub description: Option<String>,
    /// Whether tools may not write it.
    pub read_only: bool,
    /// Free data of the client.
    pub metadata: Option<serde_json::Value>,
    /// Free words of the client.
    pub tags: Vec<String>,
    /// Hidden from lists of the client's UI.
    pub hidden: Option<bool>,
    /// Whether the client keeps it as a template.
    #[serde(default)]
    pub is_template: bool,
    /// Its name as a template.
    #[serde(default)]
    pub template_name: Option<String>,
    /// The project that the client counts it to.
    #[serde(default)]
    pub project_id: Option<String>,
    /// Fields that are kept and shown without an effect here, by their name on the wire.
    #[serde(default)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

impl BlockDetails {
    /// The details of a block of which only the limit is said.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            description: None,
            read_only: false,
            metadata: None,
            tags: Vec::new(),
            hidden: None,
            is_template: false,
            template_name: None,
            project_id: None,
            other: serde_json::Map::new(),
        }
    }
}

/// Why a new value is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockWriteError {
    /// Longer than the block's limit.
    #[error("the value would have {length} characters, more than the limit of {limit} of block '{label}'")]
    TooLong {
        /// Characters of the refused value.
        length: u64,
        /// The block's limit.
        limit: u64,
        /// The block.
        label: String,
    },
    /// Another block of an agent that this one is attached to, or is to be, has the label.
    #[error("the agent has another block with the label '{0}'")]
    LabelTaken(String),
}

/// A change of a block by its client; what is absent stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlockChange {
    /// Its new name inside the agent.
    pub label: Option<String>,
    /// The new text.
    pub value: Option<String>,
    /// New most characters of the value.
    pub limit: Option<u64>,
    /// New description.
    pub description: Option<String>,
    /// Whether tools may not write it from now on; the client always may.
    pub read_only: Option<bool>,
    /// New data.
    pub metadata: Option<serde_json::Value>,
    /// New words.
    pub tags: Option<Vec<String>>,
    /// Hidden from lists of the client's UI.
    pub hidden: Option<bool>,
    /// Whether it is a template.
    pub is_template: Option<bool>,
    /// New name as a template.
    pub template_name: Option<String>,
    /// New project.
    pub project_id: Option<String>,
    /// Fields without an effect here.
    pub other: serde_json::Map<String, serde_json::Value>,
}

impl BlockChange {
    /// The block after the change; `all` are the blocks of the agents that it is attached to.
    ///
    /// # Errors
    /// The value would be longer than the limit, or the label is another block's.
    pub fn apply(&self, block: &Block, all: &[Block], now: Timestamp) -> Result<Block, BlockWriteError> {
        let label = self.label.clone().unwrap_or_else(|| block.label.clone());
        if all.iter().any(|other| other.id != block.id && other.label == label) {
            return Err(BlockWriteError::LabelTaken(label));
        }
        let before = &block.details;
        let mut other = before.other.clone();
        other.extend(self.other.clone());
        let after = Block {
            id: block.id,
            label,
            value: self.value.clone().unwrap_or_else(|| block.value.clone()),
            details: BlockDetails {
                limit: self.limit.unwrap_or(before.limit),
                description: self.description.clone().or_else(|| before.description.clone()),
                read_only: self.read_only.unwrap_or(before.read_only),
                metadata: self.metadata.clone().or_else(|| before.metadata.clone()),
                tags: self.tags.clone().unwrap_or_else(|| before.tags.clone()),
                hidden: self.hidden.or(before.hidden),
                is_template: self.is_template.unwrap_or(before.is_template),
                template_name: self.template_name.clone().or_else(|| before.template_name.clone()),
                project_id: self.project_id.clone().or_else(|| before.project_id.clone()),
                other,
            },
            created_at: block.created_at,
            updated_at: now,
        };
        after.check_value(&after.value)?;
        Ok(after)
    }
}

impl Block {
    /// Whether prompts show both in the same way.
    #[must_use]
    pub fn reads_like(&self, other: &Self) -> bool {
        let shown = |block: &Self| (block.details.limit, block.details.read_only);
        self.label == other.label
            && self.value == other.value
            && self.details.description == other.details.description
            && shown(self) == shown(other)
    }

    /// Checks a new value against the limit (api/04 §3: V shows it and enforces it nowhere, here it is enforced).
    ///
    /// # Errors
    /// The value is too long.
    pub fn check_value(&self, value: &str) -> Result<(), BlockWriteError> {
        check_length(&self.label, value, self.details.limit)
    }
}

/// A label that two of an agent's blocks have, if there is one.
#[must_use]
pub fn double_label(blocks: &[Block]) -> Option<&str> {
    let mut seen = HashSet::new();
    blocks.iter().map(|block| block.label.as_str()).find(|label| !seen.insert(*label))
}

/// Checks a value against a limit in characters.
///
/// # Errors
/// The value is too long.
pub fn check_length(label: &str, value: &str, limit: u64) -> Result<(), BlockWriteError> {
    let length = value.chars().count() as u64;
    if length > limit { Err(BlockWriteError::TooLong { length, limit, label: label.to_owned() }) } else { Ok(()) }
}
