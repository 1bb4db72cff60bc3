//! Memory blocks: labelled text that stands in an agent's system prompt.

use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::ids::BlockId;

/// A block as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its id.
    pub id: BlockId,
    /// Name inside the agent, unique there.
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

/// The parts of a block that nothing searches for.
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
    /// Another block of the agent has the label.
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
}

impl BlockChange {
    /// The block after the change; `all` are the blocks of its agent.
    ///
    /// # Errors
    /// The value would be longer than the limit, or the label is another block's.
    pub fn apply(&self, block: &Block, all: &[Block], now: Timestamp) -> Result<Block, BlockWriteError> {
        let label = self.label.clone().unwrap_or_else(|| block.label.clone());
        if all.iter().any(|other| other.id != block.id && other.label == label) {
            return Err(BlockWriteError::LabelTaken(label));
        }
        let before = &block.details;
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
            },
            created_at: block.created_at,
            updated_at: now,
        };
        after.check_value(&after.value)?;
        Ok(after)
    }
}

impl Block {
    /// Checks a new value against the limit (api/04 §3: V shows it and enforces it nowhere, here it is enforced).
    ///
    /// # Errors
    /// The value is too long.
    pub fn check_value(&self, value: &str) -> Result<(), BlockWriteError> {
        check_length(&self.label, value, self.details.limit)
    }
}

/// Checks a value against a limit in characters.
///
/// # Errors
/// The value is too long.
pub fn check_length(label: &str, value: &str, limit: u64) -> Result<(), BlockWriteError> {
    let length = value.chars().count() as u64;
    if length > limit { Err(BlockWriteError::TooLong { length, limit, label: label.to_owned() }) } else { Ok(()) }
}
