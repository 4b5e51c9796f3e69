//! A member: Postgres, its agent, its guard, and the watchdog under them.

use std::collections::BTreeMap;

use pgha_core::config::{Config, Secrets, WatchdogMode};
use pgha_core::timing::Profile;
use pgha_core::wire::MemberTags;
use serde::Serialize;

use super::{List, Phase, Site};
use crate::cluster::{Archive, REST_PORT, ZOOKEEPER_PORT};
use crate::inventory::{Role, Synchronous};
use crate::render::RenderError;
use crate::resource::{Command, File, Mask, Unit};

/// The agent's unit.
pub(crate) const UNIT: &str = "pgha-agent.service";
/// The guard's unit.
const GUARD: &str = "pgha-guard.service";
/// Postgres' unit; started by the agent alone.
pub(crate) const POSTGRES: &str = "pgha-postgres.service";

const CONFIG: &str = "/etc/pgha/agent.toml";
const SECRETS: &str = "/etc/pgha/secrets.toml";
const AGENT: &str = "/usr/local/bin/pgha-agent";
const GUARD_PROGRAM: &str = "/usr/local/bin/pgha-guard";
const PGHACTL: &str = "/usr/local/bin/pghactl";
const DROP_IN: &str = "/etc/systemd/system/pgha-agent.service.d/archive.conf";
const UDEV: &str = "/etc/udev/rules.d/60-pgha-watchdog.rules";
const KIB_PER_MIB: u64 = 1024;

#[derive(Serialize)]
struct Values<'a> {
    cluster: &'a str,
    name: &'a str,
    zookeeper: Vec<String>,
    profile: Profile,
    rest_listen: String,
    rest_advertise: String,
    bin_dir: String,
    data_dir: String,
    listen: &'a str,
    port: u16,
    advertise: String,
    replication_networks: Vec<String>,
    hba: Vec<String>,
    parameters: Vec<Setting>,
    stanza: Option<&'a str>,
    archive_path: Option<String>,
    watchdog: WatchdogMode,
    watchdog_device: &'a str,
    tags: Vec<Setting>,
    synchronous: &'static str,
    synchronous_strict: bool,
    failsafe: bool,
    bootstrap: Vec<Setting>,
}

#[derive(Serialize)]
struct Setting {
    name: String,
    value: String,
}

#[derive(Serialize)]
struct SecretValues<'a> {
    superuser_password: &'a str,
    replication_password: &'a str,
    rewind_password: &'a str,
    rest_username: &'a str,
    rest_password: &'a str,
}

/// Adds it.
pub(super) fn add(site: &Site<'_>, list: &mut List) -> Result<(), RenderError> {
    packages(list);
    list.directory("/var/lib/pgha", 0o700, "postgres", "postgres");
    list.directory("/run/pgha", 0o750, "postgres", "postgres");
    list.directory(&format!("/var/lib/postgresql/{}", site.cluster.version), 0o755, "postgres", "postgres");
    list.file(File::public("/etc/tmpfiles.d/pgha.conf", include_str!("../../../../units/tmpfiles.d/pgha.conf")));
    list.file(
        File::public(
            "/etc/polkit-1/rules.d/50-pgha.rules",
            include_str!("../../../../units/polkit-1/rules.d/50-pgha.rules"),
        )
        // polkitd reads its rules as a user of its own.
        .owned(0o644, "root", "root"),
    );
    watchdog(site, list);
    // The guard first: what a run leaves that is broken off has one. And what this host cannot run replaces nothing.
    let programs = &site.wanted.programs;
    for (path, program) in [(GUARD_PROGRAM, &programs.guard), (AGENT, &programs.agent), (PGHACTL, &programs.pghactl)] {
        list.file(File::program(path, program.clone()).checked_by("\"$new\" --version >/dev/null"));
    }
    configuration(site, list)?;
    units(site, list)
}

fn packages(list: &mut List) {
    // Before the package: its first act would be a cluster of its own.
    list.first(crate::resource::Directory::new("/etc/postgresql-common/createcluster.d", 0o755, "root", "root"));
    list.first(File::public(
        "/etc/postgresql-common/createcluster.d/pgha.conf",
        include_str!("../../../../units/postgresql-common/createcluster.d/pgha.conf"),
    ));
    list.first(Mask("postgresql.service"));
    list.first(Mask("postgresql@.service"));
    list.packages(&["postgresql-15", "locales", "polkitd"]);
    list.user(Command::new(
        "locale",
        "generate the locale en_US.UTF-8",
        "set -eu; grep -qx 'en_US.UTF-8 UTF-8' /etc/locale.gen 2>/dev/null || echo 'en_US.UTF-8 UTF-8' >>/etc/locale.gen; \
         locale-gen en_US.UTF-8",
        |facts, _before| !facts.locales.contains("en_us.utf8"),
    ));
}

fn watchdog(site: &Site<'_>, list: &mut List) {
    if site.cluster.watchdog == WatchdogMode::Off {
        return;
    }
    list.file(File::public(UDEV, include_str!("../../../../units/udev/rules.d/60-pgha-watchdog.rules")));
    list.add(
        Phase::Prepare,
        Command::new(
            "softdog",
            "load the kernel's software watchdog (the host has no other)",
            format!(
                "set -eu; modprobe softdog; mkdir -p /etc/modules-load.d; printf '%s' {} >/etc/modules-load.d/pgha.conf",
                crate::ssh::quote(include_str!("../../../../units/modules-load.d/pgha.conf"))
            ),
            |facts, _before| facts.container.is_none() && facts.softdog && facts.watchdogs.is_empty(),
        ),
    );
    list.add(
        Phase::Prepare,
        Command::new(
            "watchdog",
            "let the agent open the watchdog",
            "set -eu; udevadm control --reload; udevadm trigger --action=change --sysname-match='watchdog*'; udevadm settle",
            |facts, before| {
                let closed = facts.watchdogs.values().any(|group| group != "postgres");
                facts.container.is_none() && (closed || before.contains("command softdog"))
            },
        ),
    );
}

fn configuration(site: &Site<'_>, list: &mut List) -> Result<(), RenderError> {
    let templates = &site.wanted.templates;
    let keep = &site.wanted.secrets;
    let secrets = templates.render(
        "secrets.toml",
        &SecretValues {
            superuser_password: keep.get("superuser_password"),
            replication_password: keep.get("replication_password"),
            rewind_password: keep.get("rewind_password"),
            rest_username: keep.get("rest_username"),
            rest_password: keep.get("rest_password"),
        },
    )?;
    let config = templates.render("agent.toml", &values(site))?;
    let wrong = |name, why: pgha_core::config::ConfigError| RenderError { name, why: why.to_string() };
    Secrets::parse(&secrets).map_err(|error| wrong("secrets.toml", error))?;
    Config::parse(&config).map_err(|error| wrong("agent.toml", error))?;
    let agents: Vec<String> = site.cluster.with(Role::Postgres).map(|host| host.endpoint(REST_PORT)).collect();
    let pghactl = templates
        .render("pghactl.toml", &serde_json::json!({ "cluster": site.cluster.name.as_str(), "agents": agents }))?;
    list.file(File::public(SECRETS, secrets).unshown().owned(0o640, "root", "postgres"));
    list.file(File::public(CONFIG, config).owned(0o640, "root", "postgres"));
    list.file(File::public("/etc/pgha/pghactl.toml", pghactl));
    Ok(())
}

fn units(site: &Site<'_>, list: &mut List) -> Result<(), RenderError> {
    for (name, text) in [
        (UNIT, include_str!("../../../../units/systemd/system/pgha-agent.service")),
        (GUARD, include_str!("../../../../units/systemd/system/pgha-guard.service")),
        (POSTGRES, include_str!("../../../../units/systemd/system/pgha-postgres.service")),
    ] {
        list.file(File::public(format!("/etc/systemd/system/{name}"), text));
    }
    let mut inputs = vec![AGENT, CONFIG, SECRETS];
    if let Archive::Directory { path } = &site.cluster.archive {
        let path = path.display().to_string();
        list.directory("/etc/systemd/system/pgha-agent.service.d", 0o755, "root", "root");
        list.file(File::public(
            DROP_IN,
            site.wanted.templates.render("pgha-agent-archive.conf", &serde_json::json!({ "archive_path": path }))?,
        ));
        list.directory(&path, 0o700, "postgres", "postgres");
        inputs.push(DROP_IN);
    }
    list.add(Phase::Services, Unit::new(GUARD).restart_on([GUARD_PROGRAM, CONFIG]));
    let primary = site.facts.is_primary();
    let mut unit = Unit::new(UNIT).restart_on(inputs);
    if primary {
        unit = unit.restart_hurts(format!(
            "{} is the primary: Postgres runs on while its agent is restarted, and another member takes over if the agent \
             does not come back before its lease ends",
            site.host.name
        ));
    }
    list.add(Phase::Agents, unit);
    Ok(())
}

fn values<'a>(site: &'a Site<'_>) -> Values<'a> {
    let (cluster, host) = (site.cluster, site.host);
    let mut parameters = from_memory(site.facts.memory, site.facts.container.is_some() && !site.facts.memory_limited);
    parameters.extend(cluster.parameters.clone());
    let (stanza, archive_path) = match &cluster.archive {
        Archive::Pgbackrest { .. } => (Some(cluster.name.as_str()), None),
        Archive::Directory { path } => (None, Some(path.display().to_string())),
    };
    Values {
        cluster: cluster.name.as_str(),
        name: host.name.as_str(),
        zookeeper: cluster.with(Role::Zookeeper).map(|host| host.endpoint(ZOOKEEPER_PORT)).collect(),
        profile: cluster.profile,
        rest_listen: format!("0.0.0.0:{REST_PORT}"),
        rest_advertise: host.endpoint(REST_PORT),
        bin_dir: format!("/usr/lib/postgresql/{}/bin", cluster.version),
        data_dir: cluster.data_dir(),
        listen: "0.0.0.0",
        port: cluster.port,
        advertise: host.endpoint(cluster.port),
        replication_networks: cluster.replication_networks(),
        hba: hba(site),
        parameters: settings(parameters),
        stanza,
        archive_path,
        watchdog: cluster.watchdog,
        watchdog_device: &cluster.watchdog_device,
        // Booleans and numbers are written alike in JSON and TOML.
        tags: MemberTags::from(&host.tags)
            .0
            .into_iter()
            .map(|(name, value)| Setting { name, value: value.to_string() })
            .collect(),
        synchronous: match cluster.synchronous {
            Synchronous::Off => "false",
            Synchronous::On | Synchronous::Strict => "true",
            Synchronous::Quorum => "\"quorum\"",
        },
        failsafe: cluster.failsafe,
        synchronous_strict: cluster.synchronous == Synchronous::Strict,
        bootstrap: settings(BOOTSTRAP.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()),
    }
}

fn settings(map: BTreeMap<String, String>) -> Vec<Setting> {
    map.into_iter()
        .map(|(name, value)| Setting {
            // A dot in a bare key would make a table.
            name: if name.contains('.') { format!("\"{name}\"") } else { name },
            value,
        })
        .collect()
}

/// Clients come through the balancer or from their own networks; either way with a password that never travels in clear.
fn hba(site: &Site<'_>) -> Vec<String> {
    let cluster = site.cluster;
    let balancers = cluster
        .with(Role::Haproxy)
        .filter_map(|host| host.cluster_address.parse::<std::net::IpAddr>().ok())
        .map(|address| format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 }));
    cluster
        .clients
        .iter()
        .cloned()
        .chain(balancers)
        .map(|network| format!("host all all {network} scram-sha-256"))
        .chain(cluster.hba.iter().cloned())
        .collect()
}

/// What follows from a host's memory. A container that shares all memory with its neighbours gets a modest share.
fn from_memory(memory_kib: u64, shared: bool) -> BTreeMap<String, String> {
    let memory = if shared { (memory_kib / KIB_PER_MIB).min(1024) } else { memory_kib / KIB_PER_MIB };
    let buffers = (memory / 4).clamp(64, 16 * 1024);
    [
        ("shared_buffers", format!("{buffers}MB")),
        ("effective_cache_size", format!("{}MB", (memory * 3 / 4).max(256))),
        ("maintenance_work_mem", format!("{}MB", (memory / 16).clamp(64, 1024))),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// First values of the cluster-wide settings. Timeouts of replication stay below a lease of the usual length: a peer that is
/// gone must not hold a slot, a sender or a commit for longer.
const BOOTSTRAP: &[(&str, &str)] = &[
    ("archive_timeout", "60"),
    ("checkpoint_timeout", "5min"),
    ("log_autovacuum_min_duration", "1min"),
    ("log_line_prefix", "%p %u@%d %h "),
    ("log_lock_waits", "on"),
    ("log_min_duration_statement", "1s"),
    ("log_replication_commands", "on"),
    ("log_temp_files", "10MB"),
    ("max_connections", "200"),
    ("max_replication_slots", "10"),
    ("max_wal_senders", "10"),
    ("max_wal_size", "2GB"),
    // Little: pg_rewind copies everything in pg_wal, and what a member misses is kept by its slot and the archive.
    ("min_wal_size", "80MB"),
    // Before it recovers, Postgres makes sure that all of its files are on the disk; one by one that takes minutes where there
    // are many. Since Linux 5.8 `syncfs` reports errors, too (manual of Postgres, section 20.14).
    ("recovery_init_sync_method", "syncfs"),
    ("tcp_keepalives_count", "3"),
    ("tcp_keepalives_idle", "30"),
    ("tcp_keepalives_interval", "10"),
    ("tcp_user_timeout", "10s"),
    ("wal_compression", "lz4"),
    ("wal_keep_size", "64MB"),
    ("wal_level", "replica"),
    ("wal_receiver_timeout", "5s"),
    ("wal_sender_timeout", "5s"),
];
