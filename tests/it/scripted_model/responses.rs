//! OpenAI's Responses. Reasoning is shown as a summary to who asks for it, and its proof is the encrypted content.

use serde_json::{Value, json};

use super::asked::{Asked, Called, Returned, Turn, arguments, items, text};
use super::openai;
use super::script::{End, Piece, Usage};
use super::{Act, Telling};

/// What was asked.
pub fn read(body: &Value) -> Asked {
    let mut asked = Asked {
        model: text(body, "model").to_owned(),
        system: text(body, "instructions").to_owned(),
        choice: openai::choice(&body["tool_choice"]),
        parallel: body["parallel_tool_calls"].as_bool(),
        max_output_tokens: body["max_output_tokens"].as_u64(),
        wants_reasoning: body["reasoning"]["summary"].is_string(),
        wants_stream: body["stream"] == true,
        ..Asked::default()
    };
    asked.tools = items(&body["tools"]).map(|tool| openai::offer(tool, "parameters")).collect();
    if let Some(input) = body["input"].as_str() {
        asked.user(input, Vec::new());
    }
    for item in items(&body["input"]) {
        let kind = item["type"].as_str().unwrap_or("message");
        match (kind, text(item, "role")) {
            ("message", "system" | "developer") => {
                let (said, _images) = openai::content(&item["content"], &mut asked.oddities);
                if asked.system.is_empty() && asked.turns.is_empty() {
                    asked.system = said;
                } else {
                    asked.turns.push(Turn::System(said));
                }
            }
            ("message", "user") => {
                let (said, images) = openai::content(&item["content"], &mut asked.oddities);
                asked.user(&said, images);
            }
            ("message", "assistant") => {
                let (said, _images) = openai::content(&item["content"], &mut asked.oddities);
                asked.assistant(|earlier| earlier.text.push_str(&said));
            }
            ("reasoning", _) => asked.assistant(|earlier| {
                let summary: String = items(&item["summary"]).map(|part| text(part, "text")).collect();
                let proof = item["encrypted_content"].as_str().map(str::to_owned);
                match (summary.is_empty(), proof) {
                    (true, Some(data)) => earlier.redacted.push(data),
                    (_, proof) => earlier.reasoning.push((summary, proof)),
                }
            }),
            ("function_call", _) => asked.assistant(|earlier| {
                earlier.calls.push(Called {
                    id: item["call_id"].as_str().map(str::to_owned),
                    name: text(item, "name").to_owned(),
                    arguments: arguments(text(item, "arguments")),
                    signature: None,
                });
            }),
            ("function_call_output", _) => {
                let (said, images) = openai::content(&item["output"], &mut asked.oddities);
                asked.result(Returned {
                    id: item["call_id"].as_str().map(str::to_owned),
                    name: None,
                    text: said,
                    images,
                });
            }
            (kind, role) => asked.oddities.push(format!("no item of this API: {kind} {role}")),
        }
    }
    asked
}

/// The stream in the making: every event has a number, every item a place.
struct Stream<'a> {
    telling: &'a Telling<'a>,
    acts: Vec<Act>,
    number: u64,
    output: Vec<Value>,
}

/// What comes back.
pub fn tell(telling: &Telling<'_>) -> Vec<Act> {
    let mut stream = Stream { telling, acts: Vec::new(), number: 0, output: Vec::new() };
    for kind in ["response.created", "response.in_progress"] {
        let response = stream.response("in_progress");
        stream.event(kind, json!({"response": response}));
    }
    for piece in &telling.told.pieces {
        stream.piece(piece);
    }
    let status = match &telling.told.end {
        End::Finish => "completed",
        End::Cut => "incomplete",
        End::HangUp => return [stream.acts, vec![Act::HangUp]].concat(),
        End::CloseEarly => return stream.acts,
        End::Error(failure) => {
            let error = &openai::refuse(failure).body["error"];
            let code = if error["code"].is_null() { json!("server_error") } else { error["code"].clone() };
            let mut response = stream.response("failed");
            response["error"] = json!({"code": code, "message": error["message"]});
            stream.event("response.failed", json!({"response": response}));
            return stream.acts;
        }
    };
    let mut response = stream.response(status);
    response["usage"] = usage(telling.told.usage);
    if status == "incomplete" {
        response["incomplete_details"] = json!({"reason": "max_output_tokens"});
    }
    stream.event(&format!("response.{status}"), json!({"response": response}));
    stream.acts
}

impl Stream<'_> {
    fn event(&mut self, kind: &str, mut event: Value) {
        event["type"] = json!(kind);
        event["sequence_number"] = json!(self.number);
        self.number += 1;
        self.acts.push(Act::Send(format!("event: {kind}\ndata: {event}\n\n")));
    }

    fn response(&self, status: &str) -> Value {
        json!({
            "id": format!("resp_s{}", self.telling.number), "object": "response", "created_at": 1_767_225_600,
            "status": status, "error": null, "incomplete_details": null, "model": self.telling.model,
            "output": self.output, "parallel_tool_calls": true, "store": false, "usage": null,
        })
    }

    fn piece(&mut self, piece: &Piece) {
        let place = self.output.len();
        match piece {
            Piece::Wait(gate) => self.acts.push(Act::Wait(gate.clone())),
            Piece::Redacted(data) => self.reasoning(&[], Some(data)),
            Piece::Reasoning(fragments, proof) => {
                let is_asked = self.telling.request["reasoning"]["summary"].is_string();
                self.reasoning(if is_asked { fragments } else { &[] }, proof.as_deref());
            }
            Piece::Text(fragments) => {
                let id = format!("msg_s{}_{place}", self.telling.number);
                let item = |status, content: Value| json!({"id": id, "type": "message", "status": status, "role": "assistant", "content": content});
                self.event(
                    "response.output_item.added",
                    json!({"output_index": place, "item": item("in_progress", json!([]))}),
                );
                let part = |text: &str| json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []});
                let at = json!({"item_id": id, "output_index": place, "content_index": 0});
                self.event("response.content_part.added", with(&at, json!({"part": part("")})));
                for new in fragments {
                    self.event("response.output_text.delta", with(&at, json!({"delta": new, "logprobs": []})));
                }
                let whole = fragments.concat();
                self.event("response.output_text.done", with(&at, json!({"text": whole, "logprobs": []})));
                self.event("response.content_part.done", with(&at, json!({"part": part(&whole)})));
                self.done(item("completed", json!([part(&whole)])));
            }
            Piece::Call { id, name, arguments } => {
                let item_id = format!("fc_s{}_{place}", self.telling.number);
                let item = |status, arguments: &str| {
                    json!({
                        "id": item_id, "type": "function_call", "status": status, "call_id": id, "name": name,
                        "arguments": arguments,
                    })
                };
                self.event(
                    "response.output_item.added",
                    json!({"output_index": place, "item": item("in_progress", "")}),
                );
                let at = json!({"item_id": item_id, "output_index": place});
                for new in arguments {
                    self.event("response.function_call_arguments.delta", with(&at, json!({"delta": new})));
                }
                let whole = arguments.concat();
                self.event("response.function_call_arguments.done", with(&at, json!({"arguments": whole})));
                self.done(item("completed", &whole));
            }
        }
    }

    fn reasoning(&mut self, summary: &[String], proof: Option<&str>) {
        let place = self.output.len();
        let id = format!("rs_s{}_{place}", self.telling.number);
        let mut item = json!({"id": id, "type": "reasoning", "summary": []});
        self.event("response.output_item.added", json!({"output_index": place, "item": item}));
        if !summary.is_empty() {
            let part = |text: &str| json!({"type": "summary_text", "text": text});
            let at = json!({"item_id": id, "output_index": place, "summary_index": 0});
            self.event("response.reasoning_summary_part.added", with(&at, json!({"part": part("")})));
            for new in summary {
                self.event("response.reasoning_summary_text.delta", with(&at, json!({"delta": new})));
            }
            let whole = summary.concat();
            self.event("response.reasoning_summary_text.done", with(&at, json!({"text": whole})));
            self.event("response.reasoning_summary_part.done", with(&at, json!({"part": part(&whole)})));
            item["summary"] = json!([part(&whole)]);
        }
        let includes = items(&self.telling.request["include"]).any(|name| name == "reasoning.encrypted_content");
        if let Some(proof) = proof.filter(|_| includes) {
            item["encrypted_content"] = json!(proof);
        }
        self.done(item);
    }

    fn done(&mut self, item: Value) {
        self.event("response.output_item.done", json!({"output_index": self.output.len(), "item": item}));
        self.output.push(item);
    }
}

fn with(one: &Value, other: Value) -> Value {
    let mut both = one.clone();
    if let (Value::Object(both), Value::Object(other)) = (&mut both, other) {
        both.extend(other);
    }
    both
}

fn usage(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.prompt, "input_tokens_details": {"cached_tokens": usage.cached.unwrap_or(0)},
        "output_tokens": usage.completion, "output_tokens_details": {"reasoning_tokens": usage.reasoning.unwrap_or(0)},
        "total_tokens": usage.prompt + usage.completion,
    })
}
