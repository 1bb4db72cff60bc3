//! OpenAI's chat completions, as OpenAI and everybody else speaks them.

use std::collections::VecDeque;

use holdfast_shared::domain::usage::Usage;
use holdfast_shared::ports::model_client::{ModelDelta, ModelRequest, ToolChoice};
use serde_json::{Value, json};

use super::calls::Calls;
use super::{Decoder, Failure, Peer, count, is_openai_reasoner, text};

/// The body of a call without the conversation.
pub(super) fn body(peer: &Peer<'_>, request: &ModelRequest) -> Value {
    let options = &request.options;
    let mut body = json!({"model": peer.model, "stream_options": {"include_usage": true}});
    if !request.tools.is_empty() {
        let tools = request.tools.iter().map(|tool| {
            // An absent description would be sent as null, which some servers refuse.
            let description = if tool.description.is_empty() { &tool.name } else { &tool.description };
            json!({"type": "function", "function": {
                "name": tool.name, "description": description, "parameters": tool.parameters, "strict": false,
            }})
        });
        body["tools"] = tools.collect();
        match &request.tool_choice {
            ToolChoice::Auto => {}
            ToolChoice::None => body["tool_choice"] = "none".into(),
            ToolChoice::Required => body["tool_choice"] = "required".into(),
            ToolChoice::Named(name) => body["tool_choice"] = json!({"type": "function", "function": {"name": name}}),
        }
        // OpenAI's first reasoning models refuse the parameter.
        if !["o1", "o3", "o4"].iter().any(|family| peer.model.starts_with(family)) {
            body["parallel_tool_calls"] = options.parallel_tool_calls.into();
        }
    }
    // OpenAI's reasoning models refuse temperatures.
    if let Some(temperature) = options.temperature.filter(|_| !peer.is_openai_reasoner()) {
        body["temperature"] = temperature.into();
    }
    if let Some(tokens) = options.max_output_tokens {
        let name = if is_openai_reasoner(peer.model) { "max_completion_tokens" } else { "max_tokens" };
        body[name] = tokens.into();
    }
    if let Some(effort) = &options.reasoning.effort {
        body["reasoning_effort"] = effort.as_str().into();
    }
    if let Some(format) = options.response_format.as_ref().filter(|format| text(format, "/type") != Some("text")) {
        body["response_format"] = format.clone();
    }
    body
}

/// Reads an answer.
pub(super) struct Reader {
    /// Whether the model reasons and shows nothing of it, and that was not said yet.
    hides_reasoning: bool,
    calls: Calls,
    pieces: Vec<Piece>,
    refusal: String,
    finish: Option<String>,
    usage: Usage,
}

/// What the server tells of a call by one index.
#[derive(Default)]
struct Piece {
    index: Option<u64>,
    id: String,
    /// Its place among the calls, once it has a name.
    place: Option<usize>,
    /// Arguments that came before the name.
    early: String,
}

impl Reader {
    pub(super) fn new(peer: &Peer<'_>) -> Self {
        Self {
            hides_reasoning: peer.is_openai_reasoner(),
            calls: Calls::default(),
            pieces: Vec::new(),
            refusal: String::new(),
            finish: None,
            usage: Usage::default(),
        }
    }

    fn call(&mut self, piece: &Value, deltas: &mut VecDeque<ModelDelta>) {
        let index = count(piece, "/index");
        let id = text(piece, "/id").unwrap_or_default();
        let name = text(piece, "/function/name");
        let goes_on = |known: &Piece| {
            // Some servers give every call the same index, and some give none.
            let is_other = name.is_some() && !id.is_empty() && known.place.is_some() && known.id != id;
            known.index == index && !is_other
        };
        let known = self.pieces.iter().rposition(goes_on).filter(|_| index.is_some() || name.is_none());
        let place = known.unwrap_or_else(|| {
            self.pieces.push(Piece { index, id: id.to_owned(), ..Piece::default() });
            self.pieces.len() - 1
        });
        let Some(known) = self.pieces.get_mut(place) else { return };
        if known.id.is_empty() {
            id.clone_into(&mut known.id);
        }
        let fragment = match piece.pointer("/function/arguments") {
            Some(Value::String(fragment)) => fragment.clone(),
            // An object instead of its text.
            Some(arguments @ Value::Object(_)) => arguments.to_string(),
            _ => String::new(),
        };
        match (known.place, name) {
            (Some(place), _) => self.calls.more(place, &fragment, deltas),
            (None, Some(name)) => {
                let place = self.calls.begin(Some(&known.id), name, deltas);
                known.place = Some(place);
                let early = std::mem::take(&mut known.early);
                self.calls.more(place, &format!("{early}{fragment}"), deltas);
            }
            (None, None) => known.early.push_str(&fragment),
        }
    }

    fn end(&mut self, deltas: &mut VecDeque<ModelDelta>) -> Result<(), Failure> {
        if !self.refusal.is_empty() {
            return Err(Failure::Refused(std::mem::take(&mut self.refusal)));
        }
        let finish = self.finish.as_deref();
        if finish == Some("content_filter") {
            return Err(Failure::Refused("its safety filter stopped the answer".to_owned()));
        }
        let is_cut = matches!(finish, Some("length" | "max_tokens" | "model_length"));
        if !is_cut {
            self.calls.finish(deltas);
        }
        deltas.push_back(ModelDelta::End { usage: self.usage, is_cut });
        Ok(())
    }
}

impl Decoder for Reader {
    fn take(&mut self, frame: &str, deltas: &mut VecDeque<ModelDelta>) -> Result<(), Failure> {
        if frame == "[DONE]" {
            return self.end(deltas);
        }
        let chunk = super::json(frame)?;
        if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
            return Err(Failure::Reported(error.clone()));
        }
        if let Some(usage) = chunk.get("usage").filter(|usage| usage.is_object()) {
            self.usage = usage_of(usage);
        }
        let Some(choice) = chunk.pointer("/choices/0") else { return Ok(()) };
        let mut new = VecDeque::new();
        // Servers that have two names for it send the same in both.
        let reasoning = text(choice, "/delta/reasoning_content").or_else(|| text(choice, "/delta/reasoning"));
        new.extend(reasoning.map(|reasoning| ModelDelta::Reasoning(reasoning.to_owned())));
        match choice.pointer("/delta/content") {
            Some(Value::String(said)) if !said.is_empty() => new.push_back(ModelDelta::Text(said.clone())),
            Some(Value::Array(parts)) => parts.iter().for_each(|part| content_part(part, &mut new)),
            _ => {}
        }
        if let Some(Value::Array(pieces)) = choice.pointer("/delta/tool_calls") {
            pieces.iter().for_each(|piece| self.call(piece, &mut new));
        }
        if self.hides_reasoning && !new.is_empty() {
            self.hides_reasoning = false;
            if !matches!(new.front(), Some(ModelDelta::Reasoning(_))) {
                deltas.push_back(ModelDelta::HiddenReasoning(None));
            }
        }
        deltas.append(&mut new);
        self.refusal.push_str(text(choice, "/delta/refusal").unwrap_or_default());
        if let Some(finish) = text(choice, "/finish_reason") {
            self.finish = Some(finish.to_owned());
        }
        Ok(())
    }

    fn close(&mut self, deltas: &mut VecDeque<ModelDelta>) -> Result<(), Failure> {
        // Some servers leave the last frame out.
        if self.finish.is_some() { self.end(deltas) } else { Ok(()) }
    }
}

/// Content in parts, as Mistral's reasoning models send it.
fn content_part(part: &Value, deltas: &mut VecDeque<ModelDelta>) {
    match text(part, "/type") {
        Some("text") => deltas.extend(text(part, "/text").map(|said| ModelDelta::Text(said.to_owned()))),
        Some("thinking") => {
            let thoughts = part.get("thinking").and_then(Value::as_array);
            let thoughts = thoughts.into_iter().flatten().filter_map(|thought| text(thought, "/text"));
            deltas.extend(thoughts.map(|thought| ModelDelta::Reasoning(thought.to_owned())));
        }
        _ => {}
    }
}

fn usage_of(usage: &Value) -> Usage {
    let first = |places: &[&str]| places.iter().find_map(|place| count(usage, place));
    let prompt_tokens = count(usage, "/prompt_tokens").unwrap_or(0);
    let completion_tokens = count(usage, "/completion_tokens").unwrap_or(0);
    Usage {
        completion_tokens,
        prompt_tokens,
        total_tokens: count(usage, "/total_tokens").unwrap_or(prompt_tokens + completion_tokens),
        // The second as DeepSeek says it.
        cached_input_tokens: first(&["/prompt_tokens_details/cached_tokens", "/prompt_cache_hit_tokens"]),
        cache_write_tokens: first(&[
            "/prompt_tokens_details/cache_write_tokens",
            "/prompt_tokens_details/cache_creation_tokens",
        ]),
        reasoning_tokens: count(usage, "/completion_tokens_details/reasoning_tokens"),
    }
}
