//! Tool rules (api/05 §4): what is offered, what is forced, what is refused, and what ends a run.

use serde_json::{Value, json};

use super::{Kind, Row, Stage, Tool, approve, echo, rows, text_of, told};
use crate::counting_tools::{Behaviour, Outcome};
use crate::scripted_model::Call;
use crate::scripted_model::asked::{Choice, Turn};
use crate::scripted_model::script::Answer;

pub(super) const ROWS: &[Row] = rows![&Kind::ALL;
    a_tool_that_runs_first,
    one_of_several_that_run_first,
    a_tool_that_ends_the_run,
    children_follow_their_parent,
    a_result_that_chooses_the_next_tool,
    tools_that_only_follow_another,
    a_tool_that_is_called_so_often,
    a_tool_that_must_be_called,
    arguments_that_a_rule_gives,
    arguments_of_a_rule_that_do_not_fit,
    what_was_called_before_an_answer_counts,
];

/// Three tools that say what they were called with.
async fn three(stage: &Stage) -> [Tool; 3] {
    let (one, two, three) = tokio::join!(
        stage.tool("one", echo(), json!({})),
        stage.tool("two", echo(), json!({})),
        stage.tool("three", echo(), json!({})),
    );
    [one, two, three]
}

/// What of these tools was offered.
fn offered<'a>(call: &'a Call, tools: &[Tool]) -> Vec<&'a str> {
    let names = call.asked.tool_names();
    names.into_iter().filter(|name| tools.iter().any(|tool| tool.name == *name)).map(short).collect()
}

/// A tool's name without the number of its stage.
fn short(name: &str) -> &str {
    name.split('_').next().unwrap_or_default()
}

async fn a_tool_that_runs_first(stage: Stage) {
    let tools = three(&stage).await;
    let [one, two, _] = &tools;
    let script = stage.script([two.call("a"), one.call("b"), two.call("c"), Answer::text("Done.")]);
    let all: Vec<_> = tools.iter().collect();
    let agent = stage.equipped(&script, &all, &[one.rule("run_first", json!({}))]).await;
    let played = stage.say(&agent, "Go.").await;
    played.is("P C T! C T C T A S:end_turn U");
    let text = &played.result_texts()[0];
    let start = format!("[ToolConstraintError] Cannot call {}, valid tools include: ['{}']", two.name, one.name);
    assert!(text.starts_with(&start) && text.contains(&format!("{} has to be called before", one.name)), "{text}");
    assert_eq!((one.seen(), two.seen()), (vec!["b".to_owned()], vec!["c".to_owned()]));
    let first = script.call(1).await.asked;
    assert_eq!(first.tool_names(), [one.name.as_str()]);
    assert_eq!(first.choice, Choice::Named(one.name.clone()));
    assert_eq!(script.call(2).await.asked.choice, Choice::Named(one.name.clone()), "a refused call does not count");
    let third = script.call(3).await.asked;
    assert_eq!(third.choice, Choice::Auto);
    assert_eq!(offered(&script.call(3).await, &tools), ["one", "two", "three"]);
    assert_ne!(first.parallel, Some(true), "rules speak of one call after another");
}

async fn one_of_several_that_run_first(stage: Stage) {
    let tools = three(&stage).await;
    let all: Vec<_> = tools.iter().collect();
    let script = stage.script([tools[1].call("a"), Answer::text("Done.")]);
    let rules = [tools[0].rule("run_first", json!({})), tools[1].rule("run_first", json!({}))];
    let agent = stage.equipped(&script, &all, &rules).await;
    stage.say(&agent, "Go.").await.is("P C T A S:end_turn U");
    let first = script.call(1).await;
    assert_eq!((first.asked.choice.clone(), offered(&first, &tools)), (Choice::Required, vec!["one", "two"]));
}

async fn a_tool_that_ends_the_run(stage: Stage) {
    let good = stage.tool("good", echo(), json!({})).await;
    let bad = stage.tool("bad", Behaviour::always(Outcome::Status(500, "broken".to_owned())), json!({})).await;
    let script = stage.script([good.call("a"), bad.call("b")]);
    let rules = [good.rule("exit_loop", json!({})), bad.rule("exit_loop", json!({}))];
    let agent = stage.equipped(&script, &[&good, &bad], &rules).await;
    stage.say(&agent, "Go.").await.is("P C T S:tool_rule U");
    stage.say(&agent, "Go.").await.is("P C T! S:tool_rule U");
    script.assert_used_up();
}

async fn children_follow_their_parent(stage: Stage) {
    let tools = three(&stage).await;
    let [one, two, three] = &tools;
    let all: Vec<_> = tools.iter().collect();
    let answers = [
        one.call("a"),
        Answer::text("I would rather stop."),
        one.call("b"),
        one.call("c"),
        three.call("d"),
        Answer::text("Done."),
    ];
    let script = stage.script(answers);
    let rules = [one.rule("constrain_child_tools", json!({"children": [two.name, three.name]}))];
    let agent = stage.equipped(&script, &all, &rules).await;
    stage.say(&agent, "Go.").await.is("P C T A S:end_turn U");
    let second = script.call(2).await;
    assert_eq!((second.asked.choice.clone(), offered(&second, &tools)), (Choice::Required, vec!["two", "three"]));
    let played = stage.say(&agent, "Go.").await;
    played.is("P C T C T! C T A S:end_turn U");
    assert!(played.result_texts()[1].contains(&format!("After {}, the next call can only be one of", one.name)));
    assert_eq!(offered(&script.call(3).await, &tools), ["one", "two", "three"], "each run begins anew");
    assert_eq!(offered(&script.call(5).await, &tools), ["two", "three"], "a refused call does not count");
    assert_eq!((one.seen().len(), three.seen().len()), (2, 1));
}

async fn a_result_that_chooses_the_next_tool(stage: Stage) {
    let decide = Behaviour::of(|arguments| Outcome::Text(text_of(&arguments["what"])));
    let decide = stage.tool("decide", decide, json!({})).await;
    let tools = three(&stage).await;
    let all: Vec<_> = std::iter::once(&decide).chain(&tools).collect();
    let mapping = json!({"yes": tools[0].name, "7": tools[1].name});
    let own = json!({"child_output_mapping": mapping, "default_child": tools[2].name});
    let answers = ["yes", "7", "perhaps"].map(|what| decide.call(what));
    let answers =
        answers.into_iter().zip(&tools).flat_map(|(asks, tool)| [asks, tool.call("x"), Answer::text("Done.")]);
    let script = stage.script(answers);
    let agent = stage.equipped(&script, &all, &[decide.rule("conditional", own)]).await;
    for (number, tool) in tools.iter().enumerate() {
        stage.say(&agent, "Go.").await.is("P C T C T A S:end_turn U");
        let asked = script.call(3 * number + 2).await.asked;
        assert_eq!((asked.tool_names(), asked.choice.clone()), (vec![&*tool.name], Choice::Named(tool.name.clone())));
    }
}

async fn tools_that_only_follow_another(stage: Stage) {
    let tools = three(&stage).await;
    let [one, two, _] = &tools;
    let all: Vec<_> = tools.iter().collect();
    let script = stage.script([two.call("a"), one.call("b"), two.call("c"), Answer::text("Done.")]);
    let agent = stage.equipped(&script, &all, &[one.rule("parent_last_tool", json!({"children": [two.name]}))]).await;
    let played = stage.say(&agent, "Go.").await;
    played.is("P C T! C T C T A S:end_turn U");
    assert!(played.result_texts()[0].contains(&format!("Directly after {}", one.name)), "{:?}", played.result_texts());
    let (first, third) = (script.call(1).await, script.call(3).await);
    assert_eq!((first.asked.choice.clone(), offered(&first, &tools)), (Choice::Auto, vec!["one", "three"]));
    assert_eq!((third.asked.choice.clone(), offered(&third, &tools)), (Choice::Named(two.name.clone()), vec!["two"]));
    assert_eq!(offered(&script.call(4).await, &tools), ["one", "three"]);
}

async fn a_tool_that_is_called_so_often(stage: Stage) {
    let tools = three(&stage).await;
    let one = &tools[0];
    let all: Vec<_> = tools.iter().collect();
    let script = stage.script([one.call("a"), one.call("b"), one.call("c"), Answer::text("Done.")]);
    let agent = stage.equipped(&script, &all, &[one.rule("max_count_per_step", json!({"max_count_limit": 2}))]).await;
    stage.say(&agent, "Go.").await.is("P C T C T C T! A S:end_turn U");
    assert_eq!(one.seen(), ["a", "b"]);
    for (number, names) in [(2, &["one", "two", "three"][..]), (3, &["two", "three"])] {
        let call = script.call(number).await;
        assert_eq!((offered(&call, &tools), call.asked.choice.clone()), (names.to_vec(), Choice::Auto));
    }
}

async fn a_tool_that_must_be_called(stage: Stage) {
    let tools = three(&stage).await;
    let [one, two, _] = &tools;
    let all: Vec<_> = tools.iter().collect();
    let answers = [Answer::text("Done?"), two.call("x"), one.call("a"), Answer::text("Done.")];
    let script = stage.script(answers);
    let rules = [one.rule("required_before_exit", json!({})), two.rule("exit_loop", json!({}))];
    let agent = stage.equipped(&script, &all, &rules).await;
    let played = stage.say(&agent, "Go.").await;
    played.is("P A C T C T A S:end_turn U");
    for number in [2, 3] {
        let turns = script.call(number).await.asked.turns;
        let Some(Turn::User { text, .. }) = turns.last() else { panic!("{turns:#?}") };
        let note: Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("{text} is no note"));
        assert_eq!(note["type"], "heartbeat");
        assert!(text_of(&note["reason"]).contains(&one.name), "{note}");
    }
    let inputs = stage.history(&agent).await.into_iter().filter(|message| message["message_type"] == "user_message");
    assert_eq!(inputs.count(), 1, "what the model is told is not shown");
    script.assert_used_up();
}

async fn arguments_that_a_rule_gives(stage: Stage) {
    let tools = three(&stage).await;
    let [one, two, _] = &tools;
    let all: Vec<_> = tools.iter().collect();
    let script = stage.script([one.call("mine"), two.call("mine"), Answer::text("Done.")]);
    let nodes = json!([{"name": two.name, "args": {"what": "the rule's second"}}]);
    let rules = [
        one.rule("run_first", json!({"args": {"what": "the rule's"}})),
        one.rule("constrain_child_tools", json!({"children": [two.name], "child_arg_nodes": nodes})),
    ];
    let agent = stage.equipped(&script, &all, &rules).await;
    let played = stage.say(&agent, "Go.").await;
    played.is("P C T C T A S:end_turn U");
    assert_eq!((one.seen(), two.seen()), (vec!["the rule's".to_owned()], vec!["the rule's second".to_owned()]));
}

async fn arguments_of_a_rule_that_do_not_fit(stage: Stage) {
    let one = stage.tool("one", echo(), json!({})).await;
    let script = stage.script([one.call("a"), Answer::text("Hm.")]);
    let agent = stage.equipped(&script, &[&one], &[one.rule("run_first", json!({"args": {"what": 5}}))]).await;
    let played = stage.say(&agent, "Go.").await;
    played.is("P C T! S:invalid_tool_call U");
    let text = &played.result_texts()[0];
    assert!(text.starts_with("Invalid prefilled tool arguments from tool rules"), "{text}");
    assert!(one.seen().is_empty());
    assert_eq!(script.calls().len(), 1);
}

/// A run that answers an approval goes on with the history of the run that asked.
async fn what_was_called_before_an_answer_counts(stage: Stage) {
    let tools = three(&stage).await;
    let [one, two, three] = &tools;
    let all: Vec<_> = tools.iter().collect();
    let answers = [one.call("a"), two.call("b"), three.call("c"), two.call("d"), Answer::text("Done.")];
    let script = stage.script(answers);
    let rules = [
        one.rule("run_first", json!({})),
        two.gate(),
        two.rule("constrain_child_tools", json!({"children": [three.name]})),
        two.rule("max_count_per_step", json!({"max_count_limit": 1})),
    ];
    let agent = stage.equipped(&script, &all, &rules).await;
    let asked = stage.say(&agent, "Go.").await;
    asked.is("P C T Q S:requires_approval U");
    let answered = stage.answer(&agent, json!([approve(&asked.waiting()[0])])).await;
    answered.is("P T C T C T! A S:end_turn U");
    let third = script.call(3).await.asked;
    assert_eq!((third.tool_names(), third.choice.clone()), (vec![&*three.name], Choice::Named(three.name.clone())));
    assert_eq!(offered(&script.call(4).await, &tools), ["one", "three"], "the approved call counts");
    assert_eq!(told(&script.call(5).await.asked.last_results()[0]).0, "Failed");
    assert_eq!(two.seen(), ["b"]);
    script.assert_used_up();
}
