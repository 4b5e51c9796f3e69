//! Whether the disk under the data directory takes writes: tried from a thread of its own, which may hang with it.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pgha_core::observation::Disk;
use pgha_core::time::{Instant, Millis};
use pgha_guard::clock;

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
        let data_dir = data_dir.to_path_buf();
        std::thread::Builder::new().name("disk".to_owned()).stack_size(64 << 10).spawn(move || {
            let set = |pending, found: Option<Disk>| {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                state.pending = pending;
                state.found = found.unwrap_or(state.found);
            };
            let mut last = Disk::Sound;
            loop {
                set(Some(clock::now()), None);
                let found = look(&data_dir);
                // One failure is none: a query that fills the disk with temporary files fails, and they are gone.
                set(None, Some(if found == last { found } else { Disk::Sound }));
                last = found;
                std::thread::sleep(if found == Disk::Sound { CALM } else { ANXIOUS });
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

fn look(data_dir: &Path) -> Disk {
    // pg_wal may be on a disk of its own.
    let wal = std::fs::canonicalize(data_dir.join("pg_wal")).ok();
    let inside = |wal: &PathBuf| std::fs::canonicalize(data_dir).is_ok_and(|data| wal.starts_with(data));
    let places = [Some(data_dir.to_path_buf()), wal.filter(|wal| !inside(wal))];
    let mut found = places.iter().flatten().filter_map(|dir| place_beside(dir)).map(|place| of(try_write(&place)));
    found.find(|found| *found != Disk::Sound).unwrap_or_default()
}

/// Where to write: beside the directory, where that is on the same disk; a file inside could come between `pg_rewind`, which
/// fails when a file that it is about to remove is gone, and its work. So inside only under a running server.
fn place_beside(dir: &Path) -> Option<PathBuf> {
    let parent = dir.parent()?;
    let same_disk = parent.metadata().ok()?.dev() == dir.metadata().ok()?.dev();
    let may_write = nix::unistd::access(parent, nix::unistd::AccessFlags::W_OK).is_ok();
    if same_disk && may_write {
        return Some(parent.join(".pgha.probe"));
    }
    dir.join("postmaster.pid").exists().then(|| dir.join("pgha.probe"))
}

fn try_write(path: &Path) -> io::Result<()> {
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        file.write_all(&CONTENT)?;
        file.sync_data()
    })();
    let removed = std::fs::remove_file(path);
    written.and(removed)
}

fn of(tried: io::Result<()>) -> Disk {
    use nix::libc::{EDQUOT, EIO, ENOSPC, EROFS};
    match tried.err().and_then(|error| error.raw_os_error()) {
        Some(ENOSPC | EDQUOT) => Disk::Full,
        Some(EROFS | EIO) => Disk::ReadOnly,
        // Too many open files, no right to write, a directory that was taken away: not the disk's fault.
        _ => Disk::Sound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sound_disk_keeps_nothing_of_the_probe() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir_all(data.join("pg_wal")).unwrap();
        assert_eq!(place_beside(&data), Some(dir.path().join(".pgha.probe")));
        assert_eq!(look(&data), Disk::Sound);
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
        assert_eq!(of_errno(nix::libc::EMFILE), Disk::Sound);
    }

    #[test]
    fn a_write_that_does_not_come_back_is_a_disk_that_hangs() {
        let state = Arc::new(Mutex::new(State { pending: Some(Instant(100)), found: Disk::Sound }));
        let probe = Probe { state, patience: Millis(6000) };
        assert_eq!(probe.state(Instant(6099)), Disk::Sound);
        assert_eq!(probe.state(Instant(6100)), Disk::Hung);
    }
}
