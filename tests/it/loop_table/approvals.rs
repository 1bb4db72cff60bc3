//! Calls that wait for the client's approval (api/05 §6): asked for in one run, answered by another.

use serde_json::{Value, json};

use super::{Kind, Row, Stage, answering, approve, deny, echo, returned, rows, text_of, told};
use crate::gate::Gate;
use crate::scripted_model::asked::Turn;
use crate::scripted_model::script::Answer;

pub(super) const ROWS: &[Row] = rows![&Kind::ALL;
    a_call_runs_when_it_is_approved,
    a_denied_call_does_not_run,
    a_call_that_the_client_ran,
    several_calls_that_wait,
    gated_and_free_calls,
    an_answer_with_more_messages,
    a_cancel_settles_what_waits,
];

/// What does not depend on the provider.
pub(super) const ROWS_OF_ONE: &[Row] = rows![&[Kind::Chat];
    the_deprecated_form_of_an_answer,
    calls_in_the_order_of_the_model,
    an_answer_of_the_last_step,
    a_second_answer,
    an_answer_that_is_repeated_later,
    answers_that_do_not_fit,
    a_message_while_calls_wait,
    a_run_behind_one_that_asks,
    a_run_behind_one_that_is_cancelled,
    a_gated_call_that_breaks_a_rule,
    a_gated_call_that_ends_the_run,
    a_gate_that_is_set_later,
    an_answering_run_that_is_cancelled,
];

async fn a_call_runs_when_it_is_approved(stage: Stage) {
    let look = stage.tool("look", echo(), json!({})).await;
    let asking = Answer::new().reasons(&["Better ", "look."], Some("cHJvb2Y=")).says(&["Let me look", "."]);
    let script = stage.script([asking.and(&look, "north"), Answer::text("A fjord.")]);
    let agent = stage.equipped(&script, &[&look], &[look.gate()]).await;
    let asked = stage.say(&agent, "Look north.").await;
    asked.is("P R A Q S:requires_approval U");
    let request = asked.of("approval_request_message")[0].clone();
    assert_eq!(
        (request.calls[0].name.as_str(), request.calls[0].arguments.as_str()),
        (&*look.name, r#"{"what":"north"}"#)
    );
    assert!(look.seen().is_empty(), "it ran before it was approved");
    let pending = stage.state(&agent).await["pending_approval"].clone();
    assert_eq!((&pending["id"], &pending["message_type"]), (&json!(request.id), &json!("approval_request_message")));
    assert_eq!(pending["tool_calls"][0]["tool_call_id"], request.calls[0].id.as_str());

    let answered = stage.answer(&agent, json!([approve(&request.calls[0].id)])).await;
    answered.is("P T A S:end_turn U");
    assert_ne!(answered.id(), asked.id(), "the answer is a run of its own");
    assert_eq!(answered.slices[0].step, request.step, "the results belong to the step that asked");
    assert_eq!(answered.result_texts(), ["saw north"]);
    assert_eq!(look.seen(), ["north"]);
    assert_eq!(look.counting.counts(), [(request.calls[0].id.clone(), 1)].into());
    assert_eq!(answered.frame("usage_statistics")["step_count"], 1, "the first step called no model");
    let asked = script.call(2).await.asked;
    assert_eq!(told(&asked.last_results()[0]), ("OK".to_owned(), "saw north".to_owned()));
    let earlier = asked.last_answer();
    assert_eq!((earlier.text.as_str(), &earlier.calls[0].arguments), ("Let me look.", &json!({"what": "north"})));
    assert!(stage.state(&agent).await["pending_approval"].is_null());
    let history = stage.history(&agent).await;
    let kinds: Vec<_> = history.iter().map(|message| text_of(&message["message_type"])).collect();
    let end = ["approval_request_message", "approval_response_message", "tool_return_message", "assistant_message"];
    assert_eq!(kinds[kinds.len() - 4..], end);
    script.assert_used_up();
}

async fn a_denied_call_does_not_run(stage: Stage) {
    let look = stage.tool("look", echo(), json!({})).await;
    let answers = [look.call("north"), look.call("south"), Answer::text("As you wish.")];
    let script = stage.script(answers);
    let agent = stage.equipped(&script, &[&look], &[look.gate()]).await;
    let first = stage.say(&agent, "Look.").await;
    first.is("P Q S:requires_approval U");
    let second = stage.answer(&agent, json!([deny(&first.waiting()[0], Some("not that way"))])).await;
    second.is("P T! Q S:requires_approval U");
    assert_eq!(second.result_texts(), ["Error: request to call tool denied. User reason: not that way"]);
    let third = stage.answer(&agent, json!([deny(&second.waiting()[0], None)])).await;
    third.is("P T! A S:end_turn U");
    assert_eq!(third.result_texts(), ["Error: request to call tool denied."]);
    assert!(look.seen().is_empty());
    let told = told(&script.call(2).await.asked.last_results()[0]);
    assert_eq!(told, ("Failed".to_owned(), "Error: request to call tool denied. User reason: not that way".to_owned()));
    script.assert_used_up();
}

async fn a_call_that_the_client_ran(stage: Stage) {
    let look = stage.tool("look", echo(), json!({})).await;
    let script = stage.script([look.call("north"), look.call("south"), Answer::text("I see.")]);
    let agent = stage.equipped(&script, &[&look], &[look.gate()]).await;
    let first = stage.say(&agent, "Look.").await;
    let mut result = returned(&first.waiting()[0], "success", "a fjord");
    result["stdout"] = json!(["looking", "north"]);
    let second = stage.answer(&agent, json!([result])).await;
    second.is("P T Q S:requires_approval U");
    assert_eq!(
        (&second.returns()[0]["tool_return"], &second.returns()[0]["stdout"][1]),
        (&json!("a fjord"), &json!("north"))
    );
    let failed = returned(&second.waiting()[0], "error", "too dark");
    let third = stage.send(&agent, json!({"messages": [{"type": "tool_return", "tool_returns": [failed]}]})).await;
    third.is("P T! A S:end_turn U");
    assert!(look.seen().is_empty(), "the client ran it, so the server does not");
    let texts = [script.call(2).await, script.call(3).await].map(|call| told(&call.asked.last_results()[0]));
    let expected = [("OK", "a fjord"), ("Failed", "too dark")];
    assert_eq!(texts, expected.map(|(status, text)| (status.to_owned(), text.to_owned())));
}

async fn several_calls_that_wait(stage: Stage) {
    let look = stage.tool("look", echo(), json!({})).await;
    let both = look.call("north").and(&look, "south");
    let script = stage.script([both, Answer::text("Only south.")]);
    let agent = stage.equipped(&script, &[&look], &[look.gate()]).await;
    let asked = stage.say(&agent, "Look around.").await;
    asked.is("P Q S:requires_approval U");
    let calls = asked.waiting();
    assert_eq!(calls.len(), 2);
    let answered = stage.answer(&agent, json!([approve(&calls[0]), deny(&calls[1], None)])).await;
    answered.is("P T! A S:end_turn U");
    assert_eq!(answered.result_texts(), ["Error: request to call tool denied.", "saw north"], "denials come first");
    assert_eq!(look.seen(), ["north"]);
    let results = script.call(2).await.asked.last_results().to_vec();
    assert_eq!(results.len(), 2);
}

/// Nothing runs before the answer; then come the client's results, denials, and what was executed.
async fn gated_and_free_calls(stage: Stage) {
    let look = stage.tool("look", echo(), json!({})).await;
    let dig = stage.tool("dig", echo(), json!({})).await;
    let calls =
        Answer::new().says(&["Three digs."]).and(&look, "north").and(&dig, "one").and(&dig, "two").and(&dig, "three");
    let script = stage.script([calls, Answer::text("Done.")]);
    let agent = stage.equipped(&script, &[&look, &dig], &[dig.gate()]).await;
    let asked = stage.say(&agent, "Look, then dig.").await;
    asked.is("P A C Q S:requires_approval U");
    assert_eq!((look.seen().len(), dig.seen().len()), (0, 0), "nothing runs before the answer");
    let calls = asked.waiting();
    assert_eq!(calls.len(), 3, "the free call needs no answer");
    let pending = stage.state(&agent).await["pending_approval"]["tool_calls"].clone();
    assert_eq!(pending.as_array().map(Vec::len), Some(3));
    let answers = json!([approve(&calls[0]), deny(&calls[1], Some("no")), returned(&calls[2], "success", "dug")]);
    let answered = stage.answer(&agent, answers).await;
    answered.is("P T! A S:end_turn U");
    let denied = "Error: request to call tool denied. User reason: no";
    assert_eq!(answered.result_texts(), ["dug", denied, "saw one", "saw north"]);
    assert_eq!((look.seen(), dig.seen()), (vec!["north".to_owned()], vec!["one".to_owned()]));
    assert_eq!(answered.slices[0].step, asked.of("approval_request_message")[0].step);
    let told = script.call(2).await.asked;
    assert_eq!((told.last_answer().calls.len(), told.last_results().len()), (4, 4));
}

async fn an_answer_with_more_messages(stage: Stage) {
    let look = stage.tool("look", echo(), json!({})).await;
    let script = stage.script([look.call("north"), Answer::text("In a hurry: a fjord.")]);
    let agent = stage.equipped(&script, &[&look], &[look.gate(), look.rule("exit_loop", json!({}))]).await;
    let asked = stage.say(&agent, "Look.").await;
    let mut body = answering(json!([approve(&asked.waiting()[0])]));
    let more = json!({"role": "user", "content": "And hurry."});
    body["messages"].as_array_mut().expect("a list").push(more);
    // The terminal tool would end the run, but the model is to see the message.
    stage.send(&agent, body).await.is("P T A S:end_turn U");
    let turns = script.call(2).await.asked.turns;
    let [.., Turn::Results(results), Turn::User { text, .. }] = turns.as_slice() else { panic!("{turns:#?}") };
    assert_eq!((told(&results[0]).1.as_str(), text.as_str()), ("saw north", "And hurry."));
}

async fn a_cancel_settles_what_waits(stage: Stage) {
    let look = stage.tool("look", echo(), json!({})).await;
    let script =
        stage.script([look.call("north"), look.call("south").and(&look, "east"), Answer::text("I stay here.")]);
    let agent = stage.equipped(&script, &[&look], &[look.gate()]).await;
    let path = format!("/v1/agents/{agent}/messages/cancel");
    let first = stage.say(&agent, "Look.").await;
    let answer = stage.client.post(&path, &json!({"run_ids": [first.id()]})).await.ok();
    assert_eq!(answer, json!({first.id(): "cancelled"}));
    let run = stage.client.get(&format!("/v1/runs/{}", first.id())).await.ok();
    assert_eq!((&run["status"], &run["stop_reason"]), (&json!("cancelled"), &json!("cancelled")));
    assert!(stage.state(&agent).await["pending_approval"].is_null());
    let second = stage.say(&agent, "Look again.").await;
    second.is("P Q S:requires_approval U");
    assert_eq!(stage.cancel(&agent).await, json!({second.id(): "cancelled"}), "without ids, too");
    stage.say(&agent, "Stay.").await.is("P A S:end_turn U");
    assert!(look.seen().is_empty());
    let denied = "The user cancelled the request, so the tool call was denied.";
    for (number, count) in [(2, 1), (3, 2)] {
        let turns = script.call(number).await.asked.turns;
        let [.., Turn::Results(results), Turn::User { .. }] = turns.as_slice() else { panic!("{turns:#?}") };
        assert_eq!((results.len(), told(&results[0]).1), (count, denied.to_owned()));
    }
    let again = stage.client.post(&path, &json!({})).await;
    assert!(again.refused(409).contains("No active runs to cancel"));
}

async fn the_deprecated_form_of_an_answer(stage: Stage) {
    let look = stage.tool("look", echo(), json!({})).await;
    let script = stage.script([look.call("north"), look.call("south"), Answer::text("Done.")]);
    let agent = stage.equipped(&script, &[&look], &[look.gate()]).await;
    let old = |request: &str, approve: bool, reason: Option<&str>| json!({"messages": [{"type": "approval", "approval_request_id": request, "approve": approve, "reason": reason}]});
    let first = stage.say(&agent, "Look.").await;
    let request = &first.of("approval_request_message")[0].id;
    let second = stage.send(&agent, old(request, true, None)).await;
    second.is("P T Q S:requires_approval U");
    assert_eq!(second.result_texts(), ["saw north"]);
    let request = &second.of("approval_request_message")[0].id;
    let third = stage.send(&agent, old(request, false, Some("enough"))).await;
    third.is("P T! A S:end_turn U");
    assert!(third.result_texts()[0].ends_with("User reason: enough"));
}

/// In the model's order: the gated call is told first here.
async fn calls_in_the_order_of_the_model(stage: Stage) {
    let look = stage.tool("look", echo(), json!({})).await;
    let dig = stage.tool("dig", echo(), json!({})).await;
    let script = stage.script([dig.call("one").and(&look, "north"), Answer::text("Done.")]);
    let agent = stage.equipped(&script, &[&look, &dig], &[dig.gate()]).await;
    let asked = stage.say(&agent, "Dig and look.").await;
    asked.is_either("P C Q S:requires_approval U", "P Q C S:requires_approval U");
    let answered = stage.answer(&agent, json!([approve(&asked.waiting()[0])])).await;
    assert_eq!(answered.result_texts(), ["saw one", "saw north"]);
    script.assert_used_up();
}

async fn an_answer_of_the_last_step(stage: Stage) {
    let look = stage.tool("look", echo(), json!({})).await;
    let script = stage.script([look.call("north"), Answer::text("A fjord. And yes, I hurried.")]);
    let agent = stage.equipped(&script, &[&look], &[look.gate()]).await;
    let asked = stage.send(&agent, json!({"input": "Look.", "max_steps": 1})).await;
    asked.is("P Q S:requires_approval U");
    let mut body = answering(json!([approve(&asked.waiting()[0])]));
    body["max_steps"] = json!(1);
    body["messages"].as_array_mut().expect("a list").push(json!({"role": "user", "content": "Hurry."}));
    stage.send(&agent, body).await.is("P T S:max_steps U");
    stage.say(&agent, "Did you?").await.is("P A S:end_turn U");
    let turns = script.call(2).await.asked.turns;
    let texts = turns.iter().filter_map(|turn| match turn {
        Turn::User { text, .. } => Some(text.as_str()),
        _ => None,
    });
    assert_eq!(
        texts.collect::<Vec<_>>(),
        ["Look.", "Hurry.", "Did you?"],
        "what was not answered stays in the context"
    );
}

async fn a_second_answer(stage: Stage) {
    let gate = Gate::shut();
    let look = stage.tool("look", echo().held_after(&gate), json!({})).await;
    let script = stage.script([look.call("north"), Answer::text("A fjord.")]);
    let agent = stage.equipped(&script, &[&look], &[look.gate()]).await;
    let asked = stage.say(&agent, "Look.").await;
    let answer = answering(json!([approve(&asked.waiting()[0])]));
    let mut first = stage.open(&agent, answer.clone()).await;
    let run = first.run_id().await;
    look.counting.executed(1).await;
    for path in ["stream", "async"] {
        let second = stage.client.post(&format!("/v1/agents/{agent}/messages/{path}"), &answer).await;
        assert_eq!(second.headers["x-should-retry"], "false");
        assert_eq!(second.body["run_id"], run.as_str());
        assert!(second.refused(409).contains("currently being processed"));
    }
    gate.open();
    stage.finish(&stage.client, first).await.is("P T A S:end_turn U");
    assert_eq!(look.seen(), ["north"], "it ran once");
    script.assert_used_up();
}

async fn an_answer_that_is_repeated_later(stage: Stage) {
    let look = stage.tool("look", echo(), json!({})).await;
    let answers =
        [look.call("north"), Answer::text("A fjord."), Answer::text("As I said."), Answer::text("Yes, blue.")];
    let script = stage.script(answers);
    let agent = stage.equipped(&script, &[&look], &[look.gate()]).await;
    let asked = stage.say(&agent, "Look.").await;
    let answer = answering(json!([approve(&asked.waiting()[0])]));
    stage.send(&agent, answer.clone()).await.is("P T A S:end_turn U");
    stage.send(&agent, answer.clone()).await.is("P A S:end_turn U");
    let before = stage.history(&agent).await;
    assert!(!before.iter().any(|message| message["message_type"] == "user_message" && message["content"] != "Look."));
    let mut with_more = answer;
    with_more["messages"].as_array_mut().expect("a list").push(json!({"role": "user", "content": "Is it blue?"}));
    stage.send(&agent, with_more).await.is("P A S:end_turn U");
    assert_eq!(look.seen(), ["north"], "it ran once");
    let turns = script.call(4).await.asked.turns;
    let last = Turn::User { text: "Is it blue?".to_owned(), images: Vec::new() };
    assert_eq!(turns.last(), Some(&last));
}

async fn answers_that_do_not_fit(stage: Stage) {
    let look = stage.tool("look", echo(), json!({})).await;
    let script = stage.script([look.call("north").and(&look, "south"), Answer::text("Done.")]);
    let agent = stage.equipped(&script, &[&look], &[look.gate()]).await;
    let path = format!("/v1/agents/{agent}/messages/stream");
    let early = stage.client.post(&path, &answering(json!([approve("call_x")]))).await;
    assert!(early.refused(400).contains("No tool call is currently awaiting approval"));
    let asked = stage.say(&agent, "Look.").await;
    let calls = asked.waiting();
    for wrong in [
        json!([approve("call_x")]),
        json!([approve(&calls[0])]),
        json!([approve(&calls[0]), approve(&calls[1]), approve("call_x")]),
    ] {
        let detail = stage.client.post(&path, &answering(wrong.clone())).await.refused(400);
        let given: Vec<_> = wrong.as_array().into_iter().flatten().map(|one| text_of(&one["tool_call_id"])).collect();
        assert!(calls.iter().chain(&given).all(|id| detail.contains(id.as_str())), "not both sets: {detail}");
    }
    let twice = answering(json!([approve(&calls[0]), approve(&calls[1]), deny(&calls[1], None)]));
    assert!(stage.client.post(&path, &twice).await.refused(400).contains("more than once"));
    let runs = stage.client.get(&format!("/v1/runs/?agent_id={agent}")).await.ok();
    assert_eq!(runs.as_array().map(Vec::len), Some(1), "refused answers make no runs");
    stage.answer(&agent, json!([approve(&calls[1]), approve(&calls[0])])).await.is("P T A S:end_turn U");
}

async fn a_message_while_calls_wait(stage: Stage) {
    let look = stage.tool("look", echo(), json!({})).await;
    let script = stage.script([look.call("north"), Answer::text("Done.")]);
    let agent = stage.equipped(&script, &[&look], &[look.gate()]).await;
    let asked = stage.say(&agent, "Look.").await;
    let (call, request) = (&asked.waiting()[0], &asked.of("approval_request_message")[0].id);
    for path in ["", "/stream", "/async"] {
        let refused =
            stage.client.post(&format!("/v1/agents/{agent}/messages{path}"), &json!({"input": "Hello?"})).await;
        assert_eq!((refused.status, &refused.headers["x-should-retry"]), (409, &"false".parse().expect("a value")));
        let detail = &refused.body["detail"];
        assert_eq!((&detail["code"], &detail["pending_request_id"]), (&json!("PENDING_APPROVAL"), &json!(request)));
        assert_eq!((&detail["run_id"], &detail["tool_call_ids"]), (&json!(asked.id()), &json!([call])));
        let message = text_of(&detail["message"]);
        assert!([call, &look.name, asked.id()].iter().all(|word| message.contains(*word)), "{message}");
    }
    stage.answer(&agent, json!([approve(call)])).await.is("P T A S:end_turn U");
    script.assert_used_up();
}

async fn a_run_behind_one_that_asks(stage: Stage) {
    let gate = Gate::shut();
    let look = stage.tool("look", echo(), json!({})).await;
    let script = stage.script([look.call("north").held(&gate), Answer::text("A fjord."), Answer::text("And a lake.")]);
    let agent = stage.equipped(&script, &[&look], &[look.gate()]).await;
    let first = stage.open(&agent, json!({"input": "Look."})).await;
    script.call(1).await;
    let mut behind = stage.open(&agent, json!({"input": "What else?"})).await;
    let waiting = behind.run_id().await;
    gate.open();
    let asked = stage.finish(&stage.client, first).await;
    asked.is("P Q S:requires_approval U");
    let run = stage.client.get(&format!("/v1/runs/{waiting}")).await.ok();
    assert_eq!(run["status"], "created", "it waits until the calls are answered");
    stage.answer(&agent, json!([approve(&asked.waiting()[0])])).await.is("P T A S:end_turn U");
    stage.finish(&stage.client, behind).await.is("P A S:end_turn U");
    assert_eq!(told(&script.call(2).await.asked.last_results()[0]).1, "saw north", "the answer went before it");
}

async fn a_run_behind_one_that_is_cancelled(stage: Stage) {
    let gate = Gate::shut();
    let look = stage.tool("look", echo(), json!({})).await;
    let script = stage.script([look.call("north").held(&gate), Answer::text("A lake.")]);
    let agent = stage.equipped(&script, &[&look], &[look.gate()]).await;
    let first = stage.open(&agent, json!({"input": "Look."})).await;
    script.call(1).await;
    let behind = stage.open(&agent, json!({"input": "What else?"})).await;
    gate.open();
    let asked = stage.finish(&stage.client, first).await;
    let cancel = json!({"run_ids": [asked.id()]});
    stage.client.post(&format!("/v1/agents/{agent}/messages/cancel"), &cancel).await.ok();
    stage.finish(&stage.client, behind).await.is("P A S:end_turn U");
    assert!(look.seen().is_empty());
    script.assert_used_up();
}

/// Rules are looked at first: nobody is asked about a call that must not be made.
async fn a_gated_call_that_breaks_a_rule(stage: Stage) {
    let look = stage.tool("look", echo(), json!({})).await;
    let dig = stage.tool("dig", echo(), json!({})).await;
    let script = stage.script([dig.call("one"), look.call("north"), dig.call("two"), Answer::text("Done.")]);
    let rules = [look.rule("run_first", json!({})), dig.gate()];
    let agent = stage.equipped(&script, &[&look, &dig], &rules).await;
    let asked = stage.say(&agent, "Dig.").await;
    asked.is("P C T! C T Q S:requires_approval U");
    assert!(asked.result_texts()[0].starts_with("[ToolConstraintError]"));
    stage.answer(&agent, json!([approve(&asked.waiting()[0])])).await.is("P T A S:end_turn U");
    assert_eq!(dig.seen(), ["two"]);
    script.assert_used_up();
}

async fn a_gated_call_that_ends_the_run(stage: Stage) {
    let look = stage.tool("look", echo(), json!({})).await;
    let script = stage.script([look.call("north")]);
    let agent = stage.equipped(&script, &[&look], &[look.gate(), look.rule("exit_loop", json!({}))]).await;
    let asked = stage.say(&agent, "Look.").await;
    asked.is("P Q S:requires_approval U");
    stage.answer(&agent, json!([approve(&asked.waiting()[0])])).await.is("P T S:tool_rule U");
    script.assert_used_up();
}

async fn a_gate_that_is_set_later(stage: Stage) {
    let insert = |what: &str| Answer::call("memory_insert", &json!({"label": "human", "new_string": what}));
    let script = stage.script([insert("She likes fjords."), insert("She likes lakes."), Answer::text("Done.")]);
    let agent = stage.agent(&script, json!({})).await;
    let path = format!("/v1/agents/{agent}/tools/approval/memory_insert");
    let state = stage.client.patch(&path, &json!({"requires_approval": true})).await.ok();
    assert_eq!(state["tool_rules"][0]["type"], "requires_approval");
    let first = stage.say(&agent, "I like fjords.").await;
    first.is("P Q S:requires_approval U");
    let block = |state: Value| text_of(&state["blocks"][0]["value"]);
    assert!(!block(stage.state(&agent).await).contains("fjords"));
    // What waits goes on waiting, whatever becomes of the rule.
    stage.client.patch(&path, &json!({"requires_approval": false})).await.ok();
    assert!(!stage.state(&agent).await["pending_approval"].is_null());
    stage.answer(&agent, json!([approve(&first.waiting()[0])])).await.is("P T C T A S:end_turn U");
    let block = block(stage.state(&agent).await);
    assert!(block.contains("fjords") && block.contains("lakes"), "{block}");
}

/// The answer is spent: the calls are not asked about again.
async fn an_answering_run_that_is_cancelled(stage: Stage) {
    let look = stage.tool("look", echo().held_after(&Gate::shut()), json!({})).await;
    let script = stage.script([look.call("north").and(&look, "south"), Answer::text("I stay here.")]);
    let agent = stage.equipped(&script, &[&look], &[look.gate()]).await;
    let asked = stage.say(&agent, "Look.").await;
    let calls = asked.waiting();
    let answer = stage.open(&agent, answering(json!([approve(&calls[0]), approve(&calls[1])]))).await;
    look.counting.executed(1).await;
    stage.cancel(&agent).await;
    look.counting.left(1).await;
    stage.finish(&stage.client, answer).await.is("P S:cancelled U");
    assert!(stage.state(&agent).await["pending_approval"].is_null());
    assert_eq!(look.seen(), ["north"], "what was not begun does not run");
    stage.say(&agent, "Stay.").await.is("P A S:end_turn U");
    let turns = script.call(2).await.asked.turns;
    let [.., Turn::Results(results), Turn::User { .. }] = turns.as_slice() else { panic!("{turns:#?}") };
    assert_eq!(results.len(), 2, "each call has a result");
}
