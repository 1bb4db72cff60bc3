//! Settings of the models: which servers there are, and how long a call of one may take.

use std::time::Duration;

use reqwest::Url;
use secrecy::SecretString;
use serde::Deserialize;

use super::{Raw, SettingsError, invalid, positive};
use crate::domain::model::ModelHandle;

/// Base URL of OpenAI itself.
const OPENAI_BASE_URL: &str = "https://api.openai.com/v1";
/// Base URL of Anthropic itself.
const ANTHROPIC_BASE_URL: &str = "https://api.anthropic.com/v1";
/// Base URL of Google's Gemini API itself.
const GEMINI_BASE_URL: &str = "https://generativelanguage.googleapis.com/v1beta";
/// Names that servers of `HOLDFAST_OPENAI_COMPATIBLE` cannot have.
const TAKEN: [&str; 4] = ["holdfast", OPENAI, ANTHROPIC, GOOGLE_AI];
/// Longest name of a server.
const SERVER_NAME_CHARS: usize = 32;

/// The server of `OPENAI_BASE_URL` and `OPENAI_API_KEY`.
pub const OPENAI: &str = "openai";
/// The server of `ANTHROPIC_API_KEY`.
pub const ANTHROPIC: &str = "anthropic";
/// The server of `GEMINI_API_KEY`.
pub const GOOGLE_AI: &str = "google_ai";

/// Settings of the models.
#[derive(Debug, Clone)]
pub struct ModelSettings {
    /// The servers of models, each with a name of its own.
    pub servers: Vec<ModelServer>,
    /// Model of agents that name none.
    pub default_model: Option<ModelHandle>,
    /// Whether OpenAI's reasoning models shall sum up their reasoning.
    pub reasoning_summary: ReasoningSummary,
    /// Until the response headers of a model call.
    pub header_timeout: Duration,
    /// Between two chunks of an answer.
    pub idle_timeout: Duration,
    /// For a whole answer.
    pub total_timeout: Duration,
}

impl Default for ModelSettings {
    fn default() -> Self {
        let raw = Raw::default();
        Self {
            servers: Vec::new(),
            default_model: None,
            reasoning_summary: raw.openai_reasoning_summary,
            header_timeout: Duration::from_millis(raw.model_header_timeout_ms),
            idle_timeout: Duration::from_millis(raw.model_idle_timeout_ms),
            total_timeout: Duration::from_millis(raw.model_total_timeout_ms),
        }
    }
}

/// A server of models.
#[derive(Debug, Clone)]
pub struct ModelServer {
    /// The first part of its models' handles.
    pub name: String,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Up to and including the version; the path ends in a slash, or its last segment would be lost in joins.
    pub base_url: Url,
    /// Key, if the server wants one.
    pub api_key: Option<SecretString>,
    /// The setting of the URL, for texts that tell what to check.
    pub url_setting: String,
    /// The setting of the key, for the same.
    pub key_setting: String,
}

impl ModelServer {
    /// The base URL as it may be shown: credentials and queries can hold keys.
    #[must_use]
    pub fn shown_url(&self) -> String {
        let mut url = self.base_url.clone();
        // Of a URL with a host neither can fail.
        let _ = url.set_password(None);
        let _ = url.set_username("");
        url.set_query(None);
        url.as_str().trim_end_matches('/').to_owned()
    }

    /// Whether it is OpenAI itself, whose models are known by their names.
    #[must_use]
    pub fn is_openai_itself(&self) -> bool {
        matches!(self.protocol, Protocol::OpenAi(_)) && self.base_url.host_str() == Some("api.openai.com")
    }
}

/// How a server of models is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// As OpenAI is.
    OpenAi(OpenAiApi),
    /// Anthropic's Messages API.
    Anthropic,
    /// Google's Gemini API.
    Gemini,
}

/// Which of OpenAI's two interfaces is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenAiApi {
    /// Responses for the reasoning models of OpenAI itself, which can go on with their reasoning only there; else
    /// chat completions.
    Auto,
    /// Chat completions.
    ChatCompletions,
    /// Responses.
    Responses,
}

/// Whether OpenAI's reasoning models shall sum up their reasoning, in that interface's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasoningSummary {
    /// Not at all. OpenAI refuses summaries to organisations that it has not verified.
    None,
    /// As the model does it best.
    Auto,
    /// Shortly.
    Concise,
    /// At length.
    Detailed,
}

impl Raw {
    /// The settings of the models. `variable` reads the environment, for the keys of servers that
    /// `HOLDFAST_OPENAI_COMPATIBLE` names.
    pub(super) fn models(&self, variable: &dyn Fn(&str) -> Option<String>) -> Result<ModelSettings, SettingsError> {
        let default_model = match &self.default_model {
            Some(text) => Some(ModelHandle::parse(text).ok_or_else(|| {
                invalid("HOLDFAST_DEFAULT_MODEL", "expected PROVIDER/MODEL, for example openai/gpt-4o-mini")
            })?),
            None => None,
        };
        let own = [
            self.openai(),
            server(
                (ANTHROPIC, Protocol::Anthropic, "v1"),
                ("ANTHROPIC_BASE_URL", self.anthropic_base_url.as_deref(), ANTHROPIC_BASE_URL),
                ("ANTHROPIC_API_KEY", self.anthropic_api_key.as_ref()),
            ),
            server(
                (GOOGLE_AI, Protocol::Gemini, "v1beta"),
                ("GEMINI_BASE_URL", self.gemini_base_url.as_deref(), GEMINI_BASE_URL),
                ("GEMINI_API_KEY", self.gemini_api_key.as_ref()),
            ),
        ];
        let mut servers: Vec<ModelServer> = Vec::new();
        for server in own {
            servers.extend(server?);
        }
        servers.extend(self.compatible_servers(variable)?);
        Ok(ModelSettings {
            servers,
            default_model,
            reasoning_summary: self.openai_reasoning_summary,
            header_timeout: positive("HOLDFAST_MODEL_HEADER_TIMEOUT_MS", self.model_header_timeout_ms)?,
            idle_timeout: positive("HOLDFAST_MODEL_IDLE_TIMEOUT_MS", self.model_idle_timeout_ms)?,
            total_timeout: positive("HOLDFAST_MODEL_TOTAL_TIMEOUT_MS", self.model_total_timeout_ms)?,
        })
    }

    fn openai(&self) -> Result<Option<ModelServer>, SettingsError> {
        server(
            (OPENAI, Protocol::OpenAi(self.openai_api), ""),
            ("OPENAI_BASE_URL", self.openai_base_url.as_deref(), OPENAI_BASE_URL),
            ("OPENAI_API_KEY", self.openai_api_key.as_ref()),
        )
    }

    /// `NAME=URL` or `NAME=URL|KEY_VARIABLE`, comma-separated.
    fn compatible_servers(&self, variable: &dyn Fn(&str) -> Option<String>) -> Result<Vec<ModelServer>, SettingsError> {
        const SETTING: &str = "HOLDFAST_OPENAI_COMPATIBLE";
        let mut servers: Vec<ModelServer> = Vec::new();
        let entries = self.openai_compatible.as_deref().unwrap_or_default().split(',').map(str::trim);
        for entry in entries.filter(|entry| !entry.is_empty()) {
            let wrong = || {
                invalid(
                    SETTING,
                    "expected NAME=URL or NAME=URL|KEY_VARIABLE, separated by commas, for example \
                     local=http://127.0.0.1:8000/v1,groq=https://api.groq.com/openai/v1|GROQ_API_KEY",
                )
            };
            let (name, rest) = entry.split_once('=').ok_or_else(wrong)?;
            let (url, key_variable) = match rest.split_once('|') {
                Some((url, key_variable)) => (url, Some(key_variable.trim())),
                None => (rest, None),
            };
            let name = name.trim();
            if !is_server_name(name) {
                let problem = format!(
                    "'{name}' is no name for a server: use 1 to {SERVER_NAME_CHARS} lower-case letters, digits, '-' \
                     or '_', and none of {}",
                    TAKEN.join(", ")
                );
                return Err(invalid(SETTING, problem));
            }
            if servers.iter().any(|known| known.name == name) {
                return Err(invalid(SETTING, format!("names '{name}' twice")));
            }
            let api_key = match key_variable {
                Some(variable_name) => {
                    let key = variable(variable_name).filter(|key| !key.trim().is_empty());
                    let key = key.ok_or_else(|| {
                        let problem = format!("the key of '{name}' is to be in {variable_name}, which is not set");
                        invalid(SETTING, problem)
                    })?;
                    Some(SecretString::from(key))
                }
                None => None,
            };
            servers.push(ModelServer {
                name: name.to_owned(),
                protocol: Protocol::OpenAi(OpenAiApi::Auto),
                base_url: base_url(SETTING, url, "")?,
                api_key,
                url_setting: SETTING.to_owned(),
                key_setting: key_variable.unwrap_or(SETTING).to_owned(),
            });
        }
        Ok(servers)
    }
}

/// One of the servers with settings of their own, if either its URL or its key is set.
fn server(
    (name, protocol, version): (&str, Protocol, &str),
    (url_setting, url, default_url): (&str, Option<&str>, &str),
    (key_setting, api_key): (&str, Option<&SecretString>),
) -> Result<Option<ModelServer>, SettingsError> {
    if url.is_none() && api_key.is_none() {
        return Ok(None);
    }
    Ok(Some(ModelServer {
        name: name.to_owned(),
        protocol,
        base_url: base_url(url_setting, url.unwrap_or(default_url), version)?,
        api_key: api_key.cloned(),
        url_setting: url_setting.to_owned(),
        key_setting: key_setting.to_owned(),
    }))
}

fn is_server_name(text: &str) -> bool {
    (1..=SERVER_NAME_CHARS).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'))
        && !TAKEN.contains(&text)
}

/// A base URL with a slash at the end. Where the usual variable of other programs holds it without the version, that is
/// put after it.
fn base_url(setting: &str, text: &str, version: &str) -> Result<Url, SettingsError> {
    let wrong = || invalid(setting, "expected a URL such as http://127.0.0.1:11434/v1");
    let mut url = Url::parse(text.trim()).map_err(|_| wrong())?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(wrong());
    }
    let is_version =
        |segment: &str| segment.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let path = url.path().trim_end_matches('/').to_owned();
    let has_version = version.is_empty() || path.rsplit('/').next().is_some_and(is_version);
    url.set_path(&if has_version { format!("{path}/") } else { format!("{path}/{version}/") });
    Ok(url)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn raw() -> Raw {
        Raw::default()
    }

    fn models(raw: &Raw) -> Result<ModelSettings, SettingsError> {
        raw.models(&|name| (name == "GROQ_API_KEY").then(|| "gsk-secret".to_owned()))
    }

    fn only(raw: &Raw) -> ModelServer {
        let mut servers = models(raw).expect("valid").servers;
        assert_eq!(servers.len(), 1, "{servers:?}");
        servers.remove(0)
    }

    #[test]
    fn without_settings_there_is_no_server() {
        assert!(models(&raw()).expect("valid").servers.is_empty());
    }

    #[test]
    fn a_key_alone_means_the_provider_itself() {
        let key = || Some(SecretString::from("sk-1"));
        let server = only(&Raw { openai_api_key: key(), ..raw() });
        assert_eq!((server.name.as_str(), server.base_url.as_str()), ("openai", "https://api.openai.com/v1/"));
        assert!(server.is_openai_itself());
        let server = only(&Raw { anthropic_api_key: key(), ..raw() });
        assert_eq!((server.name.as_str(), server.base_url.as_str()), ("anthropic", "https://api.anthropic.com/v1/"));
        let server = only(&Raw { gemini_api_key: key(), ..raw() });
        assert_eq!(server.name, "google_ai");
        assert_eq!(server.base_url.as_str(), "https://generativelanguage.googleapis.com/v1beta/");
        assert_eq!((server.protocol, server.key_setting.as_str()), (Protocol::Gemini, "GEMINI_API_KEY"));
    }

    #[test]
    fn a_base_url_ends_in_one_slash() {
        for url in ["http://127.0.0.1:1/v1", "http://127.0.0.1:1/v1/", " http://127.0.0.1:1/v1// "] {
            let server = only(&Raw { openai_base_url: Some(url.to_owned()), ..raw() });
            assert_eq!(server.base_url.as_str(), "http://127.0.0.1:1/v1/");
            assert!(!server.is_openai_itself());
        }
    }

    #[test]
    fn a_missing_version_is_put_after_the_url_where_other_programs_leave_it_out() {
        for (given, used) in [
            ("http://127.0.0.1:1", "http://127.0.0.1:1/v1/"),
            ("http://127.0.0.1:1/v1", "http://127.0.0.1:1/v1/"),
            ("http://127.0.0.1:1/anthropic/", "http://127.0.0.1:1/anthropic/v1/"),
        ] {
            let server = only(&Raw { anthropic_base_url: Some(given.to_owned()), ..raw() });
            assert_eq!(server.base_url.as_str(), used);
        }
        let server = only(&Raw { gemini_base_url: Some("http://127.0.0.1:1/v1".to_owned()), ..raw() });
        assert_eq!(server.base_url.as_str(), "http://127.0.0.1:1/v1/");
        let server = only(&Raw { openai_base_url: Some("http://127.0.0.1:1".to_owned()), ..raw() });
        assert_eq!(server.base_url.as_str(), "http://127.0.0.1:1/");
    }

    #[test]
    fn servers_are_named_with_their_keys_variables() {
        let text = "local=http://127.0.0.1:8000/v1, groq=https://api.groq.com/openai/v1|GROQ_API_KEY,";
        let servers = models(&Raw { openai_compatible: Some(text.to_owned()), ..raw() }).expect("valid").servers;
        let names: Vec<_> = servers.iter().map(|server| server.name.as_str()).collect();
        assert_eq!(names, ["local", "groq"]);
        assert!(servers[0].api_key.is_none());
        assert_eq!(servers[1].api_key.as_ref().map(|key| key.expose_secret()), Some("gsk-secret"));
        assert_eq!(servers[1].base_url.as_str(), "https://api.groq.com/openai/v1/");
        assert_eq!(servers[1].key_setting, "GROQ_API_KEY");
        assert!(!format!("{servers:?}").contains("gsk-secret"));
    }

    #[test]
    fn wrong_servers_are_refused_with_what_is_wrong() {
        for (text, said) in [
            ("http://127.0.0.1:8000/v1", "NAME=URL"),
            ("a=localhost:8000", "URL such as"),
            ("A=http://h/v1", "'A'"),
            ("openai=http://h/v1", "'openai'"),
            ("a/b=http://h/v1", "'a/b'"),
            ("a=http://h/v1,a=http://i/v1", "twice"),
            ("a=http://h/v1|NO_SUCH_KEY", "NO_SUCH_KEY"),
        ] {
            let error = models(&Raw { openai_compatible: Some(text.to_owned()), ..raw() }).expect_err(text).to_string();
            assert!(error.contains("HOLDFAST_OPENAI_COMPATIBLE") && error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn a_url_is_shown_without_credentials() {
        let url = Some("http://user:hunter2@127.0.0.1:1/v1?key=hunter3".to_owned());
        let server = only(&Raw { openai_base_url: url, ..raw() });
        assert_eq!(server.shown_url(), "http://127.0.0.1:1/v1");
    }
}
