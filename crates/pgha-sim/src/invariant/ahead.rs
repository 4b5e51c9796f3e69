//! Whoever wins the leadership has as much as every other candidate that could have answered.
//!
//! Source: the leader race of DESIGN (4.5). In asynchronous mode this is what bounds the loss. Members that an operator
//! passes over, and that cannot be reached, do not count; and nobody is waited for longer than a leadership lasts.

use pgha_core::observation::Disk;

use super::Violation;
use crate::model::postgres::Life;
use crate::time::Span;
use crate::world::World;

/// What a candidate says of itself may be as old as one of its turns.
const STALE: u64 = 3;

/// `winner` has just taken the vacant leadership.
pub fn check(world: &mut World, winner: usize) {
    let steady = Span::millis(world.timing.heartbeat.0 * STALE);
    let settled = world.now.since(world.oracle.last_written) > steady;
    let ttl = world.timing.ttl;
    // By clocks that are only nearly right. When it saw the leadership lapse, before it was gone, only the winner knows.
    let patient = world.vacant_since.is_none_or(|since| world.now.since(since) < Span::millis(ttl.0 * 9 / 10))
        && world.hosts[winner].agent.as_deref().is_some_and(|agent| agent.is_patient(world.clock(winner), ttl));
    // A synchronous standby need not ask those that are not; an operator may choose whom he likes.
    if !settled || !patient || world.scenario.settings.is_synchronous() || world.zk.committed.cluster.failover.is_some()
    {
        return;
    }
    // What was decided long ago, and only arrives now, was right when the answers were fresh.
    if world.hosts[winner].agent.as_deref().is_none_or(|agent| !agent.awaits_write()) {
        return;
    }
    let standby = |host: usize| {
        let at = &world.hosts[host];
        let server = at.pg.server.as_ref()?;
        let record = &world.zk.committed.cluster.failsafe.members;
        let counted = record.is_empty() || record.contains(&world.names[host]);
        let bound = at.promise.as_ref().is_some_and(|it| it.holds(world.clock(host)));
        let may_lead = counted
            && !bound
            && world.scenario.nofailover != Some(host)
            && world.scenario.without_watchdog != Some(host);
        // One that gets WAL from another standby, or from the archive, has more a moment after it was asked.
        let is_standby = |host: usize| world.hosts[host].pg.server.as_ref().is_some_and(|server| !server.primary);
        let at_rest =
            server.receiver.is_none_or(|(from, _)| !is_standby(from)) && world.now.since(server.restored) > steady;
        let runs = may_lead
            && at_rest
            && at.disk == Disk::Sound
            && world.now.since(at.disk_failed_until) > steady
            && at.on
            && at.frozen_until <= world.now
            && world.now.since(at.agent_frozen_until) > steady
            && world.now.since(at.thawed) > steady
            && server.life == Life::Running
            && !server.primary
            && server.stuck_until <= world.now
            && world.now.since(server.ready.max(server.replays_until)) > steady
            && at.slow_disk_until <= world.now
            && at.agent.as_deref().is_some_and(|agent| agent.is_settled(world.now, steady));
        at.pg.data.as_ref().filter(|_| runs).map(|data| data.at)
    };
    let Some(mine) = world.hosts[winner].pg.data.as_ref().map(|data| data.at) else { return };
    let better = (0..world.scenario.members).filter(|host| *host != winner).find(|host| {
        world.network.talks(winner, *host)
            // Whom it could not ask it has not asked.
            && world.now.since(world.network.healed(winner).max(world.network.healed(*host))) > steady
            && world.announced_by(*host) == Some(*host)
            && standby(*host)
                .is_some_and(|theirs| theirs != mine && world.wal.contains(theirs, mine) && theirs.lsn > mine.lsn)
    });
    if let Some(better) = better {
        let text = format!("{} takes the leadership, and {} has more", world.names[winner], world.names[better]);
        world.violate(Violation::new("most advanced", text));
    }
}
