//! The API's JSON and SSE: the only place that knows how things look on the wire.

pub mod agent;
pub mod block;
pub mod compaction;
pub mod conversation;
pub mod error;
pub mod event;
pub mod http_endpoint;
pub mod message;
pub mod model;
pub mod read;
pub mod request;
pub mod response;
pub mod run;
pub mod search;
pub mod sse;
pub mod step;
pub mod time;
pub mod tool;
pub mod tool_rule;
