//! The block devices whose use groups can limit: whole disks, not their parts.

use std::{fmt, fs, path::Path};

use crate::limits::MAX_LIMITED_DEVICES;

/// A device number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) major: u32,
    pub(super) minor: u32,
}

impl Device {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once(':')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// The disks that hold something.
pub(super) fn find() -> Vec<Device> {
    let Ok(disks) = fs::read_dir("/sys/block") else { return Vec::new() };
    let mut found: Vec<Device> =
        disks.filter_map(|disk| device(&disk.ok()?.path())).take(MAX_LIMITED_DEVICES).collect();
    found.sort_by_key(|device| (device.major, device.minor));
    found
}

fn device(disk: &Path) -> Option<Device> {
    let name = disk.file_name()?.to_string_lossy().into_owned();
    // Memory, not disks.
    if name.starts_with("ram") || name.starts_with("zram") {
        return None;
    }
    let text = |file: &str| fs::read_to_string(disk.join(file)).ok();
    let sectors: u64 = text("size")?.trim().parse().ok()?;
    if sectors == 0 { None } else { Device::parse(&text("dev")?) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_read_and_written() {
        let device = Device::parse("254:16\n").unwrap();
        assert_eq!(device, Device { major: 254, minor: 16 });
        assert_eq!(device.to_string(), "254:16");
        for damaged in ["", ":", "8", "8:", "a:1", "8:1:2"] {
            assert_eq!(Device::parse(damaged), None, "{damaged}");
        }
    }
}
