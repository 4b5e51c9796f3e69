//! Mishaps: what people do to a cluster by mistake. Faults that no machine has by itself.

use pgha_core::lsn::{Lsn, Timeline};
use pgha_core::observation::{FailoverRequest, FailsafeRecord, Initialize, Past, Request, SyncRecord, Synchrony};

use crate::model::postgres::{Data, Postgres, Server};
use crate::model::wal::Position;
use crate::model::zookeeper::{Damage, Tree, Write};
use crate::scenario::{CALM, FIRST_FAULT, Fault, LAST_FAULT, LEADER, Planned};
use crate::time::{Span, Time};
use crate::world::World;

/// A mistake of an operator, until he sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    /// A spare host is started under this member's name.
    Namesake(usize, Disk),
    /// Somebody deletes znodes, or writes garbage into them.
    Damage(Damage),
    /// A member comes up with the data directory of another cluster.
    WrongData(usize),
    /// A data directory cannot be read.
    Unreadable(usize),
    /// A standby's host is restored from a copy that was made when this began.
    Restored(usize),
}

/// What people put aside by mistake.
#[derive(Debug)]
pub(crate) struct Aside {
    /// Numbers of timelines up to this one were on record when people deleted that.
    pub(crate) forgotten: Timeline,
    /// The record in whose place there is garbage.
    sync: Option<SyncRecord>,
    /// And the one of failsafe mode.
    failsafe: Option<FailsafeRecord>,
    /// The right data directory, and whose it is.
    data: Option<(usize, Option<Data>)>,
    /// The copy of a standby's disk.
    copy: Option<Copy>,
}

/// A backup of a host.
#[derive(Debug)]
struct Copy {
    member: usize,
    data: Option<Data>,
    past: Past,
    /// Its host is being restored since then.
    off: Option<Time>,
}

impl Default for Aside {
    fn default() -> Self {
        Self { forgotten: Timeline(0), sync: None, failsafe: None, data: None, copy: None }
    }
}

/// The disk of a host that was set up by copying another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// There is no data directory.
    Empty,
    /// All that the other one had.
    Copied,
}

impl Mishap {
    /// With the leader's host for whoever leads.
    #[must_use]
    pub fn aimed_at(self, leader: usize) -> Self {
        let aim = |host: usize| if host == LEADER { leader } else { host };
        match self {
            Self::Namesake(member, disk) => Self::Namesake(aim(member), disk),
            Self::Damage(_) => self,
            Self::WrongData(member) => Self::WrongData(aim(member)),
            Self::Unreadable(member) => Self::Unreadable(aim(member)),
            Self::Restored(member) => Self::Restored(aim(member)),
        }
    }
}

/// The mishaps of a history, and what makes them worse: one history in ten has any. `spare` is the host that is none yet.
pub fn planned(rng: &mut fastrand::Rng, members: usize, spare: usize) -> Vec<Planned> {
    if rng.u8(0..10) != 0 {
        return Vec::new();
    }
    let mut faults = Vec::new();
    for _ in 0..rng.usize(1..4) {
        let at = FIRST_FAULT + Span(rng.u64(0..LAST_FAULT.since(FIRST_FAULT).0));
        let mut plan = |after: u64, lasts: u64, fault: Fault| {
            let at = at + Span::millis(after);
            faults.push(Planned { at, lasts: Span::millis(lasts).min(Span(CALM.since(at).0 - 1)), fault });
        };
        let member = if rng.bool() { LEADER } else { rng.usize(0..members) };
        let lasts = rng.u64(1000..60_000);
        let mishap = match rng.u8(0..11) {
            10 => Mishap::Restored(rng.usize(0..members)),
            0..=3 => Mishap::Namesake(member, if rng.u8(0..4) == 0 { Disk::Empty } else { Disk::Copied }),
            4 => Mishap::WrongData(member),
            5 => Mishap::Unreadable(member),
            _ => {
                let damages =
                    [Damage::Epoch, Damage::Subtree, Damage::Sync, Damage::Failsafe, Damage::Timelines, Damage::Leader];
                Mishap::Damage(damages[rng.usize(0..damages.len())])
            }
        };
        plan(0, lasts, Fault::Mishap(mishap));
        if mishap == Mishap::Damage(Damage::Leader) {
            // Its holder does not see it.
            let unseen = [Fault::LoseZooKeeper(LEADER), Fault::Freeze(LEADER), Fault::FreezeAgent(LEADER)];
            plan(0, rng.u64(500..20_000), unseen[rng.usize(0..unseen.len())]);
            plan(rng.u64(0..3000), 1, Fault::Mishap(mishap));
        }
        // No draw of its own: seeds that are known stay what they are.
        if at.0.is_multiple_of(4) {
            plan(lasts / 2, 1, Fault::Mishap(Mishap::Damage(Damage::Status)));
        }
        let after = rng.u64(0..20_000);
        match rng.u8(0..8) {
            0 => plan(after, rng.u64(500..20_000), Fault::KillAgent(member)),
            1 => plan(after, rng.u64(500..20_000), Fault::Freeze(member)),
            2 => plan(after, rng.u64(500..20_000), Fault::Power(member)),
            3 => plan(after, rng.u64(500..20_000), Fault::LoseZooKeeper(member)),
            // The two cannot ask each other.
            4 if matches!(mishap, Mishap::Namesake(..)) => plan(0, lasts, Fault::Part(member, spare)),
            5 if matches!(mishap, Mishap::Namesake(..)) => plan(after, rng.u64(500..20_000), Fault::StopAgent(spare)),
            4..=5 => plan(after, 1, Fault::KillPostgres(member)),
            _ => {}
        }
    }
    // What a member has confirmed is on record in `status` alone: without it nobody can tell an old disk from a new one.
    if faults.iter().any(|planned| matches!(planned.fault, Fault::Mishap(Mishap::Restored(_)))) {
        faults.retain(|planned| planned.fault != Fault::Mishap(Mishap::Damage(Damage::Status)));
    }
    faults
}

impl World {
    /// A mishap happens.
    pub(crate) fn mishap(&mut self, mishap: Mishap, until: Time) {
        match mishap {
            Mishap::Namesake(member, disk) => self.start_namesake(member, disk),
            Mishap::Damage(damage) => self.damage(damage),
            Mishap::WrongData(member) => self.mistake_data(member),
            Mishap::Unreadable(member) => self.hosts[member].unreadable_until = until,
            Mishap::Restored(member) => self.copy_disk(member),
        }
    }

    /// The operator sees what he has done, and puts it right. Says whether he is done with it.
    pub(crate) fn put_right(&mut self, mishap: Mishap) -> bool {
        match mishap {
            Mishap::Namesake(member, _) => self.stop_namesake(member),
            Mishap::Damage(Damage::Sync) => self.restore_sync(),
            Mishap::Damage(Damage::Failsafe) => self.restore_failsafe(),
            Mishap::WrongData(member) => self.right_data(member),
            Mishap::Restored(member) => self.restore_disk(member),
            Mishap::Damage(_) | Mishap::Unreadable(_) => true,
        }
    }

    fn start_namesake(&mut self, member: usize, disk: Disk) {
        let Some(spare) = self.scenario.spare.filter(|_| self.namesake.is_none()) else { return };
        // Promises are given to a name: those to the one do not keep the other from leading. So are votes: the one may have
        // confirmed what the other has not when it is asked.
        let cluster = &self.zk.committed.cluster;
        if self.scenario.settings.synchrony == Synchrony::Quorum
            || !cluster.failsafe.members.is_empty()
            || cluster.config.as_ref().is_some_and(|config| config.failsafe)
        {
            return;
        }
        self.namesake = Some(spare);
        self.names[spare] = self.names[member].clone();
        let theirs = &self.hosts[member].pg;
        let (data, past) = match disk {
            Disk::Empty => (None, Past::default()),
            Disk::Copied => (theirs.data.clone(), theirs.past),
        };
        let starts = self.hosts[spare].pg.starts;
        self.hosts[spare].pg = Postgres { data, past, starts, ..Postgres::default() };
        self.power_on(spare);
    }

    fn stop_namesake(&mut self, member: usize) -> bool {
        let Some(spare) = self.namesake else { return true };
        let barred = self.scenario.nofailover;
        let others = || (0..self.scenario.members).filter(|host| barred != Some(*host));
        let whole = |host: &usize| {
            self.hosts[*host].pg.data.as_ref().is_some_and(|data| !data.damaged && data.broken.is_none())
        };
        let successor = others().find(|host| *host == member && whole(host)).or_else(|| others().find(whole));
        let leads = self.zk.committed.leader.is_some_and(|(leader, _)| leader == spare);
        if leads && successor.is_none() && others().any(|host| host != member) {
            // Somebody has to have a copy of what it serves first.
            return false;
        }
        self.power_off(spare);
        let serves = |host: usize| self.hosts[host].pg.server.as_ref().is_some_and(Server::writable);
        if self.zk.committed.leader.is_some_and(|(leader, _)| leader != spare && serves(leader)) {
            self.namesake = None;
            return true;
        }
        // It may have led, and what it began is nowhere else: the others would wait for it for ever.
        let candidate = Some(&self.names[successor.unwrap_or(member)]);
        let asked = |request: &FailoverRequest| request.leader.is_none() && request.candidate.as_ref() == candidate;
        if !self.zk.committed.cluster.failover.as_ref().is_some_and(asked) {
            let candidate = candidate.cloned();
            self.operate(&Write::Ask(FailoverRequest { leader: None, candidate, later: false, version: 0 }));
        }
        false
    }

    fn damage(&mut self, damage: Damage) {
        let Some(next) = self.zk.committed.damaged(damage).filter(|_| self.zk.leader.is_some()) else { return };
        if matches!(damage, Damage::Subtree | Damage::Timelines) {
            let history = &self.zk.committed.cluster.history;
            let known = history.reserved.unwrap_or(Timeline(0)).max(history.timeline());
            self.aside.forgotten = self.aside.forgotten.max(known);
        }
        let cluster = &self.zk.committed.cluster;
        if damage == Damage::Sync && !cluster.sync.unreadable {
            self.aside.sync = Some(cluster.sync.clone());
        }
        if damage == Damage::Failsafe && !cluster.failsafe.unreadable {
            self.aside.failsafe = Some(cluster.failsafe.clone());
        }
        self.commit_tree(next);
    }

    /// As long as nobody has written another record, that which was there is still true.
    fn restore_sync(&mut self) -> bool {
        let unreadable = self.zk.committed.cluster.sync.unreadable;
        let record = self.aside.sync.as_ref().filter(|_| unreadable);
        self.restored(record.map(|record| self.zk.committed.with_sync(record)))
    }

    fn restore_failsafe(&mut self) -> bool {
        let unreadable = self.zk.committed.cluster.failsafe.unreadable;
        let record = self.aside.failsafe.as_ref().filter(|_| unreadable);
        self.restored(record.map(|record| self.zk.committed.with_failsafe(record)))
    }

    /// Whether all is in order again, be it that nothing had to be put right.
    fn restored(&mut self, next: Option<Tree>) -> bool {
        let Some(next) = next else { return true };
        let can = self.zk.leader.is_some();
        if can {
            self.commit_tree(next);
        }
        can
    }

    fn copy_disk(&mut self, member: usize) {
        let pg = &self.hosts[member].pg;
        if self.aside.copy.is_none() && pg.server.as_ref().is_some_and(|server| !server.primary) {
            self.aside.copy = Some(Copy { member, data: pg.data.clone(), past: pg.past, off: None });
        }
    }

    /// It takes a while. Not done to a member that has led meanwhile, which would lack what only it had, nor with a copy that is
    /// hardly older than the data: nobody can tell what was confirmed since the leader's last renewal.
    fn restore_disk(&mut self, member: usize) -> bool {
        let Some(copy) = self.aside.copy.take_if(|copy| copy.member == member) else { return true };
        let pg = &self.hosts[member].pg;
        let cluster = &self.zk.committed.cluster;
        let leads = cluster.epoch.leader.as_ref() == Some(&self.names[member]);
        let led = leads || copy.past != pg.past || pg.server.as_ref().is_some_and(|it| it.primary);
        let lacks = |at: Position| cluster.lacks(&self.names[member], self.wal.timeline(at.branch), Lsn(at.lsn), 0);
        let confirmed = copy.data.as_ref().and_then(|data| lacks(data.at));
        let older = confirmed.is_some();
        // All that it has confirmed, in the end.
        let known = confirmed.is_some_and(|known| pg.data.as_ref().is_none_or(|data| data.at.lsn <= known.0));
        match copy.off {
            None if led || !older => true,
            None => {
                self.power_off(member);
                self.aside.copy = Some(Copy { off: Some(self.now), ..copy });
                false
            }
            Some(since) if self.now.since(since) < Span::millis(2 * self.timing.ttl.0) => {
                self.aside.copy = Some(copy);
                false
            }
            Some(_) => {
                if !led && known {
                    self.hosts[member].pg.data = copy.data;
                }
                self.power_on(member);
                true
            }
        }
    }

    fn mistake_data(&mut self, member: usize) {
        // Before the cluster is made any data is right.
        let made = matches!(self.zk.committed.cluster.initialize, Initialize::Done(_));
        if !made || self.aside.data.is_some() {
            return;
        }
        let wrong = Data::initdb(self.wal.initdb(member), &self.wal);
        self.power_off(member);
        self.aside.data = Some((member, self.hosts[member].pg.data.replace(wrong)));
        self.power_on(member);
    }

    /// Where another leads, a fresh copy does it, too.
    fn right_data(&mut self, member: usize) -> bool {
        let system = self.hosts[member].pg.data.as_ref().map(|data| data.system);
        let Some((_, right)) = self.aside.data.take_if(|(whose, _)| *whose == member) else { return true };
        if system.is_some_and(|system| self.zk.committed.cluster.initialize == Initialize::Done(system)) {
            return true;
        }
        let led = self.zk.committed.leader.is_some_and(|(leader, _)| leader != member);
        if led && member.is_multiple_of(2) {
            self.aside.data = Some((member, right));
            self.request(member, Request::Reinitialize);
            return false;
        }
        self.power_off(member);
        self.hosts[member].pg.data = right;
        self.power_on(member);
        true
    }
}
