//! The fuzz targets on the stable toolchain: the same functions, on damaged copies of what they read.
//! Reproducible, and short enough to run with every test; the fuzzer goes on from there.

use crate::frame::{self, FrameHeader, Kind, padded};
use crate::limits::REPLY_CREDIT_MESSAGES;
use crate::session::handshake::{self, Hello, NEWEST};
use crate::session::script;

/// Damaged copies of each seed.
const ROUNDS: u32 = 5_000;

/// Where each copy may be signed or verified, which takes a hundred times as long.
const ROUNDS_OF_SIGNATURES: u32 = 500;

/// A xorshift generator: the same seed gives the same bytes, so a failure repeats.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// A copy with a few bytes changed, lost, doubled or put in.
fn damaged(clean: &[u8], noise: &mut Noise) -> Vec<u8> {
    let mut bytes = clean.to_vec();
    for _ in 0..=noise.next() % 4 {
        let random = noise.next();
        let at = usize::try_from(random >> 32).unwrap() % (bytes.len() + 1);
        let byte = random.to_le_bytes()[0];
        match random % 5 {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, byte),
            2 => bytes.extend_from_within(at..),
            _ => {
                if let Some(place) = bytes.get_mut(at) {
                    *place = if random & 8 == 0 { byte } else { *place ^ (1 << (byte % 8)) };
                }
            }
        }
    }
    bytes
}

/// Each seed as it is, and damaged.
fn replay(seeds: &[Vec<u8>], target: impl Fn(&[u8])) {
    replay_rounds(seeds, ROUNDS, target);
}

fn replay_rounds(seeds: &[Vec<u8>], rounds: u32, target: impl Fn(&[u8])) {
    let mut noise = Noise(0x9E37_79B9_7F4A_7C15);
    for seed in seeds {
        target(seed);
        for _ in 0..rounds {
            target(&damaged(seed, &mut noise));
        }
    }
}

/// A frame as it's written.
fn written(header: &FrameHeader, name: &str, archive: &[u8]) -> Vec<u8> {
    let header =
        FrameHeader { name_bytes: name.len(), archive_bytes: archive.len(), ..header.clone() };
    let mut bytes = header.encode().to_vec();
    for part in [name.as_bytes(), archive] {
        bytes.extend_from_slice(part);
        bytes.resize(bytes.len() + padded(part.len()) - part.len(), 0);
    }
    bytes
}

#[test]
fn link_frames() {
    let of = |kind: Kind| match kind {
        Kind::Request | Kind::Notice => written(&FrameHeader::new(kind, 7), "echo", &[1; 40]),
        Kind::Reply => written(&FrameHeader::new(kind, 7), "", &[1; 40]),
        Kind::Hello => written(&FrameHeader::new(kind, 7), "node-a", &[]),
        _ => written(&FrameHeader::new(kind, 7), "", &[]),
    };
    let frames: Vec<Vec<u8>> = Kind::ALL.iter().map(|kind| of(*kind)).collect();
    // The first byte says in what pieces the others come.
    let mut seeds: Vec<Vec<u8>> = frames.iter().map(|frame| [&[200][..], frame].concat()).collect();
    seeds.push([&[17][..], &frames.concat()].concat());
    replay(&seeds, frame::fuzz);
}

#[test]
fn link_handshake() {
    let seeds = ["a", "node-b.example"].map(|name| {
        let hello = Hello::ours(0xfeed, name, NEWEST);
        written(&hello.to_header(), name, &[])
    });
    replay(&seeds, handshake::fuzz);
}

#[test]
fn link_session() {
    let most = u8::try_from(REPLY_CREDIT_MESSAGES).unwrap();
    // Calls; replies in order and in disorder; an end before its replies; grants; sweeps.
    let in_order: Vec<u8> = (0..most).flat_map(|at| [1, 0, at, 0]).collect();
    let in_disorder: Vec<u8> = (0..8).rev().flat_map(|at| [1, 0, at, u8::from(at == 7)]).collect();
    let some = [[0, 3, 0, 0], [0, 0, 1, 0], [2, 1, 0, 9], [3, 0, 4, 0], [4, 9, 0, 0], [5, 0, 0, 0]];
    let call = vec![0, 0, 0, 0];
    let seeds = [
        [call.clone(), in_order].concat(),
        [call.clone(), in_disorder].concat(),
        [call, some.concat()].concat(),
    ];
    replay(&seeds, script::fuzz);
}

#[test]
fn link_capability() {
    let seeds = crate::capability::seeds();
    replay_rounds(&seeds, ROUNDS_OF_SIGNATURES, crate::capability::fuzz);
}

#[test]
fn link_join() {
    let seeds = crate::join::seeds();
    replay_rounds(&seeds, ROUNDS_OF_SIGNATURES, crate::join::fuzz);
}
