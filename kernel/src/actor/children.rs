//! The children of one actor, found by name or cell, and stopped in reverse start order.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ractor::ActorCell;

use crate::core::{Core, subject};
use crate::event::Lifecycle;
use crate::mailbox::{ActorState, Stop, Vitals};
use crate::name::Name;

/// A living child. It doesn't outlive this: dropping it kills the child, if it still lives.
pub(super) struct Child {
    pub(super) cell: ActorCell,
    pub(super) mailbox: Arc<dyn Stop>,
    pub(super) vitals: Arc<Vitals>,
    pub(super) name: Name,
    pub(super) stop_within: Duration,
}

impl Child {
    /// Its end is awaited here and no longer told to its parent. Without a parent `ractor` drops
    /// the state when the child ends, and not when the parent comes to read of it.
    fn part(&self) {
        if let Some(parent) = self.cell.try_get_supervisor() {
            self.cell.unlink(parent);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.vitals.is_gone() {
            self.part();
            // Not left to `ractor`, which spares a child whose `stopping` hook already runs.
            self.cell.kill();
        }
    }
}

/// Most actors have no children, and pay a pointer for them.
#[derive(Default)]
pub(super) struct Children(Option<Box<Family>>);

#[derive(Default)]
struct Family {
    born: u64,
    by_order: BTreeMap<u64, Child>,
    by_cell: HashMap<ractor::ActorId, u64>,
    by_name: HashMap<Name, u64>,
}

impl Children {
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |family| family.by_order.len())
    }

    /// Whether a child of this name lives. One that has ended frees its name, also while its
    /// parent has still to hear of the end.
    pub(super) fn has(&self, name: &Name) -> bool {
        let Some(family) = &self.0 else { return false };
        let child = family.by_name.get(name).and_then(|order| family.by_order.get(order));
        child.is_some_and(|child| !child.vitals.is_gone())
    }

    pub(super) fn add(&mut self, child: Child) {
        let family = self.0.get_or_insert_default();
        family.born += 1;
        family.by_cell.insert(child.cell.get_id(), family.born);
        family.by_name.insert(child.name.clone(), family.born);
        family.by_order.insert(family.born, child);
    }

    pub(super) fn remove_named(&mut self, name: &Name) -> Option<Child> {
        let order = *self.0.as_ref()?.by_name.get(name)?;
        self.remove(order)
    }

    pub(super) fn remove_cell(&mut self, cell: ractor::ActorId) -> Option<Child> {
        let order = *self.0.as_ref()?.by_cell.get(&cell)?;
        self.remove(order)
    }

    pub(super) fn remove_youngest(&mut self) -> Option<Child> {
        let order = *self.0.as_ref()?.by_order.last_key_value()?.0;
        self.remove(order)
    }

    fn remove(&mut self, order: u64) -> Option<Child> {
        let family = self.0.as_mut()?;
        let child = family.by_order.remove(&order)?;
        family.by_cell.remove(&child.cell.get_id());
        if family.by_name.get(&child.name) == Some(&order) {
            family.by_name.remove(&child.name);
        }
        if family.by_order.is_empty() {
            self.0 = None;
        }
        Some(child)
    }

    pub(super) fn kill_all(&mut self) {
        self.0 = None;
    }
}

/// Asks a child to stop, waits until nothing of it is left, and kills it past its deadline.
pub(super) async fn stop_child(core: &Core, child: Child) {
    child.part();
    child.mailbox.stop();
    let deadline = core.clock.now() + child.stop_within;
    if core.clock.before(deadline, child.vitals.gone()).await.is_err() {
        kill_child(core, child).await;
    }
}

/// Kills a child and waits until nothing of it is left.
pub(super) async fn kill_child(core: &Core, child: Child) {
    child.part();
    child.vitals.enter(ActorState::Ended);
    child.cell.kill();
    // A handler that never awaits can't be killed; waiting for ever would hang its parent.
    let deadline = core.clock.now() + child.stop_within;
    let gone = core.clock.before(deadline, child.vitals.gone()).await.is_ok();
    if !gone && child.vitals.take_report() {
        core.notify(&Lifecycle::Killed { actor: subject(&child.vitals) });
    }
}
