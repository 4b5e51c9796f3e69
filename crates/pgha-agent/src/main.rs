//! `pgha-agent`: keeps one member of a highly available PostgreSQL cluster.

mod agent;
mod archive;
mod clock;
mod context;
mod dcs;
mod disk;
mod files;
mod guard;
mod jobs;
mod journal;
mod lease_file;
mod past;
mod postgres;
mod promise;
mod quarantine;
mod rest;
mod systemd;
mod watchdog;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use pgha_core::config::{Config, Supervisor};
use tracing_subscriber::filter::{LevelFilter, Targets};

use crate::context::Context;

/// Keeps one member of a highly available PostgreSQL cluster.
///
/// Runs as the system service pgha-agent. It holds the leader lock in ZooKeeper, starts, promotes, fences and rejoins
/// the local PostgreSQL, and answers HAProxy and people over HTTP. See also: pghactl.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent (the service pgha-agent does this).
    Run {
        /// Configuration file.
        #[arg(long, default_value = "/etc/pgha/agent.toml")]
        config: PathBuf,
    },
    /// Run the dead-man's switch (the service pgha-guard does this).
    ///
    /// Kills PostgreSQL when the lease is over and nobody else has done it.
    Guard {
        /// Configuration file.
        #[arg(long, default_value = "/etc/pgha/agent.toml")]
        config: PathBuf,
    },
    /// Check a configuration file: exit code 0, or 2 and which key is wrong and why.
    CheckConfig {
        /// Configuration file.
        #[arg(long, default_value = "/etc/pgha/agent.toml")]
        config: PathBuf,
    },
    /// A WAL archive in a directory; for `archive_command` and `restore_command`.
    Archive {
        #[command(subcommand)]
        command: ArchiveCommand,
    },
}

#[derive(Debug, Subcommand)]
enum ArchiveCommand {
    /// Put a segment into the archive; never replaces a different one.
    Put {
        /// The archive's directory.
        archive: PathBuf,
        /// The segment.
        segment: PathBuf,
    },
    /// Fetch a segment.
    Get {
        /// The segment in the archive.
        archived: PathBuf,
        /// Where to put it.
        target: PathBuf,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Command::Run { config: path } => load(&path).map_or_else(refuse, |config| outcome(run(config, &path))),
        Command::Guard { config } => load(&config).map_or_else(refuse, |config| {
            log();
            outcome(guard::run(&config))
        }),
        Command::CheckConfig { config } => load(&config).map_or_else(refuse, |_| ExitCode::SUCCESS),
        Command::Archive { command } => outcome(match command {
            ArchiveCommand::Put { archive, segment } => archive::put(&archive, &segment),
            ArchiveCommand::Get { archived, target } => archive::get(&archived, &target),
        }),
    }
}

#[expect(clippy::print_stderr, reason = "the last word of a program that ends")]
fn outcome(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pgha-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A configuration that cannot be used: exit code 2.
#[expect(clippy::print_stderr, reason = "the last word of a program that ends")]
#[expect(clippy::needless_pass_by_value, reason = "the shape that map_or_else wants")]
fn refuse(error: anyhow::Error) -> ExitCode {
    eprintln!("pgha-agent: {error:#}");
    ExitCode::from(2)
}

fn load(path: &std::path::Path) -> anyhow::Result<Config> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Config::parse(&text).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
}

/// One line per event on standard error; the journal adds the time itself.
fn log() {
    use tracing_subscriber::prelude::*;
    let asked = std::env::var("PGHA_LOG").ok().and_then(|filter| filter.parse().ok());
    let filter: Targets = asked.unwrap_or_else(|| {
        let quiet = [("zookeeper_client", LevelFilter::WARN), ("zbus", LevelFilter::WARN)];
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

fn run(config: Config, path: &std::path::Path) -> anyhow::Result<()> {
    log();
    // A page fault on a full or hung disk must not stand between a primary and its renewal.
    if let Err(error) = nix::sys::mman::mlockall(nix::sys::mman::MlockAllFlags::all()) {
        tracing::warn!(%error, "cannot lock the agent's memory; set LimitMEMLOCK=infinity");
    }
    let context = Arc::new(Context::open(config)?);
    // Without systemd there is no service pgha-guard.
    let direct = context.config.postgres.supervisor == Supervisor::Direct;
    if direct && !guard::is_alive(&context.config.run_dir, clock::now()) {
        guard::spawn(path).context("cannot start the guard")?;
    }
    // One thread for the loop and all that it waits for: handing answers from thread to thread costs more than they do.
    let runtime = tokio::runtime::Builder::new_current_thread().thread_stack_size(512 << 10).enable_all().build()?;
    let (agent, published) = agent::Agent::new(context.clone()).context("cannot start a thread")?;
    let (commands, inbox) = tokio::sync::mpsc::channel(16);
    rest::serve(&context, published, commands)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        cluster = %context.config.cluster,
        name = %context.config.name,
        "pgha-agent runs"
    );
    let ended = runtime.block_on(agent.run(inbox));
    if ended.is_ok() && direct {
        guard::end(&context.config.run_dir);
    }
    // A read of a dead disk may never come back; the process does not wait for it.
    runtime.shutdown_background();
    ended
}
