//! The dead-man's switch: a process of its own that kills Postgres when the lease is over.
//!
//! It depends on nothing but the lease file and the clock. An agent that hangs, crashes or is stopped leaves Postgres
//! running only until the lease ends; this is what ends it. It decides nothing: it compares two numbers.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::Duration;

use pgha_core::config::Config;
use pgha_core::time::{Instant, Millis};

use crate::lease_file::LeaseFile;
use crate::postgres::process::Postmaster;
use crate::{clock, files};

/// How often it looks, at least. Every look is a process woken, which costs more than the look.
const INTERVAL: Millis = Millis(250);

/// How often without a lease: a start that was ordered in time may come late.
const UNLEASED: Millis = Millis(100);

/// The agent takes a guard that was not heard of for this long for dead.
const SILENCE: Millis = Millis(1000);

/// What the lease file says.
enum Verdict {
    NoLease,
    /// Until then at least.
    Holds(Instant),
    Over(String),
}

/// Watches until the process is ended.
pub(crate) fn run(config: &Config) -> anyhow::Result<()> {
    // Memory that has to be read from a full disk first is of no use to a guard.
    if let Err(error) = nix::sys::mman::mlockall(nix::sys::mman::MlockAllFlags::all()) {
        tracing::warn!(%error, "cannot lock the guard's memory; it may be late when the machine swaps");
    }
    let lease_file = LeaseFile::in_dir(&config.run_dir);
    let patience = Duration::from_millis(config.timing().stop_budget.0 / 2);
    let data_dir = &config.postgres.data_dir;
    let heartbeat = heartbeat_file(&config.run_dir);
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!(lease_file = %config.run_dir.display(), "guarding the lease");
    let mut beat = Instant(0);
    loop {
        let now = clock::now();
        if now.since(beat) >= INTERVAL {
            files::replace(&heartbeat, format!("{} {}", now.0, std::process::id()).as_bytes())?;
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
        let next = match verdict {
            Verdict::Holds(end) => end.min(now + INTERVAL),
            // What is marked as a standby accepts no writes; it is asked first, as it nearly always is.
            Verdict::NoLease => {
                let standby = data_dir.join("standby.signal").exists();
                if let Some(postmaster) = (!standby).then(|| Postmaster::find(data_dir)).flatten() {
                    tracing::error!("killing Postgres: it accepts writes and there is no lease");
                    postmaster.kill_for_certain(patience);
                }
                now + UNLEASED
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

fn heartbeat_file(run_dir: &Path) -> std::path::PathBuf {
    run_dir.join("guard")
}

/// When the guard looked last, and its process.
fn last_beat(run_dir: &Path) -> Option<(Instant, i32)> {
    let text = std::fs::read_to_string(heartbeat_file(run_dir)).ok()?;
    let (beat, pid) = text.trim().split_once(' ')?;
    Some((Instant(beat.parse().ok()?), pid.parse().ok()?))
}

/// Whether a guard has looked at the lease lately.
pub(crate) fn is_alive(run_dir: &Path, now: Instant) -> bool {
    last_beat(run_dir).is_some_and(|(beat, _)| now.since(beat) < SILENCE)
}

/// Starts a guard that outlives this process, however it ends.
pub(crate) fn spawn(config: &Path) -> std::io::Result<()> {
    let mut child = std::process::Command::new(std::env::current_exe()?)
        .arg("guard")
        .arg("--config")
        .arg(config)
        .stdin(std::process::Stdio::null())
        .process_group(0)
        .spawn()?;
    std::thread::spawn(move || child.wait());
    Ok(())
}

/// Ends the guard after a clean shutdown: there is no Postgres left to kill.
pub(crate) fn end(run_dir: &Path) {
    if let Some((_, pid)) = last_beat(run_dir).filter(|(beat, _)| clock::now().since(*beat) < SILENCE) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
    }
}
