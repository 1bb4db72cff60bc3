//! The providers of models behind the port [`ModelClient`]: one file each.

mod demo;
mod openai;

use std::time::Duration;

use async_trait::async_trait;
use holdfast_shared::domain::run::ErrorType;
use holdfast_shared::ports::model_client::{DeltaStream, ModelClient, ModelError, ModelRequest};
use secrecy::SecretString;

use demo::Demo;
use openai::OpenAi;

/// Most characters of a provider's own words that are passed on.
const PROVIDER_TEXT_CHARS: usize = 2000;

/// Which providers there are, and how long a call of one may take.
#[derive(Debug, Clone)]
pub struct LlmConfig {
    /// The OpenAI-compatible server, if one is configured.
    pub openai: Option<OpenAiConfig>,
    /// Longest wait for the head of the provider's answer.
    pub header_timeout: Duration,
    /// Longest wait between two pieces of the answer. Anything the provider sends counts, also a keep-alive comment.
    pub idle_timeout: Duration,
    /// Longest that a call may take as a whole.
    pub total_timeout: Duration,
}

impl Default for LlmConfig {
    fn default() -> Self {
        Self {
            openai: None,
            // Some servers send the head only when they have read the whole prompt.
            header_timeout: Duration::from_secs(120),
            idle_timeout: Duration::from_secs(60),
            total_timeout: Duration::from_secs(600),
        }
    }
}

/// An OpenAI-compatible server.
#[derive(Debug, Clone)]
pub struct OpenAiConfig {
    /// The URL up to and including the version, for example `https://api.openai.com/v1`.
    pub base_url: String,
    /// The key, where the server wants one.
    pub api_key: Option<SecretString>,
}

/// Why the providers cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LlmSetupError {
    /// No HTTP client.
    #[error("no HTTP client for model calls: {0}")]
    Http(#[from] reqwest::Error),
    /// The base URL is none.
    #[error("OPENAI_BASE_URL is not an http or https URL: '{0}'")]
    BaseUrl(String),
}

/// All providers; the part of the handle before the slash chooses.
pub struct Providers {
    demo: Demo,
    openai: Option<OpenAi>,
}

impl Providers {
    /// Sets the providers up; nothing is called yet. The process needs an installed rustls provider if an
    /// OpenAI-compatible server is configured, even for plain HTTP.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn new(config: LlmConfig) -> Result<Self, LlmSetupError> {
        let openai = config.openai.clone().map(|server| OpenAi::new(server, &config)).transpose()?;
        Ok(Self { demo: Demo, openai })
    }
}

#[async_trait]
impl ModelClient for Providers {
    async fn stream(&self, request: ModelRequest) -> Result<DeltaStream, ModelError> {
        match (request.model.provider(), &self.openai) {
            ("holdfast", _) => self.demo.stream(request).await,
            ("openai", Some(openai)) => openai.stream(request).await,
            ("openai", None) => {
                let advice = "no OpenAI-compatible server is configured: set OPENAI_BASE_URL or OPENAI_API_KEY";
                Err(unusable(format!("The model '{}' cannot be called: {advice}.", request.model)))
            }
            _ => Err(unusable(format!("No provider serves the model '{}'.", request.model))),
        }
    }
}

/// A call that no later try can help.
fn unusable(message: String) -> ModelError {
    ModelError {
        error_type: ErrorType::LlmError,
        message,
        detail: None,
        status: None,
        is_transient: false,
        is_context_overflow: false,
        retry_after: None,
    }
}

/// What an HTTP status of a provider means.
fn from_status(status: u16, message: String, detail: Option<String>, retry_after: Option<Duration>) -> ModelError {
    let error_type = match status {
        429 => ErrorType::LlmRateLimit,
        401 | 403 => ErrorType::LlmAuthentication,
        408 | 504 => ErrorType::LlmTimeout,
        _ => ErrorType::LlmError,
    };
    let is_transient = matches!(status, 408 | 429 | 500..);
    ModelError {
        error_type,
        message,
        detail,
        status: Some(status),
        is_transient,
        is_context_overflow: false,
        retry_after,
    }
}

/// The first characters of a text, with a mark if there were more.
fn clip(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use holdfast_shared::domain::model::ModelHandle;
    use holdfast_shared::ports::model_client::{ModelOptions, ToolChoice};

    use super::*;

    #[tokio::test]
    async fn a_handle_without_a_provider_is_refused_for_good() {
        let providers = Providers::new(LlmConfig::default()).expect("providers");
        for handle in ["nobody/model", "openai/gpt-4o-mini", "holdfast/other"] {
            let request = ModelRequest {
                model: ModelHandle::parse(handle).expect("a handle"),
                system: String::new(),
                turns: Vec::new(),
                tools: Vec::new(),
                tool_choice: ToolChoice::Auto,
                options: ModelOptions::default(),
            };
            let error = providers.stream(request).await.err().expect("an error");
            assert_eq!(error.error_type, ErrorType::LlmError, "{handle}");
            assert!(!error.is_transient && error.message.contains(handle), "{handle}: {error}");
        }
    }

    #[test]
    fn statuses_by_kind() {
        for (status, error_type, is_transient) in [
            (400, ErrorType::LlmError, false),
            (401, ErrorType::LlmAuthentication, false),
            (403, ErrorType::LlmAuthentication, false),
            (404, ErrorType::LlmError, false),
            (408, ErrorType::LlmTimeout, true),
            (429, ErrorType::LlmRateLimit, true),
            (500, ErrorType::LlmError, true),
            (504, ErrorType::LlmTimeout, true),
            (529, ErrorType::LlmError, true),
        ] {
            let error = from_status(status, String::new(), None, None);
            assert_eq!((error.error_type, error.is_transient), (error_type, is_transient), "{status}");
        }
    }

    #[test]
    fn clipping_counts_characters() {
        assert_eq!(clip("äöü", 3), "äöü");
        assert_eq!(clip("äöü", 2), "äö…");
    }
}
