//! ZooKeeper: servers that lag, sessions that expire in ticks, a leader that changes and arms all sessions anew.
//!
//! What is committed is one sequence of trees. Each server has applied a part of it, and answers reads from that.
//! Sessions are the leader's: it learns of a session's life when the session speaks to it, or when a follower reports,
//! every half tick, which sessions spoke to *it* (`LearnerHandler`, ZooKeeper 3.8). Expiry is rounded up to ticks
//! (`ExpiryQueue`). Nothing expires while there is no leader, and everything begins anew with the next one.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use pgha_core::lsn::{Lsn, Timeline};
use pgha_core::name::{Epoch, NodeName, SlotName};
use pgha_core::observation::{
    Cluster, ClusterSettings, EpochRecord, FailoverRequest, FailsafeRecord, History, Initialize, Leader, Member,
    SyncRecord,
};

use crate::time::{Span, Time};

/// A session, by its number.
pub type SessionId = u32;

/// One committed state.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// Counts commits.
    pub zxid: u64,
    /// `pgha/epoch`.
    pub epoch: EpochRecord,
    /// `leader`: whose name, and which session owns it.
    pub leader: Option<(usize, SessionId)>,
    /// `initialize`.
    pub initialize: Initialize,
    /// `config`.
    pub config: Option<ClusterSettings>,
    /// `sync`.
    pub sync: SyncRecord,
    /// `failover`.
    pub failover: Option<FailoverRequest>,
    /// Version of `failover`, which stays when it is emptied.
    pub failover_version: i32,
    /// `failsafe`.
    pub failsafe: FailsafeRecord,
    /// `members`, with the session that owns each.
    pub members: BTreeMap<usize, (Member, SessionId)>,
    /// Version of `status`: counts renewals.
    pub renewals: i32,
    /// `status`: the leader's position.
    pub optime: Lsn,
    /// `status`: slots that WAL is kept for.
    pub retained: BTreeSet<SlotName>,
    /// `history`.
    pub history: History,
    /// Version of `history`.
    pub history_version: Option<i32>,
    /// How agents see it, and how the one does whose session leads.
    seen: [OnceCell<Arc<Cluster>>; 2],
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
        /// Delete the `leader` of another, if its newest renewal is this one.
        evict: Option<i32>,
    },
    /// Replace `leader` of another session of the same member.
    Reown {
        /// Version of the epoch; `None` creates it.
        version: Option<i32>,
        /// The new epoch.
        epoch: Epoch,
    },
    /// Write `status`.
    Renew {
        /// Version of the epoch.
        version: i32,
        /// The epoch that it is about.
        epoch: Epoch,
        /// The leader's position.
        optime: Lsn,
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
    Announce(Member),
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
        let mut next = self.successor();
        let current = |version: i32| unchecked || self.epoch.version == Some(version);
        let raise = |version: Option<i32>, epoch: Epoch| {
            (self.epoch.version == version || unchecked).then(|| EpochRecord {
                epoch,
                leader: Some(names[who].clone()),
                version: Some(self.epoch.version.map_or(0, |version| version + 1)),
            })
        };
        match write {
            Write::Take { version, epoch, initialize, evict } => {
                next.epoch = raise(*version, *epoch)?;
                // What is to be deleted must be there.
                let evicted = evict.is_some_and(|renewal| self.renewals == renewal || unchecked);
                if self.leader.is_some() != evict.is_some() || evict.is_some() && !evicted {
                    return None;
                }
                if *initialize && self.initialize != Initialize::Absent {
                    return None;
                }
                next.leader = Some((who, session));
                if *initialize {
                    next.initialize = Initialize::Begun;
                }
            }
            Write::Reown { version, epoch } => {
                next.epoch = raise(*version, *epoch)?;
                self.leader?;
                next.leader = Some((who, session));
            }
            Write::Renew { version, optime, retain, .. } => {
                current(*version).then_some(())?;
                next.renewals += 1;
                next.optime = *optime;
                next.retained.clone_from(retain);
            }
            Write::Release { version } => {
                current(*version).then_some(())?;
                self.leader?;
                next.leader = None;
            }
            Write::Config { version, settings } => {
                (current(*version) && self.config.is_none()).then_some(())?;
                next.config = Some(settings.clone());
            }
            Write::Initialized { version, content } => {
                (current(*version) && !matches!(self.initialize, Initialize::Done(_))).then_some(())?;
                next.initialize = *content;
            }
            Write::Sync { version, record } => {
                (current(*version) && self.sync.version == record.version).then_some(())?;
                next.sync =
                    SyncRecord { version: Some(self.sync.version.map_or(0, |version| version + 1)), ..record.clone() };
            }
            Write::Reserve { version, expect, timeline } => {
                (current(*version) && self.history_version == *expect).then_some(())?;
                next.history.newest = Some(self.history.timeline());
                next.history.reserved = Some(*timeline);
                next.history_version = Some(expect.map_or(0, |version| version + 1));
            }
            Write::History { version, expect, history } => {
                (current(*version) && self.history_version == *expect).then_some(())?;
                next.history = history.clone();
                next.history_version = Some(expect.map_or(0, |version| version + 1));
            }
            Write::Failsafe { version, expect, members } => {
                (current(*version) && self.failsafe.version == *expect).then_some(())?;
                let version = Some(expect.map_or(0, |version| version + 1));
                next.failsafe = FailsafeRecord { members: members.clone(), unreadable: false, version };
            }
            Write::ClearFailover { version, failover } => {
                (current(*version) && self.failover_version == *failover).then_some(())?;
                next.failover = None;
                next.failover_version += 1;
            }
            Write::Announce(member) => {
                next.members.insert(who, (member.clone(), session));
            }
            Write::Ask(request) => {
                next.failover_version += 1;
                next.failover = Some(FailoverRequest { version: next.failover_version, ..request.clone() });
            }
            Write::Set(settings) => {
                self.config.as_ref()?;
                next.config = Some(settings.clone());
            }
        }
        Some(next)
    }

    fn successor(&self) -> Self {
        Self { zxid: self.zxid + 1, seen: Default::default(), ..self.clone() }
    }

    /// Without what a session owned; `None` when it owned nothing.
    pub fn without(&self, session: SessionId) -> Option<Self> {
        let leads = self.leader.is_some_and(|(_, owner)| owner == session);
        if !leads && self.members.values().all(|(_, owner)| *owner != session) {
            return None;
        }
        let mut next = self.successor();
        if leads {
            next.leader = None;
        }
        next.members.retain(|_, (_, owner)| *owner != session);
        Some(next)
    }

    /// As a member sees it through `session`.
    pub fn view(&self, names: &[NodeName], session: SessionId) -> Arc<Cluster> {
        let is_my_session = self.leader.is_some_and(|(_, owner)| owner == session);
        let seen = self.seen[usize::from(is_my_session)].get_or_init(|| {
            Arc::new(Cluster {
                epoch: self.epoch.clone(),
                leader: self.leader.map(|(who, _)| Leader { name: names[who].clone(), is_my_session }),
                initialize: self.initialize,
                config: self.config.clone(),
                sync: self.sync.clone(),
                failover: self.failover.clone(),
                failsafe: self.failsafe.clone(),
                members: self.members.iter().map(|(who, (member, _))| (names[*who].clone(), member.clone())).collect(),
                retained_slots: self.retained.clone(),
                slot_positions: BTreeMap::new(),
                optime: self.optime,
                history: self.history.clone(),
            })
        });
        seen.clone()
    }
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
        let take = |version, epoch| Write::Take { version, epoch: Epoch(epoch), initialize: false, evict: None };
        let first = Tree::default().apply(&names, 0, 1, &take(None, 1), false).expect("vacant");
        assert!(first.apply(&names, 1, 2, &take(Some(0), 2), false).is_none(), "two leaders");
        let vacant = first.without(1).expect("it owned the leadership");
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
