//! Clients that write without pause while hosts fail, and the count of what they were promised.

mod clients;
mod ledger;
mod writer;

pub mod append;
pub mod load;
pub mod probe;

use std::{
    collections::HashSet,
    fmt,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use self::{clients::Clients, ledger::Ledger};
use crate::{
    Error, Result, netns,
    sql::{Server, runtime},
};

/// How long the final count waits for a server that can be asked.
const COUNT: Duration = Duration::from_mins(1);
/// For statements around the workload itself.
const STATEMENT: Duration = Duration::from_secs(10);

/// How the clients behave.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The balancer's read-write port.
    pub server: Server,
    /// How many clients write at once.
    pub writers: u32,
    /// A client gives up connecting after this time.
    pub connect_timeout: Duration,
    /// A client gives up waiting for a commit after this time.
    pub statement_timeout: Duration,
    /// Between two attempts to connect.
    pub retry_pause: Duration,
}

impl Settings {
    /// Four clients with the patience of usual applications.
    pub fn new(server: Server) -> Self {
        Self {
            server,
            writers: 4,
            connect_timeout: Duration::from_secs(2),
            statement_timeout: Duration::from_secs(3),
            retry_pause: Duration::from_millis(50),
        }
    }
}

/// What the clients saw, and what the table held at the end.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Report {
    /// Rows whose commit was acknowledged.
    pub acknowledged: usize,
    /// Acknowledged rows that the table does not hold. Anything but 0 is a broken promise.
    pub lost: usize,
    /// Rows sent whose fate the client never learned.
    pub in_doubt: usize,
    /// Those of them that the table holds.
    pub in_doubt_kept: usize,
    /// Attempts certainly without effect: no connection, or refused by the server.
    pub refused: usize,
    /// Rows that the table holds although the client was told no. Anything but 0 is a broken promise, too.
    pub refused_kept: usize,
    /// The longest time between two acknowledged commits, in seconds.
    pub longest_gap: f64,
    /// When that gap began, in seconds from the start.
    pub longest_gap_at: f64,
    /// When the first attempt failed, in seconds from the start, and why.
    pub first_error: Option<(f64, String)>,
    /// How long the clients wrote, in seconds.
    pub seconds: f64,
}

impl Report {
    /// Whether every promise was kept.
    pub fn holds(&self) -> bool {
        self.lost == 0 && self.refused_kept == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "acknowledged rows   {} in {:.1} s", self.acknowledged, self.seconds)?;
        writeln!(f, "  lost              {}", self.lost)?;
        writeln!(f, "in doubt            {}, of which {} are in the table", self.in_doubt, self.in_doubt_kept)?;
        writeln!(f, "refused attempts    {}, of which {} are in the table", self.refused, self.refused_kept)?;
        write!(f, "longest write gap   {:.2} s, {:.1} s after the start", self.longest_gap, self.longest_gap_at)?;
        if let Some((when, why)) = &self.first_error {
            write!(f, "\nfirst error         {when:.1} s after the start: {why}")?;
        }
        Ok(())
    }
}

/// Running clients. Dropping it stops them without a count.
#[derive(Debug)]
pub struct Workload {
    settings: Settings,
    run: String,
    ledger: Arc<Ledger>,
    clients: Clients,
}

impl Workload {
    /// Prepares the table and lets the clients write.
    pub fn start(settings: Settings) -> Result<Self> {
        settings.server.query(
            "set client_min_messages = warning; create table if not exists pgha_workload (run text, writer int, seq bigint, \
             written timestamptz not null default clock_timestamp(), primary key (run, writer, seq))",
            STATEMENT,
        )?;
        let run = format!("{:x}", nanoseconds());
        let ledger = Arc::new(Ledger::new());
        let clients = Clients::start("workload", {
            let (settings, run, ledger) = (settings.clone(), run.clone(), Arc::clone(&ledger));
            move |stopped| {
                netns::enter()?;
                runtime()?.block_on(async {
                    let mut writers = JoinSet::new();
                    for number in 0..settings.writers {
                        writers.spawn(writer::write(
                            settings.clone(),
                            run.clone(),
                            number.cast_signed(),
                            Arc::clone(&ledger),
                            stopped.clone(),
                        ));
                    }
                    writers.join_all().await;
                });
                Ok(())
            }
        })?;
        Ok(Self { settings, run, ledger, clients })
    }

    /// How many rows are acknowledged by now.
    pub fn acknowledged(&self) -> usize {
        self.ledger.acknowledged()
    }

    /// The longest gap since the last call (or the start), the present one included; begins a new lap.
    pub fn lap(&self) -> Duration {
        self.ledger.lap()
    }

    /// Waits until `count` more rows are acknowledged.
    pub fn await_more(&self, count: usize, limit: Duration) -> Result<()> {
        let ledger = &self.ledger;
        self.clients.await_more((count, "rows"), limit, || ledger.acknowledged(), || ledger.last_error())
    }

    /// Stops the clients, reads the table back and compares.
    pub fn finish(self) -> Result<Report> {
        self.clients.end()?;
        // To read millions of rows takes a while, in which nobody wants to write.
        let end = Instant::now();
        let rows = read_back(&self.settings.server, &self.run)?;
        Ok(self.ledger.settle(&rows, end))
    }
}

/// A writer's number and the row's number.
type Key = (i32, i64);

/// The rows of this run. A cluster just after a failover may need a moment before it can be asked.
fn read_back(server: &Server, run: &str) -> Result<HashSet<Key>> {
    let started = Instant::now();
    let statement = format!("select writer, seq from pgha_workload where run = '{run}'");
    loop {
        match server.query(&statement, COUNT) {
            Ok(rows) => {
                return rows
                    .iter()
                    .map(|row| match &row[..] {
                        [Some(writer), Some(seq)] => writer.parse().ok().zip(seq.parse().ok()),
                        _ => None,
                    })
                    .collect::<Option<_>>()
                    .ok_or_else(|| Error::Database {
                        what: format!("reading the rows back from {server:?}"),
                        why: "they are not what was written".to_owned(),
                        code: None,
                    });
            }
            Err(error) if started.elapsed() > COUNT => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(200)),
        }
    }
}

fn nanoseconds() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_nanos())
}
