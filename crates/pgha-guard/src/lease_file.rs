//! The lease as the guard sees it, and as a restarted agent finds it: one small file under `/run`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use pgha_core::decide::Electorate;
use pgha_core::lease::Lease;
use pgha_core::name::NodeName;
use pgha_core::time::Instant;
use serde::{Deserialize, Serialize};

use crate::files;
use crate::postmaster::Postmaster;

/// A lease, and when to fence if it is not renewed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The lease.
    pub lease: Lease,
    /// From here on Postgres must be stopped.
    pub fence_at: Instant,
    /// Which process that is, should its data directory not say so any more.
    pub postmaster: Option<Postmaster>,
    /// Whom this leader needs in failsafe mode: an agent that is restarted while ZooKeeper is silent cannot ask there.
    #[serde(default, skip_serializing_if = "Electorate::is_empty")]
    pub electorate: Electorate,
    /// Where their agents are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub addresses: BTreeMap<NodeName, String>,
}

impl Record {
    /// Whether this was written before the host was started, in a directory that has survived that: its times are not of this
    /// clock.
    pub fn is_of_another_boot(&self, now: Instant) -> bool {
        self.lease.sent > now
    }
}

/// Where the record is kept. `/run` does not survive a reboot, and neither does the clock that it is written in.
#[derive(Debug, Clone)]
pub struct LeaseFile {
    path: PathBuf,
}

impl LeaseFile {
    /// That of the agent which keeps its state in `run_dir`.
    pub fn in_dir(run_dir: &Path) -> Self {
        Self { path: run_dir.join("lease.json") }
    }

    /// Writes the record; the guard sees it at its next look.
    pub fn write(&self, record: &Record) -> io::Result<()> {
        files::replace(&self.path, &serde_json::to_vec(record)?)
    }

    /// The record; `None` where there is none. One that cannot be read is an error, and the guard takes it for over.
    pub fn read(&self) -> io::Result<Option<Record>> {
        match std::fs::read(&self.path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Postgres accepts no writes any more: nothing is left to guard.
    pub fn forget(&self) -> io::Result<()> {
        files::remove(&self.path)
    }
}
