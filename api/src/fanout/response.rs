//! The HTTP side of a stream: headers, and a body that is polled directly, without a task of its own.

use std::convert::Infallible;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use holdfast_shared::domain::ids::RunId;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue};

use super::reader::Reader;

/// Tells proxies not to hold frames back.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// Tells clients the run before the first event does.
const RUN_ID: HeaderName = HeaderName::from_static("x-letta-run-id");

/// The response that carries what a reader reads.
pub(super) fn of(run: RunId, reader: Reader) -> Response {
    let mut response = Response::new(Body::from_stream(chunks(reader)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    if let Ok(id) = HeaderValue::try_from(run.to_string()) {
        headers.insert(RUN_ID, id);
    }
    response
}

/// One future per stream, alive from chunk to chunk: an idle stream costs its reader, a timer and a place in line.
pub(super) fn chunks(reader: Reader) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    futures::stream::unfold(reader, |mut reader| async move {
        let chunk = reader.next_chunk().await?;
        Some((Ok(chunk), reader))
    })
    .fuse()
}
