//! SSE blocks (api/02 §1): one JSON object on one `data:` line, LF line ends, a blank line at the end. Frames are
//! stored without `id:` lines: the official Python SDK breaks on them. A browser's EventSource gets one put before.

use bytes::Bytes;
use serde::Serialize;

use crate::domain::position::SeqId;

/// `data: {json}` as a complete block.
#[must_use]
pub fn data(value: &impl Serialize) -> Bytes {
    block(b"data: ", value)
}

/// `event: error` with its data: SDKs raise on it and read nothing after it.
#[must_use]
pub fn error(value: &impl Serialize) -> Bytes {
    block(b"event: error\ndata: ", value)
}

/// The end of every stream.
#[must_use]
pub fn done() -> Bytes {
    Bytes::from_static(b"data: [DONE]\n\n")
}

/// A comment that keeps proxies and read timeouts quiet.
#[must_use]
pub fn keepalive_comment() -> Bytes {
    Bytes::from_static(b": keepalive\n\n")
}

/// The line that makes a browser's EventSource remember a place. It goes directly before a frame.
#[must_use]
pub fn id_line(seq: SeqId) -> Bytes {
    Bytes::from(format!("id: {seq}\n"))
}

fn block(prefix: &[u8], value: &impl Serialize) -> Bytes {
    let mut bytes = Vec::with_capacity(512);
    bytes.extend_from_slice(prefix);
    // Everything that is sent is made of strings, numbers and maps with string keys: serializing it cannot fail.
    if let Err(error) = serde_json::to_writer(&mut bytes, value) {
        debug_assert!(false, "an event does not serialize: {error}");
    }
    bytes.extend_from_slice(b"\n\n");
    Bytes::from(bytes)
}
