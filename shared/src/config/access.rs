//! Settings of who may use the API: keys, and the origins of web pages.

use std::fmt;

use reqwest::Url;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};

use super::{Raw, SettingsError, invalid};
use crate::domain::tenant::TenantId;

/// Least characters of a key that is given as it is.
const LEAST_KEY_CHARS: usize = 8;

/// What a hash begins with where a key is expected.
const HASH_MARK: &str = "sha256:";

/// The SHA-256 of a bearer key: all that is kept of it.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// The hash of a key.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// A hash as 64 hexadecimal digits.
    fn parse(hex: &str) -> Option<Self> {
        if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(hex.get(index * 2..index * 2 + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// Whether both are the same, found out in a time that does not tell where they differ.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        let difference = self.0.iter().zip(&other.0).fold(0, |difference, (one, other)| difference | (one ^ other));
        std::hint::black_box(difference) == 0
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash")
    }
}

/// Web pages of which origins may call the API from a browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CorsOrigins {
    /// Pages of these origins, each `scheme://host` or `scheme://host:port`. None: only pages of the API's own origin.
    These(Vec<String>),
    /// Pages of any origin.
    Any,
}

impl Default for CorsOrigins {
    fn default() -> Self {
        Self::These(Vec::new())
    }
}

impl Raw {
    /// `KEY`, `sha256:HASH`, `TENANT=KEY` or `TENANT=sha256:HASH`, comma-separated.
    pub(super) fn keys(&self) -> Result<Vec<(TenantId, KeyHash)>, SettingsError> {
        let Some(keys) = &self.api_keys else { return Ok(Vec::new()) };
        let entries = keys.expose_secret().split(',').map(str::trim).filter(|entry| !entry.is_empty());
        entries
            .map(|entry| {
                let (tenant, key) = match entry.split_once('=') {
                    Some((tenant, key)) => (TenantId::parse(tenant), key),
                    None => (Some(TenantId::default()), entry),
                };
                let hash = match key.strip_prefix(HASH_MARK) {
                    Some(hex) => KeyHash::parse(hex),
                    None => (key.len() >= LEAST_KEY_CHARS).then(|| KeyHash::of(key.as_bytes())),
                };
                tenant.zip(hash).ok_or_else(|| {
                    let problem = format!(
                        "expected KEY or TENANT=KEY, separated by commas; a tenant has 1 to 64 letters, digits, '-' or \
                         '_', and a key at least {LEAST_KEY_CHARS} characters, or is '{HASH_MARK}' and the 64 \
                         hexadecimal digits of its SHA-256"
                    );
                    invalid("HOLDFAST_API_KEYS", problem)
                })
            })
            .collect()
    }

    /// `*`, or origins, comma-separated.
    pub(super) fn cors_origins(&self) -> Result<CorsOrigins, SettingsError> {
        if self.cors_origins.trim() == "*" {
            return Ok(CorsOrigins::Any);
        }
        let entries = self.cors_origins.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        entries
            .map(|entry| {
                origin(entry).ok_or_else(|| {
                    let problem = "expected origins such as https://app.example or http://localhost:3000, separated by \
                                   commas, or '*' alone for all";
                    invalid("HOLDFAST_CORS_ORIGINS", problem)
                })
            })
            .collect::<Result<_, _>>()
            .map(CorsOrigins::These)
    }
}

/// An origin as browsers write it.
fn origin(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let is_only_origin = matches!(url.scheme(), "http" | "https")
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    is_only_origin.then(|| url.origin().ascii_serialization())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of `sesame-street`.
    fn hashed() -> String {
        Sha256::digest(b"sesame-street").iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn keys(text: &str) -> Result<Vec<(TenantId, KeyHash)>, SettingsError> {
        Raw { api_keys: Some(text.to_owned().into()), ..Raw::default() }.keys()
    }

    #[test]
    fn keys_and_their_hashes_are_the_same() {
        let hash = hashed();
        let text = format!("sesame-street, team=sesame-street, sha256:{hash}, team=sha256:{}", hash.to_uppercase());
        let found = keys(&text).expect("valid");
        let tenants: Vec<_> = found.iter().map(|(tenant, _)| tenant.as_str()).collect();
        assert_eq!(tenants, ["default", "team", "default", "team"]);
        assert!(found.iter().all(|(_, hash)| hash.is(&KeyHash::of(b"sesame-street"))));
        assert!(!found[0].1.is(&KeyHash::of(b"sesame-streeu")));
        assert_eq!(format!("{:?}", found[0].1), "KeyHash");
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_shown() {
        let hash = hashed();
        for wrong in ["short", "a b=12345678", "sha256:", &format!("sha256:{}", &hash[1..]), "sha256:zz", "t=sha256:12"]
        {
            let error = keys(wrong).expect_err(wrong).to_string();
            assert!(error.contains("HOLDFAST_API_KEYS") && error.contains("sha256:"), "{error}");
            assert!(!error.contains(&hash[1..]), "{error}");
        }
    }

    #[test]
    fn origins_are_compared_as_browsers_write_them() {
        let of = |text: &str| Raw { cors_origins: text.to_owned(), ..Raw::default() }.cors_origins();
        let these = |origins: &[&str]| CorsOrigins::These(origins.iter().map(|&origin| origin.to_owned()).collect());
        assert_eq!(of("").expect("valid"), CorsOrigins::default());
        assert_eq!(of(" * ").expect("valid"), CorsOrigins::Any);
        let given = "http://localhost:3000, https://App.Example:443/,http://[::1]:5";
        let wanted = these(&["http://localhost:3000", "https://app.example", "http://[::1]:5"]);
        assert_eq!(of(given).expect("valid"), wanted);
        for wrong in ["localhost:3000", "app.example", "https://a/b", "ftp://a", "https://a,*", "null", "https://u@a"] {
            assert!(of(wrong).expect_err(wrong).to_string().contains("HOLDFAST_CORS_ORIGINS"), "{wrong}");
        }
    }
}
