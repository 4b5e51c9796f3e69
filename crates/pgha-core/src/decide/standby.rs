//! Somebody else leads: follow, or come back.

use super::{Memory, Standstill, Verdict, View, cluster_settings, slots, topology};
use crate::action::{Action, StartAs};
use crate::lsn::Lsn;
use crate::name::NodeName;
use crate::observation::{Cluster, Control, Initialize, JobKind, Member, Postgres, Request, Role, Running, Standby};
use crate::reason::Reason;
use crate::rejoin::{self, Plan, Rung};
use crate::time::Millis;

/// What a member waits for that has nothing to do before is looked for after this: it is soon there.
const SOON: Millis = Millis(200);

pub(super) fn decide(view: View<'_>, cluster: &Cluster, leader: &NodeName) -> Verdict {
    if view.memory.tried_with.as_ref() != Some(leader) && view.memory.tried_with.replace(leader.clone()).is_some() {
        // What could not stream from that one may from this. What ends in recovery does so whoever leads; it is tried once
        // with each.
        let ends = view.memory.ends.min(ENDS - 1);
        view.memory.standstill = None;
        view.memory.shunned = None;
        view.memory.climb_to(Rung::Start);
        view.memory.ends = ends;
    }
    if !matches!(cluster.initialize, Initialize::Done(_)) {
        return view.say(Reason::WaitingForCluster, vec![]);
    }
    if cluster_settings(cluster).paused {
        view.memory.standstill = None;
    }
    if cluster_settings(cluster).paused && view.obs.request.is_none() && !view.memory.clone_ordered {
        return view.say(Reason::Paused, vec![]);
    }
    let source = cluster.members.get(leader).filter(|member| member.is_primary && member.is_running);
    if source.is_none() {
        // Nobody gets on without it.
        view.memory.standstill = None;
    }
    let upstream = upstream(&view, cluster, leader);
    let obs = view.obs;
    if view.memory.clone_ordered {
        return match (&obs.postgres, source) {
            (Postgres::NoData | Postgres::Stopped(_) | Postgres::Unusable(_), Some(_)) => copy(view, cluster, leader),
            (Postgres::NoData | Postgres::Stopped(_) | Postgres::Unusable(_), None) => {
                view.say(Reason::WaitingForLeader { leader: leader.clone() }, vec![]).within(SOON)
            }
            _ => view.say(Reason::Reinitializing, vec![Action::Stop { checkpoint: false }]),
        };
    }
    match (&obs.postgres, source) {
        (Postgres::Running(running), _) => match &running.role {
            Role::Standby(standby) => following(view, cluster, leader, upstream, running, standby),
            // Unreachable after the fencing rules; said so that the match is total.
            Role::Primary(_) => view.say(Reason::Deposed { by: leader.clone() }, vec![Action::Fence]),
        },
        (Postgres::Starting { .. }, Some(source)) if view.memory.followed != upstream => {
            if rejoin::starts_parted(&obs.past, source, &cluster.history) {
                return view.say(Reason::Diverged { leader: leader.clone() }, vec![Action::Stop { checkpoint: false }]);
            }
            if rejoin::awaits_record(&obs.past, &cluster.history) {
                return view.say(Reason::WaitingForHistory { leader: leader.clone() }, vec![]).within(SOON);
            }
            // It may need WAL that only this leader has to come up at all.
            redirected(view, leader, upstream)
        }
        (Postgres::Starting { awaits: Some(position), .. }, Some(_)) => {
            let upstream = view.memory.followed.clone();
            let halt = Halt { reason: Reason::Starting, position: *position, upstream, paused: false };
            standing_still(view, cluster, leader, halt)
        }
        (Postgres::Starting { .. }, _) => {
            view.memory.standstill = None;
            view.say(Reason::Starting, vec![])
        }
        (Postgres::Mute { .. }, _) => view.say(Reason::PostgresMute, vec![]),
        (_, None) => view.say(Reason::WaitingForLeader { leader: leader.clone() }, vec![]).within(SOON),
        (Postgres::Stopped(control), Some(source)) => back(view, cluster, leader, source, control),
        (Postgres::NoData | Postgres::Unusable(_), Some(_)) => copy(view, cluster, leader),
    }
}

/// Where this member streams from: by its own tags, which its znode may not show yet.
fn upstream(view: &View<'_>, cluster: &Cluster, leader: &NodeName) -> Option<NodeName> {
    let mut cluster = std::borrow::Cow::Borrowed(cluster);
    let relay = view.memory.relay(view.settings);
    let told = |it: &Member| it.nostream == view.settings.nostream && it.replicatefrom.as_ref() == relay;
    if !cluster.members.get(view.me()).is_some_and(told) {
        let me = cluster.to_mut().members.entry(view.me().clone()).or_default();
        me.nostream = view.settings.nostream;
        me.replicatefrom = relay.cloned();
    }
    topology::upstream(&cluster, leader, view.me()).cloned()
}

fn redirected(view: View<'_>, leader: &NodeName, upstream: Option<NodeName>) -> Verdict {
    view.memory.followed.clone_from(&upstream);
    let reason = Reason::Redirecting { leader: upstream.clone().unwrap_or_else(|| leader.clone()) };
    view.say(reason, vec![Action::Follow(upstream)])
}

fn copy(view: View<'_>, cluster: &Cluster, leader: &NodeName) -> Verdict {
    if view.backing_off(JobKind::Clone) {
        return view.say(Reason::BackingOff { job: JobKind::Clone }, vec![]);
    }
    // What failed, or did not help, with a standby's data is done with the leader's. Whoever may take over by the record must
    // not lose what the leader has; nor whoever may have confirmed a commit, and is about to be recorded: whether its data has
    // ever been here, an empty disk does not tell.
    let failed = view.memory.backoff.is_some_and(|backoff| backoff.kind == JobKind::Clone);
    let recorded = cluster.sync.standbys.contains(view.me()) || cluster.sync.unreadable;
    let never = view.settings.nostream || cluster.members.get(view.me()).is_some_and(|it| it.nosync);
    let confirms = cluster_settings(cluster).is_synchronous() && !never;
    let source = if failed || recorded || confirms || view.memory.tried == Rung::Clone {
        leader.clone()
    } else {
        topology::copy_source(cluster, leader, view.me())
    };
    view.say(Reason::RejoinClone { leader: source.clone() }, vec![Action::Clone(source)])
}

/// A data directory at rest: the rejoin ladder.
fn back(view: View<'_>, cluster: &Cluster, leader: &NodeName, source: &Member, control: &Control) -> Verdict {
    let name = leader.clone();
    if u64::from(view.memory.ends) >= u64::from(ENDS) * patience(view.memory) {
        let reason = Reason::GivingUpStarting { times: view.memory.ends };
        // A restart is what it has had.
        view.memory.climb_to(view.memory.tried.next().max(Rung::Rewind));
        return view.say(reason, vec![]).within(SOON);
    }
    let plan = rejoin::plan(control, &view.obs.past, view.me(), source, &cluster.history, view.memory.due);
    match plan {
        Plan::AwaitHistory => view.say(Reason::WaitingForHistory { leader: name }, vec![]).within(SOON),
        Plan::AwaitCheckpoint => view.say(Reason::WaitingForCheckpoint { leader: name }, vec![]).within(SOON),
        Plan::Start if view.backing_off(JobKind::Start) => view.say(Reason::BackingOff { job: JobKind::Start }, vec![]),
        Plan::Start => {
            let upstream = upstream(&view, cluster, leader);
            view.memory.followed.clone_from(&upstream);
            let start = Action::Start(StartAs::Standby(upstream));
            view.say(Reason::RejoinStart { leader: name }, vec![start])
        }
        Plan::Rewind if view.backing_off(JobKind::Rewind) => {
            view.say(Reason::BackingOff { job: JobKind::Rewind }, vec![])
        }
        Plan::Rewind => view.say(Reason::RejoinRewind { leader: name.clone() }, vec![Action::Rewind(name)]),
        Plan::Clone => copy(view, cluster, leader),
    }
}

/// What a fresh copy did not mend is tried again after this many times as many starts, or standstills.
const AFTER_COPY: u64 = 12;

fn patience(memory: &Memory) -> u64 {
    // As long as the copy itself fails it is due.
    if memory.tried == Rung::Clone && memory.due != Rung::Clone { AFTER_COPY } else { 1 }
}

/// Postgres may end so often in recovery before its data is taken to be the reason.
const ENDS: u32 = 5;

/// A restartpoint that was ordered shows its effect within this.
const RESTARTPOINT: Millis = Millis::from_secs(5);

/// A standby that does not stream, or is not even consistent yet.
struct Halt {
    /// What it says meanwhile.
    reason: Reason,
    position: Lsn,
    upstream: Option<NodeName>,
    /// People have stopped replay.
    paused: bool,
}

/// It may be replaying from the archive, or the leader cannot be reached, or there is no way on from here.
fn standing_still(view: View<'_>, cluster: &Cluster, leader: &NodeName, halt: Halt) -> Verdict {
    let Halt { reason: waiting, position, upstream, paused } = halt;
    let now = view.now();
    let here = view.memory.standstill.filter(|standstill| standstill.position == position);
    let since = here.map_or(now, |standstill| standstill.since);
    view.memory.standstill = Some(Standstill { position, since });
    let serves = cluster.members.get(leader).is_some_and(|member| member.is_primary && member.is_running);
    let patience = Millis(view.settings.standstill.0 * patience(view.memory));
    if now.since(since) < patience || !serves || paused || cluster_settings(cluster).paused {
        let young = now.since(since) < view.timing().ttl;
        let decision = view.say(waiting, vec![]);
        return if young { decision.within(SOON) } else { decision };
    }
    if upstream.is_some_and(|upstream| upstream != *leader) {
        // The leader may do what this one does not.
        view.memory.shunned = Some(now);
        view.memory.standstill = None;
        return view.say(waiting, vec![]);
    }
    // Who cannot ask it cannot stream from it either, and would only lose its data over a cut cable.
    let asked = view.obs.peers.as_ref().filter(|peers| now.since(peers.asked) < view.timing().ttl);
    let Some(answers) = asked else {
        return view.say(waiting, vec![Action::AskPeers([leader.clone()].into())]);
    };
    if !answers.positions.contains_key(leader) {
        return view.say(waiting, vec![]);
    }
    view.memory.standstill = None;
    view.memory.climb_to(view.memory.tried.next());
    view.say(Reason::GivingUpStreaming { leader: leader.clone() }, vec![Action::Stop { checkpoint: false }])
}

fn following(
    mut view: View<'_>,
    cluster: &Cluster,
    leader: &NodeName,
    upstream: Option<NodeName>,
    running: &Running,
    standby: &Standby,
) -> Verdict {
    if view.obs.request == Some(Request::Restart) {
        return view.say(Reason::Restarting, vec![Action::Stop { checkpoint: false }]);
    }
    let source = cluster.members.get(leader);
    let parted = source.and_then(|source| {
        rejoin::standby_has_parted(running.timeline, standby, &view.obs.past, view.me(), source, &cluster.history)
    });
    let newest = source.and_then(|source| source.timeline);
    if parted == Some(true)
        && let Some(newest) = newest.filter(|newest| running.timeline < *newest)
    {
        // After a restart it shows the timeline of its last restartpoint until the next, and would seem to have gone on
        // on a timeline that it has left in time.
        let ordered = view.memory.checkpoint.filter(|order| order.timeline == newest).map(|order| order.at);
        if ordered.is_none_or(|at| view.now().since(at) < RESTARTPOINT) {
            let actions = view.checkpoint(newest).into_iter().collect();
            return view.say(Reason::NotStreaming { leader: leader.clone() }, actions).within(Millis(500));
        }
    }
    if parted == Some(true) {
        return view.say(Reason::Diverged { leader: leader.clone() }, vec![Action::Stop { checkpoint: false }]);
    }
    if !standby.streaming && rejoin::awaits_record(&view.obs.past, &cluster.history) {
        return view.say(Reason::WaitingForHistory { leader: leader.clone() }, vec![]).within(SOON);
    }
    // Who is counted on stays until another is.
    let counted_on = standby.streaming
        && standby.upstream.as_ref() == Some(leader)
        && cluster_settings(cluster).is_synchronous()
        && cluster.sync.standbys.contains(view.me());
    if standby.upstream != upstream && !counted_on {
        return redirected(view, leader, upstream);
    }
    if !standby.streaming && upstream.is_some() {
        let halt = Halt {
            reason: Reason::NotStreaming { leader: leader.clone() },
            position: standby.position(),
            upstream: standby.upstream.clone(),
            paused: standby.paused,
        };
        return standing_still(view, cluster, leader, halt);
    }
    view.memory.climb_to(Rung::Start);
    view.memory.standstill = None;
    let old_data_kept = view.obs.past.old_data_kept;
    let settings = cluster_settings(cluster);
    let missing = slots::to_copy(&mut view, cluster, settings, leader, standby);
    if !missing.is_empty() {
        let reason = Reason::CopyingSlots { leader: leader.clone() };
        return view.say(reason, vec![Action::CopySlots(leader.clone(), missing)]);
    }
    let mut actions = slots::of_standby(&mut view, cluster, settings, leader, standby);
    if standby.checkpoint_pending {
        actions.extend(view.checkpoint(running.timeline));
    }
    if old_data_kept {
        actions.push(Action::RemoveOldData);
        return view.say(Reason::DroppingOldData, actions);
    }
    match upstream {
        Some(upstream) => view.say(Reason::Following { leader: upstream }, actions),
        None => view.say(Reason::Replaying, actions),
    }
}
