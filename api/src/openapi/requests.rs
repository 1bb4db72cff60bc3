//! What goes in: parts of paths, and bodies. Their parsers are in `shared/src/wire`.

use holdfast_shared::domain::ids::{AgentId, BlockId, ConversationId, MessageId, RunId, StepId, ToolId};
use holdfast_shared::domain::limits::{BLOCK_CHARS, BLOCK_LABEL_CHARS, DEFAULT_MAX_STEPS, STEP_TAGS};
use holdfast_shared::domain::message::MessageType;
use holdfast_shared::domain::stop_reason::StopReason;
use holdfast_shared::domain::tool::NAME_CHARS;
use holdfast_shared::wire::agent::{AGENT_TYPES, Form, OTHER};
use holdfast_shared::wire::compaction::COMPACTION_MODES;
use holdfast_shared::wire::tool::MOST_RETURN_CHARS;
use holdfast_shared::wire::tool_rule;
use serde_json::{Map, Value, json};

use crate::extract::MOST_ROWS;

use super::schema::{
    any_of, at_least, boolean, id, list, map, nullable, reference, request, some_of, some_text, string, time, whole,
    with, word, words,
};

/// A part of a path, by the name that the router gives it.
pub(super) fn path_parameter(name: &str) -> Value {
    match name {
        "agent_id" => id::<AgentId>(),
        "tool_id" => id::<ToolId>(),
        "run_id" => id::<RunId>(),
        "block_id" => id::<BlockId>(),
        // An agent's own id in this place is going out of use.
        "conversation_id" => any_of([id::<ConversationId>(), word("default"), id::<AgentId>()]),
        "message_id" => id::<MessageId>(),
        "step_id" => id::<StepId>(),
        _ => some_text(),
    }
}

/// The components.
pub(super) fn schemas() -> Map<String, Value> {
    let groups = [agents(), tools(), sends(), conversations(), parts()];
    groups.into_iter().flatten().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

type Components = Vec<(&'static str, Value)>;

/// The name of a tool that model providers take.
fn tool_name() -> Value {
    json!({"type": "string", "pattern": format!("^[a-zA-Z0-9_-]{{1,{NAME_CHARS}}}$")})
}

/// `provider/model`, both not empty.
fn model_handle() -> Value {
    json!({"type": "string", "pattern": "^[^/\\u0000]+/[^\\u0000]", "examples": ["holdfast/demo"]})
}

/// How a context is compacted.
fn compaction() -> Value {
    request(
        &[],
        json!({
            "mode": words(COMPACTION_MODES),
            "sliding_window_percentage": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            "clip_chars": at_least(1),
            "model": model_handle(),
            "model_settings": map(),
            "prompt": string(),
            "prompt_acknowledgement": boolean(),
        }),
    )
}

fn agents() -> Components {
    let secrets = || {
        json!({
            "type": "object",
            "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
            "additionalProperties": string(),
        })
    };
    let mut both = json!({
        "name": {"type": "string", "pattern": "^[A-Za-z0-9 _'-]*[A-Za-z0-9_'-][A-Za-z0-9 _'-]*$"},
        "agent_type": words(AGENT_TYPES),
        "system": string(),
        "description": string(),
        "metadata": map(),
        "model": model_handle(),
        "model_settings": map(),
        "context_window_limit": at_least(1),
        "tools": list(string()),
        "tool_ids": list(id::<ToolId>()),
        "tool_rules": list(reference("ToolRule")),
        "secrets": secrets(),
        "tool_exec_environment_variables": secrets(),
        "tags": list(string()),
        "timezone": string(),
        "message_buffer_autoclear": boolean(),
    });
    for (name, form) in OTHER {
        both[name] = match form {
            Form::Flag => boolean(),
            Form::Number => whole(),
            Form::Text => string(),
            Form::Texts => list(string()),
            Form::Object => map(),
        };
    }
    both["compaction_settings"] = compaction();
    let create = json!({
        "memory_blocks": list(reference("NewBlock")),
        "block_ids": list(id::<BlockId>()),
        "initial_message_sequence": list(reference("HistoryMessage")),
        "include_base_tools": boolean(),
        "include_base_tool_rules": boolean(),
    });
    let update = json!({
        "message_ids": list(id::<MessageId>()),
        "block_ids": list(id::<BlockId>()),
        "last_stop_reason": words(StopReason::ALL.map(StopReason::as_str)),
        "last_run_completion": time(),
        "last_run_duration_ms": at_least(0),
    });
    let block = json!({
        "label": with(some_text(), json!({"maxLength": BLOCK_LABEL_CHARS})),
        "value": {"type": "string", "maxLength": BLOCK_CHARS},
        "limit": {"type": "integer", "minimum": 1, "default": BLOCK_CHARS},
        "description": string(),
        "read_only": boolean(),
        "metadata": map(),
        "tags": list(string()),
        "hidden": boolean(),
        "is_template": boolean(),
        "template_name": string(),
        "template_id": string(),
        "base_template_id": string(),
        "deployment_id": string(),
        "entity_id": string(),
        "project_id": string(),
        "preserve_on_migration": boolean(),
    });
    vec![
        ("CreateAgent", request(&[], with(both.clone(), create))),
        ("UpdateAgent", request(&[], with(both, update))),
        ("NewBlock", request(&["label", "value"], block.clone())),
        ("UpdateBlock", request(&[], block)),
        ("ToolRule", rules()),
    ]
}

/// The kinds of rules with the fields of each.
fn rules() -> Value {
    let children = || list(some_text());
    let rule = |kind: &&str| {
        let (required, own): (&[&str], Value) = match *kind {
            "run_first" => (&[], json!({"args": map()})),
            "constrain_child_tools" => (
                &["children"],
                json!({
                    "children": children(),
                    "child_arg_nodes": list(request(&["name"], json!({"name": some_text(), "args": map()}))),
                }),
            ),
            "parent_last_tool" => (&["children"], json!({"children": children()})),
            "conditional" => (
                &["child_output_mapping"],
                json!({
                    "child_output_mapping": {"type": "object", "minProperties": 1, "additionalProperties": some_text()},
                    "default_child": string(),
                    "require_output_mapping": boolean(),
                }),
            ),
            "max_count_per_step" => (&["max_count_limit"], json!({"max_count_limit": at_least(1)})),
            _ => (&[], json!({})),
        };
        let common = json!({"type": word(kind), "tool_name": some_text(), "prompt_template": string()});
        request(&[&["type", "tool_name"], required].concat(), with(common, own))
    };
    json!({"anyOf": tool_rule::TYPES.iter().map(rule).collect::<Vec<_>>()})
}

fn tools() -> Components {
    let requirement = || list(request(&["name"], json!({"name": string(), "version": string()})));
    let parameters = request(
        &["type"],
        json!({
            "type": word("object"),
            "properties": map(),
            "required": list(string()),
        }),
    );
    let schema = request(&["name"], json!({"name": tool_name(), "description": string(), "parameters": parameters}));
    let metadata = || request(&[], json!({"safe_to_repeat": boolean()}));
    let both = json!({
        "source_code": {
            "type": "string",
            "minLength": 1,
            "description": "Python, or for `http` a URL or an object with `url`, `method` and `headers`.",
        },
        "source_type": words(["python", "http", "typescript"]),
        "json_schema": schema,
        "description": string(),
        "tags": list(string()),
        "return_char_limit": {"type": "integer", "minimum": 1, "maximum": MOST_RETURN_CHARS},
        "default_requires_approval": boolean(),
        "enable_parallel_execution": boolean(),
        "safe_to_repeat": boolean(),
        "timeout_ms": at_least(1),
        "pip_requirements": requirement(),
        "npm_requirements": requirement(),
        "args_json_schema": map(),
        "metadata": metadata(),
        "metadata_": metadata(),
    });
    let approval = json!({"requires_approval": boolean(), "body_requires_approval": boolean()});
    let mut approval = request(&[], approval);
    approval["additionalProperties"] = json!(false);
    vec![
        ("CreateTool", request(&["source_code"], both.clone())),
        ("UpdateTool", request(&[], with(both, json!({"name": string()})))),
        ("ToolApproval", approval),
        ("RunTool", request(&[], json!({"args": map()}))),
    ]
}

fn sends() -> Components {
    let input = any_of([some_text(), some_of(reference("InputPart"))]);
    let mut send = request(
        &[],
        json!({
            "messages": some_of(reference("InputMessage")),
            "input": input,
            "background": boolean(),
            "stream_tokens": boolean(),
            "include_pings": boolean(),
            "streaming": boolean(),
            "max_steps": {"type": "integer", "minimum": 1, "default": DEFAULT_MAX_STEPS},
            "include_return_message_types": list(words(MessageType::ALL.map(MessageType::as_str))),
            "use_assistant_message": boolean(),
            "assistant_message_tool_name": string(),
            "assistant_message_tool_kwarg": string(),
            "override_model": model_handle(),
            "override_system": string(),
            "client_tools": list(request(&["name"], json!({
                "name": tool_name(),
                "description": string(),
                "parameters": map(),
            }))),
            "client_skills": list(request(&["name", "description", "location"], json!({
                "name": string(),
                "description": string(),
                "location": string(),
            }))),
            "include_compaction_messages": boolean(),
            "return_logprobs": boolean(),
            "top_logprobs": {"type": "integer", "minimum": 0, "maximum": 20},
            "return_token_ids": boolean(),
            "callback_url": string(),
        }),
    );
    // Exactly one of the two, where null is none.
    let only = |given: &str, other: &str| {
        json!({
            "required": [given],
            "properties": {given: {"not": {"type": "null"}}, other: {"type": "null"}},
        })
    };
    send["oneOf"] = json!([only("input", "messages"), only("messages", "input")]);
    let labels = json!({"otid": string(), "name": string(), "sender_id": string(), "group_id": string(), "batch_item_id": string()});
    let returned = request(
        &["tool_call_id", "status", "tool_return"],
        json!({
            "type": word("tool"),
            "tool_call_id": string(),
            "status": words(["success", "error"]),
            "tool_return": any_of([string(), list(any_of([reference("TextPart"), reference("ImagePart")]))]),
            "stdout": list(string()),
            "stderr": list(string()),
        }),
    );
    let approval = request(
        &["tool_call_id", "approve"],
        json!({
            "type": word("approval"),
            "tool_call_id": string(),
            "approve": boolean(),
            "reason": string(),
        }),
    );
    let answer = || any_of([reference("Approval"), reference("ToolReturn")]);
    let message = request(
        &["role", "content"],
        with(
            labels.clone(),
            json!({
                "type": word("message"),
                "role": words(["user", "system", "assistant"]),
                "content": any_of([some_text(), some_of(reference("MessagePart"))]),
            }),
        ),
    );
    let approvals = request(
        &["approvals"],
        with(labels.clone(), json!({"type": word("approval"), "approvals": some_of(answer())})),
    );
    let one_approval = request(
        &["approve", "approval_request_id"],
        with(
            labels.clone(),
            json!({
                "type": word("approval"),
                "approve": boolean(),
                "approval_request_id": string(),
                "reason": string(),
                "approvals": {"type": "array", "maxItems": 0},
            }),
        ),
    );
    let returns = request(
        &["tool_returns"],
        with(
            labels,
            json!({
                "type": word("tool_return"),
                "tool_returns": some_of(reference("ToolReturn")),
            }),
        ),
    );
    let mut send_to_conversation = send.clone();
    send_to_conversation["properties"]["agent_id"] = nullable(id::<AgentId>());
    vec![
        ("SendRequest", send),
        ("ConversationSendRequest", send_to_conversation),
        ("HistoryMessage", message.clone()),
        ("InputMessage", any_of([message, approvals, one_approval, returns])),
        ("Approval", approval),
        ("ToolReturn", returned),
        (
            "SearchRequest",
            request(
                &["query"],
                json!({
                    "query": {"type": "string", "pattern": "[^\\s\\u0000]"},
                    "agent_id": id::<AgentId>(),
                    "conversation_id": any_of([id::<ConversationId>(), word("default")]),
                    "search_mode": words(["vector", "fts", "hybrid"]),
                    "start_date": any_of([time(), json!({"type": "string", "format": "date"})]),
                    "end_date": any_of([time(), json!({"type": "string", "format": "date"})]),
                    "limit": {"type": "integer", "minimum": 1, "maximum": MOST_ROWS},
                }),
            ),
        ),
        (
            "StepFeedback",
            request(
                &[],
                json!({
                    "feedback": words(["positive", "negative"]),
                    "tags": {"type": "array", "items": string(), "maxItems": STEP_TAGS},
                }),
            ),
        ),
        ("ResetRequest", request(&[], json!({"add_default_initial_messages": boolean()}))),
        ("CancelRequest", request(&[], json!({"run_ids": list(string())}))),
        (
            "ResumeRequest",
            request(
                &[],
                json!({
                    "starting_after": whole(),
                    "include_pings": boolean(),
                    "poll_interval": {"type": "number", "exclusiveMinimum": 0},
                    "batch_size": at_least(1),
                }),
            ),
        ),
    ]
}

fn conversations() -> Components {
    let both = json!({
        "summary": string(),
        "description": string(),
        "model": model_handle(),
        "model_settings": map(),
        "context_window_limit": at_least(1),
    });
    let update = json!({"archived": boolean(), "last_message_at": time()});
    let agent = || json!({"agent_id": id::<AgentId>()});
    let compact = || json!({"compaction_settings": compaction()});
    let resume = json!({
        "run_id": id::<RunId>(),
        "otid": string(),
        "starting_after": whole(),
        "include_pings": boolean(),
        "poll_interval": {"type": "number", "exclusiveMinimum": 0},
        "batch_size": at_least(1),
    });
    vec![
        ("CreateConversation", request(&[], with(both.clone(), json!({"hidden": boolean()})))),
        ("UpdateConversation", request(&[], with(both, update))),
        ("ConversationResumeRequest", request(&[], with(agent(), resume))),
        ("OfAgent", request(&[], agent())),
        ("CompactRequest", request(&[], compact())),
        ("ConversationCompactRequest", request(&[], with(agent(), compact()))),
    ]
}

fn parts() -> Components {
    let signature = || nullable(string());
    let part = |kind: &str, required: &[&str], own: Value| {
        request(required, with(json!({"type": word(kind), "signature": string()}), own))
    };
    let detail = || words(["low", "high", "auto"]);
    let source = any_of([
        request(&["url"], json!({"type": word("url"), "url": {"type": "string"}, "detail": detail()})),
        request(
            &["media_type", "data"],
            json!({
                "type": word("base64"),
                "media_type": string(),
                "data": string(),
                "detail": detail(),
            }),
        ),
        request(
            &["file_id"],
            json!({
                "type": word("letta"),
                "file_id": string(),
                "media_type": string(),
                "data": string(),
                "detail": detail(),
            }),
        ),
    ]);
    let summary = request(&["index", "text"], json!({"index": whole(), "text": string()}));
    // Without a type, what has no other key is reasoning that was left out.
    let mut bare = request(&[], json!({"type": {"type": "null"}, "signature": signature()}));
    bare["additionalProperties"] = json!({"type": "null"});
    let names = [
        "TextPart",
        "ImagePart",
        "ToolCallPart",
        "ToolReturnPart",
        "ReasoningPart",
        "RedactedReasoningPart",
        "OmittedReasoningPart",
    ];
    let in_messages: Vec<Value> = names.iter().map(|name| reference(name)).collect();
    let mut in_input = in_messages.clone();
    in_input.push(reference("SummarizedReasoningPart"));
    vec![
        ("MessagePart", json!({"anyOf": in_messages})),
        ("InputPart", json!({"anyOf": in_input})),
        ("TextPart", part("text", &["text"], json!({"text": string()}))),
        ("ImagePart", part("image", &["source"], json!({"source": source}))),
        (
            "ToolCallPart",
            part("tool_call", &["id", "name", "input"], json!({"id": string(), "name": string(), "input": map()})),
        ),
        (
            "ToolReturnPart",
            part(
                "tool_return",
                &["tool_call_id", "content", "is_error"],
                json!({
                    "tool_call_id": string(),
                    "content": string(),
                    "is_error": boolean(),
                }),
            ),
        ),
        (
            "ReasoningPart",
            part(
                "reasoning",
                &["reasoning", "is_native"],
                json!({
                    "reasoning": string(),
                    "is_native": boolean(),
                }),
            ),
        ),
        ("RedactedReasoningPart", part("redacted_reasoning", &["data"], json!({"data": string()}))),
        ("OmittedReasoningPart", any_of([part("omitted_reasoning", &["type"], json!({})), bare])),
        (
            "SummarizedReasoningPart",
            part(
                "summarized_reasoning",
                &["id", "summary"],
                json!({
                    "id": string(),
                    "summary": list(summary),
                    "encrypted_content": string(),
                }),
            ),
        ),
    ]
}
