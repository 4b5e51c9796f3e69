//! The write-ahead log as it really is: a tree. Postgres knows its parts only by numbers, which two of them may share.

use pgha_core::lsn::{Lsn, Switch, Timeline, TimelineHistory};
use pgha_core::name::SystemId;

/// A branch of the tree: what one member wrote after one promotion (or after `initdb`).
pub type BranchId = u16;

/// A place in the tree. Everything from the root to here is in the data of whoever is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// On this branch.
    pub branch: BranchId,
    /// Up to here.
    pub lsn: u64,
}

/// How a branch began.
#[derive(Debug, Clone)]
pub struct Branch {
    /// Its number, as Postgres counts.
    pub timeline: Timeline,
    /// Where it left its parent; `None` at the root of a cluster.
    pub parent: Option<Position>,
    /// Identity of the cluster.
    pub system: SystemId,
    /// The member that began it.
    pub begun_by: usize,
}

/// All that was ever written.
#[derive(Debug, Default)]
pub struct Wal {
    branches: Vec<Branch>,
}

/// Where WAL of a new cluster begins.
pub const FIRST: u64 = 100;

impl Wal {
    /// A new cluster.
    pub fn initdb(&mut self, begun_by: usize) -> Position {
        let system = SystemId(1000 + self.branches.len() as u64);
        self.push(Branch { timeline: Timeline(1), parent: None, system, begun_by }, FIRST)
    }

    /// A promotion at `end`. `newest` is the highest timeline that the promoted member knows to be used.
    pub fn promote(&mut self, end: Position, newest: Timeline, begun_by: usize) -> Position {
        let system = self.branch(end.branch).system;
        let timeline = Timeline(self.branch(end.branch).timeline.0.max(newest.0) + 1);
        self.push(Branch { timeline, parent: Some(end), system, begun_by }, end.lsn)
    }

    fn push(&mut self, branch: Branch, lsn: u64) -> Position {
        self.branches.push(branch);
        Position { branch: u16::try_from(self.branches.len() - 1).unwrap_or(u16::MAX), lsn }
    }

    /// One branch.
    pub fn branch(&self, id: BranchId) -> &Branch {
        &self.branches[usize::from(id)]
    }

    /// Number of a branch.
    pub fn timeline(&self, id: BranchId) -> Timeline {
        self.branch(id).timeline
    }

    /// Whether data at `later` holds everything that data at `earlier` holds.
    pub fn contains(&self, later: Position, earlier: Position) -> bool {
        let mut at = later;
        loop {
            if at.branch == earlier.branch {
                return earlier.lsn <= at.lsn;
            }
            match self.branch(at.branch).parent {
                Some(parent) => at = parent,
                None => return false,
            }
        }
    }

    /// How much of `branch` data at `at` holds.
    pub fn common(&self, at: Position, branch: BranchId) -> Option<u64> {
        let mut at = at;
        loop {
            if at.branch == branch {
                return Some(at.lsn);
            }
            at = self.branch(at.branch).parent?;
        }
    }

    /// How far data at `one` and at `other` is the same; `None` where it is of different clusters.
    pub fn shared(&self, one: Position, other: Position) -> Option<u64> {
        let mut at = other;
        loop {
            if let Some(end) = self.common(one, at.branch) {
                return Some(end.min(at.lsn));
            }
            at = self.branch(at.branch).parent?;
        }
    }

    /// The place that is `lsn` on the way to `branch`: on an ancestor where it lies before the branch began.
    pub fn on_the_way(&self, branch: BranchId, lsn: u64) -> Position {
        let mut at = branch;
        while let Some(parent) = self.branch(at).parent.filter(|parent| lsn <= parent.lsn) {
            at = parent.branch;
        }
        Position { branch: at, lsn }
    }

    /// The content of the branch's `.history` file.
    pub fn history(&self, id: BranchId) -> TimelineHistory {
        let mut switches = Vec::new();
        let mut at = self.branch(id);
        while let Some(parent) = at.parent {
            let switch =
                Switch { parent: self.timeline(parent.branch), switched_at: Lsn(parent.lsn), reason: String::new() };
            switches.push(switch);
            at = self.branch(parent.branch);
        }
        switches.reverse();
        TimelineHistory(switches)
    }

    /// What a primary at `source` says to a standby at `standby` that wants to stream: numbers are all that it compares
    /// (`StartReplication` in Postgres 15).
    pub fn accepts(&self, source: Position, standby: Position) -> bool {
        let (theirs, mine) = (self.timeline(standby.branch), self.timeline(source.branch));
        if self.branch(source.branch).system != self.branch(standby.branch).system {
            return false;
        }
        if theirs == mine {
            return standby.lsn <= source.lsn;
        }
        self.history(source.branch).end_of(theirs).is_some_and(|end| standby.lsn <= end.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twins_look_alike_and_are_not() {
        let mut wal = Wal::default();
        let root = wal.initdb(0);
        let here = Position { lsn: root.lsn + 10, ..root };
        let one = wal.promote(here, Timeline(1), 1);
        let other = wal.promote(here, Timeline(1), 2);
        assert_eq!(wal.timeline(one.branch), wal.timeline(other.branch));
        let (one, other) = (Position { lsn: one.lsn + 5, ..one }, Position { lsn: other.lsn + 9, ..other });
        assert!(wal.accepts(other, one) && !wal.contains(other, one));
        assert!(wal.contains(one, here) && wal.contains(other, here));
        assert_eq!(wal.shared(one, other), Some(here.lsn));
        assert_eq!(wal.shared(other, Position { lsn: root.lsn + 3, ..root }), Some(root.lsn + 3));
        assert_eq!(wal.history(one.branch), wal.history(other.branch));
    }

    #[test]
    fn who_went_past_the_switch_is_refused() {
        let mut wal = Wal::default();
        let root = wal.initdb(0);
        let switch = Position { lsn: root.lsn + 10, ..root };
        let next = wal.promote(switch, Timeline(1), 1);
        assert!(wal.accepts(next, switch));
        assert!(!wal.accepts(next, Position { lsn: switch.lsn + 1, ..switch }));
    }
}
