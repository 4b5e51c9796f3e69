//! What the dead-man's switch and the agent share: the lease file, the clock that it is written in, the postmaster's process.
//!
//! The guard is a program of its own, and small: all of it is locked in memory, for as long as the host runs.

pub mod clock;
pub mod files;
pub mod heartbeat;
pub mod lease_file;
pub mod postmaster;
pub mod program;
