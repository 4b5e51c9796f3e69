//! `cargo xtask faults`: every fault of the matrix, one after another, on one cluster; a report in Markdown and JSON.

use std::{process::ExitCode, time::Duration};

use anyhow::{Result, bail};
use clap::Args;
use pgha_lab::{
    HostSpec,
    cluster::{self, DATABASES},
    faults::{self, Fault, Report},
};

use crate::{played, report, shell, stage};

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
    /// Make a host a virtual machine, and play what needs its clock and its kernel watchdog (adds ten minutes: it is emulated)
    #[arg(long)]
    machine: bool,
    #[command(flatten)]
    place: report::Place,
    #[command(flatten)]
    site: stage::Site,
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
    let mut missing = pgha_lab::requirements::missing_packages();
    if options.machine {
        missing.extend(pgha_lab::requirements::missing_machine_packages());
    }
    options.site.prepare(&missing)?;
    let directory = options.place.directory("faults")?;
    if !shell::is_root() {
        let mut words = vec!["faults".to_owned(), format!("--into={}", directory.display())];
        words.extend(options.site.words());
        words.push(format!("--times={}", options.times));
        words.extend(options.machine.then(|| "--machine".to_owned()));
        if !options.only.is_empty() {
            words.push(format!("--only={}", options.only.join(",")));
        }
        return shell::again(&words);
    }

    let lab = options.site.lab(&hosts(options.machine))?;
    let cluster = options.site.cluster(&lab)?;
    let mut report = Report::default();
    for round in 1..=options.times {
        for (number, fault) in chosen.iter().enumerate() {
            println!("\n{round}.{} {}", number + 1, fault.name);
            report.faults.push(played::play(&lab, &cluster, fault, Duration::ZERO, &directory)?);
            // After each, so that a run that is interrupted has told what it knew.
            report::write(&directory, report.markdown(), &report)?;
        }
    }
    options.site.leave(lab)?;
    println!("\n{}\nwritten to {}", report.markdown(), directory.display());
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
