//! `pgha-guard`, the dead-man's switch: a process of its own that kills Postgres when the lease is over.
//!
//! It depends on nothing but the lease file and the clock. An agent that hangs, crashes or is stopped leaves Postgres
//! running only until the lease ends; this is what ends it. It decides nothing: it compares two numbers.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use pgha_core::config::Config;
use pgha_core::time::{Instant, Millis};
use pgha_guard::lease_file::{LeaseFile, Record};
use pgha_guard::postmaster::Postmaster;
use pgha_guard::{clock, heartbeat, program};

/// Kills PostgreSQL when its lease is over and the agent has not.
///
/// Runs as the system service pgha-guard, beside pgha-agent, whose configuration it reads.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// Configuration file of the agent.
    #[arg(long, default_value = "/etc/pgha/agent.toml")]
    config: PathBuf,
}

/// How often where a Postgres may appear that nobody has told of: a start that was ordered in time may come late.
const ALERT: Millis = Millis(100);

/// How often where there has been no lease for [`LATE`], and what runs is marked as a standby.
const QUIET: Millis = Millis(500);

/// No order that was given under a lease is carried out so long after it.
const LATE: Millis = Millis(60_000);

/// What the lease file says.
enum Verdict {
    NoLease,
    /// Until then at least; of the Postgres that the agent knows, if it runs.
    Holds(Instant, bool),
    Over(String),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    program::with_config(&cli.config, |config| watch(&config))
}

/// Watches until the process is ended.
fn watch(config: &Config) -> anyhow::Result<()> {
    program::log(&[]);
    program::lock_memory();
    let lease_file = LeaseFile::in_dir(&config.run_dir);
    let patience = Duration::from_millis(config.timing().stop_budget.0 / 2);
    let data_dir = &config.postgres.data_dir;
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!(lease_file = %config.run_dir.display(), "guarding the lease");
    let mut beat = Instant(0);
    // One may have ended just before.
    let mut leased = clock::now();
    loop {
        let now = clock::now();
        let judged = lease_file.read();
        let verdict = judge(&judged, now);
        if !matches!(verdict, Verdict::NoLease) {
            leased = now;
        }
        let next = match verdict {
            Verdict::Holds(end, true) => end.min(now + heartbeat::INTERVAL),
            Verdict::Holds(end, false) => end.min(now + ALERT),
            // What is marked as a standby accepts no writes; it is asked first, as it nearly always is.
            Verdict::NoLease => {
                let standby = data_dir.join("standby.signal").exists();
                if let Some(postmaster) = (!standby).then(|| Postmaster::find(data_dir)).flatten() {
                    tracing::error!("killing Postgres: it accepts writes and there is no lease");
                    postmaster.kill_for_certain(patience);
                }
                now + if standby && now.since(leased) > LATE { QUIET } else { ALERT }
            }
            Verdict::Over(why) => {
                let recorded = judged.as_ref().ok().and_then(|record| record.as_ref()?.postmaster);
                // The one on record first: to look for another takes a disk that may hang.
                let found = std::iter::once_with(|| Postmaster::find(data_dir)).flatten();
                for postmaster in recorded.into_iter().chain(found) {
                    if postmaster.is_alive() {
                        tracing::error!(%why, "killing Postgres");
                        postmaster.kill_for_certain(patience);
                    }
                }
                // Not one that was written meanwhile.
                if lease_file.read().ok() == judged.ok() {
                    lease_file.forget()?;
                }
                now + ALERT
            }
        };
        // A look that hangs is none.
        if now.since(beat) >= heartbeat::INTERVAL {
            if let Err(error) = heartbeat::give(&config.run_dir, now) {
                tracing::error!(%error, "cannot tell the agent that the lease is guarded; guarding it all the same");
            }
            beat = now;
        }
        clock::sleep_until(next);
    }
}

fn judge(file: &io::Result<Option<Record>>, now: Instant) -> Verdict {
    match file {
        Ok(None) => Verdict::NoLease,
        Ok(Some(record)) if record.is_of_another_boot(now) => {
            Verdict::Over("the lease is of a time before this host was started".to_owned())
        }
        Ok(Some(record)) if now < record.fence_at => {
            Verdict::Holds(record.fence_at, record.postmaster.is_some_and(Postmaster::is_alive))
        }
        Ok(Some(record)) => Verdict::Over(format!("the lease of epoch {} was not renewed in time", record.lease.epoch)),
        Err(error) => Verdict::Over(format!("the lease file cannot be read: {error}")),
    }
}
