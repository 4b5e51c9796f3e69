//! `cargo xtask bench`: the same faults on a cluster of ours and on one of Patroni's, on the same kind of hosts.

use std::{path::Path, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::Args;
use pgha_lab::{
    Lab,
    bench::{self, Entry, Report, Rest, SUBJECTS, Side, Subject},
    cluster::{self, Cluster},
    faults::{PGHA, Software},
    peer::{Model, PATRONI, Peer, Profile, Programs},
};

use crate::{packages, report, shell, stage};

/// What is measured and where the report goes.
#[derive(Args)]
pub(crate) struct Options {
    /// Only these, by their names, parted by commas: switchover, postmaster-killed, power-loss, agent-killed,
    /// agent-frozen, network-cut, power-on
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    #[command(flatten)]
    place: report::Place,
    /// The binaries are built and the packages are there: set when this calls itself through sudo
    #[arg(long, hide = true)]
    prepared: bool,
}

/// Prepares as the caller, measures as root.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let subjects = chosen(&options.only)?;
    pgha_lab::requirements::check_system()?;
    let directory = options.place.directory("bench")?;
    if !options.prepared {
        packages::ensure(&pgha_lab::requirements::missing_packages())?;
        stage::build()?;
    }
    let mut report = Report { peer: Programs::version(), ..Report::default() };
    // Root finds what the caller has made, or tries once more and says why there is none.
    let programs = peer(&directory);
    if !shell::is_root() {
        let mut words = vec!["bench".to_owned(), "--prepared".to_owned(), format!("--into={}", directory.display())];
        if !options.only.is_empty() {
            words.push(format!("--only={}", options.only.join(",")));
        }
        return shell::again(&words);
    }

    pgha_lab::remove_on_signals()?;
    let bench = Bench { subjects, directory: &directory };
    let model = bench.ours(&mut report)?;
    let missing = match programs {
        Ok(programs) => bench
            .theirs(&mut report, &programs, &model)
            .err()
            .map(|error| format!("Patroni could not be measured to the end: {error:#}")),
        Err(error) => Some(format!("Patroni cannot be installed here, and pgha's figures stand alone: {error:#}")),
    };
    if let Some(missing) = missing {
        let missing = missing.replace('\n', " ");
        println!("\n{missing}");
        report.missing.push(missing);
    }
    report::write(&directory, report.markdown(), &report)?;
    println!("\n{}\nwritten to {}", report.markdown(), directory.display());
    // What is measured of the peer is no promise of ours.
    let held = report.sides.first().is_some_and(Side::holds);
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The peer's programs, where this machine can get them.
fn peer(directory: &Path) -> Result<Programs> {
    if let Some(programs) = Programs::find(directory) {
        return Ok(programs);
    }
    packages::ensure(&[Programs::PACKAGE]).context("Python cannot be installed")?;
    Ok(Programs::ensure(directory)?)
}

/// One comparison.
struct Bench<'a> {
    subjects: Vec<&'static Subject>,
    directory: &'a Path,
}

impl Bench<'_> {
    /// Our own cluster; what the peer takes over from it.
    fn ours(&self, report: &mut Report) -> Result<Model> {
        let lab = Lab::up(&cluster::HOSTS)?;
        let cluster = stage::install(&lab)?;
        self.side(report, PGHA.name, &cluster, &PGHA)?;
        let model = Model::of(&cluster)?;
        lab.down()?;
        Ok(model)
    }

    /// The peer on new hosts, with its defaults and then with the shortest times that it accepts.
    fn theirs(&self, report: &mut Report, programs: &Programs, model: &Model) -> Result<()> {
        println!("\ninstalling Patroni {}", Programs::version());
        let lab = Lab::up(&cluster::HOSTS)?;
        let mut peer = Peer::install(&lab, programs, model).context("Patroni could not be installed")?;
        for profile in [Profile::Defaults, Profile::Tightest] {
            peer.set(profile).context("Patroni could not be set")?;
            self.side(report, profile.name(), &peer.cluster, &PATRONI)?;
        }
        Ok(lab.down()?)
    }

    /// All that is measured of one side. An error only where the cluster could not be mended.
    fn side(&self, report: &mut Report, name: &'static str, cluster: &Cluster<'_>, software: &Software) -> Result<()> {
        println!("\n{name}: at rest");
        let rest = Rest::watch(cluster, software);
        report.sides.push(Side::new(name));
        match rest {
            Ok(rest) => Self::last(report)?.rest = Some(rest),
            Err(error) => report.missing.push(format!("{name} at rest: {error}")),
        }
        for subject in &self.subjects {
            println!("{name}: {}", subject.name);
            let result = bench::measure(subject, cluster, software);
            let failed = result.is_err();
            match &result {
                Ok(figures) => println!("  {figures}"),
                Err(error) => println!("  FAILED: {error}"),
            }
            Self::last(report)?.entries.push(Entry::new(subject, result));
            // After each, so that a run that is interrupted has told what it knew.
            report::write(self.directory, report.markdown(), report)?;
            if failed {
                bench::mend(cluster, software).with_context(|| format!("{name} could not be mended"))?;
            }
        }
        Ok(())
    }

    fn last(report: &mut Report) -> Result<&mut Side> {
        report.sides.last_mut().context("no side is being measured")
    }
}

fn chosen(only: &[String]) -> Result<Vec<&'static Subject>> {
    let all: &'static [Subject] = &SUBJECTS;
    if let Some(unknown) = only.iter().find(|slug| all.iter().all(|subject| subject.slug != **slug)) {
        let names: Vec<_> = all.iter().map(|subject| subject.slug).collect();
        bail!("there is nothing to measure called `{unknown}`; there is {}", names.join(", "));
    }
    Ok(all.iter().filter(|subject| only.is_empty() || only.iter().any(|slug| slug == subject.slug)).collect())
}
