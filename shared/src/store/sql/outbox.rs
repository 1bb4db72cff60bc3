//! The outbox: hints that are stored with what they speak of, and removed when the broker has them.

use sqlx::Row as _;

use super::{Adapter, Conn, Row, id, list_of_numbers};
use crate::domain::ids::{Id as _, RunId};
use crate::ports::run_queue::RunHint;
use crate::ports::store::{OutboxEntry, StoreError};
use crate::store::values::plain;

/// How long the sweep leaves a new row to the one who wrote it, in microseconds.
const OWN_PUBLISH_US: i64 = 2_000_000;
/// How long the sweep leaves a row to the one who took it, in microseconds.
const RETRY_US: i64 = 10_000_000;

/// Puts a hint into the outbox; the caller publishes it after the commit.
pub(super) async fn insert(conn: &mut Conn, run: RunId, trace: Option<&str>) -> Result<OutboxEntry, StoreError> {
    let trace = trace.map(plain);
    let id: i64 = sqlx::query_scalar(concat!(
        "INSERT INTO outbox (run_id, trace, due_at) VALUES ($1, $2, ",
        now!(),
        " + $3) RETURNING id"
    ))
    .bind(run.uuid())
    .bind(trace.as_deref())
    .bind(OWN_PUBLISH_US)
    .fetch_one(conn)
    .await?;
    Ok(OutboxEntry { id, hint: RunHint { run, trace: trace.map(String::from) } })
}

pub(super) async fn due(store: &Adapter, limit: u32) -> Result<Vec<OutboxEntry>, StoreError> {
    let mut tx = store.begin().await?;
    let rows = sqlx::query(concat!(
        "WITH due AS MATERIALIZED (SELECT id FROM outbox WHERE due_at <= ",
        now!(),
        " ORDER BY due_at, id LIMIT $1",
        skip_locked!(),
        ") UPDATE outbox SET due_at = ",
        now!(),
        " + $2 WHERE id IN (SELECT id FROM due) RETURNING id, run_id, trace"
    ))
    .bind(i64::from(limit))
    .bind(RETRY_US)
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;
    let mut entries = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    entries.sort_unstable_by_key(|entry| entry.id);
    Ok(entries)
}

pub(super) async fn done(store: &Adapter, ids: &[i64]) -> Result<(), StoreError> {
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query(concat!("DELETE FROM outbox WHERE id", in_numbers!("$1")))
        .bind(list_of_numbers(ids))
        .execute(store.writer())
        .await?;
    Ok(())
}

fn read(row: &Row) -> Result<OutboxEntry, StoreError> {
    Ok(OutboxEntry { id: row.try_get("id")?, hint: RunHint { run: id(row, "run_id")?, trace: row.try_get("trace")? } })
}
