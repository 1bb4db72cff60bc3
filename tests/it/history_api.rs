//! What is told of the past: messages across agents, steps, runs; and requests and cancels that come twice.

use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

use super::client::{Client, Frame, assert_same_bytes, shape, stop_reason};
use super::harness::{Dev, background, directory, settings};

const ABSENT: &str = "00000000-0000-4000-8000-000000000000";
const REMEMBER: &str = r#"[[demo tool=memory_insert {"label":"human","new_string":"She likes fjords."}]]"#;

/// Keys of an object, sorted.
fn keys(object: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = object.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn each<'a>(list: &'a Value, field: &str) -> Vec<&'a str> {
    list.as_array().expect("a list").iter().map(|item| item[field].as_str().unwrap_or_default()).collect()
}

/// Sends a text and waits for the end of its run, whose id it answers.
async fn say(client: &Client, agent: &str, text: &str) -> String {
    let frames = client.send(agent, &background(text)).await.read_to_end().await;
    frames[0].run_id().expect("a run")
}

/// The requests that a text is in, with an `otid` of its own.
fn keyed(text: &str, otid: &str) -> Value {
    json!({"messages": [{"role": "user", "content": text, "otid": otid}]})
}

#[tokio::test]
async fn messages_of_all_agents_are_listed_and_read() {
    let data = directory();
    let tenants = settings([("HOLDFAST_API_KEYS", "north=key-of-the-north,south=key-of-the-south")]);
    let dev = Dev::start_with(data.path(), tenants).await;
    let (north, south) = (dev.client.with_key("key-of-the-north"), dev.client.with_key("key-of-the-south"));
    let (ada, bob) = (north.create_agent().await, north.create_agent().await);
    for (agent, text) in [(&ada, "one"), (&bob, "two"), (&ada, "[[demo reasoning=2 tokens=2]]")] {
        say(&north, agent, text).await;
    }
    let listed = north.get("/v1/messages/").await.ok();
    let kinds = ["reasoning_message", "assistant_message", "user_message", "assistant_message", "user_message"];
    assert_eq!(each(&listed, "message_type")[..5], kinds, "newest first, the slices of a message in their order");
    assert_eq!(each(&listed, "message_type").iter().filter(|kind| **kind == "system_message").count(), 2);
    let answer = listed[0]["id"].as_str().expect("an id");
    assert_eq!(listed[1]["id"], answer);
    assert_eq!(north.get("/v1/messages?limit=1").await.ok(), json!([listed[0], listed[1]]), "one stored message");
    let page = north.get(&format!("/v1/messages/?limit=2&after={answer}")).await.ok();
    assert_eq!(page, json!([listed[2], listed[3]]));
    let before = listed[3]["id"].as_str().expect("an id");
    assert_eq!(north.get(&format!("/v1/messages/?limit=1&before={before}")).await.ok(), json!([listed[2]]));
    let users = north.get("/v1/messages/?order=asc&include_return_message_types=user_message").await.ok();
    assert_eq!(each(&users, "content"), ["one", "two", "[[demo reasoning=2 tokens=2]]"]);
    assert_eq!(north.get("/v1/messages/?conversation_id=default").await.ok(), listed);
    let conversation = north.post(&format!("/v1/conversations/?agent_id={bob}"), &json!({})).await.ok();
    let conversation = conversation["id"].as_str().expect("an id");
    let sent = json!({"messages": [{"role": "user", "content": "elsewhere"}]});
    north.stream_post(&format!("/v1/conversations/{conversation}/messages"), &sent).await.read_to_end().await;
    let there = north.get(&format!("/v1/messages/?order=asc&conversation_id={conversation}")).await.ok();
    assert_eq!(each(&there, "message_type"), ["system_message", "user_message", "assistant_message"]);
    assert_eq!(north.get("/v1/messages/?conversation_id=default").await.ok(), listed);
    let wanted = json!({"query": "elsewhere", "conversation_id": conversation});
    let found = north.post("/v1/messages/search", &wanted).await.ok();
    assert_eq!(found.as_array().expect("a list").last().expect("one")["conversation_id"], conversation);
    south.get(&format!("/v1/messages/?conversation_id={conversation}")).await.refused(404);
    north.get("/v1/messages/?conversation_id=here").await.refused(422);

    let read = north.get(&format!("/v1/messages/{answer}")).await.ok();
    assert_eq!(read, json!([listed[0], listed[1]]));
    south.get(&format!("/v1/messages/{answer}")).await.refused(404);
    assert_eq!(south.get("/v1/messages/").await.ok(), json!([]));
    south.get(&format!("/v1/messages/?after={answer}")).await.refused(404);
    north.get(&format!("/v1/messages/?after=message-{ABSENT}")).await.refused(404);
    let wrong = north.get("/v1/messages/answer").await;
    assert_eq!(wrong.body["examples"], json!(["message-123e4567-e89b-42d3-8456-426614174000"]));
    wrong.refused(422);
    north.get("/v1/messages/?order_by=length").await.refused(422);
    assert_eq!(north.get("/v1/messages/batches").await.refused(404), "Not Found");
    let change = format!("/v1/agents/{ada}/messages/{answer}");
    north.patch(&change, &json!({"content": "no"})).await.refused(405);
    north.get(&change).await.refused(404);

    north.delete(&format!("/v1/agents/{ada}")).await.ok();
    north.get(&format!("/v1/messages/{answer}")).await.refused(404);
    let left = north.get("/v1/messages/?conversation_id=default").await.ok();
    assert_eq!(each(&left, "message_type").len(), 3, "Bob's");
}

#[tokio::test]
async fn a_search_finds_words_and_tells_the_four_kinds() {
    let data = directory();
    let tenants = settings([("HOLDFAST_API_KEYS", "north=key-of-the-north,south=key-of-the-south")]);
    let dev = Dev::start_with(data.path(), tenants).await;
    let (north, south) = (dev.client.with_key("key-of-the-north"), dev.client.with_key("key-of-the-south"));
    let ada = north.create_agent().await;
    say(&north, &ada, "Where are the Fjords of Norway?").await;
    let bob = north.post("/v1/agents/", &json!({"name": "bob", "system": "Norway has fjords."})).await.ok();
    let bob = bob["id"].as_str().expect("an id");
    let search = async |body: Value| north.post("/v1/messages/search", &body).await.ok();
    let found = search(json!({"query": "norway FJORDS"})).await;
    let kinds = each(&found, "message_type");
    assert_eq!(kinds, ["system_message", "assistant_message", "user_message"], "newest first; the demo model quotes");
    let user = &found[2];
    assert_eq!(keys_of_found("content"), keys(user));
    assert_eq!((&user["agent_id"], &user["conversation_id"]), (&json!(ada), &Value::Null));
    assert_eq!(user["content"], "Where are the Fjords of Norway?");
    let stored = north.get(&format!("/v1/messages/{}", user["message_id"].as_str().expect("an id"))).await.ok();
    assert_eq!(stored[0]["content"], user["content"]);
    for mode in ["vector", "fts", "hybrid"] {
        assert_eq!(search(json!({"query": "norway fjords", "search_mode": mode})).await, found, "{mode}");
    }
    let mine = search(json!({"query": "norway", "agent_id": bob})).await;
    assert_eq!(each(&mine, "message_type"), ["system_message"]);
    assert_eq!(search(json!({"query": "norway", "limit": 1})).await, json!([found[0]]));
    assert_eq!(search(json!({"query": "norway sweden"})).await, json!([]));
    let moment = &user["created_at"];
    let at = search(json!({"query": "where", "start_date": moment, "end_date": moment})).await;
    assert_eq!(each(&at, "message_id"), [user["message_id"].as_str().expect("an id")], "both ends belong to it");
    assert_eq!(search(json!({"query": "norway", "end_date": "2001-01-01"})).await, json!([]));
    assert_eq!(search(json!({"query": "norway", "agent_id": format!("agent-{ABSENT}")})).await, json!([]));

    say(&north, &ada, "[[demo reasoning=3 tokens=2]]").await;
    let thought = search(json!({"query": "AFTER word", "agent_id": ada})).await;
    assert_eq!(each(&thought, "message_type"), ["reasoning_message"], "the text of that message has one word only");
    assert_eq!(
        (thought[0]["reasoning"].as_str(), keys(&thought[0])),
        (Some("one word after "), keys_of_found("reasoning"))
    );
    assert_eq!(south.post("/v1/messages/search", &json!({"query": "norway"})).await.ok(), json!([]));
    for (body, named) in [
        (json!({}), "body.query"),
        (json!({"query": ""}), "body.query"),
        (json!({"query": "x ".repeat(3), "search_mode": "magic"}), "body.search_mode"),
        (json!({"query": "x", "limit": 100_000}), "body.limit"),
        (json!({"query": "x", "start_date": "+999999-01-01"}), "body.start_date"),
    ] {
        let detail = north.post("/v1/messages/search", &body).await.refused(422);
        assert!(detail.starts_with(named), "{body}: {detail}");
    }
}

/// Keys of a thing that was found, sorted.
fn keys_of_found(own: &'static str) -> Vec<&'static str> {
    let mut keys = vec!["agent_id", "conversation_id", "created_at", "message_id", "message_type", own];
    keys.sort_unstable();
    keys
}

#[tokio::test]
async fn an_agents_list_knows_groups_and_never_splits_a_message() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let agent = client.create_agent().await;
    let path = format!("/v1/agents/{agent}/messages");
    let grouped = json!({"messages": [{"role": "user", "content": "in a group", "group_id": "group-1"}]});
    client.post(&path, &grouped).await.ok();
    client.post(&path, &json!({"input": "[[demo reasoning=2 tokens=2]]"})).await.ok();
    let found = client.get(&format!("{path}?group_id=group-1")).await.ok();
    assert_eq!(each(&found, "content"), ["in a group"]);
    assert_eq!(client.get(&format!("{path}?group_id=group")).await.ok(), json!([]));
    let last = client.get(&format!("{path}?limit=1")).await.ok();
    assert_eq!(each(&last, "message_type"), ["reasoning_message", "assistant_message"], "one stored message");
    let all = client.get(&path).await.ok();
    assert_eq!(client.get(&format!("{path}?include_err=true")).await.ok(), all);
    client.get(&format!("{path}?include_err=perhaps")).await.refused(422);
    client.get(&format!("{path}?after=message-{ABSENT}")).await.refused(404);
    client.get(&format!("{path}?group_id=group-1&before=message-{ABSENT}")).await.refused(404);

    // A legacy agent speaks by calls: how they are listed is for the reader to say.
    let legacy = client.post("/v1/agents/", &json!({"name": "old", "agent_type": "memgpt_agent"})).await.ok();
    let legacy = legacy["id"].as_str().expect("an id");
    let path = format!("/v1/agents/{legacy}/messages");
    let call = r#"[[demo tool=send_message {"message":"Hei!"}]]"#;
    client.post(&path, &json!({"input": call})).await.ok();
    let contents = |list: &Value| each(list, "content").iter().filter(|text| **text == "Hei!").count();
    let spoken = client.get(&path).await.ok();
    assert_eq!(contents(&spoken), 1, "{spoken}");
    let raw = client.get(&format!("{path}?use_assistant_message=false")).await.ok();
    assert_eq!(contents(&raw), 0, "{raw}");
    assert!(each(&raw, "message_type").contains(&"tool_call_message"), "{raw}");
    let other = client.get(&format!("{path}?assistant_message_tool_name=shout")).await.ok();
    assert_eq!(contents(&other), 0, "{other}");
    assert_eq!(contents(&client.get("/v1/messages/").await.ok()), 1, "across agents as well");
    let found = client.post("/v1/messages/search", &json!({"query": "hei!", "agent_id": legacy})).await.ok();
    assert!(each(&found, "content").contains(&"Hei!"), "{found}");
}

#[tokio::test]
async fn a_reset_empties_the_context_and_settles_what_waits() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let agent = client.create_agent().await;
    let reset = format!("/v1/agents/{agent}/reset-messages");
    say(client, &agent, "hello").await;
    let history = format!("/v1/agents/{agent}/messages?order=asc");
    let before = client.get(&history).await.ok();

    let mut hanging = client.send(&agent, &background("[[demo hang]]")).await;
    let busy = hanging.run_id().await;
    let refused = client.patch(&reset, &json!({"add_default_initial_messages": false})).await;
    assert_eq!(refused.body["run_id"], busy.as_str());
    assert!(refused.headers.contains_key("retry-after"));
    assert!(refused.refused(409).contains("is currently being processed"));
    client.post(&format!("/v1/agents/{agent}/messages/cancel"), &json!({})).await.ok();
    hanging.read_to_end().await;

    let gate = format!("/v1/agents/{agent}/tools/approval/memory_insert");
    client.patch(&gate, &json!({"requires_approval": true})).await.ok();
    let asked = say(client, &agent, REMEMBER).await;
    assert!(client.get(&format!("/v1/agents/{agent}")).await.ok()["pending_approval"].is_object());
    let state = client.patch_bare(&reset).await.ok();
    assert_eq!(state["id"], agent.as_str());
    assert_eq!(state["message_ids"], json!([before[0]["id"]]), "the system message keeps its id");
    assert_eq!(state["pending_approval"], Value::Null);
    assert_eq!(client.get(&format!("/v1/runs/{asked}")).await.ok()["status"], "cancelled", "its calls were denied");
    let after = client.get(&history).await.ok();
    let (before, after) = (before.as_array().expect("a list"), after.as_array().expect("a list"));
    assert_eq!(after[1..before.len()], before[1..], "what was said stays listed");
    assert_ne!(after[0]["content"], before[0]["content"], "compiled anew: it tells how much is outside");
    let again = client.patch(&reset, &json!({"add_default_initial_messages": true})).await.ok();
    assert_eq!(again["message_ids"], state["message_ids"], "agents begin without messages");
    let answer = say(client, &agent, "and now?").await;
    assert_eq!(client.get(&format!("/v1/runs/{answer}")).await.ok()["stop_reason"], "end_turn");
    client.patch(&reset, &json!({"add_default_initial_messages": "no"})).await.refused(422);
    client.patch(&format!("/v1/agents/agent-{ABSENT}/reset-messages"), &json!({})).await.refused(404);
}

#[tokio::test]
async fn steps_are_listed_measured_and_rated() {
    let data = directory();
    let tenants = settings([("HOLDFAST_API_KEYS", "north=key-of-the-north,south=key-of-the-south")]);
    let dev = Dev::start_with(data.path(), tenants).await;
    let (north, south) = (dev.client.with_key("key-of-the-north"), dev.client.with_key("key-of-the-south"));
    let agent = north.create_agent().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let traced = north.with_header("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01"));
    let run = say(&traced, &agent, REMEMBER).await;
    let steps = north.get("/v1/steps/").await.ok();
    let ids = each(&steps, "id");
    assert_eq!(ids.len(), 2, "{steps}");
    let (last, first) = (ids[0], ids[1]);
    assert_eq!(each(&north.get("/v1/steps?order=asc").await.ok(), "id"), [first, last]);
    assert_eq!(each(&north.get(&format!("/v1/steps/?limit=1&after={last}")).await.ok(), "id"), [first]);
    let step = north.get(&format!("/v1/steps/{first}")).await.ok();
    assert_eq!(step, steps[1]);
    assert_eq!(
        keys(&step),
        [
            "agent_id",
            "cache_write_tokens",
            "cached_input_tokens",
            "completion_tokens",
            "completion_tokens_details",
            "context_window_limit",
            "error_data",
            "error_type",
            "feedback",
            "id",
            "messages",
            "model",
            "model_endpoint",
            "model_handle",
            "origin",
            "project_id",
            "prompt_tokens",
            "prompt_tokens_details",
            "provider_category",
            "provider_id",
            "provider_name",
            "reasoning_tokens",
            "request_id",
            "retries",
            "run_id",
            "status",
            "stop_reason",
            "tags",
            "tid",
            "total_tokens",
            "trace_id",
        ]
    );
    assert_eq!((&step["run_id"], &step["trace_id"], &step["status"]), (&json!(run), &json!(trace), &json!("success")));
    let shown = north.get(&format!("/v1/steps/{first}/messages")).await.ok();
    assert_eq!(each(&shown, "message_type"), ["tool_call_message", "tool_return_message"]);
    let newest = north.get(&format!("/v1/steps/{first}/messages?order=desc&limit=1")).await.ok();
    assert_eq!(newest, json!([shown[1]]));
    let metrics = north.get(&format!("/v1/steps/{first}/metrics")).await.ok();
    assert_eq!(
        keys(&metrics),
        [
            "agent_id",
            "base_template_id",
            "id",
            "llm_request_ns",
            "llm_request_start_ns",
            "organization_id",
            "project_id",
            "provider_id",
            "run_id",
            "step_ns",
            "step_start_ns",
            "template_id",
            "tool_execution_ns",
        ]
    );
    for field in ["llm_request_ns", "tool_execution_ns", "step_ns", "step_start_ns", "llm_request_start_ns"] {
        assert!(metrics[field].is_i64(), "{field}: {metrics}");
    }
    assert_eq!(north.get(&format!("/v1/steps/{first}/trace")).await.ok(), Value::Null);

    let feedback = format!("/v1/steps/{first}/feedback");
    let rated = north.patch(&feedback, &json!({"feedback": "positive", "tags": ["kind", "short"]})).await.ok();
    assert_eq!((&rated["feedback"], &rated["tags"]), (&json!("positive"), &json!(["kind", "short"])));
    assert_eq!(north.get(&format!("/v1/steps/{first}")).await.ok(), rated);
    let run_steps = north.get(&format!("/v1/runs/{run}/steps?order=asc")).await.ok();
    assert_eq!(run_steps[0], rated);
    for (query, wanted) in [
        ("feedback=positive", vec![first]),
        ("feedback=negative", vec![]),
        ("has_feedback=false", vec![last]),
        ("tags=short&tags=long", vec![first]),
        ("tags=long", vec![]),
        ("model=demo", vec![last, first]),
        ("model=holdfast/demo", vec![last, first]),
        ("model=other", vec![]),
        (&format!("trace_ids={trace}"), vec![last, first]),
        ("trace_ids=other", vec![]),
        ("project_id=mine", vec![]),
        (&format!("agent_id={agent}"), vec![last, first]),
        (&format!("agent_id=agent-{ABSENT}"), vec![]),
        ("start_date=2001-01-01&end_date=2999-01-01T00:00:00-08:00", vec![last, first]),
        ("end_date=2001-01-01", vec![]),
    ] {
        assert_eq!(each(&north.get(&format!("/v1/steps/?{query}")).await.ok(), "id"), wanted, "{query}");
    }
    let taken_back = north.patch(&feedback, &json!({"feedback": null})).await.ok();
    assert_eq!((&taken_back["feedback"], &taken_back["tags"]), (&Value::Null, &json!(["kind", "short"])));
    north.patch(&feedback, &json!({"feedback": "good"})).await.refused(422);
    for query in ["feedback=good", "start_date=soon", "order_by=model", "limit=0", "after=step-1", "agent_id=me"] {
        north.get(&format!("/v1/steps/?{query}")).await.refused(422);
    }
    let wrong = north.get("/v1/steps/first").await;
    assert_eq!(wrong.body["examples"], json!(["step-123e4567-e89b-42d3-8456-426614174000"]));
    wrong.refused(422);
    assert_eq!(south.get("/v1/steps/").await.ok(), json!([]));
    south.patch(&feedback, &json!({"feedback": "negative"})).await.refused(404);
    for path in ["", "/messages", "/metrics", "/trace"] {
        south.get(&format!("/v1/steps/{first}{path}")).await.refused(404);
        north.get(&format!("/v1/steps/step-{ABSENT}{path}")).await.refused(404);
    }

    let mut hanging = north.send(&agent, &background("[[demo hang]]")).await;
    let run = hanging.run_id().await;
    north.wait_for_status(&run, "running").await;
    super::harness::until("a pending step is listed", async || {
        let newest = north.get("/v1/steps/?limit=1").await.ok();
        newest[0]["run_id"] == run.as_str() && newest[0]["status"] == "pending"
    })
    .await;
    north.post(&format!("/v1/agents/{agent}/messages/cancel"), &json!({})).await.ok();
    hanging.read_to_end().await;
    assert_eq!(north.get("/v1/steps/?limit=1").await.ok()[0]["status"], "cancelled");
}

#[tokio::test]
async fn runs_are_filtered_told_and_deleted() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let (ada, bob) = (client.create_agent().await, client.create_agent().await);
    let mut body = background(REMEMBER);
    body["include_return_message_types"] = json!(["user_message", "assistant_message"]);
    let frames = client.send(&ada, &body).await.read_to_end().await;
    let done = frames[0].run_id().expect("a run");
    let failed = say(client, &ada, "[[demo error=500]]").await;
    let foreground = client.send(&bob, &json!({"input": "hello"})).await.read_to_end().await;
    let foreground = foreground[0].run_id().expect("a run");
    let mut hanging = client.send(&bob, &background("[[demo hang]]")).await;
    let running = hanging.run_id().await;
    client.wait_for_status(&running, "running").await;
    let mut waiting = client.send(&bob, &background("hello")).await;
    let created = waiting.run_id().await;
    let (done, failed, foreground) = (done.as_str(), failed.as_str(), foreground.as_str());
    let (running, created) = (running.as_str(), created.as_str());
    for (query, wanted) in [
        ("", vec![created, running, foreground, failed, done]),
        ("?ascending=true&order=desc", vec![done, failed, foreground, running, created]),
        (&format!("?agent_id={ada}&agent_ids={bob}"), vec![failed, done]),
        (&format!("?agent_ids={ada}&agent_ids={bob}&limit=2"), vec![created, running]),
        ("?active=true", vec![created, running]),
        ("?active=true&statuses=failed", vec![failed]),
        ("?statuses=failed&statuses=running", vec![running, failed]),
        ("?background=false", vec![foreground]),
        ("?stop_reason=end_turn", vec![foreground, done]),
        (&format!("?after={foreground}"), vec![failed, done]),
        (&format!("?before={foreground}&limit=1"), vec![running]),
        ("active", vec![created, running]),
        ("active/?background=false", vec![]),
        (&format!("active?agent_id={ada}"), vec![]),
    ] {
        let path = format!("/v1/runs/{query}");
        assert_eq!(each(&client.get(&path).await.ok(), "id"), wanted, "{path}");
    }
    for query in ["statuses=over", "stop_reason=tired", "limit=1001", "order=up", "agent_id=ada", "background=maybe"] {
        client.get(&format!("/v1/runs/?{query}")).await.refused(422);
    }
    let shown = client.get(&format!("/v1/runs/{done}/messages")).await.ok();
    assert_eq!(each(&shown, "message_type"), ["user_message", "assistant_message"], "the run's own filter");
    let metrics = client.get(&format!("/v1/runs/{done}/metrics")).await.ok();
    let tool = client.get("/v1/tools/?name=memory_insert").await.ok();
    assert_eq!((&metrics["num_steps"], &metrics["tools_used"]), (&json!(2), &json!([tool[0]["id"]])));
    assert!(metrics["run_start_ns"].is_i64() && metrics["run_ns"].is_i64(), "{metrics}");
    let usage = client.get(&format!("/v1/runs/{created}/usage")).await.ok();
    assert_eq!(
        usage,
        json!({"completion_tokens": 0, "prompt_tokens": 0, "total_tokens": 0, "prompt_tokens_details": null,
               "completion_tokens_details": null})
    );
    let trace = format!("/v1/runs/{done}/trace");
    assert_eq!(client.get(&format!("{trace}?limit=5000")).await.ok(), json!([]));
    client.get(&format!("{trace}?limit=5001")).await.refused(422);
    let error = &client.get(&format!("/v1/runs/{failed}")).await.ok()["metadata"]["error"];
    assert_eq!((&error["message_type"], &error["error_type"]), (&json!("error_message"), &json!("llm_error")));

    for run in [running, created] {
        let refused = client.delete(&format!("/v1/runs/{run}")).await;
        assert_eq!(refused.body["run_id"], run);
        refused.refused(409);
    }
    let history = client.get(&format!("/v1/agents/{ada}/messages")).await.ok();
    let step = client.get(&format!("/v1/runs/{done}/steps")).await.ok()[0]["id"].clone();
    assert_eq!(client.delete(&format!("/v1/runs/{done}")).await.ok(), json!({}));
    client.delete(&format!("/v1/runs/{done}")).await.refused(404);
    client.get(&format!("/v1/runs/{done}")).await.refused(404);
    client.post(&format!("/v1/runs/{done}/stream"), &json!({})).await.refused(404);
    client.get(&format!("/v1/steps/{}", step.as_str().expect("an id"))).await.refused(404);
    client.delete("/v1/runs/done").await.refused(400);
    let left = client.get(&format!("/v1/agents/{ada}/messages")).await.ok();
    assert_eq!(each(&left, "id"), each(&history, "id"), "the history stays");
    let of_run = |list: &Value| list.as_array().expect("a list").iter().filter(|one| one["run_id"] == done).count();
    assert_eq!((of_run(&history) > 0, of_run(&left)), (true, 0));
    client.post(&format!("/v1/agents/{bob}/messages/cancel"), &json!({})).await.ok();
    hanging.read_to_end().await;
    waiting.read_to_end().await;

    let gate = format!("/v1/agents/{ada}/tools/approval/memory_insert");
    client.patch(&gate, &json!({"requires_approval": true})).await.ok();
    let asked = say(client, &ada, REMEMBER).await;
    let refused = client.delete(&format!("/v1/runs/{asked}")).await;
    assert_eq!(refused.headers.get("x-should-retry").map(|value| value.as_bytes()), Some(&b"false"[..]));
    refused.refused(409);
}

#[tokio::test]
async fn a_foreground_request_that_comes_again_is_answered_by_its_run() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let (ada, bob) = (client.create_agent().await, client.create_agent().await);
    let path = format!("/v1/agents/{ada}/messages");
    let body = keyed(REMEMBER, "first");
    let answer = client.post(&path, &body).await.ok();
    assert_eq!(client.post(&path, &body).await.ok(), answer, "the same LettaResponse");
    let replay = client.send(&ada, &body).await.read_to_end().await;
    let kinds = ["tool_call_message", "tool_return_message", "assistant_message", "stop_reason", "usage_statistics"];
    assert_eq!(shape(&replay)[..5], kinds, "as a stream, too");
    assert_eq!(replay[0].kind(), "ping", "which opens like any other");
    assert_eq!(shape(&replay).last().map(String::as_str), Some("[DONE]"));

    let failing = keyed("[[demo error=500]]", "failing");
    let failed = client.post(&path, &failing).await;
    let again = client.post(&path, &failing).await;
    assert_eq!((failed.status, &failed.body), (again.status, &again.body));
    assert_eq!(again.headers.get("x-should-retry").map(|value| value.as_bytes()), Some(&b"false"[..]));

    let slow = keyed("[[demo tokens=30 delay_ms=20]]", "slow");
    let mut first = client.send(&ada, &slow).await;
    first.run_id().await;
    let (first, joined) = tokio::join!(first.read_to_end(), client.send(&ada, &slow));
    let joined = joined.read_to_end().await;
    assert_same_bytes(&joined, &first);
    assert_eq!(stop_reason(&first), "end_turn");
    let runs = client.get(&format!("/v1/runs/?agent_id={ada}")).await.ok();
    assert_eq!(runs.as_array().map(Vec::len), Some(3), "each was executed once");

    // The same otids at another agent are another request.
    client.post(&format!("/v1/agents/{bob}/messages"), &keyed("hello", "first")).await.ok();
    // One message without an otid, and nothing can be told to be the same.
    let half = json!({"messages": [{"role": "user", "content": "a", "otid": "x"}, {"role": "user", "content": "b"}]});
    for _ in 0..2 {
        client.post(&format!("/v1/agents/{bob}/messages"), &half).await.ok();
    }
    let runs = client.get(&format!("/v1/runs/?agent_id={bob}")).await.ok();
    assert_eq!(runs.as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn an_answer_to_calls_that_comes_again_is_known_by_its_otid() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let agent = client.create_agent().await;
    let gate = format!("/v1/agents/{agent}/tools/approval/memory_insert");
    client.patch(&gate, &json!({"requires_approval": true})).await.ok();
    let asked = client.send(&agent, &background(REMEMBER)).await.read_to_end().await;
    let request = asked.iter().map(Frame::json).find(|json| json["message_type"] == "approval_request_message");
    let call = request.expect("a request")["tool_call"]["tool_call_id"].clone();
    let approval = json!({"type": "approval", "approve": true, "tool_call_id": call});
    let body = json!({
        "messages": [{"type": "approval", "approvals": [approval], "otid": "answer"}],
        "background": true, "stream_tokens": true,
    });
    let first = client.send(&agent, &body).await.read_to_end().await;
    assert_eq!(stop_reason(&first), "end_turn");
    assert_same_bytes(&client.send(&agent, &body).await.read_to_end().await, &first);
    let runs = client.get(&format!("/v1/runs/?agent_id={agent}")).await.ok();
    assert_eq!(runs.as_array().map(Vec::len), Some(2));
    let run = first[0].run_id().expect("a run");
    let shown = client.get(&format!("/v1/runs/{run}/messages")).await.ok();
    assert_eq!(shown[0]["message_type"], "approval_response_message", "its input is listed: {shown}");
}

#[tokio::test]
async fn a_repeat_of_a_run_whose_events_are_gone_is_told_so() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let agent = client.create_agent().await;
    let mut body = keyed("hello", "gone");
    body["background"] = json!(true);
    let whole = client.send(&agent, &body).await.read_to_end().await;
    let run = whole[0].run_id().expect("a run");
    let options = SqliteConnectOptions::new().filename(data.path().join("data/holdfast.db"));
    let pool = SqlitePool::connect_with(options).await.expect("the database");
    sqlx::query("DELETE FROM event_segments").execute(&pool).await.expect("the events go");
    pool.close().await;
    let refused = client.post(&format!("/v1/agents/{agent}/messages/stream"), &body).await;
    assert_eq!(refused.body["run_id"], run.as_str());
    assert!(refused.refused(410).starts_with("EXPIRED"));
    assert!(client.post(&format!("/v1/runs/{run}/stream"), &json!({})).await.refused(410).starts_with("EXPIRED"));
    let runs = client.get(&format!("/v1/runs/?agent_id={agent}")).await.ok();
    assert_eq!(each(&runs, "id"), [run.as_str()], "it was not executed again");
}

#[tokio::test]
async fn a_cancel_says_of_each_id_what_became_of_it() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let (ada, bob) = (client.create_agent().await, client.create_agent().await);
    let done = say(client, &ada, "hello").await;
    let foreign = say(client, &bob, "hello").await;
    let cancel = format!("/v1/agents/{ada}/messages/cancel");
    let absent = format!("run-{ABSENT}");
    let answer = client.post(&cancel, &json!({"run_ids": [done, foreign, absent, "nonsense"]})).await.ok();
    let expected = json!({done.as_str(): "cancelled", foreign.as_str(): "failed", absent.as_str(): "failed", "nonsense": "failed"});
    assert_eq!(answer, expected);
    for run in [&done, &foreign] {
        assert_eq!(client.get(&format!("/v1/runs/{run}")).await.ok()["status"], "completed", "an end is final");
    }
    // A run whose calls wait can be cancelled while they do; once they are answered, its end is final.
    let gate = format!("/v1/agents/{ada}/tools/approval/memory_insert");
    client.patch(&gate, &json!({"requires_approval": true})).await.ok();
    let asked = client.send(&ada, &background(REMEMBER)).await.read_to_end().await;
    let request = asked.iter().map(Frame::json).find(|json| json["message_type"] == "approval_request_message");
    let call = request.expect("a request")["tool_call"]["tool_call_id"].clone();
    let approval = json!({"type": "approval", "approve": false, "tool_call_id": call});
    let body = json!({"messages": [{"type": "approval", "approvals": [approval]}]});
    client.post(&format!("/v1/agents/{ada}/messages"), &body).await.ok();
    let asked = asked[0].run_id().expect("a run");
    let answer = client.post(&cancel, &json!({"run_ids": [asked]})).await.ok();
    assert_eq!(answer, json!({asked.as_str(): "cancelled"}));
    assert_eq!(client.get(&format!("/v1/runs/{asked}")).await.ok()["status"], "completed");
    client.post(&cancel, &json!({"run_ids": "all"})).await.refused(422);
}
