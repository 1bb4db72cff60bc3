//! Carries compactions out: the summary call, the change in the store, what streams show of it (api/05 §7). What is taken
//! out, and when, is decided in `compact`.

use futures::StreamExt;
use holdfast_shared::domain::compaction::{CompactionStats, CompactionTrigger, Summary};
use holdfast_shared::domain::event::Event;
use holdfast_shared::domain::ids::StepId;
use holdfast_shared::domain::message::{Body, Message};
use holdfast_shared::domain::run::{ErrorType, Outcome, RunError};
use holdfast_shared::domain::stop_reason::StopReason;
use holdfast_shared::ports::model_client::{ModelDelta, ModelError, ModelOptions, ModelRequest, ToolChoice};
use holdfast_shared::ports::store::Compaction;
use holdfast_shared::wire::event::CompactionNotice;
use holdfast_shared::wire::message::{SliceHead, summary_slice};
use serde_json::Value;

use super::attempt::{Attempt, Current, Interrupt, Waited, wait_for};
use super::compact::{self, Ask, Cut, Fit, Gauge, Settings};
use super::model_call::run_error;

/// What came of a compaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Compacted {
    /// The context is shorter.
    Shorter,
    /// The system message alone is larger than the window: nothing helps.
    SystemTooLarge,
    /// There was nothing to take out, or nobody to summarise it.
    Not,
    /// A client asked for it, and the model that was to summarise failed.
    Failed(RunError),
}

/// Why there is no summary.
#[derive(Debug, thiserror::Error)]
enum NoSummary {
    #[error(transparent)]
    Failed(#[from] ModelError),
    #[error("the model that was asked for a summary answered without a text")]
    Empty,
}

impl From<NoSummary> for RunError {
    fn from(error: NoSummary) -> Self {
        match error {
            NoSummary::Failed(error) => run_error(error),
            NoSummary::Empty => Self {
                error_type: ErrorType::LlmEmptyResponse,
                message: error.to_string(),
                detail: None,
                provider_status: None,
            },
        }
    }
}

/// A compaction that is decided.
struct Planned {
    dropped: Vec<Message>,
    summary: String,
    tokens_after: u64,
    kept: usize,
}

impl Attempt<'_> {
    /// Whether the context is so full after a model call that it is to be compacted.
    pub(super) fn is_nearly_full(&self) -> bool {
        self.usage.context_tokens.is_some_and(|tokens| compact::should_compact(tokens, self.window))
    }

    /// Compacts a context that is nearly full. A failure stops no run: the next step tries again.
    pub(super) async fn compact_after_step(&mut self, step: &Current) -> Result<(), Interrupt> {
        self.compact(Some(step.id), CompactionTrigger::PostStepContextCheck, None).await.map(|_| ())
    }

    /// Compacts a context that the provider refused.
    pub(super) async fn compact_for_call(&mut self, step: &Current) -> Result<Waited<Compacted>, Interrupt> {
        self.compact(Some(step.id), CompactionTrigger::ContextWindowExceeded, None).await
    }

    /// The work of a run that compacts the context, and nothing else.
    pub(super) async fn compact_on_demand(&mut self, settings: Option<&Value>) -> Result<(), Interrupt> {
        // A former holder came as far as that.
        let is_done =
            |message: &Message| message.run_id == Some(self.run.id) && matches!(message.body, Body::Summary(_));
        if self.context.messages.iter().any(is_done) {
            return self.settle(Outcome::stopped(StopReason::EndTurn)).await;
        }
        let outcome = match self.compact(None, CompactionTrigger::Manual, settings).await? {
            Waited::Done(Compacted::Failed(error)) => Outcome::failed(error),
            Waited::Done(Compacted::Shorter | Compacted::SystemTooLarge | Compacted::Not) => {
                Outcome::stopped(StopReason::EndTurn)
            }
            Waited::Cancelled => Outcome::stopped(StopReason::Cancelled),
        };
        self.settle(outcome).await
    }

    async fn compact(
        &mut self,
        step: Option<StepId>,
        trigger: CompactionTrigger,
        asked: Option<&Value>,
    ) -> Result<Waited<Compacted>, Interrupt> {
        let wanted = self.context.agent.settings.other.get("compaction_settings");
        let mut settings = Settings::read(&[asked, wanted]);
        if trigger == CompactionTrigger::ContextWindowExceeded {
            // What was just too long stays too long with a question after it.
            settings.mode = settings.mode.by_another();
        }
        let mut gauge = Gauge::new(self.window);
        if let Some(tokens) = self.usage.context_tokens {
            gauge = gauge.measured(&self.context.messages, tokens);
        }
        let messages = self.context.messages.clone();
        let system = gauge.tokens(messages.get(..1).unwrap_or_default());
        if trigger == CompactionTrigger::ContextWindowExceeded
            && compact::fit(system, 0, self.window) == Fit::SystemTooLarge
        {
            return Ok(Waited::Done(Compacted::SystemTooLarge));
        }
        let planned = loop {
            let Some(cut) = compact::plan(&messages, &settings, self.window, &gauge) else {
                return Ok(Waited::Done(Compacted::Not));
            };
            let summary = match self.summarise(&settings, &cut).await? {
                Waited::Done(Ok(summary)) => compact::clip(&summary, &settings),
                Waited::Done(Err(error)) if trigger == CompactionTrigger::Manual => {
                    return Ok(Waited::Done(Compacted::Failed(error.into())));
                }
                Waited::Done(Err(error)) if trigger == CompactionTrigger::PostStepContextCheck => {
                    tracing::warn!(run.id = %self.run.id, %error, "the context could not be summarised; the next step tries again");
                    return Ok(Waited::Done(Compacted::Not));
                }
                Waited::Done(Err(error)) => {
                    tracing::warn!(run.id = %self.run.id, %error, "earlier messages leave the context without a summary");
                    compact::without_summary(&cut)
                }
                Waited::Cancelled => return Ok(Waited::Cancelled),
            };
            let planned = Planned::of(&cut, summary, &messages, &gauge);
            let fit = compact::fit(system, planned.tokens_after.saturating_sub(system), self.window);
            match (fit, settings.mode.wider()) {
                (Fit::TooLarge, Some(wider)) => settings.mode = wider,
                _ => break planned,
            }
        };
        // The system message and the summary stand before what is kept: what has no fewer messages got no smaller.
        if trigger == CompactionTrigger::Manual && planned.kept + 2 >= messages.len() {
            return Ok(Waited::Done(Compacted::Not));
        }
        self.carry_out(step, trigger, planned).await?;
        Ok(Waited::Done(Compacted::Shorter))
    }

    /// Asks a model for a summary: the one of the settings, else the agent's. An agent that summarises by itself is shown
    /// its tools as always: providers cache what a call starts with, and some refuse earlier calls of tools not shown.
    async fn summarise(
        &mut self,
        settings: &Settings,
        cut: &Cut<'_>,
    ) -> Result<Waited<Result<String, NoSummary>>, Interrupt> {
        let Ask { system, turns } = compact::ask(settings, &self.context.system_text(), cut, self.window);
        let (tools, tool_choice) = if settings.mode.is_by_itself() {
            (self.offered_tools(&self.rules().offer(&self.history)), ToolChoice::None)
        } else {
            (Vec::new(), ToolChoice::Auto)
        };
        let request = ModelRequest {
            model: settings.model.clone().unwrap_or_else(|| self.model()),
            system,
            turns,
            tools,
            tool_choice,
            options: ModelOptions::default(),
        };
        let models = &self.services.models;
        let answer = async {
            let mut deltas = models.stream(request).await?;
            let mut text = String::new();
            while let Some(delta) = deltas.next().await {
                if let ModelDelta::Text(new) = delta? {
                    text.push_str(&new);
                }
            }
            if text.trim().is_empty() { Err(NoSummary::Empty) } else { Ok(text) }
        };
        let stop = (&self.cancel, &self.stopping.abandon);
        wait_for(&mut self.writer, stop, answer).await
    }

    async fn carry_out(
        &mut self,
        step: Option<StepId>,
        trigger: CompactionTrigger,
        planned: Planned,
    ) -> Result<(), Interrupt> {
        let now = self.services.seams.now();
        let before = self.context.messages.len();
        let stats = CompactionStats {
            trigger,
            context_tokens_before: self.usage.context_tokens,
            context_tokens_after: Some(planned.tokens_after),
            context_window: self.window,
            messages_count_before: before as u64,
            // The system message and the summary stand before what is kept.
            messages_count_after: planned.kept as u64 + 2,
        };
        let summary = Summary { text: planned.summary, stats };
        let notice = CompactionNotice {
            id: self.services.seams.uuid(),
            at: now,
            step,
            trigger,
            context_tokens: self.usage.context_tokens,
            context_window: self.window,
        };
        self.usage.context_tokens = Some(planned.tokens_after);
        let message = self.message(self.services.seams.id(), step, Body::Summary(summary));
        let staged = self.stage_compaction(&notice, &message);
        let mut events = self.writer.unarchived().to_vec();
        events.extend_from_slice(&staged);
        let compaction = Compaction {
            summary: message,
            dropped: planned.dropped.iter().map(|message| message.id).collect(),
            at: now,
            run_usage: self.usage,
            events,
        };
        self.services.store.compact(&self.lease, &compaction).await?;
        self.writer.committed(staged);
        let dropped = compaction.dropped.len();
        tracing::info!(run.id = %self.run.id, trigger = trigger.as_str(), dropped, "the context was compacted");
        self.context = self.services.store.context(&self.lease).await?;
        Ok(())
    }

    fn stage_compaction(&mut self, notice: &CompactionNotice, message: &Message) -> Vec<Event> {
        let is_shown = self.run.request.include_compaction;
        self.writer.stage(|encoder| {
            let Body::Summary(summary) = &message.body else { return Vec::new() };
            if !is_shown {
                return Vec::new();
            }
            let head =
                SliceHead { message: message.id, date: message.created_at, step: message.step_id, run: message.run_id };
            let mut events = vec![encoder.compacted(notice)];
            events.extend(encoder.message(summary_slice(&head, summary)));
            events
        })
    }
}

impl Planned {
    fn of(cut: &Cut<'_>, summary: String, messages: &[Message], gauge: &Gauge) -> Self {
        // Four bytes are about a token, as the gauge has it before anything was measured.
        let of_summary = summary.len().div_ceil(4) as u64;
        let tokens_after = gauge.tokens(&messages[..1]) + of_summary + gauge.tokens(cut.kept);
        Self { dropped: cut.dropped.to_vec(), summary, tokens_after, kept: cut.kept.len() }
    }
}
