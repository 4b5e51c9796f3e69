//! Small honest models of what an agent lives with. Each knows the faults of the real thing that decisions must survive.

pub mod archive;
pub mod network;
pub mod postgres;
pub mod slots;
pub mod wal;
pub mod zookeeper;
