//! What a leader writes has no effect once another leads, however late it comes.
//!
//! Source: DESIGN, the safety argument, 1: every write of a leader checks the epoch. (The client library sends a write
//! also after its caller has given up on it.)

use super::Violation;
use crate::model::zookeeper::{SessionId, Write};
use crate::world::World;

/// `who` has just done a write.
pub fn check(world: &mut World, who: usize, session: SessionId, write: &Write, before: Option<(usize, SessionId)>) {
    let of_a_leader = matches!(
        write,
        Write::Reown { .. }
            | Write::Renew { .. }
            | Write::Release { .. }
            | Write::Config { .. }
            | Write::Initialized { .. }
            | Write::Sync { .. }
            | Write::Reserve { .. }
            | Write::History { .. }
            | Write::ClearFailover { .. }
    );
    let Some((leader, _)) = before.filter(|(leader, owner)| *leader != who && *owner != session) else { return };
    if of_a_leader {
        let text = format!("{write:?} of {} took effect while {} led", world.names[who], world.names[leader]);
        world.violate(Violation::new("former leaders are silent", text));
    }
}
