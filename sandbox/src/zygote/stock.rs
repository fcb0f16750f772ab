//! Which first processes are made ahead, and how many. Pure.
//!
//! They are of the sort that was asked for last. Those of other sorts stay until there are too many,
//! so that a host whose launches alternate finds one of each.

use crate::{limits, linux::seedling::Sort};

/// What the zygote's stock of first processes should be.
#[derive(Debug, Default)]
pub(super) struct Stock {
    wanted: Option<Sort>,
    /// Those in a row that ended before they had a plan.
    withered: u16,
}

/// What is to be done about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due<'a> {
    /// One of this sort is to be made.
    Make(&'a Sort),
    /// This one is to go.
    End(i32),
}

impl Stock {
    /// A cell of this sort was asked for.
    pub(super) fn want(&mut self, sort: Sort) {
        if self.wanted.as_ref() != Some(&sort) {
            self.withered = 0;
            self.wanted = Some(sort);
        }
    }

    /// One became a cell.
    pub(super) fn used(&mut self) {
        self.withered = 0;
    }

    /// One ended, or could not be made. After a few in a row something is wrong, and cells are made
    /// from scratch, which says what.
    pub(super) fn withered(&mut self) {
        self.withered = self.withered.saturating_add(1);
    }

    /// The next thing to do, with these in stock.
    pub(super) fn due<'a>(
        &self,
        stocked: impl Iterator<Item = (i32, &'a Sort)> + Clone,
    ) -> Option<Due<'_>> {
        let wanted = self.wanted.as_ref()?;
        if self.withered >= limits::MAX_STILLBORN {
            return None;
        }
        let of_sort = stocked.clone().filter(|(_, sort)| *sort == wanted).count();
        if of_sort >= limits::STOCKED_SEEDLINGS {
            return None;
        }
        let mut others = stocked.clone().filter(|(_, sort)| *sort != wanted);
        match others.next() {
            Some((pid, _)) if stocked.count() >= limits::MOST_SEEDLINGS => Some(Due::End(pid)),
            _ => Some(Due::Make(wanted)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Ground;

    fn sort(landlock: u32) -> Sort {
        let ground =
            Ground { loopback: false, egress: false, no_proc: false, bare_proc: true, landlock };
        Sort { ground, limits: None, points: Vec::new() }
    }

    #[test]
    fn nothing_is_made_before_somebody_asks() {
        assert_eq!(Stock::default().due([].into_iter()), None);
    }

    #[test]
    fn there_are_a_few_of_the_sort_that_was_wanted_last() {
        let (mut stock, first, second) = (Stock::default(), sort(1), sort(2));
        stock.want(first.clone());
        let mut there = Vec::new();
        while let Some(due) = stock.due(there.iter().map(|sort| (7, sort))) {
            assert_eq!(due, Due::Make(&first));
            there.push(first.clone());
        }
        assert_eq!(there.len(), limits::STOCKED_SEEDLINGS);
        // Others stay as long as there is room.
        stock.want(second.clone());
        while let Some(Due::Make(made)) = stock.due(there.iter().map(|sort| (7, sort))) {
            there.push(made.clone());
        }
        assert!(there.len() <= limits::MOST_SEEDLINGS);
        assert!(there.contains(&first));
        let all = there.iter().map(|sort| (7, sort));
        let enough = there.iter().filter(|sort| **sort == second).count();
        assert!(enough == limits::STOCKED_SEEDLINGS || stock.due(all) == Some(Due::End(7)));
    }

    #[test]
    fn sorts_that_always_wither_are_left_alone_until_another_is_wanted() {
        let mut stock = Stock::default();
        stock.want(sort(1));
        for _ in 0..limits::MAX_STILLBORN {
            assert!(stock.due([].into_iter()).is_some());
            stock.withered();
        }
        assert_eq!(stock.due([].into_iter()), None);
        stock.want(sort(1));
        assert_eq!(stock.due([].into_iter()), None);
        stock.want(sort(2));
        assert!(stock.due([].into_iter()).is_some());
    }
}
