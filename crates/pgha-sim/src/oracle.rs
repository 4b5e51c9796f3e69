//! What clients were told: every row's fate, and what that obliges the cluster to keep.

use std::collections::BTreeMap;

use pgha_core::name::Epoch;

use crate::event::{Event, Who};
use crate::model::network::CLIENTS;
use crate::model::wal::{BranchId, Position};
use crate::time::{Span, Time};
use crate::world::World;

/// The record.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Writes that were sent.
    pub sent: u32,
    /// Writes that were acknowledged.
    pub acknowledged: u32,
    /// The end of what was acknowledged, on each branch.
    pub promised: BTreeMap<BranchId, u64>,
    /// The branch of the newest promotion.
    pub newest: Option<BranchId>,
    /// Leaderships that members reached for because an operator had named them.
    pub forced: Vec<(usize, Epoch)>,
    /// Branches that were begun by members that did not lead any more.
    pub late: Vec<BranchId>,
    /// Servers that were primary, or about to be, when an operator made somebody else primary.
    pub passed_over: Vec<Who>,
    /// When the last write was made.
    pub last_written: Time,
    /// When the last write was acknowledged.
    pub last: Time,
    /// The longest time without an acknowledgement, since the cluster was made.
    pub longest_gap: Span,
    /// Which server wrote on which branch.
    writers: BTreeMap<(usize, u32), BranchId>,
    /// Whom each client believes to be the primary.
    believed: BTreeMap<u32, usize>,
}

impl Oracle {
    /// A server writes on a branch.
    pub fn wrote(&mut self, server: Who, branch: BranchId, now: Time) {
        self.last_written = now;
        self.writers.insert((server.host, server.start), branch);
    }

    /// The branch that a server of the past wrote on.
    pub fn branch_of(&self, server: Who) -> Option<BranchId> {
        self.writers.get(&(server.host, server.start)).copied()
    }

    /// A row is promised.
    pub fn acknowledged(&mut self, _write: u32, at: Position, now: Time) {
        self.acknowledged += 1;
        let end = self.promised.entry(at.branch).or_insert(0);
        *end = (*end).max(at.lsn);
        if self.last > Time(0) {
            self.longest_gap = self.longest_gap.max(now.since(self.last));
        }
        self.last = now;
    }
}

impl World {
    /// An operator made a member primary whatever it has: what it lacks was given up by him.
    pub(crate) fn forgive(&mut self, winner: usize, epoch: Epoch) {
        let forced = self.oracle.forced.contains(&(winner, epoch));
        // A copy of what a member once had cannot be told from that member.
        let copied = self.scenario.spare == Some(winner);
        if !copied && !forced {
            return;
        }
        let Some(data) = &self.hosts[winner].pg.data else { return };
        let (has, wal) = (data.at, &self.wal);
        let writes =
            |host: usize| self.hosts[host].pg.server.as_ref().filter(|it| it.promoting.is_some() || it.primary);
        let passed_over = (0..self.scenario.members).filter(|host| *host != winner);
        let passed_over = passed_over.filter_map(|host| Some(Who { host, start: writes(host)?.number }));
        self.oracle.passed_over.extend(passed_over);
        self.oracle.promised.retain(|branch, lsn| {
            *lsn = (*lsn).min(wal.common(has, *branch).unwrap_or(0));
            *lsn > 0
        });
    }

    /// What the balancer's last check has found; a check that got no answer leaves nobody.
    pub(crate) fn offered_primary(&self) -> Option<usize> {
        (0..self.scenario.members).find(|host| {
            let at = &self.hosts[*host];
            at.on
                && at.frozen_until <= self.now
                && at.agent_frozen_until <= self.now
                && self.network.talks(CLIENTS, *host)
                && at.agent.as_deref().is_some_and(|agent| agent.is_primary(self.clock(*host)))
        })
    }

    /// A client writes one row: mostly to whom its balancer takes for the primary, now and then to anybody.
    pub(crate) fn client(&mut self, client: u32) {
        let again = self.between(300, 1100);
        self.later(again, Event::Client(client));
        let members = self.scenario.members;
        let stray = self.rng.u8(0..8) == 0;
        let believed = self.oracle.believed.get(&client).copied();
        let target = if stray {
            self.rng.usize(0..members)
        } else {
            match self.offered_primary().or(believed) {
                Some(host) => host,
                None => return,
            }
        };
        if !stray {
            self.oracle.believed.insert(client, target);
        }
        self.oracle.sent += 1;
        let write = self.oracle.sent;
        if self.hosts[target].on && self.network.is_up(CLIENTS, target) {
            let delay = self.network.delay(CLIENTS, target, self.now, &mut self.rng);
            self.later(delay, Event::Commit { host: target, write });
        }
    }
}
