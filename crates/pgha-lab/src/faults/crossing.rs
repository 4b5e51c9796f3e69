//! Faults that meet: with each other, or with a repair under way.

use std::{process::Stdio, thread, time::Duration};

use super::{CONVERGED, Fault, Patience, SOON, scene::Scene, software::DATA};
use crate::{Error, Host, Result, quote};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        slug: "primary-and-sync-lost",
        name: "power loss of the primary and the synchronous standby",
        essential: false,
        machine: false,
        patience: Patience::Outage(10),
        play: two_lost,
    },
    Fault {
        slug: "killed-during-promotion",
        name: "power loss of the primary, and of its successor while it is promoted",
        essential: false,
        machine: false,
        patience: Patience::Outage(10),
        play: during_promotion,
    },
    Fault {
        slug: "killed-during-rewind",
        name: "power loss during pg_rewind",
        essential: false,
        machine: false,
        patience: Patience::Failover,
        play: during_rewind,
    },
    Fault {
        slug: "killed-during-copy",
        name: "power loss during a base backup",
        essential: false,
        machine: false,
        patience: Patience::Hiccup,
        play: during_copy,
    },
    Fault {
        slug: "primary-lost-in-switchover",
        name: "power loss of the primary during a switchover",
        essential: false,
        machine: false,
        patience: Patience::Failover,
        play: in_switchover,
    },
];

/// What is left may not lead: it may lack what was acknowledged. And alone it is no majority of the ensemble.
fn two_lost(scene: &Scene<'_>) -> Result<String> {
    let (primary, sync) = (scene.primary()?, scene.host(&scene.before.sync)?);
    primary.power_off()?;
    sync.power_off()?;
    thread::sleep(Duration::from_secs(8));
    let roles = scene.cluster.roles()?;
    Error::unless(roles.primaries.is_empty(), || format!("the third one leads alone: {roles:?}"))?;
    sync.power_on()?;
    scene.writes()?;
    primary.power_on()?;
    scene.settled()
}

fn during_promotion(scene: &Scene<'_>) -> Result<String> {
    let (primary, sync) = (scene.primary()?, scene.host(&scene.before.sync)?);
    primary.power_off()?;
    // Postgres removes the file when recovery has ended, before it takes writes (xlogrecovery.c, FinishWalRecovery).
    await_moment(&sync, "the promotion", &format!("! test -e {DATA}/standby.signal"))?;
    sync.power_off()?;
    for host in [&primary, &sync] {
        host.power_on()?;
    }
    scene.writes()?;
    scene.settled()
}

/// A primary that was cut off has written what nobody else has: it must rewind, and dies while it does.
fn during_rewind(scene: &Scene<'_>) -> Result<String> {
    let host = scene.primary()?;
    host.cut()?;
    let successor = scene.successor()?;
    scene.writes()?;
    host.heal()?;
    await_moment(&host, "pg_rewind", "pgrep --exact pg_rewind")?;
    host.power_off()?;
    host.power_on()?;
    Ok(successor)
}

fn during_copy(scene: &Scene<'_>) -> Result<String> {
    let host = scene.host(&scene.before.other)?;
    host.run(&format!("pghactl reinit {} --yes > /dev/null 2>&1 < /dev/null &", host.name()))?;
    await_moment(&host, "pg_basebackup", "pgrep --exact pg_basebackup")?;
    host.power_off()?;
    host.power_on()?;
    scene.settled()
}

fn in_switchover(scene: &Scene<'_>) -> Result<String> {
    let host = scene.primary()?;
    let asking = format!("pghactl switchover --candidate {} --yes", scene.before.sync);
    let mut asked = scene.host(&scene.before.other)?.command("bash")?;
    let started = asked.args(["-c", &asking]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = started.spawn().map_err(|source| Error::Io { what: "starting pghactl".to_owned(), source })?;
    await_moment(&host, "the old primary's end", "! pgrep --full 'postgres: .*[w]alwriter'")?;
    host.power_off()?;
    child.wait().map_err(|source| Error::Io { what: "waiting for pghactl".to_owned(), source })?;
    scene.writes()?;
    host.power_on()?;
    let complete = scene.cluster.await_complete(CONVERGED)?;
    Ok(format!("{} took over", complete.primary))
}

/// Looks as often as it can until a condition holds on a host; a moment passes quickly.
fn await_moment(host: &Host, what: &str, condition: &str) -> Result<()> {
    let watch = format!("until {condition} > /dev/null; do sleep 0.002; done");
    let seen = host.exec(&format!("timeout {} bash -c {}", SOON.as_secs(), quote(&watch)))?;
    if seen.success() {
        return Ok(());
    }
    let what = format!("{what} on {}", host.name());
    Err(Error::Timeout { what, waited: SOON, hint: seen.stderr })
}
