//! Why a command failed, and the exit code that says so.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use pgha_client::ClientError;

/// An agent that gave no usable answer.
#[derive(Debug)]
pub(crate) struct Unanswered(pub(crate) String);

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line or a configuration file is wrong.
    #[error("{0}")]
    Usage(String),
    /// A configuration file cannot be used.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// Nobody answered.
    #[error("no agent gave a usable answer:{}", list(.0))]
    NoAnswer(Vec<Unanswered>),
    /// An agent refused, or did not answer.
    #[error(transparent)]
    Agent(#[from] ClientError),
    /// The cluster is not in a state in which the command makes sense.
    #[error("{0}")]
    Refused(String),
    /// The person at the keyboard said no.
    #[error("nothing was changed")]
    Declined,
    /// The terminal or the system.
    #[error("{0}")]
    System(#[from] io::Error),
}

impl Failure {
    /// Says why on standard error; gives 2 for mistakes in usage, 1 for everything else.
    pub(crate) fn report(&self) -> ExitCode {
        let reader_left = matches!(self, Self::System(error) if error.kind() == io::ErrorKind::BrokenPipe);
        if !reader_left {
            // With nowhere to say it, the exit code alone must do.
            let _ = writeln!(io::stderr(), "pghactl: {self}");
        }
        match self {
            Self::Usage(_) | Self::File { .. } => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

fn list(unanswered: &[Unanswered]) -> String {
    unanswered.iter().fold(String::new(), |text, agent| format!("{text}\n  {agent}"))
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
