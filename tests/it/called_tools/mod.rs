//! Tools of every kind, called by agents of the running program: what the stream, the lists and the model see of them.

mod http;
mod mcp;
mod python;

use serde_json::{Value, json};

use super::client::{Client, Frame, assert_same_bytes};
use super::harness::background;
use super::notation::{Mode, assert_notation, assert_related, slices};

/// A directive that calls a tool.
fn calling(tool: &str, arguments: &Value) -> String {
    format!("[[demo tool={tool} {arguments}]]")
}

/// An agent with these tools and no others; `more` is merged into its definition.
async fn agent(client: &Client, tools: &[&str], more: Value) -> String {
    let mut body = json!({"name": "caller", "tools": tools, "include_base_tools": false});
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    client.post("/v1/agents/", &body).await.ok()["id"].as_str().expect("an id").to_owned()
}

/// Makes a tool.
async fn create(client: &Client, definition: &Value) -> Value {
    client.post("/v1/tools/", definition).await.ok()
}

/// Sends a text and reads its run to the end, which must be an ordinary one, the same for late readers and in the list.
async fn say(client: &Client, agent: &str, text: &str) -> Vec<Frame> {
    let frames = client.send(agent, &background(text)).await.read_to_end().await;
    assert_related(&frames, Mode::Tokens);
    let run = frames[0].run_id().expect("a run");
    assert_same_bytes(&client.resume(&run, 0).await.read_to_end().await, &frames);
    let listed = client.get(&format!("/v1/runs/{run}/messages")).await.ok();
    let listed = listed.as_array().expect("a list").iter();
    let listed: Vec<_> = listed.filter_map(|message| message["tool_returns"].as_array()).flatten().collect();
    assert_eq!(listed, returns(&frames).iter().collect::<Vec<_>>(), "the list shows what the stream showed");
    frames
}

/// The results in a stream.
fn returns(frames: &[Frame]) -> Vec<Value> {
    slices(frames).into_iter().flat_map(|slice| slice.returns).collect()
}

/// Calls a tool in a run that goes on to its end whatever comes of it; answers the result.
async fn call(client: &Client, agent: &str, tool: &str, arguments: &Value) -> Value {
    let frames = say(client, agent, &calling(tool, arguments)).await;
    let result = returns(&frames).pop().expect("a result");
    let results = if result["status"] == "success" { "T" } else { "T!" };
    assert_notation(&told(&frames), &format!("P C {results} A S:end_turn U"));
    result
}

/// The frames without the notices of how far a call is.
fn told(frames: &[Frame]) -> Vec<Frame> {
    let mut count = 0;
    let renumber = |frame: &Frame| {
        let mut json = frame.json();
        if json["tool_progress"].is_object() {
            return None;
        }
        if json["seq_id"].is_u64() {
            count += 1;
            json["seq_id"] = json!(count);
            return Some(Frame { raw: format!("data: {json}\n\n") });
        }
        Some(frame.clone())
    };
    frames.iter().filter_map(renumber).collect()
}

/// The text of a result, which must be a success.
fn text(result: &Value) -> &str {
    assert_eq!(result["status"], "success", "{result}");
    result["tool_return"].as_str().expect("a text")
}

/// The text of a result, which must be a failure.
fn failure(result: &Value) -> &str {
    assert_eq!(result["status"], "error", "{result}");
    result["tool_return"].as_str().expect("a text")
}
