//! A PostgreSQL server of a test's own: made, started, cut off, and ended by its process id.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use neuroflow::actors::{JournalConfig, JournalPlace};

use crate::folder::Folder;

/// A server on a Unix socket in a directory of its own.
pub(crate) struct Cluster {
    folder: Folder,
    server: Option<Child>,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let folder = Folder::new();
        let socket = folder.path().join("s");
        std::fs::create_dir(&socket).expect("a directory can be made");
        if is_root() {
            // The server refuses to run as root.
            checked("chown", ["-R".as_ref(), "postgres".as_ref(), folder.path().as_os_str()]);
        }
        let data = folder.path().join("data");
        let mut init = program("initdb");
        init.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", "-D"]).arg(&data);
        success(&init.output().expect("initdb runs"), "initdb");
        let mut cluster = Self { folder, server: None };
        cluster.resume();
        cluster
    }

    /// Starts the server, and waits until it answers.
    pub(crate) fn resume(&mut self) {
        let mut server = program("postgres");
        server.arg("-D").arg(self.folder.path().join("data"));
        server.arg("-k").arg(self.socket());
        server.args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "logging_collector=off"]);
        server.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        self.server = Some(server.spawn().expect("the server starts"));
        let begun = now();
        while self.query("SELECT 1").is_none() {
            assert!(begun.elapsed() < Duration::from_mins(1), "the server doesn't answer");
            pause();
        }
    }

    /// Ends the server at once, with every connection.
    pub(crate) fn halt(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        // Immediate shutdown; `runuser` hands the signal on to the server.
        let pid = std::fs::read_to_string(self.folder.path().join("data/postmaster.pid"));
        let pid = pid.ok().and_then(|text| text.lines().next().map(str::to_owned));
        if let Some(pid) = pid {
            checked("kill", ["-QUIT".as_ref(), OsStr::new(pid.trim())]);
        }
        let _code = server.wait();
    }

    /// Cuts off everybody who is connected.
    pub(crate) fn cut_off(&self) {
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE application_name = 'neuroflow'";
        self.query(cut).expect("the server answers");
    }

    /// Waits until nobody is connected.
    pub(crate) fn until_alone(&self) {
        let there = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'neuroflow'";
        let begun = now();
        while self.query(there).as_deref() != Some("0") {
            assert!(begun.elapsed() < Duration::from_mins(1), "somebody stays connected");
            pause();
        }
    }

    /// What a statement gives; none if the server doesn't take it.
    pub(crate) fn query(&self, sql: &str) -> Option<String> {
        self.query_in("postgres", sql)
    }

    /// The same in another of its databases.
    pub(crate) fn query_in(&self, database: &str, sql: &str) -> Option<String> {
        let mut psql = program("psql");
        psql.args(["-X", "-A", "-t", "-U", "postgres", "-d", database, "-c", sql, "-h"]);
        let output = psql.arg(self.socket()).output().expect("psql runs");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// A journal in its database, for the node of this name.
    pub(crate) fn config(&self, node: &str) -> JournalConfig {
        let mut config = JournalConfig::new(JournalPlace::Postgres(self.url()));
        node.clone_into(&mut config.node);
        config
    }

    pub(crate) fn url(&self) -> String {
        self.url_of("postgres", "postgres")
    }

    pub(crate) fn url_of(&self, user: &str, database: &str) -> String {
        let socket = self.socket().display().to_string().replace('/', "%2F");
        format!("postgres://{user}@{socket}/{database}")
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.halt();
    }
}

/// One of the server's programs, run as a user that it accepts.
fn program(name: &str) -> Command {
    let path = Path::new("/usr/lib/postgresql");
    let versions = std::fs::read_dir(path).expect("PostgreSQL is installed: run `make test`");
    let mut versions: Vec<PathBuf> =
        versions.filter_map(|entry| Some(entry.ok()?.path())).collect();
    versions.sort();
    let program = versions.last().expect("a version").join("bin").join(name);
    let mut command = if is_root() {
        let mut command = command("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        command(&program)
    };
    command.current_dir("/");
    command
}

#[expect(clippy::disallowed_methods, reason = "a server of its own is started for the test")]
fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

fn checked<'a>(program: &str, arguments: impl IntoIterator<Item = &'a OsStr>) {
    success(&command(program).args(arguments).output().expect("it runs"), program);
}

fn success(output: &Output, what: &str) {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{what} failed: {error}");
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").expect("/proc is there").uid() == 0
}

#[expect(clippy::disallowed_methods, reason = "a server's time is the real one")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}
