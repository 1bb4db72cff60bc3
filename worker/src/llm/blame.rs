//! What went wrong in a call of a model: from what the server or the transport said to a [`ModelError`]. Keys are kept out
//! of all texts.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use genai::webc::StreamTimeout;
use holdfast_shared::config::ModelServer;
use holdfast_shared::domain::Timestamp;
use holdfast_shared::domain::run::ErrorType;
use holdfast_shared::ports::model_client::ModelError;
use holdfast_shared::ports::seams::Seams;
use reqwest::header::HeaderMap;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::dialect::Failure;
use super::{clip, from_status, unusable};

/// Most characters of a provider's own words that are passed on.
const PROVIDER_TEXT_CHARS: usize = 2000;
/// Most characters of a provider's own words inside a message for users.
const MESSAGE_CHARS: usize = 300;

/// What errors are told with.
#[derive(Clone)]
pub(super) struct Blame {
    name: Arc<str>,
    /// The base URL without credentials.
    server: Arc<str>,
    /// To be kept out of all texts.
    api_key: Option<SecretString>,
    url_setting: Arc<str>,
    key_setting: Arc<str>,
    /// The clock, for servers that say until when to wait.
    seams: Seams,
}

impl Blame {
    pub(super) fn new(server: &ModelServer, seams: &Seams) -> Self {
        Self {
            name: server.name.as_str().into(),
            server: server.shown_url().into(),
            api_key: server.api_key.clone(),
            url_setting: server.url_setting.as_str().into(),
            key_setting: server.key_setting.as_str().into(),
            seams: seams.clone(),
        }
    }

    /// What a failure of the transport means, as if nothing was delivered yet.
    pub(super) fn explain(&self, error: &genai::Error) -> ModelError {
        match error {
            genai::Error::HttpError { status, body, headers, .. } => self.refused(status.as_u16(), body, headers),
            // What a streaming call runs into is wrapped, also a plain refusal by status.
            genai::Error::WebStream { error, .. } => {
                let error: &(dyn StdError + 'static) = error.as_ref();
                if let Some(genai::Error::HttpError { status, body, headers, .. }) = error.downcast_ref() {
                    self.refused(status.as_u16(), body, headers)
                } else if let Some(phase) = error.downcast_ref::<StreamTimeout>() {
                    let what = match phase {
                        StreamTimeout::Headers => "did not begin to answer in time",
                        StreamTimeout::Read => "fell silent in the middle of its answer",
                    };
                    self.timeout(what, None)
                } else if let Some(error) = error.downcast_ref::<reqwest::Error>() {
                    self.transport(error)
                } else {
                    self.broke_off(Some(chain(error)))
                }
            }
            genai::Error::ChatResponse { body, .. } => self.failed(&Failure::Reported(body.clone())),
            genai::Error::StreamParse { serde_error, .. } => self.broke_off(Some(serde_error.to_string())),
            other => {
                let detail = self.words(&chain(other), PROVIDER_TEXT_CHARS);
                ModelError {
                    detail: Some(detail),
                    ..unusable("The request to the model provider could not be made.".to_owned())
                }
            }
        }
    }

    /// What a failure inside an answer means, as if nothing was delivered yet.
    pub(super) fn failed(&self, failure: &Failure) -> ModelError {
        match failure {
            Failure::Reported(object) => self.error_object(object),
            Failure::Refused(why) => {
                let why = self.words(why, MESSAGE_CHARS);
                unusable(format!("The model provider {} refused to answer: {why}", self.name))
            }
            Failure::Unreadable(why) => self.broke_off(Some(why.clone())),
        }
    }

    /// The answer ended before its end.
    pub(super) fn broke_off(&self, detail: Option<String>) -> ModelError {
        let message = format!("The model provider at {} broke its answer off.", self.server);
        let detail = detail.map(|detail| self.words(&detail, PROVIDER_TEXT_CHARS));
        ModelError { detail, is_transient: true, ..unusable(message) }
    }

    /// Something took too long.
    pub(super) fn timeout(&self, what: &str, detail: Option<String>) -> ModelError {
        let message = format!("The model provider at {} {what}.", self.server);
        ModelError { error_type: ErrorType::LlmTimeout, detail, is_transient: true, ..unusable(message) }
    }

    /// An HTTP status that is no success.
    fn refused(&self, status: u16, body: &str, headers: &HeaderMap) -> ModelError {
        match serde_json::from_str::<Value>(body) {
            Ok(json) => {
                let pause = retry_after(headers, self.seams.now()).or_else(|| retry_delay(&json));
                self.by_status(status, &json, body, pause)
            }
            Err(_) => {
                let said = Value::from(body.trim());
                self.by_status(status, &said, body, retry_after(headers, self.seams.now()))
            }
        }
    }

    /// An error object in the middle of a stream.
    fn error_object(&self, object: &Value) -> ModelError {
        let text = object.to_string();
        if let Some(status) = status_of(object) {
            return self.by_status(status, object, &text, retry_delay(object));
        }
        // Without a status there is nothing to tell a passing failure from a lasting one.
        let said = self.words(&words_of(object), MESSAGE_CHARS);
        let is_context_overflow = is_context_overflow(None, object);
        ModelError {
            detail: Some(self.words(&text, PROVIDER_TEXT_CHARS)),
            is_transient: !is_context_overflow,
            is_context_overflow,
            ..unusable(format!("The model provider {} reported an error: {said}", self.name))
        }
    }

    fn by_status(&self, status: u16, said: &Value, body: &str, retry_after: Option<Duration>) -> ModelError {
        // Google says 400 for a wrong key.
        let is_wrong_key = matches!(status, 401 | 403) || (status == 400 && body.contains("API_KEY_INVALID"));
        let is_context_overflow = !is_wrong_key && is_context_overflow(Some(status), said);
        let what = match status {
            _ if is_wrong_key => format!("refused the credentials; check {}", self.key_setting),
            _ if is_context_overflow => "finds the context too long".to_owned(),
            429 => "limits the rate of requests".to_owned(),
            _ => "could not answer".to_owned(),
        };
        let words = self.words(&words_of(said), MESSAGE_CHARS);
        let words = if words.is_empty() { String::new() } else { format!(": {words}") };
        let message = format!("The model provider {} {what} (HTTP status {status}){words}", self.name);
        let detail = (!body.is_empty()).then(|| self.words(body, PROVIDER_TEXT_CHARS));
        let mut error = from_status(status, message, detail, retry_after);
        if is_wrong_key {
            error.error_type = ErrorType::LlmAuthentication;
        }
        // What is too long stays too long, and a quota that is used up is not there again in a moment.
        let is_lasting = is_context_overflow || codes_of(said).any(|code| code == "insufficient_quota");
        error.is_transient = error.is_transient && !is_lasting;
        error.is_context_overflow = is_context_overflow;
        error
    }

    /// A failure below HTTP.
    fn transport(&self, error: &reqwest::Error) -> ModelError {
        let detail = self.words(&chain(error), PROVIDER_TEXT_CHARS);
        if error.is_timeout() {
            return self.timeout("could not be reached in time", Some(detail));
        }
        if error.is_connect() {
            let advice = format!("check {}, and whether the server runs", self.url_setting);
            let message = format!("The model provider at {} cannot be reached: {advice}.", self.server);
            return ModelError { detail: Some(detail), is_transient: true, ..unusable(message) };
        }
        if error.is_builder() {
            let (url, key) = (&self.url_setting, &self.key_setting);
            let message = format!("The request to the model provider could not be made: check {url} and {key}.");
            return ModelError { detail: Some(detail), ..unusable(message) };
        }
        self.broke_off(Some(detail))
    }

    /// The first characters of a text that others wrote, without the key: servers quote it in their errors.
    fn words(&self, text: &str, chars: usize) -> String {
        match &self.api_key {
            Some(key) => clip(&text.replace(key.expose_secret(), "***"), chars),
            None => clip(text, chars),
        }
    }
}

/// The words in an error object, wherever the server has put them.
fn words_of(said: &Value) -> String {
    let places = ["", "/error/message", "/message", "/0/error/message", "/error", "/detail"];
    let words = places.iter().filter_map(|place| said.pointer(place)?.as_str()).next();
    words.map_or_else(|| said.to_string(), str::to_owned)
}

/// The words for machines in an error object.
fn codes_of(said: &Value) -> impl Iterator<Item = &str> {
    let places = ["/error/code", "/error/type", "/code", "/type"];
    places.into_iter().filter_map(|place| said.pointer(place)?.as_str())
}

/// The HTTP status that goes with an error object which came without one.
fn status_of(object: &Value) -> Option<u16> {
    let number = ["/code", "/error/code", "/status"].iter().find_map(|place| object.pointer(place)?.as_u64());
    if let Some(status @ 400..=599) = number.and_then(|number| u16::try_from(number).ok()) {
        return Some(status);
    }
    codes_of(object).find_map(|code| match code {
        "invalid_request_error" | "invalid_prompt" | "context_length_exceeded" | "exceed_context_size_error" => {
            Some(400)
        }
        "authentication_error" => Some(401),
        "billing_error" => Some(402),
        "permission_error" => Some(403),
        "not_found_error" => Some(404),
        "request_too_large" => Some(413),
        "rate_limit_error" | "rate_limit_exceeded" | "insufficient_quota" => Some(429),
        "api_error" | "server_error" => Some(500),
        "timeout_error" => Some(504),
        "overloaded_error" => Some(529),
        _ => None,
    })
}

/// Whether the server says that the context is too large, each in its own words.
fn is_context_overflow(status: Option<u16>, said: &Value) -> bool {
    // In front of some servers a rate is limited by tokens: their texts speak of too large requests, too.
    if matches!(status, Some(401 | 402 | 403 | 404 | 429)) {
        return false;
    }
    const CODES: [&str; 3] = ["context_length_exceeded", "exceed_context_size_error", "request_too_large"];
    // Each line: who says it.
    const TEXTS: [&str; 13] = [
        "maximum context length",            // OpenAI, vLLM, routers
        "context_length_exceeded",           // servers that quote OpenAI
        "exceeds the context window",        // OpenAI, Responses
        "exceeds the available context",     // llama.cpp
        "context length exceeded",           // several
        "prompt is too long",                // Anthropic
        "exceed context limit",              // Anthropic, with the output limit added
        "input token count",                 // Google: "… exceeds the maximum number of tokens allowed"
        "maximum prompt length",             // xAI
        "longer than the model's context",   // SGLang
        "exceeded max context length",       // Ollama
        "reduce the length of the messages", // Groq
        "input is too long",                 // Bedrock
    ];
    let words = words_of(said).to_lowercase();
    codes_of(said).any(|code| CODES.contains(&code)) || TEXTS.iter().any(|text| words.contains(text))
}

/// How long the provider asks to wait: a number of seconds, or a date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let number = |name: &str| text(name)?.parse::<f64>().ok();
    let seconds = number("retry-after-ms").map(|ms| ms / 1000.0).or_else(|| number("retry-after"));
    if let Some(seconds) = seconds {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let until = DateTime::parse_from_rfc2822(text("retry-after")?).ok()?;
    // A moment that is over already means at once.
    Some((until.to_utc() - now).to_std().unwrap_or_default())
}

/// The same in the body, as Google says it: `"retryDelay": "34.5s"`.
fn retry_delay(body: &Value) -> Option<Duration> {
    let details = ["/error/details", "/details", "/0/error/details"];
    let details = details.iter().find_map(|place| body.pointer(place)?.as_array())?;
    let delay = details.iter().find_map(|detail| detail.get("retryDelay")?.as_str())?;
    Duration::try_from_secs_f64(delay.strip_suffix('s')?.parse().ok()?).ok()
}

/// An error with its causes: the outermost of an HTTP error says little.
fn chain(error: &dyn StdError) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_server_has_its_own_words_for_a_context_that_is_too_long() {
        for said in [
            json!({"error": {"code": "context_length_exceeded", "message": "…", "type": "invalid_request_error"}}),
            json!({"error": {"message": "This model's maximum context length is 8192 tokens. However, your messages …"}}),
            json!({"object": "error", "message": "This model's maximum context length is 4096 tokens. However, you …"}),
            json!({"code": "context_length_exceeded", "message": "Your input exceeds the context window of this model."}),
            json!({"error": {"code": 400, "type": "exceed_context_size_error", "n_prompt_tokens": 9, "n_ctx": 8}}),
            json!({"error": {"type": "invalid_request_error", "message": "prompt is too long: 200251 tokens > 200000 maximum"}}),
            json!({"error": {"message": "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000"}}),
            json!({"error": {"message": "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."}}),
            json!({"error": "This model's maximum prompt length is 131072 but the request contains 537812 tokens."}),
            json!("The input (9000 tokens) is longer than the model's context length (8192 tokens)."),
        ] {
            assert!(is_context_overflow(Some(400), &said), "{said}");
            assert!(!is_context_overflow(Some(429), &said), "{said}");
        }
        for said in [
            json!({"error": {"message": "max_tokens is too large: 500000."}}),
            json!({"error": {"message": "Request too large for model in organization: Limit 6000 tokens per minute"}}),
            json!("too many requests"),
        ] {
            assert!(!is_context_overflow(Some(400), &said), "{said}");
        }
    }

    #[test]
    fn a_wait_is_a_number_or_a_date() {
        let now: Timestamp = "2026-11-25T07:28:00Z".parse().expect("a time");
        let wait = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().expect("a header"));
            retry_after(&headers, now)
        };
        assert_eq!(wait("retry-after", "7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("retry-after-ms", "250"), Some(Duration::from_millis(250)));
        assert_eq!(wait("retry-after", "Wed, 25 Nov 2026 07:29:30 GMT"), Some(Duration::from_secs(90)));
        assert_eq!(wait("retry-after", "Wed, 25 Nov 2026 07:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("retry-after", "soon"), None);
        assert_eq!(wait("retry-after", "-1"), None);
        assert_eq!(wait("x-other", "7"), None);
        let body = json!({"error": {"details": [{"@type": "a"}, {"@type": "b", "retryDelay": "34.5s"}]}});
        assert_eq!(retry_delay(&body), Some(Duration::from_millis(34_500)));
    }

    #[test]
    fn errors_without_a_status_say_it_in_words() {
        for (object, status) in [
            (json!({"type": "overloaded_error", "message": "Overloaded"}), Some(529)),
            (json!({"type": "error", "error": {"type": "rate_limit_error", "message": "…"}}), Some(429)),
            (json!({"code": 503, "message": "…", "status": "UNAVAILABLE"}), Some(503)),
            (json!({"code": "server_error", "message": "…"}), Some(500)),
            (json!({"code": 7, "message": "…"}), None),
            (json!({"message": "…"}), None),
        ] {
            assert_eq!(status_of(&object), status, "{object}");
        }
    }
}
