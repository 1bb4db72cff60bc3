//! The built-in model `holdfast/demo`: no network, no randomness, steered by directives in the last user message.
//!
//! ```text
//! [[demo tokens=200 delay_ms=50]]        that many text deltas, a pause before each
//! [[demo reasoning=20 tokens=200]]       reasoning deltas first
//! [[demo tool=NAME {"json":"arguments"}]]  a call first; the rest of the directive describes the answer after it
//! [[demo error=500]]                     fails as a provider with that HTTP status would; after `tokens`, if given
//! [[demo hang]]                          never answers, or stops answering after `tokens`
//! ```
//! Several directives in a message add up, so that several `tool` options are parallel calls; of other options given
//! twice the last one counts.

use std::time::Duration;

use futures::StreamExt as _;
use holdfast_shared::domain::message::AnswerPart;
use holdfast_shared::domain::model::ModelHandle;
use holdfast_shared::domain::usage::Usage;
use holdfast_shared::ports::model_client::{
    DeltaStream, ModelDelta, ModelError, ModelRequest, Piece, ToolResult, Turn,
};
use serde_json::Value;

use super::{clip, from_status, unusable};
use crate::agent::prompt::IMAGE_PLACEHOLDER;

const OPENING: &str = "[[demo";
const CLOSING: &str = "]]";
/// The text of a long answer, over and over.
const WORDS: [&str; 8] = ["one ", "word ", "after ", "another ", "until ", "all ", "are ", "said. "];
/// Most characters that an answer quotes of the input or of a tool's result.
const QUOTE_CHARS: usize = 120;
/// How many pieces a call's arguments come in, at most.
const ARGUMENT_FRAGMENTS: usize = 4;
const HELP: &str = "That directive cannot be read. The demo model knows [[demo tokens=200 delay_ms=50]], \
    [[demo reasoning=20]], [[demo tool=NAME {\"json\": \"arguments\"}]], [[demo error=500]] and [[demo hang]]; options can \
    be combined in one directive.";

/// The provider of the built-in model.
pub(super) struct Demo;

/// What the directives of a message ask for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Script {
    /// Tool calls to begin with: names and arguments.
    calls: Vec<(String, String)>,
    /// Deltas of reasoning.
    reasoning: u32,
    /// Deltas of text.
    tokens: Option<u32>,
    /// Pause before each delta.
    delay: Duration,
    /// What comes after the text.
    finish: Finish,
}

/// How an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Finish {
    /// As it should.
    #[default]
    End,
    /// With an error of this HTTP status.
    Error(u16),
    /// Not at all.
    Hang,
}

/// A directive that cannot be read, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Malformed(String);

impl Demo {
    /// Answers. The future itself waits for ever when asked to hang without a word: a provider that does not answer
    /// looks like that too.
    pub(super) async fn stream(&self, request: ModelRequest) -> Result<DeltaStream, ModelError> {
        if request.model.as_str() != ModelHandle::DEMO {
            return Err(unusable(format!("There is no model '{}'; the built-in one is holdfast/demo.", request.model)));
        }
        let prompt_tokens = count_words(&request);
        let last_user = request.turns.iter().rposition(|turn| matches!(turn, Turn::User(_)));
        let input = match last_user.and_then(|place| request.turns.get(place)) {
            Some(Turn::User(pieces)) => text_of(pieces),
            _ => String::new(),
        };
        let input = input.as_str();
        let returns: Vec<&ToolResult> = match last_user {
            Some(place) => request.turns[place..].iter().flat_map(returns_of).collect(),
            None => Vec::new(),
        };
        let script = match parse(input) {
            Ok(Some(script)) => script,
            Ok(None) => return Ok(play(Script::default(), texts(&greeting(input)), prompt_tokens)),
            Err(Malformed(why)) => {
                return Ok(play(Script::default(), texts(&format!("{why} {HELP}")), prompt_tokens));
            }
        };
        if !script.calls.is_empty() && returns.is_empty() {
            return Ok(call(&script.calls, request.turns.len(), prompt_tokens));
        }
        let pieces = match (script.tokens, returns.is_empty()) {
            (Some(tokens), _) => counted(tokens, mention(&returns)),
            // An error or a silence that is not to come after some text comes at once.
            (None, _) if script.finish != Finish::End => counted(0, String::new()),
            (None, false) => texts(&mention(&returns)),
            (None, true) => texts(&greeting(input)),
        };
        match script {
            Script { finish: Finish::Error(status), tokens: None, reasoning: 0, .. } => Err(failure(status)),
            Script { finish: Finish::Hang, tokens: None, reasoning: 0, .. } => std::future::pending().await,
            script => Ok(play(script, pieces, prompt_tokens)),
        }
    }
}

type Pieces = Box<dyn Iterator<Item = String> + Send>;

/// Text in one delta a word.
fn texts(text: &str) -> Pieces {
    let words: Vec<String> = text.split_inclusive(' ').map(str::to_owned).collect();
    Box::new(words.into_iter())
}

/// Exactly that many deltas; the first one is `opening`, if there is any.
fn counted(tokens: u32, opening: String) -> Pieces {
    let opening = (!opening.is_empty()).then(|| format!("{opening} "));
    let filler = WORDS.iter().cycle().map(|word| (*word).to_owned());
    Box::new(opening.into_iter().chain(filler).take(tokens as usize))
}

/// A stream of reasoning, text and the end that the script asks for.
fn play(script: Script, text: Pieces, prompt_tokens: u64) -> DeltaStream {
    let reasoning = WORDS.iter().cycle().take(script.reasoning as usize);
    let reasoning = reasoning.map(|word| ModelDelta::Reasoning((*word).to_owned()));
    let deltas = futures::stream::iter(reasoning.chain(text.map(ModelDelta::Text)));
    let delay = script.delay;
    let paced = deltas.then(move |delta| async move {
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        delta
    });
    let state = (paced.boxed(), 0u64, false);
    let reasoning_tokens = (script.reasoning > 0).then_some(u64::from(script.reasoning));
    futures::stream::unfold(state, move |(mut deltas, count, is_over)| async move {
        if is_over {
            return None;
        }
        if let Some(delta) = deltas.next().await {
            return Some((Ok(delta), (deltas, count + 1, false)));
        }
        let last = match script.finish {
            Finish::End => Ok(end(prompt_tokens, count, reasoning_tokens)),
            // As of every provider: once something was delivered, the same call is not the same any more.
            Finish::Error(status) => Err(ModelError { is_transient: false, ..failure(status) }),
            Finish::Hang => std::future::pending().await,
        };
        Some((last, (deltas, count, true)))
    })
    .boxed()
}

/// A stream of tool calls.
fn call(calls: &[(String, String)], turn: usize, prompt_tokens: u64) -> DeltaStream {
    let mut deltas = Vec::new();
    for (place, (name, arguments)) in calls.iter().enumerate() {
        // A conversation only grows, so the number of turns and the place in the answer name a call in it.
        let id = format!("call_{:08x}", ((turn << 8) | (place & 0xff)) & 0xffff_ffff);
        deltas.push(ModelDelta::CallStart { id: id.clone(), name: name.clone() });
        let fragments = fragments(arguments).into_iter();
        deltas.extend(fragments.map(|fragment| ModelDelta::CallArguments { id: id.clone(), fragment }));
    }
    let count = deltas.len() as u64;
    deltas.push(end(prompt_tokens, count, None));
    futures::stream::iter(deltas.into_iter().map(Ok)).boxed()
}

fn end(prompt_tokens: u64, completion_tokens: u64, reasoning_tokens: Option<u64>) -> ModelDelta {
    let total_tokens = prompt_tokens + completion_tokens;
    let usage = Usage { completion_tokens, prompt_tokens, total_tokens, reasoning_tokens, ..Usage::default() };
    ModelDelta::End { usage, is_cut: false }
}

fn failure(status: u16) -> ModelError {
    from_status(status, format!("The demo model was told to fail with HTTP status {status}."), None, None)
}

/// A few pieces of about the same length.
fn fragments(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let length = chars.len().div_ceil(ARGUMENT_FRAGMENTS).max(1);
    chars.chunks(length).map(|piece| piece.iter().collect()).collect()
}

/// What the model says without a directive.
fn greeting(input: &str) -> String {
    let input = input.split_whitespace().collect::<Vec<_>>().join(" ");
    if input.is_empty() {
        return "This is the built-in demo model. It has read nothing that it could answer.".to_owned();
    }
    format!("This is the built-in demo model, and it has read: \"{}\". It cannot say more than that.", quote(&input))
}

/// What the model says of tools' results; empty without any.
fn mention(returns: &[&ToolResult]) -> String {
    let mentions = returns.iter().map(|one| format!("The tool {} answered: \"{}\".", one.name, quote(&said(one))));
    mentions.collect::<Vec<_>>().join(" ")
}

/// What the tool said, without the wrapping of a result.
fn said(result: &ToolResult) -> String {
    let wrapped = serde_json::from_str::<serde_json::Value>(&result.text).ok();
    let message = wrapped.as_ref().and_then(|wrapped| wrapped.get("message")?.as_str());
    message.unwrap_or(&result.text).to_owned()
}

fn text_of(pieces: &[Piece]) -> String {
    let texts = pieces.iter().map(|piece| match piece {
        Piece::Text(text) => text.as_str(),
        Piece::Image(_) => IMAGE_PLACEHOLDER,
    });
    texts.collect::<Vec<_>>().join("\n")
}

fn quote(text: &str) -> String {
    clip(text, QUOTE_CHARS)
}

fn returns_of(turn: &Turn) -> &[ToolResult] {
    match turn {
        Turn::ToolReturns(returns) => returns,
        _ => &[],
    }
}

/// The size of the context, for want of real tokens in words.
fn count_words(request: &ModelRequest) -> u64 {
    let words = |text: &str| text.split_whitespace().count() as u64;
    let of_turn = |turn: &Turn| match turn {
        Turn::System(text) => words(text),
        Turn::User(pieces) => words(&text_of(pieces)),
        Turn::Assistant(answer) => {
            let parts = answer.parts.iter().map(|part| match part {
                AnswerPart::Text(text) | AnswerPart::Reasoning { text, .. } => words(text),
                AnswerPart::HiddenReasoning { .. } => 0,
            });
            parts.sum::<u64>() + answer.calls.iter().map(|call| 1 + words(&call.arguments)).sum::<u64>()
        }
        Turn::ToolReturns(returns) => returns.iter().map(|one| words(&one.text)).sum(),
    };
    words(&request.system) + request.turns.iter().map(of_turn).sum::<u64>()
}

/// Reads the directives of a message; `None` if it has none.
fn parse(text: &str) -> Result<Option<Script>, Malformed> {
    let mut script = None;
    let mut rest = text;
    while let Some(place) = rest.find(OPENING) {
        rest = &rest[place + OPENING.len()..];
        // Not a directive but a longer word.
        if !rest.is_empty() && !rest.starts_with(char::is_whitespace) && !rest.starts_with(CLOSING) {
            continue;
        }
        rest = options(rest, script.get_or_insert_default())?;
    }
    Ok(script)
}

/// Reads one directive's options; returns what follows it.
fn options<'a>(mut rest: &'a str, script: &mut Script) -> Result<&'a str, Malformed> {
    let mut is_empty = true;
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix(CLOSING) {
            return if is_empty { Err(Malformed("The directive says nothing.".to_owned())) } else { Ok(after) };
        }
        is_empty = false;
        let closing = rest.find(CLOSING).ok_or_else(|| Malformed("The directive does not end.".to_owned()))?;
        let end = rest.find(char::is_whitespace).map_or(closing, |space| space.min(closing));
        let (word, after) = rest.split_at(end);
        rest = after;
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "tokens" => script.tokens = Some(number(key, value)?),
            "reasoning" => script.reasoning = number(key, value)?,
            "delay_ms" => script.delay = Duration::from_millis(number::<u32>(key, value)?.into()),
            "error" => match number(key, value)? {
                status @ 400..=599 => script.finish = Finish::Error(status),
                status => return Err(Malformed(format!("{status} is no HTTP status of an error."))),
            },
            "hang" if value.is_empty() => script.finish = Finish::Hang,
            "tool" if !value.is_empty() => {
                let (arguments, after) = arguments(rest)?;
                script.calls.push((value.to_owned(), arguments));
                rest = after;
            }
            _ => return Err(Malformed(format!("It knows no '{}'.", clip(word, QUOTE_CHARS)))),
        }
    }
}

fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, Malformed> {
    value.parse().map_err(|_| Malformed(format!("'{}' is no number for {key}.", clip(value, QUOTE_CHARS))))
}

/// Reads a tool's arguments, as they were written; a call without any gets an empty object. JSON is read as JSON, since
/// it may hold the mark that ends a directive.
fn arguments(text: &str) -> Result<(String, &str), Malformed> {
    let text = text.trim_start();
    if !text.starts_with('{') {
        return Ok(("{}".to_owned(), text));
    }
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    match values.next() {
        Some(Ok(_)) => {
            let (json, after) = text.split_at(values.byte_offset());
            Ok((json.to_owned(), after))
        }
        Some(Err(error)) => Err(Malformed(format!("The tool's arguments are no JSON: {error}."))),
        None => Err(Malformed("The tool's arguments are missing.".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::{FutureExt as _, TryStreamExt as _};
    use holdfast_shared::domain::message::Answer;
    use holdfast_shared::domain::run::ErrorType;
    use holdfast_shared::domain::tool::ToolCall;
    use holdfast_shared::ports::model_client::{ModelOptions, ToolChoice};
    use tokio::time::Instant;

    use super::*;

    fn script(change: impl FnOnce(&mut Script)) -> Result<Option<Script>, Malformed> {
        let mut script = Script::default();
        change(&mut script);
        Ok(Some(script))
    }

    #[test]
    fn directives_read() {
        let calls = |calls: &[(&str, &str)]| -> Vec<(String, String)> {
            calls.iter().map(|(name, arguments)| ((*name).to_owned(), (*arguments).to_owned())).collect()
        };
        for (text, expected) in [
            ("", Ok(None)),
            ("hello [[demonstration]] there", Ok(None)),
            ("[demo tokens=1]", Ok(None)),
            (
                "[[demo tokens=200 delay_ms=50]]",
                script(|s| {
                    s.tokens = Some(200);
                    s.delay = Duration::from_millis(50);
                }),
            ),
            (
                "please [[demo  tokens=3\n reasoning=2 ]] thanks",
                script(|s| {
                    s.tokens = Some(3);
                    s.reasoning = 2;
                }),
            ),
            ("[[demo hang]]", script(|s| s.finish = Finish::Hang)),
            ("[[demo error=429]]", script(|s| s.finish = Finish::Error(429))),
            ("[[demo tokens=0]]", script(|s| s.tokens = Some(0))),
            ("[[demo tokens=1]] [[demo tokens=2]]", script(|s| s.tokens = Some(2))),
            ("[[demo tool=a]]", script(|s| s.calls = calls(&[("a", "{}")]))),
            (
                "[[demo tool=a tokens=4]]",
                script(|s| {
                    s.calls = calls(&[("a", "{}")]);
                    s.tokens = Some(4);
                }),
            ),
            (
                r#"[[demo tool=a { "x": [[1]] } tokens=4]]"#,
                script(|s| {
                    s.calls = calls(&[("a", r#"{ "x": [[1]] }"#)]);
                    s.tokens = Some(4);
                }),
            ),
            (r#"[[demo tool=a {"q":"]]"}]]"#, script(|s| s.calls = calls(&[("a", r#"{"q":"]]"}"#)]))),
            (
                r#"[[demo tool=a {}]][[demo tool=b {"y":"ä"}]]"#,
                script(|s| s.calls = calls(&[("a", "{}"), ("b", r#"{"y":"ä"}"#)])),
            ),
            ("[[demo tool=a tool=b]]", script(|s| s.calls = calls(&[("a", "{}"), ("b", "{}")]))),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn directives_that_do_not_read() {
        for text in [
            "[[demo",
            "[[demo]]",
            "[[demo tokens=5",
            "[[demo tokens]]",
            "[[demo tokens=many]]",
            "[[demo tokens=-1]]",
            "[[demo tokens=99999999999]]",
            "[[demo delay=5]]",
            "[[demo hang=5]]",
            "[[demo error=200]]",
            "[[demo error=70000]]",
            "[[demo tool=]]",
            "[[demo tool=a {x}]]",
            "[[demo tool=a {\"x\":1]]",
            "[[demo tokens=1]] and [[demo nonsense]]",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    fn request(turns: Vec<Turn>) -> ModelRequest {
        ModelRequest {
            model: ModelHandle::demo(),
            system: "three words here".to_owned(),
            turns,
            tools: Vec::new(),
            tool_choice: ToolChoice::Auto,
            options: ModelOptions::default(),
        }
    }

    fn user(text: &str) -> Turn {
        Turn::User(vec![Piece::Text(text.to_owned())])
    }

    async fn deltas(turns: Vec<Turn>) -> Vec<ModelDelta> {
        let stream = Demo.stream(request(turns)).await.expect("a stream");
        stream.try_collect().await.expect("no error")
    }

    fn text_of(deltas: &[ModelDelta]) -> String {
        let texts = deltas.iter().filter_map(|delta| match delta {
            ModelDelta::Text(text) => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_come_in_number_and_at_pace() {
        let begin = Instant::now();
        let deltas = deltas(vec![user("[[demo tokens=200 delay_ms=50 reasoning=10]]")]).await;
        assert_eq!(begin.elapsed().as_millis(), 210 * 50);
        assert_eq!(deltas.iter().filter(|delta| matches!(delta, ModelDelta::Text(_))).count(), 200);
        assert!(deltas[..10].iter().all(|delta| matches!(delta, ModelDelta::Reasoning(_))));
        let Some(ModelDelta::End { usage, is_cut: false }) = deltas.last() else { panic!("no end") };
        assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens), (7, 210, 217));
        assert_eq!(usage.reasoning_tokens, Some(10));
    }

    #[tokio::test]
    async fn without_a_directive_it_quotes() {
        let deltas = deltas(vec![user("an older one"), user("What is  the time?")]).await;
        assert!(deltas.len() > 5);
        assert!(text_of(&deltas).contains("What is the time?"));
    }

    #[tokio::test]
    async fn a_malformed_directive_is_explained() {
        let deltas = deltas(vec![user("[[demo tokens=x]]")]).await;
        assert!(text_of(&deltas).contains("[[demo tokens=200 delay_ms=50]]"));
    }

    #[tokio::test]
    async fn tools_are_called_and_their_results_mentioned() {
        let input = r#"[[demo tool=a {"x": "some words"}]] [[demo tool=b tokens=3]]"#;
        let first = deltas(vec![user(input)]).await;
        let mut calls: Vec<ToolCall> = Vec::new();
        for delta in &first {
            match delta {
                ModelDelta::CallStart { id, name } => {
                    calls.push(ToolCall::new(id.clone(), name.clone(), String::new()));
                }
                ModelDelta::CallArguments { id, fragment } => {
                    let call = calls.iter_mut().find(|call| call.id == *id).expect("a call that has begun");
                    call.arguments.push_str(fragment);
                }
                ModelDelta::End { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        let seen: Vec<_> = calls.iter().map(|call| (call.name.as_str(), call.arguments.as_str())).collect();
        assert_eq!(seen, [("a", r#"{"x": "some words"}"#), ("b", "{}")]);
        assert_eq!(calls[0].id, "call_00000100");
        assert_ne!(calls[0].id, calls[1].id);
        assert!(first.iter().filter(|delta| matches!(delta, ModelDelta::CallArguments { .. })).count() > 2);

        let returns = calls.iter().map(|call| ToolResult {
            call_id: call.id.clone(),
            name: call.name.clone(),
            is_error: false,
            text: format!("result of {}", call.name),
            images: Vec::new(),
        });
        let turns = vec![
            user(input),
            Turn::Assistant(Answer { parts: Vec::new(), calls: calls.clone(), made_by: None }),
            Turn::ToolReturns(returns.collect()),
        ];
        let second = deltas(turns.clone()).await;
        assert_eq!(second.len(), 4, "three deltas and the end");
        assert!(text_of(&second).contains("result of a") && text_of(&second).contains("result of b"));

        let again = deltas(turns.into_iter().chain([user("[[demo tool=a]]")]).collect()).await;
        let Some(ModelDelta::CallStart { id, .. }) = again.first() else { panic!("no call") };
        assert!(calls.iter().all(|call| call.id != *id), "a later call has another id");
    }

    #[tokio::test]
    async fn it_fails_as_told() {
        for (status, error_type, is_transient) in [
            (429, ErrorType::LlmRateLimit, true),
            (401, ErrorType::LlmAuthentication, false),
            (504, ErrorType::LlmTimeout, true),
            (500, ErrorType::LlmError, true),
            (400, ErrorType::LlmError, false),
        ] {
            let error = Demo.stream(request(vec![user(&format!("[[demo error={status}]]"))])).await.err();
            let error = error.expect("an error");
            assert_eq!((error.error_type, error.is_transient, error.status), (error_type, is_transient, Some(status)));
        }
        let stream = Demo.stream(request(vec![user("[[demo tokens=2 error=500]]")])).await.expect("a stream");
        let items: Vec<_> = stream.collect().await;
        assert_eq!(items.len(), 3);
        assert!(items[2].as_ref().is_err_and(|error| !error.is_transient));
    }

    #[tokio::test(start_paused = true)]
    async fn it_hangs_as_told_and_can_be_dropped() {
        let mut call = pin!(Demo.stream(request(vec![user("[[demo hang]]")])));
        assert!(tokio::time::timeout(Duration::from_secs(3600), &mut call).await.is_err());
        let mut stream = Demo.stream(request(vec![user("[[demo tokens=2 hang]]")])).await.expect("a stream");
        assert!(stream.next().await.is_some() && stream.next().await.is_some());
        assert!(stream.next().now_or_never().is_none());
    }
}
