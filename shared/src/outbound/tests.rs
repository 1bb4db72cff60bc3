use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::*;
use crate::models::install_tls_provider_for_tests;
use crate::testkit::http_server::{HttpServer, Received, Reply};

const SOON: Duration = Duration::from_secs(10);

fn outbound(allow: &str) -> Outbound {
    install_tls_provider_for_tests();
    Outbound::new(&allow.parse().expect("a list"), SOON).expect("a client")
}

fn get(url: &str) -> Request {
    Request {
        method: Method::GET,
        url: Url::parse(url).expect("a URL"),
        headers: HeaderMap::new(),
        body: None,
        timeout: SOON,
        max_bytes: 1024,
    }
}

async fn hello() -> HttpServer {
    HttpServer::start(|_| Reply::of(200, "Text/Plain; charset=utf-8", "hello")).await
}

/// Names from a script: each look-up takes the next list, and the last one stays.
struct Script(Mutex<VecDeque<Vec<IpAddr>>>);

impl Script {
    fn lookup(lists: &[&[&str]]) -> Arc<dyn Lookup> {
        let parsed = |list: &&[&str]| list.iter().map(|address| address.parse().expect("an address")).collect();
        Arc::new(Self(Mutex::new(lists.iter().map(parsed).collect())))
    }
}

impl Lookup for Script {
    fn addresses(&self, _: String) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> {
        let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = if lists.len() > 1 { lists.pop_front() } else { lists.front().cloned() };
        Box::pin(async move { next.ok_or_else(|| std::io::Error::other("no such name")) })
    }
}

#[test]
fn only_the_public_internet_is_public() {
    for address in [
        "1.1.1.1",
        "8.8.8.8",
        "100.63.255.255",
        "100.128.0.1",
        "172.15.0.1",
        "172.32.0.1",
        "169.253.0.1",
        "192.0.1.1",
        "198.17.0.1",
        "198.20.0.1",
        "223.255.255.255",
        "168.63.129.17",
        "2606:4700:4700::1111",
        "2001:4860:4860::8888",
        "2a00::1",
        "::ffff:1.1.1.1",
        "64:ff9b::808:808",
        "2002:808:808::1",
    ] {
        assert!(is_public(address.parse().expect(address)), "{address} is public");
    }
    for address in [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.1",
        "100.100.100.200",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.9",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::1.1.1.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:0:1.1.1.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::808:808",
        "2002:7f00:1::",
        "2002:a00:1::1",
        "2002:c0a8:1::1",
        "2001::1",
        "2001:0:4136:e378::1",
        "2001:2::1",
        "2001:10::1",
        "2001:db8::1",
        "3fff::1",
        "100::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "5f00::1",
        "4000::1",
    ] {
        assert!(!is_public(address.parse().expect(address)), "{address} is not public");
    }
}

/// However it is written, what is inside is refused before anything is connected to.
#[tokio::test]
async fn closed_addresses_are_refused_in_every_disguise() {
    let server = hello().await;
    let port = server.address.port();
    let client = outbound("");
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.1.",
        "%31%32%37.0.0.1",
        "１２７.0.0.1",
        "127。0。0。1",
        "user:secret@127.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
        "0.0.0.0",
        "0",
        "localhost",
        "LOCALHOST.",
        "169.254.169.254",
        "[fd00:ec2::254]",
    ] {
        let url = format!("http://{host}:{port}/");
        let error = client.send(get(&url)).await.expect_err(&url);
        assert!(matches!(error, OutboundError::Refused(_)), "{url}: {error:?}");
        assert!(error.to_string().contains("HOLDFAST_OUTBOUND_ALLOW"), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    assert_eq!(server.received().len(), 0, "nothing was connected to");
}

#[tokio::test]
async fn what_is_inside_and_what_does_not_exist_look_the_same() {
    install_tls_provider_for_tests();
    let closed = hello().await.address.port();
    let open = hello().await;
    let ask = async |lists: &[&[&str]], port: u16| {
        let client = Outbound::with_lookup(&Allow::default(), SOON, &Script::lookup(lists)).expect("a client");
        client.send(get(&format!("http://inside.test:{port}/"))).await.expect_err("closed").to_string()
    };
    let inside = ask(&[&["127.0.0.1"]], open.address.port()).await;
    assert_eq!(inside, ask(&[&["127.0.0.1"]], closed).await, "no service there");
    assert_eq!(inside, ask(&[], closed).await, "no such name");
    assert_eq!(inside, ask(&[&[]], closed).await, "no address");
}

#[tokio::test]
async fn exceptions_open_hosts_addresses_networks_and_ports() {
    let server = hello().await;
    let port = server.address.port();
    let other = if port == 1 { 2 } else { 1 };
    for (allow, host, is_open) in [
        ("127.0.0.1".to_owned(), "127.0.0.1", true),
        ("127.0.0.0/8".to_owned(), "127.0.0.1", true),
        (format!("127.0.0.1:{port}"), "127.0.0.1", true),
        (format!("127.0.0.1:{port}"), "localhost", true),
        (format!("127.0.0.0/8:{port}"), "[::ffff:127.0.0.1]", true),
        (format!("10.0.0.0/8, [::1]:{port},Localhost:{port}"), "localhost", true),
        ("localhost".to_owned(), "localhost", true),
        ("0.0.0.0/0, ::/0".to_owned(), "127.0.0.1", true),
        (format!("127.0.0.1:{other}"), "127.0.0.1", false),
        (format!("localhost:{other}"), "localhost", false),
        ("localhost".to_owned(), "127.0.0.1", false),
        ("127.0.0.2".to_owned(), "127.0.0.1", false),
        ("::1".to_owned(), "127.0.0.1", false),
    ] {
        let answer = outbound(&allow).send(get(&format!("http://{host}:{port}/"))).await;
        assert_eq!(answer.is_ok(), is_open, "{allow} for {host}: {answer:?}");
    }
}

#[test]
fn exceptions_are_read_or_refused() {
    for text in [
        "",
        " , ",
        "10.0.0.0/8",
        "fd00::/8,::1",
        "[fd00::/8]:443",
        "a.example:80",
        "under_score",
        "xn--bcher-kva.example",
    ] {
        assert!(text.parse::<Allow>().is_ok(), "{text}");
    }
    for text in [
        "10.0.0.0/33",
        "10.0.0.0/8:0",
        "10.0.0.0/8:70000",
        "[::1",
        "[a.example]:80",
        "http://a.example",
        "a b",
        "a/8",
        "*.example",
        "127.1",
        "0x7f000001",
        "[fd00::/8]443",
    ] {
        let error = text.parse::<Allow>().expect_err(text);
        assert!(error.contains(text), "{error}");
    }
}

/// A name whose addresses change between the look-ups: each connection is to an address that was checked.
#[tokio::test]
async fn a_name_that_changes_its_mind_gains_nothing() {
    install_tls_provider_for_tests();
    let server = hello().await;
    let port = server.address.port();
    // An exception for the address that the server really has stands for a public address.
    let allow: Allow = format!("127.0.0.1:{port}").parse().expect("a list");
    let lookup = Script::lookup(&[&["127.0.0.1"], &["127.0.0.2"]]);
    let client = Outbound::with_lookup(&allow, SOON, &lookup).expect("a client");
    let url = format!("http://rebind.test:{port}/");
    client.send(get(&url)).await.expect("the first address is open");
    let error = client.send(get(&url)).await.expect_err("the second is not");
    assert_eq!(error, OutboundError::Refused("rebind.test".to_owned()));
    assert_eq!(server.received().len(), 1);
}

#[tokio::test]
async fn of_mixed_addresses_only_the_open_ones_are_tried() {
    install_tls_provider_for_tests();
    let server = hello().await;
    let port = server.address.port();
    let allow: Allow = format!("127.0.0.1:{port}").parse().expect("a list");
    let lookup = Script::lookup(&[&["127.0.0.2", "10.0.0.1", "127.0.0.1"]]);
    let client = Outbound::with_lookup(&allow, SOON, &lookup).expect("a client");
    client.send(get(&format!("http://mixed.test:{port}/"))).await.expect("an answer");
    assert_eq!(server.received().len(), 1);
}

#[tokio::test]
async fn redirects_are_checked_each() {
    let inside = hello().await;
    let target = inside.url("/secret");
    let server = HttpServer::start(move |request| match request.target.as_str() {
        "/inside" => Reply::redirect(302, target.clone()),
        "/localhost" => Reply::redirect(307, target.replace("127.0.0.1", "localhost")),
        "/file" => Reply::redirect(301, "file:///etc/passwd"),
        "/bad" => Reply::redirect(301, "http://[::"),
        "/loop" => Reply::redirect(302, "/loop"),
        "/twice" => Reply::redirect(301, "once?x=1"),
        "/once?x=1" => Reply::redirect(308, "/end"),
        _ => Reply::of(200, "text/plain", "the end"),
    })
    .await;
    let client = outbound(&server.address.to_string());
    let answer = client.send(get(&server.url("/twice"))).await.expect("an answer");
    assert_eq!(answer.body, b"the end");
    for (path, expected) in [
        ("/inside", OutboundError::Refused("127.0.0.1".to_owned())),
        ("/localhost", OutboundError::Refused("localhost".to_owned())),
        ("/file", OutboundError::BadUrl("file:///etc/passwd".to_owned())),
        ("/bad", OutboundError::BadUrl("http://[::".to_owned())),
        ("/loop", OutboundError::TooManyRedirects),
    ] {
        assert_eq!(client.send(get(&server.url(path))).await.expect_err(path), expected, "{path}");
    }
    assert_eq!(inside.received().len(), 0);
    let loops = server.received().iter().filter(|request| request.target == "/loop").count();
    assert_eq!(loops, REDIRECTS + 1);
}

fn posted(url: &str) -> Request {
    let mut request = get(url);
    request.method = Method::POST;
    request.body = Some(b"{}".to_vec());
    for (name, value) in [
        ("authorization", "secret"),
        ("x-key", "secret"),
        ("idempotency-key", "call_1"),
        ("content-type", "application/json"),
    ] {
        request.headers.insert(name, value.parse().expect("a value"));
    }
    request
}

#[tokio::test]
async fn secrets_stay_at_their_origin() {
    let stranger = hello().await;
    let target = stranger.url("/there");
    let server = HttpServer::start(move |request| match request.target.as_str() {
        "/own" => Reply::redirect(307, "/there"),
        "/other" => Reply::redirect(307, target.clone()),
        _ => Reply::of(200, "text/plain", "here"),
    })
    .await;
    let client = outbound(&format!("{},{}", server.address, stranger.address));
    client.send(posted(&server.url("/own"))).await.expect("an answer");
    client.send(posted(&server.url("/other"))).await.expect("an answer");
    let names = |request: &Received| {
        let names = ["authorization", "x-key", "idempotency-key", "content-type"];
        names.into_iter().filter(|name| request.headers.contains_key(*name)).collect::<Vec<_>>()
    };
    let own = server.received();
    assert_eq!(own[1].target, "/there");
    assert_eq!(names(&own[1]), ["authorization", "x-key", "idempotency-key", "content-type"]);
    let there = stranger.received();
    assert_eq!(names(&there[0]), ["idempotency-key", "content-type"]);
    assert_eq!((there[0].method.as_str(), there[0].body.as_slice()), ("POST", &b"{}"[..]));
}

#[tokio::test]
async fn redirects_change_the_method_as_in_browsers() {
    let server = HttpServer::start(|request| match request.target.trim_start_matches('/').parse() {
        Ok(status) => Reply::redirect(status, "/end"),
        Err(_) => Reply::of(200, "text/plain", "end"),
    })
    .await;
    let client = outbound(&server.address.to_string());
    for (status, method) in [(301, "GET"), (302, "GET"), (303, "GET"), (307, "POST"), (308, "POST")] {
        client.send(posted(&server.url(&format!("/{status}")))).await.expect("an answer");
        let last = server.received().pop().expect("a request");
        assert_eq!(last.method, method, "{status}");
        assert_eq!(last.body.is_empty(), method == "GET", "{status}");
        assert_eq!(last.headers.contains_key("content-type"), method == "POST", "{status}");
    }
}

#[tokio::test]
async fn answers_are_read_up_to_their_limit() {
    let server = HttpServer::start(|_| Reply::of(404, "Text/HTML; charset=utf-8", vec![b'x'; 100_000])).await;
    let client = outbound(&server.address.to_string());
    for (max_bytes, length, is_cut) in [(10, 10, true), (99_999, 99_999, true), (100_000, 100_000, false)] {
        let answer = client.send(Request { max_bytes, ..get(&server.url("/")) }).await.expect("an answer");
        assert_eq!((answer.body.len(), answer.is_cut), (length, is_cut), "{max_bytes}");
        assert_eq!((answer.status.as_u16(), answer.media_type.as_deref()), (404, Some("text/html")));
    }
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let server = HttpServer::start(|_| Reply::Never).await;
    let client = outbound(&server.address.to_string());
    let timeout = Duration::from_millis(50);
    let error = client.send(Request { timeout, ..get(&server.url("/")) }).await.expect_err("silence");
    assert_eq!(error, OutboundError::TimedOut(timeout));
}

#[tokio::test]
async fn failures_say_what_happened() {
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("its address").port()
    };
    let client = outbound("127.0.0.1");
    let error = client.send(get(&format!("http://127.0.0.1:{port}/"))).await.expect_err("nobody there");
    assert!(matches!(error, OutboundError::NotConnected(..)), "{error:?}");
    let error = client.send(get("ftp://127.0.0.1/")).await.expect_err("another scheme");
    assert!(matches!(error, OutboundError::BadUrl(_)), "{error:?}");
}
