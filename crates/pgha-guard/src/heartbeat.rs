//! The guard's sign of life, for the agent: no promotion without a guard.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

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
    Some((Instant(beat.parse().ok()?), pid.parse().ok()?))
}

/// Whether a guard has looked at the lease lately.
pub fn is_alive(run_dir: &Path, now: Instant) -> bool {
    last(run_dir).is_some_and(|(beat, _)| now.since(beat) < SILENCE)
}

/// Starts a guard that outlives this process, however it ends. Its program is beside this one.
pub fn spawn(config: &Path) -> io::Result<()> {
    use std::os::unix::process::CommandExt;
    let mut child = Command::new(std::env::current_exe()?.with_file_name("pgha-guard"))
        .arg("--config")
        .arg(config)
        .stdin(std::process::Stdio::null())
        .process_group(0)
        .spawn()?;
    std::thread::spawn(move || child.wait());
    Ok(())
}

/// Ends the guard after a clean shutdown: there is no Postgres left to kill.
pub fn end(run_dir: &Path) {
    if let Some((_, pid)) = last(run_dir).filter(|(beat, _)| clock::now().since(*beat) < SILENCE) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
    }
}
