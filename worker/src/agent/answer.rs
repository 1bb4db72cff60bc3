//! Puts a model's deltas together: to the answer that is stored, and to the slices that a stream shows meanwhile. Both
//! come from the same state, so that lists show what streams showed.

use holdfast_shared::domain::message::{Answer, AnswerPart, MessageType, ReasoningSource};
use holdfast_shared::domain::tool::ToolCall;
use holdfast_shared::domain::usage::Usage;
use holdfast_shared::ports::model_client::ModelDelta;
use holdfast_shared::wire::message::{
    CALLS_PLACE, Shown, SliceHead, call_delta, hidden_reasoning, place, reasoning, text,
};

/// An answer in the making.
#[derive(Debug, Default)]
pub struct Assembly {
    answer: Answer,
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

impl Assembly {
    /// Takes a delta in.
    pub fn add(&mut self, delta: &ModelDelta) {
        match delta {
            ModelDelta::Text(new) if !new.is_empty() => match self.answer.parts.last_mut() {
                Some(AnswerPart::Text(text)) => text.push_str(new),
                _ => self.answer.parts.push(AnswerPart::Text(new.clone())),
            },
            ModelDelta::Reasoning(new) if !new.is_empty() => match self.answer.parts.last_mut() {
                Some(AnswerPart::Reasoning { text, .. }) => text.push_str(new),
                _ => self.answer.parts.push(AnswerPart::Reasoning {
                    text: new.clone(),
                    signature: None,
                    source: ReasoningSource::Native,
                }),
            },
            ModelDelta::Text(_) | ModelDelta::Reasoning(_) => {}
            ModelDelta::ReasoningSignature(new) => {
                let last = self.answer.parts.iter_mut().rev();
                for part in last {
                    if let AnswerPart::Reasoning { signature, .. } = part {
                        *signature = Some(new.clone());
                        break;
                    }
                }
            }
            ModelDelta::HiddenReasoning(data) => {
                self.answer.parts.push(AnswerPart::HiddenReasoning { data: data.clone() });
            }
            ModelDelta::CallSignature { id, signature } => {
                if let Some(call) = self.answer.calls.iter_mut().find(|call| call.id == *id) {
                    call.signatures.push(signature.clone());
                }
            }
            ModelDelta::CallStart { id, name } => {
                self.answer.calls.push(ToolCall::new(id.clone(), name.clone(), String::new()));
            }
            ModelDelta::CallArguments { id, fragment } => {
                if let Some(call) = self.answer.calls.iter_mut().find(|call| call.id == *id) {
                    call.arguments.push_str(fragment);
                }
            }
            ModelDelta::End { usage, is_cut } => self.end = Some(End { usage: *usage, is_cut: *is_cut }),
        }
    }

    /// How a stream of tokens shows a delta that was just added; `None` if it shows nothing.
    #[must_use]
    pub fn shown<'a>(&self, head: &SliceHead, delta: &'a ModelDelta) -> Option<Shown<'a>> {
        let index = place(self.answer.parts.len().saturating_sub(1));
        match delta {
            ModelDelta::Text(new) if !new.is_empty() => {
                Some(head.slice(index, MessageType::AssistantMessage, text(new)))
            }
            ModelDelta::Reasoning(new) if !new.is_empty() => {
                Some(head.slice(index, MessageType::ReasoningMessage, reasoning(new, None, ReasoningSource::Native)))
            }
            ModelDelta::HiddenReasoning(data) => {
                Some(head.slice(index, MessageType::HiddenReasoningMessage, hidden_reasoning(data.as_deref())))
            }
            ModelDelta::CallStart { id, name } => {
                Some(head.slice(CALLS_PLACE, MessageType::ToolCallMessage, call_delta(id, Some(name), None)))
            }
            ModelDelta::CallArguments { id, fragment } if !fragment.is_empty() => {
                Some(head.slice(CALLS_PLACE, MessageType::ToolCallMessage, call_delta(id, None, Some(fragment))))
            }
            _ => None,
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
    pub fn into_answer(self) -> Answer {
        self.answer
    }

    /// What is kept of an answer that a cancel cut: text that was shown, no calls (api/03 §4).
    #[must_use]
    pub fn into_partial(self) -> Answer {
        let parts = self.answer.parts.into_iter().filter(|part| matches!(part, AnswerPart::Text(_)));
        Answer { parts: parts.collect(), calls: Vec::new(), made_by: None }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_shared::domain::ids::{Id, MessageId};
    use holdfast_shared::wire::message::answer_slices;

    use super::*;

    fn deltas() -> Vec<ModelDelta> {
        vec![
            ModelDelta::Reasoning("I ".to_owned()),
            ModelDelta::Reasoning("think.".to_owned()),
            ModelDelta::ReasoningSignature("proof".to_owned()),
            ModelDelta::Text(String::new()),
            ModelDelta::Text("Let me ".to_owned()),
            ModelDelta::Text("look.".to_owned()),
            ModelDelta::CallStart { id: "a".to_owned(), name: "one".to_owned() },
            ModelDelta::CallArguments { id: "a".to_owned(), fragment: "{\"x\":".to_owned() },
            ModelDelta::CallStart { id: "b".to_owned(), name: "two".to_owned() },
            ModelDelta::CallArguments { id: "a".to_owned(), fragment: "1}".to_owned() },
            ModelDelta::Text(" And more.".to_owned()),
            ModelDelta::End { usage: Usage::default(), is_cut: false },
        ]
    }

    fn head() -> SliceHead {
        let uuid = uuid::Uuid::from_u128(0x6612_baae_74a3_460d_9bfb_4c94_1f64_cd2d);
        SliceHead { message: MessageId::from_uuid(uuid), date: chrono::DateTime::UNIX_EPOCH, step: None, run: None }
    }

    #[test]
    fn the_answer_is_what_the_deltas_say() {
        let mut assembly = Assembly::default();
        deltas().iter().for_each(|delta| assembly.add(delta));
        assert!(assembly.end().is_some());
        let answer = assembly.into_answer();
        assert_eq!(
            answer.parts,
            [
                AnswerPart::Reasoning {
                    text: "I think.".to_owned(),
                    signature: Some("proof".to_owned()),
                    source: ReasoningSource::Native
                },
                AnswerPart::Text("Let me look. And more.".to_owned()),
            ]
        );
        assert_eq!(answer.calls.iter().map(|call| call.arguments.as_str()).collect::<Vec<_>>(), ["{\"x\":1}", ""]);
    }

    #[test]
    fn lists_show_the_slices_that_streams_showed() {
        let (head, deltas) = (head(), deltas());
        let mut assembly = Assembly::default();
        let mut streamed: Vec<(String, String)> = Vec::new();
        for delta in &deltas {
            assembly.add(delta);
            if let Some(shown) = assembly.shown(&head, delta) {
                let value = serde_json::to_value(&shown).expect("serializes");
                let key = (value["message_type"].to_string(), value["otid"].to_string());
                if !streamed.contains(&key) {
                    streamed.push(key);
                }
            }
        }
        let answer = assembly.into_answer();
        let listed: Vec<_> = answer_slices(&head, &answer)
            .iter()
            .map(|shown| serde_json::to_value(shown).expect("serializes"))
            .map(|value| (value["message_type"].to_string(), value["otid"].to_string()))
            .collect();
        assert_eq!(streamed, listed);
    }
}
