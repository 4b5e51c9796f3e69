//! One SSH connection per host: connect, prove who both sides are, run commands as root.

mod auth;
pub mod known_hosts;
mod session;

pub use session::{Held, Output, Session, SshError, Trust, quote};
