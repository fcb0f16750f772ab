//! Patterns that look ahead or back, or repeat what was found. To find one can take longer than anybody waits,
//! so they aren't checked here: the server that wrote them does. Everything else of the schema still is.
//!
//! What is left out must not keep out what fits. Where a schema counts by not fitting, or by how many fit, that
//! part goes too: under `not` and `if`, for how many of `oneOf`, and for what nothing else has evaluated.

use serde_json::{Map, Value};

use super::graph::Loose;

/// Whether a pattern does so: outside of its classes there is a group of that kind, or a group's number or name.
pub(super) fn looks_around(pattern: &str) -> bool {
    let (mut rest, mut is_class) = (pattern.as_bytes(), false);
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'\\' => {
                if !is_class && matches!(after.first(), Some(b'1'..=b'9' | b'k')) {
                    return true;
                }
                rest = after.get(1..).unwrap_or_default();
            }
            b'[' => is_class = true,
            b']' => is_class = false,
            b'(' if !is_class && AROUND.iter().any(|kind| after.starts_with(kind)) => return true,
            _ => {}
        }
    }
    false
}

const AROUND: [&[u8]; 4] = [b"?=", b"?!", b"?<=", b"?<!"];

/// The schema without them.
pub(super) fn loosened(schema: &Value, loose: &Loose<'_>) -> Value {
    match schema {
        Value::Object(map) if loose.has(schema) => Value::Object(loosened_map(map, loose)),
        Value::Object(map) => {
            let member = |(name, part): (&String, _)| (name.clone(), loosened(part, loose));
            Value::Object(map.iter().map(member).collect())
        }
        Value::Array(items) => items.iter().map(|item| loosened(item, loose)).collect(),
        _ => schema.clone(),
    }
}

fn loosened_map(map: &Map<String, Value>, loose: &Loose<'_>) -> Map<String, Value> {
    let mut kept = Map::new();
    let counts = map.get("contains").is_some_and(|part| loose.has(part));
    for (word, value) in map {
        match word.as_str() {
            "pattern" if value.as_str().is_some_and(looks_around) => {}
            "not" | "if" if loose.has(value) => {}
            "unevaluatedProperties" | "unevaluatedItems" => {}
            "maxContains" if counts => {}
            "oneOf"
                if value.as_array().is_some_and(|parts| parts.iter().any(|it| loose.has(it))) =>
            {
                // That at least one fits is left of it.
                if !map.contains_key("anyOf") {
                    kept.insert("anyOf".to_owned(), loosened(value, loose));
                }
            }
            "patternProperties" => {
                kept.insert(word.clone(), members(value, loose));
            }
            _ => {
                kept.insert(word.clone(), loosened(value, loose));
            }
        }
    }
    kept
}

/// A member whose name may be meant by a pattern that's left out is none that's left over.
fn members(patterns: &Value, loose: &Loose<'_>) -> Value {
    let Value::Object(patterns) = patterns else { return patterns.clone() };
    let mut kept = Map::new();
    for (pattern, part) in patterns {
        if looks_around(pattern) {
            kept.entry(String::new()).or_insert(Value::Bool(true));
        } else {
            kept.insert(pattern.clone(), loosened(part, loose));
        }
    }
    Value::Object(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_look_around_are_told_from_those_that_look_like_it() {
        for pattern in
            ["(?=a)b", "a(?!b)", "(?<=a)b", "(?<!a)b", r"(a)\1", r"(?<n>a)\k<n>", r"\\(?=a)"]
        {
            assert!(looks_around(pattern), "{pattern}");
        }
        for pattern in
            ["(?:a)b", "[(?=a)]b", r"\(?=a", r"(?<n>a)", r"[\1]", r"\\1", "", "\\", "[", "é\\é"]
        {
            assert!(!looks_around(pattern), "{pattern}");
        }
    }
}
