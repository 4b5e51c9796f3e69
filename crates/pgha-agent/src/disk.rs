//! Whether the disk under the data directory takes writes: tried from a thread of its own, which may hang with it.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pgha_core::observation::Disk;
use pgha_core::time::{Instant, Millis};

use crate::clock;

/// While all is well: each try is a write that the disk has to take.
const CALM: Duration = Duration::from_secs(5);
/// While it is not.
const ANXIOUS: Duration = Duration::from_secs(1);
/// What is written: as much as a file system cannot keep beside its inode.
static CONTENT: [u8; 64 << 10] = [0x5A; 64 << 10];

/// The probe.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    state: Arc<Mutex<State>>,
    patience: Millis,
}

#[derive(Debug, Default)]
struct State {
    /// A write that has not come back.
    pending: Option<Instant>,
    found: Disk,
}

impl Probe {
    /// Begins to probe; a write that does not come back within `patience` counts as a disk that hangs.
    pub(crate) fn begin(data_dir: &Path, patience: Millis) -> io::Result<Self> {
        let state = Arc::new(Mutex::new(State::default()));
        let probe = Self { state: state.clone(), patience };
        // pg_wal may be on a disk of its own.
        let places = [data_dir.to_path_buf(), data_dir.join("pg_wal")];
        std::thread::Builder::new().name("disk".to_owned()).stack_size(64 << 10).spawn(move || {
            loop {
                let set = |pending, found: Option<Disk>| {
                    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                    state.pending = pending;
                    state.found = found.unwrap_or(state.found);
                };
                set(Some(clock::now()), None);
                let found = places.iter().map(|place| look(place)).find(|found| *found != Disk::Sound);
                set(None, Some(found.unwrap_or_default()));
                std::thread::sleep(if found.is_none() { CALM } else { ANXIOUS });
            }
        })?;
        Ok(probe)
    }

    /// What was found last.
    pub(crate) fn state(&self, now: Instant) -> Disk {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.pending {
            Some(since) if now.since(since) >= self.patience => Disk::Hung,
            _ => state.found,
        }
    }
}

fn look(dir: &Path) -> Disk {
    // While there is no data there is nothing to write to; a directory that is being copied is left alone.
    if !dir.join("PG_VERSION").exists() && !dir.join("archive_status").exists() {
        return Disk::Sound;
    }
    let found = of(try_write(&dir.join("pgha.probe")));
    if found != Disk::Sound {
        tracing::debug!(dir = %dir.display(), ?found, "the disk takes no writes");
    }
    found
}

fn try_write(path: &PathBuf) -> io::Result<()> {
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        file.write_all(&CONTENT)?;
        file.sync_data()
    })();
    let removed = std::fs::remove_file(path);
    written.and(removed)
}

fn of(tried: io::Result<()>) -> Disk {
    use io::ErrorKind::{NotFound, PermissionDenied, QuotaExceeded, StorageFull};
    match tried {
        Ok(()) => Disk::Sound,
        Err(error) => match error.kind() {
            StorageFull | QuotaExceeded => Disk::Full,
            // The directory was taken away meanwhile, or is not ours: Postgres has its own words for that.
            NotFound | PermissionDenied => Disk::Sound,
            _ => Disk::ReadOnly,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sound_disk_keeps_nothing_of_the_probe() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("PG_VERSION"), "15").unwrap();
        assert_eq!(look(dir.path()), Disk::Sound);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(look(&dir.path().join("gone")), Disk::Sound);
    }

    #[test]
    fn errors_are_told_apart() {
        let of_errno = |errno| of(Err(io::Error::from_raw_os_error(errno)));
        assert_eq!(of_errno(nix::libc::ENOSPC), Disk::Full);
        assert_eq!(of_errno(nix::libc::EDQUOT), Disk::Full);
        assert_eq!(of_errno(nix::libc::EROFS), Disk::ReadOnly);
        assert_eq!(of_errno(nix::libc::EIO), Disk::ReadOnly);
    }

    #[test]
    fn a_write_that_does_not_come_back_is_a_disk_that_hangs() {
        let state = Arc::new(Mutex::new(State { pending: Some(Instant(100)), found: Disk::Sound }));
        let probe = Probe { state, patience: Millis(6000) };
        assert_eq!(probe.state(Instant(6099)), Disk::Sound);
        assert_eq!(probe.state(Instant(6100)), Disk::Hung);
    }
}
