//! What is answered to a server that wants a form filled in. Pure.

use rmcp::model::{
    ClientCapabilities, ElicitRequestParams, ElicitResult, ElicitationAction,
    ElicitationCapability, ElicitationSchema, FormElicitationCapability,
};
use serde_json::{Map, Value};

/// What is done with forms of an MCP server, while nobody is there to fill them in.
///
/// ```
/// assert_eq!(neuroflow_actors::Forms::default(), neuroflow_actors::Forms::Decline);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Forms {
    /// The server isn't told that there are any, and what comes all the same is declined.
    #[default]
    Decline,
    /// They are sent back with the defaults that the server has put in. One with a required field
    /// without a default is declined.
    Defaults,
}

impl Forms {
    /// What the server is told that it may ask for.
    pub(super) fn capabilities(self) -> ClientCapabilities {
        let mut capabilities = ClientCapabilities::default();
        if self == Self::Defaults {
            let form = FormElicitationCapability::new();
            capabilities.elicitation = Some(ElicitationCapability::new().with_form(form));
        }
        capabilities
    }

    /// The answer to one. A page to visit is nothing for a form's defaults.
    pub(super) fn answer(self, asked: &ElicitRequestParams) -> ElicitResult {
        let filled = match (self, asked) {
            (
                Self::Defaults,
                ElicitRequestParams::FormElicitationParams { requested_schema, .. },
            ) => filled(requested_schema),
            _ => None,
        };
        match filled {
            Some(content) => ElicitResult::new(ElicitationAction::Accept).with_content(content),
            None => ElicitResult::new(ElicitationAction::Decline),
        }
    }
}

/// The form with its defaults; none if it lacks one that is required.
fn filled(schema: &ElicitationSchema) -> Option<Value> {
    let mut content = Map::new();
    for (name, property) in &schema.properties {
        let property = serde_json::to_value(property).ok()?;
        if let Some(default) = property.get("default") {
            content.insert(name.clone(), default.clone());
        }
    }
    let required = schema.required.iter().flatten();
    let is_whole = required.into_iter().all(|name| content.contains_key(name));
    is_whole.then_some(Value::Object(content))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn form(properties: &Value, required: &Value) -> ElicitRequestParams {
        let schema = json!({ "type": "object", "properties": properties, "required": required });
        let form = json!({ "mode": "form", "message": "?", "requestedSchema": schema });
        serde_json::from_value(form).unwrap()
    }

    #[test]
    fn a_form_is_filled_with_its_defaults_or_declined() {
        let name = json!({ "type": "string", "default": "ann" });
        let age = json!({ "type": "integer" });
        let properties = json!({ "name": name, "age": age });
        let whole = form(&properties, &json!(["name"]));
        let answer = Forms::Defaults.answer(&whole);
        assert_eq!(answer.action, ElicitationAction::Accept);
        assert_eq!(answer.content, Some(json!({ "name": "ann" })));
        assert_eq!(Forms::Decline.answer(&whole).action, ElicitationAction::Decline);
        let lacks = form(&properties, &json!(["name", "age"]));
        let answer = Forms::Defaults.answer(&lacks);
        assert_eq!((answer.action, answer.content), (ElicitationAction::Decline, None));
    }
}
