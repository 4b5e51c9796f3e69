//! The archive of WAL: whole segments and the histories of timelines, put there by primaries and never taken away.

use std::collections::BTreeMap;

use pgha_core::lsn::Timeline;

use super::wal::{BranchId, Position, Wal};

/// Length of a segment.
const SEGMENT: u64 = 1000;

/// The archive.
#[derive(Debug, Default)]
pub struct Archive {
    /// The timelines whose histories are there; of those that came to nothing there are only marks.
    histories: BTreeMap<u32, Option<BranchId>>,
    /// How far the segments of a branch go; those of its ancestors are there before them.
    ends: BTreeMap<BranchId, u64>,
}

impl Archive {
    /// The end of the newest segment that is full.
    pub fn full(lsn: u64) -> u64 {
        lsn / SEGMENT * SEGMENT
    }

    /// A history comes. What is there stays.
    pub fn add_history(&mut self, timeline: Timeline, branch: BranchId) {
        self.histories.entry(timeline.0).or_insert(Some(branch));
    }

    /// A primary's archiver is at `end` of its branch. Before it came, with the first segment, what its parents left: their
    /// segments, their histories, and marks for the numbers that were skipped.
    pub fn add(&mut self, wal: &Wal, branch: BranchId, end: u64) {
        let known = self.ends.insert(branch, end);
        if known.is_some() {
            return;
        }
        let mut at = branch;
        while let Some(parent) = wal.branch(at).parent {
            self.add_history(wal.timeline(at), at);
            for skipped in wal.timeline(parent.branch).0 + 1..wal.timeline(at).0 {
                self.histories.entry(skipped).or_insert(None);
            }
            at = parent.branch;
        }
    }

    /// The highest timeline in sequence that is used: `findNewestTimeLine` looks for one history after the other.
    pub fn newest(&self, from: Timeline) -> Timeline {
        let mut newest = from;
        while self.histories.contains_key(&(newest.0 + 1)) {
            newest = Timeline(newest.0 + 1);
        }
        newest
    }

    /// How much of the way to a branch is here.
    pub fn end(&self, wal: &Wal, branch: BranchId) -> u64 {
        let known = |branch| self.ends.get(&branch).copied().unwrap_or(0);
        let mut end = known(branch);
        let mut at = branch;
        while let Some(parent) = wal.branch(at).parent {
            end = end.max(known(parent.branch).min(parent.lsn));
            at = parent.branch;
        }
        end
    }

    /// How far data at `at` gets with what is here. It follows the newest timeline, if that is one of its own future
    /// (`rescanLatestTimeLine`).
    pub fn replayed(&self, wal: &Wal, at: Position) -> Position {
        let newest = self.newest(wal.timeline(at.branch));
        let target = self.histories.get(&newest.0).copied().flatten();
        let follows = |branch: &BranchId| wal.contains(Position { branch: *branch, lsn: u64::MAX }, at);
        let branch = target.filter(follows).unwrap_or(at.branch);
        let end = self.end(wal, branch);
        if end > at.lsn { wal.on_the_way(branch, end) } else { at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_is_followed_once_its_history_is_there_and_it_has_not_parted() {
        let (mut wal, mut archive) = (Wal::default(), Archive::default());
        let root = wal.initdb(0);
        let at = |lsn| Position { lsn, ..root };
        archive.add(&wal, root.branch, 2000);
        let next = wal.promote(at(2500), Timeline(2), 1);
        assert_eq!(archive.replayed(&wal, at(1500)), at(2000));
        archive.add(&wal, next.branch, 4000);
        assert_eq!(archive.replayed(&wal, at(1500)), Position { lsn: 4000, ..next });
        assert_eq!(archive.replayed(&wal, at(2600)), at(2600));
        assert_eq!(archive.newest(Timeline(1)), Timeline(3));
    }
}
