//! What is known about a cell's end, and how much it has written. Pure.

use crate::{
    report::{End, Truncated, Usage},
    zygote::protocol::{Cause, Record},
};

/// One of a cell's two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Stdout,
    Stderr,
}

/// Puts together what host, zygote and first process know.
#[derive(Debug)]
pub(super) struct State {
    output_left: u64,
    truncated: Truncated,
    /// Why we ended it, if we did.
    asked: Option<End>,
    /// How the program ended by itself.
    ended: Option<(i32, Usage)>,
    /// The zygote's last word.
    reaped: Option<(Cause, Usage)>,
}

impl State {
    pub(super) fn new(output_bytes: u64) -> Self {
        Self {
            output_left: output_bytes,
            truncated: Truncated::default(),
            asked: None,
            ended: None,
            reaped: None,
        }
    }

    /// How many of `length` bytes may be passed on. Fewer than `length` means that the limit is
    /// reached.
    pub(super) fn take(&mut self, source: Source, length: usize) -> usize {
        let allowed = usize::try_from(self.output_left).unwrap_or(usize::MAX).min(length);
        self.output_left =
            self.output_left.saturating_sub(u64::try_from(allowed).unwrap_or(u64::MAX));
        if allowed < length {
            match source {
                Source::Stdout => self.truncated.stdout = true,
                Source::Stderr => self.truncated.stderr = true,
            }
        }
        allowed
    }

    /// The first reason counts. A program that had ended by then ended by itself, except that lost
    /// output is never passed over.
    pub(super) fn ask_to_end(&mut self, end: End) {
        if self.asked.is_none() && (self.ended.is_none() || end == End::OutputLimit) {
            self.asked = Some(end);
        }
    }

    /// Takes a record; `None` stands for the closed socket. True if it was the last.
    pub(super) fn hear(&mut self, record: Option<Record>) -> bool {
        match record {
            Some(Record::Ended { status, usage }) => {
                self.ended = Some((status, usage));
                false
            }
            Some(Record::Reaped { cause, usage }) => {
                self.reaped = Some((cause, usage));
                true
            }
            Some(_) => false,
            None => true,
        }
    }

    pub(super) fn end(&self) -> End {
        match (self.asked, self.ended, self.reaped) {
            (Some(asked), ..) => asked,
            (None, Some((status, _)), _) => crate::launcher::ending(status),
            (None, None, Some((Cause::WallTime, _))) => End::WallTime,
            (None, None, Some((Cause::None | Cause::Abandoned, _))) => End::Killed,
            (None, None, None) => End::LauncherLost,
        }
    }

    /// The zygote's numbers count everything; the first process's only what had ended by then.
    pub(super) fn usage(&self) -> Usage {
        let reaped = self.reaped.map(|(_, usage)| usage);
        reaped.or(self.ended.map(|(_, usage)| usage)).unwrap_or_default()
    }

    pub(super) fn truncated(&self) -> Truncated {
        self.truncated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USAGE: Usage = Usage {
        user: std::time::Duration::ZERO,
        system: std::time::Duration::ZERO,
        peak_resident_bytes: 1,
    };

    #[test]
    fn a_program_ends_by_itself() {
        let mut state = State::new(10);
        assert!(!state.hear(Some(Record::Ended { status: 3 << 8, usage: Usage::default() })));
        state.ask_to_end(End::Cancelled);
        assert!(state.hear(Some(Record::Reaped { cause: Cause::None, usage: USAGE })));
        assert_eq!(state.end(), End::Exited(3));
        assert_eq!(state.usage(), USAGE);
    }

    #[test]
    fn the_first_reason_counts() {
        let mut state = State::new(10);
        state.ask_to_end(End::WallTime);
        state.ask_to_end(End::Cancelled);
        assert!(state.hear(Some(Record::Reaped { cause: Cause::None, usage: USAGE })));
        assert_eq!(state.end(), End::WallTime);
    }

    #[test]
    fn silence_is_a_lost_launcher_and_a_bare_end_is_a_kill() {
        let mut state = State::new(10);
        assert!(state.hear(None));
        assert_eq!(state.end(), End::LauncherLost);
        let mut state = State::new(10);
        assert!(state.hear(Some(Record::Reaped { cause: Cause::None, usage: USAGE })));
        assert_eq!(state.end(), End::Killed);
        let mut state = State::new(10);
        assert!(state.hear(Some(Record::Reaped { cause: Cause::WallTime, usage: USAGE })));
        assert_eq!(state.end(), End::WallTime);
    }

    #[test]
    fn output_is_counted_over_both_streams() {
        let mut state = State::new(10);
        assert_eq!(state.take(Source::Stdout, 6), 6);
        assert_eq!(state.take(Source::Stderr, 4), 4);
        assert_eq!(state.truncated(), Truncated::default());
        assert_eq!(state.take(Source::Stderr, 1), 0);
        assert_eq!(state.truncated(), Truncated { stdout: false, stderr: true });
        assert!(!state.hear(Some(Record::Ended { status: 0, usage: USAGE })));
        state.ask_to_end(End::OutputLimit);
        assert_eq!(state.end(), End::OutputLimit);
    }
}
