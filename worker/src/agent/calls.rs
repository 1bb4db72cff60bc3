//! The tool calls of a step: carried out, recorded one by one, committed together.

use std::collections::BTreeMap;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use holdfast_shared::domain::approval::{Answering, CallAnswer};
use holdfast_shared::domain::message::{Answer, Body};
use holdfast_shared::domain::run::Outcome;
use holdfast_shared::domain::step::{OpenStep, RecordedAnswer, StepStatus};
use holdfast_shared::domain::stop_reason::StopReason;
use holdfast_shared::domain::tool::{Tool, ToolCall, ToolReturn, ToolStatus};
use holdfast_shared::domain::usage::Usage;
use holdfast_shared::ports::store::{ApprovalChange, LoneCall, NewStep, StoreError};
use tokio::sync::mpsc;
use tracing::Instrument as _;
use tracing::field::Empty;

use super::approval::{Answered, answered};
use super::attempt::{Attempt, Commit, Current, Interrupt, Then, Waited, wait_for};
use super::decide::{Called, Fate};
use super::rules::Offer;
use super::step::Asked;
use crate::tools::{Executed, Execution, Progress};

/// What a call whose worker died is answered with: nobody knows whether it had an effect (G6).
const INTERRUPTED: &str = "The call was interrupted because its worker stopped; whether it had an effect is unknown. \
                           Check before you make it again.";
/// Progress reports that may wait to be shown; more are left out.
const PROGRESS_WAITING: usize = 16;

/// What is to be done about a call.
enum Planned {
    /// Its result is known without running anything.
    Known(ToolReturn),
    /// It is to run, with these arguments.
    Run(Box<(Tool, ToolCall)>),
}

impl Attempt<'_> {
    /// Goes on with a step that a former holder left with calls.
    pub(super) async fn finish_recorded(
        &mut self,
        mut step: Current,
        recorded: RecordedAnswer,
    ) -> Result<Then, Interrupt> {
        step.name_span();
        match (recorded.answers, self.run.request.answering) {
            (Some(_), Some(answering)) => {
                step.shown_as = answering.step;
                self.finish_answering(step, recorded).await
            }
            _ => {
                let offer = self.rules().offer(&self.history);
                self.finish_calls(step, recorded, &offer).await
            }
        }
    }

    /// Executes what is left of a step's calls, then commits the step.
    pub(super) async fn finish_calls(
        &mut self,
        step: Current,
        recorded: RecordedAnswer,
        offer: &Offer,
    ) -> Result<Then, Interrupt> {
        let tools_started = self.services.seams.now();
        let calls = recorded.answer.calls.clone();
        let mut misfits = Vec::new();
        let planned = calls.iter().map(|call| self.plan(call, Some(offer), &mut misfits)).collect();
        let returns = match self.run_calls(&step, &recorded, planned).await? {
            Waited::Done(returns) => returns,
            Waited::Cancelled => return self.settle(Outcome::stopped(StopReason::Cancelled)).await.map(|()| Then::End),
        };
        returns.iter().for_each(|one| self.history.push(one));
        let fates: Vec<Called<'_>> = returns.iter().map(|one| fate(one, &misfits)).collect();
        let asked = Asked { wants_heartbeat: self.wants_heartbeat(&calls), has_more_input: false };
        let next = self.next(&step, &fates, false, asked);
        self.count(recorded.usage);
        let message = self.message(self.services.seams.id(), step.shown_as, Body::ToolReturns(returns.clone()));
        let mut shown: Vec<_> =
            self.context.messages.iter().filter(|one| one.id == recorded.message_id).cloned().collect();
        shown.push(message.clone());
        let mut messages = vec![message];
        let outcome = self.outcome(next, &step, &mut messages);
        let commit = Commit {
            status: StepStatus::Success,
            usage: recorded.usage,
            messages,
            shown,
            tool_execution_ns: Some(self.nanos_since(tools_started)),
            ..Commit::empty()
        };
        self.commit(&step, commit, outcome).await
    }

    /// The first step of a run that answers waiting calls: no model call, only what the answers allow (api/05 §6).
    pub(super) async fn answer_calls(&mut self, answering: Answering) -> Result<Then, Interrupt> {
        if self.context.agent.pending_approval.as_ref().map(|pending| pending.request.id) != Some(answering.request) {
            // Settled while this run waited for its turn.
            return self.settle(Outcome::stopped(StopReason::InvalidToolCall)).await.map(|()| Then::End);
        }
        let started_at = self.services.seams.now();
        let mut step = Current::new(self.services.seams.id(), 1, started_at);
        step.name_span();
        step.shown_as = answering.step;
        let new = NewStep { id: step.id, number: 1, model: self.model(), started_at, answers: Some(answering.step) };
        self.services.store.begin_step(&self.lease, &new).await?;
        let recorded = RecordedAnswer {
            message_id: answering.request,
            answer: self.asked(answering),
            usage: Usage::default(),
            returns: Vec::new(),
            begun: Vec::new(),
            answers: Some(answering.step),
        };
        self.finish_answering(step, recorded).await
    }

    async fn finish_answering(&mut self, step: Current, recorded: RecordedAnswer) -> Result<Then, Interrupt> {
        let tools_started = self.services.seams.now();
        let (pending, answers) = self.pending_and_answers(&recorded);
        let is_pending = |call: &ToolCall| pending.iter().any(|one| one.id == call.id);
        let free: Vec<ToolCall> = recorded.answer.calls.iter().filter(|call| !is_pending(call)).cloned().collect();
        let mut misfits = Vec::new();
        let Answered { known, to_run } = {
            let rules = self.rules();
            let offer = rules.offer(&self.history);
            answered(&pending, &free, &answers, |call| rules.violation(&self.history, &offer, &call.name))
        };
        let planned = recorded.answer.calls.iter().map(|call| match known.iter().find(|one| one.call_id == call.id) {
            Some(known) => Planned::Known(known.clone()),
            None => self.plan(call, None, &mut misfits),
        });
        let planned = planned.collect();
        let mut returns = match self.run_calls(&step, &recorded, planned).await? {
            Waited::Done(returns) => returns,
            Waited::Cancelled => return self.settle(Outcome::stopped(StopReason::Cancelled)).await.map(|()| Then::End),
        };
        let order: Vec<&str> =
            known.iter().map(|one| one.call_id.as_str()).chain(to_run.iter().map(|call| call.id.as_str())).collect();
        returns.sort_by_key(|one| order.iter().position(|id| *id == one.call_id));
        returns.iter().for_each(|one| self.history.push(one));
        let fates: Vec<Called<'_>> = returns.iter().map(|one| fate(one, &misfits)).collect();
        let asked = Asked {
            wants_heartbeat: self.wants_heartbeat(&recorded.answer.calls),
            has_more_input: self.has_more_input(),
        };
        let next = self.next(&step, &fates, false, asked);
        let message = self.message(self.services.seams.id(), step.shown_as, Body::ToolReturns(returns.clone()));
        let mut messages = vec![message.clone()];
        let outcome = self.outcome(next, &step, &mut messages);
        let commit = Commit {
            status: StepStatus::Success,
            messages,
            shown: vec![message],
            approval: Some(ApprovalChange::Settle),
            tool_execution_ns: Some(self.nanos_since(tools_started)),
            ..Commit::empty()
        };
        self.commit(&step, commit, outcome).await
    }

    /// The calls of the step that asked, those that need no answer first, as the store has them too.
    fn asked(&self, answering: Answering) -> Answer {
        let of_step = self.context.messages.iter().filter(|message| message.step_id == Some(answering.step));
        let calls = of_step.flat_map(|message| match &message.body {
            Body::Assistant(answer) | Body::ApprovalRequest(answer) => answer.calls.as_slice(),
            _ => &[],
        });
        Answer { calls: calls.cloned().collect(), ..Answer::default() }
    }

    fn pending_and_answers(&self, recorded: &RecordedAnswer) -> (Vec<ToolCall>, Vec<CallAnswer>) {
        let mut pending = Vec::new();
        let mut answers = Vec::new();
        for message in &self.context.messages {
            match &message.body {
                Body::ApprovalRequest(request) if message.id == recorded.message_id => {
                    pending.clone_from(&request.calls)
                }
                Body::ApprovalResponse(given) if message.run_id == Some(self.run.id) => answers.clone_from(given),
                _ => {}
            }
        }
        (pending, answers)
    }

    /// Whether the request brought messages besides its answers: the model is to see them.
    fn has_more_input(&self) -> bool {
        let of_run = self.context.messages.iter().filter(|message| message.run_id == Some(self.run.id));
        of_run.into_iter().any(|message| matches!(message.body, Body::User(_) | Body::System(_) | Body::History(_)))
    }

    /// What is to be done about a call. What was approved, or is free beside it, is not checked against an offer.
    fn plan(&self, call: &ToolCall, offer: Option<&Offer>, misfits: &mut Vec<String>) -> Planned {
        let rules = self.rules();
        if let Some(offer) = offer
            && let Some(text) = rules.violation(&self.history, offer, &call.name)
        {
            return Planned::Known(ToolReturn::refused(call, text));
        }
        let Some(tool) = self.context.agent.tools.iter().find(|tool| tool.spec.name == call.name) else {
            return Planned::Known(ToolReturn::refused(call, "Tool not found".to_owned()));
        };
        let call = match rules.prefill(&self.history, call, &tool.spec.parameters) {
            Ok(call) => call,
            Err(text) => {
                misfits.push(call.id.clone());
                return Planned::Known(ToolReturn::refused(call, text));
            }
        };
        let call = match self.additions().and_then(|additions| additions.get(&call.name).copied()) {
            Some(additions) => additions.strip(&call).call,
            None => call,
        };
        match crate::tools::read_arguments(&call) {
            Ok(_) => Planned::Run(Box::new((tool.clone(), call))),
            Err(text) => Planned::Known(ToolReturn::refused(&call, text)),
        }
    }

    /// Carries calls out: those that may run beside others at once, then the rest one by one. The results are in call
    /// order; each is recorded as soon as it is there.
    async fn run_calls(
        &mut self,
        step: &Current,
        recorded: &RecordedAnswer,
        planned: Vec<Planned>,
    ) -> Result<Waited<Vec<ToolReturn>>, Interrupt> {
        let mut returns: BTreeMap<u32, ToolReturn> = BTreeMap::new();
        let (mut together, mut alone) = (Vec::new(), Vec::new());
        for (place, planned) in (0..).zip(planned) {
            let (tool, call) = match planned {
                Planned::Known(known) => {
                    returns.insert(place, known);
                    continue;
                }
                Planned::Run(run) => *run,
            };
            if let Some(done) = recorded.returns.iter().find(|done| done.call_id == call.id) {
                returns.insert(place, done.clone());
            } else if recorded.begun.contains(&place) && !tool.options.is_repeatable {
                returns.insert(place, ToolReturn::error(&call, INTERRUPTED.to_owned()));
            } else if tool.options.is_parallel {
                together.push((place, tool, call));
            } else {
                alone.push((place, tool, call));
            }
        }
        let groups = std::iter::once(together).chain(alone.into_iter().map(|one| vec![one]));
        for group in groups.filter(|group| !group.is_empty()) {
            match self.run_group(step, group).await? {
                Waited::Done(done) => returns.extend(done),
                Waited::Cancelled => return Ok(Waited::Cancelled),
            }
        }
        Ok(Waited::Done(returns.into_values().collect()))
    }

    /// The work of a run that makes one call, and nothing else.
    pub(super) async fn call_tool(&mut self, call: ToolCall, open: Option<OpenStep>) -> Result<(), Interrupt> {
        if self.cancel.is_cancelled() {
            return self.settle(Outcome::stopped(StopReason::Cancelled)).await;
        }
        let step = match open {
            Some(open) => Current::new(open.id, open.number, open.started_at),
            None => {
                let step = Current::new(self.services.seams.id(), 1, self.services.seams.now());
                let (number, started_at) = (step.number, step.started_at);
                let new = NewStep { id: step.id, number, model: self.model(), started_at, answers: None };
                self.services.store.begin_step(&self.lease, &new).await?;
                step
            }
        };
        let began = self.services.store.lone_call(self.run.id).await?;
        let planned = match began {
            Some(LoneCall::Returned(_)) => None,
            Some(LoneCall::Begun) | None => Some(self.plan(&call, None, &mut Vec::new())),
        };
        let known = match planned {
            None => None,
            Some(Planned::Known(refused)) => Some(refused),
            Some(Planned::Run(run)) => {
                let (tool, call) = *run;
                if began.is_some() && !tool.options.is_repeatable {
                    Some(ToolReturn::error(&call, INTERRUPTED.to_owned()))
                } else if let Waited::Cancelled = self.run_group(&step, vec![(0, tool, call)]).await? {
                    return self.settle(Outcome::stopped(StopReason::Cancelled)).await;
                } else {
                    None
                }
            }
        };
        if let Some(known) = known {
            self.services.store.record_return(&self.lease, step.id, 0, &known).await?;
        }
        let commit = Commit {
            status: StepStatus::Success,
            tool_execution_ns: Some(self.nanos_since(step.started_at)),
            ..Commit::empty()
        };
        self.commit(&step, commit, Some(Outcome::stopped(StopReason::EndTurn))).await.map(|_| ())
    }

    async fn run_group(
        &mut self,
        step: &Current,
        group: Vec<(u32, Tool, ToolCall)>,
    ) -> Result<Waited<Vec<(u32, ToolReturn)>>, Interrupt> {
        let (report, mut reports) = mpsc::channel::<Progress>(PROGRESS_WAITING);
        let mut done = Vec::with_capacity(group.len());
        let caller = Caller {
            services: self.services,
            lease: self.lease,
            step: step.id,
            agent: &self.context.agent,
            tenant: &self.run.tenant,
            settings: self.settings,
        };
        let mut running: FuturesUnordered<BoxFuture<'_, Result<(u32, ToolReturn), StoreError>>> = group
            .iter()
            .map(|(place, tool, call)| {
                let report = report.clone();
                let span = tracing::info_span!(
                    "tool call",
                    tool.name = tool.spec.name,
                    tool.call_id = call.id,
                    otel.status_code = Empty,
                );
                let carried_out = async move {
                    let tool_return = caller.carry_out(*place, tool, call, report).await?;
                    if tool_return.status == ToolStatus::Error {
                        tracing::Span::current().record("otel.status_code", "error");
                    }
                    Ok((*place, tool_return))
                };
                let future: BoxFuture<'_, _> = Box::pin(carried_out.instrument(span));
                future
            })
            .collect();
        drop(report);
        while !running.is_empty() {
            let stop = (&self.cancel, &self.stopping.abandon);
            let event = async {
                tokio::select! {
                    biased;
                    finished = running.next() => Ok(finished),
                    Some(progress) = reports.recv() => Err(progress),
                }
            };
            match wait_for(&mut self.writer, stop, event).await? {
                Waited::Done(Ok(Some(finished))) => done.push(finished?),
                Waited::Done(Ok(None)) => break,
                Waited::Done(Err(progress)) if self.run.request.include_pings => {
                    let (id, now) = (self.services.seams.id(), self.services.seams.now());
                    self.writer.push(|encoder| Some(encoder.progress(id, now, &progress.shown())));
                }
                Waited::Done(Err(_)) => {}
                Waited::Cancelled => return Ok(Waited::Cancelled),
            }
        }
        Ok(Waited::Done(done))
    }

    /// Whether a legacy agent's call asks for another step.
    fn wants_heartbeat(&self, calls: &[ToolCall]) -> bool {
        let Some(additions) = self.additions() else { return false };
        calls.iter().any(|call| additions.get(&call.name).is_some_and(|added| added.strip(call).wants_heartbeat))
    }
}

/// What carries calls of one step out.
#[derive(Clone, Copy)]
struct Caller<'a> {
    services: &'a crate::Services,
    settings: &'a holdfast_shared::config::WorkerSettings,
    lease: holdfast_shared::domain::lease::Lease,
    step: holdfast_shared::domain::ids::StepId,
    agent: &'a holdfast_shared::domain::agent::Agent,
    tenant: &'a holdfast_shared::domain::tenant::TenantId,
}

impl Caller<'_> {
    /// Carries a call out and sees to it that its result is recorded.
    async fn carry_out(
        self,
        place: u32,
        tool: &Tool,
        call: &ToolCall,
        report: mpsc::Sender<Progress>,
    ) -> Result<ToolReturn, StoreError> {
        let store = &*self.services.store;
        if !tool.options.is_repeatable {
            store.begin_call(&self.lease, self.step, place).await?;
        }
        let execution = Execution {
            store,
            lease: &self.lease,
            step: self.step,
            place,
            call,
            tool,
            agent: self.agent,
            now: self.services.seams.now(),
            seams: &self.services.seams,
            tenant: self.tenant,
            own_timeout: tool.options.timeout_ms.map(std::time::Duration::from_millis),
            default_timeout: self.settings.tool_timeout,
            report,
        };
        Ok(match self.services.toolbox.execute(execution).await? {
            Executed::Recorded(tool_return) => tool_return,
            Executed::Unrecorded(tool_return) => {
                store.record_return(&self.lease, self.step, place, &tool_return).await?;
                tool_return
            }
        })
    }
}

fn fate<'a>(tool_return: &'a ToolReturn, misfits: &[String]) -> Called<'a> {
    let called = Called::answered(tool_return);
    if misfits.contains(&tool_return.call_id) { Called { fate: Fate::Misfit, ..called } } else { called }
}
