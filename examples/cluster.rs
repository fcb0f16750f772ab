//! Two nodes of a cluster: the second asks an agent of the first as if it were its own.
#![expect(clippy::print_stdout, reason = "printing the answer is what it does")]
use std::time::Duration;

use neuroflow::transport::{Authority, LinksConfig, Trust};
use neuroflow::{AnyAgent, Clock, Echo, Node};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let now = Clock::system().wall();
    let authority = Authority::create("example", now)?;
    let links = |name: &str| -> Result<LinksConfig, Box<dyn std::error::Error>> {
        let credential = authority.issue(name, &[], Duration::from_hours(1), now)?;
        let trust = Trust::from_pem(authority.certificate_pem())?;
        Ok(LinksConfig::new("127.0.0.1:0".parse()?, credential, trust))
    };
    let a = Node::builder().agent(AnyAgent::new(Echo)).cluster(links("a")?).start().await?;
    let b = Node::builder().cluster(links("b")?).start().await?;
    let (at, far) = (a.links().and_then(neuroflow::transport::Links::local_address), b.links());
    if let (Some(at), Some(links)) = (at, far) {
        links.try_dial(at).await?;
        println!("{}", b.ask("agent://a/echo", "hello, a").await?.completed()?.text());
    }
    b.stop().await;
    a.stop().await;
    Ok(())
}
