//! Integration tests: the contract suites of the ports over every adapter, and the whole program through its front door.

mod contract_store;
mod services;
