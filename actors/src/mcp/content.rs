//! What a tool's result is to the caller: one JSON value. Pure.

use rmcp::model::{CallToolResult, ContentBlock};
use serde_json::Value;

/// The structured content if there is some; else the texts, joined by line breaks, if there is
/// nothing but texts; else the blocks as the protocol has them.
pub(super) fn value(result: CallToolResult) -> Result<Value, serde_json::Error> {
    if let Some(structured) = result.structured_content {
        return Ok(structured);
    }
    match texts(&result.content) {
        Some(text) => Ok(Value::String(text)),
        None => serde_json::to_value(result.content),
    }
}

/// What an error says, for people.
pub(super) fn complaint(result: &CallToolResult) -> String {
    let texts = result.content.iter().filter_map(|block| block.as_text());
    let text = texts.map(|text| text.text.as_str()).collect::<Vec<_>>().join("\n");
    if text.is_empty() { "the tool failed and doesn't say why".to_owned() } else { text }
}

fn texts(content: &[ContentBlock]) -> Option<String> {
    let texts: Option<Vec<&str>> =
        content.iter().map(|block| block.as_text().map(|text| text.text.as_str())).collect();
    texts.map(|texts| texts.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn result(json: Value) -> CallToolResult {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn texts_become_one_text_and_structure_comes_first() {
        let texts = json!({"content": [{"type":"text","text":"a"},{"type":"text","text":"b"}]});
        assert_eq!(value(result(texts)).unwrap(), json!("a\nb"));
        let both = json!({"content": [{"type":"text","text":"a"}], "structuredContent": {"a":1}});
        assert_eq!(value(result(both)).unwrap(), json!({"a":1}));
        let image = json!({"content": [{"type":"image","data":"AA==","mimeType":"image/png"}]});
        assert_eq!(value(result(image)).unwrap()[0]["mimeType"], "image/png");
    }

    #[test]
    fn an_error_always_has_words() {
        let silent = result(json!({"content": [], "isError": true}));
        assert!(complaint(&silent).contains("failed"));
    }
}
