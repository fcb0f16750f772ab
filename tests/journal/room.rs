//! Old segments go once nothing in them is needed, and what is needed moves out of them.

use std::path::Path;
use std::time::Duration;

use neuroflow::TaskState;
use neuroflow::actors::Append;
use neuroflow::actors::limits::SEGMENT_BYTES;

use crate::folder::Folder;
use crate::scene::{Scene, config, event, head, say, texts};

const LARGE: usize = 1024 * 1024;

fn segments(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).expect("read").map(|entry| {
        let name = entry.expect("an entry").file_name();
        name.to_string_lossy().into_owned()
    });
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".segment")).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_gives_its_room_back_and_keeps_what_is_alive() {
    gives_room_back(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_that_do_not_end_keep_nothing_but_themselves() {
    // More than a quarter of the first segment.
    gives_room_back(20).await;
}

/// A directory with so many large tasks that don't end before three segments of those that do.
async fn gives_room_back(waiting: u64) {
    let folder = Folder::new();
    let mut small = config(folder.path());
    small.sync = false;
    // Their times are long ago.
    small.retention.age = None;
    small.retention.bytes = 8 * LARGE as u64;
    let scene = Scene::open(small.clone()).await.expect("it opens");
    for after in 0..3 {
        say(&scene.journal, "alive", after, TaskState::Working).await.expect("appended");
    }
    let text = "x".repeat(LARGE);
    let written = 3 * SEGMENT_BYTES / LARGE as u64;
    let waits = (0..waiting).map(|number| (format!("w{number:03}"), TaskState::InputRequired));
    let ended = (0..written).map(|number| (format!("t{number:03}"), TaskState::Completed));
    for (task, state) in waits.chain(ended) {
        let entries = vec![event(&task, 1, &text)];
        let append = Append { head: head(&task, state, 0), entries };
        scene.journal.append(append).await.expect("appended");
    }
    let clock = scene.kernel.clock().clone();
    let deadline = clock.now() + Duration::from_mins(1);
    while segments(folder.path()).contains(&"00000001.segment".to_owned()) {
        assert!(clock.now() < deadline, "{:?} are left", segments(folder.path()));
        clock.sleep(Duration::from_millis(20)).await;
        // Whoever writes has it looked at.
        let more = texts(&scene.journal, "alive").await.len() as u64;
        say(&scene.journal, "alive", more, TaskState::Working).await.expect("appended");
    }
    let expected = texts(&scene.journal, "alive").await;
    assert!(expected.len() >= 3);
    scene.stop().await;

    for _ in 0..2 {
        let scene = Scene::open(small.clone()).await.expect("it opens again");
        assert_eq!(scene.report.damages, 0, "{:?}", scene.report.damage);
        assert_eq!(texts(&scene.journal, "alive").await, expected);
        for number in 0..waiting {
            assert_eq!(texts(&scene.journal, &format!("w{number:03}")).await, ["1"]);
        }
        assert!(scene.journal.read("echo", "t000").await.expect("read").is_none());
        let last = format!("t{:03}", written - 1);
        assert!(scene.journal.read("echo", &last).await.expect("read").is_some());
        scene.stop().await;
        // The second time everything is read again.
        let _without = std::fs::remove_file(folder.path().join("index"));
    }
}
