//! Tools and their calls.

use serde::{Deserialize, Serialize};

/// A call that the model asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The provider's id of the call, opaque; also its idempotency key.
    pub id: String,
    /// The tool's name, as the model wrote it.
    pub name: String,
    /// The arguments as the model wrote them: JSON text, or what it took for it.
    pub arguments: String,
}

/// Whether a tool call did what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolStatus {
    /// It did.
    Success,
    /// It did not; the text says why.
    Error,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolReturn {
    /// The call.
    pub call_id: String,
    /// The tool's name.
    pub name: String,
    /// Success or error.
    pub status: ToolStatus,
    /// The result as text.
    pub text: String,
    /// Lines that the tool wrote to standard output.
    pub stdout: Option<Vec<String>>,
    /// Lines that the tool wrote to standard error.
    pub stderr: Option<Vec<String>>,
}

impl ToolReturn {
    /// A successful return with a text.
    #[must_use]
    pub fn success(call: &ToolCall, text: String) -> Self {
        Self::new(call, ToolStatus::Success, text)
    }

    /// A failed return with a text.
    #[must_use]
    pub fn error(call: &ToolCall, text: String) -> Self {
        Self::new(call, ToolStatus::Error, text)
    }

    fn new(call: &ToolCall, status: ToolStatus, text: String) -> Self {
        Self { call_id: call.id.clone(), name: call.name.clone(), status, text, stdout: None, stderr: None }
    }
}

/// What a model is told of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolSpec {
    /// The name that the model calls.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// JSON Schema of the arguments.
    pub parameters: serde_json::Value,
}
