//! What the zygote has ready for cells with namespaces: a small mount table with the shared root, a
//! stock of network namespaces, and the rights to give both away.
//!
//! A privileged zygote has those rights. Another one takes them from a user namespace of its own,
//! in which cells' user namespaces are nested; so what belongs to the nursery is never a cell's to
//! change.

use std::{
    ffi::CStr,
    os::fd::{AsFd, OwnedFd},
};

use super::owner;
use crate::{
    diagnosis::Controller,
    errno::Errno,
    limits,
    linux::{
        At, Failure, Identity, Layout, Namespaces, Templates,
        cgroup::{Cgroups, Group, IoLimits, Limits, missing},
        is_root_outside,
        sys::{
            credentials, file,
            process::{self, NEW_NET, NEW_NS, NEW_USER, NEW_UTS},
            socket,
        },
    },
    plan::{GroupLimits, INHERIT},
    step::Step,
};

/// See the module.
#[derive(Debug)]
pub(super) struct Nursery {
    pub(super) templates: Templates,
    pub(super) networks: Networks,
    pub(super) identity: Identity,
    groups: Cgroups,
    /// Groups that were made ahead, with the limits that were wanted last.
    stocked: Vec<(Option<GroupLimits>, Group)>,
    wanted: Option<GroupLimits>,
    /// Groups with the limits that were wanted last, whose cells are gone.
    used: Vec<Group>,
    /// The zygote's own, which no cell may share.
    pub(super) namespaces: Namespaces,
    host_mounts: OwnedFd,
    own_mounts: OwnedFd,
}

impl Nursery {
    /// Takes the calling process out of the host's mount table.
    pub(super) fn enter(identity: Identity) -> Result<Self, Failure> {
        let layout = Layout::of_host();
        let (groups, identity, host_mounts) = match identity {
            Identity::Range { .. } => {
                let host = open(MOUNTS)?;
                match process::unshare(NEW_NS) {
                    Ok(()) => {
                        let groups = Cgroups::detect();
                        credentials::clear_groups().at(Step::ClearGroups)?;
                        credentials::keep_capabilities_over_ids().at(Step::SetIds)?;
                        (groups, identity, host)
                    }
                    // Root, but not of everything: a container without the right to mount. Cells have the
                    // zygote's id then, which must not go on being root's.
                    Err(errno) if errno.raw() == libc::EPERM => {
                        let id = identity.host_id(process::own_pid().unsigned_abs().into());
                        leave_root(id)?;
                        // What this id may do with groups is not what root may.
                        let groups = Cgroups::detect();
                        let (identity, host) = own_users(id, id)?;
                        (groups, identity, host)
                    }
                    Err(errno) => return Err(errno).at(Step::MountRoot),
                }
            }
            Identity::Own { user, group } => {
                let groups = Cgroups::detect();
                let (identity, host) = own_users(user, group)?;
                (groups, identity, host)
            }
        };
        process::unshare(NEW_UTS).at(Step::Clone)?;
        credentials::set_host_name(HOST_NAME).at(Step::SetHostName)?;
        let templates = Templates::build(layout, owner::locked_table)?;
        let networks = Networks { idle: Vec::new() };
        let namespaces = Namespaces::of_caller().at(Step::VerifyNamespaces)?;
        let own_mounts = open(MOUNTS)?;
        Ok(Self {
            templates,
            networks,
            groups,
            stocked: Vec::new(),
            wanted: None,
            used: Vec::new(),
            identity,
            namespaces,
            host_mounts,
            own_mounts,
        })
    }

    /// Groups with these limits.
    pub(super) fn group(&mut self, limits: &GroupLimits) -> Result<Group, Failure> {
        if self.wanted != Some(*limits) {
            self.wanted = Some(*limits);
            for group in self.used.drain(..) {
                self.groups.retire(group);
            }
        }
        while let Some((set, group)) = self.stocked.pop() {
            if set == Some(*limits) {
                return Ok(group);
            }
            // Changing limits that are set has an order that depends on both; a fresh group hasn't.
            self.groups.retire(group);
        }
        let group = match self.renew() {
            Some(group) => group,
            None => self.groups.take().at(Step::LimitGroup)?,
        };
        self.limit(&group, limits)?;
        Ok(group)
    }

    /// A group as good as fresh of one whose cell is gone, if there is such a one.
    fn renew(&mut self) -> Option<Group> {
        while let Some(group) = self.used.pop() {
            if let Some(group) = self.groups.renew(group) {
                return Some(group);
            }
        }
        None
    }

    fn limit(&self, group: &Group, limits: &GroupLimits) -> Result<(), Failure> {
        let limits = group_limits(limits);
        // Swap is limited where the host counts it; what else is missing was found before.
        let swap = self.groups.missing().iter().any(|gone| gone.controller == Controller::Swap);
        let limits = if swap { limits.without(Controller::Swap) } else { limits };
        match group.apply(&limits) {
            Ok(()) => Ok(()),
            Err(error) => Err(error.errno()).at(Step::LimitGroup),
        }
    }

    /// Takes back the group of a cell that is gone. With the limits `set`, another cell may have it.
    pub(super) fn retire(&mut self, mut group: Group, set: Option<GroupLimits>) {
        let has_room = self.used.len() < limits::USED_GROUPS;
        if has_room && set.is_some() && set == self.wanted && group.may_be_renewed() {
            self.used.push(group);
        } else {
            self.groups.retire(group);
        }
    }

    /// Makes one more group if there are few. Whether it did.
    pub(super) fn stock_group(&mut self) -> bool {
        let Some(wanted) = self.wanted else { return false };
        if self.stocked.len() >= limits::STOCKED_GROUPS {
            return false;
        }
        // A stock only saves time: who takes a group hears why there is none.
        let group = match self.renew() {
            Some(group) => group,
            None => match self.groups.take() {
                Ok(group) => group,
                Err(_refused) => return false,
            },
        };
        let set = self.limit(&group, &wanted).is_ok().then_some(wanted);
        self.stocked.push((set, group));
        true
    }

    /// How many groups wait for their removal.
    pub(super) fn dying_groups(&self) -> usize {
        self.groups.dying()
    }

    /// Removes groups that nobody is in any more. Whether none is left.
    pub(super) fn tidy(&mut self) -> bool {
        self.groups.tidy()
    }

    /// Removes all groups. What can't be removed now the next zygote finds.
    pub(super) fn leave(mut self) {
        self.stocked.clear();
        self.used.clear();
        self.groups.end().ok();
    }

    /// The controllers that can't be had, for [`Record::Hello`](super::protocol::Record::Hello).
    pub(super) fn missing_controllers(&self) -> u64 {
        missing::encode(self.groups.missing())
    }

    /// Does something with the host's paths in sight.
    pub(super) fn outside<T>(
        &self,
        act: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        process::enter_namespace(self.host_mounts.as_fd(), NEW_NS).at(Step::OpenSource)?;
        let done = act();
        process::enter_namespace(self.own_mounts.as_fd(), NEW_NS).at(Step::OpenSource)?;
        done
    }

    /// Whether each cell has an outer id that no other cell has at the time.
    pub(super) fn gives_each_its_own_id(&self) -> bool {
        self.identity.gives_each_its_own()
    }

    /// Whether cells have outer ids of their own.
    pub(super) fn is_privileged(&self) -> bool {
        matches!(self.identity, Identity::Range { .. })
    }

    /// Takes the zygote's own id back.
    pub(super) fn act_as_itself(&self) -> Result<(), Failure> {
        self.act_as(0)
    }

    /// Takes the outer id of a cell as the calling process's own, so that a child may map it by
    /// itself.
    pub(super) fn act_as(&self, host_id: u32) -> Result<(), Failure> {
        match self.identity {
            Identity::Range { .. } => {
                credentials::set_effective_ids(host_id, host_id).at(Step::SetIds)
            }
            Identity::Own { .. } => Ok(()),
        }
    }
}

/// Takes this id for good, and no groups.
fn leave_root(id: u32) -> Result<(), Failure> {
    credentials::clear_groups().at(Step::LeaveRoot)?;
    credentials::set_ids(id, id).at(Step::LeaveRoot)
}

/// A user namespace of the zygote's own, in which it has all rights without being root, and the mount
/// table that comes with it. Refused to the host's root: its cells would be root outside.
fn own_users(user: u32, group: u32) -> Result<(Identity, OwnedFd), Failure> {
    process::unshare(NEW_USER | NEW_NS).at(Step::Clone)?;
    // The files belong to root while nobody may look into the process.
    credentials::set_dumpable(true).at(Step::WriteIdMap)?;
    let write =
        |path: &CStr, text: String| file::write_once(path, text.as_bytes()).at(Step::WriteIdMap);
    write(c"/proc/self/setgroups", "deny".to_owned())?;
    write(c"/proc/self/uid_map", format!("{} {user} 1\n", limits::INNER_ID))?;
    write(c"/proc/self/gid_map", format!("{} {group} 1\n", limits::INNER_ID))?;
    credentials::set_dumpable(false).at(Step::SetIds)?;
    if is_root_outside(limits::INNER_ID).at(Step::LeaveRoot)? {
        return Err(Errno::from_raw(libc::EPERM)).at(Step::LeaveRoot);
    }
    let host = open(MOUNTS)?;
    // The copy goes on to hear of the host's mounts; the zygote leaves it for one of its own.
    process::unshare(NEW_NS).at(Step::MountRoot)?;
    Ok((Identity::Own { user: limits::INNER_ID, group: limits::INNER_ID }, host))
}

/// Network namespaces that belong to the nursery. Making one costs more than everything else of a
/// cell, so they are made ahead, and one goes back after a cell that could have no socket but local
/// ones: nothing of it can have stayed there.
#[derive(Debug)]
pub(super) struct Networks {
    idle: Vec<OwnedFd>,
}

impl Networks {
    /// Enters a namespace with nothing but a loopback device that is down.
    pub(super) fn take(&mut self) -> Result<OwnedFd, Failure> {
        if let Some(network) = self.idle.pop() {
            process::enter_namespace(network.as_fd(), NEW_NET).at(Step::EnterNetwork)?;
            return Ok(network);
        }
        make()
    }

    pub(super) fn give_back(&mut self, network: OwnedFd) {
        if self.idle.len() < limits::IDLE_NETWORKS {
            self.idle.push(network);
        }
    }

    /// Makes one more if there are few. Whether it did.
    pub(super) fn stock(&mut self) -> Result<bool, Failure> {
        if self.idle.len() >= limits::STOCKED_NETWORKS {
            return Ok(false);
        }
        let network = make()?;
        self.idle.push(network);
        Ok(true)
    }
}

fn make() -> Result<OwnedFd, Failure> {
    process::unshare(NEW_NET).at(Step::EnterNetwork)?;
    open(c"/proc/self/ns/net")
}

/// Switches the loopback device of the entered network on, and makes the socket that the host's
/// proxy listens on if one is wanted.
pub(super) fn connect(egress: bool) -> Result<Option<OwnedFd>, Failure> {
    socket::raise_loopback().at(Step::RaiseLoopback)?;
    if egress {
        socket::listen_on_loopback(limits::EGRESS_PORT).at(Step::ListenForEgress).map(Some)
    } else {
        Ok(None)
    }
}

fn group_limits(given: &GroupLimits) -> Limits {
    let limit = |value: u64| (value != INHERIT).then_some(value);
    let small = |value: u64| limit(value).map(|value| u32::try_from(value).unwrap_or(u32::MAX));
    let (bytes, operations) =
        (limit(given.io_bytes_per_second), limit(given.io_operations_per_second));
    let io = (bytes.is_some() || operations.is_some()).then_some(IoLimits {
        read_bytes: bytes,
        write_bytes: bytes,
        read_operations: operations,
        write_operations: operations,
    });
    Limits {
        cpu_millis: small(given.cpu_milli),
        cpu_weight: limit(given.cpu_weight).map(|value| u16::try_from(value).unwrap_or(u16::MAX)),
        memory_max: limit(given.memory_bytes),
        memory_high: limit(given.memory_high_bytes),
        swap_max: limit(given.swap_bytes),
        pids_max: small(given.processes),
        io,
    }
}

fn open(path: &CStr) -> Result<OwnedFd, Failure> {
    file::open(path, libc::O_RDONLY | libc::O_CLOEXEC).at(Step::EnterNetwork)
}

const MOUNTS: &CStr = c"/proc/self/ns/mnt";
const HOST_NAME: &[u8] = b"cell";
