//! The configuration files that the agent owns inside the data directory.
//!
//! | file | content | changes |
//! |---|---|---|
//! | `postgresql.base.conf` | what `initdb` wrote | never |
//! | `postgresql.conf` | includes the others; settings of cluster and member | with the settings |
//! | `pgha.sync.conf` | `synchronous_standby_names` | with the synchronous standbys |
//! | `pgha.upstream.conf` | `primary_conninfo`, `primary_slot_name` | with the leader |
//! | `pg_hba.conf` | who may connect | with the settings |
//!
//! Three small files instead of one, so that a change of one concern cannot undo another.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use pgha_core::config::{Archive, Config, OWNED_PARAMETERS, Secrets};
use pgha_core::name::NodeName;
use pgha_guard::files;

use crate::postgres::numbers;

/// Renders the files of one member.
#[derive(Debug)]
pub(crate) struct Conf {
    config: Config,
    own_binary: PathBuf,
}

/// Settings that every member gets unless somebody sets them. Each is needed for quick and safe failover.
const DEFAULTS: &[(&str, &str)] = &[
    ("wal_level", "replica"),
    ("max_wal_senders", "10"),
    ("max_replication_slots", "10"),
    // A standby that lost its upstream tries again after this; Postgres' own default is 5 s.
    ("wal_retrieve_retry_interval", "500ms"),
    // A dead standby or primary is noticed within this, not after a minute.
    ("wal_sender_timeout", "5s"),
    ("wal_receiver_timeout", "5s"),
    ("archive_timeout", "60"),
    // Little: pg_rewind copies everything in pg_wal, and what a member misses is kept by its slot and the archive.
    ("wal_keep_size", "64MB"),
    // A standby that stays away must not fill the disk; what it misses then comes from the archive.
    ("max_slot_wal_keep_size", "4GB"),
    ("log_line_prefix", "%m [%p] %q%u@%d "),
];

/// For connections to other members: a host that is gone without a word is noticed within seconds, not after two hours.
const TCP: &str = "keepalives_idle=2 keepalives_interval=1 keepalives_count=3 tcp_user_timeout=5000";

/// What Postgres 15 has where no file says otherwise. A line that says the same, and goes away again once the standby runs,
/// would count as a change that waits for a restart.
const BUILT_IN: [(&str, u64); 4] = [
    ("max_connections", 100),
    ("max_worker_processes", 8),
    ("max_prepared_transactions", 0),
    ("max_locks_per_transaction", 64),
];

/// First line of the files that are ours alone.
const HEADER: &str = "# Written by pgha-agent; what is changed here is lost.\n";

impl Conf {
    pub(crate) fn new(config: Config) -> io::Result<Self> {
        Ok(Self { config, own_binary: std::env::current_exe()? })
    }

    fn data(&self, file: &str) -> PathBuf {
        self.config.postgres.data_dir.join(file)
    }

    /// Writes `postgresql.conf` and `pg_hba.conf`; says whether anything changed.
    pub(crate) fn write_settings(&self, cluster: &BTreeMap<String, String>) -> io::Result<bool> {
        self.write_settings_at_least(cluster, &BTreeMap::new())
    }

    /// The same, with lower bounds for some settings: a standby does not start with less than its primary had.
    pub(crate) fn write_settings_at_least(
        &self,
        cluster: &BTreeMap<String, String>,
        floors: &BTreeMap<&'static str, u64>,
    ) -> io::Result<bool> {
        let base = self.data("postgresql.base.conf");
        let main = self.data("postgresql.conf");
        let foreign = |text: String| !text.starts_with(HEADER);
        if !base.exists() && std::fs::read_to_string(&main).is_ok_and(foreign) {
            std::fs::rename(&main, &base)?;
        }
        let conf = write_if_changed(&main, &self.settings(cluster, floors))?;
        let hba = write_if_changed(&self.data("pg_hba.conf"), &self.hba())?;
        for file in ["pgha.sync.conf", "pgha.upstream.conf"] {
            if !self.data(file).exists() {
                files::replace(&self.data(file), b"")?;
            }
        }
        // ALTER SYSTEM, and tools that restore backups, leave settings here that would override ours.
        let overridden = self.purge_auto_conf()?;
        Ok(conf || hba || overridden)
    }

    fn settings(&self, cluster: &BTreeMap<String, String>, floors: &BTreeMap<&'static str, u64>) -> String {
        let mut values: BTreeMap<String, String> =
            DEFAULTS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let may_set = |name: &&String| !OWNED_PARAMETERS.contains(&name.to_ascii_lowercase().as_str());
        for (name, value) in cluster.iter().chain(&self.config.postgres.parameters).filter(|(name, _)| may_set(name)) {
            values.insert(name.to_ascii_lowercase(), value.clone());
        }
        let base = std::fs::read_to_string(self.data("postgresql.base.conf")).unwrap_or_default().to_ascii_lowercase();
        for (name, floor) in floors {
            let given = values.get(*name).and_then(|value| value.parse::<u64>().ok());
            let elsewhere = || base.lines().any(|line| [*name, "include"].iter().any(|it| line.trim().starts_with(it)));
            let value = given.or_else(|| BUILT_IN.iter().find(|it| it.0 == *name && !elsewhere()).map(|it| it.1));
            if value.is_none_or(|value| value < *floor) {
                values.insert((*name).to_owned(), floor.to_string());
            }
        }
        let postgres = &self.config.postgres;
        for (name, value) in [
            ("listen_addresses", postgres.listen.clone()),
            ("port", postgres.port.to_string()),
            ("unix_socket_directories", postgres.socket_dir.display().to_string()),
            ("cluster_name", self.config.cluster.to_string()),
            ("hot_standby", "on".into()),
            // After the crash of a backend the postmaster ends, and the agent decides: a standby that is ready takes over
            // sooner than recovery here would end, whose length nobody knows.
            ("restart_after_crash", "off".into()),
            ("wal_log_hints", "on".into()),
            ("recovery_target_timeline", "latest".into()),
            ("restore_command", self.restore_command()),
            ("archive_mode", if self.config.archive.is_some() { "on".into() } else { "off".into() }),
            ("archive_command", self.archive_command()),
        ] {
            values.insert(name.into(), value);
        }
        let mut text = String::from(
            "# Cluster-wide settings: `pghactl config set`. Settings of this member: /etc/pgha/agent.toml.\n\
             include_if_exists 'postgresql.base.conf'\n",
        );
        text.insert_str(0, HEADER);
        for (name, value) in values {
            text.push_str(&format!("{name} = {}\n", quote(&value)));
        }
        text.push_str("include_if_exists 'pgha.sync.conf'\ninclude_if_exists 'pgha.upstream.conf'\n");
        text
    }

    fn archive_command(&self) -> String {
        match &self.config.archive {
            None => String::new(),
            Some(Archive::Pgbackrest { stanza, config }) => {
                format!("pgbackrest --config={} --stanza={stanza} archive-push %p", config.display())
            }
            Some(Archive::Directory { path }) => {
                format!("{} archive put {} %p", self.own_binary.display(), path.display())
            }
        }
    }

    fn restore_command(&self) -> String {
        let fetch = match &self.config.archive {
            None => return String::new(),
            Some(Archive::Pgbackrest { stanza, config }) => {
                format!("pgbackrest --config={} --stanza={stanza} archive-get %f \"%p\"", config.display())
            }
            Some(Archive::Directory { path }) => {
                format!("{} archive get {}/%f %p", self.own_binary.display(), path.display())
            }
        };
        // A program that is missing or was killed has not found it: of its own status, above 125, Postgres would end
        // (`RestoreArchivedFile`), on every member in which it is broken.
        format!("{} {fetch} || exit 1", self.at_hand())
    }

    /// Histories that the archive is not asked for. A promotion asks for that of its own timeline, and waits for an answer
    /// that `pg_wal` has as well: what the command does not find is looked for there (`RestoreArchivedFile`, xlogarchive.c).
    /// Nor must it find that of the timeline which it begins ([`numbers`]). The files of that module in `pg_wal` are no
    /// histories, but a promotion only asks whether there is one; and the first timeline has none.
    fn at_hand(&self) -> String {
        let order = numbers::order_file(&self.config.run_dir);
        format!(
            r#"case "%f" in 00000001.history) exit 1;; *.history) ! grep -qs "^[0-9]" "pg_wal/%f" && ! grep -qsx "%f" "{order}" && {{ [ ! -e "{order}" ] || [ ! -e "pg_wal/%f" ]; }} || exit 1;; esac;"#,
            order = order.display()
        )
    }

    fn hba(&self) -> String {
        let postgres = &self.config.postgres;
        let mut text =
            format!("# Written by pgha-agent; what is changed here is lost.\nlocal all {} peer\n", postgres.superuser);
        for network in &postgres.replication_networks {
            text.push_str(&format!(
                "host replication {replicator} {network} scram-sha-256\n\
                 host postgres {rewinder} {network} scram-sha-256\n",
                replicator = postgres.replication_user,
                rewinder = postgres.rewind_user,
            ));
        }
        for line in &postgres.hba {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    fn purge_auto_conf(&self) -> io::Result<bool> {
        let path = self.data("postgresql.auto.conf");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let owned = |line: &str| {
            let name = line.split(['=', ' ', '\t']).next().unwrap_or_default();
            OWNED_PARAMETERS.contains(&name.to_ascii_lowercase().as_str())
        };
        if !text.lines().any(owned) {
            return Ok(false);
        }
        for line in text.lines().filter(|line| owned(line)) {
            let name = line.split(['=', ' ', '\t']).next().unwrap_or_default();
            tracing::warn!(setting = name, "removing a setting from postgresql.auto.conf that pgha owns");
        }
        let kept: String = text.lines().filter(|line| !owned(line)).flat_map(|line| [line, "\n"]).collect();
        files::replace(&path, kept.as_bytes())?;
        Ok(true)
    }

    /// Sets `synchronous_standby_names`.
    pub(crate) fn write_sync_names(&self, names: &str) -> io::Result<()> {
        let text = format!("synchronous_standby_names = {}\n", quote(names));
        // ALTER SYSTEM would have the last word.
        self.purge_auto_conf()?;
        files::replace(&self.data("pgha.sync.conf"), text.as_bytes())
    }

    /// Sets from whom to stream.
    pub(crate) fn write_upstream(&self, upstream: Option<&Upstream>) -> io::Result<()> {
        let text = match upstream {
            None => String::from("primary_conninfo = ''\nprimary_slot_name = ''\n"),
            Some(upstream) => format!(
                "primary_conninfo = {}\nprimary_slot_name = {}\n",
                quote(&self.conninfo(upstream)),
                quote(self.config.name.slot().as_str()),
            ),
        };
        files::replace(&self.data("pgha.upstream.conf"), text.as_bytes())
    }

    /// The `primary_conninfo` that streams from `upstream`.
    pub(crate) fn conninfo(&self, upstream: &Upstream) -> String {
        self.replication(upstream, self.config.name.as_str())
    }

    /// Connection string for `pg_basebackup`. It streams too, and must not be taken for the standby: no member can have
    /// this name.
    pub(crate) fn copy_source(&self, upstream: &Upstream) -> String {
        self.replication(upstream, "_pgha_copy_")
    }

    fn replication(&self, upstream: &Upstream, name: &str) -> String {
        let timeout = self.config.timing().ttl.0.div_ceil(1000);
        format!(
            "user={user} passfile={passfile} host={host} port={port} application_name={name} \
             connect_timeout={timeout} {TCP}",
            user = self.config.postgres.replication_user,
            passfile = self.passfile().display(),
            host = upstream.host,
            port = upstream.port,
        )
    }

    /// Connection string for `pg_rewind`.
    pub(crate) fn rewind_source(&self, upstream: &Upstream) -> String {
        format!(
            "user={user} passfile={passfile} host={host} port={port} dbname=postgres connect_timeout=5 \
             target_session_attrs=read-write {TCP}",
            user = self.config.postgres.rewind_user,
            passfile = self.passfile().display(),
            host = upstream.host,
            port = upstream.port,
        )
    }

    /// The password file that `libpq` in walreceiver, `pg_rewind` and `pg_basebackup` reads.
    pub(crate) fn passfile(&self) -> PathBuf {
        self.config.run_dir.join("pgpass")
    }

    /// Writes the password file.
    pub(crate) fn write_passfile(&self, secrets: &Secrets) -> io::Result<()> {
        let escape = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
        let mut text = String::new();
        for (user, password) in [
            (&self.config.postgres.replication_user, &secrets.replication_password),
            (&self.config.postgres.rewind_user, &secrets.rewind_password),
        ] {
            text.push_str(&format!("*:*:*:{}:{}\n", escape(user), escape(password)));
        }
        files::replace(&self.passfile(), text.as_bytes())
    }

    /// Makes the next start one as a standby, or as a primary.
    pub(crate) fn set_standby(&self, standby: bool) -> io::Result<()> {
        // recovery.signal would make Postgres end recovery by itself and begin a timeline that nobody decided on.
        files::remove(&self.data("recovery.signal"))?;
        let signal = self.data("standby.signal");
        if standby {
            files::replace(&signal, b"")?;
        } else {
            files::remove(&signal)?;
        }
        files::sync_parent(&signal)
    }
}

/// Where another member's Postgres is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upstream {
    pub(crate) name: NodeName,
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// A string of `postgresql.conf`.
fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''").replace('\n', "\\n"))
}

fn write_if_changed(path: &Path, text: &str) -> io::Result<bool> {
    if std::fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(false);
    }
    files::replace(path, text.as_bytes())?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use pgha_core::lsn::Timeline;

    use super::*;

    fn conf(data_dir: &Path) -> Conf {
        let text = format!(
            "cluster = \"main\"\nname = \"db1\"\nrun_dir = {data_dir:?}\n[zookeeper]\nhosts = [\"z:1\"]\n[rest]\nadvertise = \"a:1\"\n\
             [postgres]\nadvertise = \"a:2\"\ndata_dir = {data_dir:?}\n[postgres.parameters]\nwork_mem = \"8MB\"\n\
             [archive]\nkind = \"directory\"\npath = \"/wal\"\n"
        );
        Conf::new(Config::parse(&text).unwrap()).unwrap()
    }

    #[test]
    fn values_cannot_break_out_of_their_quotes() {
        assert_eq!(quote(r"a'b\c"), r"'a''b\\c'");
    }

    #[test]
    fn local_settings_win_and_owned_ones_cannot_be_set() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = [("work_mem", "4MB"), ("Synchronous_Standby_Names", "evil"), ("jit", "off")];
        let cluster = cluster.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let text = conf(dir.path()).settings(&cluster, &[("max_connections", 150)].into());
        assert!(text.contains("work_mem = '8MB'\n") && text.contains("jit = 'off'\n"), "{text}");
        assert!(!text.contains("evil"), "{text}");
        assert!(text.contains("max_connections = '150'\n"), "{text}");
        assert!(text.contains("archive put /wal %p'\n"), "{text}");
    }

    #[test]
    fn a_standby_is_told_only_what_it_would_not_have_anyway() {
        let dir = tempfile::tempdir().unwrap();
        let floors = [("max_connections", 100), ("max_worker_processes", 8), ("max_locks_per_transaction", 65)].into();
        let told = || {
            let text = conf(dir.path()).settings(&BTreeMap::new(), &floors);
            text.lines().filter(|line| floors.keys().any(|name| line.starts_with(name))).map(str::to_owned).collect()
        };
        let told: [Vec<String>; 2] = [told(), {
            // Nobody knows here what it says.
            std::fs::write(dir.path().join("postgresql.base.conf"), "# x\n max_connections = 50\n").unwrap();
            told()
        }];
        assert_eq!(told[0], ["max_locks_per_transaction = '65'"]);
        assert_eq!(told[1], ["max_connections = '100'", "max_locks_per_transaction = '65'"]);
    }

    #[test]
    fn only_a_history_at_hand_is_not_fetched() {
        let dir = tempfile::tempdir().unwrap();
        let conf = conf(dir.path());
        std::fs::create_dir(dir.path().join("pg_wal")).unwrap();
        std::fs::write(dir.path().join("pg_wal/00000002.history"), "1\t0/3000000\tno recovery target specified\n")
            .unwrap();
        numbers::take(dir.path(), Timeline(2), Timeline(4)).unwrap();
        std::fs::write(dir.path().join("pg_wal/000000020000000000000003"), "2").unwrap();
        let fetches = |name: &str| {
            let command = format!("{} exit 42", conf.at_hand()).replace("%f", name);
            let ended =
                std::process::Command::new("sh").args(["-c", &command]).current_dir(dir.path()).status().unwrap();
            match ended.code() {
                Some(42) => true,
                Some(1) => false,
                other => panic!("{name}: {other:?}"),
            }
        };
        assert!(!fetches("00000001.history") && !fetches("00000002.history"));
        assert!(fetches("00000003.history"), "a number that is only taken was read as a history");
        assert!(fetches("00000004.history") && fetches("000000020000000000000003"));
        numbers::order(&conf.config.run_dir, Timeline(4)).unwrap();
        assert!(!fetches("00000004.history"), "a promotion would find its own number used");
        assert!(!fetches("00000003.history"), "that it is taken is seen here");
        assert!(fetches("00000005.history") && fetches("000000040000000000000004"));
        numbers::forget_order(&conf.config.run_dir).unwrap();
        assert!(fetches("00000004.history"));
    }

    #[test]
    fn alter_system_cannot_override_what_safety_needs() {
        let dir = tempfile::tempdir().unwrap();
        let auto = dir.path().join("postgresql.auto.conf");
        std::fs::write(&auto, "# x\nsynchronous_standby_names = ''\nwork_mem = '1MB'\n").unwrap();
        assert!(conf(dir.path()).write_settings(&BTreeMap::new()).unwrap());
        assert_eq!(std::fs::read_to_string(&auto).unwrap(), "# x\nwork_mem = '1MB'\n");
        assert!(!conf(dir.path()).write_settings(&BTreeMap::new()).unwrap(), "a second write changed something");
    }
}
