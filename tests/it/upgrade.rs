//! Databases of an older schema are brought up to date with what is in them.

use std::path::Path;
use std::sync::Arc;

use holdfast_shared::domain::agent::ReferenceKind;
use holdfast_shared::domain::ids::{AgentId, BlockId, Id};
use holdfast_shared::domain::page::{Order, Page};
use holdfast_shared::domain::tenant::TenantId;
use holdfast_shared::ports::store::{AgentFilter, BlockFilter, Store};
use holdfast_shared::store::{PostgresStore, SqliteStore};
use sqlx::migrate::Migrator;
use uuid::Uuid;

use crate::services::Database;

/// The migrations before one, by the folder of a database.
async fn before(version: i64, folder: &str) -> Migrator {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(folder);
    let all = Migrator::new(folder).await.expect("migrations");
    Migrator::with_migrations(all.iter().filter(|migration| migration.version < version).cloned().collect())
}

const ALIVE: Uuid = Uuid::from_u128(0x0000_0000_0000_4000_8000_0000_0000_0001);
const DELETED: Uuid = Uuid::from_u128(0x0000_0000_0000_4000_8000_0000_0000_0002);
const HUMAN: Uuid = Uuid::from_u128(0x0000_0000_0000_4000_8000_0000_0000_0003);
const PERSONA: Uuid = Uuid::from_u128(0x0000_0000_0000_4000_8000_0000_0000_0004);
const FORGOTTEN: Uuid = Uuid::from_u128(0x0000_0000_0000_4000_8000_0000_0000_0005);

const SETTINGS: &str = r#"{"agent_type":"letta_v1_agent","system":"","model":"holdfast/demo","model_settings":null,
"context_window_limit":null,"tools":[],"tool_rules":[],"tags":[],"description":null,"metadata":null,"timezone":"UTC",
"message_buffer_autoclear":false,"other":{"project_id":"p","identity_ids":["i"],"hidden":true}}"#;
const DETAILS: &str = r#"{"limit":100,"description":"What Is Known","read_only":false,"metadata":null,"tags":["t"],
"hidden":null}"#;
/// A document that PostgreSQL refuses to look into.
const STRANGE: &str = r#"{"limit":100,"description":"a\u0000b","read_only":false,"metadata":null,"tags":[],
"hidden":null}"#;

/// What a program of the second schema would have left.
macro_rules! fill {
    ($pool:expr) => {
        for (id, deleted_at) in [(ALIVE, None), (DELETED, Some(5_i64))] {
            sqlx::query(
                "INSERT INTO agents (id, tenant, name, name_folded, settings, created_at, updated_at, deleted_at) \
                 VALUES ($1, 'default', 'Ada', 'ada', $2, 1, 2, $3)",
            )
            .bind(id)
            .bind(SETTINGS)
            .bind(deleted_at)
            .execute($pool)
            .await
            .expect("an agent");
        }
        for (id, agent, place, label, details) in [
            (HUMAN, ALIVE, 1_i64, "Human", DETAILS),
            (PERSONA, ALIVE, 0, "persona", STRANGE),
            (FORGOTTEN, DELETED, 0, "Human", DETAILS),
        ] {
            sqlx::query(
                "INSERT INTO blocks (id, agent_id, place, label, value, details, created_at, updated_at) \
                 VALUES ($1, $2, $3, $4, 'A Value', $5, 3, 4)",
            )
            .bind(id)
            .bind(agent)
            .bind(place)
            .bind(label)
            .bind(details)
            .execute($pool)
            .await
            .expect("a block");
        }
    };
}

async fn holds_the_blocks(store: Arc<dyn Store>) {
    let tenant = TenantId::default();
    let (alive, human) = (AgentId::from_uuid(ALIVE), BlockId::from_uuid(HUMAN));
    let agent = store.agent(&tenant, alive).await.expect("readable").expect("known");
    let labels: Vec<_> = agent.blocks.iter().map(|block| block.label.as_str()).collect();
    assert_eq!(labels, ["persona", "Human"], "in the order of attachment");
    let block = store.block(&tenant, human).await.expect("readable").expect("known");
    assert_eq!((block.value.as_str(), block.details.limit), ("A Value", 100));
    assert_eq!((block.created_at.timestamp_micros(), block.updated_at.timestamp_micros()), (3, 4));
    let forgotten = store.block(&tenant, BlockId::from_uuid(FORGOTTEN)).await.expect("readable");
    assert_eq!(forgotten, None, "what a deleted agent had stays unknown");

    let text = |text: &str| Some(text.to_owned());
    let both = vec![BlockId::from_uuid(HUMAN), BlockId::from_uuid(PERSONA)];
    let cases = [
        (BlockFilter { value_search: text("a val"), ..BlockFilter::default() }, both),
        (BlockFilter { label_search: text("HUM"), ..BlockFilter::default() }, vec![human]),
        (BlockFilter { description_search: text("is known"), ..BlockFilter::default() }, vec![human]),
        (BlockFilter { tags: vec!["t".to_owned()], ..BlockFilter::default() }, vec![human]),
    ];
    let page = Page { after: None, before: None, limit: 10, order: Order::Ascending };
    for (filter, wanted) in cases {
        let found = store.blocks(&tenant, &filter, &page).await.expect("readable");
        assert_eq!(found.iter().map(|block| block.id).collect::<Vec<_>>(), wanted, "{filter:?}");
    }
    for (kind, value, wanted) in
        [(ReferenceKind::Project, "p", 1), (ReferenceKind::Identity, "i", 1), (ReferenceKind::Project, "q", 0)]
    {
        let filter = AgentFilter { references: vec![(kind, value.to_owned())], ..AgentFilter::default() };
        assert_eq!(store.count_agents(&tenant, &filter).await.expect("an answer"), wanted, "{kind:?}");
    }
}

#[tokio::test]
async fn blocks_of_one_agent_become_blocks_of_the_tenant_in_postgres() {
    let database = Database::create().await;
    let pool = sqlx::PgPool::connect(&database.url).await.expect("a connection");
    before(3, "postgres").await.run(&pool).await.expect("the second schema");
    fill!(&pool);
    let store = PostgresStore::from_pool(pool.clone());
    store.migrate().await.expect("up to date");
    holds_the_blocks(Arc::new(store)).await;
    pool.close().await;
    database.remove().await;
}

#[tokio::test]
async fn blocks_of_one_agent_become_blocks_of_the_tenant_in_sqlite() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("holdfast.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let pool = sqlx::SqlitePool::connect_with(options).await.expect("a connection");
    before(3, "sqlite").await.run(&pool).await.expect("the second schema");
    fill!(&pool);
    pool.close().await;
    holds_the_blocks(Arc::new(SqliteStore::open(&path).await.expect("up to date"))).await;
}
