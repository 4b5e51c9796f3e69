//! Hosts lose their power, stand still, or are rebooted.

use std::time::Instant;

use super::{
    Fault, Patience, SOON,
    scene::{Scene, writable},
};
use crate::{Result, Target, cluster::until};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        slug: "power-loss",
        name: "power loss of the primary's host",
        essential: true,
        machine: false,
        patience: Patience::Failover,
        play: power_loss,
    },
    Fault {
        slug: "standby-power-loss",
        name: "power loss of the synchronous standby",
        essential: true,
        machine: false,
        patience: Patience::Failover,
        play: standby_lost,
    },
    Fault {
        slug: "host-frozen",
        name: "primary's host frozen",
        essential: true,
        machine: false,
        patience: Patience::Waking,
        play: host_frozen,
    },
    Fault {
        slug: "reboot",
        name: "clean reboot of the primary's host",
        essential: true,
        machine: false,
        patience: Patience::Failover,
        play: reboot,
    },
    Fault {
        slug: "power-loss-in-turn",
        name: "power loss of the primary, then of its successor",
        essential: false,
        machine: false,
        patience: Patience::Failover,
        play: in_turn,
    },
];

fn power_loss(scene: &Scene<'_>) -> Result<String> {
    let host = scene.primary()?;
    let successor = scene.successor_of_lost(&host)?;
    scene.writes()?;
    host.power_on()?;
    Ok(successor)
}

fn standby_lost(scene: &Scene<'_>) -> Result<String> {
    let host = scene.host(&scene.before.sync)?;
    host.power_off()?;
    scene.writes()?;
    let roles = scene.cluster.await_roles(1, SOON)?;
    let told = format!("{} went on", roles.primary()?);
    host.power_on()?;
    crate::Error::unless(told.starts_with(&scene.before.primary), || {
        format!("the loss of a standby changed the primary: {roles:?}")
    })?;
    Ok(told)
}

fn host_frozen(scene: &Scene<'_>) -> Result<String> {
    let host = scene.primary()?;
    host.freeze(&Target::Everything)?;
    let successor = scene.successor()?;
    scene.writes()?;
    host.thaw(&Target::Everything)?;
    // It wakes up as the primary that it was; its lease is long over, and that is noticed at once.
    let started = Instant::now();
    until("the end of the old primary", SOON, || {
        Ok(match writable(&host) {
            Ok(false) => Ok(()),
            Ok(true) => Err("it takes writes".to_owned()),
            Err(error) => Err(error.to_string()),
        })
    })?;
    Ok(format!("{successor}, the old one dead {:.1} s after its thaw", started.elapsed().as_secs_f64()))
}

fn reboot(scene: &Scene<'_>) -> Result<String> {
    let host = scene.primary()?;
    host.shutdown()?;
    let successor = scene.successor()?;
    scene.writes()?;
    host.power_on()?;
    Ok(successor)
}

/// The first one is back before the second one goes, or the ensemble would be without its majority.
fn in_turn(scene: &Scene<'_>) -> Result<String> {
    let first = scene.primary()?;
    let successor = scene.successor_of_lost(&first)?;
    scene.writes()?;
    first.power_on()?;
    let between = scene.cluster.await_complete(super::CONVERGED)?;
    let second = Scene { before: between, ..*scene };
    let host = second.primary()?;
    let next = second.successor_of_lost(&host)?;
    second.writes()?;
    host.power_on()?;
    Ok(format!("{successor}, then {next}"))
}
