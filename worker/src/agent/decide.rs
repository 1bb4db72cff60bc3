//! What comes after a step (api/05 §3, §9): a pure function.

use holdfast_shared::domain::Timestamp;
use holdfast_shared::domain::stop_reason::StopReason;
use holdfast_shared::domain::tool::ToolReturn;
use serde::Serialize;

use super::rules::{History, Rules};

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Another step.
    Continue {
        /// What the model is told before it, beyond the results of its calls.
        note: Option<Note>,
    },
    /// The end of the run.
    Stop(StopReason),
}

/// Why the model gets another turn, where it may not see that by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// Tools have to be called before the run may end.
    Missing(Vec<String>),
    /// The model asked for another turn with its call.
    Asked,
    /// A rule on the called tool says so.
    Rule {
        /// The tool.
        tool: String,
    },
    /// The call was not executed.
    NotExecuted {
        /// The tool.
        tool: String,
    },
}

/// How a run's loop goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// It goes on until the model answers without a call.
    Current,
    /// Every step is a call, and the model says with it whether it wants another (api/05 §9).
    Legacy {
        /// Whether it does.
        wants_heartbeat: bool,
    },
}

/// A call of the step, and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Called<'a> {
    /// The tool.
    pub name: &'a str,
    /// What became of the call.
    pub fate: Fate,
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was executed, by the server or by the client, whatever came of it.
    Executed,
    /// It was answered without: refused, denied, not understood or lost.
    NotExecuted,
    /// Arguments that rules give do not fit the tool, so it was not executed.
    Misfit,
    /// It waits: for the client, or for other calls of its step that do.
    Waits,
}

impl<'a> Called<'a> {
    /// A call by its result.
    #[must_use]
    pub fn answered(tool_return: &'a ToolReturn) -> Self {
        let fate = if tool_return.was_executed { Fate::Executed } else { Fate::NotExecuted };
        Self { name: &tool_return.name, fate }
    }
}

/// What the decision rests on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepFacts<'a> {
    /// How the loop goes.
    pub style: Style,
    /// The calls that the model asked for in this step or, if the step answers an approval, those of the step that
    /// asked for it.
    pub calls: &'a [Called<'a>],
    /// Whether the output limit cut the model's answer.
    pub is_cut: bool,
    /// The rules.
    pub rules: &'a Rules<'a>,
    /// What was called in the run, with this step.
    pub history: &'a History,
    /// Whether the request brought more than the answers that this step dealt with: the model is to see that too.
    pub has_more_input: bool,
    /// Place of the step in the run, from 1.
    pub number: u32,
    /// Most steps of the run.
    pub max_steps: u32,
}

/// Decides what comes after a step whose calls have all been dealt with, as far as that can be done now.
#[must_use]
pub fn after_step(facts: &StepFacts<'_>) -> Next {
    let wanted = match facts.style {
        _ if facts.calls.iter().any(|call| call.fate == Fate::Waits) => Next::Stop(StopReason::RequiresApproval),
        Style::Current => current(facts),
        Style::Legacy { wants_heartbeat } => legacy(facts, wants_heartbeat),
    };
    let is_last = facts.number >= facts.max_steps;
    match wanted {
        Next::Continue { .. } if is_last => Next::Stop(StopReason::MaxSteps),
        Next::Stop(StopReason::ToolRule | StopReason::EndTurn) if facts.has_more_input && !is_last => {
            Next::Continue { note: None }
        }
        wanted => wanted,
    }
}

fn current(facts: &StepFacts<'_>) -> Next {
    match facts.calls {
        [] if !missing(facts).is_empty() => Next::Continue { note: Some(Note::Missing(missing(facts))) },
        [] if facts.is_cut => Next::Stop(StopReason::MaxTokensExceeded),
        [] => Next::Stop(StopReason::EndTurn),
        [Called { fate: Fate::Misfit, .. }] => Next::Stop(StopReason::InvalidToolCall),
        _ if ends(facts).is_none() => Next::Continue { note: None },
        _ if !missing(facts).is_empty() => Next::Continue { note: Some(Note::Missing(missing(facts))) },
        _ => Next::Stop(StopReason::ToolRule),
    }
}

fn legacy(facts: &StepFacts<'_>, wants_heartbeat: bool) -> Next {
    let Some(call) = facts.calls.first() else {
        let reason = if facts.is_cut { StopReason::MaxTokensExceeded } else { StopReason::NoToolCall };
        return Next::Stop(reason);
    };
    let tool = call.name.to_owned();
    let missing = missing(facts);
    let note = if call.fate == Fate::Misfit {
        return Next::Stop(StopReason::InvalidToolCall);
    } else if call.fate == Fate::NotExecuted {
        Note::NotExecuted { tool }
    } else if ends(facts).is_some() && missing.is_empty() {
        return Next::Stop(if wants_heartbeat { StopReason::ToolRule } else { StopReason::EndTurn });
    } else if ends(facts).is_none() && wants_heartbeat {
        Note::Asked
    } else if ends(facts).is_none() && facts.rules.continues(&tool) {
        Note::Rule { tool }
    } else if !missing.is_empty() {
        Note::Missing(missing)
    } else {
        return Next::Stop(StopReason::EndTurn);
    };
    Next::Continue { note: Some(note) }
}

/// The executed call that ends the run, if there is one.
fn ends<'a>(facts: &StepFacts<'a>) -> Option<&'a Called<'a>> {
    facts.calls.iter().find(|call| call.fate == Fate::Executed && facts.rules.is_terminal(call.name))
}

fn missing(facts: &StepFacts<'_>) -> Vec<String> {
    facts.rules.missing_before_exit(facts.history).into_iter().map(str::to_owned).collect()
}

impl Note {
    /// The hidden message of role user that tells it, in the contract's form.
    #[must_use]
    pub fn text(&self, at: Timestamp) -> String {
        #[derive(Serialize)]
        struct Heartbeat {
            r#type: &'static str,
            reason: String,
            time: String,
        }
        let time = at.format("%Y-%m-%dT%H:%M:%SZ").to_string();
        let heartbeat = Heartbeat { r#type: "heartbeat", reason: self.reason(), time };
        // Strings only: that cannot fail.
        serde_json::to_string(&heartbeat).unwrap_or_default()
    }

    fn reason(&self) -> String {
        let reason = match self {
            Self::Missing(tools) => {
                format!("You cannot finish yet. These tools have to be called first: {}.", tools.join(", "))
            }
            Self::Asked => "You asked for another turn with request_heartbeat.".to_owned(),
            Self::Rule { tool } => format!("A rule on {tool} gives you another turn."),
            Self::NotExecuted { tool } => format!("The call of {tool} was not executed; its result says why."),
        };
        format!("[Automatic message, not from the user] {reason}")
    }
}

#[cfg(test)]
mod tests {
    use holdfast_shared::domain::tool::ToolCall;
    use holdfast_shared::domain::tool_rule::ToolRule;
    use serde_json::{Value, json};

    use super::*;

    const CURRENT: Style = Style::Current;
    const ASKS: Style = Style::Legacy { wants_heartbeat: true };
    const SILENT: Style = Style::Legacy { wants_heartbeat: false };

    /// A step of which most rows of the tables change little.
    struct Row {
        style: Style,
        calls: Vec<(&'static str, Fate)>,
        is_cut: bool,
        has_more_input: bool,
        number: u32,
        rules: Value,
    }

    const MAX_STEPS: u32 = 5;

    fn row(style: Style, calls: &[(&'static str, Fate)]) -> Row {
        let rules = json!([
            {"type": "exit_loop", "tool_name": "send"},
            {"type": "continue_loop", "tool_name": "note"},
        ]);
        Row { style, calls: calls.to_vec(), is_cut: false, has_more_input: false, number: 1, rules }
    }

    impl Row {
        fn requiring_log(mut self) -> Self {
            let required = json!({"type": "required_before_exit", "tool_name": "log"});
            self.rules.as_array_mut().expect("rules").push(required);
            self
        }

        fn cut(self) -> Self {
            Self { is_cut: true, ..self }
        }

        fn last(self) -> Self {
            Self { number: MAX_STEPS, ..self }
        }

        fn with_more_input(self) -> Self {
            Self { has_more_input: true, ..self }
        }

        fn next(&self) -> Next {
            let rules: Vec<ToolRule> = serde_json::from_value(self.rules.clone()).expect("rules");
            let rules = Rules::new(&rules, ["look", "send", "note", "log"], ["pick"]);
            let mut history = History::default();
            for (name, fate) in &self.calls {
                if *fate == Fate::Executed {
                    history.push(&ToolReturn::error(&ToolCall::new("c", *name, "{}"), "x".to_owned()));
                }
            }
            let calls: Vec<_> = self.calls.iter().map(|(name, fate)| Called { name, fate: *fate }).collect();
            after_step(&StepFacts {
                style: self.style,
                calls: &calls,
                is_cut: self.is_cut,
                rules: &rules,
                history: &history,
                has_more_input: self.has_more_input,
                number: self.number,
                max_steps: MAX_STEPS,
            })
        }
    }

    fn goes_on(note: impl Into<Option<Note>>) -> Next {
        Next::Continue { note: note.into() }
    }

    fn log_is_missing() -> Next {
        goes_on(Note::Missing(vec!["log".to_owned()]))
    }

    #[test]
    fn every_step_leads_where_the_contract_says() {
        use Fate::{Executed, Misfit, NotExecuted, Waits};
        use StopReason::{EndTurn, InvalidToolCall, MaxSteps, MaxTokensExceeded, RequiresApproval, ToolRule};
        let of = |calls: &[(&'static str, Fate)]| row(CURRENT, calls);
        let (look, send) = (("look", Executed), ("send", Executed));
        for (name, row, expected) in [
            ("no call ends the turn", of(&[]), Next::Stop(EndTurn)),
            ("cut without a call says so", of(&[]).cut(), Next::Stop(MaxTokensExceeded)),
            ("no call, required tools missing", of(&[]).requiring_log(), log_is_missing()),
            ("cut, required tools missing", of(&[]).cut().requiring_log(), log_is_missing()),
            ("an executed call goes on", of(&[look]), goes_on(None)),
            ("a cut answer with a call goes on", of(&[look]).cut(), goes_on(None)),
            ("a refused or denied call goes on", of(&[("look", NotExecuted)]), goes_on(None)),
            ("a client's result goes on", of(&[("pick", Executed)]), goes_on(None)),
            ("a call goes on although required tools are missing", of(&[look]).requiring_log(), goes_on(None)),
            ("a terminal tool ends", of(&[send]), Next::Stop(ToolRule)),
            ("a terminal tool that was not executed", of(&[("send", NotExecuted)]), goes_on(None)),
            ("a terminal tool, required tools missing", of(&[send]).requiring_log(), log_is_missing()),
            (
                "a terminal tool and the required one",
                of(&[("log", Executed), send]).requiring_log(),
                Next::Stop(ToolRule),
            ),
            ("bad prefilled arguments", of(&[("look", Misfit)]), Next::Stop(InvalidToolCall)),
            ("bad prefilled arguments in one of two calls", of(&[("look", Misfit), look]), goes_on(None)),
            ("several calls, none terminal", of(&[look, ("note", Executed)]), goes_on(None)),
            ("several calls, one terminal", of(&[look, send, look]), Next::Stop(ToolRule)),
            ("a call waits for the client", of(&[("pick", Waits)]), Next::Stop(RequiresApproval)),
            ("a free call waits with it", of(&[("look", Waits), ("pick", Waits)]), Next::Stop(RequiresApproval)),
            (
                "a refused call beside one that waits",
                of(&[("x", NotExecuted), ("pick", Waits)]),
                Next::Stop(RequiresApproval),
            ),
            ("the last step would go on", of(&[look]).last(), Next::Stop(MaxSteps)),
            ("the last step, required tools missing", of(&[]).requiring_log().last(), Next::Stop(MaxSteps)),
            ("the last step is text", of(&[]).last(), Next::Stop(EndTurn)),
            ("the last step is terminal", of(&[send]).last(), Next::Stop(ToolRule)),
            ("the last step waits", of(&[("pick", Waits)]).last(), Next::Stop(RequiresApproval)),
            ("the last step has bad arguments", of(&[("look", Misfit)]).last(), Next::Stop(InvalidToolCall)),
            ("more input than answers", of(&[send]).with_more_input(), goes_on(None)),
            ("more input, and no step left", of(&[send]).with_more_input().last(), Next::Stop(ToolRule)),
            ("more input after an ordinary call", of(&[look]).with_more_input().last(), Next::Stop(MaxSteps)),
        ] {
            assert_eq!(row.next(), expected, "{name}");
        }
    }

    #[test]
    fn every_legacy_step_leads_where_the_contract_says() {
        use Fate::{Executed, Misfit, NotExecuted, Waits};
        use StopReason::{
            EndTurn, InvalidToolCall, MaxSteps, MaxTokensExceeded, NoToolCall, RequiresApproval, ToolRule,
        };
        let rule = || goes_on(Note::Rule { tool: "note".to_owned() });
        let (look, send, note) = ([("look", Executed)], [("send", Executed)], [("note", Executed)]);
        let refused = [("look", NotExecuted)];
        for (name, row, expected) in [
            ("no call", row(ASKS, &[]), Next::Stop(NoToolCall)),
            ("no call, cut", row(ASKS, &[]).cut(), Next::Stop(MaxTokensExceeded)),
            ("a heartbeat is asked for", row(ASKS, &look), goes_on(Note::Asked)),
            ("no heartbeat is asked for", row(SILENT, &look), Next::Stop(EndTurn)),
            ("a rule goes on", row(SILENT, &note), rule()),
            ("a call was refused", row(SILENT, &refused), goes_on(Note::NotExecuted { tool: "look".to_owned() })),
            ("required tools are missing", row(SILENT, &look).requiring_log(), log_is_missing()),
            ("terminal, asked for a heartbeat", row(ASKS, &send), Next::Stop(ToolRule)),
            ("terminal, did not ask", row(SILENT, &send), Next::Stop(EndTurn)),
            ("terminal, required tools missing", row(ASKS, &send).requiring_log(), log_is_missing()),
            ("bad prefilled arguments", row(ASKS, &[("look", Misfit)]), Next::Stop(InvalidToolCall)),
            ("a call waits for the client", row(ASKS, &[("pick", Waits)]), Next::Stop(RequiresApproval)),
            ("the last step would go on", row(ASKS, &look).last(), Next::Stop(MaxSteps)),
            ("the last step ends by itself", row(SILENT, &look).last(), Next::Stop(EndTurn)),
        ] {
            assert_eq!(row.next(), expected, "{name}");
        }
        for kind in [
            json!({"type": "constrain_child_tools", "tool_name": "note", "children": ["look"]}),
            json!({"type": "conditional", "tool_name": "note", "child_output_mapping": {"x": "look"}}),
            json!({"type": "max_count_per_step", "tool_name": "note", "max_count_limit": 3}),
        ] {
            let row = Row { rules: json!([kind]), ..row(SILENT, &note) };
            assert_eq!(row.next(), rule(), "{}", row.rules);
        }
    }

    #[test]
    fn a_note_is_a_heartbeat_in_json() {
        let at = "2026-01-15T10:00:00Z".parse().expect("a time");
        let text = Note::Missing(vec!["a".to_owned(), "b".to_owned()]).text(at);
        let value: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((&value["type"], &value["time"]), (&json!("heartbeat"), &json!("2026-01-15T10:00:00Z")));
        assert!(value["reason"].as_str().is_some_and(|reason| reason.ends_with("called first: a, b.")), "{text}");
    }
}
