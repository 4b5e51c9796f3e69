//! Locks between processes; the kernel lets go of them when their owner dies, however it dies.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::Path,
};

use crate::{Error, Result};

/// Held until dropped.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "its closing is the unlocking")] File);

impl Lock {
    /// Takes the lock or says who has it.
    pub(crate) fn take(path: &Path, what: &str) -> Result<Self> {
        let mut file = open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                file.read_to_string(&mut owner).map_err(Error::io("reading", path))?;
                return Err(Error::Busy(format!("{what} is in use by {}; wait for it or stop it", owner.trim())));
            }
            Err(TryLockError::Error(source)) => return Err(Error::io("locking", path)(source)),
        }
        sign(&mut file).map_err(Error::io("writing", path))?;
        Ok(Self(file))
    }

    /// Takes the lock, waiting for whoever has it.
    pub(crate) fn wait(path: &Path) -> Result<Self> {
        let mut file = open(path)?;
        file.lock().map_err(Error::io("locking", path))?;
        sign(&mut file).map_err(Error::io("writing", path))?;
        Ok(Self(file))
    }
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(Error::io("opening", path))
}

fn sign(file: &mut File) -> std::io::Result<()> {
    let command = std::env::args().collect::<Vec<_>>().join(" ");
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "process {} ({command})", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_was_first() {
        let path = std::env::temp_dir().join(format!("pgha-lab-lock-{}", std::process::id()));
        let first = Lock::take(&path, "the lab").expect("free");
        let refused = Lock::take(&path, "the lab").expect_err("taken").to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(first);
        Lock::take(&path, "the lab").expect("free again");
        std::fs::remove_file(path).expect("it exists");
    }
}
