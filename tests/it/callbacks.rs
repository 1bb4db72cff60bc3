//! Callbacks through the front door: the end of a run is told to a URL of the client's, signed, at least once, whatever
//! dies in between.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use holdfast_shared::domain::callback::SigningKey;
use holdfast_shared::testkit::http_server::{HttpServer, Received, Reply};
use serde_json::{Value, json};

use super::client::Client;
use super::harness::{Cluster, Dev, Settings, directory, settings, until};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const HANGS: &str = "[[demo hang]]";

/// A server that answers each target's requests by their number, from 1.
async fn receiver(answer: impl Fn(&str, usize) -> Reply + Send + Sync + 'static) -> HttpServer {
    let counts: Mutex<BTreeMap<String, usize>> = Mutex::default();
    HttpServer::start(move |received| {
        let mut counts = counts.lock().expect("no panic");
        let count = counts.entry(received.target.clone()).or_default();
        *count += 1;
        answer(&received.target, *count)
    })
    .await
}

fn taken() -> Reply {
    Reply::of(200, "text/plain", "thanks")
}

/// Only this receiver is open, and callbacks are signed.
fn to(server: &HttpServer) -> Settings {
    settings([("HOLDFAST_OUTBOUND_ALLOW", &server.address.to_string()), ("HOLDFAST_CALLBACK_SECRET", SECRET)])
}

fn requests(server: &HttpServer, target: &str) -> Vec<Received> {
    server.received().into_iter().filter(|received| received.target == target).collect()
}

async fn start(client: &Client, agent: &str, input: &str, url: &str) -> String {
    let body = json!({"input": input, "callback_url": url});
    let run = client.post(&format!("/v1/agents/{agent}/messages/async"), &body).await.ok();
    assert_eq!((&run["callback_url"], &run["callback_sent_at"]), (&json!(url), &Value::Null));
    run["id"].as_str().expect("an id").to_owned()
}

/// Waits until the run shows such a try.
async fn shows(client: &Client, run: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let mut found = Value::Null;
    until(what, async || {
        found = client.get(&format!("/v1/runs/{run}")).await.ok();
        is_so(&found)
    })
    .await;
    found
}

/// Waits until the receiver took it; answers the run.
async fn told(client: &Client, run: &str) -> Value {
    let found = shows(client, run, "a callback that was taken", |run| run["callback_status_code"] == 200).await;
    assert_eq!(found["callback_error"], Value::Null);
    assert!(found["callback_sent_at"].is_string());
    found
}

/// Asserts that a request tells the end of this run.
fn assert_tells(received: &Received, run: &Value) {
    assert_eq!(received.method, "POST");
    let header = |name: &str| received.headers.get(name).map(String::as_str).unwrap_or_default();
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(header("webhook-id"), run["id"]);
    let timestamp = header("webhook-timestamp").parse().expect("seconds");
    let key = SigningKey::parse(SECRET).expect("a secret");
    assert_eq!(header("webhook-signature"), key.sign(header("webhook-id"), timestamp, &received.body));
    let mut body: Value = serde_json::from_slice(&received.body).expect("JSON");
    let result = body["metadata"].as_object_mut().and_then(|metadata| metadata.remove("result")).expect("a result");
    let wanted = json!({
        "run_id": run["id"], "status": run["status"], "completed_at": run["completed_at"], "metadata": run["metadata"],
    });
    assert_eq!(body, wanted);
    assert_eq!(result["stop_reason"], json!({"message_type": "stop_reason", "stop_reason": run["stop_reason"]}));
    assert!(result["usage"].is_object());
    let has_answer = result["messages"]
        .as_array()
        .expect("messages")
        .iter()
        .any(|message| message["message_type"] == "assistant_message" && message["run_id"] == run["id"]);
    assert_eq!(has_answer, run["status"] == "completed");
}

async fn every_end_is_told(client: &Client, server: &HttpServer) {
    let agent = client.create_agent().await;
    let run = start(client, &agent, "Hello", &server.url("/completed")).await;
    let completed = told(client, &run).await;
    assert_eq!(completed["status"], "completed");
    assert_tells(&requests(server, "/completed")[0], &completed);

    let run = start(client, &agent, "[[demo error=500]]", &server.url("/failed")).await;
    let failed = told(client, &run).await;
    assert_eq!(failed["status"], "failed");
    assert!(failed["metadata"]["error"].is_object());
    assert_tells(&requests(server, "/failed")[0], &failed);

    let running = start(client, &agent, HANGS, &server.url("/running")).await;
    client.wait_for_status(&running, "running").await;
    let waiting = start(client, &agent, "Hello", &server.url("/created")).await;
    for (run, target) in [(&waiting, "/created"), (&running, "/running")] {
        client.post(&format!("/v1/agents/{agent}/messages/cancel"), &json!({"run_ids": [run]})).await.ok();
        let cancelled = told(client, run).await;
        assert_eq!(cancelled["status"], "cancelled");
        assert_tells(&requests(server, target)[0], &cancelled);
    }

    let run = start(client, &agent, "Hello", &server.url("/flaky")).await;
    let refused = shows(client, &run, "a refusal", |run| run["callback_status_code"] == 503).await;
    assert_eq!(refused["callback_error"], "the receiver answered 503");
    assert_eq!(refused["status"], "completed", "it is none of the run's affairs");
    let accepted = told(client, &run).await;
    let tries = requests(server, "/flaky");
    assert_eq!(tries.len(), 2);
    tries.iter().for_each(|received| assert_tells(received, &accepted));

    let run = start(client, &agent, "Hello", &server.url("/moved")).await;
    let moved = shows(client, &run, "a redirect", |run| run["callback_status_code"] == 302).await;
    assert!(moved["callback_error"].as_str().expect("an error").contains("not followed"), "{moved}");
    assert!(requests(server, "/elsewhere").is_empty());

    // Nobody sends a second one, and none for runs that are read by other means.
    let body = json!({"input": "Hello", "callback_url": server.url("/other")});
    client.post(&format!("/v1/agents/{agent}/messages"), &body).await.ok();
    let runs = client.get(&format!("/v1/runs/?agent_id={agent}&limit=1")).await.ok();
    assert_eq!((&runs[0]["metadata"]["run_type"], &runs[0]["callback_url"]), (&json!("send_message"), &Value::Null));
    let last = start(client, &agent, "Hello", &server.url("/last")).await;
    told(client, &last).await;
    assert!(requests(server, "/other").is_empty());
    assert_eq!(requests(server, "/completed").len(), 1);
}

async fn closed_addresses_are_refused(client: &Client) {
    let agent = client.create_agent().await;
    let path = format!("/v1/agents/{agent}/messages/async");
    let send = async |url: Value| client.post(&path, &json!({"input": "Hello", "callback_url": url})).await;
    for url in [json!("here"), json!("ftp://example.com/"), json!(5), json!(format!("http://a/{}", "x".repeat(3000)))] {
        let detail = send(url.clone()).await.refused(422);
        assert!(detail.starts_with("body.callback_url: must "), "{url}: {detail}");
    }
    for url in ["http://10.0.0.1/", "http://[::1]/", "http://169.254.169.254/latest", "http://0x7f000001:1/"] {
        let detail = send(json!(url)).await.refused(400);
        assert!(detail.starts_with("INVALID_ARGUMENT: body.callback_url: "), "{detail}");
        assert!(detail.contains("HOLDFAST_OUTBOUND_ALLOW"), "{detail}");
    }
    assert_eq!(client.get(&format!("/v1/runs/?agent_id={agent}")).await.ok(), json!([]), "nothing was accepted");
    let run = start(client, &agent, "Hello", "http://localhost:1/").await;
    let refused = shows(client, &run, "a refusal", |run| !run["callback_error"].is_null()).await;
    let error = refused["callback_error"].as_str().expect("a text");
    assert!(error.contains("HOLDFAST_OUTBOUND_ALLOW"), "{error}");
    assert_eq!((&refused["status"], &refused["callback_status_code"]), (&json!("completed"), &Value::Null));
}

async fn by_case() -> HttpServer {
    receiver(|target, count| match (target, count) {
        ("/flaky", 1) => Reply::of(503, "text/plain", "later"),
        ("/moved", _) => Reply::redirect(302, "/elsewhere"),
        _ => taken(),
    })
    .await
}

#[tokio::test]
async fn every_end_is_told_by_one_process() {
    let server = by_case().await;
    let data = directory();
    let dev = Dev::start_with(data.path(), to(&server)).await;
    every_end_is_told(&dev.client, &server).await;
    closed_addresses_are_refused(&dev.client).await;
}

#[tokio::test]
async fn every_end_is_told_by_a_cluster() {
    let server = by_case().await;
    let cluster = Cluster::start_with(1, 2, to(&server)).await;
    every_end_is_told(&cluster.client(0), &server).await;
    closed_addresses_are_refused(&cluster.client(0)).await;
}

#[tokio::test]
async fn without_a_secret_nothing_is_signed_and_the_last_try_is_the_last() {
    let server = receiver(|_, _| Reply::of(500, "text/plain", "no")).await;
    let data = directory();
    let allow = server.address.to_string();
    let own = settings([("HOLDFAST_OUTBOUND_ALLOW", &allow), ("HOLDFAST_CALLBACK_TRIES", "2")]);
    let mut dev = Dev::start_with(data.path(), own).await;
    let agent = dev.client.create_agent().await;
    start(&dev.client, &agent, "Hello", &server.url("/refused")).await;
    dev.process.logged("the callback was given up").await;
    let tries = requests(&server, "/refused");
    assert_eq!(tries.len(), 2);
    for received in tries {
        assert!(received.headers.contains_key("webhook-id") && !received.headers.contains_key("webhook-signature"));
    }
}

/// The first request is never answered, so the one who sent it dies between the end of the run and what came of it.
async fn hanging_first() -> HttpServer {
    receiver(|_, count| if count == 1 { Reply::Never } else { taken() }).await
}

async fn sent(server: &HttpServer, times: usize) {
    until("the receiver is asked", async || server.received().len() >= times).await;
}

#[tokio::test]
async fn a_worker_killed_before_its_callback_was_taken_is_replaced() {
    let server = hanging_first().await;
    let mut cluster = Cluster::start_with(1, 1, to(&server)).await;
    let client = cluster.client(0);
    let agent = client.create_agent().await;
    let run = start(&client, &agent, "Hello", &server.url("/done")).await;
    sent(&server, 1).await;
    cluster.workers[0].kill_9();
    cluster.add_worker().await;
    let run = told(&client, &run).await;
    let received = server.received();
    assert_eq!(received.len(), 2);
    received.iter().for_each(|received| assert_tells(received, &run));
}

#[tokio::test]
async fn a_process_killed_before_its_callback_was_taken_sends_it_when_it_is_back() {
    let server = hanging_first().await;
    let data = directory();
    let start_dev = async |data: &Path| Dev::start_with(data, to(&server)).await;
    let mut dev = start_dev(data.path()).await;
    let agent = dev.client.create_agent().await;
    let run = start(&dev.client, &agent, "Hello", &server.url("/done")).await;
    sent(&server, 1).await;
    dev.process.kill_9();
    let dev = start_dev(data.path()).await;
    let run = told(&dev.client, &run).await;
    server.received().iter().for_each(|received| assert_tells(received, &run));
}
