//! How a data directory at rest comes back under a leader: start, rewind or copy.

use serde::{Deserialize, Serialize};

use crate::lsn::Timeline;
use crate::name::NodeName;
use crate::observation::{Control, ControlState, History, Member, Past, Standby};

/// A rung of the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// Start and stream.
    #[default]
    Start,
    /// It did not stream from a leader that answered: once more.
    Restart,
    /// Again it did not: `pg_rewind`, whatever the histories seem to say.
    Rewind,
    /// `pg_rewind` cannot help, or did not.
    Clone,
}

impl Rung {
    /// The next one.
    #[must_use]
    pub fn next(self) -> Self {
        match self {
            Self::Start => Self::Restart,
            Self::Restart => Self::Rewind,
            Self::Rewind | Self::Clone => Self::Clone,
        }
    }
}

/// The cheapest rung of the ladder that can work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Same history: start, stream, and fetch from the archive what the leader has recycled.
    Start,
    /// The histories have parted.
    Rewind,
    /// `pg_rewind` cannot help.
    Clone,
    /// The leader's history is not recorded yet.
    AwaitHistory,
    /// The leader has not yet written the checkpoint that lets `pg_rewind` see its timeline: until then `pg_rewind`
    /// of Postgres 15 says "no rewind required" to a diverged target (it reads the source's control file).
    AwaitCheckpoint,
}

/// Chooses the rung for a stopped data directory.
pub fn plan(control: &Control, past: &Past, me: &NodeName, leader: &Member, history: &History, lowest: Rung) -> Plan {
    let Some(leader_timeline) = leader.timeline else {
        return Plan::AwaitHistory;
    };
    if history.timeline() < leader_timeline {
        return Plan::AwaitHistory;
    }
    let parted = past.rewind_unfinished
        || lowest > Rung::Restart
        || has_parted(control, leader_timeline, history)
        || has_begun_in_vain(past, leader_timeline, history);
    // pg_rewind would see no difference, where two members began the same timeline, or less than there is.
    let hidden = is_twin(past, me, history)
        || is_foreign(control, me, history)
        || parted && (control.timeline == leader_timeline || !history.switches.shows_end_of(control.timeline));
    if hidden || (parted && lowest == Rung::Clone) {
        Plan::Clone
    } else if !parted {
        Plan::Start
    } else if leader.checkpoint_pending {
        Plan::AwaitCheckpoint
    } else {
        Plan::Rewind
    }
}

/// This member began a timeline, or may have, and the cluster says that another member did.
fn is_twin(past: &Past, me: &NodeName, history: &History) -> bool {
    let begun_by_other = |begun| history.begun_by.get(&begun).is_some_and(|beginner| beginner != me);
    [past.promoted_to, past.promoting_to].into_iter().flatten().any(begun_by_other)
}

/// Data that served as a primary, on a timeline that another member began: the record of our promotion was lost.
fn is_foreign(control: &Control, me: &NodeName, history: &History) -> bool {
    let served = !control.standby_signal
        && !control.backup_label
        && matches!(control.state, ControlState::ShutDown | ControlState::InProduction | ControlState::Other);
    served && history.begun_by.get(&control.timeline).is_some_and(|beginner| beginner != me)
}

/// This member gave the order to begin a timeline that the leader's history does not know. It may have come about, with nobody
/// there to see it, and been replayed since, though the control file shows the timeline before.
fn has_begun_in_vain(past: &Past, leader_timeline: Timeline, history: &History) -> bool {
    past.promoting_to.is_some_and(|begun| {
        begun <= history.timeline() && begun != leader_timeline && history.switches.end_of(begun).is_none()
    })
}

fn has_parted(control: &Control, leader_timeline: Timeline, history: &History) -> bool {
    if control.timeline == leader_timeline {
        // An unclean end as primary of the leader's own timeline cannot happen without a twin: a leader promotes anew.
        return false;
    }
    let Some(end) = history.switches.end_of(control.timeline).filter(|_| control.timeline < leader_timeline) else {
        return true;
    };
    match control.state {
        // The shutdown checkpoint is the last record; the leader began after it exactly if it has the whole of it.
        ControlState::ShutDown => control.checkpoint >= end,
        ControlState::ShutDownInRecovery | ControlState::InArchiveRecovery => control.min_recovery_end > end,
        // It may have written WAL that nobody received; pg_rewind finds out, after crash recovery. A copy that was
        // never started shows its source's state, and has a label.
        ControlState::InProduction | ControlState::Other => !control.backup_label,
    }
}

/// Whether a standby that *starts* has data that no leader should send WAL to: see [`standby_has_parted`], which has to see it
/// run before it streams. One that stood still in its promotion may have replayed the next leader's timeline meanwhile and begun
/// the number after that, which is somebody else's by now: to Postgres the two are one.
pub fn starts_parted(past: &Past, leader: &Member, history: &History) -> bool {
    leader.timeline.is_some_and(|timeline| has_begun_in_vain(past, timeline, history))
}

/// Whether nothing is on record yet that tells what came of a promotion of this member. Where people have deleted the record its
/// number may be given again, and whoever has that would be taken for this member's own history.
pub fn awaits_record(past: &Past, history: &History) -> bool {
    past.promoting_to.is_some_and(|begun| history.timeline() < begun)
}

/// Whether a *running* standby has replayed WAL that is not in the leader's history; `None` while that is not known.
pub fn standby_has_parted(
    timeline: Timeline,
    standby: &Standby,
    past: &Past,
    me: &NodeName,
    leader: &Member,
    history: &History,
) -> Option<bool> {
    let leader_timeline = leader.timeline?;
    if is_twin(past, me, history) || !standby.streaming && has_begun_in_vain(past, leader_timeline, history) {
        return Some(true);
    }
    if timeline == leader_timeline {
        return Some(false);
    }
    if timeline > leader_timeline {
        return Some(true);
    }
    if history.timeline() < leader_timeline {
        return None;
    }
    Some(history.switches.end_of(timeline).is_none_or(|end| standby.replayed > end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::{Lsn, Switch, TimelineHistory};
    use crate::name::SystemId;
    use crate::observation::{Slots, Tie};

    fn name(text: &str) -> NodeName {
        NodeName::try_from(text).unwrap()
    }

    fn history() -> History {
        let switch = |parent, at| Switch { parent: Timeline(parent), switched_at: Lsn(at), reason: String::new() };
        History {
            newest: Some(Timeline(3)),
            reserved: None,
            switches: TimelineHistory(vec![switch(1, 100), switch(2, 200)]),
            begun_by: [(Timeline(2), name("db1")), (Timeline(3), name("db2"))].into(),
        }
    }

    fn control(timeline: u32, state: ControlState, checkpoint: u64) -> Control {
        Control {
            system_id: SystemId(7),
            timeline: Timeline(timeline),
            state,
            checkpoint: Lsn(checkpoint),
            min_recovery_end: Lsn(checkpoint),
            backup_label: false,
            standby_signal: matches!(state, ControlState::ShutDownInRecovery | ControlState::InArchiveRecovery),
        }
    }

    fn leader() -> Member {
        Member { is_primary: true, is_running: true, timeline: Some(Timeline(3)), ..Member::default() }
    }

    fn plan_for(control: &Control) -> Plan {
        plan(control, &Past::default(), &name("db1"), &leader(), &history(), Rung::Start)
    }

    #[test]
    fn a_clean_shutdown_before_the_switch_just_starts() {
        assert_eq!(plan_for(&control(2, ControlState::ShutDown, 190)), Plan::Start);
    }

    #[test]
    fn a_clean_shutdown_that_the_leader_did_not_get_is_rewound() {
        assert_eq!(plan_for(&control(2, ControlState::ShutDown, 200)), Plan::Rewind);
    }

    #[test]
    fn a_crashed_primary_is_rewound_wherever_its_checkpoint_was() {
        assert_eq!(plan_for(&control(2, ControlState::InProduction, 10)), Plan::Rewind);
    }

    #[test]
    fn a_standby_behind_the_switch_just_starts() {
        assert_eq!(plan_for(&control(1, ControlState::InArchiveRecovery, 100)), Plan::Start);
        assert_eq!(plan_for(&control(1, ControlState::InArchiveRecovery, 101)), Plan::Rewind);
    }

    #[test]
    fn a_timeline_outside_the_history_is_rewound() {
        assert_eq!(plan_for(&control(4, ControlState::ShutDown, 1)), Plan::Rewind);
    }

    /// Simulated seed 930019344: promoted while its agent was dead, killed by the guard, started as a standby before anybody
    /// else led; its control file shows the timeline before.
    #[test]
    fn what_a_promotion_began_and_nobody_saw_is_not_the_leaders() {
        let standby = |streaming| Standby {
            received: Lsn(150),
            replayed: Lsn(150),
            complete: true,
            streaming,
            upstream: None,
            tie: Tie::Bound,
            slots: Slots::default(),
            checkpoint_pending: false,
            paused: false,
        };
        let parted = |begun, streaming| {
            let past = Past { promoting_to: begun, ..Past::default() };
            let history = History { switches: TimelineHistory(history().switches.0[1..].to_vec()), ..history() };
            standby_has_parted(Timeline(2), &standby(streaming), &past, &name("db2"), &leader(), &history)
        };
        assert_eq!(parted(None, false), Some(false));
        assert_eq!(parted(Some(Timeline(1)), false), Some(true));
        // Its own numbers are nobody else's: who streams has the leader's history.
        assert_eq!(parted(Some(Timeline(1)), true), Some(false));
        assert_eq!([3, 4].map(|begun| parted(Some(Timeline(begun)), false)), [Some(false); 2]);
    }

    /// The cluster was restored to a time before the last change of the primary; Postgres refuses to start what lies between.
    #[test]
    fn what_a_restore_left_behind_is_copied() {
        let text = "1\t0/100\tno recovery target specified\n2\t0/C0\tbefore a time\n";
        let switches = TimelineHistory::parse(text).unwrap();
        let history = History { switches, newest: Some(Timeline(3)), begun_by: [].into(), ..history() };
        let leader = Member { timeline: Some(Timeline(3)), ..leader() };
        let plan = |timeline, at| {
            let stopped = control(timeline, ControlState::ShutDown, at);
            plan(&stopped, &Past::default(), &name("db3"), &leader, &history, Rung::Start)
        };
        assert_eq!([0xB0, 0xE0].map(|at| plan(1, at)), [Plan::Start, Plan::Clone]);
        // Its own history says where it parted.
        assert_eq!(plan(2, 0xE0), Plan::Rewind);
    }

    #[test]
    fn twins_are_copied() {
        let past = Past { promoted_to: Some(Timeline(3)), ..Past::default() };
        let stopped = control(3, ControlState::ShutDown, 250);
        assert_eq!(plan(&stopped, &past, &name("db1"), &leader(), &history(), Rung::Start), Plan::Clone);
        assert_eq!(plan(&stopped, &past, &name("db2"), &leader(), &history(), Rung::Start), Plan::Start);
        // Nobody saw what came of its promotion, and the record of it was deleted.
        let past = Past { promoting_to: Some(Timeline(3)), ..Past::default() };
        let crashed = control(2, ControlState::InProduction, 150);
        assert_eq!(plan(&crashed, &past, &name("db1"), &leader(), &history(), Rung::Start), Plan::Clone);
    }

    #[test]
    fn what_is_not_known_is_waited_for() {
        let ahead = Member { timeline: Some(Timeline(4)), ..leader() };
        let crashed = control(2, ControlState::InProduction, 10);
        assert_eq!(plan(&crashed, &Past::default(), &name("db1"), &ahead, &history(), Rung::Start), Plan::AwaitHistory);
        let early = Member { checkpoint_pending: true, ..leader() };
        assert_eq!(
            plan(&crashed, &Past::default(), &name("db1"), &early, &history(), Rung::Start),
            Plan::AwaitCheckpoint
        );
        assert_eq!(plan(&crashed, &Past::default(), &name("db1"), &early, &history(), Rung::Clone), Plan::Clone);
    }

    #[test]
    fn what_did_not_stream_climbs_the_ladder() {
        let fits = control(2, ControlState::ShutDown, 190);
        let climb = |rung| plan(&fits, &Past::default(), &name("db1"), &leader(), &history(), rung);
        assert_eq!(
            [Rung::Start, Rung::Restart, Rung::Rewind, Rung::Clone].map(climb),
            [Plan::Start, Plan::Start, Plan::Rewind, Plan::Clone]
        );
    }
}
