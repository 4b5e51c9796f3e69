//! Replication slots: those of members, which come and go with them, and those that are there whoever leads.

use std::collections::{BTreeMap, BTreeSet};

use super::{SlotCopying, View, topology};
use crate::action::Action;
use crate::lsn::Lsn;
use crate::name::{NodeName, SlotName};
use crate::observation::{Cluster, ClusterSettings, JobKind, PermanentSlot, Primary, Slots, Standby};
use crate::time::Millis;

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
    wanted: &[SlotName],
    slots: &Slots,
) -> BTreeSet<SlotName> {
    // Left from a time as primary, or of who streams from elsewhere now.
    let of_a_member = |slot: &&SlotName| cluster.members.keys().any(|name| name != view.me() && name.owns(slot));
    let was_permanent =
        |slot: &&SlotName| view.memory.permanent.contains(*slot) && !settings.permanent_slots.contains_key(*slot);
    let given_up = |slot: &&SlotName| view.is_given_up(slot, settings);
    let logical = || slots.logical.iter().filter(|(_, slot)| !slot.active);
    // Asked for as one kind, and there as the other; or there and of no use.
    let wrong = |slot: &&SlotName, logical: bool| {
        view.memory.permanent.contains(*slot)
            && settings.permanent_slots.contains_key(*slot)
            && is_logical(settings, slot) != logical
    };
    let spoilt = slots.physical.iter().filter(|(name, slot)| slot.spoilt && !slot.active && wanted.contains(name));
    (slots.idle().filter(|slot| !wanted.contains(slot)))
        .filter(|slot| of_a_member(slot) || was_permanent(slot) || given_up(slot) || wrong(slot, false))
        .chain(spoilt.map(|(name, _)| name))
        .chain(logical().map(|(name, _)| name).filter(|slot| was_permanent(slot) || wrong(slot, true)))
        .chain(logical().filter(|(name, slot)| slot.spoilt && is_logical(settings, name)).map(|(name, _)| name))
        .cloned()
        .collect()
}

/// Out with those that nobody wants; then there may be room for those that are missing.
fn exchange(unused: BTreeSet<SlotName>, wanted: Vec<SlotName>, slots: &Slots) -> Vec<Action> {
    let missing: BTreeSet<SlotName> = wanted.into_iter().filter(|slot| !slots.has(slot)).collect();
    let mut actions = Vec::new();
    if !unused.is_empty() {
        actions.push(Action::DropSlots(unused));
    }
    if !missing.is_empty() {
        actions.push(Action::CreateSlots(missing));
    }
    actions
}

/// What a leader does about its slots.
pub(super) fn of_leader(
    view: &mut View<'_>,
    cluster: &Cluster,
    settings: &ClusterSettings,
    primary: &Primary,
) -> Vec<Action> {
    let slots = &primary.slots;
    let mut wanted: Vec<SlotName> = topology::slots_of(cluster, view.me(), view.me()).collect();
    wanted.extend(physical(settings).cloned());
    // Of members that are away: WAL is kept for them, whoever led when they went.
    let away = |slot: &&SlotName| view.memory.away.contains_key(*slot) && !view.is_given_up(slot, settings);
    wanted.extend(cluster.retained_slots.iter().filter(away).cloned());
    let unused = unused(view, cluster, settings, &wanted, slots);
    let mut actions = exchange(unused, wanted, slots);
    let missing: BTreeMap<SlotName, PermanentSlot> = (settings.permanent_slots.iter())
        .filter(|(name, kind)| **kind != PermanentSlot::Physical && !slots.has(name))
        .map(|(name, kind)| (name.clone(), kind.clone()))
        .collect();
    if !missing.is_empty() && is_due(view, CREATION) {
        actions.push(Action::CreateLogicalSlots(missing));
    }
    actions
}

/// What is missing for the members that will stream from `me` once it is the primary. A standby can have slots, too.
pub(super) fn of_members(me: &NodeName, cluster: &Cluster, standby: &Standby) -> Option<Action> {
    let missing: BTreeSet<SlotName> =
        topology::slots_of(cluster, me, me).filter(|slot| !standby.slots.has(slot)).collect();
    (!missing.is_empty()).then_some(Action::CreateSlots(missing))
}

/// Work in the background is looked at again after so many heartbeats.
const CREATION: u64 = 10;

fn is_due(view: &mut View<'_>, heartbeats: u64) -> bool {
    let (now, pause) = (view.now(), Millis(view.timing().heartbeat.0 * heartbeats));
    let due = view.memory.slot_work.is_none_or(|ordered| now.since(ordered) >= pause);
    if due {
        view.memory.slot_work = Some(now);
    }
    due
}

/// How far the leader's slots are; nothing is known while what is on record is of the leader before, who may have had what the
/// cluster then lost.
fn positions<'a>(cluster: &'a Cluster, leader: &NodeName) -> Option<&'a BTreeMap<SlotName, Lsn>> {
    let leads_on = cluster.members.get(leader).filter(|member| member.is_primary).and_then(|member| member.timeline);
    (leads_on.is_some() && leads_on == cluster.positions_on).then_some(&cluster.slot_positions)
}

/// What a standby does about its slots.
pub(super) fn of_standby(
    view: &mut View<'_>,
    cluster: &Cluster,
    settings: &ClusterSettings,
    leader: &NodeName,
    standby: &Standby,
) -> Vec<Action> {
    let slots = &standby.slots;
    let mut wanted: Vec<SlotName> = topology::slots_of(cluster, leader, view.me()).collect();
    wanted.extend(physical(settings).cloned());
    let mut unused = unused(view, cluster, settings, &wanted, slots);
    // None but our copies can be here.
    unused.extend(slots.logical.keys().filter(|slot| !is_logical(settings, slot)).cloned());
    let mut actions = exchange(unused, wanted, slots);
    // Where nobody streams through them they would keep WAL for ever.
    let behind: BTreeMap<SlotName, Lsn> = (settings.permanent_slots.keys())
        .filter_map(|name| {
            let slot = slots.physical.get(name).or_else(|| slots.logical.get(name)).filter(|slot| !slot.active)?;
            let leaders = positions(cluster, leader)?.get(name).filter(|_| !slot.spoilt)?;
            // A slot cannot be moved beyond what has been replayed.
            let to = (*leaders).min(standby.replayed);
            (to > slot.position).then(|| (name.clone(), to))
        })
        .collect();
    if !behind.is_empty() && is_due(view, 1) {
        actions.push(Action::AdvanceSlots(behind));
    }
    actions
}

/// Logical slots that this standby needs to carry on with, should it lead, and does not have. Copying them restarts Postgres:
/// members do it one after the other, not while a change of the leader is asked for, and not again when it did not help.
pub(super) fn to_copy(
    view: &mut View<'_>,
    cluster: &Cluster,
    settings: &ClusterSettings,
    leader: &NodeName,
    standby: &Standby,
) -> BTreeSet<SlotName> {
    let barred = view.settings.nofailover || view.settings.nostream;
    let asked = cluster.failover.as_ref().is_some_and(|request| !request.later);
    if barred || settings.paused || asked || view.backing_off(JobKind::CopySlots) {
        return BTreeSet::new();
    }
    let leaders = positions(cluster, leader);
    let position = |slot: &SlotName| leaders.and_then(|it| it.get(slot));
    let mut missing: BTreeSet<SlotName> = (settings.permanent_slots.keys())
        .filter(|slot| is_logical(settings, slot) && !standby.slots.has(slot) && position(slot).is_some())
        .cloned()
        .collect();
    let now = view.now();
    if missing.is_empty() {
        if let Some(copying) = &mut view.memory.copying {
            copying.since = now;
        }
        return missing;
    }
    let place = cluster.members.keys().filter(|name| *name < view.me()).count() as u64;
    let turn = Millis(view.timing().ttl.0 * place);
    let pause = view.settings.standstill;
    let copying = view.memory.copying.get_or_insert(SlotCopying { since: now, done: None });
    let waits = now.since(copying.since) < turn || copying.done.is_some_and(|done| now.since(done) < pause);
    // One that is further than this standby, for the moment, does not make it lose its turn.
    missing.retain(|slot| position(slot).is_some_and(|position| standby.replayed >= *position));
    if waits || missing.is_empty() {
        return BTreeSet::new();
    }
    copying.done = Some(now);
    missing
}
