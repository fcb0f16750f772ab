//! A disk that is full, as the journal sees it: what doesn't fit is refused, what is there stays readable, and
//! room is enough to go on.

use std::path::Path;

use neuroflow::TaskState;
use neuroflow::actors::{Append, AppendError};

use crate::folder::Folder;
use crate::scene::{Scene, event, head, say, texts};
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
