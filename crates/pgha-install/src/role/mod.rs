//! What each role puts on a host: from cluster, host and facts to resources in order.

mod agent;
mod base;
mod haproxy;
mod pgbackrest;
mod zookeeper;

use std::collections::BTreeSet;

use crate::cluster::{Cluster, Host};
use crate::facts::{Facts, Probes};
use crate::inventory::Role;
use crate::pki::Pki;
use crate::programs::Programs;
use crate::render::{RenderError, Templates};
use crate::resource::{Directory, File, Resource};
use crate::secrets::Secrets;

/// Names of the units that roles run.
pub mod units {
    pub(crate) use super::agent::{POSTGRES, UNIT as AGENT};
    pub(crate) use super::haproxy::UNIT as HAPROXY;
    pub(crate) use super::pgbackrest::UNIT as PGBACKREST;
    pub(crate) use super::zookeeper::UNIT as ZOOKEEPER;
}

/// The parts of a run, in order. All hosts finish one before any begins the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Packages, users, files.
    Prepare,
    /// The ZooKeeper ensemble; ends when it serves.
    Ensemble,
    /// Services that need nobody else.
    Services,
    /// The agents; ends when the cluster has a primary and all others follow it.
    Agents,
    /// What needs a primary: databases, the archive's stanza, the first backup.
    Cluster,
}

impl Phase {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [Self::Prepare, Self::Ensemble, Self::Services, Self::Agents, Self::Cluster];

    /// What it is about.
    pub fn title(self) -> &'static str {
        match self {
            Self::Prepare => "packages and files",
            Self::Ensemble => "ZooKeeper",
            Self::Services => "services",
            Self::Agents => "agents",
            Self::Cluster => "archive and databases",
        }
    }
}

/// A resource and when it is dealt with.
#[derive(Debug)]
pub struct Step {
    /// When.
    pub phase: Phase,
    /// What.
    pub resource: Box<dyn Resource>,
}

/// All that decides what is wanted on a host, besides the host itself.
#[derive(Debug)]
pub struct Wanted {
    /// The cluster of the inventory.
    pub cluster: Cluster,
    /// Its passwords.
    pub secrets: Secrets,
    /// Its certificates.
    pub pki: Pki,
    /// Our own programs.
    pub programs: Programs,
    /// The templates.
    pub templates: Templates,
}

impl Wanted {
    /// The resources of a host, in order.
    pub fn steps(&self, host: &Host, facts: &Facts) -> Result<Vec<Step>, RenderError> {
        let mut list = List::default();
        let site = Site { wanted: self, cluster: &self.cluster, host, facts };
        base::add(&site, &mut list);
        if host.has(Role::Zookeeper) {
            zookeeper::add(&site, &mut list)?;
        }
        if host.has(Role::Haproxy) {
            haproxy::add(&site, &mut list)?;
        }
        pgbackrest::add(&site, &mut list)?;
        if host.has(Role::Postgres) {
            agent::add(&site, &mut list)?;
        }
        Ok(list.finish())
    }

    /// What to ask a host for.
    pub fn probes(&self, host: &Host) -> Result<Probes, RenderError> {
        let mut probes = Probes { port: host.has(Role::Postgres).then_some(self.cluster.port), ..Probes::default() };
        for step in self.steps(host, &Facts::default())? {
            step.resource.probe(&mut probes);
        }
        Ok(probes)
    }
}

/// One host, with all that decides what is wanted on it.
struct Site<'a> {
    wanted: &'a Wanted,
    cluster: &'a Cluster,
    host: &'a Host,
    facts: &'a Facts,
}

/// The steps of a host, as the roles add them.
#[derive(Default)]
struct List {
    first: Vec<Box<dyn Resource>>,
    packages: BTreeSet<&'static str>,
    users: Vec<Box<dyn Resource>>,
    rest: Vec<Step>,
}

impl List {
    /// Before the packages.
    fn first(&mut self, resource: impl Resource + 'static) {
        self.first.push(Box::new(resource));
    }

    fn packages(&mut self, names: &[&'static str]) {
        self.packages.extend(names);
    }

    /// After the packages, before any file.
    fn user(&mut self, resource: impl Resource + 'static) {
        self.users.push(Box::new(resource));
    }

    fn add(&mut self, phase: Phase, resource: impl Resource + 'static) {
        self.rest.push(Step { phase, resource: Box::new(resource) });
    }

    fn file(&mut self, file: File) {
        self.add(Phase::Prepare, file);
    }

    fn directory(&mut self, path: &str, mode: u32, owner: &str, group: &str) {
        self.add(Phase::Prepare, Directory::new(path, mode, owner, group));
    }

    fn finish(self) -> Vec<Step> {
        let prepare = |resource| Step { phase: Phase::Prepare, resource };
        let packages: Box<dyn Resource> = Box::new(crate::resource::Packages(self.packages));
        let mut steps: Vec<Step> = self.first.into_iter().chain([packages]).chain(self.users).map(prepare).collect();
        // A stable sort: within a phase the roles' own order stays.
        let mut rest = self.rest;
        rest.push(prepare(Box::new(crate::resource::DaemonReload)));
        rest.sort_by_key(|step| step.phase);
        steps.extend(rest);
        steps
    }
}
