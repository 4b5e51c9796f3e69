//! Documents in ZooKeeper and bodies of REST calls, as Patroni writes them.
//!
//! | module | what it holds |
//! |---|---|
//! | [`paths`] | where each znode lies |
//! | [`plain`] | `leader` and `initialize`, which are text |
//! | [`member`], [`status`], [`sync`], [`failover`], [`history`], [`cluster_config`], [`failsafe`] | Patroni's JSON znodes |
//! | [`epoch`] | pgha's own znode |
//! | [`state`], [`tags`], [`iso_time`] | values that several documents share |
//! | [`merge`] | what `PATCH /config` does |
//! | [`rest`] | bodies of the REST interface |
//!
//! Every `parse` is total: whatever stands in a znode, it gives the document or a [`WireError`].

mod codec;
mod error;

pub mod cluster_config;
pub mod epoch;
pub mod failover;
pub mod failsafe;
pub mod history;
pub mod iso_time;
pub mod member;
pub mod merge;
pub mod paths;
pub mod plain;
pub mod rest;
pub mod state;
pub mod status;
pub mod sync;
pub mod tags;
pub mod timelines;

pub use cluster_config::{ClusterConfig, ClusterSettings, SynchronousMode};
pub use epoch::EpochDoc;
pub use error::WireError;
pub use failover::FailoverRequest;
pub use failsafe::Failsafe;
pub use history::{History, HistoryLine};
pub use iso_time::{IsoTime, ParseIsoTimeError};
pub use member::{Member, ScheduledRestart, ValueChange};
pub use merge::merge_patch;
pub use paths::Paths;
pub use plain::{Initialize, LeaderName};
pub use rest::{ClusterView, PatroniStatus, PghaStatus};
pub use state::{MemberRole, MemberState};
pub use status::Status;
pub use sync::SyncState;
pub use tags::MemberTags;
pub use timelines::Timelines;

#[cfg(test)]
mod tests;
