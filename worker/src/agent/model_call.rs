//! The model call of a step, again if it failed before anything was shown.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use holdfast_shared::domain::message::Answer;
use holdfast_shared::domain::run::{ErrorType, RunError, StreamMode};
use holdfast_shared::domain::step::Retry;
use holdfast_shared::ports::model_client::{ModelError, ModelRequest};
use tracing::Instrument as _;
use tracing::field::Empty;

use super::answer::{self, Assembly, End, View};
use super::attempt::{Attempt, Current, Interrupt, Waited, nanos, wait_for};
use super::compaction::Compacted;
use super::rules::Offer;

/// Wait before the second try; it doubles with each.
const RETRY_FIRST: Duration = Duration::from_millis(500);

/// How a model call ended.
pub(super) enum Called {
    Answered { answer: Answer, end: End },
    Failed(RunError),
    Cancelled { partial: Answer },
}

impl Attempt<'_> {
    /// Calls the model. What fails for a while before anything was shown is tried again, with growing pauses and within
    /// the budget of the settings; a context that is too large is compacted, once.
    pub(super) async fn call_model(
        &mut self,
        step: &mut Current,
        mut request: ModelRequest,
        offer: &Offer,
        waiting: &BTreeSet<String>,
    ) -> Result<Called, Interrupt> {
        let mut waited = Duration::ZERO;
        loop {
            let span = tracing::info_span!(
                "model call",
                otel.kind = "client",
                model = %request.model,
                otel.status_code = Empty,
                error.type = Empty,
            );
            let (tried, assembled) = self.try_model(step, &request, waiting).instrument(span.clone()).await?;
            let Assembled { answer, partial, has_begun } = assembled;
            let error = match tried {
                Waited::Done(Ok(end)) => return Ok(Called::Answered { answer, end }),
                Waited::Done(Err(error)) => error,
                Waited::Cancelled => return Ok(Called::Cancelled { partial }),
            };
            span.record("otel.status_code", "error").record("error.type", error.error_type.as_str());
            drop(span);
            if error.is_context_overflow && !has_begun && !step.is_compacted {
                step.is_compacted = true;
                match self.compact_for_call(step).await? {
                    Waited::Done(Compacted::Shorter) => {
                        request = self.request(offer);
                        continue;
                    }
                    Waited::Done(Compacted::SystemTooLarge) => return Ok(Called::Failed(system_too_large(&error))),
                    Waited::Done(Compacted::Not | Compacted::Failed(_)) => {}
                    Waited::Cancelled => return Ok(Called::Cancelled { partial }),
                }
            }
            let pause = self.pause(step.retries.len(), &error);
            let may_retry = error.is_transient && !has_begun && waited + pause <= self.settings.model_retry_budget;
            let tries = u32::try_from(step.retries.len()).unwrap_or(u32::MAX).saturating_add(1);
            if !may_retry || tries >= self.settings.model_tries {
                return Ok(Called::Failed(run_error(error)));
            }
            tracing::info!(run.id = %self.run.id, step.id = %step.id, tries, status = error.status, "the model failed; trying again");
            step.retries.push(Retry {
                error_type: error.error_type.as_str().to_owned(),
                message: error.message,
                status: error.status,
                waited_ms: u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            });
            let stop = (&self.cancel, &self.stopping.abandon);
            if let Waited::Cancelled = wait_for(&mut self.writer, stop, tokio::time::sleep(pause)).await? {
                return Ok(Called::Cancelled { partial: Answer::default() });
            }
            waited += pause;
        }
    }

    /// The pause before the next try: what the provider asks for, else twice the last one, between a half and the whole
    /// of it so that many runs do not come back at once.
    fn pause(&self, failed: usize, error: &ModelError) -> Duration {
        if let Some(asked) = error.retry_after {
            return asked;
        }
        let doubled = RETRY_FIRST.saturating_mul(2_u32.saturating_pow(u32::try_from(failed).unwrap_or(u32::MAX)));
        // Any bits of a new id are as good as dice.
        let dice = f64::from(u16::try_from(self.services.seams.uuid().as_u128() & 0xffff).unwrap_or_default());
        doubled.mul_f64(0.5 + dice / 131_072.0)
    }

    async fn try_model(
        &mut self,
        step: &Current,
        request: &ModelRequest,
        waiting: &BTreeSet<String>,
    ) -> Result<(Waited<Result<End, ModelError>>, Assembled), Interrupt> {
        let services = self.services;
        let (additions, speech) = (self.additions(), self.run.request.speech.clone());
        let view = View {
            waiting,
            takes_many: request.options.parallel_tool_calls,
            legacy: additions.as_ref(),
            speech: speech.as_ref(),
        };
        let mut assembly = Assembly::new(view, request.model.clone());
        let stop = (&self.cancel, &self.stopping.abandon);
        let call = services.models.stream(request.clone());
        let mut deltas = match wait_for(&mut self.writer, stop, call).await? {
            Waited::Done(Ok(deltas)) => deltas,
            Waited::Done(Err(error)) => return Ok((Waited::Done(Err(error)), Assembled::of(assembly))),
            Waited::Cancelled => return Ok((Waited::Cancelled, Assembled::of(assembly))),
        };
        loop {
            while !self.writer.has_room() {
                tokio::select! {
                    driven = self.writer.drive() => driven?,
                    () = self.cancel.cancelled() => return Ok((Waited::Cancelled, Assembled::of(assembly))),
                    () = self.stopping.abandon.cancelled() => return Err(Interrupt::Drained),
                }
            }
            let stop = (&self.cancel, &self.stopping.abandon);
            let delta = match wait_for(&mut self.writer, stop, deltas.next()).await? {
                Waited::Done(Some(Ok(delta))) => delta,
                Waited::Done(Some(Err(error))) => return Ok((Waited::Done(Err(error)), Assembled::of(assembly))),
                Waited::Done(None) => {
                    let error = closed_early(assembly.has_begun());
                    return Ok((Waited::Done(assembly.end().ok_or(error)), Assembled::of(assembly)));
                }
                Waited::Cancelled => return Ok((Waited::Cancelled, Assembled::of(assembly))),
            };
            self.ttft_ns.get_or_insert_with(|| nanos(services.seams.now() - self.run.created_at));
            let heads = self.heads(step);
            if self.run.request.mode == StreamMode::Tokens {
                let writer = &mut self.writer;
                assembly.take(&delta, &heads, &mut |shown| writer.push(|encoder| encoder.message(shown)));
                if self.writer.wants_archive() {
                    services.store.archive(&self.lease, self.writer.unarchived()).await?;
                    self.writer.committed(Vec::new());
                }
            } else {
                assembly.take(&delta, &heads, &mut |_| {});
            }
            if let Some(end) = assembly.end() {
                return Ok((Waited::Done(Ok(end)), Assembled::of(assembly)));
            }
        }
    }
}

/// What a try has brought.
struct Assembled {
    answer: Answer,
    /// What of it is kept if it was cut.
    partial: Answer,
    has_begun: bool,
}

impl Assembled {
    fn of(assembly: Assembly<'_>) -> Self {
        let has_begun = assembly.has_begun();
        let answer = assembly.into_answer();
        Self { partial: answer::partial(&answer), answer, has_begun }
    }
}

fn closed_early(has_begun: bool) -> ModelError {
    ModelError {
        error_type: ErrorType::LlmError,
        message: "The model's answer ended before it was complete.".to_owned(),
        detail: None,
        status: None,
        is_transient: !has_begun,
        is_context_overflow: false,
        retry_after: None,
    }
}

pub(super) fn run_error(error: ModelError) -> RunError {
    RunError {
        error_type: error.error_type,
        message: error.message,
        detail: error.detail,
        // A context that is too large is no fault of the last message alone: it stays.
        provider_status: error.status.filter(|_| !error.is_context_overflow),
    }
}

fn system_too_large(error: &ModelError) -> RunError {
    RunError {
        error_type: ErrorType::ContextWindowOverflowInSystemPrompt,
        message: "The agent's system prompt and memory alone are too large for the model's context window: shorten \
                  them, or choose a model with a larger window."
            .to_owned(),
        detail: error.detail.clone(),
        provider_status: None,
    }
}
