//! Steps, their metrics, and what clients say of them (api/04 §6).

use serde_json::{Value, json};

use crate::domain::limits::STEP_TAGS;
use crate::domain::step::{Feedback, Step};
use crate::wire::model::ModelFacts;
use crate::wire::read::{BodyError, Node};
use crate::wire::run::{completion_details, prompt_details};

/// `Step`; the model is described by what the catalogue knows of it.
#[must_use]
pub fn step(step: &Step, model: &ModelFacts) -> Value {
    let usage = &step.usage;
    json!({
        "id": step.id,
        "origin": null,
        "provider_id": null,
        "run_id": step.run_id,
        "agent_id": step.agent_id,
        "provider_name": step.model.provider(),
        "provider_category": "base",
        "model": step.model.model(),
        "model_handle": step.model,
        "model_endpoint": model.endpoint,
        "context_window_limit": model.context_window,
        "completion_tokens": usage.completion_tokens,
        "prompt_tokens": usage.prompt_tokens,
        "total_tokens": usage.total_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "completion_tokens_details": completion_details(usage),
        "prompt_tokens_details": prompt_details(usage),
        "stop_reason": step.stop_reason,
        "tags": step.tags,
        "tid": null,
        "trace_id": step.trace_id,
        "request_id": null,
        "messages": [],
        "feedback": step.feedback,
        "project_id": null,
        "error_type": step.error.as_ref().map(|error| error.error_type.as_str()),
        "retries": step.retries,
        "error_data": step.error.as_ref().map(|error| json!({"message": error.message})),
        "status": step.status,
    })
}

/// `GET /v1/steps/{step_id}/metrics`
#[must_use]
pub fn metrics(step: &Step) -> Value {
    let timing = &step.timing;
    let start = timing.started_at.timestamp_nanos_opt();
    json!({
        "id": step.id,
        "organization_id": null,
        "provider_id": null,
        "run_id": step.run_id,
        "agent_id": step.agent_id,
        "step_start_ns": start,
        // A step begins with its model call.
        "llm_request_start_ns": start,
        "llm_request_ns": timing.llm_request_ns,
        "tool_execution_ns": timing.tool_execution_ns,
        "step_ns": timing.step_ns,
        "base_template_id": null,
        "template_id": null,
        "project_id": null,
    })
}

/// Body of a feedback; `None` leaves a part as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedbackBody {
    /// New feedback, or that there is none any more.
    pub feedback: Option<Option<Feedback>>,
    /// All tags.
    pub tags: Option<Vec<String>>,
}

impl FeedbackBody {
    /// Reads it. Here `null` is a value: it takes the feedback back.
    ///
    /// # Errors
    /// It has not the form that it should have.
    pub fn parse(body: &Value) -> Result<Self, BodyError> {
        let node = Node::body(body)?;
        let feedback = match node.get("feedback") {
            Some(word) => Some(Feedback::parse(word.one_of(&["positive", "negative"])?)),
            None => body.get("feedback").map(|_| None),
        };
        let tags = match node.get("tags") {
            None => None,
            Some(tags) => {
                let words = tags.strings()?;
                if words.len() > STEP_TAGS {
                    return Err(tags.malformed(&format!("must have at most {STEP_TAGS} tags")));
                }
                Some(words)
            }
        };
        Ok(Self { feedback, tags })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feedback_is_given_taken_back_or_left_alone() {
        let tags = |tags: &[&str]| Some(tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>());
        for (body, feedback, expected) in [
            (json!({"feedback": "positive"}), Some(Some(Feedback::Positive)), None),
            (json!({"feedback": "negative", "tags": ["a", "b"]}), Some(Some(Feedback::Negative)), tags(&["a", "b"])),
            (json!({"feedback": null, "tags": []}), Some(None), tags(&[])),
            (json!({"tags": null}), None, None),
        ] {
            assert_eq!(FeedbackBody::parse(&body), Ok(FeedbackBody { feedback, tags: expected }), "{body}");
        }
        for (body, expected) in [
            (json!({"feedback": "good"}), "body.feedback: must be one of 'positive', 'negative'"),
            (json!({"feedback": true}), "body.feedback: must be a string"),
            (json!({"tags": "x"}), "body.tags: must be an array"),
            (json!({"tags": vec!["x"; STEP_TAGS + 1]}), "body.tags: must have at most 64 tags"),
        ] {
            let refused = FeedbackBody::parse(&body).expect_err("a refusal").to_string();
            assert_eq!(refused, expected, "{body}");
        }
    }
}
