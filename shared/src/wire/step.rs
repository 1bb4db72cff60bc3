//! Steps in lists (api/04 §6).

use serde_json::{Value, json};

use crate::domain::step::Step;
use crate::wire::model::ModelFacts;
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
        "tags": [],
        "tid": null,
        "trace_id": null,
        "request_id": null,
        "messages": [],
        "feedback": null,
        "project_id": null,
        "error_type": step.error.as_ref().map(|error| error.error_type.as_str()),
        "retries": step.retries,
        "error_data": step.error.as_ref().map(|error| json!({"message": error.message})),
        "status": step.status,
    })
}
