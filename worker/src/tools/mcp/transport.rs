//! The two ways to an MCP server: a child process and HTTP. Both begin the protocol.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream::BoxStream;
use holdfast_shared::domain::secret::Secret;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use rmcp::model::{ClientJsonRpcMessage, JsonRpcMessage, RequestId};
use rmcp::service::{ClientInitializeError, RunningService, RxJsonRpcMessage, ServiceExt as _, TxJsonRpcMessage};
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::common::client_side_sse::ExponentialBackoff;
use rmcp::transport::streamable_http_client::{
    StreamableHttpClient, StreamableHttpClientTransportConfig, StreamableHttpError, StreamableHttpPostResponse,
    StreamableHttpResponseLimits,
};
use rmcp::transport::{StreamableHttpClientTransport, Transport};
use rmcp::{ClientHandler, RoleClient, ServiceError};
use sse_stream::{Error as SseError, Sse};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio_util::sync::CancellationToken;

use super::config::TransportConfig;

/// Until an HTTP server accepts a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a child may take to end by itself after its input was closed.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause before a broken stream of an HTTP server is opened again.
const STREAM_PAUSE: Duration = Duration::from_millis(200);
/// Bytes of a child's standard error in one log line.
const STDERR_BYTES: usize = 1024;
/// The variables of this process that a child gets.
const KEPT_VARIABLES: [&str; 2] = ["PATH", "HOME"];

/// A connection on which the protocol has begun.
pub(super) struct Connection<H: ClientHandler> {
    /// The protocol's side of it. Dropping it closes the connection.
    pub(super) running: RunningService<RoleClient, H>,
    /// The process at the other end.
    pub(super) child: Option<ChildGroup>,
}

/// What is known of a connection beside the protocol.
#[derive(Clone, Default)]
pub(super) struct Signs {
    /// Cancelled when the connection is of no use any more.
    pub(super) gone: CancellationToken,
    handed: Arc<Mutex<HashSet<RequestId>>>,
}

impl Signs {
    /// Whether the server may have got this request. The protocol's own errors do not tell: a request that still waited
    /// when the connection ended fails like one that was being worked on.
    pub(super) fn was_handed(&self, id: &RequestId) -> bool {
        self.handed().contains(id)
    }

    /// Nobody will ask about this request any more.
    pub(super) fn forget(&self, id: &RequestId) {
        self.handed().remove(id);
    }

    /// Hands a message over. It counts from the moment that this begins, unless it certainly fails.
    async fn handing<T, E>(
        &self,
        id: Option<RequestId>,
        handing: impl Future<Output = Result<T, E>>,
        was_not_sent: fn(&E) -> bool,
    ) -> Result<T, E> {
        self.handed().extend(id.clone());
        let handed = handing.await;
        if let (Err(error), Some(id)) = (&handed, &id)
            && was_not_sent(error)
        {
            self.forget(id);
        }
        handed
    }

    fn handed(&self) -> MutexGuard<'_, HashSet<RequestId>> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn id_of(message: &ClientJsonRpcMessage) -> Option<RequestId> {
    match message {
        JsonRpcMessage::Request(request) => Some(request.id.clone()),
        _ => None,
    }
}

/// Connects and begins the protocol.
pub(super) async fn connect<H: ClientHandler>(
    server: &str,
    config: &TransportConfig,
    handler: H,
    signs: &Signs,
) -> Result<Connection<H>, String> {
    match config {
        TransportConfig::Stdio { command, args, env } => {
            let (child, (stdout, stdin)) = spawn(server, command, args, env)?;
            let pipes = Pipes { inner: AsyncRwTransport::new(stdout, stdin), signs: signs.clone() };
            let running = handler.serve(pipes).await.map_err(|error| begin_cause(&error))?;
            Ok(Connection { running, child: Some(child) })
        }
        TransportConfig::Http { url, headers } => {
            let transport = http_transport(url, headers, signs)?;
            let running = handler.serve(transport).await.map_err(|error| begin_cause(&error))?;
            Ok(Connection { running, child: None })
        }
    }
}

type Streams = (ChildStdout, ChildStdin);

/// The standard streams of a child, watched.
struct Pipes {
    inner: AsyncRwTransport<RoleClient, ChildStdout, ChildStdin>,
    signs: Signs,
}

impl Transport<RoleClient> for Pipes {
    type Error = std::io::Error;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        let (signs, id) = (self.signs.clone(), id_of(&message));
        let sending = self.inner.send(message);
        // A pipe that is broken took no whole line.
        async move { signs.handing(id, sending, |_| true).await }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        let received = self.inner.receive().await;
        if received.is_none() {
            self.signs.gone.cancel();
        }
        received
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        self.inner.close().await
    }
}

fn spawn(
    server: &str,
    command: &str,
    args: &[Secret],
    env: &BTreeMap<String, Secret>,
) -> Result<(ChildGroup, Streams), String> {
    let mut child = Command::new(command);
    child.args(args.iter().map(Secret::expose)).env_clear();
    child.envs(KEPT_VARIABLES.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    child.envs(env.iter().map(|(name, value)| (name, value.expose())));
    child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    // A group of its own, so that what the child starts ends with it. A Ctrl-C in the terminal is not for it either.
    #[cfg(unix)]
    child.process_group(0);
    let mut child = child.spawn().map_err(|error| format!("'{command}' does not start: {error}"))?;
    let no_pipe = || format!("'{command}' has no standard streams");
    let stdin = child.stdin.take().ok_or_else(no_pipe)?;
    let stdout = child.stdout.take().ok_or_else(no_pipe)?;
    let stderr = child.stderr.take().ok_or_else(no_pipe)?;
    let log = tokio::spawn(drain(server.to_owned(), stderr));
    Ok((ChildGroup { group: child.id(), child, log }, (stdout, stdin)))
}

/// Reads what a child says on standard error, so that it never has to wait, into the debug log.
async fn drain(server: String, mut stderr: impl AsyncRead + Unpin) {
    let mut buffer = [0; STDERR_BYTES];
    while let Ok(length @ 1..) = stderr.read(&mut buffer).await {
        let said = String::from_utf8_lossy(&buffer[..length]);
        tracing::debug!(mcp.server = server, "an MCP server says: {}", said.trim_end());
    }
}

/// A child process with all that it started. Dropping it kills them.
pub(super) struct ChildGroup {
    child: Child,
    group: Option<u32>,
    log: tokio::task::JoinHandle<()>,
}

impl ChildGroup {
    /// Waits for the child, whose input is closed, to end by itself, but not for long.
    pub(super) async fn end(mut self) {
        if tokio::time::timeout(EXIT_TIMEOUT, self.child.wait()).await.is_err() {
            tracing::debug!("an MCP server did not end by itself and is killed");
        }
    }

    #[cfg(target_os = "linux")]
    fn kill(&self) {
        let group = self.group.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(group) = group {
            // An error says that nobody is left, which is what is wanted.
            let _gone = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn kill(&mut self) {
        let _gone = self.child.start_kill();
    }
}

impl Drop for ChildGroup {
    fn drop(&mut self) {
        self.kill();
        self.log.abort();
    }
}

fn http_transport(
    url: &Secret,
    headers: &HeaderMap,
    signs: &Signs,
) -> Result<StreamableHttpClientTransport<HttpClient>, String> {
    let mut client = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        // Idle connections of streams that were not read to their end cost more than they save.
        .pool_max_idle_per_host(0);
    let host = reqwest::Url::parse(url.expose()).ok().and_then(|url| url.host_str().map(str::to_owned));
    if host.is_some_and(|host| is_loopback(&host)) {
        // No proxy could reach it.
        client = client.no_proxy();
    }
    let inner = client.build().map_err(|error| error.to_string())?;
    let client = HttpClient { inner, signs: signs.clone(), had_stream: Arc::default() };
    let mut config = StreamableHttpClientTransportConfig::with_uri(url.expose());
    config = config.custom_headers(headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect());
    // A server that lost the session may have been started anew with other tools: begin from the start instead.
    config = config.reinit_on_expired_session(false);
    let mut retry = ExponentialBackoff::default();
    retry.base_duration = STREAM_PAUSE;
    retry.max_times = Some(1);
    config.retry_config = Arc::new(retry);
    Ok(StreamableHttpClientTransport::with_client(client, config))
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The protocol's HTTP client, which notices when the server does not know the session any more.
#[derive(Clone)]
struct HttpClient {
    inner: reqwest::Client,
    signs: Signs,
    /// Whether the server's own stream was ever open: not all servers have one.
    had_stream: Arc<AtomicBool>,
}

type HttpError = StreamableHttpError<reqwest::Error>;
type Headers = HashMap<HeaderName, HeaderValue>;

impl StreamableHttpClient for HttpClient {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        auth: Option<String>,
        headers: Headers,
    ) -> Result<StreamableHttpPostResponse, HttpError> {
        let limits = StreamableHttpResponseLimits::default();
        self.post_message_with_response_limits(uri, message, session, auth, headers, limits).await
    }

    async fn post_message_with_response_limits(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        auth: Option<String>,
        headers: Headers,
        limits: StreamableHttpResponseLimits,
    ) -> Result<StreamableHttpPostResponse, HttpError> {
        let (id, has_session) = (id_of(&message), session.is_some());
        let posting = async {
            let posted = self.inner.post_message_with_response_limits(uri, message, session, auth, headers, limits);
            match posted.await {
                // An error that is an answer to nothing: some servers say so that they do not know the session.
                Ok(StreamableHttpPostResponse::Json(JsonRpcMessage::Error(error), _))
                    if has_session && error.id.is_none() =>
                {
                    Err(StreamableHttpError::SessionExpired)
                }
                posted => posted,
            }
        };
        self.signs.handing(id, posting, was_not_sent).await
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session: Arc<str>,
        auth: Option<String>,
        headers: Headers,
    ) -> Result<(), HttpError> {
        self.inner.delete_session(uri, session, auth, headers).await
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        auth: Option<String>,
        headers: Headers,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, HttpError> {
        let limit = StreamableHttpResponseLimits::default().max_sse_event_size;
        self.get_stream_with_max_sse_event_size(uri, session, last_event, auth, headers, limit).await
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        auth: Option<String>,
        headers: Headers,
        max_event_bytes: usize,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, HttpError> {
        let opened = self
            .inner
            .get_stream_with_max_sse_event_size(uri, session, last_event, auth, headers, max_event_bytes)
            .await;
        match &opened {
            Ok(_) => self.had_stream.store(true, Ordering::Relaxed),
            Err(error) if was_not_sent(error) || self.had_stream.load(Ordering::Relaxed) => self.signs.gone.cancel(),
            Err(_) => {}
        }
        opened
    }
}

/// Why the protocol could not begin, in words that hold no URL: it may hold secrets.
fn begin_cause(error: &ClientInitializeError) -> String {
    match error {
        ClientInitializeError::TransportError { error, .. } => cause(&*error.error),
        other => other.to_string(),
    }
}

/// Why a request failed, in words that hold no URL.
pub(super) fn service_cause(error: &ServiceError) -> String {
    match error {
        ServiceError::TransportSend(error) => cause(&*error.error),
        other => other.to_string(),
    }
}

/// The innermost cause, which says most.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    loop {
        let by_http = innermost.downcast_ref::<reqwest::Error>();
        if let Some(status) = by_http.and_then(reqwest::Error::status) {
            return format!("the server answered with status {status}");
        }
        match innermost.source() {
            Some(inner) => innermost = inner,
            None if by_http.is_some() => return "the request failed".to_owned(),
            None => return innermost.to_string(),
        }
    }
}

/// Whether the server certainly did nothing.
fn was_not_sent(error: &HttpError) -> bool {
    match error {
        StreamableHttpError::Client(error) => error.is_connect(),
        StreamableHttpError::SessionExpired => true,
        _ => false,
    }
}
