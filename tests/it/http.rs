//! HTTP itself: which methods paths know, who may call from a browser, keys, and both versions of the protocol.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use super::client::{Answer, Client};
use super::harness::{Dev, background, directory, settings};

const PAGE: &str = "https://app.example";
const KEY: &str = "sesame-street";
/// The SHA-256 of [`KEY`].
const KEY_HASH: &str = "sha256:26005568bcdd4aef46d13b8d02525c8662223f68259f7c6233dbd8b7a81dc2a5";

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.get(name).map(|value| value.to_str().expect("text"))
}

/// What a browser asks before it sends a page's request with a key.
async fn preflight(client: &Client, origin: &str) -> Answer {
    let asked = [
        ("origin", origin),
        ("access-control-request-method", "PATCH"),
        ("access-control-request-headers", "authorization,content-type,x-stainless-lang"),
    ];
    client.ask("OPTIONS", "/v1/agents/", &asked).await
}

#[tokio::test]
async fn pages_of_named_origins_may_call_and_no_others() {
    let data = directory();
    let origins = format!("http://localhost:3000,{PAGE}");
    let given = settings([("HOLDFAST_CORS_ORIGINS", origins.as_str()), ("HOLDFAST_API_KEYS", KEY)]);
    let dev = Dev::start_with(data.path(), given).await;
    let (stranger, friend) = (dev.client.clone(), dev.client.with_key(KEY));

    let answer = preflight(&stranger, PAGE).await;
    assert_eq!(answer.status, 200, "a preflight comes without a key");
    assert_eq!(header(&answer, "access-control-allow-origin"), Some(PAGE));
    assert_eq!(header(&answer, "access-control-allow-headers"), Some("authorization,content-type,x-stainless-lang"));
    assert!(header(&answer, "access-control-allow-methods").is_some_and(|methods| methods.contains("PATCH")));
    assert_eq!(header(&answer, "access-control-allow-credentials"), None);

    let answer = stranger.get_with("/v1/agents/", &[("origin", PAGE)]).await;
    assert_eq!(
        (answer.status, header(&answer, "access-control-allow-origin")),
        (401, Some(PAGE)),
        "a readable refusal"
    );
    let answer = friend.get_with("/v1/agents/", &[("origin", PAGE)]).await;
    assert_eq!((answer.status, header(&answer, "access-control-allow-origin")), (200, Some(PAGE)));
    assert!(header(&answer, "access-control-expose-headers").is_some_and(|shown| shown.contains("x-letta-run-id")));

    for origin in ["https://evil.example", "https://app.example:8443", "http://app.example", "null"] {
        let answer = preflight(&stranger, origin).await;
        assert_eq!(header(&answer, "access-control-allow-origin"), None, "{origin}");
        let answer = friend.get_with("/v1/agents/", &[("origin", origin)]).await;
        assert_eq!(header(&answer, "access-control-allow-origin"), None, "{origin}");
    }
}

#[tokio::test]
async fn a_star_lets_in_every_page_and_nothing_lets_in_none() {
    let data = directory();
    let dev = Dev::start_with(data.path(), settings([("HOLDFAST_CORS_ORIGINS", "*")])).await;
    let answer = preflight(&dev.client, "null").await;
    assert_eq!((answer.status, header(&answer, "access-control-allow-origin")), (200, Some("*")));

    let data = directory();
    let dev = Dev::start(data.path()).await;
    let answer = preflight(&dev.client, PAGE).await;
    assert_eq!((answer.status, header(&answer, "access-control-allow-origin")), (405, None));
    assert_eq!(header(&answer, "allow"), Some("GET,HEAD,POST"));
    let answer = dev.client.get_with("/v1/agents/", &[("origin", PAGE)]).await;
    assert_eq!((answer.status, header(&answer, "access-control-allow-origin")), (200, None));
}

#[tokio::test]
async fn a_key_that_the_settings_know_by_its_hash_opens() {
    let data = directory();
    let keys = format!("team={KEY_HASH},other-key-in-clear");
    let dev = Dev::start_with(data.path(), settings([("HOLDFAST_API_KEYS", keys.as_str())])).await;
    assert_eq!(dev.client.get("/v1/agents/").await.status, 401);
    for wrong in [KEY_HASH, "sesame", "sesame-street2", &KEY_HASH[7..]] {
        let answer = dev.client.with_key(wrong).get("/v1/agents/").await;
        assert_eq!((answer.status, answer.body), (401, json!({"detail": "Unauthorized"})), "{wrong}");
    }
    let made = dev.client.with_key(KEY).post("/v1/agents/", &json!({"name": "ours"})).await.ok();
    let path = format!("/v1/agents/{}", made["id"].as_str().expect("an id"));
    assert_eq!(dev.client.with_key("other-key-in-clear").get(&path).await.status, 404, "another tenant's");
    for (path, query) in [("/v1/agents/", "?api_key="), ("/v1/agents/", "?key="), ("/v1/agents/", "?token=")] {
        assert_eq!(dev.client.get(&format!("{path}{query}{KEY}")).await.status, 401, "keys are not read from a query");
    }
    for open in ["/v1/health", "/v1/health/", "/v1/ready", "/v1/ready/", "/openapi.json", "/docs"] {
        assert_eq!(dev.client.get(open).await.status, 200, "{open}");
    }
}

#[tokio::test]
async fn paths_say_which_methods_they_know() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let agent = dev.client.create_agent().await;
    for (path, allowed) in [
        ("/v1/agents".to_owned(), "GET,HEAD,POST"),
        (format!("/v1/agents/{agent}"), "GET,HEAD,PATCH,DELETE"),
        (format!("/v1/agents/{agent}/messages/stream/"), "POST"),
    ] {
        for method in ["PUT", "OPTIONS", "TRACE", "BREW"] {
            let answer = dev.client.ask(method, &path, &[]).await;
            assert_eq!((answer.status, header(&answer, "allow")), (405, Some(allowed)), "{method} {path}");
            assert_eq!(answer.body, json!({"detail": "Method Not Allowed"}));
        }
    }
    let answer = dev.client.ask("HEAD", &format!("/v1/agents/{agent}"), &[]).await;
    assert_eq!((answer.status, header(&answer, "content-type")), (200, Some("application/json")));
}

/// Passes connections on and counts them.
async fn counting_proxy(to: String) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut inside, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut outside = TcpStream::connect(&to).await.expect("the server");
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut inside, &mut outside).await });
        }
    });
    (base, count)
}

/// Every header of a stream, and two streams beside each other on one connection of HTTP/2.
#[tokio::test]
async fn streams_come_over_both_versions_of_http() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    let agent = dev.client.create_agent().await;
    let other = dev.client.create_agent().await;
    let (base, connections) = counting_proxy(dev.client.base.trim_start_matches("http://").to_owned()).await;
    let path = |agent: &str| format!("{base}/v1/agents/{agent}/messages/stream");

    let builder = || reqwest::Client::builder().no_proxy();
    let two = builder().http2_prior_knowledge().build().expect("a client");
    let one = builder().http1_only().build().expect("a client");
    for (http, version) in [(&one, reqwest::Version::HTTP_11), (&two, reqwest::Version::HTTP_2)] {
        let response = http.post(path(&agent)).json(&background("hello")).send().await.expect("an answer");
        assert_eq!((response.status().as_u16(), response.version()), (200, version));
        let header = |name: &str| response.headers().get(name).map(|value| value.to_str().expect("text"));
        assert_eq!(header("content-type"), Some("text/event-stream; charset=utf-8"));
        assert_eq!(header("cache-control"), Some("no-cache"));
        assert_eq!(header("x-accel-buffering"), Some("no"));
        assert_eq!(header("content-length"), None);
        assert!(header("x-letta-run-id").is_some_and(|run| run.starts_with("run-")));
        let text = response.text().await.expect("a whole stream");
        assert!(text.ends_with("data: [DONE]\n\n") && !text.contains("\nid:"), "{text}");
    }

    let before = connections.load(Ordering::SeqCst);
    let open = async |agent: &str| {
        let body = background("[[demo tokens=1000 delay_ms=20]]");
        two.post(path(agent)).json(&body).send().await.expect("an answer").bytes_stream()
    };
    let (mut left, mut right) = (open(&agent).await, open(&other).await);
    // Both go on while neither has ended: twenty seconds of tokens are not over yet.
    for _ in 0..3 {
        left.next().await.expect("more").expect("bytes");
        right.next().await.expect("more").expect("bytes");
    }
    assert_eq!(connections.load(Ordering::SeqCst), before, "both streams share the connection that was there");
}
