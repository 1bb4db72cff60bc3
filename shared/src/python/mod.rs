//! What a Python tool's source says about the tool: read from the text, without executing any of it.

mod docstring;
mod hint;
mod literal;
mod source;

use serde_json::{Map, Value, json};

use crate::domain::limits::PYTHON_SOURCE_BYTES;
use crate::domain::tool::{NAME_CHARS, ToolSpec, is_name};
use docstring::Docs;
use hint::{Hint, Hints};
use source::{Parameter, Passing, Source};

/// Why a source, or a schema that came with it, cannot be used. Every text says what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeriveError {
    /// The source is longer than any tool should be.
    #[error("source_code has {bytes} bytes; a tool may have {PYTHON_SOURCE_BYTES}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It is no Python.
    #[error("source_code is not valid Python: look at line {line}")]
    Syntax {
        /// The first line that is wrong, from 1.
        line: usize,
    },
    /// There is nothing to call.
    #[error(
        "source_code defines no function at its top level: write the tool as one, for example `def get_weather(city: str) -> str:`"
    )]
    NoFunction,
    /// The function that is asked for is not there.
    #[error(
        "source_code defines no function '{function}' at its top level: define it, or name another one in json_schema"
    )]
    NotDefined {
        /// The function.
        function: String,
    },
    /// The function has no name for a tool.
    #[error("'{name}' is no name for a tool: use 1 to {NAME_CHARS} letters, digits, '_' or '-' of ASCII")]
    Name {
        /// The name.
        name: String,
    },
    /// Nothing says what the function does.
    #[error("function '{function}' has no docstring: say there what it does, for the model that is to call it")]
    NoDescription {
        /// The function.
        function: String,
    },
    /// Nothing says what an argument is.
    #[error(
        "argument '{argument}' of '{function}' is not described: add `{argument}: ...` under `Args:` in the docstring, or give json_schema"
    )]
    Undescribed {
        /// The function.
        function: String,
        /// The argument.
        argument: String,
    },
    /// Nothing says what kind of value an argument takes.
    #[error("argument '{argument}' of '{function}' has no type: add a hint, for example `{argument}: str`")]
    Untyped {
        /// The function.
        function: String,
        /// The argument.
        argument: String,
    },
    /// Models give arguments by name, and this one has none or does not take it.
    #[error(
        "argument '{argument}' of '{function}' cannot be given by name: replace `*args`, `**kwargs` and `/` by named arguments"
    )]
    Unnamed {
        /// The function.
        function: String,
        /// The argument.
        argument: String,
    },
    /// A schema that the client gave is none.
    #[error("json_schema: {problem}")]
    Schema {
        /// What is wrong with it.
        problem: String,
    },
}

/// What a model is told of a tool: the last function at the top level of a source, by its signature, hints and docstring.
///
/// # Errors
/// The source is no Python, has no function, or does not tell enough about it.
pub fn derive(text: &str) -> Result<ToolSpec, DeriveError> {
    let source = read(text)?;
    let function = source.functions().last().ok_or(DeriveError::NoFunction)?;
    let name = source.name(function).to_owned();
    if !is_name(&name) {
        return Err(DeriveError::Name { name });
    }
    let docs = Docs::read(&source.docstring(function).unwrap_or_default());
    if docs.description.is_empty() {
        return Err(DeriveError::NoDescription { function: name });
    }
    let hints = Hints::new(&source);
    let (mut properties, mut required) = (Map::new(), Vec::new());
    // Servers that have an agent's state hand it to an argument of this name; it is not the model's.
    for parameter in source.parameters(function).filter(|parameter| parameter.name != "agent_state") {
        let schema = property(&name, &parameter, &docs, &hints)?;
        if parameter.default.is_none() {
            required.push(Value::from(parameter.name.as_str()));
        }
        properties.insert(parameter.name, schema);
    }
    let mut parameters = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        parameters["required"] = Value::Array(required);
    }
    Ok(ToolSpec { name, description: docs.description, parameters })
}

/// Checks that a source is Python and defines a function at its top level.
///
/// # Errors
/// It is not, or does not.
pub fn check(text: &str, function: &str) -> Result<(), DeriveError> {
    let source = read(text)?;
    let is_there = source.functions().any(|found| source.name(found) == function);
    if is_there { Ok(()) } else { Err(DeriveError::NotDefined { function: function.to_owned() }) }
}

/// Takes a schema that a client gives in place of a derived one: `{name, description, parameters}`. It is used as it is.
///
/// # Errors
/// It has no usable name, or its parameters are no schema of an object.
pub fn given(schema: &Value) -> Result<ToolSpec, DeriveError> {
    let wrong = |problem: &str| DeriveError::Schema { problem: problem.to_owned() };
    let object =
        schema.as_object().ok_or_else(|| wrong("it must be an object with name, description and parameters"))?;
    let name = object.get("name").and_then(Value::as_str).ok_or_else(|| wrong("name must be a string"))?;
    if !is_name(name) {
        return Err(DeriveError::Name { name: name.to_owned() });
    }
    let description = match object.get("description") {
        None | Some(Value::Null) => "",
        Some(Value::String(text)) => text,
        Some(_) => return Err(wrong("description must be a string")),
    };
    let parameters = match object.get("parameters") {
        None | Some(Value::Null) => json!({"type": "object", "properties": {}}),
        Some(parameters) if parameters.get("type").and_then(Value::as_str) == Some("object") => parameters.clone(),
        Some(_) => return Err(wrong("parameters must be a JSON Schema with type \"object\"")),
    };
    Ok(ToolSpec { name: name.to_owned(), description: description.to_owned(), parameters })
}

fn read(text: &str) -> Result<Source<'_>, DeriveError> {
    if text.len() > PYTHON_SOURCE_BYTES {
        return Err(DeriveError::TooLong { bytes: text.len() });
    }
    Source::parse(text).map_err(|line| DeriveError::Syntax { line })
}

fn property(function: &str, parameter: &Parameter, docs: &Docs, hints: &Hints<'_>) -> Result<Value, DeriveError> {
    let (function, argument) = (function.to_owned(), parameter.name.clone());
    if parameter.passing == Passing::NotByName {
        return Err(DeriveError::Unnamed { function, argument });
    }
    let entry = docs.arguments.get(&parameter.name);
    let hint = match (&parameter.hint, entry.and_then(|entry| entry.kind.as_deref())) {
        (Some(hint), _) => hint.clone(),
        (None, Some(kind)) => Hint::parse(kind),
        (None, None) => return Err(DeriveError::Untyped { function, argument }),
    };
    let mut schema = hints.schema(&hint);
    let described = entry.map(|entry| entry.text.as_str()).filter(|text| !text.is_empty());
    match described.or_else(|| hint.description()) {
        Some(text) => schema.insert("description".to_owned(), text.into()),
        None => return Err(DeriveError::Undescribed { function, argument }),
    };
    if let Some(Some(default)) = &parameter.default {
        schema.insert("default".to_owned(), default.clone());
    }
    Ok(Value::Object(schema))
}

#[cfg(test)]
mod tests;
