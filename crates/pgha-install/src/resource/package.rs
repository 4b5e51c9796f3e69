//! Packages of the distribution.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::{Action, Change, ChangeKind, Resource};
use crate::facts::{Facts, Probes};

/// Packages that are to be installed, in any version.
#[derive(Debug, Clone)]
pub struct Packages(pub BTreeSet<&'static str>);

impl Resource for Packages {
    fn id(&self) -> String {
        "packages".to_owned()
    }

    fn probe(&self, probes: &mut Probes) {
        probes.packages.extend(self.0.iter().map(|name| (*name).to_owned()));
    }

    fn diff(&self, facts: &Facts, _before: &BTreeSet<String>) -> Option<Change> {
        let missing: Vec<&str> = self.0.iter().copied().filter(|name| !facts.packages.contains_key(*name)).collect();
        if missing.is_empty() {
            return None;
        }
        let names = missing.join(" ");
        Some(Change {
            kind: ChangeKind::Create,
            summary: format!("install {names}"),
            detail: Vec::new(),
            danger: None,
            // An interrupted dpkg is finished first; a running one is waited for.
            action: Action {
                script: format!(
                    "set -eu; export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 LC_ALL=C; \
                     dpkg --configure -a --force-confdef --force-confold; \
                     apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 update; \
                     apt-get -q -y -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confdef \
                     -o Dpkg::Options::=--force-confold -o Dpkg::Use-Pty=0 --no-install-recommends install {names}"
                ),
                input: Arc::from([]),
                patience: Duration::from_secs(330),
            },
        })
    }
}
