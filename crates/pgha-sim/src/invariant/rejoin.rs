//! A rejoin never discards what the leader has, and never touches the data of whoever holds the leadership.
//!
//! Source: Patroni's incidents with wiped data directories (issues 2302, 2220, 1493), and the rejoin ladder of DESIGN.

use super::Violation;
use crate::model::wal::Position;
use crate::world::World;

/// `host` rewinds to, or copies from, `source`.
pub fn check(world: &mut World, host: usize, source: usize) {
    if world.zk.committed.leader.is_some_and(|(leader, _)| leader == host) {
        let text = format!("{} throws its data away and holds the leadership", world.names[host]);
        world.violate(Violation::new("safe rejoin", text));
        return;
    }
    if !world.scenario.settings.is_synchronous() {
        return;
    }
    // A copy may come from a standby, which has it from the leader, or will.
    let leader = world.zk.committed.leader.map_or(source, |(leader, _)| leader);
    let (Some(mine), Some(theirs)) = (&world.hosts[host].pg.data, &world.hosts[leader].pg.data) else { return };
    if mine.system != theirs.system {
        return;
    }
    // A promise that only this member keeps must not be thrown away. Who may not lead may give it up, where who may has it.
    let record = &world.zk.committed.cluster.sync;
    let may_lead = |host: &usize| {
        let name = &world.names[*host];
        record.unreadable || record.leader.as_ref() == Some(name) || record.standbys.contains(name)
    };
    let has = |host: usize, promised: Position| {
        world.hosts[host].pg.data.as_ref().is_some_and(|data| world.wal.contains(data.at, promised))
    };
    let kept = |it: Position| {
        has(leader, it) || !may_lead(&host) && (0..world.scenario.members).filter(may_lead).any(|host| has(host, it))
    };
    let only_here = world
        .oracle
        .promised
        .iter()
        .map(|(branch, lsn)| Position { branch: *branch, lsn: *lsn })
        .find(|it| has(host, *it) && !mine.damaged && !kept(*it));
    if let Some(promised) = only_here {
        let text = format!(
            "{} gives up {} of timeline {}, which was acknowledged and which {} lacks",
            world.names[host],
            promised.lsn,
            world.wal.timeline(promised.branch),
            world.names[leader]
        );
        world.violate(Violation::new("safe rejoin", text));
    }
}

/// `host` is about to use its data directory.
pub fn check_whole(world: &mut World, host: usize, what: &str) {
    if world.hosts[host].pg.data.as_ref().is_some_and(|data| data.damaged) {
        let text = format!("{} {what} a data directory that an interrupted rewind has left", world.names[host]);
        world.violate(Violation::new("safe rejoin", text));
    }
}
