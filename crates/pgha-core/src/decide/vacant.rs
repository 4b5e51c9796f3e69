//! Nobody leads, or nobody whose lease may hold: who may, and who is first.

use std::collections::BTreeSet;

use super::{Verdict, View, cluster_settings};
use crate::action::{Action, Lapsed, StartAs};
use crate::name::NodeName;
use crate::observation::{Cluster, Disk, Initialize, JobKind, PeerPosition, Postgres, Role, Running, Standby, Tie};
use crate::reason::Reason;
use crate::time::Millis;

/// A setting that was changed shows within this.
const SETTLING: Millis = Millis(100);

/// Voters may be on the point of leaving the old primary: ask again after this.
const RECOUNT: Millis = Millis(250);

pub(super) fn decide(view: View<'_>, cluster: &Cluster) -> Verdict {
    if view.obs.may_accept_writes() {
        return retake(view, cluster);
    }
    match cluster.initialize {
        Initialize::Absent | Initialize::Begun => unmade(view, cluster),
        Initialize::Done(_) => made(view, cluster),
    }
}

fn take(view: &View<'_>, cluster: &Cluster, initialize: bool) -> Action {
    // Should the record have been deleted, epochs still do not begin anew.
    let newest = view.obs.past.led_in.unwrap_or_default().max(cluster.epoch.epoch);
    // Only a leadership that has lapsed is decided about here.
    let pulse = view.obs.pulse.filter(|_| !super::is_free(view.me(), cluster));
    let lapsed = pulse.map(|pulse| Lapsed { held: cluster.leader.is_some(), renewal: pulse.version });
    let version = cluster.epoch.version;
    let above = view.memory.epoch_version.filter(|_| version.is_none());
    Action::TakeLeadership { version, epoch: newest.next(), initialize, lapsed, above }
}

/// The znode is gone before my lease is, and nobody has led since (see the fencing rules): somebody deleted it, or the
/// ensemble lost its data. The transaction fails if another takes it first.
fn retake(view: View<'_>, cluster: &Cluster) -> Verdict {
    let initialize = cluster.initialize == Initialize::Absent;
    let take = take(&view, cluster, initialize);
    view.say(Reason::RetakingLeadership, vec![take])
}

/// There is no cluster yet, or whoever was making it is gone.
fn unmade(view: View<'_>, cluster: &Cluster) -> Verdict {
    if view.settings.nofailover {
        return view.say(Reason::NoFailoverTag, vec![]);
    }
    if view.lacks_watchdog() {
        return view.say(Reason::WatchdogRequired, vec![]);
    }
    if let Some(disk) = view.failing_disk() {
        return view.say(Reason::DiskFailing { disk }, vec![]);
    }
    let take = take(&view, cluster, cluster.initialize == Initialize::Absent);
    match &view.obs.postgres {
        Postgres::NoData if !view.backing_off(JobKind::Bootstrap) => view.say(Reason::TakingToBootstrap, vec![take]),
        // The data of a primary without a cluster: an interrupted bootstrap, or a database to be taken over.
        Postgres::Stopped(control) if !control.standby_signal && !view.backing_off(JobKind::Start) => {
            view.say(Reason::TakingToBootstrap, vec![take])
        }
        _ => view.say(Reason::WaitingForCluster, vec![]),
    }
}

fn made(view: View<'_>, cluster: &Cluster) -> Verdict {
    let settings = cluster_settings(cluster);
    let asked_for = cluster.failover.as_ref().filter(|request| !request.later).and_then(|r| r.candidate.as_ref());
    // Who led before the ensemble was away may lead again: it changes nothing.
    let led_last = cluster.epoch.leader.as_ref() == Some(view.me());
    if settings.paused && !led_last && asked_for != Some(view.me()) {
        return view.say(Reason::Paused, vec![]);
    }
    let obs = view.obs;
    match &obs.postgres {
        Postgres::NoData | Postgres::Unusable(_) => view.say(Reason::WaitingForCluster, vec![]),
        Postgres::Starting { .. } => view.say(Reason::Starting, vec![]),
        Postgres::Mute { .. } => view.say(Reason::PostgresMute, vec![]),
        Postgres::Stopped(_) if obs.past.rewind_unfinished => view.say(Reason::WaitingForCluster, vec![]),
        Postgres::Stopped(_) if view.backing_off(JobKind::Start) => {
            view.say(Reason::BackingOff { job: JobKind::Start }, vec![])
        }
        Postgres::Stopped(_) => {
            // A primary that lives on promises is still one.
            let primary = view.obs.promise.as_ref().filter(|promise| promise.holds(view.now()));
            let upstream = primary.map(|promise| promise.to.clone());
            view.say(Reason::StartingUnled, vec![Action::Start(StartAs::Standby(upstream))])
        }
        Postgres::Running(running) => match &running.role {
            Role::Primary(_) => view.say(Reason::LeaseOver, vec![Action::Fence]),
            Role::Standby(standby) => race(view, cluster, running, standby),
        },
    }
}

/// A standby and an empty seat.
fn race(mut view: View<'_>, cluster: &Cluster, running: &Running, standby: &Standby) -> Verdict {
    if !super::is_vacant(view.settings, view.memory, view.obs, cluster) {
        let leader = cluster.epoch.leader.as_ref().map_or("whoever led", NodeName::as_str).to_owned();
        let over = super::lapses_at(view.settings, view.memory, view.obs, cluster);
        let left = over.map_or(view.timing().heartbeat, |at| at.since(view.now()));
        return view.say(Reason::AwaitingLapse { leader }, vec![]).within(left);
    }
    let settings = cluster_settings(cluster);
    // A leadership that began since has ended the one that it was given to.
    let led_since = |epoch| cluster.epoch.leader.is_some() && cluster.epoch.epoch > epoch;
    let promise = view.obs.promise.as_ref().filter(|promise| !led_since(promise.epoch));
    if let Some(promise) = promise.filter(|promise| promise.holds(view.now())) {
        let reason = Reason::Promised { to: promise.to.clone() };
        let left = promise.until.since(view.now());
        return view.say(reason, vec![]).within(left);
    }
    let votes = settings.is_synchronous() && cluster.sync.quorum > 0 && cluster.sync.standbys.contains(view.me());
    if votes && standby.tie == Tie::Bound {
        // A primary that stood still may go on for a moment, and must not get one more confirmation from who has voted.
        return view.say(Reason::Detaching, vec![Action::Follow(None)]).within(SETTLING);
    }
    let request = cluster.failover.as_ref().filter(|request| !request.later);
    let chosen = request.and_then(|request| request.candidate.as_ref());
    // An operator may choose a standby that is not synchronous: a plain failover, not a switchover.
    let forced = chosen == Some(view.me()) && request.is_some_and(|request| request.leader.is_none());
    let led_last = cluster.epoch.leader.as_ref() == Some(view.me());
    if !cluster.failsafe.members.is_empty() || cluster.failsafe.unreadable {
        // A promise is lost with the power; it was not given before.
        let forgotten = view.obs.up_since + view.timing().ttl;
        if view.now() < forgotten {
            let left = forgotten.since(view.now());
            return view.say(Reason::JustBooted, vec![]).within(left);
        }
        // Whatever the settings say now: a primary that cannot see them goes by what it knew. An operator who names a
        // candidate answers for it that there is none.
        let counted_on = cluster.failsafe.members.contains(view.me()) || led_last;
        if !counted_on && !forced {
            return view.say(Reason::NotInFailsafe, vec![]);
        }
    }
    if let Some(reason) = super::barred(view.settings, view.memory, view.obs) {
        // A full disk is better than no primary at all: nothing can be deleted without one.
        let long =
            view.memory.vacant_since.is_some_and(|since| view.now().since(since) >= Millis(view.timing().ttl.0 * 3));
        let tolerable = reason == Reason::DiskFailing { disk: Disk::Full } && (long || forced);
        if !tolerable {
            return view.say(reason, vec![]);
        }
    }
    // Others go first for as long as a leadership lasts, not longer: what keeps them may be known to nobody else.
    let patience = view.memory.vacant_since.is_some_and(|since| view.now().since(since) < view.timing().ttl);
    if let Some(candidate) = chosen.filter(|candidate| *candidate != view.me())
        && patience
        && cluster.members.get(candidate).is_some_and(|member| member.is_running)
    {
        return view.say(Reason::OtherCandidate { candidate: candidate.clone() }, vec![]);
    }
    // Where nobody has claimed the record, no commit ever waited: then the rules of asynchronous mode hold.
    let synchronous = settings.is_synchronous() && (cluster.sync.leader.is_some() || cluster.sync.unreadable);
    let in_sync = cluster.sync.standbys.contains(view.me()) || cluster.sync.leader.as_ref() == Some(view.me());
    if synchronous && !forced && !in_sync {
        return view.say(Reason::NotSynchronous, vec![]);
    }
    let torn = view.settings.torn;
    let lacking = cluster.lacks(view.me(), running.timeline, standby.position(), torn).filter(|_| !forced);
    if let Some(confirmed) = lacking.filter(|_| synchronous) {
        return view.say(Reason::LacksConfirmed { confirmed }, vec![]);
    }
    // Whom an operator has made the leader over the head of the newest timeline, and who was lost before its own began:
    // nobody else may lead by the record. A restartpoint that is ordered has its time before that.
    let on_record = synchronous && led_last && cluster.sync.leader.as_ref() == Some(view.me());
    let begun_by = cluster.history.begun_by.get(&cluster.history.timeline());
    let overruled = on_record && begun_by.is_some_and(|beginner| beginner != view.me()) && !patience;
    if running.timeline < cluster.history.timeline() && !forced && !overruled {
        // A standby that was restarted shows the timeline of its last restartpoint, not the one it has replayed.
        let actions = view.checkpoint(cluster.history.timeline()).into_iter().collect();
        return view.say(Reason::StaleTimeline, actions).within(Millis(500));
    }
    // Who led last lacks nothing; the position on record may still be that of the leader before.
    if !synchronous && !forced && !led_last && cluster.optime.ahead_of(standby.position()) > settings.maximum_lag {
        return view.say(Reason::TooFarBehind, vec![]);
    }
    // Who was the primary has what it acknowledged, and needs nobody to tell.
    let voted = synchronous && cluster.sync.leader.as_ref() != Some(view.me());
    let needed = if voted && !forced { cluster.sync.quorum } else { 0 };
    let rivals = rivals(&view, cluster, synchronous && !forced);
    if (!rivals.is_empty() || needed > 0) && !forced {
        // As long as asking and one slow turn may take.
        let freshness = Millis(500) + view.timing().heartbeat + view.timing().heartbeat;
        let fresh = view.obs.peers.as_ref().filter(|peers| {
            view.memory.vacant_since.is_some_and(|since| peers.asked >= since)
                && view.now().since(peers.asked) < freshness
                // One that has announced itself since may be ahead, and was not asked.
                && rivals.iter().all(|rival| peers.covers(rival))
        });
        let Some(answers) = fresh else {
            return view.say(Reason::AskingPeers, vec![Action::AskPeers(rivals)]).within(Millis(500));
        };
        let mine = (running.timeline, standby.position());
        let is_ahead = |peer: &PeerPosition| {
            // One that was just started may show a timeline older than its WAL.
            let may_be = patience && peer.timeline < mine.0 && peer.position > mine.1;
            // Between synchronous standbys more WAL is no more commits: nobody waits for one that does not take over.
            let counts = patience || !synchronous;
            peer.can_lead && (may_be || (counts && (peer.timeline, peer.position) > mine))
        };
        let ahead = answers.positions.iter().find(|(name, peer)| rivals.contains(*name) && is_ahead(peer));
        if let Some((peer, _)) = ahead {
            return view.say(Reason::PeerAhead { peer: peer.clone() }, vec![]).within(Millis(500));
        }
        let preferred = answers.positions.iter().find(|(name, peer)| {
            rivals.contains(*name)
                && peer.can_lead
                && (peer.timeline, peer.position) == mine
                && cluster.members.get(*name).is_some_and(|it| it.failover_priority > view.settings.failover_priority)
        });
        if let Some((peer, _)) = preferred.filter(|_| patience) {
            return view.say(Reason::PeerPreferred { peer: peer.clone() }, vec![]).within(Millis(500));
        }
        // A voter that is free of the old primary will not confirm anything to it any more: what it has is all that counts.
        let gone = view.memory.vacant_since.unwrap_or(view.now());
        let votes = answers.positions.iter().filter(|(name, voter)| {
            let behind = voter.timeline <= mine.0 && voter.position <= mine.1 && voter.looked >= gone;
            let lacks = || cluster.lacks(name, voter.timeline, voter.position, torn).is_some();
            let has_left = voter.complete && voter.detached;
            behind && has_left && *name != view.me() && cluster.sync.standbys.contains(*name) && !lacks()
        });
        let votes = votes.count();
        if votes < needed {
            return view.say(Reason::NoQuorum { votes, needed }, vec![]).within(RECOUNT);
        }
    }
    view.memory.taken_with = request.map(|request| request.version);
    let take = take(&view, cluster, false);
    let reason = match &cluster.leader {
        Some(leader) => Reason::Evicting { leader: leader.name.clone() },
        None => Reason::TakingLeadership,
    };
    view.say(reason, vec![take])
}

/// Members that might have more WAL and may lead, or have a vote. In synchronous mode only those on record need to be
/// asked: who is alone there need not ask anybody.
fn rivals(view: &View<'_>, cluster: &Cluster, synchronous: bool) -> BTreeSet<NodeName> {
    cluster
        .members
        .iter()
        .filter(|(name, member)| *name != view.me() && (synchronous || !member.nofailover))
        // Whose lease has lapsed would have renewed it if it could; but one that was lost when it had just taken the leadership
        // is a standby again once it is back.
        .filter(|(name, member)| {
            let lapsed = cluster.leader.as_ref().is_some_and(|lapsed| lapsed.name == **name);
            !lapsed || (member.is_running && !member.is_primary)
        })
        .filter(|(name, _)| !synchronous || cluster.sync.standbys.contains(*name))
        .filter(|(name, _)| {
            synchronous || cluster.failsafe.members.is_empty() || cluster.failsafe.members.contains(*name)
        })
        .map(|(name, _)| name.clone())
        .collect()
}
