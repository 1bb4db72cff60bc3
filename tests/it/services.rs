//! The servers that tests use, and names of one's own on them. `scripts/test` starts them where they do not run.

use std::sync::atomic::{AtomicU32, Ordering};

/// A PostgreSQL server; the database in the URL is only used to make others.
pub fn postgres_admin_url() -> String {
    std::env::var("HOLDFAST_TEST_POSTGRES_URL")
        .unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/postgres".to_owned())
}

/// A Redis server.
pub fn redis_url() -> String {
    std::env::var("HOLDFAST_TEST_REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".to_owned())
}

/// A RabbitMQ server; virtual hosts of one's own are made beside it.
pub fn amqp_url() -> String {
    std::env::var("HOLDFAST_TEST_AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2f".to_owned())
}

/// A name that no other test uses, also not one of another process.
pub fn unique_name(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("holdfast_test_{what}_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A database of one's own. Dropping it forgets the name; `remove` removes it.
pub struct Database {
    /// Its URL.
    pub url: String,
    name: String,
}

impl Database {
    /// Makes an empty database.
    pub async fn create() -> Self {
        use sqlx::Connection;
        let name = unique_name("db");
        let mut admin = sqlx::PgConnection::connect(&postgres_admin_url()).await.expect("PostgreSQL answers");
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name}")))
            .execute(&mut admin)
            .await
            .expect("no old database");
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut admin)
            .await
            .expect("a new database");
        let base = postgres_admin_url();
        let (server, _) = base.rsplit_once('/').expect("a database in the URL");
        Self { url: format!("{server}/{name}"), name }
    }

    /// Removes it, also when somebody is still connected.
    pub async fn remove(self) {
        use sqlx::Connection;
        let mut admin = sqlx::PgConnection::connect(&postgres_admin_url()).await.expect("PostgreSQL answers");
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut admin).await.expect("the database goes");
    }
}
