//! Names of numbers that profiles may use for values and masks.

/// The number behind a name, if profiles know it.
pub(super) fn value(name: &str) -> Option<u64> {
    let known = OWN.iter().chain(OF_LIBC).find(|(known, _)| *known == name);
    known.map(|(_, value)| *value)
}

/// The first name with one of these beginnings that stands for the number.
pub(super) fn name(beginnings: &[&str], value: u64) -> Option<&'static str> {
    let fits = |(name, known): &&(&'static str, u64)| {
        *known == value && beginnings.iter().any(|beginning| name.starts_with(beginning))
    };
    OF_LIBC.iter().find(fits).map(|(name, _)| *name)
}

/// The error number behind a name.
pub(super) fn errno(name: &str) -> Option<u16> {
    ERRNOS.iter().find(|(known, _)| *known == name).map(|(_, errno)| *errno)
}

/// The name of an error number that answers have.
pub(super) fn errno_name(errno: u16) -> &'static str {
    ERRNOS.iter().find(|(_, known)| *known == errno).map_or("EPERM", |(name, _)| name)
}

/// The names that an answer may have, for messages.
pub(super) fn errnos() -> impl Iterator<Item = &'static str> {
    ERRNOS.iter().map(|(name, _)| *name)
}

/// Combinations that headers have no name for, and what libc lacks.
const OWN: &[(&str, u64)] = &[
    // All `CLONE_NEW*`. The last one, `CLONE_NEWTIME`, is part of the exit signal in `clone`, where
    // no signal has that bit.
    ("CLONE_NEW_NAMESPACES", 0x7E02_0080),
    // Memory shared, parent waits, `SIGCHLD` at the end.
    ("CLONE_LIKE_VFORK", 0x4111),
    // Asks and sets nothing.
    ("PER_QUERY", 0xFFFF_FFFF),
    ("SOCK_TYPE_MASK", 0xF),
    ("PROT_WRITE_EXEC", 0x6),
    ("SET_ID_BITS", 0o6000),
    ("FILE_TYPE_AND_SET_ID_BITS", 0o17_6000),
    // `O_CREAT`, and the bit of `O_TMPFILE` that isn't `O_DIRECTORY`: only then a mode is read.
    ("OPEN_MAKES", 0x40_0040),
    // What libc has no constants for.
    ("PER_LINUX", 0),
    ("IOPRIO_WHO_PROCESS", 1),
    ("F_SETSIG", 10),
    ("F_GETSIG", 11),
    ("F_SETOWN_EX", 15),
    ("F_GETOWN_EX", 16),
    ("F_DUPFD_QUERY", 1027),
    ("F_CREATED_QUERY", 1028),
    ("PR_GET_AUXV", 0x4155_5856),
    ("FS_IOC_FIEMAP", 0xC020_660B),
    ("FIDEDUPERANGE", 0xC018_9436),
];

macro_rules! of_libc {
    ($($name:ident)*) => { &[$((stringify!($name), libc::$name as u32 as u64)),*] };
}

#[expect(
    clippy::cast_possible_truncation,
    trivial_numeric_casts,
    reason = "each is an int of the kernel's, in whatever type libc has it; its low 32 bits count"
)]
const OF_LIBC: &[(&str, u64)] = of_libc! {
    AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_PACKET AF_VSOCK AF_ALG
    SOCK_STREAM SOCK_DGRAM SOCK_SEQPACKET SOCK_RAW
    IPPROTO_IP IPPROTO_TCP IPPROTO_UDP IPPROTO_IPV6 IPPROTO_ICMP
    SOL_SOCKET SO_REUSEADDR SO_REUSEPORT SO_KEEPALIVE SO_SNDBUF SO_RCVBUF SO_SNDTIMEO SO_RCVTIMEO
    SO_LINGER SO_BROADCAST SO_PASSCRED SO_ERROR TCP_NODELAY
    PROT_READ PROT_WRITE PROT_EXEC MAP_HUGETLB MFD_HUGETLB SHM_HUGETLB
    PRIO_PROCESS
    S_IFIFO S_IFREG S_IFSOCK S_IFCHR S_IFBLK
    O_CREAT
    F_DUPFD F_DUPFD_CLOEXEC F_GETFD F_SETFD F_GETFL F_SETFL F_GETLK F_SETLK F_SETLKW F_OFD_GETLK
    F_OFD_SETLK F_OFD_SETLKW F_SETOWN F_GETOWN F_SETLEASE F_GETLEASE F_NOTIFY F_SETPIPE_SZ
    F_GETPIPE_SZ F_ADD_SEALS F_GET_SEALS
    PR_SET_PDEATHSIG PR_GET_PDEATHSIG PR_GET_DUMPABLE PR_SET_DUMPABLE PR_GET_KEEPCAPS
    PR_SET_KEEPCAPS PR_SET_NAME PR_GET_NAME PR_GET_SECCOMP PR_SET_SECCOMP PR_CAPBSET_READ
    PR_CAPBSET_DROP PR_GET_SECUREBITS PR_SET_SECUREBITS PR_SET_TIMERSLACK PR_GET_TIMERSLACK
    PR_SET_MM PR_SET_CHILD_SUBREAPER PR_GET_CHILD_SUBREAPER PR_SET_NO_NEW_PRIVS
    PR_GET_NO_NEW_PRIVS PR_GET_TID_ADDRESS PR_SET_THP_DISABLE PR_GET_THP_DISABLE
    PR_GET_SPECULATION_CTRL PR_SET_SPECULATION_CTRL PR_SET_VMA PR_SET_MDWE PR_GET_MDWE
    PR_SET_PTRACER PR_CAP_AMBIENT PR_CAP_AMBIENT_IS_SET
    TCGETS TCGETS2 TCSETS TCSETSW TCSETSF TCSETS2 TCSETSW2 TCSETSF2 TCFLSH TCSBRK TCSBRKP TCXONC
    TIOCGWINSZ TIOCSWINSZ TIOCGPGRP TIOCSPGRP TIOCGSID TIOCOUTQ TIOCEXCL TIOCNXCL TIOCSTI
    TIOCLINUX TIOCSETD TIOCCONS TIOCSCTTY
    FIONREAD FIONBIO FIOASYNC FIOCLEX FIONCLEX FIOQSIZE FICLONE FICLONERANGE
    FS_IOC_GETFLAGS FS_IOC_SETFLAGS
    SIOCGIFCONF SIOCGIFFLAGS SIOCGIFADDR SIOCGIFINDEX SIOCGIFNAME SIOCGIFMTU
    SECCOMP_IOCTL_NOTIF_RECV SECCOMP_IOCTL_NOTIF_SEND SECCOMP_IOCTL_NOTIF_ID_VALID
    SECCOMP_SET_MODE_STRICT SECCOMP_SET_MODE_FILTER SECCOMP_GET_ACTION_AVAIL
    SECCOMP_FILTER_FLAG_NEW_LISTENER
};

const ERRNOS: &[(&str, u16)] = &[
    ("EPERM", 1),
    ("ENOENT", 2),
    ("EACCES", 13),
    ("EINVAL", 22),
    ("ENOTTY", 25),
    ("ENOSYS", 38),
    ("EOPNOTSUPP", 95),
    ("EAFNOSUPPORT", 97),
];
