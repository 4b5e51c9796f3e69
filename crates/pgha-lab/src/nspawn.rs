//! One systemd-nspawn host: its disk, its process 1, and the certainty that it is gone.

use std::{
    fs::{self, File},
    process::Stdio,
    time::Duration,
};

use crate::{
    Error, Image, Node, Result, cgroup, command, mount, net,
    process::{self, Process},
};

/// The control group above those of all hosts.
pub(crate) const GROUP: &str = "/pgha-lab";
/// What a real host has beyond nspawn's own set: locked memory, a packet filter, real-time priority, limits raised at will.
const CAPABILITIES: &str = "CAP_IPC_LOCK,CAP_NET_ADMIN,CAP_SYS_NICE,CAP_SYS_RESOURCE";
/// A killed host is gone at once, unless its disk makes a process wait.
const END: Duration = Duration::from_secs(30);

/// The host's control group.
pub(crate) fn group(node: &Node) -> String {
    format!("{GROUP}/{}", node.name)
}

/// The host's own process 1; `None` while it is off.
pub(crate) fn init(node: &Node) -> Result<Option<Process>> {
    let group = group(node);
    Ok(process::find(|process| process.is_init() && process.in_cgroup(&group))?.into_iter().next())
}

/// Every process inside the host.
pub(crate) fn inside(node: &Node) -> Result<Vec<Process>> {
    let Some(space) = init(node)?.and_then(|init| init.namespace("pid")) else {
        return Ok(Vec::new());
    };
    process::find(|process| process.namespace("pid") == Some(space))
}

/// Switches the power on: returns when process 1 has been started, not when it is ready.
pub(crate) fn start(node: &Node, image: &Image) -> Result<()> {
    let group = group(node);
    if let Some(process) = process::find(|process| process.in_cgroup(&group))?.first() {
        return Err(Error::State(format!(
            "host {} is already on (process {} {}); two would share one disk",
            node.name, process.pid, process.name
        )));
    }
    // Whatever an interrupted start or stop has left.
    release(node)?;
    mount::overlay(&image.root(), &node.dir())?;
    net::connect(node)?;
    let log = node.dir().join("console.log");
    let console = File::create(&log).map_err(Error::io("creating", &log))?;
    let errors = console.try_clone().map_err(Error::io("opening", &log))?;

    let mut shell = cgroup::command(&group, "setsid")?;
    shell
        .args(["--fork", "systemd-nspawn"])
        .args(["--quiet", "--boot", "--register=no", "--keep-unit", "--resolv-conf=off", "--timezone=off"])
        .arg(format!("--machine={}", node.name))
        .arg(format!("--directory={}", node.root().display()))
        .arg(format!("--network-namespace-path=/run/netns/{}", node.namespace()))
        .arg(format!("--capability={CAPABILITIES}"))
        .arg(format!("--bind-ro={}:/srv/packages", image.packages().display()))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(console)
        .stderr(errors);
    let status = shell.status().map_err(|source| Error::Io { what: format!("starting host {}", node.name), source })?;
    if status.success() {
        Ok(())
    } else {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let output = command::Output { code: command::exit_code(status), stdout: text, stderr: String::new() };
        Err(command::failure(command::display(&shell), &output))
    }
}

/// Power loss: the cable goes dead first, so that no dying process says goodbye; then process 1 is killed.
pub(crate) fn power_off(node: &Node) -> Result<()> {
    if net::namespaces()?.contains(&node.namespace()) {
        net::plug(node, false)?;
    }
    let space = init(node)?.and_then(|init| init.namespace("pid"));
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
