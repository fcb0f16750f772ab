//! An interpreter for filter programs, so that tests ask a filter without a kernel.

use super::Filter;

/// What the kernel shows a filter of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) number: u32,
    pub(super) arch: u32,
    pub(super) args: [u64; 6],
}

/// What a filter says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow,
    Notify,
    Errno(u16),
    KillProcess,
}

impl Call {
    pub(super) fn of(number: u32, args: [u64; 6]) -> Self {
        Self { number, arch: NATIVE, args }
    }

    fn word(&self, offset: u32) -> u32 {
        let argument = |index: u32| self.args[index as usize];
        match offset {
            0 => self.number,
            4 => self.arch,
            16..64 if (offset - 16).is_multiple_of(8) => low(argument((offset - 16) / 8)),
            16..64 if offset.is_multiple_of(4) => low(argument((offset - 16) / 8) >> 32),
            other => panic!("a filter reads at offset {other}"),
        }
    }
}

/// A program that is run as the kernel would.
pub(super) struct Program(Vec<Instruction>);

struct Instruction {
    code: u16,
    yes: usize,
    no: usize,
    k: u32,
}

impl Program {
    pub(super) fn of(filter: &Filter) -> Self {
        let instruction = |raw: &[u8]| Instruction {
            code: u16::from_le_bytes([raw[0], raw[1]]),
            yes: raw[2].into(),
            no: raw[3].into(),
            k: u32::from_le_bytes([raw[4], raw[5], raw[6], raw[7]]),
        };
        assert_eq!(filter.program().len() % 8, 0, "whole instructions");
        Self(filter.program().chunks(8).map(instruction).collect())
    }

    /// Panics at what the kernel would refuse to load.
    pub(super) fn answer(&self, call: &Call) -> Verdict {
        let (mut at, mut a) = (0_usize, 0_u32);
        loop {
            let Instruction { code, yes, no, k } = &self.0[at];
            at += 1;
            let jump = |holds: bool| if holds { yes } else { no };
            match code {
                LOAD => a = call.word(*k),
                AND => a &= k,
                JUMP => at += *k as usize,
                JUMP_EQUAL => at += jump(a == *k),
                JUMP_GREATER => at += jump(a > *k),
                JUMP_GREATER_OR_EQUAL => at += jump(a >= *k),
                JUMP_SET => at += jump(a & k != 0),
                RETURN => return verdict(*k),
                other => panic!("instruction {other:#x} at {at}"),
            }
        }
    }
}

// The part of the language that libseccomp uses.
const LOAD: &u16 = &0x20;
const AND: &u16 = &0x54;
const JUMP: &u16 = &0x05;
const JUMP_EQUAL: &u16 = &0x15;
const JUMP_GREATER: &u16 = &0x25;
const JUMP_GREATER_OR_EQUAL: &u16 = &0x35;
const JUMP_SET: &u16 = &0x45;
const RETURN: &u16 = &0x06;

fn low(value: u64) -> u32 {
    u32::try_from(value & 0xFFFF_FFFF).expect("32 bits")
}

fn verdict(value: u32) -> Verdict {
    match value & 0xFFFF_0000 {
        0x7FFF_0000 => Verdict::Allow,
        0x7FC0_0000 => Verdict::Notify,
        0x0005_0000 => Verdict::Errno(u16::try_from(value & 0xFFFF).expect("16 bits")),
        0x8000_0000 => Verdict::KillProcess,
        other => panic!("a filter answers {other:#x}"),
    }
}

/// `AUDIT_ARCH_*` of the machine that the tests run on.
#[cfg(target_arch = "x86_64")]
pub(super) const NATIVE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
pub(super) const NATIVE: u32 = 0xC000_00B7;
