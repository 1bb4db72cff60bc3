//! The store in PostgreSQL and in SQLite.
//!
//! Both adapters are made from one set of queries: the files in `sql/` are compiled once for each database, with that
//! database's `Db` and its few words of dialect. So a query is written, read and changed in one place, and still checked
//! by the compiler for both. What is here beside it is what does not depend on a database.

mod error;
mod postgres;
mod segment;
mod sqlite;
mod values;

pub use postgres::{PostgresStore, SchemaOutdated};
pub use sqlite::SqliteStore;
