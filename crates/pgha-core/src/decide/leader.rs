//! The leader znode carries my name.

use std::collections::BTreeSet;
use std::ops::ControlFlow::{self, Break, Continue};

use super::{Decision, View, cluster_settings, may_accept_writes};
use crate::action::{Action, StartAs};
use crate::lsn::Timeline;
use crate::name::{NodeName, SlotName};
use crate::observation::{
    Cluster, Control, ControlState, FailoverRequest, Initialize, JobKind, Postgres, Primary, Request, Role, Running,
    Watchdog,
};
use crate::reason::Reason;
use crate::sync::{self, Step};
use crate::time::Millis;

/// While a setting settles or a standby catches up, look again after this.
const SETTLING: Millis = Millis(100);

/// The next renewal, if it is due.
pub(super) fn renewal(view: &View<'_>) -> Vec<Action> {
    let crate::observation::Dcs::Seen(cluster) = &view.obs.dcs else {
        return Vec::new();
    };
    let mine = cluster.leader.as_ref().is_some_and(|leader| leader.is_my_session && leader.name == *view.me());
    match cluster.epoch.version {
        Some(version) if mine && until_renewal(view) == Millis(0) => {
            let settings = cluster_settings(cluster);
            let known = cluster.members.keys().map(NodeName::slot).chain(cluster.retained_slots.iter().cloned());
            // Until a slot is gone it is on record, so that whoever leads next knows whose it was.
            let exists = |slot: &SlotName| match &view.obs.postgres {
                Postgres::Running(running) => matches!(&running.role, Role::Primary(it) if it.slots.contains(slot)),
                _ => true,
            };
            let retain = known.filter(|slot| exists(slot) || !view.is_given_up(slot, &settings)).collect();
            vec![Action::Renew { version, retain }]
        }
        _ => Vec::new(),
    }
}

/// Time until the next renewal is due.
pub(super) fn until_renewal(view: &View<'_>) -> Millis {
    view.obs.lease.map_or(Millis(0), |lease| (lease.sent + view.timing().heartbeat).since(view.now()))
}

pub(super) fn decide(view: View<'_>, cluster: &Cluster, is_my_session: bool) -> Decision {
    // The record is written in the same transaction as the znode; without it the znode is not ours to judge.
    // Where the record has become garbage, the session that owns the znode is proof enough.
    let recorded = match &cluster.epoch.leader {
        Some(leader) => leader == view.me(),
        None => is_my_session,
    };
    let (Some(version), true) = (cluster.epoch.version, recorded) else {
        if cluster.epoch.version.is_none() && is_my_session {
            // Somebody deleted the record; without it nothing can be renewed, nor released. The transaction fails if it
            // is back.
            let newest = view.obs.past.led_in.max(view.obs.lease.map(|lease| lease.epoch)).unwrap_or_default();
            let reown = Action::ReownLeadership { version: None, epoch: newest.next() };
            return view.say(Reason::RestoringEpoch, vec![reown]);
        }
        return view.say(Reason::WaitingForCluster, vec![]);
    };
    if !is_my_session {
        return former_session(view, cluster, version);
    }
    let wake = until_renewal(&view);
    let wake = if wake == Millis(0) { view.timing().heartbeat } else { wake };
    let mut actions = renewal(&view);
    let mut decision = holding(view, cluster, version);
    actions.append(&mut decision.actions);
    Decision { actions, ..decision }.within(wake)
}

/// The agent was restarted; its old session still owns the znode.
fn former_session(view: View<'_>, cluster: &Cluster, version: i32) -> Decision {
    // The lease may be one epoch behind: its file is written after the transaction that raised the epoch.
    if view.lease().is_some() && may_accept_writes(view.obs) {
        let epoch = cluster.epoch.epoch.next();
        return view.say(Reason::Reowning, vec![Action::ReownLeadership { version: Some(version), epoch }]);
    }
    if view.obs.past.led_in != Some(cluster.epoch.epoch) {
        // A leadership that never served, or that of another host with our name: it expires by itself.
        return view.say(Reason::FormerSession, vec![]);
    }
    view.say(Reason::DroppingStaleLock, vec![Action::ReleaseLeadership { version }])
}

fn holding(view: View<'_>, cluster: &Cluster, version: i32) -> Decision {
    let Some(lease) = view.lease().copied() else {
        // The renewal that goes before will tell.
        return view.say(Reason::AwaitingRenewal, vec![]);
    };
    let give_up = |view: View<'_>, why: &str| {
        let reason = Reason::CannotLead { why: why.to_owned() };
        view.say(reason, vec![Action::ReleaseLeadership { version }])
    };
    let obs = view.obs;
    match &obs.postgres {
        Postgres::Running(running) => match &running.role {
            Role::Primary(primary) => serving(view, cluster, version, running, primary),
            Role::Standby(_) => promote(view, cluster, version, running.timeline),
        },
        Postgres::Starting { .. } => view.say(Reason::Starting, vec![]),
        Postgres::Mute { since, .. } => {
            let fence = obs.now.since(*since) >= view.timing().ttl;
            let actions = if fence { vec![Action::Fence] } else { vec![] };
            view.say(Reason::PostgresMute, actions)
        }
        Postgres::Stopped(control) => stopped(view, cluster, version, control, lease),
        Postgres::NoData if cluster.initialize == Initialize::Begun => {
            if view.backing_off(JobKind::Bootstrap) {
                return give_up(view, "making the cluster failed");
            }
            view.say(Reason::Bootstrapping, vec![Action::Bootstrap])
        }
        Postgres::NoData => give_up(view, "there is no data directory"),
        Postgres::Unusable(why) => give_up(view, why),
    }
}

/// Postgres is at rest under my leadership: it died, was stopped to hand over, or was never started.
fn stopped(view: View<'_>, cluster: &Cluster, version: i32, control: &Control, lease: crate::lease::Lease) -> Decision {
    let release = vec![Action::ReleaseLeadership { version }, Action::DisarmWatchdog, Action::ForgetLease];
    let served = view.obs.past.led_in == Some(lease.epoch) && !control.standby_signal;
    let not_after = lease.fence_at(view.timing());
    let start = Action::Start(StartAs::Primary { epoch: lease.epoch, not_after });
    if let Some(request) = due_request(view.me(), cluster).filter(|_| served) {
        if cluster_settings(cluster).synchronous || control.state == ControlState::ShutDown {
            return view.say(Reason::HandedOver, release);
        }
        // It had to be killed: a standby that commits do not wait for may lack the end.
        let why = "Postgres did not stop cleanly".to_owned();
        let clear = Action::ClearFailover { version, failover: request.version };
        return view.say(Reason::SwitchoverRefused { why }, vec![clear, start]);
    }
    if !view.obs.guard_alive {
        return view.say(Reason::GuardMissing, release);
    }
    if view.backing_off(JobKind::Start) {
        let reason = Reason::CannotLead { why: "Postgres does not start".to_owned() };
        return view.say(reason, release);
    }
    if !matches!(cluster.initialize, Initialize::Done(_)) && !control.standby_signal {
        // Nobody else has data of this cluster: it goes on with the timeline that it has.
        return view.say(Reason::FirstStart, vec![start]);
    }
    if !served {
        return view.say(Reason::StartingToLead, vec![Action::Start(StartAs::Standby(None))]);
    }
    let heir = cluster.sync.standbys.iter().any(|name| {
        name != view.me() && cluster.members.get(name).is_some_and(|member| member.is_running && !member.nofailover)
    });
    let claimed = cluster.sync.leader.as_ref() == Some(view.me());
    let asked = view.obs.request == Some(Request::Restart);
    if heir && claimed && !asked && !cluster_settings(cluster).paused {
        // Promotion beats crash recovery, and the standby has every acknowledged commit.
        return view.say(Reason::CrashedHandingOver, release);
    }
    let reason = if asked { Reason::Restarting } else { Reason::CrashedRestarting };
    view.say(reason, vec![start])
}

/// I lead and Postgres is a standby: promote it.
fn promote(view: View<'_>, cluster: &Cluster, version: i32, timeline: Timeline) -> Decision {
    let release = vec![Action::ReleaseLeadership { version }];
    if view.lacks_watchdog() {
        return view.say(Reason::WatchdogRequired, release);
    }
    if view.backing_off(JobKind::Promote) {
        // It may still be pending in Postgres; a Postgres that is stopped forgets it.
        let reason = Reason::CannotLead { why: "the promotion failed".to_owned() };
        return view.say(reason, vec![Action::Fence, Action::ReleaseLeadership { version }]);
    }
    if !view.obs.guard_alive {
        return view.say(Reason::GuardMissing, release);
    }
    let Some(lease) = view.lease().copied() else {
        return view.say(Reason::AwaitingRenewal, vec![]);
    };
    let settings = cluster_settings(cluster);
    let mut actions = Vec::new();
    if settings.synchronous && (cluster.sync.leader.as_ref() != Some(view.me()) || !cluster.sync.standbys.is_empty()) {
        // Nobody but me may lead from here on, until a standby has caught up with me.
        let record = crate::observation::SyncRecord {
            leader: Some(view.me().clone()),
            standbys: BTreeSet::new(),
            unreadable: false,
            version: cluster.sync.version,
        };
        actions.push(Action::WriteSync { version, record });
    }
    let names = if settings.synchronous && settings.strict { sync::names(&[].into(), true) } else { String::new() };
    actions.push(Action::SetSyncNames(names));
    if view.obs.watchdog == Watchdog::Ready {
        actions.push(Action::ArmWatchdog);
    }
    let timeline = cluster.history.next_timeline(timeline);
    actions.push(Action::ReserveTimeline { version, timeline });
    actions.push(Action::Promote { epoch: lease.epoch, not_after: lease.fence_at(view.timing()), timeline });
    view.say(Reason::Promoting, actions)
}

/// The normal case: a primary with its lease.
fn serving(view: View<'_>, cluster: &Cluster, version: i32, running: &Running, primary: &Primary) -> Decision {
    if !matches!(cluster.initialize, Initialize::Done(_)) || cluster.config.is_none() {
        if !view.memory.prepared {
            // Until it is recorded nobody else joins: a cluster is not made before its members can log in.
            let actions = if view.backing_off(JobKind::Prepare) { vec![] } else { vec![Action::Prepare] };
            return view.say(Reason::PreparingCluster, actions);
        }
        let record = Action::RecordCluster { version, system_id: running.system_id };
        return view.say(Reason::RecordingCluster, vec![record]);
    }
    if view.obs.request == Some(Request::Restart) {
        return view.say(Reason::Restarting, vec![Action::Stop { checkpoint: true }]);
    }
    let view = match requested(view, cluster, version, primary) {
        Continue(view) => view,
        Break(decision) => return decision,
    };
    let begun_by_other = cluster.history.begun_by.get(&running.timeline).is_some_and(|beginner| beginner != view.me())
        && view.obs.past.promoted_to == Some(running.timeline);
    if cluster.history.timeline() < running.timeline || begun_by_other {
        return view.say(Reason::RecordingHistory, vec![Action::WriteHistory { version }]);
    }
    housekeeping(view, cluster, version, running, primary)
}

/// The request in `failover`, if it is due and concerns me.
fn due_request<'a>(me: &NodeName, cluster: &'a Cluster) -> Option<&'a FailoverRequest> {
    let request = cluster.failover.as_ref().filter(|request| !request.later)?;
    let for_me = request.leader.as_ref().is_none_or(|leader| leader == me);
    (for_me && request.candidate.as_ref() != Some(me)).then_some(request)
}

/// A switchover or failover was asked for.
fn requested<'a>(
    view: View<'a>,
    cluster: &Cluster,
    version: i32,
    primary: &Primary,
) -> ControlFlow<Decision, View<'a>> {
    let Some(request) = cluster.failover.as_ref().filter(|request| !request.later) else {
        return Continue(view);
    };
    let clear = Action::ClearFailover { version, failover: request.version };
    if due_request(view.me(), cluster).is_none() {
        return Break(view.say(Reason::SwitchoverDone, vec![clear]));
    }
    let refused = |view: View<'_>, why: String| view.say(Reason::SwitchoverRefused { why }, vec![clear.clone()]);
    let settings = cluster_settings(cluster);
    let fit = |name: &NodeName| {
        let Some(member) = cluster.members.get(name) else {
            return Err(format!("{name} is not alive"));
        };
        let streams = primary.senders.iter().any(|sender| sender.streaming && sender.name == name.as_str());
        if member.nofailover {
            Err(format!("{name} is tagged nofailover"))
        } else if settings.synchronous && !cluster.sync.standbys.contains(name) {
            Err(format!("{name} is not a synchronous standby"))
        } else if !streams {
            Err(format!("{name} is not streaming"))
        } else {
            Ok(())
        }
    };
    let chosen = match &request.candidate {
        Some(candidate) => fit(candidate).map(|()| candidate.clone()),
        None => cluster
            .members
            .keys()
            .find(|name| *name != view.me() && fit(name).is_ok())
            .cloned()
            .ok_or_else(|| "no member is fit to take over".to_owned()),
    };
    match chosen {
        Err(why) => Break(refused(view, why)),
        Ok(_) if view.backing_off(JobKind::Stop) => Break(refused(view, "Postgres could not be stopped".to_owned())),
        Ok(to) => Break(view.say(Reason::HandingOver { to: to.to_string() }, vec![Action::Stop { checkpoint: true }])),
    }
}

/// Synchronous standbys, slots, and the checkpoint after a promotion.
fn housekeeping(mut view: View<'_>, cluster: &Cluster, version: i32, running: &Running, primary: &Primary) -> Decision {
    let settings = cluster_settings(cluster);
    let (step, floor) =
        sync::step(view.me(), &settings, &cluster.sync, primary, &cluster.members, &view.memory.sync_floor);
    view.memory.sync_floor = floor;
    let listed = |names: &BTreeSet<NodeName>| names.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ");
    let (reason, step_action, settling) = match step {
        Step::Settled => (Reason::Leading, None, false),
        Step::Claim(record) => (Reason::ClaimingSync, Some(Action::WriteSync { version, record }), true),
        Step::Remove(record, gone) => {
            let names = listed(&gone);
            (Reason::RemovingSyncStandby { names }, Some(Action::WriteSync { version, record }), true)
        }
        Step::Add(record, new) => {
            let names = listed(&new);
            (Reason::AddingSyncStandby { names }, Some(Action::WriteSync { version, record }), true)
        }
        Step::SetNames(value) => {
            (Reason::ChangingSyncNames { value: value.clone() }, Some(Action::SetSyncNames(value)), true)
        }
        Step::WaitApplied => (Reason::WaitingForSync, None, true),
        Step::WaitCaughtUp => (Reason::CatchingUpSync, None, true),
    };
    // The step first: a later action that fails must not stand in its way.
    let mut actions: Vec<Action> = step_action.into_iter().collect();
    if primary.checkpoint_pending {
        actions.extend(view.checkpoint(running.timeline));
    }
    let others = cluster.members.keys().filter(|name| *name != view.me()).map(NodeName::slot);
    let missing: BTreeSet<SlotName> = others.filter(|slot| !primary.slots.contains(slot)).collect();
    let given_up: BTreeSet<SlotName> =
        primary.slots.iter().filter(|slot| view.is_given_up(slot, &settings)).cloned().collect();
    if !given_up.is_empty() {
        actions.push(Action::DropSlots(given_up));
    }
    // There may be room for them only now.
    if !missing.is_empty() {
        actions.push(Action::CreateSlots(missing));
    }
    if view.obs.watchdog == Watchdog::Ready {
        actions.push(Action::ArmWatchdog);
    }
    let decision = view.say(reason, actions);
    if settling { decision.within(SETTLING) } else { decision }
}
