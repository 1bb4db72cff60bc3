//! `kill -9` of the worker at every place of a step, in a cluster, with gates instead of luck: the model's server and a lock
//! in the database hold the worker exactly there. Whatever the place: no finished work is done twice (G6), the run
//! completes, its events have no gap (G2), and all readers get the same bytes (G3).

use serde_json::{Value, json};
use sqlx::Connection;

use super::client::{EventStream, Frame, assert_same_bytes, stop_reason, stored, superseded};
use super::counting_tools::{Behaviour, CountingTool, Outcome, ToolServer};
use super::gate::Gate;
use super::harness::{Cluster, settings, until};
use super::notation::{Mode, assert_notation, assert_related, slices};
use super::scripted_model::script::Answer;
use super::scripted_model::{Call, Kind, Script, ScriptedModel};

/// A cluster of two APIs and one worker that is alive, with a model and tools.
struct Place {
    cluster: Cluster,
    model: ScriptedModel,
    tools: ToolServer,
}

impl Place {
    async fn start() -> Self {
        let (model, tools) = (ScriptedModel::start().await, ToolServer::start().await);
        let mut own = settings([("HOLDFAST_OUTBOUND_ALLOW", "127.0.0.1")]);
        own.extend(Kind::Chat.settings(&model));
        Self { cluster: Cluster::start_with(2, 1, own).await, model, tools }
    }

    /// A tool that agents can have; `more` says how it may be called.
    async fn tool(&self, name: &str, behaviour: Behaviour, more: &Value) -> Tool {
        let counting = self.tools.tool(name, behaviour);
        let body = counting.definition(&json!({"type": "object", "properties": {}}), more);
        let made = self.cluster.client(0).post("/v1/tools/", &body).await.ok();
        Tool { id: made["id"].as_str().expect("an id").to_owned(), counting }
    }

    /// An agent of a model with these answers.
    async fn agent(&self, answers: impl IntoIterator<Item = Answer>) -> Agent {
        self.equipped(answers, &[], json!([])).await
    }

    /// The same with tools and rules on them.
    async fn equipped(&self, answers: impl IntoIterator<Item = Answer>, tools: &[&Tool], rules: Value) -> Agent {
        let script = self.model.script(Kind::Chat, answers);
        let blocks = ["human", "persona"].map(|label| json!({"label": label, "value": format!("About {label}.")}));
        let body = json!({
            "name": "survivor", "model": script.handle, "memory_blocks": blocks,
            "model_settings": {"parallel_tool_calls": true}, "tool_rules": rules,
            "tool_ids": tools.iter().map(|tool| &tool.id).collect::<Vec<_>>(),
        });
        let state = self.cluster.client(0).post("/v1/agents/", &body).await.ok();
        Agent { state, script }
    }

    /// A run of the agent that is read at both APIs.
    async fn run(&mut self, agent: Agent, mode: Mode) -> Scene<'_> {
        self.send(agent, json!({"input": "Go."}), mode).await
    }

    /// A run that begins with this input.
    async fn send(&mut self, agent: Agent, mut body: Value, mode: Mode) -> Scene<'_> {
        body["background"] = json!(true);
        body["stream_tokens"] = json!(mode == Mode::Tokens);
        let id = agent.state["id"].as_str().expect("an id");
        let mut here = self.cluster.client(0).send(id, &body).await;
        let run = here.run_id().await;
        let there = self.cluster.client(1).resume(&run, 0).await;
        Scene { cluster: &mut self.cluster, agent, mode, run, here, there }
    }
}

struct Tool {
    id: String,
    counting: CountingTool,
}

struct Agent {
    state: Value,
    script: Script,
}

struct Scene<'a> {
    cluster: &'a mut Cluster,
    agent: Agent,
    mode: Mode,
    run: String,
    here: EventStream,
    there: EventStream,
}

impl Scene<'_> {
    fn script(&self) -> &Script {
        &self.agent.script
    }

    /// Waits until a result of the agent's calls is recorded.
    async fn has_result(&self) {
        let mut connection = connect(self.cluster).await;
        let recorded = "SELECT EXISTS (SELECT 1 FROM tool_returns JOIN steps ON steps.id = tool_returns.step_id \
            WHERE steps.run_id = $1 AND tool_returns.body IS NOT NULL)";
        let run = self.run.trim_start_matches("run-").parse::<uuid::Uuid>().expect("a UUID");
        until("a result is recorded", async || {
            sqlx::query_scalar(recorded).bind(run).fetch_one(&mut connection).await.expect("an answer")
        })
        .await;
    }

    /// Kills the worker that has the run, with another one there to take it over.
    async fn kill_the_worker(&mut self) {
        let other = self.cluster.add_worker().await;
        self.cluster.workers[other - 1].kill_9();
    }

    /// Reads the run to its end at both APIs, and late, and asserts what holds wherever a worker died.
    async fn end(self) -> Ended {
        let (one, other) = (self.cluster.client(0), self.cluster.client(1));
        let (frames, there) = tokio::join!(self.here.read_to_end(), self.there.read_to_end());
        let frames = stored(&frames);
        assert_related(&frames, self.mode);
        assert_eq!(stop_reason(&frames), "end_turn");
        assert_same_bytes(&there, &frames);
        let last = frames.iter().filter_map(Frame::seq_id).next_back().expect("a number");
        for cursor in [0, 1, last / 2, last] {
            let late = other.resume(&self.run, cursor).await.read_to_end().await;
            assert_same_bytes(&late, &frames[usize::try_from(cursor).expect("small")..]);
        }
        assert_eq!(one.get(&format!("/v1/runs/{}", self.run)).await.ok()["status"], "completed");
        let Agent { state, script } = self.agent;
        script.assert_used_up();
        let void = superseded(&frames);
        let id = state["id"].as_str().expect("an id");
        let history = one.get(&format!("/v1/agents/{id}/messages?order=asc")).await.ok();
        let is_void = |message: &Value| void.iter().any(|id| message["id"] == id.as_str());
        assert!(!history.as_array().expect("a list").iter().any(is_void), "void text is in the history: {history}");
        Ended { frames, calls: script.calls(), agent: one.get(&format!("/v1/agents/{id}")).await.ok() }
    }
}

/// A run that survived.
struct Ended {
    frames: Vec<Frame>,
    calls: Vec<Call>,
    agent: Value,
}

impl Ended {
    /// How often a text is in a block of the agent.
    fn count(&self, label: &str, text: &str) -> usize {
        let block = self.agent["blocks"].as_array().into_iter().flatten().find(|block| block["label"] == label);
        block.and_then(|block| block["value"].as_str()).expect("the block").matches(text).count()
    }

    /// Texts of all results that readers saw.
    fn results(&self) -> Vec<String> {
        let returns = slices(&self.frames).into_iter().flat_map(|slice| slice.returns);
        returns.map(|one| one["tool_return"].as_str().expect("a text").to_owned()).collect()
    }

    fn count_kind(&self, kind: &str) -> usize {
        slices(&self.frames).iter().filter(|slice| slice.kind == kind).count()
    }
}

fn insert(label: &str, what: &str) -> Value {
    json!({"label": label, "new_string": what})
}

#[tokio::test]
async fn a_worker_dies_before_the_model_has_said_anything() {
    let mut place = Place::start().await;
    for mode in Mode::ALL {
        let agent = place.agent([Answer::text("Lost.").held(&Gate::shut()), Answer::text("Found.")]).await;
        let mut scene = place.run(agent, mode).await;
        scene.script().call(1).await;
        scene.kill_the_worker().await;
        scene.script().was_left(1).await;
        let ended = scene.end().await;
        assert_eq!(ended.calls.len(), 2, "the model is asked once more, and no more");
        assert_eq!(ended.calls[0].request.body, ended.calls[1].request.body);
        assert_eq!(slices(&ended.frames).len(), 1);
    }
}

#[tokio::test]
async fn a_worker_dies_in_the_middle_of_the_models_answer() {
    let mut place = Place::start().await;
    let agent = place.agent([Answer::new().says(&["Half ", "of it"]).stalls(), Answer::text("All of it.")]).await;
    let mut scene = place.run(agent, Mode::Tokens).await;
    scene.here.at_least(3).await;
    scene.kill_the_worker().await;
    scene.script().was_left(1).await;
    let ended = scene.end().await;
    assert_notation(&ended.frames, "P A V A S:end_turn U");
    let texts: Vec<_> = slices(&ended.frames).into_iter().map(|slice| (slice.text, slice.is_void)).collect();
    assert_eq!(texts, [("Half of it".to_owned(), true), ("All of it.".to_owned(), false)]);
}

#[tokio::test]
async fn a_worker_dies_in_the_middle_of_a_call() {
    let mut place = Place::start().await;
    let half = Answer::call("memory_insert", &insert("human", "lost")).stalls();
    let again = Answer::call("memory_insert", &insert("human", "She likes fjords."));
    let agent = place.agent([half, again, Answer::text("Done.")]).await;
    let mut scene = place.run(agent, Mode::Tokens).await;
    scene.here.at_least(4).await;
    scene.kill_the_worker().await;
    let ended = scene.end().await;
    assert_notation(&ended.frames, "P C V C T A S:end_turn U");
    assert_eq!(ended.count("human", "lost"), 0, "a call of an unfinished answer is not executed");
    assert_eq!(ended.count("human", "fjords"), 1);
}

/// The database holds the worker: the answer is recorded, and it is inside of the first call's transaction.
#[tokio::test]
async fn a_worker_dies_between_the_answer_and_its_first_result() {
    let mut place = Place::start().await;
    for mode in Mode::ALL {
        let call = Answer::call("memory_insert", &insert("human", "She likes fjords."));
        let agent = place.agent([call, Answer::text("Done.")]).await;
        let mut lock = Lock::take(&place.cluster, &agent, "human").await;
        let mut scene = place.run(agent, mode).await;
        lock.is_waited_for().await;
        scene.kill_the_worker().await;
        lock.release().await;
        let ended = scene.end().await;
        assert_notation(&ended.frames, "P C T A S:end_turn U");
        assert_eq!(ended.calls.len(), 2, "a recorded answer is not asked for again");
        assert_eq!(ended.count("human", "fjords"), 1, "the call took effect once");
    }
}

/// The same at the second call, so that the first has its result already.
#[tokio::test]
async fn a_worker_dies_between_two_results() {
    let mut place = Place::start().await;
    for mode in Mode::ALL {
        let calls = Answer::call("memory_insert", &insert("human", "She likes fjords."));
        let calls = calls.calls("memory_insert", &insert("persona", "I like lakes."));
        let agent = place.agent([calls, Answer::text("Done.")]).await;
        let mut lock = Lock::take(&place.cluster, &agent, "persona").await;
        let mut scene = place.run(agent, mode).await;
        lock.is_waited_for().await;
        scene.kill_the_worker().await;
        lock.release().await;
        let ended = scene.end().await;
        assert_notation(&ended.frames, "P C T A S:end_turn U");
        assert_eq!(ended.calls.len(), 2, "a recorded answer is not asked for again");
        assert_eq!(ended.count("human", "fjords"), 1, "a call with a result is not executed again");
        assert_eq!(ended.count("persona", "lakes"), 1);
        assert_eq!(ended.calls[1].asked.last_results().len(), 2);
    }
}

#[tokio::test]
async fn a_worker_dies_after_a_step() {
    let mut place = Place::start().await;
    for mode in Mode::ALL {
        let call = Answer::call("memory_insert", &insert("human", "She likes fjords."));
        let agent = place.agent([call, Answer::text("Lost.").held(&Gate::shut()), Answer::text("Done.")]).await;
        let mut scene = place.run(agent, mode).await;
        scene.script().call(2).await;
        scene.kill_the_worker().await;
        scene.script().was_left(2).await;
        let ended = scene.end().await;
        let [_first, lost, again] = ended.calls.as_slice() else { panic!("{:#?}", ended.calls) };
        assert_eq!(lost.asked.turns, again.asked.turns, "the second step begins as it did before");
        // The edit is in the result of the call; the prompt stays, so that the provider keeps finding it in its cache.
        assert!(!lost.asked.system.contains("fjords") && !again.asked.system.contains("fjords"));
        assert_eq!(ended.count("human", "fjords"), 1, "a finished step is not executed again");
        assert_eq!(ended.count_kind("tool_return_message"), 1);
    }
}

/// Each worker dies in the run's next step: every takeover begins where the last one ended.
#[tokio::test]
async fn a_worker_dies_in_every_step_of_a_run() {
    let mut place = Place::start().await;
    let call = |what: &str| Answer::call("memory_insert", &insert("human", what));
    let lost = || Answer::text("Lost.").held(&Gate::shut());
    let answers = [lost(), call("One."), lost(), call("Two."), lost(), call("Three."), lost(), Answer::text("Done.")];
    let agent = place.agent(answers).await;
    let mut scene = place.run(agent, Mode::Steps).await;
    for number in [1, 3, 5, 7] {
        scene.script().call(number).await;
        scene.kill_the_worker().await;
    }
    let ended = scene.end().await;
    assert_eq!(ended.calls.len(), 8);
    assert!(["One.", "Two.", "Three."].iter().all(|what| ended.count("human", what) == 1), "{}", ended.agent);
    assert_eq!(ended.count_kind("tool_return_message"), 3);
}

/// How often each call of a tool was executed.
fn executions(tool: &Tool) -> Vec<usize> {
    tool.counting.counts().into_values().collect()
}

fn done() -> Behaviour {
    Behaviour::always(Outcome::Text("done".to_owned()))
}

/// The call was executed and its result is lost: nobody knows what it did, so it is not made again (G6).
#[tokio::test]
async fn a_worker_dies_in_a_tool_that_must_not_be_repeated() {
    let mut place = Place::start().await;
    for mode in Mode::ALL {
        let name = format!("launch_{mode:?}");
        let tool = place.tool(&name, done().held_after(&Gate::shut()), &json!({})).await;
        let agent = place.equipped([Answer::call(&name, &json!({})), Answer::text("Hm.")], &[&tool], json!([])).await;
        let mut scene = place.run(agent, mode).await;
        tool.counting.executed(1).await;
        scene.kill_the_worker().await;
        tool.counting.left(1).await;
        let ended = scene.end().await;
        assert_notation(&ended.frames, "P C T! A S:end_turn U");
        assert_eq!(executions(&tool), [1], "it was executed once");
        let text = &ended.results()[0];
        assert!(text.contains("interrupted") && text.contains("unknown"), "{text}");
        assert!(ended.calls[1].asked.last_results()[0].text.contains("interrupted"), "the model is told");
    }
}

/// A tool that may be repeated is, under the same idempotency key.
#[tokio::test]
async fn a_worker_dies_in_a_tool_that_may_be_repeated() {
    let mut place = Place::start().await;
    let said = [json!({"safe_to_repeat": true}), json!({"metadata": {"safe_to_repeat": true}})];
    for (mode, safe) in Mode::ALL.into_iter().zip(said) {
        let (name, gate) = (format!("look_{mode:?}"), Gate::shut());
        let tool = place.tool(&name, done().held_after(&gate), &safe).await;
        let agent = place.equipped([Answer::call(&name, &json!({})), Answer::text("Done.")], &[&tool], json!([])).await;
        let mut scene = place.run(agent, mode).await;
        tool.counting.executed(1).await;
        scene.kill_the_worker().await;
        tool.counting.left(1).await;
        gate.open();
        let ended = scene.end().await;
        assert_notation(&ended.frames, "P C T A S:end_turn U");
        assert_eq!(executions(&tool), [2], "both executions have one key");
        assert_eq!(ended.results(), ["done"]);
        assert_eq!(ended.calls.len(), 2, "a recorded answer is not asked for again");
    }
}

/// What finished beside it, or before it, is not executed again.
#[tokio::test]
async fn a_worker_dies_in_one_of_several_tools() {
    let mut place = Place::start().await;
    for mode in Mode::ALL {
        let names = ["quick", "slow", "last"].map(|name| format!("{name}_{mode:?}"));
        let together = json!({"enable_parallel_execution": true, "safe_to_repeat": true});
        let gate = Gate::shut();
        let quick = place.tool(&names[0], done(), &json!({"enable_parallel_execution": true})).await;
        let slow = place.tool(&names[1], done().held_after(&gate), &together).await;
        let last = place.tool(&names[2], done(), &json!({})).await;
        let calls = names.iter().fold(Answer::new(), |answer, name| answer.calls(name, &json!({})));
        let agent = place.equipped([calls, Answer::text("Done.")], &[&quick, &slow, &last], json!([])).await;
        let mut scene = place.run(agent, mode).await;
        slow.counting.executed(1).await;
        quick.counting.executed(1).await;
        scene.has_result().await;
        scene.kill_the_worker().await;
        gate.open();
        let ended = scene.end().await;
        assert_notation(&ended.frames, "P C T A S:end_turn U");
        assert_eq!([&quick, &slow, &last].map(executions), [[1], [2], [1]]);
        assert_eq!(ended.results(), ["done"; 3]);
    }
}

/// A run that answers calls finishes them as any other run does.
#[tokio::test]
async fn a_worker_dies_in_the_tool_of_an_answering_run() {
    let mut place = Place::start().await;
    for (mode, is_safe) in Mode::ALL.into_iter().flat_map(|mode| [(mode, false), (mode, true)]) {
        let (name, gate) = (format!("look_{mode:?}_{is_safe}"), Gate::shut());
        let tool = place.tool(&name, done().held_after(&gate), &json!({"safe_to_repeat": is_safe})).await;
        let rules = json!([{"type": "requires_approval", "tool_name": name}]);
        let answers = [Answer::call(&name, &json!({})), Answer::text("Done.")];
        let agent = place.equipped(answers, &[&tool], rules).await;
        let id = agent.state["id"].as_str().expect("an id").to_owned();
        let asked = place.cluster.client(0).send(&id, &json!({"input": "Go.", "background": true})).await;
        let asked = asked.read_to_end().await;
        assert_eq!(stop_reason(&asked), "requires_approval");
        let call = slices(&asked)[0].calls[0].id.clone();
        let approval = json!({"type": "approval", "tool_call_id": call, "approve": true});
        let body = json!({"messages": [{"type": "approval", "approvals": [approval]}]});
        let mut scene = place.send(agent, body, mode).await;
        tool.counting.executed(1).await;
        scene.kill_the_worker().await;
        tool.counting.left(1).await;
        gate.open();
        let ended = scene.end().await;
        assert_notation(&ended.frames, if is_safe { "P T A S:end_turn U" } else { "P T! A S:end_turn U" });
        assert_eq!(tool.counting.counts(), [(call, if is_safe { 2 } else { 1 })].into());
        assert_eq!(slices(&ended.frames)[0].step, slices(&asked)[0].step, "the results belong to the step that asked");
        assert!(ended.agent["pending_approval"].is_null());
    }
}

/// A lock on a block of an agent: whoever edits it waits.
struct Lock {
    connection: sqlx::PgConnection,
}

async fn connect(cluster: &Cluster) -> sqlx::PgConnection {
    sqlx::PgConnection::connect(cluster.database_url()).await.expect("PostgreSQL answers")
}

impl Lock {
    async fn take(cluster: &Cluster, agent: &Agent, label: &str) -> Self {
        let blocks = agent.state["blocks"].as_array().into_iter().flatten();
        let block = blocks.into_iter().find(|block| block["label"] == label);
        let id = block.and_then(|block| block["id"].as_str()).expect("the block");
        let id = id.trim_start_matches("block-").parse::<uuid::Uuid>().expect("a UUID");
        let mut connection = connect(cluster).await;
        sqlx::raw_sql("BEGIN").execute(&mut connection).await.expect("a transaction");
        let locked = sqlx::query("SELECT 1 FROM blocks WHERE id = $1 FOR UPDATE").bind(id);
        locked.fetch_one(&mut connection).await.expect("the block is there");
        Self { connection }
    }

    /// Waits until somebody waits for it.
    async fn is_waited_for(&mut self) {
        let waiting = "SELECT EXISTS (SELECT 1 FROM pg_locks \
            WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid)))";
        until("somebody wants the block", async || {
            sqlx::query_scalar(waiting).fetch_one(&mut self.connection).await.expect("an answer")
        })
        .await;
    }

    async fn release(mut self) {
        sqlx::raw_sql("ROLLBACK").execute(&mut self.connection).await.expect("released");
    }
}
