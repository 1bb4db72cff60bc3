//! The description of the API as a judge: the client holds every answer and every event against it, so that what the
//! program does and what the document says cannot part without a failing test.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use jsonschema::Validator;
use serde_json::{Map, Value};

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(&holdfast_api::openapi::text()).expect("JSON"));
/// Validators by the JSON pointer of their schema: made once for each process.
static VALIDATORS: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);

fn validator(pointer: &str) -> Arc<Validator> {
    let mut known = VALIDATORS.lock().unwrap_or_else(PoisonError::into_inner);
    let made = known.entry(pointer.to_owned()).or_insert_with(|| {
        // With the components beside it, so that its references lead where they do in the document.
        let mut schema = DOCUMENT.pointer(pointer).cloned().unwrap_or_else(|| panic!("{pointer} leads nowhere"));
        schema["components"] = DOCUMENT["components"].clone();
        Arc::new(
            jsonschema::draft202012::new(&schema).unwrap_or_else(|error| panic!("{pointer} is no schema: {error}")),
        )
    });
    Arc::clone(made)
}

fn faults(pointer: &str, value: &Value) -> Vec<String> {
    let of = |error: jsonschema::ValidationError<'_>| format!("{}: {error:.300}", error.instance_path());
    validator(pointer).iter_errors(value).map(of).collect()
}

/// The template that a path fits best.
fn template(path: &str) -> Option<&'static String> {
    let parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    let fits = |template: &&String| {
        let wanted: Vec<&str> = template.split('/').collect();
        wanted.len() == parts.len()
            && wanted
                .iter()
                .zip(&parts)
                .all(|(wanted, part)| wanted == part || wanted.starts_with('{') && !part.is_empty())
    };
    let templates = DOCUMENT["paths"].as_object().into_iter().flat_map(Map::keys);
    templates.filter(fits).min_by_key(|template| template.matches('{').count())
}

/// What is wrong with an answer to a request.
fn answer_faults(method: &str, path: &str, status: u16, media_type: &str, body: &[u8]) -> Vec<String> {
    let Some(template) = template(path) else {
        return if [401, 404, 405].contains(&status) { Vec::new() } else { vec![format!("{path} is not described")] };
    };
    let Some(operation) = DOCUMENT["paths"][template].get(method.to_lowercase()) else {
        // A path that answers 404 by intent can look like one with an id.
        return if [401, 404, 405].contains(&status) {
            Vec::new()
        } else {
            vec![format!("{method} {template} is not described")]
        };
    };
    let escaped = template.replace('/', "~1");
    let mut pointer = format!("/paths/{escaped}/{}/responses/{status}", method.to_lowercase());
    let Some(answer) = operation["responses"].get(status.to_string()) else {
        return vec![format!("{method} {template} is not described as answering {status}")];
    };
    if let Some(reference) = answer["$ref"].as_str() {
        reference.trim_start_matches('#').clone_into(&mut pointer);
    }
    let essence = media_type.split(';').next().unwrap_or_default();
    pointer = format!("{pointer}/content/{}", essence.replace('/', "~1"));
    if DOCUMENT.pointer(&pointer).is_none() {
        return vec![format!("{method} {template} is not described as answering {status} with {media_type:?}")];
    }
    if essence != "application/json" {
        return Vec::new();
    }
    match serde_json::from_slice(body) {
        Ok(body) => faults(&format!("{pointer}/schema"), &body),
        Err(error) => vec![format!("no JSON: {error}")],
    }
}

/// Asserts that an answer is as the document says. Servers of tests have other paths than the API; preflights of browsers
/// and bodies that HEAD leaves out are nothing that it speaks of.
pub fn check_answer(method: &str, path: &str, status: u16, media_type: &str, body: &[u8]) {
    let is_described = ["GET", "POST", "PUT", "PATCH", "DELETE"].contains(&method);
    if !path.starts_with("/v1/") || !is_described {
        return;
    }
    let faults = answer_faults(method, path, status, media_type, body);
    let body = String::from_utf8_lossy(body);
    assert!(
        faults.is_empty(),
        "{method} {path} answers {status} as openapi.json does not say: {faults:#?}\n{body:.2000}"
    );
}

/// The component of each kind of event, by its `message_type`.
static EVENTS: LazyLock<HashMap<String, String>> = LazyLock::new(|| {
    let union = DOCUMENT["components"]["schemas"]["Event"]["anyOf"].as_array().expect("a union");
    let pointers = union.iter().map(|member| member["$ref"].as_str().expect("a reference").trim_start_matches('#'));
    let kind = |pointer: &str| {
        let word = DOCUMENT.pointer(pointer)?["properties"]["message_type"]["enum"][0].as_str()?;
        Some((word.to_owned(), pointer.to_owned()))
    };
    pointers.filter_map(kind).collect()
});

/// Asserts that an event is as the document says.
pub fn check_event(event: &Value) {
    let kind = event["message_type"].as_str().unwrap_or_default();
    let pointer = EVENTS.get(kind).unwrap_or_else(|| panic!("openapi.json knows no event such as {event}"));
    let faults = faults(pointer, event);
    assert!(faults.is_empty(), "openapi.json does not know this {kind}: {faults:#?}\n{event}");
}

/// The judge must be able to find fault.
mod judge {
    use serde_json::json;

    use super::{answer_faults, check_event, template};

    const RUN: &str = "/v1/runs/run-123e4567-e89b-42d3-8456-426614174000";

    #[test]
    fn the_best_template_is_found() {
        for (path, found) in [
            ("/v1/tools/count/", Some("/v1/tools/count")),
            ("/v1/tools/x", Some("/v1/tools/{tool_id}")),
            ("/v1/agents/x/messages/stream", Some("/v1/agents/{agent_id}/messages/stream")),
            ("/v1/agents/x/y", None),
        ] {
            assert_eq!(template(path).map(String::as_str), found, "{path}");
        }
    }

    #[test]
    fn what_is_not_described_is_found() {
        let json = "application/json";
        for (method, path, status, media_type, body, is_right) in [
            ("GET", RUN, 404, json, r#"{"detail":"x"}"#, true),
            ("GET", RUN, 404, json, r#"{"detail":1}"#, false),
            ("GET", RUN, 404, "text/plain", "no", false),
            ("GET", RUN, 404, json, "no", false),
            ("GET", RUN, 409, json, r#"{"detail":"x"}"#, false),
            ("GET", RUN, 200, json, "{}", false),
            ("PUT", RUN, 405, json, "{}", true),
            ("PUT", RUN, 200, json, "{}", false),
            ("GET", "/v1/nothing", 404, json, "{}", true),
            ("GET", "/v1/nothing", 200, json, "{}", false),
            ("GET", "/v1/tools/count", 200, json, "1", true),
            ("GET", "/v1/tools/count", 200, json, "-1", false),
        ] {
            let faults = answer_faults(method, path, status, media_type, body.as_bytes());
            assert_eq!(faults.is_empty(), is_right, "{method} {path} {status} {body}: {faults:?}");
        }
    }

    #[test]
    fn events_that_are_not_described_are_found() {
        check_event(&json!({"message_type": "stop_reason", "stop_reason": "end_turn"}));
        for wrong in [
            json!({"message_type": "stop_reason", "stop_reason": "tired"}),
            json!({"message_type": "stop_reason"}),
            json!({"message_type": "ping", "id": "ping-1"}),
            json!({"message_type": "news"}),
            json!([]),
        ] {
            assert!(std::panic::catch_unwind(|| check_event(&wrong)).is_err(), "{wrong}");
        }
    }
}
