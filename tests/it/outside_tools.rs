//! Tools outside of the program, called by an agent: HTTP endpoints of a client, and an MCP server of the operator.

use serde_json::{Value, json};

use super::client::{Client, Frame};
use super::counting_tools::{Behaviour, Outcome, ToolServer};
use super::harness::{Dev, background, directory, settings, tools_directory};

async fn agent(client: &Client, tool: &str) -> String {
    let body = json!({"name": "caller", "tools": [tool], "secrets": {"KEY": "s3cret"}});
    client.post("/v1/agents/", &body).await.ok()["id"].as_str().expect("an id").to_owned()
}

/// Has the agent call the tool; answers the frames.
async fn call(client: &Client, agent: &str, tool: &str, arguments: &Value) -> Vec<Frame> {
    client.send(agent, &background(&format!("[[demo tool={tool} {arguments}]]"))).await.read_to_end().await
}

fn result(frames: &[Frame]) -> Value {
    let found = frames.iter().find(|frame| frame.kind() == "tool_return_message");
    found.unwrap_or_else(|| panic!("no result in {frames:#?}")).json()
}

#[tokio::test]
async fn an_agent_calls_an_http_tool_with_its_secret_and_the_id_of_the_call() {
    let server = ToolServer::start().await;
    let tool = server.tool("look", Behaviour::always(Outcome::Text("a fjord".to_owned())));
    let data = directory();
    let dev = Dev::start_with(data.path(), settings([("HOLDFAST_OUTBOUND_ALLOW", "127.0.0.1")])).await;
    let source = json!({"url": tool.url, "headers": {"Authorization": "Bearer ${KEY}"}}).to_string();
    let parameters = json!({"type": "object", "properties": {"at": {"type": "string"}}});
    dev.client.post("/v1/tools/", &tool.definition(&parameters, &json!({"source_code": source}))).await.ok();
    let agent = agent(&dev.client, "look").await;
    let frames = call(&dev.client, &agent, "look", &json!({"at": "sea"})).await;
    let result = result(&frames);
    assert_eq!((&result["status"], &result["tool_return"]), (&json!("success"), &json!("a fjord")), "{result}");
    let executions = tool.executions();
    assert_eq!(executions.len(), 1);
    assert_eq!(executions[0].arguments, json!({"at": "sea"}));
    assert_eq!(json!(executions[0].key), result["tool_call_id"]);
    assert_eq!(executions[0].request.header("authorization"), "Bearer s3cret");
    assert!(!frames.iter().any(|frame| frame.raw.contains("s3cret")), "the secret is shown");
}

#[tokio::test]
async fn an_http_tool_inside_the_network_is_not_called() {
    let server = ToolServer::start().await;
    let tool = server.tool("look", Behaviour::always(Outcome::Text("inside".to_owned())));
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let parameters = json!({"type": "object", "properties": {}});
    dev.client.post("/v1/tools/", &tool.definition(&parameters, &json!({}))).await.ok();
    let agent = agent(&dev.client, "look").await;
    let result = result(&call(&dev.client, &agent, "look", &json!({})).await);
    assert_eq!(result["status"], "error");
    let text = result["tool_return"].as_str().expect("a text");
    assert!(text.contains("HOLDFAST_OUTBOUND_ALLOW"), "{text}");
    assert!(tool.executions().is_empty());
}

#[tokio::test]
async fn an_agent_calls_a_tool_of_an_mcp_server() {
    let server = tools_directory("mcp-node").join("node_modules/@modelcontextprotocol/server-everything/dist/index.js");
    let data = directory();
    let file = data.path().join("mcp.json");
    let config = json!({"mcpServers": {"every": {"command": "node", "args": [server, "stdio"]}}});
    std::fs::write(&file, config.to_string()).expect("a file");
    let path = file.display().to_string();
    let dev = Dev::start_with(data.path(), settings([("HOLDFAST_MCP_CONFIG", &path)])).await;
    dev.client.until_listed("every__echo").await;
    let agent = agent(&dev.client, "every__echo").await;
    let result = result(&call(&dev.client, &agent, "every__echo", &json!({"message": "hello"})).await);
    assert_eq!((&result["status"], &result["tool_return"]), (&json!("success"), &json!("Echo: hello")), "{result}");
}
