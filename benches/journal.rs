//! The journal in a directory: events that are durable, one append, and a start with many tasks.
//! Beside it a plain file that is appended to with as many events to a flush.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use neuroflow::actors::{
    Append, Entry, EntryKind, Journal, JournalConfig, JournalPlace, JournalServer, OpenedJournal,
    TaskHead,
};
use neuroflow::kernel::{ChildSpec, MessageId, RawParcel};
use neuroflow::{Clock, Kernel, TaskState};

use crate::support::{Aim, Arguments, Figure, Samples, Unit, on_workers};

pub(crate) const FIGURES: &[&str] = &[GROUP, ONE, RESTART, REPLAY];

const GROUP: &str = "journal/event-in-group";
const ONE: &str = "journal/append";
const RESTART: &str = "journal/restart";
const REPLAY: &str = "journal/restart-after-kill";

/// 80 000 events per second.
const GROUP_AIM: Aim = Aim::AtMost(12_500.0);
const RESTART_AIM: Aim = Aim::AtMost(2_000_000_000.0);

/// Tasks that append at once, so that a flush is shared by as many.
const WRITERS: usize = 256;
/// Events of each in one round.
const EVENTS: usize = 16;
/// Bytes of an event.
const EVENT_BYTES: usize = 256;
/// Appends of one writer alone in one round.
const ALONE: usize = 64;
/// Tasks that a start finds.
const TASKS: usize = 100_000;
/// A start is slow and hardly varies.
const STARTS: usize = 5;
/// Rounds with a disk in them.
const ROUNDS: usize = 50;

pub(crate) fn measure(arguments: &Arguments) -> Vec<Figure> {
    let mut figures = Vec::new();
    let wants = |figure| arguments.wants(figure);
    if wants(GROUP) || wants(ONE) {
        let rounds = arguments.iterations.min(ROUNDS);
        let folder = Folder::new("appends");
        let [group, one, file, file_one] = on_workers(appends(folder.0.clone(), rounds));
        if wants(GROUP) {
            figures.push(Figure::new(GROUP, GROUP_AIM, &group).beside("file", &file));
        }
        if wants(ONE) {
            figures.push(Figure::new(ONE, Aim::None, &one).beside("file", &file_one));
        }
    }
    if wants(RESTART) || wants(REPLAY) {
        let folder = Folder::new("restart");
        let tasks = if arguments.iterations == 1 { TASKS / 100 } else { TASKS };
        on_workers(fill(folder.0.clone(), tasks));
        let starts = arguments.iterations.min(STARTS);
        let [restart, replay] = on_workers(restarts(folder.0.clone(), tasks, starts));
        if wants(RESTART) {
            figures.push(Figure::new(RESTART, RESTART_AIM, &restart));
        }
        if wants(REPLAY) {
            figures.push(Figure::new(REPLAY, RESTART_AIM, &replay));
        }
    }
    figures
}

/// A directory on the disk of the system's temporary files.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("neuroflow-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory can be made");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("a directory can be removed");
    }
}

async fn open(folder: &Path) -> (Kernel, Journal) {
    let config = JournalConfig::new(JournalPlace::Directory(folder.to_owned()));
    let opened = OpenedJournal::open(config, Clock::system()).await.expect("it opens");
    let kernel = Kernel::builder().start().await.expect("a kernel starts");
    let server = move || JournalServer::new(opened.clone());
    let (spec, address) = ChildSpec::new("journal", server).expect("a name");
    kernel.root().start(spec).await.expect("the journal starts");
    (kernel, Journal::new(address))
}

fn append(task: &str, number: u64, state: TaskState, entries: Vec<Entry>) -> Append {
    let head = TaskHead {
        agent: "bench".into(),
        task: task.into(),
        context: "3f7c1f2e-0000-4000-8000-000000000000".into(),
        caller: None,
        state,
        changed_ms: number,
        generation: number,
        entries: number,
    };
    Append { head, entries }
}

fn event() -> Entry {
    let parcel = RawParcel::new(MessageId::of("bench"), 1, &[7; EVENT_BYTES]);
    Entry::new(EntryKind::Event, parcel)
}

/// Events in groups and alone, through the journal and into a file.
async fn appends(folder: PathBuf, rounds: usize) -> [Samples; 4] {
    let [mut group, mut one, mut file, mut file_one] =
        [(); 4].map(|()| Samples::new(Unit::Nanoseconds));
    let (kernel, journal) = open(&folder.join("journal")).await;
    let mut plain = File::create(folder.join("plain")).expect("a file can be made");
    let entry = event();
    for round in 0..rounds {
        let begun = Instant::now();
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let (journal, entry) = (journal.clone(), entry.clone());
            writers.spawn(async move {
                let task = format!("{round}-{writer}");
                for number in 0..EVENTS as u64 {
                    let append = append(&task, number, TaskState::Working, vec![entry.clone()]);
                    journal.append(append).await.expect("it's appended");
                }
            });
        }
        while let Some(writer) = writers.join_next().await {
            writer.expect("no writer panics");
        }
        group.took(begun.elapsed(), WRITERS * EVENTS);

        let events = vec![7; EVENT_BYTES * WRITERS];
        let begun = Instant::now();
        for _ in 0..EVENTS {
            plain.write_all(&events).and_then(|()| plain.sync_data()).expect("it's written");
        }
        file.took(begun.elapsed(), WRITERS * EVENTS);

        for number in 0..ALONE as u64 {
            let append =
                append(&format!("{round}-alone"), number, TaskState::Working, vec![entry.clone()]);
            let begun = Instant::now();
            journal.append(append).await.expect("it's appended");
            one.took(begun.elapsed(), 1);
            let begun = Instant::now();
            let written = plain.write_all(&events[..EVENT_BYTES]);
            written.and_then(|()| plain.sync_data()).expect("it's written");
            file_one.took(begun.elapsed(), 1);
        }
    }
    kernel.stop().await;
    [group, one, file, file_one]
}

/// Ended tasks with four events each, and a few that haven't ended.
async fn fill(folder: PathBuf, tasks: usize) {
    let (kernel, journal) = open(&folder.join("journal")).await;
    let entry = Arc::new(event());
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (journal, entry) = (journal.clone(), entry.clone());
        writers.spawn(async move {
            for task in (writer..tasks).step_by(WRITERS) {
                let state =
                    if task % 1_000 == 0 { TaskState::Working } else { TaskState::Completed };
                let entries = vec![(*entry).clone(); 4];
                let task = format!("{task:08}-0000-4000-8000-000000000000");
                journal.append(append(&task, 0, state, entries)).await.expect("it's appended");
            }
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer.expect("no writer panics");
    }
    kernel.stop().await;
}

/// From the opening until unfinished tasks are known, with the index of a stop and without.
async fn restarts(folder: PathBuf, tasks: usize, starts: usize) -> [Samples; 2] {
    let [mut restart, mut replay] = [(); 2].map(|()| Samples::new(Unit::Nanoseconds));
    let folder = folder.join("journal");
    for _ in 0..starts {
        for (samples, index) in [(&mut restart, true), (&mut replay, false)] {
            if !index {
                std::fs::remove_file(folder.join("index")).expect("the index is there");
            }
            let begun = Instant::now();
            let (kernel, journal) = open(&folder).await;
            let open = journal.unfinished("bench").await.expect("they are listed").len();
            samples.took(begun.elapsed(), 1);
            assert_eq!(open, tasks.div_ceil(1_000));
            kernel.stop().await;
        }
    }
    [restart, replay]
}
