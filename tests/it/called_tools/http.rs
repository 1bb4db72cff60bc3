//! Tools that are HTTP requests.

use serde_json::{Value, json};

use super::{agent, call, create, failure, returns, say, text};
use crate::client::Frame;
use crate::counting_tools::{Behaviour, CountingTool, Outcome, ToolServer};
use crate::harness::{Dev, directory, settings};

const SECRET: &str = "s3cret-of-the-agent";

fn add(server: &ToolServer) -> CountingTool {
    let sum = |arguments: &Value| {
        let number = |name: &str| arguments[name].as_i64().unwrap_or_default();
        Outcome::Json(json!({"sum": number("a") + number("b")}))
    };
    server.tool("add", Behaviour::of(sum))
}

fn numbers() -> Value {
    json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]})
}

#[tokio::test]
async fn a_call_is_a_request_with_its_id_and_the_agents_secret() {
    let server = ToolServer::start().await;
    let tool = add(&server);
    let data = directory();
    let dev = Dev::start_with(data.path(), settings([("HOLDFAST_OUTBOUND_ALLOW", "127.0.0.1")])).await;
    let client = &dev.client;
    let endpoint = json!({"url": tool.url, "headers": {"Authorization": "Bearer ${DOOR_KEY}"}});
    let made = create(client, &tool.definition(&numbers(), &json!({"source_code": endpoint.to_string()}))).await;
    assert_eq!((&made["source_type"], &made["tool_type"]), (&json!("http"), &json!("custom")));
    let caller = agent(client, &["add"], json!({"secrets": {"DOOR_KEY": SECRET}})).await;
    let arguments = json!({"a": 12, "b": 30});
    let frames = say(client, &caller, &super::calling("add", &arguments)).await;
    let result = returns(&frames).pop().expect("a result");
    assert_eq!(text(&result), "{\"sum\":42}");
    let execution = tool.executions().pop().expect("an execution");
    assert_eq!((json!(execution.key), &execution.arguments), (result["tool_call_id"].clone(), &arguments));
    assert_eq!(execution.request.header("authorization"), format!("Bearer {SECRET}"));
    let agents = client.get("/v1/agents/").await.ok().to_string();
    let tools = client.get("/v1/tools/").await.ok().to_string();
    let history = client.get(&format!("/v1/agents/{caller}/messages")).await.ok().to_string();
    let stream: String = frames.iter().map(Frame::data).collect();
    for seen in [agents, tools, history, stream, dev.process.log()] {
        assert!(!seen.contains(SECRET), "the secret is in {seen}");
    }
    let bare = agent(client, &["add"], json!({})).await;
    let result = call(client, &bare, "add", &arguments).await;
    assert!(failure(&result).contains("no secret 'DOOR_KEY'"), "{result}");
    assert_eq!(tool.executions().len(), 1, "nothing is sent without the secret");
}

#[tokio::test]
async fn a_failing_server_is_a_result_and_the_run_goes_on() {
    let server = ToolServer::start().await;
    let tool = server.tool("add", Behaviour::always(Outcome::Status(503, "out of numbers".to_owned())));
    let gone = server.tool("gone", Behaviour::always(Outcome::HangUp));
    let data = directory();
    let dev = Dev::start_with(data.path(), settings([("HOLDFAST_OUTBOUND_ALLOW", "127.0.0.1")])).await;
    for tool in [&tool, &gone] {
        create(&dev.client, &tool.definition(&numbers(), &json!({}))).await;
    }
    let agent = agent(&dev.client, &["add", "gone"], json!({})).await;
    let result = call(&dev.client, &agent, "add", &json!({"a": 1, "b": 2})).await;
    assert!(failure(&result).contains("HTTPError: status 503 Service Unavailable: out of numbers"), "{result}");
    let result = call(&dev.client, &agent, "gone", &json!({"a": 1, "b": 2})).await;
    assert!(failure(&result).starts_with("Error executing function gone: HTTPError: "), "{result}");
    assert_eq!((tool.executions().len(), gone.executions().len()), (1, 1), "nothing is sent twice");
}

#[tokio::test]
async fn private_addresses_are_out_of_reach_unless_the_operator_allows_them() {
    let server = ToolServer::start().await;
    let tool = add(&server);
    let data = directory();
    let dev = Dev::start(data.path()).await;
    create(&dev.client, &tool.definition(&numbers(), &json!({}))).await;
    let agent = agent(&dev.client, &["add"], json!({})).await;
    let result = call(&dev.client, &agent, "add", &json!({"a": 1, "b": 2})).await;
    assert!(failure(&result).contains("HOLDFAST_OUTBOUND_ALLOW"), "{result}");
    assert!(tool.executions().is_empty());
}
