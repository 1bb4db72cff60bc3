//! What a model shall answer, in words that belong to no provider.

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::gate::Gate;

/// Characters of a fragment of a call's arguments.
const FRAGMENT: usize = 9;

/// One answer of a model: gates and pieces, then an end.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Where the server waits before it says anything.
    pub hold: Option<Gate>,
    /// What it says then.
    pub reply: Reply,
}

/// What is answered.
#[derive(Debug, Clone)]
pub enum Reply {
    /// A stream.
    Stream(Told),
    /// A status that is no success.
    Refusal(Failure),
    /// Nothing: the connection is closed.
    HangUp,
}

/// A streamed answer.
#[derive(Debug, Clone)]
pub struct Told {
    /// What comes, in order.
    pub pieces: Vec<Piece>,
    /// How it ends.
    pub end: End,
    /// What it is said to have cost.
    pub usage: Usage,
}

/// A piece of a streamed answer.
#[derive(Debug, Clone)]
pub enum Piece {
    /// Reasoning that the provider shows, in fragments, and its proof.
    Reasoning(Vec<String>, Option<String>),
    /// Reasoning that the provider hides: what it wants back instead.
    Redacted(String),
    /// A text, in fragments.
    Text(Vec<String>),
    /// A tool call.
    Call {
        /// The id; a provider that gives none leaves it out.
        id: String,
        /// The tool.
        name: String,
        /// JSON text in fragments.
        arguments: Vec<String>,
    },
    /// Nothing, until the gate is open.
    Wait(Gate),
}

/// How a streamed answer ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// As it should; the provider's word follows from the pieces.
    Finish,
    /// At the limit of output tokens.
    Cut,
    /// The connection breaks.
    HangUp,
    /// The body ends, as HTTP wants it, but without the provider's last words.
    CloseEarly,
    /// With the provider's error object.
    Error(Failure),
}

/// What goes wrong at a provider; each says it in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Too many requests, and how many seconds to wait.
    RateLimit(Option<u32>),
    /// No capacity.
    Overload,
    /// The key is refused.
    Unauthorized,
    /// The request is refused, with these words.
    Invalid(String),
    /// The context is too long.
    ContextOverflow,
    /// A defect.
    Internal,
}

/// Tokens. The prompt includes what was cached and what was written to the cache, the completion includes reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Of the request.
    pub prompt: u64,
    /// Of the answer.
    pub completion: u64,
    /// Read from the provider's cache, if it says so.
    pub cached: Option<u64>,
    /// Written to the provider's cache, if it says so.
    pub cache_write: Option<u64>,
    /// Spent on reasoning, if it says so.
    pub reasoning: Option<u64>,
}

impl Default for Usage {
    fn default() -> Self {
        Self { prompt: 120, completion: 15, cached: None, cache_write: None, reasoning: None }
    }
}

impl Answer {
    /// An answer that says nothing and ends well: to be filled.
    pub fn new() -> Self {
        let told = Told { pieces: Vec::new(), end: End::Finish, usage: Usage::default() };
        Self { hold: None, reply: Reply::Stream(told) }
    }

    /// A text in two fragments.
    pub fn text(text: &str) -> Self {
        let middle = text.char_indices().nth(text.chars().count() / 2).map_or(0, |(at, _)| at);
        Self::new().says(&[&text[..middle], &text[middle..]])
    }

    /// One call.
    pub fn call(name: &str, arguments: &Value) -> Self {
        Self::new().calls(name, arguments)
    }

    /// A status that is no success.
    pub fn refused(failure: Failure) -> Self {
        Self { hold: None, reply: Reply::Refusal(failure) }
    }

    /// A connection that is closed without a word.
    pub fn hang_up() -> Self {
        Self { hold: None, reply: Reply::HangUp }
    }

    /// Waits at a gate before the first byte.
    pub fn held(self, gate: &Gate) -> Self {
        Self { hold: Some(gate.clone()), ..self }
    }

    /// Then shows reasoning.
    pub fn reasons(self, fragments: &[&str], signature: Option<&str>) -> Self {
        self.piece(Piece::Reasoning(owned(fragments), signature.map(str::to_owned)))
    }

    /// Then has reasoned in secret.
    pub fn hides(self, data: &str) -> Self {
        self.piece(Piece::Redacted(data.to_owned()))
    }

    /// Then says a text.
    pub fn says(self, fragments: &[&str]) -> Self {
        self.piece(Piece::Text(owned(fragments)))
    }

    /// Then calls a tool, under a new id.
    pub fn calls(self, name: &str, arguments: &Value) -> Self {
        self.calls_raw(name, &arguments.to_string())
    }

    /// Then calls a tool with arguments that may be anything.
    pub fn calls_raw(self, name: &str, arguments: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("call_s{:07}", NEXT.fetch_add(1, Ordering::Relaxed));
        let characters: Vec<char> = arguments.chars().collect();
        let arguments = characters.chunks(FRAGMENT).map(|fragment| fragment.iter().collect()).collect();
        self.piece(Piece::Call { id, name: name.to_owned(), arguments })
    }

    /// Then waits at a gate.
    pub fn waits(self, gate: &Gate) -> Self {
        self.piece(Piece::Wait(gate.clone()))
    }

    /// Then falls silent for ever.
    pub fn stalls(self) -> Self {
        self.waits(&Gate::shut())
    }

    /// Ends in another way than well.
    pub fn ends(mut self, end: End) -> Self {
        self.told().end = end;
        self
    }

    /// Is said to have cost this.
    pub fn costs(mut self, usage: Usage) -> Self {
        self.told().usage = usage;
        self
    }

    fn piece(mut self, piece: Piece) -> Self {
        self.told().pieces.push(piece);
        self
    }

    fn told(&mut self) -> &mut Told {
        match &mut self.reply {
            Reply::Stream(told) => told,
            other => panic!("{other:?} says nothing"),
        }
    }
}

impl Told {
    /// Whether it calls a tool.
    pub fn has_calls(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Call { .. }))
    }
}

fn owned(fragments: &[&str]) -> Vec<String> {
    fragments.iter().map(|fragment| (*fragment).to_owned()).collect()
}
