//! Our own programs, which the installer carries to the database hosts.

use std::io;
use std::path::{Path, PathBuf};

use crate::resource::Content;

/// The programs.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `pgha-agent`.
    pub agent: Content,
    /// `pgha-guard`.
    pub guard: Content,
    /// `pghactl`.
    pub pghactl: Content,
    /// What the kernel calls the machine that they are for (`uname -m`).
    pub machine: Option<&'static str>,
}

/// A program that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It cannot be read.
    #[error("cannot read {}: {source}; put it beside pgha-install, or name its directory with --programs", path.display())]
    Unreadable {
        /// Where it was looked for.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no program for Linux.
    #[error("{} is not a Linux program (ELF)", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// They are for different machines.
    #[error("the programs in {} are built for different machines", directory.display())]
    Mixed {
        /// Where they are.
        directory: PathBuf,
    },
}

impl Programs {
    /// Reads them from a directory; without one from where the installer is.
    pub fn load(directory: Option<&Path>) -> Result<Self, ProgramError> {
        let directory = match directory {
            Some(directory) => directory.to_owned(),
            None => std::env::current_exe()
                .ok()
                .and_then(|own| own.parent().map(Path::to_owned))
                .unwrap_or_else(|| PathBuf::from(".")),
        };
        let (agent, machine) = read(&directory.join("pgha-agent"))?;
        let (guard, guards) = read(&directory.join("pgha-guard"))?;
        let (pghactl, pghactls) = read(&directory.join("pghactl"))?;
        if machine != guards || machine != pghactls {
            return Err(ProgramError::Mixed { directory });
        }
        Ok(Self { agent, guard, pghactl, machine })
    }
}

fn read(path: &Path) -> Result<(Content, Option<&'static str>), ProgramError> {
    let bytes = std::fs::read(path).map_err(|source| ProgramError::Unreadable { path: path.to_owned(), source })?;
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
