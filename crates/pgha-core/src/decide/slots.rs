//! Replication slots: those of members, which come and go with them, and those that are there whoever leads.

use std::collections::{BTreeMap, BTreeSet};

use super::{View, topology};
use crate::action::Action;
use crate::lsn::Lsn;
use crate::name::{NodeName, SlotName};
use crate::observation::{Cluster, ClusterSettings, JobKind, PermanentSlot, Primary, Slots, Standby};

fn physical(settings: &ClusterSettings) -> impl Iterator<Item = &SlotName> {
    settings.permanent_slots.iter().filter(|(_, kind)| **kind == PermanentSlot::Physical).map(|(name, _)| name)
}

fn is_logical(settings: &ClusterSettings, slot: &SlotName) -> bool {
    matches!(settings.permanent_slots.get(slot), Some(PermanentSlot::Logical { .. }))
}

/// Slots that nobody wants any more. Those of strangers are none of our business.
fn unused(
    view: &View<'_>,
    cluster: &Cluster,
    settings: &ClusterSettings,
    wanted: &BTreeSet<SlotName>,
    slots: &Slots,
) -> BTreeSet<SlotName> {
    // Left from a time as primary, or of who streams from elsewhere now.
    let of_a_member = |slot: &&SlotName| cluster.members.keys().any(|name| name != view.me() && name.owns(slot));
    let was_permanent =
        |slot: &&SlotName| view.memory.permanent.contains(*slot) && !settings.permanent_slots.contains_key(*slot);
    let given_up = |slot: &&SlotName| view.is_given_up(slot, settings);
    let logical = slots.logical.iter().filter(|(_, slot)| !slot.active).map(|(name, _)| name);
    (slots
        .idle()
        .filter(|slot| !wanted.contains(*slot))
        .filter(|slot| of_a_member(slot) || was_permanent(slot) || given_up(slot)))
    .chain(logical.filter(was_permanent))
    .cloned()
    .collect()
}

/// What a leader does about its slots.
pub(super) fn of_leader(
    view: &View<'_>,
    cluster: &Cluster,
    settings: &ClusterSettings,
    primary: &Primary,
) -> Vec<Action> {
    let slots = &primary.slots;
    let mut actions = Vec::new();
    let mut wanted = topology::slots_of(cluster, view.me(), view.me());
    wanted.extend(physical(settings).cloned());
    // Of members that are away: WAL is kept for them, whoever led when they went.
    let away = |slot: &&SlotName| view.memory.away.contains_key(*slot) && !view.is_given_up(slot, settings);
    wanted.extend(cluster.retained_slots.iter().filter(away).cloned());
    let mut unused = unused(view, cluster, settings, &wanted, slots);
    unused.extend(slots.physical.keys().filter(|slot| view.is_given_up(slot, settings)).cloned());
    if !unused.is_empty() {
        actions.push(Action::DropSlots(unused));
    }
    // There may be room for them only now.
    let missing: BTreeSet<SlotName> = wanted.into_iter().filter(|slot| !slots.physical.contains_key(slot)).collect();
    if !missing.is_empty() {
        actions.push(Action::CreateSlots(missing));
    }
    let missing: BTreeMap<SlotName, PermanentSlot> = (settings.permanent_slots.iter())
        .filter(|(name, kind)| **kind != PermanentSlot::Physical && !slots.logical.contains_key(*name))
        .map(|(name, kind)| (name.clone(), kind.clone()))
        .collect();
    if !missing.is_empty() {
        actions.push(Action::CreateLogicalSlots(missing));
    }
    actions
}

/// What a standby does about its slots.
pub(super) fn of_standby(
    view: &View<'_>,
    cluster: &Cluster,
    settings: &ClusterSettings,
    leader: &NodeName,
    standby: &Standby,
) -> Vec<Action> {
    let slots = &standby.slots;
    let mut actions = Vec::new();
    let mut wanted = topology::slots_of(cluster, leader, view.me());
    wanted.extend(physical(settings).cloned());
    let mut unused = unused(view, cluster, settings, &wanted, slots);
    // None but our copies can be here.
    unused.extend(slots.logical.keys().filter(|slot| !is_logical(settings, slot)).cloned());
    if !unused.is_empty() {
        actions.push(Action::DropSlots(unused));
    }
    let missing: BTreeSet<SlotName> = wanted.into_iter().filter(|slot| !slots.physical.contains_key(slot)).collect();
    if !missing.is_empty() {
        actions.push(Action::CreateSlots(missing));
    }
    // Where nobody streams through them they would keep WAL for ever.
    let behind: BTreeMap<SlotName, Lsn> = (settings.permanent_slots.keys())
        .filter_map(|name| {
            let slot = slots.physical.get(name).or_else(|| slots.logical.get(name)).filter(|slot| !slot.active)?;
            let leaders = cluster.slot_positions.get(name)?;
            // A slot cannot be moved beyond what has been replayed.
            let to = (*leaders).min(standby.replayed);
            (to > slot.position).then(|| (name.clone(), to))
        })
        .collect();
    if !behind.is_empty() {
        actions.push(Action::AdvanceSlots(behind));
    }
    actions
}

/// Logical slots that this standby needs to carry on with, should it lead, and does not have.
pub(super) fn to_copy(
    view: &View<'_>,
    cluster: &Cluster,
    settings: &ClusterSettings,
    standby: &Standby,
) -> BTreeSet<SlotName> {
    if view.settings.nofailover || view.backing_off(JobKind::CopySlots) || settings.paused {
        return BTreeSet::new();
    }
    settings
        .permanent_slots
        .keys()
        .filter(|slot| is_logical(settings, slot) && !standby.slots.logical.contains_key(*slot))
        .filter(|slot| cluster.slot_positions.get(*slot).is_some_and(|position| standby.replayed >= *position))
        .cloned()
        .collect()
}
