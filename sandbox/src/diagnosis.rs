//! From a refused step to a reason and a remedy that an operator can act on. Pure; the facts are
//! read elsewhere.

use std::fmt;

use crate::{
    errno::Errno,
    level::{Layer, Level},
    step::Step,
};

/// Why the host can't give a layer.
///
/// ```
/// use neuroflow_sandbox::Reason;
///
/// assert_eq!(Reason::AppArmor.to_string(), "restricted by AppArmor");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The operating system isn't Linux.
    NotLinux,
    /// A kernel switch turns it off.
    Switch(Switch),
    /// `AppArmor` lets unprivileged user namespaces exist and then takes their rights.
    AppArmor,
    /// Parts of the host's `/proc` are hidden, as container engines do, and the kernel doesn't show
    /// them again.
    ProcMasked,
    /// The kernel is too old or was built without it.
    NoKernelSupport(Errno),
    /// The host program has no range of user ids to give out.
    NoIdRange,
    /// Something refused it: usually a container engine's system call filter, or a missing
    /// capability.
    Refused(Errno),
    /// The kernel said yes and did something else: what was set was read back, and differs.
    NotInForce,
    /// No hierarchy of control groups that this process can see has the controller.
    CgroupControllerMissing(Controller),
    /// The control group of this process belongs to somebody else.
    CgroupNotDelegated,
    /// The control groups are mounted read-only.
    CgroupReadOnly,
    /// Other programs share the control group of this process, and the kernel gives controllers
    /// only to groups below one without processes.
    CgroupBusy,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLinux => f.write_str("the operating system isn't Linux"),
            Self::Switch(switch) => write!(f, "switched off by {switch}"),
            Self::AppArmor => f.write_str("restricted by AppArmor"),
            Self::NoIdRange => f.write_str("the host program has no range of user ids to give out"),
            Self::ProcMasked => f.write_str("parts of the host's /proc are hidden"),
            Self::NoKernelSupport(errno) => write!(f, "the kernel doesn't have it: {errno}"),
            Self::Refused(errno) => write!(f, "refused: {errno}"),
            Self::NotInForce => f.write_str("it was set, and isn't in force"),
            Self::CgroupControllerMissing(controller) => {
                write!(f, "no control group has the {controller} controller")
            }
            Self::CgroupNotDelegated => f.write_str("the control group isn't delegated"),
            Self::CgroupReadOnly => f.write_str("the control groups are mounted read-only"),
            Self::CgroupBusy => f.write_str("other programs are in the same control group"),
        }
    }
}

/// A resource that control groups limit.
///
/// ```
/// assert_eq!(neuroflow_sandbox::Controller::Pids.to_string(), "pids");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Controller {
    /// Processor time.
    Cpu,
    /// Memory, page cache and tmpfs included.
    Memory,
    /// Swap: a part of the memory controller that a kernel may be built or booted without.
    Swap,
    /// Processes and threads.
    Pids,
    /// Reads and writes of block devices.
    Io,
}

impl Controller {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Cpu, Self::Memory, Self::Swap, Self::Pids, Self::Io];
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Swap => "swap",
            Self::Pids => "pids",
            Self::Io => "io",
        })
    }
}

/// A kernel switch (sysctl) that can turn namespaces off.
///
/// ```
/// assert_eq!(neuroflow_sandbox::Switch::MaxUserNamespaces.to_string(), "user.max_user_namespaces");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Switch {
    /// How many user namespaces may exist.
    MaxUserNamespaces,
    /// Debian's switch for unprivileged user namespaces.
    UnprivilegedUserNamespaces,
    /// How many network namespaces may exist.
    MaxNetNamespaces,
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MaxUserNamespaces => "user.max_user_namespaces",
            Self::UnprivilegedUserNamespaces => "kernel.unprivileged_userns_clone",
            Self::MaxNetNamespaces => "user.max_net_namespaces",
        })
    }
}

/// What the operator can do about it.
///
/// ```
/// use neuroflow_sandbox::{Level, Remedy};
///
/// assert_eq!(Remedy::ChooseLevel(Level::Standard).to_string(), "choose level standard");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Remedy {
    /// Another level can be had.
    ChooseLevel(Level),
    /// Set a kernel switch with `sysctl`.
    SetSwitch(Switch),
    /// Give the program an `AppArmor` profile with the rule `userns`.
    AppArmorProfile,
    /// Start the container without hidden parts of `/proc` (Docker: `--security-opt
    /// systempaths=unconfined`).
    UnmaskProc,
    /// Use a kernel from 5.14 on with all namespaces.
    NewerKernel,
    /// Allow `clone`, `mount`, `pivot_root` and the calls of the mount API in the container's
    /// filter, and leave the host program the capabilities to set ids.
    LoosenContainer,
    /// Start the program as an ordinary user, or leave its root the right to mount (`CAP_SYS_ADMIN`) or to
    /// set ids (`CAP_SETUID`, `CAP_SETGID`), with a range of them in its user namespace.
    LeaveRoot,
    /// Start the program as an ordinary user, or leave its root the right to end processes of other ids
    /// (`CAP_KILL`), in the bounding set too.
    LeaveKill,
    /// Nothing here; the cell has to run on another machine.
    AnotherHost,
    /// Let the profile do without it ([`allow_degraded`](crate::ProfileBuilder::allow_degraded)), or use
    /// another host.
    DoWithout,
    /// Give the program a control group that it may divide: `systemd-run --user --scope -p
    /// Delegate=yes`, or `Delegate=yes` in its unit.
    DelegateCgroup,
    /// Mount the control groups writable, with a control group namespace of the container's own.
    MountCgroup,
    /// Start the program in a control group of its own, without a shell or an init beside it.
    OwnCgroup,
    /// Boot the kernel with the controller (`cgroup_enable=memory`, `swapaccount=1`), and hand it
    /// down to the program's group in `cgroup.subtree_control`.
    EnableController(Controller),
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ChooseLevel(level) => write!(f, "choose level {level}"),
            Self::SetSwitch(switch) => write!(f, "raise {switch} with sysctl"),
            Self::AppArmorProfile => f.write_str("give the program an AppArmor profile with the rule `userns`"),
            Self::UnmaskProc => f.write_str("start the container with an unmasked /proc"),
            Self::NewerKernel => f.write_str("use a kernel from 5.14 on with all namespaces"),
            Self::LoosenContainer => {
                f.write_str("allow namespaces and mounts in the container's system call filter and capabilities")
            }
            Self::LeaveRoot => f.write_str(
                "start it as an ordinary user, or leave root a range of ids and CAP_SETUID and CAP_SETGID",
            ),
            Self::LeaveKill => {
                f.write_str("start it as an ordinary user, or leave root CAP_KILL, in its bounding set too")
            }
            Self::AnotherHost => f.write_str("use another host"),
            Self::DoWithout => {
                f.write_str("let the profile do without it (`allow_degraded`), or use another host")
            }
            Self::DelegateCgroup => f.write_str(
                "start it with `systemd-run --user --scope -p Delegate=yes`, or set Delegate=yes in its unit",
            ),
            Self::MountCgroup => {
                f.write_str("mount /sys/fs/cgroup writable, in a control group namespace of its own")
            }
            Self::OwnCgroup => {
                f.write_str("start it in a control group of its own, with no other program in it")
            }
            Self::EnableController(controller) => {
                write!(f, "boot with the {controller} controller, and hand it down in cgroup.subtree_control")
            }
        }
    }
}

/// What the host's kernel switches say; `None` where a switch doesn't exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Facts {
    pub(crate) max_user_namespaces: Option<u64>,
    pub(crate) max_net_namespaces: Option<u64>,
    pub(crate) unprivileged_user_namespaces: Option<u64>,
    pub(crate) app_armor_restricts: Option<u64>,
}

/// The layer that failed, why, and what helps. `None` if the failure says nothing about the host's
/// abilities.
pub(crate) fn diagnose(step: Step, errno: Errno, facts: &Facts) -> Option<(Layer, Reason, Remedy)> {
    let layer = step.layer()?;
    if errno.raw() == NOT_AS_SET {
        return Some((layer, Reason::NotInForce, Remedy::AnotherHost));
    }
    let code = Code::of(errno);
    let depends_on_host = match step {
        // What is bound may be missing or unreadable without any fault of the host's.
        Step::OpenSource | Step::AttachBind => code == Code::Unsupported,
        Step::Clone => code != Code::Other,
        Step::MakeDirectory | Step::WriteFile | Step::MakeSymlink | Step::MountTmpfs => {
            code == Code::Denied
        }
        Step::VerifyCapabilities
        | Step::VerifyPrivileges
        | Step::VerifyIds
        | Step::VerifyNamespaces
        | Step::VerifyRoot
        | Step::VerifyDevices
        | Step::VerifyRules => true,
        _ => code != Code::Other || errno.raw() == INVALID,
    };
    if !depends_on_host {
        return None;
    }
    let (reason, remedy) = explain(step, errno, code, facts);
    Some((layer, reason, remedy))
}

fn explain(step: Step, errno: Errno, code: Code, facts: &Facts) -> (Reason, Remedy) {
    let switch = |switch| (Reason::Switch(switch), Remedy::SetSwitch(switch));
    match (step, code) {
        (Step::Clone, Code::Denied | Code::Exhausted) if facts.max_user_namespaces == Some(0) => {
            switch(Switch::MaxUserNamespaces)
        }
        (Step::Clone, Code::Denied) if facts.unprivileged_user_namespaces == Some(0) => {
            switch(Switch::UnprivilegedUserNamespaces)
        }
        (Step::Clone, Code::Exhausted) if facts.max_net_namespaces == Some(0) => {
            switch(Switch::MaxNetNamespaces)
        }
        (Step::LeaveRoot, _) => (Reason::NoIdRange, Remedy::LeaveRoot),
        (_, Code::Denied) if facts.app_armor_restricts == Some(1) => {
            (Reason::AppArmor, Remedy::AppArmorProfile)
        }
        (Step::MountProc, Code::Denied) => (Reason::ProcMasked, Remedy::UnmaskProc),
        (_, Code::Unsupported) => (Reason::NoKernelSupport(errno), Remedy::NewerKernel),
        _ => (Reason::Refused(errno), Remedy::LoosenContainer),
    }
}

/// What an error number says about the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    Denied,
    Exhausted,
    Unsupported,
    Other,
}

impl Code {
    fn of(errno: Errno) -> Self {
        match errno.raw() {
            1 | 13 => Self::Denied,
            28 | 87 => Self::Exhausted,
            38 | 95 => Self::Unsupported,
            _ => Self::Other,
        }
    }
}

/// `EBADE`, which the kernel gives for none of our calls: a read-back differs.
const NOT_AS_SET: i32 = 52;
/// `EINVAL`: for most steps, a flag that the kernel doesn't know.
const INVALID: i32 = 22;

#[cfg(test)]
mod tests {
    use super::*;

    const EPERM: Errno = Errno::from_raw(1);
    const ENOENT: Errno = Errno::from_raw(2);
    const EAGAIN: Errno = Errno::from_raw(11);
    const ENOSPC: Errno = Errno::from_raw(28);
    const ENOSYS: Errno = Errno::from_raw(38);

    #[test]
    fn switches_are_named() {
        let facts = Facts { max_user_namespaces: Some(0), ..Facts::default() };
        let expected = (
            Layer::UserNamespace,
            Reason::Switch(Switch::MaxUserNamespaces),
            Remedy::SetSwitch(Switch::MaxUserNamespaces),
        );
        assert_eq!(diagnose(Step::Clone, ENOSPC, &facts), Some(expected));
        let facts = Facts { unprivileged_user_namespaces: Some(0), ..Facts::default() };
        let (_, reason, _) = diagnose(Step::Clone, EPERM, &facts).unwrap();
        assert_eq!(reason, Reason::Switch(Switch::UnprivilegedUserNamespaces));
    }

    #[test]
    fn ubuntu_and_containers_are_told_apart() {
        let ubuntu = Facts { app_armor_restricts: Some(1), ..Facts::default() };
        let (layer, reason, remedy) = diagnose(Step::WriteIdMap, EPERM, &ubuntu).unwrap();
        assert_eq!(
            (layer, reason, remedy),
            (Layer::IdentityMap, Reason::AppArmor, Remedy::AppArmorProfile)
        );
        let docker = Facts::default();
        let (_, reason, _) = diagnose(Step::MountProc, EPERM, &docker).unwrap();
        assert_eq!(reason, Reason::ProcMasked);
        let root = (Layer::IdentityMap, Reason::NoIdRange, Remedy::LeaveRoot);
        assert_eq!(diagnose(Step::LeaveRoot, EPERM, &docker), Some(root));
        let (_, reason, remedy) = diagnose(Step::Clone, EPERM, &docker).unwrap();
        assert_eq!((reason, remedy), (Reason::Refused(EPERM), Remedy::LoosenContainer));
    }

    #[test]
    fn what_was_read_back_and_differs_is_its_layers_fault() {
        let not_as_set = Errno::from_raw(NOT_AS_SET);
        for (step, layer) in [
            (Step::StartSession, Layer::Session),
            (Step::ParentDeath, Layer::ProcessTree),
            (Step::MountProc, Layer::PrivateProc),
            (Step::VerifyDevices, Layer::PrivateDevices),
            (Step::MountTmpfs, Layer::PrivateRoot),
            (Step::ForbidNesting, Layer::NoNestedNamespaces),
            (Step::VerifyRules, Layer::Landlock),
            (Step::LimitResource, Layer::ResourceLimits),
        ] {
            let expected = (layer, Reason::NotInForce, Remedy::AnotherHost);
            assert_eq!(diagnose(step, not_as_set, &Facts::default()), Some(expected));
        }
        assert_eq!(diagnose(Step::Execute, not_as_set, &Facts::default()), None);
    }

    #[test]
    fn what_is_not_the_hosts_fault_is_not_blamed_on_it() {
        let facts = Facts::default();
        assert_eq!(diagnose(Step::OpenSource, ENOENT, &facts), None);
        assert_eq!(diagnose(Step::Execute, EPERM, &facts), None);
        assert_eq!(diagnose(Step::Clone, EAGAIN, &facts), None);
        assert!(diagnose(Step::OpenSource, ENOSYS, &facts).is_some());
    }
}
