//! Answers to calls that wait for the client (api/01 §3.4): what they answer, and what else they can mean.

use std::collections::BTreeSet;

use holdfast_shared::domain::Timestamp;
use holdfast_shared::domain::agent::PendingApproval;
use holdfast_shared::domain::approval::{Answering, CallAnswer, check_answers};
use holdfast_shared::domain::message::{Body, Message};
use holdfast_shared::domain::page::{Order, Page};
use holdfast_shared::domain::thread::Thread;
use holdfast_shared::domain::tool::ToolCall;
use holdfast_shared::ports::store::MessageFilter;
use holdfast_shared::wire::request::{InputMessage, SendRequest};
use serde_json::json;

use crate::App;
use crate::error::{ApiError, PendingCalls};

/// Messages at the end of the history among which the results of a repeated answer are looked for.
const LATEST: u32 = 20;

/// What the answers of a request come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answered {
    /// There are none.
    Nothing,
    /// Calls that wait.
    Waiting(Answering),
    /// Calls that were answered before: the answers say nothing new.
    Before,
}

impl Answered {
    /// The calls that the run will finish.
    pub(crate) const fn answering(&self) -> Option<Answering> {
        match self {
            Self::Waiting(answering) => Some(*answering),
            Self::Nothing | Self::Before => None,
        }
    }
}

/// Finds the calls that a request answers, and puts the answers into their final form. Answers that repeat earlier ones
/// are taken out: what comes along with them counts (api/01 §3.4).
pub(crate) async fn resolve(
    app: &App,
    thread: Thread,
    waiting: Option<&PendingApproval>,
    request: &mut SendRequest,
) -> Result<Answered, ApiError> {
    let Some(InputMessage::Answers { answers, .. }) = request.input.first_mut() else {
        return waiting.map(refusal).map_or(Ok(Answered::Nothing), Err);
    };
    let Some(pending) = waiting else {
        if !are_repeated(app, thread, answers).await? {
            return Err(ApiError::NothingAwaitingApproval);
        }
        request.input.remove(0);
        return Ok(Answered::Before);
    };
    let (Some(step), Some(run)) = (pending.request.step_id, pending.request.run_id) else {
        return Err(ApiError::Internal(format!("{} was made by no run", pending.request.id)));
    };
    let calls = calls_of(&pending.request);
    let checked = check_answers(pending.request.id, calls, std::mem::take(answers));
    *answers =
        checked.map_err(|error| ApiError::Unacceptable(format!("INVALID_ARGUMENT: body.messages[0]: {error}")))?;
    Ok(Answered::Waiting(Answering { request: pending.request.id, step, run }))
}

/// The refusal of a plain message while calls wait.
pub(crate) fn refusal(waiting: &PendingApproval) -> ApiError {
    let request = &waiting.request;
    let calls = calls_of(request).iter().map(|call| (call.id.clone(), call.name.clone())).collect();
    ApiError::PendingApproval(Box::new(PendingCalls { request: request.id, run: request.run_id, calls }))
}

/// What stands for the input of a request that only repeats answers: the agent goes on.
pub(crate) fn keep_alive(now: Timestamp) -> String {
    let reason = "[Automatic message, not from the user] The calls are answered: go on.";
    json!({"type": "heartbeat", "reason": reason, "time": now.format("%Y-%m-%dT%H:%M:%SZ").to_string()}).to_string()
}

fn calls_of(request: &Message) -> &[ToolCall] {
    match &request.body {
        Body::ApprovalRequest(answer) => &answer.calls,
        _ => &[],
    }
}

/// Whether the results of these calls are in one of the latest messages, where those of the calls that ran beside them,
/// and needed no answer, are too.
async fn are_repeated(app: &App, thread: Thread, answers: &[CallAnswer]) -> Result<bool, ApiError> {
    let page = Page { after: None, before: None, limit: LATEST, order: Order::Descending };
    let latest = app.services.store.messages(&MessageFilter::thread(thread), &page).await?;
    let answered: BTreeSet<&str> = answers.iter().map(CallAnswer::call_id).collect();
    Ok(latest.iter().any(|message| match &message.body {
        Body::ToolReturns(returns) => {
            let known: BTreeSet<&str> = returns.iter().map(|one| one.call_id.as_str()).collect();
            known.is_superset(&answered)
        }
        _ => false,
    }))
}
