//! Small words for JSON Schema.

use holdfast_shared::domain::ids::Id;
use serde_json::{Map, Value, json};

/// A component.
pub(super) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

pub(super) fn string() -> Value {
    json!({"type": "string"})
}

/// A text of at least one character. U+0000 is taken out of every text that comes in, and so counts for nothing.
pub(super) fn some_text() -> Value {
    json!({"type": "string", "minLength": 1, "pattern": "[^\\u0000]"})
}

pub(super) fn boolean() -> Value {
    json!({"type": "boolean"})
}

pub(super) fn whole() -> Value {
    json!({"type": "integer"})
}

/// A whole number that is not negative.
pub(super) fn count() -> Value {
    json!({"type": "integer", "minimum": 0})
}

pub(super) fn at_least(least: u64) -> Value {
    json!({"type": "integer", "minimum": least})
}

pub(super) fn time() -> Value {
    json!({"type": "string", "format": "date-time"})
}

/// Any object.
pub(super) fn map() -> Value {
    json!({"type": "object"})
}

pub(super) fn nothing() -> Value {
    json!({"type": "null"})
}

pub(super) fn list(items: Value) -> Value {
    json!({"type": "array", "items": items})
}

pub(super) fn some_of(items: Value) -> Value {
    json!({"type": "array", "items": items, "minItems": 1})
}

pub(super) fn word(word: &str) -> Value {
    json!({"type": "string", "enum": [word]})
}

pub(super) fn words<'a>(words: impl IntoIterator<Item = &'a str>) -> Value {
    json!({"type": "string", "enum": words.into_iter().collect::<Vec<_>>()})
}

pub(super) fn any_of<const N: usize>(schemas: [Value; N]) -> Value {
    json!({"anyOf": schemas.to_vec()})
}

/// An id: its prefix and a UUID of version 4.
pub(super) fn id<I: Id>() -> Value {
    json!({"type": "string", "pattern": id_pattern(I::PREFIX)})
}

fn id_pattern(prefix: &str) -> String {
    format!("^{prefix}-[0-9a-f]{{8}}-[0-9a-f]{{4}}-4[0-9a-f]{{3}}-[89ab][0-9a-f]{{3}}-[0-9a-f]{{12}}$")
}

/// The same or null.
pub(super) fn nullable(mut schema: Value) -> Value {
    let Some(kind) = schema.get("type").cloned() else {
        return if schema == json!({}) { schema } else { any_of([schema, nothing()]) };
    };
    if kind.is_string() {
        schema["type"] = json!([kind, "null"]);
        if let Some(words) = schema.get_mut("enum").and_then(Value::as_array_mut) {
            words.push(Value::Null);
        }
    }
    schema
}

/// An object of an answer: all its fields are always there.
pub(super) fn answer(fields: Value) -> Value {
    let names: Vec<&String> = fields.as_object().map(Map::keys).into_iter().flatten().collect();
    json!({"type": "object", "required": names, "properties": fields})
}

/// An object of a request: all fields that are not required may be null, which says nothing.
pub(super) fn request(required: &[&str], fields: Value) -> Value {
    let Value::Object(fields) = fields else { return map() };
    let fields: Map<String, Value> = fields
        .into_iter()
        .map(|(name, schema)| {
            let schema = if required.contains(&name.as_str()) { schema } else { nullable(schema) };
            (name, schema)
        })
        .collect();
    let mut schema = json!({"type": "object", "properties": fields});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// The fields of both objects in one.
pub(super) fn with(fields: Value, more: Value) -> Value {
    match (fields, more) {
        (Value::Object(mut fields), Value::Object(more)) => {
            fields.extend(more);
            Value::Object(fields)
        }
        (fields, _) => fields,
    }
}
