//! Empties an agent's context (api/03 §7). What waits for the client's answer is settled first, as a cancel does it.

use holdfast_shared::domain::agent::Agent;
use holdfast_shared::domain::ids::AgentId;
use holdfast_shared::domain::tenant::TenantId;
use holdfast_shared::ports::store::ContextReset;

use super::cancel_runs::cancel_waiting;
use crate::App;
use crate::error::ApiError;

/// How often it is tried to settle what waits. Once is enough unless an answer comes at the same moment.
const TRIES: u32 = 3;
const WHY_NOT: &str = "the context can be emptied when no run of the agent is active: wait for its end, or cancel it";

/// Empties the context and answers the agent as it is then.
pub(crate) async fn reset_context(app: &App, tenant: &TenantId, agent: AgentId) -> Result<Agent, ApiError> {
    let services = &app.services;
    for _ in 0..TRIES {
        match services.store.reset_context(tenant, agent, services.seams.now()).await? {
            ContextReset::Emptied => {
                tracing::info!(agent.id = %agent, "a context was emptied");
                return services.store.agent(tenant, agent).await?.ok_or(ApiError::NoAgent);
            }
            ContextReset::NoAgent => return Err(ApiError::NoAgent),
            ContextReset::Busy(run) => return Err(ApiError::Active(run, WHY_NOT)),
            // If they wait no more, it was their answer that came first, which is a run: the next look tells.
            ContextReset::Waiting(run) => {
                cancel_waiting(app, run).await?;
            }
        }
    }
    Err(ApiError::Internal(format!("calls of {agent} wait and cannot be settled")))
}
