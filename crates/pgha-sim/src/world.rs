//! The world of one history: virtual time, its events, and who they are for.
//!
//! ```text
//!   scenario ──► faults ─┐
//!                        ▼
//!   queue ──► event ──► world ──► agents (the real core decides) ──► models ──► more events
//!                        │
//!                        └──► invariants, after whatever could break them
//! ```

use std::collections::BTreeMap;

use pgha_core::decide::Electorate;
use pgha_core::lease::Lease;
use pgha_core::name::NodeName;
use pgha_core::observation::{Disk, Promise};
use pgha_core::time::Instant;
use pgha_core::timing::Timing;

use crate::agent::Agent;
use crate::event::{Event, Queue, Who};
use crate::invariant::Violation;
use crate::journal::Journals;
use crate::mishap::Aside;
use crate::model::archive::Archive;
use crate::model::network::Network;
use crate::model::postgres::Postgres;
use crate::model::wal::Wal;
use crate::model::zookeeper::{Ensemble, SessionId, place_of};
use crate::mutant::Mutant;
use crate::oracle::Oracle;
use crate::reach::Reached;
use crate::scenario::{self, Fault, Moment, Scenario, Strike};
use crate::slots::Consumer;
use crate::time::{Clock, Span, Time};

/// The lease file.
#[derive(Debug)]
pub struct LeaseRecord {
    /// The lease.
    pub lease: Lease,
    /// When to fence.
    pub fence_at: Instant,
    /// Whom the leader needs in failsafe mode.
    pub electorate: Electorate,
}

/// One machine.
#[derive(Debug)]
pub struct Host {
    /// It has power.
    pub on: bool,
    /// Counts its starts.
    pub boot: u32,
    /// Its clock.
    pub clock: Clock,
    /// Nothing on it moves until then.
    pub frozen_until: Time,
    /// When it last went on.
    pub thawed: Time,
    /// The agent's process.
    pub agent: Option<Box<Agent>>,
    /// Counts its starts.
    pub agent_starts: u32,
    /// The agent stands still until then.
    pub agent_frozen_until: Time,
    /// The service is stopped by an operator.
    pub agent_stopped: bool,
    /// The guard runs.
    pub guard: bool,
    /// A look of the guard is due then.
    pub guard_look: Option<Time>,
    /// Under `/run`: lost with the power.
    pub lease_file: Option<LeaseRecord>,
    /// The word of its member not to lead: under `/run` as well.
    pub promise: Option<Promise>,
    /// When its agent first ran in this boot.
    pub up_since: Instant,
    /// Until then all that might lead have given this member their word not to.
    pub promised_until: Instant,
    /// The disk.
    pub disk: Disk,
    /// Until when it was last not sound.
    pub disk_failed_until: Time,
    /// The kernel watchdog is armed, and resets the host then.
    pub resets_at: Option<Time>,
    /// Looking at Postgres is slow until then.
    pub slow_disk_until: Time,
    /// `pg_rewind` fails until then.
    pub rewind_fails_until: Time,
    /// Its data directory cannot be read until then.
    pub unreadable_until: Time,
    /// Postgres does not start until then.
    pub start_fails_until: Time,
    /// Recovery takes until then.
    pub recovers_until: Time,
    /// Its Postgres.
    pub pg: Postgres,
}

/// Everything.
pub struct World {
    /// True time.
    pub now: Time,
    /// What will happen.
    pub queue: Queue,
    /// Chance.
    pub rng: fastrand::Rng,
    /// What this history is made of.
    pub scenario: Scenario,
    /// Its timings.
    pub timing: Timing,
    /// Names of the hosts.
    pub names: Vec<NodeName>,
    /// The machines; the first are members.
    pub hosts: Vec<Host>,
    /// The links between them.
    pub network: Network,
    /// ZooKeeper.
    pub zk: Ensemble,
    /// All WAL.
    pub wal: Wal,
    /// The archive of WAL.
    pub archive: Archive,
    /// What clients were told.
    pub oracle: Oracle,
    /// Members whose znodes are gone, and since when they are.
    pub away_since: Vec<Option<Time>>,
    /// Consumers of permanent slots.
    pub consumers: Vec<Consumer>,
    /// What was reached.
    pub reached: Reached,
    /// Since when nobody leads.
    pub vacant_since: Option<Time>,
    /// Somebody has led.
    pub led_once: bool,
    /// From then on nothing stands still: neither a host nor an agent nor a Postgres.
    pub frozen_until: Time,
    /// Faults are over.
    pub calm: bool,
    /// What waits in sockets for a link that is cut: from, to, what.
    pub held: Vec<(usize, usize, Event)>,
    /// Faults that have begun, with the host that they hit.
    pub begun: BTreeMap<usize, Fault>,
    /// The host that runs under the name of a member, while it does.
    pub namesake: Option<usize>,
    /// What people have put aside by mistake.
    pub(crate) aside: Aside,
    /// What ambushes wait for, and what they do then.
    pub ambushes: Vec<(Moment, Strike)>,
    /// What is wrong with the code on purpose.
    pub mutant: Option<Mutant>,
    /// What went wrong.
    pub violation: Option<Violation>,
    /// The story so far, where it is wanted.
    pub story: Option<Vec<String>>,
    /// The agents' journals, where they are wanted.
    pub journals: Option<Journals>,
    ended: bool,
}

impl World {
    /// The beginning of a history.
    pub fn new(scenario: Scenario, mutant: Option<Mutant>, trace: bool) -> Self {
        let mut rng = fastrand::Rng::with_seed(scenario.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let count = scenario.hosts();
        let names = (1..=count).filter_map(|n| NodeName::try_from(format!("db{n}")).ok()).collect();
        let hosts = (0..count)
            .map(|host| Host {
                on: scenario.spare != Some(host),
                boot: 1,
                // Clocks are good to a part in a thousand; the guard interval of the lease is for that.
                clock: Clock { offset: rng.u64(1000..9_000_000).cast_signed(), drift: rng.i64(-1000..=1000) },
                frozen_until: Time(0),
                thawed: Time(0),
                agent: None,
                agent_starts: 0,
                agent_frozen_until: Time(0),
                agent_stopped: false,
                guard: true,
                guard_look: None,
                lease_file: None,
                promise: None,
                up_since: Instant::default(),
                promised_until: Instant::default(),
                disk: Disk::Sound,
                disk_failed_until: Time(0),
                resets_at: None,
                slow_disk_until: Time(0),
                rewind_fails_until: Time(0),
                unreadable_until: Time(0),
                start_fails_until: Time(0),
                recovers_until: Time(0),
                pg: Postgres::default(),
            })
            .collect();
        let timing = scenario.timing;
        let zk = Ensemble::new(scenario.servers, Span::millis(timing.session().0), Span::millis(timing.tick.0));
        let consumers =
            scenario.settings.permanent_slots.iter().map(|(name, kind)| Consumer::new(name, kind)).collect();
        let mut world = Self {
            now: Time(0),
            queue: Queue::default(),
            rng,
            timing,
            names,
            hosts,
            network: Network::default(),
            zk,
            wal: Wal::default(),
            archive: Archive::default(),
            oracle: Oracle::default(),
            away_since: vec![None; scenario.members],
            consumers,
            reached: Reached::default(),
            frozen_until: Time(0),
            calm: false,
            vacant_since: None,
            led_once: false,
            held: Vec::new(),
            begun: BTreeMap::new(),
            namesake: None,
            aside: Aside::default(),
            ambushes: Vec::new(),
            mutant,
            violation: None,
            story: trace.then(Vec::new),
            journals: None,
            ended: false,
            scenario,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        self.later(Span::millis(200), Event::Elect);
        for host in 0..self.scenario.members {
            let delay = Span::millis(self.rng.u64(500..3000));
            self.later(delay, Event::AgentStart { host, boot: 1 });
            self.later(Span::secs(3), Event::Stream { member: host });
        }
        for client in 0..2 {
            self.later(Span::secs(5), Event::Client(client));
        }
        for consumer in 0..self.consumers.len() {
            self.later(Span::secs(8), Event::Consume(consumer));
        }
        for (index, planned) in self.scenario.faults.iter().enumerate() {
            self.queue.push(planned.at, Event::Fault(index));
            self.queue.push(planned.at + planned.lasts, Event::FaultEnd(index));
        }
        self.queue.push(scenario::CALM, Event::Calm);
        self.queue.push(scenario::END, Event::End);
    }

    /// Lets everything happen, or everything up to the first violation.
    pub fn run(&mut self) {
        while !self.ended && self.violation.is_none() {
            let Some(due) = self.queue.pop() else { break };
            debug_assert!(due.at() >= self.now, "time went backwards");
            self.now = self.now.max(due.at());
            let event = self.queue.take(due);
            self.happen(event);
        }
    }

    /// Something happens after a while.
    #[inline]
    pub fn later(&mut self, after: Span, event: Event) {
        self.queue.push(self.now + after, event);
    }

    /// For the story.
    pub fn say(&mut self, text: impl FnOnce(&Self) -> String) {
        if self.story.is_some() {
            let line = format!("{}  {}", self.now, text(self));
            if let Some(story) = &mut self.story {
                story.push(line);
            }
        }
    }

    /// Something that must never be has been seen.
    pub fn violate(&mut self, violation: Violation) {
        self.say(|_| format!("VIOLATION  {violation}"));
        self.violation.get_or_insert(violation);
    }

    /// Whether the mutation is wanted in this run.
    pub fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// The member whose name a host has.
    pub fn member(&self, host: usize) -> usize {
        if host < self.scenario.members { host } else { place_of(&self.names, host) }
    }

    /// The host whose agent has announced itself as this member.
    pub fn announced_by(&self, member: usize) -> Option<usize> {
        self.host_of(self.zk.committed.owner(member)?)
    }

    /// The host that a session belongs to.
    pub fn host_of(&self, session: SessionId) -> Option<usize> {
        Some(self.zk.sessions.get(session as usize)?.owner)
    }

    /// What a host's clock shows.
    pub fn clock(&self, host: usize) -> Instant {
        self.hosts[host].clock.show(self.now)
    }

    /// Whether a member's Postgres can take a write now.
    ///
    /// When a host that stood still goes on, so does its Postgres, until the guard has looked at its clock: that takes no
    /// longer than fencing may. In synchronous mode nothing is acknowledged meanwhile, which is looked at by itself.
    pub fn accepts_writes(&self, host: usize) -> bool {
        let at = &self.hosts[host];
        let settled = at.thawed == Time(0) || self.now.since(at.thawed) > Span::millis(self.timing.stop_budget.0);
        at.on
            && settled
            && at.frozen_until <= self.now
            && at.pg.server.as_ref().is_some_and(|server| server.writable() && server.stuck_until <= self.now)
    }

    /// A random length.
    pub fn between(&mut self, least_ms: u64, most_ms: u64) -> Span {
        Span(self.rng.u64(least_ms * 1000..=most_ms * 1000))
    }

    /// The agent that an event is for, if it still is.
    pub fn agent(&mut self, who: Who) -> Option<&mut Agent> {
        let host = &mut self.hosts[who.host];
        if host.agent_starts != who.start {
            return None;
        }
        host.agent.as_deref_mut()
    }

    /// Until when the process stands still that has to act for this to happen.
    fn put_off_until(&self, event: &Event) -> Time {
        let host = |host: usize| self.hosts[host].frozen_until;
        match event {
            Event::Wake(who)
            | Event::Rested { who, .. }
            | Event::ReadDone { who, .. }
            | Event::Looked { who, .. }
            | Event::WriteDone { who, .. }
            | Event::WriteLate { who, .. }
            | Event::PeersAsked { who, .. }
            | Event::RenewalSeen { who, .. }
            | Event::Promised { who, .. }
            | Event::Goes { who, .. }
            | Event::Job { who, .. }
            | Event::Connect(who) => host(who.host).max(self.hosts[who.host].agent_frozen_until),
            Event::SlotWork { who, .. } => {
                host(who.host).max(self.hosts[who.host].agent_frozen_until).max(self.stuck_until(who.host))
            }
            Event::AskPromise { peer, .. } => host(*peer).max(self.hosts[*peer].agent_frozen_until),
            Event::Read { server, .. }
            | Event::Write { server, .. }
            | Event::Answer { server, .. }
            | Event::Apply { server, .. }
            | Event::Report { server, .. } => host(*server),
            Event::Started(who)
            | Event::Promoted(who)
            | Event::Setting { who, .. }
            | Event::Follow(who)
            | Event::Checkpointed(who) => host(who.host).max(self.stuck_until(who.host)),
            Event::Ship { to, .. } | Event::Confirm { to, .. } => host(to.host).max(self.stuck_until(to.host)),
            Event::Commit { host: at, .. } => host(*at).max(self.stuck_until(*at)),
            Event::Died(who) | Event::Hung(who) => host(who.host),
            Event::Guard { host: at, .. }
            | Event::AgentStart { host: at, .. }
            | Event::GuardStart { host: at, .. }
            | Event::Watchdog { host: at, .. } => host(*at),
            Event::Expire | Event::LeaderLost { .. } | Event::Elect => self
                .zk
                .leader
                .map_or(Time(0), |leader| if matches!(event, Event::Expire) { host(leader) } else { Time(0) }),
            Event::Stream { .. }
            | Event::PowerOn(_)
            | Event::Thaw(_)
            | Event::ServerUp(_)
            | Event::Client(_)
            | Event::Consume(_)
            | Event::Fault(_)
            | Event::FaultEnd(_)
            | Event::Calm
            | Event::End => Time(0),
        }
    }

    fn stuck_until(&self, host: usize) -> Time {
        self.hosts[host].pg.server.as_ref().map_or(Time(0), |server| server.stuck_until)
    }

    fn happen(&mut self, event: Event) {
        debug_assert!(
            self.put_off_until(&event) <= self.now.max(self.frozen_until),
            "something stands still unnoticed"
        );
        if self.now < self.frozen_until {
            let until = self.put_off_until(&event);
            if until > self.now {
                self.queue.push(until, event);
                return;
            }
        }
        match event {
            Event::Wake(who) => self.wake(who),
            Event::Rested { who, turn } => self.rested(who, turn),
            Event::ReadDone { who, turn, tree } => self.read_done(who, turn, tree),
            Event::Looked { who, turn, mute } => self.looked(who, turn, mute),
            Event::RenewalSeen { who, renewal } => self.renewal_seen(who, renewal),
            Event::WriteDone { who, id, done } => self.write_done(who, id, Some(done)),
            Event::WriteLate { who, id } => self.write_done(who, id, None),
            Event::PeersAsked { who, id, asked, since } => self.peers_asked(who, id, &asked, since),
            Event::AskPromise { who, id, peer, epoch } => self.asked_to_promise(who, id, peer, epoch),
            Event::Promised { who, id, peer } => self.promised(who, id, peer),
            Event::Goes { who, id } => self.goes_on(who, id),
            Event::Job { who, id, step } => self.job_step(who, id, step),
            Event::Connect(who) => self.connect(who),
            Event::Read { server, who, turn, session } => self.serve_read(server, who, turn, session),
            Event::Write { server, forwarded, who, id, session, write } => {
                self.serve_write(server, forwarded, who, id, session, write);
            }
            Event::Answer { server, who, id, done } => self.answer(server, who, id, done),
            Event::Apply { server, term, tree } => self.apply(server, term, &tree),
            Event::Report { server, term } => self.report(server, term),
            Event::Expire => self.expire(),
            Event::LeaderLost { term } => self.leader_lost(term),
            Event::Elect => self.elect(),
            Event::Started(who) => self.started(who),
            Event::Died(who) => self.died(who),
            Event::Promoted(who) => self.promoted(who),
            Event::Setting { who, setting, taker } => self.take_setting(who, setting, taker),
            Event::Follow(who) => self.follows(who),
            Event::Ship { from, to, lsn } => self.shipped(from, to, lsn),
            Event::Confirm { from, to, lsn } => self.confirmed(from, to, lsn),
            Event::Stream { member } => self.stream(member),
            Event::Checkpointed(who) => self.checkpointed(who),
            Event::Guard { host, boot } => self.guard_looks(host, boot),
            Event::Watchdog { host, boot } => self.watchdog(host, boot),
            Event::GuardStart { host, boot } => self.guard_start(host, boot),
            Event::AgentStart { host, boot } => self.agent_start(host, boot),
            Event::Hung(who) => self.hung(who),
            Event::PowerOn(host) => self.power_on(host),
            Event::Thaw(host) => self.thaw(host),
            Event::ServerUp(server) => self.server_up(server),
            Event::Client(client) => self.client(client),
            Event::Consume(consumer) => self.consume(consumer),
            Event::SlotWork { who, work } => self.slot_work(who, *work),
            Event::Commit { host, write } => self.commit(host, write),
            Event::Fault(index) => self.fault(index),
            Event::FaultEnd(index) => self.fault_end(index),
            Event::Calm => {
                self.say(|_| "the faults are over".to_owned());
                self.calm = true;
            }
            Event::End => {
                self.ended = true;
                self.check_healed();
            }
        }
    }
}
