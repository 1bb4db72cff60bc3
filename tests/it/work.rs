//! What clients have workers do besides answering: compactions and single calls of tools.

use serde_json::{Value, json};

use super::client::{Client, stop_reason};
use super::counting_tools::{Behaviour, Outcome, ToolServer};
use super::gate::Gate;
use super::harness::{Cluster, Dev, background, directory, settings};
use super::scripted_model::script::{Answer, Failure};
use super::scripted_model::{Kind, ScriptedModel};

async fn new_agent(client: &Client, body: &Value) -> String {
    client.post("/v1/agents/", body).await.ok()["id"].as_str().expect("an id").to_owned()
}

async fn in_context(client: &Client, agent: &str) -> usize {
    client.get(&format!("/v1/agents/{agent}")).await.ok()["message_ids"].as_array().expect("ids").len()
}

/// Turns of a talk, then a summary of it.
async fn compacts(client: &Client, other: &Client, model: &ScriptedModel) {
    let turns = (1..=4).map(|turn| Answer::text(&format!("Answer {turn}.")));
    let script = model.script(Kind::Chat, turns.chain([Answer::text("They talked."), Answer::text("Shorter still.")]));
    let agent = new_agent(client, &json!({"name": "talker", "model": script.handle})).await;
    let path = format!("/v1/agents/{agent}/summarize");
    assert!(other.post(&path, &json!({})).await.refused(400).contains("nothing to compact"));
    for turn in 1..=4 {
        let frames = client.send(&agent, &background(&format!("Question {turn}."))).await.read_to_end().await;
        assert_eq!(stop_reason(&frames), "end_turn");
    }
    assert_eq!(in_context(client, &agent).await, 9);
    let compacted = other.post(&path, &json!({"compaction_settings": {"mode": "all"}})).await.ok();
    let (before, after) =
        (&compacted["num_messages_before"], compacted["num_messages_after"].as_u64().expect("a number"));
    assert_eq!((before, &compacted["summary"]), (&json!(9), &json!("They talked.")));
    assert_eq!(in_context(client, &agent).await as u64, after);
    assert!(after < 9);
    let listed = client.get(&format!("/v1/agents/{agent}/messages?order=desc&limit=50")).await.ok();
    let listed = listed.as_array().expect("a list");
    assert!(listed.iter().any(|one| one["message_type"] == "summary_message" && one["summary"] == "They talked."));
    assert!(listed.iter().any(|one| one["content"] == "Question 1."), "what left the context stays in the history");
    let runs = client.get(&format!("/v1/runs/?agent_id={agent}&limit=1")).await.ok();
    assert_eq!((&runs[0]["metadata"]["run_type"], &runs[0]["status"]), (&json!("summarize"), &json!("completed")));
    assert_eq!(client.get(&format!("/v1/runs/{}/steps", runs[0]["id"].as_str().expect("an id"))).await.ok(), json!([]));
    // A conversation of the same agent.
    let made = client.post(&format!("/v1/conversations/default/fork?agent_id={agent}"), &json!({})).await.ok();
    let conversation = made["id"].as_str().expect("an id");
    let path = format!("/v1/conversations/{conversation}/compact");
    let refused = client.post(&path, &json!({})).await;
    assert!(refused.status == 400 || refused.status == 200, "{}", refused.body);
    client.post(&path, &json!({"compaction_settings": {"mode": "some"}})).await.refused(422);
    client.post(&path, &json!({"compaction_settings": {"model": "nobody/knows"}})).await.refused(404);
}

#[tokio::test]
async fn a_context_is_compacted_on_demand_in_one_process() {
    let (model, data) = (ScriptedModel::start().await, directory());
    let dev = Dev::start_with(data.path(), Kind::Chat.settings(&model)).await;
    compacts(&dev.client, &dev.client, &model).await;
}

#[tokio::test]
async fn a_context_is_compacted_on_demand_in_a_cluster() {
    let model = ScriptedModel::start().await;
    let cluster = Cluster::start_with(2, 1, Kind::Chat.settings(&model)).await;
    compacts(&cluster.client(0), &cluster.client(1), &model).await;
}

#[tokio::test]
async fn work_is_refused_while_a_run_is_active_and_when_its_model_fails() {
    let (model, data) = (ScriptedModel::start().await, directory());
    let dev = Dev::start_with(data.path(), Kind::Chat.settings(&model)).await;
    let client = &dev.client;
    let agent = client.create_agent().await;
    let mut stream = client.send(&agent, &background("[[demo hang]]")).await;
    let run = stream.run_id().await;
    client.wait_for_status(&run, "running").await;
    for (path, body) in [("summarize", json!({})), ("tools/memory_insert/run", json!({"args": {}}))] {
        let busy = client.post(&format!("/v1/agents/{agent}/{path}"), &body).await;
        assert_eq!((busy.status, &busy.body["run_id"]), (409, &json!(run)), "{}", busy.body);
        assert!(busy.headers.contains_key("retry-after"));
    }
    client.post(&format!("/v1/agents/{agent}/messages/cancel"), &json!({})).await.ok();
    stream.read_to_end().await;

    let script =
        model.script(Kind::Chat, [Answer::text("One."), Answer::text("Two."), Answer::refused(Failure::Unauthorized)]);
    let agent = new_agent(client, &json!({"name": "talker", "model": script.handle})).await;
    for _ in 0..2 {
        client.send(&agent, &background("Go on.")).await.read_to_end().await;
    }
    let before = in_context(client, &agent).await;
    let failed =
        client.post(&format!("/v1/agents/{agent}/summarize"), &json!({"compaction_settings": {"mode": "all"}})).await;
    assert_eq!((failed.status, &failed.body["error"]["type"]), (401, &json!("llm_authentication")), "{}", failed.body);
    assert_eq!(in_context(client, &agent).await, before, "nothing is lost without a summary");
}

#[tokio::test]
async fn a_tool_is_called_without_a_model_and_leaves_no_message() {
    let (tools, data) = (ToolServer::start().await, directory());
    let own = settings([("HOLDFAST_OUTBOUND_ALLOW", "127.0.0.1")]);
    let dev = Dev::start_with(data.path(), own).await;
    let client = &dev.client;
    let add = json!({"source_code": "def add(a: int, b: int) -> int:\n    \"\"\"Add.\n\n    Args:\n        a: One.\n        b: Other.\n    \"\"\"\n    print('adding')\n    return a + b\n"});
    let add = client.post("/v1/tools/", &add).await.ok();
    let counting = tools.tool("count", Behaviour::always(Outcome::Text("counted".to_owned())));
    let count = counting.definition(&json!({"type": "object", "properties": {}}), &json!({}));
    let count = client.post("/v1/tools/", &count).await.ok();
    let body = json!({
        "name": "caller", "tool_ids": [add["id"], count["id"]],
        "memory_blocks": [{"label": "human", "value": "Ada."}],
    });
    let agent = new_agent(client, &body).await;
    let run = async |tool: &str, args: Value| {
        client.post(&format!("/v1/agents/{agent}/tools/{tool}/run"), &json!({"args": args})).await
    };
    let before = in_context(client, &agent).await;
    let added = run("add", json!({"a": 12, "b": 30})).await.ok();
    assert_eq!(
        (&added["status"], &added["func_return"], &added["stdout"]),
        (&json!("success"), &json!("42"), &json!(["adding"]))
    );
    let failed = run("add", json!({"a": 12})).await.ok();
    assert_eq!((&failed["status"], &failed["func_return"]), (&json!("error"), &Value::Null));
    assert!(!failed["stderr"].as_array().expect("lines").is_empty(), "{failed}");
    assert_eq!(run("count", json!({})).await.ok()["func_return"], "counted");
    assert_eq!(counting.executions().len(), 1);
    let remembered = run("memory_insert", json!({"label": "human", "new_string": "She likes fjords."})).await.ok();
    assert_eq!(remembered["status"], "success", "{remembered}");
    let memory = client.get(&format!("/v1/agents/{agent}/core-memory/blocks/human")).await.ok();
    assert!(memory["value"].as_str().expect("text").contains("fjords"));
    assert_eq!(in_context(client, &agent).await, before, "no message came of it");
    let runs = client.get(&format!("/v1/runs/?agent_id={agent}")).await.ok();
    assert_eq!(runs.as_array().map(Vec::len), Some(4));
    assert_eq!(runs[0]["metadata"]["run_type"], "run_tool");
    run("nobody", json!({})).await.refused(404);
    client.post(&format!("/v1/agents/{agent}/tools/add/run"), &json!({"args": [1]})).await.refused(422);
    let absent = "agent-00000000-0000-4000-8000-000000000000";
    client.post(&format!("/v1/agents/{absent}/tools/add/run"), &json!({})).await.refused(404);
}

/// Nobody knows whether the call of a worker that died had an effect: it is told so, and not made again (G6).
#[tokio::test]
async fn a_call_whose_worker_died_is_not_made_again() {
    let tools = ToolServer::start().await;
    let mut cluster = Cluster::start_with(1, 1, settings([("HOLDFAST_OUTBOUND_ALLOW", "127.0.0.1")])).await;
    let client = cluster.client(0);
    let gate = Gate::shut();
    let behaviour = Behaviour::always(Outcome::Text("counted".to_owned())).held_after(&gate);
    let counting = tools.tool("count", behaviour);
    let tool = counting.definition(&json!({"type": "object", "properties": {}}), &json!({}));
    let tool = client.post("/v1/tools/", &tool).await.ok();
    let agent = new_agent(&client, &json!({"name": "caller", "tool_ids": [tool["id"]]})).await;
    let path = format!("/v1/agents/{agent}/tools/count/run");
    let called = async { client.post(&path, &json!({})).await.ok() };
    let killed = async {
        gate.arrived(1).await;
        cluster.workers[0].kill_9();
        cluster.add_worker().await;
    };
    let (called, ()) = tokio::join!(called, killed);
    assert_eq!(called["status"], "error");
    assert!(called["stderr"].to_string().contains("interrupted"), "{called}");
    assert_eq!(counting.executions().len(), 1);
}
