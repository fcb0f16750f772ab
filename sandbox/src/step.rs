//! The named steps between the request and the running program, so that a failure says where.

use std::fmt;

use crate::level::Layer;

macro_rules! steps {
    ($($(#[doc = $doc:literal])* $name:ident = $number:literal, $text:literal, $layer:expr;)*) => {
        /// One step of building a cell. Its number is part of the report's wire format.
        ///
        /// ```
        /// use neuroflow_sandbox::{Layer, Step};
        ///
        /// assert_eq!(Step::PivotRoot.to_string(), "change the root");
        /// assert_eq!(Step::PivotRoot.layer(), Some(Layer::PrivateRoot));
        /// ```
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Step {
            $($(#[doc = $doc])* $name,)*
        }

        impl Step {
            /// The layer that the step builds, if it builds one.
            pub const fn layer(self) -> Option<Layer> {
                match self { $(Self::$name => $layer,)* }
            }

            pub(crate) const fn number(self) -> u16 {
                match self { $(Self::$name => $number,)* }
            }

            pub(crate) const fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }

        impl fmt::Display for Step {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$name => $text,)* })
            }
        }

        #[cfg(test)]
        const ALL: &[Step] = &[$(Step::$name),*];
    };
}

steps! {
    /// The zygote reads the request and its plan.
    ReadPlan = 1, "read the plan", None;
    /// The zygote finds room for one more cell.
    AdmitCell = 2, "admit one more cell", None;
    /// The first process of the cell starts, with its namespaces.
    Clone = 3, "start the first process", Some(Layer::UserNamespace);
    /// The cell is told to die with the zygote.
    ParentDeath = 4, "tie the cell to its zygote", Some(Layer::ProcessTree);
    /// A host path is opened for binding.
    OpenSource = 5, "open a bind's source", Some(Layer::PrivateRoot);
    /// The flags of a bind are set.
    RestrictSource = 6, "restrict a bind", Some(Layer::PrivateRoot);
    /// A `/proc` for the new process ids is made.
    MountProc = 7, "mount /proc", Some(Layer::PrivateProc);
    /// The id map is written.
    WriteIdMap = 8, "write the id map", Some(Layer::IdentityMap);
    /// The cell takes its inner ids.
    SetIds = 9, "take the inner ids", Some(Layer::IdentityMap);
    /// Supplementary groups are given up.
    ClearGroups = 10, "give up groups", Some(Layer::IdentityMap);
    /// The new root is mounted.
    MountRoot = 11, "mount the root", Some(Layer::PrivateRoot);
    /// The new root becomes the root.
    PivotRoot = 12, "change the root", Some(Layer::PrivateRoot);
    /// The host's tree is let go.
    DetachHost = 13, "detach the host's tree", Some(Layer::PrivateRoot);
    /// A directory of the root is made.
    MakeDirectory = 14, "make a directory", Some(Layer::PrivateRoot);
    /// A file of the root is written.
    WriteFile = 15, "write a file", Some(Layer::PrivateRoot);
    /// A symbolic link of the root is made.
    MakeSymlink = 16, "make a symbolic link", Some(Layer::PrivateRoot);
    /// A bind is put into its place.
    AttachBind = 17, "attach a bind", Some(Layer::PrivateRoot);
    /// A sized tmpfs is mounted.
    MountTmpfs = 18, "mount a tmpfs", Some(Layer::PrivateRoot);
    /// The root becomes read-only.
    SealRoot = 19, "make the root read-only", Some(Layer::PrivateRoot);
    /// The host name is set.
    SetHostName = 20, "set the host name", Some(Layer::UtsNamespace);
    /// The loopback device is switched on.
    RaiseLoopback = 21, "switch the loopback device on", Some(Layer::NetworkNamespace);
    /// Further user namespaces are forbidden.
    ForbidNesting = 22, "forbid nested user namespaces", Some(Layer::NoNestedNamespaces);
    /// A new session starts.
    StartSession = 23, "start a session", Some(Layer::Session);
    /// Standard input, output and error are put into place.
    PlaceStreams = 24, "place the standard streams", None;
    /// `no_new_privs` is set.
    ForbidPrivileges = 25, "set no_new_privs", Some(Layer::NoNewPrivileges);
    /// The capability bounding set is emptied.
    EmptyBoundingSet = 26, "empty the bounding set", Some(Layer::NoCapabilities);
    /// The secure bits are set and locked.
    LockSecureBits = 27, "lock the secure bits", Some(Layer::NoCapabilities);
    /// The other capability sets are emptied.
    DropCapabilities = 28, "drop all capabilities", Some(Layer::NoCapabilities);
    /// Capabilities are read back.
    VerifyCapabilities = 29, "verify that no capability is left", Some(Layer::NoCapabilities);
    /// `no_new_privs` is read back.
    VerifyPrivileges = 30, "verify no_new_privs", Some(Layer::NoNewPrivileges);
    /// The program's process starts.
    StartProcess = 31, "start the program's process", None;
    /// A resource limit is set.
    LimitResource = 32, "set a resource limit", Some(Layer::ResourceLimits);
    /// Descriptors above 2 are marked for closing.
    CloseDescriptors = 33, "close inherited descriptors", None;
    /// The working directory is entered.
    EnterDirectory = 34, "enter the working directory", None;
    /// The program is executed.
    Execute = 35, "execute the program", None;
    /// The process that outlives the program becomes the parent of its orphans.
    AdoptOrphans = 36, "become the parent of orphans", Some(Layer::ProcessTree);
    /// A bind's owner is mapped to the cell's id.
    MapOwner = 37, "map a bind's owner", Some(Layer::PrivateRoot);
    /// Standard handling of signals is restored.
    ResetSignals = 38, "reset signals", None;
    /// A network namespace is taken from the stock.
    EnterNetwork = 39, "enter a network namespace", Some(Layer::NetworkNamespace);
    /// The socket for the proxy is made.
    ListenForEgress = 40, "listen for the egress proxy", Some(Layer::NetworkNamespace);
    /// The first process compares its namespaces with the zygote's.
    VerifyNamespaces = 41, "verify that no namespace is shared", Some(Layer::UserNamespace);
    /// The first process reads its ids back.
    VerifyIds = 42, "verify the ids", Some(Layer::IdentityMap);
    /// The root is looked at from inside.
    VerifyRoot = 43, "verify the root", Some(Layer::PrivateRoot);
    /// Landlock's rules are made.
    MakeRules = 44, "make landlock rules", Some(Layer::Landlock);
    /// Landlock's rules come into force.
    EnterRules = 45, "enforce landlock rules", Some(Layer::Landlock);
    /// A file that no rule allows doesn't open.
    VerifyRules = 46, "verify the landlock rules", Some(Layer::Landlock);
    /// The system call filter is loaded and read back.
    LoadFilter = 47, "load the system call filter", Some(Layer::Seccomp);
    /// Groups are made and limited.
    LimitGroup = 48, "limit a control group", Some(Layer::Cgroup);
    /// The first process enters its groups.
    EnterGroup = 49, "enter a control group", Some(Layer::Cgroup);
    /// The devices are looked at from inside.
    VerifyDevices = 50, "verify the devices", Some(Layer::PrivateDevices);
    /// An interpreter's fork moves into a prepared cell.
    JoinCell = 51, "move an interpreter into the cell", None;
    /// A zygote whose cells have its own id takes one that isn't root's.
    LeaveRoot = 52, "take an id that isn't root's", Some(Layer::IdentityMap);
    /// The place for an overlay's changes is mounted.
    MountChanges = 60, "mount the place for changes", Some(Layer::PrivateRoot);
    /// The read-only tree below an overlay is put where the overlay can take it.
    AttachLower = 61, "attach the tree below an overlay", Some(Layer::PrivateRoot);
    /// The overlay is made.
    MountOverlay = 62, "mount an overlay", Some(Layer::PrivateRoot);
    /// The parts of an overlay are hidden again, so that only the overlay leads to them.
    HideParts = 63, "hide the parts of an overlay", Some(Layer::PrivateRoot);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip() {
        for step in ALL {
            assert_eq!(Step::from_number(step.number()), Some(*step));
        }
        assert_eq!(Step::from_number(0), None);
        assert_eq!(Step::from_number(u16::MAX), None);
    }
}
