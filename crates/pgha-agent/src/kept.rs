//! What systemd keeps open for the agent that comes next, while none runs.
//!
//! The unit has `FileDescriptorStoreMax=`. What is stored outlives the process, be it killed, upgraded or restarted, but not
//! a `systemctl stop` (`sd_pid_notify_with_fds(3)`, `systemd.service(5)`).

use std::io;
use std::net::TcpListener;
use std::os::fd::{BorrowedFd, RawFd};

use listenfd::ListenFd;
use sd_notify::NotifyState;

/// Name of the REST port's listener.
pub(crate) const REST: &str = "rest";
/// Name of the kernel watchdog.
pub(crate) const WATCHDOG: &str = "watchdog";

/// What the agent before this one has left.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) rest: Option<TcpListener>,
    /// Open and owned by nobody else; a new process of ours does not inherit it.
    pub(crate) watchdog: Option<RawFd>,
}

/// Once, and before there is another thread: the environment that tells of it is changed.
pub(crate) fn take() -> Kept {
    let names: Vec<String> =
        sd_notify::listen_fds_with_names().map(|fds| fds.map(|(_, name)| name).collect()).unwrap_or_default();
    let mut fds = ListenFd::from_env();
    let index = |wanted: &str| names.iter().position(|name| name == wanted);
    Kept {
        // What is something else was not stored by us.
        rest: index(REST).and_then(|index| fds.take_tcp_listener(index).ok().flatten()),
        watchdog: index(WATCHDOG).and_then(|index| fds.take_raw_fd(index).ok().flatten()),
    }
}

/// Has systemd keep it. Without systemd nobody does, which is no error.
pub(crate) fn store(name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
    sd_notify::notify_with_fds(&[NotifyState::FdStore, NotifyState::FdName(name)], &[fd])
}

/// Has systemd close what it keeps under that name.
pub(crate) fn forget(name: &str) {
    let _ = sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
}
