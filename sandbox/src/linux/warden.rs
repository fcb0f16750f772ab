//! What the first process does while the program runs: it reaps what dies, and answers for the
//! system call filter, so that a refused call has a name in the report.
//!
//! It stands under the same filter and in the same groups as the program. A program that makes
//! refused calls in a loop keeps its own cell busy, and nobody else.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::{
    child::{LOST, OVERDUE, send},
    sys::{
        Result, event, file, process,
        seccomp::{self, Answer},
    },
};
use crate::{report::Usage, seccomp::refusal, zygote::protocol::Record};

/// Watches over one program.
#[derive(Debug)]
pub(super) struct Warden {
    program: i32,
    signals: OwnedFd,
    listener: Option<OwnedFd>,
    learn: bool,
    /// When this process ends the cell, if nobody has by then.
    last_moment: Option<u64>,
    refused: Refused,
}

impl Warden {
    pub(super) fn new(
        program: i32,
        signals: OwnedFd,
        listener: Option<OwnedFd>,
        learn: bool,
    ) -> Self {
        let refused = Refused { counts: [0; CALLS], seen: [0; SEEN] };
        Self { program, signals, listener, learn, last_moment: None, refused }
    }

    /// Ends the cell `wall` nanoseconds after `at`. The zygote does that too, unless it hasn't heard yet
    /// that the cell has begun.
    pub(super) fn until(self, at: u64, wall: u64) -> Self {
        Self { last_moment: Some(at.saturating_add(wall)), ..self }
    }

    /// Returns when the program has ended. Then this process ends, and the kernel ends the rest.
    pub(super) fn watch(mut self, report: BorrowedFd<'_>) -> i32 {
        loop {
            match reap(self.program) {
                Ok(None) => {}
                Ok(Some((status, usage))) => {
                    self.refused.tell(report);
                    return send(report, Record::Ended { status, usage });
                }
                Err(_no_children) => return LOST,
            }
            // A program that gives this process enough to do doesn't gain time by it.
            if self.patience() == 0 {
                self.refused.tell(report);
                return OVERDUE;
            }
            let ready =
                event::wait_for_either(self.signals.as_fd(), self.listener(), self.patience());
            match ready {
                Ok((signal, call)) => {
                    if signal {
                        let mut drained = [0; 128];
                        while file::read(self.signals.as_fd(), &mut drained).is_ok() {}
                    }
                    if call {
                        self.answer(report);
                    }
                }
                Err(errno) if errno.raw() == libc::EINTR => {}
                Err(_unexpected) => return LOST,
            }
        }
    }

    /// Answers for the filter until the guest has something to say. False when the wall time is over
    /// before.
    pub(super) fn attend(&mut self, guest: BorrowedFd<'_>, report: BorrowedFd<'_>) -> Result<bool> {
        while self.patience() != 0 {
            match event::wait_for_either(guest, self.listener(), self.patience()) {
                Ok((_, true)) => self.answer(report),
                Ok((true, _)) => return Ok(true),
                Ok(_) => {}
                Err(errno) if errno.raw() == libc::EINTR => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(false)
    }

    /// Milliseconds until the last moment; 0 when it has come.
    fn patience(&self) -> i32 {
        let rest = self.last_moment.map(|last| last.saturating_sub(event::now()));
        rest.map_or(-1, |rest| i32::try_from(rest.div_ceil(1_000_000)).unwrap_or(i32::MAX))
    }

    fn listener(&self) -> Option<BorrowedFd<'_>> {
        self.listener.as_ref().map(AsFd::as_fd)
    }

    fn answer(&mut self, report: BorrowedFd<'_>) {
        let Self { listener, refused, .. } = self;
        let Some(listener) = listener.as_ref().map(AsFd::as_fd) else { return };
        // The caller may have been killed meanwhile, and then there is nothing to answer.
        let Ok(call) = seccomp::receive(listener) else { return };
        if self.learn {
            refused.see(call.number, call.args, report);
        } else {
            refused.count(call.number, report);
        }
        let answer =
            if self.learn { Answer::Continue } else { Answer::Errno(refusal(call.number)) };
        seccomp::answer(listener, call.id, answer).ok();
    }
}

/// How the program ended, if it has. Reaps whatever else has.
pub(super) fn reap(program: i32) -> Result<Option<(i32, Usage)>> {
    loop {
        match process::reap(false) {
            Ok(Some(ended)) if ended.pid == program => {
                return Ok(Some((ended.status, ended.usage)));
            }
            Ok(Some(_)) => {}
            Ok(None) => return Ok(None),
            Err(errno) if errno.raw() == libc::EINTR => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// How often each call was refused. The first time is told at once, so that a cell which is killed
/// has said it; the count at the end.
#[derive(Debug)]
struct Refused {
    counts: [u32; CALLS],
    /// Which calls with which arguments were told of, when learning: one bit for each of many.
    seen: [u64; SEEN],
}

impl Refused {
    fn count(&mut self, number: i32, report: BorrowedFd<'_>) {
        // Numbers past the table share its last place.
        let number = usize::try_from(number).unwrap_or(usize::MAX).min(CALLS - 1);
        let Some(count) = self.counts.get_mut(number) else { return };
        *count = count.saturating_add(1);
        if *count == 1 {
            tell(report, number, 1);
        }
    }

    /// Tells of a call and its arguments, of like ones once. Addresses make no difference.
    fn see(&mut self, number: i32, arguments: [u64; 6], report: BorrowedFd<'_>) {
        let number = number.cast_unsigned();
        let mut hash = u64::from(number);
        for argument in arguments {
            let plain = if argument > u64::from(u32::MAX) { 0 } else { argument };
            hash = (hash ^ plain).wrapping_mul(HASH_PRIME).rotate_left(29);
        }
        let bit = usize::try_from(hash >> 40).unwrap_or_default() % (SEEN * 64);
        let Some(word) = self.seen.get_mut(bit / 64) else { return };
        if *word >> (bit % 64) & 1 == 0 {
            *word |= 1 << (bit % 64);
            send(report, Record::Seen { number, arguments });
        }
    }

    fn tell(&self, report: BorrowedFd<'_>) {
        for (number, count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 1) {
            tell(report, number, *count);
        }
    }
}

fn tell(report: BorrowedFd<'_>, number: usize, count: u32) {
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    send(report, Record::Denied { number, count });
}

/// Words of the table of seen calls: a program makes a few thousand different ones.
const SEEN: usize = 1024;
/// Of FNV-1a.
const HASH_PRIME: u64 = 0x0100_0000_01B3;
/// The kernel's numbers end below 500 so far.
const CALLS: usize = 512;
