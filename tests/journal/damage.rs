//! Torn ends, flipped bits, other versions, other owners: what is found, and what it costs.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use neuroflow::TaskState;
use neuroflow::actors::{Append, DamageKind, OpenError};

use crate::folder::Folder;
use crate::scene::{Scene, config, event, head, say, texts};

/// A journal with three tasks of three events each; nothing of it is in an index.
async fn three_tasks(folder: &Path) {
    let scene = Scene::at(folder).await;
    for after in 0..3 {
        for task in ["a", "b", "c"] {
            say(&scene.journal, task, after, TaskState::Working).await.expect("appended");
        }
    }
    scene.stop().await;
    fs::remove_file(folder.join("index")).expect("the index is there");
}

fn segment(folder: &Path) -> PathBuf {
    folder.join("00000001.segment")
}

fn bytes(folder: &Path) -> Vec<u8> {
    fs::read(segment(folder)).expect("the segment can be read")
}

/// Offsets of the records.
fn records(folder: &Path) -> Vec<usize> {
    let bytes = bytes(folder);
    (0..bytes.len()).step_by(8).filter(|at| bytes[*at..].starts_with(b"NFJR")).collect()
}

fn flip(folder: &Path, at: usize) {
    let file = OpenOptions::new().write(true).open(segment(folder)).expect("it opens");
    let byte = bytes(folder)[at] ^ 0x10;
    file.write_all_at(&[byte], at as u64).expect("it's written");
}

#[tokio::test]
async fn a_torn_end_is_cut_and_reported_wherever_it_is_torn() {
    let folder = Folder::new();
    three_tasks(folder.path()).await;
    let whole = bytes(folder.path());
    let last = *records(folder.path()).last().expect("records");
    for cut in (last + 1..whole.len()).step_by(37) {
        fs::write(segment(folder.path()), &whole[..cut]).expect("written");
        let _index = fs::remove_file(folder.path().join("index"));
        let scene = Scene::at(folder.path()).await;
        assert_eq!(scene.report.damages, 1, "cut at {cut}");
        let damage = &scene.report.damage[0];
        assert_eq!(damage.kind, DamageKind::TornTail);
        assert_eq!((damage.offset, damage.bytes), (last as u64, (cut - last) as u64));
        // The task of the torn entry goes on where it was.
        assert_eq!(texts(&scene.journal, "c").await, ["1", "2"]);
        assert_eq!(texts(&scene.journal, "b").await, ["1", "2", "3"]);
        say(&scene.journal, "c", 2, TaskState::Completed).await.expect("appended");
        scene.stop().await;
        let scene = Scene::at(folder.path()).await;
        assert_eq!((scene.report.damages, scene.report.from_index), (0, true));
        assert_eq!(texts(&scene.journal, "c").await, ["1", "2", "3"]);
        scene.stop().await;
    }
}

#[tokio::test]
async fn an_append_is_there_as_a_whole_or_not_at_all() {
    let folder = Folder::new();
    let scene = Scene::at(folder.path()).await;
    say(&scene.journal, "a", 0, TaskState::Submitted).await.expect("appended");
    let entries = (2..=4).map(|number| event("a", number, "together")).collect();
    let append = Append { head: head("a", TaskState::Completed, 1), entries };
    scene.journal.append(append).await.expect("appended");
    scene.stop().await;
    fs::remove_file(folder.path().join("index")).expect("the index is there");
    let whole = bytes(folder.path());
    let at = records(folder.path());
    // In the last of the three.
    fs::write(segment(folder.path()), &whole[..at[3] + 50]).expect("written");
    let scene = Scene::at(folder.path()).await;
    let log = scene.journal.read("echo", "a").await.expect("read").expect("there");
    assert_eq!((log.entries.len(), log.head.state), (1, TaskState::Submitted));
    let damage = &scene.report.damage[0];
    assert_eq!((damage.kind, damage.task.as_deref()), (DamageKind::TornTail, Some("a")));
    scene.stop().await;
}

#[tokio::test]
async fn a_flipped_bit_in_content_is_found_and_costs_that_entry() {
    let folder = Folder::new();
    three_tasks(folder.path()).await;
    let records = records(folder.path());
    // The second event of task b, at its end.
    flip(folder.path(), records[5] - 12);
    let scene = Scene::at(folder.path()).await;
    assert_eq!(scene.report.damages, 1, "{:?}", scene.report.damage);
    let damage = scene.report.damage[0].clone();
    assert_eq!(damage.kind, DamageKind::Content);
    assert_eq!((damage.task.as_deref(), damage.number), (Some("b"), Some(2)));
    let log = scene.journal.read("echo", "b").await.expect("read").expect("there");
    assert_eq!(log.damage, [damage]);
    assert_eq!((log.entries.len(), log.head.entries), (2, 3));
    assert_eq!(texts(&scene.journal, "a").await, ["1", "2", "3"]);
    say(&scene.journal, "b", 3, TaskState::Failed).await.expect("it can still be ended");
    scene.stop().await;
}

#[tokio::test]
async fn a_flipped_bit_in_a_head_is_found_and_costs_that_entry() {
    let folder = Folder::new();
    three_tasks(folder.path()).await;
    let records = records(folder.path());
    flip(folder.path(), records[4] + 20);
    let scene = Scene::at(folder.path()).await;
    let kinds: Vec<DamageKind> = scene.report.damage.iter().map(|damage| damage.kind).collect();
    // The place, and, from the next entry of the task, whose it was.
    assert_eq!(kinds, [DamageKind::Head, DamageKind::Missing]);
    let missing = &scene.report.damage[1];
    assert_eq!((missing.task.as_deref(), missing.number), (Some("b"), Some(2)));
    assert_eq!(texts(&scene.journal, "b").await, ["1", "3"]);
    assert_eq!(texts(&scene.journal, "c").await, ["1", "2", "3"]);
    scene.stop().await;
}

#[tokio::test]
async fn a_bit_that_flips_while_the_index_is_used_is_found_when_it_is_read() {
    let folder = Folder::new();
    let scene = Scene::at(folder.path()).await;
    say(&scene.journal, "a", 0, TaskState::Completed).await.expect("appended");
    scene.stop().await;
    flip(folder.path(), bytes(folder.path()).len() - 12);
    let scene = Scene::at(folder.path()).await;
    assert!(scene.report.from_index);
    let log = scene.journal.read("echo", "a").await.expect("read").expect("there");
    assert!(log.entries.is_empty());
    assert_eq!((log.damage[0].kind, log.damage[0].number), (DamageKind::Content, Some(1)));
    scene.stop().await;
}

#[tokio::test]
async fn a_damaged_index_is_done_without() {
    let folder = Folder::new();
    three_tasks(folder.path()).await;
    Scene::at(folder.path()).await.stop().await;
    let index = folder.path().join("index");
    let mut bytes = fs::read(&index).expect("the index is there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&index, bytes).expect("written");
    let scene = Scene::at(folder.path()).await;
    assert!(!scene.report.from_index);
    assert_eq!((scene.report.tasks, scene.report.unfinished, scene.report.damages), (3, 3, 0));
    scene.stop().await;
}

#[tokio::test]
async fn another_version_is_refused_and_left_as_it_is() {
    let folder = Folder::new();
    three_tasks(folder.path()).await;
    let before = bytes(folder.path());
    fs::write(folder.path().join("format"), "neuroflow journal 2\n").expect("written");
    let refused = Scene::open(config(folder.path())).await.err().expect("refused");
    assert!(matches!(refused, OpenError::UnknownFormat { found: 2, known: 1, .. }), "{refused}");
    assert_eq!(bytes(folder.path()), before);

    fs::write(folder.path().join("format"), "neuroflow journal 1\n").expect("written");
    let mut newer = before.clone();
    newer[8] = 3;
    let crc = crc32(&newer[..28]);
    newer[28..32].copy_from_slice(&crc.to_le_bytes());
    fs::write(segment(folder.path()), &newer).expect("written");
    let refused = Scene::open(config(folder.path())).await.err().expect("refused");
    assert!(matches!(refused, OpenError::UnknownFormat { found: 3, known: 1, .. }), "{refused}");
    assert_eq!(bytes(folder.path()), newer);
}

/// CRC-32 as in PNG and zlib, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 }
        })
    })
}

#[tokio::test]
async fn a_directory_has_one_owner_and_nothing_else_in_it() {
    let folder = Folder::new();
    let first = Scene::at(folder.path()).await;
    let second = Scene::open(config(folder.path())).await.err().expect("refused");
    assert!(matches!(second, OpenError::Locked { .. }), "{second}");
    first.stop().await;

    let foreign = Folder::new();
    fs::write(foreign.path().join("letter.txt"), "dear").expect("written");
    let refused = Scene::open(config(foreign.path())).await.err().expect("refused");
    assert!(matches!(refused, OpenError::Foreign { .. }), "{refused}");
    assert_eq!(fs::read_dir(foreign.path()).expect("read").count(), 2, "a lock, and the letter");
}

#[tokio::test]
async fn a_segment_without_a_header_is_what_a_crash_leaves_and_no_loss() {
    let folder = Folder::new();
    three_tasks(folder.path()).await;
    fs::write(folder.path().join("00000002.segment"), b"NFLOW").expect("written");
    let scene = Scene::at(folder.path()).await;
    assert_eq!((scene.report.tasks, scene.report.damages), (3, 0));
    scene.stop().await;
}
