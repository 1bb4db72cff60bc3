//! The document as a page for people: one file of HTML, without scripts and without anything from elsewhere.

use serde_json::{Map, Value};

const STYLE: &str = include_str!("page.css");

/// What the page may do: nothing but look as its own style says.
pub(crate) const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page of a document.
pub(crate) fn page(document: &Value) -> String {
    let info = &document["info"];
    let (title, version) = (escaped(text(&info["title"])), escaped(text(&info["version"])));
    let about: String =
        text(&info["description"]).split("\n\n").map(|part| format!("<p>{}</p>", marked(part))).collect();
    let tags = document["tags"].as_array().map(Vec::as_slice).unwrap_or_default();
    let links: String =
        tags.iter().map(|tag| format!("<a href=\"#{0}\">{0}</a> ", escaped(text(&tag["name"])))).collect();
    let sections: String = tags.iter().map(|tag| section(document, tag)).collect();
    let shapes: String = fields(&document["components"]["schemas"])
        .map(|(name, schema)| format!("<article id=\"{name}\"><h3>{name}</h3>{}</article>", shape(schema)))
        .collect();
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title} API</title><style>{STYLE}</style></head><body><header>\
         <h1>{title} API <small>{version}</small></h1>{about}<p>For programs: <a href=\"/openapi.json\">openapi.json</a>\
         </p><nav>{links}<a href=\"#shapes\">shapes</a></nav></header><main>{sections}\
         <section id=\"shapes\"><h2>Shapes</h2>{shapes}</section></main></body></html>"
    )
}

fn section(document: &Value, tag: &Value) -> String {
    let name = text(&tag["name"]);
    let mut operations = String::new();
    for (path, methods) in fields(&document["paths"]) {
        for (method, operation) in fields(methods).filter(|(_, operation)| operation["tags"][0] == name) {
            operations.push_str(&self::operation(document, path, method, operation));
        }
    }
    let about = marked(text(&tag["description"]));
    format!("<section id=\"{0}\"><h2>{0}</h2><p>{about}</p>{operations}</section>", escaped(name))
}

fn operation(document: &Value, path: &str, method: &str, operation: &Value) -> String {
    let mut inside = String::new();
    let parameters = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !parameters.is_empty() {
        let rows: String = parameters
            .iter()
            .map(|parameter| {
                let about = text(&parameter["description"]);
                let place = text(&parameter["in"]);
                row(text(&parameter["name"]), place, &kind(&parameter["schema"]), about)
            })
            .collect();
        inside.push_str(&format!("<h4>Parameters</h4><table>{rows}</table>"));
    }
    let body = &operation["requestBody"];
    if !body.is_null() {
        let need = if body["required"] == true { "" } else { ", may be missing" };
        let schema = kind(&body["content"]["application/json"]["schema"]);
        inside.push_str(&format!("<h4>Body</h4><p>{schema}{need}</p>"));
    }
    let rows: String = fields(&operation["responses"])
        .map(|(status, answer)| {
            let answer = answer["$ref"].as_str().and_then(|path| document.pointer(&path[1..])).unwrap_or(answer);
            let shown: Vec<String> = fields(&answer["content"])
                .map(|(media_type, content)| match &content["x-itemSchema"] {
                    Value::Null => kind(&content["schema"]),
                    item => format!("<code>{}</code> of {}", escaped(media_type), kind(item)),
                })
                .collect();
            row(status, "", &shown.join(" or "), text(&answer["description"]))
        })
        .collect();
    inside.push_str(&format!("<h4>Answers</h4><table>{rows}</table>"));
    format!(
        "<details id=\"{id}\"><summary><b class=\"{method}\">{upper}</b> <code>{path}</code> <span>{summary}</span>\
         </summary>{inside}</details>",
        id = escaped(text(&operation["operationId"])),
        upper = method.to_uppercase(),
        path = escaped(path),
        summary = marked(text(&operation["summary"])),
    )
}

fn row(name: &str, place: &str, kind: &str, about: &str) -> String {
    format!("<tr><td><code>{}</code> <i>{place}</i></td><td>{kind}</td><td>{}</td></tr>", escaped(name), marked(about))
}

/// A component: its fields, if it is an object with some.
fn shape(schema: &Value) -> String {
    let about = marked(text(&schema["description"]));
    if schema["properties"].is_null() {
        return format!("<p>{} {about}</p>", kind(schema));
    }
    let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rows: String = fields(&schema["properties"])
        .map(|(name, field)| {
            let need = if required.iter().any(|required| required == name) { "required" } else { "" };
            row(name, need, &kind(field), text(&field["description"]))
        })
        .collect();
    format!("<p>{about}</p><table>{rows}</table>")
}

/// What a schema lets in, in words.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return format!("<a href=\"#{name}\">{name}</a>");
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        return choices.iter().map(kind).collect::<Vec<_>>().join(" or ");
    }
    if let Some(word) = schema["const"].as_str() {
        return if word.is_empty() { "nothing".to_owned() } else { format!("<code>{}</code>", escaped(word)) };
    }
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<String> = words.iter().map(|word| format!("<code>{}</code>", escaped(&plain(word)))).collect();
        return words.join(" ");
    }
    let names: Vec<&str> = match &schema["type"] {
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        name => name.as_str().into_iter().collect(),
    };
    let words: Vec<String> = names
        .into_iter()
        .map(|name| match name {
            "array" => format!("list of {}", kind(&schema["items"])),
            "object" if schema["properties"].is_object() => object(schema),
            "integer" => "whole number".to_owned(),
            other => other.to_owned(),
        })
        .collect();
    if words.is_empty() { "anything".to_owned() } else { format!("{}{}", words.join(" or "), limits(schema)) }
}

fn object(schema: &Value) -> String {
    let fields: Vec<String> = fields(&schema["properties"])
        .map(|(name, field)| format!("<code>{}</code>: {}", escaped(name), kind(field)))
        .collect();
    format!("{{ {} }}", fields.join(", "))
}

fn limits(schema: &Value) -> String {
    let limits = [
        ("minimum", "at least"),
        ("maximum", "at most"),
        ("exclusiveMinimum", "more than"),
        ("exclusiveMaximum", "less than"),
        ("maxLength", "characters, at most"),
        ("default", "else"),
        ("format", "as"),
    ];
    let said: Vec<String> = limits
        .into_iter()
        .filter(|(name, _)| !schema[*name].is_null())
        .map(|(name, word)| format!("{word} {}", escaped(&plain(&schema[name]))))
        .collect();
    if said.is_empty() { String::new() } else { format!(", {}", said.join(", ")) }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().map(Map::iter).into_iter().flatten()
}

/// Text with `code` in it.
fn marked(text: &str) -> String {
    let parts = text.split('`').enumerate();
    parts
        .map(|(index, part)| if index % 2 == 1 { format!("<code>{}</code>", escaped(part)) } else { escaped(part) })
        .collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_page_shows_every_operation_and_shape_and_needs_nothing_from_elsewhere() {
        let document = crate::openapi::document("1");
        let page = page(&document);
        for (path, methods) in fields(&document["paths"]) {
            assert!(page.contains(&format!("<code>{path}</code>")), "{path}");
            for (_, operation) in fields(methods) {
                assert!(page.contains(&format!("<details id=\"{}\">", text(&operation["operationId"]))));
            }
        }
        for (name, _) in fields(&document["components"]["schemas"]) {
            assert!(page.contains(&format!("id=\"{name}\"")), "{name}");
        }
        for foreign in ["http://", "https://", "<script", "src=", "<link", "url("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }

    #[test]
    fn what_looks_like_html_is_shown_as_it_is() {
        let schema =
            json!({"type": "object", "properties": {"<b>": {"type": "string", "description": "`<i>` & \"x\""}}});
        let shown = shape(&schema);
        assert!(shown.contains("&lt;b&gt;") && shown.contains("<code>&lt;i&gt;</code> &amp; &quot;x&quot;"), "{shown}");
    }
}
