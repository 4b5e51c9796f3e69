//! No acknowledged write is lost while synchronous mode is on.
//!
//! Source: README, "What it promises". Who becomes able to write has everything that was acknowledged; and nobody
//! acknowledges what a newer primary does not have.

use super::Violation;
use crate::model::wal::Position;
use crate::world::World;

/// `host` has just become able to write.
pub fn check_primary(world: &mut World, host: usize) {
    if !world.scenario.settings.is_synchronous() || !world.accepts_writes(host) {
        return;
    }
    let Some(data) = &world.hosts[host].pg.data else { return };
    let lost =
        world.oracle.promised.iter().map(|(branch, lsn)| Position { branch: *branch, lsn: *lsn }).find(|promised| {
            world.wal.branch(promised.branch).system == data.system && !world.wal.contains(data.at, *promised)
        });
    if let Some(lost) = lost {
        let text = format!(
            "{} begins to write at {} of timeline {} and lacks what was acknowledged up to {} of timeline {}",
            world.names[host],
            data.at.lsn,
            world.wal.timeline(data.at.branch),
            lost.lsn,
            world.wal.timeline(lost.branch)
        );
        world.violate(Violation::new("nothing lost", text));
    }
}

/// `host` has just acknowledged what ends at `at`.
pub fn check_acknowledged(world: &mut World, host: usize, at: Position) {
    if !world.scenario.settings.is_synchronous() {
        return;
    }
    let Some(newest) = world.oracle.newest.filter(|newest| *newest != at.branch) else { return };
    if world.wal.branch(newest).system != world.wal.branch(at.branch).system {
        return;
    }
    let begun_at = Position { branch: newest, lsn: u64::MAX };
    if !world.wal.contains(begun_at, at) {
        let text = format!(
            "{} acknowledges {} of timeline {} after timeline {} had begun without it",
            world.names[host],
            at.lsn,
            world.wal.timeline(at.branch),
            world.wal.timeline(newest)
        );
        world.violate(Violation::new("nothing lost", text));
    }
}
