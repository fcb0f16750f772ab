//! The promises: which wall has to stop which attempt. One table; a level is held to the walls that
//! it has.

use super::Wall;
use crate::level::{Layer, Level};

/// The walls of which one has to stop the attempt at the level, where these layers of it are missing;
/// none if nothing is promised.
pub(super) fn walls(name: &str, level: Level, missing: &[Layer]) -> Vec<Wall> {
    let row = TABLE.iter().find(|row| row.name == name && level >= row.from);
    let Some(row) = row else { return Vec::new() };
    let stands = |wall: &Wall| {
        has(level, *wall) && !missing.iter().any(|layer| *wall == Wall::Layer(*layer))
    };
    let is_different = level == Level::Paranoid && !row.paranoid.is_empty();
    let is_filtered = row.filtered.is_some_and(|first| level >= first);
    if is_filtered && !is_different && stands(&FILTER) {
        return vec![FILTER];
    }
    let walls = if is_different { row.paranoid } else { row.walls };
    walls.iter().copied().filter(stands).collect()
}

/// The missing layer that alone would have to stop the attempt, if it is so.
#[cfg(target_os = "linux")]
pub(super) fn lost(name: &str, level: Level, missing: &[Layer]) -> Option<Layer> {
    if !walls(name, level, missing).is_empty() {
        return None;
    }
    walls(name, level, &[]).into_iter().find_map(|wall| match wall {
        Wall::Layer(layer) if missing.contains(&layer) => Some(layer),
        _ => None,
    })
}

/// The names of all attempts that are promised something.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|row| row.name)
}

fn has(level: Level, wall: Wall) -> bool {
    match wall {
        Wall::Layer(layer) => level.layers().contains(&layer),
        Wall::FirstProcess => level >= Level::Standard,
        // A cell of level paranoid has no sockets, so it has no proxy.
        Wall::Egress => level == Level::Standard || level == Level::Strict,
        Wall::Descriptors | Wall::WallTime | Wall::OutputLimit | Wall::Launcher => true,
    }
}

/// One attempt's promise.
struct Row {
    name: &'static str,
    /// From which level on the filter of system calls speaks first.
    filtered: Option<Level>,
    /// Whoever speaks otherwise; where there are several, it depends on whether the host is root.
    walls: &'static [Wall],
    /// The same at level paranoid, if it is different there.
    paranoid: &'static [Wall],
    /// Below this, nothing is promised although a wall of this name is there.
    from: Level,
}

/// No filter is asked.
const fn row(name: &'static str, walls: &'static [Wall]) -> Row {
    Row { name, filtered: None, walls, paranoid: &[], from: Level::Minimal }
}

/// The filter speaks first wherever there is one.
const fn filtered(name: &'static str, walls: &'static [Wall]) -> Row {
    Row { name, filtered: Some(Level::Standard), walls, paranoid: &[], from: Level::Minimal }
}

/// The filter speaks first from this level on.
const fn filtered_from(level: Level, name: &'static str, walls: &'static [Wall]) -> Row {
    Row { name, filtered: Some(level), walls, paranoid: &[], from: Level::Minimal }
}

impl Row {
    const fn paranoid(mut self, walls: &'static [Wall]) -> Self {
        self.paranoid = walls;
        self
    }

    const fn from(mut self, level: Level) -> Self {
        self.from = level;
        self
    }
}

const FILTER: Wall = Wall::Layer(Layer::Seccomp);
const ROOT: Wall = Wall::Layer(Layer::PrivateRoot);
const PROC: Wall = Wall::Layer(Layer::PrivateProc);
const LANDLOCK: Wall = Wall::Layer(Layer::Landlock);
const DEVICES: Wall = Wall::Layer(Layer::PrivateDevices);
const CAPABILITIES: Wall = Wall::Layer(Layer::NoCapabilities);
const IDS: Wall = Wall::Layer(Layer::IdentityMap);
const PIDS: Wall = Wall::Layer(Layer::PidNamespace);
const IPC: Wall = Wall::Layer(Layer::IpcNamespace);
const NETWORK: Wall = Wall::Layer(Layer::NetworkNamespace);
const NESTING: Wall = Wall::Layer(Layer::NoNestedNamespaces);
const PRIVILEGES: Wall = Wall::Layer(Layer::NoNewPrivileges);
const ENVIRONMENT: Wall = Wall::Layer(Layer::CleanEnvironment);
const SESSION: Wall = Wall::Layer(Layer::Session);
const LIMITS: Wall = Wall::Layer(Layer::ResourceLimits);
const CGROUP: Wall = Wall::Layer(Layer::Cgroup);
const TREE: Wall = Wall::Layer(Layer::ProcessTree);
const FIRST: Wall = Wall::FirstProcess;

const TABLE: &[Row] = &[
    // Host files.
    row("read-host-file", &[ROOT]),
    row("read-home", &[ROOT]),
    row("read-shadow", &[ROOT]),
    row("symlink-to-host-file", &[ROOT]),
    row("hardlink-to-host-file", &[ROOT]),
    row("dot-dot", &[ROOT]),
    row("proc-root", &[ROOT]),
    row("proc-first-root", &[PROC]),
    row("proc-cwd", &[ROOT]),
    row("list-root", &[ROOT]),
    row("list-sys", &[ROOT]),
    row("overwrite-own-executable", &[IDS, ROOT]),
    row("touch-system-file", &[ROOT]),
    row("write-system-directory", &[ROOT]),
    row("write-root", &[ROOT]),
    row("write-passwd", &[IDS, ROOT]),
    filtered("chroot", &[CAPABILITIES]),
    filtered("pivot-root", &[CAPABILITIES]),
    filtered("bind-mount", &[CAPABILITIES]),
    filtered("mount-tmpfs", &[CAPABILITIES]),
    filtered("mount-proc", &[CAPABILITIES]),
    filtered("mount-overlay", &[CAPABILITIES]),
    filtered("remount-writable", &[CAPABILITIES]),
    filtered("clear-mount-flags", &[CAPABILITIES]),
    filtered("clone-mounts", &[CAPABILITIES]),
    filtered("open-file-system", &[CAPABILITIES]),
    filtered("unmount-proc", &[CAPABILITIES]),
    row("change-copied-project", &[ROOT]).from(Level::Standard),
    filtered("lease", &[]),
    filtered("open-by-handle", &[CAPABILITIES]),
    filtered("make-device", &[CAPABILITIES]),
    row("list-devices", &[DEVICES]),
    row("open-disk", &[DEVICES]),
    row("second-wall", &[LANDLOCK]),
    row("leaked-descriptor", &[Wall::Descriptors]),
    // Processes.
    row("signal-host-process", &[PIDS]),
    row("signal-everybody", &[PIDS]),
    row("find-host-process", &[PIDS]).paranoid(&[PROC]),
    row("open-host-process", &[PIDS]),
    filtered("host-process-limits", &[PIDS]),
    filtered_from(Level::Paranoid, "renice-host-process", &[PIDS]),
    filtered("ptrace-host-process", &[PIDS]),
    filtered("ptrace-zygote", &[PIDS]),
    filtered("ptrace-first-process", &[FIRST]),
    filtered("ptrace-sibling", &[]),
    row("first-environment", &[PROC]),
    row("first-memory-file", &[PROC]),
    row("first-descriptors", &[PROC]),
    filtered("first-memory-read", &[FIRST]),
    filtered("first-memory-write", &[FIRST]),
    filtered("first-take-descriptor", &[FIRST]),
    filtered("first-compare", &[FIRST]),
    filtered("first-slow-down", &[]),
    filtered_from(Level::Paranoid, "shared-memory", &[IPC]),
    filtered_from(Level::Paranoid, "semaphores", &[IPC]),
    filtered_from(Level::Strict, "message-queue", &[IPC]),
    filtered_from(Level::Strict, "posix-message-queue", &[IPC]),
    // Privileges.
    row("set-user-id-program", &[PRIVILEGES]),
    filtered_from(Level::Paranoid, "file-capability", &[CAPABILITIES]),
    row("become-root", &[IDS]),
    filtered("join-groups", &[CAPABILITIES]),
    row("write-id-map", &[IDS]).paranoid(&[PROC]),
    row("allow-nesting-again", &[IDS, PROC]).paranoid(&[PROC]),
    filtered("unshare-user", &[NESTING]),
    filtered("clone-user", &[NESTING]),
    filtered("clone3-user", &[NESTING]),
    filtered("unshare-user-and-mount", &[NESTING]),
    filtered("unshare-mounts", &[CAPABILITIES]),
    filtered("unshare-network", &[CAPABILITIES]),
    filtered("unshare-processes", &[CAPABILITIES]),
    filtered("unshare-rest", &[CAPABILITIES]),
    row("join-first-mounts", &[PROC]),
    filtered("join-own-network", &[CAPABILITIES]).paranoid(&[PROC]),
    filtered_from(Level::Strict, "regain-capabilities", &[CAPABILITIES]),
    filtered("ambient-capability", &[CAPABILITIES]),
    filtered("secure-bits", &[CAPABILITIES]),
    filtered("join-keyring", &[]),
    filtered("add-key", &[]),
    filtered("request-key", &[]),
    row("list-keys", &[PROC]).from(Level::Strict),
    filtered("session-keyring", &[SESSION]),
    row("raise-limit", &[CAPABILITIES]),
    filtered_from(Level::Paranoid, "raise-priority", &[CAPABILITIES]),
    filtered_from(Level::Paranoid, "real-time", &[CAPABILITIES]),
    filtered("host-name", &[CAPABILITIES]),
    row("spare-from-memory-killer", &[CAPABILITIES]).paranoid(&[PROC]),
    row("environment", &[ENVIRONMENT]),
    // Kernel surface.
    filtered("bpf-map", &[CAPABILITIES]),
    filtered("io-uring", &[]),
    filtered("userfaultfd", &[CAPABILITIES]),
    filtered("userfaultfd-user", &[]),
    filtered("perf-event", &[]),
    filtered("kexec", &[CAPABILITIES]),
    filtered("kexec-file", &[CAPABILITIES]),
    filtered("load-module", &[CAPABILITIES]),
    filtered("load-module-file", &[CAPABILITIES]),
    filtered("remove-module", &[CAPABILITIES]),
    filtered("personality", &[]),
    filtered("interrupt-door", &[]),
    filtered("interrupt-door-unshare", &[NESTING]),
    filtered("x32-door", &[]),
    filtered("vsock-socket", &[]),
    filtered("netlink-socket", &[]),
    filtered("packet-socket", &[CAPABILITIES]),
    filtered("raw-socket", &[CAPABILITIES]),
    filtered("crypto-socket", &[]),
    row("kernel-log-device", &[DEVICES]),
    filtered("kernel-log", &[CAPABILITIES]),
    row("sysrq", &[IDS, PROC]).paranoid(&[PROC]),
    row("core-pattern", &[IDS, PROC]).paranoid(&[PROC]),
    row("kernel-switches", &[IDS, PROC]).paranoid(&[PROC]),
    row("kernel-memory", &[IDS, PROC]).paranoid(&[PROC]),
    row("release-agent", &[ROOT]),
    filtered("mount-cgroup", &[CAPABILITIES]),
    filtered("io-ports", &[CAPABILITIES]),
    filtered("io-privilege", &[CAPABILITIES]),
    filtered("descriptor-table", &[]),
    filtered("accounting", &[CAPABILITIES]),
    filtered("swap", &[CAPABILITIES]),
    filtered("reboot", &[CAPABILITIES]),
    filtered("clock", &[CAPABILITIES]),
    filtered("watch-all-files", &[CAPABILITIES]),
    filtered_from(Level::Paranoid, "writable-code", &[]),
    filtered_from(Level::Paranoid, "program-from-memory", &[]),
    filtered("huge-pages", &[]),
    filtered("huge-memory-file", &[]),
    // Terminal.
    filtered("type-into-terminal", &[SESSION]),
    filtered("paste-into-console", &[SESSION]),
    row("open-terminal", &[SESSION, DEVICES]),
    row("make-terminal", &[DEVICES]),
    row("list-terminals", &[DEVICES]),
    row("open-console", &[DEVICES]),
    // Network.
    filtered_from(Level::Paranoid, "host-loopback", &[NETWORK]),
    filtered_from(Level::Paranoid, "host-loopback-6", &[NETWORK]),
    filtered_from(Level::Paranoid, "host-datagram", &[NETWORK]),
    filtered_from(Level::Paranoid, "host-abstract-socket", &[NETWORK]),
    filtered_from(Level::Paranoid, "host-path-socket", &[ROOT]),
    filtered_from(Level::Paranoid, "route-to-metadata", &[NETWORK]),
    filtered_from(Level::Paranoid, "route-to-lan", &[NETWORK]),
    filtered_from(Level::Paranoid, "route-to-internet", &[NETWORK]),
    filtered_from(Level::Paranoid, "route-to-internet-6", &[NETWORK]),
    filtered_from(Level::Paranoid, "route-to-resolver", &[NETWORK]),
    row("list-interfaces", &[NETWORK, PROC]).paranoid(&[PROC]),
    filtered("raise-loopback", &[CAPABILITIES]),
    filtered_from(Level::Paranoid, "low-port", &[CAPABILITIES]),
    row("proxy-to-address", &[Wall::Egress]),
    row("proxy-to-metadata", &[Wall::Egress]),
    row("proxy-to-inner-name", &[Wall::Egress]),
    row("proxy-other-port", &[Wall::Egress]),
    row("proxy-other-path", &[Wall::Egress]),
    row("proxy-dotted-path", &[Wall::Egress]),
    row("proxy-smuggled-request", &[Wall::Egress]),
    row("proxy-rebound-name", &[Wall::Egress]),
    // Resources.
    row("fork-bomb", &[LIMITS, CGROUP]).from(Level::Standard),
    row("fork-bomb-growing", &[Wall::WallTime]).from(Level::Standard),
    row("thread-bomb", &[LIMITS, CGROUP]).from(Level::Standard),
    row("zombies", &[LIMITS, CGROUP]).from(Level::Standard),
    row("memory-bomb", &[LIMITS, CGROUP]),
    row("memory-bomb-shared-out", &[CGROUP]),
    row("fill-work", &[ROOT, CGROUP]),
    row("fill-tmp", &[ROOT, CGROUP]),
    row("fill-inodes", &[ROOT, CGROUP]),
    row("huge-file", &[LIMITS]),
    row("descriptors", &[LIMITS]),
    row("locked-memory", &[LIMITS]).from(Level::Standard),
    row("spin", &[Wall::WallTime]),
    row("sleep", &[Wall::WallTime]),
    row("ignore-signals", &[Wall::WallTime]),
    row("stopped", &[Wall::WallTime]),
    row("output-flood", &[Wall::OutputLimit]),
    row("error-flood", &[Wall::OutputLimit]),
    row("huge-write", &[Wall::OutputLimit]),
    row("daemons", &[TREE]),
    row("starve-first-process", &[TREE, Wall::WallTime]),
    row("held-pipe", &[TREE]),
    // Races.
    row("swapped-link", &[Wall::Launcher]).from(Level::Standard),
    row("swapped-directory", &[Wall::Launcher]).from(Level::Standard),
    row("lost-zygote", &[TREE]),
    row("abandoned-launch", &[TREE]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_layer_is_expected_of_nobody() {
        assert_eq!(walls("memory-bomb-shared-out", Level::Strict, &[]), [CGROUP]);
        assert_eq!(walls("memory-bomb-shared-out", Level::Strict, &[Layer::Cgroup]), []);
        assert_eq!(walls("fork-bomb", Level::Strict, &[Layer::Cgroup]), [LIMITS]);
        // Without the filter, what is behind it speaks.
        assert_eq!(walls("chroot", Level::Strict, &[Layer::Seccomp]), [CAPABILITIES]);
        let lost = |name| lost(name, Level::Strict, &[Layer::Cgroup, Layer::Seccomp]);
        assert_eq!(lost("memory-bomb-shared-out"), Some(Layer::Cgroup));
        assert_eq!(lost("io-uring"), Some(Layer::Seccomp));
        assert_eq!([lost("fork-bomb"), lost("chroot"), lost("read-host-file")], [None; 3]);
    }

    #[test]
    fn what_is_different_at_paranoid_is_asked_before_the_filter() {
        assert_eq!(walls("join-own-network", Level::Paranoid, &[]), [PROC]);
        assert_eq!(walls("join-own-network", Level::Strict, &[]), [FILTER]);
    }
}
