//! Anthropic's Messages.

use holdfast_shared::domain::tool::ToolCall;
use holdfast_shared::domain::usage::Usage;
use holdfast_shared::ports::model_client::{ReasoningOptions, ToolChoice};

use super::*;

const ANTHROPIC: Protocol = Protocol::Anthropic;

fn start() -> Value {
    json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "content": [],
        "usage": {"input_tokens": 10, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 30, "output_tokens": 1}}})
}

fn block(index: u32, block: Value) -> Value {
    json!({"type": "content_block_start", "index": index, "content_block": block})
}

fn delta(index: u32, delta: Value) -> Value {
    json!({"type": "content_block_delta", "index": index, "delta": delta})
}

fn stop(index: u32) -> Value {
    json!({"type": "content_block_stop", "index": index})
}

/// The end of an answer.
fn finish(reason: &str) -> [Value; 2] {
    [
        json!({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": null}, "usage": {"output_tokens": 8}}),
        json!({"type": "message_stop"}),
    ]
}

fn usage() -> Usage {
    Usage {
        completion_tokens: 8,
        prompt_tokens: 60,
        total_tokens: 68,
        cached_input_tokens: Some(30),
        cache_write_tokens: Some(20),
        reasoning_tokens: None,
    }
}

fn end() -> ModelDelta {
    ModelDelta::End { usage: usage(), is_cut: false }
}

async fn deltas(frames: Vec<Value>) -> Vec<ModelDelta> {
    answer(ANTHROPIC, answering(typed(&frames))).await
}

/// Frames between the start and the end of an answer.
fn whole(frames: Vec<Value>, reason: &str) -> Vec<Value> {
    [start()].into_iter().chain(frames).chain(finish(reason)).collect()
}

#[tokio::test]
async fn text_with_usage() {
    let deltas = deltas(whole(
        vec![
            block(0, json!({"type": "text", "text": ""})),
            json!({"type": "ping"}),
            delta(0, json!({"type": "text_delta", "text": "Grüß"})),
            delta(0, json!({"type": "text_delta", "text": " Gott"})),
            stop(0),
        ],
        "end_turn",
    ))
    .await;
    assert_eq!(deltas, [text("Grüß"), text(" Gott"), end()]);
}

#[tokio::test]
async fn reasoning_has_one_signature_for_each_block_and_redacted_blocks_stay_in_their_places() {
    let thinking = |text: &str| json!({"type": "thinking_delta", "thinking": text});
    let signature = |text: &str| json!({"type": "signature_delta", "signature": text});
    let deltas = deltas(whole(
        vec![
            block(0, json!({"type": "thinking", "thinking": "", "signature": ""})),
            delta(0, thinking("I")),
            delta(0, thinking(" see")),
            delta(0, signature("EqQB")),
            delta(0, signature("==")),
            stop(0),
            block(1, json!({"type": "redacted_thinking", "data": "EmwK"})),
            stop(1),
            block(2, json!({"type": "thinking", "thinking": "", "signature": ""})),
            delta(2, thinking("So")),
            delta(2, signature("Er==")),
            stop(2),
            // Its text is left out.
            block(3, json!({"type": "thinking", "thinking": "", "signature": ""})),
            delta(3, signature("Es==")),
            stop(3),
            block(4, json!({"type": "text", "text": ""})),
            delta(4, json!({"type": "text_delta", "text": "Yes"})),
            stop(4),
        ],
        "end_turn",
    ))
    .await;
    let signed = |text: &str| ModelDelta::ReasoningSignature(text.to_owned());
    let hidden = |text: &str| ModelDelta::HiddenReasoning(Some(text.to_owned()));
    let expected = [
        reasoning("I"),
        reasoning(" see"),
        signed("EqQB=="),
        hidden("EmwK"),
        reasoning("So"),
        signed("Er=="),
        ModelDelta::HiddenReasoning(None),
        signed("Es=="),
        text("Yes"),
        end(),
    ];
    assert_eq!(deltas, expected);
}

#[tokio::test]
async fn parallel_calls_in_fragments() {
    let tool_use = |id: &str, input: Value| json!({"type": "tool_use", "id": id, "name": "add", "input": input});
    let json_delta = |text: &str| json!({"type": "input_json_delta", "partial_json": text});
    let deltas = deltas(whole(
        vec![
            block(0, tool_use("toolu_a", json!({}))),
            delta(0, json_delta("")),
            delta(0, json_delta("{\"x\":")),
            delta(0, json_delta("1}")),
            stop(0),
            block(1, tool_use("toolu_b", json!({}))),
            delta(1, json_delta("")),
            stop(1),
            block(2, tool_use("toolu_c", json!({"y": 2}))),
            stop(2),
        ],
        "tool_use",
    ))
    .await;
    let expected = [
        begins("toolu_a", "add"),
        arguments("toolu_a", "{\"x\":"),
        arguments("toolu_a", "1}"),
        begins("toolu_b", "add"),
        begins("toolu_c", "add"),
        arguments("toolu_c", "{\"y\":2}"),
        arguments("toolu_b", "{}"),
        end(),
    ];
    assert_eq!(deltas, expected);
}

#[tokio::test]
async fn an_answer_may_be_cut_or_refused() {
    for reason in ["max_tokens", "model_context_window_exceeded"] {
        let deltas = deltas(whole(Vec::new(), reason)).await;
        assert_eq!(deltas, [ModelDelta::End { usage: usage(), is_cut: true }], "{reason}");
    }
    let (_, error) = failure(ANTHROPIC, answering(typed(&whole(Vec::new(), "refusal")))).await;
    assert_eq!((error.error_type, error.is_transient), (ErrorType::LlmError, false));
    assert!(error.message.contains("refused"), "{error}");
}

#[tokio::test]
async fn tokens_are_unknown_where_the_server_does_not_say() {
    let last = json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"},
        "usage": {"input_tokens": 4, "output_tokens": 5, "output_tokens_details": {"thinking_tokens": 3}}});
    let deltas =
        deltas(vec![json!({"type": "message_start", "message": {}}), last, json!({"type": "message_stop"})]).await;
    let usage = Usage {
        completion_tokens: 5,
        prompt_tokens: 4,
        total_tokens: 9,
        cached_input_tokens: None,
        cache_write_tokens: None,
        reasoning_tokens: Some(3),
    };
    assert_eq!(deltas, [ModelDelta::End { usage, is_cut: false }]);
}

fn good() -> Act {
    typed(&whole(Vec::new(), "end_turn"))
}

#[tokio::test]
async fn the_request_as_the_server_sees_it() {
    let own = "anthropic/claude-sonnet-4-5";
    let call = |id: &str| ToolCall::new(id, "add", r#"{"a":2}"#);
    let mut request = request(ANTHROPIC);
    request.turns = vec![
        user("First"),
        made_by(
            own,
            vec![thought("I see", Some("sig-1")), hidden("EmwK"), said("Wait."), thought("", Some("sig-2"))],
            vec![call("toolu_a"), call("functions.add:0")],
        ),
        Turn::ToolReturns(vec![
            ToolResult { is_error: true, ..result("toolu_a", "no") },
            ToolResult { images: vec![image()], ..result("functions.add:0", "4") },
        ]),
        made_by("openai/o3", vec![thought("foreign", Some("enc")), said("Done"), said("  ")], vec![]),
        Turn::User(vec![Piece::Text("  ".to_owned())]),
        Turn::User(vec![Piece::Text("Second".to_owned()), Piece::Image(image())]),
    ];
    request.tools = vec![tool("web_search")];
    request.options = ModelOptions { temperature: Some(0.5), ..ModelOptions::default() };
    let seen = sent(ANTHROPIC, request, good()).await;
    assert!(seen.head.starts_with("post /v1/messages http/1.1"), "{}", seen.head);
    for header in [format!("x-api-key: {KEY}"), "anthropic-version: 2023-06-01".to_owned()] {
        assert!(seen.head.contains(&header), "{}", seen.head);
    }
    let kept = json!({"type": "ephemeral"});
    let picture = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aW1n"}});
    let mut marked = picture.clone();
    marked["cache_control"] = kept.clone();
    let expected = json!({
        "model": "claude-opus-4-1-high",
        "stream": true,
        "max_tokens": 16384,
        "temperature": 0.5,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": kept}],
        "tools": [{"name": "web_search", "description": "Adds.", "input_schema": {"type": "object", "properties": {}}}],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": true},
        "messages": [
            {"role": "user", "content": "First"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "I see", "signature": "sig-1"},
                {"type": "redacted_thinking", "data": "EmwK"},
                {"type": "text", "text": "Wait."},
            ]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "", "signature": "sig-2"},
                {"type": "tool_use", "id": "toolu_a", "name": "add", "input": {"a": 2}},
                {"type": "tool_use", "id": "functions_add_0", "name": "add", "input": {"a": 2}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "toolu_a", "is_error": true, "content": "no"},
                {"type": "tool_result", "tool_use_id": "functions_add_0", "cache_control": kept,
                    "content": [{"type": "text", "text": "4"}, picture]},
            ]},
            {"role": "assistant", "content": "Done"},
            {"role": "user", "content": [{"type": "text", "text": "Second"}, marked]},
        ],
    });
    assert_eq!(seen.body, expected, "{:#}", seen.body);
}

#[tokio::test]
async fn reasoning_by_model_and_wish() {
    let wish = |is_on: Option<bool>, effort: Option<&str>, budget_tokens: Option<u32>| ReasoningOptions {
        is_on,
        effort: effort.map(str::to_owned),
        budget_tokens,
    };
    let adaptive = json!({"type": "adaptive", "display": "summarized"});
    let budget = |tokens: u32| json!({"type": "enabled", "budget_tokens": tokens});
    for (model, wish, thinking, max_tokens) in [
        ("claude-sonnet-4-5", wish(None, None, None), Value::Null, 16_384),
        ("claude-sonnet-4-5", wish(Some(true), None, Some(2_000)), budget(2_000), 18_384),
        ("claude-sonnet-4-5", wish(Some(true), Some("low"), None), budget(1_024), 17_408),
        ("claude-sonnet-4-5", wish(Some(false), None, Some(2_000)), Value::Null, 16_384),
        ("claude-opus-4-6", wish(Some(true), Some("high"), None), adaptive.clone(), 16_384),
        ("claude-opus-5", wish(None, None, None), Value::Null, 16_384),
        ("claude-opus-5", wish(Some(false), None, None), json!({"type": "disabled"}), 16_384),
        ("claude-3-haiku-20240307", wish(None, None, None), Value::Null, 4_096),
    ] {
        let mut call = request(ANTHROPIC);
        call.model = handle(ANTHROPIC, model);
        call.options.reasoning = wish.clone();
        call.options.temperature = Some(0.5);
        let body = sent(ANTHROPIC, call, good()).await.body;
        let seen = (body.get("thinking").cloned().unwrap_or_default(), body["max_tokens"].as_u64());
        assert_eq!(seen, (thinking.clone(), Some(max_tokens)), "{model} {wish:?}");
        let is_reasoning = thinking == adaptive || thinking["type"] == "enabled";
        let has_temperature = !is_reasoning && model != "claude-opus-5";
        assert_eq!(body.get("temperature").is_some(), has_temperature, "{model} {wish:?}");
        let effort = body.pointer("/output_config/effort").and_then(Value::as_str);
        assert_eq!(effort, (thinking == adaptive).then_some("high"), "{model} {wish:?}");
    }
}

#[tokio::test]
async fn a_forced_call_comes_without_reasoning() {
    let mut call = request(ANTHROPIC);
    call.tools = vec![tool("add")];
    call.options.parallel_tool_calls = true;
    call.options.reasoning.budget_tokens = Some(2_000);
    for (choice, sent_choice) in [
        (ToolChoice::Required, json!({"type": "any"})),
        (ToolChoice::Named("add".to_owned()), json!({"type": "tool", "name": "add"})),
    ] {
        call.tool_choice = choice;
        let body = sent(ANTHROPIC, call.clone(), good()).await.body;
        assert_eq!((&body["tool_choice"], body.get("thinking")), (&sent_choice, None));
    }
    call.tool_choice = ToolChoice::Auto;
    let body = sent(ANTHROPIC, call.clone(), good()).await.body;
    assert_eq!(body["thinking"]["budget_tokens"], 2_000);
    assert_eq!(body["tool_choice"], json!({"type": "auto"}));
    call.tool_choice = ToolChoice::None;
    call.options.parallel_tool_calls = false;
    let body = sent(ANTHROPIC, call, good()).await.body;
    assert_eq!((&body["thinking"]["budget_tokens"], &body["tool_choice"]), (&json!(2_000), &json!({"type": "none"})));
}

#[tokio::test]
async fn the_two_newest_inputs_are_kept_in_the_cache() {
    let mut call = request(ANTHROPIC);
    call.system = String::new();
    call.turns = ["a", "b", "c"]
        .into_iter()
        .flat_map(|word| [user(word), made_by("anthropic/x", vec![said("ok")], vec![])])
        .collect();
    call.turns.pop();
    let body = sent(ANTHROPIC, call, good()).await.body;
    assert_eq!(body.get("system"), None);
    let messages = body["messages"].as_array().expect("messages");
    let is_marked = |message: &Value| message.pointer("/content/0/cache_control").is_some();
    assert_eq!(messages.iter().map(is_marked).collect::<Vec<_>>(), [false, false, true, false, true]);
}
