//! A few faults measured, not judged: what they cost the clients of a cluster, whatever software keeps it available.

mod report;
mod usage;

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

pub use self::{
    report::{Entry, Report, Side},
    usage::{Rest, Usage},
};
use crate::{
    Result,
    cluster::{Cluster, Complete, until},
    faults::{self, Scene, Software, lose_power},
    workload::{Settings, Workload},
};

/// For a complete cluster; slow software may take its time, that is not what is measured.
pub(crate) const COMPLETE: Duration = Duration::from_mins(5);
/// For clients that write again.
const WRITES: Duration = Duration::from_mins(3);
/// Before each fault, so that the last one is over for whoever looks at the cluster every ten seconds only.
const QUIET: Duration = Duration::from_secs(12);
/// After a fault that nobody undoes: longer than the longest session with `ZooKeeper`, and one turn of the slowest loop.
const WATCH: Duration = Duration::from_secs(45);
/// Rows that show that writing goes on.
const SOME: usize = 100;

/// What is done, and what is measured of it.
#[derive(Debug)]
pub struct Subject {
    /// Its name on command lines.
    pub slug: &'static str,
    /// Its name for readers.
    pub name: &'static str,
    /// Does it; in seconds what is measured, where that is not the clients' longest gap.
    play: fn(&Scene<'_>, &Software) -> Result<Option<f64>>,
}

/// All of them.
pub const SUBJECTS: [Subject; 7] = [
    Subject { slug: "switchover", name: "planned switchover", play: switchover },
    Subject { slug: "postmaster-killed", name: "postmaster of the primary killed", play: postmaster_killed },
    Subject { slug: "power-loss", name: "power loss of the primary's host", play: power_loss },
    Subject { slug: "agent-killed", name: "agent of the primary killed", play: agent_killed },
    Subject { slug: "agent-frozen", name: "agent of the primary frozen", play: agent_frozen },
    Subject { slug: "network-cut", name: "network cut of the primary's host", play: network_cut },
    Subject { slug: "power-on", name: "old primary streaming after power-on", play: power_on },
];

/// What was measured.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Figures {
    /// The longest time between two acknowledged commits of all clients, or what else the subject is about.
    pub seconds: f64,
    /// Rows whose commit was acknowledged.
    pub acknowledged: usize,
    /// Those of them that are not there afterwards.
    pub lost: usize,
    /// Who leads in the end.
    pub told: String,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} s, {} of {} rows lost, {}", self.seconds, self.lost, self.acknowledged, self.told)
    }
}

/// Measures one subject on a complete cluster.
pub fn measure(subject: &Subject, cluster: &Cluster<'_>, software: &Software) -> Result<Figures> {
    thread::sleep(QUIET);
    let before = cluster.await_complete(COMPLETE)?;
    let workload = Workload::start(Settings::new(cluster.balancer.clone()))?;
    workload.await_more(SOME, WRITES)?;
    let primary = before.primary.clone();
    let measured = (subject.play)(&Scene { cluster, workload: &workload, before }, software)?;
    workload.await_more(SOME, WRITES)?;
    let after = cluster.await_complete(COMPLETE)?;
    let report = workload.finish()?;
    Ok(Figures {
        seconds: measured.unwrap_or(report.longest_gap),
        acknowledged: report.acknowledged,
        lost: report.lost,
        told: format!("{} {}", after.primary, if after.primary == primary { "went on" } else { "took over" }),
    })
}

/// Undoes what a measurement left that came to nothing.
pub fn mend(cluster: &Cluster<'_>, software: &Software) -> Result<()> {
    faults::mend_of(cluster, software, COMPLETE)
}

fn switchover(scene: &Scene<'_>, software: &Software) -> Result<Option<f64>> {
    let Complete { primary, sync, other } = &scene.before;
    software.switch_over(&scene.host(other)?, primary, sync)?;
    scene.successor()?;
    thread::sleep(WATCH);
    Ok(None)
}

fn postmaster_killed(scene: &Scene<'_>, software: &Software) -> Result<Option<f64>> {
    software.kill_postmaster(&scene.primary()?)?;
    thread::sleep(WATCH);
    Ok(None)
}

fn agent_killed(scene: &Scene<'_>, software: &Software) -> Result<Option<f64>> {
    software.kill_agent(&scene.primary()?)?;
    thread::sleep(WATCH);
    Ok(None)
}

fn agent_frozen(scene: &Scene<'_>, software: &Software) -> Result<Option<f64>> {
    software.keep_agent_frozen(&scene.primary()?, || succeeded(scene))?;
    Ok(None)
}

fn network_cut(scene: &Scene<'_>, _software: &Software) -> Result<Option<f64>> {
    let host = scene.primary()?;
    host.cut()?;
    succeeded(scene)?;
    host.heal()?;
    Ok(None)
}

fn power_loss(scene: &Scene<'_>, _software: &Software) -> Result<Option<f64>> {
    let host = scene.primary()?;
    lose_power(&host, || succeeded(scene))?;
    host.power_on()?;
    Ok(None)
}

/// From the switch to a standby that streams: the host's boot is part of it.
fn power_on(scene: &Scene<'_>, _software: &Software) -> Result<Option<f64>> {
    let host = scene.primary()?;
    lose_power(&host, || succeeded(scene))?;
    // A base backup streams, too.
    let streams = format!(
        "select count(*) from pg_stat_replication where client_addr = '{}' and state = 'streaming' and application_name \
         <> 'pg_basebackup'",
        host.address()
    );
    let begun = Instant::now();
    host.power_on_only()?;
    let seen = until(&format!("{} as a standby that streams", host.name()), COMPLETE, || {
        Ok(match scene.cluster.write(&streams) {
            Ok(rows) if rows == [[Some("1".to_owned())]] => Ok(Instant::now()),
            Ok(rows) => Err(format!("{rows:?}")),
            Err(error) => Err(error.to_string()),
        })
    })?;
    host.await_ready()?;
    Ok(Some(seen.saturating_duration_since(begun).as_secs_f64()))
}

/// Somebody else leads, and clients write there.
fn succeeded(scene: &Scene<'_>) -> Result<()> {
    scene.successor()?;
    scene.workload.await_more(SOME, WRITES)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_fit_for_command_lines() {
        let slugs: BTreeSet<_> = SUBJECTS.iter().map(|subject| subject.slug).collect();
        assert_eq!(slugs.len(), SUBJECTS.len());
        assert!(slugs.iter().all(|slug| slug.chars().all(|c| c.is_ascii_lowercase() || c == '-')), "{slugs:?}");
    }
}
