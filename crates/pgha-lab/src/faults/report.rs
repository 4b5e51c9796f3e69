//! What a run of faults came to, for readers (Markdown) and programs (JSON).

use std::fmt::Write as _;

use super::{Fault, Outcome};
use crate::workload::probe::Act;

/// One fault of a run.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Entry {
    /// The fault's name on command lines.
    pub slug: &'static str,
    /// Its name for readers.
    pub name: &'static str,
    /// How long playing it took, in seconds.
    pub seconds: f64,
    /// What it came to; `None` where a promise was broken.
    pub outcome: Option<Outcome>,
    /// What was broken, or why it could not be played.
    pub error: Option<String>,
}

impl Entry {
    /// A fault that was played.
    pub fn new(fault: &Fault, seconds: f64, result: crate::Result<Outcome>) -> Self {
        let (outcome, error) = match result {
            Ok(outcome) => (Some(outcome), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Self { slug: fault.slug, name: fault.name, seconds, outcome, error }
    }
}

/// A run.
#[derive(Debug, Default, serde::Serialize)]
pub struct Report {
    /// In the order in which they were played.
    pub faults: Vec<Entry>,
}

impl Report {
    /// Whether every promise was kept.
    pub fn holds(&self) -> bool {
        self.faults.iter().all(|entry| entry.error.is_none())
    }

    /// For readers.
    pub fn markdown(&self) -> String {
        let mut text = "# Faults\n\n\
            Four clients write single rows through the balancer, two append to shared lists and read them, and all \
            reconnect when something fails; every database is asked to take a write 20 times a second from its own host. \
            Times are in seconds. *Gap*: the longest time between two acknowledged commits. *First error*: from the start \
            of the clients. *Lost*: acknowledged and not there afterwards. *Anomalies*: appends lost, doubled or undead, \
            lists that parted, reads that went back in time. *Two at once*: how long two databases acknowledged writes, \
            and took some that they could not acknowledge.\n\n\
            | fault | gap | first error | rows | lost | in doubt (kept) | appends, reads | anomalies | two at once | \
            complete after | |\n\
            |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|\n"
            .to_owned();
        for Entry { name, outcome, error, .. } in &self.faults {
            let row = match (outcome, error) {
                (Some(Outcome { told, workload, appends, probe, complete_after }), _) => {
                    let first =
                        workload.first_error.as_ref().map_or("none".to_owned(), |(when, _)| format!("{when:.2}"));
                    format!(
                        "{:.2} | {first} | {} | {} | {} ({}) | {}, {} | {} | {:.2}, {:.2} | {complete_after:.1} | {told}",
                        workload.longest_gap,
                        workload.acknowledged,
                        workload.lost,
                        workload.in_doubt,
                        workload.in_doubt_kept,
                        appends.acknowledged,
                        appends.reads,
                        appends.anomalies.len(),
                        probe.twofold(Act::Acknowledges),
                        probe.twofold(Act::Takes),
                    )
                }
                (None, error) => {
                    let error = error.as_deref().unwrap_or_default().replace(['\n', '|'], " ");
                    format!(" | | | | | | | | | **failed**: {error}")
                }
            };
            let _infallible = writeln!(text, "| {name} | {row} |");
        }
        text
    }
}
