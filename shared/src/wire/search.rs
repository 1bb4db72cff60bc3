//! Searches in messages (api/04 §7): the request, and what is told of a message that was found.

use serde::Serialize;
use serde_json::Value;

use crate::domain::Timestamp;
use crate::domain::ids::{AgentId, ConversationId, MessageId};
use crate::domain::message::{Body, Content, Message, MessageType};
use crate::domain::run::Speech;
use crate::domain::search_words::SearchWords;
use crate::domain::thread::ThreadScope;
use crate::wire::message::{Own, Shown, ShownContent, slices};
use crate::wire::read::{BodyError, Node};
use crate::wire::time::{self, Bound};

/// Results of a search that does not say.
const DEFAULT_LIMIT: u32 = 50;
/// Most results of a search, the same as rows of a page.
const MAX_LIMIT: u64 = 1000;

/// A search that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchRequest {
    /// What to look for.
    pub words: SearchWords,
    /// In this agent's messages only.
    pub agent: Option<AgentId>,
    /// In these threads only.
    pub threads: ThreadScope,
    /// Not before.
    pub from: Option<Timestamp>,
    /// Before this.
    pub until: Option<Timestamp>,
    /// Most results.
    pub limit: u32,
}

impl SearchRequest {
    /// Reads a body. Every `search_mode` is served by the same search for words.
    ///
    /// # Errors
    /// It has not the form that it should have.
    pub fn parse(body: &Value) -> Result<Self, BodyError> {
        let body = Node::body(body)?;
        if let Some(mode) = body.get("search_mode") {
            mode.one_of(&["vector", "fts", "hybrid"])?;
        }
        let limit = match body.get("limit") {
            None => DEFAULT_LIMIT,
            Some(limit) => match limit.at_least(1)? {
                number @ ..=MAX_LIMIT => u32::try_from(number).unwrap_or(DEFAULT_LIMIT),
                _ => return Err(limit.malformed("must be at most 1000")),
            },
        };
        Ok(Self {
            words: body.required("query")?.parsed()?,
            agent: body.get("agent_id").map(|agent| agent.parsed()).transpose()?,
            threads: threads(&body)?,
            from: date(&body, "start_date", Bound::Start)?,
            until: date(&body, "end_date", Bound::End)?,
            limit,
        })
    }
}

/// The threads that `conversation_id` means: `default` is what agents have outside of conversations.
fn threads(body: &Node<'_>) -> Result<ThreadScope, BodyError> {
    Ok(match body.get("conversation_id") {
        None => ThreadScope::All,
        Some(id) if id.string()? == "default" => ThreadScope::Own,
        Some(id) => ThreadScope::Conversation(id.parsed()?),
    })
}

fn date(body: &Node<'_>, name: &str, bound: Bound) -> Result<Option<Timestamp>, BodyError> {
    let Some(date) = body.get(name) else { return Ok(None) };
    time::moment(date.string()?, bound).map(Some).ok_or_else(|| date.malformed("must be a date of ISO 8601"))
}

/// A slice of a message that was found.
#[derive(Debug, Clone, Serialize)]
pub struct Found<'a> {
    message_type: MessageType,
    message_id: MessageId,
    #[serde(serialize_with = "time::serialize_elsewhere")]
    created_at: Timestamp,
    agent_id: AgentId,
    conversation_id: Option<ConversationId>,
    #[serde(flatten)]
    own: FoundOwn<'a>,
}

/// What was said.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
enum FoundOwn<'a> {
    Content(ShownContent<'a>),
    Reasoning(&'a str),
}

/// The slices of a message that have the words, of the four kinds that a search tells. Where the words are spread over
/// several slices, all that have one of them.
#[must_use]
pub fn found<'a>(
    message: &'a Message,
    conversation: Option<ConversationId>,
    speech: Option<&Speech>,
    words: &SearchWords,
) -> Vec<Found<'a>> {
    let tell = |slice| tell(message, conversation, slice);
    let told: Vec<_> = slices(message, speech).into_iter().filter_map(tell).collect();
    let (whole, rest): (Vec<_>, Vec<_>) = told.into_iter().partition(|found| words.all_occur_in(&found.text()));
    if whole.is_empty() { rest.into_iter().filter(|found| words.any_occurs_in(&found.text())).collect() } else { whole }
}

fn tell<'a>(message: &'a Message, conversation: Option<ConversationId>, slice: Shown<'a>) -> Option<Found<'a>> {
    let own = match (slice.message_type, slice.own) {
        // Clients take a plain text here, whatever was sent.
        (MessageType::SystemMessage, Own::Content { .. }) => match &message.body {
            Body::System(content) => FoundOwn::Content(system_text(content)),
            _ => return None,
        },
        (MessageType::UserMessage | MessageType::AssistantMessage, Own::Content { content }) => {
            FoundOwn::Content(content)
        }
        (MessageType::ReasoningMessage, Own::Reasoning { reasoning, .. }) => FoundOwn::Reasoning(reasoning),
        _ => return None,
    };
    Some(Found {
        message_type: slice.message_type,
        message_id: message.id,
        created_at: message.created_at,
        agent_id: message.agent_id,
        conversation_id: conversation,
        own,
    })
}

fn system_text(content: &Content) -> ShownContent<'_> {
    match content {
        Content::Text(text) => ShownContent::Text(text),
        Content::Parts(_) => ShownContent::Owned(content.text()),
    }
}

impl Found<'_> {
    fn text(&self) -> String {
        match &self.own {
            FoundOwn::Content(ShownContent::Text(text)) | FoundOwn::Reasoning(text) => (*text).to_owned(),
            FoundOwn::Content(ShownContent::Owned(text)) => text.clone(),
            FoundOwn::Content(ShownContent::Parts(parts)) => {
                let texts = parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str));
                texts.collect::<Vec<_>>().join("\n")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::message::{Answer, AnswerPart, Labels, ReasoningSource};
    use crate::domain::tool::ToolCall;
    use serde_json::json;

    fn told(body: Body, speech: Option<&Speech>, query: &str) -> Vec<Value> {
        let message = Message {
            id: "message-123e4567-e89b-42d3-8456-426614174000".parse().expect("an id"),
            agent_id: "agent-123e4567-e89b-42d3-8456-426614174000".parse().expect("an id"),
            run_id: None,
            step_id: None,
            body,
            labels: Labels::default(),
            created_at: Timestamp::from_timestamp_micros(1_768_471_200_000_007).expect("a time"),
        };
        let found = found(&message, None, speech, &query.parse().expect("words"));
        found.iter().map(|one| serde_json::to_value(one).expect("JSON")).collect()
    }

    fn answer(parts: &[(&str, bool)], calls: Vec<ToolCall>) -> Body {
        let part = |(text, is_thought): &(&str, bool)| {
            let text = (*text).to_owned();
            if *is_thought {
                AnswerPart::Reasoning { text, signature: None, source: ReasoningSource::Native }
            } else {
                AnswerPart::Text(text)
            }
        };
        Body::Assistant(Answer { parts: parts.iter().map(part).collect(), calls, made_by: None })
    }

    #[test]
    fn the_slices_with_the_words_are_told() {
        let both = || answer(&[("Is tea hot?", true), ("Tea is served.", false)], Vec::new());
        let one = told(both(), None, "SERVED tea");
        assert_eq!(
            one,
            [json!({
                "message_type": "assistant_message",
                "message_id": "message-123e4567-e89b-42d3-8456-426614174000",
                "created_at": "2026-01-15T10:00:00.000007Z",
                "agent_id": "agent-123e4567-e89b-42d3-8456-426614174000",
                "conversation_id": null,
                "content": "Tea is served.",
            })]
        );
        let kinds = |found: &[Value]| found.iter().map(|one| one["message_type"].clone()).collect::<Vec<_>>();
        assert_eq!(kinds(&told(both(), None, "tea")), ["reasoning_message", "assistant_message"]);
        assert_eq!(kinds(&told(both(), None, "hot served")), ["reasoning_message", "assistant_message"], "spread");
        assert_eq!(told(both(), None, "hot")[0]["reasoning"], "Is tea hot?");
        let parts = json!([{"type": "text", "text": "Tea,"}, {"type": "text", "text": "please."}]);
        let parts = || Content::Parts(parts.as_array().expect("a list").clone());
        assert_eq!(told(Body::System(parts()), None, "tea")[0]["content"], "Tea,\nplease.");
        assert!(told(Body::User(parts()), None, "please tea")[0]["content"].is_array());
    }

    #[test]
    fn calls_are_not_told_unless_they_are_speech() {
        let call = || ToolCall::new("call_1", "send_message", r#"{"message":"Tea?"}"#);
        assert_eq!(told(answer(&[], vec![call()]), None, "tea").len(), 0);
        let said = told(answer(&[], vec![call()]), Some(&Speech::usual()), "tea");
        assert_eq!((&said[0]["message_type"], &said[0]["content"]), (&json!("assistant_message"), &json!("Tea?")));
    }

    #[test]
    fn a_request_names_the_field_that_is_wrong() {
        let body =
            json!({"query": "Tea", "limit": 3, "search_mode": "hybrid", "end_date": "2026-03-01", "agent_id": null});
        let request = SearchRequest::parse(&body).expect("a request");
        assert_eq!((request.limit, request.agent, request.from), (3, None, None));
        assert_eq!(request.until.map(time::elsewhere).as_deref(), Some("2026-03-02T00:00:00.000000Z"));
        for (body, expected) in [
            (json!({}), "body.query: this field is required"),
            (json!({"query": " "}), "body.query: must have a word to look for"),
            (json!({"query": ["x"]}), "body.query: must be a string"),
            (json!({"query": "x", "limit": 0}), "body.limit: must be at least 1"),
            (json!({"query": "x", "limit": 1001}), "body.limit: must be at most 1000"),
            (json!({"query": "x", "limit": 1e300}), "body.limit: must be at most 1000"),
            (json!({"query": "x", "search_mode": "magic"}), "body.search_mode: must be one of"),
            (json!({"query": "x", "agent_id": "agent-1"}), "body.agent_id: String should match"),
            (json!({"query": "x", "conversation_id": "mine"}), "body.conversation_id: String should match"),
            (json!({"query": "x", "start_date": "soon"}), "body.start_date: must be a date"),
        ] {
            let refused = SearchRequest::parse(&body).expect_err("a refusal").to_string();
            assert!(refused.starts_with(expected), "{body}: {refused}");
        }
    }
}
