//! A server of the ZooKeeper ensemble.

use serde::Serialize;

use super::{List, Phase, Site};
use crate::cluster::{ZOOKEEPER_PEER_PORTS, ZOOKEEPER_PORT};
use crate::inventory::Role;
use crate::render::RenderError;
use crate::resource::{Directory, File, Mask, SystemUser, Unit};

const CONFIG: &str = "/etc/pgha/zookeeper/zoo.cfg";
const DATA: &str = "/var/lib/pgha-zookeeper";
/// The unit.
pub(crate) const UNIT: &str = "pgha-zookeeper.service";

#[derive(Serialize)]
struct Values {
    tick: u64,
    session_least: u64,
    session_most: u64,
    client_port: u16,
    peer_port: u16,
    election_port: u16,
    servers: Vec<Server>,
}

#[derive(Serialize)]
struct Server {
    id: usize,
    address: String,
}

/// Adds it.
pub(super) fn add(site: &Site<'_>, list: &mut List) -> Result<(), RenderError> {
    let timing = site.cluster.timing();
    let (least, most) = timing.session_bounds();
    let servers: Vec<Server> = site
        .cluster
        .with(Role::Zookeeper)
        .enumerate()
        .map(|(index, host)| Server { id: index + 1, address: bracketed(&host.cluster_address) })
        .collect();
    let own =
        site.cluster.with(Role::Zookeeper).position(|host| host.name == site.host.name).map_or(0, |index| index + 1);
    let config = site.wanted.templates.render(
        "zoo.cfg",
        &Values {
            tick: timing.tick.0,
            session_least: least.0,
            session_most: most.0,
            client_port: ZOOKEEPER_PORT,
            peer_port: ZOOKEEPER_PEER_PORTS.0,
            election_port: ZOOKEEPER_PEER_PORTS.1,
            servers,
        },
    )?;
    list.first(Mask("zookeeper.service"));
    // The library is all that a server needs; the package `zookeeper` would add a desktop's worth of Java.
    list.packages(&["libzookeeper-java", "libslf4j-java", "default-jre-headless"]);
    // Images without manual pages lack it, and the Java package cannot be configured then (Debian bug 863199).
    list.first(Directory::new("/usr/share/man/man1", 0o755, "root", "root"));
    list.user(SystemUser { name: "zookeeper", home: DATA });
    list.directory("/etc/pgha/zookeeper", 0o755, "root", "root");
    list.directory(DATA, 0o750, "zookeeper", "zookeeper");
    list.file(File::public(CONFIG, config));
    let id_file = format!("{DATA}/myid");
    list.file(File::public(&id_file, format!("{own}\n")).owned(0o644, "zookeeper", "zookeeper"));
    list.file(File::public(
        format!("/etc/systemd/system/{UNIT}"),
        include_str!("../../../../units/systemd/system/pgha-zookeeper.service"),
    ));
    let unit = Unit::new(UNIT).restart_on([CONFIG.to_owned(), id_file]);
    list.add(Phase::Ensemble, unit);
    Ok(())
}

fn bracketed(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}
