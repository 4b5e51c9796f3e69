//! What can happen, and the queue in which it waits. Events of one moment happen in the order in which they were made.

use std::rc::Rc;

use pgha_core::name::Epoch;
use pgha_core::pulse::Renewal;

use crate::model::zookeeper::{SessionId, Tree, Write};
use crate::slots::SlotWork;
use crate::time::Time;

/// A process, as an event means it: what happens to a later one is another event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who {
    /// On this host.
    pub host: usize,
    /// This start of it.
    pub start: u32,
}

/// The parts of a server that take a setting by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taker {
    /// What a new query is told.
    Query,
    /// The checkpointer.
    Checkpointer,
    /// The walsender of this member.
    Sender(usize),
}

/// An event.
#[derive(Debug, Clone)]
pub enum Event {
    /// Something wakes an agent.
    Wake(Who),
    /// An agent has rested after a turn.
    Rested {
        /// The agent.
        who: Who,
        /// The turn.
        turn: u32,
    },
    /// An agent's read has come back.
    ReadDone {
        /// The agent.
        who: Who,
        /// Its turn.
        turn: u32,
        /// What was read; `None` when its time is over.
        tree: Option<Rc<Tree>>,
    },
    /// An agent's look at Postgres is done.
    Looked {
        /// The agent.
        who: Who,
        /// Its turn.
        turn: u32,
        /// Postgres did not answer.
        mute: bool,
    },
    /// A watch tells of a renewal.
    RenewalSeen {
        /// The agent.
        who: Who,
        /// Which.
        renewal: Renewal,
    },
    /// A write was answered.
    WriteDone {
        /// The agent.
        who: Who,
        /// Which write.
        id: u32,
        /// It was done.
        done: bool,
    },
    /// An agent waits no longer for a write.
    WriteLate {
        /// The agent.
        who: Who,
        /// Which write.
        id: u32,
    },
    /// The other members have answered, or have not.
    PeersAsked {
        /// The agent.
        who: Who,
        /// Which write (questions are counted with them).
        id: u32,
        /// Who was asked.
        asked: Vec<usize>,
        /// Since when.
        since: Time,
    },
    /// A member is asked not to lead.
    AskPromise {
        /// Who asks.
        who: Who,
        /// Which question of his (counted with his writes).
        id: u32,
        /// Who is asked.
        peer: usize,
        /// Under which leadership.
        epoch: Epoch,
    },
    /// A member has given its word.
    Promised {
        /// Who asked.
        who: Who,
        /// Which question.
        id: u32,
        /// Whose word.
        peer: usize,
    },
    /// What an agent waited for in its turn has come about.
    Goes {
        /// The agent.
        who: Who,
        /// Which of its waits (counted with its writes).
        id: u32,
    },
    /// The startup process of a standby takes a new `primary_conninfo`.
    Follow(Who),
    /// A slow action goes on.
    Job {
        /// The agent.
        who: Who,
        /// Which job.
        id: u32,
        /// Its next step.
        step: u8,
    },
    /// Work on slots comes to its end.
    SlotWork {
        /// The agent.
        who: Who,
        /// What.
        work: Box<SlotWork>,
    },
    /// A consumer of a permanent slot reads.
    Consume(usize),
    /// A connection to ZooKeeper is tried.
    Connect(Who),
    /// A read reaches a server.
    Read {
        /// The server.
        server: usize,
        /// Who asks.
        who: Who,
        /// In which turn.
        turn: u32,
        /// Through which session.
        session: SessionId,
    },
    /// A write reaches a server.
    Write {
        /// The server.
        server: usize,
        /// It has come from a follower already.
        forwarded: Option<usize>,
        /// Who asks.
        who: Who,
        /// Which write of it.
        id: u32,
        /// Through which session.
        session: SessionId,
        /// What.
        write: Box<Write>,
    },
    /// The answer to a write reaches the server that the member is connected to.
    Answer {
        /// The server.
        server: usize,
        /// Who asked.
        who: Who,
        /// Which write of it.
        id: u32,
        /// It was done.
        done: bool,
    },
    /// A server applies what is committed.
    Apply {
        /// The server.
        server: usize,
        /// Under which leader.
        term: u32,
        /// What.
        tree: Rc<Tree>,
    },
    /// A follower reports the sessions that it heard of.
    Report {
        /// The follower.
        server: usize,
        /// Under which leader.
        term: u32,
    },
    /// A session may be over.
    Expire,
    /// The ensemble may have lost its leader.
    LeaderLost {
        /// Which.
        term: u32,
    },
    /// The ensemble may elect one.
    Elect,
    /// A server of Postgres is up.
    Started(Who),
    /// It dies.
    Died(Who),
    /// It has been promoted.
    Promoted(Who),
    /// A part of it takes a setting.
    Setting {
        /// The server.
        who: Who,
        /// Which change.
        setting: u32,
        /// Which part.
        taker: Taker,
    },
    /// WAL reaches a standby.
    Ship {
        /// The primary.
        from: Who,
        /// The standby.
        to: Who,
        /// Up to here.
        lsn: u64,
    },
    /// A confirmation reaches the primary.
    Confirm {
        /// The standby.
        from: usize,
        /// The primary.
        to: Who,
        /// Up to here.
        lsn: u64,
    },
    /// The stream to a member is looked at.
    Stream {
        /// The standby's host.
        member: usize,
    },
    /// A checkpoint or restartpoint is complete.
    Checkpointed(Who),
    /// A guard looks at the lease.
    Guard {
        /// Its host.
        host: usize,
        /// Its start.
        boot: u32,
    },
    /// A kernel watchdog may fire.
    Watchdog {
        /// Its host.
        host: usize,
        /// Its start.
        boot: u32,
    },
    /// A guard is started again.
    GuardStart {
        /// Its host.
        host: usize,
        /// The host's start.
        boot: u32,
    },
    /// An agent is started.
    AgentStart {
        /// Its host.
        host: usize,
        /// The host's start.
        boot: u32,
    },
    /// An agent has not pinged systemd for too long.
    Hung(Who),
    /// A host is switched on.
    PowerOn(usize),
    /// What was frozen goes on.
    Thaw(usize),
    /// A server of the ensemble is started.
    ServerUp(usize),
    /// A client writes.
    Client(u32),
    /// A write reaches Postgres.
    Commit {
        /// The host.
        host: usize,
        /// Which write.
        write: u32,
    },
    /// A planned fault begins.
    Fault(usize),
    /// A planned fault ends.
    FaultEnd(usize),
    /// The faults are over.
    Calm,
    /// The history ends.
    End,
}

/// When an event is due, and where it is kept. Small, because the queue moves it about.
#[derive(Debug, Clone, Copy)]
pub struct Due {
    micros: u32,
    place: u32,
}

impl Due {
    /// When.
    pub fn at(self) -> Time {
        Time(self.micros.into())
    }
}

/// Among so many that are due next most that come have their place.
const SOON: usize = 6;

/// Events by time.
///
/// Some dozens wait, and most that come are due before nearly all of these: a list in order, with the next one at its end,
/// is quicker than a heap. It needs no mark of the order in which events of one moment were made, either.
#[derive(Default)]
pub struct Queue {
    /// The latest first; of one moment the newest first.
    waiting: Vec<Due>,
    /// Where they are kept, in no order; a place that is free holds any.
    events: Vec<Event>,
    free: Vec<u32>,
    made: u64,
}

impl Queue {
    /// Adds one.
    #[inline]
    pub fn push(&mut self, at: Time, event: Event) {
        let place = self.reserve(at);
        self.events[place] = event;
    }

    /// A place for an event that is due `at`.
    fn reserve(&mut self, at: Time) -> usize {
        self.made += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(Event::End);
            u32::try_from(self.events.len() - 1).unwrap_or(u32::MAX)
        });
        // No history lasts that long.
        let micros = u32::try_from(at.0).unwrap_or(u32::MAX);
        let later = self.later_than(micros);
        self.waiting.insert(later, Due { micros, place });
        place as usize
    }

    /// How many are due later.
    fn later_than(&self, micros: u32) -> usize {
        let later = |other: &Due| other.micros > micros;
        let (far, soon) = self.waiting.split_at(self.waiting.len().saturating_sub(SOON));
        match soon.iter().rposition(later) {
            Some(last) => far.len() + last + 1,
            None => far.partition_point(later),
        }
    }

    /// What is due next, to be taken.
    pub fn pop(&mut self) -> Option<Due> {
        let due = self.waiting.pop()?;
        self.free.push(due.place);
        Some(due)
    }

    /// Takes it.
    pub fn take(&mut self, due: Due) -> Event {
        std::mem::replace(&mut self.events[due.place as usize], Event::End)
    }

    /// How many were ever added.
    pub fn made(&self) -> u64 {
        self.made
    }
}
