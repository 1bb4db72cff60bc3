//! Several calls of one answer: those that may run at the same time, those that may not, and what a cancel does to them.

use serde_json::json;

use super::{Kind, Row, Stage, echo, rows, told};
use crate::gate::Gate;
use crate::scripted_model::asked::Turn;
use crate::scripted_model::script::Answer;

pub(super) const ROWS: &[Row] = rows![&Kind::ALL;
    calls_at_the_same_time,
    calls_one_by_one,
    parallel_calls_go_first,
    one_call_where_several_came,
    a_cancel_in_a_tool,
];

async fn calls_at_the_same_time(stage: Stage) {
    let (slow, quick) = (Gate::shut(), Gate::shut());
    let parallel = json!({"enable_parallel_execution": true});
    let one = stage.tool("one", echo().held_after(&slow), parallel.clone()).await;
    let two = stage.tool("two", echo().held_after(&quick), parallel).await;
    let script = stage.script([one.call("a").and(&one, "b").and(&two, "c"), Answer::text("Done.")]);
    let agent = stage.equipped(&script, &[&one, &two], &[]).await;
    let stream = stage.open(&agent, json!({"input": "Go."})).await;
    slow.arrived(2).await;
    quick.arrived(1).await;
    // The last call is the first to finish.
    quick.open();
    slow.open();
    let played = stage.finish(&stage.client, stream).await;
    played.is("P C T A S:end_turn U");
    assert_eq!(one.counting.most_at_once(), 2);
    assert_eq!(played.result_texts(), ["saw a", "saw b", "saw c"], "in the order of the calls");
    let keys = one.counting.counts();
    assert!(keys.len() == 2 && keys.values().all(|count| *count == 1), "each call has a key of its own: {keys:?}");
    let results: Vec<_> = script.call(2).await.asked.last_results().iter().map(|one| told(one).1).collect();
    assert_eq!(results, ["saw a", "saw b", "saw c"]);
}

async fn calls_one_by_one(stage: Stage) {
    let gate = Gate::shut();
    let one = stage.tool("one", echo().held_after(&gate), json!({})).await;
    let script = stage.script([one.call("a").and(&one, "b"), Answer::text("Done.")]);
    let agent = stage.equipped(&script, &[&one], &[]).await;
    let stream = stage.open(&agent, json!({"input": "Go."})).await;
    one.counting.executed(1).await;
    gate.open();
    stage.finish(&stage.client, stream).await.is("P C T A S:end_turn U");
    assert_eq!((one.seen(), one.counting.most_at_once()), (vec!["a".to_owned(), "b".to_owned()], 1));
}

/// The others wait until those that may run at the same time have finished, and results keep the order of the calls.
async fn parallel_calls_go_first(stage: Stage) {
    let gate = Gate::shut();
    let alone = stage.tool("alone", echo(), json!({})).await;
    let parallel = json!({"enable_parallel_execution": true});
    let together = stage.tool("together", echo().held_after(&gate), parallel).await;
    let calls = alone.call("first").and(&together, "second").and(&together, "third");
    let script = stage.script([calls, Answer::text("Done.")]);
    let agent = stage.equipped(&script, &[&alone, &together], &[]).await;
    let stream = stage.open(&agent, json!({"input": "Go."})).await;
    gate.arrived(2).await;
    assert!(alone.seen().is_empty(), "it did not wait for those that may run together");
    gate.open();
    let played = stage.finish(&stage.client, stream).await;
    assert_eq!(played.result_texts(), ["saw first", "saw second", "saw third"]);
}

/// Of several calls the first is kept if the agent's settings do not ask for several.
async fn one_call_where_several_came(stage: Stage) {
    let one = stage.tool("one", echo(), json!({})).await;
    let script = stage.script([one.call("a").and(&one, "b"), Answer::text("Done.")]);
    let agent = stage.agent(&script, json!({"tool_ids": [one.id]})).await;
    let played = stage.say(&agent, "Go.").await;
    played.is("P C T A S:end_turn U");
    assert_eq!(played.of("tool_call_message")[0].calls.len(), 1);
    assert_eq!(one.seen(), ["a"]);
    assert_ne!(script.call(1).await.asked.parallel, Some(true));
}

async fn a_cancel_in_a_tool(stage: Stage) {
    let one = stage.tool("one", echo().held_after(&Gate::shut()), json!({})).await;
    let two = stage.tool("two", echo(), json!({})).await;
    let script = stage.script([two.call("a").and(&one, "b").and(&two, "c"), Answer::text("Yes?")]);
    let agent = stage.equipped(&script, &[&one, &two], &[]).await;
    let stream = stage.open(&agent, json!({"input": "Go."})).await;
    one.counting.executed(1).await;
    stage.cancel(&agent).await;
    one.counting.left(1).await;
    let played = stage.finish(&stage.client, stream).await;
    played.is_either("P S:cancelled U", "P C S:cancelled U");
    assert_eq!(two.seen(), ["a"], "what was not begun does not run");
    stage.say(&agent, "Hello?").await.is("P A S:end_turn U");
    let turns = script.call(2).await.asked.turns;
    let [.., Turn::Results(results), Turn::User { .. }] = turns.as_slice() else { panic!("{turns:#?}") };
    let results: Vec<_> = results.iter().map(told).collect();
    assert_eq!(results[0], ("OK".to_owned(), "saw a".to_owned()), "a result that is there stays");
    assert!(results[1..].iter().all(|(status, text)| status == "Failed" && text.contains("cancelled")), "{results:?}");
    assert_eq!(results.len(), 3, "each call has a result");
}
