//! What a model was asked, in words that belong to no provider: one scenario asserts on all of them.

use serde_json::Value;

/// A request of a model.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Asked {
    /// The model's name.
    pub model: String,
    /// The system message.
    pub system: String,
    /// The conversation. Consecutive turns of one side are one.
    pub turns: Vec<Turn>,
    /// The tools offered.
    pub tools: Vec<Offer>,
    /// Whether one must be called.
    pub choice: Choice,
    /// Whether several may be called at once, where the request says it.
    pub parallel: Option<bool>,
    /// Most tokens of the answer, where the request says it.
    pub max_output_tokens: Option<u64>,
    /// Whether reasoning is to be shown.
    pub wants_reasoning: bool,
    /// Whether the answer shall be a stream, and one that tells its usage.
    pub wants_stream: bool,
    /// What the provider's API does not have.
    pub oddities: Vec<String>,
}

/// A tool that is offered.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// Its name.
    pub name: String,
    /// What it is said to be for.
    pub description: String,
    /// JSON Schema of its arguments.
    pub parameters: Value,
}

/// Whether a tool must be called.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Choice {
    /// As the model likes.
    #[default]
    Auto,
    /// None.
    Never,
    /// One of those offered.
    Required,
    /// This one.
    Named(String),
}

/// A turn of the conversation.
#[derive(Debug, Clone, PartialEq)]
pub enum Turn {
    /// Instructions in mid-conversation.
    System(String),
    /// Input: a text and images (`data:` URLs).
    User {
        /// The texts, with a line break between.
        text: String,
        /// The images.
        images: Vec<String>,
    },
    /// An earlier answer.
    Assistant(Earlier),
    /// Results of its calls.
    Results(Vec<Returned>),
}

/// An earlier answer of the model.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Earlier {
    /// The texts, joined.
    pub text: String,
    /// Reasoning that comes back: its text and its proof.
    pub reasoning: Vec<(String, Option<String>)>,
    /// Hidden reasoning that comes back.
    pub redacted: Vec<String>,
    /// The calls.
    pub calls: Vec<Called>,
}

/// An earlier call.
#[derive(Debug, Clone, PartialEq)]
pub struct Called {
    /// Its id, where the provider has ids.
    pub id: Option<String>,
    /// The tool.
    pub name: String,
    /// The arguments.
    pub arguments: Value,
    /// A proof that belongs to the call.
    pub signature: Option<String>,
}

/// A result.
#[derive(Debug, Clone, PartialEq)]
pub struct Returned {
    /// The call's id, where the provider has ids.
    pub id: Option<String>,
    /// The tool, where the provider wants its name.
    pub name: Option<String>,
    /// The text that the model reads.
    pub text: String,
    /// Images (`data:` URLs).
    pub images: Vec<String>,
}

impl Asked {
    /// Adds a piece of the assistant's side.
    pub fn assistant(&mut self, add: impl FnOnce(&mut Earlier)) {
        if !matches!(self.turns.last(), Some(Turn::Assistant(_))) {
            self.turns.push(Turn::Assistant(Earlier::default()));
        }
        if let Some(Turn::Assistant(earlier)) = self.turns.last_mut() {
            add(earlier);
        }
    }

    /// Adds a result.
    pub fn result(&mut self, result: Returned) {
        match self.turns.last_mut() {
            Some(Turn::Results(results)) => results.push(result),
            _ => self.turns.push(Turn::Results(vec![result])),
        }
    }

    /// Adds input.
    pub fn user(&mut self, text: &str, images: Vec<String>) {
        self.turns.push(Turn::User { text: text.to_owned(), images });
    }

    /// Names of the tools offered.
    pub fn tool_names(&self) -> Vec<&str> {
        self.tools.iter().map(|tool| tool.name.as_str()).collect()
    }

    /// The results of the last turn, which must be one of results.
    pub fn last_results(&self) -> &[Returned] {
        match self.turns.last() {
            Some(Turn::Results(results)) => results,
            other => panic!("the last turn has no results: {other:?}"),
        }
    }

    /// The last answer that comes back.
    pub fn last_answer(&self) -> &Earlier {
        let answers = self.turns.iter().rev().filter_map(|turn| match turn {
            Turn::Assistant(earlier) => Some(earlier),
            _ => None,
        });
        answers.into_iter().next().expect("an earlier answer")
    }

    /// Why every provider would refuse the request, if so: all hold these rules.
    pub fn complaint(&self) -> Option<String> {
        if let Some(odd) = self.oddities.first() {
            return Some(odd.clone());
        }
        if !self.wants_stream {
            return Some("the answer shall not be a stream that tells its usage".to_owned());
        }
        let first = self.turns.iter().find(|turn| !matches!(turn, Turn::System(_)));
        if !matches!(first, Some(Turn::User { .. })) {
            return Some("the conversation does not begin with an input".to_owned());
        }
        if matches!(self.turns.last(), Some(Turn::Assistant(_) | Turn::System(_))) {
            return Some("the conversation ends with an answer".to_owned());
        }
        self.unanswered().or_else(|| self.bad_offer())
    }

    fn unanswered(&self) -> Option<String> {
        for (place, turn) in self.turns.iter().enumerate() {
            let before = place.checked_sub(1).and_then(|before| self.turns.get(before));
            match turn {
                Turn::Results(results) => {
                    let Some(Turn::Assistant(earlier)) = before else {
                        return Some(format!("results without calls: {results:?}"));
                    };
                    if !answers(results, &earlier.calls) {
                        return Some(format!("{results:?} do not answer {:?}", earlier.calls));
                    }
                }
                Turn::Assistant(earlier) if !earlier.calls.is_empty() && !self.has_results_at(place + 1) => {
                    return Some(format!("calls without results: {:?}", earlier.calls));
                }
                _ => {}
            }
        }
        None
    }

    fn has_results_at(&self, place: usize) -> bool {
        matches!(self.turns.get(place), Some(Turn::Results(_)))
    }

    fn bad_offer(&self) -> Option<String> {
        let names = self.tool_names();
        for (place, tool) in self.tools.iter().enumerate() {
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
            if tool.name.is_empty() || tool.name.len() > 64 || !tool.name.bytes().all(is_name) {
                return Some(format!("{:?} is no name of a tool", tool.name));
            }
            if names[..place].contains(&names[place]) {
                return Some(format!("{} is offered twice", tool.name));
            }
            if tool.parameters["type"] != "object" {
                return Some(format!("the parameters of {} are no object: {}", tool.name, tool.parameters));
            }
        }
        match &self.choice {
            Choice::Required if names.is_empty() => Some("a tool is required, and none is offered".to_owned()),
            Choice::Named(name) if !names.contains(&name.as_str()) => Some(format!("{name} is not offered")),
            _ => None,
        }
    }
}

/// Whether results answer exactly these calls: by id where there are ids, else by name and in order.
fn answers(results: &[Returned], calls: &[Called]) -> bool {
    let has_ids = calls.iter().all(|call| call.id.is_some());
    if has_ids {
        let mut wanted: Vec<_> = calls.iter().map(|call| &call.id).collect();
        let mut given: Vec<_> = results.iter().map(|result| &result.id).collect();
        wanted.sort();
        given.sort();
        wanted.windows(2).all(|pair| pair[0] != pair[1]) && wanted == given
    } else {
        let wanted = calls.iter().map(|call| Some(&call.name));
        wanted.eq(results.iter().map(|result| result.name.as_ref()))
    }
}

/// A text of a JSON object, or an empty one.
pub fn text<'a>(json: &'a Value, name: &str) -> &'a str {
    json[name].as_str().unwrap_or_default()
}

/// The items of a list, or none.
pub fn items(json: &Value) -> impl Iterator<Item = &Value> {
    json.as_array().into_iter().flatten()
}

/// Arguments as JSON; a text that is none stays a text.
pub fn arguments(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}
