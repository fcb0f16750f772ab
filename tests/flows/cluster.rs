//! Two nodes of a cluster: agents of one are asked from the other, and its end is told.

use std::time::Duration;

use neuroflow::transport::{Authority, LinkState, LinksConfig, Trust};
use neuroflow::{
    AgentBuilder, Answer, AnyAgent, Artifact, AskError, Clock, Echo, Header, Node, TaskState, Turn,
};

use crate::support::{eventually, loopback};
use crate::turns::curious;

fn links(authority: &Authority, name: &str) -> LinksConfig {
    let hour = Duration::from_hours(1);
    let now = Clock::system().wall();
    let credential = authority.issue(name, &[], hour, now).expect("a certificate");
    let trust = Trust::from_pem(authority.certificate_pem()).expect("an authority");
    LinksConfig::new(loopback(), credential, trust)
}

#[tokio::test]
async fn a_task_of_the_cluster_that_asks_back_is_answered_where_it_is() {
    let authority = Authority::create("test", Clock::system().wall()).expect("an authority");
    let a = Node::builder().agent(AnyAgent::new(Echo)).cluster(links(&authority, "a"));
    let b = Node::builder().agent(curious()).cluster(links(&authority, "b"));
    let (a, b) = (a.start().await.expect("a starts"), b.start().await.expect("b starts"));
    let (here, there) = (a.links().expect("links"), b.links().expect("links"));
    here.try_dial(there.local_address().expect("it listens")).await.expect("a link");
    eventually("word of the agent", || a.resolve("agent://*/curious").is_ok()).await;
    let mut outcome = a.ask("agent://*/curious", "tea").await.expect("it asks back");
    for answer in ["green", "yes"] {
        let waits = outcome.clone().completed().expect_err("it isn't over");
        assert_eq!(waits.outcome().context(), outcome.context());
        let ask = outcome.answer(Turn::user(answer));
        outcome = a.ask_with("agent://*/curious", ask, Header::new()).await.expect("it goes on");
    }
    assert_eq!(outcome.completed().expect("done").text(), "tea green yes");
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn an_agent_on_another_node_is_asked_like_one_of_this_node() {
    let authority = Authority::create("test", Clock::system().wall()).expect("an authority");
    let a = Node::builder().agent(AnyAgent::new(Echo)).cluster(links(&authority, "a"));
    let b = Node::builder().agent(AnyAgent::new(Echo)).cluster(links(&authority, "b"));
    let (a, b) = (a.start().await.expect("a starts"), b.start().await.expect("b starts"));
    let (here, there) = (a.links().expect("links"), b.links().expect("links"));
    here.try_dial(there.local_address().expect("it listens")).await.expect("a link");

    for target in ["echo", "agent://a/echo", "agent://b/echo"] {
        let outcome = a.ask(target, "to be or not to be").await.expect("an answer");
        assert_eq!(outcome.text(), "to be or not to be", "{target}");
        assert_eq!(outcome.state(), Some(TaskState::Completed), "{target}");
    }
    let tree: Vec<String> = a.kernel().tree().iter().map(|it| it.path.to_string()).collect();
    assert!(tree.iter().any(|path| path == "/cluster/b"), "{tree:?}");

    let unknown = a.ask("agent://b/nobody", "?").await;
    assert!(matches!(unknown, Err(AskError::Interrupted(_))), "{unknown:?}");
    b.stop().await;
    while here.status().iter().any(|link| link.state == LinkState::Up) {
        tokio::task::yield_now().await;
    }
    let gone = a.ask("agent://b/echo", "?").await;
    assert!(matches!(gone, Err(AskError::Refused(_))), "{gone:?}");
    a.stop().await;
}

/// It says more at once than waits in a stream, here or over a link.
#[tokio::test]
async fn who_asks_an_agent_that_says_much_at_once_gets_its_whole_answer() {
    const MANY: usize = 1_000;
    let talker = || {
        AgentBuilder::new("talker", "Talks.").on_ask(|ask, context| async move {
            for number in 0..MANY {
                context.produce(Artifact::text(number.to_string(), "a")).await?;
            }
            Ok(Answer::text(ask.text()))
        })
    };
    let authority = Authority::create("test", Clock::system().wall()).expect("an authority");
    let a = Node::builder().agent(talker()).cluster(links(&authority, "a"));
    let b = Node::builder().agent(talker()).cluster(links(&authority, "b"));
    let (a, b) = (a.start().await.expect("a starts"), b.start().await.expect("b starts"));
    let (here, there) = (a.links().expect("links"), b.links().expect("links"));
    here.try_dial(there.local_address().expect("it listens")).await.expect("a link");
    for target in ["talker", "agent://a/talker", "agent://b/talker", "agent://*/talker"] {
        let outcome = a.ask(target, "z").await.expect("an answer");
        assert_eq!(outcome.text(), format!("{}z", "a".repeat(MANY)), "{target}");
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_node_without_links_says_so() {
    let node = Node::builder().agent(AnyAgent::new(Echo)).start().await.expect("it starts");
    let refused = node.ask("agent://b/echo", "?").await;
    assert!(matches!(refused, Err(AskError::Target(_))), "{refused:?}");
    node.stop().await;
}
