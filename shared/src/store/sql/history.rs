//! Messages across a tenant's agents.

use std::collections::BTreeMap;

use sqlx::Row as _;

use super::page::{self, Keys, Place};
use super::{Adapter, Builder, Conn, FIND, Row, document, id, list_of_ids, messages};
use crate::domain::agent::AgentSettings;
use crate::domain::ids::{AgentId, Id as _, MessageId};
use crate::domain::page::Page;
use crate::domain::run::Speech;
use crate::domain::tenant::TenantId;
use crate::domain::thread::{Thread, ThreadScope};
use crate::ports::store::{FoundMessage, MessageScope, MessageSearch, StoreError};
use crate::store::values;

/// Places are those of one agent, so messages of several stand in the order of their creation.
const CREATION: Keys = Keys { column: "created_at", has_ties: true };
/// The order of a step's messages, which are those of one agent.
const HISTORY: Keys = Keys { column: "position", has_ties: false };

/// A deleted agent is unknown to everyone, and so is what it said.
macro_rules! of_known_agents {
    () => {
        " AND NOT EXISTS (SELECT 1 FROM agents WHERE agents.id = messages.agent_id AND agents.deleted_at IS NOT NULL)"
    };
}

const fn keys(scope: &MessageScope) -> Keys {
    match scope {
        MessageScope::Threads(_) | MessageScope::Group { .. } => CREATION,
        MessageScope::Step(_) => HISTORY,
    }
}

pub(super) async fn find(
    store: &Adapter,
    tenant: &TenantId,
    scope: &MessageScope,
    page: &Page<MessageId>,
) -> Result<Vec<FoundMessage>, StoreError> {
    let mut conn = store.reader().acquire().await?;
    let after = place(&mut conn, tenant, scope, page.after).await?;
    let before = place(&mut conn, tenant, scope, page.before).await?;
    let mut builder = Builder::new(concat!("SELECT thread_id, ", message_columns!(), " FROM messages WHERE tenant = "));
    builder.push_bind(tenant.as_str().to_owned());
    match scope {
        MessageScope::Threads(threads) => {
            builder.push(of_known_agents!());
            push_threads(&mut builder, *threads);
        }
        MessageScope::Group { agent, threads, group } => {
            builder.push(" AND agent_id = ").push_bind(agent.uuid());
            push_threads(&mut builder, *threads);
            // Inside of a text that a client gave, JSON has a backslash before each quotation mark: this cannot be there.
            let label = format!("\"group_id\":{}", values::document(group)?);
            builder.push(" AND ").push(FIND).push("(labels, ").push_bind(label).push(") > 0");
        }
        MessageScope::Step(step) => {
            builder.push(" AND step_id = ").push_bind(step.uuid());
        }
    }
    let direction = page::push(&mut builder, keys(scope), page, after, before);
    let rows = builder.build().fetch_all(&mut *conn).await?;
    let found = rows.iter().map(read).collect::<Result<_, _>>()?;
    with_speech(&mut conn, direction.restore(found)).await
}

async fn place(
    conn: &mut Conn,
    tenant: &TenantId,
    scope: &MessageScope,
    cursor: Option<MessageId>,
) -> Result<Option<Place>, StoreError> {
    let Some(cursor) = cursor else { return Ok(None) };
    let mut builder = Builder::new("SELECT created_at, position FROM messages WHERE id = ");
    builder.push_bind(cursor.uuid()).push(" AND tenant = ").push_bind(tenant.as_str().to_owned());
    match scope {
        MessageScope::Threads(_) => {}
        MessageScope::Group { agent, .. } => {
            builder.push(" AND agent_id = ").push_bind(agent.uuid());
        }
        MessageScope::Step(step) => {
            builder.push(" AND step_id = ").push_bind(step.uuid());
        }
    }
    let row = builder.build().fetch_optional(conn).await?.ok_or(StoreError::UnknownCursor)?;
    let keys = keys(scope);
    Ok(Some(Place { key: row.try_get(keys.column)?, tie: keys.has_ties.then(|| cursor.uuid()) }))
}

pub(super) async fn get(store: &Adapter, tenant: &TenantId, id: MessageId) -> Result<Option<FoundMessage>, StoreError> {
    let mut conn = store.reader().acquire().await?;
    let row = sqlx::query(concat!(
        "SELECT thread_id, ",
        message_columns!(),
        " FROM messages WHERE id = $1 AND tenant = $2",
        of_known_agents!()
    ))
    .bind(id.uuid())
    .bind(tenant.as_str())
    .fetch_optional(&mut *conn)
    .await?;
    let found = row.iter().map(read).collect::<Result<_, _>>()?;
    Ok(with_speech(&mut conn, found).await?.pop())
}

pub(super) async fn search(
    store: &Adapter,
    tenant: &TenantId,
    agent: Option<AgentId>,
    threads: ThreadScope,
    search: &MessageSearch,
) -> Result<Vec<FoundMessage>, StoreError> {
    let mut conn = store.reader().acquire().await?;
    let mut builder = Builder::new(concat!("SELECT thread_id, ", message_columns!(), " FROM messages WHERE tenant = "));
    builder.push_bind(tenant.as_str().to_owned()).push(of_known_agents!());
    if let Some(agent) = agent {
        builder.push(" AND agent_id = ").push_bind(agent.uuid());
    }
    push_threads(&mut builder, threads);
    messages::push_search(&mut builder, search);
    builder.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind(i64::from(search.limit));
    let rows = builder.build().fetch_all(&mut *conn).await?;
    let found = rows.iter().map(read).collect::<Result<_, _>>()?;
    with_speech(&mut conn, found).await
}

/// Adds to a WHERE clause that a message is in one of these threads: it was said there, or a fork shares it.
fn push_threads(builder: &mut Builder, threads: ThreadScope) {
    match threads {
        ThreadScope::All => {}
        ThreadScope::Own => {
            builder.push(" AND thread_id = agent_id");
        }
        ThreadScope::Conversation(id) => {
            builder.push(" AND (thread_id = ").push_bind(id.uuid());
            builder.push(
                " OR EXISTS (SELECT 1 FROM shared_messages \
                 WHERE shared_messages.message_id = messages.id AND shared_messages.thread_id = ",
            );
            builder.push_bind(id.uuid()).push("))");
        }
    }
}

/// A message as its row has it, without how its agent speaks.
fn read(row: &Row) -> Result<FoundMessage, StoreError> {
    let message = messages::read(row)?;
    let conversation = Thread::of(message.agent_id, row.try_get("thread_id")?).conversation;
    Ok(FoundMessage { message, conversation, speech: None })
}

/// Adds how the agents of messages speak.
async fn with_speech(conn: &mut Conn, mut found: Vec<FoundMessage>) -> Result<Vec<FoundMessage>, StoreError> {
    let mut agents: BTreeMap<AgentId, Option<Speech>> = found.iter().map(|one| (one.message.agent_id, None)).collect();
    if agents.is_empty() {
        return Ok(found);
    }
    let rows = sqlx::query(concat!("SELECT id, settings FROM agents WHERE id", in_ids!("$1")))
        .bind(list_of_ids(agents.keys().map(|id| id.uuid())))
        .fetch_all(conn)
        .await?;
    for row in &rows {
        let settings: AgentSettings = document(row, "settings")?;
        agents.insert(id(row, "id")?, settings.is_legacy().then(Speech::usual));
    }
    for one in &mut found {
        one.speech = agents.get(&one.message.agent_id).cloned().flatten();
    }
    Ok(found)
}
