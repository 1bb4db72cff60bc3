//! What the API decides. Routes read requests and show answers; the decisions stand here.

pub(crate) mod answers;
pub(crate) mod cancel_runs;
pub(crate) mod reset_context;
pub(crate) mod start_run;
