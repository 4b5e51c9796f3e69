//! Slow actions, step by step. What an agent ordered goes on when it dies; only its waiting ends.

use std::collections::BTreeSet;

use pgha_core::lsn::Timeline;
use pgha_core::name::{Epoch, SlotName};
use pgha_core::observation::{ControlState, JobKind, Outcome, Past, RunningJob};
use pgha_core::time::Instant;

use super::Job;
use super::execute::Done;
use crate::event::{Event, Who};
use crate::invariant;
use crate::model::postgres::{Data, Life};
use crate::model::slots::{Kind, Slot, Slots};
use crate::mutant::Mutant;
use crate::scenario::Moment;
use crate::time::Span;
use crate::world::World;

/// A slow action and what it needs.
#[derive(Debug, Clone)]
pub(super) enum Work {
    Bootstrap,
    Prepare,
    StartPrimary { epoch: Epoch, not_after: Instant },
    StartStandby { upstream: Option<usize> },
    Stop { checkpoint: bool },
    Promote { epoch: Epoch, not_after: Instant, timeline: Timeline },
    Rewind { source: usize },
    Clone { source: usize },
    CopySlots { source: usize, slots: BTreeSet<SlotName>, copies: Vec<(SlotName, u64)> },
}

/// The step at which slots to copy have been read.
const READ: u8 = 2;

/// How often a job looks whether something has come about.
const LOOK: Span = Span::millis(20);

impl World {
    pub(super) fn begin_job(&mut self, who: Who, kind: JobKind, what: Work) -> Done {
        let since = self.clock(who.host);
        let writes = matches!(what, Work::StartPrimary { .. } | Work::Promote { .. });
        let Some(agent) = self.agent(who) else { return Done::Failed };
        let id = agent.next_id();
        agent.job = Some(Job { id, what, view: RunningJob { kind, since, writes } });
        self.later(Span(200), Event::Job { who, id, step: 0 });
        Done::Go
    }

    pub(crate) fn job_step(&mut self, who: Who, id: u32, step: u8) {
        let Some(agent) = self.agent(who) else { return };
        let Some(job) = agent.job.as_ref().filter(|job| job.id == id) else { return };
        let (what, since) = (job.what.clone(), job.view.since);
        let waited = self.clock(who.host).since(since);
        let next = match what {
            Work::Bootstrap => self.bootstrap(who.host, step),
            Work::Prepare => self.prepare(who.host, step),
            Work::StartPrimary { epoch, not_after } => self.start_primary(who.host, step, epoch, not_after),
            Work::StartStandby { upstream } => self.start_standby(who.host, step, upstream, waited.0),
            Work::Stop { checkpoint } => self.stop(who.host, step, checkpoint, waited.0),
            Work::Promote { epoch, not_after, timeline } => self.promote(who.host, step, epoch, not_after, timeline),
            Work::Rewind { source } => self.rewind(who.host, step, source),
            Work::Clone { source } => self.copy(who.host, step, source),
            Work::CopySlots { source, slots, .. } if step < READ => self.read_slots(who, step, source, &slots),
            Work::CopySlots { copies, .. } => self.write_slots(who.host, step, copies, waited.0),
        };
        match next {
            Step::Again(after, step) => self.later(after, Event::Job { who, id, step }),
            Step::End(outcome) => {
                if let Some(agent) = self.agent(who) {
                    agent.end_job(outcome);
                }
                self.nudge(who.host);
            }
        }
    }

    fn bootstrap(&mut self, host: usize, step: u8) -> Step {
        if step == 0 {
            self.hosts[host].pg.past.unrecorded = true;
            return Step::Again(self.between(800, 6000), 1);
        }
        let at = self.wal.initdb(host);
        self.hosts[host].pg.data = Some(Data::initdb(at, &self.wal));
        Step::End(Outcome::Done)
    }

    fn prepare(&mut self, host: usize, step: u8) -> Step {
        if step == 0 {
            return Step::Again(self.between(50, 800), 1);
        }
        match &self.hosts[host].pg.server {
            Some(server) if server.writable() => Step::End(Outcome::Done),
            _ => failed("Postgres is gone"),
        }
    }

    fn start_primary(&mut self, host: usize, step: u8, epoch: Epoch, not_after: Instant) -> Step {
        if step == 0 {
            self.hosts[host].pg.past.led_in = Some(epoch);
            if self.clock(host) >= not_after && !self.is(Mutant::IgnoreNotAfter) {
                return failed("the lease is too short by now");
            }
            if let Some(data) = &mut self.hosts[host].pg.data {
                data.standby_signal = false;
            }
            invariant::in_time::check(self, host, "starts as a primary");
            return self.launch(host, true, None);
        }
        self.await_start(host)
    }

    fn start_standby(&mut self, host: usize, step: u8, upstream: Option<usize>, waited: u64) -> Step {
        if step == 0 {
            if let Some(data) = &mut self.hosts[host].pg.data {
                data.standby_signal = true;
            }
            self.hosts[host].pg.configured = String::new();
            return self.launch(host, false, upstream);
        }
        if waited > 5000 && self.hosts[host].pg.server.is_some() {
            return Step::End(Outcome::Done);
        }
        self.await_start(host)
    }

    fn launch(&mut self, host: usize, primary: bool, upstream: Option<usize>) -> Step {
        if self.hosts[host].start_fails_until.max(self.hosts[host].unreadable_until) > self.now {
            return Step::Again(self.between(100, 2000), 9);
        }
        if self.hosts[host].pg.data.is_none() || self.hosts[host].pg.server.is_some() {
            return failed("nothing to start, or running already");
        }
        let broken = self.hosts[host].pg.data.as_ref().and_then(|data| data.broken);
        if broken.is_some() && primary {
            return failed("Postgres ended in recovery");
        }
        invariant::rejoin::check_whole(self, host, "starts");
        self.start_postgres(host, primary, upstream);
        Step::Again(LOOK, 1)
    }

    fn await_start(&mut self, host: usize) -> Step {
        match &self.hosts[host].pg.server {
            None if self.hosts[host].pg.data.as_ref().is_some_and(|data| data.broken.is_some()) => {
                Step::End(Outcome::Impossible("Postgres ended in recovery".to_owned()))
            }
            None => failed("Postgres died while starting"),
            Some(server) if server.life == Life::Running && server.stuck_until <= self.now => Step::End(Outcome::Done),
            Some(_) => Step::Again(LOOK, 1),
        }
    }

    fn stop(&mut self, host: usize, step: u8, checkpoint: bool, waited: u64) -> Step {
        let now = self.now;
        let Some(server) = &mut self.hosts[host].pg.server else { return Step::End(Outcome::Done) };
        let stuck = server.stuck_until > now;
        match step {
            0 if checkpoint && !stuck => Step::Again(self.between(10, 1500), 1),
            0 | 1 => {
                if !stuck {
                    self.stop_postgres(host);
                }
                Step::Again(LOOK, if stuck { 1 } else { 2 })
            }
            _ if waited > 60_000 => {
                self.kill_postgres(host, "it does not stop");
                Step::Again(LOOK, 2)
            }
            _ => Step::Again(LOOK, 2),
        }
    }

    fn promote(&mut self, host: usize, step: u8, epoch: Epoch, not_after: Instant, timeline: Timeline) -> Step {
        if step == 0 {
            let past = &mut self.hosts[host].pg.past;
            (past.led_in, past.promoting_to) = (Some(epoch), Some(timeline));
            // Writing the record takes a moment, and now and then a long one.
            let stall = if self.rng.u8(0..32) == 0 { self.between(100, 6000) } else { Span(0) };
            return Step::Again(Span(self.between(1, 10).0 + stall.0), 1);
        }
        if step == 1 && self.clock(host) >= not_after && !self.is(Mutant::IgnoreNotAfter) {
            self.hosts[host].pg.past.promoting_to = None;
            return failed("the lease is too short by now");
        }
        let (takes, now) = (self.between(20, 400), self.now);
        let Some(server) = &mut self.hosts[host].pg.server else { return failed("Postgres is gone") };
        if step == 1 {
            if server.life != Life::Running || server.stuck_until > self.now {
                return failed("Postgres does not answer");
            }
            server.promoting = Some(timeline);
            let number = server.number;
            // All that is there is replayed first.
            let takes = Span(takes.0 + server.replays_until.since(now).0);
            invariant::in_time::check(self, host, "promotes");
            self.later(takes, Event::Promoted(Who { host, start: number }));
            return Step::Again(LOOK, 2);
        }
        if !server.primary {
            return Step::Again(LOOK, 2);
        }
        let branch = self.hosts[host].pg.data.as_ref().map(|data| data.at.branch);
        let timeline = branch.map(|branch| self.wal.timeline(branch));
        self.hosts[host].pg.past.promoted_to = timeline;
        Step::End(Outcome::Done)
    }

    /// Whether `source` runs where `host` can reach it.
    fn is_source(&self, host: usize, source: usize, primary: bool) -> bool {
        let at = &self.hosts[source];
        at.on
            && at.frozen_until <= self.now
            && self.network.talks(host, source)
            && at.pg.server.as_ref().is_some_and(|server| {
                server.life == Life::Running && (server.primary || !primary) && server.stuck_until <= self.now
            })
    }

    fn rewind(&mut self, host: usize, step: u8, source: usize) -> Step {
        invariant::rejoin::check(self, host, source);
        if self.hosts[host].pg.past.rewind_unfinished && step == 0 {
            return Step::End(Outcome::Impossible("an earlier pg_rewind was interrupted".to_owned()));
        }
        if !self.is_source(host, source, true) {
            if step > 0 {
                // It has begun to change the directory.
                return Step::End(Outcome::Impossible("the source went away".to_owned()));
            }
            return failed("the source cannot be reached");
        }
        let broken = self.hosts[host].pg.data.as_ref().is_some_and(|data| data.broken.is_some());
        if step == 0 && (broken || self.hosts[host].rewind_fails_until > self.now) {
            return Step::End(Outcome::Impossible("could not find previous WAL record".to_owned()));
        }
        if step == 0 {
            invariant::rejoin::check_whole(self, host, "rewinds");
        }
        let (Some(target), Some(theirs)) = (self.hosts[host].pg.data.clone(), self.hosts[source].pg.data.clone())
        else {
            return failed("there is no data");
        };
        if step == 0 {
            // pg_rewind compares the timelines of the control files: before its first checkpoint on the new timeline the
            // source shows the old one.
            let timeline = self.wal.timeline(target.at.branch);
            if timeline == theirs.checkpoint_timeline {
                return Step::End(Outcome::Impossible("on the same timeline".to_owned()));
            }
            self.hosts[host].pg.past.rewind_unfinished = !self.is(Mutant::ForgetUnfinishedRewind);
            if let Some(data) = &mut self.hosts[host].pg.data {
                data.damaged = true;
            }
            self.spring(Moment::Rewind, host);
            return Step::Again(self.between(300, 8000), 1);
        }
        if target.system != theirs.system {
            return Step::End(Outcome::Impossible("of another cluster".to_owned()));
        }
        self.hosts[host].pg.data = Some(Data {
            at: theirs.at,
            recovered: (self.wal.timeline(theirs.at.branch), theirs.at.lsn),
            state: ControlState::InArchiveRecovery,
            standby_signal: true,
            backup_label: true,
            damaged: false,
            slots: Slots::default(),
            ..theirs
        });
        self.finish_rewind(host);
        Step::End(Outcome::Done)
    }

    fn finish_rewind(&mut self, host: usize) {
        let led_in = self.hosts[host].pg.past.led_in;
        self.hosts[host].pg.past = Past { led_in, ..Past::default() };
        if let Some(data) = &mut self.hosts[host].pg.data {
            data.standby_signal = true;
        }
    }

    fn copy(&mut self, host: usize, step: u8, source: usize) -> Step {
        invariant::rejoin::check(self, host, source);
        if !self.is_source(host, source, false) {
            return failed("the source cannot be reached");
        }
        if step == 0 {
            self.spring(Moment::Copy, host);
            return Step::Again(self.between(1000, 10_000), 1);
        }
        let Some(theirs) = self.hosts[source].pg.data.clone() else { return failed("there is no data") };
        let old = self.hosts[host].pg.data.take();
        self.hosts[host].pg.old = old;
        self.hosts[host].pg.data = Some(Data {
            state: ControlState::InProduction,
            standby_signal: true,
            backup_label: true,
            redo: theirs.at.lsn,
            kept: theirs.at.lsn,
            slots: Slots::default(),
            ..theirs
        });
        self.finish_rewind(host);
        Step::End(Outcome::Done)
    }

    /// What the leader has and this member can use is read while it still runs.
    fn read_slots(&mut self, who: Who, step: u8, source: usize, slots: &BTreeSet<SlotName>) -> Step {
        let (host, now) = (who.host, self.now);
        if step == 0 {
            return Step::Again(self.between(5, 300), 1);
        }
        if !self.is_source(host, source, true) {
            return failed("the source cannot be reached");
        }
        let pg = &self.hosts[host].pg;
        let (Some(theirs), Some(mine), Some(server)) = (&self.hosts[source].pg.data, &pg.data, &pg.server) else {
            return failed("there is no data");
        };
        let replayed = server.replayed(mine, now);
        let position = |name: &SlotName| theirs.slots.usable(name).map(|slot| slot.position);
        let usable = |position: &u64| *position <= replayed && *position >= mine.kept;
        let copies: Vec<_> =
            slots.iter().filter_map(|name| Some((name.clone(), position(name).filter(usable)?))).collect();
        if copies.is_empty() {
            return failed("there is no slot that could be used here");
        }
        if let Some(Job { what: Work::CopySlots { copies: read, .. }, .. }) =
            self.agent(who).and_then(|agent| agent.job.as_mut())
        {
            *read = copies;
        }
        Step::Again(LOOK, READ)
    }

    /// Slots are written once Postgres has stopped; it is left so.
    fn write_slots(&mut self, host: usize, step: u8, copies: Vec<(SlotName, u64)>, waited: u64) -> Step {
        match self.stop(host, step - READ, true, waited) {
            Step::Again(after, step) => Step::Again(after, step + READ),
            Step::End(outcome) => {
                self.say(|world| format!("{}: has copied {copies:?}", world.names[host]));
                let ahead = self.is(Mutant::CopySlotsAtReplayed);
                if let Some(data) = &mut self.hosts[host].pg.data {
                    for (name, position) in copies {
                        let position = if ahead { data.at.lsn } else { position };
                        data.slots.create(name, Slot::new(Kind::Logical, position));
                    }
                }
                Step::End(outcome)
            }
        }
    }
}

/// What a job does next.
enum Step {
    Again(Span, u8),
    End(Outcome),
}

fn failed(why: &str) -> Step {
    Step::End(Outcome::Failed(why.to_owned()))
}
