//! Gathers one [`Observation`], within deadlines.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pgha_core::config::{Config, join_host_port};
use pgha_core::lsn::{Segment, Timeline};
use pgha_core::observation::{Dcs, Observation, Postgres, Role, Running, Watchdog};
use pgha_core::time::Instant;
use pgha_core::wire::{self, ClusterConfig};
use pgha_guard::postmaster::Postmaster;
use pgha_guard::{clock, files, heartbeat};
use tokio::sync::Notify;

use super::{Agent, patience};
use crate::context::Context;
use crate::dcs::{Documents, Known, understand};
use crate::jobs;
use crate::postgres::conf::Upstream;
use crate::postgres::query::{Connection, Heartbeat, RoleSeen};
use crate::postgres::{control, death};

/// An observation and what it was made of.
pub(super) struct Seen {
    pub(super) observation: Observation,
    pub(super) documents: Documents,
    pub(super) heartbeat: Option<Heartbeat>,
    /// Just before Postgres was looked at.
    pub(super) looked: Instant,
}

/// How long an ensemble that is well takes to answer, at most.
const BRIEF: Duration = Duration::from_millis(100);

/// The view on the local Postgres: a connection, and what is remembered of its postmaster.
#[derive(Debug)]
pub(super) struct Eye {
    context: Arc<Context>,
    connection: Connection,
    wake: Arc<Notify>,
    memory: PostmasterMemory,
}

#[derive(Debug, Default)]
struct PostmasterMemory {
    postmaster: Option<Postmaster>,
    since: Instant,
    answered: Option<Instant>,
    was_primary: bool,
    /// Postgres shows its newest timeline in different places at different times; it never goes back.
    timeline: Option<Timeline>,
}

/// Documents kept across restarts, in case ZooKeeper holds garbage then.
pub(super) fn recall(config: &Config) -> Known {
    let bytes = std::fs::read(config.state_dir.join("config.json")).ok();
    Known { config: bytes.and_then(|bytes| ClusterConfig::parse(&bytes).ok()), ..Known::default() }
}

impl Agent {
    pub(super) async fn observe(&mut self) -> Seen {
        // A leader does not wait for an answer beyond the end of its lease; and when that is over, whatever the answer, a
        // watchdog has to be disarmed before it fires, which it does soon after.
        let timing = self.settings.timing;
        self.watchdog.look();
        let urgent = self.watchdog.state() == Watchdog::Armed && self.job.is_none();
        let over = if urgent { BRIEF } else { Duration::MAX };
        let left = match self.lease.map(|lease| lease.fence_at(&timing).since(clock::now()).duration()) {
            Some(left) if !left.is_zero() => left,
            _ => over,
        };
        let deadline = patience(&timing).min(left);
        let looked = clock::now();
        // At once: neither may make the other late.
        let (read, (mut postgres, heartbeat)) =
            futures_util::future::join(self.zookeeper.read(deadline), self.eye.look()).await;
        super::still_alive();
        let now = clock::now();
        self.take_acknowledgements();
        let (dcs, documents) = match read {
            Ok(tree) => {
                self.dcs_seen = Some(now);
                let (cluster, documents) = understand(&tree, &self.settings.me, &self.known);
                self.learn_documents(&documents);
                (Dcs::Seen(Arc::new(cluster)), documents)
            }
            Err(error) => {
                self.complain(vec![error.to_string()]);
                (Dcs::Silent { since: self.dcs_seen.unwrap_or_default() }, Documents::default())
            }
        };
        if let (Some(heartbeat), Postgres::Running(running)) = (&heartbeat, &mut postgres) {
            self.learn_running(heartbeat, running, &documents);
        }
        let namesake = self.namesake(&documents);
        let past = self.context.past().view(self.context.leftovers().iter().any(|dir| dir.exists()));
        let now = clock::now();
        let observation = Observation {
            now,
            dcs,
            lease: self.lease,
            postgres,
            past,
            job: self.job.as_ref().map(jobs::Job::view),
            ended: self.ended.clone(),
            peers: self.peers.clone(),
            watchdog: self.watchdog.state(),
            guard_alive: heartbeat::is_alive(&self.context.config.run_dir, now),
            request: self.request,
            disk: self.disk.state(now),
            up_since: self.context.promises.up_since(),
            namesake,
            promise: self.context.promises.current(),
            pulse: self.zookeeper.pulse(),
        };
        let (settled, epoch) = match &observation.dcs {
            Dcs::Seen(cluster) => {
                let mine = cluster.leader.as_ref().is_some_and(|leader| leader.name == self.settings.me);
                (!mine && !self.zookeeper.is_writing(), Some(cluster.epoch.epoch))
            }
            Dcs::Silent { .. } => (false, None),
        };
        self.context.promises.looked(&observation, settled, epoch);
        Seen { observation, documents, heartbeat, looked }
    }

    /// Another host that has announced itself under this member's name. Whether it answers does not matter: one that stands
    /// still may be the primary, and what is left of one that is gone goes with its session.
    fn namesake(&self, documents: &Documents) -> Option<String> {
        let other = documents.own_member.as_ref().filter(|own| !own.is_my_session)?;
        let (host, port) = wire::Member::parse(&other.data).ok()?.api_address()?;
        let address = join_host_port(&host, port);
        // An earlier process of this very member leaves its own.
        (address != self.context.config.rest.advertise).then_some(address)
    }

    /// Remembers what stands in for a document that becomes garbage, and reports garbage once.
    fn learn_documents(&mut self, documents: &Documents) {
        if let Some(config) = documents.config.as_ref().filter(|config| self.known.config.as_ref() != Some(*config)) {
            let path = self.context.config.state_dir.join("config.json");
            if let Err(error) = files::replace(&path, &config.render()) {
                tracing::warn!(path = %path.display(), %error, "cannot keep a copy of the cluster's settings");
            }
            for warning in config.warnings() {
                tracing::warn!(%warning, "a cluster-wide setting is not understood");
            }
            for setting in config.unread() {
                tracing::warn!(setting, "a cluster-wide setting has no effect: pgha does not know it");
            }
            self.known.config = Some(config.clone());
            self.reload = true;
        }
        if documents.system_id.is_some() {
            self.known.system_id = documents.system_id;
        }
        for (name, address) in documents.addresses() {
            if self.known.addresses.get(name) != Some(&address) {
                self.known.addresses.insert(name.clone(), address);
            }
        }
        self.complain(documents.garbage.clone());
    }

    fn complain(&mut self, complaints: Vec<String>) {
        if complaints != self.complained {
            for complaint in &complaints {
                tracing::warn!("{complaint}");
            }
            self.complained = complaints;
        }
    }

    fn learn_running(&mut self, heartbeat: &Heartbeat, running: &mut Running, documents: &Documents) {
        self.known.system_id.get_or_insert(heartbeat.system_id);
        if let (RoleSeen::Standby { conninfo, .. }, Role::Standby(standby)) = (&heartbeat.role, &mut running.role) {
            standby.upstream = documents.members.keys().find_map(|name| {
                let upstream = upstream(documents, name)?;
                (self.context.conf.conninfo(&upstream) == *conninfo).then_some(upstream.name)
            });
        }
        if documents.system_id == Some(heartbeat.system_id) {
            let noted = self.context.past().making(false);
            if let Err(error) = noted {
                tracing::error!(%error, "cannot record that the cluster is made");
            }
        }
        // Which leadership it served under, whichever way it came to it.
        if let (Role::Primary(_), Some(lease)) = (&running.role, self.lease)
            && self.context.past().view(false).led_in != Some(lease.epoch)
        {
            let noted = self.context.past().leads_in(lease.epoch);
            if let Err(error) = noted {
                tracing::error!(%error, "cannot record the leadership");
            }
        }
        // A crash between a promotion and its record must not lose the record.
        if matches!(running.role, Role::Primary(_)) && running.timeline > Timeline(1) && self.job.is_none() {
            let noted = jobs::note_promotion(&self.context, running.timeline);
            if let Err(error) = noted {
                tracing::error!(%error, "cannot record the timeline of this promotion");
            }
        }
    }
}

impl Eye {
    pub(super) fn new(context: &Arc<Context>, wake: &Arc<Notify>) -> Self {
        Self {
            connection: Connection::new(&context.config, patience(&context.config.timing())),
            context: context.clone(),
            wake: wake.clone(),
            memory: PostmasterMemory::default(),
        }
    }

    /// The connection, for statements of the loop's own.
    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// The postmaster as last seen, if it lives.
    pub(super) fn postmaster(&self) -> Option<Postmaster> {
        self.memory.postmaster.filter(|postmaster| postmaster.is_alive())
    }

    async fn look(&mut self) -> (Postgres, Option<Heartbeat>) {
        let data_dir = &self.context.config.postgres.data_dir;
        let now = clock::now();
        let Some(postmaster) = Postmaster::find(data_dir) else {
            if let Some(lost) = self.memory.postmaster.filter(|postmaster| postmaster.is_alive()) {
                // Its directory or pid file is gone, it is not: it may serve clients for up to a minute more.
                tracing::error!(?lost, "Postgres runs, but its data directory does not say so");
                let since = self.memory.answered.unwrap_or(self.memory.since);
                return (Postgres::Mute { since, was_primary: self.memory.was_primary }, None);
            }
            self.memory = PostmasterMemory::default();
            self.connection.close();
            return (at_rest(&self.context.config).await, None);
        };
        if self.memory.postmaster != Some(postmaster) {
            self.memory = PostmasterMemory { postmaster: Some(postmaster), since: now, ..PostmasterMemory::default() };
            self.connection.close();
            self.wake_at_death_of(postmaster);
        }
        let signal = data_dir.join("standby.signal").exists();
        let starting = |memory: &PostmasterMemory| {
            let as_primary = memory.was_primary || !signal;
            let segment = postmaster.awaited_segment().and_then(|name| Segment::parse(&name));
            Postgres::Starting { since: memory.since, as_primary, awaits: segment.map(Segment::end) }
        };
        // One that has answered does not say so any more.
        if self.memory.answered.is_none() && Postmaster::says_starting(data_dir) {
            return (starting(&self.memory), None);
        }
        let error = match self.connection.heartbeat().await {
            Ok(heartbeat) => return self.running(heartbeat),
            Err(error) => error,
        };
        let memory = &self.memory;
        let state = match memory.answered {
            Some(since) if !error.is_starting() => {
                tracing::debug!(%error, "Postgres does not answer");
                Postgres::Mute { since, was_primary: memory.was_primary }
            }
            None if !error.is_starting() && !error.is_absent() => {
                tracing::debug!(%error, "Postgres does not answer yet");
                starting(memory)
            }
            // Shutting down looks the same as starting up, and is as able to accept a write: not at all.
            _ => starting(memory),
        };
        (state, None)
    }

    fn running(&mut self, heartbeat: Heartbeat) -> (Postgres, Option<Heartbeat>) {
        let timeline = self.memory.timeline.max(Some(heartbeat.timeline)).unwrap_or(heartbeat.timeline);
        self.memory.timeline = Some(timeline);
        self.memory.answered = Some(clock::now());
        self.memory.was_primary = matches!(heartbeat.role, RoleSeen::Primary(_));
        let role = match &heartbeat.role {
            RoleSeen::Primary(primary) => Role::Primary(primary.clone()),
            RoleSeen::Standby { standby, .. } => Role::Standby(standby.clone()),
        };
        let running = Running { system_id: heartbeat.system_id, timeline, role };
        (Postgres::Running(Box::new(running)), Some(heartbeat))
    }

    fn wake_at_death_of(&self, postmaster: Postmaster) {
        let wake = self.wake.clone();
        match death::of(postmaster) {
            Ok(death) => {
                tokio::spawn(async move {
                    death.await;
                    wake.notify_one();
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot watch the postmaster; its death is seen at the next heartbeat");
            }
        }
    }
}

async fn at_rest(config: &Config) -> Postgres {
    let postgres = &config.postgres;
    match is_empty(&postgres.data_dir) {
        Ok(true) => return Postgres::NoData,
        Ok(false) => {}
        Err(error) => return Postgres::Unusable(format!("{}: {error}", postgres.data_dir.display())),
    }
    match control::read(&postgres.bin_dir, &postgres.data_dir, patience(&config.timing())).await {
        Ok(control) => Postgres::Stopped(control),
        Err(error) => Postgres::Unusable(error.to_string()),
    }
}

fn is_empty(dir: &Path) -> std::io::Result<bool> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// Where a member's Postgres is, from its own znode.
pub(super) fn upstream(documents: &Documents, name: &pgha_core::name::NodeName) -> Option<Upstream> {
    let (host, port) = documents.members.get(name)?.postgres_address()?;
    Some(Upstream { name: name.clone(), host, port })
}
