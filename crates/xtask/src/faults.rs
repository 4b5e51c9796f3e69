//! `cargo xtask faults`: every fault of the matrix, one after another, on one cluster; a report in Markdown and JSON.

use std::{
    fs,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use pgha_lab::{
    HostSpec, Lab,
    cluster::{self, Cluster, DATABASES},
    faults::{self, Entry, Fault, Report},
};

use crate::{packages, shell, stage};

/// Lines of each unit's journal that are kept of a fault that was not outlived.
const LINES: usize = 200;

/// What is played and where the report goes.
#[derive(Args)]
pub(crate) struct Options {
    /// Only these, by their names in `--list`, parted by commas
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Play all of it so many times
    #[arg(long, default_value_t = 1)]
    times: u32,
    /// Show what can be played, and play nothing
    #[arg(long)]
    list: bool,
    /// Where report.md and report.json go [default: target/faults]
    #[arg(long, value_name = "DIRECTORY")]
    into: Option<PathBuf>,
    /// Make a host a virtual machine, and play what needs its clock and its kernel watchdog (adds ten minutes: it is emulated)
    #[arg(long)]
    machine: bool,
    /// Leave the cluster running at the end
    #[arg(long)]
    keep: bool,
    /// Play on the cluster that `--keep` has left running, and leave it running
    #[arg(long)]
    attach: bool,
    /// The binaries are built and the packages are there: set when this calls itself through sudo
    #[arg(long, hide = true)]
    prepared: bool,
}

/// Prepares as the caller, plays as root.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let chosen = chosen(&options.only, options.machine || options.list)?;
    if options.list {
        for fault in chosen {
            println!("{:<36} {}", fault.slug, fault.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    pgha_lab::requirements::check_system()?;
    if !options.prepared && !options.attach {
        let mut missing = pgha_lab::requirements::missing_packages();
        if options.machine {
            missing.extend(pgha_lab::requirements::missing_machine_packages());
        }
        packages::ensure(&missing)?;
        stage::build()?;
    }
    let directory = match &options.into {
        Some(directory) => std::path::absolute(directory)?,
        None => shell::target_directory()?.join("faults"),
    };
    if !shell::is_root() {
        let mut again = shell::as_root(std::env::current_exe().context("finding this program")?);
        again.args(["faults", "--prepared"]).arg("--into").arg(&directory);
        again.args(options.keep.then_some("--keep")).args(options.attach.then_some("--attach"));
        again.args(options.machine.then_some("--machine"));
        again.arg(format!("--times={}", options.times));
        if !options.only.is_empty() {
            again.arg(format!("--only={}", options.only.join(",")));
        }
        let status = again.status().context("starting sudo")?;
        return Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::from(shell::code(status)) });
    }

    pgha_lab::remove_on_signals()?;
    fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
    let lab = if options.attach { Lab::attach()? } else { Lab::up_hosts(&hosts(options.machine))? };
    let cluster = if options.attach { Cluster::open(&lab, &stage::secrets())? } else { stage::install(&lab)? };
    let mut report = Report::default();
    for round in 1..=options.times {
        for (number, fault) in chosen.iter().enumerate() {
            println!("\n{round}.{} {}", number + 1, fault.name);
            report.faults.push(play(&lab, &cluster, fault, &directory)?);
            // After each, so that a run that is interrupted has told what it knew.
            write(&report, &directory)?;
        }
    }
    if options.keep {
        lab.keep()?;
    } else if !options.attach {
        lab.down()?;
    }
    println!("\n{}\nwritten to {}", report.markdown(), directory.display());
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn play(lab: &Lab, cluster: &Cluster<'_>, fault: &Fault, directory: &std::path::Path) -> Result<Entry> {
    let started = Instant::now();
    let result = fault.play(cluster);
    let took = started.elapsed();
    match &result {
        Ok(outcome) => println!("  {outcome} ({:.1} s)", took.as_secs_f64()),
        Err(error) => {
            println!("  FAILED: {error} ({:.1} s)", took.as_secs_f64());
            let file = directory.join(format!("{}.log", fault.slug));
            let text = format!("{}: {error}\n{}", fault.name, cluster::journals(lab, LINES));
            fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
            println!("  what the units said: {}", file.display());
            faults::mend(cluster).context("the cluster could not be mended")?;
        }
    }
    Ok(Entry::new(fault, Duration::as_secs_f64(&took), result))
}

fn write(report: &Report, directory: &std::path::Path) -> Result<()> {
    let json = serde_json::to_string_pretty(report).context("describing the report")?;
    for (name, text) in [("report.md", report.markdown()), ("report.json", json)] {
        let file = directory.join(name);
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}

/// The cluster's hosts; the first database may be a virtual machine.
fn hosts(machine: bool) -> Vec<HostSpec> {
    let kind = |name: &&str| {
        if machine && *name == DATABASES[0] { HostSpec::machine(*name) } else { HostSpec::container(*name) }
    };
    cluster::HOSTS.iter().map(kind).collect()
}

fn chosen(only: &[String], machine: bool) -> Result<Vec<&'static Fault>> {
    for slug in only {
        match faults::all().find(|fault| fault.slug == *slug) {
            None => bail!("there is no fault `{slug}`; `cargo xtask faults --list` shows all"),
            Some(fault) if fault.machine && !machine => bail!("`{slug}` needs --machine"),
            Some(_) => {}
        }
    }
    let named = |fault: &&Fault| only.is_empty() || only.iter().any(|slug| slug == fault.slug);
    Ok(faults::all().filter(|fault| machine || !fault.machine).filter(named).collect())
}
