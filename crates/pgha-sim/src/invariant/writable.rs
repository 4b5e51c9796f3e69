//! At most one member can acknowledge a write at any instant.
//!
//! Source: the definition of a primary. A member that stands still cannot; that it cannot when it goes on either is
//! [`super::fenced`] and [`super::kept`].

use super::Violation;
use crate::world::World;

/// After a member has become able to.
pub fn check(world: &mut World, host: usize) {
    if !world.accepts_writes(host) {
        return;
    }
    let system = |host: usize| world.hosts[host].pg.data.as_ref().map(|data| data.system);
    // Two that make a cluster at once are not one cluster; only one of them is ever recorded and offered to clients.
    let other = (0..world.hosts.len())
        .find(|other| *other != host && world.accepts_writes(*other) && system(*other) == system(host));
    if let Some(other) = other {
        let text = format!("{} and {} accept writes", world.names[host], world.names[other]);
        world.violate(Violation::new("one writer", text));
    }
}
