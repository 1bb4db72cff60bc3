//! What comes after a step (api/05 §3): a pure function.

use holdfast_shared::domain::message::Answer;
use holdfast_shared::domain::stop_reason::StopReason;

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another step.
    Continue,
    /// The end of the run.
    Stop(StopReason),
}

/// What the decision rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepFacts<'a> {
    /// What the model answered.
    pub answer: &'a Answer,
    /// Whether the output limit cut the answer.
    pub is_cut: bool,
    /// Place of the step in the run, from 1.
    pub number: u32,
    /// Most steps of the run.
    pub max_steps: u32,
}

/// Decides what comes after a step whose tool calls have all been answered.
#[must_use]
pub fn after_step(facts: &StepFacts<'_>) -> Next {
    if facts.answer.calls.is_empty() {
        return Next::Stop(if facts.is_cut { StopReason::MaxTokensExceeded } else { StopReason::EndTurn });
    }
    if facts.number >= facts.max_steps { Next::Stop(StopReason::MaxSteps) } else { Next::Continue }
}

#[cfg(test)]
mod tests {
    use holdfast_shared::domain::message::AnswerPart;
    use holdfast_shared::domain::tool::ToolCall;

    use super::*;

    fn text() -> Answer {
        Answer { parts: vec![AnswerPart::Text("Hello.".to_owned())], calls: Vec::new(), made_by: None }
    }

    fn call() -> Answer {
        let call = ToolCall::new("call_1", "memory_insert", "{}");
        Answer { parts: Vec::new(), calls: vec![call], made_by: None }
    }

    #[test]
    fn every_step_leads_where_the_contract_says() {
        use Next::{Continue, Stop};
        let table: [(&str, Answer, bool, u32, u32, Next); 8] = [
            ("text ends the turn", text(), false, 1, 50, Stop(StopReason::EndTurn)),
            ("text at the limit ends the turn", text(), false, 50, 50, Stop(StopReason::EndTurn)),
            ("nothing at all ends the turn", Answer::default(), false, 1, 50, Stop(StopReason::EndTurn)),
            ("cut text says so", text(), true, 1, 50, Stop(StopReason::MaxTokensExceeded)),
            ("a call goes on", call(), false, 1, 50, Continue),
            ("a cut answer with a call goes on", call(), true, 1, 50, Continue),
            ("a call before the limit goes on", call(), false, 49, 50, Continue),
            ("a call at the limit stops", call(), false, 1, 1, Stop(StopReason::MaxSteps)),
        ];
        for (name, answer, is_cut, number, max_steps, expected) in table {
            let facts = StepFacts { answer: &answer, is_cut, number, max_steps };
            assert_eq!(after_step(&facts), expected, "{name}");
        }
    }
}
