//! What host and zygote say to each other. Pure: bytes in, values out.
//!
//! Requests travel on the control socket, one datagram each, with descriptors beside them. Records
//! come back on a socket that belongs to one cell alone, from the zygote and from the cell's first
//! process, so that nobody has to tell the cells apart.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::time::Duration;

use super::wire::{Reader, Writer};
use crate::{
    account::{self, GroupUsage},
    errno::Errno,
    limits,
    report::{STAGES, Usage},
    step::Step,
};

/// What is asked for: most of it of the zygote, to run something of a prepared cell; to become a cell
/// the zygote asks of a first process in its stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request<'a> {
    /// Start a cell. Plan and order follow in the datagram. Descriptors: input, output, error,
    /// report.
    Launch { plan: &'a [u8], order: &'a [u8] },
    /// Start a cell. Plan and order are in a sealed memory file, which is the fifth descriptor.
    LaunchFromFile { plan: usize, length: usize },
    /// Try whether a process can start with these namespaces. Descriptor: report.
    Probe { namespaces: u64 },
    /// Keep cells with this plan ready. The plan follows in the datagram.
    Prepare { pool: Pool, plan: &'a [u8] },
    /// A prepared cell is about to be given an order, and has this much time (on the socket for claims,
    /// where nobody waits for it).
    Claimed { cell: u32, milliseconds: u32 },
    /// Run this. Descriptors: input, output, error.
    Run { order: &'a [u8] },
    /// Run what is in a sealed memory file, which is the fourth descriptor.
    RunFromFile { length: usize },
    /// Become a cell with this plan, and carry the order out. The time when that was asked for, plan
    /// and order follow in the datagram. Descriptors: input, output, error, report, and the plan's
    /// binds.
    Become { begun: u64, plan: &'a [u8], order: &'a [u8] },
    /// There are claims. Said first, it brings the socket that they come on.
    Heed,
}

/// How many cells of a plan are kept ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pool {
    /// The host's number for the plan.
    pub(crate) key: u16,
    pub(crate) least: u16,
    pub(crate) most: u16,
}

/// Header of a request: magic, version, kind, argument.
pub(crate) const REQUEST_HEADER: usize = 16;
/// The longest request.
pub(crate) const MAX_REQUEST: usize = 16 + 8 + limits::INLINE_PLAN_BYTES;

impl<'a> Request<'a> {
    pub(crate) fn header(self) -> [u8; REQUEST_HEADER] {
        // A length that doesn't fit makes a request that is refused.
        let short = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let (kind, argument): (u16, u64) = match self {
            Self::Launch { plan, .. } => (1, short(plan.len()).into()),
            Self::LaunchFromFile { plan, length } => (2, pair(short(plan), short(length))),
            Self::Probe { namespaces } => (3, namespaces),
            Self::Prepare { pool, .. } => {
                (4, pair(pool.key.into(), pair_short(pool.least, pool.most)))
            }
            Self::Claimed { cell, milliseconds } => (5, pair(cell, milliseconds)),
            Self::Run { .. } => (6, 0),
            Self::RunFromFile { length } => (7, short(length).into()),
            Self::Become { plan, .. } => (8, short(plan.len()).into()),
            Self::Heed => (9, 0),
        };
        let mut bytes = [0; REQUEST_HEADER];
        let mut writer = Writer::new(&mut bytes);
        writer.bytes(&REQUEST_MAGIC.to_le_bytes());
        writer.bytes(&VERSION.to_le_bytes());
        writer.bytes(&kind.to_le_bytes());
        writer.bytes(&argument.to_le_bytes());
        bytes
    }

    pub(crate) fn parse(datagram: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(datagram);
        if reader.u32()? != REQUEST_MAGIC || reader.u16()? != VERSION {
            return None;
        }
        let kind = reader.u16()?;
        let (low, high) = (reader.u32()?, reader.u32()?);
        let argument = pair(high, low);
        let body = reader.rest();
        match kind {
            1 if body.len() <= limits::INLINE_PLAN_BYTES => {
                let (plan, order) = body.split_at_checked(usize::try_from(argument).ok()?)?;
                Some(Self::Launch { plan, order })
            }
            2 if body.is_empty() => {
                let (plan, length) = (usize::try_from(high).ok()?, usize::try_from(low).ok()?);
                (plan <= length && length <= MAX_FILE)
                    .then_some(Self::LaunchFromFile { plan, length })
            }
            3 if body.is_empty() => Some(Self::Probe { namespaces: argument }),
            4 if body.len() <= limits::INLINE_PLAN_BYTES => {
                let [key, _] = split(high);
                let [most, least] = split(low);
                (u32::from(key) == high && least <= most)
                    .then_some(Self::Prepare { pool: Pool { key, least, most }, plan: body })
            }
            5 if body.is_empty() => Some(Self::Claimed { cell: high, milliseconds: low }),
            6 if argument == 0 && body.len() <= limits::INLINE_PLAN_BYTES => {
                Some(Self::Run { order: body })
            }
            7 if body.is_empty() => {
                let length = usize::try_from(argument).ok()?;
                (length <= limits::MAX_PLAN_BYTES).then_some(Self::RunFromFile { length })
            }
            8 => {
                let (begun, body) = body.split_first_chunk::<8>()?;
                let (plan, order) = body.split_at_checked(usize::try_from(argument).ok()?)?;
                (body.len() <= limits::INLINE_PLAN_BYTES).then_some(Self::Become {
                    begun: u64::from_le_bytes(*begun),
                    plan,
                    order,
                })
            }
            9 if argument == 0 && body.is_empty() => Some(Self::Heed),
            _ => None,
        }
    }
}

/// A file holds a plan and an order.
const MAX_FILE: usize = 2 * limits::MAX_PLAN_BYTES;

fn pair(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

fn pair_short(high: u16, low: u16) -> u32 {
    u32::from(high) << 16 | u32::from(low)
}

/// The low and the high half.
fn split(word: u32) -> [u16; 2] {
    let [a, b, c, d] = word.to_le_bytes();
    [u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])]
}

/// What comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Record {
    /// The zygote listens (sent once, on the control socket), and this is what the host's kernel
    /// gives. Beside it may come the pidfd of a stranger, and its lifeline.
    Hello { landlock: u32, filters: bool, groups: u64, own_ids: bool, mortal: bool },
    /// The first process exists; its pidfd comes beside the record, and the socket that listens for
    /// the proxy if there is one.
    Launched,
    /// A cell of the pool with this key is being built (sent on the control socket). Beside it come
    /// its report socket and its pidfd.
    Prepared { key: u16, cell: u32 },
    /// The cell stands around its first process, which is about to start the program.
    Built,
    /// A cell that was made ahead has ended without an order, or without having read it.
    Unused,
    /// The upper directory of the cell's overlay comes beside the record. This is the directory below it,
    /// which its path may not lead to any more.
    Overlay { device: u64, inode: u64 },
    /// The filter has refused a call (when learning: seen one) that often.
    Denied { number: u32, count: u32 },
    /// The program runs. Nanoseconds per stage.
    Started { stages: [u64; STAGES] },
    /// An interpreter's fork is in the cell and waits for its order.
    Joined,
    /// A cell that learns has made this call.
    Seen { number: u32, arguments: [u64; 6] },
    /// A step failed; nothing runs.
    Failed { step: Step, errno: Errno, detail: u32 },
    /// The program ended by itself.
    Ended { status: i32, usage: Usage },
    /// Both at once: the program was loaded, and has ended by itself.
    Ran { stages: [u64; STAGES], status: i32, usage: Usage },
    /// The first process is gone, and with it the whole cell. The last record.
    Reaped { cause: Cause, usage: Usage, groups: GroupUsage },
    /// The cell was killed, all of it, and isn't gone yet. The zygote is there, and goes on.
    Lasting,
    /// Answer to a probe; `None` says it works.
    Probed { errno: Option<Errno> },
}

/// Why the zygote ended a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It did not.
    None,
    /// The wall time was over.
    WallTime,
    /// The host let go of the report socket.
    Abandoned,
    /// The group ran out of memory and the kernel ended a process of it.
    Memory,
}

/// Runs every reader of what the three processes say to each other on the bytes; for the fuzzer.
///
/// ```text
/// cargo +nightly fuzz run launcher_protocol
/// ```
///
/// # Panics
///
/// When a record isn't read as it was written.
#[cfg(any(test, fuzzing))]
pub fn fuzz(bytes: &[u8]) {
    if let Some(record) = Record::parse(bytes) {
        assert_eq!(Record::parse(&record.encode()), Some(record), "it's read as it's written");
    }
    let inner = match Request::parse(bytes) {
        Some(Request::Launch { plan, order } | Request::Become { plan, order, .. }) => {
            [plan, order]
        }
        Some(Request::Prepare { plan, .. }) => [plan, plan],
        Some(Request::Run { order }) => [order, order],
        _ => [bytes, bytes],
    };
    for bytes in inner {
        if let Some(plan) = crate::plan::Plan::parse(bytes) {
            plan.entries().for_each(drop);
        }
        if let Some(order) = crate::plan::Order::parse(bytes) {
            order.entries().for_each(drop);
        }
    }
}

/// Every record has this size.
pub(crate) const RECORD: usize = 8 + 8 * WORDS;
const WORDS: usize = 24;
const RECORD_MAGIC: u32 = 0x5243_464E;
const REQUEST_MAGIC: u32 = 0x5143_464E;
const VERSION: u16 = 2;

impl Record {
    #[expect(clippy::many_single_char_names, reason = "the six arguments of a system call")]
    pub(crate) fn encode(self) -> [u8; RECORD] {
        let mut words = [0_u64; WORDS];
        let kind: u16 = match self {
            Self::Hello { landlock, filters, groups, own_ids, mortal } => {
                let (landlock, filters) = (landlock.into(), filters.into());
                fill(&mut words, [landlock, filters, groups, own_ids.into(), mortal.into()]);
                1
            }
            Self::Launched => 2,
            Self::Prepared { key, cell } => {
                fill(&mut words, [key.into(), cell.into()]);
                8
            }
            Self::Overlay { device, inode } => {
                fill(&mut words, [device, inode]);
                9
            }
            Self::Joined => 12,
            Self::Built => 14,
            Self::Unused => 15,
            Self::Lasting => 16,
            Self::Seen { number, arguments: [a, b, c, d, e, f] } => {
                fill(&mut words, [number.into(), a, b, c, d, e, f]);
                11
            }
            Self::Denied { number, count } => {
                fill(&mut words, [number.into(), count.into()]);
                10
            }
            Self::Started { stages } => {
                fill(&mut words, stages);
                3
            }
            Self::Failed { step, errno, detail } => {
                fill(&mut words, [step.number().into(), signed(errno.raw()), detail.into()]);
                4
            }
            Self::Ended { status, usage } => {
                let [user, system, resident] = usage_words(usage);
                fill(&mut words, [signed(status), user, system, resident]);
                5
            }
            Self::Ran { stages, status, usage } => {
                let [user, system, resident] = usage_words(usage);
                fill(&mut words, [signed(status), user, system, resident]);
                if let Some(rest) = words.get_mut(USAGE_WORDS..) {
                    fill(rest, stages);
                }
                13
            }
            Self::Reaped { cause, usage, groups } => {
                let [user, system, resident] = usage_words(usage);
                fill(&mut words, [cause.number(), user, system, resident]);
                if let Some(rest) = words.get_mut(USAGE_WORDS..) {
                    fill(rest, groups.to_words());
                }
                6
            }
            Self::Probed { errno } => {
                fill(&mut words, [errno.map_or(0, |errno| signed(errno.raw()))]);
                7
            }
        };
        let mut bytes = [0; RECORD];
        let mut writer = Writer::new(&mut bytes);
        writer.bytes(&RECORD_MAGIC.to_le_bytes());
        writer.bytes(&VERSION.to_le_bytes());
        writer.bytes(&kind.to_le_bytes());
        for word in words {
            writer.bytes(&word.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        if reader.u32()? != RECORD_MAGIC || reader.u16()? != VERSION {
            return None;
        }
        let kind = reader.u16()?;
        let mut words = [0_u64; WORDS];
        for word in &mut words {
            *word = reader.u64()?;
        }
        if !reader.is_empty() {
            return None;
        }
        let [first, second, third, fourth, fifth, ..] = words;
        match kind {
            1 => Some(Self::Hello {
                landlock: u32::try_from(first).ok()?,
                filters: second == 1,
                groups: third,
                own_ids: fourth == 1,
                mortal: fifth == 1,
            }),
            2 => Some(Self::Launched),
            8 => Some(Self::Prepared {
                key: u16::try_from(first).ok()?,
                cell: u32::try_from(second).ok()?,
            }),
            11 => {
                let mut arguments = [0; 6];
                for (into, from) in arguments.iter_mut().zip(words.iter().skip(1)) {
                    *into = *from;
                }
                Some(Self::Seen { number: u32::try_from(first).ok()?, arguments })
            }
            9 => Some(Self::Overlay { device: first, inode: second }),
            12 => Some(Self::Joined),
            14 => Some(Self::Built),
            15 => Some(Self::Unused),
            16 => Some(Self::Lasting),
            10 => Some(Self::Denied {
                number: u32::try_from(first).ok()?,
                count: u32::try_from(second).ok()?,
            }),
            3 => {
                let mut stages = [0; STAGES];
                fill(&mut stages, words);
                Some(Self::Started { stages })
            }
            4 => Some(Self::Failed {
                step: Step::from_number(u16::try_from(first).ok()?)?,
                errno: Errno::from_raw(unsigned(second)?),
                detail: u32::try_from(third).ok()?,
            }),
            5 => Some(Self::Ended {
                status: unsigned(first)?,
                usage: usage([second, third, fourth]),
            }),
            13 => {
                let mut stages = [0; STAGES];
                for (into, from) in stages.iter_mut().zip(words.iter().skip(USAGE_WORDS)) {
                    *into = *from;
                }
                Some(Self::Ran {
                    stages,
                    status: unsigned(first)?,
                    usage: usage([second, third, fourth]),
                })
            }
            6 => {
                let mut groups = [0; account::WORDS];
                for (into, from) in groups.iter_mut().zip(words.iter().skip(USAGE_WORDS)) {
                    *into = *from;
                }
                Some(Self::Reaped {
                    cause: Cause::from_number(first)?,
                    usage: usage([second, third, fourth]),
                    groups: GroupUsage::from_words(&groups),
                })
            }
            7 => {
                let errno = unsigned(first)?;
                Some(Self::Probed { errno: (errno != 0).then_some(Errno::from_raw(errno)) })
            }
            _ => None,
        }
    }
}

impl Cause {
    const fn number(self) -> u64 {
        match self {
            Self::None => 0,
            Self::WallTime => 1,
            Self::Abandoned => 2,
            Self::Memory => 3,
        }
    }

    const fn from_number(number: u64) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::WallTime),
            2 => Some(Self::Abandoned),
            3 => Some(Self::Memory),
            _ => None,
        }
    }
}

/// Cause and usage come before the groups' usage.
const USAGE_WORDS: usize = 4;

/// Copies as many words as both have.
fn fill<const N: usize>(into: &mut [u64], from: [u64; N]) {
    for (into, from) in into.iter_mut().zip(from) {
        *into = from;
    }
}

fn signed(value: i32) -> u64 {
    value.cast_unsigned().into()
}

fn unsigned(word: u64) -> Option<i32> {
    u32::try_from(word).ok().map(u32::cast_signed)
}

fn usage_words(usage: Usage) -> [u64; 3] {
    let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    [nanoseconds(usage.user), nanoseconds(usage.system), usage.peak_resident_bytes]
}

fn usage([user, system, peak_resident_bytes]: [u64; 3]) -> Usage {
    Usage {
        user: Duration::from_nanos(user),
        system: Duration::from_nanos(system),
        peak_resident_bytes,
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;

    fn records() -> Vec<Record> {
        let usage = Usage {
            user: Duration::from_nanos(5),
            system: Duration::from_micros(6),
            peak_resident_bytes: 7 << 20,
        };
        vec![
            Record::Hello { landlock: 7, filters: true, groups: 5, own_ids: true, mortal: true },
            Record::Launched,
            Record::Prepared { key: 3, cell: 9 },
            Record::Overlay { device: 7, inode: u64::MAX },
            Record::Joined,
            Record::Built,
            Record::Unused,
            Record::Seen { number: 16, arguments: [1, 2, 3, 4, 5, u64::MAX] },
            Record::Denied { number: 101, count: 7 },
            Record::Started { stages: std::array::from_fn(|index| index as u64) },
            Record::Failed { step: Step::Execute, errno: Errno::from_raw(2), detail: 9 },
            Record::Ended { status: 0x0100, usage },
            Record::Ended { status: -1, usage },
            Record::Ran { stages: std::array::from_fn(|index| index as u64), status: 9, usage },
            Record::Reaped {
                cause: Cause::WallTime,
                usage,
                groups: GroupUsage::from_words(&std::array::from_fn(|index| index as u64)),
            },
            Record::Probed { errno: None },
            Record::Probed { errno: Some(Errno::from_raw(1)) },
        ]
    }

    #[test]
    fn records_round_trip() {
        for record in records() {
            assert_eq!(Record::parse(&record.encode()), Some(record));
        }
    }

    #[test]
    fn requests_round_trip() {
        let pool = Pool { key: 7, least: 2, most: 9 };
        let requests = [
            Request::Launch { plan: b"abc", order: b"de" },
            Request::LaunchFromFile { plan: 3, length: 5 },
            Request::Probe { namespaces: 1 << 40 },
            Request::Prepare { pool, plan: b"abc" },
            Request::Claimed { cell: 77, milliseconds: u32::MAX },
            Request::Run { order: b"de" },
            Request::RunFromFile { length: 5 },
            Request::Become { begun: 77, plan: b"abc", order: b"de" },
            Request::Heed,
        ];
        for request in requests {
            let mut datagram = request.header().to_vec();
            match request {
                Request::Launch { plan, order } => datagram.extend([plan, order].concat()),
                Request::Prepare { plan, .. } => datagram.extend(plan),
                Request::Run { order } => datagram.extend(order),
                Request::Become { begun, plan, order } => {
                    datagram.extend(begun.to_le_bytes());
                    datagram.extend([plan, order].concat());
                }
                _ => {}
            }
            assert_eq!(Request::parse(&datagram), Some(request));
        }
    }

    #[test]
    fn lengths_are_bounded() {
        let long = Request::LaunchFromFile { plan: 0, length: MAX_FILE + 1 };
        assert_eq!(Request::parse(&long.header()), None);
        let long = Request::RunFromFile { length: limits::MAX_PLAN_BYTES + 1 };
        assert_eq!(Request::parse(&long.header()), None);
        let split = Request::LaunchFromFile { plan: 6, length: 5 };
        assert_eq!(Request::parse(&split.header()), None);
        let mut launch = Request::Launch { plan: &[], order: &[] }.header().to_vec();
        launch.resize(MAX_REQUEST + 1, 0);
        assert_eq!(Request::parse(&launch), None);
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_an_answer() {
        for record in records() {
            let bytes = record.encode();
            for length in 0..bytes.len() {
                assert_eq!(Record::parse(&bytes[..length]), None);
            }
            for bit in 0..bytes.len() * 8 {
                let mut damaged = bytes;
                damaged[bit / 8] ^= 1 << (bit % 8);
                if let Some(other) = Record::parse(&damaged) {
                    assert_eq!(Record::parse(&other.encode()), Some(other));
                }
            }
        }
    }

    #[test]
    fn noise_is_refused() {
        let mut noise = crate::noise::Noise::new(7);
        for _ in 0..20_000 {
            let bytes = noise.bytes(200);
            assert_eq!(Request::parse(&bytes), None);
            assert_eq!(Record::parse(&bytes), None);
        }
    }
}
