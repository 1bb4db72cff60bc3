//! What the API service and the workers of Holdfast have in common.
//!
//! Imports go one way: `domain ← wire ← ports ← store, backends`; a tidy test at the root holds it.

pub mod backends;
pub mod config;
pub mod domain;
pub mod images;
pub mod models;
pub mod outbound;
pub mod ports;
pub mod python;
pub mod relay;
pub mod store;
pub mod telemetry;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
pub mod wire;
