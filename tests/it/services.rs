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

/// Queues of one's own on the broker. Names cannot be listed without its management plugin, so whoever makes queues
/// removes them.
pub struct Queues {
    prefix: String,
}

impl Queues {
    /// Queues that no other test uses.
    pub fn new() -> Self {
        Self { prefix: unique_name("queue") }
    }

    /// The queues of an installation with this prefix.
    pub fn of(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// What their names begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    async fn channel() -> (lapin::Connection, lapin::Channel) {
        let properties = lapin::ConnectionProperties::default();
        let connection = lapin::Connection::connect(&amqp_url(), properties).await.expect("RabbitMQ answers");
        let channel = connection.create_channel().await.expect("a channel");
        (connection, channel)
    }

    /// The body of the oldest dead letter, waiting until there is one.
    pub async fn take_dead_letter(&self) -> String {
        use futures::StreamExt;
        let (_connection, channel) = Self::channel().await;
        let options = lapin::options::BasicConsumeOptions { no_ack: true, ..Default::default() };
        let queue = format!("{}.runs.dead", self.prefix).into();
        let mut letters =
            channel.basic_consume(queue, "".into(), options, Default::default()).await.expect("the queue is there");
        let letter = tokio::time::timeout(std::time::Duration::from_secs(20), letters.next()).await;
        let letter = letter.expect("a dead letter in time").expect("the consumer stays").expect("a message");
        String::from_utf8(letter.data).expect("UTF-8")
    }

    /// Declares the queue of runs again, as one of this type; a broker refuses that if it has it as another.
    pub async fn declare_as(&self, kind: &str) -> Result<(), String> {
        use lapin::types::{AMQPValue, FieldTable};
        let (_connection, channel) = Self::channel().await;
        let options = lapin::options::QueueDeclareOptions { durable: true, ..Default::default() };
        let mut arguments = FieldTable::default();
        let dead = format!("{}.runs.dead", self.prefix);
        for (name, value) in
            [("x-queue-type", kind), ("x-dead-letter-exchange", ""), ("x-dead-letter-routing-key", dead.as_str())]
        {
            arguments.insert(name.into(), AMQPValue::LongString(value.into()));
        }
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(1000));
        let declared = channel.queue_declare(format!("{}.runs", self.prefix).into(), options, arguments).await;
        declared.map(|_queue| ()).map_err(|error| error.to_string())
    }

    /// Removes them.
    pub async fn remove(self) {
        let (_connection, channel) = Self::channel().await;
        for name in ["runs", "runs.dead"] {
            let queue = format!("{}.{name}", self.prefix).into();
            channel.queue_delete(queue, Default::default()).await.expect("the queue goes");
        }
    }
}
