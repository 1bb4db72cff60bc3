//! The official SDKs against the real program, in both modes. The suites are in `tests/sdk`; they run from here because
//! starting servers, waiting for them and taking them away again is the harness's work in any case.

use std::path::Path;
use std::process::{Command, Stdio};

use super::client::Client;
use super::harness::{Cluster, DEADLINE, Dev, Process, directory, tools_directory};

fn suites() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk"))
}

async fn run(name: &str, mut command: Command, here: &Client, there: &Client) {
    command.env("HOLDFAST_BASE_URL", &here.base).env("HOLDFAST_OTHER_BASE_URL", &there.base);
    for variable in ["LETTA_BASE_URL", "LETTA_API_KEY", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = Process::spawn(name, command);
    let status = process.ended_within(8 * DEADLINE).await;
    assert!(status.success(), "{name} failed\n{}\n{}", process.output(), process.log());
}

async fn python(here: &Client, there: &Client) {
    let mut command = Command::new(tools_directory("python").join("bin/python"));
    command.args(["-m", "pytest", "-q", "-p", "no:cacheprovider"]).arg(suites().join("python"));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    run("the Python SDK's suite", command, here, there).await;
}

async fn typescript(here: &Client, there: &Client) {
    // Node resolves packages from the place of the importing file: the suite is read beside its packages.
    let packages = tools_directory("typescript");
    let copy =
        tempfile::Builder::new().prefix("suite-").tempdir_in(&packages).expect("a directory beside the packages");
    let mut command = Command::new("node");
    command.args(["--test", "--test-reporter=spec"]);
    for entry in std::fs::read_dir(suites().join("typescript")).expect("the suites") {
        let suite = entry.expect("an entry").path();
        if suite.extension().is_some_and(|extension| extension == "mjs") {
            let copied = copy.path().join(suite.file_name().expect("a name"));
            std::fs::copy(&suite, &copied).expect("a copy");
            command.arg(copied);
        }
    }
    let methods = suites().join("../fixtures/sdk_methods.json");
    std::fs::copy(methods, copy.path().join("sdk_methods.json")).expect("the list of the SDKs' methods");
    run("the TypeScript SDK's suite", command, here, there).await;
}

#[tokio::test]
async fn python_speaks_with_one_process() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    python(&dev.client, &dev.client).await;
}

#[tokio::test]
async fn typescript_speaks_with_one_process() {
    let data = directory();
    let dev = Dev::start(data.path()).await;
    typescript(&dev.client, &dev.client).await;
}

#[tokio::test]
async fn python_speaks_with_a_cluster() {
    let cluster = Cluster::start(2, 2).await;
    python(&cluster.client(0), &cluster.client(1)).await;
}

#[tokio::test]
async fn typescript_speaks_with_a_cluster() {
    let cluster = Cluster::start(2, 2).await;
    typescript(&cluster.client(0), &cluster.client(1)).await;
}
