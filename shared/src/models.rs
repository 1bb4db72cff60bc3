//! The catalogue of models: what clients can choose from, as the API lists it and the worker checks it.

use std::time::Duration;

use futures::future::join_all;
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::config::{ModelServer, ModelSettings, Protocol};
use crate::domain::model::ModelHandle;
use crate::domain::model_family::ModelFamily;

/// Context window where nobody says otherwise, in tokens.
const DEFAULT_CONTEXT_WINDOW: u64 = 128_000;
/// How long a listing is taken for current.
const FRESH: Duration = Duration::from_secs(60);
/// How long to leave a server alone that did not answer: callers would wait for the whole time limit each.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(10);
/// How long a server may take for its listing.
const LISTING_TIMEOUT: Duration = Duration::from_secs(3);
/// Most models that a provider is asked for; as many as Anthropic and Google give in one answer.
const LISTING_MODELS: u32 = 1000;
/// Most bytes of a listing. The longest known, of a router of hundreds of models, has about one megabyte.
const LISTING_BYTES: usize = 16 * 1024 * 1024;
/// The provider of the built-in model.
const HOLDFAST: &str = "holdfast";
/// Where entries of lists tell the context window: as Anthropic, Google, routers of several providers, vLLM, Groq, Mistral
/// and llama.cpp (its slots', then the model's own) say it.
const CONTEXT_WINDOWS: [&str; 8] = [
    "/max_input_tokens",
    "/inputTokenLimit",
    "/context_length",
    "/max_model_len",
    "/context_window",
    "/max_context_length",
    "/meta/n_ctx",
    "/meta/n_ctx_train",
];
/// What OpenAI lists beside the models that agents can use.
const NOT_FOR_AGENTS: [&str; 14] = [
    "audio",
    "babbage",
    "computer-use",
    "dall-e",
    "davinci",
    "embedding",
    "image",
    "instruct",
    "moderation",
    "realtime",
    "sora",
    "transcribe",
    "tts",
    "whisper",
];

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
    /// Where it is served, without credentials; `None` for the built-in model.
    pub endpoint: Option<String>,
}

/// The catalogue.
#[derive(Debug)]
pub struct Catalogue {
    servers: Vec<Server>,
    default_model: Option<ModelHandle>,
}

/// A configured server and what it last said of its models.
#[derive(Debug)]
struct Server {
    config: ModelServer,
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
    pub fn new(settings: &ModelSettings) -> Result<Self, CatalogueError> {
        let server = |config: &ModelServer| {
            // A redirect could carry the key to another host.
            let http = reqwest::Client::builder()
                .timeout(LISTING_TIMEOUT)
                .redirect(reqwest::redirect::Policy::none())
                .build()?;
            Ok(Server { config: config.clone(), http, listing: Mutex::default() })
        };
        let servers = settings.servers.iter().map(server).collect::<Result<_, reqwest::Error>>()?;
        Ok(Self { servers, default_model: settings.default_model.clone() })
    }

    /// All models: the built-in one, then those of each server. All servers are asked at the same time; of one that
    /// does not answer, the last good list counts.
    pub async fn list(&self) -> Vec<ModelInfo> {
        let listed = self.servers.iter().map(|server| async { server.current().await.models.clone() });
        std::iter::once(demo()).chain(join_all(listed).await.into_iter().flatten()).collect()
    }

    /// Whether a model can be chosen. A server's model that cannot be looked up, because the server gives no list, is
    /// taken for known: a wrong guess fails in the run with the provider's own words.
    pub async fn knows(&self, handle: &ModelHandle) -> bool {
        if handle.provider() == HOLDFAST {
            return handle.as_str() == ModelHandle::DEMO;
        }
        let Some(server) = self.server(handle) else { return false };
        let listing = server.current().await;
        !listing.is_complete || listing.models.iter().any(|model| server.is_name_of(handle.model(), model))
    }

    /// What is known of a model; for a server's model that is not listed, what its name tells. It is cheap to ask: only
    /// the model's own server is looked at, and that is asked only if the model was in no list so far.
    pub async fn info(&self, handle: &ModelHandle) -> Option<ModelInfo> {
        if handle.as_str() == ModelHandle::DEMO {
            return Some(demo());
        }
        let server = self.server(handle)?;
        let find = |listing: &Listing| {
            let exact = listing.models.iter().find(|model| model.handle == *handle);
            exact.or_else(|| listing.models.iter().find(|model| server.is_name_of(handle.model(), model))).cloned()
        };
        let known = find(&*server.listing.lock().await);
        let listed = match known {
            Some(known) => Some(known),
            None => find(&*server.current().await),
        };
        let name = handle.model();
        match listed {
            // Listed under a longer name: that one's facts, but the name that was asked for.
            Some(listed) => server.model(name, Some(listed.context_window)),
            None => server.model(name, None),
        }
    }

    /// The model of agents that do not name one.
    #[must_use]
    pub fn default_model(&self) -> ModelHandle {
        self.default_model.clone().unwrap_or_else(ModelHandle::demo)
    }

    fn server(&self, handle: &ModelHandle) -> Option<&Server> {
        self.servers.iter().find(|server| server.config.name == handle.provider())
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
                let (provider, endpoint) = (&self.config.name, self.config.shown_url());
                tracing::warn!(%provider, %endpoint, %reason, "the list of models could not be fetched");
                (false, PAUSE_AFTER_FAILURE)
            }
        };
        listing.is_complete = is_complete;
        listing.stale_at = Some(Instant::now() + pause);
        listing
    }

    /// Asks the server; `None` if it has no such endpoint.
    async fn fetch(&self) -> Result<Option<Vec<ModelInfo>>, String> {
        // The URL is in the log line already; in the error it would stand once more, with the path.
        let mut response = self.request()?.send().await.map_err(|error| describe(&error.without_url()))?;
        match response.status().as_u16() {
            200 => {}
            404 | 405 | 501 => return Ok(None),
            status => return Err(format!("HTTP status {status}")),
        }
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| describe(&error.without_url()))? {
            body.extend_from_slice(&piece);
            if body.len() > LISTING_BYTES {
                return Err(format!("the list is longer than {LISTING_BYTES} bytes"));
            }
        }
        let body: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        // Most put it into `data`, Google into `models`, and some give the bare array.
        let entries = [body.get("data"), body.get("models"), Some(&body)];
        let entries =
            entries.into_iter().flatten().find_map(Value::as_array).ok_or("there is no list in the answer")?;
        Ok(Some(entries.iter().filter_map(|entry| self.entry(entry)).collect()))
    }

    fn request(&self) -> Result<reqwest::RequestBuilder, String> {
        let mut url = self.config.base_url.join("models").map_err(|error| error.to_string())?;
        url.set_query(self.config.base_url.query());
        let page = LISTING_MODELS.to_string();
        match self.config.protocol {
            Protocol::OpenAi(_) => {}
            Protocol::Anthropic => _ = url.query_pairs_mut().append_pair("limit", &page),
            Protocol::Gemini => _ = url.query_pairs_mut().append_pair("pageSize", &page),
        }
        let mut request = self.http.get(url);
        if let Some(key) = &self.config.api_key {
            request = match self.config.protocol {
                Protocol::OpenAi(_) => request.bearer_auth(key.expose_secret()),
                Protocol::Anthropic => request.header("x-api-key", key.expose_secret()),
                Protocol::Gemini => request.header("x-goog-api-key", key.expose_secret()),
            };
        }
        if self.config.protocol == Protocol::Anthropic {
            request = request.header("anthropic-version", "2023-06-01");
        }
        Ok(request)
    }

    /// An entry of the server's list; `None` if agents cannot use it.
    fn entry(&self, entry: &Value) -> Option<ModelInfo> {
        let name = match self.config.protocol {
            Protocol::OpenAi(_) | Protocol::Anthropic => entry.get("id")?.as_str()?,
            Protocol::Gemini => {
                let name = entry.get("name")?.as_str()?;
                name.strip_prefix("models/").unwrap_or(name)
            }
        };
        let methods = entry.get("supportedGenerationMethods").and_then(Value::as_array);
        let is_usable = methods.is_none_or(|methods| methods.iter().any(|method| method == "generateContent"));
        let is_other = self.config.is_openai_itself() && NOT_FOR_AGENTS.iter().any(|word| name.contains(word));
        if !is_usable || is_other {
            return None;
        }
        let numbers = CONTEXT_WINDOWS.iter().filter_map(|place| entry.pointer(place)?.as_u64());
        self.model(name, numbers.into_iter().find(|number| *number > 0))
    }

    /// A model of this server; `None` without a name.
    fn model(&self, name: &str, context_window: Option<u64>) -> Option<ModelInfo> {
        let by_name = || ModelFamily::of(name).map(|family| family.context_window);
        Some(ModelInfo {
            handle: ModelHandle::parse(&format!("{}/{name}", self.config.name))?,
            provider: self.config.name.clone(),
            name: name.to_owned(),
            context_window: context_window.or_else(by_name).unwrap_or(DEFAULT_CONTEXT_WINDOW),
            endpoint: Some(self.config.shown_url()),
        })
    }

    /// Whether a listed model can be called by a name. Anthropic's list has names with a date only, and its models can
    /// also be called without it, or with `-latest` or `-0` in its place.
    fn is_name_of(&self, name: &str, listed: &ModelInfo) -> bool {
        if listed.name == name {
            return true;
        }
        let short = name.strip_suffix("-latest").or_else(|| name.strip_suffix("-0")).unwrap_or(name);
        let rest = listed.name.strip_prefix(short).and_then(|rest| rest.strip_prefix('-'));
        let is_date = |text: &str| text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit());
        self.config.protocol == Protocol::Anthropic && rest.is_some_and(is_date)
    }
}

/// An error with its causes: the outermost of an HTTP error says little.
fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
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

    use reqwest::Url;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::sync::Barrier;

    use super::*;
    use crate::config::OpenAiApi;

    const OPENAI: Protocol = Protocol::OpenAi(OpenAiApi::Auto);

    fn config(name: &str, protocol: Protocol, base_url: &str) -> ModelServer {
        ModelServer {
            name: name.to_owned(),
            protocol,
            base_url: Url::parse(base_url).expect("a URL"),
            api_key: Some("sesame".into()),
            url_setting: String::new(),
            key_setting: String::new(),
        }
    }

    /// A server that answers every request with the same status and body, after all that share the barrier were
    /// asked. It counts requests, and checks their heads.
    async fn server(
        (name, protocol): (&str, Protocol),
        expected: [&'static str; 2],
        (status, body): (&'static str, &'static str),
        barrier: Option<Arc<Barrier>>,
    ) -> (ModelServer, Arc<AtomicU32>) {
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
                for expected in expected {
                    assert!(head.contains(expected), "{head}");
                }
                counter.fetch_add(1, Ordering::SeqCst);
                if let Some(barrier) = &barrier {
                    barrier.wait().await;
                }
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        (config(name, protocol, &base_url), requests)
    }

    async fn openai(status: &'static str, body: &'static str) -> (ModelServer, Arc<AtomicU32>) {
        let head = ["get /v1/models http/1.1", "authorization: bearer sesame"];
        server(("openai", OPENAI), head, (status, body), None).await
    }

    fn catalogue(servers: Vec<ModelServer>) -> Catalogue {
        Catalogue::new(&ModelSettings { servers, ..ModelSettings::default() }).expect("an HTTP client")
    }

    fn handle(text: &str) -> ModelHandle {
        ModelHandle::parse(text).expect("a handle")
    }

    fn seen(listed: &[ModelInfo]) -> Vec<(&str, u64)> {
        listed.iter().map(|model| (model.handle.as_str(), model.context_window)).collect()
    }

    #[tokio::test]
    async fn without_a_server_there_is_the_demo_only() {
        let catalogue = catalogue(Vec::new());
        assert_eq!(catalogue.list().await, [demo()]);
        assert_eq!(catalogue.default_model(), ModelHandle::demo());
        assert_eq!(catalogue.info(&ModelHandle::demo()).await, Some(demo()));
        assert!(catalogue.knows(&ModelHandle::demo()).await);
        for unknown in ["holdfast/other", "openai/gpt-4o-mini", "elsewhere/demo"] {
            assert!(!catalogue.knows(&handle(unknown)).await, "{unknown}");
            assert_eq!(catalogue.info(&handle(unknown)).await, None, "{unknown}");
        }
    }

    #[tokio::test]
    async fn a_server_is_asked_once_and_says_its_windows() {
        let body = r#"{"object":"list","data":[{"id":"a","context_length":1000},{"id":"org/b","max_model_len":2000},
            {"id":"c","meta":{"n_ctx_train":8192}},{"id":"d","context_length":null,"meta":null},{"id":"gpt-4o"},
            {"id":"text-embedding-x","context_window":4000}]}"#;
        let (server, requests) = openai("200 OK", body).await;
        let catalogue = catalogue(vec![server]);
        let listed = catalogue.list().await;
        let expected = [
            ("holdfast/demo", 128_000),
            ("openai/a", 1000),
            ("openai/org/b", 2000),
            ("openai/c", 8192),
            ("openai/d", 128_000),
            ("openai/gpt-4o", 128_000),
            ("openai/text-embedding-x", 4000),
        ];
        assert_eq!(seen(&listed), expected);
        assert!(catalogue.knows(&handle("openai/org/b")).await);
        assert!(!catalogue.knows(&handle("openai/e")).await);
        assert_eq!(catalogue.info(&handle("openai/org/b")).await.as_ref(), Some(&listed[2]));
        assert_eq!(requests.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_model_that_was_listed_once_is_told_of_without_asking_again() {
        let (server, requests) = openai("200 OK", r#"{"data":[{"id":"a","context_length":1000}]}"#).await;
        let mut catalogue = catalogue(vec![server]);
        assert_eq!(catalogue.info(&handle("openai/a")).await.map(|model| model.context_window), Some(1000));
        catalogue.servers[0].listing.get_mut().stale_at = Some(Instant::now());
        assert_eq!(catalogue.info(&handle("openai/a")).await.map(|model| model.context_window), Some(1000));
        assert_eq!(requests.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn openai_itself_lists_more_than_agents_can_use() {
        let itself = Server {
            config: config("openai", OPENAI, "https://api.openai.com/v1/"),
            http: {
                install_tls_provider_for_tests();
                reqwest::Client::new()
            },
            listing: Mutex::default(),
        };
        let is_listed = |id: &str| itself.entry(&serde_json::json!({"id": id})).is_some();
        for id in ["gpt-4o", "gpt-5-mini", "o3", "ft:gpt-4o-mini:org::x", "codex-mini-latest"] {
            assert!(is_listed(id), "{id}");
        }
        for id in ["text-embedding-3-small", "whisper-1", "tts-1", "gpt-4o-realtime-preview", "gpt-image-1"] {
            assert!(!is_listed(id), "{id}");
        }
    }

    #[tokio::test]
    async fn anthropic_is_asked_in_its_own_way_and_knows_names_without_a_date() {
        let head = ["get /v1/models?limit=1000 http/1.1", "x-api-key: sesame\r\n"];
        let body = r#"{"data":[{"type":"model","id":"claude-opus-4-20250514"},
            {"type":"model","id":"claude-new-9","max_input_tokens":1000000}],"has_more":false}"#;
        let (server, _) = server(("anthropic", Protocol::Anthropic), head, ("200 OK", body), None).await;
        let catalogue = catalogue(vec![server]);
        let listed = catalogue.list().await;
        let expected = [("anthropic/claude-opus-4-20250514", 200_000), ("anthropic/claude-new-9", 1_000_000)];
        assert_eq!(seen(&listed)[1..], expected);
        for known in ["claude-opus-4-20250514", "claude-opus-4-0", "claude-opus-4", "claude-opus-4-latest"] {
            assert!(catalogue.knows(&handle(&format!("anthropic/{known}"))).await, "{known}");
        }
        for unknown in ["claude-opus", "claude-opus-4-1", "claude-new"] {
            assert!(!catalogue.knows(&handle(&format!("anthropic/{unknown}"))).await, "{unknown}");
        }
    }

    #[tokio::test]
    async fn gemini_is_asked_in_its_own_way() {
        let head = ["get /v1/models?pagesize=1000 http/1.1", "x-goog-api-key: sesame\r\n"];
        let body = r#"{"models":[
            {"name":"models/gemini-2.5-flash","inputTokenLimit":1048576,"supportedGenerationMethods":["generateContent"]},
            {"name":"models/embedding-001","inputTokenLimit":2048,"supportedGenerationMethods":["embedContent"]}]}"#;
        let (server, _) = server(("google_ai", Protocol::Gemini), head, ("200 OK", body), None).await;
        let listed = catalogue(vec![server]).list().await;
        assert_eq!(seen(&listed)[1..], [("google_ai/gemini-2.5-flash", 1_048_576)]);
    }

    #[tokio::test]
    async fn servers_are_asked_at_the_same_time_and_the_failure_of_one_hides_no_other() {
        let barrier = Arc::new(Barrier::new(2));
        let head = ["get /v1/models http/1.1", "authorization: bearer sesame"];
        let good = ("200 OK", r#"{"data":[{"id":"m"}]}"#);
        let (one, _) = server(("one", OPENAI), head, good, Some(Arc::clone(&barrier))).await;
        let (two, _) = server(("two", OPENAI), head, ("500 Oh No", ""), Some(barrier)).await;
        // Nobody listens on port 1.
        let three = config("three", OPENAI, "http://127.0.0.1:1/v1/");
        let catalogue = catalogue(vec![three, two, one]);
        let listed = catalogue.list().await;
        assert_eq!(seen(&listed), [("holdfast/demo", 128_000), ("one/m", 128_000)]);
        assert!(catalogue.knows(&handle("two/m")).await && !catalogue.knows(&handle("one/n")).await);
    }

    #[tokio::test]
    async fn a_server_without_a_list_may_have_any_model() {
        for status in ["404 Not Found", "500 Internal Server Error"] {
            let (server, _) = openai(status, "{}").await;
            let catalogue = catalogue(vec![server]);
            assert_eq!(catalogue.list().await, [demo()], "{status}");
            assert!(catalogue.knows(&handle("openai/any")).await, "{status}");
            assert_eq!(catalogue.info(&handle("openai/any")).await.map(|model| model.name), Some("any".to_owned()));
        }
    }

    #[tokio::test]
    async fn the_last_good_list_survives_a_failure() {
        let (server, _) = openai("200 OK", r#"{"data":[{"id":"a"}]}"#).await;
        let mut catalogue = catalogue(vec![server]);
        assert_eq!(catalogue.list().await.len(), 2);
        let inner = &mut catalogue.servers[0];
        // Nobody listens on port 1.
        inner.config = config("openai", OPENAI, "http://127.0.0.1:1/v1/");
        inner.listing.get_mut().stale_at = Some(Instant::now());
        assert_eq!(catalogue.list().await.len(), 2);
        assert!(catalogue.knows(&handle("openai/new")).await);
    }
}
