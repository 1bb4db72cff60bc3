//! One MCP server: a task keeps the connection to it, so that callers only wait for it, and only as long as they want.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{Fuse, FusedFuture as _};
use holdfast_shared::domain::limits::{
    MCP_CONNECT_TIMEOUT, MCP_PAGES, MCP_PROGRESS_QUEUE, MCP_RETRY_MAX, MCP_RETRY_MIN, MCP_TOOLS,
};
use rand::Rng as _;
use rmcp::model::{
    CancelledNotificationParam, ClientCapabilities, ClientConfig, Implementation, PaginatedRequestParams,
    ProgressNotificationParam, ProgressToken, RequestId, Tool,
};
use rmcp::service::NotificationContext;
use rmcp::{ClientHandler, Peer, RoleClient};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Progress;
use super::config::ServerConfig;
use super::transport::{self, Connection, Signs, service_cause};

/// A connection that lived so long was a good one: after it, failures are counted anew.
const STABLE: Duration = Duration::from_secs(30);
/// How long callers wait for a server that fails. While they do, it is tried more often than otherwise.
const PATIENCE: Duration = Duration::from_secs(10);
/// Shortest time between two tries.
const TRY_GAP: Duration = Duration::from_millis(500);
/// Most time to tell a server that a call is cancelled.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);
/// Most time to end a connection properly.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// Cancels that wait for the connection's task.
const CANCEL_QUEUE: usize = 64;

/// What callers see of a server.
pub(super) struct Server {
    pub(super) config: Arc<ServerConfig>,
    /// Somebody waits for the connection.
    wanted: Arc<Notify>,
    link: watch::Receiver<Link>,
    tools: watch::Receiver<Option<Arc<[Tool]>>>,
}

/// How things stand with the connection.
#[derive(Clone)]
enum Link {
    /// There is none, or it is being made.
    Opening,
    /// It is there.
    Up(Arc<Up>),
    /// It failed, and will be tried again.
    Down { why: Arc<str> },
}

/// A connection that calls can use.
pub(super) struct Up {
    pub(super) peer: Peer<RoleClient>,
    pub(super) signs: Signs,
    routes: Arc<Routes>,
    cancels: mpsc::Sender<RequestId>,
    in_flight: watch::Sender<usize>,
}

impl Up {
    /// Has the connection made anew.
    pub(super) fn give_up(&self) {
        self.signs.gone.cancel();
    }

    /// Waits until nothing is under way, but not for long.
    async fn settle(&self) {
        let mut in_flight = self.in_flight.subscribe();
        let settled = async { drop(in_flight.wait_for(|count| *count == 0).await) };
        let _settled_or_not = timeout(CLOSE_TIMEOUT, settled).await;
    }

    /// Watches over a call that was sent.
    pub(super) fn watch(self: &Arc<Self>, id: RequestId, token: ProgressToken) -> (InFlight, mpsc::Receiver<Progress>) {
        let (sender, progress) = mpsc::channel(MCP_PROGRESS_QUEUE);
        self.routes.lock().insert(token.clone(), sender);
        self.in_flight.send_modify(|count| *count += 1);
        (InFlight { up: Arc::clone(self), id, token, is_answered: false }, progress)
    }
}

/// A call that was sent. If it is dropped without an answer, the server is told that nobody waits any more.
pub(super) struct InFlight {
    up: Arc<Up>,
    id: RequestId,
    token: ProgressToken,
    is_answered: bool,
}

impl InFlight {
    pub(super) fn answered(mut self) {
        self.is_answered = true;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.up.routes.lock().remove(&self.token);
        self.up.signs.forget(&self.id);
        if !self.is_answered {
            // A full queue only means that the server goes on working for nobody.
            let _told_or_not = self.up.cancels.try_send(self.id.clone());
        }
        self.up.in_flight.send_modify(|count| *count -= 1);
    }
}

/// Where notices of progress go.
#[derive(Default)]
struct Routes(Mutex<HashMap<ProgressToken, mpsc::Sender<Progress>>>);

impl Routes {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ProgressToken, mpsc::Sender<Progress>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the server says unasked. Its log messages are not for ours: they may hold what tools say.
struct Handler {
    routes: Arc<Routes>,
    list_changed: Arc<Notify>,
}

impl ClientHandler for Handler {
    async fn on_progress(&self, params: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        let ProgressNotificationParam { progress_token, progress, total, message, .. } = params;
        if let Some(route) = self.routes.lock().get(&progress_token) {
            // Who does not keep up misses some: progress is a courtesy.
            let _missed = route.try_send(Progress { progress, total, message });
        }
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.list_changed.notify_one();
    }

    fn get_info(&self) -> ClientConfig {
        ClientConfig::new(ClientCapabilities::default(), Implementation::new("holdfast", env!("CARGO_PKG_VERSION")))
    }
}

impl Server {
    /// A server, and the task that keeps its connection until `stop`. Nothing is connected before somebody wants it.
    /// `changed` counts the changes of its list of tools.
    pub(super) fn new(
        config: ServerConfig,
        changed: watch::Sender<u64>,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let config = Arc::new(config);
        let wanted = Arc::new(Notify::new());
        let (set_link, link) = watch::channel(Link::Opening);
        let (set_tools, tools) = watch::channel(None);
        let keeper = Keeper {
            config: Arc::clone(&config),
            wanted: Arc::clone(&wanted),
            link: set_link,
            tools: set_tools,
            changed,
            stop,
        };
        (Self { config, wanted, link, tools }, keeper.run())
    }

    /// The connection, as soon as it is there.
    ///
    /// # Errors
    /// It is not there in time; the text says why.
    pub(super) async fn up(&self, deadline: Instant) -> Result<Arc<Up>, String> {
        let mut link = self.link.clone();
        let mut until = deadline;
        let mut last = None;
        loop {
            self.want();
            match link.borrow_and_update().clone() {
                Link::Up(up) if !up.signs.gone.is_cancelled() && !up.peer.is_transport_closed() => return Ok(up),
                Link::Down { why } => {
                    until = until.min(Instant::now() + PATIENCE);
                    last = Some(why);
                }
                Link::Up(_) | Link::Opening => {}
            }
            match timeout_at(until, link.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err("the worker is shutting down".to_owned()),
                Err(_) => return Err(last.map_or("it does not answer".to_owned(), |why| why.to_string())),
            }
        }
    }

    /// Has the server connected.
    pub(super) fn want(&self) {
        self.wanted.notify_one();
    }

    /// The tools as last listed; `None` if they never were.
    pub(super) fn tools(&self) -> Option<Arc<[Tool]>> {
        self.tools.borrow().clone()
    }

    /// Waits until the tools were listed once, or the server cannot be reached, but not for long.
    pub(super) async fn listed(&self) {
        self.want();
        let (mut tools, mut link) = (self.tools.clone(), self.link.clone());
        let listed = tools.wait_for(Option::is_some);
        let failed = link.wait_for(|link| matches!(link, Link::Down { .. }));
        // Whichever comes first; errors mean that the pool is closed.
        let _ended = timeout(PATIENCE, async {
            tokio::select! {
                biased;
                _ = listed => {}
                _ = failed => {}
            }
        })
        .await;
    }
}

/// Keeps one server's connection.
struct Keeper {
    config: Arc<ServerConfig>,
    wanted: Arc<Notify>,
    link: watch::Sender<Link>,
    tools: watch::Sender<Option<Arc<[Tool]>>>,
    changed: watch::Sender<u64>,
    stop: CancellationToken,
}

impl Keeper {
    async fn run(self) {
        self.stop.run_until_cancelled(self.wanted.notified()).await;
        let mut failures = 0;
        while !self.stop.is_cancelled() {
            self.link.send_replace(Link::Opening);
            let since = Instant::now();
            let why = self.connect_and_keep().await;
            if self.stop.is_cancelled() {
                break;
            }
            failures = if since.elapsed() < STABLE { failures + 1 } else { 1 };
            let pause = pause_after(failures);
            tracing::warn!(
                mcp.server = self.config.name,
                failures,
                pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                "the connection to an MCP server failed: {why}"
            );
            self.link.send_replace(Link::Down { why: why.into() });
            self.stop.run_until_cancelled(self.rest(pause)).await;
        }
    }

    /// A pause, which ends early if somebody waits for the connection.
    async fn rest(&self, pause: Duration) {
        tokio::time::sleep(pause.min(TRY_GAP)).await;
        let _wanted_or_not = timeout(pause.saturating_sub(TRY_GAP), self.wanted.notified()).await;
    }

    /// One connection from its begin to its end; answers why it ended.
    async fn connect_and_keep(&self) -> String {
        let (routes, list_changed, signs) = (Arc::default(), Arc::default(), Signs::default());
        let handler = Handler { routes: Arc::clone(&routes), list_changed: Arc::clone(&list_changed) };
        let connecting = transport::connect(&self.config.name, &self.config.transport, handler, &signs);
        let connected = tokio::select! {
            connected = timeout(MCP_CONNECT_TIMEOUT, connecting) => connected,
            () = self.stop.cancelled() => return "the worker is shutting down".to_owned(),
        };
        let connection = match connected {
            Ok(Ok(connection)) => connection,
            Ok(Err(why)) => return why,
            Err(_) => return format!("no connection within {} ms", MCP_CONNECT_TIMEOUT.as_millis()),
        };
        tracing::info!(mcp.server = self.config.name, "an MCP server is connected");
        let (cancels, cancelled) = mpsc::channel(CANCEL_QUEUE);
        let peer = connection.running.peer().clone();
        let up = Up { peer, signs, routes, cancels, in_flight: watch::Sender::new(0) };
        self.keep(connection, Arc::new(up), cancelled, &list_changed).await
    }

    async fn keep(
        &self,
        connection: Connection<Handler>,
        up: Arc<Up>,
        mut cancelled: mpsc::Receiver<RequestId>,
        list_changed: &Notify,
    ) -> String {
        let Connection { running, child } = connection;
        let close = running.cancellation_token();
        let mut closed = std::pin::pin!(running.waiting().fuse());
        self.link.send_replace(Link::Up(Arc::clone(&up)));
        let mut listing = std::pin::pin!(Fuse::terminated());
        listing.set(list_tools(&up.peer).fuse());
        let why = loop {
            tokio::select! {
                _ = &mut closed => break "the server closed the connection".to_owned(),
                () = up.signs.gone.cancelled() => break "the connection was lost".to_owned(),
                () = self.stop.cancelled() => break "the worker is shutting down".to_owned(),
                Some(id) = cancelled.recv() => tell_cancelled(&up.peer, id).await,
                () = list_changed.notified() => listing.set(list_tools(&up.peer).fuse()),
                listed = &mut listing => match listed {
                    Ok(tools) => self.publish(tools),
                    Err(why) => break why,
                },
            }
        };
        up.give_up();
        // What is under way still learns how it ends, for example that the server knows nothing of the session.
        self.stop.run_until_cancelled(up.settle()).await;
        close.cancel();
        if !closed.is_terminated() {
            // Whatever it takes longer for, it does without us.
            let _closed_or_not = timeout(CLOSE_TIMEOUT, closed).await;
        }
        if let Some(child) = child {
            child.end().await;
        }
        why
    }

    fn publish(&self, tools: Vec<Tool>) {
        let is_new = self.tools.send_if_modified(|known| {
            let is_new = known.as_deref() != Some(tools.as_slice());
            if is_new {
                *known = Some(tools.into());
            }
            is_new
        });
        if is_new {
            self.changed.send_modify(|count| *count += 1);
        }
    }
}

/// The pause after so many failures in a row: doubled each time, with a part that keeps workers apart.
fn pause_after(failures: u32) -> Duration {
    let pause = MCP_RETRY_MIN.saturating_mul(1 << (failures - 1).min(16)).min(MCP_RETRY_MAX);
    pause.mul_f64(rand::rng().random_range(0.75..=1.0))
}

async fn tell_cancelled(peer: &Peer<RoleClient>, id: RequestId) {
    let cancelled = CancelledNotificationParam::new(Some(id), Some("nobody waits for the result".to_owned()));
    // A server that cannot be told is about to be given up anyway.
    let _told_or_not = timeout(CANCEL_TIMEOUT, peer.notify_cancelled(cancelled)).await;
}

/// All tools of a server, page by page.
async fn list_tools(peer: &Peer<RoleClient>) -> Result<Vec<Tool>, String> {
    let has_tools = peer.peer_info().is_none_or(|info| info.capabilities.tools.is_some());
    if !has_tools {
        return Ok(Vec::new());
    }
    let pages = async {
        let mut tools = Vec::new();
        let mut cursor = None;
        for _ in 0..MCP_PAGES {
            let page = PaginatedRequestParams::default().with_cursor(cursor);
            let page = peer
                .list_tools(Some(page))
                .await
                .map_err(|error| format!("no list of tools: {}", service_cause(&error)))?;
            tools.extend(page.tools);
            cursor = page.next_cursor;
            if cursor.is_none() || tools.len() > MCP_TOOLS {
                break;
            }
        }
        Ok(tools)
    };
    let late = || Err(format!("no list of tools within {} ms", MCP_CONNECT_TIMEOUT.as_millis()));
    timeout(MCP_CONNECT_TIMEOUT, pages).await.unwrap_or_else(|_| late())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_bounded() {
        for (failures, longest) in [(1, 200), (2, 400), (3, 800), (9, 51_200), (10, 60_000), (1000, 60_000)] {
            let pause = pause_after(failures).as_millis();
            assert!((longest * 3 / 4..=longest).contains(&pause), "{failures}: {pause}");
        }
    }
}
