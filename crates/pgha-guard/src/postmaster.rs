//! The postmaster as a process: find it, signal it, kill it for certain, and hear of its death.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A postmaster of one data directory: a process by its number and its start, so that a number used again is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Postmaster {
    pid: i32,
    /// Clock ticks since boot.
    started: u64,
}

impl Postmaster {
    /// The postmaster that runs on `data_dir`, if one does.
    ///
    /// `postmaster.pid` alone proves nothing: it survives a power cut, and its number may be another process by now.
    /// A postmaster's working directory is its data directory (`ChangeToDataDir`).
    pub fn find(data_dir: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
        let pid: i32 = text.lines().next()?.trim().parse().ok()?;
        // A stand-alone backend (`postgres --single`, as pg_rewind runs it) writes its number negated.
        let postmaster = Self { pid, started: stat(pid).filter(|_| pid > 0)?.started };
        (postmaster.works_in(data_dir) && !postmaster.is_zombie()).then_some(postmaster)
    }

    /// Whether the postmaster of `data_dir` says that it takes no connections yet: each attempt would cost it a process and
    /// leave a FATAL line in its log.
    ///
    /// It says so in the eighth line of `postmaster.pid` (`LOCK_FILE_LINE_PM_STATUS` in `utils/pidfile.h`), of which `pg_ctl`
    /// makes the same use, and once only: while it recovers from the crash of a backend the line stays `ready`.
    pub fn says_starting(data_dir: &Path) -> bool {
        let text = std::fs::read_to_string(data_dir.join("postmaster.pid"));
        text.is_ok_and(|text| text.lines().nth(7).is_some_and(|status| status.trim() == "starting"))
    }

    /// Removes a `postmaster.pid` that a power cut has left, where nothing works in `data_dir`, and says whether it did.
    ///
    /// Postgres removes it by itself, unless some process of its user has the number by now (`CreateLockFile`): after a boot
    /// that may be the guard or a thread of the agent, and Postgres would refuse to start for as long as that lives. All
    /// processes of Postgres work in the data directory, those included whose postmaster is gone.
    pub fn forget_dead(data_dir: &Path) -> io::Result<bool> {
        let file = data_dir.join("postmaster.pid");
        if !file.exists() {
            return Ok(false);
        }
        let data_dir = std::fs::canonicalize(data_dir)?;
        for entry in std::fs::read_dir("/proc")? {
            let process = entry?.path();
            // Those of others cannot be asked, and are no Postgres of ours.
            if std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == data_dir) {
                return Ok(false);
            }
        }
        std::fs::remove_file(file)?;
        Ok(true)
    }

    /// The segment of WAL that recovery waits for, as its process title says (`update_process_title`); `None` while it replays
    /// one, which may take its time, or receives it.
    pub fn awaited_segment(self) -> Option<String> {
        let title = |child: Self| std::fs::read_to_string(child.proc("cmdline")).ok();
        let titles: Vec<String> = self.children().into_iter().filter_map(title).collect();
        if titles.iter().any(|title| title.contains(" walreceiver ")) {
            return None;
        }
        let segment = titles.iter().find_map(|title| Some(title.split_once(" startup waiting for ")?.1));
        segment.map(|segment| segment.trim_end_matches('\0').trim_end().to_owned())
    }

    fn proc(self, entry: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{entry}", self.pid))
    }

    fn works_in(self, data_dir: &Path) -> bool {
        let real = |path: &Path| std::fs::canonicalize(path).ok();
        match (std::fs::read_link(self.proc("cwd")), real(data_dir)) {
            (Ok(cwd), Some(data_dir)) => cwd == data_dir,
            _ => false,
        }
    }

    /// Gone, buried or not.
    fn is_zombie(self) -> bool {
        stat(self.pid).is_none_or(|stat| stat.started != self.started || matches!(stat.state, 'Z' | 'X'))
    }

    /// Whether it still runs.
    pub fn is_alive(self) -> bool {
        !self.is_zombie()
    }

    /// Its death, to be waited for.
    pub fn death(self) -> io::Result<Death> {
        let pid = rustix::process::Pid::from_raw(self.pid)
            .ok_or_else(|| io::Error::from_raw_os_error(Errno::ESRCH as i32))?;
        Ok(Death(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?))
    }

    /// Makes it read its configuration again.
    pub fn reload(self) -> io::Result<()> {
        Ok(kill(Pid::from_raw(self.pid), Signal::SIGHUP)?)
    }

    /// Begins a clean shutdown that does not wait for clients ("fast").
    pub fn stop_fast(self) -> io::Result<()> {
        Ok(kill(Pid::from_raw(self.pid), Signal::SIGINT)?)
    }

    /// Stops it without shutdown checkpoint, and for certain: SIGQUIT, then SIGKILL to it and its children.
    ///
    /// Returns once no process is left, at the latest after twice `patience`, and says whether none is: one that waits for
    /// a disk that hangs cannot die, though it cannot answer a client any more either. Needs nobody's help: no D-Bus, no
    /// systemd, no lock.
    pub fn kill_for_certain(self, patience: Duration) -> bool {
        let begun = Instant::now();
        let children = self.children();
        let _ = kill(Pid::from_raw(self.pid), Signal::SIGQUIT);
        // A stopped process takes no SIGQUIT before it is continued.
        let _ = kill(Pid::from_raw(self.pid), Signal::SIGCONT);
        let gone = |until: Duration| {
            loop {
                if !self.is_alive() && children.iter().all(|child| !child.is_alive()) {
                    return true;
                }
                if begun.elapsed() >= until {
                    return false;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        if gone(patience) {
            return true;
        }
        // The postmaster first: it would start new children. Once it is gone its number may be another's.
        let mut younger = Vec::new();
        if self.is_alive() {
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
            younger = self.children();
        }
        for child in children.iter().copied().chain(younger) {
            if child.is_alive() {
                let _ = kill(Pid::from_raw(child.pid), Signal::SIGKILL);
            }
        }
        gone(2 * patience)
    }

    /// Its direct children; Postgres has no others.
    fn children(self) -> Vec<Self> {
        let Ok(processes) = std::fs::read_dir("/proc") else {
            return Vec::new();
        };
        processes
            .filter_map(|entry| {
                let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
                let stat = stat(pid).filter(|stat| stat.parent == self.pid)?;
                Some(Self { pid, started: stat.started })
            })
            .collect()
    }
}

/// The end of a process; see [`Postmaster::death`].
#[derive(Debug)]
pub struct Death(OwnedFd);

impl Death {
    /// Returns when it comes, or has come: the kernel wakes who waits at once.
    pub fn wait(self) {
        let mut fds = [rustix::event::PollFd::new(&self.0, rustix::event::PollFlags::IN)];
        while rustix::event::poll(&mut fds, None) == Err(rustix::io::Errno::INTR) {}
    }
}

/// What `/proc/PID/stat` says.
struct Stat {
    state: char,
    parent: i32,
    started: u64,
}

/// Reads `/proc/PID/stat` (`proc(5)`). The name in brackets may hold anything.
fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_ascii_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_power_cut_left_is_no_postmaster() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!Postmaster::forget_dead(dir.path()).unwrap());
        let file = dir.path().join("postmaster.pid");
        // The number is taken, by a process that is no Postgres.
        std::fs::write(&file, format!("{}\n{}\n", std::process::id(), dir.path().display())).unwrap();
        assert_eq!(Postmaster::find(dir.path()), None);
        let mut backend = std::process::Command::new("sleep").arg("60").current_dir(dir.path()).spawn().unwrap();
        assert!(!Postmaster::forget_dead(dir.path()).unwrap());
        assert!(file.exists());
        backend.kill().unwrap();
        backend.wait().unwrap();
        assert!(Postmaster::forget_dead(dir.path()).unwrap());
        assert!(!file.exists());
    }
}
