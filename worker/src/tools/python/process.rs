//! One call in processes of its own: their command line, what goes in, what comes out, their end.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use holdfast_shared::config::{Network, PythonSettings, SandboxChoice};
use holdfast_shared::domain::limits::{PYTHON_FILES_BYTES, PYTHON_TRACE_BYTES};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::SandboxLevel;
pub use super::confine::sandbox_exec;
use super::confine::{CONFINE, Policy, SUPERVISE, Walls};
use super::execution::{Captured, End, Sent};
use super::interpreter::{Interpreter, readable};

/// The code that runs the call inside the interpreter.
const BOOTSTRAP: &str = include_str!("bootstrap.py");
/// The program's name in the sandbox.
const PROGRAM_INSIDE: &str = "/.holdfast";
/// The user and group in the sandbox, those of nobody.
const NOBODY: &str = "65534";
/// How long the supervisor may take to end the sandbox, which takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a frame besides the result: its first line, and a trace.
const FRAME_BYTES: usize = 2 * PYTHON_TRACE_BYTES + 4096;
/// Bytes that one read may return.
const READ_BYTES: usize = 64 * 1024;

/// A way to execute calls that has to prove itself first.
#[derive(Debug)]
pub(super) struct Sandbox {
    /// The program whose `sandbox-exec` sets sandboxes up.
    program: PathBuf,
    /// The interpreter inside.
    interpreter: Interpreter,
    /// What can be read inside.
    readable: Vec<PathBuf>,
    /// `bwrap`; without it Landlock has to do.
    bubblewrap: Option<PathBuf>,
    /// Address space of the interpreter.
    memory_bytes: u64,
    /// Sockets.
    network: Network,
}

impl Sandbox {
    /// The ways that the settings allow and the machine may have, the strongest first.
    ///
    /// # Errors
    /// The interpreter cannot be used, or what the settings ask for is not installed.
    pub(super) async fn candidates(
        settings: &PythonSettings,
        program: PathBuf,
    ) -> Result<Vec<(SandboxLevel, Self)>, String> {
        let name = &settings.interpreter;
        let interpreter = Interpreter::find(name).await.map_err(|problem| {
            format!(
                "{name} {problem}; install Python 3, or name its program in HOLDFAST_PYTHON, and restart the worker"
            )
        })?;
        let readable = readable(&interpreter, settings.network == Network::Allow);
        let sandbox = |bubblewrap| Self {
            program: program.clone(),
            interpreter: interpreter.clone(),
            readable: readable.clone(),
            bubblewrap,
            memory_bytes: settings.memory_bytes,
            network: settings.network,
        };
        let mut candidates = Vec::new();
        if settings.sandbox != SandboxChoice::Landlock {
            match find_bubblewrap() {
                Some(bubblewrap) => candidates.push((SandboxLevel::Bubblewrap, sandbox(Some(bubblewrap)))),
                None if settings.sandbox == SandboxChoice::Bubblewrap => {
                    return Err("bwrap is not in PATH: install bubblewrap and restart the worker, or set \
                                HOLDFAST_PYTHON_SANDBOX to auto"
                        .to_owned());
                }
                None => {}
            }
        }
        if settings.sandbox != SandboxChoice::Bubblewrap {
            candidates.push((SandboxLevel::Landlock, sandbox(None)));
        }
        Ok(candidates)
    }

    fn command(&self, timeout: Duration) -> io::Result<Command> {
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
        let policy = Policy {
            memory_bytes: self.memory_bytes,
            cpu_seconds: (timeout.as_secs() + 1).saturating_mul(processors),
            network: self.network,
            walls: match self.bubblewrap {
                Some(_) => Walls::Namespaces,
                None => Walls::Landlock { readable: self.readable.clone() },
            },
        };
        let mut command = Command::new(&self.program);
        command.args(["sandbox-exec", SUPERVISE]);
        match &self.bubblewrap {
            Some(bubblewrap) => {
                command.arg(bubblewrap).args(self.namespaces()).arg("--").arg(PROGRAM_INSIDE);
            }
            None => {
                command.arg(&self.program);
            }
        }
        command.args(["sandbox-exec", CONFINE]).arg(serde_json::to_string(&policy)?);
        command.arg(&self.interpreter.program).args(["-I", "-B", "-X", "utf8", "-c", BOOTSTRAP]);
        command.env_clear().envs([
            ("HOME", "/tmp"),
            ("LANG", "C.UTF-8"),
            ("PATH", "/usr/local/bin:/usr/bin:/bin"),
            ("TMPDIR", "/tmp"),
            // Each arena of the C library takes 64 MiB of address space, used or not.
            ("MALLOC_ARENA_MAX", "2"),
        ]);
        Ok(command)
    }

    /// Arguments of bubblewrap: namespaces of its own, what can be read, and a small `/tmp` in memory.
    fn namespaces(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        let mut add = |words: &[&str]| arguments.extend(words.iter().map(OsString::from));
        add(&["--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try"]);
        if self.network == Network::Deny {
            add(&["--unshare-net"]);
        }
        add(&["--uid", NOBODY, "--gid", NOBODY, "--hostname", "sandbox", "--die-with-parent", "--cap-drop", "ALL"]);
        add(&["--size", &PYTHON_FILES_BYTES.to_string(), "--tmpfs", "/tmp"]);
        for device in ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"] {
            add(&["--dev-bind", device, device]);
        }
        let mut place = |how: &str, from: &Path, to: &Path| {
            arguments.extend([how.into(), from.as_os_str().to_owned(), to.as_os_str().to_owned()]);
        };
        for path in &self.readable {
            match std::fs::read_link(path) {
                // Modern systems keep `/lib` and its like as links into `/usr`.
                Ok(target) if path.parent() == Some(Path::new("/")) => place("--symlink", &target, path),
                _ => place("--ro-bind", path, path),
            }
        }
        place("--ro-bind", Path::new(&self.program), Path::new(PROGRAM_INSIDE));
        // The directories that lead to all that were made in memory; nothing may be written there.
        arguments.extend(["--chdir", "/tmp", "--remount-ro", "/"].map(OsString::from));
        arguments
    }

    /// Carries a call out and answers what came of it. Dropping the future ends the call's processes.
    ///
    /// # Errors
    /// The processes cannot be started; nothing of the tool was executed.
    pub(super) async fn call(&self, input: &[u8], timeout: Duration, output_bytes: usize) -> io::Result<(End, Sent)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut channel = UnixStream::from_std(ours)?;
        let mut command = self.command(timeout)?;
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.current_dir("/");
        let mut child = command.spawn()?;
        // The command holds the other end of the channel too.
        drop(command);
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no standard output"))?;
        let stderr = child.stderr.take().ok_or_else(|| io::Error::other("no standard error"))?;
        // What is printed and what is returned have a budget each, so that a flood does not cost the result.
        let printed = AtomicUsize::new(output_bytes);
        let returned = AtomicUsize::new(output_bytes.saturating_add(FRAME_BYTES));
        let mut sent = Sent::default();
        let work = async {
            let ((), (), (), status) = tokio::join!(
                keep(&mut sent.stdout, stdout, &printed),
                keep(&mut sent.stderr, stderr, &printed),
                exchange(&mut channel, input, &mut sent.frame, &returned),
                child.wait(),
            );
            status
        };
        let end = match tokio::time::timeout(timeout, work).await {
            Ok(status) => End::Exited(status?.code()),
            Err(_) => End::TimedOut,
        };
        if matches!(end, End::TimedOut) {
            // Closing it makes the supervisor end everything, and then itself.
            drop(channel);
            reap(&mut child).await;
        }
        Ok((end, sent))
    }
}

/// Waits until the supervisor has cleaned up.
async fn reap(child: &mut Child) {
    if tokio::time::timeout(PATIENCE, child.wait()).await.is_err() {
        tracing::error!("the supervisor of a Python sandbox does not end: killing it");
        // It may be gone by now, which is what is wanted; who it started has its death signal.
        let _gone = child.kill().await;
    }
}

/// Waits for the sign that the interpreter stands, hands the call over, takes the frame. A channel that breaks says all
/// that there is to say: the answer is missing.
async fn exchange(channel: &mut UnixStream, input: &[u8], frame: &mut Option<Captured>, budget: &AtomicUsize) {
    let mut sign = [0];
    if !matches!(channel.read(&mut sign).await, Ok(1)) {
        return;
    }
    let (from, mut to) = channel.split();
    let hand_over = async {
        // Its end tells that the call is complete; where it is not, nothing is executed.
        if to.write_all(input).await.is_ok() {
            let _broken = to.shutdown().await;
        }
    };
    tokio::join!(hand_over, keep(frame.insert(Captured::default()), from, budget));
}

/// Reads to the end, and keeps as much as the budget allows. The rest is read as well and dropped, so that the writer is
/// not blocked and nothing grows.
async fn keep(captured: &mut Captured, mut from: impl AsyncRead + Unpin, budget: &AtomicUsize) {
    let mut buffer = vec![0; READ_BYTES];
    // A stream that breaks has ended too.
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let less = |left: usize| Some(left.saturating_sub(count));
        let left = budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).unwrap_or_default();
        let kept = count.min(left);
        captured.bytes.extend_from_slice(&buffer[..kept]);
        captured.is_cut |= kept < count;
    }
}

/// `bwrap` in `PATH`.
fn find_bubblewrap() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join("bwrap")).find(|program| program.is_file())
}
