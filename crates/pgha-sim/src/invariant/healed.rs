//! When the faults are over, the cluster heals by itself, and serves.
//!
//! Source: README, "A lost host comes back by itself". The bound is the time from the end of the faults to the end of
//! the history.

use super::Violation;
use crate::model::postgres::Life;
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
        let Some(server) = self.hosts[leader].pg.server.as_ref().filter(|server| server.writable()) else {
            return Some(format!("{name} leads and is no primary"));
        };
        for member in (0..self.scenario.members).filter(|member| *member != leader) {
            let streams = self.hosts[member].pg.server.as_ref().is_some_and(|standby| {
                standby.life == Life::Running && standby.receiver == Some((leader, server.number))
            });
            if !streams {
                return Some(format!("{} does not stream from {name}", self.names[member]));
            }
        }
        let settings = tree.config.clone().unwrap_or_default();
        if settings.synchronous && tree.sync.standbys.len() < settings.sync_count.min(self.scenario.members - 1) {
            return Some("not enough standbys are synchronous".to_owned());
        }
        if self.now.since(self.oracle.last) > Span::secs(5) {
            return Some(format!("no write was acknowledged since {}", self.oracle.last));
        }
        None
    }
}
