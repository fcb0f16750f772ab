//! The node as an MCP server, and the official client, over HTTP and over standard streams.

use neuroflow::{AgentBuilder, Answer, AnyAgent, Echo, McpServer, Node, NodeBuilder, Turn};

use crate::support::{eventually, loopback, mcp_packages, profile, run_program, standard, start};
use crate::untried::untried;

/// Asks which city, and waits for the answer.
fn ask() -> AnyAgent {
    AgentBuilder::new("ask", "Asks back.").on_ask(|_, context| async move {
        let answer = context.ask_user(Turn::agent("which city?")).await?;
        Ok(Answer::text(format!("{} it is", answer.text())))
    })
}

/// Says something and never ends.
fn slow() -> AnyAgent {
    AgentBuilder::new("slow", "Takes its time.").on_ask(|_, context| async move {
        context.say("step").await?;
        std::future::pending::<()>().await;
        Ok(Answer::done())
    })
}

fn node() -> NodeBuilder {
    let node = Node::builder().agent(AnyAgent::new(Echo)).agent(ask()).agent(slow());
    let node = node.sandbox(profile(standard())).gateway(loopback());
    node.mcp_server(McpServer { http: true, exec: true })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_client_works_over_http_in_both_versions() {
    let Some(packages) = mcp_packages() else { return };
    let (node, to) = start(node()).await;
    let run = move || {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/flows/mcp_client.py");
        let python = packages.join("venv/bin/python").to_string_lossy().into_owned();
        let url = format!("http://{to}/mcp");
        run_program(&[&python, script, "http", &url], &[("NO_PROXY", "*")])
    };
    let said = tokio::task::spawn_blocking(run).await.expect("it doesn't panic");
    let said = said.unwrap_or_else(|complaint| panic!("{complaint}"));
    assert!(said.contains("the official client agrees: 2026-07-28 2025-11-25"), "{said}");
    // What the client gave up was cancelled, and nothing else runs on.
    let tree = || node.census().tree();
    eventually("the end of the slow tasks", || {
        !tree().iter().any(|actor| actor.path.to_string().starts_with("/agents/slow/"))
    })
    .await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_client_works_over_streams_in_both_versions() {
    let Some(packages) = mcp_packages() else { return };
    let Some(binary) = option_env!("CARGO_BIN_EXE_neuroflow") else {
        return untried("the official client over streams", "built without the feature `server`");
    };
    let run = move || {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/flows/mcp_client.py");
        let python = packages.join("venv/bin/python").to_string_lossy().into_owned();
        let node = [binary, "mcp", "--agents-enabled=echo", "--mcp-server-exec=true"];
        run_program(&[&[&*python, script, "stdio"][..], &node].concat(), &[])
    };
    let said = tokio::task::spawn_blocking(run).await.expect("it doesn't panic");
    let said = said.unwrap_or_else(|complaint| panic!("{complaint}"));
    assert!(said.contains("the official client agrees: 2026-07-28 2025-11-25"), "{said}");
}
