//! Locks between processes; the kernel lets go of them when their owner dies, however it dies.
//!
//! They are record locks of `fcntl`, which belong to one process. Those of `flock` belong to an open file, and so also
//! to a child between its fork and its exec: it would hold on to the lock of an owner that was killed at that moment.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{Seek, Write},
    path::{Path, PathBuf},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    fs::{FlockOperation, fcntl_lock},
    io::Errno,
};

use crate::{Error, Result};

/// What this process holds: to the kernel a second lock of the same process is the first one, and the closing of either
/// file ends both.
static HELD: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
static RELEASED: Condvar = Condvar::new();

/// Held until dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    /// Its closing is the unlocking.
    file: Option<File>,
}

impl Lock {
    /// Takes the lock or says who has it.
    pub(crate) fn take(path: &Path, what: &str) -> Result<Self> {
        let mut held = held();
        let owner = if held.contains(path) {
            // Not read from the file, whose closing would unlock it.
            signature()
        } else {
            let file = open(path)?;
            match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Self::sign(file, path, &mut held),
                Err(Errno::ACCESS | Errno::AGAIN) => {}
                Err(source) => return Err(Error::io("locking", path)(source.into())),
            }
            fs::read_to_string(path).map_err(Error::io("reading", path))?
        };
        Err(Error::Busy(format!("{what} is in use by {}; wait for it or stop it", owner.trim())))
    }

    /// Takes the lock, waiting for whoever has it.
    pub(crate) fn wait(path: &Path) -> Result<Self> {
        let mut held = held();
        while held.contains(path) {
            held = RELEASED.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        // Ours among threads from here on; among processes it may take a while, and other locks are not to wait for it.
        held.insert(path.to_owned());
        drop(held);
        let locked = open(path).and_then(|file| {
            fcntl_lock(&file, FlockOperation::LockExclusive)
                .map_err(|source| Error::io("locking", path)(source.into()))?;
            Ok(file)
        });
        let mut held = self::held();
        held.remove(path);
        Self::sign(locked?, path, &mut held)
    }

    /// Leaves the owner's name for whoever comes next.
    fn sign(mut file: File, path: &Path, held: &mut BTreeSet<PathBuf>) -> Result<Self> {
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", signature()))
            .map_err(Error::io("writing", path))?;
        held.insert(path.to_owned());
        Ok(Self { path: path.to_owned(), file: Some(file) })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut held = held();
        self.file = None;
        held.remove(&self.path);
        RELEASED.notify_all();
    }
}

fn signature() -> String {
    format!("process {} ({})", std::process::id(), std::env::args().collect::<Vec<_>>().join(" "))
}

fn held() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(Error::io("opening", path))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::MetadataExt, thread, time::Duration};

    use super::*;

    fn path(of: &str) -> PathBuf {
        std::env::temp_dir().join(format!("pgha-lab-lock-{of}-{}", std::process::id()))
    }

    #[test]
    fn the_second_is_told_who_was_first() {
        let path = path("told");
        let first = Lock::take(&path, "the lab").expect("free");
        let refused = Lock::take(&path, "the lab").expect_err("taken").to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(first);
        Lock::take(&path, "the lab").expect("free again");
        fs::remove_file(path).expect("it exists");
    }

    #[test]
    fn it_belongs_to_this_process_and_not_to_its_children() {
        let path = path("owner");
        let lock = Lock::take(&path, "the lab").expect("free");
        let inode = fs::metadata(&path).expect("it exists").ino();
        let locks = fs::read_to_string("/proc/locks").expect("Linux has it");
        let ours = locks.lines().find(|line| line.contains(&format!(":{inode} "))).expect("it is listed");
        assert!(ours.contains("POSIX") && ours.contains(&format!(" {} ", std::process::id())), "{ours}");
        drop(lock);
        fs::remove_file(path).expect("it exists");
    }

    #[test]
    fn threads_wait_for_each_other() {
        let path = path("wait");
        let first = Lock::wait(&path).expect("free");
        let waiting = thread::spawn({
            let path = path.clone();
            move || drop(Lock::wait(&path).expect("it comes"))
        });
        thread::sleep(Duration::from_millis(50));
        assert!(!waiting.is_finished(), "two threads have one lock");
        drop(first);
        waiting.join().expect("it ends");
        fs::remove_file(path).expect("it exists");
    }
}
