//! `GET /pgha`: why a member is what it is.

use serde::{Deserialize, Serialize};

use crate::name::{Epoch, NodeName};
use crate::wire::IsoTime;
use crate::wire::codec::document;

/// Why a member is what it is: what its last decision was, and on what ground it leads if it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PghaStatus {
    /// The member.
    pub name: NodeName,
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
    /// The kernel watchdog: `off`, `armed`, or what is wrong with it.
    pub watchdog: String,
}

document!(PghaStatus, "the body of /pgha", "a JSON object with `name` and `reason`");
