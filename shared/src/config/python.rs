//! Settings of Python tools: their interpreter, and what confines them.

use serde::{Deserialize, Serialize};

use super::{Raw, SettingsError, invalid};

/// Python starts with less than that, but imports hardly anything.
const LEAST_PYTHON_MEMORY_BYTES: u64 = 64 * 1024 * 1024;

/// How Python tools are executed.
#[derive(Debug, Clone)]
pub struct PythonSettings {
    /// The interpreter: a name to look for in `PATH`, or a path. What is installed for it, tools can import.
    pub interpreter: String,
    /// How they are confined.
    pub sandbox: SandboxChoice,
    /// Whether they reach the network.
    pub network: Network,
    /// Most address space of a call, in bytes.
    pub memory_bytes: u64,
    /// Most bytes that a call may print, and most bytes of its result.
    pub output_bytes: usize,
    /// Calls at the same time in one worker.
    pub concurrency: u16,
}

/// How Python tools are confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxChoice {
    /// By the strongest way that works on this machine, else not executed.
    Auto,
    /// By bubblewrap, else not executed.
    Bubblewrap,
    /// By Landlock and seccomp, else not executed.
    Landlock,
    /// Python tools are not executed.
    Off,
}

/// Whether Python tools reach the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// They do, loopback and private addresses included.
    Allow,
    /// They do not.
    Deny,
}

impl Raw {
    pub(super) fn python(&self) -> Result<PythonSettings, SettingsError> {
        if self.python_memory_bytes < LEAST_PYTHON_MEMORY_BYTES {
            let problem = format!("must be at least {LEAST_PYTHON_MEMORY_BYTES}, or Python does not even start");
            return Err(invalid("HOLDFAST_PYTHON_MEMORY_BYTES", problem));
        }
        if self.python_output_bytes == 0 {
            return Err(invalid("HOLDFAST_PYTHON_OUTPUT_BYTES", "must be at least 1"));
        }
        if self.python_concurrency == 0 {
            return Err(invalid("HOLDFAST_PYTHON_CONCURRENCY", "must be at least 1"));
        }
        Ok(PythonSettings {
            interpreter: self.python.clone(),
            sandbox: self.python_sandbox,
            network: self.python_network,
            memory_bytes: self.python_memory_bytes,
            output_bytes: self.python_output_bytes,
            concurrency: self.python_concurrency,
        })
    }
}
