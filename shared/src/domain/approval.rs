//! Answers to calls that wait for the client: tools that need approval, and tools that run at the client (api/05 §6).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::ids::{MessageId, RunId, StepId};
use super::message::Content;
use super::tool::{ToolCall, ToolStatus};

/// An answer to a call that waits for one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum CallAnswer {
    /// It may run or not.
    Approval {
        /// The call; in the deprecated form the id of the approval request's message.
        tool_call_id: String,
        /// Whether it may run.
        approve: bool,
        /// Why not.
        reason: Option<String>,
    },
    /// The client ran it.
    Return {
        /// The call.
        tool_call_id: String,
        /// Success or error.
        status: ToolStatus,
        /// A text, or text and image parts.
        content: Content,
        /// Lines of standard output.
        stdout: Option<Vec<String>>,
        /// Lines of standard error.
        stderr: Option<Vec<String>>,
    },
}

impl CallAnswer {
    /// The call that it answers.
    #[must_use]
    pub fn call_id(&self) -> &str {
        match self {
            Self::Approval { tool_call_id, .. } | Self::Return { tool_call_id, .. } => tool_call_id,
        }
    }
}

/// What a run answers: its first step makes no model call, it finishes the calls of an earlier run's last step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answering {
    /// The message that asked.
    pub request: MessageId,
    /// The step that asked; the results carry its id.
    pub step: StepId,
    /// The run that asked, whose tool calls count for the rules of this one.
    pub run: RunId,
}

/// Why answers do not fit the calls that wait for them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// A call is answered more than once.
    #[error("the call '{0}' is answered more than once: give one answer for each call")]
    Repeated(String),
    /// The deprecated form, which names no call, cannot say which of several it means.
    #[error(
        "{pending} calls wait for an answer: 'approval_request_id' answers a single one, so give 'approvals' with one \
         entry for each call"
    )]
    Unspecific {
        /// Calls that wait.
        pending: usize,
    },
    /// Other calls are answered than those that wait.
    #[error("the answered calls are not those that wait: expected [{}], received [{}]", expected.join(", "), received.join(", "))]
    Differs {
        /// Ids of the calls that wait.
        expected: Vec<String>,
        /// Ids that the answers name.
        received: Vec<String>,
    },
}

/// Checks that answers cover exactly the calls of a request (api/01 §3.2, §3.4). An answer in the deprecated form, which
/// names the request's message instead of a call, gets the id of the one call that it can mean.
///
/// # Errors
/// They do not fit; the text says what is expected.
pub fn check_answers(
    request: MessageId,
    pending: &[ToolCall],
    mut answers: Vec<CallAnswer>,
) -> Result<Vec<CallAnswer>, AnswerError> {
    if let [CallAnswer::Approval { tool_call_id, .. }] = answers.as_mut_slice()
        && *tool_call_id == request.to_string()
    {
        let [only] = pending else { return Err(AnswerError::Unspecific { pending: pending.len() }) };
        tool_call_id.clone_from(&only.id);
    }
    let expected: BTreeSet<&str> = pending.iter().map(|call| call.id.as_str()).collect();
    let mut received = BTreeSet::new();
    for answer in &answers {
        if !received.insert(answer.call_id()) {
            return Err(AnswerError::Repeated(answer.call_id().to_owned()));
        }
    }
    if expected == received {
        return Ok(answers);
    }
    let named = |ids: BTreeSet<&str>| ids.into_iter().map(str::to_owned).collect();
    Err(AnswerError::Differs { expected: named(expected), received: named(received) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::Id as _;

    fn request() -> MessageId {
        MessageId::from_uuid(uuid::Uuid::from_u128(0x6612_baae_74a3_460d_9bfb_4c94_1f64_cd2d))
    }

    fn approval(id: &str) -> CallAnswer {
        CallAnswer::Approval { tool_call_id: id.to_owned(), approve: true, reason: None }
    }

    fn returned(id: &str) -> CallAnswer {
        CallAnswer::Return {
            tool_call_id: id.to_owned(),
            status: ToolStatus::Success,
            content: Content::Text("x".to_owned()),
            stdout: None,
            stderr: None,
        }
    }

    #[test]
    fn answers_cover_exactly_the_calls_that_wait() {
        let differs = |expected: &[&str], received: &[&str]| {
            let owned = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
            Err(AnswerError::Differs { expected: owned(expected), received: owned(received) })
        };
        let message = request().to_string();
        let message = message.as_str();
        for (name, pending, answers, expected) in [
            ("each is answered", vec!["a", "b"], vec![returned("b"), approval("a")], Ok(vec!["b", "a"])),
            ("one is missing", vec!["a", "b"], vec![approval("a")], differs(&["a", "b"], &["a"])),
            ("one is strange", vec!["a"], vec![approval("a"), approval("c")], differs(&["a"], &["a", "c"])),
            ("none fits", vec!["a"], vec![approval("c")], differs(&["a"], &["c"])),
            ("nothing is answered", vec!["a"], vec![], differs(&["a"], &[])),
            (
                "one is answered twice",
                vec!["a", "b"],
                vec![approval("a"), returned("a")],
                Err(AnswerError::Repeated("a".to_owned())),
            ),
            ("the old form means the only call", vec!["a"], vec![approval(message)], Ok(vec!["a"])),
            (
                "the old form cannot mean one of two",
                vec!["a", "b"],
                vec![approval(message)],
                Err(AnswerError::Unspecific { pending: 2 }),
            ),
            ("a return names its call", vec!["a"], vec![returned(message)], differs(&["a"], &[message])),
        ] {
            let pending: Vec<ToolCall> = pending.into_iter().map(|id| ToolCall::new(id, "t", "{}")).collect();
            let got = check_answers(request(), &pending, answers);
            let ids = got.map(|answers| answers.iter().map(|answer| answer.call_id().to_owned()).collect::<Vec<_>>());
            let expected = expected.map(|ids| ids.into_iter().map(str::to_owned).collect());
            assert_eq!(ids, expected, "{name}");
        }
    }

    #[test]
    fn a_refusal_names_both_sets() {
        let pending = [ToolCall::new("a", "t", "{}")];
        let error = check_answers(request(), &pending, vec![approval("c"), approval("b")]).expect_err("refused");
        let text = error.to_string();
        assert!(text.contains("expected [a]") && text.contains("received [b, c]"), "{text}");
    }
}
