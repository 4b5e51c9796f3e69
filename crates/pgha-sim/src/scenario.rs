//! What a history is made of: the cluster, its settings, and the faults that will come. All of it from one seed.

use std::collections::BTreeMap;
use std::fmt;

use pgha_core::name::SlotName;
use pgha_core::observation::{ClusterSettings, Disk, PermanentSlot, Synchrony};
use pgha_core::time::Millis;
use pgha_core::timing::{Profile, Timing};

use crate::mishap::{self, Mishap};
use crate::model::postgres::Breakage;
use crate::time::{Span, Time};

/// Faults come from here on: the cluster has been made by then.
pub(crate) const FIRST_FAULT: Time = Time(25_000_000);
/// No fault begins after this.
pub(crate) const LAST_FAULT: Time = Time(400_000_000);
/// Every fault has ended by then.
pub const CALM: Time = Time(430_000_000);
/// The end of a history.
pub const END: Time = Time(600_000_000);

/// Stands for the host of whoever leads when the fault begins: that is where faults hurt.
pub const LEADER: usize = 6;

/// A moment that an ambush waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// A Postgres has just been promoted.
    Promotion,
    /// A `pg_rewind` has begun.
    Rewind,
    /// A copy has begun.
    Copy,
    /// The record of synchronous standbys was written.
    SyncRecord,
    /// Somebody took the leadership.
    Take,
    /// A primary is stopped to hand over.
    Stop,
    /// A member is about to send for the leadership.
    Bid,
}

/// What an ambush does to its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strike {
    /// It loses its power.
    Power,
    /// It stands still.
    Freeze,
    /// It is cut off from everything.
    Isolate,
    /// Its agent is killed.
    KillAgent,
    /// What it sends to ZooKeeper waits in its sockets.
    LoseZooKeeper,
    /// The other members hear nothing more of ZooKeeper.
    BlindOthers,
}

/// Something that happens to the cluster, for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A host loses its power, and gets it back.
    Power(usize),
    /// Everything on a host stands still.
    Freeze(usize),
    /// The next host to which this happens is struck.
    Ambush(Moment, Strike),
    /// An agent is killed, and does not come back before the end.
    KillAgent(usize),
    /// An agent stands still.
    FreezeAgent(usize),
    /// A guard is killed.
    KillGuard(usize),
    /// A postmaster is killed.
    KillPostgres(usize),
    /// Postgres stands still: stopped processes, or a disk that hangs.
    FreezePostgres(usize),
    /// A server of ZooKeeper is killed, and stays away.
    KillServer(usize),
    /// ZooKeeper changes its leader.
    Elect,
    /// A host is cut off from everything.
    Isolate(usize),
    /// A host hears nothing, or is heard by nobody.
    OneWay(usize, bool),
    /// Two hosts cannot talk.
    Part(usize, usize),
    /// A host's links are slow.
    Slow(usize),
    /// A host's disk is slow: looking at Postgres takes long.
    SlowDisk(usize),
    /// An operator restarts the agent's service.
    RestartAgent(usize),
    /// An operator stops the agent's service for a while.
    StopAgent(usize),
    /// An operator restarts Postgres.
    RestartPostgres(usize),
    /// An operator wants a fresh copy.
    Reinitialize(usize),
    /// An operator wants another primary.
    Switchover(Option<usize>),
    /// An operator pauses the cluster for a while.
    Pause,
    /// `pg_rewind` fails for a while.
    RewindFails(usize),
    /// Postgres does not start for a while.
    StartFails(usize),
    /// A standby cannot use what it has any more.
    Break(usize, Breakage),
    /// Crash recovery takes as long as this lasts.
    SlowRecovery(usize),
    /// A host's processes do not reach ZooKeeper, but everything else.
    LoseZooKeeper(usize),
    /// All servers of ZooKeeper are stopped.
    StopEnsemble,
    /// All members but this one lose their power; all but the leader have it back at once.
    Blackout(usize),
    /// A disk takes no writes.
    DiskFails(usize, Disk),
    /// An operator makes another member primary, whatever it has.
    Failover(usize),
    /// An operator has asked for a switchover at the end of this.
    Scheduled(usize),
    /// An operator changes how commits wait, or turns failsafe mode on or off.
    Edit(Edit),
    /// Somebody makes a mistake, and puts it right at the end.
    Mishap(Mishap),
}

/// What an operator changes in the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    /// Waiting for named standbys becomes a quorum, or the other way round.
    Synchrony,
    /// Commits wait for another number of standbys.
    SyncCount(usize),
    /// They wait also when there is no standby, or no longer.
    Strict,
    /// Failsafe mode.
    Failsafe,
}

/// A fault with its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// When it begins.
    pub at: Time,
    /// How long it lasts.
    pub lasts: Span,
    /// What it is.
    pub fault: Fault,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} for {} ms", self.at, self.fault, self.lasts.as_millis())
    }
}

/// A history before it happens.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Where it came from.
    pub seed: u64,
    /// Members.
    pub members: usize,
    /// Servers of the ensemble, on the first hosts.
    pub servers: usize,
    /// Timings.
    pub timing: Timing,
    /// Cluster-wide settings.
    pub settings: ClusterSettings,
    /// Hosts have a kernel watchdog.
    pub watchdog: bool,
    /// Primaries must have one, and this member's host has none all the same.
    pub without_watchdog: Option<usize>,
    /// This member is tagged `nofailover`.
    pub nofailover: Option<usize>,
    /// This member has greater priorities than the others.
    pub preferred: Option<usize>,
    /// This member streams from that one.
    pub relay: Option<(usize, usize)>,
    /// New members are copied from this one.
    pub clonefrom: Option<usize>,
    /// This member lives on the archive alone.
    pub nostream: Option<usize>,
    /// A host that is none yet, where one will be started under the name of a member.
    pub spare: Option<usize>,
    /// Everything that will happen.
    pub faults: Vec<Planned>,
}

impl Scenario {
    /// The scenario of a seed.
    pub fn of(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let members = [3, 3, 3, 3, 2, 2, 4, 5][rng.usize(0..8)];
        let servers = [3, 3, 3, 1, 5][rng.usize(0..5)];
        let profile =
            [Profile::Fast, Profile::Balanced, Profile::Balanced, Profile::Balanced, Profile::Wide][rng.usize(0..5)];
        let synchronous = rng.u8(0..4) != 0;
        let mut settings = ClusterSettings {
            synchrony: if synchronous { Synchrony::Named } else { Synchrony::Off },
            member_slots_ttl: Millis::from_secs(if rng.bool() { 20 } else { 1800 }),
            maximum_lag_on_syncnode: (rng.u8(0..4) == 0).then_some(500),
            maximum_lag: if rng.bool() { 300 } else { 1 << 20 },
            strict: synchronous && rng.u8(0..4) == 0,
            sync_count: if rng.u8(0..3) == 0 { 2 } else { 1 },
            ..ClusterSettings::default()
        };
        let watchdog = rng.bool();
        // Of three members two are left that may lead.
        let odd_one = |rng: &mut fastrand::Rng| (members > 2 && rng.u8(0..8) == 0).then(|| rng.usize(0..members));
        let without_watchdog = odd_one(&mut rng).filter(|_| watchdog);
        let nofailover = if without_watchdog.is_none() { odd_one(&mut rng) } else { None };
        let preferred = (rng.u8(0..4) == 0).then(|| rng.usize(0..members));
        // One in sixteen has no fault at all, and must not show any.
        let wanted = if rng.u8(0..16) == 0 { 0 } else { rng.usize(1..24) };
        let mut faults = Vec::with_capacity(wanted);
        let mut at = FIRST_FAULT;
        // Some come one after the other, some all at once.
        let pace = (LAST_FAULT.0 - FIRST_FAULT.0) / (wanted as u64 + 1);
        for _ in 0..wanted {
            at = if rng.u8(0..4) == 0 { at + Span::millis(rng.u64(0..3000)) } else { at + Span(rng.u64(0..2 * pace)) };
            if at >= LAST_FAULT {
                break;
            }
            let mut plan = |at: Time, lasts: u64, fault: Fault| {
                let longest = CALM.since(at).0 - 1;
                faults.push(Planned { at, lasts: Span(lasts.min(longest)), fault });
            };
            if rng.u8(0..5) == 0 {
                let (one, gap, other) = pair(&mut rng, members.max(servers), members);
                plan(at, rng.u64(3_000_000..20_000_000), one);
                plan(at + gap, rng.u64(1_000_000..30_000_000), other);
                continue;
            }
            let lasts = match rng.u8(0..6) {
                0 => rng.u64(1..500_000),
                1..=3 => rng.u64(500_000..12_000_000),
                _ => rng.u64(5_000_000..60_000_000),
            };
            let fault = fault(&mut rng, members, members.max(servers), servers);
            let lasts = if matches!(fault, Fault::Ambush(..)) { u64::MAX } else { lasts };
            plan(at, lasts, fault);
        }
        // What was added later is drawn by itself, so that older seeds stay nearly what they were.
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x5EED_0002);
        if synchronous && rng.u8(0..3) == 0 {
            settings.synchrony = Synchrony::Quorum;
        }
        settings.failsafe = rng.u8(0..3) == 0;
        settings.primary_start_timeout = Millis::from_secs([300, 300, 20, 5, 0][rng.usize(0..5)]);
        settings.primary_stop_timeout = (rng.u8(0..3) == 0).then(|| Millis::from_secs(rng.u64(1..10)));
        let relay = (members > 2 && rng.u8(0..6) == 0).then(|| (rng.usize(0..members), rng.usize(0..members)));
        let clonefrom = (members > 2 && rng.u8(0..6) == 0).then(|| rng.usize(0..members));
        let more = if wanted == 0 { 0 } else { rng.usize(0..4) };
        for _ in 0..more {
            let at = FIRST_FAULT + Span(rng.u64(0..LAST_FAULT.since(FIRST_FAULT).0));
            let lasts = Span(rng.u64(500_000..40_000_000).min(CALM.since(at).0 - 1));
            faults.push(Planned { at, lasts, fault: newer_fault(&mut rng, members) });
        }
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x5EED_0003);
        if more > 0 && settings.synchrony == Synchrony::Quorum {
            // A voter has for a moment what the others have not, and the primary is gone before any of them looks again.
            for _ in 0..2 * more {
                let at = FIRST_FAULT + Span(rng.u64(0..LAST_FAULT.since(FIRST_FAULT).0));
                let behind = rng.usize(0..members);
                let part = Fault::Part(LEADER, behind);
                faults.push(Planned { at, lasts: Span::millis(rng.u64(1000..3000)), fault: part });
                let at = at + Span::millis(rng.u64(50..1000));
                let (lasts, fault) = if rng.u8(0..3) == 0 {
                    (Span::millis(rng.u64(10_000..40_000)), Fault::Blackout(behind))
                } else {
                    (Span(1), Fault::KillPostgres(LEADER))
                };
                faults.push(Planned { at, lasts: lasts.min(Span(CALM.since(at).0 - 1)), fault });
            }
        } else if more == 1 {
            let at = FIRST_FAULT + Span(rng.u64(0..LAST_FAULT.since(FIRST_FAULT).0));
            let ambush = Fault::Ambush(Moment::Bid, Strike::LoseZooKeeper);
            faults.push(Planned { at, lasts: Span(CALM.since(at).0 - 1), fault: ambush });
        } else if more == 2 && settings.failsafe {
            // A member is away until it is not counted on any more, and comes back when the leader cannot know.
            let at = FIRST_FAULT + Span(rng.u64(0..LAST_FAULT.since(FIRST_FAULT).0 / 2));
            let away = Timing::of(profile).session().0 + Timing::of(profile).ttl.0 * 10 + rng.u64(0..8000);
            let lasts = Span::millis(away).min(Span(CALM.since(at).0 - 1));
            faults.push(Planned { at, lasts, fault: Fault::Power(rng.usize(0..members)) });
            let at = (at + lasts) - Span::millis(rng.u64(0..4000));
            let lasts = Span::millis(rng.u64(20_000..60_000)).min(Span(CALM.since(at).0 - 1));
            faults.push(Planned { at, lasts, fault: Fault::LoseZooKeeper(LEADER) });
        } else if more == 3 && settings.is_synchronous() {
            // A primary is gone when it has just recorded a standby that is late with everything.
            for _ in 0..3 {
                let at = FIRST_FAULT + Span(rng.u64(0..LAST_FAULT.since(FIRST_FAULT).0));
                let longest = Span(CALM.since(at).0 - 1);
                let slow = Fault::Slow(rng.usize(0..members));
                faults.push(Planned { at, lasts: Span::millis(30_000).min(longest), fault: slow });
                let standby = Fault::KillPostgres(rng.usize(0..members));
                faults.push(Planned { at: at + Span::millis(200), lasts: Span(1), fault: standby });
                faults.push(Planned { at, lasts: longest, fault: Fault::Ambush(Moment::SyncRecord, Strike::Power) });
            }
        }
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x5EED_0004);
        if more > 0 && settings.synchrony == Synchrony::Quorum {
            // A primary that stood still goes on when another has been voted for, and the voter has heard nothing of that.
            for _ in 0..4 {
                let at = FIRST_FAULT + Span(rng.u64(0..LAST_FAULT.since(FIRST_FAULT).0));
                let longest = Span(CALM.since(at).0 - 1);
                let lasts = Span::millis(Timing::of(profile).ttl.0 + rng.u64(0..2000)).min(longest);
                faults.push(Planned { at, lasts, fault: Fault::Freeze(LEADER) });
                let ambush = Fault::Ambush(Moment::Bid, Strike::BlindOthers);
                faults.push(Planned { at, lasts: longest, fault: ambush });
            }
        }
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x5EED_0005);
        settings.permanent_slots = permanent_slots(&mut rng);
        let two_are_left = members > 2 && without_watchdog.is_none() && nofailover.is_none();
        let nostream = (two_are_left && rng.u8(0..8) == 0).then(|| rng.usize(0..members));
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x5EED_0006);
        if wanted > 0 {
            faults.extend(mishap::planned(&mut rng, members, members.max(servers)));
        }
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x5EED_0007);
        if wanted > 0 && rng.u8(0..16) == 0 {
            let at = FIRST_FAULT + Span(rng.u64(0..LAST_FAULT.since(FIRST_FAULT).0));
            let fault = Fault::Break(rng.usize(0..members), [Breakage::Ends, Breakage::Hangs][rng.usize(0..2)]);
            faults.push(Planned { at, lasts: Span(1), fault });
        }
        let namesakes = |planned: &Planned| matches!(planned.fault, Fault::Mishap(Mishap::Namesake(..)));
        let spare = faults.iter().any(namesakes).then(|| members.max(servers));
        faults.sort_by_key(|planned| planned.at);
        Self {
            seed,
            members,
            servers,
            timing: Timing::of(profile),
            settings,
            watchdog,
            without_watchdog,
            nofailover,
            preferred,
            relay: relay.filter(|(member, from)| member != from),
            clonefrom,
            nostream,
            spare,
            faults,
        }
    }

    /// The member that `member` streams from in place of the leader.
    pub fn relayed(&self, member: usize) -> Option<usize> {
        self.relay.filter(|(it, _)| *it == member).map(|(_, from)| from)
    }

    /// Whether some permanent slot is a logical one.
    pub fn has_logical_slots(&self) -> bool {
        self.settings.permanent_slots.values().any(|slot| *slot != PermanentSlot::Physical)
    }

    /// Hosts: enough for members and servers, and the spare one.
    pub fn hosts(&self) -> usize {
        self.members.max(self.servers) + usize::from(self.spare.is_some())
    }

    /// Whether nothing is to happen.
    pub fn is_calm(&self) -> bool {
        self.faults.is_empty()
    }
}

/// One in three has some.
fn permanent_slots(rng: &mut fastrand::Rng) -> BTreeMap<SlotName, PermanentSlot> {
    let logical = PermanentSlot::Logical { database: "app".to_owned(), plugin: "pgoutput".to_owned() };
    let wanted = [[false, false], [false, false], [false, false], [false, false], [true, true], [false, true]];
    let wanted = wanted[rng.usize(0..6)];
    let slots = [("backup", PermanentSlot::Physical), ("cdc", logical)];
    let drawn = slots.into_iter().zip(wanted).filter(|(_, wanted)| *wanted);
    drawn.filter_map(|((name, kind), _)| Some((SlotName::parse(name)?, kind))).collect()
}

/// Two faults that are worse together than one after the other.
fn pair(rng: &mut fastrand::Rng, hosts: usize, members: usize) -> (Fault, Span, Fault) {
    let gap = Span::millis(rng.u64(0..5000));
    let other = rng.usize(0..hosts);
    match rng.u8(0..6) {
        // A standby lags, and then the primary is gone.
        0 | 1 => (Fault::Part(LEADER, rng.usize(0..members)), gap, Fault::Power(LEADER)),
        // A handover over a connection that is stuck.
        2 => (Fault::Part(LEADER, other), gap, Fault::Switchover(None)),
        // Nobody but the agent is left to fence, or nobody but the guard.
        3 => (Fault::KillGuard(LEADER), gap, Fault::Isolate(LEADER)),
        4 => (Fault::KillAgent(LEADER), gap, Fault::Isolate(LEADER)),
        // The ensemble and the primary at once.
        _ => (Fault::KillServer(0), gap, Fault::Power(LEADER)),
    }
}

fn fault(rng: &mut fastrand::Rng, members: usize, hosts: usize, servers: usize) -> Fault {
    let aimed = rng.u8(0..5) < 2;
    let member = if aimed { LEADER } else { rng.usize(0..members) };
    let host = if aimed { LEADER } else { rng.usize(0..hosts) };
    match rng.u8(0..46) {
        0..=4 => Fault::Power(host),
        5..=7 => Fault::Freeze(host),
        8..=9 => Fault::KillAgent(member),
        10..=11 => Fault::FreezeAgent(member),
        12 => Fault::KillGuard(member),
        13..=15 => Fault::KillPostgres(member),
        16 => Fault::FreezePostgres(member),
        17..=18 => Fault::KillServer(rng.usize(0..servers)),
        19 => Fault::Elect,
        20..=23 => Fault::Isolate(host),
        24..=25 => Fault::OneWay(host, rng.bool()),
        26..=27 => Fault::Part(host, rng.usize(0..hosts)),
        28 => Fault::Slow(host),
        29 => Fault::SlowDisk(member),
        30 => Fault::RestartAgent(member),
        31 => Fault::StopAgent(member),
        32 => Fault::RestartPostgres(member),
        33 => Fault::Reinitialize(member),
        34..=36 => Fault::Switchover(rng.bool().then(|| rng.usize(0..members))),
        37 => Fault::Pause,
        38 => Fault::RewindFails(rng.usize(0..members)),
        39 => Fault::StartFails(member),
        40..=41 => Fault::Ambush(Moment::Promotion, Strike::Power),
        _ => {
            let moment =
                [Moment::Rewind, Moment::Copy, Moment::SyncRecord, Moment::Take, Moment::Stop, Moment::Promotion]
                    [rng.usize(0..6)];
            Fault::Ambush(moment, [Strike::Power, Strike::Freeze, Strike::Isolate, Strike::KillAgent][rng.usize(0..4)])
        }
    }
}

fn newer_fault(rng: &mut fastrand::Rng, members: usize) -> Fault {
    let member = if rng.bool() { LEADER } else { rng.usize(0..members) };
    match rng.u8(0..16) {
        0..=2 => Fault::LoseZooKeeper(member),
        3..=5 => Fault::StopEnsemble,
        6..=7 => Fault::DiskFails(member, [Disk::Full, Disk::ReadOnly, Disk::Hung][rng.usize(0..3)]),
        8 => Fault::Failover(rng.usize(0..members)),
        9 => Fault::Scheduled(rng.usize(0..members)),
        10..=11 => Fault::SlowRecovery(member),
        12 => Fault::Edit(Edit::Synchrony),
        13 => Fault::Edit(Edit::SyncCount(rng.usize(1..4))),
        14 => Fault::Edit(Edit::Strict),
        _ => Fault::Edit(Edit::Failsafe),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_one_scenario_and_its_faults_end_in_time() {
        for seed in 0..500 {
            let (one, other) = (Scenario::of(seed), Scenario::of(seed));
            assert_eq!(one.faults, other.faults);
            assert!(one.faults.iter().all(|planned| planned.at + planned.lasts < CALM));
            assert!(one.faults.is_sorted_by_key(|planned| planned.at));
        }
    }
}
