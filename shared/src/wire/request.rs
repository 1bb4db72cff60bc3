//! The body of a send: what all three send paths take (api/01).

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::domain::approval::CallAnswer;
use crate::domain::callback::CallbackUrl;
use crate::domain::limits::DEFAULT_MAX_STEPS;
use crate::domain::message::{Body, Content, Labels, MessageType};
use crate::domain::model::ModelHandle;
use crate::domain::run::ClientSkill;
use crate::domain::tool::{self, ToolSpec, ToolStatus};
use crate::wire::read::{BodyError, Node};

/// A send whose form is right. It serializes to the same bytes for the same meaning, for the comparison of repeats.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SendRequest {
    /// What to give the agent, in order; never empty. An answer to an approval request only comes first.
    pub input: Vec<InputMessage>,
    /// Whether the run is resumable.
    pub background: bool,
    /// Deltas rather than steps.
    pub stream_tokens: bool,
    /// An opening ping, and pings rather than comments to keep the stream alive.
    pub include_pings: bool,
    /// A stream rather than one JSON answer, on the path that offers both. It does not change what is asked for.
    #[serde(skip)]
    pub streaming: bool,
    /// Most steps.
    pub max_steps: u32,
    /// Kinds of messages to show; `None` shows all.
    pub include_types: Option<Vec<MessageType>>,
    /// Legacy.
    pub use_assistant_message: bool,
    /// Legacy.
    pub assistant_message_tool_name: String,
    /// Legacy.
    pub assistant_message_tool_kwarg: String,
    /// A model for this request only.
    pub override_model: Option<ModelHandle>,
    /// A system message for this request only.
    pub override_system: Option<String>,
    /// Tools that run at the client.
    pub client_tools: Vec<ToolSpec>,
    /// Skills that the client has.
    pub client_skills: Vec<ClientSkill>,
    /// Whether compaction is shown.
    pub include_compaction_messages: bool,
    /// Where to post when the run has ended; only on the asynchronous path.
    pub callback_url: Option<CallbackUrl>,
    #[serde(skip)]
    later: Later,
}

/// What is found while the form is read and has its turn after all that concerns the form and the agent.
#[derive(Debug, Clone, PartialEq, Default)]
struct Later {
    /// What the content says that cannot be done.
    refusal: Option<BodyError>,
    /// The paths of the images that are named by their URLs: the first one for each URL. What is done with the input
    /// before its turn comes may change the places.
    image_urls: BTreeMap<String, String>,
}

/// An image that is named by its URL.
#[derive(Debug)]
pub struct UrlImage<'a> {
    /// The path of the URL's field, for refusals.
    pub path: &'a str,
    /// The source, which holds `url` and perhaps `detail`; to be replaced by one that holds the image.
    pub source: &'a mut Value,
}

/// A message given to the agent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum InputMessage {
    /// Content by role.
    Message {
        /// Who says it.
        role: InputRole,
        /// What is said.
        content: Content,
        /// What comes along.
        labels: Labels,
    },
    /// Answers to calls that wait for them.
    Answers {
        /// The answers; never empty.
        answers: Vec<CallAnswer>,
        /// What comes along.
        labels: Labels,
    },
}

impl InputMessage {
    /// What comes along.
    #[must_use]
    pub const fn labels(&self) -> &Labels {
        match self {
            Self::Message { labels, .. } | Self::Answers { labels, .. } => labels,
        }
    }
}

impl InputMessage {
    fn contents_mut(&mut self) -> Vec<&mut Content> {
        match self {
            Self::Message { content, .. } => vec![content],
            Self::Answers { answers, .. } => answers.iter_mut().filter_map(answered_content).collect(),
        }
    }
}

const fn answered_content(answer: &mut CallAnswer) -> Option<&mut Content> {
    match answer {
        CallAnswer::Return { content, .. } => Some(content),
        CallAnswer::Approval { .. } => None,
    }
}

fn url_sources(content: &mut Content) -> Vec<&mut Value> {
    match content {
        Content::Text(_) => Vec::new(),
        Content::Parts(parts) => {
            let images = parts.iter_mut().filter(|part| part["type"] == PartKind::Image.as_str());
            images.filter_map(|part| part.get_mut("source")).filter(|source| source["type"] == "url").collect()
        }
    }
}

/// Roles that input can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum InputRole {
    /// The user.
    User,
    /// Instructions.
    System,
    /// History: not answered by itself.
    Assistant,
}

impl InputRole {
    /// The message's content, by who says it.
    #[must_use]
    pub const fn body(self, content: Content) -> Body {
        match self {
            Self::User => Body::User(content),
            Self::System => Body::System(content),
            Self::Assistant => Body::History(content),
        }
    }
}

impl SendRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// The form is wrong; the text names the field.
    pub fn parse(body: &Value) -> Result<Self, BodyError> {
        let body = Node::body(body)?;
        let mut later = Later::default();
        let input = read_input(&body, &mut later)?;
        if let Some(top) = body.get("top_logprobs")
            && top.at_least(0)? > 20
        {
            return Err(top.malformed("must be at most 20"));
        }
        // Without effect here, but a value of the wrong type is still a mistake.
        body.flag("return_logprobs", false)?;
        body.flag("return_token_ids", false)?;
        body.optional_string("callback_url")?;
        Ok(Self {
            input,
            background: body.flag("background", false)?,
            stream_tokens: body.flag("stream_tokens", false)?,
            include_pings: body.flag("include_pings", true)?,
            streaming: body.flag("streaming", false)?,
            max_steps: read_max_steps(&body)?,
            include_types: body.get("include_return_message_types").map(|types| read_types(&types)).transpose()?,
            use_assistant_message: body.flag("use_assistant_message", true)?,
            assistant_message_tool_name: body
                .optional_string("assistant_message_tool_name")?
                .unwrap_or_else(|| "send_message".to_owned()),
            assistant_message_tool_kwarg: body
                .optional_string("assistant_message_tool_kwarg")?
                .unwrap_or_else(|| "message".to_owned()),
            override_model: body.get("override_model").map(|model| read_model_handle(&model)).transpose()?,
            override_system: match body.optional_string("override_system")? {
                Some(system) => Some(system),
                None => body.optional_string("system")?,
            },
            client_tools: read_list(&body, "client_tools", read_client_tool)?,
            client_skills: read_list(&body, "client_skills", read_client_skill)?,
            include_compaction_messages: body.flag("include_compaction_messages", false)?,
            callback_url: None,
            later,
        })
    }

    /// Reads the body of a send that is answered by the run (api/03 §7). The path has no stream of its own, so what is
    /// said of one counts for nothing; whoever resumes gets the opening ping.
    ///
    /// # Errors
    /// The form is wrong; the text names the field.
    pub fn parse_async(body: &Value) -> Result<Self, BodyError> {
        let request = Self::parse(body)?;
        let read =
            |node: Node<'_>| CallbackUrl::parse(node.string()?).map_err(|error| node.malformed(&error.to_string()));
        let callback_url = Node::body(body)?.get("callback_url").map(read).transpose()?;
        Ok(Self { background: true, stream_tokens: false, include_pings: true, callback_url, ..request })
    }

    /// Reads a list of messages that nothing is to answer, such as those that a new agent begins with (api/04 §1.2).
    ///
    /// # Errors
    /// The form is wrong, or a message answers a call: nothing can wait for it.
    pub fn history(list: &Node<'_>) -> Result<Self, BodyError> {
        let mut later = Later::default();
        let items = list.items()?;
        let input = items.iter().map(|item| match read_message(item, &mut later)? {
            InputMessage::Answers { .. } => Err(item.malformed("must be a message with a role: no call waits for it")),
            message @ InputMessage::Message { .. } => Ok(message),
        });
        let input = input.collect::<Result<_, _>>()?;
        Ok(Self { input, later, ..Self::parse(&json!({"input": "-"}))? })
    }

    /// Checks what the content says, after all checks of its form (api/01 §6, step 9).
    ///
    /// # Errors
    /// Something in it cannot be done.
    pub fn check_content(&self) -> Result<(), BodyError> {
        self.later.refusal.clone().map_or(Ok(()), Err)
    }

    /// The images that are named by their URLs.
    pub fn url_images(&mut self) -> Vec<UrlImage<'_>> {
        let sources = self.input.iter_mut().flat_map(InputMessage::contents_mut).flat_map(url_sources);
        let paths = &self.later.image_urls;
        let mut images = Vec::new();
        for source in sources {
            if let Some(path) = source["url"].as_str().and_then(|url| paths.get(url)) {
                images.push(UrlImage { path, source });
            }
        }
        images
    }

    /// Whether the request answers calls that wait for it.
    #[must_use]
    pub fn answers_calls(&self) -> bool {
        self.input.iter().any(|message| matches!(message, InputMessage::Answers { .. }))
    }

    /// The `otid`s of all messages, in order, if the client gave every message one.
    #[must_use]
    pub fn otids(&self) -> Option<Vec<&str>> {
        self.input.iter().map(|message| message.labels().otid.as_deref()).collect()
    }
}

/// A model handle.
///
/// # Errors
/// It is none.
pub fn read_model_handle(node: &Node<'_>) -> Result<ModelHandle, BodyError> {
    ModelHandle::parse(node.string()?).ok_or_else(|| node.malformed("must have the form 'provider/model'"))
}

/// A kind of message by its word.
#[must_use]
pub fn message_type(word: &str) -> Option<MessageType> {
    MessageType::ALL.into_iter().find(|kind| kind.as_str() == word)
}

fn read_list<T>(
    body: &Node<'_>,
    name: &str,
    read: impl Fn(&Node<'_>) -> Result<T, BodyError>,
) -> Result<Vec<T>, BodyError> {
    let Some(list) = body.get(name) else { return Ok(Vec::new()) };
    list.items()?.iter().map(read).collect()
}

fn read_max_steps(body: &Node<'_>) -> Result<u32, BodyError> {
    let Some(node) = body.get("max_steps") else { return Ok(DEFAULT_MAX_STEPS) };
    Ok(u32::try_from(node.at_least(1)?).unwrap_or(u32::MAX))
}

fn read_types(types: &Node<'_>) -> Result<Vec<MessageType>, BodyError> {
    let read = |item: &Node<'_>| {
        message_type(item.string()?).ok_or_else(|| item.malformed("is not a message type that can be asked for"))
    };
    types.items()?.iter().map(read).collect()
}

fn read_client_tool(node: &Node<'_>) -> Result<ToolSpec, BodyError> {
    let name = node.required("name")?;
    if !tool::is_name(name.string()?) {
        return Err(name.malformed("must be 1 to 64 letters, digits, '_' or '-': no model provider takes another name"));
    }
    let parameters = node.get("parameters").map(|parameters| parameters.object().map(|_| parameters.value().clone()));
    Ok(ToolSpec {
        name: name.string()?.to_owned(),
        description: node.optional_string("description")?.unwrap_or_default(),
        parameters: parameters.transpose()?.unwrap_or_else(|| json!({"type": "object", "properties": {}})),
    })
}

fn read_client_skill(node: &Node<'_>) -> Result<ClientSkill, BodyError> {
    Ok(ClientSkill {
        name: node.required_string("name")?.to_owned(),
        description: node.required_string("description")?.to_owned(),
        location: node.required_string("location")?.to_owned(),
    })
}

fn read_input(body: &Node<'_>, later: &mut Later) -> Result<Vec<InputMessage>, BodyError> {
    match (body.get("input"), body.get("messages")) {
        (Some(input), None) => {
            let content = read_content(&input, Place::Input, later)?;
            Ok(vec![InputMessage::Message { role: InputRole::User, content, labels: Labels::default() }])
        }
        (None, Some(messages)) => read_messages(&messages, later),
        (None, None) | (Some(_), Some(_)) => Err(body.malformed("give exactly one of 'input' and 'messages'")),
    }
}

fn read_messages(list: &Node<'_>, later: &mut Later) -> Result<Vec<InputMessage>, BodyError> {
    let items = list.items()?;
    if items.is_empty() {
        return Err(list.malformed("must not be empty"));
    }
    let mut messages: Vec<InputMessage> = Vec::with_capacity(items.len());
    for item in &items {
        let message = read_message(item, later)?;
        if matches!(message, InputMessage::Answers { .. }) && !messages.is_empty() {
            return Err(item.malformed("an approval or tool_return must be the first message, and the only one"));
        }
        let otid = message.labels().otid.as_deref();
        if otid.is_some() && messages.iter().any(|earlier| earlier.labels().otid.as_deref() == otid) {
            return Err(item.malformed("'otid' is used by an earlier message: each needs its own"));
        }
        messages.push(message);
    }
    Ok(messages)
}

fn read_message(node: &Node<'_>, later: &mut Later) -> Result<InputMessage, BodyError> {
    node.object()?;
    let given = node.get("type").map(|kind| kind.string()).transpose()?;
    let kind = given.unwrap_or_else(|| {
        if ["approvals", "approve", "approval_request_id"].into_iter().any(|name| node.has(name)) {
            "approval"
        } else if node.has("tool_returns") {
            "tool_return"
        } else {
            "message"
        }
    });
    let labels = Labels {
        // An empty text identifies nothing: taken for a key, it would make strangers' requests the same.
        otid: node.optional_string("otid")?.filter(|otid| !otid.is_empty()),
        name: node.optional_string("name")?,
        sender_id: node.optional_string("sender_id")?,
        group_id: node.optional_string("group_id")?,
        batch_item_id: node.optional_string("batch_item_id")?,
    };
    match kind {
        "message" => {
            let role = node.required("role")?;
            let role = match role.string()? {
                "user" => InputRole::User,
                "system" => InputRole::System,
                "assistant" => InputRole::Assistant,
                _ => return Err(role.malformed("must be 'user', 'system' or 'assistant'")),
            };
            let content = read_content(&node.required("content")?, Place::Message, later)?;
            Ok(InputMessage::Message { role, content, labels })
        }
        "approval" => Ok(InputMessage::Answers { answers: read_approvals(node, later)?, labels }),
        "tool_return" => {
            let list = node.required("tool_returns")?;
            let items = list.items()?;
            if items.is_empty() {
                return Err(list.malformed("must not be empty"));
            }
            let answers = items.iter().map(|item| read_return(item, later)).collect::<Result<_, _>>()?;
            Ok(InputMessage::Answers { answers, labels })
        }
        _ => Err(node.malformed("'type' must be 'message', 'approval' or 'tool_return'")),
    }
}

fn read_approvals(node: &Node<'_>, later: &mut Later) -> Result<Vec<CallAnswer>, BodyError> {
    let items = node.get("approvals").map_or_else(|| Ok(Vec::new()), |list| list.items())?;
    if !items.is_empty() {
        return items.iter().map(|item| read_answer(item, later)).collect();
    }
    let (Some(approve), Some(request)) = (node.get("approve"), node.get("approval_request_id")) else {
        return Err(node.malformed("give 'approvals', or 'approve' with 'approval_request_id'"));
    };
    Ok(vec![CallAnswer::Approval {
        tool_call_id: request.string()?.to_owned(),
        approve: approve.boolean()?,
        reason: node.optional_string("reason")?,
    }])
}

fn read_answer(node: &Node<'_>, later: &mut Later) -> Result<CallAnswer, BodyError> {
    node.object()?;
    let given = node.get("type").map(|kind| kind.string()).transpose()?;
    match given {
        Some("approval") => read_approval(node),
        Some("tool") => read_return(node, later),
        None if node.has("approve") => read_approval(node),
        None if node.has("tool_return") => read_return(node, later),
        None | Some(_) => Err(node.malformed("must be an approval ('approve') or a tool return ('tool_return')")),
    }
}

fn read_approval(node: &Node<'_>) -> Result<CallAnswer, BodyError> {
    Ok(CallAnswer::Approval {
        tool_call_id: node.required_string("tool_call_id")?.to_owned(),
        approve: node.required("approve")?.boolean()?,
        reason: node.optional_string("reason")?,
    })
}

fn read_return(node: &Node<'_>, later: &mut Later) -> Result<CallAnswer, BodyError> {
    node.object()?;
    if let Some(kind) = node.get("type")
        && kind.string()? != "tool"
    {
        return Err(kind.malformed("must be 'tool'"));
    }
    let status = node.required("status")?;
    let tool_return = node.required("tool_return")?;
    Ok(CallAnswer::Return {
        tool_call_id: node.required_string("tool_call_id")?.to_owned(),
        status: match status.string()? {
            "success" => ToolStatus::Success,
            "error" => ToolStatus::Error,
            _ => return Err(status.malformed("must be 'success' or 'error'")),
        },
        // A tool may well return nothing: only input must not be empty.
        content: match tool_return.value() {
            Value::String(text) => Content::Text(text.clone()),
            _ => Content::Parts(read_parts(&tool_return, Place::ToolReturn, later)?),
        },
        stdout: node.get("stdout").map(|lines| lines.strings()).transpose()?,
        stderr: node.get("stderr").map(|lines| lines.strings()).transpose()?,
    })
}

/// Where parts stand: not every kind may stand everywhere (api/01 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Input,
    Message,
    ToolReturn,
}

impl Place {
    fn allows(self, kind: PartKind) -> bool {
        match self {
            Self::Input => true,
            Self::Message => kind != PartKind::SummarizedReasoning,
            Self::ToolReturn => matches!(kind, PartKind::Text | PartKind::Image),
        }
    }
}

fn read_content(node: &Node<'_>, place: Place, later: &mut Later) -> Result<Content, BodyError> {
    match node.value() {
        Value::String(text) if text.is_empty() => Err(node.malformed("must not be empty")),
        Value::String(text) => Ok(Content::Text(text.clone())),
        Value::Array(parts) if parts.is_empty() => Err(node.malformed("must not be empty")),
        Value::Array(_) => Ok(Content::Parts(read_parts(node, place, later)?)),
        _ => Err(node.malformed("must be a string or an array of content parts")),
    }
}

fn read_parts(node: &Node<'_>, place: Place, later: &mut Later) -> Result<Vec<Value>, BodyError> {
    node.items()?.iter().map(|part| read_part(part, place, later)).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PartKind {
    Text,
    Image,
    ToolCall,
    ToolReturn,
    Reasoning,
    RedactedReasoning,
    OmittedReasoning,
    SummarizedReasoning,
}

impl PartKind {
    const ALL: [Self; 8] = [
        Self::Text,
        Self::Image,
        Self::ToolCall,
        Self::ToolReturn,
        Self::Reasoning,
        Self::RedactedReasoning,
        Self::OmittedReasoning,
        Self::SummarizedReasoning,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Image => "image",
            Self::ToolCall => "tool_call",
            Self::ToolReturn => "tool_return",
            Self::Reasoning => "reasoning",
            Self::RedactedReasoning => "redacted_reasoning",
            Self::OmittedReasoning => "omitted_reasoning",
            Self::SummarizedReasoning => "summarized_reasoning",
        }
    }

    /// The kind of a part that does not say it (api/01 §4); the order decides.
    fn infer(part: &Node<'_>, fields: &Map<String, Value>) -> Option<Self> {
        let has_all = |names: &[&str]| names.iter().all(|name| part.has(name));
        if part.has("text") {
            Some(Self::Text)
        } else if part.has("source") {
            Some(Self::Image)
        } else if has_all(&["tool_call_id", "content", "is_error"]) {
            Some(Self::ToolReturn)
        } else if has_all(&["id", "name", "input"]) {
            Some(Self::ToolCall)
        } else if has_all(&["id", "summary"]) {
            Some(Self::SummarizedReasoning)
        } else if part.has("reasoning") {
            Some(Self::Reasoning)
        } else if part.has("data") {
            Some(Self::RedactedReasoning)
        } else if fields.iter().all(|(name, value)| name == "signature" || value.is_null()) {
            Some(Self::OmittedReasoning)
        } else {
            None
        }
    }
}

fn read_part(part: &Node<'_>, place: Place, later: &mut Later) -> Result<Value, BodyError> {
    let fields = part.object()?;
    let kind = match part.get("type") {
        Some(given) => {
            let word = given.string()?;
            let kind = PartKind::ALL.into_iter().find(|kind| kind.as_str() == word);
            kind.ok_or_else(|| given.malformed("is not a kind of content part"))?
        }
        None => PartKind::infer(part, fields).ok_or_else(|| part.malformed("is no content part"))?,
    };
    if !place.allows(kind) {
        return Err(part.malformed(&format!("a part of type '{}' is not allowed here", kind.as_str())));
    }
    let mut kept = fields.clone();
    kept.insert("type".to_owned(), Value::from(kind.as_str()));
    match kind {
        PartKind::Text => {
            part.required_string("text")?;
        }
        PartKind::Image => {
            kept.insert("source".to_owned(), read_source(&part.required("source")?, later)?);
        }
        PartKind::ToolCall => {
            part.required_string("id")?;
            part.required_string("name")?;
            part.required("input")?.object()?;
        }
        PartKind::ToolReturn => {
            part.required_string("tool_call_id")?;
            part.required_string("content")?;
            part.required("is_error")?.boolean()?;
        }
        PartKind::Reasoning => {
            part.required_string("reasoning")?;
            part.required("is_native")?.boolean()?;
        }
        PartKind::RedactedReasoning => {
            part.required_string("data")?;
        }
        PartKind::OmittedReasoning => {}
        PartKind::SummarizedReasoning => {
            part.required_string("id")?;
            for item in part.required("summary")?.items()? {
                item.required("index")?.whole()?;
                item.required_string("text")?;
            }
            part.optional_string("encrypted_content")?;
        }
    }
    part.optional_string("signature")?;
    Ok(Value::Object(kept))
}

/// An image's source with its `type`. What has the right form but cannot be used is noted, not refused at once.
fn read_source(source: &Node<'_>, later: &mut Later) -> Result<Value, BodyError> {
    let mut kept = source.object()?.clone();
    let kind = match source.get("type") {
        Some(given) => match given.string()? {
            "url" => "url",
            "base64" => "base64",
            "letta" => "letta",
            _ => return Err(given.malformed("must be 'url', 'base64' or 'letta'")),
        },
        None if source.has("file_id") => "letta",
        None if source.has("data") => "base64",
        None if source.has("url") => "url",
        None => return Err(source.malformed("is no image source")),
    };
    if let Some(detail) = source.get("detail")
        && !matches!(detail.string()?, "low" | "high" | "auto")
    {
        return Err(detail.malformed("must be 'low', 'high' or 'auto'"));
    }
    let problem = match kind {
        "url" => {
            let url = source.required("url")?;
            later.image_urls.entry(url.string()?.to_owned()).or_insert_with(|| url.path().to_owned());
            let scheme = url.string()?.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
            let is_usable = matches!(scheme.as_deref(), Some("http" | "https" | "data"));
            (!is_usable).then(|| url.unacceptable("only http, https and data URLs are read"))
        }
        "base64" => {
            source.required_string("media_type")?;
            source.required_string("data")?;
            None
        }
        _ => {
            source.required_string("file_id")?;
            source.optional_string("media_type")?;
            let data = source.optional_string("data")?;
            data.is_none().then(|| source.unacceptable("a stored image must bring its 'data'"))
        }
    };
    later.refusal = later.refusal.take().or(problem);
    kept.insert("type".to_owned(), Value::from(kind));
    Ok(Value::Object(kept))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refusal(body: &Value) -> (u16, String) {
        let result = SendRequest::parse(body).and_then(|request| request.check_content().map(|()| request));
        match result {
            Ok(_) => (200, String::new()),
            Err(BodyError::Malformed(text)) => (422, text),
            Err(BodyError::Unacceptable(text)) => (400, text),
        }
    }

    fn part(part: &Value) -> Value {
        match SendRequest::parse(&json!({"input": [part]})).expect("a request").input.remove(0) {
            InputMessage::Message { content: Content::Parts(mut parts), .. } => parts.remove(0),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_shortest_body_has_all_defaults() {
        let request = SendRequest::parse(&json!({"input": "Hello", "unknown": 1, "max_steps": null})).expect("valid");
        let content = Content::Text("Hello".to_owned());
        let message = InputMessage::Message { role: InputRole::User, content, labels: Labels::default() };
        assert_eq!(request.input, [message]);
        assert_eq!((request.background, request.stream_tokens, request.include_pings), (false, false, true));
        assert_eq!((request.max_steps, request.include_types), (50, None));
        assert_eq!(request.assistant_message_tool_name, "send_message");
    }

    #[test]
    fn flags_are_read() {
        let request = SendRequest::parse(&json!({
            "input": "x", "background": true, "stream_tokens": true, "include_pings": false, "streaming": true,
            "max_steps": 5.0, "include_return_message_types": ["assistant_message", "summary_message"],
            "use_assistant_message": false, "enable_thinking": "true", "override_model": "openai/a/b",
            "override_system": "S", "include_compaction_messages": true, "return_logprobs": true, "top_logprobs": 3,
            "client_tools": [{"name": "t", "parameters": {"type": "object"}}],
            "client_skills": [{"name": "n", "description": "d", "location": "l"}],
            "callback_url": "https://example.com/",
        }))
        .expect("valid");
        assert!(request.background && request.stream_tokens && request.streaming && !request.include_pings);
        assert_eq!(request.max_steps, 5);
        let types = vec![MessageType::AssistantMessage, MessageType::SummaryMessage];
        assert_eq!(request.include_types, Some(types));
        assert_eq!(request.override_model.as_ref().map(ModelHandle::as_str), Some("openai/a/b"));
        assert_eq!((request.client_tools.len(), request.client_skills.len()), (1, 1));
    }

    #[test]
    fn a_callback_belongs_to_the_asynchronous_path() {
        let body =
            |url: Value| json!({"input": "x", "callback_url": url, "stream_tokens": true, "include_pings": false});
        let good = body(json!("https://example.com/done"));
        assert_eq!(SendRequest::parse(&good).expect("valid").callback_url, None);
        let request = SendRequest::parse_async(&good).expect("valid");
        assert_eq!(request.callback_url.as_ref().map(CallbackUrl::as_str), Some("https://example.com/done"));
        assert!(request.background && request.include_pings && !request.stream_tokens);
        assert_eq!(SendRequest::parse_async(&body(Value::Null)).expect("valid").callback_url, None);
        for bad in [json!("here"), json!("ftp://example.com/"), json!(5), json!("")] {
            let refusal = SendRequest::parse_async(&body(bad.clone())).expect_err("no URL").to_string();
            assert!(refusal.starts_with("body.callback_url: must be "), "{bad}: {refusal}");
        }
        assert!(SendRequest::parse(&body(json!("here"))).is_ok(), "it says nothing elsewhere");
        assert!(SendRequest::parse(&body(json!(5))).is_err(), "but has the right type");
    }

    #[test]
    fn kinds_of_messages_are_inferred() {
        let is_answer =
            |message: Value| SendRequest::parse(&json!({"messages": [message]})).expect("a request").answers_calls();
        assert!(!is_answer(json!({"role": "user", "content": "x"})));
        assert!(!is_answer(json!({"type": "message", "role": "assistant", "content": [{"text": "x"}], "name": null})));
        assert!(is_answer(json!({"approvals": [{"tool_call_id": "c", "approve": false, "reason": "no"}]})));
        assert!(is_answer(json!({"type": "approval", "approval_request_id": "m", "approve": true, "reason": null})));
        assert!(is_answer(json!({"approval_request_id": "m", "approve": true})));
        let returned = json!({"tool_call_id": "c", "status": "success", "tool_return": "x", "stdout": ["ok"]});
        assert!(is_answer(json!({"tool_returns": [returned]})));
        assert!(is_answer(json!({"approvals": [returned, {"tool_call_id": "d", "approve": true}]})));
        let image = json!({"source": {"type": "base64", "media_type": "image/png", "data": "AA=="}});
        let parts = json!({"tool_call_id": "c", "status": "error", "tool_return": [{"text": "shot"}, image]});
        assert!(is_answer(json!({"type": "tool_return", "otid": "o", "tool_returns": [parts]})));
    }

    #[test]
    fn an_approval_may_be_followed_by_messages() {
        let approval = json!({"approvals": [{"tool_call_id": "c", "approve": true}]});
        let body = json!({"messages": [approval, {"role": "user", "content": "x"}]});
        assert_eq!(SendRequest::parse(&body).expect("valid").input.len(), 2);
    }

    #[test]
    fn kinds_of_parts_are_inferred_and_written_down() {
        for (sent, kind) in [
            (json!({"text": "x"}), "text"),
            (json!({"text": "x", "signature": null, "type": null}), "text"),
            (json!({"source": {"url": "https://example.com/cat.png"}}), "image"),
            (json!({"tool_call_id": "c", "content": "-4", "is_error": false}), "tool_return"),
            (json!({"id": "c", "name": "n", "input": {}}), "tool_call"),
            (json!({"id": "c", "summary": [{"index": 0, "text": "x"}]}), "summarized_reasoning"),
            (json!({"reasoning": "hm", "is_native": true}), "reasoning"),
            (json!({"data": "AAAA"}), "redacted_reasoning"),
            (json!({"signature": "s"}), "omitted_reasoning"),
            (json!({}), "omitted_reasoning"),
        ] {
            assert_eq!(part(&sent)["type"], kind, "{sent}");
        }
        for (source, kind) in [
            (json!({"url": "data:image/png;base64,AA=="}), "url"),
            (json!({"data": "AA==", "media_type": "image/png", "detail": "low"}), "base64"),
            (json!({"file_id": "file-1", "data": "AA=="}), "letta"),
        ] {
            assert_eq!(part(&json!({"source": source}))["source"]["type"], kind, "{source}");
        }
    }

    #[test]
    fn images_by_url_are_found_with_their_paths_wherever_they_stand() {
        let image = |n: u8| json!({"source": {"url": format!("https://example.com/{n}.png"), "detail": "low"}});
        let inline = json!({"source": {"data": "AA==", "media_type": "image/png"}});
        let answer = |parts: Value| json!({"tool_call_id": "c", "status": "success", "tool_return": parts});
        let approval = json!({"tool_call_id": "d", "approve": true});
        for (body, expected) in [
            (json!({"input": "x"}), vec![]),
            (json!({"input": [{"text": "x"}, image(1), inline, image(2)]}), vec!["input[1]", "input[3]"]),
            (
                json!({"messages": [
                    {"tool_returns": [answer(json!("x")), answer(json!([inline, image(1)]))]},
                    {"role": "user", "content": [image(2)]},
                    {"role": "user", "content": "x"},
                    {"role": "assistant", "content": [{"text": "x"}, image(3)]},
                ]}),
                vec!["messages[0].tool_returns[1].tool_return[1]", "messages[1].content[0]", "messages[3].content[1]"],
            ),
            (
                json!({"messages": [{"approvals": [approval, answer(json!([image(1)]))]}]}),
                vec!["messages[0].approvals[1].tool_return[0]"],
            ),
        ] {
            let mut request = SendRequest::parse(&body).expect("a request");
            let found: Vec<_> = request.url_images().into_iter().map(|image| image.path.to_owned()).collect();
            let expected: Vec<_> = expected.iter().map(|path| format!("body.{path}.source.url")).collect();
            assert_eq!(found, expected, "{body}");
            for (n, image) in (1..).zip(request.url_images()) {
                assert_eq!(image.source["url"], format!("https://example.com/{n}.png"), "{body}");
                assert_eq!(image.source["detail"], "low");
            }
            // Answers that are repeated are taken out before.
            request.input.remove(0);
            let left: Vec<_> = request.url_images().into_iter().map(|image| image.path.to_owned()).collect();
            assert_eq!(left, expected[expected.len() - left.len()..], "{body}");
        }
    }

    #[test]
    fn refusals_name_the_field() {
        let message = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
        let approvals = |entry: Value| json!({"messages": [{"type": "approval", "approvals": [entry]}]});
        let input = |part: Value| json!({"input": [part]});
        let source = |source: Value| json!({"input": [{"type": "image", "source": source}]});
        let twice = json!({"role": "user", "content": "a", "otid": "same"});
        let approval = json!({"approvals": [{"tool_call_id": "c", "approve": true}]});
        for (body, status, start) in [
            (json!([]), 422, "body: must be an object"),
            (json!({}), 422, "body: give exactly one of 'input' and 'messages'"),
            (json!({"input": null, "messages": null}), 422, "body: give exactly one"),
            (json!({"input": "a", "messages": []}), 422, "body: give exactly one"),
            (json!({"input": ""}), 422, "body.input: must not be empty"),
            (json!({"input": []}), 422, "body.input: must not be empty"),
            (json!({"input": 5}), 422, "body.input: must be a string or an array"),
            (json!({"messages": []}), 422, "body.messages: must not be empty"),
            (json!({"messages": ["x"]}), 422, "body.messages[0]: must be an object"),
            (json!({"messages": [{"role": "tool", "content": "x"}]}), 422, "body.messages[0].role: "),
            (json!({"messages": [{"content": "x"}]}), 422, "body.messages[0].role: this field is required"),
            (json!({"messages": [{"role": "user"}]}), 422, "body.messages[0].content: this field is required"),
            (json!({"messages": [{"type": "banana", "role": "user", "content": "x"}]}), 422, "body.messages[0]: "),
            (message(json!("")), 422, "body.messages[0].content: must not be empty"),
            (
                message(json!([{"type": "summarized_reasoning", "id": "x", "summary": []}])),
                422,
                "body.messages[0].content[0]: ",
            ),
            (json!({"messages": [twice, twice]}), 422, "body.messages[1]: 'otid'"),
            (json!({"messages": [{"role": "user", "content": "x"}, approval]}), 422, "body.messages[1]: "),
            (json!({"messages": [approval, approval]}), 422, "body.messages[1]: "),
            (json!({"messages": [{"type": "approval"}]}), 422, "body.messages[0]: give 'approvals'"),
            (json!({"messages": [{"type": "approval", "approve": true}]}), 422, "body.messages[0]: give 'approvals'"),
            (approvals(json!({"approve": true})), 422, "body.messages[0].approvals[0].tool_call_id: "),
            (
                approvals(json!({"type": "approval", "tool_call_id": "c"})),
                422,
                "body.messages[0].approvals[0].approve: ",
            ),
            (approvals(json!({"tool_call_id": "c"})), 422, "body.messages[0].approvals[0]: "),
            (
                json!({"messages": [{"type": "tool_return", "tool_returns": []}]}),
                422,
                "body.messages[0].tool_returns: ",
            ),
            (
                json!({"messages": [{"tool_returns": [{"tool_call_id": "c", "status": "ok", "tool_return": "x"}]}]}),
                422,
                "body.messages[0].tool_returns[0].status: ",
            ),
            (
                json!({"messages": [{"tool_returns": [{"tool_call_id": "c", "status": "error", "tool_return": [{"reasoning": "x", "is_native": true}]}]}]}),
                422,
                "body.messages[0].tool_returns[0].tool_return[0]: ",
            ),
            (input(json!({"type": "video", "url": "x"})), 422, "body.input[0].type: "),
            (input(json!({"url": "x"})), 422, "body.input[0]: "),
            (input(json!({"type": "text"})), 422, "body.input[0].text: "),
            (input(json!({"type": "tool_call", "id": "c", "name": "n", "input": "{}"})), 422, "body.input[0].input: "),
            (source(json!({"type": "base64", "data": "AA"})), 422, "body.input[0].source.media_type: "),
            (source(json!({"url": "file:///srv/cat.png"})), 400, "INVALID_ARGUMENT: body.input[0].source.url: "),
            (source(json!({"url": "cat.png"})), 400, "INVALID_ARGUMENT: body.input[0].source.url: "),
            (source(json!({"file_id": "file-1"})), 400, "INVALID_ARGUMENT: body.input[0].source: "),
            (source(json!({"url": "https://x/", "detail": "huge"})), 422, "body.input[0].source.detail: "),
            (json!({"input": "x", "background": "maybe"}), 422, "body.background: must be true or false"),
            (json!({"input": "x", "max_steps": "many"}), 422, "body.max_steps: must be a whole number"),
            (json!({"input": "x", "max_steps": 1.5}), 422, "body.max_steps: must be a whole number"),
            (json!({"input": "x", "max_steps": 0}), 422, "body.max_steps: must be at least 1"),
            (json!({"input": "x", "max_steps": -1}), 422, "body.max_steps: must be at least 1"),
            (
                json!({"input": "x", "include_return_message_types": ["ping"]}),
                422,
                "body.include_return_message_types[0]: ",
            ),
            (json!({"input": "x", "override_model": "gpt"}), 422, "body.override_model: "),
            (json!({"input": "x", "top_logprobs": 21}), 422, "body.top_logprobs: "),
            (json!({"input": "x", "client_tools": [{}]}), 422, "body.client_tools[0].name: "),
            (json!({"input": "x", "client_skills": [{"name": "n"}]}), 422, "body.client_skills[0].description: "),
        ] {
            let (got, text) = refusal(&body);
            assert!(got == status && text.starts_with(start), "{body}\nexpected {status} {start}\ngot {got} {text}");
        }
    }

    #[test]
    fn an_empty_otid_is_none() {
        let request = SendRequest::parse(&json!({"messages": [
            {"role": "user", "content": "a", "otid": ""}, {"role": "user", "content": "b", "otid": ""},
        ]}));
        assert_eq!(request.expect("valid").otids(), None);
    }

    /// The contract's own samples, where they are at hand.
    #[test]
    fn the_contracts_samples_get_their_status() {
        let Some(folder) = std::env::var_os("HOLDFAST_CONTRACT_DIR") else { return };
        let requests = std::path::Path::new(&folder).join("fixtures/requests");
        let mut count = 0;
        for folder in [requests.clone(), requests.join("invalid")] {
            for entry in std::fs::read_dir(folder).expect("the folder of samples") {
                let path = entry.expect("an entry").path();
                // These two depend on the state of the agent.
                let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
                let depends = ["approval_nothing_pending", "message_while_approval_pending"].contains(&name.as_str());
                if !path.is_file() || depends {
                    continue;
                }
                let text = std::fs::read_to_string(&path).expect("a file");
                let sample: Value = serde_json::from_str(&text).expect("JSON");
                let Some(body) = sample.get("body") else { continue };
                let (status, text) = refusal(body);
                assert_eq!(Some(u64::from(status)), sample["expect_status"].as_u64(), "{name}: {text}");
                count += 1;
            }
        }
        assert!(count > 40, "only {count} samples");
    }
}
