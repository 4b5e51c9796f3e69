//! The format: nothing is lost, and what is torn or tampered with is told apart.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::*;
use crate::decide::{Backoff, CheckpointOrder, DiskTrouble, Electorate, SlotCopying, Standstill, decide};
use crate::lease::Lease;
use crate::lsn::{Switch, Timeline, TimelineHistory};
use crate::name::{Epoch, NodeName, SystemId};
use crate::observation::{
    Cluster, ClusterSettings, Disk, EndedJob, EpochRecord, FailoverRequest, FailsafeRecord, History, Initialize,
    JobKind, Leader, Member, Outcome, Past, PeerAnswers, PeerPosition, Primary, Promise, Request, Running, RunningJob,
    Sender, Slot, Slots, Standby, SyncRecord, Tie, Watchdog,
};
use crate::pulse::Pulse;
use crate::rejoin::Rung;
use crate::sync::Form;
use crate::timing::Timing;

fn name(text: &str) -> NodeName {
    NodeName::try_from(text).unwrap()
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(1_767_225_600_000 + millis).unwrap()
}

fn head() -> Head {
    let settings = Settings {
        me: name("db-1"),
        timing: Timing::default(),
        nofailover: false,
        failover_priority: 2,
        watchdog_required: true,
        replicatefrom: Some(name("db-2")),
        nostream: true,
        standstill: Millis(1500),
        torn: 16 << 20,
    };
    Head::new(at(0), at(-7), settings)
}

/// Nothing in it is empty.
fn cluster() -> Cluster {
    Cluster {
        epoch: EpochRecord { epoch: Epoch(3), leader: Some(name("db-1")), released: false, version: Some(2) },
        leader: Some(Leader { name: name("db-1"), is_my_session: true }),
        initialize: Initialize::Done(SystemId(u64::MAX)),
        config: Some(ClusterSettings { maximum_lag_on_syncnode: Some(5), ..ClusterSettings::default() }),
        config_lost: false,
        sync: SyncRecord {
            leader: Some(name("db-1")),
            standbys: BTreeSet::from([name("db-2")]),
            quorum: 1,
            unreadable: false,
            version: Some(5),
        },
        failover: Some(FailoverRequest {
            leader: Some(name("db-1")),
            candidate: Some(name("db-2")),
            later: true,
            version: 4,
        }),
        failsafe: FailsafeRecord { members: [name("db-1")].into(), unreadable: false, version: Some(3) },
        members: [(name("db-2"), Member { timeline: Some(Timeline(2)), ..Member::default() })].into(),
        retained_slots: BTreeSet::from([name("db-3").slot()]),
        slot_positions: [(name("db-3").slot(), Lsn(7))].into(),
        positions_on: Some(Timeline(2)),
        optime: Lsn(u64::MAX),
        history: History {
            newest: Some(Timeline(2)),
            reserved: Some(Timeline(3)),
            switches: TimelineHistory(vec![Switch {
                parent: Timeline(1),
                switched_at: Lsn(0x0500_0098),
                reason: "no recovery target \"specified\"\n".to_owned(),
            }]),
            begun_by: [(Timeline(2), name("db-1"))].into(),
        },
    }
}

fn observation(role: Role) -> Observation {
    let position = PeerPosition {
        timeline: Timeline(2),
        position: Lsn(6),
        complete: true,
        looked: Instant(4),
        detached: true,
        can_lead: true,
    };
    Observation {
        now: Instant(1_000_000),
        dcs: Dcs::Seen(Arc::new(cluster())),
        lease: Some(Lease { epoch: Epoch(3), sent: Instant(999_900), counted_from: Instant(998_900) }),
        postgres: Postgres::Running(Box::new(Running { system_id: SystemId(7), timeline: Timeline(2), role })),
        past: Past { promoted_to: Some(Timeline(2)), led_in: Some(Epoch(3)), ..Past::default() },
        job: Some(RunningJob { kind: JobKind::Clone, since: Instant(1), writes: true }),
        ended: Some(EndedJob { kind: JobKind::Rewind, outcome: Outcome::Impossible("x".to_owned()) }),
        peers: Some(PeerAnswers {
            asked: Instant(5),
            positions: [(name("db-2"), position)].into(),
            silent: [name("db-3")].into(),
        }),
        watchdog: Watchdog::Armed,
        guard_alive: true,
        request: Some(Request::Reinitialize),
        disk: Disk::Full,
        up_since: Instant(7),
        namesake: Some("10.0.0.9:8008".to_owned()),
        promise: Some(Promise { to: name("db-2"), epoch: Epoch(3), until: Instant(8) }),
        pulse: Some(Pulse { version: Some(9), seen: Instant(3) }),
    }
}

fn primary() -> Role {
    Role::Primary(Primary {
        flushed: Lsn(1000),
        sync_names: "\"db-2\"".to_owned(),
        checkpointer_settled: true,
        senders: vec![Sender {
            name: "db-2".to_owned(),
            connected: 7,
            streaming: true,
            named: Some(Form::Any),
            flushed: Lsn(1000),
        }],
        slots: Slots { physical: [(name("db-2").slot(), Slot::default())].into(), ..Slots::default() },
        checkpoint_pending: false,
    })
}

fn standby() -> Role {
    Role::Standby(Standby {
        received: Lsn(1000),
        replayed: Lsn(900),
        complete: true,
        streaming: true,
        upstream: Some(name("db-2")),
        tie: Tie::Bound,
        slots: Slots::default(),
        checkpoint_pending: true,
        paused: false,
    })
}

fn memory() -> Memory {
    Memory {
        backoff: Some(Backoff { kind: JobKind::Start, failures: 2, until: Instant(9) }),
        due: Rung::Rewind,
        tried: Rung::Restart,
        standstill: Some(Standstill { position: Lsn(5), since: Instant(4) }),
        tried_with: Some(name("db-2")),
        prepared: true,
        clone_ordered: true,
        vacant_since: Some(Instant(3)),
        checkpoint: Some(CheckpointOrder { timeline: Timeline(2), at: Instant(2) }),
        followed: Some(name("db-2")),
        away: [(name("db-3").slot(), Instant(1))].into(),
        taken_with: Some(4),
        down_since: Some(Instant(2)),
        disk: Some(DiskTrouble { since: Instant(3), stuck: Instant(3), flushed: Some(Lsn(4)) }),
        copying: Some(SlotCopying { since: Instant(7), done: Some(Instant(8)) }),
        slot_work: Some(Instant(9)),
        near: [name("db-2")].into(),
        shunned: Some(Instant(2)),
        asked: Some(Instant(6)),
        failsafe_away: [(name("db-2"), Instant(5))].into(),
        vacant_after: Some(Epoch(2)),
        permanent: [name("db-2").slot()].into(),
        electorate: Electorate {
            on: true,
            recorded: [name("db-1")].into(),
            ordered: Some((Some(3), [name("db-2")].into())),
            lifted: true,
        },
        ..Memory::default()
    }
}

fn turn(memory: &Memory, observation: &Observation) -> Turn {
    Turn::new(17, at(250), memory, observation, &decide(&head().settings, memory, observation))
}

fn read(file: &[u8]) -> Result<Vec<Line>, JournalError> {
    lines(file).map(|line| line.map(|(_, line)| line)).collect()
}

#[test]
fn what_is_written_is_read_back_the_same() {
    for role in [primary(), standby()] {
        let mut turn = turn(&memory(), &observation(role));
        turn.lost = 3;
        let file = [head().render(), turn.render()].concat();
        assert_eq!(read(&file).unwrap(), [Line::Head(Box::new(head())), Line::Turn(Box::new(turn))]);
    }
}

#[test]
fn a_line_is_compact_and_says_the_time_in_milliseconds() {
    let line = String::from_utf8(head().render()).unwrap();
    assert!(line.starts_with(
        "{\"head\":{\"format\":1,\"pgha\":\"0.1.0\",\"at\":\"2026-01-01T00:00:00.000Z\",\
         \"started\":\"2025-12-31T23:59:59.993Z\",\"settings\":{\"me\":\"db-1\","
    ));
    assert!(line.ends_with("}}}\n"));
}

#[test]
fn what_an_older_version_did_not_know_has_its_default() {
    let line = String::from_utf8(turn(&memory(), &observation(primary())).render()).unwrap();
    let older = line.replace("\"maximum_lag_on_syncnode\":5,", "").replace("\"nosync\":false,", "");
    assert_ne!(older, line);
    let Line::Turn(turn) = read(&[&head().render(), older.as_bytes()].concat()).unwrap().remove(1) else {
        panic!("a turn");
    };
    let mut cluster = cluster();
    cluster.config = Some(ClusterSettings::default());
    assert_eq!(turn.observation.dcs, Dcs::Seen(Arc::new(cluster)));
}

#[test]
fn only_the_passing_of_time_is_no_news() {
    let quiet = |role: Role| {
        let mut seen = observation(role);
        (seen.job, seen.ended, seen.request) = (None, None, None);
        if let Dcs::Seen(cluster) = &mut seen.dcs {
            Arc::make_mut(cluster).failover = None;
        }
        seen
    };
    for role in [primary(), standby()] {
        let last = Turn { actions: vec![], ..turn(&memory(), &quiet(role)) };
        let mut next = last.clone();
        next.observation.now = next.observation.now + Millis(59_999);
        next.observation.lease =
            next.observation.lease.map(|lease| lease.renewed(Instant(1_000_100), &Timing::default()));
        next.memory.standstill = Some(Standstill { position: Lsn(6), since: Instant(5) });
        next.actions = vec![Action::Renew { version: 2, retain: BTreeSet::new() }];
        if let Dcs::Seen(cluster) = &mut next.observation.dcs {
            Arc::make_mut(cluster).optime = Lsn(1);
        }
        if let Postgres::Running(running) = &mut next.observation.postgres {
            match &mut running.role {
                Role::Primary(primary) => (primary.flushed, primary.senders[0].flushed) = (Lsn(1), Lsn(2)),
                Role::Standby(standby) => (standby.received, standby.replayed) = (Lsn(1), Lsn(2)),
            }
        }
        assert!(!next.is_news_after(&last));

        let news = |change: fn(&mut Turn)| {
            let mut next = next.clone();
            change(&mut next);
            assert!(next.is_news_after(&last));
        };
        news(|next| next.observation.now = next.observation.now + Millis(1));
        news(|next| next.code = "following".to_owned());
        news(|next| next.text = "streaming from db-3".to_owned());
        news(|next| next.actions.push(Action::Checkpoint));
        news(|next| next.memory.standstill = None);
        news(|next| next.observation.guard_alive = false);
        news(|next| next.observation.lease = None);
        news(|next| next.observation.dcs = Dcs::Silent { since: Instant(1) });
    }
}

#[test]
fn a_torn_end_is_left_out_and_any_other_fault_has_its_place() {
    let (head, turn) = (head().render(), turn(&memory(), &observation(primary())).render());
    let file = [&head[..], &turn].concat();
    for length in 0..file.len() {
        let whole = usize::from(length >= head.len());
        let file = &file[..length];
        assert_eq!(read(file).map(|lines| lines.len()), Ok(whole), "{length} bytes");
        assert_eq!(torn(file), length - whole * head.len());
    }

    let wrong = |file: &[u8]| read(file).unwrap_err().to_string();
    assert_eq!(wrong(&turn), "1:1: a journal begins with a head");
    assert_eq!(wrong(&[&head[..], b"\n", &turn].concat()), "2:1: EOF while parsing a value");
    assert_eq!(wrong(&[&head[..], b"{\"turn\":{\"numb\n"].concat()), "2:14: EOF while parsing a string");
    let other = String::from_utf8(head).unwrap().replace("\"format\":1", "\"format\":2");
    assert_eq!(wrong(other.as_bytes()), "1:19: format 2 is not known here, only 1");
}
