//! An agent that says what nobody can be told: its task has failed, and whoever asked hears that there is
//! no valid answer, in every binding.

use neuroflow::{AgentBuilder, Answer, AnyAgent, Artifact, Content, Node, Part, Turn};
use serde_json::json;

use crate::client::message;
use crate::protocol::{Binding, Peer};
use crate::support::{loopback, said, start};

/// More than one event may have.
const LARGE: usize = 5 * 1024 * 1024;

/// Answers in the way that it's told to.
fn clumsy() -> AnyAgent {
    AgentBuilder::new("clumsy", "Answers wrongly.").on_ask(|ask, context| async move {
        let text = ask.text();
        let fine = || Part::from(Content::Text("fine".to_owned()));
        let artifact = |parts| Artifact::new("answer", parts);
        match text.as_str() {
            "json" => {
                let broken = Content::Json("{".to_owned()).into();
                return Ok(Answer::artifact(artifact(vec![fine(), broken])));
            }
            "type" => {
                let image = Part { media_type: Some("image/png".to_owned()), ..fine() };
                context.produce(artifact(vec![image])).await?;
            }
            "empty" => context.produce(artifact(Vec::new())).await?,
            "many" => context.produce(artifact(vec![fine(); 1_025])).await?,
            "question" => {
                let question = Turn { metadata: Some("[]".to_owned()), ..Turn::agent("which?") };
                context.ask_user(question).await?;
            }
            "large" => context.say("x".repeat(LARGE)).await?,
            _ => {}
        }
        Ok(Answer::text(text))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_answer_is_told_as_such_in_every_binding() {
    let (node, to) = start(Node::builder().agent(clumsy()).gateway(loopback())).await;
    for (asked, problem) in [
        ("json", "artifact.parts[1].data isn't valid JSON"),
        ("type", "artifact.parts[0].mediaType is \"image/png\"; the agent's output modes are"),
        ("empty", "artifact.parts has no parts"),
        ("many", "artifact.parts has 1025 parts; 1024 are allowed"),
        ("question", "message.metadata must be a JSON object"),
        ("large", "the event can't be archived"),
    ] {
        for (binding, code) in Binding::ALL.into_iter().zip([-32006, 500, 13]) {
            let peer = Peer::new(binding, to, None);
            let ask = || message(json!([{ "text": asked }]));
            let called = peer.call("SendMessage", ask()).await.expect_err("no valid answer");
            let streamed = peer.stream("SendStreamingMessage", ask()).await;
            let streamed = streamed.unwrap_or_else(|fault| panic!("{fault:?}")).fault().await;
            for fault in [called, streamed] {
                assert_eq!((fault.code, fault.reason.as_str()), (code, "INVALID_AGENT_RESPONSE"));
                assert!(fault.message.contains(problem), "{fault:?}");
                // The task is there, and says why it has failed.
                let id = fault.message.split('"').nth(1).expect("the task's id");
                let task = peer.call("GetTask", json!({ "id": id })).await.expect("a task");
                assert!(task["status"]["state"] == "TASK_STATE_FAILED", "{task}");
                assert!(said(&task).starts_with(problem), "{task}");
                let metadata = &task["status"]["message"]["metadata"];
                assert_eq!(metadata["neuroflow"]["reason"], "invalid_response", "{task}");
            }
        }
    }
    // What is right is answered.
    let peer = Peer::new(Binding::Rpc, to, None);
    let answer = peer.call("SendMessage", message(json!([{ "text": "hello" }]))).await;
    let answer = answer.expect("an answer");
    assert_eq!(answer["task"]["artifacts"][0]["parts"][0]["text"], "hello", "{answer}");
    node.stop().await;
}
