//! The API described by OpenAPI 3.1: made from the code, served at `/openapi.json`, shown at `/docs`, and committed as
//! `openapi.json`.
//!
//! To add an operation, add its route to [`crate::router`], its few lines to the list in [`operations`], and the shapes that
//! it takes and gives to [`requests`] and [`answers`]; then run `cargo run -- openapi > openapi.json`. What is forgotten
//! fails a test: routes and document are compared, and every answer and event of every end-to-end test is checked
//! against the document, as is everything that the fuzzer of `tests/it/openapi.rs` gets.
//!
//! Words, limits and forms of ids come from the types that read them. Paths that answer 404 by intent are not described.

mod answers;
mod operations;
pub(crate) mod page;
mod requests;
mod schema;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use self::schema::reference;

/// What the document says on top.
const ABOUT: &str = "\
Runs AI agents in the background and streams what they do; the Letta agents API.\n\n\
Every path is served with and without a trailing slash. In bodies, `null` is the same as a missing field, and unknown fields \
are ignored; in queries, an empty value is the same as a missing one. 422 says that a request has not the form that is \
described here, and names the field; 400 says that it has the form, but asks for what cannot be done.";

/// The tags, in the order of the page.
const TAGS: [(&str, &str); 8] = [
    ("messages", "Send to an agent, and read what was said"),
    ("conversations", "Threads of an agent, each with a context of its own"),
    ("runs", "Follow, resume and inspect what a send set off"),
    ("agents", "Agents"),
    ("blocks", "The memory of agents, and blocks that they share"),
    ("tools", "Tools, and which agent has which"),
    ("models", "Models"),
    ("health", "Whether the service lives"),
];

/// One method of one path.
struct Operation {
    path: &'static str,
    method: &'static str,
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    query: Vec<Value>,
    headers: Vec<Value>,
    body: Option<Body>,
    answers: BTreeMap<u16, Value>,
    /// Refusals beyond those that follow from path, query and body.
    refusals: Vec<u16>,
    is_open: bool,
}

/// A request's body.
struct Body {
    schema: Value,
    is_required: bool,
}

impl Operation {
    fn new(method: &'static str, path: &'static str, id: &'static str, summary: &'static str) -> Self {
        let tag = match path.split('/').nth(2).unwrap_or_default() {
            "health" | "ready" => "health",
            "conversations" => "conversations",
            "blocks" => "blocks",
            _ if path.contains("/core-memory") => "blocks",
            _ if path.contains("/messages") && path.starts_with("/v1/agents") => "messages",
            _ if path.contains("/tools") => "tools",
            "runs" | "steps" => "runs",
            "messages" => "messages",
            "models" => "models",
            _ => "agents",
        };
        Self {
            path,
            method,
            id,
            tag,
            summary,
            query: Vec::new(),
            headers: Vec::new(),
            body: None,
            answers: BTreeMap::new(),
            refusals: Vec::new(),
            is_open: false,
        }
    }

    /// An optional parameter of the query.
    fn query(mut self, name: &str, description: &str, schema: Value) -> Self {
        self.query.push(json!({"name": name, "in": "query", "description": description, "schema": schema}));
        self
    }

    /// A parameter of the query that must be there.
    fn needs(mut self, name: &str, description: &str, schema: Value) -> Self {
        let parameter =
            json!({"name": name, "in": "query", "required": true, "description": description, "schema": schema});
        self.query.push(parameter);
        self
    }

    /// An optional header.
    fn header(mut self, name: &str, description: &str, schema: Value) -> Self {
        self.headers.push(json!({"name": name, "in": "header", "description": description, "schema": schema}));
        self
    }

    /// A body that must be there.
    fn takes(mut self, schema: &str) -> Self {
        self.body = Some(Body { schema: reference(schema), is_required: true });
        self
    }

    /// A body that may be missing.
    fn may_take(mut self, schema: &str) -> Self {
        self.body = Some(Body { schema: reference(schema), is_required: false });
        self
    }

    /// What comes with 200.
    fn gives(self, description: &str, schema: Value) -> Self {
        self.gives_with(200, description, "application/json", json!({"schema": schema}))
    }

    /// What a stream gives with 200.
    fn streams(self) -> Self {
        let schema = json!({
            "type": "object",
            "description": "A frame: a line `data: EVENT` and an empty line; the last one is `data: [DONE]`. The error event \
                            has a line `event: error` before it.",
            "required": ["data"],
            "properties": {"data": {"type": "string"}, "event": {"type": "string"}},
        });
        let events = json!({"schema": schema, "x-itemSchema": reference(answers::EVENT)});
        self.gives_with(200, "The events of the run", "text/event-stream", events)
    }

    fn gives_with(mut self, status: u16, description: &str, media_type: &str, content: Value) -> Self {
        let answer = self.answers.entry(status).or_insert_with(|| json!({"description": description, "content": {}}));
        answer["content"][media_type] = content;
        self
    }

    fn refuses(mut self, statuses: &[u16]) -> Self {
        self.refusals.extend(statuses);
        self
    }

    /// Without a key.
    fn open(mut self) -> Self {
        self.is_open = true;
        self
    }

    /// The refusals that follow from what the operation takes, and its own.
    fn refusals(&self) -> Vec<u16> {
        let mut statuses = self.refusals.clone();
        if !self.is_open {
            statuses.extend([401, 500, 503]);
        }
        if self.path.contains('{') {
            statuses.push(404);
            statuses.push(if self.path.contains("{run_id}") { 400 } else { 422 });
        }
        if !self.query.is_empty() {
            statuses.push(422);
        }
        if self.query.iter().any(|parameter| parameter["name"] == "after") {
            statuses.push(404);
        }
        if self.body.is_some() {
            statuses.extend([413, 422]);
        }
        statuses.sort_unstable();
        statuses.dedup();
        statuses
    }

    fn object(&self) -> Value {
        let mut parameters: Vec<Value> = path_parameters(self.path).collect();
        parameters.extend(self.query.iter().chain(&self.headers).cloned());
        let mut responses: Map<String, Value> =
            self.answers.iter().map(|(status, answer)| (status.to_string(), answer.clone())).collect();
        for status in self.refusals() {
            let refusal = json!({"$ref": format!("#/components/responses/{status}")});
            responses.entry(status.to_string()).or_insert(refusal);
        }
        let mut object = json!({
            "operationId": self.id,
            "tags": [self.tag],
            "summary": self.summary,
            "parameters": parameters,
            "responses": responses,
        });
        if let Some(body) = &self.body {
            let content = json!({"application/json": {"schema": body.schema}});
            object["requestBody"] = json!({"required": body.is_required, "content": content});
        }
        if self.is_open {
            object["security"] = json!([]);
        }
        object
    }
}

fn path_parameters(path: &str) -> impl Iterator<Item = Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names.map(|name| json!({"name": name, "in": "path", "required": true, "schema": requests::path_parameter(name)}))
}

/// The document.
#[must_use]
pub fn document(version: &str) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations::all() {
        paths.entry(operation.path).or_insert_with(|| json!({}))[operation.method] = operation.object();
    }
    let mut schemas = answers::schemas();
    schemas.extend(requests::schemas());
    let tags = TAGS.iter().map(|(name, description)| json!({"name": name, "description": description}));
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Holdfast", "version": version, "description": ABOUT, "license": {"name": "Apache-2.0"}},
        "tags": tags.collect::<Vec<_>>(),
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": answers::refusals(),
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key of HOLDFAST_API_KEYS; none is needed where none is set.",
                },
            },
        },
    })
}

/// The document of this version as the committed file has it.
#[must_use]
pub fn text() -> String {
    let document = document(env!("CARGO_PKG_VERSION"));
    format!("{document:#}\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_component_is_used() {
        let document = document("1");
        let mut used = BTreeSet::new();
        references(&document, &mut used);
        for reference in &used {
            assert!(document.pointer(&reference[1..]).is_some(), "{reference} leads nowhere");
        }
        for kind in ["schemas", "responses"] {
            for name in document["components"][kind].as_object().expect("components").keys() {
                let reference = format!("#/components/{kind}/{name}");
                assert!(used.contains(&reference), "{reference} is not used");
            }
        }
    }

    #[test]
    fn operations_have_names_of_their_own_and_known_tags() {
        let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
        for operation in operations::all() {
            assert!(ids.insert(operation.id), "two operations are called {}", operation.id);
            assert!(places.insert((operation.path, operation.method)), "{} {} twice", operation.method, operation.path);
            assert!(TAGS.iter().any(|(tag, _)| *tag == operation.tag), "{} is not described", operation.tag);
            assert!(!operation.answers.is_empty(), "{} answers nothing", operation.id);
        }
    }
}
