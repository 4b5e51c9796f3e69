//! No two members extend one timeline.
//!
//! Source: Patroni pull request 2787: twins of one number look like one history to Postgres and to `pg_rewind`.
//!
//! Numbers that nobody knows of any more, because people have deleted the record, may be given again; who began one of them
//! is copied anew when it comes back.

use super::Violation;
use crate::model::wal::BranchId;
use crate::world::World;

/// `branch` has just been begun.
pub fn check(world: &mut World, branch: BranchId) {
    let begun = world.wal.branch(branch);
    let twin = (world.aside.numbers..branch)
        .map(|id| world.wal.branch(id))
        .find(|other| other.timeline == begun.timeline && other.system == begun.system);
    if let Some(twin) = twin {
        let text = format!(
            "{} and {} have both begun timeline {}",
            world.names[twin.begun_by], world.names[begun.begun_by], begun.timeline
        );
        world.violate(Violation::new("one timeline", text));
    }
}
