//! `pgha-guard`, the dead-man's switch: a process of its own that kills Postgres when the lease is over.
//!
//! It depends on nothing but the lease file and the clock. An agent that hangs, crashes or is stopped leaves Postgres
//! running only until the lease ends; this is what ends it. It decides nothing: it compares two numbers.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use pgha_core::config::Config;
use pgha_core::time::{Instant, Millis};
use pgha_guard::lease_file::LeaseFile;
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

/// How often without a lease: a start that was ordered in time may come late.
const UNLEASED: Millis = Millis(100);

/// How often once there has been none for [`LATE`], and where what runs is marked as a standby.
const QUIET: Millis = Millis(500);

/// No order that was given under a lease is carried out so long after it.
const LATE: Millis = Millis(60_000);

/// What the lease file says.
enum Verdict {
    NoLease,
    /// Until then at least.
    Holds(Instant),
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
        if now.since(beat) >= heartbeat::INTERVAL {
            if let Err(error) = heartbeat::give(&config.run_dir, now) {
                tracing::error!(%error, "cannot tell the agent that the lease is guarded; guarding it all the same");
            }
            beat = now;
        }
        let judged = lease_file.read();
        let verdict = match &judged {
            Ok(None) => Verdict::NoLease,
            Ok(Some(record)) if now < record.fence_at => Verdict::Holds(record.fence_at),
            Ok(Some(record)) => {
                Verdict::Over(format!("the lease of epoch {} was not renewed in time", record.lease.epoch))
            }
            Err(error) => Verdict::Over(format!("the lease file cannot be read: {error}")),
        };
        if !matches!(verdict, Verdict::NoLease) {
            leased = now;
        }
        let next = match verdict {
            Verdict::Holds(end) => end.min(now + heartbeat::INTERVAL),
            // What is marked as a standby accepts no writes; it is asked first, as it nearly always is.
            Verdict::NoLease => {
                let standby = data_dir.join("standby.signal").exists();
                if let Some(postmaster) = (!standby).then(|| Postmaster::find(data_dir)).flatten() {
                    tracing::error!("killing Postgres: it accepts writes and there is no lease");
                    postmaster.kill_for_certain(patience);
                }
                now + if standby && now.since(leased) > LATE { QUIET } else { UNLEASED }
            }
            Verdict::Over(why) => {
                let recorded = judged.as_ref().ok().and_then(|record| record.as_ref()?.postmaster);
                for postmaster in Postmaster::find(data_dir).into_iter().chain(recorded) {
                    if postmaster.is_alive() {
                        tracing::error!(%why, "killing Postgres");
                        postmaster.kill_for_certain(patience);
                    }
                }
                // Not one that was written meanwhile.
                if lease_file.read().ok() == judged.ok() {
                    lease_file.forget()?;
                }
                now + UNLEASED
            }
        };
        clock::sleep_until(next);
    }
}
