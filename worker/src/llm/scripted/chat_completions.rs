//! OpenAI's chat completions.

use std::time::Duration;

use holdfast_shared::domain::tool::ToolCall;
use holdfast_shared::domain::usage::Usage;
use holdfast_shared::ports::model_client::{ModelDelta, ModelOptions, Piece, ReasoningOptions, ToolChoice, Turn};
use serde_json::json;

use super::super::dialect::{Dialect, Peer};
use super::*;

#[tokio::test]
async fn text_with_all_that_servers_put_around_it() {
    let deltas = answer(CHAT, vec![
        Act::Send(HEAD.to_owned()),
        Act::Send(": still reading\n\n".to_owned()),
        events(&[
            r#"data: {"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}]}"#,
            r#"data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"Grüß"}}],"timings":{"x":1}}"#,
            ": a comment",
            r#"data: {"choices":[]}"#,
        ]),
        Act::Send("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" Go".to_owned()),
        Act::Pause(Duration::from_millis(20)),
        Act::Send("tt\"}}]}\n\n".to_owned()),
        events(&[
            r#"data: {"choices":[{"finish_reason":"length","index":0,"delta":{}}]}"#,
            r#"data: {"choices":[],"usage":{"completion_tokens":8,"prompt_tokens":33,"total_tokens":41,"prompt_tokens_details":{"cached_tokens":5},"completion_tokens_details":{"reasoning_tokens":3}}}"#,
            "data: [DONE]",
        ]),
    ])
    .await;
    let usage = Usage {
        completion_tokens: 8,
        prompt_tokens: 33,
        total_tokens: 41,
        cached_input_tokens: Some(5),
        cache_write_tokens: None,
        reasoning_tokens: Some(3),
    };
    assert_eq!(deltas, [text("Grüß"), text(" Gott"), ModelDelta::End { usage, is_cut: true }]);
}

#[tokio::test]
async fn reasoning_comes_before_text() {
    let deltas = answer(
        CHAT,
        vec![
            Act::Send(HEAD.to_owned()),
            events(&[
                r#"data: {"choices":[{"index":0,"delta":{"reasoning_content":"Hm"}}]}"#,
                r#"data: {"choices":[{"index":0,"delta":{"reasoning_content":".","content":"Yes"}}]}"#,
                r#"data: {"choices":[{"finish_reason":"stop","index":0,"delta":{}}]}"#,
                "data: [DONE]",
            ]),
        ],
    )
    .await;
    let reasoning = |text: &str| ModelDelta::Reasoning(text.to_owned());
    let end = ModelDelta::End { usage: Usage::default(), is_cut: false };
    assert_eq!(deltas, [reasoning("Hm"), reasoning("."), text("Yes"), end]);
}

fn piece(index: u32, id: Option<&str>, name: Option<&str>, arguments: &str) -> String {
    let mut call = json!({"index": index, "function": {"arguments": arguments}});
    if let Some(id) = id {
        call["id"] = id.into();
    }
    if let Some(name) = name {
        call["function"]["name"] = name.into();
    }
    format!("data: {}", json!({"choices": [{"index": 0, "delta": {"content": null, "tool_calls": [call]}}]}))
}

async fn calls(pieces: &[String]) -> (Vec<(String, String, String)>, usize) {
    let mut lines: Vec<&str> = pieces.iter().map(String::as_str).collect();
    lines.push(r#"data: {"choices":[{"finish_reason":"tool_calls","index":0,"delta":{}}]}"#);
    lines.push("data: [DONE]");
    let deltas = answer(CHAT, vec![Act::Send(HEAD.to_owned()), events(&lines)]).await;
    let mut calls: Vec<(String, String, String)> = Vec::new();
    let mut fragments = 0;
    for delta in deltas {
        match delta {
            ModelDelta::CallStart { id, name } => calls.push((id, name, String::new())),
            ModelDelta::CallArguments { id, fragment } => {
                fragments += 1;
                let call = calls.iter_mut().find(|call| call.0 == id).expect("a call that has begun");
                call.2.push_str(&fragment);
            }
            ModelDelta::End { is_cut: false, .. } => {}
            other => panic!("{other:?}"),
        }
    }
    (calls, fragments)
}

fn owned(calls: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    calls.iter().map(|(id, name, text)| ((*id).to_owned(), (*name).to_owned(), (*text).to_owned())).collect()
}

#[tokio::test]
async fn parallel_calls_in_fragments() {
    let (seen, fragments) = calls(&[
        piece(0, Some("a1"), Some("add"), ""),
        piece(0, None, None, "{\"x\":"),
        piece(1, Some("b2"), Some("add"), "{\n  }"),
        piece(0, None, None, "1}"),
    ])
    .await;
    assert_eq!(seen, owned(&[("a1", "add", "{\"x\":1}"), ("b2", "add", "{\n  }")]));
    assert_eq!(fragments, 3, "only new pieces are given out");
}

#[tokio::test]
async fn calls_without_ids_get_some() {
    for given in [None, Some("")] {
        let (seen, _) = calls(&[
            piece(0, given, Some("add"), "{\"x\":1"),
            piece(0, given, Some("add"), "}"),
            piece(1, given, Some("sub"), "{}"),
        ])
        .await;
        let plain: Vec<_> = seen.iter().map(|call| (call.1.as_str(), call.2.as_str())).collect();
        assert_eq!(plain, [("add", "{\"x\":1}"), ("sub", "{}")], "{given:?}");
        assert_ne!(seen[0].0, seen[1].0);
        let is_made_up = |id: &str| id.len() == 13 && id.starts_with("call_");
        assert!(seen.iter().all(|call| is_made_up(&call.0)), "{seen:?}");
    }
}

#[tokio::test]
async fn calls_without_indices_or_with_the_same_one_are_told_apart() {
    let call = |index: Option<u32>, id: Option<&str>, name: Option<&str>, arguments: &str| {
        let mut call = json!({"function": {"arguments": arguments}});
        if let Some(index) = index {
            call["index"] = index.into();
        }
        if let Some(id) = id {
            call["id"] = id.into();
        }
        if let Some(name) = name {
            call["function"]["name"] = name.into();
        }
        format!("data: {}", json!({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}))
    };
    for index in [None, Some(0)] {
        let (seen, _) = calls(&[
            call(index, Some("a1"), Some("add"), "{\"x\":"),
            call(index, None, None, "1}"),
            call(index, Some("b2"), Some("add"), "{}"),
        ])
        .await;
        assert_eq!(seen, owned(&[("a1", "add", "{\"x\":1}"), ("b2", "add", "{}")]), "{index:?}");
    }
}

#[tokio::test]
async fn a_call_without_arguments_has_an_empty_object() {
    let (seen, _) = calls(&[piece(0, Some("a1"), Some("now"), "")]).await;
    assert_eq!(seen, owned(&[("a1", "now", "{}")]));
}

#[tokio::test]
async fn an_answer_with_an_end_needs_no_last_word() {
    let deltas = answer(
        CHAT,
        answering(events(&[r#"data: {"choices":[{"index":0,"delta":{"content":"Yes"},"finish_reason":"stop"}]}"#])),
    )
    .await;
    assert_eq!(deltas, [text("Yes"), ModelDelta::End { usage: Usage::default(), is_cut: false }]);
}

#[tokio::test]
async fn content_in_parts_is_reasoning_and_text() {
    let deltas = answer(CHAT, answering(events(&[
        r#"data: {"choices":[{"index":0,"delta":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"Hm"}]}]}}]}"#,
        r#"data: {"choices":[{"index":0,"delta":{"content":[{"type":"text","text":"Yes"}]}}]}"#,
        "data: [DONE]",
    ])))
    .await;
    assert_eq!(deltas[..2], [reasoning("Hm"), text("Yes")]);
}

#[tokio::test]
async fn refusals_and_filters_are_permanent_and_say_so() {
    for (lines, words) in [
        ([r#"{"delta":{"refusal":"I cannot"}}"#, r#"{"delta":{"refusal":" do that."}}"#], "I cannot do that."),
        ([r#"{"delta":{"content":null}}"#, r#"{"delta":{},"finish_reason":"content_filter"}"#], "safety filter"),
    ] {
        let lines: Vec<String> = lines.iter().map(|line| format!("data: {{\"choices\":[{line}]}}")).collect();
        let (_, error) =
            failure(CHAT, answering(events(&[lines[0].as_str(), lines[1].as_str(), "data: [DONE]"]))).await;
        assert_eq!((error.error_type, error.is_transient), (ErrorType::LlmError, false));
        assert!(error.message.contains("refused") && error.message.contains(words), "{error}");
    }
}

#[test]
fn models_of_openai_that_hide_their_reasoning_say_so_once() {
    let server = model_server(CHAT, "https://api.openai.com/v1/", None);
    let deltas = |model: &str| {
        let peer = Peer { server: &server, model, summary: ReasoningSummary::None };
        let mut decoder = Dialect::ChatCompletions.decoder(&peer);
        let mut deltas = std::collections::VecDeque::new();
        for content in ["", "A", "B"] {
            let frame = json!({"choices": [{"index": 0, "delta": {"content": content}}]}).to_string();
            decoder.take(&frame, &mut deltas).expect("readable");
        }
        Vec::from(deltas)
    };
    assert_eq!(deltas("o3"), [ModelDelta::HiddenReasoning(None), text("A"), text("B")]);
    assert_eq!(deltas("gpt-4o"), [text("A"), text("B")]);
}

fn done() -> Act {
    events(&["data: [DONE]"])
}

#[tokio::test]
async fn the_request_as_the_server_sees_it() {
    let call = ToolCall::new("c.1", "add", r#"{"b":1,"a":2}"#);
    let broken = ToolCall::new("c2", "add up", "{\"a");
    let mut request = request(CHAT);
    let own = "openai/other";
    request.turns = vec![
        user("First"),
        made_by(own, vec![thought("old", None), said("Done")], vec![]),
        made_by(own, vec![thought("only", None)], vec![]),
        Turn::User(vec![Piece::Text("Second".to_owned()), Piece::Image(image())]),
        made_by("elsewhere/model", vec![thought("foreign", None), said("Let me see.")], vec![]),
        made_by(own, vec![thought("new", None)], vec![call.clone(), broken.clone()]),
        Turn::ToolReturns(vec![
            ToolResult { images: vec![image()], ..result(&call.id, r#"{"status":"OK","message":"3"}"#) },
            result(&broken.id, r#"{"status":"Failed","message":"no \"JSON\""}"#),
        ]),
        Turn::System("Hurry.".to_owned()),
    ];
    request.tools = vec![ToolSpec { description: String::new(), ..tool("add") }];
    request.options = ModelOptions {
        temperature: Some(0.5),
        max_output_tokens: Some(64),
        parallel_tool_calls: true,
        reasoning: ReasoningOptions { effort: Some("low".to_owned()), ..ReasoningOptions::default() },
        response_format: Some(json!({"type": "json_object"})),
    };
    let seen = sent(CHAT, request, done()).await;
    assert!(seen.head.starts_with("post /v1/chat/completions http/1.1"), "{}", seen.head);
    assert!(seen.head.contains(&format!("authorization: bearer {KEY}")), "{}", seen.head);
    let expected = json!({
        "model": "qwen-max",
        "stream": true,
        "tools": [{"type": "function", "function": {
            "name": "add", "description": "add", "parameters": {"type": "object", "properties": {}}, "strict": false,
        }}],
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "First"},
            {"role": "assistant", "content": "Done"},
            {"role": "user", "content": [
                {"type": "text", "text": "Second"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,aW1n"}},
            ]},
            {"role": "assistant", "content": "Let me see."},
            {"role": "assistant", "content": "", "reasoning_content": "new", "tool_calls": [
                {"type": "function", "id": "c.1", "function": {"name": "add", "arguments": r#"{"b":1,"a":2}"#}},
                {"type": "function", "id": "c2", "function": {
                    "name": "add_up", "arguments": r#"{"unreadable_arguments":"{\"a"}"#,
                }},
            ]},
            {"role": "tool", "tool_call_id": "c.1", "content": "{\"status\":\"OK\",\"message\":\"3\"}\n[image]"},
            {"role": "tool", "tool_call_id": "c2", "content": r#"{"status":"Failed","message":"no \"JSON\""}"#},
            {"role": "system", "content": "Hurry."},
        ],
        "stream_options": {"include_usage": true},
        "temperature": 0.5,
        "max_tokens": 64,
        "parallel_tool_calls": true,
        "reasoning_effort": "low",
        "response_format": {"type": "json_object"},
    });
    assert_eq!(seen.body, expected, "{:#}", seen.body);
}

#[tokio::test]
async fn what_depends_on_the_model_and_the_choice() {
    let mut call = request(CHAT);
    call.model = handle(CHAT, "o3-mini");
    call.turns = vec![Turn::User(vec![Piece::Image(image())])];
    call.tools = vec![tool("add")];
    call.tool_choice = ToolChoice::Named("add".to_owned());
    call.options.max_output_tokens = Some(9);
    let seen = sent(CHAT, call.clone(), done()).await;
    assert_eq!(seen.body["model"], "o3-mini");
    assert_eq!(seen.body["max_completion_tokens"], 9);
    assert_eq!(seen.body.get("parallel_tool_calls"), None);
    assert_eq!(seen.body["tool_choice"], json!({"type": "function", "function": {"name": "add"}}));
    assert_eq!(seen.body["messages"][1]["content"], "[image]", "that model cannot see");

    call.tool_choice = ToolChoice::Required;
    assert_eq!(sent(CHAT, call, done()).await.body["tool_choice"], "required");
}

#[tokio::test]
async fn reasoning_that_is_switched_off_is_not_sent_back() {
    let mut call = request(CHAT);
    call.turns.push(made_by("openai/x", vec![thought("hm", None), said("Yes")], vec![]));
    let seen = sent(CHAT, call.clone(), done()).await;
    assert_eq!(seen.body["messages"][2]["reasoning_content"], "hm");
    call.options.reasoning.is_on = Some(false);
    let seen = sent(CHAT, call, done()).await;
    assert_eq!(seen.body["messages"][2], json!({"role": "assistant", "content": "Yes"}));
}
