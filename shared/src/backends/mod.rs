//! Adapters of the ports that are not databases: broker, event log, signals.

pub mod channels;
pub mod embedded;
pub mod rabbitmq;
pub mod redis;
