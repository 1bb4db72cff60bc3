//! Compactions that a client asks for: the body, and what came of it (api/03 §7).

use serde_json::{Value, json};

use crate::domain::compaction::Summary;
use crate::wire::read::{BodyError, Node};
use crate::wire::request::read_model_handle;

/// How a compaction chooses what it takes out of the context.
pub const COMPACTION_MODES: [&str; 4] = ["sliding_window", "all", "self_compact_all", "self_compact_sliding_window"];

/// `compaction_settings` are kept as sent, but only if a compaction can follow them (api/05 §7).
pub(crate) fn check(body: &Node<'_>) -> Result<(), BodyError> {
    let Some(settings) = body.get("compaction_settings") else { return Ok(()) };
    settings.object()?;
    if let Some(mode) = settings.get("mode") {
        mode.one_of(&COMPACTION_MODES)?;
    }
    if let Some(share) = settings.get("sliding_window_percentage")
        && !share.value().as_f64().is_some_and(|share| 0.0 < share && share < 1.0)
    {
        return Err(share.malformed("must be a number between 0 and 1"));
    }
    if let Some(most) = settings.get("clip_chars") {
        most.at_least(1)?;
    }
    if let Some(model) = settings.get("model") {
        read_model_handle(&model)?;
    }
    settings.optional_string("prompt")?;
    settings.flag("prompt_acknowledgement", false)?;
    settings.get("model_settings").map_or(Ok(()), |options| options.object().map(|_| ()))
}

/// Body of a compaction: its settings, as sent.
///
/// # Errors
/// It has not the form that it should have.
pub fn compaction_settings(body: &Value) -> Result<Option<Value>, BodyError> {
    let body = Node::body(body)?;
    check(&body)?;
    Ok(body.get("compaction_settings").map(|settings| settings.value().clone()))
}

/// `CompactionResponse`
#[must_use]
pub fn compaction(summary: &Summary) -> Value {
    json!({
        "summary": summary.text,
        "num_messages_before": summary.stats.messages_count_before,
        "num_messages_after": summary.stats.messages_count_after,
    })
}
