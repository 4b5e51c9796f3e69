//! What the lab needs of this machine.

use std::{env, fs, path::Path};

use crate::{Error, Kind, Node, Result};

/// Commands the lab calls and the Debian packages that bring them.
const TOOLS: [(&str, &str); 11] = [
    ("systemd-nspawn", "systemd-container"),
    ("mmdebstrap", "mmdebstrap"),
    ("apt-ftparchive", "apt-utils"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("ssh-keygen", "openssh-client"),
    ("ssh", "openssh-client"),
    ("nsenter", "util-linux"),
    ("setsid", "util-linux"),
    ("journalctl", "systemd"),
    ("mkfs.ext4", "e2fsprogs"),
];
/// What virtual machines need beyond that.
const MACHINE_TOOLS: [(&str, &str); 1] = [("qemu-system-x86_64", "qemu-system-x86")];
/// The release that hosts run, and that the machine must run for its mirrors to serve them.
pub(crate) const SUITE: &str = "bookworm";

/// Debian packages whose commands are missing here.
pub fn missing_packages() -> Vec<&'static str> {
    missing(&TOOLS)
}

/// The same for a lab with virtual machines, beyond what every lab needs.
pub fn missing_machine_packages() -> Vec<&'static str> {
    missing(&MACHINE_TOOLS)
}

fn missing(tools: &[(&str, &'static str)]) -> Vec<&'static str> {
    let mut missing: Vec<_> = tools.iter().filter(|(tool, _)| !is_command(tool)).map(|(_, package)| *package).collect();
    missing.sort_unstable();
    missing.dedup();
    missing
}

/// Whether this is a Debian 12 machine; otherwise what to do instead.
pub fn check_system() -> Result<()> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |key: &str| {
        release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(|text| text.trim_matches('"'))
    };
    if field("ID") == Some("debian") && field("VERSION_CODENAME") == Some(SUITE) {
        return Ok(());
    }
    Err(Error::Unsupported(format!(
        "the lab runs on Debian 12 ({SUITE}); this machine is {}.\n\
         Use the virtual machines of vagrant/ instead: see vagrant/README.md",
        field("PRETTY_NAME").unwrap_or("something else")
    )))
}

/// Whether we may do what the lab does.
pub fn check_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        Ok(())
    } else {
        Err(Error::Unsupported("the lab makes network namespaces and mounts: run it as root (sudo)".to_owned()))
    }
}

/// Whether virtual machines run here: they have this machine's architecture, and one is known.
fn check_machines() -> Result<()> {
    if env::consts::ARCH != "x86_64" {
        return Err(Error::Unsupported(format!("virtual machines of the lab need x86_64, not {}", env::consts::ARCH)));
    }
    let tun = Path::new("/dev/net/tun");
    if tun.exists() { Ok(()) } else { Err(Error::Unsupported(format!("virtual machines need {}", tun.display()))) }
}

/// All of it, with the command that helps.
pub(crate) fn check(nodes: &[Node]) -> Result<()> {
    check_system()?;
    check_root()?;
    let mut missing = missing_packages();
    if nodes.iter().any(|node| node.kind == Kind::Machine) {
        check_machines()?;
        missing.extend(missing_machine_packages());
    }
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Error::Unsupported(format!(
            "the lab needs packages that are not installed: apt-get install {}",
            missing.join(" ")
        )))
    }
}

fn is_command(name: &str) -> bool {
    // Some users' PATH lacks the administrator's directories.
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).any(|dir| Path::new(&dir).join(name).is_file())
}
