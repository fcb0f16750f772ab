//! What the tests act with: a directory, a process, a server, a request.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A directory of a test's own, removed with everything in it.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("neuroflow-cli-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a fresh directory");
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file and gives its path.
    pub(crate) fn file(&self, name: &str, content: &str) -> String {
        let path = self.path(name);
        fs::write(&path, content).expect("a file in a fresh directory");
        // Whatever the tester's mask is: what others can write may be refused.
        set_mode(&path, 0o644);
        path.to_str().expect("a plain path").to_owned()
    }

    /// A file for its owner's eyes only, such as a key.
    pub(crate) fn secret(&self, name: &str, content: &str) -> String {
        let path = self.file(name, content);
        set_mode(Path::new(&path), 0o600);
        path
    }

    /// The binary with these arguments, in this directory, with nothing of the tester's settings. It
    /// dies with the test that starts it, and a node that isn't told otherwise takes free ports.
    pub(crate) fn neuroflow(&self, arguments: &[&str]) -> Command {
        self.neuroflow_by(&[], arguments)
    }

    /// The same, started by this command.
    fn neuroflow_by(&self, starter: &[&str], arguments: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command.args(DIES_WITH_PARENT).args(starter);
        command.arg(env!("CARGO_BIN_EXE_neuroflow")).args(arguments);
        self.arrange(command, arguments)
    }

    /// The same for a process that is waited for; it doesn't outlive [`PATIENCE`].
    fn short_lived(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command.args(DIES_WITH_PARENT).args(["timeout", "-s", "KILL", PATIENCE, "setpriv"]);
        command.args(DIES_WITH_PARENT).arg(env!("CARGO_BIN_EXE_neuroflow")).args(arguments);
        self.arrange(command, arguments)
    }

    fn arrange(&self, mut command: Command, arguments: &[&str]) -> Command {
        command.current_dir(&self.0).stdin(Stdio::null());
        // Every test has a journal and a default socket of its own, and nobody's settings.
        command.env("XDG_STATE_HOME", self.0.join("state")).env_remove("STATE_DIRECTORY");
        command.env("XDG_RUNTIME_DIR", self.0.join("runtime"));
        command.env("XDG_CONFIG_HOME", self.0.join("config"));
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("NEUROFLOW_") || name.starts_with("OTEL_") {
                command.env_remove(&*name);
            }
        }
        if arguments.first() == Some(&"serve") {
            command.env("NEUROFLOW_GATEWAY_LISTEN", "127.0.0.1:0");
            command.env("NEUROFLOW_TELEMETRY_METRICS_LISTEN", "127.0.0.1:0");
        }
        command
    }

    /// Runs it to its end.
    pub(crate) fn output(&self, arguments: &[&str]) -> Ran {
        Ran::of(&self.short_lived(arguments).output().expect("the built binary"))
    }

    /// Runs it to its end where no user namespace can be made.
    pub(crate) fn output_without_namespaces(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new("unshare");
        let script = "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$0\" \"$@\"";
        command.args(["--user", "--map-root-user", "sh", "-c", script]);
        command.arg(env!("CARGO_BIN_EXE_neuroflow")).args(arguments).current_dir(&self.0);
        Ran::of(&command.stdin(Stdio::null()).output().expect("unshare"))
    }

    /// Runs it to its end with this on standard input.
    pub(crate) fn output_with(&self, input: &[u8], arguments: &[&str]) -> Ran {
        let mut command = self.short_lived(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the built binary");
        // A program that doesn't read its input may be gone already.
        let _gone = child.stdin.take().expect("a pipe").write_all(input);
        Ran::of(&child.wait_with_output().expect("its end"))
    }
}

/// Arguments of `setpriv`: the kernel ends the process when the thread ends that has started it, however
/// that ends.
const DIES_WITH_PARENT: [&str; 2] = ["--pdeathsig", "KILL"];

/// Seconds until a process that should have ended by itself is ended.
const PATIENCE: &str = "120";

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left behind fails no test.
        let _left = fs::remove_dir_all(&self.0);
    }
}

/// A process that has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Checks the exit code, and that standard error has each of these texts.
    #[track_caller]
    pub(crate) fn failed_with(&self, code: i32, texts: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for text in texts {
            assert!(self.stderr.contains(text), "{text:?} isn't in {:?}", self.stderr);
        }
    }
}

/// A process that runs; killed when it's dropped.
#[derive(Debug)]
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        let sent = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &pid]).status();
        assert!(sent.expect("a shell").success());
    }

    /// Its exit code, which it has to come to soon.
    #[track_caller]
    pub(crate) fn exit_code(&mut self) -> i32 {
        for _ in 0..500 {
            if let Some(status) = self.0.try_wait().expect("a child") {
                return status.code().unwrap_or(-1);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it still runs after ten seconds");
    }

    pub(crate) fn stderr(&mut self) -> String {
        let mut text = String::new();
        let stderr = self.0.stderr.take().expect("a pipe");
        BufReader::new(stderr).read_to_string(&mut text).expect("text");
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// A node that serves.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) process: Running,
    pub(crate) gateway: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) socket: PathBuf,
    /// Everything that it has printed until it was ready.
    pub(crate) banner: String,
}

impl Server {
    /// Starts a node on free ports, with its socket in `run/` of the directory, and waits until it's
    /// ready.
    pub(crate) fn start(scratch: &Scratch, more: &[&str]) -> Self {
        Self::start_in(scratch, more, &[])
    }

    /// The same, with variables of the environment.
    pub(crate) fn start_in(scratch: &Scratch, more: &[&str], environment: &[(&str, &str)]) -> Self {
        let socket = scratch.path("run/control.sock");
        let flag = format!("--control-socket={}", socket.display());
        Self::start_at(scratch, socket, (&[], &[&[flag.as_str()], more].concat()), environment)
    }

    /// The same, started by a command that changes what processes may do.
    pub(crate) fn start_by(scratch: &Scratch, starter: &[&str], more: &[&str]) -> Self {
        let socket = scratch.path("run/control.sock");
        let flag = format!("--control-socket={}", socket.display());
        Self::start_at(scratch, socket, (starter, &[&[flag.as_str()], more].concat()), &[])
    }

    /// The same with its socket where it is unless anybody says otherwise.
    pub(crate) fn start_at_default(scratch: &Scratch, more: &[&str]) -> Self {
        Self::start_at(scratch, scratch.path("runtime/neuroflow/control.sock"), (&[], more), &[])
    }

    fn start_at(
        scratch: &Scratch,
        socket: PathBuf,
        (starter, more): (&[&str], &[&str]),
        environment: &[(&str, &str)],
    ) -> Self {
        let arguments = [&["serve", "--gateway-listen=127.0.0.1:0"], more].concat();
        let mut command = scratch.neuroflow_by(starter, &arguments);
        command.envs(environment.iter().copied());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut process = Running(child.expect("the built binary"));
        let mut banner = String::new();
        let mut stdout = BufReader::new(process.0.stdout.take().expect("a pipe"));
        while !banner.contains("curl ") || !banner.ends_with('\n') {
            let read = stdout.read_line(&mut banner).expect("text");
            assert!(read > 0, "it didn't start: {}", process.stderr());
        }
        let address = |name: &str| {
            let line = banner.lines().find(|line| line.trim_start().starts_with(name));
            let url = line.and_then(|line| line.split("://").nth(1));
            url.and_then(|url| url.split('/').next()?.parse().ok())
        };
        let gateway = address("gateway").expect("where the gateway is");
        let metrics = address("metrics").unwrap_or(gateway);
        Self { process, gateway, metrics, socket, banner }
    }

    /// Asks an agent, by the path of its URL, and gives the whole answer.
    pub(crate) fn ask(&self, path: &str, text: &str) -> serde_json::Value {
        let (status, body) = post(self.gateway, path, &send_message(text));
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).expect("JSON")
    }
}

/// The events of an audit log of this kind, once there is one that satisfies this.
#[track_caller]
pub(crate) fn audited(
    log: &Path,
    kind: &str,
    holds: impl Fn(&serde_json::Value) -> bool,
) -> Vec<serde_json::Value> {
    for _ in 0..600 {
        let text = fs::read_to_string(log).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        let events = lines.map(|mut line: serde_json::Value| line["record"]["event"].take());
        let events: Vec<_> = events.filter(|event| event["kind"] == kind).collect();
        if events.iter().any(&holds) {
            return events;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("no such {kind}: {}", fs::read_to_string(log).unwrap_or_default());
}

/// A `SendMessage` call.
pub(crate) fn send_message(text: &str) -> String {
    let message = serde_json::json!({
        "messageId": "1", "role": "ROLE_USER", "parts": [{ "text": text }],
    });
    let call = serde_json::json!({
        "jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": { "message": message },
    });
    call.to_string()
}

/// The text of the first part of the first artifact.
pub(crate) fn first_text(answer: &serde_json::Value) -> &str {
    let part = &answer["result"]["task"]["artifacts"][0]["parts"][0]["text"];
    part.as_str().unwrap_or_else(|| panic!("no text in {answer}"))
}

pub(crate) fn post(address: SocketAddr, path: &str, body: &str) -> (u16, String) {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         A2A-Version: 1.0\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    exchange(address, &(head + body))
}

pub(crate) fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    exchange(address, &head)
}

fn exchange(address: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a deadline");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status"), body.to_owned())
}

/// Sets permission bits.
pub(crate) fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it's ours");
}

/// Permission bits.
pub(crate) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).expect("it's there").permissions().mode() & 0o777
}
