//! `cargo xtask soak`: faults at random on a cluster with more load than it can bear, then the same load without faults.

use std::{
    fmt::Write as _,
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Args;
use pgha_lab::{
    HostSpec, Lab,
    calm::{self, Lateness},
    cluster::{self, Cluster},
    faults::{self, CONVERGED, Fault},
    workload::load::{self, Load},
};
use serde::Serialize;

use crate::{played, report, shell, stage};

/// What clients may wait longer than in the matrix, because the load is more than the machine can bear.
const ALLOWANCE: Duration = Duration::from_secs(10);
/// Between two faults, in seconds: sometimes the next one comes before all is quiet.
const PAUSE: std::ops::Range<u64> = 0..20;

/// How long, and which faults.
#[derive(Args)]
pub(crate) struct Options {
    /// For so long faults are played; the last one is played to its end
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// What chooses the faults and the pauses between them [default: another one each time; it is printed]
    #[arg(long)]
    seed: Option<u64>,
    /// For so long no fault is played, and nothing may happen
    #[arg(long, default_value_t = 30)]
    calm_minutes: u64,
    #[command(flatten)]
    place: report::Place,
    #[command(flatten)]
    site: stage::Site,
}

/// What a run came to.
#[derive(Serialize)]
struct Report {
    seed: u64,
    minutes: u64,
    calm_minutes: u64,
    /// In the order in which they were played.
    faults: faults::Report,
    /// Without faults; `None` before it ends, and where it could not be watched to its end.
    calm: Option<calm::Report>,
    /// Why it could not, or why the faults ended early.
    error: Option<String>,
    /// What was borne meanwhile.
    load: Option<load::Report>,
}

/// Prepares as the caller, plays as root.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let mut missing = pgha_lab::requirements::missing_packages();
    missing.push(load::PACKAGE);
    options.site.prepare(&missing)?;
    let directory = options.place.directory("soak")?;
    // Chosen here, so that the call through sudo is told.
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..=u64::from(u32::MAX)));
    if !shell::is_root() {
        let mut words = vec!["soak".to_owned(), format!("--into={}", directory.display()), format!("--seed={seed}")];
        words.extend([format!("--minutes={}", options.minutes), format!("--calm-minutes={}", options.calm_minutes)]);
        words.extend(options.site.words());
        return shell::again(&words);
    }

    println!("seed {seed}: `cargo xtask soak --seed {seed}` plays the same faults in the same order");
    let lab = options.site.lab(&cluster::HOSTS.map(HostSpec::container))?;
    let cluster = options.site.cluster(&lab)?;
    let mut report = Report {
        seed,
        minutes: options.minutes,
        calm_minutes: options.calm_minutes,
        faults: faults::Report::default(),
        calm: None,
        error: None,
        load: None,
    };
    cluster.await_complete(CONVERGED)?;
    let load = Load::start(&cluster.balancer)?;
    let played = strain(&lab, &cluster, &mut report, &directory);
    match played.and_then(|()| calm(&cluster, options.calm_minutes)) {
        Ok(calm) => report.calm = calm,
        Err(error) => {
            println!("  FAILED: {error:#}");
            report.error = Some(format!("{error:#}"));
        }
    }
    report.load = Some(load.finish()?);
    report::write(&directory, report.markdown(), &report)?;
    options.site.leave(lab)?;
    println!("\n{}\nwritten to {}", report.markdown(), directory.display());
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One fault after another until the time is over.
fn strain(lab: &Lab, cluster: &Cluster<'_>, report: &mut Report, directory: &Path) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(report.seed);
    let faults: Vec<&Fault> = faults::all().filter(|fault| !fault.machine).collect();
    let (started, length) = (Instant::now(), Duration::from_secs(report.minutes * 60));
    while started.elapsed() < length
        && let Some(fault) = random.choice(&faults)
    {
        let pause = random.u64(PAUSE);
        thread::sleep(Duration::from_secs(pause));
        let number = report.faults.faults.len() + 1;
        println!("\n{number}. {}, {pause} s after the last one ({} min)", fault.name, started.elapsed().as_secs() / 60);
        report.faults.faults.push(played::play(lab, cluster, fault, ALLOWANCE, directory)?);
        // After each, so that a run that is interrupted has told what it knew.
        report::write(directory, report.markdown(), report)?;
    }
    Ok(())
}

/// Nothing but the load; `None` where no time is left for that.
fn calm(cluster: &Cluster<'_>, minutes: u64) -> Result<Option<calm::Report>> {
    if minutes == 0 {
        return Ok(None);
    }
    println!("\nno faults for {minutes} min");
    let calm = calm::watch(cluster, Duration::from_secs(minutes * 60), |told| println!("  {told}"))?;
    println!("  {}{calm}", if calm.holds() { "" } else { "FAILED: " });
    Ok(Some(calm))
}

impl Report {
    /// Whether every promise was kept.
    fn holds(&self) -> bool {
        self.faults.holds() && self.error.is_none() && self.calm.as_ref().is_none_or(calm::Report::holds)
    }

    /// For readers.
    fn markdown(&self) -> String {
        let mut text = format!(
            "# Soak\n\nSeed {}. {} min with faults, {} min without.",
            self.seed, self.minutes, self.calm_minutes
        );
        if let Some(load::Report { clients, transactions, runs, broken }) = self.load {
            let _infallible = write!(
                text,
                " Load beside the clients below: pgbench with {clients} clients, {transactions} transactions in {runs} \
                 runs, {broken} of which lost a connection."
            );
        }
        // Its own heading becomes one below ours.
        let _infallible = write!(text, "\n\n#{}", self.faults.markdown());
        match (&self.calm, &self.error) {
            (Some(calm), _) => text += &told(calm),
            (None, Some(error)) => text += &format!("\n**Ended early**: {error}\n"),
            (None, None) => {}
        }
        text
    }
}

/// The calm time for readers.
fn told(calm: &calm::Report) -> String {
    let calm::Report { changes, workload, probe, agents } = calm;
    let mut text = format!(
        "\n## Without faults\n\nLongest gap {:.2} s, {} of {} rows lost; *loop*: the longest that an agent's loop was seen \
         not to go round, *lease*: the least that was left of it while the agent led, in milliseconds; *no answer*: how \
         often the agent did not answer within half a second.\n\n",
        workload.longest_gap, workload.lost, workload.acknowledged
    );
    let bad = changes.iter().cloned().chain(probe.overlaps.iter().map(ToString::to_string));
    for line in bad {
        let _infallible = writeln!(text, "- **{line}**");
    }
    text += if calm.holds() { "No failover, no promotion, no restart.\n\n" } else { "\n" };
    text += "| host | loop | lease | no answer |\n|---|---:|---:|---:|\n";
    for Lateness { host, asked, unanswered, loop_age, least_lease } in agents {
        let lease = least_lease.map_or("never led".to_owned(), |lease| lease.to_string());
        let _infallible = writeln!(text, "| {host} | {loop_age} | {lease} | {unanswered} of {asked} |");
    }
    text
}
