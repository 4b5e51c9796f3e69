//! The rules, one situation at a time; and what must hold in every situation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::action::{Lapsed, StartAs};
use crate::lease::Lease;
use crate::lsn::{Lsn, Switch, TimelineHistory};
use crate::name::{Epoch, SystemId};
use crate::observation::{
    Control, ControlState, EndedJob, EpochRecord, FailoverRequest, FailsafeRecord, History, Initialize, Leader, Member,
    Past, PeerAnswers, PeerPosition, PermanentSlot, Primary, Promise, Running, RunningJob, Sender, Slot, Slots,
    Standby, SyncRecord, Synchrony, Tie, Watchdog,
};
use crate::pulse::Pulse;
use crate::sync::{Form, Names};

const NOW: Instant = Instant(1_000_000);

fn name(text: &str) -> NodeName {
    NodeName::try_from(text).unwrap()
}

fn settings() -> Settings {
    Settings {
        me: name("me"),
        timing: Timing::default(),
        nofailover: false,
        failover_priority: 1,
        watchdog_required: false,
        replicatefrom: None,
        nostream: false,
        standstill: Millis::from_secs(30),
        torn: 16,
    }
}

fn primary() -> Postgres {
    let primary = Primary {
        flushed: Lsn(1000),
        sync_names: "\"peer\"".into(),
        checkpointer_settled: true,
        senders: vec![Sender {
            name: "peer".into(),
            connected: 7,
            streaming: true,
            named: Some(Form::Any),
            flushed: Lsn(1000),
        }],
        slots: slots(&[("peer", true)]),
        checkpoint_pending: false,
    };
    running(Role::Primary(primary))
}

fn slots(of: &[(&str, bool)]) -> Slots {
    let slot =
        |(it, active): &(&str, bool)| (name(it).slot(), Slot { active: *active, spoilt: false, position: Lsn(900) });
    Slots { physical: of.iter().map(slot).collect(), logical: BTreeMap::new() }
}

fn standby() -> Postgres {
    let standby = Standby {
        received: Lsn(1000),
        replayed: Lsn(1000),
        complete: true,
        streaming: true,
        upstream: Some(name("peer")),
        tie: Tie::Bound,
        slots: Slots::default(),
        checkpoint_pending: false,
        paused: false,
    };
    running(Role::Standby(standby))
}

/// A member that has just looked, and that has left the last primary.
fn peer_at(position: u64) -> PeerPosition {
    PeerPosition {
        timeline: Timeline(1),
        position: Lsn(position),
        complete: true,
        looked: NOW,
        detached: true,
        can_lead: true,
    }
}

fn running(role: Role) -> Postgres {
    Postgres::Running(Box::new(Running { system_id: SystemId(7), timeline: Timeline(1), role }))
}

fn stopped(state: ControlState) -> Postgres {
    let standby = matches!(state, ControlState::ShutDownInRecovery | ControlState::InArchiveRecovery);
    Postgres::Stopped(Control {
        system_id: SystemId(7),
        timeline: Timeline(1),
        state,
        checkpoint: Lsn(900),
        min_recovery_end: Lsn(900),
        standby_signal: standby,
        backup_label: false,
    })
}

/// A healthy cluster of `me` and `peer` in synchronous mode, led by `leader`.
fn cluster(leader: Option<&str>) -> Cluster {
    let other = if leader == Some("me") { "peer" } else { "me" };
    let member = |is_primary| Member { is_primary, is_running: true, timeline: Some(Timeline(1)), ..Member::default() };
    Cluster {
        epoch: EpochRecord {
            epoch: Epoch(3),
            leader: Some(name(leader.unwrap_or("peer"))),
            released: leader.is_none(),
            version: Some(2),
        },
        leader: leader.map(|it| Leader { name: name(it), is_my_session: it == "me" }),
        initialize: Initialize::Done(SystemId(7)),
        config: Some(ClusterSettings { synchrony: Synchrony::Named, ..ClusterSettings::default() }),
        config_lost: false,
        sync: SyncRecord {
            leader: Some(name(leader.unwrap_or("peer"))),
            standbys: BTreeSet::from([name(other)]),
            quorum: 0,
            unreadable: false,
            version: Some(5),
        },
        failover: None,
        failsafe: FailsafeRecord::default(),
        members: [(name("me"), member(leader == Some("me"))), (name("peer"), member(leader == Some("peer")))].into(),
        retained_slots: BTreeSet::new(),
        slot_positions: BTreeMap::new(),
        positions_on: None,
        optime: Lsn(1000),
        history: History::default(),
    }
}

fn lease() -> Lease {
    Lease { epoch: Epoch(3), sent: NOW - Millis(100), counted_from: NOW - Millis(1100) }
}

fn observe(cluster: Cluster, postgres: Postgres) -> Observation {
    let leads = cluster.leader.as_ref().is_some_and(|leader| leader.name == name("me"));
    Observation {
        now: NOW,
        dcs: Dcs::Seen(Arc::new(cluster)),
        lease: leads.then(lease),
        postgres,
        past: Past { led_in: leads.then_some(Epoch(3)), ..Past::default() },
        job: None,
        ended: None,
        peers: None,
        watchdog: Watchdog::Off,
        guard_alive: true,
        request: None,
        disk: Disk::Sound,
        up_since: Instant(1),
        namesake: None,
        promise: None,
        pulse: None,
    }
}

fn decided(obs: &Observation) -> Decision {
    decide(&settings(), &Memory::default(), obs)
}

/// `[code, action, action, …]`, an action by its first word.
fn said(obs: &Observation) -> Vec<String> {
    let decision = decided(obs);
    let word = |action: &Action| {
        format!("{action:?}").split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
    };
    std::iter::once(decision.reason.code().to_owned()).chain(decision.actions.iter().map(word)).collect()
}

#[test]
fn a_healthy_primary_renews_when_it_is_due_and_does_nothing_else() {
    let mut obs = observe(cluster(Some("me")), primary());
    assert_eq!(said(&obs), ["leading"]);
    assert_eq!(decided(&obs).wake, Millis(900), "until the renewal is due");
    obs.now = NOW + Millis(900);
    assert_eq!(said(&obs), ["leading", "Renew"]);
}

#[test]
fn a_healthy_standby_does_nothing() {
    assert_eq!(said(&observe(cluster(Some("peer")), standby())), ["following"]);
}

#[test]
fn a_silent_primary_serves_until_its_lease_ends_and_not_longer() {
    let mut obs = observe(cluster(Some("me")), primary());
    obs.dcs = Dcs::Silent { since: NOW };
    assert_eq!(said(&obs), ["silent_leading"]);
    let fence_at = lease().fence_at(&settings().timing);
    assert_eq!(obs.now + decided(&obs).wake, fence_at.min(obs.now + settings().timing.heartbeat));
    obs.now = fence_at;
    assert_eq!(said(&obs), ["lease_over", "Fence", "DisarmWatchdog", "ForgetLease"]);
}

#[test]
fn a_primary_that_sees_another_leader_stops_at_once() {
    let mut obs = observe(cluster(Some("peer")), primary());
    obs.lease = Some(lease());
    assert_eq!(said(&obs), ["deposed", "Fence", "DisarmWatchdog", "ForgetLease"]);
}

#[test]
fn a_primary_whose_epoch_has_passed_stops_even_when_nobody_leads_now() {
    let mut obs = observe(cluster(None), primary());
    obs.lease = Some(lease());
    assert_eq!(said(&obs), ["deposed", "Fence", "DisarmWatchdog", "ForgetLease"]);
}

#[test]
fn after_fencing_watchdog_and_guard_stand_down() {
    let mut obs = observe(cluster(Some("peer")), stopped(ControlState::InProduction));
    obs.lease = Some(lease());
    assert_eq!(said(&obs), ["standing_down", "DisarmWatchdog", "ForgetLease"]);
    // The guard ends the lease of an agent that hangs, and then the agent; the next one finds the watchdog armed.
    obs.lease = None;
    obs.watchdog = Watchdog::Armed;
    assert_eq!(said(&obs), ["standing_down", "DisarmWatchdog", "ForgetLease"]);
    let mut silent = silent(obs);
    assert_eq!(said(&silent), ["standing_down", "DisarmWatchdog", "ForgetLease"]);
    silent.lease = Some(lease());
    assert_eq!(said(&silent), ["silent_waiting"]);
    assert_eq!(
        silent.now + decided(&silent).wake,
        lease().fence_at(&settings().timing).min(silent.now + settings().timing.heartbeat)
    );
}

#[test]
fn the_only_synchronous_standby_takes_over_without_asking() {
    assert_eq!(said(&observe(cluster(None), standby())), ["taking_leadership", "TakeLeadership"]);
}

#[test]
fn who_was_not_synchronous_does_not_take_over() {
    let mut all = cluster(None);
    all.sync.standbys = BTreeSet::from([name("third")]);
    assert_eq!(said(&observe(all, standby())), ["not_synchronous"]);
}

#[test]
fn rivals_are_asked_and_the_one_ahead_wins() {
    let mut all = cluster(None);
    all.sync.standbys.insert(name("peer"));
    let mut obs = observe(all, standby());
    assert_eq!(said(&obs), ["asking_peers", "AskPeers"]);
    for (position, expected) in [(1001, "peer_ahead"), (1000, "taking_leadership")] {
        let positions = [(name("peer"), peer_at(position))].into();
        obs.peers = Some(PeerAnswers { asked: NOW, positions, ..PeerAnswers::default() });
        assert_eq!(said(&obs)[0], expected);
    }
}

/// Found by seed 3000001815: an operator's choice lost its power before its timeline began, and nobody could ever lead.
#[test]
fn whom_an_operator_made_the_leader_leads_again_though_its_timeline_is_older() {
    let mut all = cluster(None);
    all.epoch.leader = Some(name("me"));
    all.sync = SyncRecord { leader: Some(name("me")), standbys: BTreeSet::new(), ..all.sync };
    all.history = History { newest: Some(Timeline(2)), ..History::default() };
    let vacant =
        |millis| Memory { vacant_since: Some(NOW - Millis(millis)), vacant_after: Some(Epoch(3)), ..Memory::default() };
    for (begun_by, millis, code) in
        [("peer", 100_000, "taking_leadership"), ("peer", 100, "stale_timeline"), ("me", 100_000, "stale_timeline")]
    {
        all.history.begun_by = [(Timeline(2), name(begun_by))].into();
        let obs = observe(all.clone(), standby());
        assert_eq!(decide(&settings(), &vacant(millis), &obs).reason.code(), code, "{begun_by} {millis}");
    }
}

/// Its znode came back after the others were asked.
#[test]
fn a_rival_that_was_not_asked_is_asked_before_anybody_takes_over() {
    let mut all = cluster(None);
    all.config = Some(ClusterSettings::default());
    let mut obs = observe(all, standby());
    obs.peers = Some(PeerAnswers { asked: NOW, ..PeerAnswers::default() });
    assert_eq!(said(&obs), ["asking_peers", "AskPeers"]);
    obs.peers = Some(PeerAnswers { asked: NOW, silent: [name("peer")].into(), ..PeerAnswers::default() });
    assert_eq!(said(&obs)[0], "taking_leadership");
}

#[test]
fn without_synchronous_mode_a_standby_far_behind_does_not_take_over() {
    let mut all = cluster(None);
    all.config = Some(ClusterSettings::default());
    all.optime = Lsn(1000 + (1 << 20) + 1);
    assert_eq!(said(&observe(all, standby())), ["too_far_behind"]);
}

#[test]
fn promotion_claims_the_sync_record_before_anything_else() {
    let mut all = cluster(Some("me"));
    all.sync.leader = Some(name("peer"));
    all.sync.standbys = BTreeSet::from([name("me")]);
    let obs = observe(all, standby());
    assert_eq!(said(&obs), ["promoting", "WriteSync", "SetSyncNames", "ReserveTimeline", "Promote", "CreateSlots"]);
}

#[test]
fn nobody_is_promoted_without_a_guard_or_a_required_watchdog() {
    let mut obs = observe(cluster(Some("me")), standby());
    obs.guard_alive = false;
    assert_eq!(said(&obs), ["guard_missing", "ReleaseLeadership"]);
    let strict = Settings { watchdog_required: true, ..settings() };
    obs.guard_alive = true;
    obs.watchdog = Watchdog::Unusable;
    assert_eq!(decide(&strict, &Memory::default(), &obs).reason, Reason::WatchdogRequired);
}

#[test]
fn a_dead_postmaster_hands_over_when_a_synchronous_standby_is_ready() {
    let obs = observe(cluster(Some("me")), stopped(ControlState::InProduction));
    assert_eq!(said(&obs), ["crashed_handing_over", "DisarmWatchdog", "ReleaseLeadership", "ForgetLease"]);
}

#[test]
fn a_dead_postmaster_restarts_in_place_when_there_is_no_heir() {
    let mut all = cluster(Some("me"));
    all.members.remove(&name("peer"));
    let decision = decided(&observe(all, stopped(ControlState::InProduction)));
    let not_after = lease().fence_at(&settings().timing);
    assert_eq!(decision.actions, [Action::Start(StartAs::Primary { epoch: Epoch(3), not_after })]);
}

#[test]
fn data_that_did_not_serve_in_this_leadership_starts_read_only() {
    let mut obs = observe(cluster(Some("me")), stopped(ControlState::InProduction));
    obs.past.led_in = Some(Epoch(2));
    assert_eq!(decided(&obs).actions, [Action::Start(StartAs::Standby(None))]);
}

#[test]
fn wal_is_kept_for_a_member_that_is_away_but_not_for_ever() {
    let gone = name("gone").slot();
    let mut obs = observe(cluster(Some("me")), primary());
    if let Dcs::Seen(cluster) = &mut obs.dcs {
        Arc::make_mut(cluster).retained_slots = [gone.clone()].into();
    }
    if let Postgres::Running(running) = &mut obs.postgres
        && let Role::Primary(primary) = &mut running.role
    {
        primary.slots.physical.insert(gone.clone(), Slot::default());
    }
    let retained = |decision: &Decision| {
        decision.actions.iter().find_map(|action| match action {
            Action::Renew { retain, .. } => Some(retain.contains(&gone)),
            _ => None,
        })
    };
    obs.lease = Some(Lease { sent: NOW - Millis::from_secs(2), ..lease() });
    let decision = decide(&settings(), &Memory::default(), &obs);
    assert_eq!(retained(&decision), Some(true));
    let ttl = ClusterSettings::default().member_slots_ttl;
    obs.now = NOW + ttl;
    obs.lease =
        Some(Lease { sent: obs.now - Millis::from_secs(2), counted_from: obs.now - Millis::from_secs(3), ..lease() });
    let dropped = Action::DropSlots([gone.clone()].into());
    let given_up = decide(&settings(), &decision.memory, &obs);
    assert_eq!(retained(&given_up), Some(true), "it is still there");
    assert!(given_up.actions.contains(&dropped), "{:?}", given_up.actions);
    // Simulated seed 910028078: while ZooKeeper was silent it was there, and is away again.
    let silent = Observation { dcs: Dcs::Silent { since: NOW }, ..obs.clone() };
    let silent = decide(&settings(), &decision.memory, &silent);
    let again = decide(&settings(), &silent.memory, &obs);
    assert!(!again.actions.contains(&dropped), "{:?}", again.actions);
}

#[test]
fn a_standby_that_gets_nothing_from_a_leader_that_answers_climbs_the_ladder() {
    let stuck = |rung: &mut Memory, now: Instant, answers: bool| {
        let mut obs = observe(cluster(Some("peer")), standby());
        obs.now = now;
        if let Postgres::Running(running) = &mut obs.postgres
            && let Role::Standby(standby) = &mut running.role
        {
            standby.streaming = false;
        }
        let position = peer_at(2000);
        let positions = if answers { [(name("peer"), position)].into() } else { BTreeMap::new() };
        let silent = if answers { BTreeSet::new() } else { [name("peer")].into() };
        obs.peers = Some(PeerAnswers { asked: now, positions, silent });
        let decision = decide(&settings(), rung, &obs);
        *rung = decision.memory;
        decision.reason.code()
    };
    let mut memory = Memory::default();
    let mut now = NOW;
    let ended = |memory: &Memory, kind: JobKind| {
        let mut obs = observe(cluster(Some("peer")), stopped(ControlState::ShutDownInRecovery));
        obs.ended = Some(EndedJob { kind, outcome: Outcome::Done });
        decide(&settings(), memory, &obs).memory
    };
    for (rung, job) in [(Rung::Restart, JobKind::Start), (Rung::Rewind, JobKind::Rewind), (Rung::Clone, JobKind::Clone)]
    {
        assert_eq!(stuck(&mut memory, now, true), "not_streaming");
        now = now + settings().standstill;
        assert_eq!(stuck(&mut memory, now, false), "not_streaming");
        assert_eq!(stuck(&mut memory, now, true), "giving_up_streaming");
        assert_eq!((memory.due, memory.tried), (rung, rung));
        memory = ended(&memory, job);
        assert_eq!(memory.tried, rung);
    }
    // What a fresh copy did not mend is not copied over and over.
    assert_eq!(stuck(&mut memory, now, true), "not_streaming");
    now = now + settings().standstill;
    assert_eq!(stuck(&mut memory, now, true), "not_streaming");
    // Another leader, another try.
    let mut obs = observe(cluster(Some("other")), standby());
    obs.now = now;
    assert_eq!(decide(&settings(), &memory, &obs).memory.tried, Rung::Start);
}

#[test]
fn a_leader_restores_the_record_of_its_epoch() {
    let mut all = cluster(Some("me"));
    let known = decided(&observe(all.clone(), primary())).memory;
    all.epoch = EpochRecord::default();
    let mut obs = observe(all, primary());
    // Simulated seed 1000029379: a renewal of the leader before, held back for seconds, was for version 0, too.
    let reown = Action::ReownLeadership { version: None, epoch: lease().epoch.next(), above: Some(2) };
    assert_eq!(decide(&settings(), &known, &obs).actions, [reown]);
    // Without a lease, too: nobody could release the leadership.
    obs.postgres = standby();
    obs.lease = None;
    assert_eq!(said(&obs), ["restoring_epoch", "ReownLeadership"]);
}

#[test]
fn a_leader_restores_the_record_of_timelines_and_gives_no_number_twice() {
    let mut all = cluster(Some("me"));
    all.history.reserved = Some(Timeline(7));
    let seen = decided(&observe(all.clone(), standby())).memory;
    all.history = History::default();
    let promoting = decide(&settings(), &seen, &observe(all.clone(), standby()));
    assert!(promoting.actions.iter().any(|it| matches!(it, Action::Promote { timeline: Timeline(16), .. })));
    let mut now_primary = primary();
    if let Postgres::Running(running) = &mut now_primary {
        running.timeline = Timeline(2);
    }
    all.history.switches =
        TimelineHistory(vec![Switch { parent: Timeline(1), switched_at: Lsn(9), reason: String::new() }]);
    assert_eq!(said(&observe(all, now_primary)), ["recording_history", "WriteHistory"]);
}

#[test]
fn a_fresh_copy_replaces_the_data_of_another_cluster() {
    let mut all = cluster(Some("peer"));
    all.initialize = Initialize::Done(SystemId(8));
    let mut obs = observe(all, stopped(ControlState::ShutDown));
    assert_eq!(said(&obs), ["system_id_mismatch"]);
    obs.request = Some(Request::Reinitialize);
    assert_eq!(said(&obs), ["rejoin_clone", "Clone"]);
}

#[test]
fn an_agent_restarted_in_time_owns_its_leadership_again() {
    let mut all = cluster(Some("me"));
    all.leader = Some(Leader { name: name("me"), is_my_session: false });
    let mut obs = observe(all.clone(), primary());
    assert_eq!(said(&obs), ["reowning", "ReownLeadership"]);
    obs.lease = None;
    assert_eq!(said(&obs), ["lease_over", "Fence", "DisarmWatchdog", "ForgetLease"]);
    let mut obs = observe(all, stopped(ControlState::InProduction));
    assert_eq!(said(&obs), ["standing_down", "DisarmWatchdog", "ForgetLease"]);
    obs.lease = None;
    assert_eq!(said(&obs), ["dropping_stale_lock", "ReleaseLeadership"]);
}

#[test]
fn the_first_member_makes_the_cluster_and_the_others_wait() {
    let mut none = cluster(None);
    none.initialize = Initialize::Absent;
    none.epoch = EpochRecord::default();
    none.config = None;
    let decision = decided(&observe(none.clone(), Postgres::NoData));
    assert_eq!(
        decision.actions,
        [Action::TakeLeadership { version: None, epoch: Epoch(1), initialize: true, lapsed: None, above: None }]
    );
    none.leader = Some(Leader { name: name("peer"), is_my_session: false });
    none.initialize = Initialize::Begun;
    assert_eq!(said(&observe(none, Postgres::NoData)), ["waiting_for_cluster"]);
}

#[test]
fn a_new_cluster_keeps_its_first_timeline() {
    let mut new = cluster(Some("me"));
    new.initialize = Initialize::Begun;
    new.config = None;
    assert_eq!(said(&observe(new.clone(), Postgres::NoData)), ["bootstrapping", "Bootstrap"]);
    let mut obs = observe(new, stopped(ControlState::ShutDown));
    obs.past.led_in = None;
    let not_after = lease().fence_at(&settings().timing);
    assert_eq!(decided(&obs).actions, [Action::Start(StartAs::Primary { epoch: Epoch(3), not_after })]);
}

#[test]
fn a_cluster_is_recorded_only_when_its_members_can_log_in() {
    let mut new = cluster(Some("me"));
    new.initialize = Initialize::Begun;
    new.config = None;
    let mut obs = observe(new, primary());
    assert_eq!(said(&obs), ["preparing_cluster", "Prepare"]);
    obs.ended = Some(EndedJob { kind: JobKind::Prepare, outcome: Outcome::Failed("x".into()) });
    assert_eq!(said(&obs), ["preparing_cluster"]);
    obs.ended = Some(EndedJob { kind: JobKind::Prepare, outcome: Outcome::Done });
    assert_eq!(said(&obs), ["recording_cluster", "RecordCluster"]);
}

#[test]
fn data_of_another_cluster_is_left_alone() {
    let mut all = cluster(Some("peer"));
    all.initialize = Initialize::Done(SystemId(8));
    let mut obs = observe(all, stopped(ControlState::ShutDown));
    assert_eq!(said(&obs), ["system_id_mismatch"]);
    // Unless it is what a bootstrap left that another member overtook.
    obs.past.unrecorded = true;
    assert_eq!(said(&obs), ["rejoin_clone", "Clone"]);
}

#[test]
fn the_rejoin_ladder_is_climbed_one_rung_at_a_time() {
    let mut all = cluster(Some("peer"));
    all.history.switches =
        TimelineHistory(vec![Switch { parent: Timeline(1), switched_at: Lsn(950), reason: String::new() }]);
    all.members.get_mut(&name("peer")).unwrap().timeline = Some(Timeline(2));
    let obs = observe(all.clone(), stopped(ControlState::ShutDown));
    assert_eq!(said(&obs), ["rejoin_start", "Start"]);
    let mut obs = observe(all, stopped(ControlState::InProduction));
    assert_eq!(said(&obs), ["rejoin_rewind", "Rewind"]);
    obs.ended = Some(EndedJob { kind: JobKind::Rewind, outcome: Outcome::Impossible("x".into()) });
    assert_eq!(said(&obs), ["rejoin_clone", "Clone"]);
    obs.postgres = Postgres::NoData;
    obs.ended = None;
    assert_eq!(said(&obs), ["rejoin_clone", "Clone"]);
}

#[test]
fn a_switchover_stops_cleanly_then_releases() {
    let request = |candidate: &str| FailoverRequest {
        leader: Some(name("me")),
        candidate: Some(name(candidate)),
        later: false,
        version: 4,
    };
    let mut all = cluster(Some("me"));
    all.failover = Some(request("peer"));
    assert_eq!(said(&observe(all.clone(), primary())), ["handing_over", "Stop"]);
    assert_eq!(
        said(&observe(all.clone(), stopped(ControlState::ShutDown)))[..3],
        ["handed_over", "DisarmWatchdog", "ReleaseLeadership"]
    );
    all.failover = Some(request("nobody"));
    assert_eq!(said(&observe(all.clone(), primary())), ["switchover_refused", "ClearFailover"]);
    // In a pause the others do not take over of themselves.
    let mut paused = cluster(Some("me"));
    paused.config.as_mut().unwrap().paused = true;
    paused.failover = Some(FailoverRequest { candidate: None, ..request("peer") });
    assert_eq!(said(&observe(paused.clone(), primary())), ["switchover_refused", "ClearFailover"]);
    paused.failover = Some(request("peer"));
    assert_eq!(said(&observe(paused, primary())), ["handing_over", "Stop"]);
    // The new leader clears the request.
    all.failover = Some(FailoverRequest { leader: Some(name("peer")), ..request("me") });
    assert_eq!(said(&observe(all, primary())), ["switchover_done", "ClearFailover"]);
}

#[test]
fn a_stopping_primary_stops_postgres_releases_and_ends() {
    let mut obs = observe(cluster(Some("me")), primary());
    obs.request = Some(Request::Shutdown);
    assert_eq!(said(&obs), ["shutting_down", "Stop"]);
    obs.postgres = stopped(ControlState::ShutDown);
    assert_eq!(said(&obs), ["shut_down", "DisarmWatchdog", "ReleaseLeadership", "ForgetLease", "Exit"]);
}

#[test]
fn failures_are_spaced_out() {
    let mut memory = Memory::default();
    let mut obs = observe(cluster(Some("peer")), Postgres::NoData);
    let mut waits = Vec::new();
    for _ in 0..8 {
        obs.ended = Some(EndedJob { kind: JobKind::Clone, outcome: Outcome::Failed("x".into()) });
        memory = decide(&settings(), &memory, &obs).memory;
        waits.push(memory.backoff.unwrap().until.since(obs.now).0);
    }
    assert_eq!(waits, [1000, 2000, 4000, 8000, 16_000, 32_000, 32_000, 32_000]);
}

// What must hold whatever is observed.

fn any_name() -> impl Strategy<Value = NodeName> {
    prop_oneof![Just(name("me")), Just(name("peer")), Just(name("third"))]
}

fn any_postgres() -> impl Strategy<Value = Postgres> {
    let control = prop_oneof![
        Just(ControlState::ShutDown),
        Just(ControlState::ShutDownInRecovery),
        Just(ControlState::InProduction),
        Just(ControlState::InArchiveRecovery),
        Just(ControlState::Other),
    ];
    prop_oneof![
        1 => Just(Postgres::NoData),
        1 => Just(Postgres::Unusable("x".into())),
        1 => (control, 1..4_u32, 0..2000_u64, any::<bool>()).prop_map(|(state, timeline, lsn, standby_signal)| {
            Postgres::Stopped(Control {
                system_id: SystemId(7),
                timeline: Timeline(timeline),
                state,
                checkpoint: Lsn(lsn),
                min_recovery_end: Lsn(lsn),
                standby_signal,
                backup_label: false,
            })
        }),
        1 => any::<bool>().prop_map(|as_primary| Postgres::Starting { since: NOW - Millis(10), as_primary, awaits: None }),
        1 => (0..20_000_u64, any::<bool>())
            .prop_map(|(ago, was_primary)| Postgres::Mute { since: NOW - Millis(ago), was_primary }),
        3 => (1..4_u32, prop_oneof![Just(primary()), Just(standby())]).prop_map(|(timeline, mut postgres)| {
            if let Postgres::Running(running) = &mut postgres {
                running.timeline = Timeline(timeline);
            }
            postgres
        }),
    ]
}

prop_compose! {
    fn any_cluster()(
        leader in proptest::option::of((any_name(), any::<bool>())),
        epoch_leader in proptest::option::of(any_name()),
        version in proptest::option::weighted(0.9, 0..5_i32), released: bool,
        initialize in prop_oneof![
            1 => Just(Initialize::Absent), 1 => Just(Initialize::Begun),
            5 => Just(Initialize::Done(SystemId(7))), 1 => Just(Initialize::Done(SystemId(8))),
        ],
        synchrony in prop_oneof![Just(Synchrony::Off), Just(Synchrony::Named), Just(Synchrony::Quorum)],
        strict: bool, failsafe: bool, quorum in 0..3_usize,
        may_lead in proptest::collection::btree_set(any_name(), 0..4), paused in proptest::bool::weighted(0.1),
        configured in proptest::bool::weighted(0.9),
        sync_leader in proptest::option::of(any_name()),
        standbys in proptest::collection::btree_set(any_name(), 0..3),
        failover in proptest::option::weighted(
            0.2, (proptest::option::of(any_name()), proptest::option::of(any_name()), any::<bool>())),
        members in proptest::collection::btree_map(
            any_name(), (any::<bool>(), any::<bool>(), 1..4_u32, any::<bool>(), any::<bool>()), 0..4),
        switches in 0..3_u32,
    ) -> Cluster {
        Cluster {
            epoch: EpochRecord { epoch: Epoch(3), leader: epoch_leader, released, version },
            leader: leader.map(|(name, mine)| Leader { is_my_session: mine && name.as_str() == "me", name }),
            initialize,
            config: configured.then(|| ClusterSettings { synchrony, strict, paused, failsafe, ..ClusterSettings::default() }),
            config_lost: false,
            sync: SyncRecord { leader: sync_leader, standbys, quorum, unreadable: false, version: Some(1) },
            failover: failover.map(|(leader, candidate, later)| FailoverRequest { leader, candidate, later, version: 1 }),
            failsafe: FailsafeRecord { members: may_lead, unreadable: false, version: Some(0) },
            members: members.into_iter().map(|(name, (is_primary, is_running, timeline, pending, nofailover))| {
                (name, Member {
                    is_primary, is_running, timeline: Some(Timeline(timeline)),
                    checkpoint_pending: pending, nofailover, ..Member::default()
                })
            }).collect::<BTreeMap<_, _>>(),
            optime: Lsn(1000),
            retained_slots: BTreeSet::new(),
            slot_positions: BTreeMap::new(),
            positions_on: None,
            history: History {
                newest: None,
                reserved: None,
                switches: TimelineHistory((1..=switches).map(|parent| Switch {
                    parent: Timeline(parent), switched_at: Lsn(u64::from(parent) * 500), reason: String::new(),
                }).collect()),
                begun_by: BTreeMap::new(),
            },
        }
    }
}

fn any_job() -> impl Strategy<Value = JobKind> {
    prop_oneof![
        Just(JobKind::Bootstrap),
        Just(JobKind::Prepare),
        Just(JobKind::Start),
        Just(JobKind::Stop),
        Just(JobKind::Promote),
        Just(JobKind::Rewind),
        Just(JobKind::Clone),
    ]
}

prop_compose! {
    fn any_observation()(
        seen in proptest::option::weighted(0.85, any_cluster()),
        lease in proptest::option::of((0..8000_u64, 1..5_u64)),
        postgres in any_postgres(),
        led_in in proptest::option::of(1..5_u64),
        rewind_unfinished in proptest::bool::weighted(0.1),
        old_data_kept: bool,
        job in proptest::option::weighted(0.2, any_job()),
        ended in proptest::option::weighted(0.2, (any_job(), 0..3_u8)),
        peers in proptest::option::of(proptest::collection::btree_map(any_name(), (1..4_u32, 0..2000_u64), 0..3)),
        watchdog in prop_oneof![
            Just(Watchdog::Off), Just(Watchdog::Unusable), Just(Watchdog::Ready), Just(Watchdog::Armed)],
        guard_alive: bool,
        request in proptest::option::weighted(0.2, prop_oneof![
            Just(Request::Shutdown), Just(Request::Reinitialize), Just(Request::Restart)]),
        disk in prop_oneof![4 => Just(Disk::Sound), 1 => Just(Disk::Full), 1 => Just(Disk::ReadOnly), 1 => Just(Disk::Hung)],
        promise in proptest::option::weighted(0.3, (1..5_u64, 0..3000_u64)),
        pulse in proptest::option::of((0..3_i32, 0..10_000_u64)),
    ) -> Observation {
        Observation {
            now: NOW,
            dcs: seen.map_or(Dcs::Silent { since: NOW - Millis(500) }, |cluster| Dcs::Seen(Arc::new(cluster))),
            lease: lease.map(|(ago, epoch)| Lease {
                epoch: Epoch(epoch), sent: NOW - Millis(ago), counted_from: NOW - Millis(ago + 1000),
            }),
            postgres,
            past: Past { led_in: led_in.map(Epoch), rewind_unfinished, old_data_kept, ..Past::default() },
            job: job.map(|kind| RunningJob { kind, since: NOW - Millis(100), writes: kind == JobKind::Promote }),
            ended: ended.map(|(kind, outcome)| EndedJob { kind, outcome: match outcome {
                0 => Outcome::Done, 1 => Outcome::Failed("x".into()), _ => Outcome::Impossible("x".into()),
            } }),
            peers: peers.map(|positions| PeerAnswers { asked: NOW, positions: positions.into_iter()
                .map(|(name, (timeline, lsn))| {
                    (name, PeerPosition { timeline: Timeline(timeline), ..peer_at(lsn) })
                }).collect(), ..PeerAnswers::default() }),
            watchdog,
            guard_alive,
            request,
            disk,
            up_since: Instant(1),
            namesake: None,
            promise: promise.map(|(epoch, left)| Promise { to: name("peer"), epoch: Epoch(epoch), until: NOW + Millis(left) }),
            pulse: pulse.map(|(version, ago)| Pulse { version: Some(version), seen: NOW - Millis(ago) }),
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_down_is_decided_the_same(obs in any_observation(), earlier in any_observation()) {
        use crate::journal::{Head, Line, Turn, lines};
        let at = jiff::Timestamp::UNIX_EPOCH;
        let memory = decide(&settings(), &Memory::default(), &earlier).memory;
        let decision = decide(&settings(), &memory, &obs);
        let turn = Turn::new(1, at, &memory, &obs, &decision);
        let file = [Head::new(at, at, settings()).render(), turn.render()].concat();
        let read: Vec<Line> = lines(&file).map(|line| line.map(|(_, line)| line)).collect::<Result<_, _>>()?;
        let [Line::Head(head), Line::Turn(again)] = read.as_slice() else { panic!("a head and a turn") };
        prop_assert_eq!(again.as_ref(), &turn);
        prop_assert_eq!(decide(&head.settings, &again.memory, &again.observation), decision);
    }
}

fn is_write(action: &Action) -> bool {
    matches!(
        action,
        Action::TakeLeadership { .. }
            | Action::ReownLeadership { .. }
            | Action::Renew { .. }
            | Action::ReleaseLeadership { .. }
            | Action::RecordCluster { .. }
            | Action::WriteSync { .. }
            | Action::WriteHistory { .. }
            | Action::ReserveTimeline { .. }
            | Action::WriteFailsafe { .. }
            | Action::ClearFailover { .. }
    )
}

fn begins_job(action: &Action) -> bool {
    matches!(
        action,
        Action::Bootstrap
            | Action::Start(_)
            | Action::Stop { .. }
            | Action::Promote { .. }
            | Action::Prepare
            | Action::Rewind(_)
            | Action::Clone(_)
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8_000))]
    #[test]
    fn in_every_situation(obs in any_observation(), answered in proptest::option::of(0..5000_u64)) {
        let settings = settings();
        let memory = Memory { answered_since: answered.map(|ago| NOW - Millis(ago)), ..Memory::default() };
        let decision = decide(&settings, &memory, &obs);
        let actions = &decision.actions;
        let has = |wanted: fn(&Action) -> bool| actions.iter().any(wanted);
        let lease = obs.lease.filter(|lease| lease.holds(NOW, &settings.timing));
        let mine = matches!(&obs.dcs, Dcs::Seen(cluster)
            if cluster.leader.as_ref().is_some_and(|leader| leader.is_my_session));
        let nobody = matches!(&obs.dcs, Dcs::Seen(cluster) if cluster.leader.is_none());

        // A Postgres that was killed first accepts no writes either; a start under way may still bring one up.
        let killed = obs.job.is_none() && actions.first() == Some(&Action::Fence);
        let harmless = !obs.may_accept_writes() || killed;

        if obs.may_accept_writes() && lease.is_none() {
            prop_assert!(has(|a| *a == Action::Fence), "writable without a lease, and {actions:?}");
        }
        let settled = !matches!(obs.postgres, Postgres::Starting { .. } | Postgres::Mute { .. });
        let holds = lease.is_some() && (mine || matches!(obs.dcs, Dcs::Silent { .. }));
        let guards = obs.may_accept_writes() || obs.job.is_some() || holds || !settled;
        if obs.watchdog == Watchdog::Armed && !guards {
            prop_assert!(has(|a| *a == Action::DisarmWatchdog), "a host with nothing to guard is reset: {actions:?}");
        }
        if matches!(obs.dcs, Dcs::Silent { .. }) {
            prop_assert!(!has(is_write), "a write into silence: {actions:?}");
        }
        for action in actions {
            match action {
                Action::Promote { epoch, not_after, .. } | Action::Start(StartAs::Primary { epoch, not_after }) => {
                    let lease = lease.expect("a lease");
                    prop_assert!(mine && *epoch == lease.epoch, "{action:?} without leading");
                    prop_assert_eq!(*not_after, lease.fence_at(&settings.timing));
                }
                Action::Bootstrap => prop_assert!(mine && lease.is_some() && obs.postgres == Postgres::NoData),
                Action::TakeLeadership { lapsed: from, .. } => {
                    prop_assert!(nobody || !mine && from.is_some(), "taken from somebody");
                    let held = |pulse: Pulse| Lapsed { held: true, renewal: pulse.version };
                    prop_assert_eq!(from.filter(|from| from.held), if nobody { None } else { obs.pulse.map(held) });
                    let lapsed = |pulse: Pulse| NOW.since(pulse.seen) >= settings.timing.eviction();
                    prop_assert!(nobody || obs.pulse.is_some_and(lapsed), "taken from somebody whose lease may hold");
                    let Dcs::Seen(cluster) = &obs.dcs else { unreachable!() };
                    let bound = obs.promise.as_ref().is_some_and(|it| it.holds(NOW) && cluster.epoch.epoch <= it.epoch);
                    let known = cluster.epoch.leader.is_some() && matches!(cluster.initialize, Initialize::Done(_));
                    prop_assert!(!(bound && known) || lease.is_some(), "taken against a promise");
                }
                Action::RenewByPromise { epoch, .. } => prop_assert_eq!(Some(*epoch), lease.map(|it| it.epoch)),
                Action::Rewind(_) | Action::Clone(_) => {
                    prop_assert!(!mine, "a leader's data is not to be touched");
                    let at_rest = !matches!(obs.postgres, Postgres::Running(_) | Postgres::Starting { .. });
                    prop_assert!(at_rest, "the data directory is in use");
                }
                Action::ForgetLease => prop_assert!(harmless, "the guard was sent home too early"),
                Action::DisarmWatchdog => prop_assert!(harmless, "the watchdog was disarmed too early"),
                _ => {}
            }
        }
        let begun = actions.iter().filter(|action| begins_job(action)).count();
        prop_assert!(begun + usize::from(obs.job.is_some()) <= 1, "two jobs at once: {actions:?}");
        prop_assert!(decision.wake <= settings.timing.heartbeat);
    }
}

fn failsafe_cluster(leader: Option<&str>) -> Cluster {
    let mut cluster = cluster(leader);
    cluster.config = Some(ClusterSettings { failsafe: true, ..cluster_settings(&cluster).clone() });
    cluster.failsafe =
        FailsafeRecord { members: [name("me"), name("peer")].into(), unreadable: false, version: Some(0) };
    cluster
}

fn silent(mut obs: Observation) -> Observation {
    obs.dcs = Dcs::Silent { since: NOW };
    obs
}

#[test]
fn a_primary_without_zookeeper_asks_everybody_who_might_lead() {
    let seen = observe(failsafe_cluster(Some("me")), primary());
    let memory = decided(&seen).memory;
    let decision = decide(&settings(), &memory, &silent(seen));
    assert_eq!(decision.reason, Reason::Failsafe);
    assert_eq!(decision.actions, [Action::RenewByPromise { epoch: Epoch(3), members: [name("peer")].into() }]);
}

#[test]
fn a_member_that_may_be_on_record_by_now_is_asked_too() {
    let mut cluster = failsafe_cluster(Some("me"));
    cluster.members.insert(name("third"), Member::default());
    let seen = observe(cluster, primary());
    let decision = decided(&seen);
    assert_eq!(decision.reason, Reason::RecordingFailsafe);
    let silent = decide(&settings(), &decision.memory, &silent(seen));
    let members = [name("peer"), name("third")].into();
    assert_eq!(silent.actions, [Action::RenewByPromise { epoch: Epoch(3), members }]);
}

#[test]
fn who_has_been_ordered_off_the_record_altogether_makes_failsafe_mode_useless() {
    let mut cluster = failsafe_cluster(Some("me"));
    cluster.config = Some(ClusterSettings { failsafe: false, ..cluster_settings(&cluster).clone() });
    let seen = observe(cluster, primary());
    let decision = decided(&seen);
    assert!(matches!(&decision.actions[..], [Action::WriteFailsafe { members, .. }] if members.is_empty()));
    assert_eq!(decide(&settings(), &decision.memory, &silent(seen)).reason, Reason::SilentLeading);
}

#[test]
fn a_promise_binds_until_it_ends_or_another_has_led() {
    let mut obs = observe(failsafe_cluster(None), standby());
    obs.promise = Some(Promise { to: name("peer"), epoch: Epoch(3), until: NOW + Millis(1) });
    assert_eq!(said(&obs), ["promised"]);
    obs.promise = Some(Promise { to: name("peer"), epoch: Epoch(3), until: NOW });
    assert_eq!(said(&obs), ["taking_leadership", "TakeLeadership"]);
    obs.promise = Some(Promise { to: name("peer"), epoch: Epoch(2), until: NOW + Millis(1) });
    assert_eq!(said(&obs), ["taking_leadership", "TakeLeadership"]);
}

#[test]
fn whom_a_primary_in_failsafe_mode_does_not_count_on_does_not_lead() {
    let mut cluster = failsafe_cluster(None);
    cluster.failsafe.members.remove(&name("me"));
    assert_eq!(said(&observe(cluster, standby())), ["not_in_failsafe"]);
    let mut obs = observe(failsafe_cluster(None), standby());
    obs.up_since = NOW - Millis(5999);
    assert_eq!(said(&obs), ["just_booted"]);
}

#[test]
fn a_quorum_is_counted_in_fresh_answers_of_voters_that_are_not_ahead() {
    let mut all = cluster(None);
    all.sync.standbys = [name("me"), name("peer"), name("third")].into();
    all.sync.quorum = 1;
    all.sync.leader = Some(name("fourth"));
    let at = |position, looked| PeerPosition { looked, can_lead: false, ..peer_at(position) };
    let memory = Memory { vacant_since: Some(NOW - Millis(200)), vacant_after: Some(Epoch(3)), ..Memory::default() };
    let mut obs = observe(all, standby());
    assert_eq!(said(&obs), ["detaching", "Follow"]);
    let Postgres::Running(running) = &mut obs.postgres else { panic!("it runs") };
    let Role::Standby(free) = &mut running.role else { panic!("a standby") };
    free.tie = Tie::Free;
    for (peer, code) in [
        (at(1000, NOW - Millis(200)), "taking_leadership"),
        (PeerPosition { detached: false, ..at(1000, NOW) }, "no_quorum"),
        (at(1000, NOW - Millis(201)), "no_quorum"),
        (at(1001, NOW), "no_quorum"),
        (PeerPosition { complete: false, ..at(900, NOW) }, "no_quorum"),
    ] {
        obs.peers =
            Some(PeerAnswers { asked: NOW, positions: [(name("peer"), peer)].into(), ..PeerAnswers::default() });
        assert_eq!(decide(&settings(), &memory, &obs).reason.code(), code, "{peer:?}");
    }
}

#[test]
fn a_leader_that_does_not_renew_is_evicted() {
    let mut obs = observe(cluster(Some("peer")), standby());
    let answered = |ago| Memory { answered_since: Some(NOW - Millis(ago)), ..Memory::default() };
    let seen = |ago| Some(Pulse { version: Some(12), seen: NOW - Millis(ago) });
    obs.pulse = seen(4999);
    let decision = decide(&settings(), &answered(60_000), &obs);
    assert_eq!((decision.reason.code(), decision.wake), ("following", Millis(1)));
    obs.pulse = seen(5000);
    let decision = decide(&settings(), &answered(60_000), &obs);
    assert_eq!(decision.reason, Reason::Evicting { leader: name("peer") });
    let take = Action::TakeLeadership {
        version: Some(2),
        epoch: Epoch(4),
        initialize: false,
        lapsed: Some(Lapsed { held: true, renewal: Some(12) }),
        above: None,
    };
    assert_eq!(decision.actions, [take]);
    // ZooKeeper was away: the leader may have had no way to renew, and where commits do not wait it alone has all of them.
    let decision = decide(&settings(), &answered(0), &obs);
    assert_eq!(decision.reason, Reason::Evicting { leader: name("peer") });
    let mut asynchronous = cluster(Some("peer"));
    asynchronous.config = Some(ClusterSettings::default());
    let decision =
        decide(&settings(), &answered(1999), &Observation { pulse: obs.pulse, ..observe(asynchronous, standby()) });
    assert_eq!((decision.reason.code(), decision.wake), ("following", Millis(1)));
    // Whoever may not lead does not evict either.
    let settings = Settings { nofailover: true, ..settings() };
    assert_eq!(decide(&settings, &answered(60_000), &obs).reason.code(), "nofailover_tag");
}

/// Its holder may be cut off, serve on, and not know.
#[test]
fn a_leadership_that_somebody_deleted_is_not_vacant_before_its_lease_is_over() {
    let mut all = cluster(None);
    all.epoch.released = false;
    let mut obs = observe(all, standby());
    let seen = |ago| Some(Pulse { version: Some(12), seen: NOW - Millis(ago) });
    obs.pulse = seen(4999);
    let decision = decide(&settings(), &Memory::default(), &obs);
    assert_eq!(decision.reason, Reason::AwaitingLapse { leader: name("peer").to_string() });
    assert_eq!((decision.wake, &decision.actions[..]), (Millis(1), &[][..]));
    obs.pulse = seen(5000);
    let take = Action::TakeLeadership {
        version: Some(2),
        epoch: Epoch(4),
        initialize: false,
        lapsed: Some(Lapsed { held: false, renewal: Some(12) }),
        above: None,
    };
    assert_eq!(decided(&obs).actions, [take]);
    // Who led last has nobody to wait for.
    let mut mine = cluster(None);
    mine.epoch = EpochRecord { leader: Some(name("me")), released: false, ..mine.epoch };
    assert_eq!(said(&Observation { pulse: seen(0), ..observe(mine, standby()) })[0], "taking_leadership");
}

/// Found by seed 60006235: a record that was sent, not answered, and written when Postgres waited for another standby.
#[test]
fn an_unanswered_write_of_the_record_is_made_harmless_first() {
    let mut all = cluster(Some("me"));
    all.sync.standbys.clear();
    let obs = observe(all, primary());
    let ordered = Memory { sync_ordered: Some(5), ..Memory::default() };
    assert_eq!(decide(&settings(), &ordered, &obs).reason, Reason::ConfirmingSync);
    let written = Memory { sync_ordered: Some(4), ..Memory::default() };
    assert_ne!(decide(&settings(), &written, &obs).reason, Reason::ConfirmingSync);
}

#[test]
fn a_release_that_was_not_answered_is_ordered_again() {
    let obs = observe(cluster(Some("me")), stopped(ControlState::InProduction));
    let ordered = Memory { release_ordered: Some(2), ..Memory::default() };
    let decision = decide(&settings(), &ordered, &obs);
    assert_eq!(decision.reason, Reason::ReleasingAgain);
    assert_eq!(decision.actions[..2], [Action::DisarmWatchdog, Action::ReleaseLeadership { version: 2 }]);
    let older = Memory { release_ordered: Some(1), ..Memory::default() };
    assert_ne!(decide(&settings(), &older, &obs).reason, Reason::ReleasingAgain);
}

#[test]
fn a_synchronous_standby_that_confirms_nothing_gives_way_to_another() {
    let mut all = cluster(Some("me"));
    all.members.insert(name("third"), all.members[&name("peer")].clone());
    let mut obs = observe(all, primary());
    let Postgres::Running(running) = &mut obs.postgres else { panic!("it runs") };
    let Role::Primary(primary) = &mut running.role else { panic!("a primary") };
    primary.flushed = Lsn(1200);
    primary.slots = slots(&[("peer", true), ("third", true)]);
    let third = Sender { name: "third".into(), named: None, flushed: Lsn(1200), ..primary.senders[0].clone() };
    primary.senders.push(third);
    let still = |ago, position| {
        let still = Standstill { position: Lsn(position), since: NOW - Millis(ago) };
        Memory { unconfirmed: [(name("peer"), still)].into(), ..Memory::default() }
    };
    let decision = decide(&settings(), &still(1999, 1000), &obs);
    assert_eq!((decision.reason.code(), decision.wake), ("leading", Millis(1)));
    assert_eq!(decide(&settings(), &still(9000, 900), &obs).reason.code(), "leading", "it gets on");
    // Commits wait for both for a moment, and nobody is without a successor.
    let value = "2 (\"_pgha_first_\",\"peer\",\"third\")".to_owned();
    assert_eq!(decide(&settings(), &still(2000, 1000), &obs).reason, Reason::ChangingSyncNames { value });
}

#[test]
fn a_peer_that_is_ahead_and_cannot_lead_is_not_waited_for() {
    let mut all = cluster(None);
    all.config = Some(ClusterSettings::default());
    let ahead = |can_lead| PeerPosition { can_lead, ..peer_at(2000) };
    let mut obs = observe(all, standby());
    for (can_lead, code) in [(true, "peer_ahead"), (false, "taking_leadership")] {
        obs.peers = Some(PeerAnswers {
            asked: NOW,
            positions: [(name("peer"), ahead(can_lead))].into(),
            ..PeerAnswers::default()
        });
        assert_eq!(said(&obs)[0], code);
    }
}

/// The disk has been broken for so long, and no WAL got through.
fn broken(millis: u64) -> Memory {
    let since = NOW - Millis(millis);
    let disk = DiskTrouble { since, stuck: since, flushed: Some(Lsn(1000)) };
    Memory { disk: Some(disk), near: [name("peer")].into(), ..Memory::default() }
}

#[test]
fn a_failing_disk_gives_the_leadership_away_and_does_not_take_it() {
    let mut obs = observe(cluster(Some("me")), primary());
    obs.disk = Disk::Full;
    let memory = broken(6000);
    let decision = decide(&settings(), &memory, &obs);
    assert_eq!((decision.reason.code(), decision.actions.last()), ("disk_failing", Some(&Action::Fence)));
    assert_eq!(said(&obs)[0], "leading", "a moment is no reason");
    let mut moves = broken(11_999);
    moves.disk = moves.disk.map(|disk| DiskTrouble { flushed: Some(Lsn(900)), ..disk });
    assert_eq!(decide(&settings(), &moves, &obs).reason.code(), "leading", "WAL gets through");
    moves.disk = moves.disk.map(|disk| DiskTrouble { since: NOW - Millis(12_000), ..disk });
    assert_eq!(decide(&settings(), &moves, &obs).reason.code(), "disk_failing", "it stays full");
    obs.postgres = stopped(ControlState::InProduction);
    let decision = decide(&settings(), &memory, &obs);
    assert!(matches!(decision.actions[..], [_, Action::ReleaseLeadership { .. }, ..]), "{decision:?}");
    let mut vacant = observe(cluster(None), standby());
    vacant.disk = Disk::ReadOnly;
    assert_eq!(decide(&settings(), &memory, &vacant).reason.code(), "disk_failing");
}

#[test]
fn without_an_heir_a_failing_disk_is_better_than_nothing() {
    let mut alone = cluster(Some("me"));
    alone.members.remove(&name("peer"));
    let mut obs = observe(alone, primary());
    obs.disk = Disk::Full;
    let memory = broken(9000);
    assert!(!decide(&settings(), &memory, &obs).actions.contains(&Action::Fence));
}

#[test]
fn a_start_that_takes_too_long_lets_another_take_over() {
    let mut all = cluster(Some("me"));
    all.config = Some(ClusterSettings { primary_start_timeout: Millis::from_secs(60), ..ClusterSettings::default() });
    let mut obs = observe(all, Postgres::Starting { since: NOW, as_primary: true, awaits: None });
    obs.job = Some(RunningJob { kind: JobKind::Start, since: NOW - Millis(100), writes: true });
    let down = |ago| Memory {
        down_since: Some(NOW - Millis::from_secs(ago)),
        near: [name("peer")].into(),
        ..Memory::default()
    };
    let begun = decide(&settings(), &down(59), &obs);
    assert_eq!(begun.reason.code(), "busy");
    let over = decide(&settings(), &down(60), &obs);
    assert_eq!((over.reason.code(), &over.actions[..]), ("start_overdue", &[Action::CancelJob, Action::Fence][..]));
    obs.job = None;
    obs.postgres = stopped(ControlState::InProduction);
    assert_eq!(decide(&settings(), &down(59), &obs).reason.code(), "crashed_restarting");
    let over = decide(&settings(), &down(60), &obs);
    assert!(matches!(over.actions[..], [_, Action::ReleaseLeadership { .. }, ..]), "{over:?}");
}

/// The end of a job is told; until then only a lease needs looking after.
#[test]
fn a_long_job_is_not_looked_at_all_the_time() {
    let mut obs = observe(cluster(Some("peer")), Postgres::NoData);
    obs.lease = None;
    obs.job = Some(RunningJob { kind: JobKind::Clone, since: NOW, writes: false });
    let decision = decide(&settings(), &Memory::default(), &obs);
    assert_eq!((decision.reason.code(), decision.wake), ("busy", settings().timing.heartbeat));
}

#[test]
fn a_stop_that_takes_too_long_is_made_short_where_commits_wait() {
    let mut all = cluster(Some("me"));
    let timeout = Some(Millis::from_secs(10));
    all.config = Some(ClusterSettings { primary_stop_timeout: timeout, ..cluster_settings(&all).clone() });
    let mut obs = observe(all, primary());
    for (ago, code) in [(9, "busy"), (10, "stop_overdue")] {
        obs.job = Some(RunningJob { kind: JobKind::Stop, since: NOW - Millis::from_secs(ago), writes: false });
        assert_eq!(said(&obs)[0], code);
    }
}

#[test]
fn a_member_whose_name_is_taken_does_nothing() {
    let mut obs = observe(cluster(None), standby());
    obs.namesake = Some("10.0.0.9:8008".into());
    assert_eq!(said(&obs), ["duplicate_name"]);
    // Nor does it give up what the other one leads.
    let mut all = cluster(Some("me"));
    all.leader = Some(Leader { name: name("me"), is_my_session: false });
    obs = observe(all, stopped(ControlState::ShutDown));
    obs.lease = None;
    obs.namesake = Some("10.0.0.9:8008".into());
    obs.request = Some(Request::Shutdown);
    assert_eq!(said(&obs), ["shut_down", "DisarmWatchdog", "ForgetLease", "Exit"]);
}

#[test]
fn tags_say_where_a_member_streams_from() {
    let relayed = Settings { replicatefrom: Some(name("third")), ..settings() };
    let mut all = cluster(Some("peer"));
    let obs = observe(all.clone(), standby());
    assert_eq!(decide(&relayed, &Memory::default(), &obs).reason.code(), "following", "commits wait for it");
    all.sync.standbys.clear();
    all.members.insert(name("third"), Member { is_running: true, timeline: Some(Timeline(1)), ..Member::default() });
    let obs = observe(all, standby());
    let decision = decide(&relayed, &Memory::default(), &obs);
    assert_eq!(decision.actions, [Action::Follow(Some(name("third")))]);
    let alone = Settings { nostream: true, ..settings() };
    assert_eq!(decide(&alone, &Memory::default(), &obs).actions, [Action::Follow(None)]);
    let mut obs = obs;
    if let Postgres::Running(running) = &mut obs.postgres
        && let Role::Standby(standby) = &mut running.role
    {
        (standby.upstream, standby.streaming) = (None, false);
    }
    assert_eq!(decide(&alone, &Memory::default(), &obs).reason, Reason::Replaying);
}

#[test]
fn slots_follow_the_members_that_stream() {
    let mut all = cluster(Some("me"));
    let relayed = Member { is_running: true, replicatefrom: Some(name("peer")), ..Member::default() };
    all.members.insert(name("third"), relayed);
    let mut obs = observe(all, primary());
    if let Postgres::Running(running) = &mut obs.postgres
        && let Role::Primary(primary) = &mut running.role
    {
        primary.slots = slots(&[("peer", true), ("third", false)]);
    }
    assert_eq!(decided(&obs).actions, [Action::DropSlots([name("third").slot()].into())]);
    let mut all = cluster(Some("peer"));
    let relayed = Member { is_running: true, replicatefrom: Some(name("me")), ..Member::default() };
    all.members.insert(name("third"), relayed);
    let standby = observe(all, standby());
    assert_eq!(decided(&standby).actions, [Action::CreateSlots([name("third").slot()].into())]);
}

#[test]
fn a_switchover_that_nobody_took_is_not_tried_again() {
    let mut all = cluster(Some("me"));
    all.failover =
        Some(FailoverRequest { leader: Some(name("me")), candidate: Some(name("peer")), later: false, version: 4 });
    let obs = observe(all, primary());
    assert_eq!(said(&obs)[0], "handing_over");
    let memory = Memory { taken_with: Some(4), ..Memory::default() };
    let decision = decide(&settings(), &memory, &obs);
    assert_eq!(decision.reason.code(), "switchover_refused");
    assert_eq!(decision.actions, [Action::ClearFailover { version: 2, failover: 4 }]);
    // It was answered. A znode that is made anew has an old version, and another request.
    let answered = decide(&settings(), &memory, &observe(cluster(Some("me")), primary()));
    let decision = decide(&settings(), &answered.memory, &obs);
    assert_eq!(decision.reason.code(), "handing_over");
}

/// Simulated seed 49993: the position on record was that of the leader before, which had more when it was passed over.
#[test]
fn who_led_last_is_not_behind() {
    let mut all = cluster(None);
    all.config = Some(ClusterSettings::default());
    all.members.remove(&name("peer"));
    all.optime = Lsn(10 << 20);
    assert_eq!(said(&observe(all.clone(), standby()))[0], "too_far_behind");
    all.epoch.leader = Some(name("me"));
    assert_eq!(said(&observe(all, standby()))[0], "taking_leadership");
}

#[test]
fn a_leader_that_cannot_serve_gives_up() {
    let unusable = Postgres::Unusable("it is somebody else's".into());
    assert_eq!(said(&observe(cluster(Some("me")), unusable)), ["data_unusable", "ReleaseLeadership"]);
    let mut unmade = cluster(Some("me"));
    unmade.initialize = Initialize::Begun;
    let obs = observe(unmade, Postgres::NoData);
    let failed = Backoff { kind: JobKind::Bootstrap, failures: 1, until: NOW + Millis(1) };
    let memory = Memory { backoff: Some(failed), ..Memory::default() };
    let decision = decide(&settings(), &memory, &obs);
    assert_eq!(decision.reason.code(), "cannot_lead");
    assert!(matches!(decision.actions[..], [.., Action::ReleaseLeadership { .. }]), "{decision:?}");
}

#[test]
fn a_failing_disk_makes_no_cluster() {
    let mut unmade = cluster(None);
    unmade.initialize = Initialize::Absent;
    let mut obs = observe(unmade, Postgres::NoData);
    obs.disk = Disk::Hung;
    let memory = broken(6000);
    assert_eq!(decide(&settings(), &memory, &obs).reason, Reason::DiskFailing { disk: Disk::Hung });
}

/// A cluster with a permanent slot of each kind, led by `peer`, which has both.
fn with_permanent_slots() -> Cluster {
    let mut all = cluster(Some("peer"));
    let slot = |it: &str| SlotName::parse(it).unwrap();
    let logical = PermanentSlot::Logical { database: "app".into(), plugin: "pgoutput".into() };
    let permanent_slots = [(slot("backup"), PermanentSlot::Physical), (slot("cdc"), logical)].into();
    all.config = Some(ClusterSettings { permanent_slots, ..cluster_settings(&all).clone() });
    all.slot_positions = [(slot("backup"), Lsn(950)), (slot("cdc"), Lsn(950))].into();
    all.positions_on = all.members[&name("peer")].timeline;
    all
}

#[test]
fn logical_slots_are_copied_once_and_not_again_at_once() {
    let mut obs = observe(with_permanent_slots(), standby());
    // `me` comes before `peer` in the order in which members copy.
    let copied = decide(&settings(), &Memory::default(), &obs);
    let cdc = BTreeSet::from([SlotName::parse("cdc").unwrap()]);
    assert_eq!(copied.actions, [Action::CopySlots(name("peer"), cdc)]);
    assert_eq!(decide(&settings(), &copied.memory, &obs).reason.code(), "following");
    obs.now = NOW + Millis::from_secs(30);
    assert_eq!(decide(&settings(), &copied.memory, &obs).reason.code(), "copying_slots");
}

#[test]
fn logical_slots_wait_for_a_change_of_the_leader() {
    let asked = |later| {
        let mut all = with_permanent_slots();
        all.failover = Some(FailoverRequest { leader: Some(name("peer")), candidate: None, later, version: 1 });
        said(&observe(all, standby()))[0].clone()
    };
    assert_eq!(asked(false), "following");
    // One that is due tomorrow keeps nobody from it.
    assert_eq!(asked(true), "copying_slots");
    let mut behind = with_permanent_slots();
    behind.slot_positions.insert(SlotName::parse("cdc").unwrap(), Lsn(1001));
    assert_eq!(said(&observe(behind, standby()))[0], "following");
}

/// Simulated seed 9600910657: under load the slot was now and then further than the standby, whose turn began anew each time.
#[test]
fn a_member_keeps_its_turn_to_copy_slots() {
    let mut all = with_permanent_slots();
    // After `me`, whose turn would be at once.
    let settings = Settings { me: name("they"), ..settings() };
    all.members.insert(name("they"), all.members[&name("me")].clone());
    let turn = settings.timing.ttl.0 * all.members.keys().filter(|name| **name < settings.me).count() as u64;
    let mut memory = Memory::default();
    let mut look = |after, position| {
        let mut all = all.clone();
        all.slot_positions.insert(SlotName::parse("cdc").unwrap(), Lsn(position));
        let obs = Observation { now: NOW + Millis(after), ..observe(all, standby()) };
        let decision = decide(&settings, &memory, &obs);
        memory = decision.memory;
        decision.reason.code()
    };
    assert_eq!([look(0, 900), look(turn - 1, 1001), look(turn, 1001)], ["following"; 3]);
    assert_eq!(look(turn, 1000), "copying_slots");
}

#[test]
fn permanent_slots_of_a_standby_move_with_the_leaders_and_are_made_anew_when_spoilt() {
    let mut obs = observe(with_permanent_slots(), standby());
    let slot = |it: &str| SlotName::parse(it).unwrap();
    let mut look = |backup: Slot, cdc: Slot| {
        if let Postgres::Running(running) = &mut obs.postgres
            && let Role::Standby(standby) = &mut running.role
        {
            standby.slots = Slots { physical: [(slot("backup"), backup)].into(), logical: [(slot("cdc"), cdc)].into() };
        }
        decided(&obs).actions
    };
    let at = |position| Slot { position: Lsn(position), ..Slot::default() };
    assert_eq!(look(at(900), at(950)), [Action::AdvanceSlots([(slot("backup"), Lsn(950))].into())]);
    assert_eq!(look(at(950), at(950)), []);
    let spoilt = Slot { spoilt: true, ..at(900) };
    assert_eq!(look(spoilt, spoilt), [Action::DropSlots([slot("backup"), slot("cdc")].into())]);
}

/// Simulated seed 4202434: until its first renewal the record showed how far the slots of the leader before had been, beyond
/// where the two parted.
#[test]
fn slots_do_not_move_by_what_the_leader_before_has_told() {
    let mut all = with_permanent_slots();
    all.positions_on = Some(Timeline(0));
    let mut obs = observe(all, standby());
    assert_eq!(said(&obs)[0], "following", "a copy would be of slots that nobody has told of");
    if let Postgres::Running(running) = &mut obs.postgres
        && let Role::Standby(standby) = &mut running.role
    {
        let at = Slot { position: Lsn(900), ..Slot::default() };
        let [backup, cdc] = ["backup", "cdc"].map(|it| SlotName::parse(it).unwrap());
        standby.slots = Slots { physical: [(backup, at)].into(), logical: [(cdc, at)].into() };
    }
    assert_eq!(decided(&obs).actions, []);
}

#[test]
fn permanent_slots_that_are_not_asked_for_any_more_go() {
    let memory = decided(&observe(with_permanent_slots(), standby())).memory;
    let mut obs = observe(cluster(Some("peer")), standby());
    if let Postgres::Running(running) = &mut obs.postgres
        && let Role::Standby(standby) = &mut running.role
    {
        standby.slots = slots(&[("backup", false), ("strangers", false)]);
    }
    let decision = decide(&settings(), &memory, &obs);
    assert_eq!(decision.actions, [Action::DropSlots([name("backup").slot()].into())]);
}

#[test]
fn a_standby_that_streams_is_an_heir_before_its_znode_says_that_it_runs() {
    let mut all = cluster(Some("me"));
    all.members.get_mut(&name("peer")).unwrap().is_running = false;
    let memory = decided(&observe(all.clone(), primary())).memory;
    let crashed = observe(all, stopped(ControlState::InProduction));
    assert_eq!(decide(&settings(), &memory, &crashed).reason.code(), "crashed_handing_over");
    assert_eq!(decided(&crashed).reason.code(), "crashed_restarting");
}

/// Its agent is gone for long, its Postgres streams: dropping its slot would fail at every turn.
#[test]
fn a_slot_in_use_is_left_alone_however_long_its_member_is_away() {
    let mut all = cluster(Some("me"));
    let gone = name("gone").slot();
    all.retained_slots = [gone.clone()].into();
    let long = NOW - Millis::from_secs(9000);
    let memory = Memory { away: [(gone, long)].into(), answered_since: Some(long), ..Memory::default() };
    let mut obs = observe(all, primary());
    if let Postgres::Running(running) = &mut obs.postgres
        && let Role::Primary(primary) = &mut running.role
    {
        primary.slots = slots(&[("peer", true), ("gone", true)]);
    }
    assert_eq!(decide(&settings(), &memory, &obs).actions, []);
}

/// Simulated seed 11249228420289: an agent that was restarted during a promotion gave the leadership back, and Postgres
/// was promoted under the next leader.
#[test]
fn a_promotion_that_an_earlier_agent_began_is_owned_or_ended() {
    let mut obs = observe(cluster(Some("me")), standby());
    if let Dcs::Seen(cluster) = &mut obs.dcs {
        Arc::make_mut(cluster).leader = Some(Leader { name: name("me"), is_my_session: false });
    }
    assert_eq!(said(&obs), ["reowning", "ReownLeadership"]);
    obs.lease = obs.lease.map(|lease| Lease { counted_from: NOW - Millis(9000), ..lease });
    assert_eq!(said(&obs)[..2], ["lease_over", "Fence"]);
}

#[test]
fn who_may_be_waited_for_copies_from_the_leader() {
    let mut all = cluster(Some("peer"));
    all.sync.standbys.clear();
    let offered = Member { is_running: true, timeline: Some(Timeline(1)), clonefrom: true, ..Member::default() };
    all.members.insert(name("third"), offered);
    let source = |all: &Cluster, postgres: Postgres| {
        let ordered = Memory { clone_ordered: true, ..Memory::default() };
        let actions = decide(&settings(), &ordered, &observe(all.clone(), postgres)).actions;
        actions.into_iter().find_map(|it| if let Action::Clone(from) = it { Some(from.to_string()) } else { None })
    };
    let replaced = || stopped(ControlState::ShutDownInRecovery);
    // It may have confirmed a commit, and be recorded while it copies.
    for postgres in [Postgres::NoData, replaced()] {
        assert_eq!(source(&all, postgres).as_deref(), Some("peer"));
    }
    let mut asynchronous = all.clone();
    asynchronous.members.get_mut(&name("me")).unwrap().nosync = true;
    assert_eq!(source(&asynchronous, replaced()).as_deref(), Some("third"));
    all.config = Some(ClusterSettings::default());
    assert_eq!(source(&all, replaced()).as_deref(), Some("third"));
}

/// A standby that ends before what it has confirmed was restored from a copy, or its disk was replaced.
#[test]
fn who_lacks_what_it_has_confirmed_neither_leads_nor_votes() {
    let mut all = cluster(None);
    all.sync.leader = Some(name("peer"));
    all.sync.standbys = [name("me")].into();
    all.positions_on = Some(Timeline(1));
    // Ends at 1000, and a record that was torn may be 16 long.
    for (confirmed, led) in [(1000, true), (1016, true), (1017, false)] {
        all.slot_positions = [(name("me").slot(), Lsn(confirmed))].into();
        let led_to = said(&observe(all.clone(), standby()))[0].clone();
        assert_eq!(led_to, if led { "taking_leadership" } else { "lacks_confirmed" }, "{confirmed}");
    }
    // Its leader does not forget that while it is on record: not while it is away, nor when it is back with less.
    let bound = |all: &Cluster, timeline, found| all.positions_from(timeline, found).get(&name("me").slot()).copied();
    let back = || vec![(name("me").slot(), Lsn(500))];
    assert_eq!(bound(&all, Timeline(1), vec![]), Some(Lsn(1017)));
    assert_eq!(bound(&all, Timeline(1), back()), Some(Lsn(1017)));
    assert_eq!(bound(&all, Timeline(2), back()), Some(Lsn(500)), "of another timeline");
    let unrecorded = Cluster { sync: SyncRecord::default(), ..all.clone() };
    assert_eq!(bound(&unrecorded, Timeline(1), back()), Some(Lsn(500)));
    // An operator may know better.
    all.failover = Some(FailoverRequest { leader: None, candidate: Some(name("me")), later: false, version: 1 });
    assert_eq!(said(&observe(all.clone(), standby()))[0], "taking_leadership");
    all.failover = None;
    // What another timeline's leader wrote tells nothing about this one.
    all.positions_on = Some(Timeline(0));
    assert_eq!(said(&observe(all.clone(), standby()))[0], "taking_leadership");
}

/// Simulated seed 9200381942: it stood still in its promotion to timeline 2, replayed timeline 3 when it went on, and began 4,
/// which the next leader then began as well.
#[test]
fn who_may_have_begun_what_nobody_knows_streams_from_nobody_while_it_starts() {
    let all = |timeline| {
        let mut all = cluster(Some("peer"));
        if let Some(peer) = all.members.get_mut(&name("peer")) {
            peer.timeline = Some(Timeline(timeline));
        }
        all.history = History { newest: Some(Timeline(timeline)), ..History::default() };
        all
    };
    let starting = |timeline, promoting_to| {
        let mut obs = observe(all(timeline), Postgres::Starting { since: NOW, as_primary: false, awaits: None });
        obs.past.promoting_to = promoting_to;
        said(&obs)
    };
    assert_eq!(starting(4, Some(Timeline(2))), ["diverged", "Stop"]);
    assert_eq!(starting(1, Some(Timeline(2))), ["waiting_for_history"]);
    assert_eq!(starting(4, None), ["redirecting", "Follow"]);
}

/// Four ends in recovery may have any reason; a fifth is the data's.
#[test]
fn data_that_recovery_does_not_get_through_is_rewound_then_copied() {
    let mut memory = Memory::default();
    let mut all = cluster(Some("peer"));
    all.history.switches =
        TimelineHistory(vec![Switch { parent: Timeline(1), switched_at: Lsn(950), reason: String::new() }]);
    all.members.get_mut(&name("peer")).unwrap().timeline = Some(Timeline(2));
    let mut obs = observe(all, stopped(ControlState::InArchiveRecovery));
    let mut turn = |obs: &Observation| {
        let decision = decide(&settings(), &memory, obs);
        memory = decision.memory;
        decision.reason.code()
    };
    let ended = |kind, outcome: fn(String) -> Outcome| Some(EndedJob { kind, outcome: outcome("x".to_owned()) });
    let start = |obs: &mut Observation, turn: &mut dyn FnMut(&Observation) -> &'static str, outcome| {
        obs.now = obs.now + Millis::from_secs(60);
        obs.ended = None;
        assert_eq!(turn(obs), "rejoin_start");
        obs.ended = ended(JobKind::Start, outcome);
        turn(obs)
    };
    // A port that is taken, or a setting that is wrong, is not.
    for _ in 0..10 {
        assert_eq!(start(&mut obs, &mut turn, Outcome::Failed), "backing_off");
    }
    for _ in 0..4 {
        assert_eq!(start(&mut obs, &mut turn, Outcome::Impossible), "backing_off");
    }
    assert_eq!(start(&mut obs, &mut turn, Outcome::Impossible), "giving_up_starting");
    obs.ended = None;
    assert_eq!(turn(&obs), "rejoin_rewind");
    obs.ended = Some(EndedJob { kind: JobKind::Rewind, outcome: Outcome::Done });
    obs.now = obs.now + Millis::from_secs(60);
    assert_eq!(turn(&obs), "rejoin_start");
    // Once more, up to a copy.
    for _ in 0..4 {
        assert_eq!(start(&mut obs, &mut turn, Outcome::Impossible), "backing_off");
    }
    assert_eq!(start(&mut obs, &mut turn, Outcome::Impossible), "giving_up_starting");
    obs.ended = None;
    assert_eq!(turn(&obs), "rejoin_clone");
    obs.ended = Some(EndedJob { kind: JobKind::Clone, outcome: Outcome::Done });
    obs.now = obs.now + Millis::from_secs(60);
    assert_eq!(turn(&obs), "rejoin_start");
    // That did not help: it may be something else, and the leader has other work.
    for _ in 0..40 {
        assert_eq!(start(&mut obs, &mut turn, Outcome::Impossible), "backing_off");
    }
}

#[test]
fn what_ends_later_in_recovery_counts_unless_it_was_told_to() {
    let starting = Postgres::Starting { since: NOW, as_primary: false, awaits: None };
    let ends = |memory: &mut Memory, postgres: &Postgres, told: bool| {
        let mut obs = observe(cluster(Some("peer")), postgres.clone());
        obs.request = told.then_some(Request::Reinitialize);
        *memory = decide(&settings(), memory, &obs).memory;
        memory.ends
    };
    let mut memory = Memory::default();
    let at_rest = stopped(ControlState::InArchiveRecovery);
    assert_eq!(ends(&mut memory, &starting, false), 0);
    assert_eq!(ends(&mut memory, &at_rest, false), 1);
    assert_eq!(ends(&mut memory, &at_rest, false), 1);
    assert_eq!(ends(&mut memory, &starting, true), 1);
    assert_eq!(ends(&mut memory, &at_rest, false), 1);
    assert_eq!(ends(&mut memory, &standby(), false), 0, "it ran");
}

#[test]
fn recovery_that_waits_for_wal_that_never_comes_is_given_up() {
    let mut memory = Memory { followed: Some(name("peer")), tried_with: Some(name("peer")), ..Memory::default() };
    let mut now = NOW;
    let mut turn = |awaits: Option<u64>, later: Millis| {
        now = now + later;
        let awaits = awaits.map(Lsn);
        let mut obs = observe(cluster(Some("peer")), Postgres::Starting { since: NOW, as_primary: false, awaits });
        obs.now = now;
        let positions = [(name("peer"), peer_at(1000))].into();
        obs.peers = Some(PeerAnswers { asked: now, positions, silent: BTreeSet::new() });
        let decision = decide(&settings(), &memory, &obs);
        memory = decision.memory;
        decision.reason.code()
    };
    for segment in 1..9 {
        assert_eq!(turn(Some(segment << 24), settings().standstill), "starting");
    }
    // It replays, or does not say where it is.
    assert_eq!(turn(None, Millis::from_secs(3600)), "starting");
    assert_eq!(turn(Some(9 << 24), Millis(1)), "starting");
    assert_eq!(turn(Some(9 << 24), settings().standstill), "giving_up_streaming");
}

#[test]
fn a_primary_that_no_standby_protects_says_so() {
    let alone = |strict| {
        let mut all = cluster(Some("me"));
        all.members.remove(&name("peer"));
        all.sync.standbys.clear();
        all.config = Some(ClusterSettings { synchrony: Synchrony::Named, strict, ..ClusterSettings::default() });
        let mut postgres = primary();
        if let Postgres::Running(running) = &mut postgres
            && let Role::Primary(primary) = &mut running.role
        {
            primary.senders.clear();
            primary.sync_names = if strict { Names::Nobody } else { Names::Nothing }.render();
            primary.slots = Slots::default();
        }
        said(&observe(all, postgres))
    };
    assert_eq!(alone(false), ["leading_alone"]);
    assert_eq!(alone(true), ["commits_wait"]);
}

/// Members that have no copy would take the cluster for an asynchronous one.
#[test]
fn settings_that_somebody_deleted_are_recorded_again() {
    let mut all = cluster(Some("me"));
    all.config_lost = true;
    let prepared = Memory { prepared: true, ..Memory::default() };
    let decision = decide(&settings(), &prepared, &observe(all, primary()));
    assert!(matches!(decision.actions[..], [.., Action::RecordCluster { .. }]), "{decision:?}");
}
