//! The whole HA policy: an observation in, a decision out.
//!
//! `decide` is total and pure. Rules are tried in order and the first that matches wins; each family of rules has a
//! file of its own:
//!
//! ```text
//!  observation ─► fence ─► request ─► silence ─► busy ─┬─► leader    the leadership is mine
//!                                                      ├─► standby   somebody else leads
//!                                                      └─► vacant    nobody leads, or who does has let its lease lapse
//! ```

mod fence;
mod leader;
mod slots;
mod standby;
mod topology;
mod vacant;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ops::ControlFlow::{self, Break, Continue};

use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::lsn::{Lsn, Timeline};
use crate::name::{Epoch, NodeName, SlotName};
use crate::observation::{
    Cluster, ClusterSettings, Dcs, Disk, Initialize, JobKind, Observation, Outcome, Postgres, Primary, Request, Role,
    Sender, Tie, Watchdog,
};
use crate::reason::Reason;
use crate::rejoin::Rung;
use crate::sync;
use crate::time::{Instant, Millis};
use crate::timing::Timing;

/// What a member knows without looking: from its own configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Its name.
    pub me: NodeName,
    /// Timings of the cluster.
    pub timing: Timing,
    /// Tag `nofailover`, or a `failover_priority` of 0.
    pub nofailover: bool,
    /// Tag `failover_priority`.
    pub failover_priority: u32,
    /// A primary must have a working watchdog.
    pub watchdog_required: bool,
    /// Tag `replicatefrom`: the member to stream from in place of the leader.
    pub replicatefrom: Option<NodeName>,
    /// Tag `nostream`: live on the archive alone.
    pub nostream: bool,
    /// A standby that gets nothing for so long, from a leader that answers, gets nothing at all.
    pub standstill: Millis,
    /// A record that was received in part is not seen after a restart: a member may end so many bytes before what it has
    /// confirmed, and lack nothing that anybody waited for.
    #[serde(default)]
    pub torn: u64,
}

/// What one decision leaves for the next. Lost when the agent restarts, but for [`Electorate`]; nothing of it is needed for
/// safety.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// See [`sync::Floor`].
    pub sync_floor: sync::Floor,
    /// A slow action failed and is not tried again before an instant.
    pub backoff: Option<Backoff>,
    /// The rung of the ladder that is due.
    pub due: Rung,
    /// The highest that was tried since this member last streamed.
    pub tried: Rung,
    /// A standby that does not get on.
    pub standstill: Option<Standstill>,
    /// How often Postgres has ended in recovery since it last ran, or had other data.
    pub ends: u32,
    /// It is in recovery, and nobody has told it to stop.
    pub recovering: bool,
    /// The leader that this was tried with.
    pub tried_with: Option<NodeName>,
    /// The request that was there when this member last reached for the leadership, by its version: whoever was asked to
    /// take over has had his turn.
    pub taken_with: Option<i32>,
    /// The roles that members need are there.
    pub prepared: bool,
    /// A fresh copy was ordered by the operator.
    pub clone_ordered: bool,
    /// Since when nobody leads.
    pub vacant_since: Option<Instant>,
    /// After which leadership.
    pub vacant_after: Option<Epoch>,
    /// The checkpoint that was ordered so that the control file shows the timeline.
    pub checkpoint: Option<CheckpointOrder>,
    /// From whom a standby was last told to stream.
    pub followed: Option<NodeName>,
    /// The highest version that `pgha/epoch` ever had: should somebody delete it, writes that were held back since must not find
    /// their version again.
    pub epoch_version: Option<i32>,
    /// The highest number that was ever given to a promotion, should the record of it be lost.
    pub reserved: Option<Timeline>,
    /// Permanent slots that were asked for at some time: those that are not any more are dropped.
    pub permanent: BTreeSet<SlotName>,
    /// Since when logical slots are to be copied, and when they last were.
    pub copying: Option<SlotCopying>,
    /// When work on permanent slots was last ordered.
    pub slot_work: Option<Instant>,
    /// Slots of members that are away, and since when they are.
    pub away: BTreeMap<SlotName, Instant>,
    /// Since when Postgres is down or starting under a leadership that it has served under.
    pub down_since: Option<Instant>,
    /// Since when the disk is not sound and no WAL gets through to it.
    pub disk: Option<DiskTrouble>,
    /// Standbys that were near enough to take over when Postgres last served as the primary.
    pub near: BTreeSet<NodeName>,
    /// Since when the leader stands in for the member that WAL should come from (`replicatefrom`): that one does not stream.
    pub shunned: Option<Instant>,
    /// When members were last asked for their word (failsafe mode).
    pub asked: Option<Instant>,
    /// Members on record for failsafe mode that are away, and since when they are.
    pub failsafe_away: BTreeMap<NodeName, Instant>,
    /// For a leader in failsafe mode: whom it needs, should ZooKeeper go silent.
    pub electorate: Electorate,
    /// A standby that streams from nobody any more.
    pub parting: Option<Parting>,
    /// Since when ZooKeeper has answered every time.
    pub answered_since: Option<Instant>,
    /// When a leader was last on record.
    pub leader_seen: Option<Instant>,
    /// For a leader: it has ordered a change of the synchronous record while that was of this version. As long as it is, that
    /// write may still arrive, however old it is.
    pub sync_ordered: Option<i32>,
    /// For a leader: it has ordered its release under this version of the epoch. That write may still arrive.
    pub release_ordered: Option<i32>,
    /// Standbys that stream and have not confirmed all that a primary has: how far each was, and since when it has not got on.
    pub unconfirmed: BTreeMap<NodeName, Standstill>,
}

/// Who might take over from a leader that ZooKeeper does not answer any more.
///
/// Only leaders write the record, one write at a time, and ZooKeeper shows a session what it has written itself: what a
/// leader has seen and what it has ordered since is all that can be there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Electorate {
    /// Failsafe mode is on.
    pub on: bool,
    /// The record as last seen.
    pub recorded: BTreeSet<NodeName>,
    /// What was ordered since, while the record was of this version: any of it may be the one that counts.
    pub ordered: Option<(Option<i32>, BTreeSet<NodeName>)>,
    /// One of the orders was for nobody: then anybody may lead.
    pub lifted: bool,
}

impl Electorate {
    /// Whether nothing is known: not before ZooKeeper has shown a leader its own leadership.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Everybody who might lead; `None` where that may be anybody.
    fn everybody(&self) -> Option<BTreeSet<NodeName>> {
        let ordered = self.ordered.iter().flat_map(|(_, members)| members);
        let known = self.on && !self.recorded.is_empty() && !self.lifted;
        known.then(|| self.recorded.iter().chain(ordered).cloned().collect())
    }

    /// An order goes out while the record has this version.
    fn order(&mut self, version: Option<i32>, members: &BTreeSet<NodeName>) {
        self.lifted |= members.is_empty();
        self.ordered.get_or_insert((version, BTreeSet::new())).1.extend(members.iter().cloned());
    }
}

impl Memory {
    /// Whether the standby has left whom it streamed from: nothing more is confirmed to that one.
    pub fn is_detached(&self) -> bool {
        self.parting.is_some_and(|parting| parting.complete)
    }

    /// The member to stream from in place of the leader, as things stand: what others are to be told.
    pub fn relay<'a>(&self, settings: &'a Settings) -> Option<&'a NodeName> {
        settings.replicatefrom.as_ref().filter(|_| self.shunned.is_none())
    }

    /// Whether a failed action is to be left alone for now.
    fn backs_off(&self, kind: JobKind, now: Instant) -> bool {
        self.backoff.is_some_and(|backoff| backoff.kind == kind && now < backoff.until)
    }

    fn climb_to(&mut self, rung: Rung) {
        self.tried = rung;
        self.due = rung;
        self.ends = 0;
    }
}

/// Logical slots are to be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotCopying {
    /// Since when.
    pub since: Instant,
    /// When it was last done: what is missing right after that will not come of doing it again.
    pub done: Option<Instant>,
}

/// A disk that is not sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskTrouble {
    /// Since when.
    pub since: Instant,
    /// Since when no WAL gets through to it.
    pub stuck: Instant,
    /// How far a primary's WAL was: while it gets on the disk cannot be that bad.
    pub flushed: Option<Lsn>,
}

/// A standby was told to stream from nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parting {
    /// Since when it has been seen free.
    pub since: Instant,
    /// It was again, after every process had the time to be told.
    pub complete: bool,
}

/// A standby that does not get on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standstill {
    /// Where it stands.
    pub position: Lsn,
    /// Since when.
    pub since: Instant,
}

/// A checkpoint that was ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointOrder {
    /// For this timeline.
    pub timeline: Timeline,
    /// When.
    pub at: Instant,
}

/// A signal has reached a process that waits, and was acted on, within this.
const TOLD: Millis = Millis(200);

/// A member that does not hand WAL on is tried again after so many standstills.
const SHUNNED_FOR: u64 = 12;

/// One that has not shown an effect for so long has failed, or is ordered again without harm.
const CHECKPOINT_PATIENCE: Millis = Millis::from_secs(60);

/// A failed slow action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// What failed.
    pub kind: JobKind,
    /// How often in a row.
    pub failures: u32,
    /// Not tried again before.
    pub until: Instant,
}

/// What to do, why, and when to look again at the latest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Why.
    pub reason: Reason,
    /// What, in order.
    pub actions: Vec<Action>,
    /// Look again after this, if nothing happens before.
    pub wake: Millis,
    /// For the next decision.
    pub memory: Memory,
}

/// Everything that a rule may look at, and what it remembers.
struct View<'a> {
    settings: &'a Settings,
    memory: &'a mut Memory,
    obs: &'a Observation,
}

/// What a rule decides.
struct Verdict {
    reason: Reason,
    actions: Vec<Action>,
    wake: Millis,
}

impl View<'_> {
    fn now(&self) -> Instant {
        self.obs.now
    }

    fn timing(&self) -> &Timing {
        &self.settings.timing
    }

    fn me(&self) -> &NodeName {
        &self.settings.me
    }

    /// The lease, if it still holds.
    fn lease(&self) -> Option<&crate::lease::Lease> {
        self.obs.lease.as_ref().filter(|lease| lease.holds(self.now(), self.timing()))
    }

    /// Orders a checkpoint for the timeline, unless one is under way.
    fn checkpoint(&mut self, timeline: Timeline) -> Option<Action> {
        let now = self.now();
        let under_way = self
            .memory
            .checkpoint
            .is_some_and(|order| order.timeline == timeline && now.since(order.at) < CHECKPOINT_PATIENCE);
        if under_way {
            return None;
        }
        self.memory.checkpoint = Some(CheckpointOrder { timeline, at: now });
        Some(Action::Checkpoint)
    }

    fn say(self, reason: Reason, actions: Vec<Action>) -> Verdict {
        Verdict { reason, actions, wake: self.timing().heartbeat }
    }

    /// Whether a member has been away for so long that no WAL is kept for it any more.
    fn is_given_up(&self, slot: &SlotName, settings: &ClusterSettings) -> bool {
        self.is_away_for(slot, settings.member_slots_ttl)
    }

    fn is_away_for(&self, slot: &SlotName, length: Millis) -> bool {
        self.memory.away.get(slot).is_some_and(|since| self.now().since(*since) >= length)
    }

    fn lacks_watchdog(&self) -> bool {
        lacks_watchdog(self.settings, self.obs)
    }

    fn failing_disk(&self) -> Option<Disk> {
        failing_disk(self.settings, self.memory, self.obs)
    }

    fn backing_off(&self, kind: JobKind) -> bool {
        self.memory.backs_off(kind, self.now())
    }

    /// Standbys that confirm nothing, though there is something: commits that wait for them do so in vain.
    fn stalled(&self) -> BTreeSet<NodeName> {
        let over = |still: &&Standstill| self.now().since(still.since) >= self.stall();
        self.memory.unconfirmed.iter().filter(|(_, still)| over(still)).map(|(name, _)| name.clone()).collect()
    }

    /// A disk may take so long, a network that lost a packet does.
    fn stall(&self) -> Millis {
        self.timing().heartbeat + self.timing().heartbeat
    }
}

impl Verdict {
    /// Look again sooner.
    fn within(mut self, wake: Millis) -> Self {
        self.wake = self.wake.min(wake);
        self
    }
}

/// Decides.
pub fn decide(settings: &Settings, memory: &Memory, obs: &Observation) -> Decision {
    decide_with(settings, memory.clone(), obs)
}

/// The same, for those who need the old memory no more.
pub fn decide_with(settings: &Settings, mut memory: Memory, obs: &Observation) -> Decision {
    learn(&mut memory, settings, obs);
    let Verdict { reason, actions, wake } = match rules(View { settings, memory: &mut memory, obs }) {
        Break(verdict) => verdict,
        Continue(never) => match never {},
    };
    for action in &actions {
        match action {
            Action::ReleaseLeadership { version } => memory.release_ordered = Some(*version),
            Action::Stop { .. } | Action::Fence => memory.recovering = false,
            _ => {}
        }
    }
    Decision { reason, actions, wake, memory }
}

/// Whether nothing about this member itself keeps it from leading: for others that wait for it to.
pub fn can_lead(settings: &Settings, memory: &Memory, obs: &Observation) -> bool {
    barred(settings, memory, obs).is_none()
}

/// Why this member may not lead, if it were its turn.
fn barred(settings: &Settings, memory: &Memory, obs: &Observation) -> Option<Reason> {
    if settings.nofailover {
        Some(Reason::NoFailoverTag)
    } else if lacks_watchdog(settings, obs) {
        Some(Reason::WatchdogRequired)
    } else if !obs.guard_alive {
        Some(Reason::GuardMissing)
    } else if let Some(disk) = failing_disk(settings, memory, obs) {
        Some(Reason::DiskFailing { disk })
    } else if memory.backs_off(JobKind::Promote, obs.now) {
        Some(Reason::BackingOff { job: JobKind::Promote })
    } else {
        None
    }
}

/// Whether a primary must have a watchdog and this member could not arm one.
fn lacks_watchdog(settings: &Settings, obs: &Observation) -> bool {
    settings.watchdog_required && matches!(obs.watchdog, Watchdog::Off | Watchdog::Unusable)
}

/// The disk, once it has been unsound for so long that it is no passing thing.
fn failing_disk(settings: &Settings, memory: &Memory, obs: &Observation) -> Option<Disk> {
    let ttl = settings.timing.ttl;
    let lasts = memory.disk.is_some_and(|trouble| {
        // A query that fills it with temporary files is soon over. A disk that stays full still takes the record of
        // each transaction that fails for want of space.
        let full = obs.disk == Disk::Full && obs.now.since(trouble.since) >= ttl + ttl;
        full || obs.now.since(trouble.stuck) >= ttl
    });
    (lasts && obs.disk != Disk::Sound).then_some(obs.disk)
}

/// Each family either decides (`Break`, so that `?` ends the search) or passes the view on; the last one decides.
fn rules(view: View<'_>) -> ControlFlow<Verdict, Infallible> {
    let view = fence::lease_over(view)?;
    let view = fence::stand_down(view)?;
    let view = shutdown(view)?;
    let view = namesake(view)?;
    let cluster = match &view.obs.dcs {
        Dcs::Silent { .. } => return Break(silence(view)),
        Dcs::Seen(cluster) => cluster.as_ref(),
    };
    let view = fence::deposed(view, cluster)?;
    let view = busy(view, cluster)?;
    let view = wrong_cluster(view, cluster)?;
    Break(match &cluster.leader {
        Some(leader) if leader.name == view.settings.me => leader::decide(view, cluster, leader.is_my_session),
        Some(_) if is_vacant(view.settings, view.memory, view.obs, cluster) => vacant::decide(view, cluster),
        Some(leader) => {
            let lapses = lapses_at(view.settings, view.memory, view.obs, cluster).filter(|at| *at > view.now());
            let left = lapses.map_or(Millis(u64::MAX), |at| at.since(view.now()));
            standby::decide(view, cluster, &leader.name).within(left)
        }
        None => vacant::decide(view, cluster),
    })
}

/// Nobody leads, or somebody does on paper whose lease is over.
fn is_vacant(settings: &Settings, memory: &Memory, obs: &Observation, cluster: &Cluster) -> bool {
    let lapsed = || lapses_at(settings, memory, obs, cluster).is_some_and(|at| obs.now >= at);
    match &cluster.leader {
        Some(leader) => {
            let made = matches!(cluster.initialize, Initialize::Done(_));
            leader.name != settings.me && made && cluster.epoch.version.is_some() && lapsed()
        }
        None => is_free(&settings.me, cluster) || lapsed(),
    }
}

/// Nobody holds the leadership, and nobody's lease from an earlier one can still run: that was given back, or was this
/// member's own. Where somebody has deleted the znode its holder may serve on, and not know yet.
fn is_free(me: &NodeName, cluster: &Cluster) -> bool {
    let made = matches!(cluster.initialize, Initialize::Done(_));
    cluster.leader.is_none() && (!made || cluster.epoch.released || cluster.epoch.leader.as_ref() == Some(me))
}

/// When the leadership of another counts as vacant if nothing more is heard of it.
///
/// Where commits do not wait, a leader that was without ZooKeeper, as this member was, has time to come back: it has all of
/// them. A synchronous standby has them too, and need not wait.
fn lapses_at(settings: &Settings, memory: &Memory, obs: &Observation, cluster: &Cluster) -> Option<Instant> {
    let timing = &settings.timing;
    let answered = memory.answered_since?;
    if cluster.leader.is_none() {
        // Its session is gone, and with it the time that it had to come back. Where somebody has deleted the epoch as well
        // nobody can tell whose sign of life the newest is.
        let seen = || memory.leader_seen.unwrap_or(answered).max(answered);
        let heard = obs.pulse.map_or_else(seen, |pulse| pulse.seen);
        return Some(heard + timing.eviction());
    }
    let synchronous = cluster_settings(cluster).is_synchronous() && cluster.sync.leader.is_some();
    let grace = if synchronous { Millis(0) } else { timing.heartbeat + timing.heartbeat };
    Some((answered + grace).max(obs.pulse?.seen + timing.eviction()))
}

/// Takes note of what ended and what changed since the last decision.
fn learn(memory: &mut Memory, settings: &Settings, obs: &Observation) {
    if let Some(ended) = &obs.ended {
        match &ended.outcome {
            Outcome::Done => {
                memory.backoff = memory.backoff.filter(|backoff| backoff.kind != ended.kind);
                memory.prepared |= ended.kind == JobKind::Prepare;
                if matches!(ended.kind, JobKind::Rewind | JobKind::Clone) {
                    memory.clone_ordered = false;
                    memory.due = Rung::Start;
                    memory.ends = 0;
                }
            }
            Outcome::Failed(_) | Outcome::Impossible(_) => {
                match (&ended.outcome, ended.kind) {
                    (Outcome::Impossible(_), JobKind::Rewind) => memory.climb_to(Rung::Clone),
                    (Outcome::Impossible(_), JobKind::Start) => memory.ends += 1,
                    // What fails otherwise has not got as far as to its data: another copy would not either.
                    _ => {}
                }
                let failures = memory.backoff.filter(|b| b.kind == ended.kind).map_or(0, |b| b.failures) + 1;
                // One heartbeat, then twice as long each time, up to 32; up to 8 for a start, which costs nobody else anything.
                let doublings = if ended.kind == JobKind::Start { 3 } else { 5 };
                let wait = Millis(settings.timing.heartbeat.0 << (failures - 1).min(doublings));
                memory.backoff = Some(Backoff { kind: ended.kind, failures, until: obs.now + wait });
            }
        }
    }
    if obs.request == Some(Request::Reinitialize) {
        memory.clone_ordered = true;
    }
    if matches!(&obs.postgres, Postgres::Running(running) if matches!(running.role, Role::Primary(_))) {
        memory.climb_to(Rung::Start);
    }
    match &obs.postgres {
        Postgres::Running(_) => memory.ends = 0,
        Postgres::Stopped(_) if memory.recovering => memory.ends += 1,
        _ => {}
    }
    if obs.disk != Disk::Sound {
        // That is reason enough.
        memory.ends = 0;
    }
    memory.recovering = obs.job.is_none() && matches!(obs.postgres, Postgres::Starting { as_primary: false, .. });
    if !matches!(obs.postgres, Postgres::Running(_) | Postgres::Starting { .. }) {
        memory.standstill = None;
    }
    if !matches!(obs.postgres, Postgres::Running(_) | Postgres::Mute { .. }) {
        // It ended with the server that was to write it.
        memory.checkpoint = None;
    }
    memory.parting = parting(memory.parting, obs);
    if let Dcs::Seen(cluster) = &obs.dcs {
        let away = |slot: &&SlotName| !cluster.members.keys().any(|name| name.owns(slot));
        // Who was away before ZooKeeper was silent may have been there since.
        let watched = memory.answered_since.unwrap_or(obs.now);
        let since = |slot: &SlotName| memory.away.get(slot).map_or(obs.now, |since| watched.max(*since));
        memory.away = cluster.retained_slots.iter().filter(away).map(|slot| (slot.clone(), since(slot))).collect();
    }
    let pause = Millis(settings.standstill.0 * SHUNNED_FOR);
    memory.shunned = memory.shunned.filter(|since| obs.now.since(*since) < pause);
    let serves = matches!(&obs.postgres, Postgres::Running(_) | Postgres::Mute { .. });
    let led = obs.lease.is_some_and(|lease| obs.past.led_in == Some(lease.epoch));
    memory.down_since = (led && !serves).then(|| memory.down_since.unwrap_or(obs.now));
    let primary = match &obs.postgres {
        Postgres::Running(running) => match &running.role {
            Role::Primary(primary) => Some(primary),
            Role::Standby(_) => None,
        },
        _ => None,
    };
    memory.unconfirmed = primary.map(|primary| unconfirmed(&memory.unconfirmed, primary, obs.now)).unwrap_or_default();
    let flushed = primary.map(|primary| primary.flushed);
    memory.disk = (obs.disk != Disk::Sound).then(|| match memory.disk {
        Some(trouble) if flushed.is_none() || trouble.flushed == flushed => trouble,
        known => {
            let since = known.map_or(obs.now, |trouble| trouble.since);
            DiskTrouble { since, stuck: obs.now, flushed }
        }
    });
    if let Dcs::Seen(cluster) = &obs.dcs {
        // The next one is another, though the znode may count anew by then.
        memory.taken_with = memory.taken_with.filter(|_| cluster.failover.is_some());
        if let Some(settings) = &cluster.config {
            memory.permanent.extend(settings.permanent_slots.keys().cloned());
        }
        if let Some(primary) = primary {
            let most = cluster_settings(cluster).maximum_lag;
            let is_near = |it: &&Sender| it.streaming && primary.flushed.ahead_of(it.flushed) <= most;
            let near = || primary.senders.iter().filter(is_near).map(|it| it.name.as_str());
            if !near().eq(memory.near.iter().map(NodeName::as_str)) {
                memory.near = near().filter_map(|name| NodeName::try_from(name).ok()).collect();
            }
        }
        let away = cluster.failsafe.members.iter().filter(|name| !cluster.members.contains_key(*name));
        memory.failsafe_away =
            away.map(|name| (name.clone(), memory.failsafe_away.get(name).copied().unwrap_or(obs.now))).collect();
        memory.electorate = electorate(std::mem::take(&mut memory.electorate), &settings.me, cluster);
    }
    if let Dcs::Seen(cluster) = &obs.dcs {
        memory.answered_since.get_or_insert(obs.now);
        if cluster.leader.is_some() {
            memory.leader_seen = Some(obs.now);
        }
        memory.reserved = memory.reserved.max(cluster.history.reserved);
        memory.epoch_version = memory.epoch_version.max(cluster.epoch.version);
        // One that was slept through was another vacancy.
        let since = memory.vacant_since.filter(|_| memory.vacant_after == Some(cluster.epoch.epoch));
        let vacant = is_vacant(settings, memory, obs, cluster);
        memory.vacant_since = vacant.then(|| since.unwrap_or(obs.now));
        memory.vacant_after = Some(cluster.epoch.epoch);
    } else {
        memory.answered_since = None;
        memory.vacant_since = None;
    }
}

fn unconfirmed(
    known: &BTreeMap<NodeName, Standstill>,
    primary: &Primary,
    now: Instant,
) -> BTreeMap<NodeName, Standstill> {
    let behind = primary.senders.iter().filter(|sender| sender.streaming && sender.flushed < primary.flushed);
    let named = behind.filter_map(|sender| Some((NodeName::try_from(sender.name.as_str()).ok()?, sender.flushed)));
    named
        .map(|(name, position)| {
            let since = known.get(&name).filter(|known| known.position == position).map_or(now, |known| known.since);
            (name, Standstill { position, since })
        })
        .collect()
}

fn parting(known: Option<Parting>, obs: &Observation) -> Option<Parting> {
    let Postgres::Running(running) = &obs.postgres else { return None };
    let Role::Standby(standby) = &running.role else { return None };
    match standby.tie {
        Tie::Bound => None,
        Tie::Loose => known,
        Tie::Free => {
            let since = known.map_or(obs.now, |parting| parting.since);
            let complete = known.is_some_and(|parting| parting.complete) || obs.now.since(since) >= TOLD;
            Some(Parting { since, complete })
        }
    }
}

fn electorate(known: Electorate, me: &NodeName, cluster: &Cluster) -> Electorate {
    match &cluster.leader {
        Some(leader) if leader.is_my_session => {
            // Once one of the orders has come about, the others are for a version that is gone.
            let ordered = known.ordered.filter(|(version, _)| *version == cluster.failsafe.version);
            let mut recorded = known.recorded;
            if recorded != cluster.failsafe.members {
                recorded.clone_from(&cluster.failsafe.members);
            }
            Electorate {
                on: cluster_settings(cluster).failsafe,
                recorded,
                lifted: known.lifted && ordered.is_some(),
                ordered,
            }
        }
        // Nobody has led since, so nobody has written it since.
        None if cluster.epoch.leader.as_ref() == Some(me) => known,
        _ => Electorate::default(),
    }
}

/// The service shall stop: a primary hands over, a standby just stops.
fn shutdown(view: View<'_>) -> ControlFlow<Verdict, View<'_>> {
    if view.obs.request != Some(Request::Shutdown) {
        return Continue(view);
    }
    let renewal = leader::renewal(&view);
    Break(match (&view.obs.postgres, view.obs.job) {
        (Postgres::NoData | Postgres::Unusable(_) | Postgres::Stopped(_), None) => {
            // Whatever becomes of the write: the watchdog has nothing to guard.
            let mut actions = vec![Action::DisarmWatchdog];
            if let Dcs::Seen(cluster) = &view.obs.dcs
                && let (Some(leader), Some(version)) = (&cluster.leader, cluster.epoch.version)
                && leader.name == view.settings.me
                // It may be another host's.
                && (leader.is_my_session || view.obs.namesake.is_none())
            {
                actions.push(Action::ReleaseLeadership { version });
            }
            actions.extend([Action::ForgetLease, Action::Exit]);
            view.say(Reason::ShutDown, actions)
        }
        (_, Some(job)) if job.kind == JobKind::Stop => view.say(Reason::ShuttingDown, renewal),
        (_, Some(_)) => view.say(Reason::ShuttingDown, vec![Action::CancelJob]),
        (_, None) => {
            let actions = renewal.into_iter().chain([Action::Stop { checkpoint: true }]).collect();
            view.say(Reason::ShuttingDown, actions)
        }
    })
}

/// Another host is this member already: what this one wrote would be taken for the other's word.
fn namesake(view: View<'_>) -> ControlFlow<Verdict, View<'_>> {
    match &view.obs.namesake {
        Some(at) if !view.obs.may_accept_writes() => {
            let reason = Reason::DuplicateName { at: at.clone() };
            Break(view.say(reason, vec![]))
        }
        _ => Continue(view),
    }
}

/// ZooKeeper does not answer. Nothing is written; [`fence::lease_over`] ends this when the lease does.
fn silence(view: View<'_>) -> Verdict {
    match view.lease().copied() {
        Some(lease) if view.obs.may_accept_writes() => {
            let left = lease.fence_at(view.timing()).since(view.now());
            let arming = leader::arming(&view).into_iter();
            let Some(mut members) = view.memory.electorate.everybody() else {
                return view.say(Reason::SilentLeading, arming.collect()).within(left);
            };
            members.remove(view.me());
            let (now, pause) = (view.now(), view.timing().heartbeat);
            // Once a heartbeat, and twice as often while not all agree.
            let due = now >= lease.counted_from + pause
                && view.memory.asked.is_none_or(|asked| now.since(asked).0 >= pause.0 / 2);
            if !due {
                return view.say(Reason::Failsafe, arming.collect()).within(Millis(pause.0 / 2)).within(left);
            }
            view.memory.asked = Some(now);
            let ask = Action::RenewByPromise { epoch: lease.epoch, members };
            view.say(Reason::Failsafe, [ask].into_iter().chain(arming).collect()).within(left)
        }
        // When the lease is over, the watchdog is to be disarmed at once.
        Some(lease) => {
            let left = lease.fence_at(view.timing()).since(view.now());
            view.say(Reason::SilentWaiting, vec![]).within(left)
        }
        None => view.say(Reason::SilentWaiting, vec![]),
    }
}

/// A slow action is under way: nothing else is begun; a leader goes on renewing.
fn busy<'a>(view: View<'a>, cluster: &Cluster) -> ControlFlow<Verdict, View<'a>> {
    let Some(job) = view.obs.job else { return Continue(view) };
    let mine = cluster.leader.as_ref().is_some_and(|leader| leader.is_my_session);
    if job.writes && !mine {
        return Break(view.say(Reason::Busy { job: job.kind }, vec![Action::CancelJob, Action::Fence]));
    }
    let renewal = leader::renewal(&view);
    let wake = leader::next_look(&view);
    if mine && let Some(reason) = leader::overdue(&view, cluster, job) {
        let actions = renewal.into_iter().chain([Action::CancelJob, Action::Fence]).collect();
        return Break(view.say(reason, actions));
    }
    Break(view.say(Reason::Busy { job: job.kind }, renewal).within(wake))
}

/// Data of another cluster, or data that cannot be read: hands off.
fn wrong_cluster<'a>(view: View<'a>, cluster: &Cluster) -> ControlFlow<Verdict, View<'a>> {
    let mine = match &view.obs.postgres {
        Postgres::Stopped(control) => Some(control.system_id),
        Postgres::Running(running) => Some(running.system_id),
        _ => None,
    };
    let release = |actions: &mut Vec<Action>| {
        if let (Some(leader), Some(version)) = (&cluster.leader, cluster.epoch.version)
            && leader.is_my_session
        {
            actions.push(Action::ReleaseLeadership { version });
        }
    };
    if let (Some(mine), Initialize::Done(theirs)) = (mine, cluster.initialize)
        && mine != theirs
    {
        let mut actions = Vec::new();
        if view.obs.may_accept_writes() {
            actions.push(Action::Fence);
        }
        release(&mut actions);
        if !view.obs.past.unrecorded && !view.memory.clone_ordered {
            return Break(view.say(Reason::SystemIdMismatch { mine, cluster: theirs }, actions));
        }
        // Two members began to make the cluster, and the other one finished; or an operator wants a fresh copy.
        let led = cluster.leader.as_ref().is_some_and(|leader| leader.name != *view.me());
        if !actions.is_empty() || !led {
            return Break(view.say(Reason::WaitingForCluster, actions));
        }
        view.memory.clone_ordered = true;
    }
    if let Postgres::Unusable(why) = &view.obs.postgres
        && !view.memory.clone_ordered
    {
        let mut actions = Vec::new();
        release(&mut actions);
        let reason = Reason::DataUnusable { why: why.clone() };
        return Break(view.say(reason, actions));
    }
    Continue(view)
}

/// The cluster-wide settings; before the first leader has written them, synchronous mode is taken to be off.
fn cluster_settings(cluster: &Cluster) -> &ClusterSettings {
    static UNWRITTEN: ClusterSettings = ClusterSettings::UNWRITTEN;
    cluster.config.as_ref().unwrap_or(&UNWRITTEN)
}
