//! Postgres: a data directory, and perhaps a server that runs on it.
//!
//! `synchronous_standby_names` is taken at different times by the query that shows it, by the checkpointer, which
//! switches the waiting of commits on and off, and by each walsender, which releases the waiting (`syncrep.c`).

use std::collections::{BTreeSet, VecDeque};

use pgha_core::lsn::{Lsn, Timeline};
use pgha_core::name::{NodeName, SystemId};
use pgha_core::observation::{Control, ControlState, Past};
use pgha_core::sync::Form;

use super::slots::Slots;
use super::wal::{Position, Wal};
use crate::time::Time;

/// `wal_keep_size`.
const KEEP: u64 = 3000;

/// What is on disk.
#[derive(Debug, Clone)]
pub struct Data {
    /// End of the WAL.
    pub at: Position,
    /// Identity of the cluster.
    pub system: SystemId,
    /// `pg_control`: how it ended.
    pub state: ControlState,
    /// `pg_control`: timeline of the newest checkpoint.
    pub checkpoint_timeline: Timeline,
    /// `pg_control`: how far a standby must replay, and on which timeline. It follows the replay when pages are written.
    pub recovered: (Timeline, u64),
    /// `pg_control`: where the newest checkpoint began.
    pub checkpoint: u64,
    /// Where replay would begin: at the newest checkpoint or restartpoint, whatever started it.
    pub redo: u64,
    /// The beginning of the WAL that is there.
    pub kept: u64,
    /// Its replication slots.
    pub slots: Slots,
    /// `standby.signal`.
    pub standby_signal: bool,
    /// `backup_label`.
    pub backup_label: bool,
    /// An unfinished `pg_rewind` has left it half one thing and half another.
    pub damaged: bool,
    /// Recovery does not get through it.
    pub broken: Option<Breakage>,
}

/// What comes of recovery with data that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breakage {
    /// Postgres ends.
    Ends,
    /// It waits for WAL that will never come.
    Hangs,
}

impl Data {
    /// As `initdb` leaves it.
    pub fn initdb(at: Position, wal: &Wal) -> Self {
        Self {
            at,
            system: wal.branch(at.branch).system,
            state: ControlState::ShutDown,
            checkpoint_timeline: Timeline(1),
            recovered: (Timeline(0), 0),
            checkpoint: at.lsn - 1,
            redo: at.lsn - 1,
            kept: 0,
            slots: Slots::default(),
            standby_signal: false,
            backup_label: false,
            damaged: false,
            broken: None,
        }
    }

    /// A restartpoint, or a clean end of recovery: the control file catches up with the replay.
    pub fn catch_up(&mut self, wal: &Wal) {
        self.recovered = (wal.timeline(self.at.branch), self.at.lsn);
    }

    /// What a checkpoint or restartpoint does about WAL and slots, where WAL is archived up to there.
    pub fn checkpointed(&mut self, archived: u64) {
        let end = self.at.lsn;
        self.redo = end;
        let needed = self.slots.checkpoint(end).min(end.saturating_sub(KEEP)).min(archived);
        self.kept = self.kept.max(needed);
    }

    /// As `pg_controldata` tells it.
    pub fn control(&self) -> Control {
        Control {
            system_id: self.system,
            timeline: self.checkpoint_timeline.max(self.recovered.0),
            state: self.state,
            checkpoint: Lsn(self.checkpoint),
            min_recovery_end: Lsn(self.recovered.1),
            standby_signal: self.standby_signal,
            backup_label: self.backup_label,
        }
    }
}

/// `synchronous_standby_names`, as parsed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SyncNames {
    /// As it is shown.
    pub text: String,
    /// The members that it names.
    pub set: BTreeSet<usize>,
    /// How many of them a commit waits for.
    pub count: usize,
    /// `ANY`: whichever answer first, not the first in the list.
    pub any: bool,
}

impl SyncNames {
    /// Reads the forms that the core writes.
    pub fn parse(text: &str, names: &[NodeName]) -> Self {
        let set: BTreeSet<usize> = names
            .iter()
            .enumerate()
            .filter(|(_, name)| text.contains(&format!("\"{name}\"")))
            .map(|(i, _)| i)
            .collect();
        // With a filler in front, the first so many; else whichever.
        let any = !text.contains("_pgha_first_");
        let digits: String = text.trim_start_matches("ANY ").chars().take_while(char::is_ascii_digit).collect();
        let count = digits.parse().unwrap_or(1);
        Self { text: text.to_owned(), set, count, any }
    }

    /// Whether commits wait at all.
    pub fn is_defined(&self) -> bool {
        !self.text.is_empty()
    }

    /// How the priority of `member`'s walsender shows that it has this copy.
    pub fn form_for(&self, member: usize) -> Option<Form> {
        self.set.contains(&member).then_some(if self.any { Form::Any } else { Form::First })
    }
}

/// A walsender of a primary.
#[derive(Debug, Clone, Default)]
pub struct Sender {
    /// When the standby connected; see [`pgha_core::observation::Sender::connected`].
    pub connected: u64,
    /// The end of WAL that the standby has confirmed.
    pub flushed: u64,
    /// Its own copy of the setting.
    pub names: SyncNames,
    /// It has caught up since it connected.
    pub streaming: bool,
    /// The primary's end when it connected.
    pub behind: u64,
}

/// A commit that waits for standbys.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    /// Its end.
    pub lsn: u64,
    /// Which write it is.
    pub write: u32,
}

/// How far a server has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It takes no connections yet.
    Starting,
    /// It answers.
    Running,
    /// It finishes: no new connections.
    Stopping,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// Tells one start from another.
    pub number: u32,
    /// When it was started.
    pub since: Time,
    /// When it began to answer.
    pub ready: Time,
    /// How far it is.
    pub life: Life,
    /// It accepts writes (or will, once it runs).
    pub primary: bool,
    /// A promotion was asked for, and numbers below this one are made to look used.
    pub promoting: Option<Timeline>,
    /// `SIGSTOP`, or a disk that hangs.
    pub stuck_until: Time,
    /// Dies then: a signal is on its way.
    pub dying: bool,
    /// A standby that was just started replays what it had before until then, and shows only how far that has come.
    pub replays_until: Time,
    /// `primary_conninfo`, as a query shows it.
    pub upstream: Option<usize>,
    /// `primary_conninfo`, as the startup process knows it.
    pub follows: Option<usize>,
    /// The startup process runs `restore_command`, and hears nothing, until then.
    pub restores_until: Time,
    /// When it last found more in the archive.
    pub restored: Time,
    /// The walreceiver's connection: which member, which start of its server.
    pub receiver: Option<(usize, u32)>,
    /// When the connection last carried something.
    pub heard: Time,
    /// Walsenders by member.
    pub senders: Vec<Option<Sender>>,
    /// When each last confirmed something.
    pub confirmed: Vec<Time>,
    /// When the last walsender of each ended, and what was confirmed to it.
    pub left: Vec<Option<(Time, u64)>>,
    /// The setting as a query shows it.
    pub shown: SyncNames,
    /// The setting as the checkpointer knows it.
    pub defined: bool,
    /// Counts changes of the setting.
    pub setting: u32,
    /// Since when the checkpointer has been busy with a change.
    pub settling: bool,
    /// Commits that wait.
    pub waiting: VecDeque<Waiting>,
    /// A checkpoint or restartpoint is due then.
    pub checkpoint_due: Time,
    /// The end of the segments that were full at the last look.
    pub full: u64,
}

impl Server {
    /// One that has just been started.
    pub fn new(number: u32, since: Time, primary: bool, upstream: Option<usize>, members: usize) -> Self {
        Self {
            number,
            since,
            ready: since,
            life: Life::Starting,
            primary,
            promoting: None,
            stuck_until: Time(0),
            dying: false,
            replays_until: since,
            upstream,
            follows: upstream,
            restores_until: since,
            restored: Time(0),
            receiver: None,
            heard: since,
            senders: vec![None; members],
            confirmed: vec![since; members],
            left: vec![None; members],
            shown: SyncNames::default(),
            defined: false,
            setting: 0,
            settling: false,
            waiting: VecDeque::new(),
            checkpoint_due: since,
            full: 0,
        }
    }

    /// How far a standby on `data` shows that it has replayed.
    pub fn replayed(&self, data: &Data, now: Time) -> u64 {
        let complete = self.receiver.is_some() || self.replays_until <= now;
        if complete { data.at.lsn } else { data.recovered.1.max(data.checkpoint).min(data.at.lsn) }
    }

    /// Whether it can take a write now.
    pub fn writable(&self) -> bool {
        self.primary && self.life == Life::Running
    }

    /// The end up to which the walsender of `member` may release commits, by its own copy of the setting
    /// (`SyncRepGetSyncRecPtr`).
    pub fn released_by(&self, member: usize) -> Option<u64> {
        let names = &self.senders[member].as_ref()?.names;
        // Those that count: with `ANY` all that are connected, else the first so many.
        let most = if names.any { usize::MAX } else { names.count };
        let here = || names.set.iter().filter_map(|other| Some((*other, self.senders.get(*other)?.as_ref()?.flushed)));
        let counted = || here().take(most);
        if !counted().any(|(other, _)| other == member) {
            return None;
        }
        let enough = |end: &u64| counted().filter(|(_, flushed)| flushed >= end).count() >= names.count;
        counted().map(|(_, flushed)| flushed).filter(enough).max()
    }
}

/// The Postgres of one member.
#[derive(Debug, Default)]
pub struct Postgres {
    /// The data directory.
    pub data: Option<Data>,
    /// The data directory that a copy replaced.
    pub old: Option<Data>,
    /// What the agent noted of it.
    pub past: Past,
    /// The server.
    pub server: Option<Server>,
    /// Counts starts.
    pub starts: u32,
    /// The setting as it stands in the configuration file.
    pub configured: String,
}
