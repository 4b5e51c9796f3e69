//! Nothing on the primary's host runs any more that could end its Postgres, but for the hardware; and systemd wants that
//! hardware for itself: for a virtual machine with a kernel watchdog.

use std::{
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use super::{
    Fault, Patience,
    scene::{SESSION, Scene, lead},
    software::DATA,
};
use crate::{
    Error, Host, Kind, Result,
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

/// Tells systemd to feed the watchdog, as its administrator would, and for no longer than this boot.
const FEED: &str = "mkdir --parents /run/systemd/system.conf.d; \
                    printf '[Manager]\\nRuntimeWatchdogSec=30s\\n' > /run/systemd/system.conf.d/feed.conf; \
                    systemctl daemon-reexec";
/// A member that must have what systemd has.
const REQUIRE: &str =
    "sed --in-place '/^.watchdog.$/,/^$/ s/automatic/required/' /etc/pgha/agent.toml; systemctl restart pgha-agent";
const AS_BEFORE: &str = "sed --in-place '/^.watchdog.$/,/^$/ s/required/automatic/' /etc/pgha/agent.toml; \
                         rm /run/systemd/system.conf.d/feed.conf; systemctl daemon-reexec; systemctl restart pgha-agent";
/// systemd tries to open a watchdog that it did not get every 15 s then, and so does the agent once a minute.
const NOTICED: Duration = Duration::from_mins(4);

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        slug: "watchdog",
        name: "agent, guard and systemd of the primary's host frozen",
        essential: false,
        machine: true,
        patience: Patience::Failover,
        play: frozen,
    },
    Fault {
        slug: "watchdog-orphaned",
        name: "agent and Postgres of the primary killed with the watchdog armed",
        essential: false,
        machine: true,
        patience: Patience::Failover,
        play: orphaned,
    },
    Fault {
        slug: "watchdog-rival",
        name: "systemd told to feed the watchdog of the primary's host",
        essential: false,
        machine: true,
        patience: Patience::Failover,
        play: rival,
    },
];

fn frozen(scene: &Scene<'_>) -> Result<String> {
    let host = scene.primary()?;
    let before = host.run(BOOT)?;
    armed(&host)?;
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

/// The next agent has no Postgres to lead with, and the watchdog that the killed one left must not reset its host.
fn orphaned(scene: &Scene<'_>) -> Result<String> {
    let host = scene.primary()?;
    let before = host.run(BOOT)?;
    armed(&host)?;
    // At once: an agent that finds its Postgres alive goes on leading.
    host.run(&format!(
        "kill -s KILL $(systemctl show --property=MainPID --value pgha-agent) $(head --lines=1 {DATA}/postmaster.pid)"
    ))?;
    let told = scene.successor()?;
    scene.writes()?;
    // Its last renewal is older than a lease by now; the watchdog was set to less.
    thread::sleep(SESSION);
    let after = host.run(BOOT)?;
    Error::unless(before == after, || format!("the watchdog has reset {}", host.name()))?;
    Ok(format!("{told}, {} was not reset", host.name()))
}

/// The agent keeps the watchdog that it has opened, as a standby and when it is restarted; systemd gets it when the agent is
/// stopped, which the next agent must say.
fn rival(scene: &Scene<'_>) -> Result<String> {
    let host = scene.primary()?;
    armed(&host)?;
    let told = contended(scene, &host);
    // Also where that has failed: what is played next must have its watchdog.
    host.run(AS_BEFORE)?;
    let told = told?;
    says(&host, "ready")?;
    Ok(format!("the agent kept it; {told}; stopped, it lost it to systemd, and did not lead where it must have it"))
}

fn contended(scene: &Scene<'_>, host: &Host) -> Result<String> {
    scene.undisturbed(|host| host.run(FEED).map(drop))?;
    host.run("systemctl restart pgha-agent")?;
    says(host, "armed")?;
    host.run("pghactl switchover --yes")?;
    let told = scene.successor()?;
    says(host, "ready")?;
    host.run("systemctl stop pgha-agent")?;
    until("systemd at the watchdog", NOTICED, || is_active(host))?;
    host.run("systemctl start pgha-agent")?;
    says(host, "none: systemd holds /dev/watchdog (RuntimeWatchdogSec=30s)")?;
    host.run(REQUIRE)?;
    says(host, "unusable, but required: systemd holds")?;
    let asked = host.exec(&format!("pghactl switchover --candidate {} --yes", host.name()))?;
    Error::unless(!asked.success(), || format!("{} leads without the watchdog that it must have", host.name()))?;
    Ok(told)
}

/// What the agent says of its watchdog.
fn says(host: &Host, words: &str) -> Result<()> {
    until(&format!("a watchdog of which is said: {words}"), NOTICED, || {
        let asked = host
            .exec("curl --silent --fail http://127.0.0.1:8008/pgha | grep --only-matching '\"watchdog\":\"[^\"]*'")?;
        let said = asked.stdout.trim();
        Ok(if said.contains(words) { Ok(()) } else { Err(format!("it says {said}; {}", asked.stderr)) })
    })
}

fn is_active(host: &Host) -> Result<std::result::Result<(), String>> {
    let state = host.run(WATCHDOG)?;
    Ok(if state.trim() == "active" { Ok(()) } else { Err(state) })
}

/// By the agent; with the first renewal at the latest.
fn armed(host: &Host) -> Result<()> {
    says(host, "armed")?;
    until("an armed watchdog", super::SOON, || is_active(host))
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
