//! Tools and their calls.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::ids::ToolId;

/// A call that the model asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The provider's id of the call, opaque; also its idempotency key.
    pub id: String,
    /// The tool's name, as the model wrote it.
    pub name: String,
    /// The arguments as the model wrote them: JSON text, or what it took for it.
    pub arguments: String,
    /// Proofs that some providers attach to a call and want back with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<String>,
}

impl ToolCall {
    /// A call without signatures.
    #[must_use]
    pub fn new(id: impl Into<String>, name: impl Into<String>, arguments: impl Into<String>) -> Self {
        Self { id: id.into(), name: name.into(), arguments: arguments.into(), signatures: Vec::new() }
    }
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
    /// A result that is more than text, as parts in the contract's shape (text and images); `text` says it in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<Vec<serde_json::Value>>,
    /// Whether the tool ran, whatever came of it; what was refused, denied or lost does not count for tool rules.
    #[serde(default = "yes")]
    pub was_executed: bool,
}

const fn yes() -> bool {
    true
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

    /// An error in place of a result: the tool did not run.
    #[must_use]
    pub fn refused(call: &ToolCall, text: String) -> Self {
        Self { was_executed: false, ..Self::error(call, text) }
    }

    /// The same call when it failed after all: its arguments cannot be carried out.
    #[must_use]
    pub fn failed(self, why: &str) -> Self {
        let text = format!("Error executing function {}: ValueError: {why}", self.name);
        Self { status: ToolStatus::Error, text, ..self }
    }

    fn new(call: &ToolCall, status: ToolStatus, text: String) -> Self {
        Self {
            call_id: call.id.clone(),
            name: call.name.clone(),
            status,
            text,
            stdout: None,
            stderr: None,
            parts: None,
            was_executed: true,
        }
    }
}

/// What a model is told of a tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolSpec {
    /// The name that the model calls.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// JSON Schema of the arguments.
    pub parameters: serde_json::Value,
}

/// The longest name of a tool that every provider takes.
pub const NAME_CHARS: usize = 64;

/// Whether all providers take this as the name of a tool: `^[a-zA-Z0-9_-]{1,64}$` (api/05 §5).
#[must_use]
pub fn is_name(text: &str) -> bool {
    (1..=NAME_CHARS).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// A tool that agents can have.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// Its id.
    pub id: ToolId,
    /// What a model is told; the name is unique in a tenant.
    pub spec: ToolSpec,
    /// How it is carried out.
    pub source: ToolSource,
    /// How its calls are treated.
    pub options: ToolOptions,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// How a tool is carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToolSource {
    /// By the server itself.
    Builtin {
        /// The contract's word for its kind (api/04 §2, `tool_type`).
        tool_type: String,
    },
    /// By a Python function, in a sandbox.
    Python {
        /// The source; the function has the tool's name.
        code: String,
    },
    /// By an HTTP request.
    Http(HttpEndpoint),
    /// By a server of the Model Context Protocol that the operator named in the settings.
    Mcp {
        /// The server's name in the settings.
        server: String,
        /// The tool's name at that server.
        tool: String,
    },
}

impl ToolSource {
    /// The contract's word for the kind of tool (api/04 §2).
    #[must_use]
    pub fn tool_type(&self) -> &str {
        match self {
            Self::Builtin { tool_type } => tool_type,
            Self::Python { .. } | Self::Http(_) => CUSTOM,
            Self::Mcp { .. } => EXTERNAL_MCP,
        }
    }
}

/// The kind of tools that clients make.
pub const CUSTOM: &str = "custom";
/// The kind of tools of MCP servers.
pub const EXTERNAL_MCP: &str = "external_mcp";

/// Where the call of an HTTP tool goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpEndpoint {
    /// An `http` or `https` URL.
    pub url: String,
    /// `GET` or `DELETE` (arguments in the query), `POST`, `PUT` or `PATCH` (arguments as a JSON body).
    pub method: String,
    /// Headers; `${NAME}` in a value stands for the agent's secret of that name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// How calls of a tool are treated, and what the client said of it that nothing here reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ToolOptions {
    /// Free words of the client.
    pub tags: Vec<String>,
    /// Most characters of a result.
    pub return_char_limit: u64,
    /// Whether attaching it brings a rule that its calls need approval.
    pub default_requires_approval: Option<bool>,
    /// Whether calls of it may run at the same time as others.
    pub is_parallel: bool,
    /// Whether a call that was interrupted may be made again with the same id (G6).
    pub is_repeatable: bool,
    /// Most time of a call, in milliseconds; `None`: as the settings say.
    pub timeout_ms: Option<u64>,
    /// Settings that are kept and shown, by their name on the wire.
    pub other: serde_json::Map<String, serde_json::Value>,
}

impl Default for ToolOptions {
    fn default() -> Self {
        Self {
            tags: Vec::new(),
            return_char_limit: super::limits::TOOL_RETURN_CHARS as u64,
            default_requires_approval: None,
            is_parallel: false,
            is_repeatable: false,
            timeout_ms: None,
            other: serde_json::Map::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_every_provider_takes() {
        for (name, expected) in [("a", true), ("A-b_9", true), ("", false), ("a b", false), ("ä", false)] {
            assert_eq!(is_name(name), expected, "{name}");
        }
        assert!(is_name(&"a".repeat(NAME_CHARS)) && !is_name(&"a".repeat(NAME_CHARS + 1)));
    }
}
