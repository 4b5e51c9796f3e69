//! `GET /pgha/discarded`: what a member had written and the cluster had not, when it came back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::lsn::{Lsn, Timeline};
use crate::wire::codec::document;

/// All that a member has put into quarantine and read, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiscardedList(pub Vec<Discarded>);

document!(DiscardedList, "the body of /pgha/discarded", "a JSON array of objects with `quarantine` and `timeline`");

/// What was beyond the point at which one history parted from the cluster's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discarded {
    /// The directory on the member's host that keeps the WAL.
    pub quarantine: String,
    /// It still does; not where it was deleted to make room for that of later partings.
    #[serde(default = "kept")]
    pub kept: bool,
    /// The timeline that went on without the cluster.
    pub timeline: Timeline,
    /// The first position that nobody else has.
    pub from: Lsn,
    /// Where the last record begins that could be read; `None`: there was none.
    pub last: Option<Lsn>,
    /// Committed transactions. In synchronous mode no client was told of them.
    pub committed: u64,
    /// Transactions that were neither committed nor rolled back.
    pub unfinished: u64,
    /// Rows that the committed ones inserted, updated or deleted, by table.
    pub tables: BTreeMap<String, u64>,
    /// The first of the committed ones.
    pub transactions: Vec<DiscardedTransaction>,
}

const fn kept() -> bool {
    true
}

document!(Discarded, "a list of discarded transactions", "a JSON object with `quarantine` and `timeline`");

/// A committed transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscardedTransaction {
    /// Its number.
    pub xid: u32,
    /// When it was committed, by the clock of the host and in the words of Postgres.
    pub at: String,
    /// Rows that it inserted, updated or deleted, by table.
    pub tables: BTreeMap<String, u64>,
}
