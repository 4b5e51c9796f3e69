//! Everything a decision may depend on, gathered by the agent at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::lease::Lease;
use crate::lsn::{Lsn, Timeline, TimelineHistory};
use crate::name::{Epoch, NodeName, SlotName, SystemId};
use crate::pulse::Pulse;
use crate::sync::Form;
use crate::time::{Instant, Millis};

/// The world as one member sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// When it was seen.
    pub now: Instant,
    /// The cluster's state in ZooKeeper.
    pub dcs: Dcs,
    /// The lease, from acknowledged writes only.
    pub lease: Option<Lease>,
    /// The local Postgres.
    pub postgres: Postgres,
    /// What the data directory has been through.
    pub past: Past,
    /// The slow action under way, if any.
    pub job: Option<RunningJob>,
    /// The slow action that ended since the last decision.
    pub ended: Option<EndedJob>,
    /// What the other members answered when last asked.
    pub peers: Option<PeerAnswers>,
    /// The kernel watchdog.
    pub watchdog: Watchdog,
    /// The guard process is watching the lease.
    pub guard_alive: bool,
    /// What an operator or the system asked of this member.
    pub request: Option<Request>,
    /// The disk under the data directory.
    #[serde(default)]
    pub disk: Disk,
    /// When the agent first ran after the host (or its container) was started; what was promised before is forgotten.
    #[serde(default)]
    pub up_since: Instant,
    /// Another host that has announced itself under this member's name: where its agent should answer.
    pub namesake: Option<String>,
    /// This member's word to a primary that cannot reach ZooKeeper.
    pub promise: Option<Promise>,
    /// The newest sign of life of whoever leads.
    #[serde(default)]
    pub pulse: Option<Pulse>,
}

impl Observation {
    /// Whether a client could get a write acknowledged by the local Postgres now or in a moment.
    pub fn may_accept_writes(&self) -> bool {
        // A promotion that an earlier agent began goes on in Postgres until that is stopped.
        let promoting = self.lease.is_some_and(|lease| self.past.led_in == Some(lease.epoch));
        self.job.is_some_and(|job| job.writes)
            || match &self.postgres {
                Postgres::Running(running) => matches!(running.role, Role::Primary(_)) || promoting,
                Postgres::Starting { as_primary, .. } => *as_primary,
                Postgres::Mute { was_primary, .. } => *was_primary,
                Postgres::NoData | Postgres::Unusable(_) | Postgres::Stopped(_) => false,
            }
    }
}

/// ZooKeeper, as far as it answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dcs {
    /// Read just now, over a connected session.
    Seen(Arc<Cluster>),
    /// No answer; nothing may be written.
    Silent {
        /// When it last answered (or when the agent started).
        since: Instant,
    },
}

/// The znodes of the cluster.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Cluster {
    /// The leadership on record.
    pub epoch: EpochRecord,
    /// Who holds the `leader` znode.
    pub leader: Option<Leader>,
    /// How far the making of the cluster has come.
    pub initialize: Initialize,
    /// Cluster-wide settings; `None` before the first leader wrote them.
    pub config: Option<ClusterSettings>,
    /// Those are what this member knew last: somebody has deleted their znode.
    #[serde(default)]
    pub config_lost: bool,
    /// The synchronous standbys on record.
    pub sync: SyncRecord,
    /// A switchover or failover that somebody asked for.
    pub failover: Option<FailoverRequest>,
    /// The members that may lead, where failsafe mode is or was on.
    pub failsafe: FailsafeRecord,
    /// The members that are alive.
    pub members: BTreeMap<NodeName, Member>,
    /// Slots of members, of those that are away too, that the leader keeps WAL for.
    pub retained_slots: BTreeSet<SlotName>,
    /// How far the leader's slots were when it last renewed.
    pub slot_positions: BTreeMap<SlotName, Lsn>,
    /// The timeline that these positions are on.
    #[serde(default)]
    pub positions_on: Option<Timeline>,
    /// WAL position of the leader when it last renewed.
    pub optime: Lsn,
    /// The timelines of the cluster, and who began each.
    pub history: History,
}

impl Cluster {
    /// What a leader on `timeline` that finds `positions` says of its slots. Who is on record stays bound to what it has
    /// confirmed, also while it is away, or back with less.
    pub fn positions_from(
        &self,
        timeline: Timeline,
        positions: impl IntoIterator<Item = (SlotName, Lsn)>,
    ) -> BTreeMap<SlotName, Lsn> {
        let recorded = self.sync.standbys.iter().filter(|_| self.positions_on == Some(timeline)).map(NodeName::slot);
        let bound = recorded.filter_map(|slot| self.slot_positions.get(&slot).map(|position| (slot, *position)));
        let mut furthest = BTreeMap::<SlotName, Lsn>::new();
        for (slot, position) in positions.into_iter().chain(bound) {
            let known = furthest.entry(slot).or_insert(position);
            *known = position.max(*known);
        }
        furthest
    }

    /// What a member had confirmed to the leader, or as the leader had flushed, by the last renewal, where its WAL, which ends
    /// at `position` of `timeline`, lacks more than `torn` bytes of that. What it has flushed it does not lose, unless its disk
    /// was replaced, or its host restored from a copy: its word is worth nothing before it has caught up again.
    pub fn lacks(&self, member: &NodeName, timeline: Timeline, position: Lsn, torn: u64) -> Option<Lsn> {
        let confirmed = *self.slot_positions.iter().find(|(slot, _)| member.owns(slot))?.1;
        let same = self.positions_on.is_some_and(|on| timeline <= on);
        (same && confirmed.ahead_of(position) > torn).then_some(confirmed)
    }
}

/// Content and version of `pgha/epoch`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EpochRecord {
    /// The newest leadership's number; 0 before the first.
    pub epoch: Epoch,
    /// Whose leadership it is.
    pub leader: Option<NodeName>,
    /// It was given back. Where `leader` is gone without that, its holder's lease may still run.
    pub released: bool,
    /// Version of the znode; `None` if it does not exist.
    pub version: Option<i32>,
}

/// Owner of the `leader` znode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// Its name.
    pub name: NodeName,
    /// The znode belongs to the session of the process that looks.
    pub is_my_session: bool,
}

/// The `initialize` znode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Initialize {
    /// No cluster yet.
    #[default]
    Absent,
    /// Somebody is making it.
    Begun,
    /// The cluster exists.
    Done(SystemId),
}

/// Settings of the whole cluster, from the `config` znode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterSettings {
    /// Whether commits wait for standbys, and for which.
    pub synchrony: Synchrony,
    /// They wait even when there is none.
    pub strict: bool,
    /// How many standbys a commit waits for.
    pub sync_count: usize,
    /// A standby that is this much further behind than the best one is not synchronous; `None`: however far it is.
    pub maximum_lag_on_syncnode: Option<u64>,
    /// See [`crate::config::Bootstrap::maximum_lag_on_failover`].
    pub maximum_lag: u64,
    /// The slot of a member that is away for longer is dropped: WAL kept for it would fill the disk.
    pub member_slots_ttl: Millis,
    /// A primary that crashed may take so long to come back before another takes over.
    pub primary_start_timeout: Millis,
    /// A primary that shall stop may take so long before it is killed; only where commits wait. `None`: as long as it
    /// takes.
    pub primary_stop_timeout: Option<Millis>,
    /// Slots that are there whoever leads.
    pub permanent_slots: BTreeMap<SlotName, PermanentSlot>,
    /// No automatic failover, start or stop.
    pub paused: bool,
    /// A primary without ZooKeeper goes on for as long as every member that might lead promises not to.
    pub failsafe: bool,
}

/// Whether commits wait for standbys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Synchrony {
    /// They do not.
    #[default]
    Off,
    /// Each waits for all of a few named ones: any of these may take over.
    Named,
    /// Each waits for so many of all that there are: who takes over must have seen enough of the others.
    Quorum,
}

impl ClusterSettings {
    /// What holds before anybody has written any.
    pub const UNWRITTEN: Self = Self {
        synchrony: Synchrony::Off,
        strict: false,
        sync_count: 1,
        maximum_lag_on_syncnode: None,
        maximum_lag: 1 << 20,
        member_slots_ttl: Millis::from_secs(1800),
        primary_start_timeout: Millis::from_secs(300),
        primary_stop_timeout: None,
        permanent_slots: BTreeMap::new(),
        paused: false,
        failsafe: false,
    };

    /// Commits wait for standbys.
    pub fn is_synchronous(&self) -> bool {
        self.synchrony != Synchrony::Off
    }
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self::UNWRITTEN
    }
}

/// Content and version of the `sync` znode.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SyncRecord {
    /// The primary that wrote it.
    pub leader: Option<NodeName>,
    /// Standbys that hold every acknowledged commit; with a quorum, that have a vote.
    pub standbys: BTreeSet<NodeName>,
    /// A standby may take over once so many of the others are not ahead of it.
    pub quorum: usize,
    /// There is a record, but it cannot be read: nothing may be concluded from its emptiness.
    pub unreadable: bool,
    /// Version of the znode; `None` if it does not exist.
    pub version: Option<i32>,
}

/// The `failover` znode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverRequest {
    /// The primary that shall step down; absent in a plain failover.
    pub leader: Option<NodeName>,
    /// Who shall take over; anybody fit when absent.
    pub candidate: Option<NodeName>,
    /// It is not yet time (a scheduled switchover).
    pub later: bool,
    /// Version of the znode.
    pub version: i32,
}

/// Content and version of the `failsafe` znode: written by leaders only, under their epoch.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FailsafeRecord {
    /// Where it is not empty, nobody else may lead.
    pub members: BTreeSet<NodeName>,
    /// There is a record, but it cannot be read: nothing may be concluded from its emptiness.
    pub unreadable: bool,
    /// Version of the znode; `None` if it does not exist.
    pub version: Option<i32>,
}

/// The word of a member not to lead for a while, given to a primary that cannot reach ZooKeeper.
///
/// It outlives the agent that gave it, as the lease does, but not the host; see [`crate::decide`] for a host that has
/// just booted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// The primary that asked.
    pub to: NodeName,
    /// Its leadership.
    pub epoch: Epoch,
    /// A whole `ttl` after it was given.
    pub until: Instant,
}

impl Promise {
    /// Whether it binds at `now`.
    pub fn holds(&self, now: Instant) -> bool {
        now < self.until
    }
}

/// A member's own znode, as far as decisions need it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Member {
    /// It says that it runs as primary.
    pub is_primary: bool,
    /// Its Postgres answers queries.
    pub is_running: bool,
    /// Its timeline.
    pub timeline: Option<Timeline>,
    /// As primary it has not yet written the checkpoint that `pg_rewind` needs to see its timeline.
    pub checkpoint_pending: bool,
    /// Tag `nofailover`.
    pub nofailover: bool,
    /// Tag `nosync`.
    pub nosync: bool,
    /// Tag `failover_priority`.
    pub failover_priority: u32,
    /// Tag `sync_priority`.
    pub sync_priority: u32,
    /// Tag `replicatefrom`: the member that it streams from in place of the leader.
    pub replicatefrom: Option<NodeName>,
    /// Tag `nostream`: it lives on the archive alone.
    pub nostream: bool,
    /// Nothing about it keeps it from leading: no tag, no broken disk, no missing watchdog.
    pub can_lead: bool,
    /// Tag `clonefrom`: new members are copied from it rather than from the leader.
    pub clonefrom: bool,
}

impl Default for Member {
    fn default() -> Self {
        Self {
            is_primary: false,
            is_running: false,
            timeline: None,
            checkpoint_pending: false,
            nofailover: false,
            nosync: false,
            failover_priority: 1,
            sync_priority: 1,
            replicatefrom: None,
            nostream: false,
            can_lead: true,
            clonefrom: false,
        }
    }
}

/// The `history` and `pgha/timelines` znodes: the cluster's timeline, its ancestry, and how each timeline began.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// The timeline of the newest primary that has recorded it; `None` while there is no record but the ancestry.
    pub newest: Option<Timeline>,
    /// The highest number that was ever given to a promotion; `None` where the record is lost, or was never made by an earlier
    /// version.
    pub reserved: Option<Timeline>,
    /// Where each old timeline ended.
    pub switches: TimelineHistory,
    /// The member that began the timeline.
    pub begun_by: BTreeMap<Timeline, NodeName>,
}

/// More attempts than these to promote somebody are not forgotten at once.
const FORGOTTEN: u32 = 8;

impl History {
    /// The number for a promotion of a member that is on `timeline`: one that nobody has begun, or may have.
    pub fn next_timeline(&self, timeline: Timeline) -> Timeline {
        let known = timeline.max(self.timeline());
        let taken = match self.reserved {
            Some(reserved) => known.max(reserved).0,
            // Somebody has deleted the record, or made it garbage, perhaps just after a promotion that nobody else knows of.
            None => known.0.saturating_add(FORGOTTEN),
        };
        Timeline(taken.saturating_add(1))
    }

    /// The cluster's timeline, as far as the documents know.
    pub fn timeline(&self) -> Timeline {
        let follows = |parent: Timeline| Timeline(parent.0.saturating_add(1));
        self.newest.unwrap_or_else(|| self.switches.0.last().map_or(Timeline(1), |switch| follows(switch.parent)))
    }
}

/// The local Postgres.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Postgres {
    /// No data directory, or an empty one.
    NoData,
    /// A data directory that cannot be used; the text says why.
    Unusable(String),
    /// A data directory at rest.
    Stopped(Control),
    /// A postmaster that does not accept connections yet.
    Starting {
        /// When it was first seen.
        since: Instant,
        /// It starts as a primary.
        as_primary: bool,
        /// The end of the segment that recovery waits for; `None` while it has one, or does not say.
        #[serde(default)]
        awaits: Option<Lsn>,
    },
    /// A postmaster that answers.
    Running(Box<Running>),
    /// A postmaster that accepted connections before and does not answer now.
    Mute {
        /// When it last answered.
        since: Instant,
        /// It was a primary then.
        was_primary: bool,
    },
}

/// What `pg_controldata` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// The cluster's identity.
    pub system_id: SystemId,
    /// Timeline of the newest checkpoint, or of the minimum recovery point where that is newer.
    pub timeline: Timeline,
    /// How it ended.
    pub state: ControlState,
    /// Start of the newest checkpoint record.
    pub checkpoint: Lsn,
    /// A standby must replay up to here to be consistent.
    pub min_recovery_end: Lsn,
    /// `standby.signal` is there.
    pub standby_signal: bool,
    /// `backup_label` is there: a copy, or a rewound directory, that has not been started yet.
    pub backup_label: bool,
}

/// `Database cluster state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlState {
    /// Was a primary, and was shut down cleanly.
    ShutDown,
    /// Was a standby, and was shut down cleanly.
    ShutDownInRecovery,
    /// Was a primary, and was not shut down cleanly.
    InProduction,
    /// Was a standby, and was not shut down cleanly.
    InArchiveRecovery,
    /// Anything else: it stopped while shutting down, starting up or recovering from a crash.
    Other,
}

/// A Postgres that answers queries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The cluster's identity.
    pub system_id: SystemId,
    /// Its timeline.
    pub timeline: Timeline,
    /// What it is.
    pub role: Role,
}

/// What a running Postgres is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Accepts writes.
    Primary(Primary),
    /// Replays.
    Standby(Standby),
}

/// A running primary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Primary {
    /// End of the flushed WAL.
    pub flushed: Lsn,
    /// `synchronous_standby_names`, as a fresh query shows it.
    pub sync_names: String,
    /// The checkpointer, which switches waiting on and off for all backends, has nothing else to do than obey.
    pub checkpointer_settled: bool,
    /// Connected standbys.
    pub senders: Vec<Sender>,
    /// Its replication slots.
    pub slots: Slots,
    /// No checkpoint has been completed on this timeline yet.
    pub checkpoint_pending: bool,
}

/// The replication slots of a server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Slots {
    /// Physical ones.
    pub physical: BTreeMap<SlotName, Slot>,
    /// Logical ones. A standby of Postgres 15 has none but those that its member has copied from a primary.
    pub logical: BTreeMap<SlotName, Slot>,
}

/// A replication slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Slot {
    /// Somebody streams through it.
    pub active: bool,
    /// It is of no use any more (its WAL is gone), or it holds up vacuum of a primary that knows nothing of its consumer.
    pub spoilt: bool,
    /// `confirmed_flush_lsn` of a logical one, `restart_lsn` of a physical one: what lies before is not needed any more.
    pub position: Lsn,
}

impl Slots {
    /// Whether there is one of that name, of whatever kind.
    pub fn has(&self, name: &SlotName) -> bool {
        self.physical.contains_key(name) || self.logical.contains_key(name)
    }

    /// Physical ones that nobody streams through.
    pub fn idle(&self) -> impl Iterator<Item = &SlotName> {
        self.physical.iter().filter(|(_, slot)| !slot.active).map(|(name, _)| name)
    }
}

/// A slot that is there whoever leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PermanentSlot {
    /// For a receiver of WAL.
    Physical,
    /// For a consumer of changes.
    Logical {
        /// The database whose changes they are.
        database: String,
        /// The output plugin.
        plugin: String,
    },
}

/// A row of `pg_stat_replication`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    /// `application_name`.
    pub name: String,
    /// `backend_start` in microseconds: who comes back has another.
    #[serde(default)]
    pub connected: u64,
    /// `state = 'streaming'`.
    pub streaming: bool,
    /// How the walsender itself finds its standby named: `sync_state` is `sync` or `potential`, `quorum`, or `async`.
    pub named: Option<Form>,
    /// `flush_lsn`.
    pub flushed: Lsn,
}

/// A running standby.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standby {
    /// End of the WAL received and flushed.
    pub received: Lsn,
    /// End of the WAL replayed.
    pub replayed: Lsn,
    /// What it has received and replayed is all the WAL that it has. Not so while it replays what it had before it was
    /// started: `received` is nothing then.
    pub complete: bool,
    /// The walreceiver is connected.
    pub streaming: bool,
    /// The member it is configured to stream from.
    pub upstream: Option<NodeName>,
    /// Whether it may get WAL from anybody.
    #[serde(default)]
    pub tie: Tie,
    /// Its replication slots.
    pub slots: Slots,
    /// It has come onto a timeline that its control file does not show yet.
    pub checkpoint_pending: bool,
    /// Somebody has paused the replay.
    pub paused: bool,
}

/// What ties a standby to whom it streams from.
///
/// Only the startup process starts walreceivers, by its own copy of `primary_conninfo`. It takes the setting when it waits
/// for WAL, but not while it runs `restore_command` (`WaitForWALToBecomeAvailable`, Postgres 15); a query shows its own copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tie {
    /// `primary_conninfo` names somebody, or a walreceiver is there.
    #[default]
    Bound,
    /// Neither is the case, but the startup process is at work: it may not know yet.
    Loose,
    /// Neither is the case, and the startup process waits for WAL.
    Free,
}

impl Standby {
    /// All the WAL that it could be promoted with.
    pub fn position(&self) -> Lsn {
        self.received.max(self.replayed)
    }
}

/// What this data directory has been through, kept across restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Past {
    /// The last timeline that this member began by a promotion.
    pub promoted_to: Option<Timeline>,
    /// The last timeline that it gave the order to begin; nobody may have been there to see what came of that.
    pub promoting_to: Option<Timeline>,
    /// The leadership under which it last accepted writes.
    pub led_in: Option<Epoch>,
    /// This member made its data itself, for a cluster that it has not seen recorded: nobody can have relied on it.
    pub unrecorded: bool,
    /// `pg_rewind` was begun and never finished.
    pub rewind_unfinished: bool,
    /// What a copy leaves behind is still there: the data directory that it replaced, or its own beginning.
    pub old_data_kept: bool,
}

/// A slow action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// `initdb`.
    Bootstrap,
    /// The roles that members need, in a cluster that is not recorded yet.
    Prepare,
    /// Start of the postmaster.
    Start,
    /// Checkpoint, then a clean stop.
    Stop,
    /// Promotion.
    Promote,
    /// `pg_rewind`.
    Rewind,
    /// A fresh copy.
    Clone,
    /// Logical slots are copied from the leader, while Postgres is stopped.
    CopySlots,
}

/// A slow action under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningJob {
    /// What.
    pub kind: JobKind,
    /// Since when.
    pub since: Instant,
    /// It ends with a Postgres that accepts writes.
    pub writes: bool,
}

/// A slow action that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedJob {
    /// What.
    pub kind: JobKind,
    /// How.
    pub outcome: Outcome,
}

/// How a slow action ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As intended.
    Done,
    /// It may work later: the source was not reachable, the action was cancelled, ….
    Failed(String),
    /// It cannot work: the next rung of the ladder is due.
    Impossible(String),
}

/// Answers of the other members.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PeerAnswers {
    /// When they were asked.
    pub asked: Instant,
    /// Position of each that answered.
    pub positions: BTreeMap<NodeName, PeerPosition>,
    /// Those that were asked and did not.
    #[serde(default)]
    pub silent: BTreeSet<NodeName>,
}

impl PeerAnswers {
    /// Whether it was asked, with or without an answer.
    pub fn covers(&self, name: &NodeName) -> bool {
        self.positions.contains_key(name) || self.silent.contains(name)
    }
}

/// How far a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerPosition {
    /// Its timeline.
    pub timeline: Timeline,
    /// End of the WAL it has.
    pub position: Lsn,
    /// There is no more WAL than this on its disk.
    pub complete: bool,
    /// When it looked, at the earliest; on the clock of who asked.
    pub looked: Instant,
    /// It had left whom it streamed from, for good.
    #[serde(default)]
    pub detached: bool,
    /// Nothing keeps it from leading but others.
    pub can_lead: bool,
}

/// The disk under the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disk {
    /// It takes writes.
    #[default]
    Sound,
    /// No space is left.
    Full,
    /// It takes no writes at all: mounted read-only, or failing.
    ReadOnly,
    /// A write has not come back for a whole `ttl`.
    Hung,
}

impl std::fmt::Display for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sound => "is sound",
            Self::Full => "is full",
            Self::ReadOnly => "takes no writes",
            Self::Hung => "does not answer",
        })
    }
}

/// The kernel watchdog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Watchdog {
    /// Configured off.
    Off,
    /// There is none, or it cannot be used.
    Unusable,
    /// Can be armed.
    Ready,
    /// Armed: without a pet the host resets.
    Armed,
}

/// What was asked of this member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// The service shall stop, and Postgres with it.
    Shutdown,
    /// Throw the data directory away and copy it anew.
    Reinitialize,
    /// Stop and start Postgres.
    Restart,
}
