//! The cluster's state in ZooKeeper: read whole, write only under a condition.

mod snapshot;
mod zookeeper;

pub(crate) use snapshot::{Documents, Known, understand};
pub(crate) use zookeeper::{Announced, Document, Write, ZooKeeper};

/// Why ZooKeeper did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum DcsError {
    /// Not connected; nothing was sent.
    #[error("not connected to ZooKeeper")]
    Disconnected,
    /// The request was sent and may have been done, or may still be.
    #[error("ZooKeeper did not answer within {0:?}")]
    Timeout(std::time::Duration),
    /// An earlier write was not answered yet; nothing was sent.
    #[error("an earlier write to ZooKeeper is still unanswered")]
    InFlight,
    /// The world has changed since the decision; nothing was done.
    #[error("{0} has changed since it was read")]
    Changed(String),
    /// Anything else.
    #[error("ZooKeeper: {0}")]
    Other(String),
}
