//! ZooKeeper: servers that lag, sessions that expire in ticks, a leader that changes and arms all sessions anew.
//!
//! What is committed is one sequence of trees. Each server has applied a part of it, and answers reads from that.
//! Sessions are the leader's: it learns of a session's life when the session speaks to it, or when a follower reports,
//! every half tick, which sessions spoke to *it* (`LearnerHandler`, ZooKeeper 3.8). Expiry is rounded up to ticks
//! (`ExpiryQueue`). Nothing expires while there is no leader, and everything begins anew with the next one.

mod damage;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use pgha_core::action::Lapsed;
use pgha_core::lsn::{Lsn, Timeline};
use pgha_core::name::{Epoch, NodeName, SlotName};
use pgha_core::observation::{
    Cluster, ClusterSettings, EpochRecord, FailoverRequest, FailsafeRecord, History, Initialize, Leader, Member,
    SyncRecord,
};
use pgha_core::pulse::Renewal;

pub use self::damage::Damage;
use super::network::CLIENTS;
use crate::time::{Span, Time};

/// A session, by its number.
pub type SessionId = u32;

/// One committed state.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// Counts commits.
    pub zxid: u64,
    /// `leader`: whose name, and which session owns it.
    pub leader: Option<(usize, SessionId)>,
    /// Which session owns each of `members`.
    owners: [Option<SessionId>; CLIENTS],
    /// Version of `failover`, which stays when it is emptied.
    pub failover_version: i32,
    /// The newest renewal, as `status` shows it; `None` where that znode does not exist.
    pub renewal: Option<Renewal>,
    /// Version of `history`.
    pub history_version: Option<i32>,
    /// The documents, as agents see them; to none of them `leader` belongs.
    pub cluster: Arc<Cluster>,
    /// The same for the agent to which it does.
    led: OnceCell<Arc<Cluster>>,
}

/// A write, with its condition.
#[derive(Debug, Clone)]
pub enum Write {
    /// Create `leader`, raise the epoch.
    Take {
        /// Version of the epoch; `None` creates it.
        version: Option<i32>,
        /// The new epoch.
        epoch: Epoch,
        /// Create `initialize` as well.
        initialize: bool,
        /// The leadership that this one is taken from, if this is its newest renewal.
        lapsed: Option<Lapsed>,
        /// What the version was before the epoch was deleted.
        above: Option<i32>,
    },
    /// Replace `leader` of another session of the same member.
    Reown {
        /// Version of the epoch; `None` creates it.
        version: Option<i32>,
        /// The new epoch.
        epoch: Epoch,
        /// What the version was before the epoch was deleted.
        above: Option<i32>,
    },
    /// Write `status`.
    Renew {
        /// Version of the epoch.
        version: i32,
        /// The epoch that it is about.
        epoch: Epoch,
        /// The leader's position.
        optime: Lsn,
        /// Its slots' positions.
        slots: BTreeMap<SlotName, Lsn>,
        /// The timeline of these positions.
        timeline: Option<Timeline>,
        /// Slots that WAL is kept for.
        retain: BTreeSet<SlotName>,
    },
    /// Delete `leader`.
    Release {
        /// Version of the epoch.
        version: i32,
    },
    /// Create `config`.
    Config {
        /// Version of the epoch.
        version: i32,
        /// Its content.
        settings: ClusterSettings,
    },
    /// Complete `initialize`.
    Initialized {
        /// Version of the epoch.
        version: i32,
        /// Its content.
        content: Initialize,
    },
    /// Write `sync`.
    Sync {
        /// Version of the epoch.
        version: i32,
        /// Content, and version of the document.
        record: SyncRecord,
    },
    /// Reserve a timeline.
    Reserve {
        /// Version of the epoch.
        version: i32,
        /// Version of the document.
        expect: Option<i32>,
        /// The number.
        timeline: Timeline,
    },
    /// Write `history`.
    History {
        /// Version of the epoch.
        version: i32,
        /// Version of the document.
        expect: Option<i32>,
        /// Content.
        history: History,
    },
    /// Write `failsafe`.
    Failsafe {
        /// Version of the epoch.
        version: i32,
        /// Version of the document.
        expect: Option<i32>,
        /// Content.
        members: BTreeSet<NodeName>,
    },
    /// Empty `failover`.
    ClearFailover {
        /// Version of the epoch.
        version: i32,
        /// Version of the document.
        failover: i32,
    },
    /// Announce the member.
    Announce {
        /// What it says of itself.
        member: Member,
        /// The session that was seen to own its znode.
        replace: Option<SessionId>,
    },
    /// An operator's switchover or failover.
    Ask(FailoverRequest),
    /// An operator's settings.
    Set(ClusterSettings),
}

impl Tree {
    /// Does a write, whole or not at all; `None` when its condition does not hold.
    ///
    /// `unchecked` is for tests of the tests: epochs are not compared.
    pub fn apply(
        &self,
        names: &[NodeName],
        who: usize,
        session: SessionId,
        write: &Write,
        unchecked: bool,
    ) -> Option<Self> {
        let seen = &*self.cluster;
        let current = |version: i32| unchecked || seen.epoch.version == Some(version);
        let raise = |version: Option<i32>, epoch: Epoch, above: Option<i32>| {
            (seen.epoch.version == version || unchecked).then(|| EpochRecord {
                epoch,
                leader: Some(names[who].clone()),
                released: false,
                version: Some(next_version(seen.epoch.version.or(above))),
            })
        };
        let mut next = self.successor();
        match write {
            Write::Take { version, epoch, initialize, lapsed, above } => {
                let epoch = raise(*version, *epoch, *above)?;
                // What is to be deleted must be there.
                if self.leader.is_some() != lapsed.is_some_and(|lapsed| lapsed.held) {
                    return None;
                }
                if let Some(Lapsed { renewal, .. }) = lapsed {
                    (unchecked || self.renewal.map(|newest| newest.version) == *renewal).then_some(())?;
                    next.renewal = next.renewal.or_else(|| Some(next.renews()));
                }
                if *initialize && seen.initialize != Initialize::Absent {
                    return None;
                }
                next.leads(&names[who], who, session);
                let cluster = next.documents();
                cluster.epoch = epoch;
                if *initialize {
                    cluster.initialize = Initialize::Begun;
                }
            }
            Write::Reown { version, epoch, above } => {
                let epoch = raise(*version, *epoch, *above)?;
                self.leader?;
                next.leads(&names[who], who, session);
                next.documents().epoch = epoch;
            }
            Write::Renew { version, optime, slots, timeline, retain, .. } => {
                current(*version).then_some(())?;
                next.renewal = Some(next.renews());
                let cluster = next.documents();
                cluster.optime = *optime;
                cluster.slot_positions.clone_from(slots);
                cluster.positions_on = *timeline;
                if cluster.retained_slots != *retain {
                    cluster.retained_slots.clone_from(retain);
                }
            }
            Write::Release { version } => {
                current(*version).then_some(())?;
                self.leader?;
                next.is_vacated();
                let epoch = &mut next.documents().epoch;
                (epoch.released, epoch.version) = (true, Some(next_version(epoch.version)));
            }
            Write::Config { version, settings } => {
                (current(*version) && seen.config.is_none()).then_some(())?;
                next.documents().config = Some(settings.clone());
            }
            Write::Initialized { version, content } => {
                (current(*version) && !matches!(seen.initialize, Initialize::Done(_))).then_some(())?;
                next.documents().initialize = *content;
                if self.history_version.is_none() {
                    let history = &mut next.documents().history;
                    (history.newest, history.reserved) = (Some(Timeline(1)), Some(Timeline(1)));
                    next.history_version = Some(next_version(None));
                }
            }
            Write::Sync { version, record } => {
                (current(*version) && seen.sync.version == record.version).then_some(())?;
                let version = Some(next_version(seen.sync.version));
                next.documents().sync = SyncRecord { version, ..record.clone() };
            }
            Write::Reserve { version, expect, timeline } => {
                (current(*version) && self.history_version == *expect).then_some(())?;
                let history = &mut next.documents().history;
                history.newest = Some(seen.history.timeline());
                history.reserved = Some(*timeline);
                next.history_version = Some(next_version(*expect));
            }
            Write::History { version, expect, history } => {
                (current(*version) && self.history_version == *expect).then_some(())?;
                next.documents().history = history.clone();
                next.history_version = Some(next_version(*expect));
            }
            Write::Failsafe { version, expect, members } => {
                (current(*version) && seen.failsafe.version == *expect).then_some(())?;
                let version = Some(next_version(*expect));
                next.documents().failsafe = FailsafeRecord { members: members.clone(), unreadable: false, version };
            }
            Write::ClearFailover { version, failover } => {
                (current(*version) && self.failover_version == *failover).then_some(())?;
                next.documents().failover = None;
                next.failover_version += 1;
            }
            Write::Announce { member, replace } => {
                // What is to be made must not be there, and what is to be changed or replaced must.
                let place = place_of(names, who);
                (self.owners[place].is_some() == replace.is_some()).then_some(())?;
                next.documents().members.insert(names[who].clone(), member.clone());
                if *replace != Some(session) {
                    next.owners[place] = Some(session);
                }
            }
            Write::Ask(request) => {
                next.failover_version += 1;
                let version = next.failover_version;
                next.documents().failover = Some(FailoverRequest { version, ..request.clone() });
            }
            Write::Set(settings) => {
                seen.config.as_ref()?;
                next.documents().config = Some(settings.clone());
            }
        }
        Some(next)
    }

    fn successor(&self) -> Self {
        Self { zxid: self.zxid + 1, led: OnceCell::new(), ..self.clone() }
    }

    /// What a write of `status` makes of it.
    fn renews(&self) -> Renewal {
        let zxid = i64::try_from(self.zxid).unwrap_or(i64::MAX);
        Renewal { version: next_version(self.renewal.map(|renewal| renewal.version)), zxid }
    }

    /// The documents, to be changed.
    fn documents(&mut self) -> &mut Cluster {
        Arc::make_mut(&mut self.cluster)
    }

    fn leads(&mut self, name: &NodeName, who: usize, session: SessionId) {
        self.leader = Some((who, session));
        self.documents().leader = Some(Leader { name: name.clone(), is_my_session: false });
    }

    fn is_vacated(&mut self) {
        self.leader = None;
        self.documents().leader = None;
    }

    /// The session that owns a member's znode, if there is one.
    pub fn owner(&self, member: usize) -> Option<SessionId> {
        self.owners[member]
    }

    /// Without what a session owned; `None` when it owned nothing.
    pub fn without(&self, names: &[NodeName], session: SessionId) -> Option<Self> {
        let leads = self.leader.is_some_and(|(_, owner)| owner == session);
        if !leads && !self.owners.contains(&Some(session)) {
            return None;
        }
        let mut next = self.successor();
        if leads {
            next.is_vacated();
        }
        for (who, name) in names.iter().enumerate().filter(|(who, _)| self.owners[*who] == Some(session)) {
            next.owners[who] = None;
            next.documents().members.remove(name);
        }
        Some(next)
    }

    /// As a member sees it through `session`.
    pub fn view(&self, session: SessionId) -> Arc<Cluster> {
        let mine = self.leader.is_some_and(|(_, owner)| owner == session);
        let Some(leader) = self.cluster.leader.as_ref().filter(|_| mine) else { return self.cluster.clone() };
        let led = self.led.get_or_init(|| {
            let leader = Some(Leader { is_my_session: true, ..leader.clone() });
            Arc::new(Cluster { leader, ..Cluster::clone(&self.cluster) })
        });
        led.clone()
    }
}

/// The member whose name a host has.
pub fn place_of(names: &[NodeName], host: usize) -> usize {
    names.iter().position(|name| *name == names[host]).unwrap_or(host)
}

/// A znode that was made has version 0.
fn next_version(version: Option<i32>) -> i32 {
    version.map_or(0, |version| version + 1)
}

/// One server of the ensemble.
#[derive(Debug)]
pub struct Server {
    /// Its process runs.
    pub up: bool,
    /// Counts its lives: connections end with the process, and when it loses its leader.
    pub starts: u32,
    /// What it has applied.
    pub applied: Rc<Tree>,
    /// Sessions that spoke to it since it last reported.
    pub touched: Vec<SessionId>,
    /// It takes part in the ensemble under a leader, as far as it knows.
    pub serving: bool,
}

/// A session.
#[derive(Debug)]
pub struct Session {
    /// Whose.
    pub owner: usize,
    /// When the leader lets it expire.
    pub expires: Time,
    /// It has expired.
    pub expired: bool,
}

/// The ensemble.
#[derive(Debug)]
pub struct Ensemble {
    /// Its servers; the place of each is the host of the same number.
    pub servers: Vec<Server>,
    /// What is committed.
    pub committed: Rc<Tree>,
    /// Who leads it.
    pub leader: Option<usize>,
    /// Counts leaders.
    pub term: u32,
    /// Every session that ever was.
    pub sessions: Vec<Session>,
    /// Length of sessions.
    pub timeout: Span,
    /// Their granularity.
    pub tick: Span,
    /// When expiry is looked at next.
    pub expiry_look: Option<Time>,
}

impl Ensemble {
    /// `count` servers without a leader.
    pub fn new(count: usize, timeout: Span, tick: Span) -> Self {
        let empty = Rc::new(Tree::default());
        let server = |_| Server { up: true, starts: 0, applied: empty.clone(), touched: Vec::new(), serving: false };
        Self {
            servers: (0..count).map(server).collect(),
            committed: empty.clone(),
            leader: None,
            term: 0,
            sessions: Vec::new(),
            timeout,
            tick,
            expiry_look: None,
        }
    }

    /// The end of a session that is seen alive now.
    fn expiry(&self, now: Time) -> Time {
        let end = (now + self.timeout).0;
        Time((end / self.tick.0 + 1) * self.tick.0)
    }

    /// The leader hears of a session. Says whether it is known.
    pub fn touch(&mut self, session: SessionId, now: Time) -> bool {
        let expires = self.expiry(now);
        match self.sessions.get_mut(session as usize) {
            Some(session) if !session.expired => {
                session.expires = session.expires.max(expires);
                true
            }
            _ => false,
        }
    }

    /// A new session.
    pub fn open(&mut self, owner: usize, now: Time) -> SessionId {
        let expires = self.expiry(now);
        self.sessions.push(Session { owner, expires, expired: false });
        u32::try_from(self.sessions.len() - 1).unwrap_or(u32::MAX)
    }

    /// A new leader: every session begins anew.
    pub fn elect(&mut self, leader: usize, now: Time) {
        self.leader = Some(leader);
        self.term += 1;
        let expires = self.expiry(now);
        for session in self.sessions.iter_mut().filter(|session| !session.expired) {
            session.expires = expires;
        }
        let committed = self.committed.clone();
        self.servers[leader].applied = committed;
    }

    /// When the next session expires, if none is heard of.
    pub fn next_expiry(&self) -> Option<Time> {
        self.sessions.iter().filter(|session| !session.expired).map(|session| session.expires).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_release_of_a_former_leader_fails() {
        let names = ["a", "b"].map(|name| NodeName::try_from(name).expect("a name"));
        let take =
            |version, epoch| Write::Take { version, epoch: Epoch(epoch), initialize: false, lapsed: None, above: None };
        let first = Tree::default().apply(&names, 0, 1, &take(None, 1), false).expect("vacant");
        assert!(first.apply(&names, 1, 2, &take(Some(0), 2), false).is_none(), "two leaders");
        let vacant = first.without(&names, 1).expect("it owned the leadership");
        let second = vacant.apply(&names, 1, 2, &take(Some(0), 2), false).expect("vacant");
        assert!(second.apply(&names, 0, 1, &Write::Release { version: 0 }, false).is_none());
        assert!(second.apply(&names, 0, 1, &Write::Release { version: 0 }, true).is_some());
    }

    #[test]
    fn sessions_expire_in_ticks_and_begin_anew_with_a_leader() {
        let mut ensemble = Ensemble::new(3, Span::secs(6), Span::millis(500));
        ensemble.elect(0, Time(0));
        let session = ensemble.open(0, Time(100));
        assert_eq!(ensemble.sessions[session as usize].expires, Time(6_500_000));
        ensemble.elect(1, Time(3_000_000));
        assert_eq!(ensemble.sessions[session as usize].expires, Time(9_500_000));
    }
}
