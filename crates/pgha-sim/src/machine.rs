//! What a host has beside its agent and its Postgres: the guard, the kernel watchdog, and power.

use pgha_core::time::Instant;

use crate::event::{Event, Who};
use crate::invariant;
use crate::mutant::Mutant;
use crate::time::{Span, Time};
use crate::world::World;

/// A guard sleeps until the lease ends, and is woken late.
const GUARD_LATENESS: u64 = 10;
/// How often it looks otherwise, at least.
const GUARD_INTERVAL: u64 = 500;

impl World {
    /// The lease file or the server has changed: when does the guard have to act next?
    ///
    /// Only the looks that can find something are played.
    pub(crate) fn arm_guard(&mut self, host: usize) {
        let at = &self.hosts[host];
        let (due, tick) = match &at.lease_file {
            Some(record) => (at.clock.when(record.fence_at).max(self.now), GUARD_LATENESS * 1000),
            None if at.pg.server.is_some() => (self.now + Span::millis(1), GUARD_INTERVAL * 1000),
            None => return,
        };
        let look = Time((due.0 / tick + 1) * tick + 7000 * host as u64 % tick);
        if at.guard_look.is_none_or(|known| known > look || known < self.now) {
            self.hosts[host].guard_look = Some(look);
            let boot = self.hosts[host].boot;
            self.queue.push(look, Event::Guard { host, boot });
        }
    }

    /// The guard looks.
    pub(crate) fn guard_looks(&mut self, host: usize, boot: u32) {
        if self.hosts[host].boot != boot || self.hosts[host].guard_look.is_none_or(|look| look > self.now) {
            return;
        }
        self.hosts[host].guard_look = None;
        let unguarded = self.mutant.is_some_and(Mutant::is_unguarded);
        if !self.hosts[host].guard || !self.hosts[host].on || unguarded {
            return;
        }
        let now = self.clock(host);
        let at = &self.hosts[host];
        match &at.lease_file {
            Some(record) if now < record.fence_at => {}
            Some(_) => {
                self.kill_postgres(host, "the guard: the lease is over");
                self.hosts[host].lease_file = None;
            }
            None => {
                let unmarked = at.pg.data.as_ref().is_some_and(|data| !data.standby_signal);
                let dying = at.pg.server.as_ref().is_none_or(|server| server.dying);
                if unmarked && !dying {
                    self.kill_postgres(host, "the guard: it accepts writes and there is no lease");
                }
            }
        }
        if self.hosts[host].lease_file.is_some() {
            self.arm_guard(host);
        }
    }

    pub(crate) fn guard_start(&mut self, host: usize, boot: u32) {
        if self.hosts[host].boot == boot && self.hosts[host].on {
            self.hosts[host].guard = true;
            self.arm_guard(host);
        }
    }

    /// Whether a host has a kernel watchdog.
    pub(crate) fn has_watchdog(&self, host: usize) -> bool {
        self.scenario.watchdog && self.scenario.without_watchdog != Some(host)
    }

    /// The kernel's own timer: without a pet the host is reset.
    pub(crate) fn watchdog(&mut self, host: usize, boot: u32) {
        let at = &self.hosts[host];
        let Some(due) = at.resets_at.filter(|_| at.boot == boot && at.on) else { return };
        if due > self.now {
            self.queue.push(due, Event::Watchdog { host, boot });
            return;
        }
        self.say(|world| format!("{}: the watchdog resets the host", world.names[host]));
        self.reached.mark("watchdog reset");
        if self.scenario.is_calm() {
            invariant::calm::violated(self, "a watchdog reset a healthy host");
        }
        self.power_off(host);
        let takes = self.between(10_000, 25_000);
        self.later(takes, Event::PowerOn(host));
    }

    /// Everything but the disk is gone.
    pub(crate) fn power_off(&mut self, host: usize) {
        let at = &mut self.hosts[host];
        if !at.on {
            return;
        }
        at.on = false;
        at.boot += 1;
        at.agent = None;
        at.agent_starts += 1;
        at.guard = false;
        at.guard_look = None;
        at.lease_file = None;
        at.promise = None;
        at.up_since = Instant::default();
        at.promised_until = Instant::default();
        at.resets_at = None;
        at.frozen_until = Time(0);
        at.pg.server = None;
        at.agent_stopped = false;
        self.say(|world| format!("{}: the power is off", world.names[host]));
        if let Some(server) = self.zk.servers.get_mut(host) {
            server.up = false;
            server.serving = false;
            server.touched.clear();
        }
        self.topology_changed();
    }

    pub(crate) fn power_on(&mut self, host: usize) {
        let spare = self.scenario.spare == Some(host);
        if self.hosts[host].on || spare && self.namesake.is_none() {
            return;
        }
        let runs_agent = host < self.scenario.members || spare;
        let at = &mut self.hosts[host];
        at.on = true;
        at.boot += 1;
        at.guard = true;
        let boot = at.boot;
        // The clock of a new boot begins anew; some seconds are gone before anything runs.
        at.clock.offset = 2000 - (self.now.0 / 1000).cast_signed();
        self.say(|world| format!("{}: the power is on", world.names[host]));
        if runs_agent {
            let takes = self.between(2000, 6000);
            self.later(takes, Event::AgentStart { host, boot });
        }
        if host < self.zk.servers.len() {
            let takes = self.between(2000, 8000);
            self.later(takes, Event::ServerUp(host));
        }
    }

    /// What stood still goes on.
    pub(crate) fn thaw(&mut self, host: usize) {
        self.hosts[host].thawed = self.now;
        self.arm_guard(host);
        self.topology_changed();
        let boot = self.hosts[host].boot;
        if self.hosts[host].resets_at.is_some() {
            self.later(Span(10), Event::Watchdog { host, boot });
        }
        let agent = Who { host, start: self.hosts[host].agent_starts };
        self.later(Span(10), Event::Wake(agent));
    }

    /// Sends a request for a write, or its answer, over TCP: what is lost is sent again when the link is whole, also after
    /// the sender has given it up.
    pub(crate) fn send(&mut self, from: usize, to: usize, event: Event) {
        if self.passes(from, to, &event) {
            let delay = self.network.delay(from, to, self.now, &mut self.rng);
            self.later(delay, event);
        } else {
            self.held.push((from, to, event));
        }
    }

    fn passes(&self, from: usize, to: usize, event: &Event) -> bool {
        let member = match event {
            Event::Write { forwarded: None, who, .. } | Event::WriteDone { who, .. } => Some(who.host),
            _ => None,
        };
        self.network.is_up(from, to) && member.is_none_or(|member| self.network.has_zookeeper(member))
    }

    /// A link is whole again.
    pub(crate) fn healed(&mut self, from: usize, to: usize) {
        self.network.heal(from, to, self.now);
        self.deliver_held();
    }

    /// What was held for links that are whole again arrives.
    pub(crate) fn deliver_held(&mut self) {
        let held = std::mem::take(&mut self.held);
        for (from, to, event) in held {
            // A member's own connection may have been given up; those between servers stand as long as they serve.
            let connected = match &event {
                Event::Write { forwarded: None, who, .. } => {
                    self.hosts[who.host].agent.as_deref().is_some_and(|agent| agent.connection.server == Some(to))
                }
                _ => true,
            };
            if !self.passes(from, to, &event) {
                self.held.push((from, to, event));
            } else if connected || self.rng.bool() {
                // How long a socket that was closed meanwhile goes on trying is up to the kernel.
                self.reached.mark("late write");
                let delay = self.between(1, 200);
                self.later(delay, event);
            }
        }
    }
}
