//! Google's Gemini API.

use holdfast_shared::domain::tool::ToolCall;
use holdfast_shared::domain::usage::Usage;
use holdfast_shared::ports::model_client::{ReasoningOptions, ToolChoice};

use super::*;

const GEMINI: Protocol = Protocol::Gemini;

fn parts(parts: Value) -> Value {
    json!({"candidates": [{"content": {"role": "model", "parts": parts}, "index": 0}],
        "usageMetadata": {"promptTokenCount": 33}, "modelVersion": "gemini-2.5-flash"})
}

/// The last frame of an answer.
fn last(parts: Value, reason: &str) -> Value {
    json!({"candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": reason, "index": 0}],
        "usageMetadata": {"promptTokenCount": 33, "candidatesTokenCount": 5, "thoughtsTokenCount": 3,
            "cachedContentTokenCount": 7, "totalTokenCount": 41}})
}

fn usage() -> Usage {
    Usage {
        completion_tokens: 8,
        prompt_tokens: 33,
        total_tokens: 41,
        cached_input_tokens: Some(7),
        cache_write_tokens: None,
        reasoning_tokens: Some(3),
    }
}

fn end() -> ModelDelta {
    ModelDelta::End { usage: usage(), is_cut: false }
}

async fn deltas(frames: &[Value]) -> Vec<ModelDelta> {
    answer(GEMINI, answering(plain(frames))).await
}

#[tokio::test]
async fn text_with_usage() {
    let deltas = deltas(&[parts(json!([{"text": "Grüß"}])), last(json!([{"text": " Gott"}]), "STOP")]).await;
    assert_eq!(deltas, [text("Grüß"), text(" Gott"), end()]);
}

#[tokio::test]
async fn reasoning_comes_in_order_and_with_its_signature() {
    let deltas = deltas(&[
        parts(json!([{"text": "I", "thought": true}, {"text": " see", "thought": true}, {"text": "Yes"}])),
        last(json!([{"text": "", "thoughtSignature": "CiQB"}]), "STOP"),
    ])
    .await;
    let signed = ModelDelta::ReasoningSignature("CiQB".to_owned());
    assert_eq!(deltas, [reasoning("I"), reasoning(" see"), text("Yes"), signed, end()]);
}

#[tokio::test]
async fn parallel_calls_with_signatures_and_ids_of_their_own() {
    let call = |args: Value| json!({"functionCall": {"name": "add", "args": args}});
    let mut signed = call(json!({"x": 1}));
    signed["thoughtSignature"] = "CiQB".into();
    let mut named = call(json!({}));
    named["functionCall"]["id"] = "fc-1".into();
    // The calls of a second frame are others.
    let deltas = deltas(&[parts(json!([signed, named])), last(json!([call(json!({"y": 2}))]), "STOP")]).await;
    let ModelDelta::CallStart { id: first, .. } = &deltas[0] else { panic!("{deltas:?}") };
    let ModelDelta::CallStart { id: third, .. } = &deltas[5] else { panic!("{deltas:?}") };
    assert!(first != third && [first, third].iter().all(|id| id.len() == 13 && id.starts_with("call_")), "{deltas:?}");
    let expected = [
        begins(first, "add"),
        arguments(first, "{\"x\":1}"),
        ModelDelta::CallSignature { id: first.clone(), signature: "CiQB".to_owned() },
        begins("fc-1", "add"),
        arguments("fc-1", "{}"),
        begins(third, "add"),
        arguments(third, "{\"y\":2}"),
        end(),
    ];
    assert_eq!(deltas, expected);
}

#[tokio::test]
async fn an_answer_may_be_cut_refused_or_spoilt() {
    let cut = deltas(&[last(json!([{"text": "Half"}]), "MAX_TOKENS")]).await;
    assert_eq!(cut, [text("Half"), ModelDelta::End { usage: usage(), is_cut: true }]);

    let blocked =
        json!({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 3}});
    for (frame, word) in [(last(json!([]), "SAFETY"), "SAFETY"), (blocked, "PROHIBITED_CONTENT")] {
        let (_, error) = failure(GEMINI, answering(plain(&[frame]))).await;
        assert_eq!((error.error_type, error.is_transient), (ErrorType::LlmError, false));
        assert!(error.message.contains("refused") && error.message.contains(word), "{error}");
    }

    let (_, error) = failure(GEMINI, answering(plain(&[last(json!([]), "MALFORMED_FUNCTION_CALL")]))).await;
    assert!(error.is_transient && error.message.contains("MALFORMED_FUNCTION_CALL"), "{error}");
}

fn good() -> Act {
    plain(&[last(json!([{"text": "Yes"}]), "STOP")])
}

#[tokio::test]
async fn the_request_as_the_server_sees_it() {
    let own = "google_ai/gemini-3-pro-preview";
    let call = |id: &str, signature: Option<&str>| ToolCall {
        signatures: signature.map(str::to_owned).into_iter().collect(),
        ..ToolCall::new(id, "add", r#"{"a":2}"#)
    };
    let mut request = request(GEMINI);
    request.model = handle(GEMINI, "gemini-3-pro-preview");
    request.turns = vec![
        Turn::User(vec![Piece::Text("First".to_owned()), Piece::Image(image())]),
        made_by(
            own,
            vec![said("Wait."), thought("", Some("sig-t"))],
            vec![call("call_a", Some("sig-c")), call("call_b", None)],
        ),
        Turn::ToolReturns(vec![result("call_a", "3"), result("call_b", "4")]),
        made_by("openai/o3", vec![thought("foreign", Some("enc"))], vec![call("call_c", Some("foreign"))]),
        Turn::ToolReturns(vec![ToolResult { images: vec![image()], ..result("call_c", "5") }]),
        made_by(own, vec![thought("I see", Some("sig-r")), said("Done")], vec![]),
        user("Second"),
    ];
    request.tools = vec![tool("googleSearch")];
    request.tool_choice = ToolChoice::Named("googleSearch".to_owned());
    request.options = ModelOptions {
        temperature: Some(0.5),
        max_output_tokens: Some(64),
        reasoning: ReasoningOptions { effort: Some("low".to_owned()), ..ReasoningOptions::default() },
        response_format: Some(
            json!({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}),
        ),
        ..ModelOptions::default()
    };
    let seen = sent(GEMINI, request, good()).await;
    let line = "post /v1/models/gemini-3-pro-preview:streamgeneratecontent?alt=sse http/1.1";
    assert!(seen.head.starts_with(line), "{}", seen.head);
    assert!(seen.head.contains(&format!("x-goog-api-key: {KEY}")), "{}", seen.head);
    let function_call = |id: &str| json!({"id": id, "name": "add", "args": {"a": 2}});
    let response = |id: &str, text: &str| json!({"functionResponse": {"id": id, "name": "add", "response": {"name": "add", "content": text}}});
    let picture = json!({"inline_data": {"mime_type": "image/png", "data": "aW1n"}});
    let expected = json!({
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "First"}, picture]},
            {"role": "model", "parts": [
                {"text": "Wait.", "thoughtSignature": "sig-t"},
                {"functionCall": function_call("call_a"), "thoughtSignature": "sig-c"},
                {"functionCall": function_call("call_b")},
            ]},
            {"role": "user", "parts": [response("call_a", "3"), response("call_b", "4")]},
            {"role": "model", "parts": [
                {"functionCall": function_call("call_c"), "thoughtSignature": "skip_thought_signature_validator"},
            ]},
            {"role": "user", "parts": [response("call_c", "5"), picture]},
            {"role": "model", "parts": [{"text": "Done", "thoughtSignature": "sig-r"}]},
            {"role": "user", "parts": [{"text": "Second"}]},
        ],
        "tools": [{"functionDeclarations": [{"name": "googleSearch", "description": "Adds.",
            "parametersJsonSchema": {"type": "object", "properties": {}}}]}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["googleSearch"]}},
        "generationConfig": {
            "temperature": 0.5,
            "maxOutputTokens": 64,
            "thinkingConfig": {"includeThoughts": true, "thinkingLevel": "low"},
            "responseMimeType": "application/json",
            "responseJsonSchema": {"type": "object"},
        },
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
    for (model, wish, thinking) in [
        ("gemini-2.5-flash-low", wish(None, None, None), json!({"includeThoughts": true})),
        ("gemini-2.5-flash", wish(Some(false), None, None), json!({"thinkingBudget": 0})),
        ("gemini-2.5-pro", wish(Some(false), None, None), Value::Null),
        ("gemini-2.5-pro", wish(None, Some("medium"), None), json!({"includeThoughts": true, "thinkingBudget": 8192})),
        ("gemini-2.5-pro", wish(None, None, Some(500)), json!({"includeThoughts": true, "thinkingBudget": 500})),
        ("gemini-3-flash", wish(None, Some("max"), None), json!({"includeThoughts": true, "thinkingLevel": "high"})),
        ("gemini-3-flash", wish(Some(false), None, None), json!({"thinkingLevel": "low"})),
        ("gemini-2.0-flash", wish(None, None, None), Value::Null),
    ] {
        let mut call = request(GEMINI);
        call.model = handle(GEMINI, model);
        call.options.reasoning = wish.clone();
        let seen = sent(GEMINI, call, good()).await;
        assert!(seen.head.contains(&format!("/models/{model}:stream")), "{}", seen.head);
        let config = seen.body.pointer("/generationConfig/thinkingConfig").cloned().unwrap_or_default();
        assert_eq!(config, thinking, "{model} {wish:?}");
    }
}
