//! Rules on the order and number of an agent's tool calls, in the contract's own shape (api/05 §4).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A rule. It is kept and shown as sent; what it means is decided by the worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolRule {
    /// The tool that it is about.
    pub tool_name: String,
    /// What it says.
    #[serde(flatten)]
    pub kind: ToolRuleKind,
    /// Accepted, kept, without effect.
    #[serde(default)]
    pub prompt_template: Option<String>,
}

/// What a rule says of its tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToolRuleKind {
    /// It is called before any other.
    RunFirst {
        /// Arguments that win over the model's.
        #[serde(default)]
        args: Option<Map<String, Value>>,
    },
    /// After it, only these are called.
    ConstrainChildTools {
        /// The tools.
        children: Vec<String>,
        /// Arguments of children that win over the model's.
        #[serde(default)]
        child_arg_nodes: Option<Vec<ChildArgs>>,
    },
    /// These are called only directly after it, and then nothing else is.
    ParentLastTool {
        /// The tools.
        children: Vec<String>,
    },
    /// After it, the tool is called that its result says.
    Conditional {
        /// From the result's text to the tool.
        child_output_mapping: Map<String, Value>,
        /// The tool for every other result.
        #[serde(default)]
        default_child: Option<String>,
        /// Without a default: whether no tool, rather than any, follows on every other result.
        #[serde(default)]
        require_output_mapping: bool,
    },
    /// It is called at most so many times in a run.
    MaxCountPerStep {
        /// So many times.
        max_count_limit: u32,
    },
    /// It ends the run.
    ExitLoop,
    /// The run goes on after it.
    ContinueLoop,
    /// The run does not end before it was called.
    RequiredBeforeExit,
    /// Its calls wait for the client.
    RequiresApproval,
}

/// Arguments of a child that win over the model's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChildArgs {
    /// The child.
    pub name: String,
    /// The arguments.
    #[serde(default)]
    pub args: Option<Map<String, Value>>,
}

impl ToolRule {
    /// A rule that a tool's calls wait for the client.
    #[must_use]
    pub fn requires_approval(tool_name: impl Into<String>) -> Self {
        Self { tool_name: tool_name.into(), kind: ToolRuleKind::RequiresApproval, prompt_template: None }
    }
    /// The rule in words for a model: in its system message, and to explain why a call was refused.
    #[must_use]
    pub fn sentence(&self) -> String {
        let name = &self.tool_name;
        match &self.kind {
            ToolRuleKind::RunFirst { .. } => format!("{name} has to be called before any other tool."),
            ToolRuleKind::ConstrainChildTools { children, .. } => {
                format!("After {name}, the next call can only be one of: {}.", children.join(", "))
            }
            ToolRuleKind::ParentLastTool { children } => {
                format!(
                    "Directly after {name}, and at no other time, one of these is to be called: {}.",
                    children.join(", ")
                )
            }
            ToolRuleKind::Conditional { child_output_mapping, default_child, require_output_mapping } => {
                let mapped = |(key, child): (&String, &Value)| Some(format!("{key} leads to {}", child.as_str()?));
                let mapped: Vec<String> = child_output_mapping.iter().filter_map(mapped).collect();
                let rest = match default_child {
                    Some(child) => format!("every other result leads to {child}"),
                    None if *require_output_mapping => "every other result leads nowhere".to_owned(),
                    None => "every other result leaves the choice to you".to_owned(),
                };
                format!("The result of {name} decides on the next call: {}; {rest}.", mapped.join(", "))
            }
            ToolRuleKind::MaxCountPerStep { max_count_limit } => {
                format!("{name} can be called {max_count_limit} times at most before you are done with a request.")
            }
            ToolRuleKind::ExitLoop => format!("A call of {name} ends your work on a request: make it the last."),
            ToolRuleKind::ContinueLoop => format!("After {name} it is your turn again: go on."),
            ToolRuleKind::RequiredBeforeExit => format!("{name} has to be called before you are done."),
            ToolRuleKind::RequiresApproval => format!("Calls of {name} run only after the user allowed them."),
        }
    }
}
