//! The clock of the primary's host is set: for a virtual machine, because containers share the clock of this machine.

use super::{Fault, Patience, scene::Scene};
use crate::{Host, Result};

const AHEAD: &str = "+1 hour";
const BEHIND: &str = "-1 hour";

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        slug: "clock-ahead",
        name: "clock of the primary's host an hour ahead",
        essential: false,
        machine: true,
        patience: Patience::Hiccup,
        play: |scene| set_and_back(scene, AHEAD, BEHIND),
    },
    Fault {
        slug: "clock-behind",
        name: "clock of the primary's host an hour behind",
        essential: false,
        machine: true,
        patience: Patience::Hiccup,
        play: |scene| set_and_back(scene, BEHIND, AHEAD),
    },
];

/// Leases are counted by a clock that nobody sets, so that neither the fault nor its end is anything to them.
fn set_and_back(scene: &Scene<'_>, there: &str, back: &str) -> Result<String> {
    let borne = scene.undisturbed(|host| set(host, there));
    if borne.is_err() {
        set(&scene.primary()?, back)?;
        return borne;
    }
    scene.undisturbed(|host| set(host, back))
}

fn set(host: &Host, by: &str) -> Result<()> {
    host.run(&format!("date --set='{by}'")).map(drop)
}
