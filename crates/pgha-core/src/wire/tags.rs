//! What a member may become, in Patroni's words.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::codec;
use crate::config::Tags;

/// A member's tags; those that pgha does not know are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemberTags(pub Map<String, Value>);

impl MemberTags {
    /// Whether there are none, so that the key is left out.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Never promoted: `nofailover`, or a `failover_priority` of 0 or less (`nofailover` counts where both are given).
    pub fn nofailover(&self) -> bool {
        match self.flag("nofailover") {
            Some(refused) => refused,
            None => self.failover_priority() == 0,
        }
    }

    /// Among equals the greater one is promoted; 1 unless said otherwise.
    pub fn failover_priority(&self) -> u32 {
        self.priority("failover_priority")
    }

    /// Of several standbys the greater one is synchronous; 1 unless said otherwise.
    pub fn sync_priority(&self) -> u32 {
        self.priority("sync_priority")
    }

    fn priority(&self, name: &str) -> u32 {
        match self.0.get(name) {
            None | Some(Value::Null) => 1,
            Some(Value::Number(number)) if number.as_i64().is_some_and(|number| number <= 0) => 0,
            Some(other) => codec::whole_number(other).and_then(|number| u32::try_from(number).ok()).unwrap_or(1),
        }
    }

    /// Not offered to readers by the balancer.
    pub fn noloadbalance(&self) -> bool {
        self.flag("noloadbalance").unwrap_or(false)
    }

    /// Preferred as the source of new members.
    pub fn clonefrom(&self) -> bool {
        self.flag("clonefrom").unwrap_or(false)
    }

    /// Never a synchronous standby: `nosync`, or a `sync_priority` of 0 or less (`nosync` counts where both are given).
    pub fn nosync(&self) -> bool {
        self.flag("nosync").unwrap_or_else(|| self.sync_priority() == 0)
    }

    /// Does not stream at all; restores from the archive.
    pub fn nostream(&self) -> bool {
        self.flag("nostream").unwrap_or(false)
    }

    /// The member that it streams from in place of the leader.
    pub fn replicatefrom(&self) -> Option<&str> {
        self.0.get("replicatefrom").and_then(Value::as_str)
    }

    fn flag(&self, name: &str) -> Option<bool> {
        self.0.get(name).and_then(codec::truth)
    }
}

impl From<&Tags> for MemberTags {
    fn from(tags: &Tags) -> Self {
        let set = [
            ("nofailover", tags.nofailover),
            ("noloadbalance", tags.noloadbalance),
            ("clonefrom", tags.clonefrom),
            ("nosync", tags.nosync),
            ("nostream", tags.nostream),
        ];
        let set = set.into_iter().filter(|(_, on)| *on).map(|(name, on)| (name.to_owned(), Value::Bool(on)));
        let priorities = [("failover_priority", tags.failover_priority), ("sync_priority", tags.sync_priority)];
        let priorities = priorities.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into())));
        let relay = tags.replicatefrom.iter().map(|name| ("replicatefrom".to_owned(), name.as_str().into()));
        Self(set.chain(priorities).chain(relay).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tags(value: Value) -> MemberTags {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn nofailover_and_priority_agree() {
        assert!(!tags(json!({})).nofailover());
        assert!(tags(json!({"nofailover": true})).nofailover());
        assert!(tags(json!({"failover_priority": 0})).nofailover());
        assert!(tags(json!({"failover_priority": -3})).nofailover());
        assert!(!tags(json!({"failover_priority": 2})).nofailover());
        assert!(!tags(json!({"nofailover": false, "failover_priority": 0})).nofailover());
        assert!(tags(json!({"nofailover": "yes"})).nofailover());
        assert!(tags(json!({"sync_priority": 0})).nosync());
        assert!(!tags(json!({"nosync": false, "sync_priority": 0})).nosync());
    }

    #[test]
    fn configured_tags_are_written_only_when_set() {
        let configured = Tags { nosync: true, ..Tags::default() };
        assert_eq!(MemberTags::from(&configured), tags(json!({"nosync": true})));
        let configured = Tags { sync_priority: Some(3), failover_priority: Some(0), ..Tags::default() };
        assert_eq!(MemberTags::from(&configured), tags(json!({"failover_priority": 0, "sync_priority": 3})));
    }
}
