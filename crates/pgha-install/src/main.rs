//! `pgha-install`: reads the inventory, runs, and turns the end of the run into an exit code.

#![forbid(unsafe_code)]

mod cli;

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use cli::Cli;
use pgha_install::inventory;
use pgha_install::pki::Pki;
use pgha_install::programs::Programs;
use pgha_install::render::Templates;
use pgha_install::role::Wanted;
use pgha_install::run::{self, End, Options};
use pgha_install::secrets::Secrets;
use pgha_install::show::Reporter;
use pgha_install::ssh::{Trust, known_hosts};

const OK: u8 = 0;
const FAILED: u8 = 1;
const USAGE: u8 = 2;
const PENDING: u8 = 3;
const SOME_FAILED: u8 = 4;

/// An error before the first host is reached, and its exit code.
struct Early {
    code: u8,
    message: String,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let code = prepare(&cli).and_then(|wanted| start(&cli, &wanted));
    ExitCode::from(code.unwrap_or_else(|early| {
        // Standard error is where it must go; if that is closed there is nobody to tell.
        let _closed = writeln!(std::io::stderr(), "{}", early.message);
        early.code
    }))
}

fn prepare(cli: &Cli) -> Result<Wanted, Early> {
    let early = |code: u8, error: &dyn std::fmt::Display| Early { code, message: format!("error: {error}") };
    // A report of what is wrong with the inventory draws its own heads.
    let cluster = inventory::load(&cli.inventory).map_err(|error| Early { code: USAGE, message: error.to_string() })?;
    let programs = Programs::load(cli.programs.as_deref()).map_err(|error| early(USAGE, &error))?;
    Ok(Wanted {
        secrets: Secrets::load(&cli.inventory, &cluster).map_err(|error| early(FAILED, &error))?,
        pki: Pki::load(&cli.inventory, &cluster).map_err(|error| early(FAILED, &error))?,
        templates: Templates::new().map_err(|error| early(FAILED, &error))?,
        programs,
        cluster,
    })
}

fn start(cli: &Cli, wanted: &Wanted) -> Result<u8, Early> {
    let failed = |message: String| Early { code: FAILED, message: format!("error: {message}") };
    let file = wanted
        .cluster
        .known_hosts
        .clone()
        .or_else(known_hosts::default_path)
        .ok_or_else(|| failed("HOME is not set: name a file in ssh.known_hosts of the inventory".to_owned()))?;
    let options =
        Options { plan_only: cli.plan, trust: Trust { file, accept_unknown: cli.accept_host_key }, owner: owner() };
    let hosts: Vec<String> = wanted.cluster.hosts.iter().map(|host| host.name.to_string()).collect();
    let reporter = Reporter::new(cli.json, &hosts);
    let runtime = tokio::runtime::Runtime::new().map_err(|error| failed(error.to_string()))?;
    let end = runtime.block_on(run::run(wanted, &options, &reporter, |dangers| agree(cli, dangers)));
    Ok(match end {
        End::Planned(changes) if cli.check && changes > 0 => PENDING,
        End::Done(_) | End::Planned(_) => OK,
        End::Declined | End::Failed => FAILED,
        End::SomeFailed => SOME_FAILED,
    })
}

/// Who runs this, as another run will read it in the lock.
fn owner() -> String {
    let plain = |text: String| -> String {
        text.chars().filter(|char| char.is_ascii_alphanumeric() || "-._".contains(*char)).collect()
    };
    let user =
        ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok()).unwrap_or_else(|| "somebody".to_owned());
    let host = std::fs::read_to_string(Path::new("/proc/sys/kernel/hostname")).unwrap_or_default();
    format!("{}@{}", plain(user), plain(host))
}

/// Asks before something that disturbs a running cluster.
fn agree(cli: &Cli, dangers: &[String]) -> bool {
    if cli.yes {
        return true;
    }
    let mut error = std::io::stderr();
    let mut tell = |line: &str| {
        // If nobody reads, nobody agrees: the answer below decides.
        let _closed = writeln!(error, "{line}");
    };
    tell("This disturbs what is running:");
    for danger in dangers {
        tell(&format!("  {danger}"));
    }
    if !std::io::stdin().is_terminal() {
        tell("error: nobody is there to be asked; run again with --yes to go on. Nothing was changed.");
        return false;
    }
    tell("Go on? Type yes:");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).is_ok() && answer.trim() == "yes"
}
