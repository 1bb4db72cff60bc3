//! Runs: the object, its usage and metrics, and the bodies of cancel and resume (api/03).

use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::domain::Timestamp;
use crate::domain::ids::ToolId;
use crate::domain::message::Message;
use crate::domain::position::SeqId;
use crate::domain::run::{Attachment, Run, RunState};
use crate::domain::usage::Usage;
use crate::wire::event::ErrorEvent;
use crate::wire::read::{BodyError, Node};
use crate::wire::response::LettaResponse;
use crate::wire::time;

/// `Run`
#[must_use]
pub fn run(run: &Run) -> Value {
    let request = &run.request;
    let (stop_reason, completed_at) = match &run.state {
        RunState::Created | RunState::Running => (None, None),
        RunState::Ended { reason, at, .. } => (Some(*reason), Some(*at)),
    };
    let tried = run.callback.as_ref();
    json!({
        "id": run.id,
        "status": run.state.status(),
        "created_at": time::elsewhere(run.created_at),
        "completed_at": completed_at.map(time::elsewhere),
        "agent_id": run.agent_id,
        "conversation_id": run.conversation_id,
        "base_template_id": null,
        "background": is_background(run),
        "metadata": metadata(run),
        "request_config": {
            "use_assistant_message": request.use_assistant_message,
            "assistant_message_tool_name": request.assistant_message_tool_name,
            "assistant_message_tool_kwarg": request.assistant_message_tool_kwarg,
            "include_return_message_types": request.include_types,
        },
        "stop_reason": stop_reason,
        "callback_url": request.callback_url,
        "callback_sent_at": tried.map(|tried| time::elsewhere(tried.at)),
        "callback_status_code": tried.and_then(|tried| tried.result.status()),
        "callback_error": tried.and_then(|tried| tried.result.error()),
        "ttft_ns": run.ttft_ns,
        "total_duration_ns": completed_at.and_then(|at| nanoseconds(at - run.created_at)),
    })
}

fn metadata(run: &Run) -> Value {
    let mut metadata = json!({"run_type": run.request.run_type});
    if let RunState::Ended { error: Some(error), .. } = &run.state {
        metadata["error"] = json!(ErrorEvent::new(run.id, error, None));
    }
    metadata
}

/// The body of a callback: how the run ended, and all that came of it; `None` if it has not ended. `messages` are all of
/// the run's, oldest first.
#[must_use]
pub fn callback(run: &Run, messages: &[Message]) -> Option<Value> {
    let RunState::Ended { reason, at, .. } = &run.state else { return None };
    let mut metadata = metadata(run);
    metadata["result"] = json!(LettaResponse::new(run, *reason, messages));
    Some(json!({
        "run_id": run.id,
        "status": run.state.status(),
        "completed_at": time::elsewhere(*at),
        "metadata": metadata,
    }))
}

/// Whether the run's stream can be resumed.
#[must_use]
pub const fn is_background(run: &Run) -> bool {
    match run.request.attachment {
        Attachment::Background => true,
        Attachment::Foreground => false,
    }
}

/// `GET /v1/runs/{run_id}/usage`
#[must_use]
pub fn usage(run: &Run) -> Value {
    let usage = &run.usage.sum;
    json!({
        "completion_tokens": usage.completion_tokens,
        "prompt_tokens": usage.prompt_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": prompt_details(usage),
        "completion_tokens_details": completion_details(usage),
    })
}

/// What is known of the prompt's tokens; null if nothing.
pub(crate) fn prompt_details(usage: &Usage) -> Value {
    if usage.cached_input_tokens.is_none() && usage.cache_write_tokens.is_none() {
        return Value::Null;
    }
    json!({
        "cached_tokens": usage.cached_input_tokens,
        "cache_read_tokens": usage.cached_input_tokens,
        "cache_creation_tokens": usage.cache_write_tokens,
    })
}

/// What is known of the completion's tokens; null if nothing.
pub(crate) fn completion_details(usage: &Usage) -> Value {
    usage.reasoning_tokens.map_or(Value::Null, |tokens| json!({"reasoning_tokens": tokens}))
}

/// `GET /v1/runs/{run_id}/metrics`; `tools_used` are the tools that were called and still exist.
#[must_use]
pub fn metrics(run: &Run, tools_used: &[ToolId]) -> Value {
    let run_ns = match &run.state {
        RunState::Created | RunState::Running => None,
        RunState::Ended { at, .. } => nanoseconds(*at - run.created_at),
    };
    json!({
        "id": run.id,
        "organization_id": null,
        "agent_id": run.agent_id,
        "project_id": null,
        "run_start_ns": start_ns(run.created_at),
        "run_ns": run_ns,
        "num_steps": run.usage.step_count,
        "tools_used": tools_used,
        "template_id": null,
        "base_template_id": null,
    })
}

fn nanoseconds(duration: TimeDelta) -> Option<i64> {
    duration.num_nanoseconds()
}

fn start_ns(at: Timestamp) -> Option<i64> {
    at.timestamp_nanos_opt()
}

/// Body of a cancel: the runs that are meant, as written; `None` means all active runs of the agent.
///
/// # Errors
/// It has not the form that it should have.
pub fn cancel_body(body: &Value) -> Result<Option<Vec<String>>, BodyError> {
    Node::body(body)?.get("run_ids").map(|ids| ids.strings()).transpose()
}

/// Body of a resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResumeBody {
    /// The cursor, if the body has one.
    pub starting_after: Option<SeqId>,
    /// Whether this connection is kept alive by pings rather than comments.
    pub include_pings: bool,
}

impl ResumeBody {
    /// Reads it. `poll_interval` and `batch_size` are checked and then have no effect: nothing is polled here.
    ///
    /// # Errors
    /// It has not the form that it should have.
    pub fn parse(body: &Value) -> Result<Self, BodyError> {
        let body = Node::body(body)?;
        if let Some(interval) = body.get("poll_interval") {
            let seconds = interval.value().as_f64().ok_or_else(|| interval.malformed("must be a number"))?;
            if seconds <= 0.0 {
                return Err(interval.malformed("must be greater than 0"));
            }
        }
        if let Some(size) = body.get("batch_size") {
            size.at_least(1)?;
        }
        let starting_after = body.get("starting_after").map(|cursor| cursor.whole()).transpose()?;
        Ok(Self { starting_after: starting_after.map(cursor), include_pings: body.flag("include_pings", true)? })
    }
}

/// A cursor as clients write it: what is not positive stands before the first event.
#[must_use]
pub fn cursor(number: i64) -> SeqId {
    SeqId::new(u64::try_from(number).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resume_body_is_read_leniently_where_the_contract_says_so() {
        let cases = [
            (json!({}), Ok((None, true))),
            (json!({"starting_after": null, "include_pings": null}), Ok((None, true))),
            (json!({"starting_after": 7, "include_pings": false, "poll_interval": 0.5}), Ok((Some(7), false))),
            (json!({"starting_after": -3, "agent_id": "x", "otid": 5}), Ok((Some(0), true))),
            (json!({"starting_after": "7"}), Err("body.starting_after: must be a whole number")),
            (json!({"poll_interval": 0}), Err("body.poll_interval: must be greater than 0")),
            (json!({"batch_size": 0}), Err("body.batch_size: must be at least 1")),
        ];
        for (body, expected) in cases {
            let got = ResumeBody::parse(&body);
            let got = got.map(|body| (body.starting_after.map(SeqId::get), body.include_pings));
            assert_eq!(got.map_err(|error| error.to_string()), expected.map_err(str::to_owned), "{body}");
        }
    }
}
