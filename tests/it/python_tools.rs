//! Python tools in their sandbox: what they can do, what stops them, and that nothing of them remains. Each test goes
//! through every kind of sandbox that works on this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use holdfast_shared::config::{Network, PythonSettings, SandboxChoice};
use holdfast_shared::domain::secret::Secret;
use holdfast_worker::tools::python::{Execution, Failure, Invocation, Outcome, PythonSandbox, SandboxLevel};
use serde_json::{Map, Value, json};

use super::harness::{DEADLINE, PROGRAM, directory, until};

const MIB: u64 = 1024 * 1024;

fn settings(sandbox: SandboxChoice) -> PythonSettings {
    PythonSettings {
        interpreter: "python3".to_owned(),
        sandbox,
        network: Network::Deny,
        memory_bytes: 256 * MIB,
        output_bytes: 256 * 1024,
        concurrency: 4,
    }
}

async fn probe(settings: &PythonSettings) -> PythonSandbox {
    PythonSandbox::probe(settings, PathBuf::from(PROGRAM), DEADLINE).await
}

/// The sandboxes that work here, with settings that a test may change.
async fn sandboxes_with(change: impl Fn(&mut PythonSettings)) -> Vec<PythonSandbox> {
    let mut working = Vec::new();
    let mut refused = Vec::new();
    for choice in [SandboxChoice::Bubblewrap, SandboxChoice::Landlock] {
        let mut settings = settings(choice);
        change(&mut settings);
        let sandbox = probe(&settings).await;
        match sandbox.level() {
            // A machine may lack one of them; one that starts and does not hold is a fault.
            SandboxLevel::Refused { why } => {
                assert!(
                    why.contains("not in PATH") || why.contains("did not start"),
                    "{choice:?} does not hold: {why}"
                );
                refused.push(why.clone());
            }
            SandboxLevel::Bubblewrap | SandboxLevel::Landlock => working.push(sandbox),
        }
    }
    assert!(!working.is_empty(), "no sandbox works here: {refused:?}");
    working
}

async fn sandboxes() -> Vec<PythonSandbox> {
    sandboxes_with(|_| {}).await
}

/// Runs the function `tool` of a source.
async fn run(sandbox: &PythonSandbox, source: &str, arguments: Value) -> Execution {
    run_for(sandbox, source, arguments, DEADLINE).await
}

async fn run_for(sandbox: &PythonSandbox, source: &str, arguments: Value, timeout: Duration) -> Execution {
    let Value::Object(arguments) = arguments else { panic!("arguments are an object") };
    let environment = BTreeMap::from([("WEATHER_KEY".to_owned(), Secret::new("hunter2".to_owned()))]);
    let invocation = Invocation {
        source,
        function: "tool",
        arguments: &arguments,
        environment: &environment,
        call_id: "call-1",
        timeout: Some(timeout),
    };
    sandbox.run(invocation).await
}

#[track_caller]
fn returned(sandbox: &PythonSandbox, execution: &Execution) -> String {
    match &execution.outcome {
        Outcome::Returned(text) => text.clone(),
        other => panic!("{}: it did not return: {other:?}, stderr {:?}", sandbox.level(), execution.stderr),
    }
}

/// `TYPE: TEXT` of a failure.
#[track_caller]
fn failed(sandbox: &PythonSandbox, execution: &Execution) -> String {
    match &execution.outcome {
        Outcome::Failed(Failure { kind, text }) => format!("{kind}: {text}"),
        other => panic!("{}: it did not fail: {other:?}, stderr {:?}", sandbox.level(), execution.stderr),
    }
}

/// A process as `/proc` shows it: its parent, its state and when it started, which tells it from a later one.
fn process(pid: u32) -> Option<(u32, char, String)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.get(1)?.parse().ok()?, fields.first()?.chars().next()?, (*fields.get(19)?).to_owned()))
}

/// Everything that a process started, zombies too, with the moment at which each was started.
fn descendants(ancestor: u32) -> BTreeSet<(u32, String)> {
    let entries = std::fs::read_dir("/proc").expect("/proc is there");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let all: BTreeMap<u32, (u32, char, String)> = pids.filter_map(|pid| Some((pid, process(pid)?))).collect();
    let comes_from = |mut pid: u32| {
        while let Some((parent, ..)) = all.get(&pid) {
            if *parent == ancestor {
                return true;
            }
            pid = *parent;
        }
        false
    };
    all.iter().filter(|(pid, _)| comes_from(**pid)).map(|(pid, (_, _, start))| (*pid, start.clone())).collect()
}

/// Whether one of the processes executes Python code by now.
fn is_python_there(processes: &BTreeSet<(u32, String)>) -> bool {
    let runs_python = |pid: u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.first().is_some_and(|program| program.windows(6).any(|part| part == b"python"))
    };
    processes.iter().any(|(pid, _)| runs_python(*pid))
}

async fn nothing_is_left() {
    until("no process of a tool is left", async || descendants(std::process::id()).is_empty()).await;
}

#[tokio::test]
async fn results_come_as_the_contract_writes_them() {
    let deep = "[".repeat(3000) + &"]".repeat(3000);
    for sandbox in sandboxes().await {
        for (body, arguments, expected) in [
            ("return a", json!({"a": "plain \"text\"\n"}), "plain \"text\"\n"),
            ("return None", json!({"a": 1}), "None"),
            ("return {'a': a, 'b': [1.5, True, None]}", json!({"a": "ö"}), "{\"a\":\"ö\",\"b\":[1.5,true,null]}"),
            ("return a", json!({"a": 9_007_199_254_740_993_i64}), "9007199254740993"),
            ("return a + '日本 🦀 \\x00'", json!({"a": "é"}), "é日本 🦀 \0"),
            ("return 'a\\ud800b'", json!({"a": 1}), "a?b"),
            ("return {1, 1}", json!({"a": 1}), "{1}"),
            ("return float('nan')", json!({"a": 1}), "nan"),
            ("return str(len(a))", json!({"a": "x".repeat(5_000_000)}), "5000000"),
            ("return type(a).__name__ + str(b) + str(agent_state)", json!({"a": [1]}), "list7None"),
            ("import os; return os.getcwd() if a else ''", json!({"a": false}), ""),
            ("try: input()\n    except EOFError: return 'no input'", json!({"a": 1}), "no input"),
            ("import json; return str(len(json.dumps(a)))", json!({"a": deep}), "6002"),
        ] {
            let source = format!("def tool(a, b=7, agent_state=...):\n    {body}\n");
            let execution = run(&sandbox, &source, arguments).await;
            assert_eq!(returned(&sandbox, &execution), expected, "{}: {body}", sandbox.level());
        }
    }
    nothing_is_left().await;
}

#[tokio::test]
async fn arguments_take_the_shape_that_the_hints_name() {
    let source = "
import asyncio, dataclasses, enum, typing

class Unit(enum.Enum):
    C = 'celsius'

@dataclasses.dataclass
class Place:
    name: str
    units: typing.List[Unit]

async def tool(place: Place, others: 'typing.Optional[list[Place]]' = None, pair: typing.Tuple[int, int] = (0, 0)):
    await asyncio.sleep(0)
    assert isinstance(place, Place) and place.units == [Unit.C], place
    assert others[0].name == 'Rome', others
    assert pair == (1, 2), pair
    return await asyncio.gather(*(inner(n) for n in range(3)))

async def inner(n):
    await asyncio.sleep(0.001)
    return n
";
    let arguments = json!({
        "place": {"name": "Oslo", "units": ["celsius"]},
        "others": [{"name": "Rome", "units": []}],
        "pair": [1, 2],
    });
    for sandbox in sandboxes().await {
        assert_eq!(returned(&sandbox, &run(&sandbox, source, arguments.clone()).await), "[0,1,2]");
    }
}

#[tokio::test]
async fn an_exception_is_told_with_a_trace_of_the_tools_own_code() {
    let source = "
import sys

def inner(n):
    raise ValueError(f'no {n}')

def tool(n):
    print('before', flush=True)
    print('aside', file=sys.stderr)
    inner(n)
";
    for sandbox in sandboxes().await {
        let execution = run(&sandbox, source, json!({"n": 3})).await;
        assert_eq!(failed(&sandbox, &execution), "ValueError: no 3");
        assert_eq!(execution.stdout, ["before"]);
        assert_eq!(execution.stderr[..2], ["aside", "Traceback (most recent call last):"]);
        let trace = execution.stderr.join("\n");
        assert!(trace.contains("raise ValueError(f'no {n}')") && trace.contains("line 10, in tool"), "{trace}");
        assert!(!trace.contains("<string>"), "frames that are not the tool's are in {trace}");
    }
}

#[tokio::test]
async fn every_way_to_fail_is_told() {
    let body = |body: &str| format!("import os, sys, signal, threading\ndef tool():\n    {body}\n");
    for sandbox in sandboxes().await {
        for (source, said) in [
            ("def tool(:\n  pass".to_owned(), "SyntaxError: "),
            ("def other(): pass".to_owned(), "NameError: the source defines no function 'tool'"),
            ("tool = 3".to_owned(), "NameError: the source defines no function 'tool'"),
            (
                "def tool(missing): pass".to_owned(),
                "TypeError: tool() missing 1 required positional argument: 'missing'",
            ),
            ("1/0\ndef tool(): pass".to_owned(), "ZeroDivisionError: division by zero"),
            ("import no_such_module\ndef tool(): pass".to_owned(), "the interpreter of HOLDFAST_PYTHON (python3)"),
            (body("sys.exit(4)"), "SystemExit: the tool ended its process with sys.exit(4)"),
            (body("os._exit(5)"), "SystemExit: the tool ended its process with code 5"),
            (body("os.abort()"), "RuntimeError: the tool crashed the interpreter (signal 6)"),
            (body("os.kill(os.getpid(), signal.SIGTERM)"), "RuntimeError: the tool ended its process with signal 15"),
            (body("tool()"), "RecursionError: maximum recursion depth exceeded"),
            (body("raise KeyboardInterrupt"), "KeyboardInterrupt: "),
            (
                body(
                    "sys.setrecursionlimit(10**9); f = lambda g: repr(g); x = []\n    for _ in range(10**6): x = [x]\n    f(x)",
                ),
                "Error: ",
            ),
            (body("class E(Exception):\n        def __str__(self): raise E\n    raise E"), "E: "),
        ] {
            let execution = run(&sandbox, &source, json!({})).await;
            let text = failed(&sandbox, &execution);
            assert!(text.contains(said), "{}: {source}\n{text}", sandbox.level());
        }
    }
    nothing_is_left().await;
}

#[tokio::test]
async fn secrets_and_the_call_id_are_in_the_environment_and_nothing_of_the_server_is() {
    let source = "
import os
def tool():
    return [os.environ['WEATHER_KEY'], os.environ['HOLDFAST_TOOL_CALL_ID'], sorted(os.environ)]
";
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some(), "this process has variables that a tool must not see");
    for sandbox in sandboxes().await {
        let execution = run(&sandbox, source, json!({})).await;
        let found: (String, String, Vec<String>) =
            serde_json::from_str(&returned(&sandbox, &execution)).expect("a list");
        assert_eq!((found.0.as_str(), found.1.as_str()), ("hunter2", "call-1"));
        let known = ["HOLDFAST_TOOL_CALL_ID", "HOME", "LANG", "LC_CTYPE", "MALLOC_ARENA_MAX", "PATH", "PWD", "TMPDIR"];
        let strange: Vec<_> = found.2.iter().filter(|name| !known.contains(&name.as_str())).collect();
        assert_eq!(strange, ["WEATHER_KEY"], "{}", sandbox.level());
    }
}

#[tokio::test]
async fn an_endless_loop_is_ended_at_its_time_limit() {
    let source = "def tool():\n    print('begun')\n    while True: pass\n";
    for sandbox in sandboxes().await {
        let execution = run_for(&sandbox, source, json!({}), Duration::from_millis(1500)).await;
        let text = failed(&sandbox, &execution);
        assert!(text.starts_with("TimeoutError") && text.contains("1500 ms (the tool's own timeout)"), "{text}");
        assert_eq!(execution.stdout, ["begun"], "what was printed before is kept");
        nothing_is_left().await;
    }
}

#[tokio::test]
async fn the_servers_time_limit_holds_where_a_tool_has_none_of_its_own() {
    let sandbox =
        PythonSandbox::probe(&settings(SandboxChoice::Auto), PathBuf::from(PROGRAM), Duration::from_millis(1200)).await;
    let (arguments, environment) = (Map::new(), BTreeMap::new());
    let execution = sandbox
        .run(Invocation {
            source: "import time\ndef tool():\n    time.sleep(1000)",
            function: "tool",
            arguments: &arguments,
            environment: &environment,
            call_id: "call-1",
            timeout: None,
        })
        .await;
    assert!(failed(&sandbox, &execution).contains("1200 ms (HOLDFAST_TOOL_TIMEOUT_MS)"));
}

#[tokio::test]
async fn memory_is_limited() {
    for sandbox in sandboxes().await {
        for body in [
            "x = []\n    while True: x.append(bytearray(1 << 20))",
            "return 'x' * (1 << 40)",
            "x = 'a'\n    while True: x += x",
        ] {
            let execution = run(&sandbox, &format!("def tool():\n    {body}\n"), json!({})).await;
            let text = failed(&sandbox, &execution);
            let limit = "HOLDFAST_PYTHON_MEMORY_BYTES allows (268435456 bytes)";
            assert!(text.starts_with("MemoryError") && text.contains(limit), "{}: {body}: {text}", sandbox.level());
        }
        let source = "import mmap\ndef tool():\n    mmap.mmap(-1, 1 << 29)\n";
        let text = failed(&sandbox, &run(&sandbox, source, json!({})).await);
        assert!(text.contains("Cannot allocate memory"), "{text}");
    }
}

#[tokio::test]
async fn no_network_is_reached() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("non-blocking");
    let port = listener.local_addr().expect("an address").port();
    for sandbox in sandboxes().await {
        for body in [
            "socket.create_connection(('127.0.0.1', port), timeout=5)",
            "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
            "urllib.request.urlopen(f'http://127.0.0.1:{port}/', timeout=5)",
            "socket.getaddrinfo('localhost', port)",
        ] {
            let source = format!("import socket, urllib.request\ndef tool(port):\n    {body}\n");
            let text = failed(&sandbox, &run(&sandbox, &source, json!({"port": port})).await);
            assert!(text.contains("HOLDFAST_PYTHON_NETWORK"), "{}: {body}: {text}", sandbox.level());
        }
        // The words are said by Python; this asks the kernel alone, as code does that wants to get around them.
        let source = "
import ctypes, os
def tool():
    libc = ctypes.CDLL(None, use_errno=True)
    return [(libc.socket(family, 1, 0), ctypes.get_errno()) for family in (1, 2, 10, 16, 17)] + [
        (libc.socketpair(1, 2, 0, ctypes.byref((ctypes.c_int * 2)())), ctypes.get_errno())]
";
        let found = returned(&sandbox, &run(&sandbox, source, json!({})).await);
        assert_eq!(found, "[[-1,1],[-1,1],[-1,1],[-1,1],[-1,1],[-1,1]]", "{}", sandbox.level());
    }
    let nobody = listener.accept().expect_err("nobody came");
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn the_network_is_reached_where_the_operator_allows_it() {
    for sandbox in sandboxes_with(|settings| settings.network = Network::Allow).await {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let source = "
import socket
def tool(port):
    with socket.create_connection(('localhost', port), timeout=20) as peer:
        peer.sendall(b'hello')
    try:
        socket.socket(socket.AF_UNIX)
    except PermissionError:
        return 'sent'
";
        let heard = async {
            let (mut peer, _) = listener.accept().await.expect("a connection");
            let mut text = String::new();
            tokio::io::AsyncReadExt::read_to_string(&mut peer, &mut text).await.expect("readable");
            text
        };
        let (execution, heard) = tokio::join!(run(&sandbox, source, json!({"port": port})), heard);
        assert_eq!((returned(&sandbox, &execution).as_str(), heard.as_str()), ("sent", "hello"));
    }
}

#[tokio::test]
async fn no_other_process_can_be_started() {
    for sandbox in sandboxes().await {
        for body in [
            "os.fork()",
            "os.forkpty()",
            "subprocess.run(['/bin/true'])",
            "os.system('true') and None",
            "os.posix_spawn('/bin/true', ['true'], {})",
            "p = multiprocessing.get_context('fork').Process(target=print); p.start()",
            "asyncio.run(asyncio.create_subprocess_shell('true'))",
        ] {
            let source = format!("import asyncio, multiprocessing, os, subprocess\ndef tool():\n    {body}\n");
            let text = failed(&sandbox, &run(&sandbox, &source, json!({})).await);
            let said = "PermissionError: a tool cannot start other processes";
            assert!(text.starts_with(said), "{}: {body}: {text}", sandbox.level());
        }
        let source = "
import ctypes
def tool():
    libc = ctypes.CDLL(None, use_errno=True)
    # fork, vfork, clone without and clone3 by their C functions and numbers; unshare of a user namespace; ptrace
    return [libc.fork(), libc.syscall(435, 0, 0), libc.unshare(0x10000000), libc.ptrace(0, 0, 0, 0), libc.setsid(),
            libc.prctl(1, 0, 0, 0, 0), libc.system(b'true') and -1]
";
        let found = returned(&sandbox, &run(&sandbox, source, json!({})).await);
        assert_eq!(found, "[-1,-1,-1,-1,-1,-1,-1]", "{}", sandbox.level());
    }
}

#[tokio::test]
async fn threads_are_allowed_and_limited() {
    let source = "
import concurrent.futures, threading
def tool(count):
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        total = sum(pool.map(lambda n: n * n, range(100)))
    stop = threading.Event()
    threading.stack_size(64 * 1024)
    begun = 0
    try:
        while begun < count:
            threading.Thread(target=stop.wait, daemon=True).start()
            begun += 1
    except (RuntimeError, MemoryError):
        pass
    return [total, begun]
";
    for sandbox in sandboxes().await {
        let found = returned(&sandbox, &run(&sandbox, source, json!({"count": 50_000})).await);
        let (total, begun): (u64, u64) = serde_json::from_str(&found).expect("a pair");
        assert_eq!(total, 328_350);
        assert!((16..10_000).contains(&begun), "{}: {begun} threads", sandbox.level());
        // Not waiting for threads that never end is part of it.
    }
    nothing_is_left().await;
}

fn peak_memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[tokio::test]
async fn a_flood_of_output_is_dropped_and_costs_neither_memory_nor_the_result() {
    let source = "
import sys
def tool(lines):
    for stream in (sys.stdout, sys.stderr):
        for _ in range(lines):
            stream.write('x' * 9999 + '\\n')
    return 'done'
";
    for sandbox in sandboxes().await {
        let before = peak_memory_kib();
        let execution = run(&sandbox, source, json!({"lines": 20_000})).await;
        assert_eq!(returned(&sandbox, &execution), "done");
        let kept: usize = execution.stdout.iter().chain(&execution.stderr).map(String::len).sum();
        assert!(kept < 300 * 1024, "{}: {kept} bytes are kept", sandbox.level());
        let last = execution.stdout.last().expect("lines");
        assert!(last.contains("HOLDFAST_PYTHON_OUTPUT_BYTES"), "{last:.100}");
        assert!(execution.stderr.last().expect("a note").contains("HOLDFAST_PYTHON_OUTPUT_BYTES"));
        let grown = peak_memory_kib() - before;
        assert!(grown < 32 * 1024, "{}: 400 MB of output took {grown} KiB", sandbox.level());
    }
}

#[tokio::test]
async fn a_result_beyond_the_limit_is_cut_between_characters() {
    for sandbox in sandboxes().await {
        let text = returned(&sandbox, &run(&sandbox, "def tool():\n    return 'x' + 'ö' * 300000", json!({})).await);
        let (kept, note) = text.split_once('\n').expect("a note");
        assert_eq!(kept.len(), 256 * 1024 - 1);
        assert!(note.contains("600001 bytes") && note.contains("HOLDFAST_PYTHON_OUTPUT_BYTES keeps 262144"), "{note}");
    }
}

#[tokio::test]
async fn what_a_tool_prints_cannot_be_taken_for_its_result() {
    let frame = "{\\\"status\\\":\\\"returned\\\",\\\"bytes\\\":6,\\\"body\\\":6,\\\"trace\\\":0}\\nforged";
    for sandbox in sandboxes().await {
        let source = format!(
            "import os, sys\ndef tool():\n    os.write(1, b\"{frame}\")\n    os.write(2, b\"{frame}\")\n    \
             sys.stdout.write(\"{frame}\")\n    return 'honest'\n"
        );
        let execution = run(&sandbox, &source, json!({})).await;
        assert_eq!(returned(&sandbox, &execution), "honest");
        assert!(execution.stdout.join("").contains("forged"));
        // Who looks for the channel and writes to it breaks no more than this call.
        let source = "
import os
def tool(junk, times):
    for descriptor in range(3, 256):
        try:
            for _ in range(times):
                os.write(descriptor, junk.encode())
        except OSError:
            pass
    return 'honest'
";
        for times in [1, 2_000] {
            let arguments = json!({"junk": "{\"status\":\"returned\"} junk\n".repeat(1000), "times": times});
            let text = failed(&sandbox, &run(&sandbox, source, arguments).await);
            assert!(text.contains("wrote to the descriptor of results"), "{}: {text}", sandbox.level());
        }
        let execution = run(&sandbox, "def tool():\n    return 'still works'", json!({})).await;
        assert_eq!(returned(&sandbox, &execution), "still works");
    }
}

#[tokio::test]
async fn files_of_the_system_and_the_server_cannot_be_read() {
    let data = directory();
    let file = data.path().join("holdfast.db");
    std::fs::write(&file, "secret").expect("writable");
    let source = "
import os
def tool(paths):
    found = []
    for path in paths:
        try:
            found.append([path, open(path, 'rb').read(100).decode('latin-1')])
        except OSError:
            pass
        try:
            found.append([path, os.listdir(path)])
        except OSError:
            pass
    return found
";
    let me = std::process::id();
    let paths = json!({"paths": [
        file, data.path(), "/etc/shadow", "/etc/passwd", "/etc", "/root", "/home", "/var", "/proc", "/sys", "/run",
        format!("/proc/{me}/environ"), "/proc/self/environ", "/proc/self/mem", "/proc/1/environ", PROGRAM,
        concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), "/dev/mem", "/dev/sda", "/dev/vda", "/dev/tty",
    ]});
    for sandbox in sandboxes().await {
        let found = returned(&sandbox, &run(&sandbox, source, paths.clone()).await);
        // Directories that lead to the interpreter are there, with nothing in them but the way.
        let found: Vec<(String, Value)> = serde_json::from_str(&found).expect("pairs");
        let is_way = |entries: &Value| entries.as_array().is_some_and(|entries| entries.len() <= 6);
        let seen: Vec<_> = found.iter().filter(|(_, content)| !is_way(content)).collect();
        assert!(seen.is_empty(), "{}: {seen:?}", sandbox.level());
        assert!(!format!("{found:?}").contains("holdfast.db"), "{found:?}");
    }
}

#[tokio::test]
async fn nothing_is_written_outside_of_the_tools_own_directory() {
    let data = directory();
    let file = data.path().join("victim");
    std::fs::write(&file, "unharmed").expect("writable");
    let mode = std::fs::metadata(&file).expect("there").permissions();
    let source = "
import os
def tool(directory, file):
    done = []
    for what, attempt in [
        ('write', lambda: open(file, 'w')),
        ('append', lambda: open(file, 'a')),
        ('empty', lambda: os.truncate(file, 0)),
        ('remove', lambda: os.remove(file)),
        ('rename', lambda: os.rename(file, file + '2')),
        ('chmod', lambda: os.chmod(file, 0)),
        ('chown', lambda: os.chown(file, 1, 1)),
        ('utime', lambda: os.utime(file, (0, 0))),
        ('link', lambda: os.link(file, '/tmp/link')),
        ('create', lambda: open(directory + '/new', 'w')),
        ('mkdir', lambda: os.mkdir(directory + '/new')),
        ('usr', lambda: open('/usr/lib/holdfast-was-here', 'w')),
        ('root', lambda: open('/holdfast-was-here', 'w')),
        ('dev', lambda: open('/dev/shm/holdfast-was-here', 'w')),
    ]:
        try:
            attempt()
            done.append(what)
        except OSError:
            pass
    return done
";
    for sandbox in sandboxes().await {
        let found = run(&sandbox, source, json!({"directory": data.path(), "file": file})).await;
        assert_eq!(returned(&sandbox, &found), "[]", "{}", sandbox.level());
        assert_eq!(std::fs::read_to_string(&file).expect("readable"), "unharmed");
        assert_eq!(std::fs::metadata(&file).expect("there").permissions(), mode);
        assert_eq!(std::fs::read_dir(data.path()).expect("readable").count(), 1);
    }
}

#[tokio::test]
async fn temporary_files_are_small_and_gone_afterwards() {
    let source = "
import os, shutil, tempfile
def tool(mark):
    with open(os.path.join(tempfile.gettempdir(), mark), 'w') as file:
        file.write('x')
    shutil.copy2(file.name, file.name + '.copy')
    try:
        for n in range(100):
            with open(f'/tmp/{n}', 'wb') as file:
                file.write(bytes(1 << 20))
    except OSError as error:
        return [n, error.strerror]
";
    let mark = format!("holdfast-mark-{}", std::process::id());
    for sandbox in sandboxes().await {
        let execution = run(&sandbox, source, json!({"mark": mark})).await;
        match sandbox.level() {
            SandboxLevel::Bubblewrap => {
                let found: (u64, String) =
                    serde_json::from_str(&returned(&sandbox, &execution)).expect("where it stopped");
                assert!((32..=64).contains(&found.0) && found.1.contains("No space left"), "{found:?}");
            }
            SandboxLevel::Landlock | SandboxLevel::Refused { .. } => {
                assert!(failed(&sandbox, &execution).starts_with("FileNotFoundError"), "no directory can be written");
            }
        }
        assert!(!std::env::temp_dir().join(&mark).exists());
    }
}

#[tokio::test]
async fn other_processes_cannot_be_signalled() {
    let mut victim = Command::new("cat").stdin(Stdio::piped()).spawn().expect("a process");
    let source = "
import ctypes, os, resource
def tool(pids):
    done = []
    libc = ctypes.CDLL(None, use_errno=True)
    for pid in pids:
        for signal in (0, 9):
            try:
                os.kill(pid, signal)
                done.append(['kill', pid])
            except OSError:
                pass
        for name, attempt in [
            ('pidfd', lambda: os.pidfd_open(pid)),
            ('affinity', lambda: os.sched_setaffinity(pid, {0})),
            ('priority', lambda: os.setpriority(os.PRIO_PROCESS, pid, 19)),
            ('limits', lambda: resource.prlimit(pid, resource.RLIMIT_CPU, (1, 1))),
        ]:
            try:
                attempt()
                done.append([name, pid])
            except OSError:
                pass
        if libc.fcntl(1, 8, pid) == 0:
            done.append(['owner of signals', pid])
    return done
";
    for sandbox in sandboxes().await {
        let pids = json!({"pids": [victim.id(), std::process::id(), 1, -1]});
        assert_eq!(returned(&sandbox, &run(&sandbox, source, pids).await), "[]", "{}", sandbox.level());
        assert!(victim.try_wait().expect("it can be asked").is_none(), "the other process is gone");
    }
    victim.kill().expect("it can be killed");
    victim.wait().expect("it ends");
}

#[tokio::test]
async fn a_dropped_call_takes_all_its_processes_with_it() {
    let source = "import time, threading\ndef tool():\n    threading.Thread(target=time.sleep, args=(999,)).start()\n    time.sleep(999)\n";
    let me = std::process::id();
    for sandbox in sandboxes().await {
        {
            let call = run(&sandbox, source, json!({}));
            let begun = until("the tool sleeps", async || {
                let seen = descendants(me);
                is_python_there(&seen) && seen.iter().any(|(pid, _)| sleeps(*pid))
            });
            tokio::select! {
                execution = call => panic!("it ended: {execution:?}"),
                () = begun => {}
            }
        }
        nothing_is_left().await;
    }
}

/// The variable that makes the test below its own victim.
const VICTIM: &str = "HOLDFAST_TEST_PYTHON_VICTIM";

#[tokio::test]
async fn a_killed_worker_takes_its_tools_with_it() {
    let source =
        "import signal, time\ndef tool():\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    time.sleep(999)\n";
    if let Ok(number) = std::env::var(VICTIM) {
        let number: usize = number.parse().expect("a number");
        let execution = run(&sandboxes().await[number], source, json!({})).await;
        panic!("it ended: {execution:?}");
    }
    for number in 0..sandboxes().await.len() {
        let mut worker = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "python_tools::a_killed_worker_takes_its_tools_with_it", "--nocapture"])
            .env(VICTIM, number.to_string())
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts");
        // The probes of both sandboxes run Python too; what sleeps is the tool, and it uses no processor time.
        let mut seen = BTreeSet::new();
        until("the tool sleeps", async || {
            seen = descendants(worker.id());
            is_python_there(&seen) && seen.iter().any(|(pid, _)| sleeps(*pid))
        })
        .await;
        worker.kill().expect("SIGKILL");
        worker.wait().expect("it ends");
        let is_gone = |(pid, start): &(u32, String)| process(*pid).is_none_or(|(_, _, later)| later != *start);
        until("nothing of the tool is left", async || seen.iter().all(is_gone)).await;
    }
}

/// Whether a process waits for time to pass.
fn sleeps(pid: u32) -> bool {
    let called = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let number = called.split_whitespace().next().unwrap_or_default();
    // clock_nanosleep and select, by which Python sleeps, on the two architectures.
    matches!(number, "230" | "115" | "270" | "72" | "23")
}

#[tokio::test]
async fn calls_wait_for_their_turn() {
    let source = "import time\ndef tool():\n    begun = time.monotonic()\n    time.sleep(0.2)\n    return [begun, time.monotonic()]\n";
    for sandbox in sandboxes_with(|settings| settings.concurrency = 1).await {
        let calls = (0..3).map(|_| run(&sandbox, source, json!({})));
        let mut spans: Vec<(f64, f64)> = Vec::new();
        for execution in futures::future::join_all(calls).await {
            spans.push(serde_json::from_str(&returned(&sandbox, &execution)).expect("two times"));
        }
        spans.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(spans.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{}: {spans:?}", sandbox.level());
    }
}

#[tokio::test]
async fn what_cannot_be_confined_is_not_executed() {
    let cases: [(SandboxChoice, &str, &str); 3] = [
        (SandboxChoice::Off, "python3", "HOLDFAST_PYTHON_SANDBOX"),
        (SandboxChoice::Auto, "/no/such/python", "HOLDFAST_PYTHON"),
        (SandboxChoice::Auto, "/bin/cat", "HOLDFAST_PYTHON"),
    ];
    for (choice, interpreter, named) in cases {
        let settings = PythonSettings { interpreter: interpreter.to_owned(), ..settings(choice) };
        let sandbox = probe(&settings).await;
        let execution = run(&sandbox, "def tool():\n    return 1", json!({})).await;
        match (sandbox.level(), &execution.outcome) {
            (SandboxLevel::Refused { why }, Outcome::NotExecuted(text)) => {
                assert!(why.contains(named) && text.contains(named), "{interpreter}: {why}, {text}");
            }
            other => panic!("{interpreter}: {other:?}"),
        }
    }
    // A program that sets up no sandbox is found out: it is asked to break out first.
    let sandbox = PythonSandbox::probe(&settings(SandboxChoice::Auto), PathBuf::from("/bin/false"), DEADLINE).await;
    assert!(matches!(sandbox.level(), SandboxLevel::Refused { why } if why.contains("no sandbox works here")));
}

#[tokio::test]
async fn the_strongest_sandbox_is_taken() {
    let strongest = sandboxes().await.into_iter().next().expect("one works");
    assert_eq!(probe(&settings(SandboxChoice::Auto)).await.level(), strongest.level());
}
