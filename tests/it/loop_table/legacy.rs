//! Agents of the legacy types (api/05 §9): every step is a call, the model speaks by one, and says whether it wants another
//! turn.

use serde_json::{Value, json};

use super::{Kind, Row, Stage, Tool, echo, rows, text_of};
use crate::scripted_model::Script;
use crate::scripted_model::asked::{Choice, Turn};
use crate::scripted_model::script::Answer;

pub(super) const ROWS: &[Row] = rows![&Kind::ALL;
    speech_by_a_call,
    a_call_that_wants_another_turn,
    a_call_that_wants_none,
    speech_that_is_shown_as_a_call,
    an_answer_without_a_call,
    a_failing_call_gets_another_turn,
    a_model_that_reasons_by_itself,
];

const TYPES: [&str; 2] = ["memgpt_agent", "memgpt_v2_agent"];

/// An agent whose model does not reason by itself.
async fn legacy(stage: &Stage, script: &Script, agent_type: &str, tools: &[&Tool]) -> String {
    let tools: Vec<_> = tools.iter().map(|tool| &tool.id).collect();
    stage.agent(script, json!({"agent_type": agent_type, "model_settings": {}, "tool_ids": tools})).await
}

fn speak(thinking: &str, message: &str) -> Answer {
    // Models write arguments in the order of the parameters.
    Answer::new()
        .calls_raw("send_message", &format!(r#"{{"thinking":{},"message":{}}}"#, json!(thinking), json!(message)))
}

fn look(tool: &Tool, heartbeat: bool) -> Answer {
    Answer::call(&tool.name, &json!({"thinking": "Better look.", "what": "north", "request_heartbeat": heartbeat}))
}

async fn speech_by_a_call(stage: Stage) {
    for agent_type in TYPES {
        let script = stage.script([speak("She greets me.", "Hello \"Ada\"!\n☃"), speak("Again?", "Hello again.")]);
        let agent = legacy(&stage, &script, agent_type, &[]).await;
        let played = stage.say(&agent, "Hi!").await;
        played.is("P R A S:end_turn U");
        assert_eq!(played.text("assistant_message"), "Hello \"Ada\"!\n☃");
        assert_eq!(played.text("reasoning_message"), "She greets me.");
        let sources =
            played.frames.iter().map(|frame| frame.json()).filter(|json| json["message_type"] == "reasoning_message");
        assert!(sources.into_iter().all(|json| json["source"] == "non_reasoner_model"));
        let spoken = played.frames.iter().filter(|frame| frame.kind() == "assistant_message").count();
        // Gemini sends arguments whole.
        assert_eq!(spoken > 1, stage.mode == crate::notation::Mode::Tokens && stage.kind != Kind::Gemini);
        let asked = script.call(1).await.asked;
        assert_eq!(asked.choice, Choice::Required);
        for tool in &asked.tools {
            let names: Vec<_> = tool.parameters["properties"].as_object().expect("properties").keys().collect();
            assert!(names.iter().any(|name| *name == "thinking"), "{names:?}");
            let may_go_on = names.iter().any(|name| *name == "request_heartbeat");
            assert_eq!(may_go_on, tool.name != "send_message", "{}", tool.name);
        }
        stage.say(&agent, "Hi!").await.is("P R A S:end_turn U");
        let earlier = script.call(2).await.asked;
        let [Turn::User { .. }, Turn::Assistant(answer), Turn::Results(_), Turn::User { text, .. }] =
            earlier.turns.as_slice()
        else {
            panic!("{:#?}", earlier.turns)
        };
        assert_eq!((answer.calls[0].name.as_str(), text.as_str()), ("send_message", "Hi!"));
    }
}

async fn a_call_that_wants_another_turn(stage: Stage) {
    let tool = stage.tool("look", echo(), json!({})).await;
    let script = stage.script([look(&tool, true), speak("A fjord.", "I see a fjord.")]);
    let agent = legacy(&stage, &script, "memgpt_v2_agent", &[&tool]).await;
    let played = stage.say(&agent, "Look.").await;
    played.is("P R C T R A S:end_turn U");
    assert_eq!(played.of("reasoning_message")[0].text, "Better look.");
    let call = &played.of("tool_call_message")[0].calls[0];
    let arguments: Value = serde_json::from_str(&call.arguments).expect("JSON");
    assert!(arguments["thinking"].is_null() && arguments["what"] == "north", "{arguments}");
    assert_eq!(tool.counting.executions()[0].arguments, json!({"what": "north"}), "what was added is taken out");
    let turns = script.call(2).await.asked.turns;
    let Some(Turn::User { text, .. }) = turns.last() else { panic!("{turns:#?}") };
    let note: Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("{text} is no note"));
    assert_eq!(note["type"], "heartbeat");
}

/// The memory tools have a rule that the run goes on after them.
async fn a_call_that_wants_none(stage: Stage) {
    let tool = stage.tool("look", echo(), json!({})).await;
    let insert = json!({"label": "human", "new_string": "x", "thinking": "Keep it.", "request_heartbeat": false});
    let script = stage.script([Answer::call("memory_insert", &insert), look(&tool, false)]);
    let agent = legacy(&stage, &script, "memgpt_v2_agent", &[&tool]).await;
    stage.say(&agent, "Look.").await.is("P R C T R C T S:end_turn U");
    script.assert_used_up();
}

async fn speech_that_is_shown_as_a_call(stage: Stage) {
    let script = stage.script([speak("She greets me.", "Hello!")]);
    let agent = legacy(&stage, &script, "memgpt_agent", &[]).await;
    let played = stage.send(&agent, json!({"input": "Hi!", "use_assistant_message": false})).await;
    played.is("P R C T S:end_turn U");
    let call = &played.of("tool_call_message")[0].calls[0];
    assert_eq!((call.name.as_str(), call.arguments.as_str()), ("send_message", r#"{"message":"Hello!"}"#));
    let listed = async |options: &str| {
        let history = stage.client.get(&format!("/v1/agents/{agent}/messages?order=asc{options}")).await.ok();
        let kinds = history.as_array().expect("a list").iter().map(|message| text_of(&message["message_type"]));
        kinds.skip(1).collect::<Vec<_>>()
    };
    let spoken = ["user_message", "reasoning_message", "assistant_message"];
    assert_eq!(listed("").await, spoken);
    let called = ["user_message", "reasoning_message", "tool_call_message", "tool_return_message"];
    assert_eq!(listed("&use_assistant_message=false").await, called);
    assert_eq!(listed("&assistant_message_tool_name=other").await, called);
}

async fn an_answer_without_a_call(stage: Stage) {
    let script = stage.script([Answer::text("Hello!"), speak("Oh.", "Hello, properly.")]);
    let agent = legacy(&stage, &script, "memgpt_v2_agent", &[]).await;
    let played = stage.say(&agent, "Hi!").await;
    played.is("P A S:no_tool_call U");
    assert_eq!(played.run["status"], "failed");
    stage.say(&agent, "Again?").await.is("P R A S:end_turn U");
}

async fn a_failing_call_gets_another_turn(stage: Stage) {
    let script =
        stage.script([Answer::call("no_such_tool", &json!({"request_heartbeat": false})), speak("Oh.", "I cannot.")]);
    let agent = legacy(&stage, &script, "memgpt_v2_agent", &[]).await;
    stage.say(&agent, "Do it.").await.is("P C T! R A S:end_turn U");
}

/// Then nothing is added to the tools for thoughts.
async fn a_model_that_reasons_by_itself(stage: Stage) {
    let answer = Answer::new().reasons(&["A ", "greeting."], None).calls("send_message", &json!({"message": "Hello!"}));
    let script = stage.script([answer]);
    let agent = stage.agent(&script, json!({"agent_type": "memgpt_v2_agent"})).await;
    let played = stage.say(&agent, "Hi!").await;
    // Anthropic's models do not reason before a call that they are forced to make.
    played.is(if stage.kind == Kind::Anthropic { "P A S:end_turn U" } else { "P R A S:end_turn U" });
    let asked = script.call(1).await.asked;
    assert!(asked.tools.iter().all(|tool| tool.parameters["properties"]["thinking"].is_null()));
}
