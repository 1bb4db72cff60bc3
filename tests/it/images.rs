//! Images by URL through the front door: fetched when a request is accepted, and never again.

use holdfast_shared::testkit::http_server::{HttpServer, Reply};
use serde_json::{Value, json};

use super::harness::{Dev, directory, settings};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\nrest";

fn message(url: &str, otid: Value) -> Value {
    let parts = json!([{"text": "What is this?"}, {"type": "image", "source": {"type": "url", "url": url}}]);
    json!({"messages": [{"role": "user", "content": parts, "otid": otid}], "background": true})
}

#[tokio::test]
async fn an_image_by_url_is_fetched_once_and_kept() {
    let server = HttpServer::start(|_| Reply::of(200, "image/png", PNG)).await;
    let data = directory();
    let allow = server.address.to_string();
    let dev = Dev::start_with(data.path(), settings([("HOLDFAST_OUTBOUND_ALLOW", &allow)])).await;
    let agent = dev.client.create_agent().await;
    let body = message(&server.url("/cat"), json!("first"));
    let frames = dev.client.send(&agent, &body).await.read_to_end().await;
    let again = dev.client.send(&agent, &body).await.read_to_end().await;
    assert_eq!(frames[0].run_id(), again[0].run_id(), "the repeat is answered by its run");
    assert_eq!(server.received().len(), 1, "and fetches nothing");
    let listed = dev.client.get(&format!("/v1/agents/{agent}/messages")).await.ok();
    let messages = listed.as_array().expect("messages");
    let sources: Vec<_> = messages.iter().filter_map(|message| message.pointer("/content/1/source")).collect();
    assert_eq!(sources, [&json!({"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgpyZXN0"})]);
}

#[tokio::test]
async fn an_image_that_cannot_be_had_leaves_nothing_behind() {
    let server = HttpServer::start(|_| Reply::of(200, "image/png", PNG)).await;
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let agent = dev.client.create_agent().await;
    let path = format!("/v1/agents/{agent}/messages/stream");
    let detail = dev.client.post(&path, &message(&server.url("/cat"), Value::Null)).await.refused(400);
    assert!(detail.starts_with("INVALID_ARGUMENT: body.messages[0].content[1].source.url: "), "{detail}");
    assert!(detail.contains("HOLDFAST_OUTBOUND_ALLOW"), "{detail}");
    assert_eq!(server.received().len(), 0);
    assert_eq!(dev.client.get("/v1/runs/").await.ok(), json!([]));
}
