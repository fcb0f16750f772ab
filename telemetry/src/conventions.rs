//! OpenTelemetry's names, pinned, so that an upgrade is a change of this file.
//!
//! Core names are those of [`SCHEMA_URL`]; the `gen_ai.*` ones are still in development and follow
//! the separate registry at its version 0.1.0; `a2a.*` is a proposal. Message content
//! (`gen_ai.input.messages` and its like) is deliberately not among them: it's opt-in.
//!
//! ```
//! use neuroflow_telemetry::conventions::{attribute, operation};
//! assert_eq!(attribute::GEN_AI_OPERATION_NAME, "gen_ai.operation.name");
//! assert_eq!(operation::EXECUTE_TOOL, "execute_tool");
//! ```

/// The schema that the core names follow.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

/// The instrumentation scope of every span.
pub const SCOPE: &str = "neuroflow";

/// Attributes of the resource: what produces the telemetry.
pub mod resource {
    /// The service, the same for all its instances.
    pub const SERVICE_NAME: &str = "service.name";
    /// Its version.
    pub const SERVICE_VERSION: &str = "service.version";
    /// Which instance of it.
    pub const SERVICE_INSTANCE_ID: &str = "service.instance.id";
    /// What tells it from other services of the same name.
    pub const SERVICE_NAMESPACE: &str = "service.namespace";
    /// The host.
    pub const HOST_NAME: &str = "host.name";
    /// The process.
    pub const PROCESS_PID: &str = "process.pid";
}

/// Attributes of spans.
pub mod attribute {
    /// The kind of error; there exactly when a span's status is an error.
    pub const ERROR_TYPE: &str = "error.type";

    /// The method of an HTTP request.
    pub const HTTP_REQUEST_METHOD: &str = "http.request.method";
    /// The route that it matched, never the path.
    pub const HTTP_ROUTE: &str = "http.route";
    /// The status of the answer.
    pub const HTTP_RESPONSE_STATUS_CODE: &str = "http.response.status_code";
    /// `http` or `https`.
    pub const URL_SCHEME: &str = "url.scheme";
    /// The path of the request.
    pub const URL_PATH: &str = "url.path";

    /// The host that a client asks.
    pub const SERVER_ADDRESS: &str = "server.address";
    /// The port that a client asks.
    pub const SERVER_PORT: &str = "server.port";
    /// `tcp`, `quic` or `pipe`.
    pub const NETWORK_TRANSPORT: &str = "network.transport";

    /// What is done: one of [`operation`](super::operation).
    pub const GEN_AI_OPERATION_NAME: &str = "gen_ai.operation.name";
    /// Who runs the model.
    pub const GEN_AI_PROVIDER_NAME: &str = "gen_ai.provider.name";
    /// The agent.
    pub const GEN_AI_AGENT_NAME: &str = "gen_ai.agent.name";
    /// The conversation: a real id, never one made up for the span.
    pub const GEN_AI_CONVERSATION_ID: &str = "gen_ai.conversation.id";
    /// The model that was asked for.
    pub const GEN_AI_REQUEST_MODEL: &str = "gen_ai.request.model";
    /// The model that answered.
    pub const GEN_AI_RESPONSE_MODEL: &str = "gen_ai.response.model";
    /// Why the model stopped.
    pub const GEN_AI_RESPONSE_FINISH_REASONS: &str = "gen_ai.response.finish_reasons";
    /// Tokens read, cached ones included.
    pub const GEN_AI_USAGE_INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
    /// Tokens written, reasoning included.
    pub const GEN_AI_USAGE_OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
    /// The tool.
    pub const GEN_AI_TOOL_NAME: &str = "gen_ai.tool.name";
    /// `function`, `extension` or `datastore`.
    pub const GEN_AI_TOOL_TYPE: &str = "gen_ai.tool.type";
    /// The call, as the model named it.
    pub const GEN_AI_TOOL_CALL_ID: &str = "gen_ai.tool.call.id";

    /// A method of the Model Context Protocol.
    pub const MCP_METHOD_NAME: &str = "mcp.method.name";
    /// A method of the A2A protocol.
    pub const A2A_METHOD_NAME: &str = "a2a.method.name";
    /// A task of the A2A protocol.
    pub const A2A_TASK_ID: &str = "a2a.task.id";

    /// Which remote procedure call system.
    pub const RPC_SYSTEM_NAME: &str = "rpc.system.name";
    /// The method, as `service/method`.
    pub const RPC_METHOD: &str = "rpc.method";

    /// The program that ran in a sandbox.
    pub const PROCESS_EXECUTABLE_NAME: &str = "process.executable.name";
    /// How it ended.
    pub const PROCESS_EXIT_CODE: &str = "process.exit.code";
}

/// Values of `gen_ai.operation.name`.
pub mod operation {
    /// An agent handles a task.
    pub const INVOKE_AGENT: &str = "invoke_agent";
    /// A model is asked.
    pub const CHAT: &str = "chat";
    /// A tool is called.
    pub const EXECUTE_TOOL: &str = "execute_tool";
}

/// Bucket bounds that the conventions give.
pub mod buckets {
    /// Seconds of HTTP and remote procedure calls.
    pub const REQUEST: &[f64] =
        &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
    /// Seconds of model and tool calls.
    pub const INFERENCE: &[f64] =
        &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
    /// Seconds of Model Context Protocol operations.
    pub const PROTOCOL: &[f64] =
        &[0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];
    /// Seconds of an agent's task.
    pub const AGENT: &[f64] =
        &[0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 409.6];
    /// Tokens of one call.
    pub const TOKENS: &[f64] = &[
        1.0,
        4.0,
        16.0,
        64.0,
        256.0,
        1_024.0,
        4_096.0,
        16_384.0,
        65_536.0,
        262_144.0,
        1_048_576.0,
        4_194_304.0,
        16_777_216.0,
        67_108_864.0,
    ];
    /// Model or tool calls of one task.
    pub const CALLS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];
    /// Seconds of messages between actors of one process: far finer than any request.
    pub const MESSAGE: &[f64] =
        &[1e-6, 5e-6, 1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 0.1, 0.5, 1.0, 5.0];
}
