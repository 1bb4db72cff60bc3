//! `holdfast dev` through its front door: everything that one process promises.

use serde_json::{Value, json};

use super::client::{
    Client, Frame, assert_same_bytes, assert_whole, assistant_text, shape, stop_reason, stored, superseded,
};
use super::harness::{Cluster, Dev, Settings, background, directory, settings};
use super::notation::{Mode, assert_related, slices};
use super::scripted_model::script::Answer;
use super::scripted_model::{self, Kind, ScriptedModel};

const SLOW: &str = "[[demo tokens=60 delay_ms=50]]";
const REMEMBER: &str = r#"[[demo tool=memory_insert {"label":"human","new_string":"She likes fjords."}]]"#;

#[tokio::test]
async fn the_ready_block_names_what_is_needed_and_its_curl_lines_work() {
    let data = directory();
    let mut dev = Dev::start(data.path()).await;
    dev.process.said("/messages/stream").await;
    let block = dev.process.output();
    assert!(block.contains(&data.path().join("data").display().to_string()), "no data directory in {block}");
    assert!(block.contains("holdfast/demo"), "no model in {block}");
    // Pasted as they are, the first makes an agent for the second.
    let lines: Vec<_> = block.lines().filter(|line| line.contains("curl ")).map(str::trim).take(2).collect();
    let answer = shell(&lines.join("\n")).await;
    assert!(answer.contains("\"seq_id\":1"), "no event in {answer}");
    assert!(answer.ends_with("data: [DONE]\n\n"), "no end in {answer}");
}

async fn shell(line: &str) -> String {
    let line = line.to_owned();
    let ran = tokio::task::spawn_blocking(move || {
        std::process::Command::new("sh").args(["-c", &line]).output().expect("a shell")
    });
    let output = ran.await.expect("it ran");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[tokio::test]
async fn a_cut_reader_that_resumes_gets_exactly_the_rest() {
    let data = directory();
    let client = Dev::start(data.path()).await;
    let client = &client.client;
    let agent = client.create_agent().await;
    let mut cut = client.send(&agent, &background(SLOW)).await;
    let run = cut.run_id().await;
    let uncut = client.resume(&run, 0).await;
    cut.at_least(7).await;
    let seen = cut.cut();
    let cursor = seen.last().and_then(Frame::seq_id).expect("a cursor");
    let rest = client.resume(&run, cursor).await.read_to_end().await;
    let whole = uncut.read_to_end().await;
    assert_whole(&whole, 0);
    assert_whole(&rest, cursor);
    assert_same_bytes(&[seen, rest].concat(), &whole);
    assert_eq!(whole[0].kind(), "ping", "the first frame is the opening ping");
    let tokens = whole.iter().filter(|frame| frame.kind() == "assistant_message").count();
    assert_eq!(tokens, 60, "one event for each token");
    assert_eq!(stop_reason(&whole), "end_turn");
    assert_eq!(client.get(&format!("/v1/runs/{run}")).await.ok()["status"], "completed");
}

#[tokio::test]
async fn every_way_to_name_a_cursor_gives_the_same_bytes() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let agent = client.create_agent().await;
    let whole = client.send(&agent, &background("[[demo tokens=10 delay_ms=1]]")).await.read_to_end().await;
    let run = whole[0].run_id().expect("a run");
    let path = format!("/v1/runs/{run}/stream");
    let rest = stored(&whole)[4..].to_vec();
    let body = client.stream_post(&path, &json!({"starting_after": 4})).await.read_to_end().await;
    let post_query = client.stream_post(&format!("{path}?starting_after=4"), &json!({})).await.read_to_end().await;
    let query = client.stream_get(&format!("{path}?starting_after=4"), &[]).await.read_to_end().await;
    let header = client.stream_get(&path, &[("last-event-id", "4")]).await.read_to_end().await;
    for read in [body, post_query, query, header] {
        assert_same_bytes(&read, &rest);
    }
    assert_same_bytes(&client.stream_get(&path, &[]).await.read_to_end().await, &whole);
}

#[tokio::test]
async fn only_a_browser_gets_id_lines_and_otherwise_the_same_frames() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let agent = client.create_agent().await;
    let whole = client.send(&agent, &background("[[demo tokens=5 delay_ms=1]]")).await.read_to_end().await;
    assert!(whole.iter().all(|frame| frame.id().is_none()), "the Python SDK breaks on id lines");
    let run = whole[0].run_id().expect("a run");
    let path = format!("{}/v1/runs/{run}/stream", client.base);
    let response = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client")
        .get(path)
        .header("accept", "text/event-stream")
        .send()
        .await;
    let text = response.expect("an answer").text().await.expect("a stream");
    assert!(text.contains("id: 1\n"), "no id line for a browser: {text}");
    let plain: String = text.split_inclusive('\n').filter(|line| !line.starts_with("id: ")).collect();
    assert_eq!(plain, whole.iter().map(|frame| frame.raw.as_str()).collect::<String>());
}

#[tokio::test]
async fn a_cursor_at_or_past_the_end_is_answered_at_once() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let agent = client.create_agent().await;
    let whole = client.send(&agent, &background("hello")).await.read_to_end().await;
    let run = whole[0].run_id().expect("a run");
    let last = assert_whole(&whole, 0);
    for cursor in [last, last + 1, last + 2, last + 3, 1_000_000, u64::from(u32::MAX) * 1000] {
        let frames = client.resume(&run, cursor).await.read_to_end().await;
        assert_same_bytes(&frames, &whole[whole.len() - 3..]);
    }
}

#[tokio::test]
async fn a_kill_9_in_the_middle_of_a_run_is_not_seen_in_the_stream() {
    let data = directory();
    let mut dev = Dev::start(data.path()).await;
    let agent = dev.client.create_agent().await;
    let mut stream = dev.client.send(&agent, &background(SLOW)).await;
    let run = stream.run_id().await;
    stream.at_least(12).await;
    dev.process.kill_9();
    let seen = stream.read_to_break().await;
    let cursor = seen.last().and_then(Frame::seq_id).expect("a cursor");

    let dev = Dev::start(data.path()).await;
    let rest = dev.client.resume(&run, cursor).await.read_to_end().await;
    assert_whole(&rest, cursor);
    let whole = dev.client.resume(&run, 0).await.read_to_end().await;
    assert_same_bytes(&[seen.clone(), rest].concat(), &whole);
    assert_repeated_step(&dev.client, &agent, &whole, &seen, 60).await;
}

/// The interrupted step was repeated under new ids, the stream says which ids are void, and the history has none of them.
async fn assert_repeated_step(client: &Client, agent: &str, whole: &[Frame], seen: &[Frame], tokens: usize) {
    assert_eq!(stop_reason(whole), "end_turn");
    let void = superseded(whole);
    let shown = seen.iter().map(Frame::json).filter(|json| json["message_type"] == "assistant_message");
    let shown: Vec<Value> = shown.map(|json| json["id"].clone()).collect();
    assert!(!shown.is_empty(), "the reader saw a part of the interrupted step");
    for id in &shown {
        assert!(void.iter().any(|void| id == void), "{id} was shown, then repeated, and not declared void: {void:?}");
    }
    let valid = whole.iter().map(Frame::json).filter(|json| json["message_type"] == "assistant_message");
    let valid = valid.filter(|json| !void.iter().any(|id| json["id"] == id.as_str())).count();
    assert_eq!(valid, tokens, "the repeat is whole");
    let history = client.get(&format!("/v1/agents/{agent}/messages")).await.ok();
    for message in history.as_array().expect("a list") {
        assert!(!void.iter().any(|id| message["id"] == id.as_str()), "void text in the history: {message}");
    }
    let said = assistant_text(whole);
    let kept = history.as_array().into_iter().flatten().any(|message| message["content"] == said.as_str());
    assert!(kept, "the history does not have what the stream said: {said:?} in {history}");
}

#[tokio::test]
async fn a_finished_run_replays_the_same_bytes_after_a_restart() {
    let data = directory();
    let mut dev = Dev::start(data.path()).await;
    let agent = dev.client.create_agent().await;
    let whole = dev.client.send(&agent, &background(REMEMBER)).await.read_to_end().await;
    let run = whole[0].run_id().expect("a run");
    dev.process.signal("TERM");
    assert!(dev.process.ended().await.success(), "SIGTERM is a normal end\n{}", dev.process.log());

    let dev = Dev::start(data.path()).await;
    assert_same_bytes(&dev.client.resume(&run, 0).await.read_to_end().await, &whole);
    assert_eq!(dev.client.get(&format!("/v1/runs/{run}")).await.ok()["status"], "completed");
    assert_eq!(dev.client.get(&format!("/v1/agents/{agent}")).await.ok()["id"], agent.as_str());
}

#[tokio::test]
async fn a_run_that_waits_when_the_process_is_killed_is_executed_after_the_restart() {
    let data = directory();
    let mut dev = Dev::start(data.path()).await;
    let agent = dev.client.create_agent().await;
    let mut first = dev.client.send(&agent, &background("[[demo tokens=40 delay_ms=50]]")).await;
    let mut second = dev.client.send(&agent, &background("[[demo tokens=3 delay_ms=1]]")).await;
    let (one, two) = (first.run_id().await, second.run_id().await);
    dev.process.kill_9();

    let dev = Dev::start(data.path()).await;
    for run in [one, two] {
        let whole = dev.client.resume(&run, 0).await.read_to_end().await;
        assert_whole(&whole, 0);
        assert_eq!(stop_reason(&whole), "end_turn");
    }
}

#[tokio::test]
async fn ctrl_c_ends_the_process_and_hands_its_runs_to_the_next_start() {
    let data = directory();
    let mut dev = Dev::start_with(data.path(), settings([("HOLDFAST_DRAIN_MS", "300")])).await;
    let agent = dev.client.create_agent().await;
    let mut stream = dev.client.send(&agent, &background(SLOW)).await;
    let run = stream.run_id().await;
    stream.at_least(5).await;
    dev.process.signal("INT");
    assert!(dev.process.ended().await.success(), "Ctrl-C is a normal end\n{}", dev.process.log());
    let seen = stream.read_to_break().await;
    assert!(!seen.iter().any(|frame| frame.kind() == "stop_reason"), "a shutdown is no end of a run");

    // A shutdown uses up no attempt: with only one, the run still goes on.
    let dev = Dev::start_with(data.path(), settings([("HOLDFAST_MAX_ATTEMPTS", "1")])).await;
    let whole = dev.client.resume(&run, 0).await.read_to_end().await;
    assert_whole(&whole, 0);
    assert_eq!(stop_reason(&whole), "end_turn");
    assert_same_bytes(&whole[..seen.len()], &seen);
}

#[tokio::test]
async fn a_throw_away_server_leaves_nothing() {
    let home = directory();
    let settings = settings([("HOME", &home.path().display().to_string())]);
    let command = super::harness::command(&["dev", "--throw-away", "--listen", "127.0.0.1:0"], &settings);
    let mut process = super::harness::Process::spawn("holdfast dev --throw-away", command);
    let client = Client::new(&process.said("Holdfast is ready at ").await);
    client.create_agent().await;
    process.said("/messages/stream").await;
    let temporary = std::env::temp_dir().display().to_string();
    let block = process.output();
    let directory = block.split_whitespace().find(|word| word.starts_with(&temporary)).expect("the data directory");
    let directory = std::path::PathBuf::from(directory.trim_end_matches([',', '.', ')', '/']));
    assert!(directory.is_dir(), "{} is not there", directory.display());
    process.signal("TERM");
    assert!(process.ended().await.success());
    assert!(!directory.exists(), "{} stays", directory.display());
    let left = std::fs::read_dir(home.path()).expect("readable").count();
    assert_eq!(left, 0, "something is in HOME");
}

#[tokio::test]
async fn step_mode_and_token_mode_show_a_tool_call_in_the_contracts_order() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let agent = client.create_agent().await;
    let expected = [
        "ping",
        "tool_call_message",
        "tool_return_message",
        "assistant_message",
        "stop_reason",
        "usage_statistics",
        "[DONE]",
    ];
    let tokens = client.send(&agent, &background(REMEMBER)).await.read_to_end().await;
    let body = json!({"input": REMEMBER.replace("fjords", "lakes"), "background": true});
    let steps = client.send(&agent, &body).await.read_to_end().await;
    for frames in [&tokens, &steps] {
        assert_whole(frames, 0);
        assert_eq!(shape(frames), expected);
        let returned = frames.iter().map(Frame::json).find(|json| json["message_type"] == "tool_return_message");
        let returned = returned.expect("a tool return");
        assert_eq!(returned["status"], "success", "{returned}");
        assert_eq!(returned["name"], "memory_insert");
    }
    let call = steps.iter().find(|frame| frame.kind() == "tool_call_message").expect("a call").json();
    assert!(call["tool_calls"].is_array(), "step mode shows a list of calls: {call}");
    let arguments: Value =
        serde_json::from_str(call["tool_call"]["arguments"].as_str().expect("JSON text")).expect("arguments are JSON");
    assert_eq!(arguments["new_string"], "She likes lakes.");
    let deltas = tokens.iter().map(Frame::json).filter(|json| json["message_type"] == "tool_call_message");
    let mut joined = String::new();
    for delta in deltas {
        assert!(delta["tool_calls"].is_object(), "token mode repeats the one delta: {delta}");
        assert!(delta["tool_call"]["tool_call_id"].is_string(), "the call's id is on every delta: {delta}");
        joined.push_str(delta["tool_call"]["arguments"].as_str().unwrap_or_default());
    }
    assert!(serde_json::from_str::<Value>(&joined).is_ok(), "deltas do not join to JSON: {joined}");
    let agent = client.get(&format!("/v1/agents/{agent}")).await.ok();
    let blocks = agent["blocks"].as_array().expect("blocks");
    let human = blocks.iter().find(|block| block["label"] == "human").expect("the block");
    let value = human["value"].as_str().expect("text");
    assert!(value.contains("fjords") && value.contains("lakes"), "the tool did not write: {value}");
}

#[tokio::test]
async fn the_history_has_the_streams_messages_under_the_same_ids() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let agent = client.create_agent().await;
    let whole = client.send(&agent, &background(REMEMBER)).await.read_to_end().await;
    let run = whole[0].run_id().expect("a run");
    let shown = client.get(&format!("/v1/runs/{run}/messages")).await.ok();
    let key = |json: &Value| (json["message_type"].clone(), json["id"].clone(), json["otid"].clone());
    let mut streamed: Vec<_> = whole.iter().map(Frame::json).filter(|json| json["otid"].is_string()).collect();
    streamed.dedup_by_key(|json| key(json));
    let shown = shown.as_array().expect("a list");
    assert_eq!(shown[0]["message_type"], "user_message", "a run's messages begin with its input");
    let listed: Vec<_> = shown[1..].iter().map(key).collect();
    assert_eq!(listed, streamed.iter().map(key).collect::<Vec<_>>());
    let usage = client.get(&format!("/v1/runs/{run}/usage")).await.ok();
    let told = whole.iter().map(Frame::json).find(|json| json["message_type"] == "usage_statistics").expect("usage");
    assert_eq!(usage["total_tokens"], told["total_tokens"]);
    assert_eq!(told["step_count"], 2);
    assert_eq!(client.get(&format!("/v1/runs/{run}/steps")).await.ok().as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn a_run_that_reaches_its_step_limit_says_so() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let agent = dev.client.create_agent().await;
    let mut body = background(REMEMBER);
    body["max_steps"] = json!(1);
    let whole = dev.client.send(&agent, &body).await.read_to_end().await;
    assert_whole(&whole, 0);
    assert_eq!(stop_reason(&whole), "max_steps");
    let run = whole[0].run_id().expect("a run");
    assert_eq!(dev.client.get(&format!("/v1/runs/{run}")).await.ok()["status"], "completed");
}

#[tokio::test]
async fn a_failing_model_ends_the_run_with_the_errors_own_frame() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let agent = dev.client.create_agent().await;
    let whole = dev.client.send(&agent, &background("[[demo error=500]]")).await.read_to_end().await;
    assert_whole(&whole, 0);
    assert_eq!(stop_reason(&whole), "llm_api_error");
    let error = whole.iter().find(|frame| frame.event() == Some("error")).expect("an error frame").json();
    assert_eq!(error["error_type"], "llm_error");
    let run = whole[0].run_id().expect("a run");
    assert_eq!(error["run_id"], run.as_str());
    let run = dev.client.get(&format!("/v1/runs/{run}")).await.ok();
    assert_eq!((&run["status"], &run["stop_reason"]), (&json!("failed"), &json!("llm_api_error")));
    let next = dev.client.send(&agent, &background("hello")).await.read_to_end().await;
    assert_eq!(stop_reason(&next), "end_turn", "the agent goes on after a failed run");
}

#[tokio::test]
async fn a_cancel_stops_a_running_and_a_queued_run() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let agent = client.create_agent().await;
    let mut running = client.send(&agent, &background("[[demo hang]]")).await;
    let mut queued = client.send(&agent, &background("hello")).await;
    let (one, two) = (running.run_id().await, queued.run_id().await);
    client.wait_for_status(&one, "running").await;
    let cancel = format!("/v1/agents/{agent}/messages/cancel");
    let answer = client.post(&cancel, &json!({"run_ids": [two]})).await.ok();
    assert_eq!(answer[&two], "cancelled");
    let queued = queued.read_to_end().await;
    assert_eq!(shape(&queued), ["ping", "stop_reason", "usage_statistics", "[DONE]"]);
    let answer = client.post(&cancel, &json!({})).await.ok();
    assert_eq!(answer[&one], "cancelled");
    let running = running.read_to_end().await;
    for (run, frames) in [(&one, &running), (&two, &queued)] {
        assert_whole(frames, 0);
        assert_eq!(stop_reason(frames), "cancelled");
        assert_eq!(client.get(&format!("/v1/runs/{run}")).await.ok()["status"], "cancelled");
        let again = client.post(&cancel, &json!({"run_ids": [run]})).await.ok();
        assert_eq!(again[run.as_str()], "cancelled", "a cancel may be repeated");
        assert_same_bytes(&client.resume(run, 0).await.read_to_end().await, frames);
    }
    let nothing = client.post(&cancel, &json!({})).await;
    assert_eq!(nothing.headers.get("x-should-retry").map(|value| value.as_bytes()), Some(&b"false"[..]));
    assert!(nothing.refused(409).contains("No active runs to cancel"));
}

#[tokio::test]
async fn a_request_sent_twice_attaches_to_its_run() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let agent = client.create_agent().await;
    let mut body = background("[[demo tokens=20 delay_ms=20]]");
    body["messages"][0]["otid"] = json!("7b1c4b52-3d4f-4c39-9a0e-0d7c1b0f5a11");
    let (one, two) = tokio::join!(client.send(&agent, &body), client.send(&agent, &body));
    let (one, two) = tokio::join!(one.read_to_end(), two.read_to_end());
    let late = client.send(&agent, &body).await.read_to_end().await;
    assert_whole(&one, 0);
    assert_same_bytes(&one, &two);
    assert_same_bytes(&one, &late);
    let runs = client.get(&format!("/v1/runs/?agent_id={agent}")).await.ok();
    assert_eq!(runs.as_array().map(Vec::len), Some(1), "one run, not three");
    body["messages"][0]["content"] = json!("something else");
    let refused = client.post(&format!("/v1/agents/{agent}/messages/stream"), &body).await;
    assert!(refused.refused(422).contains("otid"));
}

#[tokio::test]
async fn runs_of_one_agent_execute_one_at_a_time_in_order_of_arrival() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let agent = client.create_agent().await;
    let path = format!("/v1/agents/{agent}/messages/async");
    let mut runs = Vec::new();
    for number in 0..4 {
        let body =
            json!({"messages": [{"role": "user", "content": format!("[[demo tokens=5 delay_ms=20]] {number}")}]});
        let run = client.post(&path, &body).await.ok();
        assert_eq!((&run["status"], &run["background"]), (&json!("created"), &json!(true)));
        runs.push(run["id"].as_str().expect("an id").to_owned());
    }
    for run in &runs {
        client.wait_for_status(run, "completed").await;
        assert_whole(&client.resume(run, 0).await.read_to_end().await, 0);
    }
    let history = client.get(&format!("/v1/agents/{agent}/messages")).await.ok();
    let kinds = history.as_array().expect("a list").iter().filter_map(|message| message["message_type"].as_str());
    let kinds: Vec<_> = kinds.filter(|kind| *kind != "system_message").collect();
    assert_eq!(kinds, ["user_message", "assistant_message"].repeat(4), "runs were mixed");
}

#[tokio::test]
async fn a_foreground_run_goes_on_without_its_client_and_cannot_be_resumed() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let agent = client.create_agent().await;
    let body = json!({"input": "[[demo tokens=20 delay_ms=20]]", "stream_tokens": true});
    let mut stream = client.send(&agent, &body).await;
    let run = stream.run_id().await;
    assert!(stream.at_least(3).await.iter().all(|frame| frame.seq_id().is_none()), "numbers are for background runs");
    drop(stream.cut());
    let refused = client.post(&format!("/v1/runs/{run}/stream"), &json!({})).await;
    assert!(refused.refused(400).contains("background"));
    let run = client.wait_for_status(&run, "completed").await;
    assert_eq!(run["stop_reason"], "end_turn");
}

#[tokio::test]
async fn messages_without_streaming_answer_one_object() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let agent = dev.client.create_agent().await;
    let path = format!("/v1/agents/{agent}/messages");
    let answer = dev.client.post(&path, &json!({"input": REMEMBER})).await.ok();
    let kinds: Vec<_> =
        answer["messages"].as_array().expect("a list").iter().map(|m| m["message_type"].clone()).collect();
    assert_eq!(kinds, ["tool_call_message", "tool_return_message", "assistant_message"]);
    assert_eq!(answer["stop_reason"], json!({"message_type": "stop_reason", "stop_reason": "end_turn"}));
    assert_eq!(answer["usage"]["step_count"], 2);
    let body = json!({"input": "hello", "streaming": true, "background": true});
    let streamed = dev.client.stream_post(&path, &body).await.read_to_end().await;
    assert_whole(&streamed, 0);
}

#[tokio::test]
async fn a_request_that_an_sdk_gave_up_waiting_for_is_not_executed_twice() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let agent = dev.client.create_agent().await;
    let path = format!("/v1/agents/{agent}/messages");
    let body = json!({"input": "[[demo tokens=40 delay_ms=50]]"});
    let repeat = async {
        let runs = format!("/v1/runs/?agent_id={agent}&active=true");
        while dev.client.get(&runs).await.ok().as_array().expect("a list").is_empty() {}
        dev.client.post_again(&path, &body).await.ok()
    };
    let (first, second) = tokio::join!(dev.client.post(&path, &body), repeat);
    assert_eq!(first.ok()["messages"], second["messages"]);
    let runs = dev.client.get(&format!("/v1/runs/?agent_id={agent}")).await.ok();
    assert_eq!(runs.as_array().expect("a list").len(), 1);
    // After its end the same text is a new request, also where an SDK sends it again.
    let third = dev.client.post_again(&path, &json!({"input": "hello"})).await.ok();
    assert_eq!(third["stop_reason"]["stop_reason"], "end_turn");
}

#[tokio::test]
async fn a_filter_leaves_out_message_types_and_changes_no_number() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let agent = dev.client.create_agent().await;
    let mut body = background(REMEMBER);
    body["include_return_message_types"] = json!(["assistant_message"]);
    let frames = dev.client.send(&agent, &body).await.read_to_end().await;
    assert_eq!(shape(&frames), ["ping", "assistant_message", "stop_reason", "usage_statistics", "[DONE]"]);
    let numbers: Vec<_> = frames.iter().filter_map(Frame::seq_id).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
    assert!(numbers[1] > 2, "the call and its return keep the numbers that nobody was shown: {numbers:?}");
    let mut body = background("hello");
    body["include_pings"] = json!(false);
    let frames = dev.client.send(&agent, &body).await.read_to_end().await;
    assert_eq!(frames[0].kind(), "assistant_message");
    assert_whole(&frames, 0);
}

#[tokio::test]
async fn a_silent_run_keeps_its_connection_warm() {
    let data = directory();
    let dev = Dev::start_with(data.path(), settings([("HOLDFAST_KEEPALIVE_MS", "100")])).await;
    let agent = dev.client.create_agent().await;
    let mut stream = dev.client.send(&agent, &background("[[demo hang]]")).await;
    let frames = stream.at_least(4).await;
    assert!(frames.iter().all(|frame| frame.kind() == "ping"));
    assert!(frames.iter().all(|frame| frame.seq_id() == Some(1)), "keepalives take no number");
    dev.client.post(&format!("/v1/agents/{agent}/messages/cancel"), &json!({})).await.ok();
    assert_whole(&stream.read_to_end().await, 0);
}

#[tokio::test]
async fn bad_requests_are_refused_in_the_contracts_shape_and_make_nothing() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    let agent = client.create_agent().await;
    let path = format!("/v1/agents/{agent}/messages/stream");
    let user = json!({"role": "user", "content": "hello"});
    for (body, named) in [
        (json!({}), "messages"),
        (json!({"messages": [user], "input": "hello"}), "input"),
        (json!({"messages": []}), "messages"),
        (json!({"input": ""}), "input"),
        (json!({"messages": [{"role": "robot", "content": "hello"}]}), "messages[0]"),
        (json!({"messages": [{"role": "user", "content": ""}]}), "messages[0].content"),
        (json!({"input": "hello", "background": "yes"}), "background"),
        (json!({"input": "hello", "max_steps": 0}), "max_steps"),
        (json!({"input": "hello", "max_steps": 1.5}), "max_steps"),
        (json!({"input": "hello", "stream_tokens": 1}), "stream_tokens"),
        (json!({"input": "hello", "include_return_message_types": ["nonsense"]}), "include_return_message_types"),
        (json!(["hello"]), ""),
    ] {
        let detail = client.post(&path, &body).await.refused(422);
        assert!(detail.contains(named), "{body}: {detail:?} does not name {named}");
    }
    for bytes in [&b""[..], b"{", b"\xff\xfe", b"null", b"{\"input\":\"a\"} trailing"] {
        client.post_bytes(&path, bytes).await.refused(422);
    }
    let absent = "00000000-0000-4000-8000-000000000000";
    let not_found = client.post(&format!("/v1/agents/agent-{absent}/messages/stream"), &json!({"input": "hi"})).await;
    not_found.refused(404);
    client.get("/v1/agents/agent-nonsense").await.refused(422);
    client.get(&format!("/v1/agents/agent-{absent}")).await.refused(404);
    client.get(&format!("/v1/runs/run-{absent}")).await.refused(404);
    client.get("/v1/runs/nonsense").await.refused(400);
    client.post(&format!("/v1/runs/run-{absent}/stream"), &json!({})).await.refused(404);
    client.get("/v1/runs/?statuses=nonsense").await.refused(422);
    client.post("/v1/agents/", &json!({"model": "nobody/knows-this"})).await.refused(404);
    assert_eq!(client.get("/v1/no-such-thing").await.refused(404), "Not Found");
    let runs = client.get(&format!("/v1/runs/?agent_id={agent}")).await.ok();
    assert_eq!(runs, json!([]), "a refused request made a run");
}

#[tokio::test]
async fn collections_answer_with_and_without_their_slash_and_in_pages() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let client = &dev.client;
    for path in ["/v1/agents", "/v1/runs", "/v1/models", "/v1/health"] {
        let with = client.get(&format!("{path}/")).await.ok();
        assert_eq!(client.get(path).await.ok(), with);
    }
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(client.create_agent().await);
    }
    made.reverse();
    let mut seen: Vec<String> = Vec::new();
    loop {
        let after = seen.last().map(|id| format!("&after={id}")).unwrap_or_default();
        let page = client.get(&format!("/v1/agents/?limit=2{after}")).await.ok();
        let page = page.as_array().expect("a list");
        if page.is_empty() {
            break;
        }
        seen.extend(page.iter().filter_map(|agent| agent["id"].as_str().map(str::to_owned)));
    }
    assert_eq!(seen, made, "newest first, each once");
    let renamed = client.patch(&format!("/v1/agents/{}", made[0]), &json!({"name": "renamed"})).await.ok();
    assert_eq!(renamed["name"], "renamed");
    client.delete(&format!("/v1/agents/{}", made[0])).await.ok();
    client.get(&format!("/v1/agents/{}", made[0])).await.refused(404);
}

#[tokio::test]
async fn health_and_models_say_what_is_there() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let health = dev.client.get("/v1/health/").await.ok();
    assert_eq!(health["status"], "ok");
    assert!(health["version"].is_string() && !health["backends"].is_null(), "{health}");
    let models = dev.client.get("/v1/models/").await.ok();
    let handles: Vec<_> = models.as_array().expect("a list").iter().map(|model| model["handle"].clone()).collect();
    assert!(handles.contains(&json!("holdfast/demo")), "{handles:?}");
}

#[tokio::test]
async fn agents_that_name_no_model_have_the_one_of_the_settings() {
    let model = ScriptedModel::start().await;
    let script = model.script(Kind::Chat, [Answer::text("Hello.")]);
    let data = directory();
    let mut own = Kind::Chat.settings(&model);
    own.insert("HOLDFAST_DEFAULT_MODEL", script.handle.clone());
    let mut dev = Dev::start_with(data.path(), own).await;
    dev.process.said(&script.handle).await;
    let agent = dev.client.create_agent().await;
    let whole = dev.client.send(&agent, &background("hello")).await.read_to_end().await;
    assert_eq!(assistant_text(&whole), "Hello.");
}

#[tokio::test]
async fn servers_of_models_stand_side_by_side_by_their_names() {
    let (one, two) = (ScriptedModel::start().await, ScriptedModel::start().await);
    let scripts = [
        ("one", one.script(Kind::Chat, [Answer::text("First.")])),
        ("two", two.script(Kind::Chat, [Answer::text("Second.")])),
    ];
    let data = directory();
    let url = |model: &ScriptedModel| Kind::Chat.settings(model).remove("OPENAI_BASE_URL").expect("a URL");
    let servers = format!("one={}|KEY_OF_ALL,two={}|KEY_OF_ALL", url(&one), url(&two));
    // Nobody listens on port 1: a provider that does not answer hides no other.
    let own = settings([
        ("HOLDFAST_OPENAI_COMPATIBLE", servers.as_str()),
        ("KEY_OF_ALL", scripted_model::KEY),
        ("ANTHROPIC_BASE_URL", "http://127.0.0.1:1"),
    ]);
    let dev = Dev::start_with(data.path(), own).await;
    let models = dev.client.get("/v1/models/").await.ok();
    let providers: std::collections::BTreeSet<_> =
        models.as_array().into_iter().flatten().filter_map(|model| model["provider_name"].as_str()).collect();
    assert_eq!(providers.into_iter().collect::<Vec<_>>(), ["holdfast", "one", "two"]);
    for ((name, script), said) in scripts.iter().zip(["First.", "Second."]) {
        let handle = script.handle.replace("openai/", &format!("{name}/"));
        let agent = dev.client.post("/v1/agents/", &json!({"model": handle})).await.ok();
        let agent = agent["id"].as_str().expect("an id").to_owned();
        let whole = dev.client.send(&agent, &background("hello")).await.read_to_end().await;
        assert_eq!(assistant_text(&whole), said, "{handle}");
    }
}

/// Settings for a real OpenAI-compatible server, if HOLDFAST_TEST_MODEL_URL names one.
fn real_model() -> Option<Settings> {
    let Ok(url) = std::env::var("HOLDFAST_TEST_MODEL_URL") else {
        eprintln!("not run: HOLDFAST_TEST_MODEL_URL names no OpenAI-compatible server");
        return None;
    };
    Some(settings([("OPENAI_BASE_URL", url.as_str())]))
}

/// Has a real model answer, call a tool, and answer from its result, in both stream modes. Asserts the shape of what it
/// does, never the wording.
async fn a_real_model_answers_and_calls(client: &Client) {
    let source = "def add(a: int, b: int) -> int:\n    \"\"\"Adds two numbers.\n\n    Args:\n        a: The first.\n        \
                  b: The second.\n    \"\"\"\n    return a + b\n";
    client.post("/v1/tools/", &json!({"source_code": source})).await.ok();
    let models = client.get("/v1/models/").await.ok();
    let handles = models.as_array().into_iter().flatten().filter_map(|model| model["handle"].as_str());
    let handle = handles.into_iter().find(|handle| handle.starts_with("openai/")).expect("a model of that server");
    let agent = async |tools: &[&str]| {
        let body = json!({
            "model": handle, "system": "You answer briefly.", "include_base_tools": false, "tools": tools,
            "model_settings": {"provider_type": "openai", "temperature": 0, "max_output_tokens": 64},
        });
        client.post("/v1/agents/", &body).await.ok()["id"].as_str().expect("an id").to_owned()
    };
    for mode in Mode::ALL {
        let play = async |agent: &str, text: &str| {
            let body = json!({"input": text, "background": true, "stream_tokens": mode == Mode::Tokens});
            let whole = client.send(agent, &body).await.read_to_end().await;
            assert_related(&whole, mode);
            let run = whole[0].run_id().expect("a run");
            assert_same_bytes(&client.resume(&run, 0).await.read_to_end().await, &whole);
            assert!(["end_turn", "max_tokens_exceeded"].contains(&stop_reason(&whole).as_str()), "{whole:#?}");
            assert!(!assistant_text(&whole).trim().is_empty(), "it said nothing: {whole:#?}");
            whole
        };
        let whole = play(&agent(&[]).await, "Say hello.").await;
        let deltas = whole.iter().filter(|frame| frame.kind() == "assistant_message").count();
        assert_eq!(deltas > 1, mode == Mode::Tokens, "{whole:#?}");

        let agent = agent(&["add"]).await;
        let whole = play(&agent, "Call add with a=12 and b=30").await;
        let slices = slices(&whole);
        let call = slices.iter().flat_map(|slice| &slice.calls).next().expect("a call");
        let arguments: Value = serde_json::from_str(&call.arguments).expect("JSON");
        let number =
            |name: &str| arguments[name].as_i64().unwrap_or_else(|| panic!("{name} is no integer: {arguments}"));
        let result = slices.iter().flat_map(|slice| &slice.returns).next().expect("a result");
        let sum = (number("a") + number("b")).to_string();
        assert_eq!((call.name.as_str(), &result["tool_call_id"]), ("add", &json!(call.id)));
        assert_eq!((&result["status"], &result["tool_return"]), (&json!("success"), &json!(sum)));
        let kinds: Vec<_> = slices.iter().map(|slice| slice.kind.as_str()).collect();
        let place = |kind: &str| kinds.iter().rposition(|shown| *shown == kind);
        assert!(place("assistant_message") > place("tool_return_message"), "no answer after the result: {kinds:?}");
        let usage = whole.iter().map(Frame::json).find(|json| json["message_type"] == "usage_statistics");
        let usage = usage.expect("usage");
        assert!(usage["step_count"].as_u64() >= Some(2) && usage["completion_tokens"].as_u64() > Some(0), "{usage}");
        eprintln!("{mode:?}: {} {} -> {sum}; {:?}", call.name, call.arguments, assistant_text(&whole));
    }
}

#[tokio::test]
async fn a_real_model_answers_through_the_whole_path() {
    let Some(settings) = real_model() else { return };
    let data = directory();
    let dev = Dev::start_with(data.path(), settings).await;
    a_real_model_answers_and_calls(&dev.client).await;
}

#[tokio::test]
async fn a_real_model_answers_through_a_cluster() {
    let Some(settings) = real_model() else { return };
    let cluster = Cluster::start_with(2, 1, settings).await;
    a_real_model_answers_and_calls(&cluster.client(0)).await;
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    let data = directory();
    let keys = settings([("HOLDFAST_API_KEYS", "north=key-of-the-north,south=key-of-the-south")]);
    let dev = Dev::start_with(data.path(), keys).await;
    let (north, south) = (dev.client.with_key("key-of-the-north"), dev.client.with_key("key-of-the-south"));
    assert_eq!(dev.client.get("/v1/agents/").await.refused(401), "Unauthorized");
    assert_eq!(dev.client.with_key("key-of-the-west").get("/v1/agents/").await.refused(401), "Unauthorized");
    dev.client.get("/v1/health/").await.ok();
    let agent = north.create_agent().await;
    let whole = north.send(&agent, &background("hello")).await.read_to_end().await;
    let run = whole[0].run_id().expect("a run");
    assert_eq!(south.get("/v1/agents/").await.ok(), json!([]));
    assert_eq!(south.get("/v1/runs/").await.ok(), json!([]));
    // The answer for a foreign thing is the answer for a thing that does not exist, but for the id in it.
    let absent = "00000000-0000-4000-8000-000000000000";
    let (no_agent, no_run) = (format!("agent-{absent}"), format!("run-{absent}"));
    for path in [
        "/v1/agents/AGENT",
        "/v1/agents/AGENT/messages",
        "/v1/runs/RUN",
        "/v1/runs/RUN/messages",
        "/v1/runs/RUN/steps",
        "/v1/runs/RUN/usage",
        "/v1/runs/RUN/stream",
    ] {
        let foreign = south.get(&path.replace("AGENT", &agent).replace("RUN", &run)).await.refused(404);
        let missing = south.get(&path.replace("AGENT", &no_agent).replace("RUN", &no_run)).await.refused(404);
        assert_eq!(foreign.replace(&agent, &no_agent).replace(&run, &no_run), missing, "{path}");
    }
    south.post(&format!("/v1/runs/{run}/stream"), &json!({})).await.refused(404);
    for path in ["messages", "messages/stream", "messages/async", "messages/cancel"] {
        south.post(&format!("/v1/agents/{agent}/{path}"), &json!({"input": "hello"})).await.refused(404);
    }
    south.patch(&format!("/v1/agents/{agent}"), &json!({"name": "mine"})).await.refused(404);
    south.delete(&format!("/v1/agents/{agent}")).await.refused(404);
    let own = south.create_agent().await;
    let answer = south.post(&format!("/v1/agents/{own}/messages/cancel"), &json!({"run_ids": [run]})).await.ok();
    assert_eq!(answer[&run], "failed");
    assert_same_bytes(&north.resume(&run, 0).await.read_to_end().await, &whole);
}
