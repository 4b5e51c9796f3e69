//! Znode `pgha/timelines`: what the znode `history` cannot say.
//!
//! `history` lists where the ancestors of the current timeline ended, not the timeline's own number. Postgres skips the
//! number of a timeline that it finds in the archive (`findNewestTimeLine`), so the two need not follow on each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::codec::document;
use crate::lsn::Timeline;
use crate::name::NodeName;

/// The cluster's timeline, the numbers that are taken, and who began which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timelines {
    /// The timeline of the newest primary.
    pub newest: Timeline,
    /// The highest number that was ever given to a promotion, whatever became of it. A promotion takes the next one, so
    /// that no two members ever write on timelines of one number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<Timeline>,
    /// The member that began each timeline by a promotion.
    #[serde(default)]
    pub begun_by: BTreeMap<Timeline, NodeName>,
}

document!(Timelines, "znode `pgha/timelines`", "a JSON object with `newest` and `begun_by`");
