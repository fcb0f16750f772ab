//! What of a node's settings would do nothing is refused at its start, by name; and whose a tool is, is told as it is.

use neuroflow::actors::PushOptions;
use neuroflow::{
    AccessConfig, AgentBuilder, AnyAgent, AnyTool, BootError, Echo, McpServer, McpSource,
    McpTransport, Meter, Metered, Node, NodeBuilder, PythonTool, ToolError, tool,
};

use crate::support::{Nothing, caller, loopback, profile, standard};

/// Does nothing.
#[tool]
async fn noop(_: Nothing) -> Result<(), ToolError> {
    Ok(())
}

/// Runs nothing.
#[tool]
async fn exec(_: Nothing) -> Result<(), ToolError> {
    Ok(())
}

#[derive(Debug)]
struct Counts;

impl Meter for Counts {
    fn request(&self, _: &Metered) {}
}

async fn refusal(node: NodeBuilder) -> String {
    let refused = node.start().await.expect_err("it's refused");
    let is_of_settings = matches!(
        refused,
        BootError::Idle { .. }
            | BootError::SameTool { .. }
            | BootError::NoTool { .. }
            | BootError::NoAgent { .. }
    );
    assert!(is_of_settings, "{refused}");
    refused.to_string()
}

#[tokio::test]
async fn settings_of_a_gateway_or_sandbox_that_is_not_there_are_refused() {
    let echo = || Node::builder().agent(AnyAgent::new(Echo));
    let serve = |http, runs| echo().mcp_server(McpServer { http, exec: runs });
    for (node, setting, needs) in [
        (echo().access(AccessConfig::default()), "access", "gateway"),
        (echo().push_notifications(PushOptions::default()), "push_notifications", "gateway"),
        (
            echo().meter(std::sync::Arc::new(Counts), std::sync::Arc::new(|| true)),
            "meter",
            "gateway",
        ),
        (serve(true, false), "mcp_server.http", "gateway"),
        (serve(true, true).gateway(loopback()), "mcp_server.exec", "sandbox"),
    ] {
        let refused = refusal(node).await;
        assert!(refused.starts_with(&format!("{setting:?} does nothing without {needs:?}")));
    }
    let node = serve(false, false).start().await.expect("it's served over streams");
    node.stop().await;
}

#[tokio::test]
async fn a_tool_that_nobody_could_call_is_refused() {
    let agent = || AgentBuilder::new("a", "Has tools.");
    let shared = |tool| Node::builder().agent(AnyAgent::new(Echo)).tool(tool);
    for (node, told) in [
        (Node::builder().agent(caller(agent().tool(noop).tool(noop))), r#""noop" of agent "a""#),
        (shared(AnyTool::new(noop)).tool(AnyTool::new(noop)), r#""noop" that agents share"#),
        (shared(AnyTool::new(exec)).sandbox(profile(standard())), r#""exec" that agents share"#),
        (
            Node::builder()
                .agent(caller(agent().tool(exec).shared_tool("exec")))
                .sandbox(profile(standard())),
            r#""exec" of agent "a""#,
        ),
    ] {
        let refused = refusal(node).await;
        assert!(refused.contains(told), "{refused}");
    }
}

#[tokio::test]
async fn names_that_nothing_has_are_refused() {
    let wants =
        |tool| Node::builder().agent(caller(AgentBuilder::new("a", "Calls.").shared_tool(tool)));
    for (node, tool) in
        [(wants("exce").sandbox(profile(standard())), "exce"), (wants("exec"), "exec")]
    {
        let refused = refusal(node).await;
        assert!(refused.starts_with(&format!(r#"agent "a" names the shared tool {tool:?}"#)));
    }
    let typo = McpSource::new("far", McpTransport::http("https://mcp.example.com/", Vec::new()));
    let node = Node::builder().agent(AnyAgent::new(Echo)).mcp(typo.agents(["echo", "ehco"]));
    let refused = refusal(node).await;
    assert!(refused.contains(r#""far" are for an agent "ehco""#), "{refused}");
}

#[tokio::test]
async fn a_tool_is_listed_as_what_it_is() {
    let own = caller(AgentBuilder::new("own", "Has one.").tool(exec));
    let nodes =
        caller(AgentBuilder::new("nodes", "Runs.").shared_tool("exec").shared_tool("python"));
    let node = Node::builder().agent(own).agent(nodes).sandbox(profile(standard()));
    let node = node.start().await.expect("the node starts");
    let tools = node.tools().await.expect("the router answers");
    let told: Vec<_> = tools
        .iter()
        .map(|tool| {
            let agents = tool.agents.as_deref().unwrap_or_default();
            (tool.name.as_str(), tool.origin.as_str(), agents.join(" "))
        })
        .collect();
    let expected = [
        ("exec", "node", "nodes".to_owned()),
        ("exec", "agent", "own".to_owned()),
        (PythonTool::NAME, "node", "nodes".to_owned()),
    ];
    assert_eq!(told, expected);
    node.stop().await;
}
