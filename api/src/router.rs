//! All routes on one page.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, MatchedPath};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get, patch, post};
use axum::{Router, middleware};
use holdfast_shared::telemetry::traces::{self, TRACEPARENT};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::trace::TraceLayer;
use tracing::Span;
use tracing::field::Empty;

use crate::error::ApiError;
use crate::routes::{agents, blocks, conversations, docs, health, history, messages, models, runs, steps, tags, tools};
use crate::{App, Options, Services, auth, cors};

/// Every path with its handlers. [`crate::openapi`] describes them.
fn routes() -> Vec<(&'static str, MethodRouter<App>)> {
    vec![
        ("/v1/health", get(health::health)),
        ("/v1/ready", get(health::ready)),
        ("/v1/models", get(models::list)),
        ("/v1/models/embedding", get(models::list_embedding)),
        ("/v1/agents", get(agents::list).post(agents::create)),
        ("/v1/agents/count", get(agents::count)),
        ("/v1/agents/import", any(no_route)),
        ("/v1/agents/{agent_id}", get(agents::retrieve).patch(agents::update).delete(agents::delete)),
        ("/v1/agents/{agent_id}/messages", get(messages::list).post(messages::create)),
        ("/v1/agents/{agent_id}/messages/stream", post(messages::stream)),
        ("/v1/agents/{agent_id}/messages/async", post(messages::create_async)),
        ("/v1/agents/{agent_id}/messages/cancel", post(messages::cancel)),
        ("/v1/agents/{agent_id}/summarize", post(messages::compact)),
        ("/v1/agents/{agent_id}/messages/{message_id}", patch(history::refuse_change).fallback(no_route)),
        ("/v1/agents/{agent_id}/reset-messages", patch(agents::reset_messages)),
        ("/v1/agents/{agent_id}/recompile", post(agents::recompile)),
        ("/v1/agents/{agent_id}/core-memory", get(blocks::memory)),
        ("/v1/agents/{agent_id}/core-memory/blocks", get(blocks::list_attached)),
        (
            "/v1/agents/{agent_id}/core-memory/blocks/{name}",
            get(blocks::retrieve_by_label).patch(blocks::update_by_label),
        ),
        ("/v1/agents/{agent_id}/core-memory/blocks/attach/{block_id}", patch(blocks::attach)),
        ("/v1/agents/{agent_id}/core-memory/blocks/detach/{block_id}", patch(blocks::detach)),
        ("/v1/agents/{agent_id}/tools", get(tools::list_attached)),
        ("/v1/agents/{agent_id}/tools/attach/{tool_id}", patch(tools::attach)),
        ("/v1/agents/{agent_id}/tools/detach/{tool_id}", patch(tools::detach)),
        ("/v1/agents/{agent_id}/tools/approval/{name}", patch(tools::set_approval)),
        ("/v1/agents/{agent_id}/tools/{name}/run", post(tools::run)),
        ("/v1/conversations", get(conversations::list).post(conversations::create)),
        (
            "/v1/conversations/{conversation_id}",
            get(conversations::retrieve).patch(conversations::update).delete(conversations::delete),
        ),
        ("/v1/conversations/{conversation_id}/messages", get(conversations::list_messages).post(conversations::send)),
        ("/v1/conversations/{conversation_id}/stream", post(conversations::resume)),
        ("/v1/conversations/{conversation_id}/cancel", post(conversations::cancel)),
        ("/v1/conversations/{conversation_id}/fork", post(conversations::fork)),
        ("/v1/conversations/{conversation_id}/recompile", post(conversations::recompile)),
        ("/v1/conversations/{conversation_id}/compact", post(conversations::compact)),
        ("/v1/blocks", get(blocks::list).post(blocks::create)),
        ("/v1/blocks/count", get(blocks::count)),
        ("/v1/blocks/{block_id}", get(blocks::retrieve).patch(blocks::update).delete(blocks::delete)),
        ("/v1/blocks/{block_id}/agents", get(blocks::list_agents)),
        ("/v1/tags", get(tags::list)),
        ("/v1/tools", get(tools::list).post(tools::put).put(tools::put)),
        ("/v1/tools/count", get(tools::count)),
        ("/v1/tools/{tool_id}", get(tools::retrieve).patch(tools::update).delete(tools::delete)),
        // Not served; without these lines they would be taken for the id of a tool.
        ("/v1/tools/search", any(no_route)),
        ("/v1/tools/run", any(no_route)),
        ("/v1/tools/add-base-tools", any(no_route)),
        ("/v1/messages", get(history::list)),
        ("/v1/messages/search", post(history::search)),
        ("/v1/messages/{message_id}", get(history::retrieve)),
        // Not served; without this line it would be taken for the id of a message.
        ("/v1/messages/batches", any(no_route)),
        ("/v1/steps", get(steps::list)),
        ("/v1/steps/{step_id}", get(steps::retrieve)),
        ("/v1/steps/{step_id}/messages", get(steps::messages)),
        ("/v1/steps/{step_id}/metrics", get(steps::metrics)),
        ("/v1/steps/{step_id}/trace", get(steps::trace)),
        ("/v1/steps/{step_id}/feedback", patch(steps::rate)),
        ("/v1/runs", get(runs::list)),
        ("/v1/runs/active", get(runs::list_active)),
        ("/v1/runs/{run_id}", get(runs::retrieve).delete(runs::delete)),
        ("/v1/runs/{run_id}/messages", get(runs::messages)),
        ("/v1/runs/{run_id}/steps", get(runs::steps)),
        ("/v1/runs/{run_id}/usage", get(runs::usage)),
        ("/v1/runs/{run_id}/trace", get(runs::trace)),
        ("/v1/runs/{run_id}/metrics", get(runs::metrics)),
        ("/v1/runs/{run_id}/stream", get(runs::resume).post(runs::resume)),
        ("/openapi.json", get(docs::document)),
        ("/docs", get(docs::page)),
    ]
}

/// The paths that are served, without trailing slashes.
pub fn paths() -> impl Iterator<Item = &'static str> {
    routes().into_iter().map(|(path, _)| path)
}

/// The whole API. Every path is served with and without a trailing slash, and nothing is redirected (api/00 §2).
pub fn router(services: Services, options: Options) -> Router {
    let max_body_bytes = options.max_body_bytes;
    let app = App { services: Arc::new(services), options: Arc::new(options) };

    let mut router = Router::new();
    for (path, handlers) in routes() {
        router = router.route(&format!("{path}/"), handlers.clone()).route(path, handlers);
    }
    let mut router = router
        .fallback(no_route)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(app.clone(), auth::check))
        .layer(DefaultBodyLimit::max(max_body_bytes));
    // Outside of the check: browsers ask first, without a key, and pages are to read refusals, too.
    if let Some(layer) = cors::layer(&app.options.cors_origins) {
        router = router.layer(layer);
    }
    router
        .layer(CatchPanicLayer::custom(panicked))
        .layer(TraceLayer::new_for_http().make_span_with(request_span).on_response(record_status))
        .with_state(app)
}

/// The span of a request: a part of the caller's trace if it has one. Paths are shown as the router has them, since ids
/// and names would make every span another kind.
fn request_span<B>(request: &http::Request<B>) -> Span {
    let route = request.extensions().get::<MatchedPath>().map_or("", |path| path.as_str().trim_end_matches('/'));
    let span = tracing::info_span!(
        "request",
        otel.name = %format_args!("{} {route}", request.method()),
        otel.kind = "server",
        http.request.method = %request.method(),
        http.route = route,
        http.response.status_code = Empty,
        otel.status_code = Empty,
    );
    traces::join(&span, request.headers().get(TRACEPARENT).and_then(|trace| trace.to_str().ok()));
    span
}

fn record_status<B>(response: &http::Response<B>, _: Duration, span: &Span) {
    span.record("http.response.status_code", response.status().as_u16());
    if response.status().is_server_error() {
        span.record("otel.status_code", "error");
    }
}

async fn no_route() -> ApiError {
    ApiError::NoRoute
}

async fn method_not_allowed() -> ApiError {
    ApiError::MethodNotAllowed
}

/// A panic is a defect of one request, not of the service.
fn panicked(payload: Box<dyn std::any::Any + Send + 'static>) -> Response {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    ApiError::Internal(format!("a handler panicked: {}", text.as_deref().unwrap_or("no text"))).into_response()
}
