//! Contexts that outgrow the model's window (api/05 §7).

use serde_json::json;

use super::{Kind, Played, Row, Stage, echo, rows, text_of};
use crate::scripted_model::Script;
use crate::scripted_model::asked::{Choice, Turn};
use crate::scripted_model::script::{Answer, Failure, Usage};

pub(super) const ROWS: &[Row] = rows![&Kind::ALL;
    a_context_that_the_provider_finds_too_long,
    a_context_that_stays_too_long,
    a_context_that_is_nearly_full_at_the_end,
    a_context_that_is_nearly_full_between_steps,
    a_summary_that_fails,
    a_summary_that_fails_when_there_is_no_room,
    a_summary_by_the_agent_itself,
    a_system_message_that_is_too_long,
];

/// Tokens of the window where an agent's settings limit it.
const WINDOW: u64 = 10_000;

/// An answer after which the context is nearly full.
fn full(answer: Answer) -> Answer {
    answer.costs(Usage { prompt: 9_300, completion: 20, ..Usage::default() })
}

/// Earlier runs, so that there is something to take out.
async fn talk(stage: &Stage, agent: &str) {
    for word in ["One", "Two", "Three", "Four"] {
        stage.say(agent, word).await.is("P A S:end_turn U");
    }
}

fn talked() -> impl Iterator<Item = Answer> {
    ["First.", "Second.", "Third.", "Fourth."].into_iter().map(Answer::text)
}

async fn send(stage: &Stage, agent: &str, is_shown: bool) -> Played {
    stage.send(agent, json!({"input": "Five", "include_compaction_messages": is_shown})).await
}

/// Texts that the model was sent in its call of this number.
async fn sent(script: &Script, number: usize) -> Vec<String> {
    let turns = script.call(number).await.asked.turns;
    let text = |turn: &Turn| match turn {
        Turn::User { text, .. } => text.clone(),
        Turn::Assistant(earlier) => earlier.text.clone(),
        Turn::System(text) => text.clone(),
        Turn::Results(_) => "results".to_owned(),
    };
    turns.iter().map(text).collect()
}

async fn a_context_that_the_provider_finds_too_long(stage: Stage) {
    for is_shown in [true, false] {
        let too_long = Answer::refused(Failure::ContextOverflow);
        let script = stage.script(talked().chain([too_long, Answer::text("We counted."), Answer::text("Fifth.")]));
        let agent = stage.agent(&script, json!({})).await;
        talk(&stage, &agent).await;
        let played = send(&stage, &agent, is_shown).await;
        played.is(if is_shown { "P event summary A S:end_turn U" } else { "P A S:end_turn U" });
        if is_shown {
            let event = played.frame("event_message");
            assert_eq!(
                (&event["event_type"], &event["event_data"]["trigger"]),
                (&json!("compaction"), &json!("context_window_exceeded"))
            );
            let summary = played.frame("summary_message");
            assert_eq!(summary["summary"], "We counted.");
            assert_eq!(summary["compaction_stats"]["trigger"], "context_window_exceeded");
        }
        let asked = sent(&script, 6).await.concat();
        assert!(asked.contains("One") && asked.contains("First."), "what is summarised: {asked}");
        let after = sent(&script, 7).await;
        assert!(after[0].contains("We counted.") && !after.concat().contains("First."), "{after:?}");
        assert_eq!(after.last().map(String::as_str), Some("Five"));
        let usage = played.frame("usage_statistics");
        assert_eq!(
            (&usage["step_count"], &usage["prompt_tokens"]),
            (&json!(1), &json!(120)),
            "summaries are not counted"
        );
        let listed = stage.history(&agent).await;
        assert!(listed.iter().any(|message| message["content"] == "First."), "nothing is deleted");
        script.assert_used_up();
    }
}

/// Once is enough; and the input is not to blame, so it stays.
async fn a_context_that_stays_too_long(stage: Stage) {
    let too_long = || Answer::refused(Failure::ContextOverflow);
    let answers = talked().chain([too_long(), Answer::text("We counted."), too_long(), Answer::text("Sixth.")]);
    let script = stage.script(answers);
    let agent = stage.agent(&script, json!({})).await;
    talk(&stage, &agent).await;
    send(&stage, &agent, false).await.is("P S:llm_api_error U E:llm_error");
    stage.say(&agent, "Six").await.is("P A S:end_turn U");
    let after = sent(&script, 8).await;
    assert!(after.join("\n").contains("Five"), "{after:?}");
    script.assert_used_up();
}

async fn a_context_that_is_nearly_full_at_the_end(stage: Stage) {
    for is_shown in [true, false] {
        let answers =
            talked().chain([full(Answer::text("Fifth.")), Answer::text("We counted."), Answer::text("Sixth.")]);
        let script = stage.script(answers);
        let agent = stage.agent(&script, json!({"context_window_limit": WINDOW})).await;
        talk(&stage, &agent).await;
        let played = send(&stage, &agent, is_shown).await;
        played.is(if is_shown { "P A event summary S:end_turn U" } else { "P A S:end_turn U" });
        if is_shown {
            let stats = played.frame("summary_message")["compaction_stats"].clone();
            assert_eq!(
                (&stats["trigger"], &stats["context_window"]),
                (&json!("post_step_context_check"), &json!(WINDOW))
            );
            assert_eq!(stats["context_tokens_before"], 9_320);
            assert!(stats["messages_count_after"].as_u64() < stats["messages_count_before"].as_u64(), "{stats}");
        }
        let context = played.frame("usage_statistics")["context_tokens"].as_u64();
        assert!(context.is_some_and(|tokens| tokens < 9_320), "{context:?}");
        stage.say(&agent, "Six").await.is("P A S:end_turn U");
        let after = sent(&script, 7).await;
        assert!(after[0].contains("We counted.") && !after.concat().contains("First."), "{after:?}");
        script.assert_used_up();
    }
}

async fn a_context_that_is_nearly_full_between_steps(stage: Stage) {
    let look = stage.tool("look", echo(), json!({})).await;
    let answers = talked().chain([full(look.call("north")), Answer::text("We counted."), Answer::text("Fifth.")]);
    let script = stage.script(answers);
    let agent = stage.agent(&script, json!({"context_window_limit": WINDOW, "tool_ids": [look.id]})).await;
    talk(&stage, &agent).await;
    send(&stage, &agent, true).await.is("P C T event summary A S:end_turn U");
    let after = sent(&script, 7).await;
    assert!(after[0].contains("We counted."), "{after:?}");
    assert_eq!(look.seen(), ["north"]);
    script.assert_used_up();
}

/// A run does not stop for it: what cannot be summarised now stays for the next time. A summary that says nothing would
/// lose what it stands for.
async fn a_summary_that_fails(stage: Stage) {
    for failed in [Answer::refused(Failure::Invalid("No summaries today.".to_owned())), Answer::text(" \n")] {
        let script = stage.script(talked().chain([full(Answer::text("Fifth.")), failed, Answer::text("Sixth.")]));
        let agent = stage.agent(&script, json!({"context_window_limit": WINDOW})).await;
        talk(&stage, &agent).await;
        send(&stage, &agent, true).await.is("P A S:end_turn U");
        stage.say(&agent, "Six").await.is("P A S:end_turn U");
        let after = sent(&script, 7).await;
        assert_eq!((after.len(), after[0].as_str()), (11, "One"), "nothing was taken out");
        script.assert_used_up();
    }
}

/// It sees what it saw before, tools included, and must not call them; a context that was refused is shown as a text.
async fn a_summary_by_the_agent_itself(stage: Stage) {
    let look = stage.tool("look", echo(), json!({})).await;
    let too_long = Answer::refused(Failure::ContextOverflow);
    let answers = talked().chain([full(look.call("north")), Answer::text("We counted."), Answer::text("Fifth.")]);
    let script = stage.script(answers.chain([too_long, Answer::text("We looked."), Answer::text("Sixth.")]));
    let settings = json!({
        "context_window_limit": WINDOW, "tool_ids": [look.id], "compaction_settings": {"mode": "self_compact_all"},
    });
    let agent = stage.agent(&script, settings).await;
    talk(&stage, &agent).await;
    send(&stage, &agent, true).await.is("P C T event summary A S:end_turn U");
    let itself = script.call(6).await.asked;
    assert_eq!((itself.tools, itself.choice), (script.call(5).await.asked.tools, Choice::Never));
    assert_eq!(sent(&script, 6).await[0], "One");
    stage.say(&agent, "Six").await.is("P A S:end_turn U");
    assert!(script.call(9).await.asked.tools.is_empty());
    let shown = sent(&script, 9).await.concat();
    assert!(shown.contains("<conversation>") && shown.contains("Fifth."), "{shown}");
    script.assert_used_up();
}

/// Without room there is no next time: earlier messages leave the context without a summary.
async fn a_summary_that_fails_when_there_is_no_room(stage: Stage) {
    let too_long = Answer::refused(Failure::ContextOverflow);
    let refused = Answer::refused(Failure::Invalid("No summaries today.".to_owned()));
    let script = stage.script(talked().chain([too_long, refused, Answer::text("Fifth.")]));
    let agent = stage.agent(&script, json!({})).await;
    talk(&stage, &agent).await;
    let played = send(&stage, &agent, true).await;
    played.is("P event summary A S:end_turn U");
    let summary = text_of(&played.frame("summary_message")["summary"]);
    assert!(summary.contains("without a summary"), "{summary}");
    let after = sent(&script, 7).await;
    assert!(!after.concat().contains("First.") && after.last().is_some_and(|last| last == "Five"), "{after:?}");
    script.assert_used_up();
}

async fn a_system_message_that_is_too_long(stage: Stage) {
    let script = stage.script([Answer::refused(Failure::ContextOverflow)]);
    let system = "Be patient. ".repeat(5_000);
    let agent = stage.agent(&script, json!({"context_window_limit": WINDOW, "system": system})).await;
    let played = stage.say(&agent, "Hi!").await;
    let word = "context_window_overflow_in_system_prompt";
    played.is(&format!("P S:{word} U E:{word}"));
    assert!(text_of(&played.frame("error_message")["message"]).contains("shorten"));
}
