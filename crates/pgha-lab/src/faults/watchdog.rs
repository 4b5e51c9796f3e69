//! Nothing on the primary's host runs any more that could end its Postgres, but for the hardware: for a virtual machine
//! with a kernel watchdog.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use super::{
    Fault, Patience,
    scene::{Scene, lead},
};
use crate::{
    Error, Kind, Result,
    cluster::{Cluster, DATABASES, until},
};

/// An emulated host boots for minutes beside others that work, and catches up after that.
pub(super) const BACK: Duration = Duration::from_mins(8);
/// The units without which nobody on the host ends Postgres. systemd stands still as a whole, or it would start the others
/// anew; all of it is one command, because nobody can log in afterwards.
const FREEZE: &str = "for unit in system.slice/pgha-guard.service system.slice/pgha-agent.service init.scope; do \
                      echo 1 > /sys/fs/cgroup/$unit/cgroup.freeze; done";
const BOOT: &str = "cat /proc/sys/kernel/random/boot_id";
const WATCHDOG: &str = "cat /sys/class/watchdog/watchdog0/state";

pub(super) const FAULTS: &[Fault] = &[Fault {
    slug: "watchdog",
    name: "agent, guard and systemd of the primary's host frozen",
    essential: false,
    machine: true,
    patience: Patience::Failover,
    play: frozen,
}];

fn frozen(scene: &Scene<'_>) -> Result<String> {
    let host = scene.primary()?;
    let before = host.run(BOOT)?;
    // It is armed with the first renewal.
    until("an armed watchdog", super::SOON, || {
        let state = host.run(WATCHDOG)?;
        Ok(if state.trim() == "active" { Ok(()) } else { Err(state) })
    })?;
    let mut freezing = host.command("bash")?;
    let freezing = freezing.args(["-c", FREEZE]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut freezing =
        freezing.spawn().map_err(|source| Error::Io { what: "freezing the units".to_owned(), source })?;
    let begun = Instant::now();
    let told = scene.successor()?;
    // The session cannot end by itself: its host has lost it.
    let _gone = freezing.kill().and_then(|()| freezing.wait());
    scene.writes()?;
    until(&format!("another boot of {}", host.name()), BACK, || {
        Ok(match host.run(BOOT) {
            Ok(after) if after != before => Ok(()),
            Ok(_) => Err("the watchdog has not reset it".to_owned()),
            Err(error) => Err(error.to_string()),
        })
    })?;
    let back = begun.elapsed().as_secs_f64();
    Ok(format!("{told}, {} was reset and is back after {back:.0} s", host.name()))
}

/// Makes the machine the primary. Before clients write: it is too slow to keep up with them.
pub(super) fn prepare(cluster: &Cluster<'_>) -> Result<()> {
    let hosts = DATABASES.iter().map(|name| cluster.host(name)).collect::<Result<Vec<_>>>()?;
    let Some(machine) = hosts.iter().find(|host| host.kind() == Kind::Machine) else {
        return Err(Error::State(
            "no database is on a virtual machine; `cargo xtask faults --machine` makes one".to_owned(),
        ));
    };
    lead(cluster, machine, BACK).map(drop)
}
