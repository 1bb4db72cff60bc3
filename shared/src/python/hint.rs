//! Type hints, and the JSON Schemas that they stand for.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tree_sitter::Node;

use super::docstring::Docs;
use super::literal;
use super::source::{Parameter, Passing, Source, children};

/// Hints inside one another; what is deeper can be anything.
const DEEPEST: usize = 48;
/// Schemas that one tool's hints may stand for. Names that stand for each other could stand for any number.
const MOST_SCHEMAS: usize = 2000;

/// A type hint.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Hint {
    /// A name, without the module that it is from.
    Name(String),
    /// A name with arguments.
    Generic(String, Vec<Hint>),
    /// One of several.
    Union(Vec<Hint>),
    /// A literal, which has a meaning only as an argument.
    Literal(Value),
    /// A type with a description (`Annotated`).
    Described(Box<Hint>, String),
    /// What is not understood.
    Unknown,
}

impl Hint {
    /// Reads a hint in a source.
    pub(super) fn read(source: &Source<'_>, node: Node<'_>) -> Self {
        Self::read_at(source, node, DEEPEST)
    }

    /// Reads a hint that stands in a text: in quotes, or in a docstring.
    pub(super) fn parse(text: &str) -> Self {
        Self::parse_at(text, DEEPEST)
    }

    /// The description that the hint itself has.
    pub(super) fn description(&self) -> Option<&str> {
        match self {
            Self::Described(_, text) => Some(text),
            _ => None,
        }
    }

    fn parse_at(text: &str, depth: usize) -> Self {
        let text = text.trim();
        // In docstrings types are also described in words; those are not types.
        let Ok(source) = Source::parse(text) else { return Self::Unknown };
        let expression = source.statements().next().filter(|node| node.kind() == "expression_statement");
        match expression.and_then(|node| node.named_child(0)) {
            Some(node) => Self::read_at(&source, node, depth),
            None => Self::Unknown,
        }
    }

    fn read_at(source: &Source<'_>, node: Node<'_>, depth: usize) -> Self {
        let Some(depth) = depth.checked_sub(1) else { return Self::Unknown };
        let read = |node: Node<'_>| Self::read_at(source, node, depth);
        let arguments = |nodes: Vec<Node<'_>>| nodes.into_iter().map(read).collect::<Vec<_>>();
        match node.kind() {
            "type" | "parenthesized_expression" => node.named_child(0).map_or(Self::Unknown, read),
            "identifier" => Self::Name(source.text(node).to_owned()),
            "attribute" => node.child_by_field_name("attribute").map_or(Self::Unknown, read),
            "member_type" => children(node).last().copied().map_or(Self::Unknown, read),
            "none" => Self::Name("None".to_owned()),
            "ellipsis" => Self::Name("...".to_owned()),
            "string" | "concatenated_string" => literal::value(source, node).map_or(Self::Unknown, Self::Literal),
            "integer" | "float" | "true" | "false" | "unary_operator" => {
                literal::value(source, node).map_or(Self::Unknown, Self::Literal)
            }
            "union_type" => Self::either(arguments(children(node))),
            "binary_operator" if is_union(source, node) => Self::either(arguments(children(node))),
            "generic_type" => {
                let parts = children(node);
                let given =
                    parts.iter().filter(|part| part.kind() == "type_parameter").flat_map(|part| children(*part));
                Self::generic(parts.first().map(|name| read(*name)), arguments(given.collect()))
            }
            "subscript" => {
                let mut cursor = node.walk();
                let given = node.children_by_field_name("subscript", &mut cursor).collect::<Vec<_>>();
                Self::generic(node.child_by_field_name("value").map(read), arguments(given))
            }
            // `Field(description="…")` inside `Annotated`
            "call" => Self::described_by(source, node)
                .map_or(Self::Unknown, |text| Self::Described(Box::new(Self::Unknown), text)),
            _ => Self::Unknown,
        }
    }

    /// One of several, each of which may be one of several.
    fn either(options: Vec<Self>) -> Self {
        let flat = options.into_iter().flat_map(|option| match option {
            Self::Union(inner) => inner,
            other => vec![other],
        });
        Self::Union(flat.collect())
    }

    fn generic(name: Option<Self>, mut arguments: Vec<Self>) -> Self {
        let Some(Self::Name(name)) = name else { return Self::Unknown };
        match name.as_str() {
            "Optional" => Self::either(arguments.into_iter().chain([Self::Name("None".to_owned())]).collect()),
            "Union" => Self::either(arguments),
            "Annotated" if !arguments.is_empty() => {
                let kind = arguments.remove(0);
                let described = arguments.into_iter().find_map(|argument| match argument {
                    Self::Literal(Value::String(text)) | Self::Described(_, text) => Some(text),
                    _ => None,
                });
                match described {
                    Some(text) => Self::Described(Box::new(kind), text),
                    None => kind,
                }
            }
            _ => Self::Generic(name, arguments),
        }
    }

    fn described_by(source: &Source<'_>, call: Node<'_>) -> Option<String> {
        keyword(source, call, "description").and_then(|value| literal::text(source, value))
    }
}

/// `a | b`
fn is_union(source: &Source<'_>, node: Node<'_>) -> bool {
    node.child_by_field_name("operator").is_some_and(|operator| source.text(operator) == "|")
}

/// The value of a keyword argument of a call, or of a class statement.
fn keyword<'tree>(source: &Source<'_>, call: Node<'tree>, name: &str) -> Option<Node<'tree>> {
    let arguments = call.child_by_field_name("arguments").or_else(|| call.child_by_field_name("superclasses"))?;
    let is_named = |argument: &Node<'_>| {
        argument.kind() == "keyword_argument"
            && argument.child_by_field_name("name").is_some_and(|found| source.text(found) == name)
    };
    children(arguments).into_iter().find(is_named)?.child_by_field_name("value")
}

/// What hints mean in one source: its own classes and its names for types count too.
pub(super) struct Hints<'a> {
    classes: BTreeMap<&'a str, Class>,
    aliases: BTreeMap<&'a str, Hint>,
    /// Schemas that may still be made.
    left: Cell<usize>,
    /// Names whose schema is being made: one that stands in itself is just an object there.
    open: RefCell<Vec<String>>,
}

/// A class of the source, as far as a schema tells of it.
#[derive(Debug, Default)]
struct Class {
    /// Names of the classes that it is made from.
    bases: Vec<String>,
    /// Its own fields.
    fields: Vec<Field>,
    /// Values of an enumeration.
    values: Vec<Value>,
}

#[derive(Debug)]
struct Field {
    parameter: Parameter,
    description: Option<String>,
}

impl<'a> Hints<'a> {
    /// Looks for classes and names in a source.
    pub(super) fn new(source: &'a Source<'a>) -> Self {
        let (mut classes, mut aliases) = (BTreeMap::new(), BTreeMap::new());
        for statement in source.statements() {
            match statement.kind() {
                "class_definition" => {
                    classes.insert(source.name(statement), Class::read(source, statement));
                }
                "expression_statement" | "type_alias_statement" => {
                    let assigned = statement.named_child(0).filter(|node| node.kind() == "assignment");
                    let assigned = assigned.unwrap_or(statement);
                    let side = |name| assigned.child_by_field_name(name);
                    if let (Some(name), Some(hint)) = (side("left"), side("right")) {
                        aliases.insert(source.text(name), Hint::read(source, hint));
                    }
                }
                _ => {}
            }
        }
        Self { classes, aliases, left: Cell::new(MOST_SCHEMAS), open: RefCell::default() }
    }

    /// The schema of a hint.
    pub(super) fn schema(&self, hint: &Hint) -> Map<String, Value> {
        self.schema_at(hint, DEEPEST)
    }

    fn schema_at(&self, hint: &Hint, depth: usize) -> Map<String, Value> {
        let left = self.left.get().checked_sub(1);
        let (Some(depth), Some(left)) = (depth.checked_sub(1), left) else { return Map::new() };
        self.left.set(left);
        match hint {
            Hint::Described(hint, text) => {
                let mut schema = self.schema_at(hint, depth);
                schema.insert("description".to_owned(), text.as_str().into());
                schema
            }
            Hint::Union(options) => self.union(options, depth),
            Hint::Generic(name, arguments) => self.generic(name, arguments, depth),
            Hint::Name(name) => self.named(name, depth),
            // A name in quotes, because it is defined further down.
            Hint::Literal(Value::String(text)) => self.schema_at(&Hint::parse_at(text, depth), depth),
            Hint::Literal(_) => Map::new(),
            Hint::Unknown => object([("type", json!("object"))]),
        }
    }

    fn union(&self, options: &[Hint], depth: usize) -> Map<String, Value> {
        let mut schemas: Vec<Value> = Vec::new();
        for option in options {
            let schema = Value::Object(self.schema_at(option, depth));
            if !schemas.contains(&schema) {
                schemas.push(schema);
            }
        }
        match schemas.as_mut_slice() {
            [Value::Object(only)] => std::mem::take(only),
            // Something that may be anything may be anything.
            schemas if schemas.iter().any(|schema| *schema == json!({})) => Map::new(),
            _ => object([("anyOf", Value::Array(schemas))]),
        }
    }

    fn named(&self, name: &str, depth: usize) -> Map<String, Value> {
        let kind = match name {
            "str" | "bytes" | "LiteralString" => "string",
            "int" => "integer",
            "float" | "Decimal" => "number",
            "bool" => "boolean",
            "None" | "NoneType" => "null",
            "Any" | "object" => return Map::new(),
            _ => return self.defined(name, depth),
        };
        object([("type", json!(kind))])
    }

    /// A name that the source may define.
    fn defined(&self, name: &str, depth: usize) -> Map<String, Value> {
        if self.open.borrow().iter().any(|open| open == name) {
            return object([("type", json!("object"))]);
        }
        self.open.borrow_mut().push(name.to_owned());
        let schema = match (self.classes.contains_key(name), self.aliases.get(name)) {
            (true, _) => self.class(name, depth),
            (false, Some(hint)) => self.schema_at(hint, depth),
            (false, None) => self.generic(name, &[], depth),
        };
        self.open.borrow_mut().pop();
        schema
    }

    fn generic(&self, name: &str, arguments: &[Hint], depth: usize) -> Map<String, Value> {
        let schema =
            |hint: Option<&Hint>| Value::Object(hint.map(|hint| self.schema_at(hint, depth)).unwrap_or_default());
        match name {
            "list" | "List" | "Sequence" | "MutableSequence" | "Iterable" | "Iterator" | "Collection" | "Container"
            | "deque" => object([("type", json!("array")), ("items", schema(arguments.first()))]),
            "set" | "Set" | "frozenset" | "FrozenSet" | "AbstractSet" | "MutableSet" => {
                object([("type", json!("array")), ("items", schema(arguments.first())), ("uniqueItems", json!(true))])
            }
            "tuple" | "Tuple" => self.tuple(arguments, depth),
            "dict" | "Dict" | "Mapping" | "MutableMapping" | "OrderedDict" | "defaultdict" | "DefaultDict" => {
                match arguments.get(1) {
                    Some(values) => object([("type", json!("object")), ("additionalProperties", schema(Some(values)))]),
                    None => object([("type", json!("object"))]),
                }
            }
            "Literal" => literals(arguments.iter().filter_map(|argument| match argument {
                Hint::Literal(value) => Some(value.clone()),
                Hint::Name(name) if name == "None" => Some(Value::Null),
                _ => None,
            })),
            "Required" | "NotRequired" | "ReadOnly" | "Final" => match arguments.first() {
                Some(hint) => self.schema_at(hint, depth),
                None => Map::new(),
            },
            _ => object([("type", json!("object"))]),
        }
    }

    /// Providers do not agree on how to say a tuple; an array of a length with one schema for all is understood by all.
    fn tuple(&self, arguments: &[Hint], depth: usize) -> Map<String, Value> {
        let is_open = arguments.is_empty() || arguments.iter().any(|hint| *hint == Hint::Name("...".to_owned()));
        let kinds = arguments.iter().filter(|hint| **hint != Hint::Name("...".to_owned())).cloned().collect::<Vec<_>>();
        let items = if kinds.is_empty() { Map::new() } else { self.union(&kinds, depth) };
        let mut schema = object([("type", json!("array")), ("items", Value::Object(items))]);
        if !is_open {
            schema.insert("minItems".to_owned(), json!(kinds.len()));
            schema.insert("maxItems".to_owned(), json!(kinds.len()));
        }
        schema
    }

    /// A model, typed dictionary, data class or enumeration of the source.
    fn class(&self, name: &str, depth: usize) -> Map<String, Value> {
        let mut fields = Vec::new();
        let mut values = Vec::new();
        self.collect(name, DEEPEST, &mut fields, &mut values);
        if !values.is_empty() {
            return literals(values.into_iter());
        }
        let (mut properties, mut required) = (Map::new(), Vec::new());
        for field in fields {
            let Parameter { name, hint, default, .. } = &field.parameter;
            let mut schema = hint.as_ref().map(|hint| self.schema_at(hint, depth)).unwrap_or_default();
            if let Some(text) = &field.description {
                schema.insert("description".to_owned(), text.as_str().into());
            }
            match default {
                None => required.push(Value::from(name.as_str())),
                Some(Some(value)) => drop(schema.insert("default".to_owned(), value.clone())),
                Some(None) => {}
            }
            properties.insert(name.clone(), Value::Object(schema));
        }
        let mut schema = object([("type", json!("object"))]);
        if !properties.is_empty() {
            schema.insert("properties".to_owned(), Value::Object(properties));
        }
        if !required.is_empty() {
            schema.insert("required".to_owned(), Value::Array(required));
        }
        schema
    }

    /// The fields of a class and of those that it is made from, theirs first.
    fn collect<'s>(&'s self, name: &str, depth: usize, fields: &mut Vec<&'s Field>, values: &mut Vec<Value>) {
        let (Some(class), Some(depth)) = (self.classes.get(name), depth.checked_sub(1)) else { return };
        for base in &class.bases {
            self.collect(base, depth, fields, values);
        }
        for field in &class.fields {
            fields.retain(|known| known.parameter.name != field.parameter.name);
            fields.push(field);
        }
        values.extend(class.values.iter().cloned());
    }
}

impl Class {
    fn read(source: &Source<'_>, class: Node<'_>) -> Self {
        let bases = class.child_by_field_name("superclasses").map(children).unwrap_or_default();
        let bases: Vec<String> = bases
            .into_iter()
            .filter_map(|base| match Hint::read(source, base) {
                Hint::Name(name) => Some(name),
                _ => None,
            })
            .collect();
        let is_enum = bases.iter().any(|base| base.ends_with("Enum"));
        let is_partial = keyword(source, class, "total").is_some_and(|total| source.text(total) == "False");
        let docs = Docs::read(&source.docstring(class).unwrap_or_default());
        let mut read = Self { bases, ..Self::default() };
        for statement in class.child_by_field_name("body").map(children).unwrap_or_default() {
            let assigned = statement.named_child(0).filter(|node| node.kind() == "assignment");
            let Some(assigned) = assigned else { continue };
            let side = |name| assigned.child_by_field_name(name);
            let name = side("left").map_or("", |name| source.text(name));
            match (side("type"), side("right")) {
                (None, Some(value)) if is_enum => read.values.extend(literal::value(source, value)),
                (Some(hint), value) if !name.starts_with('_') => {
                    let documented = docs.arguments.get(name).map(|entry| entry.text.clone());
                    read.fields.extend(Field::read(
                        source,
                        name,
                        Hint::read(source, hint),
                        value,
                        is_partial,
                        documented,
                    ));
                }
                _ => {}
            }
        }
        read
    }
}

impl Field {
    fn read(
        source: &Source<'_>,
        name: &str,
        hint: Hint,
        value: Option<Node<'_>>,
        is_partial: bool,
        documented: Option<String>,
    ) -> Option<Self> {
        let can_miss = match &hint {
            Hint::Generic(name, _) if name == "ClassVar" => return None,
            Hint::Generic(name, _) => name == "NotRequired" || (is_partial && name != "Required"),
            _ => is_partial,
        };
        let call = value.filter(|value| value.kind() == "call");
        let default = match (call, value) {
            (Some(call), _) => default_of(source, call),
            (None, Some(value)) => Some(literal::value(source, value)),
            (None, None) => None,
        };
        let description = call.and_then(|call| Hint::described_by(source, call));
        Some(Self {
            parameter: Parameter {
                name: name.to_owned(),
                hint: Some(hint),
                default: default.or(can_miss.then_some(None)),
                passing: Passing::ByName,
            },
            description: description.or(documented).filter(|text| !text.is_empty()),
        })
    }
}

/// The default that `Field(…)` or `field(…)` gives: by position, unless it is `...`, or by name. Any other call makes one.
fn default_of(source: &Source<'_>, call: Node<'_>) -> Option<Option<Value>> {
    let function = call.child_by_field_name("function").map_or("", |function| source.text(function));
    if !matches!(function.rsplit('.').next(), Some("Field" | "field")) {
        return Some(None);
    }
    if keyword(source, call, "default_factory").is_some() {
        return Some(None);
    }
    let arguments = call.child_by_field_name("arguments").map(children).unwrap_or_default();
    let first = arguments.into_iter().next().filter(|argument| argument.kind() != "keyword_argument");
    let given = keyword(source, call, "default").or(first)?;
    if given.kind() == "ellipsis" { None } else { Some(literal::value(source, given)) }
}

fn object<const N: usize>(entries: [(&str, Value); N]) -> Map<String, Value> {
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A choice between literals, with their type if they have one in common.
fn literals(values: impl Iterator<Item = Value>) -> Map<String, Value> {
    let values: Vec<Value> = values.collect();
    let kind = |value: &Value| match value {
        Value::String(_) => Some("string"),
        Value::Number(number) if !number.is_f64() => Some("integer"),
        Value::Number(_) => Some("number"),
        Value::Bool(_) => Some("boolean"),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    let mut schema = Map::new();
    if let Some(common) = values.first().and_then(kind)
        && values.iter().all(|value| kind(value) == Some(common))
    {
        schema.insert("type".to_owned(), common.into());
    }
    schema.insert("enum".to_owned(), Value::Array(values));
    schema
}
