//! `pgha-agent`: keeps one member of a highly available PostgreSQL cluster.

mod agent;
mod archive;
mod context;
mod dcs;
mod disk;
mod file_systems;
mod jobs;
mod journal;
mod kept;
mod past;
mod postgres;
mod promise;
mod quarantine;
mod rest;
mod systemd;
mod watchdog;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use pgha_core::config::{Config, Supervisor};
use pgha_guard::{clock, heartbeat, program};

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
    match Cli::parse().command {
        Command::Run { config: path } => program::with_config(&path, |config| run(config, &path)),
        Command::CheckConfig { config } => program::with_config(&config, |_| Ok(())),
        Command::Archive { command } => program::outcome(match command {
            ArchiveCommand::Put { archive, segment } => archive::put(&archive, &segment),
            ArchiveCommand::Get { archived, target } => archive::get(&archived, &target),
        }),
    }
}

fn run(config: Config, path: &std::path::Path) -> anyhow::Result<()> {
    program::log(&["zookeeper_client", "zbus"]);
    program::lock_memory();
    let kept = kept::take();
    let context = Arc::new(Context::open(config)?);
    // Without systemd there is no service pgha-guard.
    let direct = context.config.postgres.supervisor == Supervisor::Direct;
    if direct && !heartbeat::is_alive(&context.config.run_dir, clock::now()) {
        heartbeat::spawn(path).context("cannot start the guard")?;
    }
    // One thread for the loop and all that it waits for: handing answers from thread to thread costs more than they do.
    let runtime = tokio::runtime::Builder::new_current_thread().thread_stack_size(512 << 10).enable_all().build()?;
    let (agent, published) = {
        let _within = runtime.enter();
        agent::Agent::new(context.clone(), kept.watchdog).context("cannot start a thread")?
    };
    let (commands, inbox) = tokio::sync::mpsc::channel(16);
    rest::serve(&context, kept.rest, published, commands)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        cluster = %context.config.cluster,
        name = %context.config.name,
        "pgha-agent runs"
    );
    let ended = runtime.block_on(agent.run(inbox));
    if ended.is_ok() && direct {
        heartbeat::end(&context.config.run_dir);
    }
    // A read of a dead disk may never come back; the process does not wait for it.
    runtime.shutdown_background();
    ended
}
