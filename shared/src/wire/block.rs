//! Memory blocks: new ones, changes, and the object (api/04 §3).

use serde_json::{Map, Value, json};

use crate::domain::Timestamp;
use crate::domain::block::{Block, BlockChange, BlockDetails, check_length};
use crate::domain::ids::BlockId;
use crate::domain::limits::{BLOCK_CHARS, BLOCK_LABEL_CHARS};
use crate::wire::read::{BodyError, Node};

/// Fields that are kept and shown as they were sent, without an effect here; each is a text.
const OTHER_TEXTS: [&str; 4] = ["base_template_id", "deployment_id", "entity_id", "template_id"];
/// The same, but true or false.
const PRESERVE_ON_MIGRATION: &str = "preserve_on_migration";

/// A block that is to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewBlock {
    /// Its name inside the agents that it will be attached to.
    pub label: String,
    /// The text.
    pub value: String,
    /// Everything else.
    pub details: BlockDetails,
}

impl NewBlock {
    /// Reads the body that makes a block.
    ///
    /// # Errors
    /// The form is wrong, or the value is longer than the limit.
    pub fn parse(body: &Value) -> Result<Self, BodyError> {
        Self::read(&Node::body(body)?)
    }

    fn read(node: &Node<'_>) -> Result<Self, BodyError> {
        node.object()?;
        let label = read_label(&node.required("label")?)?;
        let value = node.required("value")?;
        let limit = node.get("limit").map_or(Ok(BLOCK_CHARS), |limit| limit.at_least(1))?;
        check_length(&label, value.string()?, limit).map_err(|error| value.malformed(&error.to_string()))?;
        let description =
            node.optional_string("description")?.or_else(|| default_description(&label).map(str::to_owned));
        let details = BlockDetails {
            limit,
            description,
            read_only: node.flag("read_only", false)?,
            metadata: read_object(node, "metadata")?,
            tags: node.string_list("tags")?,
            hidden: read_boolean(node, "hidden")?,
            is_template: node.flag("is_template", false)?,
            template_name: node.optional_string("template_name")?,
            project_id: node.optional_string("project_id")?,
            other: read_other(node)?,
        };
        Ok(Self { label, value: value.string()?.to_owned(), details })
    }

    /// The block.
    #[must_use]
    pub fn block(self, id: BlockId, now: Timestamp) -> Block {
        let Self { label, value, details } = self;
        Block { id, label, value, details, created_at: now, updated_at: now }
    }
}

/// The blocks of a body that makes an agent.
///
/// # Errors
/// The form is wrong.
pub fn read_new(body: &Node<'_>) -> Result<Vec<NewBlock>, BodyError> {
    let Some(list) = body.get("memory_blocks") else { return Ok(Vec::new()) };
    let mut blocks: Vec<NewBlock> = Vec::new();
    for node in list.items()? {
        let block = NewBlock::read(&node)?;
        if blocks.iter().any(|earlier| earlier.label == block.label) {
            let label = node.required("label")?;
            return Err(label.malformed("is used by an earlier block: labels are unique in an agent"));
        }
        blocks.push(block);
    }
    Ok(blocks)
}

/// A body that changes a block.
///
/// # Errors
/// The form is wrong.
pub fn parse_change(body: &Value) -> Result<BlockChange, BodyError> {
    let body = Node::body(body)?;
    Ok(BlockChange {
        label: body.get("label").map(|label| read_label(&label)).transpose()?,
        value: body.optional_string("value")?,
        limit: body.get("limit").map(|limit| limit.at_least(1)).transpose()?,
        description: body.optional_string("description")?,
        read_only: read_boolean(&body, "read_only")?,
        metadata: read_object(&body, "metadata")?,
        tags: body.get("tags").map(|tags| tags.strings()).transpose()?,
        hidden: read_boolean(&body, "hidden")?,
        is_template: read_boolean(&body, "is_template")?,
        template_name: body.optional_string("template_name")?,
        project_id: body.optional_string("project_id")?,
        other: read_other(&body)?,
    })
}

fn read_other(node: &Node<'_>) -> Result<Map<String, Value>, BodyError> {
    let mut other = Map::new();
    for name in OTHER_TEXTS {
        if let Some(text) = node.optional_string(name)? {
            other.insert(name.to_owned(), Value::String(text));
        }
    }
    if let Some(preserve) = read_boolean(node, PRESERVE_ON_MIGRATION)? {
        other.insert(PRESERVE_ON_MIGRATION.to_owned(), Value::Bool(preserve));
    }
    Ok(other)
}

fn read_label(node: &Node<'_>) -> Result<String, BodyError> {
    match node.string()? {
        // The label becomes a tag in the prompt.
        "" => Err(node.malformed("must not be empty")),
        label if label.chars().count() > BLOCK_LABEL_CHARS => {
            Err(node.malformed(&format!("must have at most {BLOCK_LABEL_CHARS} characters")))
        }
        label => Ok(label.to_owned()),
    }
}

fn read_boolean(node: &Node<'_>, name: &str) -> Result<Option<bool>, BodyError> {
    node.get(name).map(|value| value.boolean()).transpose()
}

fn read_object(node: &Node<'_>, name: &str) -> Result<Option<Value>, BodyError> {
    node.get(name).map(|value| value.object().map(|_| value.value().clone())).transpose()
}

fn default_description(label: &str) -> Option<&'static str> {
    match label {
        "human" => {
            Some("What you know about the person you talk with: keep it correct and add what will matter later.")
        }
        "persona" => Some("Who you are: how you speak and behave, and what you have learnt about your own work."),
        _ => None,
    }
}

/// `Block`
#[must_use]
pub fn object(block: &Block) -> Value {
    let details = &block.details;
    let other = |name: &str| details.other.get(name).cloned();
    json!({
        "id": block.id,
        "label": block.label,
        "value": block.value,
        "limit": details.limit,
        "description": details.description,
        "read_only": details.read_only,
        "metadata": details.metadata.clone().unwrap_or_else(|| json!({})),
        "hidden": details.hidden,
        "is_template": details.is_template,
        "template_name": details.template_name,
        "template_id": other("template_id"),
        "base_template_id": other("base_template_id"),
        "deployment_id": other("deployment_id"),
        "entity_id": other("entity_id"),
        PRESERVE_ON_MIGRATION: other(PRESERVE_ON_MIGRATION).unwrap_or(Value::Bool(false)),
        "project_id": details.project_id,
        "created_by_id": null,
        "last_updated_by_id": null,
        "tags": details.tags,
    })
}

/// `Memory`, as an agent shows it and as it can be asked for alone.
#[must_use]
pub fn memory(agent_type: &str, blocks: &[Block]) -> Value {
    json!({
        "agent_type": agent_type,
        "blocks": blocks.iter().map(object).collect::<Vec<_>>(),
        "file_blocks": [],
        "prompt_template": "",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::block::BlockWriteError;

    fn block(label: &str, digit: char) -> Block {
        let id = format!("block-123e4567-e89b-42d3-8456-42661417400{digit}");
        let at = "2026-01-15T09:00:00Z".parse::<Timestamp>().expect("a time");
        Block {
            id: id.parse::<BlockId>().expect("an id"),
            label: label.to_owned(),
            value: "12345".to_owned(),
            details: BlockDetails {
                description: Some("d".to_owned()),
                read_only: true,
                tags: vec!["t".to_owned()],
                ..BlockDetails::new(8)
            },
            created_at: at,
            updated_at: at,
        }
    }

    fn change(body: Value) -> Result<Block, BlockWriteError> {
        let all = [block("one", '1'), block("two", '2')];
        let later = "2026-01-15T10:00:00Z".parse().expect("a time");
        parse_change(&body).expect("a valid body").apply(&all[0], &all, later)
    }

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let before = block("one", '1');
        let after = change(json!({"value": "123", "description": null})).expect("changed");
        assert_eq!((after.value.as_str(), &after.details), ("123", &before.details));
        assert!(after.updated_at > after.created_at);
        let after = change(json!({"label": "three", "limit": 5, "tags": [], "metadata": {"a": 1}, "read_only": false}));
        let after = after.expect("changed");
        assert_eq!((after.label.as_str(), after.details.limit, after.details.read_only), ("three", 5, false));
        assert_eq!((after.details.tags.len(), after.details.metadata), (0, Some(json!({"a": 1}))));
    }

    #[test]
    fn a_change_keeps_limit_and_labels() {
        let length = |result: Result<Block, BlockWriteError>| match result {
            Err(BlockWriteError::TooLong { length, limit, .. }) => (length, limit),
            other => panic!("{other:?}"),
        };
        assert_eq!(length(change(json!({"value": "123456789"}))), (9, 8));
        assert_eq!(length(change(json!({"limit": 4}))), (5, 4));
        assert!(change(json!({"value": "123456789", "limit": 9})).is_ok());
        assert_eq!(change(json!({"label": "two"})), Err(BlockWriteError::LabelTaken("two".to_owned())));
        assert!(change(json!({"label": "one"})).is_ok());
    }

    #[test]
    fn fields_without_effect_are_kept_and_shown() {
        let fields = json!({
            "is_template": true, "template_name": "t", "template_id": "t-1", "base_template_id": "b-1",
            "deployment_id": "d-1", "entity_id": "e-1", "preserve_on_migration": true, "project_id": "p-1",
            "hidden": true, "metadata": {"a": [1]}, "tags": ["x"],
        });
        let id = block("one", '1').id;
        let mut body = json!({"label": "human", "value": "v"});
        body.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        let made = NewBlock::parse(&body).expect("a valid body").block(id, Timestamp::UNIX_EPOCH);
        let changed = parse_change(&fields).expect("a valid body").apply(&block("one", '1'), &[], made.created_at);
        for block in [made, changed.expect("changed")] {
            let shown = object(&block);
            for (name, value) in fields.as_object().expect("an object") {
                assert_eq!(&shown[name], value, "{name}");
            }
            let kept = parse_change(&json!({})).expect("a valid body").apply(&block, &[], block.updated_at);
            assert_eq!(kept, Ok(block), "what is absent stays");
        }
    }

    #[test]
    fn a_new_block_needs_a_label_and_a_value_within_its_limit() {
        for (body, path) in [
            (json!({"value": "x"}), "body.label: "),
            (json!({"label": "", "value": "x"}), "body.label: "),
            (json!({"label": "x".repeat(257), "value": "x"}), "body.label: "),
            (json!({"label": "a"}), "body.value: "),
            (json!({"label": "a", "value": "xyz", "limit": 2}), "body.value: "),
            (json!({"label": "a", "value": "x", "template_id": 1}), "body.template_id: "),
            (json!({"label": "a", "value": "x", "preserve_on_migration": "no"}), "body.preserve_on_migration: "),
        ] {
            let error = NewBlock::parse(&body).expect_err("refused");
            assert!(error.to_string().starts_with(path), "{body}: {error}");
        }
    }

    #[test]
    fn refusals_name_the_field() {
        for (body, path) in [
            (json!({"label": ""}), "body.label: "),
            (json!({"value": 1}), "body.value: "),
            (json!({"limit": 0}), "body.limit: "),
            (json!({"read_only": "no"}), "body.read_only: "),
            (json!({"metadata": []}), "body.metadata: "),
            (json!({"tags": "x"}), "body.tags: "),
        ] {
            let error = parse_change(&body).expect_err("refused");
            assert!(error.to_string().starts_with(path), "{body}: {error}");
        }
    }
}
