//! A host program that defines an agent with one tool, starts a node around it, and asks it.
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
    let agent = AgentBuilder::new("counter", "Counts words.").tool(count);
    let agent = agent.on_ask(|ask, tools| async move {
        Ok(Answer::text(tools.call("count", Text { text: ask.text() }).await?.text()))
    });
    let (cells, port) = (Profile::builder(Level::Standard).build()?, "127.0.0.1:0".parse()?);
    let node = Node::builder().agent(agent).sandbox(cells).gateway(port).start().await?;
    println!("{} words", node.ask("counter", "to be or not to be").await?.text());
    Ok(node.stop().await)
}
