//! Arguments against a tool's JSON Schema.

mod cost;
mod graph;
mod loose;
mod names;

use std::collections::BTreeSet;
use std::fmt;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternCache, PatternOptions, ValidationError};
use serde_json::Value;

use self::cost::{Cost, Read};
use super::Unfit;
use crate::limits::{
    MCP_SCHEMA_BYTES, SCHEMA_DETAIL, SCHEMA_PATTERN_BYTES, SCHEMA_WORK, SOURCE_PATTERNS,
    SOURCE_SCHEMA_BYTES,
};

pub use self::cost::SchemaExcess;

/// A schema that is ready to check with.
#[derive(Debug)]
pub(super) struct Schema {
    validator: jsonschema::Validator,
    /// What a check can take, of a schema that somebody else wrote.
    cost: Option<Cost>,
}

impl Schema {
    /// Of a tool of this program.
    pub(super) fn compile(tool: &str, schema: &Value) -> Result<Self, SchemaError> {
        let compiled = jsonschema::validator_for(schema);
        let validator = compiled.map_err(|error| SchemaError::of(tool, error))?;
        Ok(Self { validator, cost: None })
    }

    /// Whether somebody else wrote it: a check is for a thread that may be kept.
    pub(super) fn is_foreign(&self) -> bool {
        self.cost.is_some()
    }

    /// The first problem, with the field that has it.
    pub(super) fn check(&self, arguments: &Value) -> Result<(), Problem> {
        let steps = self.cost.as_ref().map_or(0, |cost| cost.of(arguments));
        if steps > SCHEMA_WORK {
            return Err(Problem::whole("are too many, or too deep, for the tool's schema"));
        }
        // What it says of a value that doesn't fit can be as much as all steps together.
        if steps <= SCHEMA_DETAIL {
            return self.validator.validate(arguments).map_err(|error| Problem::of(&error));
        }
        let fits = self.validator.is_valid(arguments);
        if fits { Ok(()) } else { Err(Problem::whole("don't fit the tool's schema")) }
    }
}

/// Compiles what one source offers, within bounds for all of it.
pub(super) struct Compiler {
    bytes: usize,
    seen: BTreeSet<String>,
    patterns: PatternCache,
}

impl Compiler {
    pub(super) fn new() -> Self {
        Self { bytes: 0, seen: BTreeSet::new(), patterns: PatternCache::new() }
    }

    /// Looks at what a schema takes before anything is made of it.
    pub(super) fn compile(&mut self, tool: &str, schema: &Value) -> Result<Schema, Unfit> {
        let excess = |excess| Unfit::Excess { tool: tool.to_owned(), source: excess };
        self.admit(schema).map_err(excess)?;
        let schema = names::resolved(schema);
        let Read { cost, patterns, loosened } = Cost::of_schema(&schema).map_err(excess)?;
        self.admit_patterns(&patterns).map_err(excess)?;
        // This engine reads a text once, whatever the pattern is, and has none that looks around.
        let limits = PatternOptions::regex()
            .size_limit(SCHEMA_PATTERN_BYTES)
            .dfa_size_limit(SCHEMA_PATTERN_BYTES);
        let compiled = jsonschema::options()
            .with_pattern_options(limits)
            .with_pattern_cache(self.patterns.clone())
            .build(loosened.as_ref().unwrap_or(&schema));
        let validator = compiled.map_err(|error| SchemaError::of(tool, error))?;
        Ok(Schema { validator, cost: Some(cost) })
    }

    fn admit(&mut self, schema: &Value) -> Result<(), SchemaExcess> {
        let bytes = schema.to_string().len();
        if bytes > MCP_SCHEMA_BYTES {
            return Err(SchemaExcess::Bytes);
        }
        let sum = self.bytes.saturating_add(bytes);
        if sum > SOURCE_SCHEMA_BYTES {
            return Err(SchemaExcess::SourceBytes);
        }
        self.bytes = sum;
        Ok(())
    }

    fn admit_patterns(&mut self, patterns: &BTreeSet<&str>) -> Result<(), SchemaExcess> {
        let fresh = patterns.iter().filter(|pattern| !self.seen.contains(**pattern)).count();
        if self.seen.len().saturating_add(fresh) > SOURCE_PATTERNS {
            return Err(SchemaExcess::Patterns);
        }
        self.seen.extend(patterns.iter().map(|pattern| (*pattern).to_owned()));
        Ok(())
    }
}

/// A field of the arguments that doesn't fit the schema.
///
/// ```
/// let problem = neuroflow_actors::Problem { field: "/a".into(), message: "isn't a number".into() };
/// assert_eq!(problem.to_string(), "/a: isn't a number");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    /// A JSON pointer; empty for the arguments as a whole.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

impl Problem {
    fn of(error: &ValidationError<'_>) -> Self {
        let path = error.instance_path();
        // The value itself stays out of the text: it may be long, and it may be a secret.
        let (path, message) = match error.kind() {
            ValidationErrorKind::Required { property: Value::String(property) } => {
                (path.join(property.as_str()), "is missing".to_owned())
            }
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                let first = unexpected.first().map_or("", String::as_str);
                (path.join(first), "isn't known here".to_owned())
            }
            _ => (path.clone(), error.masked_with("").to_string().trim_start().to_owned()),
        };
        Self { field: path.to_string(), message }
    }

    fn whole(message: &str) -> Self {
        Self { field: String::new(), message: message.to_owned() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// A tool's schema isn't one.
///
/// ```
/// fn tool(error: &neuroflow_actors::SchemaError) -> &str {
///     error.tool()
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[error("the argument schema of tool {tool} isn't valid")]
pub struct SchemaError {
    tool: String,
    #[source]
    source: Box<ValidationError<'static>>,
}

impl SchemaError {
    fn of(tool: &str, error: ValidationError<'_>) -> Self {
        Self { tool: tool.to_owned(), source: Box::new(error.to_owned()) }
    }

    /// The tool.
    pub fn tool(&self) -> &str {
        &self.tool
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_problem_names_its_field() {
        let schema = json!({
            "type": "object",
            "properties": { "count": { "type": "integer", "minimum": 1 } },
            "required": ["count"],
            "additionalProperties": false,
        });
        let schema = Schema::compile("t", &schema).unwrap();
        assert_eq!(schema.check(&json!({ "count": 2 })), Ok(()));
        let text = |arguments| schema.check(&arguments).unwrap_err().to_string();
        assert_eq!(text(json!({ "count": "two" })), "/count: is not of type \"integer\"");
        assert_eq!(text(json!({ "count": 0 })), "/count: is less than the minimum of 1");
        assert_eq!(text(json!({})), "/count: is missing");
        assert_eq!(text(json!({ "count": 1, "a/b": 2 })), "/a~1b: isn't known here");
    }

    #[test]
    fn a_wrong_schema_is_refused() {
        let error =
            Schema::compile("t", &json!({ "type": "no such type" })).map(|_| ()).unwrap_err();
        assert_eq!(error.tool(), "t");
    }

    fn offered(schema: &Value) -> Result<Schema, Unfit> {
        Compiler::new().compile("t", schema)
    }

    fn excess(schema: &Value) -> Option<SchemaExcess> {
        match offered(schema) {
            Err(Unfit::Excess { source, .. }) => Some(source),
            _ => None,
        }
    }

    /// A list in a list, and so on.
    fn nested(levels: usize) -> Value {
        (0..levels).fold(json!([]), |inner, _| json!([inner]))
    }

    /// 36 bytes each, and as many megabytes if nothing bounds them.
    #[test]
    fn patterns_that_are_large_or_many_are_refused() {
        let bomb = json!({ "properties": { "a": { "pattern": "\\pL{200}0" } } });
        assert!(matches!(offered(&bomb), Err(Unfit::Schema(_))));
        let usual = json!({ "properties": { "a": { "pattern": "^https://.{1,250}$" } } });
        assert!(offered(&usual).is_ok());

        let mut compiler = Compiler::new();
        let named = |from: usize, to: usize| {
            let pattern = |i| (format!("a{i}"), json!({ "pattern": format!("[a-c]{i}$") }));
            let properties: serde_json::Map<_, _> = (from..to).map(pattern).collect();
            json!({ "properties": properties })
        };
        assert!(compiler.compile("a", &named(0, SOURCE_PATTERNS)).is_ok());
        // What is there already costs nothing.
        assert!(compiler.compile("b", &named(0, 8)).is_ok());
        let refused = compiler.compile("c", &named(0, SOURCE_PATTERNS + 1)).unwrap_err();
        let source = SchemaExcess::Patterns;
        assert!(
            matches!(refused, Unfit::Excess { tool, source: found } if tool == "c" && found == source)
        );
    }

    fn fits(schema: &Value, arguments: &Value) -> bool {
        offered(schema).unwrap().check(arguments).is_ok()
    }

    /// What a widespread library writes for an e-mail address, the name of a host and a span of time.
    #[test]
    fn patterns_that_look_around_are_left_out_and_the_rest_is_checked() {
        for pattern in [
            r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$",
            r"^(?=.{1,253}\.?$)[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.?$",
            r"^P(?:(\d+W)|(?!.*W)(?=\d|T\d)(\d+Y)?(T(?=\d)(\d+H)?)?)$",
        ] {
            let text = json!({ "type": "string", "minLength": 2, "pattern": pattern });
            let schema = json!({ "properties": { "a": text, "b": { "pattern": "^b$" } } });
            assert!(fits(&schema, &json!({ "a": "whatever", "b": "b" })), "{pattern}");
            for unfit in [json!({ "a": 1 }), json!({ "a": "x" }), json!({ "b": "c" })] {
                assert!(!fits(&schema, &unfit), "{pattern} {unfit}");
            }
        }
    }

    /// Where it matters that something doesn't fit, or how much does, what isn't checked must keep nothing out.
    #[test]
    fn a_pattern_that_is_left_out_keeps_nothing_out_that_fits() {
        let around = json!({ "pattern": "^a(?!b)" });
        let of = |schema: &Value, fit: &Value, unfit: &Value| {
            assert!(fits(schema, fit), "{schema} {fit}");
            assert!(!fits(schema, unfit), "{schema} {unfit}");
        };
        let text = |mut schema: Value| {
            schema["type"] = json!("string");
            of(&schema, &json!("ab"), &json!(1));
        };
        text(json!({ "not": { "allOf": [around] }, "$defs": { "a": { "not": around } } }));
        text(json!({ "oneOf": [around, { "type": "string" }] }));
        text(json!({ "anyOf": [{ "maxLength": 9 }], "oneOf": [around, { "type": "string" }] }));
        text(json!({ "if": around, "then": { "maxLength": 1 }, "else": { "minLength": 1 } }));
        let list = json!({ "type": "array", "contains": around, "maxContains": 1 });
        of(&list, &json!(["ac", "ab"]), &json!([]));
        let named = json!({ "patternProperties": { "^a(?!b)": { "type": "null" }, "^x": { "type": "null" } },
            "additionalProperties": false });
        of(&named, &json!({ "ac": null, "xy": null }), &json!({ "xy": 1 }));
        let left = json!({ "if": { "properties": { "a": around } }, "unevaluatedProperties": false,
            "properties": { "b": { "type": "null" } } });
        of(&left, &json!({ "a": "ac" }), &json!({ "b": 1 }));
        // It's meant elsewhere too, and by reference, also by the schema itself.
        let tree = json!({ "$defs": { "n": { "type": "object", "properties": {
            "mail": { "allOf": [around, { "type": "string" }] },
            "kids": { "type": "array", "items": { "not": { "not": { "$ref": "#/$defs/n" } } } },
        } } }, "$ref": "#/$defs/n" });
        of(&tree, &json!({ "kids": [{ "mail": "x" }] }), &json!({ "mail": 1 }));
    }

    #[test]
    fn schemas_of_one_source_have_a_bound_together() {
        let mut compiler = Compiler::new();
        let large = json!({ "description": "x".repeat(MCP_SCHEMA_BYTES - 100) });
        let fit = (0..100).take_while(|_| compiler.compile("t", &large).is_ok()).count();
        assert_eq!(fit, SOURCE_SCHEMA_BYTES / (MCP_SCHEMA_BYTES - 100 + 18));
        assert_eq!(
            excess(&json!({ "description": "x".repeat(MCP_SCHEMA_BYTES) })),
            Some(SchemaExcess::Bytes)
        );
    }

    #[test]
    fn references_that_double_or_come_back_are_refused() {
        let mut doubling = serde_json::Map::new();
        for i in 0..40 {
            let next = json!({ "$ref": format!("#/$defs/d{}", i + 1) });
            doubling.insert(format!("d{i}"), json!({ "allOf": [next.clone(), next] }));
        }
        doubling.insert("d40".to_owned(), json!({ "type": "object" }));
        let root = "#/$defs/d0";
        assert_eq!(excess(&json!({ "$ref": root, "$defs": doubling })), Some(SchemaExcess::Steps));
        for around in ["allOf", "anyOf", "oneOf"] {
            let back = json!({ "$ref": root });
            let again = json!({ around: [back.clone(), back] });
            let endless = json!({ "$ref": root, "$defs": { "d0": again } });
            assert_eq!(excess(&endless), Some(SchemaExcess::Endless), "{around}");
        }
        for around in ["not", "if", "then", "else"] {
            assert_eq!(excess(&json!({ around: { "$ref": "#" } })), Some(SchemaExcess::Endless));
        }
        let chain = (0..1_000).map(|i| {
            let next = json!({ "$ref": format!("#/$defs/d{}", i + 1) });
            (format!("d{i}"), next)
        });
        let chain: serde_json::Map<_, _> = chain.collect();
        assert_eq!(excess(&json!({ "$ref": root, "$defs": chain })), Some(SchemaExcess::Depth));
    }

    /// To say what nothing has evaluated, everything beside is evaluated again, at each level.
    #[test]
    fn what_is_evaluated_again_and_again_is_counted_so() {
        let level = |inner, _| json!({ "allOf": [inner], "unevaluatedProperties": false });
        assert!(offered(&(0..3).fold(json!({ "type": "object" }), level)).is_ok());
        let deep = (0..20).fold(json!({ "type": "object" }), level);
        assert_eq!(excess(&deep), Some(SchemaExcess::Steps));
    }

    #[test]
    fn references_that_lead_elsewhere_are_refused() {
        for schema in [
            json!({ "$ref": "#there", "$defs": { "a": { "$anchor": "there" } } }),
            json!({ "$ref": "https://a.example/b#/c" }),
            json!({ "properties": { "a": { "$dynamicRef": "#a" } } }),
            json!({ "properties": { "a": { "$id": "https://a.example/b", "$ref": "#/c" } } }),
            json!({ "$ref": "#/$defs/a/b", "$defs": { "a": { "$id": "c", "b": { "$ref": "#/d" } } } }),
        ] {
            let found = excess(&schema);
            assert!(matches!(found, Some(SchemaExcess::Reference { .. })), "{schema}: {found:?}");
        }
        let quoted = json!({ "$id": "https://a.example/b", "$ref": "#/$defs/a%3Cb~1c%3E",
            "$defs": { "a<b/c>": { "type": "array" } } });
        assert!(offered(&quoted).unwrap().check(&json!([])).is_ok());
        assert!(offered(&quoted).unwrap().check(&json!(1)).is_err());
    }

    /// As libraries publish what refers to itself: by a name that it gives itself.
    #[test]
    fn a_reference_by_name_is_followed_where_one_schema_has_the_name() {
        let node = json!({ "$id": "T0", "type": "object", "required": ["name"],
            "properties": { "name": { "type": "string" }, "items": { "type": "array", "items": { "$ref": "T0" } } } });
        let schema = json!({ "type": "object", "properties": { "root": node } });
        let tree = |leaf| (0..5).fold(leaf, |inner, _| json!({ "name": "n", "items": [inner] }));
        assert!(fits(&schema, &json!({ "root": tree(json!({ "name": "leaf" })) })));
        let problem = offered(&schema).unwrap().check(&json!({ "root": tree(json!({})) }));
        assert_eq!(
            problem.unwrap_err().field,
            "/root/items/0/items/0/items/0/items/0/items/0/name"
        );
        let unused = json!({ "$id": "https://a.example/b", "type": "string" });
        assert!(fits(&json!({ "properties": { "a": unused } }), &json!({ "a": "b" })));
        let twice = json!({ "anyOf": [{ "$id": "T" }, { "$id": "T" }], "items": { "$ref": "T" } });
        assert!(matches!(excess(&twice), Some(SchemaExcess::Reference { .. })));
    }

    /// One of many kinds, each with members that are such again.
    #[test]
    fn what_is_recursive_in_a_union_of_many_is_offered() {
        for is_named_alike in [true, false] {
            let member = |kind: usize, at: usize| {
                let name = if is_named_alike { format!("m{at}") } else { format!("m{kind}_{at}") };
                (name, json!({ "type": "array", "items": { "$ref": "#/$defs/node" } }))
            };
            let kind = |kind: usize| {
                let mut members: serde_json::Map<_, _> =
                    (0..6).map(|at| member(kind, at)).collect();
                members.insert("kind".to_owned(), json!({ "const": format!("k{kind}") }));
                json!({ "type": "object", "properties": members, "required": ["kind"] })
            };
            let kinds: Vec<Value> = (0..40).map(kind).collect();
            let schema = json!({ "$ref": "#/$defs/node", "$defs": { "node": { "anyOf": kinds } } });
            let (name, _) = member(7, 0);
            assert!(fits(&schema, &json!({ "kind": "k7", name.clone(): [{ "kind": "k8" }] })));
            assert!(!fits(&schema, &json!({ "kind": "k7", name: [{ "kind": "k40" }] })));
        }
    }

    /// There are ways in which a check looks at everything in a list of words, or at each of many names.
    #[test]
    fn words_of_all_kinds_are_weighed() {
        let many = |part: Value| {
            let parts = vec![json!({ "$ref": "#/$defs/d" }); 1_000];
            json!({ "properties": { "list": { "items": { "allOf": parts } } }, "$defs": { "d": part } })
        };
        let names: serde_json::Map<_, _> = (0..2_500).map(|i| (i.to_string(), json!([]))).collect();
        for word in ["dependentRequired", "dependencies", "anything"] {
            let heavy = many(json!({ word: names }));
            assert_eq!(excess(&heavy), Some(SchemaExcess::Steps), "{word}");
        }
        let heavy = many(json!({ "allOf": vec![true; 5_000] }));
        assert_eq!(excess(&heavy), Some(SchemaExcess::Steps));

        let patterns: serde_json::Map<_, _> =
            (0..SOURCE_PATTERNS).map(|i| (format!("[a-c]{i}$"), json!(true))).collect();
        let members: serde_json::Map<_, _> =
            (0..100_000).map(|i| (i.to_string(), json!(i))).collect();
        let items: Vec<usize> = (0..100_000).collect();
        let each = |part: Value| json!({ "allOf": vec![json!({ "$ref": "#/$defs/d" }); 1_000], "$defs": { "d": part } });
        for (schema, many) in [
            (json!({ "patternProperties": patterns }), json!(members)),
            (each(json!({ "additionalProperties": false })), json!(members)),
            (each(json!({ "contains": true })), json!(items)),
            (each(json!({ "uniqueItems": true })), json!(items)),
            (each(json!({ "uniqueItems": true })), json!([[[[items]]]])),
        ] {
            let problem = offered(&schema).unwrap().check(&many).unwrap_err();
            assert!(problem.message.starts_with("are too many"), "{problem}");
        }
        let schema = json!({ "uniqueItems": true, "patternProperties": { "^a": true } });
        assert!(fits(&schema, &json!(items)) && fits(&schema, &json!(members)));
    }

    /// Trees, and values of any kind, refer to themselves below the value.
    #[test]
    fn what_is_recursive_below_the_value_is_checked_as_deep_as_it_is() {
        let side = json!({ "$ref": "#" });
        let tree = offered(&json!({ "type": "object", "additionalProperties": false,
            "properties": { "left": side.clone(), "right": side } }));
        let tree = tree.unwrap();
        let deep = (0..60).fold(json!({}), |inner, _| json!({ "left": inner, "right": {} }));
        assert_eq!(tree.check(&deep), Ok(()));
        let wrong = (0..60).fold(json!({ "up": 1 }), |inner, _| json!({ "left": inner }));
        assert_eq!(tree.check(&wrong).unwrap_err().message, "isn't known here");

        let any = json!({ "anyOf": [
            { "type": ["string", "number", "boolean", "null"] },
            { "type": "array", "items": { "$ref": "#" } },
            { "type": "object", "additionalProperties": { "$ref": "#" } },
        ] });
        assert_eq!(offered(&any).unwrap().check(&nested(60)), Ok(()));
    }

    /// Each level of the value doubles the work, so a few of them are checked and many aren't.
    #[test]
    fn what_doubles_below_the_value_is_checked_as_far_as_it_can_be() {
        let item = json!({ "items": { "$ref": "#" } });
        let doubling = offered(&json!({ "type": "array", "allOf": [item.clone(), item] })).unwrap();
        assert_eq!(doubling.check(&nested(8)), Ok(()));
        let problem = doubling.check(&nested(60)).unwrap_err();
        assert_eq!(problem, Problem::whole("are too many, or too deep, for the tool's schema"));
    }

    /// A list of what is wrong with each of many items would take far more than they do.
    #[test]
    fn what_does_not_fit_in_a_hundred_thousand_places_is_not_told_one_by_one() {
        let schema = offered(&json!({ "anyOf": [{ "items": { "type": "string" } }] })).unwrap();
        let numbers = Value::from(vec![1; 100_000]);
        assert_eq!(schema.check(&numbers), Err(Problem::whole("don't fit the tool's schema")));
        assert!(schema.check(&json!([1])).unwrap_err().message.contains("not valid under any"));
    }
}
