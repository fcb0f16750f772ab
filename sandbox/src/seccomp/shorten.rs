//! Rewrites what libseccomp compiled, so that the kernel has less to check, to translate and to try
//! out whenever a cell loads it.
//!
//! libseccomp decides each call number in a tree of its own comparisons, one leaf per number. What
//! decides by number alone is read off that tree, number by number, and laid out again as a tree of
//! ranges; what looks at arguments is taken over instruction by instruction, like parts once. So
//! every answer stays libseccomp's, and a program that isn't built as expected stays as it is.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::{BTreeSet, HashMap};

/// A shorter program with the same answers. `None` if there is none, or if the program isn't one
/// that libseccomp makes for a single architecture.
pub(super) fn shorten(program: &[u8]) -> Option<Vec<u8>> {
    let source = Source::parse(program)?;
    let mut graph = Graph::default();
    let nodes = graph.take_over(&source)?;
    // The start: the architecture, then the number.
    let wrong = match (source.at(0)?, source.at(1)?) {
        (LOAD_ARCHITECTURE, Raw { code: JUMP_EQUAL, .. }) => {
            *nodes.get(source.target(1, false)?)?
        }
        _ => return None,
    };
    let native = source.at(1)?.k;
    let number = source.target(1, true)?;
    if source.at(number)? != LOAD_NUMBER {
        return None;
    }
    let ranges = source.ranges(number.checked_add(1)?, &nodes)?;
    let tree = graph.tree(&ranges)?;
    let right = graph.add(Node::Step { code: LOAD, k: NUMBER, next: tree });
    let check = graph.add(Node::Branch { code: JUMP_EQUAL, k: native, yes: right, no: wrong });
    let root = graph.add(Node::Step { code: LOAD, k: ARCHITECTURE, next: check });
    let written = graph.write(root)?;
    (written.len() < program.len()).then_some(written)
}

/// One instruction as the kernel takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Raw {
    code: u16,
    yes: u8,
    no: u8,
    k: u32,
}

/// A program to read.
struct Source(Vec<Raw>);

impl Source {
    fn parse(program: &[u8]) -> Option<Self> {
        let (whole, []) = program.as_chunks::<8>() else { return None };
        let parsed = whole.iter().map(|[c0, c1, yes, no, k0, k1, k2, k3]| Raw {
            code: u16::from_ne_bytes([*c0, *c1]),
            yes: *yes,
            no: *no,
            k: u32::from_ne_bytes([*k0, *k1, *k2, *k3]),
        });
        Some(Self(parsed.collect()))
    }

    fn at(&self, at: usize) -> Option<Raw> {
        self.0.get(at).copied()
    }

    /// Where a branch goes on.
    fn target(&self, at: usize, holds: bool) -> Option<usize> {
        let raw = self.at(at)?;
        at.checked_add(1)?.checked_add(usize::from(if holds { raw.yes } else { raw.no }))
    }

    /// Where an unconditional jump goes on.
    fn landing(&self, at: usize) -> Option<usize> {
        at.checked_add(1)?.checked_add(usize::try_from(self.at(at)?.k).ok()?)
    }

    /// What becomes of each number: the lowest number of each range, and where its decision by
    /// number ends. The program is read from `start`, where the number has just been loaded.
    fn ranges(&self, start: usize, nodes: &[usize]) -> Option<Vec<(u32, usize)>> {
        let mut ranges: Vec<(u32, usize)> = Vec::new();
        for low in self.edges(start)? {
            let end = *nodes.get(self.decide(start, low)?)?;
            if ranges.last().is_none_or(|(_, last)| *last != end) {
                ranges.push((low, end));
            }
        }
        Some(ranges)
    }

    /// The numbers at which some comparison begins to answer differently.
    fn edges(&self, start: usize) -> Option<BTreeSet<u32>> {
        let mut edges = BTreeSet::from([0]);
        let mut seen = vec![false; self.0.len()];
        let mut waiting = vec![start];
        while let Some(at) = waiting.pop() {
            if std::mem::replace(seen.get_mut(at)?, true) {
                continue;
            }
            let raw = self.at(at)?;
            match raw.code {
                JUMP_EQUAL | JUMP_GREATER | JUMP_GREATER_OR_EQUAL => {
                    if raw.code != JUMP_GREATER {
                        edges.insert(raw.k);
                    }
                    if raw.code != JUMP_GREATER_OR_EQUAL {
                        edges.extend(raw.k.checked_add(1));
                    }
                    waiting.extend([self.target(at, true)?, self.target(at, false)?]);
                }
                JUMP => waiting.push(self.landing(at)?),
                LOAD if raw.k == NUMBER => waiting.push(at.checked_add(1)?),
                LOAD | RETURN => {}
                _ => return None,
            }
        }
        Some(edges)
    }

    /// Follows one number to where something else decides, or nothing any more.
    fn decide(&self, start: usize, number: u32) -> Option<usize> {
        let mut at = start;
        // Jumps go forward only.
        for _ in 0..=self.0.len() {
            let raw = self.at(at)?;
            at = match raw.code {
                JUMP_EQUAL => self.target(at, number == raw.k)?,
                JUMP_GREATER => self.target(at, number > raw.k)?,
                JUMP_GREATER_OR_EQUAL => self.target(at, number >= raw.k)?,
                JUMP => self.landing(at)?,
                LOAD if raw.k == NUMBER => at.checked_add(1)?,
                LOAD | RETURN => return Some(at),
                _ => return None,
            };
        }
        None
    }
}

/// A part of a program, by what it does and where it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Node {
    Answer { k: u32 },
    Step { code: u16, k: u32, next: usize },
    Branch { code: u16, k: u32, yes: usize, no: usize },
}

/// Whether bits of a word aren't all as they are in a value.
struct Differs {
    mask: u32,
    value: u32,
    yes: usize,
    no: usize,
}

/// Parts of which no two are the same. Each stands behind all those that it goes on to.
#[derive(Default)]
struct Graph {
    nodes: Vec<Node>,
    known: HashMap<Node, usize>,
}

impl Graph {
    fn add(&mut self, node: Node) -> usize {
        if let Some(same) = self.needless(node) {
            return same;
        }
        if let Some(joined) = self.joined(node) {
            return joined;
        }
        let fresh = self.nodes.len();
        let index = *self.known.entry(node).or_insert(fresh);
        if index == fresh {
            self.nodes.push(node);
        }
        index
    }

    /// Where a part leads that does nothing.
    fn needless(&self, node: Node) -> Option<usize> {
        match node {
            Node::Branch { yes, no, .. } if yes == no => Some(yes),
            // What is loaded isn't looked at.
            Node::Step { code: LOAD, next, .. } if self.is_fresh(next) => Some(next),
            Node::Step { code: AND, k: u32::MAX, next } => Some(next),
            // libseccomp compares the upper half of an argument even where the mask leaves none of
            // it: nothing is always nothing.
            Node::Step { code: AND, k: 0, next } => match *self.nodes.get(next)? {
                Node::Branch { code: JUMP_EQUAL, k: 0, yes, .. } if self.is_fresh(yes) => Some(yes),
                _ => None,
            },
            _ => None,
        }
    }

    /// Where a part leads that says the same of more bits at once: libseccomp has no "differs" for a part of
    /// an argument, so that is written as one comparison for each bit, all with the same answer.
    fn joined(&mut self, node: Node) -> Option<usize> {
        let Node::Step { code: LOAD, k: word, next } = node else { return None };
        let first = self.differs(next)?;
        let Node::Step { code: LOAD, k, next } = *self.nodes.get(first.no)? else { return None };
        let rest = self.differs(next)?;
        if k != word || rest.yes != first.yes || first.mask & rest.mask != 0 {
            return None;
        }
        let (mask, value) = (first.mask | rest.mask, first.value | rest.value);
        let (yes, no) = (rest.no, rest.yes);
        let compare = self.add(Node::Branch { code: JUMP_EQUAL, k: value, yes, no });
        let masked = self.add(Node::Step { code: AND, k: mask, next: compare });
        Some(self.add(Node::Step { code: LOAD, k: word, next: masked }))
    }

    /// What bits of what is loaded are asked for a difference.
    fn differs(&self, masked: usize) -> Option<Differs> {
        let Node::Step { code: AND, k: mask, next } = *self.nodes.get(masked)? else { return None };
        let Node::Branch { code: JUMP_EQUAL, k, yes, no } = *self.nodes.get(next)? else {
            return None;
        };
        // Both ways go on without what was loaded, so that nothing is lost if it's another part of it.
        if k & !mask != 0 || !self.is_fresh(yes) || !self.is_fresh(no) {
            return None;
        }
        if mask.is_power_of_two() && matches!(self.nodes.get(yes)?, Node::Answer { .. }) {
            // One bit that is so isn't the other way.
            return Some(Differs { mask, value: k ^ mask, yes, no });
        }
        Some(Differs { mask, value: k, yes: no, no: yes })
    }

    /// Whether a part begins without regard to what was loaded before.
    fn is_fresh(&self, index: usize) -> bool {
        matches!(self.nodes.get(index), Some(Node::Answer { .. } | Node::Step { code: LOAD, .. }))
    }

    /// Takes all instructions over, from the last to the first. Which part does what each does.
    fn take_over(&mut self, source: &Source) -> Option<Vec<usize>> {
        let mut nodes = vec![0; source.0.len()];
        for at in (0..source.0.len()).rev() {
            let raw = source.at(at)?;
            let node = match raw.code {
                RETURN => self.add(Node::Answer { k: raw.k }),
                JUMP => *nodes.get(source.landing(at)?)?,
                JUMP_EQUAL | JUMP_GREATER | JUMP_GREATER_OR_EQUAL | JUMP_SET => {
                    let yes = *nodes.get(source.target(at, true)?)?;
                    let no = *nodes.get(source.target(at, false)?)?;
                    self.add(Node::Branch { code: raw.code, k: raw.k, yes, no })
                }
                LOAD | AND => {
                    let next = *nodes.get(at.checked_add(1)?)?;
                    self.add(Node::Step { code: raw.code, k: raw.k, next })
                }
                _ => return None,
            };
            *nodes.get_mut(at)? = node;
        }
        Some(nodes)
    }

    /// A tree that tells the ranges apart.
    fn tree(&mut self, ranges: &[(u32, usize)]) -> Option<usize> {
        match ranges {
            [] => None,
            [(_, end)] => Some(*end),
            // One number among others.
            [(_, around), (low, end), (high, again)]
                if around == again && low.checked_add(1) == Some(*high) =>
            {
                Some(self.add(Node::Branch { code: JUMP_EQUAL, k: *low, yes: *end, no: *around }))
            }
            _ => {
                let (below, above) = ranges.split_at_checked(ranges.len() / 2)?;
                let (k, _) = above.first()?;
                let (yes, no) = (self.tree(above)?, self.tree(below)?);
                Some(self.add(Node::Branch { code: JUMP_GREATER_OR_EQUAL, k: *k, yes, no }))
            }
        }
    }

    /// The instructions that begin at `root`.
    fn write(&self, root: usize) -> Option<Vec<u8>> {
        let mut wanted = vec![false; self.nodes.len()];
        let mut waiting = vec![root];
        while let Some(index) = waiting.pop() {
            if std::mem::replace(wanted.get_mut(index)?, true) {
                continue;
            }
            match *self.nodes.get(index)? {
                Node::Answer { .. } => {}
                Node::Step { next, .. } => waiting.push(next),
                Node::Branch { yes, no, .. } => waiting.extend([yes, no]),
            }
        }
        let mut writer = Writer { reversed: Vec::new(), places: HashMap::new() };
        for (index, node) in self
            .nodes
            .iter()
            .enumerate()
            .filter(|(index, _)| wanted.get(*index).copied().unwrap_or_default())
        {
            writer.put(index, node)?;
        }
        writer.reversed.reverse();
        let bytes = writer.reversed.into_iter().flat_map(|raw| {
            let ([c0, c1], [k0, k1, k2, k3]) = (raw.code.to_ne_bytes(), raw.k.to_ne_bytes());
            [c0, c1, raw.yes, raw.no, k0, k1, k2, k3]
        });
        Some(bytes.collect())
    }
}

/// Writes from the end to the front, because jumps only go towards the end.
struct Writer {
    reversed: Vec<Raw>,
    /// How many instructions there were with the part's first one.
    places: HashMap<usize, usize>,
}

impl Writer {
    fn put(&mut self, index: usize, node: &Node) -> Option<()> {
        match *node {
            Node::Answer { k } => self.push(RETURN, 0, 0, k),
            Node::Step { code, k, next } => {
                if self.distance(next)? > 0 {
                    self.jump(next)?;
                }
                self.push(code, 0, 0, k);
            }
            Node::Branch { code, k, yes, no } => {
                // A jump for one side moves the other away.
                for _ in 0..2 {
                    for side in [yes, no] {
                        if u8::try_from(self.distance(side)?).is_err() {
                            self.jump(side)?;
                        }
                    }
                }
                let yes = u8::try_from(self.distance(yes)?).ok()?;
                let no = u8::try_from(self.distance(no)?).ok()?;
                self.push(code, yes, no, k);
            }
        }
        self.places.insert(index, self.reversed.len());
        Some(())
    }

    /// How many instructions lie between what is written next and the part.
    fn distance(&self, part: usize) -> Option<usize> {
        self.reversed.len().checked_sub(*self.places.get(&part)?)
    }

    /// Puts a way to a part that is too far away. From here on it is where the part is.
    fn jump(&mut self, part: usize) -> Option<()> {
        let distance = u32::try_from(self.distance(part)?).ok()?;
        self.push(JUMP, 0, 0, distance);
        self.places.insert(part, self.reversed.len());
        Some(())
    }

    fn push(&mut self, code: u16, yes: u8, no: u8, k: u32) {
        self.reversed.push(Raw { code, yes, no, k });
    }
}

// The part of the language that libseccomp uses.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const JUMP_SET: u16 = 0x45;
const RETURN: u16 = 0x06;
/// Offsets into what a filter sees of a call.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const LOAD_NUMBER: Raw = Raw { code: LOAD, yes: 0, no: 0, k: NUMBER };
const LOAD_ARCHITECTURE: Raw = Raw { code: LOAD, yes: 0, no: 0, k: ARCHITECTURE };

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::{
        super::{
            Deny, FilterOptions, SeccompProfile,
            compile::{Filter, unshortened},
            evaluate::{Call, NATIVE, Program},
        },
        *,
    };
    use crate::{Level, noise::Noise};

    fn programs() -> Vec<Vec<u8>> {
        let levels = [Level::Standard, Level::Strict, Level::Paranoid].into_iter();
        let kinds = levels.flat_map(|level| {
            let options = [Deny::Notify, Deny::Errno].into_iter();
            options.flat_map(move |deny| [false, true].map(|inet| (level, deny, inet)))
        });
        let program = |(level, deny, inet)| {
            let profile = SeccompProfile::builtin(level).unwrap();
            unshortened(&profile, FilterOptions { inet, deny }).unwrap()
        };
        kinds.map(program).collect()
    }

    fn load(program: &[u8]) -> Program {
        Program::of(&Filter::from_bytes(program).unwrap())
    }

    #[test]
    fn the_answers_stay() {
        let mut noise = Noise::new(11);
        for whole in programs() {
            let shorter = shorten(&whole).unwrap();
            assert!(shorter.len() * 3 < whole.len() * 2, "{} of {}", shorter.len(), whole.len());
            let (before, after) = (load(&whole), load(&shorter));
            let odd = [0x3FFF_FFFF, 0x4000_0000, 0x4000_0001, u32::MAX - 1, u32::MAX];
            for number in (0..700).chain(odd) {
                for round in 0..40_u64 {
                    // Small values meet the rules' own, large ones their upper halves.
                    let args = std::array::from_fn(|_| noise.next() >> ((round % 8) * 8));
                    for arch in [NATIVE, NATIVE ^ 1, 0x4000_0003] {
                        let call = Call { number, arch, args };
                        assert_eq!(before.answer(&call), after.answer(&call), "{call:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn shortening_again_changes_nothing() {
        for whole in programs() {
            assert_eq!(shorten(&shorten(&whole).unwrap()), None);
        }
    }

    #[test]
    fn what_is_not_as_expected_is_left_alone() {
        let whole = programs().swap_remove(0);
        assert_eq!(shorten(&[]), None);
        assert_eq!(shorten(&whole[..whole.len() - 1]), None);
        assert_eq!(shorten(&whole[8..]), None);
        assert_eq!(shorten(&whole[..whole.len() / 2 / 8 * 8]), None);
        let mut noise = Noise::new(5);
        for _ in 0..2000 {
            let mut broken = whole.clone();
            let at = usize::try_from(noise.next()).unwrap() % broken.len();
            broken[at] = noise.next().to_le_bytes()[0];
            // Never a panic; most still end in a program.
            shorten(&broken);
        }
    }

    #[test]
    fn far_ends_are_reached() {
        // Each number has an answer of its own, so no tree of short jumps can reach them all.
        let mut graph = Graph::default();
        let ends: Vec<(u32, usize)> = (0..1000_u32)
            .map(|number| (number, graph.add(Node::Answer { k: 0x0005_0000 | number })))
            .collect();
        let tree = graph.tree(&ends).unwrap();
        let root = graph.add(Node::Step { code: LOAD, k: NUMBER, next: tree });
        let program = load(&graph.write(root).unwrap());
        for number in 0..1000 {
            let expected = super::super::evaluate::Verdict::Errno(number);
            assert_eq!(program.answer(&Call::of(number.into(), [0; 6])), expected);
        }
    }
}
