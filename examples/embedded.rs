//! A host program that defines an agent with one tool, starts a node around it, and asks it.
#![expect(clippy::print_stdout, reason = "printing the answer is what it does")]
use neuroflow::{AgentBuilder, Answer, Level, Node, Profile, ToolError, tool};

#[derive(serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
struct Text {
    text: String,
}

/// Counts the words of a text.
#[tool]
async fn count(text: Text) -> Result<usize, ToolError> {
    Ok(text.text.split_whitespace().count())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let agent = AgentBuilder::new("wc", "Counts words.").tool(count);
    let agent = agent.on_ask(|ask, tools| async move {
        Ok(Answer::text(tools.call("count", Text { text: ask.text() }).await?.text()))
    });
    let (cells, port) = (Profile::builder(Level::Strict).build()?, "127.0.0.1:0".parse()?);
    let node = Node::builder().agent(agent).sandbox(cells).gateway(port).start().await?;
    println!("{} words", node.ask("wc", "to be or not to be").await?.completed()?.text());
    node.stop().await;
    Ok(())
}
