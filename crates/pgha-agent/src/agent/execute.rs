//! Does what was decided: one action, one call. No choices are made here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::join_all;
use pgha_client::Client;
use pgha_core::action::{Action, StartAs};
use pgha_core::config::join_host_port;
use pgha_core::lsn::{Lsn, Timeline};
use pgha_core::name::{Epoch, NodeName, SlotName};
use pgha_core::observation::{Dcs, Initialize, JobKind, PeerAnswers, PeerPosition, PermanentSlot, SyncRecord};
use pgha_core::time::Millis;
use pgha_core::wire::rest::FailsafeBody;
use pgha_core::wire::{self, FailoverRequest, HistoryLine, Status, SyncState, Timelines};
use pgha_guard::clock;
use pgha_guard::postmaster::Postmaster;

use super::observe::{Seen, upstream};
use super::{Agent, patience};
use crate::context::Context;
use crate::dcs::{DcsError, Document, Write};
use crate::jobs::{self, Job};
use crate::postgres::conf::Upstream;
use crate::postgres::control;
use crate::postgres::query::{Connection, RoleSeen};
use crate::quarantine::Parting;

/// Whether to go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Done {
    Go,
    Exit,
}

/// How long work on a slot may take in the background.
const SLOT_PATIENCE: Duration = Duration::from_secs(600);

/// How long another member may take to say how far it is.
const PEER_DEADLINE: Duration = Duration::from_millis(400);

/// A data directory that could not be removed is tried again after this.
const REMOVED_AGAIN: Duration = Duration::from_secs(60);

impl Agent {
    pub(super) async fn execute(&mut self, action: Action, seen: &Seen) -> anyhow::Result<Done> {
        match action {
            Action::TakeLeadership { version, epoch, initialize, lapsed, above } => {
                // Who serves already takes again what it has.
                if self.lease.is_none() && !self.context.promises.bid(clock::now(), epoch) {
                    anyhow::bail!("this member has just promised not to lead");
                }
                let patience = patience(&self.settings.timing);
                let done =
                    self.zookeeper.write(Write::Take { version, epoch, initialize, lapsed, above }, patience).await;
                self.take_acknowledgements();
                if let Err(DcsError::Changed(_) | DcsError::Disconnected | DcsError::InFlight) = &done {
                    self.context.promises.withdraw();
                }
                done?;
            }
            Action::ReownLeadership { version, epoch, above } => {
                self.write(Write::Reown { version, epoch, above }).await?;
                self.context.past().leads_in(epoch)?;
            }
            Action::Renew { version, retain } => self.renew(version, &retain, seen).await?,
            Action::ReleaseLeadership { version } => self.release(version, seen).await?,
            Action::RecordCluster { version, system_id } => self.record_cluster(version, system_id, seen).await?,
            Action::WriteSync { version, record } => self.write_sync(version, &record).await?,
            Action::ReserveTimeline { version, timeline } => self.reserve_timeline(version, timeline, seen).await?,
            Action::WriteFailsafe { version, failsafe, members } => {
                // It may come about after this process has ended, which the next one has to know.
                self.lease.map_or(Ok(()), |lease| self.record(lease)).context("cannot write the lease file")?;
                self.write_failsafe(version, failsafe, &members, seen).await?;
            }
            Action::RenewByPromise { epoch, members } => self.ask_for_promises(epoch, &members).await,
            Action::WriteHistory { version } => self.write_history(version, seen).await?,
            Action::ClearFailover { version, failover } => {
                let path = self.zookeeper.paths().failover();
                let data = FailoverRequest::default().render();
                self.write_document(version, Document { path, data, expect: Some(failover) }).await?;
            }
            Action::AskPeers(names) => self.ask_peers(&names, seen).await,
            Action::Fence => self.fence().await?,
            Action::ForgetLease => {
                self.lease_file.forget()?;
                self.lease = None;
            }
            Action::Bootstrap => self.begin(JobKind::Bootstrap, false, jobs::bootstrap(self.context.clone())),
            Action::Prepare => self.begin(JobKind::Prepare, false, jobs::prepare(self.context.clone())),
            Action::Start(how) => self.start(how, seen)?,
            Action::Stop { checkpoint } => {
                self.begin(JobKind::Stop, false, jobs::stop(self.context.clone(), checkpoint));
            }
            Action::Promote { epoch, not_after, timeline } => {
                let work = jobs::promote(self.context.clone(), epoch, not_after, timeline);
                self.begin(JobKind::Promote, true, work);
            }
            Action::Follow(leader) => {
                let upstream = leader.map(|name| source(seen, &name)).transpose()?;
                self.context.conf.write_upstream(upstream.as_ref())?;
                self.signal_reload()?;
            }
            Action::SetSyncNames(names) => {
                self.context.conf.write_sync_names(&names)?;
                self.signal_reload()?;
            }
            Action::CreateSlots(slots) => self.create_slots(&slots).await?,
            Action::CreateLogicalSlots(slots) => self.create_logical_slots(slots),
            Action::AdvanceSlots(slots) => self.advance_slots(slots, seen),
            Action::CopySlots(leader, slots) => {
                let source = source(seen, &leader)?;
                self.begin(JobKind::CopySlots, false, jobs::copy_slots(self.context.clone(), source, slots));
            }
            Action::DropSlots(slots) => self.drop_slots(&slots).await?,
            Action::Checkpoint => self.checkpoint_in_background(),
            Action::Rewind(leader) => {
                let source = source(seen, &leader)?;
                let parted = parting(seen);
                let parameters = self.cluster_parameters();
                self.begin(JobKind::Rewind, false, jobs::rewind(self.context.clone(), parameters, source, parted));
            }
            Action::Clone(leader) => {
                let source = source(seen, &leader)?;
                self.begin(JobKind::Clone, false, jobs::copy(self.context.clone(), source, parting(seen)));
            }
            Action::RemoveOldData => {
                if self.removal.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
                    self.removal = Some(tokio::spawn(remove_leftovers(self.context.clone())));
                }
            }
            Action::CancelJob => {
                if let Some(job) = self.job.take() {
                    let ended = job.cancel().await;
                    self.job_ended(ended);
                }
            }
            Action::ArmWatchdog => {
                let timing = self.settings.timing;
                let left = self.lease.and_then(|lease| lease.watchdog_seconds(clock::now(), &timing));
                let armed = self.watchdog.arm(left.unwrap_or(1));
                if self.settings.watchdog_required {
                    // What follows in this decision must not happen without one.
                    armed?;
                }
            }
            Action::DisarmWatchdog => self.watchdog.disarm(),
            Action::Exit => return Ok(Done::Exit),
        }
        Ok(Done::Go)
    }

    async fn write(&mut self, write: Write) -> anyhow::Result<()> {
        let done = self.zookeeper.write(write, patience(&self.settings.timing)).await;
        self.take_acknowledgements();
        Ok(done?)
    }

    async fn write_document(&mut self, version: i32, document: Document) -> anyhow::Result<()> {
        self.write(Write::Documents { version, documents: vec![document] }).await
    }

    fn begin(
        &mut self,
        kind: JobKind,
        writes: bool,
        work: impl Future<Output = Result<(), jobs::JobError>> + Send + 'static,
    ) {
        self.job = Some(Job::begin(kind, writes, &self.wake, work));
    }

    async fn release(&mut self, version: i32, seen: &Seen) -> anyhow::Result<()> {
        let Dcs::Seen(cluster) = &seen.observation.dcs else {
            anyhow::bail!("no release without having read ZooKeeper")
        };
        self.write(Write::Release { version, epoch: cluster.epoch.epoch }).await
    }

    async fn renew(&mut self, version: i32, retain: &BTreeSet<SlotName>, seen: &Seen) -> anyhow::Result<()> {
        let Dcs::Seen(cluster) = &seen.observation.dcs else {
            anyhow::bail!("no renewal without having read ZooKeeper")
        };
        let mut status = seen.documents.status.clone();
        if let Some((heartbeat, RoleSeen::Primary(primary))) = seen.heartbeat.as_ref().map(|it| (it, &it.role)) {
            let own = (self.settings.me.slot(), primary.flushed);
            let senders = primary.senders.iter().filter_map(|sender| {
                let name = NodeName::try_from(sender.name.as_str()).ok()?;
                Some((name.slot(), sender.flushed))
            });
            let slots = &primary.slots;
            let permanent = cluster.config.iter().flat_map(|config| config.permanent_slots.keys()).filter_map(|name| {
                let slot = slots.physical.get(name).or_else(|| slots.logical.get(name))?;
                // A logical slot that is being made has none yet.
                (slot.position != Lsn::INVALID && !slot.spoilt).then_some(())?;
                Some((name.clone(), slot.position))
            });
            let positions = cluster.positions_from(heartbeat.timeline, senders.chain([own]).chain(permanent));
            status = Status {
                optime: primary.flushed,
                slots: positions.into_iter().map(|(slot, position)| (slot.to_string(), position)).collect(),
                pgha_timeline: Some(heartbeat.timeline),
                ..status
            };
        }
        status.retain_slots = retain.iter().map(SlotName::to_string).collect();
        let epoch = cluster.epoch.epoch;
        self.write(Write::Renew { version, epoch, status: status.render() }).await
    }

    async fn record_cluster(
        &mut self,
        version: i32,
        system_id: pgha_core::name::SystemId,
        seen: &Seen,
    ) -> anyhow::Result<()> {
        let Dcs::Seen(cluster) = &seen.observation.dcs else {
            return Ok(());
        };
        // The settings first: whoever sees the cluster made must see them too.
        if cluster.config.is_none() || cluster.config_lost {
            let path = self.zookeeper.paths().config();
            // Where the record was lost of a cluster that was made before, what this member knew last is still true; but a pause
            // is for a time, which is over.
            let known = self.known.config.as_ref().filter(|_| !seen.observation.past.unrecorded);
            let unpaused = serde_json::Map::from_iter([("pause".to_owned(), serde_json::Value::Null)]);
            let data = known.map_or_else(|| self.first_settings(), |known| known.patched(&unpaused)).render();
            let expect = seen.documents.config_version;
            self.write_document(version, Document { path, data, expect }).await?;
        }
        if !matches!(cluster.initialize, pgha_core::observation::Initialize::Done(_)) {
            let path = self.zookeeper.paths().initialize();
            let data = wire::Initialize::Done(system_id).render();
            let expect = match cluster.initialize {
                pgha_core::observation::Initialize::Absent => None,
                _ => Some(0),
            };
            let mut documents = vec![Document { path, data, expect }];
            let first = seen.heartbeat.as_ref().filter(|heartbeat| heartbeat.timeline == Timeline(1));
            if let Some(heartbeat) = first.filter(|_| cluster.history.newest.is_none()) {
                // From here on a record that is not there is one that was lost. What came before a later timeline is recorded
                // with the history.
                let (newest, reserved) = (heartbeat.timeline, Some(heartbeat.timeline));
                documents.push(self.timelines_document(&Timelines { newest, reserved, ..timelines(seen) }, seen));
            }
            self.write(Write::Documents { version, documents }).await?;
        }
        Ok(())
    }

    /// The `config` znode of a new cluster. Times are there for `patronictl`; pgha's own come from `agent.toml`.
    fn first_settings(&self) -> wire::ClusterConfig {
        let bootstrap = &self.context.config.bootstrap;
        let seconds = |millis: u64| millis.div_ceil(1000).max(1);
        let timing = self.settings.timing;
        let value = serde_json::json!({
            "ttl": seconds(timing.ttl.0),
            "loop_wait": seconds(timing.heartbeat.0),
            "retry_timeout": seconds(timing.heartbeat.0),
            "maximum_lag_on_failover": bootstrap.maximum_lag_on_failover,
            "synchronous_mode": bootstrap.synchronous_mode,
            "synchronous_mode_strict": bootstrap.synchronous_mode_strict,
            "synchronous_node_count": bootstrap.synchronous_node_count,
            "failsafe_mode": bootstrap.failsafe_mode,
            "postgresql": { "parameters": bootstrap.parameters },
        });
        match value {
            serde_json::Value::Object(object) => wire::ClusterConfig::new(object),
            _ => wire::ClusterConfig::new(serde_json::Map::new()),
        }
    }

    async fn write_sync(&mut self, version: i32, record: &SyncRecord) -> anyhow::Result<()> {
        let quorum = u32::try_from(record.quorum).unwrap_or(u32::MAX);
        let state = SyncState { leader: record.leader.clone(), quorum, sync_standby: record.standbys.clone() };
        let path = self.zookeeper.paths().sync();
        self.write_document(version, Document { path, data: state.render(), expect: record.version }).await
    }

    async fn write_history(&mut self, version: i32, seen: &Seen) -> anyhow::Result<()> {
        let Some(heartbeat) = &seen.heartbeat else {
            return Ok(());
        };
        let file = format!("pg_wal/{:08X}.history", heartbeat.timeline.0);
        let path = self.context.config.postgres.data_dir.join(&file);
        let text = tokio::fs::read_to_string(&path).await?;
        let local = pgha_core::lsn::TimelineHistory::parse(&text)?;
        let known = &seen.documents.history;
        let newest = local.0.last().map(|switch| switch.parent);
        let lines = local.0.into_iter().map(|switch| {
            let line =
                known.0.iter().find(|line| line.timeline == switch.parent && line.switched_at == switch.switched_at);
            // The newest switch is ours, and of now; of the others only what is on record is known.
            let ours = Some(switch.parent) == newest;
            let me = self.settings.me.as_str();
            if let Some(line) = line.filter(|line| !ours || line.new_leader.as_deref() == Some(me)) {
                return line.clone();
            }
            HistoryLine {
                timeline: switch.parent,
                switched_at: switch.switched_at,
                reason: switch.reason,
                at: ours.then(|| wire::IsoTime::utc(jiff::Timestamp::now()).to_string()),
                new_leader: ours.then(|| self.settings.me.to_string()),
            }
        });
        let history = Document {
            path: self.zookeeper.paths().history(),
            data: wire::History(lines.collect()).render(),
            expect: seen.documents.history_version,
        };
        let mut document = timelines(seen);
        document.newest = heartbeat.timeline;
        // Where it was lost.
        document.reserved = document.reserved.max(self.memory.reserved);
        document.begun_by.insert(heartbeat.timeline, self.settings.me.clone());
        let timelines = self.timelines_document(&document, seen);
        self.write(Write::Documents { version, documents: vec![history, timelines] }).await
    }

    async fn reserve_timeline(&mut self, version: i32, timeline: Timeline, seen: &Seen) -> anyhow::Result<()> {
        let document = Timelines { reserved: Some(timeline), ..timelines(seen) };
        let document = self.timelines_document(&document, seen);
        self.write_document(version, document).await
    }

    fn timelines_document(&self, timelines: &Timelines, seen: &Seen) -> Document {
        Document {
            path: self.zookeeper.paths().timelines(),
            data: timelines.render(),
            expect: seen.documents.timelines_version,
        }
    }

    async fn ask_peers(&mut self, names: &BTreeSet<NodeName>, seen: &Seen) {
        let asked = clock::now();
        let answers = names.iter().map(|name| async move {
            let (host, port) = seen.documents.members.get(name)?.api_address()?;
            let client = Client::new(&join_host_port(&host, port)).ok()?;
            let status = tokio::time::timeout(PEER_DEADLINE, client.pgha()).await.ok()?.ok()?;
            // It looked so long before it answered, and it answered after it was asked.
            let looked = asked - Millis(status.looked_ms_ago?);
            let (timeline, position) = (status.timeline?, status.position?);
            let (complete, detached, can_lead) = (status.position_complete, status.detached, status.can_lead);
            Some((name.clone(), PeerPosition { timeline, position, complete, looked, detached, can_lead }))
        });
        let positions: BTreeMap<_, _> = join_all(answers).await.into_iter().flatten().collect();
        let silent = names.iter().filter(|name| !positions.contains_key(*name)).cloned().collect();
        tracing::info!(?positions, ?silent, "asked the other members");
        self.peers = Some(PeerAnswers { asked, positions, silent });
    }

    async fn write_failsafe(
        &mut self,
        version: i32,
        expect: Option<i32>,
        members: &BTreeSet<NodeName>,
        seen: &Seen,
    ) -> anyhow::Result<()> {
        let url = |name: &NodeName| seen.documents.members.get(name).map(|member| member.api_url.clone());
        let record = wire::Failsafe(members.iter().map(|name| (name.clone(), url(name).unwrap_or_default())).collect());
        let path = self.zookeeper.paths().failsafe();
        self.write_document(version, Document { path, data: record.render(), expect }).await
    }

    /// The addresses are those of the last look at ZooKeeper.
    async fn ask_for_promises(&mut self, epoch: Epoch, members: &BTreeSet<NodeName>) {
        let asked = clock::now();
        let config = &self.context.config;
        let secrets = &self.context.secrets;
        let body = FailsafeBody {
            name: self.settings.me.clone(),
            conn_url: format!("postgres://{}/postgres", config.postgres.advertise),
            api_url: format!("http://{}/patroni", config.rest.advertise),
            epoch: Some(epoch),
            slots: None,
        };
        let (body, addresses) = (&body, &self.known.addresses);
        let answers = members.iter().map(|name| async move {
            let address = addresses.get(name).ok_or_else(|| "its address is not known".to_owned())?;
            let client = Client::new(address).map_err(|error| error.to_string())?;
            let client = client.with_credentials(&secrets.rest_username, &secrets.rest_password);
            let answer = tokio::time::timeout(PEER_DEADLINE, client.failsafe(body)).await;
            answer
                .map_err(|_| format!("no answer within {PEER_DEADLINE:?}"))?
                .map(drop)
                .map_err(|error| error.to_string())
        });
        let refused: Vec<String> = (members.iter().zip(join_all(answers).await))
            .filter_map(|(name, answer)| Some(format!("{name}: {}", answer.err()?)))
            .collect();
        match self.lease.filter(|lease| lease.epoch == epoch) {
            Some(lease) if refused.is_empty() => self.extend(lease.promised(asked)),
            _ => tracing::warn!(?refused, "failsafe mode: not every member promises not to lead"),
        }
    }

    async fn fence(&mut self) -> anyhow::Result<()> {
        let patience = Duration::from_millis(self.settings.timing.stop_budget.0 / 2);
        // The one that is known first: to look for another takes a disk that may hang.
        let data_dir = &self.context.config.postgres.data_dir;
        let found = std::iter::once_with(|| Postmaster::find(data_dir)).flatten();
        for postmaster in self.eye.postmaster().into_iter().chain(found) {
            if !tokio::task::spawn_blocking(move || postmaster.kill_for_certain(patience)).await? {
                anyhow::bail!("Postgres was killed, but a process of it is still there");
            }
        }
        self.eye.connection().close();
        Ok(())
    }

    fn start(&mut self, how: StartAs, seen: &Seen) -> anyhow::Result<()> {
        let mode = match how {
            StartAs::Primary { epoch, not_after } => jobs::Mode::Primary { epoch, not_after },
            StartAs::Standby(leader) => jobs::Mode::Standby(leader.map(|name| source(seen, &name)).transpose()?),
        };
        let writes = matches!(mode, jobs::Mode::Primary { .. });
        let work = jobs::start(self.context.clone(), self.cluster_parameters(), mode);
        self.begin(JobKind::Start, writes, work);
        Ok(())
    }

    /// `postgresql.conf` settings of the whole cluster.
    fn cluster_parameters(&self) -> BTreeMap<String, String> {
        let Some(config) = &self.known.config else {
            return self.context.config.bootstrap.parameters.clone();
        };
        let mut parameters = config.settings().parameters.clone();
        if config.settings().slots.values().any(|kind| *kind != PermanentSlot::Physical) {
            // Otherwise the primary would remove rows of catalogs that the copies of its logical slots still need.
            parameters.insert("hot_standby_feedback".to_owned(), "on".to_owned());
        }
        parameters
    }

    fn signal_reload(&self) -> anyhow::Result<()> {
        if let Some(postmaster) = Postmaster::find(&self.context.config.postgres.data_dir) {
            postmaster.reload()?;
        }
        Ok(())
    }

    /// Brings `postgresql.conf` up to date and makes a running Postgres take it.
    /// While a job works on the data directory, its files are the job's.
    pub(super) async fn reload_postgres(&mut self) {
        let postgres = &self.context.config.postgres;
        if Postmaster::find(&postgres.data_dir).is_none() {
            return;
        }
        // What a standby was started with, its next start will need as well.
        let standby = postgres.data_dir.join("standby.signal").exists();
        let floors = control::floors(&postgres.bin_dir, &postgres.data_dir);
        let floors = tokio::time::timeout(patience(&self.settings.timing), async {
            if standby { floors.await.ok() } else { None }
        });
        let floors = floors.await.ok().flatten().unwrap_or_default();
        let written = self.context.conf.write_settings_at_least(&self.cluster_parameters(), &floors);
        let reloaded = match written {
            Ok(true) => self.signal_reload(),
            Ok(false) => Ok(()),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = reloaded {
            tracing::error!(%error, "cannot bring Postgres' settings up to date");
        }
    }

    async fn create_slots(&mut self, slots: &BTreeSet<SlotName>) -> anyhow::Result<()> {
        let sql = format!(
            "SELECT pg_create_physical_replication_slot(name, true) FROM unnest({}) AS name \
              WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = name)",
            array(slots)
        );
        Ok(self.eye.connection().execute(&sql, patience(&self.settings.timing)).await?)
    }

    async fn drop_slots(&mut self, slots: &BTreeSet<SlotName>) -> anyhow::Result<()> {
        let sql = format!(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
              WHERE slot_name = ANY ({}) AND NOT active",
            array(slots)
        );
        Ok(self.eye.connection().execute(&sql, patience(&self.settings.timing)).await?)
    }

    /// In the background: the making of a logical slot waits for every transaction that runs.
    fn create_logical_slots(&mut self, slots: BTreeMap<SlotName, PermanentSlot>) {
        let context = self.context.clone();
        self.on_slots(async move {
            for (name, kind) in slots {
                let PermanentSlot::Logical { database, plugin } = kind else { continue };
                let mut connection = Connection::to(&context.config, &database, Duration::from_secs(5));
                let sql = format!(
                    "SET statement_timeout = 0; SELECT pg_create_logical_replication_slot('{name}', {})",
                    literal(&plugin)
                );
                match connection.execute(&sql, SLOT_PATIENCE).await {
                    Ok(()) => tracing::info!(slot = %name, database, plugin, "created a permanent logical slot"),
                    Err(error) => {
                        tracing::warn!(slot = %name, database, plugin, %error, "cannot create a permanent logical slot");
                    }
                }
            }
        });
    }

    /// In the background: a logical slot reads all the WAL in between. Only in its own database can one be moved.
    fn advance_slots(&mut self, slots: BTreeMap<SlotName, Lsn>, seen: &Seen) {
        let settings = match &seen.observation.dcs {
            Dcs::Seen(cluster) => cluster.config.clone().unwrap_or_default(),
            Dcs::Silent { .. } => return,
        };
        let context = self.context.clone();
        self.on_slots(async move {
            for (name, position) in slots {
                let database = match settings.permanent_slots.get(&name) {
                    Some(PermanentSlot::Logical { database, .. }) => database,
                    _ => "postgres",
                };
                let mut connection = Connection::to(&context.config, database, Duration::from_secs(5));
                let sql =
                    format!("SET statement_timeout = 0; SELECT pg_replication_slot_advance('{name}', '{position}')");
                if let Err(error) = connection.execute(&sql, SLOT_PATIENCE).await {
                    tracing::warn!(slot = %name, %position, %error, "cannot move a permanent slot on");
                }
            }
        });
    }

    /// Begins work on slots, unless some is under way: the next look will find what is left.
    fn on_slots(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        if self.slots.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
            self.slots = Some(tokio::spawn(work));
        }
    }

    fn checkpoint_in_background(&self) {
        let context = Arc::clone(&self.context);
        let wake = self.wake.clone();
        tokio::spawn(async move {
            let mut connection = crate::postgres::query::Connection::new(&context.config, Duration::from_secs(2));
            let sql = "SET statement_timeout = 0; CHECKPOINT";
            match connection.execute(sql, Duration::from_secs(600)).await {
                Ok(()) => wake.notify_one(),
                Err(error) => tracing::warn!(%error, "the checkpoint after the promotion failed"),
            }
        });
    }
}

/// What is on record of the cluster's timelines.
fn timelines(seen: &Seen) -> Timelines {
    match &seen.observation.dcs {
        Dcs::Seen(cluster) => Timelines {
            newest: cluster.history.timeline(),
            reserved: cluster.history.reserved,
            begun_by: cluster.history.begun_by.clone(),
        },
        Dcs::Silent { .. } => Timelines { newest: Timeline(1), reserved: None, begun_by: BTreeMap::new() },
    }
}

fn source(seen: &Seen, name: &NodeName) -> anyhow::Result<Upstream> {
    upstream(&seen.documents, name).ok_or_else(|| anyhow::anyhow!("{name} does not say where its Postgres is"))
}

/// Removes data directories that nobody needs any more.
async fn remove_leftovers(context: Arc<Context>) {
    let alone = context.copying.lock().await;
    let directories = context.leftovers();
    let removed = tokio::task::spawn_blocking(move || {
        directories
            .iter()
            .try_for_each(|dir| pgha_guard::files::remove(dir).map_err(|error| format!("{}: {error}", dir.display())))
    });
    let removed = removed.await;
    drop(alone);
    if let Ok(Err(error)) = removed {
        tracing::warn!(%error, "cannot remove a data directory that nobody needs any more");
        tokio::time::sleep(REMOVED_AGAIN).await;
    }
}

/// Where the local history parted from the leader's.
fn parting(seen: &Seen) -> Option<Parting> {
    let pgha_core::observation::Postgres::Stopped(control) = &seen.observation.postgres else {
        return None;
    };
    let Dcs::Seen(cluster) = &seen.observation.dcs else {
        return None;
    };
    if cluster.initialize != Initialize::Done(control.system_id) {
        return None;
    }
    let at = cluster.history.switches.end_of(control.timeline)?;
    Some(Parting { timeline: control.timeline, at })
}

/// An SQL text.
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// An SQL array. Slot names are letters, digits and underscores, by construction.
fn array(slots: &BTreeSet<SlotName>) -> String {
    let names: Vec<String> = slots.iter().map(|slot| format!("'{slot}'")).collect();
    format!("ARRAY[{}]::text[]", names.join(","))
}
