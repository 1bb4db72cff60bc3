//! What no interface decides: refusals by status, silence, cuts, and where calls go.

use std::time::Duration;

use futures::StreamExt as _;
use serde_json::json;

use super::*;

const PROTOCOLS: [Protocol; 4] = [CHAT, RESPONSES, Protocol::Anthropic, Protocol::Gemini];

/// The first word of an answer in each interface, and what an interrupted answer says with it.
fn half(protocol: Protocol) -> Act {
    match protocol {
        CHAT => events(&[HALF]),
        Protocol::OpenAi(_) => typed(&[
            json!({"type": "response.created", "response": {"id": "r", "status": "in_progress"}}),
            json!({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Half"}),
        ]),
        Protocol::Anthropic => typed(&[
            json!({"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 1}}}),
            json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Half"}}),
        ]),
        Protocol::Gemini => {
            plain(&[json!({"candidates": [{"content": {"role": "model", "parts": [{"text": "Half"}]}}]})])
        }
    }
}

/// An error inside a stream, in each interface: the server has too much to do.
fn overloaded(protocol: Protocol) -> Act {
    match protocol {
        CHAT => events(&[r#"data: {"error":{"code":503,"message":"overloaded","type":"server_error"}}"#]),
        Protocol::OpenAi(_) => typed(&[json!({"type": "response.failed", "response": {
            "id": "r", "status": "failed", "model": "m", "output": [],
            "error": {"code": "server_error", "message": "overloaded"},
        }})]),
        Protocol::Anthropic => {
            typed(&[json!({"type": "error", "error": {"type": "overloaded_error", "message": "overloaded"}})])
        }
        Protocol::Gemini => plain(&[json!({"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}})]),
    }
}

#[tokio::test]
async fn refusals_by_status() {
    for protocol in PROTOCOLS {
        let limited = r#"{"error":{"message":"slow down","type":"rate_limit"}}"#;
        let (_, error) = failure(protocol, refusal("429 Too Many Requests", "retry-after: 7\r\n", limited)).await;
        assert_eq!((error.error_type, error.status), (ErrorType::LlmRateLimit, Some(429)), "{protocol:?}");
        assert_eq!(error.retry_after, Some(Duration::from_secs(7)), "{protocol:?}");
        assert!(error.is_transient && error.message.contains("slow down"), "{protocol:?}: {error}");

        let body = format!(r#"{{"error":{{"message":"Incorrect API key provided: {KEY}."}}}}"#);
        let (_, error) = failure(protocol, refusal("401 Unauthorized", "", &body)).await;
        assert_eq!((error.error_type, error.is_transient), (ErrorType::LlmAuthentication, false), "{protocol:?}");
        assert!(error.message.contains("KEY_SETTING"), "{protocol:?}: {error}");
        assert!(!format!("{error:?}").contains(KEY), "the key must not be shown");

        let (_, error) = failure(protocol, refusal("500 Internal Server Error", "", "oh no")).await;
        assert_eq!((error.error_type, error.is_transient), (ErrorType::LlmError, true), "{protocol:?}");
        assert_eq!(error.detail.as_deref(), Some("oh no"), "{protocol:?}");

        let (_, error) = failure(protocol, refusal("529 Overloaded", "", "{}")).await;
        assert_eq!((error.is_transient, error.status), (true, Some(529)), "{protocol:?}");

        let (_, error) = failure(protocol, refusal("400 Bad Request", "", r#"{"error":{"message":"bad"}}"#)).await;
        let facts = (error.error_type, error.is_transient, error.status, error.is_context_overflow);
        assert_eq!(facts, (ErrorType::LlmError, false, Some(400), false), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_context_that_is_too_long_is_known_as_such() {
    for (protocol, body) in [
        (CHAT, r#"{"error":{"message":"…","type":"invalid_request_error","code":"context_length_exceeded"}}"#),
        (
            CHAT,
            r#"{"error":{"code":400,"message":"…","type":"exceed_context_size_error","n_prompt_tokens":9,"n_ctx":8}}"#,
        ),
        (CHAT, r#"{"object":"error","message":"This model's maximum context length is 4096 tokens. However …"}"#),
        (RESPONSES, r#"{"error":{"message":"Your input exceeds the context window of this model."}}"#),
        (
            Protocol::Anthropic,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 9 tokens > 8 maximum"}}"#,
        ),
        (
            Protocol::Gemini,
            r#"{"error":{"code":400,"message":"The input token count (9) exceeds the maximum number of tokens allowed (8).","status":"INVALID_ARGUMENT"}}"#,
        ),
    ] {
        let (_, error) = failure(protocol, refusal("400 Bad Request", "", body)).await;
        assert!(error.is_context_overflow && !error.is_transient, "{body}: {error:?}");
        assert!(error.message.contains("context too long"), "{body}: {error}");
    }
    // It may also come inside the stream.
    let failed = json!({"type": "response.failed", "response": {"id": "r", "status": "failed", "model": "m", "output": [],
        "error": {"code": "context_length_exceeded", "message": "Your input exceeds the context window of this model."}}});
    let (_, error) = failure(RESPONSES, answering(typed(&[failed]))).await;
    assert!(error.is_context_overflow && !error.is_transient, "{error:?}");
}

#[tokio::test]
async fn special_refusals() {
    let quota = r#"{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}"#;
    let (_, error) = failure(CHAT, refusal("429 Too Many Requests", "", quota)).await;
    assert_eq!((error.error_type, error.is_transient), (ErrorType::LlmRateLimit, false));

    let key = r#"{"error":{"code":400,"message":"API key not valid.","details":[{"reason":"API_KEY_INVALID"}]}}"#;
    let (_, error) = failure(Protocol::Gemini, refusal("400 Bad Request", "", key)).await;
    assert_eq!(error.error_type, ErrorType::LlmAuthentication);

    let pause = r#"{"error":{"code":429,"message":"…","details":[{"@type":"RetryInfo","retryDelay":"34s"}]}}"#;
    let (_, error) = failure(Protocol::Gemini, refusal("429 Too Many Requests", "", pause)).await;
    assert_eq!(error.retry_after, Some(Duration::from_secs(34)));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_no_answer_in_any_interface() {
    for protocol in PROTOCOLS {
        let (deltas, error) = failure(protocol, answering(half(protocol))).await;
        assert_eq!(deltas, [text("Half")], "{protocol:?}");
        assert_eq!((error.error_type, error.is_transient), (ErrorType::LlmError, false), "{protocol:?}");
        assert!(error.message.contains("broke its answer off"), "{protocol:?}: {error}");

        let (deltas, error) = failure(protocol, vec![Act::Send(HEAD.to_owned())]).await;
        assert!(deltas.is_empty() && error.is_transient, "{protocol:?}: nothing is out yet");
    }
}

#[tokio::test]
async fn an_error_inside_a_stream_is_told_in_every_interface() {
    for protocol in PROTOCOLS {
        let (_, error) = failure(protocol, answering(overloaded(protocol))).await;
        assert!(error.is_transient && error.status >= Some(500), "{protocol:?}: {error:?}");
        assert!(error.message.contains("overloaded"), "{protocol:?}: {error}");

        let script = vec![Act::Send(HEAD.to_owned()), half(protocol), overloaded(protocol)];
        let (deltas, error) = failure(protocol, script).await;
        assert_eq!(deltas, [text("Half")], "{protocol:?}");
        assert!(!error.is_transient && error.message.contains("overloaded"), "{protocol:?}: {error}");
    }
}

#[tokio::test]
async fn silence_is_a_timeout_in_every_interface() {
    for protocol in PROTOCOLS {
        let script = vec![Act::Send(HEAD.to_owned()), half(protocol), Act::AwaitClose];
        let (deltas, error) = failure(protocol, script).await;
        assert_eq!(deltas, [text("Half")], "{protocol:?}");
        assert_eq!((error.error_type, error.is_transient), (ErrorType::LlmTimeout, false), "{protocol:?}");
    }
}

const HALF: &str = r#"data: {"choices":[{"index":0,"delta":{"content":"Half"}}]}"#;

#[tokio::test]
async fn an_answer_that_breaks_off() {
    let (deltas, error) = failure(CHAT, vec![Act::Send(HEAD.to_owned()), events(&[HALF])]).await;
    assert_eq!(deltas, [text("Half")]);
    assert_eq!((error.error_type, error.is_transient), (ErrorType::LlmError, false), "a part is out already");

    let (deltas, error) = failure(CHAT, vec![Act::Send(HEAD.to_owned())]).await;
    assert!(deltas.is_empty() && error.is_transient, "nothing is out yet");

    let chunked = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\nff\r\n";
    let (deltas, error) = failure(CHAT, vec![Act::Send(chunked.to_owned()), events(&[HALF])]).await;
    assert_eq!(deltas, [text("Half")]);
    assert_eq!((error.error_type, error.is_transient), (ErrorType::LlmError, false));
}

#[tokio::test]
async fn an_error_object_in_the_stream() {
    let object = r#"data: {"error":{"code":503,"message":"overloaded","type":"server_error"}}"#;
    let (_, error) = failure(CHAT, vec![Act::Send(HEAD.to_owned()), events(&[object])]).await;
    assert_eq!((error.status, error.is_transient), (Some(503), true));
    let (_, error) = failure(CHAT, vec![Act::Send(HEAD.to_owned()), events(&[HALF, object])]).await;
    assert!(!error.is_transient && error.message.contains("overloaded"), "{error}");
    let (_, error) = failure(CHAT, vec![Act::Send(HEAD.to_owned()), events(&["data: {no json"])]).await;
    assert_eq!((error.error_type, error.is_transient), (ErrorType::LlmError, true));
}

#[tokio::test]
async fn silence_is_a_timeout_and_comments_are_none() {
    let (deltas, error) = failure(CHAT, vec![Act::AwaitClose]).await;
    assert_eq!((deltas.len(), error.error_type, error.is_transient), (0, ErrorType::LlmTimeout, true));

    let (deltas, error) = failure(CHAT, vec![Act::Send(HEAD.to_owned()), events(&[HALF]), Act::AwaitClose]).await;
    assert_eq!((deltas.len(), error.error_type, error.is_transient), (1, ErrorType::LlmTimeout, false));

    let mut script = vec![Act::Send(HEAD.to_owned()), events(&[HALF])];
    for _ in 0..4 {
        script.push(Act::Pause(Duration::from_millis(200)));
        script.push(Act::Send(": patience\n\n".to_owned()));
    }
    script.push(events(&["data: [DONE]"]));
    assert_eq!(answer(CHAT, script).await.len(), 2);
}

#[tokio::test]
async fn a_call_takes_no_longer_than_allowed() {
    let mut script = vec![Act::Send(HEAD.to_owned()), events(&[HALF])];
    for _ in 0..20 {
        script.push(Act::Pause(Duration::from_millis(200)));
        script.push(Act::Send(": patience\n\n".to_owned()));
    }
    let (deltas, error) = failure(CHAT, script).await;
    assert_eq!((deltas.len(), error.error_type), (1, ErrorType::LlmTimeout));
}

#[tokio::test]
async fn dropping_the_answer_closes_the_connection() {
    let (provider, server) = server(CHAT, vec![Act::Send(HEAD.to_owned()), events(&[HALF]), Act::AwaitClose]).await;
    let mut stream = provider.stream(request(CHAT)).await.expect("a stream");
    assert_eq!(stream.next().await, Some(Ok(text("Half"))));
    drop(stream);
    let closed = tokio::time::timeout(Duration::from_secs(5), server).await;
    closed.expect("the end of the connection").expect("a server that saw the end");
}

#[tokio::test]
async fn a_server_that_is_not_there() {
    // Nobody listens on port 1.
    let provider = provider(CHAT, "http://user:password@127.0.0.1:1/v1/", None);
    let error = provider.stream(request(CHAT)).await.err().expect("an error");
    assert_eq!((error.error_type, error.is_transient), (ErrorType::LlmError, true));
    assert!(error.message.contains(" http://127.0.0.1:1/v1 "), "{error}");
    assert!(error.message.contains("URL_SETTING"), "{error}");
    assert!(!format!("{error:?}").contains("password"));
}

#[tokio::test]
async fn a_delta_is_given_out_before_the_next_one_comes() {
    for protocol in PROTOCOLS {
        let (provider, server) =
            server(protocol, vec![Act::Send(HEAD.to_owned()), half(protocol), Act::AwaitClose]).await;
        let mut stream = provider.stream(request(protocol)).await.expect("a stream");
        assert_eq!(stream.next().await, Some(Ok(text("Half"))), "{protocol:?}");
        drop(stream);
        let closed = tokio::time::timeout(Duration::from_secs(5), server).await;
        closed.expect("the end of the connection").expect("a server that saw the end");
    }
}

#[tokio::test]
async fn without_a_key_none_is_sent() {
    for key in [None, Some("")] {
        let (with_key, server) = server(CHAT, answering(events(&["data: [DONE]"]))).await;
        let provider = provider(CHAT, with_key.base_url(), key);
        let _ = provider.stream(request(CHAT)).await.expect("a stream");
        let seen = server.await.expect("a server");
        assert!(seen.head.starts_with("post /v1/chat/completions http/1.1"), "{}", seen.head);
        assert!(!seen.head.contains("authorization"), "{}", seen.head);
    }
}
