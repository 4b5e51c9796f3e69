//! `ZooKeeper` loses its leader, or stops.

use std::{thread, time::Duration};

use super::{Fault, Patience, SOON, scene::Scene};
use crate::{
    Error, Host, Result, Target,
    cluster::{DATABASES, until},
};

/// How long all of it is stopped.
const OUTAGE: u64 = 60;
const UNIT: &str = "pgha-zookeeper";
/// In which members take a setting up, and write something.
const NOTICED: Duration = Duration::from_secs(3);
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
        play: |scene| stopped(scene, true, |_| Ok(())),
    },
    Fault {
        slug: "zookeeper-stopped-agent-killed",
        name: "agent killed while all of ZooKeeper is stopped, failsafe mode",
        essential: false,
        machine: false,
        patience: Patience::Hiccup,
        play: |scene| stopped(scene, true, |scene| scene.primary()?.kill(&Target::unit("pgha-agent")).map(drop)),
    },
    Fault {
        slug: "zookeeper-stopped",
        name: "all of ZooKeeper stopped for a minute",
        essential: false,
        machine: false,
        patience: Patience::Outage(OUTAGE),
        play: |scene| stopped(scene, false, |_| Ok(())),
    },
];

/// The ensemble's leader is beside the primary, or not: where it is not as wanted, it is made so.
fn leader(scene: &Scene<'_>, beside_primary: bool) -> Result<Host> {
    for name in DATABASES {
        let host = scene.host(name)?;
        if (name == scene.before.primary) == beside_primary && leads(&host)? {
            return Ok(host);
        }
    }
    let host = if beside_primary { scene.primary()? } else { scene.host(&scene.before.sync)? };
    // For a moment there is no quorum.
    scene.set("failsafe_mode=true")?;
    thread::sleep(NOTICED);
    let made = make_leader(scene, &host);
    scene.set("failsafe_mode=null")?;
    made.map(|()| host)
}

/// Who has seen most is elected: one of the others misses some writes, and is back when the third is gone.
fn make_leader(scene: &Scene<'_>, host: &Host) -> Result<()> {
    let mut others = DATABASES.into_iter().filter(|name| *name != host.name());
    let mut other = || scene.host(others.next().unwrap_or_default());
    let (first, second) = (other()?, other()?);
    let order = |host: &Host, what: &str| host.run(&format!("systemctl {what} {UNIT}"));
    order(&first, "stop")?;
    thread::sleep(NOTICED);
    order(&second, "stop")?;
    order(&first, "start")?;
    until(&format!("{} as ZooKeeper's leader", host.name()), SOON, || {
        Ok(if leads(host)? { Ok(()) } else { Err("another one, or none".to_owned()) })
    })?;
    order(&second, "start")?;
    Ok(())
}

fn leads(host: &Host) -> Result<bool> {
    Ok(host.exec(MODE)?.stdout.trim() == "leader")
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

fn stopped(scene: &Scene<'_>, failsafe: bool, meanwhile: impl FnOnce(&Scene<'_>) -> Result<()>) -> Result<String> {
    scene.set(&format!("failsafe_mode={failsafe}"))?;
    // The leader records whom to ask; members take the setting up at their next turn.
    thread::sleep(NOTICED);
    for name in DATABASES {
        scene.host(name)?.run(&format!("systemctl stop {UNIT}"))?;
    }
    thread::sleep(Duration::from_secs(OUTAGE / 2));
    meanwhile(scene)?;
    thread::sleep(Duration::from_secs(OUTAGE / 2));
    for name in DATABASES {
        scene.host(name)?.run(&format!("systemctl start --no-block {UNIT}"))?;
    }
    scene.writes()?;
    let told = scene.settled()?;
    scene.set("failsafe_mode=null")?;
    Ok(told)
}
