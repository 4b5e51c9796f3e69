//! Processes are killed or stand still.

use super::{
    Fault, Patience,
    scene::{Scene, writable},
    software::PGHA,
};
use crate::{Error, Result, Target};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        slug: "postmaster-killed",
        name: "postmaster of the primary killed",
        essential: true,
        machine: false,
        patience: Patience::Failover,
        play: postmaster_killed,
    },
    Fault {
        slug: "agent-frozen",
        name: "agent of the primary frozen",
        essential: true,
        machine: false,
        patience: Patience::Failover,
        play: agent_frozen,
    },
    Fault {
        slug: "agent-killed",
        name: "agent of the primary killed",
        essential: true,
        machine: false,
        patience: Patience::Hiccup,
        play: |scene| scene.undisturbed(|host| PGHA.kill_agent(host)),
    },
    Fault {
        slug: "postgres-frozen",
        name: "Postgres of the primary frozen",
        essential: true,
        machine: false,
        patience: Patience::Failover,
        play: postgres_frozen,
    },
    Fault {
        slug: "agent-and-postgres-frozen",
        name: "agent and Postgres of the primary frozen",
        essential: false,
        machine: false,
        patience: Patience::Failover,
        play: both_frozen,
    },
    Fault {
        slug: "backend-killed",
        name: "a backend of the primary killed",
        essential: false,
        machine: false,
        patience: Patience::Failover,
        play: backend_killed,
    },
    Fault {
        slug: "agent-and-guard-killed",
        name: "agent and guard of the primary killed",
        essential: false,
        machine: false,
        patience: Patience::Failover,
        play: agent_and_guard_killed,
    },
];

fn postmaster_killed(scene: &Scene<'_>) -> Result<String> {
    PGHA.kill_postmaster(&scene.primary()?)?;
    scene.writes()?;
    scene.settled()
}

/// All backends of Postgres end with one that was killed, and its memory is made anew.
fn backend_killed(scene: &Scene<'_>) -> Result<String> {
    let host = scene.primary()?;
    // The clients' backends have a client's address and port in their title.
    host.run("kill -KILL $(pgrep --full 'postgres: .*[p]ostgres postgres [0-9]' | head --lines=1)")?;
    scene.writes()?;
    scene.settled()
}

/// systemd's watchdog ends a frozen agent, so it is frozen again and again, until somebody else leads: meanwhile only
/// the guard is left to end the old primary.
fn agent_frozen(scene: &Scene<'_>) -> Result<String> {
    let host = scene.primary()?;
    PGHA.keep_agent_frozen(&host, || {
        let successor = scene.successor()?;
        Error::unless(!writable(&host)?, || format!("{} still takes writes, and {successor}", host.name()))?;
        Ok(successor)
    })
}

fn postgres_frozen(scene: &Scene<'_>) -> Result<String> {
    let host = scene.primary()?;
    let postgres = Target::unit("pgha-postgres");
    host.freeze(&postgres)?;
    scene.writes()?;
    // What is left of the frozen one has been killed, or goes on as what it was not allowed to be: the probe would see it.
    let _killed = host.thaw(&postgres);
    scene.settled()
}

fn both_frozen(scene: &Scene<'_>) -> Result<String> {
    let host = scene.primary()?;
    let postgres = Target::unit("pgha-postgres");
    let successor = PGHA.keep_agent_frozen(&host, || {
        host.freeze(&postgres)?;
        let successor = scene.successor()?;
        scene.writes()?;
        Ok(successor)
    })?;
    let _killed = host.thaw(&postgres);
    Ok(successor)
}

/// systemd starts both again within a fraction of the lease.
fn agent_and_guard_killed(scene: &Scene<'_>) -> Result<String> {
    let host = scene.primary()?;
    for unit in ["pgha-guard", "pgha-agent"] {
        host.kill(&Target::unit(unit))?;
    }
    scene.writes()?;
    scene.settled()
}
