//! Synchronous standbys: at most one step towards the set that should be.
//!
//! The promise: a standby named in the `sync` znode holds every commit that was ever acknowledged. So it is recorded
//! only once Postgres waits for it and it has what was committed before, and struck off before Postgres stops waiting.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::lsn::Lsn;
use crate::name::NodeName;
use crate::observation::{ClusterSettings, Member, Primary, SyncRecord};

/// Stands in `synchronous_standby_names` when commits must wait and nobody is there. No member can have this name.
const NOBODY: &str = "_pgha_no_standby_";

/// The next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Record and Postgres agree, and no better set is known.
    Settled,
    /// Claim the document for a new primary, or clear it.
    Claim(SyncRecord),
    /// Strike standbys off the document.
    Remove(SyncRecord, BTreeSet<NodeName>),
    /// Add standbys to the document.
    Add(SyncRecord, BTreeSet<NodeName>),
    /// Change `synchronous_standby_names`.
    SetNames(String),
    /// Postgres has not taken the setting everywhere yet.
    WaitApplied,
    /// A standby has not yet everything that was committed before it became synchronous.
    WaitCaughtUp,
}

/// What must be remembered between steps: since when Postgres waits for the names it has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Floor {
    /// The value of `synchronous_standby_names` that was seen applied.
    names: Option<String>,
    /// What was committed before it, at most; read after it was seen applied.
    lsn: Option<Lsn>,
}

/// The value of `synchronous_standby_names` that makes commits wait for all of `standbys`.
pub fn names(standbys: &BTreeSet<NodeName>, strict: bool) -> String {
    let quoted: Vec<String> = standbys.iter().map(|name| format!("\"{name}\"")).collect();
    match quoted.as_slice() {
        [] if strict => NOBODY.to_owned(),
        [] => String::new(),
        [one] => one.clone(),
        many => format!("{} ({})", many.len(), many.join(",")),
    }
}

/// Decides one step for the primary `me`.
pub fn step(
    me: &NodeName,
    settings: &ClusterSettings,
    record: &SyncRecord,
    primary: &Primary,
    members: &BTreeMap<NodeName, Member>,
    floor: &Floor,
) -> (Step, Floor) {
    let with = |leader: Option<&NodeName>, standbys: BTreeSet<NodeName>| SyncRecord {
        leader: leader.cloned(),
        standbys,
        unreadable: false,
        version: record.version,
    };
    if !settings.synchronous {
        let step = if record.leader.is_some() || !record.standbys.is_empty() {
            Step::Claim(with(None, BTreeSet::new()))
        } else if primary.sync_names.is_empty() {
            Step::Settled
        } else {
            Step::SetNames(String::new())
        };
        return (step, Floor::default());
    }
    if record.leader.as_ref() != Some(me) {
        return (Step::Claim(with(Some(me), BTreeSet::new())), Floor::default());
    }

    let wanted = wanted(settings, record, primary, members);
    let gone: BTreeSet<_> = record.standbys.difference(&wanted).cloned().collect();
    if !gone.is_empty() {
        let left = record.standbys.intersection(&wanted).cloned().collect();
        return (Step::Remove(with(Some(me), left), gone), floor.clone());
    }
    let value = names(&wanted, settings.strict);
    if primary.sync_names != value {
        // Somebody else changed the setting: Postgres no longer waits for these.
        let unnamed: BTreeSet<_> = record
            .standbys
            .iter()
            .filter(|name| !primary.sync_names.contains(&format!("\"{name}\"")))
            .cloned()
            .collect();
        if !unnamed.is_empty() {
            let left = record.standbys.difference(&unnamed).cloned().collect();
            return (Step::Remove(with(Some(me), left), unnamed), Floor::default());
        }
        return (Step::SetNames(value), Floor::default());
    }
    let new: BTreeSet<_> = wanted.difference(&record.standbys).cloned().collect();
    if new.is_empty() {
        return (Step::Settled, floor.clone());
    }
    if !applied(&wanted, primary) {
        return (Step::WaitApplied, Floor::default());
    }
    // The position is read after the setting was seen applied: an acknowledged commit that did not wait is below it.
    let floor = if floor.names.as_ref() == Some(&value) {
        Floor { names: Some(value), lsn: Some(floor.lsn.unwrap_or(primary.flushed)) }
    } else {
        return (Step::WaitApplied, Floor { names: Some(value), lsn: None });
    };
    let caught_up: BTreeSet<_> = new
        .into_iter()
        .filter(|name| {
            primary.senders.iter().any(|sender| {
                sender.name == name.as_str()
                    && sender.streaming
                    && sender.waited_for
                    && floor.lsn.is_some_and(|least| sender.flushed >= least)
            })
        })
        .collect();
    if caught_up.is_empty() {
        return (Step::WaitCaughtUp, floor);
    }
    let all = record.standbys.union(&caught_up).cloned().collect();
    (Step::Add(with(Some(me), all), caught_up), floor)
}

/// The standbys that should be synchronous: by priority, then those recorded (stability), then those with most WAL.
fn wanted(
    settings: &ClusterSettings,
    record: &SyncRecord,
    primary: &Primary,
    members: &BTreeMap<NodeName, Member>,
) -> BTreeSet<NodeName> {
    let mut fit: Vec<_> = members
        .iter()
        // A member that is being copied connects too, and must not be taken for a standby.
        .filter(|(_, member)| !member.nosync && member.is_running)
        .filter_map(|(name, member)| {
            let sender = primary.senders.iter().find(|sender| sender.streaming && sender.name == name.as_str())?;
            let recorded = record.standbys.contains(name);
            Some((Reverse(member.sync_priority), !recorded, Reverse(sender.flushed), name))
        })
        .collect();
    if let (Some(most), Some(best)) =
        (settings.maximum_lag_on_syncnode, fit.iter().map(|(_, _, Reverse(flushed), _)| *flushed).max())
    {
        fit.retain(|(_, _, Reverse(flushed), _)| best.ahead_of(*flushed) <= most);
    }
    fit.sort();
    fit.into_iter().take(settings.sync_count).map(|(_, _, _, name)| name.clone()).collect()
}

/// Whether every process that takes part in the waiting has taken the setting.
///
/// A query shows a setting as soon as its own backend has reloaded it. Backends wait only when the *checkpointer* has
/// (`UpdateSharedMemoryConfig` sets `sync_standbys_defined`), and are released by *walsenders* according to their own
/// copy (`SyncRepReleaseWaiters`); Postgres 15, `syncrep.c`. A walsender's copy shows in its `sync_state`.
fn applied(wanted: &BTreeSet<NodeName>, primary: &Primary) -> bool {
    primary.checkpointer_settled
        && primary
            .senders
            .iter()
            .filter(|sender| sender.streaming)
            .all(|sender| sender.counted == wanted.iter().any(|name| name.as_str() == sender.name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::observation::Sender;

    fn name(text: &str) -> NodeName {
        NodeName::try_from(text).unwrap()
    }

    /// A primary that takes settings late, standbys that come and go, and the promise checked after every step.
    #[derive(Debug, Clone)]
    enum Event {
        Step,
        Commit,
        Apply,
        Ship(usize),
        Connect(usize),
        Disconnect(usize),
        Lose(usize),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => Just(Event::Step),
            3 => Just(Event::Commit),
            2 => Just(Event::Apply),
            3 => (0..3_usize).prop_map(Event::Ship),
            2 => (0..3_usize).prop_map(Event::Connect),
            1 => (0..3_usize).prop_map(Event::Disconnect),
            1 => (0..3_usize).prop_map(Event::Lose),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn recorded_standbys_have_every_acknowledged_commit(
            events in proptest::collection::vec(event(), 1..120),
            strict: bool,
            count in 1..3_usize,
        ) {
            let me = name("p");
            let standbys = [name("a"), name("b"), name("c")];
            let settings = ClusterSettings { synchronous: true, strict, sync_count: count, ..ClusterSettings::default() };
            let members: BTreeMap<_, _> = standbys.iter().map(|s| (s.clone(), Member { is_running: true, ..Member::default() })).collect();
            let mut record = SyncRecord { version: Some(0), ..SyncRecord::default() };
            let (mut shown, mut effective) = (String::new(), String::new());
            let (mut flushed, mut acknowledged) = (10_u64, 10_u64);
            let mut has = [10_u64; 3];
            let mut connected = [false; 3];
            let mut floor = Floor::default();
            for event in events {
                match event {
                    Event::Commit => flushed += 1,
                    Event::Apply => effective.clone_from(&shown),
                    Event::Ship(i) if connected[i] => has[i] = flushed,
                    Event::Connect(i) => connected[i] = true,
                    Event::Disconnect(i) => connected[i] = false,
                    // A standby that was copied anew from an old backup; it must not count before it caught up.
                    Event::Lose(i) if !record.standbys.contains(&standbys[i]) => { connected[i] = false; has[i] = 10 }
                    Event::Ship(_) | Event::Lose(_) => {}
                    Event::Step => {
                        let settled = effective == shown;
                        let senders = (0..3).filter(|i| connected[*i]).map(|i| {
                            let named = effective.contains(&format!("\"{}\"", standbys[i]));
                            Sender {
                                name: standbys[i].to_string(), streaming: true, counted: named, waited_for: named,
                                flushed: Lsn(has[i]),
                            }
                        }).collect();
                        let primary = Primary {
                            flushed: Lsn(flushed), sync_names: shown.clone(), checkpointer_settled: settled, senders,
                            slots: BTreeSet::new(), checkpoint_pending: false,
                        };
                        let (step, next) = step(&me, &settings, &record, &primary, &members, &floor);
                        floor = next;
                        match step {
                            Step::Claim(new) | Step::Remove(new, _) | Step::Add(new, _) => record = new,
                            Step::SetNames(value) => shown = value,
                            Step::Settled | Step::WaitApplied | Step::WaitCaughtUp => {}
                        }
                    }
                }
                // Postgres acknowledges what all named standbys have; everything, when none is named.
                let named: Vec<usize> = (0..3).filter(|i| effective.contains(&format!("\"{}\"", standbys[*i]))).collect();
                let blocked = effective == NOBODY || named.iter().any(|i| !connected[*i]);
                if !blocked {
                    let least = named.iter().map(|i| has[*i]).min().unwrap_or(flushed);
                    acknowledged = acknowledged.max(least.min(flushed));
                }
                for standby in &record.standbys {
                    let i = standbys.iter().position(|s| s == standby).unwrap();
                    prop_assert!(has[i] >= acknowledged, "{standby} is recorded with {} of {acknowledged}", has[i]);
                }
            }
        }
    }

    #[test]
    fn names_are_spelled_for_postgres() {
        assert_eq!(names(&BTreeSet::new(), false), "");
        assert_eq!(names(&BTreeSet::new(), true), NOBODY);
        assert_eq!(names(&BTreeSet::from([name("db-2")]), false), "\"db-2\"");
        assert_eq!(names(&BTreeSet::from([name("b"), name("a")]), false), "2 (\"a\",\"b\")");
    }
}
