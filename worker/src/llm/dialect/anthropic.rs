//! Anthropic's Messages.

use std::collections::VecDeque;

use holdfast_shared::domain::usage::Usage;
use holdfast_shared::ports::model_client::{ModelDelta, ModelRequest, ToolChoice};
use serde_json::{Value, json};

use super::calls::Calls;
use super::{Decoder, Failure, Peer, answer_schema, count, forces_a_tool, text};

/// Most tokens of an answer, beside its reasoning, where the agent says nothing. The interface wants a number, and old
/// models count it to the context.
const DEFAULT_MAX_TOKENS: u32 = 16_384;
/// The least that a model may be asked to reason, in tokens.
const LEAST_BUDGET: u32 = 1_024;

/// The body of a call without the conversation.
pub(super) fn body(peer: &Peer<'_>, request: &ModelRequest) -> Value {
    let options = &request.options;
    let generation = Generation::of(peer.model);
    let reasoning = reasoning(generation, request);
    let budget = match reasoning {
        Reasoning::Budget(tokens) => tokens,
        Reasoning::Unsaid | Reasoning::Off | Reasoning::Adaptive => 0,
    };
    let max_tokens = options.max_output_tokens.unwrap_or_else(|| generation.max_tokens() + budget);
    let mut body = json!({"model": peer.model, "max_tokens": max_tokens});
    match reasoning {
        Reasoning::Unsaid => {}
        Reasoning::Off => body["thinking"] = json!({"type": "disabled"}),
        Reasoning::Adaptive => body["thinking"] = json!({"type": "adaptive", "display": "summarized"}),
        Reasoning::Budget(tokens) => body["thinking"] = json!({"type": "enabled", "budget_tokens": tokens}),
    }
    let is_reasoning = matches!(reasoning, Reasoning::Adaptive | Reasoning::Budget(_));
    // Refused together with reasoning, and by new models in any case.
    if let Some(temperature) = options.temperature.filter(|_| !is_reasoning && generation.takes_temperature()) {
        body["temperature"] = temperature.into();
    }
    if !request.tools.is_empty() {
        let tool = |tool: &holdfast_shared::domain::tool::ToolSpec| json!({"name": tool.name, "description": tool.description, "input_schema": tool.parameters});
        body["tools"] = request.tools.iter().map(tool).collect();
        let mut choice = match &request.tool_choice {
            ToolChoice::Auto => json!({"type": "auto"}),
            ToolChoice::None => json!({"type": "none"}),
            ToolChoice::Required => json!({"type": "any"}),
            ToolChoice::Named(name) => json!({"type": "tool", "name": name}),
        };
        if !options.parallel_tool_calls && request.tool_choice != ToolChoice::None {
            choice["disable_parallel_tool_use"] = true.into();
        }
        body["tool_choice"] = choice;
    }
    let mut output = serde_json::Map::new();
    if let (Reasoning::Adaptive, Some(effort)) = (reasoning, &options.reasoning.effort) {
        let effort = if effort == "minimal" { "low" } else { effort };
        output.insert("effort".to_owned(), effort.into());
    }
    if let Some((_, schema)) = answer_schema(request) {
        output.insert("format".to_owned(), json!({"type": "json_schema", "schema": schema}));
    }
    if !output.is_empty() {
        body["output_config"] = output.into();
    }
    body
}

/// What a model is told of reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reasoning {
    /// Nothing: as it does by itself.
    Unsaid,
    /// Not to.
    Off,
    /// To reason as much as it finds right.
    Adaptive,
    /// To reason up to so many tokens.
    Budget(u32),
}

fn reasoning(generation: Generation, request: &ModelRequest) -> Reasoning {
    let wish = &request.options.reasoning;
    let is_wanted = wish.is_on.unwrap_or(wish.effort.is_some() || wish.budget_tokens.is_some());
    // A model that is forced to call a tool cannot reason before it.
    if wish.is_on == Some(false) || forces_a_tool(request) {
        return if generation.reasons_by_itself() { Reasoning::Off } else { Reasoning::Unsaid };
    }
    if !is_wanted {
        return Reasoning::Unsaid;
    }
    if generation.is_adaptive() {
        return Reasoning::Adaptive;
    }
    let by_effort = match wish.effort.as_deref() {
        Some("minimal" | "low") => LEAST_BUDGET,
        Some("high" | "xhigh" | "max") => 24_000,
        _ => 8_000,
    };
    let budget = wish.budget_tokens.unwrap_or(by_effort).max(LEAST_BUDGET);
    // It counts to the output, and must leave something of it.
    match request.options.max_output_tokens {
        Some(tokens) if tokens <= LEAST_BUDGET => Reasoning::Unsaid,
        Some(tokens) => Reasoning::Budget(budget.min(tokens - 1)),
        None => Reasoning::Budget(budget),
    }
}

/// Version of a Claude model; `None` of another model, or of one whose name tells no version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Generation(Option<(u32, u32)>);

impl Generation {
    fn of(model: &str) -> Self {
        let mut segments = model.split(['-', '.']).skip_while(|segment| *segment != "claude").skip(1);
        // Longer numbers are dates.
        let version = |segment: &str| (segment.len() <= 2).then(|| segment.parse::<u32>().ok()).flatten();
        let major = segments.by_ref().find_map(version);
        Self(major.map(|major| (major, segments.next().and_then(version).unwrap_or(0))))
    }

    fn at_least(self, major: u32, minor: u32) -> bool {
        self.0.is_some_and(|version| version >= (major, minor))
    }

    /// Whether it decides itself how much to reason; earlier ones want a number of tokens.
    fn is_adaptive(self) -> bool {
        self.at_least(4, 6)
    }

    /// Whether it reasons when nothing is said.
    fn reasons_by_itself(self) -> bool {
        self.at_least(5, 0)
    }

    fn takes_temperature(self) -> bool {
        !self.at_least(4, 7)
    }

    fn max_tokens(self) -> u32 {
        match self.0 {
            Some((3, 5)) => 8_192,
            Some((..=2, _) | (3, ..=4)) => 4_096,
            _ => DEFAULT_MAX_TOKENS,
        }
    }
}

/// Reads an answer.
#[derive(Default)]
pub(super) struct Reader {
    calls: Calls,
    block: Block,
    usage: Tokens,
    stop_reason: Option<String>,
}

/// The block at hand.
#[derive(Default)]
enum Block {
    #[default]
    Text,
    Thinking {
        has_text: bool,
        signature: String,
    },
    ToolUse {
        place: usize,
        /// Arguments that came with the beginning, for servers that send no pieces.
        early: Option<Value>,
    },
}

/// Tokens as they are told, piece by piece.
#[derive(Default)]
struct Tokens {
    input: Option<u64>,
    output: Option<u64>,
    cache_read: Option<u64>,
    cache_write: Option<u64>,
    thinking: Option<u64>,
}

impl Tokens {
    fn take(&mut self, usage: &Value) {
        for (known, place) in [
            (&mut self.input, "/input_tokens"),
            (&mut self.output, "/output_tokens"),
            (&mut self.cache_read, "/cache_read_input_tokens"),
            (&mut self.cache_write, "/cache_creation_input_tokens"),
            (&mut self.thinking, "/output_tokens_details/thinking_tokens"),
        ] {
            *known = count(usage, place).or(*known);
        }
    }

    /// What is cached is not in the number of input tokens here, but it is in ours.
    fn usage(&self) -> Usage {
        let prompt_tokens = [self.input, self.cache_read, self.cache_write].into_iter().flatten().sum();
        let completion_tokens = self.output.unwrap_or(0);
        Usage {
            completion_tokens,
            prompt_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            cached_input_tokens: self.cache_read,
            cache_write_tokens: self.cache_write,
            reasoning_tokens: self.thinking,
        }
    }
}

impl Reader {
    fn begin(&mut self, event: &Value, deltas: &mut VecDeque<ModelDelta>) {
        self.block = match text(event, "/content_block/type") {
            Some("thinking") => {
                let thinking = text(event, "/content_block/thinking");
                deltas.extend(thinking.map(|thinking| ModelDelta::Reasoning(thinking.to_owned())));
                let signature = text(event, "/content_block/signature").unwrap_or_default().to_owned();
                Block::Thinking { has_text: thinking.is_some(), signature }
            }
            Some("redacted_thinking") => {
                let data = text(event, "/content_block/data").map(str::to_owned);
                deltas.push_back(ModelDelta::HiddenReasoning(data));
                Block::Text
            }
            Some("tool_use") => {
                let name = text(event, "/content_block/name").unwrap_or_default();
                let place = self.calls.begin(text(event, "/content_block/id"), name, deltas);
                let early = event.pointer("/content_block/input").and_then(Value::as_object);
                Block::ToolUse { place, early: early.filter(|input| !input.is_empty()).cloned().map(Value::Object) }
            }
            _ => {
                let said = text(event, "/content_block/text");
                deltas.extend(said.map(|said| ModelDelta::Text(said.to_owned())));
                Block::Text
            }
        };
    }

    fn more(&mut self, event: &Value, deltas: &mut VecDeque<ModelDelta>) {
        match &mut self.block {
            Block::Text => deltas.extend(text(event, "/delta/text").map(|said| ModelDelta::Text(said.to_owned()))),
            Block::Thinking { has_text, signature } => {
                if let Some(thinking) = text(event, "/delta/thinking") {
                    *has_text = true;
                    deltas.push_back(ModelDelta::Reasoning(thinking.to_owned()));
                }
                signature.push_str(text(event, "/delta/signature").unwrap_or_default());
            }
            Block::ToolUse { place, early } => {
                if let Some(fragment) = text(event, "/delta/partial_json") {
                    *early = None;
                    self.calls.more(*place, fragment, deltas);
                }
            }
        }
    }

    fn finish(&mut self, deltas: &mut VecDeque<ModelDelta>) {
        match std::mem::take(&mut self.block) {
            Block::Thinking { has_text, signature } if !signature.is_empty() => {
                if !has_text {
                    deltas.push_back(ModelDelta::HiddenReasoning(None));
                }
                deltas.push_back(ModelDelta::ReasoningSignature(signature));
            }
            Block::ToolUse { place, early: Some(input) } => self.calls.more(place, &input.to_string(), deltas),
            Block::Text | Block::Thinking { .. } | Block::ToolUse { .. } => {}
        }
    }
}

impl Decoder for Reader {
    fn take(&mut self, frame: &str, deltas: &mut VecDeque<ModelDelta>) -> Result<(), Failure> {
        let event = super::json(frame)?;
        match text(&event, "/type").unwrap_or_default() {
            "message_start" => {
                if let Some(usage) = event.pointer("/message/usage") {
                    self.usage.take(usage);
                }
            }
            "content_block_start" => self.begin(&event, deltas),
            "content_block_delta" => self.more(&event, deltas),
            "content_block_stop" => self.finish(deltas),
            "message_delta" => {
                if let Some(usage) = event.get("usage") {
                    self.usage.take(usage);
                }
                if let Some(reason) = text(&event, "/delta/stop_reason") {
                    self.stop_reason = Some(reason.to_owned());
                }
            }
            "message_stop" => {
                let reason = self.stop_reason.as_deref();
                if reason == Some("refusal") {
                    let why = "the model declines to answer this for reasons of safety";
                    return Err(Failure::Refused(why.to_owned()));
                }
                let is_cut = matches!(reason, Some("max_tokens" | "model_context_window_exceeded"));
                if !is_cut {
                    self.calls.finish(deltas);
                }
                deltas.push_back(ModelDelta::End { usage: self.usage.usage(), is_cut });
            }
            "error" => return Err(Failure::Reported(event.get("error").unwrap_or(&event).clone())),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_names() {
        for (name, version) in [
            ("claude-3-haiku-20240307", Some((3, 0))),
            ("claude-3-5-sonnet-latest", Some((3, 5))),
            ("claude-opus-4-20250514", Some((4, 0))),
            ("claude-sonnet-4-5-20250929", Some((4, 5))),
            ("claude-opus-4-6", Some((4, 6))),
            ("claude-opus-5", Some((5, 0))),
            ("anthropic.claude-sonnet-4-20250514-v1", Some((4, 0))),
            ("kimi-k2-0711", None),
            ("glm-4.6", None),
        ] {
            assert_eq!(Generation::of(name).0, version, "{name}");
        }
    }
}
