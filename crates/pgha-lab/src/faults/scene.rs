//! What a fault is played on, and what faults have in common.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{CONVERGED, SOME, SOON};
use crate::{
    Error, Host, Result, Target,
    cluster::{Cluster, Complete, DATABASES, until},
    workload::Workload,
};

/// Longer than a session with `ZooKeeper` lasts: what an ended one does to the cluster has happened by then.
const SESSION: Duration = Duration::from_secs(8);

/// The data directory of the installed cluster.
pub(super) const DATA: &str = "/var/lib/postgresql/15/pgha";

/// A complete cluster under load, as it was before the fault.
pub(super) struct Scene<'a> {
    pub(super) cluster: &'a Cluster<'a>,
    pub(super) workload: &'a Workload,
    pub(super) before: Complete,
}

impl Scene<'_> {
    pub(super) fn host(&self, name: &str) -> Result<Host> {
        self.cluster.host(name)
    }

    pub(super) fn primary(&self) -> Result<Host> {
        self.host(&self.before.primary)
    }

    /// The other databases' names.
    pub(super) fn others(&self) -> Vec<&'static str> {
        DATABASES.into_iter().filter(|name| *name != self.before.primary).collect()
    }

    /// Waits until somebody else is primary, and says who and when.
    pub(super) fn successor(&self) -> Result<String> {
        let started = Instant::now();
        let (name, seen) = self.cluster.await_successor(&self.before.primary, CONVERGED)?;
        let took = seen.saturating_duration_since(started).as_secs_f64();
        Ok(format!("{name} took over after {took:.1} s"))
    }

    /// The same, while a host is switched off: it is dead at once, but that nothing of it is left on this machine takes
    /// longer and must delay nobody.
    pub(super) fn successor_of_lost(&self, host: &Host) -> Result<String> {
        thread::scope(|scope| {
            let off = scope.spawn(|| host.power_off());
            let successor = self.successor();
            match off.join() {
                Ok(off) => off?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
            successor
        })
    }

    /// Clients write, some more rows are acknowledged.
    pub(super) fn writes(&self) -> Result<()> {
        self.workload.await_more(SOME, SOON)
    }

    /// Who leads a complete cluster now, in words that tell whether that has changed.
    pub(super) fn settled(&self) -> Result<String> {
        let after = self.cluster.await_complete(CONVERGED)?;
        let verb = if after.primary == self.before.primary { "went on" } else { "took over" };
        Ok(format!("{} {verb}", after.primary))
    }

    /// Changes a setting of the cluster, as soon as the ensemble takes it.
    pub(super) fn set(&self, setting: &str) -> Result<()> {
        let host = self.host(&self.before.sync)?;
        until(&format!("{setting} in the cluster's settings"), SOON, || {
            let set = host.exec(&format!("pghactl config set {setting}"))?;
            Ok(if set.success() { Ok(()) } else { Err(set.stderr) })
        })
    }

    /// Does to the cluster what must leave the same Postgres the primary, for longer than a session lasts.
    pub(super) fn undisturbed(&self, disturb: impl FnOnce(&Host) -> Result<()>) -> Result<String> {
        let host = self.primary()?;
        let before = postmaster(&host)?;
        disturb(&host)?;
        let started = Instant::now();
        while started.elapsed() < SESSION {
            let roles = self.cluster.roles()?;
            let failover = roles.primaries.iter().any(|primary| *primary != self.before.primary);
            Error::unless(!failover, || format!("there was a failover: {roles:?}"))?;
            thread::sleep(Duration::from_millis(50));
        }
        let after = postmaster(&host)?;
        Error::unless(before == after, || format!("Postgres was started anew: {before}, then {after}"))?;
        let complete = self.cluster.await_complete(CONVERGED)?;
        Error::unless(complete.primary == self.before.primary, || format!("{} leads now", complete.primary))?;
        Ok(format!("{} went on", self.before.primary))
    }

    /// Freezes a unit again and again, as systemd starts it anew, for as long as `meanwhile` lasts.
    pub(super) fn keep_frozen<T>(host: &Host, unit: &Target, meanwhile: impl FnOnce() -> Result<T>) -> Result<T> {
        host.freeze(unit)?;
        let over = AtomicBool::new(false);
        let result = thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    // Between its end and its next start there is nothing to freeze.
                    let _between = host.freeze(unit);
                    thread::sleep(Duration::from_millis(10));
                }
            });
            let result = meanwhile();
            over.store(true, Ordering::Relaxed);
            result
        })?;
        // The present one may be awaiting its end already.
        let _ended = host.thaw(unit);
        Ok(result)
    }
}

/// Makes a host the primary of a complete cluster.
pub(super) fn lead(cluster: &Cluster<'_>, host: &Host, limit: Duration) -> Result<Complete> {
    let before = cluster.await_complete(limit)?;
    if before.primary == host.name() {
        return Ok(before);
    }
    // With both standbys synchronous either may take over.
    host.run("pghactl config set synchronous_node_count=2")?;
    until(&format!("{} as the primary", host.name()), limit, || {
        let asked = host.exec(&format!("pghactl switchover --candidate {} --yes", host.name()))?;
        Ok(if asked.success() { Ok(()) } else { Err(asked.stderr) })
    })?;
    host.run("pghactl config set synchronous_node_count=null")?;
    cluster.await_complete(limit)
}

/// What tells one run of Postgres from another: its number and when it started.
fn postmaster(host: &Host) -> Result<String> {
    let seen = host.run(&format!("sed --quiet '1p;3p' {DATA}/postmaster.pid"))?;
    Ok(seen.split_whitespace().collect::<Vec<_>>().join(" since "))
}

/// Whether a client on the host itself could write there, whatever the network says.
pub(super) fn writable(host: &Host) -> Result<bool> {
    let asked = host.exec(
        "cd /; PGCONNECT_TIMEOUT=2 timeout 5 runuser -u postgres -- psql --no-psqlrc --tuples-only --no-align \
         --host=/var/run/postgresql --command='select pg_is_in_recovery()'",
    )?;
    Ok(asked.success() && asked.stdout.trim() == "f")
}
