//! Python tools, known by nothing but their source.

use std::io::ErrorKind;
use std::net::TcpListener;

use serde_json::{Value, json};

use super::{agent, call, calling, create, failure, told};
use crate::client::Client;
use crate::harness::{Dev, background, directory, settings};
use crate::notation::assert_notation;

const GREET: &str = r#"
import os, sys

def greet(name: str, times: int = 1) -> dict:
    """Greets somebody.

    Args:
        name: Who is greeted.
        times: How often.
    """
    print("greeting", name)
    print("aside", file=sys.stderr)
    return {"text": " ".join(["Hello"] * times + [name]), "key": os.environ["DOOR_KEY"], "id": os.environ["HOLDFAST_TOOL_CALL_ID"]}
"#;

fn sourced(source: &str) -> Value {
    json!({"source_code": source})
}

/// An agent with one Python tool; answers the agent's id.
async fn agent_with(client: &Client, definition: &Value) -> String {
    let tool = create(client, definition).await;
    let name = tool["name"].as_str().expect("a name");
    agent(client, &[name], json!({"secrets": {"DOOR_KEY": "sesame"}})).await
}

#[tokio::test]
async fn a_tool_is_made_from_its_source_and_called() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let tool = create(client, &sourced(GREET)).await;
    assert_eq!((&tool["name"], &tool["description"]), (&json!("greet"), &json!("Greets somebody.")));
    let parameters = &tool["json_schema"]["parameters"];
    assert_eq!(parameters["properties"]["name"], json!({"type": "string", "description": "Who is greeted."}));
    assert_eq!(parameters["required"], json!(["name"]));
    let agent = agent(client, &["greet"], json!({"secrets": {"DOOR_KEY": "sesame"}})).await;
    let result = call(client, &agent, "greet", &json!({"name": "Ada", "times": 2})).await;
    let value: Value = serde_json::from_str(super::text(&result)).expect("JSON");
    assert_eq!(value, json!({"text": "Hello Hello Ada", "key": "sesame", "id": result["tool_call_id"]}));
    assert_eq!((&result["stdout"], &result["stderr"]), (&json!(["greeting Ada"]), &json!(["aside"])));
    let wrong = call(client, &agent, "greet", &json!({"nobody": 1})).await;
    assert!(failure(&wrong).contains("TypeError: greet() "), "{wrong}");
    // The secret was not set for another agent.
    let other = super::agent(client, &["greet"], json!({})).await;
    let missing = call(client, &other, "greet", &json!({"name": "Ada"})).await;
    assert_eq!(failure(&missing), "Error executing function greet: KeyError: 'DOOR_KEY'");
    assert!(missing["stderr"].to_string().contains("in greet"), "{missing}");
}

#[tokio::test]
async fn bad_tools_are_stopped_and_told_and_harm_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    let port = listener.local_addr().expect("an address").port();
    let data = directory();
    let memory = (128 * 1024 * 1024).to_string();
    let dev = Dev::start_with(data.path(), settings([("HOLDFAST_PYTHON_MEMORY_BYTES", &memory)])).await;
    let client = &dev.client;
    let good = agent_with(client, &sourced(GREET)).await;
    for (name, body, timeout_ms, said) in [
        ("spins", "while True: pass".to_owned(), 1000, "1000 ms"),
        ("sleeps", "import time; time.sleep(1000)".to_owned(), 1000, "1000 ms"),
        ("eats", "x = []\n    while True: x.append(bytes(10**7))".to_owned(), 60_000, "MemoryError"),
        ("calls", format!("import socket; socket.create_connection(('127.0.0.1', {port}))"), 60_000, "Error: "),
        (
            "forks",
            "import os\n    return 'child' if os.fork() == 0 else 'parent'".to_owned(),
            60_000,
            "PermissionError",
        ),
        ("runs", "import subprocess; return subprocess.check_output(['id'])".to_owned(), 60_000, "PermissionError"),
    ] {
        let source = format!(
            "def {name}() -> str:\n    \"\"\"Means no good.\"\"\"\n    print('begun', flush=True)\n    {body}\n"
        );
        let bad = agent_with(client, &json!({"source_code": source, "timeout_ms": timeout_ms})).await;
        let result = call(client, &bad, name, &json!({})).await;
        assert!(failure(&result).starts_with(&format!("Error executing function {name}: ")), "{result}");
        assert!(failure(&result).contains(said), "{name}: {result}");
        assert_eq!(result["stdout"], json!(["begun"]), "{name}: what it printed is kept");
        assert_eq!(client.get("/v1/health/").await.ok()["status"], "ok");
        super::text(&call(client, &good, "greet", &json!({"name": "Ada"})).await);
    }
    let nobody = listener.accept().map_err(|error| error.kind());
    assert!(matches!(nobody, Err(ErrorKind::WouldBlock)), "a tool reached the network: {nobody:?}");
}

#[tokio::test]
async fn a_tool_that_runs_ends_with_its_cancelled_run() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let source = "def spins() -> str:\n    \"\"\"Never ends.\"\"\"\n    while True: pass\n";
    let agent = agent_with(client, &sourced(source)).await;
    let mut stream = client.send(&agent, &background(&calling("spins", &json!({})))).await;
    let run = stream.run_id().await;
    stream.until("tool_call_message").await;
    client.post(&format!("/v1/agents/{agent}/messages/cancel"), &json!({})).await.ok();
    let frames = stream.read_to_end().await;
    assert_notation(&told(&frames), "P C S:cancelled U");
    assert_eq!(client.get(&format!("/v1/runs/{run}")).await.ok()["status"], "cancelled");
    let whole = client.send(&agent, &background("hello")).await.read_to_end().await;
    assert_notation(&whole, "P A S:end_turn U");
}

#[tokio::test]
async fn without_a_sandbox_nothing_is_executed() {
    let data = directory();
    let dev = Dev::start_with(data.path(), settings([("HOLDFAST_PYTHON_SANDBOX", "off")])).await;
    let agent = agent_with(&dev.client, &sourced(GREET)).await;
    let result = call(&dev.client, &agent, "greet", &json!({"name": "Ada"})).await;
    assert!(failure(&result).contains("HOLDFAST_PYTHON_SANDBOX"), "{result}");
    assert_eq!(result["stdout"], Value::Null);
}
