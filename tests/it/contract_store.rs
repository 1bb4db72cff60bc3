//! The contract of the store, on PostgreSQL and on SQLite.

use std::sync::Arc;

use holdfast_shared::domain::ids::{AgentId, Id};
use holdfast_shared::domain::message::Body;
use holdfast_shared::domain::page::{Order, Page};
use holdfast_shared::domain::tenant::TenantId;
use holdfast_shared::domain::tool::ToolCall;
use holdfast_shared::ports::store::{AgentFilter, Store, StoreError};
use holdfast_shared::store::{PostgresStore, SqliteStore};

use crate::services::Database;

/// Runs a case on a database of its own and removes it, also when the case fails.
async fn on_postgres<F, C>(case: C)
where
    C: FnOnce(Arc<dyn Store>) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let database = Database::create().await;
    let store = PostgresStore::connect(&database.url, 4).await.expect("a connection");
    store.migrate().await.expect("a schema");
    let outcome = tokio::spawn(case(Arc::new(store))).await;
    database.remove().await;
    outcome.expect("the case holds");
}

/// Runs a case on a file of its own.
async fn on_sqlite<F, C>(case: C)
where
    C: FnOnce(Arc<dyn Store>) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteStore::open(&folder.path().join("new/holdfast.db")).await.expect("a store");
    case(Arc::new(store)).await;
}

mod postgres {
    holdfast_shared::store_contract!(super::on_postgres);
}

mod sqlite {
    holdfast_shared::store_contract!(super::on_sqlite);
}

#[tokio::test]
async fn a_schema_that_is_older_than_the_program_is_noticed() {
    let database = Database::create().await;
    let store = PostgresStore::connect(&database.url, 2).await.expect("a connection");
    assert!(!store.is_migrated().await.expect("an answer"));
    let refused = store.check_migrated().await;
    assert!(
        matches!(&refused, Err(StoreError::Unavailable(why)) if why.to_string().contains("holdfast migrate")),
        "{refused:?}"
    );
    let (one, other) = tokio::join!(store.migrate(), store.migrate());
    one.expect("a schema");
    other.expect("the same schema");
    store.check_migrated().await.expect("it is up to date");
    store.migrate().await.expect("nothing to do");
    store.ping().await.expect("it answers");
    drop(store);
    database.remove().await;
}

#[tokio::test]
async fn a_file_is_opened_again_with_what_is_in_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("holdfast.db");
    drop(SqliteStore::open(&path).await.expect("a store"));
    let store = SqliteStore::open(&path).await.expect("the same store");
    store.ping().await.expect("it answers");
    assert_eq!(store.name(), "sqlite");
}

/// Rows that the code would never write, and that the schema refuses nevertheless.
const HALF_STATES: [&str; 6] = [
    "INSERT INTO runs (id, tenant, agent_id, thread_id, status, background, request, usage, archived, created_at, accepted_at) \
     SELECT $1, tenant, id, id, 'completed', TRUE, '{}', '{}', 0, 0, 0 FROM agents",
    "INSERT INTO runs (id, tenant, agent_id, thread_id, status, background, request, usage, archived, created_at, accepted_at) \
     SELECT $1, tenant, id, id, 'running', TRUE, '{}', '{}', 0, 0, 0 FROM agents",
    "INSERT INTO runs (id, tenant, agent_id, thread_id, status, background, request, usage, archived, created_at, accepted_at, \
     worker_id) SELECT $1, tenant, id, id, 'created', TRUE, '{}', '{}', 0, 0, 0, id FROM agents",
    "INSERT INTO runs (id, tenant, agent_id, thread_id, status, background, request, usage, archived, created_at, accepted_at) \
     SELECT $1, tenant, id, id, 'paused', TRUE, '{}', '{}', 0, 0, 0 FROM agents",
    // A second running run of the agent.
    "INSERT INTO runs (id, tenant, agent_id, thread_id, status, background, request, usage, archived, created_at, accepted_at, \
     epoch, started_at) SELECT $1, tenant, id, id, 'running', TRUE, '{}', '{}', 0, 0, 0, 1, 0 FROM agents",
    "INSERT INTO messages (id, agent_id, thread_id, role, body, labels, folded, in_context, position, created_at) \
     SELECT $1, id, id, 'user', '{}', '{}', '', FALSE, 0, 0 FROM agents",
];

const AGENT: &str = "INSERT INTO agents (id, tenant, name, name_folded, settings, created_at, updated_at) \
                     VALUES ($1, 'default', 'a', 'a', '{}', 0, 0)";
/// The same as the refused second one: the first is in order.
const RUNNING: &str = HALF_STATES[4];

macro_rules! refuses_half_states {
    ($pool:expr) => {
        let pool = $pool;
        for sql in [AGENT, RUNNING] {
            sqlx::query(sql).bind(uuid::Uuid::new_v4()).execute(&pool).await.expect("a whole row");
        }
        for sql in HALF_STATES {
            let refused = sqlx::query(sql).bind(uuid::Uuid::new_v4()).execute(&pool).await;
            let refused = refused.expect_err("a row that the schema refuses");
            assert!(matches!(refused, sqlx::Error::Database(_)), "{refused}: {sql}");
        }
        pool.close().await;
    };
}

#[tokio::test]
async fn postgres_refuses_half_states() {
    let database = Database::create().await;
    let pool = sqlx::PgPool::connect(&database.url).await.expect("a connection");
    PostgresStore::from_pool(pool.clone()).migrate().await.expect("a schema");
    refuses_half_states!(pool);
    database.remove().await;
}

#[tokio::test]
async fn sqlite_refuses_half_states() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("holdfast.db");
    drop(SqliteStore::open(&path).await.expect("a store"));
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    refuses_half_states!(sqlx::SqlitePool::connect_with(options).await.expect("a connection"));
}

/// A question that waits, as the commit of the run that asks leaves it.
const QUESTION: &str = r#"{"ApprovalRequest":{"parts":[],"calls":[{"id":"call_1","name":"look","arguments":"{}"}]}}"#;
const ASK: [&str; 2] = [
    "INSERT INTO messages (id, agent_id, thread_id, role, body, labels, folded, in_context, position, created_at) \
     SELECT $1, id, id, 'approval', $2, '{}', '', TRUE, 1, 7 FROM agents",
    "INSERT INTO threads (id, agent_id, system_id, pending_approval, approval_deadline) SELECT id, id, $1, $1, 9 FROM agents",
];

macro_rules! shows_what_waits {
    ($store:expr, $pool:expr) => {
        let (store, pool): (_, _) = ($store, $pool);
        let tenant = TenantId::default();
        let (asked, quiet) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
        let request = uuid::Uuid::new_v4();
        let settings = serde_json::json!({
            "agent_type": "letta_v1_agent", "system": "", "model": "holdfast/demo", "model_settings": null,
            "context_window_limit": null, "tools": [], "tool_rules": [], "tags": [], "description": null,
            "metadata": null, "timezone": "UTC", "message_buffer_autoclear": false,
        });
        let insert = AGENT.replace("'{}'", &format!("'{settings}'"));
        sqlx::query(sqlx::AssertSqlSafe(insert.clone())).bind(asked).execute(&pool).await.expect("an agent");
        sqlx::query(ASK[0]).bind(request).bind(QUESTION).execute(&pool).await.expect("a message");
        sqlx::query(ASK[1]).bind(request).execute(&pool).await.expect("a question");
        sqlx::query(sqlx::AssertSqlSafe(insert)).bind(quiet).execute(&pool).await.expect("an agent");

        let agent = store.agent(&tenant, AgentId::from_uuid(asked)).await.expect("readable").expect("known");
        let pending = agent.pending_approval.clone().expect("a question");
        assert_eq!(pending.request.id.uuid(), request);
        assert_eq!(pending.deadline.map(|at| at.timestamp_micros()), Some(9));
        let Body::ApprovalRequest(answer) = &pending.request.body else { panic!("{pending:?}") };
        assert_eq!(answer.calls, [ToolCall::new("call_1", "look", "{}")]);
        let neighbour = store.agent(&tenant, AgentId::from_uuid(quiet)).await.expect("readable").expect("known");
        assert_eq!(neighbour.pending_approval, None);
        let page = Page { after: None, before: None, limit: 10, order: Order::Ascending };
        let listed = store.agents(&tenant, &AgentFilter::default(), &page).await.expect("readable");
        assert_eq!(listed.iter().filter(|agent| agent.pending_approval.is_some()).count(), 1);
        assert!(listed.contains(&agent));
        pool.close().await;
    };
}

#[tokio::test]
async fn postgres_shows_what_waits_for_an_answer() {
    let database = Database::create().await;
    let pool = sqlx::PgPool::connect(&database.url).await.expect("a connection");
    let store = PostgresStore::from_pool(pool.clone());
    store.migrate().await.expect("a schema");
    shows_what_waits!(store, pool);
    database.remove().await;
}

#[tokio::test]
async fn sqlite_shows_what_waits_for_an_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("holdfast.db");
    let store = SqliteStore::open(&path).await.expect("a store");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let pool = sqlx::SqlitePool::connect_with(options).await.expect("a connection");
    shows_what_waits!(store, pool);
}
