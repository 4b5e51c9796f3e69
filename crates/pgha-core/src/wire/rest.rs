//! Bodies of the REST interface.
//!
//! `GET /patroni` is [`PatroniStatus`], `GET /cluster` is [`ClusterView`], `GET /pgha` is [`PghaStatus`],
//! `GET /pgha/discarded` is [`DiscardedList`], `GET /history` is [`History`](super::History), `GET /config` is
//! [`ClusterConfig`](super::ClusterConfig)'s document.

mod cluster;
mod discarded;
mod pgha;
mod request;
mod status;

pub use cluster::{ClusterDocs, ClusterView, Lag, MemberView, Position, ScheduledSwitchover, ViewRole};
pub use discarded::{Discarded, DiscardedList, DiscardedTransaction};
pub use pgha::PghaStatus;
pub use request::{FailsafeBody, RestartBody, SwitchoverBody};
pub use status::{About, PatroniStatus, Replication, Xlog};
