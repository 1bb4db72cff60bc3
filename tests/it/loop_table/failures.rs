//! Runs whose model fails: for a while, for good, or in the middle of its answer.

use std::time::Duration;

use serde_json::json;

use super::{Kind, Played, Row, Stage, rows};
use crate::notation::Mode;
use crate::scripted_model::asked::Turn;
use crate::scripted_model::script::{Answer, End, Failure};

pub(super) const ROWS: &[Row] = rows![&Kind::ALL;
    a_rate_limit_is_waited_for,
    tries_are_told_with_their_step,
    a_rate_limit_that_lasts,
    a_wait_that_is_too_long,
    an_overload_passes,
    a_connection_that_is_closed_at_once,
    a_refused_key,
    a_refused_request,
    input_stays_after_failures_that_pass,
    an_error_in_mid_stream,
    a_connection_that_breaks_in_mid_stream,
    an_answer_that_ends_early,
    a_failure_after_a_tool,
    silence_before_the_answer,
    silence_in_mid_stream,
];

/// The error that a run ended with.
fn error_type(played: &Played) -> String {
    let error = played.frame("error_message");
    assert_eq!(played.run["metadata"]["error"]["error_type"], error["error_type"], "{}", played.run);
    error["error_type"].as_str().unwrap_or_default().to_owned()
}

async fn a_rate_limit_is_waited_for(stage: Stage) {
    let script = stage.script([Answer::refused(Failure::RateLimit(Some(1))), Answer::text("Here.")]);
    let agent = stage.agent(&script, json!({})).await;
    stage.say(&agent, "Hi!").await.is("P A S:end_turn U");
    let (first, second) = (script.call(1).await, script.call(2).await);
    assert!(second.at - first.at >= Duration::from_secs(1), "it came back after {:?}", second.at - first.at);
    assert_eq!(first.request.body, second.request.body, "the same call once more");
}

/// Tries that failed are told with the step that they delayed.
async fn tries_are_told_with_their_step(stage: Stage) {
    let answers =
        [Answer::refused(Failure::RateLimit(Some(1))), Answer::refused(Failure::Overload), Answer::text("Here.")];
    let script = stage.script(answers);
    let agent = stage.agent(&script, json!({})).await;
    let played = stage.say(&agent, "Hi!").await;
    played.is("P A S:end_turn U");
    let steps = stage.steps(&played).await;
    assert_eq!(steps.len(), 1);
    let [limit, overload] = steps[0]["retries"].as_array().expect("a list").as_slice() else { panic!("{steps:?}") };
    assert_eq!(
        (&limit["error_type"], &limit["status"], &limit["waited_ms"]),
        (&json!("llm_rate_limit"), &json!(429), &json!(1000))
    );
    let status = if stage.kind == Kind::Anthropic { 529 } else { 503 };
    assert_eq!((&overload["error_type"], &overload["status"]), (&json!("llm_error"), &json!(status)));
    assert!(overload["waited_ms"].as_u64().is_some_and(|waited| waited > 0) && overload["message"].is_string());
    let untroubled = stage.script([Answer::text("Here.")]);
    let agent = stage.agent(&untroubled, json!({})).await;
    let played = stage.say(&agent, "Hi!").await;
    assert_eq!(stage.steps(&played).await[0]["retries"], json!([]));
}

async fn a_rate_limit_that_lasts(stage: Stage) {
    let script = stage.script(std::iter::repeat_n(Answer::refused(Failure::RateLimit(None)), 3));
    let agent = stage.agent(&script, json!({})).await;
    let played = stage.say(&agent, "Hi!").await;
    played.is("P S:llm_api_error U E:llm_rate_limit");
    assert_eq!(error_type(&played), "llm_rate_limit");
    script.assert_used_up();
}

async fn a_wait_that_is_too_long(stage: Stage) {
    let script = stage.script([Answer::refused(Failure::RateLimit(Some(3600)))]);
    let agent = stage.agent(&script, json!({})).await;
    stage.say(&agent, "Hi!").await.is("P S:llm_api_error U E:llm_rate_limit");
}

async fn an_overload_passes(stage: Stage) {
    let script =
        stage.script([Answer::refused(Failure::Overload), Answer::refused(Failure::Internal), Answer::text("Here.")]);
    let agent = stage.agent(&script, json!({})).await;
    let played = stage.say(&agent, "Hi!").await;
    played.is("P A S:end_turn U");
    assert_eq!(played.frame("usage_statistics")["step_count"], 1);
    script.assert_used_up();
}

async fn a_connection_that_is_closed_at_once(stage: Stage) {
    let script = stage.script([Answer::hang_up(), Answer::text("Here.")]);
    let agent = stage.agent(&script, json!({})).await;
    stage.say(&agent, "Hi!").await.is("P A S:end_turn U");
}

async fn a_refused_key(stage: Stage) {
    let script = stage.script([Answer::refused(Failure::Unauthorized)]);
    let agent = stage.agent(&script, json!({})).await;
    let played = stage.say(&agent, "Hi!").await;
    played.is("P S:llm_api_error U E:llm_authentication");
    assert!(!played.frames.iter().any(|frame| frame.raw.contains(crate::scripted_model::KEY)), "the key is shown");
}

async fn a_refused_request(stage: Stage) {
    let refusal = Failure::Invalid("This model does not dance.".to_owned());
    let script = stage.script([Answer::refused(refusal), Answer::text("Here.")]);
    let agent = stage.agent(&script, json!({})).await;
    let played = stage.say(&agent, "Dance!").await;
    played.is("P S:llm_api_error U E:llm_error");
    let error = played.frame("error_message");
    assert!(error["message"].as_str().is_some_and(|text| text.contains("does not dance")), "{error}");
    stage.say(&agent, "Hello!").await.is("P A S:end_turn U");
    // Its input would be refused again and again: it is kept, but the model does not see it any more.
    let seen = [Turn::User { text: "Hello!".to_owned(), images: Vec::new() }];
    assert_eq!(script.call(2).await.asked.turns, seen);
    assert!(stage.history(&agent).await.iter().any(|message| message["content"] == "Dance!"));
}

async fn input_stays_after_failures_that_pass(stage: Stage) {
    let script = stage.script([Answer::refused(Failure::Unauthorized), Answer::text("Here.")]);
    let agent = stage.agent(&script, json!({})).await;
    stage.say(&agent, "Hi!").await.is("P S:llm_api_error U E:llm_authentication");
    stage.say(&agent, "Hello!").await.is("P A S:end_turn U");
    let turns = script.call(2).await.asked.turns;
    let told = format!("{turns:?}");
    assert!(told.contains("Hi!") && told.contains("Hello!"), "{told}");
}

async fn an_error_in_mid_stream(stage: Stage) {
    let broken = Answer::new().says(&["Half a ", "sentence"]).ends(End::Error(Failure::Overload));
    fails_half_way(stage, broken).await;
}

async fn a_connection_that_breaks_in_mid_stream(stage: Stage) {
    fails_half_way(stage, Answer::new().says(&["Half a ", "sentence"]).ends(End::HangUp)).await;
}

async fn an_answer_that_ends_early(stage: Stage) {
    fails_half_way(stage, Answer::new().says(&["Half a ", "sentence"]).ends(End::CloseEarly)).await;
}

/// What was shown stays in the stream, nothing of it in the history, and the agent goes on.
async fn fails_half_way(stage: Stage, broken: Answer) {
    let script = stage.script([broken, Answer::text("Here.")]);
    let agent = stage.agent(&script, json!({})).await;
    let played = stage.say(&agent, "Hi!").await;
    played.is_either("P S:llm_api_error U E:llm_error", "P A S:llm_api_error U E:llm_error");
    assert!(!stage.history(&agent).await.iter().any(|message| message["message_type"] == "assistant_message"));
    stage.say(&agent, "Hello?").await.is("P A S:end_turn U");
    assert_eq!(script.calls().len(), 2, "a call that was shown in part is not made again");
}

async fn a_failure_after_a_tool(stage: Stage) {
    let call = Answer::call("memory_insert", &json!({"label": "human", "new_string": "She likes fjords."}));
    let script = stage.script([call, Answer::refused(Failure::Invalid("No.".to_owned()))]);
    let agent = stage.agent(&script, json!({})).await;
    let played = stage.say(&agent, "I like fjords.").await;
    played.is("P C T S:llm_api_error U E:llm_error");
    let steps = stage.client.get(&format!("/v1/runs/{}/steps", played.id())).await.ok();
    let statuses: Vec<_> = steps.as_array().into_iter().flatten().map(|step| step["status"].clone()).collect();
    assert!(statuses.contains(&json!("success")) && statuses.contains(&json!("failed")), "{steps}");
}

async fn silence_before_the_answer(stage: Stage) {
    let script = stage.script([Answer::text("Never.").held(&crate::gate::Gate::shut()), Answer::text("Here.")]);
    let agent = stage.agent_at(&stage.impatient, &script, json!({})).await;
    let stream = stage.open_at(&stage.impatient, &agent, json!({"input": "Hi!"})).await;
    stage.finish(&stage.impatient, stream).await.is("P A S:end_turn U");
    script.was_left(1).await;
}

async fn silence_in_mid_stream(stage: Stage) {
    let script = stage.script([Answer::new().says(&["Half a "]).stalls()]);
    let agent = stage.agent_at(&stage.impatient, &script, json!({})).await;
    let stream = stage.open_at(&stage.impatient, &agent, json!({"input": "Hi!"})).await;
    let played = stage.finish(&stage.impatient, stream).await;
    let shown = if stage.mode == Mode::Tokens { "A " } else { "" };
    played.is(&format!("P {shown}S:llm_api_error U E:llm_timeout"));
    script.was_left(1).await;
}
