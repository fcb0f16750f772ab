//! All attempts, in the order in which they are made.

use super::{Attempt, Class, Control, Goal, Limits, Reach, Sign, probe, races};

/// An attempt and who makes it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) attempt: Attempt,
    /// What the attacker does.
    pub(super) inside: Option<probe::Try>,
    /// What the host does, if the attack isn't just a program in a cell.
    pub(super) around: Option<races::Around>,
}

/// Every attempt.
pub(super) fn entries() -> impl Iterator<Item = &'static Entry> {
    probe::GROUPS.into_iter().chain([races::ENTRIES]).flatten()
}

/// One attempt with the usual limits, that does no harm and has a control for everybody.
pub(super) const fn entry(
    class: Class,
    name: &'static str,
    about: &'static str,
    signs: &'static [Sign],
    inside: probe::Try,
) -> Entry {
    let attempt = Attempt {
        name,
        class,
        about,
        quick: false,
        control: Control::Plain,
        reach: Reach::Harmless,
        goal: Goal::Reach,
        limits: Limits::Usual,
        signs,
    };
    Entry { attempt, inside: Some(inside), around: None }
}

impl Entry {
    pub(super) const fn quick(mut self) -> Self {
        self.attempt.quick = true;
        self
    }

    /// The control works for root only.
    pub(super) const fn for_root(mut self) -> Self {
        self.attempt.control = Control::Root;
        self
    }

    /// What can't be shown without a cell isn't tried in one that promises nothing either.
    pub(super) const fn without_control(mut self, why: &'static str) -> Self {
        self.attempt.control = Control::None(why);
        self.attempt.reach = Reach::Bounded;
        self
    }

    /// It runs only where it has to be stopped.
    pub(super) const fn bounded(mut self, limits: Limits, goal: Goal) -> Self {
        self.attempt.reach = Reach::Bounded;
        self.attempt.limits = limits;
        self.attempt.goal = goal;
        self
    }

    /// As [`Entry::bounded`], without a word about a control.
    pub(super) const fn bomb(self, limits: Limits) -> Self {
        self.bounded(limits, Goal::Reach)
            .without_control("what no limit holds doesn't belong outside of a cell")
    }

    /// What is judged by what is left of it.
    pub(super) const fn outliving(self, limits: Limits) -> Self {
        self.bounded(limits, Goal::Outlive)
            .without_control("nothing would end it outside of a cell")
    }

    pub(super) const fn around(mut self, around: races::Around) -> Self {
        self.around = Some(around);
        self
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{escape::expected, level::Level};

    #[test]
    fn every_attempt_has_a_name_of_its_own_and_a_promise() {
        let mut names = BTreeSet::new();
        for entry in entries() {
            let name = entry.attempt.name;
            assert!(names.insert(name), "{name} twice");
            assert!(entry.attempt.about.ends_with(['.', '?']), "{name}");
            let promised = |level| !expected::walls(name, level, &[]).is_empty();
            assert!(promised(Level::Strict) || promised(Level::Paranoid), "{name}");
            assert!(!entry.attempt.signs.is_empty() || entry.around.is_some(), "{name}");
            assert!(entry.inside.is_some() || entry.around.is_some(), "{name}");
        }
        for name in expected::names() {
            assert!(names.contains(name), "{name} is promised and not tried");
        }
    }

    #[test]
    fn every_class_is_attacked() {
        for class in Class::ALL {
            assert!(entries().any(|entry| entry.attempt.class == class), "{class}");
        }
    }
}
