//! What is known about a cell's end. Pure.

use std::collections::BTreeMap;

use crate::{
    account::GroupUsage,
    limits,
    report::{Denial, End, Usage},
    seccomp::{Observed, names},
    zygote::protocol::{Cause, Record},
};

/// Puts together what host, zygote and first process know.
#[derive(Debug)]
pub(super) struct State {
    /// Why we ended it, if we did.
    asked: Option<End>,
    /// How the program ended by itself.
    ended: Option<(i32, Usage)>,
    /// The zygote's last word.
    reaped: Option<(Cause, Usage)>,
    /// The zygote has killed the cell, and waits for its end too.
    lasting: bool,
    /// It was waited for as long as may be, and wasn't gone.
    lost_sight: bool,
    /// What its groups counted.
    group: GroupUsage,
    /// Refused calls by number, and how often.
    denied: BTreeMap<u32, u32>,
    /// The calls of a cell that learns.
    observed: Option<Observed>,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            asked: None,
            ended: None,
            reaped: None,
            lasting: false,
            lost_sight: false,
            group: GroupUsage::default(),
            denied: BTreeMap::new(),
            observed: None,
        }
    }

    /// The first reason counts. A program that had ended by then ended by itself, except that lost
    /// output is never passed over.
    pub(super) fn ask_to_end(&mut self, end: End) {
        if self.asked.is_none() && (self.ended.is_none() || end == End::OutputLimit) {
            self.asked = Some(end);
        }
    }

    /// Takes a record; `None` stands for the closed socket. True if it was the last.
    #[expect(clippy::large_types_passed_by_value, reason = "it is taken apart at once")]
    pub(super) fn hear(&mut self, record: Option<Record>) -> bool {
        match record {
            Some(Record::Ended { status, usage }) => {
                self.ended = Some((status, usage));
                false
            }
            Some(Record::Reaped { cause, usage, groups }) => {
                self.reaped = Some((cause, usage));
                self.group = groups;
                true
            }
            Some(Record::Lasting) => {
                self.lasting = true;
                false
            }
            Some(Record::Seen { number, arguments }) => {
                self.observed.get_or_insert_default().record(number, arguments);
                false
            }
            Some(Record::Denied { number, count }) => {
                let is_new = !self.denied.contains_key(&number);
                if !is_new || self.denied.len() < limits::MAX_DENIALS {
                    let known = self.denied.entry(number).or_default();
                    *known = count.max(*known);
                }
                false
            }
            Some(_) => false,
            None => true,
        }
    }

    /// Whether it is known how the program ended.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Whether the zygote has said that the cell is gone.
    pub(super) fn is_reaped(&self) -> bool {
        self.reaped.is_some()
    }

    /// Whether it's the cell that doesn't end, and not the zygote that doesn't answer.
    pub(super) fn is_lasting(&self) -> bool {
        self.lasting
    }

    /// Nobody waits for the cell's end any more.
    pub(super) fn lose_sight(&mut self) {
        self.lost_sight = true;
    }

    pub(super) fn end(&self) -> End {
        // Whatever else is known: an end says that nothing of the cell runs any more.
        if self.lost_sight {
            return End::NotGone;
        }
        match (self.asked, self.ended, self.reaped) {
            (Some(asked), ..) => asked,
            // The kernel ends all processes of such a group of version 2. Where the zygote does, the program
            // may be faster, and end with an error of its own.
            (None, Some(_), _) if self.is_out_of_memory() => End::Memory,
            (None, Some((status, usage)), _) => crate::launcher::ending(status, &usage),
            (None, None, Some((Cause::Memory, _))) => End::Memory,
            (None, None, Some((Cause::WallTime, _))) => End::WallTime,
            (None, None, Some((Cause::None | Cause::Abandoned, _))) => End::Killed,
            (None, None, None) => End::LauncherLost,
        }
    }

    fn is_out_of_memory(&self) -> bool {
        self.group.oom_kills.is_some_and(|kills| kills > 0)
    }

    pub(super) fn group(&self) -> GroupUsage {
        self.group
    }

    /// A list of the calls that were seen.
    pub(super) fn learned(&self) -> Option<String> {
        // It fails only if a list that comes with the crate can't be read.
        self.observed.as_ref().and_then(|observed| observed.profile("learned").ok())
    }

    pub(super) fn denials(&self) -> Vec<Denial> {
        let named = |(number, count): (&u32, &u32)| Denial {
            call: names::name(*number).into_owned(),
            count: *count,
        };
        self.denied.iter().map(named).collect()
    }

    /// The group's numbers count everything. The zygote's leave out what nobody has waited for, and the first
    /// process's also what hadn't ended by then.
    pub(super) fn usage(&self) -> Usage {
        let reaped = self.reaped.map(|(_, usage)| usage);
        let known = reaped.or(self.ended.map(|(_, usage)| usage)).unwrap_or_default();
        let peak = self.group.memory_peak_bytes.unwrap_or_default();
        Usage {
            user: self.group.cpu_user.unwrap_or(known.user),
            system: self.group.cpu_system.unwrap_or(known.system),
            peak_resident_bytes: known.peak_resident_bytes.max(peak),
        }
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

    fn reaped(cause: Cause) -> Record {
        Record::Reaped { cause, usage: USAGE, groups: GroupUsage::default() }
    }

    #[test]
    fn a_kill_for_want_of_memory_is_told_apart() {
        let groups = GroupUsage { oom_kills: Some(1), ..GroupUsage::default() };
        // A shell whose child was killed may report it before it is ended with the rest.
        for status in [9, (128 + 9) << 8, 0] {
            let mut state = State::new();
            state.hear(Some(Record::Ended { status, usage: USAGE }));
            state.hear(Some(Record::Reaped { cause: Cause::Memory, usage: USAGE, groups }));
            assert_eq!(state.end(), End::Memory, "{status}");
        }
        let mut state = State::new();
        state.hear(Some(Record::Ended { status: 9, usage: USAGE }));
        state.hear(Some(reaped(Cause::None)));
        assert_eq!(state.end(), End::Signalled(9));
    }

    #[test]
    fn processor_time_is_used_up_only_by_who_has_used_some() {
        let second = std::time::Duration::from_secs(1);
        let long = Usage { user: second / 2, system: second / 2, ..USAGE };
        let forged = End::Signalled(libc::SIGXCPU);
        for (usage, end) in [(USAGE, forged), (long, End::CpuTime)] {
            let mut state = State::new();
            state.hear(Some(Record::Ended { status: libc::SIGXCPU, usage }));
            state.hear(Some(reaped(Cause::None)));
            assert_eq!(state.end(), end);
        }
    }

    #[test]
    fn what_nobody_waited_for_counts_where_the_group_counts() {
        let second = std::time::Duration::from_secs(1);
        let usage = Usage { user: 2 * second, system: second, peak_resident_bytes: 7 };
        let groups = GroupUsage {
            cpu_user: Some(9 * second),
            memory_peak_bytes: Some(5),
            ..GroupUsage::default()
        };
        let mut state = State::new();
        state.hear(Some(Record::Reaped { cause: Cause::WallTime, usage, groups }));
        assert_eq!(state.usage(), Usage { user: 9 * second, ..usage });
        let groups = GroupUsage { memory_peak_bytes: Some(8), ..groups };
        state.hear(Some(Record::Reaped { cause: Cause::WallTime, usage, groups }));
        assert_eq!(state.usage().peak_resident_bytes, 8);
    }

    #[test]
    fn refused_calls_are_named_and_counted() {
        let mut state = State::new();
        for count in [1, 4] {
            state.hear(Some(Record::Denied { number: 165, count }));
        }
        assert_eq!(state.denials(), [Denial { call: "mount".to_owned(), count: 4 }]);
    }

    #[test]
    fn a_program_ends_by_itself() {
        let mut state = State::new();
        assert!(!state.hear(Some(Record::Ended { status: 3 << 8, usage: Usage::default() })));
        state.ask_to_end(End::Cancelled);
        assert!(state.hear(Some(reaped(Cause::None))));
        assert_eq!(state.end(), End::Exited(3));
        assert_eq!(state.usage(), USAGE);
    }

    #[test]
    fn the_first_reason_counts() {
        let mut state = State::new();
        state.ask_to_end(End::WallTime);
        state.ask_to_end(End::Cancelled);
        assert!(state.hear(Some(reaped(Cause::None))));
        assert_eq!(state.end(), End::WallTime);
    }

    #[test]
    fn silence_is_a_lost_launcher_and_a_bare_end_is_a_kill() {
        let mut state = State::new();
        assert!(state.hear(None));
        assert_eq!(state.end(), End::LauncherLost);
        let mut state = State::new();
        assert!(state.hear(Some(reaped(Cause::None))));
        assert_eq!(state.end(), End::Killed);
        let mut state = State::new();
        assert!(state.hear(Some(reaped(Cause::WallTime))));
        assert_eq!(state.end(), End::WallTime);
    }

    #[test]
    fn what_may_still_run_has_no_other_end() {
        let mut state = State::new();
        assert!(!state.hear(Some(Record::Ended { status: 0, usage: USAGE })));
        state.ask_to_end(End::WallTime);
        assert!(!state.is_lasting());
        assert!(!state.hear(Some(Record::Lasting)));
        assert!(state.is_lasting() && !state.is_reaped());
        state.lose_sight();
        assert_eq!(state.end(), End::NotGone);
    }

    #[test]
    fn lost_output_is_never_passed_over() {
        let mut state = State::new();
        assert!(!state.hear(Some(Record::Ended { status: 0, usage: USAGE })));
        state.ask_to_end(End::OutputLimit);
        assert_eq!(state.end(), End::OutputLimit);
    }
}
