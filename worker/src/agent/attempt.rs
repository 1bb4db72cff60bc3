//! The loop of one attempt: step by step from the last commit to the end of the run (api/05 §2).

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use holdfast_shared::config::WorkerSettings;
use holdfast_shared::domain::Timestamp;
use holdfast_shared::domain::event::Event;
use holdfast_shared::domain::ids::{Id, MessageId, StepId};
use holdfast_shared::domain::lease::Lease;
use holdfast_shared::domain::message::{Answer, Body, Labels, Message};
use holdfast_shared::domain::run::{Outcome, Run, RunError, StreamMode};
use holdfast_shared::domain::step::{OpenStep, RecordedAnswer, StepError, StepStatus};
use holdfast_shared::domain::stop_reason::StopReason;
use holdfast_shared::domain::tool::{ToolCall, ToolReturn};
use holdfast_shared::domain::usage::{RunUsage, Usage};
use holdfast_shared::ports::model_client::{ModelError, ModelRequest};
use holdfast_shared::ports::store::{AnswerRecord, Claimed, Context, NewStep, RunEnd, StepCommit, StoreError};
use holdfast_shared::wire::event::Encoder;
use holdfast_shared::wire::message::{SliceHead, answer_slices, returns_slice};
use tokio_util::sync::CancellationToken;

use super::answer::{Assembly, End};
use super::decide::{Called as Call, Next, StepFacts, Style, after_step};
use super::prompt;
use super::rules::{History, Rules};
use crate::Services;
use crate::consumer::Stopping;
use crate::events::writer::{Fenced, Writer};
use crate::execute::publish_end;
use crate::tools::{self, Executed};

/// Wait before the second try of a model call; it doubles with each.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// The longest wait that a provider may ask for before the call is given up.
const RETRY_MOST: Duration = Duration::from_secs(30);

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
enum Waited<T> {
    Done(T),
    Cancelled,
}

/// How a model call ended.
enum Called {
    Answered { answer: Answer, end: End },
    Failed(ModelError),
    Cancelled { partial: Answer },
}

/// The step at hand.
struct Current {
    id: StepId,
    number: u32,
    started_at: Timestamp,
    llm_request_ns: Option<i64>,
}

impl Current {
    /// The message that the model's answer becomes. It has the UUID of its step, so that a successor knows which
    /// message an interrupted step was showing.
    fn message(&self) -> MessageId {
        answer_message(self.id)
    }
}

fn answer_message(step: StepId) -> MessageId {
    MessageId::from_uuid(step.uuid())
}

/// One attempt.
pub struct Attempt<'a> {
    services: &'a Services,
    settings: &'a WorkerSettings,
    run: Run,
    lease: Lease,
    writer: Writer,
    context: Context,
    usage: RunUsage,
    ttft_ns: Option<i64>,
    cancel: CancellationToken,
    stopping: Stopping,
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
        let Claimed { run, lease, steps_done, open_step, .. } = claimed;
        let log = Arc::clone(&services.log);
        let writer = Writer::open(log, lease, run.request.attachment, run.archived).await?;
        let context = services.store.context(&lease).await?;
        let (usage, ttft_ns) = (run.usage, run.ttft_ns);
        let mut attempt = Self { services, settings, run, lease, writer, context, usage, ttft_ns, cancel, stopping };
        attempt.steps(steps_done, open_step).await
    }

    async fn steps(&mut self, steps_done: u32, open_step: Option<OpenStep>) -> Result<(), Interrupt> {
        let mut number = steps_done + 1;
        let mut recorded = None;
        if let Some(open) = open_step {
            match open.answer {
                Some(answer) => recorded = Some((open.id, open.number, open.started_at, answer)),
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
            let goes_on = match recorded.take() {
                Some((id, number, started_at, answer)) => {
                    let step = Current { id, number, started_at, llm_request_ns: None };
                    self.finish_calls(&step, answer).await?
                }
                None => self.step(number).await?,
            };
            if !goes_on {
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
            self.writer.push(|encoder| Some(encoder.superseded(id, now, &[answer_message(step)])));
            self.writer.flush().await?;
        }
        Ok(())
    }

    /// One step from the model call on. Whether another follows.
    async fn step(&mut self, number: u32) -> Result<bool, Interrupt> {
        let request = prompt::request(&self.context, &self.run.request, 128_000);
        let started_at = self.services.seams.now();
        let mut step = Current { id: self.services.seams.id(), number, started_at, llm_request_ns: None };
        let new = NewStep { id: step.id, number, model: request.model.clone(), started_at, answers: None };
        self.services.store.begin_step(&self.lease, &new).await?;
        let called = self.call_model(&step, request).await?;
        step.llm_request_ns = Some(self.nanos_since(started_at));
        match called {
            Called::Answered { answer, end } if answer.calls.is_empty() => self.finish_text(&step, answer, end).await,
            Called::Answered { answer, end } => {
                let message = self.message(step.message(), &step, Body::Assistant(answer.clone()));
                let record = AnswerRecord {
                    message: message.clone(),
                    usage: end.usage,
                    llm_request_ns: step.llm_request_ns.unwrap_or_default(),
                    events: self.writer.unarchived().to_vec(),
                };
                self.services.store.record_answer(&self.lease, &record).await?;
                self.writer.committed(Vec::new());
                self.context.messages.push(message);
                let recorded = RecordedAnswer {
                    message_id: step.message(),
                    answer,
                    usage: end.usage,
                    returns: Vec::new(),
                    begun: Vec::new(),
                    answers: None,
                };
                self.finish_calls(&step, recorded).await
            }
            Called::Failed(error) => {
                let run_error = run_error(&error);
                let step_error =
                    StepError { error_type: error.error_type.as_str().to_owned(), message: error.message.clone() };
                let commit = Commit {
                    status: StepStatus::Failed,
                    usage: Usage::default(),
                    messages: Vec::new(),
                    error: Some(step_error),
                    tool_execution_ns: None,
                };
                self.commit(&step, commit, Vec::new(), Some(Outcome::failed(run_error))).await
            }
            Called::Cancelled { partial } => {
                let is_shown = self.run.request.mode == StreamMode::Tokens && !partial.is_empty();
                let message = is_shown.then(|| self.message(step.message(), &step, Body::Assistant(partial)));
                let commit = Commit {
                    status: StepStatus::Cancelled,
                    usage: Usage::default(),
                    messages: message.into_iter().collect(),
                    error: None,
                    tool_execution_ns: None,
                };
                self.commit(&step, commit, Vec::new(), Some(Outcome::stopped(StopReason::Cancelled))).await
            }
        }
    }

    /// Commits a step whose answer calls no tool.
    async fn finish_text(&mut self, step: &Current, answer: Answer, end: End) -> Result<bool, Interrupt> {
        let next = self.next(step, &[], end.is_cut);
        self.count(end.usage);
        let staged = self.stage_answer(step, &answer, &[]);
        let message = (!answer.is_empty()).then(|| self.message(step.message(), step, Body::Assistant(answer)));
        let commit = Commit {
            status: StepStatus::Success,
            usage: end.usage,
            messages: message.into_iter().collect(),
            error: None,
            tool_execution_ns: None,
        };
        self.commit(step, commit, staged, outcome(next)).await
    }

    /// Executes what is left of a recorded answer's calls, then commits the step.
    async fn finish_calls(&mut self, step: &Current, recorded: RecordedAnswer) -> Result<bool, Interrupt> {
        let RecordedAnswer { answer, usage, mut returns, .. } = recorded;
        let tools_started = self.services.seams.now();
        for (index, call) in answer.calls.iter().enumerate() {
            if returns.iter().any(|known| known.call_id == call.id) {
                continue;
            }
            match self.call_tool(step, index, call).await? {
                Waited::Done(tool_return) => returns.push(tool_return),
                Waited::Cancelled => {
                    self.settle(Outcome::stopped(StopReason::Cancelled)).await?;
                    return Ok(false);
                }
            }
        }
        let place = |tool_return: &ToolReturn| answer.calls.iter().position(|call| call.id == tool_return.call_id);
        returns.sort_by_key(place);
        let next = self.next(step, &returns, false);
        self.count(usage);
        let message = self.message(self.services.seams.id(), step, Body::ToolReturns(returns));
        let staged = self.stage_answer(step, &answer, std::slice::from_ref(&message));
        self.context.messages.push(message.clone());
        let commit = Commit {
            status: StepStatus::Success,
            usage,
            messages: vec![message],
            error: None,
            tool_execution_ns: Some(self.nanos_since(tools_started)),
        };
        self.commit(step, commit, staged, outcome(next)).await
    }

    async fn call_tool(
        &mut self,
        step: &Current,
        index: usize,
        call: &ToolCall,
    ) -> Result<Waited<ToolReturn>, Interrupt> {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        let now = self.services.seams.now();
        let (services, lease, agent) = (self.services, self.lease, &self.context.agent);
        let execution = tools::execute(&*services.store, &lease, step.id, index, call, agent, now);
        let execution = tokio::time::timeout(self.settings.tool_timeout, execution);
        let stop = (&self.cancel, &self.stopping.abandon);
        let executed = match wait_for(&mut self.writer, stop, execution).await? {
            Waited::Done(Ok(executed)) => executed?,
            Waited::Done(Err(_elapsed)) => Executed::Unrecorded(ToolReturn::error(
                call,
                format!("Error executing function {}: TimeoutError: no result in time", call.name),
            )),
            Waited::Cancelled => return Ok(Waited::Cancelled),
        };
        Ok(Waited::Done(match executed {
            Executed::Recorded(tool_return) => tool_return,
            Executed::Unrecorded(tool_return) => {
                services.store.record_return(&lease, step.id, index, &tool_return).await?;
                tool_return
            }
        }))
    }

    /// Calls the model, again if it failed for a while before anything was shown.
    async fn call_model(&mut self, step: &Current, request: ModelRequest) -> Result<Called, Interrupt> {
        let (mut wait, mut tried) = (RETRY_FIRST, 0);
        loop {
            tried += 1;
            let mut assembly = Assembly::default();
            let error = match self.try_model(step, request.clone(), &mut assembly).await? {
                Waited::Done(Ok(end)) => return Ok(Called::Answered { answer: assembly.into_answer(), end }),
                Waited::Done(Err(error)) => error,
                Waited::Cancelled => return Ok(Called::Cancelled { partial: assembly.into_partial() }),
            };
            let pause = error.retry_after.unwrap_or(wait);
            let may_retry = error.is_transient && !assembly.has_begun() && pause <= RETRY_MOST;
            if !may_retry || tried >= self.settings.model_tries {
                return Ok(Called::Failed(error));
            }
            tracing::info!(run.id = %self.run.id, step.id = %step.id, tried, status = error.status, "the model failed; trying again");
            let stop = (&self.cancel, &self.stopping.abandon);
            if let Waited::Cancelled = wait_for(&mut self.writer, stop, tokio::time::sleep(pause)).await? {
                return Ok(Called::Cancelled { partial: Answer::default() });
            }
            wait *= 2;
        }
    }

    async fn try_model(
        &mut self,
        step: &Current,
        request: ModelRequest,
        assembly: &mut Assembly,
    ) -> Result<Waited<Result<End, ModelError>>, Interrupt> {
        let services = self.services;
        let stop = (&self.cancel, &self.stopping.abandon);
        let mut deltas = match wait_for(&mut self.writer, stop, services.models.stream(request)).await? {
            Waited::Done(Ok(deltas)) => deltas,
            Waited::Done(Err(error)) => return Ok(Waited::Done(Err(error))),
            Waited::Cancelled => return Ok(Waited::Cancelled),
        };
        loop {
            while !self.writer.has_room() {
                tokio::select! {
                    driven = self.writer.drive() => driven?,
                    () = self.cancel.cancelled() => return Ok(Waited::Cancelled),
                    () = self.stopping.abandon.cancelled() => return Err(Interrupt::Drained),
                }
            }
            let stop = (&self.cancel, &self.stopping.abandon);
            let delta = match wait_for(&mut self.writer, stop, deltas.next()).await? {
                Waited::Done(Some(Ok(delta))) => delta,
                Waited::Done(Some(Err(error))) => return Ok(Waited::Done(Err(error))),
                Waited::Done(None) => {
                    return Ok(Waited::Done(assembly.end().ok_or_else(|| closed_early(assembly))));
                }
                Waited::Cancelled => return Ok(Waited::Cancelled),
            };
            assembly.add(&delta);
            self.ttft_ns.get_or_insert_with(|| nanos(services.seams.now() - self.run.created_at));
            if self.run.request.mode == StreamMode::Tokens {
                let head = self.head(step.message(), step, services.seams.now());
                self.writer.push(|encoder| assembly.shown(&head, &delta).and_then(|shown| encoder.message(shown)));
                if self.writer.wants_archive() {
                    services.store.archive(&self.lease, self.writer.unarchived()).await?;
                    self.writer.committed(Vec::new());
                }
            }
            if let Some(end) = assembly.end() {
                return Ok(Waited::Done(Ok(end)));
            }
        }
    }

    /// Encodes what readers see of a step only after its commit: in steps mode all of it, in tokens mode the results
    /// of its tools.
    fn stage_answer(&mut self, step: &Current, answer: &Answer, results: &[Message]) -> Vec<Event> {
        let now = self.services.seams.now();
        let head = self.head(step.message(), step, now);
        let shows_answer = self.run.request.mode == StreamMode::Steps;
        self.writer.stage(|encoder| {
            let mut events = Vec::new();
            if shows_answer {
                events.extend(answer_slices(&head, answer).into_iter().filter_map(|shown| encoder.message(shown)));
            }
            for message in results {
                let head = SliceHead { message: message.id, date: message.created_at, ..head };
                if let Body::ToolReturns(returns) = &message.body {
                    events.extend(returns_slice(&head, returns).and_then(|shown| encoder.message(shown)));
                }
            }
            events
        })
    }

    /// Commits a step and, with an outcome, the run. Whether the run goes on.
    async fn commit(
        &mut self,
        step: &Current,
        commit: Commit,
        mut staged: Vec<Event>,
        outcome: Option<Outcome>,
    ) -> Result<bool, Interrupt> {
        let now = self.services.seams.now();
        if commit.status == StepStatus::Success {
            self.ttft_ns.get_or_insert_with(|| nanos(now - self.run.created_at));
        }
        let mut events = self.writer.unarchived().to_vec();
        events.extend_from_slice(&staged);
        let step_commit = StepCommit {
            id: step.id,
            status: commit.status,
            stop_reason: outcome.as_ref().map(|outcome| outcome.reason),
            error: commit.error,
            retries: Vec::new(),
            approval: None,
            usage: commit.usage,
            messages: commit.messages,
            llm_request_ns: step.llm_request_ns,
            tool_execution_ns: commit.tool_execution_ns,
            step_ns: self.nanos_since(step.started_at),
            run_usage: self.usage,
            ttft_ns: self.ttft_ns,
            events,
        };
        let end = outcome.map(|outcome| self.end(outcome, now));
        let entries = self.services.store.commit_step(&self.lease, &step_commit, end.as_ref()).await?;
        self.services.relay.nudge(entries);
        let has_ended = end.is_some();
        if let Some(end) = end {
            tracing::info!(run.id = %self.run.id, stop_reason = end.outcome.reason.as_str(), "run ended");
            staged.extend(end.events);
        }
        self.writer.committed(staged);
        if has_ended {
            publish_end(&*self.services.log, &self.lease, &mut self.writer).await;
        }
        Ok(!has_ended)
    }

    /// Ends the run between steps, or in the middle of one whose calls will not be finished.
    async fn settle(&mut self, outcome: Outcome) -> Result<(), Interrupt> {
        let now = self.services.seams.now();
        let last = self.end(outcome, now);
        let mut events = self.writer.unarchived().to_vec();
        events.extend_from_slice(&last.events);
        let end = RunEnd { outcome: last.outcome, at: now, closing: last.closing, forgets_messages: false, events };
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
        RunEnd { outcome, at, closing: self.services.seams.id(), forgets_messages: false, events }
    }

    fn next(&self, step: &Current, returns: &[ToolReturn], is_cut: bool) -> Next {
        let of_run = self.context.messages.iter().filter(|message| message.run_id == Some(self.run.id));
        let mut history = History::of(of_run);
        returns.iter().for_each(|tool_return| history.push(tool_return));
        let calls: Vec<Call<'_>> = returns.iter().map(Call::answered).collect();
        after_step(&StepFacts {
            style: Style::Current,
            calls: &calls,
            is_cut,
            rules: &Rules::of(&self.context.agent, &self.run.request),
            history: &history,
            has_more_input: false,
            number: step.number,
            max_steps: self.run.request.max_steps,
        })
    }

    fn count(&mut self, usage: Usage) {
        self.usage.sum = self.usage.sum.plus(usage);
        self.usage.step_count += 1;
        self.usage.context_tokens = Some(usage.total_tokens);
    }

    fn message(&self, id: MessageId, step: &Current, body: Body) -> Message {
        Message {
            id,
            agent_id: self.run.agent_id,
            run_id: Some(self.run.id),
            step_id: Some(step.id),
            body,
            labels: Labels::default(),
            created_at: self.services.seams.now(),
        }
    }

    fn head(&self, message: MessageId, step: &Current, date: Timestamp) -> SliceHead {
        SliceHead { message, date, step: Some(step.id), run: Some(self.run.id) }
    }

    fn nanos_since(&self, start: Timestamp) -> i64 {
        nanos(self.services.seams.now() - start)
    }
}

/// What [`Attempt::commit`] is told of a step.
struct Commit {
    status: StepStatus,
    usage: Usage,
    messages: Vec<Message>,
    error: Option<StepError>,
    tool_execution_ns: Option<i64>,
}

/// Waits for a future while the writer makes progress; a cancel or the end of the drain time cuts it.
async fn wait_for<T>(
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

fn outcome(next: Next) -> Option<Outcome> {
    match next {
        Next::Continue { .. } => None,
        Next::Stop(reason) => Some(Outcome::stopped(reason)),
    }
}

fn closed_early(assembly: &Assembly) -> ModelError {
    use holdfast_shared::domain::run::ErrorType;
    ModelError {
        error_type: ErrorType::LlmError,
        message: "The model's answer ended before it was complete.".to_owned(),
        detail: None,
        status: None,
        is_transient: !assembly.has_begun(),
        is_context_overflow: false,
        retry_after: None,
    }
}

fn run_error(error: &ModelError) -> RunError {
    RunError {
        error_type: error.error_type,
        message: error.message.clone(),
        detail: error.detail.clone(),
        provider_status: error.status,
    }
}

fn nanos(duration: chrono::TimeDelta) -> i64 {
    duration.num_nanoseconds().unwrap_or(i64::MAX)
}
