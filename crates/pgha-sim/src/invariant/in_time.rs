//! Nothing that makes a Postgres writable begins without a lease that holds.
//!
//! Source: DESIGN, the safety argument, 5: a candidate promotes only while its own lease holds.

use super::Violation;
use crate::world::World;

/// `host` is about to promote, or to start as a primary.
pub fn check(world: &mut World, host: usize, what: &str) {
    let now = world.clock(host);
    if world.hosts[host].lease_file.as_ref().is_none_or(|record| record.fence_at <= now) {
        let text = format!("{} {what} without a lease that holds", world.names[host]);
        world.violate(Violation::new("in time", text));
    }
}
