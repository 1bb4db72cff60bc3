//! One step from its model call on.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_shared::domain::message::{Answer, Body, Message};
use holdfast_shared::domain::run::{Outcome, StreamMode};
use holdfast_shared::domain::step::{RecordedAnswer, StepError, StepStatus};
use holdfast_shared::domain::stop_reason::StopReason;
use holdfast_shared::domain::tool::ToolSpec;
use holdfast_shared::domain::usage::Usage;
use holdfast_shared::ports::model_client::{ModelRequest, ToolChoice};
use holdfast_shared::ports::store::{AnswerRecord, ApprovalChange, NewStep};

use super::answer::{End, divide};
use super::attempt::{Attempt, Commit, Current, Interrupt, Then};
use super::decide::{self, Next, StepFacts, Style, after_step};
use super::legacy::Additions;
use super::model_call::Called;
use super::prompt;
use super::rules::Offer;

/// What else counts for what follows a step.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked {
    /// Whether a legacy agent's call asks for another step.
    pub(super) wants_heartbeat: bool,
    /// Whether the request brought messages that the model has not seen.
    pub(super) has_more_input: bool,
}

impl Attempt<'_> {
    /// One step from the model call on.
    pub(super) async fn step(&mut self, number: u32) -> Result<Then, Interrupt> {
        let offer = self.rules().offer(&self.history);
        // Nobody is asked about a call that breaks a rule (api/05 §6).
        let mut waiting = self.waiting();
        waiting.retain(|name| offer.allows(name));
        let request = self.request(&offer);
        let started_at = self.services.seams.now();
        let mut step = Current::new(self.services.seams.id(), number, started_at);
        step.name_span();
        let new = NewStep { id: step.id, number, model: request.model.clone(), started_at, answers: None };
        self.services.store.begin_step(&self.lease, &new).await?;
        let called = self.call_model(&mut step, request, &offer, &waiting).await?;
        step.llm_request_ns = Some(self.nanos_since(started_at));
        match called {
            Called::Answered { answer, end } if answer.calls.is_empty() => self.finish_text(&step, answer, end).await,
            Called::Answered { answer, end } => self.finish_answer(step, answer, end, &offer, &waiting).await,
            Called::Failed(error) => {
                let error_type = error.error_type.as_str().to_owned();
                let step_error = StepError { error_type, message: error.message.clone() };
                let commit = Commit { status: StepStatus::Failed, error: Some(step_error), ..Commit::empty() };
                self.commit(&step, commit, Some(Outcome::failed(error))).await
            }
            Called::Cancelled { partial } => {
                let is_shown = self.run.request.mode == StreamMode::Tokens && !partial.is_empty();
                let messages = self.answer_messages(&step, is_shown.then_some(partial), None);
                let commit = Commit { status: StepStatus::Cancelled, messages, ..Commit::empty() };
                self.commit(&step, commit, Some(Outcome::stopped(StopReason::Cancelled))).await
            }
        }
    }

    /// The call of the model for the next step.
    pub(super) fn request(&self, offer: &Offer) -> ModelRequest {
        let tools = self.offered_tools(offer);
        let wanted = prompt::options(&self.context.agent.settings);
        let takes_many = !self.is_legacy() && self.rules().allows_parallel(wanted.parallel_tool_calls);
        let mut request = prompt::request(&self.context, &self.run.request, tools, self.window);
        request.options.parallel_tool_calls = takes_many && !request.tools.is_empty();
        request.tool_choice = match &offer.tool_choice {
            _ if request.tools.is_empty() => ToolChoice::Auto,
            ToolChoice::Auto if self.is_legacy() => ToolChoice::Required,
            choice => choice.clone(),
        };
        request
    }

    /// Tools that the model may call, in the order of the offer; the client's hide the agent's of the same name.
    pub(super) fn offered_tools(&self, offer: &Offer) -> Vec<ToolSpec> {
        let client = self.run.request.client_tools.iter();
        let agents = self.context.agent.tools.iter().map(|tool| &tool.spec);
        let known: Vec<&ToolSpec> = client.chain(agents).collect();
        let offered = offer.names.iter().filter_map(|name| known.iter().find(|spec| spec.name == *name));
        let tools = offered.map(|spec| (*spec).clone());
        let Some(additions) = self.additions() else { return tools.collect() };
        tools.map(|spec| additions.get(&spec.name).map_or_else(|| spec.clone(), |added| added.applied(&spec))).collect()
    }

    /// What is added to each of the agent's tools, if the agent is of a legacy type.
    pub(super) fn additions(&self) -> Option<BTreeMap<String, Additions>> {
        if !self.is_legacy() {
            return None;
        }
        let rules = self.rules();
        let options = prompt::options(&self.context.agent.settings);
        let reasons = options.reasoning.is_on == Some(true);
        let added = |spec: &ToolSpec| (spec.name.clone(), Additions::to(spec, rules.is_terminal(&spec.name), reasons));
        Some(self.context.agent.tools.iter().map(|tool| added(&tool.spec)).collect())
    }

    /// Commits a step whose answer calls no tool.
    async fn finish_text(&mut self, step: &Current, answer: Answer, end: End) -> Result<Then, Interrupt> {
        let next = self.next(step, &[], end.is_cut, Asked::default());
        self.count(end.usage);
        let shown = self.answer_messages(step, Some(answer), None);
        let mut messages = shown.clone();
        let outcome = self.outcome(next, step, &mut messages);
        let commit = Commit { status: StepStatus::Success, usage: end.usage, messages, shown, ..Commit::empty() };
        self.commit(step, commit, outcome).await
    }

    /// Goes on with an answer that calls tools: those that wait for the client end the run, and none of the others runs
    /// before they are answered (api/05 §6).
    async fn finish_answer(
        &mut self,
        step: Current,
        answer: Answer,
        end: End,
        offer: &Offer,
        waiting: &BTreeSet<String>,
    ) -> Result<Then, Interrupt> {
        let stored = divide(answer.clone(), |call| waiting.contains(&call.name), self.run.request.mode);
        if let Some(request) = stored.request {
            self.count(end.usage);
            let messages = self.answer_messages(&step, stored.answer, Some(request));
            let deadline = self.settings.approval_timeout.map(|timeout| self.services.seams.now() + timeout);
            let commit = Commit {
                status: StepStatus::Success,
                usage: end.usage,
                shown: messages.clone(),
                messages,
                approval: Some(ApprovalChange::Ask { request: step.request_message(), deadline }),
                ..Commit::empty()
            };
            return self.commit(&step, commit, Some(Outcome::stopped(StopReason::RequiresApproval))).await;
        }
        let message = self.message(step.answer_message(), step.id, Body::Assistant(answer.clone()));
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
            message_id: step.answer_message(),
            answer,
            usage: end.usage,
            returns: Vec::new(),
            begun: Vec::new(),
            answers: None,
        };
        self.finish_calls(step, recorded, offer).await
    }

    /// Decides what follows the step.
    pub(super) fn next(&self, step: &Current, calls: &[decide::Called<'_>], is_cut: bool, asked: Asked) -> Next {
        let style =
            if self.is_legacy() { Style::Legacy { wants_heartbeat: asked.wants_heartbeat } } else { Style::Current };
        after_step(&StepFacts {
            style,
            calls,
            is_cut,
            rules: &self.rules(),
            history: &self.history,
            has_more_input: asked.has_more_input,
            number: step.number,
            max_steps: self.run.request.max_steps,
        })
    }

    /// The end of the run, if the step is the last; a word to the model joins the step's messages otherwise.
    pub(super) fn outcome(&self, next: Next, step: &Current, messages: &mut Vec<Message>) -> Option<Outcome> {
        match next {
            Next::Stop(reason) => Some(Outcome::stopped(reason)),
            Next::Continue { note } => {
                if let Some(note) = note {
                    let text = note.text(self.services.seams.now());
                    messages.push(self.message(self.services.seams.id(), step.id, Body::Note(text)));
                }
                None
            }
        }
    }
}

impl Commit {
    /// A commit with nothing in it.
    pub(super) fn empty() -> Self {
        Self {
            status: StepStatus::Success,
            usage: Usage::default(),
            messages: Vec::new(),
            shown: Vec::new(),
            error: None,
            approval: None,
            tool_execution_ns: None,
        }
    }
}
