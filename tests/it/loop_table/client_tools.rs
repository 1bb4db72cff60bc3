//! Tools that run at the client (api/05 §6): they come with a request, and their calls wait for the client's results.

use serde_json::{Value, json};

use super::{Kind, Row, Stage, answering, approve, echo, merge, returned, rows, told};
use crate::scripted_model::script::Answer;

pub(super) const ROWS: &[Row] = rows![&Kind::ALL;
    a_round_trip_to_the_client,
    a_tool_of_the_same_name_is_hidden,
    a_call_of_a_client_tool_that_is_approved,
];

fn editor() -> Value {
    let parameters = json!({"type": "object", "properties": {"file": {"type": "string"}}, "required": ["file"]});
    json!([{"name": "open_editor", "description": "Opens a file at the client.", "parameters": parameters}])
}

/// The tool is only there for requests that bring it.
async fn a_round_trip_to_the_client(stage: Stage) {
    let call = |file: &str| Answer::new().says(&["Opening."]).calls("open_editor", &json!({"file": file}));
    let script = stage.script([call("a.rs"), call("b.rs"), Answer::text("Both are open.")]);
    let agent = stage.agent(&script, json!({})).await;
    let first = stage.send(&agent, json!({"input": "Open both.", "client_tools": editor()})).await;
    first.is("P A Q S:requires_approval U");
    assert_eq!(first.of("approval_request_message")[0].calls[0].name, "open_editor");
    let offered = script.call(1).await.asked;
    assert_eq!(offered.tool_names(), ["conversation_search", "memory_insert", "memory_replace", "open_editor"]);
    assert_eq!(offered.tools[3].parameters["required"], json!(["file"]));
    assert_eq!(offered.tools[3].description, "Opens a file at the client.");

    let mut body = answering(json!([returned(&first.waiting()[0], "success", "a.rs is open")]));
    merge(&mut body, json!({"client_tools": editor()}));
    let second = stage.send(&agent, body).await;
    second.is("P T A Q S:requires_approval U");
    assert_eq!(second.returns()[0]["tool_return"], "a.rs is open");
    assert_eq!(told(&script.call(2).await.asked.last_results()[0]).1, "a.rs is open");
    let third = stage.answer(&agent, json!([returned(&second.waiting()[0], "success", "b.rs is open")])).await;
    third.is("P T A S:end_turn U");
    let offered = script.call(3).await.asked;
    assert!(!offered.tool_names().contains(&"open_editor"), "it was not sent again: {:?}", offered.tool_names());
    let state = stage.state(&agent).await;
    assert!(!state.to_string().contains("open_editor"), "the tool is not the agent's");
    script.assert_used_up();
}

async fn a_tool_of_the_same_name_is_hidden(stage: Stage) {
    let look = stage.tool("look", echo(), json!({})).await;
    let script = stage.script([look.call("north"), look.call("south"), look.call("east"), Answer::text("Done.")]);
    let agent = stage.equipped(&script, &[&look], &[]).await;
    let own = json!([{"name": look.name, "description": "The client's own.", "parameters": {"type": "object", "properties": {}}}]);
    let first = stage.send(&agent, json!({"input": "Look.", "client_tools": own})).await;
    first.is("P Q S:requires_approval U");
    let offered = script.call(1).await.asked;
    let of_the_name: Vec<_> = offered.tools.iter().filter(|tool| tool.name == look.name).collect();
    assert_eq!(of_the_name.len(), 1);
    assert_eq!(of_the_name[0].description, "The client's own.");
    assert!(look.seen().is_empty());
    let mut body = answering(json!([returned(&first.waiting()[0], "success", "a client's fjord")]));
    merge(&mut body, json!({"client_tools": own}));
    let second = stage.send(&agent, body).await;
    second.is("P T Q S:requires_approval U");
    // Approved instead of carried out, it is the server's tool that runs. And without the client's, that is all there is.
    let third = stage.answer(&agent, json!([approve(&second.waiting()[0])])).await;
    third.is("P T C T A S:end_turn U");
    assert_eq!(third.result_texts(), ["saw south", "saw east"]);
    assert_eq!(look.seen(), ["south", "east"]);
    script.assert_used_up();
}

async fn a_call_of_a_client_tool_that_is_approved(stage: Stage) {
    let script = stage.script([Answer::call("open_editor", &json!({"file": "a.rs"})), Answer::text("Hm.")]);
    let agent = stage.agent(&script, json!({})).await;
    let first = stage.send(&agent, json!({"input": "Open it.", "client_tools": editor()})).await;
    let second = stage.answer(&agent, json!([approve(&first.waiting()[0])])).await;
    second.is("P T! A S:end_turn U");
    assert_eq!(second.result_texts(), ["Tool not found"]);
}
