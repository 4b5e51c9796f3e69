//! The plan: every difference between what is and what is wanted, in the order in which it goes away.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use crate::cluster::{Cluster, Database, Host};
use crate::facts::Facts;
use crate::render::RenderError;
use crate::resource::{Change, ChangeKind, Danger};
use crate::role::{Phase, Wanted};

/// All that is to be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// On each host, in the order of the inventory.
    pub hosts: Vec<HostPlan>,
    /// Inside the database, whichever host is the primary by then.
    pub database: DatabasePlan,
}

/// What is to be done on one host.
#[derive(Debug, Clone)]
pub struct HostPlan {
    /// Name of the host.
    pub host: String,
    /// In order.
    pub items: Vec<Item>,
}

/// One difference.
#[derive(Debug, Clone)]
pub struct Item {
    /// When it is dealt with.
    pub phase: Phase,
    /// The resource.
    pub id: String,
    /// What is different, and what removes the difference.
    pub change: Change,
    /// The unit whose journal explains a failure.
    pub journal: Option<String>,
}

/// What is to be made inside the database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DatabasePlan {
    /// Roles that own databases.
    pub owners: Vec<String>,
    /// Databases.
    pub databases: Vec<Database>,
}

impl HostPlan {
    /// Compares what is wanted on a host with what is.
    pub fn make(wanted: &Wanted, host: &Host, facts: &Facts) -> Result<Self, RenderError> {
        let mut before = BTreeSet::new();
        let mut items = Vec::new();
        for step in wanted.steps(host, facts)? {
            if let Some(change) = step.resource.diff(facts, &before) {
                let id = step.resource.id();
                before.insert(id.clone());
                items.push(Item { phase: step.phase, id, change, journal: step.resource.journal().map(str::to_owned) });
            }
        }
        Ok(Self { host: host.name.to_string(), items })
    }

    /// What belongs to one phase.
    pub fn in_phase(&self, phase: Phase) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(move |item| item.phase == phase)
    }

    /// Whether a service that runs is interrupted in a phase.
    pub fn interrupts(&self, phase: Phase) -> bool {
        self.in_phase(phase).any(|item| item.change.kind == ChangeKind::Restart)
    }
}

impl DatabasePlan {
    /// Compares the databases wanted with those that the primary, if there is one, has.
    pub fn make<'a>(cluster: &Cluster, facts: impl IntoIterator<Item = &'a Facts>) -> Self {
        let primary = facts.into_iter().find(|facts| facts.is_primary());
        let has_role = |name: &str| primary.is_some_and(|facts| facts.roles.contains(name));
        let has_database = |name: &str| primary.is_some_and(|facts| facts.databases.contains(name));
        Self {
            owners: cluster.owners().into_iter().filter(|owner| !has_role(owner)).map(str::to_owned).collect(),
            databases: cluster.databases.iter().filter(|database| !has_database(&database.name)).cloned().collect(),
        }
    }

    /// Whether there is nothing to make.
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty() && self.databases.is_empty()
    }
}

impl Plan {
    /// How many differences there are.
    pub fn changes(&self) -> usize {
        self.hosts.iter().map(|host| host.items.len()).sum::<usize>()
            + self.database.owners.len()
            + self.database.databases.len()
    }

    /// What somebody should be asked about first; `alive` says whether a cluster is running.
    pub fn dangers(&self, alive: bool) -> Vec<String> {
        let mut dangers = Vec::new();
        for plan in &self.hosts {
            for item in &plan.items {
                match &item.change.danger {
                    Some(Danger::Loss(text)) => dangers.push(format!("{}: {text}", plan.host)),
                    Some(Danger::Disturbance(text)) if alive => dangers.push(format!("{}: {text}", plan.host)),
                    _ => {}
                }
            }
        }
        dangers
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for host in self.hosts.iter().filter(|host| !host.items.is_empty()) {
            writeln!(f, "{}:", host.host)?;
            for item in &host.items {
                let sign = match item.change.kind {
                    ChangeKind::Create => '+',
                    ChangeKind::Update => '~',
                    ChangeKind::Restart => '!',
                };
                writeln!(f, "  {sign} {}", item.change.summary)?;
                for line in &item.change.detail {
                    writeln!(f, "      {line}")?;
                }
            }
        }
        if !self.database.is_empty() {
            writeln!(f, "database:")?;
            for owner in &self.database.owners {
                writeln!(f, "  + make role {owner}")?;
            }
            for database in &self.database.databases {
                writeln!(f, "  + make database {} owned by {}", database.name, database.owner)?;
            }
        }
        let hosts = self.hosts.iter().filter(|host| !host.items.is_empty()).count();
        let mut total = String::new();
        match self.changes() {
            0 => total.push_str("Nothing to change."),
            changes => write!(
                total,
                "{changes} {} on {hosts} {}.",
                if changes == 1 { "change" } else { "changes" },
                if hosts == 1 { "host" } else { "hosts" }
            )?,
        }
        writeln!(f, "{total}")
    }
}
