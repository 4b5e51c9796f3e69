//! `inventory.toml`: what the user writes. Parsed here, checked in [`check`], errors drawn in [`report`].

mod check;
mod report;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pgha_core::config::{Tags, WatchdogMode};
use pgha_core::timing::Profile;
use serde::Deserialize;
use toml::Spanned;

use crate::cluster::Cluster;

pub use report::InventoryError;

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inventory {
    /// Section `[cluster]`.
    #[serde(default)]
    pub cluster: ClusterSection,
    /// Section `[ssh]`.
    #[serde(default)]
    pub ssh: SshSection,
    /// Section `[archive]`.
    pub archive: Option<Spanned<ArchiveSection>>,
    /// Section `[haproxy]`.
    #[serde(default)]
    pub haproxy: HaproxySection,
    /// Section `[postgres]`.
    #[serde(default)]
    pub postgres: PostgresSection,
    /// Entries `[[databases]]`; one `app` owned by role `app` when the file names none.
    pub databases: Option<Vec<DatabaseSection>>,
    /// Entries `[[hosts]]`.
    #[serde(default)]
    pub hosts: Vec<HostSection>,
}

/// Section `[cluster]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterSection {
    /// Name of the cluster; part of every znode path and the name of the archive's stanza.
    pub name: Option<Spanned<String>>,
    /// How fast leadership moves.
    #[serde(default)]
    pub timing: Profile,
    /// Whether commits wait for a standby.
    #[serde(default)]
    pub synchronous: Synchronous,
    /// Whether a primary without ZooKeeper goes on while all members promise not to lead.
    #[serde(default)]
    pub failsafe: bool,
    /// Major version of Postgres.
    pub postgres: Option<Spanned<u16>>,
    /// TCP port of Postgres.
    pub port: Option<Spanned<u16>>,
    /// Whether a primary needs the kernel watchdog.
    #[serde(default)]
    pub watchdog: WatchdogMode,
    /// The kernel watchdog, on each host with a member.
    pub watchdog_device: Option<Spanned<String>>,
}

/// Whether commits wait for a standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Synchronous {
    /// They never wait.
    Off,
    /// They wait while a standby is there.
    #[default]
    On,
    /// They wait even when no standby is there.
    Strict,
    /// They wait for any one of all standbys.
    Quorum,
}

/// Section `[ssh]`, and the table `ssh` of one host.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SshSection {
    /// Login name.
    pub user: Option<String>,
    /// TCP port.
    pub port: Option<u16>,
    /// Private key file.
    pub key: Option<PathBuf>,
    /// File of known host keys.
    pub known_hosts: Option<PathBuf>,
    /// Whether commands go through `sudo`.
    pub sudo: Option<bool>,
}

/// Section `[archive]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum ArchiveSection {
    /// A pgBackRest repository on the host with role `archive`.
    Pgbackrest {
        /// Full backups kept.
        #[serde(default = "two")]
        keep_full: u32,
    },
    /// A directory that every database host mounts.
    Directory {
        /// The directory.
        path: PathBuf,
    },
}

fn two() -> u32 {
    2
}

/// Section `[haproxy]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HaproxySection {
    /// Port that always reaches the primary.
    pub port: Option<Spanned<u16>>,
    /// Port that reaches the standbys.
    pub read_port: Option<Spanned<u16>>,
    /// Port of the statistics page.
    pub stats_port: Option<Spanned<u16>>,
    /// Networks that may see the statistics page (it asks for a password besides).
    pub stats_networks: Option<Spanned<Vec<String>>>,
}

/// Section `[postgres]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresSection {
    /// Settings of `postgresql.conf`.
    #[serde(default)]
    pub parameters: BTreeMap<Spanned<String>, Spanned<toml::Value>>,
    /// Lines of `pg_hba.conf` after the ones that pgha writes.
    #[serde(default)]
    pub hba: Vec<Spanned<String>>,
    /// Networks from which clients connect.
    pub clients: Option<Spanned<Vec<String>>>,
}

/// An entry of `[[databases]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSection {
    /// Name of the database.
    pub name: Spanned<String>,
    /// Role that owns it; the database's own name when absent.
    pub owner: Option<Spanned<String>>,
}

/// An entry of `[[hosts]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostSection {
    /// Name of the host, and of the member that runs on it.
    pub name: Spanned<String>,
    /// Address for SSH, and for the cluster unless `cluster_address` says otherwise; the name when absent.
    pub address: Option<Spanned<String>>,
    /// Address under which the hosts reach each other.
    pub cluster_address: Option<Spanned<String>>,
    /// What runs on the host.
    pub roles: Spanned<Vec<Spanned<Role>>>,
    /// SSH settings of this host alone.
    #[serde(default)]
    pub ssh: SshSection,
    /// What its member may become.
    #[serde(default)]
    pub tags: Tags,
}

/// What may run on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Postgres and its agent.
    Postgres,
    /// A server of the ZooKeeper ensemble.
    Zookeeper,
    /// The balancer.
    Haproxy,
    /// The repository of the WAL archive and of backups.
    Archive,
}

impl Role {
    /// As written in the inventory.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Zookeeper => "zookeeper",
            Self::Haproxy => "haproxy",
            Self::Archive => "archive",
        }
    }
}

/// Reads an inventory file and checks it as a whole.
pub fn load(path: &Path) -> Result<Cluster, InventoryError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| InventoryError::Unreadable { path: path.to_owned(), source })?;
    let mut cluster = parse(&path.display().to_string(), &text)?;
    // Files that the inventory names are found from its own directory, wherever the installer is started.
    let directory = path.parent().unwrap_or(Path::new(""));
    let keys = cluster.hosts.iter_mut().filter_map(|host| host.ssh.key.as_mut());
    for file in keys.chain(cluster.known_hosts.as_mut()) {
        *file = directory.join(&file);
    }
    Ok(cluster)
}

/// Reads the text of an inventory; `name` is what errors call the file.
pub fn parse(name: &str, text: &str) -> Result<Cluster, InventoryError> {
    let inventory: Inventory = toml::from_str(text).map_err(|error| InventoryError::syntax(name, text, &error))?;
    check::check(&inventory).map_err(|problems| InventoryError::semantic(name, text, &problems))
}
