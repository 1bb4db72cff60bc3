//! Bodies of error answers (api/00 §5).

use serde::Serialize;

use crate::domain::ids::{MessageId, RunId};
use crate::domain::run::RunError;

/// `{"detail": "text"}`, with the run where one is meant.
#[derive(Debug, Serialize)]
pub struct Detail<'a> {
    /// What is wrong.
    pub detail: &'a str,
    /// The run that is in the way, or that answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<RunId>,
}

/// A request that has not the form that it should have.
#[derive(Debug, Serialize)]
pub struct Malformed<'a> {
    /// What is wrong, as one text that begins with the path of the field.
    pub detail: &'a str,
    /// Always empty here.
    pub trace_id: &'static str,
    /// What would be right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub examples: Option<[String; 1]>,
}

/// A message came while a tool call waits for approval.
#[derive(Debug, Serialize)]
pub struct PendingApproval<'a> {
    /// The error, for programs.
    pub detail: PendingApprovalDetail<'a>,
    /// The text again: the TypeScript SDK looks for it here.
    pub message: &'a str,
}

/// The inner part of [`PendingApproval`].
#[derive(Debug, Serialize)]
pub struct PendingApprovalDetail<'a> {
    /// `PENDING_APPROVAL`
    pub code: &'static str,
    /// For users.
    pub message: &'a str,
    /// The request that waits.
    pub pending_request_id: MessageId,
    /// The run that asked: cancelling it clears the way.
    pub run_id: Option<RunId>,
    /// The calls that wait.
    pub tool_call_ids: Vec<&'a str>,
}

/// A run failed while the connection waited for its answer.
#[derive(Debug, Serialize)]
pub struct Failed<'a> {
    /// What went wrong.
    pub error: FailedError<'a>,
    /// The run: it exists, and can be read.
    pub run_id: RunId,
}

/// The inner part of [`Failed`].
#[derive(Debug, Serialize)]
pub struct FailedError<'a> {
    /// The kind.
    pub r#type: &'static str,
    /// For users.
    pub message: &'a str,
    /// For developers.
    pub detail: Option<&'a str>,
}

impl<'a> Failed<'a> {
    /// The body for a run's error.
    #[must_use]
    pub fn new(run_id: RunId, error: &'a RunError) -> Self {
        let inner =
            FailedError { r#type: error.error_type.as_str(), message: &error.message, detail: error.detail.as_deref() };
        Self { error: inner, run_id }
    }
}
