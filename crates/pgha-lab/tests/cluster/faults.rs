//! The faults that every test run plays; `cargo xtask faults` plays all of them.

use anyhow::Result;
use pgha_lab::{
    cluster::Cluster,
    faults::{all, mend},
};

use crate::sections::Sections;

pub(crate) fn outlived(cluster: &Cluster<'_>, sections: &mut Sections<'_>) {
    let mut whole = true;
    for fault in all().filter(|fault| fault.essential) {
        let play = || -> Result<String> { Ok(fault.play(cluster)?.to_string()) };
        if !whole {
            sections.skip(fault.name);
        } else if !sections.run(fault.name, play) {
            // The next fault is worth trying only if this one's traces can be removed.
            whole = mend(cluster).is_ok();
        }
    }
}
