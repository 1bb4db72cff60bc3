//! The agent loop: one attempt, step by step. What is decided in it is in plain functions; what touches the world is in
//! `attempt` and the files that it names.

pub mod answer;
pub mod approval;
pub mod attempt;
mod calls;
pub mod compact;
mod compaction;
pub mod decide;
mod history;
pub mod legacy;
mod model_call;
pub mod prompt;
pub mod rules;
mod step;
