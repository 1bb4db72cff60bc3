//! Who asks: bearer keys, each of a tenant (api/00 §2).

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use holdfast_shared::config::KeyHash;
use holdfast_shared::domain::tenant::TenantId;

use crate::App;
use crate::error::ApiError;

/// What needs no key: whether the service lives, and what can be asked of it.
const OPEN: [&str; 4] = ["/v1/health", "/v1/ready", "/openapi.json", "/docs"];

/// Lets a request pass with its tenant, or refuses it.
pub(crate) async fn check(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if OPEN.contains(&path.trim_end_matches('/')) {
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
fn tenant(keys: &[(TenantId, KeyHash)], header: Option<&[u8]>) -> Option<TenantId> {
    if keys.is_empty() {
        return Some(TenantId::default());
    }
    let given = KeyHash::of(bearer(header?)?);
    keys.iter().fold(None, |found, (tenant, key)| if key.is(&given) { Some(tenant) } else { found }).cloned()
}

/// The value after the scheme, whose name is written in any case.
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, value) = header.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| value.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_opens_its_tenant_and_nothing_else_does() {
        let named = |name: &str| TenantId::parse(name).expect("a name");
        let keys = [(named("red"), KeyHash::of(b"one")), (named("blue"), KeyHash::of(b"two"))];
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
