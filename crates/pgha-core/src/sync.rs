//! Synchronous standbys: at most one step towards the set that should be.
//!
//! The promise: whoever may take over by the `sync` znode holds every commit that was ever acknowledged. The znode names
//! standbys `V` and a quorum `q`: one of them may take over once it has found `q` others that are not ahead of it.
//! Postgres waits for `n` of a set `S`. A commit that was acknowledged is on `n` of them, so at most `|V ∪ S| − n` of `V`
//! lack it; as long as that is not more than `q`, a candidate and its `q` voters cannot all lack it. Where commits wait
//! for all of a few named standbys, `n` is `|S|` and `q` is 0: each that is recorded has everything.
//!
//! So the record and the setting change in turns, such that each fits the other before and after; and a record that says
//! more than the last one did is written only once Postgres waits, everywhere, and what was committed before has
//! arrived. (The bound is that of Patroni's `quorum.py`, without counting the leader on both sides.)

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::lsn::Lsn;
use crate::name::NodeName;
use crate::observation::{ClusterSettings, Member, Primary, Sender, SyncRecord, Synchrony};

/// Stands in `synchronous_standby_names` when commits must wait and nobody is there. No member can have this name.
const NOBODY: &str = "_pgha_no_standby_";

/// Stands first in a list, so that those after it have another priority than in a list without it. Nor can one have this.
const FIRST: &str = "_pgha_first_";

/// The next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Record and Postgres agree, and no better set is known.
    Settled,
    /// Claim the document for a new primary, or clear it.
    Claim(SyncRecord),
    /// Write the document.
    Record(SyncRecord),
    /// Change `synchronous_standby_names`.
    SetNames(String),
    /// Postgres has not taken the setting everywhere yet.
    WaitApplied,
    /// Standbys have not yet everything that was committed before they became synchronous.
    WaitCaughtUp,
}

/// What must be remembered between steps: how far the setting that Postgres has is known to have come.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Floor {
    /// Ordered while every process had the setting before it: then what they show of themselves tells whether they have
    /// this one.
    ordered: Option<String>,
    /// Seen to be applied everywhere.
    applied: Option<String>,
    /// What was committed before that, at most; read after it was seen applied.
    lsn: Option<Lsn>,
    /// The connections through which standbys have confirmed what was committed since: who has another by now may have come
    /// back with less.
    through: BTreeMap<NodeName, u64>,
}

/// What `synchronous_standby_names` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// Nothing: commits do not wait.
    Nothing,
    /// What nobody can give: commits wait for ever.
    Nobody,
    /// So many of these.
    Of(Form, usize, BTreeSet<NodeName>),
}

/// How it asks; a walsender shows which of the two it was told. Where it asks for all of them they mean the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// `2 (_pgha_first_,a,b,c)`: the first two that are connected. Priorities begin with 2.
    First,
    /// `ANY 2 (a,b,c)`, or `a`: whichever are first to answer. The priority of each is 1.
    Any,
}

impl Form {
    fn other(self) -> Self {
        match self {
            Self::First => Self::Any,
            Self::Any => Self::First,
        }
    }
}

impl Names {
    /// For these standbys; in the other form than what is shown, if Postgres waits for some of them already. A process
    /// shows in which form it has been named, but not how many it waits for: a change of that alone would not be seen.
    fn wanted(settings: &ClusterSettings, standbys: &BTreeSet<NodeName>, shown: &Self) -> Self {
        let count = match settings.synchrony {
            Synchrony::Off => return Self::Nothing,
            _ if standbys.is_empty() => return Self::without_standbys(settings),
            _ => count(settings, standbys.len()),
        };
        let form = match shown {
            Self::Of(form, n, those) if *n == count && those == standbys => *form,
            Self::Of(form, _, those) if !those.is_disjoint(standbys) => form.other(),
            _ => Form::Any,
        };
        Self::Of(form, count, standbys.clone())
    }

    /// For a primary that has no standby yet.
    pub fn without_standbys(settings: &ClusterSettings) -> Self {
        if settings.is_synchronous() && settings.strict { Self::Nobody } else { Self::Nothing }
    }

    /// The same in the other form.
    fn turned(&self) -> Self {
        match self {
            Self::Of(form, count, standbys) => Self::Of(form.other(), *count, standbys.clone()),
            plain => plain.clone(),
        }
    }

    /// As Postgres reads it.
    pub fn render(&self) -> String {
        match self {
            Self::Nothing => String::new(),
            Self::Nobody => NOBODY.to_owned(),
            Self::Of(form, count, standbys) => spell(*form, *count, standbys),
        }
    }

    /// Reads the forms that [`Self::render`] writes. Anything else is somebody else's, and taken for nothing: that fits
    /// the fewest records.
    pub fn parse(text: &str) -> Self {
        let named = |list: &str| -> Option<BTreeSet<NodeName>> {
            let quoted = |name: &str| NodeName::try_from(name.strip_prefix('"')?.strip_suffix('"')?).ok();
            list.split(',').map(|name| quoted(name.trim())).collect()
        };
        let counted = |form: Form, text: &str| -> Option<Self> {
            let (count, list) = text.split_once(" (")?;
            Some(Self::Of(form, count.parse().ok()?, named(list.strip_suffix(')')?)?))
        };
        let read = match (text, text.strip_prefix("ANY ")) {
            (NOBODY, _) => Some(Self::Nobody),
            (_, Some(rest)) => counted(Form::Any, rest),
            _ => named(text).filter(|one| one.len() == 1).map(|one| Self::Of(Form::Any, 1, one)).or_else(|| {
                let filler = format!("(\"{FIRST}\",");
                text.contains(&filler).then(|| counted(Form::First, &text.replacen(&filler, "(", 1)))?
            }),
        };
        read.unwrap_or(Self::Nothing)
    }

    /// Whether every process that takes part in the waiting has been told, as far as they show it.
    ///
    /// A query shows a setting as soon as its own backend has reloaded it. Backends wait only when the *checkpointer* has
    /// (`UpdateSharedMemoryConfig` sets `sync_standbys_defined`), and are released by *walsenders* according to their own
    /// copy (`SyncRepReleaseWaiters`). A walsender's copy shows in its `sync_priority` alone (`SyncRepInitConfig` sets it;
    /// `sync_state` is made from that and from the setting of whoever asks, `pg_stat_get_wal_senders`): 0 when it is not
    /// named, its place in a list of which the first ones are waited for, 1 in any other (`SyncRepGetStandbyPriority`).
    /// All of it in Postgres 15.
    fn applied(&self, primary: &Primary) -> bool {
        let state = |sender: &Sender| match self {
            Self::Of(form, _, standbys) if standbys.iter().any(|name| name.as_str() == sender.name) => Some(*form),
            _ => None,
        };
        primary.checkpointer_settled
            && primary.senders.iter().filter(|sender| sender.streaming).all(|sender| sender.named == state(sender))
    }
}

/// How many of so many standbys a commit waits for, where it waits.
fn count(settings: &ClusterSettings, standbys: usize) -> usize {
    match settings.synchrony {
        Synchrony::Quorum => settings.sync_count.clamp(1, standbys),
        Synchrony::Named | Synchrony::Off => standbys,
    }
}

/// See [`Form`].
fn spell(form: Form, count: usize, standbys: &BTreeSet<NodeName>) -> String {
    let mut list = String::new();
    for name in standbys {
        list.push_str(if list.is_empty() { "\"" } else { ",\"" });
        list.push_str(name.as_str());
        list.push('"');
    }
    match form {
        Form::Any if standbys.len() == 1 => list,
        Form::Any => format!("ANY {count} ({list})"),
        Form::First => format!("{count} (\"{FIRST}\",{list})"),
    }
}

/// Who may take over, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Voters {
    standbys: BTreeSet<NodeName>,
    quorum: usize,
}

impl Voters {
    /// So many votes can never be had: nobody may take over.
    fn new(standbys: BTreeSet<NodeName>, quorum: usize) -> Self {
        if quorum < standbys.len() { Self { standbys, quorum } } else { Self::default() }
    }

    /// The least quorum with which `standbys` fit what Postgres waits for.
    fn least(standbys: &BTreeSet<NodeName>, names: &Names) -> usize {
        match names {
            Names::Nothing => standbys.len(),
            // No commit is ever acknowledged.
            Names::Nobody => 0,
            Names::Of(_, count, waited_for) => {
                standbys.union(waited_for).count().saturating_sub((*count).min(waited_for.len()))
            }
        }
    }

    fn fit(&self, names: &Names) -> bool {
        self.standbys.is_empty() || Self::least(&self.standbys, names) <= self.quorum
    }

    /// A record that can follow this one at any time and fits both settings. Who is added to the voters may lack what
    /// was acknowledged before, so each raises the quorum by one; who is taken off them changes nothing.
    fn between(&self, shown: &Names, target: &Names, wanted: &BTreeSet<NodeName>) -> Self {
        let with = |standbys: BTreeSet<NodeName>| {
            let new = standbys.difference(&self.standbys).count();
            let least = Self::least(&standbys, shown).max(Self::least(&standbys, target));
            let quorum = least.max(self.quorum + new);
            Self::new(standbys, quorum)
        };
        let all = with(wanted.clone());
        if all.standbys.is_empty() { with(self.standbys.intersection(wanted).cloned().collect()) } else { all }
    }
}

/// Decides one step for the primary `me`. The `stalled` are connected, and do not confirm what there is.
pub fn step(
    me: &NodeName,
    settings: &ClusterSettings,
    record: &SyncRecord,
    primary: &Primary,
    members: &BTreeMap<NodeName, Member>,
    stalled: &BTreeSet<NodeName>,
    floor: Floor,
) -> (Step, Floor) {
    let with = |leader: Option<&NodeName>, voters: Voters| SyncRecord {
        leader: leader.cloned(),
        standbys: voters.standbys,
        quorum: voters.quorum,
        unreadable: false,
        version: record.version,
    };
    if !settings.is_synchronous() {
        let step = if record.leader.is_some() || !record.standbys.is_empty() {
            Step::Claim(with(None, Voters::default()))
        } else if primary.sync_names.is_empty() {
            Step::Settled
        } else {
            Step::SetNames(String::new())
        };
        return (step, Floor::default());
    }
    if record.leader.as_ref() != Some(me) {
        return (Step::Claim(with(Some(me), Voters::default())), Floor::default());
    }

    let wanted = wanted(settings, record, primary, members, stalled);
    if is_settled(settings, record, primary, &wanted) {
        return (Step::Settled, floor);
    }
    let wanted: BTreeSet<NodeName> = wanted.into_iter().cloned().collect();
    let shown = Names::parse(&primary.sync_names);
    let known = Voters::new(record.standbys.clone(), record.quorum);
    let recorded = |voters: Voters| Step::Record(with(Some(me), voters));
    if !known.fit(&shown) {
        // Somebody else changed the setting: Postgres does not wait for these, or for enough of them.
        return (recorded(known.between(&shown, &shown, &known.standbys)), Floor::default());
    }
    if wanted.is_empty() && settings.strict && !known.standbys.is_empty() {
        // Nothing is acknowledged without them: they go on having everything, and may take over.
        return (Step::Settled, floor);
    }
    let change = |names: &Names| {
        let value = names.render();
        let ordered = shown.applied(primary).then(|| value.clone());
        (Step::SetNames(value), Floor { ordered, ..Floor::default() })
    };
    let target = Names::wanted(settings, &wanted, &shown);
    if shown != target {
        if known.fit(&target) {
            return change(&target);
        }
        return (recorded(known.between(&shown, &target, &wanted)), floor);
    }
    let goal = Voters::new(wanted.clone(), Voters::least(&wanted, &target));
    if record.standbys == goal.standbys && record.quorum == goal.quorum {
        let turn = matches!(shown, Names::Of(Form::First, ..));
        return if turn { change(&shown.turned()) } else { (Step::Settled, floor) };
    }
    if goal.standbys.is_subset(&known.standbys) && goal.quorum >= known.quorum {
        return (recorded(goal), floor);
    }
    if !shown.applied(primary) {
        return (Step::WaitApplied, floor);
    }
    let value = Some(primary.sync_names.clone());
    if floor.applied != value {
        if floor.ordered != value {
            // They show what they would show if they had an older one.
            return change(&shown.turned());
        }
        return (Step::WaitApplied, Floor { applied: value, ..floor });
    }
    // The position is read after the setting was seen applied: an acknowledged commit that did not wait is below it. One that
    // did wait may be above, and counts on those that confirmed it: they are not on record yet, so nothing keeps them from
    // copying an older state of the data, or from having lost their disk, before they are.
    let through: BTreeMap<NodeName, u64> = (primary.senders.iter())
        .filter_map(|sender| Some((NodeName::try_from(sender.name.as_str()).ok()?, sender.connected)))
        .filter(|(name, _)| wanted.contains(name))
        .collect();
    let least = floor.lsn.filter(|_| floor.through == through).unwrap_or(primary.flushed);
    let floor = Floor { lsn: Some(least), through, ..floor };
    let has_everything = |name: &&NodeName| {
        let has_it = |sender: &Sender| sender.name == name.as_str() && sender.streaming && sender.flushed >= least;
        (known.quorum == 0 && known.standbys.contains(*name)) || primary.senders.iter().any(has_it)
    };
    let caught_up: BTreeSet<NodeName> = wanted.iter().filter(has_everything).cloned().collect();
    // Of the goal's voters no more than its quorum may lack anything.
    let next = if caught_up.len() + goal.quorum >= wanted.len() { goal } else { Voters::new(caught_up, goal.quorum) };
    if next == known || next.standbys.is_empty() {
        return (Step::WaitCaughtUp, floor);
    }
    (recorded(next), floor)
}

/// Whether record and setting are what they should be, in the form in which they come to rest: so it is nearly always, and it
/// is soon found out.
fn is_settled(
    settings: &ClusterSettings,
    record: &SyncRecord,
    primary: &Primary,
    wanted: &BTreeSet<&NodeName>,
) -> bool {
    if wanted.is_empty() || !wanted.iter().copied().eq(&record.standbys) {
        return false;
    }
    let count = count(settings, wanted.len());
    record.quorum + count == wanted.len() && primary.sync_names == spell(Form::Any, count, &record.standbys)
}

/// The standbys that should be synchronous: those that get on, by priority, then those recorded and those that Postgres waits
/// for already, if they are about as far (stability: of two such now the one is ahead and now the other), then those with most
/// WAL.
fn wanted<'a>(
    settings: &ClusterSettings,
    record: &'a SyncRecord,
    primary: &Primary,
    members: &'a BTreeMap<NodeName, Member>,
    stalled: &BTreeSet<NodeName>,
) -> BTreeSet<&'a NodeName> {
    let sender_of = |name: &NodeName, member: &Member| {
        // A member that is being copied connects too, and must not be taken for a standby.
        let streams = |sender: &&Sender| member.is_running && sender.streaming && sender.name == name.as_str();
        primary.senders.iter().find(streams)
    };
    let hands_on = |it: &Member| it.is_running && !it.is_primary && !it.nostream;
    let relays = |name: &NodeName| members.get(name).is_some_and(hands_on);
    let best = primary.senders.iter().filter(|it| it.streaming).map(|it| it.flushed).max().unwrap_or_default();
    let mut fit: Vec<_> = members
        .iter()
        // One that streams from another is here only for a while.
        .filter(|(_, member)| !member.nosync && !member.replicatefrom.as_ref().is_some_and(relays))
        .filter_map(|(name, member)| {
            let sender = sender_of(name, member)?;
            let recorded = record.standbys.contains(name);
            // Each is written in quotation marks.
            let waited_for = best.ahead_of(sender.flushed) <= settings.maximum_lag
                && primary.sync_names.split('"').any(|part| part == name.as_str());
            Some((Reverse(member.sync_priority), !recorded, !waited_for, Reverse(sender.flushed), name))
        })
        .collect();
    if let (Some(most), Some(best)) =
        (settings.maximum_lag_on_syncnode, fit.iter().map(|(_, _, _, Reverse(flushed), _)| *flushed).max())
    {
        fit.retain(|(_, _, _, Reverse(flushed), _)| best.ahead_of(*flushed) <= most);
    }
    // Commits wait in vain for those that stall: anybody else is better, for as long as there is one.
    fit.sort_by_key(|key| (stalled.contains(key.4), *key));
    let count = if settings.synchrony == Synchrony::Quorum { usize::MAX } else { settings.sync_count };
    let wanted: BTreeSet<&NodeName> = fit.into_iter().take(count).map(|(_, _, _, _, name)| name).collect();
    if wanted.is_empty() || wanted.iter().any(|name| record.standbys.contains(*name)) {
        return wanted;
    }
    // Those that give way stay until others are on record: at no time is there nobody who could take over.
    let streams = |name: &&NodeName| members.get(*name).is_some_and(|member| sender_of(name, member).is_some());
    wanted.into_iter().chain(record.standbys.iter().filter(streams)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::observation::Slots;

    fn name(text: &str) -> NodeName {
        NodeName::try_from(text).unwrap()
    }

    /// A primary whose processes take settings late, standbys that come and go, and the promise checked after every step.
    #[derive(Debug, Clone)]
    enum Event {
        Step,
        Commit,
        Checkpointer,
        Sender(usize),
        Ship(usize),
        Connect(usize),
        Disconnect(usize),
        Lose(usize),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            6 => Just(Event::Step),
            4 => Just(Event::Commit),
            2 => Just(Event::Checkpointer),
            3 => (0..3_usize).prop_map(Event::Sender),
            4 => (0..3_usize).prop_map(Event::Ship),
            3 => (0..3_usize).prop_map(Event::Connect),
            1 => (0..3_usize).prop_map(Event::Disconnect),
            1 => (0..3_usize).prop_map(Event::Lose),
        ]
    }

    /// What a walsender releases by its own copy of the setting: up to which position.
    fn released(names: &Names, of: usize, all: &[NodeName; 3], connected: [bool; 3], has: &[u64; 3]) -> Option<u64> {
        let Names::Of(form, count, standbys) = names else { return None };
        let here: Vec<usize> = (0..3).filter(|i| connected[*i] && standbys.contains(&all[*i])).collect();
        let counted = match form {
            Form::First => here.iter().take(*count).copied().collect(),
            Form::Any => here,
        };
        if counted.len() < *count || !counted.contains(&of) {
            return None;
        }
        let mut positions: Vec<u64> = counted.iter().map(|i| has[*i]).collect();
        positions.sort_unstable();
        positions.get(counted.len() - count).copied()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(6000))]
        #[test]
        fn whoever_may_take_over_has_every_acknowledged_commit(
            events in proptest::collection::vec(event(), 1..200),
            strict: bool,
            count in 1..4_usize,
            quorum: bool,
            changes_to in proptest::option::of((1..4_usize, any::<bool>())),
            stalls in proptest::collection::vec(0..8_u8, 1..6),
        ) {
            let me = name("p");
            let standbys = [name("a"), name("b"), name("c")];
            let synchrony = |quorum| if quorum { Synchrony::Quorum } else { Synchrony::Named };
            let mut settings = ClusterSettings {
                synchrony: synchrony(quorum), strict, sync_count: count, ..ClusterSettings::default()
            };
            let members: BTreeMap<_, _> = standbys.iter().map(|s| (s.clone(), Member { is_running: true, ..Member::default() })).collect();
            let mut record = SyncRecord { version: Some(0), ..SyncRecord::default() };
            let (mut shown, mut defined) = (String::new(), false);
            let mut copies: [Names; 3] = std::array::from_fn(|_| Names::Nothing);
            let (mut flushed, mut acknowledged) = (10_u64, 10_u64);
            let mut has = [10_u64; 3];
            let mut connected = [false; 3];
            let mut connections = [0_u64; 3];
            let mut floor = Floor::default();
            let half = events.len() / 2;
            for (turn, event) in events.into_iter().enumerate() {
                if let Some((count, quorum)) = changes_to.filter(|_| turn == half) {
                    settings = ClusterSettings { synchrony: synchrony(quorum), sync_count: count, ..settings };
                }
                match event {
                    Event::Commit => flushed += 1,
                    Event::Checkpointer => defined = !shown.is_empty(),
                    Event::Sender(i) => copies[i] = Names::parse(&shown),
                    Event::Ship(i) if connected[i] => has[i] = flushed,
                    Event::Connect(i) => {
                        connected[i] = true;
                        connections[i] += 1;
                        copies[i] = Names::parse(&shown);
                    }
                    Event::Disconnect(i) => connected[i] = false,
                    // A standby that was copied anew from another one, or an old backup; it must not count before it
                    // caught up.
                    Event::Lose(i) if !record.standbys.contains(&standbys[i]) => {
                        connected[i] = false;
                        let others = has.iter().copied().filter(|it| *it < has[i]).max();
                        has[i] = if turn % 2 == 0 { 10 } else { others.unwrap_or(has[i]) };
                    }
                    Event::Ship(_) | Event::Lose(_) => {}
                    Event::Step => {
                        let senders = (0..3).filter(|i| connected[*i]).map(|i| {
                            let named = match &copies[i] {
                                Names::Of(form, _, those) if those.contains(&standbys[i]) => Some(*form),
                                _ => None,
                            };
                            let (name, connected) = (standbys[i].to_string(), connections[i]);
                            Sender { name, connected, streaming: true, named, flushed: Lsn(has[i]) }
                        }).collect();
                        let primary = Primary {
                            flushed: Lsn(flushed), sync_names: shown.clone(),
                            checkpointer_settled: defined != shown.is_empty(), senders,
                            slots: Slots::default(), checkpoint_pending: false,
                        };
                        let stalls = stalls[turn % stalls.len()];
                        let stalled = (0..3).filter(|i| stalls & (1 << i) != 0).map(|i| standbys[i].clone()).collect();
                        let (step, next) = step(&me, &settings, &record, &primary, &members, &stalled, floor);
                        floor = next;
                        match step {
                            Step::Claim(new) | Step::Record(new) => record = new,
                            Step::SetNames(value) => shown = value,
                            Step::Settled | Step::WaitApplied | Step::WaitCaughtUp => {}
                        }
                    }
                }
                if defined {
                    for i in (0..3).filter(|i| connected[*i]) {
                        let end = released(&copies[i], i, &standbys, connected, &has);
                        acknowledged = acknowledged.max(end.unwrap_or(0).min(flushed));
                    }
                } else {
                    acknowledged = flushed;
                }
                let lacking = (0..3).filter(|i| record.standbys.contains(&standbys[*i]) && has[*i] < acknowledged);
                let lacking = lacking.count();
                prop_assert!(
                    record.standbys.is_empty() || lacking <= record.quorum,
                    "{record:?}: {lacking} lack some of {acknowledged}: {has:?}, {shown}"
                );
            }
        }

        /// Whatever was, record and setting come to rest at what the settings ask for.
        #[test]
        fn it_comes_to_rest(
            quorum: bool, strict: bool, count in 1..4_usize, begin in "(|\"a\"|ANY 1 \\(\"a\",\"c\"\\)|2 \\(\"_pgha_first_\",\"a\",\"b\"\\)|2 \\(\"a\",\"b\"\\)|x)",
            there in proptest::collection::btree_set(0..3_usize, 0..4), old_quorum in 0..3_usize,
            voters in proptest::collection::btree_set(0..3_usize, 0..4),
        ) {
            let me = name("p");
            let all = [name("a"), name("b"), name("c")];
            let synchrony = if quorum { Synchrony::Quorum } else { Synchrony::Named };
            let settings = ClusterSettings { synchrony, strict, sync_count: count, ..ClusterSettings::default() };
            let members: BTreeMap<_, _> = all.iter().map(|s| (s.clone(), Member { is_running: true, ..Member::default() })).collect();
            let standbys = voters.iter().map(|i| all[*i].clone()).collect();
            let mut record = SyncRecord { leader: Some(me.clone()), standbys, quorum: old_quorum, version: Some(0), unreadable: false };
            let (mut shown, mut floor) = (begin, Floor::default());
            let mut settled = false;
            for _ in 0..40 {
                let senders = there.iter().map(|i| {
                    let named = match Names::parse(&shown) {
                        Names::Of(form, _, those) if those.contains(&all[*i]) => Some(form),
                        _ => None,
                    };
                    Sender { name: all[*i].to_string(), connected: 0, streaming: true, named, flushed: Lsn(10) }
                }).collect();
                let primary = Primary {
                    flushed: Lsn(10), sync_names: shown.clone(), checkpointer_settled: true, senders,
                    slots: Slots::default(), checkpoint_pending: false,
                };
                let (step, next) = step(&me, &settings, &record, &primary, &members, &BTreeSet::new(), floor);
                floor = next;
                settled = step == Step::Settled;
                match step {
                    Step::Claim(new) | Step::Record(new) => record = new,
                    Step::SetNames(value) => shown = value,
                    Step::Settled | Step::WaitApplied | Step::WaitCaughtUp => {}
                }
            }
            prop_assert!(settled, "{record:?}, {shown}");
            let want = if quorum { there.len() } else { count.min(there.len()) };
            if !(there.is_empty() && strict) {
                prop_assert_eq!(record.standbys.len(), want, "{:?}, {}", record, shown);
            }
            prop_assert!(!quorum || there.len() < 2 || shown.starts_with("ANY"), "{shown}");
        }
    }

    /// A standby that gives way to another is struck off only when that one is on record.
    #[test]
    fn a_planned_change_leaves_no_gap() {
        let me = name("p");
        let settings = ClusterSettings { synchrony: Synchrony::Named, ..ClusterSettings::default() };
        let runs = Member { is_running: true, ..Member::default() };
        let members: BTreeMap<_, _> = [(name("a"), Member { nosync: true, ..runs.clone() }), (name("b"), runs)].into();
        let mut record = SyncRecord {
            leader: Some(me.clone()),
            standbys: [name("a")].into(),
            version: Some(0),
            ..SyncRecord::default()
        };
        let (mut shown, mut floor) = ("\"a\"".to_owned(), Floor::default());
        for _ in 0..20 {
            let named = |it: &str| match Names::parse(&shown) {
                Names::Of(form, _, those) if those.contains(&name(it)) => Some(form),
                _ => None,
            };
            let sender = |it: &str| Sender {
                name: it.into(),
                connected: 0,
                streaming: true,
                named: named(it),
                flushed: Lsn(10),
            };
            let primary = Primary {
                flushed: Lsn(10),
                sync_names: shown.clone(),
                checkpointer_settled: true,
                senders: vec![sender("a"), sender("b")],
                slots: Slots::default(),
                checkpoint_pending: false,
            };
            let (step, next) = step(&me, &settings, &record, &primary, &members, &BTreeSet::new(), floor);
            floor = next;
            match step {
                Step::Claim(new) | Step::Record(new) => record = new,
                Step::SetNames(value) => shown = value,
                Step::Settled | Step::WaitApplied | Step::WaitCaughtUp => {}
            }
            assert!(!record.standbys.is_empty(), "{shown}");
        }
        assert_eq!((record.standbys, shown.as_str()), ([name("b")].into(), "\"b\""));
    }

    /// Simulated seed 100488: it streams from the primary for good where its relay lives on the archive.
    #[test]
    fn who_has_a_relay_is_waited_for_where_that_hands_nothing_on() {
        let settings = ClusterSettings { synchrony: Synchrony::Named, ..ClusterSettings::default() };
        let primary = Primary {
            flushed: Lsn(10),
            sync_names: String::new(),
            checkpointer_settled: true,
            senders: vec![Sender { name: "a".into(), connected: 0, streaming: true, named: None, flushed: Lsn(10) }],
            slots: Slots::default(),
            checkpoint_pending: false,
        };
        let waited_for = |nostream| {
            let relay = Member { is_running: true, nostream, ..Member::default() };
            let relayed = Member { is_running: true, replicatefrom: Some(name("b")), ..Member::default() };
            let members = [(name("a"), relayed), (name("b"), relay)].into();
            let (record, stalled) = (SyncRecord::default(), BTreeSet::new());
            wanted(&settings, &record, &primary, &members, &stalled).into_iter().cloned().collect::<Vec<_>>()
        };
        assert_eq!(waited_for(true), [name("a")]);
        assert_eq!(waited_for(false), []);
    }

    #[test]
    fn without_synchronous_mode_nothing_is_recorded_and_nobody_waits() {
        let (me, settings) = (name("p"), ClusterSettings::default());
        let primary = |sync_names: &str| Primary {
            flushed: Lsn(10),
            sync_names: sync_names.to_owned(),
            checkpointer_settled: true,
            senders: vec![],
            slots: Slots::default(),
            checkpoint_pending: false,
        };
        let recorded = SyncRecord { leader: Some(me.clone()), version: Some(3), ..SyncRecord::default() };
        let empty = SyncRecord { version: Some(3), ..SyncRecord::default() };
        for (record, names, expected) in [
            (recorded, "\"a\"", Step::Claim(empty.clone())),
            (empty.clone(), "\"a\"", Step::SetNames(String::new())),
            (empty, "", Step::Settled),
        ] {
            let decided =
                step(&me, &settings, &record, &primary(names), &BTreeMap::new(), &BTreeSet::new(), Floor::default());
            assert_eq!(decided, (expected, Floor::default()));
        }
    }

    /// Two standbys have just come back to a new primary, and now the one has more WAL and now the other.
    #[test]
    fn a_choice_between_equals_stands() {
        let settings = ClusterSettings { synchrony: Synchrony::Named, ..ClusterSettings::default() };
        let (me, names) = (name("a"), [name("b"), name("c")]);
        let member = Member { is_running: true, ..Member::default() };
        let members: BTreeMap<_, _> = names.iter().map(|name| (name.clone(), member.clone())).collect();
        let record = SyncRecord { leader: Some(me.clone()), ..SyncRecord::default() };
        let mut primary = Primary {
            senders: Vec::new(),
            sync_names: String::new(),
            checkpointer_settled: false,
            checkpoint_pending: false,
            flushed: Lsn(1000),
            slots: Slots::default(),
        };
        let mut floor = Floor::default();
        let mut orders = Vec::new();
        for turn in 0..6 {
            primary.senders = (names.iter().enumerate())
                .map(|(i, name)| Sender {
                    name: name.to_string(),
                    connected: 0,
                    streaming: true,
                    flushed: Lsn(1000 + u64::from(turn % 2 == i)),
                    named: None,
                })
                .collect();
            let (step, next) = step(&me, &settings, &record, &primary, &members, &BTreeSet::new(), floor);
            floor = next;
            if let Step::SetNames(names) = step {
                primary.sync_names.clone_from(&names);
                orders.push(names);
            }
        }
        assert_eq!(orders, ["\"b\""]);
    }

    #[test]
    fn names_are_spelled_for_postgres() {
        let of = |form, count, names: &[&str]| Names::Of(form, count, names.iter().map(|it| name(it)).collect());
        for (names, text) in [
            (Names::Nothing, ""),
            (Names::Nobody, NOBODY),
            (of(Form::Any, 1, &["db-2"]), "\"db-2\""),
            (of(Form::First, 1, &["db-2"]), "1 (\"_pgha_first_\",\"db-2\")"),
            (of(Form::First, 2, &["b", "a"]), "2 (\"_pgha_first_\",\"a\",\"b\")"),
            (of(Form::Any, 1, &["b", "a"]), "ANY 1 (\"a\",\"b\")"),
        ] {
            assert_eq!(names.render(), text);
            assert_eq!(Names::parse(text), names);
        }
        assert_eq!(Names::parse("FIRST 1 (a)"), Names::Nothing);
        assert_eq!(Names::parse("2 (\"a\",\"b\")"), Names::Nothing, "its priorities are not told from those of ANY");
        assert_eq!(Names::parse("*"), Names::Nothing);
    }
}
