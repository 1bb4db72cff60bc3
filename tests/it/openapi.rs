//! The description of the API: that it is whole, current and served, and that nothing which a fuzzer makes of it brings the
//! program to an answer that it does not describe.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Map, Value};

use super::client::Client;
use super::harness::{Cluster, DEADLINE, Dev, Process, directory, run_to_end, settings, tools_directory};

/// How many cases the fuzzer makes of each operation; more are for a long evening.
const EXAMPLES: &str = "HOLDFAST_TEST_FUZZ_EXAMPLES";

#[test]
fn the_committed_document_is_current() {
    let committed =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json")).expect("openapi.json");
    let said = run_to_end(&["openapi"], &settings([]));
    assert!(said.status.success());
    let made = String::from_utf8(said.stdout).expect("UTF-8");
    let difference = made.lines().zip(committed.lines()).find(|(made, committed)| made != committed);
    assert!(
        made == committed,
        "openapi.json differs from what the code says ({difference:?}); write it anew by `cargo run -- openapi > openapi.json`"
    );
}

/// The methods of each path as the running program tells them to a method that no path knows.
async fn served_methods(client: &Client) -> BTreeMap<String, BTreeSet<String>> {
    let mut served = BTreeMap::new();
    for path in holdfast_api::paths().filter(|path| path.starts_with("/v1/")) {
        let answer = client.ask("BREW", path, &[]).await;
        // What answers 404 to everything is not served by intent.
        if answer.status != 404 {
            assert_eq!(answer.status, 405, "BREW {path}");
            let allowed = answer.headers["allow"].to_str().expect("text").split(',').map(str::trim);
            let methods = allowed.filter(|method| *method != "HEAD").map(str::to_lowercase).collect();
            served.insert(path.to_owned(), methods);
        }
    }
    served
}

#[tokio::test]
async fn the_document_has_every_route_and_no_other() {
    let data = directory();
    let dev = Dev::start_with(data.path(), settings([("HOLDFAST_API_KEYS", KEY)])).await;
    let document = dev.client.get("/openapi.json").await.ok();
    let paths = document["paths"].as_object().expect("paths").iter();
    let described: BTreeMap<String, BTreeSet<String>> = paths
        .map(|(path, methods)| (path.clone(), methods.as_object().into_iter().flat_map(Map::keys).cloned().collect()))
        .collect();
    assert_eq!(served_methods(&dev.client.with_key(KEY)).await, described);
}

#[tokio::test]
async fn document_and_page_are_open_and_the_page_needs_nothing_else() {
    let data = directory();
    let dev = Dev::start_with(data.path(), settings([("HOLDFAST_API_KEYS", KEY)])).await;
    assert_eq!(dev.client.get("/openapi.json/").await.ok()["openapi"], "3.1.0");
    let page = dev.client.get("/docs").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    let policy = page.headers["content-security-policy"].to_str().expect("text");
    assert!(policy.contains("default-src 'none'") && !policy.contains("script"), "{policy}");
}

/// The key of the servers that are fuzzed.
const KEY: &str = "sesame-street";
/// Not yet: what a body may be is described a little wider, and in places a little narrower, than it is read, so that the
/// fuzzer finds requests that fit the one and not the other.
const NOT_YET: &str = "positive_data_acceptance,negative_data_rejection";

/// Runs all other checks and every phase of the fuzzer.
async fn fuzz(base: &str, examples: &str) {
    let examples = std::env::var(EXAMPLES).unwrap_or_else(|_| examples.to_owned());
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openapi"));
    let scratch = directory();
    let mut command = Command::new(tools_directory("schemathesis").join("bin/schemathesis"));
    command.arg("--config-file").arg(folder.join("schemathesis.toml"));
    command.args([
        "run",
        &format!("{base}/openapi.json"),
        "--checks",
        "all",
        "--exclude-checks",
        NOT_YET,
        "--workers",
        "2",
        "--no-color",
    ]);
    command.args(["--phases", "examples,coverage,fuzzing,stateful", "--seed", "1", "--max-examples", &examples]);
    // With a key, since the document says that one is needed.
    command.args(["--header", &format!("Authorization: Bearer {KEY}")]);
    // The fuzzer keeps what it learnt in its directory: here every run begins as the first one.
    command.current_dir(scratch.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for variable in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(variable);
    }
    let mut process = Process::spawn("schemathesis", command);
    let status = process.ended_within(10 * DEADLINE).await;
    assert!(status.success(), "the fuzzer found something\n{}\n{}", process.output(), process.log());
    assert!(process.output().contains("Stateful"), "not every phase was run: {}", process.output());
}

#[tokio::test]
async fn the_fuzzer_finds_nothing_in_one_process() {
    let data = directory();
    let dev = Dev::start_with(data.path(), settings([("HOLDFAST_API_KEYS", KEY)])).await;
    fuzz(&dev.client.base, "3").await;
    let alive = dev.client.get("/v1/ready").await.ok();
    assert_eq!(alive["status"], Value::from("ok"));
}

#[tokio::test]
async fn the_fuzzer_finds_nothing_in_a_cluster() {
    let cluster = Cluster::start_with(1, 1, settings([("HOLDFAST_API_KEYS", KEY)])).await;
    fuzz(&cluster.client(0).base, "1").await;
}
