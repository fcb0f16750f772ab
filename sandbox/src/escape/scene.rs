//! What the attacks go for: files, sockets, a process, shared memory of this host, all made for the
//! purpose and gone afterwards.

use std::{
    ffi::CString,
    fs::{self, File, Permissions},
    hash::{BuildHasher, Hasher, RandomState},
    io::{self, Read},
    net::{IpAddr, SocketAddr as NetAddress, TcpListener, UdpSocket},
    os::{
        fd::{AsFd, OwnedFd},
        linux::net::SocketAddrExt,
        unix::{
            fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
            net::{SocketAddr, UnixListener},
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
};

use super::{
    SuiteError,
    plain::Victim,
    rebinding::{self, Rebinding},
    stale::{self, Owner},
};
use crate::linux::sys::{
    probe::{
        inheritable,
        target::{Keyed, Queue, Terminal},
    },
    process,
};
use crate::network::{Network, Rule};

/// The first bytes of every secret.
pub(crate) const SECRET: &str = "a secret of the host\n";

/// Targets and where they are.
#[derive(Debug)]
pub(super) struct Scene {
    directory: PathBuf,
    pub(super) executable: PathBuf,
    pub(super) is_root: bool,
    parameters: Vec<String>,
    /// Targets that are there as long as something holds them.
    held: Held,
    home_secret: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct Held {
    tcp: Vec<TcpListener>,
    udp: Option<UdpSocket>,
    /// What an allow-list may let a cell reach; it never answers.
    behind: Option<TcpListener>,
    /// Where the name that is rebound leads first, and where it leads then.
    rebound: Option<[TcpListener; 2]>,
    unix: Vec<UnixListener>,
    victim: Option<Victim>,
    terminal: Option<Terminal>,
    keyed: Option<Keyed>,
    queue: Option<Queue>,
    owner: Option<Owner>,
}

impl Scene {
    /// Makes all of it. What killed processes have left of theirs is removed.
    pub(super) fn set() -> Result<Self, SuiteError> {
        stale::sweep();
        let executable =
            fs::read_link("/proc/self/exe").and_then(|path| path.metadata().map(|_| path));
        let executable = executable.map_err(|source| SuiteError::Executable { source })?;
        // What a killed process has left has its number, which another one may have now.
        let chance = RandomState::new().build_hasher().finish() & 0xFFFF_FFFF;
        let unique = format!("{}{}-{chance:08x}", stale::PREFIX, process::own_pid());
        let directory = std::env::temp_dir().join(&unique);
        let scene = |what| {
            let place = directory.clone();
            move |source| SuiteError::Scene { what, place, source }
        };
        fs::create_dir(&directory).map_err(scene("a directory"))?;
        let mut this = Self {
            directory: directory.clone(),
            executable,
            is_root: fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0),
            parameters: Vec::new(),
            held: Held::default(),
            home_secret: None,
        };
        this.furnish(&unique).map_err(scene("targets"))?;
        Ok(this)
    }

    /// What a probe is told, whoever runs it; `scratch` is where it may write. Outside of cells the
    /// victim stands in for the first process, which there is everybody's.
    pub(super) fn parameters(&self, scratch: &Path) -> Vec<String> {
        let outside = scratch == self.scratch();
        let victim = self.held.victim.as_ref().map_or(0, Victim::pid);
        let first = format!("first={}", if outside { victim } else { 1 });
        let scratch = format!("scratch={}", scratch.display());
        let outside = outside.then(|| "outside=yes".to_owned());
        self.parameters.iter().cloned().chain([scratch, first]).chain(outside).collect()
    }

    /// An allow-list with three servers: one by a name that is allowed and leads to the host, which
    /// isn't; one of which a part may be reached; and one whose name leads elsewhere the second time.
    pub(super) fn network(&self) -> Network {
        let port = |listener: Option<&TcpListener>| {
            listener.and_then(|listener| listener.local_addr().ok()).map_or(1, |at| at.port())
        };
        let inner = Rule::host("localhost").port(port(self.held.tcp.first())).opaque_tunnel();
        let behind = Rule::host("localhost")
            .port(port(self.held.behind.as_ref()))
            .methods(["GET", "POST"])
            .path_prefix("/open")
            .allow_private("127.0.0.0/8")
            .allow_private("::1/128");
        let [open, _] =
            self.held.rebound.as_ref().map_or([None; 2], |[one, two]| [Some(one), Some(two)]);
        let rebound = Rule::host(rebinding::REBOUND)
            .port(port(open))
            .opaque_tunnel()
            .allow_private(format!("{}/32", rebinding::OPEN));
        Network::allow([inner, behind, rebound]).looked_up_by(Arc::new(Rebinding::new()))
    }

    /// How many connections have come to where the rebound name leads first, and then.
    pub(super) fn rebound(&self) -> [usize; 2] {
        let count = |listener: &TcpListener| std::iter::from_fn(|| listener.accept().ok()).count();
        self.held.rebound.as_ref().map_or([0; 2], |[open, closed]| [count(open), count(closed)])
    }

    /// What the server behind the proxy has heard.
    pub(super) fn heard_behind(&self) -> Vec<u8> {
        let mut heard = Vec::new();
        while let Some(Ok((mut stream, _))) = self.held.behind.as_ref().map(TcpListener::accept) {
            // Whatever has arrived by now; the rest would wait for an answer.
            stream.set_nonblocking(true).ok();
            stream.read_to_end(&mut heard).ok();
        }
        heard
    }

    /// A directory for probes that run without a cell.
    pub(super) fn scratch(&self) -> PathBuf {
        self.directory.join("scratch")
    }

    /// A path inside the directory.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn furnish(&mut self, unique: &str) -> io::Result<()> {
        let key = stale::key(process::own_pid(), NEXT_KEY.fetch_add(1, Ordering::Relaxed));
        // Where files have no locks, what a killed process leaves stays.
        self.held.owner = Owner::take(&self.directory, key).ok();
        let open = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
        open(&self.directory, 0o755)?;
        let secret = self.path("secret");
        fs::write(&secret, SECRET)?;
        // Anybody on the host may read it, so that only the cell's walls hide it.
        open(&secret, 0o644)?;
        self.tell("secret", secret.display());
        let scratch = self.scratch();
        fs::create_dir(&scratch)?;
        open(&scratch, 0o1777)?;
        self.home(unique);
        self.listen(unique)?;
        let victim = Victim::start(&self.executable)?;
        self.tell("victim", victim.pid());
        self.held.victim = Some(victim);
        self.share(unique, key);
        Ok(())
    }

    /// What not every host has; attempts on what isn't there show nothing.
    fn share(&mut self, unique: &str, key: i32) {
        let open =
            File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).open("/dev/ptmx");
        if let Some(terminal) = open.ok().and_then(|master| Terminal::new(master).ok()) {
            self.tell("pty", format!("/dev/pts/{}", terminal.number));
            self.held.terminal = Some(terminal);
        }
        if let Ok(keyed) = Keyed::new(key) {
            for name in ["shm", "sem", "msg"] {
                self.tell(name, key);
            }
            self.held.keyed = Some(keyed);
        }
        let name = CString::new(unique).unwrap_or_default();
        if let Ok(queue) = Queue::new(&name) {
            self.tell("mq", unique);
            self.held.queue = Some(queue);
        }
        let resolver = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let mut servers = resolver.lines().filter_map(|line| line.strip_prefix("nameserver "));
        if let Some(server) = servers.find_map(|text| text.trim().parse::<IpAddr>().ok()) {
            self.tell("resolver", NetAddress::new(server, 53));
        }
    }

    fn home(&mut self, unique: &str) {
        let Some(path) = stale::home_secret(unique) else { return };
        if fs::write(&path, SECRET).is_ok() {
            self.tell("home", path.display());
            self.home_secret = Some(path);
        }
    }

    fn listen(&mut self, unique: &str) -> io::Result<()> {
        let tcp = TcpListener::bind("127.0.0.1:0")?;
        self.tell("tcp", tcp.local_addr()?);
        self.held.tcp.push(tcp);
        // A host may be without IPv6.
        if let Ok(tcp) = TcpListener::bind("[::1]:0") {
            self.tell("tcp6", tcp.local_addr()?);
            self.held.tcp.push(tcp);
        }
        let behind = TcpListener::bind("127.0.0.1:0")?;
        behind.set_nonblocking(true)?;
        self.tell("behind", format!("localhost:{}", behind.local_addr()?.port()));
        self.held.behind = Some(behind);
        let (rebound, port) = pair_of_listeners()?;
        self.tell("rebound", format!("{}:{port}", rebinding::REBOUND));
        self.held.rebound = Some(rebound);
        let udp = UdpSocket::bind("127.0.0.1:0")?;
        udp.set_nonblocking(true)?;
        self.tell("udp", udp.local_addr()?);
        self.held.udp = Some(udp);
        let path = self.path("socket");
        self.held.unix.push(UnixListener::bind(&path)?);
        fs::set_permissions(&path, Permissions::from_mode(0o777))?;
        self.tell("socket", path.display());
        let name = SocketAddr::from_abstract_name(unique)?;
        self.held.unix.push(UnixListener::bind_addr(&name)?);
        self.tell("abstract", unique);
        Ok(())
    }

    fn tell(&mut self, name: &str, value: impl std::fmt::Display) {
        self.parameters.push(format!("{name}={value}"));
    }
}

/// Two servers with the same port, at the two addresses of the rebound name.
fn pair_of_listeners() -> io::Result<([TcpListener; 2], u16)> {
    let mut tries = 0..PORT_TRIES;
    loop {
        let closed = TcpListener::bind((rebinding::CLOSED, 0))?;
        let port = closed.local_addr()?.port();
        match TcpListener::bind((rebinding::OPEN, port)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries.next().is_some() => {}
            open => {
                let pair = [open?, closed];
                pair.iter().try_for_each(|listener| listener.set_nonblocking(true))?;
                return Ok((pair, port));
            }
        }
    }
}

/// Another program may have the same port at the other address, but not at each.
const PORT_TRIES: u32 = 16;

impl Drop for Scene {
    /// The directory goes last: by it the rest is found if this process is killed meanwhile.
    fn drop(&mut self) {
        (self.held.keyed, self.held.queue) = (None, None);
        if let Some(path) = &self.home_secret {
            fs::remove_file(path).ok();
        }
        fs::remove_dir_all(&self.directory).ok();
    }
}

static NEXT_KEY: AtomicI32 = AtomicI32::new(0);

/// Opens the secret in a way that programs started later inherit.
pub(super) fn leak(scene: &Scene) -> io::Result<OwnedFd> {
    let file = File::open(scene.path("secret"))?;
    Ok(inheritable(file.as_fd())?)
}

#[cfg(test)]
mod tests {
    use std::mem::ManuallyDrop;

    use super::*;

    fn key(scene: &Scene) -> Option<i32> {
        scene.parameters.iter().find_map(|told| told.strip_prefix("shm=")?.parse().ok())
    }

    #[test]
    fn what_a_killed_process_has_left_is_removed_by_the_next_and_nothing_else() {
        let alive = Scene::set().unwrap();
        // As one that was killed: all that ends with a process has ended, and nothing else.
        let mut killed = ManuallyDrop::new(Scene::set().unwrap());
        killed.held.victim = None;
        killed.held.owner = None;
        let others = std::env::temp_dir().join(format!("{}{:x}", stale::PREFIX, rand()));
        fs::create_dir(&others).unwrap();
        // A process that another test starts has what this one holds open, until it executes its program.
        let mut next = Scene::set().unwrap();
        for _ in 0..500 {
            if !killed.directory.exists() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
            next = Scene::set().unwrap();
        }
        assert!(!killed.directory.exists());
        assert!(killed.home_secret.as_ref().is_none_or(|secret| !secret.exists()));
        if let Some(key) = key(&killed) {
            assert!(Keyed::new(key).is_ok(), "nothing has the key");
        }
        for scene in [&alive, &next] {
            assert!(scene.path("secret").exists());
            assert!(key(scene).is_none_or(|key| Keyed::new(key).is_err()));
        }
        assert!(others.exists(), "nobody has said whose it is");
        fs::remove_dir(others).unwrap();
    }

    fn rand() -> u64 {
        RandomState::new().build_hasher().finish()
    }
}
