//! Conversations on the wire, in one process and in a cluster.

use serde_json::{Value, json};

use super::client::{Client, Frame, assert_same_bytes, assert_whole, assistant_text, stop_reason};
use super::harness::{Cluster, Dev, background, directory};

const ABSENT: &str = "conv-00000000-0000-4000-8000-000000000000";
const HANGS: &str = "[[demo hang]]";

async fn make(client: &Client, agent: &str, body: &Value) -> Value {
    client.post(&format!("/v1/conversations/?agent_id={agent}"), body).await.ok()
}

async fn new_id(client: &Client, agent: &str) -> String {
    text(&make(client, agent, &json!({})).await["id"])
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn path(conversation: &str, rest: &str) -> String {
    format!("/v1/conversations/{conversation}{rest}")
}

async fn say(client: &Client, conversation: &str, words: &str) -> Vec<Frame> {
    client.stream_post(&path(conversation, "/messages"), &background(words)).await.read_to_end().await
}

/// What a list says, by kind.
fn said(listed: &Value) -> Vec<(String, String)> {
    let listed = listed.as_array().expect("a list");
    listed
        .iter()
        .map(|one| (text(&one["message_type"]), one["content"].as_str().unwrap_or_default().to_owned()))
        .collect()
}

#[tokio::test]
async fn a_conversation_is_made_changed_listed_and_deleted() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let agent = client.create_agent().await;
    let made = make(client, &agent, &json!({"summary": "Fjords", "context_window_limit": 9000})).await;
    let id = text(&made["id"]);
    assert!(id.starts_with("conv-") && id.len() == 41, "{id}");
    assert_eq!((&made["agent_id"], &made["summary"]), (&json!(agent), &json!("Fjords")));
    assert_eq!(made["in_context_message_ids"].as_array().map(Vec::len), Some(1));
    assert_eq!(client.get(&path(&id, "")).await.ok(), made);
    let patched = client.patch(&path(&id, ""), &json!({"archived": true, "summary": "Ice", "model": null})).await.ok();
    assert_eq!((&patched["archived"], &patched["summary"]), (&json!(true), &json!("Ice")));
    assert_eq!(patched["context_window_limit"], 9000, "what is absent or null stays");
    let count = async |query: &str| {
        let listed = client.get(&format!("/v1/conversations/?agent_id={agent}{query}")).await.ok();
        listed.as_array().expect("a list").len()
    };
    new_id(client, &agent).await;
    assert_eq!(
        (count("").await, count("&archive_status=archived").await, count("&archive_status=all").await),
        (1, 1, 2)
    );
    assert_eq!(count("&archive_status=all&summary_search=ICE").await, 1);
    let all = client.get("/v1/conversations/?archive_status=all&limit=1").await.ok();
    let next = client.get(&format!("/v1/conversations/?archive_status=all&after={}", text(&all[0]["id"]))).await.ok();
    assert_eq!(next[0]["id"], id.as_str());

    assert_eq!(client.delete(&path(&id, "")).await.ok(), Value::Null);
    for refused in [
        client.get(&path(&id, "")).await,
        client.delete(&path(&id, "")).await,
        client.patch(&path(ABSENT, ""), &json!({})).await,
        client.get(&path(ABSENT, "/messages")).await,
        client.post(&path(ABSENT, "/messages"), &json!({"input": "x"})).await,
        client.post(&path(ABSENT, "/fork"), &json!({})).await,
        client.post(&path(ABSENT, "/recompile"), &json!({})).await,
        client.post(&path(ABSENT, "/cancel"), &json!({})).await,
        client.post(&path(ABSENT, "/stream"), &json!({})).await,
        client.get("/v1/conversations/default").await,
        client.patch(&path(ABSENT, ""), &json!({"model": "nobody/knows"})).await,
        client.post(&format!("/v1/conversations/?agent_id={agent}"), &json!({"model": "nobody/knows"})).await,
        client.get(&format!("/v1/agents/{agent}/messages?conversation_id={ABSENT}")).await,
    ] {
        refused.refused(404);
    }
    for refused in [
        client.get(&path("conv-1", "")).await,
        client.post("/v1/conversations/", &json!({})).await,
        client.post("/v1/conversations/default/messages", &json!({"input": "x"})).await,
        client.get("/v1/conversations/default/messages").await,
        client.get("/v1/conversations/?order_by=size").await,
        client.get("/v1/conversations/?archive_status=maybe").await,
        client.patch(&path(ABSENT, ""), &json!({"archived": "yes"})).await,
        client.patch(&path(ABSENT, ""), &json!({"last_message_at": "soon"})).await,
        client.get("/v1/runs/?conversation_id=x").await,
    ] {
        refused.refused(422);
    }
}

/// The same in one process and across two APIs.
async fn threads_are_apart(here: &Client, there: &Client) {
    let agent = here.create_agent().await;
    let (one, two) = (new_id(here, &agent).await, new_id(here, &agent).await);
    // Three runs of one agent that execute at the same time: none of them ever ends by itself.
    let mut streams = Vec::new();
    for conversation in [one.as_str(), two.as_str()] {
        streams.push(here.stream_post(&path(conversation, "/messages"), &background(HANGS)).await);
    }
    streams.push(there.send(&agent, &background(HANGS)).await);
    let mut runs = Vec::new();
    for stream in &mut streams {
        runs.push(stream.run_id().await);
    }
    for run in &runs {
        there.wait_for_status(run, "running").await;
    }
    let busy = there.post(&path(&one, "/messages"), &json!({"input": "me, too"})).await;
    assert_eq!((busy.status, &busy.body["run_id"]), (409, &json!(runs[0])), "{}", busy.body);
    assert!(busy.headers.contains_key("retry-after"));
    assert!(busy.refused(409).contains("is currently being processed"));
    let listed = there.get(&format!("/v1/runs/?conversation_id={one}")).await.ok();
    assert_eq!((&listed[0]["id"], &listed[0]["conversation_id"]), (&json!(runs[0]), &json!(one)));
    assert_eq!(listed[0]["metadata"]["run_type"], "send_conversation_message");
    let own = there.get(&format!("/v1/runs/?agent_id={agent}&conversation_id=default")).await.ok();
    assert_eq!((own.as_array().map(Vec::len), &own[0]["conversation_id"]), (Some(1), &Value::Null));

    // A cancel of one leaves the others alone; one of the agent means all.
    assert_eq!(there.post(&path(&one, "/cancel"), &json!({})).await.ok(), json!({&runs[0]: "cancelled"}));
    let frames = streams.remove(0).read_to_end().await;
    assert_eq!(stop_reason(&frames), "cancelled");
    there.post(&path(&one, "/cancel"), &json!({})).await.refused(409);
    for run in &runs[1..] {
        assert_eq!(there.get(&format!("/v1/runs/{run}")).await.ok()["status"], "running");
    }
    let all = there.post(&format!("/v1/agents/{agent}/messages/cancel"), &json!({})).await.ok();
    assert_eq!(all, json!({&runs[1]: "cancelled", &runs[2]: "cancelled"}));
    for stream in streams {
        assert_eq!(stop_reason(&stream.read_to_end().await), "cancelled");
    }

    // What is said in one is not heard in another.
    assert_whole(&say(here, &one, "alpha").await, 0);
    assert_whole(&say(there, &two, "beta").await, 0);
    let words = async |query: &str| said(&there.get(query).await.ok());
    let in_one = words(&path(&one, "/messages?order=asc")).await;
    assert!(
        in_one.iter().any(|(_, text)| text == "alpha") && in_one.iter().all(|(_, text)| text != "beta"),
        "{in_one:?}"
    );
    let newest = words(&path(&one, "/messages")).await;
    assert_eq!(newest, in_one.iter().rev().cloned().collect::<Vec<_>>(), "the newest first");
    assert_eq!(words(&format!("/v1/agents/{agent}/messages?conversation_id={one}&order=asc")).await, in_one);
    let own = words(&format!("/v1/agents/{agent}/messages?conversation_id=default")).await;
    assert!(own.iter().all(|(_, text)| text != "alpha" && text != "beta"), "{own:?}");
    let all = words(&format!("/v1/agents/{agent}/messages")).await;
    assert!(["alpha", "beta"].iter().all(|word| all.iter().any(|(_, text)| text == word)), "{all:?}");
    assert!(!here.get(&path(&one, "")).await.ok()["last_message_at"].is_null());

    // The agent's own thread goes by the same paths.
    let direct = json!({"input": "gamma", "agent_id": agent, "streaming": false});
    let answer = there.post("/v1/conversations/default/messages", &direct).await.ok();
    assert_eq!(answer["stop_reason"]["stop_reason"], "end_turn");
    for spelling in [format!("/v1/conversations/default/messages?agent_id={agent}"), path(&agent, "/messages")] {
        assert!(words(&spelling).await.iter().any(|(_, text)| text == "gamma"));
    }
    assert!(
        words(&format!("/v1/agents/{agent}/messages?conversation_id=default"))
            .await
            .iter()
            .any(|(_, text)| text == "gamma")
    );
}

#[tokio::test]
async fn threads_are_apart_in_one_process() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    threads_are_apart(&dev.client, &dev.client).await;
}

#[tokio::test]
async fn threads_are_apart_in_a_cluster() {
    let cluster = Cluster::start(2, 2).await;
    threads_are_apart(&cluster.client(0), &cluster.client(1)).await;
}

#[tokio::test]
async fn a_run_is_resumed_by_its_id_its_otid_or_because_it_is_the_newest() {
    let cluster = Cluster::start(2, 1).await;
    let (here, there) = (cluster.client(0), cluster.client(1));
    let agent = here.create_agent().await;
    let id = new_id(&here, &agent).await;
    let stream = path(&id, "/stream");
    let refused = there.post(&stream, &json!({})).await.refused(400);
    assert!(refused.contains("No active runs found"), "{refused}");
    let mut body = background("[[demo tokens=30 delay_ms=30]]");
    body["messages"][0]["otid"] = json!("first of all");
    let mut live = here.stream_post(&path(&id, "/messages"), &body).await;
    let run = live.run_id().await;
    let newest = there.stream_post(&stream, &json!({})).await;
    let by_otid = there.stream_post(&stream, &json!({"otid": "first of all"})).await;
    let again = there.stream_post(&path(&id, "/messages"), &body).await;
    let (live, newest, by_otid, again) =
        tokio::join!(live.read_to_end(), newest.read_to_end(), by_otid.read_to_end(), again.read_to_end());
    assert_whole(&live, 0);
    for other in [newest, by_otid, again] {
        assert_same_bytes(&other, &live);
    }
    let rest = there.stream_post(&stream, &json!({"run_id": run, "starting_after": 5})).await.read_to_end().await;
    assert_eq!(rest[0].seq_id(), Some(6));
    there.post(&stream, &json!({"otid": "never said"})).await.refused(404);
    let elsewhere = new_id(&here, &agent).await;
    there.post(&path(&elsewhere, "/stream"), &json!({"run_id": run})).await.refused(404);
    let direct = json!({"agent_id": agent, "run_id": run});
    there.post("/v1/conversations/default/stream", &direct).await.refused(404);
    // The same otid in another thread is another request.
    let other = here.stream_post(&path(&elsewhere, "/messages"), &body).await.read_to_end().await;
    assert_ne!(other[0].run_id().expect("a run"), run);
    let foreground = json!({"input": "hello", "streaming": true});
    let frames = here.stream_post(&path(&elsewhere, "/messages"), &foreground).await.read_to_end().await;
    let foreground = frames[0].run_id().expect("a run");
    there.post(&path(&elsewhere, "/stream"), &json!({"run_id": foreground})).await.refused(400);
}

#[tokio::test]
async fn a_fork_begins_where_its_source_stands_and_both_go_on() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let agent = client.create_agent().await;
    let source = new_id(client, &agent).await;
    say(client, &source, "alpha").await;
    say(client, &source, "beta").await;
    let shown = client.get(&path(&source, "")).await.ok();
    let fork = client.post(&path(&source, "/fork?hidden=true"), &json!({})).await.ok();
    let of = |conversation: &Value| conversation["in_context_message_ids"].as_array().expect("ids").clone();
    assert_eq!((&of(&fork)[1..], &fork["hidden"]), (&of(&shown)[1..], &json!(true)));
    assert_ne!(of(&fork)[0], of(&shown)[0]);
    let id = text(&fork["id"]);
    let frames = say(client, &id, "gamma").await;
    assert_eq!(stop_reason(&frames), "end_turn");
    assert!(!assistant_text(&frames).is_empty());
    let words = said(&client.get(&path(&id, "/messages?order=asc")).await.ok());
    for word in ["alpha", "beta", "gamma"] {
        assert_eq!(words.iter().filter(|(_, text)| text == word).count(), 1, "{words:?}");
    }
    assert_eq!(client.get(&path(&source, "")).await.ok()["in_context_message_ids"], shown["in_context_message_ids"]);
    let first = text(&of(&shown)[2]);
    let early = client.post(&path(&source, &format!("/fork?message_id={first}")), &json!({})).await.ok();
    assert_eq!(of(&early)[1..], of(&shown)[1..3]);
    let direct = client.post(&format!("/v1/conversations/default/fork?agent_id={agent}"), &json!({})).await.ok();
    assert_eq!(of(&direct).len(), 1, "the agent's own thread is empty");
    let absent = format!("/fork?message_id=message-{}", &ABSENT[5..]);
    client.post(&path(&source, &absent), &json!({})).await.refused(404);
}

#[tokio::test]
async fn a_system_message_is_compiled_on_demand_and_when_memory_changed() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let agent = client.create_agent().await;
    let id = new_id(client, &agent).await;
    let system = async || {
        let listed = client.get(&path(&id, "/messages?order=asc&limit=1")).await.ok();
        text(&listed[0]["content"])
    };
    let change = json!({"value": "The human's name is Grace."});
    client.patch(&format!("/v1/agents/{agent}/core-memory/blocks/human"), &change).await.ok();
    assert!(system().await.contains("Ada"));
    let tried = client.post(&path(&id, "/recompile?dry_run=true"), &json!({})).await.ok();
    assert!(text(&tried).contains("Grace") && system().await.contains("Ada"));
    say(client, &id, "hello").await;
    assert!(system().await.contains("Grace"), "a run is told what is so");
    let kept = client.post(&path(&id, "/recompile"), &json!({})).await.ok();
    assert_eq!(system().await, text(&kept));
}
