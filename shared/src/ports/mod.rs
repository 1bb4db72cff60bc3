//! What the services need from the world, in their own words. Each port has a contract suite in `testkit`, which every
//! adapter passes; what the suite does not check is not promised.

pub mod event_log;
pub mod model_client;
pub mod run_queue;
pub mod seams;
pub mod signals;
pub mod store;
