//! Processes as /proc shows them: whose they are, and how to end them.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{Error, Result};

/// One process of this machine, inside or outside of hosts.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) name: String,
    pub(crate) state: char,
    /// Its number in each PID namespace from ours inwards.
    inner: Vec<i32>,
    /// Its control groups, one line for each hierarchy.
    cgroups: String,
}

impl Process {
    /// Reads one process; `None` when it is gone.
    pub(crate) fn read(pid: i32) -> Option<Self> {
        let dir = Path::new("/proc").join(pid.to_string());
        let status = fs::read_to_string(dir.join("status")).ok()?;
        let cgroups = fs::read_to_string(dir.join("cgroup")).ok()?;
        Self::parse(pid, &status, cgroups)
    }

    /// Reads the texts of its `status` and `cgroup`.
    pub(crate) fn parse(pid: i32, status: &str, cgroups: String) -> Option<Self> {
        let field =
            |key: &str| status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':').map(str::trim));
        Some(Self {
            pid,
            parent: field("PPid")?.parse().ok()?,
            name: field("Name")?.to_owned(),
            state: field("State")?.chars().next()?,
            inner: field("NSpid")?.split_whitespace().filter_map(|n| n.parse().ok()).collect(),
            cgroups,
        })
    }

    /// Whether it still runs (a zombie does not).
    pub(crate) fn lives(&self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }

    /// Whether it is process 1 of a PID namespace directly below ours.
    pub(crate) fn is_init(&self) -> bool {
        matches!(self.inner[..], [_, 1])
    }

    /// Whether one of its control groups is `group` or below it; `group` is a path such as `/pgha-lab/db1`.
    pub(crate) fn in_cgroup(&self, group: &str) -> bool {
        self.cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).any(|path| {
            path.match_indices(group).any(|(at, _)| matches!(path.as_bytes().get(at + group.len()), None | Some(b'/')))
        })
    }

    /// Whether the last parts of one of its control groups name the systemd unit.
    pub(crate) fn in_unit(&self, unit: &str) -> bool {
        self.cgroups
            .lines()
            .filter_map(|line| line.splitn(3, ':').nth(2))
            .any(|path| path.split('/').any(|part| part == unit))
    }

    /// The command line, words parted by blanks.
    pub(crate) fn command_line(&self) -> String {
        fs::read(format!("/proc/{}/cmdline", self.pid))
            .map(|bytes| String::from_utf8_lossy(&bytes).trim_end_matches('\0').replace('\0', " "))
            .unwrap_or_default()
    }

    /// Whether its environment has the variable.
    pub(crate) fn has_variable(&self, name: &str) -> bool {
        fs::read(format!("/proc/{}/environ", self.pid)).is_ok_and(|bytes| {
            bytes
                .split(|byte| *byte == 0)
                .any(|line| line.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'=')))
        })
    }

    /// The inode of one of its namespaces (`pid`, `net`); `None` when it is gone.
    pub(crate) fn namespace(&self, kind: &str) -> Option<u64> {
        namespace_inode(Path::new(&format!("/proc/{}/ns/{kind}", self.pid)))
    }
}

/// The identity of a namespace by its file.
pub(crate) fn namespace_inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|meta| meta.ino())
}

/// Every living process that `wanted` accepts.
pub(crate) fn find(wanted: impl Fn(&Process) -> bool) -> Result<Vec<Process>> {
    let entries = fs::read_dir("/proc").map_err(Error::io("reading", Path::new("/proc")))?;
    Ok(entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(Process::read)
        .filter(|process| process.lives() && wanted(process))
        .collect())
}

/// Sends a signal; a process that is already gone is not an error.
pub(crate) fn signal(pid: i32, signal: Signal) -> Result<()> {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(nix::Error::ESRCH) => Ok(()),
        Err(source) => Err(Error::errno(format!("sending {signal} to process {pid}"))(source)),
    }
}

/// Kills what `wanted` accepts, again for what it forks meanwhile, until nothing is left.
pub(crate) fn end(what: &str, limit: Duration, wanted: impl Fn(&Process) -> bool) -> Result<()> {
    let started = Instant::now();
    loop {
        let mut left = find(&wanted)?;
        if left.is_empty() {
            return Ok(());
        }
        if started.elapsed() > limit {
            let hint = left.iter().map(|p| format!("  {} {} (state {})", p.pid, p.command_line(), p.state));
            return Err(Error::Timeout {
                what: format!("the end of {what}"),
                waited: limit,
                hint: hint.collect::<Vec<_>>().join("\n"),
            });
        }
        // A host's own process 1 first: with it the kernel ends everything inside at once.
        left.sort_by_key(|process| !process.is_init());
        for process in &left {
            signal(process.pid, Signal::SIGKILL)?;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// This process and its ancestors: never to be ended by a clean-up that they asked for.
pub(crate) fn own_line() -> Vec<i32> {
    let mut line = Vec::new();
    let mut next = Process::read(std::process::id().cast_signed());
    while let Some(process) = next {
        line.push(process.pid);
        next = Process::read(process.parent);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(nspid: &str, cgroups: &str) -> Process {
        let status = format!("Name:\tsystemd\nState:\tS (sleeping)\nPPid:\t7\nNSpid:\t{nspid}\n");
        Process::parse(42, &status, cgroups.to_owned()).expect("a complete status")
    }

    #[test]
    fn init_of_a_host_is_one_level_down() {
        assert!(process("42\t1", "0::/").is_init());
        assert!(!process("42", "0::/").is_init());
        assert!(!process("1", "0::/").is_init());
        assert!(!process("42\t9\t1", "0::/").is_init());
    }

    #[test]
    fn groups_match_whole_names_only() {
        let one = process("42\t1", "3:cpu:/\n1:name=systemd:/pgha-lab/db1/payload/system.slice/ssh.service\n0::/\n");
        assert!(one.in_cgroup("/pgha-lab/db1") && one.in_cgroup("/pgha-lab"));
        assert!(!one.in_cgroup("/pgha-lab/db") && !one.in_cgroup("/pgha-lab/db12"));
        assert!(one.in_unit("ssh.service") && !one.in_unit("ssh"));
        assert!(process("42", "0::/pgha-lab/db1").in_cgroup("/pgha-lab/db1"));
    }

    #[test]
    fn own_line_begins_here_and_ends_at_the_top() {
        let line = own_line();
        assert_eq!(line.first().copied(), Some(std::process::id().cast_signed()));
        assert!(line.len() > 1);
    }
}
