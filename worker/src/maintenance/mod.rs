//! What a worker does besides its runs.

pub mod approvals;
pub mod callbacks;
pub mod mcp_tools;
pub mod rescue;
