//! The events of a stream, encoded once to their final bytes (api/02).

use serde::Serialize;
use uuid::Uuid;

use crate::domain::Timestamp;
use crate::domain::compaction::CompactionTrigger;
use crate::domain::event::{Event, EventKind};
use crate::domain::ids::{MessageId, PingId, RunId, StepId};
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

    /// A stored ping that tells how far a tool call is.
    pub fn progress(&mut self, id: PingId, at: Timestamp, progress: &ToolProgress<'_>) -> Event {
        let seq = self.advance();
        let ping = Ping { tool_progress: Some(progress), ..Ping::new(id, at, self.visible(seq), self.run, None) };
        Event { seq, kind: EventKind::Ping, frame: sse::data(&ping) }
    }

    fn stored_ping(&mut self, id: PingId, at: Timestamp, superseded: Option<&[MessageId]>) -> Event {
        let seq = self.advance();
        let ping = Ping::new(id, at, self.visible(seq), self.run, superseded);
        Event { seq, kind: EventKind::Ping, frame: sse::data(&ping) }
    }

    /// The notice that the context was compacted, for streams that show it.
    pub fn compacted(&mut self, notice: &CompactionNotice) -> Event {
        let seq = self.advance();
        let shown = CompactionEvent {
            id: notice.id,
            date: notice.at,
            name: None,
            message_type: "event_message",
            otid: None,
            sender_id: None,
            step_id: notice.step,
            is_err: None,
            seq_id: self.visible(seq).map(SeqId::get),
            run_id: self.run,
            event_type: "compaction",
            event_data: CompactionEventData {
                trigger: notice.trigger,
                context_token_estimate: notice.context_tokens,
                context_window: notice.context_window,
            },
        };
        Event { seq, kind: EventKind::EventMessage, frame: sse::data(&shown) }
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
    /// Beyond the contract as well: how far a tool call is.
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_progress: Option<&'a ToolProgress<'a>>,
}

/// How far a tool call is.
#[derive(Debug, Clone, Serialize)]
pub struct ToolProgress<'a> {
    /// The call.
    pub tool_call_id: &'a str,
    /// How much is done.
    pub progress: f64,
    /// Of how much, if the tool knows.
    pub total: Option<f64>,
    /// What it does just now.
    pub message: Option<&'a str>,
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
            tool_progress: None,
        }
    }

    /// A keepalive ping of one connection: not stored, takes no number and shows the last one delivered.
    #[must_use]
    pub fn keepalive(id: PingId, at: Timestamp, last_shown: Option<SeqId>, run: RunId) -> bytes::Bytes {
        sse::data(&Ping::new(id, at, last_shown, run, None))
    }
}

/// What the event of a compaction tells.
#[derive(Debug, Clone, Copy)]
pub struct CompactionNotice {
    /// Its own id: a bare UUID on the wire.
    pub id: Uuid,
    /// When.
    pub at: Timestamp,
    /// The step after which it happened, if one did.
    pub step: Option<StepId>,
    /// What set it off.
    pub trigger: CompactionTrigger,
    /// Tokens of the context before.
    pub context_tokens: Option<u64>,
    /// The model's context window in tokens.
    pub context_window: u64,
}

/// `event_message`: the fields that all messages have, and its own.
#[derive(Debug, Serialize)]
struct CompactionEvent {
    id: Uuid,
    #[serde(serialize_with = "crate::wire::time::serialize_in_events")]
    date: Timestamp,
    name: Option<&'static str>,
    message_type: &'static str,
    otid: Option<&'static str>,
    sender_id: Option<&'static str>,
    step_id: Option<StepId>,
    is_err: Option<bool>,
    seq_id: Option<u64>,
    run_id: RunId,
    event_type: &'static str,
    event_data: CompactionEventData,
}

#[derive(Debug, Serialize)]
struct CompactionEventData {
    trigger: CompactionTrigger,
    context_token_estimate: Option<u64>,
    context_window: u64,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::Id;
    use crate::domain::message::{Answer, AnswerPart, MessageType, ReasoningSource};
    use crate::domain::run::ErrorType;
    use crate::domain::tool::{ToolCall, ToolReturn};
    use crate::domain::usage::Usage;
    use crate::wire::message::{SliceHead, answer_slices, call_delta, returns_slice};

    const UUID: Uuid = Uuid::from_u128(0x6612_baae_74a3_460d_9bfb_4c94_1f64_cd2d);
    const ID: &str = "6612baae-74a3-460d-9bfb-4c941f64cd2d";

    fn encoder(attachment: Attachment) -> Encoder {
        Encoder::new(RunId::from_uuid(UUID), attachment, SeqId::START)
    }

    fn head() -> SliceHead {
        SliceHead {
            message: MessageId::from_uuid(UUID),
            date: chrono::DateTime::UNIX_EPOCH,
            step: Some(StepId::from_uuid(UUID)),
            run: Some(RunId::from_uuid(UUID)),
        }
    }

    fn text(event: &Event) -> String {
        String::from_utf8(event.frame.to_vec()).expect("UTF-8").replace(ID, "ID")
    }

    /// The fields that all messages have, as api/02 §3 orders them.
    fn common(message_type: &str, name: &str, otid: &str, seq: &str) -> String {
        format!(
            "data: {{\"id\":\"message-ID\",\"date\":\"1970-01-01T00:00:00+00:00\",\"name\":{name},\"message_type\":\
             \"{message_type}\",\"otid\":\"{otid}\",\"sender_id\":null,\"step_id\":\"step-ID\",\"is_err\":null,\
             \"seq_id\":{seq},\"run_id\":\"run-ID\","
        )
    }

    #[test]
    fn a_ping_has_the_common_fields_only() {
        let mut encoder = encoder(Attachment::Background);
        let ping = encoder.ping(PingId::from_uuid(UUID), chrono::DateTime::UNIX_EPOCH);
        assert_eq!(
            text(&ping),
            "data: {\"id\":\"ping-ID\",\"date\":\"1970-01-01T00:00:00+00:00\",\"name\":null,\"message_type\":\"ping\",\
             \"otid\":null,\"sender_id\":null,\"step_id\":null,\"is_err\":null,\"seq_id\":1,\"run_id\":\"run-ID\"}\n\n"
        );
        let notice = encoder.superseded(PingId::from_uuid(UUID), chrono::DateTime::UNIX_EPOCH, &[head().message]);
        assert!(text(&notice).ends_with("\"superseded_message_ids\":[\"message-ID\"]}\n\n"));
    }

    #[test]
    fn an_answer_gives_slices_that_share_the_id_and_differ_in_otid() {
        let answer = Answer {
            parts: vec![
                AnswerPart::Reasoning {
                    text: "Hm.".to_owned(),
                    signature: Some("proof".to_owned()),
                    source: ReasoningSource::Native,
                },
                AnswerPart::Text("Å \"quote\"".to_owned()),
            ],
            calls: vec![ToolCall::new("c1", "look", "{\"x\": 1}")],
            made_by: None,
        };
        let mut encoder = encoder(Attachment::Background);
        let events: Vec<_> =
            answer_slices(&head(), &answer, None).into_iter().filter_map(|shown| encoder.message(shown)).collect();
        let otid = |end: &str| format!("6612baae-74a3-460d-9bfb-4c941f64cd{end}");
        let call = "{\"name\":\"look\",\"arguments\":\"{\\\"x\\\": 1}\",\"tool_call_id\":\"c1\"}";
        let expected = [
            common("reasoning_message", "null", &otid("00"), "1")
                + "\"source\":\"reasoner_model\",\"reasoning\":\"Hm.\",\"signature\":\"proof\"}\n\n",
            common("assistant_message", "null", &otid("01"), "2") + "\"content\":\"Å \\\"quote\\\"\"}\n\n",
            common("tool_call_message", "null", &otid("7f"), "3")
                + &format!("\"tool_call\":{call},\"tool_calls\":[{call}]}}\n\n"),
        ];
        assert_eq!(events.iter().map(text).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_delta_of_a_call_stands_in_both_fields_and_never_as_a_list() {
        let mut encoder = encoder(Attachment::Foreground);
        let shown = head().slice(0, MessageType::ToolCallMessage, call_delta("c1", None, Some("{\"x")));
        let event = encoder.message(shown).expect("shown");
        let delta = "{\"name\":null,\"arguments\":\"{\\\"x\",\"tool_call_id\":\"c1\"}";
        let expected = common("tool_call_message", "null", "6612baae-74a3-460d-9bfb-4c941f64cd00", "null")
            + &format!("\"tool_call\":{delta},\"tool_calls\":{delta}}}\n\n");
        assert_eq!(text(&event), expected);
    }

    #[test]
    fn returns_repeat_the_first_in_front() {
        let call = ToolCall::new("c1", "look", String::new());
        let returns = [ToolReturn::success(&call, "4".to_owned()), ToolReturn::error(&call, "no".to_owned())];
        let mut encoder = encoder(Attachment::Background);
        let event = returns_slice(&head(), &returns, None).and_then(|shown| encoder.message(shown)).expect("shown");
        let entry = |text: &str, status: &str| {
            format!(
                "{{\"type\":\"tool\",\"tool_return\":\"{text}\",\"status\":\"{status}\",\"tool_call_id\":\"c1\",\
                 \"stdout\":null,\"stderr\":null}}"
            )
        };
        let expected = common("tool_return_message", "\"look\"", "6612baae-74a3-460d-9bfb-4c941f64cd00", "1")
            + &format!(
                "\"tool_return\":\"4\",\"status\":\"success\",\"tool_call_id\":\"c1\",\"stdout\":null,\
                 \"stderr\":null,\"tool_returns\":[{},{}]}}\n\n",
                entry("4", "success"),
                entry("no", "error"),
            );
        assert_eq!(text(&event), expected);
    }

    #[test]
    fn the_end_is_in_order_and_hides_its_numbers_but_the_errors() {
        let error = RunError {
            error_type: ErrorType::LlmTimeout,
            message: "Late.".to_owned(),
            detail: None,
            provider_status: None,
        };
        let usage = RunUsage {
            sum: Usage { completion_tokens: 2, prompt_tokens: 3, total_tokens: 5, ..Usage::default() },
            step_count: 1,
            context_tokens: Some(5),
        };
        let end = encoder(Attachment::Background).end(&Outcome::failed(error), &usage);
        let expected = [
            "data: {\"message_type\":\"stop_reason\",\"stop_reason\":\"llm_api_error\"}\n\n",
            "data: {\"message_type\":\"usage_statistics\",\"completion_tokens\":2,\"prompt_tokens\":3,\
             \"total_tokens\":5,\"step_count\":1,\"run_ids\":[\"run-ID\"],\"cached_input_tokens\":null,\
             \"cache_write_tokens\":null,\"reasoning_tokens\":null,\"context_tokens\":5}\n\n",
            "event: error\ndata: {\"message_type\":\"error_message\",\"run_id\":\"run-ID\",\"error_type\":\
             \"llm_timeout\",\"message\":\"Late.\",\"detail\":null,\"seq_id\":3}\n\n",
            "data: [DONE]\n\n",
        ];
        assert_eq!(end.iter().map(text).collect::<Vec<_>>(), expected);
        assert_eq!(end.iter().map(|event| event.seq.get()).collect::<Vec<_>>(), [1, 2, 3, 4]);
        let stopped = encoder(Attachment::Foreground).end(&Outcome::stopped(StopReason::EndTurn), &usage);
        assert_eq!(stopped.len(), 3);
        assert!(text(&stopped[1]).contains("\"run_ids\":null"));
    }
}
