//! Faults as they begin and end.

use pgha_core::observation::{ClusterSettings, FailoverRequest, Request, Synchrony};

use crate::event::{Event, Who};
use crate::model::network::CLIENTS;
use crate::model::postgres::Server;
use crate::model::zookeeper::Write;
use crate::scenario::{Edit, Fault, LEADER, Moment, Planned, Strike};
use crate::time::Span;
use crate::world::World;

impl Fault {
    /// With the leader's host for whoever leads.
    fn aimed_at(self, leader: usize) -> Self {
        let aim = |host: usize| if host == LEADER { leader } else { host };
        match self {
            Self::Power(host) => Self::Power(aim(host)),
            Self::Freeze(host) => Self::Freeze(aim(host)),
            Self::KillAgent(host) => Self::KillAgent(aim(host)),
            Self::FreezeAgent(host) => Self::FreezeAgent(aim(host)),
            Self::KillGuard(host) => Self::KillGuard(aim(host)),
            Self::KillPostgres(host) => Self::KillPostgres(aim(host)),
            Self::FreezePostgres(host) => Self::FreezePostgres(aim(host)),
            Self::Isolate(host) => Self::Isolate(aim(host)),
            Self::OneWay(host, hears) => Self::OneWay(aim(host), hears),
            Self::Part(one, other) => Self::Part(aim(one), aim(other)),
            Self::Slow(host) => Self::Slow(aim(host)),
            Self::SlowDisk(host) => Self::SlowDisk(aim(host)),
            Self::RestartAgent(host) => Self::RestartAgent(aim(host)),
            Self::StopAgent(host) => Self::StopAgent(aim(host)),
            Self::RestartPostgres(host) => Self::RestartPostgres(aim(host)),
            Self::Reinitialize(host) => Self::Reinitialize(aim(host)),
            Self::StartFails(host) => Self::StartFails(aim(host)),
            Self::SlowRecovery(host) => Self::SlowRecovery(aim(host)),
            Self::LoseZooKeeper(host) => Self::LoseZooKeeper(aim(host)),
            Self::DiskFails(host, disk) => Self::DiskFails(aim(host), disk),
            Self::Mishap(mishap) => Self::Mishap(mishap.aimed_at(leader)),
            Self::KillServer(_)
            | Self::Elect
            | Self::Switchover(_)
            | Self::Pause
            | Self::RewindFails(_)
            | Self::Break(..)
            | Self::StopEnsemble
            | Self::Blackout(_)
            | Self::Failover(_)
            | Self::Scheduled(_)
            | Self::Edit(_)
            | Self::Ambush(..) => self,
        }
    }
}

fn edited(edit: Edit, settings: &ClusterSettings) -> ClusterSettings {
    let settings = settings.clone();
    match edit {
        Edit::Synchrony => {
            let synchrony = match settings.synchrony {
                Synchrony::Off => Synchrony::Off,
                Synchrony::Named => Synchrony::Quorum,
                Synchrony::Quorum => Synchrony::Named,
            };
            ClusterSettings { synchrony, ..settings }
        }
        Edit::SyncCount(sync_count) => ClusterSettings { sync_count, ..settings },
        Edit::Strict => ClusterSettings { strict: !settings.strict && settings.is_synchronous(), ..settings },
        Edit::Failsafe => ClusterSettings { failsafe: !settings.failsafe, ..settings },
    }
}

impl World {
    pub(crate) fn fault(&mut self, index: usize) {
        let mut planned = self.scenario.faults[index];
        let leader = self.zk.committed.leader.map_or(0, |(leader, _)| self.member(leader));
        planned.fault = planned.fault.aimed_at(leader);
        self.begun.insert(index, planned.fault);
        let until = self.now + planned.lasts;
        self.say(|_| format!("FAULT  {:?} for {} ms", planned.fault, planned.lasts.as_millis()));
        match planned.fault {
            Fault::Power(host) => self.power_off(host),
            Fault::Freeze(host) => {
                if self.hosts[host].on {
                    let until = until.max(self.hosts[host].frozen_until);
                    self.hosts[host].frozen_until = until;
                    self.frozen_until = self.frozen_until.max(until);
                    self.queue.push(until, Event::Thaw(host));
                    self.topology_changed();
                }
            }
            Fault::Ambush(moment, strike) => self.ambushes.push((moment, strike)),
            Fault::KillAgent(host) => self.agent_dies(host, planned.lasts),
            Fault::FreezeAgent(host) => {
                if self.hosts[host].agent.is_some() {
                    // systemd kills a service that does not ping it.
                    let patience = self.now + Span::millis(self.timing.hung_after().0);
                    self.hosts[host].agent_frozen_until = until.min(patience);
                    self.frozen_until = self.frozen_until.max(until);
                    if until > patience {
                        let who = Who { host, start: self.hosts[host].agent_starts };
                        self.queue.push(patience, Event::Hung(who));
                    }
                }
            }
            Fault::KillGuard(host) => {
                if self.hosts[host].on {
                    self.hosts[host].guard = false;
                    let boot = self.hosts[host].boot;
                    let takes = self.between(100, 400);
                    self.later(takes, Event::GuardStart { host, boot });
                }
            }
            Fault::KillPostgres(host) => {
                self.kill_postgres(host, "a fault");
            }
            Fault::FreezePostgres(host) => {
                if let Some(server) = &mut self.hosts[host].pg.server {
                    server.stuck_until = server.stuck_until.max(until);
                    self.frozen_until = self.frozen_until.max(until);
                }
            }
            Fault::KillServer(server) => {
                self.zk.servers[server].up = false;
                self.stop_serving(server);
                self.topology_changed();
            }
            Fault::Elect => {
                if self.zk.leader.take().is_some() {
                    for server in 0..self.zk.servers.len() {
                        self.stop_serving(server);
                    }
                    self.topology_changed();
                }
            }
            Fault::Isolate(_) | Fault::OneWay(..) | Fault::Part(..) => {
                for (from, to) in self.links(planned.fault) {
                    self.network.cut(from, to);
                }
                self.topology_changed();
            }
            Fault::Slow(host) => self.network.slow(host, until),
            Fault::SlowDisk(host) => self.hosts[host].slow_disk_until = until,
            Fault::RestartAgent(host) => self.agent_dies(host, Span(0)),
            Fault::StopAgent(host) => {
                self.hosts[host].agent_stopped = true;
                self.request(host, Request::Shutdown);
            }
            Fault::RestartPostgres(host) => self.request(host, Request::Restart),
            Fault::Reinitialize(host) => {
                // REST refuses it for a leader.
                if self.zk.committed.leader.is_none_or(|(leader, _)| leader != host) {
                    self.request(host, Request::Reinitialize);
                }
            }
            Fault::Switchover(candidate) => {
                let leader = self.zk.committed.leader.map(|(leader, _)| self.names[leader].clone());
                let Some(leader) = leader.filter(|leader| Some(leader) != candidate.map(|c| &self.names[c])) else {
                    return;
                };
                let candidate = candidate.map(|candidate| self.names[candidate].clone());
                self.operate(&Write::Ask(FailoverRequest {
                    leader: Some(leader),
                    candidate,
                    later: false,
                    version: 0,
                }));
            }
            Fault::Pause => {
                self.set_paused(true);
            }
            Fault::RewindFails(host) => self.hosts[host].rewind_fails_until = until,
            Fault::StartFails(host) => self.hosts[host].start_fails_until = until,
            Fault::Break(host, breakage) => self.break_data(host, breakage),
            Fault::SlowRecovery(host) => {
                self.hosts[host].recovers_until = until;
                self.kill_postgres(host, "a fault");
            }
            Fault::LoseZooKeeper(host) => self.network.cut_zookeeper(host),
            Fault::StopEnsemble => {
                for server in 0..self.zk.servers.len() {
                    self.zk.servers[server].up = false;
                    self.stop_serving(server);
                }
                self.topology_changed();
            }
            Fault::Blackout(left) => {
                for host in (0..self.scenario.members).filter(|host| *host != left) {
                    self.power_off(host);
                    if host != leader {
                        self.later(Span::millis(500), Event::PowerOn(host));
                    }
                }
            }
            Fault::DiskFails(host, disk) => {
                self.hosts[host].disk = disk;
                self.hosts[host].start_fails_until = until;
                if self.rng.bool() {
                    // PANIC: could not write to file "pg_wal/xlogtemp"
                    self.kill_postgres(host, "its disk takes no writes");
                }
            }
            Fault::Failover(candidate) => {
                // Whom a primary in failsafe mode does not count on, an operator makes primary only where there is none.
                let record = &self.zk.committed.cluster.failsafe.members;
                let counted_on = record.is_empty() || record.contains(&self.names[candidate]);
                let serves = |host: usize| self.hosts[host].pg.server.as_ref().is_some_and(Server::writable);
                if !counted_on && (0..self.scenario.members).any(serves) {
                    return;
                }
                let candidate = Some(self.names[candidate].clone());
                self.operate(&Write::Ask(FailoverRequest { leader: None, candidate, later: false, version: 0 }));
            }
            Fault::Scheduled(candidate) => self.schedule(candidate),
            Fault::Mishap(mishap) => self.mishap(mishap, until),
            // See the mishap.
            Fault::Edit(Edit::Failsafe) if self.namesake.is_some() => {}
            Fault::Edit(edit) => {
                if let Some(settings) = self.zk.committed.cluster.config.clone() {
                    self.operate(&Write::Set(edited(edit, &settings)));
                }
            }
        }
    }

    /// An operator asks for a switchover at a later time.
    fn schedule(&mut self, candidate: usize) {
        let leader = self.zk.committed.leader.map(|(leader, _)| leader).filter(|leader| *leader != candidate);
        if let Some(leader) = leader {
            let (leader, candidate) = (Some(self.names[leader].clone()), Some(self.names[candidate].clone()));
            self.operate(&Write::Ask(FailoverRequest { leader, candidate, later: true, version: 0 }));
        }
    }

    pub(crate) fn fault_end(&mut self, index: usize) {
        let Some(fault) = self.begun.get(&index).copied() else { return };
        match fault {
            Fault::Power(host) => self.power_on(host),
            Fault::KillServer(server) => self.server_up(server),
            Fault::Isolate(_) | Fault::OneWay(..) | Fault::Part(..) => {
                for (from, to) in self.links(fault) {
                    self.healed(from, to);
                }
                self.topology_changed();
            }
            Fault::StopAgent(host) => {
                self.hosts[host].agent_stopped = false;
                let boot = self.hosts[host].boot;
                self.later(Span::millis(50), Event::AgentStart { host, boot });
            }
            Fault::LoseZooKeeper(host) => {
                self.network.heal_zookeeper(host);
                self.deliver_held();
            }
            Fault::StopEnsemble => {
                for server in 0..self.zk.servers.len() {
                    self.server_up(server);
                }
            }
            Fault::Blackout(left) => {
                for host in (0..self.scenario.members).filter(|host| *host != left) {
                    self.power_on(host);
                }
            }
            Fault::DiskFails(host, _) => {
                self.hosts[host].disk = pgha_core::observation::Disk::Sound;
                self.hosts[host].disk_failed_until = self.now;
            }
            Fault::Scheduled(_) => {
                // Its time has come, whoever leads by now.
                if let Some(request) = self.zk.committed.cluster.failover.clone().filter(|request| request.later) {
                    self.operate(&Write::Ask(FailoverRequest { later: false, ..request }));
                }
            }
            // An operator who is told that ZooKeeper is away tries again.
            Fault::Mishap(mishap) if !self.put_right(mishap) => {
                self.later(Span::millis(500), Event::FaultEnd(index));
            }
            Fault::Pause if !self.set_paused(false) => self.later(Span::millis(500), Event::FaultEnd(index)),
            _ => {}
        }
    }

    /// Something happened that an ambush may have waited for.
    pub(crate) fn spring(&mut self, moment: Moment, host: usize) {
        let Some(at) = self.ambushes.iter().position(|(wanted, _)| *wanted == moment).filter(|_| !self.calm) else {
            return;
        };
        let (_, strike) = self.ambushes.remove(at);
        self.reached.mark(match moment {
            Moment::Promotion => "struck at a promotion",
            Moment::Rewind => "struck in a rewind",
            Moment::Copy => "struck in a copy",
            Moment::SyncRecord => "struck at a change of the synchronous record",
            Moment::Take => "struck after taking the leadership",
            Moment::Stop => "struck at a handover",
            Moment::Bid => "struck while reaching for the leadership",
        });
        // A process that is killed at the very moment leaves other things behind than one that has a moment more.
        match strike {
            Strike::Power => self.strike(Fault::Power(host), 400),
            Strike::Freeze => self.strike(Fault::Freeze(host), 400),
            Strike::Isolate => self.strike(Fault::Isolate(host), 400),
            Strike::KillAgent => self.strike(Fault::KillAgent(host), 4),
            Strike::LoseZooKeeper => self.strike(Fault::LoseZooKeeper(host), 0),
            Strike::BlindOthers => {
                for other in (0..self.scenario.members).filter(|other| *other != host) {
                    self.strike(Fault::LoseZooKeeper(other), 0);
                }
            }
        }
    }

    /// A fault that was not planned, within `longest` milliseconds.
    fn strike(&mut self, fault: Fault, longest: u64) {
        let at = self.now + self.between(0, longest);
        let lasts = self.between(500, 25_000);
        self.scenario.faults.push(Planned { at, lasts, fault });
        let index = self.scenario.faults.len() - 1;
        self.queue.push(at + lasts, Event::FaultEnd(index));
        if longest == 0 {
            self.fault(index);
        } else {
            self.queue.push(at, Event::Fault(index));
        }
    }

    /// The links that a fault cuts.
    fn links(&self, fault: Fault) -> Vec<(usize, usize)> {
        let others = |host: usize| (0..self.hosts.len()).filter(move |other| *other != host).chain([CLIENTS]);
        match fault {
            Fault::Isolate(host) => others(host).flat_map(|other| [(host, other), (other, host)]).collect(),
            Fault::OneWay(host, hears) => {
                others(host).map(|other| if hears { (host, other) } else { (other, host) }).collect()
            }
            Fault::Part(one, other) if one != other => vec![(one, other), (other, one)],
            _ => Vec::new(),
        }
    }

    /// An operator asks a member for something.
    pub(crate) fn request(&mut self, host: usize, request: Request) {
        if let Some(agent) = self.hosts[host].agent.as_deref_mut()
            && agent.request != Some(Request::Shutdown)
        {
            agent.request = Some(request);
            self.nudge(host);
        }
    }

    /// Says whether it could be done.
    fn set_paused(&mut self, paused: bool) -> bool {
        match self.zk.committed.cluster.config.clone() {
            None => true,
            Some(settings) => self.operate(&Write::Set(ClusterSettings { paused, ..settings })),
        }
    }

    /// An operator writes a document. Says whether it could be done.
    pub(crate) fn operate(&mut self, write: &Write) -> bool {
        let next = self.zk.committed.apply(&self.names, 0, u32::MAX, write, false);
        match next.filter(|_| self.zk.leader.is_some()) {
            Some(next) => {
                self.commit_tree(next);
                true
            }
            None => false,
        }
    }

    /// systemd kills a service that does not ping.
    pub(crate) fn hung(&mut self, who: Who) {
        if self.hosts[who.host].agent_starts == who.start {
            self.reached.mark("hung agent killed");
            self.agent_dies(who.host, Span(0));
        }
    }
}
