//! systemd units: out of the way, enabled, running, and running with their newest inputs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::{Action, Change, ChangeKind, Danger, Resource};
use crate::facts::{Facts, Probes};

/// A unit that must never start.
#[derive(Debug, Clone)]
pub struct Mask(pub &'static str);

impl Resource for Mask {
    fn id(&self) -> String {
        format!("mask {}", self.0)
    }

    fn probe(&self, probes: &mut Probes) {
        probes.files.insert(format!("/etc/systemd/system/{}", self.0));
    }

    fn diff(&self, facts: &Facts, _before: &BTreeSet<String>) -> Option<Change> {
        let there = facts.files.get(&format!("/etc/systemd/system/{}", self.0));
        if there.is_some_and(|there| there.target.as_deref() == Some("/dev/null")) {
            return None;
        }
        // Instances of a template run on when the template is masked.
        let stop = match self.0.strip_suffix("@.service") {
            Some(stem) => format!("systemctl stop '{stem}@*.service'"),
            None => format!("systemctl stop {} 2>/dev/null || true", self.0),
        };
        Some(Change {
            kind: ChangeKind::Create,
            summary: format!("mask {}", self.0),
            detail: Vec::new(),
            danger: None,
            action: Action::quick(format!("set -eu; {stop}; systemctl mask --quiet {}", self.0)),
        })
    }
}

/// systemd reads its files again after one of them changed.
#[derive(Debug, Clone, Default)]
pub struct DaemonReload;

impl Resource for DaemonReload {
    fn id(&self) -> String {
        "systemd".to_owned()
    }

    fn probe(&self, _probes: &mut Probes) {}

    fn diff(&self, facts: &Facts, before: &BTreeSet<String>) -> Option<Change> {
        let changed = before.iter().any(|id| id.starts_with("file /etc/systemd/system/"));
        let stale = facts.units.values().any(|unit| unit.stale);
        (changed || stale).then(|| Change {
            kind: ChangeKind::Update,
            summary: "make systemd read its files again".to_owned(),
            detail: Vec::new(),
            danger: None,
            action: Action::quick("systemctl daemon-reload"),
        })
    }
}

/// A unit that runs, now and after a reboot.
#[derive(Debug, Clone)]
pub struct Unit {
    name: &'static str,
    restart_on: Vec<String>,
    reload_on: Vec<String>,
    danger: Option<String>,
}

impl Unit {
    /// A unit that is enabled and runs.
    pub fn new(name: &'static str) -> Self {
        Self { name, restart_on: vec![format!("/etc/systemd/system/{name}")], reload_on: Vec::new(), danger: None }
    }

    /// Restarts it when one of these files is newer than its start.
    #[must_use]
    pub fn restart_on(mut self, paths: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.restart_on.extend(paths.into_iter().map(Into::into));
        self
    }

    /// Reloads it when one of these files is newer than its last start or reload.
    #[must_use]
    pub fn reload_on(mut self, paths: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.reload_on.extend(paths.into_iter().map(Into::into));
        self
    }

    /// What a restart does to people who use the cluster.
    #[must_use]
    pub fn restart_hurts(mut self, how: impl Into<String>) -> Self {
        self.danger = Some(how.into());
        self
    }

    fn change(&self, kind: ChangeKind, verb: &str, detail: Vec<String>) -> Change {
        let name = self.name;
        // A package may have started its service in this very run, before our files were there.
        let command = if verb == "start" { "restart" } else { verb };
        Change {
            kind,
            summary: format!("{verb} {name}"),
            detail,
            danger: self.danger.clone().filter(|_| kind == ChangeKind::Restart).map(Danger::Disturbance),
            action: Action {
                script: format!("set -eu; systemctl enable --quiet {name}; systemctl {command} {name}"),
                input: Arc::from([]),
                patience: Duration::from_secs(300),
            },
        }
    }
}

/// The files of `paths` that change in this run, or changed after `since`.
fn newer(paths: &[String], facts: &Facts, before: &BTreeSet<String>, since: Option<i64>) -> Vec<String> {
    paths
        .iter()
        .filter(|path| {
            let later = match (facts.files.get(*path), since) {
                (Some(file), Some(since)) => file.changed > since,
                _ => false,
            };
            later || before.contains(&format!("file {path}"))
        })
        .map(|path| format!(" because {path} changed"))
        .collect()
}

impl Resource for Unit {
    fn id(&self) -> String {
        format!("unit {}", self.name)
    }

    fn probe(&self, probes: &mut Probes) {
        probes.units.insert(self.name.to_owned());
        probes.files.extend(self.restart_on.iter().chain(&self.reload_on).cloned());
    }

    fn diff(&self, facts: &Facts, before: &BTreeSet<String>) -> Option<Change> {
        let unknown = crate::facts::UnitFact::default();
        let unit = facts.units.get(self.name).unwrap_or(&unknown);
        if !facts.runs(self.name) {
            return Some(self.change(ChangeKind::Create, "start", Vec::new()));
        }
        let restart = newer(&self.restart_on, facts, before, unit.started);
        if !restart.is_empty() {
            return Some(self.change(ChangeKind::Restart, "restart", restart));
        }
        let reload = newer(&self.reload_on, facts, before, unit.touched);
        if !reload.is_empty() {
            return Some(self.change(ChangeKind::Update, "reload-or-restart", reload));
        }
        (unit.file != "enabled").then(|| self.change(ChangeKind::Update, "enable", Vec::new()))
    }

    fn journal(&self) -> Option<&str> {
        Some(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{FileFact, UnitFact};

    fn running(started: i64, file_changed: i64) -> Facts {
        let mut facts = Facts::default();
        facts.units.insert(
            "a.service".to_owned(),
            UnitFact {
                active: "active".to_owned(),
                file: "enabled".to_owned(),
                started: Some(started),
                touched: Some(started),
                ..UnitFact::default()
            },
        );
        facts.files.insert("/etc/a".to_owned(), FileFact { changed: file_changed, ..FileFact::default() });
        facts
    }

    fn diff(unit: &Unit, facts: &Facts, before: &[&str]) -> Option<String> {
        let before = before.iter().map(|id| (*id).to_owned()).collect();
        unit.diff(facts, &before).map(|change| change.summary)
    }

    #[test]
    fn a_unit_restarts_only_for_newer_inputs() {
        let unit = Unit::new("a.service").restart_on(["/etc/a"]);
        assert_eq!(diff(&unit, &running(10, 10), &[]), None);
        assert_eq!(diff(&unit, &running(10, 11), &[]), Some("restart a.service".to_owned()));
        assert_eq!(diff(&unit, &running(10, 9), &["file /etc/a"]), Some("restart a.service".to_owned()));
        assert_eq!(diff(&unit, &Facts::default(), &[]), Some("start a.service".to_owned()));
    }

    #[test]
    fn a_reload_is_enough_where_it_is_said_to_be() {
        let unit = Unit::new("a.service").reload_on(["/etc/a"]);
        assert_eq!(diff(&unit, &running(10, 11), &[]), Some("reload-or-restart a.service".to_owned()));
    }
}
