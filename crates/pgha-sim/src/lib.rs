//! The cluster in one thread: the real core of pgha in a world of virtual time, where everything fails.
//!
//! | module | what it is |
//! |---|---|
//! | [`scenario`] | a seed becomes a cluster and a list of faults |
//! | [`world`], [`event`], [`time`] | virtual time, and what happens in it |
//! | [`model`] | small honest models: ZooKeeper, Postgres, its WAL, the network |
//! | [`agent`] | the shell around `decide`: observe, decide, execute, publish |
//! | `ensemble`, `database`, `archive`, `slots`, `machine` | the models at work |
//! | `fault`, [`mishap`] | what machines and people do to them |
//! | [`oracle`], [`invariant`] | what clients were told, and what must hold |
//! | [`mutant`] | faults in the code that the simulator must find |
//! | [`history`], [`shrink`], [`reach`] | running one, making it small, and what was reached |
//! | [`replay`] | what agents in the field have decided, decided again |

#![forbid(unsafe_code)]

pub mod agent;
mod archive;
mod database;
mod ensemble;
pub mod event;
mod fault;
pub mod history;
pub mod invariant;
#[doc(hidden)]
pub mod journal;
mod machine;
pub mod mishap;
pub mod model;
pub mod mutant;
pub mod oracle;
pub mod reach;
pub mod replay;
pub mod scenario;
pub mod shrink;
mod slots;
pub mod time;
pub mod world;
