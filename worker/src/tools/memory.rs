//! The tools that write memory blocks (api/05 §10): pure functions of the blocks and the call, run by the store inside
//! its transaction.

use holdfast_shared::domain::block::Block;
use holdfast_shared::domain::builtin_tools::{
    CORE_MEMORY_APPEND, CORE_MEMORY_REPLACE, MEMORY_INSERT, MEMORY_REPLACE, MEMORY_RETHINK,
};
use holdfast_shared::domain::limits::TOOL_RETURN_CHARS;
use holdfast_shared::domain::tool::{ToolCall, ToolReturn};
use holdfast_shared::ports::store::EditOutcome;

use super::{Arguments, ToolError, cut};

/// The arrow between a line's number and its text, as some prompts show blocks.
const NUMBER_ARROW: char = '→';

/// Whether this module knows the tool.
pub(super) fn is_memory_tool(name: &str) -> bool {
    edit_of(name).is_some()
}

/// Runs a memory tool. On success the block's new value is the result; on failure nothing changes.
#[must_use]
pub fn edit(blocks: &[Block], call: &ToolCall) -> EditOutcome {
    match new_value(blocks, call) {
        Ok((block, value)) => {
            let tool_return = ToolReturn::success(call, cut(value.clone(), TOOL_RETURN_CHARS));
            EditOutcome { change: Some((block.id, value)), tool_return }
        }
        Err(error) => EditOutcome { change: None, tool_return: error.into_return(call) },
    }
}

/// Makes a block's new value out of its present one.
type Edit = fn(&str, &Arguments) -> Result<String, ToolError>;

fn edit_of(name: &str) -> Option<Edit> {
    match name {
        MEMORY_INSERT => Some(insert),
        MEMORY_REPLACE => Some(replace_once),
        MEMORY_RETHINK => Some(rethink),
        CORE_MEMORY_APPEND => Some(append),
        CORE_MEMORY_REPLACE => Some(replace_all),
        _ => None,
    }
}

fn new_value<'a>(blocks: &'a [Block], call: &ToolCall) -> Result<(&'a Block, String), ToolError> {
    let edit = edit_of(&call.name).ok_or(ToolError::NotFound)?;
    let arguments = Arguments::read(call)?;
    let label = arguments.text("label")?;
    let block = blocks.iter().find(|block| block.label == label).ok_or_else(|| unknown_label(&label, blocks))?;
    if block.details.read_only {
        return Err(ToolError::value("This block is read-only and cannot be edited."));
    }
    let value = edit(&block.value, &arguments)?;
    block.check_value(&value).map_err(|error| ToolError::value(error.to_string()))?;
    Ok((block, value))
}

fn unknown_label(label: &str, blocks: &[Block]) -> ToolError {
    let labels: Vec<String> = blocks.iter().map(|block| format!("'{}'", block.label)).collect();
    let existing = if labels.is_empty() { "none".to_owned() } else { labels.join(", ") };
    ToolError::value(format!("There is no memory block '{label}'. Existing blocks: {existing}."))
}

/// An argument that is to stand in a block, or stands there.
fn passage(arguments: &Arguments, name: &str) -> Result<String, ToolError> {
    let text = arguments.text(name)?;
    if text.lines().any(has_line_number) {
        let advice = "leave the line numbers out, they are not part of the block";
        return Err(ToolError::value(format!(
            "{name} has lines that begin with a line number (`1{NUMBER_ARROW}`): {advice}."
        )));
    }
    Ok(text)
}

fn has_line_number(line: &str) -> bool {
    let line = line.trim_start();
    let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
    rest.len() < line.len() && rest.starts_with(NUMBER_ARROW)
}

/// A passage that is looked for; an empty one would be everywhere.
fn old_passage(arguments: &Arguments, name: &str) -> Result<String, ToolError> {
    match passage(arguments, name)? {
        text if text.is_empty() => Err(ToolError::value(format!("{name} must not be empty."))),
        text => Ok(text),
    }
}

fn insert(value: &str, arguments: &Arguments) -> Result<String, ToolError> {
    let new = passage(arguments, "new_string")?;
    let after = arguments.integer("insert_line")?.unwrap_or(-1);
    // An empty block has no line that the new text could stand below.
    let mut lines: Vec<&str> = if value.is_empty() { Vec::new() } else { value.split('\n').collect() };
    let count = lines.len();
    let place = match usize::try_from(after) {
        Ok(place) if place <= count => place,
        Err(_) if after == -1 => count,
        _ => {
            let range = format!("0 (the start) to {count} (the number of lines), or -1 (the end)");
            return Err(ToolError::value(format!("insert_line is {after}, but has to be one of {range}.")));
        }
    };
    lines.insert(place, &new);
    Ok(lines.join("\n"))
}

fn replace_once(value: &str, arguments: &Arguments) -> Result<String, ToolError> {
    let old = old_passage(arguments, "old_string")?;
    let new = passage(arguments, "new_string")?;
    let places: Vec<usize> = value.match_indices(&old).map(|(place, _)| place).collect();
    match places.as_slice() {
        [_] => Ok(value.replacen(&old, &new, 1)),
        [] => Err(not_there("old_string")),
        places => {
            let lines = places.iter().map(|place| line_at(value, *place).to_string()).collect::<Vec<_>>().join(", ");
            let count = places.len();
            let advice = "quote more of the text around it";
            Err(ToolError::value(format!("old_string occurs {count} times, in lines {lines}: {advice}.")))
        }
    }
}

/// The number of the line that a byte stands in, from 1.
fn line_at(value: &str, place: usize) -> usize {
    value.bytes().take(place).filter(|byte| *byte == b'\n').count() + 1
}

fn not_there(name: &str) -> ToolError {
    ToolError::value(format!("{name} does not occur in the block; it has to be quoted exactly."))
}

fn rethink(_: &str, arguments: &Arguments) -> Result<String, ToolError> {
    passage(arguments, "new_memory")
}

fn append(value: &str, arguments: &Arguments) -> Result<String, ToolError> {
    let content = passage(arguments, "content")?;
    Ok(if value.is_empty() { content } else { format!("{value}\n{content}") })
}

fn replace_all(value: &str, arguments: &Arguments) -> Result<String, ToolError> {
    let old = old_passage(arguments, "old_content")?;
    let new = passage(arguments, "new_content")?;
    if value.contains(&old) { Ok(value.replace(&old, &new)) } else { Err(not_there("old_content")) }
}

#[cfg(test)]
mod tests {
    use holdfast_shared::domain::tool::ToolStatus;
    use serde_json::{Value, json};

    use super::super::tests::{block, call};
    use super::*;

    /// Runs a tool on a block `human` of three lines; its result, or its error.
    fn run(name: &str, arguments: &Value) -> Result<String, String> {
        let mut read_only = block("persona", "fixed");
        read_only.details.read_only = true;
        let mut small = block("small", "1234567");
        small.details.limit = 8;
        let blocks = [block("human", "one\n\ttwo\none"), read_only, block("empty", ""), small];
        let outcome = edit(&blocks, &call(name, &arguments.to_string()));
        match (outcome.change, outcome.tool_return.status) {
            (Some((id, value)), ToolStatus::Success) => {
                let label = arguments["label"].as_str().expect("a label");
                assert_eq!(blocks.iter().find(|block| block.id == id).expect("a block").label, label);
                assert_eq!(outcome.tool_return.text, value);
                Ok(value)
            }
            (None, ToolStatus::Error) => Err(outcome.tool_return.text),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn edits_that_work() {
        for (name, arguments, expected) in [
            (MEMORY_INSERT, json!({"label": "human", "new_string": "new"}), "one\n\ttwo\none\nnew"),
            (
                MEMORY_INSERT,
                json!({"label": "human", "new_string": "new", "insert_line": null}),
                "one\n\ttwo\none\nnew",
            ),
            (MEMORY_INSERT, json!({"label": "human", "new_string": "new", "insert_line": -1}), "one\n\ttwo\none\nnew"),
            (MEMORY_INSERT, json!({"label": "human", "new_string": "new", "insert_line": 3}), "one\n\ttwo\none\nnew"),
            (MEMORY_INSERT, json!({"label": "human", "new_string": "new", "insert_line": 0}), "new\none\n\ttwo\none"),
            (
                MEMORY_INSERT,
                json!({"label": "human", "new_string": "a\nb", "insert_line": 1.0}),
                "one\na\nb\n\ttwo\none",
            ),
            (MEMORY_INSERT, json!({"label": "empty", "new_string": "new"}), "new"),
            (MEMORY_INSERT, json!({"label": "empty", "new_string": "nul\0", "request_heartbeat": true}), "nul"),
            (MEMORY_REPLACE, json!({"label": "human", "old_string": "\ttwo", "new_string": "2\t"}), "one\n2\t\none"),
            (MEMORY_REPLACE, json!({"label": "human", "old_string": "one\n\t", "new_string": ""}), "two\none"),
            (MEMORY_RETHINK, json!({"label": "human", "new_memory": ""}), ""),
            (MEMORY_RETHINK, json!({"label": "small", "new_memory": "ääääääää"}), "ääääääää"),
            (CORE_MEMORY_APPEND, json!({"label": "human", "content": "more"}), "one\n\ttwo\none\nmore"),
            (CORE_MEMORY_APPEND, json!({"label": "empty", "content": "more"}), "more"),
            (CORE_MEMORY_REPLACE, json!({"label": "human", "old_content": "one", "new_content": "1"}), "1\n\ttwo\n1"),
        ] {
            assert_eq!(run(name, &arguments).as_deref(), Ok(expected), "{name} {arguments}");
        }
    }

    #[test]
    fn edits_that_fail() {
        for (name, arguments, expected) in [
            (MEMORY_INSERT, json!({"label": "nope", "new_string": "x"}), "'human', 'persona', 'empty', 'small'"),
            (
                MEMORY_INSERT,
                json!({"label": "persona", "new_string": "x"}),
                "ValueError: This block is read-only and cannot be edited.",
            ),
            (
                MEMORY_INSERT,
                json!({"label": "human", "new_string": "x", "insert_line": 4}),
                "ValueError: insert_line is 4",
            ),
            (
                MEMORY_INSERT,
                json!({"label": "human", "new_string": "x", "insert_line": -2}),
                "ValueError: insert_line is -2",
            ),
            (
                MEMORY_INSERT,
                json!({"label": "human", "new_string": "x", "insert_line": "1"}),
                "TypeError: 'insert_line'",
            ),
            (
                MEMORY_INSERT,
                json!({"label": "human", "new_string": "x", "insert_line": 0.5}),
                "TypeError: 'insert_line'",
            ),
            (MEMORY_INSERT, json!({"label": "human", "new_string": "ok\n 12→ x"}), "ValueError: new_string has lines"),
            (MEMORY_INSERT, json!({"label": "human"}), "TypeError: missing a required argument: 'new_string'"),
            (MEMORY_INSERT, json!({"label": 7, "new_string": "x"}), "TypeError: 'label'"),
            (MEMORY_INSERT, json!({"label": "small", "new_string": "x"}), "9 characters, more than the limit of 8"),
            (
                MEMORY_REPLACE,
                json!({"label": "human", "old_string": "one", "new_string": "x"}),
                "2 times, in lines 1, 3",
            ),
            (MEMORY_REPLACE, json!({"label": "human", "old_string": "three", "new_string": "x"}), "does not occur"),
            (MEMORY_REPLACE, json!({"label": "human", "old_string": "", "new_string": "x"}), "must not be empty"),
            (
                MEMORY_REPLACE,
                json!({"label": "human", "old_string": "2→\ttwo", "new_string": "x"}),
                "old_string has lines",
            ),
            (MEMORY_RETHINK, json!({"label": "human", "new_memory": "1→ x"}), "new_memory has lines"),
            (MEMORY_RETHINK, json!({"label": "small", "new_memory": "123456789"}), "more than the limit"),
            (MEMORY_RETHINK, json!(["human"]), "TypeError: the arguments"),
            (
                CORE_MEMORY_REPLACE,
                json!({"label": "human", "old_content": "three", "new_content": "x"}),
                "does not occur",
            ),
            (CORE_MEMORY_APPEND, json!({"label": "persona", "content": "x"}), "read-only"),
        ] {
            let error = run(name, &arguments).expect_err("an error");
            assert!(error.contains(expected), "{name} {arguments}: {error}");
            assert!(error.starts_with(&format!("Error executing function {name}: ")), "{error}");
        }
    }

    #[test]
    fn line_numbers_are_known_from_numbers() {
        for (line, expected) in [("1→ x", true), ("  23→", true), ("→ x", false), ("x 1→", false), ("5 → 6", false)]
        {
            assert_eq!(has_line_number(line), expected, "{line}");
        }
    }
}
