//! `pgha-sim`: plays histories, shows them, and makes failing ones small; replays the journals of agents.

use std::io::{BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use pgha_sim::history::{play, sweep};
use pgha_sim::mutant::Mutant;
use pgha_sim::replay::replay;
use pgha_sim::scenario::Scenario;
use pgha_sim::shrink::shrink;

/// Plays histories of a cluster of pgha in virtual time: the real decisions, and everything fails.
///
/// Exit codes: 0 nothing was broken, 1 something was, 2 wrong arguments.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Play this many seeds.
    #[arg(long, default_value_t = 1000, conflicts_with = "seed")]
    seeds: u64,
    /// Begin with this seed.
    #[arg(long, default_value_t = 0, conflicts_with = "seed")]
    from: u64,
    /// Play this seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Tell its story.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Find the smallest set of its faults that still breaks something.
    #[arg(long, requires = "seed")]
    shrink: bool,
    /// Break the code on purpose.
    #[arg(long, value_enum)]
    mutant: Option<Mutant>,
    /// Stop after this many failures.
    #[arg(long, default_value_t = 10)]
    failures: usize,
    /// Threads [default: one for each core].
    #[arg(long)]
    threads: Option<usize>,
    /// Say what was reached and what was not.
    #[arg(long)]
    reach: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Decide again what agents have decided, from their journals (/var/lib/pgha/journal), and tell it as a story.
    ///
    /// Exit codes: 0 today's core decides the same, 1 it does not, 2 a file cannot be read.
    Replay {
        /// Journal files, in their order.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Print the summary only.
        #[arg(long)]
        quiet: bool,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Command::Replay { files, quiet }) = &arguments.command {
        return again(files, *quiet);
    }
    let good = match arguments.seed {
        Some(seed) => one(seed, &arguments),
        None => many(&arguments),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn again(files: &[PathBuf], quiet: bool) -> ExitCode {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let replayed = replay(files, quiet, &mut out).and_then(|summary| {
        writeln!(out, "{summary}")?;
        out.flush()?;
        Ok(summary.agrees())
    });
    match replayed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // What was told before it comes first.
            let _ = out.flush();
            eprintln!("pgha-sim: {error}");
            ExitCode::from(2)
        }
    }
}

fn one(seed: u64, arguments: &Arguments) -> bool {
    let mut scenario = Scenario::of(seed);
    if arguments.shrink {
        scenario = shrink(&scenario, arguments.mutant);
    }
    println!(
        "seed {seed}: {} members, {} servers, lease {}, synchrony {:?}, strict {}, sync_count {}, failsafe {}, watchdog {}",
        scenario.members,
        scenario.servers,
        scenario.timing.ttl,
        scenario.settings.synchrony,
        scenario.settings.strict,
        scenario.settings.sync_count,
        scenario.settings.failsafe,
        scenario.watchdog
    );
    for fault in &scenario.faults {
        println!("{fault}");
    }
    let outcome = play(scenario, arguments.mutant, arguments.trace);
    for line in &outcome.story {
        println!("{line}");
    }
    println!(
        "{} events, {} rows acknowledged, longest time without one {} ms",
        outcome.events,
        outcome.acknowledged,
        outcome.longest_gap.as_millis()
    );
    match outcome.violation {
        None => true,
        Some(violation) => {
            println!("VIOLATION  {violation}");
            false
        }
    }
}

fn many(arguments: &Arguments) -> bool {
    let threads = arguments.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(arguments.seeds) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} histories, {per_sec}, {eta} left") {
        bar.set_style(style);
    }
    let begun = Instant::now();
    let seeds = arguments.from..arguments.from + arguments.seeds;
    let sweep = sweep(seeds, threads, arguments.mutant, arguments.failures, |played| {
        if played % 16 == 0 {
            bar.set_position(played);
        }
    });
    bar.finish_and_clear();
    let took = begun.elapsed();
    for (seed, violation) in &sweep.failed {
        println!("seed {seed}: {violation}");
    }
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = sweep.played * 1000 / millis / threads as u64;
    println!(
        "{} histories of ten minutes in {:.1} s on {threads} threads ({rate} a second and thread), {} rows acknowledged, \
         {} failed",
        sweep.played,
        took.as_secs_f64(),
        sweep.acknowledged,
        sweep.failed.len()
    );
    if arguments.reach {
        for (kind, counts) in
            [("reason", &sweep.reached.reasons), ("action", &sweep.reached.actions), ("event", &sweep.reached.marks)]
        {
            for (name, count) in counts {
                println!("{count:>10}  {kind} {name}");
            }
        }
        println!("never reached: {}", sweep.reached.never().join(", "));
        println!("dead ends: {}", sweep.reached.dead_ends().join(", "));
    }
    sweep.failed.is_empty()
}
