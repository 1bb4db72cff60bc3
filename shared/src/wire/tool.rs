//! Tools: the object (api/04 §2).

use serde_json::{Map, Value, json};

use crate::domain::tool::{Tool, ToolSource};

/// `Tool`
#[must_use]
pub fn object(tool: &Tool) -> Value {
    let (tool_type, source_type, source_code) = match &tool.source {
        ToolSource::Builtin { tool_type } => (tool_type.as_str(), "python", None),
        ToolSource::Python { code } => ("custom", "python", Some(code.clone())),
        ToolSource::Http(endpoint) => ("custom", "http", serde_json::to_string(endpoint).ok()),
        ToolSource::Mcp { .. } => ("external_mcp", "mcp", None),
    };
    let options = &tool.options;
    let other = |name: &str| options.other.get(name).cloned().unwrap_or(Value::Null);
    json!({
        "id": tool.id,
        "tool_type": tool_type,
        "name": tool.spec.name,
        "description": tool.spec.description,
        "source_type": source_type,
        "source_code": source_code,
        "json_schema": {
            "name": tool.spec.name,
            "description": tool.spec.description,
            "parameters": tool.spec.parameters,
        },
        "args_json_schema": other("args_json_schema"),
        "tags": options.tags,
        "return_char_limit": options.return_char_limit,
        "pip_requirements": other("pip_requirements"),
        "npm_requirements": other("npm_requirements"),
        "default_requires_approval": options.default_requires_approval,
        "enable_parallel_execution": options.is_parallel,
        "created_by_id": null,
        "last_updated_by_id": null,
        "metadata_": options.other.get("metadata_").cloned().unwrap_or_else(|| Value::Object(Map::new())),
        "project_id": null,
    })
}
