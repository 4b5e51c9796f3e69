//! Processes inside a virtual machine: its kernel is not ours, so a script in the guest finds and signals them.

use std::{collections::BTreeMap, fmt::Write as _};

use nix::sys::signal::Signal;

use crate::process::Process;

/// The control group of the guest's process 1.
const INIT: &str = "/sys/fs/cgroup/init.scope";

/// A script that lists all processes, after it has signalled some.
pub(crate) fn script(signal: Option<Signal>, to: &[Process]) -> String {
    let mut script = String::new();
    if let Some(signal) = signal {
        let pids: String = to.iter().map(|process| format!(" {}", process.pid)).collect();
        script += &format!("kill -s {signal}{pids} 2>/dev/null\n");
        // No signal stops process 1 of a kernel; the freezer of its control group does.
        let freeze = match signal {
            Signal::SIGSTOP => Some(1),
            Signal::SIGCONT => Some(0),
            _ => None,
        };
        if let Some(freeze) = freeze
            && to.iter().any(|process| process.pid == 1)
        {
            script += &format!("echo {freeze} > {INIT}/cgroup.freeze\n");
        }
    }
    script
        + &format!(
            "echo self:$$\n\
             grep -sE '^(Name|State|PPid|NSpid):|^[0-9]+:|^frozen 1' \
             /proc/[0-9]*/status /proc/[0-9]*/cgroup {INIT}/cgroup.events\n\
             true"
        )
}

/// Reads the script's answer: the guest's processes without those that asked.
pub(crate) fn parse(answer: &str) -> Vec<Process> {
    let mut asker = None;
    let mut frozen = false;
    let mut texts: BTreeMap<i32, (String, String)> = BTreeMap::new();
    for (from, line) in answer.lines().filter_map(|line| line.split_once(':')) {
        if from == "self" {
            asker = line.parse().ok();
            continue;
        }
        let mut parts = from.trim_start_matches("/proc/").split('/');
        let (Some(Ok(pid)), Some(kind)) = (parts.next().map(str::parse), parts.next()) else {
            frozen |= from.starts_with(INIT);
            continue;
        };
        let (status, cgroups) = texts.entry(pid).or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(if kind == "status" { status } else { cgroups }, "{line}");
    }
    let mut found: Vec<Process> = texts
        .into_iter()
        .filter_map(|(pid, (status, cgroups))| Process::parse(pid, &status, cgroups))
        .filter(Process::lives)
        .collect();
    if let Some(init) = found.iter_mut().find(|process| process.pid == 1 && frozen) {
        init.state = 'T';
    }
    let session = session(&found, asker);
    found.retain(|process| !session.contains(&process.pid) && Some(process.parent) != asker);
    found
}

/// The asker and its ancestors, as far as they belong to its login alone.
fn session(all: &[Process], asker: Option<i32>) -> Vec<i32> {
    let find = |pid| all.iter().find(|process| process.pid == pid);
    let mut session = Vec::new();
    let mut next = asker.and_then(find);
    while let Some(process) = next.filter(|process| process.parent > 1) {
        session.push(process.pid);
        next = find(process.parent);
    }
    session
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "self:40\n\
        /proc/1/status:Name:\tsystemd\n/proc/1/status:State:\tS (sleeping)\n/proc/1/status:PPid:\t0\n\
        /proc/1/status:NSpid:\t1\n\
        /proc/20/status:Name:\tsshd\n/proc/20/status:State:\tS (sleeping)\n/proc/20/status:PPid:\t1\n\
        /proc/20/status:NSpid:\t20\n\
        /proc/30/status:Name:\tsshd\n/proc/30/status:State:\tS (sleeping)\n/proc/30/status:PPid:\t20\n\
        /proc/30/status:NSpid:\t30\n\
        /proc/40/status:Name:\tbash\n/proc/40/status:State:\tS (sleeping)\n/proc/40/status:PPid:\t30\n\
        /proc/40/status:NSpid:\t40\n\
        /proc/41/status:Name:\tgrep\n/proc/41/status:State:\tR (running)\n/proc/41/status:PPid:\t40\n\
        /proc/41/status:NSpid:\t41\n\
        /proc/1/cgroup:0::/init.scope\n/proc/20/cgroup:0::/system.slice/ssh.service\n\
        /proc/30/cgroup:0::/system.slice/ssh.service\n/proc/40/cgroup:0::/system.slice/ssh.service\n\
        /proc/41/cgroup:0::/system.slice/ssh.service\n";

    #[test]
    fn those_who_ask_are_not_listed() {
        let found = parse(ANSWER);
        assert_eq!(found.iter().map(|process| process.pid).collect::<Vec<_>>(), [1, 20]);
        assert!(found[1].in_unit("ssh.service") && found[1].name == "sshd" && found[0].state == 'S');
    }

    #[test]
    fn a_frozen_process_1_counts_as_stopped() {
        let found = parse(&format!("{ANSWER}{INIT}/cgroup.events:frozen 1\n"));
        assert_eq!(found[0].state, 'T');
    }

    #[test]
    fn process_1_is_stopped_by_its_group() {
        let init = parse(ANSWER);
        assert!(script(Some(Signal::SIGSTOP), &init).contains(&format!("echo 1 > {INIT}/cgroup.freeze")));
        assert!(script(Some(Signal::SIGCONT), &init).contains(&format!("echo 0 > {INIT}/cgroup.freeze")));
        assert!(!script(Some(Signal::SIGSTOP), &init[1..]).contains("freeze"));
        assert!(!script(None, &[]).contains("kill"));
    }
}
