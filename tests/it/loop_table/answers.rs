//! Runs in which the model only answers.

use serde_json::json;

use super::{Kind, Row, Stage, rows};
use crate::notation::Mode;
use crate::scripted_model::asked::Turn;
use crate::scripted_model::script::{Answer, End, Usage};

pub(super) const ROWS: &[Row] = rows![&Kind::ALL;
    a_plain_answer,
    a_second_request_knows_the_first,
    an_answer_at_the_output_limit,
    an_answer_without_anything,
    an_image_reaches_the_model,
    details_of_usage_are_told,
    characters_of_all_sizes_come_whole,
];

async fn a_plain_answer(stage: Stage) {
    let answer =
        Answer::new().reasons(&["A greeting; ", "answer briefly."], Some("cHJvb2Y=")).says(&["Hello", " Ada", "."]);
    let script = stage.script([answer]);
    let agent = stage.agent(&script, json!({"system": "You are terse."})).await;
    let played = stage.say(&agent, "Hi!").await;
    played.is("P R A S:end_turn U");
    assert_eq!(played.text("assistant_message"), "Hello Ada.");
    assert_eq!(played.text("reasoning_message"), "A greeting; answer briefly.");
    let frames = |kind: &str| played.frames.iter().filter(|frame| frame.kind() == kind).count();
    let counts = (frames("reasoning_message"), frames("assistant_message"));
    assert_eq!(counts, if stage.mode == Mode::Tokens { (2, 3) } else { (1, 1) }, "a frame for each delta, or one");
    let usage = played.frame("usage_statistics");
    assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(120), &json!(15)));
    assert_eq!(usage["step_count"], 1);
    let asked = script.call(1).await.asked;
    assert!(asked.system.starts_with("You are terse.") && asked.system.contains("name is Ada"), "{}", asked.system);
    assert_eq!(asked.turns, [Turn::User { text: "Hi!".to_owned(), images: Vec::new() }]);
    assert_eq!(asked.tool_names(), ["conversation_search", "memory_insert", "memory_replace"]);
    script.assert_used_up();
}

async fn a_second_request_knows_the_first(stage: Stage) {
    let script = stage.script([Answer::text("I am well."), Answer::text("As I said.")]);
    let agent = stage.agent(&script, json!({})).await;
    stage.say(&agent, "How are you?").await.is("P A S:end_turn U");
    stage.say(&agent, "How are you?").await.is("P A S:end_turn U");
    let turns = script.call(2).await.asked.turns;
    let [Turn::User { .. }, Turn::Assistant(earlier), Turn::User { text, .. }] = turns.as_slice() else {
        panic!("{turns:#?}")
    };
    assert_eq!((earlier.text.as_str(), text.as_str()), ("I am well.", "How are you?"));
    let kinds: Vec<_> = stage.history(&agent).await.iter().map(|message| message["message_type"].clone()).collect();
    let turn = ["user_message", "assistant_message"];
    assert_eq!(kinds, [&["system_message"][..], &turn, &turn].concat());
}

async fn an_answer_at_the_output_limit(stage: Stage) {
    let script = stage.script([Answer::new().says(&["Once upon ", "a"]).ends(End::Cut)]);
    let agent = stage.agent(&script, json!({})).await;
    let played = stage.say(&agent, "Tell me everything.").await;
    played.is("P A S:max_tokens_exceeded U");
    assert_eq!(played.text("assistant_message"), "Once upon a");
    assert!(stage.history(&agent).await.iter().any(|message| message["content"] == "Once upon a"), "the text is kept");
}

async fn an_answer_without_anything(stage: Stage) {
    let script = stage.script([Answer::new(), Answer::text("Here I am.")]);
    let agent = stage.agent(&script, json!({})).await;
    stage.say(&agent, "Anybody?").await.is("P S:end_turn U");
    stage.say(&agent, "Hello?").await.is("P A S:end_turn U");
    let answers = stage.history(&agent).await;
    let answers = answers.iter().filter(|message| message["message_type"] == "assistant_message").count();
    assert_eq!(answers, 1, "nothing is stored of nothing");
}

async fn an_image_reaches_the_model(stage: Stage) {
    let script = stage.script([Answer::text("A red dot.")]);
    let agent = stage.agent(&script, json!({})).await;
    let source = json!({"type": "base64", "media_type": "image/png", "data": "aW1hZ2U="});
    let content = json!([{"type": "text", "text": "What is this?"}, {"type": "image", "source": source}]);
    let body = json!({"messages": [{"role": "user", "content": content}]});
    stage.send(&agent, body).await.is("P A S:end_turn U");
    let image = "data:image/png;base64,aW1hZ2U=".to_owned();
    let turns = script.call(1).await.asked.turns;
    assert_eq!(turns, [Turn::User { text: "What is this?".to_owned(), images: vec![image] }]);
}

async fn details_of_usage_are_told(stage: Stage) {
    let usage = Usage { prompt: 900, completion: 80, cached: Some(512), cache_write: Some(64), reasoning: Some(48) };
    let script = stage.script([Answer::text("Counted.").costs(usage)]);
    let agent = stage.agent(&script, json!({})).await;
    let played = stage.say(&agent, "Count.").await;
    let told = played.frame("usage_statistics");
    assert_eq!((&told["prompt_tokens"], &told["completion_tokens"]), (&json!(900), &json!(80)));
    assert_eq!(told["cached_input_tokens"], 512);
    // What a provider has no word for is not told.
    assert_eq!(told["cache_write_tokens"], if stage.kind == Kind::Anthropic { json!(64) } else { json!(null) });
    assert_eq!(told["reasoning_tokens"], 48);
    let steps = stage.client.get(&format!("/v1/runs/{}/steps", played.id())).await.ok();
    assert_eq!((&steps[0]["prompt_tokens"], &steps[0]["cached_input_tokens"]), (&json!(900), &json!(512)));
}

async fn characters_of_all_sizes_come_whole(stage: Stage) {
    let text = ["Grüße – ", "日本 ", "🧑‍🚀 \u{301}", " \"quoted\" \\ \n\r\n\t data: [DONE]\n\n"];
    let script = stage.script([Answer::new().says(&text), Answer::text("Good.")]);
    let agent = stage.agent(&script, json!({})).await;
    let played = stage.say(&agent, "Ümläute? ☃ \u{7f}").await;
    assert_eq!(played.text("assistant_message"), text.concat());
    stage.say(&agent, "And?").await;
    let asked = script.call(2).await.asked;
    assert_eq!(asked.last_answer().text, text.concat());
    assert_eq!(asked.turns[0], Turn::User { text: "Ümläute? ☃ \u{7f}".to_owned(), images: Vec::new() });
}
