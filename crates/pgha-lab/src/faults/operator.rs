//! What operators do: switch over, stop, restart, upgrade.

use super::{Fault, Patience, scene::Scene, software::PGHA};
use crate::{Error, Result, cluster::Complete};

const AGENT: &str = "/usr/local/bin/pgha-agent";

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        slug: "switchover",
        name: "switchover by an operator",
        essential: true,
        machine: false,
        patience: Patience::Failover,
        play: switchover,
    },
    Fault {
        slug: "agent-restarted",
        name: "agent of the primary restarted",
        essential: false,
        machine: false,
        patience: Patience::Hiccup,
        play: |scene| scene.undisturbed(|host| host.run("systemctl restart pgha-agent").map(drop)),
    },
    Fault {
        slug: "agent-upgraded",
        name: "agent of the primary upgraded in place",
        essential: true,
        machine: false,
        patience: Patience::Hiccup,
        play: agent_upgraded,
    },
    Fault {
        slug: "agent-stopped",
        name: "agent of the primary stopped",
        essential: true,
        machine: false,
        patience: Patience::Failover,
        play: agent_stopped,
    },
    Fault {
        slug: "restart",
        name: "Postgres of the primary restarted by an operator",
        essential: false,
        machine: false,
        patience: Patience::Failover,
        play: restart,
    },
];

fn switchover(scene: &Scene<'_>) -> Result<String> {
    let Complete { primary, sync: candidate, other } = &scene.before;
    PGHA.switch_over(&scene.host(other)?, primary, candidate)?;
    let told = scene.settled()?;
    Error::unless(told == format!("{candidate} took over"), || format!("{told}, and not {candidate}"))?;
    Ok(told)
}

/// Another file takes the program's place, as the installer puts it there; a byte at its end makes it another one.
fn agent_upgraded(scene: &Scene<'_>) -> Result<String> {
    scene.undisturbed(|host| {
        let replace = format!("cp {AGENT} {AGENT}.new && echo >> {AGENT}.new && mv {AGENT}.new {AGENT}");
        host.run(&format!("{replace} && systemctl restart pgha-guard pgha-agent")).map(drop)
    })
}

fn agent_stopped(scene: &Scene<'_>) -> Result<String> {
    let host = scene.primary()?;
    host.run("systemctl stop pgha-agent")?;
    let state = host.exec("systemctl is-active pgha-postgres")?;
    Error::unless(!state.success(), || format!("Postgres outlives its agent: {}", state.stdout.trim()))?;
    let successor = scene.successor()?;
    scene.writes()?;
    host.run("systemctl start pgha-agent")?;
    Ok(successor)
}

fn restart(scene: &Scene<'_>) -> Result<String> {
    scene.primary()?.run(&format!("pghactl restart {} --yes", scene.before.primary))?;
    scene.writes()?;
    scene.settled()
}
