//! No two members extend one timeline.
//!
//! Source: Patroni pull request 2787: twins of one number look like one history to Postgres and to `pg_rewind`.
//!
//! Numbers that nobody knows of any more, because people have deleted the record, may be given again; who began one of them
//! is copied anew when it comes back.
//!
//! A host that stood still between the order to promote and its carrying out may follow the next leader's timeline first, and
//! then take the number after that. It is fenced at once, and nobody else has what it began, which is copied over when it
//! comes back: by its own record it was to begin another.

use super::Violation;
use crate::model::wal::BranchId;
use crate::world::World;

/// `branch` has just been begun by the Postgres of `host`.
pub fn check(world: &mut World, host: usize, branch: BranchId) {
    if world.zk.committed.leader.is_none_or(|(leader, _)| leader != host) {
        world.oracle.late.push(branch);
        return;
    }
    let begun = world.wal.branch(branch);
    if begun.timeline <= world.aside.forgotten {
        return;
    }
    let twin = (0..branch)
        .filter(|id| !world.oracle.late.contains(id))
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
