//! One agent: the real core in a shell that waits, asks and acts in virtual time, as `pgha-agent` does in true time.
//!
//! What the shell does is what `pgha-agent/src/agent` does; where that changes, this has to.

mod execute;
mod jobs;
mod observe;

use std::collections::VecDeque;
use std::rc::Rc;

use pgha_core::action::Action;
use pgha_core::decide::{Memory, Settings, can_lead, decide, decide_with};
use pgha_core::lease::Lease;
use pgha_core::lsn::Timeline;
use pgha_core::name::Epoch;
use pgha_core::observation::{
    EndedJob, JobKind, Member, Observation, Outcome, PeerAnswers, PeerPosition, Postgres, Promise, Request, Role,
    RunningJob,
};
use pgha_core::pulse::Heart;
use pgha_core::reason::{Reason, Weight};
use pgha_core::time::{Instant, Millis};

use crate::event::{Event, Who};
use crate::model::zookeeper::{SessionId, Tree, Write};
use crate::mutant::Mutant;
use crate::time::{Span, Time};
use crate::world::{LeaseRecord, World};

/// An agent's way to ZooKeeper.
#[derive(Debug, Default)]
pub struct Connection {
    /// Connected to this server, as far as it knows.
    pub server: Option<usize>,
    /// And to this start of it.
    pub starts: u32,
    /// Its session.
    pub session: Option<SessionId>,
    /// When it last heard of the server.
    pub heard: Time,
}

/// An acknowledged write that made or renewed a lease.
#[derive(Debug, Clone, Copy)]
struct Ack {
    sent: Instant,
    epoch: Epoch,
    began: bool,
}

/// The write under way.
#[derive(Debug, Clone, Copy)]
struct InFlight {
    id: u32,
    ack: Option<Ack>,
    reowned: Option<Epoch>,
    /// The turn goes on when it is answered.
    awaited: bool,
}

/// The slow action under way.
#[derive(Debug, Clone)]
pub struct Job {
    id: u32,
    what: jobs::Work,
    view: RunningJob,
}

/// What is remembered of the server of Postgres.
#[derive(Debug, Default, Clone, Copy)]
struct Eye {
    number: Option<u32>,
    since: Instant,
    answered: Option<Instant>,
    was_primary: bool,
    timeline: Option<Timeline>,
}

/// What the others may see of an agent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Published {
    /// The leadership is its own.
    pub leads: bool,
    /// Its Postgres accepts writes.
    pub writable: bool,
    /// Its lease.
    pub lease: Option<Lease>,
    /// How far it is, and when it looked.
    pub position: Option<(PeerPosition, Time)>,
    /// When something about itself last kept it from leading, or from saying how far it is.
    pub barred: Time,
}

/// Members are asked for their word.
#[derive(Debug)]
struct Asking {
    id: u32,
    asked: Instant,
    epoch: Epoch,
    left: std::collections::BTreeSet<usize>,
}

/// How far a read has come.
#[derive(Debug)]
enum Read {
    Asked,
    Answered(Rc<Tree>),
    Failed,
}

#[derive(Debug)]
enum Phase {
    Resting,
    Observing { tree: Read, looked: bool, mute: bool },
    Acting,
    Announcing,
}

/// The process.
#[derive(Debug)]
pub struct Agent {
    settings: Settings,
    memory: Memory,
    /// Its way to ZooKeeper.
    pub connection: Connection,
    phase: Phase,
    turn: u32,
    turn_began: Time,
    looked_at: Time,
    ids: u32,
    woken: bool,
    seen: Option<Rc<Tree>>,
    /// The newest commit that it has seen.
    pub(crate) newest: Option<u64>,
    pub(crate) heart: Heart,
    dcs_seen: Option<Instant>,
    eye: Eye,
    lease: Option<Lease>,
    acks: Vec<Ack>,
    in_flight: Option<InFlight>,
    job: Option<Job>,
    finished: Option<EndedJob>,
    ended: Option<EndedJob>,
    peers: Option<PeerAnswers>,
    /// What was asked of it.
    pub request: Option<Request>,
    asking: Option<Asking>,
    /// Work on slots is under way, beside its turns.
    pub(crate) works_on_slots: bool,
    /// It has reached for this leadership, and does not know what has become of that.
    bid: Option<Epoch>,
    /// It has nothing to do with the leadership, and may give its word.
    free: bool,
    newest_epoch: Epoch,
    actions: VecDeque<Action>,
    acted: bool,
    /// How long it may rest after this turn.
    rest: Millis,
    observation: Option<Observation>,
    last: Option<Reason>,
    /// What REST answers from.
    pub published: Published,
}

impl World {
    /// systemd starts the agent.
    pub(crate) fn agent_start(&mut self, host: usize, boot: u32) {
        let at = &self.hosts[host];
        if !at.on || at.boot != boot || at.agent.is_some() || at.agent_stopped {
            return;
        }
        let member = self.member(host);
        let settings = Settings {
            me: self.names[host].clone(),
            timing: self.timing_of_agents(),
            nofailover: self.scenario.nofailover == Some(member),
            failover_priority: if self.scenario.preferred == Some(member) { 2 } else { 1 },
            standstill: Millis::from_secs(20),
            torn: 0,
            watchdog_required: self.scenario.without_watchdog.is_some(),
            replicatefrom: self.scenario.relayed(member).map(|relay| self.names[relay].clone()),
            nostream: self.scenario.nostream == Some(member),
        };
        if let Some(journals) = &mut self.journals {
            journals.start(self.now, &settings);
        }
        let clock = self.clock(host);
        let host_state = &mut self.hosts[host];
        if host_state.up_since == Instant::default() {
            host_state.up_since = clock;
        }
        host_state.agent_starts += 1;
        host_state.agent_frozen_until = Time(0);
        let start = host_state.agent_starts;
        let left = host_state.lease_file.as_ref();
        let lease = left.map(|record| record.lease);
        let electorate = left.map(|record| record.electorate.clone()).unwrap_or_default();
        host_state.agent = Some(Box::new(Agent {
            settings,
            memory: Memory { electorate, ..Memory::default() },
            connection: Connection::default(),
            phase: Phase::Resting,
            turn: 0,
            turn_began: self.now,
            looked_at: self.now,
            ids: 0,
            woken: false,
            seen: None,
            newest: None,
            heart: Heart::default(),
            dcs_seen: None,
            eye: Eye::default(),
            lease,
            acks: Vec::new(),
            in_flight: None,
            job: None,
            finished: None,
            ended: None,
            peers: None,
            request: None,
            asking: None,
            works_on_slots: false,
            bid: None,
            free: false,
            newest_epoch: Epoch::default(),
            actions: VecDeque::new(),
            acted: false,
            rest: Millis(1000),
            observation: None,
            last: None,
            published: Published { leads: lease.is_some(), lease, barred: self.now, ..Published::default() },
        }));
        self.say(|world| format!("{}: the agent starts", world.names[host]));
        let who = Who { host, start };
        let delay = self.between(5, 60);
        self.later(delay, Event::Connect(who));
        self.later(delay, Event::Wake(who));
    }

    /// The timings that decisions are made with. A mutant has others than the world.
    fn timing_of_agents(&self) -> pgha_core::timing::Timing {
        let mut timing = self.timing;
        if self.mutant.is_some_and(Mutant::is_without_margins) {
            timing.guard = Millis(1);
            timing.stop_budget = Millis(1);
        }
        timing
    }

    /// The agent's process ends; systemd starts it again, unless it was stopped.
    pub(crate) fn agent_dies(&mut self, host: usize, away: Span) {
        if self.hosts[host].agent.take().is_none() {
            return;
        }
        self.say(|world| format!("{}: the agent is gone", world.names[host]));
        let boot = self.hosts[host].boot;
        let delay = self.between(100, 400);
        self.later(Span(delay.0 + away.0), Event::AgentStart { host, boot });
    }

    /// An agent's connection to ZooKeeper is gone: the library tries another server, and gives up what was under way.
    pub(crate) fn disconnected(&mut self, host: usize) {
        let who = Who { host, start: self.hosts[host].agent_starts };
        let Some(agent) = self.agent(who) else { return };
        agent.connection.server = None;
        if let Some(in_flight) = agent.in_flight {
            // What has become of it shows at the next look.
            self.later(Span(100), Event::WriteDone { who, id: in_flight.id, done: false });
        }
        let delay = self.between(10, 300);
        self.later(delay, Event::Connect(who));
    }

    /// Something happened that an agent should look at.
    pub(crate) fn nudge(&mut self, host: usize) {
        if self.hosts[host].agent.is_some() {
            let who = Who { host, start: self.hosts[host].agent_starts };
            self.later(Span(50), Event::Wake(who));
        }
    }

    pub(crate) fn wake(&mut self, who: Who) {
        let now = self.now;
        let Some(agent) = self.agent(who) else { return };
        if !matches!(agent.phase, Phase::Resting) {
            agent.woken = true;
            return;
        }

        agent.woken = false;
        agent.turn += 1;
        agent.turn_began = now;
        if let Some(ended) = agent.finished.take() {
            agent.job_ended(ended);
        }
        agent.phase = Phase::Observing { tree: Read::Asked, looked: false, mute: false };
        self.observe(who);
    }

    /// It has rested as long as the last decision allowed.
    pub(crate) fn rested(&mut self, who: Who, turn: u32) {
        if self.agent(who).is_some_and(|agent| agent.turn == turn) {
            self.wake(who);
        }
    }

    /// Both halves of an observation are there: decide.
    fn decide(&mut self, who: Who) {
        let Some(read) = self.complete(who) else { return };
        let host = who.host;
        let Some(agent) = self.hosts[host].agent.as_deref_mut() else { return };
        let Some(observation) = &agent.observation else { return };
        let mut decision = match &mut self.journals {
            Some(journals) => {
                let decision = decide(&agent.settings, &agent.memory, observation);
                journals.turn((self.now, agent.turn), &agent.settings, &agent.memory, observation, &decision);
                decision
            }
            None => decide_with(&agent.settings, std::mem::take(&mut agent.memory), observation),
        };
        if let Some(mutant) = self.mutant {
            mutant.distort(&mut decision);
        }
        let news = agent.last.as_ref() != Some(&decision.reason);
        if news {
            self.reached.decided(agent.last.as_ref(), &decision.reason);
        }
        agent.memory = decision.memory;
        agent.ended = None;
        if agent.request == Some(Request::Reinitialize) {
            agent.request = None;
        }
        let background = |action: &Action| {
            matches!(action, Action::CreateLogicalSlots(_) | Action::AdvanceSlots(_) | Action::RemoveOldData)
        };
        agent.acted = !decision.actions.iter().all(background);
        agent.actions = decision.actions.into();
        agent.seen = if let Read::Answered(tree) = read { Some(tree) } else { None };
        agent.newest = agent.newest.max(agent.seen.as_ref().map(|tree| tree.zxid));
        if news {
            agent.last = Some(decision.reason.clone());
        }
        agent.rest = decision.wake;
        agent.phase = Phase::Acting;
        if news && self.story.is_some() {
            let mark = if decision.reason.weight() == Weight::Trouble { "!" } else { "" };
            self.say(|world| format!("{}: {mark}{}", world.names[host], decision.reason));
        }
        self.act(who);
    }

    /// Does the actions that are left, up to the first that has to be waited for.
    fn act(&mut self, who: Who) {
        loop {
            if self.violation.is_some() {
                return;
            }
            let Some(agent) = self.agent(who) else { return };
            if !matches!(agent.phase, Phase::Acting) {
                return;
            }
            let Some(action) = agent.actions.pop_front() else { break };
            match self.execute(who, action) {
                execute::Done::Go => {}
                execute::Done::Wait => return,
                execute::Done::Failed => {
                    if let Some(agent) = self.agent(who) {
                        agent.actions.clear();
                    }
                }
                execute::Done::Exit => {
                    self.agent_exits(who.host);
                    return;
                }
            }
        }
        self.finish_turn(who);
    }

    /// The service has stopped by itself.
    fn agent_exits(&mut self, host: usize) {
        self.hosts[host].agent = None;
        self.say(|world| format!("{}: the agent ends", world.names[host]));
        let boot = self.hosts[host].boot;
        let delay = self.between(100, 400);
        // A request to stop from outside of systemd: it is started again.
        self.later(delay, Event::AgentStart { host, boot });
    }

    fn finish_turn(&mut self, who: Who) {
        self.take_acknowledgements(who);
        if self.announce(who) {
            if let Some(agent) = self.agent(who) {
                agent.phase = Phase::Announcing;
            }
            return;
        }
        self.rest(who);
    }

    /// The end of a turn.
    fn rest(&mut self, who: Who) {
        let Some(agent) = self.agent(who) else { return };
        agent.phase = Phase::Resting;
        let settle = if agent.acted && agent.job.is_none() { Millis(20) } else { Millis(u64::MAX) };
        let mut rest = Span::millis(agent.rest.min(settle).0.max(10));
        if std::mem::take(&mut agent.woken) || agent.finished.is_some() {
            rest = Span(100);
        }
        let turn = agent.turn;
        self.later(rest, Event::Rested { who, turn });
    }

    /// Publishes to REST at once, and to ZooKeeper if there is news. Says whether that has to be waited for.
    fn announce(&mut self, who: Who) -> bool {
        let place = self.member(who.host);
        let clonefrom = self.scenario.clonefrom == Some(place);
        let Some(agent) = self.agent(who) else { return false };
        let Some(observation) = &agent.observation else { return false };
        let mut member = member(observation, agent.job.as_ref().map(|job| job.view.kind));
        member.nofailover = agent.settings.nofailover;
        member.failover_priority = agent.settings.failover_priority;
        member.sync_priority = agent.settings.failover_priority;
        member.replicatefrom = agent.memory.relay(&agent.settings).cloned();
        member.clonefrom = clonefrom;
        member.nostream = agent.settings.nostream;
        member.can_lead = can_lead(&agent.settings, &agent.memory, observation);
        let (mut leads, mut writable) = (agent.published.leads, false);
        if let pgha_core::observation::Dcs::Seen(cluster) = &observation.dcs {
            leads = cluster.leader.as_ref().is_some_and(|leader| {
                let inherited = agent.lease.is_some_and(|lease| lease.epoch == cluster.epoch.epoch);
                leader.is_my_session || (leader.name == agent.settings.me && inherited)
            });
        }
        let mut position = None;
        if let Postgres::Running(running) = &observation.postgres {
            let (at, complete) = match &running.role {
                Role::Primary(primary) => {
                    writable = true;
                    (primary.flushed, true)
                }
                Role::Standby(standby) => (standby.position(), standby.complete),
            };
            let can_lead = member.can_lead;
            let detached = agent.memory.is_detached();
            // On the clock of who asks it; filled in there.
            let looked = Instant::default();
            position = Some((
                PeerPosition { timeline: running.timeline, position: at, complete, looked, detached, can_lead },
                agent.looked_at,
            ));
        }
        let stopping = agent.job.as_ref().is_some_and(|job| job.view.kind == JobKind::Stop);
        let fit = member.can_lead && position.is_some();
        let barred = if fit { agent.published.barred } else { agent.turn_began };
        agent.published = Published { leads, writable: writable && !stopping, lease: agent.lease, position, barred };
        let session = agent.connection.session;
        let seen = agent.seen.as_deref();
        let known = seen.and_then(|tree| tree.cluster.members.get(&agent.settings.me));
        let owner = seen.and_then(|tree| tree.owner(place));
        let news = match (&observation.dcs, known) {
            (pgha_core::observation::Dcs::Silent { .. }, _) => false,
            // Under a name that is another's nothing is announced.
            _ if observation.namesake.is_some() => false,
            (_, Some(known)) => owner != session || *known != member,
            (_, None) => true,
        };
        news && self.begin_write(who, Write::Announce { member, replace: owner }, None, None)
    }

    /// Acknowledged writes make the lease.
    fn take_acknowledgements(&mut self, who: Who) {
        let Some(agent) = self.agent(who) else { return };
        let acks = std::mem::take(&mut agent.acks);
        if acks.is_empty() {
            return;
        }
        let host = who.host;
        let now = self.clock(host);
        let timing = self.timing_of_agents();
        let newest_counts = self.is(Mutant::CountNewestRenewal);
        let from_answer = self.is(Mutant::CountFromAnswer);
        let Some(agent) = self.agent(who) else { return };
        for ack in acks {
            let sent = if from_answer { now } else { ack.sent };
            let mut lease = match agent.lease.filter(|lease| lease.epoch == ack.epoch && !ack.began) {
                Some(lease) => lease.renewed(sent, &timing),
                None => Lease::taken(ack.epoch, sent, &timing),
            };
            if newest_counts || from_answer {
                lease.counted_from = sent;
            }
            agent.lease = Some(lease);
        }
        if let Some(lease) = agent.lease {
            self.lease_changed(host, lease);
        }
    }

    /// A member is asked for its word not to lead.
    pub(crate) fn asked_to_promise(&mut self, who: Who, id: u32, peer: usize, epoch: Epoch) {
        let until = self.clock(peer) + self.timing.ttl;
        let asker = self.names[who.host].clone();
        let at = &mut self.hosts[peer];
        let Some(agent) = at.agent.as_deref().filter(|_| at.on) else { return };
        if !agent.free || agent.newest_epoch > epoch {
            self.reached.mark("promise refused");
            return;
        }
        let known = at.promise.take();
        let until = known.as_ref().map_or(until, |known| known.until.max(until));
        let epoch = known.map_or(epoch, |known| known.epoch.max(epoch));
        at.promise = Some(Promise { to: asker, epoch, until });
        if self.network.is_up(peer, who.host) {
            let delay = self.network.delay(peer, who.host, self.now, &mut self.rng);
            self.later(delay, Event::Promised { who, id, peer });
        }
    }

    /// A member has given its word.
    pub(crate) fn promised(&mut self, who: Who, id: u32, peer: usize) {
        let enough = if self.is(Mutant::PromiseOfOne) { usize::MAX } else { 0 };
        let Some(agent) = self.agent(who) else { return };
        let Some(asking) = agent.asking.as_mut().filter(|asking| asking.id == id) else { return };
        asking.left.remove(&peer);
        if asking.left.len() <= enough {
            self.renewed_by_promise(who);
            self.goes_on(who, id);
        }
    }

    /// Everybody has given his word.
    fn renewed_by_promise(&mut self, who: Who) {
        let Some(agent) = self.agent(who) else { return };
        let Some(asking) = agent.asking.take() else { return };
        let Some(lease) = agent.lease.filter(|lease| lease.epoch == asking.epoch) else { return };
        let lease = lease.promised(asking.asked);
        agent.lease = Some(lease);
        self.reached.mark("renewed by promise");
        self.hosts[who.host].promised_until = lease.end(&self.timing);
        self.lease_changed(who.host, lease);
    }

    /// The guard and the watchdog hear of a lease.
    fn lease_changed(&mut self, host: usize, lease: Lease) {
        let timing = self.timing_of_agents();
        let left = lease.watchdog_seconds(self.clock(host), &timing);
        let watchdog = self.has_watchdog(host);
        let at = &mut self.hosts[host];
        let electorate = at.agent.as_ref().map(|agent| agent.memory.electorate.clone()).unwrap_or_default();
        at.lease_file = Some(LeaseRecord { lease, fence_at: lease.fence_at(&timing), electorate });
        if let Some(seconds) = left
            && watchdog
            && at.resets_at.is_some()
        {
            at.resets_at = Some(self.now + Span::secs(seconds.into()));
        }
        self.arm_guard(host);
    }

    /// What a turn waited for has come about.
    pub(crate) fn goes_on(&mut self, who: Who, id: u32) {
        if let Some(agent) = self.agent(who)
            && agent.ids == id
            && matches!(agent.phase, Phase::Acting)
        {
            // An answer that comes later counts for nothing.
            agent.asking = None;
            self.act(who);
        }
    }

    /// Asked members have answered, or their time is over.
    pub(crate) fn peers_asked(&mut self, who: Who, id: u32, asked: &[usize], since: Time) {
        let mut positions = std::collections::BTreeMap::new();
        let mut silent: std::collections::BTreeSet<_> = asked.iter().map(|peer| self.names[*peer].clone()).collect();
        for peer in asked {
            let reachable = self.network.talks(who.host, *peer);
            let host = &self.hosts[*peer];
            let moves = host.on && host.frozen_until <= self.now && host.agent_frozen_until <= self.now;
            if let Some((position, looked)) = host.agent.as_deref().and_then(|agent| agent.published.position)
                && reachable
                && moves
            {
                // It says how long ago it looked; whoever asked counts from when he asked.
                let age = self.now.since(looked);
                let looked = self.hosts[who.host].clock.show(Time(since.0.saturating_sub(age.0)));
                positions.insert(self.names[*peer].clone(), PeerPosition { looked, ..position });
            }
        }
        let since = self.hosts[who.host].clock.show(since);
        let deaf = self.is(Mutant::IgnorePeers);
        let Some(agent) = self.agent(who) else { return };
        if agent.ids != id || !matches!(agent.phase, Phase::Acting) {
            return;
        }
        if deaf {
            positions.clear();
        }
        silent.retain(|name| !positions.contains_key(name));
        agent.peers = Some(PeerAnswers { asked: since, positions, silent });
        self.act(who);
    }
}

impl Agent {
    fn job_ended(&mut self, ended: EndedJob) {
        if self.request == Some(Request::Restart) && ended.kind == JobKind::Start {
            self.request = None;
        }
        self.ended = Some(ended);
    }

    /// How long one step of the loop may wait.
    fn patience(&self) -> Span {
        Span::millis(self.settings.timing.heartbeat.0)
    }

    fn next_id(&mut self) -> u32 {
        self.ids += 1;
        self.ids
    }

    /// Ends the job.
    fn end_job(&mut self, outcome: Outcome) {
        if let Some(job) = self.job.take() {
            self.finished = Some(EndedJob { kind: job.view.kind, outcome });
        }
    }
}

/// The member's own znode, as `pgha-agent` makes it from an observation.
fn member(observation: &Observation, job: Option<JobKind>) -> Member {
    let mut member = Member::default();
    if let Postgres::Running(running) = &observation.postgres {
        member.is_running = matches!(job, None | Some(JobKind::Promote | JobKind::Prepare));
        member.timeline = Some(running.timeline);
        if let Role::Primary(primary) = &running.role {
            member.is_primary = true;
            member.checkpoint_pending = primary.checkpoint_pending;
        }
    }
    if let Postgres::Mute { was_primary, .. } = &observation.postgres {
        member.is_running = job.is_none();
        member.is_primary = *was_primary;
    }
    member
}
