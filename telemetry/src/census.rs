//! Living actors and their mailboxes by kind, counted at scrape from the kernel's own census, so
//! that the numbers can't drift from what lives.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use neuroflow_kernel::Census;
use prometheus::proto::MetricFamily;

use crate::family::OTHER;
use crate::instrument::MetricError;
use crate::instruments::{Instruments, gauges};
use crate::limits::MAX_LABEL_VALUES;
use crate::metrics::{ACTORS, MAILBOX_DEPTH, MAILBOX_DEPTH_MAX};

/// The kernel that is watched; none before it has started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watched(Arc<RwLock<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    census: Option<Census>,
    /// Kinds of earlier scrapes: a kind whose last actor has ended is 0, not absent.
    kinds: BTreeMap<&'static str, Crowd>,
}

/// What is known about the actors of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Crowd {
    actors: usize,
    depth: usize,
    max: usize,
}

impl Watched {
    pub(crate) fn watch(&self, census: Census) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).census = Some(census);
    }

    pub(crate) fn register(&self, instruments: &Instruments) -> Result<(), MetricError> {
        let described =
            vec![ACTORS.described()?, MAILBOX_DEPTH.described()?, MAILBOX_DEPTH_MAX.described()?];
        let watched = self.clone();
        instruments.collect(described, move || watched.families())
    }

    fn families(&self) -> Vec<MetricFamily> {
        let census = self.0.read().unwrap_or_else(PoisonError::into_inner).census.clone();
        let Some(census) = census else { return Vec::new() };
        let now = crowds(census.tree().iter().map(|actor| (actor.kind, actor.mailbox_depth)));
        let mut seen = self.0.write().unwrap_or_else(PoisonError::into_inner);
        seen.kinds.values_mut().for_each(|crowd| *crowd = Crowd::default());
        seen.kinds.extend(now);
        let by = |value: fn(&Crowd) -> usize| -> Vec<([&str; 1], f64)> {
            seen.kinds.iter().map(|(kind, crowd)| ([*kind], number(value(crowd)))).collect()
        };
        [
            gauges(&ACTORS, &by(|crowd| crowd.actors)),
            gauges(&MAILBOX_DEPTH, &by(|crowd| crowd.depth)),
            gauges(&MAILBOX_DEPTH_MAX, &by(|crowd| crowd.max)),
        ]
        .concat()
    }
}

fn crowds(actors: impl Iterator<Item = (&'static str, usize)>) -> BTreeMap<&'static str, Crowd> {
    let mut crowds: BTreeMap<&'static str, Crowd> = BTreeMap::new();
    for (kind, depth) in actors {
        let room = crowds.len() < MAX_LABEL_VALUES - 1 || crowds.contains_key(kind);
        let crowd = crowds.entry(if room { kind } else { OTHER }).or_default();
        crowd.actors += 1;
        crowd.depth += depth;
        crowd.max = crowd.max.max(depth);
    }
    crowds
}

#[expect(clippy::cast_precision_loss, reason = "2^53 actors or messages don't fit in a machine")]
fn number(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depths_are_summed_and_the_fullest_is_found() {
        let crowds = crowds([("agent", 3), ("tool", 1), ("agent", 5)].into_iter());
        assert_eq!(crowds["agent"], Crowd { actors: 2, depth: 8, max: 5 });
        assert_eq!(crowds["tool"], Crowd { actors: 1, depth: 1, max: 1 });
    }

    #[test]
    fn kinds_beyond_the_bound_are_counted_together() {
        let kinds: Vec<&'static str> =
            (0..100).map(|n| &*Box::leak(n.to_string().into_boxed_str())).collect();
        let crowds = crowds(kinds.into_iter().map(|kind| (kind, 1)));
        assert_eq!(crowds.len(), MAX_LABEL_VALUES);
        assert_eq!(crowds[OTHER].actors, 100 - (MAX_LABEL_VALUES - 1));
    }

    #[test]
    fn without_a_kernel_there_is_nothing_to_count() {
        assert!(Watched::default().families().is_empty());
    }
}
