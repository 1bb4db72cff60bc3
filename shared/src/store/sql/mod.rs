//! The queries, compiled once for each database. `super` is the database's file: it gives `Db`, `Adapter` and the dialect.
//!
//! Order of locks, the same everywhere so that transactions wait for each other and never in a circle: run, then agents,
//! lowest id first, then blocks, lowest id first. Nobody who holds an agent's row locks a run.

use std::time::Duration;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use sqlx::{Database, QueryBuilder, Row as _};
use uuid::Uuid;

use super::{Adapter, Db, FIND, IN_IDS, IN_NUMBERS, IN_TEXTS, list_of_ids, list_of_numbers, list_of_texts};
use crate::domain::Timestamp;
use crate::domain::agent::Agent;
use crate::domain::block::{Block, BlockChange};
use crate::domain::callback::CallbackTry;
use crate::domain::conversation::{Conversation, ConversationChange};
use crate::domain::event::Event;
use crate::domain::ids::{AgentId, BlockId, ConversationId, Id, MessageId, RunId, StepId, ToolId, WorkerId};
use crate::domain::lease::{Lease, TakeoverAfter};
use crate::domain::message::Message;
use crate::domain::page::Page;
use crate::domain::position::SeqId;
use crate::domain::run::Run;
use crate::domain::step::Step;
use crate::domain::tenant::TenantId;
use crate::domain::thread::{Thread, ThreadScope};
use crate::domain::tool::{Tool, ToolReturn};
use crate::ports::store::{
    Accepted, AgentChange, AgentFilter, AnswerRecord, ApprovalCancel, BlockChanged, BlockFilter, BlockName,
    CancelRequest, Claim, Compaction, Context, ContextReset, ConversationFilter, ConversationMade, ExpiredApproval,
    FeedbackChange, Fork, FoundMessage, Heartbeat, LoneCall, MemoryEdit, MessageFilter, MessageScope, MessageSearch,
    NewRun, NewStep, OutboxEntry, RequestKey, RunDeletion, RunEnd, RunFilter, StepCommit, StepFilter, Store,
    StoreError, TakenCallback, ToolFilter, WorkerFacts,
};
use crate::store::values;

/// The columns that [`runs::read`] wants.
macro_rules! run_columns {
    () => {
        "id, tenant, agent_id, thread_id, status, request, cancel_requested_at, usage, archived, terminal_seq, stop_reason, \
         error, created_at, completed_at, ttft_ns, callback_sent_at, callback_status_code, callback_error"
    };
}

/// All messages with the threads that they are in: their own, and the forks that share them.
macro_rules! thread_messages {
    () => {
        thread_messages!("thread_messages")
    };
    ($name:literal) => {
        concat!(
            "(SELECT id, agent_id, run_id, step_id, role, body, labels, created_at, thread_id, position, in_context \
           FROM messages \
         UNION ALL \
         SELECT messages.id, messages.agent_id, messages.run_id, messages.step_id, messages.role, messages.body, \
           messages.labels, messages.created_at, shared_messages.thread_id, shared_messages.position, \
           shared_messages.in_context \
           FROM shared_messages JOIN messages ON messages.id = shared_messages.message_id) AS ",
            $name
        )
    };
}

/// The columns that [`messages::read`] wants.
macro_rules! message_columns {
    () => {
        "id, agent_id, run_id, step_id, body, labels, created_at"
    };
}

/// The columns that [`steps::read`] wants.
macro_rules! step_columns {
    () => {
        "id, run_id, agent_id, number, status, stop_reason, model, usage, error, retries, started_at, \
         llm_request_ns, tool_execution_ns, step_ns, feedback, tags, \
         (SELECT runs.trace FROM runs WHERE runs.id = steps.run_id) AS trace"
    };
}

/// The columns that [`agents::read`] wants.
macro_rules! agent_columns {
    () => {
        agent_columns!("")
    };
    ($table:literal) => {
        concat!(
            $table,
            "id, ",
            $table,
            "name, ",
            $table,
            "settings, ",
            $table,
            "last_stop_reason, ",
            $table,
            "last_run_completion, ",
            $table,
            "last_run_duration_ms, ",
            $table,
            "created_at, ",
            $table,
            "updated_at"
        )
    };
}

/// Whether a created run has to wait: for a run that executes, for one before it in its thread's line, or for an answer
/// that the thread waits for. Answers go before everything else.
macro_rules! is_blocked {
    () => {
        "((runs.answers IS NULL AND threads.pending_approval IS NOT NULL) OR EXISTS (\
           SELECT 1 FROM runs AS other WHERE other.thread_id = runs.thread_id AND other.id <> runs.id \
           AND (other.status = 'running' OR other.status = 'created' AND (\
             other.answers IS NOT NULL AND runs.answers IS NULL \
             OR (other.answers IS NULL) = (runs.answers IS NULL) AND other.arrival < runs.arrival))))"
    };
}

/// The columns that [`tools::read`] wants.
macro_rules! tool_columns {
    () => {
        "id, name, description, parameters, source, options, created_at, updated_at"
    };
}

mod agents;
mod approvals;
mod blocks;
mod callbacks;
mod claims;
mod compaction;
mod conversations;
mod ends;
mod events;
mod history;
mod memory;
mod messages;
mod outbox;
mod page;
mod rescue;
mod reset;
mod runs;
mod steps;
mod tools;

/// A connection, in or outside of a transaction.
type Conn = <Db as Database>::Connection;
/// A row.
type Row = <Db as Database>::Row;
/// A query whose shape depends on what is asked for. Values are always bound, never written into it.
type Builder = QueryBuilder<Db>;

#[async_trait]
impl Store for Adapter {
    async fn create_agent(
        &self,
        tenant: &TenantId,
        agent: &Agent,
        attached: &[BlockId],
        messages: &[Message],
    ) -> Result<Agent, StoreError> {
        agents::create(self, tenant, agent, attached, messages).await
    }

    async fn agent(&self, tenant: &TenantId, id: AgentId) -> Result<Option<Agent>, StoreError> {
        agents::get(self, tenant, id).await
    }

    async fn agents(
        &self,
        tenant: &TenantId,
        filter: &AgentFilter,
        page: &Page<AgentId>,
    ) -> Result<Vec<Agent>, StoreError> {
        agents::list(self, tenant, filter, page).await
    }

    async fn count_agents(&self, tenant: &TenantId, filter: &AgentFilter) -> Result<u64, StoreError> {
        agents::count(self, tenant, filter).await
    }

    async fn tags(
        &self,
        tenant: &TenantId,
        text: Option<&str>,
        page: &Page<String>,
    ) -> Result<Vec<String>, StoreError> {
        agents::tags(self, tenant, text, page).await
    }

    async fn change_agent(
        &self,
        tenant: &TenantId,
        id: AgentId,
        change: &AgentChange<'_>,
        now: Timestamp,
    ) -> Result<Option<Agent>, StoreError> {
        agents::change(self, tenant, id, change, now).await
    }

    async fn delete_agent(&self, tenant: &TenantId, id: AgentId, now: Timestamp) -> Result<bool, StoreError> {
        agents::delete(self, tenant, id, now).await
    }

    async fn recompile(
        &self,
        tenant: &TenantId,
        thread: Thread,
        is_kept: bool,
        now: Timestamp,
    ) -> Result<Option<String>, StoreError> {
        conversations::recompile_on_demand(self, tenant, thread, is_kept, now).await
    }

    async fn create_block(&self, tenant: &TenantId, block: &Block) -> Result<(), StoreError> {
        blocks::create(self, tenant, block).await
    }

    async fn block(&self, tenant: &TenantId, id: BlockId) -> Result<Option<Block>, StoreError> {
        blocks::get(self, tenant, id).await
    }

    async fn blocks(
        &self,
        tenant: &TenantId,
        filter: &BlockFilter,
        page: &Page<BlockId>,
    ) -> Result<Vec<Block>, StoreError> {
        blocks::list(self, tenant, filter, page).await
    }

    async fn count_blocks(&self, tenant: &TenantId, filter: &BlockFilter) -> Result<u64, StoreError> {
        blocks::count(self, tenant, filter).await
    }

    async fn change_block(
        &self,
        tenant: &TenantId,
        block: BlockName<'_>,
        change: &BlockChange,
        now: Timestamp,
    ) -> Result<BlockChanged, StoreError> {
        blocks::change(self, tenant, block, change, now).await
    }

    async fn delete_block(&self, tenant: &TenantId, id: BlockId, now: Timestamp) -> Result<bool, StoreError> {
        blocks::delete(self, tenant, id, now).await
    }

    async fn attach_block(
        &self,
        tenant: &TenantId,
        agent: AgentId,
        block: BlockId,
        now: Timestamp,
    ) -> Result<BlockChanged<Agent>, StoreError> {
        blocks::attach(self, tenant, agent, block, now).await
    }

    async fn detach_block(
        &self,
        tenant: &TenantId,
        agent: AgentId,
        block: BlockId,
        now: Timestamp,
    ) -> Result<BlockChanged<Agent>, StoreError> {
        blocks::detach(self, tenant, agent, block, now).await
    }

    async fn create_conversation(
        &self,
        tenant: &TenantId,
        conversation: &Conversation,
        system: MessageId,
        fork: Option<&Fork>,
    ) -> Result<ConversationMade, StoreError> {
        conversations::create(self, tenant, conversation, system, fork).await
    }

    async fn conversation(&self, tenant: &TenantId, id: ConversationId) -> Result<Option<Conversation>, StoreError> {
        let mut conn = self.reader().acquire().await?;
        conversations::get(&mut conn, tenant, id).await
    }

    async fn conversations(
        &self,
        tenant: &TenantId,
        filter: &ConversationFilter,
        page: &Page<ConversationId>,
    ) -> Result<Vec<Conversation>, StoreError> {
        conversations::list(self, tenant, filter, page).await
    }

    async fn change_conversation(
        &self,
        tenant: &TenantId,
        id: ConversationId,
        change: &ConversationChange,
        now: Timestamp,
    ) -> Result<Option<Conversation>, StoreError> {
        conversations::change(self, tenant, id, change, now).await
    }

    async fn delete_conversation(
        &self,
        tenant: &TenantId,
        id: ConversationId,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        conversations::delete(self, tenant, id, now).await
    }

    async fn put_tool(&self, tenant: Option<&TenantId>, tool: &Tool) -> Result<Tool, StoreError> {
        tools::put(self, tenant, tool).await
    }

    async fn tool(&self, tenant: &TenantId, id: ToolId) -> Result<Option<Tool>, StoreError> {
        tools::get(self, tenant, id).await
    }

    async fn tools_by_name(&self, tenant: &TenantId, names: &[String]) -> Result<Vec<Tool>, StoreError> {
        let mut conn = self.reader().acquire().await?;
        Ok(tools::meanings(&mut conn, tenant, names).await?.of(names))
    }

    async fn tools(
        &self,
        tenant: &TenantId,
        filter: &ToolFilter,
        page: &Page<ToolId>,
    ) -> Result<Vec<Tool>, StoreError> {
        tools::list(self, tenant, filter, page).await
    }

    async fn count_tools(&self, tenant: &TenantId, filter: &ToolFilter) -> Result<u64, StoreError> {
        tools::count(self, tenant, filter).await
    }

    async fn change_tool(&self, tenant: &TenantId, tool: &Tool) -> Result<Option<Tool>, StoreError> {
        tools::change(self, tenant, tool).await
    }

    async fn delete_tool(&self, tenant: &TenantId, id: ToolId, now: Timestamp) -> Result<bool, StoreError> {
        tools::delete(self, tenant, id, now).await
    }

    async fn messages(&self, filter: &MessageFilter, page: &Page<MessageId>) -> Result<Vec<Message>, StoreError> {
        messages::list(self, filter, page).await
    }

    async fn search_messages(&self, agent: AgentId, search: &MessageSearch) -> Result<Vec<Message>, StoreError> {
        messages::search(self, agent, search).await
    }

    async fn find_messages(
        &self,
        tenant: &TenantId,
        scope: &MessageScope,
        page: &Page<MessageId>,
    ) -> Result<Vec<FoundMessage>, StoreError> {
        history::find(self, tenant, scope, page).await
    }

    async fn message(&self, tenant: &TenantId, id: MessageId) -> Result<Option<FoundMessage>, StoreError> {
        history::get(self, tenant, id).await
    }

    async fn search_all_messages(
        &self,
        tenant: &TenantId,
        agent: Option<AgentId>,
        threads: ThreadScope,
        search: &MessageSearch,
    ) -> Result<Vec<FoundMessage>, StoreError> {
        history::search(self, tenant, agent, threads, search).await
    }

    async fn reset_context(
        &self,
        tenant: &TenantId,
        agent: AgentId,
        now: Timestamp,
    ) -> Result<ContextReset, StoreError> {
        reset::reset(self, tenant, agent, now).await
    }

    async fn find_steps(
        &self,
        tenant: &TenantId,
        filter: &StepFilter,
        page: &Page<StepId>,
    ) -> Result<Vec<Step>, StoreError> {
        steps::find(self, tenant, filter, page).await
    }

    async fn step(&self, tenant: &TenantId, id: StepId) -> Result<Option<Step>, StoreError> {
        let mut conn = self.reader().acquire().await?;
        steps::get(&mut conn, tenant, id).await
    }

    async fn rate_step(
        &self,
        tenant: &TenantId,
        id: StepId,
        change: &FeedbackChange,
    ) -> Result<Option<Step>, StoreError> {
        steps::rate(self, tenant, id, change).await
    }

    async fn accept_run(&self, new: &NewRun) -> Result<Accepted, StoreError> {
        runs::accept(self, new).await
    }

    async fn run_by_key(&self, agent: AgentId, key: &RequestKey) -> Result<Option<Accepted>, StoreError> {
        let mut conn = self.reader().acquire().await?;
        runs::by_key(&mut conn, agent, key).await
    }

    async fn active_run_by_content(&self, thread: Thread, content: &str) -> Result<Option<Run>, StoreError> {
        runs::active_by_content(self, thread, content).await
    }

    async fn run_by_otid(&self, thread: Thread, otid: &str) -> Result<Option<Run>, StoreError> {
        runs::by_otid(self, thread, otid).await
    }

    async fn run(&self, tenant: &TenantId, id: RunId) -> Result<Option<Run>, StoreError> {
        runs::get(self, tenant, id).await
    }

    async fn runs(&self, tenant: &TenantId, filter: &RunFilter, page: &Page<RunId>) -> Result<Vec<Run>, StoreError> {
        runs::list(self, tenant, filter, page).await
    }

    async fn delete_run(&self, tenant: &TenantId, id: RunId) -> Result<RunDeletion, StoreError> {
        runs::delete(self, tenant, id).await
    }

    async fn steps(&self, run: RunId, page: &Page<StepId>) -> Result<Vec<Step>, StoreError> {
        steps::list(self, run, page).await
    }

    async fn lone_call(&self, run: RunId) -> Result<Option<LoneCall>, StoreError> {
        steps::lone_call(self, run).await
    }

    async fn events(&self, run: RunId, after: SeqId) -> Result<Vec<Event>, StoreError> {
        events::read(self, run, after).await
    }

    async fn ended_among(&self, runs: &[RunId]) -> Result<Vec<RunId>, StoreError> {
        runs::ended_among(self, runs).await
    }

    async fn request_cancel(&self, run: RunId, now: Timestamp) -> Result<CancelRequest, StoreError> {
        runs::request_cancel(self, run, now).await
    }

    async fn settle_created(&self, run: RunId, end: &RunEnd) -> Result<Option<Vec<OutboxEntry>>, StoreError> {
        ends::settle_created(self, run, end).await
    }

    async fn cancel_approval(
        &self,
        run: RunId,
        cancel: &ApprovalCancel,
    ) -> Result<Option<Vec<OutboxEntry>>, StoreError> {
        approvals::cancel(self, run, cancel).await
    }

    async fn expired_approvals(&self, now: Timestamp, limit: u32) -> Result<Vec<ExpiredApproval>, StoreError> {
        approvals::expired(self, now, limit).await
    }

    async fn heartbeat(&self, worker: WorkerId, facts: &WorkerFacts) -> Result<Heartbeat, StoreError> {
        claims::heartbeat(self, worker, facts).await
    }

    async fn workers(&self, silence: TakeoverAfter) -> Result<Vec<WorkerFacts>, StoreError> {
        claims::workers(self, silence).await
    }

    async fn retire_worker(&self, worker: WorkerId) -> Result<(), StoreError> {
        claims::retire(self, worker).await
    }

    async fn claim(
        &self,
        run: RunId,
        worker: WorkerId,
        after: TakeoverAfter,
        now: Timestamp,
    ) -> Result<Claim, StoreError> {
        claims::claim(self, run, worker, after, now).await
    }

    async fn context(&self, lease: &Lease) -> Result<Context, StoreError> {
        claims::context(self, lease).await
    }

    async fn archive(&self, lease: &Lease, events: &[Event]) -> Result<(), StoreError> {
        events::archive(self, lease, events).await
    }

    async fn begin_step(&self, lease: &Lease, step: &NewStep) -> Result<(), StoreError> {
        steps::begin(self, lease, step).await
    }

    async fn record_answer(&self, lease: &Lease, record: &AnswerRecord) -> Result<(), StoreError> {
        steps::record_answer(self, lease, record).await
    }

    async fn begin_call(&self, lease: &Lease, step: StepId, call: u32) -> Result<(), StoreError> {
        steps::begin_call(self, lease, step, call).await
    }

    async fn record_return(
        &self,
        lease: &Lease,
        step: StepId,
        call: u32,
        tool_return: &ToolReturn,
    ) -> Result<(), StoreError> {
        steps::record_return(self, lease, step, call, tool_return).await
    }

    async fn edit_memory(
        &self,
        lease: &Lease,
        step: StepId,
        call: u32,
        call_id: &str,
        now: Timestamp,
        edit: MemoryEdit<'_>,
    ) -> Result<ToolReturn, StoreError> {
        memory::edit(self, lease, memory::Call { step, number: call, id: call_id }, now, edit).await
    }

    async fn commit_step(
        &self,
        lease: &Lease,
        commit: &StepCommit,
        end: Option<&RunEnd>,
    ) -> Result<Vec<OutboxEntry>, StoreError> {
        steps::commit(self, lease, commit, end).await
    }

    async fn compact(&self, lease: &Lease, compaction: &Compaction) -> Result<(), StoreError> {
        compaction::compact(self, lease, compaction).await
    }

    async fn settle(&self, lease: &Lease, end: &RunEnd) -> Result<Vec<OutboxEntry>, StoreError> {
        ends::settle(self, lease, end).await
    }

    async fn release(&self, lease: &Lease) -> Result<Vec<OutboxEntry>, StoreError> {
        claims::release(self, lease).await
    }

    async fn outbox_due(&self, limit: u32) -> Result<Vec<OutboxEntry>, StoreError> {
        outbox::due(self, limit).await
    }

    async fn outbox_done(&self, ids: &[i64]) -> Result<(), StoreError> {
        outbox::done(self, ids).await
    }

    async fn rescue(&self, after: TakeoverAfter, unclaimed_after: Duration) -> Result<u64, StoreError> {
        rescue::rescue(self, after, unclaimed_after).await
    }

    async fn take_callback(&self, busy: &[String], left_for: Duration) -> Result<Option<TakenCallback>, StoreError> {
        callbacks::take(self, busy, left_for).await
    }

    async fn callback_tried(
        &self,
        taken: &TakenCallback,
        tried: &CallbackTry,
        pause: Option<Duration>,
    ) -> Result<bool, StoreError> {
        callbacks::tried(self, taken, tried, pause).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(self.reader()).await?;
        Ok(())
    }

    fn name(&self) -> &'static str {
        Self::NAME
    }
}

/// The id in a column.
fn id<I: Id>(row: &Row, column: &str) -> Result<I, StoreError> {
    Ok(I::from_uuid(row.try_get::<Uuid, _>(column)?))
}

/// The id in a column, if there is one.
fn optional_id<I: Id>(row: &Row, column: &str) -> Result<Option<I>, StoreError> {
    Ok(row.try_get::<Option<Uuid>, _>(column)?.map(I::from_uuid))
}

/// The moment in a column.
fn moment(row: &Row, column: &str) -> Result<Timestamp, StoreError> {
    values::moment(row.try_get(column)?)
}

/// The document in a column.
fn document<T: DeserializeOwned>(row: &Row, column: &str) -> Result<T, StoreError> {
    values::parse(row.try_get::<&str, _>(column)?)
}

/// The document in a column, if there is one.
fn optional_document<T: DeserializeOwned>(row: &Row, column: &str) -> Result<Option<T>, StoreError> {
    row.try_get::<Option<&str>, _>(column)?.map(values::parse).transpose()
}

/// The place in an event log in a column.
fn seq(row: &Row, column: &str) -> Result<SeqId, StoreError> {
    values::unsigned(row.try_get(column)?).map(SeqId::new)
}

/// A duration as the databases count.
fn duration_micros(duration: Duration) -> i64 {
    // A duration beyond 290 000 years is as good as for ever.
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 2)
}
