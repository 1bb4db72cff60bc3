//! What a worker does besides its runs.

pub mod rescue;
