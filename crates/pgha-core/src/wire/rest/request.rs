//! What is asked for: bodies of the calls that change something.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::lsn::Lsn;
use crate::name::{Epoch, NodeName};
use crate::time::Millis;
use crate::wire::codec::{self, document};

/// `POST /switchover` and `POST /failover`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SwitchoverBody {
    /// The leader that shall step down.
    #[serde(default, deserialize_with = "name", skip_serializing_if = "Option::is_none")]
    pub leader: Option<NodeName>,
    /// Who shall lead.
    #[serde(default, alias = "member", deserialize_with = "name", skip_serializing_if = "Option::is_none")]
    pub candidate: Option<NodeName>,
    /// When, if not now; text, because a wrong time has an answer of its own (422).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_at: Option<String>,
}

document!(SwitchoverBody, "the body of the request", "a JSON object with `leader`, `candidate` and `scheduled_at`");

/// `POST /restart`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RestartBody {
    /// Only if the member has this role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Only if Postgres is older than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres_version: Option<String>,
    /// How long Postgres may take.
    #[serde(
        default,
        serialize_with = "write_seconds",
        deserialize_with = "read_seconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub timeout: Option<Millis>,
    /// Only if a changed setting waits for it.
    #[serde(default, skip_serializing_if = "codec::is_false")]
    pub restart_pending: bool,
    /// When, if not now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
}

document!(RestartBody, "the body of the request", "a JSON object of conditions");

/// `POST /failsafe`: a primary that has lost `ZooKeeper` asks whether it may go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailsafeBody {
    /// The primary.
    pub name: NodeName,
    /// Where its Postgres listens.
    pub conn_url: String,
    /// Where its agent listens.
    pub api_url: String,
    /// Its leadership; pgha's own, and without it nothing is promised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// Confirmed positions of slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<BTreeMap<String, Lsn>>,
}

document!(FailsafeBody, "the body of the request", "a JSON object with `name`, `conn_url` and `api_url`");

#[expect(clippy::ref_option, reason = "the signature that serde calls")]
fn write_seconds<S: Serializer>(length: &Option<Millis>, serializer: S) -> Result<S::Ok, S::Error> {
    length.map(|length| length.0 / 1000).serialize(serializer)
}

/// Seconds as a number or as text, or text with a unit: patronictl passes on what was typed.
fn read_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Millis>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    if value.is_null() {
        return Ok(None);
    }
    let with_unit = || value.as_str().and_then(|text| text.trim().parse().ok());
    let length = codec::seconds(&value).or_else(with_unit);
    length
        .map(Some)
        .ok_or_else(|| serde::de::Error::custom(format_args!("`timeout` is not a number of seconds: {value}")))
}

/// A name; empty text is none, as patronictl sends it.
fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NodeName>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty());
    text.map(|text| NodeName::try_from(text).map_err(serde::de::Error::custom)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_names_of_the_candidate_are_read() {
        for body in [r#"{"leader":"a","candidate":"b"}"#, r#"{"leader":"a","member":"b","scheduled_at":null}"#] {
            let body = SwitchoverBody::parse(body.as_bytes()).unwrap();
            assert_eq!(body.render(), br#"{"leader":"a","candidate":"b"}"#);
        }
        let body = SwitchoverBody::parse(br#"{"leader":"a","candidate":""}"#).unwrap();
        assert_eq!(body.candidate, None);
        assert!(SwitchoverBody::parse(br#"{"leader":"a b"}"#).is_err());
    }

    #[test]
    fn an_empty_request_is_an_empty_object() {
        assert_eq!(RestartBody::default().render(), b"{}");
        assert_eq!(RestartBody::parse(b"{}"), Ok(RestartBody::default()));
    }

    #[test]
    fn a_timeout_is_seconds_or_has_a_unit() {
        for (text, length) in [("30", 30_000), ("\"30\"", 30_000), ("\"30s\"", 30_000), ("\"2min\"", 120_000)] {
            let body = RestartBody::parse(format!("{{\"timeout\":{text}}}").as_bytes()).unwrap();
            assert_eq!(body.timeout, Some(Millis(length)), "{text}");
        }
        assert_eq!(RestartBody::parse(br#"{"timeout":null}"#), Ok(RestartBody::default()));
        assert!(RestartBody::parse(br#"{"timeout":"soon"}"#).is_err());
    }
}
