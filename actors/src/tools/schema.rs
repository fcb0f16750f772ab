//! Arguments against a tool's JSON Schema.

use std::fmt;

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use serde_json::Value;

/// A schema that is ready to check with.
pub(super) struct Schema(jsonschema::Validator);

impl Schema {
    pub(super) fn compile(tool: &str, schema: &Value) -> Result<Self, SchemaError> {
        let compiled = jsonschema::validator_for(schema);
        compiled.map(Self).map_err(|source| SchemaError {
            tool: tool.to_owned(),
            source: Box::new(source.to_owned()),
        })
    }

    /// The first problem, with the field that has it.
    pub(super) fn check(&self, arguments: &Value) -> Result<(), Problem> {
        match self.0.iter_errors(arguments).next() {
            None => Ok(()),
            Some(error) => Err(Problem::of(&error)),
        }
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
}
