//! The store in PostgreSQL.

use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use uuid::Uuid;

use crate::ports::store::StoreError;

/// What the queries are compiled for.
type Db = sqlx::Postgres;
use PostgresStore as Adapter;

// The dialect. These are macros because the text of a query is put together at compile time, with `concat!`; it never
// comes from a value.

/// Now in microseconds, by the database's clock. The time of the statement, not `clock_timestamp()`, which may differ
/// from row to row and therefore keeps an index from being used.
macro_rules! now {
    () => {
        "CAST(extract(epoch FROM statement_timestamp()) * 1000000 AS BIGINT)"
    };
}

/// Locks the rows that a query returns until the end of the transaction. NO KEY: rows that refer to them by a foreign
/// key may still be added, which keeps the locks of different transactions out of each other's way.
macro_rules! for_update {
    () => {
        " FOR NO KEY UPDATE"
    };
}

/// The same for the rows of `agents` alone, in a query that joins others.
macro_rules! for_update_of_agents {
    () => {
        " FOR NO KEY UPDATE OF agents"
    };
}

/// The same, and passes over rows that another transaction has locked.
macro_rules! skip_locked {
    () => {
        " FOR NO KEY UPDATE SKIP LOCKED"
    };
}

/// Whether the value before it is in a list, bound as `list_of_ids`.
macro_rules! in_ids {
    ($list:literal) => {
        concat!(" = ANY(", $list, ")")
    };
}

/// Whether the value before it is in a list, bound as `list_of_numbers`.
macro_rules! in_numbers {
    ($list:literal) => {
        concat!(" = ANY(", $list, ")")
    };
}

/// Whether the value before it is in a list, bound as `list_of_texts`.
macro_rules! in_texts {
    ($list:literal) => {
        concat!(" = ANY(", $list, ")")
    };
}

/// What stands before and after a list of ids, bound as `list_of_ids`, in a query that is put together at run time.
const IN_IDS: [&str; 2] = [" = ANY(", ")"];

/// The same for `list_of_texts`.
const IN_TEXTS: [&str; 2] = [" = ANY(", ")"];

/// The same for `list_of_numbers`.
const IN_NUMBERS: [&str; 2] = [" = ANY(", ")"];

/// Orders the text before it by its bytes, whatever the database's language.
macro_rules! bytewise {
    () => {
        " COLLATE \"C\""
    };
}

/// The function that finds a text in a text; 0 means that it is not in it.
const FIND: &str = "strpos";

fn list_of_ids(ids: impl Iterator<Item = Uuid>) -> Vec<Uuid> {
    ids.collect()
}

fn list_of_numbers(numbers: &[i64]) -> Vec<i64> {
    numbers.to_vec()
}

fn list_of_texts(texts: &[String]) -> Vec<String> {
    // A text that cannot be stored is not found; PostgreSQL would refuse to compare with it.
    texts.iter().filter(|text| !text.contains('\0')).cloned().collect()
}

#[path = "sql/mod.rs"]
mod sql;

/// How long a query waits for a free connection before the database counts as unavailable.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// The schema of the database is older than this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its schema is older than this program; run `holdfast migrate`")]
pub struct SchemaOutdated;

/// The store in PostgreSQL.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    pool: PgPool,
}

impl PostgresStore {
    /// Connects. The schema is left as it is: see [`Self::migrate`] and [`Self::check_migrated`].
    ///
    /// # Errors
    /// The URL is wrong, or the database does not answer.
    pub async fn connect(url: &str, max_connections: u32) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url)?.application_name("holdfast");
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            // A test costs a round trip for each query. A connection that was lost shows itself as an error of the
            // query, which callers must be ready for anyway.
            .test_before_acquire(false)
            .connect_with(options)
            .await?;
        Ok(Self::from_pool(pool))
    }

    /// A store on a pool that the caller has set up.
    #[must_use]
    pub const fn from_pool(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Brings the schema up to date. Several processes may do it at once: a lock in the database lets one do it.
    ///
    /// # Errors
    /// The database does not answer, or a migration was changed after it was applied.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        migrator().run(&self.pool).await.map_err(migration_failed)
    }

    /// Whether the schema has all that this program needs. A newer one has: migrations only expand it while an older
    /// program may run.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn is_migrated(&self) -> Result<bool, StoreError> {
        let has_table: bool =
            sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL").fetch_one(&self.pool).await?;
        if !has_table {
            return Ok(false);
        }
        let applied: Vec<i64> =
            sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success").fetch_all(&self.pool).await?;
        Ok(migrator().iter().all(|migration| applied.contains(&migration.version)))
    }

    /// Refuses a database whose schema is older than this program.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] with [`SchemaOutdated`]; or the database does not answer.
    pub async fn check_migrated(&self) -> Result<(), StoreError> {
        if self.is_migrated().await? { Ok(()) } else { Err(StoreError::Unavailable(Box::new(SchemaOutdated))) }
    }

    /// A transaction that writes.
    async fn begin(&self) -> Result<sqlx::Transaction<'static, Db>, StoreError> {
        Ok(self.pool.begin().await?)
    }

    /// Where single statements that write go.
    const fn writer(&self) -> &PgPool {
        &self.pool
    }

    /// Where queries that only read go.
    const fn reader(&self) -> &PgPool {
        &self.pool
    }

    /// The adapter's name.
    const NAME: &'static str = "postgres";
}

fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("../migrations/postgres");
    // During a deploy older programs meet a newer schema.
    migrator.set_ignore_missing(true);
    migrator
}

fn migration_failed(error: sqlx::migrate::MigrateError) -> StoreError {
    match error {
        sqlx::migrate::MigrateError::Execute(error) => error.into(),
        other => StoreError::Corrupt(other.to_string()),
    }
}
