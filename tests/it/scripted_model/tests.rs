//! The server is read by a client library that was not written for it: what it sends is what providers send, and what it
//! understands is what clients send them.

use futures::StreamExt;
use genai::adapter::AdapterKind;
use genai::chat::{
    ChatMessage, ChatOptions, ChatRequest, ChatStreamEvent, ContentPart, MessageContent, ReasoningEffort, StopReason,
    StreamEnd, Tool, ToolCall, ToolResponse,
};
use genai::resolver::{AuthData, Endpoint};
use genai::{ModelIden, ServiceTarget};
use serde_json::{Value, json};

use super::asked::Turn;
use super::script::{Answer, End, Failure, Usage};
use super::{KEY, Kind, MODELS, Progress, Script, ScriptedModel};
use crate::client::Client;
use crate::gate::Gate;

/// What a client made of an answer.
#[derive(Debug, Default)]
struct Seen {
    text: String,
    reasoning: String,
    end: Option<StreamEnd>,
    error: Option<String>,
}

fn adapter(kind: Kind) -> (AdapterKind, &'static str) {
    match kind {
        Kind::Chat => (AdapterKind::OpenAI, "/openai/v1/"),
        Kind::Responses => (AdapterKind::OpenAIResp, "/openai/v1/"),
        Kind::Anthropic => (AdapterKind::Anthropic, "/anthropic/v1/"),
        Kind::Gemini => (AdapterKind::Gemini, "/gemini/v1beta/"),
    }
}

async fn ask(server: &ScriptedModel, script: &Script, request: ChatRequest) -> Seen {
    // A second test of the same process finds the provider installed; that is what is wanted.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let (adapter, path) = adapter(script.inner.kind);
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let client = genai::Client::builder().with_reqwest(http).build().expect("a client");
    let target = ServiceTarget {
        endpoint: Endpoint::from_owned(format!("{}{path}", server.base())),
        auth: AuthData::from_single(KEY),
        model: ModelIden::new(adapter, script.inner.model.as_str()),
    };
    let options = ChatOptions::default()
        .with_capture_usage(true)
        .with_capture_content(true)
        .with_capture_reasoning_content(true)
        .with_capture_tool_calls(true)
        .with_reasoning_effort(ReasoningEffort::Low);
    let mut seen = Seen::default();
    let mut stream = match client.exec_chat_stream(target, request, Some(&options)).await {
        Ok(answer) => answer.stream,
        Err(error) => return Seen { error: Some(error.to_string()), ..seen },
    };
    while let Some(event) = stream.next().await {
        match event {
            Ok(ChatStreamEvent::Chunk(chunk)) => seen.text.push_str(&chunk.content),
            Ok(ChatStreamEvent::ReasoningChunk(chunk)) => seen.reasoning.push_str(&chunk.content),
            Ok(ChatStreamEvent::End(end)) => seen.end = Some(end),
            Ok(_) => {}
            Err(error) => seen.error = Some(format!("{error:?}")),
        }
    }
    seen
}

fn hello() -> ChatRequest {
    ChatRequest::from_user("Hello?").with_system("Be brief.")
}

fn weather() -> Tool {
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    Tool::new("get_weather").with_description("Tells the weather.").with_schema(schema)
}

#[tokio::test]
async fn every_api_tells_reasoning_text_calls_and_usage() {
    let server = ScriptedModel::start().await;
    for kind in Kind::ALL {
        let usage = Usage { cached: Some(40), cache_write: Some(7), reasoning: Some(5), ..Usage::default() };
        let answer = Answer::new()
            .reasons(&["I ", "think."], Some("cHJvb2Y="))
            .says(&["Let me ", "look – ☀."])
            .calls("get_weather", &json!({"city": "Oslo"}))
            .calls("get_weather", &json!({"city": "Tromsø"}))
            .costs(usage);
        let script = server.script(kind, [answer]);
        let seen = ask(&server, &script, hello().with_tools(vec![weather()])).await;
        assert_eq!(
            (seen.text.as_str(), seen.reasoning.as_str()),
            ("Let me look – ☀.", "I think."),
            "{kind:?}: {seen:?}"
        );
        let end = seen.end.expect("an end");
        let content = end.captured_content.as_ref().expect("content");
        let calls = content.tool_calls();
        let arguments: Vec<_> = calls.iter().map(|call| call.fn_arguments["city"].as_str()).collect();
        assert_eq!(arguments, [Some("Oslo"), Some("Tromsø")], "{kind:?}: {calls:?}");
        assert!(calls.iter().all(|call| call.fn_name == "get_weather"));
        // Two of the APIs have one word for both good ends.
        let reason = end.captured_stop_reason.as_ref().expect("a reason");
        assert!(matches!(reason, StopReason::ToolCall(_) | StopReason::Completed(_)), "{kind:?}: {reason:?}");
        let told = end.captured_usage.as_ref().expect("usage");
        assert_eq!((told.prompt_tokens, told.completion_tokens), (Some(120), Some(15)), "{kind:?}: {told:?}");
        let details = told.prompt_tokens_details.as_ref().expect("details");
        assert_eq!(details.cached_tokens, Some(40), "{kind:?}");
        let written = details.cache_creation_tokens.filter(|_| kind == Kind::Anthropic);
        assert_eq!(written, (kind == Kind::Anthropic).then_some(7), "{kind:?}");
        if kind != Kind::Anthropic {
            let details = told.completion_tokens_details.as_ref().expect("details");
            assert_eq!(details.reasoning_tokens, Some(5), "{kind:?}");
        }
        if kind != Kind::Chat {
            assert_eq!(content.thought_signatures(), ["cHJvb2Y="], "{kind:?}: {content:?}");
        }
        script.assert_used_up();
    }
}

#[tokio::test]
async fn hidden_reasoning_is_a_block_of_its_own() {
    let server = ScriptedModel::start().await;
    let script = server.script(Kind::Anthropic, [Answer::new().hides("b3BhcXVl").says(&["Yes."])]);
    let seen = ask(&server, &script, hello()).await;
    let content = seen.end.and_then(|end| end.captured_content).expect("content");
    let hidden = content.iter().find_map(|part| match part {
        ContentPart::Custom(part) => Some(part.data["data"].clone()),
        _ => None,
    });
    assert_eq!((seen.text.as_str(), hidden), ("Yes.", Some(json!("b3BhcXVl"))));
}

#[tokio::test]
async fn a_request_reads_the_same_in_every_api() {
    let server = ScriptedModel::start().await;
    let image = ContentPart::from_binary_base64("image/png", "aW1hZ2U=", None);
    let call = |id: &str, city: &str| ToolCall {
        call_id: id.to_owned(),
        fn_name: "get_weather".to_owned(),
        fn_arguments: json!({"city": city}),
        thought_signatures: None,
    };
    let request = ChatRequest::from_messages(vec![
        ChatMessage::user(MessageContent::from_parts(vec![ContentPart::Text("Weather?".to_owned()), image])),
        ChatMessage::assistant(MessageContent::from_parts(vec![
            ContentPart::Text("Looking.".to_owned()),
            ContentPart::ToolCall(call("call_a", "Oslo")),
            ContentPart::ToolCall(call("call_b", "Bergen")),
        ])),
        ChatMessage::from(vec![
            ToolResponse::new("call_a", "-4").with_fn_name("get_weather"),
            ToolResponse::new("call_b", "2").with_fn_name("get_weather"),
        ]),
    ])
    .with_system("Be brief.")
    .with_tools(vec![weather()]);
    for kind in Kind::ALL {
        let script = server.script(kind, [Answer::text("Cold.")]);
        let seen = ask(&server, &script, request.clone()).await;
        assert_eq!(seen.text, "Cold.", "{kind:?}: {seen:?}");
        let asked = script.call(1).await.asked;
        assert_eq!(asked.system, "Be brief.", "{kind:?}");
        assert_eq!(asked.tool_names(), ["get_weather"], "{kind:?}");
        assert_eq!(asked.tools[0].parameters["required"], json!(["city"]), "{kind:?}");
        let Turn::User { text, images } = &asked.turns[0] else { panic!("{kind:?}: {:?}", asked.turns) };
        assert_eq!(
            (text.as_str(), images.as_slice()),
            ("Weather?", &["data:image/png;base64,aW1hZ2U=".to_owned()][..])
        );
        let earlier = asked.last_answer();
        let cities: Vec<_> = earlier.calls.iter().map(|call| call.arguments["city"].clone()).collect();
        assert_eq!((earlier.text.as_str(), cities), ("Looking.", vec![json!("Oslo"), json!("Bergen")]), "{kind:?}");
        let results: Vec<_> = asked.last_results().iter().map(|result| result.text.as_str()).collect();
        assert_eq!(results, ["-4", "2"], "{kind:?}");
    }
}

#[tokio::test]
async fn every_failure_is_seen_as_one() {
    let server = ScriptedModel::start().await;
    for kind in Kind::ALL {
        let begun = || Answer::new().says(&["Half a "]);
        let answers = [
            (Answer::refused(Failure::RateLimit(Some(1))), "429"),
            (Answer::refused(Failure::Internal), "500"),
            (Answer::refused(Failure::ContextOverflow), "400"),
            (Answer::hang_up(), ""),
            (begun().ends(End::HangUp), ""),
        ];
        let expected: Vec<_> = answers.iter().map(|(_, word)| *word).collect();
        let script = server.script(kind, answers.into_iter().map(|(answer, _)| answer));
        for word in expected {
            let seen = ask(&server, &script, hello()).await;
            let error = seen.error.unwrap_or_else(|| panic!("{kind:?}: no error {word}"));
            assert!(error.contains(word), "{kind:?}: {error} does not name {word}");
        }
        let script = server.script(kind, [begun().ends(End::Error(Failure::Overload)), begun().ends(End::Cut)]);
        let seen = ask(&server, &script, hello()).await;
        assert_eq!(seen.text, "Half a ", "{kind:?}");
        assert!(seen.error.is_some_and(|error| error.contains("verloaded")), "{kind:?}");
        let seen = ask(&server, &script, hello()).await;
        let reason = seen.end.and_then(|end| end.captured_stop_reason).expect("a reason");
        // The client library does not read the word of this API.
        let is_cut = matches!(reason, StopReason::MaxTokens(_)) || reason.raw() == "incomplete";
        assert!(is_cut, "{kind:?}: {reason:?}");
    }
}

#[tokio::test]
async fn a_gate_holds_an_answer_and_a_caller_that_leaves_is_noticed() {
    let server = ScriptedModel::start().await;
    for kind in Kind::ALL {
        let (gate, never) = (Gate::shut(), Gate::shut());
        let answer = Answer::new().says(&["One. "]).waits(&gate).says(&["Two."]);
        let script = server.script(kind, [answer, Answer::text("Three.").held(&never)]);
        let opening = async {
            gate.arrived(1).await;
            assert_eq!(script.calls()[0].progress, Progress::Open);
            gate.open();
        };
        let (seen, ()) = tokio::join!(ask(&server, &script, hello()), opening);
        assert_eq!(seen.text, "One. Two.", "{kind:?}");
        {
            let mut asking = std::pin::pin!(ask(&server, &script, hello()));
            tokio::select! {
                seen = &mut asking => panic!("{kind:?} answered through a shut gate: {seen:?}"),
                () = never.arrived(1) => {}
            }
        }
        script.was_left(2).await;
    }
}

#[tokio::test]
async fn an_answer_may_depend_on_the_request() {
    let server = ScriptedModel::start().await;
    for kind in Kind::ALL {
        let script = server.function(kind, |asked| Answer::text(&format!("{} turns.", asked.turns.len())));
        assert_eq!(ask(&server, &script, hello()).await.text, "1 turns.", "{kind:?}");
        let more = hello().append_message(ChatMessage::assistant("Hi.")).append_message(ChatMessage::user("And?"));
        assert_eq!(ask(&server, &script, more).await.text, "3 turns.", "{kind:?}");
    }
}

#[tokio::test]
async fn what_no_script_expects_is_told_to_the_test() {
    let server = ScriptedModel::start().await;
    for kind in Kind::ALL {
        let script = server.script(kind, [Answer::text("Once.")]);
        ask(&server, &script, hello()).await;
        let seen = ask(&server, &script, hello()).await;
        assert!(seen.error.is_some_and(|error| error.contains("once more than scripted")), "{kind:?}");
        let faults = server.forgive();
        assert!(faults.len() == 1 && faults[0].contains("once more than scripted"), "{kind:?}: {faults:?}");
    }
    // What a provider would refuse is refused: a call that was never answered.
    let orphan = ToolCall {
        call_id: "call_a".to_owned(),
        fn_name: "get_weather".to_owned(),
        fn_arguments: json!({}),
        thought_signatures: None,
    };
    let request = ChatRequest::from_messages(vec![
        ChatMessage::user("Weather?"),
        ChatMessage::assistant(MessageContent::from_parts(vec![ContentPart::ToolCall(orphan)])),
        ChatMessage::user("And?"),
    ]);
    for kind in Kind::ALL {
        let script = server.script(kind, [Answer::text("Cold.")]);
        ask(&server, &script, request.clone()).await;
        let faults = server.forgive();
        assert!(faults.len() == 1 && faults[0].contains("calls without results"), "{kind:?}: {faults:?}");
    }
}

#[tokio::test]
async fn gemini_takes_both_forms_of_its_names() {
    let server = ScriptedModel::start().await;
    let client = Client::new(server.base());
    let schema = json!({"type": "object", "properties": {"snake_case": {"type": "string"}}});
    let declared =
        |name: &str| json!([{name: [{"name": "look", "description": "", "parameters_json_schema": schema}]}]);
    for (instruction, functions, config) in [
        ("systemInstruction", "functionDeclarations", json!({"thinkingConfig": {"includeThoughts": true}})),
        ("system_instruction", "function_declarations", json!({"thinking_config": {"include_thoughts": true}})),
    ] {
        let script = server.script(Kind::Gemini, [Answer::text("Hello.")]);
        let mut body = json!({"contents": [{"role": "user", "parts": [{"text": "Hi"}]}], "generationConfig": config});
        body[instruction] = json!({"parts": [{"text": "Be brief."}]});
        body["tools"] = declared(functions);
        let path = format!("/gemini/v1beta/models/{}:streamGenerateContent?alt=sse", script.inner.model);
        assert_eq!(client.post_with(&path, &[("x-goog-api-key", KEY)], &body).await.status, 200, "{body}");
        let asked = script.call(1).await.asked;
        assert_eq!((asked.system.as_str(), asked.wants_reasoning), ("Be brief.", true), "{body}");
        assert_eq!(asked.tools[0].parameters, schema, "a client's own names stay as they are");
    }
}

#[tokio::test]
async fn each_version_of_an_api_refuses_what_it_does_not_have() {
    let server = ScriptedModel::start().await;
    let client = Client::new(server.base());
    let bearer = format!("Bearer {KEY}");
    for (version, key, temperature, status) in [
        ("2023-06-01", ("x-api-key", KEY), json!(0.5), 200),
        ("2026-10-21", ("x-api-key", KEY), Value::Null, 200),
        ("2026-10-21", ("authorization", bearer.as_str()), Value::Null, 200),
        ("2026-10-21", ("x-api-key", KEY), json!(1.0), 400),
        ("", ("x-api-key", KEY), Value::Null, 400),
        ("2023-06-01", ("x-api-key", "sk-of-somebody-else"), Value::Null, 400),
    ] {
        let script = server.script(Kind::Anthropic, [Answer::text("Hello.")]);
        let mut body = json!({
            "model": script.inner.model, "stream": true, "max_tokens": 100,
            "messages": [{"role": "user", "content": "Hello?"}],
        });
        if !temperature.is_null() {
            body["temperature"] = temperature.clone();
        }
        let answer = client.post_with("/anthropic/v1/messages", &[("anthropic-version", version), key], &body).await;
        assert_eq!(answer.status, status, "{version} {key:?} {temperature}: {}", answer.body);
        assert_eq!(server.forgive().len(), usize::from(status == 400), "{version} {key:?} {temperature}");
    }
}

#[tokio::test]
async fn the_lists_of_models_come_in_the_providers_pages() {
    let server = ScriptedModel::start().await;
    let client = Client::new(server.base());
    let count = |list: &Value, name: &str| list[name].as_array().map(Vec::len);
    let get = async |path: &str, key: (&'static str, &str)| client.get_with(path, &[key]).await.ok();
    let bearer = format!("Bearer {KEY}");
    let openai = get("/openai/v1/models", ("authorization", &bearer)).await;
    assert_eq!(count(&openai, "data"), Some(2 * MODELS));
    let headers = [("x-api-key", KEY), ("anthropic-version", "2023-06-01")];
    let first = client.get_with("/anthropic/v1/models", &headers).await.ok();
    assert_eq!((count(&first, "data"), &first["has_more"]), (Some(20), &json!(true)));
    let after = first["last_id"].as_str().expect("an id");
    let rest = client.get_with(&format!("/anthropic/v1/models?limit=1000&after_id={after}"), &headers).await.ok();
    assert_eq!((count(&rest, "data"), &rest["has_more"]), (Some(MODELS - 20), &json!(false)));
    let first = get("/gemini/v1beta/models", ("x-goog-api-key", KEY)).await;
    assert_eq!((count(&first, "models"), &first["nextPageToken"]), (Some(50), &json!("50")));
    let rest = get("/gemini/v1beta/models?pageSize=1000&pageToken=50", ("x-goog-api-key", KEY)).await;
    assert_eq!((count(&rest, "models"), &rest["nextPageToken"]), (Some(MODELS - 50), &Value::Null));
    assert!(server.faults().is_empty());
    assert_eq!(client.get("/openai/v1/models").await.status, 400);
    assert_eq!(server.forgive().len(), 1, "no key is a fault");
}
