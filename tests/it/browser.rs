//! A headless Chromium, driven through ChromeDriver in W3C's WebDriver protocol.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::Client;
use super::harness::{Process, directory, until};

/// What a developer has to do where there is no browser.
const INSTALL: &str = "the tests of the browser example need Chromium and its ChromeDriver \
    (scripts/test installs them as root; Debian: apt-get install chromium chromium-driver)";
/// Under this name the protocol shows an element of the page.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one tab and a profile of its own. Dropping it ends all of its processes.
pub struct Browser {
    driver: Client,
    /// `/session/{id}`
    session: String,
    // Dropped in this order: the driver after its browser, the profile last.
    _process: Process,
    _profile: TempDir,
}

impl Browser {
    /// Starts it.
    pub async fn start() -> Self {
        assert!(program("chromedriver").is_some(), "there is no chromedriver in PATH: {INSTALL}");
        let profile = directory();
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("HOME", profile.path());
        for variable in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
            command.env_remove(variable);
        }
        let mut process = Process::spawn("chromedriver", command);
        let port = process.said("was started successfully on port ").await;
        let driver = Client::new(&format!("http://127.0.0.1:{}", port.trim_end_matches('.')));
        let data = format!("--user-data-dir={}", profile.path().join("profile").display());
        let mut options = json!({"args": [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", data,
        ]});
        // Elsewhere the driver knows where its browser is.
        if let Some(chromium) = program("chromium") {
            options["binary"] = json!(chromium);
        }
        let wanted = json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}});
        let made = driver.post("/session", &wanted).await;
        let id = made.body["value"]["sessionId"].as_str();
        let id = id.unwrap_or_else(|| panic!("no browser starts: {}: {INSTALL}", made.body));
        Self { driver, session: format!("/session/{id}"), _process: process, _profile: profile }
    }

    /// Goes to an address, and waits until the page is loaded.
    pub async fn open(&self, url: &str) {
        self.command("url", &json!({"url": url})).await;
    }

    /// Loads the page again, as its user does.
    pub async fn reload(&self) {
        self.command("refresh", &json!({})).await;
    }

    /// Clicks the element of this CSS selector.
    pub async fn click(&self, selector: &str) {
        let element = self.element(selector).await;
        self.command(&format!("element/{element}/click"), &json!({})).await;
    }

    /// Types a text into a field in place of what is there.
    pub async fn fill(&self, selector: &str, text: &str) {
        let element = self.element(selector).await;
        self.command(&format!("element/{element}/clear"), &json!({})).await;
        self.command(&format!("element/{element}/value"), &json!({"text": text})).await;
    }

    /// The value of a JavaScript expression.
    pub async fn value(&self, expression: &str) -> Value {
        self.command("execute/sync", &json!({"script": format!("return {expression}"), "args": []})).await
    }

    /// The text of an element.
    pub async fn text(&self, selector: &str) -> String {
        let text = self.value(&format!("document.querySelector({}).textContent", json!(selector))).await;
        text.as_str().unwrap_or_else(|| panic!("{selector} has no text: {text}")).to_owned()
    }

    /// Waits until an element's text contains this.
    pub async fn until_shows(&self, selector: &str, text: &str) {
        let what = format!("{selector} shows {text:?}");
        until(&what, async || self.text(selector).await.contains(text)).await;
    }

    async fn element(&self, selector: &str) -> String {
        let found = self.command("element", &json!({"using": "css selector", "value": selector})).await;
        found[ELEMENT].as_str().unwrap_or_else(|| panic!("{selector} is no element: {found}")).to_owned()
    }

    async fn command(&self, name: &str, body: &Value) -> Value {
        self.driver.post(&format!("{}/{name}", self.session), body).await.ok()["value"].take()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // A driver that is killed leaves its browser behind, so it is asked to end it first. No runtime may be left here.
        let address = self.driver.base.trim_start_matches("http://");
        let Ok(mut stream) = TcpStream::connect(address) else { return };
        let _goes_anyway = stream.set_read_timeout(Some(Duration::from_secs(10)));
        let request = format!("DELETE {} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n", self.session);
        if stream.write_all(request.as_bytes()).is_ok() {
            let _goes_anyway = stream.read_to_end(&mut Vec::new());
        }
    }
}

/// Where a program is that PATH finds.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}
