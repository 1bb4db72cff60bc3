//! Consecutive events as one run of bytes: for each one byte for its kind, four for its length (big endian), the frame.
//! Archive rows, the embedded log and live pushes have this form. Numbers are not written: it begins at a known one.

use bytes::Bytes;

use super::event::{Event, EventKind};
use super::position::SeqId;

/// Bytes before each frame.
pub const HEADER: usize = 1 + size_of::<u32>();

/// Bytes that cannot be read as events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("events from {first} on cannot be read: {problem}")]
pub struct Damaged {
    /// Where they begin.
    pub first: SeqId,
    /// What is wrong.
    pub problem: &'static str,
}

/// Appends an event. A frame of more than 4 GiB does not exist: limits cut it long before.
pub fn push(bytes: &mut Vec<u8>, event: &Event) {
    let length = u32::try_from(event.frame.len()).unwrap_or(u32::MAX);
    bytes.reserve(HEADER + event.frame.len());
    bytes.push(event.kind.code());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&event.frame);
}

/// Reads events that begin at `first`. Their frames are slices of the one buffer.
///
/// # Errors
/// The bytes are not such events.
pub fn decode(first: SeqId, bytes: Bytes) -> Result<Vec<Event>, Damaged> {
    let damaged = |problem| Damaged { first, problem };
    let mut rest = bytes;
    let mut events = Vec::new();
    let mut seq = first;
    while !rest.is_empty() {
        if rest.len() < HEADER {
            return Err(damaged("cut in a header"));
        }
        let header = rest.split_to(HEADER);
        let kind = EventKind::from_code(header[0]).ok_or_else(|| damaged("an unknown kind of event"))?;
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
        if rest.len() < length {
            return Err(damaged("cut in a frame"));
        }
        let frame = rest.split_to(length);
        events.push(Event { seq, kind, frame });
        seq = seq.next();
    }
    Ok(events)
}
