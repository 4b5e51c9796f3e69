//! What a decision may order. Each action carries its own guard, so that doing it late does no harm.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::lsn::{Lsn, Timeline};
use crate::name::{Epoch, NodeName, SlotName, SystemId};
use crate::observation::{PermanentSlot, SyncRecord};
use crate::time::Instant;

/// A leadership that was not renewed in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lapsed {
    /// Its `leader` znode is there, and to be deleted.
    pub held: bool,
    /// The version that `status` must still have; `None`: it must not exist, and is made.
    pub renewal: Option<i32>,
}

/// One step. The executor does them in order and stops at the first that fails; it never repeats one by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Create `leader` and raise the epoch in one transaction, if the epoch znode still has this version; where another
    /// holds `leader`, delete that in the same transaction, if the holder has not renewed its lease.
    TakeLeadership {
        /// Version of `pgha/epoch` that the decision saw; `None` creates it.
        version: Option<i32>,
        /// The new epoch.
        epoch: Epoch,
        /// Create `initialize` as well: the cluster does not exist yet.
        initialize: bool,
        /// The leadership before this one was not given back, and has lapsed if that is its newest renewal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lapsed: Option<Lapsed>,
        /// Where `pgha/epoch` is created: it gets a greater version than this, which it had before somebody deleted it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        above: Option<i32>,
    },
    /// Replace our own `leader` znode, be it of a session that is gone, under a new epoch, in one transaction.
    ReownLeadership {
        /// Version of `pgha/epoch` that the decision saw; `None` creates it.
        version: Option<i32>,
        /// The new epoch.
        epoch: Epoch,
        /// See [`Self::TakeLeadership`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        above: Option<i32>,
    },
    /// Renew the lease: write `status`, if the epoch still has this version.
    Renew {
        /// Version of `pgha/epoch`.
        version: i32,
        /// Slots of members that WAL is kept for.
        retain: BTreeSet<SlotName>,
    },
    /// Delete `leader` and mark the epoch as given back, if it still has this version.
    ReleaseLeadership {
        /// Version of `pgha/epoch`.
        version: i32,
    },
    /// Write `initialize`, and `config` if there is none, if the epoch still has this version.
    RecordCluster {
        /// Version of `pgha/epoch`.
        version: i32,
        /// Identity of the cluster.
        system_id: SystemId,
    },
    /// Write `sync`, if the epoch and the document still have these versions (`record.version`).
    WriteSync {
        /// Version of `pgha/epoch`.
        version: i32,
        /// The new content, and the version that the decision saw.
        record: SyncRecord,
    },
    /// Record that a promotion will begin this timeline, if the epoch still has this version.
    ReserveTimeline {
        /// Version of `pgha/epoch`.
        version: i32,
        /// The number.
        timeline: Timeline,
    },
    /// Write the members that may lead to `failsafe`, if the epoch and the document still have these versions.
    WriteFailsafe {
        /// Version of `pgha/epoch`.
        version: i32,
        /// Version of `failsafe` that the decision saw; `None` creates it.
        failsafe: Option<i32>,
        /// Who may lead from here on; nobody is barred when it is empty.
        members: BTreeSet<NodeName>,
    },
    /// Ask these members, all of them, not to lead. If every one gives its word, the lease is counted from the asking.
    RenewByPromise {
        /// The leadership.
        epoch: Epoch,
        /// Every other member that might lead.
        members: BTreeSet<NodeName>,
    },
    /// Bring `history` up to date from the timeline history of the local Postgres.
    WriteHistory {
        /// Version of `pgha/epoch`.
        version: i32,
    },
    /// Empty `failover`.
    ClearFailover {
        /// Version of `pgha/epoch`.
        version: i32,
        /// Version of `failover` that the decision saw.
        failover: i32,
    },
    /// Ask these members how far they are.
    AskPeers(BTreeSet<NodeName>),

    /// Kill Postgres at once: SIGQUIT, then SIGKILL. Fails unless no process of it is left.
    Fence,
    /// Tell the guard that Postgres no longer accepts writes.
    ForgetLease,
    /// `initdb`; as a job.
    Bootstrap,
    /// Create the roles that members need, or bring them up to date; as a job.
    Prepare,
    /// Start the postmaster; as a job.
    Start(StartAs),
    /// Stop the postmaster cleanly; as a job.
    Stop {
        /// Write a checkpoint first, while serving, so that the stop is short.
        checkpoint: bool,
    },
    /// Promote; as a job.
    Promote {
        /// The leadership under which it happens.
        epoch: Epoch,
        /// Not begun after this instant.
        not_after: Instant,
        /// The timeline that it begins; numbers below it are made to look used.
        timeline: Timeline,
    },
    /// Stream from another member, or from nobody; a reload.
    Follow(Option<NodeName>),
    /// Set `synchronous_standby_names`; a reload.
    SetSyncNames(String),
    /// Create the physical slots that members will stream through.
    CreateSlots(BTreeSet<SlotName>),
    /// Create permanent logical slots, each in its database with its plugin; in the background.
    CreateLogicalSlots(BTreeMap<SlotName, PermanentSlot>),
    /// Move permanent slots of a standby on to where the leader's are; in the background.
    AdvanceSlots(BTreeMap<SlotName, Lsn>),
    /// Copy these logical slots from this member, while Postgres is stopped; as a job, which leaves it stopped.
    CopySlots(NodeName, BTreeSet<SlotName>),
    /// Drop the slots of members that stream from elsewhere or are away: unused slots keep WAL for ever.
    DropSlots(BTreeSet<SlotName>),
    /// Write a checkpoint so that `pg_rewind` on others sees the new timeline; in the background.
    Checkpoint,
    /// `pg_rewind` against this member; as a job.
    Rewind(NodeName),
    /// A fresh copy from the archive or from this member; as a job.
    Clone(NodeName),
    /// Remove the data directory that a fresh copy replaced.
    RemoveOldData,
    /// Give up the slow action under way.
    CancelJob,

    /// Arm the kernel watchdog.
    ArmWatchdog,
    /// Disarm it.
    DisarmWatchdog,
    /// End the process: the shutdown is complete.
    Exit,
}

/// How to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartAs {
    /// As the primary it was, on the same timeline.
    Primary {
        /// The leadership under which it happens.
        epoch: Epoch,
        /// Not begun after this instant.
        not_after: Instant,
    },
    /// Read-only, streaming from this member, or from nobody.
    Standby(Option<NodeName>),
}
