//! WAL is kept for a member that is away for less than `member_slots_ttl`.
//!
//! Source: docs/settings.md, `member_slots_ttl`. It is the leader's promise, as long as its Postgres runs: the next one
//! keeps what it has. Nothing is promised to who streams from another member, nor beyond `max_slot_wal_keep_size`.

use super::Violation;
use crate::time::Span;
use crate::world::World;

/// How long a member may be away, by clocks that are only nearly right.
fn patience(world: &World) -> Span {
    Span::millis(world.scenario.settings.member_slots_ttl.0 * 99 / 100)
}

fn leads(world: &World, host: usize) -> bool {
    world.zk.committed.leader.is_some_and(|(leader, _)| leader == host)
        && world.hosts[host].pg.server.as_ref().is_some_and(|server| server.primary)
}

/// `host` has dropped the slot of `member`, which was of use.
pub fn check_dropped(world: &mut World, host: usize, member: usize) {
    let since = world.away_since[member].filter(|_| world.scenario.relayed(member).is_none());
    let Some(away) = since.map(|since| world.now.since(since)) else { return };
    if leads(world, host) && away < patience(world) {
        let text = format!(
            "{} drops the slot of {}, which has been away for {} ms",
            world.names[host],
            world.names[member],
            away.as_millis()
        );
        world.violate(Violation::new("WAL is kept", text));
    }
}

/// `member` cannot stream from `host`, which has not the WAL any more.
pub fn check_recycled(world: &mut World, host: usize, member: usize) {
    let left = world.hosts[host].pg.server.as_ref().and_then(|server| server.left[member]);
    let Some((since, flushed)) = left.filter(|_| world.scenario.relayed(member).is_none()) else { return };
    let has = world.hosts[member].pg.data.as_ref().map_or(0, |data| data.at.lsn);
    if leads(world, host) && world.now.since(since) < patience(world) && has >= flushed {
        let text = format!(
            "{} has recycled what {} needs, which streamed up to {flushed} from it {} ms ago",
            world.names[host],
            world.names[member],
            world.now.since(since).as_millis()
        );
        world.violate(Violation::new("WAL is kept", text));
    }
}
