//! `agent.toml`: what one member must know before it has seen the cluster. Written by the installer, read by the agent.
//!
//! Settings of the whole cluster live in the `config` znode ([`crate::wire`]); `bootstrap` holds their first values.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::name::{ClusterName, NodeName};
use crate::time::Millis;
use crate::timing::{Profile, Timing, TimingError};
use crate::wire::SynchronousMode;

/// The whole of `agent.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The cluster's name.
    pub cluster: ClusterName,
    /// This member's name.
    pub name: NodeName,
    /// First part of every znode path.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// Passwords, in a file of their own (see [`Secrets`]).
    #[serde(default = "default_secrets_file")]
    pub secrets_file: PathBuf,
    /// What must survive a reboot: quarantined WAL, the record of past leaderships, the journal.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
    /// What must not survive a reboot: the lease, the password file of walreceiver.
    #[serde(default = "default_run_dir")]
    pub run_dir: PathBuf,
    /// Where the ensemble is.
    pub zookeeper: ZooKeeper,
    /// Timings of leadership.
    #[serde(default)]
    pub timing: TimingChoice,
    /// The agent's HTTP interface.
    pub rest: Rest,
    /// The local Postgres.
    pub postgres: Postgres,
    /// Where finished WAL goes, and where missing WAL comes from.
    #[serde(default)]
    pub archive: Option<Archive>,
    /// The kernel watchdog.
    #[serde(default)]
    pub watchdog: Watchdog,
    /// What this member may become.
    #[serde(default)]
    pub tags: Tags,
    /// The record of what the agent saw and decided.
    #[serde(default)]
    pub journal: Journal,
    /// How much is kept of what the cluster does not have.
    #[serde(default)]
    pub quarantine: Quarantine,
    /// First values of the cluster-wide settings, used once, when the cluster is made.
    #[serde(default)]
    pub bootstrap: Bootstrap,
}

/// Section `[zookeeper]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZooKeeper {
    /// `host:port` of each server of the ensemble.
    pub hosts: Vec<String>,
}

/// Section `[timing]`: a profile, and single values over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimingChoice {
    /// Where values not given below come from.
    #[serde(default)]
    pub profile: Profile,
    /// See [`Timing::ttl`].
    pub ttl: Option<Millis>,
    /// See [`Timing::heartbeat`].
    pub heartbeat: Option<Millis>,
    /// See [`Timing::guard`].
    pub guard: Option<Millis>,
    /// See [`Timing::stop_budget`].
    pub stop_budget: Option<Millis>,
    /// See [`Timing::tick`].
    pub tick: Option<Millis>,
}

impl TimingChoice {
    /// The timings chosen.
    pub fn resolve(&self) -> Timing {
        let base = Timing::of(self.profile);
        Timing {
            ttl: self.ttl.unwrap_or(base.ttl),
            heartbeat: self.heartbeat.unwrap_or(base.heartbeat),
            guard: self.guard.unwrap_or(base.guard),
            stop_budget: self.stop_budget.unwrap_or(base.stop_budget),
            tick: self.tick.unwrap_or(base.tick),
        }
    }
}

/// Section `[rest]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rest {
    /// Address and port to listen on.
    #[serde(default = "default_rest_listen")]
    pub listen: String,
    /// `host:port` under which the other members, HAProxy and people reach it.
    pub advertise: String,
}

/// Section `[postgres]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Postgres {
    /// Directory of `postgres`, `initdb`, `pg_rewind`, …
    #[serde(default = "default_bin_dir")]
    pub bin_dir: PathBuf,
    /// `PGDATA`.
    #[serde(default = "default_data_dir")]
    pub data_dir: PathBuf,
    /// Directory of the Unix socket.
    #[serde(default = "default_socket_dir")]
    pub socket_dir: PathBuf,
    /// `listen_addresses`.
    #[serde(default = "default_listen")]
    pub listen: String,
    /// TCP port.
    #[serde(default = "default_port")]
    pub port: u16,
    /// `host:port` under which the other members and HAProxy reach it.
    pub advertise: String,
    /// Who starts Postgres.
    #[serde(default)]
    pub supervisor: Supervisor,
    /// systemd unit that runs Postgres, with `supervisor = "systemd"`.
    #[serde(default = "default_unit")]
    pub unit: String,
    /// Locale of a new cluster.
    #[serde(default = "default_locale")]
    pub locale: String,
    /// Name of the superuser that `initdb` makes.
    #[serde(default = "default_superuser")]
    pub superuser: String,
    /// Name of the role that standbys connect as.
    #[serde(default = "default_replicator")]
    pub replication_user: String,
    /// Name of the role that `pg_rewind` connects as.
    #[serde(default = "default_rewinder")]
    pub rewind_user: String,
    /// `postgresql.conf` settings of this member, over those in the `config` znode.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// Lines of `pg_hba.conf` after the ones that pgha itself needs.
    #[serde(default)]
    pub hba: Vec<String>,
    /// Networks from which members replicate, in CIDR notation.
    #[serde(default = "default_replication_networks")]
    pub replication_networks: Vec<String>,
}

/// Who starts Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Supervisor {
    /// A systemd unit of its own, started over D-Bus.
    #[default]
    Systemd,
    /// The agent, in a session of its own; for tests and for hosts without D-Bus.
    Direct,
}

/// Section `[archive]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Archive {
    /// A pgBackRest repository.
    Pgbackrest {
        /// Name of the stanza.
        stanza: String,
        /// pgBackRest's own configuration file.
        #[serde(default = "default_pgbackrest_config")]
        config: PathBuf,
    },
    /// A directory that every member mounts.
    Directory {
        /// The directory.
        path: PathBuf,
    },
}

/// Section `[watchdog]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watchdog {
    /// Whether a primary needs one.
    #[serde(default)]
    pub mode: WatchdogMode,
    /// The device.
    #[serde(default = "default_watchdog_device")]
    pub device: PathBuf,
}

impl Default for Watchdog {
    fn default() -> Self {
        Self { mode: WatchdogMode::default(), device: default_watchdog_device() }
    }
}

/// Whether a primary needs the kernel watchdog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WatchdogMode {
    /// Never opened.
    Off,
    /// Armed where it works; a warning where it does not.
    #[default]
    Automatic,
    /// A member without a working watchdog is never promoted.
    Required,
}

/// Section `[tags]`: Patroni's names and meanings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tags {
    /// Never promoted.
    #[serde(default, skip_serializing_if = "is_false")]
    pub nofailover: bool,
    /// Not offered to readers by the balancer.
    #[serde(default, skip_serializing_if = "is_false")]
    pub noloadbalance: bool,
    /// Preferred as the source of new members.
    #[serde(default, skip_serializing_if = "is_false")]
    pub clonefrom: bool,
    /// Does not stream: lives on the archive alone.
    #[serde(default, skip_serializing_if = "is_false")]
    pub nostream: bool,
    /// The member to stream from in place of the leader, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicatefrom: Option<NodeName>,
    /// Never a synchronous standby.
    #[serde(default, skip_serializing_if = "is_false")]
    pub nosync: bool,
    /// Among equally advanced candidates the greater one is promoted; 0 is `nofailover`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover_priority: Option<u32>,
    /// Of several standbys the greater one is synchronous; 0 is `nosync`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_priority: Option<u32>,
}

/// Section `[journal]`: the record of what the agent saw and decided, under `state_dir`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    /// Whether one is kept.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// A file is closed when it is this long.
    #[serde(default = "default_journal_file")]
    pub max_file_bytes: u64,
    /// How many files are kept.
    #[serde(default = "default_journal_files")]
    pub files: u32,
}

impl Default for Journal {
    fn default() -> Self {
        Self { enabled: true, max_file_bytes: default_journal_file(), files: default_journal_files() }
    }
}

/// Section `[quarantine]`: WAL that this member wrote and the cluster does not have, under `state_dir`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quarantine {
    /// Where there is more, the WAL of the oldest partings is deleted; that of the newest never is. What was in it stays
    /// listed.
    #[serde(default = "default_quarantine")]
    pub max_bytes: u64,
}

impl Default for Quarantine {
    fn default() -> Self {
        Self { max_bytes: default_quarantine() }
    }
}

/// A file must hold some turns with everything that was observed in them.
const LEAST_JOURNAL_FILE: u64 = 64 << 10;

/// Section `[bootstrap]`: first values of the cluster-wide settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bootstrap {
    /// Commits wait for standbys: `true`, `false` or `"quorum"`.
    #[serde(default = "named")]
    pub synchronous_mode: SynchronousMode,
    /// Commits wait even when no standby is there.
    #[serde(default)]
    pub synchronous_mode_strict: bool,
    /// Standbys that a commit waits for.
    #[serde(default = "one")]
    pub synchronous_node_count: u32,
    /// A standby further behind than this (bytes) does not become primary; matters only without synchronous mode.
    #[serde(default = "default_maximum_lag")]
    pub maximum_lag_on_failover: u64,
    /// A primary without ZooKeeper goes on for as long as all members promise not to lead.
    #[serde(default)]
    pub failsafe_mode: bool,
    /// `postgresql.conf` settings of every member.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
}

fn named() -> SynchronousMode {
    SynchronousMode::On
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self {
            synchronous_mode: named(),
            synchronous_mode_strict: false,
            synchronous_node_count: 1,
            maximum_lag_on_failover: default_maximum_lag(),
            failsafe_mode: false,
            parameters: BTreeMap::new(),
        }
    }
}

/// `secrets.toml`: passwords; readable by nobody but the agent.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    /// Password of the superuser (for remote connections; the local one authenticates as its Unix user).
    pub superuser_password: String,
    /// Password of the replication role.
    pub replication_password: String,
    /// Password of the rewind role.
    pub rewind_password: String,
    /// User name for REST calls that change something.
    pub rest_username: String,
    /// Password for REST calls that change something.
    pub rest_password: String,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(…)")
    }
}

/// A configuration that cannot be used: which key, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not TOML, an unknown or missing key, or a value of the wrong kind; carries place and caret.
    #[error("{0}")]
    Syntax(String),
    /// A value that is well-formed but cannot be used.
    #[error("{key} = {value}: {why}")]
    Value {
        /// Dotted key.
        key: &'static str,
        /// Its value.
        value: String,
        /// Why it cannot be used.
        why: String,
    },
    /// Timings that do not fit together.
    #[error(transparent)]
    Timing(#[from] TimingError),
}

impl Config {
    /// Reads and checks the text of `agent.toml`.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self =
            toml::from_str(text).map_err(|error| ConfigError::Syntax(error.to_string().trim_end().to_owned()))?;
        config.check()?;
        Ok(config)
    }

    /// The timings chosen.
    pub fn timing(&self) -> Timing {
        self.timing.resolve()
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.timing().check()?;
        let wrong = |key, value: &str, why: &str| {
            Err(ConfigError::Value { key, value: format!("{value:?}"), why: why.to_owned() })
        };
        if self.zookeeper.hosts.is_empty() {
            return wrong("zookeeper.hosts", "", "needs at least one host:port");
        }
        for (key, address) in self
            .zookeeper
            .hosts
            .iter()
            .map(|host| ("zookeeper.hosts", host))
            .chain([("rest.listen", &self.rest.listen), ("rest.advertise", &self.rest.advertise)])
            .chain([("postgres.advertise", &self.postgres.advertise)])
        {
            if split_host_port(address).is_none() {
                return wrong(key, address, "expected host:port with a port from 1 to 65535");
            }
        }
        let well_formed = self.namespace.starts_with('/')
            && !self.namespace.ends_with('/')
            && !self.namespace.contains("//")
            && self.namespace.bytes().all(|byte| byte.is_ascii_graphic());
        if !well_formed {
            return wrong("namespace", &self.namespace, "must begin with `/`, not end with it, and hold no blanks");
        }
        for (key, path) in [
            ("secrets_file", &self.secrets_file),
            ("state_dir", &self.state_dir),
            ("run_dir", &self.run_dir),
            ("postgres.bin_dir", &self.postgres.bin_dir),
            ("postgres.data_dir", &self.postgres.data_dir),
            ("postgres.socket_dir", &self.postgres.socket_dir),
            ("watchdog.device", &self.watchdog.device),
        ] {
            if !path.is_absolute() {
                return wrong(key, &path.display().to_string(), "must be an absolute path");
            }
        }
        for (key, parameters) in
            [("postgres.parameters", &self.postgres.parameters), ("bootstrap.parameters", &self.bootstrap.parameters)]
        {
            for name in parameters.keys() {
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
                if name.is_empty() || !name.bytes().all(plain) {
                    return wrong(key, name, "is not the name of a Postgres setting");
                }
                if OWNED_PARAMETERS.contains(&name.as_str()) {
                    return wrong(key, name, "is set by pgha itself, from the state of the cluster");
                }
            }
        }
        if let Some(line) = self.postgres.hba.iter().find(|line| line.contains(['\n', '\0'])) {
            return wrong("postgres.hba", line, "must be one line");
        }
        if self.bootstrap.synchronous_node_count == 0 {
            return wrong(
                "bootstrap.synchronous_node_count",
                "0",
                "must be 1 or more; see synchronous_mode to turn it off",
            );
        }
        if self.journal.max_file_bytes < LEAST_JOURNAL_FILE {
            return wrong("journal.max_file_bytes", &self.journal.max_file_bytes.to_string(), "must be 65536 or more");
        }
        if self.journal.files == 0 {
            return wrong("journal.files", "0", "must be 1 or more; see journal.enabled to turn it off");
        }
        if let Some(Archive::Directory { path }) = &self.archive
            && !path.is_absolute()
        {
            return wrong("archive.path", &path.display().to_string(), "must be an absolute path");
        }
        Ok(())
    }
}

/// Postgres settings that follow from the cluster's state and that nobody else may set.
pub const OWNED_PARAMETERS: &[&str] = &[
    "archive_command",
    "archive_library",
    "archive_mode",
    "cluster_name",
    "config_file",
    "data_directory",
    "external_pid_file",
    "hba_file",
    "hot_standby",
    "listen_addresses",
    "port",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "restart_after_crash",
    "restore_command",
    "synchronous_standby_names",
    "unix_socket_directories",
    "wal_log_hints",
];

/// Splits `host:port`; an IPv6 address stands in brackets.
pub fn split_host_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
    let host = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    (!host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic())).then_some((host, port))
}

/// The opposite of [`split_host_port`].
pub fn join_host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl Secrets {
    /// Reads the text of `secrets.toml`. The error never quotes the text.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| ConfigError::Syntax(error.message().to_owned()))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_false(value: &bool) -> bool {
    !value
}

fn yes() -> bool {
    true
}

fn one() -> u32 {
    1
}

fn default_namespace() -> String {
    "/service".into()
}

fn default_secrets_file() -> PathBuf {
    "/etc/pgha/secrets.toml".into()
}

fn default_state_dir() -> PathBuf {
    "/var/lib/pgha".into()
}

fn default_run_dir() -> PathBuf {
    "/run/pgha".into()
}

fn default_rest_listen() -> String {
    "0.0.0.0:8008".into()
}

fn default_bin_dir() -> PathBuf {
    "/usr/lib/postgresql/15/bin".into()
}

fn default_data_dir() -> PathBuf {
    "/var/lib/postgresql/15/pgha".into()
}

fn default_socket_dir() -> PathBuf {
    "/var/run/postgresql".into()
}

fn default_listen() -> String {
    "0.0.0.0".into()
}

fn default_port() -> u16 {
    5432
}

fn default_unit() -> String {
    "pgha-postgres.service".into()
}

fn default_locale() -> String {
    "en_US.UTF-8".into()
}

fn default_superuser() -> String {
    "postgres".into()
}

fn default_replicator() -> String {
    "replicator".into()
}

fn default_rewinder() -> String {
    "pgha_rewind".into()
}

fn default_replication_networks() -> Vec<String> {
    vec!["samenet".into()]
}

fn default_pgbackrest_config() -> PathBuf {
    "/etc/pgbackrest/pgbackrest.conf".into()
}

fn default_watchdog_device() -> PathBuf {
    "/dev/watchdog".into()
}

fn default_journal_file() -> u64 {
    4 << 20
}

fn default_journal_files() -> u32 {
    8
}

/// As much as a slot may keep.
fn default_quarantine() -> u64 {
    4 << 30
}

/// 1 MiB, as in Patroni.
fn default_maximum_lag() -> u64 {
    1 << 20
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str = r#"
        cluster = "main"
        name = "db1"
        [zookeeper]
        hosts = ["10.0.0.1:2181"]
        [rest]
        advertise = "10.0.0.1:8008"
        [postgres]
        advertise = "10.0.0.1:5432"
    "#;

    #[test]
    fn the_smallest_file_is_enough() {
        let config = Config::parse(SMALLEST).unwrap();
        assert_eq!(config.timing(), Timing::default());
        assert_eq!(config.postgres.unit, "pgha-postgres.service");
        assert_eq!(config.bootstrap.synchronous_mode, SynchronousMode::On);
        assert_eq!(config.journal, Journal { enabled: true, max_file_bytes: 4 << 20, files: 8 });
        assert_eq!(config.quarantine, Quarantine { max_bytes: 4 << 30 });
    }

    #[test]
    fn each_refusal_names_its_key() {
        for (extra, expected) in [
            ("[postgres2]\n", "unknown field `postgres2`"),
            ("[timing]\nttl = \"6 days\"\n", "not a length of time"),
            ("[timing]\nttl = \"2s\"\n", "timing.ttl = 2s leaves"),
            ("[postgres.parameters]\nprimary_conninfo = \"x\"\n", "postgres.parameters"),
            ("[postgres.parameters]\n\"a b\" = \"x\"\n", "not the name of a Postgres setting"),
            ("[bootstrap]\nsynchronous_node_count = 0\n", "bootstrap.synchronous_node_count"),
            ("[archive]\nkind = \"directory\"\npath = \"rel\"\n", "archive.path"),
            ("[archive]\nkind = \"tape\"\n", "tape"),
            ("[watchdog]\nmode = \"maybe\"\n", "maybe"),
            ("[journal]\nsize = 1\n", "unknown field `size`"),
            ("[journal]\nmax_file_bytes = 65535\n", "journal.max_file_bytes"),
            ("[journal]\nfiles = 0\n", "journal.files"),
            ("[quarantine]\nmax_bytes = -1\n", "max_bytes = -1"),
        ] {
            let error = Config::parse(&format!("{SMALLEST}\n{extra}")).unwrap_err().to_string();
            assert!(error.contains(expected), "{extra:?} gave: {error}");
        }
    }

    #[test]
    fn secrets_do_not_leak() {
        let text = "superuser_password = \"hunter2\"\nreplication_password = 3\n";
        let error = Secrets::parse(text).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn addresses_are_split() {
        assert_eq!(split_host_port("db1:5432"), Some(("db1", 5432)));
        assert_eq!(split_host_port("[::1]:5432"), Some(("::1", 5432)));
        for bad in ["db1", "db1:", ":1", "db1:0", "db1:65536", "::1:5432", "a b:1"] {
            assert_eq!(split_host_port(bad), None, "{bad}");
        }
    }
}
