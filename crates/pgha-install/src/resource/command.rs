//! Things that only a command brings about, guarded by a fact that says whether it is needed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::{Action, Change, ChangeKind, Resource};
use crate::facts::{Facts, Probes};

type Guard = Arc<dyn Fn(&Facts, &BTreeSet<String>) -> bool + Send + Sync>;

/// A guarded command.
#[derive(Clone)]
pub struct Command {
    id: &'static str,
    summary: String,
    files: Vec<String>,
    units: Vec<String>,
    needed: Guard,
    script: String,
    patience: Duration,
    journal: Option<String>,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Command({})", self.id)
    }
}

impl Command {
    /// A command that runs when `needed` says so, from facts and from what changed before.
    pub fn new(
        id: &'static str,
        summary: impl Into<String>,
        script: impl Into<String>,
        needed: impl Fn(&Facts, &BTreeSet<String>) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            id,
            summary: summary.into(),
            files: Vec::new(),
            units: Vec::new(),
            needed: Arc::new(needed),
            script: script.into(),
            patience: Duration::from_secs(60),
            journal: None,
        }
    }

    /// Files that the guard looks at.
    #[must_use]
    pub fn looks_at(mut self, files: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.files.extend(files.into_iter().map(Into::into));
        self
    }

    /// A unit that the guard looks at, and whose journal explains a failure.
    #[must_use]
    pub fn unit(mut self, unit: &str) -> Self {
        self.units.push(unit.to_owned());
        self.journal = Some(unit.to_owned());
        self
    }

    /// How long it may be silent.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

impl Resource for Command {
    fn id(&self) -> String {
        format!("command {}", self.id)
    }

    fn probe(&self, probes: &mut Probes) {
        probes.files.extend(self.files.iter().cloned());
        probes.units.extend(self.units.iter().cloned());
    }

    fn diff(&self, facts: &Facts, before: &BTreeSet<String>) -> Option<Change> {
        (self.needed)(facts, before).then(|| Change {
            kind: ChangeKind::Create,
            summary: self.summary.clone(),
            detail: Vec::new(),
            danger: None,
            action: Action { script: self.script.clone(), input: Arc::from([]), patience: self.patience },
        })
    }

    fn journal(&self) -> Option<&str> {
        self.journal.as_deref()
    }
}
