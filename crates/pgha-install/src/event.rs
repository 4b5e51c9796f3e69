//! What happens during a run, as one stream; [`crate::show`] turns it into lines, bars or JSON.

use serde::Serialize;

/// Something that happened.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Worth saying; about one host or about all.
    Remark {
        /// What.
        text: String,
    },
    /// The installer begins to talk to a host.
    Connecting {
        /// The host.
        host: String,
        /// Its address.
        address: String,
    },
    /// All facts of a host are known.
    Gathered {
        /// The host.
        host: String,
    },
    /// What is to be done.
    Planned {
        /// How many changes.
        changes: usize,
        /// The plan as people read it.
        text: String,
    },
    /// A part of the run begins.
    PhaseStarted {
        /// What it is about.
        phase: &'static str,
    },
    /// A host begins a step.
    StepStarted {
        /// The host.
        host: String,
        /// The step.
        step: String,
    },
    /// A host has done a step.
    StepDone {
        /// The host.
        host: String,
        /// The step.
        step: String,
        /// How long it took.
        milliseconds: u64,
    },
    /// All hosts wait for something.
    Waiting {
        /// For what.
        what: String,
    },
    /// Something failed.
    Failed(Failure),
    /// A host has nothing left to do in this run.
    HostDone {
        /// The host.
        host: String,
    },
    /// Something that was checked at the end.
    Verified {
        /// What holds.
        what: String,
    },
    /// The run is over and all is well.
    Finished {
        /// Changes made.
        changes: usize,
        /// How long the run took.
        milliseconds: u64,
        /// How to go on.
        next: Vec<String>,
    },
}

/// A failure: where, doing what, why, and what to try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The host, where it is about one.
    pub host: Option<String>,
    /// What was being done.
    pub step: String,
    /// Why it failed.
    pub cause: String,
    /// What to try.
    pub hint: Option<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(host) = &self.host {
            write!(f, "{host}: ")?;
        }
        write!(f, "{}", self.step)?;
        let mut lines = self.cause.lines();
        if let Some(first) = lines.next() {
            write!(f, ": {first}")?;
        }
        for line in lines {
            write!(f, "\n    {line}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  try: {hint}")?;
        }
        Ok(())
    }
}
