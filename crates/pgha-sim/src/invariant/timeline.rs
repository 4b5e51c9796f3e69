//! No two members extend one timeline.
//!
//! Source: Patroni pull request 2787: twins of one number look like one history to Postgres and to `pg_rewind`.
//!
//! A host that stood still since it gave the order to promote may go on when another leads, and find its number used in the
//! archive: Postgres takes the next one, which the next leader reserves. It is fenced at once; what it began is copied over
//! when it comes back, and nobody else has it.

use super::Violation;
use crate::model::wal::BranchId;
use crate::world::World;

/// `branch` has just been begun by the Postgres of `host`.
pub fn check(world: &mut World, host: usize, branch: BranchId) {
    let former = world.zk.committed.leader.is_none_or(|(leader, _)| leader != host);
    if former {
        world.late_promotions.push(branch);
    }
    let begun = world.wal.branch(branch);
    let twin = (0..branch)
        .filter(|id| !world.late_promotions.contains(id))
        .map(|id| world.wal.branch(id))
        .find(|other| !former && other.timeline == begun.timeline && other.system == begun.system);
    if let Some(twin) = twin {
        let text = format!(
            "{} and {} have both begun timeline {}",
            world.names[twin.begun_by], world.names[begun.begun_by], begun.timeline
        );
        world.violate(Violation::new("one timeline", text));
    }
}
