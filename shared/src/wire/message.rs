//! Messages as the API shows them, in streams and in lists: one stored message gives one or more *slices*, which share
//! its id and differ in their `otid` (api/02 §4).

use serde::Serialize;
use serde::ser::Serializer;
use serde_json::Value;
use uuid::Uuid;

use crate::domain::Timestamp;
use crate::domain::approval::CallAnswer;
use crate::domain::compaction::{CompactionStats, Summary};
use crate::domain::event::EventKind;
use crate::domain::ids::{Id, MessageId, RunId, StepId};
use crate::domain::message::{Answer, AnswerPart, Body, Content, Message, MessageType, ReasoningSource};
use crate::domain::position::SeqId;
use crate::domain::run::Speech;
use crate::domain::tool::{ToolCall, ToolReturn, ToolStatus};
use crate::wire::time;

/// The identity of a slice: the UUID of its message with the lowest seven bits set to its place.
#[must_use]
pub fn slice_otid(message: MessageId, index: u8) -> Uuid {
    let mut bytes = *message.uuid().as_bytes();
    bytes[15] = (bytes[15] & 0x80) | (index & 0x7f);
    Uuid::from_bytes(bytes)
}

/// One message of the API: the fields that all have, in the order of the contract, then its own.
#[derive(Debug, Clone, Serialize)]
pub struct Shown<'a> {
    /// The stored message.
    pub id: MessageId,
    /// Its time.
    #[serde(serialize_with = "time::serialize_in_events")]
    pub date: Timestamp,
    /// Name of the sender, or of the first tool of a return.
    pub name: Option<&'a str>,
    /// Which of the kinds it is.
    pub message_type: MessageType,
    /// Identity of the slice.
    #[serde(serialize_with = "serialize_otid")]
    pub otid: Otid<'a>,
    /// Identity or agent that sent it.
    pub sender_id: Option<&'a str>,
    /// The step that made it.
    pub step_id: Option<StepId>,
    /// Always null: messages of failed steps are not shown.
    pub is_err: Option<bool>,
    /// Its number in the run, where the stream shows one.
    pub seq_id: Option<u64>,
    /// The run.
    pub run_id: Option<RunId>,
    /// What only this kind has.
    #[serde(flatten)]
    pub own: Own<'a>,
}

/// Where a slice's identity comes from.
#[derive(Debug, Clone)]
pub enum Otid<'a> {
    /// The client gave it.
    Given(&'a str),
    /// It follows from the message and the slice's place.
    Derived(Uuid),
}

fn serialize_otid<S: Serializer>(otid: &Otid<'_>, serializer: S) -> Result<S::Ok, S::Error> {
    match otid {
        Otid::Given(text) => serializer.serialize_str(text),
        Otid::Derived(uuid) => serializer.collect_str(uuid),
    }
}

/// The fields of one kind.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Own<'a> {
    /// System, user and assistant text.
    Content {
        /// A text, or parts.
        content: ShownContent<'a>,
    },
    /// Reasoning.
    Reasoning {
        /// Native to the model or not.
        source: &'static str,
        /// The text.
        reasoning: &'a str,
        /// The provider's proof.
        signature: Option<&'a str>,
    },
    /// Reasoning that the provider does not show.
    HiddenReasoning {
        /// `redacted` or `omitted`.
        state: &'static str,
        /// The unreadable text of redacted reasoning.
        hidden_reasoning: Option<&'a str>,
    },
    /// Complete tool calls.
    Calls {
        /// The first.
        tool_call: ShownCall<'a>,
        /// All.
        tool_calls: Vec<ShownCall<'a>>,
    },
    /// A piece of a tool call. The list field holds the one piece, not a list: SDKs expect just that (api/02 §2).
    CallDelta {
        /// The piece.
        tool_call: ShownCallDelta<'a>,
        /// The piece again.
        tool_calls: ShownCallDelta<'a>,
    },
    /// Results of tool calls.
    Returns {
        /// Text of the first.
        tool_return: &'a str,
        /// Status of the first.
        status: ToolStatus,
        /// Call of the first.
        tool_call_id: &'a str,
        /// Standard output of the first.
        stdout: Option<&'a [String]>,
        /// Standard error of the first.
        stderr: Option<&'a [String]>,
        /// All.
        tool_returns: Vec<ShownReturn<'a>>,
    },
    /// The client's answers to calls.
    Answers {
        /// All.
        approvals: Vec<ShownAnswer<'a>>,
        /// Deprecated: of the first approval.
        approve: Option<bool>,
        /// Deprecated: the call of the first approval.
        approval_request_id: Option<&'a str>,
        /// Deprecated: of the first approval.
        reason: Option<&'a str>,
    },
    /// What stands for earlier messages.
    Summary {
        /// The text.
        summary: &'a str,
        /// What the compaction did.
        compaction_stats: &'a CompactionStats,
    },
}

/// An answer to a call.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum ShownAnswer<'a> {
    /// It may run or not.
    Approval {
        /// Always `approval`.
        r#type: &'static str,
        /// The call.
        tool_call_id: &'a str,
        /// Whether it may run.
        approve: bool,
        /// Why not.
        reason: Option<&'a str>,
    },
    /// The client ran it.
    Return(ShownReturn<'a>),
}

/// A text or parts.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum ShownContent<'a> {
    /// A text.
    Text(&'a str),
    /// A text that was taken out of something else.
    Owned(String),
    /// Parts.
    Parts(Vec<&'a Value>),
}

/// A complete call.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ShownCall<'a> {
    /// The tool.
    pub name: &'a str,
    /// JSON text.
    pub arguments: &'a str,
    /// The provider's id.
    pub tool_call_id: &'a str,
}

/// A piece of a call: the opening one has the name, the others pieces of the arguments.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ShownCallDelta<'a> {
    /// The tool.
    pub name: Option<&'a str>,
    /// A fragment of JSON text.
    pub arguments: Option<&'a str>,
    /// The provider's id, on every piece.
    pub tool_call_id: &'a str,
}

/// A result.
#[derive(Debug, Clone, Serialize)]
pub struct ShownReturn<'a> {
    /// Always `tool`.
    pub r#type: &'static str,
    /// The text, or parts.
    pub tool_return: ShownContent<'a>,
    /// Success or error.
    pub status: ToolStatus,
    /// The call.
    pub tool_call_id: &'a str,
    /// Standard output.
    pub stdout: Option<&'a [String]>,
    /// Standard error.
    pub stderr: Option<&'a [String]>,
}

impl Shown<'_> {
    /// The same slice with its number in the stream.
    #[must_use]
    pub fn numbered(mut self, seq: Option<SeqId>) -> Self {
        self.seq_id = seq.map(SeqId::get);
        self
    }
}

/// What all slices of one message have in common.
#[derive(Debug, Clone, Copy)]
pub struct SliceHead {
    /// The message.
    pub message: MessageId,
    /// Its time.
    pub date: Timestamp,
    /// The step.
    pub step: Option<StepId>,
    /// The run.
    pub run: Option<RunId>,
}

impl SliceHead {
    /// A slice at a place of its message.
    #[must_use]
    pub fn slice<'a>(&self, index: u8, message_type: MessageType, own: Own<'a>) -> Shown<'a> {
        Shown {
            id: self.message,
            date: self.date,
            name: None,
            message_type,
            otid: Otid::Derived(slice_otid(self.message, index)),
            sender_id: None,
            step_id: self.step,
            is_err: None,
            seq_id: None,
            run_id: self.run,
            own,
        }
    }
}

/// Own fields of a reasoning slice or delta.
#[must_use]
pub const fn reasoning<'a>(text: &'a str, signature: Option<&'a str>, source: ReasoningSource) -> Own<'a> {
    let source = match source {
        ReasoningSource::Native => "reasoner_model",
        ReasoningSource::Prompted => "non_reasoner_model",
    };
    Own::Reasoning { source, reasoning: text, signature }
}

/// Own fields of reasoning that the provider does not show.
#[must_use]
pub const fn hidden_reasoning(data: Option<&str>) -> Own<'_> {
    let state = if data.is_some() { "redacted" } else { "omitted" };
    Own::HiddenReasoning { state, hidden_reasoning: data }
}

/// Own fields of an assistant slice or delta.
#[must_use]
pub fn text(text: &str) -> Own<'_> {
    Own::Content { content: ShownContent::Text(text) }
}

/// Own fields of a piece of a call.
#[must_use]
pub fn call_delta<'a>(id: &'a str, name: Option<&'a str>, arguments: Option<&'a str>) -> Own<'a> {
    let delta = ShownCallDelta { name, arguments, tool_call_id: id };
    Own::CallDelta { tool_call: delta, tool_calls: delta }
}

/// The slices of a stored message, in order. Calls of the tool by which a legacy agent speaks are shown as what it says.
#[must_use]
pub fn slices<'a>(message: &'a Message, speech: Option<&Speech>) -> Vec<Shown<'a>> {
    let head = SliceHead { message: message.id, date: message.created_at, step: message.step_id, run: message.run_id };
    let mut shown = match &message.body {
        Body::System(content) => vec![content_slice(&head, MessageType::SystemMessage, content)],
        Body::User(content) => vec![content_slice(&head, MessageType::UserMessage, content)],
        Body::History(content) => vec![content_slice(&head, MessageType::AssistantMessage, content)],
        Body::Assistant(answer) => answer_slices(&head, answer, speech),
        Body::ToolReturns(returns) => returns_slice(&head, returns, speech).into_iter().collect(),
        Body::ApprovalRequest(answer) => request_slices(&head, answer),
        Body::ApprovalResponse(answers) => vec![answers_slice(&head, answers)],
        Body::Summary(summary) => vec![summary_slice(&head, summary)],
        Body::Note(_) => Vec::new(),
    };
    for slice in &mut shown {
        slice.sender_id = message.labels.sender_id.as_deref();
        slice.name = slice.name.or(message.labels.name.as_deref());
        if let Some(otid) = &message.labels.otid {
            slice.otid = Otid::Given(otid);
        }
    }
    shown
}

fn content_slice<'a>(head: &SliceHead, message_type: MessageType, content: &'a Content) -> Shown<'a> {
    head.slice(0, message_type, Own::Content { content: shown_content(content) })
}

fn shown_content(content: &Content) -> ShownContent<'_> {
    match content {
        Content::Text(text) => ShownContent::Text(text),
        Content::Parts(parts) => shown_parts(parts),
    }
}

fn shown_parts(parts: &[Value]) -> ShownContent<'_> {
    ShownContent::Parts(parts.iter().filter(|part| is_text_or_image(part)).collect())
}

/// SDKs know only these two kinds of parts in messages; others are kept for the model and not shown.
fn is_text_or_image(part: &Value) -> bool {
    matches!(part.get("type").and_then(Value::as_str), Some("text" | "image"))
}

/// The slices of a model's answer: reasoning and text in the order produced, then the calls.
#[must_use]
pub fn answer_slices<'a>(head: &SliceHead, answer: &'a Answer, speech: Option<&Speech>) -> Vec<Shown<'a>> {
    with_calls(head, answer, MessageType::ToolCallMessage, speech)
}

/// The slices of a message whose calls wait for the client.
#[must_use]
pub fn request_slices<'a>(head: &SliceHead, answer: &'a Answer) -> Vec<Shown<'a>> {
    with_calls(head, answer, MessageType::ApprovalRequestMessage, None)
}

fn with_calls<'a>(
    head: &SliceHead,
    answer: &'a Answer,
    calls_as: MessageType,
    speech: Option<&Speech>,
) -> Vec<Shown<'a>> {
    let mut shown: Vec<Shown<'a>> = Vec::with_capacity(answer.parts.len() + 1);
    for (index, part) in answer.parts.iter().enumerate() {
        let index = place(index);
        shown.push(match part {
            AnswerPart::Text(content) => head.slice(index, MessageType::AssistantMessage, text(content)),
            // Only a proof, of reasoning that nobody was shown: streams show nothing of it, too.
            AnswerPart::Reasoning { text, .. } if text.is_empty() => continue,
            AnswerPart::Reasoning { text, signature, source } => {
                head.slice(index, MessageType::ReasoningMessage, reasoning(text, signature.as_deref(), *source))
            }
            AnswerPart::HiddenReasoning { data } => {
                head.slice(index, MessageType::HiddenReasoningMessage, hidden_reasoning(data.as_deref()))
            }
        });
    }
    let mut calls = Vec::with_capacity(answer.calls.len());
    for call in &answer.calls {
        match speech.and_then(|speech| speech.said(call)) {
            Some(said) => {
                let own = Own::Content { content: ShownContent::Owned(said) };
                shown.push(head.slice(SPEECH_PLACE, MessageType::AssistantMessage, own));
            }
            None => calls.push(shown_call(call)),
        }
    }
    if let Some(first) = calls.first() {
        let own = Own::Calls { tool_call: *first, tool_calls: calls };
        shown.push(head.slice(CALLS_PLACE, calls_as, own));
    }
    shown
}

/// The one slice of the client's answers to calls.
fn answers_slice<'a>(head: &SliceHead, answers: &'a [CallAnswer]) -> Shown<'a> {
    let first = answers.iter().find_map(|answer| match answer {
        CallAnswer::Approval { tool_call_id, approve, reason } => {
            Some((*approve, tool_call_id.as_str(), reason.as_deref()))
        }
        CallAnswer::Return { .. } => None,
    });
    let own = Own::Answers {
        approve: first.map(|(approve, ..)| approve),
        approval_request_id: first.map(|(_, call, _)| call),
        reason: first.and_then(|(.., reason)| reason),
        approvals: answers.iter().map(shown_answer).collect(),
    };
    head.slice(0, MessageType::ApprovalResponseMessage, own)
}

fn shown_answer(answer: &CallAnswer) -> ShownAnswer<'_> {
    match answer {
        CallAnswer::Approval { tool_call_id, approve, reason } => {
            ShownAnswer::Approval { r#type: "approval", tool_call_id, approve: *approve, reason: reason.as_deref() }
        }
        CallAnswer::Return { tool_call_id, status, content, stdout, stderr } => ShownAnswer::Return(ShownReturn {
            r#type: "tool",
            tool_return: shown_content(content),
            status: *status,
            tool_call_id,
            stdout: stdout.as_deref(),
            stderr: stderr.as_deref(),
        }),
    }
}

/// The one slice of a summary.
#[must_use]
pub fn summary_slice<'a>(head: &SliceHead, summary: &'a Summary) -> Shown<'a> {
    let own = Own::Summary { summary: &summary.text, compaction_stats: &summary.stats };
    head.slice(0, MessageType::SummaryMessage, own)
}

/// The one slice of a step's tool returns; none without any that are shown: those of speech are not.
#[must_use]
pub fn returns_slice<'a>(head: &SliceHead, returns: &'a [ToolReturn], speech: Option<&Speech>) -> Option<Shown<'a>> {
    let is_shown =
        |one: &&ToolReturn| speech.is_none_or(|speech| speech.tool != one.name || one.status == ToolStatus::Error);
    let mut shown = returns.iter().filter(is_shown);
    let first = shown.clone().next()?;
    let own = Own::Returns {
        tool_return: &first.text,
        status: first.status,
        tool_call_id: &first.call_id,
        stdout: first.stdout.as_deref(),
        stderr: first.stderr.as_deref(),
        tool_returns: shown.by_ref().map(shown_return).collect(),
    };
    let mut slice = head.slice(0, MessageType::ToolReturnMessage, own);
    slice.name = Some(&first.name);
    Some(slice)
}

fn shown_call(call: &ToolCall) -> ShownCall<'_> {
    ShownCall { name: &call.name, arguments: &call.arguments, tool_call_id: &call.id }
}

fn shown_return(tool_return: &ToolReturn) -> ShownReturn<'_> {
    ShownReturn {
        r#type: "tool",
        tool_return: tool_return.parts.as_deref().map_or(ShownContent::Text(&tool_return.text), shown_parts),
        status: tool_return.status,
        tool_call_id: &tool_return.call_id,
        stdout: tool_return.stdout.as_deref(),
        stderr: tool_return.stderr.as_deref(),
    }
}

/// The place of the slice that holds an answer's tool calls. It is fixed, since a stream shows the first call before it
/// knows how many other parts the answer will have, and lists must show the same identity.
pub const CALLS_PLACE: u8 = 0x7f;

/// The place of the slice that shows what a legacy agent says by a call, fixed for the same reason.
pub const SPEECH_PLACE: u8 = CALLS_PLACE - 1;

/// The place of a part of an answer; one with very many parts shares the last place.
#[must_use]
pub fn place(count: usize) -> u8 {
    u8::try_from(count).unwrap_or(u8::MAX).min(SPEECH_PLACE - 1)
}

/// The kind of event that shows a message of this type; `None` for types that occur only in lists.
#[must_use]
pub const fn event_kind(message_type: MessageType) -> Option<EventKind> {
    match message_type {
        MessageType::AssistantMessage => Some(EventKind::AssistantMessage),
        MessageType::ReasoningMessage => Some(EventKind::ReasoningMessage),
        MessageType::HiddenReasoningMessage => Some(EventKind::HiddenReasoningMessage),
        MessageType::ToolCallMessage => Some(EventKind::ToolCallMessage),
        MessageType::ToolReturnMessage => Some(EventKind::ToolReturnMessage),
        MessageType::ApprovalRequestMessage => Some(EventKind::ApprovalRequestMessage),
        MessageType::SummaryMessage => Some(EventKind::SummaryMessage),
        MessageType::EventMessage => Some(EventKind::EventMessage),
        MessageType::SystemMessage | MessageType::UserMessage | MessageType::ApprovalResponseMessage => None,
    }
}
