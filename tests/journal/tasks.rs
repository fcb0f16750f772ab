//! Tasks over the end of a node: what is kept, what is run again, and what isn't done twice.
//!
//! Long, because each moment at which a node may end is a test, over the same agents.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use neuroflow::actors::limits::{EFFECT_BYTES, JOURNAL_NAME_BYTES};
use neuroflow::actors::{
    ArchivedChange, ArchivedContent, CancelError, EffectError, JournalConfig, JournalPlace,
    TaskEvents, TaskQuery, follow,
};
use neuroflow::kernel::{
    Address, KindObserver, Lifecycle, Observer, Outcome, Parcel, Request, Span, Timing, Unobserved,
};
use neuroflow::{
    AgentBuilder, AgentError, Answer, AnyAgent, Artifact, Ask, Header, Node, TaskState, Turn,
};
use tokio::sync::Semaphore;

use crate::cluster::Cluster;
use crate::folder::Folder;
use crate::scene::config;

type Agent = Address<neuroflow::actors::AgentCommand>;

/// Counts what it does, and stands still where it's told to.
#[derive(Clone)]
struct Work {
    paid: Arc<AtomicUsize>,
    runs: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

impl Work {
    fn new() -> Self {
        let count = || Arc::new(AtomicUsize::new(0));
        Self { paid: count(), runs: count(), gate: Arc::new(Semaphore::new(0)) }
    }

    /// Says something, pays once, stands still, says more, asks, and answers.
    fn agent(&self, resumable: bool) -> AnyAgent {
        let work = self.clone();
        AgentBuilder::new("payer", "Pays.").profile(|profile| profile.resumable = resumable).on_ask(
            move |ask, context| {
                let work = work.clone();
                async move {
                    work.runs.fetch_add(1, Ordering::SeqCst);
                    context.say("paying").await?;
                    let paid = work.paid.clone();
                    let pay = async move { Ok(paid.fetch_add(1, Ordering::SeqCst) + 1) };
                    let receipt: usize = context.effect("pay", pay).await?;
                    context.say(format!("paid {receipt}")).await?;
                    let _open = work.gate.acquire().await;
                    let name = context.ask_user(Turn::agent("who?")).await?;
                    Ok(Answer::text(format!("{} {receipt} {}", ask.text(), name.text())))
                }
            },
        )
    }
}

async fn node(agent: AnyAgent, folder: &Path) -> Node {
    node_on(agent, config(folder)).await
}

async fn node_on(agent: AnyAgent, config: JournalConfig) -> Node {
    let node = Node::builder().agent(agent).journal(config);
    node.start().await.expect("the node starts")
}

fn address(node: &Node) -> Agent {
    node.address("payer").expect("the agent is there").clone()
}

async fn begin(agent: &Agent, text: &str) -> String {
    let parcel = Parcel::archive(&Ask::new(Turn::user(text))).expect("archived");
    let ask = |replies| neuroflow::actors::AgentCommand::Ask(Request { parcel, replies });
    let mut events = agent.stream(Header::new(), ask).await.expect("taken");
    let first = events.next().await.expect("an event").expect("no interruption");
    first.get().task.to_string()
}

pub(crate) async fn events(agent: &Agent, task: &str) -> TaskEvents {
    let read = |reply| neuroflow::actors::AgentCommand::Read {
        task: task.to_owned(),
        caller: None,
        reply,
    };
    agent.call(Header::new(), read).await.expect("answered").expect("there is such a task")
}

/// Waits for the event that `wanted` names; gives all events up to it.
async fn until(agent: &Agent, task: &str, wanted: &str) -> Vec<String> {
    let waited = async {
        let (so_far, mut to_come) =
            follow(agent, Header::new(), task, None, None).await.expect("answered").expect("there");
        let mut seen: Vec<String> = so_far.iter().map(|event| told(event.get())).collect();
        while seen.last().is_none_or(|last| !last.contains(wanted)) {
            if seen.iter().any(|seen| seen.contains(wanted)) {
                break;
            }
            let event = to_come.next().await.unwrap_or_else(|| panic!("no {wanted} in {seen:?}"));
            seen.push(told(event.expect("no interruption").get()));
        }
        seen
    };
    let clock = neuroflow::Clock::system();
    clock.before(clock.now() + Duration::from_secs(30), waited).await.expect("it comes in time")
}

pub(crate) fn told(event: &neuroflow::actors::ArchivedTaskEvent) -> String {
    let number = event.generation.to_native();
    let text = |turn: &neuroflow::actors::ArchivedTurn| {
        let part = turn.parts.first().map(|part| &part.content);
        match part {
            Some(neuroflow::actors::ArchivedContent::Text(text)) => text.to_string(),
            _ => String::new(),
        }
    };
    match &event.change {
        ArchivedChange::Accepted { ask } => format!("{number} accepted {}", text(&ask.turn)),
        ArchivedChange::Continued { ask } => format!("{number} continued {}", text(&ask.turn)),
        ArchivedChange::Status { state, turn } => {
            let said = turn.as_ref().map(|turn| format!(" {}", text(turn))).unwrap_or_default();
            format!("{number} {}{said}", TaskState::from(*state).as_str())
        }
        ArchivedChange::Artifact { .. } => format!("{number} artifact"),
        ArchivedChange::Refused(_) => format!("{number} refused"),
    }
}

async fn answer(agent: &Agent, task: &str, text: &str) {
    let ask = Ask { task: Some(task.to_owned()), ..Ask::new(Turn::user(text)) };
    let parcel = Parcel::archive(&ask).expect("archived");
    let ask = |replies| neuroflow::actors::AgentCommand::Ask(Request { parcel, replies });
    let _events = agent.stream(Header::new(), ask).await.expect("taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumable_task_goes_on_and_does_nothing_twice() {
    let folder = Folder::new();
    goes_on(config(folder.path())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_database_a_resumable_task_goes_on_as_well() {
    let cluster = Cluster::start();
    goes_on(cluster.config("one")).await;
}

/// A resumable task over the ends of four nodes.
async fn goes_on(config: JournalConfig) {
    let work = Work::new();
    let first = node_on(work.agent(true), config.clone()).await;
    let agent = address(&first);
    let task = begin(&agent, "order").await;
    until(&agent, &task, "paid 1").await;
    first.stop().await;

    // Again, and stopped again while it waits for its client.
    let second = node_on(work.agent(true), config.clone()).await;
    let agent = address(&second);
    work.gate.add_permits(10);
    let seen = until(&agent, &task, "who?").await;
    let expected = [
        "1 accepted order",
        "2 working",
        "3 working paying",
        "4 working paid 1",
        "5 waiting for input who?",
    ];
    assert_eq!(seen, expected);
    second.stop().await;

    let third = node_on(work.agent(true), config.clone()).await;
    let agent = address(&third);
    let state = told(events(&agent, &task).await.last().expect("events").get());
    assert_eq!(state, "5 waiting for input who?");
    answer(&agent, &task, "me").await;
    let seen = until(&agent, &task, "completed").await;
    assert_eq!(seen[..5], expected);
    assert_eq!(seen[5..], ["6 continued me", "7 working", "8 artifact", "9 completed"]);
    assert_eq!(work.runs.load(Ordering::SeqCst), 3);
    assert_eq!(work.paid.load(Ordering::SeqCst), 1, "it was paid once");
    third.stop().await;

    // What has ended stays as it is.
    let fourth = node_on(work.agent(true), config.clone()).await;
    let agent = address(&fourth);
    let kept: Vec<String> = events(&agent, &task).await.iter().map(|e| told(e.get())).collect();
    assert_eq!(kept, seen);
    assert_eq!(work.runs.load(Ordering::SeqCst), 3);
    fourth.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_were_given_are_given_again() {
    let folder = Folder::new();
    let gate = Arc::new(Semaphore::new(0));
    let inner = gate.clone();
    let agent = || {
        let gate = inner.clone();
        AgentBuilder::new("payer", "Asks twice.")
            .profile(|profile| profile.resumable = true)
            .on_ask(move |_, context| {
                let gate = gate.clone();
                async move {
                    let one = context.ask_user(Turn::agent("first?")).await?;
                    context.say(format!("got {}", one.text())).await?;
                    let _open = gate.acquire().await;
                    Ok(Answer::text(one.text()))
                }
            })
    };
    let first = node(agent(), folder.path()).await;
    let address_of = address(&first);
    let task = begin(&address_of, "go").await;
    until(&address_of, &task, "first?").await;
    answer(&address_of, &task, "blue").await;
    until(&address_of, &task, "got blue").await;
    first.stop().await;
    gate.add_permits(10);
    let second = node(agent(), folder.path()).await;
    let seen = until(&address(&second), &task, "completed").await;
    let expected = [
        "1 accepted go",
        "2 working",
        "3 waiting for input first?",
        "4 continued blue",
        "5 working",
        "6 working got blue",
        "7 artifact",
        "8 completed",
    ];
    assert_eq!(seen, expected);
    second.stop().await;
}

/// Asks, says something and produces something while it waits, and stands still before it answers.
fn busy_asker(gate: &Arc<Semaphore>) -> AnyAgent {
    let gate = Arc::clone(gate);
    let agent = AgentBuilder::new("payer", "Asks, and works meanwhile.");
    agent.profile(|profile| profile.resumable = true).on_ask(move |_, context| {
        let gate = gate.clone();
        async move {
            let meanwhile = async {
                context.say("looking").await?;
                context.produce(Artifact::text("draft", "a draft")).await
            };
            let asked = context.ask_user(Turn::agent("who?"));
            let (said, made) = tokio::join!(asked, meanwhile);
            made?;
            let said = said?.text();
            context.say(format!("it's {said}")).await?;
            let _open = gate.acquire().await;
            Ok(Answer::done())
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_and_produced_while_the_client_is_asked_leaves_it_the_question() {
    let folder = Folder::new();
    let gate = Arc::new(Semaphore::new(0));
    let first = node(busy_asker(&gate), folder.path()).await;
    let task = begin(&address(&first), "go").await;
    let before = until(&address(&first), &task, "artifact").await;
    let expected = [
        "1 accepted go",
        "2 working",
        "3 waiting for input who?",
        "4 waiting for input looking",
        "5 artifact",
    ];
    assert_eq!(before, expected);
    // Before the answer.
    first.stop().await;
    let second = node(busy_asker(&gate), folder.path()).await;
    let agent = address(&second);
    answer(&agent, &task, "Ann").await;
    until(&agent, &task, "it's Ann").await;
    // After it, twice.
    second.stop().await;
    node(busy_asker(&gate), folder.path()).await.stop().await;
    gate.add_permits(1);
    let last = node(busy_asker(&gate), folder.path()).await;
    let seen = until(&address(&last), &task, "completed").await;
    assert_eq!(seen[..5], expected);
    assert_eq!(seen[5..], ["6 continued Ann", "7 working", "8 working it's Ann", "9 completed"]);
    last.stop().await;
}

/// Nobody answers in time, and something is done and said for that reason; what comes late is no answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_that_is_over_stays_over_whatever_came_while_it_lasted_and_after_it() {
    let folder = Folder::new();
    let (over, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let agent = || {
        let (over, gate) = (Arc::clone(&over), Arc::clone(&gate));
        let of = AgentBuilder::new("payer", "Asks, and loses patience.");
        of.profile(|profile| profile.resumable = true).on_ask(move |_, context| {
            let (over, gate) = (over.clone(), gate.clone());
            async move {
                let asked = async {
                    tokio::select! {
                        said = context.ask_user(Turn::agent("who?")) => said.map(|said| said.text()),
                        _over = over.acquire() => Ok("nobody".to_owned()),
                    }
                };
                let draft = context.produce(Artifact::text("draft", "a draft"));
                let (said, made) = tokio::join!(asked, draft);
                made?;
                // A second run hears of silence as the first one did of lost patience.
                let said = match said {
                    Err(AgentError::Silence { .. }) => "nobody".to_owned(),
                    said => said?,
                };
                let kept: String = context.effect("who", async { Ok(said) }).await?;
                let _open = gate.acquire().await;
                context.say(format!("it's {kept}")).await?;
                let late = context.said_meanwhile().await?;
                let late: Vec<String> = late.iter().map(neuroflow::Incoming::text).collect();
                Ok(Answer::done().saying(Turn::agent(late.join(" "))))
            }
        })
    };
    let first = node(agent(), folder.path()).await;
    let task = begin(&address(&first), "go").await;
    until(&address(&first), &task, "artifact").await;
    over.add_permits(1);
    // With its effect.
    until(&address(&first), &task, "5 working").await;
    answer(&address(&first), &task, "Ann").await;
    until(&address(&first), &task, "continued Ann").await;
    first.stop().await;
    over.forget_permits(1);
    gate.add_permits(1);
    let second = node(agent(), folder.path()).await;
    let seen = until(&address(&second), &task, "completed").await;
    let expected = [
        "1 accepted go",
        "2 working",
        "3 waiting for input who?",
        "4 artifact",
        "5 working",
        "6 continued Ann",
        "7 working it's nobody",
        "8 completed Ann",
    ];
    assert_eq!(seen, expected);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_that_nobody_answered_ends_in_silence_again() {
    let folder = Folder::new();
    let gate = Arc::new(Semaphore::new(0));
    let agent = || {
        let gate = gate.clone();
        let of = AgentBuilder::new("payer", "Asks once.").profile(|profile| {
            profile.resumable = true;
            // Nobody ever answers.
            profile.input_wait = Duration::from_millis(20);
        });
        of.on_ask(move |_, context| {
            let gate = gate.clone();
            async move {
                let said = match context.ask_user(Turn::agent("who?")).await {
                    Err(AgentError::Silence { .. }) => "nobody".to_owned(),
                    Err(error) => return Err(error),
                    Ok(said) => said.text(),
                };
                context.say(format!("it's {said}")).await?;
                let _open = gate.acquire().await;
                Ok(Answer::text(said))
            }
        })
    };
    let first = node(agent(), folder.path()).await;
    let address_of = address(&first);
    let task = begin(&address_of, "go").await;
    until(&address_of, &task, "it's nobody").await;
    first.stop().await;
    gate.add_permits(1);
    let second = node(agent(), folder.path()).await;
    let seen = until(&address(&second), &task, "completed").await;
    let expected = [
        "1 accepted go",
        "2 working",
        "3 waiting for input who?",
        // The node says that nothing is waited for any more.
        "4 working",
        "5 working it's nobody",
        "6 artifact",
        "7 completed",
    ];
    assert_eq!(seen, expected);
    second.stop().await;
}

/// The first run fails to pay, says so and looks for another way. The second one pays, and so comes to its end with
/// fewer events than the first has made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_run_that_goes_another_way_is_heard_to_its_end() {
    for fails in [false, true] {
        let folder = Folder::new();
        let agent = |pays: bool| {
            let agent = AgentBuilder::new("payer", "Pays, if that can be done.");
            agent.profile(|profile| profile.resumable = true).on_ask(move |_, context| async move {
                let pay = async { if pays { Ok(7) } else { Err(AgentError::failed("no money")) } };
                match context.effect("pay", pay).await {
                    Ok(_) if fails => return Err(AgentError::failed("paid in vain")),
                    Ok(receipt) => return Ok(Answer::text(format!("receipt {receipt}"))),
                    Err(error) => context.say(format!("can't pay: {error}")).await?,
                }
                context.produce(Artifact::text("bill", "a bill")).await?;
                context.say("waiting for better times").await?;
                std::future::pending::<()>().await;
                Ok(Answer::done())
            })
        };
        let first = node(agent(false), folder.path()).await;
        let task = begin(&address(&first), "go").await;
        let before = until(&address(&first), &task, "better times").await;
        first.stop().await;
        let second = node(agent(true), folder.path()).await;
        let last = if fails { "failed paid in vain" } else { "completed" };
        let seen = until(&address(&second), &task, last).await;
        assert_eq!(seen[..5], before);
        if fails {
            assert_eq!(seen[5..], ["6 failed paid in vain"]);
        } else {
            assert_eq!(seen[5..], ["6 artifact", "7 completed"]);
            let all = events(&address(&second), &task).await;
            let mut answer = None;
            if let ArchivedChange::Artifact { artifact, .. } = &all[5].get().change
                && let Some(ArchivedContent::Text(text)) =
                    artifact.parts.first().map(|part| &part.content)
            {
                answer = Some(text.to_string());
            }
            assert_eq!(answer.as_deref(), Some("receipt 7"));
        }
        second.stop().await;
    }
}

/// The clock stands still, so that any wait for it would be without end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_leaves_tasks_at_once_that_are_run_again() {
    let (folder, time) = (Folder::new(), neuroflow::ManualClock::new());
    let work = Work::new();
    let config = config(folder.path());
    let node = Node::builder().agent(work.agent(true)).journal(config).clock(time.clock());
    let node = node.start().await.expect("the node starts");
    let task = begin(&address(&node), "order").await;
    until(&address(&node), &task, "paid 1").await;
    let clock = neuroflow::Clock::system();
    let stopped = clock.before(clock.now() + Duration::from_mins(1), node.stop()).await;
    assert!(stopped.is_ok(), "it's waited for");
}

/// What an effect comes to, and how often it was done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effect_that_cannot_be_kept_is_told_as_such_and_costs_the_task_nothing_else() {
    let done = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&done);
    let agent = AgentBuilder::new("payer", "Keeps too much.").on_ask(move |_, context| {
        let done = Arc::clone(&count);
        async move {
            let made = |length: usize| {
                let done = Arc::clone(&done);
                async move {
                    done.fetch_add(1, Ordering::SeqCst);
                    Ok("x".repeat(length))
                }
            };
            let mut ends = Vec::new();
            let long = "k".repeat(JOURNAL_NAME_BYTES + 1);
            for (key, length) in
                [("fits", EFFECT_BYTES - 2), ("large", EFFECT_BYTES), ("large", 1), (&long, 1)]
            {
                ends.push(match context.effect(key, made(length)).await {
                    Ok(_) => "kept".to_owned(),
                    Err(AgentError::Effect(error @ EffectError::TooLarge { .. })) => {
                        error.to_string()
                    }
                    Err(AgentError::Effect(EffectError::LongKey { bytes })) => format!("{bytes}"),
                    Err(error) => panic!("{error:?}"),
                });
            }
            Ok(Answer::text(ends.join(", ")))
        }
    });
    let folder = Folder::new();
    let node = node(agent, folder.path()).await;
    let outcome = node.ask("payer", "go").await.expect("answered");
    let too_large = format!(
        "the result of effect \"large\" has {} bytes as JSON; {EFFECT_BYTES} are allowed",
        EFFECT_BYTES + 2
    );
    let expected = format!("kept, {too_large}, {too_large}, {}", JOURNAL_NAME_BYTES + 1);
    assert_eq!(outcome.completed().expect("completed").text(), expected);
    assert_eq!(done.load(Ordering::SeqCst), 2);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_not_resumable_fails_with_a_reason() {
    let folder = Folder::new();
    let work = Work::new();
    let first = Node::builder().agent(work.agent(false)).journal(config(folder.path()));
    let first = first.drain_within(Duration::ZERO).start().await.expect("the node starts");
    let agent = address(&first);
    let task = begin(&agent, "order").await;
    until(&agent, &task, "paid 1").await;
    // As after a crash: the log as it is while the node runs.
    let copy = Folder::new();
    for name in ["format", "00000001.segment"] {
        std::fs::copy(folder.path().join(name), copy.path().join(name)).expect("copied");
    }
    first.stop().await;
    let ended = node(work.agent(false), folder.path()).await;
    let last = told(events(&address(&ended), &task).await.last().expect("events").get());
    assert_eq!(last, "5 failed the agent was stopped");
    ended.stop().await;

    let second = node(work.agent(false), copy.path()).await;
    let agent = address(&second);
    until(&agent, &task, "failed").await;
    let all = events(&agent, &task).await;
    let last = all.last().expect("events").get();
    assert_eq!(told(last), "5 failed the node ended while the task ran");
    let ArchivedChange::Status { turn, .. } = &last.change else { panic!("no status") };
    let metadata = turn.as_ref().and_then(|turn| turn.metadata.as_ref()).map(ToString::to_string);
    assert_eq!(metadata.as_deref(), Some(r#"{"neuroflow":{"reason":"interrupted"}}"#));
    assert_eq!(work.runs.load(Ordering::SeqCst), 1, "it isn't run again");
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ended_tasks_are_read_listed_and_refused_from_the_journal() {
    let folder = Folder::new();
    let first = node(echo(), folder.path()).await;
    let mut tasks = Vec::new();
    for number in 0..5 {
        tasks.push(begin(&address(&first), &format!("number {number}")).await);
        until(&address(&first), &tasks[number], "completed").await;
    }
    first.stop().await;
    let second = node(echo(), folder.path()).await;
    let agent = address(&second);
    for task in &tasks {
        let seen: Vec<String> = events(&agent, task).await.iter().map(|e| told(e.get())).collect();
        assert_eq!(seen.last().map(String::as_str), Some("4 completed"));
    }
    let list = |query| {
        let agent = agent.clone();
        async move {
            let list = |reply| neuroflow::actors::AgentCommand::List { query, reply };
            agent.call(Header::new(), list).await.expect("answered")
        }
    };
    let page = list(TaskQuery::first(3)).await;
    assert_eq!((page.tasks.len(), page.total), (3, 5));
    let mut rest = TaskQuery::first(3);
    rest.after = page.next;
    assert_eq!(list(rest).await.tasks.len(), 2);

    let cancel = |reply| neuroflow::actors::AgentCommand::Cancel {
        task: tasks[0].clone(),
        caller: None,
        reply,
    };
    let refused = agent.call(Header::new(), cancel).await.expect("answered");
    assert!(matches!(refused, Err(CancelError::Ended { state: TaskState::Completed })));
    let followed = follow(&agent, Header::new(), &tasks[0], None, Some(2)).await;
    let (so_far, mut to_come) = followed.expect("answered").expect("there is such a task");
    assert_eq!(so_far.len(), 2);
    assert!(to_come.next().await.is_none(), "nothing follows");
    second.stop().await;
}

/// An answer that comes before the second run has asked again, and one that comes when the agent
/// has stopped to wait: the first is given to the question, the second is heard later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_finds_its_question_and_a_late_one_is_not_lost() {
    let folder = Folder::new();
    let gate = Arc::new(Semaphore::new(0));
    let inner = gate.clone();
    let agent = || {
        let gate = inner.clone();
        AgentBuilder::new("payer", "Asks, and doesn't wait for ever.")
            .profile(|profile| profile.resumable = true)
            .on_ask(move |_, context| {
                let gate = gate.clone();
                async move {
                    gate.acquire().await.expect("it's open").forget();
                    let name = context.ask_user(Turn::agent("who?")).await?;
                    let patience = context.clock().now() + Duration::from_millis(1);
                    let asked = context.ask_user(Turn::agent("really?"));
                    if context.clock().before(patience, asked).await.is_err() {
                        context.say("going on").await?;
                    }
                    gate.acquire().await.expect("it's open").forget();
                    let late = context.said_meanwhile().await?;
                    let late: Vec<String> = late.iter().map(neuroflow::Incoming::text).collect();
                    Ok(Answer::text(format!("{} {}", name.text(), late.join(" "))))
                }
            })
    };
    let first = node(agent(), folder.path()).await;
    let task = begin(&address(&first), "go").await;
    gate.add_permits(1);
    until(&address(&first), &task, "who?").await;
    first.stop().await;
    let second = node(agent(), folder.path()).await;
    let address = address(&second);
    // The second run stands before its question.
    answer(&address, &task, "Ann").await;
    until(&address, &task, "continued Ann").await;
    gate.add_permits(1);
    until(&address, &task, "going on").await;
    answer(&address, &task, "Bob").await;
    until(&address, &task, "continued Bob").await;
    gate.add_permits(1);
    let seen = until(&address, &task, "completed").await;
    let expected = [
        "1 accepted go",
        "2 working",
        "3 waiting for input who?",
        "4 continued Ann",
        "5 working",
        "6 waiting for input really?",
        "7 working",
        "8 working going on",
        "9 continued Bob",
        "10 artifact",
        "11 completed",
    ];
    assert_eq!(seen, expected);
    second.stop().await;
    let third = node(echo(), folder.path()).await;
    let all = events(&super::tasks::address(&third), &task).await;
    let ArchivedChange::Artifact { artifact, .. } = &all[9].get().change else { panic!("none") };
    let part = artifact.parts.first().map(|part| &part.content);
    let Some(neuroflow::actors::ArchivedContent::Text(said)) = part else { panic!("no text") };
    assert_eq!(said.as_str(), "Ann Bob");
    third.stop().await;
}

fn echo() -> AnyAgent {
    AgentBuilder::new("payer", "Says what it hears.")
        .on_ask(|ask, _| async move { Ok(Answer::text(ask.text())) })
}

/// What the journal's actor is sent.
#[derive(Clone, Debug, Default)]
struct Sent(Arc<Mutex<Vec<&'static str>>>);

impl Sent {
    fn count(&self, name: &str) -> usize {
        self.0.lock().expect("no panic").iter().filter(|sent| **sent == name).count()
    }
}

impl Observer for Sent {
    fn lifecycle(&self, _: &Lifecycle<'_>) {}

    fn kind(&self, kind: &'static str) -> Arc<dyn KindObserver> {
        if kind == "journal" { Arc::new(self.clone()) } else { Arc::new(Unobserved) }
    }

    fn span(&self, _: &Span) {}
}

impl KindObserver for Sent {
    fn handled(&self, message: &'static str, _: Outcome, _: Option<Timing>) {
        self.0.lock().expect("no panic").push(message);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lone_appends_of_agents_are_made_where_they_stand() {
    let sent = Sent::default();
    let node = Node::builder().agent(echo()).observer(Arc::new(sent.clone()));
    // Memory is always quick; of a disk the journal has to know it.
    let node = node.journal(JournalConfig::new(JournalPlace::Memory));
    let node = node.start().await.expect("it starts");
    let agent = address(&node);
    for _ in 0..50 {
        let task = node.ask("payer", "hello").await.expect("answered").task().to_owned();
        assert!(!events(&agent, &task).await.is_empty());
    }
    let list = |reply| neuroflow::actors::AgentCommand::List { query: TaskQuery::first(1), reply };
    assert_eq!(agent.call(Header::new(), list).await.expect("answered").total, 50);
    assert_ne!(sent.count("heads"), 0, "lists are asked for");
    assert_eq!(sent.count("append"), 0, "appends that took the long way");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_flat_however_many_tasks_there_were() {
    let mut config = JournalConfig::new(JournalPlace::Memory);
    config.retention.tasks = 50;
    let node = Node::builder().agent(echo()).journal(config).start().await.expect("it starts");
    for _ in 0..500 {
        node.ask("payer", "hello").await.expect("answered");
    }
    let agent = address(&node);
    let clock = node.kernel().clock();
    let deadline = clock.now() + Duration::from_secs(30);
    loop {
        let query = TaskQuery::first(1);
        let list = |reply| neuroflow::actors::AgentCommand::List { query, reply };
        let total = agent.call(Header::new(), list).await.expect("answered").total;
        if total <= 57 {
            break;
        }
        assert!(clock.now() < deadline, "{total} tasks are kept");
        clock.sleep(Duration::from_millis(10)).await;
    }
    node.stop().await;
}
