//! The events of a stream, encoded once to their final bytes (api/02).

use serde::Serialize;

use crate::domain::Timestamp;
use crate::domain::event::{Event, EventKind};
use crate::domain::ids::{MessageId, PingId, RunId};
use crate::domain::position::SeqId;
use crate::domain::run::{Attachment, Outcome, RunError};
use crate::domain::stop_reason::StopReason;
use crate::domain::usage::RunUsage;
use crate::wire::message::{Shown, event_kind};
use crate::wire::sse;

/// Encodes the events of one run, numbering them as it goes.
#[derive(Debug, Clone)]
pub struct Encoder {
    run: RunId,
    attachment: Attachment,
    last: SeqId,
}

impl Encoder {
    /// Goes on after `last`.
    #[must_use]
    pub const fn new(run: RunId, attachment: Attachment, last: SeqId) -> Self {
        Self { run, attachment, last }
    }

    /// The number of the last event made.
    #[must_use]
    pub const fn last(&self) -> SeqId {
        self.last
    }

    /// A message or a delta of one; `None` for a type that streams do not show.
    pub fn message(&mut self, shown: Shown<'_>) -> Option<Event> {
        let kind = event_kind(shown.message_type)?;
        let seq = self.advance();
        let shown = shown.numbered(self.visible(seq));
        Some(Event { seq, kind, frame: sse::data(&shown) })
    }

    /// A stored ping: the opening one.
    pub fn ping(&mut self, id: PingId, at: Timestamp) -> Event {
        self.stored_ping(id, at, None)
    }

    /// A stored ping that tells that an interrupted step is repeated: what was shown of these messages is void.
    pub fn superseded(&mut self, id: PingId, at: Timestamp, messages: &[MessageId]) -> Event {
        self.stored_ping(id, at, Some(messages))
    }

    fn stored_ping(&mut self, id: PingId, at: Timestamp, superseded: Option<&[MessageId]>) -> Event {
        let seq = self.advance();
        let ping = Ping::new(id, at, self.visible(seq), self.run, superseded);
        Event { seq, kind: EventKind::Ping, frame: sse::data(&ping) }
    }

    /// The end of a run: `stop_reason`, `usage_statistics`, the error if there is one, `[DONE]`. Each takes a number;
    /// only the error shows it.
    pub fn end(&mut self, outcome: &Outcome, usage: &RunUsage) -> Vec<Event> {
        let mut events =
            vec![self.terminal(EventKind::StopReason, |_| sse::data(&StopReasonEvent::new(outcome.reason)))];
        let run_ids = match self.attachment {
            Attachment::Background => Some([self.run]),
            Attachment::Foreground => None,
        };
        events.push(self.terminal(EventKind::UsageStatistics, |_| sse::data(&UsageEvent::new(usage, run_ids))));
        if let Some(error) = &outcome.error {
            let run = self.run;
            events.push(self.terminal(EventKind::Error, |seq| sse::error(&ErrorEvent::new(run, error, seq))));
        }
        events.push(self.terminal(EventKind::Done, |_| sse::done()));
        events
    }

    fn terminal(&mut self, kind: EventKind, frame: impl FnOnce(Option<SeqId>) -> bytes::Bytes) -> Event {
        let seq = self.advance();
        Event { seq, kind, frame: frame(self.visible(seq)) }
    }

    fn advance(&mut self) -> SeqId {
        self.last = self.last.next();
        self.last
    }

    const fn visible(&self, seq: SeqId) -> Option<SeqId> {
        match self.attachment {
            Attachment::Background => Some(seq),
            Attachment::Foreground => None,
        }
    }
}

/// A ping: the fields that all messages have, and nothing else.
#[derive(Debug, Serialize)]
pub struct Ping<'a> {
    id: PingId,
    #[serde(serialize_with = "crate::wire::time::serialize_in_events")]
    date: Timestamp,
    name: Option<&'static str>,
    message_type: &'static str,
    otid: Option<&'static str>,
    sender_id: Option<&'static str>,
    step_id: Option<&'static str>,
    is_err: Option<bool>,
    seq_id: Option<u64>,
    run_id: RunId,
    /// Beyond the contract, on the notice of a repeated step only: SDKs keep or ignore keys that they do not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    superseded_message_ids: Option<&'a [MessageId]>,
}

impl<'a> Ping<'a> {
    fn new(
        id: PingId,
        date: Timestamp,
        seq: Option<SeqId>,
        run_id: RunId,
        superseded_message_ids: Option<&'a [MessageId]>,
    ) -> Self {
        Self {
            id,
            date,
            name: None,
            message_type: "ping",
            otid: None,
            sender_id: None,
            step_id: None,
            is_err: None,
            seq_id: seq.map(SeqId::get),
            run_id,
            superseded_message_ids,
        }
    }

    /// A keepalive ping of one connection: not stored, takes no number and shows the last one delivered.
    #[must_use]
    pub fn keepalive(id: PingId, at: Timestamp, last_shown: Option<SeqId>, run: RunId) -> bytes::Bytes {
        sse::data(&Ping::new(id, at, last_shown, run, None))
    }
}

/// `stop_reason`
#[derive(Debug, Clone, Copy, Serialize)]
pub struct StopReasonEvent {
    message_type: &'static str,
    stop_reason: StopReason,
}

impl StopReasonEvent {
    /// The event of a reason.
    #[must_use]
    pub const fn new(stop_reason: StopReason) -> Self {
        Self { message_type: "stop_reason", stop_reason }
    }
}

/// `usage_statistics`
#[derive(Debug, Clone, Serialize)]
pub struct UsageEvent {
    message_type: &'static str,
    completion_tokens: u64,
    prompt_tokens: u64,
    total_tokens: u64,
    step_count: u32,
    run_ids: Option<[RunId; 1]>,
    cached_input_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
    context_tokens: Option<u64>,
}

impl UsageEvent {
    /// The event of a run's usage; `run_ids` only in background mode.
    #[must_use]
    pub const fn new(usage: &RunUsage, run_ids: Option<[RunId; 1]>) -> Self {
        Self {
            message_type: "usage_statistics",
            completion_tokens: usage.sum.completion_tokens,
            prompt_tokens: usage.sum.prompt_tokens,
            total_tokens: usage.sum.total_tokens,
            step_count: usage.step_count,
            run_ids,
            cached_input_tokens: usage.sum.cached_input_tokens,
            cache_write_tokens: usage.sum.cache_write_tokens,
            reasoning_tokens: usage.sum.reasoning_tokens,
            context_tokens: usage.context_tokens,
        }
    }
}

/// `error_message`, also kept in a failed run's metadata.
#[derive(Debug, Clone, Serialize)]
pub struct ErrorEvent<'a> {
    message_type: &'static str,
    run_id: RunId,
    error_type: &'static str,
    message: &'a str,
    detail: Option<&'a str>,
    seq_id: Option<u64>,
}

impl<'a> ErrorEvent<'a> {
    /// The event of an error.
    #[must_use]
    pub fn new(run: RunId, error: &'a RunError, seq: Option<SeqId>) -> Self {
        Self {
            message_type: "error_message",
            run_id: run,
            error_type: error.error_type.as_str(),
            message: &error.message,
            detail: error.detail.as_deref(),
            seq_id: seq.map(SeqId::get),
        }
    }
}
