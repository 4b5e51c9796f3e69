//! More load than the machine can bear, beside the clients that count: pgbench through the balancer, started anew
//! whenever it ends.

use std::{
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::clients::{Clients, told_to_stop};
use crate::{Error, Result, command, netns, sql::Server};

/// The Debian package that this machine must have.
pub const PACKAGE: &str = "postgresql-15";
const PROGRAM: &str = "/usr/lib/postgresql/15/bin/pgbench";
/// How many times pgbench's hundred thousand accounts.
const SCALE: u32 = 5;
/// Clients for each processor. Few of them write at any moment: they wait for the standby.
const CLIENTS: usize = 8;
/// Leaves connections to others.
const MOST: usize = 96;
/// A client that loses its connection is out until the next run, so that runs are short.
const RUN: Duration = Duration::from_secs(15);
/// One that hangs for longer after its end is killed: clients whose server is gone may wait for it for ever.
const GRACE: Duration = Duration::from_secs(10);
/// Between two looks at a run.
const LOOK: Duration = Duration::from_millis(100);
/// Between two runs: without a primary they end at once.
const PAUSE: Duration = Duration::from_millis(500);

/// What the load came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// How many clients worked at once.
    pub clients: usize,
    /// Transactions of the runs that ended by themselves.
    pub transactions: u64,
    /// How often it was started.
    pub runs: u64,
    /// How often it ended with an error: a client had lost its connection, or found no server.
    pub broken: u64,
}

/// Running load. Dropping it tells it to stop, and does not wait.
#[derive(Debug)]
pub struct Load {
    report: Arc<Mutex<Report>>,
    clients: Clients,
}

impl Load {
    /// Makes pgbench's tables through `server`, and begins.
    pub fn start(server: &Server) -> Result<Self> {
        let mut make = pgbench(server, &["--initialize", "--quiet", &format!("--scale={SCALE}")]);
        netns::within(|| command::run(&mut make))??;
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let clients = (CLIENTS * processors).min(MOST);
        let report = Arc::new(Mutex::new(Report { clients, ..Report::default() }));
        let clients = Clients::start("load", {
            let (server, report) = (server.clone(), Arc::clone(&report));
            move |stopped| work(&server, clients, &report, stopped)
        })?;
        Ok(Self { report, clients })
    }

    /// Stops it.
    pub fn finish(self) -> Result<Report> {
        self.clients.end()?;
        let report = *lock(&self.report);
        Ok(report)
    }
}

/// Runs it again and again. What it starts is inside the lab's network as this thread is.
fn work(server: &Server, clients: usize, report: &Mutex<Report>, mut stop: watch::Receiver<bool>) -> Result<()> {
    netns::enter()?;
    let failed = |source| Error::Io { what: "running pgbench".to_owned(), source };
    let arguments = [
        "--no-vacuum".to_owned(),
        format!("--client={clients}"),
        format!("--time={}", RUN.as_secs()),
        // Readers use up the processors, writers the disks and the network.
        "--builtin=select-only".to_owned(),
        "--builtin=tpcb-like".to_owned(),
    ];
    let arguments = arguments.each_ref().map(String::as_str);
    while !told_to_stop(&mut stop) {
        let mut run = pgbench(server, &arguments);
        // Every client that is lost would be told of on standard error.
        let run = run.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(failed)?;
        let output = await_end(run, &mut stop).map_err(failed)?;
        let mut report = lock(report);
        report.runs += 1;
        report.broken += u64::from(!output.status.success());
        report.transactions += transactions(&String::from_utf8_lossy(&output.stdout));
        drop(report);
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// Waits for the end of a run, or brings it about.
fn await_end(mut run: Child, stop: &mut watch::Receiver<bool>) -> std::io::Result<std::process::Output> {
    let started = Instant::now();
    while run.try_wait()?.is_none() {
        if started.elapsed() > RUN + GRACE || told_to_stop(stop) {
            run.kill()?;
            break;
        }
        thread::sleep(LOOK);
    }
    run.wait_with_output()
}

fn pgbench(server: &Server, arguments: &[&str]) -> Command {
    let Server { address, user, password, database } = server;
    let mut pgbench = Command::new(PROGRAM);
    pgbench.args(arguments).current_dir("/").env(command::MARK, "1").env("PGPASSWORD", password).arg(format!(
        "host={} port={} user={user} dbname={database} connect_timeout=5 tcp_user_timeout=10000",
        address.ip(),
        address.port()
    ));
    pgbench
}

/// What pgbench says at the end of a run.
fn transactions(told: &str) -> u64 {
    let count = |line: &str| line.strip_prefix("number of transactions actually processed: ")?.trim().parse().ok();
    told.lines().find_map(count).unwrap_or(0)
}

/// No holder of the lock can leave the report half written.
fn lock(report: &Mutex<Report>) -> MutexGuard<'_, Report> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_are_read_from_what_pgbench_says() {
        let told = "pgbench (15.5)\ntransaction type: multiple scripts\n\
                    number of transactions actually processed: 1234\nlatency average = 1 ms\n\
                    SQL script 1: <builtin: TPC-B (sort of)>\n";
        assert_eq!((transactions(told), transactions("pgbench: error\n")), (1234, 0));
    }
}
