//! One virtual machine: the disk made for it, the QEMU that runs it, and a stop of its processors.
//!
//! It is emulated, although a machine may offer KVM: inside a virtual machine /dev/kvm can be there and run no kernel.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Error, Node, Result, cgroup, command, mount, power, process::Process, qmp, topology::NAMESPACE};

const QEMU: &str = "qemu-system-x86_64";
/// Not in everybody's PATH.
pub(crate) const MKFS: &str = "/usr/sbin/mkfs.ext4";
/// Of which the empty part takes no room.
const DISK: &str = "8G";
const MEMORY: &str = "2048";
const PROCESSORS: &str = "2";
/// What the boot loader of a real host would find on its disk.
const BOOT: [&str; 2] = ["vmlinuz", "initrd.img"];

/// Whether the process is a QEMU; the kernel keeps 15 bytes of its name.
pub(crate) fn is_machine(process: &Process) -> bool {
    process.name == QEMU[..15]
}

/// Turns the tree mounted at the node's root into its disk.
pub(crate) fn make_disk(node: &Node, packages: &Path) -> Result<()> {
    let (dir, root) = (node.dir(), node.root());
    for (name, text) in network(node) {
        let file = root.join("etc/systemd/network").join(name);
        fs::write(&file, text).map_err(Error::io("writing", &file))?;
    }
    for name in BOOT {
        let (from, to) = (root.join(name), dir.join(name));
        fs::copy(&from, &to).map_err(Error::io("copying", &from))?;
    }
    mount::bind(packages, &root.join("srv/packages"))?;
    let zeroed = "lazy_itable_init=0,lazy_journal_init=0";
    command::run(Command::new(MKFS).args(["-q", "-E", zeroed, "-d"]).arg(&root).arg(disk(node)).arg(DISK))?;
    mount::release(&dir)
}

/// The command that starts the machine on its disk; its cable is there.
pub(crate) fn prepare(node: &Node) -> Result<Command> {
    let file = |name: &str| node.dir().join(name).display().to_string();
    let mut shell = cgroup::command(&power::group(node), "setsid")?;
    shell
        // Not by `ip netns exec`, which would keep all mounts of this moment for itself.
        .args(["--fork", "nsenter", &format!("--net=/run/netns/{NAMESPACE}"), "--", QEMU])
        .args(["-name", &node.name, "-no-user-config", "-nodefaults", "-display", "none"])
        .args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", PROCESSORS, "-m", MEMORY])
        .args(["-kernel", &file(BOOT[0]), "-initrd", &file(BOOT[1])])
        // An emulated processor has none of the flaws that its kernel would spend time on.
        .args(["-append", "root=/dev/vda rootfstype=ext4 rw console=ttyS0 mitigations=off"])
        // A flush of the guest reaches this machine's disk; what it has only written survives the guest alone.
        .args(["-drive", &format!("file={},format=raw,if=virtio,cache=writeback,discard=unmap", disk(node).display())])
        .args(["-netdev", &format!("tap,id=cable,ifname={},script=no,downscript=no", node.cable())])
        .args(["-device", &format!("virtio-net-pci,netdev=cable,romfile=,mac={}", node.mac())])
        .args(["-device", "virtio-rng-pci"])
        // Two watchdogs: a card's and the chipset's own, whose wire to the reset is cut unless told otherwise.
        .args(["-device", "i6300esb", "-global", "ICH9-LPC.noreboot=off", "-action", "watchdog=reset"])
        .args(["-chardev", &format!("file,id=console,path={},append=on", file("console.log"))])
        .args(["-serial", "chardev:console", "-qmp", &format!("unix:{},server=on,wait=off", monitor(node).display())]);
    Ok(shell)
}

/// Stops the machine's processors and clocks, those of its watchdogs among them.
pub(crate) fn stop(node: &Node) -> Result<()> {
    qmp::execute(&monitor(node), "stop").map(drop)
}

/// Lets them go on.
pub(crate) fn resume(node: &Node) -> Result<()> {
    qmp::execute(&monitor(node), "cont").map(drop)
}

fn disk(node: &Node) -> PathBuf {
    node.dir().join("disk.img")
}

fn monitor(node: &Node) -> PathBuf {
    node.dir().join("monitor")
}

/// For systemd-networkd: the interface is called as in a container.
fn network(node: &Node) -> [(&'static str, String); 2] {
    let matching = format!("[Match]\nMACAddress={}\n", node.mac());
    [
        ("10-lab.link", format!("{matching}[Link]\nName=host0\n")),
        ("10-lab.network", format!("{matching}[Network]\nAddress={}/24\nIPv6AcceptRA=no\n", node.address)),
    ]
}
