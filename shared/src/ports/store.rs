//! The store: agents, runs, messages, steps, the archive of events and the outbox. Each method is as large as its
//! transaction, so that atomicity stays inside one adapter.
//!
//! Methods that take a [`Lease`] check its epoch inside their transaction and answer [`StoreError::Fenced`] when a later
//! claim exists or the run has ended: the database refuses a zombie, not the worker's good will (G5).

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;
use crate::domain::agent::{Agent, AgentSettings};
use crate::domain::block::{Block, BlockChange, BlockWriteError};
use crate::domain::callback::CallbackTry;
use crate::domain::conversation::{Conversation, ConversationChange};
use crate::domain::event::Event;
use crate::domain::ids::{AgentId, BlockId, ConversationId, MessageId, RunId, StepId, ToolId, WorkerId};
use crate::domain::lease::{Lease, TakeoverAfter};
use crate::domain::message::{Body, Message};
use crate::domain::model::ModelHandle;
use crate::domain::page::{Order, Page};
use crate::domain::position::SeqId;
use crate::domain::run::{Outcome, Run, RunRequest, RunState};
use crate::domain::step::{Feedback, OpenStep, Retry, Step, StepError, StepStatus};
use crate::domain::stop_reason::StopReason;
use crate::domain::tenant::TenantId;
use crate::domain::thread::{Thread, ThreadScope};
use crate::domain::tool::{Tool, ToolReturn};
use crate::domain::usage::{RunUsage, Usage};
use crate::ports::run_queue::RunHint;
use crate::ports::seams::Seams;
use crate::wire::event::Encoder;

mod lists;

pub use lists::{
    AgentFilter, AgentOrder, BlockFilter, ConversationFilter, ConversationOrder, FoundMessage, MessageFilter,
    MessageScope, MessageSearch, RunFilter, StepFilter, ToolFilter,
};

/// Why the store did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A later claim exists, or the run has ended: this worker must stop without a word.
    #[error("the lease is no longer valid")]
    Fenced,
    /// The cursor of a page names a row that does not exist.
    #[error("the cursor names an unknown id")]
    UnknownCursor,
    /// Blocks that are to be attached do not exist.
    #[error("there are no blocks {0:?}")]
    UnknownBlocks(Vec<BlockId>),
    /// Two blocks that are to be attached to one agent have this label.
    #[error("two blocks of the agent would have the label '{0}'")]
    LabelTwice(String),
    /// The database cannot be reached or refused for the moment.
    #[error("the database is unavailable: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What is stored cannot be read, or the query is wrong: a defect.
    #[error("the database holds something unexpected: {0}")]
    Corrupt(String),
}

/// What becomes of an agent's settings: a pure function of them as they are inside the transaction, so that changes at
/// the same time do not undo each other.
pub type SettingsEdit<'a> = &'a (dyn Fn(&AgentSettings) -> AgentSettings + Send + Sync);

/// A change of an agent; `None` leaves a part as it is.
#[derive(Clone, Default)]
pub struct AgentChange<'a> {
    /// New name.
    pub name: Option<String>,
    /// What becomes of the settings.
    pub settings: Option<SettingsEdit<'a>>,
    /// The messages in context, whole; the first must be the system message.
    pub message_ids: Option<Vec<MessageId>>,
    /// The blocks that are attached afterwards, in their order.
    pub block_ids: Option<Vec<BlockId>>,
    /// What its last run is said to have come to.
    pub last_run: LastRun,
}

/// What an agent's last run came to; `None` leaves a part as it is. An agent that never ran has none of them, so all
/// three must be there for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LastRun {
    /// Why it ended.
    pub stop_reason: Option<StopReason>,
    /// When it ended.
    pub completion: Option<Timestamp>,
    /// How long it took, in milliseconds.
    pub duration_ms: Option<i64>,
}

/// A block, by what a client names it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockName<'a> {
    /// Its id.
    Id(BlockId),
    /// Its label inside an agent.
    Label(AgentId, &'a str),
}

/// What came of a change of a memory block, or of what it is attached to.
#[derive(Debug, Clone, PartialEq)]
pub enum BlockChanged<T = Block> {
    /// What was changed, as it is now.
    Changed(T),
    /// No such agent for this tenant.
    NoAgent,
    /// No such block for this tenant, or for this agent.
    NoBlock,
    /// Nothing changed, and why.
    Refused(BlockWriteError),
}

/// Where the messages of a new conversation come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    /// The thread.
    pub from: Thread,
    /// The last message that is taken over; `None` means all.
    pub until: Option<MessageId>,
}

/// What came of making a conversation.
#[derive(Debug, Clone, PartialEq)]
pub enum ConversationMade {
    /// It is there.
    Made(Box<Conversation>),
    /// No such agent for this tenant.
    NoAgent,
    /// The fork's message is not in the thread that it names.
    NoMessage,
}

/// What a client says of a step; `None` leaves a part as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FeedbackChange {
    /// New feedback, or that there is none any more.
    pub feedback: Option<Option<Feedback>>,
    /// All tags.
    pub tags: Option<Vec<String>>,
}

/// What came of deleting a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunDeletion {
    /// It is gone, with its steps and events. Its messages stay in the agent's history and name no run any more.
    Deleted,
    /// No such run for this tenant.
    NoRun,
    /// It is not over.
    Active,
    /// Its calls wait for the client.
    Waiting,
}

/// What came of emptying an agent's context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContextReset {
    /// Only the system message is left, compiled anew.
    Emptied,
    /// No such agent for this tenant.
    NoAgent,
    /// This run is not over.
    Busy(RunId),
    /// Calls of this run wait for the client: cancel it first with [`Store::cancel_approval`].
    Waiting(RunId),
}

/// The idempotency key of a request: the `otid`s of its messages, in order (api/03 §6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    /// Hash of agent and otids.
    pub key: String,
    /// Hash of what was asked for: the same key with another hash is refused.
    pub content: String,
}

/// A run to be accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRun {
    /// The run, in state created; its `archived` is the number of the last of `opening`.
    pub run: Run,
    /// Its input, in order.
    pub input: Vec<Message>,
    /// Its idempotency key.
    pub key: Option<RequestKey>,
    /// For a request without a key: hash of what was asked for, by which a repeat can join it while it is active.
    pub content: Option<String>,
    /// The events that it opens with.
    pub opening: Vec<Event>,
    /// W3C `traceparent` of the request.
    pub trace: Option<String>,
    /// Most runs of the thread that may be created or running, this one included.
    pub max_queued: u32,
}

impl NewRun {
    /// A run in state created, with the opening ping if its request wants pings; without key, content and trace.
    #[must_use]
    pub fn new(
        tenant: TenantId,
        thread: Thread,
        request: RunRequest,
        input: Vec<Message>,
        max_queued: u32,
        seams: &Seams,
    ) -> Self {
        let (id, now) = (seams.id(), seams.now());
        let mut encoder = Encoder::new(id, request.attachment, SeqId::START);
        let opening = if request.include_pings { vec![encoder.ping(seams.id(), now)] } else { Vec::new() };
        let run = Run {
            id,
            tenant,
            agent_id: thread.agent,
            conversation_id: thread.conversation,
            request,
            state: RunState::Created,
            cancel_requested: false,
            usage: RunUsage::default(),
            archived: encoder.last(),
            created_at: now,
            ttft_ns: None,
            callback: None,
        };
        Self { run, input, key: None, content: None, opening, trace: None, max_queued }
    }
}

/// What came of accepting a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Accepted {
    /// It is durable, with its input and its intent to execute. The entry is in the outbox; publish it.
    New(OutboxEntry),
    /// The same request made this run before.
    Known(Box<Run>),
    /// The key was used for a request that asked for something else.
    KeyReused(RunId),
    /// No such agent for this tenant.
    NoAgent,
    /// No such conversation of the agent.
    NoConversation,
    /// The thread has too many runs waiting; this one is active.
    TooMany(RunId),
    /// Calls of the agent wait for the client's answer, which this run is not; they are in this message.
    ApprovalPending(MessageId),
    /// The calls that this run answers do not wait any more.
    NothingPending,
    /// This run answers the same calls already.
    BeingAnswered(RunId),
}

/// What is recorded of the one call of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum LoneCall {
    /// It was begun.
    Begun,
    /// It is done.
    Returned(ToolReturn),
}

/// A hint that is to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxEntry {
    /// The row.
    pub id: i64,
    /// The hint.
    pub hint: RunHint,
}

/// What came of a wish to cancel.
#[derive(Debug, Clone, PartialEq)]
pub enum CancelRequest {
    /// No worker has it yet: settle it with [`Store::settle_created`].
    Created(Box<Run>),
    /// A worker has it and will stop; the wish is durable.
    Requested,
    /// It is over already.
    Ended,
}

/// What came of a claim.
#[derive(Debug, Clone, PartialEq)]
pub enum Claim {
    /// The run is this worker's.
    Claimed(Box<Claimed>),
    /// Another worker has it and is not silent for long enough; ask again after this time.
    Held(Duration),
    /// An earlier run of the same agent is not over; its end publishes a new hint.
    Blocked,
    /// It is over, or unknown.
    Gone,
}

/// A claimed run with all that is needed to go on.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    /// The run, as it is now; its `state` is running.
    pub run: Run,
    /// The right to write for it.
    pub lease: Lease,
    /// Claims since the last committed step, this one included; handing back takes one off.
    pub attempts: u32,
    /// Steps that are committed.
    pub steps_done: u32,
    /// The step that a former holder left in the middle.
    pub open_step: Option<OpenStep>,
    /// Why the run ends: its last step is committed and decided so, only the end itself is missing.
    pub decided: Option<StopReason>,
}

/// What a model call is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Context {
    /// The agent.
    pub agent: Agent,
    /// The messages in context, oldest first; the system message is the first.
    pub messages: Vec<Message>,
}

/// A step that begins.
#[derive(Debug, Clone, PartialEq)]
pub struct NewStep {
    /// Its id.
    pub id: StepId,
    /// Place in the run, from 1.
    pub number: u32,
    /// The model that is called.
    pub model: ModelHandle,
    /// Now.
    pub started_at: Timestamp,
    /// The step of an earlier run whose calls this one finishes, without a model call.
    pub answers: Option<StepId>,
}

/// A model's answer with tool calls, recorded before any of them runs.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerRecord {
    /// The assistant message; its body is [`Body::Assistant`].
    pub message: Message,
    /// Tokens of the model call.
    pub usage: Usage,
    /// How long the model call took, in nanoseconds.
    pub llm_request_ns: i64,
    /// Events so far that are not archived yet.
    pub events: Vec<Event>,
}

/// A step that is over.
#[derive(Debug, Clone, PartialEq)]
pub struct StepCommit {
    /// The step.
    pub id: StepId,
    /// How it ended; never pending.
    pub status: StepStatus,
    /// The reason that the run stops after it, if it does.
    pub stop_reason: Option<StopReason>,
    /// What went wrong.
    pub error: Option<StepError>,
    /// Tries of its model call that failed before the one that counts.
    pub retries: Vec<Retry>,
    /// What it changes about calls that wait for the client.
    pub approval: Option<ApprovalChange>,
    /// Tokens of its model call.
    pub usage: Usage,
    /// Messages that it made and that are not recorded yet, in order.
    pub messages: Vec<Message>,
    /// Its times.
    pub llm_request_ns: Option<i64>,
    /// See [`crate::domain::step::StepTiming`].
    pub tool_execution_ns: Option<i64>,
    /// See [`crate::domain::step::StepTiming`].
    pub step_ns: i64,
    /// Usage of the run with this step.
    pub run_usage: RunUsage,
    /// From acceptance to the first event that a model made, in nanoseconds; kept if not set before.
    pub ttft_ns: Option<i64>,
    /// Events that are not archived yet, up to the end of this step.
    pub events: Vec<Event>,
}

/// What a step changes about calls that wait for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApprovalChange {
    /// Calls wait from now on.
    Ask {
        /// The message that has them, one of the commit's.
        request: MessageId,
        /// When the server answers itself.
        deadline: Option<Timestamp>,
    },
    /// Their results are in the commit.
    Settle,
}

/// Calls that waited for the client until their deadline.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpiredApproval {
    /// The agent's owner.
    pub tenant: TenantId,
    /// Where they wait.
    pub thread: Thread,
    /// The message that has them.
    pub request: Message,
}

/// What answers the calls of a run that is cancelled while they wait (api/03 §4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalCancel {
    /// When.
    pub at: Timestamp,
    /// Id of the message that denies the calls.
    pub response: MessageId,
    /// Id of the message with their results.
    pub returns: MessageId,
}

/// A compaction of a context.
#[derive(Debug, Clone, PartialEq)]
pub struct Compaction {
    /// What stands for the dropped messages; it comes right after the system message.
    pub summary: Message,
    /// The messages that leave the context; they stay in the history.
    pub dropped: Vec<MessageId>,
    /// Now.
    pub at: Timestamp,
    /// Usage of the run, with the size of the new context.
    pub run_usage: RunUsage,
    /// Events that are not archived yet, those that show the compaction included.
    pub events: Vec<Event>,
}

/// The end of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunEnd {
    /// Why and how.
    pub outcome: Outcome,
    /// When.
    pub at: Timestamp,
    /// Id for the message that answers the calls which this end leaves open, should there be any.
    pub closing: MessageId,
    /// Whether what the run brought leaves the context: the provider refused it, and would refuse every later call
    /// with it.
    pub forgets_messages: bool,
    /// Events that are not archived yet, the terminal ones included; the last is `[DONE]`.
    pub events: Vec<Event>,
}

/// A tool's edit of an agent's memory: a pure function of the blocks as they are inside the transaction. It may be called
/// more than once.
pub type MemoryEdit<'a> = &'a (dyn Fn(&[Block]) -> EditOutcome + Send + Sync);

/// What a memory tool wants.
#[derive(Debug, Clone, PartialEq)]
pub struct EditOutcome {
    /// All blocks as they are afterwards, in their order, if it succeeded.
    pub blocks: Option<Vec<Block>>,
    /// What the model is told.
    pub tool_return: ToolReturn,
}

/// What a worker says of itself, for the health answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WorkerFacts {
    /// How well Python tools are confined there, in a word and, if they are not executed, with the reason.
    #[serde(default)]
    pub sandbox: String,
}

/// What a worker hears at its heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heartbeat {
    /// Runs of this worker for which a cancel was asked for.
    pub cancelled: Vec<RunId>,
}

/// A callback that is due and was taken by the one who asked.
#[derive(Debug, Clone, PartialEq)]
pub struct TakenCallback {
    /// The run that has ended.
    pub run: Run,
    /// Tries that failed before.
    pub failed: u32,
    /// How often it was taken, this time included: only the last taker says what came of it.
    pub takes: i64,
}

/// The port.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    // Agents

    /// Stores a new agent with its blocks, which are new as well, and the messages that it begins with: its system
    /// message, and what is to stand behind it. Blocks that exist are attached before the new ones, and the system
    /// message is compiled anew then. Answers the agent as it is stored.
    async fn create_agent(
        &self,
        tenant: &TenantId,
        agent: &Agent,
        attached: &[BlockId],
        messages: &[Message],
    ) -> Result<Agent, StoreError>;
    /// An agent; `None` if this tenant has none of that id.
    async fn agent(&self, tenant: &TenantId, id: AgentId) -> Result<Option<Agent>, StoreError>;
    /// A page of agents.
    async fn agents(
        &self,
        tenant: &TenantId,
        filter: &AgentFilter,
        page: &Page<AgentId>,
    ) -> Result<Vec<Agent>, StoreError>;
    /// How many agents there are.
    async fn count_agents(&self, tenant: &TenantId, filter: &AgentFilter) -> Result<u64, StoreError>;
    /// A page of the tags of the tenant's agents, each once, in the order of their bytes; `text` is a part of the tag. A
    /// cursor need not be a tag that exists: it stands where it would stand.
    async fn tags(&self, tenant: &TenantId, text: Option<&str>, page: &Page<String>)
    -> Result<Vec<String>, StoreError>;
    /// Changes an agent and compiles its system message anew if the settings changed; `None` if there is none.
    async fn change_agent(
        &self,
        tenant: &TenantId,
        id: AgentId,
        change: &AgentChange<'_>,
        now: Timestamp,
    ) -> Result<Option<Agent>, StoreError>;
    /// Deletes an agent; its runs and messages stay until retention takes them, and its blocks stay. Whether there was
    /// one.
    async fn delete_agent(&self, tenant: &TenantId, id: AgentId, now: Timestamp) -> Result<bool, StoreError>;
    /// Compiles a thread's system message anew and says its text; `is_kept` stores it. `None` if there is no such thread.
    async fn recompile(
        &self,
        tenant: &TenantId,
        thread: Thread,
        is_kept: bool,
        now: Timestamp,
    ) -> Result<Option<String>, StoreError>;

    // Blocks

    /// Stores a new block, attached to nothing.
    async fn create_block(&self, tenant: &TenantId, block: &Block) -> Result<(), StoreError>;
    /// A block; `None` if this tenant has none of that id.
    async fn block(&self, tenant: &TenantId, id: BlockId) -> Result<Option<Block>, StoreError>;
    /// A page of blocks, in the order of their creation.
    async fn blocks(
        &self,
        tenant: &TenantId,
        filter: &BlockFilter,
        page: &Page<BlockId>,
    ) -> Result<Vec<Block>, StoreError>;
    /// How many blocks there are.
    async fn count_blocks(&self, tenant: &TenantId, filter: &BlockFilter) -> Result<u64, StoreError>;
    /// Changes a block and compiles the system messages of all agents that have it anew, in one transaction.
    async fn change_block(
        &self,
        tenant: &TenantId,
        block: BlockName<'_>,
        change: &BlockChange,
        now: Timestamp,
    ) -> Result<BlockChanged, StoreError>;
    /// Deletes a block and takes it from all agents that have it, in one transaction. Whether there was one.
    async fn delete_block(&self, tenant: &TenantId, id: BlockId, now: Timestamp) -> Result<bool, StoreError>;
    /// Attaches a block to an agent, behind those that it has; nothing changes if it has it.
    async fn attach_block(
        &self,
        tenant: &TenantId,
        agent: AgentId,
        block: BlockId,
        now: Timestamp,
    ) -> Result<BlockChanged<Agent>, StoreError>;
    /// Detaches a block from an agent; nothing changes if it has it not. The block stays.
    async fn detach_block(
        &self,
        tenant: &TenantId,
        agent: AgentId,
        block: BlockId,
        now: Timestamp,
    ) -> Result<BlockChanged<Agent>, StoreError>;

    // Conversations

    /// Stores a new conversation, with a system message that is compiled for it; answers it as it is then. `None` if the
    /// agent is unknown. `fork` names where its messages come from.
    async fn create_conversation(
        &self,
        tenant: &TenantId,
        conversation: &Conversation,
        system: MessageId,
        fork: Option<&Fork>,
    ) -> Result<ConversationMade, StoreError>;
    /// A conversation; `None` if this tenant has none of that id.
    async fn conversation(&self, tenant: &TenantId, id: ConversationId) -> Result<Option<Conversation>, StoreError>;
    /// A page of conversations.
    async fn conversations(
        &self,
        tenant: &TenantId,
        filter: &ConversationFilter,
        page: &Page<ConversationId>,
    ) -> Result<Vec<Conversation>, StoreError>;
    /// Changes a conversation; `None` if there is none.
    async fn change_conversation(
        &self,
        tenant: &TenantId,
        id: ConversationId,
        change: &ConversationChange,
        now: Timestamp,
    ) -> Result<Option<Conversation>, StoreError>;
    /// Deletes a conversation; its runs and messages stay until retention takes them. Whether there was one.
    async fn delete_conversation(
        &self,
        tenant: &TenantId,
        id: ConversationId,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    // Tools. A tenant sees the built-in ones, those that the operator gives to everyone, and its own, each name once: its
    // own tool hides one of the operator.

    /// Stores a tool, or puts it in the place of the one of its name, which keeps its id and its time of creation; answers
    /// it as it is then. Without a tenant it is the operator's, for everyone.
    async fn put_tool(&self, tenant: Option<&TenantId>, tool: &Tool) -> Result<Tool, StoreError>;
    /// A tool; `None` if this tenant sees none of that id.
    async fn tool(&self, tenant: &TenantId, id: ToolId) -> Result<Option<Tool>, StoreError>;
    /// The tools that these names mean, in their order; what means nothing is left out.
    async fn tools_by_name(&self, tenant: &TenantId, names: &[String]) -> Result<Vec<Tool>, StoreError>;
    /// A page of tools, in the order of their creation; the built-in ones are the oldest.
    async fn tools(&self, tenant: &TenantId, filter: &ToolFilter, page: &Page<ToolId>)
    -> Result<Vec<Tool>, StoreError>;
    /// How many tools there are.
    async fn count_tools(&self, tenant: &TenantId, filter: &ToolFilter) -> Result<u64, StoreError>;
    /// Puts a tool of the tenant's own in the place of the one of its id; its name and its time of creation stay. `None`
    /// if it is gone.
    async fn change_tool(&self, tenant: &TenantId, tool: &Tool) -> Result<Option<Tool>, StoreError>;
    /// Deletes a tool of the tenant's own, and takes its name and its rules from the tenant's agents, in one transaction.
    /// Whether there was one.
    async fn delete_tool(&self, tenant: &TenantId, id: ToolId, now: Timestamp) -> Result<bool, StoreError>;

    // Messages

    /// A page of an agent's or a run's messages.
    async fn messages(&self, filter: &MessageFilter, page: &Page<MessageId>) -> Result<Vec<Message>, StoreError>;
    /// Messages of an agent that match, newest first.
    async fn search_messages(&self, agent: AgentId, search: &MessageSearch) -> Result<Vec<Message>, StoreError>;

    /// A page of messages across a tenant's agents. Those of deleted agents are told only by their step.
    async fn find_messages(
        &self,
        tenant: &TenantId,
        scope: &MessageScope,
        page: &Page<MessageId>,
    ) -> Result<Vec<FoundMessage>, StoreError>;
    /// A message; `None` if this tenant has none of that id.
    async fn message(&self, tenant: &TenantId, id: MessageId) -> Result<Option<FoundMessage>, StoreError>;
    /// Messages of a tenant's agents, or of one of them, that match, newest first.
    async fn search_all_messages(
        &self,
        tenant: &TenantId,
        agent: Option<AgentId>,
        threads: ThreadScope,
        search: &MessageSearch,
    ) -> Result<Vec<FoundMessage>, StoreError>;
    /// Takes everything but the system message out of the context of an agent's own thread, and compiles that one anew. The
    /// history stays.
    async fn reset_context(
        &self,
        tenant: &TenantId,
        agent: AgentId,
        now: Timestamp,
    ) -> Result<ContextReset, StoreError>;

    // Steps, across agents

    /// A page of a tenant's steps, in the order of their beginning.
    async fn find_steps(
        &self,
        tenant: &TenantId,
        filter: &StepFilter,
        page: &Page<StepId>,
    ) -> Result<Vec<Step>, StoreError>;
    /// A step; `None` if this tenant has none of that id.
    async fn step(&self, tenant: &TenantId, id: StepId) -> Result<Option<Step>, StoreError>;
    /// Notes what the client says of a step, and answers it as it is then; `None` if there is none.
    async fn rate_step(
        &self,
        tenant: &TenantId,
        id: StepId,
        change: &FeedbackChange,
    ) -> Result<Option<Step>, StoreError>;

    // Runs, from the outside

    /// Accepts a run: run, input, key, opening events and outbox row in one transaction (G1), serialized per agent so
    /// that arrival has an order.
    async fn accept_run(&self, new: &NewRun) -> Result<Accepted, StoreError>;
    /// The run that a request with this key made, if any.
    async fn run_by_key(&self, agent: AgentId, key: &RequestKey) -> Result<Option<Accepted>, StoreError>;
    /// The oldest run of a thread that is not over and was asked for without a key and with this content.
    async fn active_run_by_content(&self, thread: Thread, content: &str) -> Result<Option<Run>, StoreError>;
    /// The newest run of a thread that a message with this `otid` came with.
    async fn run_by_otid(&self, thread: Thread, otid: &str) -> Result<Option<Run>, StoreError>;
    /// A run; `None` if this tenant has none of that id.
    async fn run(&self, tenant: &TenantId, id: RunId) -> Result<Option<Run>, StoreError>;
    /// A page of runs.
    async fn runs(&self, tenant: &TenantId, filter: &RunFilter, page: &Page<RunId>) -> Result<Vec<Run>, StoreError>;
    /// Deletes a run that is over.
    async fn delete_run(&self, tenant: &TenantId, id: RunId) -> Result<RunDeletion, StoreError>;
    /// A page of a run's steps.
    async fn steps(&self, run: RunId, page: &Page<StepId>) -> Result<Vec<Step>, StoreError>;
    /// What is recorded of the call of a run whose work is one call; `None`: it was not begun.
    async fn lone_call(&self, run: RunId) -> Result<Option<LoneCall>, StoreError>;
    /// Archived events after a cursor, in order, at most one read's worth.
    async fn events(&self, run: RunId, after: SeqId) -> Result<Vec<Event>, StoreError>;
    /// Those of these runs that have ended.
    async fn ended_among(&self, runs: &[RunId]) -> Result<Vec<RunId>, StoreError>;
    /// Makes the wish to cancel durable.
    async fn request_cancel(&self, run: RunId, now: Timestamp) -> Result<CancelRequest, StoreError>;
    /// Ends a run that no worker has taken, and wakes the agent's next one. `None`: a worker has taken it meanwhile.
    async fn settle_created(&self, run: RunId, end: &RunEnd) -> Result<Option<Vec<OutboxEntry>>, StoreError>;

    /// Cancels a run that ended because its calls wait for the client: it becomes cancelled, its calls are denied, and
    /// the agent takes messages again. `None` if they do not wait any more. Returns the hint for the agent's next run.
    async fn cancel_approval(
        &self,
        run: RunId,
        cancel: &ApprovalCancel,
    ) -> Result<Option<Vec<OutboxEntry>>, StoreError>;
    /// Calls whose deadline has passed and that no run answers, at most so many.
    async fn expired_approvals(&self, now: Timestamp, limit: u32) -> Result<Vec<ExpiredApproval>, StoreError>;

    // Runs, as their worker sees them

    /// Enters or refreshes the worker's heartbeat, by the store's own clock.
    async fn heartbeat(&self, worker: WorkerId, facts: &WorkerFacts) -> Result<Heartbeat, StoreError>;
    /// What the workers say of themselves that were heard within this time.
    async fn workers(&self, silence: TakeoverAfter) -> Result<Vec<WorkerFacts>, StoreError>;
    /// Removes a worker that stopped: what it still holds can be taken at once.
    async fn retire_worker(&self, worker: WorkerId) -> Result<(), StoreError>;
    /// Takes a run: compare-and-set, epoch + 1.
    async fn claim(
        &self,
        run: RunId,
        worker: WorkerId,
        after: TakeoverAfter,
        now: Timestamp,
    ) -> Result<Claim, StoreError>;
    /// The agent and the messages in its context.
    async fn context(&self, lease: &Lease) -> Result<Context, StoreError>;
    /// Puts events into the archive in mid-step.
    async fn archive(&self, lease: &Lease, events: &[Event]) -> Result<(), StoreError>;
    /// Enters a step as pending; a step of the same number that a former holder left without an answer is replaced.
    async fn begin_step(&self, lease: &Lease, step: &NewStep) -> Result<(), StoreError>;
    /// Records an answer with tool calls before any of them runs.
    async fn record_answer(&self, lease: &Lease, record: &AnswerRecord) -> Result<(), StoreError>;
    /// Notes that a call is about to be carried out that must not be carried out twice.
    async fn begin_call(&self, lease: &Lease, step: StepId, call: u32) -> Result<(), StoreError>;
    /// Records the result of a call; `call` is its place in the answer, from 0.
    async fn record_return(
        &self,
        lease: &Lease,
        step: StepId,
        call: u32,
        tool_return: &ToolReturn,
    ) -> Result<(), StoreError>;
    /// Runs a memory tool: reads the blocks, changes them, compiles the system messages of all agents that have a changed
    /// one anew and records the result, in one transaction. A block that the tool takes away stays if another agent has
    /// it. A call whose result is recorded already is not applied again; that result is the answer.
    async fn edit_memory(
        &self,
        lease: &Lease,
        step: StepId,
        call: u32,
        call_id: &str,
        now: Timestamp,
        edit: MemoryEdit<'_>,
    ) -> Result<ToolReturn, StoreError>;
    /// Commits a step, and with it the end of the run if it is the last one. Returns what is to be published then: the
    /// hint for the agent's next run.
    async fn commit_step(
        &self,
        lease: &Lease,
        commit: &StepCommit,
        end: Option<&RunEnd>,
    ) -> Result<Vec<OutboxEntry>, StoreError>;
    /// Takes messages out of the context and puts a summary in their place, and compiles the system message anew.
    async fn compact(&self, lease: &Lease, compaction: &Compaction) -> Result<(), StoreError>;
    /// Ends a run between steps. An open step is closed as failed or cancelled, as the outcome says.
    async fn settle(&self, lease: &Lease, end: &RunEnd) -> Result<Vec<OutboxEntry>, StoreError>;
    /// Gives a run back at a step boundary; uses up no attempt. Returns its new hint.
    async fn release(&self, lease: &Lease) -> Result<Vec<OutboxEntry>, StoreError>;

    // Outbox

    /// Outbox rows that are due, and makes them due again a little later in case this caller dies.
    async fn outbox_due(&self, limit: u32) -> Result<Vec<OutboxEntry>, StoreError>;
    /// Removes published rows.
    async fn outbox_done(&self, ids: &[i64]) -> Result<(), StoreError>;
    /// Puts hints into the outbox for runs that lost theirs: runs whose holder is silent for longer than `after`, and
    /// created runs at the head of their agent's line that nobody took for `unclaimed_after`, less and less often. How
    /// many.
    async fn rescue(&self, after: TakeoverAfter, unclaimed_after: Duration) -> Result<u64, StoreError>;

    // Callbacks. The end of a run that has a callback URL enters one, in its own transaction.

    /// Takes a callback that is due and leads to none of these receivers, the one that waits longest first. It is left to
    /// the taker for this long.
    async fn take_callback(&self, busy: &[String], left_for: Duration) -> Result<Option<TakenCallback>, StoreError>;
    /// Notes a try on the run. With a pause the callback is due again after it, else it is done. `false`, and nothing is
    /// noted: the callback was taken by another one meanwhile.
    async fn callback_tried(
        &self,
        taken: &TakenCallback,
        tried: &CallbackTry,
        pause: Option<Duration>,
    ) -> Result<bool, StoreError>;

    /// Whether the database answers.
    async fn ping(&self) -> Result<(), StoreError>;
    /// The adapter's name, for the health answer.
    fn name(&self) -> &'static str;
}

/// All messages that a filter lets pass, oldest first.
///
/// # Errors
/// The store failed.
pub async fn all_messages(store: &dyn Store, filter: &MessageFilter) -> Result<Vec<Message>, StoreError> {
    /// Messages in one read.
    const READ: u32 = 200;
    let mut messages: Vec<Message> = Vec::new();
    loop {
        let after = messages.last().map(|message| message.id);
        let page = Page { after, before: None, limit: READ, order: Order::Ascending };
        let more = store.messages(filter, &page).await?;
        let is_last = more.len() < READ as usize;
        messages.extend(more);
        if is_last {
            return Ok(messages);
        }
    }
}

impl Context {
    /// The text of the system message.
    #[must_use]
    pub fn system_text(&self) -> String {
        match self.messages.first().map(|message| &message.body) {
            Some(Body::System(content)) => content.text(),
            _ => String::new(),
        }
    }
}
