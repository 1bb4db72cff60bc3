//! Models of any server that speaks OpenAI's chat completions, through `genai`.
//!
//! A failure before the first delta is the answer of [`OpenAi::stream`] itself, a later one the last item of the
//! stream. Errors after the first delta are never transient: a part of the answer is out, and another call would give
//! another one.

use std::collections::VecDeque;
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use genai::adapter::AdapterKind;
use genai::chat::{
    ChatMessage, ChatOptions, ChatRequest, ChatStream, ChatStreamEvent, ContentPart, MessageContent, ReasoningEffort,
    StopReason, StreamEnd, Tool, ToolName, ToolResponse,
};
use genai::resolver::{AuthData, Endpoint};
use genai::webc::StreamTimeout;
use genai::{Headers, ModelIden, ServiceTarget};
use holdfast_shared::domain::message::{Answer, AnswerPart};
use holdfast_shared::domain::run::ErrorType;
use holdfast_shared::domain::tool::ToolCall;
use holdfast_shared::domain::usage::Usage;
use holdfast_shared::ports::model_client::{
    DeltaStream, ModelDelta, ModelError, ModelRequest, Piece, ToolResult, Turn,
};
use reqwest::header::HeaderMap;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{LlmConfig, LlmSetupError, OpenAiConfig, PROVIDER_TEXT_CHARS, clip, from_status, unusable};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Most characters of a provider's own words inside a message for users.
const MESSAGE_CHARS: usize = 300;

/// The provider of an OpenAI-compatible server.
pub(super) struct OpenAi {
    client: genai::Client,
    /// Ends with a slash: without it the last segment would get lost.
    base_url: Arc<str>,
    header_timeout: Duration,
    idle_timeout: Duration,
    total_timeout: Duration,
    blame: Blame,
}

/// What errors are told with.
#[derive(Clone)]
struct Blame {
    /// The base URL without credentials.
    server: Arc<str>,
    /// To be kept out of all texts.
    api_key: Option<SecretString>,
}

impl OpenAi {
    /// Sets the provider up.
    pub(super) fn new(server: OpenAiConfig, config: &LlmConfig) -> Result<Self, LlmSetupError> {
        let wrong = || LlmSetupError::BaseUrl(clip(&server.base_url, MESSAGE_CHARS));
        let mut shown = reqwest::Url::parse(&server.base_url).map_err(|_| wrong())?;
        if !matches!(shown.scheme(), "http" | "https") {
            return Err(wrong());
        }
        // Of a URL with a host neither can fail.
        let _ = shown.set_password(None);
        let _ = shown.set_username("");
        // A redirected POST would become a GET, and could carry the key to another host.
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self {
            client: genai::Client::builder().with_reqwest(http).build().map_err(|_| wrong())?,
            base_url: format!("{}/", server.base_url.trim_end_matches('/')).into(),
            header_timeout: config.header_timeout,
            idle_timeout: config.idle_timeout,
            total_timeout: config.total_timeout,
            blame: Blame {
                server: shown.as_str().trim_end_matches('/').into(),
                api_key: server.api_key.filter(|key| !key.expose_secret().is_empty()),
            },
        })
    }

    /// Calls the model, and waits for the first delta.
    pub(super) async fn stream(&self, request: ModelRequest) -> Result<DeltaStream, ModelError> {
        let deadline = Instant::now() + self.total_timeout;
        let target = self.target(request.model.model());
        let options = self.options(&request);
        let upstream = self.client.exec_chat_stream(target, to_genai(request), Some(&options)).await;
        let upstream = upstream.map_err(|error| self.blame.explain(&error))?;
        let mut answer = Upstream {
            events: Some(upstream.stream),
            deadline,
            blame: self.blame.clone(),
            translator: Translator::default(),
            is_delivered: false,
        };
        match answer.next().await {
            Some(Ok(first)) => {
                let rest = futures::stream::unfold(answer, |mut answer| async move {
                    let item = answer.next().await?;
                    Some((item, answer))
                });
                Ok(futures::stream::once(std::future::ready(Ok(first))).chain(rest).boxed())
            }
            Some(Err(error)) => Err(error),
            None => Err(self.blame.broke_off(None)),
        }
    }

    fn target(&self, model: &str) -> ServiceTarget {
        let auth = match &self.blame.api_key {
            Some(key) => AuthData::from_single(key.expose_secret()),
            // The adapter insists on a key; overriding the whole request is its way to send none.
            None => AuthData::RequestOverride {
                url: format!("{}chat/completions", self.base_url),
                headers: Headers::default(),
            },
        };
        ServiceTarget {
            endpoint: Endpoint::from_owned(Arc::clone(&self.base_url)),
            auth,
            model: ModelIden::new(AdapterKind::OpenAI, model),
        }
    }

    fn options(&self, request: &ModelRequest) -> ChatOptions {
        let model = request.model.model();
        let mut body = json!({"model": model});
        // OpenAI's own reasoning models refuse the parameter.
        let is_unsupported = ["o1", "o3", "o4"].iter().any(|family| model.starts_with(family));
        if !request.tools.is_empty() && !is_unsupported {
            body["parallel_tool_calls"] = request.options.parallel_tool_calls.into();
        }
        let mut options = ChatOptions::default()
            .with_stream_header_timeout(self.header_timeout)
            .with_stream_read_timeout(self.idle_timeout)
            .with_capture_usage(true)
            .with_capture_content(true)
            .with_capture_reasoning_content(true)
            .with_capture_tool_calls(true)
            // The adapter reads an effort from the end of the model's name (`qwen-max`) unless one is given; this one
            // is not sent. It also cuts names at `::`, hence the name in the body.
            .with_reasoning_effort(ReasoningEffort::Budget(0))
            .with_extra_body(body);
        if let Some(temperature) = request.options.temperature {
            options = options.with_temperature(temperature);
        }
        if let Some(tokens) = request.options.max_output_tokens {
            options = options.with_max_tokens(tokens);
        }
        options
    }
}

/// The call in genai's words.
fn to_genai(request: ModelRequest) -> ChatRequest {
    // Reasoning goes back only inside the present loop of calls and results: servers that know the field want it there,
    // and some refuse it in older turns.
    let loop_start = request.turns.iter().rposition(|turn| matches!(turn, Turn::User(_))).unwrap_or(0);
    let mut messages = Vec::with_capacity(request.turns.len());
    for (place, turn) in request.turns.into_iter().enumerate() {
        match turn {
            Turn::System(text) => messages.push(ChatMessage::system(text)),
            Turn::User(pieces) => messages.push(ChatMessage::user(MessageContent::from_parts(
                pieces.into_iter().map(content_part).collect::<Vec<_>>(),
            ))),
            Turn::Assistant(answer) => messages.extend(assistant(answer, place > loop_start)),
            Turn::ToolReturns(returns) => {
                let responses: Vec<ToolResponse> = returns.iter().map(response).collect();
                messages.push(ChatMessage::from(responses));
            }
        }
    }
    let mut chat = ChatRequest::from_messages(messages);
    if !request.system.is_empty() {
        chat = chat.with_system(request.system);
    }
    if !request.tools.is_empty() {
        chat = chat.with_tools(request.tools.into_iter().map(|tool| {
            // An absent description would be sent as null, which some servers refuse.
            let description = if tool.description.is_empty() { tool.name.clone() } else { tool.description };
            Tool::new(ToolName::Custom(tool.name)).with_description(description).with_schema(tool.parameters)
        }));
    }
    chat
}

/// An earlier answer; `None` if nothing of it is to be sent.
fn assistant(answer: Answer, has_reasoning: bool) -> Option<ChatMessage> {
    let mut parts = Vec::new();
    for part in answer.parts {
        match part {
            AnswerPart::Text(text) => parts.push(ContentPart::Text(text)),
            AnswerPart::Reasoning { text, .. } if has_reasoning => parts.push(ContentPart::ReasoningContent(text)),
            AnswerPart::Reasoning { .. } | AnswerPart::HiddenReasoning { .. } => {}
        }
    }
    parts.extend(answer.calls.into_iter().map(|call| ContentPart::ToolCall(earlier_call(call))));
    (!parts.is_empty()).then(|| ChatMessage::assistant(MessageContent::from_parts(parts)))
}

/// An earlier call. Arguments that are no JSON object would make servers refuse the whole request, since their prompt
/// templates walk through them: such a text is wrapped into an object.
fn earlier_call(call: ToolCall) -> genai::chat::ToolCall {
    let fn_arguments = match serde_json::from_str(&call.arguments) {
        Ok(Value::Object(arguments)) => Value::Object(arguments),
        _ => json!({"unreadable_arguments": call.arguments}),
    };
    genai::chat::ToolCall { call_id: call.id, fn_name: call.name, fn_arguments, thought_signatures: None }
}

fn content_part(piece: Piece) -> ContentPart {
    match piece {
        Piece::Text(text) => ContentPart::Text(text),
        Piece::Image(image) => ContentPart::from_binary_base64(image.media_type, image.data, None),
    }
}

fn response(result: &ToolResult) -> ToolResponse {
    ToolResponse::new(&result.call_id, result.text.clone()).with_fn_name(&result.name)
}

/// The provider's answer as it comes.
struct Upstream {
    /// `None` once the answer is over. Dropping it closes the connection.
    events: Option<ChatStream>,
    deadline: Instant,
    blame: Blame,
    translator: Translator,
    /// Whether any delta was given out.
    is_delivered: bool,
}

impl Upstream {
    async fn next(&mut self) -> Option<Result<ModelDelta, ModelError>> {
        loop {
            if let Some(delta) = self.translator.ready.pop_front() {
                self.is_delivered = true;
                return Some(Ok(delta));
            }
            let events = self.events.as_mut()?;
            let error = match tokio::time::timeout_at(self.deadline, events.next()).await {
                Ok(Some(Ok(ChatStreamEvent::End(end)))) => {
                    self.translator.end(&end);
                    self.events = None;
                    continue;
                }
                Ok(Some(Ok(event))) => {
                    self.translator.take(event);
                    continue;
                }
                Ok(Some(Err(error))) => self.blame.explain(&error),
                Ok(None) => self.blame.broke_off(None),
                Err(_) => self.blame.timeout("did not finish its answer in the time allowed", None),
            };
            self.events = None;
            return Some(Err(ModelError { is_transient: error.is_transient && !self.is_delivered, ..error }));
        }
    }
}

/// Turns genai's events into deltas.
#[derive(Default)]
struct Translator {
    calls: Vec<CallSoFar>,
    ready: VecDeque<ModelDelta>,
}

/// A tool call that has begun.
struct CallSoFar {
    /// The id that genai knows it by.
    upstream_id: String,
    /// The id that it is given out with.
    id: String,
    name: String,
    /// What was given out of its arguments.
    arguments: String,
}

impl Translator {
    fn take(&mut self, event: ChatStreamEvent) {
        match event {
            ChatStreamEvent::Chunk(chunk) => self.ready.push_back(ModelDelta::Text(chunk.content)),
            ChatStreamEvent::ReasoningChunk(chunk) => self.ready.push_back(ModelDelta::Reasoning(chunk.content)),
            ChatStreamEvent::ThoughtSignatureChunk(chunk) => {
                self.ready.push_back(ModelDelta::ReasoningSignature(chunk.content));
            }
            ChatStreamEvent::ToolCallChunk(chunk) => self.call(&chunk.tool_call),
            ChatStreamEvent::Start | ChatStreamEvent::Heartbeat | ChatStreamEvent::End(_) => {}
        }
    }

    /// A piece of a call; its arguments are all that came so far, so a call without a name can wait for it.
    fn call(&mut self, call: &genai::chat::ToolCall) {
        if call.fn_name.is_empty() {
            return;
        }
        let so_far = call.fn_arguments.as_str().unwrap_or_default();
        let place = self.find(&call.call_id, &call.fn_name, so_far).unwrap_or_else(|| self.begin(call));
        let Some(known) = self.calls.get_mut(place) else { return };
        let Some(fragment) = so_far.strip_prefix(&known.arguments).filter(|fragment| !fragment.is_empty()) else {
            return;
        };
        self.ready.push_back(ModelDelta::CallArguments { id: known.id.clone(), fragment: fragment.to_owned() });
        known.arguments = so_far.to_owned();
    }

    /// Finds the call that a piece belongs to.
    fn find(&self, upstream_id: &str, name: &str, so_far: &str) -> Option<usize> {
        let goes_on = |call: &CallSoFar| call.name == name && so_far.starts_with(&call.arguments);
        let by_id = self.calls.iter().rposition(|call| call.upstream_id == upstream_id && goes_on(call));
        // A server that repeats the name but not the id: genai then makes the id up from the call's place.
        by_id.or_else(|| made_up(upstream_id).filter(|place| self.calls.get(*place).is_some_and(goes_on)))
    }

    fn begin(&mut self, call: &genai::chat::ToolCall) -> usize {
        let given = call.call_id.as_str();
        let is_usable = !given.is_empty() && made_up(given).is_none() && self.calls.iter().all(|one| one.id != given);
        let id = if is_usable { given.to_owned() } else { new_call_id() };
        self.ready.push_back(ModelDelta::CallStart { id: id.clone(), name: call.fn_name.clone() });
        self.calls.push(CallSoFar {
            upstream_id: given.to_owned(),
            id,
            name: call.fn_name.clone(),
            arguments: String::new(),
        });
        self.calls.len() - 1
    }

    fn end(&mut self, end: &StreamEnd) {
        let usage = end.captured_usage.as_ref().map(to_usage).unwrap_or_default();
        let is_cut = matches!(end.captured_stop_reason, Some(StopReason::MaxTokens(_)));
        self.ready.push_back(ModelDelta::End { usage, is_cut });
    }
}

/// The place in the answer that genai made an id from, since the server gave none. Only unique inside that answer, and
/// so are servers' ids that look the same: neither is given out.
fn made_up(id: &str) -> Option<usize> {
    id.strip_prefix("call_").filter(|digits| digits.len() < 4).and_then(|digits| digits.parse().ok())
}

/// An id for a call that came without one.
fn new_call_id() -> String {
    let id = uuid::Uuid::new_v4().simple().to_string();
    format!("call_{}", &id[..8])
}

fn to_usage(usage: &genai::chat::Usage) -> Usage {
    let count = |number: Option<i32>| number.and_then(|number| u64::try_from(number).ok());
    let prompt_tokens = count(usage.prompt_tokens).unwrap_or(0);
    let completion_tokens = count(usage.completion_tokens).unwrap_or(0);
    let prompt = usage.prompt_tokens_details.as_ref();
    let completion = usage.completion_tokens_details.as_ref();
    Usage {
        completion_tokens,
        prompt_tokens,
        total_tokens: count(usage.total_tokens).unwrap_or(prompt_tokens + completion_tokens),
        cached_input_tokens: prompt.and_then(|details| count(details.cached_tokens)),
        cache_write_tokens: prompt.and_then(|details| count(details.cache_creation_tokens)),
        reasoning_tokens: completion.and_then(|details| count(details.reasoning_tokens)),
    }
}

impl Blame {
    /// What a failure means, as if nothing was delivered yet.
    fn explain(&self, error: &genai::Error) -> ModelError {
        match error {
            genai::Error::HttpError { status, body, headers, .. } => self.refused(status.as_u16(), body, headers),
            // What a streaming call runs into is wrapped, also a plain refusal by status.
            genai::Error::WebStream { error, .. } => {
                let error: &(dyn StdError + 'static) = error.as_ref();
                if let Some(genai::Error::HttpError { status, body, headers, .. }) = error.downcast_ref() {
                    self.refused(status.as_u16(), body, headers)
                } else if let Some(phase) = error.downcast_ref::<StreamTimeout>() {
                    let what = match phase {
                        StreamTimeout::Headers => "did not begin to answer in time",
                        StreamTimeout::Read => "fell silent in the middle of its answer",
                    };
                    self.timeout(what, None)
                } else if let Some(error) = error.downcast_ref::<reqwest::Error>() {
                    self.transport(error)
                } else {
                    self.broke_off(Some(chain(error)))
                }
            }
            genai::Error::ChatResponse { body, .. } => self.error_object(body),
            genai::Error::StreamParse { serde_error, .. } => self.broke_off(Some(serde_error.to_string())),
            other => {
                let detail = self.words(&chain(other), PROVIDER_TEXT_CHARS);
                ModelError {
                    detail: Some(detail),
                    ..unusable("The request to the model provider could not be made.".to_owned())
                }
            }
        }
    }

    /// An HTTP status that is no success.
    fn refused(&self, status: u16, body: &str, headers: &HeaderMap) -> ModelError {
        let said = match serde_json::from_str::<Value>(body) {
            Ok(json) => words_of(&json),
            Err(_) => body.trim().to_owned(),
        };
        self.by_status(status, &said, body, retry_after(headers))
    }

    /// An error object in the middle of a stream.
    fn error_object(&self, body: &Value) -> ModelError {
        let said = words_of(body);
        let code = body.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
        match code {
            Some(status @ 400..=599) => self.by_status(status, &said, &body.to_string(), None),
            // Without a status there is nothing to tell a passing failure from a lasting one.
            _ => ModelError {
                detail: Some(self.words(&body.to_string(), PROVIDER_TEXT_CHARS)),
                is_transient: true,
                ..unusable(format!("The model provider reported an error: {}", self.words(&said, MESSAGE_CHARS)))
            },
        }
    }

    fn by_status(&self, status: u16, said: &str, body: &str, retry_after: Option<Duration>) -> ModelError {
        let what = match status {
            401 | 403 => "refused the credentials; check OPENAI_API_KEY".to_owned(),
            429 => "limits the rate of requests".to_owned(),
            _ => "could not answer".to_owned(),
        };
        let said = self.words(said, MESSAGE_CHARS);
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        let message = format!("The model provider {what} (HTTP status {status}){said}");
        let detail = (!body.is_empty()).then(|| self.words(body, PROVIDER_TEXT_CHARS));
        from_status(status, message, detail, retry_after)
    }

    /// A failure below HTTP.
    fn transport(&self, error: &reqwest::Error) -> ModelError {
        let detail = self.words(&chain(error), PROVIDER_TEXT_CHARS);
        if error.is_timeout() {
            return self.timeout("could not be reached in time", Some(detail));
        }
        if error.is_connect() {
            let advice = "check OPENAI_BASE_URL, and whether the server runs";
            let message = format!("The model provider at {} cannot be reached: {advice}.", self.server);
            return ModelError { detail: Some(detail), is_transient: true, ..unusable(message) };
        }
        if error.is_builder() {
            let message =
                "The request to the model provider could not be made: check OPENAI_BASE_URL and OPENAI_API_KEY.";
            return ModelError { detail: Some(detail), ..unusable(message.to_owned()) };
        }
        self.broke_off(Some(detail))
    }

    /// The answer ended before its end.
    fn broke_off(&self, detail: Option<String>) -> ModelError {
        let message = format!("The model provider at {} broke its answer off.", self.server);
        let detail = detail.map(|detail| self.words(&detail, PROVIDER_TEXT_CHARS));
        ModelError { detail, is_transient: true, ..unusable(message) }
    }

    fn timeout(&self, what: &str, detail: Option<String>) -> ModelError {
        let message = format!("The model provider at {} {what}.", self.server);
        ModelError { error_type: ErrorType::LlmTimeout, detail, is_transient: true, ..unusable(message) }
    }

    /// The first characters of a text that others wrote, without the key: servers quote it in their errors.
    fn words(&self, text: &str, chars: usize) -> String {
        match &self.api_key {
            Some(key) => clip(&text.replace(key.expose_secret(), "***"), chars),
            None => clip(text, chars),
        }
    }
}

/// The words in an error object, wherever the server has put them.
fn words_of(json: &Value) -> String {
    let places = ["/error/message", "/message", "/error", "/detail"];
    let words = places.iter().filter_map(|place| json.pointer(place).and_then(Value::as_str)).next();
    words.map_or_else(|| json.to_string(), str::to_owned)
}

/// How long the provider asks to wait. The form with a date is not read: it would need the same clock on both sides.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let seconds = number("retry-after-ms").map(|ms| ms / 1000.0).or_else(|| number("retry-after"))?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// An error with its causes: the outermost of an HTTP error says little.
fn chain(error: &dyn StdError) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt as _;
    use holdfast_shared::domain::message::ReasoningSource;
    use holdfast_shared::domain::model::ModelHandle;
    use holdfast_shared::domain::tool::ToolSpec;
    use holdfast_shared::models::install_tls_provider_for_tests;
    use holdfast_shared::ports::model_client::{ModelOptions, ToolChoice};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinHandle;

    use super::*;

    const KEY: &str = "sk-very-secret";
    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

    /// What a server does after it has read a request.
    enum Act {
        Send(String),
        Pause(Duration),
        /// Waits until the client closes the connection.
        AwaitClose,
    }

    /// A request as the server saw it: the head in lower case, and the body.
    struct Seen {
        head: String,
        body: Value,
    }

    fn events(lines: &[&str]) -> Act {
        Act::Send(lines.iter().map(|line| format!("{line}\n\n")).collect())
    }

    /// A server on a real socket that plays a script to the first client.
    async fn server(script: Vec<Act>) -> (OpenAi, JoinHandle<Seen>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let task = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.expect("a client");
            let seen = read_request(&mut socket).await;
            for act in script {
                match act {
                    Act::Send(text) => socket.write_all(text.as_bytes()).await.expect("a client that listens"),
                    Act::Pause(time) => tokio::time::sleep(time).await,
                    Act::AwaitClose => {
                        let read = socket.read_u8().await;
                        assert!(read.is_err(), "the client closes and says nothing more");
                    }
                }
            }
            seen
        });
        (provider(&format!("http://{address}/v1"), Some(KEY)), task)
    }

    async fn read_request(socket: &mut TcpStream) -> Seen {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.expect("a whole head"));
        }
        let head = String::from_utf8(head).expect("text").to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let mut body = vec![0; length.parse().expect("a number")];
        socket.read_exact(&mut body).await.expect("a whole body");
        Seen { head, body: serde_json::from_slice(&body).expect("JSON") }
    }

    fn provider(base_url: &str, key: Option<&str>) -> OpenAi {
        install_tls_provider_for_tests();
        let server = OpenAiConfig { base_url: base_url.to_owned(), api_key: key.map(Into::into) };
        let config = LlmConfig {
            openai: None,
            header_timeout: Duration::from_millis(600),
            idle_timeout: Duration::from_millis(600),
            total_timeout: Duration::from_millis(2500),
        };
        OpenAi::new(server, &config).expect("a provider")
    }

    fn request() -> ModelRequest {
        ModelRequest {
            model: ModelHandle::parse("openai/qwen-max").expect("a handle"),
            system: "Be brief.".to_owned(),
            turns: vec![Turn::User(vec![Piece::Text("Hello?".to_owned())])],
            tools: Vec::new(),
            tool_choice: ToolChoice::Auto,
            options: ModelOptions::default(),
        }
    }

    fn text(text: &str) -> ModelDelta {
        ModelDelta::Text(text.to_owned())
    }

    async fn answer(script: Vec<Act>) -> Vec<ModelDelta> {
        let (provider, _server) = server(script).await;
        provider.stream(request()).await.expect("a stream").try_collect().await.expect("no error")
    }

    /// The deltas before an error, and the error.
    async fn failure(script: Vec<Act>) -> (Vec<ModelDelta>, ModelError) {
        let (provider, _server) = server(script).await;
        let mut stream = match provider.stream(request()).await {
            Ok(stream) => stream,
            Err(error) => return (Vec::new(), error),
        };
        let mut deltas = Vec::new();
        loop {
            match stream.next().await.expect("an error before the end") {
                Ok(ModelDelta::End { .. }) => panic!("no error"),
                Ok(delta) => deltas.push(delta),
                Err(error) => {
                    assert!(stream.next().await.is_none(), "nothing comes after an error");
                    return (deltas, error);
                }
            }
        }
    }

    fn refusal(status: &str, headers: &str, body: &str) -> Vec<Act> {
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}connection: close\r\n\r\n");
        vec![Act::Send(format!("{head}{body}"))]
    }

    #[tokio::test]
    async fn text_with_all_that_servers_put_around_it() {
        let deltas = answer(vec![
            Act::Send(HEAD.to_owned()),
            Act::Send(": still reading\n\n".to_owned()),
            events(&[
                r#"data: {"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}]}"#,
                r#"data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"Grüß"}}],"timings":{"x":1}}"#,
                ": a comment",
                r#"data: {"choices":[]}"#,
            ]),
            Act::Send("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" Go".to_owned()),
            Act::Pause(Duration::from_millis(20)),
            Act::Send("tt\"}}]}\n\n".to_owned()),
            events(&[
                r#"data: {"choices":[{"finish_reason":"length","index":0,"delta":{}}]}"#,
                r#"data: {"choices":[],"usage":{"completion_tokens":8,"prompt_tokens":33,"total_tokens":41,"prompt_tokens_details":{"cached_tokens":5},"completion_tokens_details":{"reasoning_tokens":3}}}"#,
                "data: [DONE]",
            ]),
        ])
        .await;
        let usage = Usage {
            completion_tokens: 8,
            prompt_tokens: 33,
            total_tokens: 41,
            cached_input_tokens: Some(5),
            cache_write_tokens: None,
            reasoning_tokens: Some(3),
        };
        assert_eq!(deltas, [text("Grüß"), text(" Gott"), ModelDelta::End { usage, is_cut: true }]);
    }

    #[tokio::test]
    async fn reasoning_comes_before_text() {
        let deltas = answer(vec![
            Act::Send(HEAD.to_owned()),
            events(&[
                r#"data: {"choices":[{"index":0,"delta":{"reasoning_content":"Hm"}}]}"#,
                r#"data: {"choices":[{"index":0,"delta":{"reasoning_content":".","content":"Yes"}}]}"#,
                r#"data: {"choices":[{"finish_reason":"stop","index":0,"delta":{}}]}"#,
                "data: [DONE]",
            ]),
        ])
        .await;
        let reasoning = |text: &str| ModelDelta::Reasoning(text.to_owned());
        let end = ModelDelta::End { usage: Usage::default(), is_cut: false };
        assert_eq!(deltas, [reasoning("Hm"), reasoning("."), text("Yes"), end]);
    }

    fn piece(index: u32, id: Option<&str>, name: Option<&str>, arguments: &str) -> String {
        let mut call = json!({"index": index, "function": {"arguments": arguments}});
        if let Some(id) = id {
            call["id"] = id.into();
        }
        if let Some(name) = name {
            call["function"]["name"] = name.into();
        }
        format!("data: {}", json!({"choices": [{"index": 0, "delta": {"content": null, "tool_calls": [call]}}]}))
    }

    async fn calls(pieces: &[String]) -> (Vec<(String, String, String)>, usize) {
        let mut lines: Vec<&str> = pieces.iter().map(String::as_str).collect();
        lines.push(r#"data: {"choices":[{"finish_reason":"tool_calls","index":0,"delta":{}}]}"#);
        lines.push("data: [DONE]");
        let deltas = answer(vec![Act::Send(HEAD.to_owned()), events(&lines)]).await;
        let mut calls: Vec<(String, String, String)> = Vec::new();
        let mut fragments = 0;
        for delta in deltas {
            match delta {
                ModelDelta::CallStart { id, name } => calls.push((id, name, String::new())),
                ModelDelta::CallArguments { id, fragment } => {
                    fragments += 1;
                    let call = calls.iter_mut().find(|call| call.0 == id).expect("a call that has begun");
                    call.2.push_str(&fragment);
                }
                ModelDelta::End { is_cut: false, .. } => {}
                other => panic!("{other:?}"),
            }
        }
        (calls, fragments)
    }

    fn owned(calls: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
        calls.iter().map(|(id, name, text)| ((*id).to_owned(), (*name).to_owned(), (*text).to_owned())).collect()
    }

    #[tokio::test]
    async fn parallel_calls_in_fragments() {
        let (seen, fragments) = calls(&[
            piece(0, Some("a1"), Some("add"), ""),
            piece(0, None, None, "{\"x\":"),
            piece(1, Some("b2"), Some("add"), "{\n  }"),
            piece(0, None, None, "1}"),
        ])
        .await;
        assert_eq!(seen, owned(&[("a1", "add", "{\"x\":1}"), ("b2", "add", "{\n  }")]));
        assert_eq!(fragments, 3, "only new pieces are given out");
    }

    #[tokio::test]
    async fn calls_without_ids_get_some() {
        for given in [None, Some("")] {
            let (seen, _) = calls(&[
                piece(0, given, Some("add"), "{\"x\":1"),
                piece(0, given, Some("add"), "}"),
                piece(1, given, Some("sub"), "{}"),
            ])
            .await;
            let plain: Vec<_> = seen.iter().map(|call| (call.1.as_str(), call.2.as_str())).collect();
            assert_eq!(plain, [("add", "{\"x\":1}"), ("sub", "{}")], "{given:?}");
            assert_ne!(seen[0].0, seen[1].0);
            let is_made_up = |id: &str| id.len() == 13 && id.starts_with("call_");
            assert!(seen.iter().all(|call| is_made_up(&call.0)), "{seen:?}");
        }
    }

    #[tokio::test]
    async fn refusals_by_status() {
        let limited = r#"{"error":{"code":429,"message":"slow down","type":"rate_limit"}}"#;
        let (_, error) = failure(refusal("429 Too Many Requests", "retry-after: 7\r\n", limited)).await;
        assert_eq!((error.error_type, error.status), (ErrorType::LlmRateLimit, Some(429)));
        assert_eq!(error.retry_after, Some(Duration::from_secs(7)));
        assert!(error.is_transient && error.message.contains("slow down"), "{error}");

        let body = format!(r#"{{"error":{{"message":"Incorrect API key provided: {KEY}."}}}}"#);
        let (_, error) = failure(refusal("401 Unauthorized", "", &body)).await;
        assert_eq!((error.error_type, error.is_transient), (ErrorType::LlmAuthentication, false));
        assert!(error.message.contains("OPENAI_API_KEY"), "{error}");
        assert!(!format!("{error:?}").contains(KEY), "the key must not be shown");

        let (_, error) = failure(refusal("500 Internal Server Error", "", "oh no")).await;
        assert_eq!((error.error_type, error.is_transient), (ErrorType::LlmError, true));
        assert_eq!(error.detail.as_deref(), Some("oh no"));

        let (_, error) = failure(refusal("400 Bad Request", "", r#"{"error":{"message":"too long"}}"#)).await;
        assert_eq!((error.error_type, error.is_transient, error.status), (ErrorType::LlmError, false, Some(400)));
    }

    const HALF: &str = r#"data: {"choices":[{"index":0,"delta":{"content":"Half"}}]}"#;

    #[tokio::test]
    async fn an_answer_that_breaks_off() {
        let (deltas, error) = failure(vec![Act::Send(HEAD.to_owned()), events(&[HALF])]).await;
        assert_eq!(deltas, [text("Half")]);
        assert_eq!((error.error_type, error.is_transient), (ErrorType::LlmError, false), "a part is out already");

        let (deltas, error) = failure(vec![Act::Send(HEAD.to_owned())]).await;
        assert!(deltas.is_empty() && error.is_transient, "nothing is out yet");

        let chunked = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\nff\r\n";
        let (deltas, error) = failure(vec![Act::Send(chunked.to_owned()), events(&[HALF])]).await;
        assert_eq!(deltas, [text("Half")]);
        assert_eq!((error.error_type, error.is_transient), (ErrorType::LlmError, false));
    }

    #[tokio::test]
    async fn an_error_object_in_the_stream() {
        let object = r#"data: {"error":{"code":503,"message":"overloaded","type":"server_error"}}"#;
        let (_, error) = failure(vec![Act::Send(HEAD.to_owned()), events(&[object])]).await;
        assert_eq!((error.status, error.is_transient), (Some(503), true));
        let (_, error) = failure(vec![Act::Send(HEAD.to_owned()), events(&[HALF, object])]).await;
        assert!(!error.is_transient && error.message.contains("overloaded"), "{error}");
        let (_, error) = failure(vec![Act::Send(HEAD.to_owned()), events(&["data: {no json"])]).await;
        assert_eq!((error.error_type, error.is_transient), (ErrorType::LlmError, true));
    }

    #[tokio::test]
    async fn silence_is_a_timeout_and_comments_are_none() {
        let (deltas, error) = failure(vec![Act::AwaitClose]).await;
        assert_eq!((deltas.len(), error.error_type, error.is_transient), (0, ErrorType::LlmTimeout, true));

        let (deltas, error) = failure(vec![Act::Send(HEAD.to_owned()), events(&[HALF]), Act::AwaitClose]).await;
        assert_eq!((deltas.len(), error.error_type, error.is_transient), (1, ErrorType::LlmTimeout, false));

        let mut script = vec![Act::Send(HEAD.to_owned()), events(&[HALF])];
        for _ in 0..4 {
            script.push(Act::Pause(Duration::from_millis(200)));
            script.push(Act::Send(": patience\n\n".to_owned()));
        }
        script.push(events(&["data: [DONE]"]));
        assert_eq!(answer(script).await.len(), 2);
    }

    #[tokio::test]
    async fn a_call_takes_no_longer_than_allowed() {
        let mut script = vec![Act::Send(HEAD.to_owned()), events(&[HALF])];
        for _ in 0..20 {
            script.push(Act::Pause(Duration::from_millis(200)));
            script.push(Act::Send(": patience\n\n".to_owned()));
        }
        let (deltas, error) = failure(script).await;
        assert_eq!((deltas.len(), error.error_type), (1, ErrorType::LlmTimeout));
    }

    #[tokio::test]
    async fn dropping_the_answer_closes_the_connection() {
        let (provider, server) = server(vec![Act::Send(HEAD.to_owned()), events(&[HALF]), Act::AwaitClose]).await;
        let mut stream = provider.stream(request()).await.expect("a stream");
        assert_eq!(stream.next().await, Some(Ok(text("Half"))));
        drop(stream);
        let closed = tokio::time::timeout(Duration::from_secs(5), server).await;
        closed.expect("the end of the connection").expect("a server that saw the end");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there() {
        // Nobody listens on port 1.
        let provider = provider("http://user:password@127.0.0.1:1/v1/", None);
        let error = provider.stream(request()).await.err().expect("an error");
        assert_eq!((error.error_type, error.is_transient), (ErrorType::LlmError, true));
        assert!(error.message.contains(" http://127.0.0.1:1/v1 "), "{error}");
        assert!(error.message.contains("OPENAI_BASE_URL"), "{error}");
        assert!(!format!("{error:?}").contains("password"));
    }

    #[test]
    fn a_base_url_that_is_none() {
        for wrong in ["", "localhost:8080", "ftp://example.org/v1"] {
            let server = OpenAiConfig { base_url: wrong.to_owned(), api_key: None };
            let result = OpenAi::new(server, &LlmConfig::default());
            assert!(matches!(result, Err(LlmSetupError::BaseUrl(_))), "{wrong}");
        }
    }

    #[tokio::test]
    async fn the_request_as_the_server_sees_it() {
        let call = ToolCall::new("c1", "add", r#"{"b":1,"a":2}"#);
        let broken = ToolCall::new("c2", "add", "{\"a");
        let thought = |text: &str| AnswerPart::Reasoning {
            text: text.to_owned(),
            signature: None,
            source: ReasoningSource::Native,
        };
        let result = |call: &ToolCall, text: &str| ToolResult {
            call_id: call.id.clone(),
            name: call.name.clone(),
            is_error: false,
            text: text.to_owned(),
            images: Vec::new(),
        };
        let mut request = request();
        request.turns = vec![
            Turn::User(vec![Piece::Text("First".to_owned())]),
            Turn::Assistant(Answer {
                parts: vec![thought("old"), AnswerPart::Text("Done".to_owned())],
                calls: vec![],
                made_by: None,
            }),
            Turn::Assistant(Answer { parts: vec![thought("only")], calls: vec![], made_by: None }),
            Turn::User(vec![Piece::Text("Second".to_owned())]),
            Turn::Assistant(Answer {
                parts: vec![thought("new")],
                calls: vec![call.clone(), broken.clone()],
                made_by: None,
            }),
            Turn::ToolReturns(vec![
                result(&call, r#"{"status":"OK","message":"3"}"#),
                result(&broken, r#"{"status":"Failed","message":"no \"JSON\""}"#),
            ]),
        ];
        request.tools = vec![ToolSpec {
            name: "add".to_owned(),
            description: String::new(),
            parameters: json!({"type": "object", "properties": {}}),
        }];
        request.options = ModelOptions {
            temperature: Some(0.5),
            max_output_tokens: Some(64),
            parallel_tool_calls: true,
            ..ModelOptions::default()
        };
        let script = vec![Act::Send(HEAD.to_owned()), events(&["data: [DONE]"])];
        let (provider, server) = server(script).await;
        let deltas: Vec<_> = provider.stream(request).await.expect("a stream").collect().await;
        assert_eq!(deltas.len(), 1);
        let seen = server.await.expect("a server");
        assert!(seen.head.starts_with("post /v1/chat/completions http/1.1"), "{}", seen.head);
        assert!(seen.head.contains(&format!("authorization: bearer {KEY}")), "{}", seen.head);
        let expected = json!({
            "model": "qwen-max",
            "stream": true,
            "tools": [{"type": "function", "function": {
                "name": "add", "description": "add", "parameters": {"type": "object", "properties": {}}, "strict": false,
            }}],
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "First"},
                {"role": "assistant", "content": "Done"},
                {"role": "user", "content": "Second"},
                {"role": "assistant", "content": "", "reasoning_content": "new", "tool_calls": [
                    {"type": "function", "id": "c1", "function": {"name": "add", "arguments": r#"{"b":1,"a":2}"#}},
                    {"type": "function", "id": "c2", "function": {
                        "name": "add", "arguments": r#"{"unreadable_arguments":"{\"a"}"#,
                    }},
                ]},
                {"role": "tool", "tool_call_id": "c1", "content": r#"{"status":"OK","message":"3"}"#},
                {"role": "tool", "tool_call_id": "c2", "content": r#"{"status":"Failed","message":"no \"JSON\""}"#},
            ],
            "stream_options": {"include_usage": true},
            "temperature": 0.5,
            "max_tokens": 64,
            "parallel_tool_calls": true,
        });
        assert_eq!(seen.body, expected, "{:#}", seen.body);
    }

    #[tokio::test]
    async fn without_a_key_none_is_sent() {
        let (with_key, server) = server(vec![Act::Send(HEAD.to_owned()), events(&["data: [DONE]"])]).await;
        let provider = provider(&with_key.base_url, Some(""));
        let _ = provider.stream(request()).await.expect("a stream");
        let seen = server.await.expect("a server");
        assert!(seen.head.starts_with("post /v1/chat/completions http/1.1"), "{}", seen.head);
        assert!(!seen.head.contains("authorization"), "{}", seen.head);
    }
}
