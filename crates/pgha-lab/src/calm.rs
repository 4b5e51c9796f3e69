//! A healthy cluster under load: agents that are late must not take it for a broken one.

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use crate::{
    Result,
    cluster::{Cluster, Complete, DATABASES},
    faults::CONVERGED,
    workload::{
        self, Settings, Workload,
        probe::{self, Probe},
    },
};

/// Between two looks at the agents' metrics.
const LOOK: Duration = Duration::from_millis(500);
/// Between two words about how it goes.
const WORD: Duration = Duration::from_mins(1);
/// What nobody may start anew.
const UNITS: [&str; 3] = ["pgha-agent", "pgha-guard", "pgha-postgres"];

/// What must be the same before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    complete: Complete,
    /// The number of the newest leadership in `ZooKeeper`; every promotion raises it.
    epoch: u64,
    timeline: u64,
    /// What tells one run of each member's units from another, in the order of [`DATABASES`] and [`UNITS`].
    runs: Vec<[String; UNITS.len()]>,
}

impl State {
    fn read(cluster: &Cluster<'_>) -> Result<Self> {
        let complete = cluster.await_complete(CONVERGED)?;
        let metrics = cluster.metrics()?;
        let newest = |name| metrics.iter().flatten().filter_map(|metrics| metrics.get(name)).max().unwrap_or(0);
        let runs = |name: &&str| {
            let host = cluster.host(name)?;
            let mut runs = <[String; UNITS.len()]>::default();
            for (run, unit) in runs.iter_mut().zip(UNITS) {
                // The number of restarts is for readers: one by hand begins it anew.
                let shown = host.run(&format!("systemctl show --property=InvocationID,NRestarts {unit}"))?;
                *run = shown.split_whitespace().collect::<Vec<_>>().join(" ");
            }
            Ok(runs)
        };
        Ok(Self {
            complete,
            epoch: newest("pgha_epoch"),
            timeline: newest("patroni_postgres_timeline"),
            runs: DATABASES.iter().map(runs).collect::<Result<_>>()?,
        })
    }

    /// What has happened since, in words.
    fn changes(&self, after: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        if self.complete.primary != after.complete.primary {
            changes.push(format!("a failover: {} leads instead of {}", after.complete.primary, self.complete.primary));
        }
        if self.epoch != after.epoch {
            changes.push(format!("a change of leadership: epoch {}, then {}", self.epoch, after.epoch));
        }
        if self.timeline != after.timeline {
            changes.push(format!("a promotion: timeline {}, then {}", self.timeline, after.timeline));
        }
        for ((name, before), after) in DATABASES.iter().zip(&self.runs).zip(&after.runs) {
            for ((unit, before), after) in UNITS.iter().zip(before).zip(after) {
                if before != after {
                    changes.push(format!("{unit} of {name} was started anew: {before}, then {after}"));
                }
            }
        }
        changes
    }
}

/// How late an agent was.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Lateness {
    /// Its host.
    pub host: &'static str,
    /// How often it was asked.
    pub asked: u64,
    /// How often it gave no answer within half a second.
    pub unanswered: u64,
    /// The longest that its loop was seen not to go round, in milliseconds.
    pub loop_age: u64,
    /// The least that was left of its lease while it led, in milliseconds.
    pub least_lease: Option<u64>,
}

impl Lateness {
    fn look(&mut self, metrics: Option<&crate::Metrics>) {
        self.asked += 1;
        let Some(metrics) = metrics else {
            self.unanswered += 1;
            return;
        };
        self.loop_age = self.loop_age.max(metrics.get("pgha_loop_age_milliseconds").unwrap_or(0));
        if metrics.get("pgha_leader") == Some(1) {
            let lease = metrics.get("pgha_lease_milliseconds");
            self.least_lease = [self.least_lease, lease].into_iter().flatten().min();
        }
    }
}

/// What a calm time came to.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Report {
    /// What happened and must not have. Anything here is a broken promise.
    pub changes: Vec<String>,
    /// What the clients saw that write rows.
    pub workload: workload::Report,
    /// Which databases took writes.
    pub probe: probe::Report,
    /// Each agent.
    pub agents: Vec<Lateness>,
}

impl Report {
    /// Whether the cluster was left alone, and every other promise was kept.
    pub fn holds(&self) -> bool {
        self.changes.is_empty() && self.workload.holds() && self.probe.overlaps.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let late = self.agents.iter().map(|agent| agent.loop_age).max().unwrap_or(0);
        let Self { workload, changes, probe, .. } = self;
        write!(
            f,
            "gap {:.2} s, {} of {} rows lost, loops at most {late} ms old",
            workload.longest_gap, workload.lost, workload.acknowledged
        )?;
        for change in changes {
            write!(f, "\n  {change}")?;
        }
        for overlap in &probe.overlaps {
            write!(f, "\n  {overlap}")?;
        }
        Ok(())
    }
}

/// Watches a complete cluster that others load for so long; says once a minute how it goes.
pub fn watch(cluster: &Cluster<'_>, length: Duration, mut tell: impl FnMut(&str)) -> Result<Report> {
    let hosts = DATABASES.iter().map(|name| cluster.host(name)).collect::<Result<Vec<_>>>()?;
    let before = State::read(cluster)?;
    let probe = Probe::start(&cluster.balancer, &hosts)?;
    let workload = Workload::start(Settings::new(cluster.balancer.clone()))?;
    let fresh = |host| Lateness { host, asked: 0, unanswered: 0, loop_age: 0, least_lease: None };
    let mut agents = DATABASES.map(fresh);
    let started = Instant::now();
    let mut told = started;
    while started.elapsed() < length {
        for (agent, metrics) in agents.iter_mut().zip(cluster.metrics()?) {
            agent.look(metrics.as_ref());
        }
        if told.elapsed() >= WORD {
            told = Instant::now();
            let (rows, gap) = (workload.acknowledged(), workload.lap().as_secs_f64());
            tell(&format!("{} min, {rows} rows, gap of this minute {gap:.2} s", started.elapsed().as_secs() / 60));
        }
        thread::sleep(LOOK.min(length.saturating_sub(started.elapsed())));
    }
    let (workload, probe) = (workload.finish()?, probe.finish()?);
    let changes = before.changes(&State::read(cluster)?);
    Ok(Report { changes, workload, probe, agents: agents.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let complete = Complete { primary: "db1".to_owned(), sync: "db2".to_owned(), other: "db3".to_owned() };
        let runs = vec![["a", "b", "c"].map(str::to_owned); DATABASES.len()];
        State { complete, epoch: 3, timeline: 2, runs }
    }

    #[test]
    fn what_is_the_same_is_no_change() {
        let mut after = state();
        // Which standby is synchronous is no matter: nobody was promoted.
        std::mem::swap(&mut after.complete.sync, &mut after.complete.other);
        assert_eq!(state().changes(&after), Vec::<String>::new());
    }

    #[test]
    fn every_kind_of_change_is_told() {
        let mut after = state();
        std::mem::swap(&mut after.complete.primary, &mut after.complete.sync);
        (after.epoch, after.timeline) = (4, 3);
        after.runs[1][0] = "d".to_owned();
        let changes = state().changes(&after);
        assert_eq!(changes.len(), 4);
        assert_eq!(changes[3], "pgha-agent of db2 was started anew: a, then d");
    }

    #[test]
    fn lateness_is_the_worst_that_was_seen() {
        let mut agent = Lateness { host: "db1", asked: 0, unanswered: 0, loop_age: 0, least_lease: None };
        for (age, leader, lease) in [(100, 1, 3000), (700, 1, 2500), (50, 0, 0)] {
            let text =
                format!("pgha_loop_age_milliseconds {age}\npgha_leader {leader}\npgha_lease_milliseconds {lease}\n");
            agent.look(Some(&crate::Metrics::parse(&text)));
        }
        agent.look(None);
        let expected = Lateness { host: "db1", asked: 4, unanswered: 1, loop_age: 700, least_lease: Some(2500) };
        assert_eq!(agent, expected);
    }
}
