//! From an agent's context to a call of its model (api/05 §1): pure.

use holdfast_shared::domain::agent::AgentSettings;
use holdfast_shared::domain::block::Block;
use holdfast_shared::domain::message::{Answer, AnswerPart, Body, Content, Message};
use holdfast_shared::domain::prompt::skills;
use holdfast_shared::domain::run::RunRequest;
use holdfast_shared::domain::tool::{ToolCall, ToolReturn, ToolSpec, ToolStatus};
use holdfast_shared::ports::model_client::{
    Image, ModelOptions, ModelRequest, Piece, ReasoningOptions, ToolChoice, ToolResult, Turn,
};
use holdfast_shared::ports::store::Context;
use serde_json::{Value, json};

/// What a call whose result was never recorded is answered with, so that providers accept the history.
const LOST_RESULT: &str = "The call was interrupted; whether it had an effect is unknown.";
/// What stands for the rest of a result that is too long for the context.
const RESULT_CUT: &str = "… [the rest of this result is left out here: it is too long for the context]";
/// The least that is sent of every result, in characters.
const RESULT_CHARS_AT_LEAST: usize = 5_000;
/// What an image is told by to a model that cannot see it, and in texts.
pub const IMAGE_PLACEHOLDER: &str = "[image]";

/// Builds the call for the next step.
#[must_use]
pub fn request(context: &Context, run: &RunRequest, tools: Vec<ToolSpec>, window: u64) -> ModelRequest {
    let settings = &context.agent.settings;
    ModelRequest {
        model: run.override_model.clone().unwrap_or_else(|| settings.model.clone()),
        system: system(context.system_text(), run, &context.agent.blocks),
        turns: turns(context.messages.get(1..).unwrap_or_default(), result_chars(window)),
        tools,
        tool_choice: ToolChoice::Auto,
        options: options(settings),
    }
}

/// The stored system message, followed by the request's skills; or what the request puts in the place of all that.
fn system(compiled: String, run: &RunRequest, blocks: &[Block]) -> String {
    if let Some(text) = &run.override_system {
        return text.clone();
    }
    match skills(&run.client_skills, blocks) {
        Some(skills) => format!("{compiled}\n\n{skills}"),
        None => compiled,
    }
}

/// Most characters of a tool's result in a call: a fifth of the window, at four characters a token (api/05 §1).
#[must_use]
pub fn result_chars(window: u64) -> usize {
    usize::try_from(window.saturating_mul(4) / 5).unwrap_or(usize::MAX).max(RESULT_CHARS_AT_LEAST)
}

/// The sampling options of an agent: those in its `model_settings`, and where it leaves one out that is a field of the
/// agent too, that one (api/04 §1).
#[must_use]
pub fn options(settings: &AgentSettings) -> ModelOptions {
    let given = |value: &&Value| !value.is_null();
    let field = |name: &str| settings.model_settings.as_ref().and_then(|own| own.get(name)).filter(given);
    let or_own = |name: &str, own: &str| field(name).or_else(|| settings.other.get(own).filter(given));
    let tokens = |value: &Value| value.as_u64().and_then(|tokens| u32::try_from(tokens).ok());
    let reasoning = field("reasoning").or_else(|| field("thinking"));
    let of_reasoning = |name: &str| reasoning.and_then(|reasoning| reasoning.get(name));
    let effort = of_reasoning("reasoning_effort").or_else(|| field("effort")).and_then(Value::as_str);
    let older = |name: &str| settings.other.get(name).filter(given);
    let is_on = match of_reasoning("type").and_then(Value::as_str) {
        Some("disabled") => Some(false),
        Some(_) => Some(true),
        None => effort.map(|effort| effort != "none"),
    };
    let is_on = is_on.or_else(|| older("reasoning").or_else(|| older("enable_reasoner"))?.as_bool());
    let budget = of_reasoning("budget_tokens").or_else(|| of_reasoning("thinking_budget")).and_then(tokens);
    // By default it is 0, which sets no limit.
    let budget = budget.or_else(|| older("max_reasoning_tokens").and_then(tokens).filter(|tokens| *tokens > 0));
    let is_parallel = or_own("parallel_tool_calls", "parallel_tool_calls").and_then(Value::as_bool);
    ModelOptions {
        temperature: field("temperature").and_then(Value::as_f64),
        max_output_tokens: or_own("max_output_tokens", "max_tokens").and_then(tokens),
        parallel_tool_calls: is_parallel.unwrap_or(false),
        reasoning: ReasoningOptions { is_on, effort: effort.map(str::to_owned), budget_tokens: budget },
        response_format: or_own("response_format", "response_format").cloned(),
    }
}

/// The conversation as the model sees it: every call has a result, and every result a call.
#[must_use]
pub fn turns(messages: &[Message], result_chars: usize) -> Vec<Turn> {
    let mut turns = Turns {
        turns: Vec::with_capacity(messages.len()),
        open: Vec::new(),
        is_asked: false,
        deferred: Vec::new(),
        result_chars,
    };
    let mut last_step = None;
    for message in messages {
        match &message.body {
            Body::System(content) => turns.push(Turn::System(content.text())),
            Body::User(content) => turns.push(Turn::User(pieces(content))),
            Body::History(content) => {
                let parts = vec![AnswerPart::Text(content.text())];
                turns.push(Turn::Assistant(Answer { parts, calls: Vec::new(), made_by: None }));
            }
            Body::Assistant(answer) => turns.answer(answer),
            // What was one answer of the model is one again.
            Body::ApprovalRequest(rest) if message.step_id.is_some() && message.step_id == last_step => {
                turns.more_of_the_answer(rest);
                turns.is_asked = true;
            }
            Body::ApprovalRequest(answer) => {
                turns.answer(answer);
                turns.is_asked = true;
            }
            Body::ToolReturns(returns) => turns.returns(returns, message),
            Body::Summary(summary) => {
                let text = json!({
                    "type": "system_alert",
                    "message": summary.text,
                    "time": written(message),
                    "compaction_stats": summary.stats,
                });
                turns.push(Turn::User(vec![Piece::Text(text.to_string())]));
            }
            Body::Note(text) => turns.push(Turn::User(vec![Piece::Text(text.clone())])),
            // Its results follow; a failed answer leaves nothing to say.
            Body::ApprovalResponse(_) => {}
        }
        last_step = message.step_id;
    }
    turns.close();
    turns.turns
}

struct Turns {
    turns: Vec<Turn>,
    /// Calls of the last answer that have no result yet.
    open: Vec<ToolCall>,
    /// Whether the client was asked about them: what it sends along with its answer stands before their results in the
    /// history, and comes after them for the model.
    is_asked: bool,
    /// What was sent along.
    deferred: Vec<Turn>,
    result_chars: usize,
}

impl Turns {
    fn push(&mut self, turn: Turn) {
        if self.is_asked && !self.open.is_empty() && !matches!(turn, Turn::Assistant(_)) {
            self.deferred.push(turn);
            return;
        }
        self.close();
        self.turns.push(turn);
    }

    fn answer(&mut self, answer: &Answer) {
        self.push(Turn::Assistant(answer.clone()));
        self.open.clone_from(&answer.calls);
        self.is_asked = false;
    }

    fn more_of_the_answer(&mut self, rest: &Answer) {
        let Some(Turn::Assistant(answer)) = self.turns.last_mut() else { return self.answer(rest) };
        answer.parts.extend(rest.parts.iter().cloned());
        answer.calls.extend(rest.calls.iter().cloned());
        self.open.extend(rest.calls.iter().cloned());
    }

    fn returns(&mut self, returns: &[ToolReturn], message: &Message) {
        let mut results = Vec::with_capacity(returns.len());
        for one in returns {
            let Some(place) = self.open.iter().position(|call| call.id == one.call_id) else { continue };
            self.open.remove(place);
            results.push(result(one, Some(message), self.result_chars));
        }
        results.extend(self.lost());
        if !results.is_empty() {
            self.turns.push(Turn::ToolReturns(results));
        }
        self.turns.append(&mut self.deferred);
    }

    fn close(&mut self) {
        let lost = self.lost();
        if !lost.is_empty() {
            self.turns.push(Turn::ToolReturns(lost));
        }
        self.turns.append(&mut self.deferred);
    }

    fn lost(&mut self) -> Vec<ToolResult> {
        let lost = |call: ToolCall| result(&ToolReturn::refused(&call, LOST_RESULT.to_owned()), None, usize::MAX);
        self.open.drain(..).map(lost).collect()
    }
}

/// A result as the model reads it. The time is that of the stored message: the same call always sends the same bytes,
/// so that the provider's cache finds them.
fn result(one: &ToolReturn, message: Option<&Message>, most_chars: usize) -> ToolResult {
    let status = match one.status {
        ToolStatus::Success => "OK",
        ToolStatus::Error => "Failed",
    };
    let message = message.map(written);
    let text = match one.text.char_indices().nth(most_chars) {
        Some((end, _)) => format!("{}{RESULT_CUT}", &one.text[..end]),
        None => one.text.clone(),
    };
    let text = match message {
        Some(time) => json!({"status": status, "message": text, "time": time}),
        None => json!({"status": status, "message": text}),
    };
    let images = one.parts.iter().flatten().filter_map(image).collect();
    ToolResult {
        call_id: one.call_id.clone(),
        name: one.name.clone(),
        is_error: one.status == ToolStatus::Error,
        text: text.to_string(),
        images,
    }
}

fn written(message: &Message) -> String {
    message.created_at.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Content as a model sees it; parts that only history has are left out.
fn pieces(content: &Content) -> Vec<Piece> {
    match content {
        Content::Text(text) => vec![Piece::Text(text.clone())],
        Content::Parts(parts) => {
            let piece = |part: &Value| match part.get("type").and_then(Value::as_str) {
                Some("text") => part.get("text").and_then(Value::as_str).map(|text| Piece::Text(text.to_owned())),
                Some("image") => image(part).map(Piece::Image),
                _ => None,
            };
            parts.iter().filter_map(piece).collect()
        }
    }
}

/// The image in a part. Images by URL were fetched when the request was accepted.
fn image(part: &Value) -> Option<Image> {
    let source = part.get("source")?;
    let text = |name: &str| source.get(name).and_then(Value::as_str).map(str::to_owned);
    Some(Image {
        data: text("data")?,
        media_type: text("media_type").unwrap_or_else(|| "image/png".to_owned()),
        detail: text("detail"),
    })
}

#[cfg(test)]
mod tests {
    use holdfast_shared::domain::ids::{AgentId, Id, MessageId};
    use holdfast_shared::domain::message::{Content, Labels};
    use holdfast_shared::domain::model::ModelHandle;
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
        let call = |id: &&str| ToolCall::new((*id).to_owned(), "t", "{}");
        Answer { parts: Vec::new(), calls: ids.iter().map(call).collect(), made_by: None }
    }

    #[test]
    fn options_of_the_model_settings_win_over_fields_of_the_agent() {
        let of = |model_settings: Value, other: Value| {
            let settings = json!({
                "agent_type": "letta_v1_agent", "system": "", "model": "holdfast/demo", "model_settings": model_settings,
                "tools": [], "tool_rules": [], "tags": [], "timezone": "UTC", "message_buffer_autoclear": false,
                "other": other,
            });
            let options = options(&serde_json::from_value(settings).expect("settings"));
            (options.parallel_tool_calls, options.max_output_tokens, options.response_format)
        };
        let format = |kind: &str| json!({"type": kind});
        let own = json!({"parallel_tool_calls": true, "max_tokens": 5, "response_format": format("text")});
        let new =
            json!({"parallel_tool_calls": false, "max_output_tokens": 7, "response_format": format("json_object")});
        let empty = json!({"parallel_tool_calls": null, "max_output_tokens": null});
        let of_own = (true, Some(5), Some(format("text")));
        assert_eq!(of(Value::Null, own.clone()), of_own);
        assert_eq!(of(empty, own.clone()), of_own);
        assert_eq!(of(new, own), (false, Some(7), Some(format("json_object"))));
        assert_eq!(of(Value::Null, json!({})), (false, None, None));
    }

    #[test]
    fn older_words_for_reasoning_count_where_the_model_settings_say_nothing() {
        let of = |model_settings: Value, other: Value| {
            let mut settings = AgentSettings::new("letta_v1_agent", "", ModelHandle::demo());
            settings.model_settings = Some(model_settings);
            settings.other = other.as_object().cloned().expect("an object");
            let reasoning = options(&settings).reasoning;
            (reasoning.is_on, reasoning.budget_tokens)
        };
        let older = json!({"reasoning": true, "max_reasoning_tokens": 2000});
        assert_eq!(of(json!({}), older.clone()), (Some(true), Some(2000)));
        assert_eq!(of(json!({}), json!({"enable_reasoner": false, "max_reasoning_tokens": 0})), (Some(false), None));
        let thinking = json!({"thinking": {"type": "disabled", "budget_tokens": 1024}});
        assert_eq!(of(thinking, older), (Some(false), Some(1024)));
    }

    #[test]
    fn skills_follow_the_system_message_unless_the_request_replaces_it() {
        let run = |skills: Value, system: Option<&str>| -> RunRequest {
            serde_json::from_value(json!({
                "run_type": "send_message", "attachment": "Foreground", "mode": "Steps", "include_pings": true,
                "max_steps": 1, "override_system": system, "use_assistant_message": true,
                "assistant_message_tool_name": "", "assistant_message_tool_kwarg": "", "client_skills": skills,
            }))
            .expect("a request")
        };
        let skills = json!([{"name": "pdf", "description": "Fills forms.", "location": "/skills/pdf/SKILL.md"}]);
        let of = |run: &RunRequest| system("Compiled.".to_owned(), run, &[]);
        let text = of(&run(skills.clone(), None));
        assert!(text.starts_with("Compiled.\n\n<available_skills>\n") && text.contains("Fills forms."), "{text}");
        assert_eq!(of(&run(json!([]), None)), "Compiled.");
        assert_eq!(of(&run(skills, Some("Mine."))), "Mine.");
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
        let ids: Vec<Vec<String>> = turns(&messages, 100)
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
