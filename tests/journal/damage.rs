//! Torn ends, flipped bits, other versions, other owners: what is found, and what it costs.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use neuroflow::TaskState;
use neuroflow::actors::{Append, DamageKind, Entry, OpenError, TaskHead};
use neuroflow::kernel::RawParcel;

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

/// Offsets of the records: each begins as the first one does.
fn records(folder: &Path) -> Vec<usize> {
    let bytes = bytes(folder);
    (32..bytes.len()).step_by(8).filter(|at| bytes[*at..].starts_with(&bytes[32..36])).collect()
}

/// The first segment and the directory as the first version would have written them: without a salt.
fn unsalt(folder: &Path) {
    let (mut bytes, records) = (bytes(folder), records(folder));
    let salt: Vec<u8> = bytes[16..24].to_vec();
    for at in records.into_iter().chain([16]) {
        bytes[at..at + 8].iter_mut().zip(&salt).for_each(|(byte, salt)| *byte ^= salt);
    }
    bytes[8] = 1;
    seal(&mut bytes);
    fs::write(segment(folder), bytes).expect("written");
    fs::write(folder.join("format"), "neuroflow journal 1\n").expect("written");
}

/// The checksum of a segment's header, after it was changed.
fn seal(segment: &mut [u8]) {
    let crc = crc32(&segment[..28]);
    segment[28..32].copy_from_slice(&crc.to_le_bytes());
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
async fn an_append_whose_end_is_damaged_is_not_taken_for_a_whole_one() {
    let folder = Folder::new();
    let scene = Scene::at(folder.path()).await;
    let entries = (1..=3).map(|number| event("a", number, "together")).collect();
    let append = Append { head: head("a", TaskState::Working, 0), entries };
    scene.journal.append(append).await.expect("appended");
    say(&scene.journal, "b", 0, TaskState::Working).await.expect("appended");
    scene.stop().await;
    fs::remove_file(folder.path().join("index")).expect("the index is there");
    flip(folder.path(), records(folder.path())[2] + 20);
    let scene = Scene::at(folder.path()).await;
    let log = scene.journal.read("echo", "a").await.expect("read").expect("there");
    let damage = log.damage.iter().map(|damage| (damage.kind, damage.number));
    assert_eq!(damage.collect::<Vec<_>>(), [(DamageKind::Missing, Some(3))]);
    assert_eq!((log.entries.len(), log.head.entries), (2, 2));
    let missing = scene.report.damage.iter().filter(|damage| damage.kind == DamageKind::Missing);
    assert_eq!(missing.map(|damage| damage.number).collect::<Vec<_>>(), [Some(3)]);
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
    fs::write(folder.path().join("format"), "neuroflow journal 3\n").expect("written");
    let refused = Scene::open(config(folder.path())).await.err().expect("refused");
    assert!(matches!(refused, OpenError::UnknownFormat { found: 3, known: 2, .. }), "{refused}");
    assert_eq!(bytes(folder.path()), before);

    let mut newer = before.clone();
    newer[8] = 3;
    seal(&mut newer);
    fs::write(segment(folder.path()), &newer).expect("written");
    for version in [1, 2] {
        let marker = format!("neuroflow journal {version}\n");
        fs::write(folder.path().join("format"), &marker).expect("written");
        let refused = Scene::open(config(folder.path())).await.err().expect("refused");
        let newest = matches!(refused, OpenError::UnknownFormat { found: 3, known: 2, .. });
        assert!(newest, "{refused}");
        assert_eq!(bytes(folder.path()), newer);
        let kept = fs::read_to_string(folder.path().join("format")).expect("it's there");
        assert_eq!(kept, marker);
    }
}

#[tokio::test]
async fn a_journal_of_the_first_version_is_read_and_goes_on_as_the_second() {
    for indexed in [false, true] {
        let folder = Folder::new();
        three_tasks(folder.path()).await;
        if indexed {
            Scene::at(folder.path()).await.stop().await;
        }
        unsalt(folder.path());
        let before = bytes(folder.path());
        assert!(before[32..].starts_with(b"NFJR"));
        let scene = Scene::at(folder.path()).await;
        assert_eq!((scene.report.damages, scene.report.from_index), (0, indexed));
        assert_eq!(texts(&scene.journal, "b").await, ["1", "2", "3"]);
        say(&scene.journal, "b", 3, TaskState::Completed).await.expect("appended");
        scene.stop().await;
        // Nothing more is written without a salt, and the first version is told so.
        assert!(bytes(folder.path()) == before, "the old segment was written to");
        let marker = fs::read_to_string(folder.path().join("format")).expect("it's there");
        assert_eq!(marker, "neuroflow journal 2\n");
        fs::remove_file(folder.path().join("index")).expect("the index is there");
        let scene = Scene::at(folder.path()).await;
        assert_eq!((scene.report.tasks, scene.report.damages), (3, 0));
        assert_eq!(texts(&scene.journal, "b").await, ["1", "2", "3", "4"]);
        scene.stop().await;
        let segments = fs::read_dir(folder.path()).expect("read");
        let names = segments.map(|entry| entry.expect("an entry").file_name());
        let names = names.filter(|name| name.to_string_lossy().ends_with(".segment"));
        assert_eq!(names.count(), 2);
    }
}

#[tokio::test]
async fn a_segment_whose_header_is_damaged_keeps_its_entries() {
    let folder = Folder::new();
    three_tasks(folder.path()).await;
    flip(folder.path(), 17);
    for after in [3, 4] {
        let scene = Scene::at(folder.path()).await;
        let kinds: Vec<DamageKind> = scene.report.damage.iter().map(|it| it.kind).collect();
        assert_eq!(kinds, [DamageKind::Head]);
        assert_eq!(scene.report.damage[0].offset, 0);
        assert_eq!(texts(&scene.journal, "b").await.len(), after);
        say(&scene.journal, "b", after as u64, TaskState::Working).await.expect("appended");
        scene.stop().await;
        fs::remove_file(folder.path().join("index")).expect("the index is there");
    }
}

/// Appends what holds a record of another agent's task, as that is in another journal, and one entry more.
async fn with_a_record_in_a_content(folder: &Path, unsalted: bool) -> Vec<usize> {
    let other = Folder::new();
    let scene = Scene::at(other.path()).await;
    let head = TaskHead { agent: "victim".into(), ..head("v", TaskState::Working, 0) };
    let forged = Append { head, entries: vec![event("v", 1, "forged")] };
    scene.journal.append(forged).await.expect("appended");
    scene.stop().await;
    if unsalted {
        unsalt(other.path());
    }
    let record = &bytes(other.path())[32..];

    let scene = Scene::at(folder).await;
    say(&scene.journal, "a", 0, TaskState::Working).await.expect("appended");
    let said = event("a", 2, "hello").parcel;
    let content = [record, record, b"and so on"].concat();
    let entry = Entry::event(RawParcel::new(said.message(), said.version(), &content));
    let append =
        Append { head: crate::scene::head("a", TaskState::Working, 1), entries: vec![entry] };
    scene.journal.append(append).await.expect("appended");
    say(&scene.journal, "b", 0, TaskState::Working).await.expect("appended");
    scene.stop().await;
    fs::remove_file(folder.join("index")).expect("the index is there");
    records(folder)
}

#[tokio::test]
async fn what_a_client_has_sent_is_no_record_whatever_is_torn_or_damaged() {
    for (damaged, unsalted) in [(false, false), (false, true), (true, false), (true, true)] {
        let folder = Folder::new();
        // What a client knows is how the first version begins a record, and its own journal's salt.
        let at = with_a_record_in_a_content(folder.path(), unsalted).await;
        assert_eq!(at.len(), 3);
        if damaged {
            let file = OpenOptions::new().write(true).open(segment(folder.path())).expect("opens");
            file.write_all_at(&[0; 40], at[1] as u64).expect("written");
        } else {
            let whole = bytes(folder.path());
            fs::write(segment(folder.path()), &whole[..at[2] - 8]).expect("written");
        }
        let scene = Scene::at(folder.path()).await;
        assert_eq!(scene.journal.agents().await.expect("read"), ["echo"], "{damaged} {unsalted}");
        assert_eq!(texts(&scene.journal, "a").await, ["1"]);
        assert_eq!(scene.report.damages, 1, "{:?}", scene.report.damage);
        let damage = &scene.report.damage[0];
        let kind = if damaged { DamageKind::Head } else { DamageKind::TornTail };
        assert_eq!((damage.kind, damage.offset), (kind, at[1] as u64));
        // What lies behind damage is found.
        let behind = scene.journal.read("echo", "b").await.expect("read");
        assert_eq!(behind.is_some(), damaged);
        scene.stop().await;
    }
}

#[tokio::test]
async fn what_is_behind_damage_of_the_first_version_is_not_believed_and_not_lost() {
    let folder = Folder::new();
    let at = with_a_record_in_a_content(folder.path(), true).await;
    unsalt(folder.path());
    let mut damaged = bytes(folder.path());
    damaged[at[1]..at[1] + 40].fill(0);
    fs::write(segment(folder.path()), &damaged).expect("written");
    for _ in 0..2 {
        let scene = Scene::at(folder.path()).await;
        assert_eq!(scene.journal.agents().await.expect("read"), ["echo"]);
        let found = scene.report.damage.iter().map(|it| (it.kind, it.offset, it.bytes));
        let rest = (damaged.len() - at[1]) as u64;
        assert_eq!(found.collect::<Vec<_>>(), [(DamageKind::Head, at[1] as u64, rest)]);
        assert!(bytes(folder.path()) == damaged, "what is there was changed");
        scene.stop().await;
        fs::remove_file(folder.path().join("index")).expect("the index is there");
    }
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
