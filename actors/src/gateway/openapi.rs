//! The description of the gateway's own paths, as `OpenAPI` 3.1: what is served at `/openapi.json`.
//!
//! The messages of A2A are described by its own definition; here they're named, not repeated.

use serde_json::{Map, Value, json};

use super::{Mount, SecurityScheme};

/// Where it's served.
pub(super) const PATH: &str = "/openapi.json";

/// One operation.
struct Row {
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    tag: &'static str,
    body: Option<Body>,
    answer: Answer,
}

/// What is sent.
#[derive(Clone, Copy)]
enum Body {
    /// A message of A2A in `ProtoJSON`.
    Message(&'static str),
    /// A schema of this document.
    Schema(&'static str),
    /// Bytes of gRPC.
    Grpc,
}

/// What comes back if all is well.
#[derive(Clone, Copy)]
enum Answer {
    Text,
    Nothing,
    Message(&'static str),
    Stream(&'static str),
    Schema(&'static str),
    /// Whole, or as a stream if that was asked for.
    Either(&'static str, &'static str),
    Grpc,
}

const NODE: &str = "node";
const CARDS: &str = "cards";
const RPC: &str = "a2a: JSON-RPC and gRPC";
const REST: &str = "a2a: HTTP+JSON";
const CHAT: &str = "chat completions";
const MOUNTED: &str = "further";

const fn get(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    tag: &'static str,
    answer: Answer,
) -> Row {
    Row { method: "get", path, id, summary, tag, body: None, answer }
}

const fn post(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    tag: &'static str,
    body: Body,
    answer: Answer,
) -> Row {
    Row { method: "post", path, id, summary, tag, body: Some(body), answer }
}

/// Paths that are there once.
const ONCE: [Row; 13] = [
    get("/healthz", "getHealth", "Says that the process serves.", NODE, Answer::Text),
    get(
        "/readyz",
        "getReadiness",
        "Says whether new work is taken; 503 if not.",
        NODE,
        Answer::Text,
    ),
    get(PATH, "getDescription", "This document.", NODE, Answer::Schema("Object")),
    get("/agents", "listCards", "The cards of all agents.", CARDS, Answer::Schema("Object")),
    get(
        "/.well-known/agent-card.json",
        "getRootCard",
        "The card of the agent at the root.",
        CARDS,
        Answer::Message("AgentCard"),
    ),
    get(
        "/agents/{agent}/.well-known/agent-card.json",
        "getCard",
        "The card of an agent.",
        CARDS,
        Answer::Message("AgentCard"),
    ),
    get(
        "/.well-known/jwks.json",
        "getKeys",
        "The public keys that cards are signed with; 404 if they aren't.",
        CARDS,
        Answer::Schema("Object"),
    ),
    post(
        "/",
        "callRoot",
        "Calls a method of A2A on the agent at the root.",
        RPC,
        Body::Schema("RpcRequest"),
        Answer::Either("RpcResponse", "RpcResponse"),
    ),
    post(
        "/agents/{agent}",
        "call",
        "Calls a method of A2A on an agent.",
        RPC,
        Body::Schema("RpcRequest"),
        Answer::Either("RpcResponse", "RpcResponse"),
    ),
    post(
        "/lf.a2a.v1.A2AService/{method}",
        "callGrpc",
        "Calls a method of the gRPC service; the tenant names the agent.",
        RPC,
        Body::Grpc,
        Answer::Grpc,
    ),
    get("/v1/models", "ListModels", "The agents as models.", CHAT, Answer::Schema("ModelList")),
    get("/v1/models/{model}", "GetModel", "An agent as a model.", CHAT, Answer::Schema("Model")),
    post(
        "/v1/chat/completions",
        "CreateChatCompletion",
        "Asks an agent. A client that goes away ends the task.",
        CHAT,
        Body::Schema("ChatRequest"),
        Answer::Either("ChatCompletion", "ChatCompletionChunk"),
    ),
];

/// Paths that are there for the agent at the root and below each agent.
const PER_AGENT: [Row; 12] = [
    post(
        "/message:send",
        "SendMessage",
        "Begins a task or goes on with one, and waits.",
        REST,
        Body::Message("SendMessageRequest"),
        Answer::Message("SendMessageResponse"),
    ),
    post(
        "/message:stream",
        "SendStreamingMessage",
        "Begins a task or goes on with one, and follows it.",
        REST,
        Body::Message("SendMessageRequest"),
        Answer::Stream("StreamResponse"),
    ),
    get("/tasks", "ListTasks", "A page of tasks.", REST, Answer::Message("ListTasksResponse")),
    get("/tasks/{id}", "GetTask", "A task.", REST, Answer::Message("Task")),
    post(
        "/tasks/{id}:cancel",
        "CancelTask",
        "Ends a task and all that works for it.",
        REST,
        Body::Message("CancelTaskRequest"),
        Answer::Message("Task"),
    ),
    get(
        "/tasks/{id}:subscribe",
        "SubscribeToTask",
        "Follows a task.",
        REST,
        Answer::Stream("StreamResponse"),
    ),
    post(
        "/tasks/{id}:subscribe",
        "SubscribeToTaskByPost",
        "Follows a task, as the protocol's prose has it.",
        REST,
        Body::Message("SubscribeToTaskRequest"),
        Answer::Stream("StreamResponse"),
    ),
    post(
        "/tasks/{id}/pushNotificationConfigs",
        "CreateTaskPushNotificationConfig",
        "Has a task's events posted to a webhook.",
        REST,
        Body::Message("TaskPushNotificationConfig"),
        Answer::Message("TaskPushNotificationConfig"),
    ),
    get(
        "/tasks/{id}/pushNotificationConfigs",
        "ListTaskPushNotificationConfigs",
        "The webhooks of a task.",
        REST,
        Answer::Message("ListTaskPushNotificationConfigsResponse"),
    ),
    get(
        "/tasks/{id}/pushNotificationConfigs/{configId}",
        "GetTaskPushNotificationConfig",
        "A webhook of a task.",
        REST,
        Answer::Message("TaskPushNotificationConfig"),
    ),
    Row {
        method: "delete",
        path: "/tasks/{id}/pushNotificationConfigs/{configId}",
        id: "DeleteTaskPushNotificationConfig",
        summary: "Forgets a webhook of a task.",
        tag: REST,
        body: None,
        answer: Answer::Nothing,
    },
    get(
        "/extendedAgentCard",
        "GetExtendedAgentCard",
        "The card for those who have proved who they are.",
        REST,
        Answer::Message("AgentCard"),
    ),
];

/// The document, for a gateway that clients know by this URL.
pub(super) fn document(
    base_url: &str,
    version: &str,
    security: &[SecurityScheme],
    mounts: &[Mount],
) -> Value {
    let mut paths = Map::new();
    for row in &ONCE {
        add(&mut paths, row.path.to_owned(), row.id, row);
    }
    for row in &PER_AGENT {
        add(&mut paths, row.path.to_owned(), row.id, row);
        let below = format!("/agents/{{agent}}{}", row.path);
        add(&mut paths, below, &format!("{}OfAgent", row.id), row);
    }
    for (path, summary) in mounts.iter().flat_map(|mount| &mount.described) {
        let (body, answer) = (Body::Schema("Object"), Answer::Either("Object", "Object"));
        let id = format!("post{}", path.replace('/', "_"));
        add(&mut paths, (*path).to_owned(), &id, &post(path, "", summary, MOUNTED, body, answer));
    }
    let mut components = json!({ "schemas": schemas() });
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "neuroflow",
            "version": version,
            "description": "Agents over A2A 1.0 and as models of chat completions. The messages of \
                            A2A are those of lf.a2a.v1 in ProtoJSON; every path of its HTTP+JSON \
                            binding is there below a tenant too.",
        },
        "servers": [{ "url": base_url }],
        "paths": paths,
    });
    if !security.is_empty() {
        let named = security.iter().map(|scheme| (scheme.name().to_owned(), written(scheme)));
        components["securitySchemes"] = Value::Object(named.collect());
        let any = security.iter().map(|scheme| json!({ scheme.name(): [] }));
        document["security"] = any.collect();
    }
    document["components"] = components;
    document
}

fn written(scheme: &SecurityScheme) -> Value {
    match scheme {
        SecurityScheme::Bearer { format } => {
            let mut written = json!({ "type": "http", "scheme": "bearer" });
            if let Some(format) = format {
                written["bearerFormat"] = json!(format);
            }
            written
        }
        SecurityScheme::OpenIdConnect { url } => {
            json!({ "type": "openIdConnect", "openIdConnectUrl": url })
        }
        SecurityScheme::MutualTls => json!({ "type": "mutualTLS" }),
    }
}

fn add(paths: &mut Map<String, Value>, path: String, id: &str, row: &Row) {
    let parameters: Vec<Value> = placeholders(&path)
        .map(|name| {
            json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } })
        })
        .collect();
    let mut operation = json!({
        "operationId": id,
        "summary": row.summary,
        "tags": [row.tag],
        "parameters": parameters,
        "responses": responses(row),
    });
    if let Some(body) = row.body {
        let content = match body {
            Body::Message(name) => json!({
                "application/a2a+json": { "schema": message(name) },
                "application/json": { "schema": message(name) },
            }),
            Body::Schema(name) => json!({ "application/json": { "schema": reference(name) } }),
            Body::Grpc => json!({ "application/grpc": {} }),
        };
        operation["requestBody"] = json!({ "required": true, "content": content });
    }
    let methods = paths.entry(path).or_insert_with(|| json!({}));
    methods[row.method] = operation;
}

/// The names in braces.
fn placeholders(path: &str) -> impl Iterator<Item = &str> {
    path.split('{').skip(1).filter_map(|rest| rest.split('}').next())
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// A message that A2A defines.
fn message(name: &str) -> Value {
    json!({ "type": "object", "title": name, "description": format!("lf.a2a.v1.{name}") })
}

fn responses(row: &Row) -> Value {
    let good = match row.answer {
        Answer::Text => json!({ "text/plain": { "schema": { "type": "string" } } }),
        Answer::Nothing => json!({ "application/a2a+json": { "schema": reference("Object") } }),
        Answer::Message(name) => json!({
            "application/a2a+json": { "schema": message(name) },
            "application/json": { "schema": message(name) },
        }),
        Answer::Stream(name) => json!({ "text/event-stream": { "schema": message(name) } }),
        Answer::Schema(name) => json!({ "application/json": { "schema": reference(name) } }),
        Answer::Either(whole, piece) => json!({
            "application/json": { "schema": reference(whole) },
            "text/event-stream": { "schema": reference(piece) },
        }),
        Answer::Grpc => json!({ "application/grpc": {} }),
    };
    let error = match row.tag {
        CHAT => "ChatError",
        RPC => "RpcResponse",
        _ => "Error",
    };
    let error = json!({ "application/json": { "schema": reference(error) } });
    json!({
        "200": { "description": "It was done.", "content": good },
        "default": { "description": "It wasn't done, and why.", "content": error },
    })
}

fn schemas() -> Value {
    let text = || json!({ "type": "string" });
    let model = json!({
        "type": "object",
        "required": ["id", "object", "created", "owned_by"],
        "properties": {
            "id": text(), "object": { "const": "model" },
            "created": { "type": "integer" }, "owned_by": text(),
        },
    });
    let completion = |object: &str| {
        json!({
            "type": "object",
            "required": ["id", "object", "created", "model", "choices"],
            "properties": {
                "id": text(), "object": { "const": object }, "created": { "type": "integer" },
                "model": text(), "choices": { "type": "array", "items": reference("Object") },
                "usage": {
                    "type": ["object", "null"],
                    "description": "As the agent says it; not there, or null, if it doesn't.",
                },
            },
        })
    };
    json!({
        "Object": { "type": "object" },
        "Error": {
            "type": "object",
            "description": "google.rpc.Status below `error`.",
            "required": ["error"],
            "properties": { "error": {
                "type": "object",
                "required": ["code", "message"],
                "properties": {
                    "code": { "type": "integer" }, "status": text(), "message": text(),
                    "details": { "type": "array", "items": reference("Object") },
                },
            } },
        },
        "RpcRequest": {
            "type": "object",
            "required": ["jsonrpc", "id", "method"],
            "properties": {
                "jsonrpc": { "const": "2.0" }, "id": { "type": ["string", "number"] },
                "method": text(), "params": reference("Object"),
            },
        },
        "RpcResponse": {
            "type": "object",
            "required": ["jsonrpc", "id"],
            "properties": {
                "jsonrpc": { "const": "2.0" }, "id": { "type": ["string", "number", "null"] },
                "result": {}, "error": reference("Object"),
            },
        },
        "Model": model,
        "ModelList": {
            "type": "object",
            "required": ["object", "data"],
            "properties": {
                "object": { "const": "list" },
                "data": { "type": "array", "items": reference("Model") },
            },
        },
        "ChatRequest": {
            "type": "object",
            "required": ["model", "messages"],
            "properties": {
                "model": { "type": "string", "description": "The name of an agent." },
                "messages": { "type": "array", "minItems": 1, "items": reference("Object") },
                "stream": { "type": ["boolean", "null"] },
                "stream_options": {
                    "type": ["object", "null"],
                    "properties": { "include_usage": { "type": ["boolean", "null"] } },
                },
                "tools": { "type": ["array", "null"], "items": reference("Object") },
                "tool_choice": {},
                "response_format": {
                    "type": ["object", "null"],
                    "required": ["type"],
                    "properties": { "type": { "enum": ["text", "json_object", "json_schema"] } },
                },
                "n": { "type": ["integer", "null"], "const": 1 },
            },
        },
        "ChatCompletion": completion("chat.completion"),
        "ChatCompletionChunk": completion("chat.completion.chunk"),
        "ChatError": {
            "type": "object",
            "required": ["error"],
            "properties": { "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": text(), "type": text(),
                    "param": { "type": ["string", "null"] }, "code": { "type": ["string", "null"] },
                },
            } },
        },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{http, rest};
    use super::*;

    fn paths() -> Map<String, Value> {
        let mount = Mount::new(|_| axum::Router::new()).describe("/more", "Does more.");
        let document = document("http://127.0.0.1:1", "0.1.0", &[], &[mount]);
        document["paths"].as_object().unwrap().clone()
    }

    #[test]
    fn every_route_of_the_router_is_in_it() {
        let paths = paths();
        for (route, _) in http::routes() {
            assert!(paths.contains_key(route), "{route} isn't described");
        }
        assert_eq!(paths["/more"]["post"]["summary"], "Does more.");
    }

    #[test]
    fn what_it_describes_is_routed() {
        let routed: BTreeSet<&str> = http::routes().into_iter().map(|(path, _)| path).collect();
        for (path, methods) in paths().iter().filter(|(path, _)| *path != "/more") {
            for method in methods.as_object().unwrap().keys() {
                let filled = path
                    .replace("{agent}", "echo")
                    .replace("{id}", "t1")
                    .replace("{configId}", "c1");
                let bound = rest::route(&method.to_uppercase(), &filled, None).is_ok();
                assert!(bound || routed.contains(path.as_str()), "{method} {path} leads nowhere");
            }
        }
    }

    #[test]
    fn every_operation_is_in_it_under_its_name() {
        let paths = paths();
        let mut ids = Vec::new();
        for operation in paths.values().flat_map(|methods| methods.as_object().unwrap().values()) {
            ids.push(operation["operationId"].as_str().unwrap().to_owned());
        }
        let unique: BTreeSet<&String> = ids.iter().collect();
        assert_eq!(unique.len(), ids.len());
        for operation in http::OPERATIONS {
            assert!(ids.iter().any(|id| id == operation), "{operation} isn't described");
        }
    }

    #[test]
    fn references_lead_to_schemas_and_placeholders_to_parameters() {
        let security = [SecurityScheme::Bearer { format: None }, SecurityScheme::MutualTls];
        let document = document("http://127.0.0.1:1", "0.1.0", &security, &[]);
        let text = document.to_string();
        let known = document["components"]["schemas"].as_object().unwrap();
        let prefix = "\"$ref\":\"#/components/schemas/";
        for rest in text.split(prefix).skip(1) {
            let name = rest.split('"').next().unwrap();
            assert!(known.contains_key(name), "{name}");
        }
        for (path, methods) in document["paths"].as_object().unwrap() {
            for operation in methods.as_object().unwrap().values() {
                let parameters = operation["parameters"].as_array().unwrap().len();
                assert_eq!(parameters, path.matches('{').count(), "{path}");
            }
        }
        assert_eq!(document["security"], json!([{ "bearer": [] }, { "mtls": [] }]));
        assert!(document["components"]["securitySchemes"]["mtls"]["type"] == "mutualTLS");
    }
}
