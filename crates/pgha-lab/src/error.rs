//! What can go wrong in the lab, each with what was attempted and what to try.

use std::{io, path::Path, time::Duration};

/// The result of every lab operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed lab operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or system call.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted, on which path.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// An external command ended with an error.
    #[error("`{command}` failed ({status}){}", detail(.output))]
    Command {
        /// The command line, without secrets.
        command: String,
        /// Exit code or signal.
        status: String,
        /// The end of what it printed.
        output: String,
    },
    /// The machine lacks something the lab needs.
    #[error("{0}")]
    Unsupported(String),
    /// Another lab is running.
    #[error("{0}")]
    Busy(String),
    /// No lab, or no such host in it, or a host in the wrong state.
    #[error("{0}")]
    State(String),
    /// The system under test did what it must not do.
    #[error("{0}")]
    Broken(String),
    /// Something did not happen in time.
    #[error("{what} did not happen within {} s{}", .waited.as_secs(), detail(.hint))]
    Timeout {
        /// What was awaited, on which host.
        what: String,
        /// For how long.
        waited: Duration,
        /// What was seen instead.
        hint: String,
    },
    /// A database client inside the lab failed.
    #[error("{what}: {why}")]
    Database {
        /// What was asked, of which server.
        what: String,
        /// The server's or the network's answer.
        why: String,
        /// SQLSTATE where the server gave one.
        code: Option<String>,
    },
}

impl Error {
    /// For `map_err` on input and output of a path.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let what = format!("{what} {}", path.display());
        move |source| Self::Io { what, source }
    }

    /// An error unless the system under test did as it must.
    pub(crate) fn unless(held: bool, broken: impl FnOnce() -> String) -> Result<()> {
        if held { Ok(()) } else { Err(Self::Broken(broken())) }
    }

    /// For `map_err` on system calls of nix.
    pub(crate) fn errno(what: impl Into<String>) -> impl FnOnce(nix::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source: source.into() }
    }
}

fn detail(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() { String::new() } else { format!(":\n{text}") }
}
