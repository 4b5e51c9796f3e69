//! The lab's network: a bridge in a namespace of its own, a cable to each host, and what can be wrong with them.

use std::{fs, path::Path, process::Command};

use crate::{
    Error, Kind, Node, Result, command,
    topology::{BRIDGE, CONTROLLER, NAMESPACE, hosts_file},
};

/// The host's end of its cable.
const INTERFACE: &str = "host0";
/// The table of our rules in a container's namespace, apart from whatever the host itself filters.
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

/// Gives a host its cable to the bridge, and a container its namespace.
pub(crate) fn connect(node: &Node) -> Result<()> {
    let (namespace, cable, mac) = (node.namespace(), node.cable(), node.mac());
    if node.kind == Kind::Machine {
        let lines = format!("tuntap add dev {cable} mode tap\nlink set {cable} master {BRIDGE}\nlink set {cable} up\n");
        return ip(Some(NAMESPACE), &lines);
    }
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

/// Takes a host's cable away, with a container's namespace and whatever its kernel would still have sent.
pub(crate) fn disconnect(node: &Node) -> Result<()> {
    let namespace = node.namespace();
    // The namespace itself may outlive its name for a moment; the cable must not.
    if namespaces()?.contains(&NAMESPACE.to_owned()) {
        if has_cable(node)? {
            ip(Some(NAMESPACE), &format!("link del {}\n", node.cable()))?;
        }
        if node.kind == Kind::Machine {
            pass_packets(node)?;
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

/// Whether the host has a network to lose.
pub(crate) fn connected(node: &Node) -> Result<bool> {
    match node.kind {
        Kind::Container => Ok(namespaces()?.contains(&node.namespace())),
        Kind::Machine => has_cable(node),
    }
}

fn has_cable(node: &Node) -> Result<bool> {
    let shown = command::capture(Command::new("ip").args(["-n", NAMESPACE, "link", "show", &node.cable()]))?;
    Ok(shown.success())
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
    let (_, table) = filter(node);
    let rules = match node.kind {
        Kind::Container => inside(direction, peers, ports),
        Kind::Machine => outside(&node.cable(), direction, peers, ports),
    };
    // Created before it is deleted, so that the first time is no special case; one transaction.
    nft(node, &format!("table {table} {{}}\ndelete table {table}\ntable {table} {{\n{rules}}}\n"))
}

/// Ends every drop.
pub(crate) fn pass_packets(node: &Node) -> Result<()> {
    let (_, table) = filter(node);
    nft(node, &format!("table {table} {{}}\ndelete table {table}\n"))
}

/// Whether packets of the host are dropped.
pub(crate) fn drops_packets(node: &Node) -> Result<bool> {
    let (namespace, table) = filter(node);
    let tables = command::run(Command::new("ip").args(["netns", "exec", &namespace, NFT, "list", "tables"]))?;
    Ok(tables.lines().any(|line| line == format!("table {table}")))
}

/// Where a host's packets are dropped, and the table of the rules: a virtual machine's at its port of the bridge.
fn filter(node: &Node) -> (String, String) {
    match node.kind {
        Kind::Container => (node.namespace(), TABLE.to_owned()),
        Kind::Machine => (NAMESPACE.to_owned(), format!("bridge {}", node.namespace())),
    }
}

/// The rules inside a container's namespace.
fn inside(direction: Direction, peers: &[Node], ports: &[u16]) -> String {
    let rule = |hook: &str, side: &str, device: &str| {
        let place = if peers.is_empty() { format!("{device} \"{INTERFACE}\"") } else { ip_is(side, peers) };
        chain(hook, &drops(&place, ports))
    };
    let mut rules = String::new();
    if direction != Direction::Outgoing {
        rules += &rule("input", "saddr", "iifname");
    }
    if direction != Direction::Incoming {
        rules += &rule("output", "daddr", "oifname");
    }
    rules
}

/// The rules at a virtual machine's port of the bridge, where only what the controller sends or gets is not forwarded.
fn outside(cable: &str, direction: Direction, peers: &[Node], ports: &[u16]) -> String {
    let rule = |side: &str, device: &str| {
        let peers = if peers.is_empty() { String::new() } else { ip_is(side, peers) };
        drops(&format!("{device} \"{cable}\" {peers}"), ports)
    };
    let (mut forwarded, mut rules) = (String::new(), String::new());
    if direction != Direction::Outgoing {
        let to_it = rule("saddr", "oifname");
        rules += &chain("output", &to_it);
        forwarded += &to_it;
    }
    if direction != Direction::Incoming {
        let from_it = rule("daddr", "iifname");
        rules += &chain("input", &from_it);
        forwarded += &from_it;
    }
    rules + &chain("forward", &forwarded)
}

fn ip_is(side: &str, peers: &[Node]) -> String {
    let addresses = peers.iter().map(|peer| peer.address.to_string()).collect::<Vec<_>>().join(", ");
    format!("ip {side} {{ {addresses} }}")
}

/// What drops the packets of a place: all, or those of some ports at either end.
fn drops(place: &str, ports: &[u16]) -> String {
    if ports.is_empty() {
        return format!("{place} drop; ");
    }
    let ports = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
    ["sport", "dport"].map(|end| format!("{place} tcp {end} {{ {ports} }} drop; ")).concat()
}

fn chain(hook: &str, rules: &str) -> String {
    format!("chain {hook} {{ type filter hook {hook} priority -300; {rules}}}\n")
}

fn nft(node: &Node, rules: &str) -> Result<()> {
    let (namespace, _) = filter(node);
    command::feed(Command::new("ip").args(["netns", "exec", &namespace, NFT, "-f", "-"]), rules)
}

fn ip(namespace: Option<&str>, lines: &str) -> Result<()> {
    let mut ip = Command::new("ip");
    if let Some(namespace) = namespace {
        ip.args(["-n", namespace]);
    }
    command::feed(ip.args(["-batch", "-"]), lines)
}
