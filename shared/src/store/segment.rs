//! The stored form of archived events: for each one byte for its kind, four for its length (big endian), the frame.
//!
//! The number of an event is not written: a segment begins at a known number and has no gaps.

use bytes::Bytes;

use crate::domain::event::{Event, EventKind};
use crate::domain::limits::APPEND_BATCH_BYTES;
use crate::domain::position::SeqId;
use crate::ports::store::StoreError;

/// Bytes before each frame.
const HEADER: usize = 1 + size_of::<u32>();

/// Events that are to be one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// Number of its first event.
    pub(super) first: SeqId,
    /// Number of its last event.
    pub(super) last: SeqId,
    /// The encoded events.
    pub(super) frames: Vec<u8>,
}

/// Cuts events into segments, each within the limit unless a single event is larger. Events up to `archived` are left
/// out: they are stored already, and a repeated write after a lost answer is no error.
pub(super) fn segments(archived: SeqId, events: &[Event]) -> Result<Vec<Segment>, StoreError> {
    let mut segments: Vec<Segment> = Vec::new();
    let mut tail = archived;
    let mut last_given = None;
    for event in events {
        if last_given.is_some_and(|last: SeqId| event.seq != last.next()) {
            return Err(StoreError::Corrupt(format!("event {} does not follow the one before it", event.seq)));
        }
        last_given = Some(event.seq);
        if event.seq <= archived {
            continue;
        }
        if event.seq != tail.next() {
            return Err(StoreError::Corrupt(format!("event {} does not follow the archive's last, {tail}", event.seq)));
        }
        tail = event.seq;
        let length = HEADER + event.frame.len();
        match segments.last_mut() {
            Some(open) if open.frames.len() + length <= APPEND_BATCH_BYTES => open.push(event)?,
            _ => {
                let mut fresh = Segment { first: event.seq, last: event.seq, frames: Vec::with_capacity(length) };
                fresh.push(event)?;
                segments.push(fresh);
            }
        }
    }
    Ok(segments)
}

impl Segment {
    fn push(&mut self, event: &Event) -> Result<(), StoreError> {
        let length = u32::try_from(event.frame.len())
            .map_err(|_| StoreError::Corrupt(format!("event {} has more than 4 GiB", event.seq)))?;
        self.frames.push(event.kind.code());
        self.frames.extend_from_slice(&length.to_be_bytes());
        self.frames.extend_from_slice(&event.frame);
        self.last = event.seq;
        Ok(())
    }
}

/// Reads a segment's events after a cursor. Their frames are slices of the one buffer.
pub(super) fn decode(first: SeqId, last: SeqId, frames: Bytes, after: SeqId) -> Result<Vec<Event>, StoreError> {
    let damaged = |what: &str| StoreError::Corrupt(format!("segment {first}..{last} of the archive {what}"));
    let mut rest = frames;
    let mut events = Vec::new();
    let mut seq = first;
    while !rest.is_empty() {
        if rest.len() < HEADER {
            return Err(damaged("is cut in a header"));
        }
        let header = rest.split_to(HEADER);
        let kind = EventKind::from_code(header[0]).ok_or_else(|| damaged("has an unknown kind of event"))?;
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
        if rest.len() < length {
            return Err(damaged("is cut in a frame"));
        }
        let frame = rest.split_to(length);
        if seq > after {
            events.push(Event { seq, kind, frame });
        }
        seq = seq.next();
    }
    if seq == last.next() { Ok(events) } else { Err(damaged("has another number of events")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(first: u64, frames: Vec<(usize, Vec<u8>)>) -> Vec<Event> {
        let numbered = frames.into_iter().zip(first..);
        numbered
            .map(|((kind, frame), seq)| Event {
                seq: SeqId::new(seq),
                kind: EventKind::ALL[kind % EventKind::ALL.len()],
                frame: frame.into(),
            })
            .collect()
    }

    fn read_back(segments: Vec<Segment>, after: SeqId) -> Vec<Event> {
        let decoded =
            segments.into_iter().map(|one| decode(one.first, one.last, one.frames.into(), after).expect("readable"));
        decoded.flatten().collect()
    }

    proptest! {
        #[test]
        fn what_is_archived_reads_back_from_any_cursor(
            archived in 0_u64..1000,
            frames in prop::collection::vec((any::<usize>(), prop::collection::vec(any::<u8>(), 0..300)), 0..40),
            cursor in 0_u64..1100,
        ) {
            let given = events(archived + 1, frames);
            let segments = segments(SeqId::new(archived), &given).expect("continuous");
            let after = SeqId::new(cursor);
            let wanted: Vec<_> = given.into_iter().filter(|event| event.seq > after).collect();
            prop_assert_eq!(read_back(segments, after), wanted);
        }

        #[test]
        fn damaged_bytes_are_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(SeqId::new(1), SeqId::new(3), bytes.into(), SeqId::START);
        }
    }

    #[test]
    fn segments_stay_within_the_limit() {
        let given = events(1, vec![(1, vec![7; APPEND_BATCH_BYTES / 2]); 5]);
        let segments = segments(SeqId::START, &given).expect("continuous");
        assert_eq!(segments.len(), 5, "two halves and their headers are more than one segment");
        assert!(segments.iter().all(|one| one.frames.len() <= APPEND_BATCH_BYTES));
        assert_eq!(read_back(segments, SeqId::START), given);
    }

    #[test]
    fn what_is_archived_already_is_left_out_and_a_gap_is_refused() {
        let given = events(3, vec![(1, vec![1]), (1, vec![2]), (1, vec![3])]);
        let kept = segments(SeqId::new(3), &given).expect("continuous");
        assert_eq!(read_back(kept, SeqId::START), given[1..]);
        assert!(segments(SeqId::new(1), &given).is_err(), "event 2 is missing");
        assert!(segments(SeqId::new(2), &[given[0].clone(), given[2].clone()]).is_err(), "event 4 is missing");
    }
}
