//! Files and directories: content, mode and owner. Files are replaced as a whole, never edited in place.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::{Action, Change, ChangeKind, Danger, Resource};
use crate::diff;
use crate::facts::{Facts, FileFact, Probes};
use crate::ssh::quote;

/// Bytes and their checksum.
#[derive(Debug, Clone)]
pub struct Content {
    bytes: Arc<[u8]>,
    sum: String,
}

impl Content {
    /// Takes the checksum of `bytes`.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        let mut sum = String::with_capacity(64);
        for byte in Sha256::digest(&bytes) {
            let _infallible = write!(sum, "{byte:02x}");
        }
        Self { bytes, sum }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A file.
#[derive(Debug, Clone)]
pub struct File {
    path: String,
    content: Content,
    mode: u32,
    owner: String,
    group: String,
    shown: bool,
    check: Option<String>,
    package: Option<String>,
}

impl File {
    /// A text that everybody may read, owned by root.
    pub fn public(path: impl Into<String>, text: impl Into<String>) -> Self {
        let text: String = text.into();
        Self {
            path: path.into(),
            content: Content::new(text.into_bytes()),
            mode: 0o644,
            owner: "root".to_owned(),
            group: "root".to_owned(),
            shown: true,
            check: None,
            package: None,
        }
    }

    /// A program.
    pub fn program(path: impl Into<String>, content: Content) -> Self {
        Self { content, mode: 0o755, shown: false, ..Self::public(path, "") }
    }

    /// Sets mode, owner and group.
    #[must_use]
    pub fn owned(mut self, mode: u32, owner: &str, group: &str) -> Self {
        self.mode = mode;
        owner.clone_into(&mut self.owner);
        group.clone_into(&mut self.group);
        self
    }

    /// Keeps the text out of plans: it is secret, or nothing that people read.
    #[must_use]
    pub fn unshown(mut self) -> Self {
        self.shown = false;
        self
    }

    /// Runs a command on the new file (`"$new"`) before it takes the place of the old one.
    #[must_use]
    pub fn checked_by(mut self, command: &str) -> Self {
        self.check = Some(command.to_owned());
        self
    }

    /// The file comes with this package: another text than the package's own is somebody's work and is kept aside.
    #[must_use]
    pub fn replaces_conffile_of(mut self, package: &str) -> Self {
        self.package = Some(package.to_owned());
        self
    }

    fn foreign(&self, facts: &Facts) -> bool {
        let Some(there) = facts.files.get(&self.path) else {
            return false;
        };
        let ours = there.text.as_ref().is_some_and(|text| text.contains(crate::render::MARK));
        self.package.is_some() && !ours && !facts.pristine.contains(&self.path)
    }

    fn action(&self, backup: bool) -> Action {
        let path = quote(&self.path);
        let mut script = format!(
            "set -eu; umask 077; new=$(mktemp {path}.pgha.XXXXXX); trap 'rm -f \"$new\"' EXIT; cat >\"$new\"; \
             echo '{}  '\"$new\" | sha256sum -c --quiet -; chown {}:{} \"$new\"; chmod {:o} \"$new\"; ",
            self.content.sum, self.owner, self.group, self.mode
        );
        if let Some(check) = &self.check {
            let _infallible = write!(script, "{check}; ");
        }
        if backup {
            let _infallible = write!(script, "[ -e {path}.before-pgha ] || cp -a {path} {path}.before-pgha; ");
        }
        let _infallible = write!(script, "sync \"$new\"; mv -fT \"$new\" {path}; sync \"$(dirname {path})\"");
        Action { script, input: Arc::clone(&self.content.bytes), patience: Duration::from_secs(60) }
    }

    fn attributes(&self, there: &FileFact) -> Vec<String> {
        attributes(there, self.mode, &self.owner, &self.group)
    }
}

fn attributes(there: &FileFact, mode: u32, owner: &str, group: &str) -> Vec<String> {
    let mut lines = Vec::new();
    if there.mode != mode {
        lines.extend([format!("-mode {:04o}", there.mode), format!("+mode {mode:04o}")]);
    }
    if (there.owner.as_str(), there.group.as_str()) != (owner, group) {
        lines.extend([format!("-owner {}:{}", there.owner, there.group), format!("+owner {owner}:{group}")]);
    }
    lines
}

impl Resource for File {
    fn id(&self) -> String {
        format!("file {}", self.path)
    }

    fn probe(&self, probes: &mut Probes) {
        probes.files.insert(self.path.clone());
        if self.shown {
            probes.shown.insert(self.path.clone());
        }
        if let Some(package) = &self.package {
            // Whose text it is must be known even where the text may not be shown.
            probes.shown.insert(self.path.clone());
            probes.conffiles.insert(format!("{package}:{}", self.path));
        }
    }

    fn diff(&self, facts: &Facts, _before: &BTreeSet<String>) -> Option<Change> {
        let text = || String::from_utf8_lossy(&self.content.bytes);
        let Some(there) = facts.files.get(&self.path) else {
            return Some(Change {
                kind: ChangeKind::Create,
                summary: format!("write {}", self.path),
                detail: Vec::new(),
                danger: None,
                action: self.action(false),
            });
        };
        let same_text = there.sum == self.content.sum && there.target.is_none();
        let mut detail = self.attributes(there);
        if same_text && detail.is_empty() {
            return None;
        }
        if !same_text && self.shown {
            detail.extend(diff::lines(there.text.as_deref().unwrap_or(""), &text()));
        }
        let foreign = self.foreign(facts);
        Some(Change {
            kind: ChangeKind::Update,
            summary: format!("change {}", self.path),
            detail,
            danger: foreign.then(|| {
                Danger::Loss(format!("{} is somebody's work; it is replaced and kept as {0}.before-pgha", self.path))
            }),
            action: self.action(foreign),
        })
    }
}

/// A directory.
#[derive(Debug, Clone)]
pub struct Directory {
    /// Where it is.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Name of the owner.
    pub owner: String,
    /// Name of the group.
    pub group: String,
}

impl Directory {
    /// A directory with its mode, owner and group.
    pub fn new(path: impl Into<String>, mode: u32, owner: &str, group: &str) -> Self {
        Self { path: path.into(), mode, owner: owner.to_owned(), group: group.to_owned() }
    }
}

impl Resource for Directory {
    fn id(&self) -> String {
        format!("directory {}", self.path)
    }

    fn probe(&self, probes: &mut Probes) {
        probes.files.insert(self.path.clone());
    }

    fn diff(&self, facts: &Facts, _before: &BTreeSet<String>) -> Option<Change> {
        let path = quote(&self.path);
        let (kind, detail) = match facts.files.get(&self.path) {
            Some(there) => {
                let lines = attributes(there, self.mode, &self.owner, &self.group);
                if lines.is_empty() {
                    return None;
                }
                (ChangeKind::Update, lines)
            }
            None => (ChangeKind::Create, Vec::new()),
        };
        Some(Change {
            kind,
            summary: match kind {
                ChangeKind::Create => format!("make {}", self.path),
                _ => format!("change {}", self.path),
            },
            detail,
            danger: None,
            action: Action::quick(format!(
                "set -eu; umask 022; mkdir -p {path}; chown {}:{} {path}; chmod {:o} {path}",
                self.owner, self.group, self.mode
            )),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts_with(path: &str, fact: FileFact) -> Facts {
        let mut facts = Facts::default();
        facts.files.insert(path.to_owned(), fact);
        facts
    }

    fn there(text: &str) -> FileFact {
        FileFact {
            kind: "regular file".to_owned(),
            mode: 0o644,
            owner: "root".to_owned(),
            group: "root".to_owned(),
            sum: Content::new(text.as_bytes().to_vec()).sum,
            text: Some(text.to_owned()),
            ..FileFact::default()
        }
    }

    #[test]
    fn a_file_as_wanted_is_no_difference() {
        let file = File::public("/etc/a", "x\n");
        assert!(file.diff(&facts_with("/etc/a", there("x\n")), &BTreeSet::new()).is_none());
    }

    #[test]
    fn text_mode_and_owner_count() {
        let file = File::public("/etc/a", "x\ny\n");
        let mut fact = there("x\nz\n");
        fact.mode = 0o600;
        let change = file.diff(&facts_with("/etc/a", fact), &BTreeSet::new()).unwrap();
        assert_eq!(change.detail, ["-mode 0600", "+mode 0644", " x", "-z", "+y"]);
        assert!(change.danger.is_none());
    }

    #[test]
    fn secrets_are_not_shown() {
        let file = File::public("/etc/a", "hunter2\n").unshown();
        let change = file.diff(&facts_with("/etc/a", there("old")), &BTreeSet::new()).unwrap();
        assert!(change.detail.is_empty());
        assert!(!change.action.script.contains("hunter2"));
        assert_eq!(&*change.action.input, b"hunter2\n");
    }

    #[test]
    fn somebodys_work_is_kept_aside() {
        let file = File::public("/etc/haproxy/haproxy.cfg", "new").replaces_conffile_of("haproxy");
        let mut facts = facts_with("/etc/haproxy/haproxy.cfg", there("by hand"));
        let change = file.diff(&facts, &BTreeSet::new()).unwrap();
        assert!(change.danger.is_some() && change.action.script.contains("before-pgha"));
        facts.pristine.insert("/etc/haproxy/haproxy.cfg".to_owned());
        assert!(file.diff(&facts, &BTreeSet::new()).unwrap().danger.is_none());
    }
}
