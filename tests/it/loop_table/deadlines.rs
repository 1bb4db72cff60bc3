//! Calls that nobody answers in time: the server does it (api/05 §6).

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{echo, equipment, text_of};
use crate::client::{Client, stored};
use crate::counting_tools::ToolServer;
use crate::harness::{DEADLINE, Dev, directory, settings};
use crate::notation::{Mode, assert_notation, assert_related, slices};
use crate::scripted_model::script::Answer;
use crate::scripted_model::{Kind, ScriptedModel};

/// Waits until the agent has so many runs; answers the newest.
async fn run_of(client: &Client, agent: &str, count: usize) -> String {
    let until = Instant::now() + DEADLINE;
    loop {
        let runs = client.get(&format!("/v1/runs/?agent_id={agent}")).await.ok();
        if runs.as_array().is_some_and(|runs| runs.len() == count) {
            return text_of(&runs[0]["id"]);
        }
        assert!(Instant::now() < until, "nobody answered: {runs}");
        sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Plays a call that nobody answers, in both modes, and answers the texts of its results.
async fn play(default: &str, expected: &str) -> Vec<String> {
    let (model, tools) = (ScriptedModel::start().await, ToolServer::start().await);
    let data = directory();
    let mut own = settings([
        ("HOLDFAST_APPROVAL_TIMEOUT_MS", "50"),
        ("HOLDFAST_APPROVAL_DEFAULT", default),
        ("HOLDFAST_OUTBOUND_ALLOW", "127.0.0.1"),
    ]);
    own.extend(Kind::Chat.settings(&model));
    let dev = Dev::start_with(data.path(), own).await;
    let client = &dev.client;
    let mut texts = Vec::new();
    for mode in Mode::ALL {
        let counting = tools.tool(&format!("look_{mode:?}"), echo());
        let body = counting.definition(&json!({"type": "object", "properties": {}}), &json!({}));
        let tool = client.post("/v1/tools/", &body).await.ok();
        let tool = super::Tool { id: text_of(&tool["id"]), name: text_of(&tool["name"]), counting };
        let script = model.script(Kind::Chat, [tool.call("north"), Answer::text("Well.")]);
        let mut body = equipment(&[&tool], &[tool.gate()]);
        super::merge(&mut body, json!({"name": "patient", "model": script.handle}));
        let agent = text_of(&client.post("/v1/agents/", &body).await.ok()["id"]);
        let body = json!({"input": "Look.", "background": true, "stream_tokens": mode == Mode::Tokens});
        let asked = stored(&client.send(&agent, &body).await.read_to_end().await);
        assert_notation(&asked, "P Q S:requires_approval U");
        let run = run_of(client, &agent, 2).await;
        let answered = stored(&client.resume(&run, 0).await.read_to_end().await);
        assert_related(&answered, mode);
        assert_notation(&answered, expected);
        assert_eq!(tool.seen().len(), usize::from(default == "approve"));
        let returns = slices(&answered).into_iter().flat_map(|slice| slice.returns);
        texts.extend(returns.map(|one| text_of(&one["tool_return"])));
        let state = client.get(&format!("/v1/agents/{agent}")).await.ok();
        assert!(state["pending_approval"].is_null(), "{state}");
        script.assert_used_up();
    }
    texts
}

#[tokio::test]
async fn calls_that_nobody_answers_are_denied() {
    let denied = "Error: request to call tool denied. User reason: nobody answered in time";
    assert_eq!(play("deny", "P T! A S:end_turn U").await, [denied; 2]);
}

#[tokio::test]
async fn calls_that_nobody_answers_are_approved_if_the_settings_say_so() {
    assert_eq!(play("approve", "P T A S:end_turn U").await, ["saw north"; 2]);
}
