//! The WAL archive and the backups, by pgBackRest: repository on one host, TLS servers on all that take part.

use std::time::Duration;

use serde::Serialize;

use super::{List, Phase, Site};
use crate::cluster::{Archive, PGBACKREST_PORT};
use crate::inventory::Role;
use crate::render::RenderError;
use crate::resource::{Command, File, Mask, Unit};

const CONFIG: &str = "/etc/pgbackrest/pgbackrest.conf";
const TLS: &str = "/etc/pgbackrest/tls";
/// The TLS server's unit.
pub(crate) const UNIT: &str = "pgha-pgbackrest.service";
const BACKUP: &str = "pgha-backup.service";

#[derive(Serialize)]
struct Values<'a> {
    repository: bool,
    keep_full: u32,
    archive_address: &'a str,
    tls_port: u16,
    clients: Vec<&'a str>,
    stanza: &'a str,
    members: Vec<Member<'a>>,
    data_dir: String,
    port: u16,
}

/// A database host as the configuration of one host sees it; without address when it is that host itself.
#[derive(Serialize)]
struct Member<'a> {
    number: usize,
    address: Option<&'a str>,
}

/// Adds it, where the archive is of this kind and the host takes part.
pub(super) fn add(site: &Site<'_>, list: &mut List) -> Result<(), RenderError> {
    let Archive::Pgbackrest { host: home, keep_full } = &site.cluster.archive else {
        return Ok(());
    };
    let repository = site.host.has(Role::Archive);
    if !repository && !site.host.has(Role::Postgres) {
        return Ok(());
    }
    let stanza = site.cluster.name.as_str();
    list.first(Mask("pgbackrest.service"));
    list.packages(&["pgbackrest"]);
    list.directory("/etc/pgbackrest", 0o755, "root", "root");
    list.directory(TLS, 0o750, "root", "postgres");
    list.directory("/run/pgbackrest", 0o750, "postgres", "postgres");
    list.file(File::public(
        "/etc/tmpfiles.d/pgha-pgbackrest.conf",
        include_str!("../../../../units/tmpfiles.d/pgha-pgbackrest.conf"),
    ));
    let certificates = [format!("{TLS}/ca.crt"), format!("{TLS}/host.crt"), format!("{TLS}/host.key")];
    if let Some(pair) = site.wanted.pki.of(site.host.name.as_str()) {
        let [authority, certificate, key] = &certificates;
        list.file(File::public(authority, site.wanted.pki.authority()).unshown());
        list.file(File::public(certificate, &pair.certificate).unshown());
        // pgBackRest refuses a key that others may read.
        list.file(File::public(key, &pair.key).unshown().owned(0o600, "postgres", "postgres"));
    }
    let config = site.wanted.templates.render("pgbackrest.conf", &values(site, home, *keep_full))?;
    list.file(File::public(CONFIG, config).owned(0o640, "root", "postgres"));
    list.file(File::public(
        format!("/etc/systemd/system/{UNIT}"),
        include_str!("../../../../units/systemd/system/pgha-pgbackrest.service"),
    ));
    let unit = Unit::new(UNIT).restart_on([CONFIG.to_owned()]).restart_on(certificates);
    list.add(Phase::Services, unit);
    if repository {
        list.directory("/var/lib/pgbackrest", 0o750, "postgres", "postgres");
        list.file(File::public(
            format!("/etc/systemd/system/{BACKUP}"),
            site.wanted.templates.render("pgha-backup.service", &serde_json::json!({ "stanza": stanza }))?,
        ));
        let timer = "/etc/systemd/system/pgha-backup.timer";
        list.file(File::public(timer, include_str!("../../../../units/systemd/system/pgha-backup.timer")));
        stanza_and_backup(stanza, list);
    }
    Ok(())
}

fn values<'a>(site: &'a Site<'_>, home: &'a str, keep_full: u32) -> Values<'a> {
    let cluster = site.cluster;
    let repository = site.host.has(Role::Archive);
    let members = if repository {
        // The host's own Postgres comes first: `archive-push` and `archive-get` work on pg1.
        let mut hosts: Vec<_> = cluster.with(Role::Postgres).collect();
        hosts.sort_by_key(|host| host.name != site.host.name);
        hosts
            .into_iter()
            .enumerate()
            .map(|(index, host)| Member {
                number: index + 1,
                address: (host.name != site.host.name).then_some(host.cluster_address.as_str()),
            })
            .collect()
    } else {
        vec![Member { number: 1, address: None }]
    };
    let clients =
        if repository { cluster.with(Role::Postgres).map(|host| host.name.as_str()).collect() } else { vec![home] };
    Values {
        repository,
        keep_full,
        archive_address: cluster
            .hosts
            .iter()
            .find(|host| host.name.as_str() == home)
            .map_or("", |host| host.cluster_address.as_str()),
        tls_port: PGBACKREST_PORT,
        clients,
        stanza: cluster.name.as_str(),
        members,
        data_dir: cluster.data_dir(),
        port: cluster.port,
    }
}

fn stanza_and_backup(stanza: &str, list: &mut List) {
    let info = format!("/var/lib/pgbackrest/archive/{stanza}/archive.info");
    let looked_at = info.clone();
    list.add(
        Phase::Cluster,
        Command::new(
            "stanza",
            format!("make the archive's stanza {stanza}"),
            format!(
                "runuser -u postgres -- pgbackrest --config={CONFIG} --stanza={stanza} --log-level-console=warn stanza-create"
            ),
            move |facts, _before| !facts.files.contains_key(&info),
        )
        .looks_at([looked_at])
        .unit(UNIT)
        .patience(Duration::from_secs(120)),
    );
    list.add(Phase::Cluster, Unit::new("pgha-backup.timer"));
    let latest = format!("/var/lib/pgbackrest/backup/{stanza}/latest");
    let looked_at = latest.clone();
    list.add(
        Phase::Cluster,
        Command::new(
            "first-backup",
            "start the first full backup (it goes on in the background)",
            format!("systemctl start --no-block {BACKUP}"),
            move |facts, _before| {
                let running = facts.units.get(BACKUP).is_some_and(|unit| unit.active == "activating");
                !running && !facts.files.contains_key(&latest)
            },
        )
        .looks_at([looked_at])
        .unit(BACKUP),
    );
}
