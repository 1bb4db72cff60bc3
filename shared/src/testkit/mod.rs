//! Contract suites of the ports, and doubles for tests.

pub mod store_suite;
