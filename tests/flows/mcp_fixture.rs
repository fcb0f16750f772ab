//! What the official conformance suite wants a server under test to have: tools, resources and prompts
//! by its names. It's served by the library's own endpoint.

#![expect(deprecated, reason = "the suite asks for what the later version has given up, too")]

use std::collections::BTreeMap;

use neuroflow::Clock;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, CompleteRequestParams, CompleteResult,
    GetPromptRequestParams, GetPromptResponse, Implementation, InputRequiredResult,
    ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
    PaginatedRequestParams, ReadResourceRequestParams, ReadResourceResponse, ServerCapabilities,
    ServerConfig, ServerNotification, ServerRequest, SetLevelRequestParams, SubscribeRequestParams,
    SubscriptionFilter, UnsubscribeRequestParams,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// One red pixel.
const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";
/// No sound.
const WAV: &str = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA=";
/// What stands in for a signature over a state.
const SEAL: &str = "sealed-7f3a";

pub(crate) struct Fixture;

type Context = RequestContext<RoleServer>;

fn read<T: DeserializeOwned>(value: Value) -> Result<T, ErrorData> {
    serde_json::from_value(value)
        .map_err(|error| ErrorData::internal_error(error.to_string(), None))
}

/// A result that is whole. Clients of the earlier version aren't told so.
fn whole<T: DeserializeOwned>(mut value: Value) -> Result<T, ErrorData> {
    value["resultType"] = json!("complete");
    read(value)
}

fn text(words: impl Into<String>) -> Value {
    json!({ "content": [{ "type": "text", "text": words.into() }] })
}

fn form(message: &str, field: &str, kind: &str) -> Value {
    json!({ "method": "elicitation/create", "params": { "mode": "form", "message": message,
        "requestedSchema": { "type": "object", "properties": { field: { "type": kind } }, "required": [field] } } })
}

fn sampling(prompt: &str) -> Value {
    json!({ "method": "sampling/createMessage", "params": { "maxTokens": 100, "messages": [
        { "role": "user", "content": { "type": "text", "text": prompt } }] } })
}

fn roots() -> Value {
    json!({ "method": "roots/list", "params": {} })
}

/// An answer that asks back.
fn asks(requests: Value, state: Option<&str>) -> Result<InputRequiredResult, ErrorData> {
    let mut asks = json!({ "resultType": "input_required", "inputRequests": requests });
    if let Some(state) = state {
        asks["requestState"] = json!(state);
    }
    read(asks)
}

/// Calls that ask back; none for other tools.
fn ask_back(
    name: &str,
    answers: &BTreeMap<String, Value>,
    state: Option<&str>,
    context: &Context,
) -> Option<Result<CallToolResponse, ErrorData>> {
    let required =
        |requests, state| Some(asks(requests, state).map(CallToolResponse::InputRequired));
    let done =
        |words: String| Some(whole::<CallToolResult>(text(words)).map(CallToolResponse::Complete));
    let answer = |key: &str| answers.get(key);
    match name {
        "test_input_required_result_elicitation" => {
            let name = answer("user_name").and_then(|answer| answer["content"]["name"].as_str());
            match name {
                Some(name) => done(format!("Hello, {name}!")),
                None => required(
                    json!({ "user_name": form("What is your name?", "name", "string") }),
                    None,
                ),
            }
        }
        "test_input_required_result_sampling" => match answer("capital_question") {
            Some(answer) => done(answer["content"]["text"].as_str().unwrap_or_default().to_owned()),
            None => required(
                json!({ "capital_question": sampling("What is the capital of France?") }),
                None,
            ),
        },
        "test_input_required_result_list_roots" => match answer("client_roots") {
            Some(answer) => done(answer["roots"].to_string()),
            None => required(json!({ "client_roots": roots() }), None),
        },
        "test_input_required_result_request_state"
        | "test_input_required_result_tampered_state" => match state {
            None => {
                required(json!({ "confirm": form("Please confirm", "ok", "boolean") }), Some(SEAL))
            }
            Some(state) if state == SEAL => done("state-ok".to_owned()),
            Some(_) => Some(Err(ErrorData::invalid_params("the state was changed", None))),
        },
        "test_input_required_result_multiple_inputs" => {
            let keys = ["user_name", "greeting", "client_roots"];
            if keys.iter().all(|key| answers.contains_key(*key)) && state == Some(SEAL) {
                return done("all three".to_owned());
            }
            let requests = json!({ "user_name": form("What is your name?", "name", "string"),
                "greeting": sampling("Generate a greeting"), "client_roots": roots() });
            required(requests, Some(SEAL))
        }
        "test_input_required_result_multi_round" => match (answer("step1"), answer("step2"), state)
        {
            (_, Some(_), Some("round-2")) => done("both steps".to_owned()),
            (Some(_), _, Some("round-1")) => {
                let step = form("Step 2: What is your favorite color?", "color", "string");
                required(json!({ "step2": step }), Some("round-2"))
            }
            _ => required(
                json!({ "step1": form("Step 1: What is your name?", "name", "string") }),
                Some("round-1"),
            ),
        },
        "test_input_required_result_capabilities" => {
            let declared = context.client_capabilities().unwrap_or_default();
            let mut requests = json!({});
            if declared.elicitation.is_some() {
                requests["name"] = form("What is your name?", "name", "string");
            }
            let can_sample = declared.sampling.is_some();
            if can_sample {
                requests["greeting"] = sampling("Generate a greeting");
            }
            if answers.is_empty() { required(requests, None) } else { done("answered".to_owned()) }
        }
        "test_streaming_elicitation" if answers.is_empty() => {
            required(json!({ "name": form("What is your name?", "name", "string") }), None)
        }
        _ => None,
    }
}

const TOOLS: [&str; 23] = [
    "test_simple_text",
    "test_image_content",
    "test_audio_content",
    "test_embedded_resource",
    "test_multiple_content_types",
    "test_tool_with_logging",
    "test_logging_tool",
    "test_error_handling",
    "test_tool_with_progress",
    "test_sampling",
    "test_elicitation",
    "test_elicitation_sep1034_defaults",
    "test_elicitation_sep1330_enums",
    "test_missing_capability",
    "test_streaming_elicitation",
    "test_input_required_result_elicitation",
    "test_input_required_result_sampling",
    "test_input_required_result_list_roots",
    "test_input_required_result_request_state",
    "test_input_required_result_tampered_state",
    "test_input_required_result_multiple_inputs",
    "test_input_required_result_multi_round",
    "test_input_required_result_capabilities",
];

/// Asks the client of an earlier version in the middle of a call.
async fn ask_client(context: &Context, request: Value) -> Result<Value, ErrorData> {
    let request: ServerRequest = read(request)?;
    let answer = context.peer.send_request(request).await;
    let answer = answer.map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
    serde_json::to_value(answer).map_err(|error| ErrorData::internal_error(error.to_string(), None))
}

async fn tell(context: &Context, notification: Value) -> Result<(), ErrorData> {
    let notification: ServerNotification = read(notification)?;
    // A client that doesn't listen is none of the tool's affairs.
    context.peer.send_notification(notification).await.ok();
    Clock::system().sleep(std::time::Duration::from_millis(50)).await;
    Ok(())
}

async fn elicit(context: &Context, message: &str, schema: Value) -> Result<Value, ErrorData> {
    let params = json!({ "mode": "form", "message": message, "requestedSchema": schema });
    let answer =
        ask_client(context, json!({ "method": "elicitation/create", "params": params })).await?;
    Ok(text(format!("User response: {answer}")))
}

async fn call(name: &str, arguments: &Value, context: &Context) -> Result<Value, ErrorData> {
    Ok(match name {
        "test_simple_text" => text("This is a simple text response for testing."),
        "test_image_content" => {
            json!({ "content": [{ "type": "image", "data": PNG, "mimeType": "image/png" }] })
        }
        "test_audio_content" => {
            json!({ "content": [{ "type": "audio", "data": WAV, "mimeType": "audio/wav" }] })
        }
        "test_embedded_resource" => json!({ "content": [{ "type": "resource", "resource": {
            "uri": "test://embedded-resource", "mimeType": "text/plain",
            "text": "This is an embedded resource content." } }] }),
        "test_multiple_content_types" => json!({ "content": [
            { "type": "text", "text": "Multiple content types test:" },
            { "type": "image", "data": PNG, "mimeType": "image/png" },
            { "type": "resource", "resource": { "uri": "test://mixed-content-resource",
                "mimeType": "application/json", "text": "{\"test\":\"data\",\"value\":123}" } }] }),
        "test_error_handling" => json!({ "isError": true, "content": [{ "type": "text",
            "text": "This tool intentionally returns an error for testing" }] }),
        "test_tool_with_logging" => {
            for data in
                ["Tool execution started", "Tool processing data", "Tool execution completed"]
            {
                let params = json!({ "level": "info", "data": data });
                tell(context, json!({ "method": "notifications/message", "params": params }))
                    .await?;
            }
            text("logged")
        }
        "test_tool_with_progress" => {
            for progress in [0, 50, 100] {
                if let Some(token) = context.meta.get_progress_token() {
                    let params =
                        json!({ "progressToken": token, "progress": progress, "total": 100 });
                    tell(context, json!({ "method": "notifications/progress", "params": params }))
                        .await?;
                }
            }
            text("done")
        }
        "test_sampling" => {
            let prompt = arguments["prompt"].as_str().unwrap_or_default();
            let answer = ask_client(context, sampling(prompt)).await?;
            text(format!("LLM response: {}", answer["content"]))
        }
        "test_elicitation" => {
            let message = arguments["message"].as_str().unwrap_or_default();
            let schema = json!({ "type": "object", "properties": {
                "username": { "type": "string", "description": "User's response" },
                "email": { "type": "string", "description": "User's email address" } },
                "required": ["username", "email"] });
            elicit(context, message, schema).await?
        }
        "test_elicitation_sep1034_defaults" => {
            let schema = json!({ "type": "object", "properties": {
                "name": { "type": "string", "default": "John Doe" },
                "age": { "type": "integer", "default": 30 },
                "score": { "type": "number", "default": 95.5 },
                "status": { "type": "string", "enum": ["active", "inactive", "pending"], "default": "active" },
                "verified": { "type": "boolean", "default": true } } });
            elicit(context, "Defaults", schema).await?
        }
        "test_elicitation_sep1330_enums" => {
            let titled = |title: &str| {
                let option = |(value, nth): (&str, &str)| json!({ "const": value, "title": format!("{nth} {title}") });
                [("value1", "First"), ("value2", "Second"), ("value3", "Third")].map(option)
            };
            let plain = ["option1", "option2", "option3"];
            let schema = json!({ "type": "object", "properties": {
                "untitledSingle": { "type": "string", "enum": plain },
                "titledSingle": { "type": "string", "oneOf": titled("Option") },
                "legacyEnum": { "type": "string", "enum": ["opt1", "opt2", "opt3"],
                    "enumNames": ["Option One", "Option Two", "Option Three"] },
                "untitledMulti": { "type": "array", "items": { "type": "string", "enum": plain } },
                "titledMulti": { "type": "array", "items": { "anyOf": titled("Choice") } } } });
            elicit(context, "Choices", schema).await?
        }
        "test_missing_capability" => {
            let declared = context.client_capabilities().unwrap_or_default();
            if declared.sampling.is_none() {
                let needed = read(json!({ "sampling": {} }))?;
                return Err(ErrorData::missing_required_client_capability(needed));
            }
            text("it's there")
        }
        "test_logging_tool" | "test_streaming_elicitation" => text("done"),
        _ => return Err(ErrorData::invalid_params(format!("there is no tool {name}"), None)),
    })
}

impl ServerHandler for Fixture {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_prompts()
            .enable_resources()
            .enable_resources_subscribe()
            .enable_logging()
            .enable_completions()
            .build();
        ServerConfig::new(capabilities).with_server_info(Implementation::new("fixture", "1"))
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: Context,
    ) -> Result<ListToolsResult, ErrorData> {
        let tool = |name: &str| json!({ "name": name, "description": name, "inputSchema": { "type": "object" } });
        Ok(ListToolsResult::with_all_items(read(TOOLS.map(tool).into())?))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: Context,
    ) -> Result<CallToolResponse, ErrorData> {
        let answers = request.input_responses.unwrap_or_default();
        let state = request.request_state.as_deref();
        if let Some(asked) = ask_back(&request.name, &answers, state, &context) {
            return asked;
        }
        let arguments = Value::Object(request.arguments.unwrap_or_default());
        let result = call(&request.name, &arguments, &context).await?;
        Ok(CallToolResponse::Complete(whole(result)?))
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: Context,
    ) -> Result<ListResourcesResult, ErrorData> {
        let resources = json!([
            { "uri": "test://static-text", "name": "text", "description": "A text.", "mimeType": "text/plain" },
            { "uri": "test://static-binary", "name": "image", "description": "An image.", "mimeType": "image/png" }
        ]);
        Ok(ListResourcesResult::with_all_items(read(resources)?))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: Context,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let templates = json!([{ "uriTemplate": "test://template/{id}/data", "name": "data",
            "description": "Data by id.", "mimeType": "application/json" }]);
        Ok(ListResourceTemplatesResult::with_all_items(read(templates)?))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: Context,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let uri = request.uri.as_str();
        let id = uri.strip_prefix("test://template/").and_then(|rest| rest.strip_suffix("/data"));
        let content = match (uri, id) {
            ("test://static-text", _) => json!({ "uri": uri, "mimeType": "text/plain",
                "text": "This is the content of the static text resource." }),
            ("test://static-binary", _) => {
                json!({ "uri": uri, "mimeType": "image/png", "blob": PNG })
            }
            (_, Some(id)) => {
                let data =
                    json!({ "id": id, "templateTest": true, "data": format!("Data for ID: {id}") });
                json!({ "uri": uri, "mimeType": "application/json", "text": data.to_string() })
            }
            _ => {
                return Err(ErrorData::invalid_params(
                    "Resource not found",
                    Some(json!({ "uri": uri })),
                ));
            }
        };
        Ok(ReadResourceResponse::Complete(whole(json!({ "contents": [content] }))?))
    }

    async fn subscribe(&self, _: SubscribeRequestParams, _: Context) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn unsubscribe(&self, _: UnsubscribeRequestParams, _: Context) -> Result<(), ErrorData> {
        Ok(())
    }

    fn accepted_subscription_filter(
        &self,
        requested: &SubscriptionFilter,
    ) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: Context,
    ) -> Result<ListPromptsResult, ErrorData> {
        let argument = |name: &str| json!({ "name": name, "description": name, "required": true });
        let prompts = json!([
            { "name": "test_simple_prompt", "description": "Simple." },
            { "name": "test_prompt_with_arguments", "description": "With arguments.",
              "arguments": [argument("arg1"), argument("arg2")] },
            { "name": "test_prompt_with_embedded_resource", "description": "With a resource.",
              "arguments": [argument("resourceUri")] },
            { "name": "test_prompt_with_image", "description": "With an image." },
            { "name": "test_input_required_result_prompt", "description": "Asks back." }
        ]);
        Ok(ListPromptsResult::with_all_items(read(prompts)?))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _: Context,
    ) -> Result<GetPromptResponse, ErrorData> {
        let arguments = json!(request.arguments);
        let argument = |name: &str| arguments[name].as_str().unwrap_or_default();
        let user = |content: Value| json!({ "role": "user", "content": content });
        let says = |words: String| user(json!({ "type": "text", "text": words }));
        let messages = match request.name.as_str() {
            "test_simple_prompt" => vec![says("This is a simple prompt for testing.".to_owned())],
            "test_prompt_with_arguments" => {
                let (one, two) = (argument("arg1"), argument("arg2"));
                vec![says(format!("Prompt with arguments: arg1='{one}', arg2='{two}'"))]
            }
            "test_prompt_with_embedded_resource" => vec![
                user(json!({ "type": "resource", "resource": { "uri": argument("resourceUri"),
                    "mimeType": "text/plain", "text": "Embedded resource content for testing." } })),
                says("Please process the embedded resource above.".to_owned()),
            ],
            "test_prompt_with_image" => vec![
                user(json!({ "type": "image", "data": PNG, "mimeType": "image/png" })),
                says("Please analyze the image above.".to_owned()),
            ],
            "test_input_required_result_prompt" => {
                let answers = request.input_responses.unwrap_or_default();
                let Some(answer) = answers.get("user_context") else {
                    let question = form("What context should the prompt use?", "context", "string");
                    let asks = asks(json!({ "user_context": question }), None)?;
                    return Ok(GetPromptResponse::InputRequired(asks));
                };
                vec![says(answer["content"]["context"].to_string())]
            }
            name => {
                return Err(ErrorData::invalid_params(format!("there is no prompt {name}"), None));
            }
        };
        Ok(GetPromptResponse::Complete(whole(json!({ "messages": messages }))?))
    }

    async fn complete(
        &self,
        _: CompleteRequestParams,
        _: Context,
    ) -> Result<CompleteResult, ErrorData> {
        whole(
            json!({ "completion": { "values": ["paris", "park"], "total": 2, "hasMore": false } }),
        )
    }

    async fn set_level(&self, _: SetLevelRequestParams, _: Context) -> Result<(), ErrorData> {
        Ok(())
    }
}
