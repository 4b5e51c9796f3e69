//! What a fault is played on, and what faults have in common.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    CONVERGED, SOME, SOON,
    software::{DATA, lose_power},
};
use crate::{
    Error, Host, Result,
    cluster::{Cluster, Complete, DATABASES, until},
    workload::Workload,
};

/// Longer than a session with `ZooKeeper` lasts: what an ended one does to the cluster has happened by then.
pub(super) const SESSION: Duration = Duration::from_secs(8);

/// A complete cluster under load, as it was before the fault.
pub(crate) struct Scene<'a> {
    pub(crate) cluster: &'a Cluster<'a>,
    pub(crate) workload: &'a Workload,
    pub(crate) before: Complete,
}

impl Scene<'_> {
    pub(crate) fn host(&self, name: &str) -> Result<Host> {
        self.cluster.host(name)
    }

    pub(crate) fn primary(&self) -> Result<Host> {
        self.host(&self.before.primary)
    }

    /// The other databases' names.
    pub(super) fn others(&self) -> Vec<&'static str> {
        DATABASES.into_iter().filter(|name| *name != self.before.primary).collect()
    }

    /// Waits until somebody else is primary, and says who and when.
    pub(crate) fn successor(&self) -> Result<String> {
        let started = Instant::now();
        let (name, seen) = self.cluster.await_successor(&self.before.primary, CONVERGED)?;
        let took = seen.saturating_duration_since(started).as_secs_f64();
        Ok(format!("{name} took over after {took:.1} s"))
    }

    /// The same, while a host is switched off.
    pub(super) fn successor_of_lost(&self, host: &Host) -> Result<String> {
        lose_power(host, || self.successor())
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
