//! The loop: wait for something to happen, observe, decide, execute, publish.
//!
//! ```text
//!   ZooKeeper watch ─┐                       ┌─ ZooKeeper ─┐
//!   postmaster died ─┤                       │  Postgres   │
//!   job finished    ─┼─► wake ─► observe ────┤  lease      ├─► decide (pgha-core) ─► execute ─► publish ─┐
//!   REST command    ─┤                       │  watchdog   │                                             │
//!   signal, timer   ─┘                       └─────────────┘          REST answers ◄────── snapshot ◄────┘
//! ```
//!
//! The loop owns every resource that can do harm; REST reads a snapshot and files requests. Nothing in the loop waits
//! without a deadline, and what may take long is a [`Job`].

mod execute;
mod observe;
mod publish;

use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use pgha_core::action::Action;
use pgha_core::decide::{Memory, Settings, decide};
use pgha_core::lease::Lease;
use pgha_core::observation::{EndedJob, PeerAnswers, Request};
use pgha_core::reason::{Reason, Weight};
use pgha_core::restart::{self, Conditions, Scheduled};
use pgha_core::time::{Instant, Millis};
use pgha_core::timing::Timing;
use pgha_core::wire::{Member, MemberTags};
use pgha_guard::clock;
use pgha_guard::lease_file::{LeaseFile, Record};
pub(crate) use publish::{Published, pgha_status};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::context::Context;
use crate::dcs::{DcsError, Known, Write, ZooKeeper};
use crate::disk::Probe;
use crate::jobs::Job;
use crate::journal::Journal;
use crate::watchdog::Watchdog;
use crate::{quarantine, systemd};

/// What REST asks of the loop.
#[derive(Debug)]
pub(crate) enum Command {
    /// Write a document; answers with the outcome.
    Write(Write, oneshot::Sender<Result<(), DcsError>>),
    /// Something for the next decision.
    Request(Request),
    /// Restart Postgres at a set time, or no longer.
    Schedule(Option<Scheduled>),
    /// Read the configuration again, as far as Postgres is concerned.
    Reload,
}

/// The agent's state between two turns of the loop.
pub(crate) struct Agent {
    context: Arc<Context>,
    settings: Settings,
    memory: Memory,
    journal: Journal,
    zookeeper: ZooKeeper,
    known: Known,
    dcs_seen: Option<Instant>,
    eye: observe::Eye,
    lease: Option<Lease>,
    lease_file: LeaseFile,
    watchdog: Watchdog,
    job: Option<Job>,
    ended: Option<EndedJob>,
    peers: Option<PeerAnswers>,
    disk: Probe,
    request: Option<Request>,
    scheduled: Option<Scheduled>,
    reload: bool,
    wake: Arc<Notify>,
    publisher: watch::Sender<Arc<Published>>,
    reason: Option<(Reason, jiff::Timestamp)>,
    announced: publish::Announcements,
    complained: Vec<String>,
    removal: Option<tokio::task::JoinHandle<()>>,
    slots: Option<tokio::task::JoinHandle<()>>,
    reading: Option<tokio::task::JoinHandle<()>>,
    failures: u32,
}

/// The end of the loop.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Again(Duration),
    Exit,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Agent {
    /// `watchdog` is what the agent before this one had open.
    pub(crate) fn new(
        context: Arc<Context>,
        watchdog: Option<RawFd>,
    ) -> std::io::Result<(Self, watch::Receiver<Arc<Published>>)> {
        let config = &context.config;
        let timing = config.timing();
        let wake = Arc::new(Notify::new());
        let lease_file = LeaseFile::in_dir(&config.run_dir);
        // An agent that was restarted finds the lease that its predecessor left.
        let left = lease_file.read().ok().flatten().filter(|record| !record.is_of_another_boot(clock::now()));
        let lease = left.as_ref().map(|record| record.lease);
        let (electorate, addresses) = left.map(|record| (record.electorate, record.addresses)).unwrap_or_default();
        let tags = MemberTags::from(&config.tags);
        let (publisher, published) = watch::channel(Arc::new(Published::new(config, lease)));
        let settings = Settings {
            me: config.name.clone(),
            timing,
            nofailover: tags.nofailover(),
            failover_priority: tags.failover_priority(),
            replicatefrom: config.tags.replicatefrom.clone(),
            nostream: config.tags.nostream,
            standstill: STANDSTILL,
            torn: TORN,
            watchdog_required: config.watchdog.mode == pgha_core::config::WatchdogMode::Required,
        };
        let known = observe::recall(config);
        let agent = Self {
            journal: Journal::open(config, &settings),
            settings,
            memory: Memory { electorate, ..Memory::default() },
            zookeeper: ZooKeeper::new(config, wake.clone()),
            dcs_seen: None,
            eye: observe::Eye::new(&context, &wake),
            lease,
            lease_file,
            watchdog: Watchdog::new(
                config.watchdog.mode,
                config.watchdog.device.clone(),
                Lease::watchdog_usually(&timing),
                watchdog,
            ),
            job: None,
            ended: None,
            peers: None,
            disk: Probe::begin(&config.postgres.data_dir, timing.ttl)?,
            request: None,
            scheduled: None,
            // Its own configuration may be another than that of the agent before it, under which Postgres was started.
            reload: known.config.is_some(),
            known: Known { addresses, ..known },
            wake,
            publisher,
            reason: None,
            announced: publish::Announcements::default(),
            complained: Vec::new(),
            removal: None,
            slots: None,
            reading: None,
            failures: 0,
            context,
        };
        Ok((agent, published))
    }

    /// Runs until the process is told to end.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> anyhow::Result<()> {
        let mut signals = Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        };
        let hung_after = self.settings.timing.hung_after().duration();
        let micros = u32::try_from(hung_after.as_micros()).unwrap_or(u32::MAX);
        let _ = sd_notify::notify(&[sd_notify::NotifyState::WatchdogUsec(micros)]);
        let mut ready = false;
        // What an earlier agent did not come to.
        self.read_quarantine();
        loop {
            let again = match self.turn().await {
                Turn::Exit => break,
                Turn::Again(wait) => wait,
            };
            notify_systemd(&mut ready, self.reason.as_ref());
            let rest = tokio::time::sleep(again);
            tokio::pin!(rest);
            loop {
                tokio::select! {
                    biased;
                    _ = signals.terminate.recv() => if self.terminate().await {
                        self.give_up_job().await;
                        return Ok(());
                    },
                    _ = signals.interrupt.recv() => self.request = Some(Request::Shutdown),
                    _ = signals.reload.recv() => self.reload = true,
                    () = self.wake.notified() => {}
                    Some(command) = commands.recv() => self.accept(command).await,
                    () = &mut rest => {}
                    () = tokio::time::sleep(PING) => {
                        still_alive();
                        continue;
                    }
                }
                break;
            }
        }
        tracing::info!("the agent ends");
        Ok(())
    }

    /// What it runs ends with it; a disk that hangs does not hold the end up.
    async fn give_up_job(&mut self) {
        if let Some(job) = self.job.take() {
            let _ = tokio::time::timeout(PING, job.cancel()).await;
        }
    }

    async fn turn(&mut self) -> Turn {
        if let Some(job) = self.job.take_if(|job| job.is_finished()) {
            self.job_ended(job.outcome().await);
        }
        let mut seen = self.observe().await;
        self.keep_schedule(&mut seen);
        let decision = decide(&self.settings, &self.memory, &seen.observation);
        self.explain(&decision.reason);
        self.journal.record(&self.memory, &seen.observation, &decision);
        self.memory = decision.memory;
        self.ended = None;
        if self.request == Some(Request::Reinitialize) {
            // The memory carries it on from here.
            self.request = None;
        }
        let background = |action: &Action| {
            matches!(action, Action::CreateLogicalSlots(_) | Action::AdvanceSlots(_) | Action::RemoveOldData)
        };
        let acted = !decision.actions.iter().all(background);
        if acted {
            // What clients and balancers may know does not wait for what is done about it.
            self.publish(&seen, &decision.reason);
        }
        let mut failed = false;
        for action in decision.actions {
            tracing::debug!(?action, "doing");
            let done = self.execute(action, &seen).await;
            still_alive();
            match done {
                Ok(execute::Done::Go) => {}
                Ok(execute::Done::Exit) => return Turn::Exit,
                Err(error) => {
                    tracing::warn!(%error, "an action failed; looking again");
                    failed = true;
                    break;
                }
            }
        }
        self.take_acknowledgements();
        let member = self.publish(&seen, &decision.reason);
        self.announce(&seen, &member).await;
        // Files are written for this, which no renewal waits for.
        if self.reload && self.job.is_none() {
            self.reload = false;
            self.reload_postgres().await;
        }
        // After an action the world is another: look again soon, but not in a tight loop.
        self.failures = if failed { self.failures + 1 } else { 0 };
        // What fails again and again is not tried fifty times a second.
        let soon = 20 << self.failures.saturating_sub(1).min(7);
        let settle = Duration::from_millis(if acted && self.job.is_none() { soon } else { u64::MAX });
        Turn::Again(decision.wake.duration().min(settle).max(Duration::from_millis(10)))
    }

    /// One line when the reason changes; nothing while it stays.
    fn explain(&mut self, reason: &Reason) {
        if self.reason.as_ref().is_some_and(|(last, _)| last == reason) {
            return;
        }
        let epoch = self.lease.map(|lease| lease.epoch.0);
        match reason.weight() {
            Weight::Calm | Weight::Change => tracing::info!(code = reason.code(), epoch, "{reason}"),
            Weight::Trouble => tracing::warn!(code = reason.code(), epoch, "{reason}"),
        }
        self.reason = Some((reason.clone(), jiff::Timestamp::now()));
    }

    fn job_ended(&mut self, ended: EndedJob) {
        use pgha_core::observation::{JobKind, Outcome};
        if self.request == Some(Request::Restart) && ended.kind == JobKind::Start {
            self.request = None;
        }
        self.context.stopping.store(false, std::sync::atomic::Ordering::Relaxed);
        if ended.outcome == Outcome::Done && ended.kind == JobKind::Stop {
            self.eye.connection().close();
        }
        if ended.outcome == Outcome::Done && matches!(ended.kind, JobKind::Rewind | JobKind::Clone) {
            self.read_quarantine();
        }
        self.ended = Some(ended);
    }

    /// What this member had, and the cluster has not, is told to people.
    fn read_quarantine(&mut self) {
        if self.reading.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
            self.reading = Some(quarantine::begin_reading(&self.context));
        }
    }

    /// Acknowledged writes make the lease; the guard and the kernel watchdog hear of it at once.
    fn take_acknowledgements(&mut self) {
        let timing = self.settings.timing;
        for ack in self.zookeeper.acknowledged() {
            let Some(epoch) = ack.epoch else { continue };
            let lease = match self.lease.filter(|lease| lease.epoch == epoch && !ack.began) {
                Some(lease) => lease.renewed(ack.sent, &timing),
                None => Lease::taken(epoch, ack.sent, &timing),
            };
            self.extend(lease);
        }
    }

    /// A lease that holds longer than the last one did.
    fn extend(&mut self, lease: Lease) {
        // A lease that the guard does not know of is none.
        if let Err(error) = self.record(lease) {
            tracing::error!(%error, "cannot write the lease file; not counting the renewal");
            return;
        }
        self.lease = Some(lease);
        if let Some(seconds) = lease.watchdog_seconds(clock::now(), &self.settings.timing) {
            self.watchdog.pet(seconds);
        }
    }

    /// For the guard, and for the agent that comes after this one.
    fn record(&self, lease: Lease) -> std::io::Result<()> {
        let electorate = self.memory.electorate.clone();
        let addresses = if electorate.is_empty() { BTreeMap::new() } else { self.known.addresses.clone() };
        self.lease_file.write(&Record {
            lease,
            fence_at: lease.fence_at(&self.settings.timing),
            postmaster: self.eye.postmaster(),
            electorate,
            addresses,
        })
    }

    async fn accept(&mut self, command: Command) {
        match command {
            Command::Write(write, answer) => {
                let done = self.zookeeper.write(write, patience(&self.settings.timing)).await;
                let _ = answer.send(done);
            }
            Command::Request(request) if self.request != Some(Request::Shutdown) => self.request = Some(request),
            Command::Request(_) => {}
            Command::Schedule(scheduled) => self.scheduled = scheduled,
            Command::Reload => self.reload = true,
        }
    }

    /// Turns a scheduled restart whose time has come into a request, and takes up what an earlier process had scheduled.
    fn keep_schedule(&mut self, seen: &mut observe::Seen) {
        if let Some(own) = seen.documents.own_member.as_ref().filter(|own| !own.is_my_session)
            && self.scheduled.is_none()
            && seen.observation.namesake.is_none()
        {
            let announced = Member::parse(&own.data).ok().and_then(|member| member.scheduled_restart);
            self.scheduled = announced.as_ref().and_then(Scheduled::announced_before);
        }
        let Some(heartbeat) = &seen.heartbeat else { return };
        let now = jiff::Timestamp::now();
        let done = |it: &Scheduled| it.started.as_ref().is_some_and(|started| *started != heartbeat.started);
        if self.scheduled.as_ref().is_some_and(done) {
            tracing::info!("Postgres was started anew since: dropping the scheduled restart");
            self.scheduled = None;
        }
        let Some(due) = self.scheduled.take_if(|scheduled| scheduled.at.at <= now) else { return };
        let unmet = match Conditions::of(&due.body) {
            Ok(conditions) => conditions.unmet(&restart::Member {
                role: heartbeat.role.word(),
                version: Some(heartbeat.version),
                pending: heartbeat.pending_restart,
            }),
            Err(_) => Some("conditions that are not understood"),
        };
        match unmet {
            None if self.request.is_none() => {
                tracing::info!(at = %due.at, "restarting Postgres as scheduled");
                self.request = Some(Request::Restart);
                seen.observation.request = self.request;
            }
            None => tracing::warn!(at = %due.at, "not restarting Postgres as scheduled: busy with another request"),
            Some(why) => tracing::warn!(at = %due.at, why, "not restarting Postgres as scheduled"),
        }
    }

    /// SIGTERM. Says whether to end at once: systemd is restarting us, and the lease outlives that.
    async fn terminate(&mut self) -> bool {
        if self.context.config.postgres.supervisor == pgha_core::config::Supervisor::Systemd {
            match systemd::is_restarting_us().await {
                Ok(true) => {
                    tracing::info!("being restarted: leaving Postgres as it is");
                    return true;
                }
                Ok(false) => {}
                Err(error) => tracing::debug!(%error, "cannot ask systemd why; taking it for a stop"),
            }
        }
        tracing::info!("asked to stop");
        self.request = Some(Request::Shutdown);
        false
    }
}

/// Longer than a replay that waits for a query or for its own delay commonly stands still.
const STANDSTILL: Millis = Millis::from_secs(300);

/// A segment: few records are longer than a hundredth of that.
const TORN: u64 = 16 << 20;

/// systemd's patience is [`Timing::hung_after`], 3 s at least; turns may be further apart than that.
const PING: Duration = Duration::from_secs(1);

/// How long the loop waits for ZooKeeper or Postgres in one step: it must get round within a lease.
fn patience(timing: &Timing) -> Duration {
    timing.heartbeat.duration()
}

/// For `WatchdogSec=`: the loop moves. A turn with every deadline used up is longer than systemd's patience.
fn still_alive() {
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
}

fn notify_systemd(ready: &mut bool, reason: Option<&(Reason, jiff::Timestamp)>) {
    use sd_notify::NotifyState;
    let status = reason.map(|(reason, _)| reason.to_string()).unwrap_or_default();
    let mut states = vec![NotifyState::Watchdog, NotifyState::Status(&status)];
    if !std::mem::replace(ready, true) {
        states.push(NotifyState::Ready);
    }
    let _ = sd_notify::notify(&states);
}
