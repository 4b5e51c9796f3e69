//! `cargo xtask demo`: bare hosts become a cluster, and the cluster outlives the loss of its primary.

mod narrator;
mod story;

use std::{process::ExitCode, time::Instant};

use anyhow::Result;
use pgha_lab::{
    Lab,
    cluster::{self, Cluster},
};

use self::narrator::{Narrator, asked, saw};
use crate::{packages, shell, stage};

/// Prepares as the caller, plays as root.
pub(crate) fn run(keep: bool, prepared: bool) -> Result<ExitCode> {
    pgha_lab::requirements::check_system()?;
    let started = Instant::now();
    let mut narrator = Narrator::new(started);
    if !prepared {
        narrator.step("install what the lab needs of this machine", || {
            let missing = pgha_lab::requirements::missing_packages();
            saw(&if missing.is_empty() { "everything is there".to_owned() } else { missing.join(", ") });
            packages::ensure(&missing)
        })?;
        narrator.step("build the programs in release mode", || {
            stage::build()?;
            saw(&stage::PROGRAMS.join(", "));
            Ok(())
        })?;
    }
    if !shell::is_root() {
        let words = ["demo", "--prepared"].into_iter().chain(keep.then_some("--keep"));
        return shell::again(&words.map(str::to_owned).collect::<Vec<_>>());
    }

    pgha_lab::remove_on_signals()?;
    let lab = narrator.step("start four bare Debian hosts", || {
        let lab = Lab::up(&cluster::HOSTS)?;
        saw(&lab
            .hosts()
            .iter()
            .map(|host| format!("{} {}", host.name(), host.address()))
            .collect::<Vec<_>>()
            .join(", "));
        Ok(lab)
    })?;
    let played = install(&lab, &mut narrator).and_then(|cluster| story::play(&cluster, &mut narrator));
    if played.is_err() {
        eprintln!("{}", cluster::journals(&lab, 15));
    }
    narrator.summary(played.as_ref().ok());
    if keep {
        println!("\n{}", directions(&lab));
        lab.keep()?;
    } else {
        lab.down()?;
    }
    let held = played?.holds();
    println!("\n{}", if held { "Everything held." } else { "Not everything held." });
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn install<'a>(lab: &'a Lab, narrator: &mut Narrator) -> Result<Cluster<'a>> {
    narrator.step("install the cluster", || {
        asked(&format!("pgha-install {}", stage::INVENTORY));
        stage::install(lab)
    })
}

fn directions(lab: &Lab) -> String {
    format!(
        "The cluster is still running (the passwords are in {secrets}; that of the statistics is haproxy_stats_password):\n\
         \x20 a client       cargo xtask lab exec db1 -- psql -h lb1 -U postgres\n\
         \x20 statistics     cargo xtask lab exec lb1 -- curl -s -u admin:PASSWORD http://lb1:7000/\n\
         \x20 a host         cargo xtask lab ssh db1\n\
         \x20 the cluster    cargo xtask lab exec db1 -- pghactl list\n\
         \x20 a fault        cargo xtask lab power-off db1\n\
         \x20 hosts' keys    {keys}\n\
         \x20 the end        cargo xtask lab down",
        secrets = stage::secrets().display(),
        keys = lab.known_hosts().display(),
    )
}
