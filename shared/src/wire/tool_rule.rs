//! Tool rules: their form in bodies. They are shown as the domain keeps them (api/05 §4).

use serde_json::{Map, Value};

use crate::domain::tool_rule::{ChildArgs, ToolRule, ToolRuleKind};
use crate::wire::read::{BodyError, Node};

/// The kinds of rules.
pub const TYPES: [&str; 9] = [
    "run_first",
    "constrain_child_tools",
    "parent_last_tool",
    "conditional",
    "max_count_per_step",
    "exit_loop",
    "continue_loop",
    "required_before_exit",
    "requires_approval",
];

/// Reads a rule.
///
/// # Errors
/// The form is wrong.
pub fn read(node: &Node<'_>) -> Result<ToolRule, BodyError> {
    node.object()?;
    let kind = match node.required("type")?.one_of(&TYPES)? {
        "run_first" => ToolRuleKind::RunFirst { args: read_args(node)? },
        "constrain_child_tools" => {
            let children = read_children(node)?;
            ToolRuleKind::ConstrainChildTools { child_arg_nodes: read_child_args(node, &children)?, children }
        }
        "parent_last_tool" => ToolRuleKind::ParentLastTool { children: read_children(node)? },
        "conditional" => ToolRuleKind::Conditional {
            child_output_mapping: read_mapping(node)?,
            default_child: node.optional_string("default_child")?,
            require_output_mapping: node.flag("require_output_mapping", false)?,
        },
        "max_count_per_step" => {
            let limit = node.required("max_count_limit")?.at_least(1)?;
            ToolRuleKind::MaxCountPerStep { max_count_limit: u32::try_from(limit).unwrap_or(u32::MAX) }
        }
        "exit_loop" => ToolRuleKind::ExitLoop,
        "continue_loop" => ToolRuleKind::ContinueLoop,
        "required_before_exit" => ToolRuleKind::RequiredBeforeExit,
        _ => ToolRuleKind::RequiresApproval,
    };
    Ok(ToolRule {
        tool_name: read_name(&node.required("tool_name")?)?,
        kind,
        prompt_template: node.optional_string("prompt_template")?,
    })
}

fn read_name(node: &Node<'_>) -> Result<String, BodyError> {
    match node.string()? {
        "" => Err(node.malformed("must not be empty")),
        name => Ok(name.to_owned()),
    }
}

fn read_children(node: &Node<'_>) -> Result<Vec<String>, BodyError> {
    node.required("children")?.items()?.iter().map(read_name).collect()
}

fn read_args(node: &Node<'_>) -> Result<Option<Map<String, Value>>, BodyError> {
    node.get("args").map(|args| args.object().cloned()).transpose()
}

fn read_child_args(node: &Node<'_>, children: &[String]) -> Result<Option<Vec<ChildArgs>>, BodyError> {
    let Some(list) = node.get("child_arg_nodes") else { return Ok(None) };
    let read = |item: &Node<'_>| {
        item.object()?;
        let child = item.required("name")?;
        let name = read_name(&child)?;
        if !children.contains(&name) {
            return Err(child.malformed("must be one of the rule's children"));
        }
        Ok(ChildArgs { name, args: read_args(item)? })
    };
    list.items()?.iter().map(read).collect::<Result<_, _>>().map(Some)
}

fn read_mapping(node: &Node<'_>) -> Result<Map<String, Value>, BodyError> {
    let mapping = node.required("child_output_mapping")?;
    let fields = mapping.fields()?;
    if fields.is_empty() {
        return Err(mapping.malformed("must not be empty"));
    }
    let read = |(output, child): (&str, Node<'_>)| Ok((output.to_owned(), Value::String(read_name(&child)?)));
    fields.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(rule: Value) -> Result<ToolRule, BodyError> {
        read(&Node::body(&rule)?)
    }

    #[test]
    fn every_kind_of_rule_is_shown_as_it_was_sent() {
        for rule in [
            json!({"type": "run_first", "tool_name": "a", "args": {"x": 1}}),
            json!({"type": "run_first", "tool_name": "a", "args": null}),
            json!({"type": "constrain_child_tools", "tool_name": "a", "children": ["b", "c"],
                "child_arg_nodes": [{"name": "b", "args": {"y": [2]}}]}),
            json!({"type": "parent_last_tool", "tool_name": "a", "children": ["b"]}),
            json!({"type": "conditional", "tool_name": "a", "child_output_mapping": {"yes": "b"},
                "default_child": "c", "require_output_mapping": true}),
            json!({"type": "max_count_per_step", "tool_name": "a", "max_count_limit": 3}),
            json!({"type": "exit_loop", "tool_name": "a"}),
            json!({"type": "continue_loop", "tool_name": "a"}),
            json!({"type": "required_before_exit", "tool_name": "a"}),
            json!({"type": "requires_approval", "tool_name": "a", "prompt_template": "x"}),
        ] {
            let read = parse(rule.clone()).expect("a rule");
            let shown = serde_json::to_value(&read).expect("JSON");
            for (name, value) in rule.as_object().expect("an object") {
                assert_eq!(&shown[name], value, "{name} of {rule}");
            }
            let stored: ToolRule = serde_json::from_value(shown).expect("what is stored can be read");
            assert_eq!(stored, read);
        }
    }

    #[test]
    fn what_is_wrong_with_a_rule_is_named_by_its_path() {
        let of = |kind: &str, own: Value| {
            let mut rule = json!({"type": kind, "tool_name": "a"});
            rule.as_object_mut().expect("an object").extend(own.as_object().cloned().unwrap_or_default());
            rule
        };
        for (rule, path) in [
            (json!({"tool_name": "a"}), "body.type: "),
            (json!({"type": "sometimes", "tool_name": "a"}), "body.type: "),
            (json!({"type": "exit_loop"}), "body.tool_name: "),
            (json!({"type": "exit_loop", "tool_name": ""}), "body.tool_name: "),
            (of("run_first", json!({"args": []})), "body.args: "),
            (of("constrain_child_tools", json!({})), "body.children: "),
            (of("constrain_child_tools", json!({"children": [1]})), "body.children[0]: "),
            (
                of("constrain_child_tools", json!({"children": ["b"], "child_arg_nodes": [{"name": "c"}]})),
                "body.child_arg_nodes[0].name: ",
            ),
            (of("parent_last_tool", json!({"children": "b"})), "body.children: "),
            (of("conditional", json!({})), "body.child_output_mapping: "),
            (of("conditional", json!({"child_output_mapping": {}})), "body.child_output_mapping: "),
            (of("conditional", json!({"child_output_mapping": {"x": null}})), "body.child_output_mapping.x: "),
            (
                of("conditional", json!({"child_output_mapping": {"x": "b"}, "require_output_mapping": "no"})),
                "body.require_output_mapping: ",
            ),
            (of("max_count_per_step", json!({})), "body.max_count_limit: "),
            (of("max_count_per_step", json!({"max_count_limit": 0})), "body.max_count_limit: "),
            (of("requires_approval", json!({"prompt_template": 1})), "body.prompt_template: "),
        ] {
            let error = parse(rule.clone()).expect_err("refused");
            assert!(matches!(error, BodyError::Malformed(_)) && error.to_string().starts_with(path), "{rule}: {error}");
        }
    }
}
