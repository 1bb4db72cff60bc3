//! The API's JSON and SSE: the only place that knows how things look on the wire.

pub mod event;
pub mod message;
pub mod sse;
pub mod time;
