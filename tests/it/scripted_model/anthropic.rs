//! Anthropic's Messages. Thinking is shown to who asks for it; hidden thinking comes as a whole block.

use serde_json::{Value, json};

use super::asked::{Asked, Called, Choice, Returned, Turn, items, text};
use super::openai::offer;
use super::script::{End, Failure, Piece};
use super::{Act, Refused, Telling};

/// The header with the version of the API; without it every request is refused.
pub const VERSION: &str = "anthropic-version";
/// The versions. Events of a stream are the same in both.
const VERSIONS: [&str; 2] = ["2023-06-01", "2026-10-21"];
/// What requests of the newer version must not have, not even with the default value.
const SAMPLING: [&str; 3] = ["temperature", "top_p", "top_k"];

/// What was asked.
pub fn read(body: &Value) -> Asked {
    let choice = &body["tool_choice"];
    let mut asked = Asked {
        model: text(body, "model").to_owned(),
        system: content(&body["system"]).0,
        choice: match text(choice, "type") {
            "any" => Choice::Required,
            "tool" => Choice::Named(text(choice, "name").to_owned()),
            "none" => Choice::Never,
            _ => Choice::Auto,
        },
        parallel: choice["disable_parallel_tool_use"].as_bool().map(|disabled| !disabled),
        max_output_tokens: body["max_tokens"].as_u64(),
        wants_reasoning: thinks(body),
        wants_stream: body["stream"] == true,
        ..Asked::default()
    };
    asked.tools = items(&body["tools"]).map(|tool| offer(tool, "input_schema")).collect();
    for message in items(&body["messages"]) {
        match text(message, "role") {
            "user" => user(&mut asked, &message["content"]),
            "assistant" => asked.assistant(|earlier| {
                earlier.text.push_str(&content(&message["content"]).0);
                for block in items(&message["content"]) {
                    match text(block, "type") {
                        "thinking" => {
                            let proof = block["signature"].as_str().map(str::to_owned);
                            earlier.reasoning.push((text(block, "thinking").to_owned(), proof));
                        }
                        "redacted_thinking" => earlier.redacted.push(text(block, "data").to_owned()),
                        "tool_use" => earlier.calls.push(Called {
                            id: block["id"].as_str().map(str::to_owned),
                            name: text(block, "name").to_owned(),
                            arguments: block["input"].clone(),
                            signature: None,
                        }),
                        _ => {}
                    }
                }
            }),
            role => asked.oddities.push(format!("no role of this API: {role}")),
        }
    }
    asked
}

/// Whether the model is to think.
fn thinks(body: &Value) -> bool {
    matches!(text(&body["thinking"], "type"), "enabled" | "adaptive" | "between_tools")
}

/// Input and results come in the same role.
fn user(asked: &mut Asked, blocks: &Value) {
    for block in items(blocks).filter(|block| block["type"] == "tool_result") {
        let (said, images) = content(&block["content"]);
        asked.result(Returned { id: block["tool_use_id"].as_str().map(str::to_owned), name: None, text: said, images });
    }
    let (said, images) = content(blocks);
    if !said.is_empty() || !images.is_empty() {
        match asked.turns.last_mut() {
            // Turns of one side in a row are one, to this API.
            Some(Turn::User { text, images: before }) => {
                *text = format!("{text}\n{said}");
                before.extend(images);
            }
            _ => asked.user(&said, images),
        }
    }
}

fn content(content: &Value) -> (String, Vec<String>) {
    if let Some(text) = content.as_str() {
        return (text.to_owned(), Vec::new());
    }
    let texts: Vec<_> =
        items(content).filter(|block| block["type"] == "text").map(|block| text(block, "text")).collect();
    let images = items(content).filter(|block| block["type"] == "image").map(|block| {
        let source = &block["source"];
        format!("data:{};base64,{}", text(source, "media_type"), text(source, "data"))
    });
    (texts.join("\n"), images.collect())
}

/// What this API refuses and others take.
pub fn complaint(version: &str, body: &Value) -> Option<String> {
    if !VERSIONS.contains(&version) {
        return Some(format!("anthropic-version: {version:?} is not a valid version"));
    }
    let removed = SAMPLING.iter().find(|name| version == VERSIONS[1] && !body[**name].is_null());
    if let Some(name) = removed {
        return Some(format!("{name}: is not in version {version}"));
    }
    if body["max_tokens"].as_u64().is_none_or(|tokens| tokens == 0) {
        return Some("max_tokens: Field required".to_owned());
    }
    for message in items(&body["messages"]) {
        let blocks = &message["content"];
        let is_blank = |text: &str| text.trim().is_empty();
        if blocks.as_str().is_some_and(is_blank) || blocks.as_array().is_some_and(Vec::is_empty) {
            return Some(format!("messages: all messages must have non-empty content: {message}"));
        }
        if items(blocks).any(|block| block["type"] == "text" && is_blank(text(block, "text"))) {
            return Some("messages: text content blocks must contain non-whitespace text".to_owned());
        }
        if items(blocks).any(|block| block["type"] == "tool_use" && !block["input"].is_object()) {
            return Some("messages: tool_use.input: Input should be a valid dictionary".to_owned());
        }
        if items(blocks).any(|block| block["type"] == "thinking" && text(block, "signature").is_empty()) {
            return Some("messages: thinking.signature: Field required".to_owned());
        }
    }
    let budget = body["thinking"]["budget_tokens"].as_u64();
    if budget.is_some_and(|budget| body["max_tokens"].as_u64().is_some_and(|most| most <= budget)) {
        return Some("`max_tokens` must be greater than `thinking.budget_tokens`".to_owned());
    }
    None
}

/// What comes back.
pub fn tell(telling: &Telling<'_>) -> Vec<Act> {
    let told = telling.told;
    let (cached, written) = (told.usage.cached.unwrap_or(0), told.usage.cache_write.unwrap_or(0));
    let start = json!({
        "id": format!("msg_s{}", telling.number), "type": "message", "role": "assistant", "model": telling.model,
        "content": [], "stop_reason": null, "stop_sequence": null,
        "usage": {
            "input_tokens": told.usage.prompt.saturating_sub(cached + written), "cache_creation_input_tokens": written,
            "cache_read_input_tokens": cached, "output_tokens": 1, "service_tier": "standard",
        },
    });
    let mut acts = vec![event("message_start", json!({"message": start}))];
    let mut place = 0;
    let (is_asked, is_omitted) = (thinks(telling.request), telling.request["thinking"]["display"] == "omitted");
    for piece in &told.pieces {
        let (block, deltas) = match piece {
            Piece::Wait(gate) => {
                acts.push(Act::Wait(gate.clone()));
                continue;
            }
            Piece::Reasoning(..) | Piece::Redacted(_) if !is_asked => continue,
            Piece::Reasoning(fragments, proof) => {
                let shown = fragments.iter().filter(|_| !is_omitted);
                let thinking = shown.map(|new| json!({"type": "thinking_delta", "thinking": new}));
                let proof = proof.iter().map(|proof| json!({"type": "signature_delta", "signature": proof}));
                (json!({"type": "thinking", "thinking": "", "signature": ""}), thinking.chain(proof).collect())
            }
            Piece::Redacted(data) => (json!({"type": "redacted_thinking", "data": data}), Vec::new()),
            Piece::Text(fragments) => {
                let deltas = fragments.iter().map(|new| json!({"type": "text_delta", "text": new}));
                (json!({"type": "text", "text": ""}), deltas.collect())
            }
            Piece::Call { id, name, arguments } => {
                // The first fragment of arguments is always an empty one.
                let deltas = std::iter::once("").chain(arguments.iter().map(String::as_str));
                let deltas = deltas.map(|new| json!({"type": "input_json_delta", "partial_json": new}));
                (json!({"type": "tool_use", "id": id, "name": name, "input": {}}), deltas.collect())
            }
        };
        acts.push(event("content_block_start", json!({"index": place, "content_block": block})));
        if place == 0 {
            acts.push(event("ping", json!({})));
        }
        acts.extend(deltas.iter().map(|delta| event("content_block_delta", json!({"index": place, "delta": delta}))));
        acts.push(event("content_block_stop", json!({"index": place})));
        place += 1;
    }
    let reason = match &told.end {
        End::Finish if told.has_calls() => "tool_use",
        End::Finish => "end_turn",
        End::Cut => "max_tokens",
        End::HangUp => return [acts, vec![Act::HangUp]].concat(),
        End::CloseEarly => return acts,
        End::Error(failure) => {
            let body = refuse(failure).body;
            acts.push(Act::Send(format!("event: error\ndata: {body}\n\n")));
            return acts;
        }
    };
    let mut usage = json!({"output_tokens": told.usage.completion});
    if let Some(reasoning) = told.usage.reasoning {
        usage["output_tokens_details"] = json!({"thinking_tokens": reasoning});
    }
    acts.push(event("message_delta", json!({"delta": {"stop_reason": reason, "stop_sequence": null}, "usage": usage})));
    acts.push(event("message_stop", json!({})));
    acts
}

fn event(kind: &str, mut event: Value) -> Act {
    event["type"] = json!(kind);
    Act::Send(format!("event: {kind}\ndata: {event}\n\n"))
}

/// How a failure is told.
pub fn refuse(failure: &Failure) -> Refused {
    let refused = |status, kind: &str, message: &str| Refused {
        status,
        retry_after: None,
        body: json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_scripted"}),
    };
    match failure {
        Failure::RateLimit(wait) => Refused {
            retry_after: *wait,
            ..refused(429, "rate_limit_error", "This request would exceed your rate limit.")
        },
        Failure::Overload => refused(529, "overloaded_error", "Overloaded"),
        Failure::Unauthorized => refused(401, "authentication_error", "invalid x-api-key"),
        Failure::Invalid(message) => refused(400, "invalid_request_error", message),
        Failure::ContextOverflow => {
            refused(400, "invalid_request_error", "prompt is too long: 210012 tokens > 200000 maximum")
        }
        Failure::Internal => refused(500, "api_error", "Internal server error"),
    }
}

/// `GET /v1/models`, a page of it.
pub fn list(names: &[String], limit: Option<&str>, after: Option<&str>) -> Value {
    let limit: usize = limit.and_then(|limit| limit.parse().ok()).unwrap_or(20);
    let from = after.and_then(|after| names.iter().position(|name| name == after)).map_or(0, |place| place + 1);
    let page: Vec<_> = names.iter().skip(from).take(limit).collect();
    let model = |name: &&String| json!({"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z", "lifecycle": "active"});
    json!({
        "data": page.iter().map(model).collect::<Vec<_>>(), "has_more": from + page.len() < names.len(),
        "first_id": page.first(), "last_id": page.last(),
    })
}
