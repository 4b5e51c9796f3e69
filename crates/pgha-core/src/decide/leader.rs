//! The leader znode carries my name.

use std::collections::BTreeSet;
use std::ops::ControlFlow::{self, Break, Continue};

use super::{Verdict, View, cluster_settings, slots};
use crate::action::{Action, StartAs};
use crate::lsn::Timeline;
use crate::name::{NodeName, SlotName};
use crate::observation::{
    Cluster, ClusterSettings, Control, ControlState, FailoverRequest, Initialize, JobKind, Member, Postgres, Primary,
    Request, Role, Running, RunningJob, Standby, SyncRecord, Watchdog,
};
use crate::reason::Reason;
use crate::sync::{self, Names, Step};
use crate::time::Millis;

/// While a setting settles or a standby catches up, look again after this.
const SETTLING: Millis = Millis(100);

/// While commits wait for nobody and somebody could come, look again after this: until then one loss is a loss.
const LONELY: Millis = Millis(200);

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
                Postgres::Running(running) => {
                    matches!(&running.role, Role::Primary(it) if it.slots.physical.contains_key(slot))
                }
                _ => true,
            };
            // The others have clocks of their own, and drop theirs by the record too.
            let forgotten = |slot: &SlotName| view.is_away_for(slot, Millis(settings.member_slots_ttl.0 * 2));
            let retain = known.filter(|slot| !forgotten(slot) || exists(slot)).collect();
            vec![Action::Renew { version, retain }]
        }
        _ => Vec::new(),
    }
}

/// When to look again for the sake of the lease: where a renewal is due it has just been ordered, or there is nothing to renew.
pub(super) fn next_look(view: &View<'_>) -> Millis {
    match until_renewal(view) {
        Millis(0) => view.timing().heartbeat,
        left => left,
    }
}

/// Time until the next renewal is due.
fn until_renewal(view: &View<'_>) -> Millis {
    view.obs.lease.map_or(Millis(0), |lease| (lease.sent + view.timing().heartbeat).since(view.now()))
}

/// A slow action of a leader that another member should not wait for any longer.
pub(super) fn overdue(view: &View<'_>, cluster: &Cluster, job: RunningJob) -> Option<Reason> {
    let settings = cluster_settings(cluster);
    let lasts = view.now().since(job.since);
    match job.kind {
        JobKind::Stop if settings.is_synchronous() => {
            settings.primary_stop_timeout.filter(|limit| lasts >= *limit).map(|_| Reason::StopOverdue)
        }
        JobKind::Start if job.writes => start_is_overdue(view, cluster).then_some(Reason::StartOverdue),
        _ => None,
    }
}

/// Postgres has been coming back for too long, and another member could serve.
fn start_is_overdue(view: &View<'_>, cluster: &Cluster) -> bool {
    let settings = cluster_settings(cluster);
    let down = view.memory.down_since.map(|since| view.now().since(since));
    !settings.paused && down.is_some_and(|down| down >= settings.primary_start_timeout) && has_heir(view, cluster)
}

/// Whether another member could take over as things stand.
fn has_heir(view: &View<'_>, cluster: &Cluster) -> bool {
    let synchronous = cluster_settings(cluster).is_synchronous();
    if synchronous && (cluster.sync.leader.as_ref() != Some(view.me()) || !has_votes(view, cluster)) {
        return false;
    }
    // An agent that was restarted meanwhile knows what the leader has last written down.
    let most = cluster_settings(cluster).maximum_lag;
    let written = |name: &NodeName| {
        let position = cluster.slot_positions.get(&name.slot());
        view.memory.near.is_empty() && position.is_some_and(|it| cluster.optime.ahead_of(*it) <= most)
    };
    let near = |name: &NodeName| {
        if synchronous {
            cluster.sync.standbys.contains(name)
        } else {
            view.memory.near.contains(name) || written(name)
        }
    };
    cluster.members.iter().any(|(name, member)| {
        let fit = runs(view, name, member) && !member.is_primary && !member.nofailover && member.can_lead;
        name != view.me() && fit && near(name)
    })
}

/// One that has just come up streams before its znode says that it runs.
fn runs(view: &View<'_>, name: &NodeName, member: &Member) -> bool {
    member.is_running || view.memory.near.contains(name)
}

/// Whether enough of the recorded standbys run for one of them to be voted for.
fn has_votes(view: &View<'_>, cluster: &Cluster) -> bool {
    let runs = |name: &&NodeName| cluster.members.get(*name).is_some_and(|member| runs(view, name, member));
    cluster.sync.standbys.iter().filter(runs).count() > cluster.sync.quorum
}

pub(super) fn decide(view: View<'_>, cluster: &Cluster, is_my_session: bool) -> Verdict {
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
            let above = view.memory.epoch_version;
            let reown = Action::ReownLeadership { version: None, epoch: newest.next(), above };
            return view.say(Reason::RestoringEpoch, vec![reown]);
        }
        return view.say(Reason::WaitingForCluster, vec![]);
    };
    if !is_my_session {
        return former_session(view, cluster, version);
    }
    let wake = next_look(&view);
    let mut actions = renewal(&view);
    if matches!(&view.obs.postgres, Postgres::Running(running) if matches!(running.role, Role::Primary(_))) {
        actions.extend(arming(&view));
    }
    let mut decision = holding(view, cluster, version);
    actions.append(&mut decision.actions);
    Verdict { actions, ..decision }.within(wake)
}

/// The agent was restarted; its old session still owns the znode.
fn former_session(view: View<'_>, cluster: &Cluster, version: i32) -> Verdict {
    // The lease may be one epoch behind: its file is written after the transaction that raised the epoch.
    if view.lease().is_some() && view.obs.may_accept_writes() {
        let epoch = cluster.epoch.epoch.next();
        return view
            .say(Reason::Reowning, vec![Action::ReownLeadership { version: Some(version), epoch, above: None }]);
    }
    if view.obs.past.led_in != Some(cluster.epoch.epoch) {
        // A leadership that never served, or that of another host with our name: it expires by itself.
        return view.say(Reason::FormerSession, vec![]);
    }
    view.say(Reason::DroppingStaleLock, vec![Action::ReleaseLeadership { version }])
}

fn holding(view: View<'_>, cluster: &Cluster, version: i32) -> Verdict {
    if view.memory.release_ordered == Some(version) && !view.obs.may_accept_writes() {
        // An order to release that was not answered may arrive at any time: nothing is to begin under this leadership.
        return view.say(Reason::ReleasingAgain, leaving(version).into());
    }
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
            Role::Standby(standby) => promote(view, cluster, version, running.timeline, standby),
        },
        Postgres::Starting { as_primary: true, .. } if start_is_overdue(&view, cluster) => {
            view.say(Reason::StartOverdue, vec![Action::Fence])
        }
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
fn stopped(view: View<'_>, cluster: &Cluster, version: i32, control: &Control, lease: crate::lease::Lease) -> Verdict {
    let release = leaving(version).to_vec();
    let served = view.obs.past.led_in == Some(lease.epoch) && !control.standby_signal;
    let not_after = lease.fence_at(view.timing());
    let start = Action::Start(StartAs::Primary { epoch: lease.epoch, not_after });
    let start = || arming(&view).into_iter().chain([start.clone()]);
    if let Some(request) = due_request(view.me(), cluster).filter(|_| served) {
        if cluster_settings(cluster).is_synchronous() || control.state == ControlState::ShutDown {
            return view.say(Reason::HandedOver, release);
        }
        // It had to be killed: a standby that commits do not wait for may lack the end.
        let why = "Postgres did not stop cleanly".to_owned();
        let clear = Action::ClearFailover { version, failover: request.version };
        let actions = [clear].into_iter().chain(start()).collect();
        return view.say(Reason::SwitchoverRefused { why }, actions);
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
        let actions = start().collect();
        return view.say(Reason::FirstStart, actions);
    }
    let settings = cluster_settings(cluster);
    let heir = has_heir(&view, cluster) && !settings.paused;
    if let Some(disk) = view.failing_disk().filter(|_| heir) {
        return view.say(Reason::DiskFailing { disk }, release);
    }
    if !served {
        return view.say(Reason::StartingToLead, vec![Action::Start(StartAs::Standby(None))]);
    }
    let asked = view.obs.request == Some(Request::Restart);
    if heir && settings.is_synchronous() && !asked {
        // Promotion beats crash recovery, and the standby has every acknowledged commit.
        return view.say(Reason::CrashedHandingOver, release);
    }
    if start_is_overdue(&view, cluster) {
        return view.say(Reason::StartOverdue, release);
    }
    let reason = if asked { Reason::Restarting } else { Reason::CrashedRestarting };
    let actions = start().collect();
    view.say(reason, actions)
}

/// Gives the leadership back with Postgres at rest: the watchdog has nothing to guard, whatever becomes of the write.
fn leaving(version: i32) -> [Action; 3] {
    [Action::DisarmWatchdog, Action::ReleaseLeadership { version }, Action::ForgetLease]
}

/// Before Postgres may accept writes, and wherever it does.
pub(super) fn arming(view: &View<'_>) -> Option<Action> {
    (view.obs.watchdog == Watchdog::Ready).then_some(Action::ArmWatchdog)
}

/// I lead and Postgres is a standby: promote it.
fn promote(view: View<'_>, cluster: &Cluster, version: i32, timeline: Timeline, standby: &Standby) -> Verdict {
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
    // First: if that fails where it must not, everything is as it was.
    let mut actions: Vec<Action> = arming(&view).into_iter().collect();
    if settings.is_synchronous()
        && (cluster.sync.leader.as_ref() != Some(view.me()) || !cluster.sync.standbys.is_empty())
    {
        // Nobody but me may lead from here on, until a standby has caught up with me.
        let record = SyncRecord {
            leader: Some(view.me().clone()),
            standbys: BTreeSet::new(),
            quorum: 0,
            unreadable: false,
            version: cluster.sync.version,
        };
        actions.push(Action::WriteSync { version, record });
    }
    actions.push(Action::SetSyncNames(Names::without_standbys(settings).render()));
    let timeline = cluster.history.next_timeline(timeline.max(view.memory.reserved.unwrap_or(timeline)));
    actions.push(Action::ReserveTimeline { version, timeline });
    actions.push(Action::Promote { epoch: lease.epoch, not_after: lease.fence_at(view.timing()), timeline });
    // While that goes on, and last, because it can do without: the others come at once, and who is turned away tries again
    // only after `wal_retrieve_retry_interval`.
    actions.extend(slots::of_members(view.me(), cluster, standby));
    view.say(Reason::Promoting, actions)
}

/// The normal case: a primary with its lease.
fn serving(view: View<'_>, cluster: &Cluster, version: i32, running: &Running, primary: &Primary) -> Verdict {
    if !matches!(cluster.initialize, Initialize::Done(_)) || cluster.config.is_none() || cluster.config_lost {
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
    let view = match failing_disk(view, cluster) {
        Continue(view) => view,
        Break(decision) => return decision,
    };
    let view = match requested(view, cluster, version, primary) {
        Continue(view) => view,
        Break(decision) => return decision,
    };
    let begun_by_other = cluster.history.begun_by.get(&running.timeline).is_some_and(|beginner| beginner != view.me())
        && view.obs.past.promoted_to == Some(running.timeline);
    let lost = cluster.history.newest.is_none() && running.timeline > Timeline(1);
    if cluster.history.timeline() < running.timeline || begun_by_other || lost {
        return view.say(Reason::RecordingHistory, vec![Action::WriteHistory { version }]);
    }
    let view = match failsafe(view, cluster, version) {
        Continue(view) => view,
        Break(decision) => return decision,
    };
    housekeeping(view, cluster, version, running, primary)
}

/// A primary whose disk fails serves nobody for long: another member takes over while it can still be stopped in order.
fn failing_disk<'a>(view: View<'a>, cluster: &Cluster) -> ControlFlow<Verdict, View<'a>> {
    let settings = cluster_settings(cluster);
    let Some(disk) = view.failing_disk().filter(|_| !settings.paused && has_heir(&view, cluster)) else {
        return Continue(view);
    };
    // A clean stop writes, and may never end; where commits wait for a standby it is not needed.
    let stop = if settings.is_synchronous() || view.backing_off(JobKind::Stop) {
        Action::Fence
    } else {
        Action::Stop { checkpoint: false }
    };
    Break(view.say(Reason::DiskFailing { disk }, vec![stop]))
}

/// The request in `failover`, if it is due and concerns me.
fn due_request<'a>(me: &NodeName, cluster: &'a Cluster) -> Option<&'a FailoverRequest> {
    let request = cluster.failover.as_ref().filter(|request| !request.later)?;
    let for_me = request.leader.as_ref().is_none_or(|leader| leader == me);
    (for_me && request.candidate.as_ref() != Some(me)).then_some(request)
}

/// A switchover or failover was asked for.
fn requested<'a>(view: View<'a>, cluster: &Cluster, version: i32, primary: &Primary) -> ControlFlow<Verdict, View<'a>> {
    let Some(request) = cluster.failover.as_ref().filter(|request| !request.later) else {
        return Continue(view);
    };
    let clear = Action::ClearFailover { version, failover: request.version };
    if due_request(view.me(), cluster).is_none() {
        return Break(view.say(Reason::SwitchoverDone, vec![clear]));
    }
    if view.memory.taken_with == Some(request.version) {
        let why = match &request.candidate {
            Some(candidate) => format!("{candidate} did not take over in time"),
            None => "nobody took over in time".to_owned(),
        };
        return Break(view.say(Reason::SwitchoverRefused { why }, vec![clear]));
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
        } else if !member.can_lead {
            Err(format!("{name} cannot lead; `pghactl why {name}` says why"))
        } else if settings.is_synchronous() && !cluster.sync.standbys.contains(name) {
            Err(format!("{name} is not a synchronous standby"))
        } else if settings.is_synchronous() && !has_votes(&view, cluster) {
            Err(format!("{} other standbys must run to vote for {name}", cluster.sync.quorum))
        } else if !streams {
            Err(format!("{name} is not streaming"))
        } else {
            Ok(())
        }
    };
    let chosen = match &request.candidate {
        Some(candidate) => fit(candidate).map(|()| candidate.clone()),
        // The others do nothing of themselves.
        None if settings.paused => Err("the cluster is paused, and it needs a candidate then".to_owned()),
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

/// A member that is away for so many leases is not counted on any more; until then its word is needed.
const FAILSAFE_PATIENCE: u64 = 10;

/// Keeps the members that may lead on record, or the record empty while failsafe mode is off.
fn failsafe<'a>(view: View<'a>, cluster: &Cluster, version: i32) -> ControlFlow<Verdict, View<'a>> {
    let recorded = &cluster.failsafe.members;
    let members = if cluster_settings(cluster).failsafe { counted_on(&view, cluster) } else { BTreeSet::new() };
    if members.iter().copied().eq(recorded) && !cluster.failsafe.unreadable {
        return Continue(view);
    }
    let members = members.into_iter().cloned().collect();
    view.memory.electorate.order(cluster.failsafe.version, &members);
    let write = Action::WriteFailsafe { version, failsafe: cluster.failsafe.version, members };
    Break(view.say(Reason::RecordingFailsafe, vec![write]))
}

/// The members that may lead in failsafe mode.
fn counted_on<'a>(view: &View<'a>, cluster: &'a Cluster) -> BTreeSet<&'a NodeName> {
    let recorded = &cluster.failsafe.members;
    let patience = Millis(view.timing().ttl.0 * FAILSAFE_PATIENCE);
    let stays = |name: &&NodeName| {
        let away = view.memory.failsafe_away.get(*name).map(|since| view.now().since(*since));
        cluster.sync.standbys.contains(*name) || away.is_some_and(|away| away < patience)
    };
    let mut members: BTreeSet<&NodeName> = cluster.members.keys().chain([&view.settings.me]).collect();
    members.extend(recorded.iter().filter(stays));
    // Alone on record nobody else could ever take over.
    if members.len() == 1 && recorded.len() > 1 { recorded.iter().collect() } else { members }
}

/// There is nothing to do about synchronous standbys; which is not to say that all is well.
fn settled(settings: &ClusterSettings, sync: &SyncRecord) -> Reason {
    match (settings.is_synchronous() && sync.standbys.is_empty(), settings.strict) {
        (false, _) => Reason::Leading,
        (true, false) => Reason::LeadingAlone,
        (true, true) => Reason::CommitsWait,
    }
}

/// Synchronous standbys, slots, and the checkpoint after a promotion.
fn housekeeping(mut view: View<'_>, cluster: &Cluster, version: i32, running: &Running, primary: &Primary) -> Verdict {
    let settings = cluster_settings(cluster);
    if view.memory.sync_ordered.is_some() && view.memory.sync_ordered == cluster.sync.version {
        // Once this is written the earlier write fails; until then it may turn the record into what it is no longer to be.
        let record = cluster.sync.clone();
        return view.say(Reason::ConfirmingSync, vec![Action::WriteSync { version, record }]).within(SETTLING);
    }
    let stalled = view.stalled();
    let floor = std::mem::take(&mut view.memory.sync_floor);
    let (step, floor) = sync::step(view.me(), settings, &cluster.sync, primary, &cluster.members, &stalled, floor);
    view.memory.sync_floor = floor;
    let (reason, step_action, settling) = match step {
        Step::Settled => (settled(settings, &cluster.sync), None, false),
        Step::Claim(record) => (Reason::ClaimingSync, Some(Action::WriteSync { version, record }), true),
        Step::Record(record) => (recording(&cluster.sync, &record), Some(Action::WriteSync { version, record }), true),
        Step::SetNames(value) => {
            (Reason::ChangingSyncNames { value: value.clone() }, Some(Action::SetSyncNames(value)), true)
        }
        Step::WaitApplied => (Reason::WaitingForSync, None, true),
        Step::WaitCaughtUp => (Reason::CatchingUpSync, None, true),
    };
    let records = step_action.as_ref().is_some_and(|action| matches!(action, Action::WriteSync { .. }));
    view.memory.sync_ordered = cluster.sync.version.filter(|_| records);
    // The step first: a later action that fails must not stand in its way.
    let mut actions: Vec<Action> = step_action.into_iter().collect();
    if primary.checkpoint_pending {
        actions.extend(view.checkpoint(running.timeline));
    }
    let mut slots = slots::of_leader(&mut view, cluster, settings, primary);
    actions.append(&mut slots);
    let others = |(name, member): (&NodeName, &Member)| name != view.me() && member.is_running;
    let lonely = settings.is_synchronous() && cluster.sync.standbys.is_empty() && cluster.members.iter().any(others);
    let waited_for = view.memory.unconfirmed.iter().filter(|(name, _)| cluster.sync.standbys.contains(*name));
    let stalls = waited_for.map(|(_, still)| (still.since + view.stall()).since(view.now())).filter(|left| left.0 > 0);
    let stalls = stalls.min().unwrap_or(Millis(u64::MAX));
    let decision = view.say(reason, actions).within(stalls);
    match (settling, lonely) {
        (true, _) => decision.within(SETTLING),
        (false, true) => decision.within(LONELY),
        (false, false) => decision,
    }
}

/// What changes in the record, in the words of an operator.
fn recording(old: &SyncRecord, new: &SyncRecord) -> Reason {
    let listed = |names: std::collections::btree_set::Difference<'_, NodeName>| {
        names.map(NodeName::as_str).collect::<Vec<_>>().join(", ")
    };
    let (added, removed) =
        (listed(new.standbys.difference(&old.standbys)), listed(old.standbys.difference(&new.standbys)));
    match (added.is_empty(), removed.is_empty()) {
        (false, _) => Reason::AddingSyncStandby { names: added },
        (true, false) => Reason::RemovingSyncStandby { names: removed },
        (true, true) => Reason::ChangingQuorum { quorum: new.quorum },
    }
}
