//! The worker of Holdfast: claims runs and executes the agent loop.

pub mod llm;
pub mod tools;
