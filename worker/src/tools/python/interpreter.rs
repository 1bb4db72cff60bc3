//! The interpreter that the settings name: where it really is, and what of the file system it needs.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;

/// The longest that the interpreter may take to tell about itself; it may be a script that looks for the real one.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the interpreter is asked. Isolated as in the sandbox, it answers as it will be there.
const QUESTION: &str = "import json, sys; \
    print(json.dumps(dict(program=sys.executable, prefixes=[sys.prefix, sys.base_prefix], path=sys.path)))";

/// An interpreter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Interpreter {
    /// The program itself, no script that stands for it.
    pub(super) program: PathBuf,
    /// Where it is installed: an environment, and what that was made from.
    prefixes: Vec<PathBuf>,
    /// Where it looks for modules.
    path: Vec<PathBuf>,
}

impl Interpreter {
    /// Asks the interpreter about itself, outside of any sandbox: only the operator's own code runs.
    ///
    /// # Errors
    /// Why it cannot be used, in words that follow on its name.
    pub(super) async fn find(name: &str) -> Result<Self, String> {
        let mut command = Command::new(name);
        command.args(["-I", "-c", QUESTION]).stdin(Stdio::null()).kill_on_drop(true);
        let output = match tokio::time::timeout(PATIENCE, command.output()).await {
            Ok(Ok(output)) => output,
            Ok(Err(error)) => return Err(format!("cannot be started: {error}")),
            Err(_) => return Err(format!("did not answer within {} seconds", PATIENCE.as_secs())),
        };
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.lines().last().unwrap_or_default();
            return Err(format!("failed with {}: {last}", output.status));
        }
        let answer: Self = serde_json::from_slice(&output.stdout).map_err(|_| "is no Python 3".to_owned())?;
        if answer.program.is_absolute() { Ok(answer) } else { Err("does not know its own path".to_owned()) }
    }

    /// Files and directories that it reads, existing ones only, none inside another.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for prefix in &self.prefixes {
            files.extend(["bin", "lib", "lib64", "share", "pyvenv.cfg"].map(|name| prefix.join(name)));
        }
        files.extend(self.path.iter().filter(|path| path.is_absolute()).cloned());
        // An environment's program is a link to another's.
        files.extend(self.program.canonicalize().ok().and_then(|program| Some(program.parent()?.to_path_buf())));
        files
    }
}

/// Directories of the system that programs and their libraries need. What else is under `/usr`, `/etc` and `/dev`, and all
/// of `/home`, `/root`, `/var`, `/proc` and `/sys`, a tool does not see.
const SYSTEM: [&str; 16] = [
    "/bin",
    "/gnu/store",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix/store",
    "/sbin",
    "/usr/bin",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/local/bin",
    "/usr/local/lib",
    "/usr/sbin",
    "/usr/share",
];
/// The few files of `/etc` that libraries need.
const CONFIGURATION: [&str; 7] = [
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/pki/tls/certs",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
];
/// What is needed besides to find other machines.
const RESOLVER: [&str; 5] = ["/etc/gai.conf", "/etc/host.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf"];

/// Everything that can be read in the sandbox, existing paths only, sorted, none inside another one.
pub(super) fn readable(interpreter: &Interpreter, has_network: bool) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = SYSTEM.iter().chain(&CONFIGURATION).map(PathBuf::from).collect();
    if has_network {
        paths.extend(RESOLVER.map(PathBuf::from));
    }
    paths.extend(interpreter.files());
    paths.retain(|path| path.exists() && path != Path::new("/"));
    paths.sort();
    let mut kept: Vec<PathBuf> = Vec::new();
    for path in paths {
        if !kept.last().is_some_and(|last| path.starts_with(last)) {
            kept.push(path);
        }
    }
    kept
}
