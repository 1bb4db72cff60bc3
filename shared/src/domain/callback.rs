//! Callbacks: the request that tells a URL of the client's that a run has ended (api/03 §7).

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac as _};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::Timestamp;
use super::ids::RunId;
use super::limits::{CALLBACK_PAUSE_MAX, CALLBACK_PAUSE_MIN, CALLBACK_SECRET_BYTES, CALLBACK_URL_BYTES};

/// Where a run's end is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallbackUrl(String);

/// Why a text is no [`CallbackUrl`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallbackUrlError {
    /// It has another form.
    #[error("must be an absolute http or https URL")]
    Malformed,
    /// It is too long.
    #[error("must not be longer than {CALLBACK_URL_BYTES} bytes")]
    TooLong,
}

impl CallbackUrl {
    /// Reads one, as the client wrote it.
    ///
    /// # Errors
    /// It cannot be requested, wherever it leads.
    pub fn parse(text: &str) -> Result<Self, CallbackUrlError> {
        if text.len() > CALLBACK_URL_BYTES {
            return Err(CallbackUrlError::TooLong);
        }
        let url = Self(text.to_owned());
        url.url().map(|_| url).ok_or(CallbackUrlError::Malformed)
    }

    /// As the client wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// For the request; `None` if it cannot be requested, as only an older version let through.
    #[must_use]
    pub fn url(&self) -> Option<Url> {
        let url = Url::parse(&self.0).ok()?;
        (matches!(url.scheme(), "http" | "https") && url.host_str().is_some()).then_some(url)
    }

    /// Whom it leads to: scheme, host and port. Callbacks to one receiver share its fate.
    #[must_use]
    pub fn receiver(&self) -> String {
        self.url().map_or_else(String::new, |url| url.origin().ascii_serialization())
    }
}

/// The last try to tell a run's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallbackTry {
    /// When it was over.
    pub at: Timestamp,
    /// What came of it.
    pub result: CallbackResult,
}

/// What came of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallbackResult {
    /// The receiver answered with this HTTP status.
    Answered(u16),
    /// There is no answer, and why.
    Failed(String),
}

impl CallbackResult {
    /// Whether the receiver took it.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        matches!(self, Self::Answered(200..=299))
    }

    /// The status of the answer.
    #[must_use]
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Answered(status) => Some(*status),
            Self::Failed(_) => None,
        }
    }

    /// What went wrong, for the client.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        match self {
            Self::Answered(200..=299) => None,
            Self::Answered(status @ 300..=399) => {
                Some(format!("the receiver answered with the redirect {status}; redirects are not followed"))
            }
            Self::Answered(status) => Some(format!("the receiver answered {status}")),
            Self::Failed(why) => Some(why.clone()),
        }
    }
}

/// How long to wait after a try before the next one; `None`: there is none. `failed` counts the tries that failed, this
/// one included, of at most `most`.
#[must_use]
pub fn pause_after(result: &CallbackResult, failed: u32, most: u32) -> Option<Duration> {
    if result.is_success() || failed >= most {
        return None;
    }
    let growth = 4_u32.saturating_pow(failed.saturating_sub(1));
    Some(CALLBACK_PAUSE_MIN.saturating_mul(growth).min(CALLBACK_PAUSE_MAX))
}

/// Signs callbacks, so that receivers know whom they are from (Standard Webhooks 1.0).
#[derive(Clone)]
pub struct SigningKey(Hmac<Sha256>);

impl SigningKey {
    /// Reads a secret: `whsec_` and the key in base64, or any other text, which is the key itself.
    ///
    /// # Errors
    /// It is no secret of that form; the text does not repeat it.
    pub fn parse(secret: &str) -> Result<Self, String> {
        let key = match secret.strip_prefix("whsec_") {
            Some(encoded) => BASE64.decode(encoded).map_err(|_| "what follows whsec_ must be base64".to_owned())?,
            None => secret.as_bytes().to_vec(),
        };
        if key.len() < CALLBACK_SECRET_BYTES {
            return Err(format!("must have at least {CALLBACK_SECRET_BYTES} bytes"));
        }
        Hmac::new_from_slice(&key).map(Self).map_err(|error| error.to_string())
    }

    /// The value of the header `webhook-signature`; `timestamp` counts seconds.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut code = self.0.clone();
        code.update(format!("{id}.{timestamp}.").as_bytes());
        code.update(body);
        format!("v1,{}", BASE64.encode(code.finalize().into_bytes()))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The headers of a callback, besides its media type.
#[must_use]
pub fn headers(run: RunId, at: Timestamp, body: &[u8], key: Option<&SigningKey>) -> Vec<(&'static str, String)> {
    let (id, timestamp) = (run.to_string(), at.timestamp());
    let signature = key.map(|key| ("webhook-signature", key.sign(&id, timestamp, body)));
    let unsigned = [("webhook-id", id), ("webhook-timestamp", timestamp.to_string())];
    unsigned.into_iter().chain(signature).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_standard_webhooks() {
        let key = SigningKey::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        let signature = key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(format!("{key:?}"), "***");
    }

    #[test]
    fn secrets_are_plain_or_encoded_and_not_too_short() {
        let plain = SigningKey::parse("a plain text of some length").expect("a secret");
        let encoded = format!("whsec_{}", BASE64.encode("a plain text of some length"));
        let encoded = SigningKey::parse(&encoded).expect("a secret");
        assert_eq!(plain.sign("run", 1, b"x"), encoded.sign("run", 1, b"x"));
        assert_ne!(plain.sign("run", 1, b"x"), plain.sign("run", 2, b"x"));
        for wrong in ["", "short", "whsec_", "whsec_c2hvcnQ=", "whsec_not in base64 at all"] {
            let refusal = SigningKey::parse(wrong).expect_err(wrong);
            assert!(wrong.is_empty() || !refusal.contains(wrong) || wrong == "whsec_", "{refusal}");
        }
    }

    #[test]
    fn only_signed_callbacks_have_a_signature() {
        let run: RunId = "run-123e4567-e89b-42d3-8456-426614174000".parse().expect("an id");
        let at = Timestamp::from_timestamp(1_700_000_000, 999_000_000).expect("a time");
        let id = ("webhook-id", run.to_string());
        let timestamp = ("webhook-timestamp", "1700000000".to_owned());
        assert_eq!(headers(run, at, b"{}", None), [id.clone(), timestamp.clone()]);
        let key = SigningKey::parse("sixteen bytes or more").expect("a secret");
        let signature = ("webhook-signature", key.sign(&run.to_string(), 1_700_000_000, b"{}"));
        assert_eq!(headers(run, at, b"{}", Some(&key)), [id, timestamp, signature]);
    }

    #[test]
    fn pauses_grow_until_the_last_try() {
        let refused = CallbackResult::Answered(503);
        let pauses: Vec<_> =
            (1..=5).map(|failed| pause_after(&refused, failed, 5).map(|pause| pause.as_secs())).collect();
        assert_eq!(pauses, [Some(1), Some(4), Some(16), Some(64), None]);
        assert_eq!(pause_after(&refused, 1, 1), None, "one try is enough for who says so");
        assert_eq!(pause_after(&refused, 999, 1000), Some(CALLBACK_PAUSE_MAX));
        assert_eq!(pause_after(&CallbackResult::Answered(204), 1, 5), None);
        assert!(pause_after(&CallbackResult::Failed("no answer".to_owned()), 1, 5).is_some());
    }

    #[test]
    fn results_say_what_went_wrong() {
        for (status, needle) in [(302, "redirect"), (404, "404"), (500, "500")] {
            let error = CallbackResult::Answered(status).error().expect("no success");
            assert!(error.contains(needle), "{error}");
        }
        assert_eq!(CallbackResult::Answered(299).error(), None);
        let failed = CallbackResult::Failed("no answer".to_owned());
        assert_eq!((failed.status(), failed.error().as_deref()), (None, Some("no answer")));
    }

    #[test]
    fn urls_are_those_that_can_be_requested() {
        for good in ["https://example.com", "http://example.com:8080/a?b=c#d", "HTTPS://user:pass@example.com/"] {
            assert_eq!(CallbackUrl::parse(good).expect(good).as_str(), good);
        }
        for bad in
            ["", "example.com", "/done", "ftp://example.com/", "javascript:alert(1)", "file:///etc/passwd", "http://"]
        {
            assert_eq!(CallbackUrl::parse(bad), Err(CallbackUrlError::Malformed), "{bad}");
        }
        let long = format!("https://example.com/{}", "x".repeat(CALLBACK_URL_BYTES));
        assert_eq!(CallbackUrl::parse(&long), Err(CallbackUrlError::TooLong));
        let receiver = |text: &str| CallbackUrl::parse(text).expect(text).receiver();
        assert_eq!(receiver("https://Example.com/a"), receiver("https://example.com:443/b?c"));
        assert_ne!(receiver("https://example.com/"), receiver("https://example.com:444/"));
    }
}
