//! Cancels runs (api/03 §4). The wish is durable before anything else happens, so that it survives everything.

use holdfast_shared::domain::agent::PendingApproval;
use holdfast_shared::domain::ids::{AgentId, RunId};
use holdfast_shared::domain::page::{Order, Page};
use holdfast_shared::domain::run::{Outcome, Run, RunStatus};
use holdfast_shared::domain::stop_reason::StopReason;
use holdfast_shared::domain::tenant::TenantId;
use holdfast_shared::domain::thread::ThreadScope;
use holdfast_shared::ports::seams::Seams;
use holdfast_shared::ports::signals::Signal;
use holdfast_shared::ports::store::{ApprovalCancel, CancelRequest, RunEnd, RunFilter};
use holdfast_shared::wire::event::Encoder;

use crate::App;
use crate::error::ApiError;

/// Most runs that one call cancels; the limit on queued runs is far below.
const MOST: u32 = 1000;

/// Cancels a run of an agent. `false` if this agent has no such run; a run that has ended counts as cancelled.
pub(crate) async fn cancel_run(app: &App, tenant: &TenantId, agent: AgentId, run: RunId) -> Result<bool, ApiError> {
    let Some(run) = app.services.store.run(tenant, run).await? else { return Ok(false) };
    if run.agent_id != agent {
        return Ok(false);
    }
    if run.state.has_ended() {
        cancel_waiting(app, run.id).await?;
    } else {
        cancel_active(app, run.id).await?;
    }
    Ok(true)
}

/// Settles the calls of a run that ended because they wait for the client. Whether they did.
pub(crate) async fn cancel_waiting(app: &App, run: RunId) -> Result<bool, ApiError> {
    let services = &app.services;
    let seams = &services.seams;
    let cancel = ApprovalCancel { at: seams.now(), response: seams.id(), returns: seams.id() };
    let Some(entries) = services.store.cancel_approval(run, &cancel).await? else { return Ok(false) };
    services.relay.nudge(entries);
    tracing::info!(run.id = %run, "calls that waited for the client were cancelled");
    Ok(true)
}

/// Cancels all active runs of an agent in these threads, and the run whose calls wait for the client; tells which.
pub(crate) async fn cancel_all(
    app: &App,
    tenant: &TenantId,
    agent: AgentId,
    threads: ThreadScope,
    waiting: Option<&PendingApproval>,
) -> Result<Vec<RunId>, ApiError> {
    let filter = RunFilter {
        agents: vec![agent],
        statuses: vec![RunStatus::Created, RunStatus::Running],
        threads,
        ..RunFilter::default()
    };
    // The newest first: were the oldest to end first, a worker could take up the next one only to drop it again.
    let page = Page { after: None, before: None, limit: MOST, order: Order::Descending };
    let mut runs: Vec<RunId> =
        app.services.store.runs(tenant, &filter, &page).await?.iter().map(|run| run.id).collect();
    for run in &runs {
        cancel_active(app, *run).await?;
    }
    let asked = waiting.and_then(|pending| pending.request.run_id);
    if let Some(run) = asked
        && cancel_waiting(app, run).await?
    {
        runs.push(run);
    }
    Ok(runs)
}

async fn cancel_active(app: &App, run: RunId) -> Result<(), ApiError> {
    let services = &app.services;
    match services.store.request_cancel(run, services.seams.now()).await? {
        CancelRequest::Ended => {}
        CancelRequest::Requested => services.signals.send(Signal::Cancel(run)).await,
        CancelRequest::Created(created) => {
            let end = end_of_created(&created, &services.seams);
            match services.store.settle_created(run, &end).await? {
                Some(entries) => {
                    services.relay.nudge(entries);
                    services.log.check(run);
                }
                // A worker was quicker; it finds the wish in the row, and sooner by the signal.
                None => services.signals.send(Signal::Cancel(run)).await,
            }
        }
    }
    tracing::info!(run.id = %run, "a cancel was asked for");
    Ok(())
}

/// The end of a run that never started.
fn end_of_created(run: &Run, seams: &Seams) -> RunEnd {
    let outcome = Outcome::stopped(StopReason::Cancelled);
    let mut encoder = Encoder::new(run.id, run.request.attachment, run.archived);
    let events = encoder.end(&outcome, &run.usage);
    RunEnd { outcome, at: seams.now(), closing: seams.id(), forgets_messages: false, events }
}
