//! A client that keeps every byte: the server is judged by what it sends, not by what a parser made of it.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::described;
use super::harness::{DEADLINE, until};
use super::recorded::record;

/// A client of one server, with or without a key.
#[derive(Debug, Clone)]
pub struct Client {
    /// `http://host:port`
    pub base: String,
    key: Option<String>,
    headers: Vec<(&'static str, String)>,
    http: reqwest::Client,
}

/// A whole JSON answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: reqwest::header::HeaderMap,
    /// The body; null when it was not JSON.
    pub body: Value,
}

impl Answer {
    /// The body of an answer that must be a 200.
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body
    }

    /// `detail` of an answer that must have this status.
    pub fn refused(self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.body);
        let detail = self.body["detail"].as_str();
        detail.unwrap_or_else(|| panic!("no detail text in {}", self.body)).to_owned()
    }
}

impl Client {
    /// A client without a key.
    pub fn new(base: &str) -> Self {
        // A second test of the same process finds the provider installed; that is what is wanted.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().expect("a client");
        Self { base: base.trim_end_matches('/').to_owned(), key: None, headers: Vec::new(), http }
    }

    /// The same server, with a key.
    pub fn with_key(&self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self.clone() }
    }

    /// The same with one more header on each request.
    pub fn with_header(&self, name: &'static str, value: &str) -> Self {
        let mut headers = self.headers.clone();
        headers.push((name, value.to_owned()));
        Self { headers, ..self.clone() }
    }

    fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let mut request =
            self.http.request(method, format!("{}{path}", self.base)).header("accept", "application/json");
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> Answer {
        let request = request.build().expect("a request");
        let (method, path) = (request.method().to_string(), request.url().path().to_owned());
        let response =
            timeout(DEADLINE, self.http.execute(request)).await.expect("an answer in time").expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = timeout(DEADLINE, response.bytes()).await.expect("a body in time").expect("a body");
        let media_type = headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        described::check_answer(&method, &path, status, media_type, &body);
        Answer { status, headers, body: serde_json::from_slice(&body).unwrap_or(Value::Null) }
    }

    /// Any method, without a body
    pub async fn ask(&self, method: &str, path: &str, headers: &[(&'static str, &str)]) -> Answer {
        let request = self.request(method.parse().expect("a method"), path);
        self.answer(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
    }

    /// GET
    pub async fn get(&self, path: &str) -> Answer {
        self.answer(self.request(reqwest::Method::GET, path)).await
    }

    /// GET with more headers
    pub async fn get_with(&self, path: &str, headers: &[(&'static str, &str)]) -> Answer {
        let request = self.request(reqwest::Method::GET, path);
        self.answer(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
    }

    /// POST with a JSON body
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.answer(self.request(reqwest::Method::POST, path).json(body)).await
    }

    /// POST with a JSON body and more headers
    pub async fn post_with(&self, path: &str, headers: &[(&'static str, &str)], body: &Value) -> Answer {
        let request = self.request(reqwest::Method::POST, path).json(body);
        self.answer(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
    }

    /// POST of the same once more, as the SDKs do it after a minute without an answer
    pub async fn post_again(&self, path: &str, body: &Value) -> Answer {
        let request = self.request(reqwest::Method::POST, path).header("x-stainless-retry-count", "1");
        self.answer(request.json(body)).await
    }

    /// POST with bytes that may be anything
    pub async fn post_bytes(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        self.answer(self.request(reqwest::Method::POST, path).header("content-type", "application/json").body(body))
            .await
    }

    /// PUT with a JSON body
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.answer(self.request(reqwest::Method::PUT, path).json(body)).await
    }

    /// PATCH without a body
    pub async fn patch_bare(&self, path: &str) -> Answer {
        self.answer(self.request(reqwest::Method::PATCH, path)).await
    }

    /// PATCH with a JSON body
    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.answer(self.request(reqwest::Method::PATCH, path).json(body)).await
    }

    /// DELETE
    pub async fn delete(&self, path: &str) -> Answer {
        self.answer(self.request(reqwest::Method::DELETE, path)).await
    }

    /// A new agent of the built-in model; answers its id.
    pub async fn create_agent(&self) -> String {
        let block = json!({"label": "human", "value": "The human's name is Ada."});
        let agent = self.post("/v1/agents/", &json!({"name": "tester", "memory_blocks": [block]})).await.ok();
        agent["id"].as_str().expect("an id").to_owned()
    }

    /// Sends messages and reads the stream.
    pub async fn send(&self, agent: &str, body: &Value) -> EventStream {
        self.stream_post(&format!("/v1/agents/{agent}/messages/stream"), body).await
    }

    /// Resumes a run by POST.
    pub async fn resume(&self, run: &str, starting_after: u64) -> EventStream {
        self.stream_post(&format!("/v1/runs/{run}/stream"), &json!({"starting_after": starting_after})).await
    }

    /// POST that answers a stream
    pub async fn stream_post(&self, path: &str, body: &Value) -> EventStream {
        self.stream(self.request(reqwest::Method::POST, path).json(body)).await
    }

    /// GET that answers a stream, with more headers
    pub async fn stream_get(&self, path: &str, headers: &[(&'static str, &str)]) -> EventStream {
        let request = self.request(reqwest::Method::GET, path);
        self.stream(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
    }

    async fn stream(&self, request: reqwest::RequestBuilder) -> EventStream {
        let response = timeout(DEADLINE, request.send()).await.expect("an answer in time").expect("an answer");
        let status = response.status().as_u16();
        assert_eq!(status, 200, "a stream was refused: {}", response.text().await.unwrap_or_default());
        let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        assert!(kind.starts_with("text/event-stream"), "{kind:?} is no stream");
        EventStream { bytes: response.bytes_stream().boxed(), rest: Vec::new(), frames: Vec::new() }
    }

    /// Waits until a tool of this name is listed.
    pub async fn until_listed(&self, name: &str) -> Value {
        let mut found = Value::Null;
        until(&format!("{name} is listed"), async || {
            let listed = self.get(&format!("/v1/tools/?name={name}")).await.ok();
            found = listed.get(0).cloned().unwrap_or_default();
            found.is_object()
        })
        .await;
        found
    }

    /// Waits until a run has this status.
    pub async fn wait_for_status(&self, run: &str, status: &str) -> Value {
        let until = Instant::now() + DEADLINE;
        loop {
            let found = self.get(&format!("/v1/runs/{run}")).await.ok();
            if found["status"] == status {
                return found;
            }
            assert!(Instant::now() < until, "run did not become {status}: {found}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// One block of a stream with its exact bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Everything up to and with the blank line.
    pub raw: String,
}

impl Frame {
    fn line(&self, name: &str) -> Option<&str> {
        self.raw.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The payload.
    pub fn data(&self) -> &str {
        self.line("data").unwrap_or_default()
    }

    /// `event:`, which only failures have
    pub fn event(&self) -> Option<&str> {
        self.line("event")
    }

    /// `id:`, which only browsers get
    pub fn id(&self) -> Option<&str> {
        self.line("id")
    }

    fn is_comment(&self) -> bool {
        self.raw.starts_with(':')
    }

    /// Whether it is the end of a stream.
    pub fn is_done(&self) -> bool {
        self.data() == "[DONE]"
    }

    /// The payload as JSON; null for the end and for comments.
    pub fn json(&self) -> Value {
        serde_json::from_str(self.data()).unwrap_or(Value::Null)
    }

    /// Its `message_type`, `[DONE]`, or an empty text for a comment.
    pub fn kind(&self) -> String {
        if self.is_done() {
            return "[DONE]".to_owned();
        }
        self.json()["message_type"].as_str().unwrap_or_default().to_owned()
    }

    /// The number that it shows.
    pub fn seq_id(&self) -> Option<u64> {
        self.json()["seq_id"].as_u64()
    }

    /// The run that it names.
    pub fn run_id(&self) -> Option<String> {
        self.json()["run_id"].as_str().map(str::to_owned)
    }
}

/// A stream that is being read.
pub struct EventStream {
    bytes: BoxStream<'static, reqwest::Result<Bytes>>,
    rest: Vec<u8>,
    frames: Vec<Frame>,
}

impl EventStream {
    /// The next frame; `None` when the connection closed. A cut connection ends a stream like a closed one does.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            let frame = self.next_block().await?;
            if !frame.is_comment() {
                return Some(frame);
            }
        }
    }

    /// The next block, which may be a comment.
    async fn next_block(&mut self) -> Option<Frame> {
        loop {
            if let Some(end) = self.rest.windows(2).position(|pair| pair == b"\n\n") {
                let raw = self.rest.drain(..end + 2).collect();
                let frame = Frame { raw: String::from_utf8(raw).expect("a stream is UTF-8") };
                if !frame.is_comment() {
                    record(&frame.json());
                    if !frame.is_done() {
                        described::check_event(&frame.json());
                    }
                    self.frames.push(frame.clone());
                }
                return Some(frame);
            }
            let read = timeout(DEADLINE, self.bytes.next()).await;
            match read.unwrap_or_else(|_| panic!("nothing came in time after {:#?}", self.frames.last())) {
                Some(Ok(bytes)) => self.rest.extend_from_slice(&bytes),
                Some(Err(_)) | None => return None,
            }
        }
    }

    /// Reads until so many comments came.
    pub async fn until_comments(&mut self, count: usize) {
        let mut found = 0;
        while found < count {
            let block = self.next_block().await.unwrap_or_else(|| panic!("the stream ended after {found} comments"));
            found += usize::from(block.is_comment());
        }
    }

    /// Reads until so many frames are there.
    pub async fn at_least(&mut self, count: usize) -> &[Frame] {
        while self.frames.len() < count {
            assert!(self.next().await.is_some(), "the stream ended after {} frames", self.frames.len());
        }
        &self.frames
    }

    /// Reads until a frame of this kind.
    pub async fn until(&mut self, kind: &str) -> Frame {
        loop {
            let frame = self.next().await.unwrap_or_else(|| panic!("the stream ended without {kind}"));
            if frame.kind() == kind {
                return frame;
            }
        }
    }

    /// The run of the stream, as its first frames say.
    pub async fn run_id(&mut self) -> String {
        self.at_least(1).await;
        self.frames[0].run_id().expect("the first frame names the run")
    }

    /// Reads to the end and answers all frames. The connection must close by itself right after `[DONE]`.
    pub async fn read_to_end(mut self) -> Vec<Frame> {
        while self.next().await.is_some() {}
        assert!(self.rest.is_empty(), "half a frame at the end: {:?}", String::from_utf8_lossy(&self.rest));
        self.frames
    }

    /// Reads until the connection breaks or closes, whole frames only.
    pub async fn read_to_break(mut self) -> Vec<Frame> {
        while self.next().await.is_some() {}
        self.frames
    }

    /// Hangs up and answers what came.
    pub fn cut(self) -> Vec<Frame> {
        self.frames
    }
}

/// The frames without the keepalives, which belong to a connection and not to the run: a new ping that shows the number
/// before it, or none. A stored ping that came twice has the same id twice and stays, for `assert_whole` to find.
pub fn stored(frames: &[Frame]) -> Vec<Frame> {
    let mut last = None;
    let mut pings = HashSet::new();
    let mut kept = Vec::new();
    for frame in frames {
        let (seq, json) = (frame.seq_id(), frame.json());
        let is_new_ping = json["message_type"] == "ping" && pings.insert(json["id"].to_string());
        if is_new_ping && (seq.is_none() || seq == last) {
            continue;
        }
        last = seq.or(last);
        kept.push(frame.clone());
    }
    kept
}

/// Asserts that a background stream that began after `cursor` has no gap and no repeat, names one run, and ends as every
/// stream ends. Answers the last number shown by a message or ping.
pub fn assert_whole(frames: &[Frame], cursor: u64) -> u64 {
    let frames = stored(frames);
    let kinds: Vec<_> = frames.iter().map(Frame::kind).collect();
    let end = kinds.iter().position(|kind| kind == "stop_reason").unwrap_or_else(|| panic!("no end: {kinds:?}"));
    let mut tail = vec!["stop_reason", "usage_statistics", "[DONE]"];
    if frames[end..].iter().any(|frame| frame.event() == Some("error")) {
        tail.insert(2, "error_message");
    }
    assert_eq!(kinds[end..], tail, "terminal frames");
    let mut last = cursor;
    for frame in &frames[..end] {
        assert_eq!(frame.seq_id(), Some(last + 1), "gap or repeat at {}", frame.raw);
        assert_eq!(frame.run_id(), frames[0].run_id(), "another run in the stream");
        assert_eq!(frame.event(), None);
        last += 1;
    }
    for frame in &frames[end..=end + 1] {
        assert_eq!(frame.json().get("seq_id"), None, "terminal frames show no number: {}", frame.raw);
    }
    last
}

/// Asserts that two readers got the same bytes.
pub fn assert_same_bytes(left: &[Frame], right: &[Frame]) {
    let (left, right) = (stored(left), stored(right));
    for (one, other) in left.iter().zip(&right) {
        assert_eq!(one.raw, other.raw);
    }
    assert_eq!(left.len(), right.len(), "one reader got more frames");
}

/// Ids of messages that the stream declares void.
pub fn superseded(frames: &[Frame]) -> Vec<String> {
    let ids = frames.iter().filter(|frame| frame.kind() == "ping").flat_map(|frame| {
        let json = frame.json();
        json["superseded_message_ids"].as_array().cloned().unwrap_or_default()
    });
    ids.filter_map(|id| id.as_str().map(str::to_owned)).collect()
}

/// What a user would read: assistant text without what was superseded.
pub fn assistant_text(frames: &[Frame]) -> String {
    let void = superseded(frames);
    let texts = frames
        .iter()
        .map(Frame::json)
        .filter(|json| json["message_type"] == "assistant_message" && !void.iter().any(|id| json["id"] == id.as_str()));
    texts.filter_map(|json| json["content"].as_str().map(str::to_owned)).collect()
}

/// The kinds of the stored frames in order, deltas of one slice counted once.
pub fn shape(frames: &[Frame]) -> Vec<String> {
    let mut shape: Vec<(String, Value)> = Vec::new();
    for frame in stored(frames) {
        let json = frame.json();
        let slice = (frame.kind(), json["otid"].clone());
        if shape.last() != Some(&slice) {
            shape.push(slice);
        }
    }
    shape.into_iter().map(|(kind, _)| kind).collect()
}

/// Why the run ended, as its stream says.
pub fn stop_reason(frames: &[Frame]) -> String {
    let json = frames.iter().map(Frame::json).find(|json| json["message_type"] == "stop_reason");
    json.and_then(|json| json["stop_reason"].as_str().map(str::to_owned)).expect("a stop reason")
}

/// The checkers must be able to fail.
mod checkers {
    use super::{Frame, assert_same_bytes, assert_whole, assistant_text, shape};

    fn frames(payloads: &[&str]) -> Vec<Frame> {
        payloads.iter().map(|payload| Frame { raw: format!("data: {payload}\n\n") }).collect()
    }

    const PING: &str = r#"{"message_type":"ping","id":"ping-1","seq_id":1,"run_id":"run-1"}"#;
    const TWO: &str =
        r#"{"message_type":"assistant_message","id":"m-1","otid":"a","seq_id":2,"run_id":"run-1","content":"x"}"#;
    const VOID: &str =
        r#"{"message_type":"ping","id":"ping-2","seq_id":3,"run_id":"run-1","superseded_message_ids":["m-1"]}"#;
    const FOUR: &str =
        r#"{"message_type":"assistant_message","id":"m-2","otid":"b","seq_id":4,"run_id":"run-1","content":"y"}"#;
    const KEEPALIVE: &str = r#"{"message_type":"ping","id":"ping-9","seq_id":4,"run_id":"run-1"}"#;
    const END: [&str; 3] = [
        r#"{"message_type":"stop_reason","stop_reason":"end_turn"}"#,
        r#"{"message_type":"usage_statistics"}"#,
        "[DONE]",
    ];

    #[test]
    fn a_whole_stream_passes() {
        let whole = frames(&[&[PING, TWO, VOID, FOUR, KEEPALIVE][..], &END].concat());
        assert_eq!(assert_whole(&whole, 0), 4);
        assert_eq!(assert_whole(&whole[2..], 2), 4);
        assert_eq!(assistant_text(&whole), "y", "void text does not count");
        assert_eq!(shape(&whole).len(), 7);
    }

    #[test]
    fn whatever_is_wrong_with_a_stream_is_found() {
        for payloads in [
            &[PING, FOUR, END[0], END[1], END[2]][..],
            &[PING, TWO, TWO, END[0], END[1], END[2]],
            &[PING, PING, TWO, END[0], END[1], END[2]],
            &[PING, TWO, PING, END[0], END[1], END[2]],
            &[TWO, END[0], END[1], END[2]],
            &[PING, TWO],
            &[PING, TWO, END[0], END[2]],
            &[PING, TWO, END[0], END[1]],
            &[PING, TWO, END[0], END[1], END[2], END[2]],
            &[PING, TWO, END[0], END[1], END[0], END[1], END[2]],
        ] {
            let broken = frames(payloads);
            assert!(std::panic::catch_unwind(|| assert_whole(&broken, 0)).is_err(), "{payloads:#?} passes");
        }
        let (one, other) = (frames(&[PING, TWO]), frames(&[PING]));
        assert!(std::panic::catch_unwind(|| assert_same_bytes(&one, &other)).is_err());
    }
}
