//! MCP clients against real servers: the protocol's own reference server on Node.js, and one made with the official Python
//! package, both over their standard streams and over HTTP.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use holdfast_shared::domain::limits::MCP_CONNECT_TIMEOUT;
use holdfast_shared::domain::tenant::TenantId;
use holdfast_shared::domain::tool::{ToolCall, ToolReturn, ToolSource, ToolStatus};
use holdfast_shared::ports::seams::Seams;
use holdfast_shared::ports::store::Store;
use holdfast_shared::store::SqliteStore;
use holdfast_worker::maintenance::mcp_tools;
use holdfast_worker::tools::Progress;
use holdfast_worker::tools::mcp::{Discovered, McpCall, McpConfig, McpPool};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::harness::{DEADLINE, Process, directory, free_port, tools_directory, until};

fn pool(servers: &Value) -> McpPool {
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let config = McpConfig::parse(&json!({"mcpServers": servers}).to_string(), &|_| None).expect("a configuration");
    McpPool::new(config, Seams::system())
}

fn python() -> PathBuf {
    tools_directory("mcp-python").join("bin/python")
}

fn python_server() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mcp/python/server.py")
}

fn everything() -> PathBuf {
    tools_directory("mcp-node").join("node_modules/@modelcontextprotocol/server-everything/dist/index.js")
}

/// How a server of the Python package is started as a child.
pub fn python_by_stdio() -> Value {
    json!({"command": python(), "args": [python_server(), "stdio"], "env": {"GIVEN": "yes"}})
}

/// How the reference server is started as a child.
pub fn everything_by_stdio() -> Value {
    json!({"command": "node", "args": [everything(), "stdio"]})
}

/// A server that listens on a port, and can be started there again.
pub struct HttpServer {
    port: u16,
    start: fn(u16) -> (Command, &'static str),
    /// The process.
    pub process: Process,
}

impl HttpServer {
    /// One of the Python package.
    pub async fn python() -> Self {
        Self::start(|port| {
            let mut command = Command::new(python());
            command.args([python_server(), &port.to_string()]);
            (command, "Uvicorn running on")
        })
        .await
    }

    /// The reference server.
    pub async fn everything() -> Self {
        Self::start(|port| {
            let mut command = Command::new("node");
            command.arg(everything()).arg("streamableHttp").env("PORT", port.to_string());
            (command, "listening on port")
        })
        .await
    }

    async fn start(start: fn(u16) -> (Command, &'static str)) -> Self {
        let port = free_port();
        let process = Self::spawn(port, start).await;
        Self { port, start, process }
    }

    async fn spawn(port: u16, start: fn(u16) -> (Command, &'static str)) -> Process {
        let (mut command, ready) = start(port);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Process::spawn("an MCP server", command);
        process.logged(ready).await;
        process
    }

    /// Starts it on the same port again.
    pub async fn start_again(&mut self) {
        self.process = Self::spawn(self.port, self.start).await;
    }

    /// How it is named in the settings.
    pub fn entry(&self) -> Value {
        json!({"url": format!("http://127.0.0.1:{}/mcp", self.port), "headers": {"Authorization": "Bearer s3cret"}})
    }
}

/// Calls a tool of the server `srv`.
async fn call(pool: &McpPool, tool: &str, arguments: &Value) -> ToolReturn {
    call_within(pool, tool, arguments, None).await
}

async fn call_within(pool: &McpPool, tool: &str, arguments: &Value, limit: Option<Duration>) -> ToolReturn {
    let call = ToolCall::new("call_1", format!("srv__{tool}"), arguments.to_string());
    let tenant = TenantId::default();
    let what = McpCall { tenant: &tenant, server: "srv", tool, call: &call, timeout: limit };
    timeout(DEADLINE, pool.call(what, &|_| {})).await.expect("an answer in time")
}

/// Calls a tool of a server that has just died. A call that was on its way when the death was noticed says that its outcome
/// is not known, and nothing else.
async fn call_again(pool: &McpPool, tool: &str) -> ToolReturn {
    timeout(DEADLINE, async {
        loop {
            let result = call(pool, tool, &json!({})).await;
            if result.status == ToolStatus::Success {
                return result;
            }
            assert!(result.text.contains("is not known"), "{}", result.text);
        }
    })
    .await
    .expect("the server is back")
}

/// The JSON in a successful result.
fn told(result: &ToolReturn) -> Value {
    assert_eq!(result.status, ToolStatus::Success, "{}", result.text);
    serde_json::from_str(&result.text).expect("JSON")
}

fn names(found: &[Discovered]) -> Vec<&str> {
    found.iter().map(|discovered| discovered.tool.spec.name.as_str()).collect()
}

/// Waits until a file has a line.
pub async fn until_file_has(path: &Path, line: &str) {
    let has = async || std::fs::read_to_string(path).is_ok_and(|text| text.lines().any(|found| found == line));
    until(&format!("{line:?} is in {}", path.display()), has).await;
}

/// Waits until a process is dead.
pub async fn until_gone(pid: &str) {
    // What is dead and not yet waited for still has a name, and state Z.
    let is_gone = async || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        !stat.is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z')))
    };
    until(&format!("process {pid} is gone"), is_gone).await;
}

/// Sends a signal to a process.
pub fn kill(signal: &str, pid: &Value) {
    let status = Command::new("kill").args([signal, &pid.to_string()]).status().expect("kill is a program");
    assert!(status.success(), "no process {pid}");
}

async fn speaks_with_everything(entry: &Value) {
    let pool = pool(&json!({"srv": entry}));
    let found = pool.discover().await;
    let by_name = |name: &str| {
        let tool = found.iter().map(|discovered| &discovered.tool).find(|tool| tool.spec.name == name);
        tool.unwrap_or_else(|| panic!("{name} is not in {:?}", names(&found)))
    };
    let echo = by_name("srv__echo");
    assert_eq!(echo.source, ToolSource::Mcp { server: "srv".to_owned(), tool: "echo".to_owned() });
    assert!(echo.options.is_parallel && echo.options.is_repeatable, "it only reads");
    assert_eq!(echo.spec.parameters["properties"]["message"]["type"], "string");
    let zip = by_name("srv__gzip-file-as-resource");
    assert!(!zip.options.is_parallel && zip.options.is_repeatable, "it does not only read, but may be repeated");
    let toggle = by_name("srv__toggle-simulated-logging");
    assert!(!toggle.options.is_parallel && !toggle.options.is_repeatable);

    let echoed = call(&pool, "echo", &json!({"message": "hello"})).await;
    assert_eq!((echoed.status, echoed.text.as_str(), &echoed.parts), (ToolStatus::Success, "Echo: hello", &None));
    let weather = told(&call(&pool, "get-structured-content", &json!({"location": "New York"})).await);
    assert!(weather["temperature"].is_number(), "{weather}");
    let resource = call(&pool, "get-resource-reference", &json!({"resourceType": "Text", "resourceId": 1})).await;
    assert!(resource.text.contains("[resource demo://resource/dynamic/text/1]"), "{}", resource.text);
    let image = call(&pool, "get-tiny-image", &json!({})).await;
    let parts = image.parts.expect("parts");
    let kinds: Vec<_> = parts.iter().map(|part| part["type"].as_str().unwrap_or_default()).collect();
    assert_eq!(kinds, ["text", "image", "text"]);
    assert_eq!(parts[1]["source"]["media_type"], "image/png");
    assert!(image.text.contains("[image 1: image/png]"), "{}", image.text);
    let wrong = call(&pool, "echo", &json!({"message": 5})).await;
    assert_eq!(wrong.status, ToolStatus::Error, "{}", wrong.text);
    let unknown = call(&pool, "nothing", &json!({})).await;
    assert_eq!(unknown.status, ToolStatus::Error, "{}", unknown.text);

    let seen = Mutex::new(Vec::new());
    let progress = |notice: Progress| seen.lock().unwrap_or_else(PoisonError::into_inner).push(notice);
    let long = ToolCall::new("call_2", "srv__trigger-long-running-operation", "{\"duration\": 0.4, \"steps\": 4}");
    let tenant = TenantId::default();
    let what =
        McpCall { tenant: &tenant, server: "srv", tool: "trigger-long-running-operation", call: &long, timeout: None };
    let done = pool.call(what, &progress).await;
    assert!(done.text.contains("completed"), "{}", done.text);
    let seen: Vec<_> = seen
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .iter()
        .map(|notice| (notice.progress, notice.total))
        .collect();
    // The last notice and the result race.
    assert!(seen.starts_with(&[(1.0, Some(4.0)), (2.0, Some(4.0)), (3.0, Some(4.0))]), "{seen:?}");
    pool.close().await;
}

#[tokio::test]
async fn the_reference_server_is_spoken_with_by_stdio() {
    speaks_with_everything(&everything_by_stdio()).await;
}

#[tokio::test]
async fn the_reference_server_is_spoken_with_by_http() {
    let server = HttpServer::everything().await;
    speaks_with_everything(&server.entry()).await;
}

async fn speaks_with_python(entry: &Value, authorization: &Value) {
    let pool = pool(&json!({"srv": entry}));
    let mut changes = pool.changes();
    let found = pool.discover().await;
    // Two to a page: the list was read to its end.
    let expected = ["srv__process", "srv__meta", "srv__odd_name_here", "srv__wait", "srv__die", "srv__grow"];
    assert_eq!(names(&found), expected);
    let odd = ToolSource::Mcp { server: "srv".to_owned(), tool: "odd.name:here".to_owned() };
    assert_eq!(found[2].tool.source, odd);
    let told = told(&call(&pool, "meta", &json!({})).await);
    assert_eq!((&told["meta"]["idempotencyKey"], &told["authorization"]), (&json!("call_1"), authorization), "{told}");
    changes.mark_unchanged();
    call(&pool, "grow", &json!({})).await;
    timeout(DEADLINE, changes.changed()).await.expect("a change in time").expect("the pool is open");
    assert!(names(&pool.discover().await).contains(&"srv__grown"));
    assert_eq!(call(&pool, "grown", &json!({})).await.text, "grown");
}

#[tokio::test]
async fn the_python_package_is_spoken_with_by_stdio() {
    speaks_with_python(&python_by_stdio(), &Value::Null).await;
}

#[tokio::test]
async fn the_python_package_is_spoken_with_by_http() {
    let server = HttpServer::python().await;
    speaks_with_python(&server.entry(), &json!("Bearer s3cret")).await;
}

#[tokio::test]
async fn children_get_no_environment_but_what_they_need_and_what_they_are_given() {
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some(), "the tests have an environment");
    let pool = pool(&json!({"srv": python_by_stdio()}));
    let env = told(&call(&pool, "process", &json!({})).await)["env"].clone();
    assert_eq!(env["GIVEN"], "yes");
    // Python adds the last one by itself.
    let names: Vec<_> = env.as_object().expect("an object").keys().map(String::as_str).collect();
    assert!(names.iter().all(|name| ["GIVEN", "HOME", "PATH", "LC_CTYPE"].contains(name)), "{names:?}");
}

async fn is_told_of_cancels(entry: &Value) {
    let data = directory();
    let pool = pool(&json!({"srv": entry}));
    let path = data.path().join("drop");
    let arguments = json!({"path": path});
    tokio::select! {
        result = call(&pool, "wait", &arguments) => panic!("{result:?}"),
        () = until_file_has(&path, "begun") => {}
    }
    until_file_has(&path, "cancelled").await;
    let path = data.path().join("timeout");
    let result = call_within(&pool, "wait", &json!({"path": path}), Some(Duration::from_secs(3))).await;
    assert_eq!(result.status, ToolStatus::Error);
    assert!(result.text.contains("3000 ms; 'timeout_ms'"), "{}", result.text);
    until_file_has(&path, "cancelled").await;
    assert_eq!(call(&pool, "odd.name:here", &json!({"text": "still there"})).await.text, "still there");
}

#[tokio::test]
async fn a_server_is_told_of_cancels_by_stdio() {
    is_told_of_cancels(&python_by_stdio()).await;
}

#[tokio::test]
async fn a_server_is_told_of_cancels_by_http() {
    let server = HttpServer::python().await;
    is_told_of_cancels(&server.entry()).await;
}

#[tokio::test]
async fn a_child_that_dies_is_started_again() {
    let data = directory();
    let pool = pool(&json!({"srv": python_by_stdio()}));
    let first = told(&call(&pool, "process", &json!({})).await)["pid"].clone();
    kill("-KILL", &first);
    until_gone(&first.to_string()).await;
    let second = told(&call_again(&pool, "process").await)["pid"].clone();
    assert_ne!(first, second);
    // In the middle of a call the outcome is unknown, and nothing is done twice.
    let path = data.path().join("calls");
    let died = call(&pool, "die", &json!({"path": path})).await;
    assert_eq!((died.status, died.was_executed), (ToolStatus::Error, true));
    assert!(died.text.contains("is not known"), "{}", died.text);
    let third = told(&call_again(&pool, "process").await)["pid"].clone();
    assert_ne!(second, third);
    assert_eq!(std::fs::read_to_string(&path).expect("the file"), "died\n");
}

async fn survives_a_restart(mut server: HttpServer, tool: &str, arguments: &Value) {
    let pool = pool(&json!({"srv": server.entry()}));
    let before = call(&pool, tool, arguments).await;
    assert_eq!(before.status, ToolStatus::Success, "{}", before.text);
    for _ in 0..2 {
        server.process.kill_9();
        server.start_again().await;
        let after = call(&pool, tool, arguments).await;
        assert_eq!(after.status, ToolStatus::Success, "{}", after.text);
    }
    // Also one that is away for a moment is waited for.
    server.process.kill_9();
    let (after, ()) = tokio::join!(call(&pool, tool, arguments), server.start_again());
    assert_eq!(after.status, ToolStatus::Success, "{}", after.text);
}

#[tokio::test]
async fn the_reference_server_may_be_started_again() {
    survives_a_restart(HttpServer::everything().await, "echo", &json!({"message": "hello"})).await;
}

#[tokio::test]
async fn a_server_of_the_python_package_may_be_started_again() {
    survives_a_restart(HttpServer::python().await, "odd.name:here", &json!({"text": "hello"})).await;
}

#[tokio::test]
async fn a_server_that_is_started_again_with_nobody_calling_is_listed_again() {
    let mut server = HttpServer::python().await;
    let pool = pool(&json!({"srv": server.entry()}));
    let mut changes = pool.changes();
    pool.discover().await;
    changes.mark_unchanged();
    call(&pool, "grow", &json!({})).await;
    timeout(DEADLINE, changes.changed()).await.expect("a change in time").expect("the pool is open");
    server.process.kill_9();
    server.start_again().await;
    timeout(DEADLINE, changes.changed()).await.expect("another in time").expect("the pool is open");
    assert!(!names(&pool.discover().await).contains(&"srv__grown"));
}

#[tokio::test]
async fn a_server_that_dies_in_a_call_over_http_leaves_its_outcome_open() {
    let data = directory();
    let server = HttpServer::python().await;
    let pool = pool(&json!({"srv": server.entry()}));
    let path = data.path().join("calls");
    let died = call(&pool, "die", &json!({"path": path})).await;
    assert_eq!(died.status, ToolStatus::Error);
    assert!(died.text.contains("is not known"), "{}", died.text);
    assert_eq!(std::fs::read_to_string(&path).expect("the file"), "died\n");
}

#[tokio::test]
async fn dead_and_silent_servers_are_in_nobodys_way() {
    let port = free_port();
    let pool = pool(&json!({
        "missing": {"command": "/no/such/program"},
        "ended": {"command": "false"},
        "silent": {"command": "sleep", "args": ["1000"]},
        "closed": {"url": format!("http://127.0.0.1:{port}/mcp")},
        "srv": python_by_stdio(),
    }));
    let (hello, nothing) = (json!({"text": "hello"}), ToolCall::new("call_1", "x__y", "{}"));
    let tenant = TenantId::default();
    let of = |server, limit| McpCall { tenant: &tenant, server, tool: "y", call: &nothing, timeout: Some(limit) };
    // While the silent one is waited for, the others work.
    tokio::select! {
        biased;
        result = pool.call(of("silent", MCP_CONNECT_TIMEOUT), &|_| {}) => panic!("nothing came first: {}", result.text),
        result = call(&pool, "odd.name:here", &hello) => assert_eq!(result.text, "hello"),
    }
    assert_eq!(pool.discover().await.len(), 6, "the tools of the server that answers");
    for (server, reason) in
        [("missing", "/no/such/program"), ("ended", "cannot be reached"), ("closed", "cannot be reached")]
    {
        let result = pool.call(of(server, Duration::from_secs(1)), &|_| {}).await;
        assert_eq!((result.status, result.was_executed), (ToolStatus::Error, false), "{}", result.text);
        assert!(result.text.contains(reason), "{server}: {}", result.text);
    }
}

#[tokio::test]
async fn children_end_with_the_pool_and_so_does_what_they_started() {
    for is_closed in [true, false] {
        let data = directory();
        let path = data.path().join("pids");
        let script =
            format!("sleep 1000 & echo $! >{}; exec {} {} stdio", path.display(), python().display(), python_server());
        let pool = pool(&json!({"srv": {"command": "sh", "args": ["-c", script]}}));
        let child = told(&call(&pool, "process", &json!({})).await)["pid"].to_string();
        let grandchild = std::fs::read_to_string(&path).expect("a process id");
        if is_closed {
            timeout(DEADLINE, pool.close()).await.expect("it closes in time");
        } else {
            drop(pool);
        }
        until_gone(&child).await;
        until_gone(grandchild.trim()).await;
    }
}

/// What a tenant's agents can have of these names.
async fn stored(store: &dyn Store, tenant: &str, names: &[&str]) -> Vec<String> {
    let tenant = TenantId::parse(tenant).expect("a tenant");
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let tools = store.tools_by_name(&tenant, &names).await.expect("a store");
    tools.into_iter().map(|tool| tool.spec.name).collect()
}

#[tokio::test]
async fn the_store_follows_the_servers_without_waiting_for_all() {
    let data = directory();
    let store = SqliteStore::open(&data.path().join("store.db")).await.expect("a store");
    let pool = pool(&json!({"silent": {"command": "sleep", "args": ["1000"]}, "srv": python_by_stdio()}));
    let look = async {
        for name in ["srv__grow", "srv__grown"] {
            let is_stored = async || !stored(&store, "default", &[name]).await.is_empty();
            until(&format!("{name} is stored"), is_stored).await;
            if name == "srv__grow" {
                call(&pool, "grow", &json!({})).await;
            }
        }
    };
    tokio::select! {
        () = mcp_tools::keep_stored(&pool, &store) => panic!("it stopped"),
        () = look => {}
    }
}

#[tokio::test]
async fn tools_are_for_the_tenants_that_the_operator_names() {
    let data = directory();
    let store = SqliteStore::open(&data.path().join("store.db")).await.expect("a store");
    let mut entry = python_by_stdio();
    entry["tenants"] = json!(["red", "blue"]);
    let pool = pool(&json!({"srv": entry, "other": everything_by_stdio()}));
    mcp_tools::put(&store, pool.discover().await).await.expect("a store");
    let names = ["srv__meta", "other__echo"];
    assert_eq!(stored(&store, "red", &names).await, names);
    assert_eq!(stored(&store, "blue", &names).await, names);
    assert_eq!(stored(&store, "default", &names).await, ["other__echo"]);
    let refused = call(&pool, "meta", &json!({})).await;
    assert!(!refused.was_executed && refused.text.contains("there is no server 'srv'"), "{}", refused.text);
}
