//! Where the reports of chores go: `report.md` for readers, `report.json` for programs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;

use crate::shell;

/// Where a chore's report goes.
#[derive(Args)]
pub(crate) struct Place {
    /// Where report.md and report.json go [default: a directory of the chore's name in target]
    #[arg(long, value_name = "DIRECTORY")]
    into: Option<PathBuf>,
}

impl Place {
    /// The directory; the chore's name is that of the usual one.
    pub(crate) fn directory(&self, chore: &str) -> Result<PathBuf> {
        let directory = match &self.into {
            Some(directory) => std::path::absolute(directory)?,
            None => shell::target_directory()?.join(chore),
        };
        fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
        Ok(directory)
    }
}

/// Writes both forms.
pub(crate) fn write(directory: &Path, markdown: String, report: &impl Serialize) -> Result<()> {
    let json = serde_json::to_string_pretty(report).context("describing the report")?;
    for (name, text) in [("report.md", markdown), ("report.json", json)] {
        let file = directory.join(name);
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}
