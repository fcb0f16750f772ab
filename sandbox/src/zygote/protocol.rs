//! What host and zygote say to each other. Pure: bytes in, values out.
//!
//! Requests travel on the control socket, one datagram each, with descriptors beside them. Records
//! come back on a socket that belongs to one cell alone, from the zygote and from the cell's first
//! process, so that nobody has to tell the cells apart.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::time::Duration;

use super::wire::{Reader, Writer};
use crate::{
    errno::Errno,
    limits,
    report::{STAGES, Usage},
    step::Step,
};

/// What the host asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request<'a> {
    /// Start a cell. The plan follows in the datagram. Descriptors: input, output, error, report.
    Launch { plan: &'a [u8] },
    /// Start a cell. The plan is in a sealed memory file, which is the fifth descriptor.
    LaunchFromFile { length: usize },
    /// Try whether a process can start with these namespaces. Descriptor: report.
    Probe { namespaces: u64 },
}

/// Header of a request: magic, version, kind, argument.
pub(crate) const REQUEST_HEADER: usize = 16;
/// The longest request.
pub(crate) const MAX_REQUEST: usize = 16 + limits::INLINE_PLAN_BYTES;

impl<'a> Request<'a> {
    pub(crate) fn header(self) -> [u8; REQUEST_HEADER] {
        let (kind, argument): (u16, u64) = match self {
            Self::Launch { .. } => (1, 0),
            Self::LaunchFromFile { length } => (2, u64::try_from(length).unwrap_or(u64::MAX)),
            Self::Probe { namespaces } => (3, namespaces),
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
        let argument = reader.u64()?;
        let body = reader.rest();
        match kind {
            1 if argument == 0 && body.len() <= limits::INLINE_PLAN_BYTES => {
                Some(Self::Launch { plan: body })
            }
            2 if body.is_empty() => {
                let length = usize::try_from(argument).ok()?;
                (length <= limits::MAX_PLAN_BYTES).then_some(Self::LaunchFromFile { length })
            }
            3 if body.is_empty() => Some(Self::Probe { namespaces: argument }),
            _ => None,
        }
    }
}

/// What comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Record {
    /// The zygote listens (sent once, on the control socket).
    Hello,
    /// The first process exists; its pidfd comes beside the record.
    Launched,
    /// The program runs. Nanoseconds per stage.
    Started { stages: [u64; STAGES] },
    /// A step failed; nothing runs.
    Failed { step: Step, errno: Errno, detail: u32 },
    /// The program ended by itself.
    Ended { status: i32, usage: Usage },
    /// The first process is gone, and with it the whole cell. The last record.
    Reaped { cause: Cause, usage: Usage },
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
}

/// Every record has this size.
pub(crate) const RECORD: usize = 8 + 8 * WORDS;
const WORDS: usize = 10;
const RECORD_MAGIC: u32 = 0x5243_464E;
const REQUEST_MAGIC: u32 = 0x5143_464E;
const VERSION: u16 = 1;

impl Record {
    pub(crate) fn encode(self) -> [u8; RECORD] {
        let mut words = [0_u64; WORDS];
        let kind: u16 = match self {
            Self::Hello => 1,
            Self::Launched => 2,
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
            Self::Reaped { cause, usage } => {
                let [user, system, resident] = usage_words(usage);
                fill(&mut words, [cause.number(), user, system, resident]);
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
        let [first, second, third, fourth, ..] = words;
        match kind {
            1 => Some(Self::Hello),
            2 => Some(Self::Launched),
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
            6 => Some(Self::Reaped {
                cause: Cause::from_number(first)?,
                usage: usage([second, third, fourth]),
            }),
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
        }
    }

    const fn from_number(number: u64) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::WallTime),
            2 => Some(Self::Abandoned),
            _ => None,
        }
    }
}

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
            Record::Hello,
            Record::Launched,
            Record::Started { stages: std::array::from_fn(|index| index as u64) },
            Record::Failed { step: Step::Execute, errno: Errno::from_raw(2), detail: 9 },
            Record::Ended { status: 0x0100, usage },
            Record::Ended { status: -1, usage },
            Record::Reaped { cause: Cause::WallTime, usage },
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
        let mut launch = Request::Launch { plan: b"abc" }.header().to_vec();
        launch.extend_from_slice(b"abc");
        assert_eq!(Request::parse(&launch), Some(Request::Launch { plan: b"abc" }));
        for request in
            [Request::LaunchFromFile { length: 5 }, Request::Probe { namespaces: 1 << 40 }]
        {
            assert_eq!(Request::parse(&request.header()), Some(request));
        }
    }

    #[test]
    fn lengths_are_bounded() {
        let long = Request::LaunchFromFile { length: limits::MAX_PLAN_BYTES + 1 };
        assert_eq!(Request::parse(&long.header()), None);
        let mut launch = Request::Launch { plan: &[] }.header().to_vec();
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
