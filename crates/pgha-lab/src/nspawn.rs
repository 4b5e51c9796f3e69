//! One systemd-nspawn host: its command line, and the processes inside it.

use std::process::Command;

use crate::{
    Image, Kind, Node, Result, cgroup, disk, mount, power,
    process::{self, Process},
};

/// What a real host has beyond nspawn's own set: locked memory, a packet filter, real-time priority, limits raised at will.
const CAPABILITIES: &str = "CAP_IPC_LOCK,CAP_NET_ADMIN,CAP_SYS_NICE,CAP_SYS_RESOURCE";

/// The host's PID namespace, while it is on; a virtual machine's processes are in none of ours.
pub(crate) fn space(node: &Node) -> Result<Option<u64>> {
    match node.kind {
        Kind::Container => Ok(power::init(node)?.and_then(|init| init.namespace("pid"))),
        Kind::Machine => Ok(None),
    }
}

/// Every process inside the host.
pub(crate) fn inside(node: &Node) -> Result<Vec<Process>> {
    let Some(space) = space(node)? else {
        return Ok(Vec::new());
    };
    process::find(|process| process.namespace("pid") == Some(space))
}

/// Takes pairs of images and places up to `--`, and then what is to be run.
const MOUNT_AND_RUN: &str = r#"
options=$1; shift
while [ "$1" != -- ]; do mount -o "$options" "$1" "$2"; shift 2; done
shift
exec "$@"
"#;

/// Mounts the disks and returns the command that starts process 1 on it.
pub(crate) fn prepare(node: &Node, image: &Image) -> Result<Command> {
    mount::overlay(&image.root(), &node.dir())?;
    let mut shell = cgroup::command(&power::group(node), "setsid")?;
    let disks = disk::attach(node)?;
    shell.arg("--fork");
    if !disks.is_empty() {
        shell.args(["unshare", "--mount", "--propagation=private", "sh", "-ec", MOUNT_AND_RUN, "sh", disk::OPTIONS]);
        shell.args(disks.iter().flat_map(|disk| [&disk.image, &disk.place])).arg("--");
    }
    shell
        .arg("systemd-nspawn")
        .args(["--quiet", "--boot", "--register=no", "--keep-unit", "--resolv-conf=off", "--timezone=off"])
        .arg(format!("--machine={}", node.name))
        .arg(format!("--directory={}", node.root().display()))
        .arg(format!("--network-namespace-path=/run/netns/{}", node.namespace()))
        .arg(format!("--capability={CAPABILITIES}"))
        .arg(format!("--bind-ro={}:/srv/packages", image.packages().display()))
        .args(disks.iter().map(|disk| &disk.bind));
    Ok(shell)
}
