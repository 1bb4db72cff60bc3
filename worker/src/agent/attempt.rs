//! One attempt at a run: step by step from the last commit to its end (api/05 §2). What a step does is in `step`, its
//! model call in `model_call`, its tool calls in `calls`.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use holdfast_shared::config::WorkerSettings;
use holdfast_shared::domain::Timestamp;
use holdfast_shared::domain::event::Event;
use holdfast_shared::domain::ids::{Id, MessageId, StepId};
use holdfast_shared::domain::lease::Lease;
use holdfast_shared::domain::message::{Answer, Body, Labels, Message};
use holdfast_shared::domain::model::ModelHandle;
use holdfast_shared::domain::run::{ErrorType, Outcome, Run, RunError, RunWork, StreamMode};
use holdfast_shared::domain::step::{OpenStep, Retry, StepError, StepStatus};
use holdfast_shared::domain::stop_reason::StopReason;
use holdfast_shared::domain::usage::{RunUsage, Usage};
use holdfast_shared::models::Catalogue;
use holdfast_shared::ports::store::{ApprovalChange, Claimed, Context, RunEnd, StepCommit, StoreError};
use holdfast_shared::wire::event::Encoder;
use holdfast_shared::wire::message::{SliceHead, answer_slices, request_slices, returns_slice};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use tracing::field::Empty;
use uuid::Uuid;

use super::answer::Heads;
use super::history;
use super::rules::{History, Rules};
use crate::Services;
use crate::consumer::Stopping;
use crate::events::writer::{Fenced, Writer};
use crate::execute::publish_end;

/// The longest wait for what a provider says of its model.
const WINDOW_WAIT: Duration = Duration::from_millis(500);
/// The context window of a model of which nothing is known, in tokens.
const DEFAULT_WINDOW: u64 = 128_000;

/// Why an attempt stopped before the end of its run.
#[derive(Debug)]
pub enum Interrupt {
    /// A later claim exists: stop without a word.
    Fenced,
    /// The worker is stopping.
    Drained,
    /// The store failed.
    Store(StoreError),
}

impl From<StoreError> for Interrupt {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Fenced => Self::Fenced,
            error => Self::Store(error),
        }
    }
}

impl From<Fenced> for Interrupt {
    fn from(_: Fenced) -> Self {
        Self::Fenced
    }
}

/// What waiting brought.
pub(super) enum Waited<T> {
    /// What was waited for.
    Done(T),
    /// A cancel.
    Cancelled,
}

/// What follows a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// Another step.
    Step,
    /// Nothing: the run has ended.
    End,
}

/// The step at hand.
pub(super) struct Current {
    pub(super) id: StepId,
    pub(super) number: u32,
    pub(super) started_at: Timestamp,
    /// The step whose id its messages carry: of an earlier run, where this one finishes that one's calls.
    pub(super) shown_as: StepId,
    pub(super) llm_request_ns: Option<i64>,
    pub(super) retries: Vec<Retry>,
    /// Whether the context was compacted for it: once is enough.
    pub(super) is_compacted: bool,
}

impl Current {
    pub(super) const fn new(id: StepId, number: u32, started_at: Timestamp) -> Self {
        Self { id, number, started_at, shown_as: id, llm_request_ns: None, retries: Vec::new(), is_compacted: false }
    }

    /// Says in the span of the step which one it is.
    pub(super) fn name_span(&self) {
        tracing::Span::current().record("step.id", tracing::field::display(self.id));
    }

    /// The message that the model's answer becomes. It has the UUID of its step, so that a successor knows which
    /// message an interrupted step was showing.
    pub(super) fn answer_message(&self) -> MessageId {
        answer_message(self.id)
    }

    /// The message that its calls become if they wait for the client.
    pub(super) fn request_message(&self) -> MessageId {
        request_message(self.id)
    }
}

fn answer_message(step: StepId) -> MessageId {
    MessageId::from_uuid(step.uuid())
}

/// It differs from the answer's message above the seven bits that tell slices apart.
fn request_message(step: StepId) -> MessageId {
    MessageId::from_uuid(Uuid::from_u128(step.uuid().as_u128() ^ 0x80))
}

/// One attempt.
pub struct Attempt<'a> {
    pub(super) services: &'a Services,
    pub(super) settings: &'a WorkerSettings,
    pub(super) run: Run,
    pub(super) lease: Lease,
    pub(super) writer: Writer,
    pub(super) context: Context,
    /// The model's context window in tokens.
    pub(super) window: u64,
    /// What the run has called so far, for the tool rules.
    pub(super) history: History,
    pub(super) usage: RunUsage,
    pub(super) ttft_ns: Option<i64>,
    pub(super) cancel: CancellationToken,
    pub(super) stopping: Stopping,
}

impl<'a> Attempt<'a> {
    /// Goes on with a claimed run until it has ended.
    ///
    /// # Errors
    /// The attempt stopped before the end of the run.
    pub async fn run(
        services: &'a Services,
        settings: &'a WorkerSettings,
        claimed: Claimed,
        cancel: CancellationToken,
        stopping: Stopping,
    ) -> Result<(), Interrupt> {
        let Claimed { run, lease, steps_done, open_step, decided, .. } = claimed;
        let log = Arc::clone(&services.log);
        let writer = Writer::open(log, lease, run.request.attachment, run.archived).await?;
        let context = services.store.context(&lease).await?;
        let history = history::of_run(&*services.store, &run, &context.agent.settings.tool_rules).await?;
        let (usage, ttft_ns) = (run.usage, run.ttft_ns);
        let model = run.request.override_model.as_ref().unwrap_or(&context.agent.settings.model);
        let window = window(&services.catalogue, model, context.agent.settings.context_window_limit).await;
        let mut attempt =
            Self { services, settings, run, lease, writer, context, window, history, usage, ttft_ns, cancel, stopping };
        if let Some(reason) = decided {
            return attempt.settle(Outcome::stopped(reason)).await;
        }
        match attempt.run.request.work.clone() {
            RunWork::Answer => attempt.steps(steps_done, open_step).await,
            RunWork::Compact { settings } => attempt.compact_on_demand(settings.as_ref()).await,
            RunWork::CallTool { call } => attempt.call_tool(call, open_step).await,
        }
    }

    async fn steps(&mut self, steps_done: u32, open_step: Option<OpenStep>) -> Result<(), Interrupt> {
        let mut number = steps_done + 1;
        let mut recorded = None;
        if let Some(open) = open_step {
            match open.answer {
                Some(answer) => recorded = Some((Current::new(open.id, open.number, open.started_at), answer)),
                None => self.tell_superseded(open.id).await?,
            }
        }
        loop {
            if self.cancel.is_cancelled() {
                return self.settle(Outcome::stopped(StopReason::Cancelled)).await;
            }
            if self.stopping.drain.is_cancelled() {
                self.writer.flush().await?;
                return Err(Interrupt::Drained);
            }
            let span = tracing::info_span!("step", step.number = number, step.id = Empty);
            let then = match (recorded.take(), self.run.request.answering) {
                (Some((step, answer)), _) => self.finish_recorded(step, answer).instrument(span).await?,
                (None, Some(answering)) if number == 1 => self.answer_calls(answering).instrument(span).await?,
                (None, _) => self.step(number).instrument(span).await?,
            };
            if then == Then::End {
                return Ok(());
            }
            number += 1;
        }
    }

    /// Readers of tokens may have seen a part of a step that will be repeated: the stream says that it is void. It says
    /// so before the step begins anew, since after that nobody would know the old step any more.
    async fn tell_superseded(&mut self, step: StepId) -> Result<(), Interrupt> {
        if self.run.request.mode == StreamMode::Tokens {
            let (id, now) = (self.services.seams.id(), self.services.seams.now());
            let both = [answer_message(step), request_message(step)];
            let void = if self.waiting().is_empty() { &both[..1] } else { &both[..] };
            self.writer.push(|encoder| Some(encoder.superseded(id, now, void)));
            self.writer.flush().await?;
        }
        Ok(())
    }

    /// Names of the tools whose calls wait for the client.
    pub(super) fn waiting(&self) -> BTreeSet<String> {
        let rules = self.rules();
        let gated = self.context.agent.tools.iter().map(|tool| tool.spec.name.as_str());
        let gated = gated.filter(|name| rules.gates(name)).map(str::to_owned);
        gated.chain(self.run.request.client_tools.iter().map(|tool| tool.name.clone())).collect()
    }

    /// The rules of the agent on the tools that it has.
    pub(super) fn rules(&self) -> Rules<'_> {
        Rules::of(&self.context.agent, &self.run.request)
    }

    /// The model of this run.
    pub(super) fn model(&self) -> ModelHandle {
        self.run.request.override_model.clone().unwrap_or_else(|| self.context.agent.settings.model.clone())
    }

    /// Whether the agent is of a type that speaks and thinks by calls (api/05 §9).
    pub(super) fn is_legacy(&self) -> bool {
        self.context.agent.settings.is_legacy()
    }

    /// Encodes what readers see of a step only after its commit: in steps mode all of it, in tokens mode the results
    /// of its tools.
    pub(super) fn stage(&mut self, messages: &[Message]) -> Vec<Event> {
        let mode = self.run.request.mode;
        let speech = self.run.request.speech.as_ref();
        self.writer.stage(|encoder| {
            let mut events = Vec::new();
            for message in messages {
                let head = SliceHead {
                    message: message.id,
                    date: message.created_at,
                    step: message.step_id,
                    run: message.run_id,
                };
                let slices = match (&message.body, mode) {
                    (Body::Assistant(answer), StreamMode::Steps) => answer_slices(&head, answer, speech),
                    (Body::ApprovalRequest(answer), StreamMode::Steps) => request_slices(&head, answer),
                    (Body::ToolReturns(returns), _) => returns_slice(&head, returns, speech).into_iter().collect(),
                    _ => Vec::new(),
                };
                events.extend(slices.into_iter().filter_map(|shown| encoder.message(shown)));
            }
            events
        })
    }

    /// Commits a step; with an outcome, the run ends after it.
    pub(super) async fn commit(
        &mut self,
        step: &Current,
        commit: Commit,
        outcome: Option<Outcome>,
    ) -> Result<Then, Interrupt> {
        let now = self.services.seams.now();
        if commit.status == StepStatus::Success {
            self.ttft_ns.get_or_insert_with(|| nanos(now - self.run.created_at));
        }
        let Commit { status, usage, messages, shown, error, approval, tool_execution_ns } = commit;
        let mut staged = self.stage(&shown);
        // A context that is nearly full is compacted after the step and before the end: the reason is committed with
        // the step, so that whoever takes over knows it.
        let must_compact = status == StepStatus::Success && self.is_nearly_full();
        let mut events = self.writer.unarchived().to_vec();
        events.extend_from_slice(&staged);
        let step_commit = StepCommit {
            id: step.id,
            status,
            stop_reason: outcome.as_ref().map(|outcome| outcome.reason),
            error,
            retries: step.retries.clone(),
            approval,
            usage,
            messages: messages.clone(),
            llm_request_ns: step.llm_request_ns,
            tool_execution_ns,
            step_ns: self.nanos_since(step.started_at),
            run_usage: self.usage,
            ttft_ns: self.ttft_ns,
            events,
        };
        self.context.messages.extend(messages);
        if must_compact {
            self.services.store.commit_step(&self.lease, &step_commit, None).await?;
            self.writer.committed(staged);
            self.compact_after_step(step).await?;
            return match outcome {
                Some(outcome) => self.settle(outcome).await.map(|()| Then::End),
                None => Ok(Then::Step),
            };
        }
        let end = outcome.map(|outcome| self.end(outcome, now));
        let entries = self.services.store.commit_step(&self.lease, &step_commit, end.as_ref()).await?;
        self.services.relay.nudge(entries);
        let then = if end.is_some() { Then::End } else { Then::Step };
        if let Some(end) = end {
            tracing::info!(run.id = %self.run.id, stop_reason = end.outcome.reason.as_str(), "run ended");
            staged.extend(end.events);
        }
        self.writer.committed(staged);
        if then == Then::End {
            publish_end(&*self.services.log, &self.lease, &mut self.writer).await;
        }
        Ok(then)
    }

    /// Ends the run between steps, or in the middle of one whose calls will not be finished.
    pub(super) async fn settle(&mut self, outcome: Outcome) -> Result<(), Interrupt> {
        let now = self.services.seams.now();
        let last = self.end(outcome, now);
        let mut events = self.writer.unarchived().to_vec();
        events.extend_from_slice(&last.events);
        let end = RunEnd { events, ..last.clone() };
        let entries = self.services.store.settle(&self.lease, &end).await?;
        self.services.relay.nudge(entries);
        tracing::info!(run.id = %self.run.id, stop_reason = end.outcome.reason.as_str(), "run ended");
        self.writer.committed(last.events);
        publish_end(&*self.services.log, &self.lease, &mut self.writer).await;
        Ok(())
    }

    fn end(&mut self, outcome: Outcome, at: Timestamp) -> RunEnd {
        let usage = self.usage;
        let events = self.writer.stage(|encoder: &mut Encoder| encoder.end(&outcome, &usage));
        let forgets_messages = outcome.error.as_ref().is_some_and(is_refusal);
        RunEnd { outcome, at, closing: self.services.seams.id(), forgets_messages, events }
    }

    pub(super) fn count(&mut self, usage: Usage) {
        self.usage.sum = self.usage.sum.plus(usage);
        self.usage.step_count += 1;
        self.usage.context_tokens = Some(usage.total_tokens);
    }

    pub(super) fn message(&self, id: MessageId, step: impl Into<Option<StepId>>, body: Body) -> Message {
        Message {
            id,
            agent_id: self.run.agent_id,
            run_id: Some(self.run.id),
            step_id: step.into(),
            body,
            labels: Labels::default(),
            created_at: self.services.seams.now(),
        }
    }

    /// The messages of an answer that is divided already.
    pub(super) fn answer_messages(
        &self,
        step: &Current,
        answer: Option<Answer>,
        request: Option<Answer>,
    ) -> Vec<Message> {
        let answer = answer.filter(|answer| !answer.is_empty());
        let answer = answer.map(|answer| self.message(step.answer_message(), step.id, Body::Assistant(answer)));
        let request =
            request.map(|request| self.message(step.request_message(), step.id, Body::ApprovalRequest(request)));
        answer.into_iter().chain(request).collect()
    }

    pub(super) fn heads(&self, step: &Current) -> Heads {
        let date = self.services.seams.now();
        let head = |message| SliceHead { message, date, step: Some(step.id), run: Some(self.run.id) };
        Heads { answer: head(step.answer_message()), request: head(step.request_message()) }
    }

    pub(super) fn nanos_since(&self, start: Timestamp) -> i64 {
        nanos(self.services.seams.now() - start)
    }
}

/// A model's context window in tokens, or what the agent's client allows of it. A provider that does not say it at once is
/// not waited for.
async fn window(catalogue: &Catalogue, model: &ModelHandle, limit: Option<u64>) -> u64 {
    let known = tokio::time::timeout(WINDOW_WAIT, catalogue.info(model)).await.ok().flatten();
    let window = known.map_or(DEFAULT_WINDOW, |info| info.context_window);
    limit.map_or(window, |limit| limit.min(window))
}

/// What [`Attempt::commit`] is told of a step.
pub(super) struct Commit {
    pub(super) status: StepStatus,
    pub(super) usage: Usage,
    /// Messages that are not stored yet.
    pub(super) messages: Vec<Message>,
    /// Messages that readers may see from now on, in order; those that streams of tokens showed already are left out
    /// there.
    pub(super) shown: Vec<Message>,
    pub(super) error: Option<StepError>,
    pub(super) approval: Option<ApprovalChange>,
    pub(super) tool_execution_ns: Option<i64>,
}

/// Whether an error is a provider's refusal of the request itself, which it would repeat for every later one that holds
/// the same messages (api/05 §2): 4xx other than credentials, rate and time, which have types of their own.
const fn is_refusal(error: &RunError) -> bool {
    matches!(error.error_type, ErrorType::LlmError) && matches!(error.provider_status, Some(400..=499))
}

/// Waits for a future while the writer makes progress; a cancel or the end of the drain time cuts it.
pub(super) async fn wait_for<T>(
    writer: &mut Writer,
    (cancel, abandon): (&CancellationToken, &CancellationToken),
    future: impl Future<Output = T>,
) -> Result<Waited<T>, Interrupt> {
    let mut future = pin!(future);
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(Waited::Cancelled),
            () = abandon.cancelled() => return Err(Interrupt::Drained),
            driven = writer.drive(), if writer.is_busy() => driven?,
            value = &mut future => return Ok(Waited::Done(value)),
        }
    }
}

pub(super) fn nanos(duration: chrono::TimeDelta) -> i64 {
    duration.num_nanoseconds().unwrap_or(i64::MAX)
}
