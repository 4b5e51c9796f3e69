//! Znode `status`: how far the leader has written.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::WireError;
use super::codec;
use crate::lsn::{Lsn, Timeline};

/// How far the leader has written, and which slots it keeps.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Status {
    /// The leader's position.
    #[serde(default, deserialize_with = "position_or_zero")]
    pub optime: Lsn,
    /// Confirmed positions of slots that exist on every member.
    #[serde(default, deserialize_with = "slots", skip_serializing_if = "BTreeMap::is_empty")]
    pub slots: BTreeMap<String, Lsn>,
    /// The timeline of these positions. Ours alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pgha_timeline: Option<Timeline>,
    /// Slots of absent members that are kept for a while.
    #[serde(default, deserialize_with = "names", skip_serializing_if = "Vec::is_empty")]
    pub retain_slots: Vec<String>,
}

impl Status {
    /// Reads the znode; a bare number is the leader's position, as in `optime/leader`.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let (document, expected) = ("znode `status`", "a JSON object with `optime`");
        match codec::read(document, expected, bytes)? {
            Value::Number(number) if number.is_u64() => {
                Ok(Self { optime: Lsn(number.as_u64().unwrap_or_default()), ..Self::default() })
            }
            object => serde_json::from_value(object).map_err(|error| WireError {
                document,
                expected,
                problem: error.to_string(),
            }),
        }
    }

    /// Writes the znode.
    pub fn render(&self) -> Vec<u8> {
        codec::write(self)
    }
}

fn position_or_zero<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Lsn, D::Error> {
    codec::position(deserializer).map(Option::unwrap_or_default)
}

/// Positions that are no numbers count as 0, as in Patroni: they hold nothing back.
fn slots<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Lsn>, D::Error> {
    let raw = Option::<BTreeMap<String, Value>>::deserialize(deserializer)?.unwrap_or_default();
    let position = |value: Value| Lsn(codec::whole_number(&value).unwrap_or_default());
    Ok(raw.into_iter().map(|(name, value)| (name, position(value))).collect())
}

fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_forms_are_read() {
        assert_eq!(Status::parse(b"67395656").unwrap().optime, Lsn(67_395_656));
        let status = Status::parse(br#"{"optime":"5","slots":null,"retain_slots":null}"#).unwrap();
        assert_eq!(status.render(), br#"{"optime":5}"#);
        for bad in [&b""[..], b"-1", b"\"x\"", b"[]x", br#"{"optime":-1}"#] {
            assert!(Status::parse(bad).is_err());
        }
    }
}
