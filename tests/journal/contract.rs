//! What every store does alike.

use std::time::Duration;

use neuroflow::TaskState;
use neuroflow::actors::{
    Append, AppendError, EffectResult, Entry, EntryKind, JournalConfig, JournalPlace, OpenError,
    Retention, TaskQuery,
};
use neuroflow::kernel::Parcel;

use crate::cluster::Cluster;
use crate::folder::Folder;
use crate::scene::{Scene, config, event, head, say, texts};

/// Appends, conflicts, reads, lists and removes.
async fn serves(config: JournalConfig) {
    let scene = Scene::open(config).await.expect("it opens");
    let journal = &scene.journal;

    // One entry after the other, and several kinds at once.
    say(journal, "a", 0, TaskState::Submitted).await.expect("appended");
    let effect = Parcel::archive(&EffectResult { json: "[1,2]".into() }).expect("archived");
    let entries = vec![
        Entry::new(EntryKind::Effect, effect.as_raw().clone()).keyed("charge"),
        event("a", 2, "second"),
        Entry::new(EntryKind::PushCursor, effect.as_raw().clone()).keyed("hook"),
        Entry::new(EntryKind::Call, effect.as_raw().clone()).keyed("look#1"),
        Entry::new(EntryKind::Outcome, effect.as_raw().clone()).keyed("look#1"),
    ];
    let append = Append { head: head("a", TaskState::Working, 1), entries };
    journal.append(append).await.expect("appended");
    let log = journal.read("echo", "a").await.expect("read").expect("there");
    let kinds: Vec<EntryKind> = log.entries.iter().map(|entry| entry.kind).collect();
    let expected = [
        EntryKind::Event,
        EntryKind::Effect,
        EntryKind::Event,
        EntryKind::PushCursor,
        EntryKind::Call,
        EntryKind::Outcome,
    ];
    assert_eq!(kinds, expected);
    assert!(log.damage.is_empty());
    assert_eq!((log.head.entries, log.head.state), (6, TaskState::Working));
    assert_eq!(log.head.context, "context of a");
    assert_eq!(log.head.caller.as_deref(), Some("alice"));
    assert_eq!(log.entries[1].key, "charge");
    let result = log.entries[1].parcel.clone().open::<EffectResult>().expect("an effect");
    assert_eq!(result.get().json, "[1,2]");

    // A writer that knows of less, or of more, is refused, and nothing is kept of it.
    for wrong in [0, 3, 9] {
        let refused = say(journal, "a", wrong, TaskState::Failed).await.expect_err("refused");
        let AppendError::Conflict { expected, found } = refused else { panic!("{refused}") };
        assert_eq!((expected, found), (wrong, 6));
    }
    let refused = say(journal, "new", 2, TaskState::Failed).await.expect_err("refused");
    assert!(matches!(refused, AppendError::Conflict { expected: 2, found: 0 }), "{refused}");
    assert!(journal.read("echo", "new").await.expect("read").is_none());
    let long = say(journal, &"x".repeat(600), 0, TaskState::Submitted).await.expect_err("refused");
    assert!(matches!(long, AppendError::TooLarge { field: "task", bytes: 600 }), "{long}");

    // Many at once, of many tasks, each in its own order.
    let mut writers = Vec::new();
    for number in 0..50 {
        let journal = journal.clone();
        writers.push(async move {
            let task = format!("many-{number}");
            for after in 0..10 {
                let state = if after == 9 { TaskState::Completed } else { TaskState::Working };
                say(&journal, &task, after, state).await.expect("appended");
            }
        });
    }
    futures(writers).await;
    assert_eq!(texts(journal, "many-7").await, (1..=10).map(|n| n.to_string()).collect::<Vec<_>>());

    // Lists are by the last change, and pages join.
    let mut query = TaskQuery::first(20);
    query.state = Some(TaskState::Completed);
    let (mut seen, mut total) = (Vec::new(), Vec::new());
    loop {
        let page = journal.heads("echo", query.clone()).await.expect("listed");
        seen.extend(page.heads.into_iter().map(|head| head.task));
        total.push(page.total);
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    assert_eq!((seen.len(), total), (50, vec![50; 3]));
    let mut sorted = seen.clone();
    sorted.sort();
    assert_eq!(sorted, seen, "all changed at one time, so they come by name");
    query.caller = Some("bob".into());
    assert_eq!(journal.heads("echo", query).await.expect("listed").total, 0);
    let mut one = TaskQuery::first(20);
    one.context = Some("context of many-3".into());
    one.since_ms = Some(1_000);
    assert_eq!(journal.heads("echo", one.clone()).await.expect("listed").total, 1);
    one.since_ms = Some(1_001);
    assert_eq!(journal.heads("echo", one).await.expect("listed").total, 0);

    let open = journal.unfinished("echo").await.expect("listed");
    assert_eq!(open.iter().map(|head| head.task.as_str()).collect::<Vec<_>>(), ["a"]);

    // What the node itself keeps is no agent's.
    let mut own = head("echo/a", TaskState::Working, 0);
    "/push".clone_into(&mut own.agent);
    let append = Append { head: own, entries: vec![event("a", 1, "own")] };
    journal.append(append).await.expect("appended");
    assert_eq!(journal.agents().await.expect("listed"), ["echo"]);
    assert_eq!(journal.unfinished("/push").await.expect("listed").len(), 1);

    // Only what has ended is removed.
    assert!(!journal.remove("echo", "a").await.expect("asked"));
    assert!(journal.remove("echo", "many-1").await.expect("removed"));
    assert!(!journal.remove("echo", "many-1").await.expect("asked"));
    assert!(journal.read("echo", "many-1").await.expect("read").is_none());
    scene.stop().await;
}

/// All of them, beside each other.
async fn futures(work: Vec<impl Future<Output = ()> + Send + 'static>) {
    let mut set = tokio::task::JoinSet::new();
    for one in work {
        set.spawn(one);
    }
    while let Some(done) = set.join_next().await {
        done.expect("it doesn't panic");
    }
}

/// What was appended is there after a stop and after the loss of the process's memory.
async fn survives(config: JournalConfig) {
    let scene = Scene::open(config.clone()).await.expect("it opens");
    for (task, state) in [("open", TaskState::InputRequired), ("done", TaskState::Rejected)] {
        say(&scene.journal, task, 0, TaskState::Submitted).await.expect("appended");
        say(&scene.journal, task, 1, state).await.expect("appended");
    }
    let gone = scene.journal.clone();
    scene.stop().await;
    assert!(matches!(gone.read("echo", "done").await, Err(_closed)));

    let scene = Scene::open(config).await.expect("it opens again");
    assert_eq!(scene.report.damages, 0);
    assert_eq!(texts(&scene.journal, "open").await, ["1", "2"]);
    let open = scene.journal.unfinished("echo").await.expect("listed");
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].state, TaskState::InputRequired);
    assert_eq!(open[0].caller.as_deref(), Some("alice"));
    say(&scene.journal, "open", 2, TaskState::Completed).await.expect("it goes on");
    scene.stop().await;
}

/// What bounds the tasks that are kept.
#[derive(Clone, Copy, Debug)]
enum By {
    Tasks,
    Bytes,
    Age,
}

const EACH: [By; 3] = [By::Tasks, By::Bytes, By::Age];

impl By {
    fn retention(self) -> Retention {
        let mut keep = Retention::on_disk();
        // Their times are long ago.
        keep.age = None;
        match self {
            Self::Tasks => keep.tasks = 20,
            // Of tasks with some 1 200 each.
            Self::Bytes => keep.bytes = 20_000,
            // That there are more than this has the ages looked at.
            Self::Age => (keep.age, keep.tasks) = (Some(Duration::from_hours(24)), 40),
        }
        keep
    }

    /// At most so many are left in the end. By their number alone more would be than by their age.
    fn left(self) -> usize {
        match self {
            Self::Tasks => 23,
            Self::Bytes => 20,
            Self::Age => 30,
        }
    }
}

/// The oldest ended tasks go once there are more than are kept.
async fn forgets(mut config: JournalConfig, by: By) {
    config.retention = by.retention();
    let scene = Scene::open(config).await.expect("it opens");
    let clock = scene.kernel.clock().clone();
    say(&scene.journal, "open", 0, TaskState::Working).await.expect("appended");
    let mut recent = head("recent", TaskState::Completed, 0);
    recent.changed_ms = clock.unix_ms();
    let append = Append { head: recent, entries: vec![event("recent", 1, "hello")] };
    scene.journal.append(append).await.expect("appended");
    for number in 0..60 {
        let task = format!("t{number:02}");
        let entries = vec![event(&task, 1, &"x".repeat(1_000))];
        let append = Append { head: head(&task, TaskState::Completed, 0), entries };
        scene.journal.append(append).await.expect("appended");
    }
    // It's done beside the appends.
    let deadline = clock.now() + Duration::from_mins(1);
    loop {
        let total = scene.journal.heads("echo", TaskQuery::first(1)).await.expect("listed").total;
        if total <= by.left() {
            break;
        }
        assert!(clock.now() < deadline, "{total} tasks are left by {by:?}");
        clock.sleep(Duration::from_millis(10)).await;
    }
    assert!(scene.journal.read("echo", "t00").await.expect("read").is_none(), "{by:?}");
    for kept in ["recent", "open"] {
        assert!(scene.journal.read("echo", kept).await.expect("read").is_some(), "{kept} {by:?}");
    }
    if !matches!(by, By::Age) {
        assert!(scene.journal.read("echo", "t59").await.expect("read").is_some(), "{by:?}");
    }
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_serves() {
    serves(JournalConfig::new(JournalPlace::Memory)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_forgets() {
    for by in EACH {
        forgets(JournalConfig::new(JournalPlace::Memory), by).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_serves() {
    let folder = Folder::new();
    serves(config(folder.path())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_survives() {
    let folder = Folder::new();
    survives(config(folder.path())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_forgets() {
    for by in EACH {
        let folder = Folder::new();
        forgets(config(folder.path()), by).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_serves() {
    let cluster = Cluster::start();
    serves(cluster.config("one")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_survives() {
    let cluster = Cluster::start();
    survives(cluster.config("one")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_forgets() {
    for by in EACH {
        let cluster = Cluster::start();
        forgets(cluster.config("one"), by).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_share_a_database_and_each_has_its_own_unfinished_tasks() {
    let cluster = Cluster::start();
    let one = Scene::open(cluster.config("one")).await.expect("it opens");
    let two = Scene::open(cluster.config("two")).await.expect("it opens");
    let taken = Scene::open(cluster.config("two")).await.err().expect("the name is taken");
    assert!(matches!(&taken, OpenError::Locked { place } if place.contains("two")), "{taken}");

    say(&one.journal, "a", 0, TaskState::Working).await.expect("appended");
    say(&two.journal, "b", 0, TaskState::Working).await.expect("appended");
    // Both see both, and own one.
    assert_eq!(texts(&two.journal, "a").await, ["1"]);
    assert_eq!(one.journal.heads("echo", TaskQuery::first(9)).await.expect("listed").total, 2);
    let open = two.journal.unfinished("echo").await.expect("listed");
    assert_eq!(open.iter().map(|head| head.task.as_str()).collect::<Vec<_>>(), ["b"]);
    // Two writers of one task: one of them learns that it isn't alone.
    say(&two.journal, "a", 1, TaskState::Completed).await.expect("appended");
    let refused = say(&one.journal, "a", 1, TaskState::Failed).await.expect_err("refused");
    assert!(matches!(refused, AppendError::Conflict { expected: 1, found: 2 }), "{refused}");
    one.stop().await;
    two.stop().await;
}
