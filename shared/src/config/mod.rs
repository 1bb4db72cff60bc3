//! Settings: defaults, then a file, then the environment; checked as a whole before anything starts.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use figment::providers::{Env, Format, Toml};
use secrecy::SecretString;
use serde::Deserialize;

use crate::domain::callback::SigningKey;
use crate::domain::tenant::TenantId;
use crate::outbound::{self, Allow};

mod access;
mod models;
mod python;

pub use access::{CorsOrigins, KeyHash};
pub use models::{ANTHROPIC, GOOGLE_AI, ModelServer, ModelSettings, OPENAI, OpenAiApi, Protocol, ReasoningSummary};
pub use python::{Network, PythonSettings, SandboxChoice};

/// The variables that are read, and the key of the settings file that says the same.
const VARIABLES: &[(&str, &str)] = &[
    ("DATABASE_URL", "database_url"),
    ("AMQP_URL", "amqp_url"),
    ("REDIS_URL", "redis_url"),
    ("OPENAI_BASE_URL", "openai_base_url"),
    ("OPENAI_API_KEY", "openai_api_key"),
    ("HOLDFAST_OPENAI_API", "openai_api"),
    ("HOLDFAST_OPENAI_REASONING_SUMMARY", "openai_reasoning_summary"),
    ("HOLDFAST_OPENAI_COMPATIBLE", "openai_compatible"),
    ("ANTHROPIC_API_KEY", "anthropic_api_key"),
    ("ANTHROPIC_BASE_URL", "anthropic_base_url"),
    ("GEMINI_API_KEY", "gemini_api_key"),
    ("GEMINI_BASE_URL", "gemini_base_url"),
    ("HOLDFAST_LISTEN", "listen"),
    ("HOLDFAST_DATA_DIR", "data_dir"),
    ("HOLDFAST_PREFIX", "prefix"),
    ("HOLDFAST_API_KEYS", "api_keys"),
    ("HOLDFAST_CORS_ORIGINS", "cors_origins"),
    ("HOLDFAST_DEFAULT_MODEL", "default_model"),
    ("HOLDFAST_WORKER_CONCURRENCY", "worker_concurrency"),
    ("HOLDFAST_LEASE_MS", "lease_ms"),
    ("HOLDFAST_HEARTBEAT_MS", "heartbeat_ms"),
    ("HOLDFAST_RETURNED_AFTER_MS", "returned_after_ms"),
    ("HOLDFAST_UNCLAIMED_AFTER_MS", "unclaimed_after_ms"),
    ("HOLDFAST_DRAIN_MS", "drain_ms"),
    ("HOLDFAST_MAX_ATTEMPTS", "max_attempts"),
    ("HOLDFAST_KEEPALIVE_MS", "keepalive_ms"),
    ("HOLDFAST_MAX_QUEUED_RUNS", "max_queued_runs"),
    ("HOLDFAST_MAX_BODY_BYTES", "max_body_bytes"),
    ("HOLDFAST_IMAGE_MAX_BYTES", "image_max_bytes"),
    ("HOLDFAST_MCP_CONFIG", "mcp_config"),
    ("HOLDFAST_OUTBOUND_ALLOW", "outbound_allow"),
    ("HOLDFAST_DATABASE_CONNECTIONS", "database_connections"),
    ("HOLDFAST_MODEL_HEADER_TIMEOUT_MS", "model_header_timeout_ms"),
    ("HOLDFAST_MODEL_IDLE_TIMEOUT_MS", "model_idle_timeout_ms"),
    ("HOLDFAST_MODEL_TOTAL_TIMEOUT_MS", "model_total_timeout_ms"),
    ("HOLDFAST_MODEL_TRIES", "model_tries"),
    ("HOLDFAST_MODEL_RETRY_BUDGET_MS", "model_retry_budget_ms"),
    ("HOLDFAST_APPROVAL_TIMEOUT_MS", "approval_timeout_ms"),
    ("HOLDFAST_APPROVAL_DEFAULT", "approval_default"),
    ("HOLDFAST_CALLBACK_TRIES", "callback_tries"),
    ("HOLDFAST_CALLBACK_SECRET", "callback_secret"),
    ("HOLDFAST_LIVE_TTL_MS", "live_ttl_ms"),
    ("HOLDFAST_FINISHED_TTL_MS", "finished_ttl_ms"),
    ("HOLDFAST_TOOL_TIMEOUT_MS", "tool_timeout_ms"),
    ("HOLDFAST_PYTHON", "python"),
    ("HOLDFAST_PYTHON_SANDBOX", "python_sandbox"),
    ("HOLDFAST_PYTHON_NETWORK", "python_network"),
    ("HOLDFAST_PYTHON_MEMORY_BYTES", "python_memory_bytes"),
    ("HOLDFAST_PYTHON_OUTPUT_BYTES", "python_output_bytes"),
    ("HOLDFAST_PYTHON_CONCURRENCY", "python_concurrency"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "otlp_endpoint"),
    ("HOLDFAST_LOG", "log"),
    ("HOLDFAST_LOG_FORMAT", "log_format"),
];

/// The variables that are read.
pub fn variables() -> impl Iterator<Item = &'static str> {
    VARIABLES.iter().map(|(name, _)| *name)
}

/// Why the settings are not usable. Every text names the setting and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A value has the wrong form.
    #[error("{name}: {problem}")]
    Invalid {
        /// The variable, or the key of the file.
        name: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The file cannot be used.
    #[error("settings file {path}: {problem}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

fn invalid(name: &str, problem: impl Into<String>) -> SettingsError {
    SettingsError::Invalid { name: name.to_owned(), problem: problem.into() }
}

/// The values as they are written, with the defaults in one visible place.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    database_url: Option<SecretString>,
    amqp_url: Option<SecretString>,
    redis_url: Option<SecretString>,
    openai_base_url: Option<String>,
    openai_api_key: Option<SecretString>,
    openai_api: OpenAiApi,
    openai_reasoning_summary: ReasoningSummary,
    openai_compatible: Option<String>,
    anthropic_api_key: Option<SecretString>,
    anthropic_base_url: Option<String>,
    gemini_api_key: Option<SecretString>,
    gemini_base_url: Option<String>,
    listen: String,
    data_dir: Option<PathBuf>,
    prefix: String,
    api_keys: Option<SecretString>,
    cors_origins: String,
    default_model: Option<String>,
    worker_concurrency: u16,
    lease_ms: u64,
    heartbeat_ms: u64,
    returned_after_ms: u64,
    unclaimed_after_ms: u64,
    drain_ms: u64,
    max_attempts: u32,
    keepalive_ms: u64,
    max_queued_runs: u32,
    max_body_bytes: usize,
    image_max_bytes: usize,
    mcp_config: Option<PathBuf>,
    outbound_allow: String,
    database_connections: u32,
    model_header_timeout_ms: u64,
    model_idle_timeout_ms: u64,
    model_total_timeout_ms: u64,
    model_tries: u32,
    model_retry_budget_ms: u64,
    approval_timeout_ms: u64,
    approval_default: ApprovalDefault,
    callback_tries: u32,
    callback_secret: Option<SecretString>,
    live_ttl_ms: u64,
    finished_ttl_ms: u64,
    tool_timeout_ms: u64,
    python: String,
    python_sandbox: SandboxChoice,
    python_network: Network,
    python_memory_bytes: u64,
    python_output_bytes: usize,
    python_concurrency: u16,
    otlp_endpoint: Option<String>,
    log: String,
    log_format: LogFormat,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            database_url: None,
            amqp_url: None,
            redis_url: None,
            openai_base_url: None,
            openai_api_key: None,
            openai_api: OpenAiApi::Auto,
            openai_reasoning_summary: ReasoningSummary::None,
            openai_compatible: None,
            anthropic_api_key: None,
            anthropic_base_url: None,
            gemini_api_key: None,
            gemini_base_url: None,
            listen: "127.0.0.1:8283".to_owned(),
            data_dir: None,
            prefix: "holdfast".to_owned(),
            api_keys: None,
            cors_origins: String::new(),
            default_model: None,
            worker_concurrency: 64,
            lease_ms: 5_000,
            heartbeat_ms: 500,
            returned_after_ms: 1_200,
            unclaimed_after_ms: 10_000,
            drain_ms: 20_000,
            max_attempts: 5,
            keepalive_ms: 20_000,
            max_queued_runs: 100,
            max_body_bytes: 32 * 1024 * 1024,
            image_max_bytes: 10 * 1024 * 1024,
            mcp_config: None,
            outbound_allow: String::new(),
            database_connections: 10,
            model_header_timeout_ms: 60_000,
            model_idle_timeout_ms: 60_000,
            model_total_timeout_ms: 600_000,
            model_tries: 3,
            model_retry_budget_ms: 60_000,
            approval_timeout_ms: 30 * 24 * 60 * 60 * 1000,
            approval_default: ApprovalDefault::Deny,
            callback_tries: 5,
            callback_secret: None,
            live_ttl_ms: 24 * 60 * 60 * 1000,
            finished_ttl_ms: 10 * 60 * 1000,
            tool_timeout_ms: 180_000,
            python: "python3".to_owned(),
            python_sandbox: SandboxChoice::Auto,
            python_network: Network::Deny,
            python_memory_bytes: 512 * 1024 * 1024,
            python_output_bytes: 1024 * 1024,
            python_concurrency: 8,
            otlp_endpoint: None,
            log: "info".to_owned(),
            log_format: LogFormat::Text,
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How the server answers calls that nobody answered in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalDefault {
    /// They may not run.
    Deny,
    /// They may run.
    Approve,
}

/// All settings, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Postgres; without it the store is a SQLite file in the data directory.
    pub database_url: Option<SecretString>,
    /// RabbitMQ; without it the queue is in this process.
    pub amqp_url: Option<SecretString>,
    /// Redis; without it the event log is a file in the data directory.
    pub redis_url: Option<SecretString>,
    /// Names of queues and keys begin with it, so that installations can share servers.
    pub prefix: String,
    /// Connections to the database, for each process.
    pub database_connections: u32,
    /// How long Redis keeps the events of a run that nobody writes to.
    pub live_ttl: Duration,
    /// How long Redis keeps the events of a run that has ended.
    pub finished_ttl: Duration,
    /// What requests to clients' URLs may reach besides public addresses.
    pub outbound_allow: Allow,
    /// Settings of the API.
    pub api: ApiSettings,
    /// Settings of the worker.
    pub worker: WorkerSettings,
    /// Settings of the models.
    pub models: ModelSettings,
    /// Where `dev` keeps its data; `None` if there is no home to put it under.
    pub data_dir: Option<PathBuf>,
    /// Base URL of a collector that takes traces by OTLP over HTTP; without it none are sent.
    pub otlp_endpoint: Option<String>,
    /// Which log lines are written, as a `tracing` filter.
    pub log: String,
    /// How they look.
    pub log_format: LogFormat,
}

/// Settings of the API.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Bearer keys and whose they are; empty means open, on loopback only.
    pub keys: Vec<(TenantId, KeyHash)>,
    /// The origins of web pages that may call the API.
    pub cors_origins: CorsOrigins,
    /// Silence on a stream before a keepalive.
    pub keepalive: Duration,
    /// Most runs of one agent that are created or running.
    pub max_queued_runs: u32,
    /// Most bytes of a request body.
    pub max_body_bytes: usize,
    /// Most bytes of an image that is fetched from a URL.
    pub image_max_bytes: usize,
}

impl ApiSettings {
    /// Checks that nobody can come in unknown. Only for commands that listen.
    ///
    /// # Errors
    /// The address can be reached from other machines, and there is no key.
    pub fn require_keys(&self) -> Result<(), SettingsError> {
        let listen = self.listen;
        if !self.keys.is_empty() || listen.ip().is_loopback() {
            return Ok(());
        }
        let problem = format!(
            "{listen} can be reached from other machines, but no API key is set: set HOLDFAST_API_KEYS to one or more \
             long random keys, or listen on 127.0.0.1"
        );
        Err(invalid("HOLDFAST_LISTEN", problem))
    }
}

/// Settings of the worker.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// Runs at the same time.
    pub concurrency: u16,
    /// Silence of a worker after which anybody may take its runs.
    pub lease: Duration,
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// Silence that is enough when the broker gave the worker's delivery back.
    pub returned_after: Duration,
    /// How long a created run may wait before its hint is taken for lost.
    pub unclaimed_after: Duration,
    /// How long running steps may take to finish after SIGTERM.
    pub drain: Duration,
    /// Claims of a run without a committed step before it is given up.
    pub max_attempts: u32,
    /// Most time of a tool call.
    pub tool_timeout: Duration,
    /// Tries of a model call before its first delta.
    pub model_tries: u32,
    /// Most time that the pauses between these tries may take together.
    pub model_retry_budget: Duration,
    /// How long calls wait for the client before the server answers itself; `None`: for ever.
    pub approval_timeout: Option<Duration>,
    /// How it answers then.
    pub approval_default: ApprovalDefault,
    /// Tries of a callback.
    pub callback_tries: u32,
    /// What callbacks are signed with; `None`: they are not.
    pub callback_key: Option<SigningKey>,
    /// How Python tools are executed.
    pub python: PythonSettings,
    /// The file that names the MCP servers.
    pub mcp_config: Option<PathBuf>,
}

/// What a command line says about settings; it wins over everything else.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--listen`
    pub listen: Option<String>,
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
}

impl Settings {
    /// Reads the settings: defaults, then `file`, then the environment, then the command line.
    ///
    /// # Errors
    /// The first setting that is wrong, by its name.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Self, SettingsError> {
        let mut figment = Figment::new();
        if let Some(path) = file {
            let problem = |problem: String| SettingsError::File { path: path.to_path_buf(), problem };
            let text = std::fs::read_to_string(path).map_err(|error| problem(error.to_string()))?;
            figment = figment.merge(Toml::string(&text));
        }
        let mut raw = read(figment.merge(environment()), file)?;
        raw.listen = overrides.listen.clone().unwrap_or(raw.listen);
        raw.data_dir = overrides.data_dir.clone().or(raw.data_dir);
        Self::check(raw)
    }

    fn check(raw: Raw) -> Result<Self, SettingsError> {
        let raw = raw.without_blanks();
        let is_prefix = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        };
        if !is_prefix(&raw.prefix) {
            return Err(invalid("HOLDFAST_PREFIX", "use letters, digits, '-', '_' and '.', at least one"));
        }
        let api = raw.api()?;
        let worker = raw.worker()?;
        let models = raw.models(&|name| std::env::var(name).ok())?;
        let outbound_allow = raw.outbound_allow.parse().map_err(|problem: String| invalid(outbound::ALLOW, problem))?;
        Ok(Self {
            outbound_allow,
            api,
            worker,
            models,
            database_connections: positive_u32("HOLDFAST_DATABASE_CONNECTIONS", raw.database_connections)?,
            live_ttl: positive("HOLDFAST_LIVE_TTL_MS", raw.live_ttl_ms)?,
            finished_ttl: positive("HOLDFAST_FINISHED_TTL_MS", raw.finished_ttl_ms)?,
            database_url: raw.database_url,
            amqp_url: raw.amqp_url,
            redis_url: raw.redis_url,
            prefix: raw.prefix,
            data_dir: raw.data_dir.or_else(default_data_dir),
            otlp_endpoint: raw.otlp_endpoint,
            log: raw.log,
            log_format: raw.log_format,
        })
    }
}

fn environment() -> Env {
    let name_of = |variable: &str| VARIABLES.iter().find(|(name, _)| *name == variable).map(|(_, key)| *key);
    Env::raw().filter_map(move |variable| name_of(&variable.as_str().to_uppercase()).map(Into::into)).lowercase(false)
}

fn read(figment: Figment, file: Option<&Path>) -> Result<Raw, SettingsError> {
    figment.extract::<Raw>().map_err(|error| {
        let key = error.path.first().cloned().unwrap_or_default();
        let is_set = |name: &str| std::env::var_os(name).is_some();
        let variable = VARIABLES.iter().find(|(name, of)| *of == key && is_set(name)).map(|(name, _)| *name);
        // The kind alone: the whole error would repeat the value, which may be a secret.
        let problem = match &error.kind {
            figment::error::Kind::InvalidType(_, expected) => format!("expected {expected}"),
            figment::error::Kind::UnknownVariant(_, expected) => format!("expected one of {}", expected.join(", ")),
            figment::error::Kind::UnknownField(name, _) => format!("'{name}' is not a setting"),
            kind => kind.to_string(),
        };
        match (variable, file) {
            (Some(variable), _) => invalid(variable, problem),
            (None, Some(path)) if key.is_empty() => SettingsError::File { path: path.to_path_buf(), problem },
            (None, Some(path)) => {
                SettingsError::File { path: path.to_path_buf(), problem: format!("{key}: {problem}") }
            }
            (None, None) => invalid(&key, problem),
        }
    })
}

/// `$XDG_DATA_HOME/holdfast`, else `~/.local/share/holdfast`.
fn default_data_dir() -> Option<PathBuf> {
    let directory = |variable| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = directory("XDG_DATA_HOME").or_else(|| directory("HOME").map(|home| home.join(".local/share")))?;
    Some(base.join("holdfast"))
}

fn positive(name: &str, milliseconds: u64) -> Result<Duration, SettingsError> {
    if milliseconds == 0 { Err(invalid(name, "must be at least 1")) } else { Ok(Duration::from_millis(milliseconds)) }
}

fn positive_u32(name: &str, value: u32) -> Result<u32, SettingsError> {
    if value == 0 { Err(invalid(name, "must be at least 1")) } else { Ok(value) }
}

impl Raw {
    /// An empty text is no value: `OPENAI_API_KEY=` in a compose file means that there is none.
    fn without_blanks(mut self) -> Self {
        use secrecy::ExposeSecret;
        let keep = |secret: &SecretString| !secret.expose_secret().trim().is_empty();
        self.database_url = self.database_url.filter(keep);
        self.amqp_url = self.amqp_url.filter(keep);
        self.redis_url = self.redis_url.filter(keep);
        self.openai_api_key = self.openai_api_key.filter(keep);
        self.api_keys = self.api_keys.filter(keep);
        self.anthropic_api_key = self.anthropic_api_key.filter(keep);
        self.gemini_api_key = self.gemini_api_key.filter(keep);
        self.callback_secret = self.callback_secret.filter(keep);
        let keep = |text: &String| !text.trim().is_empty();
        self.openai_base_url = self.openai_base_url.filter(keep);
        self.openai_compatible = self.openai_compatible.filter(keep);
        self.anthropic_base_url = self.anthropic_base_url.filter(keep);
        self.gemini_base_url = self.gemini_base_url.filter(keep);
        self.default_model = self.default_model.filter(keep);
        self.otlp_endpoint = self.otlp_endpoint.filter(keep);
        self.data_dir = self.data_dir.filter(|path| !path.as_os_str().is_empty());
        if self.python.trim().is_empty() {
            self.python = Self::default().python;
        }
        self.mcp_config = self.mcp_config.filter(|path| !path.as_os_str().is_empty());
        if self.log.trim().is_empty() {
            self.log = Self::default().log;
        }
        self
    }

    fn api(&self) -> Result<ApiSettings, SettingsError> {
        let listen: SocketAddr = self
            .listen
            .parse()
            .map_err(|_| invalid("HOLDFAST_LISTEN", "expected ADDRESS:PORT, for example 127.0.0.1:8283"))?;
        for (name, bytes) in
            [("HOLDFAST_MAX_BODY_BYTES", self.max_body_bytes), ("HOLDFAST_IMAGE_MAX_BYTES", self.image_max_bytes)]
        {
            if bytes == 0 {
                return Err(invalid(name, "must be at least 1"));
            }
        }
        Ok(ApiSettings {
            listen,
            keys: self.keys()?,
            cors_origins: self.cors_origins()?,
            keepalive: positive("HOLDFAST_KEEPALIVE_MS", self.keepalive_ms)?,
            max_queued_runs: positive_u32("HOLDFAST_MAX_QUEUED_RUNS", self.max_queued_runs)?,
            max_body_bytes: self.max_body_bytes,
            image_max_bytes: self.image_max_bytes,
        })
    }

    fn callback_key(&self) -> Result<Option<SigningKey>, SettingsError> {
        use secrecy::ExposeSecret;
        let key = self.callback_secret.as_ref().map(|secret| SigningKey::parse(secret.expose_secret().trim()));
        key.transpose().map_err(|problem| invalid("HOLDFAST_CALLBACK_SECRET", problem))
    }

    fn worker(&self) -> Result<WorkerSettings, SettingsError> {
        let heartbeat = positive("HOLDFAST_HEARTBEAT_MS", self.heartbeat_ms)?;
        let lease = positive("HOLDFAST_LEASE_MS", self.lease_ms)?;
        let returned_after = positive("HOLDFAST_RETURNED_AFTER_MS", self.returned_after_ms)?;
        if returned_after < heartbeat * 2 {
            let least = (heartbeat * 2).as_millis();
            let problem =
                format!("must be at least twice HOLDFAST_HEARTBEAT_MS, here {least}, or live workers lose runs");
            return Err(invalid("HOLDFAST_RETURNED_AFTER_MS", problem));
        }
        if lease < returned_after {
            let least = returned_after.as_millis();
            let problem = format!(
                "must not be shorter than HOLDFAST_RETURNED_AFTER_MS, here {least}, which in turn takes at least two of \
                 HOLDFAST_HEARTBEAT_MS"
            );
            return Err(invalid("HOLDFAST_LEASE_MS", problem));
        }
        if self.worker_concurrency == 0 {
            return Err(invalid("HOLDFAST_WORKER_CONCURRENCY", "must be at least 1"));
        }
        Ok(WorkerSettings {
            concurrency: self.worker_concurrency,
            lease,
            heartbeat,
            returned_after,
            unclaimed_after: positive("HOLDFAST_UNCLAIMED_AFTER_MS", self.unclaimed_after_ms)?,
            drain: Duration::from_millis(self.drain_ms),
            max_attempts: positive_u32("HOLDFAST_MAX_ATTEMPTS", self.max_attempts)?,
            tool_timeout: positive("HOLDFAST_TOOL_TIMEOUT_MS", self.tool_timeout_ms)?,
            model_tries: positive_u32("HOLDFAST_MODEL_TRIES", self.model_tries)?,
            model_retry_budget: Duration::from_millis(self.model_retry_budget_ms),
            approval_timeout: (self.approval_timeout_ms > 0).then(|| Duration::from_millis(self.approval_timeout_ms)),
            approval_default: self.approval_default,
            callback_tries: positive_u32("HOLDFAST_CALLBACK_TRIES", self.callback_tries)?,
            callback_key: self.callback_key()?,
            python: self.python()?,
            mcp_config: self.mcp_config.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_toml(text: &str) -> Result<Settings, SettingsError> {
        Settings::check(read(Figment::new().merge(Toml::string(text)), Some(Path::new("holdfast.toml")))?)
    }

    #[test]
    fn defaults_are_usable_and_stay_on_loopback() {
        let settings = from_toml("").expect("defaults");
        assert!(settings.api.listen.ip().is_loopback());
        assert_eq!(settings.api.listen.port(), 8283);
        assert!(settings.models.servers.is_empty());
    }

    #[test]
    fn a_wrong_value_is_refused_by_name() {
        for (text, name) in [
            ("listen = \"here\"", "HOLDFAST_LISTEN"),
            ("api_keys = \"a b=12345678\"", "HOLDFAST_API_KEYS"),
            ("api_keys = \"short\"", "HOLDFAST_API_KEYS"),
            ("prefix = \"a b\"", "HOLDFAST_PREFIX"),
            ("heartbeat_ms = 0", "HOLDFAST_HEARTBEAT_MS"),
            ("heartbeat_ms = 1000", "HOLDFAST_RETURNED_AFTER_MS"),
            ("lease_ms = 1000", "HOLDFAST_LEASE_MS"),
            ("worker_concurrency = 0", "HOLDFAST_WORKER_CONCURRENCY"),
            ("openai_base_url = \"localhost\"", "OPENAI_BASE_URL"),
            ("openai_compatible = \"a=b\"", "HOLDFAST_OPENAI_COMPATIBLE"),
            ("anthropic_base_url = \"here\"", "ANTHROPIC_BASE_URL"),
            ("gemini_base_url = \"ftp://h\"", "GEMINI_BASE_URL"),
            ("openai_api = \"both\"", "openai_api"),
            ("openai_reasoning_summary = \"much\"", "openai_reasoning_summary"),
            ("default_model = \"gpt\"", "HOLDFAST_DEFAULT_MODEL"),
            ("python_memory_bytes = 1000", "HOLDFAST_PYTHON_MEMORY_BYTES"),
            ("python_output_bytes = 0", "HOLDFAST_PYTHON_OUTPUT_BYTES"),
            ("python_concurrency = 0", "HOLDFAST_PYTHON_CONCURRENCY"),
            ("python_sandbox = \"none\"", "python_sandbox"),
            ("python_network = \"yes\"", "python_network"),
            ("image_max_bytes = 0", "HOLDFAST_IMAGE_MAX_BYTES"),
            ("callback_tries = 0", "HOLDFAST_CALLBACK_TRIES"),
            ("callback_secret = \"short\"", "HOLDFAST_CALLBACK_SECRET"),
            ("callback_secret = \"whsec_(not base64, but long)\"", "HOLDFAST_CALLBACK_SECRET"),
            ("outbound_allow = \"http://a/\"", "HOLDFAST_OUTBOUND_ALLOW"),
            ("lease_ms = \"long\"", "lease_ms"),
            ("nonsense = 1", "nonsense"),
        ] {
            let error = from_toml(text).expect_err(text).to_string();
            assert!(error.contains(name), "{text}: {error}");
        }
    }

    #[test]
    fn only_who_has_keys_may_listen_beyond_loopback() {
        let settings = from_toml("listen = \"0.0.0.0:8283\"").expect("fine for a command that does not listen");
        assert!(settings.api.require_keys().expect_err("open").to_string().contains("HOLDFAST_API_KEYS"));
        for closed in ["listen = \"0.0.0.0:8283\"\napi_keys = \"long-enough\"", "listen = \"[::1]:1\""] {
            from_toml(closed).expect("valid").api.require_keys().expect(closed);
        }
    }
}
