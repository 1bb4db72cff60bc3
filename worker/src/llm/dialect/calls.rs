//! The tool calls of an answer as they come, in fragments.

use std::collections::VecDeque;

use holdfast_shared::ports::model_client::ModelDelta;

/// The calls of one answer.
#[derive(Default)]
pub(super) struct Calls(Vec<CallSoFar>);

/// A call that has begun.
struct CallSoFar {
    /// The id that it is given out with.
    id: String,
    /// What was given out of its arguments.
    arguments: String,
}

impl Calls {
    /// A new call; its place among the answer's calls. The provider's id is kept where it gave a usable one.
    pub(super) fn begin(&mut self, given: Option<&str>, name: &str, deltas: &mut VecDeque<ModelDelta>) -> usize {
        let is_usable = |id: &&str| !id.is_empty() && !is_place(id) && self.0.iter().all(|call| call.id != *id);
        let id = given.filter(is_usable).map_or_else(new_call_id, str::to_owned);
        deltas.push_back(ModelDelta::CallStart { id: id.clone(), name: name.to_owned() });
        self.0.push(CallSoFar { id, arguments: String::new() });
        self.0.len() - 1
    }

    /// A new piece of a call's arguments.
    pub(super) fn more(&mut self, place: usize, fragment: &str, deltas: &mut VecDeque<ModelDelta>) {
        let Some(call) = self.0.get_mut(place).filter(|_| !fragment.is_empty()) else { return };
        call.arguments.push_str(fragment);
        deltas.push_back(ModelDelta::CallArguments { id: call.id.clone(), fragment: fragment.to_owned() });
    }

    /// All of a call's arguments: what was not given out yet is given out.
    pub(super) fn whole(&mut self, place: usize, arguments: &str, deltas: &mut VecDeque<ModelDelta>) {
        let Some(call) = self.0.get(place) else { return };
        if let Some(rest) = arguments.strip_prefix(&call.arguments) {
            let rest = rest.to_owned();
            self.more(place, &rest, deltas);
        }
    }

    /// The proof that goes with a call.
    pub(super) fn signature(&self, place: usize, signature: &str, deltas: &mut VecDeque<ModelDelta>) {
        let Some(call) = self.0.get(place) else { return };
        deltas.push_back(ModelDelta::CallSignature { id: call.id.clone(), signature: signature.to_owned() });
    }

    /// The answer is complete: a call without arguments has none.
    pub(super) fn finish(&mut self, deltas: &mut VecDeque<ModelDelta>) {
        for place in 0..self.0.len() {
            if self.0[place].arguments.is_empty() {
                self.more(place, "{}", deltas);
            }
        }
    }
}

/// Whether an id is only the place of the call in its answer: the next answer would have the same ids.
fn is_place(id: &str) -> bool {
    let digits = id.strip_prefix("call_").unwrap_or(id);
    digits.len() < 4 && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// An id for a call that came without one.
fn new_call_id() -> String {
    let id = uuid::Uuid::new_v4().simple().to_string();
    format!("call_{}", &id[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_kept_where_they_tell_calls_apart() {
        let mut calls = Calls::default();
        let mut deltas = VecDeque::new();
        for given in [Some("toolu_1"), Some("toolu_1"), Some("call_0"), Some("7"), Some(""), None] {
            calls.begin(given, "add", &mut deltas);
        }
        let ids: Vec<String> = calls.0.iter().map(|call| call.id.clone()).collect();
        assert_eq!(ids[0], "toolu_1");
        for (place, id) in ids.iter().enumerate().skip(1) {
            assert!(id.len() == 13 && id.starts_with("call_"), "{id}");
            assert!(!ids[..place].contains(id), "{ids:?}");
        }
    }
}
