//! The two spellings of a time (api/00 §3).

use chrono::{Datelike as _, NaiveDateTime, SecondsFormat};
use serde::Serializer;

use crate::domain::Timestamp;
use crate::wire::read::{BodyError, Node};

/// In events and messages: whole seconds and an explicit offset, `2026-01-15T10:00:00+00:00`.
#[must_use]
pub fn in_events(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, false)
}

/// Elsewhere: with a fraction and `Z`, `2026-01-15T10:00:00.000000Z`.
#[must_use]
pub fn elsewhere(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// A time that a client wrote: ISO 8601, in UTC where it says no offset, of a year that all clients can read again.
#[must_use]
pub fn parse(text: &str) -> Option<Timestamp> {
    let at = text.parse::<Timestamp>().or_else(|_| text.parse::<NaiveDateTime>().map(|local| local.and_utc())).ok()?;
    (1..=9999).contains(&at.year()).then_some(at)
}

/// The same of a field of a body.
///
/// # Errors
/// It is no time.
pub fn read(node: &Node<'_>) -> Result<Timestamp, BodyError> {
    parse(node.string()?).ok_or_else(|| node.malformed("must be a time in ISO 8601, such as 2026-01-15T10:00:00Z"))
}

/// [`in_events`] for `serialize_with`.
///
/// # Errors
/// Those of the serializer.
pub fn serialize_in_events<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&in_events(*at))
}

/// [`elsewhere`] for `serialize_with`.
///
/// # Errors
/// Those of the serializer.
pub fn serialize_elsewhere<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&elsewhere(*at))
}

/// [`elsewhere`] of an optional time for `serialize_with`.
///
/// # Errors
/// Those of the serializer.
pub fn serialize_elsewhere_or_null<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => serialize_elsewhere(at, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_may_leave_out_its_offset_but_not_the_rest() {
        let wanted = "2026-01-15T10:00:00.5Z".parse::<Timestamp>().ok();
        for text in ["2026-01-15T10:00:00.5Z", "2026-01-15T11:00:00.500+01:00", "2026-01-15T10:00:00.5"] {
            assert_eq!(parse(text), wanted, "{text}");
        }
        for text in ["", "2026-01-15", "10:00", "+12026-01-15T10:00:00Z", "0000-01-15T10:00:00Z"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
