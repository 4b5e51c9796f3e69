//! A control group for each host: the hosts' systemds stay apart, and every process of the lab can be found again.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::{Error, Result, command};

/// A group whose processes have ended is empty within this time.
const EMPTY: Duration = Duration::from_secs(5);
const MOUNT: &str = "/sys/fs/cgroup";
/// Controllers that a host's systemd may use, where the kernel offers them in the unified hierarchy.
const CONTROLLERS: [&str; 4] = ["cpu", "io", "memory", "pids"];

/// The hierarchies in which systemd keeps its units: the unified one alone, or both of a hybrid machine.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let mount = Path::new(MOUNT);
    if mount.join("cgroup.controllers").exists() {
        return Ok(vec![mount.to_owned()]);
    }
    let hybrid: Vec<PathBuf> =
        ["systemd", "unified"].iter().map(|name| mount.join(name)).filter(|dir| dir.is_dir()).collect();
    if hybrid.is_empty() {
        Err(Error::Unsupported(format!("no control groups are mounted at {MOUNT}; systemd hosts need them")))
    } else {
        Ok(hybrid)
    }
}

/// A command that runs in the group (a path such as `/pgha-lab/db1`).
///
/// A shell joins the group before it becomes the program: there is no moment at which the program runs outside of it.
pub(crate) fn command(group: &str, program: &str) -> Result<Command> {
    let joins: Vec<_> = create(group)?.iter().map(|file| format!("echo $$ > {}\n", file.display())).collect();
    let mut shell = Command::new("sh");
    shell.env(command::MARK, "1").args(["-ec", &(joins.concat() + "exec \"$@\""), "sh", program]);
    Ok(shell)
}

/// Makes the group and returns the files that take its processes.
fn create(group: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for hierarchy in hierarchies()? {
        let dir = hierarchy.join(group.trim_start_matches('/'));
        fs::create_dir_all(&dir).map_err(Error::io("creating control group", &dir))?;
        for level in dir.ancestors().skip(1).take_while(|level| level.starts_with(&hierarchy)) {
            offer_controllers(level);
        }
        files.push(dir.join("cgroup.procs"));
    }
    Ok(files)
}

/// Removes the group and those below it; its processes must be gone.
pub(crate) fn remove(group: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        remove_tree(&hierarchy.join(group.trim_start_matches('/')))?;
    }
    Ok(())
}

fn remove_tree(dir: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    let started = Instant::now();
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(source) if source.kind() == ErrorKind::NotFound => return Ok(()),
            // The kernel takes an ended process out of its group only after it has become a zombie.
            Err(source) if source.kind() == ErrorKind::ResourceBusy && started.elapsed() < EMPTY => {
                thread::sleep(Duration::from_millis(5));
            }
            Err(source) => return Err(Error::io("removing control group", dir)(source)),
        }
    }
}

/// Limits inside hosts are a convenience of the machine, not a need of the lab: what it does not offer is left out.
fn offer_controllers(dir: &Path) {
    let file = dir.join("cgroup.subtree_control");
    for controller in CONTROLLERS {
        if let Err(why) = fs::write(&file, format!("+{controller}")) {
            tracing::debug!("controller {controller} is not offered in {}: {why}", dir.display());
        }
    }
}
