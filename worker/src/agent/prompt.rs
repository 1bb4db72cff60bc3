//! From an agent's context to a call of its model (api/05 §1): pure.

use holdfast_shared::domain::message::{Answer, AnswerPart, Body, Message};
use holdfast_shared::domain::run::RunRequest;
use holdfast_shared::domain::tool::ToolReturn;
use holdfast_shared::ports::model_client::{ModelOptions, ModelRequest, Turn};
use holdfast_shared::ports::store::Context;

use crate::tools;

/// What a call whose result was never recorded is answered with, so that providers accept the history.
const LOST_RESULT: &str = "The call was interrupted; whether it had an effect is unknown.";

/// Builds the call for the next step.
#[must_use]
pub fn request(context: &Context, run: &RunRequest) -> ModelRequest {
    let settings = &context.agent.settings;
    ModelRequest {
        model: run.override_model.clone().unwrap_or_else(|| settings.model.clone()),
        system: run.override_system.clone().unwrap_or_else(|| context.system_text()),
        turns: turns(context.messages.get(1..).unwrap_or_default()),
        tools: tools::specs(&context.agent),
        options: options(settings.model_settings.as_ref()),
    }
}

fn options(settings: Option<&serde_json::Value>) -> ModelOptions {
    let field = |name: &str| settings.and_then(|settings| settings.get(name));
    ModelOptions {
        temperature: field("temperature").and_then(serde_json::Value::as_f64),
        max_output_tokens: field("max_output_tokens")
            .and_then(serde_json::Value::as_u64)
            .and_then(|tokens| u32::try_from(tokens).ok()),
        parallel_tool_calls: field("parallel_tool_calls").and_then(serde_json::Value::as_bool).unwrap_or(false),
    }
}

/// The conversation as the model sees it; every call has a result.
#[must_use]
pub fn turns(messages: &[Message]) -> Vec<Turn> {
    let mut turns = Vec::with_capacity(messages.len());
    let mut open: Option<&Answer> = None;
    for message in messages {
        if let Body::ToolReturns(returns) = &message.body {
            let missing = open.take().map(|answer| missing_returns(answer, returns)).unwrap_or_default();
            turns.push(Turn::ToolReturns(returns.iter().cloned().chain(missing).collect()));
            continue;
        }
        close(&mut turns, open.take());
        match &message.body {
            Body::System(content) => turns.push(Turn::System(content.text())),
            Body::User(content) => turns.push(Turn::User(content.text())),
            Body::History(content) => {
                let parts = vec![AnswerPart::Text(content.text())];
                turns.push(Turn::Assistant(Answer { parts, calls: Vec::new() }));
            }
            Body::Assistant(answer) => {
                turns.push(Turn::Assistant(answer.clone()));
                open = Some(answer).filter(|answer| !answer.calls.is_empty());
            }
            Body::ToolReturns(_) => {}
        }
    }
    close(&mut turns, open);
    turns
}

fn close(turns: &mut Vec<Turn>, open: Option<&Answer>) {
    if let Some(answer) = open {
        turns.push(Turn::ToolReturns(missing_returns(answer, &[])));
    }
}

fn missing_returns(answer: &Answer, returns: &[ToolReturn]) -> Vec<ToolReturn> {
    let is_missing = |id: &str| returns.iter().all(|known| known.call_id != id);
    let missing = answer.calls.iter().filter(|call| is_missing(&call.id));
    missing.map(|call| ToolReturn::error(call, LOST_RESULT.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use holdfast_shared::domain::ids::{AgentId, Id, MessageId};
    use holdfast_shared::domain::message::{Content, Labels};
    use holdfast_shared::domain::tool::ToolCall;

    use super::*;

    fn message(body: Body) -> Message {
        let uuid = uuid::Uuid::from_u128(0x6612_baae_74a3_460d_9bfb_4c94_1f64_cd2d);
        Message {
            id: MessageId::from_uuid(uuid),
            agent_id: AgentId::from_uuid(uuid),
            run_id: None,
            step_id: None,
            body,
            labels: Labels::default(),
            created_at: chrono::DateTime::UNIX_EPOCH,
        }
    }

    fn calls(ids: &[&str]) -> Answer {
        let call = |id: &&str| ToolCall { id: (*id).to_owned(), name: "t".to_owned(), arguments: "{}".to_owned() };
        Answer { parts: Vec::new(), calls: ids.iter().map(call).collect() }
    }

    #[test]
    fn every_call_has_a_result_before_the_next_model_call() {
        let answered = calls(&["a", "b"]);
        let messages = [
            message(Body::User(Content::Text("hi".to_owned()))),
            message(Body::Assistant(answered.clone())),
            message(Body::ToolReturns(vec![ToolReturn::success(&answered.calls[0], "1".to_owned())])),
            message(Body::Assistant(calls(&["c"]))),
            message(Body::User(Content::Text("again".to_owned()))),
            message(Body::Assistant(calls(&["d"]))),
        ];
        let ids: Vec<Vec<String>> = turns(&messages)
            .into_iter()
            .filter_map(|turn| match turn {
                Turn::ToolReturns(returns) => {
                    Some(returns.into_iter().map(|tool_return| tool_return.call_id).collect())
                }
                _ => None,
            })
            .collect();
        assert_eq!(ids, [vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned()], vec!["d".to_owned()]]);
    }
}
