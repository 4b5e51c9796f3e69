//! Permanent slots are there whoever leads, and none stands still.
//!
//! Source: docs/settings.md, "Permanent slots": a physical one exists on every member and moves with that of the primary; of
//! a logical one each member that may lead has a copy.

use pgha_core::name::SlotName;

use crate::scenario::END;
use crate::time::{Span, Time};
use crate::world::World;

/// What was confirmed by then is known everywhere at the end: positions go from the primary to ZooKeeper to its standbys,
/// once a heartbeat each, and decoding may take its time.
pub const SETTLED: Time = Time(END.0 - Span::secs(40).0);

/// What is wrong, at the end of a history, under a leader that serves.
pub fn amiss(world: &World, leader: usize) -> Option<String> {
    let position = |host: usize, slot: &SlotName| {
        let slot = world.hosts[host].pg.data.as_ref()?.slots.usable(slot)?;
        Some(slot.position)
    };
    let copies = |member: usize| world.scenario.nofailover != Some(member) && world.scenario.nostream != Some(member);
    for consumer in &world.consumers {
        let slot = &consumer.slot;
        let wanted = |member: &usize| *member == leader || !consumer.logical || copies(*member);
        for member in (0..world.scenario.members).filter(wanted) {
            match position(member, slot) {
                None => return Some(format!("{} has no slot {slot}", world.names[member])),
                Some(old) if old < consumer.settled => {
                    return Some(format!("the slot {slot} of {} stands still at {old}", world.names[member]));
                }
                Some(_) => {}
            }
        }
    }
    None
}
