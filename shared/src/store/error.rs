//! What the driver's errors mean to callers.

use sqlx::error::DatabaseError;

use crate::ports::store::StoreError;

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let passes = match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => true,
            sqlx::Error::Database(refusal) => passes_by_itself(refusal.as_ref()),
            _ => false,
        };
        if passes { Self::Unavailable(Box::new(error)) } else { Self::Corrupt(error.to_string()) }
    }
}

/// Whether the same statement may well succeed a little later.
fn passes_by_itself(refusal: &dyn DatabaseError) -> bool {
    let Some(code) = refusal.code() else { return false };
    match code.len() {
        // PostgreSQL, by class: connection, rolled back (deadlock, serialization), resources, lock not available,
        // operator's intervention (shutdown, start), system. And 25006: a server that became a standby.
        5 => ["08", "40", "53", "55", "57", "58"].iter().any(|class| code.starts_with(class)) || code == "25006",
        // SQLite, the low byte of the code: busy, locked, out of memory, i/o error, disk full, cannot open.
        _ => code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 7 | 10 | 13 | 14)),
    }
}
