//! Google's Gemini API.

use std::collections::VecDeque;

use holdfast_shared::domain::usage::Usage;
use holdfast_shared::ports::model_client::{ModelDelta, ModelRequest, ToolChoice};
use serde_json::{Map, Value, json};

use super::calls::Calls;
use super::{Decoder, Failure, Peer, answer_schema, count, text, wants_json};

/// The body of a call without the conversation.
pub(super) fn body(peer: &Peer<'_>, request: &ModelRequest) -> Value {
    let options = &request.options;
    let mut body = Map::new();
    let mut config = Map::new();
    if let Some(temperature) = options.temperature {
        config.insert("temperature".to_owned(), temperature.into());
    }
    if let Some(tokens) = options.max_output_tokens {
        config.insert("maxOutputTokens".to_owned(), tokens.into());
    }
    if let Some(thinking) = thinking(peer.model, request) {
        config.insert("thinkingConfig".to_owned(), thinking);
    }
    if wants_json(request) {
        config.insert("responseMimeType".to_owned(), "application/json".into());
    }
    if let Some((_, schema)) = answer_schema(request) {
        config.insert("responseJsonSchema".to_owned(), schema.clone());
    }
    if !config.is_empty() {
        body.insert("generationConfig".to_owned(), config.into());
    }
    if !request.tools.is_empty() {
        let tools = request.tools.iter().map(
            |tool| json!({"name": tool.name, "description": tool.description, "parametersJsonSchema": tool.parameters}),
        );
        body.insert("tools".to_owned(), json!([{"functionDeclarations": tools.collect::<Vec<_>>()}]));
        let choice = match &request.tool_choice {
            ToolChoice::Auto => None,
            ToolChoice::None => Some(json!({"mode": "NONE"})),
            ToolChoice::Required => Some(json!({"mode": "ANY"})),
            ToolChoice::Named(name) => Some(json!({"mode": "ANY", "allowedFunctionNames": [name]})),
        };
        if let Some(choice) = choice {
            body.insert("toolConfig".to_owned(), json!({"functionCallingConfig": choice}));
        }
    }
    body.into()
}

/// How much to reason; models that cannot refuse to be told anything.
fn thinking(model: &str, request: &ModelRequest) -> Option<Value> {
    let wish = &request.options.reasoning;
    let version = version(model);
    let has_levels = version.is_some_and(|version| version >= (3, 0));
    if wish.is_on == Some(false) {
        return match version {
            // It can only be told to reason little.
            Some((3.., _)) => Some(json!({"thinkingLevel": "low"})),
            Some((2, 5..)) if !model.contains("pro") => Some(json!({"thinkingBudget": 0})),
            _ => None,
        };
    }
    let is_wanted = wish.is_on == Some(true) || wish.effort.is_some() || wish.budget_tokens.is_some();
    if !is_wanted && version.is_none_or(|version| version < (2, 5)) {
        return None;
    }
    let mut thinking = json!({"includeThoughts": true});
    match (wish.budget_tokens, wish.effort.as_deref()) {
        (Some(tokens), _) => thinking["thinkingBudget"] = tokens.into(),
        (None, Some(effort)) if has_levels => {
            let level = if matches!(effort, "xhigh" | "max") { "high" } else { effort };
            thinking["thinkingLevel"] = level.into();
        }
        (None, Some(effort)) => {
            thinking["thinkingBudget"] = match effort {
                "minimal" | "low" => 1_024,
                "medium" => 8_192,
                _ => 24_576,
            }
            .into();
        }
        (None, None) => {}
    }
    Some(thinking)
}

/// The version in a name such as `gemini-2.5-flash`; `None` of models that do not answer in text alone.
fn version(model: &str) -> Option<(u32, u32)> {
    if ["image", "tts", "live", "audio"].iter().any(|kind| model.contains(kind)) {
        return None;
    }
    let number = model.strip_prefix("gemini-")?.split('-').next()?;
    let (major, minor) = number.split_once('.').unwrap_or((number, "0"));
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Reads an answer.
#[derive(Default)]
pub(super) struct Reader {
    calls: Calls,
    usage: Usage,
    /// Signatures of the text at hand. They can be on any piece of it, and come after it, so that they do not part it.
    of_text: Vec<String>,
}

impl Reader {
    fn part(&mut self, part: &Value, deltas: &mut VecDeque<ModelDelta>) {
        let signature = text(part, "/thoughtSignature");
        let is_thought = part.get("thought").and_then(Value::as_bool).unwrap_or(false);
        let call = part.get("functionCall");
        if call.is_some() || is_thought {
            self.end_text(deltas);
        }
        if let Some(call) = call {
            let place = self.calls.begin(text(call, "/id"), text(call, "/name").unwrap_or_default(), deltas);
            if let Some(arguments) = call.get("args").filter(|arguments| arguments.is_object()) {
                self.calls.more(place, &arguments.to_string(), deltas);
            }
            if let Some(signature) = signature {
                self.calls.signature(place, signature, deltas);
            }
            return;
        }
        if let Some(said) = text(part, "/text") {
            let said = said.to_owned();
            deltas.push_back(if is_thought { ModelDelta::Reasoning(said) } else { ModelDelta::Text(said) });
        }
        self.of_text.extend(signature.map(str::to_owned));
        if is_thought {
            self.end_text(deltas);
        }
    }

    fn end_text(&mut self, deltas: &mut VecDeque<ModelDelta>) {
        deltas.extend(self.of_text.drain(..).map(ModelDelta::ReasoningSignature));
    }

    fn end(&mut self, reason: &str, words: Option<&str>, deltas: &mut VecDeque<ModelDelta>) -> Result<(), Failure> {
        let is_cut = match reason {
            "STOP" => false,
            "MAX_TOKENS" => true,
            "SAFETY" | "RECITATION" | "LANGUAGE" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" | "IMAGE_SAFETY" => {
                let why = words.map_or_else(|| reason.to_owned(), |words| format!("{reason}: {words}"));
                return Err(Failure::Refused(why));
            }
            // The model has written a call that cannot be read, or worse.
            _ => return Err(Failure::Reported(json!({"message": words.unwrap_or(reason), "reason": reason}))),
        };
        self.end_text(deltas);
        if !is_cut {
            self.calls.finish(deltas);
        }
        deltas.push_back(ModelDelta::End { usage: self.usage, is_cut });
        Ok(())
    }
}

impl Decoder for Reader {
    fn take(&mut self, frame: &str, deltas: &mut VecDeque<ModelDelta>) -> Result<(), Failure> {
        let chunk = super::json(frame)?;
        if let Some(error) = chunk.get("error") {
            return Err(Failure::Reported(error.clone()));
        }
        if let Some(usage) = chunk.get("usageMetadata") {
            self.usage = usage_of(usage);
        }
        if let Some(reason) = text(&chunk, "/promptFeedback/blockReason") {
            let words = text(&chunk, "/promptFeedback/blockReasonMessage");
            let why =
                format!("the prompt is blocked ({reason}){}", words.map(|w| format!(": {w}")).unwrap_or_default());
            return Err(Failure::Refused(why));
        }
        if let Some(Value::Array(parts)) = chunk.pointer("/candidates/0/content/parts") {
            parts.iter().for_each(|part| self.part(part, deltas));
        }
        match text(&chunk, "/candidates/0/finishReason") {
            Some(reason) => self.end(reason, text(&chunk, "/candidates/0/finishMessage"), deltas),
            None => Ok(()),
        }
    }
}

fn usage_of(usage: &Value) -> Usage {
    let sum = |places: [&str; 2]| places.iter().filter_map(|place| count(usage, place)).sum::<u64>();
    let prompt_tokens = sum(["/promptTokenCount", "/toolUsePromptTokenCount"]);
    // Reasoning is not in the number of the answer's tokens here, but it is in ours.
    let completion_tokens = sum(["/candidatesTokenCount", "/thoughtsTokenCount"]);
    Usage {
        completion_tokens,
        prompt_tokens,
        total_tokens: count(usage, "/totalTokenCount").unwrap_or(prompt_tokens + completion_tokens),
        cached_input_tokens: count(usage, "/cachedContentTokenCount"),
        cache_write_tokens: None,
        reasoning_tokens: count(usage, "/thoughtsTokenCount"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_names() {
        assert_eq!(version("gemini-2.5-flash-lite"), Some((2, 5)));
        assert_eq!(version("gemini-3-pro-preview"), Some((3, 0)));
        assert_eq!(version("gemini-2.5-flash-image"), None);
        assert_eq!(version("gemma-3-27b-it"), None);
    }
}
