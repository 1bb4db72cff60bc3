//! What an MCP server answers, as the result of a tool call.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holdfast_shared::domain::limits::{TOOL_ERROR_CHARS, TOOL_IMAGE_BYTES};
use holdfast_shared::domain::tool::{ToolCall, ToolReturn};
use holdfast_shared::images::media_type;
use rmcp::model::{CallToolResult, ContentBlock, ImageContent, ResourceContents, ServerResult};
use serde_json::{Value, json};

use crate::tools::first_chars;

/// The result of a call. Texts are joined; what is no text is named in its place, and images that models can read are
/// parts besides.
pub(super) fn tool_return(call: &ToolCall, answer: ServerResult) -> ToolReturn {
    let result = match answer {
        ServerResult::CallToolResult(result) => result,
        // An answer without content cannot be told from these.
        ServerResult::EmptyResult(_) | ServerResult::TaskAckResult(_) => CallToolResult::default(),
        ServerResult::InputRequiredResult(_) => {
            return failed(call, "the server asks for more input, which cannot be given here");
        }
        _ => return failed(call, "the server answered something that is no result of a tool"),
    };
    let mut images = 0;
    let mut parts: Vec<Value> = Vec::new();
    let mut texts: Vec<String> = Vec::new();
    for block in result.content {
        let text = match block {
            ContentBlock::Text(text) => text.text,
            ContentBlock::Image(image) => match image_part(&image) {
                Ok(part) => {
                    images += 1;
                    parts.push(part);
                    texts.push(format!("[image {images}: {}]", image.mime_type));
                    continue;
                }
                Err(note) => note,
            },
            ContentBlock::Audio(audio) => format!("[audio, {}: not shown]", audio.mime_type),
            ContentBlock::Resource(embedded) => resource(embedded.resource),
            ContentBlock::ResourceLink(link) => {
                let about = link.description.map(|text| format!(": {text}")).unwrap_or_default();
                format!("[resource {} at {}{about}]", link.name, link.uri)
            }
            _ => "[content of a kind that is not known]".to_owned(),
        };
        let text = text.replace('\0', "");
        parts.push(json!({"type": "text", "text": text}));
        texts.push(text);
    }
    if texts.is_empty()
        && let Some(structured) = result.structured_content
    {
        texts.push(structured.to_string());
    }
    let text = texts.join("\n");
    if result.is_error == Some(true) {
        return ToolReturn::error(call, first_chars(&text, TOOL_ERROR_CHARS).to_owned());
    }
    ToolReturn { parts: (images > 0).then_some(parts), ..ToolReturn::success(call, text) }
}

/// A failure that is not the tool's own word.
pub(super) fn failed(call: &ToolCall, what: &str) -> ToolReturn {
    let text = format!("Error executing function {}: MCPError: {what}", call.name);
    ToolReturn::error(call, first_chars(&text, TOOL_ERROR_CHARS).to_owned())
}

/// The image as a part, or what to say in its place. The bytes decide about the kind.
fn image_part(image: &ImageContent) -> Result<Value, String> {
    let kind = &image.mime_type;
    if image.data.len() / 4 * 3 > TOOL_IMAGE_BYTES {
        return Err(format!("[image, {kind}: left out, it has more than {TOOL_IMAGE_BYTES} bytes]"));
    }
    let bytes = STANDARD.decode(&image.data).unwrap_or_default();
    let kind = media_type(&bytes).ok_or_else(|| format!("[image, {kind}: left out, no PNG, JPEG, GIF or WebP]"))?;
    Ok(json!({"type": "image", "source": {"type": "base64", "media_type": kind, "data": image.data}}))
}

fn resource(contents: ResourceContents) -> String {
    match contents {
        ResourceContents::TextResourceContents { uri, text, .. } => format!("[resource {uri}]\n{text}"),
        ResourceContents::BlobResourceContents { uri, mime_type, blob, .. } => {
            let kind = mime_type.map(|kind| format!(", {kind}")).unwrap_or_default();
            format!("[resource {uri}{kind}: {} bytes, not shown]", blob.len() / 4 * 3)
        }
        _ => "[resource of a kind that is not known]".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use holdfast_shared::domain::tool::ToolStatus;

    use super::*;

    fn of(answer: &Value) -> ToolReturn {
        let result: ServerResult = serde_json::from_value(answer.clone()).expect("an answer");
        tool_return(&ToolCall::new("call_1", "srv__tool", "{}"), result)
    }

    #[test]
    fn content_becomes_text() {
        for (answer, text) in [
            (json!({"content": []}), ""),
            (json!({}), ""),
            (json!({"content": [{"type": "text", "text": "a\u{0}b"}, {"type": "text", "text": "c"}]}), "ab\nc"),
            (json!({"content": [{"type": "text", "text": "said"}], "structuredContent": {"a": 1}}), "said"),
            (json!({"content": [], "structuredContent": {"a": [1, 2]}}), "{\"a\":[1,2]}"),
            (
                json!({"content": [{"type": "audio", "data": "AAAA", "mimeType": "audio/wav"}]}),
                "[audio, audio/wav: not shown]",
            ),
            (
                json!({"content": [{"type": "resource", "resource": {"uri": "file:///a", "text": "inside"}}]}),
                "[resource file:///a]\ninside",
            ),
            (
                json!({"content": [{"type": "resource", "resource": {"uri": "x:b", "blob": "AAAAAAAA", "mimeType": "a/b"}}]}),
                "[resource x:b, a/b: 6 bytes, not shown]",
            ),
            (
                json!({"content": [{"type": "resource_link", "uri": "x:c", "name": "C", "description": "more"}]}),
                "[resource C at x:c: more]",
            ),
            (
                json!({"content": [{"type": "image", "data": "PHN2Zz4=", "mimeType": "image/svg+xml"}]}),
                "[image, image/svg+xml: left out, no PNG, JPEG, GIF or WebP]",
            ),
        ] {
            let result = of(&answer);
            assert_eq!(
                (result.status, result.text.as_str(), &result.parts),
                (ToolStatus::Success, text, &None),
                "{answer}"
            );
        }
    }

    #[test]
    fn images_are_parts_among_the_texts() {
        let png = "iVBORw0KGgpyZXN0";
        let result = of(&json!({"content": [
            {"type": "text", "text": "before"},
            {"type": "image", "data": png, "mimeType": "image/jpeg"},
            {"type": "text", "text": "after"},
        ]}));
        assert_eq!(result.text, "before\n[image 1: image/jpeg]\nafter");
        let source = json!({"type": "base64", "media_type": "image/png", "data": png});
        let parts = json!([{"type": "text", "text": "before"}, {"type": "image", "source": source}, {"type": "text", "text": "after"}]);
        assert_eq!(result.parts.map(Value::from), Some(parts));
        let huge = format!("{png}{}", "A".repeat(TOOL_IMAGE_BYTES * 2));
        let result = of(&json!({"content": [{"type": "image", "data": huge, "mimeType": "image/png"}]}));
        assert!(result.parts.is_none() && result.text.contains("left out"), "{}", result.text);
    }

    #[test]
    fn failures_are_errors() {
        let result = of(&json!({"content": [{"type": "text", "text": "x".repeat(5000)}], "isError": true}));
        assert_eq!(
            (result.status, result.text.len(), result.was_executed),
            (ToolStatus::Error, TOOL_ERROR_CHARS, true)
        );
    }
}
