//! The primary's disk is full, or takes no writes any more.

use super::{
    CONVERGED, Fault, Patience, SOON,
    scene::{Scene, lead},
    software::DATA,
};
use crate::{Disk, Error, Host, Kind, Result, cluster::until};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        slug: "disk-full",
        name: "disk full on the primary's host",
        essential: false,
        machine: false,
        patience: Patience::Failover,
        play: disk_full,
    },
    Fault {
        slug: "wal-disk-full",
        name: "disk for WAL full on the primary's host",
        essential: false,
        machine: false,
        patience: Patience::Failover,
        play: wal_disk_full,
    },
    Fault {
        slug: "disk-read-only",
        name: "file system of the primary's data read-only after an error",
        essential: false,
        machine: false,
        patience: Patience::Failover,
        play: read_only,
    },
];

fn disk_full(scene: &Scene<'_>) -> Result<String> {
    let scene = on_own_disk(scene, Disk::Databases)?;
    full(&scene.primary()?, Disk::Databases, || {
        let successor = scene.successor()?;
        scene.writes()?;
        Ok(successor)
    })
}

fn wal_disk_full(scene: &Scene<'_>) -> Result<String> {
    let scene = on_own_disk(scene, Disk::Wal)?;
    full(&scene.primary()?, Disk::Wal, || {
        // Segments that were there for later are room for WAL still: they are used up.
        until("the end of the room for WAL", SOON, || {
            let switched = scene.cluster.ask(&scene.before.primary, "select pg_switch_wal()");
            Ok(if switched.is_err() { Ok(()) } else { Err("there was room for another segment".to_owned()) })
        })?;
        let successor = scene.successor()?;
        scene.writes()?;
        Ok(successor)
    })
}

fn read_only(scene: &Scene<'_>) -> Result<String> {
    let scene = on_own_disk(scene, Disk::Databases)?;
    let host = scene.primary()?;
    host.fail_disk(Disk::Databases)?;
    let successor = scene.successor().and_then(|successor| scene.writes().map(|()| successor));
    // It is checked when the host boots, and takes writes after that alone.
    host.power_off()?;
    host.power_on()?;
    successor
}

/// Keeps a disk full for as long as `meanwhile` lasts.
fn full<T>(host: &Host, disk: Disk, meanwhile: impl FnOnce() -> Result<T>) -> Result<T> {
    let at = disk.mount_point();
    // The most of it without writing it; what is left then is no round number of anything.
    let filled = host.run(&format!(
        "free=$(df --output=avail --block-size=1M {at} | tail --lines=1) && \
         fallocate --length=$((free - 16))MiB {at}/filler && ! dd if=/dev/zero of={at}/filler.rest bs=4K 2> /dev/null"
    ));
    let result = filled.and_then(|_| meanwhile());
    let freed = host.run(&format!("rm --force {at}/filler {at}/filler.rest"));
    result.and_then(|result| freed.map(|_| result))
}

/// The same cluster, led by a host that has the disk: a standby gets it while it is off, and takes over in order.
fn on_own_disk<'a>(scene: &Scene<'a>, disk: Disk) -> Result<Scene<'a>> {
    let primary = scene.primary()?;
    let standbys = scene.others().into_iter().map(|name| scene.host(name)).collect::<Result<Vec<_>>>()?;
    let fitted = std::iter::once(&primary).chain(&standbys).find(|host| host.has_disk(disk));
    let host = if let Some(host) = fitted {
        host
    } else {
        let container = standbys.iter().find(|host| host.kind() == Kind::Container);
        let host = container.ok_or_else(|| Error::State("no standby is a container".to_owned()))?;
        host.shutdown()?;
        host.fit_disk(disk)?;
        host.power_on()?;
        scene.cluster.await_complete(CONVERGED)?;
        host
    };
    if disk == Disk::Wal {
        move_wal(host)?;
    }
    Ok(Scene { before: lead(scene.cluster, host, CONVERGED)?, ..*scene })
}

/// Puts `pg_wal` on the disk for it, unless it is there. A fresh copy has it in the data directory again.
fn move_wal(host: &Host) -> Result<()> {
    let (wal, disk) = (format!("{DATA}/pg_wal"), Disk::Wal.mount_point());
    let moved = host.run(&format!(
        "test -L {wal} || {{ systemctl stop pgha-agent && rm --recursive --force {disk}/pg_wal && mv {wal} {disk}/ && \
         ln --symbolic {disk}/pg_wal {wal} && chown --no-dereference postgres:postgres {disk} {wal} && \
         systemctl start pgha-agent; }}"
    ));
    moved.map(drop)
}
