//! Agents, the tool router and the gateway, as supervised actors.

pub mod limits;

mod agent;
mod builtin;
mod gateway;
mod tools;

pub use agent::{
    ASK, Agent, AgentBuilder, AgentCommand, AgentError, AgentProfile, AgentServer, Answer,
    AnyAgent, ArchivedAsk, ArchivedChange, ArchivedContent, ArchivedPart, ArchivedTaskEvent,
    ArchivedTurn, Artifact, Ask, CANCEL, CancelError, Change, Content, Incoming, InputProblem,
    Part, READ, Role, Skill, TaskContext, TaskEvent, TaskEvents, TaskState, Turn, follow,
};
pub use builtin::{Echo, Shell};
pub use gateway::{
    GatewayAgent, GatewayCommand, GatewayConfig, GatewayError, GatewayServer, Meter, gateway_child,
};
pub use tools::{
    AnyTool, ExecArguments, ExecOutput, ExecTool, INVOKE, Invoke, InvokeError, Outcome, Problem,
    Refused, SchemaError, Tool, ToolContext, ToolEntry, ToolError, ToolGrant, ToolResult,
    ToolServer, ToolsCommand, invoke,
};
