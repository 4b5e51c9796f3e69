//! Rules that one key alone cannot break: from the parsed inventory to a [`Cluster`], or to everything wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;

use pgha_core::config::OWNED_PARAMETERS;
use pgha_core::name::{ClusterName, NodeName};
use pgha_core::timing::Timing;
use toml::Spanned;

use super::report::Problem;
use super::{ArchiveSection, HaproxySection, HostSection, Inventory, PostgresSection, Role, SshSection};
use crate::cluster::{
    Archive, Cluster, Database, Haproxy, Host, Login, PGBACKREST_PORT, REST_PORT, WATCHDOG, ZOOKEEPER_PEER_PORTS,
    ZOOKEEPER_PORT,
};

/// The one major version that is installed and tested.
const POSTGRES_VERSION: u16 = 15;
const LOOPBACK: &str = "127.0.0.0/8";
/// Roles that the agent makes for itself.
const RESERVED_ROLES: &[&str] = &["postgres", "replicator", "pgha_rewind", "public", "none"];
/// Databases that every cluster has.
const RESERVED_DATABASES: &[&str] = &["postgres", "template0", "template1"];

/// Turns an inventory into a cluster.
pub(super) fn check(inventory: &Inventory) -> Result<Cluster, Vec<Problem>> {
    let mut problems = Problems::default();
    let name = cluster_name(inventory, &mut problems);
    version(inventory, &mut problems);
    if let Err(error) = Timing::of(inventory.cluster.timing).check() {
        problems.global(error.to_string(), "choose another value of cluster.timing");
    }
    let hosts = hosts(inventory, &mut problems);
    let port = nonzero(inventory.cluster.port.as_ref(), 5432, "cluster.port", &mut problems);
    let haproxy = haproxy(&inventory.haproxy, &mut problems);
    ensemble(inventory, &mut problems);
    members(inventory, &mut problems);
    let archive = archive(inventory, &mut problems);
    ports(inventory, port, &haproxy, archive.as_ref(), &mut problems);
    let watchdog_device = watchdog_device(inventory, &mut problems);
    let (parameters, hba, clients) = postgres(&inventory.postgres, &mut problems);
    let databases = databases(inventory, &mut problems);
    match (name, archive) {
        (Some(name), Some(archive)) if problems.0.is_empty() => Ok(Cluster {
            name,
            profile: inventory.cluster.timing,
            synchronous: inventory.cluster.synchronous,
            failsafe: inventory.cluster.failsafe,
            version: POSTGRES_VERSION,
            port,
            watchdog: inventory.cluster.watchdog,
            watchdog_device,
            archive,
            haproxy,
            parameters,
            hba,
            clients,
            databases,
            remarks: remarks(&hosts),
            hosts,
            known_hosts: inventory.ssh.known_hosts.as_deref().map(expand_home),
        }),
        _ => Err(problems.0),
    }
}

/// Everything found wrong so far.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn global(&mut self, title: impl Into<String>, help: impl Into<String>) {
        self.0.push(Problem { title: title.into(), place: None, other: None, help: help.into() });
    }

    fn at(&mut self, span: Range<usize>, title: impl Into<String>, label: impl Into<String>, help: impl Into<String>) {
        self.0.push(Problem { title: title.into(), place: Some((span, label.into())), other: None, help: help.into() });
    }

    fn between(
        &mut self,
        span: Range<usize>,
        label: impl Into<String>,
        other: (Range<usize>, String),
        title: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.0.push(Problem {
            title: title.into(),
            place: Some((span, label.into())),
            other: Some(other),
            help: help.into(),
        });
    }
}

fn cluster_name(inventory: &Inventory, problems: &mut Problems) -> Option<ClusterName> {
    let Some(name) = &inventory.cluster.name else {
        return ClusterName::try_from("main").ok();
    };
    match ClusterName::try_from(name.get_ref().as_str()) {
        Ok(good) => Some(good),
        Err(error) => {
            problems.at(name.span(), "cluster.name cannot be used", "this name", error.to_string());
            None
        }
    }
}

fn version(inventory: &Inventory, problems: &mut Problems) {
    if let Some(version) = &inventory.cluster.postgres
        && *version.get_ref() != POSTGRES_VERSION
    {
        problems.at(
            version.span(),
            format!("PostgreSQL {} is not supported", version.get_ref()),
            "this version",
            format!("expected {POSTGRES_VERSION}"),
        );
    }
}

/// What udev lets the agent open.
fn watchdog_device(inventory: &Inventory, problems: &mut Problems) -> String {
    let Some(device) = &inventory.cluster.watchdog_device else {
        return WATCHDOG.to_owned();
    };
    let number = device.get_ref().strip_prefix(WATCHDOG);
    if number.is_none_or(|number| !number.bytes().all(|byte| byte.is_ascii_digit())) {
        problems.at(
            device.span(),
            "cluster.watchdog_device is no kernel watchdog",
            "this device",
            format!("expected {WATCHDOG}, {WATCHDOG}0, {WATCHDOG}1 ..."),
        );
    }
    device.get_ref().clone()
}

fn nonzero(given: Option<&Spanned<u16>>, default: u16, key: &str, problems: &mut Problems) -> u16 {
    if let Some(port) = given
        && *port.get_ref() == 0
    {
        problems.at(
            port.span(),
            format!("{key} cannot be 0"),
            "this port",
            format!("expected 1 to 65535, as in {default}"),
        );
    }
    given.map_or(default, |port| *port.get_ref())
}

fn hosts(inventory: &Inventory, problems: &mut Problems) -> Vec<Host> {
    if inventory.hosts.is_empty() {
        problems
            .global("the inventory names no hosts", "add [[hosts]] entries, each with `name`, `address` and `roles`");
    }
    let mut names: BTreeMap<String, &Spanned<String>> = BTreeMap::new();
    let mut addresses: BTreeMap<(String, u16), Range<usize>> = BTreeMap::new();
    let mut cluster_addresses: BTreeMap<String, Range<usize>> = BTreeMap::new();
    let mut hosts = Vec::new();
    for section in &inventory.hosts {
        let name = section.name.get_ref();
        if let Some(first) = names.insert(name.to_ascii_lowercase(), &section.name) {
            problems.between(
                section.name.span(),
                "used again here",
                (first.span(), "first used here".to_owned()),
                format!("two hosts are named `{name}`"),
                "give each host a name of its own",
            );
        }
        let login = login(&inventory.ssh, &section.ssh);
        let at = section.address.as_ref().unwrap_or(&section.name);
        let address = at.get_ref().clone();
        if let Some(first) = addresses.insert((address.clone(), login.port), at.span()) {
            problems.between(
                at.span(),
                "used again here",
                (first, "first used here".to_owned()),
                format!("two hosts have the address `{address}`"),
                "give each host an address of its own",
            );
        }
        let inside = section.cluster_address.as_ref().unwrap_or(at);
        if let Some(first) = cluster_addresses.insert(inside.get_ref().clone(), inside.span())
            && section.cluster_address.is_some()
        {
            problems.between(
                inside.span(),
                "used again here",
                (first, "first used here".to_owned()),
                format!("two hosts have the cluster address `{}`", inside.get_ref()),
                "give each host a cluster_address of its own",
            );
        }
        for spot in [Some(at), section.cluster_address.as_ref()].into_iter().flatten() {
            if spot.get_ref().parse::<std::net::Ipv6Addr>().is_ok() {
                problems.at(
                    spot.span(),
                    format!("`{}` cannot be used: agents and Postgres do not listen on IPv6", spot.get_ref()),
                    "this address",
                    "expected an IPv4 address or a host name that has one",
                );
            } else if !plain_address(spot.get_ref()) {
                problems.at(
                    spot.span(),
                    format!("`{}` is not an address", spot.get_ref()),
                    "this address",
                    "expected an IP address or a host name, without port or user",
                );
            }
        }
        let roles = roles(section, problems);
        match NodeName::try_from(name.as_str()) {
            Ok(node) => hosts.push(Host {
                name: node,
                address,
                cluster_address: inside.get_ref().clone(),
                roles,
                ssh: login,
                tags: section.tags.clone(),
            }),
            Err(error) => {
                problems.at(section.name.span(), "the host's name cannot be used", "this name", error.to_string());
            }
        }
    }
    slots(inventory, problems);
    relays(inventory, problems);
    hosts
}

/// A member that another shall stream from must be one.
fn relays(inventory: &Inventory, problems: &mut Problems) {
    let members: BTreeSet<&str> = inventory
        .hosts
        .iter()
        .filter(|host| has(host, Role::Postgres))
        .map(|host| host.name.get_ref().as_str())
        .collect();
    for section in &inventory.hosts {
        let Some(relay) = &section.tags.replicatefrom else { continue };
        let own = section.name.get_ref() == relay.as_str();
        if own || !members.contains(relay.as_str()) {
            problems.at(
                section.name.span(),
                format!("host `{}` is to stream from `{relay}`", section.name.get_ref()),
                "tags.replicatefrom of this host",
                if own { "expected another member" } else { "expected the name of a host with the role postgres" },
            );
        }
    }
}

/// Members whose names differ only in case or punctuation would share one replication slot.
fn slots(inventory: &Inventory, problems: &mut Problems) {
    let mut seen: BTreeMap<_, &Spanned<String>> = BTreeMap::new();
    for section in inventory.hosts.iter().filter(|host| has(host, Role::Postgres)) {
        let Ok(node) = NodeName::try_from(section.name.get_ref().as_str()) else {
            continue;
        };
        if let Some(first) = seen.insert(node.slot(), &section.name)
            && !first.get_ref().eq_ignore_ascii_case(section.name.get_ref())
        {
            problems.between(
                section.name.span(),
                "and this one",
                (first.span(), "this name".to_owned()),
                format!("two members would share the replication slot `{}`", node.slot()),
                "choose names that differ in letters or digits, not only in `-`, `_` or `.`",
            );
        }
    }
}

fn roles(section: &HostSection, problems: &mut Problems) -> BTreeSet<Role> {
    let mut roles: BTreeMap<Role, Range<usize>> = BTreeMap::new();
    for role in section.roles.get_ref() {
        if let Some(first) = roles.insert(*role.get_ref(), role.span()) {
            problems.between(
                role.span(),
                "again here",
                (first, "named here".to_owned()),
                format!("host `{}` has the role `{}` twice", section.name.get_ref(), role.get_ref().as_str()),
                "name each role once",
            );
        }
    }
    if roles.is_empty() {
        problems.at(
            section.roles.span(),
            format!("host `{}` has no role", section.name.get_ref()),
            "nothing to install",
            "expected one or more of postgres, zookeeper, haproxy, archive",
        );
    }
    roles.into_keys().collect()
}

fn has(section: &HostSection, role: Role) -> bool {
    section.roles.get_ref().iter().any(|own| *own.get_ref() == role)
}

fn login(defaults: &SshSection, own: &SshSection) -> Login {
    let user = own
        .user
        .clone()
        .or_else(|| defaults.user.clone())
        .or_else(|| std::env::var("USER").ok())
        .unwrap_or_else(|| "root".to_owned());
    Login {
        port: own.port.or(defaults.port).unwrap_or(22),
        key: own.key.as_ref().or(defaults.key.as_ref()).map(|path| expand_home(path)),
        sudo: own.sudo.or(defaults.sudo).unwrap_or(user != "root"),
        user,
    }
}

/// `~/…` as a shell would read it.
fn expand_home(path: &std::path::Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::var_os("HOME")) {
        (Ok(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => path.to_owned(),
    }
}

fn plain_address(address: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !address.is_empty() && address.bytes().all(plain) && !address.starts_with('-')
}

fn ensemble(inventory: &Inventory, problems: &mut Problems) {
    let servers: Vec<&HostSection> = inventory.hosts.iter().filter(|host| has(host, Role::Zookeeper)).collect();
    if inventory.hosts.is_empty() {
        return;
    }
    match servers.as_slice() {
        [] => problems.global(
            "no host has the role `zookeeper`",
            "give the role to 3 hosts (or 5; 1 is enough for a trial): without ZooKeeper nobody can be elected primary",
        ),
        [.., last] if servers.len().is_multiple_of(2) => problems.at(
            last.roles.span(),
            format!("{} hosts have the role `zookeeper`", servers.len()),
            "one too many, or one too few",
            format!(
                "expected an odd number: {} servers survive the loss of no more than {} do",
                servers.len(),
                servers.len() - 1
            ),
        ),
        _ => {}
    }
}

fn members(inventory: &Inventory, problems: &mut Problems) {
    if !inventory.hosts.is_empty() && !inventory.hosts.iter().any(|host| has(host, Role::Postgres)) {
        problems.global("no host has the role `postgres`", "give the role to 2 or more hosts");
    }
}

fn archive(inventory: &Inventory, problems: &mut Problems) -> Option<Archive> {
    let holders: Vec<&HostSection> = inventory.hosts.iter().filter(|host| has(host, Role::Archive)).collect();
    if let [first, second, ..] = holders.as_slice() {
        problems.between(
            second.roles.span(),
            "and this one",
            (first.roles.span(), "this host".to_owned()),
            "two hosts have the role `archive`",
            "expected one: all members push to the same repository",
        );
    }
    match (inventory.archive.as_ref().map(|archive| (archive.span(), archive.get_ref())), holders.first()) {
        (Some((span, ArchiveSection::Directory { path })), holder) => {
            if let Some(holder) = holder {
                problems.between(
                    holder.roles.span(),
                    "this host has the role `archive`",
                    (span, "but the archive is a directory".to_owned()),
                    "an archive of kind `directory` needs no archive host",
                    "take the role away, or set kind = \"pgbackrest\"",
                );
            } else if !path.is_absolute() || !plain_path(path) {
                problems.at(
                    span,
                    format!("archive.path = \"{}\" cannot be used", path.display()),
                    "this archive",
                    "expected an absolute path of letters, digits, `/`, `.`, `_` and `-`",
                );
            }
            Some(Archive::Directory { path: path.clone() })
        }
        (Some((span, ArchiveSection::Pgbackrest { .. })), None) => {
            problems.at(
                span,
                "no host has the role `archive`",
                "this archive has no home",
                "give one host the role `archive`, best one without the role `postgres`",
            );
            None
        }
        (None, None) => {
            if !inventory.hosts.is_empty() {
                problems.global(
                    "there is no WAL archive",
                    "give one host the role `archive`, or write [archive] with kind = \"directory\" and the path of a shared mount",
                );
            }
            None
        }
        (section, Some(holder)) => Some(Archive::Pgbackrest {
            host: holder.name.get_ref().clone(),
            keep_full: match section {
                Some((span, ArchiveSection::Pgbackrest { keep_full })) => {
                    if *keep_full == 0 {
                        problems.at(span, "archive.keep_full cannot be 0", "this archive", "expected 1 or more");
                    }
                    *keep_full
                }
                _ => 2,
            },
        }),
    }
}

fn plain_path(path: &std::path::Path) -> bool {
    path.to_str().is_some_and(|path| {
        path.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'_' | b'-'))
    })
}

fn haproxy(section: &HaproxySection, problems: &mut Problems) -> Haproxy {
    let networks = match &section.stats_networks {
        None => [LOOPBACK, "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"].map(str::to_owned).to_vec(),
        Some(networks) => {
            cidrs(networks, "haproxy.stats_networks", problems);
            // The page is looked at from the balancer itself, to see that it works.
            [LOOPBACK.to_owned()].into_iter().chain(networks.get_ref().iter().cloned()).collect()
        }
    };
    Haproxy {
        port: nonzero(section.port.as_ref(), 5432, "haproxy.port", problems),
        read_port: nonzero(section.read_port.as_ref(), 5433, "haproxy.read_port", problems),
        stats_port: nonzero(section.stats_port.as_ref(), 7000, "haproxy.stats_port", problems),
        stats_networks: networks,
    }
}

fn cidrs(networks: &Spanned<Vec<String>>, key: &str, problems: &mut Problems) {
    for network in networks.get_ref() {
        if !is_cidr(network) {
            problems.at(
                networks.span(),
                format!("{key}: `{network}` is not a network"),
                "in this list",
                "expected CIDR notation, as in \"10.0.0.0/8\" or \"fd00::/8\"",
            );
        }
    }
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else {
        return false;
    };
    match (address.parse::<std::net::IpAddr>(), bits.parse::<u8>()) {
        (Ok(address), Ok(bits)) => bits <= if address.is_ipv4() { 32 } else { 128 },
        _ => false,
    }
}

/// Who listens where on one host.
struct Listener {
    port: u16,
    what: String,
    span: Range<usize>,
}

fn ports(inventory: &Inventory, port: u16, haproxy: &Haproxy, archive: Option<&Archive>, problems: &mut Problems) {
    for host in &inventory.hosts {
        let fallback = host.roles.span();
        let span_of = |role: Role| {
            host.roles
                .get_ref()
                .iter()
                .find(|own| *own.get_ref() == role)
                .map_or_else(|| fallback.clone(), Spanned::span)
        };
        let mut listeners: Vec<Listener> = Vec::new();
        let mut add = |port: u16, what: &str, span: Range<usize>| {
            listeners.push(Listener { port, what: what.to_owned(), span });
        };
        add(host.ssh.port.or(inventory.ssh.port).unwrap_or(22), "SSH", host.name.span());
        if has(host, Role::Postgres) {
            let span = span_of(Role::Postgres);
            add(
                port,
                "PostgreSQL (role `postgres`, cluster.port)",
                inventory.cluster.port.as_ref().map_or_else(|| span.clone(), Spanned::span),
            );
            add(REST_PORT, "the agent (role `postgres`)", span);
        }
        if has(host, Role::Zookeeper) {
            let span = span_of(Role::Zookeeper);
            add(ZOOKEEPER_PORT, "ZooKeeper (role `zookeeper`)", span.clone());
            add(ZOOKEEPER_PEER_PORTS.0, "ZooKeeper's followers (role `zookeeper`)", span.clone());
            add(ZOOKEEPER_PEER_PORTS.1, "ZooKeeper's elections (role `zookeeper`)", span);
        }
        let pgbackrest = matches!(archive, Some(Archive::Pgbackrest { .. }));
        if pgbackrest && (has(host, Role::Postgres) || has(host, Role::Archive)) {
            add(PGBACKREST_PORT, "pgBackRest", fallback.clone());
        }
        if has(host, Role::Haproxy) {
            let span = span_of(Role::Haproxy);
            let section = &inventory.haproxy;
            for (port, what, given) in [
                (haproxy.port, "HAProxy (role `haproxy`, haproxy.port)", &section.port),
                (haproxy.read_port, "HAProxy (role `haproxy`, haproxy.read_port)", &section.read_port),
                (haproxy.stats_port, "HAProxy (role `haproxy`, haproxy.stats_port)", &section.stats_port),
            ] {
                add(port, what, given.as_ref().map_or_else(|| span.clone(), Spanned::span));
            }
        }
        for (index, listener) in listeners.iter().enumerate() {
            let Some(first) = listeners[..index].iter().find(|other| other.port == listener.port) else {
                continue;
            };
            problems.between(
                listener.span.clone(),
                listener.what.clone(),
                (first.span.clone(), first.what.clone()),
                format!("two roles want port {} of host `{}`", listener.port, host.name.get_ref()),
                if has(host, Role::Haproxy) && has(host, Role::Postgres) {
                    "give HAProxy other ports: [haproxy] port = 5000, read_port = 5001"
                } else {
                    "give one of them another port, or move a role to another host"
                },
            );
        }
    }
}

type PostgresChoices = (BTreeMap<String, String>, Vec<String>, Vec<String>);

fn postgres(section: &PostgresSection, problems: &mut Problems) -> PostgresChoices {
    let mut parameters = BTreeMap::new();
    for (name, value) in &section.parameters {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
        if name.get_ref().is_empty() || !name.get_ref().bytes().all(plain) {
            problems.at(
                name.span(),
                format!("`{}` is not the name of a Postgres setting", name.get_ref()),
                "this name",
                "expected letters, digits, `_` and `.`",
            );
            continue;
        }
        if OWNED_PARAMETERS.contains(&name.get_ref().as_str()) {
            problems.at(
                name.span(),
                format!("postgres.parameters.{} is set by pgha itself", name.get_ref()),
                "this setting",
                "remove it: it follows from the state of the cluster or from another key of the inventory",
            );
            continue;
        }
        let text = match value.get_ref() {
            toml::Value::String(text) if !text.contains(['\n', '\0']) => text.clone(),
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Float(number) => number.to_string(),
            toml::Value::Boolean(yes) => if *yes { "on" } else { "off" }.to_owned(),
            _ => {
                problems.at(
                    value.span(),
                    format!("postgres.parameters.{} has a value that no setting takes", name.get_ref()),
                    "this value",
                    "expected a text of one line, a number, true or false",
                );
                continue;
            }
        };
        parameters.insert(name.get_ref().clone(), text);
    }
    let mut hba = Vec::new();
    for line in &section.hba {
        if line.get_ref().contains(['\n', '\0']) {
            problems.at(
                line.span(),
                "a line of postgres.hba holds a line break",
                "this entry",
                "expected one line of pg_hba.conf per entry",
            );
        }
        hba.push(line.get_ref().clone());
    }
    let clients = match &section.clients {
        None => vec!["samenet".to_owned()],
        Some(networks) => {
            for network in networks.get_ref() {
                if network != "samenet" && !is_cidr(network) {
                    problems.at(
                        networks.span(),
                        format!("postgres.clients: `{network}` is not a network"),
                        "in this list",
                        "expected \"samenet\" or CIDR notation, as in \"10.0.0.0/8\"",
                    );
                }
            }
            networks.get_ref().clone()
        }
    };
    (parameters, hba, clients)
}

fn databases(inventory: &Inventory, problems: &mut Problems) -> Vec<Database> {
    let Some(sections) = &inventory.databases else {
        return vec![Database { name: "app".to_owned(), owner: "app".to_owned() }];
    };
    let mut seen: BTreeMap<&str, Range<usize>> = BTreeMap::new();
    let mut databases = Vec::new();
    for section in sections {
        let owner = section.owner.as_ref().unwrap_or(&section.name);
        for (spot, what, reserved) in [(&section.name, "database", RESERVED_DATABASES), (owner, "role", RESERVED_ROLES)]
        {
            let name = spot.get_ref().as_str();
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            let good = (1..=63).contains(&name.len())
                && name.bytes().all(plain)
                && !name.starts_with(|first: char| first.is_ascii_digit());
            if !good || name.starts_with("pg_") || reserved.contains(&name) {
                problems.at(
                    spot.span(),
                    format!("`{name}` cannot be the name of a {what}"),
                    "this name",
                    "expected 1 to 63 of a-z, 0-9 and `_`, no digit first, and no name that Postgres or pgha keeps for itself",
                );
            }
        }
        if let Some(first) = seen.insert(section.name.get_ref(), section.name.span()) {
            problems.between(
                section.name.span(),
                "again here",
                (first, "first named here".to_owned()),
                format!("two databases are named `{}`", section.name.get_ref()),
                "name each database once",
            );
        }
        databases.push(Database { name: section.name.get_ref().clone(), owner: owner.get_ref().clone() });
    }
    databases
}

/// What is allowed but worth saying.
fn remarks(hosts: &[Host]) -> Vec<String> {
    let count = |role: Role| hosts.iter().filter(|host| host.has(role)).count();
    let mut remarks = Vec::new();
    if count(Role::Postgres) == 1 {
        remarks.push("only one host has the role `postgres`: nothing can take over from it".to_owned());
    }
    if count(Role::Zookeeper) == 1 {
        remarks.push(
            "only one host has the role `zookeeper`: while it is down the database is down, too; use 3 in production"
                .to_owned(),
        );
    }
    if count(Role::Haproxy) == 0 {
        remarks.push(
            "no host has the role `haproxy`: clients must name all members and target_session_attrs=read-write"
                .to_owned(),
        );
    }
    remarks
}
