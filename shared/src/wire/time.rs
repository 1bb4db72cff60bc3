//! The two spellings of a time (api/00 §3).

use chrono::SecondsFormat;
use serde::Serializer;

use crate::domain::Timestamp;

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
