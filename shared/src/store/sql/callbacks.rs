//! Callbacks: entered by the end of a run, taken by one worker at a time, gone when they are sent or given up.

use std::time::Duration;

use sqlx::Row as _;

use super::{Adapter, Conn, Row, duration_micros, id, list_of_texts, runs};
use crate::domain::callback::{CallbackResult, CallbackTry, CallbackUrl};
use crate::domain::ids::{Id as _, RunId};
use crate::ports::store::{StoreError, TakenCallback};
use crate::store::values::{self, micros, plain};

/// Enters the callback of a run that ends here; it is due at once.
pub(super) async fn insert(conn: &mut Conn, run: RunId, url: &CallbackUrl) -> Result<(), StoreError> {
    sqlx::query(concat!("INSERT INTO callbacks (run_id, receiver, due_at) VALUES ($1, $2, ", now!(), ")"))
        .bind(run.uuid())
        .bind(url.receiver())
        .execute(conn)
        .await?;
    Ok(())
}

pub(super) async fn take(
    store: &Adapter,
    busy: &[String],
    left_for: Duration,
) -> Result<Option<TakenCallback>, StoreError> {
    let mut tx = store.begin().await?;
    let taken = sqlx::query(concat!(
        "WITH due AS MATERIALIZED (SELECT run_id FROM callbacks WHERE due_at <= ",
        now!(),
        " AND NOT receiver",
        in_texts!("$1"),
        " ORDER BY due_at, run_id LIMIT 1",
        skip_locked!(),
        ") UPDATE callbacks SET due_at = ",
        now!(),
        " + $2, takes = takes + 1 WHERE run_id IN (SELECT run_id FROM due) RETURNING run_id, failed, takes"
    ))
    .bind(list_of_texts(busy))
    .bind(duration_micros(left_for))
    .fetch_optional(&mut *tx)
    .await?;
    let Some(taken) = taken else { return Ok(None) };
    let run: RunId = id(&taken, "run_id")?;
    let row = sqlx::query(concat!("SELECT ", run_columns!(), " FROM runs WHERE id = $1"))
        .bind(run.uuid())
        .fetch_one(&mut *tx)
        .await?;
    let run = runs::read(&row)?;
    tx.commit().await?;
    let failed = values::unsigned(taken.try_get("failed")?)?;
    Ok(Some(TakenCallback { run, failed, takes: taken.try_get("takes")? }))
}

pub(super) async fn tried(
    store: &Adapter,
    taken: &TakenCallback,
    tried: &CallbackTry,
    pause: Option<Duration>,
) -> Result<bool, StoreError> {
    let mut tx = store.begin().await?;
    let changed = match pause {
        Some(pause) => {
            sqlx::query(concat!(
                "UPDATE callbacks SET failed = failed + 1, due_at = ",
                now!(),
                " + $3 WHERE run_id = $1 AND takes = $2"
            ))
            .bind(taken.run.id.uuid())
            .bind(taken.takes)
            .bind(duration_micros(pause))
            .execute(&mut *tx)
            .await?
        }
        None => {
            sqlx::query("DELETE FROM callbacks WHERE run_id = $1 AND takes = $2")
                .bind(taken.run.id.uuid())
                .bind(taken.takes)
                .execute(&mut *tx)
                .await?
        }
    };
    if changed.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query("UPDATE runs SET callback_sent_at = $2, callback_status_code = $3, callback_error = $4 WHERE id = $1")
        .bind(taken.run.id.uuid())
        .bind(micros(tried.at))
        .bind(tried.result.status().map(i64::from))
        .bind(tried.result.error().as_deref().map(plain))
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(true)
}

/// The last try in a run's row, if there was one.
pub(super) fn read_try(row: &Row) -> Result<Option<CallbackTry>, StoreError> {
    let Some(at) = row.try_get::<Option<i64>, _>("callback_sent_at")? else { return Ok(None) };
    let status = row.try_get::<Option<i64>, _>("callback_status_code")?.map(values::unsigned).transpose()?;
    let result = match status {
        Some(status) => CallbackResult::Answered(status),
        None => CallbackResult::Failed(row.try_get::<Option<String>, _>("callback_error")?.unwrap_or_default()),
    };
    Ok(Some(CallbackTry { at: values::moment(at)?, result }))
}
