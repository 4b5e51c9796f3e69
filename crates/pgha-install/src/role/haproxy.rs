//! The balancer.

use pgha_core::timing::Profile;
use serde::Serialize;

use super::{List, Phase, Site};
use crate::cluster::REST_PORT;
use crate::inventory::Role;
use crate::render::RenderError;
use crate::resource::{File, Unit};

const CONFIG: &str = "/etc/haproxy/haproxy.cfg";
const DROP_IN: &str = "/etc/systemd/system/haproxy.service.d/pgha.conf";
/// The unit.
pub(crate) const UNIT: &str = "haproxy.service";

#[derive(Serialize)]
struct Values<'a> {
    port: u16,
    read_port: u16,
    stats_port: u16,
    rest_port: u16,
    stats_networks: &'a [String],
    stats_password: &'a str,
    timeout_connect: &'a str,
    retries: u32,
    timeout_check: &'a str,
    inter: &'a str,
    fastinter: &'a str,
    downinter: &'a str,
    fall: u32,
    servers: Vec<Server>,
}

#[derive(Serialize)]
struct Server {
    name: String,
    address: String,
}

/// Adds it.
pub(super) fn add(site: &Site<'_>, list: &mut List) -> Result<(), RenderError> {
    // `inter` and `fall` are how soon a dead primary is noticed. A new one says so itself (`send-state`); `downinter` is the
    // pause between two checks of which each waits for that, and how soon an agent that was away is asked.
    let (timeout_check, inter, fastinter, downinter, fall) = match site.cluster.profile {
        Profile::Fast => ("1s", "250ms", "100ms", "50ms", 2),
        Profile::Balanced => ("1s", "500ms", "100ms", "50ms", 2),
        Profile::Wide => ("3s", "2s", "500ms", "500ms", 3),
    };
    // Of a server that does not answer; one that refuses is dead at once.
    let (timeout_connect, retries) = match site.cluster.profile {
        Profile::Fast => ("250ms", 12),
        Profile::Balanced => ("250ms", 20),
        Profile::Wide => ("2s", 5),
    };
    let ports = &site.cluster.haproxy;
    let config = site.wanted.templates.render(
        "haproxy.cfg",
        &Values {
            port: ports.port,
            read_port: ports.read_port,
            stats_port: ports.stats_port,
            rest_port: REST_PORT,
            stats_networks: &ports.stats_networks,
            stats_password: site.wanted.secrets.get("haproxy_stats_password"),
            timeout_connect,
            retries,
            timeout_check,
            inter,
            fastinter,
            downinter,
            fall,
            servers: site
                .cluster
                .with(Role::Postgres)
                .map(|host| Server { name: host.name.to_string(), address: host.endpoint(site.cluster.port) })
                .collect(),
        },
    )?;
    list.packages(&["haproxy"]);
    list.directory("/etc/systemd/system/haproxy.service.d", 0o755, "root", "root");
    list.file(File::public(DROP_IN, include_str!("../../../../units/systemd/system/haproxy.service.d/pgha.conf")));
    list.file(
        File::public(CONFIG, config)
            .unshown()
            .owned(0o640, "root", "haproxy")
            .replaces_conffile_of("haproxy")
            .checked_by("haproxy -c -q -f \"$new\""),
    );
    let unit = Unit::new(UNIT)
        .restart_on([DROP_IN])
        .reload_on([CONFIG])
        .restart_hurts("a restart of haproxy.service closes every connection that runs through it");
    list.add(Phase::Services, unit);
    Ok(())
}
