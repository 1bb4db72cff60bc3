//! Gemini's `streamGenerateContent`. Calls come whole and without ids; a proof is on the next part that is not a thought.

use serde_json::{Value, json};

use super::asked::{Asked, Called, Choice, Returned, Turn, items, text};
use super::openai::offer;
use super::script::{End, Failure, Piece, Usage};
use super::{Act, Refused, Telling};

/// What a client's own data is under: its names are no names of the API.
const OPAQUE: [&str; 4] = ["args", "response", "parameters", "parametersJsonSchema"];

/// The request with all names in the form with capitals: the API takes both forms, and clients mix them.
pub fn normal(body: &Value) -> Value {
    match body {
        Value::Array(items) => items.iter().map(normal).collect(),
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| {
                let name = capitals(name);
                let value = if OPAQUE.contains(&name.as_str()) { value.clone() } else { normal(value) };
                (name, value)
            };
            fields.iter().map(field).collect()
        }
        other => other.clone(),
    }
}

fn capitals(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let (start, rest) = word.split_at(word.chars().next().map_or(0, char::len_utf8));
        name + &start.to_uppercase() + rest
    })
}

/// What was asked, in the form with capitals; the model's name is in the path.
pub fn read(model: &str, is_stream: bool, body: &Value) -> Asked {
    let calling = &body["toolConfig"]["functionCallingConfig"];
    let config = &body["generationConfig"];
    let mut asked = Asked {
        model: model.to_owned(),
        system: items(&body["systemInstruction"]["parts"])
            .map(|part| text(part, "text"))
            .collect::<Vec<_>>()
            .join("\n"),
        choice: match (text(calling, "mode"), calling["allowedFunctionNames"].as_array().map(Vec::as_slice)) {
            ("ANY", Some([name])) => Choice::Named(name.as_str().unwrap_or_default().to_owned()),
            ("ANY", _) => Choice::Required,
            ("NONE", _) => Choice::Never,
            _ => Choice::Auto,
        },
        max_output_tokens: config["maxOutputTokens"].as_u64(),
        wants_reasoning: config["thinkingConfig"]["includeThoughts"] == true,
        wants_stream: is_stream,
        ..Asked::default()
    };
    let declared = items(&body["tools"]).flat_map(|tool| items(&tool["functionDeclarations"]));
    asked.tools = declared
        .map(|tool| offer(tool, if tool["parameters"].is_null() { "parametersJsonSchema" } else { "parameters" }))
        .collect();
    for content in items(&body["contents"]) {
        if content["role"] == "model" {
            asked.assistant(|earlier| {
                for part in items(&content["parts"]) {
                    let proof = part["thoughtSignature"].as_str().map(str::to_owned);
                    let call = &part["functionCall"];
                    if call.is_object() {
                        earlier.calls.push(Called {
                            id: call["id"].as_str().map(str::to_owned),
                            name: text(call, "name").to_owned(),
                            arguments: call["args"].clone(),
                            signature: proof,
                        });
                        continue;
                    }
                    if part["thought"] != true {
                        earlier.text.push_str(text(part, "text"));
                    }
                    if let Some(proof) = proof {
                        earlier.reasoning.push((String::new(), Some(proof)));
                    }
                }
            });
        } else {
            user(&mut asked, &content["parts"]);
        }
    }
    asked
}

fn user(asked: &mut Asked, parts: &Value) {
    let image = |part: &Value| {
        let data = &part["inlineData"];
        Some(format!("data:{};base64,{}", data["mimeType"].as_str()?, text(data, "data")))
    };
    let responses: Vec<_> = items(parts).filter(|part| part["functionResponse"].is_object()).collect();
    let images: Vec<_> = items(parts).filter_map(image).collect();
    for part in &responses {
        let response = &part["functionResponse"];
        let said = &response["response"];
        let said = [&said["content"], &said["result"], &said["output"], &said["error"]]
            .into_iter()
            .find_map(|said| said.as_str().map(str::to_owned))
            .unwrap_or_else(|| said.to_string());
        asked.result(Returned {
            id: response["id"].as_str().map(str::to_owned),
            name: response["name"].as_str().map(str::to_owned),
            text: said,
            // Those inside of the response, and those beside it, which nothing ties to one of the calls.
            images: items(&response["parts"]).filter_map(image).chain(images.iter().cloned()).collect(),
        });
    }
    let said: Vec<_> = items(parts).filter_map(|part| part["text"].as_str()).collect();
    if responses.is_empty() || !said.is_empty() {
        match asked.turns.last_mut() {
            Some(Turn::User { text, images: before }) => {
                *text = format!("{text}\n{}", said.join("\n"));
                before.extend(images);
            }
            _ => asked.user(&said.join("\n"), images),
        }
    }
}

/// What this API refuses and others take.
pub fn complaint(body: &Value) -> Option<String> {
    let is_empty = |content: &&Value| content["parts"].as_array().is_none_or(Vec::is_empty);
    if let Some(content) = items(&body["contents"]).find(is_empty) {
        return Some(format!("contents.parts must not be empty: {content}"));
    }
    let calls = items(&body["contents"]).flat_map(|content| items(&content["parts"]));
    let bad = calls.map(|part| &part["functionCall"]).find(|call| call.is_object() && !call["args"].is_object());
    bad.map(|call| format!("Invalid value at 'function_call.args': {call}"))
}

/// What comes back.
pub fn tell(telling: &Telling<'_>) -> Vec<Act> {
    let mut acts = Vec::new();
    let mut proof: Option<String> = None;
    let is_asked = telling.request["generationConfig"]["thinkingConfig"]["includeThoughts"] == true;
    for piece in &telling.told.pieces {
        match piece {
            Piece::Wait(gate) => acts.push(Act::Wait(gate.clone())),
            Piece::Reasoning(fragments, given) => {
                proof = given.clone().or(proof);
                let shown = fragments.iter().filter(|_| is_asked);
                acts.extend(shown.map(|new| chunk(telling, Some(json!({"text": new, "thought": true})), None)));
            }
            Piece::Redacted(_data) => {}
            Piece::Text(fragments) => {
                for new in fragments {
                    acts.push(chunk(telling, Some(signed(json!({"text": new}), &mut proof)), None));
                }
            }
            Piece::Call { name, arguments, .. } => {
                let arguments: Value = serde_json::from_str(&arguments.concat()).expect("this API has no other calls");
                let part = json!({"functionCall": {"name": name, "args": arguments}});
                acts.push(chunk(telling, Some(signed(part, &mut proof)), None));
            }
        }
    }
    match &telling.told.end {
        End::Finish => acts.push(chunk(telling, None, Some("STOP"))),
        End::Cut => acts.push(chunk(telling, None, Some("MAX_TOKENS"))),
        End::HangUp => acts.push(Act::HangUp),
        End::CloseEarly => {}
        End::Error(failure) => acts.push(Act::Send(format!("data: {}\r\n\r\n", refuse(failure).body))),
    }
    acts
}

fn signed(mut part: Value, proof: &mut Option<String>) -> Value {
    if let Some(proof) = proof.take() {
        part["thoughtSignature"] = json!(proof);
    }
    part
}

fn chunk(telling: &Telling<'_>, part: Option<Value>, finish: Option<&str>) -> Act {
    let mut candidate = json!({"index": 0});
    let parts: Vec<_> = part.into_iter().collect();
    match finish {
        // The last chunk has an empty text.
        Some(finish) => {
            candidate["content"] = json!({"parts": [{"text": ""}], "role": "model"});
            candidate["finishReason"] = json!(finish);
        }
        None => candidate["content"] = json!({"parts": parts, "role": "model"}),
    }
    let body = json!({
        "candidates": [candidate], "usageMetadata": usage(telling.told.usage), "modelVersion": telling.model,
        "responseId": format!("s{}", telling.number),
    });
    Act::Send(format!("data: {body}\r\n\r\n"))
}

fn usage(usage: Usage) -> Value {
    let reasoning = usage.reasoning.unwrap_or(0);
    let mut json = json!({
        "promptTokenCount": usage.prompt, "candidatesTokenCount": usage.completion - reasoning,
        "totalTokenCount": usage.prompt + usage.completion,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": usage.prompt}],
    });
    if let Some(cached) = usage.cached {
        json["cachedContentTokenCount"] = json!(cached);
    }
    if usage.reasoning.is_some() {
        json["thoughtsTokenCount"] = json!(reasoning);
    }
    json
}

/// How a failure is told.
pub fn refuse(failure: &Failure) -> Refused {
    let refused = |code: u16, status: &str, message: &str| Refused {
        status: code,
        retry_after: None,
        body: json!({"error": {"code": code, "message": message, "status": status}}),
    };
    match failure {
        Failure::RateLimit(wait) => {
            let quota = "You exceeded your current quota, please check your plan and billing details.";
            let mut refused = refused(429, "RESOURCE_EXHAUSTED", quota);
            // How long to wait is in the body, not in a header.
            if let Some(seconds) = wait {
                let kind = "type.googleapis.com/google.rpc.RetryInfo";
                refused.body["error"]["details"] = json!([{"@type": kind, "retryDelay": format!("{seconds}s")}]);
            }
            refused
        }
        Failure::Overload => refused(503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
        // This API answers a bad key with 400.
        Failure::Unauthorized => {
            let mut refused = refused(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.");
            let kind = "type.googleapis.com/google.rpc.ErrorInfo";
            refused.body["error"]["details"] = json!([{"@type": kind, "reason": "API_KEY_INVALID"}]);
            refused
        }
        Failure::Invalid(message) => refused(400, "INVALID_ARGUMENT", message),
        Failure::ContextOverflow => refused(
            400,
            "INVALID_ARGUMENT",
            "The input token count (1200012) exceeds the maximum number of tokens allowed (1048576).",
        ),
        Failure::Internal => refused(500, "INTERNAL", "An internal error has occurred."),
    }
}

/// `GET /v1beta/models`, a page of it.
pub fn list(names: &[String], size: Option<&str>, from: Option<&str>) -> Value {
    let size = size.and_then(|size| size.parse().ok()).unwrap_or(50).min(1000);
    let from: usize = from.and_then(|from| from.parse().ok()).unwrap_or(0);
    let page: Vec<_> = names.iter().skip(from).take(size).collect();
    let model = |name: &&String| {
        json!({
            "name": format!("models/{name}"), "displayName": name, "inputTokenLimit": 1_048_576,
            "outputTokenLimit": 65_536, "supportedGenerationMethods": ["generateContent", "countTokens"],
        })
    };
    let mut list = json!({"models": page.iter().map(model).collect::<Vec<_>>()});
    if from + page.len() < names.len() {
        list["nextPageToken"] = json!((from + page.len()).to_string());
    }
    list
}
