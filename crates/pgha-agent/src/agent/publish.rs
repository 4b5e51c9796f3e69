//! What the others see: the member's znode, and the snapshot from which REST answers.

use axum::body::Bytes;
use pgha_core::config::{Config, WatchdogMode};
use pgha_core::decide::can_lead;
use pgha_core::lease::Lease;
use pgha_core::lsn::{Lsn, Timeline};
use pgha_core::name::{Epoch, NodeName, SystemId};
use pgha_core::observation::{JobKind, Postgres, Promise, Watchdog};
use pgha_core::reason::Reason;
use pgha_core::restart::Scheduled;
use pgha_core::time::Instant;
use pgha_core::timing::Timing;
use pgha_core::wire::rest::{About, PatroniStatus, Xlog};
use pgha_core::wire::{IsoTime, Member, MemberRole, MemberState, MemberTags};
use pgha_guard::clock;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::observe::Seen;
use super::{Agent, patience};
use crate::dcs::{Announced, Documents, Write};
use crate::postgres::query::{Archiver, Heartbeat, RoleSeen};

/// The version that Patroni's tools are told. They compare it with the features that a member supports.
pub(crate) const PATRONI_VERSION: &str = "4.1.4";

/// One turn of the loop, for REST. Answers are made from it alone; they never wait for the loop.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    /// When it was made.
    pub(crate) at: Instant,
    pub(crate) name: NodeName,
    pub(crate) timing: Timing,
    /// The leadership is mine, as far as ZooKeeper was seen.
    pub(crate) leads: bool,
    /// The lease; holds or not by the clock of the moment of the answer.
    pub(crate) lease: Option<Lease>,
    pub(crate) epoch: Option<Epoch>,
    /// Postgres accepts writes,
    pub(crate) writable: bool,
    /// unless it has been told to stop since.
    pub(crate) stopping: Arc<AtomicBool>,
    /// Postgres answers.
    pub(crate) running: bool,
    pub(crate) reason: Option<(Reason, jiff::Timestamp)>,
    pub(crate) watchdog: Cow<'static, str>,
    pub(crate) archiver: Archiver,
    pub(crate) status: PatroniStatus,
    /// The same as it is sent: balancers ask for it many times a second.
    pub(crate) status_text: Bytes,
    pub(crate) documents: Documents,
    pub(crate) job: Option<JobKind>,
    /// How far this member is, and when it looked.
    pub(crate) position: Option<Position>,
    /// Nothing about this member itself keeps it from leading.
    pub(crate) can_lead: bool,
    /// What it has promised.
    pub(crate) promise: Option<Promise>,
}

/// How far a member is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Position {
    pub(crate) timeline: Timeline,
    pub(crate) lsn: Lsn,
    /// There is no more WAL than this on its disk.
    pub(crate) complete: bool,
    /// It has left whom it streamed from.
    pub(crate) detached: bool,
    /// Just before it looked.
    pub(crate) looked: Instant,
}

/// The last announcement of this member.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    failed: bool,
}

impl Published {
    /// Before the first look; with the lease that the agent before this one has left.
    pub(super) fn new(config: &Config, lease: Option<Lease>) -> Self {
        let status = PatroniStatus::bare(MemberState::Starting, MemberRole::Uninitialized);
        Self {
            at: clock::now(),
            name: config.name.clone(),
            timing: config.timing(),
            leads: lease.is_some(),
            lease,
            epoch: None,
            writable: false,
            stopping: Arc::default(),
            running: false,
            reason: None,
            watchdog: "unknown".into(),
            archiver: Archiver::default(),
            status_text: status.render().into(),
            status,
            documents: Documents::default(),
            job: None,
            position: None,
            can_lead: false,
            promise: None,
        }
    }

    /// Whether this member may be sent writes, now.
    pub(crate) fn is_primary(&self, now: Instant) -> bool {
        let stopping = self.stopping.load(Ordering::Relaxed);
        self.leads && self.writable && !stopping && self.lease.is_some_and(|lease| lease.holds(now, &self.timing))
    }
}

impl Agent {
    /// Publishes one turn to REST, so that a balancer knows at once; returns what ZooKeeper is to be told.
    pub(super) fn publish(&self, seen: &Seen, reason: &Reason) -> Member {
        let config = &self.context.config;
        let job = self.job.as_ref().map(|job| job.view().kind);
        let observation = &seen.observation;
        let leader = match &observation.dcs {
            pgha_core::observation::Dcs::Seen(cluster) => Some(cluster),
            pgha_core::observation::Dcs::Silent { .. } => None,
        };
        let leads = match leader {
            // The session of an agent that was restarted is gone, its lease is not.
            Some(cluster) => cluster.leader.as_ref().is_some_and(|leader| {
                let inherited = self.lease.is_some_and(|lease| lease.epoch == cluster.epoch.epoch);
                leader.is_my_session || (leader.name == self.settings.me && inherited)
            }),
            // As long as the lease holds, silence changes nothing.
            None => self.publisher.borrow().leads,
        };
        let mut status = status(config, seen, job, self.watchdog.state());
        if self.memory.relay(&self.settings).is_none() {
            // As long as the leader stands in for it.
            status.tags.0.remove("replicatefrom");
        }
        status.scheduled_restart = self.scheduled.as_ref().map(Scheduled::announced);
        status.failsafe_mode_is_active = matches!(reason, Reason::Failsafe | Reason::Promised { .. });
        let can_lead = can_lead(&self.settings, &self.memory, observation);
        let mut member = member(config, seen, &status);
        member.pgha_cannot_lead = !can_lead;
        // A fence ends it at once, whatever was observed before.
        let ending = matches!(reason, Reason::LeaseOver | Reason::Deposed { .. });
        let timeline = status.timeline;
        let documents = match leader {
            Some(_) => seen.documents.clone(),
            None => self.publisher.borrow().documents.clone(),
        };
        let published = Published {
            at: clock::now(),
            name: self.settings.me.clone(),
            timing: self.settings.timing,
            leads,
            lease: self.lease,
            epoch: leader.map(|cluster| cluster.epoch.epoch),
            writable: matches!(seen.heartbeat.as_ref().map(|it| &it.role), Some(RoleSeen::Primary(_)))
                && !ending
                // Until the cluster is on record, another may still make it. Whom to ask is known of one that is; and an agent
                // that ZooKeeper has not answered yet goes by what the one before it has seen.
                && (documents.system_id.is_some()
                    || !self.memory.electorate.is_empty()
                    || self.dcs_seen.is_none() && !observation.past.unrecorded),
            stopping: self.context.stopping.clone(),
            running: seen.heartbeat.is_some(),
            reason: self.reason.clone(),
            watchdog: self.watchdog_words(),
            archiver: seen.heartbeat.as_ref().map(|heartbeat| heartbeat.archiver).unwrap_or_default(),
            status_text: status.render().into(),
            status,
            documents,
            job,
            position: seen.heartbeat.as_ref().zip(timeline).map(|(heartbeat, timeline)| Position {
                timeline,
                lsn: xlog(heartbeat).furthest(),
                complete: match &heartbeat.role {
                    RoleSeen::Standby { standby, .. } => standby.complete,
                    RoleSeen::Primary(_) => true,
                },
                detached: self.memory.is_detached(),
                looked: seen.looked,
            }),
            can_lead,
            promise: observation.promise.clone(),
        };
        self.publisher.send_replace(Arc::new(published));
        member
    }

    /// `off`, `ready`, `armed`, or what is wrong with it.
    fn watchdog_words(&self) -> Cow<'static, str> {
        let required = self.settings.watchdog_required;
        match self.watchdog.state() {
            Watchdog::Off => "off".into(),
            Watchdog::Armed => "armed".into(),
            Watchdog::Ready => "ready".into(),
            Watchdog::Unusable => {
                let word = if required { "unusable, but required" } else { "none" };
                self.watchdog.trouble().map_or(word.into(), |why| format!("{word}: {why}").into())
            }
        }
    }

    /// Tells ZooKeeper, where it answers and there is news.
    pub(super) async fn announce(&mut self, seen: &Seen, member: &Member) {
        // Under a name that is another's nothing is announced.
        if matches!(seen.observation.dcs, pgha_core::observation::Dcs::Silent { .. })
            || seen.observation.namesake.is_some()
        {
            return;
        }
        let data = member.render();
        let replace = match &seen.documents.own_member {
            None => Announced::No,
            Some(own) if !own.is_my_session => Announced::ByAnother,
            Some(own) if own.data == data => return,
            Some(_) => Announced::ByThisSession,
        };
        let done = self.zookeeper.write(Write::Announce { data, replace }, patience(&self.settings.timing)).await;
        let failed = done.is_err();
        if let Err(error) = done
            && !self.announced.failed
        {
            tracing::warn!(%error, "cannot announce this member; trying at each turn");
        }
        self.announced.failed = failed;
    }
}

fn state_and_role(seen: &Seen, job: Option<JobKind>) -> (MemberState, MemberRole) {
    let by_job = job.map(|job| match job {
        JobKind::Bootstrap => MemberState::Initializing,
        JobKind::Start => MemberState::Starting,
        JobKind::Stop => MemberState::Stopping,
        JobKind::Rewind | JobKind::Clone => MemberState::CreatingReplica,
        JobKind::CopySlots => MemberState::Restarting,
        JobKind::Promote | JobKind::Prepare => MemberState::Running,
    });
    let promoting = job == Some(JobKind::Promote);
    match (&seen.observation.postgres, &seen.heartbeat) {
        (Postgres::Running(_), Some(heartbeat)) => {
            let role = match heartbeat.role {
                RoleSeen::Primary(_) => MemberRole::Primary,
                RoleSeen::Standby { .. } if promoting => MemberRole::Promoted,
                RoleSeen::Standby { .. } => MemberRole::Replica,
            };
            (by_job.unwrap_or(MemberState::Running), role)
        }
        (Postgres::NoData, _) => (by_job.unwrap_or(MemberState::Stopped), MemberRole::Uninitialized),
        (Postgres::Starting { .. }, _) => (by_job.unwrap_or(MemberState::Starting), MemberRole::Replica),
        (Postgres::Mute { was_primary, .. }, _) => (
            by_job.unwrap_or(MemberState::Running),
            if *was_primary { MemberRole::Primary } else { MemberRole::Replica },
        ),
        (Postgres::Stopped(control), _) if !control.standby_signal && job.is_none() => {
            let crashed = control.state == pgha_core::observation::ControlState::InProduction;
            (if crashed { MemberState::Crashed } else { MemberState::Stopped }, MemberRole::Demoted)
        }
        _ => (by_job.unwrap_or(MemberState::Stopped), MemberRole::Replica),
    }
}

fn status(config: &Config, seen: &Seen, job: Option<JobKind>, watchdog: Watchdog) -> PatroniStatus {
    let (state, role) = state_and_role(seen, job);
    let heartbeat = seen.heartbeat.as_ref();
    let settings = seen.documents.config.as_ref().map(|config| config.settings().clone()).unwrap_or_default();
    let streaming =
        matches!(heartbeat.map(|it| &it.role), Some(RoleSeen::Standby { standby, .. }) if standby.streaming);
    let mut status = PatroniStatus::bare(state, role);
    status.postmaster_start_time = heartbeat.map(|heartbeat| heartbeat.started.clone());
    status.server_version = heartbeat.map(|heartbeat| heartbeat.version);
    status.xlog = heartbeat.map(xlog);
    status.timeline = timeline(seen);
    status.sync_standby = seen.documents.sync.has_standby(&config.name);
    status.replication_state = streaming.then(|| "streaming".to_owned());
    status.replication = heartbeat.map(|heartbeat| heartbeat.replication.clone()).unwrap_or_default();
    status.pause = settings.pause;
    status.cluster_unlocked = seen.documents.leader.is_none();
    status.dcs_last_seen = match &seen.observation.dcs {
        pgha_core::observation::Dcs::Seen(_) => u64::try_from(jiff::Timestamp::now().as_second()).ok(),
        pgha_core::observation::Dcs::Silent { .. } => None,
    };
    status.tags = MemberTags::from(&config.tags);
    status.database_system_identifier = system_id(seen);
    status.pending_restart = heartbeat.is_some_and(|heartbeat| heartbeat.pending_restart);
    status.watchdog_failed = watchdog == Watchdog::Unusable && config.watchdog.mode == WatchdogMode::Required;
    status.patroni = Some(About {
        version: PATRONI_VERSION.to_owned(),
        scope: config.cluster.to_string(),
        name: Some(config.name.to_string()),
    });
    status
}

fn xlog(heartbeat: &Heartbeat) -> Xlog {
    match &heartbeat.role {
        RoleSeen::Primary(primary) => Xlog::Primary { location: primary.flushed },
        RoleSeen::Standby { standby, replayed_at, .. } => Xlog::Standby {
            received_location: Some(standby.received),
            replayed_location: Some(standby.replayed),
            replayed_timestamp: replayed_at.clone(),
            paused: standby.paused,
        },
    }
}

fn timeline(seen: &Seen) -> Option<pgha_core::lsn::Timeline> {
    match &seen.observation.postgres {
        Postgres::Running(running) => Some(running.timeline),
        _ => None,
    }
}

fn system_id(seen: &Seen) -> Option<SystemId> {
    match &seen.observation.postgres {
        Postgres::Running(running) => Some(running.system_id),
        Postgres::Stopped(control) => Some(control.system_id),
        _ => None,
    }
}

fn member(config: &Config, seen: &Seen, status: &PatroniStatus) -> Member {
    let mut member = Member {
        conn_url: format!("postgres://{}/postgres", config.postgres.advertise),
        api_url: format!("http://{}/patroni", config.rest.advertise),
        state: status.state.clone(),
        role: status.role.clone(),
        version: PATRONI_VERSION.to_owned(),
        proxy_url: None,
        pgha_cannot_lead: false,
        checkpoint_after_promote: None,
        tags: status.tags.clone(),
        pending_restart: status.pending_restart,
        pending_restart_reason: std::collections::BTreeMap::new(),
        xlog_location: status.xlog.as_ref().map(Xlog::furthest),
        replay_lsn: None,
        receive_lsn: None,
        replication_state: status.replication_state.clone(),
        timeline: status.timeline,
        scheduled_restart: status.scheduled_restart.clone(),
        pause: status.pause,
        other: serde_json::Map::new(),
    };
    match seen.heartbeat.as_ref().map(|heartbeat| &heartbeat.role) {
        Some(RoleSeen::Primary(primary)) if primary.checkpoint_pending => {
            member.checkpoint_after_promote = Some(false);
        }
        Some(RoleSeen::Standby { standby, .. }) => {
            member.receive_lsn = Some(standby.received);
            member.replay_lsn = Some(standby.replayed);
        }
        _ => {}
    }
    member
}

/// For `GET /pgha`.
pub(crate) fn pgha_status(published: &Published) -> pgha_core::wire::rest::PghaStatus {
    let now = clock::now();
    let promise = published.promise.as_ref().filter(|promise| promise.holds(now));
    let (reason, code, since) = match &published.reason {
        Some((reason, since)) => (reason.to_string(), reason.code(), *since),
        None => ("the agent has just started".to_owned(), "starting", jiff::Timestamp::now()),
    };
    pgha_core::wire::rest::PghaStatus {
        name: published.name.clone(),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        reason,
        code: code.to_owned(),
        since: IsoTime::utc(since),
        epoch: published.epoch,
        lease_ms: published.lease.filter(|_| published.leads).map(|l| l.fence_at(&published.timing).since(now).0),
        watchdog: published.watchdog.clone().into_owned(),
        timeline: published.position.map(|position| position.timeline),
        position: published.position.map(|position| position.lsn),
        position_complete: published.position.is_some_and(|position| position.complete),
        detached: published.position.is_some_and(|position| position.detached),
        looked_ms_ago: published.position.map(|position| now.since(position.looked).0),
        can_lead: published.can_lead,
        promised: promise.map(|promise| (promise.to.clone(), promise.until.since(now).0)),
    }
}
