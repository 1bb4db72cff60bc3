//! Tests of the providers against servers on real sockets that play a script: raw bytes as each interface sends them,
//! and the requests that it gets.

mod anthropic;
mod chat_completions;
mod gemini;
mod responses;
mod transport;

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use holdfast_shared::config::{ModelServer, ModelSettings, OpenAiApi, Protocol, ReasoningSummary};
use holdfast_shared::domain::message::{Answer, AnswerPart, ReasoningSource};
use holdfast_shared::domain::model::ModelHandle;
use holdfast_shared::domain::run::ErrorType;
use holdfast_shared::domain::tool::{ToolCall, ToolSpec};
use holdfast_shared::models::install_tls_provider_for_tests;
use holdfast_shared::ports::model_client::{
    Image, ModelDelta, ModelError, ModelOptions, ModelRequest, Piece, ToolChoice, ToolResult, Turn,
};
use holdfast_shared::ports::seams::Seams;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::provider::Provider;

pub(super) const KEY: &str = "sk-very-secret";
pub(super) const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
pub(super) const CHAT: Protocol = Protocol::OpenAi(OpenAiApi::ChatCompletions);
pub(super) const RESPONSES: Protocol = Protocol::OpenAi(OpenAiApi::Responses);

/// What a server does after it has read a request.
pub(super) enum Act {
    Send(String),
    Pause(Duration),
    /// Waits until the client closes the connection.
    AwaitClose,
}

/// A request as the server saw it: the head in lower case, and the body.
pub(super) struct Seen {
    pub(super) head: String,
    pub(super) body: Value,
}

/// Frames as servers of the OpenAI kind send them.
pub(super) fn events(lines: &[&str]) -> Act {
    Act::Send(lines.iter().map(|line| format!("{line}\n\n")).collect())
}

/// Frames with their kind in front, as Anthropic and Responses send them.
pub(super) fn typed(frames: &[Value]) -> Act {
    let kind = |frame: &Value| frame["type"].as_str().unwrap_or("message").to_owned();
    Act::Send(frames.iter().map(|frame| format!("event: {}\ndata: {frame}\n\n", kind(frame))).collect())
}

/// Frames without a kind, with the line ends that Google sends.
pub(super) fn plain(frames: &[Value]) -> Act {
    Act::Send(frames.iter().map(|frame| format!("data: {frame}\r\n\r\n")).collect())
}

/// A good answer's script.
pub(super) fn answering(act: Act) -> Vec<Act> {
    vec![Act::Send(HEAD.to_owned()), act]
}

/// A refusal's script.
pub(super) fn refusal(status: &str, headers: &str, body: &str) -> Vec<Act> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}connection: close\r\n\r\n");
    vec![Act::Send(format!("{head}{body}"))]
}

/// A server on a real socket that plays a script to the first client.
pub(super) async fn server(protocol: Protocol, script: Vec<Act>) -> (Provider, JoinHandle<Seen>) {
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
    (provider(protocol, &format!("http://{address}/v1/"), Some(KEY)), task)
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

/// The name of the server that a test has.
fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::OpenAi(_) => "openai",
        Protocol::Anthropic => "anthropic",
        Protocol::Gemini => "google_ai",
    }
}

pub(super) fn model_server(protocol: Protocol, base_url: &str, key: Option<&str>) -> ModelServer {
    ModelServer {
        name: name(protocol).to_owned(),
        protocol,
        base_url: base_url.parse().expect("a URL"),
        api_key: key.map(Into::into),
        url_setting: "URL_SETTING".to_owned(),
        key_setting: "KEY_SETTING".to_owned(),
    }
}

pub(super) fn provider(protocol: Protocol, base_url: &str, key: Option<&str>) -> Provider {
    install_tls_provider_for_tests();
    let settings = ModelSettings {
        reasoning_summary: ReasoningSummary::Auto,
        header_timeout: Duration::from_millis(600),
        idle_timeout: Duration::from_millis(600),
        total_timeout: Duration::from_millis(2500),
        ..ModelSettings::default()
    };
    Provider::new(&model_server(protocol, base_url, key), &settings, &Seams::system()).expect("a provider")
}

/// A call of a model whose name ends in a word that genai would take for an effort.
pub(super) fn request(protocol: Protocol) -> ModelRequest {
    let model = match protocol {
        Protocol::OpenAi(_) => "qwen-max",
        Protocol::Anthropic => "claude-opus-4-1-high",
        Protocol::Gemini => "gemini-2.5-flash-low",
    };
    ModelRequest {
        model: handle(protocol, model),
        system: "Be brief.".to_owned(),
        turns: vec![user("Hello?")],
        tools: Vec::new(),
        tool_choice: ToolChoice::Auto,
        options: ModelOptions::default(),
    }
}

pub(super) fn handle(protocol: Protocol, model: &str) -> ModelHandle {
    ModelHandle::parse(&format!("{}/{model}", name(protocol))).expect("a handle")
}

pub(super) fn user(text: &str) -> Turn {
    Turn::User(vec![Piece::Text(text.to_owned())])
}

pub(super) fn image() -> Image {
    Image { media_type: "image/png".to_owned(), data: "aW1n".to_owned(), detail: None }
}

pub(super) fn tool(name: &str) -> ToolSpec {
    ToolSpec {
        name: name.to_owned(),
        description: "Adds.".to_owned(),
        parameters: json!({"type": "object", "properties": {}}),
    }
}

pub(super) fn result(call_id: &str, text: &str) -> ToolResult {
    ToolResult {
        call_id: call_id.to_owned(),
        name: "add".to_owned(),
        is_error: false,
        text: text.to_owned(),
        images: Vec::new(),
    }
}

pub(super) fn thought(text: &str, signature: Option<&str>) -> AnswerPart {
    AnswerPart::Reasoning {
        text: text.to_owned(),
        signature: signature.map(str::to_owned),
        source: ReasoningSource::Native,
    }
}

pub(super) fn said(text: &str) -> AnswerPart {
    AnswerPart::Text(text.to_owned())
}

pub(super) fn hidden(data: &str) -> AnswerPart {
    AnswerPart::HiddenReasoning { data: Some(data.to_owned()) }
}

pub(super) fn made_by(model: &str, parts: Vec<AnswerPart>, calls: Vec<ToolCall>) -> Turn {
    Turn::Assistant(Answer { parts, calls, made_by: ModelHandle::parse(model) })
}

pub(super) fn text(text: &str) -> ModelDelta {
    ModelDelta::Text(text.to_owned())
}

pub(super) fn reasoning(text: &str) -> ModelDelta {
    ModelDelta::Reasoning(text.to_owned())
}

pub(super) fn begins(id: &str, name: &str) -> ModelDelta {
    ModelDelta::CallStart { id: id.to_owned(), name: name.to_owned() }
}

pub(super) fn arguments(id: &str, fragment: &str) -> ModelDelta {
    ModelDelta::CallArguments { id: id.to_owned(), fragment: fragment.to_owned() }
}

/// All deltas of a good answer.
pub(super) async fn answer(protocol: Protocol, script: Vec<Act>) -> Vec<ModelDelta> {
    let (provider, _server) = server(protocol, script).await;
    provider.stream(request(protocol)).await.expect("a stream").try_collect().await.expect("no error")
}

/// The deltas before an error, and the error.
pub(super) async fn failure(protocol: Protocol, script: Vec<Act>) -> (Vec<ModelDelta>, ModelError) {
    let (provider, _server) = server(protocol, script).await;
    let mut stream = match provider.stream(request(protocol)).await {
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

/// The request as the server sees it; `good` is an answer that makes the call succeed.
pub(super) async fn sent(protocol: Protocol, request: ModelRequest, good: Act) -> Seen {
    let (provider, server) = server(protocol, answering(good)).await;
    let stream = provider.stream(request).await.expect("a stream");
    let deltas: Result<Vec<_>, _> = stream.try_collect().await;
    deltas.expect("no error");
    server.await.expect("a server")
}
