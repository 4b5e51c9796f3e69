//! `pghactl`: the operator's commands for a pgha cluster.

#![forbid(unsafe_code)]

mod agents;
mod cli;
mod command;
mod config_key;
mod failure;
mod members;
mod screen;
mod settings;
mod table;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::Cli;
use crate::failure::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::System(error).report(),
    };
    let outcome = runtime.block_on(command::run(&cli));
    // A name server that does not answer must not keep the process.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
