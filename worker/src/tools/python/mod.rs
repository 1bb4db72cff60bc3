//! Python tools: each call in a sandbox of its own.
//!
//! A call is a chain of processes. The worker starts this program once more as a supervisor (`confine.rs`), that starts
//! bubblewrap where it works, inside which the program starts again, gives up rights and becomes the interpreter, and
//! that executes `bootstrap.py`. One socket is the interpreter's input, the way of its result, and the supervisor's sign
//! of life: when the worker closes its end, by a cancel, at a limit or by its death, the supervisor ends the rest.
//!
//! What is written here for the tool's author, as the words of an exception, is not what holds the tool back; the kernel
//! does that.

#[cfg(target_os = "linux")]
mod confine;
mod execution;
#[cfg(target_os = "linux")]
mod interpreter;
#[cfg_attr(not(target_os = "linux"), path = "elsewhere.rs")]
mod process;
#[cfg(target_os = "linux")]
mod seccomp;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use holdfast_shared::config::{Network, PythonSettings, SandboxChoice};
use holdfast_shared::domain::limits::PYTHON_TRACE_BYTES;
use holdfast_shared::domain::secret::Secret;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

pub use execution::{Execution, Failure, Outcome};
use execution::{Limits, judge};
use process::Sandbox;
pub use process::sandbox_exec;

/// The variable that holds the call's id, which is its idempotency key.
pub const CALL_ID_VARIABLE: &str = "HOLDFAST_TOOL_CALL_ID";

/// How well tools are confined on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SandboxLevel {
    /// Namespaces made by bubblewrap, with resource limits and seccomp inside.
    Bubblewrap,
    /// Landlock, seccomp and resource limits. Tools cannot write any file.
    Landlock,
    /// Not at all: no Python tool is executed.
    Refused {
        /// The reason, and what to do.
        why: String,
    },
}

impl fmt::Display for SandboxLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bubblewrap => f.write_str("bubblewrap"),
            Self::Landlock => f.write_str("landlock"),
            Self::Refused { why } => write!(f, "none: {why}"),
        }
    }
}

/// One call of a Python tool.
#[derive(Debug, Clone, Copy)]
pub struct Invocation<'a> {
    /// The tool's source.
    pub source: &'a str,
    /// The function in it.
    pub function: &'a str,
    /// Its arguments, by name.
    pub arguments: &'a Map<String, Value>,
    /// The agent's secrets, which the tool sees as variables of its environment.
    pub environment: &'a BTreeMap<String, Secret>,
    /// The call's id, which the tool sees as `HOLDFAST_TOOL_CALL_ID`.
    pub call_id: &'a str,
    /// The tool's own time limit; `None`: that of the settings.
    pub timeout: Option<Duration>,
}

/// Executes Python tools, or says why it does not.
#[derive(Debug)]
pub struct PythonSandbox {
    settings: PythonSettings,
    timeout: Duration,
    /// Permits of calls at the same time.
    slots: Semaphore,
    level: SandboxLevel,
    /// `None` if the level refuses.
    sandbox: Option<Sandbox>,
}

impl PythonSandbox {
    /// Finds the strongest isolation that works here and is allowed, by executing a tool that tries to break out. `program`
    /// is this program, whose `sandbox-exec` sets sandboxes up; `timeout` is for tools that have none of their own.
    pub async fn probe(settings: &PythonSettings, program: PathBuf, timeout: Duration) -> Self {
        let refused = |why: String| (SandboxLevel::Refused { why }, None);
        let (level, sandbox) = Self::find(settings, program).await.unwrap_or_else(refused);
        Self {
            settings: settings.clone(),
            timeout,
            slots: Semaphore::new(usize::from(settings.concurrency)),
            level,
            sandbox,
        }
    }

    async fn find(settings: &PythonSettings, program: PathBuf) -> Result<(SandboxLevel, Option<Sandbox>), String> {
        if settings.sandbox == SandboxChoice::Off {
            return Err("Python tools are turned off (HOLDFAST_PYTHON_SANDBOX=off)".to_owned());
        }
        let mut problems = Vec::new();
        for (level, sandbox) in Sandbox::candidates(settings, program).await? {
            match breaks_out(&sandbox, settings).await {
                None => return Ok((level, Some(sandbox))),
                Some(problem) => problems.push(format!("{level}: {problem}")),
            }
        }
        Err(format!(
            "no sandbox works here, so no Python tool is executed ({}); install bubblewrap and allow user namespaces, or \
             use a kernel with Landlock (6.2 or newer), and restart the worker",
            problems.join("; ")
        ))
    }

    /// How well tools are confined here.
    #[must_use]
    pub const fn level(&self) -> &SandboxLevel {
        &self.level
    }

    /// Executes a call. It waits for its turn first, which its time limit does not count. A failing tool is a result like
    /// any other. Dropping the future ends everything that belongs to the call.
    pub async fn run(&self, invocation: Invocation<'_>) -> Execution {
        let Some(sandbox) = &self.sandbox else { return Execution::not_executed(self.level.to_string()) };
        // The semaphore is never closed.
        let _slot = self.slots.acquire().await;
        let timeout = invocation.timeout.unwrap_or(self.timeout);
        let limits = limits(&self.settings, timeout, invocation.timeout.is_some());
        execute(sandbox, &input(&self.settings, invocation), limits).await
    }
}

const fn limits(settings: &PythonSettings, timeout: Duration, is_own_timeout: bool) -> Limits<'_> {
    let PythonSettings { interpreter, memory_bytes, output_bytes, .. } = settings;
    Limits {
        interpreter: interpreter.as_str(),
        timeout,
        is_own_timeout,
        memory_bytes: *memory_bytes,
        output_bytes: *output_bytes,
    }
}

/// What `bootstrap.py` is told.
fn input(settings: &PythonSettings, invocation: Invocation<'_>) -> Value {
    let variables = invocation.environment.iter().map(|(name, secret)| (name.as_str(), secret.expose()));
    let environment: BTreeMap<_, _> = variables.chain([(CALL_ID_VARIABLE, invocation.call_id)]).collect();
    let no_network = match settings.network {
        Network::Deny => Some("tools have no network here (HOLDFAST_PYTHON_NETWORK is deny)"),
        Network::Allow => None,
    };
    json!({
        "source": invocation.source,
        "function": invocation.function,
        "arguments": invocation.arguments,
        "environment": environment,
        "output_bytes": settings.output_bytes,
        "trace_bytes": PYTHON_TRACE_BYTES,
        // The words for what the kernel refuses.
        "refusals": {"network": no_network, "process": "a tool cannot start other processes"},
    })
}

async fn execute(sandbox: &Sandbox, input: &Value, limits: Limits<'_>) -> Execution {
    match sandbox.call(input.to_string().as_bytes(), limits.timeout, limits.output_bytes).await {
        Ok((end, sent)) => judge(end, &sent, limits),
        Err(error) => Execution::not_executed(format!("the sandbox for Python tools cannot be started: {error}")),
    }
}

/// What a tool tries in a candidate; everything has to fail.
const BREAKOUT: &str = include_str!("breakout.py");
/// The longest that it may take.
const BREAKOUT_PATIENCE: Duration = Duration::from_secs(30);

/// Why a candidate is no sandbox, if it is none.
async fn breaks_out(sandbox: &Sandbox, settings: &PythonSettings) -> Option<String> {
    let environment = BTreeMap::new();
    let arguments = Map::from_iter([("network".to_owned(), json!(settings.network))]);
    let invocation = Invocation {
        source: BREAKOUT,
        function: "breakout",
        arguments: &arguments,
        environment: &environment,
        call_id: "breakout",
        timeout: Some(BREAKOUT_PATIENCE),
    };
    let mut input = input(settings, invocation);
    // The kernel is tried, not the words.
    input["refusals"] = json!({});
    match execute(sandbox, &input, limits(settings, BREAKOUT_PATIENCE, true)).await.outcome {
        Outcome::Returned(found) if found == "confined" => None,
        Outcome::Returned(found) => Some(found),
        Outcome::Failed(Failure { kind, text }) => Some(format!("{kind}: {text}")),
        Outcome::NotExecuted(why) => Some(why),
    }
}
