//! A kernel with a journal, and appends to it.

use std::path::Path;

use neuroflow::actors::{
    Append, AppendError, Condition, Entry, Journal, JournalConfig, JournalPlace, JournalServer,
    OpenError, OpenReport, OpenedJournal, TaskHead,
};
use neuroflow::actors::{Change, EntryKind, TaskEvent};
use neuroflow::kernel::{ChildSpec, Parcel};
use neuroflow::{Clock, Kernel, TaskState};

/// A kernel whose only child is a journal.
pub(crate) struct Scene {
    pub(crate) kernel: Kernel,
    pub(crate) journal: Journal,
    pub(crate) report: OpenReport,
    pub(crate) condition: Condition,
}

impl Scene {
    pub(crate) async fn open(config: JournalConfig) -> Result<Self, OpenError> {
        let opened = OpenedJournal::open(config, Clock::system()).await?;
        let (report, condition) = (opened.report().clone(), opened.condition());
        let kernel = Kernel::builder().start().await.expect("a kernel starts");
        let server = move || JournalServer::new(opened.clone());
        let (spec, address) = ChildSpec::new("journal", server).expect("a name");
        kernel.root().start(spec).await.expect("the journal starts");
        Ok(Self { kernel, journal: Journal::new(address), report, condition })
    }

    pub(crate) async fn at(folder: &Path) -> Self {
        Self::open(config(folder)).await.expect("the journal opens")
    }

    pub(crate) async fn stop(self) {
        self.kernel.stop().await;
    }
}

pub(crate) fn config(folder: &Path) -> JournalConfig {
    JournalConfig::new(JournalPlace::Directory(folder.to_owned()))
}

pub(crate) fn head(task: &str, state: TaskState, entries: u64) -> TaskHead {
    TaskHead {
        agent: "echo".into(),
        task: task.into(),
        context: format!("context of {task}"),
        caller: Some("alice".into()),
        state,
        changed_ms: 1_000,
        generation: entries,
        entries,
    }
}

/// An event with a text.
pub(crate) fn event(task: &str, generation: u64, text: &str) -> Entry {
    let event = TaskEvent {
        task: task.into(),
        context: format!("context of {task}"),
        generation,
        at_ms: 1_000,
        change: Change::Status {
            state: TaskState::Working,
            turn: Some(neuroflow::Turn::agent(text)),
        },
    };
    Entry::event(Parcel::archive(&event).expect("an event can be archived").as_raw().clone())
}

/// One append of one event.
pub(crate) async fn say(
    journal: &Journal,
    task: &str,
    after: u64,
    state: TaskState,
) -> Result<(), AppendError> {
    let head = head(task, state, after);
    journal.append(Append { head, entries: vec![event(task, after + 1, "hello")] }).await
}

/// The texts of a task's events, as they are read.
pub(crate) async fn texts(journal: &Journal, task: &str) -> Vec<String> {
    let log = journal.read("echo", task).await.expect("it can be read").expect("it's there");
    let events = log.entries.iter().filter(|entry| entry.kind == EntryKind::Event);
    events
        .map(|entry| {
            let event = entry.parcel.clone().open::<TaskEvent>().expect("an event");
            format!("{}", event.get().generation)
        })
        .collect()
}
