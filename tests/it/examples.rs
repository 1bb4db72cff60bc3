//! The programs and the page in `examples` do what they say, as a reader would start them.

use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use futures::FutureExt;
use tempfile::TempDir;

use super::browser::Browser;
use super::client::Client;
use super::gate::Gate;
use super::harness::{Cluster, Dev, Process, Settings, directory, free_port, tools_directory};
use super::scripted_model::script::{Answer, End, Failure};
use super::scripted_model::{Kind, Script, ScriptedModel};
use super::socket::{Reply, Request, Server};

/// The text of the built-in model, over and over.
const WORDS: &str = "one word after another until all are said. ";

fn sources(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(part)
}

/// The examples of one language. They say the same in each.
struct Programs {
    interpreter: Vec<PathBuf>,
    sources: PathBuf,
    ending: &'static str,
    /// Where they are started.
    place: TempDir,
    _copy: Option<TempDir>,
}

/// What a program did.
struct Outcome {
    is_success: bool,
    output: String,
    log: String,
}

impl Outcome {
    fn good(self) -> String {
        assert!(self.is_success, "{}\n{}", self.output, self.log);
        self.output
    }

    /// What a program that failed complained of.
    fn bad(self) -> String {
        assert!(!self.is_success, "{}\n{}", self.output, self.log);
        self.log
    }
}

impl Programs {
    fn python() -> Self {
        let interpreter = vec![tools_directory("python").join("bin/python")];
        Self { interpreter, sources: sources("python"), ending: "py", place: directory(), _copy: None }
    }

    fn typescript() -> Self {
        let packages = tools_directory("examples-typescript");
        let copy = typescript_sources(&packages);
        Self {
            interpreter: vec!["node".into(), packages.join("node_modules/tsx/dist/cli.mjs")],
            sources: copy.path().to_owned(),
            ending: "ts",
            place: directory(),
            _copy: Some(copy),
        }
    }

    /// Runs an example to its end. `said` is what its user types.
    async fn run(&self, at: &Client, example: &str, arguments: &[&str], said: &str) -> Outcome {
        let file = self.sources.join(example).with_extension(self.ending);
        let mut typed = tempfile::tempfile().expect("a file");
        typed.write_all(said.as_bytes()).and_then(|()| typed.rewind()).expect("a file with a text");
        let mut command = Command::new(&self.interpreter[0]);
        command.args(&self.interpreter[1..]).arg(&file).args(arguments).current_dir(self.place.path());
        command.env("LETTA_BASE_URL", &at.base).env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONWARNINGS", "error");
        for variable in ["LETTA_API_KEY", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
            command.env_remove(variable);
        }
        command.stdin(Stdio::from(typed)).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Process::spawn(&file.display().to_string(), command);
        let is_success = process.ended_and_was_heard().await.success();
        Outcome { is_success, output: process.output(), log: process.log() }
    }

    /// Starts a run at one API, leaves it, and reads on in a new process at another one, perhaps after something happened.
    async fn leave_and_reconnect(&self, here: &Client, there: &Client, between: impl FnOnce()) {
        let arguments = ["[[demo tokens=60 delay_ms=10]]", "--leave-after", "10"];
        let first = self.run(here, "background_run", &arguments, "").await.good();
        assert!(first.contains("Left after event 10. The run goes on."), "{first}");
        between();
        let second = self.run(there, "reconnect", &[], "").await.good();
        assert!(second.contains("Ended with end_turn after event 61."), "{second}");
        assert!(second.contains("events 1 to 10, and 51 more. None is missing, none came twice."), "{second}");
        // Each shows what it reads between its first line and what it says at the end.
        let [first, second] = [&first, &second].map(|output| output.lines().nth(1).expect("a line of text").to_owned());
        let whole: String = WORDS.split_inclusive(' ').cycle().take(60).collect();
        assert_eq!(format!("{first}{second}"), whole);
    }

    async fn all_work(&self, at: &Client) {
        let complaint = self.run(at, "reconnect", &[], "").await.bad();
        assert!(complaint.contains("There is no run.json here"), "{complaint}");
        self.leave_and_reconnect(at, at, || {}).await;
        let failure = self.run(at, "background_run", &["[[demo tokens=2 error=500]]"], "").await.bad();
        assert!(failure.contains("The demo model was told to fail"), "{failure}");

        for (arguments, typed, status, told) in
            [(&[][..], "yes\n", "success", "Ada has 250 euros more."), (&["--deny"], "", "error", "Too much.")]
        {
            let said = self.run(at, "approval", arguments, typed).await.good();
            assert!(said.contains("ended with requires_approval"), "{said}");
            assert!(said.contains(r#"transfer_money({"to": "Ada", "amount": 250})?"#), "{said}");
            let tool = said.lines().find(|line| line.contains(&format!("tool ({status})"))).unwrap_or_default();
            assert!(tool.contains(told), "{said}");
            assert!(said.lines().any(|line| line.contains("agent: ") && line.contains(told)), "{said}");
        }

        std::fs::write(self.place.path().join("a file of the client"), "").expect("a file");
        let said = self.run(at, "client_tool", &[], "").await.good();
        assert!(said.contains("  success: a file of the client, run.json"), "{said}");
        assert!(
            said.contains("The agent says: The tool list_files answered: \"a file of the client, run.json\""),
            "{said}"
        );
    }
}

/// A copy beside the packages: Node resolves them from the place of the importing file.
fn typescript_sources(packages: &Path) -> TempDir {
    let copy = tempfile::Builder::new().prefix("examples-").tempdir_in(packages).expect("a directory");
    for entry in std::fs::read_dir(sources("typescript")).expect("the examples") {
        let file = entry.expect("an entry").path();
        if file.is_file() {
            std::fs::copy(&file, copy.path().join(file.file_name().expect("a name"))).expect("a copy");
        }
    }
    copy
}

#[tokio::test]
async fn python_programs_work() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    Programs::python().all_work(&dev.client).await;
}

#[tokio::test]
async fn typescript_programs_work() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    Programs::typescript().all_work(&dev.client).await;
}

#[tokio::test]
async fn python_reconnects_to_another_api_with_a_cluster() {
    let mut cluster = Cluster::start(2, 1).await;
    let (here, there) = (cluster.client(0), cluster.client(1));
    let api = &mut cluster.apis[0].process;
    Programs::python().leave_and_reconnect(&here, &there, || api.kill_9()).await;
}

#[tokio::test]
async fn typescript_programs_have_the_types_of_the_sdk() {
    let packages = tools_directory("examples-typescript");
    let copy = typescript_sources(&packages);
    let mut command = Command::new("node");
    command.arg(packages.join("node_modules/typescript/bin/tsc")).arg("--project").arg(copy.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = Process::spawn("tsc", command);
    assert!(process.ended_and_was_heard().await.success(), "{}\n{}", process.output(), process.log());
}

/// The page in a browser, a server that may be killed, and a model that says what the test wants.
struct Page {
    browser: Browser,
    model: ScriptedModel,
    site: Server,
    settings: Settings,
    data: TempDir,
    dev: Dev,
    /// A request of the site, to be opened.
    url: String,
}

impl Page {
    async fn start() -> Self {
        let answer = |_request: Request, reply: Reply| {
            let html = std::fs::read_to_string(sources("browser/index.html")).expect("the page");
            async move {
                // A browser that goes away has what it wanted.
                let _left = reply.text(200, &[], "text/html", &html).await;
            }
            .boxed()
        };
        let site = Server::start(Arc::new(answer)).await;
        let model = ScriptedModel::start().await;
        let mut settings = Kind::Chat.settings(&model);
        settings.insert("HOLDFAST_CORS_ORIGINS", site.base.clone());
        // The page comes back to the same address after a restart.
        settings.insert("HOLDFAST_LISTEN", format!("127.0.0.1:{}", free_port()));
        let (browser, data) = (Browser::start().await, directory());
        let dev = Dev::start_with(data.path(), settings.clone()).await;
        let url = format!("{}/?server={}", site.base, dev.client.base);
        Self { browser, model, site, settings, data, dev, url }
    }

    /// Opens the page, and sends a message to an agent of this script.
    async fn send(&self, script: &Script) {
        let agent = serde_json::json!({"name": "browser", "model": script.handle});
        let agent = self.dev.client.post("/v1/agents/", &agent).await.ok();
        self.browser.open(&self.url).await;
        self.browser.fill("[name=agent]", agent["id"].as_str().expect("an id")).await;
        self.browser.fill("[name=message]", "Tell me.").await;
        self.browser.click("#send").await;
    }

    /// Loads the page again in mid-stream.
    async fn reload(&self, shown: &str) {
        self.browser.until_shows("#answer", shown).await;
        self.browser.reload().await;
        self.browser.until_shows("#status", "Resumed after event ").await;
        assert_eq!(
            self.browser.text("#answer").await,
            shown,
            "what was shown is there again, before anything else came"
        );
        let cursor = self.browser.value("JSON.parse(localStorage.getItem('holdfast-run')).cursor").await;
        assert!(cursor.as_u64().is_some_and(|cursor| cursor > 1), "it does not begin again at {cursor}");
    }

    /// Waits for the end, and compares what is shown.
    async fn ends(&self, end: &str, shown: &str) {
        self.browser.until_shows("#status", "Ended: ").await;
        assert_eq!(self.browser.text("#status").await, end);
        assert_eq!(self.browser.text("#answer").await, shown);
    }
}

#[tokio::test]
async fn the_page_goes_on_after_a_reload_in_mid_stream() {
    let page = Page::start().await;
    let gate = Gate::shut();
    let told = Answer::new().says(&["All ", "ships "]).waits(&gate).says(&["come ", "home."]);
    let script = page.model.script(Kind::Chat, [told]);
    page.send(&script).await;
    page.reload("All ships ").await;
    page.reload("All ships ").await;
    gate.open();
    page.ends("Ended: end_turn.", "All ships come home.").await;
    page.browser.reload().await;
    page.ends("Ended: end_turn.", "All ships come home.").await;
    script.assert_used_up();

    // A run that fails in the second part: its reason comes in a frame of its own.
    let gate = Gate::shut();
    let failing = Answer::new().says(&["It was ", "a dark "]).waits(&gate).ends(End::Error(Failure::Internal));
    page.send(&page.model.script(Kind::Chat, [failing])).await;
    page.reload("It was a dark ").await;
    gate.open();
    page.browser.until_shows("#status", "Ended: llm_api_error. ").await;
    assert_eq!(page.browser.text("#answer").await, "It was a dark ");
}

#[tokio::test]
async fn the_page_goes_on_by_itself_after_a_kill_of_the_server() {
    let mut page = Page::start().await;
    let answers = [
        Answer::new().says(&["It has ", "begun "]).stalls(),
        Answer::new().says(&["It has ", "begun ", "and ", "ended."]),
    ];
    let script = page.model.script(Kind::Chat, answers);
    page.send(&script).await;
    page.reload("It has begun ").await;
    page.dev.process.kill_9();
    page.browser.until_shows("#status", "The connection broke.").await;
    page.dev = Dev::start_with(page.data.path(), page.settings.clone()).await;
    page.ends("Ended: end_turn.", "It has begun and ended.").await;
    script.assert_used_up();
}

#[tokio::test]
async fn a_request_of_the_page_that_may_be_lost_is_carried_out_once() {
    let page = Page::start().await;
    let script = page.model.script(Kind::Chat, [Answer::text("Once and no more.")]);
    let agent = serde_json::json!({"name": "browser", "model": script.handle});
    let agent = page.dev.client.post("/v1/agents/", &agent).await.ok()["id"].as_str().expect("an id").to_owned();
    page.browser.open(&page.url).await;
    page.browser.fill("[name=agent]", &agent).await;
    // The page is gone before it can hear of the run, or even before the request has left.
    page.browser.value("(document.getElementById('send').click(), location.reload())").await;
    page.ends("Ended: end_turn.", "Once and no more.").await;
    let runs = page.dev.client.get(&format!("/v1/runs/?agent_id={agent}")).await.ok();
    assert_eq!(runs.as_array().map(Vec::len), Some(1), "{runs}");

    // A server that does not know the page says no, and the page says what to do.
    let stranger = page.url.replace("127.0.0.1", "localhost");
    page.browser.open(&stranger).await;
    page.browser.click("#send").await;
    let origin = page.site.base.replace("127.0.0.1", "localhost");
    page.browser.until_shows("#status", &format!("does its HOLDFAST_CORS_ORIGINS name {origin}?")).await;
}
