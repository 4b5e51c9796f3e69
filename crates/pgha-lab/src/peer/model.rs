//! What the peer takes over from the cluster that it is compared with: the ensemble as it is, and Postgres' settings.

use super::{packages, put};
use crate::{
    Error, Host, Result,
    cluster::{Cluster, DATABASES},
};

const CONFIG: &str = "/etc/pgha/zookeeper/zoo.cfg";
const DATA: &str = "/var/lib/pgha-zookeeper";
const UNIT: &str = "/etc/systemd/system/pgha-zookeeper.service";
const PACKAGES: [&str; 3] = ["libzookeeper-java", "libslf4j-java", "default-jre-headless"];
/// What says nothing about who manages Postgres; the rest is left to the peer.
const SETTINGS: [&str; 18] = [
    "checkpoint_timeout",
    "effective_cache_size",
    "maintenance_work_mem",
    "max_connections",
    "max_replication_slots",
    "max_wal_senders",
    "max_wal_size",
    "min_wal_size",
    "shared_buffers",
    "tcp_keepalives_count",
    "tcp_keepalives_idle",
    "tcp_keepalives_interval",
    "tcp_user_timeout",
    "wal_compression",
    "wal_keep_size",
    "wal_level",
    "wal_receiver_timeout",
    "wal_sender_timeout",
];

/// The model.
#[derive(Debug, Clone)]
pub struct Model {
    config: String,
    unit: String,
    /// Each server's number, in the order of [`DATABASES`].
    numbers: Vec<String>,
    /// Names and values of Postgres' settings.
    settings: Vec<(&'static str, String)>,
}

impl Model {
    /// Reads it from an installed cluster.
    pub fn of(cluster: &Cluster<'_>) -> Result<Self> {
        let first = cluster.host(DATABASES[0])?;
        let number = |name: &&str| cluster.host(name)?.run(&format!("cat {DATA}/myid"));
        let setting = |name: &'static str| {
            let rows = cluster.write(&format!("select current_setting('{name}')"))?;
            let value = rows.into_iter().flatten().flatten().next();
            let value = value.ok_or_else(|| Error::State(format!("Postgres does not tell its {name}")))?;
            Ok((name, value))
        };
        Ok(Self {
            config: first.run(&format!("cat {CONFIG}"))?,
            unit: first.run(&format!("cat {UNIT}"))?,
            numbers: DATABASES.iter().map(number).collect::<Result<_>>()?,
            settings: SETTINGS.into_iter().map(setting).collect::<Result<_>>()?,
        })
    }

    /// The settings as lines of YAML.
    pub(super) fn parameters(&self, indent: usize) -> String {
        let line = |(name, value): &(&str, String)| format!("{:indent$}{name}: \"{value}\"", "");
        self.settings.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// Makes a host a server of the ensemble.
    pub(super) fn install(&self, host: &Host) -> Result<()> {
        let number = DATABASES.iter().zip(&self.numbers).find(|(name, _)| **name == host.name());
        let (_, number) =
            number.ok_or_else(|| Error::State(format!("{} is no server of the ensemble", host.name())))?;
        // Java's package cannot be configured without the directory (Debian bug 863199).
        host.run("mkdir --parents /usr/share/man/man1")?;
        packages(host, &PACKAGES)?;
        host.run(&format!(
            "set -eu; useradd --system --user-group --home-dir {DATA} --no-create-home --shell /usr/sbin/nologin \
             zookeeper; install --directory --mode=0750 --owner=zookeeper --group=zookeeper {DATA}"
        ))?;
        put(host, CONFIG, &self.config, ("root", "0644"))?;
        put(host, UNIT, &self.unit, ("root", "0644"))?;
        // Its directory is there and keeps its owner.
        host.run(&format!("echo {} > {DATA}/myid && chown zookeeper: {DATA}/myid", number.trim()))?;
        host.run("systemctl daemon-reload && systemctl enable --quiet --now pgha-zookeeper").map(drop)
    }
}
