//! `ZooKeeper` loses its leader, or stops.

use std::{thread, time::Duration};

use super::{CONVERGED, Fault, Patience, SOON, scene::Scene};
use crate::{
    Error, Host, Result, Target,
    cluster::{DATABASES, until},
};

/// How long all of it is stopped.
const OUTAGE: u64 = 60;
const UNIT: &str = "pgha-zookeeper";
/// One line of its status: leader, follower or nothing.
const MODE: &str =
    "timeout 2 bash -c 'exec 3<>/dev/tcp/127.0.0.1/2181; echo srvr >&3; cat <&3' | sed --quiet 's/^Mode: //p'";

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        slug: "zookeeper-leader-elsewhere",
        name: "ZooKeeper's leader killed, beside a standby",
        essential: true,
        machine: false,
        patience: Patience::Failover,
        play: |scene| leader_killed(scene, false),
    },
    Fault {
        slug: "zookeeper-leader-here",
        name: "ZooKeeper's leader killed, beside the primary",
        essential: false,
        machine: false,
        patience: Patience::Failover,
        play: |scene| leader_killed(scene, true),
    },
    Fault {
        slug: "zookeeper-leader-lost-with-primary",
        name: "power loss of the primary beside ZooKeeper's leader",
        essential: false,
        machine: false,
        patience: Patience::Failover,
        play: lost_together,
    },
    Fault {
        slug: "zookeeper-stopped-failsafe",
        name: "all of ZooKeeper stopped for a minute, failsafe mode",
        essential: false,
        machine: false,
        patience: Patience::Hiccup,
        play: |scene| stopped(scene, true),
    },
    Fault {
        slug: "zookeeper-stopped",
        name: "all of ZooKeeper stopped for a minute",
        essential: false,
        machine: false,
        patience: Patience::Outage(OUTAGE),
        play: |scene| stopped(scene, false),
    },
];

/// The ensemble's leader is beside the primary, or not: it is stopped and started where it is not wanted.
fn leader(scene: &Scene<'_>, beside_primary: bool) -> Result<Host> {
    let wanted = |name: &str| (name == scene.before.primary) == beside_primary;
    until("ZooKeeper's leader where it is wanted", CONVERGED, || {
        for name in DATABASES {
            let host = scene.host(name)?;
            if host.exec(MODE)?.stdout.trim() != "leader" {
                continue;
            }
            if wanted(name) {
                return Ok(Ok(host));
            }
            host.run(&format!("systemctl restart {UNIT}"))?;
            // Another is elected meanwhile, or it again.
            thread::sleep(Duration::from_secs(3));
            return Ok(Err(format!("it was on {name}")));
        }
        Ok(Err("there was none".to_owned()))
    })
}

fn leader_killed(scene: &Scene<'_>, beside_primary: bool) -> Result<String> {
    let host = leader(scene, beside_primary)?;
    scene.workload.lap();
    host.kill(&Target::unit(UNIT))?;
    until("a new leader of ZooKeeper", SOON, || {
        let modes = DATABASES.map(|name| scene.host(name).and_then(|host| host.exec(MODE)).map(|seen| seen.stdout));
        let is_leader = |mode: &Result<String>| mode.as_ref().is_ok_and(|mode| mode.trim() == "leader");
        Ok(if modes.iter().any(is_leader) { Ok(()) } else { Err("none".to_owned()) })
    })?;
    scene.writes()?;
    let told = scene.settled()?;
    Error::unless(told == format!("{} went on", scene.before.primary), || {
        format!("the ensemble's election cost the primary its leadership: {told}")
    })?;
    Ok(told)
}

fn lost_together(scene: &Scene<'_>) -> Result<String> {
    let host = leader(scene, true)?;
    let successor = scene.successor_of_lost(&host)?;
    scene.writes()?;
    host.power_on()?;
    Ok(successor)
}

fn stopped(scene: &Scene<'_>, failsafe: bool) -> Result<String> {
    scene.set(&format!("failsafe_mode={failsafe}"))?;
    // The leader records whom to ask; members take the setting up at their next turn.
    thread::sleep(Duration::from_secs(3));
    for name in DATABASES {
        scene.host(name)?.run(&format!("systemctl stop {UNIT}"))?;
    }
    thread::sleep(Duration::from_secs(OUTAGE));
    for name in DATABASES {
        scene.host(name)?.run(&format!("systemctl start --no-block {UNIT}"))?;
    }
    scene.writes()?;
    let told = scene.settled()?;
    scene.set("failsafe_mode=null")?;
    Ok(told)
}
