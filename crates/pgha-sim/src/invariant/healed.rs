//! When the faults are over, the cluster heals by itself, and serves.
//!
//! Source: README, "A lost host comes back by itself". The bound is the time from the end of the faults to the end of
//! the history.

use pgha_core::observation::Synchrony;

use super::Violation;
use crate::model::postgres::{Life, Server};
use crate::time::Span;
use crate::world::World;

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
        for member in (0..self.scenario.members).filter(|member| *member != leader) {
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
        let others = self.scenario.members - 1;
        let relayed = usize::from(self.scenario.relay.is_some_and(|(member, from)| member != leader && from != leader));
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
        None
    }
}
