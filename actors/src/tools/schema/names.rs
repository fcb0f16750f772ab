//! References by the names that parts of a schema give themselves, turned into pointers: it isn't the compiler then
//! who finds out what a name means, by addresses and what they are relative to. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::limits::SCHEMA_POINTER_BYTES;

/// The schema with pointers for names (`$id`) that exactly one part has, and without names that nothing depends
/// on. Others stay as they are.
pub(super) fn resolved(schema: &Value) -> Value {
    let mut schema = schema.clone();
    let mut names = BTreeMap::new();
    each_schema(&mut schema, Some(""), &mut |map, pointer| {
        if let Some(name) = own_name(map) {
            let pointer = pointer.map(str::to_owned);
            // Which one of two is meant can't be told.
            names.entry(name.to_owned()).and_modify(|found| *found = None).or_insert(pointer);
        }
    });
    if names.is_empty() {
        return schema;
    }
    each_schema(&mut schema, Some(""), &mut |map, pointer| {
        // Pointers in a schema with a name begin there.
        if pointer != Some("") && own_name(map).is_some() && !map.iter().any(has_pointer) {
            map.remove("$id");
        }
        if let Some(Value::String(reference)) = map.get_mut("$ref")
            && let Some(Some(found)) = names.get(reference.as_str())
        {
            *reference = format!("#{found}");
        }
    });
    schema
}

fn own_name(map: &Map<String, Value>) -> Option<&str> {
    map.get("$id").and_then(Value::as_str)
}

/// Whether a member is a reference that's a pointer, or has one in it.
fn has_pointer((word, value): (&String, &Value)) -> bool {
    match value {
        Value::String(text) => word == "$ref" && text.starts_with('#'),
        Value::Object(map) => map.iter().any(has_pointer),
        Value::Array(items) => items.iter().any(|item| has_pointer((&String::new(), item))),
        _ => false,
    }
}

/// What is done with a schema that has been found, and where that is.
type See<'a> = dyn FnMut(&mut Map<String, Value>, Option<&str>) + 'a;

/// Shows each schema in a schema, with the pointer to it if that isn't too long, from the outside in.
fn each_schema(schema: &mut Value, pointer: Option<&str>, see: &mut See<'_>) {
    let Value::Object(map) = schema else { return };
    see(map, pointer);
    for (word, value) in map {
        let pointer = joined(pointer, word);
        let pointer = pointer.as_deref();
        match (word.as_str(), value) {
            // Values are no schemas.
            ("enum" | "const" | "default" | "examples", _) => {}
            (
                "properties" | "patternProperties" | "dependentSchemas" | "dependencies" | "$defs"
                | "definitions",
                Value::Object(parts),
            ) => {
                for (name, part) in parts {
                    each_schema(part, joined(pointer, name).as_deref(), see);
                }
            }
            (_, Value::Array(items)) => {
                for (index, item) in items.iter_mut().enumerate() {
                    each_schema(item, joined(pointer, &index.to_string()).as_deref(), see);
                }
            }
            (_, value) => each_schema(value, pointer, see),
        }
    }
}

/// A pointer one step further, as it stands in a reference.
fn joined(pointer: Option<&str>, part: &str) -> Option<String> {
    let pointer = pointer.filter(|it| it.len() + part.len() < SCHEMA_POINTER_BYTES)?;
    let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or('0').to_ascii_uppercase();
    let mut joined = format!("{pointer}/");
    for byte in part.replace('~', "~0").replace('/', "~1").bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            joined.push(char::from(byte));
        } else {
            joined.extend(['%', digit(byte >> 4), digit(byte & 0xf)]);
        }
    }
    Some(joined).filter(|it| it.len() <= SCHEMA_POINTER_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_name_that_one_part_has_becomes_a_pointer() {
        let part = json!({ "$id": "T0", "items": { "$ref": "T0" }, "const": { "$id": "T0" } });
        let found = resolved(&json!({ "properties": { "a/b %": part } }));
        let part =
            json!({ "items": { "$ref": "#/properties/a~1b%20%25" }, "const": { "$id": "T0" } });
        assert_eq!(found, json!({ "properties": { "a/b %": part } }));
        let root = json!({ "$id": "a", "not": { "$ref": "a" }, "$defs": { "b": { "$id": "b" } } });
        let found = json!({ "$id": "a", "not": { "$ref": "#" }, "$defs": { "b": {} } });
        assert_eq!(resolved(&root), found);
    }

    #[test]
    fn a_name_that_two_have_or_on_which_pointers_depend_stays() {
        for schema in [
            json!({ "$ref": "T", "$defs": {
                "a": { "$id": "T", "$ref": "#" }, "b": { "$id": "T", "$ref": "#" } } }),
            json!({ "$ref": "#/$defs/a", "$defs": { "a": { "$id": "T", "items": { "$ref": "#/b" } } } }),
            json!({ "$ref": "U", "$defs": { "a": { "items": 1 } } }),
            // Each of many short names could become a long pointer.
            json!({ "$ref": "T", "$defs": { "a".repeat(SCHEMA_POINTER_BYTES): {
                "$id": "T", "not": { "$ref": "#/b" } } } }),
        ] {
            assert_eq!(resolved(&schema), schema);
        }
    }
}
