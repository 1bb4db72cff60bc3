//! What the legacy loop adds to tools and takes out of calls again, and how it reads an argument while it still arrives
//! (api/05 §9): pure.

use std::mem;

use holdfast_shared::domain::tool::{ToolCall, ToolSpec};
use serde_json::{Map, Value, json};

/// The argument by which a model says that it wants another turn.
const HEARTBEAT: &str = "request_heartbeat";
/// The argument into which a model without reasoning of its own writes its thoughts.
pub const THINKING: &str = "thinking";
/// The same in older agents' histories, from which a model may copy it.
const OLD_THINKING: &str = "inner_thoughts";

/// What the legacy loop adds to a tool's parameters. What the tool has of that name by itself stays the tool's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Additions {
    heartbeat: bool,
    thinking: bool,
}

/// A call without what was added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stripped {
    /// The call as the tool is to see it.
    pub call: ToolCall,
    /// Whether the model wants another turn.
    pub wants_heartbeat: bool,
    /// What the model thought.
    pub thinking: Option<String>,
}

impl Additions {
    /// What is added to a tool that is not terminal, or is, for a model that reasons by itself, or does not.
    #[must_use]
    pub fn to(spec: &ToolSpec, is_terminal: bool, model_reasons: bool) -> Self {
        let has = |name: &str| spec.parameters.get("properties").is_some_and(|known| known.get(name).is_some());
        Self { heartbeat: !is_terminal && !has(HEARTBEAT), thinking: !model_reasons && !has(THINKING) }
    }

    /// Only the argument for thoughts.
    #[must_use]
    pub const fn thinking_only(self) -> Self {
        Self { heartbeat: false, thinking: self.thinking }
    }

    /// Whether the model writes its thoughts into the call.
    #[must_use]
    pub const fn has_thinking(self) -> bool {
        self.thinking
    }

    /// The tool as the model is told it.
    #[must_use]
    pub fn applied(self, spec: &ToolSpec) -> ToolSpec {
        let mut parameters = spec.parameters.as_object().cloned().unwrap_or_default();
        let before = parameters.remove("properties");
        let mut properties = Map::new();
        let mut required = Vec::new();
        // First, since models write arguments in this order and shall think before they act.
        if self.thinking {
            let about = "What you think about the situation and your next move. Only you see it. Write it first.";
            properties.insert(THINKING.to_owned(), json!({"type": "string", "description": about}));
            required.push(json!(THINKING));
        }
        if let Some(Value::Object(before)) = before {
            properties.extend(before);
        }
        if let Some(Value::Array(before)) = parameters.remove("required") {
            required.extend(before);
        }
        if self.heartbeat {
            let about = "Whether you want another turn after this call, to see its result and go on.";
            properties.insert(HEARTBEAT.to_owned(), json!({"type": "boolean", "description": about}));
            required.push(json!(HEARTBEAT));
        }
        parameters.insert("type".to_owned(), json!("object"));
        parameters.insert("properties".to_owned(), Value::Object(properties));
        parameters.insert("required".to_owned(), Value::Array(required));
        ToolSpec { parameters: Value::Object(parameters), ..spec.clone() }
    }

    /// Takes out of a call's arguments what was added to its tool. Arguments that are no JSON object stay as they are:
    /// the tool will say so.
    #[must_use]
    pub fn strip(self, call: &ToolCall) -> Stripped {
        let mut stripped = Stripped { call: call.clone(), wants_heartbeat: false, thinking: None };
        let Ok(arguments) = serde_json::from_str::<Map<String, Value>>(&call.arguments) else { return stripped };
        let mut kept = Map::new();
        for (name, value) in arguments {
            match (name.as_str(), &value) {
                (HEARTBEAT, _) if self.heartbeat => stripped.wants_heartbeat = is_true(&value),
                (THINKING | OLD_THINKING, Value::String(text)) if self.thinking => {
                    stripped.thinking = Some(text.clone());
                }
                _ => {
                    kept.insert(name, value);
                }
            }
        }
        stripped.call.arguments = Value::Object(kept).to_string();
        stripped
    }
}

/// Models also write booleans as texts, in JSON's or in Python's spelling.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Bool(is) => *is,
        Value::String(text) => text.eq_ignore_ascii_case("true"),
        _ => false,
    }
}

/// Reads one argument of a call, a text, while the JSON of the arguments still arrives. It never fails: from what is not
/// the JSON of an object it reads no more.
#[derive(Debug)]
pub struct ArgumentReader {
    name: String,
    place: Place,
}

/// Where in the arguments the reader is.
#[derive(Debug)]
enum Place {
    /// Before the object.
    Start,
    /// Where a key may begin.
    BeforeKey,
    /// In a key, of which this was read.
    Key(Unescape, String),
    /// After a key; whether it is the one looked for.
    AfterKey(bool),
    /// Before a value; whether it is the one looked for.
    BeforeValue(bool),
    /// In the text looked for.
    Text(Unescape),
    /// In another value, so many arrays and objects deep.
    Other(u32),
    /// In a string of another value, so many arrays and objects deep.
    OtherString(Unescape, u32),
    /// There is nothing more to read.
    Done,
}

impl ArgumentReader {
    /// Reads the argument of this name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), place: Place::Start }
    }

    /// Takes a fragment in, and answers with what it adds to the text.
    pub fn push(&mut self, fragment: &str) -> String {
        let mut new = String::new();
        for character in fragment.chars() {
            self.place = self.step(character, &mut new);
        }
        new
    }

    fn step(&mut self, character: char, new: &mut String) -> Place {
        let is_space = matches!(character, ' ' | '\t' | '\n' | '\r');
        match (mem::replace(&mut self.place, Place::Done), character) {
            (place @ (Place::Start | Place::BeforeKey | Place::AfterKey(_) | Place::BeforeValue(_)), _) if is_space => {
                place
            }
            (Place::Start, '{') | (Place::BeforeKey, ',') => Place::BeforeKey,
            (Place::BeforeKey, '"') => Place::Key(Unescape::default(), String::new()),
            (Place::Key(mut unescape, mut key), _) => match unescape.push(character, &mut key) {
                Some(End) => Place::AfterKey(key == self.name),
                None => Place::Key(unescape, key),
            },
            (Place::AfterKey(is_wanted), ':') => Place::BeforeValue(is_wanted),
            (Place::BeforeValue(true), '"') => Place::Text(Unescape::default()),
            (Place::BeforeValue(_), _) => other(character, 0),
            (Place::Text(mut unescape), _) => match unescape.push(character, new) {
                Some(End) => Place::Done,
                None => Place::Text(unescape),
            },
            (Place::Other(depth), _) => other(character, depth),
            (Place::OtherString(mut unescape, depth), _) => match unescape.push(character, &mut String::new()) {
                Some(End) => Place::Other(depth),
                None => Place::OtherString(unescape, depth),
            },
            (Place::Start | Place::BeforeKey | Place::AfterKey(_) | Place::Done, _) => Place::Done,
        }
    }
}

/// One character of a value that is not the one looked for, so many arrays and objects deep.
fn other(character: char, depth: u32) -> Place {
    match (character, depth) {
        ('"', _) => Place::OtherString(Unescape::default(), depth),
        ('{' | '[', _) => Place::Other(depth.saturating_add(1)),
        ('}' | ']', 0) => Place::Done,
        ('}' | ']', _) => Place::Other(depth - 1),
        (',', 0) => Place::BeforeKey,
        _ => Place::Other(depth),
    }
}

/// The end of a JSON string.
struct End;

/// Reads the inside of a JSON string character by character.
#[derive(Debug, Default)]
struct Unescape {
    /// What an escape has so far: nothing, the backslash, or digits after `u`.
    escape: Option<Escape>,
    /// The first half of a character that two escapes write.
    half: Option<u32>,
}

#[derive(Debug)]
enum Escape {
    Begun,
    Unicode { digits: u32, value: u32 },
}

impl Unescape {
    fn push(&mut self, character: char, text: &mut String) -> Option<End> {
        match self.escape.take() {
            None if character == '\\' => self.escape = Some(Escape::Begun),
            None => {
                self.flush(text);
                if character == '"' {
                    return Some(End);
                }
                text.push(character);
            }
            Some(Escape::Begun) if character == 'u' => self.escape = Some(Escape::Unicode { digits: 0, value: 0 }),
            Some(Escape::Begun) => {
                self.flush(text);
                text.push(match character {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    // `"`, `\`, `/`; others are wrong and stand for themselves.
                    other => other,
                });
            }
            Some(Escape::Unicode { digits, value }) => match character.to_digit(16) {
                Some(digit) if digits == 3 => self.unit(value * 16 + digit, text),
                Some(digit) => self.escape = Some(Escape::Unicode { digits: digits + 1, value: value * 16 + digit }),
                None => {
                    text.push(char::REPLACEMENT_CHARACTER);
                    // The escape is broken; the character may well be the end of the string.
                    return self.push(character, text);
                }
            },
        }
        None
    }

    /// A UTF-16 code unit.
    fn unit(&mut self, unit: u32, text: &mut String) {
        match (self.half.take(), unit) {
            (Some(high), 0xDC00..=0xDFFF) => {
                let value = 0x1_0000 + ((high - 0xD800) << 10) + (unit - 0xDC00);
                text.push(char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            (half, _) => {
                self.half = half;
                self.flush(text);
                match unit {
                    0xD800..=0xDBFF => self.half = Some(unit),
                    _ => text.push(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER)),
                }
            }
        }
    }

    /// A half that stays alone.
    fn flush(&mut self, text: &mut String) {
        if self.half.take().is_some() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spec(parameters: Value) -> ToolSpec {
        ToolSpec { name: "t".to_owned(), description: "d".to_owned(), parameters }
    }

    #[test]
    fn thoughts_come_first_and_the_heartbeat_last() {
        let tool = spec(json!({
            "type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": false,
        }));
        for (is_terminal, model_reasons, expected) in [
            (false, false, json!(["thinking", "a", "request_heartbeat"])),
            (true, false, json!(["thinking", "a"])),
            (false, true, json!(["a", "request_heartbeat"])),
            (true, true, json!(["a"])),
        ] {
            let told = Additions::to(&tool, is_terminal, model_reasons).applied(&tool).parameters;
            assert_eq!(told["required"], expected);
            let names: Vec<_> = told["properties"].as_object().expect("properties").keys().collect();
            assert_eq!(names.len(), expected.as_array().map_or(0, Vec::len), "{names:?}");
            assert_eq!(told["additionalProperties"], false);
        }
        let bare = spec(json!({}));
        let told = Additions::to(&bare, false, true).applied(&bare).parameters;
        assert_eq!((&told["type"], &told["required"]), (&json!("object"), &json!(["request_heartbeat"])));
    }

    #[test]
    fn what_was_added_is_taken_out_and_nothing_else() {
        let plain = spec(json!({"type": "object", "properties": {"a": {"type": "string"}}}));
        let own = spec(json!({"type": "object", "properties": {"thinking": {}, "request_heartbeat": {}}}));
        for (tool, arguments, expected, wants_heartbeat, thinking) in [
            (
                &plain,
                json!({"thinking": "hm", "a": "x", "request_heartbeat": true}),
                json!({"a": "x"}),
                true,
                Some("hm"),
            ),
            (&plain, json!({"inner_thoughts": "hm", "request_heartbeat": "True"}), json!({}), true, Some("hm")),
            (&plain, json!({"a": "x", "request_heartbeat": false}), json!({"a": "x"}), false, None),
            (&plain, json!({"a": "x", "request_heartbeat": null}), json!({"a": "x"}), false, None),
            (
                &own,
                json!({"thinking": "hm", "request_heartbeat": true}),
                json!({"thinking": "hm", "request_heartbeat": true}),
                false,
                None,
            ),
        ] {
            let call = ToolCall::new("c", "t", arguments.to_string());
            let stripped = Additions::to(tool, false, false).strip(&call);
            let left: Value = serde_json::from_str(&stripped.call.arguments).expect("JSON");
            assert_eq!(left, expected, "{arguments}");
            assert_eq!(
                (stripped.wants_heartbeat, stripped.thinking.as_deref()),
                (wants_heartbeat, thinking),
                "{arguments}"
            );
        }
        let broken = ToolCall::new("c", "t", "{\"a\":");
        assert_eq!(Additions::to(&plain, false, false).strip(&broken).call, broken);
    }

    fn read(name: &str, fragments: &[&str]) -> Vec<String> {
        let mut reader = ArgumentReader::new(name);
        fragments.iter().map(|fragment| reader.push(fragment)).collect()
    }

    #[test]
    fn a_text_is_read_as_it_arrives() {
        for (fragments, expected) in [
            (vec!["{\"message\": \"Hel", "lo", "\"}"], vec!["Hel", "lo", ""]),
            (vec!["{\"mess", "age\":", "\"a\\", "nb\\u00", "e4c\", \"x\": \"y\"}"], vec!["", "", "a", "\nb", "äc"]),
            (vec!["{\"message\":\"\\ud83d", "\\ude00!\"}"], vec!["", "😀!"]),
            (vec!["{\"m\\u0065ssage\":\"a\"}"], vec!["a"]),
            (vec!["{\"x\":{\"message\":\"no\"},\"message\":\"yes\"}"], vec!["yes"]),
            (vec!["{\"x\":[1,\"}\",{\"y\":\"\\\"]\"}],\"message\":\"yes\"}"], vec!["yes"]),
            (vec!["{\"message\":5,\"x\":\"message\"}"], vec![""]),
            (vec!["[\"message\"]"], vec![""]),
            (vec!["no JSON \"message\":\"x\""], vec![""]),
            (vec!["{}{\"message\":\"x\"}"], vec![""]),
            (vec!["{\"x\":1},\"message\":\"x\""], vec![""]),
            (vec!["{\"message\":\"\\ud83d\\u0041\\ud83d\\ud83d\\ude00\"}"], vec!["\u{fffd}A\u{fffd}😀"]),
            (vec!["{\"message\":\"\\ud83dx\\udc00\\uZ\"}"], vec!["\u{fffd}x\u{fffd}\u{fffd}Z"]),
        ] {
            assert_eq!(read("message", &fragments), expected, "{fragments:?}");
        }
    }

    /// A JSON string in which the characters that the mask picks are written as `\u` escapes.
    fn written(text: &str, mask: u64) -> String {
        let mut json = String::from("\"");
        for (index, character) in text.chars().enumerate() {
            if mask >> (index % 64) & 1 == 1 {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    json.push_str(&format!("\\u{unit:04x}"));
                }
            } else {
                let plain = serde_json::to_string(&character).expect("serializes");
                json.push_str(&plain[1..plain.len() - 1]);
            }
        }
        json.push('"');
        json
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            ".{0,6}".prop_map(Value::from),
            "[\\\\\"{}\\[\\],:]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("message|.{0,3}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_reads_what_a_json_parser_reads(
            before in prop::collection::btree_map("[a-l\"\\\\ä😀]{0,4}", value(), 0..4),
            text in prop_oneof![".{0,20}", "[\\\\\"\n\t\u{0}\u{7f}/ä€😀]{0,20}"],
            after in prop::collection::btree_map("[n-z]{0,4}", value(), 0..3),
            masks in any::<[u64; 2]>(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
            space in "[ \n\t]{0,2}",
        ) {
            let member = |(name, value): (&String, &Value)| {
                format!("{}{space}:{space}{value}", written(name, masks[1]))
            };
            let mut members: Vec<String> = before.iter().map(member).collect();
            members.push(format!("{}{space}:{space}{}", written("message", masks[1]), written(&text, masks[0])));
            members.extend(after.iter().map(member));
            let json = format!("{space}{{{space}{}{space}}}", members.join(&format!("{space},{space}")));
            let parsed: Value = serde_json::from_str(&json).expect("valid JSON");

            let mut ends: Vec<usize> = json.char_indices().map(|(at, _)| at).collect();
            ends = cuts.iter().map(|cut| ends[cut.index(ends.len())]).collect();
            ends.extend([0, json.len()]);
            ends.sort_unstable();
            let fragments: Vec<&str> = ends.windows(2).map(|pair| &json[pair[0]..pair[1]]).collect();
            let text = read("message", &fragments).concat();
            prop_assert_eq!(Some(text.as_str()), parsed["message"].as_str());
        }

        #[test]
        fn it_stands_any_text(fragments in prop::collection::vec("[{}\\[\\]\",:\\\\u0-9a-fmesg ]{0,12}", 0..6)) {
            let fragments: Vec<&str> = fragments.iter().map(String::as_str).collect();
            let whole = fragments.concat();
            prop_assert_eq!(read("message", &fragments).concat(), read("message", &[&whole]).concat());
        }
    }
}
