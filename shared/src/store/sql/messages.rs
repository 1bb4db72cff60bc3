//! Messages: an agent's history, and the part of it that is in context.

use sqlx::Row as _;

use super::page::{self, Keys, Place};
use super::{Adapter, Builder, Conn, FIND, Row, document, id, list_of_ids, moment, optional_id};
use crate::domain::ids::{AgentId, Id as _, MessageId, RunId};
use crate::domain::message::{Body, Message, Role};
use crate::domain::page::Page;
use crate::domain::search_words::SearchWords;
use crate::domain::thread::Thread;
use crate::ports::store::{MessageFilter, MessageSearch, StoreError};
use crate::store::values::{self, folded, micros, plain, searchable};

/// The order of a history. Places are unique in an agent.
const HISTORY: Keys = Keys { column: "position", has_ties: false };
/// Rows of one INSERT, so that it stays within the databases' limits on bound values.
const ROWS_PER_INSERT: usize = 500;

/// Whether a model sees messages from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Visibility {
    /// It does.
    InContext,
    /// Not before their run is claimed.
    Later,
}

/// Takes the next places in an agent's history and says the first of them. Holds the agent's row from then on.
pub(super) async fn reserve(conn: &mut Conn, agent: AgentId, count: usize) -> Result<i64, StoreError> {
    let count = values::signed(count as u64)?;
    let last: i64 = sqlx::query_scalar(
        "UPDATE agents SET last_position = last_position + $2 WHERE id = $1 RETURNING last_position",
    )
    .bind(agent.uuid())
    .bind(count)
    .fetch_one(conn)
    .await?;
    Ok(last - count + 1)
}

/// Adds messages to the end of the history and to the context of a thread.
pub(super) async fn append(conn: &mut Conn, thread: Thread, messages: &[Message]) -> Result<(), StoreError> {
    if messages.is_empty() {
        return Ok(());
    }
    let first = reserve(conn, thread.agent, messages.len()).await?;
    insert(conn, thread, messages, first, Visibility::InContext).await
}

/// Stores messages at places that are reserved.
pub(super) async fn insert(
    conn: &mut Conn,
    thread: Thread,
    messages: &[Message],
    first: i64,
    visibility: Visibility,
) -> Result<(), StoreError> {
    let places: Vec<(&Message, i64)> = messages.iter().zip(first..).collect();
    for chunk in places.chunks(ROWS_PER_INSERT) {
        let mut rows = Vec::with_capacity(chunk.len());
        for (message, place) in chunk {
            rows.push((message, place, values::document(&message.body)?, values::document(&message.labels)?));
        }
        let mut builder = Builder::new(
            "INSERT INTO messages (id, agent_id, run_id, step_id, role, body, labels, folded, in_context, position, \
             created_at, thread_id, otid) ",
        );
        builder.push_values(rows, |mut row, (message, place, body, labels)| {
            row.push_bind(message.id.uuid())
                .push_bind(message.agent_id.uuid())
                .push_bind(message.run_id.map(|id| id.uuid()))
                .push_bind(message.step_id.map(|id| id.uuid()))
                .push_bind(message.body.role().as_str())
                .push_bind(body)
                .push_bind(labels)
                .push_bind(searchable(&message.body))
                .push_bind(visibility == Visibility::InContext)
                .push_bind(*place)
                .push_bind(micros(message.created_at))
                .push_bind(thread.uuid())
                .push_bind(message.labels.otid.as_deref().map(|otid| plain(otid).into_owned()));
        });
        builder.build().execute(&mut *conn).await?;
    }
    Ok(())
}

/// Enters a thread with its system message, which is always in context. The one of an agent's own thread is the first of
/// its history.
pub(super) async fn insert_thread(conn: &mut Conn, thread: Thread, system: &Message) -> Result<(), StoreError> {
    let place = if thread.conversation.is_some() { reserve(conn, thread.agent, 1).await? } else { 0 };
    insert(conn, thread, std::slice::from_ref(system), place, Visibility::InContext).await?;
    sqlx::query(
        "INSERT INTO threads (id, agent_id, system_id, prompt_version) \
         VALUES ($1, $2, $3, (SELECT prompt_version FROM agents WHERE id = $2))",
    )
    .bind(thread.uuid())
    .bind(thread.agent.uuid())
    .bind(system.id.uuid())
    .execute(conn)
    .await?;
    Ok(())
}

/// Puts another text in the place of a thread's system message, which keeps its id.
pub(super) async fn replace_system(conn: &mut Conn, thread: Thread, body: &Body) -> Result<(), StoreError> {
    sqlx::query("UPDATE messages SET body = $2, folded = $3 WHERE id = (SELECT system_id FROM threads WHERE id = $1)")
        .bind(thread.uuid())
        .bind(values::document(body)?)
        .bind(searchable(body))
        .execute(conn)
        .await?;
    Ok(())
}

/// Makes these messages, in the order of the history, the context of the agent's own thread. The system message always stays, and the input of
/// runs that wait stays outside until they are claimed.
pub(super) async fn set_context(conn: &mut Conn, agent: AgentId, wanted: &[MessageId]) -> Result<(), StoreError> {
    let list = || list_of_ids(wanted.iter().map(|id| id.uuid()));
    sqlx::query(concat!(
        "UPDATE messages SET in_context = FALSE WHERE thread_id = $1 AND in_context AND position > 0 AND NOT (id",
        in_ids!("$2"),
        ")"
    ))
    .bind(agent.uuid())
    .bind(list())
    .execute(&mut *conn)
    .await?;
    sqlx::query(concat!(
        "UPDATE messages SET in_context = TRUE WHERE thread_id = $1 AND NOT in_context AND id",
        in_ids!("$2"),
        " AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.id = messages.run_id AND runs.epoch = 0)"
    ))
    .bind(agent.uuid())
    .bind(list())
    .execute(conn)
    .await?;
    Ok(())
}

/// Brings the input of a run that is claimed for the first time into the context, behind everything that is there.
pub(super) async fn bring_in_input(
    conn: &mut Conn,
    thread: Thread,
    run: RunId,
    last_position: i64,
) -> Result<(), StoreError> {
    let row = sqlx::query(
        "SELECT coalesce(min(position), 0) AS first, coalesce(max(position), 0) AS last FROM messages WHERE run_id = $1",
    )
    .bind(run.uuid())
    .fetch_one(&mut *conn)
    .await?;
    let (first, last): (i64, i64) = (row.try_get("first")?, row.try_get("last")?);
    if last == 0 {
        return Ok(());
    }
    // What the runs before it made came later and stands behind it: then move it to the end. The input of runs that wait
    // stays where it is; it moves when its turn comes.
    let is_overtaken: bool = sqlx::query_scalar(concat!(
        "SELECT EXISTS (SELECT 1 FROM ",
        thread_messages!(),
        " WHERE thread_id = $1 AND position > $2 \
         AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.id = thread_messages.run_id AND runs.epoch = 0))",
    ))
    .bind(thread.uuid())
    .bind(last)
    .fetch_one(&mut *conn)
    .await?;
    let shift = if is_overtaken { last_position - first + 1 } else { 0 };
    if is_overtaken {
        sqlx::query("UPDATE agents SET last_position = $2 WHERE id = $1")
            .bind(thread.agent.uuid())
            .bind(last + shift)
            .execute(&mut *conn)
            .await?;
    }
    sqlx::query("UPDATE messages SET in_context = TRUE, position = position + $2 WHERE run_id = $1")
        .bind(run.uuid())
        .bind(shift)
        .execute(conn)
        .await?;
    Ok(())
}

/// Takes everything but the system message out of the context.
pub(super) async fn clear_context(conn: &mut Conn, thread: Thread) -> Result<(), StoreError> {
    for query in [
        "UPDATE messages SET in_context = FALSE WHERE thread_id = $1 AND in_context \
         AND id <> (SELECT system_id FROM threads WHERE threads.id = $1)",
        "UPDATE shared_messages SET in_context = FALSE WHERE thread_id = $1 AND in_context",
    ] {
        sqlx::query(query).bind(thread.uuid()).execute(&mut *conn).await?;
    }
    Ok(())
}

/// The messages in context: the system message, then the others, oldest first.
pub(super) async fn in_context(conn: &mut Conn, thread: Thread) -> Result<Vec<Message>, StoreError> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        message_columns!(),
        " FROM ",
        thread_messages!(),
        " WHERE thread_id = $1 AND in_context \
         ORDER BY id <> (SELECT system_id FROM threads WHERE threads.id = $1), position"
    ))
    .bind(thread.uuid())
    .fetch_all(conn)
    .await?;
    rows.iter().map(read).collect()
}

pub(super) async fn list(
    store: &Adapter,
    filter: &MessageFilter,
    page: &Page<MessageId>,
) -> Result<Vec<Message>, StoreError> {
    let mut conn = store.reader().acquire().await?;
    let after = place(&mut conn, filter, page.after).await?;
    let before = place(&mut conn, filter, page.before).await?;
    let mut builder = Builder::new(concat!("SELECT ", message_columns!(), " FROM "));
    match filter.thread {
        Some(thread) => {
            builder.push(concat!(thread_messages!(), " WHERE thread_id = ")).push_bind(thread.uuid());
        }
        None => {
            builder.push("messages WHERE agent_id = ").push_bind(filter.agent.uuid());
        }
    }
    if let Some(run) = filter.run {
        builder.push(" AND run_id = ").push_bind(run.uuid());
    }
    let direction = page::push(&mut builder, HISTORY, page, after, before);
    let rows = builder.build().fetch_all(&mut *conn).await?;
    Ok(direction.restore(rows.iter().map(read).collect::<Result<_, _>>()?))
}

async fn place(
    conn: &mut Conn,
    filter: &MessageFilter,
    cursor: Option<MessageId>,
) -> Result<Option<Place>, StoreError> {
    let Some(cursor) = cursor else { return Ok(None) };
    let position: Option<i64> = match filter.thread {
        Some(thread) => place_in(conn, thread, cursor).await?,
        None => {
            let query = "SELECT position FROM messages WHERE id = $1 AND agent_id = $2";
            sqlx::query_scalar(query).bind(cursor.uuid()).bind(filter.agent.uuid()).fetch_optional(conn).await?
        }
    };
    position.map(|key| Some(Place { key, tie: None })).ok_or(StoreError::UnknownCursor)
}

/// Where a message stands in a thread, if it is in it.
pub(super) async fn place_in(conn: &mut Conn, thread: Thread, id: MessageId) -> Result<Option<i64>, StoreError> {
    let query = concat!("SELECT position FROM ", thread_messages!(), " WHERE id = $1 AND thread_id = $2");
    Ok(sqlx::query_scalar(query).bind(id.uuid()).bind(thread.uuid()).fetch_optional(conn).await?)
}

pub(super) async fn search(
    store: &Adapter,
    agent: AgentId,
    search: &MessageSearch,
) -> Result<Vec<Message>, StoreError> {
    let mut builder = Builder::new(concat!("SELECT ", message_columns!(), " FROM messages WHERE agent_id = "));
    builder.push_bind(agent.uuid());
    push_search(&mut builder, search);
    builder.push(" ORDER BY position DESC LIMIT ").push_bind(i64::from(search.limit));
    let rows = builder.build().fetch_all(store.reader()).await?;
    rows.iter().map(read).collect()
}

/// Adds what a search asks for to a WHERE clause.
pub(super) fn push_search(builder: &mut Builder, search: &MessageSearch) {
    let roles: &[Role] = if search.roles.is_empty() { &[Role::User, Role::Assistant] } else { &search.roles };
    builder.push(" AND role IN (");
    let mut list = builder.separated(", ");
    for role in roles {
        list.push_bind(role.as_str());
    }
    builder.push(")");
    for word in search.query.iter().flat_map(SearchWords::as_slice) {
        builder.push(" AND ").push(FIND).push("(folded, ").push_bind(folded(word)).push(") > 0");
    }
    if let Some(from) = search.from {
        builder.push(" AND created_at >= ").push_bind(micros(from));
    }
    if let Some(until) = search.until {
        builder.push(" AND created_at < ").push_bind(micros(until));
    }
}

/// A message as its row has it.
pub(super) fn read(row: &Row) -> Result<Message, StoreError> {
    Ok(Message {
        id: id(row, "id")?,
        agent_id: id(row, "agent_id")?,
        run_id: optional_id(row, "run_id")?,
        step_id: optional_id(row, "step_id")?,
        body: document(row, "body")?,
        labels: document(row, "labels")?,
        created_at: moment(row, "created_at")?,
    })
}
