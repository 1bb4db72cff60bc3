//! The agent loop through the front door: each scenario of api/02 §8 and each path of api/05, for every provider's API and in
//! both stream modes. Scenarios of one API share two servers, run side by side, and have agents and models of their own.

mod answers;
mod approvals;
mod cancels;
mod client_tools;
mod compactions;
mod deadlines;
mod failures;
mod legacy;
mod parallel;
mod reasoning;
mod rules;
mod tools;

use std::any::Any;
use std::cell::Cell;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::client::{Client, EventStream, Frame, assert_same_bytes, stop_reason, stored};
use super::counting_tools::{Behaviour, CountingTool, Outcome, ToolServer};
use super::harness::{Dev, Settings, directory, settings};
use super::notation::{Mode, Slice, assert_notation, assert_related, slices, status_after};
use super::scripted_model::asked::Returned;
use super::scripted_model::script::Answer;
use super::scripted_model::{Kind, Script, ScriptedModel};

/// A scenario.
struct Row {
    name: &'static str,
    /// The APIs that can have it.
    kinds: &'static [Kind],
    play: fn(Stage) -> BoxFuture<'static, ()>,
}

/// Rows of a table: functions of a stage, by their names.
macro_rules! rows {
    ($kinds:expr; $($name:ident),+ $(,)?) => {
        &[$(crate::loop_table::Row { name: stringify!($name), kinds: $kinds, play: |stage| Box::pin($name(stage)) }),+]
    };
}
use rows;

const TABLES: &[&[Row]] = &[
    answers::ROWS,
    approvals::ROWS,
    approvals::ROWS_OF_ONE,
    cancels::ROWS,
    client_tools::ROWS,
    compactions::ROWS,
    failures::ROWS,
    legacy::ROWS,
    parallel::ROWS,
    reasoning::ROWS,
    rules::ROWS,
    tools::ROWS,
];

/// What a scenario plays on.
#[derive(Clone)]
struct Stage {
    /// Where it is, for messages.
    name: String,
    /// No other stage has it.
    number: usize,
    kind: Kind,
    mode: Mode,
    model: Arc<ScriptedModel>,
    tools: Arc<ToolServer>,
    /// A server that waits for models as long as servers do.
    client: Client,
    /// A server that does not.
    impatient: Client,
}

/// A tool of a stage, which counts its calls.
struct Tool {
    id: String,
    name: String,
    counting: CountingTool,
}

/// A run that was read to its end.
struct Played {
    frames: Vec<Frame>,
    slices: Vec<Slice>,
    /// The run as it is listed.
    run: Value,
    mode: Mode,
}

impl Stage {
    /// A model of the stage's API with these answers.
    fn script(&self, answers: impl IntoIterator<Item = Answer>) -> Script {
        self.model.script(self.kind, answers)
    }

    /// An agent with a block `human`; `more` wins over what agents have here.
    async fn agent(&self, script: &Script, more: Value) -> String {
        self.agent_at(&self.client, script, more).await
    }

    async fn agent_at(&self, client: &Client, script: &Script, more: Value) -> String {
        let block = json!({"label": "human", "value": "The human's name is Ada."});
        let reasoning = json!({"reasoning_effort": "low", "type": "enabled"});
        let mut body = json!({
            "name": self.name, "model": script.handle, "memory_blocks": [block],
            "model_settings": {"reasoning": reasoning},
        });
        merge(&mut body, more);
        let agent = client.post("/v1/agents/", &body).await.ok();
        agent["id"].as_str().expect("an id").to_owned()
    }

    /// A tool that only this stage has; `more` wins over what tools have here.
    async fn tool(&self, name: &str, behaviour: Behaviour, more: Value) -> Tool {
        let name = format!("{name}_{}", self.number);
        let counting = self.tools.tool(&name, behaviour);
        let parameters = json!({"type": "object", "properties": {"what": {"type": "string"}}});
        let made = self.client.post("/v1/tools/", &counting.definition(&parameters, &more)).await.ok();
        Tool { id: made["id"].as_str().expect("an id").to_owned(), name, counting }
    }

    /// An agent with tools and rules on them, whose model may call several at once.
    async fn equipped(&self, script: &Script, tools: &[&Tool], rules: &[Value]) -> String {
        self.agent(script, equipment(tools, rules)).await
    }

    /// Answers calls that wait.
    async fn answer(&self, agent: &str, answers: Value) -> Played {
        self.send(agent, answering(answers)).await
    }

    /// Sends a text in the stage's mode.
    async fn say(&self, agent: &str, text: &str) -> Played {
        self.send(agent, json!({"input": text})).await
    }

    /// Sends a request in the stage's mode and reads its run to the end.
    async fn send(&self, agent: &str, body: Value) -> Played {
        let stream = self.open(agent, body).await;
        self.finish(&self.client, stream).await
    }

    /// Sends a request in the stage's mode.
    async fn open(&self, agent: &str, body: Value) -> EventStream {
        self.open_at(&self.client, agent, body).await
    }

    async fn open_at(&self, client: &Client, agent: &str, mut body: Value) -> EventStream {
        merge(&mut body, json!({"background": true, "stream_tokens": self.mode == Mode::Tokens}));
        client.send(agent, &body).await
    }

    /// Reads a run to its end and checks what holds for every run: the relations in its stream, the same bytes for late
    /// readers, its status, and that lists show what the stream showed.
    async fn finish(&self, client: &Client, stream: EventStream) -> Played {
        let frames = stored(&stream.read_to_end().await);
        assert_related(&frames, self.mode);
        let id = frames[0].run_id().expect("a run");
        let run = client.get(&format!("/v1/runs/{id}")).await.ok();
        let reason = stop_reason(&frames);
        assert_eq!(run["status"], status_after(&reason), "after {reason}");
        assert_eq!(run["stop_reason"], reason.as_str());
        assert_same_bytes(&client.resume(&id, 0).await.read_to_end().await, &frames);
        let middle = frames.iter().filter(|frame| frame.seq_id().is_some()).count() / 2;
        let cursor = frames[middle].seq_id().unwrap_or(1);
        let middle = usize::try_from(cursor).expect("a small number") - 1;
        assert_same_bytes(&client.resume(&id, cursor).await.read_to_end().await, &frames[middle + 1..]);
        let slices = slices(&frames);
        let listed = client.get(&format!("/v1/runs/{id}/messages")).await.ok();
        assert_listed(&listed, &slices, run["status"] == "completed");
        Played { frames, slices, run, mode: self.mode }
    }

    /// The messages of an agent, oldest first.
    async fn history(&self, agent: &str) -> Vec<Value> {
        let history = self.client.get(&format!("/v1/agents/{agent}/messages?order=asc")).await.ok();
        history.as_array().expect("a list").clone()
    }

    /// An agent as it is shown.
    async fn state(&self, agent: &str) -> Value {
        self.client.get(&format!("/v1/agents/{agent}")).await.ok()
    }

    /// Steps of a run, the first one first.
    async fn steps(&self, played: &Played) -> Vec<Value> {
        let steps = self.client.get(&format!("/v1/runs/{}/steps?order=asc", played.id())).await.ok();
        steps.as_array().expect("a list").clone()
    }

    /// Asks that the agent's runs are cancelled.
    async fn cancel(&self, agent: &str) -> Value {
        self.client.post(&format!("/v1/agents/{agent}/messages/cancel"), &json!({})).await.ok()
    }
}

impl Tool {
    /// A model's answer that calls it.
    fn call(&self, what: &str) -> Answer {
        Answer::new().and(self, what)
    }

    /// A rule on it.
    fn rule(&self, kind: &str, own: Value) -> Value {
        let mut rule = json!({"type": kind, "tool_name": self.name});
        merge(&mut rule, own);
        rule
    }

    /// The rule that its calls wait for the client.
    fn gate(&self) -> Value {
        self.rule("requires_approval", json!({}))
    }

    /// What it was called with, in order of execution.
    fn seen(&self) -> Vec<String> {
        self.counting.executions().iter().map(|one| text_of(&one.arguments["what"])).collect()
    }
}

impl Answer {
    /// Then calls a tool of the stage.
    fn and(self, tool: &Tool, what: &str) -> Self {
        self.calls(&tool.name, &json!({"what": what}))
    }
}

/// What an agent with tools and rules is made with.
fn equipment(tools: &[&Tool], rules: &[Value]) -> Value {
    let ids: Vec<_> = tools.iter().map(|tool| tool.id.as_str()).collect();
    let settings = json!({"parallel_tool_calls": true, "reasoning": {"reasoning_effort": "low", "type": "enabled"}});
    json!({"tool_ids": ids, "tool_rules": rules, "model_settings": settings})
}

/// Says what it was called with.
fn echo() -> Behaviour {
    Behaviour::of(|arguments| Outcome::Text(format!("saw {}", text_of(&arguments["what"]))))
}

/// The input that answers calls that wait.
fn answering(answers: Value) -> Value {
    json!({"messages": [{"type": "approval", "approvals": answers}]})
}

fn approve(call: &str) -> Value {
    json!({"type": "approval", "tool_call_id": call, "approve": true})
}

fn deny(call: &str, reason: Option<&str>) -> Value {
    json!({"type": "approval", "tool_call_id": call, "approve": false, "reason": reason})
}

/// The client's own result of a call.
fn returned(call: &str, status: &str, text: &str) -> Value {
    json!({"type": "tool", "tool_call_id": call, "status": status, "tool_return": text})
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What a model is told by a result: how it went, and the text.
fn told(result: &Returned) -> (String, String) {
    let told: Value = serde_json::from_str(&result.text).unwrap_or_else(|_| panic!("{} is no JSON", result.text));
    (text_of(&told["status"]), text_of(&told["message"]))
}

impl Played {
    /// Ids of the calls that wait, in order.
    fn waiting(&self) -> Vec<String> {
        self.of("approval_request_message").iter().flat_map(|slice| &slice.calls).map(|call| call.id.clone()).collect()
    }

    /// The result texts, in order.
    fn result_texts(&self) -> Vec<String> {
        self.returns().iter().map(|one| text_of(&one["tool_return"])).collect()
    }

    /// Asserts the sequence of the stream.
    fn is(&self, expected: &str) -> &Self {
        assert_notation(&self.frames, expected);
        self
    }

    /// Asserts the sequence, which differs by mode.
    fn is_either(&self, steps: &str, tokens: &str) -> &Self {
        self.is(if self.mode == Mode::Steps { steps } else { tokens })
    }

    /// The slices of a kind.
    fn of(&self, kind: &str) -> Vec<&Slice> {
        self.slices.iter().filter(|slice| slice.kind == kind).collect()
    }

    /// The texts of a kind, joined.
    fn text(&self, kind: &str) -> String {
        self.of(kind).iter().map(|slice| slice.text.as_str()).collect()
    }

    /// All results, in order.
    fn returns(&self) -> Vec<&Value> {
        self.slices.iter().flat_map(|slice| &slice.returns).collect()
    }

    /// The only frame of a kind.
    fn frame(&self, kind: &str) -> Value {
        let mut found = self.frames.iter().filter(|frame| frame.kind() == kind).map(Frame::json);
        found.next().filter(|_| found.next().is_none()).unwrap_or_else(|| panic!("not one frame is {kind}"))
    }

    fn id(&self) -> &str {
        self.run["id"].as_str().expect("an id")
    }
}

/// Asserts that a list of a run's messages has the slices of its stream: all of them, in order, if the run completed.
fn assert_listed(listed: &Value, slices: &[Slice], is_complete: bool) {
    let kinds = ["reasoning", "hidden_reasoning", "assistant", "tool_call", "approval_request", "tool_return"];
    let kinds = kinds.map(|kind| format!("{kind}_message"));
    let text = |json: &Value, name: &str| json[name].as_str().unwrap_or_default().to_owned();
    let key = |json: &Value| [text(json, "message_type"), text(json, "id"), text(json, "otid"), text(json, "step_id")];
    let listed: Vec<_> =
        listed.as_array().expect("a list").iter().map(key).filter(|key| kinds.contains(&key[0])).collect();
    let mut shown: Vec<[String; 4]> = Vec::new();
    for slice in slices.iter().filter(|slice| !slice.is_void && kinds.contains(&slice.kind)) {
        let key = [slice.kind.clone(), slice.id.clone(), slice.otid.clone(), slice.step.clone()];
        if !shown.contains(&key) {
            shown.push(key);
        }
    }
    // A stream shows calls in the order of the model, a list those of a step that wait after the others.
    for at in 1..shown.len() {
        if shown[at - 1][0] == kinds[4] && shown[at][0] == kinds[3] && shown[at - 1][3] == shown[at][3] {
            shown.swap(at - 1, at);
        }
    }
    if is_complete {
        assert_eq!(listed, shown, "the list does not show what the stream showed");
    } else {
        // A step that was cut may have more in the history than readers saw: results that calls must have there.
        let more: Vec<_> = listed.iter().filter(|key| !shown.contains(key)).collect();
        assert!(more.windows(2).all(|pair| pair[0][3] == pair[1][3]), "{more:#?} are of more than one step");
        let last = listed.last().map(|key| &key[3]);
        assert!(more.iter().all(|key| Some(&key[3]) == last), "{more:#?} are not of the step that was cut");
    }
}

fn merge(one: &mut Value, other: Value) {
    if let (Value::Object(one), Value::Object(other)) = (one, other) {
        one.extend(other);
    }
}

/// Plays all scenarios of an API, in both modes, and tells of all that fail.
async fn play(kind: Kind) {
    let (model, tools) = (Arc::new(ScriptedModel::start().await), Arc::new(ToolServer::start().await));
    let (data, other_data) = (directory(), directory());
    let mut patience = settings([("HOLDFAST_OUTBOUND_ALLOW", "127.0.0.1")]);
    patience.extend(kind.settings(&model));
    let patient = Dev::start_with(data.path(), patience).await;
    let mut hurried: Settings =
        settings([("HOLDFAST_MODEL_IDLE_TIMEOUT_MS", "1000"), ("HOLDFAST_MODEL_HEADER_TIMEOUT_MS", "1000")]);
    hurried.extend(kind.settings(&model));
    let impatient = Dev::start_with(other_data.path(), hurried).await;
    std::panic::set_hook(Box::new(|panic| PLACE.set(panic.location().map(ToString::to_string).unwrap_or_default())));
    let mut playing = JoinSet::new();
    let rows = TABLES.iter().flat_map(|table| table.iter()).filter(|row| row.kinds.contains(&kind));
    for (number, (row, mode)) in rows.flat_map(|row| Mode::ALL.map(|mode| (row, mode))).enumerate() {
        let stage = Stage {
            name: format!("{} in {mode:?}", row.name),
            number,
            kind,
            mode,
            model: Arc::clone(&model),
            tools: Arc::clone(&tools),
            client: patient.client.clone(),
            impatient: impatient.client.clone(),
        };
        let name = stage.name.clone();
        let played = std::panic::AssertUnwindSafe((row.play)(stage)).catch_unwind();
        // The hook ran on this thread a moment ago, for this panic.
        let blame = move |panic: Box<dyn Any + Send>| format!("{name}: {}: {}", PLACE.take(), words(&*panic));
        playing.spawn(async move { played.await.map_err(blame) });
    }
    let played = playing.join_all().await;
    let count = played.len();
    let _hook = std::panic::take_hook();
    let mut failed: Vec<_> = played.into_iter().filter_map(Result::err).collect();
    failed.extend(model.forgive());
    assert!(failed.is_empty(), "{} of {count} scenarios of {kind:?} fail:\n\n{}", failed.len(), failed.join("\n\n"));
}

thread_local! {
    /// Where this thread panicked last: many scenarios share it, and each failure is told with its place.
    static PLACE: Cell<String> = const { Cell::new(String::new()) };
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it panicked").to_owned()
}

#[tokio::test]
async fn a_model_behind_chat_completions() {
    play(Kind::Chat).await;
}

#[tokio::test]
async fn a_model_behind_responses() {
    play(Kind::Responses).await;
}

#[tokio::test]
async fn a_model_behind_messages() {
    play(Kind::Anthropic).await;
}

#[tokio::test]
async fn a_model_behind_generate_content() {
    play(Kind::Gemini).await;
}
