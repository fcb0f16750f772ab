//! Levels are promises; layers are what a promise consists of.

use std::fmt;

/// How much stands between a program and its host.
///
/// What the host can't give is an error that names the layer ([`crate::LaunchError::Unavailable`]),
/// never a silent step down.
///
/// ```
/// use neuroflow_sandbox::{Layer, Level};
///
/// assert!(Level::Standard.layers().contains(&Layer::NetworkNamespace));
/// assert!(!Level::Minimal.layers().contains(&Layer::NetworkNamespace));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// For trusted code and for hosts without namespaces: resource limits, `no_new_privs`, a clean
    /// environment, an own session, and the end of all descendants. It sees the host's files and
    /// processes with the host's id.
    Minimal,
    /// Own namespaces, private read-only root, own `/proc` and `/dev`, no network, no capabilities, a
    /// broad list of allowed system calls.
    Standard,
    /// Standard, and limits for the cell as a whole, a narrower list of system calls, Landlock, and
    /// of `/proc` only the processes.
    Strict,
    /// Strict, and the smallest list of system calls, no memory that is both written and executed, no
    /// program in what the cell can write to (its own places, writable binds, a copy-on-write project),
    /// no sockets, no `/proc`, and an outer user id that no other cell has at the time. The kernel is
    /// the host's: see [`Boundary`].
    Paranoid,
}

/// What separates a cell from the rest of the machine in the end.
///
/// ```
/// assert_eq!(neuroflow_sandbox::Boundary::SharedKernel.to_string(), "the host's kernel");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Boundary {
    /// The host's own kernel: a bug in it that is within reach of the allowed system calls is a way
    /// out.
    SharedKernel,
}

impl fmt::Display for Boundary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SharedKernel => "the host's kernel",
        })
    }
}

impl Level {
    /// The layers that the level promises. A started cell has all of them in force.
    pub const fn layers(self) -> &'static [Layer] {
        match self {
            Self::Minimal => MINIMAL,
            Self::Standard => STANDARD,
            Self::Strict => STRICT,
            Self::Paranoid => PARANOID,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Minimal => "minimal",
            Self::Standard => "standard",
            Self::Strict => "strict",
            Self::Paranoid => "paranoid",
        })
    }
}

/// One thing that stands between a program and its host.
///
/// ```
/// use neuroflow_sandbox::Layer;
///
/// assert_eq!(Layer::UserNamespace.to_string(), "user namespace");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Layer {
    /// What one process may have is bounded, never above the host's bound: processor time, the size
    /// of a file, stack, open files, locked memory, core files, signals and messages that wait, and
    /// no better priority. Memory and processes belong to it where no group counts them; two limits
    /// that no kernel with namespaces heeds are left alone.
    ResourceLimits,
    /// No program started inside gains rights by set-user-id bits or file capabilities.
    NoNewPrivileges,
    /// The environment holds a fixed minimum and what the profile names.
    CleanEnvironment,
    /// An own session without a controlling terminal.
    Session,
    /// Everything the program leaves behind ends with it.
    ProcessTree,
    /// Own user ids: capabilities inside mean nothing outside.
    UserNamespace,
    /// Own process ids: the host's processes can't be seen or signalled.
    PidNamespace,
    /// Own mount table.
    MountNamespace,
    /// Own network stack with nothing but a loopback device, which the cell has no rights over.
    NetworkNamespace,
    /// Own System V and POSIX message queues.
    IpcNamespace,
    /// Own host name.
    UtsNamespace,
    /// Own view of the cgroup tree.
    CgroupNamespace,
    /// The id inside maps to one unprivileged id outside.
    IdentityMap,
    /// A read-only root with a declared set of the host's directories.
    PrivateRoot,
    /// An own `/proc` that lists the cell's own processes only, or none.
    PrivateProc,
    /// Five harmless devices, no terminal.
    PrivateDevices,
    /// No further user namespaces inside.
    NoNestedNamespaces,
    /// All five capability sets are empty, read back after dropping.
    NoCapabilities,
    /// Limits for the cell as a whole.
    Cgroup,
    /// What of the limits for the cell as a whole is of disks, where that alone is missing. No level
    /// lists it: it belongs to [`Layer::Cgroup`], and counts only for a profile that limits disks.
    CgroupIo,
    /// A list of allowed system calls.
    Seccomp,
    /// File rules that hold whatever the mount table says.
    Landlock,
    /// The outer user id is no other cell's at the time.
    OwnIdentity,
}

impl Layer {
    /// Whether a profile that [may](crate::ProfileBuilder::allow_degraded) can do without it where the
    /// host can't give it. On other systems than Linux that's so for all that [`Level::Minimal`] has.
    ///
    /// ```
    /// use neuroflow_sandbox::Layer;
    ///
    /// assert!(Layer::Landlock.is_dispensable() && !Layer::NetworkNamespace.is_dispensable());
    /// ```
    pub const fn is_dispensable(self) -> bool {
        match self {
            Self::Cgroup | Self::CgroupIo | Self::Seccomp | Self::Landlock | Self::OwnIdentity => {
                true
            }
            Self::ResourceLimits | Self::NoNewPrivileges | Self::Session | Self::ProcessTree => {
                cfg!(not(target_os = "linux"))
            }
            _ => false,
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ResourceLimits => "resource limits",
            Self::NoNewPrivileges => "no new privileges",
            Self::CleanEnvironment => "clean environment",
            Self::Session => "own session",
            Self::ProcessTree => "end of the process tree",
            Self::UserNamespace => "user namespace",
            Self::PidNamespace => "pid namespace",
            Self::MountNamespace => "mount namespace",
            Self::NetworkNamespace => "network namespace",
            Self::IpcNamespace => "ipc namespace",
            Self::UtsNamespace => "uts namespace",
            Self::CgroupNamespace => "cgroup namespace",
            Self::IdentityMap => "identity map",
            Self::PrivateRoot => "private root",
            Self::PrivateProc => "private /proc",
            Self::PrivateDevices => "private /dev",
            Self::NoNestedNamespaces => "no nested user namespaces",
            Self::NoCapabilities => "no capabilities",
            Self::Cgroup => "cgroup limits",
            Self::CgroupIo => "cgroup limits of disks",
            Self::Seccomp => "system call filter",
            Self::Landlock => "landlock rules",
            Self::OwnIdentity => "user id of its own",
        })
    }
}

/// All layers, those of the lower levels first: every level has all that the one below it has.
const LAYERS: &[Layer] = &[
    Layer::ResourceLimits,
    Layer::NoNewPrivileges,
    Layer::CleanEnvironment,
    Layer::Session,
    Layer::ProcessTree,
    Layer::UserNamespace,
    Layer::PidNamespace,
    Layer::MountNamespace,
    Layer::NetworkNamespace,
    Layer::IpcNamespace,
    Layer::UtsNamespace,
    Layer::CgroupNamespace,
    Layer::IdentityMap,
    Layer::PrivateRoot,
    Layer::PrivateProc,
    Layer::PrivateDevices,
    Layer::NoNestedNamespaces,
    Layer::NoCapabilities,
    Layer::Seccomp,
    Layer::Cgroup,
    Layer::Landlock,
    Layer::OwnIdentity,
];

/// The layers up to and with this one.
const fn up_to(last: Layer) -> &'static [Layer] {
    let mut count = 0;
    while count < LAYERS.len() && LAYERS[count] as u8 != last as u8 {
        count += 1;
    }
    LAYERS.split_at(count + 1).0
}

const MINIMAL: &[Layer] = up_to(Layer::ProcessTree);
const STANDARD: &[Layer] = up_to(Layer::Seccomp);
const STRICT: &[Layer] = up_to(Layer::Landlock);
const PARANOID: &[Layer] = up_to(Layer::OwnIdentity);
