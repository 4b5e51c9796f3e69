//! The lab's network: a bridge in a namespace of its own, a cable to each host, and what can be wrong with them.

use std::{fs, path::Path, process::Command};

use crate::{
    Error, Node, Result, command,
    topology::{BRIDGE, CONTROLLER, NAMESPACE, hosts_file},
};

/// The host's end of its cable.
const INTERFACE: &str = "host0";
/// The table of our rules in a host's namespace, apart from whatever the host itself filters.
const TABLE: &str = "inet pgha-lab";

/// Not in everybody's PATH.
const NFT: &str = "/usr/sbin/nft";

/// Which packets of a host are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Both ways.
    Both,
    /// What the host would receive.
    Incoming,
    /// What the host sends.
    Outgoing,
}

/// Makes the bridge and the controller's side.
pub(crate) fn create(nodes: &[Node]) -> Result<()> {
    // `ip netns exec` shows these files to what it runs: names resolve, and nothing waits for a name server.
    let dir = Path::new("/etc/netns").join(NAMESPACE);
    fs::create_dir_all(&dir).map_err(Error::io("creating", &dir))?;
    for (name, text) in [("hosts", hosts_file(nodes)), ("resolv.conf", "# The lab has no name server.\n".to_owned())] {
        let file = dir.join(name);
        fs::write(&file, text).map_err(Error::io("writing", &file))?;
    }
    ip(None, &format!("netns add {NAMESPACE}\n"))?;
    ip(
        Some(NAMESPACE),
        &format!(
            "link set lo up\nlink add {BRIDGE} type bridge\naddr add {CONTROLLER}/24 dev {BRIDGE}\nlink set {BRIDGE} up\n"
        ),
    )
}

/// Gives a host its namespace and its cable to the bridge.
pub(crate) fn connect(node: &Node) -> Result<()> {
    let (namespace, cable, mac) = (node.namespace(), node.cable(), node.mac());
    ip(None, &format!("netns add {namespace}\n"))?;
    ip(
        Some(NAMESPACE),
        &format!(
            "link add {cable} type veth peer name {INTERFACE} address {mac} netns {namespace}\n\
             link set {cable} master {BRIDGE}\nlink set {cable} up\n"
        ),
    )?;
    ip(
        Some(&namespace),
        &format!("link set lo up\naddr add {}/24 dev {INTERFACE}\nlink set {INTERFACE} up\n", node.address),
    )
}

/// Takes a host's namespace away, with its cable and whatever its kernel would still have sent.
pub(crate) fn disconnect(node: &Node) -> Result<()> {
    let namespace = node.namespace();
    // The namespace itself may outlive its name for a moment; the cable must not.
    if namespaces()?.contains(&NAMESPACE.to_owned()) {
        let cable = node.cable();
        let shown = command::capture(Command::new("ip").args(["-n", NAMESPACE, "link", "show", &cable]))?;
        if shown.success() {
            ip(Some(NAMESPACE), &format!("link del {cable}\n"))?;
        }
    }
    if namespaces()?.contains(&namespace) { ip(None, &format!("netns del {namespace}\n")) } else { Ok(()) }
}

/// Removes every namespace of the lab.
pub(crate) fn remove() -> Result<()> {
    for name in namespaces()? {
        ip(None, &format!("netns del {name}\n"))?;
    }
    let dir = Path::new("/etc/netns").join(NAMESPACE);
    match fs::remove_dir_all(&dir) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(Error::io("removing", &dir)(source))?,
        _ => {}
    }
    // Ours only if nobody else uses it.
    if let Err(source) = fs::remove_dir("/etc/netns") {
        tracing::debug!("/etc/netns stays: {source}");
    }
    Ok(())
}

/// The names of the lab's namespaces.
pub(crate) fn namespaces() -> Result<Vec<String>> {
    let list = command::run(Command::new("ip").args(["netns", "list"]))?;
    let ours = |name: &&str| name.strip_prefix(NAMESPACE).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    Ok(list.lines().filter_map(|line| line.split_whitespace().next()).filter(ours).map(str::to_owned).collect())
}

/// Plugs the cable in or out.
pub(crate) fn plug(node: &Node, up: bool) -> Result<()> {
    ip(Some(NAMESPACE), &format!("link set {} {}\n", node.cable(), if up { "up" } else { "down" }))
}

/// Whether the cable is plugged in.
pub(crate) fn plugged(node: &Node) -> Result<bool> {
    let shown = command::run(Command::new("ip").args(["-n", NAMESPACE, "-o", "link", "show", &node.cable()]))?;
    Ok(shown
        .split_once('<')
        .and_then(|(_, rest)| rest.split_once('>'))
        .is_some_and(|(flags, _)| flags.split(',').any(|flag| flag == "UP")))
}

/// Drops packets between a host and `peers` (everyone, when empty) from and to `ports` of TCP (all packets, when empty);
/// replaces earlier drops.
pub(crate) fn drop_packets(node: &Node, direction: Direction, peers: &[Node], ports: &[u16]) -> Result<()> {
    let addresses = peers.iter().map(|peer| peer.address.to_string()).collect::<Vec<_>>().join(", ");
    let ports = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
    let rule = |hook: &str, side: &str, device: &str| {
        let place =
            if peers.is_empty() { format!("{device} \"{INTERFACE}\"") } else { format!("ip {side} {{ {addresses} }}") };
        let drops = if ports.is_empty() {
            format!("{place} drop; ")
        } else {
            ["sport", "dport"].map(|end| format!("{place} tcp {end} {{ {ports} }} drop; ")).concat()
        };
        format!("chain {hook} {{ type filter hook {hook} priority -300; {drops}}}\n")
    };
    let mut rules = String::new();
    if direction != Direction::Outgoing {
        rules += &rule("input", "saddr", "iifname");
    }
    if direction != Direction::Incoming {
        rules += &rule("output", "daddr", "oifname");
    }
    // Created before it is deleted, so that the first time is no special case; one transaction.
    nft(node, &format!("table {TABLE} {{}}\ndelete table {TABLE}\ntable {TABLE} {{\n{rules}}}\n"))
}

/// Ends every drop.
pub(crate) fn pass_packets(node: &Node) -> Result<()> {
    nft(node, &format!("table {TABLE} {{}}\ndelete table {TABLE}\n"))
}

/// Whether packets of the host are dropped.
pub(crate) fn drops_packets(node: &Node) -> Result<bool> {
    let tables = command::run(Command::new("ip").args(["netns", "exec", &node.namespace(), NFT, "list", "tables"]))?;
    Ok(tables.lines().any(|line| line == format!("table {TABLE}")))
}

fn nft(node: &Node, rules: &str) -> Result<()> {
    command::feed(Command::new("ip").args(["netns", "exec", &node.namespace(), NFT, "-f", "-"]), rules)
}

fn ip(namespace: Option<&str>, lines: &str) -> Result<()> {
    let mut ip = Command::new("ip");
    if let Some(namespace) = namespace {
        ip.args(["-n", namespace]);
    }
    command::feed(ip.args(["-batch", "-"]), lines)
}
