//! A disk that is full, as the journal sees it: what doesn't fit is refused, what is there stays readable, and
//! room is enough to go on.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use neuroflow::TaskState;
use neuroflow::actors::{Append, AppendError, Journal, JournalConfig, TaskQuery};

use crate::folder::Folder;
use crate::scene::{Scene, config, event, head, say, texts};
use crate::small_disk;

#[test]
fn a_full_disk_refuses_and_keeps() {
    let folder = Folder::new();
    let test = "disk::a_full_disk_refuses_and_keeps";
    small_disk::run(test, folder.path(), async |disk| refuses_and_keeps(disk).await);
}

async fn refuses_and_keeps(folder: &Path) {
    let ballast = folder.join("ballast");
    let journal = folder.join("journal");
    let scene = Scene::at(&journal).await;
    say(&scene.journal, "a", 0, TaskState::Working).await.expect("appended");
    std::fs::write(&ballast, vec![1; 1024 * 1024]).expect("there is room");
    // Until there is none left.
    let large = "x".repeat(64 * 1024);
    let mut kept = 0;
    let refused = loop {
        let entries = vec![event("b", kept + 1, &large)];
        match scene
            .journal
            .append(Append { head: head("b", TaskState::Working, kept), entries })
            .await
        {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 100, "the disk has no end");
    };
    assert!(matches!(refused, AppendError::DiskFull { .. }), "{refused:?}");
    assert!(refused.is_retryable());
    assert!(kept > 3);
    assert_eq!(texts(&scene.journal, "a").await, ["1"]);
    assert_eq!(texts(&scene.journal, "b").await.len() as u64, kept);
    // With room it goes on where it was.
    std::fs::remove_file(&ballast).expect("removed");
    say(&scene.journal, "b", kept, TaskState::Completed).await.expect("appended");
    scene.stop().await;
    let scene = Scene::at(&journal).await;
    assert_eq!(scene.report.damages, 0, "{:?}", scene.report.damage);
    assert_eq!(texts(&scene.journal, "b").await.len() as u64, kept + 1);
    scene.stop().await;
}

#[test]
fn a_full_disk_gets_well_by_keeping_less() {
    let folder = Folder::new();
    let test = "disk::a_full_disk_gets_well_by_keeping_less";
    small_disk::run(test, folder.path(), async |disk| gets_well(disk).await);
}

/// Appends an event of so many bytes to a task, which ends by that if it's large. Each change is later than all before.
async fn put(journal: &Journal, task: &str, after: u64, bytes: usize) -> Result<(), AppendError> {
    let state = if bytes < LARGE { TaskState::Working } else { TaskState::Completed };
    let mut head = head(task, state, after);
    head.changed_ms = CHANGES.fetch_add(1, Ordering::SeqCst);
    let entries = vec![event(task, after + 1, &"x".repeat(bytes))];
    journal.append(Append { head, entries }).await
}

const LARGE: usize = 32 * 1024;
static CHANGES: AtomicU64 = AtomicU64::new(1);

fn has(folder: &Path, name: &str) -> bool {
    folder.join(name).exists()
}

async fn gets_well(disk: &Path) {
    let folder = disk.join("journal");
    let mut keeps: JournalConfig = config(&folder);
    keeps.segment_bytes = 512 * 1024;
    // Their times are long ago.
    keeps.retention.age = None;
    let scene = Scene::open(keeps.clone()).await.expect("it opens");
    // One that is needed, and one that lies in two segments.
    put(&scene.journal, "open", 0, 1).await.expect("appended");
    put(&scene.journal, "spread", 0, 1).await.expect("appended");
    let mut number = 0;
    while !has(&folder, "00000002.segment") {
        put(&scene.journal, &format!("t{number:03}"), 0, LARGE).await.expect("there is room");
        number += 1;
    }
    put(&scene.journal, "spread", 1, LARGE).await.expect("there is room");
    while !has(&folder, "00000003.segment") {
        put(&scene.journal, &format!("t{number:03}"), 0, LARGE).await.expect("there is room");
        number += 1;
    }
    scene.stop().await;
    let index = std::fs::read(folder.join("index")).expect("it's written at a stop");

    let scene = Scene::open(keeps.clone()).await.expect("it opens again");
    // The system gives what there is, and then no more.
    let _full = std::fs::write(disk.join("ballast"), vec![1; 4 * 1024 * 1024]);
    let mut said = 1;
    let refused = loop {
        match put(&scene.journal, "open", said, 100).await {
            Ok(()) => said += 1,
            Err(refused) => break refused,
        }
        assert!(said < 100, "the disk has no end");
    };
    assert!(matches!(refused, AppendError::DiskFull { .. }), "{refused:?}");
    scene.stop().await;
    assert!(!has(&folder, "index.next"), "it takes up room");
    assert!(has(&folder, "00000001.segment"));

    keeps.retention.bytes = 128 * 1024;
    let scene = Scene::open(keeps.clone()).await.expect("it opens on a full disk");
    let clock = scene.kernel.clock().clone();
    let deadline = clock.now() + Duration::from_mins(2);
    // Whoever is refused has it looked at.
    while let Err(refused) = put(&scene.journal, "new", 0, LARGE).await {
        assert!(clock.now() < deadline, "{refused:?}");
        clock.sleep(Duration::from_millis(20)).await;
    }
    while has(&folder, "00000002.segment") || !has(&folder, "reserve") {
        assert!(clock.now() < deadline, "it keeps more than it should");
        clock.sleep(Duration::from_millis(20)).await;
    }
    let newest = format!("t{:03}", number - 1);
    let look = async |scene: &Scene| {
        for (task, events) in [("open", said), ("new", 1), (newest.as_str(), 1)] {
            assert_eq!(texts(&scene.journal, task).await.len() as u64, events, "{task}");
        }
        for gone in ["t000", "spread"] {
            assert!(scene.journal.read("echo", gone).await.expect("read").is_none(), "{gone}");
        }
        scene.journal.heads("echo", TaskQuery::first(1)).await.expect("listed").total
    };
    let total = look(&scene).await;
    scene.stop().await;

    // With its index, with one of before the segments went, and with none.
    for step in 0..3 {
        match step {
            1 => std::fs::write(folder.join("index"), &index).expect("there is room"),
            2 => std::fs::remove_file(folder.join("index")).expect("it's written at a stop"),
            _ => {}
        }
        let scene = Scene::open(keeps.clone()).await.expect("it opens");
        assert_eq!(scene.report.damages, 0, "{:?}", scene.report.damage);
        assert_eq!(scene.report.from_index, step < 2);
        assert_eq!(look(&scene).await, total);
        scene.stop().await;
    }
}
