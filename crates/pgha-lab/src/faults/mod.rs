//! Faults of hosts, processes, networks and the ensemble, each played on an installed cluster while clients write through
//! the balancer: no acknowledged row may be lost, no two databases may write at once, the clients may not wait for long,
//! and the cluster must become complete again by itself.

mod clock;
mod crossing;
mod disk;
mod ensemble;
mod network;
mod operator;
mod power;
mod process;
mod rejoin;
mod report;
mod scene;
mod software;
mod watchdog;

use std::time::{Duration, Instant};

pub use self::{
    report::{Entry, Report},
    software::{PGHA, Software},
};
pub(crate) use self::{scene::Scene, software::lose_power};
use crate::{
    Error, Result, Target,
    cluster::{Cluster, DATABASES, until},
    workload::{
        self, Settings, Workload,
        append::{self, Appends},
        probe::{self, Act, Probe},
    },
};

/// From a fault to a complete cluster again.
pub const CONVERGED: Duration = Duration::from_secs(90);
/// For everything that only has to happen.
const SOON: Duration = Duration::from_secs(60);
/// Rows that show that writing goes on.
const SOME: usize = 100;
/// Clients that append to lists, beside those that write rows.
const APPENDERS: u32 = 2;
/// Appends that show that this goes on, too.
const A_FEW: usize = 10;

/// One fault, and what holds of it.
#[derive(Debug)]
pub struct Fault {
    /// Its name on command lines.
    pub slug: &'static str,
    /// Its name for readers.
    pub name: &'static str,
    /// Played by every test run, not only by `cargo xtask faults`.
    pub essential: bool,
    /// Needs a database on a virtual machine, with a clock and a kernel watchdog of its own.
    pub machine: bool,
    patience: Patience,
    play: fn(&Scene<'_>) -> Result<String>,
}

/// What clients may see; generous, because this is a test of what holds, not of speed.
#[derive(Debug, Clone, Copy)]
enum Patience {
    /// The primary stays the primary.
    Hiccup,
    /// Another one takes over.
    Failover,
    /// A host that stood still as a whole wakes up as the primary that it was: its database may take writes, but not
    /// acknowledge any, until its guard has run.
    Waking,
    /// Nothing can be written for as long as the fault lasts, which is so many seconds.
    Outage(u64),
}

impl Patience {
    /// The longest gap, in seconds.
    fn gap(self) -> f64 {
        match self {
            Self::Hiccup => 2.0,
            Self::Failover | Self::Waking => 30.0,
            #[expect(clippy::cast_precision_loss, reason = "minutes")]
            Self::Outage(seconds) => seconds as f64 + 30.0,
        }
    }

    /// For how long two may take writes that neither can acknowledge, in seconds.
    fn twofold(self) -> f64 {
        if matches!(self, Self::Waking) { 2.0 } else { 0.0 }
    }
}

/// What a fault came to.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Outcome {
    /// What happened, in a few words.
    pub told: String,
    /// What the clients saw that write rows.
    pub workload: workload::Report,
    /// What the clients saw that append to lists.
    pub appends: append::Report,
    /// Which databases took writes.
    pub probe: probe::Report,
    /// From the end of the fault, when clients wrote again, to a complete cluster, in seconds.
    pub complete_after: f64,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "gap {:>5.2} s, {} of {} rows lost, {}, complete {:.1} s later",
            self.workload.longest_gap, self.workload.lost, self.workload.acknowledged, self.told, self.complete_after
        )
    }
}

/// Every fault, those of every test run first in each group.
pub fn all() -> impl Iterator<Item = &'static Fault> {
    let groups = [power::FAULTS, network::FAULTS, process::FAULTS, operator::FAULTS, ensemble::FAULTS];
    groups
        .into_iter()
        .chain([crossing::FAULTS, disk::FAULTS, rejoin::FAULTS, watchdog::FAULTS, clock::FAULTS])
        .flatten()
}

impl Fault {
    /// Plays it on a complete cluster; an error when a promise was broken.
    pub fn play(&self, cluster: &Cluster<'_>) -> Result<Outcome> {
        self.play_with(cluster, Duration::ZERO)
    }

    /// The same where clients may wait longer by `allowance`, because the machine has more to do than it can.
    pub fn play_with(&self, cluster: &Cluster<'_>, allowance: Duration) -> Result<Outcome> {
        if self.machine {
            watchdog::prepare(cluster)?;
        }
        let before = cluster.await_complete(CONVERGED)?;
        let hosts = DATABASES.iter().map(|name| cluster.host(name)).collect::<Result<Vec<_>>>()?;
        let probe = Probe::start(&cluster.balancer, &hosts)?;
        let workload = Workload::start(Settings::new(cluster.balancer.clone()))?;
        let appends = Appends::start(Settings { writers: APPENDERS, ..Settings::new(cluster.balancer.clone()) })?;
        workload.await_more(SOME, SOON)?;
        appends.await_more(A_FEW, SOON)?;
        let told = (self.play)(&Scene { cluster, workload: &workload, before })?;
        workload.await_more(SOME, SOON)?;
        appends.await_more(A_FEW, SOON)?;
        let complete = |limit| {
            let started = Instant::now();
            cluster.await_complete(limit).map(|_| started.elapsed().as_secs_f64())
        };
        let finish = || Ok::<_, Error>((workload.finish()?, appends.finish()?));
        let (complete_after, (workload, appends)) = if self.machine {
            // An emulated host cannot catch up with clients that go on.
            let reports = finish()?;
            (complete(watchdog::BACK)?, reports)
        } else {
            (complete(CONVERGED)?, finish()?)
        };
        let outcome = Outcome { told, complete_after, workload, appends, probe: probe.finish()? };
        self.judge(&outcome, allowance)?;
        same_everywhere(cluster)?;
        Ok(outcome)
    }

    fn judge(&self, outcome: &Outcome, allowance: Duration) -> Result<()> {
        let Outcome { workload, appends, probe, .. } = outcome;
        Error::unless(workload.holds(), || format!("a promise was broken:\n{workload}"))?;
        Error::unless(appends.holds(), || format!("what clients saw cannot have happened:\n{appends}"))?;
        Error::unless(workload.longest_gap < self.patience.gap() + allowance.as_secs_f64(), || {
            format!("nothing could be written for too long:\n{workload}")
        })?;
        let allowed = |kind| if kind == Act::Takes { self.patience.twofold() } else { 0.0 };
        let bad = probe.overlaps.iter().find(|overlap| overlap.seconds > allowed(overlap.kind));
        Error::unless(bad.is_none(), || format!("two at once: {}", bad.map(ToString::to_string).unwrap_or_default()))
    }
}

/// Undoes what a failed fault left, as far as an operator at the switch could.
pub fn mend(cluster: &Cluster<'_>) -> Result<()> {
    mend_of(cluster, &PGHA, CONVERGED)
}

/// The same for other software, which may take longer.
pub(crate) fn mend_of(cluster: &Cluster<'_>, software: &Software, limit: Duration) -> Result<()> {
    for name in DATABASES {
        let host = cluster.host(name)?;
        if !host.is_on()? {
            host.power_on()?;
            continue;
        }
        host.heal()?;
        host.thaw(&Target::Everything)?;
        host.run(&format!("systemctl start {}", software.units.join(" ")))?;
    }
    cluster.await_complete(limit)?;
    Ok(())
}

/// Every member holds the same rows in the end.
fn same_everywhere(cluster: &Cluster<'_>) -> Result<()> {
    let count = "select count(*), max(written) from pgha_workload";
    let expected = cluster.write(count)?;
    for name in DATABASES {
        until(&format!("all rows on {name}"), SOON, || {
            Ok(match cluster.ask(name, count) {
                Ok(rows) if rows == expected => Ok(()),
                Ok(rows) => Err(format!("{rows:?} instead of {expected:?}")),
                Err(error) => Err(error.to_string()),
            })
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_fit_for_command_lines() {
        let slugs: BTreeSet<_> = all().map(|fault| fault.slug).collect();
        let names: BTreeSet<_> = all().map(|fault| fault.name).collect();
        assert_eq!((slugs.len(), names.len()), (all().count(), all().count()));
        assert!(slugs.iter().all(|slug| slug.chars().all(|c| c.is_ascii_lowercase() || c == '-')), "{slugs:?}");
    }
}
