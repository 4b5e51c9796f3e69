//! What people do to znodes by hand, past every agent.

use std::collections::BTreeMap;

use pgha_core::lsn::{Lsn, Timeline};
use pgha_core::name::NodeName;
use pgha_core::observation::{EpochRecord, FailsafeRecord, History, SyncRecord};

use super::{Tree, next_version};

/// Documents that are gone, or garbage; what agents make of those is what `pgha-agent/src/dcs/snapshot.rs` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// `leader` is deleted.
    Leader,
    /// `pgha/epoch` is deleted.
    Epoch,
    /// All of `pgha/` is deleted.
    Subtree,
    /// `status` is deleted.
    Status,
    /// `sync` is garbage.
    Sync,
    /// `failsafe` is garbage.
    Failsafe,
    /// `pgha/timelines` is garbage.
    Timelines,
}

impl Tree {
    /// With the damage done; `None` where there is nothing that could be damaged.
    pub fn damaged(&self, damage: Damage) -> Option<Self> {
        let seen = &*self.cluster;
        let mut next = self.successor();
        match damage {
            Damage::Leader => {
                self.leader?;
                next.is_vacated();
            }
            Damage::Epoch => {
                seen.epoch.version?;
                next.documents().epoch = EpochRecord::default();
            }
            Damage::Subtree => {
                seen.epoch.version?;
                next.documents().epoch = EpochRecord::default();
                next.documents().history = without_timelines(&seen.history);
                next.history_version = None;
            }
            Damage::Status => {
                self.renewal?;
                next.renewal = None;
                let cluster = next.documents();
                (cluster.optime, cluster.positions_on) = (Lsn(0), None);
                cluster.slot_positions.clear();
                cluster.retained_slots.clear();
            }
            Damage::Sync => {
                let version = Some(next_version(Some(seen.sync.version?)));
                next.documents().sync = SyncRecord { unreadable: true, version, ..SyncRecord::default() };
            }
            Damage::Failsafe => {
                let version = Some(next_version(Some(seen.failsafe.version?)));
                next.documents().failsafe = FailsafeRecord { unreadable: true, version, ..FailsafeRecord::default() };
            }
            Damage::Timelines => {
                next.history_version = Some(next_version(Some(self.history_version?)));
                next.documents().history = without_timelines(&seen.history);
            }
        }
        Some(next)
    }

    /// With the record of who may lead in failsafe mode that was there before.
    #[must_use]
    pub fn with_failsafe(&self, record: &FailsafeRecord) -> Self {
        let version = self.cluster.failsafe.version;
        let mut next = self.successor();
        next.documents().failsafe = FailsafeRecord { version: Some(next_version(version)), ..record.clone() };
        next
    }

    /// With the record of synchronous standbys that was there before.
    #[must_use]
    pub fn with_sync(&self, record: &SyncRecord) -> Self {
        let version = self.cluster.sync.version;
        let mut next = self.successor();
        next.documents().sync = SyncRecord { version: Some(next_version(version)), ..record.clone() };
        next
    }
}

/// What `history` alone tells: who began a timeline is guessed.
fn without_timelines(known: &History) -> History {
    let followed_by = known.switches.0.iter().skip(1).map(|switch| switch.parent).chain([known.timeline()]);
    let begun_by: BTreeMap<Timeline, NodeName> = known
        .switches
        .0
        .iter()
        .zip(followed_by)
        .filter_map(|(switch, child)| Some((Timeline(switch.parent.0 + 1), known.begun_by.get(&child)?.clone())))
        .collect();
    History { newest: None, reserved: None, switches: known.switches.clone(), begun_by }
}
