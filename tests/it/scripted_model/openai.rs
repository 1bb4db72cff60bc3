//! OpenAI's chat completions, with the `reasoning_content` of the servers that show reasoning this way. It has no place
//! for proofs and hidden reasoning, which are left out.

use serde_json::{Value, json};

use super::asked::{Asked, Called, Choice, Offer, Returned, Turn, arguments, items, text};
use super::script::{End, Failure, Piece, Usage};
use super::{Act, Refused, Telling};

/// What was asked.
pub fn read(body: &Value) -> Asked {
    let mut asked = Asked {
        model: text(body, "model").to_owned(),
        choice: choice(&body["tool_choice"]),
        parallel: body["parallel_tool_calls"].as_bool(),
        max_output_tokens: body["max_completion_tokens"].as_u64().or_else(|| body["max_tokens"].as_u64()),
        wants_reasoning: true,
        wants_stream: body["stream"] == true && body["stream_options"]["include_usage"] == true,
        ..Asked::default()
    };
    let offered = items(&body["tools"]).map(|tool| &tool["function"]);
    asked.tools = offered.map(|function| offer(function, "parameters")).collect();
    for message in items(&body["messages"]) {
        let (said, images) = content(&message["content"], &mut asked.oddities);
        match text(message, "role") {
            "system" | "developer" if asked.turns.is_empty() && asked.system.is_empty() => asked.system = said,
            "system" | "developer" => asked.turns.push(Turn::System(said)),
            "user" => asked.user(&said, images),
            "assistant" => asked.assistant(|earlier| {
                earlier.text.push_str(&said);
                let reasoning = text(message, "reasoning_content");
                if !reasoning.is_empty() {
                    earlier.reasoning.push((reasoning.to_owned(), None));
                }
                earlier.calls.extend(items(&message["tool_calls"]).map(|call| Called {
                    id: call["id"].as_str().map(str::to_owned),
                    name: text(&call["function"], "name").to_owned(),
                    arguments: arguments(text(&call["function"], "arguments")),
                    signature: None,
                }));
            }),
            "tool" => asked.result(Returned {
                id: message["tool_call_id"].as_str().map(str::to_owned),
                name: None,
                text: said,
                images,
            }),
            role => asked.oddities.push(format!("no role of this API: {role}")),
        }
    }
    asked
}

/// A tool as three of the providers offer it.
pub fn offer(tool: &Value, parameters: &str) -> Offer {
    Offer {
        name: text(tool, "name").to_owned(),
        description: text(tool, "description").to_owned(),
        parameters: tool[parameters].clone(),
    }
}

/// `tool_choice`, whose named form this API and its successor write differently.
pub fn choice(choice: &Value) -> Choice {
    match choice.as_str() {
        Some("required") => Choice::Required,
        Some("none") => Choice::Never,
        Some(_) => Choice::Auto,
        None => {
            let name = choice["function"]["name"].as_str().or_else(|| choice["name"].as_str());
            name.map_or(Choice::Auto, |name| Choice::Named(name.to_owned()))
        }
    }
}

/// Content as text and images, in the parts of this API and of its successor.
pub fn content(content: &Value, oddities: &mut Vec<String>) -> (String, Vec<String>) {
    if let Some(text) = content.as_str() {
        return (text.to_owned(), Vec::new());
    }
    let (mut texts, mut images) = (Vec::new(), Vec::new());
    for part in items(content) {
        match text(part, "type") {
            "text" | "input_text" | "output_text" => texts.push(text(part, "text").to_owned()),
            "image_url" => images.push(text(&part["image_url"], "url").to_owned()),
            "input_image" => images.push(text(part, "image_url").to_owned()),
            other => oddities.push(format!("no part of this API: {other}")),
        }
    }
    (texts.join("\n"), images)
}

/// What comes back.
pub fn tell(telling: &Telling<'_>) -> Vec<Act> {
    let id = format!("chatcmpl-s{}", telling.number);
    let chunk = |choices: Value, usage: Value| {
        let chunk = json!({
            "id": id, "object": "chat.completion.chunk", "created": 1_767_225_600, "model": telling.model,
            "service_tier": "default", "system_fingerprint": "fp_scripted", "choices": choices, "usage": usage,
        });
        Act::Send(format!("data: {chunk}\n\n"))
    };
    let choice = |delta: Value, finish: Value| {
        chunk(json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]), Value::Null)
    };
    let delta = |delta: Value| choice(delta, Value::Null);
    let mut acts = vec![delta(json!({"role": "assistant", "content": "", "refusal": null}))];
    let mut place = 0;
    for piece in &telling.told.pieces {
        match piece {
            Piece::Reasoning(fragments, _proof) => {
                acts.extend(fragments.iter().map(|new| delta(json!({"reasoning_content": new}))));
            }
            Piece::Redacted(_data) => {}
            Piece::Text(fragments) => acts.extend(fragments.iter().map(|new| delta(json!({"content": new})))),
            Piece::Call { id, name, arguments } => {
                let function = json!({"name": name, "arguments": ""});
                let call = json!({"index": place, "id": id, "type": "function", "function": function});
                acts.push(delta(json!({"tool_calls": [call]})));
                acts.extend(
                    arguments
                        .iter()
                        .map(|new| delta(json!({"tool_calls": [{"index": place, "function": {"arguments": new}}]}))),
                );
                place += 1;
            }
            Piece::Wait(gate) => acts.push(Act::Wait(gate.clone())),
        }
    }
    let finish = match &telling.told.end {
        End::Finish if telling.told.has_calls() => "tool_calls",
        End::Finish => "stop",
        End::Cut => "length",
        End::HangUp => return [acts, vec![Act::HangUp]].concat(),
        End::CloseEarly => return acts,
        End::Error(failure) => {
            acts.push(Act::Send(format!("data: {}\n\n", refuse(failure).body)));
            return acts;
        }
    };
    acts.push(choice(json!({}), json!(finish)));
    acts.push(chunk(json!([]), usage(telling.told.usage)));
    acts.push(Act::Send("data: [DONE]\n\n".to_owned()));
    acts
}

fn usage(usage: Usage) -> Value {
    let mut json = json!({
        "prompt_tokens": usage.prompt, "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
    });
    if let Some(cached) = usage.cached {
        json["prompt_tokens_details"] = json!({"cached_tokens": cached, "audio_tokens": 0});
    }
    if let Some(reasoning) = usage.reasoning {
        json["completion_tokens_details"] = json!({"reasoning_tokens": reasoning, "audio_tokens": 0});
    }
    json
}

/// How a failure is told, by this API and its successor.
pub fn refuse(failure: &Failure) -> Refused {
    let refused = |status, kind: &str, code: Value, message: &str| Refused {
        status,
        retry_after: None,
        body: json!({"error": {"message": message, "type": kind, "param": null, "code": code}}),
    };
    match failure {
        Failure::RateLimit(wait) => Refused {
            retry_after: *wait,
            ..refused(429, "requests", json!("rate_limit_exceeded"), "Rate limit reached for requests per minute.")
        },
        Failure::Overload => {
            refused(503, "server_error", Value::Null, "The engine is currently overloaded, please try again later.")
        }
        Failure::Unauthorized => {
            refused(401, "invalid_request_error", json!("invalid_api_key"), "Incorrect API key provided.")
        }
        Failure::Invalid(message) => refused(400, "invalid_request_error", Value::Null, message),
        Failure::ContextOverflow => refused(
            400,
            "invalid_request_error",
            json!("context_length_exceeded"),
            "This model's maximum context length is 128000 tokens. However, your messages resulted in 140012 tokens. \
             Please reduce the length of the messages.",
        ),
        Failure::Internal => {
            refused(500, "server_error", Value::Null, "The server had an error while processing your request.")
        }
    }
}

/// `GET /v1/models`
pub fn list(names: &[String]) -> Value {
    let model = |name: &String| json!({"id": name, "object": "model", "created": 1_767_225_600, "owned_by": "tests"});
    json!({"object": "list", "data": names.iter().map(model).collect::<Vec<_>>()})
}
