//! Literals: what can be said in JSON.

use serde_json::{Map, Number, Value};
use tree_sitter::Node;

use super::source::{Source, children};

/// Literals inside one another; deeper ones are not taken for literals.
const DEEPEST: usize = 16;

/// The value of a literal, if it is one and JSON can say it.
pub(super) fn value(source: &Source<'_>, node: Node<'_>) -> Option<Value> {
    value_at(source, node, DEEPEST)
}

fn value_at(source: &Source<'_>, node: Node<'_>, depth: usize) -> Option<Value> {
    let depth = depth.checked_sub(1)?;
    let text = source.text(node);
    match node.kind() {
        "none" => Some(Value::Null),
        "true" => Some(Value::Bool(true)),
        "false" => Some(Value::Bool(false)),
        "integer" => integer(text),
        "float" => Number::from_f64(text.replace('_', "").parse().ok()?).map(Value::Number),
        "string" | "concatenated_string" => self::text(source, node).map(Value::String),
        "parenthesized_expression" => value_at(source, node.named_child(0)?, depth),
        "unary_operator" if text.starts_with('-') => {
            negative(value_at(source, node.child_by_field_name("argument")?, depth)?)
        }
        "list" | "tuple" => children(node)
            .into_iter()
            .map(|item| value_at(source, item, depth))
            .collect::<Option<_>>()
            .map(Value::Array),
        "dictionary" => {
            let pair = |pair: Node<'_>| {
                let key = value_at(source, pair.child_by_field_name("key")?, depth)?;
                Some((key.as_str()?.to_owned(), value_at(source, pair.child_by_field_name("value")?, depth)?))
            };
            children(node).into_iter().map(pair).collect::<Option<Map<_, _>>>().map(Value::Object)
        }
        _ => None,
    }
}

fn integer(text: &str) -> Option<Value> {
    let digits = text.replace('_', "").to_ascii_lowercase();
    let parsed = match digits.get(..2) {
        Some("0x") => i64::from_str_radix(&digits[2..], 16),
        Some("0o") => i64::from_str_radix(&digits[2..], 8),
        Some("0b") => i64::from_str_radix(&digits[2..], 2),
        _ => digits.parse(),
    };
    parsed.ok().map(Value::from)
}

fn negative(value: Value) -> Option<Value> {
    match value.as_i64() {
        Some(integer) => integer.checked_neg().map(Value::from),
        None => Number::from_f64(-value.as_f64()?).map(Value::Number),
    }
}

/// The text of a string literal; none of bytes and of strings with values in them.
pub(super) fn text(source: &Source<'_>, node: Node<'_>) -> Option<String> {
    match node.kind() {
        "concatenated_string" => children(node).into_iter().map(|part| text(source, part)).collect(),
        "string" => {
            let whole = source.text(node);
            let quote = whole.find(['"', '\''])?;
            let (prefix, quoted) = whole.split_at(quote);
            let prefix = prefix.to_ascii_lowercase();
            if prefix.contains(['b', 'f', 't']) {
                return None;
            }
            let quotes = if quoted.starts_with("\"\"\"") || quoted.starts_with("'''") { 3 } else { 1 };
            let inner = quoted.get(quotes..quoted.len().checked_sub(quotes)?)?;
            Some(if prefix.contains('r') { inner.to_owned() } else { unescape(inner) })
        }
        _ => None,
    }
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let escape = &rest[at + 1..];
        let Some(kind) = escape.chars().next() else { break };
        let after = &escape[kind.len_utf8()..];
        let simple = match kind {
            'n' => Some("\n"),
            't' => Some("\t"),
            'r' => Some("\r"),
            'a' => Some("\u{7}"),
            'b' => Some("\u{8}"),
            'f' => Some("\u{c}"),
            'v' => Some("\u{b}"),
            '\\' => Some("\\"),
            '\'' => Some("'"),
            '"' => Some("\""),
            '\n' => Some(""),
            _ => None,
        };
        let (digits, from) = match kind {
            'x' => (after.get(..2), after),
            'u' => (after.get(..4), after),
            'U' => (after.get(..8), after),
            _ => (None, after),
        };
        let code = digits.and_then(|digits| char::from_u32(u32::from_str_radix(digits, 16).ok()?));
        rest = match (simple, code, octal(escape)) {
            (Some(simple), ..) => {
                plain.push_str(simple);
                after
            }
            (_, Some(character), _) => {
                plain.push(character);
                &from[digits.map_or(0, str::len)..]
            }
            (_, _, Some((character, length))) => {
                plain.push(character);
                &escape[length..]
            }
            // Python leaves what it does not know as it is.
            _ => {
                plain.push('\\');
                escape
            }
        };
    }
    plain.push_str(rest);
    plain
}

/// The character of up to three octal digits, and how many there are.
fn octal(text: &str) -> Option<(char, usize)> {
    let length = text.bytes().take(3).take_while(|byte| matches!(byte, b'0'..=b'7')).count();
    let code = u32::from_str_radix(text.get(..length)?, 8).ok()?;
    Some((char::from_u32(code)?, length))
}
