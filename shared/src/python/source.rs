//! A parsed source, and what stands in it where.

use serde_json::Value;
use tree_sitter::{Node, Parser, Tree};

use super::hint::Hint;
use super::literal;

/// A source that is Python.
pub(super) struct Source<'a> {
    text: &'a str,
    tree: Tree,
}

/// A parameter of a function, or a field of a class.
#[derive(Debug, Clone)]
pub(super) struct Parameter {
    /// Its name.
    pub(super) name: String,
    /// Its type, if it has a hint.
    pub(super) hint: Option<Hint>,
    /// Whether there is a default, and what it is if JSON can say it.
    pub(super) default: Option<Option<Value>>,
    /// Whether it can be given by name.
    pub(super) passing: Passing,
}

/// Whether a parameter can be given by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passing {
    ByName,
    NotByName,
}

impl<'a> Source<'a> {
    /// Parses a text. The error is the first line that is wrong, from 1.
    pub(super) fn parse(text: &'a str) -> Result<Self, usize> {
        let mut parser = Parser::new();
        parser.set_language(&tree_sitter_python::LANGUAGE.into()).expect("the grammar was built for this library");
        // It gives no tree only when it is told to stop early, which nobody does.
        let tree = parser.parse(text, None).ok_or(1_usize)?;
        match first_error(tree.root_node()) {
            Some(line) => Err(line),
            None => Ok(Self { text, tree }),
        }
    }

    /// What a node says.
    pub(super) fn text(&self, node: Node<'_>) -> &'a str {
        self.text.get(node.byte_range()).unwrap_or_default()
    }

    /// The statements at the top level, decorators taken off.
    pub(super) fn statements(&self) -> impl Iterator<Item = Node<'_>> {
        let root = self.tree.root_node();
        children(root).into_iter().map(|node| node.child_by_field_name("definition").unwrap_or(node))
    }

    /// The functions at the top level, in their order.
    pub(super) fn functions(&self) -> impl Iterator<Item = Node<'_>> {
        self.statements().filter(|node| node.kind() == "function_definition")
    }

    /// The name of a function or class.
    pub(super) fn name(&self, definition: Node<'_>) -> &'a str {
        definition.child_by_field_name("name").map_or("", |name| self.text(name))
    }

    /// The docstring of a function or class.
    pub(super) fn docstring(&self, definition: Node<'_>) -> Option<String> {
        let body = definition.child_by_field_name("body")?;
        let first = children(body).into_iter().find(|node| node.kind() != "comment")?;
        let text = first.named_child(0).filter(|_| first.kind() == "expression_statement")?;
        literal::text(self, text)
    }

    /// The parameters of a function, in their order.
    pub(super) fn parameters(&self, function: Node<'_>) -> impl Iterator<Item = Parameter> {
        let listed = function.child_by_field_name("parameters").map(children).unwrap_or_default();
        let slash = listed.iter().position(|node| node.kind() == "positional_separator").unwrap_or_default();
        let read = |(place, node): (usize, Node<'_>)| {
            let mut parameter = self.parameter(node)?;
            if place < slash {
                parameter.passing = Passing::NotByName;
            }
            Some(parameter)
        };
        listed.into_iter().enumerate().filter_map(read).collect::<Vec<_>>().into_iter()
    }

    fn parameter(&self, node: Node<'_>) -> Option<Parameter> {
        let field = |name| node.child_by_field_name(name);
        let named = match node.kind() {
            "identifier" | "list_splat_pattern" | "dictionary_splat_pattern" => node,
            "typed_parameter" => node.named_child(0)?,
            "default_parameter" | "typed_default_parameter" => field("name")?,
            _ => return None,
        };
        Some(Parameter {
            name: self.text(named).trim_start_matches('*').to_owned(),
            hint: field("type").map(|hint| Hint::read(self, hint)),
            default: field("value").map(|value| literal::value(self, value)),
            passing: if named.kind() == "identifier" { Passing::ByName } else { Passing::NotByName },
        })
    }
}

/// The named children of a node, comments left out.
pub(super) fn children(node: Node<'_>) -> Vec<Node<'_>> {
    let mut cursor = node.walk();
    node.named_children(&mut cursor).filter(|node| node.kind() != "comment").collect()
}

/// The line of the first node that the parser could not make sense of, from 1. It walks without recursion: sources may be
/// nested as deep as they are long.
fn first_error(root: Node<'_>) -> Option<usize> {
    let mut cursor = root.walk();
    loop {
        let node = cursor.node();
        if node.is_error() || node.is_missing() {
            return Some(node.start_position().row + 1);
        }
        if node.has_error() && cursor.goto_first_child() {
            continue;
        }
        while !cursor.goto_next_sibling() {
            if !cursor.goto_parent() {
                return None;
            }
        }
    }
}
