//! What operators do: switch over, stop, restart, upgrade.

use super::{Fault, Patience, scene::Scene, software::PGHA};
use crate::{Error, Result, cluster::Complete};

/// In the order in which the installer puts them there.
const PROGRAMS: [&str; 2] = ["/usr/local/bin/pgha-guard", "/usr/local/bin/pgha-agent"];

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

/// Other files take the programs' places, as the installer puts them there; a byte at its end makes one another.
fn agent_upgraded(scene: &Scene<'_>) -> Result<String> {
    scene.undisturbed(|host| {
        let replace = |it| format!("cp {it} {it}.new && echo >> {it}.new && mv {it}.new {it}");
        let replace = PROGRAMS.map(replace).join(" && ");
        host.run(&format!("{replace} && systemctl restart pgha-guard && systemctl restart pgha-agent")).map(drop)
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
