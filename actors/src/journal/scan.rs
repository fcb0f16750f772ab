//! What a segment's bytes hold: whole appends, damage between them, and where a crash has cut.
//! Pure.
//!
//! Behind damage the next record is searched for, in contents too, because the length of what is damaged isn't
//! known. Contents are what clients have sent: only the salt tells a record from what looks like one. In a segment
//! without, of the first version, nothing is searched for. There damage costs the record if it's one flipped bit of
//! a head, by which the length is known again, and else the rest of the segment.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use super::codec::{self, Fault, MORE, Record};
use super::heading::Salt;

/// A record and its offset.
pub(super) type Placed<'a> = (usize, Record<'a>);

/// What a scan comes across.
#[derive(Debug)]
pub(super) enum Found<'a, 'b> {
    /// The records of one append; not all of them, if damage follows.
    Append(&'b [Placed<'a>]),
    /// Bytes that aren't records.
    Damage { offset: usize, bytes: usize },
    /// The end of the log, which a crash has cut short: the append was never answered. What of it
    /// could be read is there too.
    Torn { offset: usize, bytes: usize, known: &'b [Placed<'a>] },
}

/// Tells what `bytes` with a salt hold from offset `from` on; `last` if nothing can follow this segment.
/// Returns the offset behind which they are torn.
pub(super) fn scan<'a>(
    (bytes, salt): (&'a [u8], Salt),
    from: usize,
    mut last: bool,
    mut tell: impl FnMut(Found<'a, '_>),
) -> usize {
    let (mut at, mut whole) = (from, from);
    let mut group: Vec<Placed<'a>> = Vec::new();
    while at < bytes.len() {
        let fault = match codec::read(bytes.get(at..).unwrap_or_default(), salt) {
            Ok(record) => {
                let more = record.head.flags & MORE != 0;
                group.push((at, record));
                at = at.saturating_add(record.len);
                if !more {
                    tell(Found::Append(&group));
                    group.clear();
                    whole = at;
                }
                continue;
            }
            Err(fault) => fault,
        };
        // All that follows is the content of this one.
        if fault == Fault::Cut {
            break;
        }
        let behind = next_record(bytes, at.saturating_add(codec::ALIGN), salt);
        let next =
            if salt.is_none() { behind.and_then(|_| after_a_bit(bytes, at)) } else { behind };
        let Some(next) = next else {
            // What is behind may have been answered, and stays where it is.
            last &= behind.is_none();
            break;
        };
        if !group.is_empty() {
            tell(Found::Append(&group));
            group.clear();
        }
        tell(Found::Damage { offset: at, bytes: next.saturating_sub(at) });
        (at, whole) = (next, next);
    }
    if whole < bytes.len() {
        let left = bytes.len().saturating_sub(whole);
        if last {
            tell(Found::Torn { offset: whole, bytes: left, known: &group });
            return whole;
        }
        // Another segment was begun after this one, so all of this was answered.
        if !group.is_empty() {
            tell(Found::Append(&group));
        }
        if at < bytes.len() {
            tell(Found::Damage { offset: at, bytes: bytes.len().saturating_sub(at) });
        }
    }
    bytes.len()
}

/// The next place from `from` on where a record can be read.
fn next_record(bytes: &[u8], from: usize, salt: Salt) -> Option<usize> {
    let mut at = from;
    loop {
        at = codec::next_mark(bytes, at, salt)?;
        if codec::read(bytes.get(at..)?, salt).is_ok() {
            return Some(at);
        }
        at = at.checked_add(codec::ALIGN)?;
    }
}

/// The place behind a record without salt in whose head a bit is flipped, if anything is there.
fn after_a_bit(bytes: &[u8], at: usize) -> Option<usize> {
    let next = at.checked_add(codec::len_but_for_a_bit(bytes.get(at..)?)?)?;
    (next < bytes.len()).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::EntryKind;
    use crate::journal::TaskState;
    use crate::journal::codec::{Head, Position, RecordKind};
    use neuroflow_kernel::MessageId;

    const SALT: Salt = Salt::of(*b"pinchful");

    fn head(number: u64, flags: u8) -> Head<'static> {
        Head {
            kind: RecordKind::Entry(EntryKind::Event),
            flags,
            state: TaskState::Working,
            message: MessageId::of("test"),
            version: 1,
            number,
            generation: number,
            at_ms: 0,
            previous: Position::default(),
            agent: "a",
            task: "t",
            context: "",
            caller: "",
            key: "",
        }
    }

    /// Appends of one, two and one records.
    fn log(salt: Salt) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut offsets) = (Vec::new(), Vec::new());
        for (number, flags) in [(1, 0), (2, MORE), (3, 0), (4, 0)] {
            offsets.push(bytes.len());
            codec::write(&mut bytes, salt, &head(number, flags), b"some content");
        }
        (bytes, offsets)
    }

    /// Three appends, the second with a content that holds a record.
    fn log_with_a_record_in_it(salt: Salt, of: Salt) -> (Vec<u8>, Vec<usize>) {
        let mut content = vec![0; 16];
        codec::write(&mut content, of, &head(77, 0), b"forged");
        content.extend(b"and so on");
        let (mut bytes, mut offsets) = (Vec::new(), Vec::new());
        for number in 1..=3 {
            offsets.push(bytes.len());
            let body: &[u8] = if number == 2 { &content } else { b"some content" };
            codec::write(&mut bytes, salt, &head(number, 0), body);
        }
        (bytes, offsets)
    }

    fn told(bytes: &[u8], salt: Salt, last: bool) -> (Vec<String>, usize) {
        let mut told = Vec::new();
        let whole = scan((bytes, salt), 0, last, |found| {
            told.push(match found {
                Found::Append(group) => {
                    let numbers: Vec<u64> = group.iter().map(|(_, r)| r.head.number).collect();
                    format!("{numbers:?}")
                }
                Found::Damage { bytes, .. } => format!("damage {bytes}"),
                Found::Torn { bytes, known, .. } => format!("torn {bytes}, {} known", known.len()),
            });
        });
        (told, whole)
    }

    #[test]
    fn appends_come_whole() {
        for salt in [SALT, Salt::NONE] {
            let (bytes, _) = log(salt);
            let (told, whole) = told(&bytes, salt, true);
            assert_eq!(
                (told, whole),
                (vec!["[1]".into(), "[2, 3]".into(), "[4]".into()], bytes.len())
            );
        }
    }

    #[test]
    fn every_cut_ends_at_the_append_before_it() {
        for salt in [SALT, Salt::NONE] {
            let (bytes, offsets) = log(salt);
            for cut in 1..bytes.len() {
                let (_, whole) = told(&bytes[..cut], salt, true);
                let ends = [offsets[3], offsets[1], 0].into_iter();
                let expected = ends.into_iter().find(|at| *at <= cut).unwrap();
                assert_eq!(whole, expected, "cut at {cut}");
            }
            let (told, _) = told(&bytes[..offsets[2] + 8], salt, true);
            assert_eq!(told, ["[1]", &format!("torn {}, 1 known", offsets[2] + 8 - offsets[1])]);
        }
    }

    #[test]
    fn a_flipped_bit_in_the_middle_loses_nothing_else() {
        for salt in [SALT, Salt::NONE] {
            let (mut bytes, offsets) = log(salt);
            bytes[offsets[1] + 20] ^= 4;
            let damage = format!("damage {}", offsets[2] - offsets[1]);
            assert_eq!(told(&bytes, salt, true).0, ["[1]", &damage, "[3]", "[4]"]);
        }
    }

    #[test]
    fn damage_at_the_end_of_a_segment_that_others_follow_is_no_torn_end() {
        for salt in [SALT, Salt::NONE] {
            let (mut bytes, offsets) = log(salt);
            bytes[offsets[3]] ^= 4;
            let damage = format!("damage {}", bytes.len() - offsets[3]);
            assert_eq!(told(&bytes, salt, false).0, ["[1]", "[2, 3]", &damage]);
        }
    }

    #[test]
    fn what_a_torn_content_holds_is_no_record() {
        // Not even if a client knew the salt.
        for salt in [SALT, Salt::NONE] {
            let (bytes, offsets) = log_with_a_record_in_it(salt, salt);
            let torn = &bytes[..offsets[2] - 8];
            let left = torn.len() - offsets[1];
            let expected = vec!["[1]".to_owned(), format!("torn {left}, 0 known")];
            assert_eq!(told(torn, salt, true), (expected, offsets[1]));
            assert_eq!(told(torn, salt, false).0, ["[1]", &format!("damage {left}")]);
        }
    }

    #[test]
    fn what_a_content_behind_a_damaged_head_holds_is_no_record() {
        let (mut bytes, offsets) = log_with_a_record_in_it(SALT, Salt::NONE);
        bytes[offsets[1]..offsets[1] + 80].fill(0);
        let damage = format!("damage {}", offsets[2] - offsets[1]);
        assert_eq!(told(&bytes, SALT, true).0, ["[1]", &damage, "[3]"]);

        // Without a salt it can't be told apart, and so nothing is taken, and nothing cut.
        let (mut bytes, offsets) = log_with_a_record_in_it(Salt::NONE, Salt::NONE);
        let mut flipped = bytes.clone();
        bytes[offsets[1]..offsets[1] + 80].fill(0);
        let rest = format!("damage {}", bytes.len() - offsets[1]);
        let len = bytes.len();
        assert_eq!(told(&bytes, Salt::NONE, true), (vec!["[1]".into(), rest], len));
        // But one flipped bit is known for what it is.
        flipped[offsets[1] + 40] ^= 1;
        assert_eq!(told(&flipped, Salt::NONE, true).0, ["[1]", &damage, "[3]"]);
    }
}
