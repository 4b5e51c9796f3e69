//! The port: systemd keeps it while no agent runs, so that a check which comes then waits for the next one.
//!
//! To a balancer an agent that is killed, upgraded or restarted is a slow one, not one that is gone, and sessions go on.

use std::io;
use std::net::{TcpListener, ToSocketAddrs as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use crate::kept;

/// One that was given back to systemd is closed within this.
const CLOSING: Duration = Duration::from_secs(1);

/// The port of the agent before this one, or a new one.
pub(super) fn listen(address: &str, kept: Option<TcpListener>) -> io::Result<TcpListener> {
    let listener = match kept.filter(|listener| is_at(listener, address)) {
        Some(listener) => listener,
        None => fresh(address)?,
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn is_at(listener: &TcpListener, address: &str) -> bool {
    let at = listener.local_addr();
    at.is_ok_and(|at| address.to_socket_addrs().is_ok_and(|mut wanted| wanted.any(|wanted| wanted == at)))
}

fn fresh(address: &str) -> io::Result<TcpListener> {
    // One of another address would be given to every later agent first.
    kept::forget(kept::REST);
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
    if let Err(error) = kept::store(kept::REST, listener.as_fd()) {
        tracing::warn!(%error, "systemd does not keep the REST port; a restart of the agent will look like a failure");
    }
    Ok(listener)
}
