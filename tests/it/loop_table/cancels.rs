//! Runs that are cancelled; the call of the model ends with them (G7).

use serde_json::json;

use super::{Kind, Row, Stage, rows};
use crate::gate::Gate;
use crate::notation::Mode;
use crate::scripted_model::script::{Answer, Failure};

pub(super) const ROWS: &[Row] = rows![&Kind::ALL;
    a_cancel_in_mid_stream,
    a_cancel_before_the_answer,
    a_cancel_while_the_next_try_waits,
    a_cancel_of_a_waiting_run,
];

async fn a_cancel_in_mid_stream(stage: Stage) {
    let gate = Gate::shut();
    let script =
        stage.script([Answer::new().says(&["One ", "two"]).waits(&gate).says(&[" three"]), Answer::text("Yes?")]);
    let agent = stage.agent(&script, json!({})).await;
    let mut stream = stage.open(&agent, json!({"input": "Count."})).await;
    let run = stream.run_id().await;
    gate.arrived(1).await;
    if stage.mode == Mode::Tokens {
        stream.at_least(3).await;
    }
    assert_eq!(stage.cancel(&agent).await, json!({run: "cancelled"}));
    script.was_left(1).await;
    let played = stage.finish(&stage.client, stream).await;
    played.is_either("P S:cancelled U", "P A S:cancelled U");
    let kept = stage.history(&agent).await.into_iter().find(|message| message["message_type"] == "assistant_message");
    let kept = kept.map(|message| message["content"].clone());
    assert_eq!(kept, (stage.mode == Mode::Tokens).then(|| json!("One two")), "what was shown is kept");
    stage.say(&agent, "Hello?").await.is("P A S:end_turn U");
}

async fn a_cancel_before_the_answer(stage: Stage) {
    let script = stage.script([Answer::text("Never.").held(&Gate::shut())]);
    let agent = stage.agent(&script, json!({})).await;
    let stream = stage.open(&agent, json!({"input": "Hi!"})).await;
    script.call(1).await;
    stage.cancel(&agent).await;
    script.was_left(1).await;
    stage.finish(&stage.client, stream).await.is("P S:cancelled U");
}

async fn a_cancel_while_the_next_try_waits(stage: Stage) {
    let script = stage.script([Answer::refused(Failure::RateLimit(Some(25)))]);
    let agent = stage.agent(&script, json!({})).await;
    let stream = stage.open(&agent, json!({"input": "Hi!"})).await;
    let asked = script.call(1).await;
    stage.cancel(&agent).await;
    stage.finish(&stage.client, stream).await.is("P S:cancelled U");
    assert!(asked.at.elapsed().as_secs() < 25, "the cancel waited for the next try");
}

async fn a_cancel_of_a_waiting_run(stage: Stage) {
    let gate = Gate::shut();
    let script = stage.script([Answer::text("One.").held(&gate)]);
    let agent = stage.agent(&script, json!({})).await;
    let first = stage.open(&agent, json!({"input": "First."})).await;
    script.call(1).await;
    let mut second = stage.open(&agent, json!({"input": "Second."})).await;
    let waiting = second.run_id().await;
    let cancel = format!("/v1/agents/{agent}/messages/cancel");
    let answer = stage.client.post(&cancel, &json!({"run_ids": [waiting]})).await.ok();
    assert_eq!(answer, json!({waiting: "cancelled"}));
    stage.finish(&stage.client, second).await.is("P S:cancelled U");
    gate.open();
    stage.finish(&stage.client, first).await.is("P A S:end_turn U");
    script.assert_used_up();
}
