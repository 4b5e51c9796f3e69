//! What faults do to hosts, whatever software keeps a cluster on them available: the matrix and the comparison with a peer
//! do the very same.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use crate::{Host, Result, Target};

/// The data directory of the installed cluster.
pub(super) const DATA: &str = "/var/lib/postgresql/15/pgha";

/// What of a cluster's software faults must know.
#[derive(Debug, Clone, Copy)]
pub struct Software {
    /// Its name.
    pub name: &'static str,
    /// The units that run on every member.
    pub units: &'static [&'static str],
    /// The processes that decide.
    pub agent: fn() -> Target,
    /// All processes that are needed beside Postgres and the ensemble.
    pub resident: fn() -> Vec<Target>,
    /// Postgres' data directory.
    pub data: &'static str,
    /// An operator's command that hands over from one member to another.
    pub switchover: fn(from: &str, to: &str) -> String,
}

/// What this project installs.
pub const PGHA: Software = Software {
    name: "pgha",
    units: &["pgha-zookeeper", "pgha-agent"],
    agent: || Target::unit("pgha-agent"),
    resident: || vec![Target::unit("pgha-agent"), Target::unit("pgha-guard")],
    data: DATA,
    switchover: |_from, to| format!("pghactl switchover --candidate {to} --yes"),
};

impl Software {
    /// An operator on `host` asks one member to hand over to another.
    pub(crate) fn switch_over(&self, host: &Host, from: &str, to: &str) -> Result<()> {
        host.run(&(self.switchover)(from, to)).map(drop)
    }

    /// The postmaster alone: what it has started ends when it finds that out.
    pub(crate) fn kill_postmaster(&self, host: &Host) -> Result<()> {
        host.run(&format!("kill -KILL $(head --lines=1 {}/postmaster.pid)", self.data)).map(drop)
    }

    /// Whatever starts it again is not kept from that.
    pub(crate) fn kill_agent(&self, host: &Host) -> Result<()> {
        host.kill(&(self.agent)()).map(drop)
    }

    /// Whatever ends a frozen agent and starts another one: that one is frozen, too, for as long as `meanwhile` lasts.
    pub(crate) fn keep_agent_frozen<T>(&self, host: &Host, meanwhile: impl FnOnce() -> Result<T>) -> Result<T> {
        let agent = (self.agent)();
        host.freeze(&agent)?;
        let over = AtomicBool::new(false);
        let result = thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    // Between its end and its next start there is nothing to freeze.
                    let _between = host.freeze(&agent);
                    thread::sleep(Duration::from_millis(10));
                }
            });
            let result = meanwhile();
            over.store(true, Ordering::Relaxed);
            result
        })?;
        // The present one may be awaiting its end already.
        let _ended = host.thaw(&agent);
        Ok(result)
    }
}

/// A host is dead at once, but that nothing of it is left on this machine takes longer and must not delay `meanwhile`.
pub(crate) fn lose_power<T>(host: &Host, meanwhile: impl FnOnce() -> Result<T>) -> Result<T> {
    thread::scope(|scope| {
        let off = scope.spawn(|| host.power_off());
        let result = meanwhile();
        match off.join() {
            Ok(off) => off?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        result
    })
}
