//! What a run has called so far, from what is stored of it (api/05 §4).

use holdfast_shared::domain::page::{Order, Page};
use holdfast_shared::domain::run::Run;
use holdfast_shared::domain::tool_rule::{ToolRule, ToolRuleKind};
use holdfast_shared::ports::store::{MessageFilter, Store, StoreError};

use super::rules::History;

/// Messages of one read.
const READ: u32 = 200;
/// Most runs that a chain of answers is followed back: more would mean that a client never lets a run end.
const MOST_RUNS: usize = 1000;

/// The calls of a run and of those that it continues; a run that answers waiting calls goes on where the one stopped
/// that asked. Nothing is read for agents whose rules do not look back.
pub(super) async fn of_run(store: &dyn Store, run: &Run, rules: &[ToolRule]) -> Result<History, StoreError> {
    if rules.iter().all(|rule| rule.kind == ToolRuleKind::RequiresApproval) {
        return Ok(History::default());
    }
    let mut chain = vec![run.id];
    let mut before = run.request.answering;
    while let Some(answering) = before {
        chain.push(answering.run);
        if chain.len() >= MOST_RUNS {
            break;
        }
        before = store.run(&run.tenant, answering.run).await?.and_then(|run| run.request.answering);
    }
    let mut history = History::default();
    for run_id in chain.into_iter().rev() {
        let filter = MessageFilter::run(run.agent_id, run_id);
        let mut after = None;
        loop {
            let page = Page { after, before: None, limit: READ, order: Order::Ascending };
            let read = store.messages(&filter, &page).await?;
            let is_last = read.len() < READ as usize;
            after = read.last().map(|message| message.id);
            history.read(&read);
            if is_last {
                break;
            }
        }
    }
    Ok(history)
}
