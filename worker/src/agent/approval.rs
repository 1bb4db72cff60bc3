//! The first step of a run that answers waiting calls (api/05 §6): which calls are to run, and which results are known.

use holdfast_shared::domain::approval::CallAnswer;
use holdfast_shared::domain::message::Content;
use holdfast_shared::domain::tool::{ToolCall, ToolReturn};
use serde_json::Value;

use super::prompt::IMAGE_PLACEHOLDER;

/// What the answers make of the calls of the step that waited.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answered {
    /// Results that are known, in the order in which they are listed: the client's, denials, refusals. Those of
    /// `to_run` follow.
    pub known: Vec<ToolReturn>,
    /// Calls to run, in order: what was approved, without a look at the rules, and then the free calls.
    pub to_run: Vec<ToolCall>,
}

/// Puts answers, which were checked at admission, and calls together. `free` are the calls of the step that waited with
/// the pending ones; `refusal` says why one of them breaks a rule.
#[must_use]
pub fn answered(
    pending: &[ToolCall],
    free: &[ToolCall],
    answers: &[CallAnswer],
    refusal: impl Fn(&ToolCall) -> Option<String>,
) -> Answered {
    let (mut returned, mut denied, mut to_run) = (Vec::new(), Vec::new(), Vec::new());
    for call in pending {
        match answers.iter().find(|answer| answer.call_id() == call.id) {
            Some(CallAnswer::Return { status, content, stdout, stderr, .. }) => returned.push(ToolReturn {
                status: *status,
                stdout: stdout.clone(),
                stderr: stderr.clone(),
                parts: match content {
                    Content::Text(_) => None,
                    Content::Parts(parts) => Some(parts.clone()),
                },
                ..ToolReturn::success(call, in_words(content))
            }),
            Some(CallAnswer::Approval { approve: true, .. }) => to_run.push(call.clone()),
            Some(CallAnswer::Approval { approve: false, reason, .. }) => {
                denied.push(ToolReturn::refused(call, denial(reason.as_deref())));
            }
            // Nobody allowed it, so it does not run.
            None => denied.push(ToolReturn::refused(call, denial(None))),
        }
    }
    let mut known = returned;
    known.append(&mut denied);
    for call in free {
        match refusal(call) {
            Some(text) => known.push(ToolReturn::refused(call, text)),
            None => to_run.push(call.clone()),
        }
    }
    Answered { known, to_run }
}

fn denial(reason: Option<&str>) -> String {
    let denied = "Error: request to call tool denied.";
    reason.map_or_else(|| denied.to_owned(), |reason| format!("{denied} User reason: {reason}"))
}

/// A result as text, with a word in the place of each image.
fn in_words(content: &Content) -> String {
    match content {
        Content::Text(text) => text.clone(),
        Content::Parts(parts) => {
            let word = |part: &Value| match part.get("text").and_then(Value::as_str) {
                Some(text) => text.to_owned(),
                None => IMAGE_PLACEHOLDER.to_owned(),
            };
            parts.iter().map(word).collect::<Vec<_>>().join("\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_shared::domain::tool::ToolStatus;
    use serde_json::json;

    use super::*;

    fn call(id: &str) -> ToolCall {
        ToolCall::new(id, format!("tool_{id}"), "{}")
    }

    fn approval(id: &str, approve: bool, reason: Option<&str>) -> CallAnswer {
        CallAnswer::Approval { tool_call_id: id.to_owned(), approve, reason: reason.map(str::to_owned) }
    }

    fn returned(id: &str, status: ToolStatus, content: Content) -> CallAnswer {
        let stdout = Some(vec!["out".to_owned()]);
        CallAnswer::Return { tool_call_id: id.to_owned(), status, content, stdout, stderr: None }
    }

    #[test]
    fn results_are_listed_as_returned_denied_refused_and_the_rest_runs() {
        let pending = ["yes", "no", "client", "why"].map(call);
        let free = ["free", "bad"].map(call);
        let answers = [
            returned("client", ToolStatus::Error, Content::Text("broken".to_owned())),
            approval("why", false, Some("not that one")),
            approval("no", false, None),
            approval("yes", true, None),
        ];
        let refusal = |call: &ToolCall| (call.id == "bad").then(|| "refused".to_owned());
        let answered = answered(&pending, &free, &answers, refusal);
        let known: Vec<_> = answered
            .known
            .iter()
            .map(|one| (one.call_id.as_str(), one.name.as_str(), one.text.as_str(), one.was_executed))
            .collect();
        assert_eq!(
            known,
            [
                ("client", "tool_client", "broken", true),
                ("no", "tool_no", "Error: request to call tool denied.", false),
                ("why", "tool_why", "Error: request to call tool denied. User reason: not that one", false),
                ("bad", "tool_bad", "refused", false),
            ]
        );
        assert!(answered.known.iter().all(|one| one.status == ToolStatus::Error));
        assert_eq!(answered.to_run, [call("yes"), call("free")]);
    }

    #[test]
    fn what_the_client_returns_is_taken_as_it_is() {
        let image = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}});
        let parts = vec![json!({"type": "text", "text": "A shot:"}), image];
        let answers = [returned("a", ToolStatus::Success, Content::Parts(parts.clone()))];
        let answered = answered(&[call("a")], &[], &answers, |_| None);
        let expected = ToolReturn {
            stdout: Some(vec!["out".to_owned()]),
            parts: Some(parts),
            ..ToolReturn::success(&call("a"), "A shot:\n[image]".to_owned())
        };
        assert_eq!(answered, Answered { known: vec![expected], to_run: Vec::new() });
    }

    #[test]
    fn a_call_that_nobody_answered_does_not_run() {
        let answered = answered(&[call("a")], &[], &[], |_| None);
        assert!(answered.to_run.is_empty() && !answered.known[0].was_executed, "{answered:?}");
    }
}
