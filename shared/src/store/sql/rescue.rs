//! The rescuer's search for runs that lost their hint.

use std::time::Duration;

use super::{Adapter, Conn, Row, duration_micros, id};
use crate::domain::ids::{Id as _, RunId};
use crate::domain::lease::TakeoverAfter;
use crate::ports::store::StoreError;
use sqlx::Row as _;

/// Most runs that one search finds of each kind; the next search finds the rest.
const AT_ONCE: i64 = 500;
/// How long the row of a worker that died is kept at least, in microseconds. Its runs can be taken long before.
const WORKER_KEPT_US: i64 = 3_600_000_000;

pub(super) async fn rescue(
    store: &Adapter,
    after: TakeoverAfter,
    unclaimed_after: Duration,
) -> Result<u64, StoreError> {
    let silence = duration_micros(after.0);
    let unclaimed = duration_micros(unclaimed_after);
    let pause = silence.max(unclaimed);
    let mut tx = store.begin().await?;
    let mut rows = orphaned(&mut tx, silence, pause).await?;
    rows.extend(unclaimed_heads(&mut tx, unclaimed, pause).await?);
    for row in &rows {
        let run: RunId = id(row, "id")?;
        sqlx::query(concat!("INSERT INTO outbox (run_id, trace, due_at) VALUES ($1, $2, ", now!(), ")"))
            .bind(run.uuid())
            .bind(row.try_get::<Option<&str>, _>("trace")?)
            .execute(&mut *tx)
            .await?;
    }
    sqlx::query(concat!("DELETE FROM workers WHERE heartbeat_at <= ", now!(), " - $1"))
        .bind(silence.max(WORKER_KEPT_US))
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(rows.len() as u64)
}

/// Marks and returns running runs whose holder is silent or gone, or that have none.
async fn orphaned(conn: &mut Conn, silence: i64, pause: i64) -> Result<Vec<Row>, StoreError> {
    let rows = sqlx::query(concat!(
        "WITH lost AS MATERIALIZED (\
           SELECT id FROM runs WHERE status = 'running' AND (hinted_at IS NULL OR hinted_at <= ",
        now!(),
        " - $2) \
           AND NOT EXISTS (SELECT 1 FROM workers WHERE workers.id = runs.worker_id AND workers.heartbeat_at > ",
        now!(),
        " - $1) \
           AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.run_id = runs.id) \
           ORDER BY arrival LIMIT $3",
        skip_locked!(),
        ") UPDATE runs SET hinted_at = ",
        now!(),
        " WHERE id IN (SELECT id FROM lost) RETURNING id, trace"
    ))
    .bind(silence)
    .bind(pause)
    .bind(AT_ONCE)
    .fetch_all(conn)
    .await?;
    Ok(rows)
}

/// Marks and returns created runs that stand at the head of their thread's line and that nobody took. Nobody may have
/// had the time, so the pause doubles with each hint: a long backlog does not fill the queue with copies of itself.
async fn unclaimed_heads(conn: &mut Conn, unclaimed: i64, pause: i64) -> Result<Vec<Row>, StoreError> {
    let rows = sqlx::query(concat!(
        "WITH lost AS MATERIALIZED (\
           SELECT id FROM runs WHERE status = 'created' AND accepted_at <= ",
        now!(),
        " - $1 AND (hinted_at IS NULL OR hinted_at <= ",
        now!(),
        " - $2 AND hinted_at + (hinted_at - accepted_at) <= ",
        now!(),
        ") \
           AND EXISTS (SELECT 1 FROM threads WHERE threads.id = runs.thread_id AND threads.line_moved_at <= ",
        now!(),
        " - $1) \
           AND EXISTS (SELECT 1 FROM threads WHERE threads.id = runs.thread_id AND NOT ",
        is_blocked!(),
        ") \
           AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.run_id = runs.id) \
           ORDER BY accepted_at LIMIT $3",
        skip_locked!(),
        ") UPDATE runs SET hinted_at = ",
        now!(),
        " WHERE id IN (SELECT id FROM lost) RETURNING id, trace"
    ))
    .bind(unclaimed)
    .bind(pause)
    .bind(AT_ONCE)
    .fetch_all(conn)
    .await?;
    Ok(rows)
}
