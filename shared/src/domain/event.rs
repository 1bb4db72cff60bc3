//! Events: what a run's stream is made of.

use bytes::Bytes;

use super::position::SeqId;

/// What an event is, so that readers can filter without decoding it. The numbers are stored: never reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EventKind {
    /// The opening ping of a run, or the notice that an interrupted step is repeated.
    Ping = 1,
    /// `assistant_message`
    AssistantMessage = 2,
    /// `reasoning_message`
    ReasoningMessage = 3,
    /// `hidden_reasoning_message`
    HiddenReasoningMessage = 4,
    /// `tool_call_message`
    ToolCallMessage = 5,
    /// `tool_return_message`
    ToolReturnMessage = 6,
    /// `approval_request_message`
    ApprovalRequestMessage = 7,
    /// `summary_message`
    SummaryMessage = 8,
    /// `event_message`
    EventMessage = 9,
    /// `stop_reason`: the first of the terminal frames.
    StopReason = 20,
    /// `usage_statistics`
    UsageStatistics = 21,
    /// `event: error`
    Error = 22,
    /// `[DONE]`: the last frame of every run.
    Done = 23,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 13] = [
        Self::Ping,
        Self::AssistantMessage,
        Self::ReasoningMessage,
        Self::HiddenReasoningMessage,
        Self::ToolCallMessage,
        Self::ToolReturnMessage,
        Self::ApprovalRequestMessage,
        Self::SummaryMessage,
        Self::EventMessage,
        Self::StopReason,
        Self::UsageStatistics,
        Self::Error,
        Self::Done,
    ];

    /// The stored number.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The kind of a stored number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// Whether the event belongs to the end of a run: these take a number without showing it (api/02 §3).
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::StopReason | Self::UsageStatistics | Self::Error | Self::Done)
    }
}

/// One event of a run, encoded once: every reader gets these bytes (G3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its number in the run.
    pub seq: SeqId,
    /// What it is.
    pub kind: EventKind,
    /// The complete SSE block, blank line included, without an `id:` line.
    pub frame: Bytes,
}
