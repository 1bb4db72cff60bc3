//! What came of a call, in words.

use std::time::Duration;

use holdfast_shared::domain::limits::{PRINTED_LINES, TOOL_ERROR_CHARS};
use holdfast_shared::domain::tool::{ToolCall, ToolReturn};
use serde::Deserialize;

use super::super::first_chars;

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Execution {
    /// The result, or why there is none.
    pub outcome: Outcome,
    /// Lines of standard output.
    pub stdout: Vec<String>,
    /// Lines of standard error, and at the end the trace of an exception.
    pub stderr: Vec<String>,
}

/// The result, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The function returned this: a string as it is, `None` as such, the rest as compact JSON where possible.
    Returned(String),
    /// The tool was executed and failed, or was ended at a limit.
    Failed(Failure),
    /// The tool was not executed; the text says why and what to do.
    NotExecuted(String),
}

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exception's type; limits use Python's own names too.
    pub kind: String,
    /// Its text. At a limit it names the setting.
    pub text: String,
}

impl Execution {
    /// A call that was not executed.
    #[must_use]
    pub(super) const fn not_executed(why: String) -> Self {
        Self { outcome: Outcome::NotExecuted(why), stdout: Vec::new(), stderr: Vec::new() }
    }

    /// The result in the shape and words of the contract (api/05 §5). The tool's own limit of characters is not applied.
    #[must_use]
    pub fn into_return(self, call: &ToolCall) -> ToolReturn {
        let error = |kind: &str, text: &str| {
            let text = format!("Error executing function {}: {kind}: {text}", call.name);
            first_chars(&text, TOOL_ERROR_CHARS).to_owned()
        };
        let tool_return = match self.outcome {
            Outcome::Returned(text) => ToolReturn::success(call, text),
            Outcome::Failed(Failure { kind, text }) => ToolReturn::error(call, error(&kind, &text)),
            Outcome::NotExecuted(why) => ToolReturn::refused(call, error("SandboxError", &why)),
        };
        let lines = |lines: Vec<String>| if lines.is_empty() { None } else { Some(lines) };
        ToolReturn { stdout: lines(self.stdout), stderr: lines(self.stderr), ..tool_return }
    }
}

/// The limits under which a call was executed, for the texts that name them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits<'a> {
    /// The interpreter as the settings name it.
    pub(super) interpreter: &'a str,
    /// Most time.
    pub(super) timeout: Duration,
    /// Whether that is the tool's own, and not the setting's.
    pub(super) is_own_timeout: bool,
    /// Most address space.
    pub(super) memory_bytes: u64,
    /// Most bytes printed, and most bytes of the result.
    pub(super) output_bytes: usize,
}

/// How the processes of a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// By themselves, with this code; 128 and more tell a signal.
    Exited(Option<i32>),
    /// At the end of their time.
    TimedOut,
}

/// What the processes of a call sent.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// Standard output.
    pub(super) stdout: Captured,
    /// Standard error.
    pub(super) stderr: Captured,
    /// The frame; `None` if the interpreter never stood.
    pub(super) frame: Option<Captured>,
}

/// The kept part of a stream.
#[derive(Debug, Default)]
pub(super) struct Captured {
    /// The bytes.
    pub(super) bytes: Vec<u8>,
    /// Whether there were more.
    pub(super) is_cut: bool,
}

impl Captured {
    fn lines(&self, limits: Limits<'_>) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.bytes);
        let mut lines: Vec<String> = text.lines().take(PRINTED_LINES).map(str::to_owned).collect();
        if self.is_cut {
            let most = limits.output_bytes;
            lines
                .push(format!("[The rest was dropped: a call may print {most} bytes (HOLDFAST_PYTHON_OUTPUT_BYTES).]"));
        } else if text.lines().nth(PRINTED_LINES).is_some() {
            lines.push(format!("[The rest was dropped: {PRINTED_LINES} lines are kept.]"));
        }
        lines
    }
}

/// The first line of a frame, as `bootstrap.py` writes it.
#[derive(Debug, Deserialize)]
struct Head {
    #[serde(flatten)]
    status: Status,
    /// Bytes of the result before it was cut.
    bytes: usize,
    /// Bytes of the result or the exception's text that follow.
    body: usize,
    /// Bytes of the trace that follow then.
    trace: usize,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
enum Status {
    Returned,
    Raised {
        #[serde(rename = "type")]
        kind: String,
        /// The module that is missing, if that is the matter.
        module: Option<String>,
    },
}

/// A frame that is whole.
struct Frame {
    status: Status,
    whole_bytes: usize,
    body: String,
    trace: String,
}

impl Frame {
    /// Takes nothing for granted: the tool can write to the channel too.
    fn read(captured: &Captured) -> Option<Self> {
        let end = captured.bytes.iter().position(|byte| *byte == b'\n')?;
        let (head, rest) = (captured.bytes.get(..end)?, captured.bytes.get(end + 1..)?);
        let head: Head = serde_json::from_slice(head).ok()?;
        if captured.is_cut || head.body.checked_add(head.trace) != Some(rest.len()) {
            return None;
        }
        let (body, trace) = rest.split_at_checked(head.body)?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Some(Self { status: head.status, whole_bytes: head.bytes, body: text(body), trace: text(trace) })
    }
}

/// Tells from what was sent, and from how the processes ended, what came of the call.
pub(super) fn judge(end: End, sent: &Sent, limits: Limits<'_>) -> Execution {
    let stdout = sent.stdout.lines(limits);
    let mut stderr = sent.stderr.lines(limits);
    let frame = sent.frame.as_ref().and_then(Frame::read);
    let outcome = match (end, &sent.frame, frame) {
        (End::TimedOut, ..) => Outcome::Failed(too_long(limits)),
        (End::Exited(_), _, Some(frame)) => {
            stderr.extend(frame.trace.lines().map(str::to_owned));
            told(frame, limits)
        }
        (End::Exited(code), None, None) => {
            let last = stderr.last().map_or_else(|| format!("it ended with {code:?}"), Clone::clone);
            let text = format!("the sandbox for Python tools did not start: {last}. Tell the operator of this server");
            return Execution::not_executed(text);
        }
        (End::Exited(code), Some(sent), None) => Outcome::Failed(broken(code, !sent.bytes.is_empty(), limits)),
    };
    Execution { outcome, stdout, stderr }
}

fn too_long(limits: Limits<'_>) -> Failure {
    let most = limits.timeout.as_millis();
    let setting = if limits.is_own_timeout { "the tool's own timeout" } else { "HOLDFAST_TOOL_TIMEOUT_MS" };
    failure("TimeoutError", format!("the tool was ended because it took longer than {most} ms ({setting})"))
}

fn told(frame: Frame, limits: Limits<'_>) -> Outcome {
    match frame.status {
        Status::Returned if frame.whole_bytes > frame.body.len() => Outcome::Returned(format!(
            "{}\n[The result was cut: it has {} bytes, of which HOLDFAST_PYTHON_OUTPUT_BYTES keeps {}.]",
            frame.body, frame.whole_bytes, limits.output_bytes
        )),
        Status::Returned => Outcome::Returned(frame.body),
        Status::Raised { kind, module } => {
            let text = match (kind.as_str(), module) {
                ("MemoryError", _) => out_of_memory(limits),
                (_, Some(_)) => format!(
                    "{}; install it on the workers for the interpreter of HOLDFAST_PYTHON ({}), nothing is installed \
                     when a tool is called",
                    frame.body, limits.interpreter
                ),
                _ => frame.body,
            };
            Outcome::Failed(Failure { kind, text })
        }
    }
}

fn out_of_memory(limits: Limits<'_>) -> String {
    let most = limits.memory_bytes;
    format!("the tool asked for more memory than HOLDFAST_PYTHON_MEMORY_BYTES allows ({most} bytes)")
}

/// Signals by which the kernel ends a process: processor time, a crash, memory.
const SIGABRT: i32 = 6;
const SIGBUS: i32 = 7;
const SIGKILL: i32 = 9;
const SIGSEGV: i32 = 11;
const SIGXCPU: i32 = 24;

/// The failure of a call that ended without a whole frame.
fn broken(code: Option<i32>, has_sent: bool, limits: Limits<'_>) -> Failure {
    let signal = code.filter(|code| *code > 128).map(|code| code - 128);
    match (signal, code) {
        (Some(SIGXCPU), _) => too_long(limits),
        (Some(SIGKILL), _) => failure(
            "MemoryError",
            format!("the tool was killed, as happens where memory runs out; {}", memory_is(limits)),
        ),
        (Some(signal @ (SIGABRT | SIGBUS | SIGSEGV)), _) => failure(
            "RuntimeError",
            format!(
                "the tool crashed the interpreter (signal {signal}), as deep recursion, native code and a lack of memory \
                 can do; {}",
                memory_is(limits)
            ),
        ),
        (Some(signal), _) => failure("RuntimeError", format!("the tool ended its process with signal {signal}")),
        _ if has_sent => {
            failure("RuntimeError", "the tool wrote to the descriptor of results; return a value instead".to_owned())
        }
        (None, code) => failure(
            "SystemExit",
            format!(
                "the tool ended its process with code {} before it returned; return a result or raise an exception",
                code.unwrap_or_default()
            ),
        ),
    }
}

fn memory_is(limits: Limits<'_>) -> String {
    format!("HOLDFAST_PYTHON_MEMORY_BYTES is {}", limits.memory_bytes)
}

fn failure(kind: &str, text: String) -> Failure {
    Failure { kind: kind.to_owned(), text }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits<'static> = Limits {
        interpreter: "python3",
        timeout: Duration::from_millis(1500),
        is_own_timeout: false,
        memory_bytes: 1 << 29,
        output_bytes: 100,
    };

    fn sent(frame: &str) -> Sent {
        Sent { frame: Some(Captured { bytes: frame.into(), is_cut: false }), ..Sent::default() }
    }

    fn outcome(end: End, sent: &Sent) -> Outcome {
        judge(end, sent, LIMITS).outcome
    }

    fn failed(end: End, sent: &Sent) -> String {
        match outcome(end, sent) {
            Outcome::Failed(Failure { kind, text }) => format!("{kind}: {text}"),
            other => panic!("it did not fail: {other:?}"),
        }
    }

    #[test]
    fn a_whole_frame_is_believed_and_a_trace_goes_to_standard_error() {
        let frame = sent("{\"status\":\"returned\",\"bytes\":3,\"body\":3,\"trace\":0}\n-4\n");
        assert_eq!(outcome(End::Exited(Some(0)), &frame), Outcome::Returned("-4\n".to_owned()));
        let frame = sent("{\"status\":\"raised\",\"type\":\"ValueError\",\"bytes\":2,\"body\":2,\"trace\":3}\nnoa\nb");
        let execution = judge(End::Exited(Some(0)), &frame, LIMITS);
        assert_eq!(failed(End::Exited(Some(0)), &frame), "ValueError: no");
        assert_eq!(execution.stderr, ["a", "b"]);
    }

    #[test]
    fn what_is_no_whole_frame_is_not_believed() {
        for text in [
            "",
            "nonsense",
            "nonsense\n",
            "{\"status\":\"returned\"}\n",
            "{\"status\":\"returned\",\"bytes\":3,\"body\":3,\"trace\":0}\nab",
            "{\"status\":\"returned\",\"bytes\":3,\"body\":3,\"trace\":0}\nabcd",
            "{\"status\":\"returned\",\"bytes\":3,\"body\":18446744073709551615,\"trace\":2}\na",
            "{\"status\":\"other\",\"bytes\":0,\"body\":0,\"trace\":0}\n",
        ] {
            let said = failed(End::Exited(Some(0)), &sent(text));
            assert!(said.starts_with(if text.is_empty() { "SystemExit" } else { "RuntimeError" }), "{text}: {said}");
        }
        let mut cut = sent("{\"status\":\"returned\",\"bytes\":1,\"body\":1,\"trace\":0}\na");
        cut.frame.as_mut().expect("a frame").is_cut = true;
        assert!(failed(End::Exited(Some(0)), &cut).contains("descriptor of results"));
    }

    #[test]
    fn every_end_names_its_limit() {
        let none = sent("");
        for (end, named) in [
            (End::TimedOut, "1500 ms (HOLDFAST_TOOL_TIMEOUT_MS)"),
            (End::Exited(Some(152)), "HOLDFAST_TOOL_TIMEOUT_MS"),
            (End::Exited(Some(137)), "HOLDFAST_PYTHON_MEMORY_BYTES is 536870912"),
            (End::Exited(Some(139)), "signal 11"),
            (End::Exited(Some(143)), "signal 15"),
            (End::Exited(Some(3)), "code 3"),
        ] {
            assert!(failed(end, &none).contains(named), "{end:?}: {}", failed(end, &none));
        }
        let frame = sent("{\"status\":\"returned\",\"bytes\":1,\"body\":1,\"trace\":0}\na");
        assert!(failed(End::TimedOut, &frame).starts_with("TimeoutError"), "an early frame does not save a late tool");
    }

    #[test]
    fn a_sandbox_that_does_not_start_is_told_from_a_tool_that_fails() {
        let stderr = Captured { bytes: b"bwrap: no permission\n".to_vec(), is_cut: false };
        let execution = judge(End::Exited(Some(1)), &Sent { stderr, ..Sent::default() }, LIMITS);
        assert!(matches!(&execution.outcome, Outcome::NotExecuted(why) if why.contains("bwrap: no permission")));
        let tool_return = execution.into_return(&ToolCall::new("call-1", "f", "{}"));
        assert!(
            !tool_return.was_executed && tool_return.text.starts_with("Error executing function f: SandboxError: ")
        );
    }

    #[test]
    fn a_return_has_the_words_and_the_shape_of_the_contract() {
        let call = ToolCall::new("call-1", "f", "{}");
        let returned =
            Execution { outcome: Outcome::Returned("ö".to_owned()), stdout: vec!["a".to_owned()], stderr: Vec::new() };
        let failed = Execution { outcome: Outcome::Failed(failure("E", "x".repeat(5000))), ..returned.clone() };
        let returned = returned.into_return(&call);
        assert_eq!((returned.text.as_str(), returned.stderr), ("ö", None));
        assert_eq!(returned.stdout, Some(vec!["a".to_owned()]));
        let failed = failed.into_return(&call);
        assert!(failed.was_executed && failed.text.starts_with("Error executing function f: E: xxx"));
        assert_eq!(failed.text.chars().count(), TOOL_ERROR_CHARS);
    }

    #[test]
    fn printed_lines_are_limited_in_number_and_a_cut_is_told() {
        let many = Captured { bytes: b"\n".repeat(PRINTED_LINES + 1), is_cut: false };
        assert_eq!(many.lines(LIMITS).len(), PRINTED_LINES + 1);
        let cut = Captured { bytes: b"a\nb".to_vec(), is_cut: true };
        assert!(cut.lines(LIMITS)[2].contains("HOLDFAST_PYTHON_OUTPUT_BYTES"));
    }
}
