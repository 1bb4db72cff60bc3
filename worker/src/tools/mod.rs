//! Tools, carried out: those that the server brings along, and those of its clients.

pub mod http;
pub mod mcp;
mod memory;
mod patch;
pub mod python;
mod search;

use std::time::Duration;

use holdfast_shared::domain::Timestamp;
use holdfast_shared::domain::agent::Agent;
use holdfast_shared::domain::builtin_tools::{CONVERSATION_SEARCH, MEMORY_FINISH_EDITS, SEND_MESSAGE};
use holdfast_shared::domain::ids::StepId;
use holdfast_shared::domain::lease::Lease;
use holdfast_shared::domain::limits::TOOL_ERROR_CHARS;
use holdfast_shared::domain::tenant::TenantId;
use holdfast_shared::domain::tool::{Tool, ToolCall, ToolReturn, ToolSource};
use holdfast_shared::outbound::Outbound;
use holdfast_shared::ports::seams::Seams;
use holdfast_shared::ports::store::{Store, StoreError};
use holdfast_shared::wire::event::ToolProgress;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use mcp::{McpCall, McpPool};
pub use memory::{Fresh, edit as edit_memory};
use python::{Invocation, PythonSandbox};
use search::Search;

/// A call that was carried out, whatever came of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Executed {
    /// The store has the result already, recorded in one transaction with what the tool did: do not record it again.
    Recorded(ToolReturn),
    /// The result is only here: record it with [`Store::record_return`]. The tool changed nothing, so that running the
    /// call again after a crash does no harm.
    Unrecorded(ToolReturn),
}

impl Executed {
    /// What came of the call.
    #[must_use]
    pub const fn tool_return(&self) -> &ToolReturn {
        match self {
            Self::Recorded(tool_return) | Self::Unrecorded(tool_return) => tool_return,
        }
    }
}

/// A call that is to be carried out.
pub struct Execution<'a> {
    /// Blocks and messages.
    pub store: &'a dyn Store,
    /// The right to write for the run.
    pub lease: &'a Lease,
    /// The step.
    pub step: StepId,
    /// The call's place in the answer, from 0.
    pub place: u32,
    /// The call.
    pub call: &'a ToolCall,
    /// The tool that it calls.
    pub tool: &'a Tool,
    /// The agent.
    pub agent: &'a Agent,
    /// Now.
    pub now: Timestamp,
    /// Gives new ids.
    pub seams: &'a Seams,
    /// The agent's owner.
    pub tenant: &'a TenantId,
    /// Most time that it may take, if the tool says so itself.
    pub own_timeout: Option<Duration>,
    /// Most time of tools that do not.
    pub default_timeout: Duration,
    /// Where it tells how far it is.
    pub report: mpsc::Sender<Progress>,
}

/// How far a call is.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// The call.
    pub call_id: String,
    /// How much is done.
    pub progress: f64,
    /// Of how much, if the tool knows.
    pub total: Option<f64>,
    /// What it does just now.
    pub message: Option<String>,
}

impl Progress {
    /// What a stream tells of it.
    #[must_use]
    pub fn shown(&self) -> ToolProgress<'_> {
        let Self { call_id, progress, total, message } = self;
        ToolProgress { tool_call_id: call_id, progress: *progress, total: *total, message: message.as_deref() }
    }
}

/// Everything that carries tools out.
pub struct Toolbox {
    /// Python functions.
    pub python: PythonSandbox,
    /// HTTP requests.
    pub outbound: Outbound,
    /// MCP servers.
    pub mcp: McpPool,
}

impl Toolbox {
    /// Carries a call out. A failing tool is a result like any other.
    ///
    /// # Errors
    /// The store could not be asked, or this worker does not hold the run any more; what came of the call is open then.
    pub async fn execute(&self, execution: Execution<'_>) -> Result<Executed, StoreError> {
        let Execution { call, tool, agent, own_timeout, default_timeout, .. } = execution;
        let timeout = own_timeout.unwrap_or(default_timeout);
        let secrets = &agent.settings.secrets;
        let tool_return = match &tool.source {
            ToolSource::Builtin { .. } => {
                return match tokio::time::timeout(timeout, builtin(&execution)).await {
                    Ok(Ok(Executed::Unrecorded(tool_return))) => {
                        Ok(Executed::Unrecorded(within_limit(tool, tool_return)))
                    }
                    Ok(done) => done,
                    Err(_elapsed) => Ok(Executed::Unrecorded(timed_out(call, timeout))),
                };
            }
            ToolSource::Python { code } => match Arguments::read(call) {
                Ok(Arguments(arguments)) => {
                    let invocation = Invocation {
                        source: code,
                        function: &tool.spec.name,
                        arguments: &arguments,
                        environment: secrets,
                        call_id: &call.id,
                        timeout: own_timeout,
                    };
                    self.python.run(invocation).await.into_return(call)
                }
                Err(error) => error.into_return(call),
            },
            ToolSource::Http(endpoint) => http::execute(&self.outbound, endpoint, call, secrets, timeout).await,
            ToolSource::Mcp { server, tool } => {
                let what = McpCall { tenant: execution.tenant, server, tool, call, timeout: own_timeout };
                self.mcp.call(what, &|progress| execution.tell(progress)).await
            }
        };
        Ok(Executed::Unrecorded(within_limit(tool, tool_return)))
    }
}

impl Execution<'_> {
    /// Passes a notice on. When too many wait, it is left out: the next one says more.
    fn tell(&self, progress: Progress) {
        if self.report.try_send(progress).is_err() {
            tracing::trace!(tool.call_id = self.call.id, "a progress report is left out");
        }
    }
}

fn timed_out(call: &ToolCall, timeout: Duration) -> ToolReturn {
    let text = format!(
        "Error executing function {}: TimeoutError: no result within {} ms (HOLDFAST_TOOL_TIMEOUT_MS, or the tool's \
         timeout_ms)",
        call.name,
        timeout.as_millis()
    );
    ToolReturn::error(call, text)
}

/// Carries a call of a built-in tool out. Every one can be repeated: after a takeover, a memory edit that took effect
/// answers with its recorded result.
async fn builtin(execution: &Execution<'_>) -> Result<Executed, StoreError> {
    let Execution { store, lease, step, place, call, agent, now, .. } = *execution;
    match plan(call) {
        Plan::Answer(tool_return) => Ok(Executed::Unrecorded(tool_return)),
        Plan::EditMemory => {
            let id = || execution.seams.id();
            let edit = |blocks: &[_]| memory::edit(blocks, call, Fresh { now, id: &id });
            store.edit_memory(lease, step, place, &call.id, now, &edit).await.map(Executed::Recorded)
        }
        Plan::Search(search) => {
            let found = store.search_messages(agent.id, &search.ask).await?;
            Ok(Executed::Unrecorded(search.result(call, &found, now)))
        }
    }
}

/// The arguments of a call as the JSON object that they have to be; models that need none may write nothing.
///
/// # Errors
/// What the model is told instead of a result.
pub fn read_arguments(call: &ToolCall) -> Result<Map<String, Value>, String> {
    Arguments::read(call).map(|arguments| arguments.0).map_err(|error| error.into_return(call).text)
}

/// What a call needs.
#[derive(Debug, PartialEq)]
enum Plan {
    /// Nothing: the result is known.
    Answer(ToolReturn),
    /// The blocks, inside the store's transaction.
    EditMemory,
    /// Messages.
    Search(Search),
}

fn plan(call: &ToolCall) -> Plan {
    match call.name.as_str() {
        name if memory::is_memory_tool(name) => Plan::EditMemory,
        CONVERSATION_SEARCH => {
            Search::read(call).map_or_else(|error| Plan::Answer(error.into_return(call)), Plan::Search)
        }
        SEND_MESSAGE => Plan::Answer(send_message(call).unwrap_or_else(|error| error.into_return(call))),
        // What a Python function would return that returns nothing.
        MEMORY_FINISH_EDITS => Plan::Answer(ToolReturn::success(call, "None".to_owned())),
        _ => Plan::Answer(ToolError::NotFound.into_return(call)),
    }
}

/// The call itself is what the user sees; the tool has nothing to do but to take it.
fn send_message(call: &ToolCall) -> Result<ToolReturn, ToolError> {
    Arguments::read(call)?.text("message")?;
    Ok(ToolReturn::success(call, "Sent message successfully.".to_owned()))
}

/// What the tool's limit leaves of its result. What a search finds is limited by itself.
fn within_limit(tool: &Tool, tool_return: ToolReturn) -> ToolReturn {
    if tool.spec.name == CONVERSATION_SEARCH {
        return tool_return;
    }
    let limit = usize::try_from(tool.options.return_char_limit).unwrap_or(usize::MAX);
    ToolReturn { text: cut(tool_return.text.clone(), limit), ..tool_return }
}

/// A result at its full length, or its start with a note (api/05 §5).
fn cut(text: String, limit: usize) -> String {
    if text.len() <= limit {
        return text;
    }
    let length = text.chars().count();
    if length <= limit {
        return text;
    }
    let start = first_chars(&text, limit);
    format!("{start}\n[The result was cut: it has {length} characters, of which the first {limit} are shown.]")
}

fn first_chars(text: &str, count: usize) -> &str {
    match text.char_indices().nth(count) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// Why a tool did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum ToolError {
    /// The arguments are not what the tool takes.
    #[error("TypeError: {0}")]
    Type(String),
    /// The arguments ask for what cannot be done.
    #[error("ValueError: {0}")]
    Value(String),
    /// What the model wrote for arguments is no JSON.
    #[error("the arguments are not valid JSON: {0}")]
    Unreadable(String),
    /// The agent has the tool but the server has not.
    #[error("Tool not found")]
    NotFound,
}

impl ToolError {
    fn value(text: impl Into<String>) -> Self {
        Self::Value(text.into())
    }

    /// The failure as the model is told it.
    fn into_return(self, call: &ToolCall) -> ToolReturn {
        let text = match &self {
            Self::Type(_) | Self::Value(_) => format!("Error executing function {}: {self}", call.name),
            Self::Unreadable(_) => format!("The tool {} was not run: {self}", call.name),
            Self::NotFound => self.to_string(),
        };
        ToolReturn::error(call, first_chars(&text, TOOL_ERROR_CHARS).to_owned())
    }
}

/// The arguments of a call. Those that the tool does not know are ignored.
struct Arguments(Map<String, Value>);

impl Arguments {
    fn read(call: &ToolCall) -> Result<Self, ToolError> {
        // Some models write nothing at all where a tool needs no arguments.
        if call.arguments.trim().is_empty() {
            return Ok(Self(Map::new()));
        }
        match serde_json::from_str(&call.arguments) {
            Ok(Value::Object(arguments)) => Ok(Self(arguments)),
            Ok(other) => Err(ToolError::Type(format!("the arguments must be an object, not {}", kind(&other)))),
            Err(error) => Err(ToolError::Unreadable(error.to_string())),
        }
    }

    /// An argument; one that is null counts as left out.
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn text(&self, name: &str) -> Result<String, ToolError> {
        let missing = || ToolError::Type(format!("missing a required argument: '{name}'"));
        self.get(name).ok_or_else(missing).and_then(|value| text(name, value))
    }

    /// A text that may be left out, which an empty one also says.
    fn optional_text(&self, name: &str) -> Result<Option<String>, ToolError> {
        let given = self.get(name).map(|value| text(name, value)).transpose()?;
        Ok(given.filter(|text| !text.is_empty()))
    }

    fn texts(&self, name: &str) -> Result<Option<Vec<String>>, ToolError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Array(values)) => {
                values.iter().map(|value| text(name, value)).collect::<Result<_, _>>().map(Some)
            }
            Some(other) => Err(wrong_kind(name, "an array of strings", other)),
        }
    }

    fn integer(&self, name: &str) -> Result<Option<i64>, ToolError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        // Models also write whole numbers as `2.0`.
        let whole = value.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 1e15);
        let number = value.as_i64().or(whole.map(|number| number as i64));
        number.map(Some).ok_or_else(|| wrong_kind(name, "an integer", value))
    }
}

/// A text, without the NUL characters that no store keeps.
fn text(name: &str, value: &Value) -> Result<String, ToolError> {
    match value {
        Value::String(text) => Ok(text.replace('\0', "")),
        other => Err(wrong_kind(name, "a string", other)),
    }
}

fn wrong_kind(name: &str, wanted: &str, value: &Value) -> ToolError {
    ToolError::Type(format!("'{name}' must be {wanted}, not {}", kind(value)))
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use holdfast_shared::domain::block::{Block, BlockDetails};
    use holdfast_shared::domain::builtin_tools::{self, MEMORY_RETHINK};
    use holdfast_shared::domain::ids::Id;
    use holdfast_shared::domain::limits::TOOL_RETURN_CHARS;
    use holdfast_shared::domain::message::{Body, Labels, Message};
    use holdfast_shared::domain::tool::ToolStatus;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    pub(super) fn new_id<I: Id>() -> I {
        I::from_uuid(Uuid::new_v4())
    }

    pub(super) fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    pub(super) fn call(name: &str, arguments: &str) -> ToolCall {
        ToolCall::new("call_1", name.to_owned(), arguments.to_owned())
    }

    pub(super) fn block(label: &str, value: &str) -> Block {
        Block {
            id: new_id(),
            label: label.to_owned(),
            value: value.to_owned(),
            details: BlockDetails::new(100_000),
            created_at: time("2026-03-01T00:00:00Z"),
            updated_at: time("2026-03-01T00:00:00Z"),
        }
    }

    pub(super) fn message(at: &str, body: Body) -> Message {
        Message {
            id: new_id(),
            agent_id: new_id(),
            run_id: None,
            step_id: None,
            body,
            labels: Labels::default(),
            created_at: time(at),
        }
    }

    /// The tools that have a specification, and those that are carried out, are the same.
    #[test]
    fn every_built_in_tool_is_carried_out() {
        for tool in builtin_tools::all() {
            let name = tool.spec.name.as_str();
            let expected = match plan(&call(name, "{}")) {
                Plan::EditMemory => !tool.options.is_parallel,
                Plan::Search(_) => tool.options.is_parallel,
                Plan::Answer(tool_return) => tool_return.text != ToolError::NotFound.to_string(),
            };
            assert!(expected, "{name}");
        }
    }

    #[test]
    fn calls_that_fail_without_running() {
        let unknown = call("elsewhere", "{}");
        assert_eq!(plan(&unknown), Plan::Answer(ToolReturn::error(&unknown, "Tool not found".to_owned())));
        let call = call(CONVERSATION_SEARCH, "{\"query\": ");
        let Plan::Answer(tool_return) = plan(&call) else { panic!("it was not read") };
        assert_eq!(tool_return.status, ToolStatus::Error);
        assert!(tool_return.text.contains("not valid JSON"), "{}", tool_return.text);
        assert_eq!(read_arguments(&call).expect_err("no JSON"), tool_return.text);
    }

    #[test]
    fn words_to_the_user_are_taken_as_said() {
        for (name, arguments, status, expected) in [
            (SEND_MESSAGE, r#"{"message": "hi"}"#, ToolStatus::Success, "Sent message successfully."),
            (SEND_MESSAGE, "{}", ToolStatus::Error, "missing a required argument: 'message'"),
            (MEMORY_FINISH_EDITS, "", ToolStatus::Success, "None"),
        ] {
            let Plan::Answer(tool_return) = plan(&call(name, arguments)) else { panic!("{name} needs nothing") };
            assert_eq!(tool_return.status, status, "{name} {arguments}");
            assert!(tool_return.text.contains(expected), "{}", tool_return.text);
        }
    }

    #[test]
    fn long_results_are_cut_with_a_note() {
        let whole = "ä".repeat(TOOL_RETURN_CHARS);
        assert_eq!(cut(whole.clone(), TOOL_RETURN_CHARS), whole);
        let shown = cut(format!("{whole}öö"), TOOL_RETURN_CHARS);
        assert!(shown.starts_with(&format!("{whole}\n")), "the start is kept");
        assert!(shown.contains("50002") && shown.contains("50000"), "both lengths are told");
        let edited = memory::edit(
            &[block("b", "")],
            &call(MEMORY_RETHINK, &json!({"label": "b", "new_memory": format!("{whole}öö")}).to_string()),
            Fresh { now: time("2026-03-01T00:00:00Z"), id: &new_id },
        );
        assert_eq!(edited.tool_return.text, shown);
        assert_eq!(
            edited.blocks.expect("a change")[0].value.chars().count(),
            TOOL_RETURN_CHARS + 2,
            "the block is whole"
        );
    }

    #[test]
    fn long_errors_are_cut() {
        let error = ToolError::value("ä".repeat(2000)).into_return(&call("tool", "{}"));
        assert_eq!(error.text.chars().count(), TOOL_ERROR_CHARS);
    }
}
