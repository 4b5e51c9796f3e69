//! Work inside the lab's network namespace, from this process.

use std::{fs::File, path::Path, thread};

use nix::sched::{CloneFlags, setns};

use crate::{Error, Result, topology::NAMESPACE};

/// Runs `work` on a thread of its own inside the lab's network, where hosts are reached by address.
///
/// Only that thread is inside: an async runtime within must be a `current_thread` one.
pub fn within<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| match scope.spawn(|| enter().map(|()| work())).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Moves the calling thread into the lab's network, for good.
pub(crate) fn enter() -> Result<()> {
    enter_named(NAMESPACE)
}

/// Moves the calling thread into another network namespace.
pub(crate) fn enter_named(name: &str) -> Result<()> {
    let path = Path::new("/run/netns").join(name);
    let namespace = File::open(&path).map_err(Error::io("entering a network", &path))?;
    setns(namespace, CloneFlags::CLONE_NEWNET).map_err(Error::errno(format!("entering network {name}")))
}
