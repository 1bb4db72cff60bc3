//! A server on a real socket that speaks the APIs of four kinds of model providers and answers what a test wrote down.
//! Each script has a model of its own, so that many scenarios share a server. Whatever is asked that no script expects, or
//! that a real provider would refuse, fails the test.

pub mod asked;
pub mod script;

mod anthropic;
mod gemini;
mod openai;
mod responses;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::gate::Gate;
use super::harness::{DEADLINE, Settings};
use super::socket::{Left, Reply as Way, Request, Server};
use asked::Asked;
use script::{Answer, Failure, Reply, Told};

/// The key that the server wants.
pub const KEY: &str = "sk-of-the-scripted-model";
/// Models that each kind lists: more than a page.
const MODELS: usize = 480;
const STREAM: &str = "text/event-stream";

/// A provider's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// OpenAI's chat completions.
    Chat,
    /// OpenAI's Responses.
    Responses,
    /// Anthropic's Messages.
    Anthropic,
    /// Gemini.
    Gemini,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Chat, Self::Responses, Self::Anthropic, Self::Gemini];

    /// What the names of its models begin with. Names are realistic, since clients read abilities from them.
    const fn family(self) -> &'static str {
        match self {
            Self::Chat => "gpt-4.1-s",
            Self::Responses => "gpt-5-s",
            Self::Anthropic => "claude-sonnet-4-5-s",
            Self::Gemini => "gemini-2.5-pro-s",
        }
    }

    fn names(self) -> Vec<String> {
        (0..MODELS).map(|number| format!("{}{number}", self.family())).collect()
    }

    /// The failure in this API's words.
    fn refuse(self, failure: &Failure) -> Refused {
        match self {
            Self::Chat | Self::Responses => openai::refuse(failure),
            Self::Anthropic => anthropic::refuse(failure),
            Self::Gemini => gemini::refuse(failure),
        }
    }

    fn tell(self, telling: &Telling<'_>) -> Vec<Act> {
        match self {
            Self::Chat => openai::tell(telling),
            Self::Responses => responses::tell(telling),
            Self::Anthropic => anthropic::tell(telling),
            Self::Gemini => gemini::tell(telling),
        }
    }

    /// Whether the request brings the key where this API wants it.
    fn has_key(self, request: &Request) -> bool {
        let has_bearer = request.header("authorization") == format!("Bearer {KEY}");
        match self {
            Self::Chat | Self::Responses => has_bearer,
            // Its own clients send the one or the other, by their age.
            Self::Anthropic => request.header("x-api-key") == KEY || has_bearer,
            Self::Gemini => {
                request.header("x-goog-api-key") == KEY || request.query.get("key").is_some_and(|key| key == KEY)
            }
        }
    }

    /// What the settings of the program say so that it finds all providers here. Of the two APIs of OpenAI a program
    /// speaks one at a time: this one, if it is one of them.
    pub fn settings(self, server: &ScriptedModel) -> Settings {
        let api = if self == Self::Responses { "responses" } else { "chat_completions" };
        let places = [
            ("OPENAI_BASE_URL", "OPENAI_API_KEY", "/openai/v1"),
            ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY", "/anthropic/v1"),
            ("GEMINI_BASE_URL", "GEMINI_API_KEY", "/gemini/v1beta"),
        ];
        let found = places
            .into_iter()
            .flat_map(|(url, key, path)| [(url, format!("{}{path}", server.base())), (key, KEY.to_owned())]);
        let summary = ("HOLDFAST_OPENAI_REASONING_SUMMARY", "auto".to_owned());
        found.chain([("HOLDFAST_OPENAI_API", api.to_owned()), summary]).collect()
    }

    /// The handle of a model of this kind.
    fn handle(self, model: &str) -> String {
        let provider = match self {
            Self::Chat | Self::Responses => "openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "google_ai",
        };
        format!("{provider}/{model}")
    }
}

/// A refusal in a provider's words.
#[derive(Debug, Clone, PartialEq)]
struct Refused {
    status: u16,
    /// Seconds, for the header.
    retry_after: Option<u32>,
    body: Value,
}

/// What an answer is made from.
struct Telling<'a> {
    model: &'a str,
    /// The number of the call; ids are made from it.
    number: usize,
    request: &'a Value,
    told: &'a Told,
}

/// What the server does, one after the other.
#[derive(Debug, Clone)]
enum Act {
    Send(String),
    Wait(Gate),
    HangUp,
}

/// A call of a scripted model.
#[derive(Debug, Clone)]
pub struct Call {
    /// What was asked.
    pub asked: Asked,
    /// The request as it came.
    pub request: Request,
    /// When it came.
    pub at: Instant,
    /// How far the answer got.
    pub progress: Progress,
}

/// How far an answer got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It is being given.
    Open,
    /// It was given as the script says.
    Given,
    /// The caller went away before its end.
    Left,
}

/// Where answers come from.
enum Source {
    List(VecDeque<Answer>),
    Function(Box<dyn FnMut(&Asked) -> Answer + Send>),
}

/// The server.
pub struct ScriptedModel {
    server: Server,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    scripts: Mutex<BTreeMap<String, Arc<Inner>>>,
    next: AtomicUsize,
    calls: AtomicUsize,
    /// What went wrong, one sentence each.
    faults: Mutex<Vec<String>>,
}

struct Inner {
    kind: Kind,
    model: String,
    source: Mutex<Source>,
    calls: watch::Sender<Vec<Call>>,
}

/// A model with what it shall answer.
pub struct Script {
    /// What agents name the model by.
    pub handle: String,
    inner: Arc<Inner>,
}

impl ScriptedModel {
    /// Starts it.
    pub async fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let answering = Arc::clone(&shared);
        let handler = move |request: Request, way: Way| {
            let shared = Arc::clone(&answering);
            async move { shared.answer(request, way).await }.boxed()
        };
        Self { server: Server::start(Arc::new(handler)).await, shared }
    }

    /// `http://host:port`
    pub fn base(&self) -> &str {
        &self.server.base
    }

    /// A model that answers these one after the other, and each once.
    pub fn script(&self, kind: Kind, answers: impl IntoIterator<Item = Answer>) -> Script {
        self.enter(kind, Source::List(answers.into_iter().collect()))
    }

    /// A model that answers what a function makes of the request.
    pub fn function(&self, kind: Kind, answer: impl FnMut(&Asked) -> Answer + Send + 'static) -> Script {
        self.enter(kind, Source::Function(Box::new(answer)))
    }

    fn enter(&self, kind: Kind, source: Source) -> Script {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        assert!(number < MODELS, "more scripts than listed models");
        let model = format!("{}{number}", kind.family());
        let inner = Inner { kind, model: model.clone(), source: Mutex::new(source), calls: watch::Sender::default() };
        let inner = Arc::new(inner);
        lock(&self.shared.scripts).insert(model.clone(), Arc::clone(&inner));
        Script { handle: kind.handle(&model), inner }
    }

    /// What was asked that no script expects or that a provider would refuse.
    pub fn faults(&self) -> Vec<String> {
        lock(&self.shared.faults).clone()
    }

    /// Takes note of a fault that a test wanted to see.
    pub fn forgive(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.shared.faults))
    }
}

impl Drop for ScriptedModel {
    fn drop(&mut self) {
        let faults = self.faults();
        assert!(faults.is_empty() || std::thread::panicking(), "the model was asked wrongly: {faults:#?}");
    }
}

impl Script {
    /// Calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.inner.calls.borrow().clone()
    }

    /// The call of this number, from 1, waiting until it comes.
    pub async fn call(&self, number: usize) -> Call {
        self.wait(number, |_call| true, "come").await
    }

    /// Waits until the caller of this call went away before its answer's end.
    pub async fn was_left(&self, number: usize) {
        self.wait(number, |call| call.progress == Progress::Left, "left").await;
    }

    /// Asserts that every answer was asked for.
    pub fn assert_used_up(&self) {
        if let Source::List(left) = &*lock(&self.inner.source) {
            assert!(left.is_empty(), "{} was never asked for {left:#?}", self.handle);
        }
    }

    async fn wait(&self, number: usize, is_so: impl Fn(&Call) -> bool, what: &str) -> Call {
        let mut calls = self.inner.calls.subscribe();
        let there = calls.wait_for(|calls| calls.get(number - 1).is_some_and(&is_so));
        let found = match timeout(DEADLINE, there).await {
            Ok(Ok(calls)) => calls.get(number - 1).cloned(),
            _ => None,
        };
        found.unwrap_or_else(|| panic!("call {number} of {} was not {what}: {:#?}", self.handle, self.calls()))
    }
}

impl Shared {
    async fn answer(&self, request: Request, way: Way) {
        // Whether the caller hears it is its own affair.
        let _left = match self.route(&request) {
            Ok(Route::Models(list)) => way.json(200, &[], &list).await,
            Ok(Route::Call { kind, asked }) => match self.take(kind, &asked) {
                Ok((script, answer)) => script.give(self, request, asked, answer, way).await,
                Err(fault) => self.refuse(kind, fault, way).await,
            },
            Err((kind, fault)) => self.refuse(kind, fault, way).await,
        };
    }

    fn route(&self, request: &Request) -> Result<Route, (Kind, String)> {
        let query = |name: &str| request.query.get(name).map(String::as_str);
        let body = &request.body;
        let segments: Vec<_> = request.path.split('/').skip(1).collect();
        let (kind, route) = match (request.method.as_str(), segments.as_slice()) {
            ("GET", ["openai", "v1", "models"]) => {
                let names = [Kind::Chat.names(), Kind::Responses.names()].concat();
                (Kind::Chat, Route::Models(openai::list(&names)))
            }
            ("GET", ["anthropic", "v1", "models"]) => {
                let list = anthropic::list(&Kind::Anthropic.names(), query("limit"), query("after_id"));
                (Kind::Anthropic, Route::Models(list))
            }
            ("GET", ["gemini", "v1beta", "models"]) => {
                let list = gemini::list(&Kind::Gemini.names(), query("pageSize"), query("pageToken"));
                (Kind::Gemini, Route::Models(list))
            }
            ("POST", ["openai", "v1", "chat", "completions"]) => call(Kind::Chat, openai::read(body)),
            ("POST", ["openai", "v1", "responses"]) => call(Kind::Responses, responses::read(body)),
            ("POST", ["anthropic", "v1", "messages"]) => call(Kind::Anthropic, anthropic::read(body)),
            ("POST", ["gemini", "v1beta", "models", method]) => {
                let (model, method) = method.split_once(':').unwrap_or((method, ""));
                let is_stream = method == "streamGenerateContent" && query("alt") == Some("sse");
                call(Kind::Gemini, gemini::read(model, is_stream, &gemini::normal(body)))
            }
            (method, _) => return Err((Kind::Chat, format!("{method} {} is no path of any API", request.path))),
        };
        if kind.has_key(request) { Ok(route) } else { Err((kind, format!("no key: {:?}", request.headers))) }
    }

    fn take(&self, kind: Kind, asked: &Asked) -> Result<(Arc<Inner>, Answer), String> {
        let script = lock(&self.scripts).get(&asked.model).cloned();
        let script = script.ok_or_else(|| format!("no script for the model {:?}", asked.model))?;
        if script.kind != kind {
            return Err(format!("{} was asked by the API of {kind:?}", script.model));
        }
        if let Some(complaint) = asked.complaint() {
            return Err(format!("{}: {complaint}", script.model));
        }
        let answer = match &mut *lock(&script.source) {
            Source::List(answers) => answers.pop_front(),
            Source::Function(answer) => Some(answer(asked)),
        };
        let answer = answer.ok_or_else(|| format!("{} was asked once more than scripted: {asked:#?}", script.model))?;
        Ok((script, answer))
    }

    async fn refuse(&self, kind: Kind, fault: String, way: Way) -> Result<(), Left> {
        let refused = kind.refuse(&Failure::Invalid(fault.clone()));
        lock(&self.faults).push(fault);
        way.json(refused.status, &[], &refused.body).await
    }
}

/// Where a request goes.
enum Route {
    Models(Value),
    Call { kind: Kind, asked: Asked },
}

fn call(kind: Kind, asked: Asked) -> (Kind, Route) {
    (kind, Route::Call { kind, asked })
}

impl Inner {
    async fn give(
        &self,
        shared: &Shared,
        request: Request,
        asked: Asked,
        answer: Answer,
        mut way: Way,
    ) -> Result<(), Left> {
        let body = if self.kind == Kind::Gemini { gemini::normal(&request.body) } else { request.body.clone() };
        let complaint = match self.kind {
            Kind::Anthropic => anthropic::complaint(request.header(anthropic::VERSION), &body),
            Kind::Gemini => gemini::complaint(&body),
            Kind::Chat | Kind::Responses => None,
        };
        if let Some(complaint) = complaint {
            return shared.refuse(self.kind, format!("{}: {complaint}", self.model), way).await;
        }
        let mut place = 0;
        let call = Call { asked, request, at: Instant::now(), progress: Progress::Open };
        self.calls.send_modify(|calls| {
            place = calls.len();
            calls.push(call);
        });
        let number = shared.calls.fetch_add(1, Ordering::Relaxed);
        let given = self.act(number, &body, answer, &mut way).await;
        let (progress, given) = match given {
            Ok(Ending::Whole) => (Progress::Given, way.end().await),
            Ok(Ending::Refused(refused)) => {
                let wait: Vec<_> = refused.retry_after.iter().map(|wait| ("retry-after", wait.to_string())).collect();
                (Progress::Given, way.json(refused.status, &wait, &refused.body).await)
            }
            Ok(Ending::HungUp) => (Progress::Given, Ok(())),
            Err(Left) => (Progress::Left, Err(Left)),
        };
        self.calls.send_modify(|calls| calls[place].progress = progress);
        given
    }

    async fn act(&self, number: usize, body: &Value, answer: Answer, way: &mut Way) -> Result<Ending, Left> {
        if let Some(gate) = &answer.hold {
            wait(gate, way).await?;
        }
        let told = match answer.reply {
            Reply::Stream(told) => told,
            Reply::Refusal(failure) => return Ok(Ending::Refused(self.kind.refuse(&failure))),
            Reply::HangUp => return Ok(Ending::HungUp),
        };
        way.begin(STREAM, &[("cache-control", "no-cache".to_owned())]).await?;
        for act in self.kind.tell(&Telling { model: &self.model, number, request: body, told: &told }) {
            match act {
                Act::Send(text) => way.piece(&text).await?,
                Act::Wait(gate) => wait(&gate, way).await?,
                Act::HangUp => return Ok(Ending::HungUp),
            }
        }
        Ok(Ending::Whole)
    }
}

/// How the server's part of an answer ends.
enum Ending {
    Whole,
    Refused(Refused),
    HungUp,
}

async fn wait(gate: &Gate, way: &mut Way) -> Result<(), Left> {
    tokio::select! {
        () = gate.pass() => Ok(()),
        left = way.left() => Err(left),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that panicked while it held the lock has failed already.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
