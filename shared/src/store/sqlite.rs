//! The store in a SQLite file, for a single process.

use std::path::Path;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use uuid::Uuid;

use crate::ports::store::StoreError;

/// What the queries are compiled for.
type Db = sqlx::Sqlite;
use SqliteStore as Adapter;

// The dialect; see the same words of PostgreSQL.

/// Now in microseconds, in steps of a millisecond.
macro_rules! now {
    () => {
        "CAST(unixepoch('subsec') * 1000000 AS INTEGER)"
    };
}

/// Nothing: whoever writes here is alone.
macro_rules! for_update {
    () => {
        ""
    };
}

/// Nothing, for the same reason.
macro_rules! for_update_of_agents {
    () => {
        ""
    };
}

/// Nothing, for the same reason.
macro_rules! skip_locked {
    () => {
        ""
    };
}

/// Whether the value before it is in a list, bound as `list_of_ids`.
macro_rules! in_ids {
    ($list:literal) => {
        concat!(" IN (SELECT unhex(value) FROM json_each(", $list, "))")
    };
}

/// Whether the value before it is in a list, bound as `list_of_numbers`.
macro_rules! in_numbers {
    ($list:literal) => {
        concat!(" IN (SELECT value FROM json_each(", $list, "))")
    };
}

/// Whether the value before it is in a list, bound as `list_of_texts`.
macro_rules! in_texts {
    ($list:literal) => {
        concat!(" IN (SELECT value FROM json_each(", $list, "))")
    };
}

/// What stands before and after a list of ids, bound as `list_of_ids`, in a query that is put together at run time.
const IN_IDS: [&str; 2] = [" IN (SELECT unhex(value) FROM json_each(", "))"];

/// The same for `list_of_texts`.
const IN_TEXTS: [&str; 2] = [" IN (SELECT value FROM json_each(", "))"];

/// The same for `list_of_numbers`.
const IN_NUMBERS: [&str; 2] = [" IN (SELECT value FROM json_each(", "))"];

/// Nothing: texts are ordered by their bytes by themselves.
macro_rules! bytewise {
    () => {
        ""
    };
}

/// The function that finds a text in a text; 0 means that it is not in it.
const FIND: &str = "instr";

/// A JSON array, since SQLite has no arrays.
fn list_of_ids(ids: impl Iterator<Item = Uuid>) -> String {
    let texts: Vec<_> = ids.map(|id| format!("\"{}\"", id.as_simple())).collect();
    format!("[{}]", texts.join(","))
}

fn list_of_numbers(numbers: &[i64]) -> String {
    let texts: Vec<_> = numbers.iter().map(i64::to_string).collect();
    format!("[{}]", texts.join(","))
}

fn list_of_texts(texts: &[String]) -> String {
    serde_json::Value::from(texts).to_string()
}

#[path = "sql/mod.rs"]
#[expect(clippy::duplicate_mod, reason = "the queries are compiled once for each database")]
mod sql;

/// How long a query waits for a free connection before the database counts as unavailable.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long SQLite waits for another process's lock, such as a backup's.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that only read. In WAL mode they do not wait for the writer.
const READERS: u32 = 4;

/// The store in a SQLite file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    /// One connection: SQLite has one writer at a time, and waiting in our own queue is fair and cheap, where waiting
    /// for SQLite's lock is neither.
    writer: SqlitePool,
    reader: SqlitePool,
}

impl SqliteStore {
    /// Opens a database, and makes it with its folder if there is none; brings the schema up to date.
    ///
    /// # Errors
    /// The file cannot be opened or is not such a database.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            tokio::fs::create_dir_all(folder).await.map_err(|error| StoreError::Unavailable(Box::new(error)))?;
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .journal_mode(SqliteJournalMode::Wal)
            // In WAL mode this loses nothing when the process dies; a power cut may take the last commits, never the
            // file's consistency.
            .synchronous(SqliteSynchronous::Normal);
        let pool = SqlitePoolOptions::new().acquire_timeout(ACQUIRE_TIMEOUT).test_before_acquire(false);
        let writer = pool.clone().max_connections(1).connect_with(options.clone()).await?;
        migrator().run(&writer).await.map_err(migration_failed)?;
        let reader = pool.max_connections(READERS).connect_with(options.pragma("query_only", "on")).await?;
        Ok(Self { writer, reader })
    }

    /// Forgets the heartbeats of all workers and the hints that were sent. Only for a process that knows that no other
    /// works with this file: what a predecessor held can then be taken at once, and what it had queued is queued again.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn forget_predecessor(&self) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        sqlx::query("DELETE FROM workers").execute(&mut *tx).await?;
        sqlx::query("UPDATE runs SET hinted_at = NULL WHERE status IN ('created', 'running')")
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }

    /// A transaction that writes. IMMEDIATE takes the write lock now: a transaction that first read and wants to write
    /// later could be refused then.
    async fn begin(&self) -> Result<sqlx::Transaction<'static, Db>, StoreError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Where single statements that write go.
    const fn writer(&self) -> &SqlitePool {
        &self.writer
    }

    /// Where queries that only read go.
    const fn reader(&self) -> &SqlitePool {
        &self.reader
    }

    /// The adapter's name.
    const NAME: &'static str = "sqlite";
}

fn migrator() -> Migrator {
    sqlx::migrate!("../migrations/sqlite")
}

fn migration_failed(error: sqlx::migrate::MigrateError) -> StoreError {
    match error {
        sqlx::migrate::MigrateError::Execute(error) => error.into(),
        other => StoreError::Corrupt(other.to_string()),
    }
}
