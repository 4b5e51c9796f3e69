//! One fault of a chore: played, told, and its journals kept where it was not outlived.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use pgha_lab::{
    Lab,
    cluster::{self, Cluster},
    faults::{self, Entry, Fault},
};

/// Lines of each unit's journal that are kept of a fault that was not outlived.
const LINES: usize = 200;

/// Plays it. Clients may wait longer than usual by `allowance`. An error only where the cluster could not be mended.
pub(crate) fn play(
    lab: &Lab,
    cluster: &Cluster<'_>,
    fault: &Fault,
    allowance: Duration,
    directory: &Path,
) -> Result<Entry> {
    let started = Instant::now();
    let result = fault.play_with(cluster, allowance);
    let took = started.elapsed().as_secs_f64();
    match &result {
        Ok(outcome) => println!("  {outcome} ({took:.1} s)"),
        Err(error) => {
            println!("  FAILED: {error} ({took:.1} s)");
            let file = directory.join(format!("{}.log", fault.slug));
            let text = format!("{}: {error}\n{}", fault.name, cluster::journals(lab, LINES));
            fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
            println!("  what the units said: {}", file.display());
            faults::mend(cluster).context("the cluster could not be mended")?;
        }
    }
    Ok(Entry::new(fault, took, result))
}
