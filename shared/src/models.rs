//! The catalogue of models: what clients can choose from, as the API lists it and the worker checks it.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::domain::model::ModelHandle;

/// Context window where nobody says otherwise, in tokens.
const DEFAULT_CONTEXT_WINDOW: u64 = 128_000;
/// How long a listing is taken for current.
const FRESH: Duration = Duration::from_secs(60);
/// How long to leave a server alone that did not answer: callers would wait for the whole time limit each.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(10);
/// How long a server may take for its listing.
const LISTING_TIMEOUT: Duration = Duration::from_secs(3);
/// The provider of the built-in model.
const HOLDFAST: &str = "holdfast";
/// The provider behind the OpenAI-compatible endpoint.
const OPENAI: &str = "openai";

/// What the catalogue is made from.
#[derive(Debug, Clone, Default)]
pub struct CatalogueConfig {
    /// The OpenAI-compatible server, if one is configured.
    pub openai: Option<OpenAiServer>,
    /// The model of agents that do not name one.
    pub default_model: Option<ModelHandle>,
}

/// An OpenAI-compatible server.
#[derive(Debug, Clone)]
pub struct OpenAiServer {
    /// The URL up to and including the version, for example `https://api.openai.com/v1`.
    pub base_url: String,
    /// The key, where the server wants one.
    pub api_key: Option<SecretString>,
}

/// A model that can be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// The handle to choose it by.
    pub handle: ModelHandle,
    /// The provider's name.
    pub provider: String,
    /// The provider's own name of the model.
    pub name: String,
    /// Most tokens of a call's context.
    pub context_window: u64,
    /// Where it is served; `None` for the built-in model.
    pub endpoint: Option<String>,
}

/// The catalogue.
#[derive(Debug)]
pub struct Catalogue {
    server: Option<Server>,
    default_model: Option<ModelHandle>,
}

/// The configured server and what it last said of its models.
#[derive(Debug)]
struct Server {
    config: OpenAiServer,
    http: reqwest::Client,
    /// Locked while a listing is fetched, so that many callers ask only once.
    listing: Mutex<Listing>,
}

/// What is known of a server's models.
#[derive(Debug, Default)]
struct Listing {
    /// The last good list.
    models: Vec<ModelInfo>,
    /// Whether `models` is the server's present list, so that what is not in it does not exist.
    is_complete: bool,
    /// When to ask again; `None` if never asked.
    stale_at: Option<Instant>,
}

/// Why the catalogue cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("no HTTP client for the list of models: {0}")]
pub struct CatalogueError(#[from] reqwest::Error);

impl Catalogue {
    /// Makes the catalogue; nothing is fetched yet. The process needs an installed rustls provider if a server is
    /// configured, even for plain HTTP.
    ///
    /// # Errors
    /// The HTTP client cannot be set up.
    pub fn new(config: CatalogueConfig) -> Result<Self, CatalogueError> {
        let server = match config.openai {
            Some(config) => {
                let http = reqwest::Client::builder().timeout(LISTING_TIMEOUT).build()?;
                Some(Server { config, http, listing: Mutex::default() })
            }
            None => None,
        };
        Ok(Self { server, default_model: config.default_model })
    }

    /// All models: the built-in one, then the server's. When the server does not answer, its last good list counts.
    pub async fn list(&self) -> Vec<ModelInfo> {
        let mut models = vec![demo()];
        if let Some(server) = &self.server {
            models.extend(server.current().await.models.iter().cloned());
        }
        models
    }

    /// Whether a model can be chosen. A server's model that cannot be looked up, because the server gives no list, is
    /// taken for known: a wrong guess fails in the run with the provider's own words.
    pub async fn knows(&self, handle: &ModelHandle) -> bool {
        match (handle.provider(), &self.server) {
            (HOLDFAST, _) => handle.as_str() == ModelHandle::DEMO,
            (OPENAI, Some(server)) => {
                let listing = server.current().await;
                !listing.is_complete || listing.models.iter().any(|model| model.handle == *handle)
            }
            _ => false,
        }
    }

    /// What is known of a model; for a server's model that is not listed, its name and the default window.
    pub async fn info(&self, handle: &ModelHandle) -> Option<ModelInfo> {
        if let Some(listed) = self.list().await.into_iter().find(|model| model.handle == *handle) {
            return Some(listed);
        }
        let server = self.server.as_ref().filter(|_| handle.provider() == OPENAI)?;
        server.model(handle.model(), DEFAULT_CONTEXT_WINDOW)
    }

    /// The model of agents that do not name one.
    #[must_use]
    pub fn default_model(&self) -> ModelHandle {
        self.default_model.clone().unwrap_or_else(ModelHandle::demo)
    }
}

/// The built-in model.
fn demo() -> ModelInfo {
    let handle = ModelHandle::demo();
    ModelInfo {
        provider: handle.provider().to_owned(),
        name: handle.model().to_owned(),
        handle,
        context_window: DEFAULT_CONTEXT_WINDOW,
        endpoint: None,
    }
}

impl Server {
    /// The listing, fetched anew if it is too old.
    async fn current(&self) -> tokio::sync::MutexGuard<'_, Listing> {
        let mut listing = self.listing.lock().await;
        if listing.stale_at.is_some_and(|stale_at| Instant::now() < stale_at) {
            return listing;
        }
        let (is_complete, pause) = match self.fetch().await {
            Ok(Some(models)) => {
                listing.models = models;
                (true, FRESH)
            }
            Ok(None) => {
                listing.models.clear();
                (false, FRESH)
            }
            Err(reason) => {
                tracing::warn!(endpoint = %self.config.base_url, %reason, "the list of models could not be fetched");
                (false, PAUSE_AFTER_FAILURE)
            }
        };
        listing.is_complete = is_complete;
        listing.stale_at = Some(Instant::now() + pause);
        listing
    }

    /// Asks the server; `None` if it has no such endpoint.
    async fn fetch(&self) -> Result<Option<Vec<ModelInfo>>, String> {
        let url = format!("{}/models", self.config.base_url.trim_end_matches('/'));
        let mut request = self.http.get(url);
        if let Some(key) = &self.config.api_key {
            request = request.bearer_auth(key.expose_secret());
        }
        // The URL is in the log line already; in the error it would stand once more, with the path.
        let response = request.send().await.map_err(|error| describe(&error.without_url()))?;
        match response.status().as_u16() {
            200 => {}
            404 | 405 | 501 => return Ok(None),
            status => return Err(format!("HTTP status {status}")),
        }
        let body: ListBody = response.json().await.map_err(|error| describe(&error.without_url()))?;
        let models = body.data.into_iter();
        Ok(Some(models.filter_map(|entry| self.model(&entry.id, entry.context_window())).collect()))
    }

    /// A model of this server; `None` without a name.
    fn model(&self, name: &str, context_window: u64) -> Option<ModelInfo> {
        Some(ModelInfo {
            handle: ModelHandle::parse(&format!("{OPENAI}/{name}"))?,
            provider: OPENAI.to_owned(),
            name: name.to_owned(),
            context_window,
            endpoint: Some(self.config.base_url.clone()),
        })
    }
}

/// An error with its causes: the outermost of an HTTP error says little.
fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[derive(Deserialize)]
struct ListBody {
    data: Vec<ListEntry>,
}

#[derive(Deserialize)]
struct ListEntry {
    id: String,
    /// As routers of several providers say it.
    #[serde(default)]
    context_length: serde_json::Value,
    /// As vLLM says it.
    #[serde(default)]
    max_model_len: serde_json::Value,
    /// As llama.cpp says it, in `n_ctx_train`.
    #[serde(default)]
    meta: serde_json::Value,
}

impl ListEntry {
    fn context_window(&self) -> u64 {
        let said = [&self.context_length, &self.max_model_len, &self.meta["n_ctx_train"]];
        let mut numbers = said.into_iter().filter_map(serde_json::Value::as_u64).filter(|number| *number > 0);
        numbers.next().unwrap_or(DEFAULT_CONTEXT_WINDOW)
    }
}

/// Makes sure that HTTP clients can be built in a test: they want an installed rustls provider even for plain HTTP,
/// and the program's `main` that installs it does not run there. lapin's connector installs the one that it was built
/// with.
#[cfg(any(test, feature = "testkit"))]
pub fn install_tls_provider_for_tests() {
    let connector = lapin::tcp::RustlsConnectorConfig::new_with_webpki_root_certs().connector_with_no_client_auth();
    drop(connector);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers every request with the same status and body, and counts them.
    async fn server(status: &'static str, body: &'static str) -> (OpenAiServer, Arc<AtomicU32>) {
        install_tls_provider_for_tests();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base_url = format!("http://{}/v1/", listener.local_addr().expect("an address"));
        let requests = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match socket.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => break,
                    }
                }
                let head = String::from_utf8_lossy(&head).to_lowercase();
                assert!(head.starts_with("get /v1/models http/1.1"), "{head}");
                assert!(head.contains("authorization: bearer sesame"), "{head}");
                counter.fetch_add(1, Ordering::SeqCst);
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        (OpenAiServer { base_url, api_key: Some("sesame".into()) }, requests)
    }

    fn catalogue(openai: Option<OpenAiServer>) -> Catalogue {
        Catalogue::new(CatalogueConfig { openai, default_model: None }).expect("an HTTP client")
    }

    fn handle(text: &str) -> ModelHandle {
        ModelHandle::parse(text).expect("a handle")
    }

    #[tokio::test]
    async fn without_a_server_there_is_the_demo_only() {
        let catalogue = catalogue(None);
        assert_eq!(catalogue.list().await, [demo()]);
        assert_eq!(catalogue.default_model(), ModelHandle::demo());
        assert!(catalogue.knows(&ModelHandle::demo()).await);
        for unknown in ["holdfast/other", "openai/gpt-4o-mini", "elsewhere/demo"] {
            assert!(!catalogue.knows(&handle(unknown)).await, "{unknown}");
        }
    }

    #[tokio::test]
    async fn a_server_is_asked_once_and_says_its_windows() {
        let body = r#"{"object":"list","data":[{"id":"a","context_length":1000},{"id":"org/b","max_model_len":2000},
            {"id":"c","meta":{"n_ctx_train":8192}},{"id":"d","context_length":null,"meta":null}]}"#;
        let (server, requests) = server("200 OK", body).await;
        let catalogue = catalogue(Some(server));
        let listed = catalogue.list().await;
        let seen: Vec<_> = listed.iter().map(|model| (model.handle.as_str(), model.context_window)).collect();
        assert_eq!(
            seen,
            [
                ("holdfast/demo", 128_000),
                ("openai/a", 1000),
                ("openai/org/b", 2000),
                ("openai/c", 8192),
                ("openai/d", 128_000)
            ]
        );
        assert!(catalogue.knows(&handle("openai/org/b")).await);
        assert!(!catalogue.knows(&handle("openai/e")).await);
        assert_eq!(requests.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_server_without_a_list_may_have_any_model() {
        for status in ["404 Not Found", "500 Internal Server Error"] {
            let (server, _) = server(status, "{}").await;
            let catalogue = catalogue(Some(server));
            assert_eq!(catalogue.list().await, [demo()], "{status}");
            assert!(catalogue.knows(&handle("openai/any")).await, "{status}");
            assert_eq!(catalogue.info(&handle("openai/any")).await.map(|model| model.name), Some("any".to_owned()));
        }
    }

    #[tokio::test]
    async fn the_last_good_list_survives_a_failure() {
        let (mut server, _) = server("200 OK", r#"{"data":[{"id":"a"}]}"#).await;
        let mut catalogue = catalogue(Some(server.clone()));
        assert_eq!(catalogue.list().await.len(), 2);
        // Nobody listens on port 1.
        server.base_url = "http://127.0.0.1:1/v1".to_owned();
        let inner = catalogue.server.as_mut().expect("a server");
        inner.config = server;
        inner.listing.get_mut().stale_at = Some(Instant::now());
        assert_eq!(catalogue.list().await.len(), 2);
        assert!(catalogue.knows(&handle("openai/new")).await);
    }
}
