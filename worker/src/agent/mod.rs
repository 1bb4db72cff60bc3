//! The agent loop: its decisions are plain functions, its effects go through ports.

pub mod answer;
pub mod approval;
pub mod attempt;
pub mod compact;
pub mod decide;
pub mod legacy;
pub mod prompt;
pub mod rules;
