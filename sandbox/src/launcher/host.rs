//! What the host's files say about the host.

use std::{fs, path::Path};

use crate::diagnosis::Facts;

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

/// Whether cells find a program of this name.
pub(super) fn has_program(name: &str) -> bool {
    ["/usr/local/bin", "/usr/bin", "/bin"].iter().any(|place| Path::new(place).join(name).is_file())
}
