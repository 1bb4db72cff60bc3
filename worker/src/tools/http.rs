//! Tools that are HTTP requests.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_shared::domain::limits::{HTTP_TOOL_BYTES, TOOL_ERROR_CHARS};
use holdfast_shared::domain::secret::Secret;
use holdfast_shared::domain::tool::{HttpEndpoint, ToolCall, ToolReturn};
use holdfast_shared::outbound::{Answer, Outbound, OutboundError, Request};
use holdfast_shared::wire::http_endpoint::{Mark, Template};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use serde_json::{Map, Value};

use super::{Arguments, ToolError, first_chars, kind};

/// Until a connection is there.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What is escaped in a path: all but the unreserved characters (RFC 3986).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Carries a call out. The id of the call goes along as its idempotency key; dropping the future ends the request.
/// A failing request is a result like any other.
pub async fn execute(
    outbound: &Outbound,
    endpoint: &HttpEndpoint,
    call: &ToolCall,
    secrets: &BTreeMap<String, Secret>,
    timeout: Duration,
) -> ToolReturn {
    let request = match request(endpoint, call, secrets, timeout) {
        Ok(request) => request,
        Err(error) => return error.into_return(call),
    };
    match outbound.send(request).await {
        Ok(answer) if answer.status.is_success() => ToolReturn::success(call, text(&answer)),
        Ok(answer) => failed(call, &format!("status {}: {}", answer.status, text(&answer))),
        Err(error @ OutboundError::TimedOut(_)) => {
            failed(call, &format!("{error}; the tool's own timeout or HOLDFAST_TOOL_TIMEOUT_MS sets the limit"))
        }
        Err(error) => failed(call, &error.to_string()),
    }
}

fn failed(call: &ToolCall, what: &str) -> ToolReturn {
    let text = format!("Error executing function {}: HTTPError: {what}", call.name);
    ToolReturn::error(call, first_chars(&text, TOOL_ERROR_CHARS).to_owned())
}

fn text(answer: &Answer) -> String {
    let text = String::from_utf8_lossy(&answer.body).replace('\0', "");
    if answer.is_cut { format!("{text}\n[The answer was cut after {HTTP_TOOL_BYTES} bytes.]") } else { text }
}

fn request(
    endpoint: &HttpEndpoint,
    call: &ToolCall,
    secrets: &BTreeMap<String, Secret>,
    timeout: Duration,
) -> Result<Request, ToolError> {
    let Arguments(mut arguments) = Arguments::read(call)?;
    let mut url = url(&endpoint.url, &mut arguments)?;
    let unusable = |what: &str| ToolError::Value(format!("the tool's definition is unusable: {what}"));
    let method = Method::from_bytes(endpoint.method.as_bytes()).map_err(|_| unusable("the method"))?;
    let mut headers = headers(&endpoint.headers, secrets)?;
    headers.insert(HeaderName::from_static("idempotency-key"), idempotency_key(&call.id));
    let body = if matches!(method, Method::GET | Method::DELETE) {
        add_to_query(&mut url, &arguments);
        None
    } else {
        headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
        Some(Value::Object(arguments).to_string().into_bytes())
    };
    Ok(Request { method, url, headers, body, timeout, max_bytes: HTTP_TOOL_BYTES })
}

/// The URL with the arguments in its path, which are taken out of the others.
fn url(template: &str, arguments: &mut Map<String, Value>) -> Result<Url, ToolError> {
    let unusable = |_| ToolError::Value("the tool's definition is unusable: the URL".to_owned());
    let parsed = Template::parse(template, Mark::Brace).map_err(unusable)?;
    let filled = parsed.fill(|name| {
        let value = arguments.get(name).filter(|value| !value.is_null());
        let value = value.ok_or_else(|| ToolError::Type(format!("missing a required argument: '{name}'")))?;
        let text = plain(value).ok_or_else(|| {
            ToolError::Type(format!("'{name}' must be a string, a number or a boolean, not {}", kind(value)))
        })?;
        // Nothing, or the steps '.' and '..', would name another resource than the definition means.
        if text.trim_matches('.').is_empty() {
            return Err(ToolError::Value(format!("'{name}' must not be empty and not consist of dots")));
        }
        Ok(utf8_percent_encode(&text, RESERVED).to_string())
    })?;
    let names = parsed.names().map(str::to_owned).collect::<Vec<_>>();
    arguments.retain(|name, _| !names.contains(name));
    Url::parse(&filled).map_err(|error| unusable(error.to_string()))
}

fn headers(templates: &BTreeMap<String, String>, secrets: &BTreeMap<String, Secret>) -> Result<HeaderMap, ToolError> {
    let mut headers = HeaderMap::new();
    for (name, template) in templates {
        let unusable = || ToolError::Value(format!("the tool's header '{name}' is unusable"));
        let parsed = Template::parse(template, Mark::DollarBrace).map_err(|_| unusable())?;
        let value = parsed.fill(|secret| match secrets.get(secret) {
            Some(secret) => Ok(secret.expose().to_owned()),
            None => Err(ToolError::Value(format!("the agent has no secret '{secret}', which the tool needs"))),
        })?;
        let mut value = HeaderValue::from_str(&value).map_err(|_| unusable())?;
        value.set_sensitive(true);
        headers.insert(name.parse::<HeaderName>().map_err(|_| unusable())?, value);
    }
    Ok(headers)
}

/// The id as it is, or escaped where a header could not hold it.
fn idempotency_key(id: &str) -> HeaderValue {
    HeaderValue::from_str(id).unwrap_or_else(|_| {
        let escaped = utf8_percent_encode(id, RESERVED).to_string();
        HeaderValue::try_from(escaped).unwrap_or(HeaderValue::from_static(""))
    })
}

fn add_to_query(url: &mut Url, arguments: &Map<String, Value>) {
    let pairs = arguments.iter().flat_map(|(name, value)| match value {
        // A list is the same name several times, as forms send it.
        Value::Array(items) if items.iter().all(|item| plain(item).is_some()) => {
            items.iter().filter_map(plain).map(|text| (name, text)).collect()
        }
        Value::Null => Vec::new(),
        other => vec![(name, plain(other).unwrap_or_else(|| other.to_string()))],
    });
    let pairs: Vec<_> = pairs.collect();
    if !pairs.is_empty() {
        url.query_pairs_mut().extend_pairs(pairs);
    }
}

/// A value that has no parts, without quotes.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use holdfast_shared::domain::tool::ToolStatus;
    use holdfast_shared::models::install_tls_provider_for_tests;
    use holdfast_shared::testkit::http_server::{HttpServer, Received, Reply};
    use holdfast_shared::wire::http_endpoint;
    use serde_json::json;

    use super::super::tests::call;
    use super::*;

    fn outbound(allow: &str) -> Outbound {
        install_tls_provider_for_tests();
        Outbound::new(&allow.parse().expect("a list"), Duration::from_secs(10)).expect("a client")
    }

    fn secrets() -> BTreeMap<String, Secret> {
        BTreeMap::from([("KEY".to_owned(), Secret::new("s3cret".to_owned()))])
    }

    async fn run(server: &HttpServer, definition: &Value, arguments: &Value) -> ToolReturn {
        let endpoint = http_endpoint::parse(&definition.to_string()).expect("a definition");
        let client = outbound(&server.address.to_string());
        execute(&client, &endpoint, &call("tool", &arguments.to_string()), &secrets(), Duration::from_secs(10)).await
    }

    fn last(server: &HttpServer) -> Received {
        server.received().pop().expect("a request")
    }

    #[tokio::test]
    async fn arguments_go_where_the_method_wants_them() {
        let server = HttpServer::start(|_| Reply::of(200, "application/json", "{\"a\":1}")).await;
        let all = json!({"n": 5, "none": null, "o": {"k": [1]}, "q": "a b&c", "tags": ["x", "y"], "yes": true});
        for (method, url, arguments, target, body) in [
            (
                "GET",
                "/search?fixed=1",
                all.clone(),
                "/search?fixed=1&n=5&o=%7B%22k%22%3A%5B1%5D%7D&q=a+b%26c&tags=x&tags=y&yes=true",
                "",
            ),
            ("DELETE", "/items/{id}", json!({"id": 7, "force": true}), "/items/7?force=true", ""),
            ("GET", "/items/{id}", json!({"id": "a/../b?c#d%20ü"}), "/items/a%2F..%2Fb%3Fc%23d%2520%C3%BC", ""),
            ("GET", "/{a}/x{b}.json", json!({"a": "1.5", "b": 2.5}), "/1.5/x2.5.json", ""),
            ("GET", "/plain", json!({}), "/plain", ""),
            ("POST", "/items/{id}?v=2", json!({"id": "x", "o": {"k": [1]}}), "/items/x?v=2", "{\"o\":{\"k\":[1]}}"),
            ("PUT", "/", json!({"q": "ü"}), "/", "{\"q\":\"ü\"}"),
            ("PATCH", "/", json!({}), "/", "{}"),
        ] {
            let definition = json!({"url": server.url(url), "method": method});
            let result = run(&server, &definition, &arguments).await;
            assert_eq!(result, ToolReturn::success(&call("tool", ""), "{\"a\":1}".to_owned()), "{method} {url}");
            let received = last(&server);
            assert_eq!((received.method.as_str(), received.target.as_str()), (method, target));
            assert_eq!(String::from_utf8(received.body).expect("UTF-8"), body, "{method} {url}");
            let media_type = received.headers.get("content-type").map(String::as_str);
            assert_eq!(media_type, (!body.is_empty()).then_some("application/json"));
            assert_eq!(received.headers["idempotency-key"], "call_1");
        }
    }

    #[tokio::test]
    async fn secrets_go_into_headers_and_nowhere_else() {
        let server = HttpServer::start(|_| Reply::of(403, "text/plain", "no")).await;
        let headers = json!({"Authorization": "Bearer ${KEY}", "x-two": "${KEY}.${KEY}", "content-type": "text/x"});
        let definition = json!({"url": server.url("/"), "headers": headers});
        let result = run(&server, &definition, &json!({"text": "${KEY}"})).await;
        let received = last(&server);
        assert_eq!(received.headers["authorization"], "Bearer s3cret");
        assert_eq!(received.headers["x-two"], "s3cret.s3cret");
        assert_eq!(received.headers["content-type"], "text/x");
        assert_eq!(received.body, b"{\"text\":\"${KEY}\"}");
        assert!(!format!("{result:?}").contains("s3cret"));
        let definition = json!({"url": server.url("/"), "headers": {"x": "${OTHER}"}});
        let result = run(&server, &definition, &json!({})).await;
        assert!(result.text.contains("no secret 'OTHER'"), "{}", result.text);
        assert_eq!(server.received().len(), 1, "nothing is sent without it");
    }

    #[tokio::test]
    async fn arguments_that_do_not_fit_are_not_sent() {
        let server = HttpServer::start(|_| Reply::of(200, "text/plain", "")).await;
        let definition = json!({"url": server.url("/{id}/x"), "method": "GET"});
        for (arguments, reason) in [
            (json!({}), "TypeError: missing a required argument: 'id'"),
            (json!({"id": null}), "TypeError: missing"),
            (json!({"id": ["a"]}), "TypeError: 'id' must be a string, a number or a boolean, not an array"),
            (json!({"id": ""}), "ValueError: 'id'"),
            (json!({"id": "."}), "ValueError: 'id'"),
            (json!({"id": ".."}), "ValueError: 'id'"),
            (json!("id"), "TypeError: the arguments must be an object"),
        ] {
            let result = run(&server, &definition, &arguments).await;
            assert_eq!(result.status, ToolStatus::Error, "{arguments}");
            assert!(result.text.contains(reason), "{arguments}: {}", result.text);
        }
        assert!(server.received().is_empty());
    }

    #[tokio::test]
    async fn answers_that_are_no_success_are_errors_with_their_start() {
        let server = HttpServer::start(|request| match request.target.as_str() {
            "/204" => Reply::of(204, "text/plain", ""),
            "/500" => Reply::of(500, "text/plain", format!("it broke {}", "x".repeat(5000))),
            "/moved" => Reply::redirect(302, "http://10.0.0.1/"),
            "/nul" => Reply::of(200, "text/plain", "a\0b\u{ff}"),
            _ => Reply::of(418, "text/plain", "teapot"),
        })
        .await;
        for (path, status, text) in [
            ("/204", ToolStatus::Success, ""),
            ("/nul", ToolStatus::Success, "abÿ"),
            ("/x", ToolStatus::Error, "Error executing function tool: HTTPError: status 418 I'm a teapot: teapot"),
        ] {
            let result = run(&server, &json!({"url": server.url(path)}), &json!({})).await;
            assert_eq!((result.status, result.text.as_str(), result.was_executed), (status, text, true), "{path}");
        }
        let result = run(&server, &json!({"url": server.url("/500")}), &json!({})).await;
        assert!(result.text.contains("HTTPError: status 500 Internal Server Error: it broke xxx"), "{}", result.text);
        assert_eq!(result.text.chars().count(), TOOL_ERROR_CHARS);
        let result = run(&server, &json!({"url": server.url("/moved")}), &json!({})).await;
        assert!(result.text.contains("HOLDFAST_OUTBOUND_ALLOW"), "{}", result.text);
    }

    #[tokio::test]
    async fn large_answers_are_cut_with_a_note() {
        let server = HttpServer::start(|_| Reply::of(200, "text/plain", vec![b'x'; HTTP_TOOL_BYTES + 1])).await;
        let result = run(&server, &json!({"url": server.url("/")}), &json!({})).await;
        assert_eq!(result.status, ToolStatus::Success);
        assert!(result.text.ends_with(&format!("x\n[The answer was cut after {HTTP_TOOL_BYTES} bytes.]")));
    }

    #[tokio::test]
    async fn a_slow_answer_names_the_setting() {
        let server = HttpServer::start(|_| Reply::Never).await;
        let endpoint = http_endpoint::parse(&server.url("/")).expect("a definition");
        let client = outbound(&server.address.to_string());
        let timeout = Duration::from_millis(50);
        let result = execute(&client, &endpoint, &call("tool", "{}"), &secrets(), timeout).await;
        assert_eq!(result.status, ToolStatus::Error);
        assert!(result.text.contains("50 ms") && result.text.contains("HOLDFAST_TOOL_TIMEOUT_MS"), "{}", result.text);
    }

    #[test]
    fn ids_that_no_header_holds_are_escaped() {
        assert_eq!(idempotency_key("call_1"), "call_1");
        assert_eq!(idempotency_key("a\nb"), "a%0Ab");
    }
}
