//! Which warm interpreters there are, and when one that died may start again. Pure.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use crate::limits;

/// All interpreters of one zygote.
#[derive(Debug, Default)]
pub(super) struct Interpreters {
    all: Vec<Interpreter>,
}

#[derive(Debug)]
struct Interpreter {
    /// What it imports.
    modules: CString,
    state: State,
    /// Starts since a cell with one of its forks was last claimed.
    starts: u32,
}

#[derive(Debug)]
enum State {
    /// It may start from this time on.
    Absent {
        from: u64,
    },
    /// It imports.
    Starting {
        pid: i32,
        door: OwnedFd,
    },
    Ready {
        pid: i32,
        door: OwnedFd,
    },
    /// It has died too often.
    GivenUp,
}

impl Interpreters {
    /// The number of the interpreter with these modules. Wanting one that was given up tries it
    /// again. `None` if there are too many.
    pub(super) fn want(&mut self, modules: &CStr) -> Option<usize> {
        if let Some(at) = self.all.iter().position(|known| known.modules.as_c_str() == modules) {
            let known = self.all.get_mut(at)?;
            if matches!(known.state, State::GivenUp) {
                (known.state, known.starts) = (State::Absent { from: 0 }, 0);
            }
            return Some(at);
        }
        if self.all.len() >= limits::MAX_INTERPRETERS {
            return None;
        }
        let state = State::Absent { from: 0 };
        self.all.push(Interpreter { modules: modules.to_owned(), state, starts: 0 });
        Some(self.all.len() - 1)
    }

    /// One that should start now, and its modules.
    pub(super) fn due(&self, now: u64) -> Option<(usize, &CStr)> {
        let due =
            |known: &&Interpreter| matches!(known.state, State::Absent { from } if from <= now);
        let at = self.all.iter().position(|known| due(&known))?;
        Some((at, self.all.get(at)?.modules.as_c_str()))
    }

    /// Nanoseconds until one should start. `None` if none should.
    pub(super) fn until_due(&self, now: u64) -> Option<u64> {
        let times = self.all.iter().filter_map(|known| match known.state {
            State::Absent { from } => Some(from.saturating_sub(now)),
            _ => None,
        });
        times.min()
    }

    pub(super) fn started(&mut self, at: usize, pid: i32, door: OwnedFd) {
        if let Some(known) = self.all.get_mut(at) {
            known.state = State::Starting { pid, door };
            known.starts = known.starts.saturating_add(1);
        }
    }

    /// It could not be started.
    pub(super) fn failed(&mut self, at: usize, now: u64) {
        if let Some(known) = self.all.get_mut(at) {
            known.starts = known.starts.saturating_add(1);
            known.rest(now);
        }
    }

    /// It has imported everything.
    pub(super) fn ready(&mut self, at: usize) {
        let Some(known) = self.all.get_mut(at) else { return };
        let state = std::mem::replace(&mut known.state, State::GivenUp);
        known.state = match state {
            State::Starting { pid, door } => State::Ready { pid, door },
            other => other,
        };
    }

    /// A cell with one of its forks was claimed, so it is sound.
    pub(super) fn settled(&mut self, at: usize) {
        if let Some(known) = self.all.get_mut(at) {
            known.starts = 0;
        }
    }

    /// Whether the process that ended was an interpreter.
    pub(super) fn ended(&mut self, pid: i32, now: u64) -> bool {
        let ours = |known: &&mut Interpreter| match known.state {
            State::Starting { pid: own, .. } | State::Ready { pid: own, .. } => own == pid,
            _ => false,
        };
        match self.all.iter_mut().find(ours) {
            Some(known) => {
                known.rest(now);
                true
            }
            None => false,
        }
    }

    pub(super) fn is_ready(&self, at: usize) -> bool {
        matches!(self.all.get(at).map(|known| &known.state), Some(State::Ready { .. }))
    }

    /// Where it listens, whether it is ready or not.
    pub(super) fn door(&self, at: usize) -> Option<BorrowedFd<'_>> {
        match &self.all.get(at)?.state {
            State::Starting { door, .. } | State::Ready { door, .. } => Some(door.as_fd()),
            _ => None,
        }
    }

    /// Where a ready one with these modules listens.
    pub(super) fn door_of(&self, modules: &CStr) -> Option<BorrowedFd<'_>> {
        let at = self.all.iter().position(|known| known.modules.as_c_str() == modules)?;
        if self.is_ready(at) { self.door(at) } else { None }
    }
}

impl Interpreter {
    /// Pauses twice as long each time, in the end for ever.
    fn rest(&mut self, now: u64) {
        let pause = u64::try_from(limits::INTERPRETER_PAUSE.as_nanos()).unwrap_or(u64::MAX);
        let pause = pause.checked_shl(self.starts.saturating_sub(1)).unwrap_or(u64::MAX);
        self.state = if self.starts >= limits::MAX_INTERPRETER_STARTS {
            State::GivenUp
        } else {
            State::Absent { from: now.saturating_add(pause) }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door() -> OwnedFd {
        crate::linux::sys::socket::pair().unwrap().0
    }

    #[test]
    fn one_that_dies_comes_back_later_and_later_and_then_not() {
        let mut all = Interpreters::default();
        assert_eq!(all.until_due(0), None);
        let at = all.want(c"json").unwrap();
        let (mut now, mut pauses) = (0, Vec::new());
        while let Some(wait) = all.until_due(now) {
            pauses.push(wait);
            now += wait;
            assert_eq!(all.due(now), Some((at, c"json")));
            all.started(at, 7, door());
            assert_eq!((all.due(now), all.is_ready(at)), (None, false));
            all.ready(at);
            assert!(all.is_ready(at) && all.door_of(c"json").is_some());
            assert!(all.ended(7, now) && !all.ended(7, now) && !all.is_ready(at));
        }
        assert_eq!(pauses.len(), usize::try_from(limits::MAX_INTERPRETER_STARTS).unwrap());
        assert!(pauses.windows(2).all(|pair| pair[0] < pair[1]));
        // Until somebody asks again.
        assert_eq!(all.want(c"json"), Some(at));
        assert_eq!(all.until_due(now), Some(0));
    }

    #[test]
    fn a_claim_says_that_it_is_sound() {
        let mut all = Interpreters::default();
        let at = all.want(c"").unwrap();
        for _ in 0..20 {
            all.started(at, 7, door());
            all.ready(at);
            all.settled(at);
            assert!(all.ended(7, 0));
        }
        assert!(all.until_due(0).is_some());
    }

    #[test]
    fn there_are_few() {
        let mut all = Interpreters::default();
        for number in 0..limits::MAX_INTERPRETERS {
            let name = CString::new(number.to_string()).unwrap();
            assert_eq!(all.want(&name), Some(number));
        }
        assert_eq!(all.want(c"one more"), None);
        assert_eq!(all.want(c"0"), Some(0));
    }
}
