//! The providers of models behind the port [`ModelClient`].
//!
//! [`provider`] calls any server through `genai`; what differs between their interfaces is in [`dialect`], one file
//! each.

mod blame;
mod conversation;
mod demo;
mod dialect;
mod provider;
#[cfg(test)]
mod scripted;

use std::time::Duration;

use async_trait::async_trait;
use holdfast_shared::config::{ANTHROPIC, GOOGLE_AI, ModelSettings, OPENAI};
use holdfast_shared::domain::run::ErrorType;
use holdfast_shared::ports::model_client::{DeltaStream, ModelClient, ModelError, ModelRequest};
use holdfast_shared::ports::seams::Seams;

use demo::Demo;
use provider::Provider;

/// Why the providers cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("no HTTP client for model calls: {0}")]
pub struct LlmSetupError(#[from] reqwest::Error);

/// All providers; the part of the handle before the slash chooses.
pub struct Providers {
    demo: Demo,
    servers: Vec<Provider>,
}

impl Providers {
    /// Sets the providers up; nothing is called yet. The process needs an installed rustls provider if a server is
    /// configured, even for plain HTTP. The clock is for servers that say until when to wait.
    ///
    /// # Errors
    /// There is no HTTP client.
    pub fn new(settings: &ModelSettings, seams: &Seams) -> Result<Self, LlmSetupError> {
        let servers = settings.servers.iter().map(|server| Provider::new(server, settings, seams));
        Ok(Self { demo: Demo, servers: servers.collect::<Result<_, _>>()? })
    }
}

#[async_trait]
impl ModelClient for Providers {
    async fn stream(&self, request: ModelRequest) -> Result<DeltaStream, ModelError> {
        let provider = request.model.provider();
        if provider == "holdfast" {
            return self.demo.stream(request).await;
        }
        match self.servers.iter().find(|server| server.serves(provider)) {
            Some(server) => server.stream(request).await,
            None => {
                let advice = match provider {
                    OPENAI => "set OPENAI_BASE_URL or OPENAI_API_KEY",
                    ANTHROPIC => "set ANTHROPIC_API_KEY",
                    GOOGLE_AI => "set GEMINI_API_KEY",
                    _ => "name a server for it in HOLDFAST_OPENAI_COMPATIBLE",
                };
                Err(unusable(format!("No provider serves the model '{}': {advice}.", request.model)))
            }
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
        let providers = Providers::new(&ModelSettings::default(), &Seams::system()).expect("providers");
        for handle in ["nobody/model", "openai/gpt-4o-mini", "anthropic/claude", "google_ai/gemini", "holdfast/other"] {
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
