//! The agent loop: its decisions are plain functions, its effects go through ports.

pub mod answer;
pub mod attempt;
pub mod decide;
pub mod prompt;
