//! The programs built, and the cluster of `inventory/lab.toml` installed with them: where chores on a cluster begin.

use std::path::{Path, PathBuf};

use anyhow::Result;
use pgha_lab::{Lab, cluster::Cluster};

use crate::shell;

/// The cluster.
pub(crate) const INVENTORY: &str = "inventory/lab.toml";
/// What runs on the hosts, what installs it, and what operators use.
pub(crate) const PROGRAMS: [&str; 3] = ["pgha-agent", "pgha-install", "pghactl"];

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
