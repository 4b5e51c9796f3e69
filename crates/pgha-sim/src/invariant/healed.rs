//! When the faults are over, the cluster heals by itself, and serves.
//!
//! Source: README, "A lost host comes back by itself". The bound is the time from the end of the faults to the end of
//! the history.

use pgha_core::observation::Synchrony;

use super::{Violation, permanent};
use crate::model::postgres::{Life, Server};
use crate::time::Span;
use crate::world::World;

/// What is written in the time that segments take to the archive and from there.
const LATELY: u64 = 5000;

impl World {
    /// At the end of a history.
    pub(crate) fn check_healed(&mut self) {
        if let Some(text) = self.unhealed() {
            self.violate(Violation::new("healed", text));
        }
    }

    fn unhealed(&self) -> Option<String> {
        let tree = &self.zk.committed;
        let Some((leader, _)) = tree.leader else { return Some("nobody leads".to_owned()) };
        let name = &self.names[leader];
        if !self.hosts[leader].pg.server.as_ref().is_some_and(Server::writable) {
            return Some(format!("{name} leads and is no primary"));
        }
        let from_archive = self.scenario.nostream.filter(|member| *member != leader);
        if let Some(member) = from_archive.filter(|member| !self.replays(*member, leader)) {
            return Some(format!("{} does not replay what {name} archives", self.names[member]));
        }
        let streams = |member: &usize| *member != leader && from_archive != Some(*member);
        for member in (0..self.scenario.members).filter(streams) {
            // Where the relay does not stream the leader stands in.
            let relay = self.scenario.relayed(member).filter(|relay| *relay != leader);
            let from = |host: usize| self.hosts[host].pg.server.as_ref().map(|server| (host, server.number));
            let sources = [from(leader), relay.and_then(from)];
            let streams = self.hosts[member].pg.server.as_ref().is_some_and(|standby| {
                // It tries its relay again every few minutes, and for a moment has neither.
                let tries = relay.is_some() && standby.upstream == relay;
                let streams = standby.receiver.is_some() && sources.contains(&standby.receiver);
                standby.life == Life::Running && (streams || tries)
            });
            if !streams {
                return Some(format!("{} does not stream from {name}", self.names[member]));
            }
        }
        let settings = tree.cluster.config.clone().unwrap_or_default();
        let relayed = |(member, from): &(usize, usize)| {
            *member != leader && *from != leader && from_archive != Some(*member) && from_archive != Some(*from)
        };
        let relayed = usize::from(self.scenario.relay.as_ref().is_some_and(relayed));
        let others = self.scenario.members - 1 - usize::from(from_archive.is_some());
        let wanted = match settings.synchrony {
            Synchrony::Off => 0,
            Synchrony::Named => settings.sync_count.min(others - relayed),
            Synchrony::Quorum => others - relayed,
        };
        if tree.cluster.sync.standbys.len() < wanted {
            return Some("not enough standbys are synchronous".to_owned());
        }
        if self.now.since(self.oracle.last) > Span::secs(5) {
            return Some(format!("no write was acknowledged since {}", self.oracle.last));
        }
        permanent::amiss(self, leader)
    }

    /// Whether a member that streams from nobody is where the leader was lately.
    fn replays(&self, member: usize, leader: usize) -> bool {
        let runs = |host: usize| self.hosts[host].pg.server.as_ref().is_some_and(|it| it.life == Life::Running);
        let at = |host: usize| self.hosts[host].pg.data.as_ref().map(|data| data.at);
        let (Some(mine), Some(theirs)) = (at(member), at(leader)) else { return false };
        runs(member) && self.wal.contains(theirs, mine) && mine.lsn + LATELY > theirs.lsn
    }
}
