//! `GET /pgha`: why a member is what it is.

use serde::{Deserialize, Serialize};

use crate::lsn::{Lsn, Timeline};
use crate::name::{Epoch, NodeName};
use crate::wire::IsoTime;
use crate::wire::codec::document;

/// Why a member is what it is: what its last decision was, and on what ground it leads if it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PghaStatus {
    /// The member.
    pub name: NodeName,
    /// The version of its agent.
    #[serde(default)]
    pub version: Option<String>,
    /// The reason of its last decision, in one sentence.
    pub reason: String,
    /// The same, as a word that does not change between versions.
    pub code: String,
    /// Since when the reason has been this one.
    pub since: IsoTime,
    /// The newest leadership it knows of.
    pub epoch: Option<Epoch>,
    /// For a leader: how long its lease still holds, in milliseconds.
    pub lease_ms: Option<u64>,
    /// The kernel watchdog: `off`, `ready`, `armed`, or what is wrong with it.
    pub watchdog: String,
    /// Its timeline.
    #[serde(default)]
    pub timeline: Option<Timeline>,
    /// End of the WAL that it has.
    #[serde(default)]
    pub position: Option<Lsn>,
    /// There is no more WAL than this on its disk: a standby that has just started replays what it had before.
    #[serde(default)]
    pub position_complete: bool,
    /// It has left whom it streamed from: nothing more than this will be confirmed to that one.
    #[serde(default)]
    pub detached: bool,
    /// How long ago it looked, in milliseconds.
    #[serde(default)]
    pub looked_ms_ago: Option<u64>,
    /// Nothing about the member itself keeps it from leading.
    #[serde(default)]
    pub can_lead: bool,
    /// Whom it has promised not to lead, and for how many milliseconds it still is bound (failsafe mode).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promised: Option<(NodeName, u64)>,
}

document!(PghaStatus, "the body of /pgha", "a JSON object with `name` and `reason`");
