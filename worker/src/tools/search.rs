//! `conversation_search`: finds earlier messages of the agent (api/05 §10).

use holdfast_shared::domain::Timestamp;
use holdfast_shared::domain::builtin_tools::CONVERSATION_SEARCH;
use holdfast_shared::domain::message::{Answer, AnswerPart, Body, Message, Role};
use holdfast_shared::domain::search_words::SearchWordsError;
use holdfast_shared::domain::tool::{ToolCall, ToolReturn};
use holdfast_shared::ports::store::MessageSearch;
use holdfast_shared::wire::time::{Bound, moment};
use serde_json::{Value, json};

use super::{Arguments, ToolError};

/// Results where the call does not say.
const DEFAULT_LIMIT: u32 = 5;
/// Most results of a call.
const MAX_LIMIT: u32 = 100;
/// How many more messages are read than shown, since some of them are left out.
const SPARE: u32 = 4;

/// A search that is ready to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Search {
    /// What to ask the store for.
    pub(super) ask: MessageSearch,
    /// Most results.
    limit: usize,
}

impl Search {
    /// Reads the call's arguments.
    pub(super) fn read(call: &ToolCall) -> Result<Self, ToolError> {
        let arguments = Arguments::read(call)?;
        let limit = match arguments.integer("limit")? {
            None => DEFAULT_LIMIT,
            Some(limit) if limit < 1 => return Err(ToolError::value("limit has to be at least 1.")),
            Some(limit) => u32::try_from(limit).unwrap_or(MAX_LIMIT).min(MAX_LIMIT),
        };
        let date = |name: &str, bound: Bound| match arguments.optional_text(name)? {
            None => Ok(None),
            Some(text) => moment(&text, bound).map(Some).ok_or_else(|| {
                ToolError::value(format!("{name} has to be written as YYYY-MM-DD or YYYY-MM-DDTHH:MM, not '{text}'."))
            }),
        };
        let query = match arguments.optional_text("query")?.map(|query| query.parse()) {
            None | Some(Err(SearchWordsError::Empty)) => None,
            Some(Ok(words)) => Some(words),
            Some(Err(error @ SearchWordsError::TooMany)) => return Err(ToolError::value(format!("query {error}."))),
        };
        let ask = MessageSearch {
            query,
            roles: roles(&arguments)?,
            from: date("start_date", Bound::Start)?,
            until: date("end_date", Bound::End)?,
            limit: limit * SPARE,
        };
        Ok(Self { ask, limit: limit as usize })
    }

    /// The result from the messages that the store found, newest first.
    pub(super) fn result(&self, call: &ToolCall, found: &[Message], now: Timestamp) -> ToolReturn {
        let shown = found.iter().filter_map(|message| show(message, now));
        let results: Vec<Value> = shown.take(self.limit).collect();
        let message = match results.len() {
            0 => "No messages found.".to_owned(),
            1 => "1 message found.".to_owned(),
            count => format!("{count} messages found, newest first."),
        };
        ToolReturn::success(call, json!({"message": message, "results": results}).to_string())
    }
}

fn roles(arguments: &Arguments) -> Result<Vec<Role>, ToolError> {
    let names = arguments.texts("roles")?.unwrap_or_default();
    let mut roles = Vec::new();
    for name in names {
        let known = [Role::User, Role::Assistant, Role::Tool];
        let Some(role) = known.into_iter().find(|role| role.as_str() == name) else {
            return Err(ToolError::value(format!("'{name}' is no role; there are 'assistant', 'user' and 'tool'.")));
        };
        if !roles.contains(&role) {
            roles.push(role);
        }
    }
    Ok(roles)
}

/// A message as a result; `None` if nothing of it is to be shown.
fn show(message: &Message, now: Timestamp) -> Option<Value> {
    let content = match &message.body {
        Body::System(content) | Body::User(content) | Body::History(content) => content.text(),
        Body::Assistant(answer) | Body::ApprovalRequest(answer) => answer_text(answer),
        Body::Summary(summary) => summary.text.clone(),
        Body::ApprovalResponse(_) | Body::Note(_) => String::new(),
        // Results of searches would be found again and again, each holding the ones before.
        Body::ToolReturns(returns) => {
            let returns = returns.iter().filter(|one| one.name != CONVERSATION_SEARCH);
            returns.map(|one| format!("[{}] {}", one.name, one.text)).collect::<Vec<_>>().join("\n")
        }
    };
    (!content.is_empty()).then(|| {
        json!({
            "timestamp": message.created_at.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "time_ago": time_ago(message.created_at, now),
            "role": message.body.role().as_str(),
            "content": content,
        })
    })
}

/// What the model said and did, without its reasoning and its searches.
fn answer_text(answer: &Answer) -> String {
    let texts = answer.parts.iter().filter_map(|part| match part {
        AnswerPart::Text(text) => Some(text.clone()),
        AnswerPart::Reasoning { .. } | AnswerPart::HiddenReasoning { .. } => None,
    });
    let calls = answer.calls.iter().filter(|call| call.name != CONVERSATION_SEARCH);
    let calls = calls.map(|call| format!("[called {}] {}", call.name, call.arguments));
    texts.chain(calls).collect::<Vec<_>>().join("\n")
}

fn time_ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = (now - then).num_seconds();
    for (length, unit) in [(86_400, "day"), (3_600, "hour"), (60, "minute")] {
        match seconds / length {
            ..=0 => {}
            1 => return format!("1 {unit} ago"),
            count => return format!("{count} {unit}s ago"),
        }
    }
    "just now".to_owned()
}

#[cfg(test)]
mod tests {
    use holdfast_shared::domain::message::Content;

    use super::super::tests::{call, message, time};
    use holdfast_shared::domain::message::ReasoningSource;

    use super::*;

    fn read(arguments: &Value) -> Result<Search, String> {
        let call = call(CONVERSATION_SEARCH, &arguments.to_string());
        Search::read(&call).map_err(|error| error.into_return(&call).text)
    }

    #[test]
    fn arguments_read() {
        let none = MessageSearch { query: None, roles: Vec::new(), from: None, until: None, limit: 20 };
        for (arguments, limit, ask) in [
            (json!({}), 5, none.clone()),
            (json!({"query": "", "roles": null, "start_date": ""}), 5, none.clone()),
            (
                json!({"query": "tea", "limit": 2}),
                2,
                MessageSearch { query: "tea".parse().ok(), limit: 8, ..none.clone() },
            ),
            (json!({"limit": 100_000}), 100, MessageSearch { limit: 400, ..none.clone() }),
            (
                json!({"roles": ["tool", "user", "user"]}),
                5,
                MessageSearch { roles: vec![Role::Tool, Role::User], ..none.clone() },
            ),
            (
                json!({"start_date": "2026-03-01", "end_date": "2026-03-02"}),
                5,
                MessageSearch {
                    from: Some(time("2026-03-01T00:00:00Z")),
                    until: Some(time("2026-03-03T00:00:00Z")),
                    ..none.clone()
                },
            ),
            (
                json!({"start_date": "2026-03-01T10:30", "end_date": "2026-03-01 10:30"}),
                5,
                MessageSearch {
                    from: Some(time("2026-03-01T10:30:00Z")),
                    until: Some(time("2026-03-01T10:31:00Z")),
                    ..none.clone()
                },
            ),
            (
                json!({"start_date": "2026-03-01T10:30:05+02:00", "end_date": "2026-03-01T10:30:05"}),
                5,
                MessageSearch {
                    from: Some(time("2026-03-01T08:30:05Z")),
                    until: Some(time("2026-03-01T10:30:06Z")),
                    ..none
                },
            ),
        ] {
            assert_eq!(read(&arguments), Ok(Search { ask, limit }), "{arguments}");
        }
    }

    #[test]
    fn arguments_that_do_not_read() {
        for (arguments, expected) in [
            (json!({"limit": 0}), "ValueError: limit"),
            (json!({"limit": "five"}), "TypeError: 'limit'"),
            (json!({"query": 7}), "TypeError: 'query'"),
            (json!({"query": (0..99).map(|word| word.to_string()).collect::<Vec<_>>().join(" ")}), "ValueError: query"),
            (json!({"roles": "user"}), "TypeError: 'roles'"),
            (json!({"roles": ["system"]}), "ValueError: 'system' is no role"),
            (json!({"start_date": "yesterday"}), "ValueError: start_date"),
            (json!({"end_date": "2026-13-01"}), "ValueError: end_date"),
        ] {
            let error = read(&arguments).expect_err("an error");
            assert!(error.contains(expected), "{arguments}: {error}");
        }
    }

    #[test]
    fn results_leave_searches_out() {
        let search_call = call(CONVERSATION_SEARCH, "{}");
        let text = |text: &str| AnswerPart::Text(text.to_owned());
        let thought =
            AnswerPart::Reasoning { text: "secret".to_owned(), signature: None, source: ReasoningSource::Native };
        let answer =
            |parts: Vec<AnswerPart>, calls: Vec<ToolCall>| Body::Assistant(Answer { parts, calls, made_by: None });
        let at = "2026-03-01T12:00:00Z";
        let found = [
            message(at, Body::User(Content::Text("Tea?".to_owned()))),
            message(at, answer(vec![thought, text("Yes.")], vec![search_call.clone()])),
            message(at, answer(Vec::new(), vec![search_call.clone()])),
            message(at, answer(Vec::new(), vec![call("other", r#"{"a":1}"#)])),
            message(at, Body::ToolReturns(vec![ToolReturn::success(&search_call, "found".to_owned())])),
            message(at, Body::ToolReturns(vec![ToolReturn::success(&call("other", "{}"), "done".to_owned())])),
        ];
        let search = read(&json!({})).expect("a search");
        let result = search.result(&search_call, &found, time("2026-03-03T12:00:00Z"));
        let result: Value = serde_json::from_str(&result.text).expect("JSON");
        let contents: Vec<_> =
            result["results"].as_array().expect("results").iter().map(|one| &one["content"]).collect();
        assert_eq!(contents, ["Tea?", "Yes.", r#"[called other] {"a":1}"#, "[other] done"]);
        assert_eq!(
            result["results"][0],
            json!({"timestamp": at, "time_ago": "2 days ago", "role": "user", "content": "Tea?"})
        );
        assert_eq!(result["message"], "4 messages found, newest first.");

        let search = read(&json!({"limit": 1})).expect("a search");
        let result = search.result(&search_call, &found, time(at));
        assert!(
            result.text.starts_with(r#"{"message":"1 message found.","results":[{"timestamp":"2026-03-01T12:00:00Z""#)
        );
        assert!(search.result(&search_call, &[], time(at)).text.contains("No messages found."));
    }

    #[test]
    fn times_ago() {
        let now = time("2026-03-10T12:00:00Z");
        for (then, expected) in [
            ("2026-03-10T12:00:05Z", "just now"),
            ("2026-03-10T11:59:01Z", "just now"),
            ("2026-03-10T11:59:00Z", "1 minute ago"),
            ("2026-03-10T09:00:00Z", "3 hours ago"),
            ("2026-03-09T12:00:00Z", "1 day ago"),
        ] {
            assert_eq!(time_ago(time(then), now), expected, "{then}");
        }
    }
}
