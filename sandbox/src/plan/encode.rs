//! Writes plans and orders.

use std::{ffi::OsStr, path::Path};

use super::{GroupLimits, RESOURCES, view};

/// Appends entries to a growing plan or order. Every text is written with a closing NUL, because
/// that is how the kernel wants it and how the cell, which can't allocate, passes it on.
#[derive(Debug)]
pub(super) struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    pub(super) fn plan(
        flags: u16,
        landlock: u32,
        resources: [u64; RESOURCES],
        groups: &GroupLimits,
    ) -> Self {
        let mut bytes = Vec::with_capacity(4096);
        bytes.extend_from_slice(&view::PLAN_MAGIC.to_le_bytes());
        bytes.extend_from_slice(&view::VERSION.to_le_bytes());
        bytes.extend_from_slice(&flags.to_le_bytes());
        bytes.extend_from_slice(&landlock.to_le_bytes());
        for value in resources.into_iter().chain(groups.words()) {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        Self { bytes }
    }

    pub(super) fn order(flags: u16, wall_nanoseconds: u64) -> Self {
        let mut bytes = Vec::with_capacity(1024);
        bytes.extend_from_slice(&view::ORDER_MAGIC.to_le_bytes());
        bytes.extend_from_slice(&view::VERSION.to_le_bytes());
        bytes.extend_from_slice(&flags.to_le_bytes());
        bytes.extend_from_slice(&wall_nanoseconds.to_le_bytes());
        Self { bytes }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.bytes
    }

    pub(super) fn bind(&mut self, source: &Path, target: &Path, writable: bool) {
        let flags = if writable { view::WRITABLE } else { 0 };
        self.entry(view::BIND, flags, path_bytes(source), Some(path_bytes(target)));
    }

    pub(super) fn overlay(&mut self, source: &Path, target: &Path, options: &str) {
        self.entry(view::OVERLAY_OPTIONS, 0, options.as_bytes(), None);
        self.entry(view::OVERLAY, 0, path_bytes(source), Some(path_bytes(target)));
    }

    pub(super) fn tmpfs(&mut self, target: &str, options: &str) {
        self.entry(view::TMPFS, 0, target.as_bytes(), Some(options.as_bytes()));
    }

    pub(super) fn filter(&mut self, program: &[u8]) {
        self.entry(view::FILTER, 0, program, None);
    }

    pub(super) fn interpreter(&mut self, modules: &str) {
        self.entry(view::INTERPRETER, 0, modules.as_bytes(), None);
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
        // A length that doesn't fit makes a plan over the bound, which its maker refuses before
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
