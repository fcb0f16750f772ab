//! The `neuroflow` binary.

use neuroflow::{AnyAgent, Echo, Level, Node, Profile, Shell};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let profile = Profile::builder(Level::Standard).build()?;
    let node = Node::builder()
        .agent(AnyAgent::new(Shell))
        .agent(AnyAgent::new(Echo))
        .sandbox(profile)
        .gateway("127.0.0.1:8088".parse()?)
        .start()
        .await?;
    tokio::signal::ctrl_c().await?;
    node.stop().await;
    Ok(())
}
