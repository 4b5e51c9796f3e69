//! Somebody else leads: follow, or come back.

use super::{Decision, View, cluster_settings};
use crate::action::{Action, StartAs};
use crate::name::NodeName;
use crate::observation::{Cluster, Control, Initialize, JobKind, Member, Postgres, Request, Role, Running, Standby};
use crate::reason::Reason;
use crate::rejoin::{self, Plan};

pub(super) fn decide(mut view: View<'_>, cluster: &Cluster, leader: &NodeName) -> Decision {
    if !matches!(cluster.initialize, Initialize::Done(_)) {
        return view.say(Reason::WaitingForCluster, vec![]);
    }
    if cluster_settings(cluster).paused && view.obs.request.is_none() && !view.memory.clone_ordered {
        return view.say(Reason::Paused, vec![]);
    }
    let source = cluster.members.get(leader).filter(|member| member.is_primary && member.is_running);
    let obs = view.obs;
    if view.memory.clone_ordered {
        return match (&obs.postgres, source) {
            (Postgres::NoData | Postgres::Stopped(_) | Postgres::Unusable(_), Some(_)) => copy(view, leader),
            (Postgres::NoData | Postgres::Stopped(_) | Postgres::Unusable(_), None) => {
                view.say(Reason::WaitingForLeader { leader: leader.clone() }, vec![])
            }
            _ => view.say(Reason::Reinitializing, vec![Action::Stop { checkpoint: false }]),
        };
    }
    match (&obs.postgres, source) {
        (Postgres::Running(running), _) => match &running.role {
            Role::Standby(standby) => following(view, cluster, leader, running, standby),
            // Unreachable after the fencing rules; said so that the match is total.
            Role::Primary(_) => view.say(Reason::Deposed { by: leader.clone() }, vec![Action::Fence]),
        },
        (Postgres::Starting { .. }, Some(_)) if view.memory.followed.as_ref() != Some(leader) => {
            // It may need WAL that only this leader has to come up at all.
            view.memory.followed = Some(leader.clone());
            view.say(Reason::Redirecting { leader: leader.clone() }, vec![Action::Follow(Some(leader.clone()))])
        }
        (Postgres::Starting { .. }, _) => view.say(Reason::Starting, vec![]),
        (Postgres::Mute { .. }, _) => view.say(Reason::PostgresMute, vec![]),
        (_, None) => view.say(Reason::WaitingForLeader { leader: leader.clone() }, vec![]),
        (Postgres::Stopped(control), Some(source)) => back(view, cluster, leader, source, control),
        (Postgres::NoData | Postgres::Unusable(_), Some(_)) => copy(view, leader),
    }
}

fn copy(view: View<'_>, leader: &NodeName) -> Decision {
    if view.backing_off(JobKind::Clone) {
        return view.say(Reason::BackingOff { job: JobKind::Clone }, vec![]);
    }
    view.say(Reason::RejoinClone { leader: leader.clone() }, vec![Action::Clone(leader.clone())])
}

/// A data directory at rest: the rejoin ladder.
fn back(mut view: View<'_>, cluster: &Cluster, leader: &NodeName, source: &Member, control: &Control) -> Decision {
    let name = leader.clone();
    let impossible = view.memory.rewind_impossible;
    let plan = rejoin::plan(control, &view.obs.past, view.me(), source, &cluster.history, impossible);
    match plan {
        Plan::AwaitHistory => view.say(Reason::WaitingForHistory { leader: name }, vec![]),
        Plan::AwaitCheckpoint => view.say(Reason::WaitingForCheckpoint { leader: name }, vec![]),
        Plan::Start if view.backing_off(JobKind::Start) => view.say(Reason::BackingOff { job: JobKind::Start }, vec![]),
        Plan::Start => {
            view.memory.followed = Some(name.clone());
            let start = Action::Start(StartAs::Standby(Some(name.clone())));
            view.say(Reason::RejoinStart { leader: name }, vec![start])
        }
        Plan::Rewind if view.backing_off(JobKind::Rewind) => {
            view.say(Reason::BackingOff { job: JobKind::Rewind }, vec![])
        }
        Plan::Rewind => view.say(Reason::RejoinRewind { leader: name.clone() }, vec![Action::Rewind(name)]),
        Plan::Clone => copy(view, leader),
    }
}

fn following(
    mut view: View<'_>,
    cluster: &Cluster,
    leader: &NodeName,
    running: &Running,
    standby: &Standby,
) -> Decision {
    let name = leader.clone();
    if view.obs.request == Some(Request::Restart) {
        return view.say(Reason::Restarting, vec![Action::Stop { checkpoint: false }]);
    }
    let parted = cluster
        .members
        .get(leader)
        .and_then(|member| rejoin::standby_has_parted(running.timeline, standby, member, &cluster.history));
    if parted == Some(true) {
        return view.say(Reason::Diverged { leader: name }, vec![Action::Stop { checkpoint: false }]);
    }
    if standby.upstream.as_ref() != Some(leader) {
        view.memory.followed = Some(name.clone());
        return view.say(Reason::Redirecting { leader: name.clone() }, vec![Action::Follow(Some(name))]);
    }
    if !standby.streaming {
        return view.say(Reason::NotStreaming { leader: name }, vec![]);
    }
    if view.obs.past.old_data_kept {
        return view.say(Reason::DroppingOldData, vec![Action::RemoveOldData]);
    }
    // Left from a time as primary. The slots of strangers are none of our business.
    let left: std::collections::BTreeSet<NodeName> =
        cluster.members.keys().filter(|member| standby.slots.contains(&member.slot())).cloned().collect();
    let mut actions = if left.is_empty() { vec![] } else { vec![Action::DropSlots(left)] };
    if standby.checkpoint_pending && view.memory.checkpoint_ordered != Some(running.timeline) {
        view.memory.checkpoint_ordered = Some(running.timeline);
        actions.push(Action::Checkpoint);
    }
    view.say(Reason::Following { leader: name }, actions)
}
