//! The rules of pgha: types, documents and decisions. No I/O, no clock, no async.
//!
//! | module | what it is |
//! |---|---|
//! | [`decide`] | the HA policy: [`observation::Observation`] in, [`decide::Decision`] out |
//! | [`observation`], [`action`], [`reason`] | the words it is written in |
//! | [`lease`], [`timing`], [`time`] | how long a primary may serve |
//! | [`sync`] | synchronous standbys, one safe step at a time |
//! | [`rejoin`] | start, rewind or copy |
//! | [`wire`] | documents in ZooKeeper and bodies of REST calls, as Patroni writes them |
//! | [`journal`] | what was observed and decided, written down to be decided again |
//! | [`waldump`] | what was committed in a stretch of WAL |
//! | [`config`] | `agent.toml`, shared by the installer that writes it and the agent that reads it |
//! | [`name`], [`lsn`] | names, WAL positions, timelines |

#![forbid(unsafe_code)]

pub mod action;
pub mod config;
pub mod decide;
pub mod journal;
pub mod lease;
pub mod lsn;
pub mod name;
pub mod observation;
pub mod pulse;
pub mod reason;
pub mod rejoin;
pub mod restart;
pub mod sync;
pub mod time;
pub mod timing;
pub mod waldump;
pub mod wire;
