//! ZooKeeper at work: requests on their way, commits, sessions, and the change of leaders.

use std::rc::Rc;

use crate::event::{Event, Who};
use crate::invariant;
use crate::model::zookeeper::{SessionId, Tree, Write};
use crate::mutant::Mutant;
use crate::scenario::Moment;
use crate::time::{Span, Time};
use crate::world::World;

/// `syncLimit`, in ticks: a leader and its followers do without each other for so long.
const SYNC_LIMIT: u64 = 4;

impl World {
    /// Whether a server of ZooKeeper runs, and its host with it.
    fn server_lives(&self, server: usize) -> bool {
        self.zk.servers[server].up && self.hosts[server].on && self.hosts[server].frozen_until <= self.now
    }

    /// Whether a majority is in touch with `leader`.
    fn has_quorum(&self, leader: usize) -> bool {
        let with =
            |server: usize| server == leader || (self.server_lives(server) && self.network.talks(leader, server));
        let count = (0..self.zk.servers.len()).filter(|server| with(*server)).count();
        self.server_lives(leader) && count * 2 > self.zk.servers.len()
    }

    /// Whether the leader of the ensemble still is what it was when it was elected.
    fn leads(&self, leader: usize) -> bool {
        self.zk.servers[leader].serving && self.has_quorum(leader)
    }

    /// A server that members may use: it takes part in an ensemble that has a leader.
    pub(crate) fn serves(&self, server: usize) -> bool {
        self.server_lives(server) && self.zk.servers[server].serving
    }

    /// To be called when hosts, links or servers have changed: the ensemble may have to change with them.
    pub(crate) fn topology_changed(&mut self) {
        let Some(leader) = self.zk.leader else {
            let delay = self.between(200, 900);
            self.later(delay, Event::Elect);
            return;
        };
        let term = self.zk.term;
        let limit = Span(self.zk.tick.0 * SYNC_LIMIT);
        if !self.leads(leader) {
            // A dead process is noticed at once, a silent one when its time is over.
            let dead = self.hosts[leader].on && !self.zk.servers[leader].serving;
            self.later(if dead { Span::millis(20) } else { limit }, Event::LeaderLost { term });
        }
        let lost = (0..self.zk.servers.len())
            .filter(|server| *server != leader && self.zk.servers[*server].serving)
            .any(|server| !self.network.talks(leader, server));
        if lost {
            self.later(limit, Event::LeaderLost { term });
        }
        self.join_ensemble();
    }

    /// Servers that reach the leader again follow it.
    fn join_ensemble(&mut self) {
        let Some(leader) = self.zk.leader.filter(|leader| self.leads(*leader)) else { return };
        for server in 0..self.zk.servers.len() {
            let reaches = self.server_lives(server) && self.network.talks(leader, server);
            if server != leader && reaches && !self.zk.servers[server].serving {
                self.zk.servers[server].serving = true;
                self.zk.servers[server].applied = self.zk.committed.clone();
            }
        }
        self.schedule_expiry();
    }

    pub(crate) fn leader_lost(&mut self, term: u32) {
        let Some(leader) = self.zk.leader.filter(|_| self.zk.term == term) else { return };
        if self.leads(leader) {
            // A follower that was lost looks for a leader again, and finds this one.
            for server in 0..self.zk.servers.len() {
                if server != leader && !self.network.talks(leader, server) {
                    self.stop_serving(server);
                }
            }
            self.join_ensemble();
            return;
        }
        self.say(|world| format!("ZooKeeper on {} leads no longer", world.names[leader]));
        self.zk.leader = None;
        for server in 0..self.zk.servers.len() {
            self.stop_serving(server);
        }
        let delay = self.between(200, 900);
        self.later(delay, Event::Elect);
    }

    /// A server that belongs to no ensemble closes its connections.
    pub(crate) fn stop_serving(&mut self, server: usize) {
        if std::mem::take(&mut self.zk.servers[server].serving) {
            self.zk.servers[server].touched.clear();
            self.zk.servers[server].starts += 1;
            self.drop_connections(server);
        }
    }

    /// Members connected to the server hear that it is gone, if they hear anything.
    pub(crate) fn drop_connections(&mut self, server: usize) {
        for host in 0..self.hosts.len() {
            let reset = self.hosts[server].on && self.network.is_up(server, host) && self.network.has_zookeeper(host);
            let connected =
                self.hosts[host].agent.as_deref().is_some_and(|agent| agent.connection.server == Some(server));
            if connected && reset {
                self.disconnected(host);
            }
        }
    }

    pub(crate) fn elect(&mut self) {
        if self.zk.leader.is_some() {
            return;
        }
        let able: Vec<usize> = (0..self.zk.servers.len()).filter(|server| self.has_quorum(*server)).collect();
        if able.is_empty() {
            return;
        }
        let leader = able[self.rng.usize(0..able.len())];
        self.say(|world| format!("ZooKeeper on {} leads", world.names[leader]));
        self.zk.elect(leader, self.now);
        self.zk.servers[leader].serving = true;
        self.join_ensemble();
        self.schedule_expiry();
    }

    fn schedule_expiry(&mut self) {
        let Some(at) = self.zk.next_expiry().map(|at| at.max(self.now)) else { return };
        if self.zk.expiry_look.is_none_or(|look| look > at) {
            self.zk.expiry_look = Some(at);
            self.queue.push(at, Event::Expire);
        }
    }

    /// Sessions whose time is over lose what they own.
    pub(crate) fn expire(&mut self) {
        if self.zk.expiry_look.is_none_or(|look| look > self.now) {
            return;
        }
        self.zk.expiry_look = None;
        let Some(leader) = self.zk.leader else { return };
        if !self.leads(leader) {
            // It cannot commit the end of anything. The next leader begins anew.
            return;
        }
        let now = self.now;
        let over: Vec<usize> = (0..self.zk.sessions.len())
            .filter(|id| !self.zk.sessions[*id].expired && self.zk.sessions[*id].expires <= now)
            .collect();
        for id in over {
            self.zk.sessions[id].expired = true;
            let owner = self.zk.sessions[id].owner;
            self.say(|world| format!("session {id} of {} expires", world.names[owner]));
            let session = SessionId::try_from(id).unwrap_or(SessionId::MAX);
            if let Some(next) = self.zk.committed.without(&self.names, session) {
                let member = self.member(owner);
                if self.zk.committed.owner(member) == Some(session) {
                    self.away_since[member] = Some(self.now);
                }
                let led = self.zk.committed.leader.is_some_and(|(_, owns)| owns == session);
                self.commit_tree(next);
                if led {
                    invariant::fenced::check(self, owner);
                }
            }
        }
        self.schedule_expiry();
    }

    /// A new committed state, on its way to all servers.
    pub(crate) fn commit_tree(&mut self, tree: Tree) {
        let tree = Rc::new(tree);
        let since = self.vacant_since.unwrap_or(self.now);
        self.vacant_since = tree.leader.is_none().then_some(since);
        self.zk.committed = tree.clone();
        let Some(leader) = self.zk.leader else { return };
        let term = self.zk.term;
        for server in 0..self.zk.servers.len() {
            if server == leader {
                self.apply(server, term, &tree);
            } else if self.zk.servers[server].serving {
                // It comes, soon or when the link is whole again, unless the follower has given the leader up by then.
                self.send(leader, server, Event::Apply { server, term, tree: tree.clone() });
            }
        }
    }

    pub(crate) fn apply(&mut self, server: usize, term: u32, tree: &Rc<Tree>) {
        if self.zk.term != term || !self.serves(server) || self.zk.servers[server].applied.zxid >= tree.zxid {
            return;
        }
        let before = std::mem::replace(&mut self.zk.servers[server].applied, tree.clone());
        let watched = before.leader != tree.leader
            || before.failover_version != tree.failover_version
            || before.cluster.config != tree.cluster.config
            || before.cluster.initialize != tree.cluster.initialize;
        let renewed = tree.renewal.filter(|renewal| before.renewal != Some(*renewal));
        if !watched && renewed.is_none() {
            return;
        }
        for host in 0..self.hosts.len() {
            let connected =
                self.hosts[host].agent.as_deref().is_some_and(|agent| agent.connection.server == Some(server));
            // A watch may be lost.
            let told = self.network.is_up(server, host) && self.network.has_zookeeper(host);
            if connected && told && self.rng.u8(0..32) != 0 {
                let who = Who { host, start: self.hosts[host].agent_starts };
                let delay = self.network.delay(server, host, self.now, &mut self.rng);
                if watched {
                    self.later(delay, Event::Wake(who));
                }
                if let Some(renewal) = renewed {
                    self.later(delay, Event::RenewalSeen { who, renewal });
                }
            }
        }
    }

    /// A session speaks to a server.
    fn heard(&mut self, server: usize, session: SessionId) {
        if self.zk.leader == Some(server) {
            self.zk.touch(session, self.now);
            return;
        }
        if self.zk.servers[server].touched.is_empty() {
            // Pings come every half tick.
            let half = self.zk.tick.0 / 2;
            let next = Time((self.now.0 / half + 1) * half + 50 * server as u64);
            self.queue.push(next, Event::Report { server, term: self.zk.term });
        }
        if !self.zk.servers[server].touched.contains(&session) {
            self.zk.servers[server].touched.push(session);
        }
    }

    /// A follower answers the leader's ping with the sessions that it heard of.
    pub(crate) fn report(&mut self, server: usize, term: u32) {
        let touched = std::mem::take(&mut self.zk.servers[server].touched);
        let Some(leader) = self.zk.leader.filter(|_| self.zk.term == term && self.serves(server)) else { return };
        if !self.network.talks(leader, server) {
            return;
        }
        // The report travels; a session that expires before it arrives is lost. Its way is short.
        for session in touched {
            self.zk.touch(session, self.now);
        }
    }

    /// Whether a server knows the connection over which it is spoken to; one that was restarted does not.
    fn knows(&mut self, server: usize, who: Who) -> bool {
        let (up, starts) = (self.server_lives(server), self.zk.servers[server].starts);
        let stale = self
            .agent(who)
            .is_some_and(|agent| agent.connection.server == Some(server) && (!up || agent.connection.starts != starts));
        let heard = self.network.is_up(server, who.host) && self.network.has_zookeeper(who.host);
        if stale && self.hosts[server].on && heard {
            self.disconnected(who.host);
        }
        !stale
    }

    pub(crate) fn serve_read(&mut self, server: usize, who: Who, turn: u32, session: SessionId) {
        if !self.knows(server, who) || !self.serves(server) {
            return;
        }
        self.heard(server, session);
        let tree = self.zk.servers[server].applied.clone();
        if self.network.is_up(server, who.host) && self.network.has_zookeeper(who.host) {
            let delay = self.network.delay(server, who.host, self.now, &mut self.rng);
            self.later(delay, Event::ReadDone { who, turn, tree: Some(tree) });
        }
    }

    pub(crate) fn serve_write(
        &mut self,
        server: usize,
        forwarded: Option<usize>,
        who: Who,
        id: u32,
        session: SessionId,
        mut write: Box<Write>,
    ) {
        if forwarded.is_none() && !self.knows(server, who) || !self.serves(server) {
            return;
        }
        let Some(leader) = self.zk.leader else { return };
        if server != leader {
            if forwarded.is_none() {
                self.heard(server, session);
                self.send(
                    server,
                    leader,
                    Event::Write { server: leader, forwarded: Some(server), who, id, session, write },
                );
            }
            return;
        }
        if forwarded.is_none() {
            self.heard(server, session);
        }
        if !self.leads(leader) {
            // A proposal waits for its quorum as long as its leader leads.
            self.later(Span::millis(40), Event::Write { server, forwarded, who, id, session, write });
            return;
        }
        if self.zk.sessions.get(session as usize).is_none_or(|session| session.expired) {
            return;
        }
        let unchecked = self.is(Mutant::SkipEpochCheck);
        if let Write::Take { lapsed: Some(lapsed), .. } = write.as_mut()
            && self.is(Mutant::EvictUnchecked)
        {
            lapsed.renewal = self.zk.committed.renewal.map(|newest| newest.version);
        }
        let next = self.zk.committed.apply(&self.names, who.host, session, &write, unchecked);
        let done = next.is_some();
        if let Some(next) = next {
            let taken = match *write {
                Write::Take { epoch, .. } => Some(epoch),
                _ => None,
            };
            if matches!(*write, Write::Announce { .. }) {
                let member = self.member(who.host);
                self.away_since[member] = None;
            }
            let moment = match *write {
                Write::Take { .. } => Some(Moment::Take),
                Write::Sync { .. } => Some(Moment::SyncRecord),
                _ => None,
            };
            if let Some(moment) = moment {
                self.spring(moment, who.host);
            }
            self.say(|world| format!("{} writes {write:?}", world.names[who.host]));
            if let Some(epoch) = taken {
                invariant::ahead::check(self, who.host);
                self.forgive(who.host, epoch);
            }
            let before = self.zk.committed.leader;
            self.commit_tree(next);
            invariant::former::check(self, who.host, session, &write, before);
            if taken.is_some() {
                if self.scenario.is_calm() && self.led_once {
                    invariant::calm::violated(self, "the leadership changed");
                }
                invariant::fenced::check_others(self, who.host);
                self.led_once = true;
            }
        }
        // The answer comes with the commit, through the server that the member is connected to.
        let through = forwarded.unwrap_or(server);
        self.send(leader, through, Event::Answer { server: through, who, id, done });
    }

    /// A server hands the answer to a write on to whom it is for.
    pub(crate) fn answer(&mut self, server: usize, who: Who, id: u32, done: bool) {
        if self.serves(server) {
            self.send(server, who.host, Event::WriteDone { who, id, done });
        }
    }

    pub(crate) fn server_up(&mut self, server: usize) {
        if self.hosts[server].on {
            self.zk.servers[server].up = true;
            self.zk.servers[server].starts += 1;
            self.topology_changed();
        }
    }

    /// A member tries to connect: it takes up its session again, or opens one.
    pub(crate) fn connect(&mut self, who: Who) {
        let Some(agent) = self.agent(who) else { return };
        if agent.connection.server.is_some() {
            return;
        }
        let session = agent.connection.session;
        let again = self.between(100, 1000);
        let server = self.rng.usize(0..self.zk.servers.len());
        let reachable = self.serves(server)
            && self.network.talks(who.host, server)
            && self.network.has_zookeeper(who.host)
            && self.zk.leader.is_some_and(|leader| self.leads(leader) && self.network.talks(server, leader));
        if !reachable {
            self.later(again, Event::Connect(who));
            return;
        }
        let now = self.now;
        let seen = self.agent(who).and_then(|agent| agent.newest);
        if session.is_some() && seen > Some(self.zk.servers[server].applied.zxid) {
            // A server refuses a client that has seen more than it has.
            self.later(again, Event::Connect(who));
            return;
        }
        let known = session.filter(|session| self.zk.touch(*session, now));
        if known.is_none() {
            // The making of a session is a commit: its server has everything that came before.
            self.zk.servers[server].applied = self.zk.committed.clone();
        }
        let session = known.unwrap_or_else(|| self.zk.open(who.host, now));
        self.schedule_expiry();
        let starts = self.zk.servers[server].starts;
        if let Some(agent) = self.agent(who) {
            agent.connection.starts = starts;
            agent.connection.server = Some(server);
            agent.connection.session = Some(session);
            agent.connection.heard = now;
            if known.is_none() {
                agent.heart.reborn();
            }
        }
        let delay = self.between(1, 5);
        self.later(delay, Event::Wake(who));
    }
}
