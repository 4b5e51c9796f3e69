//! Znode `failsafe`: the members that must answer a primary that has lost `ZooKeeper`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::codec::document;
use super::member::host_and_port;
use crate::name::NodeName;

/// Members and the addresses of their agents.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Failsafe(pub BTreeMap<NodeName, String>);

impl Failsafe {
    /// Host and port of a member's agent.
    pub fn address(&self, name: &NodeName) -> Option<(String, u16)> {
        host_and_port(self.0.get(name)?, 80)
    }
}

document!(Failsafe, "znode `failsafe`", "a JSON object with a member's name and URL per entry");
