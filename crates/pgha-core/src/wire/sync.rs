//! Znode `sync`: who may take over in synchronous mode.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::WireError;
use super::codec;
use crate::name::NodeName;

/// Who may take over in synchronous mode.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SyncState {
    /// The leader that wrote it; `None` when synchronous mode is off or has not begun.
    pub leader: Option<NodeName>,
    /// How many of leader and standbys a candidate must see besides itself (quorum mode).
    pub quorum: u32,
    /// The standbys that have every acknowledged commit (quorum mode: that may have).
    pub sync_standby: BTreeSet<NodeName>,
}

#[derive(Serialize, Deserialize)]
struct Raw {
    #[serde(default)]
    leader: Option<String>,
    #[serde(default)]
    quorum: Option<u32>,
    #[serde(default)]
    sync_standby: Option<String>,
}

impl SyncState {
    /// Reads the znode; nothing, `null` and `{}` are the empty state.
    ///
    /// Garbage is an error and not the empty state: the empty state lets every member take over.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let (document, expected) = ("znode `sync`", "a JSON object with `leader` and `sync_standby`");
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let Some(raw) = codec::read::<Option<Raw>>(document, expected, bytes)? else {
            return Ok(Self::default());
        };
        let name = |name: &str| {
            NodeName::try_from(name).map_err(|error| WireError { document, expected, problem: error.to_string() })
        };
        let Some(leader) = raw.leader.as_deref().filter(|leader| !leader.is_empty()) else {
            return Ok(Self::default());
        };
        let listed = raw.sync_standby.as_deref().unwrap_or_default().split(',');
        let standbys = listed.map(str::trim).filter(|standby| !standby.is_empty());
        Ok(Self {
            leader: Some(name(leader)?),
            quorum: raw.quorum.unwrap_or(0),
            sync_standby: standbys.map(name).collect::<Result<_, _>>()?,
        })
    }

    /// Writes the znode.
    pub fn render(&self) -> Vec<u8> {
        let Some(leader) = &self.leader else {
            return b"{}".to_vec();
        };
        let standbys: Vec<&str> = self.sync_standby.iter().map(NodeName::as_str).collect();
        codec::write(&Raw {
            leader: Some(leader.to_string()),
            quorum: Some(self.quorum),
            sync_standby: (!standbys.is_empty()).then(|| standbys.join(",")),
        })
    }

    /// Whether it says anything.
    pub fn is_empty(&self) -> bool {
        self.leader.is_none()
    }

    /// Whether `name` is one of the standbys, in any case: so does Postgres compare `synchronous_standby_names`.
    pub fn has_standby(&self, name: &NodeName) -> bool {
        let same = |standby: &NodeName| standby.as_str().eq_ignore_ascii_case(name.as_str());
        !self.is_empty() && self.sync_standby.iter().any(same)
    }

    /// Whether `name` wrote it, in any case.
    pub fn is_led_by(&self, name: &NodeName) -> bool {
        let same = |leader: &NodeName| leader.as_str().eq_ignore_ascii_case(name.as_str());
        self.leader.as_ref().is_some_and(same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> NodeName {
        NodeName::try_from(name).unwrap()
    }

    #[test]
    fn all_spellings_of_nothing_are_empty() {
        for nothing in ["", "null", "{}", r#"{"leader":null,"sync_standby":"a"}"#, r#"{"leader":""}"#] {
            let state = SyncState::parse(nothing.as_bytes()).unwrap();
            assert!(state.is_empty(), "{nothing}");
            assert_eq!(state.render(), b"{}");
        }
    }

    #[test]
    fn standbys_are_split_and_compared_in_any_case() {
        let state = SyncState::parse(br#"{"leader":"Foo","quorum":null,"sync_standby":" zoo, ,Bar,"}"#).unwrap();
        assert!(state.has_standby(&name("bAr")) && state.has_standby(&name("zoo")));
        assert!(!state.has_standby(&name("foo")) && state.is_led_by(&name("foo")));
        assert_eq!(state.render(), br#"{"leader":"Foo","quorum":0,"sync_standby":"Bar,zoo"}"#);
    }

    #[test]
    fn garbage_is_not_the_empty_state() {
        for garbage in ["{", "[]x", "7", "\"x\"", r#"{"leader":7}"#, r#"{"leader":"a","sync_standby":"b/c"}"#] {
            assert!(SyncState::parse(garbage.as_bytes()).is_err(), "{garbage}");
        }
    }
}
