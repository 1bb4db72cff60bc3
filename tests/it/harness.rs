//! Starts the real program, in one process or as a cluster, and takes it away again. Everything has a name, a port and a
//! directory of its own; every wait has a deadline; what a test leaves behind is removed when its value is dropped.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use super::client::Client;
use super::services::{self, Database, Queues};

/// The longest that anything in a test may take before it counts as hanging. It is generous: the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_holdfast");

/// Variables of the program.
pub type Settings = BTreeMap<&'static str, String>;

/// Settings from pairs.
pub fn settings<const N: usize>(pairs: [(&'static str, &str); N]) -> Settings {
    pairs.into_iter().map(|(name, value)| (name, value.to_owned())).collect()
}

/// The program with nothing of the caller's environment but what programs need to run at all.
pub fn command(arguments: &[&str], settings: &Settings) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for kept in ["PATH", "TMPDIR", "LLVM_PROFILE_FILE"] {
        if let Some(value) = std::env::var_os(kept) {
            command.env(kept, value);
        }
    }
    command.env("RUST_BACKTRACE", "1").envs(settings);
    command
}

/// Runs the program to its end and answers what it said. A program that does not end is killed and fails the test.
pub fn run_to_end(arguments: &[&str], settings: &Settings) -> Output {
    let mut child = command(arguments, settings).spawn().expect("the program starts");
    // Read as it comes: a program that writes more than a pipe holds would not end.
    let stdout = read_to_end(child.stdout.take().expect("stdout is piped"));
    let stderr = read_to_end(child.stderr.take().expect("stderr is piped"));
    let started = Instant::now();
    let mut status = child.try_wait().expect("the program can be waited for");
    while status.is_none() && started.elapsed() < DEADLINE {
        std::thread::sleep(Duration::from_millis(5));
        status = child.try_wait().expect("the program can be waited for");
    }
    if status.is_none() {
        child.kill().expect("it can be killed");
    }
    let (stdout, stderr) = (stdout.join().expect("its output"), stderr.join().expect("its log"));
    let Some(status) = status else {
        panic!("`holdfast {}` did not end: {}", arguments.join(" "), String::from_utf8_lossy(&stderr));
    };
    Output { status, stdout, stderr }
}

fn read_to_end(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("a pipe can be read");
        bytes
    })
}

/// Waits until something is so that tells nobody when it becomes so: other processes, files, locks, what an API answers.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !is_so().await {
        assert!(started.elapsed() < DEADLINE, "{what} did not become so");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A running process whose output is kept. It is killed when it is dropped, and its log shown if the test failed.
pub struct Process {
    /// What it is, for messages.
    pub name: String,
    child: Child,
    stdout: watch::Receiver<Vec<String>>,
    stderr: watch::Receiver<Vec<String>>,
}

impl Process {
    /// Starts a process and keeps what it writes.
    pub fn spawn(name: &str, mut command: Command) -> Self {
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let stdout = keep_lines(child.stdout.take().expect("stdout is piped"));
        let stderr = keep_lines(child.stderr.take().expect("stderr is piped"));
        Self { name: name.to_owned(), child, stdout, stderr }
    }

    /// Waits until standard output has a line with this text, and answers the rest of the line.
    pub async fn said(&mut self, text: &str) -> String {
        let found =
            timeout(DEADLINE, self.stdout.wait_for(|lines| lines.iter().any(|line| line.contains(text)))).await.is_ok();
        let rest = self.stdout.borrow().iter().find_map(|line| Some(line.split_once(text)?.1.trim().to_owned()));
        match rest {
            Some(rest) if found => rest,
            _ => panic!("{} did not say {text:?}\n{}\n{}", self.name, self.output(), self.log()),
        }
    }

    /// Waits until standard error has a line with this text.
    pub async fn logged(&mut self, text: &str) {
        let found =
            timeout(DEADLINE, self.stderr.wait_for(|lines| lines.iter().any(|line| line.contains(text)))).await.is_ok();
        assert!(found, "{} did not log {text:?}\n{}\n{}", self.name, self.output(), self.log());
    }

    /// Everything on standard output so far.
    pub fn output(&self) -> String {
        self.stdout.borrow().join("\n")
    }

    /// Everything on standard error so far.
    pub fn log(&self) -> String {
        self.stderr.borrow().join("\n")
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill_9(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    /// Sends a signal (`TERM`, `INT`, `STOP`, `CONT`) to this process alone.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([&format!("-{signal}"), &self.child.id().to_string()])
            .status()
            .expect("kill is a program");
        assert!(status.success(), "{} did not get SIG{signal}", self.name);
    }

    /// Waits until it ended by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        self.ended_within(DEADLINE).await
    }

    /// The same, and until everything that it said has been read.
    pub async fn ended_and_was_heard(&mut self) -> ExitStatus {
        let status = self.ended().await;
        for pipe in [&mut self.stdout, &mut self.stderr] {
            // What keeps the lines goes when the pipe is closed.
            let closed = timeout(DEADLINE, async { while pipe.changed().await.is_ok() {} }).await;
            assert!(closed.is_ok(), "{} left a pipe open", self.name);
        }
        status
    }

    /// Waits so long until it ended by itself.
    pub async fn ended_within(&mut self, deadline: Duration) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status;
            }
            assert!(started.elapsed() < deadline, "{} did not end\n{}\n{}", self.name, self.output(), self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it is gone already, which is what is wanted.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}\n---", self.name, self.log());
        }
    }
}

fn keep_lines(pipe: impl Read + Send + 'static) -> watch::Receiver<Vec<String>> {
    let (keep, kept) = watch::channel(Vec::new());
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            keep.send_modify(|lines| lines.push(line));
        }
    });
    kept
}

/// A port that was free a moment ago, for programs that cannot pick one by themselves.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// `holdfast dev` on a directory that outlives it.
pub struct Dev {
    /// The process.
    pub process: Process,
    /// A client of it.
    pub client: Client,
}

impl Dev {
    /// Starts it on a free port, and waits until it is ready.
    pub async fn start(data: &Path) -> Self {
        Self::start_with(data, Settings::new()).await
    }

    /// The same with settings, which may say where it listens.
    pub async fn start_with(data: &Path, mut settings: Settings) -> Self {
        settings.insert("HOME", data.display().to_string());
        settings.entry("HOLDFAST_LISTEN").or_insert_with(|| "127.0.0.1:0".to_owned());
        let directory = data.join("data").display().to_string();
        let command = command(&["dev", "--data-dir", &directory], &settings);
        let mut process = Process::spawn("holdfast dev", command);
        let base = process.said("Holdfast is ready at ").await;
        Self { process, client: Client::new(&base) }
    }
}

/// A directory of one's own.
pub fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// APIs and workers on a database, a Redis prefix and a RabbitMQ prefix of their own.
pub struct Cluster {
    /// The APIs.
    pub apis: Vec<Api>,
    /// The workers, also those that were killed.
    pub workers: Vec<Process>,
    settings: Settings,
    database: Option<Database>,
    prefix: String,
}

/// One API process.
pub struct Api {
    /// The process.
    pub process: Process,
    /// A client of it.
    pub client: Client,
}

impl Cluster {
    /// Starts so many APIs and workers.
    pub async fn start(apis: usize, workers: usize) -> Self {
        Self::start_with(apis, workers, Settings::new()).await
    }

    /// The same with settings, which win over the cluster's own.
    pub async fn start_with(apis: usize, workers: usize, own: Settings) -> Self {
        let database = Database::create().await;
        let prefix = services::unique_name("cluster");
        let mut settings = Settings::from([
            ("DATABASE_URL", database.url.clone()),
            ("AMQP_URL", services::amqp_url()),
            ("REDIS_URL", services::redis_url()),
            ("HOLDFAST_PREFIX", prefix.clone()),
            ("HOLDFAST_LISTEN", "127.0.0.1:0".to_owned()),
        ]);
        settings.extend(own);
        // Made first, so that whatever fails from here on leaves nothing behind.
        let mut cluster = Self { apis: Vec::new(), workers: Vec::new(), settings, database: Some(database), prefix };
        let migrated = run_to_end(&["migrate"], &cluster.settings);
        assert!(migrated.status.success(), "migrate failed: {}", String::from_utf8_lossy(&migrated.stderr));
        for _ in 0..apis {
            cluster.add_api().await;
        }
        for _ in 0..workers {
            cluster.add_worker().await;
        }
        cluster
    }

    /// One more API.
    pub async fn add_api(&mut self) -> Client {
        let mut process =
            Process::spawn(&format!("holdfast api {}", self.apis.len()), command(&["api"], &self.settings));
        let base = process.said("Holdfast API is ready at ").await;
        let client = Client::new(&base);
        self.apis.push(Api { process, client: client.clone() });
        client
    }

    /// One more worker; answers its place.
    pub async fn add_worker(&mut self) -> usize {
        let name = format!("holdfast worker {}", self.workers.len());
        let mut process = Process::spawn(&name, command(&["worker"], &self.settings));
        let id = process.said("Holdfast worker is ready: ").await;
        assert!(id.starts_with("worker-"), "{id:?} is not the id of a worker");
        self.workers.push(process);
        self.workers.len() - 1
    }

    /// A client of an API.
    pub fn client(&self, api: usize) -> Client {
        self.apis[api].client.clone()
    }

    /// The database's URL.
    pub fn database_url(&self) -> &str {
        &self.settings["DATABASE_URL"]
    }

    /// Kills every process as kill -9 does; database, Redis and RabbitMQ stay.
    pub fn kill_everything(&mut self) {
        self.apis.clear();
        self.workers.clear();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill_everything();
        forget_redis_keys(&self.settings["REDIS_URL"], &self.prefix);
        let Some(database) = self.database.take() else { return };
        let queues = Queues::of(&self.prefix);
        // The test's own runtime may be the one that drops this value, so the work needs another one.
        let removal = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async { tokio::join!(database.remove(), queues.remove()) });
        });
        let removed = removal.join();
        assert!(removed.is_ok() || std::thread::panicking(), "the test's database stays behind");
    }
}

/// Deletes the keys of one test, and no others. A server that is gone took them along.
fn forget_redis_keys(url: &str, prefix: &str) {
    const SCRIPT: &str = "local c='0' repeat local r=redis.call('SCAN',c,'MATCH',ARGV[1],'COUNT',1000) c=r[1] \
        for _,k in ipairs(r[2]) do redis.call('DEL',k) end until c=='0' return 0";
    let address = url.trim_start_matches("redis://").split('/').next().unwrap_or_default();
    let address = address.rsplit('@').next().unwrap_or_default();
    let Ok(mut stream) = TcpStream::connect(address) else { return };
    let pattern = format!("*{prefix}*");
    let mut request = String::from("*4\r\n");
    for part in ["EVAL", SCRIPT, "0", &pattern] {
        request.push_str(&format!("${}\r\n{part}\r\n", part.len()));
    }
    // Keys that stay although the server answers expire by themselves; they carry a name that no other test uses.
    let _expires_anyway = stream.set_read_timeout(Some(Duration::from_secs(5)));
    if stream.write_all(request.as_bytes()).is_ok() {
        let _expires_anyway = stream.read(&mut [0; 64]);
    }
}

/// A Redis of one's own that may be killed: nothing is kept on disk, so a restart comes back empty.
pub struct PrivateRedis {
    /// Where it listens, also after a restart.
    pub url: String,
    port: u16,
    directory: tempfile::TempDir,
    process: Process,
}

impl PrivateRedis {
    /// Starts it.
    pub async fn start() -> Self {
        let port = free_port();
        let directory = directory();
        let process = Self::spawn(port, directory.path()).await;
        Self { url: format!("redis://127.0.0.1:{port}"), port, directory, process }
    }

    /// Kills it, and starts an empty one on the same port.
    pub async fn lose_everything(&mut self) {
        self.process.kill_9();
        self.process = Self::spawn(self.port, self.directory.path()).await;
    }

    /// Kills it, and leaves it so.
    pub fn stop(&mut self) {
        self.process.kill_9();
    }

    async fn spawn(port: u16, directory: &Path) -> Process {
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]);
        command.arg(directory).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Process::spawn("redis-server (scripts/test says how to get it)", command);
        process.said("Ready to accept connections").await;
        process
    }
}

/// A directory of the test tools that `scripts/test` prepared.
pub fn tools_directory(part: &str) -> PathBuf {
    let cache = std::env::var_os("HOLDFAST_TEST_CACHE").map_or_else(default_cache, PathBuf::from);
    let directory = cache.join(part);
    assert!(directory.is_dir(), "{} is missing: `scripts/test --prepare` makes it", directory.display());
    directory
}

fn default_cache() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache");
    cache.unwrap_or_else(home).join("holdfast-test")
}

/// A request that starts a background run with a directive to the built-in model.
pub fn background(text: &str) -> Value {
    json!({"messages": [{"role": "user", "content": text}], "background": true, "stream_tokens": true})
}
