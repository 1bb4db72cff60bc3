//! The two spellings of a time (api/00 §3).

use chrono::{Datelike as _, SecondsFormat};
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

/// Reads a time as clients write it: ISO 8601 with an offset, or without one, which is UTC then.
#[must_use]
pub fn parse(text: &str) -> Option<Timestamp> {
    let with_offset = chrono::DateTime::parse_from_rfc3339(text).map(|at| at.to_utc());
    let without = || chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").map(|at| at.and_utc());
    let day = || text.parse::<chrono::NaiveDate>().map(|day| day.and_time(chrono::NaiveTime::MIN).and_utc());
    let at = with_offset.or_else(|_| without()).or_else(|_| day()).ok()?;
    // Four digits: what is beyond could not be written as it is read.
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
