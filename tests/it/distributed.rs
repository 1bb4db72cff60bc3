//! APIs and workers as processes of their own, on PostgreSQL, Redis and RabbitMQ, and what their deaths do: nothing that a
//! reader could see.

use serde_json::{Value, json};

use super::client::{Frame, assert_same_bytes, assert_whole, assistant_text, shape, stop_reason, stored, superseded};
use super::harness::{Cluster, PrivateRedis, background, settings};
use super::scripted_model::script::Answer;
use super::scripted_model::{Kind, ScriptedModel};

const SLOW: &str = "[[demo tokens=80 delay_ms=50]]";

/// Asserts that the first part of what a run showed is void and was repeated whole.
fn assert_taken_over(frames: &[Frame], tokens: usize) {
    assert_whole(frames, 0);
    assert_eq!(stop_reason(frames), "end_turn");
    let void = superseded(frames);
    assert!(!void.is_empty(), "the repeated step is not announced: {:?}", shape(frames));
    let valid = frames
        .iter()
        .map(Frame::json)
        .filter(|json| json["message_type"] == "assistant_message" && !void.iter().any(|id| json["id"] == id.as_str()));
    assert_eq!(valid.count(), tokens, "the repeat is whole");
}

#[tokio::test]
async fn a_run_posted_at_one_api_is_read_at_the_other() {
    let cluster = Cluster::start(2, 2).await;
    let (here, there) = (cluster.client(0), cluster.client(1));
    let agent = here.create_agent().await;
    let mut stream = here.send(&agent, &background("[[demo tokens=30 delay_ms=30]]")).await;
    let run = stream.run_id().await;
    let live = there.resume(&run, 0).await;
    stream.at_least(5).await;
    let middle = there.resume(&run, 3).await;
    let (whole, live, middle) = tokio::join!(stream.read_to_end(), live.read_to_end(), middle.read_to_end());
    assert_whole(&whole, 0);
    assert_same_bytes(&live, &whole);
    assert_same_bytes(&middle, &stored(&whole)[3..]);
    for client in [&here, &there] {
        assert_eq!(client.get(&format!("/v1/runs/{run}")).await.ok()["status"], "completed");
        assert_same_bytes(&client.resume(&run, 0).await.read_to_end().await, &whole);
    }
    let health = there.get("/v1/health/").await.ok();
    assert_eq!(health["status"], "ok");
    assert!(!health["backends"].is_null(), "{health}");
}

#[tokio::test]
async fn a_worker_killed_in_mid_step_is_replaced_without_gap_or_repeat() {
    let mut cluster = Cluster::start(2, 1).await;
    let (here, there) = (cluster.client(0), cluster.client(1));
    let agent = here.create_agent().await;
    let mut stream = here.send(&agent, &background(SLOW)).await;
    let run = stream.run_id().await;
    let elsewhere = there.resume(&run, 0).await;
    stream.at_least(10).await;
    cluster.add_worker().await;
    cluster.workers[0].kill_9();
    let (whole, elsewhere) = tokio::join!(stream.read_to_end(), elsewhere.read_to_end());
    assert_taken_over(&whole, 80);
    assert_same_bytes(&whole, &elsewhere);
    assert_same_bytes(&there.resume(&run, 0).await.read_to_end().await, &whole);
    let history = there.get(&format!("/v1/agents/{agent}/messages")).await.ok();
    let void = superseded(&whole);
    let said = assistant_text(&whole);
    let messages = history.as_array().expect("a list");
    assert!(messages.iter().any(|message| message["content"] == said.as_str()), "{said:?} is not in {history}");
    assert!(messages.iter().all(|message| !void.iter().any(|id| message["id"] == id.as_str())), "void text is kept");
    let usage = whole.iter().map(Frame::json).find(|json| json["message_type"] == "usage_statistics").expect("usage");
    assert_eq!(usage["run_ids"], json!([run]));
}

#[tokio::test]
async fn a_finished_step_is_not_repeated_after_a_kill() {
    let mut cluster = Cluster::start(1, 1).await;
    let client = cluster.client(0);
    let agent = client.create_agent().await;
    // The first step's tool has run once its return is shown; the kill comes right then.
    let text = r#"[[demo tool=memory_insert {"label":"human","new_string":"She likes fjords."}]]"#;
    let mut stream = client.send(&agent, &background(text)).await;
    let returned = stream.until("tool_return_message").await;
    cluster.workers[0].kill_9();
    cluster.add_worker().await;
    let whole = stream.read_to_end().await;
    assert_whole(&whole, 0);
    assert_eq!(stop_reason(&whole), "end_turn");
    let returns: Vec<Value> =
        whole.iter().map(Frame::json).filter(|json| json["message_type"] == "tool_return_message").collect();
    let void = superseded(&whole);
    let valid = returns.iter().filter(|json| !void.iter().any(|id| json["id"] == id.as_str())).count();
    assert_eq!(valid, 1, "{returned:?}");
    let block = client.get(&format!("/v1/agents/{agent}")).await.ok()["blocks"][0]["value"].clone();
    assert_eq!(block.as_str().expect("text").matches("fjords").count(), 1, "the tool's effect happened once");
}

#[tokio::test]
async fn a_worker_that_was_only_asleep_changes_nothing_when_it_wakes() {
    let own = settings([("HOLDFAST_LEASE_MS", "1500"), ("HOLDFAST_HEARTBEAT_MS", "200")]);
    let mut cluster = Cluster::start_with(1, 1, own).await;
    let client = cluster.client(0);
    let agent = client.create_agent().await;
    let mut stream = client.send(&agent, &background("[[demo tokens=40 delay_ms=50]]")).await;
    let run = stream.run_id().await;
    stream.at_least(8).await;
    cluster.workers[0].signal("STOP");
    cluster.add_worker().await;
    let whole = stream.read_to_end().await;
    assert_taken_over(&whole, 40);
    let before = client.get(&format!("/v1/runs/{run}")).await.ok();
    cluster.workers[0].signal("CONT");
    // The sleeper is awake and past its old run when it works again: the other worker ends before the next run starts.
    let mut other = cluster.workers.pop().expect("the second worker");
    other.signal("TERM");
    assert!(other.ended().await.success());
    let next = client.send(&agent, &background("hello")).await.read_to_end().await;
    assert_eq!(stop_reason(&next), "end_turn");
    assert_same_bytes(&client.resume(&run, 0).await.read_to_end().await, &whole);
    assert_eq!(client.get(&format!("/v1/runs/{run}")).await.ok(), before);
}

#[tokio::test]
async fn a_worker_told_to_stop_hands_its_run_over_and_uses_up_no_attempt() {
    let own = settings([("HOLDFAST_DRAIN_MS", "300"), ("HOLDFAST_MAX_ATTEMPTS", "1")]);
    let mut cluster = Cluster::start_with(1, 1, own).await;
    let client = cluster.client(0);
    let agent = client.create_agent().await;
    let mut stream = client.send(&agent, &background(SLOW)).await;
    stream.at_least(8).await;
    cluster.add_worker().await;
    cluster.workers[0].signal("TERM");
    assert!(cluster.workers[0].ended().await.success(), "SIGTERM is a normal end");
    let whole = stream.read_to_end().await;
    assert_whole(&whole, 0);
    assert_eq!(stop_reason(&whole), "end_turn", "a deploy fails no run");
}

#[tokio::test]
async fn a_worker_told_to_stop_finishes_what_fits_its_drain_time() {
    let mut cluster = Cluster::start(1, 1).await;
    let client = cluster.client(0);
    let agent = client.create_agent().await;
    let mut stream = client.send(&agent, &background("[[demo tokens=30 delay_ms=30]]")).await;
    stream.at_least(5).await;
    cluster.workers[0].signal("TERM");
    let whole = stream.read_to_end().await;
    assert_whole(&whole, 0);
    assert_eq!((stop_reason(&whole).as_str(), superseded(&whole).len()), ("end_turn", 0));
    assert!(cluster.workers[0].ended().await.success());
}

#[tokio::test]
async fn an_api_told_to_stop_lets_its_readers_resume_elsewhere() {
    let mut cluster = Cluster::start(2, 1).await;
    let (here, there) = (cluster.client(0), cluster.client(1));
    let agent = here.create_agent().await;
    let mut stream = here.send(&agent, &background(SLOW)).await;
    let run = stream.run_id().await;
    stream.at_least(8).await;
    cluster.apis[0].process.signal("TERM");
    let seen = stream.read_to_break().await;
    assert!(cluster.apis[0].process.ended().await.success());
    let ended = seen.iter().any(Frame::is_done);
    let cursor = seen.iter().filter_map(Frame::seq_id).next_back().expect("a cursor");
    let rest = there.resume(&run, cursor).await.read_to_end().await;
    let whole = there.resume(&run, 0).await.read_to_end().await;
    assert_whole(&whole, 0);
    if !ended {
        assert_same_bytes(&[seen, rest].concat(), &whole);
    }
    assert_eq!(stop_reason(&whole), "end_turn");
}

#[tokio::test]
async fn a_run_that_kills_its_workers_ends_with_an_error() {
    let mut cluster = Cluster::start_with(1, 1, settings([("HOLDFAST_MAX_ATTEMPTS", "2")])).await;
    let client = cluster.client(0);
    let agent = client.create_agent().await;
    let mut stream = client.send(&agent, &background("[[demo tokens=2000 delay_ms=20]]")).await;
    let run = stream.run_id().await;
    stream.at_least(4).await;
    cluster.workers[0].kill_9();
    let second = cluster.add_worker().await;
    loop {
        let frame = stream.next().await.expect("the stream goes on");
        if !frame.json()["superseded_message_ids"].is_null() {
            break;
        }
    }
    stream.until("assistant_message").await;
    cluster.workers[second].kill_9();
    cluster.add_worker().await;
    let whole = stream.read_to_end().await;
    assert_whole(&whole, 0);
    assert_eq!(stop_reason(&whole), "error");
    assert_eq!(client.get(&format!("/v1/runs/{run}")).await.ok()["status"], "failed");
    let next = client.send(&agent, &background("hello")).await.read_to_end().await;
    assert_eq!(stop_reason(&next), "end_turn", "the agent goes on");
}

#[tokio::test]
async fn everything_may_be_restarted_and_the_replay_is_the_same() {
    let mut cluster = Cluster::start(1, 1).await;
    let client = cluster.client(0);
    let agent = client.create_agent().await;
    let finished = client.send(&agent, &background("hello")).await.read_to_end().await;
    let mut live = client.send(&agent, &background("[[demo tokens=60 delay_ms=50]]")).await;
    let run = live.run_id().await;
    live.at_least(8).await;
    cluster.kill_everything();
    let seen = live.read_to_break().await;

    let client = cluster.add_api().await;
    cluster.add_worker().await;
    let cursor = seen.iter().filter_map(Frame::seq_id).next_back().expect("a cursor");
    let rest = client.resume(&run, cursor).await.read_to_end().await;
    let whole = client.resume(&run, 0).await.read_to_end().await;
    assert_taken_over(&whole, 60);
    assert_same_bytes(&[seen, rest].concat(), &whole);
    let replay = client.resume(&finished[0].run_id().expect("a run"), 0).await.read_to_end().await;
    assert_same_bytes(&replay, &finished);
}

#[tokio::test]
async fn a_run_accepted_without_any_worker_starts_when_one_comes() {
    let mut cluster = Cluster::start(1, 0).await;
    let client = cluster.client(0);
    let agent = client.create_agent().await;
    let mut stream = client.send(&agent, &background("hello")).await;
    let run = stream.run_id().await;
    assert_eq!(client.get(&format!("/v1/runs/{run}")).await.ok()["status"], "created");
    cluster.add_worker().await;
    assert_eq!(stop_reason(&stream.read_to_end().await), "end_turn");
}

#[tokio::test]
async fn one_request_at_two_apis_at_once_makes_one_run() {
    let cluster = Cluster::start(2, 2).await;
    let (here, there) = (cluster.client(0), cluster.client(1));
    let agent = here.create_agent().await;
    for round in 0..5 {
        let mut body = background("[[demo tokens=5 delay_ms=10]]");
        body["messages"][0]["otid"] = json!(format!("round-{round}"));
        let (one, two) = tokio::join!(here.send(&agent, &body), there.send(&agent, &body));
        let (one, two) = tokio::join!(one.read_to_end(), two.read_to_end());
        assert_whole(&one, 0);
        assert_same_bytes(&one, &two);
    }
    let runs = here.get(&format!("/v1/runs/?agent_id={agent}")).await.ok();
    assert_eq!(runs.as_array().map(Vec::len), Some(5));
}

#[tokio::test]
async fn a_cancel_at_one_api_stops_the_run_that_another_started() {
    let cluster = Cluster::start(2, 1).await;
    let (here, there) = (cluster.client(0), cluster.client(1));
    let agent = here.create_agent().await;
    let mut running = here.send(&agent, &background("[[demo hang]]")).await;
    let mut queued = here.send(&agent, &background("hello")).await;
    let (one, two) = (running.run_id().await, queued.run_id().await);
    here.wait_for_status(&one, "running").await;
    let answer = there.post(&format!("/v1/agents/{agent}/messages/cancel"), &json!({})).await.ok();
    assert_eq!(answer, json!({&one: "cancelled", &two: "cancelled"}));
    for stream in [running, queued] {
        let frames = stream.read_to_end().await;
        assert_whole(&frames, 0);
        assert_eq!(stop_reason(&frames), "cancelled");
    }
}

#[tokio::test]
async fn a_redis_that_lost_everything_in_mid_run_is_not_seen_in_the_stream() {
    let mut redis = PrivateRedis::start().await;
    let cluster = Cluster::start_with(2, 1, settings([("REDIS_URL", &redis.url)])).await;
    let (here, there) = (cluster.client(0), cluster.client(1));
    let agent = here.create_agent().await;
    let finished = here.send(&agent, &background("hello")).await.read_to_end().await;
    let mut stream = here.send(&agent, &background("[[demo tokens=120 delay_ms=50]]")).await;
    let run = stream.run_id().await;
    stream.at_least(20).await;
    redis.lose_everything().await;
    let mut seen = stream.read_to_break().await;
    // Whether the connection lived through it is the server's choice; that a resume goes on is not.
    while !seen.iter().any(Frame::is_done) {
        let cursor = seen.iter().filter_map(Frame::seq_id).next_back().expect("a cursor");
        seen.extend(there.resume(&run, cursor).await.read_to_break().await);
    }
    assert_whole(&seen, 0);
    assert_eq!(stop_reason(&seen), "end_turn");
    for client in [&here, &there] {
        assert_same_bytes(&client.resume(&run, 0).await.read_to_end().await, &seen);
        let replay = client.resume(&finished[0].run_id().expect("a run"), 0).await.read_to_end().await;
        assert_same_bytes(&replay, &finished);
    }
}

/// Whoever is there then, and whatever died meanwhile: what waits is in the database.
#[tokio::test]
async fn a_call_that_waits_is_answered_at_another_api_after_everything_died() {
    let model = ScriptedModel::start().await;
    let mut cluster = Cluster::start_with(2, 1, Kind::Chat.settings(&model)).await;
    let (here, there) = (cluster.client(0), cluster.client(1));
    for dies in [false, true] {
        let insert = Answer::call("memory_insert", &json!({"label": "human", "new_string": "She likes fjords."}));
        let script = model.script(Kind::Chat, [insert, Answer::text("Noted.")]);
        let rule = json!({"type": "requires_approval", "tool_name": "memory_insert"});
        let block = json!({"label": "human", "value": "The human's name is Ada."});
        let body = json!({"name": "tester", "model": script.handle, "memory_blocks": [block], "tool_rules": [rule]});
        let here = if dies { cluster.client(1) } else { here.clone() };
        let agent = here.post("/v1/agents/", &body).await.ok();
        let agent = agent["id"].as_str().expect("an id");
        let asked = here.send(agent, &background("I like fjords.")).await.read_to_end().await;
        assert_eq!(stop_reason(&asked), "requires_approval");
        let there = if dies {
            cluster.kill_everything();
            cluster.add_worker().await;
            cluster.add_api().await
        } else {
            there.clone()
        };
        let pending = there.get(&format!("/v1/agents/{agent}")).await.ok()["pending_approval"].clone();
        let call = pending["tool_calls"][0]["tool_call_id"].as_str().expect("a call");
        let approval = json!({"type": "approval", "tool_call_id": call, "approve": true});
        let answer = json!({"messages": [{"type": "approval", "approvals": [approval]}], "background": true});
        let answered = there.send(agent, &answer).await.read_to_end().await;
        assert_whole(&answered, 0);
        assert_eq!(shape(&answered)[1..4], ["tool_return_message", "assistant_message", "stop_reason"]);
        let run = answered[0].run_id().expect("a run");
        assert_same_bytes(&there.resume(&run, 0).await.read_to_end().await, &answered);
        let state = there.get(&format!("/v1/agents/{agent}")).await.ok();
        assert!(state["pending_approval"].is_null());
        assert_eq!(state["blocks"][0]["value"].as_str().expect("text").matches("fjords").count(), 1);
        let asked = asked[0].run_id().expect("a run");
        let again = there.resume(&asked, 0).await.read_to_end().await;
        assert_eq!(stop_reason(&again), "requires_approval", "the run that asked is read as it was");
        script.assert_used_up();
    }
}
