//! A task that asks its client something goes on with the answer.

use std::time::Duration;

use neuroflow::actors::{AskRefusal, Chunk};
use neuroflow::{
    AgentBuilder, AgentError, Answer, AnyAgent, Artifact, Ask, Header, ManualClock, Node, Turn,
};
use neuroflow::{AskError, TaskOutcome, TaskState};

use crate::support::{eventually, pause};

/// Asks for a name and a colour, then answers with both.
pub(crate) fn curious() -> AnyAgent {
    AgentBuilder::new("curious", "Asks back.").on_ask(|ask, context| async move {
        let colour = context.ask_user(Turn::agent("Which colour?")).await?;
        let token = context.require_auth(Turn::agent("May I?")).await?;
        Ok(Answer::text(format!("{} {} {}", ask.text(), colour.text(), token.text())))
    })
}

async fn say(node: &Node, task: &str, text: &str) -> Result<TaskOutcome, AskError> {
    let ask = Ask { task: Some(task.to_owned()), ..Ask::new(Turn::user(text)) };
    node.ask_with("curious", ask, Header::new()).await
}

#[tokio::test]
async fn a_task_asks_back_and_goes_on_with_the_answers() {
    let node = Node::builder().agent(curious()).start().await.expect("the node starts");
    let asked = node.ask("curious", "tea").await.expect("the task asks back");
    assert_eq!(asked.state(), Some(TaskState::InputRequired));
    assert_eq!(asked.said(), Some("Which colour?"));
    let asked = say(&node, asked.task(), "green").await.expect("the task asks again");
    assert_eq!(asked.state(), Some(TaskState::AuthRequired));
    let task = asked.task().to_owned();
    let done = say(&node, &task, "yes").await.expect("the task ends");
    assert_eq!((done.text().as_str(), done.is_completed()), ("tea green yes", true));

    let refused = say(&node, &task, "and more").await.expect_err("the task has ended");
    let AskError::Declined(AskRefusal::Ended { state }) = refused else { panic!("{refused:?}") };
    assert_eq!(state, TaskState::Completed);
    let refused = say(&node, "no-such-task", "hello").await.expect_err("there is no such task");
    assert!(matches!(refused, AskError::Declined(AskRefusal::UnknownTask)), "{refused:?}");
    node.stop().await;
}

#[tokio::test]
async fn a_message_must_be_of_the_tasks_own_context_and_caller() {
    let node = Node::builder().agent(curious()).start().await.expect("the node starts");
    let ask = Ask { caller: Some("alice".into()), ..Ask::new(Turn::user("tea")) };
    let asked = node.ask_with("curious", ask, Header::new()).await.expect("the task asks back");
    let more = Ask { task: Some(asked.task().into()), ..Ask::new(Turn::user("green")) };
    let alice = Some("alice".to_owned());
    let other = Ask { context: Some("other".into()), caller: alice.clone(), ..more.clone() };
    let refused = node.ask_with("curious", other, Header::new()).await.expect_err("refused");
    assert!(matches!(refused, AskError::Declined(AskRefusal::OtherContext)), "{refused:?}");
    let bobs = Ask { caller: Some("bob".into()), ..more.clone() };
    let refused = node.ask_with("curious", bobs, Header::new()).await.expect_err("refused");
    assert!(matches!(refused, AskError::Declined(AskRefusal::UnknownTask)), "{refused:?}");
    let hers = Ask { caller: alice, ..more };
    let asked = node.ask_with("curious", hers, Header::new()).await.expect("she is answered");
    assert_eq!(asked.state(), Some(TaskState::AuthRequired));
    node.stop().await;
}

#[tokio::test]
async fn waiting_for_the_client_is_not_work_and_has_a_bound_of_its_own() {
    let time = ManualClock::new();
    let agent = AgentBuilder::new("curious", "Asks back.")
        .profile(|profile| {
            profile.task_deadline = Duration::from_secs(10);
            profile.input_wait = Duration::from_secs(100);
        })
        .on_ask(|_, context| async move {
            context.ask_user(Turn::agent("First?")).await?;
            context.clock().sleep(Duration::from_secs(5)).await;
            match context.ask_user(Turn::agent("Second?")).await {
                Err(AgentError::Silence { waited }) => {
                    Ok(Answer::rejected(Turn::agent(format!("{} s of silence", waited.as_secs()))))
                }
                other => Err(AgentError::failed(format!("{other:?}"))),
            }
        });
    let node = Node::builder().agent(agent).clock(time.clock()).start().await.expect("a node");
    let asked = node.ask("curious", "go").await.expect("the task asks back");
    time.advance(Duration::from_mins(1));
    let task = asked.task().to_owned();
    let (asked, ()) = tokio::join!(say(&node, &task, "here"), async {
        // The agent's sleep begins somewhere in between.
        for _ in 0..6 {
            pause(20).await;
            time.advance(Duration::from_secs(1));
        }
    });
    assert_eq!(asked.expect("the task asks again").state(), Some(TaskState::InputRequired));
    time.advance(Duration::from_secs(101));
    eventually("the end of the task", || {
        !node.census().tree().iter().any(|actor| actor.kind == "task")
    })
    .await;
    let refused = say(&node, &task, "too late").await.expect_err("the task has ended");
    let AskError::Declined(AskRefusal::Ended { state }) = refused else { panic!("{refused:?}") };
    assert_eq!(state, TaskState::Rejected);
    node.stop().await;
}

#[tokio::test]
async fn what_is_said_unasked_is_there_when_the_agent_looks() {
    let agent = AgentBuilder::new("curious", "Listens.").on_ask(|_, context| async move {
        let piece = Artifact::text("log", "begun ");
        let id = piece.id.clone();
        context.artifact_chunk(piece, Chunk::First).await?;
        let mut heard = Vec::new();
        while heard.len() < 2 {
            context.clock().sleep(Duration::from_millis(10)).await;
            heard.extend(context.said_meanwhile().await?.iter().map(neuroflow::Incoming::text));
        }
        let last = Artifact { id, ..Artifact::text("log", heard.join(" ")) };
        context.artifact_chunk(last, Chunk::Last).await?;
        Ok(Answer::done())
    });
    let node = Node::builder().agent(agent).start().await.expect("the node starts");
    let talk = async {
        let mut task = None;
        while task.is_none() {
            pause(10).await;
            let tree = node.census().tree();
            let actor = tree.iter().find(|actor| actor.kind == "task");
            let name = actor.map(|actor| actor.path.to_string());
            task = name.and_then(|path| path.rsplit('/').next().map(str::to_owned));
        }
        let task = task.unwrap_or_default();
        tokio::join!(say(&node, &task, "one"), say(&node, &task, "two"))
    };
    let (done, (one, two)) = tokio::join!(node.ask("curious", "go"), talk);
    assert_eq!(done.expect("the task ends").text(), "begun one two");
    assert!(one.expect("one is taken").is_completed() && two.expect("two is taken").is_completed());
    node.stop().await;
}
