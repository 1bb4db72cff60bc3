//! Tools of MCP servers made by others.

use std::path::Path;

use serde_json::{Value, json};

use super::{agent, call, calling, failure, returns, say, text, told};
use crate::client::{Client, Frame, assistant_text};
use crate::harness::{Cluster, Dev, Settings, background, directory, settings};
use crate::mcp::{HttpServer, everything_by_stdio, kill, python_by_stdio, until_gone};
use crate::notation::assert_notation;

/// Settings that name these servers.
fn servers(directory: &Path, servers: &Value) -> Settings {
    let file = directory.join("mcp.json");
    std::fs::write(&file, json!({"mcpServers": servers}).to_string()).expect("a file");
    settings([("HOLDFAST_MCP_CONFIG", file.to_str().expect("UTF-8"))])
}

/// What the notices in a stream say of how far a call is: how much, of how much.
fn progress(frames: &[Frame]) -> Vec<(Value, Value, Value)> {
    let notices = frames.iter().map(|frame| frame.json()["tool_progress"].clone()).filter(Value::is_object);
    notices.map(|told| (told["tool_call_id"].clone(), told["progress"].clone(), told["total"].clone())).collect()
}

async fn an_agent_uses_the_reference_server(entry: Value) {
    let data = directory();
    let dev = Dev::start_with(data.path(), servers(data.path(), &json!({"all": entry}))).await;
    let client = &dev.client;
    let echo = client.until_listed("all__echo").await;
    assert_eq!((&echo["tool_type"], &echo["safe_to_repeat"]), (&json!("external_mcp"), &json!(true)));
    assert_eq!(echo["json_schema"]["parameters"]["properties"]["message"]["type"], "string");
    let toggle = client.until_listed("all__toggle-simulated-logging").await;
    assert_eq!(toggle["safe_to_repeat"], false, "it changes something");
    let external = client.get("/v1/tools/?tool_types=external_mcp&limit=100").await.ok();
    assert!(external.as_array().expect("a list").iter().all(|tool| tool["tool_type"] == "external_mcp"));

    // One by its id, the others by name.
    let agent = agent(client, &["all__get-tiny-image", "all__trigger-long-running-operation"], json!({})).await;
    let id = echo["id"].as_str().expect("an id");
    client.patch_bare(&format!("/v1/agents/{agent}/tools/attach/{id}")).await.ok();
    let result = call(client, &agent, "all__echo", &json!({"message": "hello"})).await;
    assert_eq!(text(&result), "Echo: hello");
    let result = call(client, &agent, "all__echo", &json!({"message": 5})).await;
    assert!(failure(&result).starts_with("MCP error"), "{result}");
    a_call_tells_how_far_it_is(client, &agent).await;
    an_image_is_shown_as_parts(client, &agent).await;
}

async fn a_call_tells_how_far_it_is(client: &Client, agent: &str) {
    let long = calling("all__trigger-long-running-operation", &json!({"duration": 0.4, "steps": 4}));
    let frames = say(client, agent, &long).await;
    let id = returns(&frames)[0]["tool_call_id"].clone();
    let seen = progress(&frames);
    // The last notice and the result race.
    let expected = (1..=3).map(|step| (id.clone(), json!(f64::from(step)), json!(4.0))).collect::<Vec<_>>();
    assert_eq!(seen[..3], expected);
    assert_notation(&told(&frames), "P C T A S:end_turn U");
    let call = frames.iter().rposition(|frame| frame.kind() == "tool_call_message").expect("a call");
    let first = frames.iter().position(|frame| frame.json()["tool_progress"].is_object()).expect("a notice");
    assert!(call < first, "a call is shown before how far it is");
    let mut body = background(&long);
    body["include_pings"] = json!(false);
    let frames = client.send(agent, &body).await.read_to_end().await;
    assert_eq!((progress(&frames), frames[0].kind()), (Vec::new(), "tool_call_message".to_owned()));
}

async fn an_image_is_shown_as_parts(client: &Client, agent: &str) {
    let frames = say(client, agent, &calling("all__get-tiny-image", &json!({}))).await;
    let result = returns(&frames).pop().expect("a result");
    let kinds: Vec<_> = result["tool_return"].as_array().expect("parts").iter().map(|part| &part["type"]).collect();
    assert_eq!(kinds, ["text", "image", "text"]);
    assert_eq!(result["tool_return"][1]["source"]["media_type"], "image/png");
    let message = frames.iter().map(Frame::json).find(|json| json["message_type"] == "tool_return_message");
    let flat = message.expect("a result")["tool_return"].as_str().expect("a text for older clients").to_owned();
    assert!(flat.contains("[image 1: image/png]"), "{flat}");
    assert!(assistant_text(&frames).contains("[image 1: image/png]"), "{}", assistant_text(&frames));
}

#[tokio::test]
async fn an_agent_uses_the_reference_server_by_stdio() {
    an_agent_uses_the_reference_server(everything_by_stdio()).await;
}

#[tokio::test]
async fn an_agent_uses_the_reference_server_by_http() {
    let server = HttpServer::everything().await;
    an_agent_uses_the_reference_server(server.entry()).await;
}

fn as_json(result: &Value) -> Value {
    serde_json::from_str(text(result)).expect("JSON")
}

#[tokio::test]
async fn a_child_that_dies_in_a_call_leaves_its_outcome_open_and_is_started_again() {
    let data = directory();
    let mut dev = Dev::start_with(data.path(), servers(data.path(), &json!({"srv": python_by_stdio()}))).await;
    let client = &dev.client;
    client.until_listed("srv__die").await;
    let agent = agent(client, &["srv__process", "srv__die", "srv__meta"], json!({})).await;
    let first = as_json(&call(client, &agent, "srv__process", &json!({})).await);
    assert_eq!(first["env"]["GIVEN"], "yes");
    let path = data.path().join("calls");
    let died = call(client, &agent, "srv__die", &json!({"path": path})).await;
    assert!(failure(&died).contains("is not known"), "{died}");
    let second = as_json(&call(client, &agent, "srv__process", &json!({})).await);
    assert_ne!(first["pid"], second["pid"]);
    kill("-KILL", &second["pid"]);
    until_gone(&second["pid"].to_string()).await;
    let third = as_json(&call(client, &agent, "srv__process", &json!({})).await);
    assert_ne!(second["pid"], third["pid"]);
    assert_eq!(std::fs::read_to_string(&path).expect("the file"), "died\n", "nothing is done twice");
    let result = call(client, &agent, "srv__meta", &json!({})).await;
    assert_eq!(as_json(&result)["meta"]["idempotencyKey"], result["tool_call_id"]);
    dev.process.signal("TERM");
    assert!(dev.process.ended().await.success());
    until_gone(&third["pid"].to_string()).await;
}

#[tokio::test]
async fn a_server_that_is_away_fails_its_calls_and_is_used_when_it_is_back() {
    let data = directory();
    let mut server = HttpServer::python().await;
    let mut entry = server.entry();
    entry["timeout_ms"] = json!(2000);
    let dev = Dev::start_with(data.path(), servers(data.path(), &json!({"srv": entry}))).await;
    let client = &dev.client;
    client.until_listed("srv__odd_name_here").await;
    let agent = agent(client, &["srv__odd_name_here", "srv__meta"], json!({})).await;
    let hello = json!({"text": "hello"});
    assert_eq!(text(&call(client, &agent, "srv__odd_name_here", &hello).await), "hello");
    server.process.kill_9();
    let away = call(client, &agent, "srv__odd_name_here", &hello).await;
    assert!(failure(&away).contains("cannot be reached"), "{away}");
    server.start_again().await;
    assert_eq!(text(&call(client, &agent, "srv__odd_name_here", &hello).await), "hello");
    let meta = as_json(&call(client, &agent, "srv__meta", &json!({})).await);
    assert_eq!(meta["authorization"], "Bearer s3cret");
}

#[tokio::test]
async fn a_call_that_waits_is_cancelled_with_its_run() {
    let data = directory();
    let dev = Dev::start_with(data.path(), servers(data.path(), &json!({"srv": python_by_stdio()}))).await;
    let client = &dev.client;
    client.until_listed("srv__wait").await;
    let agent = agent(client, &["srv__wait"], json!({})).await;
    let path = data.path().join("waits");
    let mut stream = client.send(&agent, &background(&calling("srv__wait", &json!({"path": path})))).await;
    let run = stream.run_id().await;
    while stream.next().await.expect("a notice").json()["tool_progress"]["message"] != "two" {}
    client.post(&format!("/v1/agents/{agent}/messages/cancel"), &json!({})).await.ok();
    let frames = stream.read_to_end().await;
    assert_notation(&told(&frames), "P C S:cancelled U");
    assert_eq!(client.get(&format!("/v1/runs/{run}")).await.ok()["status"], "cancelled");
    crate::mcp::until_file_has(&path, "cancelled").await;
}

#[tokio::test]
async fn a_server_is_for_the_tenants_that_the_operator_names() {
    let data = directory();
    let mut entry = python_by_stdio();
    entry["tenants"] = json!(["north"]);
    let mut own = servers(data.path(), &json!({"srv": entry}));
    own.extend(settings([("HOLDFAST_API_KEYS", "north=key-of-the-north,south=key-of-the-south")]));
    let dev = Dev::start_with(data.path(), own).await;
    let (north, south) = (dev.client.with_key("key-of-the-north"), dev.client.with_key("key-of-the-south"));
    let tool = north.until_listed("srv__meta").await;
    assert_eq!(south.get("/v1/tools/?tool_types=external_mcp").await.ok(), json!([]));
    let id = tool["id"].as_str().expect("an id");
    south.get(&format!("/v1/tools/{id}")).await.refused(404);
    south.post("/v1/agents/", &json!({"tools": ["srv__meta"]})).await.refused(400);
    let agent = agent(&north, &["srv__meta"], json!({})).await;
    text(&call(&north, &agent, "srv__meta", &json!({})).await);
}

#[tokio::test]
async fn a_worker_finds_tools_and_every_api_has_them() {
    let data = directory();
    let servers = servers(data.path(), &json!({"all": everything_by_stdio(), "srv": python_by_stdio()}));
    let mut cluster = Cluster::start_with(2, 1, servers).await;
    let (here, there) = (cluster.client(0), cluster.client(1));
    here.until_listed("all__echo").await;
    let process = there.until_listed("srv__process").await;
    let agent = agent(&here, &["all__echo"], json!({})).await;
    let id = process["id"].as_str().expect("an id");
    there.patch_bare(&format!("/v1/agents/{agent}/tools/attach/{id}")).await.ok();
    assert_eq!(text(&call(&there, &agent, "all__echo", &json!({"message": "hello"})).await), "Echo: hello");
    let child = as_json(&call(&here, &agent, "srv__process", &json!({})).await)["pid"].to_string();
    // Children of a worker end with it, however it ends, and another worker has its own.
    cluster.add_worker().await;
    cluster.workers[0].kill_9();
    until_gone(&child).await;
    let other = as_json(&call(&here, &agent, "srv__process", &json!({})).await)["pid"].to_string();
    assert_ne!(child, other);
    assert_eq!(
        here.get(&format!("/v1/tools/{id}")).await.ok()["id"],
        id,
        "a tool that is found again is the same tool"
    );
}
