//! A log and a store in memory, which can lose pushes, forget events and fail.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use holdfast_shared::domain::Timestamp;
use holdfast_shared::domain::agent::Agent;
use holdfast_shared::domain::block::{Block, BlockChange};
use holdfast_shared::domain::callback::CallbackTry;
use holdfast_shared::domain::conversation::{Conversation, ConversationChange};
use holdfast_shared::domain::event::Event;
use holdfast_shared::domain::ids::{AgentId, BlockId, ConversationId, MessageId, RunId, StepId, ToolId, WorkerId};
use holdfast_shared::domain::lease::{Lease, TakeoverAfter};
use holdfast_shared::domain::message::Message;
use holdfast_shared::domain::page::Page;
use holdfast_shared::domain::position::SeqId;
use holdfast_shared::domain::run::Run;
use holdfast_shared::domain::step::Step;
use holdfast_shared::domain::tenant::TenantId;
use holdfast_shared::domain::thread::{Thread, ThreadScope};
use holdfast_shared::domain::tool::{Tool, ToolReturn};
use holdfast_shared::ports::event_log::{EventLog, Live, LogError, Subscription};
use holdfast_shared::ports::store::*;
use tokio::sync::broadcast;

/// Batches that a follower may fall behind.
pub(super) const LIVE_BATCHES: usize = 4;
/// Events in one read.
pub(super) const READ_EVENTS: usize = 3;

#[derive(Default)]
pub(super) struct FakeLog {
    runs: Mutex<HashMap<RunId, LoggedRun>>,
    pub(super) is_down: AtomicBool,
    pub(super) reads: AtomicUsize,
    pub(super) subscriptions: AtomicUsize,
}

#[derive(Default)]
struct LoggedRun {
    events: Vec<Event>,
    live: Option<broadcast::Sender<Live>>,
    followers: Arc<()>,
}

impl FakeLog {
    fn with<T>(&self, run: RunId, change: impl FnOnce(&mut LoggedRun) -> T) -> T {
        change(self.runs.lock().unwrap().entry(run).or_default())
    }

    /// Appends and tells the followers.
    pub(super) fn append(&self, run: RunId, events: &[Event]) {
        self.append_unheard(run, events);
        self.push(run, events);
    }

    /// Appends; the push is lost.
    pub(super) fn append_unheard(&self, run: RunId, events: &[Event]) {
        self.with(run, |logged| logged.events.extend_from_slice(events));
    }

    /// Tells the followers of events, appended or not.
    pub(super) fn push(&self, run: RunId, events: &[Event]) {
        self.tell(run, Live::Events(events.into()));
    }

    fn tell(&self, run: RunId, live: Live) {
        self.with(run, |logged| logged.live.as_ref().map(|sender| sender.send(live)));
    }

    /// Forgets the events up to a place.
    pub(super) fn forget(&self, run: RunId, until: SeqId) {
        self.with(run, |logged| logged.events.retain(|event| event.seq > until));
    }

    /// Ends all subscriptions of a run, as an adapter does that starts anew.
    pub(super) fn hang_up(&self, run: RunId) {
        self.with(run, |logged| logged.live = None);
    }

    fn answers(&self) -> Result<(), LogError> {
        if self.is_down.load(Ordering::SeqCst) { Err(LogError::Unavailable("down".to_owned())) } else { Ok(()) }
    }
}

#[async_trait]
impl EventLog for FakeLog {
    async fn open(&self, _: &Lease, _: SeqId) -> Result<SeqId, LogError> {
        unreachable!("no part of the fan-out")
    }

    async fn append(&self, _: &Lease, _: &[Event]) -> Result<(), LogError> {
        unreachable!("no part of the fan-out")
    }

    async fn read(&self, run: RunId, after: SeqId) -> Result<Vec<Event>, LogError> {
        tokio::task::yield_now().await;
        self.answers()?;
        self.reads.fetch_add(1, Ordering::SeqCst);
        let found = self.with(run, |logged| page(&logged.events, after));
        tokio::task::yield_now().await;
        Ok(found)
    }

    async fn subscribe(&self, run: RunId) -> Result<Subscription, LogError> {
        tokio::task::yield_now().await;
        self.answers()?;
        self.subscriptions.fetch_add(1, Ordering::SeqCst);
        Ok(self.with(run, |logged| Subscription {
            live: logged.live.get_or_insert_with(|| broadcast::channel(LIVE_BATCHES).0).subscribe(),
            guard: Box::new(Arc::clone(&logged.followers)),
        }))
    }

    fn followed(&self) -> Vec<RunId> {
        let runs = self.runs.lock().unwrap();
        runs.iter().filter(|(_, logged)| Arc::strong_count(&logged.followers) > 1).map(|(run, _)| *run).collect()
    }

    fn check(&self, run: RunId) {
        self.tell(run, Live::Check);
    }

    async fn finish(&self, _: &Lease) -> Result<(), LogError> {
        unreachable!("no part of the fan-out")
    }

    async fn ping(&self) -> Result<(), LogError> {
        self.answers()
    }

    fn name(&self) -> &'static str {
        "fake"
    }
}

fn page(events: &[Event], after: SeqId) -> Vec<Event> {
    events.iter().filter(|event| event.seq > after).take(READ_EVENTS).cloned().collect()
}

#[derive(Default)]
pub(super) struct FakeStore {
    runs: Mutex<HashMap<RunId, (Run, Vec<Event>)>>,
    pub(super) is_down: AtomicBool,
    pub(super) hangs: AtomicBool,
    pub(super) run_reads: AtomicUsize,
    pub(super) event_reads: AtomicUsize,
    pub(super) ended_reads: AtomicUsize,
}

impl FakeStore {
    /// Enters a run, or changes it.
    pub(super) fn put(&self, run: Run) {
        let mut runs = self.runs.lock().unwrap();
        match runs.get_mut(&run.id) {
            Some((stored, _)) => *stored = run,
            None => drop(runs.insert(run.id, (run, Vec::new()))),
        }
    }

    pub(super) fn get(&self, run: RunId) -> Run {
        self.runs.lock().unwrap()[&run].0.clone()
    }

    /// Puts events into the archive.
    pub(super) fn add(&self, run: RunId, events: &[Event]) {
        let mut runs = self.runs.lock().unwrap();
        let (run, archive) = runs.get_mut(&run).unwrap();
        archive.extend_from_slice(events);
        run.archived = archive.last().map_or(SeqId::START, |event| event.seq);
    }

    /// Removes events up to a place from the archive, as retention does.
    pub(super) fn forget(&self, run: RunId, until: SeqId) {
        let mut runs = self.runs.lock().unwrap();
        runs.get_mut(&run).unwrap().1.retain(|event| event.seq > until);
    }

    async fn answers(&self) -> Result<(), StoreError> {
        tokio::task::yield_now().await;
        if self.hangs.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_secs(10_000)).await;
        }
        if self.is_down.load(Ordering::SeqCst) { Err(StoreError::Unavailable("down".into())) } else { Ok(()) }
    }
}

#[async_trait]
impl Store for FakeStore {
    async fn run(&self, tenant: &TenantId, id: RunId) -> Result<Option<Run>, StoreError> {
        self.answers().await?;
        self.run_reads.fetch_add(1, Ordering::SeqCst);
        let found = self.runs.lock().unwrap().get(&id).map(|(run, _)| run.clone());
        Ok(found.filter(|run| run.tenant == *tenant))
    }

    async fn events(&self, run: RunId, after: SeqId) -> Result<Vec<Event>, StoreError> {
        self.answers().await?;
        self.event_reads.fetch_add(1, Ordering::SeqCst);
        Ok(self.runs.lock().unwrap().get(&run).map_or_else(Vec::new, |(_, events)| page(events, after)))
    }

    async fn ended_among(&self, runs: &[RunId]) -> Result<Vec<RunId>, StoreError> {
        self.answers().await?;
        self.ended_reads.fetch_add(1, Ordering::SeqCst);
        let stored = self.runs.lock().unwrap();
        let has_ended = |id: &&RunId| stored.get(id).is_some_and(|(run, _)| run.state.has_ended());
        Ok(runs.iter().filter(has_ended).copied().collect())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.answers().await
    }

    fn name(&self) -> &'static str {
        "fake"
    }

    async fn cancel_approval(&self, _: RunId, _: &ApprovalCancel) -> Result<Option<Vec<OutboxEntry>>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn expired_approvals(&self, _: Timestamp, _: u32) -> Result<Vec<ExpiredApproval>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn begin_call(&self, _: &Lease, _: StepId, _: u32) -> Result<(), StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn compact(&self, _: &Lease, _: &Compaction) -> Result<(), StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn create_agent(&self, _: &TenantId, _: &Agent, _: &[BlockId], _: &[Message]) -> Result<Agent, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn count_agents(&self, _: &TenantId, _: &AgentFilter) -> Result<u64, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn tags(&self, _: &TenantId, _: Option<&str>, _: &Page<String>) -> Result<Vec<String>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn agent(&self, _: &TenantId, _: AgentId) -> Result<Option<Agent>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn agents(&self, _: &TenantId, _: &AgentFilter, _: &Page<AgentId>) -> Result<Vec<Agent>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn change_agent(
        &self,
        _: &TenantId,
        _: AgentId,
        _: &AgentChange<'_>,
        _: Timestamp,
    ) -> Result<Option<Agent>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn delete_agent(&self, _: &TenantId, _: AgentId, _: Timestamp) -> Result<bool, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn recompile(&self, _: &TenantId, _: Thread, _: bool, _: Timestamp) -> Result<Option<String>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn create_block(&self, _: &TenantId, _: &Block) -> Result<(), StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn block(&self, _: &TenantId, _: BlockId) -> Result<Option<Block>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn blocks(&self, _: &TenantId, _: &BlockFilter, _: &Page<BlockId>) -> Result<Vec<Block>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn count_blocks(&self, _: &TenantId, _: &BlockFilter) -> Result<u64, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn change_block(
        &self,
        _: &TenantId,
        _: BlockName<'_>,
        _: &BlockChange,
        _: Timestamp,
    ) -> Result<BlockChanged, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn create_conversation(
        &self,
        _: &TenantId,
        _: &Conversation,
        _: MessageId,
        _: Option<&Fork>,
    ) -> Result<ConversationMade, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn conversation(&self, _: &TenantId, _: ConversationId) -> Result<Option<Conversation>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn conversations(
        &self,
        _: &TenantId,
        _: &ConversationFilter,
        _: &Page<ConversationId>,
    ) -> Result<Vec<Conversation>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn change_conversation(
        &self,
        _: &TenantId,
        _: ConversationId,
        _: &ConversationChange,
        _: Timestamp,
    ) -> Result<Option<Conversation>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn delete_conversation(&self, _: &TenantId, _: ConversationId, _: Timestamp) -> Result<bool, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn delete_block(&self, _: &TenantId, _: BlockId, _: Timestamp) -> Result<bool, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn attach_block(
        &self,
        _: &TenantId,
        _: AgentId,
        _: BlockId,
        _: Timestamp,
    ) -> Result<BlockChanged<Agent>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn detach_block(
        &self,
        _: &TenantId,
        _: AgentId,
        _: BlockId,
        _: Timestamp,
    ) -> Result<BlockChanged<Agent>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn put_tool(&self, _: Option<&TenantId>, _: &Tool) -> Result<Tool, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn tool(&self, _: &TenantId, _: ToolId) -> Result<Option<Tool>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn tools_by_name(&self, _: &TenantId, _: &[String]) -> Result<Vec<Tool>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn tools(&self, _: &TenantId, _: &ToolFilter, _: &Page<ToolId>) -> Result<Vec<Tool>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn count_tools(&self, _: &TenantId, _: &ToolFilter) -> Result<u64, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn change_tool(&self, _: &TenantId, _: &Tool) -> Result<Option<Tool>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn delete_tool(&self, _: &TenantId, _: ToolId, _: Timestamp) -> Result<bool, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn messages(&self, _: &MessageFilter, _: &Page<MessageId>) -> Result<Vec<Message>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn search_messages(&self, _: AgentId, _: &MessageSearch) -> Result<Vec<Message>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn find_messages(
        &self,
        _: &TenantId,
        _: &MessageScope,
        _: &Page<MessageId>,
    ) -> Result<Vec<FoundMessage>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn message(&self, _: &TenantId, _: MessageId) -> Result<Option<FoundMessage>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn search_all_messages(
        &self,
        _: &TenantId,
        _: Option<AgentId>,
        _: ThreadScope,
        _: &MessageSearch,
    ) -> Result<Vec<FoundMessage>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn reset_context(&self, _: &TenantId, _: AgentId, _: Timestamp) -> Result<ContextReset, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn find_steps(&self, _: &TenantId, _: &StepFilter, _: &Page<StepId>) -> Result<Vec<Step>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn step(&self, _: &TenantId, _: StepId) -> Result<Option<Step>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn rate_step(&self, _: &TenantId, _: StepId, _: &FeedbackChange) -> Result<Option<Step>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn delete_run(&self, _: &TenantId, _: RunId) -> Result<RunDeletion, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn accept_run(&self, _: &NewRun) -> Result<Accepted, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn run_by_key(&self, _: AgentId, _: &RequestKey) -> Result<Option<Accepted>, StoreError> {
        unreachable!("no part of the fan-out")
    }

    async fn run_by_otid(&self, _: Thread, _: &str) -> Result<Option<Run>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn active_run_by_content(&self, _: Thread, _: &str) -> Result<Option<Run>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn runs(&self, _: &TenantId, _: &RunFilter, _: &Page<RunId>) -> Result<Vec<Run>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn steps(&self, _: RunId, _: &Page<StepId>) -> Result<Vec<Step>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn lone_call(&self, _: RunId) -> Result<Option<LoneCall>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn request_cancel(&self, _: RunId, _: Timestamp) -> Result<CancelRequest, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn settle_created(&self, _: RunId, _: &RunEnd) -> Result<Option<Vec<OutboxEntry>>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn workers(&self, _: TakeoverAfter) -> Result<Vec<WorkerFacts>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn heartbeat(&self, _: WorkerId, _: &WorkerFacts) -> Result<Heartbeat, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn retire_worker(&self, _: WorkerId) -> Result<(), StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn claim(&self, _: RunId, _: WorkerId, _: TakeoverAfter, _: Timestamp) -> Result<Claim, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn context(&self, _: &Lease) -> Result<Context, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn archive(&self, _: &Lease, _: &[Event]) -> Result<(), StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn begin_step(&self, _: &Lease, _: &NewStep) -> Result<(), StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn record_answer(&self, _: &Lease, _: &AnswerRecord) -> Result<(), StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn record_return(&self, _: &Lease, _: StepId, _: u32, _: &ToolReturn) -> Result<(), StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn edit_memory(
        &self,
        _: &Lease,
        _: StepId,
        _: u32,
        _: &str,
        _: Timestamp,
        _: MemoryEdit<'_>,
    ) -> Result<ToolReturn, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn commit_step(&self, _: &Lease, _: &StepCommit, _: Option<&RunEnd>) -> Result<Vec<OutboxEntry>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn settle(&self, _: &Lease, _: &RunEnd) -> Result<Vec<OutboxEntry>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn release(&self, _: &Lease) -> Result<Vec<OutboxEntry>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn outbox_due(&self, _: u32) -> Result<Vec<OutboxEntry>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn outbox_done(&self, _: &[i64]) -> Result<(), StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn take_callback(&self, _: &[String], _: Duration) -> Result<Option<TakenCallback>, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn callback_tried(
        &self,
        _: &TakenCallback,
        _: &CallbackTry,
        _: Option<Duration>,
    ) -> Result<bool, StoreError> {
        unreachable!("no part of the fan-out")
    }
    async fn rescue(&self, _: TakeoverAfter, _: Duration) -> Result<u64, StoreError> {
        unreachable!("no part of the fan-out")
    }
}
