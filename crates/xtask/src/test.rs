//! `cargo xtask test`: every check and test of the repository, from fast to real.

use std::{
    path::PathBuf,
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::{packages, shell};

/// For the tests that run real servers on this machine.
const SERVERS: [&str; 5] = ["default-jre-headless", "haproxy", "pgbackrest", "postgresql-15", "zookeeper"];

/// A part's name and what it does.
type Part = (&'static str, fn() -> Result<()>);

const PARTS: [Part; 6] = [
    ("packages", install),
    ("format", || shell::run(shell::cargo().args(["fmt", "--all", "--check"]))),
    ("lints", || {
        shell::run(shell::cargo().args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))
    }),
    ("unit and process tests", || shell::run(shell::cargo().args(["test", "--workspace", "--quiet"]))),
    ("simulated histories", simulate),
    ("tests on lab hosts", lab),
];

/// Runs all parts, also after a failed one, and ends with what each took and what was wrong first.
pub(crate) fn run() -> Result<ExitCode> {
    pgha_lab::requirements::check_system()?;
    let mut results = Vec::new();
    for (name, work) in PARTS {
        eprintln!("\n── {name}");
        let started = Instant::now();
        let result = work();
        if let Err(error) = &result {
            eprintln!("{error:#}");
        }
        results.push((name, started.elapsed(), result));
    }
    println!("\n{:<26} {:>8}  result", "part", "seconds");
    for (name, took, result) in &results {
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        println!("{name:<26} {:>8.1}  {verdict}", took.as_secs_f64());
    }
    let first = results.into_iter().find_map(|(name, _, result)| Some((name, result.err()?)));
    Ok(match first {
        None => ExitCode::SUCCESS,
        Some((name, error)) => {
            println!("\nfirst failure, in {name}: {error:#}");
            ExitCode::FAILURE
        }
    })
}

fn install() -> Result<()> {
    let lab = pgha_lab::requirements::missing_packages();
    let machines = pgha_lab::requirements::missing_machine_packages();
    packages::ensure(&[&lab[..], &machines, &SERVERS].concat())
}

/// Seeds that no run has seen before this commit; the fixed ones are among the unit tests. A commit always plays the same
/// ones, so that what fails somewhere fails everywhere. A failing seed is printed: `pgha-sim --seed N --trace`.
fn simulate() -> Result<()> {
    const HISTORIES: u64 = 20_000;
    let commit = shell::read(Command::new("git").args(["rev-parse", "HEAD"]))?;
    let from =
        commit.get(..12).and_then(|hex| u64::from_str_radix(hex, 16).ok()).context("reading the commit's name")?;
    let seeds = [format!("--seeds={HISTORIES}"), format!("--from={from}")];
    shell::run(shell::cargo().args(["run", "--quiet", "--profile=sim", "--package=pgha-sim", "--"]).args(seeds))
}

/// Tests on lab hosts are ignored by a plain `cargo test`, because they need root. They are built as the caller and
/// run as root, one at a time: there is one lab.
fn lab() -> Result<()> {
    // The installer's own tests drive the programs that a user would call.
    shell::run(shell::cargo().args(["build", "--release", "--quiet"]))?;
    let programs = shell::target_directory()?.join("release");
    let mut failed = Vec::new();
    for (name, program) in executables()? {
        let mut test = shell::as_root(program);
        test.env("PGHA_BIN_DIR", &programs).args(["--ignored", "--test-threads=1"]);
        if shell::run(&mut test).is_err() {
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("see the output of {} above", failed.join(", "));
    }
    Ok(())
}

/// The lab's test programs by name.
fn executables() -> Result<Vec<(String, PathBuf)>> {
    #[derive(Deserialize)]
    struct Message {
        executable: Option<PathBuf>,
        target: Option<Target>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
        kind: Vec<String>,
    }
    let text = shell::read(shell::cargo().args([
        "test",
        "--package=pgha-lab",
        "--test=*",
        "--no-run",
        "--quiet",
        "--message-format=json",
    ]))?;
    let mut found = Vec::new();
    for line in text.lines() {
        let message: Message = serde_json::from_str(line).context("reading cargo's messages")?;
        if let (Some(program), Some(target)) = (message.executable, message.target)
            && target.kind.iter().any(|kind| kind == "test")
        {
            found.push((target.name, program));
        }
    }
    if found.is_empty() {
        bail!("cargo built no test program of pgha-lab");
    }
    Ok(found)
}
