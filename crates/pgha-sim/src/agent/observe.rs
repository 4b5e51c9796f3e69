//! One observation: ZooKeeper and Postgres at once, within deadlines.

use std::rc::Rc;

use pgha_core::lsn::{Lsn, Timeline};
use pgha_core::observation::{Dcs, Observation, Postgres, Primary, Role, Running, Sender, Standby, Tie, Watchdog};
use pgha_core::pulse::Renewal;

use super::{Agent, Phase, Read};
use crate::event::{Event, Who};
use crate::model::postgres::Life;
use crate::model::zookeeper::Tree;
use crate::mutant::Mutant;
use crate::time::{Span, Time};
use crate::world::World;

impl World {
    /// Asks both.
    pub(super) fn observe(&mut self, who: Who) {
        let now = self.now;
        let clock = self.clock(who.host);
        let Some(agent) = self.agent(who) else { return };
        let turn = agent.turn;
        let timing = agent.settings.timing;
        let patience = agent.patience();
        let left = agent.lease.map(|lease| lease.fence_at(&timing).since(clock)).filter(|left| left.0 > 0);
        let deadline = left.map_or(patience, |left| patience.min(Span::millis(left.0)));
        // The library leaves a silent server.
        let silent = now.since(agent.connection.heard).0 > timing.heartbeat.0 * 1000 * 2;
        if agent.connection.server.is_some() && silent {
            self.disconnected(who.host);
        }
        let (server, session) = match self.agent(who) {
            Some(agent) => (agent.connection.server, agent.connection.session),
            None => return,
        };
        match (server, session) {
            (Some(server), Some(session)) => {
                if self.network.is_up(who.host, server) && self.network.has_zookeeper(who.host) {
                    let delay = self.network.delay(who.host, server, now, &mut self.rng);
                    self.later(delay, Event::Read { server, who, turn, session });
                }
                self.later(deadline, Event::ReadDone { who, turn, tree: None });
            }
            _ => self.later(Span::millis(1), Event::ReadDone { who, turn, tree: None }),
        }
        let slow = self.hosts[who.host].slow_disk_until > now;
        let stuck = self.hosts[who.host].pg.server.as_ref().is_some_and(|server| server.stuck_until > now);
        let takes = if slow { self.between(20, 900) } else { self.between(1, 4) };
        if stuck || takes > patience {
            self.later(patience, Event::Looked { who, turn, mute: true });
        } else {
            self.later(takes, Event::Looked { who, turn, mute: false });
        }
    }

    pub(crate) fn read_done(&mut self, who: Who, this: u32, answer: Option<Rc<Tree>>) {
        let Some(agent) = self.agent(who) else { return };
        if agent.turn != this || !matches!(agent.phase, Phase::Observing { tree: Read::Asked, .. }) {
            // Mostly the end of the time for a read that was answered long ago.
            return;
        }
        let session = agent.connection.session;
        let expired = session.is_some_and(|id| self.zk.sessions.get(id as usize).is_some_and(|s| s.expired));
        let now = self.now;
        let clock = self.clock(who.host);
        let by_version = self.is(Mutant::CompareVersions);
        let Some(agent) = self.agent(who) else { return };
        let Phase::Observing { tree, looked, .. } = &mut agent.phase else { return };
        let done = *looked;
        let heard = answer.is_some();
        let versions = answer.as_ref().map(|tree| (tree.renewal, tree.cluster.epoch.version));
        *tree = answer.filter(|_| !expired).map_or(Read::Failed, Read::Answered);
        if heard {
            agent.connection.heard = now;
        }
        if let Some((renewal, epoch)) = versions {
            agent.heart.led(epoch, clock);
            match renewal {
                Some(renewal) if by_version => agent.heart.renewed(versioned(renewal), clock),
                Some(renewal) => agent.heart.renewed(renewal, clock),
                None if by_version => {}
                None => agent.heart.missed(clock),
            }
        }
        if heard && expired {
            // The server says so; a new session is opened.
            agent.connection.session = None;
            self.disconnected(who.host);
        }
        if done {
            self.decide(who);
        }
    }

    /// A watch tells of a renewal.
    pub(crate) fn renewal_seen(&mut self, who: Who, renewal: Renewal) {
        let clock = self.clock(who.host);
        let renewal = if self.is(Mutant::CompareVersions) { versioned(renewal) } else { renewal };
        if let Some(agent) = self.agent(who) {
            agent.heart.renewed(renewal, clock);
        }
    }

    pub(crate) fn looked(&mut self, who: Who, this: u32, silent: bool) {
        let now = self.now;
        let Some(agent) = self.agent(who) else { return };
        if agent.turn != this {
            return;
        }
        let Phase::Observing { tree, looked, mute } = &mut agent.phase else { return };
        *looked = true;
        *mute = silent;
        agent.looked_at = now;
        if !matches!(tree, Read::Asked) {
            self.decide(who);
        }
    }

    /// Puts the observation together. Gives what was read of ZooKeeper for it.
    pub(super) fn complete(&mut self, who: Who) -> Option<Read> {
        self.take_acknowledgements(who);
        let host = who.host;
        let now = self.clock(host);
        let postgres = self.look(who);
        let watchdog = match (self.has_watchdog(host), self.hosts[host].resets_at) {
            (false, _) => Watchdog::Unusable,
            (true, None) => Watchdog::Ready,
            (true, Some(_)) => Watchdog::Armed,
        };
        let guard_alive = self.hosts[host].guard || self.mutant.is_some_and(Mutant::is_unguarded);
        let mut past = self.hosts[host].pg.past;
        past.old_data_kept = self.hosts[host].pg.old.is_some();
        let namesake = self.namesake_of(who);
        let renew_on_read = self.is(Mutant::RenewOnRead);
        let mutant = self.mutant;
        let at = &mut self.hosts[host];
        let agent = at.agent.as_deref_mut()?;
        let Phase::Observing { tree, .. } = &mut agent.phase else { return None };
        let read = std::mem::replace(tree, Read::Failed);
        let dcs = match (&read, agent.connection.session) {
            (Read::Answered(tree), Some(session)) => {
                agent.dcs_seen = Some(now);
                let cluster = tree.view(session);
                if renew_on_read
                    && let Some(lease) = &mut agent.lease
                    && cluster.leader.as_ref().is_some_and(|leader| leader.is_my_session)
                {
                    lease.counted_from = now;
                    at.lease_file = Some(crate::world::LeaseRecord {
                        lease: *lease,
                        fence_at: lease.fence_at(&agent.settings.timing),
                        electorate: agent.memory.electorate.clone(),
                    });
                }
                Dcs::Seen(cluster)
            }
            _ => Dcs::Silent { since: agent.dcs_seen.unwrap_or_default() },
        };
        // A crash between a promotion and its record must not lose the record.
        if let Postgres::Running(running) = &postgres
            && let Role::Primary(_) = running.role
        {
            if agent.job.is_none() && running.timeline > Timeline(1) {
                at.pg.past.promoted_to = Some(running.timeline);
            }
            if let Some(lease) = agent.lease {
                at.pg.past.led_in = Some(lease.epoch);
            }
        }
        if let (Postgres::Running(running), Dcs::Seen(cluster)) = (&postgres, &dcs)
            && cluster.initialize == pgha_core::observation::Initialize::Done(running.system_id)
        {
            at.pg.past.unrecorded = false;
        }
        let observation = agent.observation.insert(Observation {
            now,
            dcs,
            lease: agent.lease,
            postgres,
            past,
            job: agent.job.as_ref().map(|job| job.view),
            ended: agent.ended.clone(),
            peers: agent.peers.clone(),
            watchdog,
            guard_alive,
            request: agent.request,
            disk: at.disk,
            up_since: at.up_since,
            namesake,
            promise: at.promise.clone(),
            pulse: agent.heart.pulse(),
        });
        let led = matches!(&observation.dcs, Dcs::Seen(cluster)
            if cluster.leader.as_ref().is_some_and(|leader| leader.name == agent.settings.me));
        if let Dcs::Seen(cluster) = &observation.dcs
            && agent.in_flight.is_none()
            && !led
        {
            agent.bid = agent.bid.filter(|bid| cluster.epoch.epoch < *bid);
        }
        agent.free = agent.bid.is_none() && !led && observation.lease.is_none() && !observation.may_accept_writes();
        if let Dcs::Seen(cluster) = &observation.dcs {
            agent.newest_epoch = agent.newest_epoch.max(cluster.epoch.epoch);
        }
        if let Some(mutant) = mutant {
            mutant.blind(observation);
        }
        Some(read)
    }

    /// Another host that has announced itself under this one's name.
    fn namesake_of(&self, who: Who) -> Option<String> {
        self.scenario.spare?;
        let host = who.host;
        let Phase::Observing { tree: Read::Answered(tree), .. } = &self.hosts[host].agent.as_deref()?.phase else {
            return None;
        };
        let other = self.host_of(tree.owner(self.member(host))?).filter(|other| *other != host)?;
        Some(format!("host {other}"))
    }

    /// The local Postgres, as `pgha-agent`'s `Eye` sees it.
    fn look(&mut self, who: Who) -> Postgres {
        let now = self.clock(who.host);
        let members = self.scenario.members;
        // By its address; a member that is elsewhere by now is nobody that it knows.
        let named = |host: usize| Some(&self.names[host]).filter(|name| self.number(name) == Some(host)).cloned();
        let upstream = self.hosts[who.host].pg.server.as_ref().and_then(|server| server.upstream).and_then(named);
        let host = &mut self.hosts[who.host];
        let Some(agent) = host.agent.as_deref_mut() else { return Postgres::NoData };
        let mute = matches!(agent.phase, Phase::Observing { mute: true, .. });
        let Some(server) = &host.pg.server else {
            agent.eye = super::Eye::default();
            return match &host.pg.data {
                None => Postgres::NoData,
                Some(_) if host.unreadable_until > self.now => Postgres::Unusable("permission denied".to_owned()),
                Some(data) => Postgres::Stopped(data.control()),
            };
        };
        let Some(data) = &host.pg.data else {
            return Postgres::Unusable("no data under a running server".to_owned());
        };
        if agent.eye.number != Some(server.number) {
            agent.eye = super::Eye { number: Some(server.number), since: now, ..super::Eye::default() };
        }
        if server.life != Life::Running {
            let as_primary = agent.eye.was_primary || !data.standby_signal;
            let awaits = data.broken.map(|_| Lsn(data.at.lsn));
            return Postgres::Starting { since: agent.eye.since, as_primary, awaits };
        }
        if mute {
            let as_primary = !data.standby_signal;
            let starting = Postgres::Starting { since: agent.eye.since, as_primary, awaits: None };
            let was_primary = agent.eye.was_primary;
            return agent.eye.answered.map_or(starting, |since| Postgres::Mute { since, was_primary });
        }
        let branch = self.wal.timeline(data.at.branch);
        let streaming = server.receiver.is_some();
        let timeline =
            if server.primary || streaming { branch } else { data.checkpoint_timeline.max(data.recovered.0) };
        let timeline = agent.eye.timeline.map_or(timeline, |known| known.max(timeline));
        agent.eye.timeline = Some(timeline);
        agent.eye.answered = Some(now);
        agent.eye.was_primary = server.primary;
        let role = if server.primary {
            let senders = (0..members).filter_map(|member| {
                let sender = server.senders[member].as_ref()?;
                Some(Sender {
                    name: self.names[member].as_str().to_owned(),
                    connected: sender.connected,
                    streaming: sender.streaming,
                    named: sender.names.form_for(member),
                    flushed: Lsn(sender.flushed),
                })
            });
            Role::Primary(Primary {
                flushed: Lsn(data.at.lsn),
                sync_names: server.shown.text.clone(),
                checkpointer_settled: !server.settling,
                senders: senders.collect(),
                slots: data.slots.shown(server),
                checkpoint_pending: data.checkpoint_timeline < branch,
            })
        } else {
            // A walreceiver is started at the end of what is there.
            let complete = streaming || server.replays_until <= self.now;
            let known = server.replayed(data, self.now);
            Role::Standby(Standby {
                received: if streaming { Lsn(known) } else { Lsn::INVALID },
                replayed: Lsn(known),
                complete,
                streaming,
                upstream,
                tie: match server.upstream.is_some() || streaming {
                    true => Tie::Bound,
                    false if complete && server.restores_until <= self.now => Tie::Free,
                    false => Tie::Loose,
                },
                slots: data.slots.shown(server),
                checkpoint_pending: streaming && data.checkpoint_timeline < branch,
                paused: false,
            })
        };
        Postgres::Running(Box::new(Running { system_id: data.system, timeline, role }))
    }
}

impl Agent {
    /// Whether it has looked at its Postgres lately, and so tells others how far it is, and that it may lead.
    pub fn is_settled(&self, now: Time, steady: Span) -> bool {
        let published = &self.published;
        published.position.is_some()
            && now.since(published.barred) > steady
            && self.job.is_none()
            && now.since(self.turn_began) < steady
    }

    /// Whether it has seen the seat empty for less than `ttl`.
    pub fn is_patient(&self, now: pgha_core::time::Instant, ttl: pgha_core::time::Millis) -> bool {
        self.memory.vacant_since.is_some_and(|since| now.since(since) < ttl)
    }

    /// Whether it still waits for its last write to be answered.
    pub fn awaits_write(&self) -> bool {
        self.in_flight.is_some_and(|in_flight| in_flight.awaited)
    }

    /// Whether a balancer would send writes to it.
    pub fn is_primary(&self, now: pgha_core::time::Instant) -> bool {
        let published = &self.published;
        published.leads
            && published.writable
            && published.lease.is_some_and(|lease| lease.holds(now, &self.settings.timing))
    }
}

/// For a mutant: the version stands for the transaction.
fn versioned(renewal: Renewal) -> Renewal {
    Renewal { zxid: i64::from(renewal.version), ..renewal }
}
