//! The interfaces that servers of models have: what is said to each, and how what it answers is read. One file each.
//!
//! `genai` writes the conversation, carries the call and cuts the answer into frames. The frames are read here, since its
//! own events leave out much of what is in them: where redacted or encrypted reasoning stands, which part a signature
//! belongs to, why an answer was refused or failed, counts of tokens, and whether an answer that ended was complete.
//! Options, tools and the model's name are written here, too, since it reads meanings out of names: an effort at the end
//! of a model's name, a tool of the provider in a tool's name.

mod anthropic;
mod calls;
mod chat_completions;
mod gemini;
mod responses;

use std::collections::VecDeque;

use genai::Headers;
use genai::adapter::AdapterKind;
use genai::chat::ReasoningEffort;
use holdfast_shared::config::{ModelServer, OpenAiApi, Protocol, ReasoningSummary};
use holdfast_shared::domain::model_family::ModelFamily;
use holdfast_shared::ports::model_client::{ModelDelta, ModelRequest, ToolChoice};
use reqwest::Url;
use secrecy::ExposeSecret as _;
use serde_json::Value;

/// An interface of servers of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// OpenAI's chat completions, and everybody else's.
    ChatCompletions,
    /// OpenAI's Responses.
    Responses,
    /// Anthropic's Messages.
    Anthropic,
    /// Google's Gemini API.
    Gemini,
}

/// Whom a call goes to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer<'a> {
    /// The server.
    pub(super) server: &'a ModelServer,
    /// The server's own name of the model.
    pub(super) model: &'a str,
    /// Whether OpenAI's reasoning models shall sum up their reasoning.
    pub(super) summary: ReasoningSummary,
}

/// Reads the frames of one answer.
pub(super) trait Decoder: Send {
    /// Reads a frame, and puts what it says after `deltas`; the last of an answer's is `End`.
    ///
    /// # Errors
    /// The answer has failed.
    fn take(&mut self, frame: &str, deltas: &mut VecDeque<ModelDelta>) -> Result<(), Failure>;

    /// The server has closed the answer. That is its end if nothing was missing but a last word.
    ///
    /// # Errors
    /// The answer has failed.
    fn close(&mut self, _deltas: &mut VecDeque<ModelDelta>) -> Result<(), Failure> {
        Ok(())
    }
}

/// Why an answer failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server says so, in an object of its own.
    Reported(Value),
    /// The provider or the model does not want to answer; why.
    Refused(String),
    /// A frame cannot be read; why.
    Unreadable(String),
}

impl Dialect {
    /// The interface to call a model by.
    pub(super) fn of(peer: &Peer<'_>) -> Self {
        match peer.server.protocol {
            Protocol::Anthropic => Self::Anthropic,
            Protocol::Gemini => Self::Gemini,
            Protocol::OpenAi(OpenAiApi::ChatCompletions) => Self::ChatCompletions,
            Protocol::OpenAi(OpenAiApi::Responses) => Self::Responses,
            Protocol::OpenAi(OpenAiApi::Auto) if peer.is_openai_reasoner() => Self::Responses,
            Protocol::OpenAi(OpenAiApi::Auto) => Self::ChatCompletions,
        }
    }

    /// How genai calls it.
    pub(super) const fn adapter(self) -> AdapterKind {
        match self {
            Self::ChatCompletions => AdapterKind::OpenAI,
            Self::Responses => AdapterKind::OpenAIResp,
            Self::Anthropic => AdapterKind::Anthropic,
            Self::Gemini => AdapterKind::Gemini,
        }
    }

    /// An effort that genai does not send, so that it does not look for one in the model's name.
    pub(super) const fn no_effort(self) -> ReasoningEffort {
        match self {
            Self::ChatCompletions | Self::Responses => ReasoningEffort::Budget(0),
            Self::Anthropic | Self::Gemini => ReasoningEffort::Zero,
        }
    }

    /// The name of the model that genai is told. It is never sent, so only names that mean something to genai count:
    /// it knows which of Google's models want a placeholder for a missing signature.
    pub(super) const fn name_for_genai<'a>(self, peer: &Peer<'a>) -> &'a str {
        match self {
            Self::ChatCompletions | Self::Responses | Self::Anthropic => "model",
            Self::Gemini => peer.model,
        }
    }

    /// Where the call goes; `None` for a URL that has no path.
    pub(super) fn url(self, peer: &Peer<'_>) -> Option<Url> {
        let mut url = peer.server.base_url.clone();
        let mut path = url.path_segments_mut().ok()?;
        path.pop_if_empty();
        match self {
            Self::ChatCompletions => _ = path.extend(["chat", "completions"]),
            Self::Responses => _ = path.push("responses"),
            Self::Anthropic => _ = path.push("messages"),
            Self::Gemini => _ = path.extend(["models", &format!("{}:streamGenerateContent", peer.model)]),
        }
        drop(path);
        if self == Self::Gemini {
            url.query_pairs_mut().append_pair("alt", "sse");
        }
        Some(url)
    }

    /// The headers of the call, with the key if there is one.
    pub(super) fn headers(self, server: &ModelServer) -> Headers {
        let mut headers = Headers::default();
        if let Some(key) = server.api_key.as_ref().map(|key| key.expose_secret()).filter(|key| !key.is_empty()) {
            headers.merge(match self {
                Self::ChatCompletions | Self::Responses => ("authorization", format!("Bearer {key}")),
                Self::Anthropic => ("x-api-key", key.to_owned()),
                Self::Gemini => ("x-goog-api-key", key.to_owned()),
            });
        }
        if self == Self::Anthropic {
            headers.merge(("anthropic-version", "2023-06-01"));
        }
        headers
    }

    /// The body of the call without the conversation.
    pub(super) fn body(self, peer: &Peer<'_>, request: &ModelRequest) -> Value {
        match self {
            Self::ChatCompletions => chat_completions::body(peer, request),
            Self::Responses => responses::body(peer, request),
            Self::Anthropic => anthropic::body(peer, request),
            Self::Gemini => gemini::body(peer, request),
        }
    }

    /// What reads the answer.
    pub(super) fn decoder(self, peer: &Peer<'_>) -> Box<dyn Decoder> {
        match self {
            Self::ChatCompletions => Box::new(chat_completions::Reader::new(peer)),
            Self::Responses => Box::<responses::Reader>::default(),
            Self::Anthropic => Box::<anthropic::Reader>::default(),
            Self::Gemini => Box::<gemini::Reader>::default(),
        }
    }
}

impl Peer<'_> {
    /// Whether it is one of OpenAI's own reasoning models, at OpenAI.
    fn is_openai_reasoner(&self) -> bool {
        self.server.is_openai_itself() && is_openai_reasoner(self.model)
    }

    /// Whether the model may take images; only what is known not to does not.
    pub(super) fn may_see_images(&self) -> bool {
        ModelFamily::of(self.model).is_none_or(|family| family.sees_images)
    }
}

/// Whether a name is that of one of OpenAI's reasoning models.
fn is_openai_reasoner(model: &str) -> bool {
    let leading = |text: &str| {
        let digits = text.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        digits.parse::<u32>().ok()
    };
    // A fine-tuned model has the name of its base in it: `ft:o4-mini-…`.
    let model = model.strip_prefix("ft:").unwrap_or(model);
    if let Some(rest) = model.strip_prefix("gpt-") {
        return leading(rest).is_some_and(|version| version >= 5) && !model.contains("-chat");
    }
    model.starts_with("codex") || model.strip_prefix('o').and_then(leading).is_some()
}

/// Whether the call must be answered by calling a tool.
fn forces_a_tool(request: &ModelRequest) -> bool {
    !request.tools.is_empty() && matches!(request.tool_choice, ToolChoice::Required | ToolChoice::Named(_))
}

/// The JSON of a frame.
fn json(frame: &str) -> Result<Value, Failure> {
    serde_json::from_str(frame).map_err(|error| Failure::Unreadable(error.to_string()))
}

/// The text at a place, if there is any.
fn text<'a>(value: &'a Value, place: &str) -> Option<&'a str> {
    value.pointer(place)?.as_str().filter(|text| !text.is_empty())
}

/// The number of tokens at a place.
fn count(value: &Value, place: &str) -> Option<u64> {
    value.pointer(place)?.as_u64()
}

/// The schema that the answer's text shall follow, and the name that was given to it.
fn answer_schema(request: &ModelRequest) -> Option<(&str, &Value)> {
    let format = request.options.response_format.as_ref()?;
    let of_openai = format.get("json_schema");
    let schema = of_openai.and_then(|inner| inner.get("schema")).or_else(|| format.get("schema"))?;
    let name = of_openai.and_then(|inner| text(inner, "/name")).or_else(|| text(format, "/name"));
    Some((name.unwrap_or("answer"), schema))
}

/// Whether the answer's text shall be JSON, of whatever form.
fn wants_json(request: &ModelRequest) -> bool {
    let kind = request.options.response_format.as_ref().and_then(|format| text(format, "/type"));
    matches!(kind, Some("json_object" | "json_schema"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasoning_models_of_openai_are_known_by_their_names() {
        for name in ["o1", "o3-mini", "o4-mini-2025-04-16", "gpt-5", "gpt-5.1-codex", "gpt-6-mini", "codex-mini-latest"]
        {
            assert!(is_openai_reasoner(name), "{name}");
        }
        for name in ["gpt-4o", "gpt-4.1", "gpt-5-chat-latest", "omni", "olmo-2", "gpt-oss-20b"] {
            assert!(!is_openai_reasoner(name), "{name}");
        }
    }
}
