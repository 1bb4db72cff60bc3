//! The words of the field as types: pure, without I/O, clock or randomness.
//!
//! Types here derive `serde` where they are kept in a database column; what the API shows is `wire`'s.

pub mod agent;
pub mod approval;
pub mod block;
pub mod builtin_tools;
pub mod callback;
pub mod compaction;
pub mod conversation;
pub mod event;
pub mod frames;
pub mod ids;
pub mod lease;
pub mod limits;
pub mod message;
pub mod model;
pub mod model_family;
pub mod page;
pub mod position;
pub mod prompt;
pub mod run;
pub mod search_words;
pub mod secret;
pub mod step;
pub mod stop_reason;
pub mod tenant;
pub mod thread;
pub mod tool;
pub mod tool_rule;
pub mod usage;

/// A moment in UTC. Stores keep it in whole microseconds.
pub type Timestamp = chrono::DateTime<chrono::Utc>;
