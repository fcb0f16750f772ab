//! Trees made by hand, trees made by an attacker, and real overlays. Long, because each attack has a tree
//! and a test of its own, and all share the builder of trees.

use std::{
    collections::BTreeMap,
    ffi::{CString, OsStr},
    fs::{self, Permissions},
    io::{Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{PermissionsExt, symlink},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use super::{
    ApplyError, ChangeKind, Changes, ChangesError, Node, Overlay, RefusedReason,
    read::{self, Bounds},
};
use crate::{
    limits,
    linux::{
        forbidden, overlay,
        sys::{event, mount, tree},
        target::Target,
    },
    noise::Noise,
    untried::{not_here, say_on, untried},
};

/// A folder with an upper tree and a project; gone with the value.
struct Scene(PathBuf);

impl Scene {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("overlay-{}-{number}", std::process::id()));
        for folder in ["upper", "project", "outside"] {
            fs::create_dir_all(path.join(folder)).expect("a folder");
        }
        Self(path)
    }

    fn upper(&self, name: &str) -> PathBuf {
        self.0.join("upper").join(name)
    }

    fn project(&self, name: &str) -> PathBuf {
        self.0.join("project").join(name)
    }

    fn outside(&self, name: &str) -> PathBuf {
        self.0.join("outside").join(name)
    }

    fn descriptor(&self) -> OwnedFd {
        OwnedFd::from(fs::File::open(self.upper("")).expect("the upper tree"))
    }

    fn read(&self) -> Result<Changes, ChangesError> {
        Changes::read(self.descriptor(), &self.project(""))
    }

    fn changes(&self) -> Changes {
        self.read().expect("changes")
    }

    /// Paths with what happened there.
    fn list(&self) -> Vec<(String, ChangeKind)> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        self.changes().iter().map(|change| (text(change.path()), change.kind())).collect()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn run(program: &str, arguments: &[&OsStr]) -> bool {
    command(program).args(arguments).status().expect("a program of the system").success()
}

#[expect(clippy::disallowed_methods, reason = "tests run programs of the system")]
fn command(program: &str) -> Command {
    Command::new(program)
}

/// Whether this host lets us make the device.
fn device(path: &Path, major: &str, minor: &str) -> bool {
    let made = run("mknod", &[path.as_os_str(), "c".as_ref(), major.as_ref(), minor.as_ref()]);
    if !made {
        untried("device nodes", "this user can't make them here");
    }
    made
}

#[test]
fn each_kind_of_change_is_told_apart() {
    let scene = Scene::new();
    for name in ["same", "changed", "typed"] {
        fs::write(scene.project(name), "old").expect("a file");
    }
    fs::create_dir_all(scene.project("dir/inner")).expect("a folder");
    fs::write(scene.upper("changed"), "changed").expect("a file");
    fs::write(scene.upper("added"), "added").expect("a file");
    fs::create_dir(scene.upper("typed")).expect("a folder");
    fs::create_dir_all(scene.upper("dir/fresh")).expect("a folder");
    fs::write(scene.upper("dir/inner"), "now a file").expect("a file");
    symlink("../added", scene.upper("dir/link")).expect("a link");
    let expected = [
        ("added", ChangeKind::Added),
        ("changed", ChangeKind::Modified),
        ("dir/fresh", ChangeKind::Added),
        ("dir/inner", ChangeKind::TypeChanged),
        ("dir/link", ChangeKind::Added),
        ("typed", ChangeKind::TypeChanged),
    ];
    assert_eq!(scene.list(), expected.map(|(path, kind)| (path.to_owned(), kind)));
    let changes = scene.changes();
    let link = changes.iter().find(|change| change.path().ends_with("link")).expect("the link");
    assert_eq!(link.node(), Some(&Node::Symlink { target: "../added".into() }));
    assert_eq!(changes.contents(link).expect_err("no file").raw(), libc::EISDIR);
    let mut text = String::new();
    let changed = changes.iter().nth(1).expect("a change");
    changes.contents(changed).expect("contents").read_to_string(&mut text).expect("text");
    assert_eq!(text, "changed");

    changes.apply(&scene.project("")).expect("changes");
    assert_eq!(fs::read_to_string(scene.project("same")).expect("a file"), "old");
    assert_eq!(fs::read_to_string(scene.project("changed")).expect("a file"), "changed");
    assert_eq!(fs::read_to_string(scene.project("dir/inner")).expect("a file"), "now a file");
    assert_eq!(fs::read_to_string(scene.project("dir/link")).expect("a file"), "added");
    assert!(scene.project("typed").is_dir() && scene.project("dir/fresh").is_dir());
    assert_eq!(fs::read_dir(scene.project("")).expect("a folder").count(), 5, "nothing beside");
}

#[test]
fn nothing_changed_is_nothing_to_apply() {
    let scene = Scene::new();
    fs::create_dir(scene.project("dir")).expect("a folder");
    fs::create_dir(scene.upper("dir")).expect("a folder");
    assert!(scene.changes().is_empty());
    scene.changes().apply(&scene.project("")).expect("no changes");
}

#[test]
fn whiteouts_are_deletions_of_what_was_there() {
    let scene = Scene::new();
    fs::create_dir_all(scene.project("dir/deep/er")).expect("a folder");
    fs::write(scene.project("dir/deep/file"), "x").expect("a file");
    fs::write(scene.project("file"), "x").expect("a file");
    symlink(scene.outside(""), scene.project("dir/out")).expect("a link");
    fs::write(scene.outside("kept"), "x").expect("a file");
    if ["dir", "file", "never"].iter().all(|name| device(&scene.upper(name), "0", "0")) {
        let deleted = ["dir", "file"].map(|path| (path.to_owned(), ChangeKind::Deleted));
        assert_eq!(scene.list(), deleted);
        scene.changes().apply(&scene.project("")).expect("changes");
        assert_eq!(fs::read_dir(scene.project("")).expect("a folder").count(), 0);
        assert!(scene.outside("kept").exists(), "links are deleted, not followed");
        scene.changes().apply(&scene.project("")).expect("what is gone is as good");
    }
}

#[test]
fn what_is_no_file_is_refused_unopened() {
    let scene = Scene::new();
    assert!(run("mkfifo", &[scene.upper("fifo").as_os_str()]));
    let _socket = UnixListener::bind(scene.upper("socket")).expect("a socket");
    let mut expected = vec![("fifo", RefusedReason::Fifo), ("socket", RefusedReason::Socket)];
    if device(&scene.upper("device"), "1", "5") {
        expected.insert(0, ("device", RefusedReason::Device));
    }
    fs::write(scene.project("fifo"), "stays").expect("a file");
    let changes = scene.changes();
    let refused: Vec<(&str, RefusedReason)> = changes
        .refused()
        .iter()
        .map(|refused| (refused.path.to_str().expect("text"), refused.reason))
        .collect();
    assert_eq!(refused, expected);
    assert!(changes.iter().next().is_none() && !changes.is_empty());
    changes.apply(&scene.project("")).expect("nothing to do");
    assert_eq!(fs::read_to_string(scene.project("fifo")).expect("a file"), "stays");
}

#[test]
fn links_that_could_leave_the_project_are_refused() {
    let scene = Scene::new();
    fs::create_dir_all(scene.upper("a/b")).expect("a folder");
    let targets = [
        ("/etc/passwd", false),
        ("..", false),
        ("../x", false),
        ("x/../..", false),
        ("x/..", false),
        ("./../..", false),
        ("x", true),
        ("a/b/c", true),
        (".", true),
        ("./x", true),
    ];
    for (number, (target, _)) in targets.iter().enumerate() {
        symlink(target, scene.upper(&format!("{number}"))).expect("a link");
    }
    symlink("../../x", scene.upper("a/b/in")).expect("a link");
    symlink("../../../x", scene.upper("a/b/out")).expect("a link");
    let changes = scene.changes();
    for (number, (target, fine)) in targets.iter().enumerate() {
        let path = PathBuf::from(number.to_string());
        let listed = changes.iter().any(|change| change.path() == path);
        let refused = changes
            .refused()
            .iter()
            .any(|refused| refused.path == path && refused.reason == RefusedReason::LeavingLink);
        assert_eq!((listed, refused), (*fine, !*fine), "{target}");
    }
    assert!(changes.iter().any(|change| change.path() == Path::new("a/b/in")));
    assert!(changes.refused().iter().any(|refused| refused.path == Path::new("a/b/out")));
}

#[test]
fn links_in_the_upper_tree_are_not_followed() {
    let scene = Scene::new();
    fs::write(scene.outside("secret"), "secret").expect("a file");
    symlink(scene.outside(""), scene.upper("dir")).expect("a link");
    fs::write(scene.upper("file"), "x").expect("a file");
    let changes = scene.changes();
    assert_eq!(changes.iter().len(), 1);
    // The tree changes behind the reader's back.
    fs::remove_file(scene.upper("file")).expect("the file");
    symlink(scene.outside("secret"), scene.upper("file")).expect("a link");
    let change = changes.iter().next().expect("a change");
    assert_eq!(changes.contents(change).expect_err("a link").raw(), libc::ELOOP);
    assert!(matches!(
        changes.apply(&scene.project("")),
        Err(ApplyError::Contents { path, .. }) if path == Path::new("file")
    ));
    assert!(!scene.project("file").exists());
}

#[test]
fn links_in_the_project_are_replaced_and_not_followed() {
    let scene = Scene::new();
    fs::write(scene.outside("target"), "untouched").expect("a file");
    fs::create_dir(scene.project("dir")).expect("a folder");
    for name in ["file", "gone"] {
        fs::write(scene.project(name), "x").expect("a file");
    }
    fs::create_dir(scene.upper("dir")).expect("a folder");
    fs::write(scene.upper("dir/evil"), "evil").expect("a file");
    fs::write(scene.upper("file"), "evil").expect("a file");
    let changes = scene.changes();
    // Swapped after the changes were read, as somebody would who races with us.
    fs::remove_dir(scene.project("dir")).expect("the folder");
    symlink(scene.outside(""), scene.project("dir")).expect("a link");
    fs::remove_file(scene.project("file")).expect("the file");
    symlink(scene.outside("target"), scene.project("file")).expect("a link");
    match changes.apply(&scene.project("")) {
        Err(ApplyError::Parent { path, source }) => {
            assert_eq!((path.as_path(), source.raw()), (Path::new("dir/evil"), libc::ENOTDIR));
        }
        other => panic!("{other:?}"),
    }
    assert!(!scene.outside("evil").exists());
    // Read again, the link is known, and makes room.
    let changes = scene.changes();
    changes.apply(&scene.project("")).expect("changes");
    assert_eq!(fs::read_to_string(scene.project("dir/evil")).expect("a file"), "evil");
    assert_eq!(fs::read_to_string(scene.project("file")).expect("a file"), "evil");
    assert!(!fs::symlink_metadata(scene.project("file")).expect("a file").is_symlink());
    assert_eq!(fs::read_to_string(scene.outside("target")).expect("a file"), "untouched");
    assert_eq!(fs::read_dir(scene.outside("")).expect("a folder").count(), 1);
}

#[test]
fn what_was_changed_since_the_changes_were_read_is_neither_replaced_nor_deleted() {
    let scene = Scene::new();
    for name in ["same", "changed", "removed"] {
        fs::write(scene.project(name), "old").expect("a file");
        fs::write(scene.upper(name), "new").expect("a file");
    }
    fs::create_dir_all(scene.project("typed/deep")).expect("a folder");
    fs::write(scene.upper("typed"), "new").expect("a file");
    fs::write(scene.upper("taken"), "new").expect("a file");
    let changes = scene.changes();
    fs::write(scene.project("changed"), "mine").expect("a file");
    fs::remove_file(scene.project("removed")).expect("a file");
    fs::write(scene.project("taken"), "mine").expect("a file");
    match changes.apply(&scene.project("")) {
        Err(ApplyError::Conflict { paths }) => {
            assert_eq!(paths, ["changed", "removed", "taken"].map(PathBuf::from));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(fs::read_to_string(scene.project("same")).expect("a file"), "old");
    // Of a cell that began before all of it, everything was changed meanwhile.
    let changes = Changes { since: Some(0), ..scene.changes() };
    match changes.apply(&scene.project("")) {
        Err(ApplyError::Conflict { paths }) => {
            let expected = ["changed", "same", "taken", "typed", "typed/deep"].map(PathBuf::from);
            assert_eq!(paths, expected);
        }
        other => panic!("{other:?}"),
    }
    let changes = scene.overlay().read().expect("changes");
    changes.apply(&scene.project("")).expect("nobody has changed anything since");
    assert_eq!(fs::read_to_string(scene.project("typed")).expect("a file"), "new");
}

impl Scene {
    /// The changes of a cell that began now, and sees the project as it is now.
    fn overlay(&self) -> Overlay {
        let project = fs::File::open(self.project("")).expect("the project");
        let below = tree::look(project.as_fd()).expect("a directory").stamp.place;
        // Longer than a clock for files stands still: what was made until now was there before.
        std::thread::sleep(2 * limits::CLOCK_TICK);
        let mut overlay = Overlay::new(self.descriptor(), &self.project(""), below, Vec::new());
        overlay.began(event::calendar());
        overlay
    }

    fn moves(&self, from: &str, to: &str) {
        fs::rename(self.0.join(from), self.0.join(to)).expect("a new name");
    }
}

#[test]
fn what_was_made_to_mount_on_is_no_change() {
    let listed = |fill: fn(&Scene)| {
        let scene = Scene::new();
        for folder in ["cache/deep/bin", "cache/lib", "alone"] {
            fs::create_dir_all(scene.upper(folder)).expect("a folder");
        }
        fs::write(scene.upper("cache/deep/null"), "").expect("a file");
        fill(&scene);
        let places = ["cache/deep/bin", "cache/lib", "cache/deep/null", "cache/lib/x", "missing"];
        let overlay = Overlay { places: places.map(PathBuf::from).to_vec(), ..scene.overlay() };
        let changes = overlay.read().expect("changes");
        changes.iter().map(|change| change.path().display().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(listed(|_| ()), ["alone"]);
    let beside = |scene: &Scene| fs::write(scene.upper("cache/deep/beside"), "").expect("a file");
    assert_eq!(listed(beside), ["alone", "cache", "cache/deep", "cache/deep/beside"]);
    let refused =
        |scene: &Scene| drop(UnixListener::bind(scene.upper("cache/s")).expect("a socket"));
    assert_eq!(listed(refused), ["alone", "cache"]);
    // Whoever moves what is around a place can have something else there.
    let written =
        |scene: &Scene| fs::write(scene.upper("cache/deep/null"), "text").expect("a file");
    assert_eq!(listed(written), ["alone", "cache", "cache/deep", "cache/deep/null"]);
    let there = |scene: &Scene| fs::create_dir_all(scene.project("cache/deep")).expect("a folder");
    assert_eq!(listed(there), ["alone"]);
}

fn conflicts(applied: Result<(), ApplyError>) -> Vec<PathBuf> {
    let Err(ApplyError::Conflict { paths }) = applied else { panic!("{applied:?}") };
    paths
}

#[test]
fn another_directory_in_the_projects_place_is_left_alone() {
    let scene = Scene::new();
    let text = |name: &str| fs::read_to_string(scene.0.join(name)).expect("a file");
    fs::write(scene.project("main"), "old").expect("a file");
    fs::create_dir(scene.0.join("next")).expect("a folder");
    fs::write(scene.0.join("next/main"), "theirs").expect("a file");
    fs::write(scene.upper("main"), "cell").expect("a file");
    // While the cell ran; after its changes were read; and there and back again between the two.
    let overlay = scene.overlay();
    scene.moves("project", "before");
    scene.moves("next", "project");
    let changes = overlay.read().expect("changes");
    assert_eq!(conflicts(changes.apply(&scene.project(""))), [PathBuf::from(".")]);
    assert_eq!(text("project/main"), "theirs");
    scene.moves("project", "next");
    scene.moves("before", "project");
    assert_eq!(conflicts(changes.apply(&scene.project(""))), [PathBuf::from(".")]);
    assert_eq!(text("project/main"), "old");
    let changes = scene.overlay().read().expect("changes");
    scene.moves("project", "before");
    scene.moves("next", "project");
    assert_eq!(conflicts(changes.apply(&scene.project(""))), [PathBuf::from(".")]);
    assert_eq!(text("project/main"), "theirs");
    // It is the same directory under whatever name, and any other is a matter of the caller's.
    changes.apply(&scene.0.join("before")).expect("changes");
    assert_eq!(text("before/main"), "cell");
    changes.apply(&scene.outside("")).expect("changes");
    assert_eq!(text("outside/main"), "cell");
}

#[test]
fn a_directory_that_was_moved_in_is_left_alone() {
    let scene = Scene::new();
    for folder in ["project/deep/sub", "upper/deep/sub", "upper/other", "next", "project/other"] {
        fs::create_dir_all(scene.0.join(folder)).expect("a folder");
    }
    for file in ["project/deep/sub/main", "next/main", "project/other/main"] {
        fs::write(scene.0.join(file), "old").expect("a file");
    }
    for file in ["upper/deep/sub/main", "upper/other/main", "upper/other/added"] {
        fs::write(scene.0.join(file), "cell").expect("a file");
    }
    let overlay = scene.overlay();
    scene.moves("project/deep/sub", "before");
    scene.moves("next", "project/deep/sub");
    // That somebody else has made a file beside is no harm.
    fs::write(scene.project("other/theirs"), "theirs").expect("a file");
    let changes = overlay.read().expect("changes");
    assert_eq!(conflicts(changes.apply(&scene.project(""))), [PathBuf::from("deep/sub")]);
    assert_eq!(fs::read_to_string(scene.project("deep/sub/main")).expect("a file"), "old");
    assert!(!scene.project("other/added").exists());
    scene.moves("project/deep/sub", "next");
    fs::create_dir(scene.project("deep/sub")).expect("a folder");
    fs::write(scene.project("deep/sub/main"), "old").expect("a file");
    scene.overlay().read().expect("changes").apply(&scene.project("")).expect("changes");
    assert_eq!(fs::read_to_string(scene.project("deep/sub/main")).expect("a file"), "cell");
}

#[test]
fn a_project_named_by_a_link_is_the_users_own_choice() {
    let scene = Scene::new();
    fs::write(scene.upper("file"), "x").expect("a file");
    symlink(scene.project(""), scene.0.join("named")).expect("a link");
    scene.changes().apply(&scene.0.join("named")).expect("changes");
    assert!(scene.project("file").exists());
    assert!(matches!(
        scene.changes().apply(&scene.upper("file")),
        Err(ApplyError::Project { source, .. }) if source.raw() == libc::ENOTDIR
    ));
    assert!(matches!(
        Changes::read(scene.descriptor(), &scene.0.join("missing")),
        Err(ChangesError::Project { source, .. }) if source.raw() == libc::ENOENT
    ));
}

#[test]
fn privileged_bits_are_not_taken_over() {
    let scene = Scene::new();
    fs::write(scene.upper("tool"), "x").expect("a file");
    fs::set_permissions(scene.upper("tool"), Permissions::from_mode(0o6755)).expect("a mode");
    fs::create_dir(scene.upper("dir")).expect("a folder");
    fs::set_permissions(scene.upper("dir"), Permissions::from_mode(0o3770)).expect("a mode");
    fs::hard_link(scene.upper("tool"), scene.upper("twin")).expect("a link");
    let changes = scene.changes();
    let tool = changes.iter().find(|change| change.path() == Path::new("tool")).expect("the tool");
    assert_eq!(tool.node(), Some(&Node::File { mode: 0o755, bytes: 1 }));
    changes.apply(&scene.project("")).expect("changes");
    let mode = |name| fs::metadata(scene.project(name)).expect("it").permissions().mode() & 0o7777;
    assert_eq!((mode("tool"), mode("dir")), (0o755, 0o770));
    fs::write(scene.project("tool"), "changed").expect("a file");
    assert_eq!(
        fs::read_to_string(scene.project("twin")).expect("a file"),
        "x",
        "not the same file"
    );
}

#[test]
fn names_need_not_be_text() {
    let scene = Scene::new();
    for name in [&b"\xff\xfe"[..], b"a\nb", b"-rf", b".neuroflow-1-1", b"\x1b[31m"] {
        let name = OsStr::from_bytes(name);
        fs::write(scene.0.join("upper").join(name), "x").expect("a file");
    }
    scene.changes().apply(&scene.project("")).expect("changes");
    let files = fs::read_dir(scene.project("")).expect("a folder");
    assert_eq!(files.count(), 5);
    assert!(scene.0.join("project").join(OsStr::from_bytes(b"\xff\xfe")).exists());
}

#[test]
fn bounds_hold() {
    let scene = Scene::new();
    for number in 0..20 {
        fs::write(scene.upper(&format!("{number:04}")), "x").expect("a file");
    }
    let within = |entries, path_bytes| {
        let bounds = Bounds { entries, path_bytes };
        read::read(&scene.descriptor(), &scene.project(""), bounds)
    };
    assert_eq!(within(20, 80).expect("all fit").0.list.len(), 20);
    assert!(matches!(within(19, 80), Err(ChangesError::TooManyEntries { limit: 19 })));
    assert!(matches!(within(20, 79), Err(ChangesError::LongPaths { limit: 79 })));

    fs::File::create(scene.upper("large"))
        .and_then(|file| file.set_len(limits::CHANGES_BYTES))
        .expect("a file of holes");
    assert!(matches!(scene.read(), Err(ChangesError::TooLarge { .. })));
    fs::remove_file(scene.upper("large")).expect("the file");

    nest(scene.descriptor(), "d", limits::CHANGES_DEPTH);
    assert!(scene.read().is_ok());
    nest(scene.descriptor(), "e", limits::CHANGES_DEPTH + 1);
    assert!(matches!(scene.read(), Err(ChangesError::TooDeep { .. })));
    fs::remove_dir_all(scene.upper("e")).expect("the folder");
    nest(scene.descriptor(), &"l".repeat(250), 20);
    assert!(matches!(scene.read(), Err(ChangesError::LongPath { .. })));
}

/// Makes directories in directories, also where no path is long enough.
fn nest(mut directory: OwnedFd, name: &str, levels: usize) {
    let name = OsStr::new(name);
    for _ in 0..levels {
        tree::make_directory(directory.as_fd(), name).expect("a directory");
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        directory = tree::open_beneath(directory.as_fd(), name, flags, 0).expect("the directory");
    }
}

#[test]
fn deletions_are_bounded() {
    let scene = Scene::new();
    let project = OwnedFd::from(fs::File::open(scene.project("")).expect("the project"));
    nest(project, "d", limits::DELETION_DEPTH + 1);
    fs::write(scene.upper("d"), "a file in its place").expect("a file");
    assert!(matches!(
        scene.changes().apply(&scene.project("")),
        Err(ApplyError::TooDeep { limit: limits::DELETION_DEPTH, .. })
    ));
}

/// What is at each path: mode and contents.
fn snapshot(root: &Path) -> BTreeMap<PathBuf, (String, u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).expect("a folder") {
            let path = entry.expect("an entry").path();
            let data = fs::symlink_metadata(&path).expect("an entry");
            let kind = data.file_type();
            let mode = if kind.is_symlink() { 0 } else { data.permissions().mode() & 0o7777 };
            let contents = if kind.is_symlink() {
                fs::read_link(&path).expect("a link").into_os_string().into_encoded_bytes()
            } else if kind.is_dir() {
                open.push(path.clone());
                Vec::new()
            } else {
                fs::read(&path).expect("a file")
            };
            let below = path.strip_prefix(root).expect("below").to_owned();
            found.insert(below, (format!("{kind:?}"), mode, contents));
        }
    }
    found
}

/// One random edit. That many of them fail is part of the test.
fn edit(root: &Path, noise: &mut Noise) {
    let mut path = root.to_owned();
    let depth = 1 + noise.next() % 3;
    for _ in 0..depth {
        path.push(["a", "b", "c", "d"][usize::try_from(noise.next() % 4).expect("small")]);
    }
    let mode = Permissions::from_mode(
        [0o755, 0o700, 0o750][usize::try_from(noise.next() % 3).expect("small")],
    );
    match noise.next() % 9 {
        0 | 1 => drop(fs::create_dir_all(&path)),
        2 => drop(fs::write(&path, noise.bytes(100))),
        3 => drop(
            fs::OpenOptions::new().append(true).open(&path).map(|mut file| file.write_all(b"+")),
        ),
        4 => drop(fs::remove_file(&path)),
        5 => drop(fs::remove_dir_all(&path)),
        6 => drop(symlink("a/b", &path)),
        7 => drop(fs::set_permissions(&path, mode)),
        _ => drop(fs::rename(&path, root.join("c"))),
    }
}

const ROLE: &str = "OVERLAY_ROLE";

/// Runs one of these tests where it may mount: as the root of its own user namespace.
fn passes_with_mounts(test: &str) {
    let own = std::env::current_exe().expect("a path");
    let output = command("unshare")
        .args(["--user", "--map-root-user", "--mount"])
        .arg(own)
        .args(["--exact", test, "--nocapture"])
        .env(ROLE, test)
        .output()
        .expect("unshare");
    say_on(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && text.contains("1 passed");
    assert!(passed, "{text}\n{}", String::from_utf8_lossy(&output.stderr));
}

fn plays(test: &str) -> bool {
    std::env::var(ROLE).as_deref() == Ok(test)
}

/// Mounts the scene's project at `merged`, and gives the upper tree.
fn mounted(scene: &Scene, options: &str) -> (OwnedFd, PathBuf) {
    let path = |path: &Path| CString::new(path.as_os_str().as_bytes()).expect("a path");
    let merged = scene.0.join("merged");
    fs::create_dir(&merged).expect("a folder");
    let lower = mount::copy(&path(&scene.project(""))).expect("a copy");
    let forbid = mount::Forbid { write: true, device: true, execute: false };
    mount::restrict(lower.as_fd(), forbid).expect("a restriction");
    let options = CString::new(options).expect("options");
    let place = path(&merged);
    let target = Target::make(&place, true).expect("a place");
    let usual = forbidden(true, false);
    let (upper, _) = overlay::mount(lower.as_fd(), &target, &options, usual).expect("an overlay");
    (upper, merged)
}

fn unmount(merged: &Path) {
    mount::detach(&CString::new(merged.as_os_str().as_bytes()).expect("a path")).expect("an end");
}

const RANDOM: &str = "overlay::tests::role_random_edits";

#[test]
fn changes_applied_to_a_copy_give_what_the_cell_saw() {
    passes_with_mounts(RANDOM);
}

#[test]
fn role_random_edits() {
    if !plays(RANDOM) {
        return;
    }
    for seed in 0..40 {
        let mut noise = Noise::new(seed);
        let scene = Scene::new();
        for _ in 0..60 {
            edit(&scene.project(""), &mut noise);
        }
        let before = snapshot(&scene.project(""));
        let copy = scene.0.join("copy");
        assert!(run("cp", &["-a".as_ref(), scene.project("").as_os_str(), copy.as_os_str()]));
        let (upper, merged) = mounted(&scene, "size=16777216,nr_inodes=4096,mode=755");
        for _ in 0..=noise.next() % 40 {
            edit(&merged, &mut noise);
        }
        let seen = snapshot(&merged);
        // From here on only the descriptor holds the changes, as after the end of a cell.
        unmount(&merged);
        assert_eq!(snapshot(&scene.project("")), before, "seed {seed}: nothing is written through");
        let changes = Changes::read(upper, &scene.project("")).expect("changes");
        // Links of the random edits lead to "a/b" from anywhere, so none is refused.
        assert_eq!(changes.refused(), [], "seed {seed}");
        changes.apply(&copy).expect("changes");
        assert_eq!(snapshot(&copy), seen, "seed {seed}: {changes:?}");
        let again = Changes::read(changes.upper.try_clone().expect("a copy"), &copy).expect("it");
        let left = again.iter().find(|change| {
            change.kind() != ChangeKind::Modified
                || matches!(change.node(), Some(Node::Directory { .. }))
        });
        assert_eq!(left, None, "seed {seed}: nothing is left to do");
    }
}

const REPLACED: &str = "overlay::tests::role_replaced_directory";

#[test]
fn a_replaced_directory_hides_what_was_in_it() {
    passes_with_mounts(REPLACED);
}

#[test]
fn role_replaced_directory() {
    if !plays(REPLACED) {
        return;
    }
    let scene = Scene::new();
    fs::create_dir_all(scene.project("dir/sub")).expect("a folder");
    for name in ["dir/old", "dir/both", "dir/sub/old"] {
        fs::write(scene.project(name), "old").expect("a file");
    }
    let (upper, merged) = mounted(&scene, "size=65536,nr_inodes=100,mode=755");
    if !tmpfs_has_attributes() {
        // An overlay has nowhere to note that a directory hides another, and tells the cell so.
        let error = fs::remove_dir_all(merged.join("dir")).expect_err("no place for the note");
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        let why = "tmpfs keeps attributes since Linux 6.6";
        return not_here("a directory that hides another", why);
    }
    fs::remove_dir_all(merged.join("dir")).expect("the folder");
    fs::create_dir(merged.join("dir")).expect("a folder");
    fs::create_dir(merged.join("dir/sub")).expect("a folder");
    fs::write(merged.join("dir/both"), "new").expect("a file");
    unmount(&merged);
    let changes = Changes::read(upper, &scene.project("")).expect("changes");
    let list: Vec<_> = changes
        .iter()
        .map(|change| (change.path().to_str().expect("text"), change.kind()))
        .collect();
    let expected = [
        ("dir/both", ChangeKind::Modified),
        ("dir/old", ChangeKind::Deleted),
        ("dir/sub/old", ChangeKind::Deleted),
    ];
    assert_eq!(list, expected);
}

/// Whether this kernel's tmpfs keeps `user` attributes, as it does since Linux 6.6.
fn tmpfs_has_attributes() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a version");
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(6))
}

const BOUNDED: &str = "overlay::tests::role_bounded_upper";

#[test]
fn an_upper_tree_fills_up() {
    passes_with_mounts(BOUNDED);
}

#[test]
fn role_bounded_upper() {
    if !plays(BOUNDED) {
        return;
    }
    let scene = Scene::new();
    let (_upper, merged) = mounted(&scene, "size=65536,nr_inodes=20,mode=755");
    let error = fs::write(merged.join("large"), vec![1; 100_000]).expect_err("no room");
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    fs::remove_file(merged.join("large")).expect("the file");
    let refused = (0..30).find_map(|number| fs::write(merged.join(number.to_string()), "").err());
    assert_eq!(refused.and_then(|error| error.raw_os_error()), Some(libc::ENOSPC));
    assert!(fs::read_dir("/proc/self/cwd").expect("the root").count() > 3, "back at the root");
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let place = scene.0.to_str().expect("text");
    assert_eq!(table.lines().filter(|line| line.contains(place)).count(), 1, "{table}");
}

const CLOSED: &str = "overlay::tests::role_closed_tree";

/// As nobody: root may read and write everything.
#[test]
fn what_is_closed_to_its_owner_is_read_and_made_all_the_same() {
    let scene = Scene::new();
    let copy = scene.0.join("tests");
    fs::copy(std::env::current_exe().expect("a path"), &copy).expect("a copy");
    fs::set_permissions(&scene.0, Permissions::from_mode(0o755)).expect("a mode");
    let is_root = fs::read_to_string("/proc/self/status").expect("a status").contains("Uid:\t0");
    let output = if is_root {
        command("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"])
            .arg(&copy)
            .args(["--exact", CLOSED, "--nocapture"])
            .env(ROLE, CLOSED)
            .output()
    } else {
        command("env")
            .arg(&copy)
            .args(["--exact", CLOSED, "--nocapture"])
            .env(ROLE, CLOSED)
            .output()
    };
    let output = output.expect("an end");
    say_on(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && text.contains("1 passed");
    assert!(passed, "{text}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn role_closed_tree() {
    if !plays(CLOSED) {
        return;
    }
    let scene = Scene::new();
    let close = |path: PathBuf, mode| {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
    };
    fs::create_dir_all(scene.project("gone/inner")).expect("a folder");
    fs::write(scene.project("gone/inner/file"), "x").expect("a file");
    close(scene.project("gone/inner"), 0o555);
    fs::write(scene.upper("gone"), "now a file").expect("a file");
    fs::create_dir(scene.upper("dir")).expect("a folder");
    fs::write(scene.upper("dir/file"), "closed").expect("a file");
    close(scene.upper("dir/file"), 0o000);
    close(scene.upper("dir"), 0o000);
    scene.changes().apply(&scene.project("")).expect("changes");
    let mode = |name| fs::metadata(scene.project(name)).expect("it").permissions().mode() & 0o777;
    assert_eq!(mode("dir"), 0o000);
    close(scene.project("dir"), 0o700);
    assert_eq!(mode("dir/file"), 0o000);
    close(scene.project("dir/file"), 0o600);
    assert_eq!(fs::read_to_string(scene.project("dir/file")).expect("a file"), "closed");
    assert_eq!(fs::read_to_string(scene.project("gone")).expect("a file"), "now a file");
}
