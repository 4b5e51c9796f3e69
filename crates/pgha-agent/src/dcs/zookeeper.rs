//! The ZooKeeper client behind rules of our own.
//!
//! The library sends a request even after its caller has given up on it, and after a reconnect (its channel is
//! unbounded); it reports an expired session late; dropping its last handle closes the session. Therefore:
//! nothing is written while disconnected; one write is in flight at a time, and its outcome is awaited even after the
//! caller's deadline; every write of a leader checks the epoch; the session is detached, so that no accident of this
//! process gives a leadership away.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pgha_core::action::Lapsed;
use pgha_core::config::Config;
use pgha_core::name::{Epoch, NodeName};
use pgha_core::pulse::{Heart, Pulse, Renewal};
use pgha_core::time::Instant;
use pgha_core::wire::{EpochDoc, Paths, Status};
use pgha_guard::clock;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use zookeeper_client::{Acls, Client, CreateMode, Error, MultiReadResult, MultiWriteError, SessionState, Stat};

use super::DcsError;
use super::snapshot::{Raw, RawTree};

/// A write, with the condition under which it happens.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    /// Create `leader`, raise the epoch; in place of one that has lapsed.
    Take { version: Option<i32>, epoch: Epoch, initialize: bool, lapsed: Option<Lapsed>, above: Option<i32> },
    /// Replace our own `leader`, raise or restore the epoch.
    Reown { version: Option<i32>, epoch: Epoch, above: Option<i32> },
    /// Write `status`.
    Renew { version: i32, epoch: Epoch, status: Vec<u8> },
    /// Delete `leader`, and say that it was given back.
    Release { version: i32, epoch: Epoch },
    /// Under the epoch, write documents, all or none.
    Documents { version: i32, documents: Vec<Document> },
    /// Write one document that needs no leadership.
    Free { path: String, data: Vec<u8>, expect: Option<i32> },
    /// Announce this member; replaces what an earlier session of it left.
    Announce { data: Vec<u8>, replace: Announced },
}

/// A document to write; `expect` is its version (`None`: it must not exist).
#[derive(Debug, Clone)]
pub(crate) struct Document {
    pub(crate) path: String,
    pub(crate) data: Vec<u8>,
    pub(crate) expect: Option<i32>,
}

/// This member's znode as last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Announced {
    No,
    ByThisSession,
    ByAnother,
}

/// An acknowledged write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ack {
    /// Just before it was sent.
    pub(crate) sent: Instant,
    /// The leadership that it took or renewed.
    pub(crate) epoch: Option<Epoch>,
    /// It began the leadership.
    pub(crate) began: bool,
}

/// A watch that could not be set is set again after this.
const RECONNECTING: Duration = Duration::from_millis(200);

/// The connection to the ensemble.
pub(crate) struct ZooKeeper {
    hosts: String,
    session_timeout: Duration,
    /// A server that does not answer for so long is left for another; so is one that cannot be reached.
    server_timeout: Duration,
    paths: Arc<Paths>,
    me: NodeName,
    client: Option<Client>,
    connecting: Option<JoinHandle<Result<Client, Error>>>,
    watchers: Vec<JoinHandle<()>>,
    in_flight: Option<JoinHandle<()>>,
    acks: (mpsc::UnboundedSender<Ack>, mpsc::UnboundedReceiver<Ack>),
    changed: Arc<Notify>,
    heart: Arc<Mutex<Heart>>,
    base_made: bool,
    /// Whose znodes the last look found.
    members: Vec<String>,
}

impl ZooKeeper {
    pub(crate) fn new(config: &Config, changed: Arc<Notify>) -> Self {
        Self {
            hosts: config.zookeeper.hosts.join(","),
            session_timeout: config.timing().session().duration(),
            server_timeout: config.timing().heartbeat.duration(),
            paths: Arc::new(Paths::new(&config.namespace, &config.cluster)),
            me: config.name.clone(),
            client: None,
            connecting: None,
            watchers: Vec::new(),
            in_flight: None,
            acks: mpsc::unbounded_channel(),
            changed,
            heart: Arc::default(),
            base_made: false,
            members: Vec::new(),
        }
    }

    pub(crate) fn paths(&self) -> &Paths {
        &self.paths
    }

    /// A connected client, or the reason why there is none. Connecting goes on in the background.
    async fn client(&mut self, deadline: Duration) -> Result<Client, DcsError> {
        if self.client.as_ref().is_some_and(|client| client.state().is_terminated()) {
            tracing::warn!("the ZooKeeper session has expired");
            self.client = None;
            self.stop_watching();
        }
        if self.client.is_none() {
            self.connect(deadline).await?;
        }
        match &self.client {
            Some(client) if client.state() == SessionState::SyncConnected => Ok(client.clone()),
            _ => Err(DcsError::Disconnected),
        }
    }

    async fn connect(&mut self, deadline: Duration) -> Result<(), DcsError> {
        let (hosts, timeout, server_timeout) = (self.hosts.clone(), self.session_timeout, self.server_timeout);
        let connecting = self.connecting.get_or_insert_with(|| {
            tokio::spawn(async move {
                Client::connector()
                    .with_session_timeout(timeout)
                    .with_connection_timeout(server_timeout)
                    .with_detached()
                    .connect(&hosts)
                    .await
            })
        });
        let Ok(connected) = tokio::time::timeout(deadline, &mut *connecting).await else {
            return Err(DcsError::Disconnected);
        };
        self.connecting = None;
        let client = match connected {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => return Err(DcsError::Other(format!("cannot connect to {}: {error}", self.hosts))),
            Err(error) => return Err(DcsError::Other(error.to_string())),
        };
        // ZooKeeper clamps the timeout silently, and a leadership must not end with a shorter one.
        let granted = client.session_timeout();
        if granted != self.session_timeout {
            return Err(DcsError::Other(format!(
                "asked for a session of {:?}, got {granted:?}: make tickTime, minSessionTimeout and maxSessionTimeout \
                 of the ensemble fit timing.ttl",
                self.session_timeout
            )));
        }
        tracing::info!(session = %client.session_id(), "connected to ZooKeeper");
        lock(&self.heart).reborn();
        self.watch(&client);
        self.client = Some(client);
        Ok(())
    }

    /// Watches are one-shot, and only wake the loop: what is there is read, not concluded from an event. Renewals do not
    /// even do that; they are taken note of.
    fn watch(&mut self, client: &Client) {
        self.stop_watching();
        for path in [self.paths.leader(), self.paths.failover(), self.paths.config(), self.paths.initialize()] {
            let changed = self.changed.clone();
            self.watchers.push(watch(client, path, |_| {}, move || changed.notify_one()));
        }
        let heart = self.heart.clone();
        let renewed = move |status: Option<Stat>| match status {
            Some(status) => {
                lock(&heart).renewed(Renewal { version: status.version, zxid: status.mzxid }, clock::now());
            }
            None => lock(&heart).vanished(clock::now()),
        };
        self.watchers.push(watch(client, self.paths.status(), renewed, || {}));
    }

    /// The newest sign of life of a leader.
    pub(crate) fn pulse(&self) -> Option<Pulse> {
        lock(&self.heart).pulse()
    }

    fn stop_watching(&mut self) {
        for watcher in self.watchers.drain(..) {
            watcher.abort();
        }
    }

    /// Reads everything.
    pub(crate) async fn read(&mut self, deadline: Duration) -> Result<RawTree, DcsError> {
        let begun = std::time::Instant::now();
        let client = self.client(deadline).await?;
        let read = async {
            if !self.base_made {
                make_base(&client, &self.paths).await?;
                self.base_made = true;
            }
            read_tree(&client, &self.paths, &mut self.members).await
        };
        let left = deadline.saturating_sub(begun.elapsed());
        match tokio::time::timeout(left, read).await {
            Ok(Err(Error::NoNode)) => {
                // Somebody deleted the tree; it is made again at the next look.
                self.base_made = false;
                Err(DcsError::Other("the cluster's znodes are gone".to_owned()))
            }
            Ok(Err(error)) => Err(DcsError::Other(error.to_string())),
            Ok(Ok(tree)) => {
                let (now, mut heart) = (clock::now(), lock(&self.heart));
                heart.led(tree.epoch.as_ref().map(|epoch| epoch.version), now);
                match &tree.status {
                    Some(status) => heart.renewed(Renewal { version: status.version, zxid: status.zxid }, now),
                    None => heart.missed(now),
                }
                drop(heart);
                Ok(tree)
            }
            Err(_) => Err(DcsError::Timeout(deadline)),
        }
    }

    /// Does one write. After [`DcsError::Timeout`] it may still happen; until it is answered no other is begun.
    pub(crate) async fn write(&mut self, write: Write, deadline: Duration) -> Result<(), DcsError> {
        if self.is_writing() {
            return Err(DcsError::InFlight);
        }
        let client = self.client.clone().filter(|client| client.state() == SessionState::SyncConnected);
        let client = client.ok_or(DcsError::Disconnected)?;
        let (paths, me) = (self.paths.clone(), self.me.clone());
        let (acks, changed) = (self.acks.0.clone(), self.changed.clone());
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.in_flight = Some(tokio::spawn(async move {
            let sent = clock::now();
            let done = perform(&client, &paths, &me, &write).await;
            if done.is_ok() {
                let ack = match write {
                    Write::Take { epoch, .. } | Write::Reown { epoch, .. } => {
                        Some(Ack { sent, epoch: Some(epoch), began: true })
                    }
                    Write::Renew { epoch, .. } => Some(Ack { sent, epoch: Some(epoch), began: false }),
                    _ => None,
                };
                if let Some(ack) = ack {
                    let _ = acks.send(ack);
                }
            }
            if answer.send(done).is_err() {
                // The caller has given up; what has become of it shows at the next look.
                changed.notify_one();
            }
        }));
        let Ok(answer) = tokio::time::timeout(deadline, answered).await else {
            return Err(DcsError::Timeout(deadline));
        };
        self.in_flight = None;
        if let Ok(Err(DcsError::Changed(path))) = &answer {
            // What has changed may be that the parent of a document is gone.
            self.base_made = false;
            if *path == self.paths.status() {
                // Or that the ensemble is back at an earlier state, whose renewals are older than what was seen.
                lock(&self.heart).reborn();
            }
        }
        answer.unwrap_or_else(|_| Err(DcsError::Other("the write was abandoned".to_owned())))
    }

    /// Whether a write has been sent and not been answered.
    pub(crate) fn is_writing(&self) -> bool {
        self.in_flight.as_ref().is_some_and(|task| !task.is_finished())
    }

    /// Writes acknowledged since the last call.
    pub(crate) fn acknowledged(&mut self) -> Vec<Ack> {
        std::iter::from_fn(|| self.acks.1.try_recv().ok()).collect()
    }
}

/// What it keeps is whole at every moment, whoever panicked.
fn lock(heart: &Mutex<Heart>) -> std::sync::MutexGuard<'_, Heart> {
    heart.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells of a znode's state at first and after each change, until the session ends; and that there was one.
fn watch(
    client: &Client,
    path: String,
    state: impl Fn(Option<Stat>) + Send + 'static,
    changed: impl Fn() + Send + 'static,
) -> JoinHandle<()> {
    let client = client.clone();
    tokio::spawn(async move {
        while !client.state().is_terminated() {
            match client.check_and_watch_stat(&path).await {
                Ok((stat, watcher)) => {
                    state(stat);
                    watcher.changed().await;
                    changed();
                }
                // It is being connected again.
                Err(_) => tokio::time::sleep(RECONNECTING).await,
            }
        }
        changed();
    })
}

async fn make_base(client: &Client, paths: &Paths) -> Result<(), Error> {
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    client.mkdir(&paths.members(), &options).await?;
    let epoch = paths.epoch();
    if let Some((parent, _)) = epoch.rsplit_once('/') {
        client.mkdir(parent, &options).await?;
    }
    Ok(())
}

/// What can be read of a znode; one that is absent is no error.
fn raw(answer: MultiReadResult) -> Result<Option<Raw>, Error> {
    match answer {
        MultiReadResult::Data { data, stat } => {
            Ok(Some(Raw { data, version: stat.version, zxid: stat.mzxid, owner: stat.ephemeral_owner }))
        }
        MultiReadResult::Error { err: Error::NoNode } => Ok(None),
        MultiReadResult::Error { err } => Err(err),
        other => Err(strange(&other)),
    }
}

fn strange(answer: &MultiReadResult) -> Error {
    Error::UnexpectedError(format!("an answer to another question: {answer:?}"))
}

/// Reads everything in one request, which a server answers from one state (`FinalRequestProcessor`, since ZooKeeper 3.6);
/// in two where other members are there than `known`.
async fn read_tree(client: &Client, paths: &Paths, known: &mut Vec<String>) -> Result<RawTree, Error> {
    let fixed = [
        paths.epoch(),
        paths.leader(),
        paths.initialize(),
        paths.config(),
        paths.status(),
        paths.sync(),
        paths.failover(),
        paths.failsafe(),
        paths.history(),
        paths.timelines(),
    ];
    loop {
        let mut reader = client.new_multi_reader();
        reader.add_get_children(&paths.members())?;
        for path in &fixed {
            reader.add_get_data(path)?;
        }
        for name in known.iter() {
            reader.add_get_data(&format!("{}/{name}", paths.members()))?;
        }
        let mut answers = reader.commit().await?.into_iter();
        let names = match answers.next() {
            Some(MultiReadResult::Children { mut children }) => {
                children.sort_unstable();
                children
            }
            Some(MultiReadResult::Error { err }) => return Err(err),
            Some(other) => return Err(strange(&other)),
            None => return Err(Error::UnexpectedError("an empty answer".to_owned())),
        };
        if names != *known {
            *known = names;
            continue;
        }
        let mut next = || answers.next().map_or(Ok(None), raw);
        return Ok(RawTree {
            session: client.session_id().0,
            epoch: next()?,
            leader: next()?,
            initialize: next()?,
            config: next()?,
            status: next()?,
            sync: next()?,
            failover: next()?,
            failsafe: next()?,
            history: next()?,
            timelines: next()?,
            members: names
                .into_iter()
                .filter_map(|name| next().transpose().map(|read| read.map(|raw| (name, raw))))
                .collect::<Result<_, _>>()?,
        });
    }
}

async fn perform(client: &Client, paths: &Paths, me: &NodeName, write: &Write) -> Result<(), DcsError> {
    let acls = Acls::anyone_all();
    let persistent = CreateMode::Persistent.with_acls(acls);
    let ephemeral = CreateMode::Ephemeral.with_acls(acls);
    let mut multi = client.new_multi_writer();
    // The steps in order, so that a refusal can be told by its index.
    let mut steps: Vec<String> = Vec::new();
    let epoch_path = paths.epoch();
    let leader_path = paths.leader();
    let broken = |error: Error| DcsError::Other(error.to_string());
    let record = |epoch: Epoch, released: bool| EpochDoc { epoch, leader: me.clone(), released }.render();
    match write {
        Write::Take { version, epoch, initialize, lapsed, above } => {
            let raised = raise(&mut multi, &epoch_path, &record(*epoch, false), *version, *above).map_err(broken)?;
            steps.extend(vec![epoch_path; raised]);
            if let Some(Lapsed { held, renewal }) = lapsed {
                match renewal {
                    Some(version) => multi.add_check_version(&paths.status(), *version),
                    None => multi.add_create(&paths.status(), &Status::default().render(), &persistent),
                }
                .map_err(broken)?;
                steps.push(paths.status());
                if *held {
                    multi.add_delete(&leader_path, None).map_err(broken)?;
                    steps.push(leader_path.clone());
                }
            }
            multi.add_create(&leader_path, me.as_str().as_bytes(), &ephemeral).map_err(broken)?;
            steps.push(leader_path);
            if *initialize {
                multi.add_create(&paths.initialize(), b"", &persistent).map_err(broken)?;
                steps.push(paths.initialize());
            }
        }
        Write::Reown { version, epoch, above } => {
            let raised = raise(&mut multi, &epoch_path, &record(*epoch, false), *version, *above).map_err(broken)?;
            steps.extend(vec![epoch_path; raised]);
            multi.add_delete(&leader_path, None).map_err(broken)?;
            multi.add_create(&leader_path, me.as_str().as_bytes(), &ephemeral).map_err(broken)?;
            steps.extend([leader_path.clone(), leader_path]);
        }
        Write::Renew { version, status, .. } => {
            let path = paths.status();
            multi.add_check_version(&epoch_path, *version).map_err(broken)?;
            // The znode itself proves that this session is known: its owner is compared at every look.
            multi.add_set_data(&path, status, None).map_err(broken)?;
            steps.extend([epoch_path, path]);
        }
        Write::Release { version, epoch } => {
            put(&mut multi, &epoch_path, &record(*epoch, true), Some(*version)).map_err(broken)?;
            multi.add_delete(&leader_path, None).map_err(broken)?;
            steps.extend([epoch_path, leader_path]);
        }
        Write::Documents { version, documents } => {
            multi.add_check_version(&epoch_path, *version).map_err(broken)?;
            steps.push(epoch_path);
            for Document { path, data, expect } in documents {
                put(&mut multi, path, data, *expect).map_err(broken)?;
                steps.push(path.clone());
            }
        }
        Write::Free { path, data, expect } => {
            put(&mut multi, path, data, *expect).map_err(broken)?;
            steps.push(path.clone());
        }
        Write::Announce { data, replace } => {
            let path = paths.member(me);
            match replace {
                Announced::No => multi.add_create(&path, data, &ephemeral).map_err(broken)?,
                Announced::ByThisSession => multi.add_set_data(&path, data, None).map_err(broken)?,
                Announced::ByAnother => {
                    multi.add_delete(&path, None).map_err(broken)?;
                    multi.add_create(&path, data, &ephemeral).map_err(broken)?;
                }
            }
            steps.push(path);
        }
    }
    match multi.commit().await {
        Ok(_) => Ok(()),
        Err(MultiWriteError::OperationFailed { index, source: Error::NoNode })
            if matches!(write, Write::Renew { .. }) && index == 1 =>
        {
            create_status(client, paths, write).await
        }
        Err(MultiWriteError::OperationFailed {
            index,
            source: Error::BadVersion | Error::NodeExists | Error::NoNode,
        }) => Err(DcsError::Changed(steps.get(index).cloned().unwrap_or_default())),
        Err(error) => Err(DcsError::Other(error.to_string())),
    }
}

/// The first renewal of a cluster finds no `status` yet.
async fn create_status(client: &Client, paths: &Paths, write: &Write) -> Result<(), DcsError> {
    let Write::Renew { version, status, .. } = write else {
        return Ok(());
    };
    let broken = |error: Error| DcsError::Other(error.to_string());
    let mut multi = client.new_multi_writer();
    multi.add_check_version(&paths.epoch(), *version).map_err(broken)?;
    let persistent = CreateMode::Persistent.with_acls(Acls::anyone_all());
    multi.add_create(&paths.status(), status, &persistent).map_err(broken)?;
    match multi.commit().await {
        Ok(_) => Ok(()),
        Err(error) => Err(DcsError::Other(error.to_string())),
    }
}

/// More changes than this do not fit into one request; nobody has seen as many leaderships.
const MANY: i32 = 5000;

/// Sets the record of the epoch, or creates it, with a version that is greater than `above`. Says in how many steps.
fn raise(
    multi: &mut zookeeper_client::MultiWriter<'_>,
    path: &str,
    data: &[u8],
    expect: Option<i32>,
    above: Option<i32>,
) -> Result<usize, Error> {
    put(multi, path, data, expect)?;
    let mut steps = 1;
    if let (None, Some(above)) = (expect, above) {
        // It is created with version 0, and each change counts one.
        for _ in 0..=above.min(MANY) {
            multi.add_set_data(path, data, None)?;
            steps += 1;
        }
    }
    Ok(steps)
}

/// Sets a document of a known version, or creates it.
fn put(
    multi: &mut zookeeper_client::MultiWriter<'_>,
    path: &str,
    data: &[u8],
    expect: Option<i32>,
) -> Result<(), Error> {
    match expect {
        Some(version) => multi.add_set_data(path, data, Some(version)),
        None => multi.add_create(path, data, &CreateMode::Persistent.with_acls(Acls::anyone_all())),
    }
}
