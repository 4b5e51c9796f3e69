//! Debian packages of this machine: only what is missing, and none of their services started.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::shell;

/// Debian asks this program before a package starts its services.
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// Where postgresql-common reads whether to make a cluster of its own.
const CLUSTERS: &str = "/etc/postgresql-common/createcluster.conf";

/// Installs what is missing; says what it does.
pub(crate) fn ensure(wanted: &[&str]) -> Result<()> {
    let missing: Vec<&str> = wanted.iter().copied().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("installing with apt: {}", missing.join(" "));
    shell::run(shell::as_root("apt-get").args(["update", "--quiet=2"]))?;
    let quiet = Quiet::keep()?;
    let installed = shell::run(
        shell::as_root("env")
            .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", "--quiet=2"])
            .args(["--no-install-recommends", "-o", "Dpkg::Use-Pty=0"])
            .args(&missing)
            .stdout(Stdio::null()),
    );
    quiet.end()?;
    installed.context("installing what the lab needs")
}

fn is_installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}

/// While it exists no package starts a service; what was there before is left alone.
struct Quiet {
    policy: bool,
}

impl Quiet {
    fn keep() -> Result<Self> {
        let policy = !Path::new(POLICY).exists();
        if policy {
            write_as_root(POLICY, "#!/bin/sh\nexit 101\n")?;
            shell::run(shell::as_root("chmod").args(["0755", POLICY]))?;
        }
        if !Path::new(CLUSTERS).exists() && !is_installed("postgresql-common") {
            write_as_root(CLUSTERS, "create_main_cluster = false\n")?;
        }
        Ok(Self { policy })
    }

    fn end(self) -> Result<()> {
        if self.policy { shell::run(shell::as_root("rm").arg(POLICY)) } else { Ok(()) }
    }
}

fn write_as_root(path: &str, text: &str) -> Result<()> {
    if let Some(dir) = Path::new(path).parent() {
        shell::run(shell::as_root("mkdir").arg("--parents").arg(dir))?;
    }
    let mut tee = shell::as_root("tee")
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("writing {path}"))?;
    if let Some(mut pipe) = tee.stdin.take() {
        pipe.write_all(text.as_bytes()).with_context(|| format!("writing {path}"))?;
    }
    let status = tee.wait().with_context(|| format!("writing {path}"))?;
    if !status.success() {
        bail!("writing {path} failed ({status})");
    }
    Ok(())
}
