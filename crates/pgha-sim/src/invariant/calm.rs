//! Without faults nothing fails over.
//!
//! Source: users of Patroni on failovers under load (issues 3646, 3407). Delays below the declared margins are no fault.

use super::Violation;
use crate::world::World;

/// Something happened that needs a fault, and there was none.
pub fn violated(world: &mut World, what: &str) {
    world.violate(Violation::new("calm", what.to_owned()));
}
