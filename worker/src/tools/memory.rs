//! The tools that write memory blocks (api/05 §10): pure functions of the blocks and the call, run by the store inside
//! its transaction.

use holdfast_shared::domain::Timestamp;
use holdfast_shared::domain::block::{Block, BlockDetails, check_length};
use holdfast_shared::domain::builtin_tools::{
    CORE_MEMORY_APPEND, CORE_MEMORY_REPLACE, MEMORY, MEMORY_APPLY_PATCH, MEMORY_INSERT, MEMORY_REPLACE, MEMORY_RETHINK,
};
use holdfast_shared::domain::ids::BlockId;
use holdfast_shared::domain::limits::{BLOCK_CHARS, BLOCK_LABEL_CHARS, TOOL_RETURN_CHARS};
use holdfast_shared::domain::tool::{ToolCall, ToolReturn};
use holdfast_shared::ports::store::EditOutcome;

use super::patch::{self, BlockPatch};
use super::{Arguments, ToolError, cut};

/// The arrow between a line's number and its text, as some prompts show blocks.
const NUMBER_ARROW: char = '→';

/// What a memory tool may need for a new block.
#[derive(Clone, Copy)]
pub struct Fresh<'a> {
    /// Now.
    pub now: Timestamp,
    /// Gives new ids.
    pub id: &'a (dyn Fn() -> BlockId + Send + Sync),
}

/// Whether this module knows the tool.
pub(super) fn is_memory_tool(name: &str) -> bool {
    edit_of(name).is_some() || matches!(name, MEMORY | MEMORY_APPLY_PATCH)
}

/// Runs a memory tool. On success the block's new value is the result; on failure nothing changes.
#[must_use]
pub fn edit(blocks: &[Block], call: &ToolCall, fresh: Fresh<'_>) -> EditOutcome {
    let mut edited = Edited { blocks: blocks.to_vec(), fresh };
    match edited.run(call) {
        Ok(text) => {
            let tool_return = ToolReturn::success(call, cut(text, TOOL_RETURN_CHARS));
            EditOutcome { blocks: Some(edited.blocks), tool_return }
        }
        Err(error) => EditOutcome { blocks: None, tool_return: error.into_return(call) },
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

/// The blocks while a call changes them.
struct Edited<'a> {
    blocks: Vec<Block>,
    fresh: Fresh<'a>,
}

impl Edited<'_> {
    /// What the model is told.
    fn run(&mut self, call: &ToolCall) -> Result<String, ToolError> {
        let arguments = Arguments::read(call)?;
        match call.name.as_str() {
            MEMORY => self.command(&arguments),
            MEMORY_APPLY_PATCH => self.patch(&arguments.text("label")?, &passage(&arguments, "patch")?),
            name => {
                let edit = edit_of(name).ok_or(ToolError::NotFound)?;
                self.change(&arguments.text("label")?, |value| edit(value, &arguments))
            }
        }
    }

    /// The blocks as files under `/memories`.
    fn command(&mut self, arguments: &Arguments) -> Result<String, ToolError> {
        let label = |name: &str| arguments.text(name).and_then(|path| label_of(&path));
        match arguments.text("command")?.as_str() {
            "create" => {
                let value = arguments.optional_text("file_text")?.unwrap_or_default();
                self.add(label("path")?, value, arguments.optional_text("description")?)
            }
            "str_replace" => self.change(&label("path")?, |value| replace_once(value, arguments)),
            "insert" => self.change(&label("path")?, |value| {
                insert_after(value, &passage(arguments, "insert_text")?, arguments.integer("insert_line")?)
            }),
            "delete" => self.delete(&label("path")?),
            "rename" if arguments.get("old_path").is_none() && arguments.get("new_path").is_none() => {
                let label = label("path")?;
                let description = arguments.text("description")?;
                self.find(&label)?.details.description = Some(description);
                Ok(format!("The block '{label}' has its new description."))
            }
            "rename" => self.rename(&label("old_path")?, &label("new_path")?),
            other => Err(ToolError::value(format!(
                "command is '{other}', but has to be create, str_replace, insert, delete or rename."
            ))),
        }
    }

    fn patch(&mut self, label: &str, text: &str) -> Result<String, ToolError> {
        let mut told = String::new();
        for patch in patch::read(label, text)? {
            told = match patch {
                BlockPatch::Add { label, value } => self.add(checked_label(&label)?, value, None)?,
                BlockPatch::Delete { label } => self.delete(&label)?,
                BlockPatch::Update { label, new_label, hunks } => {
                    let value = self.change(&label, |value| patch::apply(value, &hunks))?;
                    match new_label {
                        Some(new_label) => self.rename(&label, &checked_label(&new_label)?)?,
                        None => value,
                    }
                }
            };
        }
        Ok(told)
    }

    /// The block, for a change.
    fn find(&mut self, label: &str) -> Result<&mut Block, ToolError> {
        let unknown = unknown_label(label, &self.blocks);
        let block = self.blocks.iter_mut().find(|block| block.label == label).ok_or(unknown)?;
        if block.details.read_only {
            return Err(ToolError::value("This block is read-only and cannot be edited."));
        }
        block.updated_at = self.fresh.now;
        Ok(block)
    }

    fn change(
        &mut self,
        label: &str,
        edit: impl FnOnce(&str) -> Result<String, ToolError>,
    ) -> Result<String, ToolError> {
        let block = self.find(label)?;
        let value = edit(&block.value)?;
        block.check_value(&value).map_err(|error| ToolError::value(error.to_string()))?;
        block.value.clone_from(&value);
        Ok(value)
    }

    fn add(&mut self, label: String, value: String, description: Option<String>) -> Result<String, ToolError> {
        self.check_free(&label)?;
        check_length(&label, &value, BLOCK_CHARS).map_err(|error| ToolError::value(error.to_string()))?;
        let details = BlockDetails { description, ..BlockDetails::new(BLOCK_CHARS) };
        let Fresh { now, id } = self.fresh;
        let block = Block { id: id(), label, value: value.clone(), details, created_at: now, updated_at: now };
        self.blocks.push(block);
        Ok(value)
    }

    fn delete(&mut self, label: &str) -> Result<String, ToolError> {
        let id = self.find(label)?.id;
        self.blocks.retain(|block| block.id != id);
        Ok(format!("The block '{label}' is gone."))
    }

    fn rename(&mut self, label: &str, new_label: &str) -> Result<String, ToolError> {
        self.find(label)?;
        self.check_free(new_label)?;
        self.find(label)?.label = new_label.to_owned();
        Ok(format!("The block '{label}' is now '{new_label}'."))
    }

    fn check_free(&self, label: &str) -> Result<(), ToolError> {
        if self.blocks.iter().any(|block| block.label == label) {
            return Err(ToolError::value(format!("There is a memory block '{label}' already.")));
        }
        Ok(())
    }
}

/// The label in a path `/memories/LABEL`.
fn label_of(path: &str) -> Result<String, ToolError> {
    let trimmed = path.trim();
    checked_label(trimmed.strip_prefix("/memories/").unwrap_or(trimmed))
}

/// A label becomes a tag in the prompt.
fn checked_label(label: &str) -> Result<String, ToolError> {
    let is_plain = |c: char| c.is_alphanumeric() || "_-./".contains(c);
    if label.is_empty() || !label.chars().all(is_plain) {
        return Err(ToolError::value(format!(
            "'{label}' cannot be a label: give letters, digits, '_', '-', '.' or '/', as in /memories/plans."
        )));
    }
    if label.chars().count() > BLOCK_LABEL_CHARS {
        return Err(ToolError::value(format!("A label has at most {BLOCK_LABEL_CHARS} characters.")));
    }
    Ok(label.to_owned())
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
    insert_after(value, &passage(arguments, "new_string")?, arguments.integer("insert_line")?)
}

fn insert_after(value: &str, new: &str, line: Option<i64>) -> Result<String, ToolError> {
    let after = line.unwrap_or(-1);
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
    lines.insert(place, new);
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
        let outcome = edit(&blocks, &call(name, &arguments.to_string()), fresh());
        match (outcome.blocks, outcome.tool_return.status) {
            (Some(after), ToolStatus::Success) => {
                let label = arguments["label"].as_str().expect("a label");
                for (before, after) in blocks.iter().zip(&after) {
                    assert!(before == after || after.label == label && after.value == outcome.tool_return.text);
                }
                Ok(outcome.tool_return.text)
            }
            (None, ToolStatus::Error) => Err(outcome.tool_return.text),
            other => panic!("{other:?}"),
        }
    }

    fn fresh() -> Fresh<'static> {
        Fresh { now: super::super::tests::time("2026-03-02T00:00:00Z"), id: &super::super::tests::new_id }
    }

    /// Labels and values after calls of the tools that handle several blocks, or the error of the last.
    fn after(calls: &[(&str, Value)]) -> Result<Vec<(String, String)>, String> {
        let mut read_only = block("persona", "fixed");
        read_only.details.read_only = true;
        let mut blocks = vec![block("human", "one\ntwo"), read_only];
        for (name, arguments) in calls {
            let outcome = edit(&blocks, &call(name, &arguments.to_string()), fresh());
            blocks = outcome.blocks.ok_or(outcome.tool_return.text)?;
        }
        Ok(blocks.into_iter().map(|block| (block.label, block.value)).collect())
    }

    #[test]
    fn blocks_are_made_renamed_and_deleted_as_files() {
        let file = |command: &str, more: Value| {
            let mut arguments = json!({"command": command});
            arguments.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            (MEMORY, arguments)
        };
        let human = "/memories/human";
        for (calls, expected) in [
            (vec![file("create", json!({"path": "/memories/plans", "file_text": "a"}))], "human persona plans"),
            (vec![file("rename", json!({"old_path": human, "new_path": "/memories/person"}))], "person persona"),
            (vec![file("delete", json!({"path": human}))], "persona"),
            (
                vec![
                    file("str_replace", json!({"path": human, "old_string": "one", "new_string": "1"})),
                    file("insert", json!({"path": human, "insert_line": 1, "insert_text": "1.5"})),
                    file("rename", json!({"path": human, "description": "Whom I know."})),
                ],
                "human persona",
            ),
            (
                vec![(
                    MEMORY_APPLY_PATCH,
                    json!({"label": "", "patch": "*** Update Block: human\n-one\n+1\n*** Add Block: new\n+x"}),
                )],
                "human persona new",
            ),
            (vec![(MEMORY_APPLY_PATCH, json!({"label": "human", "patch": " one\n+1.5"}))], "human persona"),
        ] {
            let blocks = after(&calls).expect("edited");
            let labels: Vec<&str> = blocks.iter().map(|(label, _)| label.as_str()).collect();
            assert_eq!(labels.join(" "), expected, "{calls:?}");
            let values: Vec<&str> = blocks.iter().map(|(_, value)| value.as_str()).collect();
            match (expected, calls.len()) {
                ("human persona", 3) => assert_eq!(values[0], "1\n1.5\ntwo"),
                ("human persona", 1) => assert_eq!(values[0], "one\n1.5\ntwo"),
                ("human persona new", _) => assert_eq!(values, ["1\ntwo", "fixed", "x"]),
                _ => {}
            }
        }
        for (calls, expected) in [
            (vec![file("create", json!({"path": human}))], "already"),
            (vec![file("create", json!({"path": "/memories/a b"}))], "cannot be a label"),
            (vec![file("delete", json!({"path": "/memories/persona"}))], "read-only"),
            (vec![file("rename", json!({"old_path": "/memories/x", "new_path": "/memories/y"}))], "no memory block"),
            (vec![file("rename", json!({"old_path": human, "new_path": "/memories/persona"}))], "already"),
            (vec![file("fold", json!({"path": human}))], "has to be create"),
            (
                vec![(
                    MEMORY_APPLY_PATCH,
                    json!({"label": "", "patch": "*** Add Block: new\n+x\n*** Delete Block: persona"}),
                )],
                "read-only",
            ),
        ] {
            let error = after(&calls).expect_err("refused");
            assert!(error.contains(expected), "{calls:?}: {error}");
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
