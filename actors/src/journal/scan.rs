//! What a segment's bytes hold: whole appends, damage between them, and where a crash has cut.
//! Pure.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use super::codec::{self, MORE, Record};

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

/// Tells what `bytes` hold from offset `from` on; `last` if nothing can follow this segment.
/// Returns the offset behind the last whole append.
pub(super) fn scan<'a>(
    bytes: &'a [u8],
    from: usize,
    last: bool,
    mut tell: impl FnMut(Found<'a, '_>),
) -> usize {
    let (mut at, mut whole) = (from, from);
    let mut group: Vec<Placed<'a>> = Vec::new();
    while at < bytes.len() {
        if let Ok(record) = codec::read(bytes.get(at..).unwrap_or_default()) {
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
        let Some(next) = next_record(bytes, at.saturating_add(codec::ALIGN)) else { break };
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
        } else {
            // Another segment was begun after this one, so all of this was answered.
            if !group.is_empty() {
                tell(Found::Append(&group));
            }
            if at < bytes.len() {
                tell(Found::Damage { offset: at, bytes: bytes.len().saturating_sub(at) });
            }
        }
    }
    whole
}

/// The next place from `from` on where a record can be read.
fn next_record(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at = codec::next_magic(bytes, at)?;
        if codec::read(bytes.get(at..)?).is_ok() {
            return Some(at);
        }
        at = at.checked_add(codec::ALIGN)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::TaskState;
    use crate::journal::EntryKind;
    use crate::journal::codec::{Head, Position, RecordKind};
    use neuroflow_kernel::MessageId;

    /// Appends of one, two and one records.
    fn log() -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut offsets) = (Vec::new(), Vec::new());
        for (number, flags) in [(1, 0), (2, MORE), (3, 0), (4, 0)] {
            offsets.push(bytes.len());
            let head = Head {
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
            };
            codec::write(&mut bytes, &head, b"some content");
        }
        (bytes, offsets)
    }

    fn told(bytes: &[u8], last: bool) -> (Vec<String>, usize) {
        let mut told = Vec::new();
        let whole = scan(bytes, 0, last, |found| {
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
        let (bytes, _) = log();
        assert_eq!(
            told(&bytes, true),
            (vec!["[1]".into(), "[2, 3]".into(), "[4]".into()], bytes.len())
        );
    }

    #[test]
    fn every_cut_ends_at_the_append_before_it() {
        let (bytes, offsets) = log();
        for cut in 1..bytes.len() {
            let (_, whole) = told(&bytes[..cut], true);
            let expected = [offsets[3], offsets[1], 0].into_iter().find(|at| *at <= cut).unwrap();
            assert_eq!(whole, expected, "cut at {cut}");
        }
        let (told, _) = told(&bytes[..offsets[2] + 8], true);
        assert_eq!(told, ["[1]", &format!("torn {}, 1 known", offsets[2] + 8 - offsets[1])]);
    }

    #[test]
    fn damage_in_the_middle_loses_nothing_else() {
        let (mut bytes, offsets) = log();
        bytes[offsets[1] + 20] ^= 4;
        let damage = format!("damage {}", offsets[2] - offsets[1]);
        assert_eq!(told(&bytes, true).0, ["[1]", &damage, "[3]", "[4]"]);
    }

    #[test]
    fn damage_at_the_end_of_a_segment_that_others_follow_is_no_torn_end() {
        let (mut bytes, offsets) = log();
        bytes[offsets[3]] ^= 4;
        let damage = format!("damage {}", bytes.len() - offsets[3]);
        assert_eq!(told(&bytes, false).0, ["[1]", "[2, 3]", &damage]);
    }
}
