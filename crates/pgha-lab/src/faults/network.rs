//! Cables are cut, wholly or in part.

use std::{thread, time::Duration};

use super::{
    Fault, Patience,
    scene::{Scene, writable},
};
use crate::{Direction, Error, Host, Result, cluster::BALANCER};

/// Of `ZooKeeper`: clients, followers, elections.
const ENSEMBLE: [u16; 3] = [2181, 2888, 3888];
/// Of Postgres.
const DATABASE: [u16; 1] = [5432];
/// What a cut lasts where nobody takes over meanwhile: longer than a session with `ZooKeeper`.
const CUT: u64 = 10;

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        slug: "network-cut",
        name: "network cut of the primary's host",
        essential: true,
        machine: false,
        patience: Patience::Failover,
        play: |scene| cut(scene, Host::cut),
    },
    Fault {
        slug: "cut-from-zookeeper",
        name: "primary cut from ZooKeeper only",
        essential: true,
        machine: false,
        patience: Patience::Failover,
        play: |scene| cut(scene, |host| host.cut_ports(&scene.others(), &ENSEMBLE)),
    },
    Fault {
        slug: "cut-from-standbys",
        name: "primary cut from its standbys only",
        essential: false,
        machine: false,
        patience: Patience::Outage(CUT),
        play: |scene| bear(scene, |host| host.cut_ports(&scene.others(), &DATABASE)),
    },
    Fault {
        slug: "cut-from-balancer",
        name: "primary cut from the balancer only",
        essential: false,
        machine: false,
        patience: Patience::Outage(CUT),
        play: |scene| bear(scene, |host| host.cut_partly(Direction::Both, &[BALANCER])),
    },
    Fault {
        slug: "deaf",
        name: "primary receives nothing",
        essential: false,
        machine: false,
        patience: Patience::Failover,
        play: |scene| cut(scene, |host| host.cut_partly(Direction::Incoming, &[])),
    },
    Fault {
        slug: "dumb",
        name: "primary can send nothing",
        essential: false,
        machine: false,
        patience: Patience::Failover,
        play: |scene| cut(scene, |host| host.cut_partly(Direction::Outgoing, &[])),
    },
    Fault {
        slug: "flapping",
        name: "primary's network comes and goes",
        essential: false,
        machine: false,
        patience: Patience::Outage(30),
        play: flapping,
    },
];

/// A cut that costs the leadership.
fn cut(scene: &Scene<'_>, cut: impl FnOnce(&Host) -> Result<()>) -> Result<String> {
    let host = scene.primary()?;
    cut(&host)?;
    let successor = scene.successor()?;
    // The other side has a new primary: from here on, and not a moment later, this side may have none.
    for _ in 0..10 {
        Error::unless(!writable(&host)?, || format!("{} still takes writes, and {successor}", host.name()))?;
        thread::sleep(Duration::from_millis(100));
    }
    scene.writes()?;
    Error::unless(!writable(&host)?, || format!("{} takes writes again, cut off", host.name()))?;
    host.heal()?;
    Ok(successor)
}

/// A cut that does not.
fn bear(scene: &Scene<'_>, cut: impl FnOnce(&Host) -> Result<()>) -> Result<String> {
    let host = scene.primary()?;
    cut(&host)?;
    thread::sleep(Duration::from_secs(CUT));
    host.heal()?;
    scene.writes()?;
    scene.settled()
}

/// In turn shorter and longer than a session lasts.
fn flapping(scene: &Scene<'_>) -> Result<String> {
    let host = scene.primary()?;
    for (down, up) in [(500, 500), (2_000, 500), (4_000, 1_000), (6_000, 2_000), (1_000, 200), (3_000, 300)] {
        host.cut()?;
        thread::sleep(Duration::from_millis(down));
        host.heal()?;
        thread::sleep(Duration::from_millis(up));
    }
    scene.writes()?;
    scene.settled()
}
