//! Who asks: bearer keys, each of a tenant (api/00 §2).

use std::fmt;

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use holdfast_shared::domain::tenant::TenantId;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::App;
use crate::error::ApiError;

/// A key and the tenant that it opens. Only its hash is kept.
#[derive(Clone)]
pub struct ApiKey {
    tenant: TenantId,
    hash: [u8; 32],
}

impl ApiKey {
    /// A key of a tenant.
    #[must_use]
    pub fn new(tenant: TenantId, key: &SecretString) -> Self {
        Self { tenant, hash: hash(key.expose_secret().as_bytes()) }
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

/// Lets a request pass with its tenant, or refuses it. What tells whether the service lives is open.
pub(crate) async fn check(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if matches!(path.trim_end_matches('/'), "/v1/health" | "/v1/ready") {
        return next.run(request).await;
    }
    let header = request.headers().get(AUTHORIZATION).map(axum::http::HeaderValue::as_bytes);
    let Some(tenant) = tenant(&app.options.api_keys, header) else {
        return ApiError::Unauthorized.into_response();
    };
    request.extensions_mut().insert(tenant);
    next.run(request).await
}

/// The tenant of an `Authorization` header. All keys are compared, each in the same time, so that the time of a refusal
/// tells nothing of the keys.
fn tenant(keys: &[ApiKey], header: Option<&[u8]>) -> Option<TenantId> {
    if keys.is_empty() {
        return Some(TenantId::default());
    }
    let given = hash(bearer(header?)?);
    let mut found = None;
    for key in keys {
        let difference = given.iter().zip(&key.hash).fold(0, |difference, (one, other)| difference | (one ^ other));
        if std::hint::black_box(difference) == 0 {
            found = Some(&key.tenant);
        }
    }
    found.cloned()
}

/// The value after the scheme, whose name is written in any case.
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, value) = header.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| value.trim_ascii())
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_opens_its_tenant_and_nothing_else_does() {
        let named = |name: &str| TenantId::parse(name).expect("a name");
        let keys =
            [ApiKey::new(named("red"), &"one".to_owned().into()), ApiKey::new(named("blue"), &"two".to_owned().into())];
        let cases: [(Option<&str>, Option<&str>); 7] = [
            (Some("Bearer one"), Some("red")),
            (Some("bearer two"), Some("blue")),
            (Some("Bearer three"), None),
            (Some("Bearer "), None),
            (Some("Basic one"), None),
            (Some("one"), None),
            (None, None),
        ];
        for (header, expected) in cases {
            let got = tenant(&keys, header.map(str::as_bytes));
            assert_eq!(got.as_ref().map(TenantId::as_str), expected, "{header:?}");
        }
    }

    #[test]
    fn without_keys_everybody_is_the_default_tenant() {
        assert_eq!(tenant(&[], None), Some(TenantId::default()));
        assert_eq!(tenant(&[], Some(b"Bearer whatever")), Some(TenantId::default()));
    }
}
