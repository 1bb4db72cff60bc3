//! Contract suites of the ports, and doubles for tests.

pub mod event_log_suite;
pub mod http_server;
pub mod run_queue_suite;
pub mod store_suite;
