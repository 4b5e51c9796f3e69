//! Resources: the idempotent nouns of an installation. Each knows what to ask a host for, what is different, and what to do.

mod command;
mod file;
mod package;
mod unit;
mod user;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::facts::{Facts, Probes};

pub use command::Command;
pub use file::{Content, Directory, File};
pub use package::Packages;
pub use unit::{DaemonReload, Mask, Unit};
pub use user::SystemUser;

/// Something that is to be in a certain state on one host.
pub trait Resource: Send + Sync + std::fmt::Debug {
    /// What it is, unique on its host, as in `file /etc/pgha/agent.toml`.
    fn id(&self) -> String;

    /// Asks for the facts that [`Resource::diff`] needs. Must not depend on facts itself.
    fn probe(&self, probes: &mut Probes);

    /// What is different from what is wanted; `None` when nothing is. `before` holds the ids of the resources that
    /// change earlier in the same run.
    fn diff(&self, facts: &Facts, before: &BTreeSet<String>) -> Option<Change>;

    /// The unit whose journal explains a failure.
    fn journal(&self) -> Option<&str> {
        None
    }
}

/// A difference, and the commands that remove it.
#[derive(Debug, Clone)]
pub struct Change {
    /// What kind of change it is.
    pub kind: ChangeKind,
    /// In a few words, beginning with a verb: `install haproxy`.
    pub summary: String,
    /// Lines before (`-`) and after (`+`), where they may be shown.
    pub detail: Vec<String>,
    /// Why somebody should be asked first.
    pub danger: Option<Danger>,
    /// What to run.
    pub action: Action,
}

/// Why somebody should be asked before a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Danger {
    /// It takes away what somebody made.
    Loss(String),
    /// It disturbs a cluster, if one is running.
    Disturbance(String),
}

/// What kind of change it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// Something new.
    Create,
    /// Something that is there becomes different.
    Update,
    /// A service that runs is interrupted.
    Restart,
}

/// A shell script, run as root.
#[derive(Debug, Clone)]
pub struct Action {
    /// The script; holds no secrets.
    pub script: String,
    /// Its standard input, where secrets may be.
    pub input: std::sync::Arc<[u8]>,
    /// How long it may be silent.
    pub patience: Duration,
}

impl Action {
    /// A script without input that soon has something to say.
    pub fn quick(script: impl Into<String>) -> Self {
        Self { script: script.into(), input: std::sync::Arc::from([]), patience: Duration::from_secs(60) }
    }
}
