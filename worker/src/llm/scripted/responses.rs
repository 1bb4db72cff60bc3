//! OpenAI's Responses.

use holdfast_shared::domain::tool::ToolCall;
use holdfast_shared::domain::usage::Usage;
use holdfast_shared::ports::model_client::{ReasoningOptions, ToolChoice};

use super::super::dialect::{Dialect, Peer};
use super::*;

fn item(kind: &str, index: u32, item: Value) -> Value {
    json!({"type": format!("response.output_item.{kind}"), "output_index": index, "item": item})
}

fn completed(usage: Value) -> Value {
    json!({"type": "response.completed", "response": {
        "id": "resp_1", "status": "completed", "model": "gpt-5", "output": [], "usage": usage,
    }})
}

fn end(usage: Usage) -> ModelDelta {
    ModelDelta::End { usage, is_cut: false }
}

#[tokio::test]
async fn text_with_usage() {
    let usage = json!({"input_tokens": 33, "input_tokens_details": {"cached_tokens": 5}, "output_tokens": 8,
        "output_tokens_details": {"reasoning_tokens": 3}, "total_tokens": 41});
    let deltas = answer(RESPONSES, answering(typed(&[
        json!({"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}}),
        json!({"type": "response.in_progress", "response": {"id": "resp_1"}}),
        item("added", 0, json!({"type": "message", "id": "msg_1", "role": "assistant", "content": []})),
        json!({"type": "response.content_part.added", "output_index": 0, "content_index": 0, "part": {"type": "output_text"}}),
        json!({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Grüß"}),
        json!({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": " Gott"}),
        json!({"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": "Grüß Gott"}),
        item("done", 0, json!({"type": "message", "id": "msg_1", "role": "assistant", "content": []})),
        completed(usage),
    ])))
    .await;
    let usage = Usage {
        completion_tokens: 8,
        prompt_tokens: 33,
        total_tokens: 41,
        cached_input_tokens: Some(5),
        cache_write_tokens: None,
        reasoning_tokens: Some(3),
    };
    assert_eq!(deltas, [text("Grüß"), text(" Gott"), end(usage)]);
}

#[tokio::test]
async fn summed_up_reasoning_carries_its_encrypted_form() {
    let summary = |text: &str, index: u32| json!({"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": index, "delta": text});
    let part = |index: u32| json!({"type": "response.reasoning_summary_part.added", "output_index": 0, "summary_index": index});
    let deltas = answer(
        RESPONSES,
        answering(typed(&[
            item("added", 0, json!({"type": "reasoning", "id": "rs_1", "summary": []})),
            part(0),
            summary("I", 0),
            summary(" see", 0),
            part(1),
            summary("So", 1),
            item("done", 0, json!({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "enc-1"})),
            item("added", 1, json!({"type": "reasoning", "id": "rs_2", "summary": []})),
            item("done", 1, json!({"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "enc-2"})),
            json!({"type": "response.output_text.delta", "output_index": 2, "content_index": 0, "delta": "Yes"}),
            completed(Value::Null),
        ])),
    )
    .await;
    let expected = [
        reasoning("I"),
        reasoning(" see"),
        reasoning("\n\n"),
        reasoning("So"),
        ModelDelta::ReasoningSignature("enc-1".to_owned()),
        ModelDelta::HiddenReasoning(None),
        ModelDelta::ReasoningSignature("enc-2".to_owned()),
        text("Yes"),
        end(Usage::default()),
    ];
    assert_eq!(deltas, expected);
}

#[tokio::test]
async fn reasoning_of_which_nothing_comes_is_told_once() {
    let reasoning = |index| item("done", index, json!({"type": "reasoning", "id": "rs", "summary": []}));
    let word = json!({"type": "response.output_text.delta", "output_index": 2, "delta": "Yes"});
    let deltas = answer(RESPONSES, answering(typed(&[reasoning(0), reasoning(1), word, completed(Value::Null)]))).await;
    assert_eq!(deltas, [ModelDelta::HiddenReasoning(None), text("Yes"), end(Usage::default())]);
}

#[tokio::test]
async fn parallel_calls_in_fragments() {
    let call = |id: &str, arguments: &str| json!({"type": "function_call", "id": format!("fc_{id}"), "call_id": id, "name": "add", "arguments": arguments});
    let more = |index: u32, fragment: &str| json!({"type": "response.function_call_arguments.delta", "output_index": index, "delta": fragment});
    let deltas = answer(
        RESPONSES,
        answering(typed(&[
            item("added", 0, call("call_a", "")),
            more(0, "{\"x\":"),
            item("added", 1, call("call_b", "")),
            more(1, "{}"),
            more(0, "1"),
            // A piece was lost, a call came at once, and one has no arguments at all.
            item("done", 0, call("call_a", "{\"x\":1}")),
            item("done", 1, call("call_b", "{}")),
            item("done", 2, call("call_c", "{\"y\":2}")),
            item("added", 3, call("call_d", "")),
            item("done", 3, call("call_d", "")),
            completed(Value::Null),
        ])),
    )
    .await;
    let expected = [
        begins("call_a", "add"),
        arguments("call_a", "{\"x\":"),
        begins("call_b", "add"),
        arguments("call_b", "{}"),
        arguments("call_a", "1"),
        arguments("call_a", "}"),
        begins("call_c", "add"),
        arguments("call_c", "{\"y\":2}"),
        begins("call_d", "add"),
        arguments("call_d", "{}"),
        end(Usage::default()),
    ];
    assert_eq!(deltas, expected);
}

#[tokio::test]
async fn an_incomplete_answer_is_cut_or_refused() {
    let incomplete = |reason: &str| {
        json!({"type": "response.incomplete", "response": {"id": "r", "status": "incomplete", "model": "m", "output": [],
            "incomplete_details": {"reason": reason}, "usage": {"input_tokens": 1, "output_tokens": 2}}})
    };
    let deltas = answer(RESPONSES, answering(typed(&[incomplete("max_output_tokens")]))).await;
    assert!(
        matches!(deltas[..], [ModelDelta::End { is_cut: true, usage: Usage { total_tokens: 3, .. } }]),
        "{deltas:?}"
    );
    let (_, error) = failure(RESPONSES, answering(typed(&[incomplete("content_filter")]))).await;
    assert!(!error.is_transient && error.message.contains("refused"), "{error}");
    let refusal = json!({"type": "response.refusal.delta", "output_index": 0, "delta": "I won't."});
    let (_, error) = failure(RESPONSES, answering(typed(&[refusal, completed(Value::Null)]))).await;
    assert!(!error.is_transient && error.message.contains("I won't."), "{error}");
}

#[tokio::test]
async fn an_error_event_is_an_error() {
    let object = json!({"type": "error", "code": "rate_limit_exceeded", "message": "slow down", "param": null});
    let (_, error) = failure(RESPONSES, answering(typed(&[object]))).await;
    assert_eq!((error.error_type, error.is_transient), (ErrorType::LlmRateLimit, true));
}

#[tokio::test]
async fn the_request_as_the_server_sees_it() {
    let mut request = request(RESPONSES);
    let own = "openai/gpt-5-mini";
    let call = |id: &str| ToolCall::new(id, "add", r#"{"a":2}"#);
    request.model = handle(RESPONSES, own.split_once('/').expect("a handle").1);
    request.turns = vec![
        Turn::User(vec![Piece::Text("First".to_owned()), Piece::Image(image())]),
        made_by(
            own,
            vec![thought("I see", Some("enc-1")), said("Wait."), thought("", Some("enc-2"))],
            vec![call("call_a"), call("call_b")],
        ),
        Turn::ToolReturns(vec![result("call_a", "3"), ToolResult { images: vec![image()], ..result("call_b", "4") }]),
        made_by("anthropic/claude", vec![thought("foreign", Some("sig")), hidden("blob")], vec![call("toolu.5")]),
        Turn::ToolReturns(vec![result("toolu.5", "5")]),
    ];
    request.tools = vec![tool("web_search")];
    request.tool_choice = ToolChoice::Named("web_search".to_owned());
    request.options = ModelOptions {
        temperature: Some(0.5),
        max_output_tokens: Some(64),
        parallel_tool_calls: true,
        reasoning: ReasoningOptions { effort: Some("high".to_owned()), ..ReasoningOptions::default() },
        response_format: Some(
            json!({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": true}}),
        ),
    };
    let seen = sent(RESPONSES, request, typed(&[completed(Value::Null)])).await;
    assert!(seen.head.starts_with("post /v1/responses http/1.1"), "{}", seen.head);
    assert!(seen.head.contains(&format!("authorization: bearer {KEY}")), "{}", seen.head);
    let reasoning = |data: &str| json!({"type": "reasoning", "encrypted_content": data, "summary": []});
    let function_call =
        |id: &str| json!({"type": "function_call", "call_id": id, "name": "add", "arguments": r#"{"a":2}"#});
    let output = |id: &str, text: &str| json!({"type": "function_call_output", "call_id": id, "output": text});
    let expected = json!({
        "model": "gpt-5-mini",
        "store": false,
        "stream": true,
        "instructions": "Be brief.",
        "input": [
            {"role": "user", "content": [
                {"type": "input_text", "text": "First"},
                {"type": "input_image", "detail": "auto", "image_url": "data:image/png;base64,aW1n"},
            ]},
            reasoning("enc-1"),
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Wait."}]},
            reasoning("enc-2"),
            function_call("call_a"),
            function_call("call_b"),
            output("call_a", "3"),
            output("call_b", "4\n[image]"),
            function_call("toolu_5"),
            output("toolu_5", "5"),
        ],
        "tools": [{"type": "function", "name": "web_search", "description": "Adds.",
            "parameters": {"type": "object", "properties": {}}, "strict": false}],
        "tool_choice": {"type": "function", "name": "web_search"},
        "parallel_tool_calls": true,
        "max_output_tokens": 64,
        "include": ["reasoning.encrypted_content"],
        "reasoning": {"effort": "high", "summary": "auto"},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": true}},
    });
    assert_eq!(seen.body, expected, "{:#}", seen.body);
}

#[test]
fn it_is_for_the_reasoning_models_of_openai_itself_and_by_setting() {
    let of = |api: OpenAiApi, url: &str, model: &str| {
        let server = model_server(Protocol::OpenAi(api), url, None);
        Dialect::of(&Peer { server: &server, model, summary: ReasoningSummary::None })
    };
    let (itself, other) = ("https://api.openai.com/v1/", "http://127.0.0.1:1/v1/");
    for (api, url, model, dialect) in [
        (OpenAiApi::Auto, itself, "gpt-5", Dialect::Responses),
        (OpenAiApi::Auto, itself, "gpt-4o", Dialect::ChatCompletions),
        (OpenAiApi::Auto, other, "gpt-5", Dialect::ChatCompletions),
        (OpenAiApi::Responses, other, "llama", Dialect::Responses),
        (OpenAiApi::ChatCompletions, itself, "gpt-5", Dialect::ChatCompletions),
    ] {
        assert_eq!(of(api, url, model), dialect, "{api:?} {url} {model}");
    }
}
