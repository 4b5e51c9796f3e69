//! From bare hosts to a cluster that outlives its faults, with the programs that users get.
//!
//! One lab and one cluster serve all sections in turn. They need root, Debian 12 and the programs built in release mode
//! (in `target/release`, or where `PGHA_BIN_DIR` says); `cargo xtask test` runs them, a plain `cargo test` passes them
//! over.

mod archive;
mod bad_input;
mod faults;
mod install;
mod recovery;
mod sections;
mod site;

use pgha_lab::{Lab, cluster::HOSTS};

use self::{sections::Sections, site::Site};

#[test]
#[ignore = "needs root and the lab: cargo xtask test"]
fn a_cluster_made_from_bare_hosts_outlives_its_faults() {
    let lab = Lab::up(&HOSTS).expect("the lab comes up");
    let site = Site::new(&lab).expect("a place for the inventory");
    let mut sections = Sections::new(&lab);
    if bad_input::refused(&site, &mut sections)
        && let Some(cluster) = install::made(&site, &mut sections)
    {
        faults::outlived(&cluster, &mut sections);
        recovery::by_hand(&cluster, &mut sections);
        archive::kept(&site, &mut sections);
        install::silent(&site, &mut sections);
    }
    sections.verdict();
}
