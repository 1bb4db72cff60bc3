//! Which web pages may call the API from a browser.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
use holdfast_shared::config::CorsOrigins;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

/// How long a browser may remember what it was told.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);

/// What pages may read of an answer besides its body.
const SHOWN: [HeaderName; 3] =
    [HeaderName::from_static("x-letta-run-id"), HeaderName::from_static("x-should-retry"), header::RETRY_AFTER];

/// Tells browsers which pages may call, and answers their questions; `None` if no page of another origin may.
///
/// Keys come in a header that pages set themselves, so that browsers need not, and do not, send credentials of their own.
pub(crate) fn layer(origins: &CorsOrigins) -> Option<CorsLayer> {
    let origins = match origins {
        CorsOrigins::Any => AllowOrigin::any(),
        CorsOrigins::These(origins) if origins.is_empty() => return None,
        CorsOrigins::These(origins) => {
            AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::try_from(origin).ok()))
        }
    };
    let methods = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    let layer = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods(methods)
        // The SDKs bring a dozen headers of their own, with more in each version.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(SHOWN)
        .max_age(REMEMBERED);
    Some(layer)
}
