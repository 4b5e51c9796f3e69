//! Does what was decided, one action at a time, as `pgha-agent/src/agent/execute.rs` does.

use std::collections::{BTreeMap, BTreeSet};

use pgha_core::action::{Action, StartAs};
use pgha_core::lsn::{Lsn, Timeline};
use pgha_core::name::{Epoch, NodeName, SlotName};
use pgha_core::observation::{Dcs, History, Initialize, JobKind, Postgres, Promise, Role, SyncRecord};

use super::jobs::Work;
use super::{Ack, Asking, InFlight, Phase};
use crate::event::{Event, Who};
use crate::model::zookeeper::Write;
use crate::mutant::Mutant;
use crate::scenario::Moment;
use crate::slots::SlotWork;
use crate::time::Span;
use crate::world::World;

/// How an action went.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// The next one.
    Go,
    /// It has to be waited for.
    Wait,
    /// It failed; the others are left undone.
    Failed,
    /// The process ends.
    Exit,
}

/// How long another member may take to say how far it is.
const PEER_DEADLINE: Span = Span::millis(400);

impl World {
    pub(super) fn execute(&mut self, who: Who, action: Action) -> Done {
        let host = who.host;
        let sent = self.clock(host);
        let ack = |epoch: Epoch, began: bool| Some(Ack { sent, epoch, began });
        self.reached.acted(&action);
        match action {
            Action::TakeLeadership { version, epoch, initialize, lapsed, above } => {
                if self.has_promised(who) {
                    return Done::Failed;
                }
                if self.is_named(who) {
                    self.oracle.forced.push((host, epoch));
                }
                if let Some(agent) = self.agent(who) {
                    agent.bid = Some(epoch);
                    agent.free = false;
                }
                self.spring(Moment::Bid, host);
                self.write(who, Write::Take { version, epoch, initialize, lapsed, above }, ack(epoch, true), None)
            }
            Action::ReownLeadership { version, epoch, above } => {
                self.write(who, Write::Reown { version, epoch, above }, ack(epoch, true), Some(epoch))
            }
            Action::Renew { version, retain } => {
                let Some(epoch) = self.seen_epoch(who) else { return Done::Failed };
                let (optime, slots, timeline) = self.own_positions(who);
                let write = Write::Renew { version, epoch, optime, slots, timeline, retain };
                self.write(who, write, ack(epoch, false), None)
            }
            Action::ReleaseLeadership { version } => self.write(who, Write::Release { version }, None, None),
            Action::RecordCluster { version, system_id } => {
                // The settings first: whoever sees the cluster made must see them too.
                let Some(tree) = self.agent(who).and_then(|agent| agent.seen.clone()) else { return Done::Failed };
                if tree.cluster.config.is_none() {
                    let settings = self.scenario.settings.clone();
                    self.write(who, Write::Config { version, settings }, None, None)
                } else {
                    let content = Initialize::Done(system_id);
                    self.write(who, Write::Initialized { version, content }, None, None)
                }
            }
            Action::WriteSync { version, record } => self.write(who, Write::Sync { version, record }, None, None),
            Action::ReserveTimeline { .. } if self.is(Mutant::IgnoreTwins) => Done::Go,
            Action::ReserveTimeline { version, timeline } => {
                let Some(tree) = self.agent(who).and_then(|agent| agent.seen.clone()) else { return Done::Failed };
                self.write(who, Write::Reserve { version, expect: tree.history_version, timeline }, None, None)
            }
            Action::WriteFailsafe { version, failsafe, members } => {
                let at = &mut self.hosts[host];
                if let (Some(record), Some(agent)) = (&mut at.lease_file, &at.agent) {
                    record.electorate = agent.memory.electorate.clone();
                }
                self.write(who, Write::Failsafe { version, expect: failsafe, members }, None, None)
            }
            Action::RenewByPromise { epoch, members } => self.ask_for_promises(who, epoch, &members),
            Action::WriteHistory { version } => self.write_history(who, version),
            Action::ClearFailover { version, failover } => {
                self.write(who, Write::ClearFailover { version, failover }, None, None)
            }
            Action::AskPeers(names) => {
                let asked: Vec<usize> = names.iter().filter_map(|name| self.number(name)).collect();
                let all = asked.iter().all(|peer| self.network.talks(host, *peer));
                let takes = if all { self.between(1, 20) } else { PEER_DEADLINE };
                let since = self.now;
                let Some(agent) = self.agent(who) else { return Done::Failed };
                let id = agent.next_id();
                self.later(takes, Event::PeersAsked { who, id, asked, since });
                Done::Wait
            }
            Action::Fence => {
                let Some(takes) = self.kill_postgres(host, "fencing") else { return Done::Go };
                let Some(agent) = self.agent(who) else { return Done::Failed };
                let id = agent.next_id();
                // It returns when no process is left.
                self.later(Span(takes.0 + 100), Event::Goes { who, id });
                Done::Wait
            }
            Action::ForgetLease => {
                self.hosts[host].lease_file = None;
                if let Some(agent) = self.agent(who) {
                    agent.lease = None;
                }
                self.arm_guard(host);
                Done::Go
            }
            Action::Bootstrap => self.begin_job(who, JobKind::Bootstrap, Work::Bootstrap),
            Action::Prepare => self.begin_job(who, JobKind::Prepare, Work::Prepare),
            Action::Start(StartAs::Primary { epoch, not_after }) => {
                self.begin_job(who, JobKind::Start, Work::StartPrimary { epoch, not_after })
            }
            Action::Start(StartAs::Standby(upstream)) => {
                let upstream = upstream.and_then(|name| self.number(&name));
                self.begin_job(who, JobKind::Start, Work::StartStandby { upstream })
            }
            Action::Stop { checkpoint } => self.begin_job(who, JobKind::Stop, Work::Stop { checkpoint }),
            Action::Promote { epoch, not_after, timeline } => {
                self.begin_job(who, JobKind::Promote, Work::Promote { epoch, not_after, timeline })
            }
            Action::Follow(upstream) => {
                let upstream = upstream.and_then(|name| self.number(&name));
                self.follow(host, upstream);
                Done::Go
            }
            Action::SetSyncNames(names) => {
                self.set_sync_names(host, names);
                Done::Go
            }
            Action::CreateSlots(slots) => {
                self.create_slots(host, slots);
                Done::Go
            }
            Action::CreateLogicalSlots(slots) => {
                self.begin_slot_work(who, SlotWork::Create(slots.into_keys().collect()));
                Done::Go
            }
            Action::AdvanceSlots(slots) => {
                self.begin_slot_work(who, SlotWork::Advance(slots));
                Done::Go
            }
            Action::CopySlots(source, slots) => {
                let Some(source) = self.number(&source) else { return Done::Failed };
                self.begin_job(who, JobKind::CopySlots, Work::CopySlots { source, slots, copies: Vec::new() })
            }
            Action::DropSlots(slots) => {
                self.drop_slots(host, &slots);
                Done::Go
            }
            Action::Checkpoint => {
                if let Some(server) = &self.hosts[host].pg.server {
                    let number = server.number;
                    let takes = self.between(20, 3000);
                    self.later(takes, Event::Checkpointed(Who { host, start: number }));
                }
                Done::Go
            }
            Action::Rewind(source) => {
                let Some(source) = self.number(&source) else { return Done::Failed };
                self.begin_job(who, JobKind::Rewind, Work::Rewind { source })
            }
            Action::Clone(source) => {
                let Some(source) = self.number(&source) else { return Done::Failed };
                self.begin_job(who, JobKind::Clone, Work::Clone { source })
            }
            Action::RemoveOldData => {
                self.hosts[host].pg.old = None;
                Done::Go
            }
            Action::CancelJob => {
                if let Some(agent) = self.agent(who)
                    && agent.job.is_some()
                {
                    agent.end_job(pgha_core::observation::Outcome::Failed("cancelled".to_owned()));
                    // The loop takes it at once, not as the end of a job that it did not order.
                    agent.ended = agent.finished.take();
                }
                Done::Go
            }
            Action::ArmWatchdog => {
                if self.has_watchdog(host) && self.hosts[host].resets_at.is_none() {
                    let boot = self.hosts[host].boot;
                    let (clock, timing) = (self.clock(host), self.timing);
                    let lease = self.agent(who).and_then(|agent| agent.lease);
                    let left = lease.and_then(|lease| lease.watchdog_seconds(clock, &timing)).unwrap_or(1);
                    let at = self.now + Span::secs(left.into());
                    self.hosts[host].resets_at = Some(at);
                    self.queue.push(at, Event::Watchdog { host, boot });
                }
                Done::Go
            }
            Action::DisarmWatchdog => {
                self.hosts[host].resets_at = None;
                Done::Go
            }
            Action::Exit => Done::Exit,
        }
    }

    /// Whether an operator wants this member to be the primary, whatever it has, as far as it has seen.
    fn is_named(&self, who: Who) -> bool {
        let seen = self.hosts[who.host].agent.as_deref().and_then(|agent| agent.seen.as_ref());
        let request = seen.and_then(|tree| tree.cluster.failover.as_ref());
        request.is_some_and(|it| it.leader.is_none() && it.candidate.as_ref() == Some(&self.names[who.host]))
    }

    /// The word of a member that was given since it last looked.
    fn has_promised(&self, who: Who) -> bool {
        let now = self.clock(who.host);
        let at = &self.hosts[who.host];
        let seen = at.agent.as_deref().and_then(|agent| agent.seen.as_ref()).map(|tree| tree.cluster.epoch.epoch);
        let binds = |it: &Promise| it.holds(now) && seen.is_none_or(|seen| seen <= it.epoch);
        !self.is(Mutant::ForgetPromise) && at.lease_file.is_none() && at.promise.as_ref().is_some_and(binds)
    }

    fn ask_for_promises(&mut self, who: Who, epoch: Epoch, members: &BTreeSet<NodeName>) -> Done {
        let asked = self.clock(who.host);
        let left: BTreeSet<usize> = members.iter().filter_map(|name| self.number(name)).collect();
        let Some(agent) = self.agent(who) else { return Done::Failed };
        let id = agent.next_id();
        agent.asking = Some(Asking { id, asked, epoch, left: left.clone() });
        if left.is_empty() {
            self.renewed_by_promise(who);
            return Done::Go;
        }
        for peer in left {
            if self.network.talks(who.host, peer) {
                let delay = self.network.delay(who.host, peer, self.now, &mut self.rng);
                self.later(delay, Event::AskPromise { who, id, peer, epoch });
            }
        }
        self.later(PEER_DEADLINE, Event::Goes { who, id });
        Done::Wait
    }

    /// The host where a member is: where its znode says.
    pub(super) fn number(&self, name: &NodeName) -> Option<usize> {
        let member = self.names.iter().position(|known| known == name)?;
        self.scenario.spare.and_then(|_| self.announced_by(member)).or(Some(member))
    }

    fn seen_epoch(&mut self, who: Who) -> Option<Epoch> {
        match &self.agent(who)?.observation.as_ref()?.dcs {
            Dcs::Seen(cluster) => Some(cluster.epoch.epoch),
            Dcs::Silent { .. } => None,
        }
    }

    /// What a renewal tells of: how far the leader is, and its slots are; while it is no primary, what was told before.
    fn own_positions(&mut self, who: Who) -> (Lsn, BTreeMap<SlotName, Lsn>, Option<Timeline>) {
        let Some(agent) = self.hosts[who.host].agent.as_deref() else { return Default::default() };
        if let Some(Postgres::Running(running)) = agent.observation.as_ref().map(|observation| &observation.postgres)
            && let Role::Primary(primary) = &running.role
        {
            let own = (self.names[who.host].slot(), primary.flushed);
            let named = |name: &str| self.names.iter().find(|member| member.as_str() == name);
            let senders = (primary.senders.iter()).filter_map(|it| Some((named(&it.name)?.slot(), it.flushed)));
            let permanent = self.consumers.iter().filter_map(|consumer| {
                let slots = &primary.slots;
                let slot = slots.physical.get(&consumer.slot).or_else(|| slots.logical.get(&consumer.slot))?;
                (slot.position != Lsn::INVALID && !slot.spoilt).then(|| (consumer.slot.clone(), slot.position))
            });
            let found = senders.chain([own]).chain(permanent);
            let slots = match agent.seen.as_ref().map(|tree| &tree.cluster) {
                Some(cluster) => cluster.positions_from(running.timeline, found),
                None => found.collect(),
            };
            return (primary.flushed, slots, Some(running.timeline));
        }
        let told = agent.seen.as_ref().map(|tree| &tree.cluster);
        told.map(|it| (it.optime, it.slot_positions.clone(), it.positions_on)).unwrap_or_default()
    }

    /// The newest switch is ours; the older ones are as they are on record.
    fn write_history(&mut self, who: Who, version: i32) -> Done {
        let host = who.host;
        let Some(data) = &self.hosts[host].pg.data else { return Done::Failed };
        let switches = self.wal.history(data.at.branch);
        let timeline = self.wal.timeline(data.at.branch);
        let me = self.names[host].clone();
        let Some(agent) = self.agent(who) else { return Done::Failed };
        let Some(tree) = agent.seen.clone() else { return Done::Failed };
        let mut begun_by = tree.cluster.history.begun_by.clone();
        begun_by.insert(timeline, me);
        let reserved = tree.cluster.history.reserved.max(agent.memory.reserved);
        let history = History { newest: Some(timeline), reserved, switches, begun_by };
        self.write(who, Write::History { version, expect: tree.history_version, history }, None, None)
    }

    fn write(&mut self, who: Who, write: Write, ack: Option<Ack>, reowned: Option<Epoch>) -> Done {
        // What would be safe in one order is not in the other.
        let write = match (write, self.mutant) {
            (Write::Sync { version, record }, Some(Mutant::KeepSyncAtPromotion)) if record.standbys.is_empty() => {
                let kept =
                    self.agent(who).and_then(|agent| agent.seen.clone()).map(|tree| tree.cluster.sync.standbys.clone());
                Write::Sync { version, record: SyncRecord { standbys: kept.unwrap_or_default(), ..record } }
            }
            (write, _) => write,
        };
        if self.begin_write(who, write, ack, reowned) { Done::Wait } else { Done::Failed }
    }

    /// Sends a write; says whether it was sent. Nothing is, without a connection or while another is unanswered.
    pub(super) fn begin_write(&mut self, who: Who, write: Write, ack: Option<Ack>, reowned: Option<Epoch>) -> bool {
        let Some(agent) = self.agent(who) else { return false };
        let (Some(server), Some(session)) = (agent.connection.server, agent.connection.session) else {
            return false;
        };
        if agent.in_flight.is_some() {
            return false;
        }
        let id = agent.next_id();
        agent.in_flight = Some(InFlight { id, ack, reowned, awaited: true });
        let patience = agent.patience();
        let event = Event::Write { server, forwarded: None, who, id, session, write: Box::new(write) };
        self.send(who.host, server, event);
        self.later(patience, Event::WriteLate { who, id });
        true
    }

    /// A write was answered (`Some`), or is waited for no longer.
    pub(crate) fn write_done(&mut self, who: Who, id: u32, answer: Option<bool>) {
        let now = self.now;
        let host = who.host;
        let Some(agent) = self.agent(who) else { return };
        let Some(in_flight) = agent.in_flight.filter(|in_flight| in_flight.id == id) else { return };
        if answer.is_some() {
            agent.in_flight = None;
            agent.connection.heard = now;
        }
        if answer == Some(true) {
            agent.acks.extend(in_flight.ack);
            if let Some(epoch) = in_flight.reowned {
                self.hosts[host].pg.past.led_in = Some(epoch);
            }
        }
        if !in_flight.awaited {
            if answer.is_some() {
                self.nudge(host);
            }
            return;
        }
        let Some(agent) = self.agent(who) else { return };
        if answer.is_none()
            && let Some(in_flight) = &mut agent.in_flight
        {
            in_flight.awaited = false;
        }
        match agent.phase {
            Phase::Announcing => self.rest(who),
            Phase::Acting => {
                if answer != Some(true) {
                    agent.actions.clear();
                }
                self.take_acknowledgements(who);
                self.act(who);
            }
            Phase::Resting | Phase::Observing { .. } => {}
        }
    }
}
