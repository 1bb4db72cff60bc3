//! HTTP tools that count: how often a call was executed, under which idempotency key, how many at the same time. Gates hold
//! them before or after the execution, so that a test can break things exactly there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use super::gate::Gate;
use super::harness::DEADLINE;
use super::socket::{Left, Reply, Request, Server};

/// The header with the call's id.
const KEY: &str = "idempotency-key";

/// What a tool answers.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// A text.
    Text(String),
    /// JSON.
    Json(Value),
    /// A status that is no success, with a text.
    Status(u16, String),
    /// Nothing: the connection is closed.
    HangUp,
}

/// How a tool behaves.
#[derive(Clone)]
pub struct Behaviour {
    outcome: Arc<dyn Fn(&Value) -> Outcome + Send + Sync>,
    before: Option<Gate>,
    after: Option<Gate>,
}

impl Behaviour {
    /// Always the same.
    pub fn always(outcome: Outcome) -> Self {
        Self::of(move |_arguments| outcome.clone())
    }

    /// What a function makes of the arguments.
    pub fn of(outcome: impl Fn(&Value) -> Outcome + Send + Sync + 'static) -> Self {
        Self { outcome: Arc::new(outcome), before: None, after: None }
    }

    /// Waits at a gate with each request before it is executed and counted.
    pub fn held_before(self, gate: &Gate) -> Self {
        Self { before: Some(gate.clone()), ..self }
    }

    /// Waits at a gate with each answer: the call was executed, and nobody knows it yet.
    pub fn held_after(self, gate: &Gate) -> Self {
        Self { after: Some(gate.clone()), ..self }
    }
}

/// An execution.
#[derive(Debug, Clone)]
pub struct Execution {
    /// The idempotency key; empty if there was none.
    pub key: String,
    /// The arguments: the body, or the query of a request without one.
    pub arguments: Value,
    /// The request as it came.
    pub request: Request,
}

/// What is known of a tool.
#[derive(Debug, Clone, Default)]
struct Record {
    executions: Vec<Execution>,
    under_way: usize,
    most_at_once: usize,
    left: usize,
}

/// The server of tools.
pub struct ToolServer {
    server: Server,
    tools: Arc<Mutex<BTreeMap<String, Arc<Inner>>>>,
}

struct Inner {
    behaviour: Behaviour,
    record: watch::Sender<Record>,
}

/// A tool.
pub struct CountingTool {
    /// Where it is called.
    pub url: String,
    name: String,
    inner: Arc<Inner>,
}

impl ToolServer {
    /// Starts it.
    pub async fn start() -> Self {
        let tools: Arc<Mutex<BTreeMap<String, Arc<Inner>>>> = Arc::default();
        let known = Arc::clone(&tools);
        let handler = move |request: Request, reply: Reply| {
            let tool = known.lock().unwrap_or_else(PoisonError::into_inner).get(&request.path).cloned();
            async move {
                // Whether the caller hears it is its own affair.
                let _left = match tool {
                    Some(tool) => tool.execute(request, reply).await,
                    None => reply.text(404, &[], "text/plain", "no such tool").await,
                };
            }
            .boxed()
        };
        Self { server: Server::start(Arc::new(handler)).await, tools }
    }

    /// A tool of this name; names may repeat.
    pub fn tool(&self, name: &str, behaviour: Behaviour) -> CountingTool {
        let mut tools = self.tools.lock().unwrap_or_else(PoisonError::into_inner);
        let path = format!("/{}/{name}", tools.len());
        let inner = Arc::new(Inner { behaviour, record: watch::Sender::default() });
        tools.insert(path.clone(), Arc::clone(&inner));
        CountingTool { url: format!("{}{path}", self.server.base), name: name.to_owned(), inner }
    }
}

impl CountingTool {
    /// The body that makes the tool known to the program; `more` wins.
    pub fn definition(&self, parameters: &Value, more: &Value) -> Value {
        let mut body = json!({
            "source_type": "http",
            "source_code": self.url,
            "json_schema": {"name": self.name, "description": "Counts.", "parameters": parameters},
        });
        if let (Value::Object(body), Value::Object(more)) = (&mut body, more.clone()) {
            body.extend(more);
        }
        body
    }

    /// Executions so far.
    pub fn executions(&self) -> Vec<Execution> {
        self.inner.record.borrow().executions.clone()
    }

    /// How often each key was executed.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for execution in self.executions() {
            *counts.entry(execution.key).or_default() += 1;
        }
        counts
    }

    /// The most that were executed at the same time.
    pub fn most_at_once(&self) -> usize {
        self.inner.record.borrow().most_at_once
    }

    /// Waits until so many were executed.
    pub async fn executed(&self, count: usize) {
        self.wait(|record| record.executions.len() >= count, "executions", count).await;
    }

    /// Waits until so many callers went away before their answer.
    pub async fn left(&self, count: usize) {
        self.wait(|record| record.left >= count, "callers that left", count).await;
    }

    async fn wait(&self, is_so: impl Fn(&Record) -> bool, what: &str, count: usize) {
        let mut record = self.inner.record.subscribe();
        let waited = timeout(DEADLINE, record.wait_for(is_so)).await.is_ok();
        assert!(waited, "not {count} {what} of {}: {:#?}", self.name, self.inner.record.borrow());
    }
}

impl Inner {
    async fn execute(&self, request: Request, mut reply: Reply) -> Result<(), Left> {
        self.pass(self.behaviour.before.as_ref(), &mut reply).await?;
        let arguments = if request.body.is_null() { json!(request.query) } else { request.body.clone() };
        let outcome = (self.behaviour.outcome)(&arguments);
        let key = request.header(KEY).to_owned();
        self.record.send_modify(|record| {
            record.executions.push(Execution { key, arguments, request });
            record.under_way += 1;
            record.most_at_once = record.most_at_once.max(record.under_way);
        });
        let passed = self.pass(self.behaviour.after.as_ref(), &mut reply).await;
        self.record.send_modify(|record| record.under_way -= 1);
        passed?;
        match outcome {
            Outcome::Text(text) => reply.text(200, &[], "text/plain; charset=utf-8", &text).await,
            Outcome::Json(json) => reply.json(200, &[], &json).await,
            Outcome::Status(status, text) => reply.text(status, &[], "text/plain", &text).await,
            Outcome::HangUp => Ok(()),
        }
    }

    async fn pass(&self, gate: Option<&Gate>, reply: &mut Reply) -> Result<(), Left> {
        let Some(gate) = gate else { return Ok(()) };
        tokio::select! {
            () = gate.pass() => Ok(()),
            left = reply.left() => {
                self.record.send_modify(|record| record.left += 1);
                Err(left)
            }
        }
    }
}

mod tests {
    use super::{Behaviour, Gate, Outcome, ToolServer, Value, json};
    use crate::client::Client;

    #[tokio::test]
    async fn executions_are_counted_by_key() {
        let server = ToolServer::start().await;
        let double = Behaviour::of(|arguments| Outcome::Json(json!(arguments["x"].as_i64().unwrap_or_default() * 2)));
        let tool = server.tool("double", double);
        let other = server.tool("double", Behaviour::always(Outcome::Status(500, "no".to_owned())));
        let client = Client::new("");
        for (key, x) in [("call_a", 1), ("call_b", 2), ("call_a", 1)] {
            let answer = client.post_with(&tool.url, &[(super::KEY, key)], &json!({"x": x})).await;
            assert_eq!(answer.ok(), json!(2 * x));
        }
        assert_eq!(tool.counts(), [("call_a".to_owned(), 2), ("call_b".to_owned(), 1)].into());
        assert_eq!(client.get(&format!("{}?x=3", other.url)).await.status, 500);
        let execution = &other.executions()[0];
        assert_eq!((execution.request.method.as_str(), &execution.arguments), ("GET", &json!({"x": "3"})));
        assert_eq!(client.get(&format!("{}/nothing", server.server.base)).await.status, 404);
        let definition = tool.definition(&json!({"type": "object"}), &json!({"enable_parallel_execution": true}));
        let told = (&definition["json_schema"]["name"], &definition["enable_parallel_execution"]);
        assert_eq!(told, (&json!("double"), &json!(true)));
    }

    #[tokio::test]
    async fn gates_hold_calls_before_and_after_their_execution() {
        let server = ToolServer::start().await;
        let (before, after) = (Gate::shut(), Gate::shut());
        let big = Outcome::Text("x".repeat(300_000));
        let tool = server.tool("held", Behaviour::always(big).held_before(&before).held_after(&after));
        let client = Client::new("");
        let empty = json!({});
        let call = || client.post(&tool.url, &empty);
        let watching = async {
            before.arrived(2).await;
            assert!(tool.executions().is_empty(), "executed through a shut gate");
            before.open();
            after.arrived(2).await;
            assert_eq!((tool.executions().len(), tool.most_at_once()), (2, 2));
            after.open();
        };
        let (one, two, ()) = tokio::join!(call(), call(), watching);
        assert_eq!((one.status, two.status), (200, 200));
        let never = Gate::shut();
        let tool = server.tool("never", Behaviour::always(Outcome::HangUp).held_after(&never));
        {
            let mut calling = std::pin::pin!(client.post(&tool.url, &Value::Null));
            tokio::select! {
                _ = &mut calling => panic!("answered through a shut gate"),
                () = tool.executed(1) => {}
            }
        }
        tool.left(1).await;
    }
}
