//! SSH keys: one for the operator, one for each host, and the list by which the operator knows the hosts.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Error, Node, Result, command, topology::STATE};

/// The operator's private key.
pub(crate) fn identity() -> PathBuf {
    Path::new(STATE).join("ssh/id_ed25519")
}

/// The hosts' public keys as OpenSSH wants them.
pub(crate) fn known_hosts() -> PathBuf {
    Path::new(STATE).join("ssh/known_hosts")
}

/// Makes all keys.
pub(crate) fn create(nodes: &[Node]) -> Result<()> {
    let dir = Path::new(STATE).join("ssh");
    fs::create_dir_all(&dir).map_err(Error::io("creating", &dir))?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).map_err(Error::io("protecting", &dir))?;
    generate(&identity(), "pgha-lab")?;
    let list: String = nodes
        .iter()
        .map(|node| {
            let key = host_key(node);
            generate(&key, &node.name)?;
            Ok(format!("{},{} {}", node.name, node.address, public(&key)?))
        })
        .collect::<Result<_>>()?;
    let file = known_hosts();
    fs::write(&file, list).map_err(Error::io("writing", &file))
}

/// Where a host's private key waits to be put on its disk.
pub(crate) fn host_key(node: &Node) -> PathBuf {
    node.dir().join("ssh_host_ed25519_key")
}

/// The public half of a key, one line.
pub(crate) fn public(key: &Path) -> Result<String> {
    let file = key.with_extension("pub");
    fs::read_to_string(&file).map_err(Error::io("reading", &file))
}

fn generate(file: &Path, comment: &str) -> Result<()> {
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir).map_err(Error::io("creating", dir))?;
    }
    command::run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"]).arg(file))
        .map(drop)
}
