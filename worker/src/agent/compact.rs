//! Taking the older part of a context out when it fills the model's window (api/05 §7): when, what, and what the model
//! that summarises it is asked. Pure; the call of that model and the change of the context are not here.

use std::fmt::Write as _;

use holdfast_shared::domain::message::{Answer, AnswerPart, Body, Content, Message};
use holdfast_shared::domain::model::ModelHandle;
use holdfast_shared::domain::tool::{ToolReturn, ToolStatus};
use holdfast_shared::ports::model_client::{Piece, Turn};
use serde_json::Value;

use super::prompt::{self, result_chars};

/// What is compacted, how, and by which model: a request's settings over the agent's over these defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// What is taken out, and who summarises it.
    pub mode: Mode,
    /// The model that summarises; `None` leaves the choice to the caller.
    pub model: Option<ModelHandle>,
    /// What it is told to do, in place of the built-in text.
    pub prompt: Option<String>,
    /// Most characters of the summary.
    pub clip_chars: usize,
    /// The part of the window that a sliding compaction shall free at least, from 0 to 1.
    pub sliding_window_percentage: f64,
}

/// What is taken out, and who summarises it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The oldest messages.
    SlidingWindow,
    /// All messages.
    All,
    /// The oldest messages, summarised by the agent's own model in its own context, which its provider has in its cache.
    SelfCompactSlidingWindow,
    /// All messages, summarised in that way.
    SelfCompactAll,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::SlidingWindow,
            model: None,
            prompt: None,
            clip_chars: 50_000,
            sliding_window_percentage: 0.3,
        }
    }
}

impl Settings {
    /// Reads settings in the contract's shape (`compaction_settings`), the most important first. What is absent, null or
    /// of no use is looked for in the next, and in the defaults at last.
    #[must_use]
    pub fn read(layers: &[Option<&Value>]) -> Self {
        fn find<'v, T>(layers: &[Option<&'v Value>], name: &str, read: impl Fn(&'v Value) -> Option<T>) -> Option<T> {
            layers.iter().flatten().filter_map(|layer| layer.get(name)).find_map(read)
        }
        let default = Self::default();
        let share = |value: &Value| value.as_f64().filter(|share| (0.0..1.0).contains(share));
        let chars =
            |value: &Value| value.as_u64().and_then(|chars| usize::try_from(chars).ok()).filter(|chars| *chars > 0);
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        Self {
            mode: find(layers, "mode", |mode| Mode::parse(mode.as_str()?)).unwrap_or(default.mode),
            model: find(layers, "model", |model| ModelHandle::parse(model.as_str()?)),
            prompt: find(layers, "prompt", text),
            clip_chars: find(layers, "clip_chars", chars).unwrap_or(default.clip_chars),
            sliding_window_percentage: find(layers, "sliding_window_percentage", share)
                .unwrap_or(default.sliding_window_percentage),
        }
    }
}

impl Mode {
    /// The mode that a word stands for, if any.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "sliding_window" => Some(Self::SlidingWindow),
            "all" => Some(Self::All),
            "self_compact_sliding_window" => Some(Self::SelfCompactSlidingWindow),
            "self_compact_all" => Some(Self::SelfCompactAll),
            _ => None,
        }
    }

    /// The mode that takes everything out, if this one did not take enough; `None` if it does already.
    #[must_use]
    pub const fn wider(self) -> Option<Self> {
        match self {
            Self::SlidingWindow => Some(Self::All),
            Self::SelfCompactSlidingWindow => Some(Self::SelfCompactAll),
            Self::All | Self::SelfCompactAll => None,
        }
    }

    /// The mode that takes out as much, but shows the conversation to the model as a text.
    #[must_use]
    pub const fn by_another(self) -> Self {
        match self {
            Self::SlidingWindow | Self::SelfCompactSlidingWindow => Self::SlidingWindow,
            Self::All | Self::SelfCompactAll => Self::All,
        }
    }

    /// Whether the agent's own model summarises in its own context.
    #[must_use]
    pub const fn is_by_itself(self) -> bool {
        matches!(self, Self::SelfCompactSlidingWindow | Self::SelfCompactAll)
    }
}

/// Whether a context is so large after a step that it is compacted: more than nine tenths of the window.
#[must_use]
pub const fn should_compact(total_tokens: u64, window: u64) -> bool {
    total_tokens.saturating_mul(10) > window.saturating_mul(9)
}

/// Whether a compacted context fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// It does.
    Fits,
    /// It is still so large that it would be compacted again.
    TooLarge,
    /// No compaction helps: the system message alone is larger than the window.
    SystemTooLarge,
}

/// Whether a context fits, by the tokens of its system message and of the rest.
#[must_use]
pub const fn fit(system: u64, rest: u64, window: u64) -> Fit {
    if system > window {
        Fit::SystemTooLarge
    } else if should_compact(system.saturating_add(rest), window) {
        Fit::TooLarge
    } else {
        Fit::Fits
    }
}

/// Bytes of text in a token. Bytes rather than characters, since a character of most scripts other than Latin is more
/// than one byte and about a token by itself.
const TOKEN_BYTES: usize = 4;
/// What an image costs, whatever its size: the order of magnitude at large providers.
const IMAGE_TOKENS: usize = 1_000;
/// What a message costs besides its content.
const MESSAGE_TOKENS: usize = 4;

/// Estimates tokens of messages, by what a provider counted where it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gauge {
    /// Results are sent up to this length.
    result_chars: usize,
    /// Tokens that a provider counted, for so many estimated ones.
    measured: u64,
    estimated: u64,
}

impl Gauge {
    /// A gauge for the context of a model with this window, in tokens.
    #[must_use]
    pub fn new(window: u64) -> Self {
        Self { result_chars: result_chars(window), measured: 1, estimated: 1 }
    }

    /// The gauge after a provider counted so many tokens for these messages. It counts more than is known here, such as
    /// the tools, so a lower number is not believed: it would make the next context too large.
    #[must_use]
    pub fn measured(self, messages: &[Message], tokens: u64) -> Self {
        let estimated = estimate(messages, self.result_chars).max(1);
        Self { measured: tokens.max(estimated), estimated, ..self }
    }

    /// Tokens of messages.
    #[must_use]
    pub fn tokens(&self, messages: &[Message]) -> u64 {
        estimate(messages, self.result_chars).saturating_mul(self.measured) / self.estimated
    }
}

fn estimate(messages: &[Message], result_chars: usize) -> u64 {
    let tokens: usize = messages.iter().map(|message| message_tokens(&message.body, result_chars)).sum();
    u64::try_from(tokens).unwrap_or(u64::MAX)
}

fn message_tokens(body: &Body, result_chars: usize) -> usize {
    let content = match body {
        Body::System(content) | Body::User(content) | Body::History(content) => content_tokens(content),
        Body::Assistant(answer) | Body::ApprovalRequest(answer) => answer_tokens(answer),
        Body::ToolReturns(returns) => {
            let tokens = |one: &ToolReturn| {
                let images = one.parts.iter().flatten().filter(|part| part.get("source").is_some()).count();
                text_tokens(first_chars(&one.text, result_chars)) + images * IMAGE_TOKENS + MESSAGE_TOKENS
            };
            returns.iter().map(tokens).sum()
        }
        Body::Summary(summary) => text_tokens(&summary.text),
        Body::Note(text) => text_tokens(text),
        Body::ApprovalResponse(_) => return 0,
    };
    content + MESSAGE_TOKENS
}

const fn text_tokens(text: &str) -> usize {
    text.len().div_ceil(TOKEN_BYTES)
}

fn content_tokens(content: &Content) -> usize {
    match content {
        Content::Text(text) => text_tokens(text),
        Content::Parts(parts) => {
            let tokens = |part: &Value| part.get("text").and_then(Value::as_str).map_or(IMAGE_TOKENS, text_tokens);
            parts.iter().map(tokens).sum()
        }
    }
}

fn answer_tokens(answer: &Answer) -> usize {
    let part = |part: &AnswerPart| match part {
        AnswerPart::Text(text) | AnswerPart::Reasoning { text, .. } => text_tokens(text),
        AnswerPart::HiddenReasoning { data } => text_tokens(data.as_deref().unwrap_or_default()),
    };
    let parts: usize = answer.parts.iter().map(part).sum();
    let calls = answer.calls.iter().map(|call| text_tokens(&call.name) + text_tokens(&call.arguments) + MESSAGE_TOKENS);
    parts + calls.sum::<usize>()
}

/// Where a context is cut. The system message is in neither part: it stays.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cut<'m> {
    /// What the summary stands for, oldest first; never empty.
    pub dropped: &'m [Message],
    /// What stays after it.
    pub kept: &'m [Message],
}

/// Finds the cut of a context, whose first message is the system message; `None` if there is nothing to take out. Calls
/// stay together with their results, and calls that wait for an answer stay.
#[must_use]
pub fn plan<'m>(messages: &'m [Message], settings: &Settings, window: u64, gauge: &Gauge) -> Option<Cut<'m>> {
    let (system, _) = messages.split_at_checked(1)?;
    let latest = latest_cut(messages);
    let share = settings.sliding_window_percentage;
    let room = window as f64 * (1.0 - share);
    let fits = |at: &usize| ((gauge.tokens(system) + gauge.tokens(&messages[*at..])) as f64) < room;
    let mut cuts = sliding_cuts(messages, share);
    let sliding = settings.mode.wider().and_then(|_| cuts.find(fits));
    let at = sliding.unwrap_or(latest);
    (at > 1).then(|| Cut { dropped: &messages[1..at], kept: &messages[at..] })
}

/// The cuts that a sliding compaction tries: a tenth more than the wanted share of the messages, and then a tenth more
/// each time, moved back to where an answer of the model begins.
fn sliding_cuts(messages: &[Message], share: f64) -> impl Iterator<Item = usize> {
    let first = ((share * 100.0).round() as usize + 10).min(100);
    (first..=100).step_by(10).filter_map(move |percent| {
        let most = (messages.len() * percent + 50) / 100;
        (2..=most).rev().find(|at| begins_answer(messages, *at))
    })
}

/// Whether a model's answer, with all of its calls, begins at this place: then no result after it belongs to a call
/// before it.
fn begins_answer(messages: &[Message], at: usize) -> bool {
    match messages.get(at).map(|message| &message.body) {
        Some(Body::Assistant(_) | Body::History(_)) => true,
        Some(Body::ApprovalRequest(_)) => !continues_answer(messages, at),
        _ => false,
    }
}

/// Whether an approval request has the rest of the answer before it.
fn continues_answer(messages: &[Message], at: usize) -> bool {
    let step = |at: usize| messages.get(at).and_then(|message| message.step_id);
    at.checked_sub(1).and_then(step).is_some_and(|before| step(at) == Some(before))
}

/// The last place where a context can be cut: before the last answer if calls of it have no result yet, else at the end.
fn latest_cut(messages: &[Message]) -> usize {
    let Some(last) = (1..messages.len()).rev().find(|at| begins_answer(messages, *at)) else { return messages.len() };
    let (mut calls, mut answered) = (Vec::new(), Vec::new());
    for message in &messages[last..] {
        match &message.body {
            Body::Assistant(answer) | Body::ApprovalRequest(answer) => {
                calls.extend(answer.calls.iter().map(|call| &call.id))
            }
            Body::ToolReturns(returns) => answered.extend(returns.iter().map(|one| &one.call_id)),
            _ => {}
        }
    }
    if calls.iter().all(|call| answered.contains(call)) { messages.len() } else { last }
}

/// What the summarising model is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// The system message.
    pub system: String,
    /// The conversation.
    pub turns: Vec<Turn>,
}

/// What it is told to do, unless the settings say otherwise.
const INSTRUCTIONS: &str = "\
Summarise the earlier part of a conversation between a user and an agent that works with tools. The agent will go on \
with your summary in the place of that part, and sees nothing else of it. So keep what it needs: what the user wants and \
prefers; decisions and their reasons; facts, names, numbers, ids, paths and quotations that may matter again, exactly as \
they stand; what was done and what came of it, also what failed; and what is still open, the next step first. An earlier \
summary is part of the conversation: carry over what still holds. Leave out greetings, repetitions, and the course of \
tool calls whose result is all that counts. Write in the language of the conversation, in short paragraphs or lists, with \
the agent as 'I'. Do not answer what the user asked, and do not carry on with the work: give only the summary.";

/// What an agent is told that summarises in its own context.
const INSTRUCTIONS_TO_SELF: &str = "[Automatic message, not from the user] This conversation has become too long. Your next \
answer takes the place of all that stands above. Call no tool.";

/// Most characters of a call's arguments in a transcript.
const ARGUMENT_CHARS: usize = 500;
/// Most characters of a result in a transcript.
const RESULT_CHARS: usize = 2_000;
/// Characters of a transcript for each token of the window: three quarters of it, so that the summary has room.
const TRANSCRIPT_CHARS_PER_TOKEN: u64 = 3;

/// What to ask for a summary of what is dropped; `system` is the agent's system message, `window` that of the model that
/// is asked. An agent that summarises by itself is shown its own context, so that must fit: after a refused context ask
/// [by another](Mode::by_another).
#[must_use]
pub fn ask(settings: &Settings, system: &str, cut: &Cut<'_>, window: u64) -> Ask {
    let instructions = settings.prompt.as_deref().unwrap_or(INSTRUCTIONS);
    if settings.mode.is_by_itself() {
        let mut turns = prompt::turns(cut.dropped, result_chars(window));
        turns.push(Turn::User(vec![Piece::Text(format!("{INSTRUCTIONS_TO_SELF}\n\n{instructions}"))]));
        return Ask { system: system.to_owned(), turns };
    }
    let most_chars = usize::try_from(window.saturating_mul(TRANSCRIPT_CHARS_PER_TOKEN)).unwrap_or(usize::MAX);
    let transcript = without_middle(transcript(cut.dropped), most_chars);
    let turns = vec![Turn::User(vec![Piece::Text(format!("<conversation>\n{transcript}</conversation>"))])];
    Ask { system: instructions.to_owned(), turns }
}

/// The summary at its full length, or its start.
#[must_use]
pub fn clip(summary: &str, settings: &Settings) -> String {
    shorten(summary.trim(), settings.clip_chars)
}

/// What stands for dropped messages that no model summarised.
#[must_use]
pub fn without_summary(cut: &Cut<'_>) -> String {
    format!(
        "{} earlier messages were taken out of this context to make room, without a summary. They are still stored: \
         search the conversation for what you need of them.",
        cut.dropped.len()
    )
}

/// Messages as text for a model that does not take part in the conversation.
fn transcript(messages: &[Message]) -> String {
    let mut text = String::new();
    for message in messages {
        match &message.body {
            Body::System(content) => write_line(&mut text, "Instructions", &content.text()),
            Body::User(content) => write_line(&mut text, "User", &content.text()),
            Body::History(content) => write_line(&mut text, "Agent", &content.text()),
            Body::Assistant(answer) | Body::ApprovalRequest(answer) => write_answer(&mut text, answer),
            Body::ToolReturns(returns) => returns.iter().for_each(|one| write_result(&mut text, one)),
            Body::Summary(summary) => write_line(&mut text, "Earlier summary", &summary.text),
            // The results say what came of the answers, and notes are no part of the conversation.
            Body::ApprovalResponse(_) | Body::Note(_) => {}
        }
    }
    text
}

fn write_answer(text: &mut String, answer: &Answer) {
    for part in &answer.parts {
        if let AnswerPart::Text(said) = part {
            write_line(text, "Agent", said);
        }
    }
    for call in &answer.calls {
        write_line(text, &format!("Agent calls {}", call.name), &shorten(&call.arguments, ARGUMENT_CHARS));
    }
}

fn write_result(text: &mut String, result: &ToolReturn) {
    let verb = match result.status {
        ToolStatus::Success => "returns",
        ToolStatus::Error => "fails",
    };
    write_line(text, &format!("{} {verb}", result.name), &shorten(&result.text, RESULT_CHARS));
}

fn write_line(text: &mut String, who: &str, what: &str) {
    // Writing to a String cannot fail; the result is of no interest.
    let _ = writeln!(text, "{who}: {what}");
}

/// A text of at most so many characters; one that was cut says so.
fn shorten(text: &str, most_chars: usize) -> String {
    match text.char_indices().nth(most_chars) {
        Some(_) => format!("{}…", first_chars(text, most_chars.saturating_sub(1))),
        None => text.to_owned(),
    }
}

/// A text without its middle if it is longer than so many characters: the start says what it was about, and the end how
/// things stand.
fn without_middle(text: String, most_chars: usize) -> String {
    let chars = text.chars().count();
    if chars <= most_chars {
        return text;
    }
    let half = most_chars / 2;
    let start = first_chars(&text, half);
    let end = &text[first_chars(&text, chars - half).len()..];
    format!("{start}\n[… {} characters are left out here …]\n{end}", chars - 2 * half)
}

fn first_chars(text: &str, count: usize) -> &str {
    match text.char_indices().nth(count) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use holdfast_shared::domain::Timestamp;
    use holdfast_shared::domain::approval::CallAnswer;
    use holdfast_shared::domain::compaction::{CompactionStats, CompactionTrigger, Summary};
    use holdfast_shared::domain::ids::{AgentId, Id, MessageId, StepId};
    use holdfast_shared::domain::message::Labels;
    use holdfast_shared::domain::tool::ToolCall;
    use proptest::prelude::*;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn message(body: Body, step: Option<u128>) -> Message {
        Message {
            id: MessageId::from_uuid(Uuid::new_v4()),
            agent_id: AgentId::from_uuid(Uuid::nil()),
            run_id: None,
            step_id: step.map(|step| StepId::from_uuid(Uuid::from_u128(step))),
            body,
            labels: Labels::default(),
            created_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn text(length: usize) -> Content {
        Content::Text("x".repeat(length))
    }

    fn said(length: usize) -> Body {
        Body::Assistant(Answer { parts: vec![AnswerPart::Text("y".repeat(length))], ..Answer::default() })
    }

    fn asks(calls: &[ToolCall]) -> Answer {
        Answer { calls: calls.to_vec(), ..Answer::default() }
    }

    fn results(calls: &[ToolCall]) -> Body {
        Body::ToolReturns(calls.iter().map(|call| ToolReturn::success(call, "z".repeat(40))).collect())
    }

    fn system() -> Message {
        message(Body::System(text(40)), None)
    }

    /// Exchanges of a user's message and an answer, each of so many characters, after the system message.
    fn exchanges(count: usize, chars: usize) -> Vec<Message> {
        let exchange = |_| [message(Body::User(text(chars)), None), message(said(chars), None)];
        std::iter::once(system()).chain((0..count).flat_map(exchange)).collect()
    }

    fn cut_of(messages: &[Message], settings: &Settings, window: u64) -> Option<usize> {
        let cut = plan(messages, settings, window, &Gauge::new(window))?;
        assert_eq!(1 + cut.dropped.len() + cut.kept.len(), messages.len());
        Some(1 + cut.dropped.len())
    }

    #[test]
    fn settings_of_the_request_win_over_the_agents_over_the_defaults() {
        assert_eq!(Settings::read(&[None, None]), Settings::default());
        let request = json!({"mode": "all", "prompt": null, "clip_chars": 0, "sliding_window_percentage": 7});
        let agent = json!({
            "mode": "sliding_window", "prompt": "Short.", "clip_chars": 100, "model": "openai/small",
            "sliding_window_percentage": 0.5,
        });
        let settings = Settings::read(&[Some(&request), Some(&agent)]);
        let expected = Settings {
            mode: Mode::All,
            model: ModelHandle::parse("openai/small"),
            prompt: Some("Short.".to_owned()),
            clip_chars: 100,
            sliding_window_percentage: 0.5,
        };
        assert_eq!(settings, expected);
        let word = json!({"mode": "self_compact_sliding_window"});
        let mode = Settings::read(&[Some(&word)]).mode;
        assert_eq!((mode.is_by_itself(), mode.wider()), (true, Some(Mode::SelfCompactAll)));
    }

    #[test]
    fn a_context_over_nine_tenths_of_the_window_is_compacted() {
        assert_eq!([900, 901].map(|tokens| should_compact(tokens, 1_000)), [false, true]);
        assert_eq!(fit(10, 890, 1_000), Fit::Fits);
        assert_eq!(fit(10, 891, 1_000), Fit::TooLarge);
        assert_eq!(fit(1_000, 0, 1_000), Fit::TooLarge);
        assert_eq!(fit(1_001, 0, 1_000), Fit::SystemTooLarge);
    }

    #[test]
    fn a_sliding_cut_grows_until_the_rest_has_room() {
        let settings = Settings::default();
        // 21 messages; all but the system message of 104 tokens.
        let messages = exchanges(10, 400);
        for (window, expected) in [
            // 40 %: the cut at 8.4 moves back to the answer at 8.
            (10_000, 8),
            // 13 messages and the system message are 1366 tokens: the window's seven tenths must be more.
            (1_952, 8),
            (1_951, 10),
            // 70 %: 14.7, rounded to 15, moves back to 14.
            (1_100, 14),
            // 100 %: the last answer is as far as it goes.
            (200, 20),
            // No cut has room: everything is taken out.
            (100, 21),
        ] {
            assert_eq!(cut_of(&messages, &settings, window), Some(expected), "{window}");
        }
        let half = Settings { sliding_window_percentage: 0.5, ..Settings::default() };
        assert_eq!(cut_of(&messages, &half, 10_000), Some(12));
        let all = Settings { mode: Mode::All, ..Settings::default() };
        assert_eq!(cut_of(&messages, &all, 10_000), Some(21));
        for (name, nothing) in [("empty", vec![]), ("fresh", vec![system()])] {
            assert_eq!(cut_of(&nothing, &settings, 10), None, "{name}");
        }
    }

    #[test]
    fn calls_that_wait_stay_with_their_answer() {
        let calls = [ToolCall::new("free", "t", "{}"), ToolCall::new("gated", "t", "{}")];
        let mut messages = exchanges(2, 40);
        messages.push(message(Body::Assistant(asks(&calls[..1])), Some(1)));
        messages.push(message(Body::ApprovalRequest(asks(&calls[1..])), Some(1)));
        for mode in [Mode::All, Mode::SlidingWindow] {
            let settings = Settings { mode, ..Settings::default() };
            assert_eq!(cut_of(&messages, &settings, 1), Some(5), "{mode:?}");
        }
        // They are still there while a run answers them.
        messages.push(message(Body::ApprovalResponse(Vec::new()), None));
        let all = Settings { mode: Mode::All, ..Settings::default() };
        assert_eq!(cut_of(&messages, &all, 1), Some(5));
        messages.push(message(results(&calls), Some(1)));
        assert_eq!(cut_of(&messages, &all, 1), Some(9));
        let alone = [system(), message(Body::ApprovalRequest(asks(&calls)), Some(1))];
        assert_eq!(cut_of(&alone, &all, 1), None);
    }

    #[test]
    fn a_gauge_counts_what_is_sent_and_believes_the_provider() {
        let image = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A".repeat(90_000)}});
        let call = ToolCall::new("c", "t", "{}");
        let long = Body::ToolReturns(vec![ToolReturn::success(&call, "z".repeat(90_000))]);
        let gauge = Gauge::new(1_000);
        let of = |body: Body| gauge.tokens(&[message(body, None)]);
        assert_eq!(of(Body::User(text(400))), 104);
        assert_eq!(of(Body::User(Content::Text("語".repeat(400)))), 304);
        assert_eq!(of(Body::User(Content::Parts(vec![image]))), 1_004);
        assert_eq!(of(long), 1_258, "a result is sent up to a length");
        let messages = exchanges(4, 400);
        let estimated = gauge.tokens(&messages);
        assert_eq!(gauge.measured(&messages, 3 * estimated).tokens(&messages[..1]), 3 * 14);
        assert_eq!(gauge.measured(&messages, 1).tokens(&messages), estimated);
    }

    #[test]
    fn a_summary_is_asked_of_what_is_dropped_in_short() {
        let call = ToolCall::new("c", "look", format!("{{\"a\":\"{}\"}}", "b".repeat(900)));
        let stats = CompactionStats {
            trigger: CompactionTrigger::Manual,
            context_tokens_before: None,
            context_tokens_after: None,
            context_window: 1,
            messages_count_before: 1,
            messages_count_after: 1,
        };
        let messages = [
            system(),
            message(Body::Summary(Summary { text: "Before.".to_owned(), stats }), None),
            message(Body::User(Content::Text("Find it.".to_owned())), None),
            message(Body::Assistant(asks(std::slice::from_ref(&call))), None),
            message(Body::ToolReturns(vec![ToolReturn::error(&call, "e".repeat(9_000))]), None),
            message(Body::Note("hidden".to_owned()), None),
            message(
                Body::Assistant(Answer { parts: vec![AnswerPart::Text("Gone.".to_owned())], ..Answer::default() }),
                None,
            ),
        ];
        let cut = Cut { dropped: &messages[1..], kept: &[] };
        let settings = Settings::default();
        let asked = |settings: &Settings, window: u64| ask(settings, "Agent's.", &cut, window);
        let text = |ask: &Ask| match ask.turns.last() {
            Some(Turn::User(pieces)) => match pieces.as_slice() {
                [Piece::Text(text)] => text.clone(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        let plain = asked(&settings, 100_000);
        assert_eq!(plain.system, INSTRUCTIONS);
        let shown = text(&plain);
        let start = "<conversation>\nEarlier summary: Before.\nUser: Find it.\nAgent calls look: {\"a\":\"bbb";
        assert!(shown.starts_with(start) && shown.ends_with("Agent: Gone.\n</conversation>"), "{shown}");
        assert!(shown.contains("look fails: eee") && !shown.contains("hidden"), "{shown}");
        assert!(shown.chars().count() < ARGUMENT_CHARS + RESULT_CHARS + 200, "{shown}");

        let small = text(&asked(&settings, 100));
        assert!(small.starts_with("<conversation>\nEarlier summary") && small.contains("are left out here"), "{small}");
        assert!(small.ends_with("Gone.\n</conversation>") && small.chars().count() < 400, "{small}");

        let own = Settings { prompt: Some("Mine.".to_owned()), ..Settings::default() };
        assert_eq!(asked(&own, 100_000).system, "Mine.");
        let itself = asked(&Settings { mode: Mode::SelfCompactAll, ..own }, 100_000);
        assert_eq!((itself.system.as_str(), itself.turns.len()), ("Agent's.", 7));
        assert!(text(&itself).ends_with("\n\nMine."), "{itself:?}");
        assert!(without_summary(&cut).starts_with("6 earlier messages"));
    }

    #[test]
    fn a_long_summary_is_clipped() {
        let settings = Settings { clip_chars: 5, ..Settings::default() };
        assert_eq!(["ääää", " äääää\n", "ääääää"].map(|text| clip(text, &settings)), ["ääää", "äääää", "ääää…"]);
    }

    /// What stands in a history, in the order in which a run leaves it.
    #[derive(Debug, Clone)]
    enum Item {
        User(usize),
        System(usize),
        History(usize),
        Said(usize),
        /// Calls, of which the last ones have lost their result.
        Called {
            calls: usize,
            lost: usize,
        },
        /// Free and gated calls; the answer, if it came.
        Gated {
            free: usize,
            gated: usize,
            is_answered: bool,
        },
        Note,
    }

    fn item() -> impl Strategy<Value = Item> {
        prop_oneof![
            (1..400_usize).prop_map(Item::User),
            (1..40_usize).prop_map(Item::System),
            (1..40_usize).prop_map(Item::History),
            (1..400_usize).prop_map(Item::Said),
            (1..4_usize, 0..2_usize).prop_map(|(calls, lost)| Item::Called { calls, lost }),
            (0..3_usize, 1..3_usize, any::<bool>()).prop_map(|(free, gated, is_answered)| Item::Gated {
                free,
                gated,
                is_answered
            }),
            Just(Item::Note),
        ]
    }

    fn history(items: &[Item]) -> Vec<Message> {
        let mut messages = vec![system()];
        for (index, item) in items.iter().enumerate() {
            let step = u128::try_from(index).ok().map(|index| index + 1);
            let call = |number: usize| ToolCall::new(format!("call_{index}_{number}"), "t", "{}");
            match *item {
                Item::User(length) => messages.push(message(Body::User(text(length)), None)),
                Item::System(length) => messages.push(message(Body::System(text(length)), None)),
                Item::History(length) => messages.push(message(Body::History(text(length)), None)),
                Item::Said(length) => messages.push(message(said(length), step)),
                Item::Note => messages.push(message(Body::Note("n".to_owned()), step)),
                Item::Called { calls, lost } => {
                    let calls: Vec<_> = (0..calls).map(call).collect();
                    messages.push(message(Body::Assistant(asks(&calls)), step));
                    let known = &calls[..calls.len().saturating_sub(lost)];
                    if !known.is_empty() {
                        messages.push(message(results(known), step));
                    }
                }
                Item::Gated { free, gated, is_answered } => {
                    let calls: Vec<_> = (0..free + gated).map(call).collect();
                    let (free, gated) = calls.split_at(free);
                    if !free.is_empty() {
                        messages.push(message(Body::Assistant(asks(free)), step));
                    }
                    messages.push(message(Body::ApprovalRequest(asks(gated)), step));
                    if is_answered {
                        let approve = |call: &ToolCall| CallAnswer::Approval {
                            tool_call_id: call.id.clone(),
                            approve: true,
                            reason: None,
                        };
                        messages.push(message(Body::ApprovalResponse(gated.iter().map(approve).collect()), None));
                        let in_order: Vec<_> = gated.iter().chain(free).cloned().collect();
                        messages.push(message(results(&in_order), step));
                    }
                }
            }
        }
        messages
    }

    proptest! {
        #[test]
        fn what_stays_reads_as_it_did_before(
            items in prop::collection::vec(item(), 0..24),
            window in prop_oneof![1..3_000_u64, 3_000..100_000_u64],
            share in 0.0..0.99_f64,
            is_all in any::<bool>(),
        ) {
            let messages = history(&items);
            let mode = if is_all { Mode::All } else { Mode::SlidingWindow };
            let settings = Settings { mode, sliding_window_percentage: share, ..Settings::default() };
            let gauge = Gauge::new(window);
            let Some(cut) = plan(&messages, &settings, window, &gauge) else {
                prop_assert!(latest_cut(&messages) <= 1, "something could be taken out");
                return Ok(());
            };
            prop_assert_eq!(&messages[1..], [cut.dropped, cut.kept].concat());
            prop_assert!(!cut.dropped.is_empty());
            // No result without its call, and no call that lost a result which it had.
            let (before, after) = (prompt::turns(&messages[1..], 5_000), prompt::turns(cut.kept, 5_000));
            prop_assert!(before.ends_with(&after), "{after:?} is not the end of {before:?}");
            let stored = cut.kept.iter().map(|message| match &message.body {
                Body::ToolReturns(returns) => returns.len(),
                _ => 0,
            });
            let sent = after.iter().map(|turn| match turn {
                Turn::ToolReturns(results) => results.iter().filter(|result| result.text.contains("zzz")).count(),
                _ => 0,
            });
            prop_assert_eq!(stored.sum::<usize>(), sent.sum::<usize>());
            // A pending request stays, whole.
            if let Some(Item::Gated { free, gated, is_answered: false }) = items.last() {
                let pending = cut.kept.iter().map(|message| match &message.body {
                    Body::Assistant(answer) | Body::ApprovalRequest(answer) => answer.calls.iter()
                        .filter(|call| call.id.starts_with(&format!("call_{}_", items.len() - 1))).count(),
                    _ => 0,
                });
                prop_assert_eq!(pending.sum::<usize>(), free + gated);
            }
            // A sliding cut leaves enough room, or takes everything.
            let left = gauge.tokens(&messages[..1]) + gauge.tokens(cut.kept);
            let is_everything = 1 + cut.dropped.len() == latest_cut(&messages);
            prop_assert!(is_everything || (left as f64) < window as f64 * (1.0 - share), "{left} of {window}");
        }
    }
}
