//! Postgres is dead before anybody else can win the leadership.
//!
//! Source: DESIGN, the safety argument, 3: at the end of the lease, less the time that it takes, the agent fences; the
//! lease ends before the session does. A host that stands still has not fenced, and cannot write; its guard acts when it
//! goes on.

use super::Violation;
use crate::world::World;

/// The leadership of `former` has just expired. In failsafe mode the promises of all that might lead stand in for it; that
/// nobody breaks his is looked at when somebody wins.
pub fn check(world: &mut World, former: usize) {
    let now = world.clock(former);
    let promised = now < world.hosts[former].promised_until;
    if world.accepts_writes(former) && !promised {
        let text = format!("the leadership of {} is gone and it still accepts writes", world.names[former]);
        world.violate(Violation::new("fenced first", text));
    }
}

/// `winner` has just won the leadership.
pub fn check_others(world: &mut World, winner: usize) {
    // Two that make a cluster at once are not one cluster: before it is recorded nothing is offered to clients.
    let pgha_core::observation::Initialize::Done(system) = world.zk.committed.cluster.initialize else { return };
    let of_this = |host: usize| world.hosts[host].pg.data.as_ref().is_some_and(|data| data.system == system);
    let other = (0..world.hosts.len()).find(|host| *host != winner && of_this(*host) && world.accepts_writes(*host));
    if let Some(other) = other {
        let text = format!("{} leads, and {} still accepts writes", world.names[winner], world.names[other]);
        world.violate(Violation::new("fenced first", text));
    }
}
