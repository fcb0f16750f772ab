//! What the host's files say about the host.

use std::{fs, path::Path};

use crate::{
    diagnosis::Facts,
    plan::{Layout, Top},
};

/// Finds out what of the host's tree a cell can see.
pub(super) fn layout() -> Layout {
    let top = TOP.iter().filter_map(|path| {
        let kind = fs::symlink_metadata(path).ok()?.file_type();
        let top = if kind.is_symlink() {
            Top::Link(fs::read_link(path).ok()?.into_os_string())
        } else {
            kind.is_dir().then_some(Top::Directory)?
        };
        Some((path.into(), top))
    });
    let etc = ETC.iter().filter(|path| Path::new(path).exists());
    Layout { top: top.collect(), etc: etc.map(Into::into).collect() }
}

/// Reads the kernel's switches.
pub(super) fn facts() -> Facts {
    let read = |path: &str| fs::read_to_string(path).ok()?.trim().parse().ok();
    Facts {
        max_user_namespaces: read("/proc/sys/user/max_user_namespaces"),
        max_net_namespaces: read("/proc/sys/user/max_net_namespaces"),
        unprivileged_user_namespaces: read("/proc/sys/kernel/unprivileged_userns_clone"),
        app_armor_restricts: read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
    }
}

/// Programs and libraries.
const TOP: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// What programs and libraries look for in `/etc`, without anything that is this host's own
/// business.
const ETC: [&str; 7] = [
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
];
