//! What an agent's tool rules allow (api/05 §4): plain functions of the rules and of what was called so far.

use holdfast_shared::domain::agent::Agent;
use holdfast_shared::domain::message::{Body, Message};
use holdfast_shared::domain::run::RunRequest;
use holdfast_shared::domain::tool::{ToolCall, ToolReturn};
use holdfast_shared::domain::tool_rule::{ToolRule, ToolRuleKind};
use holdfast_shared::ports::model_client::ToolChoice;
use serde_json::{Map, Value};

/// The rules that have an effect on an agent: those of tools that it has.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules<'a> {
    rules: Vec<&'a ToolRule>,
    attached: Vec<&'a str>,
    client: Vec<&'a str>,
}

/// What was called in a run so far, and what came of the last call. A run that answers an approval begins with the
/// history of the run that asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// Tools that were executed, in order.
    called: Vec<String>,
    /// The result of the last of them.
    last_result: String,
}

impl History {
    /// Takes in what stored messages tell, in their order.
    pub fn read(&mut self, messages: &[Message]) {
        for message in messages {
            if let Body::ToolReturns(returns) = &message.body {
                returns.iter().for_each(|tool_return| self.push(tool_return));
            }
        }
    }

    /// Takes a result in. Calls that were not executed do not count.
    pub fn push(&mut self, tool_return: &ToolReturn) {
        if tool_return.was_executed {
            self.called.push(tool_return.name.clone());
            self.last_result.clone_from(&tool_return.text);
        }
    }

    fn last(&self) -> Option<&str> {
        self.called.last().map(String::as_str)
    }

    fn count(&self, name: &str) -> usize {
        self.called.iter().filter(|called| *called == name).count()
    }
}

/// The tools of one model call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Their names: attached tools in the order of attachment, then the client's.
    pub names: Vec<String>,
    /// Whether the model must call one of them. Anything but [`ToolChoice::Auto`] says that a rule forces a call.
    pub tool_choice: ToolChoice,
}

impl Offer {
    /// Whether a tool was offered.
    #[must_use]
    pub fn allows(&self, name: &str) -> bool {
        self.names.iter().any(|offered| offered == name)
    }
}

impl<'a> Rules<'a> {
    /// The rules of an agent in a run.
    #[must_use]
    pub fn of(agent: &'a Agent, request: &'a RunRequest) -> Self {
        let attached = agent.tools.iter().map(|tool| tool.spec.name.as_str());
        let client = request.client_tools.iter().map(|tool| tool.name.as_str());
        Self::new(&agent.settings.tool_rules, attached, client)
    }

    /// Rules over the tools that are attached and those that the client has, which rules do not limit and which hide
    /// attached tools of the same name.
    #[must_use]
    pub fn new(
        rules: &'a [ToolRule],
        attached: impl IntoIterator<Item = &'a str>,
        client: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let attached: Vec<&str> = attached.into_iter().collect();
        let rules = rules.iter().filter(|rule| attached.contains(&rule.tool_name.as_str())).collect();
        Self { rules, attached, client: client.into_iter().collect() }
    }

    /// What the model is offered next. Rules that contradict each other leave nothing: then everything is offered.
    #[must_use]
    pub fn offer(&self, history: &History) -> Offer {
        let mut allowed: Vec<&str> = self.attached.iter().copied().filter(|name| self.allows(history, name)).collect();
        if allowed.is_empty() {
            allowed.clone_from(&self.attached);
        }
        let mut names: Vec<&str> = Vec::with_capacity(allowed.len() + self.client.len());
        let own = allowed.into_iter().filter(|name| !self.client.contains(name));
        for name in own.chain(self.client.iter().copied()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let tool_choice = match names.as_slice() {
            [only] if self.forces(history) => ToolChoice::Named((*only).to_owned()),
            [_, _, ..] if self.forces(history) => ToolChoice::Required,
            _ => ToolChoice::Auto,
        };
        Offer { names: names.into_iter().map(str::to_owned).collect(), tool_choice }
    }

    /// Whether several calls may be asked for at once, if the agent wants that: rules speak of one call after another.
    #[must_use]
    pub fn allows_parallel(&self, is_wanted: bool) -> bool {
        is_wanted && self.rules.iter().all(|rule| rule.kind == ToolRuleKind::RequiresApproval)
    }

    /// The result of a call that was not offered, with the rules that forbid it; `None` if it was offered.
    #[must_use]
    pub fn violation(&self, history: &History, offer: &Offer, name: &str) -> Option<String> {
        if offer.allows(name) {
            return None;
        }
        let valid: Vec<String> = offer.names.iter().map(|name| format!("'{name}'")).collect();
        let mut text = format!("[ToolConstraintError] Cannot call {name}, valid tools include: [{}]", valid.join(", "));
        if self.attached.contains(&name) {
            for rule in self.limiting(history).filter(|rule| !permits(rule, history, name)) {
                text.push('\n');
                text.push_str(&rule.sentence());
            }
        }
        Some(text)
    }

    /// The call with the arguments that rules give, which win over the model's. Arguments that are no JSON object are
    /// left as they are: the tool will say so.
    ///
    /// # Errors
    /// The rules give what the tool does not take; the text is the call's result.
    pub fn prefill(&self, history: &History, call: &ToolCall, parameters: &Value) -> Result<ToolCall, String> {
        let mut given = Map::new();
        for (source, arguments) in self.prefilled(history, &call.name) {
            for (name, value) in arguments {
                if let Some(problem) = misfit(&call.name, parameters, name, value) {
                    return Err(format!(
                        "Invalid prefilled tool arguments from tool rules (source={source}): {problem}"
                    ));
                }
                given.insert(name.clone(), value.clone());
            }
        }
        let mut prefilled = call.clone();
        if given.is_empty() {
            return Ok(prefilled);
        }
        // Some models write nothing at all where a tool needs no arguments.
        let written = if call.arguments.trim().is_empty() { "{}" } else { &call.arguments };
        if let Ok(mut arguments) = serde_json::from_str::<Map<String, Value>>(written) {
            arguments.extend(given);
            prefilled.arguments = Value::Object(arguments).to_string();
        }
        Ok(prefilled)
    }

    /// Whether calls of the tool wait for the client's approval.
    #[must_use]
    pub fn gates(&self, name: &str) -> bool {
        self.any(name, |kind| matches!(kind, ToolRuleKind::RequiresApproval))
    }

    /// Whether a call of the tool ends the run.
    #[must_use]
    pub fn is_terminal(&self, name: &str) -> bool {
        self.any(name, |kind| matches!(kind, ToolRuleKind::ExitLoop))
    }

    /// Whether the run goes on after a call of the tool, also where the model did not ask for it (api/05 §9).
    #[must_use]
    pub fn continues(&self, name: &str) -> bool {
        self.any(name, |kind| {
            matches!(
                kind,
                ToolRuleKind::ConstrainChildTools { .. }
                    | ToolRuleKind::Conditional { .. }
                    | ToolRuleKind::MaxCountPerStep { .. }
                    | ToolRuleKind::ContinueLoop
            )
        })
    }

    /// Tools that have to be called before the run ends and were not yet.
    #[must_use]
    pub fn missing_before_exit(&self, history: &History) -> Vec<&'a str> {
        let mut missing: Vec<&str> = Vec::new();
        for rule in &self.rules {
            let name = rule.tool_name.as_str();
            let is_required = rule.kind == ToolRuleKind::RequiredBeforeExit;
            if is_required && history.count(name) == 0 && !missing.contains(&name) {
                missing.push(name);
            }
        }
        missing
    }

    /// Rules that limit the next call. At the start of a run the rules on its first call stand for all others.
    fn limiting(&self, history: &History) -> impl Iterator<Item = &'a ToolRule> {
        let is_start = history.called.is_empty() && self.rules.iter().any(|rule| is_first(rule));
        self.rules.iter().copied().filter(move |rule| is_first(rule) == is_start)
    }

    fn allows(&self, history: &History, name: &str) -> bool {
        let mut limiting = self.limiting(history).peekable();
        // Each rule on the first call allows its own tool, so one of them is enough.
        if limiting.peek().is_some_and(|rule| is_first(rule)) {
            return limiting.any(|rule| permits(rule, history, name));
        }
        limiting.all(|rule| permits(rule, history, name))
    }

    fn forces(&self, history: &History) -> bool {
        self.limiting(history).any(|rule| match rule.kind {
            ToolRuleKind::RunFirst { .. } => true,
            ToolRuleKind::ConstrainChildTools { .. }
            | ToolRuleKind::ParentLastTool { .. }
            | ToolRuleKind::Conditional { .. } => history.last() == Some(rule.tool_name.as_str()),
            ToolRuleKind::MaxCountPerStep { .. }
            | ToolRuleKind::ExitLoop
            | ToolRuleKind::ContinueLoop
            | ToolRuleKind::RequiredBeforeExit
            | ToolRuleKind::RequiresApproval => false,
        })
    }

    /// Arguments that rules give to the next call of a tool, and what gives them.
    fn prefilled(&self, history: &History, name: &str) -> Vec<(String, &'a Map<String, Value>)> {
        let mut given = Vec::new();
        for rule in &self.rules {
            let tool = rule.tool_name.as_str();
            match &rule.kind {
                ToolRuleKind::RunFirst { args: Some(args) } if tool == name && history.called.is_empty() => {
                    given.push((format!("InitToolRule({tool})"), args));
                }
                ToolRuleKind::ConstrainChildTools { child_arg_nodes: Some(nodes), .. }
                    if history.last() == Some(tool) =>
                {
                    let nodes = nodes.iter().filter(|node| node.name == name);
                    let args = nodes.filter_map(|node| node.args.as_ref());
                    given.extend(args.map(|args| (format!("ChildToolRule({tool} -> {name})"), args)));
                }
                _ => {}
            }
        }
        given
    }

    fn any(&self, name: &str, is: impl Fn(&ToolRuleKind) -> bool) -> bool {
        self.rules.iter().any(|rule| rule.tool_name == name && is(&rule.kind))
    }
}

const fn is_first(rule: &ToolRule) -> bool {
    matches!(rule.kind, ToolRuleKind::RunFirst { .. })
}

/// Whether a rule lets a tool be called next.
fn permits(rule: &ToolRule, history: &History, name: &str) -> bool {
    let is_next = history.last() == Some(rule.tool_name.as_str());
    let is_child = |children: &[String]| children.iter().any(|child| child == name);
    match &rule.kind {
        ToolRuleKind::RunFirst { .. } => rule.tool_name == name,
        ToolRuleKind::ConstrainChildTools { children, .. } => !is_next || is_child(children),
        ToolRuleKind::ParentLastTool { children } => is_next == is_child(children),
        ToolRuleKind::Conditional { child_output_mapping, default_child, require_output_mapping } => {
            if !is_next {
                return true;
            }
            match child_of(child_output_mapping, &history.last_result).or(default_child.as_deref()) {
                Some(child) => child == name,
                None => !require_output_mapping,
            }
        }
        ToolRuleKind::MaxCountPerStep { max_count_limit } => {
            rule.tool_name != name || history.count(name) < usize::try_from(*max_count_limit).unwrap_or(usize::MAX)
        }
        ToolRuleKind::ExitLoop
        | ToolRuleKind::ContinueLoop
        | ToolRuleKind::RequiredBeforeExit
        | ToolRuleKind::RequiresApproval => true,
    }
}

/// The tool that a result leads to: by the very text, else by what it means as a value.
fn child_of<'r>(mapping: &'r Map<String, Value>, result: &str) -> Option<&'r str> {
    let by_value = || mapping.iter().find(|(key, _)| is_same_value(key, result)).map(|(_, child)| child);
    mapping.get(result).or_else(by_value)?.as_str()
}

/// Whether two texts stand for the same boolean or number. Tools write booleans as JSON does or with a capital letter.
fn is_same_value(one: &str, other: &str) -> bool {
    let boolean = |text: &str| text.trim().to_ascii_lowercase().parse::<bool>().ok();
    let integer = |text: &str| text.trim().parse::<i64>().ok();
    let float = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
    if let (Some(one), Some(other)) = (boolean(one), boolean(other)) {
        return one == other;
    }
    // Integers first: large ones are not exact as floats.
    if let (Some(one), Some(other)) = (integer(one), integer(other)) {
        return one == other;
    }
    matches!((float(one), float(other)), (Some(one), Some(other)) if one == other)
}

/// Why an argument does not fit a tool's parameters, if so.
fn misfit(tool: &str, parameters: &Value, name: &str, value: &Value) -> Option<String> {
    let Some(schema) = parameters.get("properties").and_then(|properties| properties.get(name)) else {
        // Schemas that say nothing of further arguments are those of tools with a fixed list of them.
        let takes_more = parameters.get("additionalProperties").is_some_and(|more| *more == true || more.is_object());
        return (!takes_more).then(|| format!("Unknown argument '{name}' for tool '{tool}'."));
    };
    (!fits(schema, value)).then(|| {
        let wanted = schema.get("type").map_or_else(|| "another type".to_owned(), Value::to_string);
        format!("Argument '{name}' of tool '{tool}' must be of type {wanted}, not \"{}\".", type_of(value))
    })
}

/// Whether a value has a type that a schema allows; what a schema says beyond types is left to the tool.
fn fits(schema: &Value, value: &Value) -> bool {
    let is_of = |name: &Value| match name.as_str() {
        Some("integer") => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        Some(name) => name == type_of(value),
        None => true,
    };
    let fits_type = match schema.get("type") {
        None => true,
        Some(Value::Array(names)) => names.iter().any(is_of),
        Some(name) => is_of(name),
    };
    let fits_one = |name: &str| match schema.get(name) {
        Some(Value::Array(schemas)) => schemas.iter().any(|schema| fits(schema, value)),
        _ => true,
    };
    fits_type && fits_one("anyOf") && fits_one("oneOf")
}

const fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(rules: Value) -> Vec<ToolRule> {
        serde_json::from_value(rules).expect("rules")
    }

    /// Tools that were called, and their results.
    type Results = &'static [(&'static str, &'static str)];

    fn called(results: &[(&str, &str)]) -> History {
        let mut history = History::default();
        for (name, text) in results {
            history.push(&ToolReturn::success(&ToolCall::new("c", *name, "{}"), (*text).to_owned()));
        }
        history
    }

    /// The rules of the contract's sample.
    fn support() -> Value {
        json!([
            {"type": "run_first", "tool_name": "load", "args": {"ticket": "T-1"}},
            {"type": "constrain_child_tools", "tool_name": "load", "children": ["sort", "close"],
                "child_arg_nodes": [{"name": "sort", "args": {"model": "fast"}}]},
            {"type": "parent_last_tool", "tool_name": "draft", "children": ["send"]},
            {"type": "conditional", "tool_name": "sort", "child_output_mapping": {"bug": "file", "question": "draft"},
                "default_child": "escalate", "require_output_mapping": false},
            {"type": "max_count_per_step", "tool_name": "find", "max_count_limit": 2},
            {"type": "exit_loop", "tool_name": "send"},
            {"type": "continue_loop", "tool_name": "note"},
            {"type": "required_before_exit", "tool_name": "log"},
            {"type": "requires_approval", "tool_name": "close"},
        ])
    }

    const ATTACHED: [&str; 10] = ["load", "sort", "close", "file", "draft", "send", "escalate", "find", "note", "log"];

    #[test]
    fn what_is_offered_follows_from_what_was_called() {
        let any = "load sort close file draft escalate find note log";
        let table: &[(&str, Results, &str, ToolChoice)] = &[
            ("the first call", &[], "load", ToolChoice::Named("load".to_owned())),
            ("children", &[("load", "")], "sort close", ToolChoice::Required),
            ("a mapped result", &[("sort", "bug")], "file", ToolChoice::Named("file".to_owned())),
            ("another result", &[("sort", "?")], "escalate", ToolChoice::Named("escalate".to_owned())),
            ("after the parent", &[("draft", "")], "send", ToolChoice::Named("send".to_owned())),
            ("no rule applies", &[("file", "")], any, ToolChoice::Auto),
            ("the count is not reached", &[("find", "")], any, ToolChoice::Auto),
            (
                "the count is reached",
                &[("find", ""), ("find", ""), ("note", "")],
                "load sort close file draft escalate note log",
                ToolChoice::Auto,
            ),
        ];
        let rules = parse(support());
        let rules = Rules::new(&rules, ATTACHED, []);
        for (name, results, expected, choice) in table {
            let offer = rules.offer(&called(results));
            assert_eq!((offer.names.join(" ").as_str(), &offer.tool_choice), (*expected, choice), "{name}");
        }
    }

    #[test]
    fn limits_meet_and_a_contradiction_offers_everything() {
        let children = |tool: &str, children: &[&str]| json!({"type": "constrain_child_tools", "tool_name": tool, "children": children});
        let most = |tool: &str| json!({"type": "max_count_per_step", "tool_name": tool, "max_count_limit": 1});
        let strict = |mapping: Value| json!({"type": "conditional", "tool_name": "a", "child_output_mapping": mapping, "require_output_mapping": true});
        let table: &[(&str, Value, &[&str], &str)] = &[
            ("two limits meet", json!([children("a", &["b", "c"]), children("a", &["c", "d"])]), &["a"], "c"),
            ("a limit and a count meet", json!([children("a", &["b", "c"]), most("b")]), &["b", "a"], "c"),
            ("nothing is left", json!([children("a", &["b"]), most("b")]), &["b", "a"], "a b c d"),
            ("children that are not attached", json!([children("a", &["x"])]), &["a"], "a b c d"),
            ("a rule of a tool that is not attached", json!([children("x", &["b"])]), &["x"], "a b c d"),
            (
                "a parent that is not attached",
                json!([{"type": "parent_last_tool", "tool_name": "x", "children": ["b"]}]),
                &["a"],
                "a b c d",
            ),
            ("no match where one is required", json!([strict(json!({"y": "b"}))]), &["a"], "a b c d"),
            (
                "no match, and another limit",
                json!([strict(json!({"": "b"})), children("a", &["c"])]),
                &["a"],
                "a b c d",
            ),
            (
                "two first tools",
                json!([{"type": "run_first", "tool_name": "b"}, {"type": "run_first", "tool_name": "d"}]),
                &[],
                "b d",
            ),
            (
                "the first tool is allowed whatever else",
                json!([{"type": "run_first", "tool_name": "b"}, {"type": "parent_last_tool", "tool_name": "a", "children": ["b"]}]),
                &[],
                "b",
            ),
            ("no rules", json!([]), &["a"], "a b c d"),
        ];
        for (name, rules, history, expected) in table {
            let rules = parse(rules.clone());
            let rules = Rules::new(&rules, ["a", "b", "c", "d"], []);
            let history: Vec<_> = history.iter().map(|tool| (*tool, "")).collect();
            assert_eq!(rules.offer(&called(&history)).names.join(" "), *expected, "{name}");
        }
    }

    #[test]
    fn a_result_leads_on_by_its_text_or_its_value() {
        let mapping = json!({"true": "b", "0": "c", "1.5": "d", "Yes": "e", "12345678901234567890123": "f"});
        for (result, expected) in [
            ("true", Some("b")),
            ("True", Some("b")),
            ("false", None),
            ("0", Some("c")),
            ("0.0", Some("c")),
            (" 0\n", Some("c")),
            ("1.50", Some("d")),
            ("15e-1", Some("d")),
            ("Yes", Some("e")),
            ("yes", None),
            ("12345678901234567890123", Some("f")),
            ("9007199254740993", None),
            ("", None),
            ("{\"status\": \"OK\"}", None),
        ] {
            assert_eq!(child_of(mapping.as_object().expect("an object"), result), expected, "{result}");
        }
        let large = json!({"9007199254740992": "b"});
        let large = large.as_object().expect("an object");
        assert_eq!(child_of(large, "9007199254740993"), None, "large integers are compared exactly");
    }

    #[test]
    fn only_executed_calls_count() {
        let rules = parse(json!([
            {"type": "max_count_per_step", "tool_name": "a", "max_count_limit": 1},
            {"type": "required_before_exit", "tool_name": "a"},
        ]));
        let rules = Rules::new(&rules, ["a", "b"], []);
        let call = ToolCall::new("c", "a", "{}");
        let mut history = History::default();
        history.push(&ToolReturn::refused(&call, "denied".to_owned()));
        assert_eq!((rules.offer(&history).names.len(), rules.missing_before_exit(&history)), (2, vec!["a"]));
        history.push(&ToolReturn::error(&call, "failed".to_owned()));
        assert_eq!((rules.offer(&history).names, rules.missing_before_exit(&history)), (vec!["b".to_owned()], vec![]));
    }

    #[test]
    fn client_tools_are_offered_besides_and_hide_attached_ones() {
        let rules = parse(json!([
            {"type": "constrain_child_tools", "tool_name": "a", "children": ["b"]},
            {"type": "requires_approval", "tool_name": "c"},
        ]));
        let rules = Rules::new(&rules, ["a", "b", "c"], ["b", "z"]);
        let offer = rules.offer(&called(&[]));
        assert_eq!(offer.names, ["a", "c", "b", "z"]);
        assert_eq!(["a", "b", "c", "x"].map(|name| offer.allows(name)), [true, true, true, false]);
        assert!(rules.violation(&called(&[]), &offer, "b").is_none());
        let next = rules.offer(&called(&[("a", "")]));
        assert_eq!((next.names, next.tool_choice), (vec!["b".to_owned(), "z".to_owned()], ToolChoice::Required));
    }

    #[test]
    fn a_refusal_says_what_is_valid_and_why() {
        let rules = parse(support());
        let rules = Rules::new(&rules, ATTACHED, []);
        let refusal = |results: &[(&str, &str)], name: &str| {
            let history = called(results);
            rules.violation(&history, &rules.offer(&history), name)
        };
        let start = "[ToolConstraintError] Cannot call sort, valid tools include: ['load']";
        let sentence = "load has to be called before any other tool.";
        assert_eq!(refusal(&[], "sort"), Some(format!("{start}\n{sentence}")));
        let unknown = refusal(&[("load", "")], "nothing").expect("a refusal");
        assert_eq!(unknown, "[ToolConstraintError] Cannot call nothing, valid tools include: ['sort', 'close']");
        let twice = refusal(&[("find", ""), ("find", "")], "find").expect("a refusal");
        assert!(twice.ends_with("\nfind can be called 2 times at most before you are done with a request."), "{twice}");
        let too_early = refusal(&[("note", "")], "send").expect("a refusal");
        assert!(too_early.contains("Directly after draft") && !too_early.contains("ends your work"), "{too_early}");
        assert_eq!(refusal(&[("load", "")], "sort"), None);
    }

    #[test]
    fn rules_fill_arguments_in() {
        let parameters = json!({"type": "object", "properties": {
            "ticket": {"type": "string"}, "model": {"type": "string"}, "deep": {"type": "boolean"},
        }});
        let rules = parse(support());
        let rules = Rules::new(&rules, ATTACHED, []);
        let table: &[(&str, Results, &str, &str, Value)] = &[
            ("added", &[], "load", "{\"deep\":true}", json!({"deep": true, "ticket": "T-1"})),
            ("winning", &[], "load", "{\"ticket\":\"T-2\"}", json!({"ticket": "T-1"})),
            ("to nothing", &[], "load", "", json!({"ticket": "T-1"})),
            ("only at the start", &[("note", "")], "load", "{\"ticket\":\"T-2\"}", json!({"ticket": "T-2"})),
            ("of a child", &[("load", "")], "sort", "{}", json!({"model": "fast"})),
            ("only after the parent", &[("note", "")], "sort", "{}", json!({})),
            ("only of that child", &[("load", "")], "close", "{}", json!({})),
        ];
        for (name, results, tool, arguments, expected) in table {
            let call = ToolCall::new("c", *tool, *arguments);
            let prefilled = rules.prefill(&called(results), &call, &parameters).expect("it fits");
            let got: Value = serde_json::from_str(&prefilled.arguments).expect("JSON");
            assert_eq!((got, prefilled.id, prefilled.name), (expected.clone(), call.id, call.name), "{name}");
        }
        let broken = ToolCall::new("c", "load", "{\"deep\":");
        assert_eq!(rules.prefill(&called(&[]), &broken, &parameters), Ok(broken));
    }

    #[test]
    fn given_arguments_must_fit_the_tool() {
        let parameters = json!({"type": "object", "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "unit": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "area": {"type": ["number", "null"]},
            "free": {"description": "anything"},
        }});
        let given = |arguments: Value, parameters: &Value| {
            let rules = parse(json!([{"type": "run_first", "tool_name": "get_weather", "args": arguments}]));
            let call = ToolCall::new("c", "get_weather", "{}");
            Rules::new(&rules, ["get_weather"], []).prefill(&History::default(), &call, parameters)
        };
        let source = "Invalid prefilled tool arguments from tool rules (source=InitToolRule(get_weather)): ";
        let unknown = "Unknown argument 'town' for tool 'get_weather'.";
        assert_eq!(given(json!({"town": "Oslo"}), &parameters), Err(format!("{source}{unknown}")));
        let wrong = "Argument 'city' of tool 'get_weather' must be of type \"string\", not \"number\".";
        assert_eq!(given(json!({"city": 5}), &parameters), Err(format!("{source}{wrong}")));
        for (arguments, is_taken) in [
            (json!({"city": "Oslo", "days": 3, "unit": null, "area": 1.5, "free": [1]}), true),
            (json!({"days": 2.0}), true),
            (json!({"days": 2.5}), false),
            (json!({"days": "2"}), false),
            (json!({"unit": false}), false),
            (json!({"area": "wide"}), false),
            (json!({"city": null}), false),
        ] {
            assert_eq!(given(arguments.clone(), &parameters).is_ok(), is_taken, "{arguments}");
        }
        let open = json!({"type": "object", "properties": {}, "additionalProperties": true});
        assert!(given(json!({"town": "Oslo"}), &open).is_ok());
        assert!(given(json!({"town": "Oslo"}), &json!({"type": "object"})).is_err());
        let child = parse(json!([{"type": "constrain_child_tools", "tool_name": "a", "children": ["b"],
            "child_arg_nodes": [{"name": "b", "args": {"x": 1}}]}]));
        let call = ToolCall::new("c", "b", "{}");
        let error = Rules::new(&child, ["a", "b"], []).prefill(&called(&[("a", "")]), &call, &parameters);
        assert!(error.expect_err("refused").contains("(source=ChildToolRule(a -> b))"));
    }

    #[test]
    fn several_calls_at_once_need_an_agent_without_order() {
        for (rules, expected) in [
            (json!([]), true),
            (json!([{"type": "requires_approval", "tool_name": "a"}]), true),
            (json!([{"type": "continue_loop", "tool_name": "a"}]), false),
            (json!([{"type": "exit_loop", "tool_name": "absent"}]), true),
        ] {
            let parsed = parse(rules.clone());
            let of_agent = Rules::new(&parsed, ["a"], []);
            assert_eq!((of_agent.allows_parallel(true), of_agent.allows_parallel(false)), (expected, false), "{rules}");
        }
    }

    #[test]
    fn rules_say_what_follows_a_call() {
        let rules = parse(support());
        let rules = Rules::new(&rules, ATTACHED, []);
        let those = |is: &dyn Fn(&str) -> bool| -> Vec<&str> { ATTACHED.into_iter().filter(|name| is(name)).collect() };
        assert_eq!(those(&|name| rules.is_terminal(name)), ["send"]);
        assert_eq!(those(&|name| rules.gates(name)), ["close"]);
        assert_eq!(those(&|name| rules.continues(name)), ["load", "sort", "find", "note"]);
    }
}
