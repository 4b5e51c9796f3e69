//! The controller's side: the inventory, the programs, and what they print.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use pgha_lab::{Host, Lab};
use tempfile::TempDir;

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

pub(crate) struct Site<'a> {
    pub(crate) lab: &'a Lab,
    directory: TempDir,
    text: String,
}

/// What a program said, and how it ended.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    /// Standard output, then standard error.
    pub(crate) text: String,
}

impl<'a> Site<'a> {
    /// Copies the inventory, so that the secrets of a test do not become those of a demonstration.
    pub(crate) fn new(lab: &'a Lab) -> Result<Self> {
        let original = Path::new(REPOSITORY).join("inventory/lab.toml");
        let text = fs::read_to_string(&original).with_context(|| format!("reading {}", original.display()))?;
        let directory = tempfile::tempdir()?;
        fs::write(directory.path().join("lab.toml"), &text)?;
        Ok(Self { lab, directory, text })
    }

    pub(crate) fn inventory(&self) -> PathBuf {
        self.file("lab.toml")
    }

    pub(crate) fn secrets(&self) -> PathBuf {
        self.file("lab.secrets.toml")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The inventory with one place changed, under another name.
    pub(crate) fn variant(&self, name: &str, from: &str, to: &str) -> Result<PathBuf> {
        ensure!(self.text.contains(from), "the inventory has no `{from}` to change");
        let path = self.file(name);
        fs::write(&path, self.text.replace(from, to))?;
        Ok(path)
    }

    /// Every file of the inventory's directory.
    pub(crate) fn files(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.directory.path())? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// Runs the installer on the controller, with nobody there to be asked.
    pub(crate) fn install(&self, inventory: &Path, options: &[&str]) -> Result<Said> {
        let programs =
            env::var_os("PGHA_BIN_DIR").map_or_else(|| Path::new(REPOSITORY).join("target/release"), PathBuf::from);
        let program = programs.join("pgha-install");
        ensure!(
            program.exists(),
            "{} is missing: cargo build --release, or name another directory in PGHA_BIN_DIR",
            program.display()
        );
        said(self.lab.controller(program).arg(inventory).args(options), "")
    }
}

/// Runs a script on a host, as root, with `input` on its standard input.
pub(crate) fn feed(host: &Host, script: &str, input: &str) -> Result<Said> {
    said(host.command("bash")?.args(["-c", script]), input)
}

fn said(command: &mut Command, input: &str) -> Result<Said> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", command.get_program().display()))?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok(Said { code: output.status.code(), text: text.concat() })
}
