//! Frames survive the wire in any pieces, and hostile bytes are refused.

#![expect(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "a test may panic")]

use proptest::prelude::*;

use super::*;

/// The frame's bytes as a sender writes them.
fn written(header: &FrameHeader, name: &str, archive: &[u8]) -> Vec<u8> {
    let header =
        FrameHeader { name_bytes: name.len(), archive_bytes: archive.len(), ..header.clone() };
    let mut bytes = header.encode().to_vec();
    for part in [name.as_bytes(), archive] {
        bytes.extend_from_slice(part);
        bytes.extend_from_slice(&ZEROS[..padded(part.len()) - part.len()]);
    }
    assert_eq!(bytes.len(), header.frame_bytes());
    bytes
}

fn request() -> FrameHeader {
    FrameHeader {
        schema: 3,
        message: MessageId::of("test.ping"),
        remaining: Some(Duration::from_millis(1_500)),
        budget: 77,
        trace: TraceContext::root(true),
        hops: 4,
        lane: 1,
        sequence: 9,
        key: CallKey::of("order 17"),
        generation: 2,
        code: 5,
        ..FrameHeader::new(Kind::Request, 42)
    }
}

#[test]
fn every_field_survives() {
    let header = FrameHeader { name_bytes: 4, archive_bytes: 100, ..request() };
    assert_eq!(FrameHeader::decode(&header.encode()).unwrap(), header);
    for kind in Kind::ALL {
        let header = FrameHeader::new(kind, 1);
        assert_eq!(FrameHeader::decode(&header.encode()).unwrap(), header);
    }
    let forever = FrameHeader { remaining: Some(Duration::MAX), ..request() };
    let read = FrameHeader::decode(&forever.encode()).unwrap();
    assert_eq!(read.remaining, Some(Duration::from_micros(LONGEST_MICROS)));
}

#[test]
fn what_is_wrong_has_a_name() {
    let good = request().encode();
    let with = |at: usize, byte: u8| {
        let mut bytes = good;
        bytes[at] = byte;
        FrameHeader::decode(&bytes).unwrap_err()
    };
    assert_eq!(with(0, b'X'), FrameError::Magic);
    assert_eq!(with(4, 9), FrameError::Version { found: 9 });
    assert_eq!(with(5, 0), FrameError::Kind { found: 0 });
    assert_eq!(with(6, 2), FrameError::Reserved);
    let keyed = FrameHeader { key: CallKey::of("one"), ..FrameHeader::new(Kind::Notice, 0) };
    assert_eq!(FrameHeader::decode(&keyed.encode()), Err(FrameError::Reserved));
    assert_eq!(with(HEADER_BYTES - 1, 1), FrameError::Reserved);
    assert_eq!(with(11, 0xff), FrameError::TooLarge { bytes: 0xff00_0000 });
    assert_eq!(with(13, 1), FrameError::NameTooLong { bytes: 256 });
    let body = FrameHeader { archive_bytes: 1, ..FrameHeader::new(Kind::Cancel, 1) };
    assert_eq!(FrameHeader::decode(&body.encode()), Err(FrameError::Body { kind: 6 }));
}

#[test]
fn a_frame_of_another_size_than_allowed_here_is_refused_before_its_archive() {
    let bytes = written(&request(), "echo", &[1; 100]);
    let refused = Decoder::new(99).next(&mut &bytes[..HEADER_BYTES]).unwrap_err();
    assert_eq!(refused, FrameError::TooLarge { bytes: 100 });
}

#[test]
fn a_declared_length_alone_allocates_nothing() {
    let header = FrameHeader { archive_bytes: MAX_MESSAGE_BYTES, ..request() };
    let mut decoder = Decoder::new(MAX_MESSAGE_BYTES);
    assert!(decoder.next(&mut header.encode().as_slice()).unwrap().is_none());
    assert_eq!(decoder.open.as_ref().unwrap().archive.capacity(), 0);
    decoder.next(&mut [1; 1_000].as_slice()).unwrap();
    assert!(decoder.open.as_ref().unwrap().archive.capacity() < 4_000);
}

proptest! {
    #[test]
    fn frames_come_out_as_they_went_in_whatever_the_pieces(
        frames in prop::collection::vec(("[a-z]{1,40}", prop::collection::vec(any::<u8>(), 0..200)), 1..8),
        pieces in prop::collection::vec(1_usize..300, 1..20),
    ) {
        let stream: Vec<u8> = frames
            .iter()
            .flat_map(|(name, archive)| written(&request(), name, archive))
            .collect();
        let mut decoder = Decoder::new(MAX_MESSAGE_BYTES);
        let (mut rest, mut seen) = (stream.as_slice(), Vec::new());
        let mut pieces = pieces.iter().cycle();
        while !rest.is_empty() {
            let (mut piece, after) = rest.split_at(rest.len().min(*pieces.next().unwrap()));
            rest = after;
            while let Some(frame) = decoder.next(&mut piece).unwrap() {
                seen.push((decoder.name().unwrap().to_owned(), frame.archive.to_vec()));
            }
            prop_assert!(piece.is_empty());
        }
        prop_assert!(decoder.is_idle());
        prop_assert_eq!(seen, frames);
    }

    #[test]
    fn any_bytes_are_refused_or_read_and_never_more_is_held_than_came(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        good in 0_usize..3,
    ) {
        let mut stream = Vec::new();
        for _ in 0..good {
            stream.extend(written(&request(), "a", b"bc"));
        }
        stream.extend(bytes);
        let mut decoder = Decoder::new(MAX_MESSAGE_BYTES);
        let mut input = stream.as_slice();
        let mut frames = 0;
        while let Ok(Some(_)) = decoder.next(&mut input) {
            frames += 1;
        }
        prop_assert!(frames >= good);
        let held = decoder.open.map_or(0, |open| open.archive.capacity());
        prop_assert!(held <= stream.len() * 2);
    }
}
