//! How values stand in columns, the same in both databases.

use std::borrow::Cow;

use chrono::DateTime;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::domain::Timestamp;
use crate::domain::message::{AnswerPart, Body};
use crate::domain::run::Speech;
use crate::ports::store::StoreError;

/// A moment as a column keeps it.
pub(super) fn micros(at: Timestamp) -> i64 {
    at.timestamp_micros()
}

/// The moment that a column keeps.
pub(super) fn moment(micros: i64) -> Result<Timestamp, StoreError> {
    DateTime::from_timestamp_micros(micros).ok_or_else(|| StoreError::Corrupt(format!("{micros} is not a time")))
}

/// A number as a column keeps it.
pub(super) fn signed(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| StoreError::Corrupt(format!("{number} does not fit a column")))
}

/// A number of things in memory, as the databases count.
pub(super) fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// A number that a column keeps and that is never negative.
pub(super) fn unsigned<N: TryFrom<i64>>(number: i64) -> Result<N, StoreError> {
    N::try_from(number).map_err(|_| StoreError::Corrupt(format!("{number} is out of its range")))
}

/// A document as a column keeps it. JSON escapes U+0000, so every text fits.
pub(super) fn document<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Corrupt(format!("a document cannot be written: {error}")))
}

/// The document that a column keeps.
pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Corrupt(format!("a document cannot be read: {error}")))
}

/// A word that stands for a value of a closed set.
pub(super) fn word<T>(text: &str, read: impl Fn(&str) -> Option<T>) -> Result<T, StoreError> {
    read(text).ok_or_else(|| StoreError::Corrupt(format!("'{text}' is not a known word")))
}

/// A text for a plain column: PostgreSQL's TEXT refuses U+0000, so it becomes the replacement character.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// A text for the search in any case. Lower case is made here, because the databases disagree beyond ASCII.
pub(super) fn folded(text: &str) -> String {
    plain(text).to_lowercase()
}

/// What of a message a search looks into: what was said, also by the call with which a legacy agent speaks, and what
/// tools answered, not the other calls.
pub(super) fn searchable(body: &Body) -> String {
    match body {
        Body::System(content) | Body::User(content) | Body::History(content) => folded(&content.text()),
        Body::Assistant(answer) | Body::ApprovalRequest(answer) => {
            let parts = answer.parts.iter().filter_map(|part| match part {
                AnswerPart::Text(text) | AnswerPart::Reasoning { text, .. } => Some(text.clone()),
                AnswerPart::HiddenReasoning { .. } => None,
            });
            let speech = Speech::usual();
            let said = answer.calls.iter().filter_map(|call| speech.said(call));
            folded(&parts.chain(said).collect::<Vec<_>>().join("\n"))
        }
        Body::ToolReturns(returns) => {
            folded(&returns.iter().map(|one| one.text.as_str()).collect::<Vec<_>>().join("\n"))
        }
        Body::Summary(summary) => folded(&summary.text),
        Body::ApprovalResponse(_) | Body::Note(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_keeps_its_microseconds() {
        let at = moment(1_700_000_000_123_456).expect("a time");
        assert_eq!(micros(at), 1_700_000_000_123_456);
    }

    #[test]
    fn plain_text_holds_no_character_that_a_database_refuses() {
        assert_eq!(plain("a\0b"), "a\u{fffd}b");
        assert_eq!(plain("ab"), "ab");
        assert_eq!(document(&"a\0b").expect("a document"), r#""a\u0000b""#);
    }
}
