//! The one JSON answer of a send without streaming (api/03 §7).

use serde::Serialize;

use crate::domain::message::{Body, Message, MessageType};
use crate::domain::run::{Run, Speech};
use crate::domain::stop_reason::StopReason;
use crate::wire::event::{StopReasonEvent, UsageEvent};
use crate::wire::message::{Shown, slices};

/// `LettaResponse`
#[derive(Debug, Serialize)]
pub struct LettaResponse<'a> {
    messages: Vec<Shown<'a>>,
    stop_reason: StopReasonEvent,
    usage: UsageEvent,
    logprobs: Option<()>,
    turns: Option<()>,
}

impl<'a> LettaResponse<'a> {
    /// The answer of a run that ended for `reason`, from all of its messages, oldest first; its input is left out.
    #[must_use]
    pub fn new(run: &Run, reason: StopReason, messages: &'a [Message]) -> Self {
        let made = messages.iter().filter(|message| is_made(&message.body));
        Self {
            messages: shown(made, run.request.include_types.as_deref(), run.request.speech.as_ref()),
            stop_reason: StopReasonEvent::new(reason),
            usage: UsageEvent::new(&run.usage, Some([run.id])),
            logprobs: None,
            turns: None,
        }
    }
}

/// Whether a run makes such messages, rather than being given them.
const fn is_made(body: &Body) -> bool {
    match body {
        Body::Assistant(_) | Body::ToolReturns(_) | Body::ApprovalRequest(_) => true,
        Body::System(_)
        | Body::User(_)
        | Body::History(_)
        | Body::ApprovalResponse(_)
        | Body::Summary(_)
        | Body::Note(_) => false,
    }
}

/// Stored messages as a list shows them, filtered by kind; `None` lets all kinds pass. `speech` says how a legacy agent
/// speaks.
#[must_use]
pub fn shown<'a>(
    messages: impl IntoIterator<Item = &'a Message>,
    include: Option<&[MessageType]>,
    speech: Option<&Speech>,
) -> Vec<Shown<'a>> {
    shown_each(messages.into_iter().map(|message| (message, speech)), include)
}

/// The same of messages whose agents speak differently.
#[must_use]
pub fn shown_each<'a, 's>(
    messages: impl IntoIterator<Item = (&'a Message, Option<&'s Speech>)>,
    include: Option<&[MessageType]>,
) -> Vec<Shown<'a>> {
    let slices = messages.into_iter().flat_map(|(message, speech)| slices(message, speech));
    slices.filter(|slice| include.is_none_or(|kinds| kinds.contains(&slice.message_type))).collect()
}
