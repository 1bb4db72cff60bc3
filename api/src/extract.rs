//! What handlers take from a request, with refusals in our shape.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use holdfast_shared::domain::Timestamp;
use holdfast_shared::domain::ids::{AgentId, BlockId, ConversationId, Id, MessageId, RunId, StepId, ToolId};
use holdfast_shared::domain::message::MessageType;
use holdfast_shared::domain::page::{Order, Page};
use holdfast_shared::domain::tenant::TenantId;
use holdfast_shared::domain::thread::ThreadScope;
use holdfast_shared::wire::read::remove_nuls;
use holdfast_shared::wire::request::message_type;
use holdfast_shared::wire::time::{self, Bound};
use serde_json::{Map, Value};

use crate::App;
use crate::error::ApiError;

/// Most rows of a page (api/00 §4).
pub(crate) const MOST_ROWS: u32 = 1000;

/// Who asks, as [`crate::auth`] found out.
pub(crate) struct Tenant(pub(crate) TenantId);

impl FromRequestParts<App> for Tenant {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, ApiError> {
        // Every route that asks for a tenant stands behind the check.
        parts.extensions.get::<TenantId>().cloned().map(Self).ok_or(ApiError::Unauthorized)
    }
}

/// The agent in the path.
pub(crate) struct AgentPath(pub(crate) AgentId);

impl FromRequestParts<App> for AgentPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let text = path_text(parts, app, "agent_id").await;
        text.and_then(|text| text.parse().ok()).map(Self).ok_or(ApiError::BadPathId(AgentId::PREFIX))
    }
}

/// The tool in the path.
pub(crate) struct ToolPath(pub(crate) ToolId);

impl FromRequestParts<App> for ToolPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let text = path_text(parts, app, "tool_id").await;
        text.and_then(|text| text.parse().ok()).map(Self).ok_or(ApiError::BadPathId(ToolId::PREFIX))
    }
}

/// The message in the path.
pub(crate) struct MessagePath(pub(crate) MessageId);

impl FromRequestParts<App> for MessagePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let text = path_text(parts, app, "message_id").await;
        text.and_then(|text| text.parse().ok()).map(Self).ok_or(ApiError::BadPathId(MessageId::PREFIX))
    }
}

/// The step in the path.
pub(crate) struct StepPath(pub(crate) StepId);

impl FromRequestParts<App> for StepPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let text = path_text(parts, app, "step_id").await;
        text.and_then(|text| text.parse().ok()).map(Self).ok_or(ApiError::BadPathId(StepId::PREFIX))
    }
}

/// The block in the path.
pub(crate) struct BlockPath(pub(crate) BlockId);

impl FromRequestParts<App> for BlockPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let text = path_text(parts, app, "block_id").await;
        text.and_then(|text| text.parse().ok()).map(Self).ok_or(ApiError::BadPathId(BlockId::PREFIX))
    }
}

/// The name in the path: of a tool, or a block's label.
pub(crate) struct NamePath(pub(crate) String);

impl FromRequestParts<App> for NamePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        path_text(parts, app, "name").await.map(Self).ok_or(ApiError::NoRoute)
    }
}

/// The conversation in the path (api/04 §8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConversationPath {
    /// One by its id.
    Conversation(ConversationId),
    /// `default`: an agent's own thread; the request says elsewhere of which agent.
    Default,
    /// The id of an agent: its own thread; a spelling that is going out of use.
    Agent(AgentId),
}

impl FromRequestParts<App> for ConversationPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let bad = ApiError::BadPathId(ConversationId::PREFIX);
        let text = path_text(parts, app, "conversation_id").await.ok_or(bad)?;
        if text == "default" {
            return Ok(Self::Default);
        }
        let conversation = text.parse().map(Self::Conversation);
        conversation.or_else(|_| text.parse().map(Self::Agent)).map_err(|_| ApiError::BadPathId(ConversationId::PREFIX))
    }
}

/// The run in the path.
pub(crate) struct RunPath(pub(crate) RunId);

impl FromRequestParts<App> for RunPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let text = path_text(parts, app, "run_id").await;
        text.and_then(|text| text.parse().ok()).map(Self).ok_or(ApiError::BadRunId)
    }
}

/// A part of the path by the name that the router gives it.
async fn path_text(parts: &mut Parts, app: &App, name: &str) -> Option<String> {
    let path = RawPathParams::from_request_parts(parts, app).await.ok()?;
    path.iter().find(|(key, _)| *key == name).map(|(_, text)| text.to_owned())
}

/// A body that must be a JSON object; what clients declare as its type does not matter.
pub(crate) struct JsonBody(pub(crate) Value);

impl FromRequest<App> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        parse_object(&read_body(request, app).await?).map(Self)
    }
}

/// A body that may be missing, which is the same as an empty object.
pub(crate) struct OptionalJsonBody(pub(crate) Value);

impl FromRequest<App> for OptionalJsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let bytes = read_body(request, app).await?;
        let is_missing = matches!(bytes.trim_ascii(), b"" | b"null");
        if is_missing { Ok(Self(Value::Object(Map::new()))) } else { parse_object(&bytes).map(Self) }
    }
}

async fn read_body(request: Request, app: &App) -> Result<Bytes, ApiError> {
    Bytes::from_request(request, app).await.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::TooLarge { limit: app.options.max_body_bytes },
        _ => ApiError::Malformed("body: could not be read".to_owned()),
    })
}

fn parse_object(bytes: &[u8]) -> Result<Value, ApiError> {
    let mut body: Value =
        serde_json::from_slice(bytes).map_err(|error| ApiError::Malformed(format!("body: not valid JSON: {error}")))?;
    if !body.is_object() {
        return Err(ApiError::Malformed("body: must be an object".to_owned()));
    }
    remove_nuls(&mut body);
    Ok(body)
}

/// The query: keys can repeat, and an empty value is an absent one.
#[derive(Debug)]
pub(crate) struct QueryFields(Vec<(String, String)>);

impl FromRequestParts<App> for QueryFields {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, ApiError> {
        let Query(fields) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|_| ApiError::Malformed("query: could not be read".to_owned()))?;
        Ok(Self::new(fields))
    }
}

impl QueryFields {
    fn new(fields: Vec<(String, String)>) -> Self {
        let clean = fields.into_iter().map(|(name, value)| (name, value.replace('\0', "")));
        Self(clean.filter(|(_, value)| !value.is_empty()).collect())
    }

    /// The value of a key; of a repeated one the last.
    pub(crate) fn one(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The values of a key that can repeat.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The words of a key that can repeat and whose values can be lists, separated by commas.
    pub(crate) fn listed<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.all(name).flat_map(|value| value.split(',')).map(str::trim).filter(|word| !word.is_empty())
    }

    /// A value of a closed set.
    pub(crate) fn word<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, ApiError> {
        self.one(name).map(|value| parse(value).ok_or_else(|| refuse(name, value))).transpose()
    }

    /// All values of a closed set.
    pub(crate) fn words<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, ApiError> {
        self.all(name).map(|value| parse(value).ok_or_else(|| refuse(name, value))).collect()
    }

    /// A boolean.
    pub(crate) fn boolean(&self, name: &str) -> Result<Option<bool>, ApiError> {
        self.word(name, |value| match value.to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        })
    }

    /// A whole number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.word(name, |value| value.parse().ok())
    }

    /// The whole numbers of a key that can repeat.
    pub(crate) fn numbers(&self, name: &str) -> Result<Vec<i64>, ApiError> {
        self.words(name, |value| value.parse().ok())
    }

    /// Refuses an order of a list that has only this one.
    pub(crate) fn check_order_by(&self, only: &str) -> Result<(), ApiError> {
        self.word("order_by", |word| (word == only).then_some(())).map(|_| ())
    }

    /// An id.
    pub(crate) fn id<I: Id>(&self, name: &str) -> Result<Option<I>, ApiError> {
        self.one(name).map(|value| read_id(name, value)).transpose()
    }

    /// The ids of a key that can repeat and whose values can be lists, separated by commas.
    pub(crate) fn ids<I: Id>(&self, name: &str) -> Result<Vec<I>, ApiError> {
        self.listed(name).map(|value| read_id(name, value)).collect()
    }

    /// The threads that `conversation_id` means: `default` is what agents have outside of conversations.
    pub(crate) fn threads(&self) -> Result<ThreadScope, ApiError> {
        Ok(match self.one("conversation_id") {
            None => ThreadScope::All,
            Some("default") => ThreadScope::Own,
            Some(id) => ThreadScope::Conversation(read_id("conversation_id", id)?),
        })
    }

    /// The order that was asked for, if any.
    pub(crate) fn order(&self) -> Result<Option<Order>, ApiError> {
        self.word("order", |value| match value {
            "asc" => Some(Order::Ascending),
            "desc" => Some(Order::Descending),
            _ => None,
        })
    }

    /// How many rows.
    pub(crate) fn limit(&self, default: u32) -> Result<u32, ApiError> {
        self.limit_up_to(default, 1000)
    }

    /// How many, from 1 on.
    pub(crate) fn limit_up_to(&self, default: u32, most: u32) -> Result<u32, ApiError> {
        let Some(value) = self.one("limit") else { return Ok(default) };
        let limit = value.parse().ok().filter(|limit| (1..=most).contains(limit));
        limit.ok_or_else(|| ApiError::Malformed(format!("query.limit: must be a whole number from 1 to {most}")))
    }

    /// One end of a span of time.
    pub(crate) fn moment(&self, name: &str, bound: Bound) -> Result<Option<Timestamp>, ApiError> {
        let read = |text| time::moment(text, bound).ok_or_else(|| refuse(name, text));
        self.one(name).map(read).transpose()
    }

    /// A page with the documented meaning.
    pub(crate) fn page<I: Id>(&self, default_limit: u32, default_order: Order) -> Result<Page<I>, ApiError> {
        Ok(Page {
            after: self.id("after")?,
            before: self.id("before")?,
            limit: self.limit(default_limit)?,
            order: self.order()?.unwrap_or(default_order),
        })
    }

    /// A page of a list of texts, which are their own cursors.
    pub(crate) fn page_of_texts(&self, default_limit: u32, default_order: Order) -> Result<Page<String>, ApiError> {
        Ok(Page {
            after: self.one("after").map(str::to_owned),
            before: self.one("before").map(str::to_owned),
            limit: self.limit(default_limit)?,
            order: self.order()?.unwrap_or(default_order),
        })
    }

    /// The kinds of messages that were asked for; `None` means all.
    pub(crate) fn message_types(&self) -> Result<Option<Vec<MessageType>>, ApiError> {
        let types = self.words("include_return_message_types", message_type)?;
        Ok((!types.is_empty()).then_some(types))
    }
}

fn read_id<I: Id>(name: &str, value: &str) -> Result<I, ApiError> {
    value.parse().map_err(|error| ApiError::Malformed(format!("query.{name}: {error}")))
}

fn refuse(name: &str, value: &str) -> ApiError {
    // The value is the client's own; a long one would only fill logs.
    let shown: String = value.chars().take(64).collect();
    ApiError::Malformed(format!("query.{name}: '{shown}' is not a value of this parameter"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_shared::domain::ids::MessageId;

    fn query(text: &str) -> QueryFields {
        let uri = format!("/x?{text}").parse().expect("a URI");
        let Query(fields) = Query::<Vec<(String, String)>>::try_from_uri(&uri).expect("a query");
        QueryFields::new(fields)
    }

    fn refusal<T: std::fmt::Debug>(result: Result<T, ApiError>) -> String {
        match result {
            Err(ApiError::Malformed(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn keys_repeat_and_empty_values_are_absent() {
        let query = query("a=1&b=&a=2");
        assert_eq!(query.all("a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!((query.one("a"), query.one("b")), (Some("2"), None));
    }

    #[test]
    fn wrong_values_name_their_parameter() {
        assert!(refusal(query("limit=0").limit(50)).starts_with("query.limit: "));
        assert!(refusal(query("order=up").order()).starts_with("query.order: "));
        assert!(refusal(query("active=maybe").boolean("active")).starts_with("query.active: "));
        assert!(refusal(query("after=message-1").id::<MessageId>("after")).starts_with("query.after: "));
        let types = query("include_return_message_types=ping").message_types();
        assert!(refusal(types).starts_with("query.include_return_message_types: "));
    }

    #[test]
    fn a_body_must_be_an_object() {
        assert!(refusal(parse_object(b"[]")).starts_with("body: must be an object"));
        assert!(refusal(parse_object(b"{\"input\": ")).starts_with("body: not valid JSON"));
        assert!(parse_object(b"{}").is_ok());
    }
}
