//! What comes back: the shapes of answers, of events, and of refusals.

use holdfast_shared::domain::compaction::CompactionTrigger;
use holdfast_shared::domain::ids::{AgentId, BlockId, ConversationId, MessageId, PingId, RunId, StepId, ToolId};
use holdfast_shared::domain::message::MessageType;
use holdfast_shared::domain::run::{ErrorType, RunStatus};
use holdfast_shared::domain::step::StepStatus;
use holdfast_shared::domain::stop_reason::StopReason;
use holdfast_shared::wire::agent::AGENT_TYPES;
use holdfast_shared::wire::model::ENDPOINT_TYPES;
use holdfast_shared::wire::tool::TOOL_TYPES;
use serde_json::{Map, Value, json};

use super::schema::{
    answer, any_of, at_least, boolean, count, id, list, map, nothing, nullable, reference, string, time, whole, with,
    word, words,
};

/// The name of the union of all events.
pub(super) const EVENT: &str = "Event";

/// Why a request is refused, by status.
const REFUSALS: [(u16, &str); 12] = [
    (400, "It asks for what cannot be done"),
    (401, "No key, or a wrong one; of a send also: the model's provider refused its credentials"),
    (404, "There is no such thing, or it is another tenant's"),
    (409, "The state of things is against it"),
    (410, "The events are no longer kept"),
    (413, "The body is too large"),
    (422, "It has not the form that is described here; `detail` names the field"),
    (429, "The model's provider limits the rate"),
    (500, "A defect; of a send also: the run failed"),
    (502, "The model's provider failed"),
    (503, "Something that the service depends on cannot be reached, or it stops: try again"),
    (504, "The model's provider took too long"),
];

/// The answers that refuse.
pub(super) fn refusals() -> Map<String, Value> {
    let used: Vec<u16> = super::operations::all().iter().flat_map(super::Operation::refusals).collect();
    let refusal = |(status, description): (u16, &str)| {
        let content = json!({"application/json": {"schema": reference("Refusal")}});
        (status.to_string(), json!({"description": description, "content": content}))
    };
    REFUSALS.into_iter().filter(|(status, _)| used.contains(status)).map(refusal).collect()
}

/// The components.
pub(super) fn schemas() -> Map<String, Value> {
    let groups = [agents(), tools_and_blocks(), runs(), messages(), events(), others()];
    groups.into_iter().flatten().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

type Components = Vec<(&'static str, Value)>;

fn object_of(values: Value) -> Value {
    json!({"type": "object", "additionalProperties": values})
}

fn maybe_text() -> Value {
    nullable(string())
}

fn maybe_count() -> Value {
    nullable(count())
}

/// What may be anything, as the client sent it.
fn anything() -> Value {
    json!({})
}

fn stop_reason() -> Value {
    words(StopReason::ALL.map(StopReason::as_str))
}

fn agents() -> Components {
    let secret = answer(json!({"agent_id": id::<AgentId>(), "key": string(), "value": word("")}));
    let state = json!({
        "id": id::<AgentId>(),
        "name": string(),
        "agent_type": words(AGENT_TYPES),
        "system": string(),
        "description": maybe_text(),
        "metadata": nullable(map()),
        "llm_config": reference("LlmConfig"),
        "embedding_config": anything(),
        "model": string(),
        "embedding": anything(),
        "model_settings": nullable(map()),
        "compaction_settings": nullable(map()),
        "response_format": anything(),
        "blocks": list(reference("Block")),
        "memory": reference("Memory"),
        "tools": list(reference("Tool")),
        "sources": list(map()),
        "tags": list(string()),
        "tool_rules": list(reference("ToolRule")),
        "message_ids": list(id::<MessageId>()),
        "tool_exec_environment_variables": list(secret.clone()),
        "secrets": list(secret),
        "pending_approval": any_of([reference("ApprovalRequestMessage"), nothing()]),
        "message_buffer_autoclear": boolean(),
        "last_run_completion": nullable(time()),
        "last_run_duration_ms": nullable(whole()),
        "last_stop_reason": nullable(stop_reason()),
        "timezone": string(),
        "created_at": time(),
        "updated_at": time(),
    });
    vec![
        ("AgentState", answer(state)),
        (
            "Memory",
            answer(json!({
                "agent_type": words(AGENT_TYPES),
                "blocks": list(reference("Block")),
                "file_blocks": list(map()),
                "prompt_template": string(),
            })),
        ),
        ("Deleted", answer(json!({"message": string()}))),
    ]
}

fn tools_and_blocks() -> Components {
    let schema = answer(json!({"name": string(), "description": string(), "parameters": map()}));
    vec![
        (
            "Tool",
            answer(json!({
                "id": id::<ToolId>(),
                "tool_type": words(TOOL_TYPES),
                "name": string(),
                "description": string(),
                "source_type": words(["python", "http", "mcp"]),
                "source_code": maybe_text(),
                "json_schema": schema,
                "args_json_schema": nullable(map()),
                "tags": list(string()),
                "return_char_limit": at_least(1),
                "pip_requirements": nullable(list(map())),
                "npm_requirements": nullable(list(map())),
                "default_requires_approval": nullable(boolean()),
                "enable_parallel_execution": boolean(),
                "safe_to_repeat": boolean(),
                "timeout_ms": nullable(at_least(1)),
                "metadata_": map(),
            })),
        ),
        (
            "Block",
            answer(json!({
                "id": id::<BlockId>(),
                "label": string(),
                "value": string(),
                "limit": at_least(1),
                "description": maybe_text(),
                "read_only": boolean(),
                "metadata": map(),
                "hidden": nullable(boolean()),
                "tags": list(string()),
                "is_template": boolean(),
            })),
        ),
    ]
}

fn runs() -> Components {
    let prompt = answer(json!({
        "cached_tokens": maybe_count(),
        "cache_read_tokens": maybe_count(),
        "cache_creation_tokens": maybe_count(),
    }));
    let completion = answer(json!({"reasoning_tokens": maybe_count()}));
    let tokens = json!({
        "completion_tokens": count(),
        "prompt_tokens": count(),
        "total_tokens": count(),
        "prompt_tokens_details": nullable(prompt),
        "completion_tokens_details": nullable(completion),
    });
    let step = json!({
        "id": id::<StepId>(),
        "run_id": id::<RunId>(),
        "agent_id": id::<AgentId>(),
        "provider_name": string(),
        "provider_category": word("base"),
        "model": string(),
        "model_handle": string(),
        "model_endpoint": maybe_text(),
        "context_window_limit": count(),
        "cached_input_tokens": maybe_count(),
        "cache_write_tokens": maybe_count(),
        "reasoning_tokens": maybe_count(),
        "stop_reason": nullable(stop_reason()),
        "status": words(StepStatus::ALL.map(StepStatus::as_str)),
        "error_type": nullable(words(ErrorType::ALL.map(ErrorType::as_str))),
        "error_data": nullable(map()),
        "retries": list(map()),
        "tags": list(string()),
        "messages": list(map()),
        "feedback": nullable(words(["positive", "negative"])),
    });
    vec![
        (
            "Conversation",
            answer(json!({
                "id": id::<ConversationId>(),
                "agent_id": id::<AgentId>(),
                "summary": maybe_text(),
                "description": maybe_text(),
                "in_context_message_ids": list(id::<MessageId>()),
                "isolated_block_ids": list(string()),
                "model": maybe_text(),
                "model_settings": nullable(map()),
                "context_window_limit": nullable(at_least(1)),
                "hidden": nullable(boolean()),
                "archived": boolean(),
                "archived_at": nullable(time()),
                "last_message_at": nullable(time()),
                "created_at": time(),
                "updated_at": time(),
            })),
        ),
        (
            "Compacted",
            answer(json!({"summary": string(), "num_messages_before": count(), "num_messages_after": count()})),
        ),
        (
            "ToolExecutionResult",
            answer(json!({
                "status": words(["success", "error"]),
                "func_return": maybe_text(),
                "stdout": list(string()),
                "stderr": list(string()),
            })),
        ),
        (
            "Run",
            answer(json!({
                "id": id::<RunId>(),
                "agent_id": id::<AgentId>(),
                "status": words(RunStatus::ALL.map(RunStatus::as_str)),
                "created_at": time(),
                "completed_at": nullable(time()),
                "background": boolean(),
                "conversation_id": maybe_text(),
                "stop_reason": nullable(stop_reason()),
                "metadata": map(),
                "request_config": map(),
                "callback_url": maybe_text(),
                "ttft_ns": nullable(whole()),
                "total_duration_ns": nullable(whole()),
            })),
        ),
        (
            "RunMetrics",
            answer(json!({
                "id": id::<RunId>(),
                "agent_id": id::<AgentId>(),
                "run_start_ns": nullable(whole()),
                "run_ns": nullable(whole()),
                "num_steps": count(),
            })),
        ),
        ("Usage", answer(tokens.clone())),
        ("Step", answer(with(step, tokens))),
        (
            "StepMetrics",
            answer(json!({
                "id": id::<StepId>(),
                "run_id": id::<RunId>(),
                "agent_id": id::<AgentId>(),
                "step_start_ns": nullable(whole()),
                "llm_request_start_ns": nullable(whole()),
                "llm_request_ns": nullable(whole()),
                "tool_execution_ns": nullable(whole()),
                "step_ns": nullable(whole()),
            })),
        ),
        (
            "FoundMessage",
            json!({
                "type": "object",
                "required": ["message_type", "message_id", "created_at", "agent_id", "conversation_id"],
                "properties": {
                    "message_type": words(
                        ["system_message", "user_message", "assistant_message", "reasoning_message"],
                    ),
                    "message_id": id::<MessageId>(),
                    "created_at": time(),
                    "agent_id": id::<AgentId>(),
                    "conversation_id": nullable(id::<ConversationId>()),
                    "content": any_of([string(), list(reference("ShownPart"))]),
                    "reasoning": string(),
                },
            }),
        ),
        ("Cancelled", object_of(words(["cancelled", "failed"]))),
        (
            "LettaResponse",
            answer(json!({
                "messages": list(reference("Message")),
                "stop_reason": reference("StopReason"),
                "usage": reference("UsageStatistics"),
            })),
        ),
    ]
}

/// The fields that all messages have, then those of its own; `kind` is its word.
fn message(kind: &str, own: Value) -> Value {
    let common = json!({
        "id": id::<MessageId>(),
        "date": time(),
        "name": maybe_text(),
        "message_type": word(kind),
        "otid": string(),
        "sender_id": maybe_text(),
        "step_id": nullable(id::<StepId>()),
        "is_err": nullable(boolean()),
        "seq_id": nullable(at_least(1)),
        "run_id": nullable(id::<RunId>()),
    });
    answer(with(common, own))
}

fn content() -> Value {
    any_of([string(), list(reference("ShownPart"))])
}

const MESSAGES: [(MessageType, &str); 10] = [
    (MessageType::SystemMessage, "SystemMessage"),
    (MessageType::UserMessage, "UserMessage"),
    (MessageType::AssistantMessage, "AssistantMessage"),
    (MessageType::ReasoningMessage, "ReasoningMessage"),
    (MessageType::HiddenReasoningMessage, "HiddenReasoningMessage"),
    (MessageType::ToolCallMessage, "ToolCallMessage"),
    (MessageType::ToolReturnMessage, "ToolReturnMessage"),
    (MessageType::ApprovalRequestMessage, "ApprovalRequestMessage"),
    (MessageType::ApprovalResponseMessage, "ApprovalResponseMessage"),
    (MessageType::SummaryMessage, "SummaryMessage"),
];

/// One of several, told apart by `message_type`.
fn union(names: &[&str]) -> Value {
    json!({"anyOf": names.iter().map(|name| reference(name)).collect::<Vec<_>>()})
}

fn own_fields(kind: MessageType) -> Value {
    match kind {
        MessageType::SystemMessage | MessageType::UserMessage => json!({"content": content()}),
        MessageType::AssistantMessage => json!({"content": content()}),
        MessageType::ReasoningMessage => json!({
            "source": words(["reasoner_model", "non_reasoner_model"]),
            "reasoning": string(),
            "signature": maybe_text(),
        }),
        MessageType::HiddenReasoningMessage => json!({
            "state": words(["redacted", "omitted"]),
            "hidden_reasoning": maybe_text(),
        }),
        // In lists and in streams of steps all calls; in streams of tokens both fields hold the same piece of one.
        MessageType::ToolCallMessage | MessageType::ApprovalRequestMessage => json!({
            "tool_call": reference("ToolCall"),
            "tool_calls": any_of([list(reference("ToolCall")), reference("ToolCall")]),
        }),
        MessageType::ToolReturnMessage => json!({
            "tool_return": string(),
            "status": words(["success", "error"]),
            "tool_call_id": string(),
            "stdout": nullable(list(string())),
            "stderr": nullable(list(string())),
            "tool_returns": list(reference("ShownReturn")),
        }),
        MessageType::ApprovalResponseMessage => json!({
            "approvals": list(any_of([reference("ShownApproval"), reference("ShownReturn")])),
            "approve": nullable(boolean()),
            "approval_request_id": maybe_text(),
            "reason": maybe_text(),
        }),
        MessageType::SummaryMessage => json!({"summary": string(), "compaction_stats": reference("CompactionStats")}),
        MessageType::EventMessage => json!({}),
    }
}

fn messages() -> Components {
    let mut components: Components =
        MESSAGES.into_iter().map(|(kind, name)| (name, message(kind.as_str(), own_fields(kind)))).collect();
    let triggers = || words(CompactionTrigger::ALL.map(CompactionTrigger::as_str));
    components.extend([
        ("Message", union(&MESSAGES.map(|(_, name)| name))),
        ("ShownPart", any_of([
            json!({"type": "object", "required": ["type", "text"], "properties": {"type": word("text"), "text": string()}}),
            json!({"type": "object", "required": ["type", "source"], "properties": {"type": word("image"), "source": map()}}),
        ])),
        ("ToolCall", answer(json!({"name": maybe_text(), "arguments": maybe_text(), "tool_call_id": string()}))),
        ("ShownReturn", answer(json!({
            "type": word("tool"),
            "tool_return": content(),
            "status": words(["success", "error"]),
            "tool_call_id": string(),
            "stdout": nullable(list(string())),
            "stderr": nullable(list(string())),
        }))),
        ("ShownApproval", answer(json!({
            "type": word("approval"),
            "tool_call_id": string(),
            "approve": boolean(),
            "reason": maybe_text(),
        }))),
        ("CompactionStats", answer(json!({
            "trigger": triggers(),
            "context_window": count(),
            "context_tokens_before": maybe_count(),
            "context_tokens_after": maybe_count(),
            "messages_count_before": count(),
            "messages_count_after": count(),
        }))),
        ("EventMessage", with(message(MessageType::EventMessage.as_str(), json!({
            "id": json!({"type": "string", "format": "uuid"}),
            "otid": nothing(),
            "event_type": word("compaction"),
            "event_data": answer(json!({
                "trigger": triggers(),
                "context_token_estimate": maybe_count(),
                "context_window": count(),
            })),
        })), json!({"description": "A compaction begins."}))),
    ]);
    components
}

fn events() -> Components {
    let ping = json!({
        "id": id::<PingId>(),
        "date": time(),
        "message_type": word("ping"),
        "step_id": nothing(),
        "seq_id": nullable(count()),
        "run_id": id::<RunId>(),
    });
    let mut ping = answer(ping);
    ping["properties"]["superseded_message_ids"] = list(id::<MessageId>());
    ping["properties"]["tool_progress"] = answer(json!({
        "tool_call_id": string(),
        "progress": {"type": "number"},
        "total": nullable(json!({"type": "number"})),
        "message": maybe_text(),
    }));
    let names = ["EventMessage", "Ping", "StopReason", "UsageStatistics", "ErrorMessage"];
    let all: Vec<&str> = MESSAGES.map(|(_, name)| name).into_iter().chain(names).collect();
    vec![
        (EVENT, union(&all)),
        ("Ping", ping),
        ("StopReason", answer(json!({"message_type": word("stop_reason"), "stop_reason": stop_reason()}))),
        (
            "UsageStatistics",
            answer(json!({
                "message_type": word("usage_statistics"),
                "completion_tokens": count(),
                "prompt_tokens": count(),
                "total_tokens": count(),
                "step_count": count(),
                "run_ids": nullable(list(id::<RunId>())),
                "cached_input_tokens": maybe_count(),
                "cache_write_tokens": maybe_count(),
                "reasoning_tokens": maybe_count(),
                "context_tokens": maybe_count(),
            })),
        ),
        (
            "ErrorMessage",
            answer(json!({
                "message_type": word("error_message"),
                "run_id": id::<RunId>(),
                "error_type": words(ErrorType::ALL.map(ErrorType::as_str)),
                "message": string(),
                "detail": maybe_text(),
                "seq_id": nullable(at_least(1)),
            })),
        ),
    ]
}

fn others() -> Components {
    let model = json!({
        "model": string(),
        "model_endpoint_type": words(ENDPOINT_TYPES),
        "model_endpoint": maybe_text(),
        "context_window": count(),
        "handle": string(),
        "provider_name": string(),
        "provider_category": word("base"),
    });
    let listed = json!({
        "name": string(),
        "display_name": string(),
        "provider_type": words(ENDPOINT_TYPES),
        "max_context_window": count(),
        "model_type": word("llm"),
    });
    let backend = || answer(json!({"kind": string(), "ok": boolean()}));
    let mut refusal = answer(json!({"detail": any_of([string(), reference("PendingApproval")])}));
    refusal["properties"]["run_id"] = id::<RunId>();
    refusal["properties"]["trace_id"] = string();
    refusal["properties"]["examples"] = list(string());
    refusal["properties"]["message"] = string();
    let failed = json!({
        "error": answer(json!({
            "type": words(ErrorType::ALL.map(ErrorType::as_str)),
            "message": string(),
            "detail": maybe_text(),
        })),
        "run_id": id::<RunId>(),
    });
    vec![
        ("LlmConfig", answer(model.clone())),
        ("Model", answer(with(model, listed))),
        (
            "Health",
            answer(json!({
                "version": string(),
                "status": words(["ok", "degraded", "draining"]),
                "backends": answer(json!({"store": backend(), "queue": backend(), "event_log": backend()})),
                "workers": answer(json!({"count": count(), "python_sandboxes": list(string())})),
            })),
        ),
        ("Refusal", any_of([refusal, answer(failed)])),
        (
            "PendingApproval",
            answer(json!({
                "code": word("PENDING_APPROVAL"),
                "message": string(),
                "pending_request_id": id::<MessageId>(),
                "run_id": nullable(id::<RunId>()),
                "tool_call_ids": list(string()),
            })),
        ),
    ]
}
