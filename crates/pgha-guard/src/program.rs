//! How the services of a member begin and end: configuration, log, exit codes.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use pgha_core::config::Config;
use tracing_subscriber::filter::{LevelFilter, Targets};

/// Runs a service with the configuration of `path`: exit code 1 if that fails, 2 if the configuration cannot be used.
pub fn with_config(path: &Path, run: impl FnOnce(Config) -> anyhow::Result<()>) -> ExitCode {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    let parsed =
        text.and_then(|text| Config::parse(&text).map_err(|error| anyhow::anyhow!("{}: {error}", path.display())));
    match parsed {
        Ok(config) => outcome(run(config)),
        Err(error) => refused(&error, 2),
    }
}

/// The exit code of what was done: 0, or 1 and why.
pub fn outcome(result: anyhow::Result<()>) -> ExitCode {
    result.map_or_else(|error| refused(&error, 1), |()| ExitCode::SUCCESS)
}

#[expect(clippy::print_stderr, reason = "the last word of a program that ends")]
fn refused(error: &anyhow::Error, code: u8) -> ExitCode {
    let program = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&program).file_name().unwrap_or(&program);
    eprintln!("{}: {error:#}", name.display());
    ExitCode::from(code)
}

/// Locks the whole program in memory, and of its stacks and heap what it uses: a page that has to be read from a full or hung
/// disk must not stand between a primary and its renewal, or between a lease that is over and its end.
///
/// To be called before there are threads. Needs `CAP_IPC_LOCK`, or a limit that allows it (`LimitMEMLOCK`).
pub fn lock_memory() {
    use rustix::mm::{MlockAllFlags, mlockall};
    // Two calls: the second leaves alone what is there (mlockall(2); `apply_mlockall_flags` in the kernel's mm/mlock.c).
    let locked =
        mlockall(MlockAllFlags::CURRENT).and_then(|()| mlockall(MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT));
    if let Err(error) = locked {
        tracing::warn!(%error, "cannot lock this program's memory, it may be late when the machine swaps; set LimitMEMLOCK=infinity");
    }
}

/// One line per event on standard error; the journal adds the time itself. `PGHA_LOG` sets the level, also by module
/// (`debug`, `info,pgha_agent::dcs=debug`); without it the libraries named by `quiet` only warn.
pub fn log(quiet: &[&'static str]) {
    use tracing_subscriber::prelude::*;
    let asked = std::env::var("PGHA_LOG").ok().and_then(|filter| filter.parse().ok());
    let filter: Targets = asked.unwrap_or_else(|| {
        let quiet = quiet.iter().map(|library| (*library, LevelFilter::WARN));
        Targets::new().with_default(LevelFilter::INFO).with_targets(quiet)
    });
    let lines = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        registry.with(lines.without_time()).init();
    } else {
        registry.with(lines).init();
    }
}
