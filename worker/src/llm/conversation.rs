//! The conversation of a call in genai's words, which turns them into those of each interface.

use genai::chat::{CacheControl, ChatMessage, ChatRequest, ChatRole, ContentPart, MessageContent, ToolResponse};
use holdfast_shared::domain::message::{Answer, AnswerPart, ReasoningSource};
use holdfast_shared::domain::tool::{NAME_CHARS, ToolCall, is_name};
use holdfast_shared::ports::model_client::{Image, ModelRequest, Piece, ToolResult, Turn};
use serde_json::{Value, json};

use super::dialect::{Dialect, Peer};
use crate::agent::prompt::IMAGE_PLACEHOLDER;

/// The longest id of a call that OpenAI takes; Anthropic takes longer ones.
const CALL_ID_CHARS: usize = 40;
/// What stands for a last input that has nothing a model could be sent, such as one of reasoning alone: providers refuse
/// empty requests.
const EMPTY_INPUT: &str = "[nothing that can be shown]";
/// How many of the newest turns of input begin a prefix that Anthropic shall keep: the last one, and the one before,
/// up to which the previous call has filled its cache.
const CACHED_TURNS: usize = 2;

/// Translates the conversation of a call.
pub(super) fn conversation(dialect: Dialect, peer: &Peer<'_>, request: ModelRequest) -> ChatRequest {
    let writer = Writer {
        dialect,
        peer,
        sees_images: peer.may_see_images(),
        has_reasoning: request.options.reasoning.is_on != Some(false),
        // Servers that know the field for reasoning want it inside the present loop of calls and results, and some
        // refuse it in older turns.
        last: request.turns.len().saturating_sub(1),
        loop_start: request.turns.iter().rposition(|turn| matches!(turn, Turn::User(_))).unwrap_or(0),
    };
    let mut messages = Vec::with_capacity(request.turns.len() + 1);
    if dialect == Dialect::Anthropic && !request.system.is_empty() {
        // A system message of its own can be marked, unlike the request's.
        messages.push(ChatMessage::system(request.system.as_str()).with_options(CacheControl::Ephemeral));
    }
    for (place, turn) in request.turns.into_iter().enumerate() {
        writer.turn(place, turn, &mut messages);
    }
    if dialect == Dialect::Anthropic {
        let inputs = messages.iter_mut().rev().filter(|one| matches!(one.role, ChatRole::User | ChatRole::Tool));
        inputs.take(CACHED_TURNS).for_each(|message| message.options = Some(CacheControl::Ephemeral.into()));
        return ChatRequest::from_messages(messages);
    }
    let chat = ChatRequest::from_messages(messages);
    if request.system.is_empty() { chat } else { chat.with_system(request.system) }
}

struct Writer<'a> {
    dialect: Dialect,
    peer: &'a Peer<'a>,
    sees_images: bool,
    /// Whether reasoning is sent back at all.
    has_reasoning: bool,
    /// The turn that the model shall answer.
    last: usize,
    /// The turn that began the present loop of calls and results.
    loop_start: usize,
}

impl Writer<'_> {
    fn turn(&self, place: usize, turn: Turn, messages: &mut Vec<ChatMessage>) {
        match turn {
            Turn::System(text) => messages.push(ChatMessage::system(text)),
            Turn::User(pieces) => {
                let mut parts: Vec<ContentPart> = pieces.into_iter().filter_map(|piece| self.piece(piece)).collect();
                if parts.is_empty() && place == self.last {
                    parts.push(ContentPart::Text(EMPTY_INPUT.to_owned()));
                }
                // An empty message is refused by Anthropic, and says nothing to others.
                if !parts.is_empty() || self.dialect != Dialect::Anthropic {
                    messages.push(ChatMessage::user(MessageContent::from_parts(parts)));
                }
            }
            Turn::Assistant(answer) => self.answer(answer, place > self.loop_start, messages),
            Turn::ToolReturns(returns) => self.returns(returns, messages),
        }
    }

    fn piece(&self, piece: Piece) -> Option<ContentPart> {
        match piece {
            Piece::Text(text) => self.text(text),
            Piece::Image(image) if self.sees_images => Some(binary(image)),
            Piece::Image(_) => Some(ContentPart::Text(IMAGE_PLACEHOLDER.to_owned())),
        }
    }

    /// A text; Anthropic refuses blank ones.
    fn text(&self, text: String) -> Option<ContentPart> {
        let is_refused = self.dialect == Dialect::Anthropic && text.trim().is_empty();
        (!is_refused).then_some(ContentPart::Text(text))
    }

    /// An earlier answer: one message, or more where the order of reasoning and text would get lost in one.
    fn answer(&self, answer: Answer, is_in_loop: bool, messages: &mut Vec<ChatMessage>) {
        let is_own = answer.made_by.as_ref().is_some_and(|model| model.provider() == self.peer.server.name);
        let mut parts: Vec<ContentPart> = Vec::new();
        let mut has_said = false;
        let close = |parts: &mut Vec<ContentPart>, messages: &mut Vec<ChatMessage>| {
            if !parts.is_empty() {
                let content = MessageContent::from_parts(std::mem::take(parts));
                messages.push(ChatMessage::assistant(content));
            }
        };
        for part in answer.parts {
            let reasoning = match part {
                AnswerPart::Text(text) => {
                    parts.extend(self.text(text));
                    has_said = true;
                    continue;
                }
                AnswerPart::Reasoning { text, signature, source: ReasoningSource::Native } => {
                    self.reasoning(text, signature, is_in_loop)
                }
                AnswerPart::Reasoning { source: ReasoningSource::Prompted, .. } => Vec::new(),
                AnswerPart::HiddenReasoning { data } => self.hidden(data),
            };
            if reasoning.is_empty() || !is_own || !self.has_reasoning {
                continue;
            }
            match self.dialect {
                // A signature goes before the text that it belongs to, and may have come after it.
                Dialect::Gemini if matches!(parts.last(), Some(ContentPart::Text(_))) => {
                    let place = parts.len() - 1;
                    parts.splice(place..place, reasoning);
                    continue;
                }
                // In one message genai would put all reasoning first.
                Dialect::Anthropic | Dialect::Responses if std::mem::take(&mut has_said) => {
                    close(&mut parts, messages);
                }
                _ => {}
            }
            parts.extend(reasoning);
        }
        parts.extend(answer.calls.into_iter().map(|call| ContentPart::ToolCall(self.call(call, is_own))));
        close(&mut parts, messages);
    }

    fn reasoning(&self, text: String, signature: Option<String>, is_in_loop: bool) -> Vec<ContentPart> {
        match (self.dialect, signature) {
            (Dialect::ChatCompletions, _) if is_in_loop => vec![ContentPart::ReasoningContent(text)],
            (Dialect::Anthropic, Some(signature)) => {
                vec![ContentPart::ThoughtSignature(signature), ContentPart::ReasoningContent(text)]
            }
            (Dialect::Responses | Dialect::Gemini, Some(signature)) => vec![ContentPart::ThoughtSignature(signature)],
            _ => Vec::new(),
        }
    }

    fn hidden(&self, data: Option<String>) -> Vec<ContentPart> {
        let Some(data) = data else { return Vec::new() };
        match self.dialect {
            Dialect::Anthropic => {
                let block = json!({"type": "redacted_thinking", "data": data});
                vec![ContentPart::from_custom(block, None)]
            }
            Dialect::ChatCompletions | Dialect::Responses | Dialect::Gemini => Vec::new(),
        }
    }

    /// An earlier call. Arguments that are no JSON object would make servers refuse the whole request, since their
    /// prompt templates walk through them: such a text is wrapped into an object. So would a name that a model made up
    /// and that no tool can have.
    fn call(&self, call: ToolCall, is_own: bool) -> genai::chat::ToolCall {
        let fn_arguments = match serde_json::from_str(&call.arguments) {
            Ok(Value::Object(arguments)) => Value::Object(arguments),
            _ => json!({"unreadable_arguments": call.arguments}),
        };
        let fn_name = if is_name(&call.name) { call.name } else { plain(&call.name, NAME_CHARS) };
        let has_signature = self.dialect == Dialect::Gemini && is_own && !call.signatures.is_empty();
        genai::chat::ToolCall {
            call_id: self.call_id(&call.id),
            fn_name,
            fn_arguments,
            thought_signatures: has_signature.then_some(call.signatures),
        }
    }

    /// The id of a call as the server takes it: that of another provider may have a form which it refuses.
    fn call_id(&self, id: &str) -> String {
        match self.dialect {
            Dialect::Gemini => id.to_owned(),
            Dialect::ChatCompletions if !self.peer.server.is_openai_itself() => id.to_owned(),
            Dialect::ChatCompletions | Dialect::Responses | Dialect::Anthropic => plain(id, CALL_ID_CHARS),
        }
    }

    fn returns(&self, returns: Vec<ToolResult>, messages: &mut Vec<ChatMessage>) {
        if self.dialect == Dialect::Anthropic {
            let parts: Vec<ContentPart> = returns.into_iter().map(|one| self.result_block(one)).collect();
            messages.push(ChatMessage::new(ChatRole::Tool, MessageContent::from_parts(parts)));
            return;
        }
        // OpenAI takes images only from the user, so they follow. Whether another server takes any is not known.
        let takes_images = match self.dialect {
            Dialect::ChatCompletions | Dialect::Responses => self.sees_images && self.peer.server.is_openai_itself(),
            Dialect::Gemini | Dialect::Anthropic => self.sees_images,
        };
        let mut images = Vec::new();
        let responses = returns.into_iter().map(|result| {
            let mut text = result.text;
            if takes_images {
                images.extend(result.images.into_iter().map(binary));
            } else {
                result.images.iter().for_each(|_| text = format!("{text}\n{IMAGE_PLACEHOLDER}"));
            }
            let response = ToolResponse::new(self.call_id(&result.call_id), text);
            ContentPart::ToolResponse(response.with_fn_name(result.name))
        });
        let mut parts: Vec<ContentPart> = responses.collect();
        match self.dialect {
            // Results and images are parts of one turn, which genai writes for the user's only.
            Dialect::Gemini if !images.is_empty() => {
                parts.extend(images);
                messages.push(ChatMessage::user(MessageContent::from_parts(parts)));
            }
            _ => {
                messages.push(ChatMessage::new(ChatRole::Tool, MessageContent::from_parts(parts)));
                if !images.is_empty() {
                    messages.push(ChatMessage::user(MessageContent::from_parts(images)));
                }
            }
        }
    }

    /// A result as Anthropic takes it. genai's own knows neither errors nor images.
    fn result_block(&self, result: ToolResult) -> ContentPart {
        let mut block = json!({"type": "tool_result", "tool_use_id": self.call_id(&result.call_id)});
        if result.is_error {
            block["is_error"] = true.into();
        }
        block["content"] = if result.images.is_empty() {
            result.text.into()
        } else {
            let images = result.images.into_iter().map(|image| {
                if self.sees_images {
                    let source = json!({"type": "base64", "media_type": image.media_type, "data": image.data});
                    json!({"type": "image", "source": source})
                } else {
                    json!({"type": "text", "text": IMAGE_PLACEHOLDER})
                }
            });
            std::iter::once(json!({"type": "text", "text": result.text})).chain(images).collect()
        };
        ContentPart::from_custom(block, None)
    }
}

fn binary(image: Image) -> ContentPart {
    ContentPart::from_binary_base64(image.media_type, image.data, None)
}

/// The last characters of a text, of a kind that every provider takes in names and ids. The end of an id is what tells it
/// from others.
fn plain(text: &str, most: usize) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let mut plain: Vec<char> = text.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    plain.drain(..plain.len().saturating_sub(most));
    plain.into_iter().collect()
}
