//! The project's own chores: `cargo xtask demo`, `cargo xtask test`, `cargo xtask faults`, `cargo xtask soak`,
//! `cargo xtask bench`, `cargo xtask lab …`.

mod bench;
mod coverage;
mod demo;
mod faults;
mod packages;
mod played;
mod report;
mod shell;
mod soak;
mod stage;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Chores of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Install a highly available cluster on hosts made for it, and power off its primary
    Demo {
        /// Leave the cluster running at the end
        #[arg(long)]
        keep: bool,
        /// The binaries are built and the packages are there: set when the demonstration calls itself through sudo
        #[arg(long, hide = true)]
        prepared: bool,
    },
    /// Run every check and test, those on real hosts included
    Test,
    /// Play every fault of hosts, processes, networks and the ensemble on a cluster under load, and report on it
    Faults(faults::Options),
    /// Play faults at random on a cluster with more load than it can bear, then see that it is left alone without them
    Soak(soak::Options),
    /// Measure what faults cost clients, beside Patroni on the same kind of hosts
    Bench(bench::Options),
    /// Count the lines of the rules that unit tests and simulated histories run through; under 95 % is an error
    Coverage,
    /// Test hosts: up, down, status, exec, power-off … (`cargo xtask lab help`)
    #[command(disable_help_flag = true)]
    Lab {
        /// Passed on to pgha-lab
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    let chore = Cli::parse().chore;
    // The lab tells on standard error what it does.
    tracing_subscriber::fmt().with_writer(std::io::stderr).without_time().with_target(false).with_level(false).init();
    match act(chore) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("\nxtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(chore: Chore) -> Result<ExitCode> {
    match chore {
        Chore::Demo { keep, prepared } => demo::run(keep, prepared),
        Chore::Test => test::run(),
        Chore::Faults(options) => faults::run(&options),
        Chore::Soak(options) => soak::run(&options),
        Chore::Bench(options) => bench::run(&options),
        Chore::Coverage => coverage::run(),
        Chore::Lab { arguments } => {
            shell::run(shell::cargo().args(["build", "--quiet", "--package", "pgha-lab"]))?;
            let program = shell::target_directory()?.join("debug/pgha-lab");
            let status = shell::as_root(&program).args(arguments).status()?;
            Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::from(shell::code(status)) })
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
