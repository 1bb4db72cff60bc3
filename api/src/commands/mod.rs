//! What the API decides. Routes read requests and show answers; the decisions stand here.

pub(crate) mod answers;
pub(crate) mod cancel_runs;
pub(crate) mod do_work;
pub(crate) mod reset_context;
pub(crate) mod start_run;
