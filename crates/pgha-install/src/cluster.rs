//! The cluster that an inventory asks for: checked, defaults filled in, nothing left to guess.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use pgha_core::config::{Tags, WatchdogMode};
use pgha_core::name::{ClusterName, NodeName};
use pgha_core::timing::{Profile, Timing};

use crate::inventory::{Role, Synchronous};

/// Port of the agent's REST API.
pub const REST_PORT: u16 = 8008;
/// ZooKeeper's port for clients.
pub const ZOOKEEPER_PORT: u16 = 2181;
/// ZooKeeper's ports between servers: followers to leader, and elections.
pub const ZOOKEEPER_PEER_PORTS: (u16, u16) = (2888, 3888);
/// Port of pgBackRest's TLS server.
pub const PGBACKREST_PORT: u16 = 8432;
/// The kernel's first watchdog, under its old name.
pub const WATCHDOG: &str = "/dev/watchdog";

/// A cluster to install.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Its name.
    pub name: ClusterName,
    /// Profile of the timings of leadership.
    pub profile: Profile,
    /// Whether commits wait for a standby.
    pub synchronous: Synchronous,
    /// Whether a primary without ZooKeeper goes on while all members promise not to lead.
    pub failsafe: bool,
    /// Major version of Postgres.
    pub version: u16,
    /// TCP port of Postgres.
    pub port: u16,
    /// Whether a primary needs the kernel watchdog.
    pub watchdog: WatchdogMode,
    /// The kernel watchdog, on each host with a member.
    pub watchdog_device: String,
    /// The WAL archive.
    pub archive: Archive,
    /// Ports of the balancer.
    pub haproxy: Haproxy,
    /// `postgresql.conf` settings that the user chose.
    pub parameters: BTreeMap<String, String>,
    /// Lines of `pg_hba.conf` that the user chose.
    pub hba: Vec<String>,
    /// Networks from which clients connect.
    pub clients: Vec<String>,
    /// Databases to make, each with its owner.
    pub databases: Vec<Database>,
    /// The hosts, in the order of the inventory.
    pub hosts: Vec<Host>,
    /// File of known host keys.
    pub known_hosts: Option<PathBuf>,
    /// What is allowed but worth saying.
    pub remarks: Vec<String>,
}

/// Where finished WAL goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Archive {
    /// A pgBackRest repository on this host.
    Pgbackrest {
        /// Name of the host with role `archive`.
        host: String,
        /// Full backups kept.
        keep_full: u32,
    },
    /// A directory that every database host mounts.
    Directory {
        /// The directory.
        path: PathBuf,
    },
}

/// Ports of the balancer.
#[derive(Debug, Clone)]
pub struct Haproxy {
    /// Always the primary.
    pub port: u16,
    /// The standbys.
    pub read_port: u16,
    /// The statistics page.
    pub stats_port: u16,
    /// Who may see the statistics page.
    pub stats_networks: Vec<String>,
}

/// A database and its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Name of the database.
    pub name: String,
    /// Role that owns it.
    pub owner: String,
}

/// One host.
#[derive(Debug, Clone)]
pub struct Host {
    /// Name of the host and of its member.
    pub name: NodeName,
    /// Address for SSH.
    pub address: String,
    /// Address under which the hosts reach each other.
    pub cluster_address: String,
    /// What runs on it.
    pub roles: BTreeSet<Role>,
    /// How to log in.
    pub ssh: Login,
    /// What its member may become.
    pub tags: Tags,
}

/// How to log in to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Login name.
    pub user: String,
    /// TCP port.
    pub port: u16,
    /// Private key file; the ssh-agent and the usual files when absent.
    pub key: Option<PathBuf>,
    /// Whether commands go through `sudo`.
    pub sudo: bool,
}

impl Host {
    /// Whether `role` runs here.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// The cluster address with a port; an IPv6 address gets its brackets.
    pub fn endpoint(&self, port: u16) -> String {
        endpoint(&self.cluster_address, port)
    }
}

/// `address:port`; an IPv6 address gets its brackets.
pub fn endpoint(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

impl Cluster {
    /// The hosts with a role, in the order of the inventory.
    pub fn with(&self, role: Role) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(move |host| host.has(role))
    }

    /// The timings of leadership.
    pub fn timing(&self) -> Timing {
        Timing::of(self.profile)
    }

    /// `PGDATA`.
    pub fn data_dir(&self) -> String {
        format!("/var/lib/postgresql/{}/pgha", self.version)
    }

    /// The networks from which members replicate: exactly their addresses where those are numbers.
    pub fn replication_networks(&self) -> Vec<String> {
        let exact: Option<Vec<String>> = self
            .with(Role::Postgres)
            .map(|host| {
                let address: IpAddr = host.cluster_address.parse().ok()?;
                Some(format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 }))
            })
            .collect();
        exact.unwrap_or_else(|| vec!["samenet".to_owned()])
    }

    /// Roles that own databases, each once.
    pub fn owners(&self) -> BTreeSet<&str> {
        self.databases.iter().map(|database| database.owner.as_str()).collect()
    }
}
