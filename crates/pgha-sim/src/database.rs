//! Postgres at work: starting and dying, streaming, and commits that wait for standbys.

use pgha_core::lsn::Timeline;
use pgha_core::observation::ControlState;

use crate::event::{Event, Taker, Who};
use crate::invariant::{self, Violation};
use crate::model::postgres::{Breakage, Life, Sender, Server, SyncNames, Waiting};
use crate::model::slots::Kind;
use crate::model::wal::Position;
use crate::mutant::Mutant;
use crate::scenario::Moment;
use crate::time::Span;
use crate::world::World;

/// `wal_sender_timeout` and `wal_receiver_timeout`.
const SILENCE: Span = Span::secs(5);
/// How often a stream is looked at.
const LOOK: Span = Span::millis(600);

impl World {
    /// A new server on the data of a host.
    pub(crate) fn start_postgres(&mut self, host: usize, primary: bool, upstream: Option<usize>) {
        let members = self.scenario.members;
        let now = self.now;
        let pg = &mut self.hosts[host].pg;
        pg.starts += 1;
        let number = pg.starts;
        let mut server = Server::new(number, now, primary, upstream, members);
        let text = pg.configured.clone();
        server.shown = SyncNames::parse(&text, &self.names);
        server.defined = server.shown.is_defined();
        pg.server = Some(server);
        // A server that was not shut down recovers first.
        let unclean = pg.data.as_ref().is_some_and(|data| {
            matches!(data.state, ControlState::InProduction | ControlState::InArchiveRecovery | ControlState::Other)
        });
        if let Some(data) = pg.data.as_mut().filter(|_| unclean) {
            data.slots.recover();
        }
        let takes = if unclean { self.between(150, 6000) } else { self.between(80, 800) };
        let takes = takes.max(self.hosts[host].recovers_until.since(now));
        let who = Who { host, start: number };
        match self.hosts[host].pg.data.as_ref().and_then(|data| data.broken) {
            None => self.later(takes, Event::Started(who)),
            Some(Breakage::Ends) => {
                let lives = self.between(10, 8000);
                self.later(lives, Event::Died(who));
            }
            Some(Breakage::Hangs) => {}
        }
        self.arm_guard(host);
    }

    /// A standby finds that it cannot use what it has, while somebody serves who has everything.
    pub(crate) fn break_data(&mut self, host: usize, breakage: Breakage) {
        let serves = |host: usize| self.hosts[host].pg.server.as_ref().is_some_and(Server::writable);
        let leads = self.zk.committed.leader.is_some_and(|(leader, _)| leader != host && serves(leader));
        // What a copy did not mend is tried again after a long time only, and as long as it has not streamed that is all it is.
        let now = self.now;
        let streams = self.hosts[host]
            .pg
            .server
            .as_ref()
            .is_some_and(|server| server.receiver.is_some() && now.since(server.ready) >= Span::secs(20));
        if let Some(data) = self.hosts[host].pg.data.as_mut().filter(|_| leads && streams) {
            data.broken = Some(breakage);
            self.kill_postgres(host, "PANIC: WAL contains references to invalid pages");
        }
    }

    fn server(&mut self, who: Who) -> Option<&mut Server> {
        self.hosts[who.host].pg.server.as_mut().filter(|server| server.number == who.start)
    }

    pub(crate) fn started(&mut self, who: Who) {
        let (host, now) = (who.host, self.now);
        // It answers as soon as it is consistent, and may have much to replay before it is at its end.
        let replays = if self.rng.u8(0..4) == 0 { self.between(500, 12_000) } else { self.between(0, 300) };
        let Some(server) = self.server(who) else { return };
        if server.life != Life::Starting {
            return;
        }
        server.life = Life::Running;
        server.ready = now;
        server.replays_until = now + replays;
        let primary = server.primary;
        if let Some(data) = &mut self.hosts[host].pg.data {
            data.state = if primary { ControlState::InProduction } else { ControlState::InArchiveRecovery };
            if primary {
                data.checkpoint_timeline = self.wal.timeline(data.at.branch);
                data.checkpoint = data.at.lsn;
            }
            data.backup_label = false;
        }
        self.say(|world| {
            format!("{}: Postgres runs as a {}", world.names[host], if primary { "primary" } else { "standby" })
        });
        if primary {
            self.begins_to_write(who);
        }
    }

    /// From here on a server takes writes.
    fn begins_to_write(&mut self, who: Who) {
        if let Some(data) = &self.hosts[who.host].pg.data {
            let branch = data.at.branch;
            let now = self.now;
            self.oracle.wrote(who, branch, now);
        }
        invariant::writable::check(self, who.host);
        invariant::kept::check_primary(self, who.host);
    }

    /// A clean, fast shutdown begins.
    pub(crate) fn stop_postgres(&mut self, host: usize) {
        let Some(server) = &mut self.hosts[host].pg.server else { return };
        if server.dying {
            return;
        }
        let (number, primary, life) = (server.number, server.primary, server.life);
        server.life = Life::Stopping;
        server.waiting.clear();
        server.dying = true;
        let clean = life == Life::Running;
        if primary {
            self.spring(Moment::Stop, host);
        }
        let Some(data) = &mut self.hosts[host].pg.data else { return };
        if clean && primary {
            // The shutdown checkpoint is the last record, and standbys get it before the walsenders end.
            data.checkpoint = data.at.lsn;
            data.at.lsn += 1;
            data.checkpoint_timeline = self.wal.timeline(data.at.branch);
        }
        let end = data.at.lsn;
        let mut waits = Span(0);
        if clean && primary {
            for member in 0..self.scenario.members {
                let streams = self.hosts[host].pg.server.as_ref().is_some_and(|s| s.senders[member].is_some());
                if !streams {
                    continue;
                }
                if self.network.talks(host, member) {
                    self.ship(host, member, end);
                } else {
                    waits = SILENCE;
                }
            }
        }
        let takes = self.between(30, 400);
        self.later(Span(takes.0 + waits.0), Event::Died(Who { host, start: number }));
    }

    /// The end of it, whatever it does: SIGQUIT, then SIGKILL. Says how long that takes.
    pub(crate) fn kill_postgres(&mut self, host: usize, why: &str) -> Option<Span> {
        let server = self.hosts[host].pg.server.as_mut()?;
        let number = server.number;
        let stuck = server.stuck_until > self.now;
        server.dying = true;
        server.life = if server.life == Life::Stopping { Life::Starting } else { server.life };
        self.say(|world| format!("{}: Postgres is killed: {why}", world.names[host]));
        let patience = self.timing.stop_budget.0 / 2;
        let takes = if stuck { self.between(patience, patience + 20) } else { self.between(3, 80) };
        // Whatever keeps its processes from running does not keep SIGKILL from ending them.
        self.later(takes, Event::Died(Who { host, start: number }));
        Some(takes)
    }

    pub(crate) fn died(&mut self, who: Who) {
        let host = who.host;
        let Some(server) = self.server(who) else { return };
        let (clean, primary) = (server.life == Life::Stopping, server.primary);
        self.hosts[host].pg.server = None;
        if let Some(data) = &mut self.hosts[host].pg.data
            && clean
        {
            let archived = if primary { self.archive.end(&self.wal, data.at.branch) } else { u64::MAX };
            data.checkpointed(archived);
            data.state = if primary { ControlState::ShutDown } else { ControlState::ShutDownInRecovery };
            if !primary {
                data.catch_up(&self.wal);
            }
        }
        self.say(|world| {
            format!("{}: Postgres {}", world.names[host], if clean { "has stopped cleanly" } else { "is dead" })
        });
        self.nudge(host);
    }

    pub(crate) fn promoted(&mut self, who: Who) {
        let host = who.host;
        let Some(server) = self.server(who) else { return };
        if server.life != Life::Running || server.primary {
            return;
        }
        let Some(data) = &self.hosts[host].pg.data else { return };
        let (end, old) = (data.at, self.wal.timeline(data.at.branch));
        // The number that was reserved, whatever the archive has; Postgres left to itself takes the next one that is free there.
        let reserved = self.hosts[host].pg.server.as_ref().and_then(|server| server.promoting);
        let reserved = reserved.filter(|_| !self.is(Mutant::IgnoreTwins)).map(|timeline| Timeline(timeline.0 - 1));
        let newest = reserved.unwrap_or_else(|| self.archive.newest(self.wal.timeline(end.branch)));
        let mut at = self.wal.promote(end, newest, host);
        // The end-of-recovery record is the first on the new timeline.
        at.lsn += 1;
        if let Some(data) = &mut self.hosts[host].pg.data {
            data.at = at;
            data.state = ControlState::InProduction;
            data.standby_signal = false;
            data.recovered = (Timeline(0), 0);
            data.checkpoint_timeline = old;
        }
        let names = SyncNames::parse(&self.hosts[host].pg.configured, &self.names);
        if let Some(server) = self.server(who) {
            server.primary = true;
            server.receiver = None;
            server.upstream = None;
            server.follows = None;
            server.defined = names.is_defined();
            server.shown = names;
        }
        let timeline = self.wal.timeline(at.branch);
        invariant::timeline::check(self, host, at.branch);
        self.say(|world| format!("{}: Postgres is promoted to timeline {timeline} at {}", world.names[host], at.lsn));
        // The archiver takes the history file when it gets round to it; the archive may be out of reach.
        if self.rng.bool() {
            self.archive.add_history(timeline, at.branch);
        }
        self.begins_to_write(who);
        // Who is promoted after he was passed over by an operator begins nothing that counts.
        if !self.oracle.passed_over.contains(&who) {
            self.oracle.newest = Some(at.branch);
        }
        self.spring(Moment::Promotion, host);
        self.arm_guard(host);
        self.nudge(host);
    }

    /// The setting is written and announced; each process takes it when it gets round to it.
    pub(crate) fn set_sync_names(&mut self, host: usize, text: String) {
        self.hosts[host].pg.configured = text;
        let members = self.scenario.members;
        let Some(server) = &mut self.hosts[host].pg.server else { return };
        server.setting += 1;
        let (setting, number) = (server.setting, server.number);
        let who = Who { host, start: number };
        // Clients are busiest when it is least convenient.
        for _ in 0..4 {
            self.oracle.sent += 1;
            let write = self.oracle.sent;
            let delay = self.between(0, 400);
            self.later(delay, Event::Commit { host, write });
        }
        let mut takers = vec![(Taker::Query, 1, 20), (Taker::Checkpointer, 1, 300)];
        takers.extend(
            (0..members).map(|member| (Taker::Sender(member), 1, if self.rng.u8(0..4) == 0 { 900 } else { 60 })),
        );
        for (taker, least, most) in takers {
            let delay = self.between(least, most);
            if matches!(taker, Taker::Checkpointer)
                && delay > Span::millis(60)
                && let Some(server) = self.server(who)
            {
                // One that takes long is seen to be busy; one that is only not scheduled yet is not.
                server.settling = true;
            }
            self.later(delay, Event::Setting { who, setting, taker });
        }
    }

    pub(crate) fn take_setting(&mut self, who: Who, setting: u32, taker: Taker) {
        let text = self.hosts[who.host].pg.configured.clone();
        let names = SyncNames::parse(&text, &self.names);
        let Some(server) = self.server(who) else { return };
        if server.setting != setting {
            return;
        }
        match taker {
            Taker::Query => server.shown = names,
            Taker::Sender(member) => {
                if let Some(sender) = &mut server.senders[member] {
                    sender.names = names;
                }
                self.release(who.host, member);
            }
            Taker::Checkpointer => {
                server.settling = false;
                let was = std::mem::replace(&mut server.defined, names.is_defined());
                if was && !server.defined {
                    // Everybody who waits is let go (SyncRepUpdateSyncStandbysDefined).
                    let freed = std::mem::take(&mut server.waiting);
                    for waiting in freed {
                        self.acknowledge(who.host, waiting);
                    }
                }
            }
        }
    }

    pub(crate) fn checkpointed(&mut self, who: Who) {
        let Some(server) = self.server(who) else { return };
        if server.life != Life::Running {
            return;
        }
        if let Some(data) = &mut self.hosts[who.host].pg.data {
            data.checkpoint_timeline = self.wal.timeline(data.at.branch);
            data.checkpoint = data.at.lsn;
            if data.standby_signal {
                data.catch_up(&self.wal);
            }
        }
        self.nudge(who.host);
    }

    /// A standby is told whom to stream from; its startup process takes it when it gets round to it.
    pub(crate) fn follow(&mut self, host: usize, upstream: Option<usize>) {
        let now = self.now;
        let soon = self.between(1, 100);
        let restores = if self.rng.u8(0..8) == 0 { self.between(100, 4000) } else { Span(0) };
        let Some(server) = &mut self.hosts[host].pg.server else { return };
        server.upstream = upstream;
        if server.receiver.is_none() {
            server.restores_until = server.restores_until.max(now + restores);
        }
        let at = server.restores_until.max(now) + soon;
        let who = Who { host, start: server.number };
        self.queue.push(at, Event::Follow(who));
    }

    /// The startup process takes the setting.
    pub(crate) fn follows(&mut self, who: Who) {
        let Some(server) = self.server(who) else { return };
        if server.follows != server.upstream {
            server.follows = server.upstream;
            server.receiver = None;
        }
    }

    // ---- streaming

    /// Both ends of the stream to `member` look at it: connect, ship what is left, or give it up.
    pub(crate) fn stream(&mut self, member: usize) {
        self.later(LOOK, Event::Stream { member });
        self.end_dead_senders(member);
        self.keep_wal(member);
        let now = self.now;
        let at = &self.hosts[member];
        let Some(server) = at.pg.server.as_ref().filter(|server| server.life == Life::Running && !server.primary)
        else {
            return;
        };
        if at.frozen_until > now || server.stuck_until > now {
            return;
        }
        let (receiver, heard, upstream) = (server.receiver, server.heard, server.follows);
        match receiver {
            Some((from, number)) => {
                let alive = self.hosts[from]
                    .pg
                    .server
                    .as_ref()
                    .is_some_and(|server| server.number == number && server.senders[member].is_some());
                let talks = self.network.talks(from, member);
                let reset = !alive && self.hosts[from].on && talks;
                if reset || now.since(heard) > SILENCE {
                    self.disconnect(member);
                } else if alive && talks && self.moves(from) {
                    if let Some(server) = &mut self.hosts[member].pg.server {
                        server.heard = now;
                    }
                    if let Some(primary) = &mut self.hosts[from].pg.server {
                        primary.confirmed[member] = now;
                    }
                    let end = self.hosts[from].pg.data.as_ref().map_or(0, |data| data.at.lsn);
                    let has = self.hosts[member].pg.data.as_ref().map_or(0, |data| data.at.lsn);
                    if end > has {
                        self.ship(from, member, end);
                    }
                }
            }
            None if server.replays_until > now => {}
            None => {
                self.restore(member);
                if let Some(upstream) = upstream {
                    self.connect_stream(member, upstream);
                }
            }
        }
    }

    pub(crate) fn moves(&self, host: usize) -> bool {
        let at = &self.hosts[host];
        at.on && at.frozen_until <= self.now && at.pg.server.as_ref().is_some_and(|s| s.stuck_until <= self.now)
    }

    /// Walsenders of standbys that are gone, or that were not heard of for too long.
    fn end_dead_senders(&mut self, member: usize) {
        let now = self.now;
        let number = self.hosts[member].pg.server.as_ref().map(|server| server.number);
        let receiver = self.hosts[member].pg.server.as_ref().and_then(|server| server.receiver);
        for host in 0..self.hosts.len() {
            let reachable = self.network.talks(host, member) && self.hosts[member].on;
            if !self.moves(host) {
                continue;
            }
            let Some(server) = &mut self.hosts[host].pg.server else { continue };
            if server.senders[member].is_none() {
                continue;
            }
            let connected = number.is_some() && receiver == Some((host, server.number));
            if (!connected && reachable) || now.since(server.confirmed[member]) > SILENCE {
                let sender = server.senders[member].take();
                server.left[member] = sender.map(|sender| (now, sender.flushed));
            }
        }
    }

    fn disconnect(&mut self, member: usize) {
        if let Some(server) = &mut self.hosts[member].pg.server {
            server.receiver = None;
        }
    }

    fn connect_stream(&mut self, member: usize, upstream: usize) {
        let now = self.now;
        if upstream == member || !self.network.talks(upstream, member) || !self.moves(upstream) {
            return;
        }
        // A standby hands on what it has.
        let Some(primary) = self.hosts[upstream].pg.server.as_ref().filter(|it| it.life == Life::Running) else {
            return;
        };
        let number = primary.number;
        let (Some(theirs), Some(mine)) = (&self.hosts[upstream].pg.data, &self.hosts[member].pg.data) else { return };
        if !theirs.slots.has(Kind::Member(member)) {
            return;
        }
        let (theirs, mine) = (theirs.at, mine.at);
        if !self.wal.accepts(theirs, mine) || !self.has_wal(upstream, member) {
            return;
        }
        // Numbers fit. Do the histories?
        if !self.wal.contains(theirs, mine) {
            let text = format!(
                "{} streams from {} at {mine:?}, which is not in its history ({theirs:?})",
                self.names[member], self.names[upstream]
            );
            self.violate(Violation::new("one history", text));
            return;
        }
        let names = SyncNames::parse(&self.hosts[upstream].pg.configured, &self.names);
        if let Some(server) = &mut self.hosts[member].pg.server {
            server.receiver = Some((upstream, number));
            server.heard = now;
        }
        if let Some(primary) = &mut self.hosts[upstream].pg.server {
            let (flushed, behind, connected) = (mine.lsn, theirs.lsn, now.0);
            primary.senders[member] = Some(Sender { connected, flushed, names, streaming: false, behind });
            primary.confirmed[member] = now;
        }
        self.ship(upstream, member, theirs.lsn);
    }

    /// WAL goes to a standby.
    fn ship(&mut self, from: usize, to: usize, lsn: u64) {
        let (Some(primary), Some(standby)) = (&self.hosts[from].pg.server, &self.hosts[to].pg.server) else { return };
        let (from_who, to_who) = (Who { host: from, start: primary.number }, Who { host: to, start: standby.number });
        if !self.network.is_up(from, to) {
            return;
        }
        let delay = self.network.delay(from, to, self.now, &mut self.rng);
        // What a standby lacks takes its time; and now and then its disk does.
        let has = self.hosts[to].pg.data.as_ref().map_or(lsn, |data| data.at.lsn);
        let stall = if self.rng.u8(0..64) == 0 { self.rng.u64(20_000..400_000) } else { 0 };
        let write = Span(self.rng.u64(200..3000) + lsn.saturating_sub(has) * 20 + stall);
        self.later(Span(delay.0 + write.0), Event::Ship { from: from_who, to: to_who, lsn });
    }

    pub(crate) fn shipped(&mut self, from: Who, to: Who, lsn: u64) {
        let now = self.now;
        let Some(server) = self.server(to) else { return };
        if server.receiver != Some((from.host, from.start)) || server.primary || server.life == Life::Stopping {
            return;
        }
        server.heard = now;
        // What was sent stays what it was, also when the sender has died since.
        let branch = match &self.hosts[from.host].pg.server {
            Some(primary) if primary.number == from.start => {
                self.hosts[from.host].pg.data.as_ref().map(|data| data.at.branch)
            }
            _ => self.oracle.branch_of(from),
        };
        let Some(branch) = branch else { return };
        // A standby that hands WAL on may have followed another branch since it sent this.
        let ahead = if self.hosts[from.host].pg.server.as_ref().is_some_and(|it| it.primary) {
            Position { branch, lsn }
        } else {
            self.wal.on_the_way(branch, lsn)
        };
        let branch = ahead.branch;
        let timeline = self.wal.timeline(branch);
        let Some(data) = &mut self.hosts[to.host].pg.data else { return };
        if !self.wal.contains(ahead, data.at) {
            if data.at.branch == branch {
                // An older packet than what is here.
                return self.confirm(to.host, from, lsn);
            }
            return;
        }
        data.at = ahead;
        match self.rng.u8(0..32) {
            0 => {
                data.checkpoint_timeline = timeline;
                data.catch_up(&self.wal);
            }
            1..=4 => data.catch_up(&self.wal),
            _ => {}
        }
        self.confirm(to.host, from, lsn);
        let relayed = self.hosts[to.host].pg.server.as_ref();
        let relayed: Vec<usize> = (0..self.scenario.members)
            .filter(|member| relayed.is_some_and(|it| it.senders[*member].is_some()))
            .collect();
        for member in relayed {
            self.ship(to.host, member, lsn);
        }
    }

    fn confirm(&mut self, standby: usize, primary: Who, lsn: u64) {
        if self.network.is_up(standby, primary.host) {
            let delay = self.network.delay(standby, primary.host, self.now, &mut self.rng);
            self.later(delay, Event::Confirm { from: standby, to: primary, lsn });
        }
    }

    pub(crate) fn confirmed(&mut self, from: usize, to: Who, lsn: u64) {
        let now = self.now;
        let Some(server) = self.server(to) else { return };
        let Some(sender) = &mut server.senders[from] else { return };
        sender.flushed = sender.flushed.max(lsn);
        sender.streaming |= lsn >= sender.behind;
        server.confirmed[from] = now;
        let feedback = self.scenario.has_logical_slots();
        if let Some(data) = &mut self.hosts[to.host].pg.data {
            data.slots.confirm(from, lsn, feedback);
        }
        self.release(to.host, from);
    }

    /// A walsender lets those commits go that have waited enough, by its own copy of the setting.
    fn release(&mut self, host: usize, member: usize) {
        let Some(server) = &mut self.hosts[host].pg.server else { return };
        let Some(until) = server.released_by(member) else { return };
        let mut freed = Vec::new();
        while server.waiting.front().is_some_and(|waiting| waiting.lsn <= until) {
            freed.extend(server.waiting.pop_front());
        }
        for waiting in freed {
            self.acknowledge(host, waiting);
        }
    }

    // ---- clients

    /// A client's row arrives, is written, and waits.
    pub(crate) fn commit(&mut self, host: usize, write: u32) {
        let now = self.now;
        if self.scenario.spare == Some(host) {
            // No client knows of it.
            return;
        }
        let Some(server) = self.hosts[host].pg.server.as_ref().filter(|server| server.writable()) else { return };
        if server.stuck_until > now {
            return;
        }
        let (number, waits) = (server.number, server.defined);
        let Some(data) = &mut self.hosts[host].pg.data else { return };
        data.at.lsn += self.rng.u64(1..200);
        let at = data.at;
        self.oracle.wrote(Who { host, start: number }, at.branch, now);
        let waiting = Waiting { lsn: at.lsn, write };
        if waits {
            if let Some(server) = &mut self.hosts[host].pg.server {
                server.waiting.push_back(waiting);
            }
        } else {
            self.acknowledge(host, waiting);
        }
        for member in 0..self.scenario.members {
            let streams = self.hosts[host].pg.server.as_ref().is_some_and(|s| s.senders[member].is_some());
            if streams {
                self.ship(host, member, at.lsn);
            }
        }
    }

    /// Postgres tells a client that its row is safe.
    fn acknowledge(&mut self, host: usize, waiting: Waiting) {
        let Some(data) = &self.hosts[host].pg.data else { return };
        let at = Position { branch: data.at.branch, lsn: waiting.lsn };
        let number = self.hosts[host].pg.server.as_ref().map_or(0, |server| server.number);
        if self.oracle.passed_over.contains(&Who { host, start: number }) {
            return;
        }
        self.oracle.acknowledged(waiting.write, at, self.now);
        invariant::kept::check_acknowledged(self, host, at);
    }
}
