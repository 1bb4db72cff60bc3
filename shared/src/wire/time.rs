//! The two spellings of a time in answers (api/00 §3), and the many in requests.

use chrono::{DateTime, Datelike as _, Duration, NaiveDate, NaiveDateTime, SecondsFormat};
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

/// Which end of a span a date marks; both belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// The first moment of what is written.
    Start,
    /// The first moment after what is written.
    End,
}

/// A day, a minute, a second or a fraction of it, in ISO 8601; `None` if it cannot be read. Without an offset it is in UTC:
/// no time zone data is at hand here.
#[must_use]
pub fn moment(text: &str, bound: Bound) -> Option<Timestamp> {
    let text = text.trim();
    let (start, length) = if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        (date.and_hms_opt(0, 0, 0)?.and_utc(), Duration::days(1))
    } else if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        (time.to_utc(), precision(text))
    } else {
        let with = |format: &str| NaiveDateTime::parse_from_str(&text.replacen(' ', "T", 1), format).ok();
        let minutes = with("%Y-%m-%dT%H:%M").map(|time| (time.and_utc(), Duration::minutes(1)));
        minutes.or_else(|| with("%Y-%m-%dT%H:%M:%S%.f").map(|time| (time.and_utc(), precision(text))))?
    };
    match bound {
        Bound::Start => Some(start),
        Bound::End => start.checked_add_signed(length),
    }
}

/// How long the moment is that a time of day with seconds names. Times are kept in microseconds.
fn precision(text: &str) -> Duration {
    if text.contains('.') { Duration::microseconds(1) } else { Duration::seconds(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_names_a_span_with_both_ends() {
        for (text, start, end) in [
            ("2026-03-01", "2026-03-01T00:00:00.000000Z", "2026-03-02T00:00:00.000000Z"),
            ("2026-03-01T10:30", "2026-03-01T10:30:00.000000Z", "2026-03-01T10:31:00.000000Z"),
            ("2026-03-01 10:30:05", "2026-03-01T10:30:05.000000Z", "2026-03-01T10:30:06.000000Z"),
            ("2026-03-01T10:30:05+02:00", "2026-03-01T08:30:05.000000Z", "2026-03-01T08:30:06.000000Z"),
            ("2026-03-01T10:30:05.25", "2026-03-01T10:30:05.250000Z", "2026-03-01T10:30:05.250001Z"),
            ("2026-03-01T10:30:05.000007Z", "2026-03-01T10:30:05.000007Z", "2026-03-01T10:30:05.000008Z"),
        ] {
            let told = [Bound::Start, Bound::End].map(|bound| moment(text, bound).map(elsewhere));
            assert_eq!(told, [Some(start.to_owned()), Some(end.to_owned())], "{text}");
        }
        for text in ["", "yesterday", "2026-13-01", "2026-03-01T25:00:00Z", "+999999-01-01"] {
            assert_eq!(moment(text, Bound::Start), None, "{text}");
        }
        assert_eq!(moment("+262142-12-31", Bound::End), None, "there is nothing after the last day");
    }

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
