//! Reads plans and orders in place, without allocating and without panicking.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::ffi::CStr;

use super::{GroupLimits, RESOURCES};
use crate::{limits, zygote::wire::Reader};

/// What a cell is to be, whatever runs in it. Every entry has been checked.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one flag of the header, and independent"
)]
pub(crate) struct Plan<'a> {
    pub(crate) minimal: bool,
    /// The loopback device is up.
    pub(crate) loopback: bool,
    /// A socket listens on the cell's loopback device, for the host's proxy.
    pub(crate) egress: bool,
    /// The cell may have sockets of no other family than `AF_UNIX`.
    pub(crate) quiet: bool,
    /// There is no `/proc`.
    pub(crate) no_proc: bool,
    /// `/proc` shows processes and nothing else.
    pub(crate) bare_proc: bool,
    /// What the cell can write to can't be executed.
    pub(crate) no_execute: bool,
    /// Groups with limits are made, entered and read.
    pub(crate) groups: bool,
    /// The version of Landlock's rules; 0 for none.
    pub(crate) landlock: u32,
    /// Denied calls are carried out all the same, and reported.
    pub(crate) learn: bool,
    /// The filter, where there is one, leaves room for a program's process that is made before its order
    /// comes.
    pub(crate) ahead: bool,
    /// Values in the order of [`super::Resource::ALL`].
    pub(crate) resources: [u64; RESOURCES],
    pub(crate) group_limits: GroupLimits,
    entries: Reader<'a>,
}

/// What of a plan is about the ground that its other parts stand on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is as in the plan")]
pub(crate) struct Ground {
    pub(crate) loopback: bool,
    pub(crate) egress: bool,
    pub(crate) no_proc: bool,
    pub(crate) bare_proc: bool,
    pub(crate) landlock: u32,
}

/// What a cell is to run. Every entry has been checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order<'a> {
    pub(crate) rehearse: bool,
    pub(crate) wall_nanoseconds: u64,
    entries: Reader<'a>,
}

/// One thing to do, or one text to hand to the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry<'a> {
    Bind {
        source: &'a CStr,
        target: &'a CStr,
        access: BindAccess,
    },
    /// How the place for an overlay's changes is mounted.
    OverlayOptions {
        options: &'a CStr,
    },
    Overlay {
        source: &'a CStr,
        target: &'a CStr,
    },
    Tmpfs {
        target: &'a CStr,
        options: &'a CStr,
    },
    /// The system call filter's program.
    Filter {
        program: &'a [u8],
    },
    /// The program will be the fork of an interpreter that has imported these modules: names with
    /// one space between them.
    Interpreter {
        modules: &'a CStr,
    },
    StartDirectory {
        path: &'a CStr,
    },
    Candidate {
        path: &'a CStr,
    },
    Argument {
        text: &'a CStr,
    },
    Variable {
        text: &'a CStr,
    },
}

/// How a bind may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BindAccess {
    pub(crate) writable: bool,
}

impl<'a> Plan<'a> {
    /// Checks the whole plan, so that [`Plan::entries`] can't meet a malformed one later.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        if bytes.len() > limits::MAX_PLAN_BYTES
            || reader.u32()? != PLAN_MAGIC
            || reader.u16()? != VERSION
        {
            return None;
        }
        let flags = reader.u16()?;
        if flags & !ALL_FLAGS != 0 {
            return None;
        }
        let has = |flag: u16| flags & flag != 0;
        let landlock = reader.u32()?;
        let mut resources = [0; RESOURCES];
        for value in &mut resources {
            *value = reader.u64()?;
        }
        let mut words = [0; GroupLimits::WORDS];
        for value in &mut words {
            *value = reader.u64()?;
        }
        let plan = Self {
            minimal: has(MINIMAL),
            loopback: has(LOOPBACK),
            egress: has(EGRESS),
            quiet: has(QUIET),
            no_proc: has(NO_PROC),
            bare_proc: has(BARE_PROC),
            no_execute: has(NO_EXECUTE),
            groups: has(GROUPS),
            landlock,
            learn: has(LEARN),
            ahead: has(AHEAD),
            resources,
            group_limits: GroupLimits::from_words(words),
            entries: reader,
        };
        plan.check().then_some(plan)
    }

    /// What comes before everything else that the plan says.
    pub(crate) fn ground(&self) -> Ground {
        let Self { loopback, egress, no_proc, bare_proc, landlock, .. } = *self;
        Ground { loopback, egress, no_proc, bare_proc, landlock }
    }

    /// The entries in their order.
    pub(crate) fn entries(&self) -> Entries<'a> {
        Entries { rest: self.entries }
    }

    /// What the `index`th bind or overlay shows.
    pub(crate) fn bind_source(&self, index: usize) -> Option<&'a CStr> {
        let mut sources = self.entries().filter_map(|entry| match entry {
            Entry::Bind { source, .. } | Entry::Overlay { source, .. } => Some(source),
            _ => None,
        });
        sources.nth(index)
    }

    /// The system call filter's program, if there is one.
    pub(crate) fn filter(&self) -> Option<&'a [u8]> {
        self.entries().find_map(|entry| match entry {
            Entry::Filter { program } => Some(program),
            _ => None,
        })
    }

    /// The modules of the interpreter whose fork the program will be.
    pub(crate) fn interpreter(&self) -> Option<&'a CStr> {
        self.entries().find_map(|entry| match entry {
            Entry::Interpreter { modules } => Some(modules),
            _ => None,
        })
    }

    fn check(&self) -> bool {
        let mut rest = self.entries;
        let mut interpreters = 0_usize;
        let (mut binds, mut overlays, mut filters) = (0_usize, 0_usize, 0_usize);
        while !rest.is_empty() {
            match entry(&mut rest) {
                Some(Entry::Bind { .. }) => binds = binds.saturating_add(1),
                Some(Entry::Overlay { .. }) => overlays = overlays.saturating_add(1),
                Some(Entry::Filter { .. }) => filters = filters.saturating_add(1),
                Some(Entry::Interpreter { .. }) if !self.minimal && !self.learn => {
                    interpreters = interpreters.saturating_add(1);
                }
                Some(Entry::Tmpfs { .. } | Entry::OverlayOptions { .. }) if !self.minimal => {}
                _ => return false,
            }
        }
        if interpreters > 1 {
            return false;
        }
        let none_at_minimal = !self.minimal || binds.saturating_add(overlays) == 0;
        none_at_minimal && filters <= 1 && overlays <= 1 && binds <= limits::MAX_BINDS
    }
}

impl<'a> Order<'a> {
    /// Checks the whole order, so that [`Order::entries`] can't meet a malformed one later.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        if bytes.len() > limits::MAX_PLAN_BYTES
            || reader.u32()? != ORDER_MAGIC
            || reader.u16()? != VERSION
        {
            return None;
        }
        let flags = reader.u16()?;
        if flags & !REHEARSE != 0 {
            return None;
        }
        let order = Self {
            rehearse: flags & REHEARSE != 0,
            wall_nanoseconds: reader.u64()?,
            entries: reader,
        };
        order.check().then_some(order)
    }

    /// The entries in their order.
    pub(crate) fn entries(&self) -> Entries<'a> {
        Entries { rest: self.entries }
    }

    fn check(&self) -> bool {
        let mut rest = self.entries;
        let (mut arguments, mut candidates, mut directories) = (0_usize, 0_usize, 0_usize);
        while !rest.is_empty() {
            match entry(&mut rest) {
                Some(Entry::Argument { .. }) => arguments = arguments.saturating_add(1),
                Some(Entry::Candidate { .. }) => candidates = candidates.saturating_add(1),
                Some(Entry::StartDirectory { .. }) => directories = directories.saturating_add(1),
                Some(Entry::Variable { .. }) => {}
                _ => return false,
            }
        }
        arguments <= limits::MAX_ARGUMENTS.saturating_add(1) && candidates > 0 && directories == 1
    }
}

/// Iterator over checked entries.
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
    if kind == FILTER {
        let (nul, program) = reader.bytes(first)?.split_last()?;
        let whole = program.len().checked_rem(FILTER_INSTRUCTION) == Some(0);
        return (*nul == 0 && second == 0 && whole && !program.is_empty())
            .then_some(Entry::Filter { program });
    }
    let text = reader.string(first)?;
    let entry = match kind {
        BIND if flags & !WRITABLE == 0 => Entry::Bind {
            source: text,
            target: reader.string(second)?,
            access: BindAccess { writable: flags & WRITABLE != 0 },
        },
        OVERLAY => Entry::Overlay { source: text, target: reader.string(second)? },
        TMPFS => Entry::Tmpfs { target: text, options: reader.string(second)? },
        _ if second != 0 => return None,
        OVERLAY_OPTIONS => Entry::OverlayOptions { options: text },
        START_DIRECTORY => Entry::StartDirectory { path: text },
        CANDIDATE => Entry::Candidate { path: text },
        ARGUMENT => Entry::Argument { text },
        VARIABLE => Entry::Variable { text },
        INTERPRETER => Entry::Interpreter { modules: text },
        _ => return None,
    };
    Some(entry)
}

/// Detached mounts of one plan: the profile's binds, and its overlay.
pub(crate) const MAX_PLAN_BINDS: usize = limits::MAX_BINDS.saturating_add(1);
/// The size of the kernel's `sock_filter`.
const FILTER_INSTRUCTION: usize = 8;

pub(super) const PLAN_MAGIC: u32 = 0x4C50_464E;
pub(super) const ORDER_MAGIC: u32 = 0x524F_464E;
pub(super) const VERSION: u16 = 2;
pub(super) const MINIMAL: u16 = 1;
pub(super) const LOOPBACK: u16 = 1 << 1;
pub(super) const EGRESS: u16 = 1 << 2;
pub(super) const QUIET: u16 = 1 << 3;
pub(super) const NO_PROC: u16 = 1 << 4;
pub(super) const BARE_PROC: u16 = 1 << 5;
pub(super) const GROUPS: u16 = 1 << 6;
pub(super) const LEARN: u16 = 1 << 7;
pub(super) const NO_EXECUTE: u16 = 1 << 8;
pub(super) const AHEAD: u16 = 1 << 9;
const ALL_FLAGS: u16 = (1 << 10) - 1;
pub(super) const REHEARSE: u16 = 1;
pub(super) const WRITABLE: u8 = 1;
pub(super) const BIND: u8 = 2;
pub(super) const OVERLAY: u8 = 3;
pub(super) const TMPFS: u8 = 4;
pub(super) const FILTER: u8 = 5;
pub(super) const START_DIRECTORY: u8 = 6;
pub(super) const CANDIDATE: u8 = 7;
pub(super) const ARGUMENT: u8 = 8;
pub(super) const VARIABLE: u8 = 9;
pub(super) const OVERLAY_OPTIONS: u8 = 10;
pub(super) const INTERPRETER: u8 = 11;

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::{
        level::Level,
        noise::Noise,
        plan::{Means, Purpose, order, plan},
        profile::Profile,
        program::Program,
    };

    fn profile() -> Profile {
        Profile::builder(Level::Standard).bind_ro("/srv", "/srv").build().unwrap()
    }

    fn samples() -> [Vec<u8>; 2] {
        let filter = [7; 64];
        let means = Means { landlock: 3, groups: true, filter: Some(&filter), ..Means::default() };
        let program = Program::new("sh").arg("-c");
        [plan(&profile(), &means).unwrap(), order(&profile(), &program, Purpose::Run).unwrap()]
    }

    fn entries_of(bytes: &[u8]) -> Option<Entries<'_>> {
        Plan::parse(bytes)
            .map(|plan| plan.entries())
            .or_else(|| Order::parse(bytes).map(|order| order.entries()))
    }

    #[test]
    fn every_cut_is_refused_or_still_complete() {
        for bytes in samples() {
            for length in 0..bytes.len() {
                if let Some(entries) = entries_of(&bytes[..length]) {
                    entries.for_each(drop);
                }
            }
            assert!(entries_of(&bytes).is_some_and(|entries| entries.count() > 2));
        }
    }

    #[test]
    fn damage_never_panics_and_entries_agree_with_the_check() {
        let mut noise = Noise::new(3);
        for clean in samples() {
            for _ in 0..30_000 {
                let mut bytes = clean.clone();
                for _ in 0..=noise.next() % 4 {
                    let at = usize::try_from(noise.next()).unwrap() % bytes.len();
                    bytes[at] = noise.next().to_le_bytes()[0];
                }
                if let Some(mut rest) = entries_of(&bytes) {
                    while rest.next().is_some() {}
                    assert!(rest.rest.is_empty(), "the iterator stopped early");
                }
            }
        }
    }

    #[test]
    fn a_plan_is_no_order_and_noise_is_neither() {
        let [plan, order] = samples();
        assert!(Order::parse(&plan).is_none() && Plan::parse(&order).is_none());
        let mut noise = Noise::new(11);
        for _ in 0..20_000 {
            assert!(entries_of(&noise.bytes(400)).is_none());
        }
    }

    #[test]
    fn bind_sources_are_counted_in_order() {
        let [bytes, _] = samples();
        let plan = Plan::parse(&bytes).unwrap();
        assert_eq!(plan.bind_source(0), Some(c"/srv"));
        assert_eq!(plan.bind_source(1), None);
        assert_eq!(plan.filter().map(<[u8]>::len), Some(64));
    }
}
