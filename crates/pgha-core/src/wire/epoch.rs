//! Znode `pgha/epoch`: which leadership this is.

use serde::{Deserialize, Serialize};

use super::codec::document;
use crate::name::{Epoch, NodeName};

/// The number of the newest leadership and who began it. Persistent; changed only together with `leader`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochDoc {
    /// The leadership.
    pub epoch: Epoch,
    /// Who began it.
    pub leader: NodeName,
    /// It was given back: nobody serves under it any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub released: bool,
}

document!(EpochDoc, "znode `pgha/epoch`", "a JSON object with `epoch` and `leader`");
