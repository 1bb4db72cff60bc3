//! From what the agent does to events in the log.

pub mod writer;
