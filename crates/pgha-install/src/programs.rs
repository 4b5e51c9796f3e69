//! Our own programs, which the installer carries to the database hosts.

use std::io;
use std::path::{Path, PathBuf};

use crate::resource::Content;

/// The programs.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `pgha-agent`.
    pub agent: Content,
    /// `pghactl`.
    pub pghactl: Content,
    /// What the kernel calls the machine that they are for (`uname -m`).
    pub machine: Option<&'static str>,
}

/// A program that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It cannot be read.
    #[error("cannot read {}: {source}; name it with {flag}, or put it beside pgha-install", path.display())]
    Unreadable {
        /// Where it was looked for.
        path: PathBuf,
        /// The flag that says where it is.
        flag: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It is no program for Linux.
    #[error("{} is not a Linux program (ELF)", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The two are for different machines.
    #[error("pgha-agent and pghactl are built for different machines")]
    Mixed,
}

impl Programs {
    /// Reads both; without a path each is looked for beside the installer.
    pub fn load(agent: Option<&Path>, pghactl: Option<&Path>) -> Result<Self, ProgramError> {
        let beside = |name: &str| {
            std::env::current_exe()
                .ok()
                .and_then(|own| own.parent().map(|parent| parent.join(name)))
                .unwrap_or_else(|| PathBuf::from(name))
        };
        let path = agent.map_or_else(|| beside("pgha-agent"), Path::to_owned);
        let (agent, machine) = read(&path, "--agent-binary")?;
        let path = match pghactl {
            Some(path) => path.to_owned(),
            None => path
                .parent()
                .map(|parent| parent.join("pghactl"))
                .filter(|path| path.exists())
                .unwrap_or_else(|| beside("pghactl")),
        };
        let (pghactl, other) = read(&path, "--pghactl-binary")?;
        if machine != other {
            return Err(ProgramError::Mixed);
        }
        Ok(Self { agent, pghactl, machine })
    }
}

fn read(path: &Path, flag: &'static str) -> Result<(Content, Option<&'static str>), ProgramError> {
    let bytes =
        std::fs::read(path).map_err(|source| ProgramError::Unreadable { path: path.to_owned(), flag, source })?;
    if !bytes.starts_with(b"\x7fELF") {
        return Err(ProgramError::Foreign { path: path.to_owned() });
    }
    // e_machine of the ELF header: two bytes at offset 18, in the byte order of the file (both are little-endian here).
    let machine = match bytes.get(18..20) {
        Some([62, 0]) => Some("x86_64"),
        Some([183, 0]) => Some("aarch64"),
        _ => None,
    };
    Ok((Content::new(bytes), machine))
}
