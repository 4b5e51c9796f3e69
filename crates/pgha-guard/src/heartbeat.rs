//! The guard's sign of life, for the agent: no promotion without a guard.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgha_core::time::{Instant, Millis};

use crate::{clock, files};

/// How often the guard gives one.
pub const INTERVAL: Millis = Millis(1000);

/// A guard that was not heard of for this long is taken for dead.
const SILENCE: Millis = Millis(3000);

fn file(run_dir: &Path) -> PathBuf {
    run_dir.join("guard")
}

/// The guard's own: it looked at the lease then.
pub fn give(run_dir: &Path, at: Instant) -> io::Result<()> {
    files::replace(&file(run_dir), format!("{} {}", at.0, std::process::id()).as_bytes())
}

/// When the guard looked last, and its process.
fn last(run_dir: &Path) -> Option<(Instant, i32)> {
    let text = std::fs::read_to_string(file(run_dir)).ok()?;
    let (beat, pid) = text.trim().split_once(' ')?;
    // Zero and less stand for many processes at once (kill(2)).
    let pid = pid.parse().ok().filter(|pid| *pid > 0)?;
    Some((Instant(beat.parse().ok()?), pid))
}

/// Whether a guard runs, and has looked at the lease lately. (A time to come is one of before the host was started.)
pub fn is_alive(run_dir: &Path, now: Instant) -> bool {
    alive(run_dir, now).is_some()
}

fn alive(run_dir: &Path, now: Instant) -> Option<Pid> {
    let (beat, pid) = last(run_dir)?;
    let pid = Pid::from_raw(pid);
    let runs = || kill(pid, None).is_ok();
    (beat <= now && now.since(beat) < SILENCE && runs()).then_some(pid)
}

/// Starts a guard that outlives this process, however it ends. Its program is beside this one.
pub fn spawn(config: &Path) -> io::Result<()> {
    use std::os::unix::process::CommandExt;
    let program = std::env::current_exe()?.with_file_name("pgha-guard");
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", program.display()));
    let mut child = Command::new(&program)
        .arg("--config")
        .arg(config)
        .stdin(std::process::Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(named)?;
    std::thread::spawn(move || child.wait());
    Ok(())
}

/// Ends the guard after a clean shutdown: there is no Postgres left to kill.
pub fn end(run_dir: &Path) {
    if let Some(pid) = alive(run_dir, clock::now()) {
        let _ = kill(pid, Signal::SIGTERM);
        // Who comes next needs one of its own.
        let _ = files::remove(&file(run_dir));
    }
}
