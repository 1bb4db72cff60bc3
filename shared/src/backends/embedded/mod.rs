//! Adapters for one process without servers.

mod event_log;
mod run_queue;
mod signals;

pub use event_log::EmbeddedEventLog;
pub use run_queue::EmbeddedQueue;
pub use signals::EmbeddedSignals;
