//! An agent whose journal is slow, or doesn't say whether it has taken something: what clients are
//! told, and when the work begins.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use neuroflow::actors::{
    AgentCommand, AgentServer, ArchivedChange, Ask, AskRefusal, Journal, JournalCommand,
    JournalConfig, JournalPlace, JournalServer, OpenedJournal, TaskEvent,
};
use neuroflow::kernel::{
    Actor, Address, ChildSpec, Context, Parcel, ReplySink, ReplyStream, Request, StreamError,
};
use neuroflow::{AgentBuilder, Answer, Clock, Header, Kernel, ManualClock, TaskState, Turn};
use tokio::sync::Semaphore;

use crate::tasks::{events, told};

/// What becomes of an append.
enum Fate {
    /// It's taken once there is a permit.
    After(Arc<Semaphore>),
    /// It's taken, and nobody is told.
    Unsaid,
    /// It isn't taken, and nobody is told.
    Lost,
}

type Fates = Arc<Mutex<VecDeque<Fate>>>;

/// Before a journal that works, one that doesn't always.
struct Unsure {
    journal: Journal,
    fates: Fates,
}

impl Actor for Unsure {
    type Message = JournalCommand;
    type Error = Infallible;
    const KIND: &'static str = "unsure";

    async fn handle(
        &mut self,
        command: JournalCommand,
        context: &mut Context<JournalCommand>,
    ) -> Result<(), Infallible> {
        let JournalCommand::Append { appends, reply } = command else {
            let _told = self.journal.address().tell(Header::new(), command).await;
            return Ok(());
        };
        let fate = self.fates.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let journal = self.journal.clone();
        let work = async move {
            match &fate {
                Some(Fate::Lost) => return,
                Some(Fate::After(gate)) => gate.acquire().await.expect("it's open").forget(),
                Some(Fate::Unsaid) | None => {}
            }
            let results = journal.append_all(appends).await;
            if !matches!(fate, Some(Fate::Unsaid)) {
                let _gone = reply.send(results);
            }
        };
        assert!(context.task(work).is_ok(), "there is room");
        Ok(())
    }
}

/// An agent that asks for a name and greets, on a journal that isn't sure.
struct Scene {
    kernel: Kernel,
    agent: Address<AgentCommand>,
    journal: Journal,
    fates: Fates,
    runs: Arc<AtomicUsize>,
    /// Whoever holds this keeps the agent from greeting.
    floor: Arc<Semaphore>,
}

impl Scene {
    async fn start(clock: Clock) -> Self {
        let config = JournalConfig::new(JournalPlace::Memory);
        let opened = OpenedJournal::open(config, clock.clone()).await.expect("it opens");
        let kernel = Kernel::builder().clock(clock).start().await.expect("a kernel starts");
        let server = move || JournalServer::new(opened.clone());
        let (spec, address) = ChildSpec::new("journal", server).expect("a name");
        kernel.root().start(spec).await.expect("it starts");
        let (journal, fates) = (Journal::new(address), Fates::default());
        let (inner, script) = (journal.clone(), Arc::clone(&fates));
        let unsure = move || Unsure { journal: inner.clone(), fates: Arc::clone(&script) };
        let (spec, address) = ChildSpec::new("unsure", unsure).expect("a name");
        kernel.root().start(spec).await.expect("it starts");
        let runs = Arc::new(AtomicUsize::new(0));
        let floor = Arc::new(Semaphore::new(1));
        let (counted, turn) = (Arc::clone(&runs), Arc::clone(&floor));
        let greeter = AgentBuilder::new("greeter", "Greets.").on_ask(move |_, context| {
            counted.fetch_add(1, Ordering::SeqCst);
            let turn = Arc::clone(&turn);
            async move {
                let name = context.ask_user(Turn::agent("who?")).await?;
                let _turn = turn.acquire().await.expect("it's open");
                Ok(Answer::text(format!("hello {}", name.text())))
            }
        });
        let on = Journal::new(address);
        let server = move || AgentServer::new(greeter.clone(), None, on.clone());
        let (spec, agent) = ChildSpec::new("greeter", server).expect("a name");
        kernel.root().start(spec).await.expect("it starts");
        Self { kernel, agent, journal, fates, runs, floor }
    }

    fn next(&self, fate: Fate) {
        self.fates.lock().unwrap_or_else(PoisonError::into_inner).push_back(fate);
    }

    /// Waits until all fates have come true.
    async fn come_true(&self) {
        let clock = Clock::system();
        let deadline = clock.now() + Duration::from_secs(30);
        while !self.fates.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            assert!(clock.now() < deadline, "nothing is appended");
            clock.sleep(Duration::from_millis(1)).await;
        }
    }

    async fn ask(&self, task: Option<&str>, text: &str) -> ReplyStream<Parcel<TaskEvent>> {
        let ask = Ask { task: task.map(str::to_owned), ..Ask::new(Turn::user(text)) };
        let parcel = Parcel::archive(&ask).expect("archived");
        let ask = |replies| AgentCommand::Ask(Request { parcel, replies });
        self.agent.stream(Header::new(), ask).await.expect("taken")
    }

    /// Every task of the agent as the journal has it.
    async fn kept(&self) -> Vec<TaskState> {
        let query = neuroflow::actors::TaskQuery::first(10);
        let page = self.journal.heads("greeter", query).await.expect("read");
        page.heads.iter().map(|head| head.state).collect()
    }
}

type Told = Option<Result<Parcel<TaskEvent>, StreamError>>;

fn text(event: Told) -> String {
    told(event.expect("an event").expect("no interruption").get())
}

/// The next event, in a time that is long enough for any machine.
async fn next(events: &mut ReplyStream<Parcel<TaskEvent>>) -> Told {
    let clock = Clock::system();
    let deadline = clock.now() + Duration::from_secs(30);
    clock.before(deadline, events.next()).await.expect("it comes in time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_begins_its_work_once_it_is_durable_that_there_is_one() {
    let scene = Scene::start(Clock::system()).await;
    let gate = Arc::new(Semaphore::new(0));
    scene.next(Fate::After(Arc::clone(&gate)));
    let mut events = scene.ask(None, "hi").await;
    scene.come_true().await;
    // Another task overtakes it: whatever this one would have done, it would have done by now.
    let mut other = scene.ask(None, "hi").await;
    while !text(next(&mut other).await).contains("who?") {}
    assert_eq!(scene.runs.load(Ordering::SeqCst), 1, "only the other one has begun");
    gate.add_permits(1);
    assert_eq!(text(next(&mut events).await), "1 accepted hi");
    while !text(next(&mut events).await).contains("who?") {}
    assert_eq!(scene.runs.load(Ordering::SeqCst), 2);
    scene.kernel.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_acknowledged_by_its_own_event_and_no_earlier_one() {
    let scene = Scene::start(Clock::system()).await;
    let gate = Arc::new(Semaphore::new(0));
    let mut events = scene.ask(None, "hi").await;
    let first = next(&mut events).await;
    let task = first.as_ref().expect("an event").as_ref().expect("whole").get().task.to_string();
    while !text(next(&mut events).await).contains("who?") {}
    // The first answer is on its way to the journal when the second message comes.
    scene.next(Fate::After(Arc::clone(&gate)));
    scene.next(Fate::After(Arc::clone(&gate)));
    // The task doesn't end before the agent has both.
    let floor = scene.floor.acquire().await.expect("it's open");
    let mut answer = scene.ask(Some(&task), "Ann").await;
    let mut remark = scene.ask(Some(&task), "and Bob").await;
    drop(floor);
    gate.add_permits(1);
    assert_eq!(text(next(&mut answer).await), "4 continued Ann");
    assert_eq!(text(next(&mut answer).await), "5 working");
    gate.add_permits(1);
    assert_eq!(text(next(&mut remark).await), "6 continued and Bob");
    scene.kernel.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_task_that_may_be_kept_is_found_and_ended() {
    let scene = Scene::start(Clock::system()).await;
    scene.next(Fate::Unsaid);
    let mut events = scene.ask(None, "hi").await;
    assert_eq!(text(next(&mut events).await), "1 accepted hi");
    let last = text(next(&mut events).await);
    assert_eq!(last, "2 failed the journal didn't take what the task said");
    assert!(next(&mut events).await.is_none());
    assert_eq!(scene.kept().await, [TaskState::Failed], "it isn't run at the next start");
    assert_eq!(scene.runs.load(Ordering::SeqCst), 0);
    scene.kernel.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_task_that_is_not_kept_is_refused_once_that_is_sure() {
    let time = ManualClock::new();
    let scene = Scene::start(time.clock()).await;
    scene.next(Fate::Lost);
    let mut events = scene.ask(None, "hi").await;
    let system = Clock::system();
    let deadline = system.now() + Duration::from_secs(30);
    let step = Duration::from_secs(1);
    let (mut passed, mut steps) = (Duration::ZERO, 0);
    let event = loop {
        let soon = system.now() + Duration::from_millis(5);
        if let Ok(event) = system.before(soon, events.next()).await {
            break event;
        }
        assert!(system.now() < deadline, "nothing is told");
        time.advance(step);
        (passed, steps) = (passed + step, steps + 1);
    };
    let settled = neuroflow::actors::limits::JOURNAL_SETTLED;
    assert!(passed >= settled, "refused after {steps} steps, while it could still come");
    let event = event.expect("an event").expect("no interruption");
    let ArchivedChange::Refused(refusal) = &event.get().change else { panic!("no refusal") };
    assert_eq!(AskRefusal::from(refusal), AskRefusal::Unkept);
    assert_eq!(scene.kept().await, []);
    assert_eq!(scene.runs.load(Ordering::SeqCst), 0);
    scene.kernel.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_whose_words_may_be_lost_ends_with_a_reason() {
    for fate in [Fate::Unsaid, Fate::Lost] {
        let scene = Scene::start(Clock::system()).await;
        let mut follower = scene.ask(None, "hi").await;
        let first = next(&mut follower).await;
        let task = first.expect("an event").expect("whole").get().task.to_string();
        while !text(next(&mut follower).await).contains("who?") {}
        let is_there = matches!(fate, Fate::Unsaid);
        scene.next(fate);
        let mut answer = scene.ask(Some(&task), "Ann").await;
        let mut seen = Vec::new();
        while let Some(event) = next(&mut answer).await {
            seen.push(told(event.expect("no interruption").get()));
        }
        let expected: &[&str] = if is_there {
            &["4 continued Ann", "5 working", "6 failed the journal didn't take what the task said"]
        } else {
            &["4 failed the journal didn't take what the task said"]
        };
        assert_eq!(seen, expected);
        let kept = events(&scene.agent, &task).await;
        assert_eq!(kept.len(), if is_there { 6 } else { 4 });
        assert_eq!(scene.kept().await, [TaskState::Failed]);
        scene.kernel.stop().await;
    }
}

#[tokio::test]
async fn work_isnt_begun_for_those_who_went_without_hearing_of_it() {
    let scene = Scene::start(Clock::system()).await;
    let gate = Arc::new(Semaphore::new(0));
    for heard in [true, false] {
        scene.next(Fate::After(Arc::clone(&gate)));
        if heard {
            let asked = scene.ask(None, "hi").await;
            scene.come_true().await;
            drop(asked);
        } else {
            let parcel = Parcel::archive(&Ask::new(Turn::user("hi"))).expect("archived");
            let request = Request { parcel, replies: ReplySink::unheard() };
            scene.agent.tell(Header::new(), AgentCommand::Ask(request)).await.expect("taken");
            scene.come_true().await;
        }
        gate.add_permits(1);
        let clock = Clock::system();
        let deadline = clock.now() + Duration::from_secs(30);
        let at_work = if heard { TaskState::Canceled } else { TaskState::InputRequired };
        while !scene.kept().await.contains(&at_work) {
            assert!(clock.now() < deadline, "{:?}", scene.kept().await);
            clock.sleep(Duration::from_millis(1)).await;
        }
        // Who never wanted to hear of it hasn't gone.
        assert_eq!(scene.runs.load(Ordering::SeqCst), usize::from(!heard));
    }
    scene.kernel.stop().await;
}
