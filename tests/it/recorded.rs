//! Keeps an event of each shape that any test received, so that `scripts/test` can read all of them with the SDK's own
//! types afterwards: where HOLDFAST_TEST_EVENTS names a directory, a file for each process, a line for each shape.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::sync::{LazyLock, Mutex, PoisonError};

use serde_json::{Map, Value};

/// Keys whose texts are words of the contract and not content.
pub const WORDS: [&str; 16] = [
    "message_type",
    "type",
    "status",
    "state",
    "source",
    "role",
    "stop_reason",
    "event_type",
    "trigger",
    "error_type",
    "agent_type",
    "code",
    "tool_type",
    "source_type",
    "provider_type",
    "model_type",
];

struct Record {
    file: File,
    seen: BTreeSet<String>,
}

static RECORD: LazyLock<Option<Mutex<Record>>> = LazyLock::new(|| {
    let directory = std::env::var_os("HOLDFAST_TEST_EVENTS").filter(|name| !name.is_empty())?;
    let path = std::path::Path::new(&directory).join(format!("{}.jsonl", std::process::id()));
    // The directory was named to be written to: without it the check after the tests would check nothing.
    let file = File::options().create(true).append(true).open(&path).expect("HOLDFAST_TEST_EVENTS is a directory");
    Some(Mutex::new(Record { file, seen: BTreeSet::new() }))
});

/// Takes note of an event.
pub fn record(event: &Value) {
    let Some(record) = &*RECORD else { return };
    let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
    if event.is_object() && record.seen.insert(sketch("", event).to_string()) {
        writeln!(record.file, "{event}").expect("events can be written");
    }
}

/// Keys, types and words of a value, without its content.
fn sketch(key: &str, value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            Value::Object(object.iter().map(|(key, value)| (key.clone(), sketch(key, value))).collect::<Map<_, _>>())
        }
        Value::Array(list) => {
            let elements: BTreeSet<_> = list.iter().map(|element| sketch(key, element).to_string()).collect();
            Value::Array(elements.into_iter().map(Value::String).collect())
        }
        Value::String(word) if WORDS.contains(&key) => Value::String(word.clone()),
        Value::String(_) => Value::from("a string"),
        Value::Number(number) if number.is_f64() => Value::from(0.5),
        Value::Number(_) => Value::from(0),
        Value::Bool(_) => Value::from(true),
        Value::Null => Value::Null,
    }
}

mod tests {
    use serde_json::json;

    use super::sketch;

    #[test]
    fn events_differ_by_keys_types_and_words_and_not_by_content() {
        let event = json!({"message_type": "ping", "id": "ping-1", "seq_id": 1, "list": [{"a": 1}, {"a": 2}]});
        let like = json!({"message_type": "ping", "id": "ping-2", "seq_id": 2, "list": [{"a": 3}]});
        assert_eq!(sketch("", &event), sketch("", &like));
        for other in [
            json!({"message_type": "pong", "id": "ping-1", "seq_id": 1, "list": [{"a": 1}]}),
            json!({"message_type": "ping", "id": "ping-1", "seq_id": null, "list": [{"a": 1}]}),
            json!({"message_type": "ping", "id": "ping-1", "seq_id": 1, "list": [{"a": 1}, {}]}),
            json!({"message_type": "ping", "id": "ping-1", "list": [{"a": 1}]}),
        ] {
            assert_ne!(sketch("", &event), sketch("", &other), "{other}");
        }
    }
}
