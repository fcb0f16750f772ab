//! The first frame of each side, what both agree on, and which of two connections stays.

use std::cmp::Ordering;

use crate::frame::{FrameHeader, Kind};
use crate::limits::{LANE_CREDIT_BYTES, LANE_CREDIT_MESSAGES, LANES};

/// The oldest protocol that this build speaks.
pub(crate) const OLDEST: u16 = 1;
/// The newest protocol that this build speaks.
pub(crate) const NEWEST: u16 = 3;

/// What a node says of itself, once TLS has proved who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) oldest: u16,
    pub(crate) newest: u16,
    /// Which start of the node this is.
    pub(crate) incarnation: u64,
    pub(crate) lanes: u8,
    /// What it grants on each lane from the start.
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) name: String,
}

impl Hello {
    /// Of this build, which speaks nothing newer than `newest`.
    pub(crate) fn ours(incarnation: u64, name: &str, newest: u16) -> Self {
        Self {
            oldest: OLDEST,
            newest: newest.min(NEWEST),
            incarnation,
            lanes: LANES,
            messages: LANE_CREDIT_MESSAGES,
            bytes: LANE_CREDIT_BYTES,
            name: name.to_owned(),
        }
    }

    /// The header; the name follows it.
    pub(crate) fn to_header(&self) -> FrameHeader {
        FrameHeader {
            schema: self.oldest,
            generation: u32::from(self.newest),
            lane: self.lanes,
            sequence: u32::try_from(self.messages).unwrap_or(u32::MAX),
            budget: self.bytes,
            name_bytes: self.name.len(),
            ..FrameHeader::new(Kind::Hello, self.incarnation)
        }
    }

    pub(crate) fn from_frame(header: &FrameHeader, name: &str) -> Result<Self, HelloError> {
        if header.kind != Kind::Hello {
            return Err(HelloError::Silent);
        }
        Ok(Self {
            oldest: header.schema,
            newest: u16::try_from(header.generation).unwrap_or(u16::MAX),
            incarnation: header.id,
            lanes: header.lane,
            messages: u64::from(header.sequence),
            bytes: header.budget,
            name: neuroflow_kernel::Name::new(name)?.as_str().to_owned(),
        })
    }

    /// What both speak.
    pub(crate) fn agree(&self, theirs: &Self) -> Result<Agreed, HelloError> {
        let version = self.newest.min(theirs.newest);
        if version < self.oldest.max(theirs.oldest) {
            return Err(HelloError::Versions { oldest: theirs.oldest, newest: theirs.newest });
        }
        let lanes = self.lanes.min(theirs.lanes);
        if lanes == 0 || theirs.messages == 0 || theirs.bytes == 0 {
            return Err(HelloError::Nothing);
        }
        Ok(Agreed { version, lanes, messages: theirs.messages, bytes: theirs.bytes })
    }
}

/// What a connection works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) version: u16,
    pub(crate) lanes: u8,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

/// What an acceptor does with a connection of a proven peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It becomes the link; one that there was is closed, as its peer has given it up.
    Take,
    /// Our own dial is under way and stays.
    KeepOurs,
}

/// Breaks the tie when both dial: the dial of the node with the smaller id stays.
pub(crate) fn verdict(ours: &[u8; 32], theirs: &[u8; 32], dialling: bool) -> Verdict {
    match (dialling, ours.cmp(theirs)) {
        (true, Ordering::Less) => Verdict::KeepOurs,
        _ => Verdict::Take,
    }
}

/// Why two nodes that trust each other have no link.
///
/// ```
/// let error = neuroflow_transport::HelloError::Versions { oldest: 4, newest: 5 };
/// assert!(error.to_string().contains("4 to 5"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HelloError {
    /// There is no protocol that both speak.
    #[error("the peer speaks protocols {oldest} to {newest}; this build {OLDEST} to {NEWEST}")]
    Versions {
        /// The peer's oldest.
        oldest: u16,
        /// The peer's newest.
        newest: u16,
    },
    /// The peer offers no lanes or no credit.
    #[error("the peer grants nothing")]
    Nothing,
    /// The first frame is another.
    #[error("the peer's first frame isn't a hello")]
    Silent,
    /// The peer's name isn't one.
    #[error("the peer's name isn't valid")]
    Name(#[from] neuroflow_kernel::NameError),
}

/// Reads a hello, agrees with it if it can, and breaks ties; for the fuzzer.
///
/// ```sh
/// cargo +nightly fuzz run link_handshake
/// ```
///
/// # Panics
/// When the two ends agree on different things.
#[cfg(any(test, fuzzing))]
pub fn fuzz(bytes: &[u8]) {
    let mut decoder = crate::frame::Decoder::new(0);
    let mut input = bytes;
    let Ok(Some(frame)) = decoder.next(&mut input) else { return };
    let Ok(name) = decoder.name() else { return };
    let Ok(theirs) = Hello::from_frame(&frame.header, name) else { return };
    let ours = Hello::ours(1, "a", NEWEST);
    let (here, there) = (ours.agree(&theirs), theirs.agree(&ours));
    if let (Ok(here), Ok(there)) = (here, there) {
        assert_eq!((here.version, here.lanes), (there.version, there.lanes));
        assert!(here.version >= OLDEST && here.version <= NEWEST && here.lanes <= LANES);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hello(oldest: u16, newest: u16) -> Hello {
        Hello { oldest, newest, ..Hello::ours(7, "a", NEWEST) }
    }

    #[test]
    fn it_survives_the_wire() {
        let hello = Hello::ours(0xfeed, "node-a", NEWEST);
        let header = FrameHeader::decode(&hello.to_header().encode()).unwrap();
        assert_eq!(Hello::from_frame(&header, "node-a"), Ok(hello));
        assert!(matches!(Hello::from_frame(&header, "no/name"), Err(HelloError::Name(_))));
        let other = FrameHeader::new(Kind::Cancel, 1);
        assert_eq!(Hello::from_frame(&other, "a"), Err(HelloError::Silent));
    }

    /// Byte by byte, as `docs/PROTOCOL.md` has it for those who write another implementation.
    #[test]
    fn it_is_laid_out_as_the_document_says() {
        let hello = Hello { oldest: 2, newest: 3, lanes: 5, messages: 7, bytes: 9, ..hello(2, 3) };
        let mut expected = vec![0; 112];
        let fields: [(usize, &[u8]); 9] = [
            (0, b"NFLK"),
            (4, &[1, Kind::Hello as u8]),
            (12, &[1]),
            (14, &[2]),
            (16, &[7]),
            (32, &[0xff; 8]),
            (40, &[9]),
            (75, &[5, 7]),
            (96, &[3]),
        ];
        for (at, field) in fields {
            expected[at..at + field.len()].copy_from_slice(field);
        }
        assert_eq!(hello.to_header().encode().to_vec(), expected);
    }

    proptest! {
        #[test]
        fn both_agree_on_the_same_or_neither_does(
            a in (0_u16..6, 0_u16..4), b in (0_u16..6, 0_u16..4),
        ) {
            let (a, b) = (hello(a.0, a.0 + a.1), hello(b.0, b.0 + b.1));
            let here = a.agree(&b).map(|agreed| agreed.version).ok();
            let there = b.agree(&a).map(|agreed| agreed.version).ok();
            prop_assert_eq!(here, there);
            if let Some(version) = here {
                prop_assert!((a.oldest..=a.newest).contains(&version));
                prop_assert!((b.oldest..=b.newest).contains(&version));
            }
        }

        #[test]
        fn of_two_dials_exactly_one_stays(a in any::<[u8; 32]>(), b in any::<[u8; 32]>()) {
            prop_assume!(a != b);
            let kept = [verdict(&a, &b, true), verdict(&b, &a, true)];
            prop_assert_eq!(kept.iter().filter(|v| **v == Verdict::Take).count(), 1);
            prop_assert_eq!(verdict(&a, &b, false), Verdict::Take);
        }
    }
}
