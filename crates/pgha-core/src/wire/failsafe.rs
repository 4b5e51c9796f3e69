//! Znode `failsafe`: the members that must answer a primary that has lost `ZooKeeper`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::codec::document;
use crate::name::NodeName;

/// Members and the addresses of their agents.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Failsafe(pub BTreeMap<NodeName, String>);

document!(Failsafe, "znode `failsafe`", "a JSON object with a member's name and URL per entry");
