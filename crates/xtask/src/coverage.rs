//! `cargo xtask coverage`: how much of the rules is run through by unit tests and simulated histories.

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::shell;

/// Lines of `pgha-core`, in percent.
const LEAST: &str = "95";

pub(crate) fn run() -> Result<ExitCode> {
    if shell::read(shell::cargo().args(["tarpaulin", "--version"])).is_err() {
        bail!("this needs cargo-tarpaulin: `cargo install --locked cargo-tarpaulin`");
    }
    // A directory of its own: everything is built with counters. Mutants are left out, they break the rules on purpose.
    let target = shell::target_directory()?.join("coverage");
    shell::run(
        shell::cargo()
            .args(["tarpaulin", "--engine", "llvm", "--skip-clean", "--out", "Stdout", "--fail-under", LEAST])
            .args(["--package", "pgha-core", "--package", "pgha-sim"])
            .args(["--include-files", "crates/pgha-core/src/*", "--include-files", "crates/pgha-core/src/**/*"])
            .args(["--exclude-files", "crates/pgha-core/src/**/tests.rs"])
            .arg("--target-dir")
            .arg(target)
            .args(["--", "--skip", "every_mutant"]),
    )?;
    Ok(ExitCode::SUCCESS)
}
