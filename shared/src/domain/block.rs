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
