//! OpenAI's Responses: the interface in which its reasoning models can go on with their reasoning after a tool call. The
//! reasoning comes and goes encrypted; nothing is kept at OpenAI.

use std::collections::{HashMap, VecDeque};

use holdfast_shared::config::ReasoningSummary;
use holdfast_shared::domain::usage::Usage;
use holdfast_shared::ports::model_client::{ModelDelta, ModelRequest, ToolChoice};
use serde_json::{Value, json};

use super::calls::Calls;
use super::{Decoder, Failure, Peer, answer_schema, count, is_openai_reasoner, text, wants_json};

/// The body of a call without the conversation.
pub(super) fn body(peer: &Peer<'_>, request: &ModelRequest) -> Value {
    let options = &request.options;
    let mut body = json!({"model": peer.model, "store": false});
    if !request.tools.is_empty() {
        let tools = request.tools.iter().map(|tool| {
            json!({
                "type": "function", "name": tool.name, "description": tool.description,
                "parameters": tool.parameters, "strict": false,
            })
        });
        body["tools"] = tools.collect();
        body["parallel_tool_calls"] = options.parallel_tool_calls.into();
        match &request.tool_choice {
            ToolChoice::Auto => {}
            ToolChoice::None => body["tool_choice"] = "none".into(),
            ToolChoice::Required => body["tool_choice"] = "required".into(),
            ToolChoice::Named(name) => body["tool_choice"] = json!({"type": "function", "name": name}),
        }
    }
    if let Some(tokens) = options.max_output_tokens {
        body["max_output_tokens"] = tokens.into();
    }
    let mut reasoning = serde_json::Map::new();
    if let Some(effort) = &options.reasoning.effort {
        reasoning.insert("effort".to_owned(), effort.as_str().into());
    }
    if is_openai_reasoner(peer.model) {
        // Other models refuse it. These, in turn, refuse temperatures.
        body["include"] = json!(["reasoning.encrypted_content"]);
        if let Some(summary) = summary_word(peer.summary) {
            reasoning.insert("summary".to_owned(), summary.into());
        }
    } else if let Some(temperature) = options.temperature {
        body["temperature"] = temperature.into();
    }
    if !reasoning.is_empty() {
        body["reasoning"] = reasoning.into();
    }
    if let Some((name, schema)) = answer_schema(request) {
        let is_strict = options.response_format.as_ref().and_then(|format| format.pointer("/json_schema/strict"));
        let mut format = json!({"type": "json_schema", "name": name, "schema": schema});
        if let Some(is_strict) = is_strict {
            format["strict"] = is_strict.clone();
        }
        body["text"] = json!({"format": format});
    } else if wants_json(request) {
        body["text"] = json!({"format": {"type": "json_object"}});
    }
    body
}

const fn summary_word(summary: ReasoningSummary) -> Option<&'static str> {
    match summary {
        ReasoningSummary::None => None,
        ReasoningSummary::Auto => Some("auto"),
        ReasoningSummary::Concise => Some("concise"),
        ReasoningSummary::Detailed => Some("detailed"),
    }
}

/// Reads an answer.
#[derive(Default)]
pub(super) struct Reader {
    calls: Calls,
    /// Places of calls by the places of their items in the output.
    places: HashMap<u64, usize>,
    /// Whether the reasoning item at hand has shown any text.
    has_shown_reasoning: bool,
    /// Whether it was said that reasoning is hidden.
    has_told_hidden: bool,
    refusal: String,
}

impl Reader {
    fn begin_call(&mut self, event: &Value, deltas: &mut VecDeque<ModelDelta>) -> usize {
        let name = text(event, "/item/name").unwrap_or_default();
        let place = self.calls.begin(text(event, "/item/call_id"), name, deltas);
        if let Some(index) = count(event, "/output_index") {
            self.places.insert(index, place);
        }
        place
    }

    fn place(&self, event: &Value) -> Option<usize> {
        self.places.get(&count(event, "/output_index")?).copied()
    }

    fn item_done(&mut self, event: &Value, deltas: &mut VecDeque<ModelDelta>) {
        match text(event, "/item/type") {
            Some("function_call") => {
                let place = self.place(event).unwrap_or_else(|| self.begin_call(event, deltas));
                self.calls.whole(place, text(event, "/item/arguments").unwrap_or_default(), deltas);
            }
            Some("reasoning") => {
                if !std::mem::take(&mut self.has_shown_reasoning) && !self.has_told_hidden {
                    self.has_told_hidden = true;
                    deltas.push_back(ModelDelta::HiddenReasoning(None));
                }
                let encrypted = text(event, "/item/encrypted_content").map(str::to_owned);
                deltas.extend(encrypted.map(ModelDelta::ReasoningSignature));
            }
            _ => {}
        }
    }

    fn end(&mut self, response: &Value, is_cut: bool, deltas: &mut VecDeque<ModelDelta>) -> Result<(), Failure> {
        if !self.refusal.is_empty() {
            return Err(Failure::Refused(std::mem::take(&mut self.refusal)));
        }
        if !is_cut {
            self.calls.finish(deltas);
        }
        let usage = response.get("usage").map(usage_of).unwrap_or_default();
        deltas.push_back(ModelDelta::End { usage, is_cut });
        Ok(())
    }
}

impl Decoder for Reader {
    fn take(&mut self, frame: &str, deltas: &mut VecDeque<ModelDelta>) -> Result<(), Failure> {
        if frame == "[DONE]" {
            return Ok(());
        }
        let event = super::json(frame)?;
        let delta = || text(&event, "/delta").map(str::to_owned);
        match text(&event, "/type").unwrap_or_default() {
            "response.output_text.delta" => deltas.extend(delta().map(ModelDelta::Text)),
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
                if let Some(reasoning) = delta() {
                    self.has_shown_reasoning = true;
                    deltas.push_back(ModelDelta::Reasoning(reasoning));
                }
            }
            "response.reasoning_summary_part.added" if self.has_shown_reasoning => {
                deltas.push_back(ModelDelta::Reasoning("\n\n".to_owned()));
            }
            "response.refusal.delta" => self.refusal.push_str(text(&event, "/delta").unwrap_or_default()),
            "response.output_item.added" => match text(&event, "/item/type") {
                Some("function_call") => {
                    let place = self.begin_call(&event, deltas);
                    self.calls.more(place, text(&event, "/item/arguments").unwrap_or_default(), deltas);
                }
                Some("reasoning") => self.has_shown_reasoning = false,
                _ => {}
            },
            "response.function_call_arguments.delta" => {
                if let Some(place) = self.place(&event) {
                    self.calls.more(place, text(&event, "/delta").unwrap_or_default(), deltas);
                }
            }
            "response.output_item.done" => self.item_done(&event, deltas),
            "response.completed" => return self.end(&event["response"], false, deltas),
            "response.incomplete" => {
                let reason = text(&event, "/response/incomplete_details/reason");
                if reason == Some("content_filter") {
                    return Err(Failure::Refused("its safety filter stopped the answer".to_owned()));
                }
                return self.end(&event["response"], true, deltas);
            }
            "response.failed" => {
                let error = event.pointer("/response/error").filter(|error| !error.is_null());
                return Err(Failure::Reported(error.unwrap_or(&event).clone()));
            }
            "error" => return Err(Failure::Reported(event)),
            _ => {}
        }
        Ok(())
    }
}

fn usage_of(usage: &Value) -> Usage {
    let prompt_tokens = count(usage, "/input_tokens").unwrap_or(0);
    let completion_tokens = count(usage, "/output_tokens").unwrap_or(0);
    Usage {
        completion_tokens,
        prompt_tokens,
        total_tokens: count(usage, "/total_tokens").unwrap_or(prompt_tokens + completion_tokens),
        cached_input_tokens: count(usage, "/input_tokens_details/cached_tokens"),
        cache_write_tokens: count(usage, "/input_tokens_details/cache_write_tokens"),
        reasoning_tokens: count(usage, "/output_tokens_details/reasoning_tokens"),
    }
}
