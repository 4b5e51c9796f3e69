//! Patroni and all that it needs from `PyPI`, in a virtual environment that is made once and copied to hosts.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use sha2::{Digest, Sha256};

use crate::{Error, Host, Result, command};

const REQUIREMENTS: &str = include_str!("requirements.txt");
/// The machine's own Python, not one of its user's: hosts run the same release of Debian, and so the same Python.
const PYTHON: &str = "/usr/bin/python3";
/// Where hosts have it.
pub(super) const PLACE: &str = "/opt/patroni";

/// A complete virtual environment.
#[derive(Debug, Clone)]
pub struct Programs {
    dir: PathBuf,
}

impl Programs {
    /// The Debian package without which Python makes none.
    pub const PACKAGE: &str = "python3-venv";

    /// The version of Patroni.
    pub fn version() -> &'static str {
        REQUIREMENTS.lines().find_map(|line| line.strip_prefix("patroni==")).unwrap_or_default()
    }

    /// What was made below `parent` before, from the same versions.
    pub fn find(parent: &Path) -> Option<Self> {
        let dir = place(parent);
        dir.is_dir().then_some(Self { dir })
    }

    /// The same, made where it is missing. The error says in one sentence why it cannot be.
    pub fn ensure(parent: &Path) -> Result<Self> {
        if let Some(found) = Self::find(parent) {
            return Ok(found);
        }
        let dir = place(parent);
        fs::create_dir_all(parent).map_err(Error::io("creating", parent))?;
        // Beside its place, and moved there when it is complete. A half one of a killed run is overwritten.
        let making = dir.with_extension("making");
        let requirements = parent.join("requirements.txt");
        fs::write(&requirements, REQUIREMENTS).map_err(Error::io("writing", &requirements))?;
        let made = command::capture(Command::new(PYTHON).args(["-m", "venv", "--clear"]).arg(&making))?;
        if !made.success() {
            return Err(missing("python3 makes no virtual environment", &made));
        }
        let mut pip = Command::new(making.join("bin/python3"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--requirement"]);
        let installed = command::capture(pip.arg(&requirements))?;
        if !installed.success() {
            return Err(missing("pip gets nothing from PyPI", &installed));
        }
        fs::rename(&making, &dir).map_err(Error::io("completing", &dir))?;
        Ok(Self { dir })
    }

    /// Copies it to a container. It names no place but that of Debian's Python, if it is run by its own `python3`.
    pub(super) fn copy(&self, host: &Host) -> Result<()> {
        let to = host.disk()?.join(PLACE.trim_start_matches('/'));
        command::run(Command::new("cp").args(["--archive", "--no-preserve=ownership"]).args([&self.dir, &to]))?;
        host.run(&format!("chmod --recursive a+rX {PLACE}")).map(drop)
    }
}

/// Changed versions are made anew.
fn place(parent: &Path) -> PathBuf {
    let digest = Sha256::digest(REQUIREMENTS);
    parent.join(digest[..4].iter().fold("patroni-".to_owned(), |name, byte| format!("{name}{byte:02x}")))
}

fn missing(what: &str, output: &command::Output) -> Error {
    let told = if output.stderr.trim().is_empty() { &output.stdout } else { &output.stderr };
    let last = told.trim_end().lines().next_back().unwrap_or_default();
    Error::Unsupported(format!("{what}: {}", last.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_is_pinned() {
        let lines = REQUIREMENTS.lines().filter(|line| !line.starts_with('#'));
        assert!(lines.clone().count() > 3 && lines.clone().all(|line| line.contains("==")), "{REQUIREMENTS}");
        assert!(Programs::version().starts_with("4."));
    }

    #[test]
    fn a_failure_is_told_in_one_line() {
        let output = command::Output { code: 1, stdout: String::new(), stderr: "WARNING: a\nERROR: b\n".to_owned() };
        assert_eq!(missing("pip gets nothing", &output).to_string(), "pip gets nothing: ERROR: b");
    }
}
