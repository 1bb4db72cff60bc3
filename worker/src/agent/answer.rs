//! Puts a model's deltas together: to the answer that is stored, and to the slices that a stream shows meanwhile. Both
//! come from the same state, so that lists show what streams showed.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_shared::domain::message::{Answer, AnswerPart, Body, MessageType, ReasoningSource};
use holdfast_shared::domain::model::ModelHandle;
use holdfast_shared::domain::run::{Speech, StreamMode};
use holdfast_shared::domain::tool::ToolCall;
use holdfast_shared::domain::usage::Usage;
use holdfast_shared::ports::model_client::ModelDelta;
use holdfast_shared::wire::message::{
    CALLS_PLACE, SPEECH_PLACE, Shown, SliceHead, call_delta, hidden_reasoning, place, reasoning, text,
};

use super::legacy::{self, Additions, ArgumentReader};

/// How an answer is taken and shown.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Names of the tools whose calls wait for the client.
    pub waiting: &'a BTreeSet<String>,
    /// Whether more than one call counts; otherwise the first is kept (api/05 §1).
    pub takes_many: bool,
    /// What was added to the tools, if the agent is of a legacy type (api/05 §9); by the tools' names.
    pub legacy: Option<&'a BTreeMap<String, Additions>>,
    /// The call by which a legacy agent speaks, if it is shown as speech.
    pub speech: Option<&'a Speech>,
}

impl View<'_> {
    fn waits(&self, name: &str) -> bool {
        self.waiting.contains(name)
    }

    fn is_speech(&self, name: &str) -> bool {
        self.speech.is_some_and(|speech| speech.tool == name)
    }

    fn without_thinking(&self, call: &ToolCall) -> ToolCall {
        match self.legacy.and_then(|additions| additions.get(&call.name)) {
            Some(additions) => additions.thinking_only().strip(call).call,
            None => call.clone(),
        }
    }
}

/// The two messages that an answer can become: what is shown under each.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    /// The assistant message.
    pub answer: SliceHead,
    /// The request whose calls wait for the client.
    pub request: SliceHead,
}

/// An answer in the making.
#[derive(Debug)]
pub struct Assembly<'a> {
    view: View<'a>,
    answer: Answer,
    /// For each call of a legacy agent: what is taken out of its arguments as they come.
    legacy_calls: Vec<LegacyCall>,
    end: Option<End>,
}

/// What the model says when it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Tokens.
    pub usage: Usage,
    /// Whether the output limit cut the answer.
    pub is_cut: bool,
}

#[derive(Debug)]
struct LegacyCall {
    thinking: Option<ArgumentReader>,
    speech: Option<ArgumentReader>,
}

/// What is stored of a finished answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Text, reasoning and the calls that need no answer; `None` if everything is in the request.
    pub answer: Option<Answer>,
    /// The calls that wait for the client, if any.
    pub request: Option<Answer>,
}

impl<'a> Assembly<'a> {
    /// An answer of which nothing has come yet.
    #[must_use]
    pub fn new(view: View<'a>, made_by: ModelHandle) -> Self {
        let answer = Answer { made_by: Some(made_by), ..Answer::default() };
        Self { view, answer, legacy_calls: Vec::new(), end: None }
    }

    /// Takes a delta in, and shows what a stream of tokens shows of it.
    pub fn take(&mut self, delta: &ModelDelta, heads: &Heads, show: &mut dyn FnMut(Shown<'_>)) {
        match delta {
            ModelDelta::Text(new) if !new.is_empty() => {
                self.add_text(new);
                show(heads.answer.slice(self.last_place(), MessageType::AssistantMessage, text(new)));
            }
            ModelDelta::Reasoning(new) if !new.is_empty() => {
                self.add_reasoning(new, ReasoningSource::Native);
                self.show_reasoning(new, ReasoningSource::Native, heads, show);
            }
            ModelDelta::Text(_) | ModelDelta::Reasoning(_) => {}
            ModelDelta::ReasoningSignature(new) => self.sign(new),
            ModelDelta::HiddenReasoning(data) => {
                self.answer.parts.push(AnswerPart::HiddenReasoning { data: data.clone() });
                let own = hidden_reasoning(data.as_deref());
                show(heads.answer.slice(self.last_place(), MessageType::HiddenReasoningMessage, own));
            }
            ModelDelta::CallStart { id, name } => self.start_call(id, name, heads, show),
            ModelDelta::CallArguments { id, fragment } => self.add_arguments(id, fragment, heads, show),
            ModelDelta::CallSignature { id, signature } => {
                if let Some(call) = self.answer.calls.iter_mut().find(|call| call.id == *id) {
                    call.signatures.push(signature.clone());
                }
            }
            ModelDelta::End { usage, is_cut } => {
                self.show_legacy_call(heads, show);
                self.end = Some(End { usage: *usage, is_cut: *is_cut });
            }
        }
    }

    fn last_place(&self) -> u8 {
        place(self.answer.parts.len().saturating_sub(1))
    }

    fn add_text(&mut self, new: &str) {
        match self.answer.parts.last_mut() {
            Some(AnswerPart::Text(text)) => text.push_str(new),
            _ => self.answer.parts.push(AnswerPart::Text(new.to_owned())),
        }
    }

    fn add_reasoning(&mut self, new: &str, from: ReasoningSource) {
        match self.answer.parts.last_mut() {
            // A signed piece is complete: what follows is another one.
            Some(AnswerPart::Reasoning { text, signature: None, source }) if *source == from => text.push_str(new),
            _ => {
                let part = AnswerPart::Reasoning { text: new.to_owned(), signature: None, source: from };
                self.answer.parts.push(part);
            }
        }
    }

    fn show_reasoning(&self, new: &str, from: ReasoningSource, heads: &Heads, show: &mut dyn FnMut(Shown<'_>)) {
        show(heads.answer.slice(self.last_place(), MessageType::ReasoningMessage, reasoning(new, None, from)));
    }

    /// A signature belongs to the last piece of reasoning that has none. Some providers sign a piece that they do not
    /// show: it is kept as a piece without text.
    fn sign(&mut self, new: &str) {
        match self.answer.parts.last_mut() {
            Some(AnswerPart::Reasoning { signature: signature @ None, source: ReasoningSource::Native, .. }) => {
                *signature = Some(new.to_owned());
            }
            _ => self.answer.parts.push(AnswerPart::Reasoning {
                text: String::new(),
                signature: Some(new.to_owned()),
                source: ReasoningSource::Native,
            }),
        }
    }

    fn start_call(&mut self, id: &str, name: &str, heads: &Heads, show: &mut dyn FnMut(Shown<'_>)) {
        if !self.view.takes_many && !self.answer.calls.is_empty() {
            tracing::info!(tool.name = name, "the model made more than the one call that it was asked for");
            return;
        }
        self.show_legacy_call(heads, show);
        self.answer.calls.push(ToolCall::new(id, name, ""));
        if let Some(additions) = self.view.legacy {
            let thinks = additions.get(name).is_some_and(|additions| additions.has_thinking());
            let speech = self.view.speech.filter(|speech| speech.tool == name);
            self.legacy_calls.push(LegacyCall {
                thinking: thinks.then(|| ArgumentReader::new(legacy::THINKING)),
                speech: speech.map(|speech| ArgumentReader::new(&speech.argument)),
            });
        }
        if self.view.legacy.is_none() {
            show(self.call_slice(name, call_delta(id, Some(name), None), heads));
        }
    }

    fn add_arguments(&mut self, id: &str, fragment: &str, heads: &Heads, show: &mut dyn FnMut(Shown<'_>)) {
        let Some(index) = self.answer.calls.iter().position(|call| call.id == id) else { return };
        self.answer.calls[index].arguments.push_str(fragment);
        let Some(legacy) = self.legacy_calls.get_mut(index) else {
            if !fragment.is_empty() {
                show(self.call_slice(&self.answer.calls[index].name, call_delta(id, None, Some(fragment)), heads));
            }
            return;
        };
        let thought = legacy.thinking.as_mut().map(|thinking| thinking.push(fragment)).unwrap_or_default();
        let spoken = legacy.speech.as_mut().map(|speech| speech.push(fragment)).unwrap_or_default();
        if !thought.is_empty() {
            self.add_reasoning(&thought, ReasoningSource::Prompted);
            self.show_reasoning(&thought, ReasoningSource::Prompted, heads, show);
        }
        if !spoken.is_empty() {
            show(heads.answer.slice(SPEECH_PLACE, MessageType::AssistantMessage, text(&spoken)));
        }
    }

    /// A legacy agent's last call, at once and without its thoughts, which are shown before it: only at the end is it
    /// known what its arguments are.
    fn show_legacy_call(&self, heads: &Heads, show: &mut dyn FnMut(Shown<'_>)) {
        let Some(call) = self.answer.calls.last().filter(|_| self.view.legacy.is_some()) else { return };
        if !self.view.is_speech(&call.name) {
            let arguments = self.view.without_thinking(call).arguments;
            show(self.call_slice(&call.name, call_delta(&call.id, Some(&call.name), None), heads));
            show(self.call_slice(&call.name, call_delta(&call.id, None, Some(&arguments)), heads));
        }
    }

    fn call_slice<'b>(&self, name: &str, own: holdfast_shared::wire::message::Own<'b>, heads: &Heads) -> Shown<'b> {
        if self.view.waits(name) {
            heads.request.slice(CALLS_PLACE, MessageType::ApprovalRequestMessage, own)
        } else {
            heads.answer.slice(CALLS_PLACE, MessageType::ToolCallMessage, own)
        }
    }

    /// Whether anything has come that a reader of tokens may have seen.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        !self.answer.is_empty()
    }

    /// The end, once it has come.
    #[must_use]
    pub const fn end(&self) -> Option<End> {
        self.end
    }

    /// The answer so far.
    #[must_use]
    pub fn into_answer(mut self) -> Answer {
        for call in &mut self.answer.calls {
            *call = self.view.without_thinking(call);
        }
        self.answer
    }
}

/// What is kept of an answer that a cancel cut: text that was shown, no calls (api/03 §4).
#[must_use]
pub fn partial(answer: &Answer) -> Answer {
    let parts = answer.parts.iter().filter(|part| matches!(part, AnswerPart::Text(_)));
    Answer { parts: parts.cloned().collect(), calls: Vec::new(), made_by: answer.made_by.clone() }
}

/// Divides an answer with calls that wait into the messages that are stored (api/05 §6). A stream of tokens shows text
/// and reasoning before anybody knows which calls follow, under the assistant message: there they stay.
#[must_use]
pub fn divide(answer: Answer, waits: impl Fn(&ToolCall) -> bool, mode: StreamMode) -> Stored {
    let Answer { parts, calls, made_by } = answer;
    let (waiting, free): (Vec<_>, Vec<_>) = calls.into_iter().partition(waits);
    if waiting.is_empty() {
        return Stored { answer: Some(Answer { parts, calls: free, made_by }), request: None };
    }
    let keeps_parts = !free.is_empty() || (mode == StreamMode::Tokens && !parts.is_empty());
    if !keeps_parts {
        return Stored { answer: None, request: Some(Answer { parts, calls: waiting, made_by }) };
    }
    let request = Answer { parts: Vec::new(), calls: waiting, made_by: made_by.clone() };
    Stored { answer: Some(Answer { parts, calls: free, made_by }), request: Some(request) }
}

impl Stored {
    /// The bodies of the messages, in their order.
    pub fn bodies(self) -> impl Iterator<Item = Body> {
        self.answer.map(Body::Assistant).into_iter().chain(self.request.map(Body::ApprovalRequest))
    }
}

#[cfg(test)]
mod tests {
    use holdfast_shared::domain::ids::{Id, MessageId};
    use holdfast_shared::domain::message::{Labels, Message};
    use holdfast_shared::domain::tool::ToolSpec;
    use holdfast_shared::wire::message::slices;
    use serde_json::Value;

    use super::*;

    const ANSWER: u128 = 0x6612_baae_74a3_460d_9bfb_4c94_1f64_cd2d;

    fn delta_start(id: &str, name: &str) -> ModelDelta {
        ModelDelta::CallStart { id: id.to_owned(), name: name.to_owned() }
    }

    fn delta_arguments(id: &str, fragment: &str) -> ModelDelta {
        ModelDelta::CallArguments { id: id.to_owned(), fragment: fragment.to_owned() }
    }

    fn deltas() -> Vec<ModelDelta> {
        vec![
            ModelDelta::Reasoning("I ".to_owned()),
            ModelDelta::Reasoning("think.".to_owned()),
            ModelDelta::ReasoningSignature("proof".to_owned()),
            ModelDelta::HiddenReasoning(Some("blob".to_owned())),
            ModelDelta::Text(String::new()),
            ModelDelta::Text("Let me ".to_owned()),
            ModelDelta::Text("look.".to_owned()),
            delta_start("a", "one"),
            delta_arguments("a", "{\"x\":"),
            delta_start("b", "two"),
            delta_arguments("a", "1}"),
            ModelDelta::CallSignature { id: "b".to_owned(), signature: "mark".to_owned() },
            ModelDelta::Text(" And more.".to_owned()),
            ModelDelta::End { usage: Usage::default(), is_cut: false },
        ]
    }

    fn head(uuid: u128) -> SliceHead {
        let message = MessageId::from_uuid(uuid::Uuid::from_u128(uuid));
        SliceHead { message, date: chrono::DateTime::UNIX_EPOCH, step: None, run: None }
    }

    fn heads() -> Heads {
        Heads { answer: head(ANSWER), request: head(ANSWER ^ 0x80) }
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    const fn view(waiting: &BTreeSet<String>) -> View<'_> {
        View { waiting, takes_many: true, legacy: None, speech: None }
    }

    /// The answer, and what was shown on the way.
    fn assemble(view: View<'_>, deltas: &[ModelDelta]) -> (Answer, Vec<Value>) {
        let mut assembly = Assembly::new(view, ModelHandle::demo());
        let mut shown = Vec::new();
        for delta in deltas {
            assembly.take(delta, &heads(), &mut |one| shown.push(serde_json::to_value(&one).expect("serializes")));
        }
        assert!(assembly.end().is_some());
        (assembly.into_answer(), shown)
    }

    fn identity(value: &Value) -> (String, String, String) {
        (value["message_type"].to_string(), value["id"].to_string(), value["otid"].to_string())
    }

    /// Identities of the slices in the order of their first appearance.
    fn identities(shown: &[Value]) -> Vec<(String, String, String)> {
        let mut seen = Vec::new();
        for value in shown {
            if !seen.contains(&identity(value)) {
                seen.push(identity(value));
            }
        }
        seen
    }

    fn listed(stored: Stored, speech: Option<&Speech>) -> Vec<Value> {
        let mut all = Vec::new();
        for body in stored.bodies() {
            let id = if matches!(body, Body::ApprovalRequest(_)) { heads().request } else { heads().answer };
            let message = Message {
                id: id.message,
                agent_id: holdfast_shared::domain::ids::AgentId::from_uuid(uuid::Uuid::from_u128(ANSWER)),
                run_id: None,
                step_id: None,
                body,
                labels: Labels::default(),
                created_at: chrono::DateTime::UNIX_EPOCH,
            };
            all.extend(slices(&message, speech).iter().map(|one| serde_json::to_value(one).expect("serializes")));
        }
        all
    }

    #[test]
    fn the_answer_is_what_the_deltas_say() {
        let (answer, _) = assemble(view(&BTreeSet::new()), &deltas());
        assert_eq!(
            answer.parts,
            [
                AnswerPart::Reasoning {
                    text: "I think.".to_owned(),
                    signature: Some("proof".to_owned()),
                    source: ReasoningSource::Native
                },
                AnswerPart::HiddenReasoning { data: Some("blob".to_owned()) },
                AnswerPart::Text("Let me look. And more.".to_owned()),
            ]
        );
        assert_eq!(answer.calls.iter().map(|call| call.arguments.as_str()).collect::<Vec<_>>(), ["{\"x\":1}", ""]);
        assert_eq!(answer.calls[1].signatures, ["mark"]);
        assert_eq!(answer.made_by, Some(ModelHandle::demo()));
    }

    #[test]
    fn lists_show_the_slices_that_streams_showed() {
        for waiting in [names(&[]), names(&["one"]), names(&["two"]), names(&["one", "two"])] {
            let (answer, shown) = assemble(view(&waiting), &deltas());
            let stored = divide(answer, |call| waiting.contains(&call.name), StreamMode::Tokens);
            let mut listed = identities(&listed(stored, None));
            let mut streamed = identities(&shown);
            // A stream shows calls in the order of the model, a list the free ones first.
            listed.sort();
            streamed.sort();
            assert_eq!(streamed, listed, "{waiting:?}");
        }
    }

    #[test]
    fn a_proof_of_reasoning_that_is_not_shown_is_kept_and_shown_nowhere() {
        let deltas = [
            ModelDelta::HiddenReasoning(None),
            ModelDelta::ReasoningSignature("proof".to_owned()),
            ModelDelta::Text("Yes.".to_owned()),
            ModelDelta::End { usage: Usage::default(), is_cut: false },
        ];
        let waiting = BTreeSet::new();
        let (answer, shown) = assemble(view(&waiting), &deltas);
        assert_eq!((answer.parts.len(), shown.len()), (3, 2));
        let listed = listed(divide(answer, |_| false, StreamMode::Tokens), None);
        assert_eq!(identities(&shown), identities(&listed));
    }

    #[test]
    fn calls_that_wait_are_stored_beside_those_that_do_not() {
        let (answer, _) = assemble(view(&BTreeSet::new()), &deltas());
        let (one, all) = (&["b"][..], &["a", "b"][..]);
        let cases = [
            ("one of two", one, StreamMode::Steps, Some((3, 1)), Some((0, 1))),
            ("one of two, tokens", one, StreamMode::Tokens, Some((3, 1)), Some((0, 1))),
            ("all", all, StreamMode::Steps, None, Some((3, 2))),
            ("all, tokens", all, StreamMode::Tokens, Some((3, 0)), Some((0, 2))),
        ];
        for (name, waits, mode, answered, asked) in cases {
            let sizes = |answer: Option<&Answer>| answer.map(|answer| (answer.parts.len(), answer.calls.len()));
            let stored = divide(answer.clone(), |call| waits.contains(&call.id.as_str()), mode);
            assert_eq!((sizes(stored.answer.as_ref()), sizes(stored.request.as_ref())), (answered, asked), "{name}");
        }
    }

    #[test]
    fn of_several_calls_the_first_is_kept_where_one_was_asked_for() {
        let waiting = BTreeSet::new();
        let (answer, shown) = assemble(View { takes_many: false, ..view(&waiting) }, &deltas());
        assert_eq!(answer.calls, [ToolCall::new("a", "one", "{\"x\":1}")]);
        assert!(shown.iter().all(|one| one["tool_call"]["tool_call_id"] != "b"));
    }

    #[test]
    fn a_legacy_agent_speaks_and_thinks_by_a_call() {
        let waiting = BTreeSet::new();
        let speech = Speech { tool: "send_message".to_owned(), argument: "message".to_owned() };
        let deltas = [
            delta_start("a", "send_message"),
            delta_arguments("a", "{\"thinking\": \"User sa"),
            delta_arguments("a", "id hi.\", \"message\": \"Hello "),
            delta_arguments("a", "there!\"}"),
            ModelDelta::End { usage: Usage::default(), is_cut: false },
        ];
        let spec = ToolSpec { name: "send_message".to_owned(), description: String::new(), parameters: Value::Null };
        let additions = BTreeMap::from([(spec.name.clone(), Additions::to(&spec, true, false))]);
        let view = View { legacy: Some(&additions), speech: Some(&speech), takes_many: false, ..view(&waiting) };
        let (answer, shown) = assemble(view, &deltas);
        assert_eq!(answer.calls[0].arguments, r#"{"message":"Hello there!"}"#);
        let text = |kind: &str, field: &str| -> String {
            let of_kind = shown.iter().filter(|one| one["message_type"] == kind);
            of_kind.filter_map(|one| one[field].as_str()).collect()
        };
        assert_eq!(text("reasoning_message", "reasoning"), "User said hi.");
        assert_eq!(text("assistant_message", "content"), "Hello there!");
        assert!(shown.iter().all(|one| one["message_type"] != "tool_call_message"));
        let listed = listed(divide(answer.clone(), |_| false, StreamMode::Tokens), Some(&speech));
        assert_eq!(identities(&shown), identities(&listed));
        assert_eq!(
            (&listed[0]["source"], &listed[1]["content"]),
            (&"non_reasoner_model".into(), &"Hello there!".into())
        );

        let plain = View { speech: None, ..view };
        let (_, shown) = assemble(plain, &deltas);
        let calls: Vec<_> = shown.iter().filter(|one| one["message_type"] == "tool_call_message").collect();
        assert_eq!(calls[1]["tool_call"]["arguments"], r#"{"message":"Hello there!"}"#);
    }
}
