//! The port: systemd keeps it while no agent runs, so that a check which comes then waits for the next one.
//!
//! To a balancer an agent that is killed, upgraded or restarted is a slow one, not one that is gone, and sessions go on. The
//! unit has `FileDescriptorStoreMax=`; what is stored there outlives the process, but not a `systemctl stop`
//! (`sd_pid_notify_with_fds(3)`, `systemd.service(5)`).

use std::io;
use std::net::{TcpListener, ToSocketAddrs as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use listenfd::ListenFd;
use sd_notify::NotifyState;

/// What systemd calls it.
const NAME: &str = "rest";

/// One that was given back to systemd is closed within this.
const CLOSING: Duration = Duration::from_secs(1);

/// The port of the agent before this one, or a new one.
pub(super) fn listen(address: &str) -> io::Result<TcpListener> {
    let listener = match kept(address) {
        Some(listener) => listener,
        None => fresh(address)?,
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// `None` where none was kept, or one of another address.
fn kept(address: &str) -> Option<TcpListener> {
    // One that is something else was not stored by us.
    let listener = ListenFd::from_env().take_tcp_listener(0).ok().flatten()?;
    let at = listener.local_addr().ok()?;
    address.to_socket_addrs().ok()?.any(|wanted| wanted == at).then_some(listener)
}

fn fresh(address: &str) -> io::Result<TcpListener> {
    // One of another address would be given to every later agent first.
    let _ = sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(NAME)]);
    let begun = Instant::now();
    let listener = loop {
        match TcpListener::bind(address) {
            // It is closed a moment later, by systemd.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && begun.elapsed() < CLOSING => {
                std::thread::sleep(Duration::from_millis(20));
            }
            bound => break bound?,
        }
    };
    let stored = sd_notify::notify_with_fds(&[NotifyState::FdStore, NotifyState::FdName(NAME)], &[listener.as_fd()]);
    if let Err(error) = stored {
        tracing::warn!(%error, "systemd does not keep the REST port; a restart of the agent will look like a failure");
    }
    Ok(listener)
}
