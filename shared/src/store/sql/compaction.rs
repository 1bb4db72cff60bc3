//! Compactions: messages leave the context, a summary comes in.

use sqlx::Row as _;

use super::{Adapter, agents, blocks, claims, document, events, list_of_ids, messages};
use crate::domain::agent::AgentSettings;
use crate::domain::ids::Id as _;
use crate::domain::lease::Lease;
use crate::domain::message::{Body, Content};
use crate::ports::store::{Compaction, StoreError};
use crate::store::values;

/// Whether a message of the thread `$1` is in context and not its system message.
macro_rules! own_part {
    () => {
        "in_context AND id <> (SELECT system_id FROM threads WHERE threads.id = $1)"
    };
}

pub(super) async fn compact(store: &Adapter, lease: &Lease, compaction: &Compaction) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    let held = claims::fence(&mut tx, lease).await?;
    let agent = sqlx::query(concat!("SELECT settings, last_position FROM agents WHERE id = $1", for_update!()))
        .bind(held.thread.agent.uuid())
        .fetch_one(&mut *tx)
        .await?;
    let is_done: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM messages WHERE id = $1)")
        .bind(compaction.summary.id.uuid())
        .fetch_one(&mut *tx)
        .await?;
    // The same once more, after a lost confirmation.
    if is_done {
        events::extend(&mut tx, &held, &compaction.events).await?;
        tx.commit().await?;
        return Ok(());
    }
    let thread = held.thread;
    for query in [
        concat!(
            "UPDATE messages SET in_context = FALSE WHERE thread_id = $1 AND ",
            own_part!(),
            " AND id",
            in_ids!("$2")
        ),
        concat!(
            "UPDATE shared_messages SET in_context = FALSE WHERE thread_id = $1 AND in_context AND message_id",
            in_ids!("$2")
        ),
    ] {
        sqlx::query(query)
            .bind(thread.uuid())
            .bind(list_of_ids(compaction.dropped.iter().map(|id| id.uuid())))
            .execute(&mut *tx)
            .await?;
    }
    // The order of the context is that of the history: the summary goes to its end, and what stays in context behind it.
    let last: i64 = agent.try_get("last_position")?;
    let kept = sqlx::query(concat!(
        "SELECT coalesce(min(position), 0) AS first, coalesce(max(position), 0) AS last FROM ",
        thread_messages!(),
        " WHERE thread_id = $1 AND ",
        own_part!()
    ))
    .bind(thread.uuid())
    .fetch_one(&mut *tx)
    .await?;
    let (first_kept, last_kept): (i64, i64) = (kept.try_get("first")?, kept.try_get("last")?);
    let shift = last + 2 - first_kept;
    let last = if last_kept == 0 { last + 1 } else { last_kept + shift };
    sqlx::query("UPDATE agents SET last_position = $2 WHERE id = $1")
        .bind(thread.agent.uuid())
        .bind(last)
        .execute(&mut *tx)
        .await?;
    for query in [
        concat!("UPDATE messages SET position = position + $2 WHERE thread_id = $1 AND ", own_part!()),
        "UPDATE shared_messages SET position = position + $2 WHERE thread_id = $1 AND in_context",
    ] {
        sqlx::query(query).bind(thread.uuid()).bind(shift).execute(&mut *tx).await?;
    }
    let place = agent.try_get::<i64, _>("last_position")? + 1;
    let summary = std::slice::from_ref(&compaction.summary);
    messages::insert(&mut tx, thread, summary, place, messages::Visibility::InContext).await?;
    sqlx::query("UPDATE runs SET usage = $2, system = NULL WHERE id = $1")
        .bind(held.run.uuid())
        .bind(values::document(&compaction.run_usage)?)
        .execute(&mut *tx)
        .await?;
    let settings: AgentSettings = document(&agent, "settings")?;
    let blocks = blocks::of_agent(&mut tx, thread.agent).await?;
    let text = agents::compile(&mut tx, thread, &settings, &blocks, compaction.at).await?;
    messages::replace_system(&mut tx, thread, &Body::System(Content::Text(text))).await?;
    events::extend(&mut tx, &held, &compaction.events).await?;
    tx.commit().await?;
    Ok(())
}
