//! What wasn't granted can't be reached: not by an agent, not by a message, not over HTTP.

use std::time::Duration;

use neuroflow::actors::{
    INVOKE, InvokeError, Refused, ToolEntry, ToolGrant, ToolServer, ToolsCommand, invoke,
};
use neuroflow::kernel::{Address, ChildSpec, Denied, LookupError, Parcel, Refusal, Request};
use neuroflow::sandbox::{ArchivedExecEvent, Exec, SandboxCommand};
use neuroflow::{
    AgentBuilder, Answer, AnyAgent, AnyTool, BootError, Header, Kernel, Node, Restriction, Rights,
    ToolError, tool,
};
use serde_json::json;

use crate::client::{Connection, request, send_data, send_text};
use crate::support::{
    Nothing, caller, loopback, output, profile, said, shell_node, standard, start, state,
};

/// Says who owns it.
#[tool]
async fn whose(_: Nothing) -> Result<&'static str, ToolError> {
    Ok("the first agent's")
}

mod other {
    //! A tool of the same name that belongs to somebody else.

    use neuroflow::{ToolError, tool};

    use crate::support::Nothing;

    /// Says who owns it.
    #[tool]
    pub(super) async fn whose(_: Nothing) -> Result<&'static str, ToolError> {
        Ok("the second agent's")
    }
}

#[tokio::test]
async fn an_agent_without_the_grant_has_no_exec() {
    let node = Node::builder()
        .agent(caller(AgentBuilder::new("plain", "Has no tools.")))
        .agent(caller(AgentBuilder::new("granted", "May run programs.").shared_tool("exec")))
        .sandbox(profile(standard()))
        .gateway(loopback());
    let (node, to) = start(node).await;
    let call = json!({ "tool": "exec", "arguments": { "command": ["echo", "hi"] } });
    let task = send_data(to, "/agents/plain", call.clone()).await;
    assert_eq!(output(&task), "unknown_tool: there is no tool \"exec\" for this agent");
    let task = send_data(to, "/agents/granted", call).await;
    assert!(output(&task).contains(r#""stdout":"hi\n""#), "{}", output(&task));
    node.stop().await;
}

#[tokio::test]
async fn an_agents_own_tool_is_nobody_elses() {
    let node = Node::builder()
        .agent(caller(AgentBuilder::new("first", "Has a tool.").tool(whose)))
        .agent(caller(AgentBuilder::new("second", "Has one too.").tool(other::whose)))
        .agent(caller(AgentBuilder::new("third", "Has none.")))
        .gateway(loopback());
    let (node, to) = start(node).await;
    for (agent, answer) in [
        ("first", "done: \"the first agent's\""),
        ("second", "done: \"the second agent's\""),
        ("third", "unknown_tool: there is no tool \"whose\" for this agent"),
    ] {
        let call = json!({ "tool": "whose", "arguments": {} });
        let task = send_data(to, &format!("/agents/{agent}"), call).await;
        assert_eq!(output(&task), answer);
    }
    node.stop().await;
}

#[tokio::test]
async fn a_capability_to_tools_can_be_narrowed_and_taken_back() {
    let kernel = Kernel::builder().start().await.expect("a kernel");
    let entry = ToolEntry { owner: None, tool: AnyTool::new(whose) };
    let router = ToolServer::new(vec![entry]).expect("a router");
    let (spec, tools) = ChildSpec::new("tools", move || router.clone()).expect("a name");
    kernel.root().start(spec).await.expect("the router starts");
    let call = |tools: Address<ToolsCommand>| async move {
        invoke(&tools, Header::new(), "whose", json!({})).await
    };
    let denied = |result| match result {
        Err(InvokeError::Router(neuroflow::kernel::AskError::Refused(Refusal::Denied(why)))) => why,
        other => panic!("not denied: {other:?}"),
    };
    let unknown = |result| matches!(result, Err(InvokeError::Refused(Refused::Unknown { tool })) if tool == "whose");
    let grant = |shared: &[&str]| ToolGrant { owner: "agent".into(), shared: owned(shared) };

    // Not even the owner's address reaches a tool: it says nothing about whose tools.
    assert!(unknown(call(tools.clone()).await));
    let restriction = Restriction::new().rights(INVOKE).policy(grant(&["whose"]));
    let granted = tools.attenuate(restriction).expect("a capability");
    assert_eq!(call(granted.clone()).await.expect("granted").text(), "the first agent's");

    let none = tools.attenuate(Restriction::new().policy(grant(&[]))).expect("a capability");
    // Whoever holds a capability can't widen it.
    let widened = none.attenuate(Restriction::new().rights(Rights::ALL).policy(grant(&["whose"])));
    assert!(unknown(call(widened.expect("a capability")).await));
    let powerless = granted.attenuate(Restriction::new().rights(Rights::NONE));
    let why = denied(call(powerless.expect("a capability")).await);
    assert!(matches!(why, Denied::Rights { .. }), "{why:?}");
    let once = granted.attenuate(Restriction::new().uses(1)).expect("a capability");
    assert!(call(once.clone()).await.is_ok());
    assert_eq!(denied(call(once).await), Denied::UsedUp);
    let past = granted.attenuate(Restriction::new().expires(kernel.clock().now()));
    assert_eq!(denied(call(past.expect("a capability")).await), Denied::Expired);

    let derived = granted.attenuate(Restriction::new()).expect("a capability");
    granted.revoke().expect("it isn't the owner's");
    assert_eq!(denied(call(derived).await), Denied::Revoked);
    kernel.stop().await;
}

#[tokio::test]
async fn a_cells_profile_comes_from_the_capability() {
    let of_the_node = profile(standard().env("GRANT", "the node's"));
    let (node, to) = start(shell_node().sandbox(of_the_node)).await;
    assert_eq!(output(&send_text(to, "/", "echo $GRANT").await), "the node's\n");
    // A message has no word for it.
    for field in ["profile", "level", "env", "policy"] {
        let data = json!({ "command": ["env"], field: { "level": "minimal" } });
        let task = send_data(to, "/", data).await;
        assert_eq!(state(&task), "TASK_STATE_FAILED");
        assert!(said(&task).ends_with(&format!("argument /{field} isn't known here")));
    }

    let owners = node.sandbox().expect("the node has a sandbox");
    let echo = ["sh", "-c", "echo $GRANT"];
    assert_eq!(run(owners, &echo).await, Ok("the node's\n".to_owned()));
    let narrow = |value| {
        let narrowed = profile(standard().env("GRANT", value).wall_time(Duration::from_secs(9)));
        Restriction::new().policy(narrowed)
    };
    let narrowed = owners.attenuate(narrow("narrowed")).expect("a capability");
    assert_eq!(run(&narrowed, &echo).await, Ok("narrowed\n".to_owned()));
    let loosened = narrowed.attenuate(narrow("loosened")).expect("a capability");
    assert_eq!(run(&loosened, &echo).await, Ok("narrowed\n".to_owned()));

    let powerless = owners.attenuate(Restriction::new().rights(Rights::NONE));
    let refused = run(&powerless.expect("a capability"), &echo).await;
    assert!(matches!(refused, Err(Refusal::Denied(Denied::Rights { .. }))), "{refused:?}");
    narrowed.revoke().expect("it isn't the owner's");
    assert_eq!(run(&loosened, &echo).await, Err(Refusal::Denied(Denied::Revoked)));
    node.stop().await;
}

/// What the host passes on can be as narrow as it wants: a scope of the agents has no sandbox in it.
#[tokio::test]
async fn nothing_public_leads_to_the_sandbox_without_a_grant() {
    let (node, to) = start(shell_node()).await;
    let agents = node.kernel().scope().within("agents").expect("a name");
    for path in ["sandbox", "../sandbox", "shell/../../sandbox", "/sandbox"] {
        let found = agents.lookup::<SandboxCommand>(path);
        assert!(
            matches!(found, Err(LookupError::Unknown { .. } | LookupError::Name(_))),
            "{path}: {found:?}"
        );
    }
    let mut connection = Connection::open(to).await;
    let ask = request("SendMessage", crate::client::message(json!([{ "text": "id" }])));
    for agent in ["sandbox", "tools", "gateway", "..%2Fsandbox", "shell%2F..%2Fsandbox", "%00"] {
        let response = connection.post(&format!("/agents/{agent}"), &ask).await;
        assert_eq!(response.status, 404, "{agent}: {}", response.text());
    }
    for method in ["Exec", "exec", "Invoke", "invoke", "sandbox.exec"] {
        let answer = connection.rpc("/", method, json!({ "command": ["id"] })).await;
        assert_eq!(answer["error"]["code"], -32601);
    }
    node.stop().await;

    // Without a sandbox the same agent has nothing to run programs with, and isn't served.
    let refused = Node::builder().agent(shell()).gateway(loopback()).start().await;
    assert!(matches!(refused, Err(BootError::NoTool { .. })), "{refused:?}");
}

fn shell() -> AnyAgent {
    AnyAgent::new(neuroflow::Shell)
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// Standard output of a program that was run through this capability.
async fn run(sandbox: &Address<SandboxCommand>, command: &[&str]) -> Result<String, Refusal> {
    let parcel = Parcel::archive(&Exec::new(command.iter().copied())).expect("it fits");
    let exec = |replies| SandboxCommand::Exec(Request { parcel, replies });
    let mut events = sandbox.stream(Header::new(), exec).await?;
    let mut printed = Vec::new();
    while let Some(event) = events.next().await {
        match event.expect("the cell ends in good order").get() {
            ArchivedExecEvent::Output { bytes, .. } => printed.extend_from_slice(bytes),
            ArchivedExecEvent::Ended(_) => {}
            ArchivedExecEvent::Refused(refused) => {
                panic!("{:?}", neuroflow::sandbox::ExecRefused::from(refused))
            }
        }
    }
    Ok(String::from_utf8(printed).expect("text"))
}

#[tokio::test]
async fn an_agents_answer_may_be_anything_but_its_own_grant() {
    // The closure sees the task's context and no more; this is all that it can call.
    let agent = AgentBuilder::new("nosy", "Tries every name.").on_ask(|_, context| async move {
        for tool in ["exec", "sandbox", "", "shell", "../exec", "EXEC"] {
            let refused = context.call(tool, json!({ "command": ["id"] })).await;
            assert_eq!(refused.map_err(|error| error.code()), Err("unknown_tool"), "{tool}");
        }
        Ok(Answer::text("nothing"))
    });
    let node = shell_node().agent(agent);
    let (node, to) = start(node).await;
    assert_eq!(output(&send_text(to, "/agents/nosy", "go").await), "nothing");
    node.stop().await;
}
