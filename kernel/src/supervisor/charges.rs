//! The children in a supervisor's charge: in start order, by name, and by when they are due.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::ChildSpec;
use crate::clock::Moment;
use crate::id::ActorId;
use crate::name::Name;
use crate::restart::Strategy;

/// A child's place in the start order, for as long as it's in charge.
pub(super) type Place = u64;

/// A child in a supervisor's charge.
pub(super) struct Charge {
    pub(super) spec: ChildSpec,
    /// Whether the supervisor starts it itself, in every life.
    pub(super) own: bool,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    Alive(ActorId),
    Down { due: Moment },
}

#[derive(Default)]
pub(super) struct Charges {
    started: Place,
    by_place: BTreeMap<Place, Charge>,
    by_name: HashMap<Name, Place>,
    down: BTreeSet<(Moment, Place)>,
}

impl Charges {
    pub(super) fn len(&self) -> usize {
        self.by_place.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Charge> {
        self.by_place.values()
    }

    pub(super) fn get(&self, place: Place) -> Option<&Charge> {
        self.by_place.get(&place)
    }

    pub(super) fn place(&self, name: &Name) -> Option<Place> {
        self.by_name.get(name).copied()
    }

    /// Where a child of this name stands, if this is the life that it's in.
    pub(super) fn place_of_life(&self, name: &Name, id: ActorId) -> Option<Place> {
        let place = self.place(name)?;
        match self.get(place)?.state {
            State::Alive(alive) if alive == id => Some(place),
            State::Alive(_) | State::Down { .. } => None,
        }
    }

    pub(super) fn is_alive(&self, place: Place) -> bool {
        self.get(place).is_some_and(|charge| matches!(charge.state, State::Alive(_)))
    }

    pub(super) fn add(&mut self, spec: ChildSpec, own: bool, id: ActorId) {
        self.started += 1;
        self.by_name.insert(spec.name.clone(), self.started);
        self.by_place.insert(self.started, Charge { spec, own, state: State::Alive(id) });
    }

    pub(super) fn remove(&mut self, place: Place) -> Option<Charge> {
        let charge = self.by_place.remove(&place)?;
        self.by_name.remove(&charge.spec.name);
        self.rise(place, charge.state);
        Some(charge)
    }

    pub(super) fn alive(&mut self, place: Place, id: ActorId) {
        self.become_state(place, State::Alive(id));
    }

    pub(super) fn down(&mut self, place: Place, due: Moment) {
        self.become_state(place, State::Down { due });
        self.down.insert((due, place));
    }

    fn become_state(&mut self, place: Place, state: State) {
        let Some(charge) = self.by_place.get_mut(&place) else { return };
        let former = std::mem::replace(&mut charge.state, state);
        self.rise(place, former);
    }

    fn rise(&mut self, place: Place, former: State) {
        if let State::Down { due } = former {
            self.down.remove(&(due, place));
        }
    }

    /// Whom a failure at this place takes along, in start order.
    pub(super) fn affected(&self, strategy: Strategy, failed: Place) -> Vec<Place> {
        if strategy == Strategy::OneForOne {
            return vec![failed];
        }
        let places: Vec<Place> = self.by_place.keys().copied().collect();
        let position = places.partition_point(|&place| place < failed);
        places.get(strategy.affected(position, places.len())).unwrap_or_default().to_vec()
    }

    /// Those whose wait is over, in start order.
    pub(super) fn due(&self, now: Moment) -> Vec<Place> {
        let due = self.down.iter().take_while(|&&(due, _)| due <= now);
        let mut places: Vec<Place> = due.map(|&(_, place)| place).collect();
        places.sort_unstable();
        places
    }

    pub(super) fn is_due(&self, place: Place, now: Moment) -> bool {
        self.get(place)
            .is_some_and(|charge| matches!(charge.state, State::Down { due } if due <= now))
    }

    pub(super) fn next_due(&self) -> Option<Moment> {
        self.down.first().map(|&(due, _)| due)
    }
}
