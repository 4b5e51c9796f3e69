//! Clients that append to a few shared lists and read them while hosts fail; what they saw is checked afterwards.
//!
//! Rows that are only inserted tell whether a commit was kept. Lists tell more: their order shows which server's history
//! a client was in, so a read from a primary that was already replaced, or of a commit that was taken back, is found.
//!
//! What makes the check sound: a commit that waits for its standby is not visible to others yet. `RecordTransactionCommit`
//! in Postgres' `xact.c` says of the moment at which it calls `SyncRepWaitForLSN`: "we have marked clog, but still show as
//! running in the procarray and continue to hold locks". So what a read shows, and what an append finds behind the row
//! lock, has been confirmed by the standby. There are two exceptions. A wait that is cancelled (which no client does
//! here), or whose backend is ended, makes the commit visible unconfirmed; `syncrep.c` warns that it "might not have been
//! replicated to the standby". So does recovery after a crash, which replays the commit record and waits for nobody. If a
//! failover then drops that commit, whoever has read it has seen what never was: [`Anomaly::Diverged`]. A primary must be
//! fenced before it can serve such reads. One that is not fenced in time also serves what is merely old:
//! [`Anomaly::Backwards`].

mod check;
mod client;
mod history;
mod keys;

use std::{
    collections::HashMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinSet};

pub use self::{
    check::Anomaly,
    history::{Append, Fate, Operation},
};
use self::{
    history::{History, Recorder},
    keys::Keys,
};
use super::{COUNT, STATEMENT, Settings, clients::Clients, nanoseconds};
use crate::{
    Result, netns,
    sql::{Server, runtime},
};

/// A list's name within a run.
pub type Key = i64;
/// What is appended; no two appends of a run have the same.
pub type Element = i64;
/// The lists of a run by key.
type Lists = HashMap<Key, Vec<Element>>;

const TABLE: &str = "set client_min_messages = warning; create table if not exists pgha_append (run text, key bigint, \
                     list bigint[] not null, primary key (run, key))";
const LISTS: &str = "select key, list from pgha_append where run = $1";

/// What the clients did, and whether it can have happened.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Report {
    /// Appends whose commit was acknowledged.
    pub acknowledged: usize,
    /// Appends whose fate the client never learned.
    pub in_doubt: usize,
    /// Those of them that are in their list.
    pub in_doubt_kept: usize,
    /// Appends certainly without effect: refused by the server, rolled back, or never committed.
    pub refused: usize,
    /// Attempts that found no server.
    pub unconnected: usize,
    /// Plain reads. An acknowledged append shows its list, too, which is checked in the same way.
    pub reads: usize,
    /// How many lists there were.
    pub keys: usize,
    /// What cannot have happened, earliest first. Anything here is a broken promise.
    pub anomalies: Vec<Anomaly>,
    /// When the first attempt failed, in seconds from the start, and why.
    pub first_error: Option<(f64, String)>,
    /// How long the clients ran, in seconds.
    pub seconds: f64,
}

impl Report {
    /// The account of a history, given the lists that the table holds.
    fn new(history: &History, kept: &Lists, seconds: f64) -> Self {
        let fates = |fate: Fate| history.appends().filter(move |(_, append)| append.fate == fate);
        let is_kept = |key: &Key, element: &Element| kept.get(key).is_some_and(|list| list.contains(element));
        Self {
            acknowledged: fates(Fate::Acknowledged).count(),
            in_doubt: fates(Fate::InDoubt).count(),
            in_doubt_kept: fates(Fate::InDoubt).filter(|(at, append)| is_kept(&at.key, &append.element)).count(),
            refused: fates(Fate::Refused).count(),
            unconnected: history.unconnected,
            reads: history.operations().iter().filter(|operation| operation.append.is_none()).count(),
            keys: kept.len(),
            anomalies: check::check(history, kept),
            first_error: history.first_error.as_ref().map(|(when, why)| (when.as_secs_f64(), why.clone())),
            seconds,
        }
    }

    /// Whether every promise was kept.
    pub fn holds(&self) -> bool {
        self.anomalies.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// More would hide the first ones.
        const SHOWN: usize = 10;
        writeln!(f, "acknowledged appends {} to {} lists in {:.1} s", self.acknowledged, self.keys, self.seconds)?;
        writeln!(f, "in doubt             {}, of which {} are in their list", self.in_doubt, self.in_doubt_kept)?;
        writeln!(f, "refused appends      {}; no server was found {} times", self.refused, self.unconnected)?;
        writeln!(f, "reads                {}", self.reads)?;
        write!(f, "anomalies            {}", self.anomalies.len())?;
        for anomaly in self.anomalies.iter().take(SHOWN) {
            write!(f, "\n  {anomaly}")?;
        }
        if let Some(more @ 1..) = self.anomalies.len().checked_sub(SHOWN) {
            write!(f, "\n  and {more} more")?;
        }
        if let Some((when, why)) = &self.first_error {
            write!(f, "\nfirst error          {when:.1} s after the start: {why}")?;
        }
        Ok(())
    }
}

/// Running clients. Dropping it stops them without a check.
#[derive(Debug)]
pub struct Appends {
    settings: Settings,
    network: Network,
    run: String,
    recorder: Arc<Recorder>,
    clients: Clients,
}

impl Appends {
    /// Prepares the table and lets the clients work; as many as the settings have writers.
    pub fn start(settings: Settings) -> Result<Self> {
        Self::start_on(Network::Lab, settings)
    }

    /// The same against a server on the machine's own network: no lab is needed.
    pub fn start_outside(settings: Settings) -> Result<Self> {
        Self::start_on(Network::Machine, settings)
    }

    fn start_on(network: Network, settings: Settings) -> Result<Self> {
        network.ask(prepare(&settings.server))?;
        let run = format!("{:x}", nanoseconds());
        let recorder = Arc::new(Recorder::new());
        let clients = Clients::start("appends", {
            let (settings, run, recorder) = (settings.clone(), run.clone(), Arc::clone(&recorder));
            move |stopped| {
                network.enter()?;
                runtime()?.block_on(drive(&settings, &run, &recorder, &stopped));
                Ok(())
            }
        })?;
        Ok(Self { settings, network, run, recorder, clients })
    }

    /// How many appends are acknowledged by now.
    pub fn acknowledged(&self) -> usize {
        self.recorder.acknowledged()
    }

    /// Waits until `count` more appends are acknowledged.
    pub fn await_more(&self, count: usize, limit: Duration) -> Result<()> {
        let recorder = &self.recorder;
        self.clients.await_more((count, "appends"), limit, || recorder.acknowledged(), || recorder.last_error())
    }

    /// Stops the clients, reads the lists back and checks the history.
    pub fn finish(self) -> Result<Report> {
        self.clients.end()?;
        let seconds = self.recorder.now().as_secs_f64();
        let kept = self.network.ask(read_back(&self.settings.server, &self.run))?;
        Ok(Report::new(&self.recorder.history(), &kept, seconds))
    }
}

/// Where the clients live.
#[derive(Debug, Clone, Copy)]
enum Network {
    Lab,
    Machine,
}

impl Network {
    /// Moves the calling thread there, for good.
    fn enter(self) -> Result<()> {
        match self {
            Self::Lab => netns::enter(),
            Self::Machine => Ok(()),
        }
    }

    /// Runs one piece of work there.
    fn ask<T: Send>(self, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let work = || runtime()?.block_on(work);
        match self {
            Self::Lab => netns::within(work)?,
            Self::Machine => work(),
        }
    }
}

async fn prepare(server: &Server) -> Result<()> {
    let create =
        async { server.connect().await?.client.batch_execute(TABLE).await.map_err(|error| server.failed(&error)) };
    server.deadline(STATEMENT, create).await
}

/// Runs all clients until they are told to stop.
async fn drive(settings: &Settings, run: &str, recorder: &Arc<Recorder>, stop: &watch::Receiver<bool>) {
    let keys = Arc::new(Keys::new());
    let mut clients = JoinSet::new();
    for number in 0..settings.writers {
        let client = client::Client::new(number, settings.clone(), run.to_owned(), &keys, recorder);
        clients.spawn(client.work(stop.clone()));
    }
    clients.join_all().await;
}

/// The lists of this run. A cluster just after a failover may need a moment before it can be asked.
async fn read_back(server: &Server, run: &str) -> Result<Lists> {
    let started = Instant::now();
    let ask = async || {
        let connected = server.connect().await?;
        let rows = connected.client.query(LISTS, &[&run]).await.map_err(|error| server.failed(&error))?;
        let list = |row: &tokio_postgres::Row| Ok((row.try_get(0)?, row.try_get(1)?));
        rows.iter().map(list).collect::<Result<_, _>>().map_err(|error| server.failed(&error))
    };
    loop {
        match server.deadline(COUNT, ask()).await {
            Ok(lists) => return Ok(lists),
            Err(error) if started.elapsed() > COUNT => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
