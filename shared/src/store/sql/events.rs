//! The archive of events.

use bytes::Bytes;
use sqlx::Row as _;

use super::claims::{self, Held};
use super::{Adapter, Conn, seq};
use crate::domain::event::Event;
use crate::domain::ids::{Id as _, RunId};
use crate::domain::lease::Lease;
use crate::domain::limits::READ_BYTES;
use crate::domain::position::SeqId;
use crate::ports::store::StoreError;
use crate::store::segment;
use crate::store::values::{signed, unsigned};

/// Segments that one read may join.
const SEGMENTS_PER_READ: i64 = 256;

pub(super) async fn archive(store: &Adapter, lease: &Lease, events: &[Event]) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    let held = claims::fence(&mut tx, lease).await?;
    extend(&mut tx, &held, events).await?;
    tx.commit().await?;
    Ok(())
}

/// Adds what is not there yet, and writes where the archive ends then into the run's row.
pub(super) async fn extend(conn: &mut Conn, held: &Held, events: &[Event]) -> Result<(), StoreError> {
    let archived = append(conn, held.run, held.archived, events).await?;
    if archived != held.archived {
        sqlx::query("UPDATE runs SET archived = $2 WHERE id = $1")
            .bind(held.run.uuid())
            .bind(signed(archived.get())?)
            .execute(conn)
            .await?;
    }
    Ok(())
}

/// Adds what is not there yet, and says where the archive ends then. The caller writes that into the run's row.
pub(super) async fn append(
    conn: &mut Conn,
    run: RunId,
    archived: SeqId,
    events: &[Event],
) -> Result<SeqId, StoreError> {
    let mut tail = archived;
    for one in segment::segments(archived, events)? {
        tail = one.last;
        sqlx::query(
            "INSERT INTO event_segments (run_id, first_seq, last_seq, size, frames) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(run.uuid())
        .bind(signed(one.first.get())?)
        .bind(signed(one.last.get())?)
        .bind(signed(one.frames.len() as u64)?)
        .bind(one.frames)
        .execute(&mut *conn)
        .await?;
    }
    Ok(tail)
}

pub(super) async fn read(store: &Adapter, run: RunId, after: SeqId) -> Result<Vec<Event>, StoreError> {
    let mut conn = store.reader().acquire().await?;
    // First how much there is, then as much as fits: so no more is read than is given back.
    let sizes = sqlx::query(
        "SELECT last_seq, size FROM event_segments WHERE run_id = $1 AND last_seq > $2 ORDER BY last_seq LIMIT $3",
    )
    .bind(run.uuid())
    .bind(signed(after.get())?)
    .bind(SEGMENTS_PER_READ)
    .fetch_all(&mut *conn)
    .await?;
    let mut bytes = 0_usize;
    let mut until = None;
    for row in &sizes {
        bytes += unsigned::<usize>(row.try_get("size")?)?;
        if until.is_some() && bytes > READ_BYTES {
            break;
        }
        until = Some(row.try_get::<i64, _>("last_seq")?);
    }
    let Some(until) = until else { return Ok(Vec::new()) };
    let rows = sqlx::query(
        "SELECT first_seq, last_seq, frames FROM event_segments \
         WHERE run_id = $1 AND last_seq > $2 AND last_seq <= $3 ORDER BY last_seq",
    )
    .bind(run.uuid())
    .bind(signed(after.get())?)
    .bind(until)
    .fetch_all(&mut *conn)
    .await?;
    let mut events = Vec::new();
    for row in &rows {
        let frames = Bytes::from(row.try_get::<Vec<u8>, _>("frames")?);
        events.extend(segment::decode(seq(row, "first_seq")?, seq(row, "last_seq")?, frames, after)?);
    }
    Ok(events)
}
