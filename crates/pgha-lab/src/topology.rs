//! Names, addresses and paths of the lab: all of it is derived from a host's name and its place in the list.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// State of the running lab; removed by `down`.
pub(crate) const STATE: &str = "/var/lib/pgha-lab";
/// Images and packages; kept for the next lab.
pub(crate) const CACHE: &str = "/var/cache/pgha-lab";
/// The namespace with the bridge and the controller; those of the hosts are called after it.
pub(crate) const NAMESPACE: &str = "pgha-lab";
/// The bridge inside [`NAMESPACE`].
pub(crate) const BRIDGE: &str = "lab0";
/// The address from which the controller reaches the hosts.
pub(crate) const CONTROLLER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// Hosts whose addresses inventories may rely on.
const FIXED: [(&str, u8); 6] = [("db1", 11), ("db2", 12), ("db3", 13), ("lb1", 14), ("host5", 15), ("host6", 16)];
/// The first address for hosts with other names.
const FIRST_FREE: u8 = 17;
/// An interface name has at most 15 bytes, two of which are the prefix.
const LONGEST_NAME: usize = 13;

/// What a host is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A systemd-nspawn container: up within a second, on this machine's kernel.
    Container,
    /// A virtual machine with a kernel and watchdogs of its own: emulated, so everything in it is slow.
    Machine,
}

/// A host that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSpec {
    /// Its host name.
    pub name: String,
    /// What it is made of.
    pub kind: Kind,
}

impl HostSpec {
    /// A container.
    pub fn container(name: impl Into<String>) -> Self {
        Self { name: name.into(), kind: Kind::Container }
    }

    /// A virtual machine.
    pub fn machine(name: impl Into<String>) -> Self {
        Self { name: name.into(), kind: Kind::Machine }
    }
}

/// A host's name, address and kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its host name.
    pub name: String,
    /// Its address on the lab network.
    pub address: Ipv4Addr,
    /// What it is made of.
    pub kind: Kind,
}

impl Node {
    /// Its network namespace.
    pub(crate) fn namespace(&self) -> String {
        format!("{NAMESPACE}-{}", self.name)
    }

    /// The bridge's end of its cable.
    pub(crate) fn cable(&self) -> String {
        format!("v-{}", self.name)
    }

    /// A hardware address that survives power cycles, as a real one does.
    pub(crate) fn mac(&self) -> String {
        let [a, b, c, d] = self.address.octets();
        format!("02:77:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
    }

    /// The directory with the host's disk.
    pub(crate) fn dir(&self) -> PathBuf {
        Path::new(STATE).join("hosts").join(&self.name)
    }

    /// The root of its file system while it is mounted.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir().join("root")
    }
}

/// Gives each container its address; refuses names that cannot be one.
pub fn layout<S: AsRef<str>>(names: &[S]) -> Result<Vec<Node>> {
    layout_hosts(&names.iter().map(|name| HostSpec::container(name.as_ref())).collect::<Vec<_>>())
}

/// Gives each host its address; refuses names that cannot be one.
pub fn layout_hosts(hosts: &[HostSpec]) -> Result<Vec<Node>> {
    let mut nodes: Vec<Node> = Vec::with_capacity(hosts.len());
    let mut free = FIRST_FREE;
    for HostSpec { name, kind } in hosts {
        if !is_host_name(name) {
            return Err(Error::State(format!(
                "`{name}` cannot be a host of the lab: 1 to {LONGEST_NAME} lower-case letters, digits and dashes, \
                 a letter first"
            )));
        }
        if nodes.iter().any(|node| node.name == *name) {
            return Err(Error::State(format!("host `{name}` is named twice")));
        }
        let last = if let Some((_, last)) = FIXED.iter().find(|(fixed, _)| fixed == name) {
            *last
        } else {
            let next = free.checked_add(1).ok_or_else(|| Error::State("too many hosts".to_owned()))?;
            std::mem::replace(&mut free, next)
        };
        let [a, b, c, _] = CONTROLLER.octets();
        nodes.push(Node { name: name.clone(), address: Ipv4Addr::new(a, b, c, last), kind: *kind });
    }
    if nodes.is_empty() { Err(Error::State("a lab needs at least one host".to_owned())) } else { Ok(nodes) }
}

/// `/etc/hosts` for the controller and every host.
pub(crate) fn hosts_file(nodes: &[Node]) -> String {
    let fixed = format!("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n{CONTROLLER} controller\n");
    nodes.iter().fold(fixed, |text, node| text + &format!("{} {}\n", node.address, node.name))
}

fn is_host_name(name: &str) -> bool {
    name.len() <= LONGEST_NAME
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_hosts_have_fixed_addresses_whatever_their_order() {
        let nodes = layout(&["lb1", "db2", "web", "db1", "web2"]).expect("valid names");
        let last: Vec<u8> = nodes.iter().map(|node| node.address.octets()[3]).collect();
        assert_eq!(last, [14, 12, 17, 11, 18]);
    }

    #[test]
    fn impossible_names_are_refused() {
        for names in [&["DB1"][..], &[""], &["a/b"], &["..", "db1"], &["db1", "db1"], &["averyverylongname"], &[]] {
            assert!(layout(names).is_err(), "{names:?}");
        }
    }
}
