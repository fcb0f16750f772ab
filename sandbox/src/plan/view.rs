//! Reads a plan in place, without allocating and without panicking.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::ffi::CStr;

use super::RESOURCES;
use crate::{limits, zygote::wire::Reader};

/// A plan whose every entry has been checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan<'a> {
    pub(crate) minimal: bool,
    pub(crate) loopback: bool,
    pub(crate) rehearse: bool,
    pub(crate) wall_nanoseconds: u64,
    /// Values in the order of [`super::Resource::ALL`].
    pub(crate) resources: [u64; RESOURCES],
    entries: Reader<'a>,
}

/// One thing to do, or one text to hand to the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry<'a> {
    Root { options: &'a CStr },
    HostName { name: &'a CStr },
    Directory { path: &'a CStr },
    File { path: &'a CStr, contents: &'a [u8] },
    Symlink { path: &'a CStr, target: &'a CStr },
    Bind { source: &'a CStr, target: &'a CStr, access: BindAccess },
    Tmpfs { target: &'a CStr, options: &'a CStr },
    Proc { target: &'a CStr },
    StartDirectory { path: &'a CStr },
    Candidate { path: &'a CStr },
    Argument { text: &'a CStr },
    Variable { text: &'a CStr },
}

/// How a bind may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BindAccess {
    pub(crate) writable: bool,
    pub(crate) device: bool,
    /// Named by the profile, not by us.
    pub(crate) foreign: bool,
}

impl<'a> Plan<'a> {
    /// Checks the whole plan, so that [`Plan::entries`] can't meet a malformed one later.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        if bytes.len() > limits::MAX_PLAN_BYTES
            || reader.u32()? != MAGIC
            || reader.u16()? != VERSION
        {
            return None;
        }
        let minimal = match reader.u8()? {
            MINIMAL => true,
            STANDARD => false,
            _ => return None,
        };
        let flags = reader.u8()?;
        if flags & !(LOOPBACK | REHEARSE) != 0 {
            return None;
        }
        let wall_nanoseconds = reader.u64()?;
        let mut resources = [0; RESOURCES];
        for value in &mut resources {
            *value = reader.u64()?;
        }
        let plan = Self {
            minimal,
            loopback: flags & LOOPBACK != 0,
            rehearse: flags & REHEARSE != 0,
            wall_nanoseconds,
            resources,
            entries: reader,
        };
        plan.check().then_some(plan)
    }

    /// The entries in their order.
    pub(crate) fn entries(&self) -> Entries<'a> {
        Entries { rest: self.entries }
    }

    /// What the `index`th bind shows.
    pub(crate) fn bind_source(&self, index: usize) -> Option<&'a CStr> {
        let mut sources = self.entries().filter_map(|entry| match entry {
            Entry::Bind { source, .. } => Some(source),
            _ => None,
        });
        sources.nth(index)
    }

    fn check(&self) -> bool {
        let mut rest = self.entries;
        let (mut binds, mut arguments, mut candidates, mut roots, mut first) =
            (0_usize, 0_usize, 0, 0, true);
        while !rest.is_empty() {
            match entry(&mut rest) {
                Some(Entry::Bind { .. }) => binds = binds.saturating_add(1),
                Some(Entry::Argument { .. }) => arguments = arguments.saturating_add(1),
                Some(Entry::Candidate { .. }) => candidates = 1,
                // Whatever comes before the root would be done to the host.
                Some(Entry::Root { .. }) if first => roots = 1,
                Some(Entry::Root { .. }) | None => return false,
                Some(_) => {}
            }
            first = false;
        }
        let root_fits = (roots == 1) != self.minimal;
        root_fits
            && binds <= MAX_PLAN_BINDS
            && arguments <= limits::MAX_ARGUMENTS.saturating_add(1)
            && candidates == 1
    }
}

/// Iterator over the entries of a checked plan.
#[derive(Debug)]
pub(crate) struct Entries<'a> {
    rest: Reader<'a>,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        entry(&mut self.rest)
    }
}

fn entry<'a>(reader: &mut Reader<'a>) -> Option<Entry<'a>> {
    let kind = reader.u8()?;
    let flags = reader.u8()?;
    let first = reader.length()?;
    let second = reader.length()?;
    if kind != BIND && flags != 0 {
        return None;
    }
    let text = reader.string(first)?;
    let entry = match kind {
        FILE => {
            let (nul, contents) = reader.bytes(second)?.split_last()?;
            if *nul != 0 {
                return None;
            }
            return Some(Entry::File { path: text, contents });
        }
        SYMLINK => Entry::Symlink { path: text, target: reader.string(second)? },
        BIND if flags & !(WRITABLE | DEVICE | FOREIGN) == 0 => Entry::Bind {
            source: text,
            target: reader.string(second)?,
            access: BindAccess {
                writable: flags & WRITABLE != 0,
                device: flags & DEVICE != 0,
                foreign: flags & FOREIGN != 0,
            },
        },
        TMPFS => Entry::Tmpfs { target: text, options: reader.string(second)? },
        _ if second != 0 => return None,
        ROOT => Entry::Root { options: text },
        HOST_NAME => Entry::HostName { name: text },
        DIRECTORY => Entry::Directory { path: text },
        PROC => Entry::Proc { target: text },
        START_DIRECTORY => Entry::StartDirectory { path: text },
        CANDIDATE => Entry::Candidate { path: text },
        ARGUMENT => Entry::Argument { text },
        VARIABLE => Entry::Variable { text },
        _ => return None,
    };
    Some(entry)
}

/// The profile's binds and our own: top directories, files of `/etc`, devices.
pub(crate) const MAX_PLAN_BINDS: usize = limits::MAX_BINDS.saturating_add(32);

pub(super) const MAGIC: u32 = 0x4C50_464E;
pub(super) const VERSION: u16 = 1;
pub(super) const MINIMAL: u8 = 0;
pub(super) const STANDARD: u8 = 1;
pub(super) const LOOPBACK: u8 = 1;
pub(super) const REHEARSE: u8 = 2;
pub(super) const WRITABLE: u8 = 1;
pub(super) const DEVICE: u8 = 2;
pub(super) const FOREIGN: u8 = 4;
pub(super) const ROOT: u8 = 1;
pub(super) const HOST_NAME: u8 = 2;
pub(super) const DIRECTORY: u8 = 3;
pub(super) const FILE: u8 = 4;
pub(super) const SYMLINK: u8 = 5;
pub(super) const BIND: u8 = 6;
pub(super) const TMPFS: u8 = 7;
pub(super) const PROC: u8 = 8;
pub(super) const START_DIRECTORY: u8 = 9;
pub(super) const CANDIDATE: u8 = 10;
pub(super) const ARGUMENT: u8 = 11;
pub(super) const VARIABLE: u8 = 12;

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::{
        level::Level,
        noise::Noise,
        plan::{Layout, Purpose, plan},
        profile::Profile,
        program::Program,
    };

    fn sample() -> Vec<u8> {
        let profile =
            Profile::builder(Level::Standard).bind_read_only("/srv", "/srv").build().unwrap();
        plan(&profile, &Program::new("sh").arg("-c"), &Layout::default(), Purpose::Run).unwrap()
    }

    #[test]
    fn every_cut_is_refused_or_still_complete() {
        let bytes = sample();
        for length in 0..bytes.len() {
            if let Some(plan) = Plan::parse(&bytes[..length]) {
                assert!(plan.entries().count() > 0);
            }
        }
        assert!(Plan::parse(&bytes).is_some());
    }

    #[test]
    fn damage_never_panics_and_entries_agree_with_the_check() {
        let clean = sample();
        let mut noise = Noise::new(3);
        for _ in 0..50_000 {
            let mut bytes = clean.clone();
            for _ in 0..=noise.next() % 4 {
                let at = usize::try_from(noise.next()).unwrap() % bytes.len();
                bytes[at] = noise.next().to_le_bytes()[0];
            }
            if let Some(plan) = Plan::parse(&bytes) {
                let mut rest = plan.entries();
                while rest.next().is_some() {}
                assert!(rest.rest.is_empty(), "the iterator stopped early");
                assert!(matches!(plan.entries().next(), Some(Entry::Root { .. })));
            }
        }
    }

    #[test]
    fn noise_is_refused() {
        let mut noise = Noise::new(11);
        for _ in 0..20_000 {
            assert!(Plan::parse(&noise.bytes(400)).is_none());
        }
    }

    #[test]
    fn bind_sources_are_counted_in_order() {
        let bytes = sample();
        let plan = Plan::parse(&bytes).unwrap();
        let last = plan.entries().filter(|entry| matches!(entry, Entry::Bind { .. })).count() - 1;
        assert_eq!(plan.bind_source(last), Some(c"/srv"));
        assert_eq!(plan.bind_source(last + 1), None);
    }
}
