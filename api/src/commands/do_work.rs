//! Work that only a worker can do and that is no answer to messages: a compaction, one call of a tool. It is a run like any
//! other, so that nothing else changes the thread meanwhile and that it survives what a run survives.

use holdfast_shared::domain::run::{Run, RunRequest, RunState, RunType, RunWork};
use holdfast_shared::domain::stop_reason::StopReason;
use holdfast_shared::domain::tenant::TenantId;
use holdfast_shared::domain::thread::Thread;
use holdfast_shared::ports::store::{Accepted, NewRun};
use holdfast_shared::telemetry::traces;

use super::answers;
use super::start_run::{sha256_hex, waiting};
use crate::App;
use crate::error::ApiError;

/// Has work done, and waits for its end. While another run of the thread is active it is refused, since it would have to
/// wait for that one without a word. `is_retry`: an SDK says that it sends the request again.
pub(crate) async fn do_work(
    app: &App,
    tenant: &TenantId,
    thread: Thread,
    (run_type, work): (RunType, RunWork),
    is_retry: bool,
) -> Result<Run, ApiError> {
    let services = &app.services;
    let content = sha256_hex(&work);
    let joined = match content.as_deref().filter(|_| is_retry) {
        Some(content) => services.store.active_run_by_content(thread, content).await?,
        None => None,
    };
    let id = match joined {
        Some(run) => run.id,
        None => {
            let request = RunRequest::of_work(run_type, work);
            let new = NewRun::new(tenant.clone(), thread, request, Vec::new(), 1, &services.seams);
            let new = NewRun { content, trace: traces::current(), ..new };
            accept(app, tenant, thread, &new).await?;
            new.run.id
        }
    };
    let run = services.hub.ended(tenant, id).await.map_err(|error| ApiError::of_fanout(error, id))?;
    match &run.state {
        RunState::Ended { error: Some(error), .. } => Err(ApiError::RunFailed(id, error.clone())),
        RunState::Ended { reason: StopReason::Cancelled, .. } => Err(ApiError::Cancelled(id)),
        RunState::Ended { .. } => Ok(run),
        RunState::Created | RunState::Running => Err(ApiError::Internal(format!("run {id} should have ended"))),
    }
}

async fn accept(app: &App, tenant: &TenantId, thread: Thread, new: &NewRun) -> Result<(), ApiError> {
    let services = &app.services;
    let run = new.run.id;
    match services.store.accept_run(new).await? {
        Accepted::New(entry) => {
            services.relay.nudge(vec![entry]);
            tracing::info!(run.id = %run, agent.id = %thread.agent, "work was accepted");
            Ok(())
        }
        Accepted::NoAgent => Err(ApiError::NoAgent),
        Accepted::NoConversation => Err(ApiError::NO_CONVERSATION),
        Accepted::TooMany(active) => Err(ApiError::Busy(active)),
        Accepted::ApprovalPending(_) => {
            let agent = services.store.agent(tenant, thread.agent).await?.ok_or(ApiError::NoAgent)?;
            let waiting = waiting(app, tenant, thread, &agent).await?;
            Err(waiting.as_ref().map_or(ApiError::Busy(run), answers::refusal))
        }
        other @ (Accepted::Known(_)
        | Accepted::KeyReused(_)
        | Accepted::NothingPending
        | Accepted::BeingAnswered(_)) => {
            Err(ApiError::Internal(format!("work without a key was answered by {other:?}")))
        }
    }
}
