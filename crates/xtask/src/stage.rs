//! The programs built, and the cluster of `inventory/lab.toml` installed with them: where chores on a cluster begin.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use pgha_lab::{HostSpec, Lab, cluster::Cluster};

use crate::{packages, shell};

/// The cluster.
pub(crate) const INVENTORY: &str = "inventory/lab.toml";
/// What runs on the hosts, what installs it, and what operators use.
pub(crate) const PROGRAMS: [&str; 4] = ["pgha-agent", "pgha-guard", "pgha-install", "pghactl"];

/// Which cluster a chore works on, and what becomes of it.
#[derive(Args)]
pub(crate) struct Site {
    /// Leave the cluster running at the end
    #[arg(long)]
    keep: bool,
    /// Work on the cluster that `--keep` has left running, and leave it running
    #[arg(long)]
    attach: bool,
    /// The binaries are built and the packages are there: set when this calls itself through sudo
    #[arg(long, hide = true)]
    prepared: bool,
}

impl Site {
    /// What is done as the caller, before anything is done as root.
    pub(crate) fn prepare(&self, missing: &[&str]) -> Result<()> {
        pgha_lab::requirements::check_system()?;
        if self.prepared || self.attach {
            return Ok(());
        }
        packages::ensure(missing)?;
        build()
    }

    /// The same for the call through sudo.
    pub(crate) fn words(&self) -> impl Iterator<Item = String> + use<> {
        let chosen = [self.keep.then_some("--keep"), self.attach.then_some("--attach"), Some("--prepared")];
        chosen.into_iter().flatten().map(str::to_owned)
    }

    /// New hosts, or those that are running.
    pub(crate) fn lab(&self, hosts: &[HostSpec]) -> Result<Lab> {
        pgha_lab::remove_on_signals()?;
        Ok(if self.attach { Lab::attach()? } else { Lab::up_hosts(hosts)? })
    }

    /// The cluster on them.
    pub(crate) fn cluster<'a>(&self, lab: &'a Lab) -> Result<Cluster<'a>> {
        if self.attach { Ok(Cluster::open(lab, &secrets())?) } else { install(lab) }
    }

    /// At the end.
    pub(crate) fn leave(&self, lab: Lab) -> Result<()> {
        if self.keep {
            lab.keep()?;
        } else if !self.attach {
            lab.down()?;
        }
        Ok(())
    }
}

/// Builds the programs as users do.
pub(crate) fn build() -> Result<()> {
    let mut build = shell::cargo();
    build.args(["build", "--release"]);
    for program in PROGRAMS {
        build.args(["--package", program]);
    }
    shell::run(&mut build)
}

/// Installs the cluster on the hosts of a lab.
pub(crate) fn install(lab: &Lab) -> Result<Cluster<'_>> {
    let installer = shell::target_directory()?.join("release/pgha-install");
    shell::run(lab.controller(installer).arg(INVENTORY).current_dir(shell::root()))?;
    Ok(Cluster::open(lab, &secrets())?)
}

/// The installer writes its secrets beside the inventory.
pub(crate) fn secrets() -> PathBuf {
    shell::root().join(Path::new(INVENTORY).with_extension("secrets.toml"))
}
