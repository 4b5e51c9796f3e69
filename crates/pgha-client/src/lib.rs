//! Talks to an agent's REST interface: every call has a deadline, every answer a size limit, every failure a cause.

#![forbid(unsafe_code)]

mod client;
mod error;
mod exchange;

pub use client::{Answer, Client, Deadlines};
pub use error::ClientError;
