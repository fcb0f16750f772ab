//! Writes a plan.

use std::{ffi::OsStr, path::Path};

use super::{Access, Purpose, RESOURCES, view};
use crate::{level::Level, profile::Profile};

/// Appends entries to a growing plan. Every text is written with a closing NUL, because that is how
/// the kernel wants it and how the cell, which can't allocate, passes it on.
#[derive(Debug)]
pub(super) struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    pub(super) fn new(profile: &Profile, purpose: Purpose, resources: [u64; RESOURCES]) -> Self {
        let mut bytes = Vec::with_capacity(4096);
        bytes.extend_from_slice(&view::MAGIC.to_le_bytes());
        bytes.extend_from_slice(&view::VERSION.to_le_bytes());
        bytes.push(if profile.level == Level::Minimal { view::MINIMAL } else { view::STANDARD });
        let mut flags = 0;
        if profile.loopback {
            flags |= view::LOOPBACK;
        }
        if purpose == Purpose::Rehearse {
            flags |= view::REHEARSE;
        }
        bytes.push(flags);
        let wall = u64::try_from(profile.wall_time.as_nanos()).unwrap_or(u64::MAX);
        bytes.extend_from_slice(&wall.to_le_bytes());
        for value in resources {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        Self { bytes }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.bytes
    }

    pub(super) fn root(&mut self, options: &str) {
        self.entry(view::ROOT, 0, options.as_bytes(), None);
    }

    pub(super) fn host_name(&mut self, name: &str) {
        self.entry(view::HOST_NAME, 0, name.as_bytes(), None);
    }

    pub(super) fn directory(&mut self, path: &Path) {
        self.entry(view::DIRECTORY, 0, path_bytes(path), None);
    }

    pub(super) fn file(&mut self, path: &Path, contents: &[u8]) {
        self.entry(view::FILE, 0, path_bytes(path), Some(contents));
    }

    pub(super) fn symlink(&mut self, path: impl AsRef<Path>, target: &OsStr) {
        self.entry(view::SYMLINK, 0, path_bytes(path.as_ref()), Some(target.as_encoded_bytes()));
    }

    pub(super) fn bind(&mut self, source: &Path, target: &Path, access: Access) {
        let flags = match access {
            Access::System => 0,
            Access::Device => view::DEVICE,
            Access::ReadOnly => view::FOREIGN,
            Access::Writable => view::FOREIGN | view::WRITABLE,
        };
        self.entry(view::BIND, flags, path_bytes(source), Some(path_bytes(target)));
    }

    pub(super) fn tmpfs(&mut self, target: &str, options: &str) {
        self.entry(view::TMPFS, 0, target.as_bytes(), Some(options.as_bytes()));
    }

    pub(super) fn proc(&mut self, target: &str) {
        self.entry(view::PROC, 0, target.as_bytes(), None);
    }

    pub(super) fn start_directory(&mut self, path: &Path) {
        self.entry(view::START_DIRECTORY, 0, path_bytes(path), None);
    }

    pub(super) fn candidate(&mut self, path: &Path) {
        self.entry(view::CANDIDATE, 0, path_bytes(path), None);
    }

    pub(super) fn argument(&mut self, text: &OsStr) {
        self.entry(view::ARGUMENT, 0, text.as_encoded_bytes(), None);
    }

    pub(super) fn variable(&mut self, name: &OsStr, value: &OsStr) {
        let mut text = name.as_encoded_bytes().to_vec();
        text.push(b'=');
        text.extend_from_slice(value.as_encoded_bytes());
        self.entry(view::VARIABLE, 0, &text, None);
    }

    fn entry(&mut self, kind: u8, flags: u8, first: &[u8], second: Option<&[u8]>) {
        // A length that doesn't fit makes a plan over the bound, which `plan` refuses before
        // anybody reads it.
        let length = |text: &[u8]| u32::try_from(text.len() + 1).unwrap_or(u32::MAX).to_le_bytes();
        self.bytes.extend_from_slice(&[kind, flags]);
        self.bytes.extend_from_slice(&length(first));
        self.bytes.extend_from_slice(&second.map_or([0; 4], length));
        for text in [Some(first), second].into_iter().flatten() {
            self.bytes.extend_from_slice(text);
            self.bytes.push(0);
        }
    }
}

fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}
