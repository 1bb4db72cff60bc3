//! The contract of the store: what every adapter promises. What is not in here is not promised.
//!
//! Each case gets an empty store. [`store_contract`](crate::store_contract) makes a test of each.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::domain::Timestamp;
use crate::domain::agent::{Agent, AgentSettings, ReferenceKind};
use crate::domain::approval::{Answering, CallAnswer};
use crate::domain::block::{Block, BlockChange, BlockDetails, BlockWriteError};
use crate::domain::builtin_tools;
use crate::domain::callback::{CallbackResult, CallbackTry, CallbackUrl};
use crate::domain::compaction::{CompactionStats, CompactionTrigger, Summary};
use crate::domain::conversation::{Conversation, ConversationChange, ConversationSettings};
use crate::domain::event::{Event, EventKind};
use crate::domain::ids::{AgentId, BlockId, ConversationId, Id, MessageId, RunId, StepId, ToolId, WorkerId};
use crate::domain::lease::{Lease, TakeoverAfter};
use crate::domain::limits::{APPEND_BATCH_BYTES, READ_BYTES};
use crate::domain::message::{Answer, AnswerPart, Body, Content, Labels, Message, Role};
use crate::domain::model::ModelHandle;
use crate::domain::page::{Order, Page};
use crate::domain::position::SeqId;
use crate::domain::run::{
    Attachment, ErrorType, Outcome, Run, RunError, RunRequest, RunState, RunStatus, RunType, RunWork, StreamMode,
};
use crate::domain::step::{Feedback, Retry, Step, StepStatus};
use crate::domain::stop_reason::StopReason;
use crate::domain::tenant::TenantId;
use crate::domain::thread::{Thread, ThreadScope};
use crate::domain::tool::{HttpEndpoint, Tool, ToolCall, ToolOptions, ToolReturn, ToolSource, ToolSpec, ToolStatus};
use crate::domain::tool_rule::ToolRule;
use crate::domain::usage::{RunUsage, Usage};
use crate::ports::seams::Seams;
use crate::ports::store::{
    Accepted, AgentChange, AgentFilter, AgentOrder, AnswerRecord, ApprovalCancel, ApprovalChange, BlockChanged,
    BlockFilter, BlockName, CancelRequest, Claim, Claimed, Compaction, ContextReset, ConversationFilter,
    ConversationMade, ConversationOrder, EditOutcome, FeedbackChange, Fork, FoundMessage, LastRun, MessageFilter,
    MessageScope, MessageSearch, NewRun, NewStep, OutboxEntry, RequestKey, RunDeletion, RunEnd, RunFilter, StepCommit,
    StepFilter, Store, StoreError, ToolFilter, WorkerFacts,
};

mod agents;
mod approvals;
mod blocks;
mod callbacks;
mod compaction;
mod conversations;
mod ends;
mod history;
mod lists;
mod outbox;
mod runs;
mod steps;
mod tools;

pub use agents::*;
pub use approvals::*;
pub use blocks::*;
pub use callbacks::*;
pub use compaction::*;
pub use conversations::*;
pub use ends::*;
pub use history::*;
pub use lists::*;
pub use outbox::*;
pub use runs::*;
pub use steps::*;
pub use tools::*;

/// Makes a test of each case. The argument is an async function that runs a case on a new, empty store.
#[macro_export]
macro_rules! store_contract {
    ($with_store:path) => {
        $crate::store_contract!(@tests $with_store:
            an_agent_reads_back_as_it_was_stored
            agents_are_found_by_name_text_and_tags
            a_change_of_settings_compiles_the_system_message_anew
            changes_of_settings_at_the_same_time_do_not_undo_each_other
            a_changed_block_is_in_the_system_message_at_once
            a_system_message_is_compiled_on_demand
            a_client_chooses_what_is_in_context
            a_deleted_agent_is_unknown_but_its_runs_stay
            tenants_see_nothing_of_each_other
            a_block_is_attached_to_any_number_of_agents_and_outlives_them
            an_agent_is_given_the_blocks_that_it_is_to_have
            a_change_of_a_block_is_in_the_prompts_of_all_its_agents
            a_tool_changes_a_shared_block_for_all_its_agents
            a_deleted_block_is_taken_from_all_its_agents
            changes_of_shared_blocks_at_the_same_time_leave_no_old_prompt
            blocks_are_filtered_and_listed_by_pages
            agents_are_found_by_their_last_run_and_by_what_they_refer_to
            the_tags_of_agents_are_listed_once_each
            accepting_stores_run_input_events_and_hint_together
            a_refused_run_leaves_nothing_behind
            the_same_request_many_times_at_once_makes_one_run
            a_key_that_was_used_for_something_else_is_refused
            a_repeat_without_a_key_can_join_an_active_run
            a_full_line_refuses_and_names_the_active_run
            runs_of_an_agent_execute_one_at_a_time_in_order_of_arrival
            of_many_claims_at_once_one_wins
            a_live_holder_keeps_its_run_and_a_silent_one_loses_it
            a_retired_workers_run_can_be_taken_at_once
            a_fenced_worker_can_write_nothing
            the_archive_has_no_gap_and_is_read_from_any_cursor
            a_large_archive_is_read_in_parts
            a_step_without_an_answer_is_replaced
            recorded_results_survive_a_takeover
            a_memory_edit_is_applied_once
            a_failed_memory_edit_changes_nothing_but_is_recorded
            a_committed_step_is_whole_and_resets_the_attempts
            writes_may_be_repeated_after_a_lost_confirmation
            the_input_of_a_run_enters_the_context_with_its_claim
            an_agent_that_clears_its_context_starts_each_run_empty
            the_end_of_a_run_wakes_the_next_one
            the_last_step_and_the_end_are_one_commit
            an_end_answers_the_calls_that_it_leaves_open
            calls_that_wait_keep_other_runs_waiting
            only_one_run_answers_calls_and_it_goes_first
            a_cancel_settles_calls_that_wait
            calls_are_found_when_their_deadline_has_passed
            an_answering_run_that_ends_early_leaves_no_call_open
            a_call_that_was_begun_is_known_to_the_heir
            a_decided_end_survives_a_takeover
            what_a_provider_refused_leaves_the_context
            a_compaction_puts_a_summary_before_what_stays
            a_cancel_of_a_created_run_ends_it_without_a_worker
            a_cancel_of_a_running_run_is_heard_at_the_heartbeat
            a_released_run_uses_up_no_attempt
            a_callback_is_entered_exactly_with_the_end
            a_callback_has_one_taker_at_a_time
            a_callback_is_taken_again_after_its_takers_silence
            what_came_of_a_callback_is_kept
            a_conversation_has_a_context_and_a_line_of_its_own
            a_conversation_is_listed_changed_and_deleted
            a_change_of_the_agent_reaches_a_conversation_with_its_next_run
            a_fork_shares_messages_and_goes_its_own_way
            a_fork_ends_where_it_is_told_and_holds_no_open_call
            a_run_is_found_by_the_key_of_its_message
            calls_wait_in_the_thread_that_asked
            pages_of_runs_follow_the_requested_order
            pages_of_agents_messages_and_steps_have_no_gap_or_repeat
            unknown_cursors_are_refused
            runs_are_filtered
            messages_are_searched_in_any_case
            messages_are_found_across_the_agents_of_a_tenant
            messages_of_a_group_are_found
            messages_are_found_by_conversation
            a_step_tells_its_messages
            a_search_covers_all_agents_of_a_tenant
            steps_are_found_across_the_runs_of_a_tenant
            a_step_is_rated
            a_deleted_run_leaves_its_messages
            a_run_that_matters_is_not_deleted
            a_reset_empties_the_context_and_keeps_the_history
            the_outbox_keeps_hints_until_they_are_done
            lost_runs_are_hinted_again_but_not_too_often
            any_text_can_be_stored
            a_tool_takes_the_place_of_the_one_of_its_name
            tools_are_filtered_together_with_the_built_in_ones
            pages_of_tools_have_no_gap_or_repeat
            a_tenant_sees_its_own_tools_and_the_operators
            agents_and_their_runs_have_the_attached_tools
            a_deleted_tool_is_taken_from_the_agents_of_its_tenant
        );
    };
    (@tests $with_store:path: $($case:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            $with_store($crate::testkit::store_suite::$case).await;
        }
    )*};
}

/// A store under test.
pub type SharedStore = Arc<dyn Store>;

/// Long enough that no worker in a test is silent for it.
const LONG: TakeoverAfter = TakeoverAfter(Duration::from_secs(600));
/// Every worker is silent for this long.
const AT_ONCE: TakeoverAfter = TakeoverAfter(Duration::ZERO);

fn now() -> Timestamp {
    Seams::system().now()
}

fn new_id<I: Id>() -> I {
    I::from_uuid(Uuid::new_v4())
}

fn default_settings() -> AgentSettings {
    AgentSettings {
        model_settings: Some(serde_json::json!({"temperature": 0.5})),
        context_window_limit: Some(32_000),
        tools: vec!["memory_replace".to_owned()],
        ..AgentSettings::new("letta_v1_agent", "Be kind.", ModelHandle::demo())
    }
}

fn block(label: &str, value: &str) -> Block {
    let details = BlockDetails { description: Some("notes".to_owned()), ..BlockDetails::new(1000) };
    Block {
        id: new_id(),
        label: label.to_owned(),
        value: value.to_owned(),
        details,
        created_at: now(),
        updated_at: now(),
    }
}

fn message(agent_id: AgentId, body: Body) -> Message {
    Message { id: new_id(), agent_id, run_id: None, step_id: None, body, labels: Labels::default(), created_at: now() }
}

fn user(agent: AgentId, text: &str) -> Message {
    message(agent, Body::User(Content::Text(text.to_owned())))
}

/// A tenant's agent in a store.
struct Scene {
    store: SharedStore,
    tenant: TenantId,
    agent: AgentId,
}

impl Scene {
    async fn new(store: &SharedStore) -> Self {
        Self::with_settings(store, default_settings()).await
    }

    async fn with_settings(store: &SharedStore, settings: AgentSettings) -> Self {
        let (agent, system) = new_agent("Ada", settings);
        let tenant = TenantId::default();
        store.create_agent(&tenant, &agent, &[], std::slice::from_ref(&system)).await.expect("a new agent");
        Self { store: Arc::clone(store), tenant, agent: agent.id }
    }

    fn new_run(&self, text: &str) -> NewRun {
        new_run(&self.tenant, self.agent, text)
    }

    async fn accept(&self, text: &str) -> RunId {
        let new = self.new_run(text);
        assert!(matches!(self.store.accept_run(&new).await.expect("accepted"), Accepted::New(_)));
        new.run.id
    }

    async fn run(&self, id: RunId) -> Run {
        self.store.run(&self.tenant, id).await.expect("readable").expect("known")
    }

    async fn agent(&self) -> Agent {
        self.store.agent(&self.tenant, self.agent).await.expect("readable").expect("known")
    }

    async fn history(&self) -> Vec<Message> {
        let filter = MessageFilter::agent(self.agent);
        self.store.messages(&filter, &first_page(Order::Ascending)).await.expect("readable")
    }

    async fn claim(&self, run: RunId) -> Claimed {
        claimed(self.store.claim(run, live_worker(&self.store).await, LONG, now()).await.expect("an answer"))
    }

    async fn take_over(&self, run: RunId) -> Claimed {
        claimed(self.store.claim(run, live_worker(&self.store).await, AT_ONCE, now()).await.expect("an answer"))
    }

    /// Begins a step and says its id.
    async fn begin(&self, lease: &Lease, number: u32) -> StepId {
        let step = NewStep { id: new_id(), number, model: ModelHandle::demo(), started_at: now(), answers: None };
        self.store.begin_step(lease, &step).await.expect("begun");
        step.id
    }

    /// Records an answer with calls and says the message's id.
    async fn answer(&self, lease: &Lease, step: StepId, calls: &[ToolCall]) -> MessageId {
        let record = answer_record(self.agent, lease.run, step, calls);
        self.store.record_answer(lease, &record).await.expect("recorded");
        record.message.id
    }

    async fn settle(&self, lease: &Lease) -> Vec<OutboxEntry> {
        let end = end_of(&self.run(lease.run).await, StopReason::EndTurn);
        self.store.settle(lease, &end).await.expect("settled")
    }

    async fn drain_outbox(&self, entries: &[OutboxEntry]) {
        let ids: Vec<_> = entries.iter().map(|entry| entry.id).collect();
        self.store.outbox_done(&ids).await.expect("done");
    }
}

fn new_agent(name: &str, settings: AgentSettings) -> (Agent, Message) {
    let id = new_id();
    let system = message(id, Body::System(Content::Text("compiled".to_owned())));
    let agent = Agent {
        id,
        name: name.to_owned(),
        settings,
        blocks: vec![block("persona", "I help."), block("human", "Unknown.")],
        tools: vec![builtin_tools::by_name("memory_replace").expect("a built-in tool").clone()],
        message_ids: vec![system.id],
        pending_approval: None,
        last_stop_reason: None,
        last_run_completion: None,
        last_run_duration_ms: None,
        created_at: now(),
        updated_at: now(),
    };
    (agent, system)
}

fn new_run(tenant: &TenantId, agent: AgentId, text: &str) -> NewRun {
    let id = new_id();
    let request = RunRequest {
        attachment: Attachment::Background,
        mode: StreamMode::Tokens,
        include_pings: true,
        max_steps: 50,
        ..RunRequest::of_work(RunType::SendMessageStreaming, RunWork::Answer)
    };
    let run = Run {
        id,
        tenant: tenant.clone(),
        agent_id: agent,
        conversation_id: None,
        request,
        state: RunState::Created,
        cancel_requested: false,
        usage: RunUsage::default(),
        archived: SeqId::new(1),
        created_at: now(),
        ttft_ns: None,
        callback: None,
    };
    NewRun {
        run,
        input: vec![Message { run_id: Some(id), ..user(agent, text) }],
        key: None,
        content: None,
        opening: vec![event(1, EventKind::Ping)],
        trace: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        max_queued: 10,
    }
}

fn event(seq: u64, kind: EventKind) -> Event {
    Event { seq: SeqId::new(seq), kind, frame: Bytes::from(format!("data: {{\"seq_id\":{seq}}}\n\n")) }
}

fn plain_events(numbers: std::ops::RangeInclusive<u64>) -> Vec<Event> {
    numbers.map(|seq| event(seq, EventKind::AssistantMessage)).collect()
}

fn call(id: &str) -> ToolCall {
    ToolCall::new(id.to_owned(), "look", "{}")
}

fn answer_record(agent: AgentId, run: RunId, step: StepId, calls: &[ToolCall]) -> AnswerRecord {
    let answer =
        Answer { parts: vec![AnswerPart::Text("Let me look.".to_owned())], calls: calls.to_vec(), made_by: None };
    let body = Message { run_id: Some(run), step_id: Some(step), ..message(agent, Body::Assistant(answer)) };
    AnswerRecord { message: body, usage: usage(7), llm_request_ns: 1234, events: Vec::new() }
}

fn usage(tokens: u64) -> Usage {
    Usage { completion_tokens: tokens, prompt_tokens: 1, total_tokens: tokens + 1, ..Usage::default() }
}

fn step_commit(id: StepId, messages: Vec<Message>, events: Vec<Event>) -> StepCommit {
    StepCommit {
        id,
        status: StepStatus::Success,
        stop_reason: None,
        error: None,
        retries: Vec::new(),
        approval: None,
        usage: usage(3),
        messages,
        llm_request_ns: Some(10),
        tool_execution_ns: None,
        step_ns: 20,
        run_usage: RunUsage { sum: usage(3), step_count: 1, context_tokens: Some(99) },
        ttft_ns: Some(5),
        events,
    }
}

fn end_of(run: &Run, reason: StopReason) -> RunEnd {
    let error = (reason.run_status() == RunStatus::Failed).then(|| RunError {
        error_type: ErrorType::InternalError,
        message: "It broke.".to_owned(),
        detail: None,
        provider_status: None,
    });
    let first = run.archived.get() + 1;
    let kinds = [EventKind::StopReason, EventKind::UsageStatistics, EventKind::Done];
    let events = kinds.into_iter().zip(first..).map(|(kind, seq)| event(seq, kind)).collect();
    RunEnd { outcome: Outcome { reason, error }, at: now(), closing: new_id(), forgets_messages: false, events }
}

fn first_page<I>(order: Order) -> Page<I> {
    Page { after: None, before: None, limit: 1000, order }
}

async fn live_worker(store: &SharedStore) -> WorkerId {
    let worker = new_id();
    store.heartbeat(worker, &WorkerFacts::default()).await.expect("a heartbeat");
    worker
}

#[track_caller]
fn claimed(claim: Claim) -> Claimed {
    match claim {
        Claim::Claimed(claimed) => *claimed,
        other => panic!("expected a claim, got {other:?}"),
    }
}

#[track_caller]
fn assert_fenced<T: std::fmt::Debug>(answer: Result<T, StoreError>) {
    assert!(matches!(answer, Err(StoreError::Fenced)), "expected to be fenced, got {answer:?}");
}

fn texts(messages: &[Message]) -> Vec<String> {
    let text = |message: &Message| match &message.body {
        Body::System(_) => "system".to_owned(),
        Body::User(content) | Body::History(content) => content.text(),
        Body::Assistant(_) => "assistant".to_owned(),
        Body::ToolReturns(_) => "tool".to_owned(),
        Body::ApprovalRequest(_) | Body::ApprovalResponse(_) => "approval".to_owned(),
        Body::Summary(_) => "summary".to_owned(),
        Body::Note(_) => "note".to_owned(),
    };
    messages.iter().map(text).collect()
}
