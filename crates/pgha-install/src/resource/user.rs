//! System users that no package makes for us.

use std::collections::BTreeSet;

use super::{Action, Change, ChangeKind, Resource};
use crate::facts::{Facts, Probes};

/// A system user with a group of the same name, without shell or login.
#[derive(Debug, Clone)]
pub struct SystemUser {
    /// Name of user and group.
    pub name: &'static str,
    /// Home directory; not made.
    pub home: &'static str,
}

impl Resource for SystemUser {
    fn id(&self) -> String {
        format!("user {}", self.name)
    }

    fn probe(&self, probes: &mut Probes) {
        probes.users.insert(self.name.to_owned());
    }

    fn diff(&self, facts: &Facts, _before: &BTreeSet<String>) -> Option<Change> {
        if facts.users.contains(self.name) {
            return None;
        }
        Some(Change {
            kind: ChangeKind::Create,
            summary: format!("add user {}", self.name),
            detail: Vec::new(),
            danger: None,
            action: Action::quick(format!(
                "set -eu; getent group {0} >/dev/null || groupadd --system {0}; \
                 useradd --system --gid {0} --home-dir {1} --no-create-home --shell /usr/sbin/nologin {0}",
                self.name, self.home
            )),
        })
    }
}
