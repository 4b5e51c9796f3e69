//! A host's power, whatever kind it is: on, off, and the certainty that it is gone.

use std::{
    fs::{self, File, OpenOptions},
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    Error, Image, Kind, Node, Result, cgroup, command, machine, mount, net, nspawn,
    process::{self, Process},
};

/// The control group above those of all hosts.
pub(crate) const GROUP: &str = "/pgha-lab";
/// A killed host is gone at once, unless its disk makes a process wait.
const END: Duration = Duration::from_secs(30);

/// The host's control group.
pub(crate) fn group(node: &Node) -> String {
    format!("{GROUP}/{}", node.name)
}

/// The process whose end is the host's: a container's own process 1, a virtual machine's QEMU. `None` while it is off.
pub(crate) fn init(node: &Node) -> Result<Option<Process>> {
    let group = group(node);
    let is_it = match node.kind {
        Kind::Container => Process::is_init,
        Kind::Machine => machine::is_machine,
    };
    Ok(process::find(|process| is_it(process) && process.in_cgroup(&group))?.into_iter().next())
}

/// Switches the power on: returns when process 1 has been started, not when it is ready.
pub(crate) fn on(node: &Node, image: &Image) -> Result<()> {
    let group = group(node);
    if let Some(process) = process::find(|process| process.in_cgroup(&group))?.first() {
        return Err(Error::State(format!(
            "host {} is already on (process {} {}); two would share one disk",
            node.name, process.pid, process.name
        )));
    }
    // Whatever an interrupted start or stop has left.
    release(node)?;
    net::connect(node)?;
    match node.kind {
        Kind::Container => launch(node, &mut nspawn::prepare(node, image)?),
        Kind::Machine => launch(node, &mut machine::prepare(node)?),
    }
}

/// Starts what forks and returns; whatever it prints is the host's console.
fn launch(node: &Node, shell: &mut Command) -> Result<()> {
    let log = node.dir().join("console.log");
    File::create(&log).map_err(Error::io("creating", &log))?;
    // Appended to, since QEMU writes there on its own as well.
    let console = OpenOptions::new().append(true).open(&log).map_err(Error::io("opening", &log))?;
    let errors = console.try_clone().map_err(Error::io("opening", &log))?;
    shell.current_dir("/").stdin(Stdio::null()).stdout(console).stderr(errors);
    let status = shell.status().map_err(|source| Error::Io { what: format!("starting host {}", node.name), source })?;
    if status.success() {
        Ok(())
    } else {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let output = command::Output { code: command::exit_code(status), stdout: text, stderr: String::new() };
        Err(command::failure(command::display(shell), &output))
    }
}

/// Power loss: the cable goes dead first, so that no dying process says goodbye; then process 1 is killed.
pub(crate) fn off(node: &Node) -> Result<()> {
    if net::connected(node)? {
        net::plug(node, false)?;
    }
    let space = nspawn::space(node)?;
    let group = group(node);
    process::end(&format!("host {}", node.name), END, |process| {
        process.in_cgroup(&group) || (space.is_some() && process.namespace("pid") == space)
    })?;
    release(node)
}

/// Waits for a host that is shutting itself down, then releases what it used.
pub(crate) fn await_off(node: &Node, limit: Duration) -> Result<()> {
    let group = group(node);
    let started = std::time::Instant::now();
    loop {
        let left = process::find(|process| process.in_cgroup(&group))?;
        if left.is_empty() {
            return release(node);
        }
        if started.elapsed() > limit {
            let names: Vec<String> = left.iter().map(|p| format!("  {} {}", p.pid, p.command_line())).collect();
            return Err(Error::Timeout {
                what: format!("shutdown of host {}", node.name),
                waited: limit,
                hint: format!("still running:\n{}", names.join("\n")),
            });
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn release(node: &Node) -> Result<()> {
    mount::release(&node.dir())?;
    net::disconnect(node)?;
    cgroup::remove(&group(node))
}
