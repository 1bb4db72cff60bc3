//! Runs in which the model calls tools that run here.

use serde_json::{Value, json};

use super::{Kind, Played, Row, Stage, rows};
use crate::scripted_model::script::{Answer, End};

pub(super) const ROWS: &[Row] = rows![&Kind::ALL;
    a_call_and_its_result,
    calls_of_one_answer,
    a_failing_tool,
    an_unknown_tool,
    arguments_that_are_no_json,
    a_step_limit,
    an_edit_is_seen_by_the_next_run,
    a_call_at_the_output_limit,
];

fn remember(what: &str) -> Value {
    json!({"label": "human", "new_string": what})
}

fn results(played: &Played) -> Vec<&str> {
    played.returns().iter().map(|one| one["status"].as_str().unwrap_or_default()).collect()
}

async fn a_call_and_its_result(stage: Stage) {
    let call = Answer::new().reasons(&["Worth ", "keeping."], Some("cHJvb2Y=")).says(&["Noted", "."]);
    let script = stage.script([call.calls("memory_insert", &remember("She likes fjords.")), Answer::text("Done.")]);
    let agent = stage.agent(&script, json!({})).await;
    let played = stage.say(&agent, "I like fjords.").await;
    played.is("P R A C T A S:end_turn U");
    let call = &played.of("tool_call_message")[0].calls[0];
    assert_eq!(call.name, "memory_insert");
    let arguments: Value = serde_json::from_str(&call.arguments).expect("deltas join to JSON");
    assert_eq!(arguments, remember("She likes fjords."));
    assert_eq!(results(&played), ["success"]);
    let asked = script.call(2).await.asked;
    let result: Value = serde_json::from_str(&asked.last_results()[0].text).expect("JSON");
    assert_eq!(result["status"], "OK");
    assert!(result["message"].as_str().is_some_and(|text| text.contains("fjords")), "{result}");
    let earlier = asked.last_answer();
    assert_eq!((earlier.text.as_str(), &earlier.calls[0].arguments), ("Noted.", &remember("She likes fjords.")));
    // The proof goes back to who gave it.
    let proofs = earlier.reasoning.iter().filter_map(|(_text, proof)| proof.as_deref());
    let proofs = proofs.chain(earlier.calls.iter().filter_map(|call| call.signature.as_deref()));
    let proofs: Vec<_> = proofs.chain(earlier.redacted.iter().map(String::as_str)).collect();
    assert_eq!(proofs, if stage.kind == Kind::Chat { &[][..] } else { &["cHJvb2Y="] });
    let usage = played.frame("usage_statistics");
    assert_eq!((&usage["step_count"], &usage["total_tokens"]), (&json!(2), &json!(270)));
    let steps = stage.client.get(&format!("/v1/runs/{}/steps", played.id())).await.ok();
    assert_eq!(steps.as_array().map(Vec::len), Some(2));
    script.assert_used_up();
}

async fn calls_of_one_answer(stage: Stage) {
    let both = Answer::new()
        .calls("memory_insert", &remember("She likes fjords."))
        .calls("memory_insert", &remember("She likes lakes."));
    let script = stage.script([both, Answer::text("Done.")]);
    let parallel = json!({"model_settings": {"parallel_tool_calls": true}});
    let agent = stage.agent(&script, parallel).await;
    let played = stage.say(&agent, "I like water.").await;
    played.is("P C T A S:end_turn U");
    assert_eq!(played.of("tool_call_message")[0].calls.len(), 2);
    assert_eq!(results(&played), ["success", "success"]);
    let texts: Vec<_> = script.call(2).await.asked.last_results().iter().map(|result| result.text.clone()).collect();
    assert!(!texts[0].contains("lakes") && texts[1].contains("lakes"), "not in the order of the calls: {texts:?}");
    let asked = script.call(1).await.asked;
    assert_ne!(asked.parallel, Some(false), "several calls are asked for");
}

async fn a_failing_tool(stage: Stage) {
    let wrong = json!({"label": "human", "old_string": "no such text", "new_string": "x"});
    let script = stage.script([Answer::call("memory_replace", &wrong), Answer::text("I could not.")]);
    let agent = stage.agent(&script, json!({})).await;
    let played = stage.say(&agent, "Replace it.").await;
    played.is("P C T! A S:end_turn U");
    let text = played.returns()[0]["tool_return"].as_str().expect("text").to_owned();
    assert!(text.starts_with("Error executing function memory_replace: "), "{text}");
    let result: Value = serde_json::from_str(&script.call(2).await.asked.last_results()[0].text).expect("JSON");
    assert_eq!((&result["status"], &result["message"]), (&json!("Failed"), &json!(text)));
}

async fn an_unknown_tool(stage: Stage) {
    let script = stage.script([Answer::call("no_such_tool", &json!({})), Answer::text("I cannot.")]);
    let agent = stage.agent(&script, json!({})).await;
    let played = stage.say(&agent, "Call it.").await;
    played.is("P C T! A S:end_turn U");
    let text = played.returns()[0]["tool_return"].as_str().expect("text");
    let start = "[ToolConstraintError] Cannot call no_such_tool, valid tools include: [";
    assert!(text.starts_with(start) && text.contains("memory_insert"), "{text}");
}

/// Gemini's calls come as JSON, so that it cannot have this.
async fn arguments_that_are_no_json(stage: Stage) {
    if stage.kind == Kind::Gemini {
        return;
    }
    let broken = Answer::new().calls_raw("memory_insert", r#"{"label": "human", "new_string": "half a"#);
    let script = stage.script([broken, Answer::text("Sorry.")]);
    let agent = stage.agent(&script, json!({})).await;
    let played = stage.say(&agent, "Remember.").await;
    played.is("P C T! A S:end_turn U");
    assert!(played.of("tool_call_message")[0].calls[0].arguments.ends_with("half a"), "the call is shown as it was");
    let text = played.returns()[0]["tool_return"].as_str().expect("text");
    assert!(text.contains("not valid JSON"), "{text}");
    let state = stage.client.get(&format!("/v1/agents/{agent}")).await.ok();
    assert_eq!(state["blocks"][0]["value"], "The human's name is Ada.", "the tool did not run");
}

async fn a_step_limit(stage: Stage) {
    let call = |what: &str| Answer::call("memory_insert", &remember(what));
    let script = stage.script([call("One."), call("Two.")]);
    let agent = stage.agent(&script, json!({})).await;
    let played = stage.send(&agent, json!({"input": "Count.", "max_steps": 2})).await;
    played.is("P C T C T S:max_steps U");
    script.assert_used_up();
}

async fn an_edit_is_seen_by_the_next_run(stage: Stage) {
    let insert = Answer::call("memory_insert", &remember("She likes fjords."));
    let script = stage.script([insert, Answer::text("Done."), Answer::text("Fjords.")]);
    let agent = stage.agent(&script, json!({})).await;
    stage.say(&agent, "I like fjords.").await;
    stage.say(&agent, "What do I like?").await;
    let systems = [script.call(1).await.asked.system, script.call(2).await.asked.system];
    assert_eq!(systems[0], systems[1], "inside of a run the system message stays, for the provider's cache");
    assert!(script.call(3).await.asked.system.contains("She likes fjords."));
}

async fn a_call_at_the_output_limit(stage: Stage) {
    if stage.kind == Kind::Gemini {
        return;
    }
    let cut = Answer::new().calls_raw("memory_insert", r#"{"label": "hum"#).ends(End::Cut);
    let script = stage.script([cut, Answer::text("Again, shorter.")]);
    let agent = stage.agent(&script, json!({})).await;
    stage.say(&agent, "Remember a lot.").await.is("P C T! A S:end_turn U");
}
