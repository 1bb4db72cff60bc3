//! Tools of servers of the Model Context Protocol, which the operator names in a file.

mod config;
mod content;
mod names;
mod server;
mod transport;

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use holdfast_shared::domain::limits::{MCP_DESCRIPTION_CHARS, MCP_SCHEMA_BYTES, MCP_TOOLS};
use holdfast_shared::domain::tenant::TenantId;
use holdfast_shared::domain::tool::{Tool, ToolCall, ToolOptions, ToolReturn, ToolSource, ToolSpec};
use holdfast_shared::ports::seams::Seams;
use rmcp::ServiceError;
use rmcp::model::{CallToolRequest, CallToolRequestParams, ClientRequest, JsonObject, RequestMetaObject, ServerResult};
use rmcp::service::PeerRequestOptions;
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

pub use config::{McpConfig, McpConfigError, SETTING};
use server::{Server, Up};
use transport::service_cause;

use super::{Arguments, Progress, first_chars};

/// The field of a call's `_meta` that holds the id of the call.
pub const IDEMPOTENCY_KEY: &str = "idempotencyKey";

/// Times that a call is sent which certainly does not reach the server.
const TRIES: u32 = 3;

/// The operator's servers and the connections to them. Connections are made when they are first wanted, and made anew
/// when they fail; no server waits for another. Dropping the pool ends them, and kills the child processes.
pub struct McpPool {
    servers: Vec<Server>,
    changed: watch::Receiver<u64>,
    seams: Seams,
    stop: CancellationToken,
    tasks: Mutex<JoinSet<()>>,
}

/// A tool that a server has, for one tenant or for all.
#[derive(Debug, Clone, PartialEq)]
pub struct Discovered {
    /// The tool, with a new id.
    pub tool: Tool,
    /// Whose agents may have it; `None`: everybody's.
    pub tenant: Option<TenantId>,
}

/// A call for a server.
#[derive(Debug, Clone, Copy)]
pub struct McpCall<'a> {
    /// Whose agent calls.
    pub tenant: &'a TenantId,
    /// The server's name in the settings.
    pub server: &'a str,
    /// The tool's name at the server.
    pub tool: &'a str,
    /// The call; its id goes along as the idempotency key.
    pub call: &'a ToolCall,
    /// Most time; `None`: as the settings of the server say.
    pub timeout: Option<Duration>,
}

impl fmt::Debug for McpPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.servers.iter().map(|server| &server.config.name)).finish()
    }
}

impl McpPool {
    /// The pool of these servers; nothing is connected yet. It must be made inside a runtime, and the process needs an
    /// installed rustls provider if a server is reached by HTTP.
    #[must_use]
    pub fn new(config: McpConfig, seams: Seams) -> Self {
        let (set_changed, changed) = watch::channel(0);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let mut servers = Vec::new();
        for config in config.servers {
            let (server, keeping) = Server::new(config, set_changed.clone(), stop.clone());
            servers.push(server);
            tasks.spawn(keeping);
        }
        Self { servers, changed, seams, stop, tasks: Mutex::new(tasks) }
    }

    /// All tools that are known of the servers, as soon as each of them was reached or could not be. A server that was
    /// reached once and is gone still counts, with its last list.
    pub async fn discover(&self) -> Vec<Discovered> {
        join_all(self.servers.iter().map(Server::listed)).await;
        self.known()
    }

    /// All tools that are known now of the servers.
    #[must_use]
    pub fn known(&self) -> Vec<Discovered> {
        let now = self.seams.now();
        let of_server = |server: &Server| -> Vec<Discovered> {
            let Some(tools) = server.tools() else { return Vec::new() };
            let usable: Vec<_> = tools.iter().filter(|tool| is_usable(server, tool)).take(MCP_TOOLS).collect();
            if usable.len() < tools.len() {
                let left_out = tools.len() - usable.len();
                tracing::warn!(
                    mcp.server = server.config.name,
                    left_out,
                    "an MCP server has too many or too large tools"
                );
            }
            let original: Vec<_> = usable.iter().map(|tool| tool.name.as_ref()).collect();
            let named = names::of_tools(&server.config.prefix, &original).into_iter().zip(usable);
            let tenants = match &server.config.tenants {
                None => vec![None],
                Some(tenants) => tenants.iter().cloned().map(Some).collect(),
            };
            let mut found = Vec::new();
            for (name, tool) in named {
                let source = ToolSource::Mcp { server: server.config.name.clone(), tool: tool.name.to_string() };
                let (spec, options) = (spec(name, tool), options(tool));
                found.extend(tenants.iter().map(|tenant| Discovered {
                    tool: Tool {
                        id: self.seams.id(),
                        spec: spec.clone(),
                        source: source.clone(),
                        options: options.clone(),
                        created_at: now,
                        updated_at: now,
                    },
                    tenant: tenant.clone(),
                }));
            }
            found
        };
        self.servers.iter().flat_map(of_server).collect()
    }

    /// Has all servers connected, without waiting for them.
    pub fn want(&self) {
        self.servers.iter().for_each(Server::want);
    }

    /// A counter that moves with every change of what is known.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }

    /// Carries a call out. A failing call is a result like any other. Dropping the future and the timeout tell the
    /// server that nobody waits any more. A call that certainly did not reach the server is sent again.
    pub async fn call(&self, what: McpCall<'_>, progress: &(dyn Fn(Progress) + Send + Sync)) -> ToolReturn {
        let McpCall { tenant, call, .. } = what;
        let is_meant = |server: &&Server| {
            let tenants = server.config.tenants.as_deref();
            server.config.name == what.server && tenants.is_none_or(|tenants| tenants.contains(tenant))
        };
        let Some(server) = self.servers.iter().find(is_meant) else {
            let why = format!("there is no server '{}'; the operator names servers in {SETTING}", what.server);
            return ToolReturn { was_executed: false, ..content::failed(call, &why) };
        };
        let arguments = match Arguments::read(call) {
            Ok(Arguments(arguments)) => arguments,
            Err(error) => return error.into_return(call),
        };
        match exchange(server, what, arguments, progress).await {
            Ok(answer) => content::tool_return(call, answer),
            Err(failure) => {
                let was_executed = failure.was_sent();
                ToolReturn { was_executed, ..content::failed(call, &failure.to_string()) }
            }
        }
    }

    /// Ends the connections properly: children may end by themselves before they are killed.
    pub async fn close(&self) {
        self.stop.cancel();
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        while tasks.join_next().await.is_some() {}
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the server '{server}' cannot be reached: {why}")]
    Unreachable { server: String, why: String },
    #[error("no answer within {} ms; 'timeout_ms' of the server in {SETTING} sets the limit", .0.as_millis())]
    TimedOut(Duration),
    #[error("{} (code {})", .0.message, .0.code.0)]
    Refused(rmcp::ErrorData),
    #[error("the connection was lost during the call; whether it took effect is not known ({0})")]
    Lost(String),
}

impl Failure {
    const fn was_sent(&self) -> bool {
        !matches!(self, Self::Unreachable { .. })
    }
}

/// A call that came to nothing.
enum Missed {
    /// The server certainly did nothing: it may be sent again.
    NotSent(String),
    /// It is over.
    Failed(Failure),
}

async fn exchange(
    server: &Server,
    what: McpCall<'_>,
    arguments: JsonObject,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<ServerResult, Failure> {
    let limit = what.timeout.unwrap_or(server.config.timeout);
    let deadline = Instant::now() + limit;
    let unreachable = |why| Failure::Unreachable { server: server.config.name.clone(), why };
    let mut tries = 1;
    loop {
        let up = server.up(deadline).await.map_err(unreachable)?;
        let params = CallToolRequestParams::new(what.tool.to_owned()).with_arguments(arguments.clone());
        match timeout_at(deadline, send(&up, params, &what.call.id, progress)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(Missed::NotSent(why))) => {
                up.give_up();
                if tries == TRIES {
                    return Err(unreachable(why));
                }
                tries += 1;
            }
            Ok(Err(Missed::Failed(failure))) => return Err(failure),
            Err(_) => return Err(Failure::TimedOut(limit)),
        }
    }
}

async fn send(
    up: &std::sync::Arc<Up>,
    params: CallToolRequestParams,
    call_id: &str,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<ServerResult, Missed> {
    let mut meta = RequestMetaObject::default();
    meta.insert(IDEMPOTENCY_KEY.to_owned(), Value::from(call_id));
    let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
    let options = PeerRequestOptions::no_options().with_meta(meta);
    let sent = up.peer.send_request_with_option(request, options).await;
    let handle = sent.map_err(|error| Missed::NotSent(service_cause(&error)))?;
    let id = handle.id.clone();
    let (in_flight, mut notices) = up.watch(id.clone(), handle.progress_token.clone(), call_id);
    let mut answer = std::pin::pin!(handle.await_response());
    let mut reached = f64::NEG_INFINITY;
    let answer = loop {
        tokio::select! {
            biased;
            Some(notice) = notices.recv() => {
                // They may come out of order; one that goes back is late.
                if notice.progress > reached {
                    reached = notice.progress;
                    progress(notice);
                }
            }
            answer = &mut answer => break answer,
        }
    };
    let was_handed = up.signs.was_handed(&id);
    in_flight.answered();
    let error = match answer {
        Ok(answer) => return Ok(answer),
        Err(ServiceError::McpError(error)) => return Err(Missed::Failed(Failure::Refused(error))),
        Err(error) => error,
    };
    let why = service_cause(&error);
    if !was_handed {
        return Err(Missed::NotSent(why));
    }
    // Whatever went wrong, the next call shall not meet it again.
    up.give_up();
    Err(Missed::Failed(Failure::Lost(why)))
}

fn is_usable(server: &Server, tool: &rmcp::model::Tool) -> bool {
    let size = serde_json::to_vec(&tool.input_schema).map_or(usize::MAX, |schema| schema.len());
    if size > MCP_SCHEMA_BYTES {
        tracing::warn!(mcp.server = server.config.name, tool = %tool.name, size, "the schema of a tool is too large");
    }
    size <= MCP_SCHEMA_BYTES
}

fn spec(name: String, tool: &rmcp::model::Tool) -> ToolSpec {
    let described = tool.description.as_deref().or(tool.title.as_deref()).unwrap_or(&tool.name);
    let mut parameters = (*tool.input_schema).clone();
    // Some providers want both although the protocol allows to leave them out.
    parameters.entry("type").or_insert_with(|| "object".into());
    parameters.entry("properties").or_insert_with(|| Value::Object(Map::new()));
    ToolSpec {
        name,
        description: first_chars(described, MCP_DESCRIPTION_CHARS).replace('\0', ""),
        parameters: Value::Object(parameters),
    }
}

/// What the server's hints say of its tool. They are hints; the operator named the server because it can be trusted.
fn options(tool: &rmcp::model::Tool) -> ToolOptions {
    let hint = |hint: fn(&rmcp::model::ToolAnnotations) -> Option<bool>| {
        tool.annotations.as_ref().and_then(hint).unwrap_or(false)
    };
    let is_read_only = hint(|annotations| annotations.read_only_hint);
    ToolOptions {
        is_parallel: is_read_only,
        is_repeatable: is_read_only || hint(|annotations| annotations.idempotent_hint),
        ..ToolOptions::default()
    }
}
