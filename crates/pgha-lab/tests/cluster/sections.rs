//! The parts of the test: each with a name, a time and a result, so that one run tells as much as it can.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use anyhow::Result;
use pgha_lab::{Lab, cluster};

/// Lines of each unit's journal that a failure shows.
const LINES: usize = 30;

pub(crate) struct Sections<'a> {
    lab: &'a Lab,
    started: Instant,
    done: Vec<(String, Duration, Verdict)>,
}

enum Verdict {
    Held(String),
    Failed,
    Skipped,
}

impl<'a> Sections<'a> {
    pub(crate) fn new(lab: &'a Lab) -> Self {
        Self { lab, started: Instant::now(), done: Vec::new() }
    }

    /// One section; what it returns is said beside its name. A failure is shown with the journals of that moment.
    pub(crate) fn run(&mut self, name: &str, work: impl FnOnce() -> Result<String>) -> bool {
        let started = Instant::now();
        let result = work();
        let took = started.elapsed();
        let held = result.is_ok();
        let verdict = match result {
            Ok(note) => Verdict::Held(note),
            Err(error) => {
                tell(&format!(
                    "section `{name}`, which began {:.1} s after the first, failed: {error:#}\n{}",
                    (started - self.started).as_secs_f64(),
                    cluster::journals(self.lab, LINES)
                ));
                Verdict::Failed
            }
        };
        self.done.push((name.to_owned(), took, verdict));
        if let Some(last) = self.done.last() {
            tell(&line(last));
        }
        held
    }

    /// A section that cannot be run because of an earlier failure.
    pub(crate) fn skip(&mut self, name: &str) {
        self.done.push((name.to_owned(), Duration::ZERO, Verdict::Skipped));
    }

    /// The table of all sections; panics unless every one held.
    pub(crate) fn verdict(self) {
        let lines: Vec<_> = self.done.iter().map(line).collect();
        let all = self.started.elapsed().as_secs_f64();
        tell(&format!("\n{}\n{all:>7.1} s  all sections", lines.join("\n")));
        let bad: Vec<_> = self
            .done
            .iter()
            .filter(|(_, _, verdict)| !matches!(verdict, Verdict::Held(_)))
            .map(|(name, _, _)| name.as_str())
            .collect();
        assert!(bad.is_empty(), "failed or skipped: {}", bad.join("; "));
    }
}

fn line((name, took, verdict): &(String, Duration, Verdict)) -> String {
    let verdict = match verdict {
        Verdict::Held(note) => note.as_str(),
        Verdict::Failed => "FAILED",
        Verdict::Skipped => "skipped",
    };
    format!("{:>7.1} s  {name:<44} {verdict}", took.as_secs_f64())
}

/// Past the test harness, which would keep to itself what a passing test prints.
fn tell(text: &str) {
    let _nobody_reads = writeln!(std::io::stderr(), "{text}");
}
