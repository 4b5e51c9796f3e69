//! A consumer of a permanent logical slot misses no change, whoever leads.
//!
//! Source: docs/settings.md, "Permanent slots": it may be given again what it confirmed, and misses nothing. Where a
//! leader had no such slot and made it anew, there is nothing to go on from.

use super::Violation;
use crate::world::World;

/// A consumer has just connected to `host`, and reads on from `from`.
pub fn check(world: &mut World, index: usize, host: usize, from: u64) {
    let consumer = &world.consumers[index];
    let Some(data) = &world.hosts[host].pg.data else { return };
    let Some(has) = consumer.known(&world.wal, data.at).filter(|_| consumer.logical) else { return };
    let made = consumer.made.iter().filter_map(|made| world.wal.shared(data.at, *made)).max();
    let known = made.map_or(has, |made| made.max(has));
    if from <= known {
        return;
    }
    let text = format!(
        "{} reads on from {from} on {}, and of what is there it has seen what lies before {known}",
        consumer.slot, world.names[host]
    );
    world.violate(Violation::new("no change missed", text));
}
