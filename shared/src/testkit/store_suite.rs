//! The contract of the store: what every adapter promises. What is not in here is not promised.
//!
//! Each case gets an empty store. [`store_contract`](crate::store_contract) makes a test of each.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::domain::Timestamp;
use crate::domain::agent::{Agent, AgentSettings};
use crate::domain::block::{Block, BlockDetails};
use crate::domain::event::{Event, EventKind};
use crate::domain::ids::{AgentId, Id, MessageId, RunId, StepId, WorkerId};
use crate::domain::lease::{Lease, TakeoverAfter};
use crate::domain::limits::{APPEND_BATCH_BYTES, READ_BYTES};
use crate::domain::message::{Answer, AnswerPart, Body, Content, Labels, Message, Role};
use crate::domain::model::ModelHandle;
use crate::domain::page::{Order, Page};
use crate::domain::position::SeqId;
use crate::domain::run::{
    Attachment, ErrorType, Outcome, Run, RunError, RunRequest, RunState, RunStatus, RunType, StreamMode,
};
use crate::domain::step::StepStatus;
use crate::domain::stop_reason::StopReason;
use crate::domain::tenant::TenantId;
use crate::domain::tool::{ToolCall, ToolReturn, ToolStatus};
use crate::domain::usage::{RunUsage, Usage};
use crate::ports::seams::Seams;
use crate::ports::store::{
    Accepted, AgentChange, AgentFilter, AnswerRecord, CancelRequest, Claim, Claimed, EditOutcome, MessageFilter,
    MessageSearch, NewRun, NewStep, OutboxEntry, RequestKey, RunEnd, RunFilter, StepCommit, Store, StoreError,
};

/// Makes a test of each case. The argument is an async function that runs a case on a new, empty store.
#[macro_export]
macro_rules! store_contract {
    ($with_store:path) => {
        $crate::store_contract!(@tests $with_store:
            an_agent_reads_back_as_it_was_stored
            agents_are_found_by_name_text_and_tags
            a_change_of_settings_compiles_the_system_message_anew
            a_client_chooses_what_is_in_context
            a_deleted_agent_is_unknown_but_its_runs_stay
            tenants_see_nothing_of_each_other
            accepting_stores_run_input_events_and_hint_together
            a_refused_run_leaves_nothing_behind
            the_same_request_many_times_at_once_makes_one_run
            a_key_that_was_used_for_something_else_is_refused
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
            a_cancel_of_a_created_run_ends_it_without_a_worker
            a_cancel_of_a_running_run_is_heard_at_the_heartbeat
            a_released_run_uses_up_no_attempt
            pages_of_runs_follow_the_requested_order
            pages_of_agents_messages_and_steps_have_no_gap_or_repeat
            unknown_cursors_are_refused
            runs_are_filtered
            messages_are_searched_in_any_case
            the_outbox_keeps_hints_until_they_are_done
            lost_runs_are_hinted_again_but_not_too_often
            any_text_can_be_stored
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
        agent_type: "letta_v1_agent".to_owned(),
        system: "Be kind.".to_owned(),
        model: ModelHandle::demo(),
        model_settings: Some(serde_json::json!({"temperature": 0.5})),
        context_window_limit: Some(32_000),
        tools: vec!["memory_replace".to_owned()],
        tool_rules: Vec::new(),
        tags: Vec::new(),
        description: None,
        metadata: None,
        timezone: "UTC".to_owned(),
        message_buffer_autoclear: false,
        other: serde_json::Map::new(),
    }
}

fn block(label: &str, value: &str) -> Block {
    let details = BlockDetails {
        limit: 1000,
        description: Some("notes".to_owned()),
        read_only: false,
        metadata: None,
        tags: Vec::new(),
        hidden: None,
    };
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
        store.create_agent(&tenant, &agent, &system).await.expect("a new agent");
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
        let filter = MessageFilter { agent: self.agent, run: None };
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
        let step = NewStep { id: new_id(), number, model: ModelHandle::demo(), started_at: now() };
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
        message_ids: vec![system.id],
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
        run_type: RunType::SendMessageStreaming,
        attachment: Attachment::Background,
        mode: StreamMode::Tokens,
        include_pings: true,
        max_steps: 50,
        include_types: None,
        override_model: None,
        override_system: None,
        use_assistant_message: true,
        assistant_message_tool_name: "send_message".to_owned(),
        assistant_message_tool_kwarg: "message".to_owned(),
        callback_url: None,
    };
    let run = Run {
        id,
        tenant: tenant.clone(),
        agent_id: agent,
        request,
        state: RunState::Created,
        cancel_requested: false,
        usage: RunUsage::default(),
        archived: SeqId::new(1),
        created_at: now(),
        ttft_ns: None,
    };
    NewRun {
        run,
        input: vec![Message { run_id: Some(id), ..user(agent, text) }],
        key: None,
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
    ToolCall { id: id.to_owned(), name: "look".to_owned(), arguments: "{}".to_owned() }
}

fn answer_record(agent: AgentId, run: RunId, step: StepId, calls: &[ToolCall]) -> AnswerRecord {
    let answer = Answer { parts: vec![AnswerPart::Text("Let me look.".to_owned())], calls: calls.to_vec() };
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
    RunEnd { outcome: Outcome { reason, error }, at: now(), events }
}

fn first_page<I>(order: Order) -> Page<I> {
    Page { after: None, before: None, limit: 1000, order }
}

async fn live_worker(store: &SharedStore) -> WorkerId {
    let worker = new_id();
    store.heartbeat(worker).await.expect("a heartbeat");
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
    };
    messages.iter().map(text).collect()
}

/// See the name.
pub async fn an_agent_reads_back_as_it_was_stored(store: SharedStore) {
    let (agent, system) = new_agent("Ada", default_settings());
    let tenant = TenantId::default();
    store.create_agent(&tenant, &agent, &system).await.expect("a new agent");
    assert_eq!(store.agent(&tenant, agent.id).await.expect("readable"), Some(agent.clone()));
    let filter = MessageFilter { agent: agent.id, run: None };
    assert_eq!(store.messages(&filter, &first_page(Order::Ascending)).await.expect("readable"), vec![system]);
    assert_eq!(store.agent(&tenant, new_id()).await.expect("readable"), None);
}

/// See the name.
pub async fn agents_are_found_by_name_text_and_tags(store: SharedStore) {
    let tenant = TenantId::default();
    for (name, tags) in [("Ada", vec!["math", "first"]), ("Bob Ärger", vec!["math"]), ("Cy", vec![])] {
        let settings = AgentSettings { tags: tags.into_iter().map(str::to_owned).collect(), ..default_settings() };
        let (agent, system) = new_agent(name, settings);
        store.create_agent(&tenant, &agent, &system).await.expect("a new agent");
    }
    let tags = || vec!["math".to_owned(), "first".to_owned()];
    let cases = [
        (AgentFilter::default(), vec!["Ada", "Bob Ärger", "Cy"]),
        (AgentFilter { name: Some("Ada".to_owned()), ..AgentFilter::default() }, vec!["Ada"]),
        (AgentFilter { name: Some("ada".to_owned()), ..AgentFilter::default() }, vec![]),
        (AgentFilter { query_text: Some("äRG".to_owned()), ..AgentFilter::default() }, vec!["Bob Ärger"]),
        (AgentFilter { query_text: Some("%".to_owned()), ..AgentFilter::default() }, vec![]),
        (AgentFilter { tags: tags(), ..AgentFilter::default() }, vec!["Ada", "Bob Ärger"]),
        (AgentFilter { tags: tags(), match_all_tags: true, ..AgentFilter::default() }, vec!["Ada"]),
    ];
    for (filter, wanted) in cases {
        let found = store.agents(&tenant, &filter, &first_page(Order::Ascending)).await.expect("readable");
        let names: Vec<_> = found.iter().map(|agent| agent.name.as_str()).collect();
        assert_eq!(names, wanted, "{filter:?}");
    }
}

/// See the name.
pub async fn a_change_of_settings_compiles_the_system_message_anew(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let later = now() + Duration::from_secs(1);
    let rename = AgentChange { name: Some("Eve".to_owned()), ..AgentChange::default() };
    let renamed = store.change_agent(&scene.tenant, scene.agent, &rename, later).await.expect("changed");
    assert_eq!(renamed.map(|agent| (agent.name, agent.updated_at)), Some(("Eve".to_owned(), later)));
    let before = scene.history().await;
    assert_eq!(texts(&before), ["system"]);

    let settings = AgentSettings { system: "Be brief.".to_owned(), ..default_settings() };
    let change = AgentChange { settings: Some(settings.clone()), ..AgentChange::default() };
    let changed = store.change_agent(&scene.tenant, scene.agent, &change, later).await.expect("changed");
    assert_eq!(changed.map(|agent| agent.settings), Some(settings));
    let after = scene.history().await;
    assert_eq!(after[0].id, before[0].id, "the message keeps its id");
    let Body::System(content) = &after[0].body else { panic!("a system message") };
    assert!(content.text().starts_with("Be brief.") && content.text().contains("I help."), "{}", content.text());
    let nobody = store.change_agent(&scene.tenant, new_id(), &change, later).await.expect("an answer");
    assert_eq!(nobody, None);
}

/// See the name.
pub async fn a_client_chooses_what_is_in_context(store: SharedStore) {
    let scene = Scene::new(&store).await;
    for text in ["one", "two"] {
        let run = scene.accept(text).await;
        let lease = scene.claim(run).await.lease;
        scene.settle(&lease).await;
    }
    scene.accept("waiting").await;
    let history = scene.history().await;
    assert_eq!(texts(&history), ["system", "one", "two", "waiting"]);
    let ids: Vec<_> = history.iter().map(|message| message.id).collect();
    assert_eq!(scene.agent().await.message_ids, ids[..3]);
    for wanted in [vec![ids[0], ids[2]], vec![ids[0], ids[1], ids[2]]] {
        let change = AgentChange { message_ids: Some(wanted.clone()), ..AgentChange::default() };
        let agent = store.change_agent(&scene.tenant, scene.agent, &change, now()).await.expect("changed");
        assert_eq!(agent.map(|agent| agent.message_ids), Some(wanted));
    }
    let all = AgentChange { message_ids: Some(ids.clone()), ..AgentChange::default() };
    store.change_agent(&scene.tenant, scene.agent, &all, now()).await.expect("changed");
    assert_eq!(scene.agent().await.message_ids, ids[..3], "the input of a waiting run stays outside");
}

/// See the name.
pub async fn a_deleted_agent_is_unknown_but_its_runs_stay(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("hello").await;
    assert!(store.delete_agent(&scene.tenant, scene.agent, now()).await.expect("deleted"));
    assert!(!store.delete_agent(&scene.tenant, scene.agent, now()).await.expect("an answer"));
    assert_eq!(store.agent(&scene.tenant, scene.agent).await.expect("an answer"), None);
    let list = store.agents(&scene.tenant, &AgentFilter::default(), &first_page(Order::Ascending)).await;
    assert_eq!(list.expect("readable"), []);
    let change = AgentChange { name: Some("Eve".to_owned()), ..AgentChange::default() };
    assert_eq!(store.change_agent(&scene.tenant, scene.agent, &change, now()).await.expect("an answer"), None);
    assert_eq!(store.accept_run(&scene.new_run("more")).await.expect("an answer"), Accepted::NoAgent);
    assert_eq!(scene.run(run).await.id, run);
    let lease = scene.claim(run).await.lease;
    assert_eq!(store.context(&lease).await.expect("readable").messages.len(), 2, "accepted is kept");
    scene.settle(&lease).await;
}

/// See the name.
pub async fn tenants_see_nothing_of_each_other(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("hello").await;
    let other = TenantId::parse("other").expect("a tenant");
    let change = AgentChange { name: Some("Mallory".to_owned()), ..AgentChange::default() };
    assert_eq!(store.agent(&other, scene.agent).await.expect("an answer"), None);
    assert_eq!(store.change_agent(&other, scene.agent, &change, now()).await.expect("an answer"), None);
    assert!(!store.delete_agent(&other, scene.agent, now()).await.expect("an answer"));
    assert_eq!(store.run(&other, run).await.expect("an answer"), None);
    assert_eq!(store.accept_run(&new_run(&other, scene.agent, "hi")).await.expect("an answer"), Accepted::NoAgent);
    let agents = store.agents(&other, &AgentFilter::default(), &first_page(Order::Ascending)).await;
    assert_eq!(agents.expect("an answer"), []);
    let runs = store.runs(&other, &RunFilter::default(), &first_page(Order::Ascending)).await;
    assert_eq!(runs.expect("an answer"), []);
    let filter = RunFilter { agents: vec![scene.agent], ..RunFilter::default() };
    assert_eq!(store.runs(&other, &filter, &first_page(Order::Ascending)).await.expect("an answer"), []);
    let runs_after = Page { after: Some(run), ..first_page(Order::Ascending) };
    let refused = store.runs(&other, &RunFilter::default(), &runs_after).await;
    assert!(matches!(refused, Err(StoreError::UnknownCursor)), "{refused:?}");
    let agents_after = Page { after: Some(scene.agent), ..first_page(Order::Ascending) };
    let refused = store.agents(&other, &AgentFilter::default(), &agents_after).await;
    assert!(matches!(refused, Err(StoreError::UnknownCursor)), "{refused:?}");
    assert_eq!(scene.agent().await.name, "Ada");
}

/// See the name.
pub async fn accepting_stores_run_input_events_and_hint_together(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let new = scene.new_run("hello");
    let Accepted::New(entry) = store.accept_run(&new).await.expect("accepted") else { panic!("it is new") };
    assert_eq!((entry.hint.run, &entry.hint.trace), (new.run.id, &new.trace));
    assert_eq!(scene.run(new.run.id).await, new.run);
    let filter = MessageFilter { agent: scene.agent, run: Some(new.run.id) };
    let input = store.messages(&filter, &first_page(Order::Ascending)).await.expect("readable");
    assert_eq!(input, new.input);
    assert_eq!(store.events(new.run.id, SeqId::START).await.expect("readable"), new.opening);
}

/// See the name.
pub async fn a_refused_run_leaves_nothing_behind(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let mut broken = scene.new_run("hello");
    broken.opening = vec![event(1, EventKind::Ping), event(3, EventKind::Ping)];
    broken.run.archived = SeqId::new(3);
    let refused = store.accept_run(&broken).await;
    assert!(matches!(refused, Err(StoreError::Corrupt(_))), "{refused:?}");
    assert_eq!(store.run(&scene.tenant, broken.run.id).await.expect("an answer"), None);
    assert_eq!(texts(&scene.history().await), ["system"]);
    assert_eq!(store.events(broken.run.id, SeqId::START).await.expect("an answer"), []);
    let unknown = new_run(&scene.tenant, new_id(), "hello");
    assert_eq!(store.accept_run(&unknown).await.expect("an answer"), Accepted::NoAgent);
    assert_eq!(store.rescue(AT_ONCE, Duration::ZERO).await.expect("searched"), 0);
}

/// See the name.
pub async fn the_same_request_many_times_at_once_makes_one_run(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let key = RequestKey { key: "k".to_owned(), content: "c".to_owned() };
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let new = NewRun { key: Some(key.clone()), ..scene.new_run("hello") };
        let store = Arc::clone(&store);
        tasks.push(tokio::spawn(async move { store.accept_run(&new).await.expect("an answer") }));
    }
    let mut made = Vec::new();
    let mut known = Vec::new();
    for task in tasks {
        match task.await.expect("no panic") {
            Accepted::New(entry) => made.push(entry.hint.run),
            Accepted::Known(run) => known.push(run.id),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(made.len(), 1);
    assert_eq!(known, vec![made[0]; 7]);
    let runs = store.runs(&scene.tenant, &RunFilter::default(), &first_page(Order::Ascending)).await;
    assert_eq!(runs.expect("readable").len(), 1);
    assert_eq!(texts(&scene.history().await), ["system", "hello"]);
    let Some(Accepted::Known(run)) = store.run_by_key(scene.agent, &key).await.expect("an answer") else {
        panic!("the key is known")
    };
    assert_eq!(run.id, made[0]);
}

/// See the name.
pub async fn a_key_that_was_used_for_something_else_is_refused(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let key = RequestKey { key: "k".to_owned(), content: "one".to_owned() };
    let first = NewRun { key: Some(key.clone()), ..scene.new_run("one") };
    assert!(matches!(store.accept_run(&first).await.expect("accepted"), Accepted::New(_)));
    let other = RequestKey { content: "two".to_owned(), ..key };
    let second = NewRun { key: Some(other.clone()), ..scene.new_run("two") };
    assert_eq!(store.accept_run(&second).await.expect("an answer"), Accepted::KeyReused(first.run.id));
    let found = store.run_by_key(scene.agent, &other).await.expect("an answer");
    assert_eq!(found, Some(Accepted::KeyReused(first.run.id)));
    let unknown = RequestKey { key: "l".to_owned(), ..other.clone() };
    assert_eq!(store.run_by_key(scene.agent, &unknown).await.expect("an answer"), None);
    let neighbour = Scene::new(&store).await;
    let same_key = NewRun { key: Some(other), ..neighbour.new_run("two") };
    assert!(matches!(store.accept_run(&same_key).await.expect("accepted"), Accepted::New(_)), "keys are the agent's");
}

/// See the name.
pub async fn a_full_line_refuses_and_names_the_active_run(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let oldest = scene.accept("one").await;
    scene.accept("two").await;
    let third = NewRun { max_queued: 2, ..scene.new_run("three") };
    assert_eq!(store.accept_run(&third).await.expect("an answer"), Accepted::TooMany(oldest));
    let lease = scene.claim(oldest).await.lease;
    assert_eq!(store.accept_run(&third).await.expect("an answer"), Accepted::TooMany(oldest));
    scene.settle(&lease).await;
    assert!(matches!(store.accept_run(&third).await.expect("accepted"), Accepted::New(_)));
}

/// See the name.
pub async fn runs_of_an_agent_execute_one_at_a_time_in_order_of_arrival(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let runs = [scene.accept("one").await, scene.accept("two").await, scene.accept("three").await];
    let neighbour = Scene::new(&store).await;
    let elsewhere = neighbour.accept("one").await;
    let worker = live_worker(&store).await;
    for later in &runs[1..] {
        assert_eq!(store.claim(*later, worker, AT_ONCE, now()).await.expect("an answer"), Claim::Blocked);
    }
    for (place, run) in runs.iter().enumerate() {
        let lease = scene.claim(*run).await.lease;
        for later in &runs[place + 1..] {
            assert_eq!(store.claim(*later, worker, AT_ONCE, now()).await.expect("an answer"), Claim::Blocked);
        }
        scene.settle(&lease).await;
        assert_eq!(store.claim(*run, worker, AT_ONCE, now()).await.expect("an answer"), Claim::Gone);
    }
    neighbour.claim(elsewhere).await;
    assert_eq!(store.claim(new_id(), worker, AT_ONCE, now()).await.expect("an answer"), Claim::Gone);
}

/// See the name.
pub async fn of_many_claims_at_once_one_wins(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("hello").await;
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let worker = live_worker(&store).await;
        let store = Arc::clone(&store);
        tasks.push(tokio::spawn(async move { store.claim(run, worker, LONG, now()).await.expect("an answer") }));
    }
    let mut winners = 0;
    for task in tasks {
        match task.await.expect("no panic") {
            Claim::Claimed(claimed) => {
                assert_eq!((claimed.lease.epoch.get(), claimed.attempts), (1, 1));
                winners += 1;
            }
            Claim::Held(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(winners, 1);
}

/// See the name.
pub async fn a_live_holder_keeps_its_run_and_a_silent_one_loses_it(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("hello").await;
    let first = scene.claim(run).await;
    assert_eq!(first.run.state, RunState::Running);
    assert_eq!(first.steps_done, 0);
    assert_eq!(first.open_step, None);
    for worker in [live_worker(&store).await, first.lease.worker] {
        let Claim::Held(wait) = store.claim(run, worker, LONG, now()).await.expect("an answer") else {
            panic!("it is held")
        };
        assert!(wait > Duration::from_secs(500) && wait <= LONG.0, "{wait:?}");
    }
    let second = scene.take_over(run).await;
    assert_eq!((second.lease.epoch.get(), second.attempts), (2, 2));
    assert_eq!(scene.run(run).await.state, RunState::Running);
}

/// See the name.
pub async fn a_retired_workers_run_can_be_taken_at_once(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("hello").await;
    let first = scene.claim(run).await;
    store.retire_worker(first.lease.worker).await.expect("retired");
    store.retire_worker(first.lease.worker).await.expect("retired already");
    assert_eq!(scene.claim(run).await.lease.epoch.get(), 2);
}

/// See the name.
pub async fn a_fenced_worker_can_write_nothing(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("hello").await;
    let zombie = scene.claim(run).await.lease;
    let step = scene.begin(&zombie, 1).await;
    let heir = scene.take_over(run).await.lease;
    let state = (scene.run(run).await, scene.history().await, scene.agent().await);
    assert_everything_fenced(&scene, &zombie, step, &state.0).await;
    let wrong_worker = Lease { worker: new_id(), ..heir };
    assert_everything_fenced(&scene, &wrong_worker, step, &state.0).await;
    assert_eq!((scene.run(run).await, scene.history().await, scene.agent().await), state);
    assert_eq!(store.events(run, SeqId::START).await.expect("readable").len(), 1);

    scene.settle(&heir).await;
    let state = (scene.run(run).await, scene.history().await, scene.agent().await);
    assert_everything_fenced(&scene, &heir, step, &state.0).await;
    assert_eq!((scene.run(run).await, scene.history().await, scene.agent().await), state);

    let released = scene.accept("more").await;
    let lease = scene.claim(released).await.lease;
    store.release(&lease).await.expect("released");
    assert_everything_fenced(&scene, &lease, step, &scene.run(released).await).await;
}

/// Tries every method that takes a lease.
async fn assert_everything_fenced(scene: &Scene, lease: &Lease, step: StepId, run: &Run) {
    let store = &scene.store;
    let next = run.archived.get() + 1;
    let new_step = NewStep { id: new_id(), number: 1, model: ModelHandle::demo(), started_at: now() };
    let edit = |_: &[Block]| panic!("a fenced edit must not be tried");
    let result = ToolReturn::success(&call("a"), "x".to_owned());
    let commit = step_commit(step, vec![user(scene.agent, "forged")], plain_events(next..=next));
    let end = end_of(run, StopReason::EndTurn);
    assert_fenced(store.context(lease).await);
    assert_fenced(store.archive(lease, &plain_events(next..=next)).await);
    assert_fenced(store.begin_step(lease, &new_step).await);
    assert_fenced(store.record_answer(lease, &answer_record(scene.agent, run.id, step, &[call("a")])).await);
    assert_fenced(store.record_return(lease, step, 0, &result).await);
    assert_fenced(store.edit_memory(lease, step, 0, "a", now(), &edit).await);
    assert_fenced(store.commit_step(lease, &commit, None).await);
    assert_fenced(store.commit_step(lease, &commit, Some(&end)).await);
    assert_fenced(store.settle(lease, &end).await);
    assert_fenced(store.release(lease).await);
}

/// See the name.
pub async fn the_archive_has_no_gap_and_is_read_from_any_cursor(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("hello").await;
    let lease = scene.claim(run).await.lease;
    store.archive(&lease, &plain_events(2..=5)).await.expect("archived");
    store.archive(&lease, &[]).await.expect("nothing to do");
    let gap = store.archive(&lease, &plain_events(7..=8)).await;
    assert!(matches!(gap, Err(StoreError::Corrupt(_))), "{gap:?}");
    store.archive(&lease, &plain_events(4..=7)).await.expect("what is there already is skipped");
    store.archive(&lease, &plain_events(2..=3)).await.expect("all of it is there");
    assert_eq!(scene.run(run).await.archived, SeqId::new(7));
    let mut all = vec![event(1, EventKind::Ping)];
    all.extend(plain_events(2..=7));
    for cursor in 0..=8_usize {
        let read = store.events(run, SeqId::new(cursor as u64)).await.expect("readable");
        assert_eq!(read, all[cursor.min(7)..], "after {cursor}");
    }
    assert_eq!(store.events(new_id(), SeqId::START).await.expect("an answer"), []);
}

/// See the name.
pub async fn a_large_archive_is_read_in_parts(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("hello").await;
    let lease = scene.claim(run).await.lease;
    let frame = Bytes::from(vec![b'x'; APPEND_BATCH_BYTES / 3]);
    let large = |seq| Event { seq: SeqId::new(seq), kind: EventKind::AssistantMessage, frame: frame.clone() };
    let events: Vec<_> = (2..=20).map(large).collect();
    store.archive(&lease, &events).await.expect("archived");
    let mut read = Vec::new();
    let mut cursor = SeqId::new(1);
    loop {
        let part = store.events(run, cursor).await.expect("readable");
        let Some(last) = part.last() else { break };
        assert!(part.iter().map(|event| event.frame.len()).sum::<usize>() <= READ_BYTES);
        cursor = last.seq;
        read.extend(part);
    }
    assert_eq!(read, events);
    let huge = Event { frame: vec![b'y'; READ_BYTES + 1].into(), ..large(21) };
    store.archive(&lease, std::slice::from_ref(&huge)).await.expect("archived");
    assert_eq!(store.events(run, SeqId::new(20)).await.expect("readable"), [huge], "one event is always returned");
}

/// See the name.
pub async fn a_step_without_an_answer_is_replaced(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("hello").await;
    let first = scene.claim(run).await.lease;
    let lost = scene.begin(&first, 1).await;
    let heir = scene.take_over(run).await;
    let open = heir.open_step.expect("the step is open");
    assert_eq!((open.id, open.number, open.answer), (lost, 1, None));
    let fresh = scene.begin(&heir.lease, 1).await;
    let steps = store.steps(run, &first_page(Order::Ascending)).await.expect("readable");
    assert_eq!(steps.iter().map(|step| (step.id, step.status)).collect::<Vec<_>>(), [(fresh, StepStatus::Pending)]);
    scene.answer(&heir.lease, fresh, &[call("a")]).await;
    let again = NewStep { id: new_id(), number: 1, model: ModelHandle::demo(), started_at: now() };
    let refused = store.begin_step(&heir.lease, &again).await;
    assert!(matches!(refused, Err(StoreError::Corrupt(_))), "an answer is never thrown away: {refused:?}");
}

/// See the name.
pub async fn recorded_results_survive_a_takeover(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("hello").await;
    let first = scene.claim(run).await.lease;
    let step = scene.begin(&first, 1).await;
    let calls = [call("a"), call("b"), call("c")];
    let record = AnswerRecord { events: plain_events(2..=4), ..answer_record(scene.agent, run, step, &calls) };
    store.record_answer(&first, &record).await.expect("recorded");
    assert_eq!(scene.run(run).await.archived, SeqId::new(4));
    let results = [ToolReturn::success(&calls[0], "A".to_owned()), ToolReturn::error(&calls[2], "C".to_owned())];
    store.record_return(&first, step, 2, &results[1]).await.expect("recorded");
    store.record_return(&first, step, 0, &results[0]).await.expect("recorded");
    let other = ToolReturn::success(&calls[0], "another".to_owned());
    store.record_return(&first, step, 0, &other).await.expect("the first one counts");

    let heir = scene.take_over(run).await;
    let open = heir.open_step.expect("the step is open");
    let answer = open.answer.expect("the answer is recorded");
    assert_eq!((open.id, answer.message_id, answer.usage), (step, record.message.id, record.usage));
    assert_eq!(answer.answer.calls, calls);
    assert_eq!(answer.returns, results);
    let context = store.context(&heir.lease).await.expect("readable");
    assert_eq!(texts(&context.messages), ["system", "hello", "assistant"]);
}

/// See the name.
pub async fn a_memory_edit_is_applied_once(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("hello").await;
    let lease = scene.claim(run).await.lease;
    let step = scene.begin(&lease, 1).await;
    scene.answer(&lease, step, &[call("a")]).await;
    let edit = |blocks: &[Block]| {
        let human = blocks.iter().find(|block| block.label == "human").expect("the block");
        let value = format!("{}!", human.value);
        EditOutcome { change: Some((human.id, value.clone())), tool_return: ToolReturn::success(&call("a"), value) }
    };
    let system = scene.history().await[0].clone();
    let first = store.edit_memory(&lease, step, 0, "a", now(), &edit).await.expect("edited");
    let heir = scene.take_over(run).await.lease;
    let second = store.edit_memory(&heir, step, 0, "a", now(), &edit).await.expect("edited before");
    assert_eq!((first.text.as_str(), &first), ("Unknown.!", &second));
    assert_eq!(scene.agent().await.blocks[1].value, "Unknown.!");
    let context = store.context(&heir).await.expect("readable");
    assert_eq!(context.messages[0].id, system.id);
    assert!(context.system_text().contains("Unknown.!"), "{}", context.system_text());
    assert!(context.system_text().contains("- 0 earlier messages"), "{}", context.system_text());
}

/// See the name.
pub async fn a_failed_memory_edit_changes_nothing_but_is_recorded(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("hello").await;
    let lease = scene.claim(run).await.lease;
    let step = scene.begin(&lease, 1).await;
    scene.answer(&lease, step, &[call("a")]).await;
    let before = scene.agent().await.blocks;
    let edit = |_: &[Block]| EditOutcome { change: None, tool_return: ToolReturn::error(&call("a"), "no".to_owned()) };
    let told = store.edit_memory(&lease, step, 0, "a", now(), &edit).await.expect("an answer");
    assert_eq!(told.status, ToolStatus::Error);
    assert_eq!(scene.agent().await.blocks, before);
    let open = scene.take_over(run).await.open_step.expect("the step is open");
    assert_eq!(open.answer.map(|answer| answer.returns), Some(vec![told]));
}

/// See the name.
pub async fn a_committed_step_is_whole_and_resets_the_attempts(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("hello").await;
    scene.claim(run).await;
    let second = scene.take_over(run).await;
    assert_eq!(second.attempts, 2);
    let step = scene.begin(&second.lease, 1).await;
    scene.answer(&second.lease, step, &[call("a")]).await;
    let result = ToolReturn::success(&call("a"), "A".to_owned());
    store.record_return(&second.lease, step, 0, &result).await.expect("recorded");
    let tool =
        Message { run_id: Some(run), step_id: Some(step), ..message(scene.agent, Body::ToolReturns(vec![result])) };
    let commit = step_commit(step, vec![tool.clone()], plain_events(2..=3));
    let entries = store.commit_step(&second.lease, &commit, None).await.expect("committed");
    assert_eq!(entries, []);

    let stored = scene.run(run).await;
    assert_eq!((stored.usage, stored.ttft_ns, stored.archived), (commit.run_usage, Some(5), SeqId::new(3)));
    let steps = store.steps(run, &first_page(Order::Ascending)).await.expect("readable");
    assert_eq!((steps[0].id, steps[0].status, steps[0].usage), (step, StepStatus::Success, commit.usage));
    assert_eq!((steps[0].agent_id, steps[0].run_id, steps[0].number), (scene.agent, run, 1));
    assert_eq!((steps[0].timing.llm_request_ns, steps[0].timing.step_ns), (Some(10), Some(20)));
    assert_eq!(store.events(run, SeqId::new(1)).await.expect("readable"), commit.events);

    let third = scene.take_over(run).await;
    assert_eq!((third.attempts, third.steps_done, third.open_step), (1, 1, None));
    let context = store.context(&third.lease).await.expect("readable");
    assert_eq!(texts(&context.messages), ["system", "hello", "assistant", "tool"]);
    assert_eq!(context.messages.last(), Some(&tool));
    assert_eq!(context.agent.message_ids.len(), 4);

    let next = scene.begin(&third.lease, 2).await;
    let later = StepCommit { ttft_ns: Some(77), ..step_commit(next, Vec::new(), Vec::new()) };
    store.commit_step(&third.lease, &later, None).await.expect("committed");
    assert_eq!(scene.run(run).await.ttft_ns, Some(5), "the first time counts");
}

/// See the name.
pub async fn writes_may_be_repeated_after_a_lost_confirmation(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("hello").await;
    let lease = scene.claim(run).await.lease;
    let new_step = NewStep { id: new_id(), number: 1, model: ModelHandle::demo(), started_at: now() };
    let record =
        AnswerRecord { events: plain_events(2..=3), ..answer_record(scene.agent, run, new_step.id, &[call("a")]) };
    let result = ToolReturn::success(&call("a"), "A".to_owned());
    let tool = Message {
        run_id: Some(run),
        step_id: Some(new_step.id),
        ..message(scene.agent, Body::ToolReturns(vec![result.clone()]))
    };
    let commit = step_commit(new_step.id, vec![tool], plain_events(4..=5));
    for _ in 0..2 {
        store.begin_step(&lease, &new_step).await.expect("begun");
    }
    for _ in 0..2 {
        store.record_answer(&lease, &record).await.expect("recorded");
    }
    for _ in 0..2 {
        store.record_return(&lease, new_step.id, 0, &result).await.expect("recorded");
    }
    for _ in 0..2 {
        store.commit_step(&lease, &commit, None).await.expect("committed");
    }
    assert_eq!(texts(&scene.history().await), ["system", "hello", "assistant", "tool"]);
    assert_eq!(store.events(run, SeqId::START).await.expect("readable").len(), 5);
    let failed = StepCommit { status: StepStatus::Failed, ..commit };
    let refused = store.commit_step(&lease, &failed, None).await;
    assert!(matches!(refused, Err(StoreError::Corrupt(_))), "{refused:?}");
}

/// See the name.
pub async fn the_input_of_a_run_enters_the_context_with_its_claim(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let first = scene.accept("one").await;
    let lease = scene.claim(first).await.lease;
    let second = scene.accept("two").await;
    let third = scene.accept("three").await;
    assert_eq!(texts(&store.context(&lease).await.expect("readable").messages), ["system", "one"]);
    let step = scene.begin(&lease, 1).await;
    scene.answer(&lease, step, &[]).await;
    store.commit_step(&lease, &step_commit(step, Vec::new(), Vec::new()), None).await.expect("committed");
    scene.settle(&lease).await;
    let lease = scene.claim(second).await.lease;
    let context = store.context(&lease).await.expect("readable");
    assert_eq!(texts(&context.messages), ["system", "one", "assistant", "two"]);
    let lease = scene.take_over(second).await.lease;
    assert_eq!(store.context(&lease).await.expect("readable"), context, "a takeover brings nothing in again");
    scene.settle(&lease).await;
    let lease = scene.claim(third).await.lease;
    let context = store.context(&lease).await.expect("readable");
    assert_eq!(texts(&context.messages), ["system", "one", "assistant", "two", "three"]);
    assert_eq!(scene.history().await, context.messages);
}

/// See the name.
pub async fn an_agent_that_clears_its_context_starts_each_run_empty(store: SharedStore) {
    let settings = AgentSettings { message_buffer_autoclear: true, ..default_settings() };
    let scene = Scene::with_settings(&store, settings).await;
    for text in ["one", "two"] {
        let run = scene.accept(text).await;
        let lease = scene.claim(run).await.lease;
        let context = store.context(&lease).await.expect("readable");
        assert_eq!(texts(&context.messages), ["system", text]);
        let lease = scene.take_over(run).await.lease;
        assert_eq!(store.context(&lease).await.expect("readable"), context);
        scene.settle(&lease).await;
    }
    assert_eq!(texts(&scene.history().await), ["system", "one", "two"]);
}

/// See the name.
pub async fn the_end_of_a_run_wakes_the_next_one(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let first = scene.accept("one").await;
    let next = scene.new_run("two");
    store.accept_run(&next).await.expect("accepted");
    scene.accept("three").await;
    let lease = scene.claim(first).await.lease;
    let run = scene.run(first).await;
    let end = end_of(&run, StopReason::Error);
    let entries = store.settle(&lease, &end).await.expect("settled");
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].hint.run, &entries[0].hint.trace), (next.run.id, &next.trace));
    let ended = scene.run(first).await;
    let wanted = RunState::Ended {
        reason: StopReason::Error,
        at: end.at,
        error: end.outcome.error.clone(),
        terminal: SeqId::new(2),
    };
    assert_eq!((ended.state, ended.archived), (wanted, SeqId::new(4)));
    let agent = scene.agent().await;
    assert_eq!((agent.last_stop_reason, agent.last_run_completion), (Some(StopReason::Error), Some(end.at)));
    assert_eq!(agent.last_run_duration_ms, Some((end.at - run.created_at).num_milliseconds()));
    let ended = store.ended_among(&[first, next.run.id, new_id()]).await.expect("an answer");
    assert_eq!(ended, [first]);
    assert_eq!(store.ended_among(&[]).await.expect("an answer"), []);
}

/// See the name.
pub async fn the_last_step_and_the_end_are_one_commit(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let first = scene.accept("one").await;
    let second = scene.accept("two").await;
    let lease = scene.claim(first).await.lease;
    let step = scene.begin(&lease, 1).await;
    let answer = answer_record(scene.agent, first, step, &[]).message;
    let commit =
        StepCommit { stop_reason: Some(StopReason::EndTurn), ..step_commit(step, vec![answer], plain_events(2..=3)) };
    let mut run = scene.run(first).await;
    let unfinished = RunEnd { events: plain_events(4..=4), ..end_of(&run, StopReason::EndTurn) };
    let refused = store.commit_step(&lease, &commit, Some(&unfinished)).await;
    assert!(matches!(refused, Err(StoreError::Corrupt(_))), "an end has a stop_reason event: {refused:?}");
    assert_eq!(scene.run(first).await, run, "all or nothing");
    assert_eq!(texts(&scene.history().await), ["system", "one", "two"]);

    run.archived = SeqId::new(3);
    let end = end_of(&run, StopReason::EndTurn);
    let entries = store.commit_step(&lease, &commit, Some(&end)).await.expect("committed");
    assert_eq!(entries.iter().map(|entry| entry.hint.run).collect::<Vec<_>>(), [second]);
    let ended = scene.run(first).await;
    assert_eq!((ended.state.status(), ended.usage), (RunStatus::Completed, commit.run_usage));
    assert_eq!(store.events(first, SeqId::new(3)).await.expect("readable"), end.events);
    let steps = store.steps(first, &first_page(Order::Ascending)).await.expect("readable");
    assert_eq!((steps[0].status, steps[0].stop_reason), (StepStatus::Success, Some(StopReason::EndTurn)));
}

/// See the name.
pub async fn an_end_answers_the_calls_that_it_leaves_open(store: SharedStore) {
    let cases = [
        (StopReason::Cancelled, StepStatus::Cancelled, "The run was cancelled before this call finished."),
        (StopReason::Error, StepStatus::Failed, "The run ended before this call finished."),
    ];
    for (reason, status, text) in cases {
        let scene = Scene::new(&store).await;
        let run = scene.accept("hello").await;
        let lease = scene.claim(run).await.lease;
        let step = scene.begin(&lease, 1).await;
        let calls = [call("a"), call("b")];
        scene.answer(&lease, step, &calls).await;
        let result = ToolReturn::success(&calls[1], "B".to_owned());
        store.record_return(&lease, step, 1, &result).await.expect("recorded");
        let end = end_of(&scene.run(run).await, reason);
        store.settle(&lease, &end).await.expect("settled");
        let history = scene.history().await;
        let last = history.last().expect("messages");
        let wanted = vec![ToolReturn::error(&calls[0], text.to_owned()), result];
        assert_eq!((&last.body, last.step_id), (&Body::ToolReturns(wanted), Some(step)));
        let steps = store.steps(run, &first_page(Order::Ascending)).await.expect("readable");
        assert_eq!((steps[0].status, steps[0].stop_reason), (status, Some(reason)));
        assert!(steps[0].timing.step_ns.is_some());
        assert_eq!(steps[0].usage, usage(7), "what was paid for is counted");
        assert_eq!(steps[0].error.is_some(), status == StepStatus::Failed);
        assert_eq!(scene.agent().await.message_ids.len(), 4);
    }
}

/// See the name.
pub async fn a_cancel_of_a_created_run_ends_it_without_a_worker(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("one").await;
    let next = scene.accept("two").await;
    let CancelRequest::Created(found) = store.request_cancel(run, now()).await.expect("an answer") else {
        panic!("no worker has it")
    };
    assert!(found.id == run && found.cancel_requested);
    let end = end_of(&found, StopReason::Cancelled);
    let entries = store.settle_created(run, &end).await.expect("settled").expect("no worker had it");
    assert_eq!(entries.iter().map(|entry| entry.hint.run).collect::<Vec<_>>(), [next]);
    let ended = scene.run(run).await;
    assert_eq!((ended.state.status(), ended.cancel_requested), (RunStatus::Cancelled, false));
    assert_eq!(store.request_cancel(run, now()).await.expect("an answer"), CancelRequest::Ended);
    assert_eq!(store.settle_created(run, &end).await.expect("an answer"), None);
    let lease = scene.claim(next).await.lease;
    let context = store.context(&lease).await.expect("readable");
    assert_eq!(texts(&context.messages), ["system", "two"], "what was cancelled in time was never said");
}

/// See the name.
pub async fn a_cancel_of_a_running_run_is_heard_at_the_heartbeat(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("one").await;
    let lease = scene.claim(run).await.lease;
    assert_eq!(store.heartbeat(lease.worker).await.expect("a heartbeat").cancelled, []);
    for _ in 0..2 {
        assert_eq!(store.request_cancel(run, now()).await.expect("an answer"), CancelRequest::Requested);
    }
    assert_eq!(store.heartbeat(lease.worker).await.expect("a heartbeat").cancelled, [run]);
    assert_eq!(store.heartbeat(new_id()).await.expect("a heartbeat").cancelled, []);
    let found = scene.run(run).await;
    assert!(found.cancel_requested);
    let end = end_of(&found, StopReason::Cancelled);
    assert_eq!(store.settle_created(run, &end).await.expect("an answer"), None, "a worker has it");
    let heir = scene.take_over(run).await;
    assert!(heir.run.cancel_requested, "the wish outlives the worker");
    store.settle(&heir.lease, &end).await.expect("settled");
    assert_eq!(store.heartbeat(heir.lease.worker).await.expect("a heartbeat").cancelled, []);
}

/// See the name.
pub async fn a_released_run_uses_up_no_attempt(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("one").await;
    let blocked = scene.accept("two").await;
    for epoch in 1..=3 {
        let claimed = scene.claim(run).await;
        assert_eq!((claimed.attempts, claimed.lease.epoch.get()), (1, epoch));
        let entries = store.release(&claimed.lease).await.expect("released");
        assert_eq!(entries.iter().map(|entry| entry.hint.run).collect::<Vec<_>>(), [run]);
        assert!(entries[0].hint.trace.is_some());
        assert_eq!(scene.run(run).await.state, RunState::Running);
        let worker = live_worker(&store).await;
        assert_eq!(store.claim(blocked, worker, LONG, now()).await.expect("an answer"), Claim::Blocked);
    }
}

/// See the name.
pub async fn pages_of_runs_follow_the_requested_order(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let mut runs = Vec::new();
    for text in ["0", "1", "2", "3", "4", "5"] {
        runs.push(scene.accept(text).await);
    }
    let (asc, desc) = (Order::Ascending, Order::Descending);
    // Order, after, before, limit, and what is wanted.
    type Case = (Order, Option<usize>, Option<usize>, u32, &'static [usize]);
    let cases: [Case; 10] = [
        (asc, None, None, 3, &[0, 1, 2]),
        (desc, None, None, 3, &[5, 4, 3]),
        (asc, Some(1), None, 2, &[2, 3]),
        (desc, Some(4), None, 2, &[3, 2]),
        (asc, None, Some(4), 2, &[2, 3]),
        (desc, None, Some(1), 2, &[3, 2]),
        (asc, Some(0), Some(5), 2, &[1, 2]),
        (desc, Some(5), Some(0), 10, &[4, 3, 2, 1]),
        (asc, Some(5), None, 2, &[]),
        (desc, Some(0), None, 2, &[]),
    ];
    for (order, after, before, limit, wanted) in cases {
        let page =
            Page { after: after.map(|place| runs[place]), before: before.map(|place| runs[place]), limit, order };
        let found = store.runs(&scene.tenant, &RunFilter::default(), &page).await.expect("readable");
        let found: Vec<_> = found.iter().map(|run| run.id).collect();
        let wanted: Vec<_> = wanted.iter().map(|place| runs[*place]).collect();
        assert_eq!(found, wanted, "{order:?} after {after:?} before {before:?}");
    }
}

/// See the name.
pub async fn pages_of_agents_messages_and_steps_have_no_gap_or_repeat(store: SharedStore) {
    let tenant = TenantId::default();
    let same_time = now();
    let mut agents = Vec::new();
    for _ in 0..5 {
        let (agent, system) = new_agent("Ada", default_settings());
        let agent = Agent { created_at: same_time, updated_at: same_time, ..agent };
        store.create_agent(&tenant, &agent, &system).await.expect("a new agent");
        agents.push(agent.id);
    }
    for order in [Order::Ascending, Order::Descending] {
        for order_by_updated in [false, true] {
            let filter = AgentFilter { order_by_updated, ..AgentFilter::default() };
            let mut found = Vec::new();
            let mut page = Page { after: None, before: None, limit: 2, order };
            loop {
                let part = store.agents(&tenant, &filter, &page).await.expect("readable");
                let Some(last) = part.last() else { break };
                page.after = Some(last.id);
                found.extend(part.into_iter().map(|agent| agent.id));
            }
            found.sort_unstable();
            agents.sort_unstable();
            assert_eq!(found, agents, "also between agents of the same time");
        }
    }

    let scene = Scene::new(&store).await;
    let run = scene.accept("one").await;
    let lease = scene.claim(run).await.lease;
    let mut steps = Vec::new();
    for number in 1..=4 {
        let step = scene.begin(&lease, number).await;
        let said = answer_record(scene.agent, run, step, &[]).message;
        store.commit_step(&lease, &step_commit(step, vec![said], Vec::new()), None).await.expect("committed");
        steps.push(step);
    }
    let page = Page { after: Some(steps[3]), before: None, limit: 2, order: Order::Descending };
    let found = store.steps(run, &page).await.expect("readable");
    assert_eq!(found.iter().map(|step| step.id).collect::<Vec<_>>(), [steps[2], steps[1]]);
    let history = scene.history().await;
    assert_eq!(texts(&history), ["system", "one", "assistant", "assistant", "assistant", "assistant"]);
    let filter = MessageFilter { agent: scene.agent, run: Some(run) };
    let page = Page { after: None, before: Some(history[4].id), limit: 2, order: Order::Ascending };
    let found = store.messages(&filter, &page).await.expect("readable");
    assert_eq!(found, history[2..4]);
    let all = store.messages(&filter, &first_page(Order::Ascending)).await.expect("readable");
    assert_eq!(all, history[1..], "only the run's");
}

/// See the name.
pub async fn unknown_cursors_are_refused(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("one").await;
    let filter = MessageFilter { agent: scene.agent, run: None };
    let page = Page { before: Some(new_id()), ..first_page(Order::Ascending) };
    let messages = store.messages(&filter, &page).await.map(|_| ());
    let page = Page { after: Some(new_id()), ..first_page(Order::Ascending) };
    let runs = store.runs(&scene.tenant, &RunFilter::default(), &page).await.map(|_| ());
    let page = Page { after: Some(new_id()), ..first_page(Order::Ascending) };
    let agents = store.agents(&scene.tenant, &AgentFilter::default(), &page).await.map(|_| ());
    let page = Page { after: Some(new_id()), ..first_page(Order::Ascending) };
    let steps = store.steps(run, &page).await.map(|_| ());
    let neighbour = Scene::new(&store).await.history().await;
    let page = Page { after: Some(neighbour[0].id), ..first_page(Order::Ascending) };
    let foreign = store.messages(&filter, &page).await.map(|_| ());
    for answer in [messages, runs, agents, steps, foreign] {
        assert!(matches!(answer, Err(StoreError::UnknownCursor)), "{answer:?}");
    }
}

/// See the name.
pub async fn runs_are_filtered(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let ended = scene.accept("one").await;
    let lease = scene.claim(ended).await.lease;
    scene.settle(&lease).await;
    let running = scene.accept("two").await;
    scene.claim(running).await;
    let mut foreground = scene.new_run("three");
    foreground.run.request.attachment = Attachment::Foreground;
    store.accept_run(&foreground).await.expect("accepted");
    let neighbour = Scene::new(&store).await;
    let elsewhere = neighbour.accept("one").await;
    let created = foreground.run.id;
    let all = RunFilter::default;
    let cases = [
        (all(), vec![ended, running, created, elsewhere]),
        (RunFilter { agents: vec![scene.agent], ..all() }, vec![ended, running, created]),
        (RunFilter { agents: vec![scene.agent, neighbour.agent], ..all() }, vec![ended, running, created, elsewhere]),
        (
            RunFilter { statuses: vec![RunStatus::Created, RunStatus::Running], ..all() },
            vec![running, created, elsewhere],
        ),
        (RunFilter { background: Some(false), ..all() }, vec![created]),
        (RunFilter { background: Some(true), ..all() }, vec![ended, running, elsewhere]),
        (RunFilter { stop_reason: Some(StopReason::EndTurn), ..all() }, vec![ended]),
    ];
    for (filter, wanted) in cases {
        let found = store.runs(&scene.tenant, &filter, &first_page(Order::Ascending)).await.expect("readable");
        assert_eq!(found.iter().map(|run| run.id).collect::<Vec<_>>(), wanted, "{filter:?}");
    }
}

/// See the name.
pub async fn messages_are_searched_in_any_case(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let old = scene.accept("Grüße aus ÖSTERREICH, 100%").await;
    scene.accept("a_b").await;
    scene.accept("something else").await;
    let all = MessageSearch { query: None, roles: Vec::new(), from: None, until: None, limit: 10 };
    let search = |query: &str| MessageSearch { query: Some(query.to_owned()), ..all.clone() };
    let cases = [
        (all.clone(), vec!["something else", "a_b", "Grüße aus ÖSTERREICH, 100%"]),
        (MessageSearch { limit: 1, ..all.clone() }, vec!["something else"]),
        (search("österreich"), vec!["Grüße aus ÖSTERREICH, 100%"]),
        (search("0%"), vec!["Grüße aus ÖSTERREICH, 100%"]),
        (search("_"), vec!["a_b"]),
        (search("compiled"), vec![]),
        (MessageSearch { roles: vec![Role::System], ..search("compiled") }, vec!["system"]),
        (
            MessageSearch { until: Some(scene.run(old).await.created_at - Duration::from_secs(9)), ..all.clone() },
            vec![],
        ),
        (MessageSearch { from: Some(now() + Duration::from_secs(9)), ..all.clone() }, vec![]),
    ];
    for (search, wanted) in cases {
        let found = store.search_messages(scene.agent, &search).await.expect("readable");
        assert_eq!(texts(&found), wanted, "{search:?}");
    }
}

/// See the name.
pub async fn the_outbox_keeps_hints_until_they_are_done(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let Accepted::New(entry) = store.accept_run(&scene.new_run("one")).await.expect("accepted") else {
        panic!("it is new")
    };
    assert_eq!(store.outbox_due(10).await.expect("an answer"), [], "its writer publishes it first");
    assert_eq!(store.rescue(AT_ONCE, Duration::ZERO).await.expect("searched"), 0, "its hint is not lost");
    scene.drain_outbox(&[entry]).await;
    let neighbour = Scene::new(&store).await;
    let Accepted::New(entry) = store.accept_run(&neighbour.new_run("two")).await.expect("accepted") else {
        panic!("it is new")
    };
    scene.drain_outbox(&[entry]).await;
    assert_eq!(store.rescue(AT_ONCE, Duration::ZERO).await.expect("searched"), 2);
    let first = store.outbox_due(1).await.expect("an answer");
    assert_eq!(first.len(), 1, "the limit holds");
    let second = store.outbox_due(10).await.expect("an answer");
    assert_eq!(second.len(), 1, "what was taken is left to the one who took it");
    assert_ne!(first, second);
    assert!(first[0].hint.trace.is_some());
    assert_eq!(store.outbox_due(10).await.expect("an answer"), []);
    scene.drain_outbox(&first).await;
    scene.drain_outbox(&second).await;
    scene.drain_outbox(&[]).await;
}

/// See the name.
pub async fn lost_runs_are_hinted_again_but_not_too_often(store: SharedStore) {
    let hour = Duration::from_secs(3600);
    let scene = Scene::new(&store).await;
    let new = scene.new_run("one");
    let Accepted::New(entry) = store.accept_run(&new).await.expect("accepted") else { panic!("it is new") };
    let run = new.run.id;
    let Accepted::New(waiting) = store.accept_run(&scene.new_run("two")).await.expect("accepted") else {
        panic!("it is new")
    };
    scene.drain_outbox(&[entry, waiting]).await;

    // A created run at the head of the line, never the one behind it.
    assert_eq!(store.rescue(LONG, hour).await.expect("searched"), 0, "it does not wait for long");
    assert_eq!(store.rescue(LONG, Duration::ZERO).await.expect("searched"), 1);
    let due = store.outbox_due(10).await.expect("an answer");
    assert_eq!(due.iter().map(|entry| entry.hint.run).collect::<Vec<_>>(), [run]);
    scene.drain_outbox(&due).await;
    assert_eq!(store.rescue(LONG, Duration::ZERO).await.expect("searched"), 0, "hinted a moment ago");

    // A running one whose holder is silent.
    let lease = scene.claim(run).await.lease;
    assert_eq!(store.rescue(LONG, hour).await.expect("searched"), 0, "its holder lives");
    assert_eq!(store.rescue(AT_ONCE, hour).await.expect("searched"), 1, "a claim answers the hint before it");
    let due = store.outbox_due(10).await.expect("an answer");
    assert_eq!(due.iter().map(|entry| entry.hint.run).collect::<Vec<_>>(), [run]);
    scene.drain_outbox(&due).await;
    assert_eq!(store.rescue(AT_ONCE, hour).await.expect("searched"), 0, "hinted a moment ago");

    // One whose holder is gone.
    let heir = scene.take_over(run).await.lease;
    assert_fenced(store.release(&lease).await);
    store.retire_worker(heir.worker).await.expect("retired");
    assert_eq!(store.rescue(LONG, hour).await.expect("searched"), 1);
    let due = store.outbox_due(10).await.expect("an answer");
    scene.drain_outbox(&due).await;
    let last = scene.claim(run).await.lease;
    let next = scene.settle(&last).await;
    scene.drain_outbox(&next).await;
    assert_eq!(store.rescue(LONG, hour).await.expect("searched"), 0, "it is over, and the next one is new at the head");
}

/// See the name.
pub async fn any_text_can_be_stored(store: SharedStore) {
    let strange = "nul \0 quote ' \" back \\ emoji 🦀 line\u{2028}end";
    let mut settings = default_settings();
    settings.tags = vec![strange.to_owned(), strange.repeat(500)];
    settings.system = strange.to_owned();
    let (mut agent, system) = new_agent(&strange.repeat(500), settings);
    agent.blocks[0].value = strange.to_owned();
    let tenant = TenantId::default();
    store.create_agent(&tenant, &agent, &system).await.expect("a new agent");
    let scene = Scene { store: Arc::clone(&store), tenant, agent: agent.id };
    assert_eq!(scene.agent().await.settings, agent.settings);
    let run = scene.accept(strange).await;
    let lease = scene.claim(run).await.lease;
    assert_eq!(texts(&store.context(&lease).await.expect("readable").messages), ["system", strange]);
    let step = scene.begin(&lease, 1).await;
    let calls = [call(strange)];
    scene.answer(&lease, step, &calls).await;
    let edit = |blocks: &[Block]| EditOutcome {
        change: Some((blocks[1].id, strange.to_owned())),
        tool_return: ToolReturn::success(&calls[0], strange.to_owned()),
    };
    let told = store.edit_memory(&lease, step, 0, strange, now(), &edit).await.expect("edited");
    assert_eq!(told.text, strange);
    assert_eq!(scene.agent().await.blocks[1].value, strange.replace('\0', "\u{fffd}"));
    let search =
        MessageSearch { query: Some(strange.to_owned()), roles: Vec::new(), from: None, until: None, limit: 9 };
    assert_eq!(store.search_messages(scene.agent, &search).await.expect("readable").len(), 1);
}
