//! Reasoning that is shown, signed or hidden, and images: what goes to which provider and what comes back from it.

use serde_json::{Value, json};

use super::{Kind, Row, Stage, echo, equipment, merge, returned, rows};
use crate::scripted_model::asked::Turn;
use crate::scripted_model::script::Answer;

pub(super) const ROWS: &[Row] = rows![&Kind::ALL;
    hidden_reasoning_goes_back_to_who_hid_it,
    reasoning_before_each_call_of_a_loop,
    reasoning_stays_with_its_provider,
    reasoning_that_is_switched_off,
    images_of_all_forms_reach_the_model,
    an_image_in_a_result,
];

async fn hidden_reasoning_goes_back_to_who_hid_it(stage: Stage) {
    let look = stage.tool("look", echo(), json!({})).await;
    let hidden = Answer::new().hides("b3BhcXVl").says(&["Let me ", "look."]).and(&look, "north");
    let script = stage.script([hidden, Answer::text("A fjord.")]);
    let agent = stage.equipped(&script, &[&look], &[]).await;
    let played = stage.say(&agent, "Look.").await;
    let earlier = script.call(2).await.asked.last_answer().clone();
    match stage.kind {
        // These have no such thing, or do not tell.
        Kind::Chat | Kind::Gemini => {
            played.is("P A C T A S:end_turn U");
        }
        Kind::Responses => {
            played.is("P H A C T A S:end_turn U");
            assert_eq!(played.frame("hidden_reasoning_message")["state"], "omitted");
            assert_eq!(earlier.redacted, ["b3BhcXVl"]);
        }
        Kind::Anthropic => {
            played.is("P H A C T A S:end_turn U");
            let frame = played.frame("hidden_reasoning_message");
            assert_eq!((&frame["state"], &frame["hidden_reasoning"]), (&json!("redacted"), &json!("b3BhcXVl")));
            assert_eq!(earlier.redacted, ["b3BhcXVl"]);
        }
    }
}

/// Each piece goes back with its own proof, in its own place.
async fn reasoning_before_each_call_of_a_loop(stage: Stage) {
    let look = stage.tool("look", echo(), json!({})).await;
    let reasons = |what: &str, proof: &str| Answer::new().reasons(&[what], Some(proof)).and(&look, what);
    let script = stage.script([reasons("north", "b25l"), reasons("south", "dHdv"), Answer::text("Nothing.")]);
    let agent = stage.equipped(&script, &[&look], &[]).await;
    let played = stage.say(&agent, "Look.").await;
    played.is("P R C T R C T A S:end_turn U");
    let proofs = |turn: &Turn| -> Vec<(String, String)> {
        let Turn::Assistant(earlier) = turn else { return Vec::new() };
        let reasoning = earlier.reasoning.iter().filter_map(|(text, proof)| Some((text.clone(), proof.clone()?)));
        let calls = earlier.calls.iter().filter_map(|call| Some((String::new(), call.signature.clone()?)));
        let redacted = earlier.redacted.iter().map(|proof| (String::new(), proof.clone()));
        reasoning.chain(calls).chain(redacted).collect()
    };
    let told: Vec<_> = script.call(3).await.asked.turns.iter().flat_map(proofs).collect();
    let expected =
        |texts: [&str; 2]| vec![(texts[0].to_owned(), "b25l".to_owned()), (texts[1].to_owned(), "dHdv".to_owned())];
    match stage.kind {
        Kind::Chat => assert_eq!(told, [], "there is no place for proofs"),
        Kind::Anthropic => assert_eq!(told, expected(["north", "south"])),
        // The proof is all that counts there.
        Kind::Responses | Kind::Gemini => assert_eq!(told, expected(["", ""])),
    }
}

/// Another provider cannot check a proof, and would refuse it.
async fn reasoning_stays_with_its_provider(stage: Stage) {
    let other = if stage.kind == Kind::Anthropic { Kind::Gemini } else { Kind::Anthropic };
    let elsewhere = stage.model.script(other, [Answer::text("Elsewhere.")]);
    let hidden = Answer::new().reasons(&["Hm."], Some("cHJvb2Y=")).hides("b3BhcXVl").says(&["Here."]);
    let script = stage.script([hidden, Answer::text("Back.")]);
    let agent = stage.agent(&script, json!({})).await;
    stage.say(&agent, "Where?").await;
    let played = stage.send(&agent, json!({"input": "Where?", "override_model": elsewhere.handle})).await;
    played.is("P A S:end_turn U");
    let earlier = elsewhere.call(1).await.asked.last_answer().clone();
    assert_eq!((earlier.text.as_str(), &earlier.reasoning[..], &earlier.redacted[..]), ("Here.", &[][..], &[][..]));
    stage.say(&agent, "Where?").await.is("P A S:end_turn U");
    let turns = script.call(2).await.asked.turns;
    let texts = turns.iter().filter_map(|turn| match turn {
        Turn::Assistant(earlier) => Some(earlier.text.as_str()),
        _ => None,
    });
    assert_eq!(texts.collect::<Vec<_>>(), ["Here.", "Elsewhere."]);
}

async fn reasoning_that_is_switched_off(stage: Stage) {
    let reasons = Answer::new().reasons(&["Hm."], Some("cHJvb2Y=")).says(&["Here."]);
    let script = stage.script([reasons, Answer::text("Again.")]);
    let agent = stage.agent(&script, json!({})).await;
    stage.say(&agent, "Where?").await.is("P R A S:end_turn U");
    let off = json!({"model_settings": {"reasoning": {"type": "disabled"}}});
    stage.client.patch(&format!("/v1/agents/{agent}"), &off).await.ok();
    stage.say(&agent, "Where?").await.is("P A S:end_turn U");
    let earlier = script.call(2).await.asked.last_answer().clone();
    assert_eq!((&earlier.reasoning[..], &earlier.redacted[..]), (&[][..], &[][..]), "reasoning is not sent back");
}

async fn images_of_all_forms_reach_the_model(stage: Stage) {
    let script = stage.script([Answer::text("Dots.")]);
    let agent = stage.agent(&script, json!({})).await;
    let sources = [
        json!({"type": "base64", "media_type": "image/jpeg", "data": "/9j/4AAQ"}),
        json!({"type": "url", "url": "data:image/png;base64,iVBORw0KGgpyZXN0"}),
        json!({"type": "letta", "file_id": "file-1", "media_type": "image/png", "data": "iVBORw0KGgo="}),
    ];
    let mut content = vec![json!({"type": "text", "text": "What are these?"})];
    content.extend(sources.map(|source| json!({"type": "image", "source": source})));
    stage.send(&agent, json!({"input": content})).await.is("P A S:end_turn U");
    let expected = [
        "data:image/jpeg;base64,/9j/4AAQ",
        "data:image/png;base64,iVBORw0KGgpyZXN0",
        "data:image/png;base64,iVBORw0KGgo=",
    ];
    let expected = expected.map(str::to_owned).to_vec();
    let turns = script.call(1).await.asked.turns;
    assert_eq!(turns, [Turn::User { text: "What are these?".to_owned(), images: expected }]);
}

async fn an_image_in_a_result(stage: Stage) {
    let look = stage.tool("look", echo(), json!({})).await;
    let script = stage.script([look.call("north"), Answer::text("A fjord.")]);
    let agent = stage.agent(&script, equipment(&[&look], &[look.gate()])).await;
    let asked = stage.say(&agent, "Look.").await;
    let image =
        json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}});
    let mut result = returned(&asked.waiting()[0], "success", "");
    merge(&mut result, json!({"tool_return": [{"type": "text", "text": "A shot:"}, image]}));
    let answered = stage.answer(&agent, json!([result])).await;
    answered.is("P T A S:end_turn U");
    let shown: &Value = answered.returns()[0];
    assert_eq!(shown["tool_return"][1]["source"]["data"], "iVBORw0KGgo=");
    assert_eq!(answered.frame("tool_return_message")["tool_return"], "A shot:\n[image]");
    let asked = script.call(2).await.asked;
    let image = "data:image/png;base64,iVBORw0KGgo=".to_owned();
    match stage.kind {
        // Only OpenAI itself is known to take images there, so that other servers get a word.
        Kind::Chat | Kind::Responses => assert!(asked.last_results()[0].text.contains("[image]")),
        Kind::Anthropic | Kind::Gemini => assert_eq!(asked.last_results()[0].images, [image]),
    }
}
