//! Links between hosts: each direction by itself is up, cut, or slow.

use crate::time::{Span, Time};

/// The clients' place; every other number is a host.
pub const CLIENTS: usize = 7;
const PLACES: usize = CLIENTS + 1;

/// All links.
#[derive(Debug, Default)]
pub struct Network {
    /// How many faults cut a link at the moment.
    cuts: [[u8; PLACES]; PLACES],
    /// Until when a host's links are slow.
    slow_until: [Time; PLACES],
    /// When a cut of one of its links last ended.
    healed: [Time; PLACES],
    /// How many faults keep a host's processes from every server of ZooKeeper, and from nothing else.
    without_zookeeper: [u8; PLACES],
}

impl Network {
    /// Cuts one direction; to be healed as often as it was cut.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cuts[from][to] = self.cuts[from][to].saturating_add(1);
    }

    /// Heals one direction.
    pub fn heal(&mut self, from: usize, to: usize, now: Time) {
        self.cuts[from][to] = self.cuts[from][to].saturating_sub(1);
        self.healed[from] = now;
        self.healed[to] = now;
    }

    /// When a cut of one of a host's links last ended.
    pub fn healed(&self, host: usize) -> Time {
        self.healed[host]
    }

    /// Keeps a host's processes from ZooKeeper.
    pub fn cut_zookeeper(&mut self, host: usize) {
        self.without_zookeeper[host] = self.without_zookeeper[host].saturating_add(1);
    }

    /// Lets them at it again.
    pub fn heal_zookeeper(&mut self, host: usize) {
        self.without_zookeeper[host] = self.without_zookeeper[host].saturating_sub(1);
    }

    /// Whether a host's processes may speak to servers of ZooKeeper.
    pub fn has_zookeeper(&self, host: usize) -> bool {
        self.without_zookeeper[host] == 0
    }

    /// Makes a host's links slow.
    pub fn slow(&mut self, host: usize, until: Time) {
        self.slow_until[host] = self.slow_until[host].max(until);
    }

    /// Whether something sent now arrives.
    pub fn is_up(&self, from: usize, to: usize) -> bool {
        from == to || self.cuts[from][to] == 0
    }

    /// Whether a conversation is possible.
    pub fn talks(&self, one: usize, other: usize) -> bool {
        self.is_up(one, other) && self.is_up(other, one)
    }

    /// How long something sent now takes.
    pub fn delay(&self, from: usize, to: usize, now: Time, rng: &mut fastrand::Rng) -> Span {
        if from == to {
            return Span(rng.u64(20..80));
        }
        let slow = now < self.slow_until[from].max(self.slow_until[to]);
        let usual = rng.u64(100..600);
        // Now and then a packet is lost and sent again.
        let again = if rng.u32(0..500) == 0 { rng.u64(1000..30_000) } else { 0 };
        Span(usual + again + if slow { rng.u64(5000..80_000) } else { 0 })
    }
}
