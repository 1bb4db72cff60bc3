//! Answers calls that nobody answered in time, so that no agent waits for ever.

use std::time::Duration;

use holdfast_shared::config::ApprovalDefault;
use holdfast_shared::domain::approval::{Answering, CallAnswer};
use holdfast_shared::domain::message::{Body, Labels, Message};
use holdfast_shared::domain::run::{Attachment, RunRequest, RunType};
use holdfast_shared::ports::store::{Accepted, ExpiredApproval, NewRun, StoreError};
use tokio_util::sync::CancellationToken;

use crate::Worker;

/// How often calls are looked for whose deadline has passed.
const EVERY: Duration = Duration::from_secs(1);
/// Most of them that are answered at once; the rest follow in the next round.
const AT_ONCE: u32 = 100;
/// What the model is told of a call that is denied because nobody answered.
const NOBODY: &str = "nobody answered in time";

impl Worker {
    /// Answers calls at their deadline until `shutdown`, by a run like that of a client's answer. Several workers may do
    /// it at once: the store lets one run answer.
    pub(crate) async fn answer_expired(&self, shutdown: &CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.cancelled() => return,
            }
            let expired = match self.services.store.expired_approvals(self.services.seams.now(), AT_ONCE).await {
                Ok(expired) => expired,
                Err(error) => {
                    tracing::warn!(worker.id = %self.id, %error, "calls that wait too long cannot be looked for now");
                    continue;
                }
            };
            for one in expired {
                let request = one.request.id;
                if let Err(error) = self.answer_one(one).await {
                    tracing::warn!(message.id = %request, %error, "calls that wait too long cannot be answered now");
                }
            }
        }
    }

    async fn answer_one(&self, expired: ExpiredApproval) -> Result<(), StoreError> {
        let ExpiredApproval { tenant, thread, request } = expired;
        let (Body::ApprovalRequest(asked), Some(step), Some(run)) = (&request.body, request.step_id, request.run_id)
        else {
            return Err(StoreError::Corrupt(format!("{} asks for nothing", request.id)));
        };
        let Some(asking) = self.services.store.run(&tenant, run).await? else { return Ok(()) };
        let approve = self.settings.approval_default == ApprovalDefault::Approve;
        let answers = asked.calls.iter().map(|call| CallAnswer::Approval {
            tool_call_id: call.id.clone(),
            approve,
            reason: (!approve).then(|| NOBODY.to_owned()),
        });
        let response = Message {
            id: self.services.seams.id(),
            agent_id: request.agent_id,
            run_id: None,
            step_id: Some(step),
            body: Body::ApprovalResponse(answers.collect()),
            labels: Labels::default(),
            created_at: self.services.seams.now(),
        };
        let wanted = RunRequest {
            run_type: RunType::SendMessageAsync,
            attachment: Attachment::Background,
            callback_url: None,
            answering: Some(Answering { request: request.id, step, run }),
            ..asking.request
        };
        let seams = &self.services.seams;
        let new = NewRun::new(tenant, thread, wanted, vec![response], 1, seams);
        match self.services.store.accept_run(&new).await? {
            Accepted::New(entry) => {
                self.services.relay.nudge(vec![entry]);
                tracing::info!(run.id = %new.run.id, message.id = %request.id, approve, "calls were answered at their deadline");
            }
            // Somebody was quicker.
            other => tracing::debug!(message.id = %request.id, ?other, "calls did not need an answer any more"),
        }
        Ok(())
    }
}
