//! Postgres' own programs, run to their end.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use super::JobError;

/// What a program printed.
#[derive(Debug)]
pub(super) struct Printed {
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// A program that ended badly.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error("cannot run {program}: {source}")]
    Start { program: String, source: std::io::Error },
    #[error("{program} ended with {status}: {stderr}")]
    Status { program: String, status: std::process::ExitStatus, stderr: String },
}

impl From<RunError> for JobError {
    fn from(error: RunError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Runs it; given up, it is killed.
pub(super) async fn run(program: &Path, args: &[&str]) -> Result<Printed, RunError> {
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let output = Command::new(program)
        .args(args)
        .env("LC_MESSAGES", "C")
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|source| RunError::Start { program: name.clone(), source })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    if output.status.success() {
        Ok(Printed { stdout, stderr })
    } else {
        Err(RunError::Status { program: name, status: output.status, stderr })
    }
}
